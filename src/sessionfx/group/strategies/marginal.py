"""marginal: all session maps, one working correlation for all voxels, and cluster-robust errors by participants.

Its errors come from how participants differ, not from a model of the sessions; `Marginal.assumptions` has what remains.
Where groups are compared, or are unequal in size, each has a working covariance of its own. With few participants,
missing sessions and very unequal variances together its false positives rise (`validity.FEW_AND_UNEQUAL`); see
`statistics.cluster_robust`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import NOTABLE_SPREAD, Judgement
from sessionfx.group.strategies.base import (
    NO_BAYES_FACTOR,
    GroupOptions,
    MapLayout,
    PartialMaps,
    Plan,
    Question,
    check_bootstrap,
    variance_groups,
)
from sessionfx.group.strategies.designs import MAIN_EFFECTS, MIXTURE, session_design
from sessionfx.group.strategies.robust_values import FEWEST, NAMES, NO_RESAMPLING, too_few
from sessionfx.group.strategies.robust_values import NO_BAYES_FACTOR as NO_ROBUST_BAYES_FACTOR
from sessionfx.group.strategies.strategy import FEW_DOF, ROUNDING, Assumptions, Grounds, Strategy
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.cluster_influence import ClustersLeftOut
from sessionfx.statistics.cluster_robust import (
    ALL_SEEN,
    ENOUGH_DOF,
    RobustContrast,
    estimate_robust,
    in_parts,
    robust,
    robust_contrast,
    wald_robust,
    whitened,
)
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array, repeated_blocks
from sessionfx.statistics.partial_coverage import Fitted
from sessionfx.statistics.participant_variance import (
    ParticipantSpectrum,
    PooledGroups,
    PooledRatio,
    participant_spectrum,
)
from sessionfx.statistics.resampling import WildBootstrap, wild_bootstrap
from sessionfx.statistics.robust import MEstimator
from sessionfx.statistics.robust_clusters import RobustClusters, prepare_robust_clusters
from sessionfx.wording import counted, dof_text

DIFFERENT_PEOPLE = (
    "No participant has more than one of these sessions, so that sessions are compared between different people."
)
# Where sessions vary unequally and some are missing: with fewer participants than this in a session, or in a session of
# a group that is asked about, false positives exceed the nominal rate, above all at small p (docs/validity.md)
MANY_IN_A_CELL = 20
# With fewer in a session, and a smaller share of all, the test of any difference exceeds 2 ‰ at a nominal 1 ‰; six of
# twelve do not make it do so
FEW_IN_A_CELL = 10
FEW_OF_ALL = 1 / 4
# An F test over three groups of which one, of three or four against twice 20, varies three times as much has 5.7 to
# 6.5 % and 5 ‰ at 5 to 8 degrees of freedom; groups of six have 4.6 % and 0.8 ‰ at most (20,000 voxels each)
FEW_DOF_OF_F = 8.0 - ROUNDING
COUNTED_FULLY = "--robust: a test of several contrasts counts all participants fully."
UNSEEN = (
    "This contrast rests in part on maps that the model fits exactly, such as those of the only participant with a "
    "session or with a level of a covariate. Cluster-robust errors cannot see how much these vary, and would be too "
    "small."
)
_ROUNDING = 1e-6  # of degrees of freedom


@dataclass(frozen=True)
class WorkingCovariance:
    """One for all voxels."""

    ratio: float  # variance between over variance within participants
    # of each group: this ratio, and the variance within participants relative to the first group
    by_group: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of_groups(cls, ratio: float, groups: Sequence[str], ratios: Array, variances: Array) -> WorkingCovariance:
        """Name the K ratios and variances of groups, which are given in the order in which they first appear."""
        pairs = zip(ratios.tolist(), variances.tolist(), strict=True)
        return cls(ratio, dict(zip(dict.fromkeys(groups), pairs, strict=True)))

    @property
    def fields(self) -> dict[str, object]:
        """For the sidecar."""
        found: dict[str, object] = {"WorkingCorrelation": self.ratio / (1 + self.ratio)}
        if self.by_group:
            ratios, variances = np.array(list(self.by_group.values())).T
            total = variances * (1 + ratios)
            for name, values in (
                ("WorkingCorrelationByGroup", ratios / (1 + ratios)),
                ("RelativeWorkingStandardDeviationByGroup", np.sqrt(total / total.min())),
            ):
                found[name] = dict(zip(self.by_group, values.tolist(), strict=True))
        return found

    def of_each(self, groups: Sequence[str], n: int) -> tuple[Array, Array]:
        """Give ratio and relative variance within of each of n participants, whose groups count where these differ."""
        if not self.by_group:
            return np.full(n, self.ratio), np.ones(n)
        own = np.array([self.by_group[label] for label in groups])
        return own[:, 0], own[:, 1]


@dataclass(frozen=True)
class MarginalPlan(Plan):
    """Generalised least squares with cluster-robust variance."""

    participants: tuple[str, ...] = field(kw_only=True)  # of each row
    spectrum: ParticipantSpectrum = field(kw_only=True)
    prepared: RobustContrast | None = None
    group_spectra: tuple[ParticipantSpectrum, ...] = ()  # of the groups, in the order in which they first appear
    known: tuple[str, ...] = ()  # warnings of the design, whatever the working correlation
    working: WorkingCovariance | None = None  # what `informed` found

    @property
    def pools(self) -> bool:
        """Whether there is a working correlation to estimate."""
        return self.spectrum.separates

    @property
    def pool_key(self) -> object:
        """Plans of one design share the working correlation; see `Plan.pool_key`."""
        return id(self.spectrum), self.groups

    @property
    def n_responses(self) -> int:
        """Values of each map that the model is for: the contrasts that are tested together, or one."""
        return max(self.n_tested, 1)

    @property
    def _pooled_groups(self) -> PooledGroups:
        owner = dict(zip(dict.fromkeys(self.participants), self.groups, strict=True))
        of_rows = np.array([owner[participant] for participant in self.participants])
        return PooledGroups(
            self.group_spectra, [np.nonzero(of_rows == label)[0] for label in dict.fromkeys(self.groups)],
            self.n_responses,
        )  # fmt: skip

    def pooled_sums(self, effects: NDArray[np.floating]) -> Array:
        """Sum the profile REML over voxels; see `Plan.pooled_sums`."""
        common = PooledRatio(self.spectrum, self.n_responses).sums(effects)
        return np.concatenate([common, self._pooled_groups.sums(effects)]) if self.groups else common

    def informed(self, sums: Array) -> Self:
        """Estimate the working covariance and prepare the contrast with it; see `Plan.informed`."""
        pooled = PooledRatio(self.spectrum, self.n_responses)
        n_common = pooled.n_sums
        ratio = pooled.estimate(sums[:n_common])
        if not self.groups:
            return self.with_working(WorkingCovariance(ratio))
        of_groups = self._pooled_groups.estimate(sums[n_common:], ratio)
        return self.with_working(WorkingCovariance.of_groups(ratio, self.groups, *of_groups))

    def working_as(self, other: Plan) -> Self:
        """Work with the covariance of another plan; see `Plan.working_as`."""
        assert isinstance(other, MarginalPlan) and other.working is not None  # noqa: S101 - of the same strategy
        working = other.working
        if not working.by_group:
            return replace(self, groups=()).with_working(working)
        # of core maps somebody may have none: the group is then that of this plan
        group_of = dict(zip(dict.fromkeys(self.participants), self.groups, strict=False))
        group_of |= zip(dict.fromkeys(other.participants), other.groups, strict=True)
        groups = tuple(group_of[participant] for participant in dict.fromkeys(self.participants))
        own = {label: working.by_group[label] for label in dict.fromkeys(groups)}
        return replace(self, groups=groups).with_working(WorkingCovariance(working.ratio, own))

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Estimate with the design of each voxel and one working covariance; see `Plan.estimate_apart`."""
        assert self.working is not None  # noqa: S101 - `plan` gives it
        ratio, scale = self.working.of_each(self.groups, len(maps.rows))
        design = maps.arranged(self.design_matrix.to_numpy())
        of_contrast = 2 * design.shape[2] * len(np.atleast_2d(self.contrast))
        white = maps.shared(whitened, design, ratio, scale)
        return in_parts(lambda voxels: robust(white.at(voxels), self.contrast), maps.cells.has.shape, of_contrast)

    def leaving_out(self) -> Callable[[int], Plan | None] | None:
        """Take each participant out of the normal equations; see `Plan.leaving_out`."""
        assert self.prepared is not None and self.working is not None  # noqa: S101 - `plan` prepares it
        left = ClustersLeftOut(
            self.prepared, self.design_matrix.to_numpy(), self.participants, self.contrast,
            self.working.of_each(self.groups, len(set(self.participants))), n_responses=self.n_responses,
        )  # fmt: skip

        def without(number: int) -> Plan | None:
            prepared = left.without(number)
            return None if prepared is None else replace(self, prepared=prepared)

        return without

    def with_working(self, working: WorkingCovariance, *, needs_dof: bool = True) -> Self:
        """Prepare the contrast with a working covariance.

        Parameters
        ----------
        working : WorkingCovariance
        needs_dof : bool
            Whether too few degrees of freedom are refused.

        Raises
        ------
        NotEstimableError
            If too few participants carry the contrast, or part of it is carried by one alone.
        """
        ratio, scale = working.of_each(self.groups, len(set(self.participants)))
        prepared = robust_contrast(
            self.design_matrix.to_numpy(), self.participants, self.contrast, ratio, scale,
            n_responses=self.n_responses,
        )  # fmt: skip
        q = len(prepared.weights)
        if prepared.seen < ALL_SEEN:
            raise NotEstimableError(UNSEEN)
        if needs_dof and not prepared.dof - q + 1 >= ENOUGH_DOF:
            raise NotEstimableError(
                f"Too few participants carry this contrast: {dof_text(max(prepared.dof - q + 1, 0.0))}."
            )
        dof = prepared.dof - q + 1
        few = (f"With {dof_text(dof)} its p values are approximate.",) if dof < FEW_DOF else ()
        details = working.fields
        return replace(
            self,
            prepared=prepared,
            working=working,
            warnings=(*self.known, *few),
            description=f"{_description(self)}, working correlation {details['WorkingCorrelation']:.2f}"
            + (", with a variance and a correlation of its own for each group." if working.by_group else "."),
            details={**self.details, **details},
        )

    def effective_n(self, question: Question) -> float:
        """Count the participants where the answer is that of summary-statistics; see `Plan.effective_n`."""
        assert self.prepared is not None  # noqa: S101 - `plan` prepares it
        n = len(set(self.participants))
        if self.prepared.spread is not None or abs(self.prepared.dof - (n - 1)) > _ROUNDING:
            raise NotEstimableError(NO_BAYES_FACTOR)
        return float(n)

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Estimate or test with cluster-robust errors; see `Plan.estimate`."""
        assert self.prepared is not None  # noqa: S101 - `plan` prepares it
        is_estimate = self.contrast.ndim == 1 and not self.n_tested
        return (estimate_robust if is_estimate else wald_robust)(self.prepared, effects)

    @cached_property
    def resampling(self) -> WildBootstrap:
        """Restricted wild cluster bootstrap; see `Plan.resampling`."""
        assert self.prepared is not None  # noqa: S101 - `plan` prepares it
        design = repeated_blocks(self.design_matrix.to_numpy(), self.n_responses)
        found = wild_bootstrap(self.prepared, design, self.participants * self.n_responses, self.groups)
        if self.groups:
            check_bootstrap(found, "The thresholds of --correction do not need them.")
        return found

    def resampled_values(
        self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None
    ) -> NDArray[np.floating]:
        """Give all maps; see `Plan.resampled_values`."""
        return effects


@dataclass(frozen=True)
class RobustMarginalPlan(MarginalPlan):
    """The same with participants weighed by what they add to the contrast; see `statistics.robust_clusters`."""

    robust: MEstimator = field(default="huber", kw_only=True)  # 'huber' or 'bisquare'
    clusters: RobustClusters | None = field(default=None, kw_only=True)  # what `with_working` prepares

    weighs_participants: ClassVar[bool] = True

    def with_working(self, working: WorkingCovariance, *, needs_dof: bool = True) -> Self:
        """Prepare the contrast, and the weights where this is the final working covariance; see `MarginalPlan`."""
        found = super().with_working(working, needs_dof=needs_dof)
        if not needs_dof:
            return found
        assert found.prepared is not None  # noqa: S101 - just prepared
        clusters = prepare_robust_clusters(
            self.robust, found.prepared, self.design_matrix.to_numpy(), self.participants, self.contrast,
            working.of_each(self.groups, len(set(self.participants))),
        )  # fmt: skip
        n_carrying = int((clusters.variances > 0).sum())
        if n_carrying < FEWEST:
            raise NotEstimableError(too_few(n_carrying))
        return replace(
            found, clusters=clusters, description=f"{found.description.removesuffix('.')}, by {NAMES[self.robust]}."
        )

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Estimate with weights of participants; see `Plan.estimate`."""
        assert self.clusters is not None  # noqa: S101 - `plan` prepares it
        return self.clusters.estimate(np.asarray(effects, dtype=float))

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Have no way but one by one; see `Plan.estimate_apart`."""
        return None

    def leaving_out(self) -> Callable[[int], Plan | None] | None:
        """Have no quick way; see `Plan.leaving_out`."""
        return None

    def participant_weights(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Give the weights of participants, 0 to 1; see `Plan.participant_weights`."""
        assert self.clusters is not None  # noqa: S101 - `plan` prepares it
        return self.clusters.weights(np.asarray(effects, dtype=float))

    def effective_n(self, question: Question) -> float:
        """Decline; see `Plan.effective_n`."""
        raise NotEstimableError(NO_ROBUST_BAYES_FACTOR)

    @cached_property
    def resampling(self) -> WildBootstrap:
        """Decline; see `Plan.resampling`."""
        raise NotEstimableError(NO_RESAMPLING)


def _working_groups(
    layout: MapLayout, question: Question, options: GroupOptions, design: Array
) -> tuple[tuple[str, ...], tuple[ParticipantSpectrum, ...]]:
    """Find groups with a working covariance each; none where a group is too small to tell its own."""
    owners = np.array(layout.participants)
    rows = [int(np.argmax(owners == participant)) for participant in layout.unique_participants]
    groups = variance_groups(layout, question, options, rows)[1]
    group_of = dict(zip(layout.unique_participants, groups, strict=False))
    of_rows = np.array([group_of.get(participant, "") for participant in layout.participants])
    spectra = []
    for label in dict.fromkeys(groups):
        own = of_rows == label
        try:
            spectra.append(participant_spectrum(design[own], owners[own].tolist()))
        except ValueError:  # its rows are explained fully
            return (), ()
    return groups, tuple(spectra)


def _fewest_in_a_cell(question: Question, layout: MapLayout) -> int:
    """Count the participants of the session, and of the group that is asked about, that has the fewest."""
    rows = range(len(layout.participants))
    _, groups = variance_groups(layout, question, GroupOptions(), rows)
    cells = Counter(zip(layout.sessions, groups or ("",) * len(rows), strict=True))
    return min(cells.values())


def _has_pairs(layout: MapLayout) -> bool:
    return len(layout.unique_participants) < len(layout.participants)


def _description(plan: MarginalPlan) -> str:
    n_maps, n_participants = len(plan.participants), len(set(plan.participants))
    kind = "Wald F test" if plan.contrast.ndim > 1 or plan.n_tested else "Marginal model"
    maps = f"{n_maps} maps" + (f" of {counted(plan.n_tested, 'contrast')} each" if plan.n_tested else "")
    return f"{kind} of {maps} with cluster-robust errors (CR2) over {n_participants} participants"


class Marginal(Strategy):
    """Working correlation and cluster-robust errors."""

    name = "marginal"
    title = "Marginal model"
    full_title = "Marginal model (GEE, sandwich errors)"
    preference = 1
    is_robust = True
    takes_robust = ("huber", "bisquare")
    assumptions = Assumptions(
        values="maps are normal",
        spread=(
            "may differ; degrees of freedom are approximate, and too many where a few participants who vary more carry "
            "the contrast"
        ),
        sessions=(
            "nothing where participants are many; with few, errors and degrees of freedom are corrected as for equal "
            "correlations"
        ),
        missing="what is missing goes neither with a participant's level nor with the change, given the covariates",
    )

    def rank(self, grounds: Grounds) -> int:
        """Step back where another loses less; see `Strategy.rank`."""
        layout = grounds.layout
        # with covariates the tests over participants rest on equal variances, or on a variance of few participants
        # where sessions are missing, values of participants leave people out, or mix sessions, and cost power
        few = layout.is_balanced and not (layout.covariate_names or layout.session_covariate_names)
        few = few and grounds.dof < FEW_DOF
        by_level = grounds.evidence.dropout_by_level and grounds.question.sessions.is_within_participant
        return 3 if few or by_level else self.preference

    def judge(self, grounds: Grounds) -> Judgement:
        """Call for care where few carry the contrast, or sessions are missing and unequal; see `Strategy.judge`."""
        layout, asked, spread = grounds.layout, grounds.question.sessions, grounds.evidence.session_spread
        n, fewest = len(layout.unique_participants), _fewest_in_a_cell(grounds.question, layout)
        if not _has_pairs(layout) and asked.is_within_participant:
            return Judgement(
                "conditional",
                "no participant has more than one of these sessions, so that it compares different people.",
            )
        if not layout.is_balanced and spread is not None and spread >= NOTABLE_SPREAD and fewest < MANY_IN_A_CELL:
            return Judgement(
                "conditional",
                "sessions are missing and vary unequally over participants (their standard deviations differ "
                f"{spread:.1f}-fold); with as few as {fewest} participants in a session its errors can then be "
                "somewhat too small.",
            )
        if grounds.dof < (FEW_DOF_OF_F if grounds.question.group.is_f_test else FEW_DOF):
            return Judgement("conditional", f"with {dof_text(grounds.dof)} its p values are approximate.")
        if asked.kind == "any" and not layout.is_balanced and fewest < min(FEW_IN_A_CELL, FEW_OF_ALL * n):
            return Judgement(
                "conditional",
                f"as few as {fewest} participants are in a session, and small p values of its test of any difference "
                "are then somewhat too small.",
            )
        if MAIN_EFFECTS in grounds.plan.warnings:
            return Judgement(
                "conditional",
                "some groups have no map of some sessions, and it takes the effects of covariates to be the same in "
                "all sessions.",
            )
        if MIXTURE in grounds.plan.warnings:
            return Judgement(
                "conditional",
                "it mixes the effect of session covariates within participants with that between them, as asked.",
            )
        if layout.n_sessions == 1:
            return Judgement("yes", "with one map per participant its errors allow participants to vary unequally.")
        return Judgement(
            "yes",
            "its errors come from how participants vary, not from a model of how sessions co-vary"
            + ("." if layout.is_balanced else ", and it uses every map there is."),
        )

    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe generalised estimating equations with small-sample corrections; see `Strategy.methods`."""
        text = (
            f"{self.title}: all session maps entered a generalised least-squares model with one column per "
            "session and an exchangeable working correlation within participants, estimated over all voxels by "
            "restricted maximum likelihood; standard errors were cluster-robust with the CR2 correction, with "
            "Satterthwaite degrees of freedom {cite}, of the design or of the voxel, whichever are fewer."
        )
        if work.groups:
            text += " Groups of participants that were compared, or of unequal size, had a working covariance each."
        if options.robust in self.takes_robust:
            text += (
                f" In single contrasts participants were weighed by {NAMES[options.robust]} of their scores {{cite}}, "
                "so that outlying ones count less."
            )
            return text, ("bell_mccaffrey", "pustejovsky", "preisser")
        return text, ("bell_mccaffrey", "pustejovsky")

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> MarginalPlan:
        """Build the model of all session maps; see `Strategy.plan`."""
        design = session_design(layout, question, options.session_covariate_effect)
        design.check()
        groups, spectra = _working_groups(layout, question, options, design.matrix.to_numpy())
        unpaired = question.sessions.is_within_participant and not _has_pairs(layout)
        is_robust = options.robust in self.takes_robust
        kind: Callable[..., MarginalPlan] = MarginalPlan
        known = [*([DIFFERENT_PEOPLE] if unpaired else []), *design.warnings]
        if is_robust and question.is_f_test:
            known.append(COUNTED_FULLY)
        elif is_robust:
            kind = partial(RobustMarginalPlan, robust=cast("MEstimator", options.robust))
        start = kind(
            design.matrix, design.contrast, tuple(range(len(layout.participants))),
            details=design.details | ({} if kind is MarginalPlan else {"RobustEstimate": options.robust}),
            participants=layout.participants,
            spectrum=participant_spectrum(design.matrix.to_numpy(), layout.participants),
            groups=groups,
            group_spectra=spectra,
            known=tuple(known),
            n_tested=len(question.tested),
        )  # fmt: skip
        # where the working correlation is to be estimated, the degrees of freedom that it gives decide
        return start.with_working(WorkingCovariance(0.0), needs_dof=not start.pools)

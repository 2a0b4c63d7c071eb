"""Values of participants: combine each participant's sessions, then an ordinary model over participants.

One value for most questions; for a test of any difference the participant's maps of all sessions. Summary statistics
and meta-analysis test them, and they show what such tests assume (`group.participant_evidence`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.ask.session_contrasts import SessionContrast, trend_weights
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import (
    GroupOptions,
    MapLayout,
    PartialMaps,
    Plan,
    Question,
    check_bootstrap,
    variance_groups,
)
from sessionfx.group.strategies.designs import (
    NO_DIFFERENCE,
    complete_participants,
    difference_contrasts,
    no_trend,
    session_differences,
)
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.fixed_effects import average
from sessionfx.statistics.linear_algebra import Array, independent_columns, is_estimable, pseudo_inverse, rank_of
from sessionfx.statistics.multivariate import hotelling
from sessionfx.statistics.ols import OlsContrasts, prepare_ols
from sessionfx.statistics.partial_coverage import Fitted, complete_values, ordinary, welch
from sessionfx.statistics.partial_coverage import hotelling as hotelling_apart
from sessionfx.statistics.resampling import Resampling, grouped_wild_bootstrap, pooled_resampling
from sessionfx.statistics.unequal_variances import GroupedContrast, GroupedTest, grouped_contrast, grouped_test
from sessionfx.wording import counted, listed, session_names

MOST_COLUMNS = 8  # named in a sentence
INCOMPLETE_MEAN = (
    "Some participants miss sessions, and their mean is over the sessions they have: where sessions truly "
    "differ, it mixes who was scanned with when, and is biased."
)
INCOMPLETE_TREND = (
    "Some participants miss sessions, and their trend is over the sessions they have: where change does "
    "not follow the trend, it is not the same quantity for everyone."
)
_WARNINGS_IF_INCOMPLETE = {"mean": (INCOMPLETE_MEAN,), "trend": (INCOMPLETE_TREND,)}
NO_RESAMPLED_F = (
    "There are no family-wise p values of an F test over participants by permutation here; the marginal strategy has "
    "them by the wild bootstrap."
)
ONE_TEST_AT_A_TIME = (
    "Hotelling's T² tests several values of each participant (differences between sessions, or conditions) for one "
    "group contrast at a time; the marginal strategy tests several."
)
PRECISION_OF_EACH = (
    "With --fixed-effects precision every contrast would have weights of its own, and a test of several would depend "
    "on how they are written. The marginal strategy tests them without such weights."
)
UNEQUAL_GROUPS = (
    "Each group has a variance of its own here, and the Bayes factor is that of a t test with one for all. --variance "
    "pooled has it; it holds if the groups vary equally."
)


@dataclass(frozen=True)
class ParticipantPlan(Plan):
    """A model over n participants, of one value or of several values each."""

    @property
    @abstractmethod
    def combinations(self) -> sparse.csr_array:
        """Weights of shape (S n, N) of the maps in S values of each participant, one value after the other."""

    @cached_property
    def over_participants(self) -> Array:
        """Weights of participants in the contrast, of shape (n,), or (R, n) for an F test over participants."""
        return np.asarray(self.contrast @ pseudo_inverse(self.design_matrix.to_numpy()))

    @property
    def map_weights(self) -> Array:
        """Weights of shape (Q, N) of the maps in the estimate, or in the Q that are tested together."""
        n_values = self.combinations.shape[0] // len(self.design_matrix)
        differences = difference_contrasts(n_values) if n_values > 1 else np.ones((1, 1))
        return np.asarray(np.kron(differences, self.over_participants) @ self.combinations)


@dataclass(frozen=True)
class SummaryStatisticsPlan(ParticipantPlan):
    """One value per participant, then OLS."""

    # (n, N): weight of each map in each participant's value; none of them is 0
    combination: sparse.csr_array = field(kw_only=True)
    # whether the weights are replaced by the maps' precisions (means only)
    precision_weighted: bool = field(default=False, kw_only=True)

    @cached_property
    def prepared(self) -> OlsContrasts | GroupedContrast | GroupedTest:
        """The contrast over participants, ready for any number of voxels."""
        if self.groups:
            return grouped_test(self.design_matrix.to_numpy(), self.contrast, self.groups)
        return prepare_ols(self.design_matrix.to_numpy(), self.contrast)

    @property
    def combinations(self) -> sparse.csr_array:
        """One value of each participant, which needs the participant's maps alone."""
        return self.combination

    @property
    def uses_variances(self) -> bool:
        """Precision weights do."""
        return self.precision_weighted

    def participant_values(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Combine the sessions of each participant.

        Parameters
        ----------
        effects, variances : ndarray of shape (N, V)
            Variances are needed for precision weights only.

        Returns
        -------
        ndarray of shape (n, V)
        """
        if not self.precision_weighted:
            return np.asarray(self.combinations @ effects)
        if variances is None:
            raise ValueError("precision weights need the maps' variances")
        values = np.empty((len(self.design_matrix), effects.shape[1]))
        of_each = np.split(self.combination.indices, self.combination.indptr[1:-1])
        for value, rows in zip(values, of_each, strict=True):
            inputs = [Estimate(effects[row].astype(float), variances[row].astype(float), 0.0) for row in rows]
            value[:] = average(inputs, "precision", "sum").effect
        return values

    def participant_variances(self, variances: NDArray[np.floating]) -> Array:
        """Find the sampling variances of the participants' values.

        Parameters
        ----------
        variances : ndarray of shape (N, V)
            Of the maps, which are independent of each other given the participant.

        Returns
        -------
        ndarray of shape (n, V)
            Σ c² v, or 1 / Σ 1/v for precision weights: variance within participants only.
        """
        if self.precision_weighted:
            with np.errstate(divide="ignore", invalid="ignore"):  # variances of zero: undetermined voxels
                return np.asarray(1 / ((self.combination != 0).astype(float) @ (1 / variances)))
        return np.asarray(self.combination.power(2) @ variances)

    def effective_n(self, question: Question) -> float:
        """Find 1 / c′(X′X)⁻¹c; see `Plan.effective_n`."""
        if not isinstance(self.prepared, OlsContrasts):
            raise NotEstimableError(UNEQUAL_GROUPS)
        n = 1 / float(np.square(self.prepared.weights).sum())
        if question.group.covariate:
            column = list(self.design_matrix.columns).index(question.group.covariate)
            spread = float(self.design_matrix.iloc[:, column].std(ddof=0))
            n *= (float(self.contrast[column]) / (2 * spread)) ** 2
        return n

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Combine, then estimate the contrast over participants; see `Plan.estimate`."""
        values = self.participant_values(effects, variances)
        if isinstance(self.prepared, OlsContrasts) and self.contrast.ndim > 1:
            return FTest(*self.prepared.test(values))
        return self.prepared.estimate(values)

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Combine the sessions that a participant has at a voxel; see `Plan.estimate_apart`."""
        if self.precision_weighted or (self.groups and self.contrast.ndim > 1):
            return None
        values, has = combined_where_there(maps)
        design = maps.between
        if not self.groups:
            return ordinary(values, has, design, self.contrast)
        group_of = dict(zip(self.design_matrix.index, self.groups, strict=True))
        groups = [group_of.get(f"sub-{participant}") for participant in maps.layout.unique_participants]
        members = np.array([[float(own == label) for own in groups] for label in dict.fromkeys(self.groups)])
        return welch(values, has, design, self.contrast, members)

    def tested_values(self, effects: NDArray[np.floating]) -> Array:
        """Give the one value of each participant; see `VectorPlan.tested_values`."""
        return self.participant_values(effects, None)[None]

    @cached_property
    def resampling(self) -> Resampling:
        """Flips or permutations; by group, the wild bootstrap. See `Plan.resampling`."""
        if self.contrast.ndim > 1:
            raise NotEstimableError(NO_RESAMPLED_F)
        return _resampling(self.design_matrix, self.contrast, self.groups)

    def resampled_values(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """One value per participant; see `Plan.resampled_values`."""
        return self.participant_values(effects, variances)


@dataclass(frozen=True)
class VectorPlan(ParticipantPlan):
    """Hotelling's T² on several values of each participant."""

    @property
    @abstractmethod
    def n_values(self) -> int:
        """How many values of each participant are tested, Q."""

    @abstractmethod
    def tested_values(self, effects: NDArray[np.floating]) -> Array:
        """Give the values that are zero on average under the null hypothesis, of shape (Q, n, V)."""

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Test the values; see `Plan.estimate`."""
        values, design = self.tested_values(effects), self.design_matrix.to_numpy()
        if self.groups:
            return grouped_contrast(design, self.contrast, self.groups).test(values)
        return hotelling(values, design, self.contrast)

    @cached_property
    def resampling(self) -> Resampling:
        """All values of a participant are resampled together; see `Plan.resampling`."""
        return _resampling(self.design_matrix, self.contrast, self.groups, self.n_values)


@dataclass(frozen=True)
class SessionVectorPlan(VectorPlan):
    """Hotelling's T² on each participant's differences between sessions."""

    # (n, S): rows of the maps of each participant who has every session
    complete: NDArray[np.int_] = field(kw_only=True)
    n_of_layout: int = field(kw_only=True)  # maps of the layout, of which `rows` are used

    @cached_property
    def combinations(self) -> sparse.csr_array:
        """Each session's map of each participant."""
        rows = self.complete.T.ravel()
        shape = (rows.size, self.n_of_layout)
        return sparse.csr_array((np.ones(rows.size), (np.arange(rows.size), rows)), shape=shape)

    @property
    def n_values(self) -> int:
        """Sessions less one."""
        return int(self.complete.shape[1]) - 1

    def tested_values(self, effects: NDArray[np.floating]) -> Array:
        """Give the differences between sessions; see `VectorPlan.tested_values`."""
        vectors = effects[self.complete]
        differences = session_differences(effects, self.complete)
        # sessions that are equal leave rounding error, which is no difference
        rounding = np.finfo(float).eps * vectors.shape[1] * np.abs(vectors).max(axis=1)
        differences[np.abs(differences) <= rounding] = 0.0
        return differences

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Test those who have every session at a voxel; see `Plan.estimate_apart`."""
        if self.groups:
            return None
        values, has = complete_values(maps.cells, difference_contrasts(len(maps.sessions)))
        return hotelling_apart(values, has, maps.between, self.contrast)

    def resampled_values(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Give the differences between sessions, one after the other; see `Plan.resampled_values`."""
        return session_differences(effects, self.complete).reshape(-1, effects.shape[1])


@dataclass(frozen=True)
class ConditionsPlan(VectorPlan):
    """Hotelling's T² on what each participant has of several first-level contrasts."""

    of_one: SummaryStatisticsPlan | SessionVectorPlan = field(kw_only=True)  # gives the values of one of them

    @property
    def n_values(self) -> int:
        """Those of one contrast, times the contrasts."""
        return self.n_tested * (self.of_one.n_values if isinstance(self.of_one, SessionVectorPlan) else 1)

    @property
    def combinations(self) -> sparse.csr_array:
        """Values of one contrast; see `ParticipantPlan.combinations`."""
        return self.of_one.combinations

    def tested_values(self, effects: NDArray[np.floating]) -> Array:
        """Give the values of all contrasts, one contrast after the other; see `VectorPlan.tested_values`."""
        return np.concatenate([self.of_one.tested_values(own) for own in np.split(effects, self.n_tested)])

    def resampled_values(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Give the values of all contrasts; see `Plan.resampled_values`."""
        return self.tested_values(effects).reshape(-1, effects.shape[1])


def _resampling(design: pd.DataFrame, contrast: Array, groups: Sequence[str], n_values: int = 1) -> Resampling:
    matrix = design.to_numpy()
    if not groups:
        return pooled_resampling(matrix, contrast, n_values)
    found = grouped_wild_bootstrap(grouped_contrast(matrix, contrast, groups), matrix, n_values)
    check_bootstrap(
        found, "--variance pooled permutes participants between groups, which is valid only if these vary equally."
    )
    return found


def plan_participants(layout: MapLayout, question: Question, options: GroupOptions) -> ParticipantPlan:
    """Choose the participants whose sessions can answer a question, and plan the model of their values.

    Raises
    ------
    NotEstimableError
        As `plan_values` and `plan_session_vectors`; and where several contrasts are tested in too few participants.
    """
    is_any = question.sessions.kind == "any"
    if question.group.is_f_test and (is_any or question.tested):
        raise NotEstimableError(ONE_TEST_AT_A_TIME)
    of_one = plan_session_vectors(layout, question, options) if is_any else plan_values(layout, question, options)
    return _plan_conditions(of_one, len(question.tested)) if question.tested else of_one


def _plan_conditions(of_one: SummaryStatisticsPlan | SessionVectorPlan, n_tested: int) -> ConditionsPlan:
    """Plan a test of several first-level contrasts, on the participants who can answer for one."""
    if of_one.uses_variances:
        raise NotEstimableError(PRECISION_OF_EACH)
    design, n = of_one.design_matrix, len(of_one.design_matrix)
    what = counted(n_tested, "contrast")
    if isinstance(of_one, SessionVectorPlan):
        what += f" in {counted(of_one.n_values, 'difference')} between sessions"
    plan = ConditionsPlan(
        design_matrix=design, contrast=of_one.contrast, rows=of_one.rows, left_out=of_one.left_out,
        description=f"Hotelling's T² on {what} of {n} participants.", warnings=of_one.warnings,
        details=of_one.details, groups=of_one.groups, n_tested=n_tested, of_one=of_one,
    )  # fmt: skip
    rank = rank_of(design.to_numpy())
    if n - rank < plan.n_values:
        raise NotEstimableError(
            f"{n} participants can answer, too few for Hotelling's T² on {what} (at least {plan.n_values + rank})."
        )
    _check_groups(plan.groups, plan.n_values, design, plan.contrast)
    return plan


def combine_sessions(layout: MapLayout, asked: SessionContrast) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Find the weight of each map in each participant's value.

    Returns
    -------
    combinations : dict of str to dict of int to float
        Weight of each row, by participant.
    left_out : dict of str to str
        Participants who cannot answer, and why.

    Raises
    ------
    NotEstimableError
        If the question has no meaning, or fewer than two participants can answer it.
    """
    if asked.kind == "trend" and not asked.weights:
        raise NotEstimableError(no_trend(asked))
    combinations: dict[str, dict[int, float]] = {}
    left_out: dict[str, str] = {}
    needed = f"{asked.needed} sessions with different values of '{asked.time}'"
    for participant in layout.unique_participants:
        rows = layout.rows_of(participant)
        if asked.time is not None:
            times = layout.session_covariate(asked.time)[list(rows.values())]
            if len(np.unique(times)) > asked.degree:
                weights_in_time = trend_weights(times, asked.degree).tolist()
                combinations[participant] = dict(zip(rows.values(), weights_in_time, strict=True))
            else:
                left_out[participant] = f"has no {needed}"
            continue
        weights = asked.weights_for(list(rows))
        if weights is None:
            missing = [session for session in asked.asked_of if session not in rows]
            left_out[participant] = f"has no map of {session_names(missing)}"
            continue
        combinations[participant] = {rows[session]: weight for session, weight in weights.items()}
    if len(combinations) < 2:
        what = needed if asked.time else "the sessions this contrast needs"
        have = "Only one participant has" if combinations else "No participant has"
        raise NotEstimableError(f"{have} {what}; a group model needs at least two.")
    return combinations, left_out


def combined_where_there(maps: PartialMaps) -> tuple[Array, Array]:
    """Combine each participant's maps at voxels that lack some.

    Returns
    -------
    values : ndarray of shape (V, n)
        0 where a participant's maps cannot answer.
    has : ndarray of shape (V, n)
        1 where they can.
    """
    asked, cells = maps.question.sessions, maps.cells
    codes = (cells.has @ 2.0 ** np.arange(len(maps.sessions))).astype(int)
    known, of_cells = np.unique(codes, return_inverse=True)
    table = np.zeros((len(known), len(maps.sessions)))
    can = np.zeros(len(known))
    for row, code in enumerate(known):
        weights = asked.weights_for([session for at, session in enumerate(maps.sessions) if code >> at & 1])
        if weights is not None:
            can[row] = 1.0
            table[row] = [weights.get(session, 0.0) for session in maps.sessions]
    of_cells = of_cells.reshape(codes.shape)
    return np.einsum("vns,vns->vn", table[of_cells], cells.values), can[of_cells]


def plan_values(layout: MapLayout, question: Question, options: GroupOptions) -> SummaryStatisticsPlan:
    """Plan one value per participant: whose sessions can answer, and the model over these participants.

    Its columns are a constant, the covariates, and what session covariates add up to.

    Raises
    ------
    NotEstimableError
        As `combine_sessions`; or if the model does not determine the contrast over participants, or leaves no error.
    """
    combinations, left_out = combine_sessions(layout, question.sessions)
    incomplete = any(len(layout.rows_of(label)) < len(question.sessions.sessions) for label in combinations)
    asked = question.sessions
    combination = _combination_matrix(combinations.values(), len(layout.participants))
    first_rows = [next(iter(weights)) for weights in combinations.values()]
    between = layout.between(first_rows)
    names, values = layout.adjusting_covariates(asked)
    design = pd.concat([between, pd.DataFrame(combination @ values, columns=list(names))], axis=1)
    design.index = pd.Index([f"sub-{participant}" for participant in combinations])
    contrast = question.group_weights(design.shape[1])
    groups, sentence, details = _groups_in(layout, question, options, first_rows, design)
    is_mean = asked.kind == "mean"
    precision = is_mean and options.fixed_effects == "precision"
    columns = listed([str(name) for name in design.columns[1:]], most=MOST_COLUMNS)
    return SummaryStatisticsPlan(
        design_matrix=design,
        contrast=contrast,
        rows=tuple(sorted({row for weights in combinations.values() for row in weights})),
        left_out=left_out,
        description=("F test in the model" if contrast.ndim > 1 else "Model" if columns else "One-sample model")
        + (f" of {columns}" if columns else "")
        + f" on {len(combinations)} participants, one summary-statistics value each"
        + (f" ({options.fixed_effects} weights)." if is_mean else ".")
        + sentence,
        warnings=_WARNINGS_IF_INCOMPLETE.get(asked.kind, ()) if incomplete else (),
        details={
            "FixedEffectsWeighting": options.fixed_effects if is_mean else "equal",
            "ParticipantWeights": {
                f"sub-{participant}": "precision"
                if precision
                else {f"ses-{layout.sessions[row]}": weight for row, weight in weights.items() if layout.sessions[row]}
                for participant, weights in combinations.items()
            },
            **details,
        },
        combination=combination,
        precision_weighted=precision,
        groups=groups,
    )


def _combination_matrix(combinations: Iterable[dict[int, float]], n_maps: int) -> sparse.csr_array:
    """Put the weights of each participant's maps into a row."""
    rows = [[(row, weight) for row, weight in weights.items() if weight] for weights in combinations]
    numbers = np.repeat(np.arange(len(rows)), list(map(len, rows)))
    columns, weights = np.array([place for own in rows for place in own]).T
    return sparse.csr_array((weights, (numbers, columns.astype(int))), shape=(len(rows), n_maps))


class _Groups(NamedTuple):
    """Groups of participants with a variance each: none where one serves all."""

    groups: tuple[str, ...]  # of each participant
    sentence: str  # for the description
    details: dict[str, str]  # for the sidecar


def _groups_in(
    layout: MapLayout, question: Question, options: GroupOptions, rows: Sequence[int], design: pd.DataFrame
) -> _Groups:
    """Choose groups with a variance each in a model over participants, of one map of each.

    Raises
    ------
    NotEstimableError
        If the model does not determine the contrast or leaves no error; or a group that the contrast needs has one
        participant only, or none that the covariates leave free.
    """
    matrix = design.to_numpy()
    contrast = question.group_weights(design.shape[1])
    if not all(is_estimable(matrix, row) for row in np.atleast_2d(contrast)):
        kept = independent_columns(matrix)
        explained = [str(name) for index, name in enumerate(design.columns) if index not in kept]
        raise NotEstimableError(
            f"Over these {len(matrix)} participants {listed(explained, most=MOST_COLUMNS)} cannot be told apart from "
            f"the other columns ({listed([str(design.columns[index]) for index in kept], most=MOST_COLUMNS)})."
        )
    if len(matrix) - rank_of(matrix) < 1:
        raise NotEstimableError(
            f"{len(matrix)} participants leave no degrees of freedom for the error of a model with "
            f"{matrix.shape[1]} columns."
        )
    covariate, groups = variance_groups(layout, question, options, rows)
    if not groups:
        return _Groups((), "", {"Variance": "pooled"})
    unseen = grouped_test(matrix, contrast, groups).unseen
    if unseen:
        levels = sorted({name[len(covariate) + 1 : -1] for name in unseen if name != covariate})
        which = f"level{'s' * (len(levels) > 1)} {listed(levels, most=MOST_COLUMNS)}" if levels else "last level"
        of_whom = [str(label) for label, group in zip(design.index, groups, strict=True) if group in unseen]
        raise NotEstimableError(
            f"How much participants vary within the {which} of '{covariate}' ({listed(of_whom, most=MOST_COLUMNS)}) "
            "cannot be seen: there is one of them only, or the covariates account for them. --variance pooled takes "
            "all groups to vary equally."
        )
    method = "Johansen" if contrast.ndim > 1 else "Welch–Satterthwaite"
    sentence = f" Each level of '{covariate}' has a variance of its own ({method})."
    return _Groups(groups, sentence, {"Variance": f"by level of {covariate}"})


def _check_groups(groups: Sequence[str], n_values: int, design: pd.DataFrame, contrast: Array) -> None:
    """Make sure that every group that carries a test has as many participants as its covariance needs."""
    if not groups:
        return
    prepared = grouped_contrast(design.to_numpy(), contrast, groups)
    fewest = float(prepared.free[prepared.carried > 0].min())
    if fewest < n_values - 1e-6:
        raise NotEstimableError(
            f"A group has {fewest + 1:.0f} participants who can answer, too few for a covariance of its own "
            f"between {n_values} values of each (at least {n_values + 1}). --variance pooled takes "
            "all groups to vary and co-vary equally; the marginal strategy does not need it."
        )


def plan_session_vectors(layout: MapLayout, question: Question, options: GroupOptions) -> SessionVectorPlan:
    """Plan a test of any difference, on the participants who have every session.

    Raises
    ------
    NotEstimableError
        If they are too few, or covariates cannot be adjusted for.
    """
    sessions = [session for session in question.sessions.sessions if session in layout.sessions]
    if len(sessions) < 2:
        raise NotEstimableError(NO_DIFFERENCE)
    complete, between = complete_participants(layout, question.sessions)
    participants = dict.fromkeys(layout.participants[rows[0]] for rows in complete)
    left_out = {
        label: f"has no map of {session_names(session for session in sessions if session not in layout.rows_of(label))}"
        for label in layout.unique_participants
        if label not in participants
    }
    if layout.adjusting_covariates(question.sessions)[0]:
        raise NotEstimableError(
            "Hotelling's T² on participants' session vectors cannot adjust for session covariates; the marginal "
            "strategy can."
        )
    n_differences = len(sessions) - 1
    design = pd.DataFrame(
        between, columns=layout.between([]).columns, index=[f"sub-{participant}" for participant in participants]
    )
    contrast = question.group_weights(between.shape[1])
    if len(complete) - rank_of(between) < n_differences:
        raise NotEstimableError(
            f"{len(complete)} participants have all {len(sessions)} sessions, too few for Hotelling's T² (at least "
            f"{n_differences + between.shape[1]})."
        )
    groups, sentence, details = _groups_in(layout, question, options, complete[:, 0].tolist(), design)
    _check_groups(groups, n_differences, design, contrast)
    return SessionVectorPlan(
        design_matrix=design,
        contrast=contrast,
        rows=tuple(sorted(complete.ravel().tolist())),
        left_out=left_out,
        description=f"Hotelling's T² on the {n_differences} differences between sessions of {len(complete)} "
        "participants." + sentence,
        warnings=(),
        details={"FixedEffectsWeighting": "equal", **details},
        complete=complete,
        n_of_layout=len(layout.participants),
        groups=groups,
    )

"""marginal: all session maps, one working correlation for all voxels, and cluster-robust errors by participants.

It does not rest on how the sessions co-vary, also with missing sessions and covariates. With few participants, missing
sessions and very unequal variances together its false positives rise (`validity.FEW_AND_UNEQUAL`); see
`statistics.cluster_robust`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.statistics.cluster_robust import RobustContrast, estimate_robust, robust_contrast, wald_robust
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.participant_variance import ParticipantSpectrum, PooledRatio, participant_spectrum
from sessionfx.strategies.base import GroupOptions, MapLayout, Plan, Question, Strategy
from sessionfx.strategies.designs import session_design

DIFFERENT_PEOPLE = (
    "No participant has more than one of these sessions, so that sessions are compared between different people."
)
# Below this the t distribution's tails depend strongly on the dof, which is itself approximate (Pustejovsky & Tipton
# 2018, section 4)
FEW_DOF = 4.0
UNSEEN = (
    "This contrast rests in part on maps that the model fits exactly, such as those of the only participant with a "
    "session or with a level of a covariate. Cluster-robust errors cannot see how much these vary, and would be too "
    "small."
)
_ALL_SEEN = 1 - 1e-6
_LEAST_DOF = 1 - 1e-6  # of two participants, rounding allowed for


@dataclass(frozen=True)
class MarginalPlan(Plan):
    """Generalised least squares with cluster-robust variance.

    Attributes
    ----------
    participants : tuple of str
        Of each row.
    spectrum : ParticipantSpectrum
    prepared : RobustContrast
    known : str
        What a reader must know of the design, whatever the working correlation.
    """

    participants: tuple[str, ...] = ()
    spectrum: ParticipantSpectrum | None = None
    prepared: RobustContrast | None = None
    known: str = ""

    @property
    def pools(self) -> bool:
        """Whether there is a working correlation to estimate."""
        return self.spectrum is not None and self.spectrum.separates

    @property
    def pool_key(self) -> object:
        """Plans of one design share the working correlation; see `Plan.pool_key`."""
        return id(self.spectrum)

    def pooled_sums(self, effects: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum the profile REML over voxels; see `Plan.pooled_sums`."""
        assert self.spectrum is not None  # noqa: S101 - `plan` gives it
        return PooledRatio(self.spectrum).sums(effects)

    def informed(self, sums: NDArray[np.float64]) -> Self:
        """Estimate the working correlation and prepare the contrast with it; see `Plan.informed`."""
        assert self.spectrum is not None  # noqa: S101 - only a plan with sums is informed
        ratio = PooledRatio(self.spectrum).estimate(sums)
        return self.with_ratio(ratio)

    def with_ratio(self, ratio: float, *, needs_dof: bool = True) -> Self:
        """Prepare the contrast with a working correlation.

        Parameters
        ----------
        ratio : float
            Variance between over variance within participants.
        needs_dof : bool
            Whether too few degrees of freedom are refused.

        Raises
        ------
        NotEstimableError
            If too few participants carry the contrast, or part of it is carried by one alone.
        """
        prepared = robust_contrast(self.design_matrix.to_numpy(), self.participants, self.contrast, ratio)
        q = len(np.atleast_2d(self.contrast))
        if prepared.seen < _ALL_SEEN:
            raise NotEstimableError(UNSEEN)
        if needs_dof and not prepared.dof - q + 1 >= _LEAST_DOF:
            raise NotEstimableError(
                f"Too few participants carry this contrast: {max(prepared.dof - q + 1, 0.0):.1f} degrees of freedom."
            )
        correlation = ratio / (1 + ratio)
        dof = prepared.dof - q + 1
        few = f"With {dof:.1f} degrees of freedom its p values are approximate." if dof < FEW_DOF else ""
        return replace(
            self,
            prepared=prepared,
            caution=" ".join(filter(None, [self.known, few])),
            description=f"{_description(self)}, working correlation {correlation:.2f}.",
            details={**self.details, "WorkingCorrelation": correlation},
        )

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Estimate or test with cluster-robust errors; see `Plan.estimate`."""
        assert self.prepared is not None  # noqa: S101 - `plan` prepares it
        return (estimate_robust if self.contrast.ndim == 1 else wald_robust)(self.prepared, effects)


def _has_pairs(layout: MapLayout) -> bool:
    return len(layout.unique_participants) < len(layout.participants)


def _description(plan: MarginalPlan) -> str:
    n_maps, n_participants = len(plan.participants), len(set(plan.participants))
    kind = "Wald F test" if plan.contrast.ndim > 1 else "Marginal model"
    return f"{kind} of {n_maps} maps with cluster-robust errors (CR2) over {n_participants} participants"


class Marginal(Strategy):
    """Working correlation and cluster-robust errors."""

    name = "marginal"
    title = "Marginal"

    def methods(self, options: GroupOptions) -> tuple[str, tuple[str, ...]]:
        """Describe generalised estimating equations with small-sample corrections; see `Strategy.methods`."""
        text = (
            "Marginal strategy: all session maps entered a generalised least-squares model with one column per "
            "session and an exchangeable working correlation within participants, estimated over all voxels by "
            "restricted maximum likelihood; standard errors were cluster-robust with the CR2 correction and "
            "Satterthwaite degrees of freedom {cite}."
        )
        return text, ("bell_mccaffrey", "pustejovsky")

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> MarginalPlan:
        """Build the model of all session maps; see `Strategy.plan`."""
        design = session_design(layout, question, options.session_covariate_effect)
        design.check("too few participants have these sessions, or covariates cannot be told apart from sessions.")
        unpaired = question.sessions.is_within_participant and not _has_pairs(layout)
        start = MarginalPlan(
            design.matrix, design.contrast, tuple(range(len(layout.participants))), details=design.details,
            participants=layout.participants,
            spectrum=participant_spectrum(design.matrix.to_numpy(), layout.participants),
            known=" ".join(filter(None, [DIFFERENT_PEOPLE if unpaired else "", design.caution])),
        )  # fmt: skip
        # where the working correlation is to be estimated, the degrees of freedom that it gives decide
        return start.with_ratio(0.0, needs_dof=not start.pools)

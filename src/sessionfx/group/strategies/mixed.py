"""mixed: all session maps, a random intercept per participant estimated by REML at every voxel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import NOTABLE_SPREAD, Judgement
from sessionfx.group.strategies.base import GroupOptions, MapLayout, PartialMaps, Plan, Question
from sessionfx.group.strategies.designs import session_design
from sessionfx.group.strategies.strategy import ORDINARY, UNEQUAL_TIMES, Assumptions, Grounds, Strategy
from sessionfx.group.validity import WITHOUT_SPHERICITY
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.partial_coverage import Fitted
from sessionfx.statistics.participant_variance import ParticipantSpectrum, participant_spectrum
from sessionfx.statistics.random_intercept import (
    KENWARD_ROGER,
    MixedContrast,
    estimate_mixed,
    fit_mixed,
    mixed,
    spectral_contrast,
    squares_and_ratio,
)

COMPOUND_SYMMETRY = (
    "The model takes every pair of sessions to be equally correlated. Where participants change at different rates it "
    f"is too liberal for differences and trends over three or more sessions ({WITHOUT_SPHERICITY})."
)
METHOD_NAMES = {"satterthwaite": "Satterthwaite", KENWARD_ROGER: "Kenward–Roger"}


@dataclass(frozen=True)
class MixedPlan(Plan):
    """Random participant intercept."""

    spectrum: ParticipantSpectrum = field(kw_only=True)
    prepared: MixedContrast = field(kw_only=True)
    dof_method: str = field(kw_only=True)  # 'satterthwaite' or 'kenward-roger'

    no_resampling: ClassVar[str] = (
        "There are no family-wise p values: its errors rest on a model of the sessions, which resampling participants "
        "does not check. The marginal strategy has them, from the same maps."
    )

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Estimate by REML; see `Plan.estimate`."""
        return self.estimate_beside(effects, variances, {})

    def estimate_beside(
        self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None, shared: dict[object, Any]
    ) -> Estimate | FTest:
        """Share the variances with the contrasts of the same design; see `Plan.estimate_beside`."""
        key = id(self.spectrum)
        if key not in shared:
            shared[key] = squares_and_ratio(self.spectrum, effects)
        return estimate_mixed(self.spectrum, self.prepared, effects, self.dof_method, known=shared[key])[0]

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Estimate by REML at each voxel with its own design; see `Plan.estimate_apart`."""
        fit = maps.shared(fit_mixed, maps.arranged(self.design_matrix.to_numpy()))
        return mixed(fit, self.contrast, self.dof_method)


class Mixed(Strategy):
    """Random participant intercept, REML at every voxel."""

    name = "mixed"
    title = "Mixed model"
    full_title = "Mixed model (random intercept)"
    preference = 5
    assumptions = Assumptions(
        values="participants' levels, and maps around them, are normal",
        spread="equal",
        sessions="equal variances, and equal correlations of all pairs",
        missing="what is missing may depend on the maps that are there, not on those that are not",
    )
    no_joint_test = (
        "The mixed strategy has no test of several contrasts at once here; marginal and summary-statistics have one "
        "that does not need its assumption of equal correlations."
    )

    def judge(self, grounds: Grounds) -> Judgement:
        """Judge by how far its one variance and one correlation hold; see `Strategy.judge`."""
        layout, asked, evidence = grounds.layout, grounds.question.sessions, grounds.evidence
        k, spread = layout.n_sessions, evidence.session_spread
        if k == 2 and asked.time is not None:
            return Judgement("conditional", UNEQUAL_TIMES)
        if k > 1 and not layout.is_balanced and spread is not None and spread >= NOTABLE_SPREAD:
            return Judgement(
                "no",
                f"sessions are missing and their standard deviations over participants differ {spread:.1f}-fold, where "
                "it takes them to be equal.",
            )
        pooled = grounds.judge_pooled_variance()
        if k > 2 and asked.is_within_participant:
            equal = f"it takes all pairs of sessions to be equally correlated{evidence.epsilon_words}."
            return Judgement("conditional", f"{equal} Besides, {pooled.reason}" if pooled else equal)
        if k == 1 or pooled is not None:
            return pooled or Judgement("yes", ORDINARY)
        return Judgement(
            "conditional",
            "where it estimates no variance between participants it treats that as known, with too many degrees of "
            "freedom.",
        )

    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe the mixed-effects model; see `Strategy.methods`."""
        text = (
            f"{self.title}: all session maps entered a model with one column per session and a random "
            "intercept per participant, estimated by restricted maximum likelihood at every voxel, with "
            f"{METHOD_NAMES[options.mixed_dof]} degrees of freedom {{cite}}."
        )
        return text, ("kenward_roger",) if options.mixed_dof == KENWARD_ROGER else ("lmertest",)

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> MixedPlan:
        """Build the model of all session maps; see `Strategy.plan`."""
        refusal = self.never_answers(question)
        if refusal:
            raise NotEstimableError(refusal)
        design = session_design(layout, question, options.session_covariate_effect)
        design.check()
        matrix = design.matrix.to_numpy()
        spectrum = participant_spectrum(matrix, layout.participants)
        if not spectrum.separates:
            raise NotEstimableError(
                "Variance between participants cannot be told apart from variance within them: no participant has more "
                "than one map that the model leaves free, or the covariates account for all participants."
            )
        takes_equal = layout.n_sessions > 2 and question.sessions.is_within_participant
        return MixedPlan(
            design_matrix=design.matrix,
            contrast=design.contrast,
            rows=tuple(range(len(layout.participants))),
            left_out={},
            description=f"REML with a random participant intercept on {len(matrix)} maps of "
            f"{len(layout.unique_participants)} participants, {METHOD_NAMES[options.mixed_dof]} degrees of freedom at "
            "each voxel.",
            warnings=(*([COMPOUND_SYMMETRY] if takes_equal else []), *design.warnings),
            details={**design.details, "DegreesOfFreedomMethod": METHOD_NAMES[options.mixed_dof]},
            spectrum=spectrum,
            prepared=spectral_contrast(spectrum, design.contrast),
            dof_method=options.mixed_dof,
        )

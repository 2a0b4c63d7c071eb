"""meta: random-effects meta-analysis of one value per participant, each with its own variance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import Judgement
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.group.strategies.participant_values import SummaryStatisticsPlan, plan_values
from sessionfx.group.strategies.strategy import Grounds, Strategy
from sessionfx.group.strategies.summary_statistics import SummaryStatistics
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.meta_analysis import meta_regression, pymare_stats

NOT_INSTALLED = (
    "The meta strategy needs PyMARE 0.0.13 or later, which is not installed here. Install it with "
    "pip install 'sessionfx[meta]' (the container image does not have it)."
)
KNOWN_VARIANCES = (
    "The maps' variances are taken as known and as all the error there is within a participant. They are estimated "
    "from the scans of a few runs, and hold the noise within these runs only: that a participant responds differently "
    "from session to session is in none of them. Where they are far off, so are the weights of the participants; the "
    "summary-statistics strategy with equal weights does not depend on them."
)


@dataclass(frozen=True)
class MetaPlan(Plan):
    """One value per participant with its variance, then random-effects meta-regression."""

    participants: SummaryStatisticsPlan = field(kw_only=True)  # how the maps of a participant become one value

    no_resampling: ClassVar[str] = (
        "There are no family-wise p values: its variance between participants is searched for at every voxel, which "
        "would have to be done anew for each resampling. The summary-statistics strategy has them, from the same "
        "values."
    )

    @property
    def uses_variances(self) -> bool:
        """Always."""
        return True

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Combine, then estimate the contrast over participants; see `Plan.estimate`."""
        if variances is None:
            raise ValueError("a meta-analysis needs the maps' variances")
        return meta_regression(
            self.participants.participant_values(effects, variances),
            self.participants.participant_variances(variances),
            self.design_matrix.to_numpy(),
            self.contrast,
        ).estimate


class Meta(Strategy):
    """Random-effects meta-analysis over participants; needs PyMARE, an optional extra."""

    name = "meta"
    title = full_title = "Meta-analysis"
    preference = 7
    assumptions = replace(
        SummaryStatistics.assumptions,
        values="participants' true values, and the errors of their maps, are normal",
        spread="the variance between participants is one for all; those of the maps are known",
        sessions="all error within a participant is that within runs, and independent between sessions",
    )
    is_default = False
    no_joint_test = (
        "The meta strategy estimates one effect at a time and has no test of several contrasts at once; marginal and "
        "summary-statistics have one."
    )

    def needs_variances(self, options: GroupOptions) -> bool:
        """Need them always."""
        return True

    def missing_dependency(self) -> str:
        """Name PyMARE; see `Strategy.missing_dependency`."""
        return NOT_INSTALLED if pymare_stats() is None else ""

    def judge(self, grounds: Grounds) -> Judgement:
        """Call for care always; see `Strategy.judge`."""
        return Judgement("conditional", "it takes the variances of the maps as known, though few scans estimate them.")

    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe the meta-analysis; see `Strategy.methods`."""
        text = (
            f"{self.title}: the session contrast was computed within each participant "
            f"({options.fixed_effects} weights for means), with its variance from the first level, and entered a "
            "random-effects meta-analysis over participants at every voxel, with the variance between participants by "
            "restricted maximum likelihood and Knapp–Hartung standard errors (PyMARE) {cite}."
        )
        return text, ("viechtbauer", "knapp_hartung", "pymare")

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> MetaPlan:
        """Choose the participants as the summary-statistics strategy does; see `Strategy.plan`."""
        refusal = self.never_answers(question) or self.missing_dependency()
        if refusal:
            raise NotEstimableError(refusal)
        participants = plan_values(layout, question, options)
        model = participants.description[0].lower() + participants.description[1:]
        return MetaPlan(
            design_matrix=participants.design_matrix,
            contrast=participants.contrast,
            rows=participants.rows,
            left_out=participants.left_out,
            description=f"Random-effects meta-analysis (REML, Knapp–Hartung): {model}",
            warnings=(KNOWN_VARIANCES, *participants.warnings),
            details=participants.details | {"BetweenParticipantVariance": "REML", "StandardError": "Knapp–Hartung"},
            participants=participants,
        )

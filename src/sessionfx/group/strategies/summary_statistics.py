"""summary-statistics: combine each participant's sessions, then an ordinary model on one value per participant."""

from __future__ import annotations

import numpy as np

from sessionfx.group.judgement import Judgement
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.group.strategies.participant_values import plan_participants
from sessionfx.group.strategies.robust_values import NAMES, plan_robust_values
from sessionfx.group.strategies.strategy import (
    FEW_CARRY,
    FEW_DOF,
    ORDINARY,
    ROUNDING,
    Assumptions,
    Grounds,
    Strategy,
)
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.wording import dof_text

# Welch's test, and its like for several values, find too much where a small group decides: at 1 ‰ 3 to 14 ‰ with groups
# of 3 to 6 against 20, and for several values 6 to 14 % at 5 %. From this many degrees of freedom on they keep 5.8 %
# and 2 ‰ (simulated, standard deviations 1:2 to 4:1)
FEW_DOF_OF_GROUPS = 10.0 - ROUNDING
_ROBUST_WORKS = {
    "huber": ("holland_welsch", "street", "wager"),
    "bisquare": ("holland_welsch", "street", "wager"),
    "trimmed": ("tukey_mclaughlin", "yuen"),
}


class SummaryStatistics(Strategy):
    """One fixed-effects map per participant."""

    name = "summary-statistics"
    title = "Summary statistics"
    full_title = "Summary statistics (one-sample t on participants' fixed effects)"
    preference = 2
    is_robust = True
    cancels_levels = True
    takes_robust = ("huber", "bisquare", "trimmed")
    assumptions = Assumptions(
        values="participants' values are normal",
        spread="may differ without covariates; with them they are equal, at least within groups (--variance)",
        sessions="nothing; for the test of any difference, the same for all participants, at least within groups",
        missing=(
            "for means, sessions do not truly differ; for trends, change follows the trend; for others participants "
            "are left out, which may go with a stable level, not with the change"
        ),
        covariates="effects are linear; a covariate of sessions enters as the session contrast of its values",
    )

    def rank(self, grounds: Grounds) -> int:
        """Come first where it was asked to be robust; see `Strategy.rank`."""
        return self.preference if grounds.options.robust == "none" else 0

    def needs_variances(self, options: GroupOptions) -> bool:
        """Only precision weights need them."""
        return options.fixed_effects == "precision"

    def judge(self, grounds: Grounds) -> Judgement:
        """Judge by whose variance is taken for whose, and by what missing sessions do; see `Strategy.judge`."""
        layout, asked = grounds.layout, grounds.question.sessions
        unequal = _judge_variances(grounds)
        if unequal is not None:
            return unequal
        if layout.n_sessions == 1:
            return Judgement("yes", ORDINARY)
        if not layout.is_balanced and asked.kind == "mean":
            return Judgement(
                "conditional",
                "participants miss sessions, and their means are over the sessions they have: if sessions truly "
                "differ, it mixes who was scanned with when.",
            )
        if layout.n_sessions > 2 and not layout.is_balanced and asked.kind == "trend":
            return Judgement(
                "conditional",
                "participants miss sessions: if change does not follow the trend, their trends differ in meaning.",
            )
        if not layout.is_balanced and grounds.question.group.label and asked.kind == "measured trend":
            return Judgement(
                "conditional",
                "participants with fewer sessions, or closer ones, have less certain values, and it takes those of a "
                "group as equally certain.",
            )
        return Judgement("yes", "it compares participants' own values, however their sessions co-vary.")

    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe the summary-statistics approach; see `Strategy.methods`."""
        text = (
            f"{self.title}: the session contrast was computed within each participant ({options.fixed_effects} weights "
            "for means) and "
        )
        if options.robust != "none":
            weights = ", with a variance for each group" if options.robust == "trimmed" else ""
            text += (
                f"estimated over participants by {NAMES[options.robust]}{weights} {{cite}}, so that outlying "
                "participants count less."
            )
            return text, _ROBUST_WORKS[options.robust]
        text += "tested over participants by a t test (summary statistics approach {cite})."
        works = ["mumford"]
        if work.any_session:
            text += " The test over all sessions was Hotelling's T² {cite}."
            works.append("hotelling")
        if work.groups:
            text += (
                " Groups of participants that were compared, or of unequal size, had a variance each, with "
                "Welch–Satterthwaite degrees of freedom {cite}."
            )
            works.append("welch")
        return text, tuple(works)

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> Plan:
        """Choose the participants whose sessions can answer the question; see `Strategy.plan`."""
        if options.robust != "none":
            return plan_robust_values(layout, question, options)
        return plan_participants(layout, question, options)


def _judge_variances(grounds: Grounds) -> Judgement | None:
    """Say where a test over participants rests on their varying equally, though those who carry it may not."""
    plan = grounds.plan
    if plan.groups:
        if grounds.dof < FEW_DOF_OF_GROUPS:
            return Judgement(
                "conditional",
                f"a small group decides; with {dof_text(grounds.dof)} its p values are "
                "approximate, above all small ones.",
            )
        return None
    if plan.design_matrix.shape[1] == 1:
        return None
    carried = robust_contrast(
        plan.design_matrix.to_numpy(), [str(label) for label in plan.design_matrix.index], plan.contrast, 0.0
    )
    n_further = len(np.atleast_2d(plan.contrast)) * max(plan.n_tested, 1) - 1
    if not carried.dof - n_further >= FEW_DOF:
        return FEW_CARRY
    return grounds.judge_pooled_variance()

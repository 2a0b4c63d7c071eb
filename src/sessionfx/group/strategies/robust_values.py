"""One value per participant, by an estimate that a few outlying participants cannot move far (`--robust`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import GroupOptions, MapLayout, PartialMaps, Question
from sessionfx.group.strategies.participant_values import SummaryStatisticsPlan, plan_values
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array
from sessionfx.statistics.partial_coverage import Fitted
from sessionfx.statistics.resampling import Resampling
from sessionfx.statistics.robust import RobustContrast, TrimmedContrast, prepare_m_estimate, prepare_trimmed
from sessionfx.wording import counted

# From so many on false positives are nominal (docs/influence.md), but for groups of two or three with an outlying one
FEWEST = 8
# In each group that is trimmed: one of five is left out at either end
FEWEST_TRIMMED = 5
NAMES = {"huber": "Huber's weights", "bisquare": "Tukey's bisquare weights", "trimmed": "20 % trimmed means"}
ONE_VALUE = (
    "Robust estimates (--robust) test one contrast of one value per participant at a time; ask for the contrasts one "
    "by one. The marginal strategy tests several, with all participants counted fully."
)
ONE_SCALE = "--robust huber and bisquare have one scale for all participants; for groups take --robust trimmed."
GROUPS_ONLY = (
    "--robust trimmed compares means of groups; for numeric covariates, or several categorical ones, take huber or "
    "bisquare."
)
NO_RESAMPLING = (
    "There are no family-wise p values with --robust: each resampling would need a fit of its own at every voxel. The "
    "thresholds of --correction hold."
)
NO_BAYES_FACTOR = "The Bayes factor is that of an ordinary t test; leave out --robust for it."


@dataclass(frozen=True)
class RobustValuesPlan(SummaryStatisticsPlan):
    """One value per participant, then an M estimate or trimmed means; `robust` is the kind."""

    robust: str = field(default="huber", kw_only=True)

    weighs_participants: ClassVar[bool] = True

    @cached_property
    def robust_contrast(self) -> RobustContrast | TrimmedContrast:
        """The contrast over participants, ready for any number of voxels."""
        design = self.design_matrix.to_numpy()
        if self.robust == "trimmed":
            return prepare_trimmed(design, self.contrast)
        return prepare_m_estimate("bisquare" if self.robust == "bisquare" else "huber", design, self.contrast)

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Combine, then estimate the contrast over participants; see `Plan.estimate`."""
        return self.robust_contrast.estimate(self.participant_values(effects, variances))

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Have no way but one by one; see `Plan.estimate_apart`."""
        return None

    def participant_weights(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Give the weights of participants, 0 to 1, see `Plan.participant_weights`."""
        return self.robust_contrast.weights(self.participant_values(effects, variances))

    def effective_n(self, question: Question) -> float:
        """Decline; see `Plan.effective_n`."""
        raise NotEstimableError(NO_BAYES_FACTOR)

    @cached_property
    def resampling(self) -> Resampling:
        """Decline; see `Plan.resampling`."""
        raise NotEstimableError(NO_RESAMPLING)


def too_few(n: int) -> str:
    """Say that so many participants are too few."""
    return (
        f"{counted(n, 'participant')} can answer, too few to tell an outlying one from the others: robust estimates "
        f"(--robust) need at least {FEWEST}."
    )


def plan_robust_values(layout: MapLayout, question: Question, options: GroupOptions) -> RobustValuesPlan:
    """Plan one value per participant and a robust estimate over them.

    Raises
    ------
    NotEstimableError
        If several contrasts are tested, participants are too few, or the design is none that the estimate takes.
    """
    if question.is_f_test:
        raise NotEstimableError(ONE_VALUE)
    is_trimmed = options.robust == "trimmed"
    if not is_trimmed:
        if options.variance == "groups":
            raise NotEstimableError(ONE_SCALE)
        options = replace(options, variance="pooled")
    plan = plan_values(layout, question, options)
    of_values: dict[str, Any] = {each.name: getattr(plan, each.name) for each in fields(plan)}
    of_values |= {
        "description": f"{plan.description.removesuffix('.')}, by {NAMES[options.robust]}.",
        "details": {**plan.details, "RobustEstimate": options.robust},
    }
    robust = RobustValuesPlan(**of_values, robust=options.robust)
    n = len(plan.design_matrix)
    if n < FEWEST:
        raise NotEstimableError(too_few(n))
    if is_trimmed:
        try:
            prepared = robust.robust_contrast
        except ValueError:
            raise NotEstimableError(GROUPS_ONLY) from None
        assert isinstance(prepared, TrimmedContrast)  # noqa: S101 - of trimmed means
        smallest = int(np.bincount(prepared.groups).min())
        if smallest < FEWEST_TRIMMED:
            raise NotEstimableError(
                f"The smallest group has {counted(smallest, 'participant')}, too few to leave out the largest and the "
                f"smallest value (at least {FEWEST_TRIMMED})."
            )
    return robust

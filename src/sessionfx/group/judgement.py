"""What the data say about the assumptions of the strategies, and what a strategy's answer is worth, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# At or below this p, by sign flips of the whole brain, dropout or skewness is called more than chance
NOTABLE_P = 0.02
# Squared skewness of an estimate above which its false positives exceed 2 ‰ at a nominal 1 ‰: at 0.03 they exceed 5.8 %
# at 5 % too (one-sample t tests of χ² and lognormal values of 8 to 80 participants, simulated)
NOTABLE_SKEWNESS = 0.012
# Ratio of standard deviations of sessions, or of groups of participants, from which they are called unequal: with
# missing sessions whose standard deviations differ this much simulated false positives exceed the nominal rate
# (docs/validity.md)
NOTABLE_SPREAD = 1.5


@dataclass(frozen=True)
class Judgement:
    """Whether a strategy's p values can be taken at their word."""

    valid: str  # 'yes', 'conditional', 'no' or 'declined'
    reason: str  # a sentence


@dataclass(frozen=True)
class ValueEvidence:
    """What participants' values say, a question's summary statistics; see `group.participant_evidence`."""

    squared_skewness: float  # mean over voxels; about 0 where there is none
    skewness_p: float  # of it, by sign flips of the whole brain
    carried: float  # squared skewness of the estimate, in that of the values
    outlying: float  # share of voxels with an outlier; 0.05 by chance if values are normal
    most_outlying: str | None  # the participant who most often is one; None where nobody is
    most_outlying_share: float  # in how many voxels
    # largest over smallest standard deviation of groups of participants; None where there are none
    group_spread: float | None = None

    @property
    def is_skewed(self) -> bool:
        """Whether skewness is more than chance, and reaches the estimate."""
        return _is_notable(self.skewness_p) and self.squared_skewness * self.carried > NOTABLE_SKEWNESS


@dataclass(frozen=True)
class Dropout:
    """Whether it is more than chance how effects go with the number of missed sessions, by sign flips of the brain."""

    # level_p, change_p: of participants' levels, and of their changes over sessions; None where that cannot be seen
    level_p: float | None
    change_p: float | None


@dataclass(frozen=True)
class Evidence:
    """What the data of a contrast say about the assumptions of the strategies."""

    # icc1, icc31: median over voxels; None where no participant has two sessions
    icc1: float | None
    icc31: float | None
    # median of ICC(3,1) where the mean over sessions is suprathreshold; None where it is nowhere
    icc31_active: float | None
    # median Greenhouse–Geisser ε of the participants with every session; None with fewer than three sessions or fewer
    # of these participants than sessions
    epsilon: float | None
    epsilon_expected: float | None  # what ε would be under sphericity with as few participants
    n_complete: int  # participants with every session
    # Share of voxels in which the number of missed sessions goes with the effect at p < .05, in a model with a random
    # intercept per participant; 5 % by chance. None where nobody, or everybody alike, missed sessions, and with fewer
    # than four participants.
    missingness: float | None
    # (S, S): covariance of the sessions over participants, in units of the voxels' mean variance; None without two
    # participants with two sessions
    covariance: NDArray[np.float64] | None
    dropout: Dropout | None = None  # None where nobody, or everybody alike, missed sessions, and with few participants
    # by the questions' labels; questions of few participants have none
    values: dict[str, ValueEvidence] = field(default_factory=dict)

    @property
    def dropout_by_level(self) -> bool:
        """Whether participants who missed sessions have another level, by more than chance."""
        return self.dropout is not None and _is_notable(self.dropout.level_p)

    @property
    def dropout_by_change(self) -> bool:
        """Whether participants who missed sessions change otherwise, by more than chance."""
        return self.dropout is not None and _is_notable(self.dropout.change_p)

    @property
    def session_spread(self) -> float | None:
        """Largest over smallest standard deviation of the sessions over participants."""
        if self.covariance is None:
            return None
        variances = np.diag(self.covariance)
        return float(np.sqrt(variances.max() / variances.min())) if variances.min() > 0 else None

    @property
    def epsilon_words(self) -> str:
        """How far the data are from sphericity, in brackets; empty where that cannot be seen."""
        if self.epsilon is None or self.epsilon_expected is None:
            return ""
        return f" (median Greenhouse–Geisser ε {self.epsilon:.2f}; sphericity would give {self.epsilon_expected:.2f})"


def _is_notable(p: float | None) -> bool:
    return p is not None and p <= NOTABLE_P

"""What the group level finds, as values for the files, the report and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.group.strategies.base import MapLayout, Plan, Question
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.agreement import Agreement
from sessionfx.statistics.bayes_factor import BayesFactors
from sessionfx.statistics.equivalence import Equivalence
from sessionfx.statistics.estimates import Estimate, FTest

if TYPE_CHECKING:
    from sessionfx.group.permutation import PermutationResult


@dataclass(frozen=True)
class StrategyResult:
    """The answer of one strategy to one question, or why it declines.

    Attributes
    ----------
    name, label, title : str
        On the command line, in file names, for people.
    refusal : str or None
        Why there is no answer.
    plan : Plan or None
    stat_map : StatMap or None
    threshold : float
        On |z| (on z for F tests); infinite where no voxel passes, NaN without an answer.
    clusters : DataFrame
    permutation : PermutationResult or None
    permutation_refusal : str
        Why there is none, where it was asked for and would not hold.
    equivalence : Equivalence or None
    bayes_factors : BayesFactors or None
        Where they were asked for.
    absence_refusal : str
        Why it has one of these not, or neither.
    """

    name: str
    label: str
    title: str
    refusal: str | None
    plan: Plan | None = None
    stat_map: StatMap[Estimate | FTest] | None = None
    threshold: float = float("nan")
    clusters: pd.DataFrame = field(default_factory=pd.DataFrame)
    permutation: PermutationResult | None = None
    permutation_refusal: str = ""
    equivalence: Equivalence | None = None
    bayes_factors: BayesFactors | None = None
    absence_refusal: str = ""

    def refused(self, refusal: str) -> StrategyResult:
        """Say that there is no answer after all."""
        return StrategyResult(self.name, self.label, self.title, refusal)


@dataclass(frozen=True)
class PairResult:
    """How two strategies agree on one question."""

    a: StrategyResult
    b: StrategyResult
    agreement: Agreement | None
    reason: str

    @property
    def z(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values of both at their common voxels, where both have answered."""
        a, b = self.a.stat_map, self.b.stat_map
        assert a is not None and b is not None  # noqa: S101 - asked for only where both have answered
        common = a.mask & b.mask
        return a.estimate.z[common[a.mask]], b.estimate.z[common[b.mask]]


@dataclass(frozen=True)
class Judgement:
    """Whether a strategy's p values can be taken at their word.

    Attributes
    ----------
    valid : {'yes', 'conditional', 'no', 'declined'}
    reason : str
        A sentence.
    """

    valid: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Which strategies to trust for a question.

    Attributes
    ----------
    text : str
        Sentences a reader can quote.
    recommended : tuple of str
        Names of strategies, the first choice first.
    strategies : dict of str to Judgement
    facts : dict
        What of design and data it rests on.
    """

    text: str
    recommended: tuple[str, ...]
    strategies: dict[str, Judgement]
    facts: dict[str, Any]

    @property
    def with_care(self) -> bool:
        """Whether the first choice is judged to be no more than conditionally valid."""
        return bool(self.recommended) and self.strategies[self.recommended[0]].valid != "yes"


@dataclass(frozen=True)
class QuestionResults:
    """All answers to one question, their comparison, and which to trust."""

    question: Question
    strategies: tuple[StrategyResult, ...]
    pairs: tuple[PairResult, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Reliability:
    """Test–retest reliability of a first-level contrast.

    Attributes
    ----------
    maps : dict of str to ndarray of shape (V,)
        `icc1`, `icc31`, `between` and `within` (variances).
    summary : DataFrame
        Quartiles of each, in the mask and in each region beyond the threshold of the session mean.
    """

    maps: dict[str, NDArray[np.float64]]
    summary: pd.DataFrame


@dataclass(frozen=True)
class ValueEvidence:
    """What the values of participants say that a question's summary statistics are; see `group.participant_evidence`.

    Attributes
    ----------
    squared_skewness : float
        Mean over voxels; about 0 where there is none.
    skewness_p : float
        Of it, by sign flips of the whole brain.
    carried : float
        Squared skewness of the estimate, in that of the values.
    outlying : float
        Share of voxels with an outlier; 0.05 by chance if values are normal.
    most_outlying : str
        The participant who most often is one.
    most_outlying_share : float
        In how many voxels.
    group_spread : float or None
        Largest over smallest standard deviation of groups of participants; None where there are none.
    """

    squared_skewness: float
    skewness_p: float
    carried: float
    outlying: float
    most_outlying: str
    most_outlying_share: float
    group_spread: float | None = None


@dataclass(frozen=True)
class Dropout:
    """Whether it is more than chance how effects go with the number of missed sessions, by sign flips of the brain.

    Attributes
    ----------
    level_p, change_p : float or None
        Of participants' levels, and of their changes over sessions; None where that cannot be seen.
    """

    level_p: float | None
    change_p: float | None


@dataclass(frozen=True)
class Evidence:
    """What the data of a contrast say about the assumptions of the strategies.

    Attributes
    ----------
    icc1, icc31 : float or None
        Median over voxels; None where no participant has two sessions.
    icc31_active : float or None
        Median of ICC(3,1) where the mean over sessions is beyond its threshold; None where it is nowhere.
    epsilon : float or None
        Median Greenhouse–Geisser ε of the participants with every session; None with fewer than three sessions or
        fewer of these participants than sessions.
    epsilon_expected : float or None
        What ε would be under sphericity with as few participants.
    n_complete : int
        Participants with every session.
    missingness : float or None
        Share of voxels in which the number of missed sessions goes with the effect at p < .05, in a model with a
        random intercept per participant; 5 % by chance. None where nobody, or everybody alike, missed sessions, and
        with fewer than four participants.
    covariance : ndarray of shape (S, S) or None
        Covariance of the sessions over participants, in units of the voxels' mean variance; None without two
        participants with two sessions.
    dropout : Dropout or None
        None where nobody, or everybody alike, missed sessions, and with few participants.
    values : dict of str to ValueEvidence
        By the questions' labels; questions of few participants have none.
    """

    icc1: float | None
    icc31: float | None
    icc31_active: float | None
    epsilon: float | None
    epsilon_expected: float | None
    n_complete: int
    missingness: float | None
    covariance: NDArray[np.float64] | None
    dropout: Dropout | None = None
    values: dict[str, ValueEvidence] = field(default_factory=dict)


@dataclass(frozen=True)
class ContrastResults:
    """All that is found for one first-level contrast."""

    contrast: str
    entities: dict[str, str | None]
    layout: MapLayout
    mask: NDArray[np.bool_]
    grid: Grid
    coverage: NDArray[np.int_]
    questions: tuple[QuestionResults, ...]
    notes: tuple[str, ...]
    covariate_notes: tuple[str, ...]
    left_out: dict[str, str]
    evidence: Evidence
    reliability: Reliability | None
    calibration: pd.DataFrame | None

"""What the group level finds, as values for the files, the report and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import Judgement
from sessionfx.group.strategies.base import Plan, Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.space.stat_map import StatMap, map_summary, position
from sessionfx.statistics.agreement import Agreement, compare
from sessionfx.statistics.bayes_factor import BayesFactors
from sessionfx.statistics.equivalence import Equivalence
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.intervals import SessionIntervals
from sessionfx.statistics.thresholds import peak_index, suprathreshold

if TYPE_CHECKING:
    from sessionfx.group.permutation import PermutationResult


@dataclass(frozen=True)
class StrategyResult:
    """What one strategy makes of one question: a plan, or why it declines, or an `Answer`."""

    strategy: Strategy
    refusal: str = ""  # why there is no answer; empty where there is one
    plan: Plan | None = None
    stat_map: StatMap[Estimate | FTest] | None = None
    threshold: float = float("nan")  # on |z| (on z for F tests); infinite where no voxel passes, NaN without an answer

    @property
    def name(self) -> str:
        """On the command line."""
        return self.strategy.name

    @property
    def label(self) -> str:
        """In file names."""
        return self.strategy.label

    @property
    def title(self) -> str:
        """For people."""
        return self.strategy.title

    def refused(self, refusal: str) -> StrategyResult:
        """Say that there is no answer after all."""
        return StrategyResult(self.strategy, refusal)

    def with_plan(self, make: Callable[[], Plan], refusal: str = "{reason}") -> StrategyResult:
        """Take the plan that is made, or else refuse for the reason that it cannot be."""
        try:
            return replace(self, plan=make())
        except NotEstimableError as reason:
            return self.refused(refusal.format(reason=reason))


@dataclass(frozen=True, kw_only=True)
class Answer(StrategyResult):
    """The answer of one strategy to one question."""

    plan: Plan
    stat_map: StatMap[Estimate | FTest]
    clusters: pd.DataFrame = field(default_factory=pd.DataFrame)
    permutation: PermutationResult | None = None
    permutation_refusal: str = ""  # why there is none, where it was asked for and would not hold
    equivalence: Equivalence | None = None
    bayes_factors: BayesFactors | None = None  # where they were asked for
    absence_refusal: str = ""  # why it has one of these not, or neither

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The map in one row; see `map_summary`."""
        return map_summary(self.stat_map, self.threshold)

    @property
    def is_suprathreshold(self) -> NDArray[np.bool_]:
        """Which of the map's V features are suprathreshold."""
        estimate = self.stat_map.estimate
        return suprathreshold(estimate.z, self.threshold, two_sided=estimate.two_sided)

    @cached_property
    def peak(self) -> int:
        """Which of the map's V features is its peak; see `peak_index`."""
        return peak_index(self.stat_map.estimate.z, two_sided=self.stat_map.estimate.two_sided)

    @property
    def at_peak(self) -> dict[str, Any]:
        """Where the peak is, and its z."""
        z = float(self.stat_map.estimate.z[self.peak])
        return {**position(self.stat_map.mask, self.stat_map.space, self.peak), "peak_z": z}

    @property
    def where_suprathreshold(self) -> NDArray[np.bool_]:
        """The same in an array of the space's shape."""
        found = np.zeros(self.stat_map.space.shape, dtype=bool)
        found[self.stat_map.mask] = self.is_suprathreshold
        return found


def answers_among(results: Iterable[StrategyResult]) -> tuple[Answer, ...]:
    """Choose the answers; other strategies declined."""
    return tuple(result for result in results if isinstance(result, Answer))


@dataclass(frozen=True)
class PairResult:
    """How two strategies agree on one question."""

    a: StrategyResult
    b: StrategyResult

    @cached_property
    def agreement(self) -> Agreement | None:
        """Of their z at common voxels; None where one of them declined."""
        a, b = self.a, self.b
        if not (isinstance(a, Answer) and isinstance(b, Answer)):
            return None
        return compare(*common_z(a, b), a.threshold, b.threshold, two_sided=a.stat_map.estimate.two_sided)

    @property
    def refusal(self) -> str:
        """Why they are not compared."""
        return " ".join(f"{result.title}: {result.refusal}" for result in (self.a, self.b) if result.refusal)


def common_z(a: Answer, b: Answer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give z of two answers at their common voxels."""
    common = a.stat_map.mask & b.stat_map.mask
    return a.stat_map.estimate.z[common[a.stat_map.mask]], b.stat_map.estimate.z[common[b.stat_map.mask]]


@dataclass(frozen=True)
class Verdict:
    """Which strategies to trust for a question."""

    text: str  # sentences a reader can quote
    recommended: tuple[str, ...]  # names of strategies, the first choice first
    strategies: dict[str, Judgement]
    facts: dict[str, Any]  # what of design and data it rests on

    @property
    def with_care(self) -> bool:
        """Whether the first choice is judged to be no more than conditionally valid."""
        return bool(self.recommended) and self.strategies[self.recommended[0]].valid != "yes"

    def place(self, strategy: str) -> int | None:
        """Give the place of a strategy among those recommended; 1 is the first choice."""
        return self.recommended.index(strategy) + 1 if strategy in self.recommended else None

    def in_words(self, rename: Callable[[str], str]) -> Verdict:
        """Change the words of its sentences: call voxels what they are in other spaces, and in regions."""
        strategies = {
            name: Judgement(judgement.valid, rename(judgement.reason)) for name, judgement in self.strategies.items()
        }
        return replace(self, text=rename(self.text), strategies=strategies)


@dataclass(frozen=True)
class QuestionResults:
    """All answers to one question, and which to trust."""

    question: Question
    strategies: tuple[StrategyResult, ...]
    verdict: Verdict

    @cached_property
    def pairs(self) -> tuple[PairResult, ...]:
        """The strategies, compared two by two."""
        return tuple(PairResult(a, b) for a, b in combinations(self.strategies, 2))

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Those of the strategies that have one."""
        return answers_among(self.strategies)

    @property
    def best(self) -> Answer | None:
        """The answer to report; None where no strategy can be recommended."""
        first = self.verdict.recommended[:1]
        return next((answer for answer in self.answers if answer.name in first), None)

    @property
    def shown_first(self) -> Answer | None:
        """The answer a reader sees first: the one to report, or else the first there is."""
        return self.best or next(iter(self.answers), None)


@dataclass(frozen=True)
class Peak:
    """The maps at one feature, or in one region."""

    place: Mapping[str, Any]  # see `Space.place`; of a region its name
    z: float  # of the answer to report
    is_suprathreshold: bool
    # (n participants, k sessions): of the session maps; NaN where a participant has none. Of an F test over conditions,
    # row by row.
    effects: NDArray[np.float64]
    # of the session contrast by the answer to report, with its 95 % confidence interval; an F test has none
    estimate: tuple[float, float, float] | None
    # the means of the columns of `effects`, or what the group contrast asks of them, with intervals of each and of all
    # at once; an F test over participants has none
    sessions: SessionIntervals | None


@dataclass(frozen=True)
class Reliability:
    """Test–retest reliability of a first-level contrast."""

    maps: dict[str, NDArray[np.float64]]  # shape (V,) each: `icc1`, `icc31`, `between` and `within` (variances)
    summary: pd.DataFrame  # quartiles of each, in the mask and in each region where the session mean is suprathreshold

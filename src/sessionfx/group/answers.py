"""Every strategy answers a question on the same voxels, and the answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.execution import Executor
from sessionfx.group.clusters import CLUSTER_COLUMNS, clusters_table
from sessionfx.group.permutation import PermutationResult, permute
from sessionfx.group.results import Evidence, PairResult, QuestionResults, StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.verdict import judge
from sessionfx.maps import Located
from sessionfx.session_contrasts import MEAN, resolve_session_contrasts
from sessionfx.settings import Settings
from sessionfx.statistics.agreement import compare
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.thresholds import beyond, z_threshold
from sessionfx.strategies import STRATEGIES
from sessionfx.strategies.base import GroupOptions, Question, Strategy
from sessionfx.strategies.blocks import blocks_of, estimate_in_blocks
from sessionfx.strategies.fixed_effects import FixedEffectsPlan

StoredPermutation = Callable[[NDArray[np.bool_]], PermutationResult]


@dataclass(frozen=True)
class Respondent:
    """Who answers the questions about one contrast, and how.

    Attributes
    ----------
    strategies : tuple of Strategy
    options : GroupOptions
    settings : Settings
    executor : Executor
        Where blocks of voxels and of permutations are computed.
    """

    strategies: tuple[Strategy, ...]
    options: GroupOptions
    settings: Settings
    executor: Executor

    def answer(
        self, question: Question, stack: MapStack, evidence: Evidence, stored: StoredPermutation | None = None
    ) -> QuestionResults:
        """Let every strategy answer one question, and compare the answers.

        Parameters
        ----------
        question : Question
        stack : MapStack
        evidence : Evidence
            What the data say about the strategies' assumptions.
        stored : callable, optional
            Gives the permutation of a finished answer at the voxels of a mask.

        Returns
        -------
        QuestionResults
        """
        results = tuple(self._run(strategy, question, stack, stored) for strategy in self.strategies)
        pairs = tuple(_compare(a, b) for a, b in combinations(results, 2))
        verdict = judge(question, stack.layout, results, evidence, self.options.subject_effect)
        return QuestionResults(question, results, pairs, verdict)

    def answer_mean(self, stack: MapStack, sessions: Sequence[str]) -> StrategyResult:
        """Find where the mean over sessions is beyond the threshold, by the marginal strategy; without its clusters."""
        (mean,) = resolve_session_contrasts([MEAN], sessions)
        return self._estimate(STRATEGIES["marginal"], Question(mean), stack)

    def _run(
        self, strategy: Strategy, question: Question, stack: MapStack, stored: StoredPermutation | None
    ) -> StrategyResult:
        found = self._estimate(strategy, question, stack)
        if found.plan is None or found.located is None:
            return found
        clusters = cluster_table(found.located, found.threshold, self.settings.cluster_threshold)
        permutation = None
        if self.settings.permutations and isinstance(found.plan, FixedEffectsPlan):
            permutation = (
                stored(found.located.mask) if stored else self._permute(found.plan, question, stack, found.located)
            )
        return replace(found, clusters=clusters, permutation=permutation)

    def _estimate(self, strategy: Strategy, question: Question, stack: MapStack) -> StrategyResult:
        names = (strategy.name, strategy.label, strategy.title)
        try:
            plan = strategy.plan(stack.layout, question, self.options)
            plan, result = estimate_in_blocks(plan, stack, self.executor.map_ordered)
        except NotEstimableError as refusal:
            return StrategyResult(*names, str(refusal))
        located = Located.where_determined(result, stack.mask, stack.grid)
        if not located.mask.any():
            return StrategyResult(*names, "No voxel varies over the observations, so there is nothing to test against.")
        threshold = z_threshold(
            located.estimate.z,
            self.settings.alpha,
            self.settings.correction,
            two_sided=located.estimate.two_sided,
        )
        return StrategyResult(*names, None, plan, located, threshold)

    def _permute(
        self, plan: FixedEffectsPlan, question: Question, stack: MapStack, located: Located[Estimate | FTest]
    ) -> PermutationResult:
        values: NDArray[np.float64] = np.concatenate(
            [
                plan.participant_values(stack.effects(block), stack.variances(block) if plan.uses_variances else None)
                for block in blocks_of(stack.n_voxels)
            ],
            axis=1,
        )
        return permute(
            values[:, located.mask[stack.mask]], plan.design_matrix.to_numpy(), plan.contrast, located.mask,
            located.grid, n_permutations=self.settings.permutations, seed=self.settings.random_seed,
            executor=self.executor, description=question.text,
        )  # fmt: skip


def _compare(a: StrategyResult, b: StrategyResult) -> PairResult:
    if a.located is None or b.located is None:
        refused = [one for one in (a, b) if one.located is None]
        return PairResult(a, b, None, " ".join(f"{one.title}: {one.refusal}" for one in refused))
    z = PairResult(a, b, None, "").z
    agreement = compare(*z, a.threshold, b.threshold, two_sided=a.located.estimate.two_sided)
    return PairResult(a, b, agreement, "")


def cluster_table(one: Located[Any], threshold: float, minimum_voxels: int) -> pd.DataFrame:
    """Make a table of the clusters of a z map.

    Parameters
    ----------
    one : Located
    threshold : float
        On |z|; on z for an F test.
    minimum_voxels : int
        Smaller clusters are not listed.

    Returns
    -------
    DataFrame
        nilearn's columns; sub-peaks have a letter in their cluster's number.
    """
    z, two_sided = one.estimate.z, one.estimate.two_sided
    if not np.isfinite(threshold) or not beyond(z, threshold, two_sided=two_sided).any():
        return pd.DataFrame(columns=list(CLUSTER_COLUMNS))
    volume = np.zeros(one.grid.shape, dtype=np.float32)
    volume[one.mask] = z
    # voxels strictly above the threshold are kept, and FDR thresholds are values that occur
    just_below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    return clusters_table(volume, one.grid.affine, just_below, minimum_voxels=minimum_voxels, two_sided=two_sided)


def refusals(contrast: str, questions: Sequence[QuestionResults]) -> list[str]:
    """Name the answers that were declined, for the log."""
    return [
        f"Contrast '{contrast}', sessions '{one.question.text}', {strategy.name}: {strategy.refusal}"
        for one in questions for strategy in one.strategies if strategy.refusal
    ]  # fmt: skip

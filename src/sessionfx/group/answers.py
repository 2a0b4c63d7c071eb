"""Every strategy answers a question on the same voxels, and the answers are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import MEAN, resolve_session_contrasts
from sessionfx.bids.atlas import Atlas, region_names
from sessionfx.errors import NotEstimableError
from sessionfx.execution import Executor, in_threads
from sessionfx.group.absence import with_absence
from sessionfx.group.calibrated import Rates
from sessionfx.group.clusters import cluster_columns, clusters_table, mesh_clusters_table, places_of, with_intervals
from sessionfx.group.coverage import with_coverage, with_participants
from sessionfx.group.evidence import gather
from sessionfx.group.judgement import Evidence
from sessionfx.group.likeness import Likeness, LikenessCheck
from sessionfx.group.participant_evidence import ValueCheck
from sessionfx.group.permutation import PermutationResult, Values, check_symmetry, part_width, permute
from sessionfx.group.results import Answer, QuestionResults, StrategyResult
from sessionfx.group.spool import Spool
from sessionfx.group.stack import MapStack
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.group.strategies import REFERENCE
from sessionfx.group.strategies.base import GroupOptions, Plan, Question
from sessionfx.group.strategies.blocks import Estimator, distinct_pools, estimate_plans, in_memory, informed
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.verdict import judge
from sessionfx.options import GroupModel
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.thresholds import suprathreshold, z_threshold
from sessionfx.wording import where_text, z_text

NOT_EXCHANGED = (
    "There are no family-wise p values: maps that are not there cannot be exchanged, and no voxel is in every map."
)
NO_VARIATION = "No voxel varies over the observations, so there is nothing to test against."
NOBODY_HAS_ALL = (
    "Of no voxel do those who have it have every session that this needs, enough participants, and values that vary."
)
UNLEARNED = "What it must learn from all voxels is learned from maps that share some, and these cannot tell: {reason}"


@dataclass(frozen=True)
class GroupEstimates:
    """What two passes over the maps give."""

    evidence: Evidence
    reliability: dict[str, NDArray[np.float64]]  # shape (V,) each: see `evidence.gather`
    mean: StrategyResult  # the mean over sessions by the strategy of reference
    results: list[tuple[StrategyResult, ...]]  # of each question, by the strategies in order, without permutations
    likeness: Likeness


@dataclass(frozen=True)
class GroupEstimator:
    """How the questions about one contrast are answered."""

    strategies: tuple[Strategy, ...]
    options: GroupOptions
    model: GroupModel
    executor: Executor  # where blocks of voxels and of permutations are computed
    n_threads: int = 1  # that put answers where they live and threshold them
    atlases: tuple[Atlas, ...] = ()  # that name the regions of peaks
    spool: Spool | None = None  # where answers are kept; in memory where there is none

    def estimate(self, questions: Sequence[Question], stack: MapStack, sessions: Sequence[str]) -> GroupEstimates:
        """Estimate all questions by all strategies in two passes over the maps; `sessions` are the study's.

        The first pass gathers the evidence and what plans must know of all voxels from the core maps, the second one
        estimates.
        """
        (mean,) = resolve_session_contrasts([MEAN], sessions)
        tested = questions[0].tested
        wanted = [(strategy, question) for question in questions for strategy in self.strategies]
        # regions for the reliability are where this answer is suprathreshold
        of_mean = (REFERENCE, Question(mean, tested=tested))
        if of_mean not in wanted:
            wanted.append(of_mean)
        results = [
            StrategyResult(strategy).with_plan(partial(strategy.plan, stack.layout, question, self.options))
            for strategy, question in wanted
        ]
        core, learning = stack.core, results
        if not stack.learns_from_all:
            learning = [
                self._of_core(result, stack, question) for (_, question), result in zip(wanted, results, strict=True)
            ]
        pools = distinct_pools([result.plan for result in learning if result.plan is not None])
        checks = {question.label: ValueCheck.of(core.layout, question, self.options) for question in questions}
        likeness = LikenessCheck.of(core.layout, stack.n_voxels * stack.n_rows)
        evidence, reliability, sums = gather(
            core, sessions, (*pools.values(), likeness), self.executor.map_ordered,
            {label: check for label, check in checks.items() if check is not None},
        )  # fmt: skip
        *sums, of_maps = sums
        known = dict(zip(pools, sums, strict=True))
        learning = [_informed(result, known) for result in learning]
        results = [_taught(result, of_core) for result, of_core in zip(results, learning, strict=True)]
        planned = [(*of, result.plan) for of, result in zip(wanted, results, strict=True) if result.plan is not None]
        plans: list[Estimator] = [plan for _, _, plan in planned]
        if stack.complete is not stack:
            plans = [
                PatternPlan(plan, strategy, stack.layout, question, self.options)
                for strategy, question, plan in planned
            ]
        keep = in_memory if self.spool is None else self.spool.keep
        estimates = estimate_plans(plans, stack, self.executor.map_ordered, keep) if plans else iter(())
        to_locate = ((result, None if result.plan is None else next(estimates), stack) for result in results)
        results = list(in_threads(self.n_threads, self._locate, to_locate))
        each = len(self.strategies)
        by_question = [tuple(results[at * each : (at + 1) * each]) for at in range(len(questions))]
        return GroupEstimates(
            evidence, reliability, results[wanted.index(of_mean)], by_question, likeness.found(of_maps)
        )

    def with_permutation(
        self, found: StrategyResult, question: Question, stack: MapStack, stored: PermutationResult | None
    ) -> StrategyResult:
        """Complete an answer by family-wise p values, or by why there are none.

        Those of a finished answer are stored.
        """
        if not isinstance(found, Answer):
            return found
        try:
            # maps that are not there cannot be exchanged
            mask = found.stat_map.mask & stack.complete.mask
            if not mask.any():
                raise NotEstimableError(NOT_EXCHANGED)
            permutation = stored or self._permute(found.plan, question, stack.complete, mask)
        except NotEstimableError as refusal:
            return replace(found, permutation_refusal=str(refusal))
        return replace(found, permutation=permutation)

    def judged(
        self,
        question: Question,
        results: Sequence[StrategyResult],
        stack: MapStack,
        evidence: Evidence,
        rates: Rates | None = None,
    ) -> QuestionResults:
        """Complete the answers to one question by tests for no effect, and judge them.

        The evidence is what the data say about the strategies' assumptions, rates are what a calibration found of each.
        """
        complete = tuple(with_absence(result, question, self.model) for result in results)
        verdict = judge(question, stack.layout, complete, evidence, self.options, rates)
        judged = with_coverage(QuestionResults(question, complete, verdict), stack)
        return replace(judged, verdict=judged.verdict.in_words(stack.space.in_words))

    def _of_core(self, planned: StrategyResult, stack: MapStack, question: Question) -> StrategyResult:
        """Plan an answer for the core maps, where a plan learns from them; else it stays."""
        if planned.plan is None or not planned.plan.pools:
            return planned
        of_all = PatternPlan(planned.plan, planned.strategy, stack.layout, question, self.options)
        return planned.with_plan(lambda: of_all.at_rows(stack.core_rows), UNLEARNED)

    def _locate(self, planned: StrategyResult, estimate: Estimate | FTest | None, stack: MapStack) -> StrategyResult:
        """Find where an answer is determined, its threshold and its clusters; there is no estimate without a plan."""
        if estimate is None or planned.plan is None:
            return planned
        stat_map = StatMap.where_determined(estimate, stack.mask, stack.space)
        if not stat_map.mask.any():
            return planned.refused(NO_VARIATION if stack.complete.n_voxels else NOBODY_HAS_ALL)
        threshold = z_threshold(
            stat_map.estimate.z, self.model.alpha, self.model.correction, two_sided=stat_map.estimate.two_sided
        )
        clusters = with_intervals(cluster_table(stat_map, threshold, self.model.cluster_threshold), stat_map)
        clusters = with_participants(clusters, stat_map)
        if self.atlases:
            clusters["Region"] = region_names(self.atlases, places_of(clusters), stack.space)
        if self.spool is not None:
            stat_map = self.spool.keep_map(stat_map)
        return Answer(
            strategy=planned.strategy, plan=planned.plan, stat_map=stat_map, threshold=threshold, clusters=clusters
        )

    def _permute(self, plan: Plan, question: Question, stack: MapStack, mask: NDArray[np.bool_]) -> PermutationResult:
        resampling = plan.resampling
        with self._resampled_values(plan, stack, mask) as values:
            if not question.sessions.is_within_participant:  # sessions that are exchanged make differences symmetric
                check_symmetry(values, resampling, self.model.random_seed)
            return permute(
                values, resampling, mask, n_permutations=self.model.permutations, seed=self.model.random_seed,
                executor=self.executor, description=question.text, space=stack.space,
            )  # fmt: skip

    @contextmanager
    def _resampled_values(self, plan: Plan, stack: MapStack, mask: NDArray[np.bool_]) -> Iterator[Values]:
        """Bring what a plan resamples at the voxels of a mask, of shape (N, V), onto disk where answers go there."""
        chosen = mask[stack.mask]
        parts = _resampled_blocks(plan, stack, chosen)
        if self.spool is None:
            yield np.concatenate(list(parts), axis=1)
            return
        with scratch_file(self.spool.folder, is_shared=True) as file:
            first = next(parts)
            store = BlockStore.of_columns(
                file, self.spool.folder, chain([first], parts), int(chosen.sum()), part_width(len(first))
            )
            store.share()
            yield store


def _resampled_blocks(plan: Plan, stack: MapStack, chosen: NDArray[np.bool_]) -> Iterator[NDArray[np.floating]]:
    """Give what a plan resamples at some of the answered voxels, block by block."""
    start = 0
    for block in stack.blocks:
        values = plan.resampled_values(stack.effects(block), stack.variances(block) if plan.uses_variances else None)
        stop = start + values.shape[1]
        yield values[:, chosen[start:stop]]
        start = stop


def _informed(planned: StrategyResult, sums: Mapping[object, NDArray[np.float64]]) -> StrategyResult:
    return planned if planned.plan is None else planned.with_plan(partial(informed, planned.plan, sums))


def _taught(planned: StrategyResult, of_core: StrategyResult) -> StrategyResult:
    """Give a plan of all maps what was learned from the core maps."""
    plan, learned = planned.plan, of_core.plan
    if plan is None or learned is None or learned.rows == plan.rows or not plan.pools:
        return of_core
    if not set(plan.groups) <= set(learned.groups or plan.groups):
        return planned.refused(UNLEARNED.format(reason="Some group has none of them."))
    return planned.with_plan(partial(plan.working_as, learned))


def cluster_table(stat_map: StatMap[Any], threshold: float, minimum_voxels: int) -> pd.DataFrame:
    """Make a table of the clusters of a z map, of volumes with nilearn's columns; sub-peaks have letters.

    The threshold is on |z|, or on z for an F test. Clusters of fewer voxels than the minimum are not listed.
    """
    z, two_sided = stat_map.estimate.z, stat_map.estimate.two_sided
    if not np.isfinite(threshold) or not suprathreshold(z, threshold, two_sided=two_sided).any():
        return pd.DataFrame(columns=cluster_columns(stat_map.space))
    if not isinstance(stat_map.space, Grid):
        return mesh_clusters_table(stat_map, threshold, smallest=minimum_voxels)
    volume = np.zeros(stat_map.space.shape, dtype=np.float32)
    volume[stat_map.mask] = z
    # voxels strictly above the threshold are kept
    just_below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    return clusters_table(volume, stat_map.space.affine, just_below, minimum_voxels=minimum_voxels, two_sided=two_sided)


def refusals(contrast: str, questions: Sequence[QuestionResults]) -> list[str]:
    """Name the answers and family-wise p values that were declined, as warnings.

    That a strategy never answers a kind of question is none where others answer it; the table of answers has it.
    """
    declined = [
        f"Contrast '{contrast}', sessions '{asked.question.text}', {declined.name}: {declined.refusal}"
        for asked in questions
        for declined in asked.strategies
        if declined.refusal and not (declined.strategy.never_answers(asked.question) and asked.answers)
    ]
    # a strategy says the same of many questions
    of_resampling: dict[tuple[str, str], list[str]] = {}
    for asked in questions:
        for answer in asked.answers:
            if answer.permutation_refusal:
                of_resampling.setdefault((answer.name, answer.permutation_refusal), []).append(
                    f"'{asked.question.text}'"
                )
    return declined + [
        f"Contrast '{contrast}', sessions {', '.join(texts)}, {name}: {sentence}"
        for (name, sentence), texts in of_resampling.items()
    ]


def finding(results: QuestionResults) -> str:
    """Say in a line which strategy to report for a question, in how many voxels it finds something, and its peak."""
    best = results.best
    if best is None:
        return f"{results.question.text}: no strategy of this call can be recommended."
    summary, tests = best.summary, best.equivalence
    features = best.stat_map.space.features
    equivalent = f", {tests.mask.sum():,} equivalent to zero {tests.within(results.question.units)}" if tests else ""
    peak = best.at_peak
    at_peak = f"peak z {z_text(peak['peak_z'])} at {where_text(peak)}"
    are = "is" if summary["n_above"] == 1 else "are"
    counts = f"{summary['n_above']:,} of {summary[f'n_{features}']:,} {features} {are} suprathreshold"
    care = f" With care: {results.verdict.strategies[best.name].reason}" if results.verdict.with_care else ""
    return f"{results.question.text}: {best.title} is recommended; {counts}, {at_peak}{equivalent}.{care}"

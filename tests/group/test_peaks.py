"""What participants show at a peak is what their maps hold there, and an odd participant stands out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from array_maps import estimate_in_blocks
from map_stacks import stack_of
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.answer_files import describe_clusters
from sessionfx.group.answers import cluster_table
from sessionfx.group.clusters import INTERVAL_COLUMNS, with_intervals
from sessionfx.group.judgement import Judgement
from sessionfx.group.peaks import SHOWN_PEAKS, peaks_of
from sessionfx.group.results import Answer, QuestionResults, Verdict
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate

SHAPE = (8, 9, 7)
SESSIONS = ("01", "02", "03")
PEOPLE = tuple("abcdefgh")


def study(seed: int = 0) -> tuple[Any, Any, Any]:
    """Eight participants, of whom the second misses the last session; two strong places."""
    rng = np.random.default_rng(seed)
    keys = [(person, session) for person in PEOPLE for session in SESSIONS if (person, session) != ("b", "03")]
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:7, 1:8, 1:6] = True
    effects = rng.normal(size=(len(keys), int(mask.sum())))
    volume = np.zeros(SHAPE)
    volume[2, 2, 2], volume[5, 6, 4] = 9.0, -7.0
    effects += volume[mask]
    layout = MapLayout(tuple(person for person, _ in keys), tuple(session for _, session in keys))
    return stack_of(layout, effects, mask), effects, keys


def answered(stack: Any, threshold: float) -> QuestionResults:
    question = Question(resolve_session_contrasts(["mean"], SESSIONS)[0])
    strategy = STRATEGIES["summary-statistics"]
    plan = strategy.plan(stack.layout, question, GroupOptions())
    _, estimate = estimate_in_blocks(plan, stack)
    stat_map = StatMap.where_determined(estimate, stack.mask, stack.space)
    result = Answer(
        strategy=strategy, plan=plan, stat_map=stat_map, threshold=threshold,
        clusters=cluster_table(stat_map, threshold, 0),
    )  # fmt: skip
    verdict = Verdict("", (strategy.name,), {strategy.name: Judgement("yes", "")}, {})
    return QuestionResults(question, (result,), verdict)


def test_sessions_at_the_peaks_are_those_of_the_maps() -> None:
    stack, effects, keys = study()
    found = peaks_of(answered(stack, 4.5), stack)
    assert [tuple(peak.place.values()) for peak in found] == [(6.0, 6.0, 6.0), (15.0, 18.0, 12.0)]
    for peak, voxel in zip(found, ((2, 2, 2), (5, 6, 4)), strict=True):
        column = int(np.flatnonzero(np.flatnonzero(stack.mask) == np.ravel_multi_index(voxel, SHAPE))[0])
        expected = pd.DataFrame(keys).assign(value=effects[:, column]).pivot_table("value", 0, 1, dropna=False)
        np.testing.assert_allclose(peak.effects, expected.to_numpy())
        assert peak.is_suprathreshold
    assert np.isnan(found[0].effects[1, 2])


@pytest.mark.parametrize(("below", "peak_at"), [(-7.0, 2), (-9.0, 2), (-9.5, 6)])
def test_the_peak_of_an_answer_is_what_it_has_farthest_from_zero(below: float, peak_at: int) -> None:
    """Above and below zero alike; of two that are equally far, and have one z, the first in the image."""
    stack, _, _ = study()
    (answer,) = answered(stack, 4.5).answers
    z = np.zeros(stack.n_voxels)
    z[[2, 6]] = 9.0, below
    found = replace(answer, stat_map=StatMap(Estimate(z, np.ones_like(z), 1e12), stack.mask, stack.space))
    assert found.peak == peak_at
    value, place = found.stat_map.estimate.z[peak_at], stack.space.place(int(np.flatnonzero(stack.mask)[peak_at]))
    assert found.at_peak == {**place, "peak_z": value}
    side = "largest" if value > 0 else "smallest"
    assert found.summary[f"{side}_z"] == value
    assert {axis: found.summary[f"{side}_at_{axis}"] for axis in place} == place


def test_the_interval_is_that_of_the_one_sample_t_test() -> None:
    stack, _, _ = study()
    peak, _ = peaks_of(answered(stack, 4.5), stack)
    means = np.nanmean(peak.effects, axis=1)
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    assert peak.estimate == pytest.approx((means.mean(), low, high))


def test_without_a_suprathreshold_voxel_the_largest_is_shown() -> None:
    stack, _, _ = study()
    question = answered(stack, float("inf"))
    (peak,) = peaks_of(question, stack)
    assert not peak.is_suprathreshold
    stat_map = question.answers[0].stat_map
    assert abs(peak.z) == np.abs(stat_map.estimate.z).max()


def test_a_peak_is_suprathreshold_where_its_cluster_is_too_small_for_the_table() -> None:
    stack, _, _ = study()
    question = answered(stack, 4.5)
    unlisted = replace(question.answers[0], clusters=question.answers[0].clusters.iloc[:0])
    (peak,) = peaks_of(replace(question, strategies=(unlisted,)), stack)
    assert peak.is_suprathreshold
    assert abs(peak.z) == np.abs(unlisted.stat_map.estimate.z).max()


def test_only_the_first_clusters_are_shown() -> None:
    stack, _, _ = study()
    assert len(peaks_of(answered(stack, 0.1), stack)) <= SHOWN_PEAKS


def test_a_question_without_an_answer_has_no_peak() -> None:
    stack, _, _ = study()
    question = answered(stack, 4.5)
    declined = replace(question, strategies=(question.strategies[0].refused("no"),))
    assert peaks_of(declined, stack) == ()


def test_an_f_test_has_no_estimate() -> None:
    stack, _, _ = study()
    question = Question(resolve_session_contrasts(["any"], SESSIONS)[0])
    marginal = STRATEGIES["marginal"]
    plan = marginal.plan(stack.layout, question, GroupOptions())
    _, test = estimate_in_blocks(plan, stack)
    assert not isinstance(test, Estimate)
    stat_map = StatMap.where_determined(test, stack.mask, stack.space)
    result = Answer(strategy=marginal, plan=plan, stat_map=stat_map, threshold=float("inf"))
    verdict = Verdict("", ("marginal",), {"marginal": Judgement("yes", "")}, {})
    (peak,) = peaks_of(QuestionResults(question, (result,), verdict), stack)
    assert peak.estimate is None


def test_sessions_at_a_peak_have_their_means_and_intervals() -> None:
    stack, _, _ = study()
    peak = peaks_of(answered(stack, 4.5), stack)[0]
    first, last = (peak.effects[np.isfinite(peak.effects[:, column]), column] for column in (0, 2))
    assert len(first) == 8 and len(last) == 7
    assert peak.sessions is not None
    for own, index in ((first, 0), (last, 2)):
        expected = stats.ttest_1samp(own, 0).confidence_interval(0.95)
        assert peak.sessions.effect[index] == pytest.approx(own.mean())
        np.testing.assert_allclose(peak.sessions.of_each[index], expected)
    wider = peak.sessions.of_all - peak.sessions.of_each
    assert (wider[:, 0] < 0).all() and (wider[:, 1] > 0).all()


def test_the_table_of_clusters_has_the_effect_at_each_peak_with_its_interval() -> None:
    stack, _, _ = study()
    results = answered(stack, 4.5)
    (answer,) = results.answers
    table = with_intervals(answer.clusters, answer.stat_map)
    peaks = {tuple(peak.place.values()): peak for peak in peaks_of(results, stack)}
    assert len(table) >= 2
    for row in table.to_dict("records"):
        peak = peaks[row["X"], row["Y"], row["Z"]]
        values = np.nanmean(peak.effects, axis=1)
        expected = (values.mean(), stats.sem(values), *stats.ttest_1samp(values, 0).confidence_interval(0.95))
        np.testing.assert_allclose([row[name] for name in INTERVAL_COLUMNS], expected)
    described = describe_clusters(table, "percent signal change")
    assert list(described) == list(table.columns)
    assert {described[name]["Units"] for name in INTERVAL_COLUMNS} == {"percent signal change"}
    empty = with_intervals(answer.clusters.iloc[:0], answer.stat_map)
    assert list(empty.columns) == list(table.columns)

"""The validity study asks the program itself, and its tables say what was found."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import situations
import starred
import validity
import validity_page

from map_stacks import stack_of
from sessionfx.execution import LocalExecutor
from sessionfx.group.answers import GroupEstimator
from sessionfx.group.evidence import with_active_regions
from sessionfx.group.judgement import Judgement
from sessionfx.group.results import Verdict
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.options import GroupModel

GROUPS = situations.grouped((5, 9), 2.0)
LEAVING = next(case for case in situations.dropout_situations() if case.name == "by level, n=12, k=3")
TIMES = next(case for case in situations.time_situations() if case.name == "spacing by participant, n=8")


@pytest.mark.slow
@pytest.mark.parametrize("situation", [GROUPS, LEAVING, TIMES], ids=lambda case: case.kind)
def test_answers_in_memory_are_those_of_the_program(situation: starred.Situation) -> None:
    maps = situation.noise(200, np.random.default_rng(3))
    found = starred.answers(situation, situation.questions, maps)

    stack = stack_of(situation.layout, maps, np.ones((200, 1, 1), dtype=bool))
    strategies = tuple(STRATEGIES[name] for name in starred.DEFAULT)
    with LocalExecutor(1, None) as executor:
        program = GroupEstimator(strategies, GroupOptions(), GroupModel(), executor)
        estimates = program.estimate(situation.questions, stack, situation.sessions)
        evidence = with_active_regions(estimates.evidence, estimates.reliability, stack, estimates.mean)
        for question, own, results in zip(situation.questions, found, estimates.results, strict=True):
            theirs = program.judged(question, results, stack, evidence)
            assert own.verdict.text == theirs.verdict.text
            for here, there in zip(own.strategies, theirs.strategies, strict=True):
                assert (here.stat_map is None) == (there.stat_map is None)
                if here.stat_map is not None and there.stat_map is not None:
                    assert_allclose(here.stat_map.estimate.z, there.stat_map.estimate.z, rtol=1e-9)


def test_maps_have_the_covariance_that_is_stated() -> None:
    maps = GROUPS.noise(10_000, np.random.default_rng(1))
    # five standard errors of the largest variance, 4
    assert_allclose(np.cov(maps), GROUPS.covariance_of_maps(), atol=5 * 4 * np.sqrt(2 / 10_000))


@pytest.mark.parametrize("name", starred.DISTRIBUTIONS)
def test_draws_have_mean_zero_and_variance_one(name: str) -> None:
    draws = starred.DISTRIBUTIONS[name](np.random.default_rng(1), (400_000,))
    assert abs(draws.mean()) < 5 / np.sqrt(400_000)
    assert draws.std() == pytest.approx(1, abs=0.1)  # the variance of t3 has none itself, so no standard error


def test_the_true_effect_is_three_standard_errors_of_the_paired_t_test() -> None:
    situation = situations.ordinary("unequal variances", 12, 3, 0.5)
    question = situation.questions[1]  # last - first
    effect = situation.effect(question)
    sd = np.sqrt(1 + 9 - 2 * 0.5 * 3)
    assert question.text == "ses-03 - ses-01"
    assert_allclose(effect.reshape(12, 3), np.tile(np.array([-0.5, 0, 0.5]) * 3 * sd / np.sqrt(12), (12, 1)))


def test_null_means_leave_the_null_hypothesis_true() -> None:
    situation = situations.ordinary("dropout", 12, 3, 0.5)
    for question in situation.questions[:3]:
        means = situation.null_means(question)
        of_sessions = [means[situation.rows[1] == place][0] for place in range(3)]
        assert np.dot(question.sessions.weights, of_sessions) == pytest.approx(0)
    assert not situation.null_means(situation.questions[3]).any()  # any


def test_levels_of_those_who_leave_average_to_zero() -> None:
    for situation in situations.dropout_situations():
        if situation.kind == "dropout of half":
            level = np.broadcast_to(situation.level, situation.attends.shape)
            assert_allclose(level.mean(axis=0), 0, atol=1e-12)


def test_every_situation_can_be_asked() -> None:
    everything = situations.situations()
    names = {f"{case.kind} {case.name} {case.icc} {case.ratio}" for case in everything}
    assert len(names) == len(everything)
    assert sum(case.kind in situations.STRUCTURES for case in everything) == 180
    for case in everything[::20]:
        assert len(case.layout.participants) == case.attends.sum()
        assert len(case.questions) == len(case.asked)


@pytest.mark.slow
def test_studies_are_counted_by_their_star_and_their_warnings() -> None:
    situation = replace(situations.grouped((12, 12), 1.0), voxels_per_study=100)
    found = starred.false_positives(situation, 400, 1)
    assert len(found) == len(situation.asked)
    for answer in found:
        assert answer.n_studies == sum(answer.stars.values()) == 4
        assert answer.tallies[starred.STARRED].n_voxels == 400
        assert answer.tallies[starred.SILENT].n_voxels == 100 * (4 - answer.n_warned)
    mean = found[0]
    assert dict(mean.stars) == {"marginal": 4}
    assert (mean.tallies[starred.STARRED].counts == mean.tallies["marginal"].counts).all()
    assert mean.tallies["marginal"].counts[0] > 0


def verdict(valid: str, text: str = "Report it.", recommended: tuple[str, ...] = ("marginal",)) -> Verdict:
    return Verdict(text, recommended, {"marginal": Judgement(valid, "why.")}, {})


def test_a_warning_is_care_or_a_sentence_that_says_beware() -> None:
    assert starred.warnings_of(verdict("yes")) == ()
    assert starred.warnings_of(verdict("conditional")) == ("why.",)
    assert starred.warnings_of(verdict("yes", "Report it. Beware: they left.")) == ("Beware: they left.",)
    assert starred.warnings_of(verdict("yes", recommended=())) == ("No answer is recommended.",)


def a_row(**values: object) -> dict[str, object]:
    row: dict[str, object] = {"kind": "groups", "situation": "3:20", "n": 23, "k": 3, "icc": 0.5, "ratio": 3.0}
    row |= {"contrast": "mean", "group": "intercept", "n_voxels": 100, "star": "marginal", "warned": 0.0}
    for name in validity.ROWS:
        row |= {f"{name} %": 5.0, f"{name} ‰": 1.0}
    return row | values


def test_only_a_starred_answer_without_a_warning_fails_the_study() -> None:
    rows = [
        a_row(),
        a_row(**{f"{starred.SILENT} %": 5.9}),
        a_row(**{f"{starred.SILENT} ‰": 2.1}),
        a_row(**{f"{starred.STARRED} %": 20.0, f"{starred.SILENT} %": np.nan, f"{starred.SILENT} ‰": np.nan}),
        a_row(**{"mixed %": 30.0}),
    ]
    assert list(validity.failures(pd.DataFrame(rows)).index) == [1, 2]


def test_power_is_lost_to_strategies_that_keep_their_rate_only() -> None:
    rows = []
    for fixed_rate in (5.0, 40.0):
        row = a_row(n=int(fixed_rate), **{"summary-statistics %": fixed_rate})
        powers = zip((*starred.DEFAULT, starred.STARRED), (99.0, 90.0, 80.0, 99.0, 80.0), strict=True)
        rows.append(row | {f"power of {name} %": power for name, power in powers})
    assert list(validity_page.power_loss(pd.DataFrame(rows))) == [10.0, 0.0]


def test_a_rate_that_chance_may_explain_is_simulated_again() -> None:
    found = starred.Found()
    found.tallies[starred.SILENT].add(np.array([540, 100, 10, 1, 0]), 10_000)
    assert not validity.is_suspicious(found, "groups")
    found.tallies["marginal"].add(np.array([560, 100, 10, 1, 0]), 10_000)
    assert not validity.is_suspicious(found, "groups")
    assert validity.is_suspicious(found, "dropout")
    found.tallies[starred.SILENT].add(np.array([600, 100, 10, 1, 0]), 10_000)
    assert validity.is_suspicious(found, "groups")


def test_the_page_is_made_from_the_tables_beside_it() -> None:
    docs = Path(__file__).parents[2] / "docs"
    table = pd.read_csv(docs / "validity.tsv", sep="\t", keep_default_na=False, na_values=[""])
    tails = pd.read_csv(docs / "validity_tails.tsv", sep="\t", keep_default_na=False, na_values=[""])
    page = (docs / "validity.md").read_text(encoding="utf-8")
    kinds = situations.ORDINARY
    assert page == validity_page.write_page(
        table, tails, validity.failures(table), kinds, 20_000, validity.CONFIRM, 2024
    )
    assert validity.failures(table).empty
    assert len(table) == sum(len(case.asked) for case in situations.situations())

"""Robust estimates over participants: R's answers, rates at the nominal 5 % and 1 ‰, weights, and what is declined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import Study, everyone, p_of, patients
from group_study import START, group_map, group_path, make_study, read, strict_json
from pages import text_of
from r_scripts import assert_r_gives_the_stored_answers
from sessionfx.cli import main
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.robust import MEstimator, prepare_m_estimate, prepare_trimmed

R_TABLES = Path(__file__).parents[1] / "data" / "robust"
VOXELS = ["v1", "v2", "v3", "v4", "v5", "v6"]
KINDS: tuple[MEstimator, ...] = ("huber", "bisquare")
MAPS = pd.read_csv(R_TABLES / "maps.tsv", sep="\t")
ANSWERS = pd.read_csv(R_TABLES / "answers.tsv", sep="\t")
ONES = np.ones(len(MAPS))
DESIGNS = {
    "mean": (ONES[:, None], np.array([1.0])),
    "groups": (np.column_stack([ONES, MAPS["group"]]), np.array([0.0, 2.0])),
    "age": (np.column_stack([ONES, MAPS["age"]]), np.array([0.0, 1.0])),
}


def answers(kind: str, design: str) -> pd.DataFrame:
    return ANSWERS[(ANSWERS["kind"] == kind) & (ANSWERS["design"] == design)]


def values_of_r() -> NDArray[np.float64]:
    return MAPS[VOXELS].to_numpy()


def assert_is(found: Estimate, expected: pd.DataFrame) -> None:
    np.testing.assert_allclose(found.effect, expected["estimate"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["se"], rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found.dof, found.effect.shape), expected["dof"], rtol=1e-5)


# R ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", list(DESIGNS))
@pytest.mark.parametrize("kind", KINDS)
def test_m_estimates_have_the_answers_of_r(kind: MEstimator, design: str) -> None:
    assert_is(prepare_m_estimate(kind, *DESIGNS[design]).estimate(values_of_r()), answers(kind, design))


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_has_the_estimates_and_weights_of_rlm(kind: MEstimator) -> None:
    prepared = prepare_m_estimate(kind, *DESIGNS["mean"])
    expected = answers(f"rlm_{kind}", "mean")["estimate"]
    np.testing.assert_allclose(prepared.estimate(values_of_r()).effect, expected, rtol=1e-6)
    weights = pd.read_csv(R_TABLES / "weights.tsv", sep="\t").query(f"kind == '{kind}'")
    table = weights.pivot_table(index="participant", columns="voxel", values="weight")[VOXELS]
    np.testing.assert_allclose(prepared.weights(values_of_r()), table, atol=1e-6)


@pytest.mark.parametrize("design", ["mean", "groups"])
def test_trimmed_means_have_the_answers_of_r(design: str) -> None:
    assert_is(prepare_trimmed(*DESIGNS[design]).estimate(values_of_r()), answers("trimmed", design))


@pytest.mark.slow
def test_r_gives_the_stored_answers(tmp_path: Path) -> None:
    assert_r_gives_the_stored_answers(R_TABLES, tmp_path, rtol=1e-6)


# Exact facts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_move_and_grow_with_the_values(kind: MEstimator) -> None:
    prepared = prepare_m_estimate(kind, *DESIGNS["mean"])
    values = values_of_r()
    first, other = prepared.estimate(values), prepared.estimate(-3 * values + 2)
    np.testing.assert_allclose(other.effect, -3 * first.effect + 2, rtol=1e-6)
    np.testing.assert_allclose(other.variance, 9 * first.variance, rtol=1e-5)


def test_an_outlying_participant_moves_the_mean_and_no_robust_estimate_far() -> None:
    values = np.random.default_rng(3).normal(1, 1, (20, 200))
    outlying = values.copy()
    outlying[4] = 1000.0
    for kind in KINDS:
        prepared = prepare_m_estimate(kind, np.ones((20, 1)), np.ones(1))
        assert np.abs(prepared.estimate(outlying).effect - prepared.estimate(values).effect).max() < 0.5
        assert prepared.weights(outlying)[4].max() < 0.01
    trimmed = prepare_trimmed(np.ones((20, 1)), np.ones(1))
    assert np.abs(trimmed.estimate(outlying).effect - trimmed.estimate(values).effect).max() < 0.5
    assert not trimmed.weights(outlying)[4].any()
    assert (trimmed.weights(values).sum(axis=0) == 12).all()


@pytest.mark.parametrize("kind", [*KINDS, "trimmed"])
def test_voxels_without_variation_are_not_determined(kind: str) -> None:
    values = np.random.default_rng(4).normal(size=(14, 3))
    values[:, 1] = 2.5
    values[:12, 2] = 1.0
    ones, one = np.ones((14, 1)), np.ones(1)
    prepared = prepare_trimmed(ones, one) if kind == "trimmed" else prepare_m_estimate(kind, ones, one)  # type: ignore[arg-type]
    found = prepared.estimate(values)
    assert np.isfinite(found.z).all()
    assert found.is_determined[:2].tolist() == [True, False]


def test_a_group_that_has_lost_its_weight_leaves_no_answer() -> None:
    values = np.random.default_rng(5).normal(size=(20, 1))
    values[18:] += 100
    design = np.column_stack([np.ones(20), np.arange(20) >= 18])
    found = prepare_m_estimate("bisquare", design, np.array([0.0, 1.0])).estimate(values)
    assert np.isfinite(found.z).all()


# Rates ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["huber", "bisquare", "trimmed"])
@pytest.mark.parametrize("outlying", [False, True], ids=["normal", "outlying"])
def test_rates_are_nominal_from_the_fewest_participants_on(kind: str, outlying: bool) -> None:
    study = Study(everyone(8, 2))
    spread = np.ones(8)
    if outlying:
        spread[0] = 10.0
    maps = study.maps(7, participant_sd=spread)
    _, found = study.answer("summary-statistics", study.question("mean"), maps, robust=kind)
    p = p_of(found)
    assert (p < 0.05).mean() < 0.058 + 4 * np.sqrt(0.05 / len(p))
    assert (p < 0.001).mean() < 0.002 + 4 * np.sqrt(0.001 / len(p))


# Through the strategy ---------------------------------------------------------------------------------------


def test_robust_summary_statistics_are_of_the_participants_values() -> None:
    study = Study(everyone(14, 2))
    maps = study.maps(8, n_voxels=40)
    plan, found = study.answer("summary-statistics", study.question("ses-02 - ses-01"), maps, robust="huber")
    values = np.subtract(*maps.reshape(14, 2, 40).transpose(1, 0, 2)[::-1])
    expected = prepare_m_estimate("huber", np.ones((14, 1)), np.ones(1))
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.effect, expected.estimate(values).effect, rtol=1e-9)
    np.testing.assert_allclose(plan.participant_weights(maps, None), expected.weights(values), rtol=1e-9)


@pytest.mark.parametrize(
    ("study", "contrast", "group", "options", "message"),
    [
        (Study(everyone(7, 2)), "mean", "intercept", {"robust": "huber"}, "at least 8"),
        (Study(everyone(16, 3)), "any", "intercept", {"robust": "bisquare"}, "one contrast of one value"),
        (Study(everyone(16, 2), {"age": [float(age) for age in range(16)]}), "mean", "age", {"robust": "trimmed"},
         "take huber or bisquare"),
        (Study(everyone(16, 2), patients(4, 12)), "mean", "patient - control", {"robust": "trimmed"}, "smallest group"),
        (Study(everyone(16, 2), patients(8, 8)), "mean", "patient - control",
         {"robust": "huber", "variance": "groups"}, "one scale"),
    ],
    ids=["few", "any", "covariate", "small group", "variances"],
)  # fmt: skip
def test_what_a_robust_estimate_cannot_answer_is_declined(
    study: Study, contrast: str, group: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(NotEstimableError, match=message):
        STRATEGIES["summary-statistics"].plan(study.layout, study.question(contrast, group), GroupOptions(**options))


def test_there_are_no_resamplings_and_no_bayes_factor() -> None:
    study = Study(everyone(14, 2))
    question = study.question("mean")
    plan = STRATEGIES["summary-statistics"].plan(study.layout, question, GroupOptions(robust="huber"))
    with pytest.raises(NotEstimableError, match="family-wise"):
        _ = plan.resampling
    with pytest.raises(NotEstimableError, match="Bayes factor"):
        plan.effective_n(question)


def test_the_robust_answer_is_the_one_to_report_and_others_stay_as_they_are() -> None:
    study = Study(everyone(14, 2))
    maps = study.maps(9, n_voxels=300)
    verdict, _ = study.verdict(study.question("mean"), maps, robust="huber")
    assert verdict.recommended[0] == "summary-statistics"
    for name in ("session-model", "marginal", "mixed"):
        _, plain = study.answer(name, study.question("mean"), maps)
        _, robust = study.answer(name, study.question("mean"), maps, robust="huber")
        np.testing.assert_array_equal(plain.z, robust.z)


# Through the program ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_are_written_and_the_page_says_who_counts_fully(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=13, sessions=("01", "02"), missing=(), shape=(4, 4, 4))
    study.write("05", "01", np.full((4, 4, 4), 50.0), None)
    output = tmp_path / "out"
    call = [
        str(study.raw),
        str(output),
        "group",
        "-d",
        str(study.maps),
        "--session-contrast",
        "mean",
        "--robust",
        "huber",
    ]
    assert main([*call, "--strategy", "summary-statistics", "marginal", "--permutations", "20", "--nprocs", "1"]) == 0
    weights = read(group_path(output, "summaryStatistics", "weight", desc="participants"))
    sidecar = strict_json(
        output
        / "group"
        / f"{START}_sessions-mean_strategy-summaryStatistics_stat-weight_desc-participants_statmap.json"
    )
    assert weights.shape[-1] == 13
    assert sidecar["Participants"][4] == "sub-05"  # type: ignore[index]
    assert sidecar["MeanWeights"]["sub-05"] < 20 < sidecar["MeanWeights"]["sub-01"]  # type: ignore[index]
    smallest = group_map(output, "summaryStatistics", "weight", desc="smallest")
    np.testing.assert_array_equal(smallest, weights.reshape(-1, 13).min(axis=1))
    assert group_map(output, "summaryStatistics", "weight", desc="belowHalf").max() >= 1
    page = text_of(output / "group.html")
    assert "Marginal model still counts all participants fully" in page
    assert "no family-wise p values with --robust" in page
    assert "Huber's weights" in page

"""Robust estimates over participants: R's answers, rates at the nominal 5 % and 1 ‰, weights, and what is declined."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import map_stacks
from array_study import Study, everyone, p_of, patients
from group_study import START, group_map, group_path, make_study, read, strict_json
from pages import text_of
from sessionfx.cli import main
from sessionfx.errors import NotEstimableError
from sessionfx.execution import in_this_process
from sessionfx.group import weights as module
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.group.strategies.marginal import COUNTED_FULLY, WorkingCovariance
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.group.weights import weigh_participants
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


# Of all maps ------------------------------------------------------------------------------------------------


def with_outlying(study: Study, seed: int, n_voxels: int = 40) -> NDArray[np.float64]:
    maps = study.maps(seed, n_voxels=n_voxels)
    maps[:2] += 6.0
    return maps


@pytest.mark.parametrize("contrast", ["mean", "ses-02 - ses-01", "linear"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_complete_data_it_is_the_estimate_over_participants_values(kind: str, contrast: str) -> None:
    study = Study(everyone(14, 3))
    maps, question = with_outlying(study, 8), study.question(contrast)
    (values, of_values), (plan, found) = (
        study.answer(name, question, maps, robust=kind) for name in ("summary-statistics", "marginal")
    )
    assert isinstance(found, Estimate)
    assert isinstance(of_values, Estimate)
    np.testing.assert_allclose(found.effect, of_values.effect, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.variance, of_values.variance, rtol=1e-6)
    np.testing.assert_allclose(found.dof, of_values.dof, rtol=1e-6)
    np.testing.assert_allclose(plan.participant_weights(maps, None), values.participant_weights(maps, None), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_covariates_leave_estimates_and_weights_those_of_participants_values(kind: str) -> None:
    study = Study(everyone(14, 2), {"age": [float(number**2 % 11) for number in range(14)]})
    maps, question = with_outlying(study, 9), study.question("mean", "age")
    (values, of_values), (plan, found) = (
        study.answer(name, question, maps, robust=kind) for name in ("summary-statistics", "marginal")
    )
    np.testing.assert_allclose(found.effect, of_values.effect, rtol=1e-6, atol=1e-8)  # type: ignore[union-attr]
    np.testing.assert_allclose(plan.participant_weights(maps, None), values.participant_weights(maps, None), atol=1e-6)


def dense(
    kind: MEstimator, contrast: NDArray[np.float64], design: NDArray[np.float64], owners: NDArray[np.str_],
    y: NDArray[np.float64], ratio: float,
) -> tuple[float, float, NDArray[np.float64]]:  # fmt: skip
    """Solve the weighted estimating equations of one voxel, participant by participant: estimate, variance, weights."""
    labels = list(dict.fromkeys(owners))
    covariance = np.where(owners[:, None] == owners, ratio, 0.0) + np.eye(len(y))
    inverse = np.linalg.inv(covariance)
    information = np.linalg.inv(design.T @ inverse @ design)
    hat = np.eye(len(y)) - design @ information @ design.T @ inverse

    def root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray((vectors / np.sqrt(values)) @ vectors.T)

    scores = []
    for label in labels:
        own = owners == label
        white = root(covariance[np.ix_(own, own)])
        adjusted = white @ root(white @ (hat @ covariance @ hat.T)[np.ix_(own, own)] @ white) @ white
        scores.append((own, contrast @ information @ design[own].T @ adjusted))
    whole = np.array([score @ hat[own] for own, score in scores])
    v = np.array([row @ covariance @ row for row in whole])
    limit = {"huber": 1.345, "bisquare": 4.685}[kind]

    def weigh(u: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        limit = {"huber": 1.345, "bisquare": 4.685}[name]
        return np.minimum(1, limit / np.abs(u)) if name == "huber" else np.clip(1 - (u / limit) ** 2, 0, None) ** 2

    beta = information @ design.T @ inverse @ y
    for name in ("huber", kind):
        for _ in range(300):
            u = np.array([score @ (y - design @ beta)[own] for own, score in scores]) / np.sqrt(v)
            scale = np.median(np.abs(u)) / 0.6745
            weights = weigh(u / scale, name)
            of_maps = np.array([weights[labels.index(owner)] for owner in owners])
            beta = np.linalg.solve(
                design.T @ (of_maps[:, None] * inverse) @ design, design.T @ (of_maps[:, None] * inverse) @ y
            )
    u = u / scale
    inside = np.abs(u) <= limit
    slope = inside if kind == "huber" else np.where(inside, (1 - (u / limit) ** 2) * (1 - 5 * (u / limit) ** 2), 0)
    a, n = slope @ v / v.sum(), len(labels)
    variance = (v * (weights * u) ** 2).sum() * ((1 + (1 - a) / a / n) * scale / a) ** 2
    ordinary = ((whole @ y) ** 2).sum()
    return float(contrast @ beta), max(variance, (ordinary + n * variance) / (1 + n)), weights


@pytest.mark.parametrize("kind", KINDS)
def test_with_missing_sessions_it_solves_the_weighted_estimating_equations(kind: MEstimator) -> None:
    attends = everyone(13, 3)
    attends[[1, 4, 7, 9], [0, 2, 0, 1]] = False
    study = Study(attends)
    maps, question = with_outlying(study, 10, 6), study.question("ses-03 - ses-01")
    plan = (
        STRATEGIES["marginal"]
        .plan(study.layout, question, GroupOptions(robust=kind))
        .with_working(WorkingCovariance(0.8))
    )  # type: ignore[attr-defined]
    found, weights = plan.estimate(maps, None), plan.participant_weights(maps, None)
    for voxel in range(maps.shape[1]):
        effect, variance, own = dense(
            kind, plan.contrast, plan.design_matrix.to_numpy(), np.array(study.layout.participants), maps[:, voxel], 0.8
        )
        np.testing.assert_allclose(found.effect[voxel], effect, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found.variance[voxel], variance, rtol=1e-6)
        np.testing.assert_allclose(weights[:, voxel], own, atol=1e-6)


def test_tests_of_several_contrasts_count_all_fully_and_say_so() -> None:
    study = Study(everyone(16, 3))
    question = study.question("any")
    plan, robust = (STRATEGIES["marginal"].plan(study.layout, question, GroupOptions(robust=kind))
                    for kind in ("none", "huber"))  # fmt: skip
    assert not robust.weighs_participants
    assert set(robust.warnings) - set(plan.warnings) == {COUNTED_FULLY}


# Rates ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*(("summary-statistics", kind) for kind in ("huber", "bisquare", "trimmed")),
     *(("marginal", kind) for kind in KINDS)],
)  # fmt: skip
@pytest.mark.parametrize("outlying", [False, True], ids=["normal", "outlying"])
def test_rates_are_nominal_from_the_fewest_participants_on(name: str, kind: str, outlying: bool) -> None:
    attends = everyone(8, 2)
    attends[[1, 4], [0, 1]] = name == "summary-statistics"
    study = Study(attends)
    spread = np.ones(8)
    if outlying:
        spread[0] = 10.0
    maps = study.maps(7, participant_sd=spread)
    _, found = study.answer(name, study.question("mean"), maps, robust=kind)
    p = p_of(found)
    assert (p < 0.05).mean() < 0.058 + 4 * np.sqrt(0.05 / len(p))
    assert (p < 0.001).mean() < 0.002 + 4 * np.sqrt(0.001 / len(p))


# Through the strategy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_kept", [14, 13])
def test_weights_at_each_voxel_are_kept_of_few_participants_only(
    monkeypatch: pytest.MonkeyPatch, most_kept: int
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", most_kept)
    monkeypatch.setattr(map_stacks, "block_width", lambda n_maps: 16)
    study = Study(everyone(14, 2))
    maps = study.maps(8, n_voxels=40)
    plan, _ = study.answer("summary-statistics", study.question("mean"), maps, robust="bisquare")
    mask = np.ones((40, 1, 1), dtype=bool)
    stack, answered = map_stacks.stack_of(study.layout, maps, mask), mask.copy()
    answered[[3, 17]] = False
    found = weigh_participants(plan, stack, answered, in_this_process)
    percent = np.rint(100 * plan.participant_weights(maps, None))[:, answered.ravel()]
    assert (found.percent is None) == (most_kept < 14)
    if found.percent is not None:
        np.testing.assert_array_equal(found.percent, percent)
    np.testing.assert_array_equal(found.smallest, percent.min(axis=0))
    np.testing.assert_array_equal(found.n_below_half, (percent < 50).sum(axis=0))
    assert [*found.means.values()] == percent.mean(axis=1).round(2).tolist()
    assert found.n_below_half.max() >= 1


def weights_of_a_mean(kind: MEstimator | Literal["trimmed"], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of one value per participant, written out."""
    n = len(values)
    if kind == "trimmed":
        ranks = values.argsort().argsort()
        return np.where((ranks >= n // 5) & (ranks < n - n // 5), 1.0, 0.0)
    mean = values.mean()
    for name in ("huber", kind):  # the bisquare begins where Huber's ends
        for _ in range(300):
            residuals = (values - mean) / np.sqrt(1 - 1 / n)
            u = np.abs(residuals / (np.median(np.abs(residuals)) / 0.6745))
            weights = np.minimum(1, 1.345 / u) if name == "huber" else np.clip(1 - (u / 4.685) ** 2, 0, None) ** 2
            mean = weights @ values / weights.sum()
    return np.asarray(weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*product(("summary-statistics", "marginal"), KINDS), ("summary-statistics", "trimmed")],
)
def test_voxels_that_some_maps_lack_have_the_weights_of_those_who_have_them(
    name: str, kind: MEstimator | Literal["trimmed"]
) -> None:
    study, rng = Study(everyone(18, 2)), np.random.default_rng(3)
    question, maps = study.question("mean"), study.maps(8, n_voxels=500)
    maps[4] += 6
    lacking = rng.choice(500, 75, replace=False)
    plan, _ = study.answer(name, question, np.delete(maps, lacking, axis=1), robust=kind)
    for voxel in lacking:
        maps[rng.choice(36, rng.integers(2, 15), replace=False), voxel] = np.nan
    stack = map_stacks.stack_of(study.layout, maps, np.ones((500, 1, 1), dtype=bool))
    weigher = PatternPlan(plan, STRATEGIES[name], study.layout, question, GroupOptions(robust=kind))
    exact = weigher.participant_weights(maps, None)
    owners = np.array(study.layout.participants)
    labels = list(study.layout.unique_participants)
    for voxel in [*lacking, *range(25)]:
        there = np.isfinite(maps[:, voxel])
        own = [label for label in labels if (there & (owners == label)).any()]
        y = maps[there, voxel]
        if name == "marginal":
            ratio = plan.working.ratio  # type: ignore[attr-defined]
            design = plan.design_matrix.to_numpy()[there]
            assert kind != "trimmed"
            expected = dense(kind, plan.contrast, design, owners[there], y, ratio)[2]
        else:
            expected = weights_of_a_mean(kind, np.array([y[owners[there] == label].mean() for label in own]))
        at = [labels.index(label) for label in own]
        np.testing.assert_allclose(exact[at, voxel], expected, atol=1e-6)
        assert np.isnan(np.delete(exact[:, voxel], at)).all()
    found = weigh_participants(weigher, stack, np.ones((500, 1, 1), dtype=bool), in_this_process)
    percent = np.rint(100 * exact)
    assert not found.are_all_everywhere
    assert found.percent is not None
    np.testing.assert_array_equal(found.percent, np.nan_to_num(percent))
    np.testing.assert_array_equal(found.smallest, np.nanmin(percent, axis=0))
    np.testing.assert_array_equal(found.n_below_half, (percent < 50).sum(axis=0))
    np.testing.assert_allclose([*found.means.values()], np.nanmean(percent, axis=1), atol=0.0051)


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
    for name in ("session-model", "mixed"):
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
    assert (
        main([*call, "--strategy", "summary-statistics", "marginal", "mixed", "--permutations", "20", "--nprocs", "1"])
        == 0
    )
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
    assert "Mixed model still counts all participants fully" in page
    names = [f"sub-{number:02d}" for number in range(1, 14)]
    (path,) = (output / "group").glob("*_strategy-marginal_stat-weight_desc-smallest_statmap.json")
    of_marginal = strict_json(path)
    assert of_marginal["Participants"] == names
    assert of_marginal["MeanWeights"] == pytest.approx(sidecar["MeanWeights"], abs=0.02)  # complete, no covariates
    found = group_map(output, "marginal", "effect"), group_map(output, "summaryStatistics", "effect")
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert "no family-wise p values with --robust" in page
    assert "Huber's weights" in page

"""F tests over participants: several group contrasts at once, such as that three groups do not differ."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from array_maps import MapsInMemory, estimate_in_blocks
from array_study import Study, everyone
from calls import GroupCaller
from group_study import GroupStudy, group_map, group_path, make_study, sidecar_of
from pages import text_of
from sessionfx.errors import NotEstimableError
from sessionfx.group.participant_evidence import ValueCheck
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.statistics.estimates import Estimate, FTest

FloatArray = NDArray[np.float64]
GROUPS = ("a",) * 8 + ("b",) * 15 + ("c",) * 20
ANY_GROUP = "F:groups = a - b; b - c"


def study(n_sessions: int = 1) -> Study:
    return Study(everyone(len(GROUPS), n_sessions), {"group": list(GROUPS)})


def answer(
    strategy: str, made: Study, effects: FloatArray, group: str = ANY_GROUP, sessions: str = "mean", **options: str
) -> Estimate | FTest:
    return made.answer(strategy, made.question(sessions, group), effects, **options)[1]


def maps(seed: int, made: Study, sds: tuple[float, ...] = (1.0, 1.0, 1.0), n_voxels: int = 20) -> FloatArray:
    rng = np.random.default_rng(seed)
    sd = np.array([dict(zip("abc", sds, strict=True))[group] for group in GROUPS])[:, None]
    own = sd * rng.normal(size=(len(GROUPS), n_voxels))
    return own[made.owners] + sd[made.owners] * rng.normal(size=(len(made.owners), n_voxels))


def by_group(values: FloatArray) -> list[FloatArray]:
    return [values[[own == group for own in GROUPS]] for group in ("a", "b", "c")]


def analysis_of_variance(groups: list[FloatArray], equal: bool) -> Any:
    """SciPy's, or Welch's where variances are not equal."""
    if not equal and "equal_var" not in inspect.signature(stats.f_oneway).parameters:
        pytest.skip("SciPy has Welch's F from 1.16 on")
    return stats.f_oneway(*groups, **({} if equal else {"equal_var": False}))


@pytest.mark.parametrize(("variance", "equal"), [("pooled", True), ("groups", False)])
@pytest.mark.parametrize(
    ("n_sessions", "sessions", "weights"),
    [(1, "mean", [1.0]), (2, "mean", [0.5, 0.5]), (2, "ses-02 - ses-01", [-1.0, 1.0]), (3, "linear", [-0.5, 0.0, 0.5])],
)
def test_summary_statistics_is_the_analysis_of_variance_of_participants_values(
    variance: str, equal: bool, n_sessions: int, sessions: str, weights: list[float]
) -> None:
    made = study(n_sessions)
    effects = maps(0, made, (3.0, 1.0, 2.0))
    found = answer("summary-statistics", made, effects, sessions=sessions, variance=variance)
    assert isinstance(found, FTest)
    values = np.einsum("s,nsv->nv", weights, effects.reshape(len(GROUPS), n_sessions, -1))
    reference = analysis_of_variance(by_group(values), equal)
    np.testing.assert_allclose(found.f, reference.statistic, rtol=1e-9)
    np.testing.assert_allclose(found.p, reference.pvalue, rtol=1e-8)


@pytest.mark.parametrize("variance", ["pooled", "groups"])
def test_one_row_is_the_square_of_t(variance: str) -> None:
    made = study(2)
    effects = maps(1, made, (2.0, 1.0, 1.0))
    f = answer("summary-statistics", made, effects, "F:x = a - b", variance=variance)
    t = answer("summary-statistics", made, effects, "a - b", variance=variance)
    assert isinstance(f, FTest)
    assert isinstance(t, Estimate)
    np.testing.assert_allclose(f.f, t.t**2, rtol=1e-9)
    np.testing.assert_allclose(f.dof, t.dof, rtol=1e-9)


@pytest.mark.parametrize("strategy", ["summary-statistics", "marginal"])
@pytest.mark.parametrize("variance", ["pooled", "auto"])
def test_how_the_rows_are_written_does_not_matter(strategy: str, variance: str) -> None:
    made = study(2)
    effects = maps(2, made)
    found = [
        answer(strategy, made, effects, text, variance=variance)
        for text in (ANY_GROUP, "F:groups = 0.5*a + 0.5*b - c; 3*a - 3*c")
    ]
    np.testing.assert_allclose(found[1].maps()["F"], found[0].maps()["F"], rtol=1e-7)
    np.testing.assert_allclose(found[1].dof, found[0].dof, rtol=1e-7)


def test_marginal_of_one_map_each_has_the_wald_statistic_of_the_groups_own_variances() -> None:
    """CR2 of groups alone is the unbiased variance of each: Wald's T is that of Welch, F a fraction of it (HTZ)."""
    made = study()
    effects = maps(3, made, (3.0, 1.0, 2.0))
    found = answer("marginal", made, effects)
    assert isinstance(found, FTest)
    of_groups = by_group(effects)
    means = np.array([values.mean(axis=0) for values in of_groups])
    weights = np.array([len(values) / values.var(axis=0, ddof=1) for values in of_groups])
    wald = (weights * (means - (weights * means).sum(axis=0) / weights.sum(axis=0)) ** 2).sum(axis=0)
    eta = found.dof + 1
    np.testing.assert_allclose(found.f, found.dof / (2 * eta) * wald, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("sds", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0), (1.0, 2.0, 3.0)])
@pytest.mark.parametrize("strategy", ["summary-statistics", "marginal"])
@pytest.mark.parametrize("sessions", ["mean", "ses-02 - ses-01"])
def test_groups_that_vary_unequally_keep_the_nominal_rate(strategy: str, sds: tuple[float, ...], sessions: str) -> None:
    made = study(2)
    found = answer(strategy, made, maps(4, made, sds, 20_000), sessions=sessions)
    assert 0.035 <= np.mean(found.p <= 0.05) <= 0.058


@pytest.mark.slow
def test_any_difference_between_sessions_and_groups_is_a_test_of_marginal() -> None:
    made = study(3)
    found = answer("marginal", made, maps(5, made, n_voxels=10_000), sessions="any")
    assert isinstance(found, FTest)
    assert found.dof_numerator == 4.0
    assert 0.035 <= np.mean(found.p <= 0.05) <= 0.058
    with pytest.raises(NotEstimableError, match="one group contrast at a time; the marginal strategy tests several"):
        STRATEGIES["summary-statistics"].plan(made.layout, made.question("any", ANY_GROUP), GroupOptions())


@pytest.mark.parametrize("strategy", ["session-model", "mixed", "meta"])
def test_other_strategies_decline_in_a_sentence(strategy: str) -> None:
    made = study()
    question = made.question("mean", ANY_GROUP)
    refusal = STRATEGIES[strategy].never_answers(question)
    assert refusal.endswith(".")
    with pytest.raises(NotEstimableError, match=r"marginal and summary-statistics"):
        STRATEGIES[strategy].plan(made.layout, question, GroupOptions())


def test_skewness_of_an_f_test_is_that_of_the_contrast_with_most() -> None:
    made = study()
    of = {
        text: ValueCheck.of(made.layout, made.question("mean", text), GroupOptions())
        for text in (ANY_GROUP, "a - b", "b - c")
    }
    assert all(of.values())
    carried = {text: check.carried for text, check in of.items() if check is not None}
    assert carried[ANY_GROUP] == pytest.approx(max(carried["a - b"], carried["b - c"]))


def test_family_wise_p_are_those_of_marginal() -> None:
    made = study(2)
    layout, question = made.layout, made.question("mean", ANY_GROUP)
    plan = STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
    with pytest.raises(NotEstimableError, match="the marginal strategy has them"):
        _ = plan.resampling
    effects = maps(6, made)
    plan, found = estimate_in_blocks(
        STRATEGIES["marginal"].plan(layout, question, GroupOptions(variance="pooled")),
        MapsInMemory(effects, np.ones_like(effects)),
    )
    draws = plan.resampling.draws(np.random.default_rng(0), 5)
    observed, dof = plan.resampling.statistic(effects, draws)[0] ** 2, plan.resampling.dof
    # dof of the design instead of the voxel's; Wald's statistic is the same
    np.testing.assert_allclose(observed * (dof + 1) / dof, found.maps()["F"] * (found.dof + 1) / found.dof, rtol=1e-6)


# The program ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Twenty-four participants of three sites, two sessions."""
    made = make_study(tmp_path_factory.mktemp("sites"), n_participants=24, sessions=("01", "02"), missing=())
    labels = [f"{number:02d}" for number in range(1, 25)]
    made.participants_table(
        {"participant_id": [f"sub-{label}" for label in labels], "site": [SITES[int(label) % 3] for label in labels]}
    )
    return made


SITES = ("leiden", "oslo", "turin")
F_OF_SITES = (
    "--covariates", "site", "--session-contrast", "mean", "--session-contrast", "ses-02 - ses-01",
    "--group-contrast", "intercept", "--group-contrast", "F:anySite = leiden - oslo; oslo - turin",
)  # fmt: skip


@pytest.mark.slow
def test_maps_tables_and_page_of_an_f_test_over_participants(
    sites: GroupStudy, call: GroupCaller, tmp_path: Path
) -> None:
    options = (*F_OF_SITES, "--calibrate", "200", "--permutations", "20", "--equivalence", "0.5")
    output = call.done(sites, tmp_path / "out", *options, report=True)
    owners = np.array([SITES[int(participant) % 3] for participant, _ in sites.keys])[::2]
    differences = sites.stacked[1::2] - sites.stacked[::2]
    reference = analysis_of_variance([differences[owners == site] for site in SITES], equal=False)
    place = {"sessions": "ses02MinusSes01", "covariate": "anySite"}
    found = group_map(output, "summaryStatistics", "F", **place)
    np.testing.assert_allclose(found, reference.statistic, rtol=1e-5)
    path = group_path(output, "marginal", "F", **place)
    sidecar = sidecar_of(path)
    assert sidecar["GroupContrast"] == "leiden - oslo; oslo - turin"
    assert sidecar["DegreesOfFreedomNumerator"] == 2.0
    assert not group_path(output, "mixed", "F", **place).exists()
    assert group_path(output, "marginal", "p", desc="voxelFWE", **place).exists()
    table = pd.read_csv(next(output.glob("group/*desc-calibration_metrics.tsv")), sep="\t", keep_default_na=False)
    rows = table[(table["label"] == "mean-anySite") & (table["status"] == "estimated")]
    assert set(rows["test"]) == {"F"}
    assert set(rows["strategy"]) == {"summary-statistics", "marginal"}
    page = text_of(output / "group.html")
    assert "leiden - oslo; oslo - turin" in page
    assert "tests one group contrast at a time here" in page


def test_a_wrong_f_test_over_participants_is_refused_before_anything_is_written(
    sites: GroupStudy, call: GroupCaller, tmp_path: Path
) -> None:
    asked_for = ("--covariates", "site", "--group-contrast", "F:x = leiden - oslo; oslo - turin; leiden - turin")
    call(sites, tmp_path / "out", *asked_for).refused(2, "its rows depend on each other")
    assert not (tmp_path / "out").exists()

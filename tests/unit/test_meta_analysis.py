"""The meta strategy: R's answers, an independent likelihood, the t test it contains, and what it says without PyMARE."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from array_maps import MapsInMemory, estimate_in_blocks
from properties import examples
from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import SessionContrast, resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.meta_analysis import deviance, meta_regression, pymare_stats, refine, score_and_information

R_ANSWERS = Path(__file__).parents[1] / "data" / "repeated_measures"
N_VOXELS = 20
VOXELS = [str(voxel) for voxel in range(N_VOXELS)]

needs_pymare = pytest.mark.skipif(
    pymare_stats() is None, reason="PyMARE 0.0.13 or later is not installed (pip install 'sessionfx[meta]')"
)


def asked(text: str, layout: MapLayout) -> SessionContrast:
    return resolve_session_contrasts([text], sorted(set(layout.sessions)))[0]


def r_case(case: str) -> tuple[MapLayout, MapsInMemory, pd.DataFrame]:
    """Maps of one of R's data sets, and metafor's answers at each voxel."""
    maps = pd.read_csv(R_ANSWERS / f"ref_{case}.csv", dtype={"sub": str, "ses": str})
    answers = pd.read_csv(R_ANSWERS / "r_reference.csv")
    answers = answers[(answers["case"] == case) & (answers["con"] == "meta")].sort_values("vox")
    layout = MapLayout(tuple(maps["sub"]), tuple(maps["ses"]))
    effects, variances = (maps[[f"{kind}{voxel}" for voxel in VOXELS]].to_numpy() for kind in "yv")
    return layout, MapsInMemory(effects, variances), answers


def simulated(
    seed: int, n: int, n_voxels: int = N_VOXELS, between: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of participants with unlike variances, and these variances."""
    random = np.random.default_rng(seed)
    variances = random.gamma(2.0, 0.25, size=(n, n_voxels)) + 0.02
    return random.normal(size=variances.shape) * np.sqrt(variances + between), variances


def written_out(
    values: NDArray[np.float64], variances: NDArray[np.float64], design: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], float]:
    """One voxel by the definition: restricted likelihood of a contrast of the data, full matrices, scipy's optimiser.

    Returns τ², coefficients, their Knapp–Hartung covariance, and the deviance.
    """
    # K′X = 0: the restricted likelihood is the likelihood of K′y (Patterson & Thompson 1971)
    contrasts = np.linalg.svd(design)[0][:, np.linalg.matrix_rank(design) :]

    def minus_twice_log_likelihood(tau2: float) -> float:
        root = np.linalg.cholesky(contrasts.T @ ((variances + tau2)[:, None] * contrasts))
        standard = np.linalg.solve(root, contrasts.T @ values)
        return float(2 * np.log(np.diag(root)).sum() + standard @ standard + len(root) * np.log(2 * np.pi))

    grid = np.concatenate([[0.0], np.geomspace(1e-6, 100.0, 80)])
    best = int(np.argmin([minus_twice_log_likelihood(tau2) for tau2 in grid]))
    bounds = (grid[max(best - 1, 0)], grid[best + 1])
    found = optimize.minimize_scalar(
        minus_twice_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    )
    tau2 = float(found.x) if found.fun < minus_twice_log_likelihood(0.0) else 0.0
    inverse = np.diag(1 / (variances + tau2))
    covariance = np.linalg.pinv(design.T @ inverse @ design)
    coefficients = covariance @ design.T @ inverse @ values
    residuals = values - design @ coefficients
    scale = residuals @ inverse @ residuals / (len(values) - np.linalg.matrix_rank(design))
    return tau2, coefficients, scale * covariance, minus_twice_log_likelihood(tau2)


@needs_pymare
@pytest.mark.parametrize("case", ["bal", "unb", "unbcov", "slope"])
def test_answers_are_those_of_metafor(case: str) -> None:
    layout, maps, expected = r_case(case)
    plan = STRATEGIES["meta"].plan(layout, Question(asked("mean", layout)), GroupOptions(fixed_effects="precision"))
    _, found = estimate_in_blocks(plan, maps)
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.effect, expected["est"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["se"], rtol=1e-6)
    np.testing.assert_allclose(found.dof, expected["dof"], rtol=1e-12)
    assert len(expected) == N_VOXELS


@needs_pymare
@pytest.mark.parametrize("case", ["bal", "unb", "unbcov", "slope"])
def test_variance_between_participants_is_that_of_metafor_or_has_a_smaller_deviance(case: str) -> None:
    layout, maps, expected = r_case(case)
    plan = STRATEGIES["meta"].plan(layout, Question(asked("mean", layout)), GroupOptions(fixed_effects="precision"))
    values = plan.participants.participant_values(maps.effect, maps.variance)
    variances = plan.participants.participant_variances(maps.variance)
    design = np.ones((len(values), 1))
    found = meta_regression(values, variances, design, np.ones(1)).between
    theirs = expected["lam"].to_numpy()
    ours_is_better = deviance(values, variances, design, found) < deviance(values, variances, design, theirs) - 1e-10
    np.testing.assert_allclose(found[~ours_is_better], theirs[~ours_is_better], rtol=1e-8, atol=1e-10)
    assert np.all(deviance(values, variances, design, found) <= deviance(values, variances, design, theirs) + 1e-12)


@needs_pymare
@given(st.integers(3, 30), st.floats(0.01, 100.0), st.integers(0, 2**32 - 1))
@examples(40)
def test_equal_variances_give_the_one_sample_t_test(n: int, variance: float, seed: int) -> None:
    """With equal weights Knapp & Hartung's scale makes up for τ², also where τ² is zero."""
    values = np.random.default_rng(seed).normal(0.5, 1.0, size=(n, N_VOXELS))
    found = meta_regression(values, np.full_like(values, variance), np.ones((n, 1)), np.ones(1))
    expected = stats.ttest_1samp(values, 0.0)
    np.testing.assert_allclose(found.estimate.t, expected.statistic, rtol=1e-9)
    assert found.estimate.dof == n - 1
    interior = found.between > 0
    np.testing.assert_allclose(found.between[interior], (values.var(axis=0, ddof=1) - variance)[interior], atol=1e-8)
    np.testing.assert_array_equal(interior, values.var(axis=0, ddof=1) > variance)


@needs_pymare
@pytest.mark.parametrize("between", [0.0, 0.1, 2.0])
def test_covariates_agree_with_the_likelihood_written_out(between: float) -> None:
    values, variances = simulated(5, 14, between=between)
    random = np.random.default_rng(6)
    design = np.column_stack([np.ones(14), random.normal(size=14), np.repeat([1.0, -1.0], 7)])
    expected = [written_out(*data, design) for data in zip(values.T, variances.T, strict=True)]
    for contrast in np.eye(3):
        found = meta_regression(values, variances, design, contrast)
        assert found.estimate.dof == 11
        for voxel, (tau2, coefficients, covariance, _) in enumerate(expected):
            # scipy compares values of the likelihood, which tell τ² to the root of double precision
            assert found.between[voxel] == pytest.approx(tau2, abs=1e-6)
            assert found.estimate.effect[voxel] == pytest.approx(contrast @ coefficients, rel=1e-5, abs=1e-6)
            assert found.estimate.variance[voxel] == pytest.approx(contrast @ covariance @ contrast, rel=1e-5)


@needs_pymare
@given(st.integers(3, 20), st.integers(1, 3), st.floats(0.0, 3.0), st.integers(0, 2**32 - 1))
@examples(40)
def test_variance_between_participants_is_a_maximum_of_the_restricted_likelihood(
    n: int, n_columns: int, between: float, seed: int
) -> None:
    n += n_columns
    values, variances = simulated(seed, n, between=between)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n_columns)))[0]
    tau2 = meta_regression(values, variances, basis, np.eye(n_columns)[0]).between
    score, observed, expected = score_and_information(values, variances, basis, tau2)
    interior = tau2 > 0
    # the error of τ² is score / information; tiny τ² lie where the likelihood is highest at zero or just above
    assert np.all(np.abs(score / expected)[interior] <= 1e-8 * (tau2 + variances.mean(axis=0))[interior])
    assert np.all(observed[interior] > 0)
    assert np.all(score[~interior] <= 0)
    # no better optimum anywhere
    reached = deviance(values, variances, basis, tau2)
    for other in np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 200)]):
        assert np.all(reached <= deviance(values, variances, basis, np.full(N_VOXELS, other)) + 1e-8)


def test_score_and_information_are_derivatives_of_the_deviance() -> None:
    values, variances = simulated(1, 9)
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 2)))[0]
    tau2, step = np.linspace(0.05, 2.0, N_VOXELS), 1e-4
    below, at, above = (deviance(values, variances, basis, tau2 + shift) for shift in (-step, 0.0, step))
    score, observed, expected = score_and_information(values, variances, basis, tau2)
    np.testing.assert_allclose(score, -(above - below) / (4 * step), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(observed, (above - 2 * at + below) / (2 * step**2), rtol=1e-4, atol=1e-5)
    # the mean of the observed information over data with the variance it assumes
    scale = np.sqrt(variances[:, :1] + 0.4)
    draws = scale * np.random.default_rng(3).normal(size=(9, 40_000))
    known = np.repeat(variances[:, :1], draws.shape[1], axis=1)
    _, observed, expected = score_and_information(draws, known, basis, np.full(draws.shape[1], 0.4))
    assert observed.mean() == pytest.approx(expected[0], abs=5 * observed.std() / np.sqrt(observed.size))


def test_deviance_is_that_of_the_likelihood_written_out() -> None:
    """Up to a constant of the design and of n."""
    values, variances = simulated(7, 8)
    basis = np.linalg.qr(np.random.default_rng(8).normal(size=(8, 2)))[0]
    answers = [written_out(values[:, voxel], variances[:, voxel], basis) for voxel in range(N_VOXELS)]
    ours = deviance(values, variances, basis, np.array([answer[0] for answer in answers]))
    difference = ours - np.array([answer[3] for answer in answers])
    np.testing.assert_allclose(difference, -6 * np.log(2 * np.pi), rtol=1e-9)


def test_refinement_starts_anywhere_near_and_never_ends_on_a_worse_point() -> None:
    values, variances = simulated(9, 12)
    basis = np.full((12, 1), 12**-0.5)
    best = refine(values, variances, basis, np.full(N_VOXELS, 0.5))
    np.testing.assert_allclose(refine(values, variances, basis, 1.3 * best), best, rtol=1e-9, atol=1e-12)
    for start in (0.0, 0.01, 10.0, 1e4):
        begun = np.full(N_VOXELS, start)
        ended = refine(values, variances, basis, begun)
        before, after = (deviance(values, variances, basis, tau2) for tau2 in (begun, ended))
        assert np.all(after <= before + 1e-8)


@needs_pymare
@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.5, 0.5), (-0.25, 2.0)])
def test_combined_sessions_have_the_variances_of_both(weights: tuple[float, float]) -> None:
    layout, maps, _ = r_case("unb")
    question = Question(asked(f"{weights[0]}*ses-0 + {weights[1]}*ses-2", layout))
    plan = STRATEGIES["meta"].plan(layout, question, GroupOptions())
    _, found = estimate_in_blocks(plan, maps)
    assert maps.variance is not None
    attended = {label: layout.rows_of(label) for label in layout.unique_participants}
    pairs = np.array([(rows["0"], rows["2"]) for rows in attended.values() if {"0", "2"} <= set(rows)])
    combined, variances = (
        np.einsum("s,nsv->nv", np.array(weights) ** power, values[pairs])
        for power, values in ((1, maps.effect), (2, maps.variance))
    )
    expected = meta_regression(combined, variances, np.ones((len(pairs), 1)), np.ones(1))
    np.testing.assert_allclose(found.t, expected.estimate.t, rtol=1e-10)
    assert set(plan.left_out) == {label for label, rows in attended.items() if not {"0", "2"} <= set(rows)}
    assert plan.left_out


@needs_pymare
def test_a_covariate_is_asked_about_and_adjusted_for_in_any_unit() -> None:
    effects, variances = simulated(11, 10)
    names = tuple(f"{index:02d}" for index in range(10))
    age = np.random.default_rng(12).normal(size=10)
    design = np.column_stack([np.ones(10), age - age.mean()])
    answers = {}
    for unit in (1.0, 1e6):
        layout = MapLayout(names, ("1",) * 10, ("age",), unit * design[:, 1:])
        for group in (INTERCEPT, GroupContrast("age", "age", (0.0, 1.0))):
            plan = STRATEGIES["meta"].plan(layout, Question(asked("mean", layout), group), GroupOptions())
            answers[unit, group.label] = plan.estimate(effects, variances)
    for label, contrast in (("", [1.0, 0.0]), ("age", [0.0, 1.0])):
        expected = meta_regression(effects, variances, design, np.array(contrast)).estimate
        np.testing.assert_allclose(answers[1.0, label].t, expected.t, rtol=1e-9)
        np.testing.assert_allclose(answers[1e6, label].t, expected.t, rtol=1e-9)
    assert answers[1.0, "age"].dof == 8


@needs_pymare
def test_a_column_that_others_explain_changes_nothing() -> None:
    values, variances = simulated(13, 9)
    design = np.column_stack([np.ones(9), np.arange(9.0), 3.0 - 2.0 * np.arange(9.0)])
    expected = meta_regression(values, variances, design[:, :2], np.array([1.0, 4.0])).estimate
    # the intercept plus four slopes, written with the redundant column: c = X′a for the same a
    rows = np.linalg.lstsq(design[:, :2].T, np.array([1.0, 4.0]), rcond=None)[0]
    found = meta_regression(values, variances, design, design.T @ rows).estimate
    np.testing.assert_allclose(found.t, expected.t, rtol=1e-9)
    assert found.dof == 7


@needs_pymare
def test_effects_in_another_unit_or_with_the_other_sign_give_the_same_test() -> None:
    values, variances = simulated(14, 9)
    expected = meta_regression(values, variances, np.ones((9, 1)), np.ones(1)).estimate.t
    for unit in (1e-4, -1.0, 1e4):
        found = meta_regression(unit * values, unit**2 * variances, np.ones((9, 1)), np.ones(1)).estimate.t
        np.testing.assert_allclose(found, np.sign(unit) * expected, rtol=1e-7)


@needs_pymare
def test_voxels_without_a_variance_are_undetermined_and_leave_the_others_alone() -> None:
    values, variances = simulated(15, 8)
    expected = meta_regression(values, variances, np.ones((8, 1)), np.ones(1)).estimate
    variances[3, 2], variances[0, 5], values[1, 7] = 0.0, np.nan, np.inf
    found = meta_regression(values, variances, np.ones((8, 1)), np.ones(1)).estimate
    affected = np.isin(np.arange(N_VOXELS), [2, 5, 7])
    np.testing.assert_array_equal(found.is_determined, ~affected)
    np.testing.assert_allclose(found.t[~affected], expected.t[~affected], rtol=1e-9)


@needs_pymare
def test_every_answer_carries_the_assumption_and_the_plan_travels_to_other_processes() -> None:
    layout, maps, _ = r_case("unb")
    plan = STRATEGIES["meta"].plan(layout, Question(asked("mean", layout)), GroupOptions())
    assert "variances are taken as known" in " ".join(plan.warnings)
    assert "miss sessions" in " ".join(plan.warnings)  # what holds for the participants' values holds here
    assert plan.uses_variances
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301
    np.testing.assert_array_equal(
        again.estimate(maps.effect, maps.variance).t, plan.estimate(maps.effect, maps.variance).t
    )


def test_a_test_over_all_sessions_is_declined() -> None:
    layout, _, _ = r_case("bal")
    with pytest.raises(NotEstimableError, match="has no test of several contrasts at once"):
        STRATEGIES["meta"].plan(layout, Question(asked("any", layout)), GroupOptions())


@needs_pymare
def test_participants_without_error_left_are_declined() -> None:
    layout = MapLayout(("01", "02"), ("1", "1"), ("age",), np.array([[-1.0], [1.0]]))
    with pytest.raises(NotEstimableError, match="leave no degrees of freedom"):
        STRATEGIES["meta"].plan(layout, Question(asked("mean", layout)), GroupOptions())


def test_it_runs_only_when_asked_for() -> None:
    assert not STRATEGIES["meta"].is_default
    assert STRATEGIES["meta"].needs_variances(GroupOptions(fixed_effects="equal"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "missing",
    [
        pytest.param("sys.modules['pymare'] = None", id="not installed"),
        pytest.param("sys.modules['sympy'] = None", id="installed without sympy"),
        pytest.param(
            "old = types.ModuleType('pymare'); old.stats = types.ModuleType('pymare.stats');"
            "sys.modules.update({'pymare': old, 'pymare.stats': old.stats})",
            id="an older PyMARE",
        ),
    ],
)
def test_without_pymare_it_declines_and_names_the_remedy(missing: str) -> None:
    program = f"""
import sys, types
{missing}
from sessionfx.errors import NotEstimableError
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
layout = MapLayout(("01", "02", "03"), ("1", "1", "1"))
question = Question(resolve_session_contrasts(["mean"], ["1"])[0])
assert STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
try:
    STRATEGIES["meta"].plan(layout, question, GroupOptions())
except NotEstimableError as refusal:
    print(refusal)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "needs PyMARE" in done.stdout
    assert "pip install 'sessionfx[meta]'" in done.stdout

"""F tests over several contrasts: least squares, Hotelling's T², and Greenhouse–Geisser's correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from map_stacks import layout_of
from properties import examples
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.designs import difference_contrasts
from sessionfx.statistics.estimates import SMALLEST_P, FTest
from sessionfx.statistics.multivariate import expected_epsilon, greenhouse_geisser, hotelling, residual_covariance
from sessionfx.statistics.ols import prepare_ols

N_VOXELS = 6
seeds = st.integers(0, 2**32 - 1)


def any_session(n_sessions: int) -> Question:
    return Question(resolve_session_contrasts(["any"], [f"{j + 1:02d}" for j in range(n_sessions)])[0])


def balanced_layout(n: int, k: int) -> MapLayout:
    return layout_of(np.ones((n, k), dtype=bool))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), seeds)
@examples(60)
def test_hotellings_t2_is_its_definition_at_every_voxel(q: int, p: int, more: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = q + p + more
    values = rng.normal(size=(q, n, N_VOXELS)) + rng.normal(size=(1, n, N_VOXELS))
    design = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    contrast = rng.normal(size=p)
    found = hotelling(values, design, contrast)
    dof = n - p
    for voxel in range(N_VOXELS):
        y = values[:, :, voxel].T
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        residuals = y - design @ coefficients
        covariance = residuals.T @ residuals / dof * (contrast @ np.linalg.inv(design.T @ design) @ contrast)
        t2 = (contrast @ coefficients) @ np.linalg.inv(covariance) @ (contrast @ coefficients)
        assert found.f[voxel] == pytest.approx((dof - q + 1) / (dof * q) * t2, rel=1e-7)
    assert (found.dof_numerator, found.dof) == (q, dof - q + 1)


def test_one_sample_hotelling_of_one_value_is_t_squared_and_two_groups_are_the_two_sample_test() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 12, N_VOXELS))
    t = stats.ttest_1samp(values[0], 0)
    np.testing.assert_allclose(hotelling(values, np.ones((12, 1)), np.ones(1)).f, t.statistic**2, rtol=1e-10)
    groups = np.column_stack([np.ones(12), np.repeat([1.0, -1.0], [5, 7])])
    two = stats.ttest_ind(values[0, :5], values[0, 5:])
    found = hotelling(values, groups, np.array([0.0, 2.0]))
    np.testing.assert_allclose(found.f, two.statistic**2, rtol=1e-10)
    np.testing.assert_allclose(found.p, two.pvalue, rtol=1e-8)


def test_too_few_participants_for_hotelling_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        hotelling(np.zeros((3, 3, 1)), np.ones((3, 1)), np.ones(1))


def test_hotelling_does_not_depend_on_which_differences_span_the_sessions() -> None:
    rng = np.random.default_rng(2)
    cube = rng.normal(size=(9, 4, N_VOXELS))
    helmert = np.einsum("qs,nsv->qnv", difference_contrasts(4), cube)
    successive = np.moveaxis(np.diff(cube, axis=1), 1, 0) * np.array([1.0, 1e4, 1e-4])[:, None, None]
    one, other = (hotelling(values, np.ones((9, 1)), np.ones(1)).f for values in (helmert, successive))
    np.testing.assert_allclose(one, other, rtol=1e-7)


# Greenhouse and Geisser -------------------------------------------------------------------------------------


def box(sessions: NDArray[np.float64]) -> float:
    """Box's ε from the covariance matrix of the sessions, as textbooks write it (Box 1954; Winer 1971).

    The participants' own levels, which it does not depend on, are taken out of the values of shape (n, k) first: with
    them the formula is a difference of large sums and loses digits.
    """
    covariance = np.cov(sessions - sessions.mean(axis=1, keepdims=True), rowvar=False)
    k = len(covariance)
    diagonal, grand, rows = np.diag(covariance).mean(), covariance.mean(), covariance.mean(axis=1)
    denominator = (k - 1) * ((covariance**2).sum() - 2 * k * (rows**2).sum() + k**2 * grand**2)
    return float(k**2 * (diagonal - grand) ** 2 / denominator)


@given(st.integers(2, 6), st.integers(1, 20), seeds)
@examples(60)
def test_epsilon_is_boxs_and_between_its_bounds(k: int, more: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 1 + more
    cube = rng.normal(size=(n, k, N_VOXELS)) * rng.uniform(0.1, 5, size=(1, k, N_VOXELS))
    cube += rng.normal(size=(n, 1, N_VOXELS))
    differences = np.einsum("qs,nsv->qnv", difference_contrasts(k), cube)
    found = greenhouse_geisser(residual_covariance(differences, np.ones((n, 1))))
    expected = [box(cube[:, :, voxel]) for voxel in range(N_VOXELS)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert np.all(found >= 1 / (k - 1) - 1e-12)
    assert np.all(found <= 1 + 1e-12)


def test_epsilon_is_one_under_compound_symmetry_and_smallest_where_one_difference_varies() -> None:
    spherical = np.eye(3)[None] * 4.0
    single = np.zeros((1, 3, 3))
    single[0, 1, 1] = 2.0
    assert greenhouse_geisser(spherical)[0] == 1
    assert greenhouse_geisser(single)[0] == pytest.approx(1 / 3)
    assert greenhouse_geisser(np.zeros((1, 3, 3)))[0] == 1


# The session-model's test -----------------------------------------------------------------------------------


@given(st.integers(3, 15), st.integers(2, 6), seeds)
@examples(40)
def test_session_models_any_is_the_repeated_measures_analysis_of_variance(n: int, k: int, seed: int) -> None:
    """F by sums of squares; Greenhouse–Geisser changes its degrees of freedom alone."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(size=(n, k, N_VOXELS)) + rng.normal(size=(n, 1, N_VOXELS))
    plan = STRATEGIES["session-model"].plan(balanced_layout(n, k), any_session(k), GroupOptions())
    found = plan.estimate(cube.reshape(n * k, N_VOXELS), None)
    assert isinstance(found, FTest)
    grand, own, sessions = cube.mean(axis=(0, 1)), cube.mean(axis=1), cube.mean(axis=0)
    effect = n * ((sessions - grand) ** 2).sum(axis=0)
    error = ((cube - own[:, None] - sessions + grand) ** 2).sum(axis=(0, 1))
    np.testing.assert_allclose(found.f, effect / (k - 1) / (error / ((n - 1) * (k - 1))), rtol=1e-8)
    epsilon = [box(cube[:, :, voxel]) for voxel in range(N_VOXELS)]
    np.testing.assert_allclose(found.dof_numerator, np.multiply(epsilon, k - 1), rtol=1e-7)
    np.testing.assert_allclose(found.dof, np.multiply(epsilon, (n - 1) * (k - 1)), rtol=1e-7)
    np.testing.assert_allclose(found.p, stats.f.sf(found.f, found.dof_numerator, found.dof), rtol=1e-8)


@given(st.integers(4, 12), st.integers(2, 5), seeds)
@examples(30)
def test_session_models_any_with_missing_sessions_compares_two_models(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    attendance = rng.random((n, k)) < 0.8
    attendance[:3] = True
    attendance[:, 0] |= ~attendance.any(axis=1)
    owners, sessions = np.nonzero(attendance)
    layout = layout_of(attendance)
    values = rng.normal(size=(len(owners), N_VOXELS))
    found = STRATEGIES["session-model"].plan(layout, any_session(k), GroupOptions()).estimate(values, None)
    participants, columns = np.eye(n)[owners], np.eye(k)[sessions]

    def residual(design: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(((values - design @ np.linalg.lstsq(design, values, rcond=None)[0]) ** 2).sum(axis=0))

    small, large = residual(participants), residual(np.hstack([participants, columns]))
    dof = len(owners) - n - k + 1
    np.testing.assert_allclose(found.f, (small - large) / (k - 1) / (large / dof), rtol=1e-6)
    assert np.all(np.asarray(found.dof) <= dof + 1e-9)


@given(st.integers(1, 4), st.integers(0, 2), seeds)
@examples(60)
def test_f_test_compares_the_model_with_the_restricted_one(q: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = q + extra
    n = p + int(rng.integers(1, 12))
    design, values = rng.normal(size=(n, p)), rng.normal(size=(n, N_VOXELS))
    contrasts = rng.normal(size=(q, p))
    f, numerator, dof = prepare_ols(design, contrasts).test(values)
    free = np.linalg.svd(contrasts)[2][q:].T  # coefficients that the hypothesis leaves free

    def residual(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        if not matrix.shape[1]:
            return np.asarray((values**2).sum(axis=0))
        return np.asarray(((values - matrix @ np.linalg.lstsq(matrix, values, rcond=None)[0]) ** 2).sum(axis=0))

    large = residual(design)
    np.testing.assert_allclose(f, (residual(design @ free) - large) / q / (large / (n - p)), rtol=1e-5)
    assert (numerator, dof) == (q, n - p)
    np.testing.assert_allclose(
        prepare_ols(design, contrasts[:1]).test(values)[0],
        prepare_ols(design, contrasts[0]).estimate(values).t ** 2,
        rtol=1e-8,
    )


@given(st.floats(0.3, 60), st.floats(0.5, 300), seeds)
@examples(60)
def test_p_and_z_of_f_are_scipys(numerator: float, dof: float, seed: int) -> None:
    f = np.abs(np.random.default_rng(seed).normal(size=30)) ** 3 * 4
    found = FTest(f, numerator, dof)
    np.testing.assert_allclose(found.p, stats.f.sf(f, numerator, dof), rtol=1e-8, atol=1e-300)
    expected = stats.norm.isf(np.clip(stats.f.sf(f, numerator, dof), 1e-15, None))
    middle = (expected > -4) & (expected < 7)  # a p close to 1 has no digits left for z
    np.testing.assert_allclose(found.z[middle], expected[middle], rtol=1e-6, atol=1e-7)
    # in the lower tail by the complement, which keeps its digits
    lower = expected < 0
    below = stats.f.cdf(f[lower], numerator, dof)
    np.testing.assert_allclose(found.z[lower], stats.norm.ppf(np.maximum(below, SMALLEST_P)), rtol=1e-6, atol=1e-9)


def test_f_of_voxels_may_differ_in_dof_and_may_be_undetermined() -> None:
    f, dof = np.array([3.0, np.nan, 0.0, 1e9]), np.array([5.0, 5.0, 9.0, 40.0])
    found = FTest(f, np.array([2.0, 2.0, 1.5, 3.0]), dof)
    np.testing.assert_array_equal(found.is_determined, [True, False, True, True])
    assert found.p[0] == pytest.approx(stats.f.sf(3.0, 2, 5))
    assert found.p[2] == 1
    assert np.isfinite(found.z[[0, 2, 3]]).all()
    assert found.z[2] < -30
    chosen = found.at(found.is_determined)
    np.testing.assert_array_equal(chosen.dof, dof[[0, 2, 3]])
    np.testing.assert_array_equal(chosen.dof_numerator, [2.0, 1.5, 3.0])


@pytest.mark.parametrize(("k", "n"), [(3, 4), (3, 20), (5, 8), (5, 30)])
def test_epsilon_expected_under_sphericity_is_about_what_simulated_data_give(k: int, n: int) -> None:
    differences = np.random.default_rng(3).normal(size=(k - 1, n, 20_000))
    found = greenhouse_geisser(residual_covariance(differences, np.ones((n, 1))))
    # a ratio of expectations instead of the expectation of a ratio: 0.026 less for three sessions of four participants
    assert expected_epsilon(k - 1, n - 1) == pytest.approx(found.mean(), abs=0.03)

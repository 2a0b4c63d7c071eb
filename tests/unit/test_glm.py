"""The engine of the run fit gives the numbers of nilearn's, also where digits are easily lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from nilearn.glm.contrasts import compute_contrast
from nilearn.glm.first_level import mean_scaling, run_glm
from numpy.typing import NDArray

from properties import examples
from sessionfx.participant.glm import VOXELS_PER_BLOCK, fit_run, percent_of_mean
from sessionfx.statistics.estimates import Estimate

FloatArray = NDArray[np.float64]


def nilearn_fit(signal: NDArray[np.floating], design: FloatArray, contrast: FloatArray, noise: str) -> Estimate:
    labels, results = run_glm(mean_scaling(signal, 0)[0], design, noise_model=noise)
    fitted = compute_contrast(labels, results, contrast, stat_type="t")
    return Estimate(fitted.effect.ravel(), fitted.variance, float(fitted.dof))


def assert_same(ours: Estimate, theirs: Estimate, tolerance: float) -> None:
    """Effects relative to their standard error, variances to themselves."""
    assert ours.dof == theirs.dof
    assert (np.abs(ours.effect - theirs.effect) / np.sqrt(theirs.variance)).max() <= tolerance
    np.testing.assert_allclose(ours.variance, theirs.variance, rtol=tolerance)


def noise(rng: np.random.Generator, n_volumes: int, rho: NDArray[np.floating], sd: float) -> FloatArray:
    found = rng.normal(size=(n_volumes, rho.size))
    for t in range(1, n_volumes):
        found[t] = rho * found[t - 1] + np.sqrt(np.maximum(1 - rho**2, 0.01)) * found[t]
    return sd * found


def random_design(rng: np.random.Generator, n_volumes: int, n_columns: int) -> FloatArray:
    """Regressors as smooth as confounds are, and a constant."""
    columns = rng.normal(size=(n_volumes, n_columns - 1)).cumsum(axis=0)
    return np.column_stack([columns - columns.mean(axis=0), np.ones(n_volumes)])


@examples(60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_volumes=st.integers(12, 150),
    n_columns=st.integers(2, 9),
    model=st.sampled_from(["ar1", "ols"]),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_any_design_and_autocorrelation(seed: int, n_volumes: int, n_columns: int, model: str, kind: type) -> None:
    rng = np.random.default_rng(seed)
    design = random_design(rng, n_volumes, n_columns)
    signal = (700 + noise(rng, n_volumes, rng.uniform(-0.95, 0.95, 60), 9.0)).astype(kind)
    contrast = rng.normal(size=n_columns)
    ours = fit_run(signal, design, {"c": contrast}, model)["c"]
    assert_same(ours, nilearn_fit(signal, design, contrast, model), 1e-8)


def test_blocks_join_at_the_right_place() -> None:
    rng = np.random.default_rng(0)
    design = random_design(rng, 60, 5)
    signal = 1000 + noise(rng, 60, np.full(2 * VOXELS_PER_BLOCK + 3, 0.4), 10.0)
    contrasts = {"a": np.array([1.0, 0, 0, 0, 0]), "b": np.array([0, 1.0, -1, 0, 0])}
    found = fit_run(signal, design, contrasts, "ar1")
    assert list(found) == ["a", "b"]
    for label, contrast in contrasts.items():
        assert_same(found[label], nilearn_fit(signal, design, contrast, "ar1"), 1e-8)


@pytest.mark.parametrize("model", ["ar1", "ols"])
@pytest.mark.parametrize("drift", [1e2, 1e5, 1e7])
def test_no_digits_are_lost_where_confounds_explain_almost_everything(model: str, drift: float) -> None:
    """A drift a million times larger than the noise: y′y − b′X′y would keep no digit of the residual variance."""
    rng = np.random.default_rng(1)
    design = random_design(rng, 100, 6)
    signal = 1e6 + noise(rng, 100, np.full(50, 0.3), 1.0) + drift * rng.normal(size=50) * design[:, [3]] / 10
    contrast = np.array([1.0, -1, 0, 0, 0, 0])
    ours = fit_run(signal, design, {"c": contrast}, model)["c"]
    # what nilearn itself keeps of such data limits how closely the two can agree
    assert_same(ours, nilearn_fit(signal, design, contrast, model), 1e-6)


@pytest.mark.parametrize("model", ["ar1", "ols"])
def test_units_of_columns_and_nearly_equal_columns_cost_no_digits(model: str) -> None:
    """nilearn loses digits to units; it is given columns of one size, which changes nothing but the first weight."""
    rng = np.random.default_rng(2)
    design = random_design(rng, 120, 8)
    design[:, 2] = design[:, 1] + 1e-5 * rng.normal(size=120)
    design /= np.linalg.norm(design, axis=0)
    signal = 800 + noise(rng, 120, rng.uniform(-0.2, 0.8, 80), 8.0)
    contrast = np.zeros(8)
    contrast[0] = 1.0
    units = 10.0 ** np.arange(-3, 5)
    ours = fit_run(signal, design * units, {"c": contrast * units}, model)["c"]
    assert_same(ours, nilearn_fit(signal, design, contrast, model), 1e-8)


def test_a_voxel_without_noise_has_no_variance_to_test_against() -> None:
    design = random_design(np.random.default_rng(3), 40, 3)
    signal = np.column_stack([np.full(40, 500.0), 500 + np.random.default_rng(4).normal(size=40)])
    found = fit_run(signal, design, {"c": np.array([1.0, 0, 0])}, "ar1")["c"]
    assert list(found.is_determined) == [False, True]


def test_single_precision_signals_are_scaled_as_nilearn_scales_them() -> None:
    signal = np.random.default_rng(5).uniform(0, 2000, size=(90, 500)).astype(np.float32)
    signal[:, :5] /= 5000  # means below 1 are taken for 1
    np.testing.assert_array_equal(percent_of_mean(signal), mean_scaling(signal, 0)[0].astype(np.float64))

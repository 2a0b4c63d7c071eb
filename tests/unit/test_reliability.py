"""Variance components and intraclass correlations: mean squares when complete, Henderson's method 3 when not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from least_squares import anova_mean_squares
from properties import examples
from sessionfx.statistics.participant_variance import participant_spectrum
from sessionfx.statistics.reliability import VarianceComponents, variance_components

N_VOXELS = 8
seeds = st.integers(0, 2**32 - 1)


def components(
    owners: NDArray[np.int_], sessions: NDArray[np.int_], values: NDArray[np.float64], *, adjusted: bool
) -> VarianceComponents:
    """For ICC(3,1) with a column per session, for ICC(1) with one for the mean."""
    design = np.eye(sessions.max() + 1)[sessions] if adjusted else np.ones((len(owners), 1))
    return variance_components(participant_spectrum(design, [str(owner) for owner in owners]), values)


def complete(n: int, k: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    return np.repeat(np.arange(n), k), np.tile(np.arange(k), n)


@st.composite
def attendances(draw: st.DrawFn) -> tuple[NDArray[np.int_], NDArray[np.int_], np.random.Generator]:
    n, k = draw(st.integers(3, 10)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(seeds))
    attendance = rng.random((n, k)) < 0.7
    attendance[:2] = True
    attendance[:, 0] |= ~attendance.any(axis=1)
    owners, sessions = np.nonzero(attendance)
    assume(len(owners) > n + k)
    return owners, sessions, rng


@given(st.integers(2, 20), st.integers(2, 6), seeds)
@examples(50)
def test_complete_data_give_shrout_and_fleiss_coefficients(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cube = rng.normal(size=(n, k, N_VOXELS)) + rng.normal(size=(n, 1, N_VOXELS)) + rng.normal(size=(k, N_VOXELS))
    bms, wms, ems = anova_mean_squares(cube)
    values = cube.reshape(n * k, N_VOXELS)
    icc1, icc31 = (components(*complete(n, k), values, adjusted=adjusted) for adjusted in (False, True))
    np.testing.assert_allclose(icc1.within, wms, rtol=1e-8)
    np.testing.assert_allclose(icc1.between, (bms - wms) / k, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(icc1.icc, (bms - wms) / (bms + (k - 1) * wms), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(icc31.within, ems, rtol=1e-8)
    np.testing.assert_allclose(icc31.between, (bms - ems) / k, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(icc31.icc, (bms - ems) / (bms + (k - 1) * ems), rtol=1e-7, atol=1e-9)


def henderson_3(owners: NDArray[np.int_], fixed: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Reductions in sums of squares of full matrices (Searle, Casella & McCulloch 1992, section 5.5)."""
    z = np.eye(owners.max() + 1)[owners]

    def projection(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(matrix @ np.linalg.pinv(matrix))

    both, alone = projection(np.hstack([fixed, z])), projection(fixed)
    rank_both, rank_alone = round(np.trace(both)), round(np.trace(alone))
    within = y @ (np.eye(len(y)) - both) @ y / (len(y) - rank_both)
    reduction = y @ (both - alone) @ y
    coefficient = np.trace(z.T @ (np.eye(len(y)) - alone) @ z)
    return float((reduction - within * (rank_both - rank_alone)) / coefficient), float(within)


@given(attendances(), st.booleans())
@examples(50)
def test_missing_sessions_give_hendersons_estimates(
    case: tuple[NDArray[np.int_], NDArray[np.int_], np.random.Generator], adjusted: bool
) -> None:
    owners, sessions, rng = case
    values = rng.normal(size=(len(owners), N_VOXELS)) + rng.normal(size=(owners.max() + 1, N_VOXELS))[owners]
    found = components(owners, sessions, values, adjusted=adjusted)
    fixed = np.eye(sessions.max() + 1)[sessions] if adjusted else np.ones((len(owners), 1))
    expected = np.array([henderson_3(owners, fixed, voxel) for voxel in values.T])
    np.testing.assert_allclose(found.between, expected[:, 0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.within, expected[:, 1], rtol=1e-7)


def test_missing_sessions_leave_the_variances_unbiased() -> None:
    attendance = np.ones((10, 4), dtype=bool)
    attendance[0, 1:] = attendance[1, 2:] = attendance[2:6, 3] = attendance[7, 0] = False
    owners, sessions = np.nonzero(attendance)
    rng, n_voxels = np.random.default_rng(5), 40_000
    level = np.sqrt(2.0) * rng.normal(size=(10, n_voxels))
    values = (
        level[owners] + rng.normal(size=(len(owners), n_voxels)) + np.array([0.0, 5.0, -3.0, 1.0])[sessions][:, None]
    )
    found = components(owners, sessions, values, adjusted=True)
    for estimate, truth in ((found.between, 2.0), (found.within, 1.0)):
        error = estimate.std() / np.sqrt(n_voxels)
        assert abs(estimate.mean() - truth) < 4 * error
        assert error < 0.01


@given(attendances(), st.floats(-100, 100))
@examples(40)
def test_differences_between_sessions_do_not_touch_the_consistency(
    case: tuple[NDArray[np.int_], NDArray[np.int_], np.random.Generator], size: float
) -> None:
    owners, sessions, rng = case
    values = rng.normal(size=(len(owners), N_VOXELS)) + rng.normal(size=(owners.max() + 1, N_VOXELS))[owners]
    shifted = values + size * rng.normal(size=(sessions.max() + 1, N_VOXELS))[sessions]
    before, after = (components(owners, sessions, maps, adjusted=True) for maps in (values, shifted))
    np.testing.assert_allclose(after.between, before.between, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.within, before.within, rtol=1e-6)


@given(attendances(), st.floats(1e-6, 1e6), st.booleans())
@examples(40)
def test_units_change_the_variances_and_not_the_coefficient(
    case: tuple[NDArray[np.int_], NDArray[np.int_], np.random.Generator], factor: float, adjusted: bool
) -> None:
    owners, sessions, rng = case
    values = rng.normal(size=(len(owners), N_VOXELS)) + 3
    before, after = (components(owners, sessions, maps, adjusted=adjusted) for maps in (values, -factor * values))
    np.testing.assert_allclose(after.within, factor**2 * before.within, rtol=1e-8)
    np.testing.assert_allclose(after.between, factor**2 * before.between, rtol=1e-7, atol=1e-9 * factor**2)
    np.testing.assert_allclose(after.icc, before.icc, rtol=1e-7, atol=1e-9)


def test_nothing_that_varies_has_no_coefficient() -> None:
    values = np.array([[0.0, 4.2]] * 6)
    found = components(*complete(3, 2), values, adjusted=True)
    np.testing.assert_array_equal(found.icc, [np.nan, np.nan])
    np.testing.assert_array_equal(found.within, [0, 0])


def test_participants_who_repeat_themselves_exactly_are_perfectly_reliable() -> None:
    level = np.random.default_rng(6).normal(size=(5, N_VOXELS))
    found = components(*complete(5, 3), np.repeat(level, 3, axis=0), adjusted=True)
    np.testing.assert_allclose(found.icc, 1, rtol=1e-12)
    np.testing.assert_allclose(found.between, level.var(axis=0, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("owners", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["one map each", "one participant"])
def test_what_cannot_be_told_apart_is_refused(owners: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be told apart"):
        components(np.array(owners), np.zeros(4, dtype=int), np.ones((4, 1)), adjusted=False)

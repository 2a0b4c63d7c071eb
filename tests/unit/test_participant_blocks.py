"""Blocks of participants give what the whole matrix gives, with a row and a column for each map."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.calibration import calibrate_study
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question
from sessionfx.statistics.participant_blocks import ParticipantBlocks, symmetric_root

# participants in any order, with one to three maps
OWNERS = np.array([0, 2, 1, 0, 2, 0, 3])
PLACES = np.array([2, 0, 1, 0, 1, 1, 2])


def values(n_columns: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(len(OWNERS), n_columns))


def dense(blocks: ParticipantBlocks) -> NDArray[np.float64]:
    return blocks.times(np.eye(len(OWNERS)))


@pytest.fixture
def blocks() -> ParticipantBlocks:
    return ParticipantBlocks.identity(OWNERS).products(values(50))


def whole() -> NDArray[np.float64]:
    maps = values(50)
    return np.where(OWNERS[:, None] == OWNERS, maps @ maps.T / 50, 0.0)


def test_products_and_traces(blocks: ParticipantBlocks) -> None:
    np.testing.assert_allclose(dense(blocks), whole(), atol=1e-15)
    scale = np.linspace(1, 2, 50)
    scaled = ParticipantBlocks.identity(OWNERS).products(scale * values(50), scale)
    np.testing.assert_allclose(dense(scaled), whole(), atol=1e-14)
    assert blocks.trace == pytest.approx(np.trace(whole()))
    assert blocks.n_maps == len(OWNERS)


def test_the_same_covariance_of_sessions_for_all() -> None:
    covariance = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 3.0]])
    expected = np.where(OWNERS[:, None] == OWNERS, covariance[np.ix_(PLACES, PLACES)], 0.0)
    np.testing.assert_array_equal(dense(ParticipantBlocks.of_sessions(OWNERS, PLACES, covariance)), expected)


def test_roots_and_their_inverses_also_of_singular_blocks(blocks: ParticipantBlocks) -> None:
    np.testing.assert_allclose(dense(blocks.root()), linalg.sqrtm(whole()).real, atol=1e-12)
    inverse = dense(blocks.root(inverse=True))
    np.testing.assert_allclose(inverse @ inverse, np.linalg.inv(whole()), rtol=1e-9, atol=1e-12)
    flat = ParticipantBlocks.identity(OWNERS).products(values(1))
    inverse = dense(flat.root(inverse=True))
    np.testing.assert_allclose(inverse @ inverse, np.linalg.pinv(dense(flat)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(symmetric_root(whole()), dense(blocks.root()), atol=1e-12)


def test_weights_of_maps_and_whitening(blocks: ParticipantBlocks) -> None:
    weights = values(3, seed=1).T
    np.testing.assert_allclose(blocks.quadratic(weights), weights @ whole() @ weights.T, rtol=1e-12)
    design = values(4, seed=2)
    expected = linalg.solve_triangular(linalg.cholesky(whole(), lower=True), design, lower=True)
    # maps in another order have another triangular factor, of the same products
    found = blocks.whitened(design)
    np.testing.assert_allclose(found.T @ found, expected.T @ expected, rtol=1e-10)


def test_maps_are_multiplied_in_place(blocks: ParticipantBlocks) -> None:
    maps = values(5, seed=3)
    expected = whole() @ maps
    assert blocks.times(maps, out=maps) is maps
    np.testing.assert_allclose(maps, expected, rtol=1e-12)


@pytest.mark.slow
def test_calibrating_many_participants_takes_no_matrix_of_maps_by_maps() -> None:
    """One such matrix of 6,000 maps would take 288 MB, and some were needed at a time."""
    n, n_voxels = 3000, 300
    layout = MapLayout(tuple(f"{i:04d}" for i in range(n) for _ in range(2)), ("1", "2") * n)
    effects = np.random.default_rng(0).normal(size=(2 * n, n_voxels))
    questions = [
        Question(asked, INTERCEPT) for asked in resolve_session_contrasts(["mean", "ses-2 - ses-1"], ("1", "2"))
    ]
    tracemalloc.start()
    table = calibrate_study(
        layout, questions, {"summary-statistics": STRATEGIES["summary-statistics"]}, GroupOptions(), effects,
        n_voxels=500, seed=1,
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6
    assert table["rate_0.05"].between(0.02, 0.09).all()

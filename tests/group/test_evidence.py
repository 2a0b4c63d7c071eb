"""What the data say about the strategies' assumptions, on data whose truth is known."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from least_squares import anova_mean_squares
from map_stacks import gather_evidence, layout_of, stack_of
from sessionfx.group.evidence import summarise_reliability
from sessionfx.group.judgement import Evidence
from sessionfx.group.results import Answer, StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import MapLayout
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate

SHAPE = (25, 20, 10)
N_VOXELS = int(np.prod(SHAPE))


def everywhere(layout: MapLayout, effects: NDArray[np.float64]) -> MapStack:
    """Stack maps of at most N_VOXELS voxels."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask.flat[: effects.shape[1]] = True
    return stack_of(layout, effects, mask)


def evidence_of(
    attendance: NDArray[np.bool_], cube: NDArray[np.float64]
) -> tuple[Evidence, dict[str, NDArray[np.float64]]]:
    """From values of shape (n, k, V), of which only the attended ones are seen."""
    stack = everywhere(layout_of(attendance), cube[attendance])
    return gather_evidence(stack, [f"{j + 1:02d}" for j in range(attendance.shape[1])])


def compound_symmetric(seed: int, n: int, k: int, icc: float, n_voxels: int = N_VOXELS) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(n, 1, n_voxels))
    return np.sqrt(icc) * own + np.sqrt(1 - icc) * rng.normal(size=(n, k, n_voxels))


def with_covariance(seed: int, n: int, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(covariance)
    return np.einsum("st,ntv->nsv", root, rng.normal(size=(n, len(covariance), N_VOXELS)))


def test_medians_are_those_of_shrout_and_fleiss_coefficients() -> None:
    n, k = 9, 3
    cube = compound_symmetric(1, n, k, 0.5) + np.array([0.0, 1.0, -1.0])[:, None]
    found, maps = evidence_of(np.ones((n, k), dtype=bool), cube)
    between, within, residual = anova_mean_squares(cube)
    icc1 = (between - within) / (between + (k - 1) * within)
    icc31 = (between - residual) / (between + (k - 1) * residual)
    np.testing.assert_allclose(maps["icc1"], icc1, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(maps["icc31"], icc31, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(maps["between"], (between - residual) / k, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(maps["within"], residual, rtol=1e-9)
    assert found.icc1 == pytest.approx(np.median(icc1), rel=1e-9)
    assert found.icc31 == pytest.approx(np.median(icc31), rel=1e-9)
    assert found.icc1 < 0.4 < found.icc31  # differences between sessions are error to the first alone


@pytest.mark.slow
def test_epsilon_is_that_of_the_participants_with_every_session() -> None:
    rng = np.random.default_rng(2)
    n, k = 12, 4
    cube = rng.normal(size=(n, k, N_VOXELS)) * np.array([1.0, 1.0, 1.0, 3.0])[:, None]
    attendance = np.ones((n, k), dtype=bool)
    attendance[:3, 1] = attendance[5, 3] = False
    found, _ = evidence_of(attendance, cube)
    whole = cube[attendance.all(axis=1)]
    assert found.n_complete == len(whole) == 8
    epsilon = []
    for voxel in range(N_VOXELS):
        covariance = np.cov(whole[:, :, voxel], rowvar=False)
        # Box 1954, from the covariance matrix of the sessions themselves
        diagonal, grand, rows = np.diag(covariance).mean(), covariance.mean(), covariance.mean(axis=1)
        below = (covariance**2).sum() - 2 * k * (rows**2).sum() + k**2 * grand**2
        epsilon.append(k**2 * (diagonal - grand) ** 2 / ((k - 1) * below))
    assert found.epsilon == pytest.approx(np.median(epsilon), rel=1e-9)
    assert found.epsilon < 0.6


def test_epsilon_is_not_said_where_it_could_not_reach_one() -> None:
    """With fewer participants than sessions the sample covariance of the differences is singular."""
    cube = compound_symmetric(3, 4, 4, 0.5)
    attendance = np.ones((4, 4), dtype=bool)
    assert evidence_of(attendance, cube)[0].epsilon is not None
    attendance[0, 0] = False
    found = evidence_of(attendance, cube)[0]
    assert found.epsilon is None
    assert found.n_complete == 3


MISSING = {
    "one of twenty has one session": (20, 3, [(0, 1), (0, 2)]),
    "half miss one": (12, 2, [(i, 1) for i in range(6)]),
    "two of eight have one session": (8, 3, [(0, 1), (0, 2), (1, 0), (1, 1)]),
    "three of twelve miss one": (12, 2, [(0, 1), (1, 1), (2, 0)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(MISSING))
@pytest.mark.parametrize("icc", [0.0, 0.3, 0.8])
def test_sessions_missing_at_random_are_related_to_the_effect_by_chance_only(pattern: str, icc: float) -> None:
    """Participants with fewer maps vary more: a plain correlation would find this in up to 24 % of the voxels."""
    n, k, missing = MISSING[pattern]
    attendance = np.ones((n, k), dtype=bool)
    attendance[tuple(np.transpose(missing))] = False
    cube = compound_symmetric(4, n, k, icc) + np.linspace(0, 2, k)[:, None]
    found, _ = evidence_of(attendance, cube)
    assert found.missingness is not None
    # three standard errors of 5000 voxels around 4 to 5.5 %: REML is a little conservative where variance is truncated
    assert 0.031 < found.missingness < 0.064


def test_dropout_that_depends_on_the_effect_is_seen() -> None:
    """Those with the smaller effect do not come back; the effect has one pattern over the brain."""
    rng = np.random.default_rng(5)
    n, k = 20, 3
    level = rng.normal(size=n)
    cube = compound_symmetric(6, n, k, 0.3) + level[:, None, None]
    attendance = np.ones((n, k), dtype=bool)
    attendance[np.argsort(level)[:7], 2] = False
    found, _ = evidence_of(attendance, cube)
    assert found.missingness > 0.5


@pytest.mark.parametrize(
    "attendance",
    [np.ones((6, 3)), np.eye(6), np.array([[1, 1], [1, 1], [1, 0]])],
    ids=["nobody missed any", "all missed alike", "three participants"],
)
def test_missingness_is_not_said_where_there_is_nothing_to_compare(attendance: NDArray[np.float64]) -> None:
    cube = np.random.default_rng(7).normal(size=(*attendance.shape, N_VOXELS))
    assert evidence_of(attendance.astype(bool), cube)[0].missingness is None


def test_voxels_that_do_not_vary_are_not_counted() -> None:
    n, k = 12, 2
    attendance = np.ones((n, k), dtype=bool)
    attendance[:5, 1] = False
    cube = compound_symmetric(8, n, k, 0.5)
    whole = evidence_of(attendance, cube)[0]
    cube[:, :, ::2] = 0.0
    half = evidence_of(attendance, cube)[0]
    assert half.missingness == pytest.approx(whole.missingness, abs=0.02)
    assert half.icc1 == pytest.approx(whole.icc1, abs=0.05)


TRUTH = np.array([[1.0, 0.5, 0.1], [0.5, 2.0, 0.8], [0.1, 0.8, 1.5]])


PATTERNS = {
    "complete": [],
    "each session missing": [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)],
    "first session of half": [(i, 0) for i in range(6)],
}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(PATTERNS))
@pytest.mark.parametrize("times", [1, 5])
def test_covariance_tends_to_the_true_one_in_units_of_the_mean_variance(pattern: str, times: int) -> None:
    attendance = np.ones((12, 3), dtype=bool)
    attendance[tuple(np.transpose(PATTERNS[pattern] or np.empty((0, 2), dtype=int)))] = False
    attendance = np.repeat(attendance, times, axis=0)
    cube = with_covariance(9, len(attendance), TRUTH) + np.array([0.0, 3.0, -2.0])[:, None]
    found, _ = evidence_of(attendance, cube)
    unit = np.average(np.diag(TRUTH), weights=attendance.sum(axis=0) - 1)
    # a ratio to the voxel's own variance is biased by about one over the number of participants
    np.testing.assert_allclose(found.covariance, TRUTH / unit, rtol=1 / len(attendance), atol=0.01)


def test_covariance_is_positive_semidefinite_whatever_is_missing() -> None:
    rng = np.random.default_rng(11)
    for _ in range(20):
        attendance = rng.random((5, 4)) < 0.6
        attendance[:, 0] |= ~attendance.any(axis=1)
        attendance[:2] = True
        cube = rng.normal(size=(5, 4, N_VOXELS))[:, :, :50]
        matrix = gather_evidence(everywhere(layout_of(attendance), cube[attendance]), ["01", "02", "03", "04"])[
            0
        ].covariance
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
        assert np.linalg.eigvalsh(matrix).min() > -1e-12


@pytest.mark.parametrize("session", ["", "a"])
def test_without_two_sessions_there_is_nothing_to_say(session: str) -> None:
    layout = MapLayout(("1", "2", "3"), (session,) * 3)
    stack = everywhere(layout, np.random.default_rng(12).normal(size=(3, N_VOXELS)))
    found, maps = gather_evidence(stack, [session] if session else [])
    assert found == Evidence(*(None,) * 5, n_complete=3, missingness=None, covariance=None)
    assert not maps


def test_two_participants_have_coefficients_but_no_more() -> None:
    cube = compound_symmetric(14, 2, 3, 0.5)
    found, maps = evidence_of(np.ones((2, 3), dtype=bool), cube)
    assert (found.epsilon, found.missingness, found.n_complete) == (None, None, 2)
    assert found.icc31 is not None
    between, _, residual = anova_mean_squares(cube)
    np.testing.assert_allclose(maps["between"], (between - residual) / 3, rtol=1e-8, atol=1e-12)


def test_one_participant_has_none() -> None:
    found, maps = evidence_of(np.ones((1, 3), dtype=bool), compound_symmetric(15, 1, 3, 0.5))
    assert (found.icc1, found.icc31, found.epsilon, found.missingness) == (None,) * 4
    assert not maps


def test_blocks_of_voxels_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    attendance = np.ones((7, 3), dtype=bool)
    attendance[0, 2] = attendance[1, 0] = False
    cube = compound_symmetric(16, 7, 3, 0.5)
    whole, maps = evidence_of(attendance, cube)
    monkeypatch.setattr("sessionfx.group.strategies.blocks.VOXELS_PER_BLOCK", 777)
    parts, part_maps = evidence_of(attendance, cube)
    assert (parts.icc1, parts.epsilon, parts.missingness) == pytest.approx(
        (whole.icc1, whole.epsilon, whole.missingness), rel=1e-12
    )
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-10)
    for name, values in maps.items():
        np.testing.assert_allclose(part_maps[name], values, rtol=1e-10, atol=1e-12)


# Summary ----------------------------------------------------------------------------------------------------


def answer_with(z: NDArray[np.float64], mask: NDArray[np.bool_], threshold: float) -> Answer:
    """A mean with given values where `mask` is true; at infinite degrees of freedom t is z."""
    grid = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
    stat_map = StatMap(Estimate(z[mask], np.ones(int(mask.sum())), 1e12), mask, grid)
    return Answer(strategy=STRATEGIES["marginal"], plan=Mock(), stat_map=stat_map, threshold=threshold)


def test_summary_has_quartiles_of_the_mask_and_of_each_region() -> None:
    mask = np.ones(SHAPE, dtype=bool)
    mask[0] = False
    values = np.random.default_rng(17).normal(size=int(mask.sum()))
    values[5] = np.nan  # nothing varies there
    z = np.zeros(SHAPE)
    z[2:6, 3:7, 3:7] = 5.0
    z[3, 4, 4] = 9.0
    z[10:12, 3:6, 3:6] = -5.0
    z[20, 10, 5] = 6.0  # too small to be a region of its own
    determined = mask.copy()
    determined[2, 3, 3] = False
    stack = stack_of(layout_of(np.ones((3, 2), dtype=bool)), np.zeros((6, int(mask.sum()))), mask)
    found = summarise_reliability({"icc1": values}, stack, answer_with(z, determined, 3.0), 10)
    assert found is not None
    table = found.summary.set_index("region")
    assert table["n_voxels"].tolist() == [int(mask.sum()), 63 + 18 + 1, 63, 18]
    assert list(table.index[2:]) == ["mean positive", "mean negative"]
    assert table[["x", "y", "z"]].to_numpy()[2:].tolist() == [[9.0, 12.0, 12.0], [30.0, 9.0, 9.0]]
    assert table[["x", "y", "z"]][:2].isna().all(axis=None)
    for row, region in zip(table.itertuples(), (mask, np.abs(z) >= 5, (z == 5) | (z == 9), z == -5), strict=True):
        # the largest region is of 64 voxels, of which one is undetermined
        inside = region & determined if row.Index != "all voxels" else region
        chosen = values[inside[mask]]
        expected = np.percentile(chosen[np.isfinite(chosen)], [25, 50, 75])
        np.testing.assert_allclose([row.icc1_q25, row.icc1_median, row.icc1_q75], expected)


def test_summary_without_regions_is_of_all_voxels() -> None:
    stack = everywhere(layout_of(np.ones((3, 2), dtype=bool)), np.zeros((6, N_VOXELS)))
    values = np.full(N_VOXELS, np.nan)
    no_region = answer_with(np.ones(SHAPE), np.ones(SHAPE, dtype=bool), np.inf)
    for mean in (None, no_region, StrategyResult(STRATEGIES["marginal"], "Declined.")):
        found = summarise_reliability({"icc1": values}, stack, mean, 10)
        assert found.summary["region"].tolist() == ["all voxels"]
        assert pd.isna(found.summary["icc1_median"]).all()
    assert summarise_reliability({}, stack, None, 10) is None

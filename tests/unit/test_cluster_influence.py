"""Cluster-robust contrasts without each participant against new fits of the others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sessionfx.statistics import cluster_influence as module
from sessionfx.statistics.cluster_influence import ClustersLeftOut
from sessionfx.statistics.cluster_robust import RobustContrast, estimate_robust, robust_contrast, wald_robust
from sessionfx.statistics.estimates import Estimate, FTest

Floats = NDArray[np.float64]
# design (n, three sessions, P), contrast and responses: sessions' mean; a difference; any; an age; two responses
CASES = ["mean", "difference", "any", "age", "responses", "balanced"]


def study_of(case: str, n: int) -> tuple[Floats, list[str], Floats, Floats, Floats, int]:
    """Design, participants, contrast, ratios, scales and responses of an unbalanced study."""
    rng = np.random.default_rng(n)
    there = np.ones((n, 3), dtype=bool)
    if case != "balanced":
        there[rng.choice(n, n // 5, replace=False), rng.integers(0, 3, n // 5)] = False
    owners, sessions = np.nonzero(there)
    shuffled = rng.permutation(len(owners))
    owners, sessions = owners[shuffled], sessions[shuffled]
    design = np.eye(3)[sessions]
    contrast = np.full(3, 1 / 3)
    if case in ("difference", "any"):
        contrast = np.array([-1.0, 0.0, 1.0]) if case == "difference" else np.array([[-1.0, 1, 0], [0, -1, 1]])
    elif case == "age":
        age = rng.standard_normal(n)[owners]
        design = np.column_stack([design, design * age[:, None], age])  # with a column too many
        contrast = np.array([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 1.0])
    ratios, scales = np.full(n, 0.8), np.ones(n)
    if case in ("age", "responses"):
        ratios, scales = np.where(np.arange(n) % 3, 0.8, 2.0), np.where(np.arange(n) % 3, 1.0, 3.0)
    _, first = np.unique(owners, return_index=True)
    order = owners[np.sort(first)]
    return design, [f"{owner}" for owner in owners], contrast, ratios[order], scales[order], 1 + (case == "responses")


def both(case: str, n: int, number: int) -> tuple[Estimate | FTest, Estimate | FTest, RobustContrast, RobustContrast]:
    design, participants, contrast, ratios, scales, n_responses = study_of(case, n)
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((n_responses * len(design), 30)) + np.linspace(0, 1, 30)
    whole = robust_contrast(design, participants, contrast, ratios, scales, n_responses)
    left = ClustersLeftOut(whole, design, participants, contrast, (ratios, scales), n_responses=n_responses)
    without = [left.without(other) for other in (0, number)][1]  # of whom another of the kind may be known
    assert without is not None
    label = list(dict.fromkeys(participants))[number]
    kept = np.array([owner != label for owner in participants])
    refit = robust_contrast(
        design[kept], [owner for owner in participants if owner != label], contrast,
        np.delete(ratios, number), np.delete(scales, number), n_responses,
    )  # fmt: skip
    estimate = estimate_robust if len(refit.weights) == 1 else wald_robust
    return estimate(without, maps), estimate(refit, maps[np.tile(kept, n_responses)]), without, refit


@pytest.mark.parametrize("number", [0, 7, 23])
@pytest.mark.parametrize("case", CASES)
def test_it_is_a_new_fit_of_the_others(monkeypatch: pytest.MonkeyPatch, case: str, number: int) -> None:
    monkeypatch.setattr(module, "_LITTLE_LEVERAGE", 0.0)
    found, expected, without, refit = both(case, 24, number)
    np.testing.assert_allclose(found.z, expected.z, rtol=1e-8, atol=1e-8)
    assert without.dof == pytest.approx(refit.dof, rel=1e-8)
    assert without.seen == pytest.approx(refit.seen, rel=1e-8)
    if isinstance(found, Estimate) and isinstance(expected, Estimate):
        np.testing.assert_allclose(found.effect, expected.effect, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-8)
        np.testing.assert_allclose(found.dof, expected.dof, rtol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_of_many_participants_estimate_and_error_are_those_of_a_new_fit(case: str) -> None:
    found, expected, without, refit = both(case, 130, 77)
    assert without.dof == pytest.approx(refit.dof, rel=1e-8)
    np.testing.assert_allclose(found.z, expected.z, atol=0.02)
    if isinstance(found, Estimate) and isinstance(expected, Estimate):
        np.testing.assert_allclose(found.effect, expected.effect, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-8)


def test_without_the_only_odd_one_all_count_the_same() -> None:
    participants = [f"{number}" for number in range(30) for _ in range(2)][:-1]
    design = np.eye(2)[[session for _ in range(30) for session in range(2)][:-1]]
    contrast, working = np.full(2, 0.5), (np.full(30, 0.5), np.ones(30))
    whole = robust_contrast(design, participants, contrast, 0.5)
    assert whole.spread is not None
    without = ClustersLeftOut(whole, design, participants, contrast, working).without(29)
    assert without is not None
    assert without.spread is None
    assert without.dof == pytest.approx(28)


@pytest.mark.parametrize("n_of_level", [1, 2])
def test_without_the_only_one_of_a_level_or_with_one_left_there_is_none(n_of_level: int) -> None:
    participants = [f"{number}" for number in range(12) for _ in range(2)]
    level = np.repeat(np.arange(12) < n_of_level, 2).astype(float)
    design = np.column_stack([np.eye(2)[[0, 1] * 12], level])
    contrast, working = np.array([0.0, 0.0, 1.0]), (np.full(12, 0.5), np.ones(12))
    whole = robust_contrast(design, participants, contrast, 0.5)
    left = ClustersLeftOut(whole, design, participants, contrast, working)
    assert left.without(0) is None
    if n_of_level == 2:
        assert left.without(5) is not None

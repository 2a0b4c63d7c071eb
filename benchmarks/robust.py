"""Simulate how often robust tests over participants are wrong, and what they find, beside Student's t; print tables.

python benchmarks/robust.py [--voxels N] [--participants N …] [--seed S] [--marginal]
"""

from __future__ import annotations

import argparse
import contextlib

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sessionfx.statistics.cluster_robust import estimate_robust, robust_contrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.ols import prepare_ols
from sessionfx.statistics.robust import MEstimator, prepare_m_estimate, prepare_trimmed
from sessionfx.statistics.robust_clusters import prepare_robust_clusters

FloatArray = NDArray[np.float64]
BLOCK = 10_000
EFFECT = 3.0  # in standard errors of a mean of normal values
VALUES = ("normal", "t, 3 dof", "a tenth varies 5-fold", "one varies 10-fold", "skewed (χ², 4 dof)")


def values_of(kind: str, rng: np.random.Generator, n: int, n_voxels: int) -> FloatArray:
    """Draw values of participants, of mean 0; standard deviation 1 but for those who vary more."""
    if kind == VALUES[1]:
        return np.asarray(rng.standard_t(3, (n, n_voxels)) / np.sqrt(3))
    if kind == VALUES[4]:
        return np.asarray((rng.chisquare(4, (n, n_voxels)) - 4) / np.sqrt(8))
    values = rng.standard_normal((n, n_voxels))
    if kind == VALUES[2]:
        values *= np.where(rng.random(values.shape) < 0.1, 5.0, 1.0)
    if kind == VALUES[3]:
        values[0] *= 10
    return values


def designs(n: int) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Designs of n participants and a contrast in each."""
    ones = np.ones(n)
    group = np.where(np.arange(n) < n // 3, 1.0, -1.0)
    covariate = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return {
        "mean": (ones[:, None], np.array([1.0])),
        "groups, 1 : 2": (np.column_stack([ones, group]), np.array([0.0, 2.0])),
        "covariate": (np.column_stack([ones, covariate]), np.array([0.0, 1.0])),
    }


def tests_of(design: FloatArray, contrast: FloatArray) -> dict[str, object]:
    """Every test that takes a design."""
    found: dict[str, object] = {"Student's t": prepare_ols(design, contrast)}
    found |= {kind: prepare_m_estimate(kind, design, contrast) for kind in ("huber", "bisquare")}
    with contextlib.suppress(ValueError):
        found["trimmed"] = prepare_trimmed(design, contrast)
    return found


def rate(test: object, kind: str, n: int, options: argparse.Namespace, shift: FloatArray) -> tuple[float, float]:
    """Count p below 5 % and 1 ‰, two-sided, where a shift is added to the values."""
    rng = np.random.default_rng([options.seed, n, VALUES.index(kind)])
    counts = np.zeros(2)
    for _ in range(0, options.voxels, BLOCK):
        values = values_of(kind, rng, n, min(BLOCK, options.voxels)) + shift[:, None]
        estimate: Estimate = test.estimate(values)  # type: ignore[attr-defined]
        p = 2 * np.minimum(estimate.p, 1 - estimate.p)
        counts += [(p < 0.05).sum(), (p < 0.001).sum()]
    n_voxels = -(-options.voxels // BLOCK) * min(BLOCK, options.voxels)
    return 100 * counts[0] / n_voxels, 1000 * counts[1] / n_voxels


def sessions_of(n: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Choose the maps of n participants in three sessions, of which a fifth is missing: participant and session."""
    rng = np.random.default_rng([n, 7])
    maps = [(i, s) for i in range(n) for s in range(3) if s == i % 3 or rng.random() > 0.2]
    owners, sessions = np.array(maps).T
    return owners, sessions


def marginal_designs(owners: NDArray[np.int_], sessions: NDArray[np.int_]) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Designs of all maps, a column for each session and its product with what is asked about, and contrasts."""
    n, cells = owners.max() + 1, (sessions[:, None] == np.arange(3)).astype(float)
    mean = np.full(3, 1 / 3)
    of = {"groups, 1 : 2": np.where(np.arange(n) < n // 3, 1.0, -1.0)}
    of["covariate"] = stats.norm.ppf((np.random.default_rng([n, 8]).permutation(n) + 0.5) / n)
    return {"mean": (cells, mean), "difference": (cells, np.array([-1.0, 0.0, 1.0]))} | {
        name: (np.column_stack([cells, cells * values[owners][:, None]]), np.append(np.zeros(3), mean))
        for name, values in of.items()
    }


def marginal_tables(options: argparse.Namespace) -> None:
    """Print false positives of the marginal model with a working correlation of a half, which is the true one."""
    print("| n | contrast | values | marginal | huber | bisquare |\n|---|---|---|---|---|---|")
    for n in options.participants:
        owners, sessions = sessions_of(n)
        labels = [str(owner) for owner in owners]
        for name, (design, contrast) in marginal_designs(owners, sessions).items():
            prepared = robust_contrast(design, labels, contrast, 1.0)
            kinds: tuple[MEstimator, ...] = ("huber", "bisquare")
            tests = [
                prepare_robust_clusters(kind, prepared, design, labels, contrast, (np.ones(n), np.ones(n)))
                for kind in kinds
            ]
            for kind in VALUES:
                rng = np.random.default_rng([options.seed, n, VALUES.index(kind)])
                level = values_of(kind, rng, n, options.voxels)
                noise = values_of(VALUES[0] if kind == VALUES[3] else kind, rng, 3 * n, options.voxels)
                noise[:3] *= 10 if kind == VALUES[3] else 1
                maps = level[owners] + noise.reshape(n, 3, -1)[owners, sessions]
                found = [estimate_robust(prepared, maps), *(test.estimate(maps) for test in tests)]
                p = [2 * np.minimum(estimate.p, 1 - estimate.p) for estimate in found]
                cells = [f"{100 * (own < 0.05).mean():.1f} %, {1000 * (own < 0.001).mean():.1f} ‰" for own in p]
                print(f"| {n} | {name} | {kind} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print a table of false positives, and one of power."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=50_000)
    parser.add_argument("--participants", type=int, nargs="+", default=[8, 12, 20, 40])
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--marginal", action="store_true", help="of the marginal model, a fifth of the maps missing")
    options = parser.parse_args()
    if options.marginal:
        marginal_tables(options)
        return
    print("| n | contrast | values | Student's t | huber | bisquare | trimmed |\n|---|---|---|---|---|---|---|")
    for n in options.participants:
        for name, (design, contrast) in designs(n).items():
            tests = tests_of(design, contrast)
            for kind in VALUES:
                rates = [rate(test, kind, n, options, np.zeros(n)) for test in tests.values()]
                cells = [f"{percent:.1f} %, {mille:.1f} ‰" for percent, mille in rates]
                cells += ["" for _ in range(4 - len(cells))]
                print(f"| {n} | {name} | {kind} | {' | '.join(cells)} |", flush=True)
    print(
        "\nPower at 5 %, mean:\n\n| n | values | Student's t | huber | bisquare | trimmed |\n|---|---|---|---|---|---|"
    )
    for n in options.participants:
        design, contrast = designs(n)["mean"]
        for kind in VALUES:
            shift = np.full(n, EFFECT / np.sqrt(n))
            rates = [rate(test, kind, n, options, shift) for test in tests_of(design, contrast).values()]
            print(f"| {n} | {kind} | {' | '.join(f'{percent:.0f} %' for percent, _ in rates)} |", flush=True)


if __name__ == "__main__":
    main()

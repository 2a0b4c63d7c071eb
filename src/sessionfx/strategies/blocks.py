"""Estimating a plan block of voxels by block of voxels.

Working arrays are as large as a block, not as the brain. The blocks have one fixed size, and arrays one
memory layout, because the last bit of a matrix product can depend on them: results must not depend on who computes
which block.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered, in_this_process
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.strategies.base import Plan

VOXELS_PER_BLOCK = 16_384


class Maps(Protocol):
    """N maps of V voxels, wherever they are kept."""

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""

    def effects(self, voxels: slice) -> NDArray[np.float64]:
        """Read the effects of some voxels, of shape (N, v)."""

    def variances(self, voxels: slice) -> NDArray[np.float64]:
        """Read the sampling variances of some voxels, of shape (N, v)."""


@dataclass(frozen=True)
class MapsInMemory:
    """Maps as arrays of shape (N, V).

    Blocks are contiguous: the last bit can depend on the layout in memory, and sending makes arrays contiguous.
    """

    effect: NDArray[np.floating]
    variance: NDArray[np.floating] | None = None

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.effect.shape[1])

    def effects(self, voxels: slice) -> NDArray[np.float64]:
        """Effects of some voxels."""
        return np.ascontiguousarray(self.effect[:, voxels], dtype=np.float64)

    def variances(self, voxels: slice) -> NDArray[np.float64]:
        """Variances of some voxels."""
        assert self.variance is not None  # noqa: S101 - asked for only where they were given
        return np.ascontiguousarray(self.variance[:, voxels], dtype=np.float64)


def blocks_of(n_voxels: int) -> list[slice]:
    """Cut voxels into blocks."""
    return [slice(start, min(start + VOXELS_PER_BLOCK, n_voxels)) for start in range(0, n_voxels, VOXELS_PER_BLOCK)]


def estimate_in_blocks(
    plan: Plan, maps: Maps, map_ordered: MapOrdered = in_this_process
) -> tuple[Plan, Estimate | FTest]:
    """Estimate all voxels.

    Parameters
    ----------
    plan : Plan
    maps : Maps
    map_ordered : callable
        Who applies a function to the blocks; the results are the same whoever does.

    Returns
    -------
    plan : Plan
        With what it learned from all voxels.
    result : Estimate or FTest
        Of V voxels.

    Raises
    ------
    NotEstimableError
        If the plan learns from the voxels that it cannot answer.
    """
    blocks = blocks_of(maps.n_voxels)
    if plan.pools:
        parts = map_ordered(pooled_sums, ((plan, maps.effects(block)) for block in blocks))
        # one after the other, so that the last bit of the sum does not depend on who computed the parts
        plan = plan.informed(functools.reduce(np.add, parts))
    variances = (maps.variances(block) if plan.uses_variances else None for block in blocks)
    arguments = ((plan, maps.effects(block), variance) for block, variance in zip(blocks, variances, strict=True))
    results: list[Any] = list(map_ordered(estimate, arguments))  # of one class
    return plan, type(results[0]).joined(results)


def pooled_sums(plan: Plan, effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Call the plan's method; a function of a module travels to other processes."""
    return plan.pooled_sums(effects)


def estimate(plan: Plan, effects: NDArray[np.float64], variances: NDArray[np.float64] | None) -> Estimate | FTest:
    """Call the plan's method; a function of a module travels to other processes."""
    return plan.estimate(effects, variances)

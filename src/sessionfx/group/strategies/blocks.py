"""Estimating plans block of voxels by block of voxels.

Working arrays are as large as a block, not as the brain, and each block is read once for all plans. The size of blocks
depends on the number of maps alone, and arrays have one memory layout, because the last bit of a matrix product can
depend on them: results must not depend on who computes which block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered, in_this_process
from sessionfx.group.strategies.base import Plan
from sessionfx.statistics.estimates import Estimate, FTest

VOXELS_PER_BLOCK = 16_384  # at most
# With many maps blocks have fewer voxels: what is worked on at a time is a few times this, and stays in the cache.
_VALUES_PER_BLOCK = 2**18
_STEP = 64


class Estimator(Protocol):
    """What estimates a question at voxels, such as a plan."""

    @property
    def uses_variances(self) -> bool:
        """Whether the maps' sampling variances enter."""

    def estimate(self, effects: NDArray[np.float64], variances: NDArray[np.float64] | None) -> Estimate | FTest:
        """Estimate the question at V voxels from N maps; see `Plan.estimate`."""


class Maps(Protocol):
    """N maps of V voxels, wherever they are kept."""

    @property
    def blocks(self) -> Sequence[slice]:
        """Names of the blocks that together have every voxel once, in order."""

    def effects(self, block: slice) -> NDArray[np.floating]:
        """Read the effects of a block's voxels, of shape (N, v)."""

    def variances(self, block: slice) -> NDArray[np.floating]:
        """Read the sampling variances of a block's voxels, of shape (N, v)."""


@dataclass(frozen=True)
class MapsInMemory:
    """Maps as arrays of shape (N, V)."""

    effect: NDArray[np.floating]
    variance: NDArray[np.floating] | None = None

    @property
    def blocks(self) -> list[slice]:
        """Blocks of neighbouring voxels."""
        return blocks_of(*self.effect.shape)

    def effects(self, block: slice) -> NDArray[np.floating]:
        """Effects of some voxels."""
        return self.effect[:, block]

    def variances(self, block: slice) -> NDArray[np.floating]:
        """Variances of some voxels."""
        assert self.variance is not None  # noqa: S101 - asked for only where they were given
        return self.variance[:, block]


def block_width(n_maps: int) -> int:
    """Say how many voxels a block of so many maps has."""
    return min(VOXELS_PER_BLOCK, max(_STEP, _VALUES_PER_BLOCK // n_maps // _STEP * _STEP))


def blocks_of(n_maps: int, n_voxels: int) -> list[slice]:
    """Cut voxels into blocks."""
    width = block_width(n_maps)
    return [slice(start, min(start + width, n_voxels)) for start in range(0, n_voxels, width)]


def estimate_in_blocks(
    plan: Plan, maps: Maps, map_ordered: MapOrdered = in_this_process
) -> tuple[Plan, Estimate | FTest]:
    """Estimate one plan at all voxels.

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
    pools = distinct_pools([plan])
    items = ((tuple(pools.values()), maps.effects(block)) for block in maps.blocks)
    parts = list(map_ordered(pooled_sums, items)) if pools else []
    # one after the other, so that the last bit of the sum does not depend on who computed the parts
    sums = [sum(of_blocks[1:], of_blocks[0]) for of_blocks in zip(*parts, strict=True)]
    ready = informed(plan, dict(zip(pools, sums, strict=True)))
    return ready, estimate_plans([ready], maps, map_ordered)[0]


def estimate_plans(plans: Sequence[Estimator], maps: Maps, map_ordered: MapOrdered) -> list[Estimate | FTest]:
    """Estimate several plans, informed of all voxels where they pool, at all voxels; each block is read once."""
    uses_variances = any(plan.uses_variances for plan in plans)

    def items() -> Iterator[tuple[Any, ...]]:
        for block in maps.blocks:
            yield tuple(plans), maps.effects(block), maps.variances(block) if uses_variances else None

    blocks: list[Any] = list(map_ordered(estimate, items()))
    return [type(parts[0]).joined(parts) for parts in zip(*blocks, strict=True)]


def distinct_pools(plans: Sequence[Plan]) -> dict[object, Plan]:
    """Choose one plan of all those that need to know the same of all voxels, by `Plan.pool_key`."""
    chosen: dict[object, Plan] = {}
    for plan in plans:
        if plan.pools:
            chosen.setdefault(plan.pool_key, plan)
    return chosen


def informed(plan: Plan, sums: Mapping[object, NDArray[np.float64]]) -> Plan:
    """Make a plan ready with what `distinct_pools` found over all voxels.

    Raises
    ------
    NotEstimableError
        If the plan learns from the voxels that it cannot answer.
    """
    return plan.informed(sums[plan.pool_key]) if plan.pools else plan


def as_block(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Bring the maps of a block into the type and memory layout that everyone computes with."""
    return np.ascontiguousarray(values, dtype=np.float64)


def pooled_sums(plans: Sequence[Plan], effects: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """Sum up what plans must know of a block; a function of a module travels to other processes."""
    values = as_block(effects)
    return [plan.pooled_sums(values) for plan in plans]


def estimate(
    plans: Sequence[Estimator], effects: NDArray[np.floating], variances: NDArray[np.floating] | None
) -> list[Estimate | FTest]:
    """Estimate plans at the voxels of a block; a function of a module travels to other processes."""
    values = as_block(effects)
    errors = None if variances is None else as_block(variances)
    return [plan.estimate(values, errors) for plan in plans]

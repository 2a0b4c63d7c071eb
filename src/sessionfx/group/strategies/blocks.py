"""Estimating plans block of voxels by block of voxels.

Working arrays are as large as a block, not as the brain, and each block is read once for all plans. The size of blocks
depends on the number of maps alone, and arrays have one memory layout, because the last bit of a matrix product can
depend on them: results must not depend on who computes which block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered
from sessionfx.group.strategies.base import Plan
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array

VOXELS_PER_BLOCK = 16_384  # at most
# With many maps blocks have fewer voxels: what is worked on at a time is a few times this, and stays in the cache.
_VALUES_PER_BLOCK = 2**18
_STEP = 64


class Estimator(Protocol):
    """What estimates a question at voxels, such as a plan."""

    @property
    def uses_variances(self) -> bool:
        """Whether the maps' sampling variances enter."""

    def estimate_beside(self, effects: Array, variances: Array | None, shared: dict[object, Any]) -> Estimate | FTest:
        """Estimate the question at V voxels from N maps; see `Plan.estimate_beside`."""


# Puts a value away and gives what brings it back
Keep = Callable[[Any], Callable[[], Any]]


def in_memory(value: Any) -> Callable[[], Any]:
    """Keep a value in memory; see `Keep`."""
    return lambda: value


class Maps(Protocol):
    """N maps of V voxels, wherever they are kept."""

    @property
    def blocks(self) -> Sequence[slice]:
        """Names of the blocks that together have every voxel once, in order."""

    def handed_out(self, block: slice, *, with_variances: bool) -> tuple[Any, Any]:
        """Give effects, and variances or None, to who computes with them, as what `as_block` takes."""


def block_width(n_maps: int) -> int:
    """Say how many voxels a block of so many maps has."""
    return min(VOXELS_PER_BLOCK, max(_STEP, _VALUES_PER_BLOCK // n_maps // _STEP * _STEP))


def estimate_plans(
    plans: Sequence[Estimator], maps: Maps, map_ordered: MapOrdered, keep: Keep = in_memory
) -> Iterator[Estimate | FTest]:
    """Estimate several plans, informed of all voxels where they pool, at all voxels; each block is read once.

    What is found is kept some blocks at a time, and put together plan by plan as results are taken.
    """
    uses_variances = any(plan.uses_variances for plan in plans)
    blocks = maps.blocks

    items = (maps.handed_out(block, with_variances=uses_variances) for block in blocks)
    together = max(1, VOXELS_PER_BLOCK // (blocks[0].stop - blocks[0].start))
    results: Iterator[list[Any]] = iter(map_ordered(partial(estimate, tuple(plans)), items))
    chunks = []
    while part := list(islice(results, together)):
        chunks.append([keep(type(found[0]).joined(found)) for found in zip(*part, strict=True)])
    for of_plan in zip(*chunks, strict=True):
        found = [chunk() for chunk in of_plan]
        yield type(found[0]).joined(found)


def distinct_pools(plans: Sequence[Plan]) -> dict[object, Plan]:
    """Choose one plan of all those that need to know the same of all voxels, by `Plan.pool_key`."""
    chosen: dict[object, Plan] = {}
    for plan in plans:
        if plan.pools:
            chosen.setdefault(plan.pool_key, plan)
    return chosen


def informed(plan: Plan, sums: Mapping[object, Array]) -> Plan:
    """Make a plan ready with what `distinct_pools` found over all voxels.

    Raises
    ------
    NotEstimableError
        If the plan learns from the voxels that it cannot answer.
    """
    return plan.informed(sums[plan.pool_key]) if plan.pools else plan


def as_block(values: NDArray[np.floating]) -> Array:
    """Bring the maps of a block, which may have to be read, into the type and memory layout everyone computes with."""
    return np.ascontiguousarray(values, dtype=np.float64)


def estimate(
    plans: Sequence[Estimator], effects: NDArray[np.floating], variances: NDArray[np.floating] | None
) -> list[Estimate | FTest]:
    """Estimate plans at the voxels of a block; a function of a module travels to other processes."""
    values = as_block(effects)
    errors = None if variances is None else as_block(variances)
    shared: dict[object, Any] = {}
    return [plan.estimate_beside(values, errors, shared) for plan in plans]

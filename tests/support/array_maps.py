"""Maps that are arrays, and plans estimated from them as the group level estimates those of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered, in_this_process
from sessionfx.group.strategies.base import Plan
from sessionfx.group.strategies.blocks import Maps, as_block, block_width, estimate_plans, informed
from sessionfx.statistics.estimates import Estimate, FTest


@dataclass(frozen=True)
class MapsInMemory:
    """Maps as arrays of shape (N, V)."""

    effect: NDArray[np.floating]
    variance: NDArray[np.floating] | None = None

    @property
    def blocks(self) -> list[slice]:
        """Blocks of neighbouring voxels."""
        return blocks_of(*self.effect.shape)

    def handed_out(self, block: slice, *, with_variances: bool) -> tuple[Any, Any]:
        """Effects, and variances or None, of some voxels."""
        assert self.variance is not None or not with_variances
        return self.effect[:, block], self.variance[:, block] if self.variance is not None and with_variances else None


def blocks_of(n_maps: int, n_voxels: int) -> list[slice]:
    """Cut voxels into blocks."""
    width = block_width(n_maps)
    return [slice(start, min(start + width, n_voxels)) for start in range(0, n_voxels, width)]


def estimate_in_blocks(
    plan: Plan, maps: Maps, map_ordered: MapOrdered = in_this_process
) -> tuple[Plan, Estimate | FTest]:
    """Estimate one plan at all voxels: the plan with what it learned from them, and the result."""
    if plan.pools:
        found = (maps.handed_out(block, with_variances=False)[0] for block in maps.blocks)
        first, *others = [plan.pooled_sums(as_block(effects)) for effects in found]
        plan = informed(plan, {plan.pool_key: sum(others, first)})
    return plan, next(estimate_plans([plan], maps, map_ordered))

"""Estimating a plan block of voxels by block of voxels.

Working arrays are as large as a block, not as the brain. The blocks have one fixed size, because the last bit of
a matrix product can depend on its shape: results must not depend on who computes which block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered, map_in_order
from sessionfx.statistics.estimates import Estimate
from sessionfx.strategies.base import Plan

VOXELS_PER_BLOCK = 16_384


def estimate_in_blocks(
    plan: Plan,
    effects: NDArray[np.floating],
    variances: NDArray[np.floating] | None,
    *,
    map_ordered: MapOrdered = map_in_order,
) -> Estimate:
    """Estimate all voxels.

    Parameters
    ----------
    plan : Plan
    effects : ndarray of shape (N, V)
    variances : ndarray of shape (N, V) or None
    map_ordered : callable, optional
        Where the blocks are worked on; see `Executor.map_ordered`. One after the other in this process by default.

    Returns
    -------
    Estimate
        Of V voxels.
    """
    blocks = [slice(start, start + VOXELS_PER_BLOCK) for start in range(0, effects.shape[1], VOXELS_PER_BLOCK)]
    # copied, so that a block has one memory layout whether it is sent elsewhere or not
    items = (
        (plan, effects[:, block].copy(), None if variances is None else variances[:, block].copy()) for block in blocks
    )
    parts = list(map_ordered(_estimate_block, items))
    return Estimate(
        np.concatenate([part.effect for part in parts]), np.concatenate([part.variance for part in parts]), parts[0].dof
    )


def _estimate_block(plan: Plan, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
    return plan.estimate(effects, variances)

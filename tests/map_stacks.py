"""Stacks of maps made from arrays, for tests of what the group level does with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.spool import Spool
from sessionfx.group.stack import MapStack
from sessionfx.inputs.images import Grid
from sessionfx.strategies.base import MapLayout


def stack_of(layout: MapLayout, effects: NDArray[np.float64], mask: NDArray[np.bool_]) -> MapStack:
    """Stack maps of shape (N, V) at the V voxels of a mask; the file is in memory."""
    spool = Spool(io.BytesIO(), Path())
    for row in effects:
        spool.append(row)
    grid = Grid(mask.shape, np.diag([3.0, 3.0, 3.0, 1.0]))
    return MapStack(layout, mask, grid, mask * len(effects), (), spool, None, np.arange(effects.shape[1]))

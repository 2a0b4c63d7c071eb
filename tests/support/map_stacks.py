"""Layouts and stacks of maps made from arrays, for tests of what the group level does with them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import in_this_process
from sessionfx.group.evidence import gather
from sessionfx.group.judgement import Evidence
from sessionfx.group.stack import MapStack
from sessionfx.group.store import BlockStore
from sessionfx.group.strategies.base import MapLayout
from sessionfx.group.strategies.blocks import block_width
from sessionfx.space.grid import Grid


def layout_of(attendance: NDArray[np.bool_], names: Sequence[str] = (), **covariates: NDArray[np.float64]) -> MapLayout:
    """One map per True cell of a participants × sessions table; covariates of the participants by their names."""
    owners, places = np.nonzero(attendance)
    labels = names or [f"{i + 1:02d}" for i in range(len(attendance))]
    return MapLayout(
        tuple(labels[i] for i in owners),
        tuple(f"{j + 1:02d}" for j in places),
        tuple(covariates),
        np.column_stack(list(covariates.values()))[owners] if covariates else np.empty((0, 0)),
    )


def stack_of(layout: MapLayout, effects: NDArray[np.float64], mask: NDArray[np.bool_]) -> MapStack:
    """Stack maps of shape (N, V) at the V voxels of a mask."""
    store = BlockStore(tempfile.TemporaryFile(buffering=0), Path(), *effects.shape, block_width(len(effects)))  # noqa: SIM115
    for row, values in enumerate(effects):
        store.write(row, values[None])
    grid = Grid(mask.shape, np.diag([3.0, 3.0, 3.0, 1.0]))
    return MapStack(layout, mask, grid, mask * len(effects), (), store, None, np.ones(effects.shape[1], dtype=bool))


def gather_evidence(stack: MapStack, sessions: Sequence[str]) -> tuple[Evidence, dict[str, NDArray[np.float64]]]:
    """Look at the maps alone; see `evidence.gather`."""
    return gather(stack, sessions, [], in_this_process)[:2]

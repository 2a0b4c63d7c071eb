"""Summaries of maps as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sessionfx.maps import EstimateMap

# How columns of tables are called for people; in files they have the short names.
TITLES = {
    "dof": "degrees of freedom",
    "n_voxels": "voxels",
    "threshold": "threshold |z|",
    "n_above": "voxels beyond",
    "largest_z": "largest z",
    "largest_at_mm": "at x, y, z (mm)",
    "smallest_z": "smallest z",
    "smallest_at_mm": "at x, y, z (mm) ",
    "n_participants": "participants",
    "n_maps": "maps",
}


def titled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a row the names people read."""
    return {TITLES.get(name, name): value for name, value in record.items()}


def map_summary(one: EstimateMap, threshold: float) -> dict[str, Any]:
    """Describe a map in one row.

    Parameters
    ----------
    one : EstimateMap
    threshold : float
        On |z|.

    Returns
    -------
    dict
        Degrees of freedom, voxels, threshold, supra-threshold voxels, largest and smallest z and where (mm).
    """
    z = one.estimate.z
    high, low = int(np.argmax(z)), int(np.argmin(z))
    return {
        "dof": one.estimate.dof,
        "n_voxels": int(z.size),
        "threshold": threshold,
        "n_above": int((np.abs(z) >= threshold).sum()),
        "largest_z": float(z[high]),
        "largest_at_mm": position_text(one, high),
        "smallest_z": float(z[low]),
        "smallest_at_mm": position_text(one, low),
    }


def position_text(one: EstimateMap, index: int) -> str:
    """World coordinates (mm) of an in-mask voxel, for people."""
    voxel = np.argwhere(one.mask)[index]
    place = one.grid.affine[:3, :3] @ voxel + one.grid.affine[:3, 3]
    return ", ".join(f"{value:.0f}".replace("-", "−") for value in place)


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

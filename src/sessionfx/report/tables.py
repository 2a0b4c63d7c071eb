"""Summaries of maps as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sessionfx.maps import Located, position_text
from sessionfx.statistics.thresholds import beyond

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
    "valid": "to be trusted",
    "n_participants": "participants",
    "n_maps": "maps",
}


def titled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a row the names people read."""
    return {TITLES.get(name, name): value for name, value in record.items()}


def map_summary(one: Located[Any], threshold: float) -> dict[str, Any]:
    """Describe a map in one row.

    Parameters
    ----------
    one : Located
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
        "dof": one.estimate.typical_dof,
        "n_voxels": int(z.size),
        "threshold": threshold,
        "n_above": int(beyond(z, threshold, two_sided=one.estimate.two_sided).sum()),
        "largest_z": float(z[high]),
        "largest_at_mm": position_text(one.mask, one.grid, high),
        "smallest_z": float(z[low]),
        "smallest_at_mm": position_text(one.mask, one.grid, low),
    }


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

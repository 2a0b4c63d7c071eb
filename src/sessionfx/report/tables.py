"""Summaries of maps as rows of tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from sessionfx.maps import EstimateMap


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
        "degrees of freedom": one.estimate.dof,
        "voxels": int(z.size),
        "threshold |z|": threshold,
        "voxels beyond": int((np.abs(z) >= threshold).sum()),
        "largest z": float(z[high]),
        "where (mm)": position_text(one, high),
        "smallest z": float(z[low]),
        "where it is (mm)": position_text(one, low),
    }


def position_text(one: EstimateMap, index: int) -> str:
    """World coordinates (mm) of an in-mask voxel, for people."""
    voxel = np.argwhere(one.mask)[index]
    place = one.grid.affine[:3, :3] @ voxel + one.grid.affine[:3, 3]
    return ", ".join(f"{value:.0f}".replace("-", "−") for value in place)


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

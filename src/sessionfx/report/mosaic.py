"""Volumes on anatomy: rows of axial cuts through chosen places.

Everything is sampled in world coordinates (mm), so that maps, anatomy and oblique grids need no common grid; left is
drawn on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sessionfx.report.canvas import LABEL, PAPER, WIDTH, BoolArray, Canvas, FloatArray, label_strip
from sessionfx.report.nilearn_files import mni_template
from sessionfx.space.grid import Grid

N_CUTS = 7
_CUTS_IN_ROW = 3  # of several
FORM = "Cuts are labelled by their height in mm; left is left. "
_GAP = 3  # pixels between cuts
_CUTS_APART = 7.0  # mm
_MARGIN = 5.0  # mm around the mask at least


@dataclass(frozen=True)
class Anatomy:
    """A picture of the brain under the maps.

    Attributes
    ----------
    values : ndarray, 3-D
    affine : ndarray, shape (4, 4)
        Voxel index to mm.
    """

    values: FloatArray
    affine: NDArray[np.float64]

    @cached_property
    def grey(self) -> NDArray[np.float32]:
        """The picture as grey levels from 0.25 to 0.95; white where it is empty."""
        values = np.nan_to_num(np.asarray(self.values, dtype=np.float32))
        there = values > 0.02 * values.max(initial=0.0)
        low, high = np.percentile(values[there][::7] if there.any() else [0, 1], [2, 98])
        level = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * np.float32(0.7) + np.float32(0.25)
        return np.where(there, level, np.float32(1))


@cache
def template() -> Anatomy:
    """Give the MNI152 template that nilearn ships."""
    return Anatomy(*mni_template())


def choose_cuts(peaks: Sequence[float], low: float, high: float, n_cuts: int = N_CUTS) -> tuple[float, ...]:
    """Choose heights (mm) of axial cuts: at peaks, the first ones first, then where the brain is shown least.

    Parameters
    ----------
    peaks : sequence of float
        Heights of peaks, the most important first.
    low, high : float
        Ends of the brain.
    n_cuts : int

    Returns
    -------
    tuple of float
        Increasing; no two closer than 7 mm unless the brain has no room.
    """
    chosen: list[float] = []
    for peak in peaks:
        if len(chosen) < n_cuts and all(abs(peak - cut) >= _CUTS_APART for cut in chosen):
            chosen.append(float(peak))
    evenly = list(low + (np.arange(4 * n_cuts) + 2) * (high - low) / (4 * n_cuts + 3))
    while len(chosen) < n_cuts and evenly:
        farthest = max(evenly, key=lambda height: min(abs(height - cut) for cut in [*chosen, low, high]))
        evenly.remove(farthest)
        chosen.append(float(farthest))
    return tuple(sorted(chosen))


def axial_cuts(
    mask: BoolArray,
    grid: Grid,
    anatomy: Anatomy | None = None,
    peaks: Sequence[float] = (),
    *,
    n_rows: int = 1,
    width: int = WIDTH,
) -> Canvas:
    """Cut through the voxels of a mask.

    Parameters
    ----------
    mask : ndarray of bool, 3-D
        Not empty.
    grid : Grid
    anatomy : Anatomy or None
        Plain grey without.
    peaks : sequence of float, default: ()
        Heights (mm) through which cuts should go, the most important first.
    n_rows : int, default=1
        Of cuts: seven in one, three in each of several.
    width : int
        Pixels of a row.
    """
    places = np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low, high = places.min(axis=0), places.max(axis=0)
    in_row = N_CUTS if n_rows == 1 else _CUTS_IN_ROW
    cuts = choose_cuts(peaks, float(low[2]), float(high[2]), n_rows * in_row)
    # voxels reach half their size beyond their centres
    margin = np.maximum(_MARGIN, np.abs(grid.affine[:3, :3]).sum(axis=1) / 2 + 1)
    low, high = low - margin, high + margin
    rows = [
        _row_of_cuts(cuts[start : start + in_row], mask, grid, anatomy, (low, high), width // in_row)
        for start in range(0, len(cuts), in_row)
    ]
    return Canvas(np.vstack([features for features, _ in rows]), np.vstack([under for _, under in rows]), FORM)


def _row_of_cuts(
    cuts: Sequence[float],
    mask: BoolArray,
    grid: Grid,
    anatomy: Anatomy | None,
    box: tuple[NDArray[np.float64], NDArray[np.float64]],
    columns: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Cut at heights, each so many pixels wide, within a box (mm): features and grey levels, labelled."""
    low, high = box
    step = float(high[0] - low[0]) / columns  # mm per pixel
    rows = min(max(int((high[1] - low[1]) / step), 8), 400)
    x = low[0] + (np.arange(columns) + 0.5) * step
    y = high[1] - (np.arange(rows) + 0.5) * step  # the front of the brain is up
    z = np.repeat(cuts, columns)
    world = np.stack(np.broadcast_arrays(np.tile(x, len(cuts)), y[:, None], z))
    index = np.rint(_indices(world, grid.affine)).astype(np.intp)
    is_on_grid = ((index >= 0) & (index < np.array(grid.shape)[:, None, None])).all(axis=0)
    voxels = np.ravel_multi_index(tuple(index * is_on_grid), grid.shape)
    features = np.where(is_on_grid & mask.ravel()[voxels], voxels, -1)
    if anatomy is None:
        under = np.where(features >= 0, PAPER, np.float32(1))
    else:
        under = map_coordinates(anatomy.grey, _indices(world, anatomy.affine), order=1, cval=1.0).astype(np.float32)
    width = len(cuts) * columns
    between = np.arange(width) % columns >= columns - _GAP
    features[:, between], under[:, between] = -1, 1
    texts = [((n + 0.5) * columns, f"z = {round(cut)}") for n, cut in enumerate(cuts)]
    labels = label_strip([*texts, (8, "L"), (width - 8, "R")], width)
    return np.pad(features, ((0, LABEL), (0, 0)), constant_values=-1), np.vstack([under, labels])


def _indices(world: FloatArray, affine: NDArray[np.float64]) -> FloatArray:
    """Find where places (mm, three axes first) lie in a volume: voxel indices."""
    back = np.linalg.inv(affine)
    return np.asarray(np.tensordot(back[:3, :3], world, axes=1) + back[:3, 3][:, None, None])

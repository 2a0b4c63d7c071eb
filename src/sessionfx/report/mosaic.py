"""Volumes on anatomy: rows of axial cuts through chosen places.

Everything is sampled in world coordinates (mm), so that maps, anatomy and oblique grids need no common grid; left is
drawn on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sessionfx.report.canvas import PAPER, WIDTH, BoolArray, Canvas, FloatArray, joined
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
    """A picture of the brain under the maps: values (3-D), and an affine from voxel index to mm."""

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
    """Choose heights (mm) of axial cuts between the ends of the brain, in increasing order.

    They are at peaks, the first ones first, then where the brain is shown least, no two closer than 7 mm unless there
    is no room.
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
    """Cut through the voxels of a mask (3-D, not empty), with anatomy or plain grey under them.

    Parameters
    ----------
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
    columns = width // in_row
    step = float(np.ptp(places[:, 0]) + 2 * margin[0]) / columns  # mm per pixel
    x = low[0] - margin[0] + (np.arange(columns) + 0.5) * step
    n_lines = min(max(int((high[1] - low[1] + 2 * margin[1]) / step), 8), 400)
    y = high[1] + margin[1] - (np.arange(n_lines) + 0.5) * step  # the front of the brain is up
    rows = [_row(x, y, cuts[start : start + in_row], mask, grid, anatomy) for start in range(0, len(cuts), in_row)]
    return replace(joined(rows, axis=0), form=FORM)


def _row(
    x: FloatArray, y: FloatArray, cuts: Sequence[float], mask: BoolArray, grid: Grid, anatomy: Anatomy | None
) -> Canvas:  # fmt: skip
    """Cut at heights beside each other, with pixels at x and y (mm)."""
    columns, width = len(x), len(cuts) * len(x)
    world = np.stack(np.broadcast_arrays(np.tile(x, len(cuts)), y[:, None], np.repeat(cuts, columns)))
    index = np.rint(_indices(world, grid.affine)).astype(np.intp)
    is_on_grid = ((index >= 0) & (index < np.array(grid.shape)[:, None, None])).all(axis=0)
    voxels = np.ravel_multi_index(tuple(index * is_on_grid), grid.shape)
    features = np.where(is_on_grid & mask.ravel()[voxels], voxels, -1)
    if anatomy is None:
        under = np.where(features >= 0, PAPER, np.float32(1))
    else:
        under = map_coordinates(anatomy.grey, _indices(world, anatomy.affine), order=1, cval=1.0).astype(np.float32)
    between = np.arange(width) % columns >= columns - _GAP
    features[:, between], under[:, between] = -1, 1
    texts = [((n + 0.5) * columns, f"z = {round(cut)}") for n, cut in enumerate(cuts)]
    return Canvas(features, under).labelled([*texts, (8, "L"), (width - 8, "R")])


def _indices(world: FloatArray, affine: NDArray[np.float64]) -> FloatArray:
    """Find where places (mm, three axes first) lie in a volume: voxel indices."""
    back = np.linalg.inv(affine)
    return np.asarray(np.tensordot(back[:3, :3], world, axes=1) + back[:3, 3][:, None, None])

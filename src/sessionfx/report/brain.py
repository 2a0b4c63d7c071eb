"""Pictures of the brain on which maps of a space are drawn: volumes on anatomy, as rows of axial cuts; surfaces; both.

Cuts are sampled in world coordinates (mm), so that maps, anatomy and oblique grids need no common grid; left is drawn
on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sessionfx.report.canvas import PAPER, WIDTH, BoolArray, Canvas, FloatArray, joined
from sessionfx.report.cortex import cortex_of
from sessionfx.report.nilearn_files import mni_template
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface

N_CUTS = 7
_WIDTH_BELOW = 300  # pixels of the cuts through what is below the cortex
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
    def _parts(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Values, 0 where it is empty; and 1 where it is not."""
        known = np.nan_to_num(np.asarray(self.values, dtype=np.float32))
        there = (known > 0.02 * known.max(initial=0.0)).astype(np.float32)
        return known * there, there

    @cached_property
    def _range(self) -> NDArray[np.float64]:
        """Values of the darkest and of the lightest grey."""
        known, there = self._parts
        inside = known[there > 0][::7]
        return np.percentile(inside if inside.size else [0, 1], [2, 98])

    def grey_at(self, world: FloatArray) -> NDArray[np.float32]:
        """Give grey levels from 0.25 to 0.95 at homogeneous coordinates (mm, shape (4, n)); white where it is empty."""
        at = (np.linalg.inv(self.affine) @ world)[:3]
        total, share = (map_coordinates(part, at, np.float32, order=1) for part in self._parts)
        low, high = self._range
        level = (total / np.maximum(share, 1e-6) - low) / max(high - low, 1e-12)
        return np.asarray(1 + share * (0.25 + 0.7 * np.clip(level, 0, 1) - 1), dtype=np.float32)


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
    mask: BoolArray, grid: Grid, anatomy: Anatomy | None = None, peaks: Sequence[float] = (), *, narrow: bool = False
) -> Canvas:
    """Cut through the voxels of a mask (3-D, not empty), with anatomy or plain grey under them.

    Cuts go through peaks (heights in mm, the most important first). They make one row, or three where the picture is
    to be narrow.
    """
    places = np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low, high = places.min(axis=0), places.max(axis=0)
    n_rows, in_row, columns = (3, 3, _WIDTH_BELOW // 3) if narrow else (1, N_CUTS, WIDTH // N_CUTS)
    cuts = choose_cuts(peaks, float(low[2]), float(high[2]), n_rows * in_row)
    # voxels reach half their size beyond their centres
    margin = np.maximum(_MARGIN, np.abs(grid.affine[:3, :3]).sum(axis=1) / 2 + 1)
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
    axes = np.broadcast_arrays(np.tile(x, len(cuts)), y[:, None], np.repeat(cuts, columns), 1.0)
    world = np.stack([axis.ravel() for axis in axes])  # homogeneous
    voxels = np.where(mask, np.arange(mask.size).reshape(mask.shape), -1)
    at = (np.linalg.inv(grid.affine) @ world)[:3]
    features = map_coordinates(voxels, at, order=0, mode="grid-constant", cval=-1).reshape(len(y), width)
    if anatomy is None:
        under = np.where(features >= 0, PAPER, np.float32(1))
    else:
        under = anatomy.grey_at(world).reshape(features.shape)
    between = np.arange(width) % columns >= columns - _GAP
    features[:, between], under[:, between] = -1, 1
    texts = [((n + 0.5) * columns, f"z = {round(cut)}") for n, cut in enumerate(cuts)]
    return Canvas(features, under).labelled([*texts, (8, "L"), (width - 8, "R")])


def canvas_for(
    space: Space, mask: BoolArray, anatomy: Anatomy | None = None, peaks: Sequence[float] = ()
) -> Canvas | None:
    """Give the picture for the features of a mask, which is not empty; None where there is no mesh to draw.

    Volumes have their anatomy under them, and cuts through peaks (heights in mm, the most important first).
    """
    if isinstance(space, Grid):
        return axial_cuts(mask, space, anatomy, peaks)
    assert isinstance(space, Surface | Grayordinates)  # noqa: S101 - there are no others
    cortex = cortex_of(space)
    if cortex is None:
        return None
    canvas = cortex.canvas(mask)
    if isinstance(space, Surface):
        return canvas
    features, grid = space.at_voxels()
    inside = (features >= 0) & mask[features]
    if not inside.any():
        return canvas
    cuts = axial_cuts(inside, grid, template(), peaks, narrow=True)
    shown = np.where(cuts.features >= 0, features.ravel()[cuts.features], -1)
    return joined([canvas, replace(cuts, features=shown)], axis=1)

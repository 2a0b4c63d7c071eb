"""Maps on anatomy: a row of axial cuts through chosen places, their colour bar beside them.

Everything is sampled in world coordinates (mm), so that maps, anatomy and oblique grids need no common grid; left is
drawn on the left. Statistical maps follow "highlight, don't hide" (Taylor et al. 2023, NeuroImage 274:120138): values
below the threshold are shown too, faintly, and regions beyond it are outlined. Outlines are black above zero and white
below, so that the sign can be told without colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, map_coordinates

from sessionfx.report.style import DIVERGING, DPI, SEQUENTIAL, Picture, as_webp, in_style, new_figure
from sessionfx.space.grid import Grid
from sessionfx.wording import minus, number

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

N_CUTS = 7
MOST_OF_EFFECTS = 0.999  # of voxels that the scale of effects reaches: at edges single ones are huge
_CUTS_APART = 7.0  # mm
_MARGIN = 5.0  # mm around the mask at least
_WIDTH = 1010  # pixels of all cuts together
_LABEL = 24  # pixels under the cuts
_BAR = 104  # pixels for the colour bar and its numbers
_FAINT = 0.55  # the most of its colour that a value below the threshold has
_PAPER = np.float32(0.86)  # grey where there is no anatomy
_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


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
        if not there.any():
            return np.ones(values.shape, dtype=np.float32)
        low, high = np.percentile(values[there][::7] if there.sum() > 7_000 else values[there], [2, 98])
        level = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * np.float32(0.7) + np.float32(0.25)
        return np.where(there, level, np.float32(1))


@cache
def template() -> Anatomy:
    """Give the MNI152 template that nilearn ships."""
    from nilearn.datasets import load_mni152_template

    image: Any = load_mni152_template(resolution=1)
    return Anatomy(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How values become colours.

    Attributes
    ----------
    vmax : float
        Value at the end of the colour bar.
    threshold : float or None
        On the size of values; those below are faint. None: all are shown alike. Infinite: no value passes.
    two_sided : bool
        Whether values lie on both sides of zero.
    unit : str
        Written at the bar.
    """

    vmax: float
    unit: str
    threshold: float | None = None
    two_sided: bool = True

    @classmethod
    def of(
        cls,
        values: Sequence[FloatArray],
        unit: str,
        thresholds: Sequence[float] = (),
        *,
        two_sided: bool = True,
        share: float = 1.0,
    ) -> Scale:
        """Choose one scale for all maps that are compared.

        Parameters
        ----------
        values : sequence of ndarray
        unit : str
        thresholds : sequence of float
            The scale reaches beyond all that are finite.
        two_sided : bool, default=True
        share : float, default=1
            Of the values whose size the scale reaches.
        """
        sizes = [float(np.quantile(np.abs(found), share)) for found in values if found.size]
        finite = [threshold for threshold in thresholds if math.isfinite(threshold)]
        vmax = max([*sizes, *(1.05 * threshold for threshold in finite)], default=0.0)
        return cls(vmax=vmax if vmax > 0 else 1.0, unit=unit, two_sided=two_sided)

    def with_threshold(self, threshold: float) -> Scale:
        """Give the same colours with a threshold."""
        return Scale(vmax=self.vmax, unit=self.unit, threshold=threshold, two_sided=self.two_sided)

    @property
    def marks(self) -> list[float]:
        """Values that are written at the bar."""
        ends = [-self.vmax, 0.0, self.vmax] if self.two_sided else [0.0, self.vmax]
        if self.threshold is None or not math.isfinite(self.threshold):
            return ends
        sides = [-self.threshold, self.threshold] if self.two_sided else [self.threshold]
        # a threshold beside the end of the bar is written, the end is not
        room = 0.09 * (ends[-1] - ends[0])
        return sorted([*sides, *(end for end in ends if min(abs(end - side) for side in sides) > room)])

    def passes(self, values: FloatArray) -> BoolArray:
        """Tell which values are suprathreshold."""
        if self.threshold is None:
            return np.zeros(values.shape, dtype=bool)
        return np.asarray((np.abs(values) if self.two_sided else values) >= self.threshold)

    def paint(self, values: FloatArray, under: FloatArray) -> NDArray[np.float32]:
        """Lay colours over grey levels: RGB in 0–1, one axis more than the values; NaN leaves what is under."""
        known = np.isfinite(values)
        size = np.nan_to_num(values) if self.two_sided else np.clip(np.nan_to_num(values), 0, None)
        colours = np.asarray(DIVERGING(size / (2 * self.vmax) + 0.5), dtype=np.float32)[..., :3]
        opacity = known.astype(np.float32)
        if self.threshold is not None:
            limit = self.threshold if math.isfinite(self.threshold) else self.vmax
            faint = _FAINT * np.minimum(np.abs(size) / limit, 1) ** 2
            opacity *= np.where(self.passes(values), 1, faint).astype(np.float32)
        under = np.asarray(under, dtype=np.float32)
        return np.asarray(under[..., None] + opacity[..., None] * (colours - under[..., None]))


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


class Mosaic:
    """Axial cuts through the voxels of a mask, with what is under all maps drawn on them.

    Parameters
    ----------
    mask : ndarray of bool, 3-D
        Not empty.
    grid : Grid
    anatomy : Anatomy or None
        Plain grey without.
    peaks : sequence of float, default: ()
        Heights (mm) through which cuts should go, the most important first.
    """

    def __init__(
        self, mask: BoolArray, grid: Grid, anatomy: Anatomy | None = None, peaks: Sequence[float] = ()
    ) -> None:
        places = np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        low, high = places.min(axis=0), places.max(axis=0)
        self.cuts = choose_cuts(peaks, float(low[2]), float(high[2]))
        # voxels reach half their size beyond their centres
        margin = np.maximum(_MARGIN, np.abs(grid.affine[:3, :3]).sum(axis=1) / 2 + 1)
        low, high = low - margin, high + margin
        columns = _WIDTH // len(self.cuts)
        step = float(high[0] - low[0]) / columns  # mm per pixel
        rows = min(max(int((high[1] - low[1]) / step), 8), 400)
        x = low[0] + (np.arange(columns) + 0.5) * step
        y = high[1] - (np.arange(rows) + 0.5) * step  # the front of the brain is up
        world = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], np.array(self.cuts)[:, None, None]))
        self._shape = world.shape[1:]
        self._voxels = self._nearest(world, grid)
        self._inside = self.sample(mask.astype(np.float32)) == 1
        self._under = self._grey(world, anatomy)

    def _nearest(self, world: FloatArray, grid: Grid) -> NDArray[np.intp]:
        """Find the voxel at each pixel: its flat index, −1 outside the grid."""
        back = np.linalg.inv(grid.affine)
        index = np.rint(np.tensordot(back[:3, :3], world, axes=1) + back[:3, 3][:, None, None, None]).astype(np.intp)
        shape = np.array(grid.shape)[:, None, None, None]
        inside = ((index >= 0) & (index < shape)).all(axis=0)
        flat = np.ravel_multi_index(tuple(np.where(inside, axis, 0) for axis in index), grid.shape)
        return np.where(inside, flat, -1)

    def _grey(self, world: FloatArray, anatomy: Anatomy | None) -> NDArray[np.float32]:
        if anatomy is None:
            return np.where(self._inside, _PAPER, np.float32(1))
        back = np.linalg.inv(anatomy.affine)
        index = np.tensordot(back[:3, :3], world, axes=1) + back[:3, 3][:, None, None, None]
        return np.asarray(map_coordinates(anatomy.grey, index, order=1, cval=1.0), dtype=np.float32)

    def sample(self, volume: FloatArray) -> FloatArray:
        """Take a volume on the grid at the pixels of the cuts: shape (cuts, rows, columns), NaN outside."""
        return np.where(self._voxels >= 0, np.asarray(volume).ravel()[self._voxels], np.nan)

    def draw_map(self, values: FloatArray, scale: Scale, alt: str, caption: str = "") -> Picture:
        """Draw a statistical map, given on the grid (3-D; NaN is no value)."""
        shown = np.where(self._inside, self.sample(values), np.nan)
        pixels = scale.paint(shown, self._under)
        known = values[np.isfinite(values)]
        is_clipped = (
            bool(scale.two_sided and known.min(initial=0.0) < -scale.vmax),
            bool(known.max(initial=0.0) > scale.vmax),
        )
        passing = scale.passes(shown)
        for region, colour in ((passing & (shown > 0), _BLACK), (passing & (shown < 0), _WHITE)):
            pixels[_rim(region)] = colour
        with in_style():
            figure, bar = self._figure(pixels, scale.unit)
            _draw_bar(bar, scale, is_clipped)
            return as_webp(figure, alt, caption)

    def draw_regions(self, regions: Sequence[tuple[BoolArray, str]], alt: str, caption: str = "") -> Picture:
        """Draw regions (on the grid, 3-D) in flat colours, each with an outline of its own in grey too."""
        pixels = np.repeat(self._under[..., None], 3, axis=-1)
        anywhere = np.logical_or.reduce([region for region, _ in regions])
        outside = self.sample(anywhere.astype(np.float32)) != 1
        for (region, colour), outline in zip(regions, (None, _BLACK, _WHITE), strict=False):
            shown = self._inside & (self.sample(region.astype(np.float32)) == 1)
            pixels[shown] = to_rgb(colour)
            if outline is not None:
                pixels[_rim(shown) & outside] = outline
        with in_style():
            figure, bar = self._figure(pixels, "")
            bar.set_axis_off()
            return as_webp(figure, alt, caption)

    def draw_counts(
        self, counts: NDArray[np.integer[Any]], most: int, unit: str, alt: str, caption: str = ""
    ) -> Picture:
        """Draw how many of `most` inputs have each voxel (3-D)."""
        shown = self.sample(counts.astype(np.float32))
        some = np.nan_to_num(shown) > 0
        pixels = np.repeat(self._under[..., None], 3, axis=-1)
        pixels[some] = SEQUENTIAL(shown[some] / most)[:, :3]
        with in_style():
            figure, bar = self._figure(pixels, unit)
            steps = np.arange(1, most + 1) if most < 100 else np.linspace(1, most, 100)
            bar.imshow(
                SEQUENTIAL(steps / most)[:, None, :3], aspect="auto", extent=(0, 1, 0.5, most + 0.5), origin="lower"
            )
            bar.set_yticks(sorted({1, (most + 1) // 2, most}))
            return as_webp(figure, alt, caption)

    def _figure(self, pixels: FloatArray, unit: str) -> tuple[Figure, Axes]:
        """Put the cuts side by side, pixel on pixel, with room for a colour bar at the right."""
        n_cuts, rows, columns = self._shape
        width, height = n_cuts * columns + _BAR, rows + _LABEL
        figure = new_figure(width / DPI, height / DPI)
        row = np.concatenate(list(np.clip(pixels, 0, 1)), axis=1)
        figure.figimage((row * 255).astype(np.uint8), 0, _LABEL, origin="upper")
        for position, cut in enumerate(self.cuts):
            middle = (position + 0.5) * columns / width
            label = minus(f"z = {round(cut)}")
            figure.text(middle, 5 / height, label, ha="center", fontsize=8.5)
        for place, letter in ((8, "L"), (columns - 8, "R")):
            figure.text(place / width, 1 - 14 / height, letter, ha="center", fontsize=9)
        figure.text(1 - 6 / width, 1 - 16 / height, unit, ha="right", fontsize=8.5)
        left, bottom = (n_cuts * columns + 34) / width, (_LABEL + 8) / height
        bar = figure.add_axes((left, bottom, 14 / width, 1 - bottom - 26 / height))
        bar.set_xticks([])
        return figure, bar


def _rim(region: BoolArray) -> BoolArray:
    """Find the pixels that touch a region of the cuts and are not in it."""
    cross = np.zeros((1, 3, 3), dtype=bool)
    cross[0, 1, :] = cross[0, :, 1] = True
    return np.asarray(binary_dilation(region, cross) & ~region)


def _draw_bar(bar: Axes, scale: Scale, is_clipped: tuple[bool, bool]) -> None:
    """Draw the colour bar, with an arrow at the ends beyond which the map has values."""
    low = -scale.vmax if scale.two_sided else 0.0
    values = np.linspace(low, scale.vmax, 256)
    colours = scale.paint(values, np.full(256, _PAPER))
    bar.imshow(colours[:, None], aspect="auto", origin="lower", extent=(0.0, 1.0, low, scale.vmax))
    marks = scale.marks
    bar.set_yticks(marks, [number(mark) for mark in marks])
    bar.yaxis.tick_right()
    for mark in marks:
        if scale.threshold is not None and abs(mark) == scale.threshold:
            bar.axhline(mark, color="black", linewidth=1.2)
    for end, marker, there in ((low, "v", is_clipped[0]), (scale.vmax, "^", is_clipped[1])):
        if there:
            bar.plot([0.5], [end], marker=marker, markersize=9, color=DIVERGING(0.0 if end < 0 else 1.0), clip_on=False)
    bar.set_xlim(0, 1)
    bar.set_ylim(low, scale.vmax)

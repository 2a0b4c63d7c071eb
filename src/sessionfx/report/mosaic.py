"""Maps on anatomy: a row of axial cuts through chosen places, their colour bar beside them.

Everything is sampled in world coordinates (mm), so that maps, anatomy and oblique grids need no common grid; left is
drawn on the left. Statistical maps follow "highlight, don't hide" (Taylor et al. 2023, NeuroImage 274:120138): values
below the threshold are shown too, faintly, and regions beyond it are outlined. Outlines are black above zero and white
below, so that the sign can be told without colours.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sessionfx.report.nilearn_files import mni_template
from sessionfx.report.style import DIVERGING, DPI, Picture, as_pixels, as_webp, in_style
from sessionfx.space.grid import Grid
from sessionfx.wording import minus, number

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

N_CUTS = 7
MOST_OF_EFFECTS = 0.999  # of voxels that the scale of effects reaches: at edges single ones are huge
_CUTS_APART = 7.0  # mm
_MARGIN = 5.0  # mm around the mask at least
_WIDTH = 1010  # pixels of all cuts together
_LABEL = 24  # pixels under the cuts
_BAR = 112  # pixels for the colour bar and its numbers
_FAINT = 0.55  # the most of its colour that a value below the threshold has
_PAPER = np.float32(0.86)  # grey where there is no anatomy
_LINE = "#00B050"  # around a region of a map: in none of its colours


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
        return replace(self, threshold=threshold)

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
        self._world = np.stack(np.meshgrid(self.cuts, y, x, indexing="ij")[::-1])
        # the voxel at each pixel: its flat index, -1 outside the grid
        index = np.rint(self._indices(grid.affine)).astype(np.intp)
        is_on_grid = ((index >= 0) & (index < np.array(grid.shape)[:, None, None, None])).all(axis=0)
        self._voxels = np.where(is_on_grid, np.ravel_multi_index(tuple(index * is_on_grid), grid.shape), -1)
        self._height = rows + _LABEL  # of a picture (pixels)
        self._inside = self.sample(mask.astype(np.float32)) == 1
        if anatomy is None:
            self._under = np.where(self._inside, _PAPER, np.float32(1))
        else:
            grey = map_coordinates(anatomy.grey, self._indices(anatomy.affine), order=1, cval=1.0)
            self._under = grey.astype(np.float32)

    def _indices(self, affine: NDArray[np.float64]) -> FloatArray:
        """Find where each pixel lies in a volume: voxel indices, three axes first."""
        back = np.linalg.inv(affine)
        return np.asarray(np.tensordot(back[:3, :3], self._world, axes=1) + back[:3, 3][:, None, None, None])

    def sample(self, volume: FloatArray) -> FloatArray:
        """Take a volume on the grid at the pixels of the cuts: shape (cuts, rows, columns), NaN outside."""
        return np.where(self._voxels >= 0, np.asarray(volume).ravel()[self._voxels], np.nan)

    def draw_map(
        self, values: NDArray[Any], scale: Scale, alt: str, caption: str = "", *, outlined: BoolArray | None = None
    ) -> Picture:
        """Draw a statistical map, given on the grid (3-D; NaN is no value), with a line around a region of it."""
        shown = np.where(self._inside, self.sample(values), np.nan)
        pixels = scale.paint(shown, self._under)
        known = values[np.isfinite(values)]
        below, above = scale.two_sided and known.min(initial=0) < -scale.vmax, known.max(initial=0) > scale.vmax
        extend = ("neither", "max", "min", "both")[2 * below + above]
        if outlined is not None:
            pixels[_rim(self.sample(outlined.astype(np.float32)) == 1)] = to_rgb(_LINE)
        passing = scale.passes(shown)
        for region, colour in ((passing & (shown > 0), 0.0), (passing & (shown < 0), 1.0)):
            pixels[_rim(region)] = colour
        return self._compose(pixels, _colour_bar(self._height, scale, extend), alt, caption)

    def draw_regions(self, regions: Sequence[tuple[BoolArray, str]], alt: str, caption: str = "") -> Picture:
        """Draw regions (on the grid, 3-D) in flat colours, each with an outline of its own in grey too."""
        pixels = np.repeat(self._under[..., None], 3, axis=-1)
        anywhere = np.logical_or.reduce([region for region, _ in regions])
        outside = self.sample(anywhere.astype(np.float32)) != 1
        for (region, colour), outline in zip(regions, (None, 0.0, 1.0), strict=False):
            shown = self._inside & (self.sample(region.astype(np.float32)) == 1)
            pixels[shown] = to_rgb(colour)
            if outline is not None:
                pixels[_rim(shown) & outside] = outline
        return self._compose(pixels, np.full((self._height, _BAR, 3), 255, dtype=np.uint8), alt, caption)

    @cached_property
    def _labels(self) -> Pixels:
        """What stands under the cuts, in all pictures alike."""
        columns = self._world.shape[3]
        width = len(self.cuts) * columns
        with in_style():
            figure = Figure((width / DPI, _LABEL / DPI))
            places = {(n + 0.5) * columns: minus(f"z = {round(cut)}") for n, cut in enumerate(self.cuts)}
            for place, text in (places | {8: "L", columns - 8: "R"}).items():
                figure.text(place / width, 0.25, text, ha="center")
            return as_pixels(figure)

    def _compose(self, pixels: FloatArray, bar: Pixels, alt: str, caption: str) -> Picture:
        """Put the cuts side by side, with a colour bar at the right."""
        row = (np.clip(np.concatenate(list(pixels), axis=1), 0, 1) * 255).astype(np.uint8)
        return as_webp(np.hstack([np.vstack([row, self._labels]), bar]), alt, caption)


def _rim(region: BoolArray) -> BoolArray:
    """Find the pixels that touch a region of the cuts and are not in it."""
    padded = np.pad(region, ((0, 0), (1, 1), (1, 1)))
    beside = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
    return np.asarray(beside & ~region)


@lru_cache(maxsize=64)
def _colour_bar(height: int, scale: Scale, extend: str) -> Pixels:
    """Draw the colours of a scale, as high as maps (pixels), its unit above; arrows where maps have values beyond."""
    low = -scale.vmax if scale.two_sided else 0.0
    lines = textwrap.wrap(scale.unit, 15, max_lines=5) or [""]
    with in_style():
        figure = Figure((_BAR / DPI, height / DPI))
        figure.text(30 / _BAR, 1 - 4 / height, "\n".join(lines), size=8, va="top")
        room = height - _LABEL - 24 - 12 * len(lines)
        axes = figure.add_axes((34 / _BAR, (_LABEL + 8) / height, 14 / _BAR, max(room / height, 0.1)))
        colours = ListedColormap(scale.paint(np.linspace(low, scale.vmax, 256), np.full(256, _PAPER)))
        bar = figure.colorbar(ScalarMappable(Normalize(low, scale.vmax), colours), axes, extend=extend)
        bar.set_ticks(scale.marks, labels=[number(mark) for mark in scale.marks])
        if scale.threshold is not None and math.isfinite(scale.threshold):
            for side in (-1, 1) if scale.two_sided else (1,):
                axes.axhline(side * scale.threshold, color="black", linewidth=1.2)
        return as_pixels(figure)

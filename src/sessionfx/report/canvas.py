"""Maps on a picture of the brain: how values become colours, and the pixels at which features are seen.

Maps follow "highlight, don't hide" (Taylor et al. 2023, NeuroImage 274:120138): values below the threshold are shown
too, faintly, and regions beyond it are outlined. Outlines are black above zero and white below, so that the sign can be
told without colours.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sessionfx.report.style import DIVERGING, DPI, Picture, as_pixels, as_webp, in_style
from sessionfx.wording import format_number, minus

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

WIDTH = 1010  # pixels of a canvas
LABEL = 24  # pixels under what is labelled
PAPER = np.float32(0.86)  # grey where there is no anatomy
MAP_CAPTION = "Outlined: beyond the threshold, black above zero and white below; what is below the threshold is faint."
MOST_OF_EFFECTS = 0.999  # of features that the scale of effects reaches: at edges single ones are huge
_BAR = 112  # pixels for the colour bar and its numbers
_FAINT = 0.55  # the most of its colour that a value below the threshold has
_LINE = "#00B050"  # around a region of a map: in none of its colours


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How values become colours, up to `vmax` in size at the end of the colour bar."""

    vmax: float
    unit: str
    # On the size of values; those below are faint. None: all are shown alike. Infinite: no value passes.
    threshold: float | None = None
    two_sided: bool = True
    # Of the sizes of the map's values. Where no value passes, those as large are as little faint as values just below a
    # threshold; None: those at the end of the bar.
    largest: float | None = None

    @classmethod
    def of(
        cls, values: Sequence[FloatArray], unit: str, thresholds: Sequence[float] = (), *, two_sided: bool = True,
        share: float = 1.0,
    ) -> Scale:  # fmt: skip
        """Choose one scale for all maps that are compared: it reaches a share of their values and all thresholds."""
        sizes = [float(np.quantile(np.abs(found), share)) for found in values if found.size]
        finite = [threshold for threshold in thresholds if math.isfinite(threshold)]
        vmax = max([*sizes, *(1.05 * threshold for threshold in finite)], default=0.0)
        return cls(vmax=vmax if vmax > 0 else 1.0, unit=unit, two_sided=two_sided)

    def with_threshold(self, threshold: float, values: FloatArray) -> Scale:
        """Give the same colours with the threshold of a map that has these values."""
        largest = float((np.abs(values) if self.two_sided else values).max(initial=0.0))
        return replace(self, threshold=threshold, largest=largest if largest > 0 else None)

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
            limit = self.threshold if math.isfinite(self.threshold) else self.largest or self.vmax
            faint = _FAINT * np.minimum(np.abs(size) / limit, 1) ** 2
            opacity *= np.where(self.passes(values), 1, faint).astype(np.float32)
        under = np.asarray(under, dtype=np.float32)
        return np.asarray(under[..., None] + opacity[..., None] * (colours - under[..., None]))


@dataclass(frozen=True)
class Canvas:
    """A picture of the brain on which maps of a space are drawn."""

    # (rows, columns): the feature that is seen at each pixel, by its place in the flattened array; -1 where none is
    features: NDArray[np.intp]
    under: NDArray[np.float32]  # (rows, columns): grey levels under all maps, from 0 to 1
    form: str = ""  # what a reader should know of the views

    def labelled(self, texts: Sequence[tuple[float, str]]) -> Canvas:
        """Write under the picture, each text about a place (pixels from the left)."""
        width = self.under.shape[1]
        with in_style():
            figure = Figure((width / DPI, LABEL / DPI))
            for place, text in texts:
                figure.text(place / width, 0.25, minus(text), ha="center")
            strip = np.asarray(as_pixels(figure)[..., 0] / 255, dtype=np.float32)
        return joined([self, Canvas(np.full(strip.shape, -1), strip)], axis=0)

    def sample(self, values: NDArray[Any]) -> FloatArray:
        """Take an array of the space's shape at the pixels: NaN where no feature is seen."""
        return np.where(self.features >= 0, np.asarray(values).ravel()[self.features], np.nan)

    def draw_map(
        self, values: NDArray[Any], scale: Scale, alt: str, caption: str = "", *, outlined: BoolArray | None = None
    ) -> Picture:
        """Draw a statistical map of the space's shape (NaN is no value), with a line around a region of it."""
        shown = self.sample(values)
        pixels = scale.paint(shown, self.under)
        known = values[np.isfinite(values)]
        below, above = scale.two_sided and known.min(initial=0) < -scale.vmax, known.max(initial=0) > scale.vmax
        extend = ("neither", "max", "min", "both")[2 * below + above]
        if outlined is not None:
            pixels[_rim(self.sample(outlined) == 1)] = to_rgb(_LINE)
        passing = scale.passes(shown)
        for region, colour in ((passing & (shown > 0), 0.0), (passing & (shown < 0), 1.0)):
            pixels[_rim(region)] = colour
        return _beside(pixels, _colour_bar(len(pixels), scale, extend), alt, caption)

    def draw_regions(self, regions: Sequence[tuple[BoolArray, str]], alt: str) -> Picture:
        """Draw regions, of the space's shape, in flat colours, each with an outline of its own in grey too."""
        pixels = np.repeat(self.under[..., None], 3, axis=-1)
        outside = self.sample(np.logical_or.reduce([region for region, _ in regions])) != 1
        for (region, colour), outline in zip(regions, (None, 0.0, 1.0), strict=False):
            shown = self.sample(region) == 1
            pixels[shown] = to_rgb(colour)
            if outline is not None:
                pixels[_rim(shown) & outside] = outline
        return _beside(pixels, np.full((len(pixels), _BAR, 3), 255, dtype=np.uint8), alt)


def joined(parts: Sequence[Canvas], axis: int) -> Canvas:
    """Put pictures below each other (axis 0) or beside each other (1), each in the middle of the other axis."""
    across = max(part.under.shape[1 - axis] for part in parts)
    features, under = [], []
    for part in parts:
        before, rest = divmod(across - part.under.shape[1 - axis], 2)
        widths = np.roll([(before, before + rest), (0, 0)], 1 - axis, axis=0)
        features.append(np.pad(part.features, widths, constant_values=-1))
        under.append(np.pad(part.under, widths, constant_values=1))
    form = "".join(part.form for part in parts)
    return Canvas(np.concatenate(features, axis), np.concatenate(under, axis), form)


def _beside(pixels: FloatArray, bar: Pixels, alt: str, caption: str = "") -> Picture:
    """Put a colour bar at the right."""
    return as_webp(np.hstack([(np.clip(pixels, 0, 1) * 255).astype(np.uint8), bar]), alt, caption)


def _rim(region: BoolArray) -> BoolArray:
    """Find the pixels that touch a region and are not in it."""
    padded = np.pad(region, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.asarray(beside & ~region)


@lru_cache(maxsize=64)
def _colour_bar(height: int, scale: Scale, extend: str) -> Pixels:
    """Draw the colours of a scale, as high as maps (pixels), its unit above; arrows where maps have values beyond."""
    low = -scale.vmax if scale.two_sided else 0.0
    lines = textwrap.wrap(scale.unit, 15, max_lines=5) or [""]
    with in_style():
        figure = Figure((_BAR / DPI, height / DPI))
        figure.text(30 / _BAR, 1 - 4 / height, "\n".join(lines), size=8, va="top")
        room = height - LABEL - 24 - 12 * len(lines)
        axes = figure.add_axes((34 / _BAR, (LABEL + 8) / height, 14 / _BAR, max(room / height, 0.1)))
        colours = ListedColormap(scale.paint(np.linspace(low, scale.vmax, 256), np.full(256, PAPER)))
        bar = figure.colorbar(ScalarMappable(Normalize(low, scale.vmax), colours), axes, extend=extend)
        bar.set_ticks(scale.marks, labels=[format_number(mark) for mark in scale.marks])
        if scale.threshold is not None and math.isfinite(scale.threshold):
            for side in (-1, 1) if scale.two_sided else (1,):
                axes.axhline(side * scale.threshold, color="black", linewidth=1.2)
        return as_pixels(figure)

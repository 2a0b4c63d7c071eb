"""Colours of the pictures, and colour maps as tables of 256 colours; all keep their meaning in colour blindness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Colour = str
"""Red, green and blue in hexadecimal, ``"#0072B2"``."""

INK = "#222222"
"""Colour of text and of lines that must be seen."""

MUTED = "#6b6b6b"
"""Colour of secondary text and of frames."""

# Okabe & Ito's palette (https://jfly.uni-koeln.de/color/) without black, then Paul Tol's muted set.
CATEGORIES = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#332288",
    "#F0E442",
    "#882255",
    "#44AA99",
    "#999933",
    "#888888",
)
"""Colours of categories, in order of use."""

# ColorBrewer's RdBu (Brewer & Harrower, https://colorbrewer2.org), blue first
_BLUE_TO_RED = ("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
                "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f")  # fmt: skip

# Every sixteenth colour of viridis (Smith & van der Walt, CC0), light first
_YELLOW_TO_VIOLET = ("#fde725", "#d5e21a", "#aadc32", "#81d34d", "#5cc863", "#3dbc74", "#27ad81", "#1f9f88",
                     "#21918c", "#26828e", "#2c728e", "#33638d", "#3b528b", "#424086", "#472d7b", "#48186a",
                     "#440154")  # fmt: skip


def rgb(colour: Colour) -> NDArray[np.uint8]:
    """Read a colour, (3,) in 0–255."""
    return np.frombuffer(bytes.fromhex(colour.removeprefix("#")), dtype=np.uint8)


def colour_table(anchors: Sequence[Colour], start: float = 0.0, stop: float = 1.0) -> FloatArray:
    """Interpolate between colours evenly spaced from 0 to 1.

    Parameters
    ----------
    anchors : sequence of str
    start, stop : float, default: 0 and 1
        The part that is wanted.

    Returns
    -------
    numpy.ndarray, shape (256, 3)
        Red, green and blue in 0–1.
    """
    colours = np.array([rgb(anchor) for anchor in anchors]) / 255
    places = np.linspace(start, stop, 256) * (len(anchors) - 1)
    return np.stack([np.interp(places, np.arange(len(anchors)), column) for column in colours.T], axis=1)


def look_up(table: FloatArray, fractions: FloatArray) -> FloatArray:
    """Colours of fractions of a table's range, one axis more; what lies beyond 0–1 has the colour at the end."""
    index = np.clip(fractions * 256, 0, 255).astype(np.uint8)
    return table[index]


# Blue against red (unlike green against red) is told apart by everybody.
DIVERGING = colour_table(_BLUE_TO_RED)
"""Colours of signed quantities; the middle is zero."""

# Without the first, yellow part, which is hard to see on white; light to dark as counts grow.
DENSITY = colour_table(_YELLOW_TO_VIOLET, start=0.12)
"""Colours of counts per bin."""

COUNTS = colour_table(_YELLOW_TO_VIOLET, 0.05, 0.75)
"""Colours of numbers of inputs: full coverage, the usual case, is calm and dark; what is missing is bright."""

"""One style for all pictures: matplotlib's figures without pyplot, colours, and what becomes of a drawn figure.

Pyplot keeps a global list of figures, which leaks memory over hundreds of pictures and is not safe in threads. Text
from the data is never taken for a formula: a ``$`` is a dollar. Charts become SVG, which stays sharp and small; maps
become WebP.
"""

from __future__ import annotations

import base64
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from PIL import Image

DPI = 100
WIDTH = 9.6  # inches of the text column of a page
INK = "#222222"
MUTED = "#6b6b6b"

# Okabe & Ito's palette (https://jfly.uni-koeln.de/color/) without black, then Paul Tol's muted set, in order of use
CATEGORIES = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
    "#332288", "#F0E442", "#882255", "#44AA99", "#999933", "#888888",
)  # fmt: skip
DIVERGING = matplotlib.colormaps["RdBu_r"]  # of signed values: blue below zero, red above
SEQUENTIAL = matplotlib.colormaps["viridis_r"]  # of counts, light where they are few

_STYLE: Any = {
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.dpi": DPI,
    "font.size": 8.5,
    "legend.borderpad": 0.2,
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "legend.labelspacing": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "sessionfx",
    "text.parse_math": False,
}

_LOCK = threading.RLock()


@dataclass(frozen=True)
class Picture:
    """An image file of a kind (``svg+xml`` or ``webp``), and in words what it shows, for who cannot see it."""

    content: bytes
    kind: str
    alt: str
    caption: str = ""

    @property
    def source(self) -> Markup:
        """The picture as a data URI, so that a page is one file."""
        # Nothing in it needs escaping, and looking for it in megabytes takes time.
        return Markup(f"data:image/{self.kind};base64," + base64.b64encode(self.content).decode("ascii"))  # noqa: S704


@contextmanager
def in_style() -> Iterator[None]:
    """Make and draw figures as all pictures are, one thread at a time: settings are those of the process."""
    with _LOCK, warnings.catch_warnings(), matplotlib.rc_context(_STYLE):
        # the reader's own fonts write these characters
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def as_svg(figure: Any, alt: str, caption: str = "") -> Picture:
    """Turn a figure into SVG; equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # two digits of a path are a hundredth of a point, and a third of the file less
    content = re.sub(rb' d="[MLQCz\d\s.-]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), file.getvalue())
    return Picture(content, "svg+xml", alt, caption)


def as_pixels(figure: Any) -> NDArray[np.uint8]:
    """Draw a figure as pixels, shape (rows, columns, 3)."""
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has no types for it
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_webp(pixels: NDArray[np.uint8], alt: str, caption: str = "") -> Picture:
    """Turn pixels (rows, columns, 3) into WebP."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="webp", quality=82, method=2)
    return Picture(file.getvalue(), "webp", alt, caption)

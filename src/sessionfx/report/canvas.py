"""What pictures are drawn on: an array of pixels, with text, lines and axes.

A picture of a report is mostly an image (slices, matrices, densities) with a little text. Everything is drawn straight
into one array, which costs one or two hundredths of a second; a general plotting library spends about ten times that,
mostly on axes and ticks. Pillow draws the text, in DejaVu Sans, which comes with matplotlib and has Greek letters,
minus signs and accents.

Places are in pixels from the upper left corner, x to the right and y downwards. Text is written literally, whatever it
holds: nothing in it is markup.
"""

from __future__ import annotations

import math
import struct
import textwrap
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.report.colours import INK, MUTED, Colour, FloatArray, look_up, rgb
from sessionfx.wording import minus, number

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Pixels = NDArray[np.uint8]

WIDTH = 960
"""Usual width of a picture: the text column of the report."""

MAX_WIDTH = 1400
"""Largest width, for designs with many columns."""

FONT = 13.0
"""Size of axis labels."""

SMALL_FONT = 12.0
"""Size of tick labels and notes, the smallest text in a picture."""

TITLE_FONT = 15.0

MARGIN = 12
"""Space left around a picture."""

TICK = 4
"""Length of a tick."""

# Heights of capital letters and of what hangs below the line, in units of the font's size (DejaVu Sans)
_CAPITALS, _DESCENT = 0.73, 0.24
_FONTS = {
    (False, False): "DejaVuSans.ttf",
    (True, False): "DejaVuSans-Bold.ttf",
    (False, True): "DejaVuSans-Oblique.ttf",
}
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Canvas:
    """A white picture to draw on.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, shape (height, width, 3)
    """

    def __init__(self, width: float, height: float) -> None:
        self.pixels: Pixels = np.full((round(height), round(width), 3), 255, dtype=np.uint8)

    @property
    def width(self) -> int:
        """Number of columns of pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Number of rows of pixels."""
        return int(self.pixels.shape[0])

    def paste(self, picture: Pixels, left: float, top: float) -> None:
        """Put pixels, shape (rows, columns, 3), into the picture; what lies outside is cut off."""
        part, cut = self.overlap(picture.shape[:2], left, top)
        part[...] = picture[cut]

    def blend(self, opacity: FloatArray, left: float, top: float, colour: Colour) -> None:
        """Lay a colour over the picture, as opaque (0–1) as an array of shape (rows, columns) says."""
        part, cut = self.overlap(opacity.shape, left, top)
        amount = opacity[cut][..., None]
        part[...] = part + (rgb(colour).astype(np.float32) - part) * amount + 0.5

    def overlap(self, shape: Sequence[int], left: float, top: float) -> tuple[Pixels, tuple[slice, slice]]:
        """Find the part of the picture that an array covers, and the part of the array that lies on the picture."""
        places = []
        for start, size, end in ((round(top), shape[0], self.height), (round(left), shape[1], self.width)):
            first, last = min(max(start, 0), end), max(min(start + size, end), 0)
            places.append((slice(first, max(first, last)), slice(first - start, max(first, last) - start)))
        (rows, own_rows), (columns, own_columns) = places
        return self.pixels[rows, columns], (own_rows, own_columns)

    def fill(self, left: float, top: float, right: float, bottom: float, colour: Colour, opacity: float = 1.0) -> None:
        """Fill a rectangle, at least a pixel wide and high; what lies outside the picture is cut off."""
        rows, columns = max(round(bottom) - round(top), 1), max(round(right) - round(left), 1)
        part, _ = self.overlap((rows, columns), left, top)
        part[...] = rgb(colour) if opacity == 1 else part + (rgb(colour).astype(np.float32) - part) * opacity + 0.5

    def line(
        self, start: tuple[float, float], end: tuple[float, float], colour: Colour,
        width: float = 1.0, dash: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        """Draw a straight line with soft edges, solid or dashed (length and period of the dashes)."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        if not length:
            return
        reach = width / 2 + 1
        left, top = math.floor(min(x0, x1) - reach), math.floor(min(y0, y1) - reach)
        columns, rows = math.ceil(max(x0, x1) + reach) - left, math.ceil(max(y0, y1) + reach) - top
        # centres of pixels, along and across the line
        x = (np.arange(columns, dtype=np.float32) + (left + 0.5 - x0))[None]
        y = (np.arange(rows, dtype=np.float32) + (top + 0.5 - y0))[:, None]
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        along, across = x * dx + y * dy, np.abs(x * dy - y * dx)
        opacity = np.clip(width / 2 + 0.5 - across, 0, 1)
        opacity[(along < 0) | (along > length)] = 0
        if dash is not None:
            opacity[along % dash[1] > dash[0]] = 0
        self.blend(opacity, left, top, colour)

    def dots(self, x: FloatArray, y: FloatArray, colour: Colour, radius: float, opacity: float) -> None:
        """Draw dots with soft edges; where they overlap they are less transparent."""
        reach = math.ceil(radius)
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        shape = (self.height + 2 * reach, self.width + 2 * reach)
        inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        column, row, x, y = column[inside], row[inside], x[inside], y[inside]
        down, right = (offset.reshape(-1, 1) for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        distance = np.hypot(column + right + 0.5 - x, row + down + 0.5 - y)
        cover = opacity * np.clip(radius + 0.5 - distance, 0, 1)
        place = (row + down + reach) * shape[1] + column + right + reach
        # logarithm of what shines through all dots of a pixel
        passing = np.bincount(place.ravel(), np.log1p(-cover).ravel(), shape[0] * shape[1])
        self.blend(-np.expm1(passing).reshape(shape), -reach, -reach, colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = SMALL_FONT,
        colour: Colour = INK,
        bold: bool = False,
        italic: bool = False,
        across: str = "left",
        down: str = "centre",
        upright: bool = False,
    ) -> None:
        """Write a line of text.

        Parameters
        ----------
        x, y : float
            The place `across` and `down` speak of.
        text : str
        size : float, default: SMALL_FONT
        colour : str, default: INK
        bold, italic : bool, default: False
        across : {'left', 'centre', 'right'}, default: 'left'
            Which end of the text is at `x`.
        down : {'top', 'centre', 'bottom'}, default: 'centre'
            Which edge of its capital letters is at `y`.
        upright : bool, default: False
            Turn it to run upwards: `across` then speaks of its beginning (at the bottom) along `y`, and `down` of
            its upper edge (at the left) along `x`.
        """
        mask, bearing, rise = _text_mask(_printable(text), size, bold, italic)
        start = {"left": 0.0, "centre": -0.5, "right": -1.0}[across] * text_width(text, size, bold=bold)
        base = {"top": _CAPITALS, "centre": _CAPITALS / 2, "bottom": 0.0}[down] * size
        if upright:
            self.blend(np.rot90(mask), x + base - rise, y - start - bearing - mask.shape[1], colour)
        else:
            self.blend(mask, x + start + bearing, y + base - rise, colour)

    def header(self, title: str, note: str = "") -> None:
        """Write the title (at most two lines) and one line of smaller text below it."""
        y = 10.0
        for line in title_lines(title, self.width):
            self.text(MARGIN, y, line, size=TITLE_FONT, bold=True, down="top")
            y += 20
        self.text(MARGIN, y + 6, note, colour=MUTED, down="top")

    def to_png(self) -> bytes:
        """Encode the picture; equal pictures give equal bytes.

        Returns
        -------
        bytes
            PNG (ISO/IEC 15948) without any metadata. Every row is stored as its difference to the row above, which
            suits pictures that repeat rows.
        """
        from isal import isal_zlib

        rows = self.pixels.reshape(self.height, -1)
        filtered = np.empty((self.height, 1 + rows.shape[1]), dtype=np.uint8)
        filtered[:, 0] = 2  # "up"
        filtered[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        # ISA-L's level 0 is ten times as fast as zlib. Levels 1 and 2 pack better, but in one process of fifty they
        # make other bytes of the same pixels (compare github.com/intel/isa-l/issues/140).
        packed = isal_zlib.compress(filtered, 0)
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
        chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )


class Panel:
    """A rectangle of a picture with coordinates of its own, and ticks and labels around it.

    Parameters
    ----------
    canvas : Canvas
    left, top, width, height : float
        Of the rectangle; rounded to whole pixels.
    x_range, y_range : (float, float)
        Values at its left and right, and at its lower and upper edge.
    """

    def __init__(
        self, canvas: Canvas, left: float, top: float, width: float, height: float,
        x_range: tuple[float, float] = (0.0, 1.0), y_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        self.canvas = canvas
        self.left, self.top = round(left), round(top)
        self.width, self.height = max(round(width), 1), max(round(height), 1)
        self.x_range, self.y_range = x_range, y_range

    @property
    def right(self) -> int:
        """First column beyond the rectangle."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row below the rectangle."""
        return self.top + self.height

    def x(self, value: Any) -> Any:
        """Column of pixels, with fractions, of a value or of an array of them."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * self.width

    def y(self, value: Any) -> Any:
        """Row of pixels, with fractions, of a value or of an array of them."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * self.height

    def frame(self, sides: str = "left bottom right top") -> None:
        """Draw lines just outside the rectangle."""
        left, right, top, bottom = self.left - 1, self.right, self.top - 1, self.bottom
        lines = {"left": (left, top, left, bottom + 1), "right": (right, top, right, bottom + 1),
                 "top": (left, top, right + 1, top), "bottom": (left, bottom, right + 1, bottom)}  # fmt: skip
        for side in sides.split():
            self.canvas.fill(*lines[side], MUTED)

    def ticks_below(
        self, values: Sequence[float], label: str = "", texts: Sequence[str] | None = None, size: float = SMALL_FONT
    ) -> None:
        """Draw ticks with their values below the rectangle, and what they are."""
        for value, text in zip(values, texts or tick_texts(values), strict=True):
            x = min(self.x(value), self.right - 1)
            self.canvas.fill(x, self.bottom + 1, x + 1, self.bottom + 1 + TICK, MUTED)
            self.canvas.text(x + 0.5, self.bottom + TICK + 5, text, size=size, across="centre", down="top")
        y = self.bottom + TICK + 5 + size * 1.35
        self.canvas.text(self.left + self.width / 2, y, label, size=size + 1, across="centre", down="top")

    def ticks_left(
        self, values: Sequence[float], label: str = "", texts: Sequence[str] | None = None, size: float = SMALL_FONT,
        distance: float = 8,
    ) -> None:  # fmt: skip
        """Draw ticks with their values at the left of the rectangle, and what they are, `distance` beside them."""
        texts = list(texts or tick_texts(values))
        for value, text in zip(values, texts, strict=True):
            y = min(self.y(value), self.bottom - 1)
            self.canvas.fill(self.left - 1 - TICK, y, self.left - 1, y + 1, MUTED)
            self.canvas.text(self.left - TICK - 4, y + 0.5, text, size=size, across="right")
        x = self.left - TICK - 4 - max((text_width(text, size) for text in texts), default=0) - distance
        self.canvas.text(
            x, self.top + self.height / 2, label, size=size + 1, across="centre", down="bottom", upright=True
        )

    def ticks_right(
        self, values: Sequence[float], label: str = "", texts: Sequence[str] | None = None, size: float = SMALL_FONT
    ) -> None:
        """Draw ticks with their values at the right of the rectangle, and what they are."""
        texts = list(texts or tick_texts(values))
        for value, text in zip(values, texts, strict=True):
            y = min(self.y(value), self.bottom - 1)
            self.canvas.fill(self.right + 1, y, self.right + 1 + TICK, y + 1, MUTED)
            self.canvas.text(self.right + TICK + 5, y + 0.5, text, size=size)
        x = self.right + TICK + 5 + max((text_width(text, size) for text in texts), default=0) + 6
        self.canvas.text(x, self.top + self.height / 2, label, size=size + 1, across="centre", down="top", upright=True)

    def colour_bar(self, table: FloatArray) -> None:
        """Fill the rectangle with the colours of a table, its first one at the lower edge."""
        fractions = 1 - (np.arange(self.height) + 0.5) / self.height
        colours = to_bytes(look_up(table, fractions))
        self.canvas.paste(np.repeat(colours[:, None], self.width, axis=1), self.left, self.top)
        self.frame()


def message_png(title: str, message: str) -> bytes:
    """Draw a picture which says why there is nothing to show.

    Parameters
    ----------
    title, message : str
        Written literally.

    Returns
    -------
    bytes
        PNG.
    """
    canvas = Canvas(WIDTH, 160)
    canvas.header(title)
    canvas.text(WIDTH / 2, 96, message, size=TITLE_FONT, colour=MUTED, italic=True, across="centre")
    return canvas.to_png()


def header_height(title: str, width: float) -> int:
    """Height which `Canvas.header` needs on a picture of this width."""
    return 42 + 20 * len(title_lines(title, width))


def title_lines(title: str, width: float) -> list[str]:
    """Break a title into two lines at most."""
    return textwrap.wrap(title, width=int(width / 10), max_lines=2, placeholder=" …") or [""]


def round_ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Choose round numbers evenly spaced from `low` to `high`.

    Parameters
    ----------
    low, high : float
    most : int
        Largest number of steps between them.
    whole : bool, default: False
        Whether only whole numbers will do.

    Returns
    -------
    list of float
        Increasing; empty where no round number lies in a narrow range.
    """
    rough = (high - low) / max(most, 1)
    if not (math.isfinite(rough) and rough > 0):
        return []
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, round(step) if step != 2.5 else 5.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Write evenly spaced numbers with as many decimals as tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    size = max((abs(value) for value in values), default=0.0)
    if size >= 1e6 or (size and size < 1e-3):
        return [number(value) for value in values]
    decimals = next((n for n in range(6) if abs(step * 10**n - round(step * 10**n)) < 1e-6 * 10**n * step), 6)
    # Adding 0.0 turns −0.0 into 0.0.
    return [minus(f"{round(value, decimals) + 0.0:.{decimals}f}") for value in values]


def to_bytes(colours: FloatArray) -> Pixels:
    """Turn red, green and blue in 0–1 into 0–255."""
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def enlarge(picture: Pixels, width: int, height: int, *, smooth: bool = False) -> Pixels:
    """Draw a picture, shape (rows, columns, 3), on another number of pixels.

    Parameters
    ----------
    picture : numpy.ndarray of uint8
    width, height : int
    smooth : bool, default: False
        Blend neighbouring pixels; otherwise each pixel takes the colour of the nearest one.
    """
    if smooth:
        from PIL import Image

        resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.HAMMING)
        return np.asarray(resized)
    rows, columns = nearest(picture.shape[0], height), nearest(picture.shape[1], width)
    return picture[rows][:, columns]


def nearest(n_from: int, n_to: int) -> NDArray[np.int_]:
    """Which of `n_from` places in a row lie nearest to each of `n_to` places over the same length."""
    return ((np.arange(n_to) + 0.5) * n_from / n_to).astype(int)


def text_width(text: str, size: float = SMALL_FONT, *, bold: bool = False) -> float:
    """Length of a line of text in pixels."""
    return _font(size, bold, False).getlength(_printable(text)) if text else 0.0


def widest(texts: Sequence[str], size: float = SMALL_FONT, *, bold: bool = False) -> float:
    """Length of the longest of some lines of text in pixels."""
    return max((text_width(text, size, bold=bold) for text in texts), default=0.0)


@lru_cache(maxsize=64)
def _font(size: float, bold: bool, italic: bool) -> FreeTypeFont:
    from PIL import ImageFont

    package = find_spec("matplotlib")  # finds its files without importing it
    assert package is not None and package.origin is not None  # noqa: S101 - a dependency
    file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / _FONTS[bold, italic]
    # The simple engine is part of every Pillow; what another one is built with would change the bytes of pictures.
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1024)
def _text_mask(text: str, size: float, bold: bool, italic: bool) -> tuple[FloatArray, float, float]:
    """Draw a line of text.

    Returns
    -------
    mask : numpy.ndarray, shape (rows, columns)
        Opacity, 0–1.
    bearing, rise : float
        From the beginning of the text to the first column, and from the first row down to the base line.
    """
    from PIL import Image, ImageDraw

    font = _font(size, bold, italic)
    left, top, right, bottom = (int(place) for place in font.getbbox(text, anchor="ls"))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), dtype=np.float32), 0.0, 0.0
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font, anchor="ls")
    mask = np.asarray(image, dtype=np.float32) / 255
    mask.setflags(write=False)
    return mask, float(left), float(-top)


def _printable(text: str) -> str:
    """Replace what has no shape, line breaks included: a text is one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


Handle = Callable[[Canvas, float, float], None]
"""Draws the sample of a legend: canvas, left edge and middle."""

HANDLE_WIDTH = 26


class Legend:
    """Samples with their names, in columns along the lower edge of a picture."""

    def __init__(self, labels: Sequence[str], width: int = WIDTH) -> None:
        self.labels = list(labels)
        self._pitch = HANDLE_WIDTH + 8 + widest(self.labels) + 22
        self.columns = max(1, min(len(self.labels), int((width - 2 * MARGIN) / self._pitch)))
        self.rows = math.ceil(len(self.labels) / self.columns) if self.labels else 0

    @property
    def height(self) -> int:
        """Height of all rows."""
        return 20 * self.rows + 10 if self.labels else 0

    def draw(self, canvas: Canvas, handles: Sequence[Handle]) -> None:
        """Draw it, filling column after column."""
        for index, (label, handle) in enumerate(zip(self.labels, handles, strict=True)):
            column, row = divmod(index, self.rows)
            x, y = MARGIN + 6 + column * self._pitch, canvas.height - self.height + 20 * row + 10
            handle(canvas, x, y)
            canvas.text(x + HANDLE_WIDTH + 8, y, label)

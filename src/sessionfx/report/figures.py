"""Figures of matplotlib, for pictures of many marks and few pixels; the rest is drawn on `report.canvas`.

Matplotlib is used through its objects (`Figure` and the Agg canvas), never through pyplot: pyplot keeps
a global list of figures, which leaks memory over hundreds of pictures and is not safe in threads.
Positions are given in inches and no layout engine is used: solving a layout costs more than drawing it.

Text that comes from the data is always written with ``parse_math=False``: a ``$`` is a dollar, not the start of a
formula.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sessionfx.report.canvas import title_lines
from sessionfx.report.colours import INK, MUTED

DPI = 100
"""Dots per inch of every picture."""

WIDTH = 9.6
"""Usual figure width (inches): the text column of the report."""

FONT = 9.0
"""Size of axis labels (points)."""

SMALL_FONT = 8.5
"""Size of tick labels and notes (points), the smallest text in a picture."""


def new_figure(width: float, height: float) -> Figure:
    """Make an empty white figure with an Agg canvas.

    Parameters
    ----------
    width, height : float
        Size in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG; equal figures give equal bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure

    Returns
    -------
    bytes
        PNG without any metadata: the version of the drawing library would make equal pictures differ.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def axes_in_inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the lower left corner of the figure."""
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.tick_params(labelsize=SMALL_FONT, colors=INK, width=0.7, length=3)
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.7)
    return axes


def write(axes: Axes, x: float, y: float, text: str, **properties: Any) -> None:
    """Write text into axes literally, in the house style unless `properties` say otherwise."""
    axes.text(x, y, text, **{"fontsize": SMALL_FONT, "color": INK, "parse_math": False, **properties})


def header_height(title: str, width: float) -> float:
    """Height in inches which `write_header` needs on a figure `width` inches wide."""
    return 0.42 + 0.2 * len(title_lines(title, width * DPI))


def write_header(figure: Figure, title: str, note: str = "") -> None:
    """Write the title (at most two lines) and one line of smaller text below it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    title : str
        Written literally.
    note : str, default: ""
        One line of facts about the picture.
    """
    width, height = figure.get_size_inches()
    lines = title_lines(title, width * DPI)
    figure.text(
        0.12 / width,
        1 - 0.1 / height,
        "\n".join(lines),
        fontsize=11,
        fontweight="bold",
        color=INK,
        va="top",
        linespacing=1.15,
        parse_math=False,
    )
    if note:
        figure.text(
            0.12 / width,
            1 - (0.14 + 0.2 * len(lines)) / height,
            note,
            fontsize=SMALL_FONT,
            color=MUTED,
            va="top",
            parse_math=False,
        )

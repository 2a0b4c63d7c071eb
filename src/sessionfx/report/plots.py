"""Pictures of designs, events and agreement, and the drawing helpers every picture shares.

Every ``draw_*`` function takes arrays or tables and returns the bytes of a PNG.

Matplotlib is used through its objects (`Figure` and the Agg canvas), never through pyplot: pyplot keeps
a global list of figures, which leaks memory over hundreds of pictures and is not safe in threads.
Positions are given in inches and no layout engine is used: solving a layout costs more than drawing it.

Text that comes from the data (contrast names, run names) is always written with ``parse_math=False``:
a ``$`` in a trial type is a dollar, not the start of a formula.

Shapes: T rows (volumes or maps), P design columns, V voxels.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]

DPI = 100
"""Dots per inch of every picture."""

WIDTH = 9.6
"""Usual figure width (inches): the text column of the report."""

MAX_WIDTH = 14.0
"""Largest figure width (inches), for designs with many columns."""

FONT = 9.0
"""Size of axis labels (points)."""

SMALL_FONT = 8.5
"""Size of tick labels and notes (points), the smallest text in a picture."""

INK = "#222222"
"""Colour of text and of lines that must be seen."""

MUTED = "#6b6b6b"
"""Colour of secondary text and of frames."""

# Blue against red keeps its meaning in all common forms of colour blindness (unlike green against red).
DIVERGING: Colormap = colormaps["RdBu_r"]
"""Colour map of signed quantities; its middle is zero."""

# viridis without its last, yellow fifth, which is hard to see on white; light to dark as counts grow.
DENSITY: Colormap = LinearSegmentedColormap.from_list("density", colormaps["viridis_r"](np.linspace(0.12, 1, 256)))
"""Colour map of counts per bin."""

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

HATCHES = ("", "////", "....", "xxxx")
"""After the last colour the palette starts again with the next of these hatches."""

POINTS_LIMIT = 3000
"""Below this many voxels single points are readable, above it bins are."""

SHOWN_CORRELATIONS = 15
"""Up to this many columns a correlation matrix has room for its numbers."""

NAMED_ROWS = 60
"""Up to this many rows a design matrix names them."""

WIDEST_Z = 12.0
"""Histograms of z end here; beyond, one voxel would squeeze all others into a needle."""


# Shared by every picture --------------------------------------------------------------------------


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


def label_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """Write the names (with units) of the two axes literally."""
    axes.set_xlabel(x, fontsize=FONT, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=FONT, color=INK, parse_math=False)


def header_height(title: str, width: float) -> float:
    """Height in inches which `write_header` needs on a figure `width` inches wide."""
    return 0.42 + 0.2 * len(_title_lines(title, width))


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
    lines = _title_lines(title, width)
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


def message_png(title: str, message: str) -> bytes:
    """Draw a figure which says why there is nothing to show.

    Parameters
    ----------
    title, message : str
        Written literally.

    Returns
    -------
    bytes
        PNG.
    """
    figure = new_figure(WIDTH, 1.6)
    write_header(figure, title)
    figure.text(
        0.5,
        0.4,
        message,
        fontsize=11,
        color=MUTED,
        ha="center",
        va="center",
        style="italic",
        parse_math=False,
    )
    return figure_to_png(figure)


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Write a number for people: `digits` significant digits, a true minus sign, ``n/a`` for NaN."""
    if math.isnan(value):
        return "n/a"
    return f"{value:{'+' if signed else ''}.{digits}g}".replace("-", "−")


def shorten(name: str, limit: int) -> str:
    """Cut the middle out of names longer than `limit` characters: beginnings and ends tell names apart."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def _title_lines(title: str, width: float) -> list[str]:
    return textwrap.wrap(title, width=int(width * 10), max_lines=2, placeholder=" …") or [""]


def _text_inches(names: Sequence[str], fontsize: float) -> float:
    """Estimate the length of the longest name; 0.6 em is the mean width of DejaVu Sans."""
    return max((len(name) for name in names), default=0) * 0.6 * fontsize / 72


def _add_legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> None:
    # Labels are set after the fact: matplotlib would drop those which start with "_" and parse "$".
    legend = axes.legend(handles, [" "] * len(handles), fontsize=SMALL_FONT, **options)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False, color=INK)


def _legend_columns(labels: Sequence[str]) -> int:
    return max(1, int((WIDTH - 0.4) / (_text_inches(labels, SMALL_FONT) + 0.65)))


def _legend_height(labels: Sequence[str]) -> float:
    """Height in inches which `_legend_below` needs."""
    return 0.2 * math.ceil(len(labels) / _legend_columns(labels)) + 0.1 if labels else 0.0


def _legend_below(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend along the lower edge of the figure."""
    _add_legend(
        axes,
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.015, 0.0),
        bbox_transform=axes.figure.transFigure,
        ncols=_legend_columns(labels),
        frameon=False,
        handlelength=2.0,
        columnspacing=1.4,
        borderaxespad=0.1,
    )


def _thousands(value: float) -> str:
    """Write a whole number with its digits in groups of three."""
    return f"{value:,.0f}".replace(",", " ")


def _vertical_scale(axes: Axes, colours: Colormap, low: float, high: float, label: str) -> None:
    """Draw a linear colour bar into narrow axes (a gradient image: far cheaper than a Colorbar)."""
    axes.imshow(
        np.linspace(0, 1, 256)[:, None],
        cmap=colours,
        vmin=0,
        vmax=1,
        extent=(0, 1, low, high),
        origin="lower",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    label_axes(axes, y=label)


# Designs ------------------------------------------------------------------------------------------


def draw_design_matrix(
    matrix: pd.DataFrame, *, title: str, row_label: str, condition_columns: Sequence[str] = ()
) -> bytes:
    """Draw a design matrix as a heat map.

    Parameters
    ----------
    matrix : pandas.DataFrame, shape (T, P)
        Rows are volumes (or the maps of a group design), columns regressors. Each column is divided by
        its largest absolute value for display. When the index holds strings and T ≤ 60 the rows are named.
    title : str
    row_label : str
        What a row is, e.g. ``"volume"``.
    condition_columns : sequence of str, default: ()
        Columns of interest; their names are bold and are the last to be left out for lack of room.

    Returns
    -------
    bytes
        PNG.
    """
    n_rows, n_columns = matrix.shape
    if not matrix.size:
        return message_png(title, "empty design")
    names = [shorten(str(name), 32) for name in matrix.columns]
    row_names = [shorten(str(name), 40) for name in matrix.index] if _rows_are_named(matrix) else []

    left = 0.5 + max(_text_inches(row_names, SMALL_FONT), 0.4)
    right = 1.25
    width = float(np.clip(left + right + 0.3 * n_columns, WIDTH, MAX_WIDTH))
    # A figure wider than the page is shrunk by the browser: its labels start larger.
    fontsize = SMALL_FONT * width / WIDTH
    bottom = 0.2 + _text_inches(names, fontsize)
    top = header_height(title, width)
    height = float(np.clip(0.21 * n_rows, 1.2, 12.6)) if row_names else float(np.clip(0.02 * n_rows, 2.6, 4.6))
    # A few columns stretched over the full width would look like a flag.
    panel = min(width - left - right, max(1.1 * n_columns, 1.5))

    figure = new_figure(width, bottom + height + top)
    write_header(figure, title, f"{n_rows} rows × {n_columns} columns")
    axes = axes_in_inches(figure, left, bottom, panel, height)
    axes.imshow(
        _extremes_of_row_blocks(_scaled_columns(matrix), n_blocks=int(height * DPI)),
        cmap=DIVERGING,
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, n_columns - 0.5, n_rows - 0.5, -0.5),
    )
    axes.vlines(np.arange(0.5, n_columns - 1), -0.5, n_rows - 0.5, color="white", linewidth=0.6)
    emphasised = [str(name) in set(condition_columns) for name in matrix.columns]
    shown = _columns_with_room(n_columns, panel, fontsize, emphasised)
    _name_columns(axes, {i: names[i] for i in shown}, fontsize, emphasised)
    if row_names:
        _name_rows(axes, dict(enumerate(row_names)))
        axes.hlines(np.arange(0.5, n_rows - 1), -0.5, n_columns - 0.5, color="white", linewidth=0.6)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=fontsize)
    label_axes(axes, y=row_label)
    axes.yaxis.set_label_coords((0.32 - left) / panel, 0.5)
    bar_height = min(height, 3.0)
    bar = axes_in_inches(figure, left + panel + 0.2, bottom + height - bar_height, 0.16, bar_height)
    _vertical_scale(bar, DIVERGING, -1, 1, "regressor / its max |x|")
    for scaled in (axes.yaxis.label, bar.yaxis.label):
        scaled.set_fontsize(FONT * width / WIDTH)
    bar.tick_params(labelsize=fontsize)
    return figure_to_png(figure)


def draw_design_correlation(matrix: pd.DataFrame, *, title: str) -> bytes:
    """Draw the Pearson correlations between the columns of a design.

    Parameters
    ----------
    matrix : pandas.DataFrame, shape (T, P)
        Design; constant columns have no correlation and are left out (the figure says how many).
    title : str

    Returns
    -------
    bytes
        PNG.
    """
    varying = matrix.loc[:, _varies(matrix.to_numpy(dtype=float))]
    n_columns = varying.shape[1]
    if n_columns == 0:
        return message_png(title, "no column varies")
    correlation = varying.astype(float).replace([np.inf, -np.inf], np.nan).corr().to_numpy()
    names = [shorten(str(name), 32) for name in varying.columns]

    text = _text_inches(names, SMALL_FONT)
    side = float(np.clip(0.45 * n_columns, 1.4, 7.0))
    left, bottom, right = max(text + 0.3, 0.6), text + 0.3, 1.2
    width = max(left + side + right, WIDTH)
    top = header_height(title, width)
    figure = new_figure(width, bottom + side + top)
    n_constant = matrix.shape[1] - n_columns
    note = f"Pearson correlation of {n_columns} columns"
    write_header(figure, title, note + (f"; {n_constant} constant left out" if n_constant else ""))
    axes = axes_in_inches(figure, left, bottom, side, side)
    axes.set_facecolor("#dddddd")
    axes.imshow(correlation, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    shown = {i: names[i] for i in _columns_with_room(n_columns, side, SMALL_FONT)}
    _name_columns(axes, shown, SMALL_FONT)
    _name_rows(axes, shown)
    if n_columns <= SHOWN_CORRELATIONS:
        _write_cells(axes, correlation)
    bar_height = min(side, 3.0)
    bar = axes_in_inches(figure, left + side + 0.2, bottom + side - bar_height, 0.16, bar_height)
    _vertical_scale(bar, DIVERGING, -1, 1, "Pearson r")
    return figure_to_png(figure)


def _varies(x: FloatArray) -> NDArray[np.bool_]:
    """Which columns (P,) of x (T, P) take at least two finite values."""
    finite = np.where(np.isfinite(x), x, np.nan)
    return np.fmax.reduce(finite, axis=0, initial=-np.inf) > np.fmin.reduce(finite, axis=0, initial=np.inf)


def _rows_are_named(matrix: pd.DataFrame) -> bool:
    return len(matrix) <= NAMED_ROWS and all(isinstance(name, str) for name in matrix.index)


def _scaled_columns(matrix: pd.DataFrame) -> FloatArray:
    """Divide each column by its largest |x|; columns of zeros stay zero."""
    x = matrix.to_numpy(dtype=float)
    largest = np.fmax.reduce(np.abs(np.where(np.isfinite(x), x, 0.0)), axis=0)
    return x / np.where(largest > 0, largest, 1.0)


def _extremes_of_row_blocks(x: FloatArray, n_blocks: int) -> FloatArray:
    """Reduce rows to at most `n_blocks`, keeping in each block the value farthest from zero.

    Dropping or averaging rows would lose regressors which mark one single volume.
    """
    n_rows = len(x)
    if n_rows <= n_blocks:
        return x
    starts = (np.arange(n_blocks) * n_rows) // n_blocks
    high, low = np.fmax.reduceat(x, starts, axis=0), np.fmin.reduceat(x, starts, axis=0)
    return np.where(high >= -low, high, low)


def _columns_with_room(n_columns: int, panel: float, fontsize: float, emphasised: Sequence[bool] = ()) -> list[int]:
    """Choose the columns whose upright names fit side by side on `panel` inches, emphasised ones first."""
    spacing = 1.25 * fontsize / 72 / (panel / n_columns)
    candidates = [i for i, first in enumerate(emphasised) if first]
    candidates += range(0, n_columns, max(1, math.ceil(spacing)))
    kept: list[int] = []
    for candidate in candidates:
        if all(abs(candidate - other) >= spacing for other in kept):
            kept.append(candidate)
    return sorted(set(kept))


# Names are plain text rather than tick labels: a tick costs several times as much as its text.


def _name_columns(axes: Axes, names: Mapping[int, str], fontsize: float, emphasised: Sequence[bool] = ()) -> None:
    axes.set_xticks([])
    below = axes.get_xaxis_transform() + ScaledTranslation(0, -0.06, axes.figure.dpi_scale_trans)
    for i, name in names.items():
        weight = "bold" if emphasised and emphasised[i] else "normal"
        style = {"rotation": 90, "ha": "center", "va": "top", "fontsize": fontsize, "fontweight": weight}
        write(axes, i, 0, name, transform=below, **style)


def _name_rows(axes: Axes, names: Mapping[int, str]) -> None:
    axes.set_yticks([])
    beside = axes.get_yaxis_transform() + ScaledTranslation(-0.07, 0, axes.figure.dpi_scale_trans)
    for i, name in names.items():
        write(axes, 0, i, name, transform=beside, ha="right", va="center")


def _write_cells(axes: Axes, correlation: FloatArray) -> None:
    """Write the lower triangle: the matrix is symmetric, and its diagonal is 1."""
    for row, column in np.argwhere(np.tri(len(correlation), k=-1)).tolist():
        r = float(correlation[row, column])
        # Adding 0.0 turns −0.0 into 0.0.
        text = "n/a" if np.isnan(r) else f"{round(r, 2) + 0.0:.2f}".replace("0.", ".", 1).replace("-", "−")
        colour = "white" if abs(r) > 0.6 else INK
        write(axes, column, row, text, ha="center", va="center", color=colour)


# Events -------------------------------------------------------------------------------------------


def draw_events(events: Mapping[str, pd.DataFrame], *, title: str, run_seconds: Mapping[str, float]) -> bytes:
    """Draw when the events of each run happen.

    Parameters
    ----------
    events : mapping of str to pandas.DataFrame
        Per run name: ``onset`` (s), ``duration`` (s) and ``trial_type``. Missing or zero durations are
        drawn as hairlines; a missing trial type is called ``n/a``.
    title : str
    run_seconds : mapping of str to float
        Length of each run (s). The grey band shows the scanned time and ends in a black bar: events
        beyond it were never measured.

    Returns
    -------
    bytes
        PNG.
    """
    if not events:
        return message_png(title, "no runs")
    tables = {run: _clean_events(table) for run, table in events.items()}
    # In alphabetical order, so that a type keeps its colour in the pictures of all sessions.
    types = sorted({str(name) for table in tables.values() for name in table["trial_type"]})
    lengths = {run: float(run_seconds.get(run, np.nan)) for run in events}
    ends = [float((table["onset"] + table["duration"]).max()) for table in tables.values() if len(table)]
    last = max([1.0, *(x for x in [*lengths.values(), *ends] if math.isfinite(x))])
    first = min([0.0, *(float(table["onset"].min()) for table in tables.values() if len(table))])

    run_names = [shorten(run, 40) for run in events]
    left, right, row_height = 0.35 + _text_inches(run_names, SMALL_FONT), 0.25, 0.34
    labels = [shorten(name, 32) for name in types]
    bottom, height = 0.55 + _legend_height(labels), row_height * len(events) + 0.1
    n_events = sum(len(table) for table in tables.values())

    figure = new_figure(WIDTH, bottom + height + header_height(title, WIDTH))
    write_header(figure, title, f"{n_events} events in {len(events)} runs" if n_events else "no events")
    axes = axes_in_inches(figure, left, bottom, WIDTH - left - right, height)
    for row, run in enumerate(events):
        _draw_run(axes, row, tables[run], lengths[run], types, hairline=(last - first) * 0.0015)
    axes.set(xlim=(first, last * 1.01), ylim=(len(events) - 0.5, -0.5))
    _name_rows(axes, dict(enumerate(run_names)))
    axes.spines[["top", "right", "left"]].set_visible(False)
    label_axes(axes, x="time (s)")
    if types:
        _legend_below(axes, [Patch(**_event_style(i)) for i in range(len(types))], labels)
    return figure_to_png(figure)


def _clean_events(table: pd.DataFrame) -> pd.DataFrame:
    """Keep events with a known onset; unknown durations become 0 s and unknown types ``n/a``."""
    n_events = len(table)
    clean = pd.DataFrame(
        {
            "onset": pd.to_numeric(table.get("onset", pd.Series(np.nan, table.index)), errors="coerce"),
            "duration": pd.to_numeric(table.get("duration", pd.Series(0.0, table.index)), errors="coerce"),
            "trial_type": table.get("trial_type", pd.Series(["n/a"] * n_events, table.index, dtype=object)),
        }
    )
    clean["duration"] = clean["duration"].where(np.isfinite(clean["duration"]), 0.0)
    clean["trial_type"] = clean["trial_type"].astype(object).where(clean["trial_type"].notna(), "n/a").astype(str)
    return clean[np.isfinite(clean["onset"])]


def _event_style(index: int) -> dict[str, Any]:
    hatch = HATCHES[(index // len(CATEGORIES)) % len(HATCHES)]
    return {
        "facecolor": CATEGORIES[index % len(CATEGORIES)],
        "edgecolor": "white" if hatch else "none",
        "hatch": hatch or None,
        "linewidth": 0,
    }


def _draw_run(
    axes: Axes, row: int, table: pd.DataFrame, seconds: float, types: Sequence[str], *, hairline: float
) -> None:
    if math.isfinite(seconds):
        axes.broken_barh([(0, seconds)], (row - 0.4, 0.8), facecolor="#efefef")
        axes.vlines(seconds, row - 0.42, row + 0.42, color=INK, linewidth=1.8)
    for name, group in table.groupby("trial_type", sort=False):
        widths = np.maximum(group["duration"].to_numpy(dtype=float), hairline)
        bars = list(zip(group["onset"].to_numpy(dtype=float), widths, strict=True))
        axes.broken_barh(bars, (row - 0.32, 0.64), **_event_style(types.index(str(name))))


# Agreement ----------------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Voxel values of two maps (V,), finite in both."""

    a: FloatArray
    b: FloatArray


def draw_comparison(
    a: ArrayLike,
    b: ArrayLike,
    *,
    label_a: str,
    label_b: str,
    unit: str,
    agreement: Mapping[str, float],
    thresholds: tuple[float | None, float | None] = (None, None),
) -> bytes:
    """Draw two maps against each other: scatter, and differences against means (Bland & Altman 1986).

    Parameters
    ----------
    a, b : array_like, shape (V,)
        The two maps over the same voxels, in `unit`. Voxels not finite in both are left out.
    label_a, label_b : str
        Names of the two maps.
    unit : str
        Unit of the values, e.g. ``"z"``.
    agreement : mapping of str to float
        ``pearson_r``, ``concordance``, ``bias``, ``loa_lower``, ``loa_upper`` (bias ± 1.96 SD of a − b),
        ``dice``, ``max_abs_difference``. They are drawn as given, so that figure and tables agree;
        absent or NaN values read ``n/a``.
    thresholds : tuple of (float or None), default: (None, None)
        Significance threshold of each map, marked at ± its value.

    Returns
    -------
    bytes
        PNG.
    """
    title = f"a: {label_a}   against   b: {label_b}"
    pairs = _finite_pairs(a, b)
    if not len(pairs.a):
        return message_png(title, "no voxel is finite in both maps")
    figure = new_figure(10.0, 4.9)
    largest = number(float(agreement.get("max_abs_difference", np.nan)))
    write_header(figure, title, f"{_thousands(len(pairs.a))} voxels; largest |a − b| {largest} {unit}")
    left = axes_in_inches(figure, 0.75, 0.6, 3.55, 3.4)
    right = axes_in_inches(figure, 5.1, 0.6, 3.0, 3.4)
    _draw_scatter(left, pairs, thresholds)
    label_axes(left, f"a: {shorten(label_a, 36)} ({unit})", f"b: {shorten(label_b, 36)} ({unit})")
    facts = [("Pearson r", "pearson_r"), ("concordance", "concordance"), ("Dice", "dice")]
    text = "\n".join(f"{name} {number(float(agreement.get(key, np.nan)))}" for name, key in facts)
    write(left, 0.97, 0.03, text, transform=left.transAxes, ha="right", va="bottom", linespacing=1.4)
    _draw_differences(right, pairs, agreement)
    label_axes(right, f"mean of a and b ({unit})", f"difference a − b ({unit})")
    for axes, name in ((left, "Image comparison"), (right, "Bland–Altman")):
        axes.set_title(name, fontsize=10, color=INK, loc="left", pad=6)
    _scale_counts(figure, [left, right])
    return figure_to_png(figure)


def draw_distribution(z_by_label: Mapping[str, ArrayLike], *, title: str) -> bytes:
    """Draw histograms of z against the standard normal curve.

    Parameters
    ----------
    z_by_label : mapping of str to array_like, shape (V,)
        Finite z values count; values beyond ±12 fall outside the picture (the figure says how many).
    title : str

    Returns
    -------
    bytes
        PNG.
    """
    samples = {label: _finite(z) for label, z in z_by_label.items()}
    if not any(len(z) for z in samples.values()):
        return message_png(title, "no finite z value")
    largest = max(float(np.abs(z).max()) for z in samples.values() if len(z))
    limit = float(np.clip(1.05 * largest, 4.5, WIDEST_Z))
    edges = np.linspace(-limit, limit, 91)
    outside = sum(int((np.abs(z) > limit).sum()) for z in samples.values())

    labels = [
        f"{shorten(label, 44)} (mean {_fixed(z, np.mean)}, SD {_fixed(z, np.std)})" for label, z in samples.items()
    ]
    labels.append("standard normal")
    bottom, height = 0.6 + _legend_height(labels), 3.0
    figure = new_figure(WIDTH, bottom + height + header_height(title, WIDTH))
    note = "without any effect, and with a correct model, z follows the normal curve"
    write_header(figure, title, note + (f"; {outside} values beyond ±{limit:g} not shown" if outside else ""))
    axes = axes_in_inches(figure, 0.75, bottom, WIDTH - 1.0, height)
    z_axis = np.linspace(-limit, limit, 401)
    normal = np.exp(-(z_axis**2) / 2) / math.sqrt(2 * math.pi)
    band = axes.fill_between(z_axis, normal, color="#dcdcdc", linewidth=0)
    handles: list[Any] = []
    for index, z in enumerate(samples.values()):
        style = {
            "color": CATEGORIES[index % len(CATEGORIES)],
            "linestyle": _line_style(index),
            "linewidth": 1.6,
        }
        axes.stairs(_density(z, edges), edges, **style)
        handles.append(Line2D([], [], **style))
    axes.set(xlim=(-limit, limit), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    label_axes(axes, "z", "density (1 / z)")
    _legend_below(axes, [*handles, band], labels)
    return figure_to_png(figure)


def _finite(values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=float).ravel()
    return array[np.isfinite(array)]


def _finite_pairs(a: ArrayLike, b: ArrayLike) -> _Pairs:
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    both = np.isfinite(first) & np.isfinite(second)
    return _Pairs(first[both], second[both])


def _limits(values: FloatArray, smallest_span: float) -> tuple[float, float]:
    """Range of `values` with a margin of 4 %, at least `smallest_span` wide."""
    low, high = float(values.min()), float(values.max())
    half = max(0.54 * (high - low), smallest_span / 2)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _draw_cloud(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    """Draw points when they are few, and counts in hexagons (log scale) when they are many.

    The limits of the axes must be set before: the hexagons tile them.
    """
    if len(x) < POINTS_LIMIT:
        axes.scatter(x, y, s=7, color=CATEGORIES[0], alpha=0.45, linewidths=0)
        return
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    axes.hexbin(x, y, gridsize=64, extent=(x_low, x_high, y_low, y_high), mincnt=1, cmap=DENSITY, linewidths=0.2)


def _draw_scatter(axes: Axes, pairs: _Pairs, thresholds: tuple[float | None, float | None]) -> None:
    both = np.concatenate(pairs)
    low, high = _limits(both, smallest_span=1e-6 + 0.02 * float(np.abs(both).max()))
    axes.set(xlim=(low, high), ylim=(low, high))
    _draw_cloud(axes, pairs.a, pairs.b)
    handles = [axes.plot([low, high], [low, high], color=MUTED, linewidth=1.1, linestyle=(0, (5, 2)))[0]]
    labels = ["identity"]
    spread = float(pairs.a.std())
    if spread > 1e-9 * float(np.abs(pairs.a).max()):
        slope = float(((pairs.a - pairs.a.mean()) * (pairs.b - pairs.b.mean())).mean()) / spread**2
        line = np.array([pairs.a.min(), pairs.a.max()])
        handles += axes.plot(line, pairs.b.mean() + slope * (line - pairs.a.mean()), color=CATEGORIES[5], linewidth=1.6)
        labels.append(f"least squares, slope {number(slope)}")
    for threshold, draw_line in zip(thresholds, (axes.axvline, axes.axhline), strict=True):
        for mark in _inside(threshold, low, high):
            draw_line(mark, color=INK, linewidth=0.7, linestyle=(0, (2, 2)))
    if any(_inside(threshold, low, high) for threshold in thresholds):
        handles.append(Line2D([], [], color=INK, linewidth=0.7, linestyle=(0, (2, 2))))
        labels.append("thresholds")
    _add_legend(axes, handles, labels, loc="upper left", framealpha=0.85, edgecolor="none", handlelength=2.2)


def _inside(threshold: float | None, low: float, high: float) -> list[float]:
    """List the marks ± `threshold` inside the picture (none for an absent or infinite threshold)."""
    if threshold is None or not math.isfinite(threshold):
        return []
    return [mark for mark in sorted({-threshold, threshold}) if low < mark < high]


def _draw_differences(axes: Axes, pairs: _Pairs, agreement: Mapping[str, float]) -> None:
    mean, difference = (pairs.a + pairs.b) / 2, pairs.a - pairs.b
    lines = {
        name: float(agreement.get(key, np.nan))
        for name, key in (("+1.96 SD", "loa_upper"), ("bias", "bias"), ("−1.96 SD", "loa_lower"))
    }
    known = {name: value for name, value in lines.items() if math.isfinite(value)}
    # Identical maps differ by 0 everywhere; a band of 2 % of the values keeps the line in the middle.
    size = float(np.abs(mean).max())
    axes.set_xlim(_limits(mean, smallest_span=1e-6 + 0.02 * size))
    axes.set_ylim(_limits(np.array([*difference, 0.0, *known.values()]), smallest_span=1e-6 + 0.02 * size))
    _draw_cloud(axes, mean, difference)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    for name, value in known.items():
        axes.axhline(value, color=CATEGORIES[5], linewidth=1.5, linestyle="-" if name == "bias" else (0, (5, 2)))
    texts = [f"{name}\n{number(value, signed=value != 0)}" for name, value in lines.items()]
    heights = [lines[name] if name in known else lines["bias"] for name in lines]
    for text, place in zip(texts, _spread(axes, heights, distance=0.1), strict=True):
        write(axes, 1.02, place, text, transform=axes.transAxes, va="center", color="#a84400", linespacing=1.05)


def _spread(axes: Axes, heights: Sequence[float], distance: float) -> list[float]:
    """Place three labels (top, middle, bottom) at heights of the data, but never on each other.

    Returns heights as fractions of the axes.
    """
    low, high = axes.get_ylim()
    upper, middle, lower = ((h - low) / (high - low) if math.isfinite(h) else 0.5 for h in heights)
    middle = min(max(middle, 1.5 * distance), 1 - 1.5 * distance)
    return [max(upper, middle + distance), middle, min(lower, middle - distance)]


def _scale_counts(figure: Figure, panels: Sequence[Axes]) -> None:
    """Give the hexagons of all panels one logarithmic colour scale, and draw its bar."""
    clouds = [collection for axes in panels for collection in axes.collections if collection.get_cmap() is DENSITY]
    if not clouds:
        return
    largest = max(2.0, *(float(np.max(np.asarray(cloud.get_array()))) for cloud in clouds))
    norm = LogNorm(1, largest)
    for cloud in clouds:
        cloud.set_norm(norm)
    axes = axes_in_inches(figure, 9.0, 0.6, 0.16, 3.4)
    _vertical_scale(axes, DENSITY, 0, math.log10(largest), "voxels")
    counts = [10**power for power in range(math.floor(math.log10(largest)) + 1)]
    if largest > 2 * counts[-1]:
        counts.append(int(largest))
    axes.set_yticks(np.log10(counts), [_thousands(count) for count in counts])


def _density(z: FloatArray, edges: FloatArray) -> FloatArray:
    """Share of `z` per bin and unit of z (values outside `edges` count as voxels but are in no bin)."""
    counts = np.histogram(z, edges)[0]
    return counts / (max(len(z), 1) * np.diff(edges))


def _fixed(z: FloatArray, statistic: Any) -> str:
    return f"{statistic(z):.2f}".replace("-", "−") if len(z) else "n/a"


def _line_style(index: int) -> Any:
    return ("-", (0, (4, 1.5)), (0, (1.5, 1)))[index % 3]

"""Pictures of designs, events and agreement.

Every ``draw_*`` function takes arrays or tables and returns the bytes of a PNG.

Shapes: T rows (volumes or maps), P design columns, V voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sessionfx.report.canvas import (
    FONT,
    HANDLE_WIDTH,
    MAX_WIDTH,
    SMALL_FONT,
    WIDTH,
    Canvas,
    Handle,
    Legend,
    Panel,
    Pixels,
    enlarge,
    header_height,
    message_png,
    round_ticks,
    to_bytes,
    widest,
)
from sessionfx.report.colours import CATEGORIES, DENSITY, DIVERGING, INK, MUTED, FloatArray, look_up, rgb
from sessionfx.wording import minus, number, shorten

HATCHES = ("", "////", "....", "xxxx")
"""After the last colour the palette starts again with the next of these hatches."""

POINTS_LIMIT = 3000
"""Below this many voxels single points are readable, above it bins are."""

BIN = 4
"""Side of the bins of voxels (pixels)."""

SHOWN_CORRELATIONS = 15
"""Up to this many columns a correlation matrix has room for its numbers."""

NAMED_ROWS = 60
"""Up to this many rows a design matrix names them."""

WIDEST_Z = 12.0
"""Histograms of z end here; beyond, one voxel would squeeze all others into a needle."""

BAR_WIDTH = 16
ACCENT = "#a84400"
"""Colour of the numbers beside lines of the same hue."""


def _thousands(value: float) -> str:
    """Write a whole number with its digits in groups of three."""
    return f"{value:,.0f}".replace(",", " ")


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
    emphasised = [str(name) in set(condition_columns) for name in matrix.columns]
    row_names = [shorten(str(name), 40) for name in matrix.index] if _rows_are_named(matrix) else []

    left = 50 + max(widest(row_names), 40.0)
    right = 125
    width = float(np.clip(left + right + 30 * n_columns, WIDTH, MAX_WIDTH))
    # A picture wider than the page is shrunk by the browser: its labels start larger.
    fontsize = SMALL_FONT * width / WIDTH
    bottom = 20 + widest(names, fontsize, bold=any(emphasised))
    top = header_height(title, width)
    height = float(np.clip(21 * n_rows, 120, 1260)) if row_names else float(np.clip(2 * n_rows, 260, 460))
    # A few columns stretched over the full width would look like a flag.
    panel_width = min(width - left - right, max(110 * n_columns, 150))

    canvas = Canvas(width, top + height + bottom)
    canvas.header(title, f"{n_rows} rows × {n_columns} columns")
    panel = Panel(
        canvas=canvas, left=left, top=top, width=panel_width, height=height, x_range=(0, n_columns), y_range=(n_rows, 0)
    )
    shown = _extremes_of_row_blocks(_scaled_columns(matrix), n_blocks=panel.height)
    canvas.paste(enlarge(_signed_colours(shown), panel.width, panel.height), panel.left, panel.top)
    for column in range(1, n_columns):
        canvas.fill(panel.x(column), panel.top, panel.x(column) + 1, panel.bottom, "#ffffff")
    _name_columns(
        panel,
        {i: names[i] for i in _columns_with_room(n_columns, panel.width, fontsize, emphasised)},
        fontsize,
        emphasised,
    )
    if row_names:
        _name_rows(panel, dict(enumerate(row_names)))
        for row in range(1, n_rows):
            canvas.fill(panel.left, panel.y(row), panel.right, panel.y(row) + 1, "#ffffff")
        canvas.text(22, panel.top + panel.height / 2, row_label, size=FONT, across="centre", upright=True)
    else:
        centres = Panel(
            canvas=canvas,
            left=left,
            top=top,
            width=panel_width,
            height=height,
            x_range=(0, 1),
            y_range=(n_rows - 0.5, -0.5),
        )
        ticks = round_ticks(0, n_rows - 1, 6, whole=True)
        centres.ticks_left(ticks or [0.0], row_label, size=fontsize, distance=8)
    panel.frame()
    _draw_correlation_bar(panel, "regressor / its max |x|", fontsize)
    return canvas.to_png()


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

    text = widest(names)
    side = float(np.clip(45 * n_columns, 140, 700))
    left, right = max(text + 30, 60.0), 120
    width = max(left + side + right, WIDTH)
    top = header_height(title, width)
    canvas = Canvas(width, top + side + text + 30)
    n_constant = matrix.shape[1] - n_columns
    note = f"Pearson correlation of {n_columns} columns"
    canvas.header(title, note + (f"; {n_constant} constant left out" if n_constant else ""))
    panel = Panel(
        canvas=canvas, left=left, top=top, width=side, height=side, x_range=(0, n_columns), y_range=(n_columns, 0)
    )
    colours = _signed_colours(correlation)
    colours[np.isnan(correlation)] = rgb("#dddddd")
    canvas.paste(enlarge(colours, panel.width, panel.height), panel.left, panel.top)
    panel.frame()
    shown = {i: names[i] for i in _columns_with_room(n_columns, panel.width, SMALL_FONT)}
    _name_columns(panel, shown, SMALL_FONT)
    _name_rows(panel, shown)
    if n_columns <= SHOWN_CORRELATIONS:
        _write_cells(panel, correlation)
    _draw_correlation_bar(panel, "Pearson r", SMALL_FONT)
    return canvas.to_png()


def _signed_colours(values: FloatArray) -> Pixels:
    """Colours (…, 3) of values from −1 to 1; white where there is none."""
    colours = to_bytes(look_up(DIVERGING, np.where(np.isfinite(values), values, 0.0) / 2 + 0.5))
    colours[~np.isfinite(values)] = 255
    return colours


def _draw_correlation_bar(panel: Panel, label: str, fontsize: float) -> None:
    bar = Panel(
        canvas=panel.canvas,
        left=panel.right + 20,
        top=panel.top,
        width=BAR_WIDTH,
        height=min(panel.height, 300),
        x_range=(0, 1),
        y_range=(-1, 1),
    )
    bar.colour_bar(DIVERGING)
    bar.ticks_right(round_ticks(-1, 1, 5), label, size=fontsize)


def _varies(x: FloatArray) -> NDArray[np.bool_]:
    """Which columns (P,) of x (T, P) take at least two finite values."""
    finite = np.where(np.isfinite(x), x, np.nan)
    return np.asarray(np.fmax.reduce(finite, axis=0, initial=-np.inf) > np.fmin.reduce(finite, axis=0, initial=np.inf))


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
    """Choose the columns whose upright names fit side by side on `panel` pixels, emphasised ones first."""
    spacing = 1.25 * fontsize / (panel / n_columns)
    candidates = [i for i, first in enumerate(emphasised) if first]
    candidates += range(0, n_columns, max(1, math.ceil(spacing)))
    kept: list[int] = []
    for candidate in candidates:
        if all(abs(candidate - other) >= spacing for other in kept):
            kept.append(candidate)
    return sorted(set(kept))


def _name_columns(panel: Panel, names: Mapping[int, str], fontsize: float, emphasised: Sequence[bool] = ()) -> None:
    for i, name in names.items():
        x, y, bold = panel.x(i + 0.5), panel.bottom + 7, bool(emphasised and emphasised[i])
        panel.canvas.text(x, y, name, size=fontsize, bold=bold, across="right", upright=True)


def _name_rows(panel: Panel, names: Mapping[int, str]) -> None:
    for i, name in names.items():
        panel.canvas.text(panel.left - 8, panel.y(i + 0.5), name, across="right")


def _write_cells(panel: Panel, correlation: FloatArray) -> None:
    """Write the lower triangle: the matrix is symmetric, and its diagonal is 1."""
    for row, column in np.argwhere(np.tri(len(correlation), k=-1)).tolist():
        r = float(correlation[row, column])
        # Adding 0.0 turns −0.0 into 0.0.
        text = "n/a" if np.isnan(r) else minus(f"{round(r, 2) + 0.0:.2f}".replace("0.", ".", 1))
        colour = "#ffffff" if abs(r) > 0.6 else INK
        panel.canvas.text(panel.x(column + 0.5), panel.y(row + 0.5), text, across="centre", colour=colour)


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
    left, row_height = 35 + widest(run_names), 34
    legend = Legend([shorten(name, 32) for name in types])
    height, top = row_height * len(events) + 10, header_height(title, WIDTH)
    n_events = sum(len(table) for table in tables.values())

    canvas = Canvas(WIDTH, top + height + 50 + legend.height)
    canvas.header(title, f"{n_events} events in {len(events)} runs" if n_events else "no events")
    panel = Panel(
        canvas=canvas,
        left=left,
        top=top,
        width=WIDTH - left - 25,
        height=height,
        x_range=(first, last * 1.01),
        y_range=(len(events), 0),
    )
    order = {name: index for index, name in enumerate(types)}
    for row, run in enumerate(events):
        _draw_run(panel, row, tables[run], lengths[run], order)
    _name_rows(panel, dict(enumerate(run_names)))
    panel.frame("bottom")
    panel.ticks_below(round_ticks(first, last * 1.01, 10), "time (s)")
    legend.draw(canvas, [_event_handle(index) for index in range(len(types))])
    return canvas.to_png()


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
    timed: pd.DataFrame = clean[np.isfinite(clean["onset"])]
    return timed


def _event_style(index: int) -> dict[str, str]:
    """Colour and hatch of a trial type."""
    hatch = HATCHES[(index // len(CATEGORIES)) % len(HATCHES)]
    return {"colour": CATEGORIES[index % len(CATEGORIES)], "hatch": hatch}


def _fill_event(canvas: Canvas, left: float, top: float, right: float, bottom: float, index: int) -> None:
    """Draw one event, at least a pixel wide."""
    style = _event_style(index)
    canvas.fill(left, top, right, bottom, style["colour"])
    if style["hatch"]:
        rows, columns = np.indices((round(bottom) - round(top), max(round(right) - round(left), 1)))
        rising, falling = (rows + columns) % 6 == 0, (rows - columns) % 6 == 0
        pattern = {"////": rising, "xxxx": rising | falling, "....": (rows % 4 < 2) & (columns % 4 < 2)}
        canvas.blend(pattern[style["hatch"]].astype(float), round(left), round(top), "#ffffff")


def _event_handle(index: int) -> Handle:
    return lambda canvas, x, y: _fill_event(canvas, x, y - 4, x + HANDLE_WIDTH, y + 4, index)


def _draw_run(panel: Panel, row: int, table: pd.DataFrame, seconds: float, order: Mapping[str, int]) -> None:
    canvas = panel.canvas
    top, bottom = panel.y(row + 0.18), panel.y(row + 0.82)
    if math.isfinite(seconds):
        canvas.fill(panel.x(0), panel.y(row + 0.1), panel.x(seconds), panel.y(row + 0.9), "#efefef")
    left, right = panel.x(table["onset"].to_numpy(float)), panel.x((table["onset"] + table["duration"]).to_numpy(float))
    for start, end, name in zip(left.tolist(), right.tolist(), table["trial_type"], strict=True):
        _fill_event(canvas, start, top, end, bottom, order[str(name)])
    if math.isfinite(seconds):
        canvas.fill(panel.x(seconds) - 1, panel.y(row + 0.08), panel.x(seconds) + 1, panel.y(row + 0.92), INK)


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
    canvas = Canvas(1000, 490)
    largest = number(float(agreement.get("max_abs_difference", np.nan)))
    canvas.header(title, f"{_thousands(len(pairs.a))} voxels; largest |a − b| {largest} {unit}")
    values, differences = _compared_values(pairs), _compared_differences(pairs, agreement)
    left = Panel(canvas, 75, 90, 355, 340, *values.ranges)
    right = Panel(canvas, 510, 90, 300, 340, *differences.ranges)
    _draw_clouds([(left, values), (right, differences)])
    _draw_scatter(left, pairs, thresholds)
    _draw_differences(right, agreement)
    _finish(left, "Image comparison", f"a: {shorten(label_a, 36)} ({unit})", f"b: {shorten(label_b, 36)} ({unit})")
    _finish(right, "Bland–Altman", f"mean of a and b ({unit})", f"difference a − b ({unit})")
    facts = [("Pearson r", "pearson_r"), ("concordance", "concordance"), ("Dice", "dice")]
    for row, (name, key) in enumerate(reversed(facts)):
        text = f"{name} {number(float(agreement.get(key, np.nan)))}"
        canvas.text(left.right - 10, left.bottom - 10 - 17 * row, text, across="right", down="bottom")
    return canvas.to_png()


def _finish(panel: Panel, name: str, x_label: str, y_label: str) -> None:
    """Write what a panel shows, and what its axes are."""
    panel.canvas.text(panel.left, panel.top - 8, name, size=FONT + 1, down="bottom")
    panel.frame()
    panel.ticks_below(round_ticks(*panel.x_range, 7), x_label)
    panel.ticks_left(round_ticks(*panel.y_range, 8), y_label)


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
    legend = Legend([*labels, "standard normal"])
    top = header_height(title, WIDTH)
    canvas = Canvas(WIDTH, top + 300 + 55 + legend.height)
    note = "without any effect, and with a correct model, z follows the normal curve"
    canvas.header(title, note + (f"; {outside} values beyond ±{limit:g} not shown" if outside else ""))
    densities = [_density(z, edges) for z in samples.values()]
    highest = 1.05 * max(1 / math.sqrt(2 * math.pi), *(float(density.max()) for density in densities))
    panel = Panel(
        canvas=canvas, left=75, top=top, width=WIDTH - 100, height=300, x_range=(-limit, limit), y_range=(0, highest)
    )
    _fill_normal_curve(panel)
    handles: list[Handle] = []
    for index, density in enumerate(densities):
        _draw_steps(panel, density, *_line_style(index))
        handles.append(_line_handle(*_line_style(index)))
    panel.frame("left bottom")
    panel.ticks_below(round_ticks(-limit, limit, 9), "z")
    panel.ticks_left(round_ticks(0, highest, 9), "density (1 / z)")
    band: Handle = lambda canvas, x, y: canvas.fill(x, y - 4, x + HANDLE_WIDTH, y + 4, BAND)  # noqa: E731
    legend.draw(canvas, [*handles, band])
    return canvas.to_png()


BAND = "#dcdcdc"
"""Colour of the area under the normal curve."""


def _fill_normal_curve(panel: Panel) -> None:
    low, high = panel.x_range
    z = low + (np.arange(panel.width) + 0.5) / panel.width * (high - low)
    heights = panel.height / panel.y_range[1] * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    from_below = panel.height - 0.5 - np.arange(panel.height)[:, None]
    panel.canvas.blend(np.clip(heights - from_below + 0.5, 0, 1), panel.left, panel.top, BAND)


def _draw_steps(panel: Panel, density: FloatArray, colour: str, dash: tuple[float, float] | None) -> None:
    """Draw a histogram over the whole width as a line of steps, two pixels wide."""
    edges = np.rint(np.linspace(0, panel.width - 1, len(density) + 1)).astype(int)
    levels = np.clip(np.rint(panel.height * (1 - density / panel.y_range[1])), 0, panel.height).astype(int) - 1
    columns, rows = [], []
    for bin_number, level in enumerate(levels.tolist()):
        if bin_number:
            before = int(levels[bin_number - 1])
            rise = np.arange(before, level, 1 if level > before else -1)
            columns.append(np.full(len(rise), edges[bin_number]))
            rows.append(rise)
        run = np.arange(edges[bin_number], edges[bin_number + 1])
        columns.append(run)
        rows.append(np.full(len(run), level))
    x, y = np.concatenate(columns), np.concatenate(rows)
    if dash is not None:
        on = np.arange(len(x)) % dash[1] < dash[0]
        x, y = x[on], y[on]
    for right in (0, 1):
        for down in (0, 1):
            panel.canvas.pixels[np.maximum(panel.top + y + down, 0), panel.left + x + right] = rgb(colour)


def _line_handle(colour: str, dash: tuple[float, float] | None, width: float = 2.0) -> Handle:
    return lambda canvas, x, y: canvas.line((x, y), (x + HANDLE_WIDTH, y), colour, width, dash)


def _finite(values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=float).ravel()
    return np.asarray(array[np.isfinite(array)])


def _finite_pairs(a: ArrayLike, b: ArrayLike) -> _Pairs:
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    both = np.isfinite(first) & np.isfinite(second)
    return _Pairs(first[both], second[both])


def _limits(values: FloatArray, smallest_span: float) -> tuple[float, float]:
    """Range of `values` with a margin of 4 %, at least `smallest_span` wide."""
    low, high = float(values.min()), float(values.max())
    half = max(0.54 * (high - low), smallest_span / 2)
    return (low + high) / 2 - half, (low + high) / 2 + half


class _Cloud(NamedTuple):
    """Points of V voxels, and the ranges of the axes they are drawn on."""

    x: FloatArray
    y: FloatArray
    ranges: tuple[tuple[float, float], tuple[float, float]]


def _compared_values(pairs: _Pairs) -> _Cloud:
    both = np.concatenate(pairs)
    limits = _limits(both, smallest_span=1e-6 + 0.02 * float(np.abs(both).max()))
    return _Cloud(pairs.a, pairs.b, (limits, limits))


def _compared_differences(pairs: _Pairs, agreement: Mapping[str, float]) -> _Cloud:
    mean, difference = (pairs.a + pairs.b) / 2, pairs.a - pairs.b
    lines = [line for line in _agreement_lines(agreement).values() if math.isfinite(line)]
    # Identical maps differ by 0 everywhere; a band of 2 % of the values keeps the line in the middle.
    span = 1e-6 + 0.02 * float(np.abs(mean).max())
    heights = np.array([difference.min(), difference.max(), 0.0, *lines])
    return _Cloud(mean, difference, (_limits(mean, span), _limits(heights, span)))


def _agreement_lines(agreement: Mapping[str, float]) -> dict[str, float]:
    keys = {"+1.96 SD": "loa_upper", "bias": "bias", "−1.96 SD": "loa_lower"}
    return {name: float(agreement.get(key, np.nan)) for name, key in keys.items()}


def _draw_clouds(clouds: Sequence[tuple[Panel, _Cloud]]) -> None:
    """Draw points when they are few, and when they are many counts in bins, in one logarithmic scale of colours."""
    if len(clouds[0][1].x) < POINTS_LIMIT:
        for panel, cloud in clouds:
            panel.canvas.dots(panel.x(cloud.x), panel.y(cloud.y), CATEGORIES[0], radius=1.8, opacity=0.45)
        return
    counted = [_counts(panel, cloud) for panel, cloud in clouds]
    largest = max(2, *(int(counts.max()) for counts in counted))
    for (panel, _), counts in zip(clouds, counted, strict=True):
        colours = to_bytes(look_up(DENSITY, np.log(np.maximum(counts, 1)) / math.log(largest)))
        colours[counts == 0] = 255
        enlarged = np.repeat(np.repeat(colours, BIN, axis=0), BIN, axis=1)[: panel.height, : panel.width]
        panel.canvas.paste(enlarged, panel.left, panel.top)
    _draw_count_bar(clouds[0][0].canvas, largest)


def _counts(panel: Panel, cloud: _Cloud) -> NDArray[np.int_]:
    """Count the voxels in square bins of the panel, rows from above."""
    n_rows, n_columns = math.ceil(panel.height / BIN), math.ceil(panel.width / BIN)
    (x_low, x_high), (y_low, y_high) = cloud.ranges
    # Single precision is a thousandth of a pixel, and twice as fast.
    x, y = cloud.x.astype(np.float32), cloud.y.astype(np.float32)
    column = ((x - np.float32(x_low)) * np.float32(panel.width / (x_high - x_low) / BIN)).astype(np.int32)
    row = ((np.float32(y_high) - y) * np.float32(panel.height / (y_high - y_low) / BIN)).astype(np.int32)
    np.clip(column, 0, n_columns - 1, out=column)
    np.clip(row, 0, n_rows - 1, out=row)
    return np.bincount(row * n_columns + column, minlength=n_rows * n_columns).reshape(n_rows, n_columns)


def _draw_count_bar(canvas: Canvas, largest: int) -> None:
    powers = math.log10(largest)
    bar = Panel(canvas=canvas, left=900, top=90, width=BAR_WIDTH, height=340, x_range=(0, 1), y_range=(0, powers))
    bar.colour_bar(DENSITY)
    counts = [10**power for power in range(math.floor(powers) + 1)]
    if largest > 2 * counts[-1]:
        counts.append(largest)
    bar.ticks_right([math.log10(count) for count in counts], "voxels", [_thousands(count) for count in counts])


def _draw_scatter(panel: Panel, pairs: _Pairs, thresholds: tuple[float | None, float | None]) -> None:
    """Draw identity, least squares and thresholds, and say which is which."""
    canvas = panel.canvas
    low, high = panel.x_range
    entries: list[tuple[str, Handle]] = [("identity", _line_handle(MUTED, (7, 10), 1.5))]
    canvas.line((panel.x(low), panel.y(low)), (panel.x(high), panel.y(high)), MUTED, 1.5, (7, 10))
    for threshold, is_upright in zip(thresholds, (True, False), strict=True):
        for mark in _inside(threshold, low, high):
            _dotted(panel, mark, is_upright)
    spread = float(pairs.a.std())
    if spread > 1e-9 * float(np.abs(pairs.a).max()):
        slope = float(((pairs.a - pairs.a.mean()) * (pairs.b - pairs.b.mean())).mean()) / spread**2
        start, end = (
            (panel.x(a), panel.y(pairs.b.mean() + slope * (a - pairs.a.mean())))
            for a in (float(pairs.a.min()), float(pairs.a.max()))
        )
        canvas.line(start, end, CATEGORIES[5], 2.2)
        entries.append((f"least squares, slope {number(slope)}", _line_handle(CATEGORIES[5], None, 2.2)))
    if any(_inside(threshold, low, high) for threshold in thresholds):
        entries.append(("thresholds", _line_handle(INK, (2, 4), 1.0)))
    width = HANDLE_WIDTH + 20 + widest([label for label, _ in entries])
    canvas.fill(
        panel.left + 5, panel.top + 5, panel.left + 5 + width, panel.top + 10 + 19 * len(entries), "#ffffff", 0.85
    )
    for row, (label, handle) in enumerate(entries):
        y = panel.top + 17.5 + 19 * row
        handle(canvas, panel.left + 11, y)
        canvas.text(panel.left + 11 + HANDLE_WIDTH + 8, y, label)


def _inside(threshold: float | None, low: float, high: float) -> list[float]:
    """List the marks ± `threshold` inside the picture (none for an absent or infinite threshold)."""
    if threshold is None or not math.isfinite(threshold):
        return []
    return [mark for mark in sorted({-threshold, threshold}) if low < mark < high]


def _dotted(panel: Panel, mark: float, is_upright: bool) -> None:
    if is_upright:
        x = math.floor(panel.x(mark)) + 0.5
        panel.canvas.line((x, panel.top), (x, panel.bottom), INK, 1.0, (2, 4))
    else:
        y = math.floor(panel.y(mark)) + 0.5
        panel.canvas.line((panel.left, y), (panel.right, y), INK, 1.0, (2, 4))


def _draw_differences(panel: Panel, agreement: Mapping[str, float]) -> None:
    """Draw bias and limits of agreement, and write their values beside the panel."""
    lines = _agreement_lines(agreement)

    def across(value: float, colour: str, width: float, dash: tuple[float, float] | None = None) -> None:
        panel.canvas.line((panel.left, panel.y(value)), (panel.right, panel.y(value)), colour, width, dash)

    across(0.0, MUTED, 1.0)
    for name, value in lines.items():
        if math.isfinite(value):
            across(value, CATEGORIES[5], 2.0, None if name == "bias" else (7, 10))
    heights = [panel.y(value) if math.isfinite(value) else math.nan for value in lines.values()]
    bias = heights[1]
    places = _spread([bias if math.isnan(y) else y for y in heights], panel.top, panel.bottom, distance=34)
    for (name, value), y in zip(lines.items(), places, strict=True):
        for line, text in enumerate((name, number(value, signed=value != 0))):
            panel.canvas.text(panel.right + 6, y - 7 + 14 * line, text, colour=ACCENT)


def _spread(heights: Sequence[float], top: float, bottom: float, distance: float) -> list[float]:
    """Place three labels (upper, middle, lower) at rows of pixels, but never on each other."""
    upper, middle, lower = ((top + bottom) / 2 if math.isnan(y) else y for y in heights)
    middle = min(max(middle, top + 1.5 * distance), bottom - 1.5 * distance)
    return [min(upper, middle - distance), middle, max(lower, middle + distance)]


def _density(z: FloatArray, edges: FloatArray) -> FloatArray:
    """Share of `z` per bin and unit of z (values outside `edges`, evenly spaced, count as voxels but are in no bin)."""
    counts = np.histogram(z, len(edges) - 1, (edges[0], edges[-1]))[0]
    return counts / (max(len(z), 1) * np.diff(edges))


def _fixed(z: FloatArray, statistic: Callable[[FloatArray], float]) -> str:
    return minus(f"{statistic(z):.2f}") if len(z) else "n/a"


def _line_style(index: int) -> tuple[str, tuple[float, float] | None]:
    """Colour and dash of a histogram."""
    return CATEGORIES[index % len(CATEGORIES)], (None, (9.0, 12.0), (3.0, 5.0))[index % 3]

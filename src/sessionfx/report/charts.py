"""Charts: designs, events, agreement of maps, distributions, effects of sessions, participants beside each other.

Every ``draw_*`` function takes arrays or tables and returns SVG, with pixels inside where marks are many. Places are in
inches, because solving a layout costs more than drawing it; ticks, which cost most, are few.

Shapes: T rows (volumes or maps), P design columns, V voxels, N participants, S sessions.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from sessionfx.report.style import CATEGORIES, INK, MUTED, SEQUENTIAL, WIDTH, Picture, as_svg, in_style, new_figure
from sessionfx.statistics.agreement import Agreement
from sessionfx.wording import counted, minus, number, printable, shorten

FloatArray = NDArray[np.float64]

ACCENT = "#B2182B"  # of estimates and of what stands out, which are also larger or of another shape
BAND = "#E8E8E8"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MOST_LANES = 24  # of types of events; the last lane has all others
SVG_MARKS = 400  # more become pixels: as legible, and the file ten times smaller
POINTS_LIMIT = 3000  # of voxels; above it counts in bins are readable
NUMBERS_LIMIT = 15  # of columns, for whose correlations there is room in numbers
NAMED_ROWS = 60
CELLS = 30_000  # of a design matrix that become pixels
WIDEST_Z = 12.0  # beyond, one voxel would squeeze the histogram of all others into a needle
OUTLYING = 3.5  # robust z (Iglewicz & Hoaglin 1993)


# What all charts are made of ----------------------------------------------------------------------


def plain(text: object, limit: int = 200) -> str:
    """Make one line of a text from the data, without what no XML may hold, and cut its middle if it is long."""
    return shorten(" ".join(printable(str(text)).split()), limit)


def sheet(title: str, width: float, height: float, note: str = "") -> Figure:
    """Make a figure with `height` inches under its title, which takes two lines at most, and a line of facts."""
    lines = textwrap.wrap(plain(title), int(10.5 * width), max_lines=2, placeholder=" …") or [""]
    total = height + 0.2 + 0.19 * len(lines) + (0.17 if note else 0)
    figure = new_figure(width, total)
    figure.text(0.06 / width, 1 - 0.06 / total, "\n".join(lines), fontsize=10, weight="bold", va="top")
    figure.text(0.06 / width, 1 - (0.1 + 0.19 * len(lines)) / total, note, color=MUTED, fontsize=8.5, va="top")
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def message(title: str, text: str) -> Picture:
    """Make a picture that says why there is nothing to see."""
    figure = sheet(title, 6.0, 0.7)
    figure.text(0.5, 0.3, text, color=MUTED, style="italic", ha="center", va="center")
    return as_svg(figure, f"{plain(title)}: {text}")


def widest(texts: Iterable[str], weight: str = "normal") -> float:
    """Find how wide the widest of some small texts is (inches)."""
    return max((_text_width(text, weight) for text in texts), default=0.0)


@lru_cache(maxsize=1024)
def _text_width(text: str, weight: str) -> float:
    font = FontProperties(size=8.5, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0]) / 72


def name(axes: Axes, names: Mapping[Any, str], *, below: bool = False, away: float = 0.07, **look: Any) -> None:
    """Write names `away` inches left of rows, or upright below columns: texts cost a fifth of ticks."""
    figure: Any = axes.figure
    bold = look.pop("bold", ())
    shift = ScaledTranslation(0.0 if below else -away, -away if below else 0.0, figure.dpi_scale_trans)
    if below:
        look = {"rotation": 90, "ha": "center", "va": "top", **look}
    look = {"fontsize": 8.5, "ha": "right", "va": "center", **look}
    place_of = (axes.get_xaxis_transform() if below else axes.get_yaxis_transform()) + shift
    for at, text in names.items():
        weight = "bold" if at in bold else "normal"
        axes.text(at if below else 0, 0 if below else at, text, weight=weight, transform=place_of, **look)


def _with_room(n_columns: int, width: float, first: Sequence[int] = ()) -> list[int]:
    """Choose the columns whose upright names fit side by side on `width` inches, some of them first."""
    spacing = 0.15 * n_columns / width
    kept: list[int] = []
    for candidate in (*first, *range(0, n_columns, max(1, math.ceil(spacing)))):
        if all(abs(candidate - other) >= spacing for other in kept):
            kept.append(candidate)
    return sorted(kept)


def _limits(values: ArrayLike, smallest_span: float) -> tuple[float, float]:
    """Range of `values` with a margin of 4 %, at least `smallest_span` wide."""
    low, high = float(np.min(values)), float(np.max(values))
    half = max(0.54 * (high - low), smallest_span / 2)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _bins(values: FloatArray, limits: tuple[float, float], n_bins: int) -> NDArray[np.int32]:
    """Find each value's bin, from 1; what lies outside is in bin 0 or n + 1. Faster than numpy's histograms."""
    # single precision is a thousandth of a pixel, and twice as fast
    places = (values.astype(np.float32) - np.float32(limits[0])) * np.float32(n_bins / (limits[1] - limits[0])) + 1
    return np.asarray(np.clip(places, 0, n_bins + 1), dtype=np.int32)


def _finite(matrix: pd.DataFrame) -> FloatArray:
    values = matrix.to_numpy(dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _two_digits(value: float) -> str:
    """Write two digits after the point; adding 0.0 turns −0.0 into 0.0."""
    return "n/a" if math.isnan(value) else minus(f"{round(value, 2) + 0.0:.2f}")


def _heat_map(axes: Axes, values: FloatArray, colours: str) -> None:
    """Show values from −1 to 1, rows from above; what is missing is orange."""
    map_ = matplotlib.colormaps[colours].with_extremes(bad=CATEGORIES[1])
    axes.imshow(values, map_, aspect="auto", interpolation="none", vmin=-1, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


# Designs ------------------------------------------------------------------------------------------


@in_style()
def draw_design_matrix(
    matrix: pd.DataFrame, *, title: str, row_label: str, condition_columns: Sequence[str] = ()
) -> Picture:
    """Draw a design matrix in greys, each column divided by its largest absolute value.

    Parameters
    ----------
    matrix : DataFrame, shape (T, P)
        Rows are named where the index holds strings and T ≤ 60.
    title, row_label : str
        What it is, and what a row is, e.g. "volume".
    condition_columns : sequence of str, default=()
        Their names are bold, and the last to be left out for lack of room.
    """
    n_rows, n_columns = matrix.shape
    if not matrix.size:
        return message(title, "empty design")
    columns = [plain(column, 32) for column in matrix.columns]
    conditions = [index for index, column in enumerate(matrix.columns) if str(column) in condition_columns]
    has_names = n_rows <= NAMED_ROWS and all(isinstance(label, str) for label in matrix.index)
    rows = {row: plain(label, 40) for row, label in enumerate(matrix.index)} if has_names else {}

    left = 0.4 + max(widest(rows.values()), 0.4)
    width = float(np.clip(0.25 * n_columns, 1.5, WIDTH - left - 0.15))
    height = float(np.clip(0.16 * n_rows, 0.9, 9.6) if has_names else np.clip(0.015 * n_rows, 2.2, 3.4))
    shown = {column: columns[column] for column in _with_room(n_columns, width, conditions)}
    bottom = 0.15 + widest(shown.values(), "bold")
    note = f"{counted(n_rows, 'row')} × {counted(n_columns, 'column')}; white 1, grey 0, black −1"
    figure = sheet(title, max(left + width + 0.15, 5.0), bottom + height, note)
    axes = place(figure, left, bottom, width, height)
    x = _finite(matrix)
    largest = np.fmax.reduce(np.abs(x), axis=0, initial=0.0)
    n_blocks = max(min(int(100 * height), CELLS // n_columns), 1)
    blocks = _extremes_of_row_blocks(x / np.where(largest > 0, largest, 1.0), n_blocks)
    _heat_map(axes, blocks, "gray")
    axes.images[0].set_extent((-0.5, n_columns - 0.5, n_rows - 0.5, -0.5))
    axes.set_ylabel(row_label, labelpad=72 * widest(rows.values()) + 6)
    if has_names:
        name(axes, rows)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    name(axes, shown, below=True, bold=conditions)
    caption = f"One row per {row_label}, one column per regressor, divided by its largest absolute value"
    return as_svg(figure, f"Design matrix: {plain(title)}", caption + ("; conditions in bold." if conditions else "."))


def _extremes_of_row_blocks(x: FloatArray, n_blocks: int) -> FloatArray:
    """Reduce rows to at most `n_blocks`, keeping in each block the value farthest from zero.

    Dropping or averaging rows would lose regressors which mark one single volume.
    """
    if len(x) <= n_blocks:
        return x
    starts = (np.arange(n_blocks) * len(x)) // n_blocks
    high, low = np.fmax.reduceat(x, starts, axis=0), np.fmin.reduceat(x, starts, axis=0)
    return np.where(high >= -low, high, low)


@in_style()
def draw_design_correlation(matrix: pd.DataFrame, *, title: str) -> Picture:
    """Draw the Pearson correlations between the columns of a design (T, P) that vary."""
    values = _finite(matrix)
    varies = np.fmax.reduce(values, axis=0, initial=-np.inf) > np.fmin.reduce(values, axis=0, initial=np.inf)
    n_columns = int(varies.sum())
    if n_columns == 0:
        return message(title, "no column varies")
    correlation = pd.DataFrame(values[:, varies]).corr().to_numpy()
    columns = [plain(column, 32) for column in matrix.columns[varies]]
    side = float(np.clip(0.36 * n_columns, 1.4, 5.4))
    shown = {column: columns[column] for column in _with_room(n_columns, side)}
    margin = 0.15 + widest(shown.values())
    note = f"{counted(n_columns, 'column')}; red 1, white 0, blue −1"
    note += f"; {matrix.shape[1] - n_columns} constant left out" if n_columns < matrix.shape[1] else ""
    note += "; a line where below −0.2" if NUMBERS_LIMIT < n_columns <= NAMED_ROWS else ""
    figure = sheet(title, max(margin + side + 0.15, 5.6), margin + side, note)
    axes = place(figure, margin, margin, side, side)
    _heat_map(axes, correlation.round(1 if n_columns > 60 else 2), "RdBu_r")  # fewer colours make a smaller file
    name(axes, shown)
    name(axes, shown, below=True)
    if NUMBERS_LIMIT < n_columns <= NAMED_ROWS:  # in grey there is no sign
        rows, places = np.nonzero(correlation < -0.2)
        size = 30 * side / n_columns
        axes.plot(places, rows, "_", color=INK, markersize=size, markeredgewidth=size / 5, rasterized=True)
    if n_columns <= NUMBERS_LIMIT:  # the lower triangle: the matrix is symmetric, and its diagonal is 1
        for row, column in np.argwhere(np.tri(n_columns, k=-1)).tolist():
            r = float(correlation[row, column])
            colour = "white" if abs(r) > 0.6 else INK
            axes.text(column, row, _two_digits(r).replace("0.", ".", 1), ha="center", va="center", color=colour, size=8)
    return as_svg(
        figure,
        f"Correlations between columns: {plain(title)}",
        "Conditions that correlate strongly with confounds or with each other are estimated with little precision.",
    )


# Events -------------------------------------------------------------------------------------------


@in_style()
def draw_events(events: Mapping[str, pd.DataFrame], *, title: str, run_seconds: Mapping[str, float]) -> Picture:
    """Draw when the events of each run happen, each type in its own lane.

    Parameters
    ----------
    events : dict of str to DataFrame
        Per run: ``onset``, ``duration`` (s) and ``trial_type``. Without a duration they are drawn as hairlines.
    title : str
    run_seconds : dict of str to float
        Length of each run (s), a grey band that ends in a black bar: events beyond were never measured.
    """
    if not events:
        return message(title, "no runs")
    table = _clean_events(events.values())
    # In alphabetical order, so that a type keeps its colour in the pictures of all sessions.
    types = sorted(set(table["trial_type"]))
    seconds = np.array([float(run_seconds.get(run, np.nan)) for run in events])
    starts, ends = table["onset"].to_numpy(), (table["onset"] + table["duration"]).to_numpy()
    first, last = min([0.0, *starts]), max([1.0, *ends, *seconds[np.isfinite(seconds)]])

    n_lanes = min(max(len(types), 1), MOST_LANES, int(2000 / len(events)) + 1)
    labels = [plain(label, 32) for label in types[:n_lanes]]
    if len(types) > n_lanes:
        labels[-1] = f"{len(types) - n_lanes + 1} more types"
    runs = {row + 0.5: plain(run, 40) for row, run in enumerate(events)}
    pitch = float(np.clip(25 / len(runs), 0.14, max(0.3, 0.065 * n_lanes)))  # inches of a run
    n_columns = max(1, int((WIDTH - 0.3) / (0.65 + widest(labels))))
    left, bottom = 0.2 + widest(runs.values()), 0.55 + 0.19 * math.ceil(len(labels) / n_columns)
    note = f"{counted(len(table), 'event')} in {counted(len(runs), 'run')}" if len(table) else "no events"
    figure = sheet(title, WIDTH, bottom + pitch * len(runs), note)
    axes = place(figure, left, bottom, WIDTH - left - 0.2, pitch * len(runs))
    axes.set(yticks=[], xlabel="time (s)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines["left"].set_visible(False)
    name(axes, runs, fontsize=8.5 if pitch > 0.15 else 7)

    # Pixels, because thousands of bars would take seconds and megabytes: two rows a lane, and one between runs
    n_pixels = int(np.clip(30_000 / len(runs), 300, 1600))
    end = first + 1.01 * (last - first)
    palette = (255 * to_rgba_array(("white", BAND, *CATEGORIES))).astype(np.uint8)
    shown = np.zeros((len(runs), 2 * n_lanes + 1, n_pixels), dtype=np.uint8)

    stops, starts, ends, (zero,) = (
        np.rint((times - first) / (end - first) * n_pixels).astype(int)
        for times in (np.nan_to_num(seconds), starts, ends, np.zeros(1))
    )
    for row, stop in enumerate(stops):
        shown[row, :-1, zero:stop] = 1
    lanes = np.minimum(np.searchsorted(types, table["trial_type"]), n_lanes - 1)
    for row, lane, start, stop in zip(table["row"], lanes, starts, ends, strict=True):
        shown[row, 2 * lane : 2 * lane + 2, start : max(stop, start + 1)] = 2 + lane % len(CATEGORIES)
    pixels = palette[shown.reshape(-1, n_pixels)]
    axes.imshow(pixels, aspect="auto", interpolation="none", extent=(first, end, len(runs), 0))
    axes.vlines(seconds, np.arange(len(runs)) - 0.02, np.arange(len(runs)) + 0.9, INK, linewidth=1.6)
    handles = [Patch(color=CATEGORIES[lane % len(CATEGORIES)]) for lane in range(len(labels))]
    figure.legend(handles, labels, loc="lower left", ncols=n_columns, borderpad=0.2, labelspacing=0.3)
    caption = "When each condition was shown; a black bar ends each run."
    if len(labels) > 1:
        caption += " Within a run, conditions have lanes from top to bottom in the order of the legend."
    return as_svg(figure, "Timeline of the events of every run", caption)


def _clean_events(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put tables under each other, the number of each in ``row``, and keep events with a known onset.

    Unknown durations become 0 s and unknown types ``n/a``.
    """
    known = [table.reindex(columns=["onset", "duration", "trial_type"]).astype(object) for table in tables]
    table = pd.concat([table.assign(row=row) for row, table in enumerate(known)], ignore_index=True)
    onset, duration = (pd.to_numeric(table[key], errors="coerce").astype(float) for key in ("onset", "duration"))
    types = table["trial_type"].where(table["trial_type"].notna(), "n/a").astype(str)
    clean = table.assign(onset=onset, duration=duration.where(np.isfinite(duration), 0.0), trial_type=types)
    timed: pd.DataFrame = clean[np.isfinite(onset)]
    return timed


# Agreement ----------------------------------------------------------------------------------------


@in_style()
def draw_agreement(
    a: ArrayLike, b: ArrayLike, *, label_a: str, label_b: str, agreement: Agreement, thresholds: tuple[float, float],
    title: str,
) -> Picture:  # fmt: skip
    """Draw z of two maps against each other, and their differences against their means (Bland & Altman 1986).

    Parameters
    ----------
    a, b : array_like, shape (V,)
        Voxels that are not finite in both are left out.
    label_a, label_b : str
    agreement : Agreement
        Drawn as given, so that picture and tables agree.
    thresholds : (float, float)
        Of each map, marked at ± its value.
    title : str
    """
    x, y = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if not len(x):
        return message(title, "no voxel is finite in both maps")
    lines = [agreement.bias, agreement.loa_lower, agreement.loa_upper]
    bias, lower, upper = (number(line, signed=line != 0) for line in lines)
    note = (
        f"{len(x):,} voxels; Pearson r {number(agreement.pearson_r)}, concordance {number(agreement.concordance)}, "
        f"Dice {number(agreement.dice)}; largest |a − b| {number(agreement.max_abs_difference)}"
    )
    figure = sheet(title, 8.6, 4.25, note)
    # identical maps differ by 0 everywhere: a band of 2 % of the values keeps the line in the middle
    least = 1e-6 + 0.02 * float(max(np.abs(x).max(), np.abs(y).max()))
    limits = _limits([x.min(), x.max(), y.min(), y.max()], least)
    mean, difference = (x + y) / 2, x - y
    ends = [0.0, difference.min(), difference.max(), *(line for line in lines if math.isfinite(line))]
    left, right = place(figure, 0.7, 0.5, 3.4, 3.1), place(figure, 5.0, 0.5, 3.4, 3.1)
    left.set(xlim=limits, ylim=limits, xlabel=f"z, {plain(label_a, 40)}", ylabel=f"z, {plain(label_b, 40)}")
    right.set(xlim=_limits(mean, least), ylim=_limits(ends, least), xlabel="mean", ylabel="difference, first − second")
    _draw_cloud(left, x, y)
    _draw_cloud(right, mean, difference)

    left.plot(limits, limits, color=MUTED, linewidth=1.2, linestyle=DASHES[1], label="identity")
    if float(x.std()) > 1e-9 * float(np.abs(x).max()):
        slope = float(np.dot(x - x.mean(), y - y.mean()) / len(x) / x.var())
        edges = np.array([x.min(), x.max()])
        fitted = y.mean() + slope * (edges - x.mean())
        left.plot(edges, fitted, color=CATEGORIES[5], linewidth=1.8, label=f"least squares, slope {number(slope)}")
    label = "thresholds"
    for threshold, draw in zip(thresholds, (left.axvline, left.axhline), strict=True):
        for mark in (-threshold, threshold):
            if limits[0] < mark < limits[1]:
                draw(mark, color=INK, linewidth=0.9, linestyle=DASHES[2], label=label)
                label = ""
    right.axhline(0, color=MUTED, linewidth=0.8)
    texts = (f"mean {bias}", f"95 % limits of agreement {lower}, {upper}", "")
    for line, text, dash in zip(lines, texts, (0, 1, 1), strict=True):
        right.axhline(line, color=ACCENT, linewidth=1.5, linestyle=DASHES[dash], label=text)
    for axes in (left, right):
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), borderpad=0.2, labelspacing=0.2)
    return as_svg(
        figure,
        f"Agreement: {plain(title)}",
        "Left: both values of each voxel. Right: their difference against their mean."
        + (" The darker, the more voxels (logarithmic)." if len(x) >= POINTS_LIMIT else ""),
    )


def _draw_cloud(axes: Axes, x: FloatArray, y: FloatArray, n_bins: int = 80) -> None:
    """Draw points when they are few, and when they are many counts in bins, in logarithmic colours."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if len(x) < POINTS_LIMIT:
        many = len(x) > SVG_MARKS
        axes.plot(x, y, "o", color=CATEGORIES[0], markersize=3.2, markeredgewidth=0, alpha=0.45, rasterized=many)
        return
    places = _bins(y, axes.get_ylim(), n_bins) * (n_bins + 2) + _bins(x, axes.get_xlim(), n_bins)
    counts = np.bincount(places, minlength=(n_bins + 2) ** 2).reshape(n_bins + 2, n_bins + 2)[1:-1, 1:-1]
    axes.imshow(
        np.where(counts, counts, np.nan), SEQUENTIAL, LogNorm(1, max(2, counts.max())), aspect="auto",
        interpolation="none", origin="lower", extent=(*axes.get_xlim(), *axes.get_ylim()),
    )  # fmt: skip


@in_style()
def draw_distribution(z_by_label: Mapping[str, ArrayLike], *, title: str) -> Picture:
    """Draw histograms of the finite z (V,) of each strategy against the standard normal curve."""
    samples = {label: np.asarray(z, dtype=float).ravel() for label, z in z_by_label.items()}
    samples = {label: z[np.isfinite(z)] for label, z in samples.items()}
    largest = max((float(np.abs(z).max()) for z in samples.values() if len(z)), default=None)
    if largest is None:
        return message(title, "no finite z value")
    limit = float(np.clip(1.05 * largest, 4.5, WIDEST_Z))
    outside = sum(int((np.abs(z) > limit).sum()) for z in samples.values())
    bottom = 0.6 + 0.19 * (1 + len(samples))
    figure = sheet(title, 7.2, bottom + 2.4, f"{outside:,} values beyond ±{limit:g} not shown" if outside else "")
    axes = place(figure, 0.6, bottom, 6.45, 2.4)
    curve = np.linspace(-limit, limit, 181)
    normal = np.exp(-(curve**2) / 2) / math.sqrt(2 * math.pi)
    handles: list[Any] = [axes.fill_between(curve, normal, color="#D8D8D8", linewidth=0)]
    labels = ["standard normal"]
    for index, (label, z) in enumerate(samples.items()):
        look = {"color": CATEGORIES[index % len(CATEGORIES)], "linestyle": DASHES[index % len(DASHES)]}
        handles.append(axes.stairs(_density(z, limit), curve[::2], linewidth=1.5, **look))
        moments = f"mean {_two_digits(z.mean())}, SD {_two_digits(z.std())}" if len(z) else "no value"
        labels.append(f"{plain(label, 44)} ({moments})")
    axes.set(xlim=(-limit, limit), xlabel="z", ylabel="density")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.legend(handles, labels, loc="lower left", borderpad=0.2, labelspacing=0.3)
    return as_svg(
        figure,
        "Histogram of z per strategy beside the standard normal curve",
        "Without any effect, and with a model that is right, z follows the grey curve.",
    )


def _density(z: FloatArray, limit: float, n_bins: int = 90) -> FloatArray:
    """Share of `z` per unit of z in each bin within ±`limit`; what is outside counts as values."""
    counts = np.bincount(_bins(z, (-limit, limit), n_bins), minlength=n_bins + 2)[1:-1]
    return np.asarray(counts / (max(len(z), 1) * 2 * limit / n_bins))


# Sessions and participants ------------------------------------------------------------------------


@dataclass(frozen=True)
class SessionPanel:
    """What is shown of one place of the brain.

    Attributes
    ----------
    title : str
        Where it is.
    effects : ndarray, shape (N, S)
        Of each participant in each session; NaN where it is missing.
    estimates : dict of str to (float, float, float)
        The model's estimate and the ends of its interval, by the name of a session, or of a session contrast, which
        stands apart at the right.
    """

    title: str
    effects: FloatArray
    estimates: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@in_style()
def draw_sessions(
    panels: Sequence[SessionPanel], sessions: Sequence[str], *, participants: Sequence[str] = (), unit: str, title: str
) -> Picture:
    """Draw effects over sessions at some places: a line per participant, and the model's estimates.

    Parameters
    ----------
    panels : sequence of SessionPanel
        Two side by side where sessions are few; their axis of effects is the same.
    sessions, participants : sequence of str
        Names, in the order of the effects. Without participants none is named.
    unit, title : str
        Unit of the effects, and title.
    """
    ends = [0.0]
    for panel in panels:
        ends += [end for end in np.r_[panel.effects.ravel(), *panel.estimates.values()] if math.isfinite(end)]
    if len(ends) == 1:
        return message(title, "no effect to show")
    limits = _limits(ends, 1e-6)
    asked = dict.fromkeys(key for panel in panels for key in panel.estimates if key not in sessions)
    at = {key: index + 0.2 * (key in asked) for index, key in enumerate((*sessions, *asked))}
    n_columns = 2 if len(panels) > 1 and len(at) <= 4 else 1
    width = (3.75 - 0.25 * (n_columns - 1)) / n_columns
    height = 1.9 if n_columns == 1 else 1.6
    names = {x: plain(key, 18) for key, x in at.items()}
    is_upright = widest(names.values()) > width / len(at) - 0.1
    if is_upright:
        names = {x: names[x] for index, x in enumerate(names) if index in _with_room(len(at), width)}
    below = 0.12 + (widest(names.values()) if is_upright else 0.16)
    n_rows = math.ceil(len(panels) / n_columns)
    pitch = width / len(at)
    named = participants if n_columns == 1 and pitch > 0.6 else ()
    room = 0.6 / pitch if named and not asked else 0.5
    figure = sheet(title, 4.4, n_rows * (height + 0.24) + below)
    ticks = [tick for tick in MaxNLocator(4).tick_values(*limits) if limits[0] <= tick <= limits[1]]
    for index, panel in enumerate(panels):
        row, column = divmod(index, n_columns)
        bottom = below + (n_rows - 1 - row) * (height + 0.24)
        axes = place(figure, 0.6 + column * (width + 0.25), bottom, width, height)
        axes.set(xlim=(-0.5, max(at.values()) + room), ylim=limits, xticks=[], yticks=[] if column else ticks)
        axes.set_title(plain(panel.title, 52 // n_columns), fontsize=8.5, pad=3)
        _draw_place(axes, panel, at, named)
        if column == 0:
            axes.set_ylabel(plain(unit, 24), fontsize=8.5, labelpad=2)
        if index + n_columns >= len(panels):
            name(axes, names, below=True, rotation=90 if is_upright else 0)
    return as_svg(
        figure,
        f"Effect in each session: {plain(title)}",
        "Grey: a line per participant."
        + (" Red: the model's estimate and its 95 % interval." if any(panel.estimates for panel in panels) else "")
        + " A peak is where the effect came out largest, so that it is smaller in truth.",
    )


def _draw_place(axes: Axes, panel: SessionPanel, at: Mapping[str, float], participants: Sequence[str]) -> None:
    values = np.asarray(panel.effects, dtype=float)
    there = np.isfinite(values)
    x = np.arange(values.shape[1])
    axes.axhline(0, color=INK, linewidth=0.8)
    are_many = values.size > SVG_MARKS
    # a gap between participants; their lines go on over sessions that are missing
    lines = [np.r_[np.stack([x, row])[:, own].T, [[np.nan, np.nan]]] for row, own in zip(values, there, strict=True)]
    axes.plot(*np.concatenate([np.empty((0, 2)), *lines]).T, color="#A6A6A6", linewidth=0.4 if are_many else 0.9)
    if not are_many:
        axes.plot(np.nonzero(there)[1], values[there], "o", color="#8C8C8C", markersize=2.8, markeredgewidth=0)
    if len(participants) > 1 and there[:, -1].any():  # the highest and the lowest at the end by name
        for index in {int(np.nanargmax(values[:, -1])), int(np.nanargmin(values[:, -1]))}:
            axes.text(x[-1] + 0.06, values[index, -1], plain(participants[index], 10), color=MUTED, size=7, va="center")
    for keys, mark in ((list(at)[: len(x)], "-o"), (list(at)[len(x) :], "D")):
        own = np.array([(at[key], *panel.estimates[key]) for key in keys if key in panel.estimates]).reshape(-1, 4).T
        axes.plot(own[0], own[1], mark, color=ACCENT, markersize=5.5, linewidth=2, zorder=5)
        axes.vlines(own[0], own[2], own[3], ACCENT, linewidth=1.5, zorder=5)
        axes.plot(np.r_[own[0], own[0]], np.r_[own[2], own[3]], "_", color=ACCENT, markersize=6, zorder=5)


STRIPS = {"correlation": "r with the others' mean", "mean": "mean effect", "spread": "relative spread"}


@in_style()
def draw_participants(table: pd.DataFrame, *, title: str = "Participants' mean maps beside each other") -> Picture:
    """Draw how each participant's map compares with the others', so that an outlying one is seen.

    Parameters
    ----------
    table : DataFrame
        A row per ``participant``: ``correlation`` of its map with the mean of the others', and over the brain the
        ``mean`` of its effect and the ``spread`` relative to the others'.
    title : str
    """
    if table.empty:
        return message(title, "too few participants to compare")
    stands_out = {key: np.abs(_robust_z(table[key])) > OUTLYING for key in STRIPS}
    # a map is never too much like the others
    stands_out["correlation"] &= (table["correlation"] < table["correlation"].median()).to_numpy()
    either = np.any(list(stands_out.values()), axis=0)
    pitch, are_many = float(np.clip(25 / len(table), 0.03, 0.18)), 3 * len(table) > SVG_MARKS
    labels = [plain(f"sub-{label}", 24) for label in table["participant"]]
    names = {row: label for row, label in enumerate(labels) if pitch > 0.13 or either[row]}
    left = 0.2 + max(widest(names.values(), "bold"), 0.5)
    width, height, rows = (5.0 - left) / 3, pitch * len(table) + 0.1, np.arange(len(table))
    figure = sheet(title, 5.0, 0.5 + height)
    for position, (key, label) in enumerate(STRIPS.items()):
        values, outlying = table[key].to_numpy(dtype=float), stands_out[key]
        axes = place(figure, left + position * width, 0.5, width - 0.2, height)
        axes.set(ylim=(len(table) - 0.5, -0.5), yticks=[])
        axes.set_xlabel(label, fontsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(2))
        axes.spines["left"].set_visible(False)
        if not are_many:
            axes.hlines(rows, 0, 1, BAND, transform=axes.get_yaxis_transform(), linewidth=0.6)
        axes.axvline(float(table[key].median()), color=MUTED, linewidth=1, linestyle=DASHES[1])
        size = min(4.5, 40 * pitch)
        axes.plot(values[~outlying], rows[~outlying], "o", color=CATEGORIES[0], markersize=size, rasterized=are_many)
        axes.plot(values[outlying], rows[outlying], "D", color=ACCENT, markersize=6, markerfacecolor="white")
        if position == 0:
            name(axes, names, bold=np.flatnonzero(either))
    return as_svg(
        figure,
        f"{plain(title)}: {int(either.sum())} of {counted(len(table), 'participant')} stand out",
        f"Dashed: median. Open diamonds lie far from the others (robust z beyond {OUTLYING:g}): look at that "
        "participant's page before the group is trusted.",
    )


def _robust_z(column: pd.Series) -> FloatArray:
    """Distance from the median in 1.4826 MAD; 0 where it is unknown, or where there are fewer than five values."""
    around = column.to_numpy(dtype=float) - float(column.median())
    spread = 1.4826 * float(np.nanmedian(np.abs([*around, 0.0])))
    return np.nan_to_num(around / spread) if spread > 0 and column.count() >= 5 else np.zeros(len(around))

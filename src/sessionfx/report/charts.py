"""Charts: designs, events, agreement of maps, distributions, sessions, participants, calibrated rates, power.

Every ``draw_*`` function takes arrays or tables and returns SVG, with pixels inside where marks are many. Places are in
inches, because solving a layout costs more than drawing it; ticks, which cost most, are few.

Shapes: T rows (volumes or maps), P design columns, V voxels, N participants, S sessions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from sessionfx.report.style import CATEGORIES, DPI, INK, MUTED, SEQUENTIAL, WIDTH, Picture, as_svg, in_style
from sessionfx.statistics.agreement import Agreement
from sessionfx.statistics.intervals import SessionIntervals
from sessionfx.wording import counted, format_number, listed, percent, printable, shorten, z_text

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
LOWEST = 0.2  # times the nominal rate, where an axis of rates starts


def plain(text: object, limit: int = 200) -> str:
    """Make one line of a text from the data, without what no XML may hold, and cut its middle if it is long."""
    return shorten(" ".join(printable(str(text)).split()), limit)


def sheet(title: str, width: float, height: float, note: str = "") -> Figure:
    """Make a figure with `height` inches under its title and a line of facts."""
    figure = Figure(figsize=(width, height + 0.55))
    figure.text(0.06 / width, (height + 0.35) / (height + 0.55), plain(title, int(10 * width)), size=10, weight="bold")
    figure.text(0.06 / width, (height + 0.17) / (height + 0.55), note, color=MUTED)
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any) -> Axes:
    """Add axes at a place in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def room(names: Iterable[str]) -> float:
    """Say how wide the longest of some names may be (inches)."""
    return 0.076 * max(map(len, names), default=0)


def row_panels(
    title: str, names: Sequence[str], bold: Sequence[int] = (), *, height: float, width: float = WIDTH,
    n_panels: int = 1, below: float = 0.5, above: float = 0, apart: float = 0.2, note: str = "",
) -> list[Axes]:  # fmt: skip
    """Put panels beside each other whose rows have the same names, which stand at the left; sizes are in inches."""
    left = 0.2 + max(room(names), 0.5)
    figure, pitch = sheet(title, width, below + height + above, note), (width - left) / n_panels
    panels = [place(figure, left + index * pitch, below, pitch - apart, height) for index in range(n_panels)]
    for axes in panels:
        axes.set_ylim(len(names) - 0.5, -0.5)
        name(axes, names if axes is panels[0] else (), bold)
    return panels


def name(axes: Axes, names: Sequence[str], bold: Sequence[int] = (), *, below: bool = False) -> None:
    """Name rows, or columns below them, as far as there is room, bold names first: texts cost a fifth of ticks."""
    apart = 0.135 * DPI * len(names) / (axes.bbox.width if below else axes.bbox.height)
    transform, va, ha = axes.get_xaxis_text1_transform(4) if below else axes.get_yaxis_text1_transform(5)
    (axes.xaxis if below else axes.yaxis).set_ticks([])
    shown: list[int] = []
    for at in (*bold, *range(len(names))) if names else ():
        if all(abs(at - other) >= apart for other in shown):
            shown.append(at)
            x, y = (at, 0) if below else (0, at)
            look: dict[str, Any] = {"weight": "bold" if at in bold else "normal", "rotation": 90 if below else 0}
            axes.text(x, y, names[at], transform=transform, va=va, ha=ha, **look)


@in_style()
def draw_design_matrix(
    matrix: pd.DataFrame, *, title: str, row_label: str, condition_columns: Sequence[str] = ()
) -> Picture:
    """Draw a design matrix (T, P) in greys, each column divided by its largest absolute value.

    Rows are named where the index holds strings and T ≤ 60; `row_label` says what one is, e.g. "volume". Names of
    conditions are bold, and the last to be left out for lack of room.
    """
    n_rows, n_columns = matrix.shape
    conditions = [index for index, column in enumerate(matrix.columns) if str(column) in condition_columns]
    is_named = n_rows <= NAMED_ROWS and all(isinstance(label, str) for label in matrix.index)
    height = float(np.clip(0.16 * n_rows, 0.9, 9.6) if is_named else np.clip(0.015 * n_rows, 2.2, 3.4))
    x = matrix.to_numpy(dtype=float)
    largest = np.fmax.reduce(np.abs(x), axis=0)
    n_blocks = max(min(int(100 * height), CELLS // n_columns), 1)
    axes = _draw_matrix(
        _extremes_of_row_blocks(x / np.where(largest > 0, largest, 1.0), n_blocks), "gray", (0.25 * n_columns, height),
        title=title, note=f"{counted(n_rows, row_label)} × {counted(n_columns, 'column')}; white 1, grey 0, black −1",
        columns=matrix.columns, rows=matrix.index if is_named else (), bold=conditions,
    )  # fmt: skip
    axes.images[0].set_extent((-0.5, n_columns - 0.5, n_rows - 0.5, -0.5))
    if not is_named:
        axes.locator_params(axis="y", nbins=5, integer=True, min_n_ticks=1)
    caption = f"One row per {row_label}, one column per regressor, divided by its largest absolute value"
    return as_svg(
        axes.figure, f"Design matrix: {plain(title)}", caption + ("; conditions in bold." if conditions else ".")
    )


def _draw_matrix(
    values: FloatArray, colours: str, size: tuple[float, float], *, title: str, note: str,
    columns: Iterable[object], rows: Iterable[object] = (), bold: Sequence[int] = (),
) -> Axes:  # fmt: skip
    """Draw values from −1 to 1 on `size` inches, or as wide as there is room; what is missing is white."""
    across, down = [plain(column, 32) for column in columns], [plain(row, 40) for row in rows]
    left, bottom = 0.2 + max(room(down), 0.4), 0.15 + room(across)
    width = float(np.clip(size[0], 1.4, WIDTH - left - 0.15))
    figure = sheet(title, max(left + width + 0.15, 5.6), bottom + size[1], note)
    axes = place(figure, left, bottom, width, size[1])
    axes.imshow(values, colours, aspect="auto", interpolation="none", vmin=-1, vmax=1)
    axes.spines[:].set_visible(True)
    name(axes, across, bold, below=True)
    if down:
        name(axes, down)
    return axes


def _extremes_of_row_blocks(x: FloatArray, n_blocks: int) -> FloatArray:
    """Reduce rows to at most `n_blocks`, keeping in each block the value farthest from zero.

    Dropping or averaging rows would lose regressors which mark one single volume.
    """
    n_blocks = min(n_blocks, len(x))
    starts = (np.arange(n_blocks) * len(x)) // n_blocks
    high, low = np.fmax.reduceat(x, starts, axis=0), np.fmin.reduceat(x, starts, axis=0)
    return np.where(high >= -low, high, low)


@in_style()
def draw_design_correlation(matrix: pd.DataFrame, *, title: str) -> Picture:
    """Draw the Pearson correlations between the columns of a design (T, P) that vary."""
    varying = matrix.loc[:, matrix.min() < matrix.max()]
    n_columns, alt = varying.shape[1], f"Correlations between columns: {plain(title)}"
    if n_columns == 0:
        return as_svg(sheet(title, 5.6, 0, "no column varies"), alt)
    correlation = varying.corr().to_numpy()
    side = float(np.clip(0.36 * n_columns, 1.4, 5.4))
    axes = _draw_matrix(
        correlation.round(1 if n_columns > NAMED_ROWS else 2),  # fewer colours make a smaller file
        "cividis", (side, side), columns=varying.columns, rows=varying.columns, title=title,
        note=f"{n_columns} of {counted(matrix.shape[1], 'column')} vary; yellow 1, grey 0, blue −1",
    )  # fmt: skip
    if n_columns <= NUMBERS_LIMIT:  # the lower triangle: the matrix is symmetric, and its diagonal is 1
        for row, column in np.argwhere(np.tri(n_columns, k=-1) * np.isfinite(correlation)):
            r = correlation[row, column]
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if r < 0.2 else INK}
            axes.text(column, row, z_text(r).replace("0.", ".", 1), **look)
    caption = "Conditions that correlate with confounds or with each other are estimated with little precision."
    return as_svg(axes.figure, alt, caption)


@in_style()
def draw_events(events: Mapping[str, pd.DataFrame], *, title: str, run_seconds: Mapping[str, float]) -> Picture:
    """Draw when the events of each run happen, each type in its own lane.

    Tables have ``onset``, ``duration`` (s) and ``trial_type``; events without a duration are hairlines. The length of a
    run (s) is a grey band that ends in a black bar: events beyond were never measured.
    """
    columns = ["onset", "duration", "trial_type"]
    table = pd.concat([table.reindex(columns=columns).assign(row=row) for row, table in enumerate(events.values())])
    # in alphabetical order, so that a type keeps its colour in the pictures of all sessions
    types, codes = np.unique(table["trial_type"].to_numpy(dtype=object), return_inverse=True)
    lanes, labels = codes.clip(max=MOST_LANES - 1), [plain(label, 32) for label in types[:MOST_LANES]]
    if len(types) > MOST_LANES:
        labels[-1] = f"{len(types) - MOST_LANES + 1} more types"
    colours = [CATEGORIES[lane % len(CATEGORIES)] for lane in range(MOST_LANES)]
    runs, rows = [plain(run, 40) for run in events], np.arange(len(events))
    pitch = float(np.clip(25 / len(runs), 0.14, max(0.3, 0.065 * len(labels))))  # inches of a run
    n_columns = max(1, int((WIDTH - 0.3) / (0.65 + room(labels))))
    (axes,) = row_panels(
        title, runs, height=pitch * len(runs), below=0.55 + 0.19 * math.ceil(len(labels) / n_columns),
        note=f"{counted(len(table), 'event')} in {counted(len(runs), 'run')}",
    )  # fmt: skip
    axes.set_xlabel("time (s)")
    seconds = np.array([float(run_seconds.get(run, np.nan)) for run in events])
    axes.barh(rows, np.nan_to_num(seconds), 0.88, color=BAND)
    axes.vlines(seconds, rows - 0.46, rows + 0.46, INK, linewidth=1.6)
    lane, starts = 0.88 / max(len(labels), 1), table["onset"]
    hairline = 0.001 * (np.nanmax([1.0, *starts, *seconds]) - np.nanmin([0.0, *starts]))
    axes.hlines(
        table["row"] - 0.44 + lane * (lanes + 0.5), starts, starts + np.fmax(table["duration"], hairline),
        [colours[lane] for lane in lanes], linewidth=72 * 0.9 * lane * pitch,
        antialiased=False, rasterized=len(table) > SVG_MARKS,
    )  # fmt: skip
    patches = [Patch(color=colour) for colour in colours[: len(labels)]]
    axes.figure.legend(patches, labels, loc="lower left", ncols=n_columns)
    caption = "When each condition was shown, in lanes in the order of the legend; a black bar ends each run."
    return as_svg(axes.figure, "Timeline of the events of every run", caption)


@in_style()
def draw_agreement(
    a: ArrayLike, b: ArrayLike, *, label_a: str, label_b: str, agreement: Agreement, thresholds: tuple[float, float],
    title: str,
) -> Picture:  # fmt: skip
    """Draw z of two maps (V,) against each other, and their differences against their means (Bland & Altman 1986).

    The agreement is drawn as given, so that picture and tables agree. The threshold of each map is marked at ± its
    value. Voxels that are not finite in both maps are left out.
    """
    x, y = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    note = (
        f"{len(x):,} voxels; Pearson r {format_number(agreement.pearson_r)}, "
        f"concordance {format_number(agreement.concordance)}, Dice {format_number(agreement.dice)}; "
        f"largest |a − b| {format_number(agreement.max_abs_difference)}"
    )
    figure = sheet(title, 8.6, 4.0, note)
    left, right = place(figure, 0.7, 0.5, 3.4, 3.1), place(figure, 5.0, 0.5, 3.4, 3.1)
    left.set(xlabel=f"z, {plain(label_a, 40)}", ylabel=f"z, {plain(label_b, 40)}")
    right.set(xlabel="mean", ylabel="difference, first − second")
    ends = np.array([np.min([x, y], initial=0.0), np.max([x, y], initial=0.0)])
    left.plot(ends, ends, color=MUTED, linewidth=1.2, linestyle=DASHES[1])
    left.set_title("dashed: identity\ndotted: thresholds")
    for threshold, draw in zip(thresholds, (left.axvline, left.axhline), strict=True):
        for mark in (-threshold, threshold):
            if ends[0] < mark < ends[1]:
                draw(mark, color=INK, linewidth=0.9, linestyle=DASHES[2])
    right.axhline(0, color=MUTED, linewidth=0.8)
    lines = [agreement.bias, agreement.loa_lower, agreement.loa_upper]
    for line, dash in zip(lines, (0, 1, 1), strict=True):
        right.axhline(line, color=ACCENT, linewidth=1.5, linestyle=DASHES[dash])
    bias, lower, upper = map(format_number, lines)
    right.set_title(f"mean {bias}\ndashed: 95 % limits of agreement {lower}, {upper}")
    _draw_cloud(left, x, y)
    _draw_cloud(right, (x + y) / 2, x - y)
    caption = "Left: both values of each voxel. Right: their difference against their mean. Darker: more voxels."
    return as_svg(figure, f"Agreement: {plain(title)}", caption)


def _draw_cloud(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    """Draw points under the lines when they are few, and when they are many counts in bins, in logarithmic colours."""
    if len(x) >= POINTS_LIMIT:
        axes.hist2d(x, y, 80, cmap=SEQUENTIAL, norm="log", cmin=1, rasterized=True, zorder=1)
        axes.autoscale()
    else:
        look: dict[str, Any] = {"color": CATEGORIES[0], "alpha": 0.45, "markersize": 3.2, "markeredgewidth": 0}
        axes.plot(x, y, "o", zorder=1, rasterized=len(x) > SVG_MARKS, **look)
    axes.locator_params(nbins=4)


@in_style()
def draw_distribution(z_by_label: Mapping[str, ArrayLike], *, title: str) -> Picture:
    """Draw histograms of the finite z (V,) of each strategy against the standard normal curve."""
    samples = {label: np.asarray(z, dtype=float).ravel() for label, z in z_by_label.items()}
    samples = {label: z[np.isfinite(z)] for label, z in samples.items()}
    sizes = np.abs(np.concatenate([[], *samples.values()]))
    limit = float(np.clip(1.05 * sizes.max(initial=0.0), 4.5, WIDEST_Z))
    outside = int((sizes > limit).sum())
    bottom = 0.6 + 0.19 * (1 + len(samples))
    figure = sheet(title, 7.2, bottom + 2.4, f"{outside:,} values beyond ±{limit:g} not shown" if outside else "")
    axes = place(figure, 0.6, bottom, 6.45, 2.4)
    curve = np.linspace(-limit, limit, 181)
    normal = np.exp(-(curve**2) / 2) / math.sqrt(2 * math.pi)
    handles: list[Any] = [axes.fill_between(curve, normal, color="#D8D8D8", linewidth=0)]
    labels = ["standard normal"]
    # few voxels in narrow bins would be a comb
    n_bins = int(np.clip(2 * math.sqrt(len(sizes) / max(len(samples), 1)), 12, 90))
    for index, (label, z) in enumerate(samples.items()):
        look = {"color": CATEGORIES[index % len(CATEGORIES)], "linestyle": DASHES[index % len(DASHES)]}
        counts, edges = np.histogram(z, n_bins, (-limit, limit))
        density = counts / (max(len(z), 1) * (edges[1] - edges[0]))  # what is outside counts as values
        handles.append(axes.stairs(density, edges, linewidth=1.5, **look))
        moments = f"mean {z_text(z.mean())}, SD {z_text(z.std())}" if len(z) else "no value"
        labels.append(f"{plain(label, 44)} ({moments})")
    axes.set(xlim=(-limit, limit), xlabel="z", ylabel="density")
    axes.set_ylim(bottom=0)
    axes.locator_params(nbins=5)
    figure.legend(handles, labels, loc="lower left")
    caption = "Without any effect, and with a model that is right, z follows the grey curve."
    return as_svg(figure, "Histogram of z per strategy beside the standard normal curve", caption)


@dataclass(frozen=True)
class SessionPanel:
    """What is shown of one place of the brain."""

    title: str
    effects: FloatArray  # (N, S): of each participant in each session; NaN where it is missing
    # the model's estimate and the ends of its interval, by the name of a session, or of a session contrast, which
    # stands apart at the right
    estimates: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    sessions: SessionIntervals | None = None  # drawn as a band (of each) and whiskers (of all at once)


_OF_PEAKS = "A peak is where the effect came out largest: in truth it is smaller; intervals do not allow for that."
_OF_SESSIONS = (
    "Red line: the mean of those who have each session, in a band of its 95 % interval; whiskers are longer, they hold "
    "the means of all sessions at once in 95 % of studies. "
)


@in_style()
def draw_sessions(
    panels: Sequence[SessionPanel], sessions: Sequence[str], *, unit: str, title: str, chosen: str = _OF_PEAKS,
    unit_of_estimate: str = "",
) -> Picture:  # fmt: skip
    """Draw effects over sessions at some places: a line per participant, and the model's estimates.

    Panels share their axis of effects, also where the model's estimates are in units of their own; `chosen` says how
    the places were chosen.
    """
    asked = dict.fromkeys(key for panel in panels for key in panel.estimates if key not in sessions)
    at = {key: index + 0.2 * (key in asked) for index, key in enumerate((*sessions, *asked))}
    names = [plain(key, 30) for key in at]
    n_columns, n_rows = min(2, len(panels)), math.ceil(len(panels) / 2)
    width, height, below = 4.1 / n_columns - 0.25, 1.6, 0.12 + room(names)
    headings = [[plain(line, 60 // n_columns) for line in panel.title.split("\n")] for panel in panels]
    above = 0.1 + 0.14 * max(map(len, headings))
    figure = sheet(title, 4.4, n_rows * (height + above) + below, plain(unit, 50))
    for index, panel in enumerate(panels):
        row, column = divmod(index, n_columns)
        x, y = 0.5 + column * (width + 0.25), below + (n_rows - 1 - row) * (height + above)
        axes = place(figure, x, y, width, height, sharey=figure.axes[0] if index else None)
        axes.set_xlim(-0.5, max(at.values()) + 0.5)
        axes.set_title("\n".join(headings[index]), pad=3)
        axes.tick_params(labelleft=column == 0)
        name(axes, names if index + n_columns >= len(panels) else (), below=True)
        _draw_place(axes, panel, at)
    figure.axes[0].locator_params(axis="y", nbins=4)
    has_sessions = any(panel.sessions is not None for panel in panels)
    caption = "Grey: a line per participant. " + has_sessions * _OF_SESSIONS
    if any(panel.estimates for panel in panels):
        own = f", in {unit_of_estimate}" if unit_of_estimate not in ("", unit) else ""
        caption += f"Red{', at the right' * has_sessions}: the model's estimate and its 95 % interval{own}. "
    return as_svg(figure, f"Effect in each session: {plain(title)}", caption + chosen)


def _draw_place(axes: Axes, panel: SessionPanel, at: Mapping[str, float]) -> None:
    x = np.arange(panel.effects.shape[1])
    axes.axhline(0, color=INK, linewidth=0.8)
    # a gap between participants; their lines go on over sessions that are missing
    lines = [np.r_[np.stack([x, row])[:, np.isfinite(row)].T, [[np.nan, np.nan]]] for row in panel.effects]
    width, size = (0.4, 0) if panel.effects.size > SVG_MARKS else (0.9, 2.8)
    axes.plot(*np.concatenate([np.empty((0, 2)), *lines]).T, "-o", color="#A6A6A6", linewidth=width, markersize=size)
    look: dict[str, Any] = {"color": ACCENT, "linewidth": 2, "markersize": 5.5, "capsize": 3, "zorder": 5}
    if panel.sessions is not None:
        means = panel.sessions
        axes.fill_between(x, *means.of_each.T, color=ACCENT, alpha=0.2, linewidth=0, zorder=4)
        half = np.nan_to_num(means.of_all[:, 1] - means.effect)
        axes.errorbar(x, means.effect, half, fmt="-o", elinewidth=1, **look)
    for keys, mark in ((list(at)[: len(x)], "-o"), (list(at)[len(x) :], "D")):
        own = np.array([(at[key], *panel.estimates[key]) for key in keys if key in panel.estimates]).reshape(-1, 4).T
        axes.errorbar(own[0], own[1], np.abs(own[2:] - own[1]), fmt=mark, elinewidth=1.5, **look)


@in_style()
def draw_participants(
    table: pd.DataFrame, strips: Mapping[str, str], *, marked: Sequence[str], title: str, caption: str
) -> Picture:
    """Draw figures of each participant beside everybody's, in a strip for each column that is given with its title.

    The table has a row per ``participant``; `marked` are those who stand out, and `caption` says by what.
    """
    rows, are_many = np.arange(len(table)), 3 * len(table) > SVG_MARKS
    stands_out = table["participant"].isin(marked).to_numpy()
    pitch = float(np.clip(25 / len(table), 0.03, 0.18))
    labels = [plain(f"sub-{label}", 24) for label in table["participant"]]
    names = [label if pitch > 0.13 or is_odd else "" for label, is_odd in zip(labels, stands_out, strict=True)]
    panels = row_panels(
        title, names, list(np.flatnonzero(stands_out)), width=5.0, height=pitch * len(table) + 0.1, n_panels=len(strips)
    )  # fmt: skip
    for axes, (key, label) in zip(panels, strips.items(), strict=True):
        values = table[key].astype(float)
        axes.set_xlabel(label)
        if not are_many:
            axes.hlines(rows, 0, 1, BAND, transform=axes.get_yaxis_transform(), linewidth=0.6)
        axes.axvline(values.median(), color=MUTED, linewidth=1, linestyle=DASHES[1])
        size = min(4.5, 40 * pitch)
        axes.plot(values.mask(stands_out), rows, "o", color=CATEGORIES[0], markersize=size, rasterized=are_many)
        axes.plot(values.where(stands_out), rows, "D", color=ACCENT, markersize=6, markerfacecolor="white")
        axes.locator_params(axis="x", nbins=2, integer=not (values % 1).any())
    alt = f"{title}; marked: {listed(np.array(labels)[stands_out]) or 'nobody'}"
    return as_svg(panels[0].figure, alt, f"Dashed: median. {caption}")


@in_style()
def draw_calibration(table: pd.DataFrame, limits: Mapping[float, float], *, caption: str = "") -> Picture:
    """Draw what `group.calibration.calibrate` found: a row per question and strategy.

    Each has its false-positive rate with a 95 % interval at every nominal rate, on a logarithmic axis, so that 5 % and
    40 % can both be read; then its power at the first nominal rate. A rate whose interval lies above its limit is
    inflated, and open.
    """
    colours = [CATEGORIES[code % len(CATEGORIES)] for code in pd.factorize(table["strategy"])[0]]
    first = np.flatnonzero(~table["label"].duplicated())
    questions = [f"{plain(text, 30)}: " if row in first else "" for row, text in enumerate(table["question"])]
    names = [before + plain(strategy, 18) for before, strategy in zip(questions, table["strategy"], strict=True)]
    alphas = [*limits, next(iter(limits))]
    panels = row_panels(
        "False positives and power of each strategy on this design", names, list(first), height=0.19 * len(names),
        n_panels=len(alphas), above=0.25, apart=0.65,
        note=f"{table['n_voxels'].iloc[0]:,} simulated voxels each; lines: 95 % interval; open: more than claimed",
    )  # fmt: skip
    for axes, alpha in zip(panels, alphas, strict=True):
        faces = np.where(table[f"rate_{alpha:g}_lower"] > limits[alpha], "white", colours)
        look: dict[str, Any] = {"color": list(faces), "edgecolor": colours, "linewidth": 1.4}
        if axes is not panels[-1]:
            values = table[f"rate_{alpha:g}"]
            _draw_rates(axes, table, alpha, limits[alpha], look)
        else:
            values = table[f"power_{alpha:g}"].astype(float)
            axes.barh(range(len(table)), 100 * values.fillna(0), 0.55, **look)
            axes.set(xlim=(0, 100), xlabel="%", xticks=(0, 50, 100), title=f"Power at p ≤ {alpha:g}")
        axes.set_yticks(range(len(names)), [percent(value) if np.isfinite(value) else "n/a" for value in values])
        axes.tick_params(axis="y", left=False, labelleft=False, labelright=True)
    return as_svg(
        panels[0].figure, "False positives and power of every strategy in simulated studies like this one", caption
    )


def _draw_rates(axes: Axes, table: pd.DataFrame, alpha: float, limit: float, look: Mapping[str, Any]) -> None:
    """Draw rates and their intervals; those beyond the axis are at its end."""
    rows, least = np.arange(len(table)), LOWEST * alpha
    rates, lower, upper = (table[f"rate_{alpha:g}{end}"].clip(least) for end in ("", "_lower", "_upper"))
    axes.set(xscale="log", xlim=(least, 1), xlabel="% (dashed: as claimed)", title=f"False positives at p ≤ {alpha:g}")
    axes.xaxis.set_major_formatter(lambda tick, _: f"{100 * tick:g}")
    axes.minorticks_off()
    axes.axvline(alpha, color=INK, linewidth=0.9, linestyle=DASHES[1], zorder=1)
    axes.axvspan(limit, 1, color=CATEGORIES[5], alpha=0.06, linewidth=0, zorder=0.5)
    axes.hlines(rows, lower, upper, look["edgecolor"], linewidth=1.8)
    axes.scatter(rates, rows, 30, clip_on=False, zorder=3, **look)


def power_figure(table: pd.DataFrame, path: str | Path | None = None) -> Figure:
    """Draw power by number of participants, with a panel for each contrast and number of sessions; see `draw_power`."""
    panels, names = list(table.groupby(["contrast", "sessions"], sort=False)), list(table["strategy"].unique())
    n_columns = min(3, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    with in_style():
        figure = Figure(figsize=(WIDTH, 3 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
        for axes, ((contrast, sessions), panel) in zip(grid, panels, strict=False):
            for strategy, rows in panel.sort_values("participants").groupby("strategy", sort=False):
                index = names.index(strategy)
                width = 1.2 * (len(names) - index)
                axes.plot(
                    rows["participants"], rows["power_0.05"], "--" if rows["finds_too_much"].any() else "-",
                    marker="o", color=CATEGORIES[index], label=strategy, linewidth=width, markersize=2 + 1.6 * width,
                )  # fmt: skip
            axes.set(title=f"{contrast}, sessions: {sessions}", ylim=(0, 1.02), xlabel="participants")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        grid[0].set_ylabel("power at p ≤ .05")
        grid[0].legend(title="dashed: finds too much under the null")
        if path is not None:
            figure.savefig(path, dpi=150)
    return figure

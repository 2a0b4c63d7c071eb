"""The picture of a calibration: false-positive rates beside their nominal value, and power, of every strategy.

Drawn with matplotlib, whose logarithmic axes and markers it needs; it is asked for rarely.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory

from sessionfx.group.calibrated import LIMITS
from sessionfx.group.calibration import DECLINED
from sessionfx.report.canvas import message_png
from sessionfx.report.colours import CATEGORIES, INK, MUTED
from sessionfx.report.figures import (
    FONT,
    SMALL_FONT,
    WIDTH,
    axes_in_inches,
    figure_to_png,
    header_height,
    new_figure,
    write,
    write_header,
)
from sessionfx.wording import percent, shorten

ROW = 0.2
"""Height of one strategy's line (inches)."""

GAP = 0.12
"""Space between questions (inches)."""

INFLATED = 1.16
"""Where the verdict has no limit, a rate counts as inflated above this multiple of the nominal one (5.8 % for 5 %)."""

_QUESTION_WIDTH, _NAME_WIDTH, _POWER_WIDTH, _NUMBER_WIDTH, _RIGHT = 1.75, 1.15, 1.15, 0.52, 0.12
_LOWEST = 0.2  # the axis of rates starts at this multiple of the nominal rate
_PERCENTAGES = (0.01, 0.1, 1, 10, 100)


def draw_calibration(
    table: pd.DataFrame, *, title: str = "False positives and power of each strategy on this design"
) -> bytes:
    """Draw what `calibration.calibrate` found.

    One band per question, one line per strategy: its false-positive rate with a 95 % interval at every nominal rate, on
    a logarithmic axis, so that 5 % and 40 % can both be read; then its power at the first nominal rate. Inflated rates
    are open diamonds, and the power that they buy is an open bar.

    Parameters
    ----------
    table : DataFrame
        From `calibration.calibrate`.
    title : str

    Returns
    -------
    bytes
        PNG.
    """
    if table.empty:
        return message_png(title, "nothing was calibrated")
    named = [str(column) for column in table.columns]
    alphas = [float(name.removeprefix("rate_")) for name in named if name.startswith("rate_") and name[-1].isdigit()]
    strategies = list(dict.fromkeys(table["strategy"]))
    colours = {name: CATEGORIES[index % len(CATEGORIES)] for index, name in enumerate(strategies)}
    questions = {str(label): group for label, group in table.groupby("label", sort=False)}

    # One line needs room for the question, too, which is wrapped to two lines at least.
    heights = [max(ROW * len(group), 2 * ROW) + GAP for group in questions.values()]
    bottom, panels = 0.5, sum(heights)
    top = header_height(title, WIDTH) + 0.34
    figure = new_figure(WIDTH, bottom + panels + top)
    n_voxels = f"{table['n_voxels'].iloc[0]:,}".replace(",", " ")
    note = f"{n_voxels} simulated voxels each; lines: 95 % interval. Open: more false positives than claimed."
    write_header(figure, title, note)

    left = 0.12 + _QUESTION_WIDTH + _NAME_WIDTH
    rates_width = WIDTH - left - _POWER_WIDTH - _RIGHT - _NUMBER_WIDTH * (len(alphas) + 1) - 0.15 * len(alphas)
    rate_panels = []
    for alpha in alphas:
        width = rates_width / len(alphas)
        rate_panels.append(axes_in_inches(figure, left, bottom, width, panels))
        _prepare_rates(rate_panels[-1], alpha)
        left += width + _NUMBER_WIDTH + 0.15
    power_panel = axes_in_inches(figure, left, bottom, _POWER_WIDTH, panels)
    _prepare_power(power_panel, alphas[0])
    every = [*rate_panels, power_panel]

    y = panels
    for index, (group, height) in enumerate(zip(questions.values(), heights, strict=True)):
        if index % 2 == 0:
            for axes in every:
                axes.axhspan(y - height, y, color="#f3f3f3", linewidth=0, zorder=0)
        _write_question(rate_panels[0], str(group["question"].iloc[0]), len(group), y - GAP / 2 - ROW / 2)
        for position, (_, row) in enumerate(group.iterrows()):
            centre = y - GAP / 2 - ROW * (position + 0.5)
            _draw_strategy(every, row, alphas, colours[str(row["strategy"])], centre)
        y -= height
    for axes in every:
        axes.set_ylim(0, panels)
        axes.set_yticks([])
        axes.spines[["top", "right"]].set_visible(False)
    return figure_to_png(figure)


def _limit(alpha: float) -> float:
    """Find what a rate may be: its interval lies above that where it is inflated."""
    return LIMITS.get(alpha, INFLATED * alpha)


def _prepare_rates(axes: Axes, alpha: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(_LOWEST * alpha, 1.0)
    ticks = [tick / 100 for tick in _PERCENTAGES if _LOWEST * alpha <= tick / 100] + ([0.4] if alpha > 0.01 else [])
    if all(abs(np.log10(tick / alpha)) > 0.2 for tick in ticks):
        ticks.append(alpha)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.axvline(alpha, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.axvspan(_limit(alpha), 1.0, color="#d55e00", alpha=0.06, linewidth=0, zorder=0.5)
    _head(axes, f"False positives at p ≤ {alpha:g}", "% (dashed: as claimed)")


def _prepare_power(axes: Axes, alpha: float) -> None:
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    _head(axes, f"Power at p ≤ {alpha:g}", "%")


def _head(axes: Axes, text: str, unit: str) -> None:
    axes.set_title(text, fontsize=FONT, color=INK, loc="left", pad=6, parse_math=False)
    axes.set_xlabel(unit, fontsize=SMALL_FONT, color=MUTED, parse_math=False)


def _inches_from_edge(axes: Axes, inches: float) -> float:
    """Position in fractions of the axes' width."""
    return float(inches / axes.get_position().width / WIDTH)


def _write_question(axes: Axes, question: str, n_strategies: int, y: float) -> None:
    lines = textwrap.wrap(question, 22, max_lines=max(2, n_strategies), placeholder=" …")
    x = _inches_from_edge(axes, -(_QUESTION_WIDTH + _NAME_WIDTH))
    place = blended_transform_factory(axes.transAxes, axes.transData)
    for offset, line in enumerate(lines):
        text = shorten(line, 24)
        write(axes, x, y - ROW * offset, text, transform=place, va="center", fontweight="bold", fontsize=FONT)


def _draw_strategy(every: list[Axes], row: pd.Series, alphas: list[float], colour: str, y: float) -> None:
    """Draw one line through all panels."""
    *rate_panels, power_panel = every
    declined = row["status"] == DECLINED
    first = rate_panels[0]
    beside = blended_transform_factory(first.transAxes, first.transData)
    name = shorten(str(row["strategy"]), 18)
    x = _inches_from_edge(first, -0.1)
    write(first, x, y, name, transform=beside, ha="right", va="center", color=MUTED if declined else INK)
    if declined:
        for axes in every:
            inside = blended_transform_factory(axes.transAxes, axes.transData)
            write(axes, 0.5, y, "declined", transform=inside, ha="center", va="center", color=MUTED, style="italic")
        return
    for axes, alpha in zip(rate_panels, alphas, strict=True):
        rate, lower, upper = (float(row[f"rate_{alpha:g}{end}"]) for end in ("", "_lower", "_upper"))
        inflated = lower > _limit(alpha)
        least = _LOWEST * alpha
        axes.plot([max(lower, least), max(upper, least)], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        style: dict[str, Any] = {"marker": "D" if inflated else "o", "markerfacecolor": "white" if inflated else colour}
        if rate < least:  # beyond the axis: an arrow at its end
            style = {"marker": "<", "markerfacecolor": colour}
        axes.plot([max(rate, least)], [y], color=colour, markersize=5.5, markeredgewidth=1.4, clip_on=False, **style)
        _write_number(axes, percent(rate), y, fontweight="bold" if inflated else "normal")
    power = float(row[f"power_{alphas[0]:g}"])
    if np.isfinite(power):
        inflated = float(row[f"rate_{alphas[0]:g}_lower"]) > _limit(alphas[0])
        face = "white" if inflated else colour
        power_panel.barh(y, power, height=ROW * 0.55, facecolor=face, edgecolor=colour, linewidth=1.0)
    _write_number(power_panel, percent(power) if np.isfinite(power) else "n/a", y)


def _write_number(axes: Axes, text: str, y: float, **properties: Any) -> None:
    place = blended_transform_factory(axes.transAxes, axes.transData)
    x = 1 + _inches_from_edge(axes, _NUMBER_WIDTH)
    write(axes, x, y, text, transform=place, ha="right", va="center", **properties)

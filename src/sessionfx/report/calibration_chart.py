"""The chart of a calibration: false-positive rates beside their nominal value, and power, of every strategy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sessionfx.report.charts import DASHES, message, name, place, plain, sheet
from sessionfx.report.style import CATEGORIES, INK, MUTED, WIDTH, Picture, as_svg, in_style
from sessionfx.wording import percent

ROW, GAP = 0.2, 0.12  # height of a strategy's line, and space between questions (inches)
LEFT, BESIDE = 3.0, 0.65  # room for names of questions and strategies, and for a number (inches)
INFLATED = 1.16  # times the nominal rate (5.8 % for 5 %), where no limit is given
TITLE = "False positives and power of each strategy on this design"
LOWEST = 0.2  # times the nominal rate, where the axis starts


@in_style()
def draw_calibration(
    table: pd.DataFrame, limits: Mapping[float, float], *, title: str = TITLE, caption: str = ""
) -> Picture:
    """Draw what `group.calibration.calibrate` found.

    One band per question, one line per strategy: its false-positive rate with a 95 % interval at every nominal rate, on
    a logarithmic axis, so that 5 % and 40 % can both be read; then its power at the first nominal rate.

    Parameters
    ----------
    table : DataFrame
        A row per question and strategy.
    limits : dict of float to float
        By nominal rate. A rate whose interval lies above is inflated.
    title, caption : str
    """
    if table.empty:
        return message(title, "nothing was calibrated")
    columns = [str(column) for column in table.columns]
    alphas = [float(column[5:]) for column in columns if column.startswith("rate_") and column[-1].isdigit()]
    limits = {alpha: limits.get(alpha, INFLATED * alpha) for alpha in alphas}
    strategies = list(dict.fromkeys(table["strategy"]))
    questions = [group for _, group in table.groupby("label", sort=False)]
    # one line needs room for the question, too, which is wrapped to two lines at least
    heights = [ROW * max(len(group), 2) + GAP for group in questions]
    note = f"{table['n_voxels'].iloc[0]:,} simulated voxels each; lines: 95 % interval; open: more than claimed"
    figure = sheet(title, WIDTH, 0.8 + sum(heights), note)
    width = (WIDTH - LEFT) / (len(alphas) + 0.6)
    lefts = [LEFT + width * index for index in range(len(alphas))]
    rates = [place(figure, left, 0.5, width - BESIDE, sum(heights)) for left in lefts]
    power = place(figure, lefts[-1] + width, 0.5, 0.6 * width - BESIDE, sum(heights))
    for axes in (*rates, power):
        axes.set(ylim=(sum(heights), 0), yticks=[])
    for axes, alpha in zip(rates, alphas, strict=True):
        _prepare_rates(axes, alpha, limits[alpha])
    power.set(xlim=(0, 1), xlabel="%")
    power.set_xticks([0, 0.5, 1], ["0", "50", "100"])
    power.set_title(f"Power at p ≤ {alphas[0]:g}", fontsize=9)

    top = GAP / 2
    for index, (group, height) in enumerate(zip(questions, heights, strict=True)):
        for axes in (*rates, power) if index % 2 == 0 else ():
            axes.axhspan(top - GAP / 2, top - GAP / 2 + height, color="#F3F3F3", linewidth=0, zorder=0)
        question = textwrap.wrap(plain(group["question"].iloc[0]), 22, max_lines=max(2, len(group)), placeholder=" …")
        names = {top + ROW * (position + 0.5): plain(line, 24) for position, line in enumerate(question)}
        name(rates[0], names, bold=names, ha="left", away=LEFT - 0.1)
        for position, (_, row) in enumerate(group.iterrows()):
            at, colour = top + ROW * (position + 0.5), CATEGORIES[strategies.index(row["strategy"]) % len(CATEGORIES)]
            declined = row["status"] == "declined"
            name(rates[0], {at: plain(row["strategy"], 18)}, color=MUTED if declined else INK)
            for axes, alpha in zip(rates, alphas, strict=True):
                if declined:
                    axes.text(
                        0.5, at, "declined", transform=axes.get_yaxis_transform(), ha="center", va="center", color=MUTED
                    )
                else:
                    _draw_rate(axes, at, row, alpha, limits[alpha], colour)
            if not declined:
                _draw_power(power, at, row, alphas[0], limits[alphas[0]], colour)
        top += height
    alt = "False positives and power of every strategy in simulated studies like this one"
    return as_svg(figure, alt, caption)


def _prepare_rates(axes: Axes, alpha: float, limit: float) -> None:
    axes.set(xscale="log", xlim=(LOWEST * alpha, 1.0), xlabel="% (dashed: as claimed)")
    ticks = [
        tick
        for tick in (0.0001, 0.001, 0.01, 0.1, 0.4, 1.0)
        if LOWEST * alpha <= tick and (tick != 0.4 or alpha > 0.01)
    ]
    if all(abs(np.log10(tick / alpha)) > 0.2 for tick in ticks):
        ticks.append(alpha)
    axes.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(alpha, color=INK, linewidth=0.9, linestyle=DASHES[1], zorder=1)
    axes.axvspan(limit, 1.0, color=CATEGORIES[5], alpha=0.06, linewidth=0, zorder=0.5)
    axes.set_title(f"False positives at p ≤ {alpha:g}", fontsize=9)


def _draw_rate(axes: Axes, at: float, row: pd.Series, alpha: float, limit: float, colour: str) -> None:
    """Draw a rate and its interval; an arrow at the end of the axis where it lies beyond."""
    least = LOWEST * alpha
    rate, lower, upper = (float(row[f"rate_{alpha:g}{end}"]) for end in ("", "_lower", "_upper"))
    axes.plot([max(lower, least), max(upper, least)], [at, at], color=colour, linewidth=1.8, solid_capstyle="butt")
    inflated = lower > limit
    axes.plot(
        [max(rate, least)], [at], "D" if inflated else "<" if rate < least else "o", color=colour, markersize=5.5,
        markerfacecolor="white" if inflated else colour, markeredgewidth=1.4, clip_on=False,
    )  # fmt: skip
    _number(axes, at, percent(rate), bold=(at,) if inflated else ())


def _draw_power(axes: Axes, at: float, row: pd.Series, alpha: float, limit: float, colour: str) -> None:
    """Draw power, an open bar where false positives have bought it."""
    power = float(row[f"power_{alpha:g}"])
    face = "white" if float(row[f"rate_{alpha:g}_lower"]) > limit else colour
    axes.barh(at, np.nan_to_num(power), height=0.55 * ROW, facecolor=face, edgecolor=colour)
    _number(axes, at, percent(power) if np.isfinite(power) else "n/a")


def _number(axes: Axes, at: float, text: str, **look: Any) -> None:
    name(axes, {at: text}, away=-axes.get_position().width * WIDTH - BESIDE + 0.12, **look)

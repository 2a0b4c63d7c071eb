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
    strategies = list(dict.fromkeys(table["strategy"]))
    questions = [group for _, group in table.groupby("label", sort=False)]
    # one line needs room for the question, too, which is wrapped to two lines at least
    heights = [ROW * max(len(group), 2) + GAP for group in questions]
    note = f"{table['n_voxels'].iloc[0]:,} simulated voxels each; lines: 95 % interval; open: more than claimed"
    figure = sheet(title, WIDTH, 0.8 + sum(heights), note)
    width = (WIDTH - LEFT) / (len(alphas) + 0.6)
    panels = [
        place(figure, LEFT + width * index, 0.5, width * (0.6 if index == len(alphas) else 1) - BESIDE, sum(heights))
        for index in range(len(alphas) + 1)
    ]
    for axes in panels:
        axes.set(ylim=(sum(heights), 0), yticks=[])
    tops = np.cumsum([0.0, *heights[:-1]])
    for index, (group, top, height) in enumerate(zip(questions, tops, heights, strict=True)):
        for axes in panels if index % 2 == 0 else ():
            axes.axhspan(top, top + height, color="#F3F3F3", linewidth=0, zorder=0)
        lines = textwrap.wrap(plain(group["question"].iloc[0]), 22, max_lines=max(2, len(group)), placeholder=" …")
        places = top + GAP / 2 + ROW * (np.arange(max(len(lines), len(group))) + 0.5)
        name(panels[0], dict(zip(places, lines, strict=False)), bold=places, ha="left", away=LEFT - 0.1)
        rows = group.assign(
            at=places[: len(group)],
            colour=[CATEGORIES[strategies.index(strategy) % len(CATEGORIES)] for strategy in group["strategy"]],
        )
        name(panels[0], {row["at"]: plain(row["strategy"], 18) for _, row in rows.iterrows()})
        declined = rows["status"] == "declined"
        for axes in panels[:-1]:
            name(axes, dict.fromkeys(rows["at"][declined], "declined"), ha="left", away=-0.1, color=MUTED)
        for axes, alpha in zip(panels[:-1], alphas, strict=True):
            _draw_rates(axes, rows[~declined], alpha, limits.get(alpha, INFLATED * alpha))
        _draw_power(panels[-1], rows[~declined], alphas[0], limits.get(alphas[0], INFLATED * alphas[0]))
    for axes, alpha in zip(panels[:-1], alphas, strict=True):
        _prepare_rates(axes, alpha, limits.get(alpha, INFLATED * alpha))
    panels[-1].set(xlim=(0, 1), xlabel="%")
    panels[-1].set_xticks([0, 0.5, 1], ["0", "50", "100"])
    panels[-1].set_title(f"Power at p ≤ {alphas[0]:g}", fontsize=9)
    return as_svg(figure, "False positives and power of every strategy in simulated studies like this one", caption)


def _prepare_rates(axes: Axes, alpha: float, limit: float) -> None:
    axes.set(xscale="log", xlim=(LOWEST * alpha, 1.0), xlabel="% (dashed: as claimed)")
    ticks = [tick for tick in (0.0001, 0.001, 0.01, 0.1, 0.4, 1.0) if LOWEST * alpha <= tick != 0.4 * (alpha <= 0.01)]
    ticks += [alpha] if all(abs(np.log10(tick / alpha)) > 0.2 for tick in ticks) else []
    axes.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(alpha, color=INK, linewidth=0.9, linestyle=DASHES[1], zorder=1)
    axes.axvspan(limit, 1.0, color=CATEGORIES[5], alpha=0.06, linewidth=0, zorder=0.5)
    axes.set_title(f"False positives at p ≤ {alpha:g}", fontsize=9)


def _draw_rates(axes: Axes, rows: pd.DataFrame, alpha: float, limit: float) -> None:
    """Draw rates and their intervals; an arrow at the end of the axis where a rate lies beyond."""
    at, colours, least = rows["at"].to_numpy(), rows["colour"].to_numpy(), LOWEST * alpha
    rates, lower, upper = (rows[f"rate_{alpha:g}{end}"].to_numpy() for end in ("", "_lower", "_upper"))
    inflated, beyond = lower > limit, rates < least
    axes.hlines(at, lower.clip(least), upper.clip(least), colors=list(colours), linewidth=1.8)
    for mark, own in (("D", inflated), ("<", beyond), ("o", ~inflated & ~beyond)):
        edges = list(colours[own])
        look: dict[str, Any] = {"color": "white" if mark == "D" else edges, "edgecolors": edges, "linewidths": 1.4}
        axes.scatter(rates[own].clip(least), at[own], 30, marker=mark, clip_on=False, zorder=3, **look)
    _write(axes, dict(zip(at, map(percent, rates), strict=True)), bold=at[inflated])


def _draw_power(axes: Axes, rows: pd.DataFrame, alpha: float, limit: float) -> None:
    """Draw power, an open bar where false positives have bought it."""
    power = rows[f"power_{alpha:g}"].to_numpy(dtype=float)
    faces = np.where(rows[f"rate_{alpha:g}_lower"] > limit, "white", rows["colour"])
    axes.barh(rows["at"], np.nan_to_num(power), 0.55 * ROW, color=list(faces), edgecolor=list(rows["colour"]))
    _write(
        axes, {at: percent(share) if np.isfinite(share) else "n/a" for at, share in zip(rows["at"], power, strict=True)}
    )


def _write(axes: Axes, numbers: Mapping[float, str], **look: Any) -> None:
    name(axes, numbers, away=-axes.get_position().width * WIDTH - BESIDE + 0.12, **look)

"""The figure of power by design."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sessionfx.report.style import CATEGORIES, WIDTH, in_style

_DPI = 150


def power_figure(table: pd.DataFrame, path: str | Path | None = None) -> Figure:
    """Draw power by number of participants, a panel for each contrast and number of sessions.

    See `sessionfx.draw_power`.

    Parameters
    ----------
    table : DataFrame
        From `sessionfx.power`.
    path : str or Path, optional
        A file to keep it in.
    """
    panels = list(table.groupby(["contrast", "sessions"], sort=False))
    names = list(dict.fromkeys(table["strategy"]))
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with in_style():
        figure = Figure(figsize=(WIDTH, 3 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
        for axis, ((contrast, sessions), panel) in zip(axes, panels, strict=False):
            for name, rows in panel.groupby("strategy", sort=False):
                ordered, index = rows.sort_values("participants"), names.index(name)
                width = 1.2 * (len(names) - index)
                axis.plot(
                    ordered["participants"], ordered["power_0.05"], "--" if _finds_too_much(rows) else "-",
                    marker="o", color=CATEGORIES[index], label=name, linewidth=width, markersize=2 + 1.6 * width,
                )  # fmt: skip
            axis.set(title=f"{contrast}, sessions: {sessions}", ylim=(0, 1.02), xlabel="participants")
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        axes[0].set_ylabel("power at p ≤ .05")
        axes[0].legend(title="dashed: finds too much under the null")
        if path is not None:
            figure.savefig(path, dpi=_DPI)
    return figure


def _finds_too_much(rows: pd.DataFrame) -> bool:
    """Whether a false-positive rate is above 5 % by 3.3 standard errors; the interval's half is 1.96 of them."""
    standard_error = (rows["rate_0.05"] - rows["rate_0.05_lower"]) / 1.96
    return bool((rows["rate_0.05"] - 0.05 > 3.3 * standard_error).any())

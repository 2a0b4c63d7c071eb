"""The page and the picture of the validity benchmark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from sessionfx.report.colours import INK, MUTED
from sessionfx.report.figures import (
    FONT,
    SMALL_FONT,
    axes_in_inches,
    figure_to_png,
    new_figure,
    write,
    write_header,
)

CONTRASTS = ("mean", "last - first", "linear", "any")
ALLOWED = 0.055

# Upper ends of the false-positive rates at .05, with colours that stay apart in all common forms of colour blindness
BINS: tuple[tuple[float, str, str], ...] = (
    (0.04, "#9ecae1", "below 4 %"),
    (ALLOWED, "#d3e8da", "4 to 5.5 %: as claimed"),
    (0.075, "#fee391", "to 7.5 %"),
    (0.10, "#fdae61", "to 10 %"),
    (0.20, "#e8601c", "to 20 %"),
    (1.00, "#7a0c1e", "more"),
)

WIDTH_INCHES = 11.0
CELL = 0.135  # height of a row of cells (inches)
STRUCTURE_GAP = 0.5  # in rows
LEFT = 2.15  # room for the names of the rows (inches)


def draw_validity(table: pd.DataFrame) -> bytes:
    """Draw the false-positive rates at .05 of all cells: one panel per strategy and session contrast.

    Parameters
    ----------
    table : DataFrame
        One row per cell, session contrast and strategy.

    Returns
    -------
    bytes
        PNG.
    """
    strategies, structures = list(dict.fromkeys(table["strategy"])), list(dict.fromkeys(table["structure"]))
    iccs = sorted(set(table["icc"]))
    designs = {
        contrast: sorted(set(zip(group["k"], group["n"], strict=True))) for contrast, group in table.groupby("contrast")
    }
    rows = {
        (structure, icc): index * (len(iccs) + STRUCTURE_GAP) + position
        for index, structure in enumerate(structures)
        for position, icc in enumerate(iccs)
    }
    n_rows = max(rows.values()) + 1
    gap, title, bottom, top = 0.16, 0.42, 0.95, 0.42
    cell_width = (WIDTH_INCHES - LEFT - 0.15 - gap * (len(CONTRASTS) - 1)) / sum(map(len, designs.values()))
    height = n_rows * CELL
    figure = new_figure(WIDTH_INCHES, bottom + top + len(strategies) * (height + title))
    note = (
        "One cell per simulated design; across: participants, for 2, 3 and 5 sessions. Crossed: the strategy declines."
    )
    write_header(figure, "False-positive rate at a nominal 5 %, where nothing is to be found", note)
    for row, strategy in enumerate(strategies):
        level = bottom + (len(strategies) - 1 - row) * (height + title)
        left = LEFT
        for contrast in CONTRASTS:
            own = designs[contrast]
            axes = axes_in_inches(figure, left, level, len(own) * cell_width, height)
            left += len(own) * cell_width + gap
            axes.set(xlim=(0, len(own)), ylim=(n_rows, 0), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            chosen = table[(table["strategy"] == strategy) & (table["contrast"] == contrast)]
            places = chosen[["k", "n", "structure", "icc", "rate_0.05"]].to_numpy()
            for k, n, structure, icc, rate in places:
                _draw_cell(axes, own.index((k, n)), rows[structure, icc], float(rate))
            for x in range(1, len(own)):
                if own[x][0] != own[x - 1][0]:
                    axes.axvline(x, color=INK, linewidth=0.8)
            if row == 0:
                axes.set_title(contrast, fontsize=FONT + 1, color=INK, pad=6, fontweight="bold")
            if row == len(strategies) - 1:
                _name_designs(axes, own, n_rows)
            if contrast == CONTRASTS[0]:
                _name_rows(axes, rows, strategy, iccs)
    handles = [Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.5, label=label) for _, colour, label in BINS]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=SMALL_FONT, frameon=False)
    return figure_to_png(figure)


def _draw_cell(axes: Axes, x: int, y: float, rate: float) -> None:
    declined = np.isnan(rate)
    colour = "white" if declined else next(colour for limit, colour, _ in BINS if rate <= limit)
    axes.add_patch(
        Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white" if not declined else "#dddddd", linewidth=0.5)
    )
    if declined:
        axes.plot([x + 0.2, x + 0.8], [y + 0.8, y + 0.2], color=MUTED, linewidth=0.6)
        axes.plot([x + 0.2, x + 0.8], [y + 0.2, y + 0.8], color=MUTED, linewidth=0.6)


def _name_designs(axes: Axes, designs: list[tuple[int, int]], n_rows: float) -> None:
    for x, (_, n) in enumerate(designs):
        write(axes, x + 0.5, n_rows + 0.3, str(n), ha="center", va="top", color=MUTED)
    for k in dict.fromkeys(k for k, _ in designs):
        places = [x for x, (own, _) in enumerate(designs) if own == k]
        write(axes, np.mean(places) + 0.5, n_rows + 1.7, f"{k} sessions", ha="center", va="top")


def _name_rows(axes: Axes, rows: dict[tuple[str, float], float], strategy: str, iccs: list[float]) -> None:
    left = -(LEFT - 0.12) / (axes.get_position().width * WIDTH_INCHES) * axes.get_xlim()[1]
    write(axes, left, -1.0, strategy, fontweight="bold", fontsize=FONT + 1, va="center")
    for (structure, icc), y in rows.items():
        if icc == iccs[0]:
            write(axes, left, y + 0.5, structure, va="center")
        write(axes, -0.25, y + 0.5, f"ICC {icc:g}", va="center", ha="right", color=MUTED)


# The page -------------------------------------------------------------------------------------------

PAGE = """# What is valid where

Made by `make validity` (`benchmarks/validity.py`): simulated studies in which nothing is to be found, {n_voxels}
voxels each, seed {seed}, analysed by every strategy for every session contrast. All numbers:
[validity.tsv](validity.tsv).

![False-positive rate of each strategy, by design](pictures/validity.png)

## Summary

Worst false-positive rate over {n_cells} designs, in percent at a nominal 5 %. **Bold**: above 5.5 %.

{worst_05}

The same in per mille at a nominal 1 ‰. **Bold**: above 1.7 ‰.

{worst_001}

{exceeding}

- **fixed-effects** keeps its rate wherever its participants' values mean the same thing. The exception is the mean
  where participants drop out and sessions truly differ (second number): each participant's own mean then depends on
  which sessions they have.
- **marginal** keeps its rate in all of these, is not biased by dropout, and of the strategies that keep their rate
  has the most power where sessions are missing. With few degrees of freedom it is conservative. Its limit is shown
  below: few participants, where dropout meets unequal variances.
- **mixed** keeps about 5 % for means, but not 1 ‰ with few participants. For differences and trends over three or
  more sessions it needs sphericity; random slopes and unequal variances break it. Where participants hardly differ
  (ICC 0) and are few, differences are a little liberal even where its model is true: its degrees of freedom take an
  estimated variance of zero at its word.
- **session-model** keeps its rate for the difference between two sessions. Its mean pools the maps of a participant
  as if they were of different people, which is wrong wherever the ICC is above zero; it is not to be reported unless
  the median ICC is below 0.05. Differences and trends over three or more sessions need sphericity. Its test over all
  sessions corrects for that: it keeps 5 %, not always 1 ‰.

## The designs

Effects of a participant's sessions are normal, with variance 1 and correlation ICC unless said otherwise.

- **compound symmetry**: all maps there, the same correlation between any two sessions.
- **random slopes**: besides, the change from first to last session varies between participants with standard
  deviation 1.
- **unequal variances**: the standard deviation rises evenly from 1 in the first to 3 in the last session.
- **unbalanced**: a quarter of the maps is missing at random; compound symmetry.
- **dropout**: half the participants leave for good, the first before the second session, the next before the third,
  and so on; compound symmetry. The true session effects rise evenly by 1 from the first to the last session, less
  what would make the null hypothesis of the question false: for a mean they sum to zero; for a difference first and
  last are equal (with five sessions the others differ); for a trend and for a test of any difference nothing is left.

False positives are two-sided for t, upper-tail for F. By chance alone about one valid result in a thousand exceeds
5.5 % or 1.7 ‰ in 20 000 voxels. So where fixed-effects or marginal did, that design was simulated again with
{confirm} times the voxels and other random numbers, and the second rate is the one given, whatever it is.

Power is for a true effect of three standard errors of the fixed-effects estimate, the same for every strategy; for
`any` a straight line over the sessions with that Mahalanobis length. Where fixed-effects declines, the best linear
unbiased estimate takes its place.

## Power

At p ≤ .05 and a noncentrality of 3, n = 20, mean over sessions and ICC. In parentheses where false positives exceed
5.5 % in one of these designs: such power is bought.

{power}

## What limits the recommended strategies

**Change that is not a straight line, with dropout.** All of the change (1) lies between the first and the second
session; half the participants leave; ICC 0.5. The mean of fixed-effects is biased as above, and so is its trend: a
participant's slope depends on which part of the curve was seen. The marginal model is not affected. False positives
in percent at 5 %:

{curved}

**Few participants, dropout and unequal variances at once.** No true session effects; standard deviations from 1 to 3;
half the participants leave; the worst over ICC 0, 0.5 and 0.9. The degrees of freedom of the marginal model are
the smaller of those of its working model of equal variances and those that each voxel shows; where very few
participants stay and vary more, they can still be too large.
False positives in percent at 5 %:

{both}

## All designs

False-positive rate in percent at a nominal 5 %, the worst over ICC 0, 0.5 and 0.9; the last column is the worst in ‰
at a nominal 1 ‰. **Bold**: above 5.5 %, or 1.7 ‰. A dash: declined at every ICC.

{all_designs}"""


def write_page(
    regular: pd.DataFrame,
    curved: pd.DataFrame,
    both: pd.DataFrame,
    n_voxels: int,
    confirm: int,
    seed: int,
    n_exceeding: int,
) -> str:
    """Write the page in Markdown.

    Parameters
    ----------
    regular : DataFrame
        One row per cell, session contrast and strategy.
    curved, both : DataFrame
        The same for the two designs that show the limits of the recommended strategies.
    n_voxels, confirm, seed : int
        Voxels per cell, times as many in the second look, and the seed.
    n_exceeding : int
        Results of the recommended strategies above the limits.
    """
    if n_exceeding:
        exceeding = f"**{n_exceeding} results of fixed-effects and marginal exceed 5.5 % or 1.7 ‰ in these designs.**"
    else:
        exceeding = "No result of fixed-effects and marginal exceeds 5.5 % or 1.7 ‰, but for the exception shown."
    recommended = ("fixed-effects", "marginal")
    return PAGE.format(
        n_voxels=f"{n_voxels:,}".replace(",", " "),
        seed=seed,
        confirm=confirm,
        n_cells=len(regular[["structure", "n", "k", "icc"]].drop_duplicates()),
        worst_05=_worst(regular, "rate_0.05", _percent),
        worst_001=_worst(regular, "rate_0.001", _per_mille),
        exceeding=exceeding,
        power=_power(regular),
        curved=_by_design(curved[curved["strategy"].isin(recommended)], with_001=False),
        both=_by_design(both[both["strategy"].isin(recommended)]),
        all_designs="\n\n".join(
            f"### {str(structure).capitalize()}\n\n{_by_design(group)}"
            for structure, group in regular.groupby("structure", sort=False)
        )
        + "\n",
    )


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(rate: float) -> str:
    return _emphasised(f"{100 * rate:.1f}", rate > ALLOWED, rate)


def _per_mille(rate: float) -> str:
    return _emphasised(f"{1000 * rate:.1f}", rate > 0.0017, rate)


def _emphasised(text: str, strong: bool, rate: float) -> str:
    return "–" if np.isnan(rate) else f"**{text}**" if strong else text


def _worst(table: pd.DataFrame, column: str, written: Callable[[float], str]) -> str:
    asked = {
        "mean": table["contrast"] == "mean",
        "difference, 2 sessions": (table["contrast"] == "last - first") & (table["k"] == 2),
        "difference, 3 or 5": (table["contrast"] == "last - first") & (table["k"] > 2),
        "linear": table["contrast"] == "linear",
        "any": table["contrast"] == "any",
    }
    rows = []
    for strategy in dict.fromkeys(table["strategy"]):
        cells = [strategy]
        for name, chosen in asked.items():
            own = table[chosen & (table["strategy"] == strategy)]
            dropout = own["structure"] == "dropout"
            if name == "mean" and strategy == "fixed-effects":
                cells.append(f"{written(own[column][~dropout].max())}; dropout {written(own[column][dropout].max())}")
            else:
                cells.append(written(own[column].max()))
        rows.append(cells)
    return _markdown(["", *asked], rows)


def _power(table: pd.DataFrame) -> str:
    chosen = table[table["n"] == 20]
    structures = list(dict.fromkeys(table["structure"]))
    rows = []
    for (contrast, strategy), group in chosen.groupby(["contrast", "strategy"], sort=False):
        cells = [f"{contrast}: {strategy}"]
        for structure in structures:
            own = group[group["structure"] == structure]
            power, inflated = own["power_0.05"].mean(), own["rate_0.05"].max() > ALLOWED
            cells.append("–" if np.isnan(power) else f"({100 * power:.0f} %)" if inflated else f"{100 * power:.0f} %")
        rows.append((CONTRASTS.index(contrast), cells))
    rows.sort(key=lambda row: row[0])
    return _markdown(["", *structures], [cells for _, cells in rows])


def _by_design(table: pd.DataFrame, with_001: bool = True) -> str:
    designs = sorted(set(zip(table["k"], table["n"], strict=True)))
    rows = []
    for contrast in CONTRASTS:
        for strategy in dict.fromkeys(table["strategy"]):
            own = table[(table["contrast"] == contrast) & (table["strategy"] == strategy)]
            cells = [f"{contrast}: {strategy}"]
            for k, n in designs:
                rates = own.loc[(own["k"] == k) & (own["n"] == n), "rate_0.05"]
                cells.append("" if rates.empty else _percent(rates.max()))
            rows.append(cells + ([_per_mille(own["rate_0.001"].max())] if with_001 else []))
    header = ["", *(f"k={k} n={n}" for k, n in designs)] + (["worst, ‰"] if with_001 else [])
    return _markdown(header, rows)

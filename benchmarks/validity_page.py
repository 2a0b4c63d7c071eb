"""The page and the picture of the validity study."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from scipy import stats
from starred import ALPHAS, DEFAULT, SILENT, STARRED

from sessionfx.report.charts import place, sheet
from sessionfx.report.style import INK, MUTED, in_style

CONTRASTS = ("mean", "last - first", "linear", "any")
ALLOWED = 0.055
# in percent and per mille: what a starred answer without a warning may have
LIMIT_PERCENT, LIMIT_PER_MILLE = 5.8, 2.0

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


@in_style()
def draw_validity(table: pd.DataFrame) -> bytes:
    """Draw the false-positive rates at .05 of all cells: one panel per strategy and session contrast.

    Parameters
    ----------
    table : DataFrame
        One row per question of the designs without covariates.

    Returns
    -------
    bytes
        PNG.
    """
    table = (
        by_strategy(table, DEFAULT)
        .rename(columns={"kind": "structure"})
        .assign(**{"rate_0.05": lambda long: long["%"] / 100})
    )
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
    gap, title, bottom, top = 0.16, 0.42, 0.95, 0.0
    cell_width = (WIDTH_INCHES - LEFT - 0.15 - gap * (len(CONTRASTS) - 1)) / sum(map(len, designs.values()))
    height = n_rows * CELL
    figure = sheet(
        "False-positive rate at a nominal 5 %, where nothing is to be found",
        WIDTH_INCHES,
        bottom + top + len(strategies) * (height + title),
        "One cell per simulated design; across: participants, for 2, 3 and 5 sessions. Crossed: the strategy declines.",
    )
    for row, strategy in enumerate(strategies):
        level = bottom + (len(strategies) - 1 - row) * (height + title)
        left = LEFT
        for contrast in CONTRASTS:
            own = designs[contrast]
            axes = place(figure, left, level, len(own) * cell_width, height)
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
                axes.set_title(contrast, fontsize=10, loc="center", pad=6, fontweight="bold")
            if row == len(strategies) - 1:
                _name_designs(axes, own, n_rows)
            if contrast == CONTRASTS[0]:
                _name_rows(axes, rows, strategy, iccs)
    handles = [Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.5, label=label) for _, colour, label in BINS]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), borderpad=0.2)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


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
        axes.text(x + 0.5, n_rows + 0.3, str(n), ha="center", va="top", color=MUTED)
    for k in dict.fromkeys(k for k, _ in designs):
        places = [x for x, (own, _) in enumerate(designs) if own == k]
        axes.text(np.mean(places) + 0.5, n_rows + 1.7, f"{k} sessions", ha="center", va="top")


def _name_rows(axes: Axes, rows: dict[tuple[str, float], float], strategy: str, iccs: list[float]) -> None:
    left = -(LEFT - 0.12) / (axes.get_position().width * WIDTH_INCHES) * axes.get_xlim()[1]
    axes.text(left, -1.0, strategy, fontweight="bold", fontsize=10, va="center")
    for (structure, icc), y in rows.items():
        if icc == iccs[0]:
            axes.text(left, y + 0.5, structure, va="center")
        axes.text(-0.25, y + 0.5, f"ICC {icc:g}", va="center", ha="right", color=MUTED)


# The page -------------------------------------------------------------------------------------------

PAGE = """# What is valid where

Made by `make validity` (`benchmarks/validity.py`): simulated studies in which nothing is to be found, analysed as the
program does it. {n_situations} designs, {n_questions} questions, {n_voxels} independent voxels for each of the designs
without covariates and half as many for the others, seed {seed}. All numbers: [validity.tsv](validity.tsv).

## The starred answer

For each kind of design: the share of studies in which the starred answer comes with a warning in words, its worst
false-positive rate without a warning (in percent at a nominal 5 %, in per mille at 1 ‰) and with one, and the worst
rate of each strategy. **Bold**: above {limit_percent} % or {limit_per_mille:g} ‰.

{starred}

{exceeding}

A warning came in {share} of the studies: in {needed} where the starred answer exceeds {limit_percent} % or
{limit_per_mille:g} ‰, and in {needless} where it does not. In {unanswered} questions no strategy has an answer.

The rules of the verdict were found on designs like these. In 60 designs drawn at random, which had no part in that
(`benchmarks/validity.py --kinds 'drawn at random'`, 229 questions), two starred answers without a warning exceed the
limits (5.8 and 6.3 %). Both are about a score, and participants with higher scores vary more. A warning does not make
an answer right: if people leave because they change, and two sessions cannot show it, every strategy is biased.

## Each strategy, without covariates and groups

![False-positive rate of each strategy, by design](pictures/validity.png)

Worst false-positive rate over {n_ordinary} designs, in percent at a nominal 5 %. **Bold**: above 5.5 %.

{worst_05}

The same in per mille at a nominal 1 ‰. **Bold**: above 1.7 ‰.

{worst_001}

- **summary-statistics** keeps its rate wherever its participants' values mean the same thing. The exception is the mean
  where participants drop out and sessions truly differ (second number): each participant's own mean then depends on
  which sessions they have. So does a participant's own trend where change is no straight line ({trend} %).
- **marginal** keeps its rate in all of these, and of the strategies that keep their rate has the most power where
  sessions are missing. With few degrees of freedom it is conservative. It is limited by few participants in a session
  whose maps vary more than those of other sessions: {few} % at worst.
- **mixed** keeps about 5 % for means, but not 1 ‰ with few participants. For differences and trends over three or
  more sessions it needs sphericity; random slopes and unequal variances break it. Where participants hardly differ
  (ICC 0) and are few, differences are a little liberal even where its model is true: its degrees of freedom treat an
  estimated variance of zero as known.
- **session-model** keeps its rate for the difference between two sessions. Its mean pools the maps of a participant
  as if they were of different people, which is wrong wherever the ICC is above zero; it is not to be reported unless
  the median ICC is below 0.05. Differences and trends over three or more sessions need sphericity. Its test over all
  sessions corrects for that: it keeps 5 %, not always 1 ‰.

## Power

At p ≤ .05 for a true effect of three standard errors of the summary-statistics estimate (for `any` a straight line of
that Mahalanobis length), n = 20, mean over sessions and ICC. In parentheses where false positives exceed 5.5 % in one
of these designs: such power is bought.

{power}

The starred answer loses at most {loss:.1f} points (mean over ICC, all {n_ordinary} designs) to the better of
summary-statistics and marginal, of those that keep their rate there.

## Small p

Rejections over expected rejections at smaller nominal rates, in {n_tail} voxels: 1 is right. In the last column the
95 % interval of a right one at 1e-5 is {tail_low:.2f} to {tail_high:.2f}.

{tails}

## The designs

Maps of a participant are normal, have variance 1 and correlate by the ICC (0.5) unless said otherwise. Everyone has
every session unless said otherwise.

- **compound symmetry**: n 6–40, 2–5 sessions, ICC 0, 0.5, 0.9. So in the next six kinds.
- **random slopes**: the change from first to last session varies over participants with standard deviation 1.
- **unequal variances**: the standard deviation rises from 1 in the first to 3 in the last session.
- **unbalanced**: a quarter of the maps is missing at random.
- **dropout**: half leave, the first before the second session, the next before the third, and so on. The true session
  effects rise by 1 from first to last, less what would make the null hypothesis false. **Change at once**: all of the
  change is between the first two sessions. **And unequal variances**: no true effects, standard deviations from 1 to 3.
- **groups**: patients and controls of 3:20 to 30:30; the smaller group varies ½ to 4 times as much. **Missing maps**: a
  fifth is missing, half of the patients leave, or no patient has the last session.
- **covariate**: a normal score; one participant 6 standard deviations from the others; who varies 3 times as much.
- **measured time**: `linear(days)` with equal, unequal and jittered spacing, with a spacing for each participant or for
  patients; ages over 40 years, where cohorts differ by 0.5 standard deviations and nobody changes.
- **session covariate**: a score that goes with participants' levels (0.5 standard deviations), and may drift.
- **dropout of half**: at random; of those with higher levels (by 1 standard deviation); of those who change more.
- **few who stay**: 6 to 20 of 30 or 60 have the third session; standard deviations 1, 1, 1; 1, 1, 4; 1, 2, 3. **Many,
  leaving, unequal variances**: 40 to 80 participants, a quarter or half leave, standard deviations 1 to 3.
- **t3, lognormal, exponential**: of levels, changes and errors; n 6–80, and groups.
- **autoregressive .5, random walk, slopes that differ**: five sessions, complete and with a quarter missing.
- **smooth maps**: some of these as studies of 300 independent voxels instead of {usual}. About so many has a smooth
  brain, and evidence from them is uncertain. Elsewhere evidence is of 500 voxels of a study (the program: 4,000).

Power and false positives are two-sided for t, upper-tail for F. Where a rate exceeds 5.5 % or 1.7 ‰, by chance about
one in a thousand valid results, the design is simulated again with {confirm} times the voxels and other random numbers,
and the second rate is the one given, whatever it is.
"""


def by_strategy(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Give every strategy a row of its own: `strategy`, `%`, `‰`, `power`."""
    shared = ["kind", "situation", "n", "k", "icc", "ratio", "contrast", "group", "star", "warned"]
    parts = []
    for name in names:
        part = table[shared].assign(strategy=name, **{"%": table[f"{name} %"], "‰": table[f"{name} ‰"]})
        parts.append(part.assign(power=table.get(f"power of {name} %", np.nan)))
    return pd.concat(parts, ignore_index=True)


def is_kept(percent: pd.Series, per_mille: pd.Series) -> pd.Series:
    """Whether rates are within the limits."""
    return (percent <= LIMIT_PERCENT) & (per_mille <= LIMIT_PER_MILLE)


def power_loss(table: pd.DataFrame) -> pd.Series:
    """Find how many points of power the starred answer has less than the better of summary-statistics and marginal.

    Mean over ICC. Only of those that keep their rate in the very design; other strategies keep theirs under conditions
    that no design tells.
    """
    best = pd.concat(
        [
            table[f"power of {name} %"].where(is_kept(table[f"{name} %"], table[f"{name} ‰"]))
            for name in ("summary-statistics", "marginal")
        ],
        axis=1,
    ).max(axis=1)
    loss = best - table[f"power of {STARRED} %"]
    return loss.groupby([table[name] for name in ("kind", "n", "k", "contrast")]).transform("mean")


def write_page(
    table: pd.DataFrame,
    tails: pd.DataFrame,
    failed: pd.DataFrame,
    ordinary: Sequence[str],
    n_voxels: int,
    confirm: int,
    seed: int,
) -> str:
    """Write the page in Markdown.

    Parameters
    ----------
    table : DataFrame
        One row per situation and question.
    tails : DataFrame
        Counts of rejections in millions of voxels.
    failed : DataFrame
        Rows of the table in which a starred answer without a warning exceeds the limits.
    ordinary : sequence of str
        Kinds without covariates: the regular ones, and the last two, which show limits.
    n_voxels, confirm, seed : int
        Voxels per cell, times as many in the second look, and the seed.
    """
    regular = table[table["kind"].isin(ordinary[:-2])]
    long = by_strategy(table, DEFAULT)
    curved, both = (long[long["kind"] == kind] for kind in ordinary[-2:])
    answered = table[table[f"{STARRED} %"].notna()]
    kept = is_kept(answered[f"{STARRED} %"], answered[f"{STARRED} ‰"])
    expected = tails["n_voxels"].max() * min(ALPHAS)
    return PAGE.format(
        n_voxels=_thousands(n_voxels),
        seed=seed,
        confirm=confirm,
        n_situations=len(table[["kind", "situation", "icc", "ratio"]].drop_duplicates()),
        n_questions=_thousands(len(table)),
        n_ordinary=len(regular[["kind", "n", "k", "icc"]].drop_duplicates()),
        limit_percent=LIMIT_PERCENT,
        limit_per_mille=LIMIT_PER_MILLE,
        starred=_starred(table),
        exceeding=_exceeding(failed),
        share=f"{100 * answered['warned'].mean():.0f} %",
        needless=f"{100 * answered['warned'][kept].mean():.0f} %",
        needed=f"{100 * answered['warned'][~kept].mean():.0f} %",
        unanswered=len(table) - len(answered),
        worst_05=_worst(by_strategy(regular, DEFAULT), "%", lambda rate: _bold(rate, 5.5)),
        worst_001=_worst(by_strategy(regular, DEFAULT), "‰", lambda rate: _bold(rate, 1.7)),
        trend=_worst_of(curved, "summary-statistics", "linear"),
        few=_worst_of(both, "marginal"),
        power=_power(by_strategy(regular, (*DEFAULT, STARRED))),
        loss=power_loss(regular).max(),
        n_tail=_thousands(int(tails["n_voxels"].max())),
        tail_low=float(stats.poisson.ppf(0.025, expected) / expected),
        tail_high=float(stats.poisson.ppf(0.975, expected) / expected),
        tails=_tails(tails),
        usual="10 000",
    )


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bold(rate: float, limit: float) -> str:
    text = f"{rate:.1f}"
    return "–" if np.isnan(rate) else f"**{text}**" if rate > limit else text


def _worst_of(long: pd.DataFrame, strategy: str, contrast: str = "") -> str:
    chosen = (long["strategy"] == strategy) & ((long["contrast"] == contrast) | (contrast == ""))
    return f"{long['%'][chosen].max():.1f}"


def _starred(table: pd.DataFrame) -> str:
    rows = []
    for kind, group in table[table[f"{STARRED} %"].notna()].groupby("kind", sort=False):
        warned = group[group["warned"] > 0]
        rows.append([
            str(kind), str(len(group)), f"{100 * group['warned'].mean():.0f} %",
            _bold(group[f"{SILENT} %"].max(), LIMIT_PERCENT), _bold(group[f"{SILENT} ‰"].max(), LIMIT_PER_MILLE),
            _bold(warned[f"{STARRED} %"].max(), LIMIT_PERCENT), _bold(warned[f"{STARRED} ‰"].max(), LIMIT_PER_MILLE),
            *(_bold(group[f"{name} %"].max(), LIMIT_PERCENT) for name in DEFAULT),
        ])  # fmt: skip
    header = [
        "",
        "questions",
        "warned",
        "silent, %",
        "silent, ‰",
        "warned, %",
        "warned, ‰",
        *(f"{n}, %" for n in DEFAULT),
    ]
    return _markdown(header, rows)


def _exceeding(failed: pd.DataFrame) -> str:
    if failed.empty:
        return f"No starred answer without a warning exceeds {LIMIT_PERCENT} % or {LIMIT_PER_MILLE:g} ‰."
    rows = [
        [f"{row['kind']}: {row['situation']}" + (f", sd {row['ratio']:g}" if row["ratio"] == row["ratio"] else ""),
         f"{row['contrast']} × {row['group']}", str(row["star"]), f"{100 * row['warned']:.0f} %",
         _bold(row[f"{SILENT} %"], LIMIT_PERCENT), _bold(row[f"{SILENT} ‰"], LIMIT_PER_MILLE)]
        for _, row in failed.iterrows()
    ]  # fmt: skip
    return f"**{len(failed)} starred answers exceed the limits without a warning:**\n\n" + _markdown(
        ["design", "question", "star", "warned", "silent, %", "silent, ‰"], rows
    )


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
            dropout = own["kind"] == "dropout"
            if name == "mean" and strategy == "summary-statistics":
                cells.append(f"{written(own[column][~dropout].max())}; dropout {written(own[column][dropout].max())}")
            else:
                cells.append(written(own[column].max()))
        rows.append(cells)
    return _markdown(["", *asked], rows)


def _power(table: pd.DataFrame) -> str:
    chosen = table[table["n"] == 20]
    kinds = list(dict.fromkeys(table["kind"]))
    rows = []
    for (contrast, strategy), group in chosen.groupby(["contrast", "strategy"], sort=False):
        cells = [f"{contrast}: {strategy}"]
        for kind in kinds:
            own = group[group["kind"] == kind]
            power, inflated = own["power"].mean(), own["%"].max() > 100 * ALLOWED
            cells.append("–" if np.isnan(power) else f"({power:.0f} %)" if inflated else f"{power:.0f} %")
        rows.append((CONTRASTS.index(contrast), cells))
    rows.sort(key=lambda row: row[0])
    return _markdown(["", *kinds], [cells for _, cells in rows if set(cells[1:]) != {"–"}])


def _tails(tails: pd.DataFrame) -> str:
    rows = []
    for _, row in tails.iterrows():
        words = f"{row['kind']}, {row['situation']}" + (
            f", sd {row['ratio']:g}" if row["ratio"] == row["ratio"] else ""
        )
        words += f": {row['contrast']}" + (f" × {row['group']}" if row["group"] != "intercept" else "")
        for name in ("summary-statistics", "marginal"):
            star = " (starred, with a warning)" if row["warned"] else " (starred)"
            ratios = [row[f"{name} {alpha:g}"] / (alpha * row["n_voxels"]) for alpha in ALPHAS]
            rows.append(
                [f"{words}: {name}{star if row['star'] == name else ''}", *(f"{ratio:.2f}" for ratio in ratios)]
            )
    return _markdown(["", *(f"{alpha:g}" for alpha in ALPHAS)], rows)

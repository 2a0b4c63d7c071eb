"""Make the pictures of docs/strategies.md from docs/validity.tsv (of `make validity`) and by `sessionfx.power`.

usage: strategy_pictures.py  (writes docs/pictures/strategies.svg and power.svg)
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import sessionfx
from sessionfx.group.strategies import STRATEGIES
from sessionfx.report.style import CATEGORIES, MUTED, as_svg, in_style

DOCS = Path(__file__).parents[1] / "docs"
# title, kind of design, session contrast
PANELS = (
    ("mean; nothing else is wrong", "compound symmetry", "mean"),
    ("trend; people change differently", "random slopes", "linear"),
    ("mean; half leave, sessions differ", "dropout", "mean"),
)


def false_positives(table: pd.DataFrame) -> tuple[Figure, str]:
    """Draw false positives of each strategy by ICC."""
    figure = Figure(figsize=(8.0, 2.9), layout="constrained")
    strategies = [name for name, strategy in STRATEGIES.items() if strategy.is_default]
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, (title, kind, contrast) in zip(axes, PANELS, strict=True):
        rows = table[(table["kind"] == kind) & (table["contrast"] == contrast)]
        axis.axhline(5, color=MUTED, linewidth=0.8, linestyle="dashed")
        for number, (name, marker) in enumerate(zip(strategies, "osD^", strict=True)):
            # equal lines lie in each other: the later the thinner
            axis.plot(
                rows["icc"], rows[f"{name} %"], color=CATEGORIES[number], marker=marker, label=name,
                linewidth=5.5 - 1.5 * number, markersize=8 - 1.5 * number,
            )  # fmt: skip
        axis.set(title=title, xlabel="ICC", xticks=rows["icc"], ylim=(0, 27))
    axes[0].set_ylabel("false positives, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return (
        figure,
        "False positives of each strategy by intraclass correlation, at a nominal 5 %, in three kinds of design",
    )


def main() -> None:
    """Make the pictures."""
    with in_style():
        figure, alt = false_positives(pd.read_csv(DOCS / "validity.tsv", sep="\t").query("n == 20 and k == 3"))
        (DOCS / "pictures" / "strategies.svg").write_bytes(as_svg(figure, alt).content)
    table = sessionfx.power(
        [12, 20, 30, 40], 3, effect=0.5, missing=0.25, contrasts=["mean", "linear"], n_voxels=20_000
    )  # fmt: skip
    sessionfx.draw_power(table, DOCS / "pictures" / "power.svg")


if __name__ == "__main__":
    main()

"""The figures that sentences quote are those of the simulations: docs/validity.tsv, `sessionfx.group.validity`, docs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from sessionfx.group import validity
from sessionfx.group.strategies import mixed, session_model

ROOT = Path(__file__).parents[2]
REGULAR = ("compound symmetry", "random slopes", "unequal variances", "unbalanced", "dropout")
CONSTANTS = {
    value for name, value in vars(validity).items() if name.isupper() and isinstance(value, float) and value > 1
}
NOMINAL = 5.0
PERCENT = re.compile(r"(\d+(?:\.\d+)?) %")


def table() -> pd.DataFrame:
    return pd.read_csv(ROOT / "docs" / "validity.tsv", sep="\t")


def worst(strategies: list[str], contrast: str, where: str = "kind in @REGULAR") -> float:
    chosen = table().query(f"contrast == @contrast and {where}", local_dict={"REGULAR": REGULAR, "contrast": contrast})
    assert len(chosen)
    return round(float(chosen[[f"{name} %" for name in strategies]].max(axis=None)), 1)


MANY, TWO = "k > 2 and kind in @REGULAR", "k == 2 and kind in @REGULAR"


@pytest.mark.parametrize(
    ("quoted", "strategies", "contrast", "where"),
    [
        (validity.DROPOUT_MEAN, ["summary-statistics"], "mean", "kind == 'dropout'"),
        (validity.DROPOUT_TREND, ["summary-statistics"], "linear", "kind == 'dropout, change at once'"),
        (validity.FEW_AND_UNEQUAL, ["marginal"], "mean", "kind == 'dropout and unequal variances'"),
        (validity.POOLED_MEAN, ["session-model"], "mean", MANY),
        (validity.DIFFERENCE, ["session-model", "mixed"], "last - first", MANY),
        (validity.TREND, ["session-model", "mixed"], "linear", MANY),
        (validity.MIXED_MEAN, ["mixed"], "mean", "kind in @REGULAR"),
        (validity.MIXED_DIFFERENCE_OF_TWO, ["mixed"], "last - first", TWO),
        (validity.SESSION_MODEL_DIFFERENCE_OF_TWO, ["session-model"], "last - first", TWO),
        (validity.SESSION_MODEL_ANY, ["session-model"], "any", "kind in @REGULAR"),
    ],
)
def test_a_figure_is_the_worst_rate_of_the_table(
    quoted: float, strategies: list[str], contrast: str, where: str
) -> None:
    assert quoted == worst(strategies, contrast, where)


def test_what_is_kept_is_the_worst_rate_of_the_strategies_that_keep_it() -> None:
    contrasts = ("mean", "last - first", "linear", "any")
    rates = [worst(["marginal"], contrast) for contrast in contrasts]
    rates += [worst(["summary-statistics"], contrast) for contrast in contrasts if contrast != "mean"]
    rates.append(worst(["summary-statistics"], "mean", "kind in @REGULAR and kind != 'dropout'"))
    assert max(rates) == validity.KEPT


def test_a_starred_answer_without_a_warning_keeps_its_rate() -> None:
    silent = table()[["starred, no warning %", "starred, no warning ‰"]].max()
    assert list(silent.round(1)) == [validity.SILENT_STAR, validity.SILENT_STAR_PER_MILLE]
    assert validity.SILENT_STAR <= 5.8
    assert validity.SILENT_STAR_PER_MILLE <= 2.0


def lines_between(path: Path, start: str, end: str) -> str:
    text = path.read_text(encoding="utf-8")
    begin = text.index(start)
    return text[begin : text.index(end, begin)]


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        pytest.param(
            lines_between(ROOT / "docs" / "strategies.md", "## What to remember", "How each of these"),
            {
                validity.SILENT_STAR,
                validity.KEPT,
                validity.DROPOUT_MEAN,
                validity.POOLED_MEAN,
                validity.DIFFERENCE,
                validity.TREND,
            },
            id="strategies",
        ),
        pytest.param(
            lines_between(
                ROOT / "docs" / "statistics.md", "| question | strategy | worst rate", "Of the other codings"
            ),
            CONSTANTS - {validity.FEW_AND_UNEQUAL, validity.SILENT_STAR, validity.SILENT_STAR_PER_MILLE},  # below
            id="statistics",
        ),
        pytest.param(mixed.COMPOUND_SYMMETRY, {validity.DIFFERENCE, validity.TREND}, id="caution of mixed"),
        pytest.param(session_model.SPHERICITY, {validity.DIFFERENCE, validity.TREND}, id="caution on sphericity"),
        pytest.param(session_model.POOLING, {validity.POOLED_MEAN}, id="caution on pooling"),
    ],
)
def test_sentences_quote_these_figures_and_no_others(text: str, figures: set[float]) -> None:
    assert set(map(float, PERCENT.findall(text))) - {NOMINAL} == figures


def test_the_limits_of_marginal_are_quoted_in_statistics() -> None:
    text = lines_between(ROOT / "docs" / "statistics.md", "What limits marginal", "### The verdict")
    assert validity.FEW_AND_UNEQUAL in set(map(float, re.findall(r"\d+\.\d+", text)))


def test_the_starred_answer_is_quoted_in_statistics() -> None:
    text = " ".join(lines_between(ROOT / "docs" / "statistics.md", "### The verdict", "For each question").split())
    assert f"at most {validity.SILENT_STAR:g} % false positives" in text
    assert f"and {validity.SILENT_STAR_PER_MILLE:g} ‰ at 1 ‰" in text


def test_all_say_alike_when_the_mean_of_the_session_model_may_be_reported() -> None:
    limit = f"{validity.NEGLIGIBLE_ICC:g}"
    assert f"unless the median ICC is below {limit}" in session_model.POOLING
    for name in ("docs/strategies.md", "docs/statistics.md", "docs/validity.md", "benchmarks/validity_page.py"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        assert f"unless the median ICC is below {limit}" in text, name
    assert f"`mean` where the ICC is below {limit}" in (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_no_sentence_of_the_program_writes_such_a_figure_itself() -> None:
    for folder in ("strategies", "group"):
        for path in sorted((ROOT / "src" / "sessionfx" / folder).glob("*.py")):
            written = set(map(float, PERCENT.findall(path.read_text(encoding="utf-8"))))
            assert not written & CONSTANTS, path

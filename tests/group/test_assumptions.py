"""What the strategies assume stands beside them in the code; docs and page show it and nothing else."""

from __future__ import annotations

from pathlib import Path

from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.strategy import assumptions_table

STATISTICS = Path(__file__).parents[2] / "docs" / "statistics.md"
START, END = "<!-- assumptions -->\n", "<!-- end of assumptions -->"


def as_markdown() -> str:
    rows = assumptions_table(STRATEGIES)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_table_of_assumptions_in_the_docs_is_that_of_the_strategies() -> None:
    text = STATISTICS.read_text(encoding="utf-8")
    table = text[text.index(START) + len(START) : text.index(END)]
    assert table == as_markdown(), f"docs/statistics.md should have between its marks:\n{as_markdown()}"


def test_every_strategy_states_something_of_everything_in_words_that_a_page_and_a_table_can_hold() -> None:
    for row in assumptions_table(STRATEGIES):
        for name, phrase in row.items():
            assert 0 < len(phrase) < 200, (name, phrase)
            assert not set(phrase) & set("`|<\n"), phrase
            assert not phrase.endswith("."), phrase

"""What is particular to a strategy stands in its file; docs and page show it, and nobody else names a strategy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sessionfx
from sessionfx.group import strategies
from sessionfx.group.strategies import REFERENCE, STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.group.strategies.meta import Meta
from sessionfx.group.strategies.strategy import Strategy, assumptions_table
from sessionfx.report.methods import GroupWork
from sessionfx.report.references import read_references

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


def test_a_strategy_without_a_judgement_cannot_be_made() -> None:
    class Incomplete(Meta):
        judge = Strategy.judge

    with pytest.raises(TypeError, match="judge"):
        Incomplete()  # type: ignore[abstract]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_strategy_says_all_that_others_ask_of_it(name: str) -> None:
    strategy = STRATEGIES[name]
    assert strategy.full_title.startswith(strategy.title)
    assert set(strategy.compared_with) <= set(STRATEGIES) - {name}
    _, works = strategy.methods(GroupOptions(), GroupWork(any_session=True))
    assert works and set(works) <= set(read_references())


def test_no_two_strategies_are_preferred_alike_and_the_robust_ones_come_first() -> None:
    by_preference = sorted(STRATEGIES.values(), key=lambda strategy: strategy.preference)
    assert len({strategy.preference for strategy in by_preference}) == len(by_preference)
    robust = [strategy for strategy in by_preference if strategy.is_robust]
    assert by_preference[: len(robust)] == robust
    assert REFERENCE in robust


def test_no_strategy_is_named_outside_its_folder() -> None:
    """But in the options, and in texts for people; `meta` is also a kind of node in BIDS Stats Models."""
    own, root = Path(strategies.__path__[0]), Path(sessionfx.__path__[0])
    names = "|".join(f'"{name}"' for name in STRATEGIES if name != "meta")
    classes = "|".join(type(strategy).__name__ for strategy in STRATEGIES.values())
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if own not in path.parents and path.parts[-2] != "options"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"{names}|import .*\b({classes})\b|isinstance\(.*Plan\b", line)
    ]
    assert not found

"""Every point of docs/conformance.md names a test that there is, or says that it is not met."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/conformance.md").read_text(encoding="utf-8")
ROWS = [line for line in re.findall(r"(?m)^\|.*\|$", PAGE) if not re.match(r"\|(?:---|\s(?:point|platform) \|)", line)]


def test_every_point_is_shown_by_a_test_or_said_not_to_be_met() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if "`test_" not in row.rsplit(" | ", 1)[-1] and "not met" not in row] == []


def test_every_test_that_is_named_is_there() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    there = set(re.findall(r"(?m)^def (test_\w+)", sources))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - there == set()

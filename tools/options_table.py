"""The table of all options in docs/usage.md, made anew from the table in the program with `make boutiques`."""

from __future__ import annotations

import re
from pathlib import Path

from sessionfx.options.table import SECTIONS, Option, Takes

PAGE = Path(__file__).parents[1] / "docs" / "usage.md"
BEGIN, END = "<!-- options: made by tools/options_table.py -->", "<!-- end of options -->"


def render_page(page: str) -> str:
    """Put the current table between the marks of a page."""
    sections = [(title, options) for title, options in SECTIONS.items() if any(option.is_in_file for option in options)]
    text = "\n\n".join(f"### {title.capitalize()}\n\n{_table(options)}" for title, options in sections)
    return re.sub(f"(?<={BEGIN}\n).*(?={END})", lambda _: f"\n{text}\n\n", page, flags=re.DOTALL)


def _table(options: tuple[Option, ...]) -> str:
    rows = [("option", "value", "default", "meaning"), ("---",) * 4, *map(_row, options)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(option: Option) -> tuple[str, str, str, str]:
    name = ", ".join(f"`{flag}`" for flag in option.flags)
    value = " ".join(filter(None, (option.value.words, option.unit))) if option.has_value else ""
    more = {Takes.SEVERAL: "; several", Takes.ONE_REPEATED: "; repeatable", Takes.NONE_REPEATED: "repeatable"}
    default = option.otherwise or (f"`{option.default_words}`" if option.default_words else "")
    return name, value + more.get(option.takes, ""), default, option.help.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

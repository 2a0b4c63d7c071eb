"""The tables of docs/options.md and docs/exit_codes.md, made anew from those in the program with `make boutiques`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sessionfx.errors import KINDS, meaning
from sessionfx.options.table import SECTIONS, Option, Takes

DOCS = Path(__file__).parents[1] / "docs"


def options_page() -> tuple[Path, str]:
    """Put the current table of options between the marks of its page."""
    sections = [(title, options) for title, options in SECTIONS.items() if any(option.is_in_file for option in options)]
    head = ("option", "value", "default", "meaning")
    tables = (f"## {title.capitalize()}\n\n{_table(head, map(_row, options))}" for title, options in sections)
    return _page("options.md", "\n\n".join(tables))


def exit_codes_page() -> tuple[Path, str]:
    """Put the current table of exit codes between the marks of its page."""
    rows = ((str(kind.exit_code), meaning(kind).rstrip("."), kind.remedy) for kind in KINDS)
    return _page("exit_codes.md", _table(("code", "meaning", "what to do"), rows))


def _page(name: str, text: str) -> tuple[Path, str]:
    page = (DOCS / name).read_text(encoding="utf-8")
    marks = "<!-- made by tools/options_table.py -->\n", "<!-- end -->"
    before, _, rest = page.partition(marks[0])
    return DOCS / name, f"{before}{marks[0]}\n{text}\n\n{marks[1]}{rest.partition(marks[1])[2]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _row(option: Option) -> tuple[str, str, str, str]:
    name = ", ".join(f"`{flag}`" for flag in option.flags)
    value = " ".join(filter(None, (option.value.words, option.unit))) if option.has_value else ""
    more = {Takes.SEVERAL: "; several", Takes.ONE_REPEATED: "; repeatable", Takes.NONE_REPEATED: "repeatable"}
    default = option.otherwise or (f"`{option.default_words}`" if option.default_words else "")
    return name, value + more.get(option.takes, ""), default, option.help.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in (options_page(), exit_codes_page()):
        path.write_text(text, encoding="utf-8")

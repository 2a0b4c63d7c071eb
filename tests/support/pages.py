"""Reading report pages."""

from __future__ import annotations

from pathlib import Path

import html5lib


def parse(page: Path) -> object:
    """Parse strictly: any error in the HTML raises."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page.read_text(encoding="utf-8"))


def text_of(page: Path) -> str:
    return " ".join("".join(parse(page).itertext()).split())

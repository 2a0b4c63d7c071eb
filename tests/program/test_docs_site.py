"""The documentation site: built strictly, without a network; all it loads is its own, and every link in it leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import sessionfx
from docs_site import ROOT, build_site

pytestmark = pytest.mark.slow

# what a browser fetches by itself, without a click
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("link", "href")}


@dataclass
class Html(HTMLParser):
    """The anchors of a page, what it loads and where it leads."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value or "")
            elif (tag, name) in LOADED:
                self.loaded.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")
            elif name == "class":
                self.classes.update((value or "").split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in site.rglob("*.html")}


def target(path: Path, link: str, site: Path) -> Path:
    """The file that a link on a page leads to; those of 404.html begin at the root."""
    return site / link.lstrip("/") if link.startswith("/") else (path.parent / link).resolve()


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site: Path, pages: dict[Path, Html]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            to = target(path, unquote(parts.path), site) if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            anchor = unquote(parts.fragment)
            if not to.is_file() or (anchor and anchor not in pages[to].anchors):
                broken.append(f"{path.name}: {link}")
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 500


def test_all_that_pages_load_lies_in_the_site(site: Path, pages: dict[Path, Html]) -> None:
    for path, page in pages.items():
        for link in page.loaded:
            parts = urlsplit(link)
            assert (not parts.scheme and not parts.netloc) or parts.scheme == "data", f"{path.name}: {link}"
            assert parts.scheme or target(path, unquote(parts.path), site).exists(), f"{path.name}: {link}"
        # what the theme's script would fetch from elsewhere
        assert "mermaid" not in page.classes, path.name


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        for link in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", path.read_text(encoding="utf-8")):
            assert link.startswith(("data:", "#")) or (path.parent / urlsplit(link).path).is_file(), (
                f"{path.name}: {link}"
            )


def test_every_public_name_is_in_the_reference(site: Path, pages: dict[Path, Html]) -> None:
    names = {f"sessionfx.{name}" for name in sessionfx.__all__ if not name.startswith("_")}
    assert names <= pages[site / "api.html"].anchors


def test_formulas_are_mathml(pages: dict[Path, Html]) -> None:
    assert not [path.name for path, page in pages.items() if "arithmatex" in page.classes]


def crowded_lists() -> Iterator[tuple[str, int, str]]:
    """Lines that Markdown on GitHub and here would read in two ways: lists that no empty line precedes."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        before, is_code = "", False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            is_code ^= line.startswith("```")
            if not is_code and re.match(r"([-*]|\d+\.) ", line) and re.match(r"[^\s\-*\d|]", before):
                yield path.name, number, line
            before = line


def test_lists_stand_by_themselves() -> None:
    assert not list(crowded_lists())

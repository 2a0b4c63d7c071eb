"""A release: one version in all that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sessionfx import __version__

REPOSITORY = Path(__file__).parents[2]
NUMBER = r"(\d+\.\d+\.\d+(?:[a-z]+\d+)?)"
# what stands before the version in each file
NAMED_IN = {
    "Dockerfile": r"sessionfx/sessionfx:|ARG VERSION=",
    "CITATION.cff": r'^version: "',
    "boutiques.json": r'"tool-version": "|sessionfx/sessionfx:',
    "platforms/brainlife/package.json": r'^  "version": "',
    "platforms/brainlife/main": r"sessionfx/sessionfx:",
    "docs/outputs.md": r'"Name": "SessionFX", "Version": "',
}


@pytest.mark.parametrize("name", NAMED_IN)
def test_version_is_that_of_the_package_in(name: str) -> None:
    found = re.findall(f"(?:{NAMED_IN[name]}){NUMBER}", _text(name), re.MULTILINE)
    assert found
    assert set(found) == {__version__}


def test_every_tag_of_the_image_in_documentation_and_platforms_is_this_version() -> None:
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("platforms/*/*")]
    tags = {tag for path in files for tag in re.findall(rf"sessionfx[:_-]{NUMBER}", path.read_text(encoding="utf-8"))}
    assert tags <= {__version__}


def test_changelog_has_a_section_for_this_version() -> None:
    assert re.search(rf"(?m)^## {re.escape(__version__)} \(.+\)$", _text("CHANGELOG.md"))


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")

"""A release: one version in all that names it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

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


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    notes = tmp_path / "tools/release-notes"
    notes.write_text(_text("tools/release-notes"), encoding="utf-8")
    notes.chmod(0o755)
    (tmp_path / "src/sessionfx").mkdir(parents=True)
    (tmp_path / "src/sessionfx/__init__.py").write_text('__version__ = "1.2.3"\n')

    def call(tag: str, heading: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "CHANGELOG.md").write_text(
            f"# Changelog\n\n{heading}\n\n- New.\n\n## 1.2.2 (2026-01-01)\n\n- Old.\n"
        )
        return subprocess.run([notes, tag], capture_output=True, text=True, check=False)

    assert call("v1.2.3", "## 1.2.3 (2026-02-03)").stdout.strip() == "- New."
    for tag, heading in (("v1.2.4", "## 1.2.3 (2026-02-03)"), ("v1.2.3", "## 1.2.3 (unreleased)")):
        assert call(tag, heading).returncode == 1


def test_the_archive_describes_a_release_as_its_citation_file_does() -> None:
    archive, citation = json.loads(_text(".zenodo.json")), yaml.safe_load(_text("CITATION.cff"))
    assert archive["upload_type"] == citation["type"] == "software"
    assert [creator["name"] for creator in archive["creators"]] == [author["name"] for author in citation["authors"]]
    assert archive["license"] == citation["license"]
    assert archive["keywords"] == citation["keywords"]
    assert (archive["title"], archive["description"]) == (citation["title"], citation["abstract"])
    assert [work["identifier"] for work in archive["related_identifiers"]] == [
        work["doi"] for work in citation["references"]
    ]
    assert "version" not in archive  # the archive takes it from the tag


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")

"""The report pages: valid, self-contained, complete, escaped."""

from __future__ import annotations

import re
from pathlib import Path

import html5lib
import pytest

from program import run_command


def parse(page: Path) -> object:
    """Parse strictly: any error in the HTML raises."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page.read_text(encoding="utf-8"))


def text_of(page: Path) -> str:
    return " ".join("".join(parse(page).itertext()).split())


@pytest.mark.parametrize("name", ["sub-01.html", "sub-02.html", "group.html"])
def test_pages_are_valid_html_and_need_no_other_file(small_output: Path, name: str) -> None:
    tree = parse(small_output / name)
    for image in tree.iter("img"):
        assert image.get("src", "").startswith("data:image/png;base64,")
        assert image.get("alt")
    content = (small_output / name).read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe)\b", content)
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', content)


def test_identifiers_are_unique_and_every_entry_of_the_contents_leads_somewhere(small_output: Path) -> None:
    tree = parse(small_output / "group.html")
    identifiers = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    targets = [link.get("href", "")[1:] for link in tree.iter("a")]
    assert targets
    assert set(targets) <= set(identifiers)


def test_participant_page_shows_runs_designs_coverage_and_every_map(small_output: Path) -> None:
    tree = parse(small_output / "sub-01.html")
    pictures = [image.get("alt", "") for image in tree.iter("img")]
    assert any(alt.startswith("Timeline of the events") for alt in pictures)
    assert sum(alt.startswith("Design matrix of") for alt in pictures) == 6
    assert sum(alt.startswith("Correlations between the regressors") for alt in pictures) == 6
    assert any("cover each voxel" in alt for alt in pictures)
    n_maps = 3 + 5  # sessions, and session contrasts
    assert sum(alt.startswith("z map") for alt in pictures) == n_maps
    assert sum(alt.startswith("Effect map") for alt in pictures) == n_maps


def test_group_page_compares_the_strategies_on_every_session_contrast(small_output: Path) -> None:
    content = text_of(small_output / "group.html")
    for question in ("mean", "ses-02 - ses-01", "ses-03 - ses-01", "ses-03 - ses-02", "linear"):
        assert f"Session contrast: {question}" in content
    pictures = [image.get("alt", "") for image in parse(small_output / "group.html").iter("img")]
    # sub-02 misses ses-03, so two participants are left for two of the questions: still enough
    assert sum(alt.startswith("Session model against Fixed effects") for alt in pictures) == 5
    assert "sub-02 has no map of ses-03" in content
    assert "Pooling of correlated maps" in content
    assert "Bland JM" in content


def test_refusals_are_sentences_in_the_report_and_rows_in_the_metrics(
    small_output: Path, small_dataset: Path, tmp_path: Path
) -> None:
    done = run_command(
        small_dataset, tmp_path / "out", "group", "-d", small_output, "--session-label", "01", "--session-contrast", "linear",
        "--session-contrast", "mean",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "There is one session only" in text_of(tmp_path / "out" / "group.html")
    (metrics,) = (tmp_path / "out" / "group").glob("*_sessions-linear_desc-agreement_metrics.tsv")
    assert "declined" in metrics.read_text()
    assert not list((tmp_path / "out" / "group").glob("*_sessions-linear_*statmap*"))
    assert len(list((tmp_path / "out" / "group").glob("*_sessions-mean_*_statmap.nii.gz"))) == 15

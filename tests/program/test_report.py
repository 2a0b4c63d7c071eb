"""The report pages: valid, self-contained, complete, escaped."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pages import parse, text_of
from program import run_command
from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.options import GroupModel
from sessionfx.participant.page import participant_page
from sessionfx.participant.results import ParticipantResults, RunSummary, read_reference
from sessionfx.participant.section import draw_contrast, draw_runs
from sessionfx.report.methods import MethodsText
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import EstimateMap
from sessionfx.statistics.estimates import Estimate


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sub-01.html", "sub-02.html", "group.html"])
def test_pages_are_valid_html_and_need_no_other_file(small_output: Path, name: str) -> None:
    tree = parse(small_output / name)
    for image in tree.iter("img"):
        assert re.match(r"data:image/(svg\+xml|webp);base64,", image.get("src", ""))
        assert image.get("alt")
    content = (small_output / name).read_text(encoding="utf-8")
    assert not re.search(r"<(link|iframe)\b|<script[^>]*\bsrc=", content)
    assert not re.findall(r'\bsrc="(?!data:)[^"]*"', content)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sub-01.html", "group.html"])
def test_every_link_leads_somewhere(small_output: Path, name: str) -> None:
    tree = parse(small_output / name)
    identifiers = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = [link.get("href", "") for link in tree.iter("a")]
    assert any(link.startswith("#") for link in links)
    for link in links:
        assert link[1:] in identifiers if link.startswith("#") else (small_output / link).is_file(), link


@pytest.mark.slow
def test_the_answer_to_report_comes_first_with_its_files(small_output: Path) -> None:
    tree = parse(small_output / "group.html")
    (section,) = tree.iter("section")
    (answer, *_) = (element for element in section.iter("div") if element.get("class", "").startswith("answer"))
    said = " ".join("".join(answer.itertext()).split())
    assert re.search(r"Report the .+ result.* of [\d,]+ (is|voxels)|voxels have \|z\| ≥", said), said
    links = {link.text: link.get("href") for link in answer.iter("a")}
    assert {"z map", "effect map", "clusters", "design", "answers", "validity"} <= set(links)
    first_map = next(image for image in section.iter("img"))
    assert first_map.get("alt", "").startswith("z map")


@pytest.mark.slow
def test_contents_name_every_session_contrast_and_strategy(small_output: Path) -> None:
    (contents,) = (element for element in parse(small_output / "group.html").iter("nav"))
    titles = ["".join(link.itertext()) for link in contents.iter("a")]
    for title in ("incongruent - congruent", "mean", "ses-02 - ses-01", "Marginal model (GEE, sandwich errors)"):
        assert any(title in found for found in titles), (title, titles)


def test_participant_page_shows_runs_designs_coverage_and_every_map(small_output: Path) -> None:
    tree = parse(small_output / "sub-01.html")
    pictures = [image.get("alt", "") for image in tree.iter("img")]
    assert pictures[0].startswith("z map"), "the result comes first"
    assert sum(alt.startswith("Design matrix") for alt in pictures) == 6
    assert sum(alt.startswith("Correlation") for alt in pictures) == 6
    assert any("sessions cover" in alt for alt in pictures)
    n_maps = 3 + 4  # sessions, and session contrasts; the linear trend is that of ses-03 - ses-01
    assert sum(alt.startswith("z map") for alt in pictures) == n_maps
    assert sum(alt.startswith("Effect map") for alt in pictures) == n_maps


def test_participant_page_names_questions_that_sessions_cannot_tell(small_output: Path) -> None:
    """Differences with a session that was not scanned were missing without a word."""
    content = text_of(small_output / "sub-02.html")
    assert "Cannot be estimated from the sessions that are there: ses-03 - ses-01, ses-03 - ses-02." in content
    assert "Not to be told" not in text_of(small_output / "sub-01.html")


@pytest.mark.slow
def test_group_page_compares_the_strategies_on_every_session_contrast(small_output: Path) -> None:
    content = text_of(small_output / "group.html")
    for question in ("mean", "ses-02 - ses-01", "ses-03 - ses-01", "ses-03 - ses-02", "linear"):
        assert re.search(rf"Session contrast: {question}|the same as [^)]*{question}", content)
    pictures = [image.get("alt", "") for image in parse(small_output / "group.html").iter("img")]
    assert any(alt.startswith("Where Marginal model and Session model are suprathreshold") for alt in pictures)
    # sub-02 misses ses-03, so two participants are left for two of the questions: still enough
    assert "sub-02 has no map of ses-03" in content
    assert "Pooling of correlated maps" in content
    assert "Bland JM" in content
    assert "What each strategy assumes" in content
    for name in ("session-model", "summary-statistics", "marginal", "mixed"):
        assert STRATEGIES[name].assumptions.missing in content
    assert STRATEGIES["meta"].assumptions.spread not in content  # it was not run


@pytest.mark.slow
def test_where_two_strategies_find_nothing_a_sentence_stands_for_the_picture(
    small_output: Path, small_dataset: Path, tmp_path: Path
) -> None:
    options = ("-d", small_output, "--correction", "bonferroni", "--alpha", "1e-12", "--session-contrast", "mean")
    done = run_command(small_dataset, tmp_path / "out", "group", *options)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "out" / "group.html"
    assert text_of(page).count("no voxel is suprathreshold in either.") == 3
    assert not [image for image in parse(page).iter("img") if image.get("alt", "").startswith("Where Marginal model")]


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


HOSTILE = '<script>alert("x")</script> & $x$'


def results_in_memory(behind: np.ndarray | None) -> ParticipantResults:
    """Results of a participant with two sessions, of which no file exists."""
    rng = np.random.default_rng(8)
    mask = rng.random((6, 7, 5)) < 0.8
    grid = Grid(mask.shape, np.diag([10.0, 10.0, 10.0, 1.0]))

    def estimate() -> EstimateMap:
        n_voxels = int(mask.sum())
        return EstimateMap(Estimate(rng.standard_normal(n_voxels), np.ones(n_voxels), 50.0), mask, grid)

    facts = {
        "RepetitionTime": 2.0, "StartTime": 0.0, "RunDuration": 60.0, "NumberOfVolumes": 30,
        "ConditionColumns": [HOSTILE],
        "DegreesOfFreedom": 28.0, "BrainMaskVoxels": 170, "FittedVoxels": 168, "Notes": [f"{HOSTILE} was noted."],
        "LeftOutContrasts": {},
    }  # fmt: skip
    runs = tuple(
        RunSummary(
            f"sub-01_ses-{session}_task-x",
            session,
            pd.DataFrame(rng.standard_normal((30, 2)), columns=[HOSTILE, "drift_1"]),
            facts,
            pd.DataFrame({"onset": [2.0, 20.0], "duration": 1.0, "trial_type": HOSTILE}),
        )
        for session in ("1", "2")
    )
    questions = resolve_session_contrasts(["mean"], ("1", "2"))
    return ParticipantResults(
        participant="01", entities={"task": "x", "space": "y", "res": None}, runs=runs,
        contrast=Contrast("c", HOSTILE, {HOSTILE: 1.0}), session_contrasts=tuple(questions),
        sessions={"1": estimate(), "2": estimate()}, combined={"mean": estimate()}, background=None if behind is None else (behind, grid),
        thresholds=GroupModel(), methods=MethodsText(("What was done.",), ()),
    )  # fmt: skip


def write_page(results: ParticipantResults, output: Path) -> Path:
    draw_runs(results, output)
    draw_contrast(results, output)
    participant_page(output, "01").assemble()
    return output / "sub-01.html"


@pytest.mark.slow
def test_participant_page_is_drawn_from_memory_without_reading_a_file(tmp_path: Path) -> None:
    page = write_page(results_in_memory(np.ones((6, 7, 5))), tmp_path)
    tree = parse(page)
    pictures = [image.get("alt", "") for image in tree.iter("img")]
    assert sum(alt.startswith("z map") for alt in pictures) == 3
    assert sum(alt.startswith("Effect map") for alt in pictures) == 3
    assert sum(alt.startswith("Design matrix") for alt in pictures) == 2
    shown = (path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "logs")
    assert {path.name for path in shown} == {
        "sub-01.html", "sub-01_task-x_space-y_contrast-c_section.json", "sub-01_task-x_space-y_runs_section.json",
    }  # fmt: skip
    assert len([element for element in tree.iter() if element.tag == "script"]) == 1  # the page's own
    assert f"{HOSTILE} was noted." in text_of(page)


@pytest.mark.slow
def test_maps_of_the_same_z_are_shown_once_by_the_names_of_all(tmp_path: Path) -> None:
    results = results_in_memory(None)
    mean = results.combined["mean"]
    half = replace(mean.estimate, effect=mean.estimate.effect / 2, variance=mean.estimate.variance / 4)
    combined = {"mean": mean, "other": results.sessions["1"], "linear": replace(mean, estimate=half)}
    page = write_page(replace(results, combined=combined), tmp_path)
    alts = [image.get("alt", "") for image in parse(page).iter("img")]
    of_z = [alt for alt in alts if alt.startswith("z map")]
    assert [name in alt for alt, name in zip(of_z, ("mean; linear has the same z", "other"), strict=False)] == [
        True,
        True,
    ]
    assert len(of_z) == 4


@pytest.mark.slow
def test_equal_results_make_equal_pages(tmp_path: Path) -> None:
    pages = [write_page(results_in_memory(np.ones((6, 7, 5))), tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_maps_are_drawn_on_paper_where_the_mean_image_is_empty(tmp_path: Path) -> None:
    plain = write_page(results_in_memory(None), tmp_path / "plain")
    other = write_page(results_in_memory(np.full((6, 7, 5), np.nan)), tmp_path / "other")
    assert other.read_bytes() == plain.read_bytes()


@pytest.mark.slow
def test_mean_image_stands_behind_the_maps(tmp_path: Path) -> None:
    plain = write_page(results_in_memory(None), tmp_path / "plain")
    behind = np.random.default_rng(1).random((6, 7, 5))
    other = write_page(results_in_memory(behind), tmp_path / "other")
    assert other.read_bytes() != plain.read_bytes()


def test_a_mean_image_that_is_not_there_is_none(tmp_path: Path, small_output: Path) -> None:
    assert read_reference(tmp_path / "none.nii.gz") is None
    (path,) = (small_output / "sub-01" / "figures").glob("*_boldref.nii.gz")
    found = read_reference(path)
    assert found is not None
    assert np.isfinite(found[0]).any()


@pytest.mark.slow
def test_levels_without_report_load_nothing_that_draws() -> None:
    code = (
        "import sys, sessionfx.participant.analysis, sessionfx.group.analysis;"
        "print([name for name in ('matplotlib', 'jinja2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

"""What programs and colleagues read of a group analysis: one table of all answers, a JSON of each contrast, the screen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calls import QUICK, GroupCaller
from group_study import AFFINE, CONTRAST, SPACE, GroupStudy, make_study, read, strict_json
from sessionfx.bids.tables import table_text
from sessionfx.errors import LevelError
from sessionfx.group.clusters import cluster_columns
from sessionfx.group.files import _peaks
from sessionfx.group.summaries import COLUMNS, findings, write_summaries
from sessionfx.report.tables import titled
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap, map_summary
from sessionfx.statistics.estimates import Estimate, FTest

START = f"task-x_space-{SPACE}"
OTHER = "bMinusA"
ASKED = (
    "--session-contrast",
    "mean",
    "--session-contrast",
    "ses-02 - ses-01",
    "--strategy",
    "summary-statistics",
    "marginal",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Two first-level contrasts, the second the first turned round; read only."""
    study = make_study(tmp_path_factory.mktemp("study"))
    for (participant, session), effect in study.effects.items():
        study.write(participant, session, -effect, study.variances[participant, session], OTHER)
    return study


def answers_of(output: Path) -> pd.DataFrame:
    path = output / "group" / f"{START}_desc-answers_metrics.tsv"
    assert "−" not in path.read_text(encoding="utf-8")
    return pd.read_csv(path, sep="\t")


def results_of(output: Path, contrast: str = CONTRAST) -> dict[str, Any]:
    return strict_json(output / "group" / f"{START}_contrast-{contrast}_desc-summary_results.json")


def summaries_of(output: Path) -> dict[str, str]:
    paths = [*(output / "group").glob("*_results.json"), *(output / "group").glob(f"{START}_desc-answers_metrics.*")]
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(paths)}


def at(image: Path, place: dict[str, float]) -> float:
    """Value of a map at a place in mm."""
    voxel = np.linalg.solve(AFFINE, [place["x"], place["y"], place["z"], 1])[:3]
    return float(read(image)[tuple(np.rint(voxel).astype(int))])


@pytest.mark.slow
def test_results_of_a_contrast_say_what_its_files_hold(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    covariates = ("--covariates", "age", "--group-contrast", "intercept", "--group-contrast", "age")
    output = call.done(study, tmp_path / "out", *ASKED, *covariates, "--correction", "none", "--alpha", "0.001")
    results = results_of(output)
    assert results["Contrast"] == "a - b"
    questions = [(entry["SessionContrast"], entry["GroupContrast"]) for entry in results["SessionContrasts"]]
    assert sorted(questions) == sorted(
        [(asked, group) for asked in ("mean", "ses-02 - ses-01") for group in ("intercept", "age")]
    )
    for path in (output / "group").glob("*.tsv"):  # BIDS: no cell is empty
        cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        assert "" not in {cell for row in cells for cell in row}, path.name
    assert any(entry["Result"]["ClusterPeaks"] for entry in results["SessionContrasts"])
    for entry in results["SessionContrasts"]:
        result = entry["Result"]
        files = {name: output / path for name, path in result["Files"].items()}
        assert all(path.is_file() for path in files.values())
        z = read(files["z"])
        assert result["Strategy"] == entry["Recommended"][0]
        assert result["SuprathresholdVoxels"] == (np.abs(z) >= result["Threshold"]).sum()
        assert result["Threshold"] == pytest.approx(3.2905, abs=1e-4)
        assert (result["ThresholdIsOn"], result["MultipleComparisonsCorrection"], result["ErrorRate"]) == (
            "|z|",
            "none",
            0.001,
        )
        assert result["Peak"]["peak_z"] == pytest.approx(at(files["z"], result["Peak"]), rel=1e-6)
        assert abs(result["Peak"]["peak_z"]) == pytest.approx(np.abs(z).max(), rel=1e-6)
        peaks = [peak["peak_z"] for peak in result["ClusterPeaks"]]
        assert peaks == sorted(peaks, key=abs, reverse=True)
        assert [at(files["z"], peak) for peak in result["ClusterPeaks"]] == pytest.approx(peaks, abs=1e-4)
        design = pd.read_csv(files["design"], sep="\t")
        assert result["NumberOfMaps"] == 25
        assert result["NumberOfParticipants"] == design["observation"].str[:6].nunique()
        verdict = strict_json(Path(str(files["z"]).split("_strategy-")[0] + "_validity.json"))
        assert {name: verdict[name] for name in entry} == entry
        found = result["SuprathresholdVoxels"]
        verb = "is" if found == 1 else "are"
        assert f"{found:,} of {z.size:,} voxels {verb} suprathreshold" in entry["Finding"]


@pytest.mark.slow
def test_f_tests_have_no_smallest_z(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    output = call.done(study, tmp_path / "out", "--session-contrast", "any", "--strategy", "session-model")
    (entry,) = results_of(output)["SessionContrasts"]
    result = entry["Result"]
    assert set(result["Files"]) == {"F", "z", "clusters", "design"}
    assert result["DegreesOfFreedomNumerator"] > 0
    assert result["ThresholdIsOn"] == "z"
    assert result["Peak"]["peak_z"] == pytest.approx(read(output / result["Files"]["z"]).max(), rel=1e-6)
    assert "smallest_z" not in answers_of(output)


@pytest.mark.slow
def test_one_table_has_the_answers_of_all_calls(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    together = call.done(study, tmp_path / "together", *ASKED)
    apart = tmp_path / "apart"
    call.done(study, apart, "--contrast", OTHER, *ASKED)
    for asked in ("ses-02 - ses-01", "mean"):
        call.done(study, apart, "--contrast", CONTRAST, "--session-contrast", asked, *ASKED[4:])
    assert summaries_of(apart) == summaries_of(together)
    table = answers_of(together)
    keys = ["first_level_contrast", "session_contrast", "group_contrast", "strategy"]
    assert sorted(map(tuple, table[keys].to_numpy().tolist())) == sorted(
        (contrast, asked, "intercept", strategy)
        for contrast in (CONTRAST, OTHER)
        for asked in ("mean", "ses-02 - ses-01")
        for strategy in ("summary-statistics", "marginal")
    )
    described = strict_json(together / "group" / f"{START}_desc-answers_metrics.json")
    assert list(described) == list(table) == [name for name in COLUMNS if name in table]
    for row in table.to_dict("records"):
        z = read(together / row["z_map"])
        assert (row["largest_z"], row["smallest_z"]) == pytest.approx((z.max(), z.min()), rel=1e-6)
        for name in ("largest", "smallest"):
            place = {axis: row[f"{name}_at_{axis}"] for axis in "xyz"}
            assert at(together / row["z_map"], place) == pytest.approx(row[f"{name}_z"], rel=1e-6)
    for _, rows in table.groupby(keys[:2]):
        assert sorted(rows["recommended"].dropna()) == [1.0, 2.0][: rows["recommended"].notna().sum()]


@pytest.mark.slow
def test_a_rerun_writes_nothing_anew_and_puts_back_what_is_missing(
    study: GroupStudy, call: GroupCaller, tmp_path: Path
) -> None:
    output = call.done(study, tmp_path / "out", *QUICK)
    before = summaries_of(output)
    times = {path: path.stat().st_mtime_ns for path in (output / "group").iterdir()}
    call.done(study, output, *QUICK)
    assert {path: path.stat().st_mtime_ns for path in (output / "group").iterdir()} == times
    for name in before:
        (output / "group" / name).unlink()
    call.done(study, output, *QUICK)
    assert summaries_of(output) == before


def test_other_analyses_and_foreign_files_are_not_among_the_answers(
    study: GroupStudy, call: GroupCaller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = call.done(study, tmp_path / "out", "--contrast", CONTRAST, *QUICK)
    before = summaries_of(output)
    (source,) = (output / "group").glob("*_sessions-mean_desc-answers_metrics.tsv")
    for name in (source.name.replace("task-x", "task-y"), source.name.replace("desc-answers", "res-2_desc-answers")):
        source.with_name(name).write_bytes(source.read_bytes())
    source.with_name(source.name.replace("mean", "linked")).symlink_to(tmp_path / "elsewhere.tsv")
    broken = source.with_name(source.name.replace("mean", "broken"))
    broken.write_text("a\tb\n1\t2\t3\n")
    entities = {"task": "x", "space": SPACE}
    write_summaries(output, entities)
    assert summaries_of(output) == before
    assert f"{broken}, line 2" in capsys.readouterr().err
    broken.unlink()
    write_summaries(output, entities)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_where_no_answer_can_be_read_the_table_has_its_columns(
    study: GroupStudy, call: GroupCaller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had no line at all then, which no program reads."""
    output = call.done(study, tmp_path / "out", "--contrast", CONTRAST, *QUICK)
    (source,) = (output / "group").glob("*_sessions-mean_desc-answers_metrics.tsv")
    source.write_text("a\tb\n1\t2\t3\n")
    write_summaries(output, {"task": "x", "space": SPACE})
    assert "left out of the summaries" in capsys.readouterr().err
    assert list(answers_of(output)) == list(COLUMNS)
    assert len(answers_of(output)) == 0


@pytest.mark.slow
def test_a_damaged_verdict_is_named(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    output = call.done(study, tmp_path / "out", "--contrast", CONTRAST, *QUICK)
    (verdict,) = (output / "group").glob("*_validity.json")
    verdict.write_text(verdict.read_text(encoding="utf-8").replace('"Finding"', '"Fiddling"'), encoding="utf-8")
    with pytest.raises(LevelError, match=r"_validity\.json is damaged\. Run the group level again with --force\."):
        list(findings([verdict]))


@pytest.mark.slow
def test_calls_at_the_same_time_lose_no_answer(study: GroupStudy, tmp_path: Path) -> None:
    output = tmp_path / "out"
    commands = [
        [sys.executable, "-m", "sessionfx", study.raw, output, "group", "-d", study.maps, "--nprocs", "1", "--no-report",
         "--contrast", contrast, *QUICK]
        for contrast in (CONTRAST, OTHER)
    ]  # fmt: skip
    running = [subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE) for command in commands]
    assert [process.wait(120) for process in running] == [0, 0]
    assert sorted(answers_of(output)["first_level_contrast"]) == [CONTRAST, OTHER]
    for contrast in (CONTRAST, OTHER):
        assert results_of(output, contrast)["SessionContrasts"]


@pytest.mark.slow
def test_the_last_lines_on_the_screen_say_what_was_found(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = call(study, output, *ASKED).error.splitlines()
    expected = []
    for contrast in (CONTRAST, OTHER):
        entries = {entry["SessionContrast"]: entry for entry in results_of(output, contrast)["SessionContrasts"]}
        expected.append(f"Contrast {contrast}:")
        for asked in ("mean", "ses-02 - ses-01"):
            expected += [f"  {entries[asked]['Finding']}", f"    {entries[asked]['Result']['Files']['z']}"]
    assert said[-len(expected) :] == expected


def test_peaks_of_clusters_come_by_height_and_with_their_regions() -> None:
    rows = [[1, 2.0, 4.0, -6.0, np.float32(3.5), 64, "Cuneus"], ["1a", 8.0, 4.0, -6.0, np.float32(3.4), "", ""],
            [2, 0.0, 0.0, 0.0, np.float32(-5.25), 128, ""]]  # fmt: skip
    clusters = pd.DataFrame(rows, columns=[*cluster_columns(Grid), "Region"])
    expected = [
        {"x": 0.0, "y": 0.0, "z": 0.0, "peak_z": -5.25, "cluster_size_mm3": 128, "region": ""},
        {"x": 2.0, "y": 4.0, "z": -6.0, "peak_z": 3.5, "cluster_size_mm3": 64, "region": "Cuneus"},
    ]
    assert _peaks(clusters) == expected
    without = [{name: value for name, value in peak.items() if name != "region"} for peak in expected]
    assert _peaks(clusters.drop(columns="Region")) == without
    assert _peaks(clusters[:0]) == []


# Rows for files and for people ----------------------------------------------------------------------------------


GRID = Grid((3, 1, 1), np.array([[-2.0, 0, 0, 3.6], [0, 2, 0, -5.5], [0, 0, 2, 7.0], [0, 0, 0, 1]]))
ROW = np.ones((3, 1, 1), dtype=bool)


def test_the_row_for_files_and_the_words_on_the_page_are_of_the_same_numbers() -> None:
    z = np.array([1.0, -4.0, 2.5])
    stat_map = StatMap(Estimate(z, np.ones(3), 1e12), ROW, GRID)
    row = map_summary(stat_map, 3.0)
    assert [row[f"largest_at_{axis}"] for axis in "xyz"] == [-0.4, -5.5, 7.0]
    assert [row[f"smallest_at_{axis}"] for axis in "xyz"] == [1.6, -5.5, 7.0]
    words = {name: str(value).replace("\N{NO-BREAK SPACE}", " ") for name, value in titled(row).items()}
    assert words["at x, y, z (mm)"] == "0, −6, 7"
    assert words["at x, y, z (mm) "] == "2, −6, 7"
    assert [*words] == ["degrees of freedom", "voxels", "threshold |z|", "suprathreshold", "largest z", "at x, y, z (mm)",
                        "smallest z", "at x, y, z (mm) "]  # fmt: skip


def test_an_f_test_has_no_smallest_z() -> None:
    row = map_summary(StatMap(FTest(np.array([0.1, 9.0, 1.0]), 2.0, 8.0), ROW, GRID), 3.0)
    assert {name for name in row if name.startswith(("largest", "smallest"))} == {
        "largest_z", "largest_at_x", "largest_at_y", "largest_at_z"
    }  # fmt: skip


def test_tables_are_written_as_programs_read_them() -> None:
    table = pd.DataFrame({"text": ['at "−3"\tor\nso', None], "number": [-1.5, np.nan], "count": [3, 4]})
    assert table_text(table) == 'text\tnumber\tcount\nat "-3" or so\t-1.5\t3\nn/a\tn/a\t4\n'


def test_every_column_of_the_answers_is_described_in_the_documentation() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    assert [name for name in COLUMNS if f"`{name}`" not in documented] == []
    assert json.dumps(COLUMNS).isascii()

"""Options of the first level on the command line: own regressors, thresholds of motion, finite impulse responses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from program import simulated
from sessionfx.cli import main

QUICK = ("participant", "--nprocs", "1", "--no-report", "--noise-model", "ols")
N_VOLUMES = 40


pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two participants with two sessions of one run, and a table of own regressors for each."""
    root = simulated(tmp_path)
    for number, bold in enumerate(sorted((root / "derivatives").rglob("*_bold.nii.gz"))):
        entities = dict(part.split("-", 1) for part in bold.name.split("_") if "-" in part)
        table = pd.DataFrame({"pupil": np.random.default_rng(number).standard_normal(N_VOLUMES)})
        folder = root / "derivatives" / "physio" / f"sub-{entities['sub']}"
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / f"ses-{entities['ses']}_task-{entities['task']}_run-1.tsv", sep="\t", index=False)
    return root


PATTERN = "derivatives/physio/sub-{sub}/ses-{ses}_task-{task}_run-*.tsv"


def designs(output: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(output.rglob("*_design.json"))]


def test_own_regressors_are_found_by_a_pattern_and_asked_about(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = [str(dataset), str(output), *QUICK, "--regressors", PATTERN, "--contrast", "pupil"]
    assert main(arguments) == 0
    for facts in designs(output):
        assert facts["OwnColumns"] == ["pupil"]
        assert facts["ModelParameters"]["Regressors"] == PATTERN
        (source,) = [source for source in facts["Sources"] if "physio" in source]
        assert source.startswith("bids:raw:derivatives/physio/sub-")
    assert len(list(output.rglob("*contrast-pupil_stat-effect*.nii.gz"))) == 4, "two sessions of two participants"
    assert "further regressors of each run" in next(output.glob("logs/*methods.txt")).read_text()


def test_a_changed_table_of_regressors_redoes_its_participant(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(dataset), str(tmp_path / "out"), *QUICK, "--regressors", PATTERN, "--contrast", "pupil"]
    assert main(arguments) == 0
    path = next((dataset / "derivatives" / "physio" / "sub-01").iterdir())
    path.write_text(path.read_text().replace("-", "", 1))
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "sub-01: done" in said
    assert "sub-02: finished before" in said


@pytest.mark.parametrize(
    ("pattern", "code", "words"),
    [
        ("physio/{subject}.tsv", 2, "in braces may stand {sub}, {ses}, {task}, {run}"),
        ("physio/{sub.__class__}.tsv", 2, "is not a pattern"),
        ("{0}", 2, "is not a pattern"),
        ("nowhere/sub-{sub}.tsv", 2, "0 files are called nowhere/sub-01.tsv"),
        ("derivatives/physio/sub-{sub}/*.tsv", 2, "2 files are called derivatives/physio/sub-01/*.tsv"),
    ],
)
def test_patterns_that_find_nothing_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str, code: int, words: str
) -> None:
    arguments = [str(dataset), str(tmp_path / "out"), *QUICK, "--contrast", "congruent", "--regressors", pattern]
    assert main(arguments) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_its_table_fails_with_its_participant(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((dataset / "derivatives" / "physio" / "sub-02").iterdir()).unlink()
    absolute = str(dataset / PATTERN)
    assert main([str(dataset), str(tmp_path / "out"), *QUICK, "--contrast", "congruent", "--regressors", absolute]) == 1
    said = capsys.readouterr().err
    assert "sub-01: done" in said
    assert "needs one table of --regressors, and 0 files are called" in said


def test_lost_volumes_are_in_the_designs_and_the_log(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main([str(dataset), str(output), *QUICK, "--contrast", "congruent", "--fd-threshold", "0.2"]) == 0
    lost = [facts["LostVolumes"] for facts in designs(output)]
    expected = [
        [int(volume) for volume in np.flatnonzero(pd.read_csv(path, sep="\t")["framewise_displacement"] > 0.2)]
        for path in sorted((dataset / "derivatives" / "fmriprep").rglob("*_timeseries.tsv"))
    ]
    assert lost == expected
    assert any(lost)
    logs = "".join(path.read_text() for path in output.glob("logs/*_log.txt"))
    assert all(f"{len(volumes)} of {N_VOLUMES} volumes" in logs for volumes in lost if volumes)
    methods = next(output.glob("logs/*methods.txt")).read_text()
    assert "one regressor for each volume with a framewise displacement above 0.2 mm" in methods


def test_finite_impulse_responses(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    arguments = [str(dataset), str(output), *QUICK, "--hrf-model", "fir"]
    assert main([*arguments, "--contrast", "congruent_delay_2"]) == 2
    assert "--hrf-model fir needs --fir-delays" in capsys.readouterr().err
    arguments += ["--fir-delays", "1", "2", "3"]
    assert main(arguments) == 2
    assert "--contrast 'A_delay_1 - B_delay_1'" in capsys.readouterr().err
    assert main([*arguments, "--contrast", "congruent"]) == 2
    assert "The conditions are: congruent_delay_1, congruent_delay_2" in capsys.readouterr().err
    assert main([*arguments, "--contrast", "late=congruent_delay_3 - incongruent_delay_3"]) == 0
    assert designs(output)[0]["ModelParameters"]["FirDelays"] == [1, 2, 3]
    methods = next(output.glob("logs/*methods.txt")).read_text()
    assert "convolved with finite impulse responses at delays of 1, 2, 3 volumes" in methods
    assert main([*arguments[:-6], "--fir-delays", "1"]) == 2
    assert "--fir-delays needs --hrf-model fir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scaling", "units", "words"),
    [
        ("voxel", "percent signal change", "in percent of each voxel's mean: events"),
        ("grand-mean", "percent of the grand mean", "in percent of its mean over voxels and volumes: events"),
        ("none", "arbitrary units", "in the units of the image: events"),
    ],
)
def test_units_follow_the_scaling_to_the_group(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scaling: str, units: str, words: str
) -> None:
    output = tmp_path / "out"
    levels = [str(dataset), str(output), "participant", "group", *QUICK[1:3], *QUICK[4:]]
    options = ["--session-contrast", "mean", "--strategy", "summary-statistics", "--equivalence", "2"]
    arguments = [*levels, "--contrast", "congruent", "--signal-scaling", scaling, *options]
    assert main(arguments) == 0
    found = {
        json.loads(path.read_text())["Units"]
        for pattern in ("*_stat-effect*.json", "*_stat-variance*.json")
        for path in output.rglob(pattern)
    }
    assert found == {units, f"({units})^2"}
    assert words in next(output.glob("logs/*participant_methods.txt")).read_text()
    assert f"within ±2 {units}" in next(output.glob("logs/*group_methods.txt")).read_text()
    for page in ("group.html", "sub-01.html"):
        html = (output / page).read_text(encoding="utf-8")
        assert scaling == "voxel" or "percent signal change" not in html, page
    capsys.readouterr()
    assert main([str(dataset), str(output), "group", "--contrast", "congruent", "--equivalence", "2", "--dry-run"]) == 0
    assert f"equivalence to zero: within ±2 {units}" in capsys.readouterr().out

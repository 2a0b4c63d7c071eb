"""Contrasts over tasks: sums of what each task gives, and maps like any others from there on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from plain_layouts import ds114
from sessionfx.cli import main

QUICK = ("--nprocs", "1")
OVER = "task-fingerfootlips+linebisection"
CONTRASTS = ("--contrast", "Finger", "--contrast", "over=Finger - 0.5*`linebisection:Correct`", "--contrast", "Correct")


def call(root: Path, output: Path, level: str, *options: str) -> int:
    return main([str(root), str(output), level, *QUICK, *options])


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("over_tasks")
    root = ds114(folder / "bids")
    assert call(root, folder / "out", "participant", *CONTRASTS) == 0
    assert call(root, folder / "out", "group", "--strategy", "summary-statistics", "marginal") == 0
    return root, folder / "out"


def maps_of(output: Path, task: str, contrast: str, statistic: str, sessions: str = "") -> dict[str, np.ndarray]:
    """Maps of participants by participant and session; of a session contrast where it is named."""
    found = output.glob(f"sub-*/**/*_{task}_*contrast-{contrast}_*stat-{statistic}_*statmap.nii.gz")
    return {
        "_".join(part for part in path.name.split("_") if part.startswith(("sub-", "ses-"))): nib.load(path).get_fdata()
        for path in found
        if ("sessions-" in path.name) == bool(sessions) and sessions in path.name
    }


@pytest.mark.parametrize("sessions", ["", "sessions-mean_"])
def test_it_is_the_sum_of_what_each_task_gives(done: tuple[Path, Path], sessions: str) -> None:
    _, output = done
    for statistic, weight in (("effect", -0.5), ("variance", 0.25)):
        over = maps_of(output, OVER, "over", statistic, sessions)
        finger = maps_of(output, "task-fingerfootlips", "Finger", statistic, sessions)
        correct = maps_of(output, "task-linebisection", "Correct", statistic, sessions)
        assert set(over) == set(finger) & set(correct)
        assert over
        for name, values in over.items():
            there = values != 0
            assert there.sum() > 10
            expected = finger[name] + weight * correct[name]
            np.testing.assert_allclose(values[there], expected[there], rtol=2e-5, atol=1e-6 * np.abs(expected).max())


def test_the_group_takes_it_like_a_task(done: tuple[Path, Path]) -> None:
    _, output = done
    assert {path.name for path in output.glob(f"group/*{OVER}_*contrast-over_*stat-t_*statmap.nii.gz")}
    assert "contrast-over" in "".join(path.name for path in output.glob(f"group/*{OVER}*"))
    table = pd.concat(pd.read_csv(path, sep="\t") for path in output.glob("group/*answers_metrics.tsv"))
    assert len(table)
    page = (output / "group.html").read_text()
    assert "fingerfootlips+linebisection" in page


def test_sidecars_and_methods_say_what_was_added(done: tuple[Path, Path]) -> None:
    _, output = done
    path = next(output.glob(f"sub-01/ses-test/func/*{OVER}_*contrast-over_*stat-effect_*statmap.json"))
    sidecar = json.loads(path.read_text())
    assert sidecar["Description"].startswith(
        "Sum over the tasks fingerfootlips and linebisection of fixed effects over 2"
    )
    assert sidecar["ContrastWeights"] == {"Finger": 1.0, "linebisection:Correct": -0.5}
    assert {name.split("_task-")[1].split("_")[0] for name in sidecar["Sources"] if "_task-" in name and "ses-" in name} == {
        "fingerfootlips", "linebisection",
    }  # fmt: skip
    methods = "".join(path.read_text() for path in output.glob(f"logs/*{OVER}*methods*"))
    assert "Estimates of different tasks" in methods


def test_a_rerun_finds_it_finished(done: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    root, output = done
    before = {path: path.stat().st_mtime_ns for path in output.glob("sub-*/**/*.nii.gz")}
    assert call(root, output, "participant", *CONTRASTS) == 0
    said = capsys.readouterr().err
    assert said.count("finished before, skipped") == 6, said
    assert {path: path.stat().st_mtime_ns for path in output.glob("sub-*/**/*.nii.gz")} == before
    # without it, what it made stays, and so do designs of the tasks
    designs = sorted(output.glob("sub-*/**/*_design.tsv"))
    assert call(root, output, "participant", "--contrast", "Finger", "--contrast", "Correct") == 0
    assert sorted(output.glob("sub-*/**/*_design.tsv")) == designs
    assert len({path.name for path in designs}) == len(designs)


def test_tasks_that_are_named_bring_what_is_over_them(
    done: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = done
    call(root, output, "group", "--task", "fingerfootlips", "linebisection", "--dry-run")
    assert capsys.readouterr().out.count("at the group level") == 3
    call(root, output, "group", "--task", "fingerfootlips", "covertverbgeneration", "--contrast", "Finger", "--dry-run")
    assert capsys.readouterr().out.count("at the group level") == 1


@pytest.mark.parametrize(
    ("contrasts", "options", "words"),
    [
        (["F:any = Finger - Correct; Foot - Correct"], (), "is an F test over tasks"),
        (["Finger - Incorrect"], (), "the condition 'Incorrect', which no run has"),
        (["Finger - `linebisection:Toe`"], (), "which no run has"),
        (["Finger - Correct"], ("--task", "fingerfootlips"), "the condition 'Correct', which no run has"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    done: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], contrasts: list[str],
    options: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    asked = [word for contrast in contrasts for word in ("--contrast", contrast)]
    assert call(done[0], tmp_path / "out", "participant", *asked, *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_condition_of_two_tasks_is_written_with_its_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ds114(tmp_path / "bids")
    events = root / "task-linebisection_events.tsv"
    events = events if events.exists() else next(root.rglob("*linebisection*events.tsv"))
    for path in root.rglob("*linebisection*events.tsv"):
        path.write_text(path.read_text().replace("Wrong", "Foot"))
    options = ("--participant-label", "01", "--no-report")
    assert call(root, tmp_path / "out", "participant", "--contrast", "Foot - Correct", *options) == 0
    assert {
        path.name.split("_task-")[1].split("_")[0] for path in (tmp_path / "out").glob("sub-01/**/*statmap.nii.gz")
    } == {"linebisection"}, "both conditions are of one task"
    assert call(root, tmp_path / "out", "participant", "--contrast", "Foot - Finger - Correct", *options) == 2
    assert "Write it with its task, in backticks: `fingerfootlips:Foot`" in capsys.readouterr().err
    written = "x=`fingerfootlips:Foot` - `linebisection:Foot`"
    assert call(root, tmp_path / "out", "participant", "--contrast", written, *options) == 0
    assert "is over the tasks fingerfootlips and linebisection" in capsys.readouterr().err
    assert maps_of(tmp_path / "out", OVER, "x", "effect")


def test_participants_and_sessions_without_one_of_the_tasks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ds114(tmp_path / "bids")
    for path in (root / "derivatives").rglob("sub-01_ses-retest_task-linebisection*bold.nii.gz"):
        path.unlink()
    assert call(root, tmp_path / "out", "participant", "--contrast", "over=Finger - Correct", "--no-report") == 0
    said = capsys.readouterr().err
    assert "left out: sub-01_ses-retest_task-fingerfootlips" in said
    assert set(maps_of(tmp_path / "out", OVER, "over", "effect")) == {
        "sub-01_ses-test", "sub-02_ses-test", "sub-02_ses-retest"
    }  # fmt: skip


def test_what_is_to_be_said_of_the_files_of_a_task_is_said_of_a_contrast_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ds114(tmp_path / "bids")
    image = next((root / "derivatives").rglob("sub-02_ses-test_task-linebisection*bold.nii.gz"))
    image.with_name(image.name.replace("_space-", "_run-one_more-_space-")).touch()
    assert call(root, tmp_path / "out", "participant", "--contrast", "over=Finger - Correct", "--dry-run") == 0
    assert "not named as BIDS names files" in capsys.readouterr().out

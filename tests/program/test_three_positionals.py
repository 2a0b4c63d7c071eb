"""Nothing but BIDS_DIR, OUTPUT_DIR and the level, as platforms call it: each participant by itself, then the group."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from plain_layouts import OF_DS114, PLAIN, SPACE, contrasts_in, ds003, ds114
from real_layouts import nilearn_answer, write
from sessionfx.cli import main

QUICK = ("--nprocs", "1", "--no-report")


def call(root: Path, output: Path, level: str, *options: str) -> int:
    return main([str(root), str(output), level, *QUICK, *options])


def maps_below(output: Path) -> dict[str, bytes]:
    """The maps of participants by their paths."""
    return {
        str(path.relative_to(output)): nib.load(path).get_fdata().tobytes()
        for path in sorted(output.glob("sub-*/**/*_statmap.nii.gz"))
    }


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset of five tasks, and the results of one job for each participant and one for the group."""
    folder = tmp_path_factory.mktemp("ds114")
    root = ds114(folder / "bids")
    output = folder / "out"
    for label in ("01", "02"):
        assert call(root, output, "participant", "--participant-label", label) == 0
    assert call(root, output, "group", "--strategy", "summary-statistics") == 0
    return root, output


def test_every_condition_of_every_task_with_events_is_asked_about(jobs: tuple[Path, Path]) -> None:
    _, output = jobs
    lacking = {**OF_DS114, "linebisection": {"Correct"}}
    for label, expected in (("01", OF_DS114), ("02", lacking)):
        assert contrasts_in([path.name for path in output.glob(f"sub-{label}/**/*_statmap.nii.gz")]) == expected


def test_the_group_has_every_task_whose_maps_are_there(jobs: tuple[Path, Path]) -> None:
    _, output = jobs
    found = contrasts_in([f"_{path.name}" for path in output.glob("group/*stat-t*statmap.nii.gz")])
    # of the condition that one participant lacks there is no group
    assert found == {**OF_DS114, "linebisection": {"Correct"}}
    sidecars = [json.loads(path.read_text()) for path in output.glob("group/*stat-t*statmap.json")]
    assert {sidecar["NumberOfParticipants"] for sidecar in sidecars} == {2}


def test_a_job_with_everyone_makes_the_same_maps_and_says_what_was_chosen(
    jobs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = jobs
    assert call(root, tmp_path / "out", "participant") == 0
    assert maps_below(tmp_path / "out") == maps_below(output)
    said = capsys.readouterr().err
    for sentence in (
        "Left out, as no run of it has events: task overtwordrepetition.",
        "Tasks: covertverbgeneration, fingerfootlips, linebisection, overtverbgeneration, each by itself; --task chooses.",
        "Task fingerfootlips: every condition against baseline (Finger, Foot, Lips). Ask for other contrasts with",
        "Task linebisection: every condition against baseline (Correct, Wrong) and the difference Wrong - Correct.",
        "and the difference `verb-generation` - `rest block`.",
        "Task linebisection: sub-02 without condition 'Wrong', and its contrasts.",
    ):
        assert sentence in said
    assert said.count("The order of the sessions in time is not known") == 1, "though there are four tasks"
    config = next((tmp_path / "out" / "logs").glob("*_config.toml"))
    assert "contrast" not in config.read_text(), "what was chosen is no option"


def test_a_rerun_finds_everything_finished(jobs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    root, output = jobs
    before = maps_below(output)
    assert call(root, output, "participant") == 0
    said = capsys.readouterr().err
    assert said.count("finished before, skipped") == 2 * len(OF_DS114)
    assert maps_below(output) == before


def test_contrasts_and_tasks_that_are_named_are_the_only_ones(
    jobs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = jobs
    asked = ("--contrast", "Finger - Foot", "--contrast", "all=2 * Correct")
    assert call(root, tmp_path / "both", "participant", *asked) == 0
    expected = {"fingerfootlips": {"FingerMinusFoot"}, "linebisection": {"all"}}
    assert contrasts_in(list(maps_below(tmp_path / "both"))) == expected
    assert "Left out, as no contrast names its conditions: task covertverbgeneration." in capsys.readouterr().err
    tasks = ("--task", "linebisection", "covertverbgeneration")
    assert call(root, tmp_path / "named", "participant", *tasks, "--participant-label", "01") == 0
    names = list(maps_below(tmp_path / "named"))
    assert contrasts_in(names) == {task: OF_DS114[task] for task in ("covertverbgeneration", "linebisection")}
    assert (
        call(root, output, "group", "--task", "fingerfootlips", "linebisection", "--contrast", "Foot", "--dry-run") == 0
    )
    printed = capsys.readouterr()
    assert printed.out.count("at the group level") == 1
    assert "Left out: task linebisection. It has no map of the contrasts that are asked for." in printed.err


def test_other_participants_are_not_looked_at_where_the_contrast_is_known(
    jobs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("looked for the events of others")

    monkeypatch.setattr("sessionfx.participant.asked.study_events", unexpected)
    options = ("--task", "fingerfootlips", "--participant-label", "01", "--contrast", "Finger - Foot", "--dry-run")
    assert call(jobs[0], tmp_path / "out", "participant", *options) == 0


def test_a_contrast_that_no_task_can_answer_is_refused(
    jobs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = jobs
    for contrast, words in (
        (
            "Toe",
            ("the condition 'Toe', which no run has", "Task fingerfootlips: The conditions are: Finger, Foot, Lips."),
        ),
        (
            "Finger - Correkt",
            ("the condition 'Correkt', which no run has", "Task linebisection: The conditions are: Correct, Wrong"),
        ),
    ):
        assert call(root, tmp_path / "out", "participant", "--contrast", contrast) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words), said
    assert not (tmp_path / "out").exists()
    assert call(root, output, "group", "--contrast", "Toe") == 18


def test_one_condition_has_nilearns_numbers(jobs: tuple[Path, Path], tmp_path: Path) -> None:
    root, _ = jobs
    name, task = "sub-01_ses-retest_task-fingerfootlips", "fingerfootlips"
    options = ("--keep-run-maps", "--task", task, "--participant-label", "01", "--session-label", "retest")
    assert call(root, tmp_path / "out", "participant", *options) == 0
    start = f"sub-01/ses-retest/func/{name}"
    theirs, _ = nilearn_answer(
        root / f"derivatives/fmriprep/{start}_{SPACE}_desc-preproc_bold.nii.gz",
        root / f"task-{task}_events.tsv",
        root / f"derivatives/fmriprep/{start}_desc-confounds_timeseries.tsv",
        {"Foot": 1.0},
        2.5,
    )
    (path,) = (tmp_path / "out" / "sub-01").rglob(f"{name}_*contrast-Foot_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), theirs, rtol=1e-5)


@pytest.mark.parametrize("name", ["ds003", "haxby"])
def test_one_task_without_sessions(name: str, tmp_path: Path) -> None:
    plain = PLAIN[name]
    root, output = plain.make(tmp_path / "bids"), tmp_path / "out"
    for label in plain.labels:
        assert call(root, output, "participant", "--participant-label", label) == 0
        assert contrasts_in(path.name for path in output.glob(f"sub-{label}/**/*_statmap.nii.gz")) == plain.expected
    assert call(root, output, "group") == 0
    assert contrasts_in(f"_{path.name}" for path in output.glob("group/*stat-t*statmap.nii.gz")) == plain.expected


def test_reports_show_every_task(tmp_path: Path) -> None:
    root, output = ds114(tmp_path / "bids"), tmp_path / "out"
    arguments = [str(root), str(output), "participant", "group", "--nprocs", "1", "--strategy", "summary-statistics"]
    assert main([*arguments, "--task", "linebisection", "covertverbgeneration", "--session-contrast", "mean"]) == 0
    for page in ("group.html", "sub-01.html"):
        html = (output / page).read_text(encoding="utf-8")
        assert "linebisection" in html, page
        assert "covertverbgeneration" in html, page


def test_events_without_trial_type_are_one_condition(tmp_path: Path) -> None:
    root = ds003(tmp_path / "bids")
    for path in root.rglob("*_events.tsv"):
        lines = [line.split("\t")[:2] for line in path.read_text().splitlines()]
        write(path, "\n".join(map("\t".join, lines)) + "\n")
    assert call(root, tmp_path / "out", "participant") == 0
    assert contrasts_in(list(maps_below(tmp_path / "out"))) == {"rhymejudgment": {"dummy"}}


def test_items_are_no_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ds003(tmp_path / "bids")
    path = next(root.rglob("sub-02*_events.tsv"))
    rows = [f"{2 * number}\t1\titem{number}" for number in range(101)]
    write(path, "\n".join(["onset\tduration\ttrial_type", *rows]) + "\n")
    assert call(root, tmp_path / "out", "participant", "--participant-label", "01") == 2
    assert "103 conditions are too many to ask about each of them: item0, item1" in capsys.readouterr().err

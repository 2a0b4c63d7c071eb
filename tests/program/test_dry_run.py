"""--dry-run names what would be read, skipped and done, and leaves no trace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from bids_trees import EVENTS, make_tree, preproc, run_name
from calls import call_main
from program import CONTRAST
from sessionfx.participant.dry_run import LISTED_PARTICIPANTS


class Planner(Protocol):
    def __call__(
        self, dataset: Path, output: Path, *options: object, levels: Sequence[str] = ("participant",)
    ) -> list[str]: ...


@pytest.fixture
def planned(capsys: pytest.CaptureFixture[str]) -> Planner:
    """What a dry run prints, line by line; it must write nothing and say nothing else."""

    def plan(dataset: Path, output: Path, *options: object, levels: Sequence[str] = ("participant",)) -> list[str]:
        called = call_main(capsys, [dataset, output, *levels, *options, "--dry-run"], dataset, output)
        assert (called.code, called.error) == (0, "")
        return called.output.splitlines()

    return plan


@pytest.mark.slow
def test_every_file_of_every_run_is_named(planned: Planner, small_dataset: Path, tmp_path: Path) -> None:
    lines = planned(small_dataset, tmp_path / "out", "--contrast", CONTRAST, "--nprocs", "2")
    assert lines[0] == "Would analyse task stroop, space MNI152NLin2009cAsym: 3 participants, 16 runs."
    assert f"  output: {tmp_path / 'out'}" in lines
    assert "  sessions, in their order in time: ses-01, ses-02, ses-03 (from numbers in the labels)" in lines
    assert "  contrasts: incongruentMinusCongruent = incongruent - congruent" in lines
    assert "  finished before: 0 of 3 participants" in lines
    (memory,) = [line for line in lines if line.startswith("  memory:")]
    assert re.fullmatch(r"  memory: about 0\.\d GB for the largest run, 2 runs at a time", memory)
    roots = {name: Path(root) for name, root in (line.strip().split(": ") for line in lines[1:3])}
    named = [line.split(": ", 1)[1].split(": ") for line in lines if line.startswith(("    image", "    events"))]
    assert len(named) == 2 * 16
    paths = [roots[dataset] / path for dataset, path in named]
    assert all(path.is_file() for path in paths)
    assert len({path for path in paths if path.name.endswith("_bold.nii.gz")}) == 16
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_told_as_a_rerun_would_treat_it(
    planned: Planner, small_dataset: Path, small_output: Path
) -> None:
    same = ("--contrast", CONTRAST, "--smoothing-fwhm", "8")
    finished = planned(small_dataset, small_output, *same)
    assert "  finished before: 3 of 3 participants" in finished
    assert [line for line in finished if line.startswith("sub-01: 6 runs, finished, would be skipped")]
    another = planned(small_dataset, small_output, *same, "--contrast", "congruent", "--participant-label", "01")
    assert "  finished before: 0 of 1 participant, 1 in part" in another
    for changed in (("--force",), ("--high-pass", "0.02")):
        assert "  finished before: 0 of 3 participants" in planned(small_dataset, small_output, *same, *changed)


def test_the_group_level_names_its_maps_and_who_has_them(
    planned: Planner, small_dataset: Path, small_output: Path
) -> None:
    lines = planned(small_dataset, small_output, "--strategy", "marginal", levels=("group",))
    assert lines[0] == "Would analyse task stroop, space MNI152NLin2009cAsym at the group level:"
    assert "  strategies: marginal" in lines
    (contrast,) = [line for line in lines if line.startswith("incongruentMinusCongruent over 3 participants, 8 maps: ")]
    at = lines.index(contrast) + 1
    assert lines[at].startswith("  would do: ")
    assert re.fullmatch(
        rf"  needs about [\d.e-]+ GB of disk in {small_output}, 0\.\d+ GB of memory and \d+ s, without the time of resampling, and the page",
        lines[at + 1],
    )
    at += 1
    assert lines[at + 1 : at + 5] == [
        "  ses-01: 3 participants",
        "  ses-02: 3 participants",
        "  ses-03: 2 participants",
        "  without some session: sub-02",
    ]
    assert len(lines[at + 5 :]) == 8
    assert all(Path(line.strip()).is_file() for line in lines[at + 5 :])


@pytest.mark.slow
def test_many_participants_are_counted_and_exceptions_named(planned: Planner, tmp_path: Path) -> None:
    labels = [f"{number:02d}" for number in range(1, LISTED_PARTICIPANTS + 2)]
    files = {preproc(label, ses): "" for label in labels for ses in ("1", "2") if (label, ses) != ("07", "2")}
    files |= {f"{run_name(label, ses)}_events.tsv": EVENTS for label in labels[1:] for ses in ("1", "2")}
    files |= {f"{run_name('03', '1')}_bold.json": "{"}
    lines = planned(make_tree(tmp_path / "bids", files), tmp_path / "out", "--contrast", "a")
    assert f"{len(labels) - 1} participants with 2 runs" in lines
    assert "1 participant with 1 run: sub-07" in lines
    assert "2 runs without events: sub-01_ses-1_task-a, sub-01_ses-2_task-a" in lines
    assert "1 run with a problem: sub-03_ses-1_task-a" in lines
    assert "1 participant without some session: sub-07" in lines
    assert [line for line in lines if line.startswith(f"{2 * len(labels) - 1} runs without mask: ")]
    assert not [line for line in lines if "_bold.nii" in line]
    one = planned(tmp_path / "bids", tmp_path / "out", "--contrast", "a", "--participant-label", "01")
    assert "    events: none: this run cannot be analysed" in one


@pytest.mark.slow
@pytest.mark.parametrize("levels", [("participant", "group"), ("group", "participant")])
def test_with_both_levels_the_participant_level_is_described(
    planned: Planner, levels: tuple[str, ...], small_dataset: Path, tmp_path: Path
) -> None:
    lines = planned(small_dataset, tmp_path / "out", "--contrast", CONTRAST, levels=levels)
    assert lines[0].startswith("Would analyse task stroop")
    assert lines[-1] == "Then the group level; --dry-run with it alone describes it once these maps are there."


@pytest.mark.slow
def test_names_that_a_terminal_would_obey_are_printed_harmlessly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree(tmp_path / "bids\x1b[2J", {preproc("01", "1"): "", f"{run_name('01', '1')}_events.tsv": EVENTS})
    called = call_main(capsys, [root, tmp_path / "out", "participant", "--contrast", "a", "--dry-run"], root)
    assert called.code == 0
    assert "\x1b" not in called.output + called.error
    assert "bids [2J" in called.output

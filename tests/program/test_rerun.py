"""Reruns resume, changed options redo what they affect, and nothing half-written bears a final name."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from program import BOTH, CONTRAST, analyse, run_command, simulated


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("rerun"), n_participants=3)


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    assert analyse(dataset, output) == 0
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished analysis, times kept."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def maps(output: Path, pattern: str = "**/*_statmap.nii.gz") -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(output)): (path.stat().st_mtime_ns, path.read_bytes()) for path in output.glob(pattern)
    }


def redone(before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> set[str]:
    return {name for name in after if name not in before or after[name][0] != before[name][0]}


def values(content: dict[str, tuple[int, bytes]]) -> dict[str, bytes]:
    return {name: data for name, (_, data) in content.items()}


def test_finished_work_is_skipped_with_a_line_saying_so(
    dataset: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = maps(output)
    assert analyse(dataset, output) == 0
    assert redone(before, maps(output)) == set()
    said = capfd.readouterr().err
    for participant in ("01", "02", "03"):
        assert f"sub-{participant}: finished before, skipped" in said
    assert "group, contrast incongruentMinusCongruent: finished before, skipped" in said


def test_force_redoes_everything_to_the_same_bytes(dataset: Path, output: Path) -> None:
    before = maps(output)
    assert analyse(dataset, output, "--force") == 0
    after = maps(output)
    assert redone(before, after) == set(before)
    assert values(after) == values(before)


def test_group_option_redoes_the_group_only(dataset: Path, output: Path) -> None:
    before = maps(output)
    assert analyse(dataset, output, "--alpha", "0.01") == 0
    assert {name.split("/")[0] for name in redone(before, maps(output))} == {"group"}


@pytest.mark.parametrize(
    ("options", "entity"),
    [
        (("--session-contrast", "later=2*ses-02 - ses-01"), "_sessions-later_"),
        (("--contrast", "congruent"), "_contrast-congruent_"),
    ],
    ids=["combined anew without refitting", "a second contrast"],
)
def test_what_is_asked_besides_leaves_the_other_maps_alone(
    options: tuple[str, str], entity: str, dataset: Path, output: Path
) -> None:
    before = maps(output)
    assert analyse(dataset, output, *options, levels=("participant",)) == 0
    changed = redone(before, maps(output))
    assert changed
    assert all(entity in name for name in changed)


def test_group_answers_to_other_session_contrasts_stay(dataset: Path, output: Path) -> None:
    before = maps(output, "group/*_statmap.nii.gz")
    assert analyse(dataset, output, "--session-contrast", "later=2*ses-02 - ses-01", levels=("group",)) == 0
    after = maps(output, "group/*_statmap.nii.gz")
    assert set(before) < set(after)
    assert all("_sessions-later_" in name for name in redone(before, after))


def test_group_answers_from_other_maps_do_not_stay(dataset: Path, output: Path) -> None:
    options = ("--noise-model", "ols", "--session-contrast", "mean")
    assert analyse(dataset, output, *options) == 0
    assert {name for name in maps(output, "group/*_statmap.nii.gz") if "_sessions-mean_" not in name} == {
        name for name in maps(output, "group/*_statmap.nii.gz") if "_desc-reliability_" in name
    }
    assert not list((output / "group").glob("*ses02MinusSes01*"))


def test_first_level_option_redoes_all_participants(dataset: Path, output: Path) -> None:
    before = maps(output, "sub-*/**/*_statmap.nii.gz")
    assert analyse(dataset, output, "--noise-model", "ols", levels=("participant",)) == 0
    after = maps(output, "sub-*/**/*_statmap.nii.gz")
    assert redone(before, after) == set(before)
    assert all(after[name][1] != before[name][1] for name in before if "stat-variance" in name)


def test_changed_input_redoes_its_participant_only(dataset: Path, output: Path, tmp_path: Path) -> None:
    changed_dataset = Path(shutil.copytree(dataset, tmp_path / "bids"))
    moved = tmp_path / "moved"
    assert analyse(changed_dataset, moved) == 0
    before = maps(moved, "sub-*/**/*_statmap.nii.gz")
    events = next(changed_dataset.glob("sub-02/ses-01/func/*_events.tsv"))
    lines = events.read_text().splitlines()
    events.write_text("\n".join(lines[:-1]) + "\n")
    assert analyse(changed_dataset, moved) == 0
    assert {name.split("/")[0] for name in redone(before, maps(moved, "sub-*/**/*_statmap.nii.gz"))} == {"sub-02"}


def test_deleted_map_is_made_again(dataset: Path, output: Path) -> None:
    victim = next(output.glob("sub-03/ses-01/func/*stat-t_*.nii.gz"))
    content = victim.read_bytes()
    victim.unlink()
    assert analyse(dataset, output) == 0
    assert victim.read_bytes() == content


def test_reports_only_draws_without_touching_maps(dataset: Path, output: Path) -> None:
    before = maps(output)
    assert analyse(dataset, output, "--reports-only", report=True) == 0
    assert redone(before, maps(output)) == set()
    assert {path.name for path in output.glob("*.html")} == {"sub-01.html", "sub-02.html", "sub-03.html", "group.html"}


def test_reports_only_without_maps_is_a_failure_in_words(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = analyse(dataset, tmp_path / "empty", "--reports-only", levels=("participant",), report=True)
    assert code == 1
    assert "Run without --reports-only first" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [2, 5])
def test_any_number_of_processes_gives_the_same_bytes(
    n_processes: int, dataset: Path, finished: Path, tmp_path: Path
) -> None:
    """With more processes than participants, the runs of a participant are fitted at the same time."""
    options = ("--contrast", CONTRAST, "--nprocs", n_processes, "--no-report")
    assert run_command(dataset, tmp_path / "out", "participant", "group", *options).returncode == 0
    assert values(maps(tmp_path / "out")) == values(maps(finished))


@pytest.mark.slow
def test_one_process_per_participant_into_one_folder_gives_the_same_bytes(
    dataset: Path, finished: Path, tmp_path: Path
) -> None:
    call = (dataset, tmp_path / "out", "participant", "--contrast", CONTRAST, "--no-report")
    command = [sys.executable, "-m", "sessionfx", *map(str, call)]
    jobs = [
        subprocess.Popen([*command, "--participant-label", label], stderr=subprocess.PIPE, text=True)
        for label in ("01", "02", "03")
    ]
    for job in jobs:
        _, said = job.communicate(timeout=600)
        assert job.returncode == 0, said
    assert run_command(dataset, tmp_path / "out", "group", "--no-report").returncode == 0
    assert values(maps(tmp_path / "out")) == values(maps(finished))


def test_leftover_of_a_killed_process_is_not_taken_for_a_map(dataset: Path, output: Path) -> None:
    """As after a kill within the first session: maps of the second are incomplete, and the record claims neither."""
    expected = values(maps(output))
    (record,) = output.glob("logs/sub-01_*_record.json")
    record.unlink()
    for statistic in ("variance", "t"):
        (path,) = output.glob(f"sub-01/ses-02/func/*_stat-{statistic}_*.nii.gz")
        path.unlink()
    assert analyse(dataset, output) == 0
    assert values(maps(output)) == expected


def visible_files(output: Path) -> Iterator[Path]:
    """Files with a final name; the one that is only locked is always empty."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "records.lock")
    return (path for path in files if not path.name.startswith("."))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3])
def test_kill_leaves_no_half_written_file_and_the_rerun_completes(
    dataset: Path, finished: Path, tmp_path: Path, delay: float
) -> None:
    output = tmp_path / "out"
    arguments = [str(dataset), str(output), *BOTH, "--contrast", CONTRAST, "--nprocs", "2", "--no-report"]
    process = subprocess.Popen([sys.executable, "-m", "sessionfx", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(output.glob("sub-*/**/*_design.tsv")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # workers notice that their parent is gone
    for path in visible_files(output):
        if path.name.endswith(".nii.gz"):
            gzip.decompress(path.read_bytes())  # raises where the stream ends early
        else:
            assert path.stat().st_size > 0
    assert run_command(*arguments).returncode == 0
    assert values(maps(output)) == values(maps(finished))


@pytest.mark.slow
def test_sigterm_ends_the_call_with_a_code_of_its_own(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = [str(dataset), str(output), "participant", "--contrast", CONTRAST, "--nprocs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "sessionfx", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not output.is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(timeout=300) == 143


def orphans(output: Path) -> list[Path]:
    return [path for path in output.rglob("*_statmap.json") if not path.with_suffix(".nii.gz").is_file()]


def test_narrower_call_leaves_the_other_sessions_maps(dataset: Path, output: Path) -> None:
    before = maps(output, "sub-*/**/*_statmap.nii.gz")
    assert analyse(dataset, output, "--session-label", "02", levels=("participant",)) == 0
    after = maps(output, "sub-*/**/*_statmap.nii.gz")
    # the mean of one session has that session's degrees of freedom, one number here
    gone = {name for name in before if "_sessions-mean_stat-dof_" in name}
    assert set(after) == set(before) - gone
    # what "mean" means has changed: it is over the one session chosen
    assert redone(before, after) == {name for name in before if "_sessions-mean_" in name} - gone
    assert orphans(output) == []


def test_maps_that_stay_of_runs_that_are_gone_are_said(
    dataset: Path, output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    less = Path(shutil.copytree(dataset, tmp_path / "less"))
    prep = less / "derivatives" / "fmriprep"
    shutil.rmtree(prep / "sub-02" / "ses-02")
    shutil.rmtree(prep / "sub-03")
    narrower = (("--participant-label", "01"), ("--session-label", "01", "02"))
    for options in narrower:
        assert analyse(less, output, *options, levels=("participant",)) == 0
        assert "Maps of earlier calls stay" not in capfd.readouterr().err
    assert analyse(less, output, levels=("participant",)) == 0
    assert "is theirs: sub-02 ses-02, sub-03 ses-01, sub-03 ses-02. A " in capfd.readouterr().err


def test_refit_session_takes_along_what_was_combined_from_it(dataset: Path, output: Path) -> None:
    assert analyse(dataset, output, "--session-contrast", "later=2*ses-02 - ses-01", levels=("participant",)) == 0
    assert list(output.glob("sub-01/func/*_sessions-later_*"))
    assert analyse(dataset, output, "--noise-model", "ols", levels=("participant",)) == 0
    assert not list(output.glob("sub-01/func/*_sessions-later_*")), "it was combined from maps that are no more"
    assert orphans(output) == []


def test_contrast_whose_design_was_overwritten_is_not_finished(dataset: Path, output: Path) -> None:
    """Another contrast under another model rewrites the designs, which then are no longer those of the first."""
    analyse(dataset, output, "--confounds", "none", levels=("participant",), contrast="congruent")
    before = maps(output, "sub-*/**/*_statmap.nii.gz")
    assert analyse(dataset, output, levels=("participant",)) == 0
    assert {name for name in redone(before, maps(output)) if "/ses-" in name} == {
        name for name in before if "/ses-" in name and "_contrast-incongruentMinusCongruent_" in name
    }


def test_another_threshold_draws_the_participants_pages_anew(dataset: Path, tmp_path: Path) -> None:
    call = partial(
        analyse, dataset, tmp_path / "out", "--participant-label", "01", levels=("participant",), report=True
    )
    page = tmp_path / "out" / "sub-01.html"
    assert call() == 0
    first = page.stat().st_mtime_ns
    assert call() == 0
    assert page.stat().st_mtime_ns == first
    assert call("--alpha", "0.2") == 0
    assert page.stat().st_mtime_ns > first
    assert "false discovery rate 0.2" in page.read_text()


def test_selection_that_leaves_nothing_says_so(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Participant 02 has no second session here, although the study has one."""
    partial = Path(shutil.copytree(dataset, tmp_path / "bids"))
    shutil.rmtree(partial / "derivatives" / "fmriprep" / "sub-02" / "ses-02")
    code = analyse(
        partial, tmp_path / "out", "--participant-label", "02", "--session-label", "02", levels=("participant",)
    )
    assert code == 18
    assert "--session-label" in capfd.readouterr().err

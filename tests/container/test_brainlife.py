"""The brainlife App: its hooks start, watch and stop the image under Apptainer, and what a user types stays text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.container

APP = Path(__file__).parents[2] / "platforms" / "brainlife"
RUNNING, FINISHED, FAILED, UNKNOWN = range(4)


class Task:
    """One task of the platform: a folder with the App's files and config.json, and the hooks called in it."""

    def __init__(self, folder: Path, config: Mapping[str, object], programs: Path, *, slurm: bool) -> None:
        shutil.copytree(APP, folder)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "output").mkdir()
        for path in (folder, folder / "output"):
            path.chmod(0o777)
        self.folder = folder
        path = f"{programs}:{os.environ['PATH']}" if slurm else without("sbatch", folder.parent / "programs", programs)
        self.environment = os.environ | {"PATH": path, "SESSIONFX_SIF": str(folder.parent / "sessionfx.sif")}
        # podman, where it stands in for Apptainer, runs the program outside the Slurm job, which cannot end it
        self.outside_the_job = slurm and not shutil.which("apptainer")
        self.hooks = json.loads((folder / "package.json").read_text())["abcd"]

    def call(self, hook: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.hooks[hook]], cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=600, check=False)  # fmt: skip

    def end(self, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Ask for the status until it is no longer "running"."""
        deadline = time.monotonic() + seconds
        while (status := self.call("status")).returncode == RUNNING:
            assert time.monotonic() < deadline, status.stdout
            time.sleep(0.3)
        return status

    def log(self) -> str:
        return (self.folder / "sessionfx.log").read_text()


def without(hidden: str, folder: Path, first: Path) -> str:
    """Make a PATH on which everything is but one program, as where that is not installed."""
    if not folder.exists():
        folder.mkdir()
        for place in map(Path, [str(first), *os.environ["PATH"].split(":")]):
            for program in place.iterdir() if place.is_dir() else ():
                if program.name != hidden and not (folder / program.name).is_symlink():
                    (folder / program.name).symlink_to(program)
    return str(folder)


@pytest.fixture(params=["process", "slurm"])
def new_task(request: pytest.FixtureRequest, cluster: Any, tmp_path: Path) -> Callable[..., Task]:
    if not shutil.which("jq"):
        pytest.skip("jq, which every resource of brainlife has, is not installed.")
    slurm = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, timeout=600).returncode == 0
    if request.param == "slurm" and not slurm:
        pytest.skip("No Slurm answers here. tests/container/tools/local-slurm COMMAND runs a command beside one.")

    def make(**config: object) -> Task:
        # a name of its own below the folder that Apptainer sees
        folder = cluster.folder / tmp_path.name
        return Task(folder, config, cluster.programs(), slurm=request.param == "slurm")

    return make


def test_hooks_run_both_levels_to_the_same_maps(
    new_task: Callable[..., Task], assert_as_expected: Callable[..., None]
) -> None:
    task = new_task(bids="../bids", derivatives="../bids/derivatives/fmriprep", levels="participant group",
                    contrast="incongruent - congruent\n", confounds="", no_report=True, _tid=7)  # fmt: skip
    assert task.call("status").returncode == UNKNOWN
    assert task.call("start").returncode == 0
    assert task.call("status").returncode == RUNNING
    status = task.end()
    assert status.returncode == FINISHED, task.log()
    assert status.stdout.startswith("finished")
    assert_as_expected(task.folder / "output", "participant", "group")


def test_status_says_why_a_task_failed(new_task: Callable[..., Task]) -> None:
    task = new_task(bids="../bids", levels="participant", participant_label="77", contrast="incongruent - congruent")
    assert task.call("start").returncode == 0
    status = task.end()
    assert status.returncode == FAILED
    assert status.stdout.startswith(
        "failed with exit code 18: sessionfx: --participant-label 77 matches no participant"
    )


def test_stop_ends_the_task(new_task: Callable[..., Task]) -> None:
    task = new_task(bids="../bids", contrast="incongruent - congruent")
    assert task.call("start").returncode == 0
    deadline = time.monotonic() + 600
    while not any((task.folder / "output").glob("logs/*")):
        assert time.monotonic() < deadline, task.call("status").stdout
        time.sleep(0.05)
    assert task.call("stop").returncode == 0
    assert task.end().returncode == FAILED
    if not task.outside_the_job:
        assert not (task.folder / "output" / "group.html").exists()


@pytest.mark.parametrize("new_task", ["process"], indirect=True)
def test_what_a_user_types_is_never_run(new_task: Callable[..., Task]) -> None:
    nasty = "$(touch owned) `touch owned`; touch owned \"'\\ & | \u007f\u0001"
    values = {"task": nasty, "contrast": [nasty, "a - b"], "smoothing_fwhm": "5; touch owned", "space": nasty}
    task = new_task(bids="../bids", levels="participant", **values)
    assert task.call("start").returncode == 0
    assert task.end().returncode == FAILED
    assert not list(task.folder.rglob("owned"))
    assert tomllib.loads((task.folder / "options.toml").read_text()) == values
    assert "sessionfx: " in task.log()
    assert "Traceback" not in task.log()


@pytest.mark.parametrize("new_task", ["process"], indirect=True)
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bids": "$(touch owned)"}, "'bids' should be the folder of a BIDS dataset"),
        ({"bids": "../bids", "derivatives": "nowhere"}, "'derivatives' should be a folder"),
        ({"bids": "../bids", "levels": "participant --force"}, "'levels' holds '--force'"),
        ({"bids": "../bids", "levels": "participant", "no_such_option": 1}, "'no_such_option' is not an option"),
    ],
    ids=["bids", "derivatives", "levels", "option"],
)
def test_mistakes_in_the_config_are_said_in_a_sentence(
    new_task: Callable[..., Task], config: dict[str, object], words: str
) -> None:
    task = new_task(**config)
    task.call("start")
    status = task.end()
    assert status.returncode == FAILED
    assert words in status.stdout
    assert not list(task.folder.rglob("owned"))


@pytest.mark.parametrize("new_task", ["process"], indirect=True)
def test_sample_is_understood(new_task: Callable[..., Task]) -> None:
    """Nothing of it is unknown to the program; its task alone is not one of this dataset."""
    sample = json.loads((APP / "config.json.sample").read_text())
    del sample["derivatives"]
    task = new_task(**sample | {"bids": "../bids", "task": "other"})
    task.call("start")
    assert task.end().returncode == FAILED
    assert "other" in task.log()
    options = tomllib.loads((task.folder / "options.toml").read_text())
    assert options["contrast"] == ["incongruent - congruent", "all=0.5*incongruent + 0.5*congruent"]
    assert options["confounds"] == ["motion24", "a_comp_cor_0[0-4]"]
    assert "session_contrast" not in options

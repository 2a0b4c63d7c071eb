"""An array of participants and the group level after it, on a real Slurm (`tools/local-slurm` starts one).

With the image by Apptainer it is run in test_documented_commands.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.container

REPOSITORY = Path(__file__).parents[2]
SUBMIT = REPOSITORY / "platforms" / "slurm" / "submit.sh"
OPTIONS = "--contrast=incongruent - congruent\n--no-report\n"


@pytest.fixture(autouse=True)
def _slurm() -> None:
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True, timeout=600).returncode:
        pytest.skip("No Slurm answers here. tests/container/tools/local-slurm COMMAND runs a command beside one.")


class Queue:
    """Jobs submitted by submit.sh from a folder, watched until they have left the queue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.most_at_a_time = 0

    def submit(self, *options: str, **variables: object) -> str:
        (self.folder / "options.txt").write_text(OPTIONS)
        given = {"OPTIONS": self.folder / "options.txt", **variables}
        environment = os.environ | {name: str(value) for name, value in given.items()}
        command = [str(SUBMIT), *options]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait(self, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while states := self.states():
            self.most_at_a_time = max(self.most_at_a_time, states.count("RUNNING"))
            assert time.monotonic() < deadline, states
            time.sleep(0.1)

    def states(self) -> list[str]:
        # one line per array member, and none for jobs that have ended
        command = ["squeue", "--me", "--name=sessionfx,sessionfx-group", "--noheader", "--array", "--format=%T"]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout.split()

    def logs(self) -> str:
        return "".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("sessionfx*.log")))


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


PROGRAM = f"{sys.executable} -m sessionfx"


def test_array_then_group_give_the_maps_of_a_plain_run(
    queue: Queue, study: Path, tmp_path: Path, assert_as_expected: Callable[..., None]
) -> None:
    output = tmp_path / "out"
    printed = queue.submit("--mem=500M", BIDS=study, OUT=output, SESSIONFX=PROGRAM)
    assert "group: job" in printed
    queue.wait()
    assert queue.most_at_a_time == 3, "members should have written the folder at the same time"
    assert_as_expected(output, "participant", "group")
    assert not list(output.rglob(".sessionfx-*")), queue.logs()
    assert sorted(path.name.rpartition("_")[2] for path in tmp_path.glob("sessionfx-*_*.log")) == [
        "0.log",
        "1.log",
        "2.log",
    ]


def test_members_and_group_keep_within_the_memory_of_the_job(queue: Queue, study: Path, tmp_path: Path) -> None:
    queue.submit("--mem=300M", BIDS=study, OUT=tmp_path / "out", SESSIONFX=PROGRAM, PARTICIPANTS="01")
    queue.wait()
    assert "there are 0.3 GB" in next(tmp_path.glob("sessionfx-*_0.log")).read_text()


def test_group_waits_for_all_and_a_second_submission_completes(
    queue: Queue, study: Path, tmp_path: Path, assert_as_expected: Callable[..., None]
) -> None:
    dataset, output = tmp_path / "my bids", tmp_path / "my out"
    shutil.copytree(study, dataset)
    bold = next((dataset / "derivatives" / "fmriprep" / "sub-02").rglob("*desc-preproc_bold.nii.gz"))
    content = bold.read_bytes()
    bold.write_bytes(content[: len(content) // 2])
    variables: Mapping[str, Any] = {"BIDS": dataset, "OUT": output, "SESSIONFX": PROGRAM}
    queue.submit("--mem=500M", **variables)
    queue.wait()
    assert {path.name for path in output.glob("sub-*")} == {"sub-01", "sub-03"}
    assert not (output / "group").exists(), queue.logs()
    assert "sub-02: FAILED." in next(tmp_path.glob("sessionfx-*_1.log")).read_text()

    bold.write_bytes(content)
    queue.submit("--mem=500M", **variables)
    queue.wait()
    assert "finished before, skipped" in queue.logs()
    assert_as_expected(output, "participant", "group")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BIDS": ""}, "The variable BIDS is not set"),
        ({"OUT": ""}, "The variable OUT is not set"),
        ({"BIDS": "/usr/share"}, "/usr/share has no sub-* folder"),
    ],
)
def test_wrong_variables_are_said_in_a_sentence(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    (tmp_path / "options.txt").touch()
    given = {"BIDS": str(tmp_path), "OUT": str(tmp_path / "out"), "OPTIONS": str(tmp_path / "options.txt")}
    environment = os.environ | given | variables
    done = subprocess.run([str(SUBMIT)], env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr

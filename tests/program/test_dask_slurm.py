"""Dask workers as jobs of a real Slurm: they come, are replaced when lost, and are gone when the program is.

Runs where `sinfo` answers; `tests/container/tools/local-slurm COMMAND` runs a command beside a Slurm of one node.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from output_trees import results
from program import CONTRAST, simulated

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
pytest.importorskip("dask_jobqueue", reason="Dask is not installed: pip install 'sessionfx[dask]'")

JOB = "sessionfx-test"


@pytest.fixture(scope="module", autouse=True)
def slurm() -> None:
    try:
        answers = subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    if not answers:
        pytest.skip("no Slurm answers here (sinfo)")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("slurm"), n_participants=4, voxel_size=10.0)


@pytest.fixture(scope="module")
def local_output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("local") / "out"
    assert start(dataset, output, output.parent).wait(timeout=600) == 0
    return output


def start(dataset: Path, output: Path, folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Start both levels in a folder."""
    command = [sys.executable, "-m", "sessionfx", dataset, output, "participant", "group", "--contrast", CONTRAST]
    return subprocess.Popen(
        [*map(str, command), "--no-report", *options],
        cwd=folder,
        env={**os.environ, "DASK_JOBQUEUE__SLURM__NAME": JOB, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def on_slurm(n_workers: int) -> list[str]:
    return ["--executor", "dask", "--scheduler", "slurm", "--nprocs", str(n_workers), "--mem-gb", "1"]


def jobs(*states: str) -> list[str]:
    """Numbers of our jobs that are not over."""
    wanted = ["--states", ",".join(states)] if states else []
    command = ["squeue", "--noheader", "--name", JOB, "--format", "%i", *wanted]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def wait_for_no_jobs() -> None:
    deadline = time.monotonic() + 600
    while jobs():
        assert time.monotonic() < deadline, "jobs are left behind"
        time.sleep(0.5)


def test_jobs_make_the_same_files_as_on_one_machine(dataset: Path, local_output: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "out of jobs", tmp_path / "cwd"
    folder.mkdir()
    running = start(dataset, output, folder, *on_slurm(2))
    _, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert results(output) == results(local_output)
    assert list(folder.iterdir()) == [], "logs and scripts do not belong into the folder the command is given in"
    assert list((output / "logs").glob(f"{JOB}-*.log"))
    wait_for_no_jobs()


def test_a_lost_job_is_replaced_and_its_participant_tried_again(
    dataset: Path, local_output: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    running = start(dataset, output, tmp_path, *on_slurm(1))
    deadline = time.monotonic() + 600
    while not list(output.glob("sub-*/**/*_design.tsv")):
        assert time.monotonic() < deadline, "no participant was begun"
        time.sleep(0.01)
    (lost,) = jobs("RUNNING")
    subprocess.run(["scancel", "--signal=KILL", "--full", lost], check=True)
    _, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert results(output) == results(local_output)
    wait_for_no_jobs()


def test_sigterm_takes_the_jobs_along(dataset: Path, tmp_path: Path) -> None:
    running = start(dataset, tmp_path / "out", tmp_path, *on_slurm(2))
    deadline = time.monotonic() + 600
    while not jobs():
        assert time.monotonic() < deadline, "no job was submitted"
        time.sleep(0.1)
    running.terminate()
    assert running.wait(timeout=600) == 143
    wait_for_no_jobs()


def test_a_job_that_slurm_refuses_is_one_paragraph(dataset: Path, tmp_path: Path) -> None:
    running = start(dataset, tmp_path / "out", tmp_path, *on_slurm(1), DASK_JOBQUEUE__SLURM__QUEUE="nowhere")
    _, said = running.communicate(timeout=600)
    assert running.returncode == 69
    assert said.startswith("sessionfx: Slurm does not take the jobs (")
    assert "partition" in said
    assert said.count("\n") == 1
    assert jobs() == []


def test_jobs_that_end_without_a_worker_are_one_paragraph(dataset: Path, tmp_path: Path) -> None:
    running = start(dataset, tmp_path / "out", tmp_path, *on_slurm(1), DASK_JOBQUEUE__SLURM__PYTHON="no-such-python")
    _, said = running.communicate(timeout=600)
    assert running.returncode == 69
    assert "ended before a worker reported here. Their logs are in" in said
    assert "Traceback" not in said
    wait_for_no_jobs()

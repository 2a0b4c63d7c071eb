"""Small simulated datasets, and running the program on them: in this process, or as users do in one of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sessionfx.cli import main
from sessionfx.simulate import SimulationOptions, simulate_dataset

CONTRAST = "incongruent - congruent"
BOTH = ("participant", "group")
# two sessions of one short run on a coarse grid
SMALL = {
    "n_participants": 2, "n_sessions": 2, "n_runs": 1, "n_volumes": 40, "voxel_size": 14.0, "missing": (),
    "write_raw_bold": False,
}  # fmt: skip


def simulated(folder: Path, **changes: Any) -> Path:
    """Make a dataset that is `SMALL` but for some changes."""
    return simulate_dataset(folder / "bids", SimulationOptions(**(SMALL | changes)))


def analyse(
    dataset: Path, output: Path, *options: str, levels: tuple[str, ...] = BOTH, contrast: str = CONTRAST,
    report: bool = False,
) -> int:  # fmt: skip
    """Run levels in this process, one run at a time; return the exit code."""
    more = () if report else ("--no-report",)
    return main([str(dataset), str(output), *levels, "--contrast", contrast, "--nprocs", "1", *more, *options])


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m sessionfx` with these arguments."""
    command = [sys.executable, "-m", "sessionfx", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def wait_until_sigterm_is_caught(pid: int) -> None:
    """Wait for a process on this machine to have a handler of SIGTERM; see proc(5)."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise TimeoutError(pid)


def bosh(*arguments: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command of the boutiques package; `options` go to the process."""
    command = [str(Path(sys.executable).parent / "bosh"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done

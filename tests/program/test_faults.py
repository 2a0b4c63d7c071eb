"""A hundred calls of the C library that fail, at every place where files are read, written, renamed or removed.

The program runs with a small library in front of the C library (faults/faults.c): the k-th call of a kind on the
study's files fails with an error, or the process is killed there. Whatever happens: no traceback, a documented exit
code, no half-written file under a final name, no map that is missing or differs after exit code 0, and the same
command without faults ends with every map, table, page, log and record of an undisturbed call.
"""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pytest

from forked_calls import ForkedCalls
from output_trees import differences, half_written, linked_copy
from sessionfx.simulate import SimulationOptions, simulate_dataset

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[1] / "support" / "faults"
EXIT_CODES = {0, 1, 2, 16, 17, 18, 73, 143, -signal.SIGKILL, 128 + signal.SIGTERM}
WRITING = "write,rename,mkdir,fsync,chmod"
READING = "read,opendir"
# calls, error or signal, and whether what fails goes on failing (a full disk) or only once
FAULTS = (
    (WRITING, errno.ENOSPC, "on"), (WRITING, errno.EIO, "once"), (WRITING, errno.EACCES, "once"), (READING, errno.EIO, "once"),
    (READING, errno.ESTALE, "once"), ("open", errno.EMFILE, "once"), ("open", errno.EACCES, "once"), ("open", errno.EIO, "on"),
    ("stat", errno.ESTALE, "once"), ("stat", errno.EIO, "on"), ("unlink", errno.EIO, "once"), ("rename,unlink", errno.EROFS, "on"),
    ("rename,unlink", -signal.SIGKILL, "once"), ("write,open", -signal.SIGKILL, "once"), ("write,rename,read", -signal.SIGTERM, "once"),
    ("mkdir,open", -signal.SIGTERM, "once"), ("opendir", errno.EACCES, "on"),
)  # fmt: skip
N_CASES = 100
LEVELS = {
    "participant": ("participant", "--no-report"),
    "group": ("group", "--no-report"),
    "reports": ("participant", "group"),
}


@dataclass(frozen=True)
class Study:
    """Where the dataset is, and for each level the output before and after an undisturbed call."""

    call: ForkedCalls
    folder: Path
    before: dict[str, Path]
    after: dict[str, Path]
    counts: dict[str, dict[str, int]]

    @property
    def output(self) -> Path:
        return self.folder / "study" / "out"

    def begin(self, level: str) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        linked_copy(self.before[level], self.output)

    def arguments(self, level: str) -> list[str]:
        options = ["--contrast", "incongruent - congruent", "--nprocs", "1", "--noise-model", "ols"]
        options += ["--strategy", "summary-statistics", "marginal", "--session-contrast", "mean"]
        return [str(self.folder / "study" / "bids"), str(self.output), *LEVELS[level], *options]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the library of faults needs Linux and a C compiler (cc)")
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCES / "faults.c", "-ldl"], check=True)
    _make_dataset(folder / "study" / "bids")
    call = ForkedCalls(folder, LD_PRELOAD=str(library), TMPDIR=str(folder), MPLCONFIGDIR=str(folder))
    empty = folder / "empty"
    empty.mkdir()
    made = Study(call, folder, {"participant": empty, "reports": empty}, {}, {})
    for level in LEVELS:
        made.begin(level)
        code, printed, found = call(made.arguments(level), fault=_fault("none", 0, errno.EIO, "once"))
        assert code == 0, printed
        made.counts[level] = found["count"]
        made.after[level] = folder / f"after-{level}"
        made.output.rename(made.after[level])
        made.before.setdefault("group", made.after[level])
    yield made
    call.close()


def _make_dataset(bids: Path) -> None:
    options = SimulationOptions(
        n_participants=2, n_sessions=2, n_runs=1, n_volumes=20, voxel_size=14, missing=(), write_raw_bold=False
    )
    simulate_dataset(bids, options)
    shutil.rmtree(bids / "derivatives" / "truth")
    for path in bids.rglob("*.nii.gz"):
        path.write_bytes(gzip.compress(nib.load(path).slicer[2:8, 4:10, 4:9].to_bytes(), 1, mtime=0))


def _fault(calls: str, number: int, error: int, how_often: str) -> dict[str, object]:
    times = 1 if how_often == "once" else 10**9
    return {"calls": calls, "number": number, "times": times, "error": error, "under": "/study/"}


def test_two_undisturbed_calls_give_the_same_files(study: Study) -> None:
    for level in LEVELS:
        study.begin(level)
        code, printed, _ = study.call(study.arguments(level))
        assert code == 0, printed
        assert not differences(study.after[level], study.output)
        assert min(study.counts[level][call] for call in ("open", "read", "write", "rename", "stat", "opendir")) > 0


def cases() -> range:
    """Cases of every run, or those that SESSIONFX_FAULT_SEEDS=100:300 asks for."""
    asked = os.environ.get("SESSIONFX_FAULT_SEEDS")
    return range(*map(int, asked.split(":"))) if asked else range(N_CASES)


@pytest.mark.parametrize("number", cases())
def test_a_call_that_fails_loses_nothing(study: Study, number: int) -> None:
    draw = random.Random(f"faults {number}")
    level = "reports" if number % 10 == 9 else ("participant", "group")[number % 2]
    calls, error, how_often = FAULTS[draw.randrange(len(FAULTS))]
    n_calls = sum(study.counts[level][call] for call in calls.split(","))
    fault = _fault(calls, draw.randint(1, max(1, n_calls)), error, how_often)
    study.begin(level)
    code, printed, found = study.call(study.arguments(level), fault=fault)
    problems = []
    if "Traceback" in printed or "Error:" in printed:
        problems.append("traceback")
    if code not in EXIT_CODES:
        problems.append(f"exit code {code}")
    if code > 0 and code != 143 and not printed.strip():
        problems.append("not a word")
    problems += half_written(study.output)
    if code == 0:
        problems += [
            f"exit code 0, {text}" for text in differences(study.after[level], study.output, r"_statmap\.nii\.gz$")
        ]
    if error > 0 and "unlink" not in calls and how_often == "once":
        problems += [f"{path} is left" for path in study.output.rglob(".sessionfx-*")]
    again, printed_again, _ = study.call(study.arguments(level))
    if again != 0:
        problems.append(f"again: exit code {again}: {printed_again[-500:]}")
    problems += [f"again: {text}" for text in differences(study.after[level], study.output)]
    where = f"{level}: {found['hit']} {errno.errorcode.get(error, error)} {how_often}, exit code {code}"
    assert not problems, "\n".join([where, *problems[:12], printed[-3000:]])

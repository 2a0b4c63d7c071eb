"""The group level as users run it: real maps and tables in, files out, and what they say against the arrays put in."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from group_study import (
    GroupStudy,
    group_map,
    group_path,
    make_study,
    read,
)
from sessionfx.cli import main

SESSION_CONTRASTS = ("mean", "ses02MinusSes01", "ses03MinusSes01", "ses03MinusSes02", "linear")
LABELS = {"session-model": "sessionModel", "fixed-effects": "fixedEffects", "marginal": "marginal", "mixed": "mixed"}
QUICK = ("--session-contrast", "mean", "--strategy", "fixed-effects")


# Helpers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Called:
    """How a call ended."""

    code: int
    error: str

    def refused(self, code: int, *fragments: str) -> None:
        """Check that it was refused in one paragraph which holds every fragment."""
        assert self.code == code, self.error
        assert self.error.startswith("sessionfx: "), self.error
        assert self.error.count("\n") == 1, f"more than one paragraph:\n{self.error}"
        for fragment in fragments:
            assert fragment in self.error, f"{fragment!r} is not in: {self.error}"


@dataclass
class Caller:
    """Calls the program on a study, and checks what holds for every call: no traceback, input untouched."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, study: GroupStudy, output: Path, *options: str, report: bool = False) -> Called:
        arguments = [str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1", *options]
        before = state_of(study.raw), state_of(study.maps)
        self.capsys.readouterr()
        code = main(arguments if report else [*arguments, "--no-report"])
        error = self.capsys.readouterr().err
        assert "Traceback" not in error
        assert (state_of(study.raw), state_of(study.maps)) == before, "the input was changed"
        return Called(code, error)

    def done(self, study: GroupStudy, output: Path, *options: str, report: bool = False) -> Path:
        """Call the program, which must succeed."""
        called = self(study, output, *options, report=report)
        assert called.code == 0, called.error
        return output


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def state_of(root: Path) -> dict[str, str]:
    """Digest and time of every file by its name."""
    return {
        str(path.relative_to(root)): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        if path.is_file()
        else "folder"
        for path in root.rglob("*")
    }


def times(output: Path, pattern: str = "group/*") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob(pattern) if path.is_file()}


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if after[name] != before.get(name)}


def contents(output: Path, pattern: str = "group/*") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob(pattern) if path.is_file()}


def hidden_files(output: Path) -> list[str]:
    return [path.name for path in output.rglob(".*") if path.name != ".bidsignore"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Nine participants, three sessions, two maps missing; read only."""
    return make_study(tmp_path_factory.mktemp("study"))


# Bugs of their own ------------------------------------------------------------------------------------------


def test_permutations_of_a_map_without_background(call: Caller, tmp_path: Path) -> None:
    """A region of interest can fill its grid, down to one voxel."""
    study = make_study(tmp_path, shape=(1, 1, 1))
    output = call.done(study, tmp_path / "out", *QUICK, "--permutations", "19")
    for kind in ("voxelFWE", "clusterSizeFWE", "clusterMassFWE", "tfceFWE"):
        (p,) = group_map(output, "fixedEffects", "p", desc=kind)
        assert 1 / 20 <= p <= 1
    # with one voxel the family is that voxel: every test that it enters says the same
    assert group_map(output, "fixedEffects", "p", desc="tfceFWE") == group_map(
        output, "fixedEffects", "p", desc="voxelFWE"
    )


def test_voxels_that_vary_by_rounding_alone_are_not_significant(call: Caller, tmp_path: Path) -> None:
    """Equal maps, or sessions that differ equally for everyone, leave no error to test against, in t and in F."""
    study = make_study(tmp_path, missing=())
    for (participant, session), effect in list(study.effects.items()):
        effect[5, 5] = [0.1, 0.1 * int(session), 0.1 * int(participant), 0.0, 0.3, 0.7]
        study.write(participant, session, effect, study.variances[participant, session])
    output = call.done(study, tmp_path / "out")
    for path in (output / "group").glob("*_stat-z_statmap.nii.gz"):
        # the mean of participants that differ is the one thing that can be tested there
        at = [0, 1, 3, 4, 5] if "_sessions-mean_" in path.name else [0, 1, 2, 3, 4, 5]
        # REML bounds the ratio of variances, so that mixed says zero there rather than nothing
        assert np.abs(read(path)[5, 5][at]).max() < 1e-6, path.name
    assert (group_map(output, "fixedEffects", "p", "any").reshape(6, 6, 6)[5, 5] == 1).all()
    assert (group_map(output, "marginal", "F", "any").reshape(6, 6, 6)[:5] > 0).all()


def test_covariates_are_refused_before_anything_is_written(call: Caller, tmp_path: Path, study: GroupStudy) -> None:
    raw = shutil.copytree(study.raw, tmp_path / "bids")
    table = pd.read_csv(raw / "participants.tsv", sep="\t")
    table["months"] = 12 * table["age"]
    table.to_csv(raw / "participants.tsv", sep="\t", index=False)
    study = GroupStudy(Path(raw), study.maps)
    output = tmp_path / "out"
    for dry in ((), ("--dry-run",)):
        call(study, output, "--covariates", "agee", *dry).refused(
            2,
            "participants.tsv has no column 'agee'",
            "(columns: participant_id, age, group, site, months)",
            "--covariates",
        )
        call(study, output, "--covariates", "age", "months", *dry).refused(
            17, "'months' is a combination of 'age'", "Leave one of the covariates", "--covariates"
        )
        call(study, output, "--covariates", "site", *dry).refused(17, "'site' has one level only ('x')")
        call(study, output, "--session-covariates", "weight", *dry).refused(
            2, "sub-01_sessions.tsv has no column 'weight'", "--session-covariates"
        )
        call(study, output, "--covariates", "age", "--group-contrast", "height", *dry).refused(
            2, "names 'height'", "'age'"
        )
    assert not output.exists()


def test_labels_too_long_for_file_names_are_refused_with_a_remedy(
    call: Caller, tmp_path: Path, study: GroupStudy
) -> None:
    output = tmp_path / "out"
    long_sum = " + ".join(["ses-01"] * 40)
    call(study, output, "--session-contrast", long_sum).refused(2, "--session-contrast", "too long", "NAME=")
    call(study, output, "--covariates", "age", "--group-contrast", "+".join(["age"] * 60)).refused(
        2, "--group-contrast", "too long", "NAME="
    )
    assert not output.exists()
    call.done(study, output, *QUICK, "--covariates", "age", "--group-contrast", "sixty=" + "+".join(["age"] * 60))
    assert group_path(output, "fixedEffects", "z", covariate="sixty").is_file()


def test_work_dir_is_made_and_stays_out_of_the_input(call: Caller, tmp_path: Path, study: GroupStudy) -> None:
    work = tmp_path / "new" / "work"
    output = call.done(study, tmp_path / "out", *QUICK, "--work-dir", str(work))
    assert list(work.iterdir()) == []
    assert hidden_files(output) == []
    for inside in (study.raw, study.maps):
        call(study, tmp_path / "none", *QUICK, "--work-dir", str(inside / "work")).refused(
            73, "--work-dir", "lies inside the input dataset"
        )
    (tmp_path / "file").write_text("")
    call(study, tmp_path / "none", *QUICK, "--work-dir", str(tmp_path / "file")).refused(
        73, "--work-dir", "cannot be made"
    )
    assert not (tmp_path / "none").exists()


# Memory and disk --------------------------------------------------------------------------------------------

MEASURED = (
    "import resource, sys; from sessionfx.cli import main; code = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
)
SMALL_FILES = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from sessionfx.cli import main; "
    "sys.exit(main(sys.argv[1:]))"
)


def run_python(code: str, study: GroupStudy, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, study.raw, output, "group", "-d", study.maps, "--no-report", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_maps(tmp_path: Path) -> None:
    """60 maps of 201,600 voxels against 15: in memory the other 45 would take 73 MB."""
    peaks = []
    for n_participants in (5, 20):
        folder = tmp_path / str(n_participants)
        study = make_study(folder, n_participants=n_participants, missing=(), shape=(60, 60, 56), variances=False)
        done = run_python(
            MEASURED, study, folder / "out", "--session-contrast", "mean", "--strategy", "fixed-effects", "marginal"
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 30e6


def test_a_full_disk_is_one_sentence(tmp_path: Path, study: GroupStudy) -> None:
    """A limit on the size of files stands in for it: 25 maps of 216 voxels take 43 kB."""
    done = run_python(SMALL_FILES, study, tmp_path / "out", *QUICK)
    assert done.returncode == 73, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot hold the maps of the group level (File too large)" in done.stderr.splitlines()[-1]
    assert "--work-dir" in done.stderr

"""Calls of the program in this process, and what holds after every one of them: no traceback, the input untouched."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from group_study import GroupStudy
from sessionfx.cli import main

QUICK = ("--session-contrast", "mean", "--strategy", "summary-statistics")


def tree_state(root: Path) -> dict[str, str]:
    """Time and content of every file below a folder by its name; folders, links and pipes count too."""
    state = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                content = f"link to {path.readlink()}"
            elif stat.S_ISREG(found.st_mode):
                content = f"{found.st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            else:
                content = "no file"
            state[str(path)[len(str(root)) :]] = content
    return state


def times(output: Path, pattern: str = "group/*") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob(pattern) if path.is_file()}


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if after[name] != before.get(name)}


def contents(output: Path, pattern: str = "group/*") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob(pattern) if path.is_file()}


@dataclass(frozen=True)
class Called:
    """How a call ended: exit code, stdout and stderr."""

    code: int
    output: str
    error: str

    def refused(self, code: int, *fragments: str) -> str:
        """Check that the call was refused as a whole, in one paragraph that holds every fragment."""
        assert self.code == code, self.error
        assert self.error.startswith("sessionfx: "), self.error
        assert self.error.count("\n") == 1, f"more than one paragraph:\n{self.error}"
        assert self.error.rstrip().endswith((".", "?")), "a sentence"
        require(self.error, fragments)
        return self.error

    def failed(self, participant: str, *fragments: str) -> str:
        """Check that one participant failed, in one paragraph that holds every fragment, and the other was done."""
        assert self.code == 1, self.error
        lines = [line for line in self.error.splitlines() if " of earlier calls will be removed" not in line]
        assert len(lines) == 3, f"two participants and a summary, one paragraph each:\n{self.error}"
        (mine,) = (line for line in lines if line.startswith(f"{participant}: "))
        assert mine.startswith(f"{participant}: FAILED. "), self.error
        require(mine, fragments)
        assert lines[-1].startswith(f"1 of 2 participants failed ({participant})"), self.error
        assert "same command again" in lines[-1], "the remedy for the call as a whole"
        return mine


def require(text: str, fragments: tuple[str, ...]) -> None:
    """Check that a text holds every fragment."""
    for fragment in fragments:
        assert fragment in text, f"{fragment!r} is not in: {text}"


def call_main(capsys: pytest.CaptureFixture[str], arguments: list[object], *inputs: Path) -> Called:
    """Call the program; no traceback is shown, and not a byte below the inputs changes."""
    before = [tree_state(root) for root in inputs]
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    output, error = capsys.readouterr()
    assert "Traceback" not in output + error
    assert [tree_state(root) for root in inputs] == before, "the input was changed"
    return Called(code, output, error)


@dataclass
class GroupCaller:
    """Calls the group level on a study."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, study: GroupStudy, output: Path, *options: str, report: bool = False) -> Called:
        arguments = [study.raw, output, "group", "-d", study.maps, "--nprocs", "1", *options]
        return call_main(self.capsys, [*arguments, *([] if report else ["--no-report"])], study.raw, study.maps)

    def done(self, study: GroupStudy, output: Path, *options: str, report: bool = False) -> Path:
        """Call the program, which must succeed."""
        called = self(study, output, *options, report=report)
        assert called.code == 0, called.error
        return output

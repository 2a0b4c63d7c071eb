"""Calls of the program in processes forked from one that has everything loaded (`forked_program.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class ForkedCalls:
    """The program, ready to be forked; a folder for what calls print and count, and variables of the environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._printed, self._counted = folder / "printed.txt", folder / "counted.json"
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forked_program.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def __call__(self, arguments: list[str], **asked: Any) -> tuple[int, str, dict[str, Any]]:
        """Give the exit code, what was printed, and the seconds, calls counted and the one that failed.

        Asked for are a `signal` `after` some seconds, or a `fault`.
        """
        request = {"arguments": arguments, "printed": str(self._printed), "counted": str(self._counted)}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        for path in (self._printed, self._counted):
            path.unlink(missing_ok=True)
        stdin.write(json.dumps({**request, "signal": 0, "after": 0.0, "fault": None, **asked}) + "\n")
        stdin.flush()
        code, seconds = json.loads(stdout.readline())
        counted = (
            json.loads(self._counted.read_text()) if self._counted.exists() else {"count": None, "hit": "(killed)"}
        )
        printed = self._printed.read_text(errors="replace") if self._printed.exists() else ""
        return code, printed, {**counted, "seconds": seconds}

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(300)
        self._process.stdout.close()

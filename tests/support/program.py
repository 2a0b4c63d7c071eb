"""Running the program as users do, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

CONTRAST = "incongruent - congruent"


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m sessionfx` with these arguments."""
    command = [sys.executable, "-m", "sessionfx", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def bosh(*arguments: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command of the boutiques package; `options` go to the process."""
    command = [str(Path(sys.executable).parent / "bosh"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done

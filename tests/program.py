"""Running the program as users do, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

CONTRAST = "incongruent - congruent"


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m sessionfx` with these arguments."""
    command = [sys.executable, "-m", "sessionfx", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)

"""Running the program as another user than root, in a folder that this user can reach (pytest's own cannot be)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = 65534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Make a folder for a test; skip the test where the other user cannot run this Python (one below /root, say)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        done = subprocess.run([*AS_USER, sys.executable, "-m", "sessionfx", "--version"], capture_output=True, cwd=name)
        if done.returncode != 0:
            pytest.skip("another user cannot run this Python")
        yield folder

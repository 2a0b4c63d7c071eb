"""Runs R, where it is installed, to see that it gives the answers stored in tests/data."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest


def assert_r_gives_the_stored_answers(tables: Path, folder: Path, rtol: float) -> None:
    """Run `reference.R` of a folder of tables on the maps there, and compare."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        pytest.skip("R is not installed: its stored answers are compared with, not made anew")
    shutil.copy(tables / "maps.tsv", folder)
    done = subprocess.run([rscript, tables / "reference.R", folder], capture_output=True, text=True, check=False)
    if "there is no package called" in done.stderr:
        pytest.skip("R lacks a package that the script needs")
    assert done.returncode == 0, done.stderr
    found, stored = (pd.read_csv(place / "answers.tsv", sep="\t") for place in (folder, tables))
    pd.testing.assert_frame_equal(found, stored, rtol=rtol)

"""R, where it is installed, gives the answers that are stored in tests/data."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

DATA = Path(__file__).parents[1] / "data"
TOLERANCES = {"measured_sessions": 1e-6, "regions": 1e-6, "robust": 1e-6, "f_tests": 1e-7, "intervals": 1e-4}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCES)
def test_r_gives_the_stored_answers(name: str, tmp_path: Path) -> None:
    """`reference.R` of a folder, on the maps there."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        pytest.skip("R is not installed: its stored answers are compared with, not made anew")
    shutil.copy(DATA / name / "maps.tsv", tmp_path)
    command = [rscript, DATA / name / "reference.R", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "there is no package called" in done.stderr:
        pytest.skip("R lacks a package that the script needs")
    assert done.returncode == 0, done.stderr
    found, stored = (pd.read_csv(place / "answers.tsv", sep="\t") for place in (tmp_path, DATA / name))
    pd.testing.assert_frame_equal(found, stored, rtol=TOLERANCES[name])

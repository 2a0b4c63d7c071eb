"""docs/tutorial.md does what it says: its commands run, print what stands below them, and its figures are theirs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
# where the tutorial's dataset, or a clone of the scanner's files, lies
DATASET, CLONE = "SESSIONFX_TUTORIAL_DATASET", "SESSIONFX_TUTORIAL_CLONE"
INSTALL, GET_DATA, REAL_DATA = "1", "2", ("2", "3", "4", "5")

pytestmark = pytest.mark.slow


def run_page(folder: Path, *skipped: str) -> None:
    """Run the commands of the page, but for some steps, in a folder with its script and this environment's programs."""
    folder.mkdir(exist_ok=True)
    (folder / "docs").symlink_to(ROOT / "docs")
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [sys.executable, str(ROOT / "tools" / "tutorial_run.py"), str(folder), "--skip", INSTALL, *skipped]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | {"PATH": programs})
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the steps with the simulated study make."""
    folder = tmp_path_factory.mktemp("study")
    run_page(folder, *REAL_DATA)
    return folder / "tutorial"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the steps with real data make of a dataset that is there already."""
    dataset = Path(os.environ.get(DATASET, ROOT.parent / "shared" / "data" / "studyforrest"))
    if not (dataset / "dataset_description.json").exists():
        pytest.skip(
            f"The tutorial's real data are not here; {DATASET} names a folder that docs/tutorial/get_data.py made."
        )
    folder = tmp_path_factory.mktemp("real")
    (folder / "tutorial").mkdir()
    (folder / "tutorial" / "real").symlink_to(dataset)
    run_page(folder, GET_DATA, "6", "7", "8")
    return folder / "tutorial"


def values(path: Path) -> tuple[Any, Any]:
    image: Any = nib.load(path)
    return image.affine, np.nan_to_num(image.get_fdata())


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


MAPS = {
    "mean": "func/*sessions-mean_stat-z_*.nii.gz", "ses-2 − ses-1": "func/*sessions-ses2MinusSes1_stat-z_*.nii.gz",
    "ses-1": "ses-1/func/*stat-z_*.nii.gz", "ses-2": "ses-2/func/*stat-z_*.nii.gz",
}  # fmt: skip
# the column of a participant's table of maps, behind their name, degrees of freedom, voxels and threshold
SUPRATHRESHOLD = 3


@pytest.mark.parametrize("name", MAPS)
def test_the_table_of_real_maps_is_that_of_the_maps(real: Path, name: str) -> None:
    row = re.search(rf"^\| {name} \| (.*) \|$", PAGE, re.MULTILINE)
    assert row
    voxels, largest, at_largest, smallest, at_smallest = row[1].replace("−", "-").replace(",", "").split(" | ")
    affine, z = values(only(real / "real-results" / "sub-02", MAPS[name]))
    assert int(voxels.split()[-1]) == np.count_nonzero(z)
    for value, place, index in ((largest, at_largest, z.argmax()), (smallest, at_smallest, z.argmin())):
        assert z.flat[index] == pytest.approx(float(value), abs=0.1)
        where = apply_affine(affine, np.unravel_index(index, z.shape))
        assert where == pytest.approx(np.array(place.split(), float), abs=0.51)
    report = (real / "real-results" / "sub-02.html").read_text(encoding="utf-8")
    written = name.replace("−", "-")
    (cells,) = re.findall(rf"<tr><td>{written}(?: \(\w+\))?</td>(.*?)</tr>", report)
    shown = re.findall(r"<td[^>]*>([^<]*)", cells)
    said = int(voxels.split()[0])
    assert int(shown[SUPRATHRESHOLD].replace(",", "")) == pytest.approx(said, rel=0.03)


def test_the_sessions_at_the_strongest_response_to_faces(real: Path) -> None:
    said = re.search(r"z = (\d\.\d), session 2 has (\d\.\d), just below its threshold of (\d\.\d)", PROSE)
    assert said
    _, first = values(only(real / "real-results" / "sub-02", MAPS["ses-1"]))
    _, second = values(only(real / "real-results" / "sub-02", MAPS["ses-2"]))
    assert first.max() == pytest.approx(float(said[1]), abs=0.1)
    assert second.flat[first.argmax()] == pytest.approx(float(said[2]), abs=0.1)
    assert second.flat[first.argmax()] < float(said[3])


def test_the_study_finds_its_first_region_whole_and_little_else(study: Path) -> None:
    found: dict[str, Any] = {}
    truth = study / "study" / "derivatives" / "truth"
    region = values(only(truth, "*meanEffect_mask.nii.gz"))[1] > 0
    table = pd.read_csv(only(study / "study-results" / "group", "*Asym_desc-answers_metrics.tsv"), sep="\t")
    answers = table[table["session_contrast"] == "mean"].set_index("strategy")
    for strategy in ("marginal", "session-model"):
        answer = answers.loc[strategy]
        found[strategy] = np.abs(values(study / "study-results" / answer["z_map"])[1]) >= answer["threshold"]
    both = found["marginal"] & found["session-model"]
    assert np.array_equal(both, region)
    assert f"these {np.count_nonzero(region)} voxels are the first region, and all of it" in PROSE
    assert [np.count_nonzero(beyond & ~both) for beyond in found.values()] == [2, 2]
    largest = answers["largest_z"]
    assert f"Its largest z is {largest['session-model']:.2f} instead of {largest['marginal']:.2f}" in PROSE
    assert answers.loc["session-model", "valid"] == "no"
    assert largest["summary-statistics"] == pytest.approx(largest["marginal"])


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the scanner's files as step 2 does."""
    clone = os.environ.get(CLONE)
    if clone is None or shutil.which("dcm2niix") is None:
        pytest.skip(f"{CLONE} does not name a clone of datalad/example-dicom-functional, or dcm2niix is not installed.")
    bids = tmp_path_factory.mktemp("converted") / "bids"
    done = get_data(clone, bids)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"^ses-\d: .*", PAGE, re.MULTILINE):
        assert line in done.stdout.splitlines()
    return bids


def get_data(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "tutorial" / "get_data.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_every_picture_is_in_one_session_and_both_show_every_category(converted: Path) -> None:
    tables = [pd.read_csv(path, sep="\t") for path in sorted(converted.glob("sub-02/*/func/*_events.tsv"))]
    assert [len(table) for table in tables] == [96, 96]
    for table in tables:
        assert (table["trial_type"].value_counts() == 16).all()
        assert table["onset"].between(0, 156).all()


def test_a_folder_that_is_no_clone_is_named(tmp_path: Path) -> None:
    done = get_data(tmp_path, tmp_path / "bids")
    assert done.returncode == 2
    assert f"{tmp_path} has no dicoms and events.tsv" in done.stderr


def test_pictures_are_there_described_and_small() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", PAGE)
    assert len(pictures) >= 6
    for description, name in pictures:
        assert len(description) > 20, name
        assert (ROOT / "docs" / name).stat().st_size <= 150_000, name

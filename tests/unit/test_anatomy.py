"""The participant's own anatomy, where the derivatives have it, is what pictures of their maps lie on."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_trees import SPACE, make_tree
from pages import parse, text_of
from program import analyse, simulated
from sessionfx.bids.anatomy import AnatomyFiles, find_anatomy, read_anatomy
from sessionfx.bids.images import DifferentGridError

MNI = {"space": SPACE, "res": None}
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = (-90, -126, -72)


def name(*parts: str, session: str = "") -> str:
    """Of a file of fMRIPrep's folder `anat`, as its documentation of outputs has it."""
    folder = f"derivatives/fmriprep/sub-01/{f'ses-{session}/' if session else ''}anat"
    return f"{folder}/{'_'.join(['sub-01', *([f'ses-{session}'] if session else []), *parts])}"


T1W = "desc-preproc_T1w.nii.gz"
CASES = {
    "in the space of the maps": ([name(f"space-{SPACE}", T1W)], MNI, 0),
    "of their resolution before others": (
        [name(f"space-{SPACE}", "res-1", T1W), name(f"space-{SPACE}", "res-2", T1W), name(f"space-{SPACE}", T1W)],
        {"space": SPACE, "res": "2"}, 1,
    ),
    "of no resolution before another": (
        [name(f"space-{SPACE}", "res-1", T1W), name(f"space-{SPACE}", T1W)], {"space": SPACE, "res": "2"}, 1,
    ),
    "of any other": ([name(f"space-{SPACE}", "res-1", T1W)], MNI, 0),
    "their own space is not named": ([name(f"space-{SPACE}", T1W), name(T1W)], {"space": "T1w"}, 1),
    "their own space alone": ([name(T1W)], MNI, None),
    "of another template": ([name("space-MNI152NLin6Asym", T1W)], MNI, None),
    "of a cohort": (
        [name("space-MNIPediatricAsym", f"cohort-{number}", T1W) for number in (1, 2)],
        {"space": "MNIPediatricAsym", "cohort": "2"}, 1,
    ),
    "of a session where there is no other": ([name(f"space-{SPACE}", T1W, session="b")], MNI, 0),
    "of the participant before a session": (
        [name(f"space-{SPACE}", T1W, session="a"), name(f"space-{SPACE}", T1W)], MNI, 1,
    ),
    "not a segmentation": ([name(f"space-{SPACE}", "dseg.nii.gz"), name(f"space-{SPACE}", "desc-brain_mask.nii.gz")],
                           MNI, None),
    "runs in a space of their own have none": ([name(T1W)], {"space": None}, None),
}  # fmt: skip


@pytest.mark.parametrize(("files", "entities", "expected"), CASES.values(), ids=CASES)
def test_the_anatomy_is_the_preprocessed_t1_weighted_image(
    tmp_path: Path, files: list[str], entities: dict[str, str | None], expected: int | None
) -> None:
    root = make_tree(tmp_path / "bids", files)
    found = find_anatomy("01", entities, [root / "derivatives/other", root / "derivatives/fmriprep"])
    assert found == (None if expected is None else AnatomyFiles(root / files[expected], None))
    assert find_anatomy("02", entities, [root / "derivatives/fmriprep"]) is None


def test_the_mask_of_the_brain_is_that_of_the_same_image(tmp_path: Path) -> None:
    mask = name(f"space-{SPACE}", "res-1", "desc-brain_mask.nii.gz")
    others = [name(f"space-{SPACE}", "desc-brain_mask.nii.gz"), name("desc-brain_mask.nii.gz")]
    root = make_tree(tmp_path / "bids", [name(f"space-{SPACE}", "res-1", T1W), mask, *others])
    found = find_anatomy("01", MNI, [root / "derivatives/fmriprep"])
    assert found is not None
    assert found.brain == root / mask


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def test_the_skull_goes_where_the_brain_is_known(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 900, (5, 6, 7)).astype(np.int16)
    brain = np.zeros(values.shape, dtype=np.uint8)
    brain[1:4, 2:5, 3:6] = 1
    image = save(tmp_path / "head.nii.gz", values)
    whole, grid = read_anatomy(AnatomyFiles(image, None))
    assert np.array_equal(whole, values)
    assert np.array_equal(grid.affine, AFFINE)
    masked, _ = read_anatomy(AnatomyFiles(image, save(tmp_path / "brain.nii.gz", brain)))
    assert np.array_equal(masked, values * brain)
    with pytest.raises(DifferentGridError, match="small"):
        read_anatomy(AnatomyFiles(image, save(tmp_path / "small.nii.gz", brain[1:])))


def pictures(page: Path) -> list[np.ndarray]:
    """All maps of z, in grey levels."""
    found = [image.get("src") for image in parse(page).iter("img") if image.get("alt", "").startswith("z map")]
    contents = [base64.b64decode(source.partition("base64,")[2]) for source in found]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float) for content in contents]


@pytest.mark.slow
def test_pages_lie_on_the_anatomy_and_are_redrawn_when_it_comes_or_is_damaged(tmp_path: Path) -> None:
    dataset = simulated(tmp_path, n_participants=1, n_sessions=2)
    output = tmp_path / "out"
    call = (dataset, output)
    assert analyse(*call, levels=("participant",), report=True) == 0
    on_mean = pictures(output / "sub-01.html")
    files = {path: path.stat().st_mtime_ns for path in output.rglob("*_statmap.nii.gz")}
    # black on the left, white on the right: where the picture comes from is seen in it
    ramp = np.broadcast_to(np.linspace(300, 1000, 61)[:, None, None], (61, 73, 61)).astype(np.float32)
    path = save(dataset / name(f"space-{SPACE}", "res-1", T1W), ramp)
    assert analyse(*call, levels=("participant",), report=True) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*_statmap.nii.gz")} == files
    for before, after in zip(on_mean, pictures(output / "sub-01.html"), strict=True):
        assert before.shape == after.shape
        cut = after[10:-40, : after.shape[1] // 7]  # the first of seven
        thirds = np.array_split(cut, 3, axis=1)
        assert np.median(thirds[0]) < np.median(thirds[1]) < np.median(thirds[2])
    path.write_bytes(path.read_bytes()[:2000])
    assert analyse(*call, levels=("participant",), report=True) == 0
    assert all(np.array_equal(a, b) for a, b in zip(on_mean, pictures(output / "sub-01.html"), strict=True))
    assert f"as the anatomy cannot be shown: {path}" in " ".join(text_of(output / "sub-01.html").split())

"""Regions have the names that the atlas gives them, and an atlas that cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sessionfx.bids.atlas import Atlas, labels_beside, read_atlas
from sessionfx.errors import CommandLineError
from sessionfx.space.grid import Grid

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2, 0, -20], [0, 0, 2, -10], [0, 0, 0, 1]])
TABLE = "index\tname\n1\tLeft hippocampus\n12\tAngular gyrus, right\n"


def write(folder: Path, values: np.ndarray, table: str = TABLE) -> tuple[Path, Path]:
    path = folder / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    labels_beside(path).write_text(table)
    return path, labels_beside(path)


@pytest.fixture
def labels() -> np.ndarray:
    values = np.zeros((20, 20, 20), dtype=np.int16)
    values[3:6, 3:6, 3:6] = 1
    values[12:16, 12:16, 12:16] = 12
    return values


def name_at(atlas: Atlas, where: tuple[float, ...]) -> str:
    (name,) = atlas.names_at([dict(zip("xyz", where, strict=True))], atlas.space)
    return name


def place(*voxel: float) -> tuple[float, ...]:
    return tuple(AFFINE[:3, :3] @ voxel + AFFINE[:3, 3])


def test_places_have_the_names_of_their_regions(tmp_path: Path, labels: np.ndarray) -> None:
    atlas = read_atlas(*write(tmp_path, labels))
    assert name_at(atlas, place(4, 4, 4)) == "Left hippocampus"
    assert name_at(atlas, place(13, 15, 12)) == "Angular gyrus, right"
    assert name_at(atlas, place(7, 4, 4)) == "near Left hippocampus"  # 4 mm away
    assert name_at(atlas, place(10, 8, 8)) == ""
    assert name_at(atlas, (500.0, 0.0, 0.0)) == ""


def test_the_nearest_region_is_named() -> None:
    values = np.zeros((9, 9, 9), dtype=int)
    values[1, 4, 4], values[6, 4, 4] = 1, 2
    atlas = Atlas(values, Grid(values.shape, np.eye(4)), {1: "far", 2: "close"})
    assert name_at(atlas, (4, 4, 4)) == "near close"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("label\tname\n1\ta\n", "has no column 'index'"),
        ("index\tname\n1\ta\nx\tb\n", "line 3: 'x' and 'b' are no number"),
        ("index\tname\n1\ta\n", "has label 12, which"),
        ("", "atlas.tsv"),
    ],
)
def test_tables_that_do_not_name_the_regions_are_refused(
    tmp_path: Path, labels: np.ndarray, table: str, words: str
) -> None:
    with pytest.raises(CommandLineError) as raised:
        read_atlas(*write(tmp_path, labels, table))
    assert words in str(raised.value)


def test_probabilities_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(CommandLineError, match="no whole numbers"):
        read_atlas(*write(tmp_path, labels * np.float32(0.3)))


def test_an_absent_atlas_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandLineError, match=r"none\.nii"):
        read_atlas(tmp_path / "none.nii", tmp_path / "none.tsv")


def test_an_atlas_without_names_says_where_they_may_be(tmp_path: Path, labels: np.ndarray) -> None:
    path, table = write(tmp_path, labels)
    table.unlink()
    with pytest.raises(CommandLineError, match=r"neither atlas\.tsv nor atlas\.json beside it.*--atlas-labels"):
        read_atlas(path, None)

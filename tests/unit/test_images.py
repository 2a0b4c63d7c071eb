"""Images whose headers claim what is not so: each is refused by name, before anything is allocated."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from sessionfx.bids.images import DifferentGridError, open_image, read_mask, read_volume
from sessionfx.errors import ParticipantError
from sessionfx.participant.bold import RunData, open_series, read_run
from sessionfx.space.grid import Grid

SHAPE = (4, 5, 6)
N_VOLUMES = 8
AFFINE = np.diag([3.0, 3.0, 3.5, 1.0])


def save(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def series() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(100, 1, (*SHAPE, N_VOLUMES)).astype(np.float32)


def edited(path: Path, offset: int, layout: str, *values: float) -> Path:
    """Overwrite fields of a NIfTI-1 header."""
    is_compressed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if is_compressed else path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if is_compressed else bytes(content))
    return path


def run_of(bold: Path, mask: Path) -> RunData:
    return read_run(open_series(bold), bold, mask, None)


BAD_HEADERS: dict[str, tuple[int, str, tuple[float, ...]]] = {
    "datatype 1": (70, "<h", (1,)),
    "complex": (70, "<h", (32,)),
    "colours": (70, "<h", (128,)),
    "vox_offset 351": (108, "<f", (351.0,)),
    "vox_offset beyond the end": (108, "<f", (1e9,)),
    "vox_offset nan": (108, "<f", (float("nan"),)),
    "slope with infinite intercept": (112, "<ff", (1.0, float("inf"))),
    "negative dimension": (42, "<h", (-4,)),
    "no dimensions": (40, "<h", (0,)),
    "dimensions of 32767": (40, "<5h", (4, 32767, 32767, 32767, 8)),
    "more volumes than the file holds": (48, "<h", (32767,)),
    "sform of NaN": (280, "<12f", (float("nan"),) * 12),
    "sform of zeros": (280, "<12f", (0.0,) * 12),
}


@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz"])
@pytest.mark.parametrize("field", BAD_HEADERS, ids=str)
def test_a_header_that_makes_no_sense_is_refused_by_name(field: str, name: str, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    offset, layout, values = BAD_HEADERS[field]
    bold = edited(save(tmp_path / name, series()), offset, layout, *values)
    with pytest.raises(ParticipantError) as caught:
        run_of(bold, mask)
    assert str(bold) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_more_is_allocated_than_a_file_can_hold(tmp_path: Path) -> None:
    """32767³ voxels, and 262 million in a file of a few hundred bytes, are refused before an array is made."""
    for size in (32767, 640):
        path = edited(save(tmp_path / "map.nii.gz", np.ones(SHAPE, np.float32)), 42, "<3h", size, size, size)
        tracemalloc.start()
        with pytest.raises(ParticipantError, match=r"map\.nii\.gz"):
            read_volume(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20e6


@pytest.mark.slow
def test_grids_are_compared_before_data_are_read(tmp_path: Path) -> None:
    """A mask of 192 MB of zeros in 0.2 MB: a valid file, told apart by its header alone."""
    header = bytearray(save(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8)).read_bytes()[:352])
    struct.pack_into("<3h", header, 42, 800, 800, 300)
    bomb = tmp_path / "mask.nii.gz"
    with gzip.open(bomb, "wb") as stream:
        stream.write(bytes(header))
        for _ in range(192):
            stream.write(bytes(10**6))
    grid = Grid(SHAPE, AFFINE)
    tracemalloc.start()
    with pytest.raises(ParticipantError, match=r"mask\.nii\.gz \(800×800×300 .*not on the grid"):
        read_mask(bomb, tmp_path / "bold.nii.gz", grid)
    with pytest.raises(DifferentGridError):
        read_volume(bomb, grid, "the first map")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_a_volume_on_another_grid_than_expected_is_named_with_its_owner(tmp_path: Path) -> None:
    path = save(tmp_path / "map.nii", np.ones(SHAPE, np.float32))
    assert read_volume(path, Grid(SHAPE, AFFINE))[0].shape == SHAPE
    with pytest.raises(DifferentGridError, match=r"sub-01's map \(4×5×7 .*map\.nii \(4×5×6 .*different grids: 4×5×7"):
        read_volume(path, Grid((4, 5, 7), AFFINE), "sub-01's map")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda affine: affine + np.pad([[5.0], [0], [-2]], ((0, 1), (3, 0))), "(5, 0, -2) and (0, 0, 0) mm"),
        (lambda affine: affine @ np.diag([-1.0, 1, 1, 1]), "the i axis runs the other way"),
        (lambda affine: affine @ np.diag([1.0, 1, 1.1, 1]), "voxels of 3×3×3.85 and 3×3×3.5 mm"),
        (lambda affine: turned(0.1) @ affine, "the i and j axis is turned by 5.73°"),
    ],
    ids=["moved", "flipped", "stretched", "turned"],
)
def test_grids_of_one_shape_say_in_what_they_differ(
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]], difference: str
) -> None:
    grid, other = Grid(SHAPE, AFFINE), Grid(SHAPE, change(AFFINE))
    assert difference in other.difference_from(grid)
    assert grid.difference_from(grid) == ""


def turned(angle: float) -> NDArray[np.float64]:
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bold.nii.gz")
    (tmp_path / "mask.nii.gz").write_text("/annex/objects/MD5E-s36452--0123.nii.gz\n")
    with pytest.raises(ParticipantError, match="a pipe, not a file"):
        open_image(tmp_path / "bold.nii.gz")
    with pytest.raises(ParticipantError, match=r"git-annex pointer.*datalad get"):
        open_image(tmp_path / "mask.nii.gz")


# Masks ------------------------------------------------------------------------------------------------------


def test_a_mask_has_one_value_besides_zero_whatever_it_is(tmp_path: Path) -> None:
    brain = np.random.default_rng(2).uniform(size=SHAPE) < 0.5
    for value in (1, 255, 100, 0.4):
        path = save(tmp_path / "m.nii", (brain * value).astype(np.float32))
        voxels, warnings = read_mask(path, tmp_path, Grid(SHAPE, AFFINE))
        np.testing.assert_array_equal(voxels, brain)
        assert warnings == []


def test_a_mask_of_probabilities_is_cut_at_a_half_with_a_warning(tmp_path: Path) -> None:
    values = np.random.default_rng(2).uniform(size=SHAPE).astype(np.float32)
    mask = save(tmp_path / "mask.nii", values)
    voxels, warnings = read_mask(mask, tmp_path, Grid(SHAPE, AFFINE))
    np.testing.assert_array_equal(voxels, values > 0.5)
    assert f"cut at 0.5, which leaves {(values > 0.5).sum()} voxels" in warnings[0]
    run = run_of(save(tmp_path / "bold.nii", series()), mask)
    assert any("cut at 0.5" in warning for warning in run.warnings)


@pytest.mark.parametrize("highest", [100, 5])
def test_a_mask_of_percentages_or_labels_is_refused(highest: int, tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, highest + 1, size=SHAPE).astype(np.uint8)
    with pytest.raises(ParticipantError, match=r"mask\.nii.*percentages or labels.*zeros and ones"):
        read_mask(save(tmp_path / "mask.nii", values), tmp_path, Grid(SHAPE, AFFINE))


# Series -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(*SHAPE, 1, N_VOLUMES), (*SHAPE, N_VOLUMES, 1), (*SHAPE, 1, N_VOLUMES, 1)])
def test_an_axis_of_length_one_makes_no_difference(shape: tuple[int, ...], tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, np.uint8))
    plain = run_of(save(tmp_path / "plain.nii", series()), mask)
    run = run_of(save(tmp_path / "bold.nii.gz", series().reshape(shape)), mask)
    np.testing.assert_array_equal(run.signal, plain.signal)


def test_a_series_with_two_axes_of_time_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "bold.nii", series().reshape(*SHAPE, 2, N_VOLUMES // 2))
    with pytest.raises(ParticipantError, match="expected a 4-D series"):
        open_series(path)


@pytest.mark.slow
def test_no_mutation_of_a_header_ends_in_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, np.uint8))
    content = save(tmp_path / "intact.nii", series()).read_bytes()
    special = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff\x7f\xff\x7f", b"\1\0\1\0"]
    bold = tmp_path / "bold.nii"
    n_refused = 0
    for _ in range(300):
        mutated = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            position = int(rng.integers(348))
            mutated[position : position + 4] = special[rng.integers(len(special))]
        bold.write_bytes(bytes(mutated[: len(content)]))
        try:
            run_of(bold, mask)
        except ParticipantError as error:
            assert str(bold) in str(error)
            n_refused += 1
    assert n_refused > 50

"""Reading images: headers, grids, 3-D maps, and series volume by volume."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError

_IsalError: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # which the package declares an instance
READ_ERRORS = (OSError, EOFError, zlib.error, _IsalError, ImageFileError, ValueError)
# Affines of one participant's files differ by rounding only
AFFINE_TOLERANCE = 1e-3  # mm


@dataclass(frozen=True)
class Grid:
    """Shape and position of an image: voxels (i, j, k) lie at affine @ (i, j, k, 1) mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def same_as(self, other: Grid) -> bool:
        """Whether voxels of the two grids lie on each other."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE)

    def __str__(self) -> str:
        voxel = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        size = "×".join(f"{width:.4g}" for width in voxel)
        return f"{'×'.join(map(str, self.shape))} voxels of {size} mm"


def bounds_of(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of a mask's voxels along each axis; the mask must not be empty."""
    along = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(indices[0]), int(indices[-1])) for indices in along]


def open_image(path: Path) -> Any:
    """Open an image without reading its data.

    Raises
    ------
    ParticipantError
        If the header cannot be read.
    """
    try:
        return nib.load(path)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def grid_of(image: Any) -> Grid:
    """Say where the voxels of an open image of three or more dimensions lie."""
    x, y, z = image.shape[:3]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))


def read_volume(path: Path) -> tuple[NDArray[np.float64], Grid]:
    """Read a 3-D image.

    Raises
    ------
    ParticipantError
        If it cannot be read to its end or is not 3-D.
    """
    image = open_image(path)
    if len(image.shape) != 3 and not (len(image.shape) == 4 and image.shape[3] == 1):
        raise ParticipantError(f"{path} has {len(image.shape)} dimensions, expected 3. Provide a 3-D image.")
    try:
        (volume,) = (one.astype(np.float64, order="C") for one in read_volumes(image, path))
    except TypeError as error:  # colours
        raise unreadable(path, error) from None
    return volume, grid_of(image)


def read_volumes(image: Any, path: Path) -> Iterator[NDArray[Any]]:
    """Read an image from its beginning to its end, without ever holding more than a volume.

    Parameters
    ----------
    image : nibabel image
        Its header.
    path : Path
        The file it was opened from.

    Yields
    ------
    ndarray, 3-D
        A volume, scaled as the header says and as nibabel does; valid until the next one is asked for.

    Raises
    ------
    ParticipantError
        If the file cannot be read to its end.
    """
    shape = image.shape[:3]
    slope, intercept = np.asanyarray(image.dataobj.slope), np.asanyarray(image.dataobj.inter)
    volume = np.empty(shape, dtype=image.get_data_dtype(), order="F")
    content = volume.reshape(-1, order="F").view(np.uint8).data
    try:
        with _decompressed(path) as stream:
            stream.seek(image.dataobj.offset)
            for _ in range(prod(image.shape[3:])):
                _fill(content, stream)
                yield apply_read_scaling(volume, slope, intercept)
            stream.read(1)  # what was read is compared with its checksum at the end
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


@contextmanager
def _decompressed(path: Path) -> Iterator[BinaryIO]:
    # ISA-L takes a third of zlib's time
    with igzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
        yield stream


def _fill(content: memoryview, stream: BinaryIO) -> None:
    left = content
    while left:
        n_bytes = stream.readinto(left)  # type: ignore[attr-defined]
        if not n_bytes:
            raise EOFError(f"{len(left)} bytes of a volume are missing")
        left = left[n_bytes:]


def read_mask(mask: Path, bold: Path, grid: Grid) -> NDArray[np.bool_]:
    """Read the brain mask of a run.

    Raises
    ------
    ParticipantError
        If it cannot be read or is not on the run's grid.
    """
    data, mask_grid = read_volume(mask)
    if not mask_grid.same_as(grid):
        raise ParticipantError(
            f"The mask {mask} ({mask_grid}) is not on the grid of {bold} ({grid}). Use the mask of the same "
            "preprocessing."
        )
    return np.isfinite(data) & (data > 0.5)


def unreadable(path: Path, error: BaseException) -> ParticipantError:
    """Say in words that a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return ParticipantError(f"{path} does not exist (or is a link to data not fetched). Get the file first.")
    return ParticipantError(
        f"{path} cannot be read to its end ({error}); it is truncated or damaged. Copy or create the file anew."
    )

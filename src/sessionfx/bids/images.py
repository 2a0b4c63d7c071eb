"""Reading images: headers, grids, 3-D maps, and series volume by volume.

A header can claim anything. `open_image` is the one place where images are opened: it refuses by name what cannot be
read, has no place in space, or claims more data than its file can hold, before anything is allocated.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from sessionfx.bids.reading import UnreadableFileError, open_input
from sessionfx.errors import ParticipantError
from sessionfx.space.grid import Grid

# nibabel's own warnings on headers name no file; what cannot be read is said by the one who reads
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

_IsalError: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # which the package declares an instance
READ_ERRORS = (OSError, EOFError, zlib.error, _IsalError, ImageFileError, ValueError, MemoryError)
# What nibabel raises for headers that make no sense
_HEADER_ERRORS = (*READ_ERRORS, HeaderDataError, ArithmeticError, TypeError, LookupError, np.linalg.LinAlgError)
# deflate cannot make less than a byte of 1,032 (zlib, technical details); some room for headers
_LARGEST_COMPRESSION = 1032
_ROOM_FOR_HEADERS = 2**20
# Of a volume: a brain in voxels of 0.4 mm has half as many
_MOST_VOXELS = 2**28


def series_length(shape: tuple[int, ...]) -> int:
    """Count the volumes of a series of four dimensions, or of more where all but one are of length 1; else 0."""
    beyond = [length for length in shape[3:] if length != 1]
    return (beyond[0] if beyond else 1) if len(shape) > 3 and len(beyond) < 2 else 0


def open_image(path: Path) -> Any:
    """Open an image without reading its data.

    Returns
    -------
    nibabel image
        Of three or more dimensions that its file can hold, with an affine that places its voxels.

    Raises
    ------
    ParticipantError
        If there is no image, or its header makes no sense.
    """
    with open_input(path):
        pass  # a pipe, a folder, data that were not fetched
    try:
        image: Any = nib.load(path)
        shape = tuple(map(int, image.shape))
        affine = np.asarray(image.affine, dtype=np.float64)
        kind = image.get_data_dtype()
        size = path.stat().st_size
    except _HEADER_ERRORS as error:
        raise unreadable(path, error) from None
    if not isinstance(image, nib.Nifti1Pair):
        raise ParticipantError(f"{path} is no NIfTI image. Convert it, or remove it.")
    if kind.kind not in "iufb":
        what = {"c": "complex numbers", "V": "colours"}.get(kind.kind, f"data of type {kind}")
        raise ParticipantError(f"{path} holds {what}, expected numbers. Provide a map of numbers.")
    if len(shape) < 3 or min(shape) < 1:
        raise ParticipantError(f"{path} has the shape {shape}, expected three dimensions or more. Check its header.")
    if prod(shape[:3]) > _MOST_VOXELS:
        raise ParticipantError(
            f"{path} has volumes of {'×'.join(map(str, shape[:3]))} voxels by its header, more than any functional "
            "image. Check its header."
        )
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ParticipantError(
            f"{path}: the affine matrix of its header (sform, qform) does not place its voxels in space (it is "
            "singular or not finite). Correct the header."
        )
    claimed = prod(shape) * kind.itemsize
    held = size * _LARGEST_COMPRESSION + _ROOM_FOR_HEADERS if path.name.endswith(".gz") else size
    if claimed > held:
        raise unreadable(path, EOFError(f"its header claims {claimed} bytes of data, its file has {size}"))
    return image


def grid_of(image: Any) -> Grid:
    """Say where the voxels of an open image of three or more dimensions lie."""
    x, y, z = image.shape[:3]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))


# Memory of volumes that are read one after the other: having it anew each time takes as long as decompressing.
_room = threading.local()


def read_volume(
    path: Path, expected: Grid | None = None, owner: str = "", *, lends: str = ""
) -> tuple[NDArray[np.float64], Grid]:
    """Read a 3-D image.

    Parameters
    ----------
    path : Path
    expected : Grid, optional
        The grid it should lie on; compared before the data are read.
    owner : str, default=""
        What has that grid, for the message.
    lends : str, default=""
        Where it is given, the volume may lie in memory of this name, and holds until this thread reads the next one
        of the name.

    Returns
    -------
    volume : ndarray, 3-D
    grid : Grid

    Raises
    ------
    DifferentGridError
        If it does not lie on the grid expected.
    ParticipantError
        If it cannot be read to its end or is not 3-D.
    """
    image = open_image(path)
    if len(image.shape) > 3 and series_length(image.shape) != 1:
        raise ParticipantError(f"{path} has {len(image.shape)} dimensions, expected 3. Provide a 3-D image.")
    grid = grid_of(image)
    if expected is not None and not grid.same_as(expected):
        raise DifferentGridError(
            f"{owner or 'The other image'} ({expected}) and {path} ({grid}) lie on different grids: "
            f"{expected.difference_from(grid)}."
        )
    try:
        if lends:
            rooms: dict[str, NDArray[np.uint8]] = _room.__dict__.setdefault("of", {})
            n_bytes = prod(image.shape[:3]) * image.get_data_dtype().itemsize
            if lends not in rooms or rooms[lends].size != n_bytes:
                rooms[lends] = np.empty(n_bytes, dtype=np.uint8)
            (volume,) = (np.asarray(values, dtype=np.float64) for values in read_volumes(image, path, rooms[lends]))
        else:
            (volume,) = (values.astype(np.float64, order="C") for values in read_volumes(image, path))
    except MemoryError as error:
        raise unreadable(path, error) from None
    return volume, grid


def read_series(path: Path) -> tuple[NDArray[np.float64], Grid]:
    """Read an image of several volumes as a whole, of shape (N, …), and its grid.

    Raises
    ------
    ParticipantError
        If it cannot be read to its end.
    """
    image = open_image(path)
    return np.stack([volume.astype(np.float64) for volume in read_volumes(image, path)]), grid_of(image)


class DifferentGridError(ParticipantError):
    """An image lies on another grid than expected; the text names both, and no remedy."""


def read_volumes(image: Any, path: Path, room: NDArray[np.uint8] | None = None) -> Iterator[NDArray[Any]]:
    """Read an open image from its beginning to its end, without ever holding more than a volume.

    That volume lies in the room where one is given, of as many bytes.

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
    try:
        kind = image.get_data_dtype()
        volume = np.empty(shape, kind, order="F") if room is None else room.view(kind).reshape(shape, order="F")
        content = volume.reshape(-1, order="F").view(np.uint8).data
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
    with open_input(path) as file, igzip.open(file, "rb") if path.name.endswith(".gz") else nullcontext(file) as stream:
        yield stream


def _fill(content: memoryview, stream: BinaryIO) -> None:
    left = content
    while left:
        n_bytes = stream.readinto(left)  # type: ignore[attr-defined]
        if not n_bytes:
            raise EOFError(f"{len(left)} bytes of a volume are missing")
        left = left[n_bytes:]


# Masks that were resampled overshoot a little
_OVERSHOOT = 0.5


def read_mask(mask: Path, bold: Path, grid: Grid) -> tuple[NDArray[np.bool_], list[str]]:
    """Read the brain mask of a run; give its voxels, and warnings.

    A mask has two values, of which one is zero. One of probabilities, from 0 to 1, is cut at one half with a warning.

    Raises
    ------
    ParticipantError
        If it cannot be read, is not on the run's grid, or holds percentages or labels.
    """
    mask_grid = grid_of(open_image(mask))
    if not mask_grid.same_as(grid):
        raise ParticipantError(
            f"The mask {mask} ({mask_grid}) is not on the grid of {bold} ({grid}): {mask_grid.difference_from(grid)}. "
            "Use the mask of the same preprocessing."
        )
    data, _ = read_volume(mask)
    data[~np.isfinite(data)] = 0
    values = np.unique(data[data != 0])
    if len(values) < 2:
        return data > 0, []
    n_values = f"{len(values)} values besides zero, from {values[0]:.4g} to {values[-1]:.4g}"
    if values[0] < -_OVERSHOOT or values[-1] > 1 + _OVERSHOOT:
        raise ParticipantError(
            f"The mask {mask} has {n_values}: percentages or labels, of which it is not known which are brain. Provide "
            "a mask of zeros and ones, or choose another with the 'mask' entry of --bids-filter-file."
        )
    voxels = data > 0.5
    warning = f"The mask {mask.name} has {n_values}; it is cut at 0.5, which leaves {int(voxels.sum())} voxels."
    return voxels, [warning]


def unreadable(path: Path, error: BaseException) -> ParticipantError:
    """Say in words that a file could not be read."""
    if isinstance(error, UnreadableFileError):
        return error
    if isinstance(error, MemoryError):
        return ParticipantError(f"{path} does not fit into memory. Check its header, or give more memory.")
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return ParticipantError(
        f"{path} cannot be read to its end ({reason}); it is truncated or damaged. Copy or create the file anew."
    )

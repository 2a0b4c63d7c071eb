"""Reading series and maps that are no volumes: GIFTI, a file for each hemisphere, and CIFTI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError, iterparse
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from nibabel.cifti2.cifti2 import Cifti2HeaderError
from nibabel.cifti2.parse_cifti2 import Cifti2Extension, Cifti2Parser
from nibabel.gifti.parse_gifti_fast import GiftiParseError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from sessionfx.bids.images import READ_ERRORS, unreadable
from sessionfx.bids.names import GIFTI, entities_of
from sessionfx.bids.reading import open_input
from sessionfx.errors import ParticipantError
from sessionfx.space.grayordinates import Grayordinates, grayordinates_of
from sessionfx.space.space import Space
from sessionfx.space.surface import HEMISPHERES, Surface

# What nibabel raises for contents that make no sense
_CONTENT_ERRORS = (
    *READ_ERRORS, ExpatError, ParseError, GiftiParseError, Cifti2HeaderError, HeaderDataError, LookupError, TypeError,
    ArithmeticError, AttributeError, AssertionError, WrapStructError,
)  # fmt: skip


@contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """Let a library read a file in this block; what it cannot read is refused by name.

    Raises
    ------
    ParticipantError
        If there is no regular file, or its contents make no sense.
    """
    with open_input(path):
        pass  # a pipe, a folder, data that were not fetched
    try:
        yield
    except _CONTENT_ERRORS as error:
        raise unreadable(path, error) from None


@dataclass(frozen=True)
class SurfaceSeries:
    """A series of volumes that are no voxel grid, read as a whole."""

    data: NDArray[np.float64]  # (T, n)
    space: Space
    repetition_time: float | None = None  # what the file says (s); None where it says none, as GIFTI files do not


def read_surfaces(paths: Sequence[Path]) -> SurfaceSeries:
    """Read a series, or maps: a CIFTI file, or GIFTI files of hemispheres.

    Raises
    ------
    ParticipantError
        If a file cannot be read to its end, or holds something else.
    """
    first = paths[0]
    if not first.name.endswith(GIFTI):
        return _read_cifti(first)
    parts = {entities_of(path).get("hemi", "L"): _read_gifti(path) for path in paths}
    lengths = {label: len(values) for label, values in parts.items()}
    if len(set(lengths.values())) > 1:
        counts = " and ".join(f"{length} of hemi-{label}" for label, length in lengths.items())
        raise ParticipantError(f"{first} and the file of the other hemisphere differ in length: {counts}. Remake them.")
    space = _surface(first, {label: values.shape[1] for label, values in parts.items()})
    # in one order of memory, on which sums depend in their last digit, whatever that of the files
    return SurfaceSeries(np.ascontiguousarray(np.hstack([parts[label] for label in space.vertices])), space)


def _read_gifti(path: Path) -> NDArray[np.float64]:
    """Read arrays of a GIFTI file, of shape (N, vertices)."""
    with contents_of(path):
        image: Any = nib.load(path)
        arrays = [np.asarray(array.data, dtype=np.float64) for array in image.darrays]
        # a column for each volume, in place of an array
        values = arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays)
    if values.ndim != 2 or not values.size:
        raise ParticipantError(f"{path} holds arrays of shape {values.shape[1:]}, expected a number for each vertex.")
    return values


def _read_cifti(path: Path) -> SurfaceSeries:
    rows, space, values = open_cifti(path)
    step = float(getattr(rows, "step", 0.0)) if getattr(rows, "unit", "") == "SECOND" else 0.0
    return SurfaceSeries(values, space, step if step > 0 else None)


def open_cifti(path: Path) -> tuple[Any, Grayordinates, NDArray[np.float64]]:
    """Read the axis of the rows of a CIFTI file, its space, and its values of shape (rows, grayordinates).

    Raises
    ------
    ParticipantError
        If the file cannot be read to its end, or has no brain models.
    """
    image, rows, space = _cifti_header(path)
    with contents_of(path):
        values = np.asarray(image.dataobj, dtype=np.float64).reshape(image.shape[-2:])
        if (values.shape[1],) != space.shape:
            raise ValueError(f"{values.shape[1]} values for {space.shape[0]} grayordinates")
    return rows, space, values


def _cifti_header(path: Path) -> tuple[Any, Any, Grayordinates]:
    """Open a CIFTI file without reading its values: the image, the axis of its rows, and its space."""
    with contents_of(path):
        # not mapped into memory: where another program shortens the file, that would end the process
        image: Any = nib.Nifti2Image.from_filename(path, mmap=False)
        header = next(
            (extension for extension in image.header.extensions if extension.get_code() == Cifti2Extension.code), None
        )
        if header is None:
            raise ParticipantError(f"{path} is no CIFTI-2 image. Convert it, or remove it.")
        rows, space = _axes(header.content)
    if space is None:
        raise ParticipantError(f"{path} has no axis of brain models. Provide a dense series or dense scalars.")
    return image, rows, space


def read_space(paths: Sequence[Path]) -> Space:
    """Read in which space a series or maps lie, without their values; see `read_surfaces`.

    Raises
    ------
    ParticipantError
        If a file does not say it.
    """
    if not paths[0].name.endswith(GIFTI):
        return _cifti_header(paths[0])[2]
    counts = {entities_of(path).get("hemi", "L"): _n_vertices(path) for path in paths}
    return _surface(paths[0], counts)


def _n_vertices(path: Path) -> int:
    """Read the length of the first array of a GIFTI file."""
    with contents_of(path):
        for _, element in iterparse(path, events=("start",)):  # noqa: S314 - expat guards
            if element.tag == "DataArray":
                return int(element.attrib["Dim0"])
    raise ParticipantError(f"{path} holds no array. Remake it.")


def _surface(first: Path, counts: Mapping[str, int]) -> Surface:
    labels = [label for label in HEMISPHERES if label in counts]
    return Surface(entities_of(first).get("space", "native"), {label: counts[label] for label in labels})


@lru_cache(maxsize=8)
def _axes(header: bytes) -> tuple[Any, Grayordinates | None]:
    """Read the axis of the rows of a CIFTI file, and its brain models.

    These take long to parse and are the same in all files of a study, so that they are parsed once.
    """
    start = header.rfind(b"<MatrixIndicesMap", 0, max(header.find(b"CIFTI_INDEX_TYPE_BRAIN_MODELS"), 0))
    if start < 0:
        return None, None
    end = b"</MatrixIndicesMap>"
    stop = header.index(end, start) + len(end)
    parser: Any = Cifti2Parser()
    parser.parse(string=header[:start] + header[stop:])
    return parser.header.get_axis(0), grayordinates_of(header[start:stop])

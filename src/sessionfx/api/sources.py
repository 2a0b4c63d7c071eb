"""What is given in memory, as the files and options that the program reads: so both take one way."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.spatialimages import SpatialImage
from nilearn.surface import SurfaceImage

from sessionfx.api.surfaces import Hemispheres, PathLike, gifti_files, gifti_map
from sessionfx.errors import CommandLineError, SessionFXError
from sessionfx.execution import limited_threads
from sessionfx.options.table import OPTIONS
from sessionfx.options.toml import read_value

# An image, or the path of its file; of surfaces the files of both hemispheres; a table likewise
ImageLike: TypeAlias = SpatialImage | Cifti2Image | SurfaceImage | PathLike | Hemispheres | Sequence[PathLike]
TableLike: TypeAlias = pd.DataFrame | PathLike


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give a temporary folder; see `within`."""
    with TemporaryDirectory(prefix="sessionfx-") as name, within(Path(name)):
        yield Path(name)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Leave a temporary folder out of errors, and compute as the program does by default."""
    with limited_threads(1):
        try:
            yield
        except SessionFXError as error:
            raise type(error)(without_folder(str(error), folder)) from None


def without_folder(text: str, folder: Path) -> str:
    """Leave the temporary folder out of a message."""
    return text.replace(f"{folder}{os.sep}", "")


def table_file(table: TableLike, folder: Path, name: str) -> Path:
    """Give the path of a table; one in memory is written, with all digits, under its name."""
    if not isinstance(table, pd.DataFrame):
        return Path(table)
    path = folder / f"{name}.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def series_files(image: ImageLike, folder: Path, name: str, t_r: float | None = None) -> tuple[Path, ...]:
    """Give the path of a series, or those of both hemispheres; see `image_file`."""
    return gifti_files(image, folder, name) or (_file(image, folder, name, ".dtseries.nii", t_r),)


def image_file(image: ImageLike, folder: Path, name: str) -> Path:
    """Give the path of an image; one in memory is written, with all digits, under its name.

    Of both hemispheres it is the name of both together.

    Raises
    ------
    CommandLineError
        If it is no image.
    """
    return gifti_map(image, folder, name) or _file(image, folder, name, ".dscalar.nii")


def _file(image: Any, folder: Path, name: str, of_cifti: str, t_r: float | None = None) -> Path:
    """Give the path of a volume or a CIFTI file."""
    if isinstance(image, str | os.PathLike):
        return Path(image)
    if not isinstance(image, SpatialImage | Cifti2Image):
        raise CommandLineError(
            f"{name} is of type {type(image).__name__}, expected a NIfTI image, a CIFTI image, nilearn's SurfaceImage, "
            "or paths."
        )
    origin = image.get_filename()
    if origin and nib.is_proxy(image.dataobj):
        return Path(origin)
    values = np.asanyarray(image.dataobj)
    kinds = {"bool": np.uint8, "float16": np.float32}  # which NIfTI has not
    values = values.astype(kinds.get(values.dtype.name, values.dtype), copy=False)
    if isinstance(image, Cifti2Image):
        cifti = Cifti2Image(values, image.header)
        cifti.set_data_dtype(values.dtype)
        nib.save(cifti, path := folder / f"{name}{of_cifti}")
        return path
    written = nib.Nifti1Image(values, image.affine, dtype=values.dtype)
    if values.ndim > 3:
        later = image.header.get_zooms()[3 : values.ndim] if t_r is None else (t_r,) * (values.ndim - 3)
        written.header.set_zooms((*written.header.get_zooms()[:3], *later))
    if t_r is None and hasattr(image.header, "get_xyzt_units"):
        written.header.set_xyzt_units(*image.header.get_xyzt_units())
    path = folder / f"{name}.nii"
    nib.save(written, path)
    return path


def read_options(**given: Any) -> dict[str, Any]:
    """Check values as those of the command line; what is None or empty is left out.

    Raises
    ------
    CommandLineError
        If one is not a value of its option.
    """
    values = {}
    for name, value in given.items():
        option = OPTIONS[name]
        entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if value is None or not entries:
            continue
        try:
            found = read_value(option, entries)
        except ArgumentTypeError as error:
            raise CommandLineError(f"{name}: {error}.") from None
        values[name] = tuple(found) if option.is_list else found
    return values

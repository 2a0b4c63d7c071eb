"""Reading images: 4-D runs into arrays of volumes by in-mask voxels, and 3-D maps."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError

_READ_ERRORS = (OSError, EOFError, zlib.error, ImageFileError, ValueError)
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


@dataclass(frozen=True)
class RunData:
    """The signal of one run.

    Attributes
    ----------
    signal : ndarray of shape (T, V)
        T volumes, V voxels in `mask`, smoothed where asked for, in scanner units.
    mask : ndarray of bool, 3-D
        Voxels that are in the brain mask and have finite, varying data.
    mean : ndarray of shape (V,)
        Mean over volumes, for pictures.
    grid : Grid
    n_brain : int
        Voxels of the brain mask before leaving any out.
    notes : tuple of str
        What was left out and why.
    """

    signal: NDArray[np.floating]
    mask: NDArray[np.bool_]
    mean: NDArray[np.floating]
    grid: Grid
    n_brain: int
    notes: tuple[str, ...]


def open_image(path: Path) -> Any:
    """Open an image without reading its data.

    Raises
    ------
    ParticipantError
        If the header cannot be read.
    """
    try:
        return nib.load(path)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from None


def read_volume(path: Path) -> tuple[NDArray[np.float64], Grid]:
    """Read a 3-D image.

    Raises
    ------
    ParticipantError
        If it cannot be read to its end or is not 3-D.
    """
    image = open_image(path)
    try:
        data = np.asarray(image.dataobj, dtype=np.float64)
    except (*_READ_ERRORS, TypeError) as error:
        raise _unreadable(path, error) from None
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ParticipantError(f"{path} has {data.ndim} dimensions, expected 3. Provide a 3-D image.")
    return data, Grid((data.shape[0], data.shape[1], data.shape[2]), np.asarray(image.affine, dtype=np.float64))


def read_run(bold: Path, mask: Path | None, smoothing_fwhm: float | None) -> RunData:
    """Read a preprocessed run.

    A voxel is used when it lies in the brain mask and its unsmoothed data are finite and vary over time.

    Parameters
    ----------
    bold : Path
        4-D image.
    mask : Path or None
        Brain mask on the same grid; None to compute one from the image (nilearn's `compute_epi_mask`).
    smoothing_fwhm : float or None
        Full width at half maximum of the Gaussian (mm).

    Returns
    -------
    RunData

    Raises
    ------
    ParticipantError
        If a file cannot be read, the grids differ, or no voxel is left.
    """
    image = open_image(bold)
    if len(image.shape) != 4 or image.shape[3] < 2:
        raise ParticipantError(
            f"{bold} has shape {image.shape}, expected a 4-D series of volumes. Provide the whole run."
        )
    grid = Grid(tuple(image.shape[:3]), np.asarray(image.affine, dtype=np.float64))
    try:
        data = np.asanyarray(image.dataobj)
    except _READ_ERRORS as error:
        raise _unreadable(bold, error) from None
    notes: list[str] = []
    if mask is None:
        brain = _compute_mask(image, data, bold)
        notes.append("The derivatives have no brain mask for this run; one was computed from the image.")
    else:
        brain = _read_mask(mask, bold, grid)
    n_brain = int(brain.sum())
    if n_brain == 0:
        raise ParticipantError(f"{mask or bold}: the brain mask is empty. Check the preprocessing of this run.")

    series = data[brain]
    finite = np.isfinite(series).all(axis=1)
    varying = series.max(axis=1) > series.min(axis=1)
    usable = finite & varying
    if not finite.all():
        notes.append(f"{int((~finite).sum())} voxels with NaN or infinite values are left out.")
    if (finite & ~varying).any():
        notes.append(f"{int((finite & ~varying).sum())} voxels without any variation over time are left out.")
    if not usable.any():
        raise ParticipantError(f"{bold}: no voxel of the brain mask has finite, varying data. Check this run.")
    used = brain.copy()
    used[brain] = usable
    if smoothing_fwhm is None:
        # nilearn computes in the file's own precision, and in single precision for integers
        kind = series.dtype if series.dtype.kind == "f" else np.dtype(np.float32)
        signal = series[usable].astype(kind, copy=False).T
    else:
        signal = _smoothed(data, grid, smoothing_fwhm)[used].T
    # Row by row in memory, as nilearn's maskers give it: single-precision means depend on the order of summation.
    signal = np.ascontiguousarray(signal)
    return RunData(signal, used, signal.mean(axis=0), grid, n_brain, tuple(notes))


def _smoothed(data: NDArray[Any], grid: Grid, fwhm: float) -> NDArray[np.floating]:
    from nilearn.image import get_data, smooth_img

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # non-finite voxels are counted and named by the caller
        return get_data(smooth_img(nib.Nifti1Image(_native(data), grid.affine), fwhm))


def _native(data: NDArray[Any]) -> NDArray[Any]:
    """Give nibabel a type it can hold without asking questions (no bool, no 64-bit integers)."""
    if data.dtype.kind == "f":
        return data
    return data.astype(np.float32)


def _compute_mask(image: Any, data: NDArray[Any], bold: Path) -> NDArray[np.bool_]:
    from nilearn.masking import compute_epi_mask

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mask = compute_epi_mask(nib.Nifti1Image(_native(data), image.affine))
    except ValueError as error:
        raise ParticipantError(
            f"{bold} has no brain mask in the derivatives and none can be computed from it ({error}). Provide "
            "…_desc-brain_mask.nii.gz."
        ) from None
    return np.asarray(mask.dataobj) > 0


def _read_mask(mask: Path, bold: Path, grid: Grid) -> NDArray[np.bool_]:
    data, mask_grid = read_volume(mask)
    if not mask_grid.same_as(grid):
        raise ParticipantError(
            f"The mask {mask} ({mask_grid}) is not on the grid of {bold} ({grid}). Use the mask of the same "
            "preprocessing."
        )
    return np.isfinite(data) & (data > 0.5)


def _unreadable(path: Path, error: BaseException) -> ParticipantError:
    if isinstance(error, FileNotFoundError):
        return ParticipantError(f"{path} does not exist (or is a link to data not fetched). Get the file first.")
    return ParticipantError(
        f"{path} cannot be read to its end ({error}); it is truncated or damaged. Copy or create the file anew."
    )

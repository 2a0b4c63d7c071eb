"""Reading a run: volumes go straight into an array of in-mask signals, smoothed on the way where asked for.

Smoothing along surfaces is in `participant.smoothing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.images import bounds_of, grid_of, open_image, read_mask, read_volumes, series_length
from sessionfx.bids.meshes import NO_MESHES, MeshFiles, with_meshes
from sessionfx.bids.names import SURFACE_SERIES
from sessionfx.bids.surfaces import SurfaceSeries, read_surfaces
from sessionfx.errors import ParticipantError
from sessionfx.participant.smoothing import SurfaceSmoother
from sessionfx.space.described import describe, described
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.tasks.records import file_state, fingerprint

# Where a Gaussian is cut off (standard deviations), as nilearn's smoothing does
_TRUNCATED_AT = 4.0


@dataclass(frozen=True)
class RunData:
    """The signal of one run.

    Attributes
    ----------
    signal : ndarray of shape (T, V)
        T volumes, V features in `mask`, smoothed where asked for, in scanner units.
    mask : ndarray of bool, of the space's shape
        Features that are in the brain mask, where there is one, and have finite, varying data.
    mean : ndarray of shape (V,)
        Mean over volumes, for pictures.
    space : Space
    n_brain : int
        Features of the brain mask, or of the space, before leaving any out.
    warnings : tuple of str
        What was left out and why.
    smoothing : dict
        Of surfaces that were smoothed, for sidecars: steps, and the FWHM that was reached.
    """

    signal: NDArray[np.floating]
    mask: NDArray[np.bool_]
    mean: NDArray[np.floating]
    space: Space
    n_brain: int
    warnings: tuple[str, ...]
    smoothing: dict[str, Any] = field(default_factory=dict)


def open_series(path: Path, *further: Path) -> Any:
    """Open the 4-D image of a run without reading its data; or read a series on surfaces, from a file or two.

    Raises
    ------
    ParticipantError
        If the header cannot be read, or it is no series.
    """
    if path.name.endswith(SURFACE_SERIES):
        series = read_surfaces((path, *further))
        if len(series.data) < 2:
            raise ParticipantError(f"{path} holds {len(series.data)} volume, expected a series. Provide the whole run.")
        return series
    image = open_image(path)
    if series_length(image.shape) < 2:
        raise ParticipantError(
            f"{path} has shape {image.shape}, expected a 4-D series of volumes. Provide the whole run."
        )
    return image


def read_run(
    image: Any, bold: Path, mask: Path | None, smoothing_fwhm: float | None, meshes: MeshFiles = NO_MESHES
) -> RunData:
    """Read a preprocessed run.

    Of surfaces, which need no mask, a vertex or grayordinate is used when its data are finite and vary over time: the
    medial wall has none. A voxel is used when it lies in the brain mask and its unsmoothed data are finite and vary
    over time.

    Parameters
    ----------
    image : nibabel image or SurfaceSeries
        From `open_series`.
    bold : Path
        Its file.
    mask : Path or None
        Brain mask on the same grid; None to compute one from the image (nilearn's `compute_epi_mask`), for which the
        whole series is held in memory.
    smoothing_fwhm : float or None
        Full width at half maximum of the Gaussian (mm).
    meshes : mapping of str to tuple of Path
        Of the hemispheres, along which surfaces are smoothed.

    Raises
    ------
    ParticipantError
        If a file cannot be read, the grids differ, or no voxel is left.
    """
    if isinstance(image, SurfaceSeries):
        data = _surface_data(image, bold)
        return data if smoothing_fwhm is None else _smoothed(data, meshes, smoothing_fwhm)
    grid = grid_of(image)
    warnings: list[str] = []
    volumes: Iterable[NDArray[Any]] = read_volumes(image, bold)
    if mask is None:
        series = np.stack([volume.copy() for volume in volumes], axis=-1)
        brain = _compute_mask(series, grid, bold)
        volumes = np.moveaxis(series, -1, 0)
        warnings.append("The derivatives have no brain mask for this run; one was computed from the image.")
    else:
        brain, of_mask = read_mask(mask, bold, grid)
        warnings += of_mask
    n_brain = int(brain.sum())
    if n_brain == 0:
        raise ParticipantError(f"{mask}: the brain mask is empty. Check the preprocessing of this run.")

    smoother = None if smoothing_fwhm is None else _Smoother(brain, grid, smoothing_fwhm)
    inside = _voxel_order(brain)
    signal = lowest = highest = np.empty(0)  # made when the first volume shows what type the data have
    for t, volume in enumerate(volumes):
        values = volume.reshape(-1, order="F").take(inside)
        if t == 0:
            # nilearn computes in the file's own precision, and in single precision for integers
            kind = values.dtype.newbyteorder("=") if values.dtype.kind == "f" else np.dtype(np.float32)
            # Row by row in memory, as nilearn's maskers give it: single-precision means depend on the order of
            # summation.
            signal = np.empty((series_length(image.shape), n_brain), dtype=kind)
            lowest, highest = values, values.copy()
        np.minimum(lowest, values, out=lowest)  # NaN stays
        np.maximum(highest, values, out=highest)
        signal[t] = values if smoother is None else smoother.smooth(volume, kind)
    finite = np.isfinite(lowest) & np.isfinite(highest)
    varying = highest > lowest
    usable = finite & varying
    if not finite.all():
        warnings.append(f"{int((~finite).sum())} voxels with NaN or infinite values are left out.")
    if (finite & ~varying).any():
        warnings.append(f"{int((finite & ~varying).sum())} voxels without any variation over time are left out.")
    if not usable.any():
        raise ParticipantError(f"{bold}: no voxel of the brain mask has finite, varying data. Check this run.")
    used = brain.copy()
    used[brain] = usable
    if not usable.all():
        n_usable = int(usable.sum())
        for t in range(len(signal)):  # in place, because a copy would double the memory
            signal[t, :n_usable] = signal[t][usable]
        signal = signal[:, :n_usable]
    return RunData(signal, used, signal.mean(axis=0), grid, n_brain, tuple(warnings))


def _surface_data(series: SurfaceSeries, bold: Path) -> RunData:
    values, features = series.data, series.space.features
    lowest, highest = values.min(axis=0), values.max(axis=0)  # NaN stays
    used = np.isfinite(lowest) & np.isfinite(highest) & (highest > lowest)
    if not used.any():
        raise ParticipantError(f"{bold}: none of the {features} has finite, varying data. Check this run.")
    signal = values if used.all() else values[:, used]
    return RunData(signal, used, signal.mean(axis=0), series.space, used.size, ())


def _smoothed(data: RunData, meshes: MeshFiles, fwhm: float) -> RunData:
    """Smooth surfaces in place, and say how far that went."""
    state = fingerprint([file_state(path) for paths in meshes.values() for path in paths])
    space, mask = json.dumps(describe(data.space)), np.ascontiguousarray(data.mask).tobytes()
    smoother = _smoother(space, mask, tuple(sorted(meshes.items())), state, fwhm)
    smoother.smooth(data.signal)
    warnings = list(data.warnings)
    if smoother.reached_fwhm == 0:
        warnings.append(
            f"Vertices are so far apart that a FWHM of {fwhm:g} mm is less than one step along the surface: vertices "
            "are not smoothed."
        )
    reached = {} if smoother.reached_fwhm is None else {
        "SmoothingReachedFwhmMm": round(smoother.reached_fwhm, 2), "SmoothingSteps": smoother.steps,
    }  # fmt: skip
    return replace(data, mean=data.signal.mean(axis=0), warnings=tuple(warnings), smoothing=reached)


@lru_cache(maxsize=2)
def _smoother(
    description: str, mask: bytes, meshes: tuple[tuple[str, tuple[Path, ...]], ...], state: str, fwhm: float
) -> SurfaceSmoother:
    """Set up smoothing once for the runs of a participant; the state tells whether the files of meshes are others."""
    # equal spaces may have other meshes, and maps travel without
    space = with_meshes(described(json.loads(description)), dict(meshes))
    if not space.has_meshes:
        raise ParticipantError(f"The meshes of {space} are not there, along which they would be smoothed.")
    return SurfaceSmoother(space, np.frombuffer(mask, dtype=bool), fwhm)


def _voxel_order(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Positions of a mask's voxels, in the order of `array[mask]`, in an array that is flattened first axis first."""
    return np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")


class _Smoother:
    """Smooths volumes as nilearn's `smooth_img` does, where it matters to a mask.

    A Gaussian that is cut off reaches only so far: what lies outside the mask's bounding box and this margin changes
    nothing inside. Along each axis in turn, the margin is dropped once the axis is done.

    Parameters
    ----------
    mask : ndarray of bool, 3-D
    grid : Grid
    fwhm : float
        In mm.
    """

    def __init__(self, mask: NDArray[np.bool_], grid: Grid, fwhm: float) -> None:
        voxel_size = np.sqrt((grid.affine[:3, :3] ** 2).sum(axis=0))
        self._sigma = fwhm / (np.sqrt(8 * np.log(2)) * voxel_size)
        bounds = bounds_of(mask)
        box, self._margins = [], []
        for (first, last), sigma, size in zip(bounds, self._sigma, mask.shape, strict=True):
            reach = int(_TRUNCATED_AT * sigma + 0.5)
            start, stop = max(first - reach, 0), min(last + 1 + reach, size)
            box.append(slice(start, stop))
            self._margins.append(slice(first - start, last + 1 - start))
        self._box = tuple(box)
        inner = tuple(slice(first, last + 1) for first, last in bounds)
        self._inside = _voxel_order(mask[inner])

    def smooth(self, volume: NDArray[Any], kind: np.dtype[Any]) -> NDArray[np.floating]:
        """Smooth a volume in a precision and return its values in the mask."""
        from scipy.ndimage import gaussian_filter1d

        # last axis first: lines of memory are then lines of the filter's loop
        block = volume[self._box].T.astype(kind, order="C")
        finite = np.isfinite(block)
        if not finite.all():
            block[~finite] = 0
        for axis, (sigma, margin) in enumerate(zip(self._sigma, self._margins, strict=True)):
            if sigma > 0:
                block = gaussian_filter1d(block, sigma, axis=2 - axis, truncate=_TRUNCATED_AT, output=kind)
            block = block[(slice(None),) * (2 - axis) + (margin,)]
        return np.asarray(block.reshape(-1).take(self._inside))


def _compute_mask(series: NDArray[Any], grid: Grid, bold: Path) -> NDArray[np.bool_]:
    from nilearn.masking import compute_epi_mask

    # no type that nibabel cannot hold without asking questions (64-bit integers)
    native = series if series.dtype.kind == "f" else series.astype(np.float32)
    try:
        with catch_warnings(action="ignore"):
            mask = compute_epi_mask(nib.Nifti1Image(native, grid.affine))
        computed = np.asarray(mask.dataobj) > 0
        if not computed.any():
            raise ValueError("it would be empty")
    except ValueError as error:
        raise ParticipantError(
            f"{bold} has no brain mask in the derivatives and none can be computed from it ({error}). Provide "
            "…_desc-brain_mask.nii.gz, or name a mask of its space under 'mask' in --bids-filter-file."
        ) from None
    return computed

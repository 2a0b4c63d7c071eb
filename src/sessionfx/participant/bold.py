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

from sessionfx.bids.images import grid_of, open_image, read_mask, read_volumes, series_length
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
# Slices and rows that are smoothed at a time: fewer are more calls, more have wider boxes
_SLAB = 4


@dataclass(frozen=True)
class RunData:
    """The signal of one run."""

    signal: NDArray[np.floating]  # (T, V): T volumes, V features in `mask`, smoothed where asked for, in scanner units
    # of the space's shape: features that are in the brain mask, where there is one, and have finite, varying data
    mask: NDArray[np.bool_]
    mean: NDArray[np.floating]  # (V,): mean over volumes, for pictures
    space: Space
    n_brain: int  # features of the brain mask, or of the space, before leaving any out
    warnings: tuple[str, ...]  # what was left out and why
    # of surfaces that were smoothed, for sidecars: steps, and the FWHM that was reached
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

    smoother: _Smoother | None = None
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
            if smoothing_fwhm is not None:
                smoother = _Smoother(brain, grid, smoothing_fwhm, kind)
            lowest, highest = values, values.copy()
        np.minimum(lowest, values, out=lowest)  # NaN stays
        np.maximum(highest, values, out=highest)
        signal[t] = values if smoother is None else smoother.smooth(volume)
    finite = np.isfinite(lowest) & np.isfinite(highest)
    varying = highest > lowest
    usable = finite & varying
    if not finite.all():
        warnings.append(f"{int((~finite).sum())} voxels with NaN or infinite values are left out.")
    if (finite & ~varying).any():
        warnings.append(f"{int((finite & ~varying).sum())} voxels without any variation over time are left out.")
    if not usable.any():
        raise ParticipantError(
            f"{bold}: no voxel of the brain mask has finite, varying data. Check this run, or leave it "
            "out with --bids-filter-file."
        )
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
        raise ParticipantError(
            f"{bold}: none of the {features} has finite, varying data. Check this run, or leave it "
            "out with --bids-filter-file."
        )
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
        raise ParticipantError(f"The meshes of {space} are gone. Provide them, or leave out --smoothing-fwhm.")
    return SurfaceSmoother(space, np.frombuffer(mask, dtype=bool), fwhm)


def _voxel_order(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Positions of a mask's voxels, in the order of `array[mask]`, in an array that is flattened first axis first."""
    return np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")


class _Smoother:
    """Smooths volumes with the numbers of nilearn's `smooth_img`, where it matters to a mask.

    A Gaussian that is cut off reaches only so far: what lies outside the mask and this margin changes nothing inside.
    Along x and y it works on slabs of slices, then along z on slabs of rows, each within the box of what the mask
    needs of it: a head fills little more than half of its own box.

    Parameters
    ----------
    mask : ndarray of bool, 3-D
    grid : Grid
    fwhm : float
        In mm.
    kind : dtype
        The precision.
    """

    def __init__(self, mask: NDArray[np.bool_], grid: Grid, fwhm: float, kind: np.dtype[Any]) -> None:
        from scipy.ndimage import gaussian_filter1d

        sigmas = fwhm / (np.sqrt(8 * np.log(2)) * np.sqrt((grid.affine[:3, :3] ** 2).sum(axis=0)))
        reaches = [int(_TRUNCATED_AT * sigma + 0.5) for sigma in sigmas]
        # what a Gaussian makes of a single 1
        self._weights = [
            gaussian_filter1d(np.eye(2 * reach + 1)[reach], sigma, mode="constant", truncate=_TRUNCATED_AT)
            for sigma, reach in zip(sigmas, reaches, strict=True)
        ]
        self._box = tuple(_widened(_bounds(mask, axis), reaches[axis], mask.shape[axis]) for axis in range(3))
        # last axis first: lines of memory are then lines of the filter's loop
        needed = mask[self._box].T
        reach_x, reach_y, reach_z = reaches
        n_z, n_y, n_x = needed.shape
        self._slices: list[tuple[slice, ...]] = []
        for z in _slabs(n_z):
            around = needed[_widened(z, reach_z, n_z)]
            if around.any():
                y, x = _bounds(around, 1), _bounds(around, 2)
                self._slices.append((z, _widened(y, reach_y, n_y), y, _widened(x, reach_x, n_x), x))
        self._rows: list[tuple[slice, ...]] = []
        for y in _slabs(n_y):
            rows = needed[:, y]
            if rows.any():
                z, x = _bounds(rows, 0), _bounds(rows, 2)
                self._rows.append((y, _widened(z, reach_z, n_z), z, x))
        # Where nothing is needed, it stays 0
        self._in_slices, self._smooth = np.zeros((2, *needed.shape), dtype=kind)
        self._inside = _voxel_order(needed.T)

    def smooth(self, volume: NDArray[Any]) -> NDArray[np.floating]:
        """Smooth a volume and return its values in the mask."""
        from scipy.ndimage import correlate1d

        weights_x, weights_y, weights_z = self._weights
        block = volume[self._box].T.astype(self._smooth.dtype, order="C")
        finite = np.isfinite(block)
        if not finite.all():
            block[~finite] = 0
        for z, wide_y, y, wide_x, x in self._slices:
            along_x = correlate1d(block[z, wide_y, wide_x], weights_x, axis=2)[:, :, _within(x, wide_x)]
            self._in_slices[z, y, x] = correlate1d(along_x, weights_y, axis=1)[:, _within(y, wide_y)]
        for y, wide_z, z, x in self._rows:
            along_z = correlate1d(self._in_slices[wide_z, y, x], weights_z, axis=0)
            self._smooth[z, y, x] = along_z[_within(z, wide_z)]
        return np.asarray(self._smooth.reshape(-1).take(self._inside))


def _slabs(n: int) -> list[slice]:
    return [slice(start, min(start + _SLAB, n)) for start in range(0, n, _SLAB)]


def _widened(part: slice, reach: int, n: int) -> slice:
    """Let a part of n places reach further on both sides."""
    return slice(max(part.start - reach, 0), min(part.stop + reach, n))


def _within(part: slice, whole: slice) -> slice:
    """Where a part of a whole lies, counted from the start of the whole."""
    return slice(part.start - whole.start, part.stop - whole.start)


def _bounds(needed: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last place along an axis of three at which anything is needed."""
    places = np.flatnonzero(np.any(needed, axis=tuple({0, 1, 2} - {axis})))
    return slice(int(places[0]), int(places[-1]) + 1)


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

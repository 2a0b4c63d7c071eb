"""Smoothing along surfaces, and of voxels below the cortex within their structure.

Along a mesh it is nilearn's (`nilearn.image.smooth_img` of a SurfaceImage): in each step a vertex becomes the mean of
itself and the mean of its neighbours, and the number of steps for a FWHM follows from the mean area of a vertex. Here
steps stay within the vertices that have data: nilearn takes the medial wall for 0 and lets it in.

The FWHM that is reached is measured, as steps are few, and their number is FreeSurfer's, whose steps go further (it
weighs a vertex like each neighbour). Noise is smoothed alike: from how alike neighbours are then (r), and how far apart
(d), FWHM = d √(−2 ln 2 / ln r) if the smoothness is Gaussian (Forman et al. 1995, Magnetic Resonance in Medicine
33:636; AFNI, FreeSurfer and Workbench estimate it so).

Voxels of a structure are smoothed with a Gaussian whose weights sum to 1 over the voxels of this structure that have
data: nothing comes in from beyond, as in Workbench's smoothing of CIFTI files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sessionfx.space.mesh import Mesh
from sessionfx.space.space import Space

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
# Volumes that are smoothed at a time
_VOLUMES_PER_BLOCK = 64
# Maps of noise that the FWHM is measured with; of fsaverage5 it is then known to 0.3 %
_N_NOISE = 16


class SurfaceSmoother:
    """Smooths series on a surface with its meshes.

    Parameters
    ----------
    space : Space
    mask : ndarray of bool, shape (n,)
        The V features that have data.
    fwhm : float
        In mm.

    Attributes
    ----------
    steps : dict of str to int
        Steps along the mesh, by hemisphere.
    reached_fwhm : float or None
        Along the surface (mm), 0 without a step; None where there is no surface.
    """

    def __init__(self, space: Space, mask: NDArray[np.bool_], fwhm: float) -> None:
        place = np.cumsum(mask) - 1
        self.steps: dict[str, int] = {}
        self._parts: list[tuple[NDArray[np.intp], _Along | _Within]] = []
        surfaces = []
        for structure in space.structures:
            has_data = mask[structure.places]
            own, numbers = place[structure.places[has_data]], structure.numbers[has_data]
            if not len(own):
                continue
            if structure.voxel_size is None:
                mesh = space.meshes[structure.name]
                along = _Along.of(mesh, numbers, fwhm)
                self.steps[structure.name] = along.n_steps
                self._parts.append((own, along))
                surfaces.append((along, mesh.coordinates[numbers]))
            else:
                self._parts.append((own, _Within.of(numbers, structure.voxel_size, fwhm)))
        self.reached_fwhm = _measured_fwhm(surfaces) if surfaces else None

    def smooth(self, signal: NDArray[np.floating]) -> None:
        """Smooth a signal of shape (T, V) in place."""
        for start in range(0, len(signal), _VOLUMES_PER_BLOCK):
            block = signal[start : start + _VOLUMES_PER_BLOCK]
            for own, part in self._parts:
                block[:, own] = part.smooth(block[:, own])


@dataclass(frozen=True)
class _Along:
    """Steps along a mesh, each a product with a matrix of shape (v, v)."""

    step: csr_array
    n_steps: int

    @classmethod
    def of(cls, mesh: Mesh, vertices: NDArray[np.integer], fwhm: float) -> _Along:
        from scipy.sparse import diags_array

        adjacency = mesh.adjacency[vertices][:, vertices].astype(np.float64)
        counts = adjacency.sum(axis=1)
        own = np.where(counts == 0, 1.0, 0.5)
        step = diags_array((1 - own) / np.maximum(counts, 1)) @ adjacency + diags_array(own)
        # Empirical (FreeSurfer's MRISfwhm2niters): steps of the mean over the neighbours of vertices of a mean area
        area = mesh.areas.sum() / len(mesh.coordinates)
        n_steps = int(1.14 * 4 * np.pi * (fwhm * _SIGMA_PER_FWHM) ** 2 / (7 * area) + 0.5)
        return cls(step.tocsr(), n_steps)

    def smooth(self, signal: NDArray[np.floating]) -> NDArray[np.floating]:
        """Smooth a signal of shape (T, v)."""
        values = np.ascontiguousarray(signal.T)
        for _ in range(self.n_steps):
            values = self.step @ values
        return values.T


@dataclass(frozen=True)
class _Within:
    """A Gaussian over the voxels of a structure, along each axis of their box in turn."""

    shape: tuple[int, ...]  # of the box
    places: NDArray[np.intp]  # (v,): of the voxels in the flattened box
    kernels: Sequence[NDArray[np.float64]]  # a square matrix for each axis
    sums: NDArray[np.float64]  # (v,): of the weights

    @classmethod
    def of(cls, voxels: NDArray[np.integer], voxel_size: NDArray[np.float64], fwhm: float) -> _Within:
        low = voxels.min(axis=0)
        shape = tuple(int(length) for length in np.ptp(voxels, axis=0) + 1)
        kernels = []
        for length, size in zip(shape, voxel_size, strict=True):
            steps = np.subtract.outer(np.arange(length), np.arange(length))
            kernels.append(np.exp(-0.5 * (steps * size / (fwhm * _SIGMA_PER_FWHM)) ** 2))
        places = np.ravel_multi_index(tuple((voxels - low).T), shape)
        unscaled = cls(shape, places, kernels, np.ones(len(voxels)))
        return cls(shape, places, kernels, unscaled.smooth(np.ones((1, len(voxels))))[0])

    def smooth(self, signal: NDArray[np.floating]) -> NDArray[np.floating]:
        """Smooth a signal of shape (T, v)."""
        box = np.zeros((len(signal), np.prod(self.shape)))
        box[:, self.places] = signal
        first, second, third = self.kernels
        n, (i, j, k) = len(signal), self.shape
        box = box.reshape(n * i * j, k) @ third
        box = np.matmul(second, box.reshape(n * i, j, k))
        box = np.matmul(first, box.reshape(n, i, j * k))
        return np.asarray(box.reshape(n, -1)[:, self.places] / self.sums)


def _measured_fwhm(surfaces: Sequence[tuple[_Along, NDArray[np.float64]]]) -> float:
    """Measure the FWHM (mm) of smoothed noise, over all edges between the vertices, given with their coordinates."""
    if not any(along.n_steps for along, _ in surfaces):
        return 0.0
    rng = np.random.default_rng(0)
    products, squares, lengths = [], [], []
    for along, coordinates in surfaces:
        noise = along.smooth(rng.standard_normal((_N_NOISE, len(coordinates))))
        pairs = along.step.tocoo().coords
        first, second = (number[pairs[0] != pairs[1]] for number in pairs)
        products.append((noise[:, first] * noise[:, second]).mean(axis=0))
        squares.append(((noise[:, first] ** 2 + noise[:, second] ** 2) / 2).mean(axis=0))
        lengths.append(np.linalg.norm(coordinates[first] - coordinates[second], axis=1))
    distances = np.concatenate(lengths)
    if not len(distances):
        return 0.0
    alike = np.concatenate(products).sum() / np.concatenate(squares).sum()
    return float(distances.mean() * np.sqrt(-2 * np.log(2) / np.log(alike))) if 0 < alike < 1 else 0.0

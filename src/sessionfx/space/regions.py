"""Regions of an atlas on the grid of maps: which voxels each has, and means over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.space.grid import Grid

# A map of which less of a region is left has no value there: the mean would be one of another place
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Regions:
    """R regions on a grid.

    Attributes
    ----------
    numbers : ndarray of int, 3-D
        r + 1 in region r, 0 where there is none.
    indices : tuple of int
        Of each region in its atlas.
    names : tuple of str
    """

    numbers: NDArray[np.intp]
    indices: tuple[int, ...]
    names: tuple[str, ...]

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Voxels of each region, of shape (R,)."""
        return np.bincount(self.numbers.ravel(), minlength=len(self.indices) + 1)[1:]

    @property
    def grid(self) -> Grid:
        """A grid that has the regions for voxels, for what is computed at each region as at a voxel."""
        return Grid((len(self.indices), 1, 1), np.eye(4))

    def as_mask(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Put a choice of regions, of shape (R,), on that grid."""
        return chosen.reshape(-1, 1, 1)

    def means(self, values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Average maps over the voxels of each region that they have.

        Parameters
        ----------
        values : ndarray of shape (V,) or (N, V)
            At the V voxels of the mask.
        mask : ndarray of bool, 3-D

        Returns
        -------
        ndarray of shape (R,) or (N, R)
            NaN where a region has no voxel of the mask.
        """
        weights = self._weights(mask)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ np.asarray(values, dtype=np.float64).T).T / self.counts(mask))

    def counts(self, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Count the voxels of each region that a mask has, of shape (R,)."""
        return np.bincount(self.numbers[mask], minlength=len(self.indices) + 1)[1:]

    def shares(self, counts: NDArray[np.intp]) -> NDArray[np.float64]:
        """Say which share of each region so many voxels are."""
        return np.asarray(counts / self.sizes)

    def _weights(self, mask: NDArray[np.bool_]) -> sparse.csr_array:
        """Give ones where a voxel of the mask is of a region, of shape (R, V)."""
        numbers = self.numbers[mask]
        inside = np.flatnonzero(numbers)
        where = (numbers[inside] - 1, inside)
        return sparse.csr_array((np.ones(len(inside)), where), shape=(len(self.indices), len(numbers)))


def nearest_labels(labels: NDArray[np.int_], own: Grid, wanted: Grid) -> NDArray[np.int_]:
    """Give the label of the nearest voxel at each voxel of another grid; 0 beyond the image."""
    if own.same_as(wanted):
        return labels
    found = np.zeros(wanted.shape, dtype=labels.dtype)
    to_own = np.linalg.inv(own.affine) @ wanted.affine
    plane = np.stack(np.meshgrid(*map(np.arange, wanted.shape[1:]), indexing="ij"), axis=-1).reshape(-1, 2)
    for i in range(wanted.shape[0]):
        voxels = np.rint(apply_affine(to_own, np.column_stack([np.full(len(plane), i), plane]))).astype(int)
        inside = ((voxels >= 0) & (voxels < own.shape)).all(axis=1)
        found[i].reshape(-1)[inside] = labels[tuple(voxels[inside].T)]
    return found

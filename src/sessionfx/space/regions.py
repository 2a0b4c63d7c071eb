"""Regions of an atlas in the space of maps: which features each has, and means over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.space.grid import Grid
from sessionfx.space.space import Space

# A map of which less of a region is left has no value there: the mean would be one of another place
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Regions:
    """R regions in a space; features count equally, whatever their area."""

    space: Space
    numbers: NDArray[np.intp]  # of the space's shape: r + 1 in region r, 0 where there is none
    indices: tuple[int, ...]  # of each region in its atlas
    names: tuple[str, ...]

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Features of each region, of shape (R,)."""
        return np.bincount(self.numbers.ravel(), minlength=len(self.indices) + 1)[1:]

    @property
    def grid(self) -> Grid:
        """A grid that has the regions for voxels, for what is computed at each region as at a voxel."""
        return Grid((len(self.indices), 1, 1), np.eye(4))

    def as_mask(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Put a choice of regions, of shape (R,), on that grid."""
        return chosen.reshape(-1, 1, 1)

    def means(self, values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Average maps over the features of each region that they have.

        Parameters
        ----------
        values : ndarray of shape (V,) or (N, V)
            At the V features of the mask.
        mask : ndarray of bool, of the space's shape

        Returns
        -------
        ndarray of shape (R,) or (N, R)
            NaN where a region has no feature of the mask.
        """
        weights = self._weights(mask)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ np.asarray(values, dtype=np.float64).T).T / self.counts(mask))

    def counts(self, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Count the features of each region that a mask has, of shape (R,)."""
        return np.bincount(self.numbers[mask], minlength=len(self.indices) + 1)[1:]

    def shares(self, counts: NDArray[np.intp]) -> NDArray[np.float64]:
        """Say which share of each region so many features are."""
        return np.asarray(counts / self.sizes)

    def _weights(self, mask: NDArray[np.bool_]) -> sparse.csr_array:
        """Give ones where a feature of the mask is of a region, of shape (R, V)."""
        numbers = self.numbers[mask]
        inside = np.flatnonzero(numbers)
        where = (numbers[inside] - 1, inside)
        return sparse.csr_array((np.ones(len(inside)), where), shape=(len(self.indices), len(numbers)))

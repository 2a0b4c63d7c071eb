"""What surfaces and grayordinates share: features that belong to hemispheres and structures, by numbers there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.space.grid import Grid
from sessionfx.space.space import Space, Structure
from sessionfx.wording import listed

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Without these an atlas is no atlas of the data; structures below the cortex it may lack
_SIDES = ("L", "R")
_LEAST_LENGTH = 1e-6  # mm


class Structured(Space):
    """Features that belong to structures, of which files may list some or all vertices and voxels."""

    @property
    @abstractmethod
    def voxel_grid(self) -> Grid | None:
        """Grid of the voxels; None where there are none."""

    def misfit_of(self, own: Space) -> str:
        """Say why labels of another space cannot be put on this one; empty where they can.

        They can where they have the same meshes and voxels, and all features that the data have in structures of both.
        """
        if not isinstance(own, Structured):
            return "it is an image of voxels"
        for side in _SIDES:
            n, n_own = self.hemispheres.get(side), own.hemispheres.get(side)
            if n is not None and n_own is None:
                return f"it has nothing of hemi-{side}"
            if n is not None and n != n_own:
                return f"hemi-{side} has {n_own} vertices there, and {n} in the data"
        if self.voxel_grid and own.voxel_grid and (difference := own.voxel_grid.difference_from(self.voxel_grid)):
            return f"their voxels differ: {difference}"
        for structure in self.structures:
            found = self._found_in(own, structure)
            if found is not None and (found < 0).any():
                kind = "vertices" if structure.voxel_size is None else "voxels"
                return f"it lacks {int((found < 0).sum())} of the {found.size} {kind} of {structure.name}"
        return ""

    def labels_from(self, labels: NDArray[np.int_], own: Space) -> NDArray[np.int_]:
        """Give the label that each vertex or voxel has in its structure; 0 in structures that are not there."""
        found = np.zeros(self.shape, dtype=np.int_)
        for structure in self.structures:
            places = self._found_in(own, structure)
            if places is not None:
                found[structure.places] = labels[places]
        return found

    def placed_text(self, labels: NDArray[np.int_], own: Space) -> str:
        """Name the structures that labels are silent about."""
        del labels
        silent = [structure for structure in self.structures if self._found_in(own, structure) is None]
        if not silent:
            return ""
        n = sum(len(structure.places) for structure in silent)
        names = listed([structure.name.removeprefix("CIFTI_STRUCTURE_") for structure in silent], most=4)
        return f", none in {names}, which it does not have ({n:,} {self.features})"

    def nearest_label(self, labels: NDArray[np.int_], place: Mapping[str, Any], within: float) -> tuple[int, bool]:
        """Give the label at a place or the nearest one along the mesh; see `Space.nearest_label`."""
        from scipy.sparse.csgraph import dijkstra

        index = self.index_of(place)
        if labels[index] or self.edge_lengths is None:
            return int(labels[index]), True
        away = dijkstra(self.edge_lengths, indices=index, limit=within)
        away[labels == 0] = np.inf
        nearest = int(away.argmin())
        return (int(labels[nearest]) if np.isfinite(away[nearest]) else 0), False

    def _found_in(self, own: Space, structure: Structure) -> NDArray[np.intp] | None:
        """Find a structure's features on another space's axis, -1 where it lacks one; None without it."""
        there = next((found for found in own.structures if found.name == structure.name), None)
        if there is None:
            return None
        size = np.maximum(there.numbers.max(axis=0), structure.numbers.max(axis=0)) + 1
        features = np.full(size, -1)
        features[_index(there.numbers)] = there.places
        return np.asarray(features[_index(structure.numbers)])

    @cached_property
    def edge_lengths(self) -> csr_array | None:
        """Distances between neighbours (mm) along the mesh and the grid of voxels; None without a mesh."""
        from scipy.sparse import csr_array

        if self.adjacency is None:
            return None
        coordinates = np.empty((*self.shape, 3))
        for structure in self.structures:
            if structure.voxel_size is None:
                coordinates[structure.places] = self.meshes[structure.name].coordinates[structure.numbers]
            else:
                coordinates[structure.places] = structure.numbers * structure.voxel_size
        rows, columns = self.adjacency.nonzero()
        # features in one place would have no edge
        lengths = np.maximum(np.linalg.norm(coordinates[rows] - coordinates[columns], axis=1), _LEAST_LENGTH)
        return csr_array((lengths, (rows, columns)), shape=self.adjacency.shape)


def _index(numbers: NDArray[np.integer]) -> Any:
    """Index an array by the numbers of vertices, of shape (v,), or of voxels, of shape (v, 3)."""
    return tuple(numbers.T) if numbers.ndim > 1 else numbers

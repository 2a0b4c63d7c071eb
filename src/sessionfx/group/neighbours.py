"""Which features of a mask touch each other: voxels by their faces, vertices by the edges of a mesh."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from sessionfx.space.grid import Grid
from sessionfx.space.space import Space


class Neighbours(ABC):
    """The V features of a mask, arranged so that clusters of them can be found."""

    # Exponents of threshold-free cluster enhancement
    enhancement: ClassVar[dict[str, float]]

    @abstractmethod
    def arranged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Arrange values of shape (V,); 0 where there is no feature."""

    @abstractmethod
    def features(self, arranged: NDArray[np.floating]) -> NDArray[np.floating]:
        """Take values of shape (V,) back."""

    @abstractmethod
    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """Give a number to the cluster of each chosen feature, of shape (n chosen,), from 0; arranged they are."""

    @abstractmethod
    def sizes(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Size of each chosen feature, of shape (n chosen,); None where all count the same."""

    @abstractmethod
    def enhanced(self, arranged: NDArray[np.float32], *, two_sided: bool) -> NDArray[np.floating]:
        """Enhance a map; see `permutation`."""


@dataclass(frozen=True)
class VoxelNeighbours(Neighbours):
    """Voxels that share a face, in the box around a mask: a brain fills half of a usual image.

    Attributes
    ----------
    inside : ndarray of bool, 3-D
    """

    inside: NDArray[np.bool_]

    # Of Smith & Nichols (2009, doi:10.1016/j.neuroimage.2008.03.061)
    enhancement: ClassVar[dict[str, float]] = {"E": 0.5, "H": 2.0}

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> VoxelNeighbours:
        """Cut the box out of a mask; clusters do not reach out of it."""
        return cls(mask[tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))])

    def arranged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Neighbours`."""
        volume = np.zeros(self.inside.shape, dtype=np.float32, order="F")  # the order in which TFCE goes through it
        volume[self.inside] = values
        return volume

    def features(self, arranged: NDArray[np.floating]) -> NDArray[np.floating]:
        """See `Neighbours`."""
        return arranged[self.inside]

    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """See `Neighbours`."""
        return np.asarray(ndimage.label(chosen)[0][chosen] - 1)

    def sizes(self, chosen: NDArray[np.bool_]) -> None:
        """See `Neighbours`."""

    def enhanced(self, arranged: NDArray[np.float32], *, two_sided: bool) -> NDArray[np.floating]:
        """See `Neighbours`."""
        from tfce import tfce

        return np.asarray(tfce(arranged, two_sided=two_sided, connectivity=6, **self.enhancement))


@dataclass(frozen=True)
class MeshNeighbours(Neighbours):
    """Vertices that share an edge; of grayordinates voxels of a structure that share a face, too.

    Attributes
    ----------
    adjacency : csr_array of bool, shape (V, V)
    areas : ndarray of shape (V,)
        In mm²; that of a voxel is the mean of the vertices', so that clusters of both count alike.
    """

    adjacency: sparse.csr_array
    areas: NDArray[np.float64]

    # Of Workbench and FSL on surfaces
    enhancement: ClassVar[dict[str, float]] = {"E": 1.0, "H": 2.0}

    @classmethod
    def of(cls, mask: NDArray[np.bool_], space: Space) -> MeshNeighbours | None:
        """Restrict the neighbours of a space to a mask; None without a mesh."""
        adjacency, sizes = space.adjacency, space.sizes
        if adjacency is None or sizes is None:
            return None
        areas = np.where(space.is_on_surface, sizes, sizes[space.is_on_surface].mean())
        kept = np.flatnonzero(mask)
        return cls(sparse.csr_array(adjacency[kept][:, kept]), areas[kept])

    def arranged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Neighbours`."""
        return values

    def features(self, arranged: NDArray[np.floating]) -> NDArray[np.floating]:
        """See `Neighbours`."""
        return arranged

    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """See `Neighbours`."""
        return np.asarray(connected_components(self.adjacency[chosen][:, chosen], directed=False)[1])

    def sizes(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See `Neighbours`."""
        return self.areas[chosen]

    @cached_property
    def _pointers(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return self.adjacency.indptr.astype(np.int32), self.adjacency.indices.astype(np.int32)

    def enhanced(self, arranged: NDArray[np.float32], *, two_sided: bool) -> NDArray[np.floating]:
        """See `Neighbours`."""
        from tfce import tfce

        return np.asarray(tfce(arranged, two_sided=two_sided, adjacency=self._pointers, **self.enhancement))


def neighbours_in(mask: NDArray[np.bool_], space: Space | None) -> Neighbours | None:
    """Say which features of a mask touch each other, None where nothing tells.

    Parameters
    ----------
    mask : ndarray of bool, of the space's shape
    space : Space or None
        A voxel grid where there is none.
    """
    if space is None or isinstance(space, Grid):
        return VoxelNeighbours.of(mask)
    return MeshNeighbours.of(mask, space)


def clusters_in(space: Space, chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """Give numbers to the clusters of chosen features, from 1, in the space's shape; 0 elsewhere, or without a mesh."""
    labels = np.zeros(chosen.shape, dtype=np.intp)
    found = neighbours_in(chosen, space) if chosen.any() else None
    if found is not None:
        everything = found.arranged(np.ones(int(chosen.sum()), dtype=np.float32)) > 0
        labels[chosen] = found.labels(everything) + 1
    return labels

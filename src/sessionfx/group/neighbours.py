"""Which features of a mask touch each other: voxels by their faces, vertices by the edges of a mesh."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

    def arranged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Arrange values of shape (V,); 0 where there is no feature."""
        return values

    def features(self, arranged: NDArray[np.floating]) -> NDArray[np.floating]:
        """Take values of shape (V,) back."""
        return arranged

    @abstractmethod
    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """Give a number to the cluster of each chosen feature, of shape (n chosen,), from 0; arranged they are."""

    def sizes(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Size of each chosen feature, of shape (n chosen,); None where all count the same."""
        return None

    @property
    @abstractmethod
    def enhancement(self) -> dict[str, Any]:
        """Exponents of threshold-free cluster enhancement, and what touches."""

    def enhanced(self, arranged: NDArray[np.float32], *, two_sided: bool) -> NDArray[np.floating]:
        """Enhance a map; see `permutation`."""
        from tfce import tfce

        return np.asarray(tfce(arranged, two_sided=two_sided, **self.enhancement))


class VoxelNeighbours(Neighbours):
    """Voxels of a 3-D mask that share a face, in the box around it: a brain fills half of a usual image."""

    # Of Smith & Nichols (2009, doi:10.1016/j.neuroimage.2008.03.061)
    enhancement: ClassVar[dict[str, Any]] = {"E": 0.5, "H": 2.0, "connectivity": 6}

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        # clusters do not reach out of the box
        self._inside = mask[tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))]

    def arranged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put values into the box; see `Neighbours`."""
        volume = np.zeros(self._inside.shape, dtype=np.float32, order="F")  # the order in which TFCE goes through it
        volume[self._inside] = values
        return volume

    def features(self, arranged: NDArray[np.floating]) -> NDArray[np.floating]:
        """Take values out of the box; see `Neighbours`."""
        return arranged[self._inside]

    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """See `Neighbours`."""
        return np.asarray(ndimage.label(chosen)[0][chosen] - 1)


class MeshNeighbours(Neighbours):
    """Vertices of a mask that share an edge; of grayordinates voxels of a structure that share a face, too.

    The size of a vertex is its area in mm²; that of a voxel is the mean of the vertices', so that clusters of both
    count alike.
    """

    def __init__(self, mask: NDArray[np.bool_], space: Space) -> None:
        assert space.adjacency is not None and space.sizes is not None  # noqa: S101 - of a space with meshes
        areas = np.where(space.is_on_surface, space.sizes, space.sizes[space.is_on_surface].mean())
        kept = np.flatnonzero(mask)
        self._adjacency, self._areas = sparse.csr_array(space.adjacency[kept][:, kept]), areas[kept]

    def labels(self, chosen: NDArray[np.bool_]) -> NDArray[np.integer]:
        """See `Neighbours`."""
        return np.asarray(connected_components(self._adjacency[chosen][:, chosen], directed=False)[1])

    def sizes(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See `Neighbours`."""
        return self._areas[chosen]

    @cached_property
    def enhancement(self) -> dict[str, Any]:
        """Give the exponents of Workbench and FSL on surfaces; see `Neighbours`."""
        pointers = self._adjacency.indptr.astype(np.int32), self._adjacency.indices.astype(np.int32)
        return {"E": 1.0, "H": 2.0, "adjacency": pointers}


def neighbours_in(mask: NDArray[np.bool_], space: Space | None) -> Neighbours | None:
    """Say which features of a mask touch each other, None where nothing tells.

    Parameters
    ----------
    mask : ndarray of bool, of the space's shape
    space : Space or None
        A voxel grid where there is none.
    """
    if space is None or isinstance(space, Grid):
        return VoxelNeighbours(mask)
    return None if space.adjacency is None or space.sizes is None else MeshNeighbours(mask, space)


def clusters_in(space: Space, chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """Give numbers to the clusters of chosen features, from 1, in the space's shape; 0 elsewhere, or without a mesh."""
    labels = np.zeros(chosen.shape, dtype=np.intp)
    found = neighbours_in(chosen, space) if chosen.any() else None
    if found is not None:
        everything = found.arranged(np.ones(int(chosen.sum()), dtype=np.float32)) > 0
        labels[chosen] = found.labels(everything) + 1
    return labels

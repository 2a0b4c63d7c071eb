"""Surfaces: the vertices of one or both hemispheres, one after another, and the mesh they may lie on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.space.space import NO_INTENT, Intent, Space

if TYPE_CHECKING:
    from scipy.sparse import csr_array

HEMISPHERES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class Surface(Space):
    """The vertices of hemispheres, as parts of one axis.

    Attributes
    ----------
    name : str
        Label of the space: fsaverage5, fsnative, ….
    vertices : mapping of str to int
        How many there are by hemisphere, L or R, in the order of the axis.
    """

    name: str
    vertices: Mapping[str, int]

    features: ClassVar[str] = "vertices"
    extension: ClassVar[str] = ".gii"
    # GIFTI has no double precision
    most_precise: ClassVar[type[np.floating]] = np.float32
    counted: ClassVar[tuple[str, str]] = ("Vertices", "FittedVertices")

    @property
    def shape(self) -> tuple[int]:
        """All vertices."""
        return (sum(self.vertices.values()),)

    def __str__(self) -> str:
        return f"{self.name}, {' and '.join(f'{n} vertices of hemi-{label}' for label, n in self.vertices.items())}"

    def same_as(self, other: Space) -> bool:
        """Whether both have the same vertices."""
        return self == other

    def difference_from(self, other: Space) -> str:
        """Say in words in what the surface differs from another space; empty where it does not."""
        return "" if self.same_as(other) else f"{self} and {other}"

    def part(self, hemisphere: str) -> slice:
        """Give the place of a hemisphere on the axis."""
        start = 0
        for label, n_vertices in self.vertices.items():
            if label == hemisphere:
                return slice(start, start + n_vertices)
            start += n_vertices
        raise KeyError(hemisphere)

    def place(self, index: int) -> dict[str, Any]:
        """Give the `hemisphere` of a vertex, and its number there, from 0."""
        label = next(label for label in self.vertices if index < self.part(label).stop)
        return {"hemisphere": label, "vertex": index - self.part(label).start}

    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make a GIFTI file of each hemisphere, with an array for each map."""
        from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

        files = {}
        for label in self.vertices:
            own = values[self.part(label)]
            arrays = [
                GiftiDataArray(array, intent=intent[0], datatype=array.dtype, meta={"Name": name} if name else {})
                for array, name in zip(np.atleast_2d(own.T), names or [""] * len(np.atleast_2d(own.T)), strict=True)
            ]
            structure = f"Cortex{HEMISPHERES[label].capitalize()}"  # by which Workbench knows the hemisphere
            image = GiftiImage(meta=GiftiMetaData(AnatomicalStructurePrimary=structure), darrays=arrays)
            files[label] = image.to_bytes()
        return files


@dataclass(frozen=True)
class Mesh:
    """Vertices in space and the triangles between them.

    Attributes
    ----------
    coordinates : ndarray of shape (n, 3)
        In mm.
    triangles : ndarray of int, shape (m, 3)
    """

    coordinates: NDArray[np.float64]
    triangles: NDArray[np.integer]

    @classmethod
    def joined(cls, first: Mesh, second: Mesh) -> Mesh:
        """Put two hemispheres together, one after the other; no triangle joins them."""
        return cls(
            np.vstack([first.coordinates, second.coordinates]),
            np.vstack([first.triangles, second.triangles + len(first.coordinates)]),
        )

    @cached_property
    def adjacency(self) -> csr_array:
        """Which vertices have an edge in common: symmetric, of shape (n, n), without the diagonal."""
        from scipy.sparse import coo_array

        edges = np.vstack([self.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        rows, columns = np.hstack([edges.T, edges.T[::-1]])
        n_vertices = len(self.coordinates)
        found = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n_vertices, n_vertices)).tocsr()
        found.data[:] = True  # an edge of two triangles stands twice
        return found

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """Area of each vertex (mm²), of shape (n,): a third of those of its triangles."""
        first, second, third = (self.coordinates[self.triangles[:, corner]] for corner in range(3))
        of_triangles = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
        n_vertices = len(self.coordinates)
        return np.asarray(np.bincount(self.triangles.ravel(), np.repeat(of_triangles / 3, 3), minlength=n_vertices))

"""The mesh of a hemisphere: which vertices are neighbours, the area of each, and the folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_SMOOTHINGS = 8  # of the depth of folds


@dataclass(frozen=True)
class Mesh:
    """Vertices in space and the triangles between them."""

    coordinates: NDArray[np.float64]  # (n, 3): in mm
    triangles: NDArray[np.integer]  # (m, 3)
    sources: tuple[Path, ...] = ()  # files that it was read from

    @cached_property
    def adjacency(self) -> csr_array:
        """Which vertices have an edge in common: symmetric, of shape (n, n), without the diagonal."""
        edges = np.vstack([self.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        return neighbours(edges, len(self.coordinates))

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """Area of each vertex (mm²), of shape (n,): a third of those of its triangles."""
        first, second, third = (self.coordinates[self.triangles[:, corner]] for corner in range(3))
        of_triangles = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
        n_vertices = len(self.coordinates)
        return np.asarray(np.bincount(self.triangles.ravel(), np.repeat(of_triangles / 3, 3), minlength=n_vertices))

    @cached_property
    def normals(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Vectors that point outwards: of triangles, as long as they are large; of vertices, of length 1."""
        first, second, third = (self.coordinates[self.triangles[:, corner]] for corner in range(3))
        normals = np.cross(second - first, third - first)
        # then the volume is positive
        normals *= np.sign(((first - self.coordinates.mean(axis=0)) * normals).sum())
        n_vertices, corners = len(self.coordinates), self.triangles.ravel()
        sums = np.stack([np.bincount(corners, np.repeat(axis, 3), n_vertices) for axis in normals.T], axis=1)
        return normals, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)

    @cached_property
    def depth_of_folds(self) -> NDArray[np.floating]:
        """How far the neighbours of each vertex lie outwards, smoothed: positive in sulci, with a spread of 1/2."""
        edges = self.adjacency.astype(float)
        shares = edges.multiply(1 / np.maximum(edges.sum(axis=1), 1)[:, None]).tocsr()
        depth = ((shares @ self.coordinates - self.coordinates) * self.normals[1]).sum(axis=1)
        for _ in range(_SMOOTHINGS):
            depth = (depth + shares @ depth) / 2
        return np.asarray(depth / max(2 * float(depth.std()), 1e-12))


def neighbours(pairs: NDArray[np.integer], n_features: int) -> csr_array:
    """Make a symmetric matrix of pairs, of shape (N, 2), that may stand there twice."""
    from scipy.sparse import coo_array

    rows, columns = np.hstack([pairs.T, pairs.T[::-1]])
    found = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n_features, n_features)).tocsr()
    found.data[:] = True
    return found


def check_meshes(meshes: Mapping[str, Mesh], vertices: Mapping[str, int], space: str) -> Mapping[str, Mesh]:
    """Give the meshes of the hemispheres of a space.

    Raises
    ------
    ParticipantError
        If a mesh has more or fewer vertices than the hemisphere.
    """
    for label, n_vertices in vertices.items():
        if label in meshes and len(meshes[label].coordinates) != n_vertices:
            files = " and ".join(map(str, meshes[label].sources)) or f"the mesh of hemi-{label}"
            has = "have" if len(meshes[label].sources) > 1 else "has"
            raise ParticipantError(
                f"{files} {has} {len(meshes[label].coordinates)} vertices, and the data have {n_vertices} ({space}). "
                "Provide the mesh that the data were sampled to."
            )
    return {label: meshes[label] for label in vertices if label in meshes}

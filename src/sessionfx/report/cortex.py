"""The cortex that maps are shown on: inflated and flat surfaces, with the folds as shades of grey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from sessionfx.bids.meshes import mesh_beside, read_mesh
from sessionfx.report.canvas import PAPER
from sessionfx.report.nilearn_files import fsaverage5_arrays
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

_FOLDS = 0.13  # of grey levels, from the depth of folds
_SMOOTHINGS = 8  # of the depth of folds
_N_DRAWN = 10_242  # vertices of a hemisphere of fsaverage5
_N_VERTICES = {10 * 4**level + 2 for level in range(8)}  # of fsaverage and its coarser kin


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """What a hemisphere is drawn on.

    Attributes
    ----------
    inflated : Mesh
    flat : Mesh or None
        The same vertices; triangles at the cuts are left out.
    depth : ndarray of shape (n,), or None
        Of the folds, positive in sulci.
    """

    inflated: Mesh
    flat: Mesh | None = None
    depth: NDArray[np.floating] | None = None

    @cached_property
    def grey(self) -> NDArray[np.floating]:
        """Grey level of each vertex, from 0 to 1: darker in the folds."""
        if self.depth is None:
            return np.full(len(self.inflated.coordinates), PAPER)
        return np.asarray(PAPER - _FOLDS * (1 + np.tanh(2 * self.depth)))


@dataclass(frozen=True, eq=False)
class Hemispheres:
    """Both hemispheres, or one, by L and R; vertices are numbered one hemisphere after the other."""

    parts: Mapping[str, Hemisphere]


@dataclass(frozen=True)
class Cortex:
    """Hemispheres, and the features of a space at their vertices.

    Attributes
    ----------
    hemispheres : Hemispheres
    features : ndarray of int
        By their places on the axis; -1 where there is none.
    remark : str
        What a reader should know.
    """

    hemispheres: Hemispheres
    features: NDArray[np.intp]
    remark: str = ""


def cortex_of(space: Surface | Grayordinates) -> Cortex | None:
    """Find what the vertices of a space are drawn on; None where there is no mesh.

    Fsaverage and its coarser kin are drawn on fsaverage5: all of them number their vertices alike, the finer ones after
    those of the coarser. Others, and finer ones where they have meshes, are drawn on the space's.
    """
    features = {label: space.at_vertices(label) for label in HEMISPHERES if label in space.hemispheres}
    files = tuple((label, space.meshes[label].sources) for label in features if label in space.meshes)
    has_files = bool(features) and len(files) == len(features) and all(paths for _, paths in files)
    sizes = {len(own) for own in features.values()}
    is_fsaverage = isinstance(space, Surface) and space.name.startswith("fsaverage") and sizes <= _N_VERTICES
    is_finer = max(sizes, default=0) > _N_DRAWN
    if is_fsaverage and not (is_finer and has_files):
        nearest = [own[_nearest(label, len(own))] for label, own in features.items()]
        remark = f"Of {max(sizes):,} vertices of a hemisphere {_N_DRAWN:,} are drawn. " if is_finer else ""
        return Cortex(_fsaverage5(tuple(features)), np.concatenate(nearest), remark)
    return Cortex(_of_files(files), np.concatenate([*features.values()])) if has_files else None


@cache
def _nearest(label: str, n_vertices: int) -> NDArray[np.intp]:
    """Find the nearest of the first vertices to each vertex of fsaverage5."""
    places = fsaverage5_arrays(f"sphere_{HEMISPHERES[label]}")[0]
    return np.asarray(KDTree(places[:n_vertices]).query(places)[1])


@cache
def _fsaverage5(labels: tuple[str, ...]) -> Hemispheres:
    parts = {}
    for label in labels:
        side = HEMISPHERES[label]
        (inflated, triangles), (flat, flat_triangles) = (
            fsaverage5_arrays(f"{kind}_{side}") for kind in ("infl", "flat")
        )
        depth = fsaverage5_arrays(f"sulc_{side}")[0]
        parts[label] = Hemisphere(Mesh(inflated, triangles), Mesh(flat, flat_triangles), depth)
    return Hemispheres(parts)


@lru_cache(maxsize=2)
def _of_files(files: tuple[tuple[str, tuple[Path, ...]], ...]) -> Hemispheres:
    """Take meshes that were read, or what is inflated and flat beside them."""
    parts = {}
    for label, paths in files:
        mesh = read_mesh(paths)
        inflated, flat = (mesh_beside(mesh, kind) for kind in ("inflated", "flat"))
        parts[label] = Hemisphere(inflated or mesh, flat, depth_of_folds(mesh))
    return Hemispheres(parts)


def normals_of(
    places: NDArray[np.floating], triangles: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Give vectors that point outwards: of triangles, as long as they are large; of vertices, of length 1."""
    first, second, third = (places[triangles[:, corner]] for corner in range(3))
    normals = np.cross(second - first, third - first)
    normals *= np.sign(((first - places.mean(axis=0)) * normals).sum())  # then the volume is positive
    sums = np.stack([np.bincount(triangles.ravel(), np.repeat(axis, 3), len(places)) for axis in normals.T], axis=1)
    return normals, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def depth_of_folds(mesh: Mesh) -> NDArray[np.floating]:
    """Find how far the neighbours of each vertex lie outwards, smoothed: positive in sulci, with a spread of 1/2."""
    neighbours = mesh.adjacency.astype(float)
    shares = neighbours.multiply(1 / np.maximum(neighbours.sum(axis=1), 1)[:, None]).tocsr()
    _, normals = normals_of(mesh.coordinates, mesh.triangles)
    depth = ((shares @ mesh.coordinates - mesh.coordinates) * normals).sum(axis=1)
    for _ in range(_SMOOTHINGS):
        depth = (depth + shares @ depth) / 2
    return np.asarray(depth / max(2 * float(depth.std()), 1e-12))

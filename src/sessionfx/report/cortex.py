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
_N_DRAWN = 10_242  # vertices of a hemisphere of fsaverage5
_N_VERTICES = {10 * 4**level + 2 for level in range(8)}  # of fsaverage and its coarser kin


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """What a hemisphere is drawn on: meshes of the same n vertices, and the depth of the folds (n,) at each."""

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
    """Hemispheres, the features of a space at their vertices (-1: none), and what a reader should know."""

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
        inflated, flat, depth = (fsaverage5_arrays(f"{kind}_{HEMISPHERES[label]}") for kind in ("infl", "flat", "sulc"))
        parts[label] = Hemisphere(Mesh(inflated[0], inflated[1]), Mesh(flat[0], flat[1]), depth[0])
    return Hemispheres(parts)


@lru_cache(maxsize=2)
def _of_files(files: tuple[tuple[str, tuple[Path, ...]], ...]) -> Hemispheres:
    """Take meshes that were read, or what is inflated and flat beside them."""
    parts = {}
    for label, paths in files:
        mesh = read_mesh(paths)
        inflated, flat = (mesh_beside(mesh, kind) for kind in ("inflated", "flat"))
        parts[label] = Hemisphere(inflated or mesh, flat, mesh.depth_of_folds)
    return Hemispheres(parts)

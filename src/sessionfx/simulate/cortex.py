"""The cortex that all simulated participants share: patches with effects on a mesh, and noise that is smooth along it.

fsaverage5 is that of nilearn's wheel. fsLR is a small stand-in, as no package has its meshes: every fourth vertex of
the same cortex, and some voxels below it, in files of the true form with meshes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.cifti2.cifti2_axes import BrainModelAxis
from nilearn.surface import load_surf_data
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import ConvexHull

from sessionfx.bids.meshes import fsaverage5_files, read_mesh
from sessionfx.simulate.head import ATLAS, BASELINE_INTENSITY, REGIONS, Ball, Tissue, distance, texture
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

# Per hemisphere. The first vertices of an icosahedral mesh are those of the coarser one that it was made from.
N_VERTICES = {"fsaverage5": 10_242, "fsLR": 2_562}
ENTITIES = {"fsaverage5": {"space": "fsaverage5"}, "fsLR": {"space": "fsLR", "den": "5k"}}
THINNEST = 1.0  # mm; what is thinner is medial wall
STEPS = 2  # of averaging noise with the neighbours: a FWHM of about 7 mm on fsaverage5, 13 mm on the small fsLR
VOXEL_SIZE = 4.0  # mm, below the cortex
BOUNDING_BOX = ((-40.0, 40.0), (-60.0, 40.0), (-60.0, 40.0))  # mm
# Centres and radii in mm, and names as in CIFTI
SUBCORTICAL: dict[str, Ball] = {
    "THALAMUS_LEFT": ((-12.0, -18.0, 8.0), (8.0, 12.0, 8.0)),
    "THALAMUS_RIGHT": ((12.0, -18.0, 8.0), (8.0, 12.0, 8.0)),
    "PUTAMEN_LEFT": ((-26.0, 2.0, 0.0), (6.0, 14.0, 8.0)),
    "PUTAMEN_RIGHT": ((26.0, 2.0, 0.0), (6.0, 14.0, 8.0)),
    "BRAIN_STEM": ((0.0, -28.0, -32.0), (10.0, 10.0, 16.0)),
}
# Where the mean effect is too, so that there is something to find below the cortex
ACTIVE_STRUCTURES = ("THALAMUS_LEFT", "THALAMUS_RIGHT")


@dataclass(frozen=True, kw_only=True)
class Cortex(Tissue):
    """The cortex, or grayordinates; V vertices and voxels in the order of the files."""

    name: str  # fsaverage5 or fsLR
    space: Surface | Grayordinates
    has_data: NDArray[Any]  # (V,), false in the medial wall
    labels: NDArray[Any]  # (V,), number of the region of `ATLAS`, from 1; 0 where there is none
    spread: csr_array  # (V, V), makes noise smooth and leaves its variance


def make_cortex(name: str) -> Cortex:
    """Return the cortex on fsaverage5, or grayordinates (fsLR)."""
    space: Surface | Grayordinates
    space = surface = Surface(name, dict.fromkeys(HEMISPHERES, N_VERTICES[name]), make_meshes(name, "white", "pial"))
    coordinates = np.vstack([surface.meshes[label].coordinates for label in HEMISPHERES])
    folder = fsaverage5_files()["L", "white"].parent
    thickness = [load_surf_data(folder / f"thick_{side}.gii.gz")[: N_VERTICES[name]] for side in HEMISPHERES.values()]
    has_data = np.hstack(thickness) >= THINNEST
    regions = {region: _patch(surface, coordinates, ball) & has_data for region, ball in REGIONS.items()}
    labels = np.zeros(len(coordinates), dtype=np.int32)
    for number, ball in enumerate(ATLAS.values(), start=1):
        labels[_patch(surface, coordinates, ball) & has_data & (labels == 0)] = number
    if name == "fsLR":
        axis, below = _grayordinates(has_data)
        space = Grayordinates(axis, surface.meshes)
        coordinates = np.vstack([coordinates[has_data], below])
        regions = {
            region: np.hstack([patch[has_data], np.zeros(len(below), bool)]) for region, patch in regions.items()
        }
        regions["meanEffect"] |= np.isin(axis.name, [f"CIFTI_STRUCTURE_{active}" for active in ACTIVE_STRUCTURES])
        labels = np.hstack([labels[has_data], np.zeros(len(below), labels.dtype)])
        has_data = np.ones(len(coordinates), dtype=bool)
    return Cortex(
        name=name,
        space=space,
        coordinates=coordinates,
        baseline=BASELINE_INTENSITY * (1 + texture(coordinates)),
        regions=regions,
        has_data=has_data,
        labels=labels,
        spread=_spread(space.adjacency),
    )


def make_meshes(name: str, *kinds: str) -> dict[str, Mesh]:
    """Return the mesh of each hemisphere, midway between those of fsaverage5 of some kinds."""
    files = fsaverage5_files()
    meshes = {label: read_mesh(tuple(files[label, kind] for kind in kinds)) for label in HEMISPHERES}
    if name == "fsaverage5":
        return meshes
    n_vertices = N_VERTICES[name]
    coarse = {}
    for label, mesh in meshes.items():
        sphere = read_mesh((files[label, "sphere"],)).coordinates[:n_vertices]
        # On a sphere the triangles are those of the convex hull; here with corners in order as seen from outside
        triangles = ConvexHull(sphere).simplices
        first, second, third = (sphere[triangles[:, corner]] for corner in range(3))
        is_inside_out = (np.cross(second - first, third - first) * first).sum(axis=1) < 0
        triangles[is_inside_out] = triangles[is_inside_out, ::-1]
        coarse[label] = Mesh(mesh.coordinates[:n_vertices], triangles)
    return coarse


def _patch(surface: Surface, coordinates: NDArray[Any], ball: Ball) -> NDArray[Any]:
    """Return a ball's patches, shape (n,): one of each hemisphere that the ball reaches.

    They lie about the vertex nearest to its centre, and are as large along the mesh as the ball is in space.
    """
    away = distance(coordinates, *ball)
    nearest = [part.start + int(away[part].argmin()) for part in map(surface.part, HEMISPHERES)]
    starts = [vertex for vertex in nearest if away[vertex] < 1]
    reached = dijkstra(surface.edge_lengths, indices=starts, min_only=True, limit=max(ball[1]))
    return np.asarray(np.isfinite(reached))


def _grayordinates(is_cortex: NDArray[Any]) -> tuple[BrainModelAxis, NDArray[Any]]:
    """Return the axis of vertices that have data and of voxels below them, and the coordinates of these (mm)."""
    affine = np.diag([VOXEL_SIZE, VOXEL_SIZE, VOXEL_SIZE, 1.0])
    affine[:3, 3] = [low for low, _ in BOUNDING_BOX]
    axes = [np.arange(low, high + VOXEL_SIZE / 100, VOXEL_SIZE) for low, high in BOUNDING_BOX]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = {name: distance(grid, *ball) <= 1 for name, ball in SUBCORTICAL.items()}
    axis, *further = (
        BrainModelAxis.from_mask(half, name=f"Cortex{side.capitalize()}")
        for half, side in zip(np.split(is_cortex, 2), HEMISPHERES.values(), strict=True)
    )
    for models in (*further, *(BrainModelAxis.from_mask(mask, affine=affine, name=n) for n, mask in inside.items())):
        axis += models
    return axis, np.vstack([grid[mask] for mask in inside.values()])


def _spread(adjacency: Any) -> csr_array:
    """Return what averages a vertex with its neighbours, so often, and then makes its variance what it was."""
    neighbourhood = adjacency.astype(float) + eye_array(adjacency.shape[0])
    step = diags_array(1 / neighbourhood.sum(axis=1)) @ neighbourhood
    spread = step
    for _ in range(STEPS - 1):
        spread = spread @ step
    return csr_array(diags_array(1 / np.sqrt(spread.power(2).sum(axis=1))) @ spread)

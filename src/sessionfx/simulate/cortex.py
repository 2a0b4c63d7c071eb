"""The cortex that all simulated participants share: patches with effects on a mesh, and noise that is smooth along it.

fsaverage5 is that of nilearn. fsLR is a small stand-in, as no package has fsLR: every fourth vertex of the same cortex,
and some voxels below it, in files of the true form with meshes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.cifti2.cifti2_axes import BrainModelAxis
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import ConvexHull

from sessionfx.simulate.head import ATLAS, BASELINE_INTENSITY, REGIONS, Ball, Tissue, distance, texture
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.surface import HEMISPHERES, Mesh, Surface

# Per hemisphere. The first vertices of an icosahedral mesh are those of the coarser one that it was made from.
N_VERTICES = {"fsaverage5": 10_242, "fsLR": 2_562}
# Of the series: so many thousand grayordinates; of the meshes: so many thousand vertices per hemisphere
ENTITIES = {"fsaverage5": {"space": "fsaverage5"}, "fsLR": {"space": "fsLR", "den": "5k"}}
MESH_ENTITIES = {"space": "fsLR", "den": "3k"}
THINNEST = 1.0  # mm; what is thinner is medial wall
STEPS = 2  # of averaging noise with the neighbours: a FWHM of about 6 mm on fsaverage5
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
    mesh = Mesh.joined(*make_meshes(name, "white_matter", "pial"))
    thickness = load_fsaverage_data("fsaverage5", data_type="thickness").data.parts
    is_cortex = np.hstack([thickness[side][: N_VERTICES[name]] >= THINNEST for side in HEMISPHERES.values()])
    regions = {region: _patch(mesh, ball) & is_cortex for region, ball in REGIONS.items()}
    labels = np.zeros(len(is_cortex), dtype=np.int32)
    for number, ball in enumerate(ATLAS.values(), start=1):
        labels[_patch(mesh, ball) & is_cortex & (labels == 0)] = number
    if name == "fsaverage5":
        return Cortex(
            name=name,
            coordinates=mesh.coordinates,
            baseline=BASELINE_INTENSITY * (1 + texture(mesh.coordinates)),
            regions=regions,
            space=Surface(name, dict.fromkeys(HEMISPHERES, N_VERTICES[name])),
            has_data=is_cortex,
            labels=labels,
            spread=_spread(mesh.adjacency),
        )
    models, places, structures = _below_the_cortex()
    left, right = (
        BrainModelAxis.from_mask(half, name=f"Cortex{side.capitalize()}")
        for half, side in zip(np.split(is_cortex, 2), HEMISPHERES.values(), strict=True)
    )
    nothing = np.zeros(len(places), dtype=bool)
    below = {"meanEffect": np.isin(structures, ACTIVE_STRUCTURES)}
    coordinates = np.vstack([mesh.coordinates[is_cortex], places])
    adjacency = block_diag([mesh.adjacency[is_cortex][:, is_cortex], csr_array((len(places), len(places)))])
    return Cortex(
        name=name,
        coordinates=coordinates,
        baseline=BASELINE_INTENSITY * (1 + texture(coordinates)),
        regions={name: np.hstack([patch[is_cortex], below.get(name, nothing)]) for name, patch in regions.items()},
        space=Grayordinates(left + right + models),
        has_data=np.ones(len(coordinates), dtype=bool),
        labels=np.hstack([labels[is_cortex], nothing]),
        spread=_spread(csr_array(adjacency)),
    )


def make_meshes(name: str, *kinds: str) -> tuple[Mesh, Mesh]:
    """Return the mesh midway between those of nilearn's fsaverage5 of some kinds, left and right."""
    meshes = load_fsaverage("fsaverage5")
    sides = []
    for side in HEMISPHERES.values():
        parts = [meshes[kind].parts[side].coordinates[: N_VERTICES[name]] for kind in kinds]
        sphere = meshes["sphere"].parts[side].coordinates[: N_VERTICES[name]].astype(np.float64)
        # On a sphere the triangles are those of the convex hull; here with corners in order as seen from outside
        triangles = ConvexHull(sphere).simplices
        first, second, third = (sphere[triangles[:, corner]] for corner in range(3))
        is_inside_out = (np.cross(second - first, third - first) * first).sum(axis=1) < 0
        triangles[is_inside_out] = triangles[is_inside_out, ::-1]
        sides.append(Mesh(np.mean(parts, axis=0, dtype=np.float64), triangles))
    return sides[0], sides[1]


def _patch(mesh: Mesh, ball: Ball) -> NDArray[Any]:
    """Return a ball's patches on the mesh, shape (n,): one of each hemisphere that the ball reaches.

    They lie about the vertex nearest to its centre, and are as large along the mesh as the ball is in space.
    """
    away = distance(mesh.coordinates, *ball)
    half = len(away) // 2
    nearest = (int(away[:half].argmin()), half + int(away[half:].argmin()))
    rows, columns = mesh.adjacency.nonzero()
    lengths = np.linalg.norm(mesh.coordinates[rows] - mesh.coordinates[columns], axis=1)
    graph = csr_array((lengths, (rows, columns)), shape=mesh.adjacency.shape)
    starts = [vertex for vertex in nearest if away[vertex] < 1]
    return np.asarray(np.isfinite(dijkstra(graph, indices=starts, min_only=True, limit=max(ball[1]))))


def _spread(adjacency: csr_array) -> csr_array:
    """Return what averages a vertex with its neighbours, so often, and then makes its variance what it was."""
    neighbourhood = adjacency.astype(float) + eye_array(adjacency.shape[0])
    step = diags_array(1 / neighbourhood.sum(axis=1)) @ neighbourhood
    spread = step
    for _ in range(STEPS - 1):
        spread = spread @ step
    return csr_array(diags_array(1 / np.sqrt(spread.power(2).sum(axis=1))) @ spread)


def _below_the_cortex() -> tuple[BrainModelAxis, NDArray[Any], NDArray[Any]]:
    """Return the axis of the voxels below the cortex, their coordinates (mm) and the names of their structures."""
    affine = np.diag([VOXEL_SIZE, VOXEL_SIZE, VOXEL_SIZE, 1.0])
    affine[:3, 3] = [low for low, _ in BOUNDING_BOX]
    axes = [np.arange(low, high + VOXEL_SIZE / 100, VOXEL_SIZE) for low, high in BOUNDING_BOX]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = {name: distance(grid, *ball) <= 1 for name, ball in SUBCORTICAL.items()}
    models = [BrainModelAxis.from_mask(mask, affine=affine, name=name) for name, mask in inside.items()]
    structures = np.repeat(list(inside), [int(mask.sum()) for mask in inside.values()])
    return sum(models[1:], models[0]), np.vstack([grid[mask] for mask in inside.values()]), structures

"""Smoothing along surfaces and within structures, beside nilearn and plain matrices."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis
from nilearn.image import smooth_img
from nilearn.surface import InMemoryMesh, PolyData, PolyMesh, SurfaceImage

from sessionfx.bids.meshes import find_meshes, with_meshes
from sessionfx.participant.smoothing import SurfaceSmoother
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import Surface
from surfaces import patch

FWHM = 8.0
MESHES = {"L": patch(12, 14, seed=1), "R": patch(13, 12, seed=2)}
SURFACE = Surface("x", {label: len(mesh.coordinates) for label, mesh in MESHES.items()}).with_meshes(MESHES)
FSAVERAGE5 = with_meshes(Surface("fsaverage5", {"L": 10242, "R": 10242}), find_meshes({"space": "fsaverage5"}, []))


def series(space: Surface | Grayordinates, *, n: int = 70) -> np.ndarray:
    return 100 + np.random.default_rng(0).standard_normal((n, *space.shape))


def smoothed(space: Surface | Grayordinates, mask: np.ndarray, values: np.ndarray, fwhm: float = FWHM) -> np.ndarray:
    signal = values[:, mask].copy()
    SurfaceSmoother(space, mask, fwhm).smooth(signal)
    return signal


def nilearns(space: Surface, values: np.ndarray, fwhm: float = FWHM) -> np.ndarray:
    sides = {"L": "left", "R": "right"}
    meshes = {
        sides[label]: InMemoryMesh(mesh.coordinates, mesh.triangles.astype(int)) for label, mesh in space.meshes.items()
    }
    parts = {sides[label]: np.ascontiguousarray(values[:, space.part(label)].T) for label in space.vertices}
    image = smooth_img(SurfaceImage(PolyMesh(**meshes), PolyData(**parts)), fwhm)
    return np.vstack([image.data.parts[side] for side in sides.values()]).T


@pytest.mark.parametrize("fwhm", [0.1, 4.0, 6.0, 8.0, 12.0])
def test_where_all_vertices_have_data_smoothing_equals_nilearns(fwhm: float) -> None:
    for space in (SURFACE, FSAVERAGE5):
        values = series(space, n=3)
        everywhere = np.ones(space.shape, dtype=bool)
        np.testing.assert_allclose(
            smoothed(space, everywhere, values, fwhm), nilearns(space, values, fwhm), rtol=0, atol=1e-8
        )


def test_smoothing_stays_within_the_vertices_that_have_data() -> None:
    """Far from what is left out it equals nilearn's; next to it that of the mesh without these vertices."""
    mask = np.ones(SURFACE.shape, dtype=bool)
    mask[[*range(20, 50), *range(200, 230)]] = False
    values = series(SURFACE)
    ours = smoothed(SURFACE, mask, values)
    left = mask[:168]
    kept = MESHES["L"].triangles[left[MESHES["L"].triangles].all(axis=1)]
    assert SURFACE.adjacency is not None
    adjacency = SURFACE.adjacency[:168][:, :168].toarray()[np.ix_(left, left)]
    step = 0.5 * np.eye(left.sum()) + 0.5 * adjacency / adjacency.sum(axis=1, keepdims=True)
    steps = SurfaceSmoother(SURFACE, mask, FWHM).steps["L"]
    expected = values[:, :168][:, left] @ np.linalg.matrix_power(step, steps).T
    np.testing.assert_allclose(ours[:, : left.sum()], expected, rtol=1e-12)
    assert len(kept) < len(MESHES["L"].triangles)
    values[:, ~mask] = np.nan
    np.testing.assert_array_equal(smoothed(SURFACE, mask, values), ours)
    far = np.flatnonzero(mask)[-1]
    np.testing.assert_allclose(ours[:, -1], nilearns(SURFACE, series(SURFACE))[:, far], rtol=1e-12)


def test_a_vertex_without_neighbours_keeps_its_values() -> None:
    mask = np.zeros(SURFACE.shape, dtype=bool)
    mask[[0, 100, 200]] = True
    values = series(SURFACE)
    np.testing.assert_array_equal(smoothed(SURFACE, mask, values), values[:, mask])


def test_the_fwhm_that_is_reached_is_measured() -> None:
    """It is 4/5 of what is asked for, as a step spreads a vertex so far (second moment), with coarse steps below 8 mm."""
    everywhere = np.ones(FSAVERAGE5.shape, dtype=bool)
    reached = {fwhm: SurfaceSmoother(FSAVERAGE5, everywhere, fwhm) for fwhm in (1.0, 6.0, 8.0, 12.0, 20.0)}
    assert set(reached[1.0].steps.values()) == {0} and reached[1.0].reached_fwhm == 0
    mesh = FSAVERAGE5.meshes["L"]
    first, second = mesh.adjacency.tocoo().coords
    square = ((mesh.coordinates[first] - mesh.coordinates[second]) ** 2).sum(axis=1).mean()
    for fwhm in (6.0, 8.0, 12.0, 20.0):
        sigma = np.sqrt(reached[fwhm].steps["L"] * square / 4)
        assert reached[fwhm].reached_fwhm == pytest.approx(sigma * np.sqrt(8 * np.log(2)), rel=0.09)
        assert reached[fwhm].reached_fwhm == pytest.approx(0.8 * fwhm, rel=0.08)


def brain_models() -> BrainModelAxis:
    """Both hemispheres with a wall, and structures that touch."""
    grid = np.zeros((9, 8, 7), dtype=int)
    grid[1:5, 1:6, 1:6] = 1
    grid[5:8, 2:6, 1:5] = 2
    grid[2, 2, 2] = 0
    axis = None
    for side, mesh in zip(("LEFT", "RIGHT"), MESHES.values(), strict=True):
        n = len(mesh.coordinates)
        part = BrainModelAxis.from_surface(np.arange(10, n), n, name=f"CORTEX_{side}")
        axis = part if axis is None else axis + part
    affine = np.diag([-2.0, 2.0, 3.0, 1])
    for number, name in enumerate(("THALAMUS_LEFT", "CAUDATE_LEFT"), start=1):
        axis = axis + BrainModelAxis.from_mask(grid == number, affine=affine, name=name)
    return axis


def test_voxels_are_smoothed_with_a_gaussian_within_their_structure() -> None:
    axis = brain_models()
    space = Grayordinates(axis).with_meshes(MESHES)
    mask = np.ones(space.shape, dtype=bool)
    mask[-5:] = False  # without data
    values = series(space)
    values[:, ~mask] = np.nan
    ours = np.full_like(values, np.nan)
    ours[:, mask] = smoothed(space, mask, values)
    coordinates = axis.voxel @ axis.affine[:3, :3].T
    sigma = FWHM / np.sqrt(8 * np.log(2))
    for name in ("THALAMUS_LEFT", "CAUDATE_LEFT"):
        own = np.flatnonzero((axis.name == f"CIFTI_STRUCTURE_{name}") & mask)
        distances = np.linalg.norm(coordinates[own][:, None] - coordinates[own], axis=2)
        weights = np.exp(-0.5 * (distances / sigma) ** 2)
        expected = values[:, own] @ (weights / weights.sum(axis=1, keepdims=True)).T
        np.testing.assert_allclose(ours[:, own], expected, rtol=1e-12)
    on_surface = np.flatnonzero(space.is_on_surface)
    surface = np.full(sum(space.hemispheres.values()), False)
    surface[[*range(10, 168), *range(178, surface.size)]] = True
    alone = np.zeros((len(values), surface.size))
    alone[:, surface] = values[:, on_surface]
    np.testing.assert_array_equal(ours[:, on_surface], smoothed(SURFACE, surface, alone))


def test_grayordinates_without_a_cortex_reach_no_fwhm_along_it() -> None:
    axis = BrainModelAxis.from_mask(np.ones((3, 3, 3)), affine=np.eye(4), name="PUTAMEN_LEFT")
    smoother = SurfaceSmoother(Grayordinates(axis), np.ones(27, dtype=bool), FWHM)
    assert smoother.reached_fwhm is None and smoother.steps == {}
    signal = np.ones((2, 27))
    smoother.smooth(signal)
    np.testing.assert_allclose(signal, 1)


def test_meshes_of_one_hemisphere_are_enough_for_it() -> None:
    space = Surface("x", {"L": 168}).with_meshes(MESHES)
    assert isinstance(space.meshes["L"], Mesh) and [*SurfaceSmoother(space, np.ones(168, bool), FWHM).steps] == ["L"]

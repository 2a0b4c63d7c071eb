"""Views of surfaces: each vertex is seen from its own side and where it lies, in the colours of its value."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage
from PIL import Image

from sessionfx.bids.meshes import find_meshes, mesh_beside, read_mesh, with_meshes
from sessionfx.report.brain import canvas_for
from sessionfx.report.canvas import Canvas, Scale
from sessionfx.report.cortex import HEIGHT, Hemisphere, Hemispheres, project
from sessionfx.report.nilearn_files import fsaverage5_arrays
from sessionfx.report.style import DIVERGING
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import Surface
from surfaces import brain_models

N = 10242


@pytest.fixture(scope="module")
def inflated() -> Mesh:
    """The left hemisphere."""
    coordinates, triangles = fsaverage5_arrays("infl_left")
    return Mesh(coordinates, triangles)


def fsaverage(n_vertices: int = N, labels: str = "LR", name: str = "fsaverage5") -> Canvas:
    space = Surface(name, dict.fromkeys(labels, n_vertices))
    canvas = canvas_for(space, np.ones(space.shape, dtype=bool))
    assert canvas is not None
    return canvas


def sides_of(canvas: Canvas) -> dict[str, Any]:
    """The views of the columns with two in them: the first, and that after both dorsal views."""
    is_seen = (canvas.features >= 0).any(axis=0)
    edges = np.flatnonzero(np.diff(is_seen.astype(int), prepend=0, append=0)).reshape(-1, 2)
    found = {}
    for label, (start, stop) in (("L", edges[0]), ("R", edges[3])):
        half = len(canvas.features) // 2
        found[f"{label} lateral"], found[f"{label} medial"] = (
            canvas.features[rows, start:stop] for rows in (slice(half), slice(half, None))
        )
    return found


@pytest.mark.parametrize(("hemisphere", "side"), [("L", "left"), ("R", "right")])
def test_a_vertex_is_seen_from_its_own_side(hemisphere: str, side: str) -> None:
    """The outermost vertex in the lateral view and not in the medial; the innermost the other way."""
    x = fsaverage5_arrays(f"infl_{side}")[0][:, 0] * (-1 if hemisphere == "L" else 1)
    seen = sides_of(fsaverage())
    start = 0 if hemisphere == "L" else N
    for extreme, view, other in ((x.argmax(), "lateral", "medial"), (x.argmin(), "medial", "lateral")):
        assert (seen[f"{hemisphere} {view}"] == start + extreme).any()
        assert not (seen[f"{hemisphere} {other}"] == start + extreme).any()


def test_the_front_of_the_left_hemisphere_is_left_from_outside_and_right_from_inside() -> None:
    y = fsaverage5_arrays("infl_left")[0][:, 1]
    seen = sides_of(fsaverage())
    for view, direction in (("L lateral", -1), ("L medial", 1)):
        rows, columns = np.nonzero(seen[view] >= 0)
        assert direction * np.corrcoef(columns, y[seen[view][rows, columns]])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("side", "across", "down"),
    [("lateral", (1, -1), (2, -1)), ("medial", (1, 1), (2, -1)), ("dorsal", (0, 1), (1, -1)), ("ventral", (0, -1), (1, -1))],
)  # fmt: skip
def test_every_pixel_has_a_vertex_that_lies_there(
    inflated: Mesh, side: str, across: tuple[int, int], down: tuple[int, int]
) -> None:
    """Within an edge of a triangle, on the side that faces the viewer."""
    scale = 1.1
    view = project(inflated, side, scale, np.ones(N))
    rows, columns = np.nonzero(view.features >= 0)
    found = inflated.coordinates[view.features[rows, columns]]
    for places, (axis, sign) in ((columns, across), (rows, down)):
        along = sign * inflated.coordinates[:, axis]
        pixels = (sign * found[:, axis] - along.min()) * scale + 6
        assert np.abs(pixels - places - 0.5).max() < 7
        assert np.abs(pixels - places - 0.5).mean() < 2
    assert 0.4 < len(rows) / view.features.size < 0.9


def test_pixels_are_those_of_the_mesh_in_front() -> None:
    """Two squares, one before the other: what is behind is not seen, and is from the other side."""
    square = np.array([[0, 0], [0, 20], [20, 20], [20, 0]])
    near, far = (np.column_stack([np.full(4, x), square]) for x in (-5.0, 5.0))
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    mesh = Mesh(np.vstack([near, far]), np.vstack([faces, faces[:, ::-1] + 4]))
    outside, inside = (
        set(project(mesh, side, 2.0, np.ones(8)).features.ravel()) - {-1} for side in ("lateral", "medial")
    )
    assert {frozenset(outside), frozenset(inside)} == {frozenset(range(4)), frozenset(range(4, 8))}
    assert outside == {0, 1, 2, 3}


def test_suprathreshold_values_have_the_colours_of_the_map_and_no_data_none() -> None:
    space = Surface("fsaverage5", {"L": N, "R": N})
    values = np.where(np.arange(2 * N) < N, 5.0, -5.0)
    mask = np.append(np.ones(N, dtype=bool), fsaverage5_arrays("infl_right")[0][:, 1] > 0)
    canvas = canvas_for(space, mask)
    assert canvas is not None
    picture = canvas.draw_map(np.where(mask, values, np.nan), Scale(vmax=6.0, unit="z", threshold=3.0), "a")
    shown = np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB")).astype(float)
    shown = shown[:, : canvas.features.shape[1]]
    for part, value in ((canvas.features < N, 5.0), (canvas.features >= N, -5.0)):
        colour = np.median(shown[part & (canvas.features >= 0)], axis=0)
        np.testing.assert_allclose(colour, 255 * np.array(DIVERGING(value / 12 + 0.5)[:3]), atol=6)
    assert mask[canvas.features[canvas.features >= 0]].all()
    bare = (canvas.features < 0) & (canvas.under < 0.9)
    assert np.ptp(shown[bare], axis=1).mean() < 8, "grey"


def test_coarser_surfaces_show_all_their_vertices_and_finer_ones_say_what_they_show() -> None:
    coarse = fsaverage(642, name="fsaverage3")
    assert set(coarse.features.ravel()) == {-1, *range(2 * 642)}
    fine = fsaverage(40962, name="fsaverage6")
    equal = fsaverage()
    assert "Of 40,962 vertices of a hemisphere 10,242 are drawn" in fine.form
    np.testing.assert_array_equal(
        np.where(fine.features >= N, fine.features - 40962 + N, fine.features), equal.features
    )


def test_a_hemisphere_alone_is_drawn_as_large_as_with_the_other() -> None:
    alone, both = fsaverage(labels="R"), fsaverage()
    assert len(alone.features) == pytest.approx(len(both.features), abs=2)
    assert alone.features.shape[1] < both.features.shape[1]
    n_seen = (both.features >= N).sum()
    assert (alone.features >= 0).sum() == pytest.approx(n_seen, rel=0.02)


@pytest.mark.parametrize("space", [Surface("fsaverage5", {"L": 50, "R": 60}), Surface("fsnative", {"L": N, "R": N})])
def test_other_surfaces_are_not_drawn(space: Surface) -> None:
    assert canvas_for(space, np.ones(space.shape, dtype=bool)) is None


def test_a_mesh_without_folds_or_flat_map_is_drawn_in_plain_grey(inflated: Mesh) -> None:
    view = Hemispheres({"L": Hemisphere(inflated)}).views
    assert set(view.features.ravel()) - {-1} <= set(range(N))
    assert len(set(view.features.ravel())) > 0.97 * N


def grayordinates() -> Grayordinates:
    """All but a wall of 100 vertices of each hemisphere, and voxels below."""
    return Grayordinates(brain_models({"L": N, "R": N}, wall=100, block=(8, 8, 6), size=4.0))


@pytest.mark.slow
def test_grayordinates_are_drawn_on_their_meshes_with_voxels_as_cuts_below() -> None:
    bare = grayordinates()
    mask = np.ones(bare.shape, dtype=bool)
    assert canvas_for(bare, mask) is None
    space = with_meshes(bare, find_meshes({"space": "fsaverage5"}, []))
    canvas = canvas_for(space, mask)
    assert canvas is not None
    seen = set(canvas.features.ravel()) - {-1}
    voxels = set(range(2 * (N - 100), len(mask)))
    assert len(seen & voxels) > len(voxels) / 2
    assert len(seen - voxels) > N
    mask[[*voxels]] = False
    without = canvas_for(space, mask)
    assert without is not None
    assert not set(without.features.ravel()) & voxels
    assert without.features.shape[1] < canvas.features.shape[1]
    assert sides_of(without)["L lateral"].max() < N - 100, "the left hemisphere is the first structure"


@pytest.mark.slow
def test_a_window_of_1280_by_800_pixels_has_room_for_all_views() -> None:
    """Of a surface, and of grayordinates with their cuts: beside a colour bar, no wider than the text."""
    space = with_meshes(grayordinates(), find_meshes({"space": "fsaverage5"}, []))
    below = canvas_for(space, np.ones(space.shape, dtype=bool))
    assert below is not None
    for canvas in (fsaverage(), below):
        assert len(canvas.features) <= 1.1 * HEIGHT
        assert canvas.features.shape[1] + 112 <= 1232


def test_folds_are_found_from_the_mesh(inflated: Mesh) -> None:
    """As FreeSurfer's depth has them."""
    mesh = read_mesh(find_meshes({"space": "fsaverage5"}, [])["L"])
    assert np.corrcoef(mesh.depth_of_folds, fsaverage5_arrays("sulc_left")[0])[0, 1] > 0.6


def test_what_is_inflated_beside_a_mesh_is_found(tmp_path: Path, inflated: Mesh) -> None:
    arrays = [
        GiftiDataArray(inflated.coordinates.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        GiftiDataArray(inflated.triangles.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    for kind in ("midthickness", "inflated"):
        nib.save(GiftiImage(darrays=arrays), tmp_path / f"sub-01_hemi-L_{kind}.surf.gii")
    mesh = read_mesh((tmp_path / "sub-01_hemi-L_midthickness.surf.gii",))
    found = mesh_beside(mesh, "inflated")
    assert found is not None
    assert found.sources == (tmp_path / "sub-01_hemi-L_inflated.surf.gii",)
    assert mesh_beside(mesh, "flat") is None

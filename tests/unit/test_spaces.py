"""Spaces: shape, equality and difference in words, places, file forms; areas and neighbours on a mesh."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, ScalarAxis

from sessionfx.bids.stat_maps import read_effect
from sessionfx.errors import ParticipantError
from sessionfx.report.tables import titled
from sessionfx.space.described import describe, described
from sessionfx.space.grayordinates import Grayordinates, grayordinates_of
from sessionfx.space.grid import Grid
from sessionfx.space.mesh import Mesh
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap, map_summary, on_common_voxels
from sessionfx.space.surface import Surface
from sessionfx.statistics.estimates import Estimate
from surfaces import N_VERTICES, WALL, brain_models, patch

GRID = Grid((3, 4, 5), np.diag([2.0, 2, 2, 1]))
SURFACE = Surface("fsaverage5", N_VERTICES)
GRAYORDINATES = Grayordinates(brain_models())
SPACES = {"grid": GRID, "surface": SURFACE, "grayordinates": GRAYORDINATES}
# the corners of a square in the plane, and a point above
SQUARE = Mesh(np.array([[0.0, 0, 0], [3, 0, 0], [3, 3, 0], [0, 3, 0], [9, 9, 9]]), np.array([[0, 1, 2], [0, 2, 3]]))


def map_in(space: Space, *, seed: int = 0) -> StatMap[Estimate]:
    """A map with data at all features but the first."""
    mask = np.arange(np.prod(space.shape)).reshape(space.shape) > 0
    rng = np.random.default_rng(seed)
    return StatMap(Estimate(rng.normal(size=mask.sum()), rng.uniform(1, 2, size=mask.sum()), 20.0), mask, space)


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_the_same_as_itself_in_another_process_and_no_other(name: str) -> None:
    space = SPACES[name]
    copy = pickle.loads(pickle.dumps(space))  # noqa: S301
    assert space.same_as(copy) and not space.difference_from(copy)
    for other in (space for key, space in SPACES.items() if key != name):
        assert not space.same_as(other)
        assert space.difference_from(other) == f"{space} and {other}"


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_read_back_from_its_description(name: str) -> None:
    assert SPACES[name].same_as(described(json.loads(json.dumps(describe(SPACES[name])))))


@pytest.mark.parametrize("kind", ["all", "vertices", "voxels", "apart"])
def test_brain_models_are_read_as_nibabel_reads_them(kind: str) -> None:
    axis = brain_models()
    axis = {"all": axis, "vertices": axis[:100], "voxels": axis[100:], "apart": axis[[0, 7, 44, 45, 60, 101, 107]]}[
        kind
    ]
    space = grayordinates_of(Grayordinates(axis).models.replace(b"><", b">\n  <"))
    assert space.axis == axis
    assert space.axis.nvertices == axis.nvertices and space.axis.volume_shape == axis.volume_shape
    assert grayordinates_of(space.models) is space and space.models == space.known_models


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        (b'MatrixDimension="1"', b'MatrixDimension="0,1"'), (b"</BrainModel>", b""), (b'IndexCount="45"', b""),
        (b'IndexCount="45"', b'IndexCount="44"'), (b'IndexOffset="45"', b'IndexOffset="46"'), (b">5 6 ", b">5 six "),
        (b"CORTEX_LEFT", b"CORTEX_LEFTISH"), (b"TYPE_VOXELS", b"TYPE_VERTICES"), (b">5 6 ", b">-5 6 "),
        (b"2,2,2", b"2,2"), (b"<Volume", b"<Volumes"), (b"0 0 1\n", b"0 1\n"), (b'SurfaceNumberOfVertices="50"', b""),
    ],
)  # fmt: skip
def test_brain_models_that_make_no_sense_are_refused(said: bytes, changed: bytes) -> None:
    assert said in GRAYORDINATES.models
    with pytest.raises((ValueError, LookupError)):
        grayordinates_of(GRAYORDINATES.models.replace(said, changed))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_grayordinates_are_those_that_nibabel_writes(dtype: type[np.floating]) -> None:
    """Byte by byte, though their axis is written once."""
    values = np.random.default_rng(0).normal(size=(GRAYORDINATES.shape[0], 2)).astype(dtype)
    names = ("faces > houses", "öffnen")
    image = nib.Cifti2Image(np.ascontiguousarray(values.T), (ScalarAxis(names), GRAYORDINATES.axis))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    for space in (GRAYORDINATES, grayordinates_of(GRAYORDINATES.models)):
        assert space.encoded(values, names=names)[""] == image.to_bytes()


def test_surfaces_differ_in_their_name_or_their_number_of_vertices() -> None:
    for other in (Surface("fsaverage6", N_VERTICES), Surface("fsaverage5", {"L": 50, "R": 61})):
        assert not SURFACE.same_as(other)
        assert "60 vertices of hemi-R and fsaverage" in SURFACE.difference_from(other)


def test_grayordinates_that_differ_in_their_vertices_only_say_so() -> None:
    axis = brain_models()
    axis.vertex[0] = 0
    other = Grayordinates(axis)
    assert GRAYORDINATES.difference_from(other) == "their brain models list other vertices, voxels or structures"


def test_places() -> None:
    assert GRID.place(1) == {"x": 0.0, "y": 0.0, "z": 2.0}
    assert SURFACE.place(49) == {"hemisphere": "L", "vertex": 49}
    assert SURFACE.place(50) == {"hemisphere": "R", "vertex": 0}
    assert GRAYORDINATES.place(0) == {"structure": "CORTEX_LEFT", "vertex": WALL}
    assert GRAYORDINATES.place(len(brain_models()) - 1) == {"structure": "THALAMUS_LEFT", "x": 2.0, "y": 2.0, "z": 2.0}


@pytest.mark.parametrize(
    ("name", "features", "where"),
    [
        ("grid", "voxels", "at x, y, z (mm)"),
        ("surface", "vertices", "where"),
        ("grayordinates", "grayordinates", "where"),
    ],
)
def test_a_map_is_summarised_with_the_words_of_its_space(name: str, features: str, where: str) -> None:
    stat_map = map_in(SPACES[name])
    stat_map.estimate.effect[-1] = 1000.0  # the largest z: of grayordinates a voxel
    row = titled(map_summary(stat_map, 1.5))
    assert row[features] == np.prod(SPACES[name].shape) - 1
    assert row[where] == {
        "grid": "4, 6, 8".replace(" ", "\N{NO-BREAK SPACE}"), "surface": "right hemisphere, vertex 59",
        "grayordinates": "left thalamus, 2, 2, 2 mm",
    }[name]  # fmt: skip


def test_maps_of_different_spaces_are_not_combined() -> None:
    maps = [map_in(SURFACE), map_in(Surface("fsaverage6", N_VERTICES))]
    with pytest.raises(
        ParticipantError, match=r"first \(fsaverage5, .*\) and second \(fsaverage6, .*cannot be combined"
    ):
        on_common_voxels(maps, ["first", "second"])


def test_a_variance_that_is_rounding_error_is_none(tmp_path: Path) -> None:
    """As nilearn writes it where all data are 0."""
    effect, variance = np.full(SURFACE.shape, 7e-14), np.full(SURFACE.shape, 1.5e-27)
    effect[3:], variance[3:], variance[5] = 0.1, 1e-6, np.nan
    for statistic, values in {"effect": effect, "variance": variance}.items():
        for label, content in SURFACE.encoded(values.astype(np.float32)).items():
            (tmp_path / f"hemi-{label}_space-fsaverage5_stat-{statistic}_statmap.gii").write_bytes(content)
    paths = [tmp_path / f"space-fsaverage5_stat-{statistic}_statmap.gii" for statistic in ("effect", "variance")]
    mask = read_effect(*paths)[2]
    assert np.flatnonzero(~mask).tolist() == [0, 1, 2, 5]


@pytest.mark.parametrize("name", ["surface", "grayordinates"])
def test_what_needs_a_voxel_grid_is_declined(name: str) -> None:
    with pytest.raises(ParticipantError, match="is no voxel grid"):
        _ = map_in(SPACES[name]).grid


def test_equal_maps_are_equal_files() -> None:
    for space in SPACES.values():
        values = np.arange(np.prod(space.shape), dtype=np.float32).reshape(space.shape)
        first, second = (space.encoded(values.copy(), ("t test", (3.0,)), ("t",)) for _ in range(2))
        assert first == second


def test_a_gifti_file_says_its_hemisphere_and_what_its_arrays_are() -> None:
    files = SURFACE.encoded(np.ones((110, 2), np.float32), ("z score", ()), ("a", "b"))
    assert [*files] == ["L", "R"]
    image = nib.GiftiImage.from_bytes(files["R"])
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert [(array.meta["Name"], array.dims, array.intent) for array in image.darrays] == [
        ("a", [60], 5),
        ("b", [60], 5),
    ]


def test_areas_are_thirds_of_triangles_and_neighbours_share_an_edge() -> None:
    np.testing.assert_allclose(SQUARE.areas, [3, 1.5, 3, 1.5, 0])
    assert SQUARE.areas.sum() == 9
    expected = np.zeros((5, 5), dtype=bool)
    for first, second in [(0, 1), (1, 2), (2, 0), (2, 3), (3, 0)]:
        expected[first, second] = expected[second, first] = True
    np.testing.assert_array_equal(SQUARE.adjacency.toarray(), expected)


# A sheet for each hemisphere of N_VERTICES
MESHES = {"L": patch(5, 10, seed=1), "R": patch(6, 10, seed=2)}


def test_hemispheres_are_one_after_the_other_without_an_edge_between_them() -> None:
    surface = SURFACE.with_meshes(MESHES)
    assert surface == SURFACE and surface.adjacency is not None and surface.sizes is not None
    adjacency = surface.adjacency.toarray()
    assert adjacency.dtype == bool
    for hemi in "LR":
        part = surface.part(hemi)
        np.testing.assert_array_equal(adjacency[part, part], MESHES[hemi].adjacency.toarray())
        np.testing.assert_array_equal(surface.sizes[part], MESHES[hemi].areas)
    assert not adjacency[:50, 50:].any() and surface.is_on_surface.all()


def test_without_a_mesh_of_each_hemisphere_there_are_no_neighbours() -> None:
    for space in (SURFACE, GRAYORDINATES, SURFACE.with_meshes({"L": MESHES["L"]})):
        assert space.adjacency is None and space.sizes is None
    assert Surface("fsaverage5", {"L": 50}).with_meshes(MESHES).adjacency.shape == (50, 50)
    with pytest.raises(ParticipantError, match=r"has 60 vertices, and the data have 50 .*Provide the mesh"):
        SURFACE.with_meshes({"L": MESHES["R"]})


def test_neighbours_among_grayordinates_share_an_edge_or_within_a_structure_a_face() -> None:
    # two structures of voxels that touch, whose voxels are not in order
    voxels = np.array([[3, 1, 1], [1, 1, 1], [2, 1, 1], [2, 2, 1], [4, 1, 1], [4, 2, 2]])
    below = BrainModelAxis(
        ["THALAMUS_LEFT"] * 4 + ["CAUDATE_LEFT"] * 2,
        voxel=voxels,
        affine=np.diag([2.0, 2, 3, 1]),
        volume_shape=(6, 6, 6),
    )
    left, right, _ = (model for _, _, model in brain_models().iter_structures())
    axis = BrainModelAxis(
        np.concatenate([left.name, right.name, below.name]),
        voxel=np.vstack([left.voxel, right.voxel, below.voxel]),
        vertex=np.concatenate([left.vertex, right.vertex, below.vertex]),
        affine=below.affine, volume_shape=below.volume_shape, nvertices=brain_models().nvertices,
    )  # fmt: skip
    space = Grayordinates(axis).with_meshes(MESHES)
    expected = np.zeros((len(axis), len(axis)), dtype=bool)
    for n in range(2):
        part = slice(0, 45) if n == 0 else slice(45, 100)
        expected[part, part] = MESHES["LR"[n]].adjacency.toarray()[WALL:, WALL:]
    for first, second in [(0, 2), (1, 2), (2, 3)]:
        expected[100 + first, 100 + second] = expected[100 + second, 100 + first] = True
    assert space.adjacency is not None and space.sizes is not None
    np.testing.assert_array_equal(space.adjacency.toarray(), expected)
    np.testing.assert_array_equal(space.sizes[:45], MESHES["L"].areas[WALL:])
    np.testing.assert_allclose(space.sizes[100:], 12)
    assert space.is_on_surface.sum() == 100 and space == Grayordinates(axis)


def test_voxels_have_the_volume_of_the_grid() -> None:
    assert GRID.adjacency is None and GRID.sizes.shape == (60,)
    np.testing.assert_allclose(GRID.sizes, 8)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("grid", "Voxels: no voxel of 3 voxels; see --signal-scaling and voxelFWE."),
        ("surface", "Vertices: no vertex of 3 vertices; see --signal-scaling and voxelFWE."),
        ("grayordinates", "Grayordinates: no grayordinate of 3 grayordinates; see --signal-scaling and voxelFWE."),
    ],
)
def test_sentences_on_voxels_are_said_of_what_a_space_has(space: str, said: str) -> None:
    assert SPACES[space].in_words("Voxels: no voxel of 3 voxels; see --signal-scaling and voxelFWE.") == said

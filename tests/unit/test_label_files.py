"""Label files of surfaces are read with their names, and one that does not fit the data is refused by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, ScalarAxis
from nibabel.freesurfer import write_annot
from nibabel.gifti import GiftiDataArray, GiftiImage

from label_files import NAMES, write_dlabel, write_labels, write_pair
from sessionfx.bids.atlas import Atlas, atlases_of, read_atlas, read_atlases
from sessionfx.bids.label_files import other_hemisphere, stem_of
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.space.grid import Grid
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import Surface
from surface_group import MESHES, N_VERTICES, SURFACE, grayordinates
from surfaces import brain_models, write_gifti

# Axes of the vertices and voxels of `grayordinates`, of which the first vertices are there too
models = partial(brain_models, N_VERTICES, wall=0, block=(3, 3, 3))


def write_annots(folder: Path, rows: dict[str, np.ndarray], names: dict[str, list[str]]) -> Path:
    for side, own in rows.items():
        # colours of rows of the table must differ
        table = np.array([[number, 10, 20, 0, 0] for number in range(1, len(names[side]) + 1)])
        write_annot(folder / f"{side}.aparc.annot", own, table, names[side], fill_ctab=True)
    return folder / "lh.aparc.annot"


def halves(**values: int) -> dict[str, np.ndarray]:
    """Label the first and second half of each hemisphere."""
    found = {}
    for label, n in N_VERTICES.items():
        found[label] = np.repeat([values[f"{label}1"], values[f"{label}2"]], [n // 2, n - n // 2])
    return found


def read_one(path: Path, table: Path | None = None) -> Atlas:
    return read_atlas(path, table)


def test_numbers_of_a_pair_are_regions(tmp_path: Path) -> None:
    """Equal names in both hemispheres: one region, as for nilearn's masker of surfaces."""
    atlas = read_one(write_pair(tmp_path, halves(L1=1, L2=0, R1=1, R2=2)))
    assert atlas.names == {1: "V1", 2: "MT"}
    assert atlas.space == Surface("sphere", N_VERTICES)
    assert [file.name[:6] for file in atlas.files] == ["hemi-L", "hemi-R"]
    assert atlas.label == "own"
    text = atlas.text_on(SURFACE)
    assert text == "Atlas own: 2 regions; 1 of them in both hemispheres, as one region."


def test_either_file_of_a_pair_names_both(tmp_path: Path) -> None:
    left = write_pair(tmp_path, halves(L1=1, L2=0, R1=1, R2=2))
    right = other_hemisphere(left)
    assert read_one(right).digest == read_one(left).digest
    with pytest.raises(CommandLineError, match="names the files of both hemispheres"):
        atlases_of(read_atlases([left, right], []), write_maps(tmp_path), "sphere")


def test_a_number_that_means_two_things_is_two_regions(tmp_path: Path) -> None:
    names = {side: {0: "???", 1: f"{side}_V1", 2: f"{side}_MT"} for side in "LR"}
    atlas = read_one(write_pair(tmp_path, halves(L1=1, L2=2, R1=1, R2=2), names))
    assert atlas.names == {1: "L_V1", 2: "L_MT", 3: "R_V1", 4: "R_MT"}
    assert atlas.on(SURFACE).sizes.tolist() == [81, 81, 81, 81]


def test_annotations_of_freesurfer_have_regions_of_each_hemisphere(tmp_path: Path) -> None:
    rows = {"lh": halves(L1=1, L2=2, R1=0, R2=0)["L"], "rh": halves(L1=0, L2=0, R1=2, R2=-1)["R"]}
    names = ["unknown", "bankssts", "cuneus"]
    atlas = read_one(write_annots(tmp_path, rows, {"lh": names, "rh": names}))
    assert atlas.names == {2: "L bankssts", 3: "L cuneus", 6: "R cuneus"}
    assert atlas.label == "aparc"
    assert atlas.on(SURFACE).sizes.tolist() == [81, 81, 81]
    # nibabel's own reading of the same file
    own, _, _ = nib.freesurfer.read_annot(tmp_path / "lh.aparc.annot")
    np.testing.assert_array_equal(atlas.labels[: N_VERTICES["L"]], own + 1)


def test_names_come_from_the_file_or_from_a_table(tmp_path: Path) -> None:
    nameless = {0: "???"}
    path = write_pair(tmp_path, halves(L1=1, L2=0, R1=1, R2=2), {"L": nameless, "R": nameless})
    with pytest.raises(CommandLineError, match=r"space-sphere_atlas-own_dseg\.tsv"):
        read_one(path)
    table = tmp_path / "space-sphere_atlas-own_dseg.tsv"
    table.write_text("index\tname\n1\tone\n2\ttwo\n")
    assert read_one(path).names == {1: "one", 2: "two"}
    other = tmp_path / "other.tsv"
    other.write_text("index\tname\n1\tuno\n2\tdue\n")
    assert read_one(path, other).names == {1: "uno", 2: "due"}
    assert read_one(path, other).files[-1] == other


def test_medial_walls_and_unknown_vertices_are_no_regions(tmp_path: Path) -> None:
    names = {0: "Background+FreeSurfer_Defined_Medial_Wall", 1: "Medial_wall", 2: "MT", 3: "Unknown"}
    path = write_pair(tmp_path, halves(L1=1, L2=2, R1=3, R2=0), {"L": names, "R": names})
    assert read_one(path).names == {2: "MT"}


def test_dense_labels_are_matched_by_structure_and_number(tmp_path: Path) -> None:
    """Another order of structures, more vertices than the data have: all of both hemispheres."""
    n, rng = N_VERTICES, np.random.default_rng(0)
    left, right, thalamus = (part for _, _, part in models().iter_structures())
    of = {"R": rng.integers(0, 3, n["R"]), "T": rng.integers(0, 3, 27), "L": rng.integers(0, 3, n["L"])}
    path = write_dlabel(tmp_path / "x.dlabel.nii", np.concatenate([*of.values()]), right + thalamus + left)
    space = grayordinates()
    regions = read_one(path).on(space)
    for index, (model, where, structure) in enumerate(space.axis):
        expected = (
            of["L" if structure.endswith("CORTEX_LEFT") else "R"][where]
            if model == "CIFTI_MODEL_TYPE_SURFACE"
            else of["T"].reshape(3, 3, 3)[tuple(where)]
        )
        assert regions.numbers[index] == expected


def test_an_atlas_of_the_cortex_is_silent_below_it(tmp_path: Path) -> None:
    """As most .dlabel.nii files are: what it does not have is said, not guessed."""
    path = write_pair(tmp_path, halves(L1=1, L2=1, R1=2, R2=2))
    atlas, space = read_one(path), grayordinates()
    regions = atlas.on(space)
    assert (regions.numbers[~space.is_on_surface] == 0).all()
    assert regions.sizes.tolist() == [152, 152]
    assert "none in THALAMUS_LEFT, which it does not have (27 grayordinates)" in atlas.text_on(space)


@pytest.mark.parametrize(
    ("name", "stem", "other"),
    [
        ("hemi-L_space-x_atlas-y_dseg.label.gii", "space-x_atlas-y_dseg", "hemi-R_space-x_atlas-y_dseg.label.gii"),
        ("tpl-fsaverage_hemi-R_den-10k_dseg.label.gii", "tpl-fsaverage_den-10k_dseg",
         "tpl-fsaverage_hemi-L_den-10k_dseg.label.gii"),
        ("lh.aparc.a2009s.annot", "aparc.a2009s", "rh.aparc.a2009s.annot"),
        ("Q1-Q6.R.aparc.32k_fs_LR.label.gii", "Q1-Q6.aparc.32k_fs_LR", "Q1-Q6.L.aparc.32k_fs_LR.label.gii"),
    ],
)  # fmt: skip
def test_hemispheres_are_told_by_names(tmp_path: Path, name: str, stem: str, other: str) -> None:
    assert stem_of(tmp_path / name) == stem
    assert other_hemisphere(tmp_path / name) == tmp_path / other
    assert other_hemisphere(tmp_path / other) == tmp_path / name


def test_a_name_without_hemisphere_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "atlas-own_dseg.label.gii", np.ones(5), NAMES)
    with pytest.raises(CommandLineError, match="does not say which hemisphere"):
        read_one(path)


def test_peaks_have_the_name_of_their_region_or_of_one_near_along_the_mesh(tmp_path: Path) -> None:
    beside = int(MESHES["L"].adjacency[[60]].indices[0])
    far = int(np.linalg.norm(MESHES["L"].coordinates - MESHES["L"].coordinates[60], axis=1).argmax())
    labels = {label: np.zeros(n, dtype=int) for label, n in N_VERTICES.items()}
    labels["L"][60], labels["R"][60] = 1, 2
    atlas = read_one(write_pair(tmp_path, labels))
    edge = {side: np.linalg.norm(mesh.coordinates[60] - mesh.coordinates[beside]) for side, mesh in MESHES.items()}
    places = [{"hemisphere": side, "vertex": vertex} for side in "LR" for vertex in (60, beside, far)]
    for length in (5.9, 6.1):
        meshes = {side: Mesh(mesh.coordinates * length / edge[side], mesh.triangles) for side, mesh in MESHES.items()}
        near = length < 6
        expected = ["V1", "near V1" if near else "", "", "MT", "near MT" if near else "", ""]
        assert atlas.names_at(places, Surface("sphere", N_VERTICES, meshes)) == expected
    # through the sphere the other side is near, along it not
    flat = {side: Mesh(mesh.coordinates * [1, 1, 1e-3], mesh.triangles) for side, mesh in MESHES.items()}
    top, bottom = (int(choose(MESHES["L"].coordinates[:, 2])) for choose in (np.argmax, np.argmin))
    labels["L"][[60, top]] = 0, 1
    atlas = read_one(write_pair(tmp_path, labels))
    assert np.linalg.norm(flat["L"].coordinates[top] - flat["L"].coordinates[bottom]) < 1
    assert atlas.names_at([{"hemisphere": "L", "vertex": bottom}], Surface("sphere", N_VERTICES, flat)) == [""]
    inside = grayordinates()
    assert atlas.names_at([{"structure": "CORTEX_RIGHT", "vertex": 60}], inside) == ["MT"]


# What is refused


def write_maps(folder: Path, space: str = "sphere") -> list[Path]:
    return [
        write_gifti(folder / f"sub-01_hemi-{label}_space-{space}_statmap.gii", np.zeros((1, n)))
        for label, n in N_VERTICES.items()
    ]


def write_scalars(folder: Path) -> Path:
    space = grayordinates()
    path = folder / "sub-01_space-fsLR_den-91k_statmap.dscalar.nii"
    nib.save(Cifti2Image(np.zeros((1, len(space.axis))), (ScalarAxis(["x"]), space.axis)), path)
    return path


def too_few(folder: Path) -> Path:
    return write_pair(folder, {"L": np.ones(50), "R": np.ones(N_VERTICES["R"])})


def left_alone(folder: Path) -> Path:
    path = write_pair(folder, halves(L1=1, L2=1, R1=1, R2=1))
    other_hemisphere(path).unlink()
    return path


def elsewhere(folder: Path) -> Path:
    return write_pair(folder, halves(L1=1, L2=1, R1=1, R2=1), name="tpl-fsLR_hemi-{}_atlas-own_dseg.label.gii")


def volume(folder: Path) -> Path:
    path = folder / "atlas-own_dseg.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)), path)
    path.with_name("atlas-own_dseg.tsv").write_text("index\tname\n1\tone\n")
    return path


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (too_few, ["hemi-L has 50 vertices there, and 162 in the data", "on the surface that the data were sampled to"]),
        (left_alone, ["it has nothing of hemi-R", "hemi-R_space-sphere_atlas-own_dseg.label.gii is not there", "--hemi"]),
        (elsewhere, ["is on fsLR", "Give one of sphere"]),
        (volume, ["which are on surfaces", ".label.gii", ".annot"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_surface_is_refused(tmp_path: Path, write: object, words: list[str]) -> None:
    path, maps = write(tmp_path), write_maps(tmp_path)  # type: ignore[operator]
    with pytest.raises(CommandLineError) as raised:
        atlases_of(read_atlases([path], []), maps, "sphere")
    for word in ["--atlas", path.name, maps[0].name, *words]:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        (models(further=5), "hemi-L has 167 vertices there, and 162 in the data"),
        (models(wall=20), "it lacks 10 of the 152 vertices of L"),
        (models(size=3.0), "their voxels differ: voxels of 3×3×3 and 2×2×2 mm"),
        (models()[: N_VERTICES["L"]], "it has nothing of hemi-R"),
    ],
)
def test_what_does_not_fit_grayordinates_is_refused(tmp_path: Path, axis: BrainModelAxis, words: str) -> None:
    path, maps = write_dlabel(tmp_path / "own.dlabel.nii", np.ones(len(axis)), axis), write_scalars(tmp_path)
    with pytest.raises(CommandLineError) as raised:
        atlases_of(read_atlases([path], []), [maps], "fsLR")
    for word in (path.name, maps.name, words):
        assert word in str(raised.value)
    with pytest.raises(ParticipantError, match=r"own\.dlabel\.nii"):
        read_one(path).on(grayordinates())


def test_labels_on_vertices_are_none_of_volumes(tmp_path: Path) -> None:
    path = too_few(tmp_path)
    with pytest.raises(CommandLineError, match="which are volumes"):
        atlases_of(read_atlases([path], []), [Path("sub-01_bold.nii.gz")], "MNI")
    with pytest.raises(ParticipantError, match="its labels are of vertices"):
        read_one(path).on(Grid((2, 2, 2), np.eye(4)))


def test_each_space_takes_its_own_of_several(tmp_path: Path) -> None:
    """Files of one label too: they name the same regions in different spaces."""
    own, dense = write_pair(tmp_path / "a", halves(L1=1, L2=2, R1=1, R2=2)), tmp_path / "b_seg.dlabel.nii"
    write_dlabel(dense, np.ones(len(models())), models())
    atlases = read_atlases([volume(tmp_path), own], [])
    assert [atlas.label for atlas in atlases] == ["own", "own"]
    maps = write_maps(tmp_path)
    assert atlases_of(atlases, maps, "sphere") == atlases[1:]
    assert atlases_of(atlases, [Path("x.nii.gz")], "MNI") == atlases[:1]
    both = read_atlases([own, dense], [])
    assert atlases_of(both, [write_scalars(tmp_path)], "sphere") == both
    again = write_pair(tmp_path / "c", halves(L1=1, L2=2, R1=1, R2=2))
    with pytest.raises(CommandLineError, match="are both called 'own'"):
        atlases_of(read_atlases([own, again], []), maps, "sphere")


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.full(162, 0.5), "no whole numbers"), (np.zeros(162), "all its values are 0")],
)
def test_what_are_no_labels_is_refused(tmp_path: Path, values: np.ndarray, words: str) -> None:
    for label in "LR":
        array = GiftiDataArray(values.astype(np.float32))
        nib.save(GiftiImage(darrays=[array]), tmp_path / f"hemi-{label}_atlas-x_dseg.gii")
    with pytest.raises(CommandLineError, match=words):
        read_one(tmp_path / "hemi-L_atlas-x_dseg.gii")


def test_several_maps_of_labels_and_scalars_are_refused(tmp_path: Path) -> None:
    axis = models()
    with pytest.raises(CommandLineError, match="has 2 maps of labels"):
        read_one(write_dlabel(tmp_path / "x.dlabel.nii", np.ones((2, len(axis))), axis))
    with pytest.raises(CommandLineError, match="has no labels"):
        read_one(write_scalars(tmp_path).rename(tmp_path / "y.dlabel.nii"))


def test_a_table_for_annotations_is_refused(tmp_path: Path) -> None:
    rows = dict.fromkeys(("lh", "rh"), np.ones(162, dtype=int))
    path = write_annots(tmp_path, rows, {side: ["unknown", "a"] for side in rows})
    with pytest.raises(CommandLineError, match="which has names itself"):
        read_one(path, tmp_path / "names.tsv")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name in ("hemi-L_x.label.gii", "lh.x.annot", "x.dlabel.nii"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(CommandLineError, match=name):
            read_one(tmp_path / name)

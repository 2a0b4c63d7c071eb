"""Finding meshes: which file is taken of those there are, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer import write_geometry
from nilearn.datasets import load_fsaverage

from sessionfx.bids.meshes import find_meshes, fsaverage5_files, missing_mesh, read_mesh, with_meshes
from sessionfx.errors import ParticipantError
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import Surface
from surfaces import patch, write_surface

MESH = patch(4, 5)
OWN = "sub-01/anat/sub-01_hemi-{}_{}.surf.gii"


@pytest.fixture(autouse=True)
def no_templateflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = tmp_path / "templateflow"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    return home


def place(root: Path, *names: str) -> None:
    """Write a surface of each hemisphere in the place of each name."""
    for name in names:
        for hemi in "LR":
            write_surface(root / name.format(hemi), MESH)


def found(root: Path, participant: str | None = None, **entities: str) -> Mapping[str, list[str]]:
    paths = find_meshes(entities, [root], participant)
    return {hemi: [path.name for path in of_hemi] for hemi, of_hemi in paths.items()}


def test_fsaverage5_is_that_of_the_wheel_of_nilearn() -> None:
    files = find_meshes({"space": "fsaverage5"}, [])
    assert files == find_meshes({"space": "fsaverage", "den": "10k"}, [])
    assert all(path.is_file() for path in fsaverage5_files().values())
    fsaverage = load_fsaverage("fsaverage5")
    for hemi, side in (("L", "left"), ("R", "right")):
        mesh = read_mesh(files[hemi])
        white, pial = (fsaverage[kind].parts[side].coordinates for kind in ("white_matter", "pial"))
        np.testing.assert_allclose(mesh.coordinates, (np.float64(white) + pial) / 2)
        np.testing.assert_array_equal(mesh.triangles, fsaverage["pial"].parts[side].faces)
    assert {("L", "inflated"), ("R", "inflated")} <= fsaverage5_files().keys()


def test_the_surface_that_measures_the_cortex_best_is_taken(tmp_path: Path) -> None:
    for kinds, expected in (
        (["inflated", "sphere"], []),
        (["pial"], ["pial"]),
        (["white"], ["white", "pial"]),
        (["midthickness"], ["midthickness"]),
    ):
        place(tmp_path, *(OWN.replace("_{}.", f"_{kind}.") for kind in kinds))
        names = [f"sub-01_hemi-L_{kind}.surf.gii" for kind in expected]
        assert found(tmp_path, "01", space="fsnative").get("L", []) == names
    assert not found(tmp_path, space="fsnative") and not found(tmp_path, "01", space="fsLR", den="32k")


def test_a_participant_s_own_comes_before_the_dataset_s_and_templateflow_s(
    tmp_path: Path, no_templateflow: Path
) -> None:
    asked = {"space": "fsLR", "den": "91k"}
    assert not found(tmp_path, "01", **asked)
    name = "tpl-fsLR_den-{}_hemi-{{}}_midthickness.surf.gii"
    place(no_templateflow / "tpl-fsLR", name.format("32k"), name.format("59k"))
    assert found(tmp_path, "01", **asked)["R"] == ["tpl-fsLR_den-32k_hemi-R_midthickness.surf.gii"]
    assert found(tmp_path, space="fsLR", den="170k")["R"] == ["tpl-fsLR_den-59k_hemi-R_midthickness.surf.gii"]
    place(tmp_path, "hemi-{}_space-fsLR_den-32k_midthickness.surf.gii")
    assert found(tmp_path, "01", **asked)["L"] == ["hemi-L_space-fsLR_den-32k_midthickness.surf.gii"]
    own = "sub-01/anat/sub-01_hemi-{}_space-fsLR_den-32k{}_midthickness.surf.gii"
    place(tmp_path, own.format("{}", "_desc-hcp"), own.format("{}", ""))
    assert found(tmp_path, "01", **asked)["L"] == ["sub-01_hemi-L_space-fsLR_den-32k_midthickness.surf.gii"]
    assert found(tmp_path, **asked)["L"] == ["hemi-L_space-fsLR_den-32k_midthickness.surf.gii"]


def test_templates_of_freesurfer_that_fmriprep_copied_are_found(tmp_path: Path) -> None:
    for name in ("fsaverage6", "sub-01"):
        folder = tmp_path / "sourcedata" / "freesurfer" / name / "surf"
        folder.mkdir(parents=True)
        for half in ("lh", "rh"):
            for offset, kind in enumerate(("white", "pial")):
                write_geometry(folder / f"{half}.{kind}", MESH.coordinates + offset, MESH.triangles)
    files = find_meshes({"space": "fsaverage6"}, [tmp_path])
    assert [path.name for path in files["R"]] == ["rh.white", "rh.pial"]
    np.testing.assert_allclose(read_mesh(files["R"]).coordinates, MESH.coordinates + 0.5, atol=1e-5)
    assert found(tmp_path, "01", space="fsnative")["L"] == ["lh.white", "lh.pial"]


def test_placeholders_of_templateflow_and_single_hemispheres_are_no_mesh(tmp_path: Path) -> None:
    for hemi in "LR":
        (tmp_path / f"tpl-fsLR_den-32k_hemi-{hemi}_midthickness.surf.gii").touch()
    assert not found(tmp_path, space="fsLR", den="32k")
    write_surface(tmp_path / "hemi-L_space-fsLR_den-32k_midthickness.surf.gii", MESH)
    assert not found(tmp_path, space="fsLR", den="32k")
    assert [*found(tmp_path, space="fsLR", den="32k", hemi="L")] == ["L"]


def test_what_is_no_mesh_of_the_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_hemi-L_midthickness.surf.gii"
    for content, message in (
        (b"no XML", r"midthickness.surf.gii cannot be read"),
        (nib.GiftiImage().to_bytes(), "holds no mesh of vertices and triangles"),
    ):
        path.write_bytes(content)
        with pytest.raises(ParticipantError, match=message):
            read_mesh((path,))
    write_surface(path, Mesh(MESH.coordinates, MESH.triangles + 1))
    with pytest.raises(ParticipantError, match="holds no mesh"):
        read_mesh((path,))
    write_surface(path, MESH)
    other = write_surface(tmp_path / "pial.surf.gii", patch(5, 4))
    with pytest.raises(ParticipantError, match="other triangles"):
        read_mesh((path, other))
    with pytest.raises(ParticipantError, match=r"midthickness.surf.gii has 20 vertices, and the data have 21"):
        with_meshes(Surface("fsnative", {"L": 21}), {"L": (path,)})
    packed = tmp_path / "packed.gii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_mesh((packed,)).triangles, MESH.triangles)


@pytest.mark.parametrize(
    ("entities", "named"),
    [
        ({"space": "fsnative"}, "sub-…_hemi-L_midthickness.surf.gii and that of hemi-R, into their anat/"),
        ({"space": "fsaverage6"}, "tpl-fsaverage/tpl-fsaverage_hemi-L_den-41k_midthickness.surf.gii"),
        ({"space": "fsLR", "den": "91k"}, "hemi-L_space-fsLR_den-32k_midthickness.surf.gii and that of hemi-R into"),
    ],
)
def test_the_file_that_is_missing_is_named(entities: dict[str, str], named: str) -> None:
    assert named in missing_mesh(entities)

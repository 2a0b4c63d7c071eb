"""The program on surfaces: maps of sessions and participants as files, fixed effects, resuming, and what is declined."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.glm import compute_fixed_effects

from bids_trees import EVENTS, make_tree, select
from calls import call_main, times
from label_files import write_pair
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.bids.names import PYBIDS_CONFIG, files_of
from sessionfx.bids.stat_maps import read_estimate, read_wald_test
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.cli import main
from sessionfx.options import FirstLevelModel as Model
from sessionfx.participant.run import analyse_run
from surfaces import (
    N_VERTICES,
    WALL,
    assert_same,
    brain_models,
    by_nilearn,
    mesh_of,
    opened_in_nilearn,
    patch,
    surface_study,
    values,
    write_surface,
)  # fmt: skip

CONTRAST = "go - stop"
F_TEST = "F:any = go; stop"
SPACES = {"fsaverage5": ("space-fsaverage5", ".gii"), "fsLR": ("space-fsLR_den-91k", ".dscalar.nii")}
FUNC = "sub-01/func/sub-01_task-a"


def analyse(study: Path, output: Path, space: str, *options: str) -> int:
    asked = ["--contrast", CONTRAST, "--contrast", F_TEST, "--session-contrast", "mean", "--nprocs", "1"]
    return main([str(study), str(output), "participant", "--space", space, *asked, *options])


def map_path(output: Path, space: str, statistic: str, *, contrast: str = "goMinusStop", session: str = "") -> Path:
    """Path of a map, of a session or the mean over sessions, of hemispheres the name of both together."""
    entities, extension = SPACES[space]
    folder = output / "sub-01" / (f"ses-{session}/func" if session else "func")
    start = f"sub-01_ses-{session}" if session else "sub-01"
    over = "" if session else "_sessions-mean"
    name = f"{start}_task-a_{entities}_contrast-{contrast}{over}_stat-{statistic}_desc-fixedEffects_statmap{extension}"
    return folder / name


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surface_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def output(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both spaces in one output folder, with pages."""
    folder = tmp_path_factory.mktemp("surface-out") / "sessionfx"
    for space in SPACES:
        assert analyse(study, folder, space) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("session", ["1", "2", ""])
def test_every_map_has_files_of_its_form_and_a_sidecar(output: Path, space: str, session: str) -> None:
    for contrast, statistics in {"goMinusStop": ("effect", "variance", "t", "z", "p"), "any": ("F", "z", "p")}.items():
        for statistic in statistics:
            path = map_path(output, space, statistic, contrast=contrast, session=session)
            for file in files_of(path):
                assert file.is_file(), file
                sidecar = json.loads(file.with_name(f"{file.name.partition('.')[0]}.json").read_text())
                assert sidecar["StatisticType"] == statistic
    assert not [*output.rglob("*.nii.gz")], "no volumes, no mean image"
    assert not [path.name for path in output.rglob("*statmap.json") if "voxel" in path.read_text()]


@pytest.mark.slow
def test_gifti_maps_open_in_nilearn(output: Path) -> None:
    for statistic in ("effect", "z", "p"):
        found = values(opened_in_nilearn(map_path(output, "fsaverage5", statistic, session="1")))
        assert found.shape == (sum(N_VERTICES.values()),)
        outside = found[[*range(WALL), *range(50, 50 + WALL)]]
        assert (outside == (1 if statistic == "p" else 0)).all()
    left, _ = files_of(map_path(output, "fsaverage5", "t", session="1"))
    image = nib.load(left)
    assert image.meta["AnatomicalStructurePrimary"] == "CortexLeft"
    (array,) = image.darrays
    assert (array.meta["Name"], array.intent) == ("t", 3)


@pytest.mark.slow
def test_scalars_have_the_axis_of_the_series(output: Path) -> None:
    for statistic in ("effect", "z"):
        image = nib.load(map_path(output, "fsLR", statistic))
        assert image.header.get_axis(1) == brain_models()
        assert [*image.header.get_axis(0).name] == [statistic]
        assert image.nifti_header.get_intent()[0] == "ConnDenseScalar"
    image = nib.load(map_path(output, "fsLR", "effects", contrast="any"))
    assert [*image.header.get_axis(0).name] == ["go", "stop"]


@pytest.mark.slow
def test_maps_of_a_session_equal_first_level_model(study: Path, output: Path) -> None:
    """Files of GIFTI have single precision."""
    (run, _) = select(study, space="fsaverage5").every_run
    fitted = analyse_run(run, [parse_contrast(CONTRAST)], Model())
    maps = by_nilearn([fitted], CONTRAST, mesh_of(N_VERTICES))
    for statistic, name in {"effect": "effect_size", "variance": "effect_variance", "z": "z_score"}.items():
        ours = values(opened_in_nilearn(map_path(output, "fsaverage5", statistic, session="1")))[fitted.mask]
        assert_same(ours, maps[name], tolerance=1e-7)


@pytest.mark.slow
def test_fixed_effects_over_sessions_equal_nilearns(output: Path) -> None:
    """On what the files of the sessions hold, with the degrees of freedom of each."""
    paths = [
        {name: map_path(output, "fsaverage5", name, session=session) for name in ("effect", "variance", "dof")}
        for session in "12"
    ]
    sessions = [read_estimate(*of_session.values()) for of_session in paths]
    np.testing.assert_array_equal(sessions[0].mask, sessions[1].mask)
    images = [
        [opened_in_nilearn(of_session[statistic]) for of_session in paths] for statistic in ("effect", "variance")
    ]
    effect, variance, t, _ = compute_fixed_effects(*images, dofs=[session.estimate.dof for session in sessions])
    for statistic, theirs in {"effect": effect, "variance": variance, "t": t}.items():
        ours = values(opened_in_nilearn(map_path(output, "fsaverage5", statistic)))[sessions[0].mask]
        np.testing.assert_allclose(ours, values(theirs).ravel()[sessions[0].mask], rtol=2e-7)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_a_call_that_reads_maps_back_gives_the_same_as_one_that_made_them(
    study: Path, output: Path, tmp_path: Path, space: str
) -> None:
    """A session contrast that is asked for later: sessions are not fitted again, and the numbers are the same bits."""
    assert analyse(study, tmp_path / "later", space, "--no-report") == 0
    before = times(tmp_path / "later", "sub-01/ses-*/func/*")
    for folder, options in ((tmp_path / "later", ()), (tmp_path / "at-once", ())):
        assert analyse(study, folder, space, "--session-contrast", "ses-2 - ses-1", "--no-report", *options) == 0
    assert times(tmp_path / "later", "sub-01/ses-*/func/*") == before
    later, at_once = (
        {path.name: path.read_bytes() for path in folder.rglob("*statmap*")}
        for folder in (tmp_path / "later", tmp_path / "at-once")
    )
    assert later == at_once
    test = {
        name: map_path(output, space, name, contrast="any", session="1") for name in ("effects", "covariance", "dof")
    }
    read = read_wald_test(*test.values())
    np.testing.assert_allclose(
        read.estimate.f, read_surfaces(files_of(map_path(output, space, "F", contrast="any", session="1"))).data[0][read.mask],
        rtol=1e-6,
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_has_numbers_and_says_why_maps_are_not_drawn(output: Path) -> None:
    page = (output / "sub-01.html").read_text()
    assert "There is no mesh to draw vertices of fsaverage5" in page and "no mesh to draw grayordinates of" in page
    assert "fitted (vertices)" in page and "fitted (grayordinates)" in page
    assert "Data on the cortical surface were not smoothed" in page


@pytest.mark.slow
def test_the_page_shows_maps_of_fsaverage(tmp_path: Path) -> None:
    study = surface_study(tmp_path / "study", n={"L": 42, "R": 162})
    assert analyse(study, tmp_path / "out", "fsaverage5") == 0
    pictures = re.findall(r'alt="([^"]+)"', (tmp_path / "out" / "sub-01.html").read_text())
    assert {"z map, ses-1", "Effect map, ses-1", "z map, mean", "How many sessions cover the vertices"} <= {*pictures}


@pytest.mark.slow
def test_smoothing_along_a_mesh_of_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was reached is in sidecars and on the page; another mesh is another result."""
    root = surface_study(tmp_path / "study", sessions=("1",))
    asked = ["--smoothing-fwhm", "6"]
    assert analyse(root, tmp_path / "out", "fsaverage5", *asked) == 1
    assert "10242 vertices, and the data have 50" in capsys.readouterr().err.replace("\n", " ")
    for side, hemi in enumerate("LR"):
        path = root / f"derivatives/fmriprep/hemi-{hemi}_space-fsaverage5_midthickness.surf.gii"
        write_surface(path, patch(5 + side, 10, seed=side))
    assert analyse(root, tmp_path / "out", "fsaverage5", *asked) == 0
    design = tmp_path / "out/sub-01/ses-1/func/sub-01_ses-1_task-a_space-fsaverage5_design.json"
    facts = json.loads(design.read_text())
    assert 3 < facts["SmoothingReachedFwhmMm"] < 8 and set(facts["SmoothingSteps"]) == {"L", "R"}
    assert facts["SmoothingMeshes"][0] == "bids:fmriprep:hemi-L_space-fsaverage5_midthickness.surf.gii"
    assert facts["ModelParameters"]["SmoothingFwhmMm"] == 6
    assert "voxel" not in design.read_text()
    effect, _ = files_of(map_path(tmp_path / "out", "fsaverage5", "effect", session="1"))
    sidecar = json.loads(effect.with_suffix(".json").read_text())
    assert sidecar["InputSmoothing"][0]["SmoothingReachedFwhmMm"] == facts["SmoothingReachedFwhmMm"]
    assert "voxel" not in effect.with_suffix(".json").read_text()
    page = (tmp_path / "out/sub-01.html").read_text()
    assert "smoothed to a FWHM of (mm)" in page and "smoothed along its mesh" in page
    assert 'alt="z map, ses-1"' in page, "on the same mesh"
    before = effect.read_bytes()
    assert analyse(root, tmp_path / "out", "fsaverage5", *asked) == 0
    assert "finished before, skipped" in capsys.readouterr().err
    write_surface(path.with_name(path.name.replace("hemi-R", "hemi-L")), patch(10, 5, seed=3))
    assert analyse(root, tmp_path / "out", "fsaverage5", *asked) == 0
    assert effect.read_bytes() != before


@pytest.mark.slow
def test_a_finished_study_is_skipped(study: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(output, "sub-01/**/*")
    assert analyse(study, output, "fsaverage5") == 0
    assert "finished before, skipped" in capsys.readouterr().err
    assert times(output, "sub-01/**/*") == before


def test_what_is_declined_is_said_before_anything_is_written(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [study, tmp_path / "out", "participant", "--space", "fsaverage5"]
    on_fslr = [study, tmp_path / "out", "participant", "--space", "fsLR", "--smoothing-fwhm", "4"]
    call_main(capsys, on_fslr, study).refused(
        2,
        "--smoothing-fwhm smooths along the surface, and of sub-01 no mesh of fsLR is there",
        "hemi-L_space-fsLR_den-32k_midthickness.surf.gii",
    )
    few = write_pair(tmp_path, {"L": np.ones(50), "R": np.ones(50)}, name="{}.few.label.gii")
    called = call_main(capsys, [*start, "--contrast", CONTRAST, "--atlas", few], study)
    called.refused(2, f"--atlas {few} does not fit", "hemi-R has 50 vertices there, and 60 in the data")
    own = [f"derivatives/fmriprep/{FUNC}_hemi-{hemi}_space-fsnative_bold.func.gii" for hemi in "LR"]
    native = make_tree(tmp_path / "native", {f"{FUNC}_events.tsv": EVENTS, **dict.fromkeys(own, "")})
    called = call_main(capsys, [native, tmp_path / "out", "participant", "group", "--space", "fsnative"], native)
    called.refused(2, "fsnative is a surface of each participant's own")
    asked = [native, tmp_path / "out", "participant", "--space", "fsnative", "--contrast", CONTRAST, "--atlas", few]
    call_main(capsys, asked, native).refused(2, "fsnative is a surface of each participant's own", str(few))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_names_the_files_of_both_hemispheres(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = call_main(capsys, [study, tmp_path / "out", "participant", "--space", "fsaverage5", "--dry-run"], study)
    assert called.code == 0, called.error
    for hemi in "LR":
        assert f"sub-01_ses-1_task-a_hemi-{hemi}_space-fsaverage5_bold.func.gii" in called.output
    assert "mask" not in called.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_hemisphere_alone_is_analysed_or_its_absence_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = surface_study(tmp_path / "study")
    next(root.rglob("*ses-2*_hemi-R_*")).unlink()
    assert analyse(root, tmp_path / "both", "fsaverage5") == 1
    assert "it has the left hemisphere alone" in capsys.readouterr().err
    assert analyse(root, tmp_path / "left", "fsaverage5", "--hemi", "L", "--no-report") == 0
    maps = {path.name for path in (tmp_path / "left").rglob("*statmap.gii")}
    assert maps and all("_hemi-L_space-fsaverage5_" in name for name in maps)


@pytest.mark.slow
def test_pybids_finds_the_sidecar_of_every_map(output: Path) -> None:
    from bids import BIDSLayout

    layout = BIDSLayout(output, validate=False, is_derivative=True, config=["bids", "derivatives", str(PYBIDS_CONFIG)])
    for extension in (".gii", ".dscalar.nii"):
        files = layout.get(extension=extension, stat="effect", contrast="goMinusStop")
        assert len(files) == (6 if extension == ".gii" else 3)
        assert {file.get_metadata()["StatisticType"] for file in files} == {"effect"}

"""Runs on surfaces: which files are meant, what is read, and that fits give nilearn's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.contrasts import compute_contrast
from nilearn.glm.first_level import mean_scaling, run_glm
from nilearn.surface import InMemoryMesh, PolyMesh

from bids_trees import EVENTS, make_tree, only_run, select
from real_layouts import N_VOLUMES
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.bids.meshes import read_mesh, with_meshes
from sessionfx.bids.names import files_of, parse_name
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.errors import CommandLineError, NothingMatchesError, ParticipantError
from sessionfx.options import FirstLevelModel as Model
from sessionfx.participant import bold
from sessionfx.participant.bold import open_series, read_run
from sessionfx.participant.files import FirstLevelFiles
from sessionfx.participant.run import FittedRun, analyse_run
from sessionfx.participant.smoothing import SurfaceSmoother
from sessionfx.participant.timing import run_timing
from sessionfx.space.surface import HEMISPHERES, Surface
from surfaces import (
    N_VERTICES,
    TR,
    WALL,
    assert_same,
    brain_models,
    by_nilearn,
    mesh_of,
    patch,
    signal,
    surface_study,
    write_cifti,
    write_gifti,
    write_surface,
)

CONTRAST = parse_contrast("go - stop")
START = "derivatives/fmriprep/sub-01/func/sub-01_task-a"
VOLUME = f"{START}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
NEW = [f"{START}_hemi-{hemi}_space-fsaverage5_bold.func.gii" for hemi in "LR"]
CIFTI = f"{START}_space-fsLR_den-91k_bold.dtseries.nii"


def tree(folder: Path, *files: str) -> Path:
    """Make a dataset of a participant's files, with events."""
    return make_tree(folder, {"sub-01/func/sub-01_task-a_events.tsv": EVENTS, **dict.fromkeys(files, "")})


# Which files ------------------------------------------------------------------------------------------------


# What fMRIPrep's own lists of outputs (.circleci/*_outputs.txt, at its tags) name, with the JSON files beside it; versions
# before 1.2 had names of their own, of volumes too
_VOLUMES = ("desc-preproc_bold.nii.gz", "space-T1w_desc-preproc_bold.nii.gz",
            "space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
            "space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")  # fmt: skip
VERSIONS = {
    "1.2 to 20.0": ("space-{space}_hemi-{hemi}.func.gii", "bold.dtseries.nii", ("bold.dtseries.json",)),
    "20.1 to 20.2": ("space-{space}_hemi-{hemi}_bold.func.gii", "space-fsLR_den-91k_bold.dtseries.nii",
                     ("space-fsLR_den-91k_bold.dtseries.json",)),
    "20.2.7": ("space-{space}_hemi-{hemi}_bold.func.gii", "space-fsLR_den-91k_bold.dtseries.nii",
               ("space-fsLR_den-91k_bold.json", "space-{space}_hemi-{hemi}_bold.json")),
    "from 21.0 on": ("hemi-{hemi}_space-{space}_bold.func.gii", "space-fsLR_den-91k_bold.dtseries.nii",
                     ("space-fsLR_den-91k_bold.json", "hemi-{hemi}_space-{space}_bold.json")),
    "170k": ("hemi-{hemi}_space-{space}_bold.func.gii", "space-fsLR_den-170k_bold.dtseries.nii", ()),
    "others'": ("hemi-{hemi}_space-{space}_desc-preproc_bold.func.gii",
                "space-fsLR_den-91k_desc-preproc_bold.dtseries.nii", ()),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_surfaces_are_found_as_all_versions_name_them(tmp_path: Path, version: str) -> None:
    gifti, cifti, sidecars = VERSIONS[version]
    names = [
        ending.format(hemi=hemi, space=space)
        for ending in (gifti, *sidecars) for space in ("fsaverage5", "fsnative") for hemi in "LR"
    ]  # fmt: skip
    root = tree(tmp_path, *(f"{START}_{ending}" for ending in {*names, cifti, *_VOLUMES}))
    (root / "sub-01/func/sub-01_task-a_bold.json").write_text('{"RepetitionTime": 2}')
    for path in root.glob("derivatives/**/*.json"):
        if "_bold" in path.name:
            path.write_text('{"RepetitionTime": 2.5}')
    for space in ("fsaverage5", "fsnative"):
        selection = select(root, space=space)
        run = only_run(root, space=space)
        expected = [f"{START}_{gifti.format(hemi=hemi, space=space)}" for hemi in "LR"]
        assert run.images == tuple(root / name for name in expected)
        assert (run.name, run.mask, run.problem) == ("sub-01_task-a", None, None)
        assert selection.map_extension == ".gii" and "den" not in selection.entities
        # without JSON files of their own the raw dataset's counts, or that of a file without a space
        own = any("hemi" in ending for ending in sidecars) or version == "1.2 to 20.0"
        assert run.metadata["RepetitionTime"] == (2.5 if own else 2)
    named = "space-fsLR" in cifti
    selection = (
        select(root, space="fsLR")
        if named else select(root, space="none", filters={"bold": {"extension": "dtseries.nii"}})
    )  # fmt: skip
    assert selection.every_run[0].images == (root / f"{START}_{cifti}",)
    assert selection.entities.get("den") == ({"170k": "170k"}.get(version, "91k") if named else None)
    assert selection.every_run[0].metadata["RepetitionTime"] == (2.5 if sidecars else 2)
    (root / f"{START}_{gifti.format(hemi='R', space='fsaverage5')}").unlink()
    assert "left hemisphere alone" in (only_run(root, space="fsaverage5").problem or "")
    alone = select(root, space="fsaverage5", hemi="L").every_run[0]
    assert alone.images == (root / f"{START}_{gifti.format(hemi='L', space='fsaverage5')}",) and not alone.problem


@pytest.mark.slow
def test_volumes_are_meant_unless_a_surface_is_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path, VOLUME, *NEW, CIFTI)
    selection = select(root)
    assert selection.entities == {"task": "a", "space": "MNI152NLin2009cAsym", "cohort": None, "res": None}
    assert (selection.map_extension, selection.every_run[0].images) == (".nii.gz", (tmp_path / VOLUME,))
    assert select(root, space="fsaverage5").map_extension == ".gii"
    for options in ({"space": "fsLR"}, {"space": "fsLR", "den": "91k"}, {"den": "91k"}):
        selection = select(root, **options)
        assert (selection.map_extension, selection.entities["den"]) == (".dscalar.nii", "91k")
    with pytest.raises(NothingMatchesError, match=r"What exists \(space\): MNI152NLin2009cAsym, fsLR, fsaverage5"):
        select(root, space="fsaverage")
    with pytest.raises(NothingMatchesError, match="all on surfaces: fsLR, fsaverage5"):
        select(tree(tmp_path / "surfaces", *NEW, CIFTI))


def test_sessions_of_another_form_are_none_of_the_study(tmp_path: Path) -> None:
    """Where neither names a space."""
    of_session = "derivatives/fmriprep/sub-01/ses-{0}/func/sub-01_ses-{0}_task-a{1}"
    volumes = [of_session.format(session, "_desc-preproc_bold.nii.gz") for session in "12"]
    surfaces = [of_session.format(session, "_bold.dtseries.nii") for session in "23"]
    root = tree(tmp_path, *volumes, *surfaces)
    assert select(root).sessions == ("1", "2")


def test_designs_of_two_spaces_are_two_files(tmp_path: Path) -> None:
    root = tree(tmp_path, VOLUME, VOLUME.replace("MNI152NLin2009cAsym", "T1w"), *NEW)
    names = set()
    for space in ("MNI152NLin2009cAsym", "T1w", "fsaverage5"):
        selection = select(root, space=space)
        files = FirstLevelFiles("01", tmp_path / "out", selection.entities, {}, Model(), selection.map_extension)
        names.add(files.design(selection.every_run[0]).name)
    assert names == {
        f"sub-01_task-a_space-{space}_design.tsv" for space in ("MNI152NLin2009cAsym", "T1w", "fsaverage5")
    }


def test_of_several_densities_or_forms_one_is_to_be_chosen(tmp_path: Path) -> None:
    pair = [f"{START}_hemi-{hemi}_space-fsLR_den-{{}}_bold.func.gii" for hemi in "LR"]
    root = tree(tmp_path, *(name.format("32k") for name in pair), CIFTI)
    with pytest.raises(CommandLineError, match=r"several densities: 32k, 91k\. Choose one with --den"):
        select(root, space="fsLR")
    assert select(root, space="fsLR", den="32k").map_extension == ".gii"
    root = tree(tmp_path / "forms", *(name.format("91k") for name in pair), CIFTI)
    with pytest.raises(CommandLineError, match=r'several forms: dtseries.nii, func.gii.*"extension": "dtseries.nii"'):
        select(root, space="fsLR")
    assert select(root, space="fsLR", filters={"bold": {"extension": "func.gii"}}).map_extension == ".gii"


def test_a_hemisphere_alone_is_analysed_if_it_is_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path, NEW[1])
    problem = only_run(root, space="fsaverage5").problem or ""
    assert problem.startswith("it has the right hemisphere alone") and "--hemi R analyses" in problem
    selection = select(root, space="fsaverage5", hemi="R")
    assert selection.every_run[0].images == (tmp_path / NEW[1],) and not selection.every_run[0].problem
    assert selection.entities["hemi"] == "R"
    with pytest.raises(NothingMatchesError, match="no preprocessed run has files of single hemispheres"):
        select(tree(tmp_path / "both", CIFTI), space="fsLR", hemi="L")


def test_the_time_that_slices_were_corrected_to_is_that_of_the_volumes(tmp_path: Path) -> None:
    root = tree(tmp_path, *NEW, VOLUME)
    (tmp_path / "sub-01/func/sub-01_task-a_bold.json").write_text('{"RepetitionTime": 2}')
    (tmp_path / VOLUME.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 2, "StartTime": 0.9}')
    assert only_run(root, space="fsaverage5").metadata == {"RepetitionTime": 2, "StartTime": 0.9}


def test_files_of_a_map() -> None:
    folder = Path("sub-01")
    pair = folder / "sub-01_space-x_statmap.gii"
    assert files_of(pair) == tuple(folder / f"sub-01_hemi-{hemi}_space-x_statmap.gii" for hemi in "LR")
    for name in ("sub-01_hemi-L_space-x_statmap.gii", "sub-01_statmap.nii.gz", "sub-01_statmap.dscalar.nii"):
        assert files_of(folder / name) == (folder / name,)
    assert parse_name("sub-01_hemi-L.func.gii").entities == {"sub": "01", "hemi": "L"}
    assert parse_name("sub-01_hemi-L.surf.gii") is None


# What is read -----------------------------------------------------------------------------------------------


def test_a_column_for_each_volume_is_read_like_an_array_for_each(tmp_path: Path) -> None:
    series = signal(20, seed=1).astype(np.float32)
    (by_volume,) = [write_gifti(tmp_path / "sub-01_hemi-L_space-x_bold.func.gii", series)]
    columns = tmp_path / "sub-01_hemi-R_space-x_bold.func.gii"
    nib.save(nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(series.T.copy(), intent="time series")]), columns)
    found = read_surfaces([by_volume, columns])
    assert found.space == Surface("x", {"L": 20, "R": 20}) and found.repetition_time is None
    np.testing.assert_array_equal(found.data, np.hstack([series, series]))
    assert found.data.dtype == np.float64


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    left = write_gifti(tmp_path / "sub-01_hemi-L_space-x_bold.func.gii", signal(20, seed=1))
    right = write_gifti(tmp_path / "sub-01_hemi-R_space-x_bold.func.gii", signal(20, seed=1)[:-1])
    with pytest.raises(ParticipantError, match="differ in length: 40 of hemi-L and 39 of hemi-R"):
        read_surfaces([left, right])
    for content in (left.read_bytes()[:-5000], b"", b"no image", b"<GIFTI></GIFTI>"):
        right.write_bytes(content)
        with pytest.raises(ParticipantError, match=f"{right.name} cannot be read to its end"):
            open_series(left, right)
    single = write_gifti(right, signal(20, seed=1)[:1])
    with pytest.raises(ParticipantError, match="1 volume, expected a series"):
        open_series(single)
    cifti = write_cifti(tmp_path / "sub-01_bold.dtseries.nii", signal(len(brain_models()), seed=1), brain_models())
    whole = cifti.read_bytes()
    for content in (whole[:-1000], whole[:600], b"", b"no image"):
        cifti.write_bytes(content)
        with pytest.raises(ParticipantError, match=f"{cifti.name} cannot be read to its end"):
            open_series(cifti)
    nib.save(nib.Nifti2Image(np.ones((2, 2, 2, 5)), np.eye(4)), cifti)
    with pytest.raises(ParticipantError, match="is no CIFTI-2 image"):
        open_series(cifti)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of the small study."""
    return surface_study(tmp_path_factory.mktemp("surfaces"), sessions=("1",))


def test_the_medial_wall_is_out(study: Path) -> None:
    run = only_run(study, space="fsaverage5")
    data = read_run(open_series(*run.images), run.bold, None, None)
    expected = np.ones(sum(N_VERTICES.values()), dtype=bool)
    expected[:WALL] = expected[N_VERTICES["L"] :][:WALL] = False
    np.testing.assert_array_equal(data.mask, expected)
    assert (data.n_brain, data.warnings, data.signal.dtype) == (len(expected), (), np.float64)


def test_the_json_counts_where_a_cifti_file_says_another_repetition_time(study: Path) -> None:
    run = only_run(study, space="fsLR")
    assert run_timing(run, open_series(run.bold)).warnings == ()
    run.metadata["RepetitionTime"] = 1.5
    timing = run_timing(run, open_series(run.bold))
    assert (
        timing.repetition_time == 1.5 and "header says a repetition time of 2 s, the JSON 1.5 s" in timing.warnings[0]
    )
    del run.metadata["RepetitionTime"]
    assert run_timing(run, open_series(run.bold)).repetition_time == TR
    gifti = only_run(study, space="fsaverage5")
    del gifti.metadata["RepetitionTime"]
    with pytest.raises(ParticipantError, match="neither a JSON sidecar nor the image header"):
        run_timing(gifti, open_series(*gifti.images))


# Fits -------------------------------------------------------------------------------------------------------


def fitted_run(root: Path, space: str, **model: object) -> FittedRun:
    return analyse_run(only_run(root, space=space), [CONTRAST], Model(**model))


@pytest.mark.parametrize("noise_model", ["ar1", "ols"])
@pytest.mark.parametrize("n_vertices", [N_VERTICES, pytest.param({"L": 10242, "R": 10242}, marks=pytest.mark.slow)])
def test_a_run_equals_first_level_model(tmp_path: Path, n_vertices: dict[str, int], noise_model: str) -> None:
    root = surface_study(tmp_path, sessions=("1",), n=n_vertices)
    fitted = fitted_run(root, "fsaverage5", noise_model=noise_model)
    found = by_nilearn([fitted], CONTRAST.expression, mesh_of(n_vertices), noise_model=noise_model)
    ours = fitted.estimates[CONTRAST.label]
    np.testing.assert_array_equal(ours.mask, fitted.mask)
    for name, value in {
        "effect_size": ours.estimate.effect, "effect_variance": ours.estimate.variance, "z_score": ours.estimate.z
    }.items():  # fmt: skip
        assert_same(value, found[name])


@pytest.mark.parametrize(
    ("space", "mesh"),
    [
        ("fsnative", "sub-01/ses-1/anat/sub-01_ses-1_hemi-{}_midthickness.surf.gii"),
        ("fsaverage6", "tpl-fsaverage/tpl-fsaverage_hemi-{}_den-41k_midthickness.surf.gii"),
    ],
)
def test_a_smoothed_run_equals_first_level_model(tmp_path: Path, space: str, mesh: str) -> None:
    """Where all vertices have data, as nilearn lets the wall in."""
    meshes = {"L": patch(14, 16, seed=1), "R": patch(15, 17, seed=2)}
    root = surface_study(
        tmp_path, sessions=("1",), n={hemi: len(own.coordinates) for hemi, own in meshes.items()}, space=space, wall=0
    )
    for hemi, own in meshes.items():
        write_surface(root / "derivatives" / "fmriprep" / mesh.format(hemi), own)
    fitted = fitted_run(root, space, smoothing_fwhm=5.0)
    assert fitted.smoothing["SmoothingSteps"] == {"L": 1, "R": 1}
    assert fitted.mask.all()
    read = {side: read_mesh(fitted.run.meshes[hemi]) for hemi, side in HEMISPHERES.items()}
    poly = PolyMesh(**{side: InMemoryMesh(own.coordinates, own.triangles) for side, own in read.items()})
    found = by_nilearn([fitted], CONTRAST.expression, poly, smoothing_fwhm=5.0)
    ours = fitted.estimates[CONTRAST.label].estimate
    for name, value in {"effect_size": ours.effect, "effect_variance": ours.variance, "z_score": ours.z}.items():
        assert_same(value, found[name])


def test_runs_share_the_set_up_of_their_smoothing_until_a_mesh_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SurfaceSmoother] = []

    class Counted(SurfaceSmoother):
        def __init__(self, *setting: Any) -> None:
            super().__init__(*setting)
            made.append(self)

    monkeypatch.setattr(bold, "SurfaceSmoother", Counted)
    root = surface_study(tmp_path, n={"L": 14 * 16, "R": 15 * 17}, space="fsnative", wall=0)
    left, right = (
        root / f"derivatives/fmriprep/sub-01/ses-1/anat/sub-01_ses-1_hemi-{hemi}_midthickness.surf.gii" for hemi in "LR"
    )
    write_surface(left, patch(14, 16, seed=1))
    write_surface(right, patch(15, 17, seed=2))
    runs = select(root, space="fsnative").runs["01"]

    def smoothed(fwhm: float) -> list[np.ndarray]:
        return [read_run(open_series(*run.images), run.bold, run.mask, fwhm, run.meshes).signal for run in runs]

    first, second = smoothed(5.0)
    assert len(made) == 1
    for run, ours in zip(runs, (first, second), strict=True):
        series = read_surfaces(run.images)
        SurfaceSmoother(with_meshes(series.space, run.meshes), np.ones(series.space.shape, bool), 5.0).smooth(
            series.data
        )
        np.testing.assert_array_equal(ours, series.data)
    smoothed(9.0)
    assert len(made) == 2
    write_surface(left, replace(patch(14, 16, seed=1), coordinates=patch(14, 16, seed=1).coordinates / 2))
    again, _ = smoothed(5.0)
    assert len(made) == 3
    assert not np.array_equal(again, first)


def test_a_cifti_run_equals_run_glm(study: Path) -> None:
    fitted = fitted_run(study, "fsLR")
    array = np.asarray(nib.load(fitted.run.bold).dataobj, dtype=np.float64)
    labels, results = run_glm(mean_scaling(array, 0)[0], fitted.design.matrix.to_numpy(), noise_model="ar1")
    vector = CONTRAST.matrix([str(column) for column in fitted.design.matrix.columns])[0]
    theirs = compute_contrast(labels, results, vector, stat_type="t")
    ours = fitted.estimates[CONTRAST.label].estimate
    assert_same(ours.effect, theirs.effect_size().ravel())
    assert_same(ours.variance, theirs.effect_variance().ravel())
    assert fitted.mean.space.shape == (len(brain_models()),)


def test_maps_of_other_designs_need_no_surface(study: Path) -> None:
    """The design is that of the volumes: events, confounds and times do not depend on the space."""
    gifti, cifti = (fitted_run(study, space).design.matrix for space in ("fsaverage5", "fsLR"))
    pd.testing.assert_frame_equal(gifti, cifti)
    assert len(gifti) == N_VOLUMES
    assert json.loads((study / "sub-01/ses-1/func/sub-01_ses-1_task-a_bold.json").read_text()) == {"RepetitionTime": TR}

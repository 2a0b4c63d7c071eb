"""From Python surfaces and grayordinates have the numbers of the program, bit for bit, and of nilearn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.cifti2 import Cifti2Image
from nilearn.glm.first_level import FirstLevelModel
from nilearn.surface import PolyData, PolyMesh, SurfaceImage

import sessionfx
from program import CONTRAST
from sessionfx.bids.meshes import fsaverage5_files
from sessionfx.bids.names import files_of
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.cli import main
from sessionfx.simulate import SimulationOptions, simulate_dataset
from sessionfx.space.surface import HEMISPHERES
from sessionfx.wording import words_to_label
from surfaces import N_VERTICES, TR, brain_models, mesh_of, signal, surface_study, write_cifti
from surfaces import values as both

LABEL = "incongruentMinusCongruent"
FORMS = ("fsaverage5", "fsLR")
ENDINGS = {"fsaverage5": "hemi-{}_space-fsaverage5_bold.func.gii", "fsLR": "space-fsLR_den-5k_bold.dtseries.nii"}
STRATEGIES = ("summary-statistics", "session-model", "marginal", "mixed")
EVENTS = pd.DataFrame({"onset": np.arange(5.0, 72, 9), "duration": 4.0, "trial_type": ["go", "stop"] * 4})


# The program ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SimulationOptions(
        n_participants=4, n_sessions=2, n_runs=2, n_volumes=30, voxel_size=14.0, missing=(), surfaces=FORMS
    )
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "bids", options)


@dataclass(frozen=True)
class Analysed:
    """What the program wrote of a space."""

    space: str
    bids: Path
    output: Path

    @property
    def prep(self) -> Path:
        return self.bids / "derivatives" / "fmriprep"


@pytest.fixture(scope="module", params=FORMS)
def analysed(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    folder = tmp_path_factory.mktemp("output") / "out"
    assert main([str(dataset), str(folder), "participant", "group", "--space", request.param, "--contrast", CONTRAST,
                 "--session-contrast", "mean", "--session-contrast", "ses-02 - ses-01", "--strategy", *STRATEGIES,
                 "--no-report", "--nprocs", "1", "--confounds", "motion6"]) == 0  # fmt: skip
    return Analysed(request.param, dataset, folder)


def fit(study: Analysed, participant: str, session: str, run: str, *, in_memory: bool = False) -> sessionfx.StatImages:
    name = f"sub-{participant}_ses-{session}_task-stroop_run-{run}"
    folder = Path(f"sub-{participant}") / f"ses-{session}" / "func"
    ending = ENDINGS[study.space]
    paths = {hemi: study.prep / folder / f"{name}_{ending.format(hemi)}" for hemi in "LR"}
    bold = paths if study.space == "fsaverage5" else paths["L"]
    if in_memory and study.space == "fsaverage5":
        mesh = PolyMesh(**{side: fsaverage5_files()[hemi, "pial"] for hemi, side in HEMISPHERES.items()})
        bold = SurfaceImage(mesh, {HEMISPHERES[hemi]: path for hemi, path in paths.items()})
    elif in_memory:
        image = nib.load(paths["L"])
        bold = Cifti2Image(image.get_fdata(), image.header)
    start_time = json.loads(next((study.prep / folder).glob(f"{name}_*desc-preproc_bold.json")).read_text())[
        "StartTime"
    ]
    fitted = sessionfx.fit_run(
        bold, study.bids / folder / f"{name}_events.tsv", CONTRAST, t_r=2.0, start_time=start_time,
        confounds=study.prep / folder / f"{name}_desc-confounds_timeseries.tsv", confound_columns=["motion6"],
    )  # fmt: skip
    return fitted[LABEL]


def sessions_of(study: Analysed, participant: str, **options: bool) -> dict[str, sessionfx.StatImages]:
    return {
        session: sessionfx.combine([fit(study, participant, session, run, **options) for run in ("01", "02")])
        for session in ("01", "02")
    }


def flat(image: SurfaceImage | Cifti2Image) -> np.ndarray:
    return image.get_fdata()[0] if isinstance(image, Cifti2Image) else both(image)


def compare(images: sessionfx.StatImages, folder: Path, about: str) -> None:
    """Compare maps with those that the program wrote, in the precision of its files."""
    extension = images._stat_map.space.extension
    found = 0
    for statistic in images.statistics:
        paths = sorted(folder.glob(f"*contrast-{LABEL}_{about}stat-{statistic}_*statmap{extension}"))
        if paths:
            kept = nib.load(paths[0])
            precision = kept.darrays[0].data.dtype if extension == ".gii" else kept.get_data_dtype()
            mine = flat(images.image(statistic)).astype(precision)
            assert np.array_equal(mine, read_surfaces(paths).data[0]), paths[0].name
            found += 1
    assert found >= 5


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [False, True])
def test_the_numbers_are_those_of_the_participant_level(analysed: Analysed, in_memory: bool) -> None:
    sessions = sessions_of(analysed, "01", in_memory=in_memory)
    for session, images in sessions.items():
        compare(images, analysed.output / "sub-01" / f"ses-{session}" / "func", "")
    change = sessionfx.combine(sessions, "ses-02 - ses-01")
    compare(change, analysed.output / "sub-01" / "func", "sessions-ses02MinusSes01_")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_group_level(analysed: Analysed) -> None:
    participants = ("01", "02", "03", "04")
    rows = [
        (participant, session, images)
        for participant in participants
        for session, images in sessions_of(analysed, participant).items()
    ]
    meshes = {hemi: next(analysed.prep.rglob(f"*hemi-{hemi}_space-fsLR_*midthickness.surf.gii")) for hemi in "LR"}
    for source, more in (
        (pd.DataFrame(rows, columns=["participant", "session", "estimate"]), {}),
        (analysed.output, {"mesh": meshes} if analysed.space == "fsLR" else {}),
    ):
        maps = sessionfx.load_session_maps(source, **more)
        estimates = sessionfx.estimate(maps, "ses-02 - ses-01", strategy=STRATEGIES)
        assert set(estimates) == {*STRATEGIES}
        for strategy, images in estimates.items():
            about = f"sessions-ses02MinusSes01_strategy-{words_to_label([strategy])}_"
            compare(images, analysed.output / "group", about)
        verdict = json.loads(
            next((analysed.output / "group").glob("*sessions-ses02MinusSes01_validity.json")).read_text()
        )
        assert sessionfx.judge(estimates).text == verdict["Verdict"]
        features = "vertices" if analysed.space == "fsaverage5" else "grayordinates"
        assert set(estimates.table[f"n_{features}"]) == {int(flat(maps.mask).sum())}


# nilearn, and the forms in which surfaces are given ---------------------------------------------------------


def image(seed: int = 0, *, mesh: PolyMesh | None = None, wall: int = 3) -> SurfaceImage:
    """A series on some mesh; the first vertices have no data."""
    mesh = mesh or mesh_of(N_VERTICES)
    parts = {side: signal(part.n_vertices, seed=seed + len(side)).T for side, part in mesh.parts.items()}
    for part in parts.values():
        part[:wall] = 0
    return SurfaceImage(mesh, PolyData(**parts))


def fitted(bold: object, **options: object) -> sessionfx.StatImages:
    return sessionfx.fit_run(bold, EVENTS, "go - stop", t_r=TR, **options)["goMinusStop"]


@pytest.mark.parametrize("noise_model", ["ar1", "ols"])
@pytest.mark.parametrize("smoothing_fwhm", [None, 4.0])
def test_a_fit_is_that_of_nilearn(noise_model: str, smoothing_fwhm: float | None) -> None:
    bold = image()
    if smoothing_fwhm is not None:  # which needs a real mesh, and at the wall nilearn smooths with what is outside
        white = {side: fsaverage5_files()[hemi, "white"] for hemi, side in HEMISPHERES.items()}
        bold = image(mesh=PolyMesh(**white), wall=0)
    mine = fitted(bold, noise_model=noise_model, smoothing_fwhm=smoothing_fwhm)
    reference = FirstLevelModel(
        t_r=TR, hrf_model="glover", high_pass=0.01, noise_model=noise_model, signal_scaling=0,
        smoothing_fwhm=smoothing_fwhm, mask_img=mine.mask,
    ).fit(bold, EVENTS)  # fmt: skip
    theirs = reference.compute_contrast("go - stop", output_type="all")
    inside = both(mine.mask) > 0
    assert (~inside).sum() == (6 if smoothing_fwhm is None else 0) and mine.z.mesh.n_vertices == inside.size
    for name, other in {"effect": "effect_size", "variance": "effect_variance", "t": "stat", "z": "z_score",
                        "p": "p_value"}.items():  # fmt: skip
        given, expected = both(mine.image(name))[inside], both(theirs[other])[inside]
        np.testing.assert_allclose(given, expected, rtol=1e-8, atol=1e-10, err_msg=name)


def test_every_form_of_a_surface_gives_the_same_bits(tmp_path: Path) -> None:
    bold = image()
    single = SurfaceImage(bold.mesh, {side: part.astype(np.float32) for side, part in bold.data.parts.items()})
    first = fitted(single)
    single.data.to_filename(tmp_path / "sub-1_bold.func.gii")  # nilearn writes _hemi-L at the end of the name
    paths = sorted(map(str, tmp_path.glob("*.gii")))
    plain = {side: tmp_path / f"{side[0]}h.gii" for side in ("left", "right")}
    for path, other in zip(paths, plain.values(), strict=True):
        other.write_bytes(Path(path).read_bytes())
    mesh = bold.mesh
    named = tmp_path / "sub-1_hemi-L_bold.func.gii", tmp_path / "sub-1_hemi-R_bold.func.gii"
    for path, other in zip(paths, named, strict=True):
        Path(path).replace(other)
    for form in (
        named, named[::-1], tmp_path / "sub-1_bold.func.gii", plain, {"L": nib.load(named[0]), "R": str(named[1])},
    ):  # fmt: skip
        again = fitted(form, mesh=mesh)
        for statistic in first.statistics:
            assert np.array_equal(both(first.image(statistic)), both(again.image(statistic))), form
    left = fitted({"L": named[0]}, mesh=mesh)
    assert left.z.data.parts.keys() == {"left"}
    assert np.array_equal(left.z.data.parts["left"], first.z.data.parts["left"])
    assert repr(left) == f"StatImages of effect, variance, t, z, p, dof at {N_VERTICES['L'] - 3} vertices"


def test_a_cifti_image_comes_back_with_its_axis(tmp_path: Path) -> None:
    models = brain_models()
    path = write_cifti(tmp_path / "x_bold.dtseries.nii", signal(len(models), seed=1), models)
    run = sessionfx.fit_run(path, EVENTS, ["go - stop", "F:any = go; stop"])
    assert run.warnings == ("t_r is not given; the image header's 2 s is used.",)
    z = run["goMinusStop"].z
    assert isinstance(z, Cifti2Image) and z.header.get_axis(1) == models and z.shape == (1, len(models))
    assert run["any"].image("effects").shape == (2, len(models)) and run.mean.shape == (1, len(models))
    z.to_filename(tmp_path / "z.dscalar.nii")
    assert np.array_equal(nib.load(tmp_path / "z.dscalar.nii").get_fdata(), z.get_fdata())


def test_maps_in_memory_are_taken_as_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mesh, rows, paths = mesh_of(N_VERTICES), [], []
    for participant in ("01", "02", "03", "04"):
        for session in ("1", "2"):
            parts = {side: rng.normal(size=N_VERTICES[hemi]).astype(np.float32) for hemi, side in HEMISPHERES.items()}
            rows.append((participant, session, SurfaceImage(mesh, parts)))
            for hemi, side in HEMISPHERES.items():
                name = tmp_path / f"sub-{participant}_ses-{session}_hemi-{hemi}_stat-effect_statmap.gii"
                rows[-1][2].data.to_filename(name)
                assert name.exists(), side
            paths.append((participant, session, str(name).replace("_hemi-R", "")))
    columns = ["participant", "session", "effect"]
    maps = [
        sessionfx.load_session_maps(pd.DataFrame(rows, columns=columns)),
        sessionfx.load_session_maps(pd.DataFrame(paths, columns=columns), mesh=mesh),
    ]
    assert list(map(str, maps[1].table["effect"])) == [path for *_, path in paths]
    assert len(files_of(maps[1].table["effect"][0])) == 2
    first, second = (sessionfx.estimate(of, "ses-2 - ses-1", strategy="marginal")["marginal"] for of in maps)
    assert np.array_equal(both(first.t), both(second.t)) and first.z.mesh.n_vertices == sum(N_VERTICES.values())


def test_estimates_keep_their_units() -> None:
    rows = [(f"{number}", fitted(image(2 * number), signal_scaling="none")) for number in range(4)]
    maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "estimate"]))
    assert sessionfx.estimate(maps, strategy="summary-statistics").units == "arbitrary units"


def test_smoothing_is_along_the_mesh_that_is_given(tmp_path: Path) -> None:
    study = surface_study(tmp_path / "bids")
    prep = study / "derivatives/fmriprep/sub-01/ses-1/func"
    paths = {hemi: next(prep.glob(f"*hemi-{hemi}_space-fsaverage5_bold.func.gii")) for hemi in "LR"}
    with pytest.raises(sessionfx.SessionFXError, match=r"fsaverage5.* have 10242 vertices, and the data have 50"):
        fitted(paths)
    with pytest.raises(sessionfx.SessionFXError, match="smoothing_fwhm needs the surface of each hemisphere"):
        fitted(next(prep.glob("*_bold.dtseries.nii")), smoothing_fwhm=4)
    plain = fitted(paths, mesh=mesh_of(N_VERTICES))
    smooth = fitted(paths, mesh=mesh_of(N_VERTICES), smoothing_fwhm=40)
    assert not np.allclose(both(plain.z), both(smooth.z))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bold": "sub-1_hemi-L_bold.func.gii"}, r"sub-1_hemi-L_bold.func.gii is not of both hemispheres. Give both, "),
        ({"bold": nib.GiftiImage()}, "bold is not of both hemispheres"),
        ({"bold": ("left.func.gii", "right.func.gii")}, "do not say of which hemisphere each is"),
        ({"bold": {"lh": "left.gii"}}, "bold has 'lh'; hemispheres are called L and R, or left and right"),
        ({"bold": {}}, "bold has no hemisphere"),
        ({"bold": {"L": 3}}, "bold is of type int, expected a GIFTI image or the path of one"),
        ({"bold": {"L": "no.gii"}}, "There is no file no.gii"),
        ({"bold": 3}, "bold is of type int, expected a NIfTI image, a CIFTI image, nilearn's SurfaceImage, or paths"),
        ({"mask": "mask.nii"}, "mask is of volumes"),
        ({"t_r": None}, "neither t_r nor the image header gives the repetition time"),
        ({"mesh": mesh_of({"L": 9, "R": 9})}, "the mesh of hemi-L has 9 vertices, and the data have 50"),
    ],
)  # fmt: skip
def test_surfaces_that_cannot_be_fitted_are_refused_in_a_paragraph(given: dict[str, object], words: str) -> None:
    with pytest.raises(sessionfx.SessionFXError, match=words) as refusal:
        sessionfx.fit_run(**({"bold": image(), "events": EVENTS, "contrasts": "go - stop", "t_r": TR} | given))
    assert "\n" not in str(refusal.value)


def test_images_of_a_surface_need_a_mesh(tmp_path: Path) -> None:
    for hemi, side in HEMISPHERES.items():
        image().data.to_filename(tmp_path / f"sub-1_hemi-{hemi}_bold.func.gii")
        assert side in image().data.parts
    go = fitted(tmp_path / "sub-1_bold.func.gii")
    with pytest.raises(sessionfx.SessionFXError, match=r"hold the mesh of each hemisphere, and none is known. Give it"):
        _ = go.z
    assert "vertices" in repr(go)


def test_volumes_and_surfaces_are_not_combined() -> None:
    volume = nib.Nifti1Image(np.random.default_rng(0).normal(100, 1, (3, 3, 3, 60)), np.eye(4))
    mask = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
    with pytest.raises(sessionfx.SessionFXError, match="cannot be combined"):
        sessionfx.combine([fitted(image()), fitted(volume, mask=mask)])

"""Runs fitted and combined from Python have the numbers of nilearn, of closed forms and of the program."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.contrasts import compute_fixed_effects
from nilearn.glm.first_level import FirstLevelModel

import sessionfx
from program import CONTRAST

AFFINE = np.array([[4.0, 0, 0, -10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])
SHAPE = (5, 5, 4)
EVENTS = pd.DataFrame({"onset": np.arange(5.0, 150, 12), "duration": 4.0, "trial_type": ["a", "b", "c"] * 4 + ["a"]})
MASK = nib.Nifti1Image((np.indices(SHAPE).sum(axis=0) > 2).astype(np.uint8), AFFINE)
INSIDE = MASK.get_fdata() > 0


def bold(seed: int = 0, n_volumes: int = 80, dtype: type = np.float64) -> nib.Nifti1Image:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (*SHAPE, n_volumes)).cumsum(axis=-1) * 0.5 + rng.normal(0, 2, (*SHAPE, n_volumes))
    return nib.Nifti1Image((1000 + 5 * noise).astype(dtype), AFFINE)


def confounds(n_volumes: int = 80) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(7).normal(size=(n_volumes, 3)), columns=["x", "y", "rot_z"])


def fitted(seed: int = 0, contrasts: str | list[str] = "a - b", **options: object) -> sessionfx.RunEstimates:
    return sessionfx.fit_run(bold(seed), EVENTS, contrasts, mask=MASK, t_r=2.0, **options)


def values(image: nib.Nifti1Image) -> np.ndarray:
    return image.get_fdata()[INSIDE]


@pytest.mark.parametrize("noise_model", ["ar1", "ols"])
@pytest.mark.parametrize("smoothing_fwhm", [None, 6.0])
def test_a_fit_is_that_of_nilearn(noise_model, smoothing_fwhm):
    mine = fitted(confounds=confounds(), noise_model=noise_model, smoothing_fwhm=smoothing_fwhm)["aMinusB"]
    reference = FirstLevelModel(
        t_r=2.0, mask_img=MASK, hrf_model="glover", high_pass=0.01, noise_model=noise_model, signal_scaling=0,
        smoothing_fwhm=smoothing_fwhm,
    ).fit(bold(), EVENTS, confounds())  # fmt: skip
    theirs = reference.compute_contrast("a - b", output_type="all")
    for name, other in {"effect": "effect_size", "variance": "effect_variance", "t": "stat", "z": "z_score",
                        "p": "p_value"}.items():  # fmt: skip
        np.testing.assert_allclose(values(mine.image(name)), values(theirs[other]), rtol=1e-6, err_msg=name)
    assert (values(mine.dof) == 80 - len(reference.design_matrices_[0].columns)).all()
    assert np.array_equal(mine.mask.get_fdata() > 0, INSIDE)
    for image in (mine.effect, mine.t, mine.dof):
        assert (image.get_fdata()[~INSIDE] == 0).all()
    assert (mine.p.get_fdata()[~INSIDE] == 1).all()


def test_an_f_test_is_that_of_nilearn_and_has_no_t():
    f_test = fitted(contrasts="F:any = a; b; c", noise_model="ols")["any"]
    reference = FirstLevelModel(t_r=2.0, mask_img=MASK, high_pass=0.01, noise_model="ols", signal_scaling=0)
    reference.fit(bold(), EVENTS)
    rows = np.eye(3, len(reference.design_matrices_[0].columns))
    theirs = reference.compute_contrast(rows, stat_type="F", output_type="stat")
    np.testing.assert_allclose(values(f_test.f), values(theirs), rtol=1e-6)
    assert f_test.image("effects").shape == (*SHAPE, 3)
    with pytest.raises(sessionfx.SessionFXError, match=r"no map of t; those there are: effects, covariance, F"):
        _ = f_test.t


def test_memory_and_files_give_the_same_bits(tmp_path):
    nib.save(bold(), tmp_path / "bold.nii.gz")
    nib.save(MASK, tmp_path / "mask.nii.gz")
    EVENTS.to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    confounds().to_csv(tmp_path / "confounds.tsv", sep="\t", index=False)
    inputs = (str(tmp_path / "bold.nii.gz"), tmp_path / "events.tsv")
    from_files = sessionfx.fit_run(
        *inputs, "a - b", mask=nib.load(tmp_path / "mask.nii.gz"), t_r=2.0, confounds=tmp_path / "confounds.tsv",
        confound_columns=["rot_*", "x", "y"],
    )  # fmt: skip
    in_memory = fitted(confounds=confounds()[["rot_z", "x", "y"]])
    pd.testing.assert_frame_equal(from_files.design_matrix, in_memory.design_matrix)
    for statistic in in_memory["aMinusB"].statistics:
        first, second = (run["aMinusB"].image(statistic).get_fdata() for run in (from_files, in_memory))
        assert np.array_equal(first, second), statistic


def test_an_image_in_memory_loses_no_digits_by_its_header():
    image = nib.Nifti1Image(bold().get_fdata(), AFFINE)
    image.header.set_data_dtype(np.int16)  # as of an image that was loaded, and changed
    image.header.set_zooms((4, 4, 4, 2.0))
    run = sessionfx.fit_run(image, EVENTS, "a - b", mask=MASK)
    assert np.array_equal(run["aMinusB"].effect.get_fdata(), fitted()["aMinusB"].effect.get_fdata())
    assert run.warnings == ("t_r is not given; the image header's 2 s is used.",)


def test_images_of_types_that_nifti_has_not():
    mask = nib.Nifti1Image(MASK.get_fdata().astype(np.int64), AFFINE, dtype=np.int64)
    run = sessionfx.fit_run(bold(dtype=np.float32), EVENTS, "a - b", mask=mask, t_r=2.0)
    assert np.array_equal(run["aMinusB"].mask.get_fdata() > 0, INSIDE)
    np.testing.assert_allclose(values(run.mean), bold().get_fdata().mean(axis=-1)[INSIDE], rtol=1e-5)


def test_without_a_mask_one_is_computed():
    centre = np.linalg.norm(np.indices((12, 12, 12)) - 5.5, axis=0) < 4
    series = np.random.default_rng(0).normal(0, 1, (12, 12, 12, 80)) + 500 * centre[..., None]
    run = sessionfx.fit_run(nib.Nifti1Image(series, AFFINE), EVENTS, "a - b", t_r=2.0)
    assert "one was computed" in run.warnings[0]
    assert 100 < run["aMinusB"].mask.get_fdata().sum() <= centre.sum()


def test_what_a_run_has_not_is_left_out_with_the_reason():
    run = fitted(contrasts=["a - b", "a - d"])
    assert list(run) == ["aMinusB"]
    assert run.left_out == {"aMinusD": "condition d does not occur in it"}
    assert repr(run) == "RunEstimates of aMinusB"


@pytest.mark.parametrize("fixed_effects", ["equal", "precision"])
def test_runs_are_combined_as_by_nilearn(fixed_effects):
    runs = [fitted(seed, noise_model="ols")["aMinusB"] for seed in range(3)]
    mine = sessionfx.combine(runs, fixed_effects=fixed_effects, fixed_effects_dof="sum")
    effect, variance, t, z = compute_fixed_effects(
        [run.effect for run in runs], [run.variance for run in runs], MASK,
        precision_weighted=fixed_effects == "precision", dofs=[float(values(run.dof)[0]) for run in runs],
    )  # fmt: skip
    for name, other in {"effect": effect, "variance": variance, "t": t, "z": z}.items():
        np.testing.assert_allclose(values(mine.image(name)), values(other), rtol=1e-10, err_msg=name)


def test_sessions_are_combined_by_a_contrast_in_closed_form():
    sessions = {label: fitted(seed)["aMinusB"] for seed, label in enumerate(["01", "02", "03"])}
    slope = sessionfx.combine(sessions, "linear")
    effects, variances = ({label: values(run.image(name)) for label, run in sessions.items()}
                          for name in ("effect", "variance"))  # fmt: skip
    np.testing.assert_allclose(values(slope.effect), (effects["03"] - effects["01"]) / 2)
    parts = np.array([variances["01"], variances["03"]]) / 4
    np.testing.assert_allclose(values(slope.variance), parts.sum(axis=0))
    dof = values(sessions["01"].dof)[0]
    np.testing.assert_allclose(values(slope.dof), parts.sum(axis=0) ** 2 / (parts**2 / dof).sum(axis=0))
    backwards = sessionfx.combine({"ses-01": sessions["01"], "ses-03": sessions["03"]}, "ses-01 - ses-03")
    np.testing.assert_allclose(values(backwards.t), -values(slope.t))


@pytest.mark.slow
def test_the_numbers_are_those_of_the_participant_level(small_dataset, small_output):
    derivatives = small_dataset / "derivatives" / "fmriprep" / "sub-01"
    sessions: dict[str, list[sessionfx.StatImages]] = {}
    for image in sorted(derivatives.glob("ses-*/func/*_desc-preproc_bold.nii.gz")):
        start = image.name.split("_space-")[0]
        run = sessionfx.fit_run(
            image,
            small_dataset / "sub-01" / image.parts[-3] / "func" / f"{start}_events.tsv",
            CONTRAST,
            mask=Path(str(image).replace("_desc-preproc_bold", "_desc-brain_mask")),
            confounds=image.with_name(f"{start}_desc-confounds_timeseries.tsv"),
            t_r=2.0,
            start_time=_start_time(image),
            smoothing_fwhm=8,
        )
        sessions.setdefault(image.parts[-3], []).append(run["incongruentMinusCongruent"])
    assert [len(runs) for runs in sessions.values()] == [2, 2, 2]
    by_session = {session: sessionfx.combine(runs) for session, runs in sessions.items()}
    for session, combined in by_session.items():
        _compare(combined, small_output / "sub-01" / session / "func", "")
    change = sessionfx.combine(by_session, "ses-02 - ses-01")
    _compare(change, small_output / "sub-01" / "func", "_sessions-ses02MinusSes01")


def _start_time(image: Path) -> float:

    sidecar = json.loads(Path(str(image).replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
    return float(sidecar.get("StartTime", 0.0))


def _compare(combined: sessionfx.StatImages, folder: Path, sessions: str) -> None:
    for statistic in ("effect", "variance", "t", "z", "p", "dof"):
        pattern = f"*_contrast-incongruentMinusCongruent{sessions}_*stat-{statistic}_*statmap.nii.gz"
        (path,) = folder.glob(pattern)
        theirs = nib.load(path)
        mine = combined.image(statistic).get_fdata().astype(theirs.get_data_dtype())
        assert np.array_equal(mine, np.asarray(theirs.dataobj)), path.name


def other_grid() -> nib.Nifti1Image:
    return nib.Nifti1Image(MASK.get_fdata(), AFFINE + np.diag([0, 0, 1, 0]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": other_grid()}, r"The mask mask.nii \(5×5×4 voxels of 4×4×5 mm\) is not on the grid of bold.nii"),
        ({"mask": "no.nii.gz"}, "no.nii.gz"),
        ({"mask": 1}, "mask is of type int"),
        ({"hrf_model": "gloverr"}, "hrf_model: invalid choice: 'gloverr'"),
        ({"hrf_model": "fir"}, "--fir-delays"),
        ({"high_pass": -1}, "high_pass: '-1' is not above zero"),
        ({"t_r": 2000}, "^This run: RepetitionTime is 2000.0 by t_r"),
        ({"contrasts": "a -"}, "'a -' cannot be read"),
        ({"contrasts": "d"}, None),
        ({"events": EVENTS.rename(columns={"onset": "onsets"})}, "^events.tsv has no column 'onset'"),
        ({"events": EVENTS.assign(onset=EVENTS["onset"] * 1000)}, "^events.tsv: no event falls into the run"),
        ({"confounds": confounds(70)}, "^confounds.tsv has 70 rows, but the run has 80 volumes"),
        ({"confounds": confounds(), "confound_columns": ["z"]}, "no column 'z'"),
        ({"fd_threshold": 0.5}, "needs 'framewise_displacement'"),
        ({"bold": MASK}, "bold.nii has shape"),
        ({"high_pass": 0.3}, "^This run has 80 volumes for"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_a_paragraph(options, words, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # in which no other process works
    asked = {"bold": bold(), "events": EVENTS, "contrasts": "a - b", "mask": MASK, "t_r": 2.0} | options
    if words is None:
        assert len(sessionfx.fit_run(**asked)) == 0
        return
    with pytest.raises(sessionfx.SessionFXError, match=words) as refusal:
        sessionfx.fit_run(**asked)
    assert "\n" not in str(refusal.value)
    assert tempfile.gettempdir() not in str(refusal.value)
    assert not list(tmp_path.glob("sessionfx-*"))


@pytest.mark.parametrize(
    ("sessions", "asked", "words"),
    [
        ([], {}, "nothing to combine"),
        (["01", "02"], {"session_contrast": "ses-03 - ses-01"}, "names ses-03"),
        (["01", "02"], {"session_contrast": "quadratic"}, "cannot be answered from ses-01, ses-02"),
        (["01", "02"], {"fixed_effects": "best"}, "fixed_effects: invalid choice"),
        (None, {"session_contrast": "linear"}, "needs to know which session"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_a_paragraph(sessions, asked, words):
    run = fitted(noise_model="ols")["aMinusB"]
    given = [run, run] if sessions is None else dict.fromkeys(sessions, run)
    with pytest.raises(sessionfx.SessionFXError, match=words):
        sessionfx.combine(given, **asked)


def test_other_grids_and_units_are_not_combined():
    run = fitted(noise_model="ols")["aMinusB"]
    moved = nib.Nifti1Image(bold().get_fdata(), AFFINE + np.eye(4, k=3))
    mask = nib.Nifti1Image(MASK.get_fdata(), moved.affine)
    other = sessionfx.fit_run(moved, EVENTS, "a - b", mask=mask, t_r=2.0)["aMinusB"]
    with pytest.raises(sessionfx.SessionFXError, match=r"map 1 .* and map 2 .* lie on different grids"):
        sessionfx.combine([run, other])
    raw = fitted(signal_scaling="none")["aMinusB"]
    with pytest.raises(sessionfx.SessionFXError, match="arbitrary units and percent signal change"):
        sessionfx.combine([run, raw])

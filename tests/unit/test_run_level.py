"""The run level gives nilearn's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel

from sessionfx.ask.contrasts import parse_contrast
from sessionfx.bids.dataset import open_dataset
from sessionfx.bids.runs import RunInputs, select_runs
from sessionfx.options import FirstLevelModel as Model
from sessionfx.options import Selection
from sessionfx.participant.glm import fit_run
from sessionfx.participant.run import FittedRun, analyse_run
from sessionfx.statistics.estimates import t_to_z

CONTRAST = parse_contrast("incongruent - congruent")
TOLERANCE = 1e-5


def runs_of(dataset: Path, participant: str, session: str) -> list[RunInputs]:
    index = open_dataset(dataset, [dataset / "derivatives" / "fmriprep"], participants=[participant])
    selection = select_runs(index, Selection(participant_label=(participant,)))
    return [run for run in selection.runs[participant] if run.session == session]


def model(hrf: str = "glover", **changes: object) -> Model:
    return Model(hrf_model=hrf, **changes)


def nilearn_fit(runs: list[RunInputs], fitted: list[FittedRun], mask: np.ndarray, **changes: object) -> FirstLevelModel:
    """Fit nilearn's own model from the same files, with designs it makes itself."""
    metadata = runs[0].metadata
    confounds = [
        run.design.matrix[[c for c in run.design.matrix if c.startswith(("trans", "rot", "non_steady"))]]
        for run in fitted
    ]
    image = nib.load(runs[0].bold)
    flm = FirstLevelModel(
        t_r=metadata["RepetitionTime"], slice_time_ref=metadata["StartTime"] / metadata["RepetitionTime"],
        mask_img=nib.Nifti1Image(mask.astype(np.uint8), image.affine), signal_scaling=0, minimize_memory=False,
        **{"noise_model": "ar1", "drift_model": "cosine", "high_pass": 0.01, "hrf_model": "glover", **changes},
    )  # fmt: skip
    events = [pd.read_csv(run.events, sep="\t")[["onset", "duration", "trial_type"]] for run in runs]
    return flm.fit(
        [str(run.bold) for run in runs], events=events, confounds=[frame.reset_index(drop=True) for frame in confounds]
    )


def in_mask(image: nib.Nifti1Image, mask: np.ndarray) -> np.ndarray:
    return image.get_fdata()[mask]


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Relative to the size of the value, and for values near zero to a thousandth of the map's."""
    scale = np.maximum(np.abs(theirs), 1e-3 * np.abs(theirs).max())
    assert (np.abs(ours - theirs) / scale).max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["ar1", "ols"])
@pytest.mark.parametrize("smoothing", [None, 10.0])
@pytest.mark.parametrize("hrf", ["glover", "spm + derivative"])
def test_one_run_equals_first_level_model(small_dataset: Path, noise: str, smoothing: float | None, hrf: str) -> None:
    run = runs_of(small_dataset, "01", "01")[:1]
    fitted = analyse_run(run[0], [CONTRAST], model(noise_model=noise, smoothing_fwhm=smoothing, hrf=hrf))
    flm = nilearn_fit(run, [fitted], fitted.mask, noise_model=noise, smoothing_fwhm=smoothing, hrf_model=hrf)
    theirs = flm.compute_contrast(CONTRAST.expression, output_type="all")
    ours = fitted.estimates[CONTRAST.label]
    np.testing.assert_allclose(fitted.design.matrix.to_numpy(), flm.design_matrices_[0].to_numpy(), atol=1e-9)
    assert_close(ours.estimate.effect, in_mask(theirs["effect_size"], fitted.mask))
    assert_close(ours.estimate.variance, in_mask(theirs["effect_variance"], fitted.mask))
    np.testing.assert_allclose(ours.estimate.z, in_mask(theirs["z_score"], fitted.mask), atol=1e-3)
    np.testing.assert_allclose(ours.estimate.p, in_mask(theirs["p_value"], fitted.mask), atol=1e-5)


@pytest.mark.slow
def test_session_equals_multi_run_model(small_dataset: Path, small_output: Path) -> None:
    runs = runs_of(small_dataset, "01", "02")
    fitted = [analyse_run(run, [CONTRAST], model(smoothing_fwhm=8.0)) for run in runs]
    mask = np.logical_and.reduce([run.mask for run in fitted])
    assert (fitted[0].mask == mask).all(), "runs of a session share their mask in this dataset"
    flm = nilearn_fit(runs, fitted, mask, smoothing_fwhm=8.0)
    theirs = flm.compute_contrast([CONTRAST.expression] * 2, output_type="all")
    start = "sub-01_ses-02_task-stroop_space-MNI152NLin2009cAsym_contrast-incongruentMinusCongruent"
    folder = small_output / "sub-01" / "ses-02" / "func"
    for statistic, name in {"effect": "effect_size", "variance": "effect_variance"}.items():
        ours = nib.load(folder / f"{start}_stat-{statistic}_desc-fixedEffects_statmap.nii.gz").get_fdata()
        assert_close(ours[mask], in_mask(theirs[name], mask))
        assert not ours[~mask].any()
    # nilearn's z has the sum of the runs' degrees of freedom
    t = nib.load(folder / f"{start}_stat-t_desc-fixedEffects_statmap.nii.gz").get_fdata()
    z = t_to_z(t[mask], sum(run.dof for run in fitted))
    np.testing.assert_allclose(z, in_mask(theirs["z_score"], mask), atol=1e-3)


def test_dof_of_a_session_lie_between_those_of_a_run_and_the_sum(small_output: Path) -> None:
    name = "sub-01_ses-01_task-stroop_space-MNI152NLin2009cAsym_contrast-incongruentMinusCongruent_stat-t_desc-fixedEffects_statmap.json"
    sidecar = json.loads((small_output / "sub-01" / "ses-01" / "func" / name).read_text())
    designs = sorted((small_output / "sub-01" / "ses-01" / "func").glob("*_design.tsv"))
    expected = [60 - np.linalg.matrix_rank(pd.read_csv(path, sep="\t").to_numpy()) for path in designs]
    assert sidecar["InputDegreesOfFreedom"] == expected
    assert sidecar["DegreesOfFreedomMethod"] == "Satterthwaite"
    path = small_output / "sub-01" / "ses-01" / "func" / name.replace("stat-t", "stat-dof").replace(".json", ".nii.gz")
    dof = nib.load(path).get_fdata()
    inside = dof[dof > 0]
    assert sidecar["DegreesOfFreedom"] == np.median(inside)
    assert min(expected) <= inside.min() < inside.max() <= sum(expected) * (1 + 1e-12)


@pytest.mark.slow
def test_confounds_that_others_explain_cost_no_degrees_of_freedom(small_dataset: Path) -> None:
    """The slow drifts of fMRIPrep are among those of the model."""
    (run, *_) = runs_of(small_dataset, "01", "01")
    plain, explained = (
        analyse_run(run, [CONTRAST], model(noise_model="ols", confounds=confounds))
        for confounds in (("rot_x",), ("rot_x", "cosine*"))
    )
    assert not plain.redundant and explained.redundant
    assert plain.dof == explained.dof == explained.estimates[CONTRAST.label].estimate.dof


def test_redundant_confound_changes_nothing_but_is_not_counted() -> None:
    rng = np.random.default_rng(1)
    design = np.column_stack([rng.normal(size=(80, 3)), np.ones(80)])
    signal = 1000 + rng.normal(size=(80, 50))
    contrast = np.array([1.0, -1, 0, 0])
    full = fit_run(signal, design, {"c": contrast}, "ols")["c"]
    # a confound that repeats another one changes nothing
    repeated = np.column_stack([design, design[:, 2] * 3])
    same = fit_run(signal, repeated, {"c": np.append(contrast, 0.0)}, "ols")["c"]
    np.testing.assert_allclose(same.effect, full.effect, rtol=1e-9)
    np.testing.assert_allclose(same.variance, full.variance, rtol=1e-9)
    assert same.dof == full.dof == 76


def test_estimable_contrast_survives_collinear_conditions() -> None:
    """a, b and their copies: only a's and b's sums are determined, and these come out as in the reduced design."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 80))
    signal = 1000 + rng.normal(size=(80, 20))
    reduced = fit_run(signal, np.column_stack([a, b, np.ones(80)]), {"c": np.array([1.0, -1, 0])}, "ols")["c"]
    copied = np.column_stack([a, a, b, np.ones(80)])
    both = fit_run(signal, copied, {"c": np.array([1.0, 1, -1, 0])}, "ols")["c"]
    # β_a1 + β_a2 − β_b of the copied design is β_a − β_b of the reduced one
    np.testing.assert_allclose(both.effect, reduced.effect, rtol=1e-9)
    np.testing.assert_allclose(both.variance, reduced.variance, rtol=1e-9)

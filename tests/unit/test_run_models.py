"""What the options of the first level make of a run: each equals a plain nilearn script."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel

from sessionfx.ask.contrasts import conditions_asked, parse_contrast
from sessionfx.bids.runs import RunInputs
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel as Model
from sessionfx.participant.run import FittedRun, analyse_run

SHAPE, N_VOLUMES, REPETITION_TIME = (4, 3, 3), 90, 1.5
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SCRUBBED = (7, 40)


@pytest.fixture
def run(tmp_path: Path) -> RunInputs:
    """A run in double precision, with confounds as fMRIPrep writes them and regressors of a user's own."""
    rng = np.random.default_rng(7)
    baseline = rng.uniform(500, 1500, (*SHAPE, 1))
    image = nib.Nifti1Image(baseline * (1 + 0.01 * rng.standard_normal((*SHAPE, N_VOLUMES)).cumsum(-1) / 5), AFFINE)
    image.header.set_zooms((3, 3, 3, REPETITION_TIME))
    nib.save(image, tmp_path / "bold.nii")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), tmp_path / "mask.nii")
    onsets = np.arange(4, 120, 7.3)
    events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": ["go", "stop"] * 8})
    events.to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    motion = rng.standard_normal((N_VOLUMES, 6)) / 10
    confounds = pd.DataFrame(motion, columns=[f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"])
    confounds["framewise_displacement"] = [np.nan, *rng.uniform(0, 0.4, N_VOLUMES - 1)]
    confounds["std_dvars"] = [np.nan, *rng.uniform(0.8, 1.2, N_VOLUMES - 1)]
    confounds.loc[[7, 31], "framewise_displacement"] = [0.9, 0.6]
    confounds.loc[[31, 52], "std_dvars"] = [1.9, 1.6]
    for number, volume in enumerate(SCRUBBED):
        confounds[f"motion_outlier{number:02d}"] = (np.arange(N_VOLUMES) == volume) * 1.0
    confounds.to_csv(tmp_path / "confounds.tsv", sep="\t", index=False, na_rep="n/a")
    own = pd.DataFrame({"pupil": rng.standard_normal(N_VOLUMES), "heart rate": rng.uniform(50, 90, N_VOLUMES)})
    own.to_csv(tmp_path / "own.tsv", sep="\t", index=False)
    return RunInputs(
        {"sub": "01", "task": "x"}, tmp_path / "bold.nii", tmp_path / "mask.nii", tmp_path / "events.tsv",
        tmp_path / "confounds.tsv", {"RepetitionTime": REPETITION_TIME},
    )  # fmt: skip


def with_own(run: RunInputs) -> RunInputs:
    return RunInputs(**{**vars(run), "regressors": run.bold.with_name("own.tsv")})


def spikes(*volumes: int) -> pd.DataFrame:
    return pd.DataFrame({f"spike_{volume}": (np.arange(N_VOLUMES) == volume) * 1.0 for volume in volumes})


def assert_nilearns(
    run: RunInputs, contrast: str, model: Model, *, confounds: pd.DataFrame | None = None, **script: object
) -> FittedRun:
    """Compare effect, variance and degrees of freedom with a script that uses nilearn alone."""
    fitted = analyse_run(run, [parse_contrast(f"x={contrast}")], model)
    flm = FirstLevelModel(
        t_r=REPETITION_TIME, slice_time_ref=0, mask_img=str(run.mask), minimize_memory=False,
        **{"noise_model": "ar1", "drift_model": "cosine", "high_pass": 0.01, "hrf_model": "glover",
           "signal_scaling": 0, **script},
    )  # fmt: skip
    table = pd.read_csv(run.confounds, sep="\t")
    motion = table[[column for column in table if column.startswith(("trans", "rot"))]]
    flm.fit(
        str(run.bold),
        events=pd.read_csv(run.events, sep="\t"),
        confounds=motion if confounds is None else pd.concat([motion, confounds], axis="columns"),
    )
    weights = parse_contrast(contrast).weights
    columns = list(flm.design_matrices_[0])
    assert set(weights) <= set(columns), "the names are nilearn's own"
    theirs = flm.compute_contrast(np.array([weights.get(column, 0.0) for column in columns]), output_type="all")
    ours = fitted.estimates["x"].estimate
    inside = nib.load(run.mask).get_fdata() > 0
    for found, statistic in ((ours.effect, "effect_size"), (ours.variance, "effect_variance")):
        expected = theirs[statistic].get_fdata()[inside]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert set(columns) == set(fitted.design.matrix.columns)
    assert ours.typical_dof == N_VOLUMES - np.linalg.matrix_rank(flm.design_matrices_[0].to_numpy())
    return fitted


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["ar1", "ols"])
@pytest.mark.parametrize(
    ("hrf", "contrast"),
    [
        ("glover + derivative", "go_derivative - stop_derivative"),
        ("spm + derivative", "go + go_derivative"),
        ("glover + derivative + dispersion", "go_dispersion"),
        ("spm + derivative + dispersion", "stop_dispersion - go_dispersion"),
    ],
)
def test_derivatives_and_dispersions_are_columns_with_nilearns_names(
    run: RunInputs, hrf: str, contrast: str, noise: str
) -> None:
    assert_nilearns(run, contrast, Model(hrf_model=hrf, noise_model=noise), hrf_model=hrf, noise_model=noise)


@pytest.mark.slow
@pytest.mark.parametrize("delays", [(0, 1, 2, 3, 4, 5, 6), (2, 4, 8)])
def test_finite_impulse_responses_are_nilearns(run: RunInputs, delays: tuple[int, ...]) -> None:
    model = Model(hrf_model="fir", fir_delays=delays)
    fitted = assert_nilearns(run, "go_delay_4 - stop_delay_2", model, hrf_model="fir", fir_delays=list(delays))
    assert fitted.design.condition_columns == tuple(f"{c}_delay_{d}" for c in ("go", "stop") for d in delays)


def test_finite_impulse_responses_of_irregular_volumes_are_refused(run: RunInputs) -> None:
    times = np.round(np.arange(N_VOLUMES) * REPETITION_TIME + 0.7 * (np.arange(N_VOLUMES) % 2), 3)
    irregular = RunInputs(**{**vars(run), "metadata": {"VolumeTiming": [float(time) for time in times]}})
    with pytest.raises(ParticipantError, match="counts delays in volumes, which are not equally spaced"):
        analyse_run(irregular, [parse_contrast("go_delay_1")], Model(hrf_model="fir", fir_delays=(1,)))


def test_what_is_wrong_with_the_events_of_a_column_asked_for_is_refused() -> None:
    names = ("go_derivative", "stop_dispersion", "wait_delay_12")
    assert conditions_asked([parse_contrast(name) for name in names]) == {"go", "stop", "wait", *names}


@pytest.mark.parametrize(
    ("thresholds", "lost", "words"),
    [
        ({"fd_threshold": 0.5}, (7, 31), "2 of 90 volumes (2%) are lost, each to a regressor of its own"),
        ({"dvars_threshold": 1.5}, (31, 52), "(std_dvars above 1.5: 2)"),
        ({"fd_threshold": 0.5, "dvars_threshold": 1.5}, (7, 31, 52), "(framewise_displacement above 0.5: 2, std_dvars"),
        ({"fd_threshold": 0.9}, (), ""),
    ],
)
def test_volumes_beyond_a_threshold_of_motion_get_a_regressor_each(
    run: RunInputs, thresholds: dict[str, float], lost: tuple[int, ...], words: str
) -> None:
    fitted = assert_nilearns(run, "go - stop", Model(**thresholds), confounds=spikes(*lost))
    assert fitted.design.lost == lost
    found = [warning for warning in fitted.warnings if "are lost" in warning]
    assert len(found) == bool(words)
    assert all(words in warning for warning in found)


def test_a_volume_that_scrub_marks_already_has_one_regressor(run: RunInputs) -> None:
    fitted = analyse_run(run, [parse_contrast("go")], Model(confounds=("scrub",), fd_threshold=0.5))
    single = [column for column, values in fitted.design.matrix.items() if np.count_nonzero(values) == 1]
    assert single == ["motion_outlier00", "motion_outlier01", "spike_31"]
    assert fitted.design.lost == (7, 31)
    assert not fitted.redundant


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda table: table.drop(columns="framewise_displacement"),
            "needs 'framewise_displacement', and .* has no such",
        ),
        (lambda table: table.iloc[1:], "has 89 rows, but the run has 90 volumes"),
        (
            lambda table: table.assign(framewise_displacement="n/a"),
            "line 3: n/a beyond the first volume, where --fd-thr",
        ),
    ],
)
def test_thresholds_without_their_values_are_refused(run: RunInputs, spoil: object, message: str) -> None:
    table = spoil(pd.read_csv(run.confounds, sep="\t", dtype=str, keep_default_na=False))
    table.to_csv(run.confounds, sep="\t", index=False)
    with pytest.raises(ParticipantError, match=message):
        analyse_run(run, [parse_contrast("go")], Model(confounds=("none",), fd_threshold=0.5))


def test_thresholds_without_a_confounds_file_are_refused(run: RunInputs) -> None:
    without = RunInputs(**{**vars(run), "confounds": None})
    with pytest.raises(
        ParticipantError, match="--dvars-threshold needs 'std_dvars', and the run has no confounds file"
    ):
        analyse_run(without, [parse_contrast("go")], Model(dvars_threshold=1.5))


@pytest.mark.parametrize("contrast", ["go - stop", "pupil", "go - 0.5 * pupil", "`heart rate`"])
def test_own_regressors_stand_in_the_design_and_in_contrasts(run: RunInputs, contrast: str) -> None:
    own = pd.read_csv(run.bold.with_name("own.tsv"), sep="\t")
    fitted = assert_nilearns(with_own(run), contrast, Model(), confounds=own)
    assert fitted.design.own_columns == ("pupil", "heart rate")
    assert fitted.design.condition_columns == ("go", "stop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.rsplit("\n", 2)[0] + "\n", r"own.tsv has 89 rows, but the run has 90 volumes"),
        (lambda text: re.sub(r"\n[^\t]+\t", "\nn/a\t", text, count=1), r"own.tsv, column 'pupil', line 2: n/a"),
        (lambda text: text.replace("pupil", "trans_x"), "several of its columns are called trans_x.*--regressors"),
        (lambda text: text.replace("\t", ","), "separated by commas"),
    ],
)
def test_own_regressors_that_do_not_fit_are_refused(run: RunInputs, change: object, message: str) -> None:
    path = run.bold.with_name("own.tsv")
    path.write_text(change(path.read_text()))
    with pytest.raises(ParticipantError, match=message):
        analyse_run(with_own(run), [parse_contrast("go")], Model())


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["ar1", "ols"])
@pytest.mark.parametrize(("scaling", "theirs"), [("voxel", 0), ("grand-mean", (0, 1)), ("none", False)])
def test_signals_are_scaled_as_nilearn_scales_them(run: RunInputs, scaling: str, theirs: object, noise: str) -> None:
    model = Model(signal_scaling=scaling, noise_model=noise)
    assert_nilearns(run, "go - stop", model, signal_scaling=theirs, noise_model=noise)


def test_the_grand_mean_is_one_number_for_all_voxels(run: RunInputs) -> None:
    found = {
        scaling: analyse_run(run, [parse_contrast("go")], Model(signal_scaling=scaling)).estimates["go"].estimate.effect
        for scaling in ("grand-mean", "none")
    }
    np.testing.assert_allclose(
        found["grand-mean"], 100 * found["none"] / nib.load(run.bold).get_fdata().mean(), rtol=1e-10
    )


def test_demeaned_data_have_no_grand_mean(run: RunInputs) -> None:
    image = nib.load(run.bold)
    demeaned = image.get_fdata() - image.get_fdata().mean(axis=-1, keepdims=True)
    nib.save(nib.Nifti1Image(demeaned, AFFINE, image.header), run.bold)
    found = analyse_run(run, [parse_contrast("go")], Model(signal_scaling="grand-mean")).warnings
    assert "The grand mean is below 1; percent of it mean little (are the data demeaned?)." in found
    assert not analyse_run(run, [parse_contrast("go")], Model(signal_scaling="none")).warnings

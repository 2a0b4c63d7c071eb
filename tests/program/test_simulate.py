"""The simulated dataset is valid BIDS, looks like fMRIPrep's output, and contains the effects it claims."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, compute_regressor
from nilearn.interfaces.fmriprep import load_confounds
from numpy.typing import NDArray

from sessionfx.simulate import SimulationOptions, main, signals, simulate_dataset
from sessionfx.simulate.options import build_parser

SPACE = "MNI152NLin2009cAsym"
SMALL = SimulationOptions(
    n_participants=2, n_sessions=2, n_runs=1, n_volumes=40, voxel_size=12.0, missing=(("02", "02"), ("77", "01"))
)
FIRST_RUN = "sub-01/ses-01/func/sub-01_ses-01_task-stroop_run-01"  # has a motion jump, see motion_jump
RUN_WITHOUT_JUMP = "sub-01/ses-02/func/sub-01_ses-02_task-stroop_run-01"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "bids", SMALL)


@pytest.fixture(scope="module")
def nearly_noiseless_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = replace(SMALL, n_participants=1, n_sessions=2, n_volumes=120, noise_sd=0.01, missing=())
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "quiet", options)


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_tsv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values="n/a")


def confounds_of(root: Path, run: str) -> pd.DataFrame:
    return read_tsv(root / "derivatives" / "fmriprep" / f"{run}_desc-confounds_timeseries.tsv")


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sessionfx.simulate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def brain_of(root: Path, run: str) -> NDArray[np.bool_]:
    return np.asarray(nib.load(root / f"derivatives/fmriprep/{run}_space-{SPACE}_desc-brain_mask.nii.gz").dataobj) > 0


def regions_of(root: Path) -> dict[str, NDArray[np.bool_]]:
    """Where there is an effect, by its name."""
    paths = {
        name: root / f"derivatives/truth/space-{SPACE}_desc-{name}_mask.nii.gz"
        for name in ("meanEffect", "sessionChange")
    }
    return {name: np.asarray(nib.load(path).dataobj) > 0 for name, path in paths.items()}


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_datasets_are_valid_with_and_without_raw_images_and_sessions(dataset: Path, tmp_path: Path) -> None:
    smallest = replace(SMALL, n_participants=1)
    bare = simulate_dataset(tmp_path / "bare", replace(smallest, write_raw_bold=False))
    assert not list(bare.glob("sub-*/**/*.nii.gz"))
    flat = simulate_dataset(tmp_path / "flat", replace(smallest, n_sessions=1, sessions_in_names=False))
    assert (flat / "sub-01/func/sub-01_task-stroop_run-01_bold.nii.gz").exists()
    assert not list(flat.rglob("*ses-*"))
    assert list(read_tsv(flat / "derivatives/truth/effects.tsv")) == ["participant_id", "meanEffect", "sessionChange"]
    validator = Path(sys.executable).parent / "bids-validator-deno"
    for root in (dataset, dataset / "derivatives/fmriprep", dataset / "derivatives/truth", bare, flat):
        done = subprocess.run(
            [validator, "--ignoreWarnings", "--no-color", root], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_same_seed_gives_same_bytes(dataset: Path, tmp_path: Path) -> None:
    assert files_below(simulate_dataset(tmp_path / "again", SMALL)) == files_below(dataset)


@pytest.mark.slow
def test_another_seed_gives_other_data_and_more_participants_the_same(dataset: Path, tmp_path: Path) -> None:
    other = simulate_dataset(tmp_path / "other", replace(SMALL, n_participants=1, seed=1))
    for suffix in ("bold.nii.gz", "events.tsv"):
        name = f"{FIRST_RUN}_{suffix}"
        assert (other / name).read_bytes() != (dataset / name).read_bytes()
    larger = files_below(simulate_dataset(tmp_path / "larger", replace(SMALL, n_participants=3, n_runs=2)))
    small = {name: content for name, content in files_below(dataset).items() if "sub-" in name}
    assert len(small) > 10
    assert small.items() <= larger.items()


def test_missing_session_has_no_files_and_pairs_beyond_the_design_are_ignored(dataset: Path) -> None:
    sessions = {(path.parent.name, path.name) for path in dataset.rglob("sub-*/ses-*") if path.is_dir()}
    assert sessions == {("sub-01", "ses-01"), ("sub-01", "ses-02"), ("sub-02", "ses-01")}
    effects = read_tsv(dataset / "derivatives/truth/effects.tsv")
    assert set(zip(effects["participant_id"], effects["session_id"], strict=True)) == sessions


def test_images_hold_int16_percent_scale_data_on_one_grid(dataset: Path) -> None:
    derivatives = dataset / "derivatives/fmriprep"
    bold = nib.load(derivatives / f"{FIRST_RUN}_space-{SPACE}_desc-preproc_bold.nii.gz")
    mask, region = (
        nib.load(path)
        for path in (
            derivatives / f"{FIRST_RUN}_space-{SPACE}_desc-brain_mask.nii.gz",
            dataset / f"derivatives/truth/space-{SPACE}_desc-meanEffect_mask.nii.gz",
        )
    )
    assert bold.get_data_dtype() == np.int16
    assert mask.get_data_dtype() == np.uint8
    assert (bold.dataobj.slope, bold.dataobj.inter) == (1, 0)
    assert bold.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(bold.header.get_zooms(), [12, 12, 12, 2])
    for image in (mask, region):
        np.testing.assert_array_equal(image.affine, bold.affine)
        assert image.shape == bold.shape[:3]
    inside = np.asarray(mask.dataobj) > 0
    data = bold.get_fdata()
    assert 900 < data[inside].mean() < 1100
    assert data[inside].min() > 0
    assert (data[0, 0, 0] == 0).all()  # a corner is outside the head


def test_masks_differ_between_sessions_at_a_few_voxels_but_contain_the_regions(dataset: Path) -> None:
    first, second = (brain_of(dataset, run) for run in (FIRST_RUN, RUN_WITHOUT_JUMP))
    assert 1 <= (first != second).sum() <= 12
    for region in regions_of(dataset).values():
        assert region.any()
        assert (first & second)[region].all()


# Events and confounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration", [40.0, 80.0, 240.0, 600.0])
@pytest.mark.parametrize("seed", range(5))
def test_trials_are_balanced_apart_and_inside_the_run(duration: float, seed: int) -> None:
    events = signals.make_events(duration, np.random.default_rng(seed))
    n_trials = events["trial_type"].value_counts()
    assert set(n_trials.index) == {"congruent", "incongruent"}
    assert n_trials["congruent"] == n_trials["incongruent"]
    assert (events["onset"].diff().dropna() > events["duration"].iloc[1:]).all()
    assert events["onset"].iloc[0] > 0
    last_end = events["onset"].iloc[-1] + events["duration"].iloc[-1]
    assert duration - 20 < last_end < duration
    assert events["response_time"].between(0, 1.5).all()
    assert duration < 240 or 0.4 < events["duration"].sum() / duration < 0.5


def test_confounds_have_one_row_per_volume_and_na_only_where_there_is_no_previous_volume(dataset: Path) -> None:
    confounds = confounds_of(dataset, FIRST_RUN)
    assert len(confounds) == SMALL.n_volumes
    without_first = [name for name in confounds if confounds[name].isna().iloc[0]]
    expected = [name for name in confounds if "derivative1" in name]
    assert set(without_first) == {*expected, "framewise_displacement", "dvars", "std_dvars"}
    assert len(expected) == 12
    assert not confounds.iloc[1:].isna().any(axis=None)
    assert {"csf", "white_matter", "global_signal", "a_comp_cor_05", "cosine00"} <= set(confounds)


def test_confounds_agree_with_the_motion_they_describe(dataset: Path) -> None:
    confounds = confounds_of(dataset, FIRST_RUN)
    step = confounds["rot_y"].diff()
    np.testing.assert_allclose(confounds["rot_y_derivative1"][1:], step[1:], atol=1e-8)
    np.testing.assert_allclose(confounds["trans_z_power2"], confounds["trans_z"] ** 2, rtol=1e-6)
    translation = confounds[["trans_x", "trans_y", "trans_z"]].diff().abs().sum(axis=1)
    rotation = confounds[["rot_x", "rot_y", "rot_z"]].diff().abs().sum(axis=1)
    np.testing.assert_allclose(confounds["framewise_displacement"][1:], (translation + 50 * rotation)[1:], atol=1e-5)


def test_jump_is_the_one_motion_outlier_and_other_runs_have_none(dataset: Path) -> None:
    confounds = confounds_of(dataset, FIRST_RUN)
    assert [name for name in confounds if name.startswith("motion_outlier")] == ["motion_outlier00"]
    jump = int(confounds["motion_outlier00"].idxmax())
    assert confounds["motion_outlier00"].sum() == 1
    assert confounds["framewise_displacement"].idxmax() == jump
    assert confounds["global_signal"].idxmin() == jump
    assert not [n for n in confounds_of(dataset, RUN_WITHOUT_JUMP) if n.startswith("motion_outlier")]


def test_first_volume_is_brighter_and_marked(dataset: Path) -> None:
    confounds = confounds_of(dataset, RUN_WITHOUT_JUMP)
    assert confounds["non_steady_state_outlier00"].tolist() == [1] + [0] * (SMALL.n_volumes - 1)
    ratio = confounds["global_signal"].iloc[0] / confounds["global_signal"].iloc[1:].mean()
    assert ratio == pytest.approx(1.2, abs=0.03)


def test_nilearn_reads_the_confounds_as_fmripreps(dataset: Path) -> None:
    image = dataset / f"derivatives/fmriprep/{FIRST_RUN}_space-{SPACE}_desc-preproc_bold.nii.gz"
    confounds, kept_volumes = load_confounds(
        str(image), strategy=("motion", "high_pass", "compcor"), motion="full", compcor="anat_combined"
    )
    assert len(confounds) == SMALL.n_volumes
    assert 0 not in kept_volumes  # the first volume is not in its steady state
    assert sum("a_comp_cor" in name for name in confounds) == 6
    assert sum("trans" in name or "rot" in name for name in confounds) == 24


def test_noise_has_the_requested_sd_and_autocorrelation_from_the_first_volume_on() -> None:
    noise = signals.make_noise(60, 20_000, sd=0.7, rng=np.random.default_rng(0))
    np.testing.assert_allclose(noise.std(axis=1), 0.7, rtol=0.03)
    lagged = (noise[1:] * noise[:-1]).mean() / (noise**2).mean()
    assert lagged == pytest.approx(0.4, abs=0.01)


# Truth ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("session", ["01", "02"])
def test_glm_recovers_the_true_effect_and_nothing_elsewhere(nearly_noiseless_dataset: Path, session: str) -> None:
    root = nearly_noiseless_dataset
    run = f"sub-01/ses-{session}/func/sub-01_ses-{session}_task-stroop_run-01"
    brain = nib.load(root / f"derivatives/fmriprep/{run}_space-{SPACE}_desc-brain_mask.nii.gz")
    nuisance = confounds_of(root, run).filter(regex="^(trans|rot)_[xyz]$|cosine|outlier")
    nuisance["line"] = np.linspace(-1, 1, len(nuisance))  # the drift has a straight part, cosines do not
    model = FirstLevelModel(
        t_r=2.0,
        slice_time_ref=0.5,
        hrf_model="glover",
        drift_model=None,
        mask_img=brain,
        signal_scaling=0,
        noise_model="ols",
    )
    bold = nib.load(root / f"derivatives/fmriprep/{run}_space-{SPACE}_desc-preproc_bold.nii.gz")
    model.fit(bold, read_tsv(root / f"{run}_events.tsv"), nuisance)
    estimate = model.compute_contrast("incongruent - congruent", output_type="effect_size").get_fdata()

    truth = read_tsv(root / "derivatives/truth/effects.tsv").set_index("session_id").loc[f"ses-{session}"]
    elsewhere = np.asarray(brain.dataobj) > 0
    for region, inside in regions_of(root).items():
        assert estimate[inside].mean() == pytest.approx(truth[region], rel=0.03, abs=0.01)
        elsewhere &= ~inside
    # What remains is the rounding to whole numbers (int16), 0.03 % of the baseline.
    assert abs(estimate[elsewhere].mean()) < 0.005
    assert np.abs(estimate[elsewhere]).max() < 0.1


@pytest.mark.slow
def test_a_modulator_adds_to_its_region_alone_and_is_recovered(tmp_path: Path) -> None:
    options = replace(SMALL, n_participants=1, n_volumes=120, noise_sd=0.01, missing=())
    plain, modulated = (
        simulate_dataset(tmp_path / str(slope), replace(options, modulator=slope)) for slope in (0.0, 3.0)
    )
    truth = modulated / "derivatives/truth"
    region = np.asarray(nib.load(truth / f"space-{SPACE}_desc-taskOnly_mask.nii.gz").dataobj) > 0
    for session in ("01", "02"):
        run = f"sub-01/ses-{session}/func/sub-01_ses-{session}_task-stroop_run-01"
        assert (plain / f"{run}_events.tsv").read_bytes() == (modulated / f"{run}_events.tsv").read_bytes()
        without, with_modulator = (
            nib.load(root / f"derivatives/fmriprep/{run}_space-{SPACE}_desc-preproc_bold.nii.gz").get_fdata()
            for root in (plain, modulated)
        )
        np.testing.assert_array_equal(without[~region], with_modulator[~region])
        events = read_tsv(modulated / f"{run}_events.tsv")
        heights = events["response_time"] - events.groupby("trial_type")["response_time"].transform("mean")
        times = 2.0 * (0.5 + np.arange(options.n_volumes))
        trials = events[["onset", "duration"]].assign(height=heights).to_numpy().T
        column, _ = compute_regressor(trials, "glover", times)
        added = 100 * (with_modulator - without)[region][:, 1:].mean(axis=0) / without[region].mean()
        slope = np.linalg.lstsq(column[1:], added, rcond=None)[0]
        effects = read_tsv(truth / "effects.tsv").set_index("session_id")
        assert slope == pytest.approx(effects["responseTime"][f"ses-{session}"], rel=0.02)
        (path,) = truth.glob(f"ses-{session}_*_contrast-responseTime_stat-effect_statmap.nii.gz")
        np.testing.assert_array_equal(nib.load(path).get_fdata(), 3.0 * region)


def test_effect_maps_hold_the_expected_effect_inside_the_regions_and_zero_outside(dataset: Path) -> None:
    truth, regions = dataset / "derivatives/truth", regions_of(dataset)
    assert not (regions["meanEffect"] & regions["sessionChange"]).any()
    for session, change in (("01", -0.3), ("02", 0.3)):
        (path,) = truth.glob(f"ses-{session}_*_stat-effect_statmap.nii.gz")
        expected = 1.0 * regions["meanEffect"] + change * regions["sessionChange"]
        np.testing.assert_allclose(nib.load(path).get_fdata(), expected, atol=1e-6)


def test_random_effects_have_the_requested_variances() -> None:
    options = replace(SMALL, n_participants=2000, missing=(), participant_sd=0.3, session_sd=0.15)
    effects = np.array(
        [
            [signals.session_effect(options, participant, session)["meanEffect"] for session in range(2)]
            for participant in range(options.n_participants)
        ]
    )
    assert effects.mean() == pytest.approx(1.0, abs=0.03)
    covariance = np.cov(effects.T)
    assert covariance[0, 1] == pytest.approx(0.3**2, rel=0.1)
    assert np.diag(covariance) == pytest.approx(0.3**2 + 0.15**2, rel=0.1)


def test_expected_session_change_averages_to_zero_over_sessions() -> None:
    options = SimulationOptions(n_sessions=4, session_change=0.5)
    changes = [signals.group_effect(options, session)["sessionChange"] for session in range(4)]
    assert changes == pytest.approx([-0.75, -0.25, 0.25, 0.75])


# Refusals and the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_participants": 0}, "--participants"), ({"n_sessions": -1}, "--sessions"), ({"n_runs": 1.5}, "--runs"),
        ({"n_volumes": 5}, "--volumes"), ({"voxel_size": 1.0}, "--voxel-size"), ({"seed": -1}, "--seed"),
        ({"mean_effect": float("inf")}, "--mean-effect"), ({"session_change": float("nan")}, "--session-change"),
        ({"participant_sd": -0.1}, "--participant-sd"), ({"session_sd": float("nan")}, "--session-sd"),
        ({"noise_sd": -1.0}, "--noise-sd"), ({"modulator": 51.0}, "--modulator"), ({"sessions_in_names": False}, "one session"),
        ({"n_participants": 1, "n_sessions": 1, "missing": (("01", "01"),)}, "--missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_unusable_value_is_refused_by_name(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        SimulationOptions(**fields)
    assert len(fields) > 1 or said == "one session" or next(iter(fields)) in str(refusal.value)


def test_a_folder_that_is_not_empty_and_a_file_are_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for place, said in ((tmp_path, "not empty"), (tmp_path / "thesis.txt", "is a file")):
        with pytest.raises(ValueError, match=said):
            simulate_dataset(place, SMALL)
        assert main([str(place)]) == 2
        assert said in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_empty_folder_is_used(tmp_path: Path) -> None:
    root = simulate_dataset(tmp_path, replace(SMALL, n_participants=1, n_sessions=1))
    assert root == tmp_path
    assert (root / "dataset_description.json").exists()


@pytest.mark.slow
def test_command_writes_the_same_dataset_as_the_function(dataset: Path, tmp_path: Path) -> None:
    design = ["--participants", 2, "--sessions", 2, "--runs", 1, "--volumes", 40, "--missing", "02:02"]
    done = run_command(tmp_path / "bids", *design, "--voxel-size", 12)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert done.stdout.strip() == str(tmp_path / "bids")
    assert files_below(tmp_path / "bids") == files_below(dataset)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--noise-sd", "-2"], "--noise-sd"),
        (["--volumes", "many"], "--volumes"),
        (["--missing", "05-03"], "PARTICIPANT:SESSION"),
        (["--no-sessions-in-names"], "--sessions"),
    ],
)
def test_bad_option_ends_with_a_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([str(tmp_path / "bids"), *arguments])
    except SystemExit as end:  # argparse's
        code = int(end.code or 0)
    assert code == 2
    assert word in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "bids").exists()


def test_every_option_is_on_the_command_line() -> None:
    parsed = vars(build_parser().parse_args(["out"]))
    parsed.pop("output_dir")
    assert SimulationOptions(**parsed) == SimulationOptions()


def test_help_does_not_import_the_numerical_libraries() -> None:
    code = (
        "import sys, sessionfx.simulate as s\n"
        "try:\n    s.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pandas', 'nibabel', 'nilearn', 'scipy', 'tqdm'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

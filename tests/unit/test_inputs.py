"""Inputs: the files that belong to a run are found as BIDS says, and their numbers are those nilearn reads."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from cProfile import Profile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.image import smooth_img
from nilearn.interfaces.fmriprep import load_confounds
from nilearn.maskers import NiftiMasker
from nilearn.masking import compute_epi_mask
from numpy.typing import NDArray

import program
from bids_trees import EVENTS, SPACE, make_tree, names, only_run, opened, preproc, run_name, select
from sessionfx.ask.confounds import ALWAYS, PRESETS
from sessionfx.bids.choosing import read_filters
from sessionfx.bids.dataset import Dataset, check_raw_dataset, dataset_links, find_derivative_roots
from sessionfx.bids.images import read_volume
from sessionfx.bids.runs import participants_with_runs
from sessionfx.errors import CommandLineError, DatasetError, NothingMatchesError, OutputError, ParticipantError
from sessionfx.participant.bold import RunData, open_series
from sessionfx.participant.bold import read_run as read_open_run
from sessionfx.participant.confounds import read_confounds

N_VOLUMES = 12


# Confounds --------------------------------------------------------------------------------------------------


def confounds_table(**columns: Sequence[object]) -> pd.DataFrame:
    """All of fMRIPrep's motion columns, derivatives starting with n/a, and more columns."""
    rng = np.random.default_rng(0)
    names = [*PRESETS["motion24"], *(f"a_comp_cor_{index:02d}" for index in range(7)), "global_signal"]
    table = pd.DataFrame({name: rng.normal(size=N_VOLUMES) for name in names})
    derivatives = [name for name in names if "derivative1" in name]
    table.loc[0, derivatives] = np.nan
    return table.assign(**columns)


def written(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "sub-01_task-a_desc-confounds_timeseries.tsv"
    table.to_csv(path, sep="\t", na_rep="n/a", index=False)
    return path


def one_at(row: int) -> list[int]:
    return [int(index == row) for index in range(N_VOLUMES)]


def chosen_columns(tmp_path: Path, *wanted: str, **columns: Sequence[object]) -> list[str]:
    return list(read_confounds(written(confounds_table(**columns), tmp_path), wanted, N_VOLUMES).table)


AXES = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], AXES),
        (["none"], []),
        (["motion6"], AXES),
        (["motion12"], [*AXES, *(f"{axis}_derivative1" for axis in AXES)]),
        (["compcor"], [*AXES, *(f"a_comp_cor_0{index}" for index in range(5))]),
        (["global_signal", "trans_x"], ["global_signal", "trans_x"]),
        (["a_comp_cor_0[0-2]"], ["a_comp_cor_00", "a_comp_cor_01", "a_comp_cor_02"]),
        (["rot_?", "trans_x"], ["rot_x", "rot_y", "rot_z", "trans_x"]),
        (["trans_x", "motion6", "rot_[xy]"], AXES),
    ],
)  # fmt: skip
def test_presets_globs_and_names_choose_columns_once(wanted: list[str], expected: list[str], tmp_path: Path) -> None:
    chosen = chosen_columns(tmp_path, *wanted)
    assert sorted(chosen) == sorted(expected)
    assert chosen[: len(AXES)] == expected[: len(AXES)]


def test_motion24_is_parameters_derivatives_and_the_squares_of_both(tmp_path: Path) -> None:
    chosen = set(chosen_columns(tmp_path, "motion24"))
    twelve = {f"{axis}{ending}" for axis in AXES for ending in ("", "_derivative1")}
    assert chosen == twelve | {f"{name}_power2" for name in twelve}


def test_scrub_takes_one_column_per_outlier_and_a_run_may_have_none(tmp_path: Path) -> None:
    with_outliers = chosen_columns(tmp_path, "scrub", motion_outlier00=one_at(3), motion_outlier01=one_at(7))
    assert with_outliers == [*AXES, "motion_outlier00", "motion_outlier01"]
    without = read_confounds(written(confounds_table(), tmp_path), ["scrub"], N_VOLUMES)
    assert list(without.table) == AXES
    assert without.warnings == ()


def test_a_glob_the_user_wrote_that_matches_nothing_is_named(tmp_path: Path) -> None:
    warnings = read_confounds(written(confounds_table(), tmp_path), ["motion6", "w_comp_cor_*"], N_VOLUMES).warnings
    assert warnings == ("No confound matches 'w_comp_cor_*'.",)


@pytest.mark.parametrize("wanted", [[], ["motion6"], ["global_signal"], ["rot_*"], ["none", "trans_x"], [ALWAYS]])
def test_non_steady_state_volumes_are_always_modelled(wanted: list[str], tmp_path: Path) -> None:
    steady = {"non_steady_state_outlier00": one_at(0), "non_steady_state_outlier01": one_at(1)}
    assert set(steady) <= set(chosen_columns(tmp_path, *wanted, **steady))


def test_a_plain_none_means_no_confound_at_all(tmp_path: Path) -> None:
    """The one exception: it is what nilearn does without confounds, and what parity with it needs."""
    assert chosen_columns(tmp_path, "none", non_steady_state_outlier00=one_at(0)) == []


def test_missing_first_row_takes_the_second_rows_value(tmp_path: Path) -> None:
    table = confounds_table()
    read = read_confounds(written(table, tmp_path), ["motion12"], N_VOLUMES).table
    assert table["trans_x_derivative1"].isna()[0]
    np.testing.assert_allclose(read, table[read.columns].bfill(), rtol=1e-12)


def test_confounds_equal_those_of_nilearn(simulated: Path) -> None:
    folder = simulated / "derivatives/fmriprep/sub-01/ses-01/func"
    bold = next(folder.glob("*_desc-preproc_bold.nii.gz"))
    theirs, _ = load_confounds(str(bold), strategy=("motion",), motion="full", demean=False)
    path = next(folder.glob("*_desc-confounds_timeseries.tsv"))
    ours = read_confounds(path, ["motion24"], len(theirs)).table
    assert set(PRESETS["motion24"]) <= set(theirs.columns)
    np.testing.assert_allclose(ours[list(PRESETS["motion24"])], theirs[list(PRESETS["motion24"])], rtol=1e-12)
    assert [name for name in ours if name.startswith("non_steady_state")]


def test_without_a_confounds_file_only_the_default_and_none_go_on() -> None:
    default = read_confounds(None, [], N_VOLUMES)
    assert default.table.shape == (N_VOLUMES, 0)
    assert "no confounds file" in default.warnings[0]
    assert read_confounds(None, ["none"], N_VOLUMES).warnings == ()
    with pytest.raises(ParticipantError, match="--confounds motion6: the run has no confounds file"):
        read_confounds(None, ["motion6"], N_VOLUMES)


def test_confounds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = written(confounds_table(spiky=[1, np.nan, *[0] * 10], words=["x"] * 12), tmp_path)
    with pytest.raises(ParticipantError, match=r"no column 'csf'.*trans_x"):
        read_confounds(path, ["csf"], N_VOLUMES)
    with pytest.raises(ParticipantError, match="12 rows, but the run has 13 volumes"):
        read_confounds(path, ["motion6"], 13)
    with pytest.raises(ParticipantError, match="column 'spiky', line 3: n/a beyond the first volume"):
        read_confounds(path, ["spiky"], N_VOLUMES)
    with pytest.raises(ParticipantError, match="column 'words', line 2: 'x' is not a number"):
        read_confounds(path, ["words"], N_VOLUMES)


# Images -----------------------------------------------------------------------------------------------------

SHAPE = (6, 7, 5)


def random_series(*, dtype: type = np.float32, seed: int = 0) -> NDArray[Any]:
    return (500 + 100 * np.random.default_rng(seed).normal(size=(*SHAPE, N_VOLUMES))).astype(dtype)


def save_image(path: Path, data: NDArray[Any], *, dtype: type | None = None, offset: float = 0.0) -> Path:
    affine = np.diag([-3.0, 3.0, 3.5, 1.0])
    affine[:3, 3] = (9.0 + offset, -12.0, -7.0)
    image = nib.Nifti1Image(data, affine)
    if dtype is not None:
        image.set_data_dtype(dtype)  # nibabel then scales: scl_slope and scl_inter
    image.to_filename(path)
    return path


def save_mask(path: Path, mask: NDArray[np.bool_], *, offset: float = 0.0) -> Path:
    return save_image(path, mask.astype(np.uint8), offset=offset)


def read_run(bold: Path, mask: Path | None, smoothing_fwhm: float | None) -> RunData:
    return read_open_run(open_series(bold), bold, mask, smoothing_fwhm)


def random_mask() -> NDArray[np.bool_]:
    return np.random.default_rng(1).uniform(size=SHAPE) < 0.6


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fwhm", [None, 6.0])
@pytest.mark.parametrize(
    ("made", "stored"),
    [(np.float32, None), (np.float64, None), (np.int16, None), (np.uint8, None), (np.float64, np.int16)],
    ids=["float32", "float64", "int16", "uint8", "scaled int16"],
)
def test_a_run_holds_the_numbers_of_niftimasker(
    made: type, stored: type | None, fwhm: float | None, extension: str, tmp_path: Path
) -> None:
    series = random_series(dtype=made)
    bold = save_image(tmp_path / f"bold{extension}", series, dtype=stored)
    slope = nib.load(bold).dataobj.slope
    assert (slope != 1) == (stored is not None)
    mask = save_mask(tmp_path / "mask.nii.gz", random_mask())
    theirs = NiftiMasker(mask, smoothing_fwhm=fwhm, standardize=None).fit_transform(bold)
    ours = read_run(bold, mask, fwhm)
    np.testing.assert_allclose(ours.signal, theirs, rtol=1e-6)
    np.testing.assert_allclose(ours.mean, theirs.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(ours.mask, random_mask())
    assert ours.n_brain == random_mask().sum()
    assert ours.warnings == ()


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.float64])
@pytest.mark.parametrize("fwhm", [0.5, 1.0, 6.0, 25.0])
@pytest.mark.parametrize("place", ["inside", "at an edge", "one voxel", "far apart", "a ball"])
def test_smoothing_gives_the_very_numbers_of_nilearn(kind: type, fwhm: float, place: str, tmp_path: Path) -> None:
    """Only what a mask needs is smoothed, slab by slab; that no digit differs shows that the margins are wide enough."""
    rng = np.random.default_rng(5)
    series = (800 + 100 * rng.normal(size=(21, 24, 17, 3))).astype(kind)
    mask = np.zeros(series.shape[:3], bool)
    box = {"inside": np.s_[9:13, 8:15, 6:9], "at an edge": np.s_[0:5, 20:24, 4:17], "one voxel": np.s_[10, 11, 8]}
    if place == "far apart":
        mask[2, 3, 1] = mask[18, 22, 15] = mask[4, 20, 15] = True
    elif place == "a ball":
        mask[:] = sum(((np.indices(mask.shape).T - (10, 12, 8)) / (10, 11, 8)).T ** 2) < 1
    else:
        mask[box[place]] = rng.uniform(size=mask[box[place]].shape) < 0.7 if place != "one voxel" else True
    bold, brain = save_image(tmp_path / "bold.nii.gz", series), save_mask(tmp_path / "mask.nii.gz", mask)
    theirs = smooth_img(nib.load(bold), fwhm).dataobj[mask].T
    np.testing.assert_array_equal(read_run(bold, brain, fwhm).signal, theirs)


def test_voxels_that_are_not_finite_or_do_not_vary_are_left_out_and_counted(tmp_path: Path) -> None:
    series = random_series()
    series[1, 1, 1, 3] = np.nan
    series[2, 2, 2, :] = np.inf
    series[3, 3, 3, :] = 100
    series[0, 0, 0, :] = 0
    bold, mask = save_image(tmp_path / "bold.nii", series), save_mask(tmp_path / "mask.nii", np.ones(SHAPE, bool))
    run = read_run(bold, mask, None)
    left_out = {tuple(map(int, voxel)) for voxel in np.argwhere(~run.mask)}
    assert left_out == {(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)}
    assert run.signal.shape == (N_VOLUMES, run.n_brain - 4)
    np.testing.assert_array_equal(run.signal.T, series[run.mask])
    assert [warning.split(" voxels")[0] for warning in run.warnings] == ["2", "2"]


@pytest.mark.filterwarnings("ignore:Non-finite values")
def test_smoothing_spreads_no_nan_and_leaves_out_the_same_voxels(tmp_path: Path) -> None:
    series = random_series()
    series[1, 1, 1, 3] = np.nan
    series[3, 3, 3, :] = 100
    bold, mask = save_image(tmp_path / "bold.nii", series), save_mask(tmp_path / "mask.nii", np.ones(SHAPE, bool))
    run = read_run(bold, mask, 6.0)
    assert np.isfinite(run.signal).all()
    np.testing.assert_array_equal(run.mask, read_run(bold, mask, None).mask)
    theirs = NiftiMasker(mask, smoothing_fwhm=6.0, standardize=None).fit_transform(bold)
    np.testing.assert_allclose(run.signal, theirs[:, run.mask.ravel()], rtol=1e-6)


def test_without_a_mask_it_is_computed_as_nilearn_does(simulated: Path) -> None:
    folder = simulated / "derivatives/fmriprep/sub-01/ses-01/func"
    bold = next(folder.glob("*_desc-preproc_bold.nii.gz"))
    run = read_run(bold, None, None)
    expected = np.asarray(compute_epi_mask(str(bold)).dataobj) > 0
    assert run.n_brain == expected.sum()
    assert not (run.mask & ~expected).any()
    assert "one was computed" in run.warnings[0]


def test_a_computed_mask_that_is_empty_is_not_blamed_on_the_preprocessing(tmp_path: Path) -> None:
    noise = 1000 + np.random.default_rng(0).standard_normal((5, 5, 4, N_VOLUMES)).astype(np.float32)
    bold = save_image(tmp_path / "bold.nii", noise)
    with pytest.raises(ParticipantError, match=r"bold\.nii has no brain mask in the derivatives.*desc-brain_mask"):
        read_run(bold, None, None)


def test_masks_may_be_off_by_rounding_and_not_by_more(tmp_path: Path) -> None:
    bold = save_image(tmp_path / "bold.nii", random_series())
    assert read_run(bold, save_mask(tmp_path / "near.nii", random_mask(), offset=1e-5), None).mask.any()
    with pytest.raises(ParticipantError, match=r"far\.nii.*not on the grid of .*bold\.nii"):
        read_run(bold, save_mask(tmp_path / "far.nii", random_mask(), offset=1.0), None)
    smaller = save_mask(tmp_path / "smaller.nii", random_mask()[:-1])
    with pytest.raises(ParticipantError, match=r"5×7×5 voxels.*not on the grid of .*6×7×5 voxels"):
        read_run(bold, smaller, None)


def test_unusable_images_are_refused_by_name(tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "mask.nii", random_mask())
    empty = save_mask(tmp_path / "empty.nii", np.zeros(SHAPE, bool))
    bold = save_image(tmp_path / "bold.nii.gz", random_series())
    with pytest.raises(ParticipantError, match="brain mask is empty"):
        read_run(bold, empty, None)
    with pytest.raises(ParticipantError, match="expected a 4-D series"):
        read_run(mask, mask, None)
    with pytest.raises(ParticipantError, match=r"nowhere\.nii does not exist"):
        read_run(tmp_path / "nowhere.nii", mask, None)
    constant = save_image(tmp_path / "constant.nii", np.ones((*SHAPE, N_VOLUMES), np.float32))
    with pytest.raises(ParticipantError, match="no voxel of the brain mask has finite, varying data"):
        read_run(constant, mask, None)
    with pytest.raises(ParticipantError, match="expected 3"):
        read_volume(bold)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_image_is_refused_by_name(extension: str, kept: float, tmp_path: Path) -> None:
    bold = save_image(tmp_path / f"bold{extension}", random_series())
    mask = save_mask(tmp_path / "mask.nii", random_mask())
    content = bold.read_bytes()
    bold.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ParticipantError, match=r"(?s)bold\.nii.*truncated or damaged") as caught:
        read_run(bold, mask, None)
    assert "\n" not in str(caught.value), "a message is one paragraph"


# Datasets ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program.simulated(tmp_path_factory.mktemp("simulated"))


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with size and time of modification."""
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


def test_a_run_has_its_own_files(simulated: Path) -> None:
    selection = select(simulated)
    assert selection.entities == {"task": "stroop", "space": SPACE, "cohort": None, "res": None}
    assert selection.sessions == ("01", "02")
    assert list(selection.runs) == ["01", "02"]
    assert [(run.participant, run.session) for run in selection.runs["02"]] == [("02", "01"), ("02", "02")]
    start = "sub-02/ses-01/func/sub-02_ses-01_task-stroop_run-01"
    fmriprep = simulated / "derivatives/fmriprep"
    run = selection.runs["02"][0]
    assert run.name == "sub-02_ses-01_task-stroop_run-01"
    assert run.bold == fmriprep / f"{start}_space-{SPACE}_desc-preproc_bold.nii.gz"
    assert run.mask == fmriprep / f"{start}_space-{SPACE}_desc-brain_mask.nii.gz"
    assert run.confounds == fmriprep / f"{start}_desc-confounds_timeseries.tsv"
    assert run.events == simulated / f"{start}_events.tsv"
    assert run.metadata["RepetitionTime"] == 2.0
    assert run.problem is None


def test_a_run_without_more_files_is_still_a_run(tmp_path: Path) -> None:
    run = only_run(make_tree(tmp_path, [preproc("01", "1")]))
    assert (run.mask, run.events, run.confounds, run.metadata, run.problem) == (None, None, None, {}, None)


def test_the_mask_is_that_of_the_same_space_and_resolution(tmp_path: Path) -> None:
    grids = [{"space": space, "res": res} for space in (SPACE, "T1w") for res in (None, "1", "2")]
    root = make_tree(tmp_path, [preproc("01", "1", desc="brain", suffix="mask.nii.gz", **grid) for grid in grids])
    make_tree(root, [preproc("01", "1", **grid) for grid in grids])
    run = only_run(root, space="T1w", res="2")
    assert run.mask is not None
    assert run.mask.name == "sub-01_ses-1_task-a_space-T1w_res-2_desc-brain_mask.nii.gz"


# Where a dataset lies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["sub-99/ses-x/func", "derivatives/anat", "task-b_run-7/code", "a space/ü"])
def test_folders_above_the_dataset_do_not_matter(above: str, tmp_path: Path) -> None:
    files = [preproc("01", "1"), preproc("01", "2"), f"{run_name('01', '1')}_events.tsv"]
    root = make_tree(tmp_path / above / "bids", files)
    selection = select(root)
    assert (selection.entities["task"], selection.sessions) == ("a", ("1", "2"))
    assert names(selection) == ["sub-01_ses-1_task-a", "sub-01_ses-2_task-a"]
    assert selection.runs["01"][0].events == root / files[2]


@pytest.mark.slow
def test_a_dataset_is_read_through_a_link(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "real", [preproc("01", "1"), f"{run_name('01', '1')}_events.tsv"])
    link = tmp_path / "link"
    link.symlink_to(root)
    run = only_run(link)
    assert run.bold.is_relative_to(link)
    assert run.events is not None


@pytest.mark.parametrize("folder", ["code", "sourcedata", "models", "stimuli"])
def test_folders_that_are_not_bids_are_not_read(folder: str, tmp_path: Path) -> None:
    events = f"{run_name('01', '1')}_events.tsv"
    root = make_tree(tmp_path, [preproc("01", "1"), f"{folder}/{events}"])
    assert only_run(root).events is None


# Labels -----------------------------------------------------------------------------------------------------


def test_labels_without_padding_come_in_natural_order(tmp_path: Path) -> None:
    labels = ["10", "1", "2"]
    files = [preproc(sub, ses, run=run) for sub in labels for ses in labels for run in labels]
    selection = select(make_tree(tmp_path, files))
    assert list(selection.runs) == ["1", "2", "10"]
    assert selection.sessions == ("1", "2", "10")
    assert [run.name for run in selection.runs["10"]] == [
        f"sub-10_ses-{ses}_task-a_run-{run}" for ses in ("1", "2", "10") for run in ("1", "2", "10")
    ]


def test_participant_1_is_not_participant_10(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("1", "1"), preproc("10", "1"), preproc("01", "1")])
    assert list(select(root, participant_label=("1",)).runs) == ["1"]


def test_a_dataset_without_sessions(tmp_path: Path) -> None:
    files = [preproc("01", None, run="1"), preproc("01", None, run="2"), f"{run_name('01', None, run='2')}_events.tsv"]
    selection = select(make_tree(tmp_path, files))
    assert selection.sessions == ()
    first, second = selection.runs["01"]
    assert (first.session, first.events) == ("", None)
    assert (second.session, second.events) == ("", tmp_path / files[2])
    with pytest.raises(NothingMatchesError, match=r"What exists \(session\): none is named"):
        select(tmp_path, session_label=("1",))


def test_sessions_may_hold_different_numbers_of_runs(tmp_path: Path) -> None:
    files = [
        preproc("01", "pre"),
        preproc("01", "post", run="1"),
        preproc("01", "post", run="2"),
        preproc("02", "pre", run="1"),
    ]
    selection = select(make_tree(tmp_path, files))
    assert names(selection) == [
        "sub-01_ses-post_task-a_run-1",
        "sub-01_ses-post_task-a_run-2",
        "sub-01_ses-pre_task-a",
        "sub-02_ses-pre_task-a_run-1",
    ]
    assert selection.sessions == ("post", "pre")


def test_the_order_of_session_labels_given_is_their_order_in_time(tmp_path: Path) -> None:
    dataset = opened(make_tree(tmp_path, [preproc("01", ses) for ses in ("post", "pre", "follow")]))
    assert select(dataset, session_label=("pre", "post", "follow")).sessions == ("pre", "post", "follow")
    chosen = select(dataset, session_label=("pre", "post"))
    assert chosen.sessions == ("pre", "post")
    assert {run.session for run in chosen.runs["01"]} == {"pre", "post"}


def test_the_study_sessions_do_not_depend_on_who_is_analysed(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("01", "1"), preproc("01", "3"), preproc("02", "1"), preproc("02", "2")])
    assert select(root).sessions == ("1", "2", "3")
    assert select(root, participant_label=("01",)).sessions == ("1", "2", "3")


def test_a_participant_who_misses_a_session_asked_for_gives_the_others(tmp_path: Path) -> None:
    """One job per participant with the same --session-label for everyone is how clusters run a study."""
    root = make_tree(tmp_path, [preproc("01", "1"), preproc("01", "2"), preproc("02", "1")])
    together = select(root, session_label=("1", "2"))
    assert names(together)[-1] == "sub-02_ses-1_task-a"
    alone = select(root, session_label=("1", "2"), participant_label=("02",))
    assert alone.sessions == ("1", "2")
    assert names(alone) == ["sub-02_ses-1_task-a"]


def test_study_sessions_are_found_in_files_without_space_and_desc(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("01", "1", space=None, desc=None)])
    selection = select(root, filters={"bold": {"desc": None}})
    assert names(selection) == ["sub-01_ses-1_task-a"]
    assert selection.sessions == ("1",)


# Inheritance ------------------------------------------------------------------------------------------------


def test_files_at_the_root_apply_to_every_run(tmp_path: Path) -> None:
    files = {preproc(sub, ses, run="1"): "" for sub in ("01", "02") for ses in ("1", "2")}
    files |= {"task-a_events.tsv": EVENTS, "task-a_bold.json": '{"RepetitionTime": 1.5, "TaskName": "a"}'}
    selection = select(make_tree(tmp_path, files))
    runs = [run for runs in selection.runs.values() for run in runs]
    assert len(runs) == 4
    assert {run.events for run in runs} == {tmp_path / "task-a_events.tsv"}
    assert all(run.metadata == {"RepetitionTime": 1.5, "TaskName": "a"} for run in runs)


def test_the_more_specific_file_wins(tmp_path: Path) -> None:
    levels = ["", "sub-01/sub-01_", "sub-01/ses-1/sub-01_ses-1_", "sub-01/ses-1/func/sub-01_ses-1_"]
    files = {preproc("01", ses): "" for ses in ("1", "2")} | {preproc("02", "1"): ""}
    files |= {f"{start}task-a_events.tsv": EVENTS for start in levels}
    files |= {
        f"{start}task-a_bold.json": json.dumps({"RepetitionTime": depth, f"Depth{depth}": True})
        for depth, start in enumerate(levels)
    }
    selection = select(make_tree(tmp_path, files))
    nearest, without_session, elsewhere = [run for runs in selection.runs.values() for run in runs]
    assert nearest.events == tmp_path / f"{levels[3]}task-a_events.tsv"
    assert without_session.events == tmp_path / f"{levels[1]}task-a_events.tsv"
    assert elsewhere.events == tmp_path / "task-a_events.tsv"
    assert [run.metadata["RepetitionTime"] for run in (nearest, without_session, elsewhere)] == [3, 1, 0]
    assert nearest.metadata.keys() == {"RepetitionTime", "Depth0", "Depth1", "Depth2", "Depth3"}


def test_a_file_nearer_to_the_run_wins_whatever_its_name_says(tmp_path: Path) -> None:
    """The BIDS inheritance principle orders by folder, not by the number of entities."""
    files = {
        preproc("01", "1", run="1", acq="x"): "",
        "task-a_acq-x_run-1_bold.json": '{"RepetitionTime": 1}',
        "sub-01/sub-01_bold.json": '{"RepetitionTime": 2}',
        "task-a_acq-x_run-1_events.tsv": EVENTS,
        "sub-01/sub-01_task-a_events.tsv": EVENTS,
    }
    run = only_run(make_tree(tmp_path, files))
    assert run.metadata["RepetitionTime"] == 2
    assert run.events == tmp_path / "sub-01/sub-01_task-a_events.tsv"


def test_files_of_other_runs_do_not_apply(tmp_path: Path) -> None:
    others = ["task-b_events.tsv", "task-a_run-2_events.tsv", "task-a_acq-x_events.tsv", "sub-02/sub-02_events.tsv"]
    run = only_run(make_tree(tmp_path, [preproc("01", "1", run="1"), *others]))
    assert run.events is None


@pytest.mark.parametrize(
    ("raw", "derived", "expected"),
    [
        (
            {"RepetitionTime": 1, "EchoTime": 0.03},
            {"RepetitionTime": 2, "StartTime": 1},
            {"RepetitionTime": 2, "EchoTime": 0.03, "StartTime": 1},
        ),
        ({"RepetitionTime": 2, "EchoTime": 0.03}, {"RepetitionTime": None}, {"RepetitionTime": 2, "EchoTime": 0.03}),
    ],
    ids=["both", "null hides no value"],
)
def test_the_derivatives_metadata_wins_over_the_raw(
    raw: dict[str, Any], derived: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    files = {
        preproc("01", "1"): "",
        "task-a_bold.json": json.dumps(raw),
        preproc("01", "1", suffix="bold.json"): json.dumps(derived),
        preproc("01", "1", space="T1w", suffix="bold.json"): '{"RepetitionTime": 9}',
    }
    assert only_run(make_tree(tmp_path, files)).metadata == expected


@pytest.mark.parametrize(
    "events",
    [("task-a_events.tsv", "run-1_events.tsv"), [f"{run_name('01', '1', run=run)}_events.tsv" for run in ("1", "01")]],
)
def test_two_files_that_could_both_apply_are_a_problem(events: Sequence[str], tmp_path: Path) -> None:
    problem = only_run(make_tree(tmp_path, [preproc("01", "1", run="1"), *events])).problem
    assert problem is not None
    assert "two files could be its events" in problem


# Several tasks, spaces, resolutions -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two tasks, three spaces of which one is preferred, two resolutions, two descriptions."""
    spaces = [(SPACE, "1"), (SPACE, "2"), ("T1w", None), (None, None)]
    files = [
        preproc("01", "1", task=task, space=space, res=res, desc=desc)
        for task in ("a", "b")
        for space, res in spaces
        for desc in ("preproc", "smoothed")
    ]
    return opened(make_tree(tmp_path_factory.mktemp("rich"), files))


@pytest.mark.parametrize("task", ["a", "b"])
@pytest.mark.parametrize(("space", "res"), [(SPACE, "1"), (SPACE, "2"), ("T1w", None)])
def test_what_is_named_is_taken(task: str, space: str, res: str | None, rich: Dataset) -> None:
    run = only_run(rich, task=(task,), space=space, res=res)
    assert run.bold == rich.raw / preproc("01", "1", task=task, space=space, res=res)


def test_the_preferred_space_and_what_there_is_only_once_need_not_be_named(rich: Dataset, tmp_path: Path) -> None:
    assert select(rich, task=("a",), res="2").entities["space"] == SPACE
    selection = select(make_tree(tmp_path, [preproc("01", "1", task="x", space="MNI", res="3")]))
    assert selection.entities == {"task": "x", "space": "MNI", "cohort": None, "res": "3"}


@pytest.mark.parametrize(
    ("options", "refusal", "message"),
    [
        ({}, CommandLineError, "preprocessed runs of several tasks: a, b. Choose one with --task"),
        ({"task": ("a",)}, CommandLineError, "several resolutions: 1, 2. Choose one with --res"),
        ({"task": ("c",)}, NothingMatchesError, r"--task c matches no preprocessed run.*: a, b\."),
        (
            {"task": ("a",), "space": "MNI"},
            NothingMatchesError,
            rf"--space MNI matches .*: none .without the entity., {SPACE}, T1w\.",
        ),
        ({"task": ("a",), "res": "3"}, NothingMatchesError, r"--res 3 matches .*: 1, 2\."),
        (
            {"task": ("a",), "res": "1", "session_label": ("2",)},
            NothingMatchesError,
            r"--session-label 2 matches .*: 1\.",
        ),
        ({"participant_label": ("09",)}, NothingMatchesError, r"--participant-label 09 matches .*: 01\."),
    ],
)
def test_what_is_open_or_matches_nothing_lists_what_there_is(
    options: dict[str, Any], refusal: type[Exception], message: str, rich: Dataset
) -> None:
    with pytest.raises(refusal, match=message):
        select(rich, **options)


def test_spaces_are_listed_where_none_is_preferred(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("01", "1", space=space) for space in (None, "T1w", "MNI152NLin6Asym")])
    with pytest.raises(CommandLineError, match=r"spaces: none \(without the entity\), MNI152NLin6Asym, T1w"):
        select(root)


def test_one_run_in_two_derivatives_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("01", "1"), preproc("01", "1", pipeline="other")])
    with pytest.raises(DatasetError, match="Two preprocessed files stand for the same run sub-01_ses-1_task-a"):
        select(root)


# Filters ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filterable(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    files = [
        preproc("01", "1", run="01"),
        preproc("01", "1", run="02"),
        preproc("01", "1", run="03", desc="custom"),
        preproc("01", "1", run="01", acq="x"),
    ]
    return opened(make_tree(tmp_path_factory.mktemp("filterable"), files))


@pytest.mark.parametrize(
    ("bold_filter", "expected"),
    [
        ({"run": 1}, ["run-01", "acq-x_run-01"]),
        ({"run": "1", "acquisition": None}, ["run-01"]),
        ({"run": [1, "02"], "acquisition": None}, ["run-01", "run-02"]),
        ({"acquisition": "x"}, ["acq-x_run-01"]),
        ({"acq": "*"}, ["acq-x_run-01"]),
        ({"acquisition": "Query.NONE", "run": 2}, ["run-02"]),
        ({"desc": "custom"}, ["run-03"]),
        ({"desc": ["preproc", "custom"], "run": [2, 3]}, ["run-02", "run-03"]),
        ({"run": 2, "datatype": "func", "suffix": "bold", "extension": ".nii.gz"}, ["run-02"]),
    ],
)
def test_filters_choose_runs_as_pybids_filters_do(
    bold_filter: dict[str, Any], expected: list[str], filterable: Dataset, tmp_path: Path
) -> None:
    selection = select(filterable, filters={"bold": bold_filter})
    assert sorted(names(selection)) == sorted(f"sub-01_ses-1_task-a_{name}" for name in expected)


@pytest.mark.parametrize("wanted", ["liberal", ["liberal"]])
def test_a_filter_chooses_the_mask(wanted: object, tmp_path: Path) -> None:
    masks = [preproc("01", "1", desc=desc, suffix="mask.nii.gz") for desc in ("brain", "liberal")]
    dataset = opened(make_tree(tmp_path / "bids", [preproc("01", "1"), *masks]))
    assert only_run(dataset).mask == dataset.raw / masks[0]
    run = only_run(dataset, filters={"mask": {"desc": wanted}})
    assert run.mask == dataset.raw / masks[1]


def test_a_filter_chooses_events_and_confounds(tmp_path: Path) -> None:
    files = [
        preproc("01", "1"),
        preproc("01", "1", space=None, desc="confounds", suffix="timeseries.tsv"),
        preproc("01", "1", space=None, desc="denoised", suffix="timeseries.tsv"),
        "task-a_events.tsv",
        f"{run_name('01', '1')}_events.tsv",
    ]
    root = make_tree(tmp_path / "bids", files)
    filters = {"confounds": {"desc": "denoised"}, "events": {"session": None}}
    run = only_run(root, filters=filters)
    assert run.confounds == root / files[2]
    assert run.events == root / files[3]


def test_a_session_that_a_filter_leaves_out_is_no_study_session(tmp_path: Path) -> None:
    """Else the trend counts it, and the group level, which sees maps only, does not."""
    root = make_tree(tmp_path / "bids", [preproc("01", ses) for ses in ("1", "2", "3")])
    selection = select(root, filters={"bold": {"session": ["1", "3"]}})
    assert [run.session for run in selection.runs["01"]] == ["1", "3"]
    assert selection.sessions == ("1", "3")


def test_a_filter_that_nothing_passes_lists_the_descriptions(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bids", [preproc("01", "1"), preproc("01", "1", desc="smoothed")])
    with pytest.raises(NothingMatchesError, match=r'"desc": "absent".*desc: preproc, smoothed'):
        select(root, filters={"bold": {"desc": "absent"}})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "object"),
        ('{"bold": "preproc"}', "object"),
        ('{"t1w": {"desc": "preproc"}}', "none of the keys bold, mask, events, confounds"),
    ],
)
def test_an_unusable_filter_file_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(CommandLineError, match=rf"filter\.json.*{reason}"):
        read_filters(path)


def test_filters_of_other_apps_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"acquisition": "x"}, "bold": {"run": 1}}')
    assert read_filters(path) == {"bold": {"run": 1}}


# What counts as a dataset -----------------------------------------------------------------------------------


def test_a_folder_without_a_description_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset_description\.json"):
        check_raw_dataset(tmp_path)
    assert check_raw_dataset(tmp_path, skip_validation=True) == tmp_path
    with pytest.raises(DatasetError, match="does not exist"):
        check_raw_dataset(tmp_path / "nowhere", skip_validation=True)


@pytest.mark.parametrize(
    ("content", "reason", "skippable"),
    [
        ("{", "cannot be read as JSON", True),
        ('{"Name": "x"}', "lacks the field BIDSVersion", True),
        ("[]", "JSON object", False),
    ],
)
def test_a_broken_description_is_refused_unless_validation_is_skipped(
    content: str, reason: str, skippable: bool, tmp_path: Path
) -> None:
    root = make_tree(tmp_path, {preproc("01", "1"): "", "dataset_description.json": content})
    with pytest.raises(DatasetError, match=reason):
        check_raw_dataset(root)
    if skippable:
        assert check_raw_dataset(root, skip_validation=True) == root
        assert names(select(root)) == ["sub-01_ses-1_task-a"]
    else:
        with pytest.raises(DatasetError, match=reason):
            check_raw_dataset(root, skip_validation=True)


def test_derivatives_are_found_or_asked_for(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bids", [preproc("01", "1", pipeline=name) for name in ("fmriprep", "other")])
    both = (root / "derivatives/fmriprep", root / "derivatives/other")
    assert find_derivative_roots(root, ()) == both
    assert find_derivative_roots(root, [both[1]]) == both[1:]
    assert find_derivative_roots(root, [root / "derivatives", both[0]]) == both
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty holds no dataset"):
        find_derivative_roots(root, [tmp_path / "empty"])
    with pytest.raises(DatasetError, match="absent does not exist"):
        find_derivative_roots(root, [tmp_path / "absent"])
    with pytest.raises(DatasetError, match="No derivatives"):
        find_derivative_roots(tmp_path / "empty", ())


def test_derivatives_without_preprocessed_runs_are_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("01", "1", suffix="boldref.nii.gz"), f"{run_name('01', '1')}_bold.nii.gz"])
    with pytest.raises(DatasetError, match=r"No preprocessed runs .*fmriprep"):
        select(root)


def test_datasets_have_different_names_in_uris() -> None:
    roots = [Path("/a/fmriprep"), Path("/b/fmriprep"), Path("/c/raw"), Path("/d/é é")]
    links = dataset_links(Path("/data"), roots)
    assert list(links.values()) == [Path("/data"), *roots]
    assert list(links) == ["raw", "fmriprep", "fmriprep2", "raw2", "derivatives"]


def test_participants_are_the_folders_there_are(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [preproc("10", "1"), preproc("2", "1"), preproc("m²", "1"), preproc("²", "1")])
    (root / "derivatives/fmriprep/sub-2.html").touch()
    assert participants_with_runs(find_derivative_roots(root, ())) == ["2", "10", "m²", "²"]


# Looking for files, and pybids' database ---------------------------------------------------------------------


def many(root: Path, labels: Sequence[str], sessions: Sequence[str] = ("1", "2")) -> Path:
    """A dataset with events, masks, sidecars, confounds, and files that are not read."""
    files = {"task-a_bold.json": '{"RepetitionTime": 2}'}
    for sub in labels:
        for ses in sessions:
            files |= {
                preproc(sub, ses): "",
                preproc(sub, ses, suffix="bold.json"): "{}",
                preproc(sub, ses, suffix="boldref.nii.gz"): "",
                preproc(sub, ses, desc="brain", suffix="mask.nii.gz"): "",
                preproc(sub, ses, space=None, desc="confounds", suffix="timeseries.tsv"): "",
                f"derivatives/fmriprep/sub-{sub}/figures/sub-{sub}_ses-{ses}_task-a_bold.json": "{}",
                f"{run_name(sub, ses)}_events.tsv": EVENTS,
            }
    return make_tree(root, files)


def databases(folder: Path) -> dict[str, tuple[int, int]]:
    """Kept databases, and whatever else is a file in the folder."""
    return {name: stamp for name, stamp in listing(folder).items() if (folder / name).is_file()}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were listed."""
    folders, scandir = [], os.scandir

    def noted(path: Any = ".") -> Any:
        folders.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    return folders


def test_folders_of_other_participants_are_not_looked_into(listed: list[Path], tmp_path: Path) -> None:
    root = many(tmp_path / "bids", ["01", "02", "011"])
    listed.clear()
    dataset = opened(root, "01")
    inside = {folder.relative_to(root).parts for folder in listed if folder.is_relative_to(root)}
    assert ("sub-01", "ses-1", "func") in inside
    assert not [parts for parts in inside if {"sub-02", "sub-011", "figures"} & set(parts)]
    assert {file.entities.get("sub") for file in (*dataset.raw_files, *dataset.derivative_files)} == {"01", None}
    listed.clear()
    assert select(dataset, participant_label=("01",)).sessions == ("1", "2")
    # all participants' session folders number the sessions; who has files of each is asked of one only
    assert {folder.name for folder in listed if folder.name.startswith("sub-")} == {"sub-01", "sub-02", "sub-011"}
    assert sorted(folder.parent.name for folder in listed if folder.name == "func") == ["ses-1", "ses-2"]


def test_a_participant_whose_folder_cannot_be_read_does_not_matter_to_others(tmp_path: Path) -> None:
    root = many(tmp_path / "bids", ["01"])
    for dataset in (root, root / "derivatives/fmriprep"):
        (dataset / "sub-02").symlink_to("sub-02")  # a link to itself, which nobody can follow
        (dataset / "sub-03").symlink_to(tmp_path / "absent")
    selection = select(root, participant_label=("01",))
    assert names(selection) == ["sub-01_ses-1_task-a", "sub-01_ses-2_task-a"]
    assert selection.sessions == ("1", "2")


def test_only_files_that_are_read_are_in_a_database(tmp_path: Path) -> None:
    root = many(tmp_path / "bids", ["01"], sessions=["1"])
    opened(root, database_dir=tmp_path / "kept")
    found = []
    for path in (tmp_path / "kept").rglob("*.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            found += [Path(name).name for (name,) in connection.execute("SELECT path FROM files")]
    start = f"sub-01_ses-1_task-a_space-{SPACE}_desc"
    assert sorted(found) == [
        "sub-01_ses-1_task-a_desc-confounds_timeseries.tsv",
        "sub-01_ses-1_task-a_events.tsv",
        f"{start}-brain_mask.nii.gz",
        f"{start}-preproc_bold.json",
        f"{start}-preproc_bold.nii.gz",
        "task-a_bold.json",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["no database", "database"])
def test_everyone_is_given_the_same_runs_alone_and_together(kept: bool, tmp_path: Path) -> None:
    labels = ["1", "01", "10", "2"]
    root = many(tmp_path / "bids", labels)
    make_tree(
        root,
        {
            preproc("01", "3", run="2", acq="x"): "",
            "task-a_acq-x_events.tsv": EVENTS,
            "sub-10/sub-10_task-a_bold.json": '{"RepetitionTime": 3}',
            "sub-2_task-a_bold.json": '{"RepetitionTime": 4}',
            f"derivatives/fmriprep/sub-10/anat/sub-10_space-{SPACE}_desc-brain_mask.nii.gz": "",
            f"derivatives/fmriprep/space-{SPACE}_desc-brain_mask.nii.gz": "",
            f"{run_name('2', '1', run='7')}_events.tsv": EVENTS,
        },
    )
    together = select(root)
    assert list(together.runs) == ["01", "1", "2", "10"]
    assert together.runs["10"][0].metadata["RepetitionTime"] == 3
    assert together.runs["2"][0].metadata["RepetitionTime"] == 4
    assert together.runs["01"][2].mask == root / f"derivatives/fmriprep/space-{SPACE}_desc-brain_mask.nii.gz"
    for label in [*labels, *labels]:
        dataset = opened(root, label, database_dir=tmp_path / "kept" if kept else None)
        alone = select(dataset, participant_label=(label,))
        assert alone.runs == {label: together.runs[label]}
        assert alone.sessions == together.sessions == ("1", "2", "3")


@pytest.mark.slow
def test_choosing_among_all_participants_takes_time_in_proportion_to_their_number(tmp_path: Path) -> None:
    calls = []
    for n in (20, 40):
        dataset = opened(many(tmp_path / str(n), [str(label) for label in range(n)]))
        profile = Profile()
        profile.runcall(select, dataset)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[1] < 2.1 * calls[0]


@pytest.mark.slow
def test_a_database_is_of_all_participants_and_trusted_until_it_is_removed(tmp_path: Path) -> None:
    root, folder = many(tmp_path / "bids", ["01", "02"]), tmp_path / "kept"
    first = opened(root, "02", database_dir=folder)
    assert first == opened(root, "02")
    everyone, made = opened(root), databases(folder)
    assert [Path(name).name for name in made] == ["layout_index.sqlite"] * 2, "raw dataset and derivatives"
    make_tree(root, [preproc("01", "3"), preproc("03", "1"), f"{run_name('01', '3')}_events.tsv"])
    assert opened(root, database_dir=folder) == everyone
    assert opened(root, "02", database_dir=folder) == first
    assert databases(folder) == made
    shutil.rmtree(folder)
    assert opened(root, database_dir=folder) == opened(root) != everyone


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0 and no more", None], ids=["empty", "start only", "half"])
def test_a_damaged_database_is_made_again(damage: bytes | None, tmp_path: Path) -> None:
    root, folder = many(tmp_path / "bids", ["01"]), tmp_path / "kept"
    whole = opened(root, database_dir=folder)
    for path in folder.rglob("*.sqlite"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert opened(root, database_dir=folder) == whole
    assert all(path.stat().st_size > 10_000 for path in folder.rglob("*.sqlite")), "made again, not gone without"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_database_that_was_not_finished_is_not_kept(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pybids makes the file first, and takes any file for a whole database."""
    root, folder = many(tmp_path / "bids", ["01"]), tmp_path / "kept"
    expected = opened(root)

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("bids.layout.BIDSLayoutIndexer.__call__", fails)
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                opened(root, database_dir=folder)
        else:
            assert opened(root, database_dir=folder) == expected, "what lies there is known without pybids"
    assert not databases(folder)
    assert opened(root, database_dir=folder) == expected


@pytest.mark.slow
def test_jobs_that_begin_together_may_share_a_database(tmp_path: Path) -> None:
    root, folder = many(tmp_path / "bids", ["01", "02"]), tmp_path / "kept"
    program = (
        "import sys; from pathlib import Path; from sessionfx.bids.dataset import open_dataset\n"
        "root, kept = map(Path, sys.argv[1:])\n"
        "for _ in range(3):\n"
        "    found = open_dataset(root, [root / 'derivatives/fmriprep'], participants=['01'], database_dir=kept)\n"
        "    print(len(found.raw_files), len(found.derivative_files))\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", program, root, folder], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = [job.communicate(timeout=600)[0] for job in jobs]
    expected = opened(root, "01")
    assert said == [f"{len(expected.raw_files)} {len(expected.derivative_files)}\n" * 3] * len(jobs)
    assert [Path(name).name for name in databases(folder)] == ["layout_index.sqlite"] * 2
    assert not list(folder.rglob(".making*")), "nothing half-made is left"


def test_where_a_database_cannot_be_kept_the_folder_is_named(tmp_path: Path) -> None:
    root = many(tmp_path / "bids", ["01"])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"database of .* cannot be kept in .*file.*--bids-database-dir"):
        opened(root, database_dir=tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["no database", "database"])
def test_nothing_is_written_into_the_input(kept: bool, simulated: Path, tmp_path: Path) -> None:
    before = listing(simulated)
    first, again = (opened(simulated, database_dir=tmp_path / "kept" if kept else None) for _ in range(2))
    assert listing(simulated) == before
    assert first == again == opened(simulated)
    assert bool(list(tmp_path.rglob("*"))) == kept


def test_two_datasets_share_a_folder_for_their_databases(tmp_path: Path) -> None:
    for place in ("a", "b", "a", "b"):
        root = make_tree(tmp_path / place / "bids", [preproc(place, "1")])
        (file,) = opened(root, database_dir=tmp_path / "kept").derivative_files
        assert file.entities["sub"] == place

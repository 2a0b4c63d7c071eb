"""Parity with the forum script that SessionFX grew from.

The script (neurostars.org, topic 33405) fits the sessions of nilearn's fake dataset one by one, combines them
with `compute_fixed_effects`, and runs a two-sample and a one-sample group model. Its calls are made here on the same
files, and every map is compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn._utils.data_gen import create_fake_bids_dataset
from nilearn.glm.contrasts import compute_fixed_effects
from nilearn.glm.first_level import first_level_from_bids
from nilearn.glm.second_level import SecondLevelModel
from nilearn.image import math_img

from sessionfx.cli import main

CONTRAST = "c0 - c1"
LABEL = "c0MinusC1"
SUBJECTS = ("01", "02", "03")
SESSIONS = ("01", "02")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("forum")
    create_fake_bids_dataset(base_dir=base, n_sub=3, n_ses=2, tasks=["main"], n_runs=[2], n_voxels=30)
    root = base / "bids_dataset"
    for folder, kind in ((root, "raw"), (root / "derivatives", "derivative")):
        description = {"Name": "fake", "BIDSVersion": "1.8.0", "DatasetType": kind, "GeneratedBy": [{"Name": "fake"}]}
        (folder / "dataset_description.json").write_text(json.dumps(description))
    return root


@pytest.fixture(scope="module")
def ours(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("forum-out") / "out"
    code = main(
        [str(dataset), str(output), "participant", "group", "--task", "main", "--space", "MNI", "--contrast", CONTRAST,
         "--confounds", "none", "--subject-effect", "linear", "--session-contrast", "ses-02 - ses-01",
         "--session-contrast", "mean", "--fixed-effects-dof", "sum", "--nprocs", "1", "--no-report"]
    )  # fmt: skip
    assert code == 0
    return output


@pytest.fixture(scope="module")
def session_maps(dataset: Path) -> dict[tuple[str, str], tuple[dict[str, nib.Nifti1Image], float, nib.Nifti1Image]]:
    """Contrast maps, degrees of freedom and mask of every participant and session, as the script computes them."""
    maps = {}
    for session in SESSIONS:
        models, images, events, _ = first_level_from_bids(
            dataset, task_label="main", space_label="MNI", img_filters=[("desc", "preproc"), ("ses", session)],
            slice_time_ref=0, signal_scaling=0, drift_model="cosine", high_pass=0.01, hrf_model="glover", noise_model="ar1",
            minimize_memory=False, verbose=0,
        )  # fmt: skip
        for subject, model, run_images, run_events in zip(SUBJECTS, models, images, events, strict=True):
            # the masks of the files, so that both sides fit the same voxels
            masks = [nib.load(str(image).replace("desc-preproc_bold", "desc-brain_mask")) for image in run_images]
            model.mask_img = math_img("a * b", a=masks[0], b=masks[1])
            model.fit(run_images, events=run_events)
            all_maps = model.compute_contrast(CONTRAST, output_type="all")
            dof = sum(next(iter(results.values())).df_residuals for results in model.results_)
            maps[subject, session] = (all_maps, dof, model.masker_.mask_img_)
    return maps


def load(folder: Path, pattern: str) -> np.ndarray:
    (path,) = folder.glob(pattern)
    return nib.load(path).get_fdata()


def assert_same(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> None:
    scale = np.maximum(np.abs(theirs[inside]), 1e-3 * np.abs(theirs[inside]).max())
    assert (np.abs(ours[inside] - theirs[inside]) / scale).max() <= 1e-5


def common_mask(session_maps: dict, subjects: tuple[str, ...] = SUBJECTS) -> np.ndarray:
    masks = [session_maps[subject, session][2].get_fdata() > 0 for subject in subjects for session in SESSIONS]
    inside = np.logical_and.reduce(masks)
    assert inside.sum() > 100
    return inside


@pytest.mark.slow
def test_session_maps_equal_the_scripts_contrasts(ours: Path, session_maps: dict) -> None:
    for (subject, session), (theirs, dof, mask) in session_maps.items():
        folder, inside = ours / f"sub-{subject}" / f"ses-{session}" / "func", mask.get_fdata() > 0
        assert_same(load(folder, "*stat-effect*.nii.gz"), theirs["effect_size"].get_fdata(), inside)
        assert_same(load(folder, "*stat-variance*.nii.gz"), theirs["effect_variance"].get_fdata(), inside)
        np.testing.assert_allclose(
            load(folder, "*stat-z*.nii.gz")[inside], theirs["z_score"].get_fdata()[inside], atol=1e-3
        )
        (sidecar,) = folder.glob("*stat-t*.json")
        assert json.loads(sidecar.read_text())["DegreesOfFreedom"] == dof


@pytest.mark.slow
def test_participant_maps_equal_compute_fixed_effects_with_real_dofs(ours: Path, session_maps: dict) -> None:
    for subject in SUBJECTS:
        inputs = [session_maps[subject, session] for session in SESSIONS]
        inside = common_mask(session_maps, (subject,))
        mask = nib.Nifti1Image(inside.astype(np.uint8), inputs[0][2].affine)
        effect, variance, t, z = compute_fixed_effects(
            [run[0]["effect_size"] for run in inputs], [run[0]["effect_variance"] for run in inputs], mask,
            dofs=[run[1] for run in inputs],
        )  # fmt: skip
        folder = ours / f"sub-{subject}" / "func"
        for statistic, theirs in {"effect": effect, "variance": variance, "t": t}.items():
            assert_same(load(folder, f"*sessions-mean_stat-{statistic}_*.nii.gz"), theirs.get_fdata(), inside)
        np.testing.assert_allclose(
            load(folder, "*sessions-mean_stat-z_*.nii.gz")[inside], z.get_fdata()[inside], atol=1e-3
        )


def assert_group_maps(ours: Path, answer: str, theirs: dict[str, nib.Nifti1Image], inside: np.ndarray) -> None:
    start = f"task-main_space-MNI_contrast-{LABEL}_sessions-{answer}"
    for stat, name in (("effect", "effect_size"), ("variance", "effect_variance")):
        found = load(ours / "group", f"{start}_stat-{stat}_statmap.nii.gz")
        assert_same(found, theirs[name].get_fdata(), inside)
    z = load(ours / "group", f"{start}_stat-z_statmap.nii.gz")
    np.testing.assert_allclose(z[inside], theirs["z_score"].get_fdata()[inside], atol=1e-3)


@pytest.mark.slow
def test_group_session_model_equals_the_scripts_two_sample_test(ours: Path, session_maps: dict) -> None:
    inside = common_mask(session_maps)
    inputs = [session_maps[subject, session][0]["effect_size"] for session in SESSIONS for subject in SUBJECTS]
    # sessions as columns, and the participants as one column 1 … n
    design = pd.DataFrame({"ses1": [1, 1, 1, 0, 0, 0], "ses2": [0, 0, 0, 1, 1, 1], "subject": [1, 2, 3, 1, 2, 3]})
    mask = nib.Nifti1Image(inside.astype(np.uint8), inputs[0].affine)
    theirs = (
        SecondLevelModel(mask_img=mask)
        .fit(inputs, design_matrix=design)
        .compute_contrast("ses2 - ses1", output_type="all")
    )
    assert_group_maps(ours, "ses02MinusSes01_strategy-sessionModel", theirs, inside)


@pytest.mark.slow
def test_group_fixed_effects_equals_the_scripts_one_sample_test(ours: Path, session_maps: dict) -> None:
    inside = common_mask(session_maps)
    mask = nib.Nifti1Image(inside.astype(np.uint8), session_maps["01", "01"][2].affine)
    inputs = []
    for subject in SUBJECTS:
        sessions = [session_maps[subject, session][0] for session in SESSIONS]
        combined = compute_fixed_effects(
            [maps["effect_size"] for maps in sessions], [maps["effect_variance"] for maps in sessions], mask
        )
        inputs.append(combined[0])
    design = pd.DataFrame({"intercept": [1.0] * 3})
    theirs = (
        SecondLevelModel(mask_img=mask)
        .fit(inputs, design_matrix=design)
        .compute_contrast("intercept", output_type="all")
    )
    assert_group_maps(ours, "mean_strategy-summaryStatistics", theirs, inside)

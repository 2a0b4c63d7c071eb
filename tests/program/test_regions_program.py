"""Regions from runs to the page: series as nilearn averages and fits them, combined, tested, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm import compute_contrast
from nilearn.glm.first_level import run_glm
from nilearn.maskers import NiftiLabelsMasker

from calls import times
from pages import text_of
from program import analyse, simulated

pytestmark = pytest.mark.slow
SPACE = "space-MNI152NLin2009cAsym"
CONTRAST = "incongruentMinusCongruent"
FUNC = Path("sub-01", "ses-01", "func")
START = f"sub-01_ses-01_task-stroop_{SPACE}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("regions"), n_participants=4, n_runs=2)


def atlas_of(dataset: Path) -> Path:
    return dataset / "derivatives" / "truth" / f"{SPACE}_atlas-simulated_dseg.nii.gz"


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both levels, all strategies, a page."""
    output = tmp_path_factory.mktemp("out") / "sessionfx"
    more = ("--strategy", "summary-statistics", "marginal", "mixed", "--session-contrast", "mean", "--session-contrast",
            "ses-02 - ses-01", "--session-contrast", "any")  # fmt: skip
    assert analyse(dataset, output, "--atlas", str(atlas_of(dataset)), *more, report=True) == 0
    return output


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


def own_table(output: Path) -> pd.DataFrame:
    return table_of(output / FUNC / f"{START}_atlas-simulated_contrast-{CONTRAST}_desc-regions_metrics.tsv")


def of_nilearn(dataset: Path, output: Path, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Effect and variance of each region: the scaled voxels' series averaged by nilearn, fitted by `run_glm`."""
    folder = dataset / "derivatives" / "fmriprep" / FUNC
    name = f"sub-01_ses-01_task-stroop_run-{run:02d}"
    bold = nib.load(folder / f"{name}_{SPACE}_desc-preproc_bold.nii.gz")
    mask = np.asarray(nib.load(folder / f"{name}_{SPACE}_desc-brain_mask.nii.gz").dataobj) > 0
    data = bold.get_fdata()
    mean = data.mean(axis=-1, keepdims=True)
    percent = np.where(mask[..., None] & (mean > 0), 100 * (data / np.where(mean > 0, mean, 1) - 1), 0)
    masker = NiftiLabelsMasker(atlas_of(dataset), mask_img=nib.Nifti1Image(mask.astype(np.int8), bold.affine),
                               standardize=None)  # fmt: skip
    series = masker.fit_transform(nib.Nifti1Image(percent, bold.affine))
    design = table_of(output / FUNC / f"{name}_{SPACE}_design.tsv")
    weights = np.zeros(design.shape[1])
    weights[[list(design).index("incongruent"), list(design).index("congruent")]] = 1, -1
    found = compute_contrast(*run_glm(series, design.to_numpy(), noise_model="ar1"), weights, stat_type="t")
    return found.effect_size(), found.effect_variance()


def test_regions_of_a_session_are_those_of_nilearns_masker(dataset: Path, output: Path) -> None:
    """Two runs, equal weights: the mean of effects, a quarter of the sum of variances."""
    runs = [of_nilearn(dataset, output, run) for run in (1, 2)]
    table = own_table(output)
    np.testing.assert_allclose(table["effect"], np.mean([effect for effect, _ in runs], axis=0), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(table["variance"], np.sum([own for _, own in runs], axis=0) / 4, rtol=2e-3)
    np.testing.assert_allclose(table["t"], table["effect"] / np.sqrt(table["variance"]))


def test_the_group_takes_effects_and_variances_from_these_tables(output: Path) -> None:
    found = table_of(
        output / "group" / f"task-stroop_{SPACE}_atlas-simulated_contrast-{CONTRAST}_desc-regions_metrics.tsv"
    )
    own = found[(found["participant_id"] == "sub-01") & (found["session_id"] == "ses-01")]
    for column in ("index", "effect", "variance", "n_voxels", "share"):
        np.testing.assert_allclose(own[column], own_table(output)[column], rtol=1e-8)
    assert len(found) == 4 * 2 * 8


def test_the_mean_over_an_effect_map_is_nearly_the_effect_of_the_mean_series(dataset: Path, output: Path) -> None:
    """By ordinary least squares it is the same; AR(1) gives each voxel a whitening of its own."""
    effect = nib.load(output / FUNC / f"{START}_contrast-{CONTRAST}_stat-effect_desc-fixedEffects_statmap.nii.gz")
    labels = np.asarray(nib.load(atlas_of(dataset)).dataobj)
    means = [effect.get_fdata()[labels == index].mean() for index in own_table(output)["index"]]
    assert np.corrcoef(means, own_table(output)["effect"])[0, 1] > 0.95


def test_the_page_shows_regions(output: Path) -> None:
    text = text_of(output / "group.html")
    assert "Regions of atlas simulated" in text
    assert "Dorsomedial frontal" in text
    summary = json.loads(next((output / "group").glob("*_desc-summary_results.json")).read_text())
    assert [found["Atlas"] for found in summary["Regions"]] == ["simulated"] * 3
    assert "of 8 regions of atlas simulated" in summary["Regions"][0]["Finding"]
    assert "regions of 'simulated'" in (text_of(output / "group.html"))


def test_a_second_call_has_nothing_to_do_and_another_noise_model_replaces_tables(dataset: Path, output: Path) -> None:
    options = ("--atlas", str(atlas_of(dataset)), "--participant-label", "01")
    before = times(output / "sub-01" / "ses-01")
    assert analyse(dataset, output, *options, levels=("participant",), report=True) == 0
    assert times(output / "sub-01" / "ses-01") == before
    # without the atlas, what was made from other maps goes
    assert analyse(dataset, output, "--participant-label", "01", "--noise-model", "ols", levels=("participant",)) == 0
    assert not list((output / FUNC).glob("*_desc-regions_metrics.*"))
    # by ordinary least squares the effect of the mean is the mean of the effects
    assert analyse(dataset, output, *options, "--noise-model", "ols", levels=("participant",)) == 0
    effect = nib.load(output / FUNC / f"{START}_contrast-{CONTRAST}_stat-effect_desc-fixedEffects_statmap.nii.gz")
    labels = np.asarray(nib.load(atlas_of(dataset)).dataobj)
    means = [effect.get_fdata()[labels == index].mean() for index in own_table(output)["index"]]
    np.testing.assert_allclose(own_table(output)["effect"], means, rtol=1e-6, atol=1e-8)

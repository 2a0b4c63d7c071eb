"""Simulated surfaces have the form of fMRIPrep's files, meshes, and the effects of the volumes in patches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.sparse.csgraph import connected_components

from bids_trees import select
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.bids.meshes import find_meshes, with_meshes
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.options import FirstLevelModel as Model
from sessionfx.participant.run import analyse_run
from sessionfx.simulate import SimulationOptions, main, simulate_dataset
from sessionfx.simulate.cortex import make_cortex
from sessionfx.simulate.head import ATLAS

SURFACES = ("fsaverage5", "fsLR")
SMALL = SimulationOptions(
    n_participants=1, n_sessions=2, n_runs=1, n_volumes=30, voxel_size=12.0, missing=(), surfaces=SURFACES
)
FUNC = "derivatives/fmriprep/sub-01/ses-01/func/sub-01_ses-01_task-stroop_run-01"
CONTRAST = parse_contrast("incongruent - congruent")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "bids", SMALL)


def true_map(root: Path, space: str, ending: str, start: str = "") -> np.ndarray:
    """Read a map of the truth."""
    return read_surfaces(sorted((root / "derivatives/truth").glob(f"{start}*space-{space}_*{ending}.*"))).data[0]


@pytest.mark.slow
def test_series_are_found_and_read_as_fmripreps(dataset: Path) -> None:
    for space, extension, n_features in (("fsaverage5", ".gii", 20_484), ("fsLR", ".dscalar.nii", 5_096)):
        selection = select(dataset, space=space)
        assert selection.map_extension == extension
        run = selection.every_run[0]
        assert run.metadata["RepetitionTime"] == 2.0
        series = read_surfaces(run.images)
        assert series.data.shape == (30, n_features)
        has_data = np.isfinite(series.data).all(axis=0)
        assert (has_data.mean() < 1) == (space == "fsaverage5"), "the medial wall is NaN, or left out"
        assert 800 < series.data[1:, has_data].mean() < 1200
    image = nib.load(dataset / f"{FUNC}_space-fsLR_den-5k_bold.dtseries.nii")
    assert image.nifti_header.get_intent()[0] == "ConnDenseSeries"
    structures = [name.removeprefix("CIFTI_STRUCTURE_") for name, *_ in image.header.get_axis(1).iter_structures()]
    assert structures[:3] == ["CORTEX_LEFT", "CORTEX_RIGHT", "THALAMUS_LEFT"]
    left = nib.load(dataset / f"{FUNC}_hemi-L_space-fsaverage5_bold.func.gii")
    assert left.meta["AnatomicalStructurePrimary"] == "CortexLeft"
    assert {array.intent for array in left.darrays} == {nib.nifti1.intent_codes["time series"]}


def test_meshes_of_both_are_found(dataset: Path) -> None:
    for space, density in (("fsaverage5", None), ("fsLR", "5k")):
        series = read_surfaces(select(dataset, space=space).every_run[0].images)
        files = find_meshes({"space": space, "den": density}, [dataset / "derivatives/fmriprep"])
        placed = with_meshes(series.space, files)
        # a sphere without its wall; a mesh that is inside out or has holes would be in pieces or have other areas
        n_pieces, _ = connected_components(placed.adjacency)
        assert n_pieces == (2 if space == "fsaverage5" else 7)
        cortex = placed.sizes[placed.is_on_surface].sum()
        assert 120_000 < cortex < 200_000


def test_effects_are_those_of_the_volumes_in_patches(dataset: Path) -> None:
    for space in SURFACES:
        mean, change = (true_map(dataset, space, f"desc-{name}_mask") > 0 for name in ("meanEffect", "sessionChange"))
        assert mean.sum() > 50 and change.sum() > 50 and not (mean & change).any()
        for session, expected in (("01", -0.3), ("02", 0.3)):
            effect = true_map(dataset, space, "stat-effect_statmap", f"ses-{session}_")
            np.testing.assert_allclose(effect, mean + expected * change, atol=1e-6)


def test_atlases_have_names_and_the_regions_with_effects(dataset: Path) -> None:
    truth = dataset / "derivatives/truth"
    left = nib.load(truth / "hemi-L_space-fsaverage5_atlas-simulated_dseg.label.gii")
    assert list(left.labeltable.get_labels_as_dict().values()) == ["???", *ATLAS]
    image = nib.load(truth / "space-fsLR_atlas-simulated_den-5k_dseg.dlabel.nii")
    table = image.header.get_axis(0).label[0]
    assert [name for name, _ in table.values()] == ["???", *ATLAS]
    labels = np.asarray(image.dataobj)[0]
    np.testing.assert_array_equal(labels == 2, true_map(dataset, "fsLR", "desc-sessionChange_mask") > 0)


@pytest.mark.parametrize("name", SURFACES)
def test_noise_is_smooth_along_the_mesh_and_keeps_its_variance(name: str) -> None:
    cortex = make_cortex(name)
    np.testing.assert_allclose(cortex.spread.power(2).sum(axis=1), 1)
    similar = (cortex.spread @ cortex.spread.T).tocsr()
    rows, columns = cortex.space.adjacency.nonzero()
    correlations = np.asarray(similar[rows, columns]).ravel()
    assert 0.6 < correlations.mean() < 0.9


@pytest.mark.slow
def test_volumes_are_the_same_with_surfaces_and_the_same_seed_gives_the_same_bytes(
    dataset: Path, tmp_path: Path
) -> None:
    again = simulate_dataset(tmp_path / "again", SMALL)
    without = simulate_dataset(tmp_path / "without", replace(SMALL, surfaces=()))
    for path in dataset.rglob("*"):
        if path.is_file():
            place = path.relative_to(dataset)
            assert (again / place).read_bytes() == path.read_bytes(), place
            on_surface = "space-fs" in path.name
            assert (without / place).exists() != on_surface
            assert on_surface or (without / place).read_bytes() == path.read_bytes(), place


def test_an_unknown_surface_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"surfaces \(--surface\) can be fsaverage5 or fsLR; got fsaverage"):
        SimulationOptions(surfaces=("fsaverage",))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "bids"), "--surface", "fsaverage"])
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.slow
def test_datasets_with_surfaces_are_valid(dataset: Path) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    for root in (dataset, dataset / "derivatives/fmriprep", dataset / "derivatives/truth"):
        done = subprocess.run(
            [validator, "--ignoreWarnings", "--no-color", root], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("space", SURFACES)
def test_a_run_has_the_true_effect_and_nothing_elsewhere(tmp_path: Path, space: str) -> None:
    options = replace(SMALL, n_volumes=120, noise_sd=0.01, n_sessions=1, surfaces=(space,))
    root = simulate_dataset(tmp_path / "quiet", options)
    (run,) = select(root, space=space).every_run
    fitted = analyse_run(run, [CONTRAST], Model(confounds=("scrub",)))
    found = fitted.estimates[CONTRAST.label]
    effect = found.volume(found.estimate.effect)
    truth = pd.read_csv(root / "derivatives/truth/effects.tsv", sep="\t").iloc[0]
    elsewhere = np.isfinite(effect)
    for region in ("meanEffect", "sessionChange"):
        inside = true_map(root, space, f"desc-{region}_mask") > 0
        assert np.nanmean(effect[inside]) == pytest.approx(truth[region], abs=0.03)
        elsewhere &= ~inside
    assert np.abs(effect[elsewhere]).max() < 0.1

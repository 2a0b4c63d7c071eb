"""Degrees of freedom of runs and sessions combined: Satterthwaite's, and nilearn's sum on request."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.glm.contrasts import compute_fixed_effects
from numpy.typing import NDArray
from scipy import stats

import program
from group_study import sidecar_of
from program import simulated
from sessionfx.bids.names import STATISTICS
from sessionfx.bids.stat_maps import read_estimate
from sessionfx.errors import ParticipantError
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.fixed_effects import average, weighted_sum

N_VOXELS = 200_000


def null_estimates(dofs: tuple[int, ...], sds: tuple[float, ...], seed: int = 0) -> list[Estimate]:
    """Runs without an effect, of these degrees of freedom and standard errors."""
    rng = np.random.default_rng(seed)
    return [
        Estimate(sd * rng.standard_normal(N_VOXELS), sd**2 * rng.chisquare(dof, N_VOXELS) / dof, float(dof))
        for dof, sd in zip(dofs, sds, strict=True)
    ]


def false_positives(estimate: Estimate, alpha: float) -> float:
    return float(np.mean(2 * stats.t.sf(np.abs(estimate.t), estimate.dof) <= alpha))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dofs", "sds", "one_per_mille"),
    [
        # the sum of dof has 5.7 % and 2.0 ‰
        ((10, 10), (1, 3), 0.0015),
        # 9.1 % and 12.4 ‰; what is left is that dof are found from variances that are themselves estimates
        ((5, 200), (3, 1), 0.0035),
        # 7.1 % and 5.5 ‰
        ((10, 300), (3, 1), 0.0018),
        # 5.4 % and 1.5 ‰
        ((20, 20, 20), (1, 1, 3), 0.0013),
        # the same
        ((100, 100), (1, 1), 0.0012),
    ],
)
def test_runs_that_differ_keep_the_nominal_rate(
    dofs: tuple[int, ...], sds: tuple[float, ...], one_per_mille: float
) -> None:
    mean = average(null_estimates(dofs, sds))
    assert 0.045 <= false_positives(mean, 0.05) <= 0.056
    assert false_positives(mean, 0.001) <= one_per_mille


def test_the_sum_of_dof_is_wrong_where_the_run_of_few_is_the_noisy_one() -> None:
    runs = null_estimates((5, 200), (3, 1))
    assert false_positives(average(runs, dof_method="sum"), 0.05) > 0.085
    assert false_positives(average(runs), 0.05) < 0.056


def test_a_difference_of_sessions_keeps_the_nominal_rate() -> None:
    sessions = null_estimates((8, 120), (2, 1))
    assert false_positives(weighted_sum(sessions, [-1, 1], "sum"), 0.05) > 0.065
    assert 0.045 <= false_positives(weighted_sum(sessions, [-1, 1]), 0.05) <= 0.056


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dofs", "sds", "bound"),
    [((5, 200), (1, 3), 0.056), ((50, 50), (1, 1), 0.057), ((100,) * 4, (1,) * 4, 0.055), ((20,) * 4, (1,) * 4, 0.073)],
)
def test_precision_weights_reject_more_than_they_should_where_dof_are_few(
    dofs: tuple[int, ...], sds: tuple[float, ...], bound: float
) -> None:
    """The weights are taken as known; docs/statistics.md has these figures."""
    runs = null_estimates(dofs, sds)
    rate = false_positives(average(runs, "precision"), 0.05)
    assert 0.045 <= rate <= bound
    assert rate <= false_positives(average(runs, "precision", "sum"), 0.05)


def test_equal_variances_and_dof_have_the_sum() -> None:
    variance = np.random.default_rng(1).gamma(2.0, size=50) * 1e-9
    runs = [Estimate(np.zeros(50), variance, 37.0)] * 3
    for weighting in ("equal", "precision"):
        np.testing.assert_allclose(average(runs, weighting).dof, 111.0, rtol=1e-14)
    np.testing.assert_allclose(weighted_sum(runs, [-1, 0, 1]).dof, 74.0, rtol=1e-14)


def test_one_input_keeps_its_own_number() -> None:
    run = Estimate(np.ones(4), np.ones(4), 37.0)
    for weighting in ("equal", "precision"):
        assert average([run], weighting).dof == 37.0
    assert weighted_sum([run, run], [0, 1]).dof == 37.0


def random_runs(seed: int, n_runs: int) -> list[Estimate]:
    rng = np.random.default_rng(seed)
    return [
        Estimate(rng.normal(size=30), rng.gamma(2.0, size=30), float(dof)) for dof in rng.integers(3, 300, size=n_runs)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_dof_lie_between_the_smallest_and_the_sum(seed: int) -> None:
    runs = random_runs(seed, 4)
    for weighting in ("equal", "precision"):
        dof = average(runs, weighting).dof
        assert np.all(dof >= min(run.dof for run in runs) * (1 - 1e-12))
        assert np.all(dof <= sum(run.dof for run in runs) * (1 + 1e-12))


@pytest.mark.parametrize("weighting", ["equal", "precision"])
def test_runs_then_sessions_have_the_dof_of_one_step(weighting: str) -> None:
    runs = random_runs(3, 4)
    steps = average([average(runs[:2], weighting), average(runs[2:], weighting)], weighting)
    at_once = average(runs, weighting)
    for name in ("effect", "variance", "dof", "t", "z"):
        np.testing.assert_allclose(getattr(steps, name), getattr(at_once, name), rtol=1e-10)
    difference = weighted_sum([average(runs[:2]), average(runs[2:])], [-1, 1])
    at_once = weighted_sum(runs, [-0.5, -0.5, 0.5, 0.5])
    np.testing.assert_allclose(difference.dof, at_once.dof, rtol=1e-12)


@pytest.mark.parametrize("weighting", ["equal", "precision"])
@pytest.mark.parametrize("seed", range(5))
def test_the_sum_gives_nilearns_fixed_effects(seed: int, weighting: str) -> None:
    runs, shape = random_runs(seed, 3), (5, 3, 2)

    def images(name: str) -> list[nib.Nifti1Image]:
        return [nib.Nifti1Image(getattr(run, name).reshape(shape), np.eye(4)) for run in runs]

    mask = nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4))
    theirs = compute_fixed_effects(
        images("effect"), images("variance"), mask, precision_weighted=weighting == "precision",
        dofs=[run.dof for run in runs],
    )  # fmt: skip
    ours = average(runs, weighting, "sum")
    satterthwaite = average(runs, weighting)
    for name, image in zip(("effect", "variance", "t", "z"), theirs, strict=True):
        expected = image.get_fdata().ravel()
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-6, atol=1e-9)
        if name != "z":
            np.testing.assert_array_equal(getattr(satterthwaite, name), getattr(ours, name))


# --- maps on disk


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("fixed"), n_participants=1, n_runs=2)


def analyse(dataset: Path, output: Path, *options: str) -> None:
    assert program.analyse(dataset, output, *options, levels=("participant",)) == 0


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixed-out") / "out"
    analyse(dataset, folder)
    return folder


def path_of(output: Path, start: str, stat: str) -> Path:
    (path,) = output.rglob(f"{start}*_stat-{stat}_desc-fixedEffects_statmap.nii.gz")
    return path


def values_of(output: Path, start: str) -> dict[str, NDArray[np.float64]]:
    paths = {stat: path_of(output, start, stat) for stat in (*STATISTICS, "dof")}
    volumes = {stat: nib.load(path).get_fdata() for stat, path in paths.items()}
    inside = volumes["variance"] > 0
    assert (volumes["dof"][~inside] == 0).all()
    return {stat: volume[inside] for stat, volume in volumes.items()}


SESSION_START = "sub-01_ses-01_"
DIFFERENCE_START = "sub-01_task-*_sessions-ses02MinusSes01"


@pytest.mark.parametrize("start", [SESSION_START, DIFFERENCE_START, "sub-01_task-*_sessions-mean"])
def test_t_z_and_p_on_disk_follow_from_the_dof_beside_them(output: Path, start: str) -> None:
    maps = values_of(output, start)
    assert np.ptp(maps["dof"]) > 1
    np.testing.assert_allclose(maps["t"], maps["effect"] / np.sqrt(maps["variance"]), rtol=1e-6)
    t = maps["effect"] / np.sqrt(maps["variance"])
    np.testing.assert_allclose(maps["p"], stats.t.sf(t, maps["dof"]), rtol=1e-6)
    np.testing.assert_allclose(stats.norm.sf(maps["z"]), stats.t.sf(t, maps["dof"]), rtol=1e-5)


def test_a_session_is_read_back_with_the_dof_of_each_voxel(output: Path) -> None:
    found = read_estimate(*(path_of(output, SESSION_START, stat) for stat in ("effect", "variance", "dof")))
    np.testing.assert_array_equal(found.estimate.dof, values_of(output, SESSION_START)["dof"])
    sidecar = sidecar_of(path_of(output, SESSION_START, "effect"))
    assert sidecar["DegreesOfFreedom"] == found.estimate.typical_dof


def test_a_map_of_dof_that_is_missing_is_an_error_that_names_it(output: Path, tmp_path: Path) -> None:
    paths = [path_of(output, SESSION_START, stat) for stat in ("effect", "variance")]
    with pytest.raises(ParticipantError, match=r"elsewhere\.nii\.gz"):
        read_estimate(*paths, tmp_path / "elsewhere.nii.gz")


def test_sessions_read_back_are_combined_to_the_same_bytes(dataset: Path, output: Path, tmp_path: Path) -> None:
    analyse(dataset, tmp_path / "out", "--session-contrast", "mean")
    analyse(dataset, tmp_path / "out", "--session-contrast", "ses-02 - ses-01")
    for stat in (*STATISTICS, "dof"):
        read_back = path_of(tmp_path / "out", DIFFERENCE_START, stat)
        assert read_back.read_bytes() == path_of(output, DIFFERENCE_START, stat).read_bytes()


def test_sum_on_request_changes_dof_p_and_z_only_and_leaves_no_map_of_dof(
    dataset: Path, output: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    analyse(dataset, folder)
    analyse(dataset, folder, "--fixed-effects-dof", "sum")
    assert not list(folder.rglob("*_stat-dof_*"))
    for start in (SESSION_START, DIFFERENCE_START):
        for stat in STATISTICS:
            here, there = (np.asarray(nib.load(path_of(root, start, stat)).dataobj) for root in (folder, output))
            assert np.array_equal(here, there) == (stat in ("effect", "variance", "t"))
        sidecar = sidecar_of(path_of(folder, start, "t"))
        assert sidecar["DegreesOfFreedom"] == sum(sidecar["InputDegreesOfFreedom"])
        assert sidecar["DegreesOfFreedomMethod"] == "sum of inputs"
    analyse(dataset, folder)
    assert values_of(folder, SESSION_START).keys() == {*STATISTICS, "dof"}


def test_a_single_run_has_neither_a_map_of_dof_nor_a_method(tmp_path: Path) -> None:
    analyse(simulated(tmp_path, n_participants=1, n_sessions=1), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*_stat-dof_*"))
    (path,) = (tmp_path / "out").rglob("*_ses-*_stat-t_*.json")
    sidecar = json.loads(path.read_text())
    assert [sidecar["DegreesOfFreedom"]] == sidecar["InputDegreesOfFreedom"]
    assert "DegreesOfFreedomMethod" not in sidecar

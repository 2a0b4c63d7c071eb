"""On simulated data the true regions come out and the null rest stays at the nominal rate."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from program import analyse
from sessionfx.simulate import SimulationOptions, simulate_dataset

START = "task-stroop_space-MNI152NLin2009cAsym_contrast-incongruentMinusCongruent"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SimulationOptions(n_volumes=100, write_raw_bold=False, missing=(("05", "03"),))
    return simulate_dataset(tmp_path_factory.mktemp("truth") / "bids", options)


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth-out") / "out"
    # the simulated head jumps now and then
    assert analyse(dataset, folder, "--confounds", "scrub", "--nprocs", "2") == 0
    return folder


def region(dataset: Path, desc: str) -> NDArray[np.bool_]:
    (path,) = (dataset / "derivatives" / "truth").glob(f"*desc-{desc}_mask.nii.gz")
    return nib.load(path).get_fdata() > 0


def group_map(output: Path, sessions: str, strategy: str, statistic: str) -> NDArray[np.float64]:
    return nib.load(
        output / "group" / f"{START}_sessions-{sessions}_strategy-{strategy}_stat-{statistic}_statmap.nii.gz"
    ).get_fdata()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sessions", "strategy", "desc"),
    [
        ("mean", "summaryStatistics", "meanEffect"),
        ("linear", "summaryStatistics", "sessionChange"),
        ("linear", "sessionModel", "sessionChange"),
    ],
)
def test_true_region_is_found_and_the_rest_stays_at_the_nominal_rate(
    dataset: Path, output: Path, sessions: str, strategy: str, desc: str
) -> None:
    t, variance = group_map(output, sessions, strategy, "t"), group_map(output, sessions, strategy, "variance")
    p = group_map(output, sessions, strategy, "p")
    mask = variance > 0
    true = region(dataset, desc) & mask
    null = mask & ~region(dataset, "meanEffect") & ~region(dataset, "sessionChange")
    z = group_map(output, sessions, strategy, "z")
    assert np.median(z[true]) > 3.5
    # two-sided rate at 5 %: null voxels are independent in the simulation, so this is a binomial count
    n_null = int(null.sum())
    rejected = int((2 * np.minimum(p[null], 1 - p[null]) < 0.05).sum())
    low, high = stats.binom.ppf([0.0005, 0.9995], n_null, 0.05)
    assert low <= rejected <= high, f"{rejected / n_null:.1%} of {n_null} null voxels"
    assert abs(t[null].mean()) < 4 / np.sqrt(n_null) * 1.5


@pytest.mark.slow
def test_pooled_mean_exaggerates_where_participants_differ(dataset: Path, output: Path) -> None:
    """In the region with random participant effects the pooled model's z is larger than the valid one's."""
    true = region(dataset, "meanEffect") & (group_map(output, "mean", "summaryStatistics", "variance") > 0)
    pooled, valid = (
        group_map(output, "mean", strategy, "z")[true] for strategy in ("sessionModel", "summaryStatistics")
    )
    assert np.median(pooled - valid) > 0.5


@pytest.mark.slow
def test_participant_effects_follow_the_truth(dataset: Path, output: Path) -> None:
    """Session effects of all participants in the region, against what was put in."""
    import pandas as pd

    truth = pd.read_csv(dataset / "derivatives" / "truth" / "effects.tsv", sep="\t", dtype=str)
    true_region = region(dataset, "meanEffect")
    name = f"{START}_stat-effect_desc-fixedEffects_statmap.nii.gz"
    given, found = [], []
    for row in truth.itertuples():
        participant, session = str(row.participant_id).removeprefix("sub-"), str(row.session_id).removeprefix("ses-")
        path = output / f"sub-{participant}" / f"ses-{session}" / "func" / f"sub-{participant}_ses-{session}_{name}"
        if path.is_file():
            values = nib.load(path).get_fdata()
            found.append(values[true_region & (values != 0)].mean())
            given.append(float(row.meanEffect))
    assert len(given) == 23
    slope, intercept = np.polyfit(given, found, 1)
    assert slope == pytest.approx(1, abs=0.15)
    assert intercept == pytest.approx(0, abs=0.15)

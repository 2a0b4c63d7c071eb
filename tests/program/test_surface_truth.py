"""On simulated surfaces the true patches come out at the group level, and the rest stays near the nominal rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from program import analyse, simulated
from sessionfx.bids.surfaces import read_surfaces

pytestmark = pytest.mark.slow

START = "task-stroop_space-fsLR_den-5k_contrast-incongruentMinusCongruent"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    return simulated(folder, n_participants=8, n_sessions=3, n_volumes=100, surfaces=("fsLR",))


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth-out") / "out"
    # the simulated head jumps now and then
    assert analyse(dataset, folder, "--space", "fsLR", "--confounds", "scrub") == 0
    return folder


@pytest.mark.parametrize(("sessions", "patch"), [("mean", "meanEffect"), ("linear", "sessionChange")])
@pytest.mark.parametrize("strategy", ["summaryStatistics", "marginal"])
def test_true_patches_are_found_and_the_rest_stays_near_the_nominal_rate(
    dataset: Path, output: Path, sessions: str, patch: str, strategy: str
) -> None:
    maps = {
        statistic: read_surfaces(
            [output / "group" / f"{START}_sessions-{sessions}_strategy-{strategy}_stat-{statistic}_statmap.dscalar.nii"]
        ).data[0]
        for statistic in ("z", "p")
    }
    masks = {
        name: read_surfaces(
            [dataset / "derivatives" / "truth" / f"space-fsLR_den-5k_desc-{name}_mask.dscalar.nii"]
        ).data[0] > 0
        for name in ("meanEffect", "sessionChange")
    }  # fmt: skip
    assert np.median(maps["z"][masks[patch]]) > 3
    null = ~masks["meanEffect"] & ~masks["sessionChange"]
    # noise is smooth: neighbours are wrong together
    assert 0.02 < (2 * np.minimum(maps["p"], 1 - maps["p"])[null] < 0.05).mean() < 0.09

"""F tests over conditions from raw data to the group: one command for both levels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from program import analyse, simulated

N = 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("f-conditions"), n_participants=N, n_sessions=2)


def load(output: Path, pattern: str) -> NDArray[np.float64]:
    (path,) = output.glob(pattern)
    return np.asarray(nib.load(path).get_fdata())


def test_f_of_the_group_is_hotellings_t2_of_participants_maps(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--session-contrast", "mean", "--session-contrast", "ses-02 - ses-01")
    assert analyse(dataset, output, *options, contrast="F:cond = congruent; incongruent - congruent") == 0
    for sessions in ("mean", "ses02MinusSes01"):
        found = load(output, f"group/*contrast-cond_sessions-{sessions}_strategy-summaryStatistics_stat-F_*.nii.gz")
        inside = found != 0
        values = np.array(
            [
                [load(output, f"sub-{participant + 1:02d}/func/*contrast-{row}_sessions-{sessions}_stat-effect_*.nii.gz")[
                    inside] for participant in range(N)]
                for row in ("congruent", "incongruentMinusCongruent")
            ]
        )  # fmt: skip
        mean = values.mean(axis=1)
        left = values - mean[:, None]
        covariance = np.einsum("rnv,snv->vrs", left, left) / (N - 1)
        t2 = N * np.einsum("rv,vrs,sv->v", mean, np.linalg.inv(covariance), mean)
        np.testing.assert_allclose(found[inside], (N - 2) / ((N - 1) * 2) * t2, rtol=1e-4)  # single precision
        marginal = load(output, f"group/*contrast-cond_sessions-{sessions}_strategy-marginal_stat-F_*.nii.gz")
        np.testing.assert_allclose(marginal, found, rtol=1e-4)
    # what is tested within participants has its maps beside
    assert len(list(output.glob("sub-*/func/*contrast-cond_sessions-mean_stat-F_*.nii.gz"))) == N

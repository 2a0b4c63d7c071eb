"""What a dry run says that a contrast needs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.group.needs import Needs

SHAPE = (20, 21, 22)
N_MAPS = 30


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 4), (np.float64, 8)])
def test_disk_is_that_of_the_maps_their_variances_and_what_is_resampled(
    tmp_path: Path, dtype: type[np.floating], size: int
) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for name in ("effect", "variance"):
        paths.append(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(rng.chisquare(5, SHAPE).astype(dtype), np.eye(4)), paths[-1])
    maps = [FirstLevelMap({}, tmp_path, paths[0].name, paths[1].name)] * N_MAPS

    def disk(*, needs_variances: bool = True, is_resampled: bool = False, is_kept: bool = False) -> float:
        return Needs.of(
            maps, needs_variances=needs_variances, is_resampled=is_resampled, n_answers=3, n_processes=1,
            is_kept=is_kept,
        ).disk  # fmt: skip

    of_maps = size * N_MAPS * np.prod(SHAPE)
    answers = disk(is_kept=True)
    assert answers == 3 * 4 * 8 * np.prod(SHAPE)
    assert disk() - answers == 2 * of_maps
    assert disk(needs_variances=False) - answers == of_maps
    assert disk(is_resampled=True) - disk() == disk(is_resampled=True, is_kept=True) - answers == of_maps

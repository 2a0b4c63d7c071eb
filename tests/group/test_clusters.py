"""The table of clusters holds what nilearn's holds, digit by digit."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.reporting import get_clusters_table
from numpy.typing import NDArray
from scipy import ndimage

from sessionfx.group.clusters import cluster_columns, clusters_table, numbers_jump
from sessionfx.space.grid import Grid

MNI = np.array([[2.0, 0, 0, -40], [0, 2.0, 0, -50], [0, 0, 2.0, -30], [0, 0, 0, 1]])
OBLIQUE = np.array([[-2.3, 0.2, 0.1, 33], [0.15, 2.4, -0.3, -51], [0.1, 0.25, 3.1, -20], [0, 0, 0, 1]])


def nilearns(
    volume: NDArray[np.float32], affine: NDArray[np.float64], threshold: float, minimum_voxels: int, two_sided: bool
) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = get_clusters_table(
            nib.Nifti1Image(volume, affine), threshold, cluster_threshold=minimum_voxels, two_sided=two_sided
        )
    return pd.DataFrame(table)


def assert_same(
    volume: NDArray[np.float32], affine: NDArray[np.float64], threshold: float, minimum_voxels: int, two_sided: bool
) -> pd.DataFrame:
    ours = clusters_table(volume, affine, threshold, minimum_voxels=minimum_voxels, two_sided=two_sided)
    pd.testing.assert_frame_equal(
        ours, nilearns(volume, affine, threshold, minimum_voxels, two_sided), check_exact=True
    )
    return ours


def smooth(seed: int, shape: tuple[int, int, int] = (20, 23, 18), width: float = 1.5) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), width)
    return (noise / noise.std()).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("affine", [MNI, OBLIQUE])
@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("minimum_voxels", [0, 10])
@pytest.mark.parametrize("threshold", [0.5, 1.5, 3.0])
def test_smooth_maps_with_many_clusters_and_peaks(
    affine: NDArray[np.float64], two_sided: bool, minimum_voxels: int, threshold: float
) -> None:
    table = assert_same(smooth(1), affine, threshold, minimum_voxels, two_sided)
    if threshold < 1:
        assert table["Cluster ID"].astype(str).str.contains("c").any()
    # clusters at the border, and one that fills most of the volume
    assert_same(smooth(2, width=0.6), affine, threshold, minimum_voxels, two_sided)


@pytest.mark.parametrize("seed", range(5))
def test_plateaus_whose_centre_is_a_voxel_of_theirs_or_not(seed: int) -> None:
    """Coarsely rounded values, as of permutations or of masks, have maxima of many voxels, rings among them."""
    assert_same(np.round(smooth(seed)).astype(np.float32), MNI, 0.9, 0, True)
    assert_same((np.abs(smooth(seed)) > 1.2).astype(np.float32), MNI, 0.5, 3, False)
    ring = np.zeros((12, 12, 12), dtype=np.float32)
    ring[3:9, 3:9, 5] = 2.0
    ring[5:7, 4:8, 5] = 0.0
    assert_same(ring, OBLIQUE, 1.0, 0, True)


def test_voxels_at_the_threshold_count_towards_the_size_only() -> None:
    volume = np.zeros((9, 9, 9), dtype=np.float32)
    volume[2:5, 3, 3] = [2.0, 1.0, 3.0]
    volume[6, 6, 5:8] = -1.0
    volume[6, 6, 5] = -2.0
    for minimum_voxels in (0, 2, 3, 4):
        for two_sided in (True, False):
            assert_same(volume, MNI, 1.0, minimum_voxels, two_sided)


def test_a_map_without_clusters_has_the_columns_alone() -> None:
    table = assert_same(np.zeros((5, 5, 5), dtype=np.float32) + 0.5, MNI, 1.0, 0, True)
    assert list(table.columns) == cluster_columns(Grid)
    assert table.empty


@pytest.mark.parametrize(("second_peak", "below", "jumps"), [(2.5, -2.0, True), (0.0, -2.0, False), (2.5, 0.0, False)])
def test_numbers_jump_where_sub_peaks_come_before_clusters_below_zero(
    second_peak: float, below: float, jumps: bool
) -> None:
    volume = np.zeros((12, 9, 9), dtype=np.float32)
    volume[1:10, 3, 3] = np.linspace(3.0, 1.2, 9)
    volume[9, 3, 3] = max(second_peak, 1.2)
    volume[6, 6, 6] = below
    table = assert_same(volume, MNI, 1.0, 0, True)
    assert numbers_jump(table) == jumps
    assert not numbers_jump(table.iloc[:0])

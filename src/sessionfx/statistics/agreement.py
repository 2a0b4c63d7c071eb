"""How far two maps of the same voxels agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.thresholds import suprathreshold

# Normal quantile of the 95 % limits of agreement (Bland & Altman 1986, doi:10.1016/S0140-6736(86)90837-8)
LIMITS_QUANTILE = 1.96


@dataclass(frozen=True)
class Agreement:
    """Agreement of maps a and b."""

    pearson_r: float  # correlation over voxels; NaN where a map is constant
    concordance: float  # Lin's concordance correlation (1989, doi:10.2307/2532051): also counts shifts and scale
    # bias, loa_lower, loa_upper: mean of a − b and its 95 % limits of agreement
    bias: float
    loa_lower: float
    loa_upper: float
    max_abs_difference: float  # largest |a − b|
    dice: float  # overlap of the supra-threshold voxels (same sign); NaN where neither map has any
    # n_voxels, n_above_a, n_above_b: voxels compared, and supra-threshold in each
    n_voxels: int
    n_above_a: int
    n_above_b: int


def compare(
    a: NDArray[np.floating], b: NDArray[np.floating], threshold_a: float, threshold_b: float, *, two_sided: bool = True
) -> Agreement:
    """Compare two maps.

    Parameters
    ----------
    a, b : ndarray of shape (V,)
        Values of the same voxels, in the same unit.
    threshold_a, threshold_b : float
        A voxel is supra-threshold where |value| reaches this.
    two_sided : bool, default=True
        False where only large positive values count (F tests).
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference = a - b
    mean_a, mean_b = a.mean(), b.mean()
    variance_a, variance_b = a.var(), b.var()
    covariance = ((a - mean_a) * (b - mean_b)).mean()
    spread = np.sqrt(variance_a * variance_b)
    scatter = variance_a + variance_b + (mean_a - mean_b) ** 2
    bias = float(difference.mean())
    sd = float(difference.std(ddof=1)) if difference.size > 1 else 0.0
    above_a = suprathreshold(a, threshold_a, two_sided=two_sided)
    above_b = suprathreshold(b, threshold_b, two_sided=two_sided)
    n_a, n_b = int(above_a.sum()), int(above_b.sum())
    both = int((above_a & above_b & (np.sign(a) == np.sign(b))).sum())
    return Agreement(
        # rounding can carry a perfect correlation past 1
        pearson_r=float(np.clip(covariance / spread, -1, 1)) if spread > 0 else float("nan"),
        concordance=float(2 * covariance / scatter) if scatter > 0 else float("nan"),
        bias=bias,
        loa_lower=bias - LIMITS_QUANTILE * sd,
        loa_upper=bias + LIMITS_QUANTILE * sd,
        max_abs_difference=float(np.abs(difference).max(initial=0.0)),
        dice=2 * both / (n_a + n_b) if n_a + n_b else float("nan"),
        n_voxels=int(a.size),
        n_above_a=n_a,
        n_above_b=n_b,
    )

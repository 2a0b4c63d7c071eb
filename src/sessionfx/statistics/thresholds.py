"""Thresholds for maps of z."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def z_threshold(z: NDArray[np.floating], alpha: float, correction: str) -> float:
    """Two-sided threshold on |z|.

    Parameters
    ----------
    z : ndarray of shape (V,)
        All voxels of the map, not only the large ones.
    alpha : float
        False discovery rate (`fdr`: Benjamini & Hochberg 1995), family-wise error rate (`bonferroni`), or
        voxelwise false-positive rate (`none`).
    correction : {'fdr', 'bonferroni', 'none'}

    Returns
    -------
    float
        Voxels with |z| at or above it are significant; infinite where FDR finds none.
    """
    if correction == "none":
        return float(stats.norm.isf(alpha / 2))
    if correction == "bonferroni":
        return float(stats.norm.isf(alpha / 2 / z.size))
    magnitude = np.sort(np.abs(z))[::-1].astype(np.float64)
    two_sided_p = 2 * stats.norm.sf(magnitude)
    passing = np.nonzero(two_sided_p <= alpha * np.arange(1, z.size + 1) / z.size)[0]
    return float(magnitude[passing[-1]]) if passing.size else float("inf")

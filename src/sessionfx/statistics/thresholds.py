"""Thresholds for maps of z."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sessionfx.statistics.linear_algebra import Array


def z_threshold(z: NDArray[np.floating], alpha: float, correction: str, *, two_sided: bool = True) -> float:
    """Threshold on |z|, or on z where only the upper tail counts.

    Parameters
    ----------
    z : ndarray of shape (V,)
        All voxels of the map, not only the large ones.
    alpha : float
        False discovery rate (`fdr`: Benjamini & Hochberg 1995), family-wise error rate (`bonferroni`), or
        voxelwise false-positive rate (`none`).
    correction : {'fdr', 'bonferroni', 'none'}
    two_sided : bool, default=True
        False for F tests.

    Returns
    -------
    float
        Voxels with |z| (or z) at or above it are significant; infinite where FDR finds none. That of FDR is the z of
        the last voxel that passes, rounded down to six decimals: so it keeps the same voxels of a map in single
        precision, as files have it.
    """
    tails = 2 if two_sided else 1
    if correction == "none":
        return float(-special.ndtri(alpha / tails))
    if correction == "bonferroni":
        return float(-special.ndtri(alpha / tails / z.size))
    magnitude = np.sort(np.abs(z) if two_sided else z)[::-1].astype(np.float64)
    p = tails * special.ndtr(-magnitude)
    passing = np.nonzero(p <= alpha * np.arange(1, z.size + 1) / z.size)[0]
    if not passing.size:
        return float("inf")
    last = magnitude[passing[-1]]
    return float(np.floor(1e6 * min(last, np.float64(np.float32(last)))) / 1e6)


def corrected_p(p: Array, correction: str) -> Array:
    """Correct p values for how many there are: the smallest error rate at which each passes `z_threshold`.

    Parameters
    ----------
    p : ndarray of shape (V,)
        Two-sided, or of the upper tail of F.
    correction : {'fdr', 'bonferroni', 'none'}
    """
    if correction == "none" or not p.size:
        return p
    if correction == "bonferroni":
        return np.minimum(p * p.size, 1.0)
    order = np.argsort(p)
    found = np.empty_like(p)
    by_rank = p[order] * p.size / np.arange(1, p.size + 1)
    found[order] = np.minimum.accumulate(by_rank[::-1])[::-1]
    return found


def suprathreshold(z: NDArray[np.floating], threshold: float, *, two_sided: bool = True) -> NDArray[np.bool_]:
    """Say which voxels a threshold of `z_threshold` keeps, of shape (V,)."""
    return np.asarray((np.abs(z) if two_sided else z) >= threshold)


def peak_index(z: NDArray[np.floating], *, two_sided: bool = True) -> int:
    """Find the voxel whose |z|, of an F test whose z, is largest; NaN is passed over, and not all may be NaN."""
    return int(np.nanargmax(np.abs(z) if two_sided else z))

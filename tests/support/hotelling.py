"""Hotelling's test written out, which tests compare the program with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def hotelling_t2(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute F and p of Hotelling's T² of values of shape (Q, n, V), voxel by voxel from its definition."""
    q, n, _ = values.shape
    t2 = [
        n * voxel.mean(axis=1) @ np.linalg.inv(np.cov(voxel)) @ voxel.mean(axis=1)
        for voxel in values.transpose(2, 0, 1)
    ]
    f = (n - q) / ((n - 1) * q) * np.array(t2)
    return f, stats.f.sf(f, q, n - q)

"""Ordinary least squares in one call, and the analysis of variance that tests compare the program with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.ols import prepare_ols


def fit_ols(values: NDArray[np.floating], design: NDArray[np.float64], contrast: NDArray[np.float64]) -> Estimate:
    """Estimate a contrast of a design of shape (N, P) at voxels of shape (N, V)."""
    return prepare_ols(design, contrast).estimate(values)


def anova_mean_squares(cube: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Mean squares of participants, of what is left within them, and of what session means leave of that.

    Of maps of shape (participants, sessions, voxels), as Shrout and Fleiss have them.
    """
    n, k = cube.shape[:2]
    own, sessions, grand = cube.mean(axis=1), cube.mean(axis=0), cube.mean(axis=(0, 1))
    between = k * ((own - grand) ** 2).sum(axis=0) / (n - 1)
    within = ((cube - own[:, None]) ** 2).sum(axis=(0, 1)) / (n * (k - 1))
    residual = ((cube - own[:, None] - sessions + grand) ** 2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    return between, within, residual

"""Ordinary least squares in one call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.ols import prepare_ols


def fit_ols(values: NDArray[np.floating], design: NDArray[np.float64], contrast: NDArray[np.float64]) -> Estimate:
    """Estimate a contrast of a design of shape (N, P) at voxels of shape (N, V)."""
    return prepare_ols(design, contrast).estimate(values)

"""Fixed effects: combining the estimates of one participant's runs or sessions.

The variance of the result is within-participant variance only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate


def weighted_sum(inputs: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Sum independent estimates with fixed weights.

    Parameters
    ----------
    inputs : sequence of N Estimate
        Of the same V voxels.
    weights : sequence of N float
        For example 1/N each for their mean, or 1 and −1 for a difference.

    Returns
    -------
    Estimate
        effect Σ c b, variance Σ c² v, dof Σ dof (over the inputs with a weight other than zero).
    """
    used = [(one, weight) for one, weight in zip(inputs, weights, strict=True) if weight != 0]
    effect = sum((weight * one.effect for one, weight in used), np.zeros_like(inputs[0].effect))
    variance = sum((weight**2 * one.variance for one, weight in used), np.zeros_like(inputs[0].variance))
    return Estimate(effect, variance, sum(one.dof for one, _ in used))


def average(inputs: Sequence[Estimate], weighting: str = "equal") -> Estimate:
    """Average independent estimates.

    Parameters
    ----------
    inputs : sequence of N Estimate
        Of the same V voxels, all with variances above zero.
    weighting : {'equal', 'precision'}
        Arithmetic mean, or weights inversely proportional to each voxel's variances.

    Returns
    -------
    Estimate
        As nilearn's `compute_fixed_effects`, with the inputs' own degrees of freedom.
    """
    if weighting == "equal":
        return weighted_sum(inputs, [1 / len(inputs)] * len(inputs))
    precisions: list[NDArray[np.float64]] = [1 / one.variance for one in inputs]
    total = np.sum(precisions, axis=0)
    effect = np.sum([one.effect * precision for one, precision in zip(inputs, precisions, strict=True)], axis=0)
    return Estimate(effect / total, 1 / total, sum(one.dof for one in inputs))

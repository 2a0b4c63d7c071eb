"""How like the others each participant's map is, and each of a participant's maps, from sums over voxels.

The others are the median over the other participants, voxel by voxel, which a single one with wrong units or another
contrast cannot move. What is kept of a block of voxels are sums, which add up.

Shapes: M maps, n participants, V voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.linear_algebra import Array

_MAD_OF_NORMAL = 0.6745
EXTREME = 5.0  # robust z of a value among the participants' at a voxel
FEWEST = 8  # participants, among whom one can stand out
# Maps stand out whose correlation is below a quarter of the median one, where that says anything, or whose spread is
# beyond threefold, or of which a quarter is extreme; and which are so many robust standard deviations from the others.
# How often that is so of one in simulated studies with and without it is in docs/influence.md.
LEAST_CORRELATION = 0.15
SMALLEST_SHARE = 0.25
LARGEST_RATIO = 3.0
MANY_EXTREMES = 0.25
OUTLYING = 3.0
FAR_OUTLYING = 5.0  # for spread and extreme values, whose distributions have long tails
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Profiles:
    """How maps are beside the others, arrays of shape (M,)."""

    correlation: Array  # with the others; NaN where a map is constant
    slope: Array  # on the others: 1 where effects are as large
    # mean, spread: over voxels; the spread is relative to that of the median map
    mean: Array
    spread: Array
    extreme: Array  # share of voxels at which the value is beyond `EXTREME`

    @cached_property
    def typical_correlation(self) -> float:
        """Median over maps; NaN where none has a correlation."""
        known = self.correlation[np.isfinite(self.correlation)]
        return float(np.median(known)) if known.size else float("nan")

    @cached_property
    def is_unlike(self) -> NDArray[np.bool_]:
        """Where the correlation is far below that of most maps."""
        around = np.arctanh(np.clip(self.correlation, -1 + _SMALLEST, 1 - _SMALLEST))
        middle = self.typical_correlation
        if not middle > LEAST_CORRELATION:
            return np.isnan(self.correlation)
        low = self.correlation < SMALLEST_SHARE * middle
        return np.asarray(low & (_robust_z(around) < -OUTLYING) | np.isnan(self.correlation))

    @cached_property
    def is_reversed(self) -> NDArray[np.bool_]:
        """Which of these have an opposite sign."""
        return np.asarray(self.is_unlike & (-self.correlation > SMALLEST_SHARE * self.typical_correlation))

    @cached_property
    def is_scaled(self) -> NDArray[np.bool_]:
        """Where values are spread much more widely, or less, than those of most maps."""
        logs = np.log(np.maximum(self.spread, _SMALLEST))
        return np.asarray((np.abs(logs) > np.log(LARGEST_RATIO)) & (np.abs(_robust_z(logs)) > FAR_OUTLYING))

    @cached_property
    def is_extreme(self) -> NDArray[np.bool_]:
        """Where values are beyond those of the others at many voxels."""
        return np.asarray((self.extreme > MANY_EXTREMES) & (_robust_z(np.sqrt(self.extreme)) > FAR_OUTLYING))


def sums_of(values: Array, owners: NDArray[np.int_]) -> Array:
    """Sum up what profiles of participants' means and of maps need of some voxels.

    Parameters
    ----------
    values : ndarray of shape (M, V)
    owners : ndarray of int, shape (M,)
        Number of the participant, from 0.

    Returns
    -------
    ndarray of shape (n + M, 7)
        Voxels, Σ x, Σ x², Σ o, Σ o², Σ x o, and extreme ones; x the values, o those of the others. Participants first.
    """
    counts = np.bincount(owners)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, owners, values)
    means /= counts[:, None]
    others, middle, deviation = _others(means)
    limit = np.where(deviation > 0, EXTREME * deviation, np.inf)
    sums, squares = others.sum(axis=1), np.einsum("nv,nv->n", others, others)
    return np.concatenate(
        [
            np.column_stack(
                [
                    np.full(len(own), values.shape[1]),
                    own.sum(axis=1),
                    np.einsum("mv,mv->m", own, own),
                    sums[of],
                    squares[of],
                    np.einsum("mv,mv->m", own, others[of]),
                    (np.abs(own - middle) > limit).sum(axis=1),
                ]
            )
            for own, of in ((means, slice(None)), (values, owners))
        ]
    )


def profiles_of(sums: Array) -> Profiles:
    """Make profiles of sums over all voxels, of participants or of maps."""
    n_voxels, own, own_squares, others, other_squares, products, extremes = sums.T
    variance = np.maximum(own_squares / n_voxels - (own / n_voxels) ** 2, 0.0)
    other_variance = np.maximum(other_squares / n_voxels - (others / n_voxels) ** 2, 0.0)
    covariance = products / n_voxels - own * others / n_voxels**2
    # what rounding leaves of equal values
    varies = variance > _SMALLEST * own_squares / n_voxels
    other_varies = other_variance > _SMALLEST * other_squares / n_voxels
    nothing = np.full(len(sums), np.nan)
    spread = np.where(varies, np.sqrt(variance), 0.0)
    correlation = np.divide(
        covariance, np.sqrt(variance * other_variance), where=varies & other_varies, out=nothing.copy()
    )
    return Profiles(
        correlation=correlation,
        slope=np.divide(covariance, other_variance, where=other_varies, out=nothing.copy()),
        mean=own / n_voxels,
        spread=spread / (np.median(spread) or 1.0),
        extreme=extremes / n_voxels,
    )


def _others(means: Array) -> tuple[Array, Array, Array]:
    """Find the median of the other participants, of shape (n, V); that of all, and their robust deviation, (V,)."""
    ordered, n = np.sort(means, axis=0), len(means)
    # what is at a place of the order, once a participant is taken out: the next one where it was at or before that
    places: Sequence[int] = [(n - 2) // 2] if n % 2 == 0 else [(n - 3) // 2, (n - 1) // 2]
    left = [np.where(means <= ordered[place], ordered[place + 1], ordered[place]) for place in places]
    others = np.asarray(sum(left) / len(left))
    middle = (ordered[n // 2] + ordered[(n - 1) // 2]) / 2
    deviation = np.median(np.abs(means - middle), axis=0) / _MAD_OF_NORMAL
    return others, middle, deviation


def _robust_z(values: Array) -> Array:
    known = values[np.isfinite(values)]
    around = values - np.median(known)
    deviation = np.median(np.abs(known - np.median(known))) / _MAD_OF_NORMAL
    return np.asarray(around / max(float(deviation), _SMALLEST))

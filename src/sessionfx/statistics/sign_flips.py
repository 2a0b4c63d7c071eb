"""Is it more than chance, over a whole brain? Judged by the signs of participants' residuals.

Neighbouring voxels are alike, so that a share of voxels beyond a limit says little by itself: in a smooth brain it
varies widely by chance. Here a statistic is averaged over voxels, and compared with its averages after all of some
participants' residuals changed their signs, in every voxel alike: that keeps how alike voxels are, and how much each
participant varies, and takes away what is tested.

Shapes: n participants, V voxels, F sets of signs, of which the first is that of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.statistics.linear_algebra import Array, pseudo_inverse

N_FLIPS = 49
_SEED = 20_240  # fixed: what the data say about assumptions must not depend on an option
_HALVES = 10
# A half with less variation, relative to its values' squares, is constant but for rounding
_CONSTANT = 1e-12


@lru_cache(maxsize=8)  # of every block the same
def random_signs(n: int, n_flips: int = N_FLIPS) -> Array:
    """Draw signs of shape (1 + n_flips, n); the first set is all ones, and no other set is all alike."""
    rng, drawn = np.random.default_rng([_SEED, n]), [np.ones(n)]
    while len(drawn) <= n_flips:
        signs = np.where(rng.random(n) < 0.5, -1.0, 1.0)
        if abs(signs.sum()) < n:
            drawn.append(signs)
    found = np.array(drawn)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=8)
def random_halves(n: int) -> Array:
    """Draw halves of participants, of shape (H, n): ones for the first half, zeros for the second."""
    rng = np.random.default_rng([_SEED, n, 2])
    return np.array([rng.permutation(n) < n // 2 for _ in range(_HALVES)], dtype=float)


def chance(statistic: Array) -> float:
    """Find p: the share of the F sets of signs that give at least what the data, the first of them, give."""
    return float(np.count_nonzero(statistic >= statistic[0]) / len(statistic))


def squared_skewness(residuals: Array, signs: Array) -> Array:
    """Add up over voxels an estimate of the square of the skewness that is near zero where there is none.

    The square of a sample's skewness is above zero by chance, the more the fewer participants. The product of those of
    two halves of the participants is not: they are independent. It is averaged over random halves. With few
    participants it is too small where there is skewness, because that of few values is limited.

    Parameters
    ----------
    residuals : ndarray of shape (n, V)
        Of participants' values; at least six participants.
    signs : ndarray of shape (F, n)

    Returns
    -------
    ndarray of shape (F,)
    """
    first = random_halves(len(residuals))
    squares, cubes = residuals**2, residuals**3
    halves = (first, 1 - first)
    spread = [half @ squares / half.sum(axis=1, keepdims=True) for half in halves]
    first_skewness, second_skewness = (
        _skewness(signs, half, residuals, cubes, second) for half, second in zip(halves, spread, strict=True)
    )
    return np.asarray((first_skewness * second_skewness).mean(axis=1).sum(axis=1))


def _skewness(signs: Array, halves: Array, values: Array, cubes: Array, second: Array) -> Array:
    """Compute the skewness, of shape (F, S, V), of S selections of signed values with mean squares `second`."""
    shape = (len(signs), len(halves), values.shape[1])
    mean, third = (
        (signs @ (halves.T[:, :, None] * of_values[:, None]).reshape(len(values), -1)).reshape(shape)
        / halves.sum(axis=1)[:, None]
        for of_values in (values, cubes)
    )
    variance = second - mean**2
    varies = variance > _CONSTANT * second
    root = np.sqrt(np.where(varies, variance, 1.0))
    return np.asarray(np.where(varies, (third - 3 * mean * second + 2 * mean**3) / root**3, 0.0))


def standardised_scores(scores: Array, expected: Array, signs: Array) -> Array:
    """Add up over voxels the squares of the sum of participants' scores, relative to what is expected of them.

    Estimating the nuisance makes scores smaller, and their sum less so than flipped sums. Each sum is divided by its
    standard deviation under the working covariance (De Santis et al. 2022, arXiv:2209.13918), and all by the sum of
    squares at the voxel.

    Parameters
    ----------
    scores : ndarray of shape (n, V)
        Effective scores, whose signs may be flipped (Hemerik, Goeman & Finos 2020, doi:10.1111/rssb.12369).
    expected : ndarray of shape (F,)
        See `EffectiveScores.expected_squares`.
    signs : ndarray of shape (F, n)

    Returns
    -------
    ndarray of shape (F,)
    """
    total = np.einsum("nv,nv->v", scores, scores)
    standard = scores[:, total > 0] / np.sqrt(total[total > 0])
    return np.asarray(((signs @ standard) ** 2).sum(axis=1) / expected)


@dataclass(frozen=True)
class EffectiveScores:
    """Scores of n participants from N maps: what their own maps say, less what the nuisance carries."""

    own: sparse.csr_array  # (n, N)
    carried: Array  # (n, P)
    coefficients: Array  # (P, N): of the nuisance
    memberships: sparse.csr_array  # (N, n): whose map each is
    ratio: float  # λ of the working covariance

    def of(self, values: NDArray[np.floating]) -> Array:
        """Compute the scores of V voxels, of shape (n, V)."""
        return np.asarray(self.own @ values - self.carried @ (self.coefficients @ values))

    def expected_squares(self, signs: Array) -> Array:
        """Find the expected squares, of shape (F,), of flipped sums of scores, relative to the sum of their variances.

        Under the working covariance I + λZZ′ of the maps, Z saying whose map each is.
        """
        found, total = np.zeros(len(signs)), 0.0
        for own, coefficients, share in (
            (self.own, self.coefficients, 1.0),
            (sparse.csr_array(self.own @ self.memberships), self.coefficients @ self.memberships, self.ratio),
        ):
            found += share * np.square(signs @ own - (signs @ self.carried) @ coefficients).sum(axis=1)
            crossed = float((self.carried * (own @ coefficients.T)).sum())
            squares = np.einsum("np,pq,nq->", self.carried, coefficients @ coefficients.T, self.carried, optimize=True)
            total += share * float(own.power(2).sum() - 2 * crossed + squares)
        return np.asarray(found / total)


def effective_scores(tested: Array, nuisance: Array, owners: NDArray[np.int_], ratio: float) -> EffectiveScores | None:
    """Find the participants' scores for a regressor, in the model without it.

    The regressor is made orthogonal to the nuisance under the working covariance, I + λJ of each participant's maps:
    a score then does not change with the error of the nuisance's estimates.

    Parameters
    ----------
    tested : ndarray of shape (N,)
    nuisance : ndarray of shape (N, P)
    owners : ndarray of int, shape (N,)
        Index of each map's participant.
    ratio : float
        λ; variance between over variance within participants.

    Returns
    -------
    EffectiveScores or None
        None where the nuisance explains the regressor.
    """
    counts = np.bincount(owners)

    def weighted(columns: Array) -> Array:  # (I + λJ)⁻¹ per participant
        sums = np.zeros((len(counts), columns.shape[1]))
        np.add.at(sums, owners, columns)
        return np.asarray(columns - (ratio / (1 + ratio * counts))[owners, None] * sums[owners])

    of_nuisance = weighted(nuisance)
    solve = pseudo_inverse(nuisance.T @ of_nuisance)
    left = tested - nuisance @ (solve @ (of_nuisance.T @ tested))
    if left @ left <= _CONSTANT * (tested @ tested):
        return None
    shape, rows = (len(counts), len(owners)), np.arange(len(owners))
    own = sparse.csr_array((weighted(left[:, None])[:, 0], (owners, rows)), shape=shape)
    memberships = sparse.csr_array((np.ones(len(owners)), (rows, owners)), shape=shape[::-1])
    return EffectiveScores(own, own @ nuisance, solve @ of_nuisance.T, memberships, ratio)


def outlying(residuals: Array, free: Array, limit: float) -> tuple[NDArray[np.int_], int]:
    """Count the voxels in which each participant lies beyond a limit on externally studentised residuals.

    Parameters
    ----------
    residuals : ndarray of shape (n, V)
    free : ndarray of shape (n,)
        Diagonal of I − XX⁺.
    limit : float
        On |t| with n − rank − 1 degrees of freedom.

    Returns
    -------
    counts : ndarray of shape (n,)
    n_any : int
        Voxels in which somebody does.
    """
    dof = round(free.sum())
    variance = np.einsum("nv,nv->v", residuals, residuals) / dof
    squared = residuals**2 / np.where(free > _CONSTANT, free, np.inf)[:, None] / variance
    beyond = squared * (dof - 1) > limit**2 * (dof - squared)  # t² = r²(ν − 1)/(ν − r²)
    return beyond.sum(axis=1), int(beyond.any(axis=0).sum())

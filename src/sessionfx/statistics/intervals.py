"""Confidence intervals: of one estimate, and of all sessions at one place together.

The estimate of a session is the least-squares one of the participants who have it, its covariance with that of another
session comes from the residuals of those who have both (CR2 with independence as the working correlation; the sample
covariance where all sessions are there and there are no covariates). An interval of its own holds one session's effect
in 95 % of studies, simultaneous ones those of all sessions at once: their quantile is that of the largest |t| of a
multivariate t distribution with the estimates' correlations and the smallest of their degrees of freedom (Hothorn,
Bretz & Westfall 2008, doi:10.1002/bimj.200810425).

Neither allows for how the place was chosen: at a peak, chosen because the effect is large, intervals lie too high.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from sessionfx.statistics.linear_algebra import Array

LEVEL = 0.95
# The quantile comes out to 2e-4 up to six sessions and to 1e-3 at ten, in a tenth of a second. The integrand is smooth
# in what directions give, so that neighbours among them are taken together.
_DIRECTIONS, _TOGETHER = 2**17, 128
_SEED = 0
_ZERO = 1e-10


@dataclass(frozen=True)
class SessionIntervals:
    """Estimates of S sessions at one place, with their intervals; NaN for sessions that too few participants have."""

    # effect, error, dof, (S,): the estimate, its standard error, both in units of the effects, and its degrees of
    # freedom
    effect: Array
    error: Array
    dof: Array
    of_each: Array  # (S, 2): lower and upper end of each session's own interval
    of_all: Array  # (S, 2): ends of the intervals that hold all sessions at once


def interval(effect: ArrayLike, variance: ArrayLike, dof: ArrayLike) -> tuple[Array, Array]:
    """Find the ends of the t interval of each of some estimates, whose arrays go together by broadcasting."""
    half = stats.t.isf((1 - LEVEL) / 2, dof) * np.sqrt(variance)
    return np.asarray(effect - half), np.asarray(effect + half)


def session_intervals(
    effects: NDArray[np.floating],
    between: NDArray[np.floating] | None = None,
    weights: NDArray[np.floating] | None = None,
) -> SessionIntervals:
    """Estimate each session at one place (a voxel, a region), with intervals pointwise and simultaneous.

    Parameters
    ----------
    effects : ndarray of shape (n, S)
        Of each participant in each session, in any unit; NaN where there is none.
    between : ndarray of shape (n, P), optional
        Constant and centred covariates of the participants; a constant alone if not given.
    weights : ndarray of shape (P,), optional
        Of the group contrast; the first column alone (the mean over participants) if not given.

    Returns
    -------
    SessionIntervals
    """
    n, n_sessions = effects.shape
    columns: Array = np.ones((n, 1)) if between is None else np.asarray(between, dtype=np.float64)
    asked: Array = np.eye(columns.shape[1])[0] if weights is None else np.asarray(weights, dtype=float)
    effect, dof = np.full((2, n_sessions), np.nan)
    scores = np.zeros((n, n_sessions))
    for session, values in enumerate(effects.T):
        there = np.isfinite(values)
        found = _least_squares(values[there], columns[there], asked)
        if found is not None:
            effect[session], scores[there, session], dof[session] = found
    error = np.sqrt(np.where(np.isnan(effect), np.nan, np.square(scores).sum(axis=0)))
    known = error > 0
    quantile = np.nan
    if known.any():
        standard = scores[:, known] / error[known]
        quantile = largest_t_quantile(standard.T @ standard, float(dof[known].min()))
    together = effect - quantile * error, effect + quantile * error
    alone = interval(effect, error**2, dof)
    return SessionIntervals(effect, error, dof, np.column_stack(alone), np.column_stack(together))


def _least_squares(values: NDArray[np.floating], between: Array, weights: Array) -> tuple[float, Array, float] | None:
    """Estimate a group contrast: effect, scores whose squares add up to its CR2 variance, and Satterthwaite's dof.

    None where these participants do not determine it or leave it no degrees of freedom.
    """
    if len(values) <= between.shape[1]:
        return None
    inverse = np.linalg.pinv(between)
    if not np.allclose(weights @ inverse @ between, weights, atol=1e-8):
        return None
    own = weights @ inverse
    basis = np.linalg.svd(between, full_matrices=False)[0][:, : np.linalg.matrix_rank(between)]
    free = 1 - np.square(basis).sum(axis=1)
    counts = own**2 / np.where(free > _ZERO, free, np.inf)
    shares = basis.T @ (counts[:, None] * basis)
    spread = counts**2 @ (1 - 2 * (1 - free)) + np.square(shares).sum()  # tr (GG′)² of DESIGN, without n × n matrices
    if spread <= 0:
        return None
    residuals = values - between @ (inverse @ values)
    scores = np.sign(own) * np.sqrt(counts) * residuals
    return float(own @ values), scores, float((counts @ free) ** 2 / spread)


def largest_t_quantile(correlation: Array, dof: float) -> float:
    """Find what the largest |t| of several estimates stays below with a probability of 95 %.

    Parameters
    ----------
    correlation : ndarray of shape (S, S)
        Of the estimates, of any rank.
    dof : float
        Any positive number, or infinite.

    Returns
    -------
    float
        From the quantile of one |t| to Bonferroni's. With T = R L u for a direction u on the sphere of d dimensions,
        R²/d has an F distribution, so that P(max |T| ≤ q) is a mean of F probabilities over directions, taken at a
        fixed sequence of them (Sobol's): the same number at every call.
    """
    one, all_together = (float(stats.t.isf((1 - LEVEL) / 2 / number, dof)) for number in (1, len(correlation)))
    values, vectors = np.linalg.eigh(correlation)
    kept = values > _ZERO * values.max()
    n_dimensions = int(kept.sum())
    if n_dimensions == 1:
        return one
    largest = np.abs(_directions(n_dimensions) @ (vectors[:, kept] * np.sqrt(values[kept])).T).max(axis=1)
    largest = np.sort(largest).reshape(-1, _TOGETHER).mean(axis=1)

    def excess(quantile: float) -> float:
        squares = (quantile / largest) ** 2
        if np.isinf(dof):
            return float(special.chdtr(n_dimensions, squares).mean()) - LEVEL
        return float(special.fdtr(n_dimensions, dof, squares / n_dimensions).mean()) - LEVEL

    if excess(all_together) <= 0:  # as close to Bonferroni's as the sum can tell
        return all_together
    return float(optimize.brentq(excess, one * (1 - 1e-3), all_together, xtol=1e-8))


@cache
def _directions(n_dimensions: int) -> Array:
    """Make unit vectors evenly over the sphere, of shape (_DIRECTIONS, d)."""
    points = special.ndtri(stats.qmc.Sobol(n_dimensions, seed=_SEED).random(_DIRECTIONS))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

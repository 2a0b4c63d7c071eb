"""Bayes factors of t tests: an effect with a Cauchy prior against none (JZS; Rouder et al. 2009).

Vocabulary
----------
scale
    r of the Cauchy prior on the standardised effect, the effect divided by the standard deviation of what is observed.
n
    What is observed as often as makes the standard error of the effect its standard deviation / √n: the participants of
    one sample, n₁n₂/(n₁+n₂) of two. Not always a whole number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev
from scipy import special

from sessionfx.statistics.linear_algebra import Array

MEDIUM_SCALE = math.sqrt(2) / 2
"""The default of the R package BayesFactor and of JASP."""

# Trapezoids over log g: the integrand is analytic and falls off exponentially, so that they converge exponentially.
# With this step, and ends beyond which less than 1e-15 is left, nothing changes in double precision.
_STEP = 0.125
_BELOW, _ABOVE = 7.0, 40.0
# Of the interpolation in log(1 + t²/ν), in which the log Bayes factor is smooth; |t| up to this, then up to so many
# times as much, and so on, so that a few voxels without noise do not coarsen it for all
_DEGREE = 80
_FIRST_PIECE, _PIECES = 10.0, 4.0


@dataclass(frozen=True)
class BayesFactors:
    """How much more likely the data are with an effect than without."""

    scale: float
    n: float
    log10: Array  # (V,): decimal logarithm of BF₁₀; below zero where the data speak for no effect
    smallest: float  # the BF₁₀ of t = 0: no data of this design speak more for no effect

    def count(self, factor: float) -> int:
        """Count voxels whose Bayes factor is above a factor, or below one that is less than 1."""
        limit = math.log10(factor)
        return int((self.log10 > limit).sum() if factor > 1 else (self.log10 < limit).sum())


def bayes_factors(t: Array, dof: float, n: float, scale: float = MEDIUM_SCALE) -> BayesFactors:
    """Find the Bayes factors of t tests with the same design.

    Parameters
    ----------
    t : ndarray of shape (V,)
    dof : float
        ν, the same for all.
    n : float
        As in the module's vocabulary.
    scale : float
        Of the Cauchy prior.

    Returns
    -------
    BayesFactors
        Of V tests, by interpolation between values that `log_bayes_factor` integrates.
    """
    x = np.log1p(np.square(t) / dof)
    found = np.empty_like(x)
    low, high = -1.0, _FIRST_PIECE
    while low < (largest := float(np.abs(t).max(initial=0.0))):
        piece = (np.abs(t) > low) & (np.abs(t) <= high)
        if piece.any():
            # each a little beyond what is asked for: all t of a piece may be the same
            domain = np.log1p(np.square([max(low, 0.0), min(high, largest + 0.01)]) / dof)
            curve = Chebyshev.interpolate(lambda at: log_bayes_factor(at, dof, n, scale), _DEGREE, domain=domain)
            found[piece] = curve(x[piece])
        low, high = high, _PIECES * high
    smallest = math.exp(log_bayes_factor(np.zeros(1), dof, n, scale)[0])
    return BayesFactors(scale, n, found / math.log(10), smallest)


def bayes_factors_by_n(t: Array, n: Array, scale: float = MEDIUM_SCALE) -> BayesFactors:
    """Find the Bayes factors of one-sample t tests, each of n values; `n` and `smallest` are of the largest n."""
    parts = {size: bayes_factors(t[n == size], size - 1, size, scale) for size in np.unique(n).tolist()}
    log10 = np.empty_like(t)
    for size, part in parts.items():
        log10[n == size] = part.log10
    return BayesFactors(scale, max(parts), log10, parts[max(parts)].smallest)


def log_bayes_factor(x: Array, dof: float, n: float, scale: float) -> Array:
    """Integrate over the variance g of the standardised effect, which under a Cauchy prior is inverse gamma.

    Parameters
    ----------
    x : ndarray of shape (K,)
        log(1 + t²/ν).
    dof, n, scale : float
        As in `bayes_factors`.

    Returns
    -------
    ndarray of shape (K,)
        log BF₁₀ of Rouder et al. (2009, doi:10.3758/PBR.16.2.225, eq. 1), with n, ν and r in place of N, N − 1 and 1:
        flat priors on all other coefficients and on the logarithm of the variance leave t alone to tell of the effect.
    """
    centre = 2 * math.log(scale)
    end = max(centre, float(x.max()) + math.log1p(dof) - math.log(n)) + _ABOVE
    log_g = np.arange(centre - _BELOW, end, _STEP)
    grown = np.log1p(n * np.exp(log_g))
    log_prior = (centre - log_g - math.log(2 * math.pi) - np.exp(centre - log_g)) / 2
    ratio = np.log1p(np.expm1(x)[:, None] * np.exp(-grown)) - x[:, None]
    return np.asarray(special.logsumexp(log_prior - (grown + (dof + 1) * ratio) / 2, axis=1) + math.log(_STEP))

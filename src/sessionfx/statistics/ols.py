"""Ordinary least squares of many voxels on one small design."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import pseudo_inverse, rank_of


def fit_ols(values: NDArray[np.floating], design: NDArray[np.float64], contrast: NDArray[np.float64]) -> Estimate:
    """Estimate a contrast of the coefficients.

    The dispersion is divided by the same degrees of freedom, N − rank(X), that the t statistic has; nilearn's
    `OLSModel` divides by N − P, which shrinks t on rank-deficient designs.

    Parameters
    ----------
    values : ndarray of shape (N, V)
        One row per map.
    design : ndarray of shape (N, P)
        Any rank below N.
    contrast : ndarray of shape (P,)
        An estimable contrast.

    Returns
    -------
    Estimate
        effect c′X⁺y, variance s² c′(X′X)⁺c with s² = ‖y − XX⁺y‖² / (N − rank X), dof N − rank X. The variance is
        exactly 0 where the residuals are rounding error.

    Raises
    ------
    ValueError
        If no degrees of freedom are left.
    """
    dof = design.shape[0] - rank_of(design)
    if dof < 1:
        raise ValueError("no degrees of freedom are left for the error")
    inverse = pseudo_inverse(design)
    effects = inverse @ values
    # Residuals, not y'y − b'X'y: the difference of two large numbers would lose digits.
    residuals = values - design @ effects
    squares = np.einsum("nv,nv->v", residuals, residuals)
    # What rounding leaves of values that the design explains exactly is no error variance.
    squares[squares <= (np.finfo(float).eps * len(values)) ** 2 * np.einsum("nv,nv->v", values, values)] = 0.0
    dispersion = squares / dof
    weights = contrast @ inverse
    return Estimate(contrast @ effects, (weights @ weights) * dispersion, float(dof))


def f_test(
    values: NDArray[np.floating], design: NDArray[np.float64], contrasts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, float]:
    """Test that several contrasts of the coefficients are all zero.

    Parameters
    ----------
    values : ndarray of shape (N, V)
    design : ndarray of shape (N, P)
    contrasts : ndarray of shape (Q, P)
        Estimable and independent.

    Returns
    -------
    f : ndarray of shape (V,)
        NaN where no error variance is left.
    dof_numerator, dof : float
        Q and N − rank X.
    """
    inverse = pseudo_inverse(design)
    weights = contrasts @ inverse
    effects = weights @ values
    error = fit_ols(values, design, contrasts[0])
    dispersion = error.variance / (weights[0] @ weights[0])
    solved = np.linalg.solve(weights @ weights.T, effects)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.where(dispersion > 0, (effects * solved).sum(axis=0) / len(contrasts) / dispersion, np.nan)
    return f, float(len(contrasts)), float(np.max(error.dof))

"""Marginal model: generalised least squares with a working correlation, and cluster-robust variance by participants.

The working correlation only makes the estimate efficient; the variance is valid whatever the true one is. CR2 (Bell &
McCaffrey 2002) makes it unbiased when the working correlation holds, with degrees of freedom after Satterthwaite
(Pustejovsky & Tipton 2018, doi:10.1080/07350015.2016.1247004). Everything that depends on the design is computed once:
for V voxels there remains one matrix product per contrast.

Rows are whitened by (I+λJ)^-½ per participant; X, H and P below are of the whitened rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import pseudo_inverse

# Eigenvalues of I − H_ii below this are zero: a participant whose rows the design explains fully (Moore–Penrose).
_ZERO = 1e-10


@dataclass(frozen=True)
class RobustContrast:
    """Q constraints on the coefficients, ready for any number of voxels.

    Attributes
    ----------
    weights : ndarray of shape (Q, N)
        The estimate of the Q contrasts is weights @ y.
    scores : ndarray of shape (Q, n, N)
        One row per participant: u = scores @ y, the variance is Σ u u′ over participants.
    dof : float
        Satterthwaite's for Q = 1; η of the Hotelling approximation (HTZ) for Q > 1.
    expected : ndarray of shape (Q, Q)
        Expectation of the variance under the working model, in units of the dispersion.
    """

    weights: NDArray[np.float64]
    scores: NDArray[np.float64]
    dof: float
    expected: NDArray[np.float64]


def robust_contrast(
    design: NDArray[np.float64], participants: Sequence[str], contrast: NDArray[np.float64], ratio: float
) -> RobustContrast:
    """Prepare a contrast.

    Parameters
    ----------
    design : ndarray of shape (N, P)
    participants : sequence of N str
    contrast : ndarray of shape (P,) or (Q, P)
        Estimable.
    ratio : float
        λ of the working correlation, variance between over variance within participants; 0 for independence.

    Returns
    -------
    RobustContrast
    """
    constraints = np.atleast_2d(contrast)
    labels = np.asarray(participants)
    clusters = [np.nonzero(labels == label)[0] for label in dict.fromkeys(participants)]
    whitening = np.eye(len(design))
    for rows in clusters:
        whitening[np.ix_(rows, rows)] = inverse_root(len(rows), ratio)
    white = whitening @ design
    inverse = pseudo_inverse(white)  # M⁻¹X′
    weights = constraints @ inverse
    residual = np.eye(len(design)) - white @ inverse
    scores = np.empty((len(constraints), len(clusters), len(design)))
    for index, rows in enumerate(clusters):
        adjusted = weights[:, rows] @ _moore_penrose_root(residual[np.ix_(rows, rows)])
        scores[:, index] = adjusted @ residual[rows]
    products = np.einsum("sin,tjn->stij", scores, scores)
    expected = np.einsum("stii->st", products)
    return RobustContrast(weights @ whitening, scores @ whitening, _degrees_of_freedom(products, expected), expected)


def inverse_root(n_rows: int, ratio: float) -> NDArray[np.float64]:
    """Compute (I + λJ)^-½ of shape (n_rows, n_rows); J is all ones."""
    return np.eye(n_rows) - (1 - 1 / np.sqrt(1 + ratio * n_rows)) / n_rows


def _moore_penrose_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute M^-½ of a symmetric matrix with eigenvalues from 0 to 1, on the space where it is not zero."""
    eigenvalues, vectors = linalg.eigh(matrix)
    kept = eigenvalues > _ZERO
    return np.asarray((vectors[:, kept] / np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)


def _degrees_of_freedom(products: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Find η with which the variance matrix, standardised, is about a Wishart matrix of that many dof.

    η = q(q+1) / Σ_st Var D_st, D = Ω^-½ V Ω^-½, for normal data under the working model (Pustejovsky & Tipton 2018, eq.
    14); for q = 1 that is tr(GG′)² / tr((GG′)²).
    """
    q = len(expected)
    root = _moore_penrose_root(expected / np.abs(expected).max()) / np.sqrt(np.abs(expected).max())
    standard = np.einsum("as,bt,stij->abij", root, root, products)
    diagonal = np.einsum("ssij->sij", standard)
    total = np.einsum("sij,tij->", diagonal, diagonal) + np.einsum("stij,stji->", standard, standard)
    return float(q * (q + 1) / total)


def estimate_robust(prepared: RobustContrast, values: NDArray[np.floating]) -> Estimate:
    """Estimate a single contrast (Q = 1) at V voxels.

    Parameters
    ----------
    prepared : RobustContrast
    values : ndarray of shape (N, V)

    Returns
    -------
    Estimate
        The variance is exactly 0 where all scores are rounding error.
    """
    scores = prepared.scores[0] @ values
    variance = np.einsum("nv,nv->v", scores, scores)
    variance[variance <= _rounding(prepared.scores[0], values)] = 0.0
    return Estimate(prepared.weights[0] @ values, variance, prepared.dof)


def wald_robust(prepared: RobustContrast, values: NDArray[np.floating]) -> FTest:
    """Test that Q contrasts are all zero (HTZ of Pustejovsky & Tipton 2018, eq. 16).

    Parameters
    ----------
    prepared : RobustContrast
    values : ndarray of shape (N, V)

    Returns
    -------
    FTest
        F = (η − q + 1)/(η q) · ĉ′V⁻¹ĉ on q and η − q + 1 degrees of freedom; NaN where V cannot be inverted, or holds
        rounding error in place of a variance.
    """
    q = len(prepared.weights)
    effects = prepared.weights @ values
    scores = prepared.scores @ values
    covariance = np.einsum("siv,tiv->vst", scores, scores)
    for index, own in enumerate(prepared.scores):
        covariance[covariance[:, index, index] <= _rounding(own, values), index, index] = 0.0
    dof = prepared.dof - q + 1
    return FTest(dof / (prepared.dof * q) * quadratic_form(effects, covariance), float(q), dof)


def _rounding(scores: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Bound, of shape (V,), the variance that rounding leaves where the design explains the values exactly."""
    squares = np.einsum("nv,nv->v", values, values)
    return np.asarray((np.finfo(float).eps * len(values)) ** 2 * squares * (scores**2).sum(axis=1).max())


def quadratic_form(effects: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute ĉ′V⁻¹ĉ at every voxel.

    Parameters
    ----------
    effects : ndarray of shape (Q, V)
    covariance : ndarray of shape (V, Q, Q)

    Returns
    -------
    ndarray of shape (V,)
        NaN where V is singular.
    """
    scale = np.sqrt(np.einsum("vss->vs", covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariance / scale[:, :, None] / scale[:, None, :]
        standard = effects.T / scale
    found = np.full(effects.shape[1], np.nan)
    usable = np.isfinite(correlation).all(axis=(1, 2)) & np.isfinite(standard).all(axis=1)
    usable[usable] &= np.linalg.cond(correlation[usable]) < 1 / _ZERO
    solved = np.linalg.solve(correlation[usable], standard[usable][:, :, None])[:, :, 0]
    found[usable] = np.einsum("vs,vs->v", standard[usable], solved)
    return found

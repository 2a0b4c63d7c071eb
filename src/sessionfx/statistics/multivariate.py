"""Tests that several values per participant are all zero: Hotelling's T², and Greenhouse–Geisser's ε.

Shapes: n participants, Q values each, V voxels, P regressors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import FTest
from sessionfx.statistics.linear_algebra import Array, pseudo_inverse, quadratic_form, rank_of, rounding_of


def hotelling(values: NDArray[np.floating], design: Array, contrast: Array) -> FTest:
    """Test that a contrast over participants is zero for all Q values (Hotelling 1931, doi:10.1214/aoms/1177732979).

    Parameters
    ----------
    values : ndarray of shape (Q, n, V)
    design : ndarray of shape (n, P)
        Over participants, for example a column of ones.
    contrast : ndarray of shape (P,)

    Returns
    -------
    FTest
        F = (ν − Q + 1)/(ν Q) · T² on Q and ν − Q + 1 degrees of freedom, ν = n − rank of the design; NaN where the
        design explains a value exactly, up to rounding.

    Raises
    ------
    ValueError
        If ν < Q.
    """
    q = len(values)
    dof = len(design) - rank_of(design)
    if dof < q:
        raise ValueError("too few participants for Hotelling's T²")
    inverse = pseudo_inverse(design)
    coefficients = np.einsum("pn,qnv->qpv", inverse, values)
    effects = np.einsum("p,qpv->qv", contrast, coefficients)
    covariance = residual_covariance(values, design)
    rounding = rounding_of(np.einsum("qnv,qnv->qv", values, values), len(design))
    for index in range(q):
        covariance[dof * covariance[:, index, index] <= rounding[index], index, index] = 0.0
    weights = contrast @ inverse
    statistic = quadratic_form(effects, covariance) / (weights @ weights)
    return FTest((dof - q + 1) / (dof * q) * statistic, float(q), float(dof - q + 1))


def residual_covariance(values: NDArray[np.floating], design: Array) -> Array:
    """Covariance of Q values over participants, given a design.

    Parameters
    ----------
    values : ndarray of shape (Q, n, V)
    design : ndarray of shape (n, P)

    Returns
    -------
    ndarray of shape (V, Q, Q)
        Divided by n − rank.
    """
    inverse = pseudo_inverse(design)
    residuals = values - np.einsum("np,qpv->qnv", design, np.einsum("pn,qnv->qpv", inverse, values))
    return np.asarray(np.einsum("qnv,rnv->vqr", residuals, residuals) / (len(design) - rank_of(design)))


def greenhouse_geisser(covariance: Array) -> Array:
    """Compute ε = tr(C)² / (q tr(C²)), how far covariances of orthonormal contrasts are from sphericity.

    Parameters
    ----------
    covariance : ndarray of shape (V, Q, Q)
        Of Q orthonormal contrasts of the sessions.

    Returns
    -------
    ndarray of shape (V,)
        From 1/Q to 1 (Geisser & Greenhouse 1958, doi:10.1214/aoms/1177706545); 1 where nothing varies.
    """
    q = covariance.shape[1]
    trace = np.einsum("vss->v", covariance)
    squares = np.einsum("vst,vst->v", covariance, covariance)
    usable = squares > 0
    return np.where(usable, trace**2 / np.where(usable, q * squares, 1.0), 1.0)


def expected_epsilon(n_contrasts: int, dof: int) -> float:
    """Approximate the ε that sphericity itself gives: with few participants an estimate is well below 1.

    Parameters
    ----------
    n_contrasts : int
        Q, sessions − 1.
    dof : int
        Of the covariance estimate, participants − 1.

    Returns
    -------
    float
        (Qν + 2) / (Q (ν + Q + 1)), the ratio of the expectations of tr(W)² and Q tr(W²) for a Wishart matrix W with
        identity scale.
    """
    q, nu = n_contrasts, dof
    return (q * nu + 2) / (q * (nu + q + 1))

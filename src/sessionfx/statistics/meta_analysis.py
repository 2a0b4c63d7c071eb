"""Random-effects meta-regression at every voxel: estimates with known variances, and variance between them by REML.

    y_i = x_i′β + u_i + e_i,  Var u_i = τ²,  Var e_i = v_i

PyMARE finds τ² over all voxels at once: it scans the restricted likelihood and refines the best point of the scan, and
so takes the global optimum where there are two. Its refinement stops a few digits short of what double precision holds,
so Newton's method finishes it here. Standard errors are Knapp & Hartung's (2003, doi:10.1002/sim.1482), by PyMARE.

Vocabulary
----------
basis
    Orthonormal columns that span the design: the fit is the same, and does not depend on the units of the covariates.
score, information
    First derivative of the restricted log-likelihood by τ², and minus the second (observed, or expected over data).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array, independent_columns

# Where PyMARE's refinement may stop, as a fraction of the bracket its scan leaves (a 12th of the search interval at
# most): Newton's method converges from there in a few steps, each cheaper than one of PyMARE's.
SEARCH_TOLERANCE = 1e-3
# Newton's last step, relative to τ² plus the mean variance; the error after it is about its square.
LAST_STEP = 1e-9
MAXIMUM_STEPS = 30
# Deviances closer than this are the same but for rounding.
DEVIANCE_TOLERANCE = 1e-8


@dataclass(frozen=True)
class MetaAnalysis:
    """Answer of a random-effects meta-regression."""

    estimate: Estimate  # of V voxels, with Knapp–Hartung variance and n − P degrees of freedom
    between: Array  # (V,): τ², the variance between participants; both are NaN where a variance is not above zero


class _Fit(NamedTuple):
    """Weighted least squares at given τ², at V voxels."""

    weights: Array  # (n, V), 1 / (v + τ²)
    normal: Array  # (V, P, P), X′WX
    weighted_residuals: Array  # (n, V), W (y − Xβ̂) = Py


def pymare_stats() -> ModuleType | None:
    """PyMARE's functions, or None where PyMARE (0.0.13 or later, with all it needs) is not installed."""
    try:
        # what older versions lack is asked for by name
        from pymare import stats
        from pymare.stats import bounded_scalar_min, knapp_hartung_cov_and_dof  # noqa: F401
    except ImportError:
        return None
    found: ModuleType = stats
    return found


def meta_regression(
    values: NDArray[np.floating], variances: NDArray[np.floating], design: Array, contrast: Array
) -> MetaAnalysis:
    """Estimate a contrast of the coefficients.

    Parameters
    ----------
    values : ndarray of shape (n, V)
        One estimate per participant.
    variances : ndarray of shape (n, V)
        Their sampling variances, taken as known.
    design : ndarray of shape (n, P)
        Any rank below n.
    contrast : ndarray of shape (P,)
        An estimable contrast.

    Returns
    -------
    MetaAnalysis
        As `rma(method="REML", test="knha")` of R's metafor, at the global optimum.

    Raises
    ------
    ImportError
        If PyMARE is not installed; see `pymare_stats`.
    """
    from pymare.estimators import VarianceBasedLikelihoodEstimator
    from pymare.stats import knapp_hartung_cov_and_dof, weighted_least_squares

    kept = independent_columns(design)
    basis, triangle = np.linalg.qr(design[:, kept])
    # an estimable contrast is the same combination of the columns that are kept, then of the basis
    combination = np.linalg.solve(triangle.T, contrast[kept])

    usable = (np.isfinite(values) & np.isfinite(variances) & (variances > 0)).all(axis=0)
    effect, squared_error, between = (np.full(values.shape[1], np.nan) for _ in range(3))
    dof = float(len(design) - len(kept))
    if usable.any():
        y, v = (np.asarray(array[:, usable], dtype=np.float64) for array in (values, variances))
        search = VarianceBasedLikelihoodEstimator(method="REML", xtol=SEARCH_TOLERANCE).fit(y, v, basis)
        found = refine(y, v, basis, search.params_["tau2"][0])
        coefficients, covariance = weighted_least_squares(y, v, basis, found, return_cov=True)
        adjusted, _ = knapp_hartung_cov_and_dof(y, v, basis, coefficients, covariance, found)
        effect[usable] = combination @ coefficients
        squared_error[usable] = np.einsum("p,pqv,q->v", combination, adjusted, combination)
        between[usable] = found
    return MetaAnalysis(Estimate(effect, squared_error, dof), between)


def refine(values: Array, variances: Array, basis: Array, start: Array) -> Array:
    """Bring τ² from the neighbourhood of an optimum of the restricted likelihood to the optimum.

    Parameters
    ----------
    values, variances : ndarray of shape (n, V)
    basis : ndarray of shape (n, P)
        Of full rank.
    start : ndarray of shape (V,)

    Returns
    -------
    ndarray of shape (V,)
        Newton's method on the score, with Fisher's scoring where the likelihood is not concave, never below zero; the
        start itself at a voxel where that did not converge or led to a larger deviance.

    Notes
    -----
    With P = W − WX(X′WX)⁻¹X′W, the score is ½(y′PPy − tr P), the expected information ½ tr PP (Viechtbauer 2005,
    doi:10.3102/10769986030003261) and the observed information y′PPPy − ½ tr PP.
    """
    tau2 = start.copy()
    moving = np.arange(len(start))
    for _ in range(MAXIMUM_STEPS):
        y, v, before = values[:, moving], variances[:, moving], tau2[moving]
        score, observed, expected = score_and_information(y, v, basis, before)
        after = np.maximum(before + score / np.where(observed > 0, observed, expected), 0.0)
        tau2[moving] = after
        moving = moving[np.abs(after - before) > LAST_STEP * (after + v.mean(axis=0))]
        if not len(moving):
            break
    worse = deviance(values, variances, basis, tau2) > deviance(values, variances, basis, start) + DEVIANCE_TOLERANCE
    worse[moving] = True
    return np.where(worse, start, tau2)


def deviance(values: Array, variances: Array, basis: Array, tau2: Array) -> Array:
    """Minus twice the restricted log-likelihood of shape (V,), up to a constant: −log|W| + log|X′WX| + y′Py."""
    fit = _fit(values, variances, basis, tau2)
    squares = (fit.weighted_residuals**2 / fit.weights).sum(axis=0)
    return np.asarray(np.linalg.slogdet(fit.normal)[1] - np.log(fit.weights).sum(axis=0) + squares)


def score_and_information(values: Array, variances: Array, basis: Array, tau2: Array) -> tuple[Array, Array, Array]:
    """Score, observed and expected information of the restricted likelihood by τ², of shape (V,); see `refine`."""
    fit = _fit(values, variances, basis, tau2)
    weights, residuals = fit.weights, fit.weighted_residuals
    # (X′WX)⁻¹X′W²X and (X′WX)⁻¹X′W³X: tr P and tr PP need no n × n matrix
    second = np.linalg.solve(fit.normal, _cross_products(weights**2, basis))
    third = np.linalg.solve(fit.normal, _cross_products(weights**3, basis))
    trace = weights.sum(axis=0) - np.einsum("vpp->v", second)
    trace_of_square = (weights**2).sum(axis=0) - 2 * np.einsum("vpp->v", third)
    trace_of_square += np.einsum("vpq,vqp->v", second, second)
    projected = np.linalg.solve(fit.normal, ((weights * residuals).T @ basis)[..., None])[..., 0]
    twice_projected = weights * (residuals - basis @ projected.T)
    expected = trace_of_square / 2
    return (((residuals**2).sum(axis=0) - trace) / 2, (residuals * twice_projected).sum(axis=0) - expected, expected)


def _fit(values: Array, variances: Array, basis: Array, tau2: Array) -> _Fit:
    weights = 1 / (variances + tau2)
    normal = _cross_products(weights, basis)
    coefficients = np.linalg.solve(normal, ((weights * values).T @ basis)[..., None])[..., 0]
    return _Fit(weights, normal, weights * (values - basis @ coefficients.T))


def _cross_products(weights: Array, basis: Array) -> Array:
    """X′WX at each voxel, of shape (V, P, P)."""
    products = np.einsum("np,nq->npq", basis, basis).reshape(len(basis), -1)
    return np.asarray((weights.T @ products).reshape(-1, basis.shape[1], basis.shape[1]))

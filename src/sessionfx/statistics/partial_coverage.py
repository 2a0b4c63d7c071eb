"""Voxels that each have maps of other participants and sessions: least squares for many at a time.

The same answers as by preparing the design of each voxel alone, without the large matrices that a design shared by many
voxels is prepared with: everything is made of small sums over participants. A voxel whose design is not of full rank
is left to that general way. So are the random intercept in `random_intercept` and the cluster-robust errors in
`cluster_robust`, which stand beside those for a common design.

Shapes: V voxels, n participants, S sessions, P regressors, N = n S maps at most, Q contrasts. Values are 0 where there
is no map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import ZERO, Array, quadratic_form, rounding_of

# Eigenvalue of a Gram matrix of columns of unit length from which its design has full rank beyond doubt: the rule of
# `linear_algebra`, on lengths, has a ten-thousandth of its root
REGULAR = 1e-6
_EPSILON = float(np.finfo(float).eps)


class Fitted(NamedTuple):
    """Results of V voxels, and where they hold; elsewhere the design has to be looked at."""

    result: Estimate | FTest
    holds: NDArray[np.bool_]


class Cells(NamedTuple):
    """Maps arranged by participant and session."""

    values: Array  # (V, n, S)
    has: Array  # (V, n, S): 1 where there is a map

    @property
    def n_participants(self) -> Array:
        """Participants with any map, of shape (V,)."""
        return np.asarray(self.has.any(axis=2).sum(axis=1), dtype=float)

    @property
    def n_maps(self) -> Array:
        """Maps, of shape (V,)."""
        return np.asarray(self.has.sum(axis=(1, 2)))

    @property
    def rounding(self) -> Array:
        """Sum of squares that rounding leaves, of shape (V,)."""
        return rounding_of(np.einsum("vns,vns->v", self.values, self.values), self.n_maps)


def inverses(gram: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Invert Gram matrices of shape (V, P, P), and say which are regular; of the others the inverse is zero."""
    lengths = np.sqrt(np.einsum("vpp->vp", gram))
    scale = lengths[:, :, None] * lengths[:, None, :]
    usable = (lengths > 0).all(axis=1)
    correlation = np.where(usable[:, None, None], gram / np.where(scale > 0, scale, 1.0), 0.0)
    regular = usable & (np.linalg.eigvalsh(correlation)[:, 0] > REGULAR)
    inverse = np.zeros_like(gram)
    inverse[regular] = np.linalg.inv(correlation[regular]) / scale[regular]
    return inverse, regular


def gram_of(has: Array, design: Array) -> Array:
    """Compute X′X of the rows that are there: (V, P, P) from (V, N) and (N, P)."""
    n_columns = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    return np.asarray((has @ products).reshape(-1, n_columns, n_columns))


def ordinary(values: Array, has: Array, design: Array, contrast: Array) -> Fitted:
    """Ordinary least squares; see `ols`.

    Parameters
    ----------
    values, has : ndarray of shape (V, N)
    design : ndarray of shape (N, P)
    contrast : ndarray of shape (P,) or (Q, P)
    """
    inverse, regular = inverses(gram_of(has, design))
    coefficients = np.einsum("vpq,vq->vp", inverse, values @ design)
    residuals = values - has * (coefficients @ design.T)
    counts = has.sum(axis=1)
    squares = _sum_squares(residuals, rounding_of(np.einsum("vn,vn->v", values, values), counts))
    return _least_squares(
        contrast, coefficients, inverse, squares, dof=counts - design.shape[1], regular=regular, n=counts
    )


def _sum_squares(residuals: Array, rounding: Array) -> Array:
    squares = np.einsum("vn,vn->v", residuals, residuals)
    return np.where(squares <= rounding, 0.0, squares)


def _least_squares(
    contrast: Array, coefficients: Array, inverse: Array, squares: Array, dof: Array, regular: NDArray[np.bool_],
    n: Array
) -> Fitted:  # fmt: skip
    """Estimate a contrast of shape (P,), or test those of shape (Q, P), with the error that is left."""
    holds = regular & (dof >= 1)
    dispersion = squares / np.where(holds, dof, 1.0)
    if contrast.ndim == 1:
        spread = np.einsum("p,vpq,q->v", contrast, inverse, contrast)
        return Fitted(Estimate(coefficients @ contrast, spread * dispersion, dof, n=n), holds)
    q = len(contrast)
    effects, f = coefficients @ contrast.T, np.full(len(dof), np.nan)
    usable = holds & (dispersion > 0)
    covariance = contrast @ inverse[usable] @ contrast.T
    solved = np.linalg.solve(covariance, effects[usable][:, :, None])[:, :, 0]
    f[usable] = np.einsum("vq,vq->v", effects[usable], solved) / q / dispersion[usable]
    return Fitted(FTest(f, np.full(len(dof), float(q)), dof, n=n), holds)


def within_participants(cells: Cells, design: Array, contrast: Array) -> Fitted:
    """Ordinary least squares with a column for each participant, which takes out their means.

    Parameters
    ----------
    cells : Cells
    design : ndarray of shape (n, S, P)
        Of which columns that are constant within participants are left out.
    contrast : ndarray of shape (P,) or (Q, P)
    """
    n, s, p = design.shape
    counts = cells.has.sum(axis=2)
    share = np.divide(1.0, counts, where=counts > 0, out=np.zeros_like(counts))
    sums = np.matmul(cells.has[:, :, None, :], design[None])[:, :, 0]  # (V, n, P)
    flat, maps = design.reshape(n * s, p), cells.has.reshape(-1, n * s)
    scaled = sums * share[:, :, None]
    gram = gram_of(maps, flat) - np.matmul(sums.transpose(0, 2, 1), scaled)
    inverse, regular = inverses(gram)
    values = cells.values.reshape(-1, n * s)
    right = values @ flat - np.einsum("vnp,vn->vp", scaled, cells.values.sum(axis=2))
    coefficients = np.einsum("vpq,vq->vp", inverse, right)
    residuals = cells.values - cells.has * (coefficients @ flat.T).reshape(-1, n, s)
    residuals -= cells.has * (residuals.sum(axis=2) * share)[:, :, None]
    squares = _sum_squares(residuals.reshape(-1, n * s), cells.rounding)
    dof = cells.n_maps - cells.n_participants - p
    return _least_squares(contrast, coefficients, inverse, squares, dof=dof, regular=regular, n=cells.n_participants)


def complete_values(cells: Cells, contrasts: Array) -> tuple[Array, Array]:
    """Compute contrasts of the sessions, of shape (Q, S), of the participants who have all.

    Returns
    -------
    values : ndarray of shape (V, n, Q)
        Exactly 0 where only rounding is left.
    has : ndarray of float, shape (V, n)
    """
    has = cells.has.all(axis=2).astype(float)
    values = (cells.values @ contrasts.T) * has[:, :, None]
    rounding = _EPSILON * cells.values.shape[2] * np.abs(cells.values).max(axis=2)
    values[np.abs(values) <= rounding[:, :, None]] = 0.0
    return values, has


def _covariance(values: Array, has: Array, design: Array) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
    """Fit Q values of participants; give coefficients, inverse, residual products, dof, and where these hold."""
    inverse, regular = inverses(gram_of(has, design))
    coefficients = np.matmul(inverse, np.matmul(design.T[None], values))  # (V, P, Q)
    residuals = values - has[:, :, None] * np.matmul(design[None], coefficients)
    products = np.matmul(residuals.transpose(0, 2, 1), residuals)
    return coefficients, inverse, products, has.sum(axis=1) - design.shape[1], regular


def epsilon(values: Array, has: Array, design: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Find Greenhouse and Geisser's ε of Q values of participants, of shape (V, n, Q), and where it holds."""
    _, _, products, dof, regular = _covariance(values, has, design)
    trace, squares = np.einsum("vqq->v", products), np.einsum("vqr,vqr->v", products, products)
    usable = squares > 0
    found = np.where(usable, trace**2 / np.where(usable, values.shape[2] * squares, 1.0), 1.0)
    return found, regular & (dof >= 1)


def hotelling(values: Array, has: Array, design: Array, contrast: Array) -> Fitted:
    """Test Q values of participants, of shape (V, n, Q); see `multivariate.hotelling`."""
    q = values.shape[2]
    coefficients, inverse, products, dof, regular = _covariance(values, has, design)
    holds = regular & (dof >= q)
    safe = np.where(holds, dof, float(q))
    diagonal = np.einsum("vqq->vq", products)
    rounding = rounding_of(np.einsum("vnq,vnq->vq", values, values), has.sum(axis=1)[:, None])
    for index in range(q):
        products[diagonal[:, index] <= rounding[:, index], index, index] = 0.0
    effects = np.einsum("p,vpq->qv", contrast, coefficients)
    spread = np.einsum("p,vpr,r->v", contrast, inverse, contrast)
    statistic = quadratic_form(effects, products / safe[:, None, None]) / np.where(holds, spread, 1.0)
    left = safe - q + 1
    f = np.where(holds, left / (safe * q) * statistic, np.nan)
    return Fitted(FTest(f, np.full(len(f), float(q)), left, n=has.sum(axis=1)), holds)


def welch(values: Array, has: Array, design: Array, contrast: Array, members: Array) -> Fitted:
    """Least squares over participants whose K groups vary unequally; see `unequal_variances.grouped_contrast`.

    Parameters
    ----------
    values, has : ndarray of shape (V, n)
    design : ndarray of shape (n, P)
    contrast : ndarray of shape (P,)
    members : ndarray of shape (K, n)
        Ones where a participant is in a group.
    """
    inverse, regular = inverses(gram_of(has, design))
    coefficients = np.einsum("vpq,vq->vp", inverse, values @ design)
    residuals = values - has * (coefficients @ design.T)
    rounding = rounding_of(np.einsum("vn,vn->v", values, values), has.sum(axis=1))
    residuals[np.einsum("vn,vn->v", residuals, residuals) <= rounding] = 0.0
    grams = np.stack([gram_of(has * own, design) for own in members], axis=1)  # (V, K, P, P)
    counts = has @ members.T
    leverage = np.matmul(inverse[:, None], grams)  # A⁻¹ Z_k
    free = counts - np.einsum("vkpp->vk", leverage)
    towards = inverse @ contrast
    carried = np.einsum("vp,vkpq,vq->vk", towards, grams, towards)
    has_weight = carried > ZERO * carried.sum(axis=1, keepdims=True)
    holds = regular & ((free > REGULAR) | ~has_weight).all(axis=1)
    factor = np.divide(carried, free, where=free > REGULAR, out=np.zeros_like(free))
    # (residual diag(f) residual)_ij = δ f_i − (f_i + f_j) h_ij + b_ij, with h = Z A⁻¹ Z′, b = Z A⁻¹ (Z′FZ) A⁻¹ Z′
    both = np.matmul(np.matmul(inverse, np.einsum("vk,vkpq->vpq", factor, grams)), inverse)
    spread = np.matmul(both[:, None], grams)
    own_h, own_b = np.einsum("vkpp->vk", leverage), np.einsum("vkpp->vk", spread)
    share = counts * factor - 2 * factor * own_h + own_b
    pair_sum = factor[:, :, None] + factor[:, None, :]
    hh, hb, bb = (
        np.einsum("vkpq,vlqp->vkl", left, right)
        for left, right in ((leverage, leverage), (leverage, spread), (spread, spread))
    )
    together = pair_sum**2 * hh - 2 * pair_sum * hb + bb
    index = np.arange(len(members))
    # on the diagonal of the pairs δ f adds f² + 2 f (b − 2 f h) for every participant
    together[:, index, index] += factor**2 * counts + 2 * factor * (own_b - 2 * factor * own_h)
    variances = (residuals**2 @ members.T) / np.where(free > REGULAR, free, 1.0)
    variance = (carried * variances).sum(axis=1)
    relative = variances / np.where(variance > 0, variance, 1.0)[:, None]
    denominator = np.einsum("vk,vkl,vl->v", relative, together, relative)
    dof = (share * relative).sum(axis=1) ** 2 / np.where(denominator > 0, denominator, 1.0)
    dof = np.where(denominator > 0, dof, free.sum(axis=1))
    return Fitted(Estimate(coefficients @ contrast, variance, dof, n=has.sum(axis=1)), holds)

"""Voxels that each have maps of other participants and sessions: the models of the group level for many at a time.

The same answers as by preparing the design of each voxel alone, without the large matrices that a design shared by many
voxels is prepared with: everything is made of small sums over participants. A voxel whose design is not of full rank
is left to that general way.

Shapes: V voxels, n participants, S sessions, P regressors, N = n S maps at most, Q contrasts. Values are 0 where there
is no map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import quadratic_form
from sessionfx.statistics.participant_variance import (
    GRID_LIMIT,
    GRID_POINTS,
    LARGEST_RATIO,
    Slopes,
    refined_ratio,
)
from sessionfx.statistics.random_intercept import KENWARD_ROGER, kenward_roger, satterthwaite

Array = NDArray[np.float64]
# Eigenvalue of a Gram matrix of columns of unit length from which its design has full rank beyond doubt: the rule of
# `linear_algebra`, on lengths, has a ten-thousandth of its root
_REGULAR = 1e-6
_EPSILON = float(np.finfo(float).eps)


class Fitted(NamedTuple):
    """Results of V voxels, and where they hold; elsewhere the design has to be looked at."""

    result: Estimate | FTest
    holds: NDArray[np.bool_]


class Cells(NamedTuple):
    """Maps arranged by participant and session.

    Attributes
    ----------
    values : ndarray of shape (V, n, S)
    has : ndarray of float, shape (V, n, S)
        1 where there is a map.
    """

    values: Array
    has: Array

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
        return np.asarray((_EPSILON * self.n_maps) ** 2 * np.einsum("vns,vns->v", self.values, self.values))


def _inverses(gram: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Invert Gram matrices of shape (V, P, P), and say which are regular; of the others the inverse is zero."""
    lengths = np.sqrt(np.einsum("vpp->vp", gram))
    scale = lengths[:, :, None] * lengths[:, None, :]
    usable = (lengths > 0).all(axis=1)
    correlation = np.where(usable[:, None, None], gram / np.where(scale > 0, scale, 1.0), 0.0)
    regular = usable & (np.linalg.eigvalsh(correlation)[:, 0] > _REGULAR)
    inverse = np.zeros_like(gram)
    inverse[regular] = np.linalg.inv(correlation[regular]) / scale[regular]
    return inverse, regular


def _gram(has: Array, design: Array) -> Array:
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
    inverse, regular = _inverses(_gram(has, design))
    coefficients = np.einsum("vpq,vq->vp", inverse, values @ design)
    residuals = values - has * (coefficients @ design.T)
    counts = has.sum(axis=1)
    squares = _sum_squares(residuals, (_EPSILON * counts) ** 2 * np.einsum("vn,vn->v", values, values))
    return _least_squares(
        contrast, coefficients, inverse, squares, dof=counts - design.shape[1], regular=regular, n=counts
    )


def _sum_squares(residuals: Array, rounding: Array) -> Array:
    squares = np.einsum("vn,vn->v", residuals, residuals)
    return np.where(squares <= rounding, 0.0, squares)


def _least_squares(
    contrast: Array, coefficients: Array, inverse: Array, squares: Array, dof: Array, regular: NDArray[np.bool_],
    n: Array,
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
    gram = _gram(maps, flat) - np.matmul(sums.transpose(0, 2, 1), scaled)
    inverse, regular = _inverses(gram)
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
    inverse, regular = _inverses(_gram(has, design))
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
    rounding = (_EPSILON * has.sum(axis=1)[:, None]) ** 2 * np.einsum("vnq,vnq->vq", values, values)
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
    inverse, regular = _inverses(_gram(has, design))
    coefficients = np.einsum("vpq,vq->vp", inverse, values @ design)
    residuals = values - has * (coefficients @ design.T)
    rounding = (_EPSILON * has.sum(axis=1)) ** 2 * np.einsum("vn,vn->v", values, values)
    residuals[np.einsum("vn,vn->v", residuals, residuals) <= rounding] = 0.0
    grams = np.stack([_gram(has * own, design) for own in members], axis=1)  # (V, K, P, P)
    counts = has @ members.T
    leverage = np.matmul(inverse[:, None], grams)  # A⁻¹ Z_k
    free = counts - np.einsum("vkpp->vk", leverage)
    towards = inverse @ contrast
    carried = np.einsum("vp,vkpq,vq->vk", towards, grams, towards)
    has_weight = carried > _ZERO * carried.sum(axis=1, keepdims=True)
    holds = regular & ((free > _REGULAR) | ~has_weight).all(axis=1)
    factor = np.divide(carried, free, where=free > _REGULAR, out=np.zeros_like(free))
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
    variances = (residuals**2 @ members.T) / np.where(free > _REGULAR, free, 1.0)
    variance = (carried * variances).sum(axis=1)
    relative = variances / np.where(variance > 0, variance, 1.0)[:, None]
    denominator = np.einsum("vk,vkl,vl->v", relative, together, relative)
    dof = (share * relative).sum(axis=1) ** 2 / np.where(denominator > 0, denominator, 1.0)
    dof = np.where(denominator > 0, dof, free.sum(axis=1))
    return Fitted(Estimate(coefficients @ contrast, variance, dof, n=has.sum(axis=1)), holds)


_ZERO = 1e-10

# A random intercept for each participant -------------------------------------------------------------------------


class _Profile(NamedTuple):
    """The restricted likelihood at one λ of each voxel, and what follows from it."""

    ratio: Array
    inverse: Array  # (X′V⁻¹X)⁻¹
    coefficients: Array
    squares: Array  # y′Py
    slopes: Slopes
    deviance: Array


@dataclass(frozen=True)
class _Moments:
    """Sums of squares and products, in all and of participants with k = 1 … S maps.

    Attributes
    ----------
    gram, of_sums : ndarray of shapes (V, P, P) and (V, S, P, P)
        X′X, and Σ (Σx)(Σx)′ over participants with so many maps.
    right, right_of_sums : ndarray of shapes (V, P) and (V, S, P)
    total, total_of_sums : ndarray of shapes (V,) and (V, S)
    numbers : ndarray of shape (V, S)
        Participants.
    """

    gram: Array
    of_sums: Array
    right: Array
    right_of_sums: Array
    total: Array
    total_of_sums: Array
    numbers: Array

    @property
    def counts(self) -> Array:
        return np.arange(1.0, self.numbers.shape[1] + 1)

    @property
    def n_residual(self) -> Array:
        return np.asarray(self.numbers @ self.counts - self.gram.shape[1])

    @property
    def most(self) -> Array:
        """Most maps of any participant, of shape (V,)."""
        return np.asarray(np.where(self.numbers > 0, self.counts, 0.0).max(axis=1))

    def at(self, chosen: NDArray[np.intp]) -> _Moments:
        return _Moments(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def profile(self, ratio: Array) -> _Profile:
        """Look at the likelihood with V = I + λ ZZ′."""
        g = 1 / (1 + ratio[:, None] * self.counts)
        gram = self.gram - np.einsum("v,vk,vkpq->vpq", ratio, g, self.of_sums)
        right = self.right - ratio[:, None] * np.einsum("vk,vkp->vp", g, self.right_of_sums)
        total = self.total - ratio * (g * self.total_of_sums).sum(axis=1)
        inverse = np.linalg.inv(gram)
        b = np.einsum("vpq,vq->vp", inverse, right)
        squares = np.maximum(total - (b * right).sum(axis=1), np.finfo(float).tiny)
        moved = np.einsum("vkpq,vq->vkp", self.of_sums, b)
        rest = self.right_of_sums - moved
        # Σ (Σr)² over participants with so many maps, r = y − Xb
        sums = self.total_of_sums - np.einsum("vkp,vp->vk", self.right_of_sums + rest, b)
        first = -(g**2 * sums).sum(axis=1)
        shared = np.einsum("vk,vkp->vp", g**2, rest)
        second = 2 * ((self.counts * g**3 * sums).sum(axis=1) - np.einsum("vp,vpq,vq->v", shared, inverse, shared))
        cg = self.counts * g
        inside = np.matmul(inverse[:, None], self.of_sums)  # M⁻¹ Σ(Σx)(Σx)′
        traces = np.einsum("vkpp->vk", inside)
        whole = np.einsum("vk,vkpq->vpq", g**2, inside)
        penalty_1 = (self.numbers * cg).sum(axis=1) - (g**2 * traces).sum(axis=1)
        penalty_2 = ((self.numbers * cg**2).sum(axis=1) - 2 * (cg * g**2 * traces).sum(axis=1)
                     + np.einsum("vpq,vqp->v", whole, whole))  # fmt: skip
        deviance = self.n_residual * np.log(squares) - (self.numbers * np.log(g)).sum(axis=1)
        deviance += np.linalg.slogdet(gram)[1]
        return _Profile(
            ratio=ratio, inverse=inverse, coefficients=b, squares=squares,
            slopes=Slopes(first / squares, second / squares, penalty_1, penalty_2), deviance=deviance,
        )  # fmt: skip


def _moments(cells: Cells, design: Array, values: Array) -> _Moments:
    n, s, p = design.shape
    counts = cells.has.sum(axis=2)
    sums = np.matmul(cells.has[:, :, None, :], design[None])[:, :, 0]  # (V, n, P)
    totals = values.sum(axis=2)
    of_count = [counts == k for k in range(1, s + 1)]
    weighted = [np.where(own[:, :, None], sums, 0.0) for own in of_count]
    flat = design.reshape(n * s, p)
    return _Moments(
        gram=_gram(cells.has.reshape(-1, n * s), flat),
        of_sums=np.stack([np.matmul(own.transpose(0, 2, 1), sums) for own in weighted], axis=1),
        right=values.reshape(-1, n * s) @ flat,
        right_of_sums=np.stack([np.einsum("vnp,vn->vp", own, totals) for own in weighted], axis=1),
        total=np.einsum("vns,vns->v", values, values),
        total_of_sums=np.stack([(np.where(own, totals, 0.0) ** 2).sum(axis=1) for own in of_count], axis=1),
        numbers=np.stack([own.sum(axis=1) for own in of_count], axis=1).astype(float),
    )


class MixedFit(NamedTuple):
    """A random intercept fitted to V voxels, for any contrast.

    Attributes
    ----------
    at : ndarray of int, shape (K,)
        Voxels that could be fitted; what follows is theirs.
    moments, profile
        Sums, and the likelihood at its maximum, of what ordinary least squares leave.
    ordinary : ndarray of shape (K, P)
        The coefficients of ordinary least squares.
    holds : ndarray of bool, shape (V,)
    n : ndarray of shape (V,)
    """

    at: NDArray[np.intp]
    moments: _Moments
    profile: _Profile
    ordinary: Array
    holds: NDArray[np.bool_]
    n: Array


def fit_mixed(cells: Cells, design: Array) -> MixedFit:
    """Fit a random intercept by REML, with a design of shape (n, S, P)."""
    n, s, p = design.shape
    flat = design.reshape(n * s, p)
    inverse, regular = _inverses(_gram(cells.has.reshape(-1, n * s), flat))
    ordinary_fit = np.einsum("vpq,vq->vp", inverse, cells.values.reshape(-1, n * s) @ flat)
    # the rest of the sums lose no digits to the size of the effects
    residuals = cells.values - cells.has * (ordinary_fit @ flat.T).reshape(-1, n, s)
    moments = _moments(cells, design, residuals)
    m = moments.n_residual
    holds = regular & (m >= 2) & (moments.total > cells.rounding)
    at = np.nonzero(holds)[0]
    chosen = moments.at(at)
    at_zero = chosen.profile(np.zeros(len(at))).slopes
    spread = at_zero.penalty_2 / m[at] - (at_zero.penalty_1 / m[at]) ** 2
    ratio, is_single = _ratios(chosen)
    holds[at] = (spread > _REGULAR * chosen.most**2) & is_single
    return MixedFit(at, chosen, chosen.profile(ratio), ordinary_fit[at], holds, cells.n_participants)


def mixed(fit: MixedFit, contrast: Array, dof_method: str) -> Fitted:
    """Estimate a contrast of shape (P,); see `random_intercept.estimate_mixed`.

    Variance and degrees of freedom are Kenward and Roger's, or else Satterthwaite's.
    """
    effect, variance, dof = np.full(len(fit.n), np.nan), np.full(len(fit.n), np.nan), np.ones(len(fit.n))
    if len(fit.at):
        effect[fit.at] = (fit.ordinary + fit.profile.coefficients) @ contrast
        variance[fit.at], dof[fit.at] = _of_contrast(fit.moments, fit.profile, contrast, dof_method)
    return Fitted(Estimate(effect, variance, dof, n=fit.n), fit.holds)


def _ratios(moments: _Moments) -> tuple[Array, NDArray[np.bool_]]:
    """Find λ by REML, and say whether the deviance has one minimum only on the grid; see `estimate_ratio`."""
    most = moments.most
    top = np.log1p(GRID_LIMIT * most)
    nodes = np.linspace(0.0, 1.0, GRID_POINTS)[:, None] * top
    grid = np.stack([moments.profile(np.expm1(node) / most).deviance for node in nodes])
    padded = np.pad(grid, ((1, 1), (0, 0)), constant_values=np.inf)
    is_single = ((grid <= padded[:-2]) & (grid < padded[2:])).sum(axis=0) == 1
    start = grid.argmin(axis=0)
    bounds = np.vstack([nodes, np.log1p(LARGEST_RATIO * most)])
    every = np.arange(len(most))
    found = refined_ratio(
        lambda voxels, ratio: moments.at(voxels).profile(ratio).slopes, moments.n_residual, most,
        (bounds[np.maximum(start - 1, 0), every], bounds[start, every], bounds[start + 1, every]),
    )  # fmt: skip
    return found, is_single


def _of_contrast(moments: _Moments, found: _Profile, contrast: Array, dof_method: str) -> tuple[Array, Array]:
    """Find variance and degrees of freedom of a contrast; see `random_intercept`."""
    m, ratio = moments.n_residual, found.ratio
    g = 1 / (1 + ratio[:, None] * moments.counts)
    z = found.inverse @ contrast
    relative = z @ contrast
    of_count = np.einsum("vp,vkpq,vq->vk", z, moments.of_sums, z)
    dispersion = found.squares / m
    slope = (g**2 * of_count).sum(axis=1)
    if dof_method != KENWARD_ROGER:
        return dispersion * relative, satterthwaite(m, ratio, found.slopes, slope / relative)
    _, _, penalty_1, penalty_2 = found.slopes
    information = (
        penalty_2 / 2, (penalty_1 - ratio * penalty_2) / 2,
        (m - 2 * ratio * penalty_1 + ratio**2 * penalty_2) / 2,
    )  # fmt: skip
    moved = np.einsum("vk,vkpq,vq->vp", g**2, moments.of_sums, z)
    cubed = (moments.counts * g**3 * of_count).sum(axis=1) - np.einsum("vp,vpq,vq->v", moved, found.inverse, moved)
    own = np.einsum("vp,vpq,vq->v", z, moments.gram, z)
    own += ((moments.counts * (ratio[:, None] * g) ** 2 - 2 * ratio[:, None] * g) * of_count).sum(axis=1)
    adjusted, dof = kenward_roger(ratio, information, relative, (cubed, slope, own))
    return dispersion * adjusted, dof


# Cluster-robust errors -------------------------------------------------------------------------------------------

_EXCHANGEABLE = 1e-8  # as in `cluster_robust`
_ALL_SEEN, _LEAST_DOF = 1 - 1e-6, 1 - 1e-6  # as in the marginal strategy
_LEAST_DOF_OF_A_VOXEL = 1.0
_VALUES_AT_A_TIME = 2**19


class Whitened(NamedTuple):
    """Maps and design of V voxels multiplied by the inverse root of their working covariance, for any contrast."""

    white: Array  # X̃, of shape (V, n, S, P)
    response: Array  # ỹ
    inside: Array  # X̃M⁻¹, M = X̃′X̃
    roots: Array  # (I − H_ii)^-½
    inverse: Array  # M⁻¹
    coefficients: Array
    regular: NDArray[np.bool_]
    sizes: Array  # of the rows' weights, of shape (n,)
    cells: Cells

    def at(self, voxels: slice) -> Whitened:
        """Restrict to some voxels."""
        parts = {name: part[voxels] for name, part in self._asdict().items() if name not in ("sizes", "cells")}
        return self._replace(**parts, cells=Cells(*(part[voxels] for part in self.cells)))


def whitened(cells: Cells, design: Array, ratio: Array, scale: Array) -> Whitened:
    """Prepare generalised least squares; see `robust`.

    Parameters
    ----------
    cells : Cells
    design : ndarray of shape (n, S, P)
    ratio, scale : ndarray of shape (n,)
        Of the working covariance of each participant.
    """
    counts = cells.has.sum(axis=2)
    shrink = (1 - 1 / np.sqrt(1 + ratio * counts)) / np.maximum(counts, 1.0)
    size = 1 / np.sqrt(scale)[None, :, None]
    sums = np.matmul(cells.has[:, :, None, :], design[None])[:, :, 0]  # (V, n, P)
    white = cells.has[:, :, :, None] * (design[None] - (shrink[:, :, None] * sums)[:, :, None]) * size[..., None]
    response = cells.has * (cells.values - (shrink * cells.values.sum(axis=2))[:, :, None]) * size
    v, n, s, p = white.shape
    flat = white.reshape(v, n * s, p)
    inverse, regular = _inverses(np.matmul(flat.transpose(0, 2, 1), flat))
    inside = np.matmul(flat, inverse).reshape(v, n, s, p)
    left = np.eye(s) - np.matmul(inside, white.transpose(0, 1, 3, 2))
    kind = _kinds(design, ratio, scale)[None] * 2.0**s + cells.has @ 2.0 ** np.arange(s)
    coefficients = np.einsum("vmp,vm->vp", inside.reshape(v, n * s, p), response.reshape(v, -1))
    return Whitened(
        white=white, response=response, inside=inside, roots=_roots(left, kind), inverse=inverse,
        coefficients=coefficients, regular=regular, sizes=size[0, :, 0], cells=cells,
    )  # fmt: skip


def robust(of: Whitened, contrast: Array) -> Fitted:
    """Estimate or test with CR2 errors and Satterthwaite's degrees of freedom; see `cluster_robust`.

    Parameters
    ----------
    of : Whitened
    contrast : ndarray of shape (P,) or (Q, P)

    Returns
    -------
    Fitted
        With NaN where too few participants carry the contrast, or part of it is carried by one alone.
    """
    constraints = np.atleast_2d(contrast)
    q = len(constraints)
    weights = np.matmul(of.inside, constraints.T)  # (V, n, S, Q)
    a = np.matmul(weights.transpose(0, 1, 3, 2), of.roots)  # (V, n, Q, S)
    b = np.matmul(a, of.white)  # (V, n, Q, P)
    scores = np.einsum("vnqs,vns->vnq", a, of.response) - np.einsum("vnqp,vp->vnq", b, of.coefficients)
    covariance = np.einsum("vnq,vnr->vqr", scores, scores)
    largest = (np.einsum("vnqs,vnqs->vnq", a, a) * of.sizes[:, None] ** 2).max(axis=1)
    varies = (np.einsum("vqq->vq", covariance) > largest * of.cells.rounding[:, None]).all(axis=1)
    truth = constraints @ of.inverse @ constraints.T
    design, voxel, seen = _degrees_of_freedom(of, a, b, scores, truth)
    answered = (seen >= _ALL_SEEN) & (design - q + 1 >= _LEAST_DOF)
    effects, n = of.coefficients @ constraints.T, of.cells.n_participants
    if contrast.ndim == 1:
        variance = np.where(varies, covariance[:, 0, 0], 0.0)
        return Fitted(Estimate(np.where(answered, effects[:, 0], np.nan), variance, voxel, n=n), of.regular)
    covariance[~(varies & answered)] = 0.0
    dof = voxel - q + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        f = dof / (voxel * q) * quadratic_form(effects.T, covariance)
    return Fitted(FTest(f, np.full(len(f), float(q)), dof, n=n), of.regular)


def _kinds(design: Array, ratio: Array, scale: Array) -> Array:
    """Give one number to all participants with the same design and working covariance."""
    own = np.column_stack([design.reshape(len(design), -1), ratio, scale])
    return np.unique(own, axis=0, return_inverse=True)[1].ravel().astype(float)


def _roots(matrices: Array, kind: Array) -> Array:
    """Compute M^-½ where M is not zero, of matrices of shape (V, n, S, S); those of one voxel and kind are the same."""
    v, n, s, _ = matrices.shape
    keys = (kind + np.arange(v)[:, None] * (kind.max() + 1)).ravel()
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    eigenvalues, vectors = np.linalg.eigh(matrices.reshape(v * n, s, s)[first])
    inverse = np.where(eigenvalues > _ZERO, 1 / np.sqrt(np.maximum(eigenvalues, _ZERO)), 0.0)
    roots = np.matmul(vectors * inverse[:, None, :], vectors.transpose(0, 2, 1))
    return np.asarray(roots[where.ravel()].reshape(v, n, s, s))


def _inverse_roots(matrices: Array) -> Array:
    """Compute M^-½ of symmetric matrices of shape (V, Q, Q), on the space where they are not zero."""
    eigenvalues, vectors = np.linalg.eigh(matrices)
    kept = eigenvalues > _ZERO * np.maximum(eigenvalues[:, -1:], np.finfo(float).tiny)
    inverse = np.where(kept, 1 / np.sqrt(np.where(kept, eigenvalues, 1.0)), 0.0)
    return np.asarray(np.matmul(vectors * inverse[:, None, :], vectors.transpose(0, 2, 1)))


def _degrees_of_freedom(of: Whitened, a: Array, b: Array, scores: Array, truth: Array) -> tuple[Array, Array, Array]:
    """Find η of the design, the smaller of it and the voxel's, and the variance's expectation relative to the truth.

    Scores of two participants have the covariance δ_ij a_i a_i′ − b_i M⁻¹ b_j′, with a and b of shapes (V, n, Q, S) and
    (V, n, Q, P).
    """
    q = b.shape[2]
    shared = np.matmul(np.matmul(b, of.inverse[:, None]), b.transpose(0, 1, 3, 2))
    diagonal = np.matmul(a, a.transpose(0, 1, 3, 2)) - shared  # (V, n, Q, Q)
    expected = diagonal.sum(axis=1)
    root = _inverse_roots(truth)
    seen = np.linalg.eigvalsh(root @ expected @ root)[:, 0]
    exchangeable = _are_exchangeable(of, b, diagonal)
    root = _inverse_roots(expected)
    a, b = np.matmul(root[:, None], a), np.matmul(root[:, None], b)
    scores = np.einsum("vqr,vnr->vnq", root, scores)
    shared, diagonal = (root[:, None] @ part @ root[:, None] for part in (shared, diagonal))
    both = np.einsum("vnqp,vnrs->vqrps", b, b, optimize=True)  # Σ b_q b_r′
    half = np.einsum("vpt,vqrts->vqrps", of.inverse, both)
    total = np.einsum("vqrps,vrqsp->v", half, half) + np.einsum("vqrps,vqrsp->v", half, half)
    trace_own, trace_shared = np.einsum("vnqq->vn", diagonal), np.einsum("vnqq->vn", shared)
    total += (trace_own**2 - trace_shared**2).sum(axis=1)
    squares = np.einsum("vnqr,vnqr->vn", diagonal, diagonal)
    total += squares.sum(axis=1) - np.einsum("vnqr,vnqr->v", shared, shared)
    design = np.where(total > 0, q * (q + 1) / np.where(total > 0, total, 1.0), 0.0)
    found = _of_voxels(of, a, b, both, _Spread(scores, trace_own, squares))
    least = np.minimum(q - 1 + _LEAST_DOF_OF_A_VOXEL, design)
    voxel = np.fmin(np.maximum(found, least), design)
    return design, np.where(exchangeable, design, voxel), seen


class _Spread(NamedTuple):
    """Standardised scores of shape (V, n, Q); the trace of each one's covariance, and its sum of squares."""

    scores: Array
    variances: Array
    squares: Array


def _of_voxels(of: Whitened, a: Array, b: Array, both: Array, spread: _Spread) -> Array:
    """Find the degrees of freedom that how much participants vary gives; see `cluster_robust.ParticipantSpread`."""
    q, p = b.shape[2:]
    carries = spread.variances > _ZERO * spread.variances.max(axis=1, keepdims=True)
    safe = np.where(carries, spread.variances, 1.0)
    inflation = 1 + 2 * np.where(carries, spread.squares / safe**2, 1.0)
    s = np.where(carries, np.square(spread.scores).sum(axis=2) / safe, 0.0)
    # G_q′G_r of two participants is δ a_q a_r′ − a_q b_r′ K′ − K b_q a_r′ + K W K′, W = Σ b_q b_r′, K rows of X̃M⁻¹
    pairs = [(first, second) for first in range(q) for second in range(q)]
    sides = {
        (first, second): np.concatenate([a[:, :, first, :, None] * b[:, :, second, None, :], of.inside], axis=3)
        for first, second in pairs
    }
    middle = np.zeros((q, q, len(b), 2 * p, 2 * p))
    middle[..., :p, p:] = middle[..., p:, :p] = -np.eye(p)
    middle[..., p:, p:] = both.transpose(1, 2, 0, 3, 4)
    shared = {
        (first, second): np.matmul(
            np.matmul(sides[first, second], middle[first, second][:, None]), sides[second, first].transpose(0, 1, 3, 2)
        )
        for first, second in pairs
    }
    blocks = {
        (first, second): a[:, :, first, :, None] * a[:, :, second, None, :] + shared[first, second]
        for first, second in pairs
    }
    share = sum(np.einsum("vnss->vn", blocks[first, first]) for first in range(q)) / q
    total = (share * s).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = s / total
    of_pairs, own = np.zeros(len(b)), np.zeros_like(s)
    for first, second in pairs:
        j, left, right = middle[first, second], sides[first, second], sides[second, first]
        aa, bb, ba = _weighted(s, left, left), _weighted(s, right, right), _weighted(s, right, left)
        of_pairs += np.einsum("vpq,vqp->v", aa @ j, bb @ j.transpose(0, 2, 1))
        of_pairs += np.einsum("vpq,vqp->v", ba @ j, ba @ j)
        of_pairs -= (s**2 * _inner(shared, first, second)).sum(axis=1)
        own += _inner(blocks, first, second)
    of_own = (s**2 * own / inflation).sum(axis=1)
    excess = ((share * s) ** 2 * (1 - 1 / inflation)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(q * (q + 1) * (1 - excess) / (of_own + of_pairs))


def _inner(blocks: dict[tuple[int, int], Array], first: int, second: int) -> Array:
    """Sum the products of a participant's block with itself and with that of the contrasts exchanged."""
    both = blocks[first, second] + blocks[second, first]
    return np.asarray(np.einsum("vnst,vnst->vn", blocks[first, second], both))


def _weighted(s: Array, left: Array, right: Array) -> Array:
    """Sum over participants s left′ right, of shape (V, 2P, 2P)."""
    v, n, rows, columns = left.shape
    scaled = (left * s[:, :, None, None]).reshape(v, n * rows, columns)
    return np.asarray(np.matmul(scaled.transpose(0, 2, 1), right.reshape(v, n * rows, columns)))


def _are_exchangeable(of: Whitened, b: Array, diagonal: Array) -> NDArray[np.bool_]:
    """Whether all participants' scores have one covariance and all pairs one; see `cluster_robust`."""
    there = np.asarray(of.cells.has.any(axis=2))
    at = there[:, :, None, None]
    spans = np.where(at, diagonal, -np.inf).max(axis=1) - np.where(at, diagonal, np.inf).min(axis=1)
    tolerance = _EXCHANGEABLE * np.abs(diagonal).max(axis=(1, 2, 3))
    found = np.array((spans <= tolerance[:, None, None]).all(axis=(1, 2)), dtype=bool)
    for voxel in np.nonzero(found)[0]:
        own = b[voxel][there[voxel]]  # (n, Q, P)
        pairs = np.einsum("iqp,pt,jrt->qrij", own, of.inverse[voxel], own, optimize=True)
        others = pairs[..., ~np.eye(len(own), dtype=bool)]
        found[voxel] = bool(np.ptp(others, axis=-1).max(initial=0.0) <= tolerance[voxel]) if others.size else True
    return found


def in_parts(fit: Callable[[slice], Fitted], shape: tuple[int, ...], n_values: int) -> Fitted:
    """Fit a few of V voxels at a time, so that arrays of so many values for each map stay small.

    Maps are of shape (V, n, S).
    """
    width = max(1, _VALUES_AT_A_TIME // (shape[1] * shape[2] * n_values))
    parts = [fit(slice(start, start + width)) for start in range(0, shape[0], width)]
    results: list[Any] = [part.result for part in parts]
    return Fitted(type(results[0]).joined(results), np.concatenate([part.holds for part in parts]))

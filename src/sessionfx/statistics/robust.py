"""Estimates over participants that a few outlying ones cannot move far: M estimates and trimmed means.

Vocabulary
----------
weight
    Of a participant at a voxel, from 0 to 1: how much the value counts beside those of the others.
scale
    Standard deviation of the participants as the middle ones show it: the median absolute residual / 0.6745.

M estimates minimise Σ ρ(r / s) by iteratively reweighted least squares, with Huber's ψ (k = 1.345) or Tukey's bisquare
(c = 4.685), which have 95 % of the efficiency of least squares with normal values (Holland & Welsch 1977). Residuals
are divided by √(1 − h), h the leverage, and the scale leaves out the P − 1 smallest residuals of P columns, which the
fit makes small. The standard error is that of Street, Carroll & Ruppert (1988), with the leverage as in DuMouchel &
O'Brien (1989), whose lower bound by the least-squares error it takes too: with a = mean ψ′ and K = 1 + (P/n)(1 − a)/a,

    σ² = (K s / a)² Σ (1 − h) ψ² / (n − P),   σ² ≥ (P² σ²_LS + n σ²) / (P² + n),   variance = σ² c′(X′X)⁻¹c.

Wager et al. (2005) test such errors by t on n − P degrees of freedom in fMRI. With so many, small p are too frequent
(bisquare, 12 participants: up to 3.8 ‰ at a nominal 1 ‰). Here they are Σ ψ′ − P, at least 1: with Huber's ψ the
participants whose values are not cut, less P, as in the t of a winsorised mean.

Trimmed means leave out the smallest and the largest fifth of each group (Tukey & McLaughlin 1963; Yuen 1974).

Shapes: n participants, P columns, R their rank, V voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array, column_basis, pseudo_inverse, rank_of
from sessionfx.statistics.ols import OlsContrasts, prepare_ols

MEstimator = Literal["huber", "bisquare"]

_TUNING: dict[MEstimator, float] = {"huber": 1.345, "bisquare": 4.685}
_MAD_OF_NORMAL = 0.6745
TRIMMED_SHARE = 0.2  # at either end
_MOST_STEPS = 100
_CONVERGED = 1e-8  # of a step, in scales
# Of the standard deviation: where more than half of the participants fit exactly, the scale is not taken to be 0
SMALLEST_SCALE = 1e-6
# Of weighted sums of squares in the directions of the design: below, all who show one of them have lost their weight
_UNDETERMINED = 1e-6
# Mean ψ′ can be 0 or below with the bisquare, where nearly all residuals are large
SMALLEST_SLOPE = 1e-3


@dataclass(frozen=True)
class RobustContrast:
    """A contrast by M estimation, ready for any number of voxels."""

    kind: MEstimator  # 'huber' or 'bisquare'
    ordinary: OlsContrasts  # the same contrast by least squares
    basis: Array  # (n, R): orthonormal, of what the design spans

    @cached_property
    def _leverage(self) -> Array:
        return np.asarray(np.square(self.basis).sum(axis=1))

    @cached_property
    def _products(self) -> Array:
        """Products of the basis' columns, of shape (n, R R)."""
        return np.asarray(np.einsum("nr,ns->nrs", self.basis, self.basis).reshape(len(self.basis), -1))

    def estimate(self, values: Array) -> Estimate:
        """Estimate the contrast at voxels of shape (n, V); no variance where the weights leave it undetermined."""
        own = np.ascontiguousarray(values.T)
        coefficients, is_determined = self._fit(own)
        n, rank = self.basis.shape
        scaled, scale = self._scaled(own, coefficients)
        influence, slope = influence_of(self.kind, scaled), slope_of(self.kind, scaled)
        mean_slope = np.maximum(slope.mean(axis=1), SMALLEST_SLOPE)
        inflation = 1 + rank / n * (1 - mean_slope) / mean_slope
        squares = np.square(influence) @ (1 - self._leverage) / (n - rank)
        squared_error = squares * (inflation * scale / mean_slope) ** 2
        of_least_squares = self.ordinary.dispersion(values)
        bound = (rank**2 * of_least_squares + n * squared_error) / (rank**2 + n)
        (weights,) = self.ordinary.weights
        variance = (weights @ weights) * np.maximum(squared_error, bound)
        return Estimate(
            coefficients @ (weights @ self.basis),
            np.where(is_determined & (of_least_squares > 0), variance, 0.0),
            np.maximum(slope.sum(axis=1) - rank, 1.0),
        )

    def weights(self, values: Array) -> Array:
        """Give the weights of participants, of shape (n, V)."""
        own = np.ascontiguousarray(values.T)
        scaled, _ = self._scaled(own, self._fit(own)[0])
        return np.asarray(weights_of(self.kind, scaled).T)

    def _scaled(self, values: Array, coefficients: Array) -> tuple[Array, Array]:
        """Divide residuals by √(1 − h) and by the scale, of shape (V, n); and give the scale, of shape (V,)."""
        residuals = (values - coefficients @ self.basis.T) / np.sqrt(np.maximum(1 - self._leverage, SMALLEST_SCALE))
        scale = scale_of(residuals, self.basis.shape[1] - 1, SMALLEST_SCALE * values.std(axis=1))
        return residuals / scale[:, None], scale

    def _fit(self, values: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Find coefficients of the basis, of shape (V, R), and where the weights determine them."""
        return reweighted(
            self.kind, values @ self.basis, self._products,
            lambda left, found: self._scaled(values[left], found),
            lambda left, weights: (weights * values[left]) @ self.basis,
        )  # fmt: skip


@dataclass(frozen=True)
class TrimmedContrast:
    """A contrast of the trimmed means of groups, which have a variance each."""

    contrast_weights: Array  # (G,): of the groups' means in the contrast
    groups: NDArray[np.int_]  # (n,)

    def estimate(self, values: Array) -> Estimate:
        """Estimate the contrast at voxels of shape (n, V); Welch–Satterthwaite degrees of freedom of several groups."""
        effects, variances, dofs = [], [], []
        for group in range(len(self.contrast_weights)):
            ordered = np.sort(values[self.groups == group], axis=0)
            n, cut = len(ordered), _n_trimmed(len(ordered))
            n_left = n - 2 * cut
            winsorised = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
            effects.append(ordered[cut : n - cut].mean(axis=0))
            variances.append(winsorised.var(axis=0) * n / (n_left * (n_left - 1)))
            dofs.append(n_left - 1.0)
        parts = np.square(self.contrast_weights)[:, None] * np.array(variances)
        variance = parts.sum(axis=0)
        effect = self.contrast_weights @ np.array(effects)
        if len(dofs) == 1:
            return Estimate(effect, variance, dofs[0])
        shares = np.divide(parts, variance, where=variance > 0, out=np.ones_like(parts))
        return Estimate(effect, variance, 1 / (np.square(shares) / np.array(dofs)[:, None]).sum(axis=0))

    def weights(self, values: Array) -> Array:
        """Give 0 for participants who are left out and 1 for the others, of shape (n, V)."""
        found = np.ones(values.shape)
        for group in range(len(self.contrast_weights)):
            rows = np.nonzero(self.groups == group)[0]
            cut = _n_trimmed(len(rows))
            ranks = values[rows].argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
            found[rows] = (ranks >= cut) & (ranks < len(rows) - cut)
        return found


def prepare_m_estimate(kind: MEstimator, design: Array, contrast: Array) -> RobustContrast:
    """Compute what depends on the design alone.

    Parameters
    ----------
    kind : {'huber', 'bisquare'}
    design : ndarray of shape (n, P)
        Any rank below n.
    contrast : ndarray of shape (P,)
        Estimable.
    """
    basis = column_basis(design)
    return RobustContrast(kind, prepare_ols(design, contrast), np.ascontiguousarray(basis))


def prepare_trimmed(design: Array, contrast: Array) -> TrimmedContrast:
    """Compute what depends on the design alone: which participants are a group, those with one row in the design.

    Parameters
    ----------
    design : ndarray of shape (n, P)
    contrast : ndarray of shape (P,)
        Estimable.

    Raises
    ------
    ValueError
        If the design is more than means of groups, as with a numeric covariate.
    """
    rows, groups = np.unique(design, axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    if len(rows) != rank_of(design):
        raise ValueError("the design is more than means of groups")
    weights = np.bincount(groups, contrast @ pseudo_inverse(design)).astype(float)
    return TrimmedContrast(weights, groups)


def reweighted(
    kind: MEstimator,
    start: Array,
    products: Array,
    scaled: Callable[[NDArray[np.intp], Array], tuple[Array, Array]],
    moments: Callable[[NDArray[np.intp], Array], Array],
) -> tuple[Array, NDArray[np.bool_]]:
    """Find M estimates by iteratively reweighted least squares.

    Parameters
    ----------
    kind : {'huber', 'bisquare'}
    start : ndarray of shape (V, R)
        Coefficients of an orthonormal basis by least squares.
    products : ndarray of shape (n, R R)
        Of the basis' columns, of each participant.
    scaled : callable
        Gives the scaled residuals (v, n) and the scale (v,) of voxels by their numbers, with some coefficients.
    moments : callable
        Gives the right side of the normal equations (v, R) of voxels by their numbers, with weights of shape (v, n).

    Returns
    -------
    coefficients : ndarray of shape (V, R)
    is_determined : ndarray of bool, shape (V,)
        Where the weights determine them.
    """
    found, rank = start.copy(), start.shape[1]
    if kind == "bisquare":
        # its minimum is not the only one: it is sought from Huber's
        found, _ = reweighted("huber", start, products, scaled, moments)
    is_determined = np.ones(len(start), dtype=bool)
    left = np.arange(len(start))
    for _ in range(_MOST_STEPS):
        residuals, scale = scaled(left, found[left])
        weights = weights_of(kind, residuals)
        squares = (weights @ products).reshape(-1, rank, rank)
        smallest = np.linalg.eigvalsh(squares)[:, 0] if rank > 1 else squares[:, 0, 0]
        is_determined[left] = smallest > _UNDETERMINED
        squares[smallest <= _UNDETERMINED] = np.eye(rank)
        new = np.linalg.solve(squares, moments(left, weights)[..., None])[..., 0]
        step = np.abs(new - found[left]).max(axis=1)
        found[left] = new
        left = left[is_determined[left] & (step > _CONVERGED * scale)]
        if not len(left):
            break
    return found, is_determined


def scale_of(residuals: Array, n_left_out: int, smallest: Array) -> Array:
    """Give the scale of residuals of shape (V, n) without so many of the smallest; 1 where it cannot be told."""
    sizes = np.sort(np.abs(residuals), axis=1)[:, n_left_out:]
    middle = sizes.shape[1] // 2
    median = (sizes[:, middle] + sizes[:, (sizes.shape[1] - 1) // 2]) / 2
    return np.asarray(np.maximum(median / _MAD_OF_NORMAL, np.where(smallest > 0, smallest, 1.0)))


def _n_trimmed(n: int) -> int:
    """Say how many of n participants are left out at either end."""
    return int(TRIMMED_SHARE * n + 1e-9)


def weights_of(kind: MEstimator, scaled: Array) -> Array:
    """ψ(u) / u."""
    limit = _TUNING[kind]
    if kind == "huber":
        return np.asarray(limit / np.maximum(np.abs(scaled), limit))
    return np.asarray(np.square(1 - np.minimum(np.square(scaled / limit), 1.0)))


def influence_of(kind: MEstimator, scaled: Array) -> Array:
    """ψ(u)."""
    return scaled * weights_of(kind, scaled)


def slope_of(kind: MEstimator, scaled: Array) -> Array:
    """ψ′(u)."""
    squares = np.square(scaled / _TUNING[kind])
    if kind == "huber":
        return np.asarray((squares <= 1).astype(float))
    return np.asarray(np.where(squares < 1, (1 - squares) * (1 - 5 * squares), 0.0))

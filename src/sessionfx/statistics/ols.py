"""Ordinary least squares of many voxels on one small design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array, column_basis, membership_matrix, pseudo_inverse, rounding_of

_WITHIN = 1e-9  # of a column's largest number, what is rounding where it does not differ within participants


@dataclass(frozen=True)
class OlsContrasts:
    """Contrasts of a design, ready for any number of voxels."""

    weights: Array  # (Q, N): the estimates are weights @ y
    # (N, R): orthonormal basis of what the design spans, without the participants' means where these are taken out
    # first
    basis: Array
    # (n, N): the sums of each participant's maps over the root of their number, where each has an indicator: time for
    # residuals then grows with N, not with n N
    means: sparse.csr_array | None
    dof: float  # N − rank X

    def residuals(self, values: NDArray[np.floating]) -> Array:
        """Take out what the design explains of voxels of shape (N, V)."""
        left = values - self.basis @ (self.basis.T @ values)
        if self.means is not None:
            left -= self.means.T @ (self.means @ values)
        return np.asarray(left)

    def dispersion(self, values: NDArray[np.floating]) -> Array:
        """Variance of the error, of shape (V,); exactly 0 where the residuals are rounding error."""
        # Residuals, not y'y - b'X'y: the difference of two large numbers would lose digits.
        residuals = self.residuals(values)
        squares = np.einsum("nv,nv->v", residuals, residuals)
        # What rounding leaves of values that the design explains exactly is no error variance.
        squares[squares <= rounding_of(np.einsum("nv,nv->v", values, values), len(values))] = 0.0
        return np.asarray(squares / self.dof)

    def estimate(self, values: NDArray[np.floating]) -> Estimate:
        """Estimate the contrast, where there is one, at voxels of shape (N, V).

        Effect c′X⁺y, variance s² c′(X′X)⁺c with s² = ‖y − XX⁺y‖² / (N − rank X). The dispersion is divided by the same
        degrees of freedom that the t statistic has; nilearn's `OLSModel` divides by N − P, which shrinks t on
        rank-deficient designs.
        """
        (weights,) = self.weights
        return Estimate(weights @ values, (weights @ weights) * self.dispersion(values), self.dof)

    def test(self, values: NDArray[np.floating]) -> tuple[Array, float, float]:
        """Test that all contrasts, which are independent, are zero.

        Returns
        -------
        f : ndarray of shape (V,)
            NaN where no error variance is left.
        dof_numerator, dof : float
            Q and N − rank X.
        """
        effects, dispersion = self.weights @ values, self.dispersion(values)
        solved = np.linalg.solve(self.weights @ self.weights.T, effects)
        with np.errstate(divide="ignore", invalid="ignore"):
            f = np.where(dispersion > 0, (effects * solved).sum(axis=0) / len(effects) / dispersion, np.nan)
        return f, float(len(effects)), self.dof


def prepare_ols(design: Array, contrasts: Array) -> OlsContrasts:
    """Compute what depends on the design alone.

    Parameters
    ----------
    design : ndarray of shape (N, P)
        Any rank below N.
    contrasts : ndarray of shape (P,) or (Q, P)
        Estimable.

    Raises
    ------
    ValueError
        If no degrees of freedom are left.
    """
    basis = column_basis(design)
    dof = len(design) - basis.shape[1]
    if dof < 1:
        raise ValueError("no degrees of freedom are left for the error")
    return OlsContrasts(np.atleast_2d(contrasts) @ pseudo_inverse(design), basis, None, float(dof))


def prepare_within(design: Array, contrasts: Array, participants: Sequence[str]) -> OlsContrasts:
    """Prepare a design beside an indicator for each participant, in memory that grows with N.

    The indicators are taken out of the other columns first (Frisch & Waugh 1933, doi:10.2307/1907330).

    Parameters
    ----------
    design : ndarray of shape (N, P)
        The other columns.
    contrasts : ndarray of shape (P,) or (Q, P)
        Estimable from what differs within participants.
    participants : sequence of N str
        Whose map each row is.

    Raises
    ------
    ValueError
        If no degrees of freedom are left.
    """
    memberships = membership_matrix(participants)
    means = sparse.csr_array(memberships.T / np.sqrt(memberships.sum(axis=0))[:, None])
    found = prepare_ols(within_participants(design, participants), contrasts)
    dof = found.dof - means.shape[0]
    if dof < 1:
        raise ValueError("no degrees of freedom are left for the error")
    return replace(found, means=means, dof=dof)


def within_participants(columns: Array, participants: Sequence[str]) -> Array:
    """Take each participant's means out of columns of shape (N, P); exactly 0 where only rounding is left."""
    memberships = membership_matrix(participants)
    left = columns - memberships @ ((memberships.T @ columns) / memberships.sum(axis=0)[:, None])
    left[:, np.abs(left).max(axis=0, initial=0.0) <= _WITHIN * np.abs(columns).max(axis=0, initial=0.0)] = 0.0
    return np.asarray(left)

"""Ordinary least squares of many voxels on one small design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import pseudo_inverse, rank_of, scale_columns

_WITHIN = 1e-9  # of a unit vector that lies in a space, what rounding may leave outside


@dataclass(frozen=True)
class OlsContrasts:
    """Contrasts of a design, ready for any number of voxels.

    Attributes
    ----------
    weights : ndarray of shape (Q, N)
        The estimates are weights @ y.
    basis : ndarray of shape (N, R)
        Orthonormal basis of what the design spans, without the participants' means where it spans these.
    means : csr_array of shape (n, N) or None
        The sums of each participant's maps over the root of their number, where the design spans them: time for
        residuals then grows with N, not with n N.
    dof : float
        N − rank X.
    """

    weights: NDArray[np.float64]
    basis: NDArray[np.float64]
    means: sparse.csr_array | None
    dof: float

    def residuals(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Take out what the design explains of voxels of shape (N, V)."""
        left = values - self.basis @ (self.basis.T @ values)
        if self.means is not None:
            left -= self.means.T @ (self.means @ values)
        return np.asarray(left)

    def dispersion(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Variance of the error, of shape (V,); exactly 0 where the residuals are rounding error."""
        # Residuals, not y'y - b'X'y: the difference of two large numbers would lose digits.
        residuals = self.residuals(values)
        squares = np.einsum("nv,nv->v", residuals, residuals)
        # What rounding leaves of values that the design explains exactly is no error variance.
        squares[squares <= (np.finfo(float).eps * len(values)) ** 2 * np.einsum("nv,nv->v", values, values)] = 0.0
        return np.asarray(squares / self.dof)

    def estimate(self, values: NDArray[np.floating]) -> Estimate:
        """Estimate the contrast, where there is one, at voxels of shape (N, V).

        Effect c′X⁺y, variance s² c′(X′X)⁺c with s² = ‖y − XX⁺y‖² / (N − rank X). The dispersion is divided by the same
        degrees of freedom that the t statistic has; nilearn's `OLSModel` divides by N − P, which shrinks t on
        rank-deficient designs.
        """
        (weights,) = self.weights
        return Estimate(weights @ values, (weights @ weights) * self.dispersion(values), self.dof)

    def test(self, values: NDArray[np.floating]) -> tuple[NDArray[np.float64], float, float]:
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


def prepare_ols(
    design: NDArray[np.float64], contrasts: NDArray[np.float64], participants: Sequence[str] = ()
) -> OlsContrasts:
    """Compute what depends on the design alone.

    Parameters
    ----------
    design : ndarray of shape (N, P)
        Any rank below N.
    contrasts : ndarray of shape (P,) or (Q, P)
        Estimable.
    participants : sequence of N str, optional
        Whose map each row is.

    Raises
    ------
    ValueError
        If no degrees of freedom are left.
    """
    rank = rank_of(design)
    dof = design.shape[0] - rank
    if dof < 1:
        raise ValueError("no degrees of freedom are left for the error")
    weights = np.atleast_2d(contrasts) @ pseudo_inverse(design)
    basis = np.ascontiguousarray(linalg.svd(scale_columns(design)[0], full_matrices=False)[0][:, :rank])
    means = None
    labels = list(dict.fromkeys(participants))
    if labels and len(labels) <= rank:
        units = np.array([[float(owner == label) for owner in participants] for label in labels])
        units /= np.sqrt(units.sum(axis=1, keepdims=True))
        inside = units @ basis
        if len(labels) - (inside**2).sum() <= _WITHIN * len(labels):
            means = sparse.csr_array(units)
            # the directions of the span that are orthogonal to all participants' means
            basis = np.ascontiguousarray(basis @ linalg.qr(inside.T)[0][:, len(labels) :])
    return OlsContrasts(weights, basis, means, float(dof))

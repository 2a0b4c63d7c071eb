"""M estimates of the marginal model: participants whose sessions together are outlying count less.

The estimating equations of generalised least squares are weighted by participants, after Preisser & Qaqish (1999,
doi:10.1111/j.0006-341X.1999.00574.x): Σ w_i X_i′V_i⁻¹(y_i − X_i β) = 0. The weights are ψ(u_i) / u_i, as in `robust`,
of the participant's score of the contrast, which is what moves the estimate (CR2's, see `cluster_robust`): u_i is
divided by its standard deviation √v_i under the working model, and by the scale s of the middle participants. With
complete data that is the residual of the participant's session contrast: estimates and weights are those of
`robust.RobustContrast`, and without covariates its errors and degrees of freedom too. In general, with a the mean of
ψ′ weighted by v, and P the number of linear constraints on the n scores (at least 1),

    variance = (K s / a)² Σ v_i ψ(u_i)²,   K = 1 + (P/n)(1 − a)/a,   dof = (ν + P) a − P, at least 1,

ν those of the marginal model, of the design or of the voxel's ψ(u_i), and the variance at least
(P² that of least squares + n itself) / (P² + n).

Shapes: N maps, n participants, R the design's rank, V voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.cluster_robust import RobustContrast, voxel_dof, whiten
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array, column_basis, membership_matrix, pseudo_inverse
from sessionfx.statistics.robust import (
    SMALLEST_SCALE,
    SMALLEST_SLOPE,
    MEstimator,
    influence_of,
    reweighted,
    scale_of,
    slope_of,
    weights_of,
)

# Of the largest variance of a score: below, the participant does not carry the contrast, and counts fully
_CARRIES = 1e-10
_CONSTRAINED = 1e-8  # by how much an eigenvalue may be below that of a constraint


@dataclass(frozen=True)
class RobustClusters:
    """A contrast by M estimation over participants, ready for any number of voxels."""

    kind: MEstimator  # 'huber' or 'bisquare'
    prepared: RobustContrast  # the same contrast by generalised least squares; Q = 1
    contrast: Array  # (R,): over an orthonormal basis of what the whitened design spans
    products: Array  # (n, R R): of the basis' rows of each participant
    moments: sparse.csr_array  # (n R, N): give each participant's part of the right side of the normal equations
    carried: Array  # (n, R): what coefficients of the basis take from each score
    variances: Array  # (n,): v, of the scores under the working model; 0 for who does not carry the contrast
    n_constraints: int  # P

    def estimate(self, values: Array) -> Estimate:
        """Estimate the contrast at voxels of shape (N, V); no variance where the weights leave it undetermined."""
        coefficients, is_determined, scaled, scale, floor = self._fit(values)
        share = self.variances / self.variances.sum()
        influence, slope = influence_of(self.kind, scaled), slope_of(self.kind, scaled)
        mean_slope = np.maximum(slope @ share, SMALLEST_SLOPE)
        n, rank = int((self.variances > 0).sum()), self.n_constraints
        inflation = 1 + rank / n * (1 - mean_slope) / mean_slope
        variance = np.square(influence) @ self.variances * (inflation * scale / mean_slope) ** 2
        of_least_squares = self.prepared.scores_of(values)[0]
        ordinary = np.einsum("nv,nv->v", of_least_squares, of_least_squares)
        bound = (rank**2 * ordinary + n * variance) / (rank**2 + n)
        dof = voxel_dof(self.prepared, (influence * np.sqrt(self.variances)).T[None])
        return Estimate(
            coefficients @ self.contrast,
            np.where(is_determined & (floor > 0), np.maximum(variance, bound), 0.0),
            np.maximum((dof + rank) * (slope @ share) - rank, 1.0),
        )

    def weights(self, values: Array) -> Array:
        """Give the weights of participants, of shape (n, V)."""
        _, _, scaled, _, _ = self._fit(values)
        return np.asarray(weights_of(self.kind, scaled).T)

    def _scaled(self, scores: Array, floor: Array, coefficients: Array) -> tuple[Array, Array]:
        carries = self.variances > 0
        deviations = np.sqrt(np.where(carries, self.variances, np.inf))
        standard = (scores - coefficients @ self.carried.T) / deviations
        scale = scale_of(standard[:, carries], self.n_constraints - 1, floor)
        return standard / scale[:, None], scale

    def _fit(self, values: Array) -> tuple[Array, NDArray[np.bool_], Array, Array, Array]:
        """Fit voxels of shape (N, V).

        Returns
        -------
        coefficients : ndarray of shape (V, R)
            Of the basis.
        is_determined : ndarray of bool, shape (V,)
            Where the weights determine them.
        scaled : ndarray of shape (V, n)
            Scores over their standard deviation and the scale.
        scale, floor : ndarray of shape (V,)
            The scale, and the smallest that it may be: 0 where nothing varies.
        """
        n, rank = self.carried.shape
        moments = np.ascontiguousarray((self.moments @ values).reshape(n, rank, -1).transpose(2, 0, 1))
        squares = np.square(self.prepared.scores_of(values)[0]).sum(axis=0)
        varies = squares > self.prepared.rounding(values)[0]
        floor = np.where(varies, SMALLEST_SCALE * np.sqrt(squares / self.variances.sum()), 0.0)
        # without what coefficients take from them
        scores = np.ascontiguousarray((self.prepared.own @ values).T)
        coefficients, is_determined = reweighted(
            self.kind, moments.sum(axis=1), self.products,
            lambda left, found: self._scaled(scores[left], floor[left], found),
            lambda left, weights: np.einsum("vn,vnr->vr", weights, moments[left]),
        )  # fmt: skip
        return coefficients, is_determined, *self._scaled(scores, floor, coefficients), floor


def prepare_robust_clusters(
    kind: MEstimator,
    prepared: RobustContrast,
    design: Array,
    participants: Sequence[str],
    contrast: Array,
    working: tuple[Array, Array],
) -> RobustClusters:
    """Compute what depends on the design and the working covariance alone.

    Parameters
    ----------
    kind : {'huber', 'bisquare'}
    prepared : RobustContrast
        Of this design, contrast and working covariance.
    design : ndarray of shape (N, P)
    participants : sequence of N str
    contrast : ndarray of shape (P,)
    working : (ndarray of shape (n,), ndarray of shape (n,))
        Of each participant: variance between over variance within, and variance within; see `robust_contrast`.
    """
    owners = membership_matrix(participants).indices
    ratios, scales = working
    basis = column_basis(white := whiten(owners, ratios, scales, design))
    to_design = pseudo_inverse(white) @ basis
    n, rank = len(ratios), basis.shape[1]
    products = np.zeros((n, rank, rank))
    np.add.at(products, owners, basis[:, :, None] * basis[:, None, :])
    places = owners[:, None] * rank + np.arange(rank), np.broadcast_to(np.arange(len(basis))[:, None], basis.shape)
    moments = sparse.csr_array(
        (whiten(owners, ratios, scales, basis).ravel(), tuple(place.ravel() for place in places)),
        shape=(n * rank, len(basis)),
    )
    carried = prepared.carried @ to_design
    # the scores' covariance is diag(own) - carried carried'
    own = scales * (prepared.own.power(2).sum(axis=1) + ratios * np.square(prepared.own.sum(axis=1)))
    variances = own - np.square(carried).sum(axis=1)
    carries = variances > _CARRIES * variances.max()
    shares = linalg.eigvalsh(carried[carries].T @ (carried[carries] / own[carries, None]))
    return RobustClusters(
        kind=kind, prepared=prepared, contrast=contrast @ to_design, products=products.reshape(n, -1), moments=moments,
        carried=carried, variances=np.where(carries, variances, 0.0),
        n_constraints=max(int((shares > 1 - _CONSTRAINED).sum()), 1),
    )  # fmt: skip

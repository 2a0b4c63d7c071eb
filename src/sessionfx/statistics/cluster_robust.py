"""Marginal model: generalised least squares with a working correlation, and cluster-robust variance by participants.

The working correlation makes the estimate efficient. The variance comes from the participants' residuals: with many
participants it is right for any true covariance, with few its corrections are those for the working one. CR2 (Bell &
McCaffrey 2002) makes it unbiased when the working correlation holds, with degrees of freedom after Satterthwaite
(Pustejovsky & Tipton 2018, doi:10.1080/07350015.2016.1247004). These take all participants to vary equally; where some
vary more than others and carry more of the contrast, they are too many. So each voxel has degrees of freedom of its own
too, from how much its participants vary, and the smaller number counts (`ParticipantSpread`). What depends on the
design is computed once: for V voxels there remain a few small matrix products per contrast.

Rows are whitened by (I+λJ)^-½ per participant; X, H and P below are of the whitened rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import (
    ZERO,
    membership_matrix,
    moore_penrose_root,
    pseudo_inverse,
    quadratic_form,
    repeated_blocks,
)
from sessionfx.statistics.participant_spread import (
    ParticipantSpread,
    ScoreWeights,
    participant_spread,
    standardising_root,
)

# Participants whose scores have equal variances and equal covariances, relative to these, are exchangeable.
_EXCHANGEABLE = 1e-8
# Numbers of pairs of participants that are looked at together
_PAIRS_TOGETHER = 2**22
_LEAST_DOF = 1.0


@dataclass(frozen=True)
class RobustContrast:
    """Q constraints on the coefficients, ready for any number of voxels.

    Attributes
    ----------
    weights : ndarray of shape (Q, N)
        The estimate of the Q contrasts is weights @ y.
    own : csr_array of shape (Q n, N)
        Weights of each participant's own rows in their scores u, which are u = own @ y − carried @ (coefficients @ y):
        time for them grows with N, not with n N. The variance is Σ u u′ over participants.
    carried : ndarray of shape (Q n, P)
    coefficients : ndarray of shape (P, N)
        coefficients @ y are the estimates of all coefficients.
    towards_null : ndarray of shape (P, Q)
        Taken from the coefficients, times the estimates of the Q contrasts, it leaves those under the null hypothesis:
        M⁻¹c′(cM⁻¹c′)⁻¹, M = X′X.
    dof : float
        Of the design, if the working model holds: Satterthwaite's for Q = 1; η of the Hotelling approximation (HTZ) for
        Q > 1. NaN where the design leaves some combination of the contrasts no variation between participants.
    expected : ndarray of shape (Q, Q)
        Expectation of the variance under the working model, in units of the dispersion.
    seen : float
        Its share in the true variance under the working model, of the combination of the contrasts for which it is
        smallest. 1, CR2 being unbiased, unless the contrasts rest on rows that are fitted exactly whatever the data,
        such as those of the only participant with a session: their variance is not seen.
    spread : ParticipantSpread or None
        For the degrees of freedom of each voxel. None where all participants count the same, as in balanced data
        without covariates: the design's are then exact if they vary equally, and enough if they do not.
    """

    weights: NDArray[np.float64]
    own: sparse.csr_array
    carried: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    towards_null: NDArray[np.float64]
    dof: float
    expected: NDArray[np.float64]
    seen: float
    spread: ParticipantSpread | None = None

    @property
    def scores(self) -> NDArray[np.float64]:
        """The scores' weights as a whole, of shape (Q, n, N)."""
        whole = self.own.toarray() - self.carried @ self.coefficients
        return np.asarray(whole.reshape(len(self.weights), -1, whole.shape[1]))

    def scores_of(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the participants' scores of shape (Q, n, V) at voxels of shape (N, V)."""
        found = self.own @ values
        found -= self.carried @ (self.coefficients @ values)
        return np.asarray(found.reshape(len(self.weights), -1, values.shape[1]))

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest sum of squared weights, of shape (Q,), that rounding in a participant's score can come with."""
        own = self.own.power(2).sum(axis=1)
        carried = self.carried**2 @ (self.coefficients**2).sum(axis=1)
        return np.asarray((own + carried).reshape(len(self.weights), -1).max(axis=1))

    def rounding(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Find what rounding can leave of the variance of each contrast, of shape (Q, V), at voxels (N, V)."""
        squares = np.einsum("nv,nv->v", values, values)
        return np.outer(self.largest, (np.finfo(float).eps * len(values)) ** 2 * squares)


def robust_contrast(
    design: NDArray[np.float64],
    participants: Sequence[str],
    contrast: NDArray[np.float64],
    ratio: float | NDArray[np.float64],
    scale: float | NDArray[np.float64] = 1.0,
    n_responses: int = 1,
) -> RobustContrast:
    """Prepare a contrast.

    Several responses are values of the same maps, such as the estimates of several contrasts: each has the design and
    coefficients of its own, and the contrast is tested in all of them together. Their working covariance is that of
    one response times any covariance between responses, which cancels: estimates, scores and degrees of freedom do
    not depend on it.

    Parameters
    ----------
    design : ndarray of shape (N, P)
    participants : sequence of N str
    contrast : ndarray of shape (P,) or (Q, P)
        Estimable.
    ratio : float or ndarray of shape (n,)
        λ of the working correlation, variance between over variance within participants; 0 for independence. Of each
        participant, in the order in which they first appear, where they differ.
    scale : float or ndarray of shape (n,)
        Variance within participants, relative to each other.
    n_responses : int, default=1
        R. With several, the values are of shape (R N, V), response by response, and Q contrasts are R Q.
    """
    constraints = repeated_blocks(np.atleast_2d(contrast), n_responses)
    owners = membership_matrix(participants).indices
    n = int(owners.max()) + 1
    ratios, scales = (np.broadcast_to(np.asarray(each, dtype=np.float64), n) for each in (ratio, scale))
    whitened = partial(whiten, owners, ratios, scales)
    white = repeated_blocks(whitened(design), n_responses)
    inverse = pseudo_inverse(white)  # M⁻¹X′
    weights = constraints @ inverse
    scores = _score_weights(white, inverse, weights, np.tile(owners, n_responses))
    expected = scores.variances.sum(axis=0)
    truth = weights @ weights.T
    root = moore_penrose_root(truth / np.abs(truth).max())
    shares = linalg.eigvalsh(root @ expected @ root / np.abs(truth).max())
    seen = float(shares[0])
    # where every participant has coefficients of their own the scores are rounding error, whose dof mean nothing
    dof, spread = float("nan"), None
    if seen > ZERO:
        dof, is_exchangeable = _degrees_of_freedom(scores, expected)
        spread = None if is_exchangeable else participant_spread(scores, expected, n_responses)

    def of_maps(columns: NDArray[np.float64]) -> NDArray[np.float64]:  # by the rows before they were whitened
        apart = columns.reshape(len(columns) * n_responses, -1)
        return np.asarray(whitened(apart.T).T.reshape(columns.shape))

    places = np.arange(len(weights))[:, None] * n + np.tile(owners, n_responses)
    columns = np.broadcast_to(np.arange(len(white)), weights.shape)
    return RobustContrast(
        weights=of_maps(weights),
        own=sparse.csr_array((of_maps(scores.own).ravel(), (places.ravel(), columns.ravel())),
                             shape=(len(weights) * n, len(white))),
        carried=scores.carried.transpose(1, 0, 2).reshape(len(weights) * n, -1),
        coefficients=of_maps(inverse),
        towards_null=inverse @ weights.T @ linalg.pinv(truth),
        dof=dof,
        expected=expected,
        seen=seen,
        spread=spread,
    )  # fmt: skip


def whiten(
    owners: NDArray[np.int_], ratios: NDArray[np.float64], scales: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiply each participant's rows, in columns of shape (N, K), by (I + λJ)^-½ over the root of the scale."""
    counts = np.bincount(owners)
    sums = np.zeros((len(counts), columns.shape[1]))
    np.add.at(sums, owners, columns)
    taken = (1 - 1 / np.sqrt(1 + ratios * counts)) / counts
    return np.asarray((columns - (taken[:, None] * sums)[owners]) / np.sqrt(scales)[owners, None])


def _score_weights(
    white: NDArray[np.float64],
    inverse: NDArray[np.float64],
    weights: NDArray[np.float64],
    owners: NDArray[np.int_],
) -> ScoreWeights:
    """Find the weights of whitened rows in the participants' scores, with the CR2 adjustment."""
    counts = np.bincount(owners)
    order = np.argsort(owners, kind="stable")
    starts = np.cumsum(counts) - counts
    own = np.empty(weights.shape)
    carried = np.empty((len(counts), len(weights), white.shape[1]))
    variances = np.empty((len(counts), len(weights), len(weights)))
    clusters, members = [], []
    for count in np.unique(counts):  # those with equally many rows together
        of_count = np.nonzero(counts == count)[0]
        rows = order[starts[of_count, None] + np.arange(count)]
        x, w = white[rows], weights[:, rows].transpose(1, 0, 2)
        eigenvalues, vectors = np.linalg.eigh(np.eye(count) - x @ inverse[:, rows].transpose(1, 0, 2))
        w = np.where((eigenvalues > ZERO)[:, None], w @ vectors, 0.0)
        adjusted = (w / np.sqrt(np.where(eigenvalues > ZERO, eigenvalues, 1.0))[:, None]) @ vectors.transpose(0, 2, 1)
        own[:, rows] = adjusted.transpose(1, 0, 2)
        carried[of_count] = adjusted @ x
        variances[of_count] = w @ w.transpose(0, 2, 1)
        clusters.append(rows)
        members.append(of_count)
    return ScoreWeights(own, carried, inverse, variances, tuple(clusters), tuple(members))


def _degrees_of_freedom(scores: ScoreWeights, expected: NDArray[np.float64]) -> tuple[float, bool]:
    """Find η with which the variance matrix, standardised, is about a Wishart matrix of that many dof.

    η = q(q+1) / Σ_st Var D_st, D = Ω^-½ V Ω^-½, for normal data under the working model (Pustejovsky & Tipton 2018, eq.
    14); for q = 1 that is tr(GG′)² / tr((GG′)²).

    Returns
    -------
    eta : float
    is_exchangeable : bool
        Whether all participants' scores have one variance and all pairs one covariance.
    """
    n, q = scores.carried.shape[:2]
    root = standardising_root(expected)
    # of two participants g_i g_j′ = −C_i B B′ C_j′, and B B′ = R′R
    carried = root @ scores.carried @ linalg.qr(scores.coefficients.T, mode="r")[0][: scores.carried.shape[2]].T
    own = root @ scores.variances @ root.T
    total = 0.0
    least, most = np.full((q, q), np.inf), np.full((q, q), -np.inf)
    together = max(1, _PAIRS_TOGETHER // (n * q * q))
    for start in range(0, n, together):
        part = -np.einsum("isp,jtp->stij", carried[start : start + together], carried, optimize=True)
        here = np.arange(part.shape[2])
        part[:, :, here, start + here] = np.nan
        np.fmin(least, np.fmin.reduce(part, axis=(2, 3), initial=np.inf), out=least)
        np.fmax(most, np.fmax.reduce(part, axis=(2, 3), initial=-np.inf), out=most)
        part[:, :, here, start + here] = own[start : start + together].transpose(1, 2, 0)
        diagonal = np.einsum("ssij->sij", part)
        total += float((diagonal.sum(axis=0) ** 2).sum() + np.einsum("stij,tsij->", part, part))
    tolerance = _EXCHANGEABLE * np.abs(own).max()
    is_exchangeable = np.ptp(own, axis=0).max() <= tolerance and (n < 2 or (most - least).max() <= tolerance)
    return float(q * (q + 1) / total), bool(is_exchangeable)


def voxel_dof(prepared: RobustContrast, scores: NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Take the smaller degrees of freedom: those of the design, or those of each voxel."""
    if prepared.spread is None:
        return prepared.dof
    q = len(prepared.weights)
    # the smallest that an approximation by a chi-square or a Wishart matrix can have, and never more than the design's
    least = min(q - 1 + _LEAST_DOF, prepared.dof)
    found = np.maximum(prepared.spread.degrees_of_freedom(scores), least)
    return np.fmin(found, prepared.dof)


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
    scores = prepared.scores_of(values)
    variance = np.einsum("nv,nv->v", scores[0], scores[0])
    variance[variance <= prepared.rounding(values)[0]] = 0.0
    return Estimate(prepared.weights[0] @ values, variance, voxel_dof(prepared, scores))


def wald_robust(prepared: RobustContrast, values: NDArray[np.floating]) -> FTest:
    """Test that Q contrasts are all zero (HTZ of Pustejovsky & Tipton 2018, eq. 16).

    Parameters
    ----------
    prepared : RobustContrast
    values : ndarray of shape (N, V)

    Returns
    -------
    FTest
        F = (η − q + 1)/(η q) · ĉ′V⁻¹ĉ on q and η − q + 1 degrees of freedom; NaN where V cannot be inverted, or a
        contrast's variance is rounding error.
    """
    q = len(prepared.weights)
    effects = prepared.weights @ values
    scores = prepared.scores_of(values)
    covariance = np.einsum("siv,tiv->vst", scores, scores)
    varies = (np.einsum("vss->sv", covariance) > prepared.rounding(values)).all(axis=0)
    covariance[~varies] = 0.0
    eta = voxel_dof(prepared, scores)
    dof = eta - q + 1
    return FTest(dof / (eta * q) * quadratic_form(effects, covariance), float(q), dof)

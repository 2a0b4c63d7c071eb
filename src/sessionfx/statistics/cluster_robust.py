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

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import pseudo_inverse, quadratic_form, repeated_blocks

# Eigenvalues of I − H_ii below this are zero: a participant whose rows the design explains fully (Moore–Penrose).
_ZERO = 1e-10
# Participants whose scores have equal variances and equal covariances, relative to these, are exchangeable.
_EXCHANGEABLE = 1e-8
# With many participants, eigenvalues of what they share that are left out, relative to what each has of their own: the
# voxels' degrees of freedom come out wrong by no more than three times this. Not 0.01, which designs can have exactly.
_NEGLIGIBLE_SHARE = 0.0091
_MANY_PARTICIPANTS = 100
_LEAST_DOF = 1.0


@dataclass(frozen=True)
class ParticipantSpread:
    """What the degrees of freedom of a voxel need of the design, where participants may vary unequally.

    With variances s_k of the participants (1 under the working model) the variance estimate has the degrees of freedom
    (ω′s)²/(s′Ts), which for s = 1 are those of the design. A participant's score tells s_k = |u_k|²/E|u_k|². With C
    the score's covariance s_k² is 1 + 2 tr(C²)/tr(C)² times too large on average, 3 times for a single contrast, and is
    divided by that in both places.

    Attributes
    ----------
    scale : ndarray of shape (Q, Q)
        Standardises scores: the variance is about the identity under the working model.

    What follows is to be multiplied with |u_k|² of the standardised scores, not yet divided by its expectation.

    share : ndarray of shape (n,)
        ω, each participant's share in the variance.
    share_excess : ndarray of shape (n,)
        What squares of s_k add too much to (ω′s)².
    own : ndarray of shape (n,)
        Diagonal of T, divided by how much too large s_k² is.
    loadings : ndarray of shape (R, n)
    signs : ndarray of shape (R,)
        The rest of T is loadings′ diag(signs) loadings.
    n_responses : int
        Several have a covariance of their own at each voxel, which the scores show: they are made orthonormal there, so
        that nothing depends on the units of responses, or on which combinations of them are taken.
    """

    scale: NDArray[np.float64]
    share: NDArray[np.float64]
    share_excess: NDArray[np.float64]
    own: NDArray[np.float64]
    loadings: NDArray[np.float64]
    signs: NDArray[np.float64]
    n_responses: int = 1

    def degrees_of_freedom(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the degrees of freedom of V voxels from their scores of shape (Q, n, V); NaN where no score varies."""
        q = len(self.scale)
        if q == 1:  # whose scale takes no part: all is relative to the total
            spread = np.square(scores[0])
        else:
            standard = np.einsum("st,tnv->snv", self.scale, scores)
            if self.n_responses > 1:
                standard = _orthonormal(standard.reshape(self.n_responses, -1, scores.shape[2])).reshape(scores.shape)
            spread = np.einsum("snv,snv->nv", standard, standard)
        total = self.share @ spread
        with np.errstate(divide="ignore", invalid="ignore"):
            spread /= total  # squares of large numbers would overflow
        shared = (self.signs @ (self.loadings @ spread) ** 2) if len(self.signs) else 0.0
        np.square(spread, out=spread)
        return np.asarray(q * (q + 1) * (1 - self.share_excess @ spread) / (self.own @ spread + shared))


def _orthonormal(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make R vectors of each voxel orthonormal, one after the other (Gram and Schmidt); of shape (R, K, V)."""
    found = responses.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for s in range(len(found)):
            found[s] /= np.sqrt(np.einsum("kv,kv->v", found[s], found[s]))
            for t in range(s + 1, len(found)):
                found[t] -= np.einsum("kv,kv->v", found[s], found[t]) * found[s]
    return found


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
    constraints = np.atleast_2d(contrast)
    labels = np.asarray(participants)
    clusters = [np.nonzero(labels == label)[0] for label in dict.fromkeys(participants)]
    whitening = np.eye(len(design))
    working = zip(np.broadcast_to(ratio, len(clusters)), np.broadcast_to(scale, len(clusters)), strict=True)
    for rows, (own_ratio, own_scale) in zip(clusters, working, strict=True):
        whitening[np.ix_(rows, rows)] = inverse_root(len(rows), own_ratio) / np.sqrt(own_scale)
    white = whitening @ design
    if n_responses > 1:
        clusters = [np.add.outer(np.arange(n_responses) * len(design), rows).ravel() for rows in clusters]
        whitening, white, constraints = (
            repeated_blocks(matrix, n_responses) for matrix in (whitening, white, constraints)
        )
    inverse = pseudo_inverse(white)  # M⁻¹X′
    weights = constraints @ inverse
    residual = np.eye(len(white)) - white @ inverse
    scores = np.empty((len(constraints), len(clusters), len(white)))
    own, carried = np.zeros_like(scores), np.empty((*scores.shape[:2], white.shape[1]))
    for index, rows in enumerate(clusters):
        adjusted = weights[:, rows] @ _moore_penrose_root(residual[np.ix_(rows, rows)])
        scores[:, index] = adjusted @ residual[rows]
        own[:, index, rows] = adjusted @ whitening[np.ix_(rows, rows)]
        carried[:, index] = adjusted @ white[rows]
    flat = scores.reshape(-1, len(white))
    products = (flat @ flat.T).reshape(*scores.shape[:2], *scores.shape[:2]).transpose(0, 2, 1, 3)
    expected = np.einsum("stii->st", products)
    truth = weights @ weights.T
    root = _moore_penrose_root(truth / np.abs(truth).max())
    shares = linalg.eigvalsh(root @ expected @ root / np.abs(truth).max())
    seen = float(shares[0])
    # where every participant has coefficients of their own the scores are rounding error, whose dof mean nothing
    dof = _degrees_of_freedom(products, expected) if seen > _ZERO else float("nan")
    spread = None
    if seen > _ZERO and not _is_exchangeable(products):
        spread = _participant_spread(scores, expected, clusters, n_responses)
    n_scores = len(constraints) * len(clusters)
    return RobustContrast(
        weights=weights @ whitening,
        own=sparse.csr_array(own.reshape(n_scores, -1)),
        carried=carried.reshape(n_scores, -1),
        coefficients=inverse @ whitening,
        towards_null=inverse @ weights.T @ linalg.pinv(truth),
        dof=dof,
        expected=expected,
        seen=seen,
        spread=spread,
    )


def inverse_root(n_rows: int, ratio: float) -> NDArray[np.float64]:
    """Compute (I + λJ)^-½ of shape (n_rows, n_rows); J is all ones."""
    return np.asarray(np.eye(n_rows) - (1 - 1 / np.sqrt(1 + ratio * n_rows)) / n_rows)


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
    root = _standardising_root(expected)
    standard = np.einsum("as,bt,stij->abij", root, root, products)
    diagonal = np.einsum("ssij->sij", standard)
    total = np.einsum("sij,tij->", diagonal, diagonal) + np.einsum("stij,stji->", standard, standard)
    return float(q * (q + 1) / total)


def _standardising_root(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(_moore_penrose_root(expected / np.abs(expected).max()) / np.sqrt(np.abs(expected).max()))


def _is_exchangeable(products: NDArray[np.float64]) -> bool:
    """Whether all participants' scores have one variance and all pairs one covariance, of shape (Q, Q, n, n)."""
    n = products.shape[-1]
    own = np.einsum("stii->sti", products)
    others = products[..., ~np.eye(n, dtype=bool)]
    tolerance = _EXCHANGEABLE * np.abs(own).max()
    return bool(np.ptp(own, axis=-1).max() <= tolerance and np.ptp(others, axis=-1).max(initial=0.0) <= tolerance)


def _participant_spread(
    scores: NDArray[np.float64],
    expected: NDArray[np.float64],
    clusters: Sequence[NDArray[np.int_]],
    n_responses: int,
) -> ParticipantSpread:
    """Prepare the degrees of freedom of voxels, from the scores' weights of shape (Q, n, N) on whitened rows."""
    q, n, _ = scores.shape
    root = _standardising_root(expected)
    standard = np.einsum("st,tin->sin", root, scores)
    bounds = np.cumsum([0, *map(len, clusters)])
    order = np.concatenate(clusters)
    ordered = standard[:, :, order]
    together = np.empty((n, n))
    for index, rows in enumerate(clusters):
        # w[s, m, t, p] = Σ_i g_si,m g_ti,p for the maps m of one participant and p of all
        w = np.tensordot(standard[:, :, rows], ordered, axes=(1, 1))
        by_map = np.einsum("smtp,smtp->p", w, w) + np.einsum("smtp,tmsp->p", w, w)
        together[index] = np.add.reduceat(by_map, bounds[:-1])
    own = np.diag(together).copy()
    length = np.sqrt(np.where(own > _ZERO * own.max(), own, np.inf))
    relative = together / length[:, None] / length
    np.fill_diagonal(relative, 0.0)
    values, vectors = linalg.eigh((relative + relative.T) / 2)
    kept = np.abs(values) > (_NEGLIGIBLE_SHARE if n > _MANY_PARTICIPANTS else _ZERO)
    finite = np.where(np.isfinite(length), length, 0.0)
    loadings = (vectors[:, kept] * np.sqrt(np.abs(values[kept]))).T * finite
    covariances = np.einsum("sin,tin->ist", standard, standard)
    variances = np.einsum("iss->i", covariances)
    carries = variances > _ZERO * variances.max()
    inverse_expected = np.where(carries, 1 / np.where(carries, variances, 1.0), 0.0)
    squares = np.einsum("ist,ist->i", covariances, covariances)
    inflation = 1 + 2 * np.where(carries, squares / np.where(carries, variances, 1.0) ** 2, 1.0)
    share = np.add.reduceat(np.einsum("sin,sin->n", ordered, ordered), bounds[:-1]) / q
    share *= inverse_expected
    return ParticipantSpread(
        root, share, share**2 * (1 - 1 / inflation), own / inflation * inverse_expected**2,
        np.ascontiguousarray(loadings * inverse_expected), np.sign(values[kept]), n_responses=n_responses,
    )  # fmt: skip


def _voxel_dof(prepared: RobustContrast, scores: NDArray[np.float64]) -> float | NDArray[np.float64]:
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
    variance[variance <= _rounding(prepared, values)[0]] = 0.0
    return Estimate(prepared.weights[0] @ values, variance, _voxel_dof(prepared, scores))


def _rounding(prepared: RobustContrast, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Find what rounding can leave of the variance of each contrast, of shape (Q, V)."""
    squares = np.einsum("nv,nv->v", values, values)
    return np.outer(prepared.largest, (np.finfo(float).eps * len(values)) ** 2 * squares)


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
    varies = (np.einsum("vss->sv", covariance) > _rounding(prepared, values)).all(axis=0)
    covariance[~varies] = 0.0
    eta = _voxel_dof(prepared, scores)
    dof = eta - q + 1
    return FTest(dof / (eta * q) * quadratic_form(effects, covariance), float(q), dof)

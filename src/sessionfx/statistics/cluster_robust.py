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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import (
    ZERO,
    Array,
    membership_matrix,
    moore_penrose_root,
    pseudo_inverse,
    quadratic_form,
    repeated_blocks,
)
from sessionfx.statistics.partial_coverage import Cells, Fitted, inverses
from sessionfx.statistics.participant_spread import (
    ParticipantSpread,
    ScoreWeights,
    participant_spread,
    standardising_root,
)

# Participants whose scores have equal variances and equal covariances, relative to these, are exchangeable.
EXCHANGEABLE = 1e-8
# Numbers of pairs of participants that are looked at together
_PAIRS_TOGETHER = 2**22
_LEAST_DOF = 1.0


@dataclass(frozen=True)
class RobustContrast:
    """Q constraints on the coefficients, ready for any number of voxels."""

    weights: Array  # (Q, N): the estimate of the Q contrasts is weights @ y
    # (Q n, N): weights of each participant's own rows in their scores u, which are u = own @ y − carried @
    # (coefficients @ y): time for them grows with N, not with n N. The variance is Σ u u′ over participants.
    own: sparse.csr_array
    carried: Array  # (Q n, P)
    coefficients: Array  # (P, N): coefficients @ y are the estimates of all coefficients
    # (P, Q): taken from the coefficients, times the estimates of the Q contrasts, it leaves those under the null
    # hypothesis: M⁻¹c′(cM⁻¹c′)⁻¹, M = X′X
    towards_null: Array
    # Of the design, if the working model holds: Satterthwaite's for Q = 1; η of the Hotelling approximation (HTZ) for Q
    # > 1. NaN where the design leaves some combination of the contrasts no variation between participants.
    dof: float
    expected: Array  # (Q, Q): expectation of the variance under the working model, in units of the dispersion
    # Its share in the true variance under the working model, of the combination of the contrasts for which it is
    # smallest. 1, CR2 being unbiased, unless the contrasts rest on rows that are fitted exactly whatever the data, such
    # as those of the only participant with a session: their variance is not seen.
    seen: float
    # For the degrees of freedom of each voxel. None where all participants count the same, as in balanced data without
    # covariates: the design's are then exact if they vary equally, and enough if they do not.
    spread: ParticipantSpread | None = None

    @property
    def scores(self) -> Array:
        """The scores' weights as a whole, of shape (Q, n, N)."""
        whole = self.own.toarray() - self.carried @ self.coefficients
        return np.asarray(whole.reshape(len(self.weights), -1, whole.shape[1]))

    def scores_of(self, values: NDArray[np.floating]) -> Array:
        """Compute the participants' scores of shape (Q, n, V) at voxels of shape (N, V)."""
        found = self.own @ values
        found -= self.carried @ (self.coefficients @ values)
        return np.asarray(found.reshape(len(self.weights), -1, values.shape[1]))

    @property
    def largest(self) -> Array:
        """Largest sum of squared weights, of shape (Q,), that rounding in a participant's score can come with."""
        own = self.own.power(2).sum(axis=1)
        carried = self.carried**2 @ (self.coefficients**2).sum(axis=1)
        return np.asarray((own + carried).reshape(len(self.weights), -1).max(axis=1))

    def rounding(self, values: NDArray[np.floating]) -> Array:
        """Find what rounding can leave of the variance of each contrast, of shape (Q, V), at voxels (N, V)."""
        squares = np.einsum("nv,nv->v", values, values)
        return np.outer(self.largest, (np.finfo(float).eps * len(values)) ** 2 * squares)


def robust_contrast(
    design: Array,
    participants: Sequence[str],
    contrast: Array,
    ratio: float | Array,
    scale: float | Array = 1.0,
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

    def of_maps(columns: Array) -> Array:  # by the rows before they were whitened
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


def whiten(owners: NDArray[np.int_], ratios: Array, scales: Array, columns: Array) -> Array:
    """Multiply each participant's rows, in columns of shape (N, K), by (I + λJ)^-½ over the root of the scale."""
    counts = np.bincount(owners)
    sums = np.zeros((len(counts), columns.shape[1]))
    np.add.at(sums, owners, columns)
    taken = (1 - 1 / np.sqrt(1 + ratios * counts)) / counts
    return np.asarray((columns - (taken[:, None] * sums)[owners]) / np.sqrt(scales)[owners, None])


def _score_weights(white: Array, inverse: Array, weights: Array, owners: NDArray[np.int_]) -> ScoreWeights:
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


def _degrees_of_freedom(scores: ScoreWeights, expected: Array) -> tuple[float, bool]:
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
        part = np.einsum("isp,jtp->stij", carried[start : start + together], carried, optimize=True)
        np.negative(part, out=part)
        here = np.arange(part.shape[2])
        part[:, :, here, start + here] = np.nan
        np.fmin(least, np.fmin.reduce(part, axis=(2, 3), initial=np.inf), out=least)
        np.fmax(most, np.fmax.reduce(part, axis=(2, 3), initial=-np.inf), out=most)
        part[:, :, here, start + here] = own[start : start + together].transpose(1, 2, 0)
        diagonal = np.einsum("ssij->sij", part)
        total += float((diagonal.sum(axis=0) ** 2).sum() + np.einsum("stij,tsij->", part, part))
        del part, diagonal  # before the next one is made
    tolerance = EXCHANGEABLE * np.abs(own).max()
    is_exchangeable = np.ptp(own, axis=0).max() <= tolerance and (n < 2 or (most - least).max() <= tolerance)
    return float(q * (q + 1) / total), bool(is_exchangeable)


def voxel_dof(prepared: RobustContrast, scores: Array) -> float | Array:
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


# A design of each voxel -------------------------------------------------------------------------------------

# Below these a contrast rests on maps that are fitted exactly, or on a single participant
ALL_SEEN, ENOUGH_DOF = 1 - 1e-6, 1 - 1e-6
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
    inverse, regular = inverses(np.matmul(flat.transpose(0, 2, 1), flat))
    inside = np.matmul(flat, inverse).reshape(v, n, s, p)
    left = np.eye(s) - np.matmul(inside, white.transpose(0, 1, 3, 2))
    kind = _kinds(design, ratio, scale)[None] * 2.0**s + cells.has @ 2.0 ** np.arange(s)
    coefficients = np.einsum("vmp,vm->vp", inside.reshape(v, n * s, p), response.reshape(v, -1))
    return Whitened(
        white=white, response=response, inside=inside, roots=_roots(left, kind), inverse=inverse,
        coefficients=coefficients, regular=regular, sizes=size[0, :, 0], cells=cells,
    )  # fmt: skip


def robust(of: Whitened, contrast: Array) -> Fitted:
    """Estimate or test with CR2 errors and Satterthwaite's degrees of freedom; see `estimate_robust`, `wald_robust`.

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
    design, voxel, seen = _degrees_of_freedom_apart(of, a, b, scores, truth)
    answered = (seen >= ALL_SEEN) & (design - q + 1 >= ENOUGH_DOF)
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
    inverse = np.where(eigenvalues > ZERO, 1 / np.sqrt(np.maximum(eigenvalues, ZERO)), 0.0)
    roots = np.matmul(vectors * inverse[:, None, :], vectors.transpose(0, 2, 1))
    return np.asarray(roots[where.ravel()].reshape(v, n, s, s))


def _inverse_roots(matrices: Array) -> Array:
    """Compute M^-½ of symmetric matrices of shape (V, Q, Q), on the space where they are not zero."""
    eigenvalues, vectors = np.linalg.eigh(matrices)
    kept = eigenvalues > ZERO * np.maximum(eigenvalues[:, -1:], np.finfo(float).tiny)
    inverse = np.where(kept, 1 / np.sqrt(np.where(kept, eigenvalues, 1.0)), 0.0)
    return np.asarray(np.matmul(vectors * inverse[:, None, :], vectors.transpose(0, 2, 1)))


def _degrees_of_freedom_apart(
    of: Whitened, a: Array, b: Array, scores: Array, truth: Array
) -> tuple[Array, Array, Array]:
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
    least = np.minimum(q - 1 + _LEAST_DOF, design)
    voxel = np.fmin(np.maximum(found, least), design)
    return design, np.where(exchangeable, design, voxel), seen


class _Spread(NamedTuple):
    """Standardised scores of shape (V, n, Q); the trace of each one's covariance, and its sum of squares."""

    scores: Array
    variances: Array
    squares: Array


def _of_voxels(of: Whitened, a: Array, b: Array, both: Array, spread: _Spread) -> Array:
    """Find the degrees of freedom that how much participants vary gives; see `ParticipantSpread`."""
    q, p = b.shape[2:]
    carries = spread.variances > ZERO * spread.variances.max(axis=1, keepdims=True)
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
    """Whether all participants' scores have one covariance and all pairs one; see `robust_contrast`."""
    there = np.asarray(of.cells.has.any(axis=2))
    at = there[:, :, None, None]
    spans = np.where(at, diagonal, -np.inf).max(axis=1) - np.where(at, diagonal, np.inf).min(axis=1)
    tolerance = EXCHANGEABLE * np.abs(diagonal).max(axis=(1, 2, 3))
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

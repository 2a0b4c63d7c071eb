"""Degrees of freedom of each voxel's cluster-robust variance, where participants may vary unequally.

A score's weights over N maps are those of the participant's own maps less what the coefficients of the design carry:
g_k = a_k − C_k B, with B of shape (P, N). Whatever is summed over pairs of participants has so few dimensions, and
nothing is as large as n × N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.linear_algebra import ZERO, Array, moore_penrose_root

# With many participants, eigenvalues of what they share that are left out, relative to what each has of their own: the
# voxels' degrees of freedom come out wrong by no more than three times this. Not 0.01, which designs can have exactly.
_NEGLIGIBLE_SHARE = 0.0091
_MANY_PARTICIPANTS = 100
# With more, matrices of participants by participants are not made: only the eigenvalues that count are looked for, in
# a Krylov space of so many blocks.
_ALL_PAIRS = 1000
_KRYLOV_BLOCKS, _KRYLOV_WIDTH = 4, 12


@dataclass(frozen=True)
class ParticipantSpread:
    """What the degrees of freedom of a voxel need of the design, where participants may vary unequally.

    With variances s_k of the participants (1 under the working model) the variance estimate has the degrees of freedom
    (ω′s)²/(s′Ts), which for s = 1 are those of the design. A participant's score tells s_k = |u_k|²/E|u_k|². With C
    the score's covariance s_k² is 1 + 2 tr(C²)/tr(C)² times too large on average, 3 times for a single contrast, and is
    divided by that in both places.
    """

    scale: Array  # (Q, Q): standardises scores: the variance is about the identity under the working model
    # What follows is to be multiplied with |u_k|² of the standardised scores, not yet divided by its expectation.
    share: Array  # (n,): ω, each participant's share in the variance
    share_excess: Array  # (n,): what squares of s_k add too much to (ω′s)²
    own: Array  # (n,): diagonal of T, divided by how much too large s_k² is
    # (R, n) and (R,): the rest of T is loadings′ diag(signs) loadings
    loadings: Array
    signs: Array
    # Several have a covariance of their own at each voxel, which the scores show: they are made orthonormal there, so
    # that nothing depends on the units of responses, or on which combinations of them are taken.
    n_responses: int = 1

    def degrees_of_freedom(self, scores: Array) -> Array:
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


def _orthonormal(responses: Array) -> Array:
    """Make R vectors of each voxel orthonormal, one after the other (Gram and Schmidt); of shape (R, K, V)."""
    found = responses.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for s in range(len(found)):
            found[s] /= np.sqrt(np.einsum("kv,kv->v", found[s], found[s]))
            for t in range(s + 1, len(found)):
                found[t] -= np.einsum("kv,kv->v", found[s], found[t]) * found[s]
    return found


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of the scores of n participants over N whitened rows, g_k = a_k − C_k B."""

    own: Array  # (Q, N): a: of each row in the scores of its own participant
    carried: Array  # (n, Q, P): C
    coefficients: Array  # (P, N): B
    variances: Array  # (n, Q, Q): of the scores under the working model, g_k g_k′
    # shape (g, K) each: rows of the participants, of all who have equally many together
    clusters: tuple[NDArray[np.int_], ...]
    members: tuple[NDArray[np.int_], ...]  # shape (g,) each: their numbers


def standardising_root(expected: Array) -> Array:
    """Compute the inverse root of an expected variance of shape (Q, Q), on the space where it is not zero."""
    return np.asarray(moore_penrose_root(expected / np.abs(expected).max()) / np.sqrt(np.abs(expected).max()))


def participant_spread(
    weights: ScoreWeights, expected: Array, n_responses: int, all_pairs: int = _ALL_PAIRS
) -> ParticipantSpread:
    """Prepare the degrees of freedom of voxels.

    Parameters
    ----------
    weights : ScoreWeights
    expected : ndarray of shape (Q, Q)
        The sum of the scores' variances.
    n_responses : int
    all_pairs : int
        With more participants, matrices of participants by participants are not made.
    """
    root = standardising_root(expected)
    pairs = _Pairs(root @ weights.own, root @ weights.carried, weights)
    own = pairs.own
    length = np.sqrt(np.where(own > ZERO * own.max(), own, np.inf))
    values, vectors = pairs.shared(length, all_pairs)
    finite = np.where(np.isfinite(length), length, 0.0)
    loadings = (vectors * np.sqrt(np.abs(values))).T * finite
    covariances = root @ weights.variances @ root.T
    variances = np.einsum("iss->i", covariances)
    carries = variances > ZERO * variances.max()
    inverse_expected = np.where(carries, 1 / np.where(carries, variances, 1.0), 0.0)
    squares = np.einsum("ist,ist->i", covariances, covariances)
    inflation = 1 + 2 * np.where(carries, squares / np.where(carries, variances, 1.0) ** 2, 1.0)
    share = pairs.share / len(root) * inverse_expected
    return ParticipantSpread(
        root, share, share**2 * (1 - 1 / inflation), own / inflation * inverse_expected**2,
        np.ascontiguousarray(loadings * inverse_expected), np.sign(values), n_responses=n_responses,
    )  # fmt: skip


class _Pairs:
    """T over pairs of participants, from w_st(m, p) = Σ_k g_sk(m) g_tk(p) for the rows m of one and p of another.

    T_ij = Σ_st Σ_mp w_st(m, p)² + w_st(m, p) w_ts(m, p). But for the product a_s(m) a_t(p) of two rows of one
    participant, w_st(m, p) = x_st(m)′ J_st x_ts(p), with x_st(m) = (a_s(m) C_t, B(m)) of the participant of m, and
    J_st = [[0, −I], [−I, Σ_k C_sk C_tk′]].
    """

    def __init__(self, own: Array, carried: Array, weights: ScoreWeights) -> None:
        q, n_rows = own.shape
        p = carried.shape[2]
        self._q, self._n = q, len(carried)
        owners = np.empty(n_rows, dtype=np.intp)
        for rows, members in zip(weights.clusters, weights.members, strict=True):
            owners[rows] = members[:, None]
        self._memberships = sparse.csr_array((np.ones(n_rows), (np.arange(n_rows), owners)), shape=(n_rows, self._n))
        self._x = np.empty((q, q, n_rows, 2 * p))
        self._x[..., :p] = own[:, None, :, None] * carried[owners].transpose(1, 0, 2)[None]
        self._x[..., p:] = weights.coefficients.T
        among = np.einsum("ksp,ktq->stpq", carried, carried)
        self._j = np.zeros((q, q, 2 * p, 2 * p))
        self._j[..., :p, p:] = self._j[..., p:, :p] = -np.eye(p)
        self._j[..., p:, p:] = among
        self.own, self._left_out, self.share = (np.zeros(self._n) for _ in range(3))
        for rows, members in zip(weights.clusters, weights.members, strict=True):
            x = self._x[:, :, rows]  # s, t, g, k, 2p
            w = np.einsum("stgmp,stpq,tsgnq->gsmtn", x, self._j, x, optimize=True)
            self._left_out[members] = _squares(w)
            # Σ_k g_sk(m)², at the participant's own rows
            whole = w + np.einsum("sgm,tgn->gsmtn", own[:, rows], own[:, rows])
            self.own[members] = _squares(whole)
            self.share[members] = np.einsum("gsmsm->g", whole)

    def shared(self, length: Array, all_pairs: int) -> tuple[Array, Array]:
        """Find the eigenvalues that count, and vectors of shape (n, R), of T without diagonal over lengths of both."""
        if self._n <= all_pairs:
            values, vectors = linalg.eigh(self._relative(length, np.eye(self._n)))
            kept = np.abs(values) > (_NEGLIGIBLE_SHARE if self._n > _MANY_PARTICIPANTS else ZERO)
            return values[kept], vectors[:, kept]
        width = _KRYLOV_WIDTH
        while True:
            blocks = [np.random.default_rng(0).standard_normal((self._n, width))]
            while len(blocks) < _KRYLOV_BLOCKS:
                blocks.append(self._relative(length, linalg.qr(blocks[-1], mode="economic")[0]))
            basis = linalg.qr(np.hstack(blocks), mode="economic")[0]
            values, vectors = linalg.eigh(basis.T @ self._relative(length, basis))
            kept = np.abs(values) > _NEGLIGIBLE_SHARE
            if kept.sum() < width:
                return values[kept], basis @ vectors[:, kept]
            width *= 2

    def _relative(self, length: Array, vectors: Array) -> Array:
        """Multiply vectors of shape (n, K) with T without diagonal, relative to the lengths of both."""
        scaled = vectors / length[:, None]
        found = -self._left_out[:, None] * scaled
        for s, t in np.ndindex(self._q, self._q):
            x, other = self._x[s, t], self._x[t, s]
            for first, second, j in ((x, other, self._j[s, t]), (other, x, self._j[t, s])):
                middle = np.kron(self._j[s, t], j)
                found += self._products(x, first) @ (middle @ (self._products(other, second).T @ scaled))
        return np.asarray(found / length[:, None])

    def _products(self, first: Array, second: Array) -> Array:
        """Sum the products of every two columns over the rows of each participant, of shape (n, 4 P²)."""
        products = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
        return np.asarray(self._memberships.T @ products)


def _squares(w: Array) -> Array:
    return np.asarray(np.einsum("gsmtn,gsmtn->g", w, w) + np.einsum("gsmtn,gtmsn->g", w, w))

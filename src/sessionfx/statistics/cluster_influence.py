"""Cluster-robust contrasts without each participant, from what all participants have together.

The working covariance stays that of all. With an orthonormal basis B of the whitened design, whose rows B_i are those
of participant i, the normal equations without i are I − B_i′B_i: a small matrix for each participant, from which
estimate, CR2 errors and the degrees of freedom of the design follow exactly. Participants with the same design and
working covariance are of one kind: without any of them the contrast is the same but for who is missing.

How unequally participants vary gives each voxel degrees of freedom of its own (`ParticipantSpread`), from how pairs of
participants share in the contrast. Of participants with little leverage that is taken from all participants: one of
them hardly changes it (docs/influence.md). There are never more than R / `_LITTLE_LEVERAGE` others.

Shapes: N maps, n participants, K kinds of them, S maps of one at most, R the design's rank, Q contrasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sessionfx.statistics.cluster_robust import ALL_SEEN, ENOUGH_DOF, EXCHANGEABLE, RobustContrast, whiten
from sessionfx.statistics.linear_algebra import (
    ZERO,
    Array,
    column_basis,
    membership_matrix,
    moore_penrose_root,
    pseudo_inverse,
    repeated_blocks,
)
from sessionfx.statistics.participant_spread import (
    ParticipantSpread,
    ScoreWeights,
    participant_spread,
    standardising_root,
)

# An eigenvalue of I − B_i′B_i below which the design needs the participant
_ALONE = 1e-9
# Leverage in any direction up to which pairs are taken from all participants
_LITTLE_LEVERAGE = 0.02
# See `participant_spread`; here it is made many times
_ALL_PAIRS = 200
# Norm of H below which (I − H)^-½ is the sum of its first powers, to rounding
_SMALL_NORM = 0.1
_SMALLEST_TERM = 1e-17


class _Left(NamedTuple):
    """The contrast without one participant of a kind: of each other kind, and as a whole."""

    inverse: Array  # (R, R)
    own: Array  # weights of whitened rows in their participant's scores (K, S, Q)
    carried: Array  # (K, Q, R)
    dof: float
    expected: Array  # (Q, Q)
    seen: float
    spread: ParticipantSpread | None
    number: int  # of the participant


class ClustersLeftOut:
    """A contrast over the coefficients of a design, ready to be estimated without each participant.

    Parameters
    ----------
    whole : RobustContrast
        With all participants.
    design : ndarray of shape (N, P)
    participants : sequence of N str
    contrast : ndarray of shape (P,) or (Q, P)
    working : (ndarray of shape (n,), ndarray of shape (n,))
        Of each participant: variance between over variance within, and variance within; see `robust_contrast`.
    n_responses : int, default=1
    """

    def __init__(
        self,
        whole: RobustContrast,
        design: Array,
        participants: Sequence[str],
        contrast: Array,
        working: tuple[Array, Array],
        *,
        n_responses: int = 1,
    ) -> None:
        owners = membership_matrix(participants).indices
        counts = np.bincount(owners)
        white = repeated_blocks(whiten(owners, *working, design), n_responses)
        basis = column_basis(white)
        self._whole, self._n_responses, self._owners = whole, n_responses, np.tile(owners, n_responses)
        self._contrast = repeated_blocks(np.atleast_2d(contrast), n_responses) @ pseudo_inverse(white) @ basis
        # rows of each participant, response by response, with room for as many as anybody has; -1 where there is none
        order = np.argsort(owners, kind="stable")
        places = np.full((len(counts), counts.max()), -1)
        places[owners[order], np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)] = order
        of_responses = [np.where(places < 0, -1, places + response * len(owners)) for response in range(n_responses)]
        self._rows = np.concatenate(of_responses, axis=1)
        kinds = np.column_stack([np.where(places[..., None] < 0, 0.0, design[places]).reshape(len(counts), -1),
                                 places < 0, *working])  # fmt: skip
        _, first, kind = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        self._kind = kind.ravel()
        self._counts = np.bincount(self._kind).astype(float)
        self._basis = np.where((self._rows[first] < 0)[..., None], 0.0, basis[self._rows[first]])
        self._ratios, self._scales = (each[first] for each in working)
        self._sizes = counts[first]
        self._coefficients = self._of_maps(self._basis)[self._kind][self._rows >= 0].T  # as `_in_order`
        self._in_order = self._rows[self._rows >= 0]
        self._indptr = np.concatenate([[0], np.cumsum(np.tile((self._rows >= 0).sum(axis=1), len(self._contrast)))])
        self._known: dict[int, _Left | None] = {}

    def without(self, number: int) -> RobustContrast | None:
        """Prepare the contrast without a participant; all maps are given to it, and those of this one count nothing.

        Parameters
        ----------
        number : int
            Of the participant, as they first appear.

        Returns
        -------
        RobustContrast or None
            None where the others cannot answer, or only by another design.
        """
        kind = int(self._kind[number])
        left = self._known[kind] if kind in self._known else self._left(kind, number)
        if self._counts[kind] > 1:
            self._known[kind] = left
        if left is None:
            return None
        there, q = self._rows >= 0, len(self._contrast)
        truth = self._contrast @ left.inverse @ self._contrast.T
        others = self._owners[self._in_order] != number
        coefficients = np.zeros((len(left.inverse), len(self._owners)))
        coefficients[:, self._in_order] = (left.inverse @ self._coefficients) * others
        own = np.moveaxis(self._of_maps(left.own)[self._kind], 2, 0)[:, there] * others
        carried = left.carried[self._kind]
        carried[number] = 0.0
        return RobustContrast(
            weights=self._contrast @ coefficients,
            own=sparse.csr_array((own.ravel(), np.tile(self._in_order, q), self._indptr),
                                 shape=(q * len(there), len(self._owners))),
            carried=np.moveaxis(carried, 1, 0).reshape(q * len(there), -1),
            coefficients=coefficients,
            towards_null=left.inverse @ self._contrast.T @ linalg.pinv(truth),
            dof=left.dof,
            expected=left.expected,
            seen=left.seen,
            spread=_exchanged(left, number),
        )  # fmt: skip

    def _of_maps(self, columns: Array) -> Array:
        """Turn weights of whitened rows of kinds, of shape (K, S, …), into weights of the maps."""
        k, _, width = columns.shape
        apart = columns.reshape(k, self._n_responses, -1, width)
        taken = (1 - 1 / np.sqrt(1 + self._ratios * self._sizes)) / self._sizes
        found = apart - taken[:, None, None, None] * apart.sum(axis=2, keepdims=True)
        return np.asarray((found / np.sqrt(self._scales)[:, None, None, None]).reshape(columns.shape))

    def _left(self, kind: int, number: int) -> _Left | None:
        """Prepare the contrast without one participant of a kind."""
        own = self._basis[kind]
        eigenvalues, vectors = linalg.eigh(np.eye(own.shape[1]) - own.T @ own)
        if eigenvalues[0] < _ALONE:
            return None
        inverse = (vectors / eigenvalues) @ vectors.T
        counts = self._counts.copy()
        counts[kind] -= 1
        weights, variances = _adjusted(self._basis, inverse, self._contrast)
        carried = np.matmul(weights.transpose(0, 2, 1), self._basis)
        expected = np.einsum("k,kqr->qr", counts, variances)
        truth = self._contrast @ inverse @ self._contrast.T
        root = moore_penrose_root(truth / np.abs(truth).max())
        seen = float(linalg.eigvalsh(root @ expected @ root / np.abs(truth).max())[0])
        if seen < ALL_SEEN:
            return None
        dof = _degrees_of_freedom(carried, variances, inverse, counts, expected)
        if not dof - len(self._contrast) + 1 >= ENOUGH_DOF:
            return None
        spread = self._whole.spread
        if spread is not None and _are_exchangeable(carried, variances, inverse, counts, expected):
            spread = None
        if spread is not None and 1 - eigenvalues[0] > _LITTLE_LEVERAGE:
            spread = self._spread(number, inverse, weights, carried, variances, expected)
        return _Left(
            inverse=inverse, own=weights, carried=carried, dof=dof, expected=expected, seen=seen, spread=spread,
            number=number,
        )  # fmt: skip

    def _spread(
        self, number: int, inverse: Array, weights: Array, carried: Array, variances: Array, expected: Array
    ) -> ParticipantSpread:  # fmt: skip
        """Find what degrees of freedom of voxels need, without a participant; all others have their places."""
        kept = np.arange(len(self._kind)) != number
        of_kept, there = self._kind[kept], self._rows[kept] >= 0
        numbers = np.cumsum(there.ravel()).reshape(there.shape) - 1
        sizes = there.sum(axis=1)
        members = [np.nonzero(sizes == size)[0] for size in np.unique(sizes)]
        spread = participant_spread(
            ScoreWeights(
                own=np.moveaxis(weights[of_kept], 2, 0)[:, there],
                carried=carried[of_kept],
                coefficients=inverse @ self._basis[of_kept][there].T,
                variances=variances[of_kept],
                clusters=tuple(numbers[of_size][there[of_size]].reshape(len(of_size), -1) for of_size in members),
                members=tuple(members),
            ),
            expected,
            self._n_responses,
            _ALL_PAIRS,
        )
        at = min(number, len(of_kept))
        return replace(
            spread, share=np.insert(spread.share, at, 0.0), share_excess=np.insert(spread.share_excess, at, 0.0),
            own=np.insert(spread.own, at, 0.0), loadings=np.insert(spread.loadings, at, 0.0, axis=1),
        )  # fmt: skip


def _exchanged(left: _Left, number: int) -> ParticipantSpread | None:
    """Give the pairs without a participant, from those without another one of the kind."""
    if left.spread is None or number == left.number:
        return left.spread
    order = np.arange(len(left.spread.share))
    order[[number, left.number]] = order[[left.number, number]]
    parts = {name: getattr(left.spread, name)[..., order] for name in ("share", "share_excess", "own", "loadings")}
    return replace(left.spread, **parts)


def _adjusted(basis: Array, inverse: Array, contrast: Array) -> tuple[Array, Array]:
    """Find weights of rows in the participants' scores with the CR2 adjustment, (I − H)^-½, and the scores' variances.

    Returns
    -------
    weights : ndarray of shape (K, S, Q)
    variances : ndarray of shape (K, Q, Q)
    """
    hat = np.matmul(basis @ inverse, basis.transpose(0, 2, 1))
    weights = basis @ (inverse @ contrast.T)
    variances = np.matmul(weights.transpose(0, 2, 1), weights)
    norms = np.sqrt(np.einsum("kst,kst->k", hat, hat))
    small = norms <= _SMALL_NORM
    found = weights.copy()
    largest, term, factor, power = norms[small].max(initial=0.0), weights[small], 1.0, 1
    while largest**power > _SMALLEST_TERM:
        # (1 − h)^-½ = Σ (2m)! / (4^m m!²) h^m
        factor *= (2 * power - 1) / (2 * power)
        term = np.matmul(hat[small], term)
        found[small] += factor * term
        power += 1
    eigenvalues, vectors = np.linalg.eigh(np.eye(hat.shape[1]) - hat[~small])
    seen = eigenvalues > ZERO
    turned = np.where(seen[..., None], np.matmul(vectors.transpose(0, 2, 1), weights[~small]), 0.0)
    found[~small] = np.matmul(vectors, turned / np.sqrt(np.where(seen, eigenvalues, 1.0))[..., None])
    variances[~small] = np.matmul(turned.transpose(0, 2, 1), turned)
    return found, variances


def _degrees_of_freedom(carried: Array, variances: Array, inverse: Array, counts: Array, expected: Array) -> float:
    """Find η of the design as `cluster_robust` does, from kinds of participants and how many each has."""
    q = len(expected)
    root = standardising_root(expected)
    b, diagonal = root @ carried, root @ variances @ root.T
    shared = b @ inverse @ b.transpose(0, 2, 1)
    both = np.einsum("k,kqp,krs->qrps", counts, b, b, optimize=True)
    half = np.einsum("pt,qrts->qrps", inverse, both)
    total = np.einsum("qrps,rqsp->", half, half) + np.einsum("qrps,qrsp->", half, half)
    trace_own, trace_shared = np.einsum("kqq->k", diagonal), np.einsum("kqq->k", shared)
    total += counts @ (trace_own**2 - trace_shared**2)
    total += counts @ (np.einsum("kqr,kqr->k", diagonal, diagonal) - np.einsum("kqr,kqr->k", shared, shared))
    return float(q * (q + 1) / total)


def _are_exchangeable(carried: Array, variances: Array, inverse: Array, counts: Array, expected: Array) -> bool:
    """Whether all participants' scores have one variance and all pairs one covariance, as in `cluster_robust`."""
    there = counts > 0
    root = standardising_root(expected)
    own = (root @ variances @ root.T)[there]
    tolerance = EXCHANGEABLE * np.abs(own).max()
    if np.ptp(own, axis=0).max() > tolerance:
        return False
    b = root @ carried[there]
    pairs = np.einsum("iqp,pt,jrt->qrij", b, inverse, b, optimize=True)
    is_pair: NDArray[np.bool_] = ~np.eye(len(b), dtype=bool) | (counts[there] > 1)
    spans = np.ptp(pairs[..., is_pair], axis=-1) if is_pair.any() else np.zeros(1)
    return bool(spans.max() <= tolerance)

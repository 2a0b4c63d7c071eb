"""Matrices with a row and a column for each map, and nothing between participants: a small block for each of them.

A study has thousands of maps, of which a matrix would not fit into memory; a participant has a few.

Shapes: N maps, n participants, m maps of the participant who has most, V voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.statistics.linear_algebra import Array

# Of the largest eigenvalue; what is smaller is rounding
_RANK = 1e-9


@dataclass(frozen=True)
class ParticipantBlocks:
    """A symmetric matrix of shape (N, N), or a product of such."""

    rows: NDArray[np.intp]  # (n, m): maps of each participant
    is_row: NDArray[np.bool_]  # (n, m): False where a participant has fewer than m
    values: Array  # (n, m, m): zeros where a participant has fewer

    @classmethod
    def identity(cls, owners: NDArray[np.int_]) -> ParticipantBlocks:
        """Make the identity; owners, of shape (N,), say whose each map is, from 0."""
        counts = np.bincount(owners)
        is_row = np.arange(counts.max()) < counts[:, None]
        rows: NDArray[np.intp] = np.zeros(is_row.shape, dtype=np.intp)
        rows[is_row] = np.argsort(owners, kind="stable")
        return cls(rows, is_row, np.eye(int(counts.max())) * (is_row[:, :, None] & is_row[:, None, :]))

    @classmethod
    def of_sessions(cls, owners: NDArray[np.int_], places: NDArray[np.int_], covariance: Array) -> ParticipantBlocks:
        """Give all participants the same (S, S) values, of which a map at session s has row and column s."""
        blocks = cls.identity(owners)
        of_map = places[blocks.rows]
        return blocks.with_values(covariance[of_map[:, :, None], of_map[:, None, :]])

    @property
    def n_maps(self) -> int:
        """N."""
        return int(self.is_row.sum())

    @property
    def is_entry(self) -> NDArray[np.bool_]:
        """Which values are of maps, of shape (n, m, m)."""
        return self.is_row[:, :, None] & self.is_row[:, None, :]

    @property
    def trace(self) -> float:
        """Sum of the diagonal."""
        return float(np.einsum("nmm->", self.values))

    def with_values(self, values: Array) -> ParticipantBlocks:
        """Give a matrix of the same participants these blocks, of which what is of no map does not count."""
        return replace(self, values=np.where(self.is_entry, values, 0.0))

    def cut(self, matrix: Array) -> Array:
        """Cut a matrix of shape (N, K) into participants' rows, (n, m, K)."""
        return np.where(self.is_row[:, :, None], matrix[self.rows], 0.0)

    def own(self, participant: int) -> tuple[NDArray[np.intp], Array]:
        """Give a participant's rows and block."""
        of = self.is_row[participant]
        return self.rows[participant, of], self.values[participant][np.ix_(of, of)]

    def products(self, maps: Array, scale: Array | None = None) -> ParticipantBlocks:
        """Average products of a participant's maps, of shape (N, V), over voxels, each divided by its scale, (V,)."""
        found = np.zeros_like(self.values)
        for participant, of in enumerate(self.is_row):
            own = maps[self.rows[participant, of]]
            if scale is not None:
                own /= scale
            found[participant][np.ix_(of, of)] = own @ own.T / maps.shape[1]
        return replace(self, values=found)

    def times(self, maps: Array, out: Array | None = None) -> Array:
        """Multiply with maps of shape (N, V), in place where they are the output."""
        found = np.empty_like(maps) if out is None else out
        for participant in range(len(self.rows)):
            rows, block = self.own(participant)
            found[rows] = block @ maps[rows]
        return found

    def quadratic(self, weights: Array) -> Array:
        """Compute W C W' of weights of shape (Q, N)."""
        own = self.cut(weights.T)
        return np.asarray(np.einsum("nmq,nmk,nkp->qp", own, self.values, own, optimize=True))

    def root(self, *, inverse: bool = False) -> ParticipantBlocks:
        """Compute the symmetric square root, or its Moore–Penrose inverse; negative eigenvalues count as zero."""
        eigenvalues, vectors = np.linalg.eigh(self.values)
        roots = _roots(eigenvalues, inverse=inverse)
        return replace(self, values=(vectors * roots[:, None, :]) @ vectors.transpose(0, 2, 1))

    def whitened(self, matrix: Array) -> Array:
        """Multiply a matrix of shape (N, K) with the inverse of the Cholesky factor.

        Raises
        ------
        LinAlgError
            If the blocks are not positive definite.
        """
        padded = self.values + np.eye(self.rows.shape[1]) * ~self.is_row[:, :, None]
        found = np.empty_like(matrix)
        found[self.rows[self.is_row]] = np.linalg.solve(np.linalg.cholesky(padded), self.cut(matrix))[self.is_row]
        return found


def symmetric_root(matrix: Array, *, inverse: bool = False) -> Array:
    """Compute the root of one matrix; see `ParticipantBlocks.root`."""
    eigenvalues, vectors = linalg.eigh(matrix)
    return np.asarray((vectors * _roots(eigenvalues, inverse=inverse)) @ vectors.T)


def _roots(eigenvalues: Array, *, inverse: bool) -> Array:
    kept = eigenvalues > _RANK * max(float(eigenvalues.max(initial=0.0)), 0.0)
    roots = np.sqrt(np.where(kept, eigenvalues, 1.0))
    return np.where(kept, 1 / roots if inverse else roots, 0.0)

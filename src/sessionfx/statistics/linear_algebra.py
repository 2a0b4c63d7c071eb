"""Rank, independent columns and estimability of design matrices: one rule, whatever the units of the columns.

The rule
--------
Columns are scaled to unit length. From left to right, a column counts when more than `TOLERANCE` of its length is left
once the columns that count before it are taken out. The rank is the number of columns that count; row space and
inverse are those of as many singular vectors. No function has a threshold of its own: what one takes for determined
another must not take for redundant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Array = NDArray[np.float64]

# What rounding leaves of a dependent column is below 1e-12 in designs of this size; an effect that hangs on a ten
# millionth of a regressor would multiply the noise by as much.
TOLERANCE = 1e-7
# The row space of a column that is dependent but for the tolerance is known to a few times as much.
_ROW_SPACE_TOLERANCE = 10 * TOLERANCE
# Eigenvalues below this are zero: of I − H_ii, that of a participant whose rows the design explains fully.
ZERO = 1e-10
_EPSILON = float(np.finfo(float).eps)
# A covariance whose correlations have a larger condition number is singular.
_LARGEST_CONDITION = 1e10


def scale_columns(design: Array) -> tuple[Array, Array]:
    """Scale columns to unit length, so that rank does not depend on units (mm against squared mm).

    Parameters
    ----------
    design : ndarray of shape (N, P)

    Returns
    -------
    scaled : ndarray of shape (N, P)
    lengths : ndarray of shape (P,)
        1 for a column of zeros.
    """
    lengths = np.sqrt((design**2).sum(axis=0))
    lengths[lengths == 0] = 1.0
    return design / lengths, lengths


def rank_of(design: Array) -> int:
    """Rank of a design matrix of shape (N, P)."""
    return len(independent_columns(design))


def independent_columns(design: Array) -> list[int]:
    """Choose a full-rank set of columns: each one that the columns before it do not explain.

    Parameters
    ----------
    design : ndarray of shape (N, P)

    Returns
    -------
    list of int
        As many as the rank, in order.
    """
    n_rows, n_columns = design.shape
    if 0 in design.shape:
        return []
    scaled, _ = scale_columns(design)
    if n_columns <= n_rows:
        # the lengths that are left are the diagonal of R; after a dependent column they mean nothing
        (triangle,) = linalg.qr(scaled, mode="r")
        if np.abs(np.diag(triangle)).min() > TOLERANCE:
            return list(range(n_columns))
    basis = np.empty((min(n_rows, n_columns), n_rows))
    kept: list[int] = []
    for index in range(n_columns):
        if len(kept) == n_rows:
            break
        found = basis[: len(kept)]
        rest = scaled[:, index] - (found @ scaled[:, index]) @ found
        rest -= (found @ rest) @ found  # twice is enough (Parlett 1998, §6-9)
        length = np.linalg.norm(rest)
        if length > TOLERANCE:
            basis[len(kept)] = rest / length
            kept.append(index)
    return kept


def pseudo_inverse(design: Array) -> Array:
    """Moore–Penrose inverse of shape (P, N), at the rank of `rank_of`."""
    scaled, lengths = scale_columns(design)
    left, singular_values, right = _singular_vectors(design, scaled)
    inverse: Array = ((left / singular_values) @ right).T / lengths[:, None]
    return inverse


def column_basis(design: Array) -> Array:
    """Orthonormal basis of what the columns span, of shape (N, R)."""
    if not design.size:
        return np.empty((len(design), 0))
    return np.ascontiguousarray(_singular_vectors(design, scale_columns(design)[0])[0])


def repeated_blocks(matrix: Array, times: int) -> Array:
    """Put a matrix on the diagonal of a larger one, several times: ``I ⊗ matrix``; itself for one time."""
    return np.asarray(np.kron(np.eye(times), matrix), dtype=np.float64) if times > 1 else matrix


def is_estimable(design: Array, contrast: Array) -> bool:
    """Whether the data determine a contrast: it is a combination of the design's rows.

    Parameters
    ----------
    design : ndarray of shape (N, P)
    contrast : ndarray of shape (P,)

    Notes
    -----
    c is estimable when c = c X⁺ X (Searle 1971, Linear Models, §5.4); columns are scaled first.
    """
    scaled, lengths = scale_columns(design)
    wanted = contrast / lengths
    rows = _singular_vectors(design, scaled)[2]
    left = wanted - (wanted @ rows.T) @ rows
    return bool(np.abs(left).max(initial=0.0) <= _ROW_SPACE_TOLERANCE * np.abs(wanted).max(initial=1e-300))


def _singular_vectors(design: Array, scaled: Array) -> tuple[Array, Array, Array]:
    """Give the R singular vectors and values of the scaled design, of shapes (N, R), (R,) and (R, P)."""
    rank = rank_of(design)
    left, values, right = linalg.svd(scaled, full_matrices=False)
    return left[:, :rank], values[:rank], right[:rank]


def membership_matrix(participants: Sequence[str]) -> sparse.csr_array:
    """Say whose map each of N rows is, by ones in a matrix of shape (N, n); participants as they first appear."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(participants))}
    columns = np.array([numbers[label] for label in participants], dtype=np.intp)
    n_rows = len(columns)
    return sparse.csr_array((np.ones(n_rows), (np.arange(n_rows), columns)), shape=(n_rows, len(numbers)))


def quadratic_form(effects: Array, covariance: Array) -> Array:
    """Compute ĉ′V⁻¹ĉ at every voxel.

    Parameters
    ----------
    effects : ndarray of shape (Q, V)
    covariance : ndarray of shape (V, Q, Q)

    Returns
    -------
    ndarray of shape (V,)
        NaN where V is singular.
    """
    scale = np.sqrt(np.einsum("vss->vs", covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariance / scale[:, :, None] / scale[:, None, :]
        standard = effects.T / scale
    found = np.full(effects.shape[1], np.nan)
    usable = np.isfinite(correlation).all(axis=(1, 2)) & np.isfinite(standard).all(axis=1)
    usable[usable] &= np.linalg.cond(correlation[usable]) < _LARGEST_CONDITION
    solved = np.linalg.solve(correlation[usable], standard[usable][:, :, None])[:, :, 0]
    found[usable] = np.einsum("vs,vs->v", standard[usable], solved)
    return found


def rounding_of(squares: Array, n_values: float | Array) -> Array:
    """Say what rounding may leave of a sum of squares of so many values: what is not above it is no variation."""
    return np.asarray((_EPSILON * n_values) ** 2 * squares)


def moore_penrose_root(matrix: Array) -> Array:
    """Compute M^-½ of a symmetric matrix with eigenvalues from 0 to 1, on the space where it is not zero."""
    eigenvalues, vectors = linalg.eigh(matrix)
    kept = eigenvalues > ZERO
    return np.asarray((vectors[:, kept] / np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)


def log_determinant(matrix: Array) -> Array:
    """Compute the logarithm of the determinant of many symmetric matrices, by elimination.

    Parameters
    ----------
    matrix : ndarray of shape (Q, Q, …)
        With eigenvalues that are not negative, but for rounding.

    Returns
    -------
    ndarray of the further shape
        Minus infinity where a matrix is singular.
    """
    left = matrix.copy()
    found = np.zeros(matrix.shape[2:])
    for s in range(len(left)):
        pivot, least = left[s, s], matrix[s, s] / _LARGEST_CONDITION
        is_regular = pivot > least
        with np.errstate(divide="ignore"):
            found += np.log(np.where(is_regular, pivot, 0.0))
        for t in range(s + 1, len(left)):
            ratio = np.divide(left[t, s], pivot, where=is_regular, out=np.zeros_like(pivot))
            for u in range(t, len(left)):
                left[u, t] -= ratio * left[u, s]
    return found

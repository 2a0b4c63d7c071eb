"""Rank, independent columns and estimability of design matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

# Relative to the largest singular value of the design with columns scaled to unit length.
RANK_TOLERANCE = 1e-8
ESTIMABILITY_TOLERANCE = 1e-6
# Length that must remain of a unit column when the columns before it are taken out; what rounding leaves of a
# dependent column is below 1e-12 in designs of this size.
INDEPENDENCE_TOLERANCE = 1e-7


def scale_columns(design: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def rank_of(design: NDArray[np.float64]) -> int:
    """Rank of a design matrix of shape (N, P), whatever the units of its columns."""
    if 0 in design.shape:
        return 0
    singular_values = linalg.svdvals(scale_columns(design)[0])
    return int((singular_values > RANK_TOLERANCE * singular_values[0]).sum()) if singular_values[0] > 0 else 0


def independent_columns(design: NDArray[np.float64]) -> list[int]:
    """Choose a full-rank set of columns: each one that the columns before it do not explain.

    Parameters
    ----------
    design : ndarray of shape (N, P)

    Returns
    -------
    list of int
        As many as the rank, in order.
    """
    scaled, _ = scale_columns(design)
    basis = np.empty((design.shape[0], 0))
    kept = []
    for index in range(scaled.shape[1]):
        rest = scaled[:, index] - basis @ (basis.T @ scaled[:, index])
        rest -= basis @ (basis.T @ rest)  # twice is enough (Parlett 1998, §6-9)
        length = np.linalg.norm(rest)
        if length > INDEPENDENCE_TOLERANCE:
            basis = np.column_stack([basis, rest / length])
            kept.append(index)
    return kept


def pseudo_inverse(design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moore–Penrose inverse of shape (P, N), at the rank of `rank_of`."""
    scaled, lengths = scale_columns(design)
    inverse: NDArray[np.float64] = linalg.pinv(scaled, rtol=RANK_TOLERANCE) / lengths[:, None]
    return inverse


def is_estimable(design: NDArray[np.float64], contrast: NDArray[np.float64]) -> bool:
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
    projected = wanted @ linalg.pinv(scaled, rtol=RANK_TOLERANCE) @ scaled
    return bool(
        np.abs(projected - wanted).max(initial=0.0) <= ESTIMABILITY_TOLERANCE * np.abs(wanted).max(initial=1e-300)
    )

"""Which maps to learn from where no voxel is in all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.strategies.base import MapLayout

# Of the answered voxels, that core maps share at least: some thousand voxels are plenty for what is learned from them,
# and every map that is left out may be one of a session or group that is then not seen
LEAST_COMMON = 0.1
SEEN_VOXELS = 2_000  # on which core maps are chosen


def core_maps(has: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Choose maps that have enough voxels in common.

    Maps are left out one by one, until those that remain share a tenth of the voxels: always the map that most voxels
    lack, where a voxel that m maps lack counts 1/m. So a short map goes before the others, and all maps of a session
    with a field of view of its own go before some of each.

    Parameters
    ----------
    has : ndarray of bool, shape (N, V)
        Which maps have which of the answered voxels.

    Returns
    -------
    ndarray of int
        Rows of the maps, in order.
    """
    lacks = (~has).astype(np.float32)
    n_lacking = lacks.sum(axis=0)
    is_core = np.ones(len(has), dtype=bool)
    while (n_lacking == 0).mean() < LEAST_COMMON:
        shares = np.divide(1.0, n_lacking, where=n_lacking > 0, out=np.zeros_like(n_lacking))
        worst = int(np.argmax(np.where(is_core, lacks @ shares, -1.0)))
        is_core[worst] = False
        n_lacking -= lacks[worst]
    return np.flatnonzero(is_core)


def maps_in_words(layout: MapLayout, rows: NDArray[np.intp]) -> list[str]:
    """Name some maps: whole sessions and participants, and maps of the others."""
    chosen = set(rows.tolist())
    whole: set[int] = set()
    names: list[str] = []
    for prefix, labels in (("ses", layout.sessions), ("sub", layout.participants)):
        for label in dict.fromkeys(labels):
            own = {row for row, found in enumerate(labels) if found == label}
            if label and own <= chosen and not own <= whole:
                whole |= own
                names.append(f"{prefix}-{label}")
    every = layout.row_names()
    return names + [every[row] for row in sorted(chosen - whole)]

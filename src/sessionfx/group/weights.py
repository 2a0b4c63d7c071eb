"""How much each participant counts at each voxel in an answer that counts outlying participants less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies.base import Plan
from sessionfx.group.strategies.blocks import as_block

_HALF = 50  # percent
# Of more participants, weights at each voxel are not kept: a map of them all would take more memory than the analysis
MOST_KEPT = 200


@dataclass(frozen=True)
class ParticipantWeights:
    """Weights of participants in one answer.

    Attributes
    ----------
    participants : tuple of n str
        `sub-01`, in the order of the design's rows.
    smallest : ndarray of shape (V,)
        Weight of the participant who counts least, in percent, at the voxels of the answer.
    n_below_half : ndarray of shape (V,)
        Participants who count less than half.
    means : dict of str to float
        Mean weight of each participant over voxels, in percent.
    percent : ndarray of uint8, shape (n, V), or None
        100 where a participant counts fully; None of more than `MOST_KEPT` participants.
    """

    participants: tuple[str, ...]
    smallest: NDArray[np.float64]
    n_below_half: NDArray[np.float64]
    means: dict[str, float]
    percent: NDArray[np.uint8] | None


def weigh_participants(
    plan: Plan, stack: MapStack, mask: NDArray[np.bool_], map_ordered: MapOrdered
) -> ParticipantWeights:
    """Find the weights at the voxels of an answer, whose 3-D mask is given, block by block."""
    blocks = (stack.handed_out(block, with_variances=plan.uses_variances) for block in stack.blocks)
    names, chosen, start = plan.participant_names, mask[stack.mask], 0
    smallest, n_below_half, kept = [], [], []
    total = np.zeros(len(names))
    for found in map_ordered(partial(percent_of, plan), blocks):
        percent = found[:, chosen[start : start + found.shape[1]]]
        start += found.shape[1]
        smallest.append(percent.min(axis=0))
        n_below_half.append((percent < _HALF).sum(axis=0))
        total += percent.sum(axis=1)
        if len(names) <= MOST_KEPT:
            kept.append(percent)
    means = total / np.count_nonzero(chosen)
    return ParticipantWeights(
        participants=names,
        smallest=np.concatenate(smallest).astype(float),
        n_below_half=np.concatenate(n_below_half).astype(float),
        means=dict(zip(names, means.round(2).tolist(), strict=True)),
        percent=np.concatenate(kept, axis=1) if kept else None,
    )


def percent_of(plan: Plan, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> NDArray[np.uint8]:
    """Find the weights in a block, in percent; a function of a module travels to other processes."""
    weights = plan.participant_weights(as_block(effects), None if variances is None else as_block(variances))
    return np.rint(100 * weights).astype(np.uint8)

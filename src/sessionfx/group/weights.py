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
from sessionfx.group.strategies.patterns import PatternPlan

_HALF = 50  # percent
# Of more participants, weights at each voxel are not kept: a map of them all would take more memory than the analysis
MOST_KEPT = 200


@dataclass(frozen=True)
class ParticipantWeights:
    """Weights of participants in one answer."""

    participants: tuple[str, ...]  # n of them: `sub-01`, in the order of the design's rows
    # (V,): weight of the participant who counts least, in percent, at the voxels of the answer
    smallest: NDArray[np.float64]
    n_below_half: NDArray[np.float64]  # (V,): participants who count less than half
    means: dict[str, float]  # mean weight of each participant over the voxels where they take part, in percent
    # (n, V): 100 where a participant counts fully, 0 where one takes no part; None of more than `MOST_KEPT`
    # participants
    percent: NDArray[np.uint8] | None
    are_all_everywhere: bool = True  # whether every participant takes part at every voxel


def weigh_participants(
    plan: Plan | PatternPlan, stack: MapStack, mask: NDArray[np.bool_], map_ordered: MapOrdered
) -> ParticipantWeights:
    """Find the weights at the voxels of an answer, whose 3-D mask is given, block by block."""
    blocks = (stack.handed_out(block, with_variances=plan.uses_variances) for block in stack.blocks)
    names, chosen, start = plan.participant_names, mask[stack.mask], 0
    smallest, n_below_half, kept = [], [], []
    total, n_voxels = np.zeros(len(names)), np.zeros(len(names), dtype=int)
    for found, parts in map_ordered(partial(percent_of, plan), blocks):
        here = chosen[start : start + found.shape[1]]
        percent, takes_part = found[:, here], parts[:, here]
        start += found.shape[1]
        smallest.append(np.where(takes_part, percent, 100).min(axis=0))
        n_below_half.append((takes_part & (percent < _HALF)).sum(axis=0))
        total += percent.sum(axis=1)
        n_voxels += takes_part.sum(axis=1)
        if len(names) <= MOST_KEPT:
            kept.append(percent)
    means = total / np.maximum(n_voxels, 1)
    return ParticipantWeights(
        participants=names,
        smallest=np.concatenate(smallest).astype(float),
        n_below_half=np.concatenate(n_below_half).astype(float),
        means=dict(zip(names, means.round(2).tolist(), strict=True)),
        percent=np.concatenate(kept, axis=1) if kept else None,
        are_all_everywhere=bool((n_voxels == np.count_nonzero(chosen)).all()),
    )


def percent_of(
    plan: Plan | PatternPlan, effects: NDArray[np.floating], variances: NDArray[np.floating] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Find the weights in a block, in percent, and who takes part; a module's function travels to other processes."""
    weights = plan.participant_weights(as_block(effects), None if variances is None else as_block(variances))
    takes_part = np.isfinite(weights)
    return np.rint(100 * np.where(takes_part, weights, 0.0)).astype(np.uint8), takes_part

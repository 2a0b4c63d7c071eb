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


@dataclass(frozen=True)
class ParticipantWeights:
    """Weights of participants in one answer.

    Attributes
    ----------
    participants : tuple of n str
        `sub-01`, in the order of the design's rows.
    percent : ndarray of uint8, shape (n, V)
        100 where a participant counts fully, at the voxels of the answer.
    """

    participants: tuple[str, ...]
    percent: NDArray[np.uint8]

    @property
    def smallest(self) -> NDArray[np.float64]:
        """Weight of the participant who counts least, in percent, of shape (V,)."""
        return np.asarray(self.percent.min(axis=0), dtype=float)

    @property
    def n_below_half(self) -> NDArray[np.float64]:
        """Participants who count less than half, of shape (V,)."""
        return np.asarray((self.percent < _HALF).sum(axis=0), dtype=float)

    @property
    def means(self) -> dict[str, float]:
        """Mean weight of each participant over voxels, in percent."""
        return dict(zip(self.participants, self.percent.mean(axis=1).round(2).tolist(), strict=True))


def weigh_participants(
    plan: Plan, stack: MapStack, mask: NDArray[np.bool_], map_ordered: MapOrdered
) -> ParticipantWeights:
    """Find the weights at the voxels of an answer, whose 3-D mask is given, block by block."""
    blocks = (stack.handed_out(block, with_variances=plan.uses_variances) for block in stack.blocks)
    percent = np.concatenate(list(map_ordered(partial(percent_of, plan), blocks)), axis=1)
    return ParticipantWeights(plan.participant_names, percent[:, mask[stack.mask]])


def percent_of(plan: Plan, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> NDArray[np.uint8]:
    """Find the weights in a block, in percent; a function of a module travels to other processes."""
    weights = plan.participant_weights(as_block(effects), None if variances is None else as_block(variances))
    return np.rint(100 * weights).astype(np.uint8)

"""Estimates in their place: the value of a contrast at the voxels of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.inputs.images import Grid
from sessionfx.statistics.estimates import Estimate


@dataclass(frozen=True)
class EstimateMap:
    """An estimate at V voxels of a grid.

    Attributes
    ----------
    estimate : Estimate
        Arrays of shape (V,).
    mask : ndarray of bool, 3-D
        The V voxels that have data; the variance is above zero at each.
    grid : Grid
    """

    estimate: Estimate
    mask: NDArray[np.bool_]
    grid: Grid

    @classmethod
    def where_determined(cls, estimate: Estimate, mask: NDArray[np.bool_], grid: Grid) -> EstimateMap:
        """Keep the voxels with a finite effect and a finite variance above zero; no other may be combined."""
        good = np.isfinite(estimate.effect) & np.isfinite(estimate.variance) & (estimate.variance > 0)
        kept = mask.copy()
        kept[mask] = good
        return cls(Estimate(estimate.effect[good], estimate.variance[good], estimate.dof), kept, grid)

    def within(self, mask: NDArray[np.bool_]) -> EstimateMap:
        """Restrict to the voxels of a mask, which must all be among this map's."""
        chosen = mask[self.mask]
        estimate = Estimate(self.estimate.effect[chosen], self.estimate.variance[chosen], self.estimate.dof)
        return EstimateMap(estimate, mask, self.grid)

    def volume(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put V values into a 3-D array, NaN outside the mask."""
        volume = np.full(self.grid.shape, np.nan)
        volume[self.mask] = values
        return volume


def on_common_voxels(maps: Sequence[EstimateMap], names: Sequence[str]) -> list[EstimateMap]:
    """Restrict maps to the voxels all of them have.

    Parameters
    ----------
    maps : sequence of EstimateMap
    names : sequence of str
        What each is called in an error.

    Returns
    -------
    list of EstimateMap

    Raises
    ------
    ParticipantError
        If the grids differ or no voxel is common.
    """
    first = maps[0]
    for other, name in zip(maps[1:], names[1:], strict=True):
        if not first.grid.same_as(other.grid):
            raise ParticipantError(
                f"{names[0]} ({first.grid}) and {name} ({other.grid}) lie on different grids and cannot be combined. "
                "Preprocess all of them to one space and resolution, or select with --space, --res or --session-label."
            )
    common = np.logical_and.reduce([one.mask for one in maps])
    if not common.any():
        raise ParticipantError(f"No voxel has data in all of {', '.join(names)}. Check the brain masks of these runs.")
    return [one.within(common) for one in maps]

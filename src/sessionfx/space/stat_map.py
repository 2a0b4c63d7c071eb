"""Results in their place: the value of a statistic at the voxels of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.space.grid import Grid
from sessionfx.statistics.estimates import Estimate, Result
from sessionfx.statistics.thresholds import suprathreshold

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class StatMap(Generic[R]):
    """A result at V voxels of a grid.

    Attributes
    ----------
    estimate : Estimate or FTest
        Of the V voxels.
    mask : ndarray of bool, 3-D
        The V voxels at which the data determine it.
    grid : Grid
    """

    estimate: R
    mask: NDArray[np.bool_]
    grid: Grid

    @classmethod
    def where_determined(cls, estimate: R, mask: NDArray[np.bool_], grid: Grid) -> StatMap[R]:
        """Keep the voxels at which the data determine the result; no other may be combined."""
        good = estimate.is_determined
        kept = mask.copy()
        kept[mask] = good
        return cls(estimate.at(good), kept, grid)

    def within(self, mask: NDArray[np.bool_]) -> StatMap[R]:
        """Restrict to the voxels of a mask, which must all be among this map's."""
        return StatMap(self.estimate.at(mask[self.mask]), mask, self.grid)

    def volume(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put V values into a 3-D array, NaN outside the mask."""
        volume = np.full(self.grid.shape, np.nan)
        volume[self.mask] = values
        return volume


EstimateMap = StatMap[Estimate]


def on_common_voxels(maps: Sequence[StatMap[R]], names: Sequence[str]) -> list[StatMap[R]]:
    """Restrict maps to the voxels all of them have; errors call them by their names.

    Raises
    ------
    ParticipantError
        If the grids differ or no voxel is common.
    """
    first = maps[0]
    for other, name in zip(maps[1:], names[1:], strict=True):
        if not first.grid.same_as(other.grid):
            raise ParticipantError(
                f"{names[0]} ({first.grid}) and {name} ({other.grid}) lie on different grids and cannot be combined: "
                f"{first.grid.difference_from(other.grid)}. "
                "Preprocess all of them to one space and resolution, or select with --space, --res or --session-label."
            )
    common = np.logical_and.reduce([stat_map.mask for stat_map in maps])
    if not common.any():
        raise ParticipantError(f"No voxel has data in all of {', '.join(names)}. Check the brain masks of these runs.")
    return [stat_map.within(common) for stat_map in maps]


def position(mask: NDArray[np.bool_], grid: Grid, index: int) -> dict[str, float]:
    """Give the coordinates `x`, `y` and `z` (mm) of an in-mask voxel."""
    voxel = np.unravel_index(np.flatnonzero(mask)[index], mask.shape)
    # what is 0 but for rounding is 0
    coordinates = np.round(grid.affine[:3, :3] @ voxel + grid.affine[:3, 3], 4) + 0.0
    return {axis: float(coordinate) for axis, coordinate in zip("xyz", coordinates, strict=True)}


def map_summary(stat_map: StatMap[Any], threshold: float) -> dict[str, Any]:
    """Describe a map in one row, with a threshold on |z|.

    It has degrees of freedom, voxels, threshold, suprathreshold voxels; the largest z and where (mm); the smallest and
    where, unless the test is one-sided (F).
    """
    estimate = stat_map.estimate
    z = estimate.z
    summary = {
        "dof": estimate.typical_dof,
        "n_voxels": int(z.size),
        "threshold": threshold,
        "n_above": int(suprathreshold(z, threshold, two_sided=estimate.two_sided).sum()),
    }
    extremes = {"largest": int(np.argmax(z))} | ({"smallest": int(np.argmin(z))} if estimate.two_sided else {})
    for name, index in extremes.items():
        summary[f"{name}_z"] = float(z[index])
        found = position(stat_map.mask, stat_map.grid, index)
        summary |= {f"{name}_at_{axis}": coordinate for axis, coordinate in found.items()}
    return summary

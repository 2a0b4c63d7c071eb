"""Results in their place: the value of a statistic at the features of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.statistics.estimates import Estimate, Result
from sessionfx.statistics.thresholds import suprathreshold

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class StatMap(Generic[R]):
    """A result at V features of a space."""

    estimate: R  # of the V features
    mask: NDArray[np.bool_]  # of the space's shape: the V features at which the data determine it
    space: Space

    @property
    def grid(self) -> Grid:
        """The voxel grid; see `Space.as_grid`."""
        return self.space.as_grid()

    @classmethod
    def where_determined(cls, estimate: R, mask: NDArray[np.bool_], space: Space) -> StatMap[R]:
        """Keep the features at which the data determine the result; no other may be combined."""
        good = estimate.is_determined
        kept = mask.copy()
        kept[mask] = good
        return cls(estimate.at(good), kept, space)

    def within(self, mask: NDArray[np.bool_]) -> StatMap[R]:
        """Restrict to the features of a mask, which must all be among this map's."""
        return StatMap(self.estimate.at(mask[self.mask]), mask, self.space)

    def volume(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put V values into an array of the space's shape, NaN outside the mask."""
        volume = np.full(self.space.shape, np.nan)
        volume[self.mask] = values
        return volume


EstimateMap = StatMap[Estimate]


def on_common_voxels(maps: Sequence[StatMap[R]], names: Sequence[str]) -> list[StatMap[R]]:
    """Restrict maps to the features all of them have; errors call them by their names.

    Raises
    ------
    ParticipantError
        If the spaces differ or no feature is common.
    """
    first = maps[0]
    for other, name in zip(maps[1:], names[1:], strict=True):
        if not first.space.same_as(other.space):
            raise ParticipantError(
                f"{names[0]} ({first.space}) and {name} ({other.space}) lie on different grids and cannot be combined: "
                f"{first.space.difference_from(other.space)}. Preprocess all of them to one space and resolution, or "
                "select with --space, --res or --session-label."
            )
    common = np.logical_and.reduce([stat_map.mask for stat_map in maps])
    if not common.any():
        raise ParticipantError(
            f"None of the {first.space.features} has data in all of {', '.join(names)}. Check the brain masks of these "
            "runs."
        )
    return [stat_map.within(common) for stat_map in maps]


def same_z(first: StatMap[Any], second: StatMap[Any]) -> bool:
    """Whether two maps say the same, as of the linear trend of three sessions and the last less the first."""
    z, other = first.estimate.z, second.estimate.z
    return z.shape == other.shape and np.allclose(z, other, rtol=0, atol=1e-6)


def position(mask: NDArray[np.bool_], space: Space, index: int) -> dict[str, Any]:
    """Say where an in-mask feature lies; see `Space.place`."""
    return space.place(int(np.flatnonzero(mask)[index]))


def map_summary(stat_map: StatMap[Any], threshold: float) -> dict[str, Any]:
    """Describe a map in one row, with a threshold on |z|.

    It has degrees of freedom, voxels (or what features are called), threshold, suprathreshold voxels; the largest z and
    where; the smallest and where, unless the test is one-sided (F).
    """
    estimate = stat_map.estimate
    z = estimate.z
    summary = {
        "dof": estimate.typical_dof,
        f"n_{stat_map.space.features}": int(z.size),
        "threshold": threshold,
        "n_above": int(suprathreshold(z, threshold, two_sided=estimate.two_sided).sum()),
    }
    extremes = {"largest": int(np.argmax(z))} | ({"smallest": int(np.argmin(z))} if estimate.two_sided else {})
    for name, index in extremes.items():
        summary[f"{name}_z"] = float(z[index])
        found = position(stat_map.mask, stat_map.space, index)
        summary |= {f"{name}_at_{axis}": coordinate for axis, coordinate in found.items()}
    return summary

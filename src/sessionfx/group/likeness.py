"""Participants' maps that look unlike the others': another sign, other units, noise, another contrast.

Looked at in voxels spread over the brain, in the pass over the maps that gathers the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.group.evidence import side_by_side
from sessionfx.group.strategies.base import MapLayout
from sessionfx.statistics.likeness import FEWEST, Profiles, profiles_of, sums_of
from sessionfx.statistics.linear_algebra import membership_matrix
from sessionfx.wording import percent

# Voxels in which maps are compared. With many participants fewer, so that time grows little: neighbours are alike, and
# what is far from chance in some thousand voxels is not asked more precisely
_COMPARED_VOXELS, _FEWEST_VOXELS = 20_000, 4_000
_MANY_PARTICIPANTS = 500
_FEWEST_COMPARED = 3


@dataclass(frozen=True)
class Likeness:
    """How like the others' participants' maps are."""

    # A row per participant: `participant`; `n_maps`; of the mean over the maps the `correlation` with the others, the
    # `slope` on them, the `mean` effect, the `spread` relative to the median participant, the share of `extreme`
    # values; and a `remark` where it stands out. Empty below three participants.
    participants: pd.DataFrame = field(default_factory=pd.DataFrame)
    maps: pd.DataFrame = field(default_factory=pd.DataFrame)  # the same of each map, with its `session`

    @property
    def standing_out(self) -> list[str]:
        """Participants who stand out themselves or by one of their maps."""
        rows = [*self.participants.to_dict("records"), *self.maps.to_dict("records")]
        return list(dict.fromkeys(row["participant"] for row in rows if row["remark"]))

    @property
    def remarks(self) -> list[str]:
        """What stands out, in sentences: participants first, then maps of participants who do not."""
        if not len(self.participants):
            return []
        of_people = self.participants[self.participants["remark"] != ""].to_dict("records")
        named = {row["participant"] for row in of_people}
        of_maps = self.maps[(self.maps["remark"] != "") & ~self.maps["participant"].isin(named)].to_dict("records")
        return [_sentence(row) for row in [*of_people, *of_maps]]


@dataclass(frozen=True)
class LikenessCheck:
    """What is summed up in each block: maps beside each other on every so many voxels."""

    layout: MapLayout
    owners: NDArray[np.int_]  # (N,): number of the participant of each map
    step: int

    @classmethod
    def of(cls, layout: MapLayout, n_voxels: int) -> LikenessCheck:
        """Look at some thousand of the voxels."""
        owners, n = membership_matrix(layout.participants).indices, len(layout.unique_participants)
        n_compared = max(_COMPARED_VOXELS * min(1.0, _MANY_PARTICIPANTS / n), _FEWEST_VOXELS)
        return cls(layout, owners, max(1, int(n_voxels / n_compared)))

    def pooled_sums(self, effects: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum up what profiles need of the maps of a block; the sums of blocks add up."""
        if self.owners.max() + 1 < _FEWEST_COMPARED:
            return np.zeros(0)
        values = np.asarray(effects[:, :: self.step], dtype=np.float64)
        return sums_of(side_by_side(values, len(self.owners)), self.owners)

    def found(self, sums: NDArray[np.float64]) -> Likeness:
        """Put together what was found in all voxels."""
        layout, n = self.layout, len(self.layout.unique_participants)
        if n < _FEWEST_COMPARED:
            return Likeness()
        counts = [len(layout.rows_of(label)) for label in layout.unique_participants]
        people = pd.DataFrame({"participant": layout.unique_participants, "n_maps": counts})
        maps = pd.DataFrame({"participant": layout.participants, "session": layout.sessions})
        return Likeness(*(
            _with_profiles(table, profiles_of(part), are_enough=n >= FEWEST)
            for table, part in ((people, sums[:n]), (maps, sums[n:]))
        ))  # fmt: skip


def _with_profiles(table: pd.DataFrame, profiles: Profiles, *, are_enough: bool) -> pd.DataFrame:
    names = ("correlation", "slope", "mean", "spread", "extreme")
    columns = {name: getattr(profiles, name) for name in names}
    remarks = [_remark(profiles, row) if are_enough else "" for row in range(len(table))]
    return table.assign(**columns, remark=remarks)


def _remark(profiles: Profiles, row: int) -> str:
    """Say what stands out; empty where nothing does."""
    found = []
    correlation, median = profiles.correlation[row], profiles.typical_correlation
    beside = f"(r = {correlation:.2f} with them, where the median is {median:.2f})"
    if np.isnan(correlation):
        found.append("its values are all the same")
    elif profiles.is_reversed[row]:
        found.append(f"its effects have the opposite sign of the others' {beside}")
    elif profiles.is_unlike[row]:
        found.append(f"its effects are unlike the others' {beside}: noise, or another contrast, task or space")
    if profiles.is_scaled[row] and not np.isnan(correlation):
        spread = profiles.spread[row]
        found.append(f"its values are spread {spread:.2g} times as widely as the median map's: in other units")
    elif profiles.is_extreme[row]:
        found.append(f"{percent(profiles.extreme[row])} of its values are far from all others'")
    return "; ".join(found)


def _sentence(row: Mapping[Any, Any]) -> str:
    session = f", ses-{row['session']}" if row.get("session") else ""
    return f"sub-{row['participant']}{session}: {row['remark']}."


def likeness_table(likeness: Likeness) -> pd.DataFrame:
    """Set out participants, whose session is empty, and their maps, for a file."""
    parts: Sequence[pd.DataFrame] = [likeness.participants.drop(columns="n_maps", errors="ignore"), likeness.maps]
    table = pd.concat(parts, ignore_index=True)
    if not len(table):
        return table
    names = ["participant", "session"]
    return table[[*names, *(name for name in table.columns if name not in names)]].replace("", np.nan)

"""Events of a run: what was shown when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sessionfx.errors import ParticipantError
from sessionfx.inputs.tables import numeric_column, read_table

# nilearn does not convolve events that start earlier than this before the first volume (s)
EARLIEST_ONSET = -24.0


@dataclass(frozen=True)
class Events:
    """Events of one run, ready for nilearn.

    Attributes
    ----------
    table : DataFrame
        Columns onset, duration (s), trial_type, and modulation where the file has it.
    notes : tuple of str
        What was set aside and why, as sentences.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, sorted."""
        return tuple(sorted(self.table["trial_type"].unique()))


def read_events(path: Path, *, first_volume: float, end: float) -> Events:
    """Read and check an events file.

    Events outside the run cannot evoke a response in it; they are set aside with a note. Negative onsets are
    legitimate (volumes may have been dropped): they are kept as far back as nilearn uses them.

    Parameters
    ----------
    path : Path
        An events.tsv file.
    first_volume, end : float
        Time of the first volume and end of the last one (s, on the clock of the onsets).

    Returns
    -------
    Events

    Raises
    ------
    ParticipantError
        If a needed column is missing or holds something else than numbers, or no event falls into the run.
    """
    table = read_table(path)
    for column in ("onset", "duration"):
        if column not in table:
            raise ParticipantError(
                f"{path} has no column '{column}'. BIDS asks for onset and duration in seconds; add the column."
            )
    if "trial_type" not in table:
        columns = ", ".join(map(str, table.columns))
        raise ParticipantError(
            f"{path} has no column 'trial_type' (columns: {columns}), so conditions cannot be told apart. Add a "
            "trial_type column with the condition of every event."
        )
    events = pd.DataFrame({column: numeric_column(table, column, path) for column in ("onset", "duration")})
    events["trial_type"] = table["trial_type"].astype("object")
    if "modulation" in table:
        events["modulation"] = numeric_column(table, "modulation", path)
    if (events["duration"] < 0).any():
        row = int((events["duration"] < 0).to_numpy().argmax())
        raise ParticipantError(f"{path}, column 'duration', line {row + 2}: a duration below zero. Correct that row.")
    events, notes = _set_aside(events, path, first_volume, end)
    if events.empty:
        raise ParticipantError(
            f"{path}: no event falls into the run, which lasts {end:g} s. Onsets must be seconds from the first "
            "volume (not milliseconds, not volumes); correct the file."
        )
    return Events(events.reset_index(drop=True), notes)


def _set_aside(
    events: pd.DataFrame, path: Path, first_volume: float, end: float
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    notes = []
    unnamed = events["trial_type"].isna()
    if unnamed.any():
        notes.append(f"{path.name}: {int(unnamed.sum())} events without trial_type (n/a) are not modelled.")
    late = events["onset"] >= end
    if late.any():
        notes.append(
            f"{path.name}: {int(late.sum())} events begin after the run's end ({end:g} s) and are not modelled; "
            "check the onsets if that is unexpected."
        )
    early = events["onset"] < first_volume + EARLIEST_ONSET
    if early.any():
        notes.append(
            f"{path.name}: {int(early.sum())} events begin more than {-EARLIEST_ONSET:g} s before the first volume and "
            "are not modelled."
        )
    negative = (events["onset"] < 0) & ~early
    if negative.any():
        notes.append(
            f"{path.name}: {int(negative.sum())} events have negative onsets; what remains of their response "
            "falls into the run. If no volumes were removed, correct the onsets."
        )
    return events[~(unnamed | late | early)], tuple(notes)

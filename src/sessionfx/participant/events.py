"""Events of a run: what was shown when.

Vocabulary
----------
asked
    A condition is asked for when a contrast names it, or a column made from it (`go_derivative`). What is wrong with
    its events would change the answer, and is refused; events of other conditions that cannot be modelled are left out
    with a warning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from sessionfx.ask.event_model import EventModel
from sessionfx.bids.tables import numeric_column, read_table
from sessionfx.errors import ParticipantError
from sessionfx.participant.conditions import (
    ONLY_CONDITION,
    Events,
    check_columns,
    condition_names,
    counted_once,
    lines_of,
)
from sessionfx.participant.modulators import add_modulated
from sessionfx.wording import shortened

# nilearn does not convolve events that start earlier than this before the first volume (s)
EARLIEST_ONSET = -24.0

# What programs make of a column of whole numbers where a row has none
_WHOLE = re.compile(r"(\d+)\.0+\Z")
# Conditions that messages name one by one
_MOST_NAMED = 5
# All events as they stand in the file
PLAIN = EventModel()


def read_events(
    path: Path,
    *,
    first_volume: float,
    end: float,
    asked: Collection[str] | None = None,
    model: EventModel = PLAIN,
) -> Events:
    """Read and check an events file.

    Events outside the run cannot evoke a response in it; they are set aside with a warning. Negative onsets are
    legitimate (volumes may have been dropped): they are kept as far back as nilearn uses them. Rows without a
    condition, or that a filter leaves out, are not modelled; they may hold anything.

    Parameters
    ----------
    path : Path
        An events.tsv file.
    first_volume, end : float
        Time of the first volume and end of the last one (s, on the clock of the onsets).
    asked : collection of str, optional
        Conditions that contrasts name; all where it is not given.
    model : EventModel, optional
        How events become regressors; as they stand in the file where it is not given.

    Raises
    ------
    ParticipantError
        If a needed column is missing or holds something else than numbers, or no event falls into the run.
    """
    table = read_table(path)
    check_columns(table, path, asked, model)
    warnings: list[str] = []
    names = condition_names(table, path, model, warnings)
    table = table.loc[names.index]
    sources = {"onset": "onset", "duration": model.duration_column, "modulation": "modulation"}
    sources = {column: source for column, source in sources.items() if source in table}
    numbers = {column: numeric_column(table, source, path, allow_missing=True) for column, source in sources.items()}
    events = pd.DataFrame(numbers).assign(trial_type=names)
    if "modulation" in events:
        events = events[["onset", "duration", "trial_type", "modulation"]]
    events = _without_incomplete(events, path, asked, sources, warnings)
    events = _without_repeated(events, table, path, warnings)
    events = place_events(
        events,
        path,
        first_volume=first_volume,
        end=end,
        warnings=warnings,
        duration_column=model.duration_column,
    )
    return add_modulated(events, table, path, asked=asked, model=model, warnings=warnings)


def place_events(
    events: pd.DataFrame,
    path: Path,
    *,
    first_volume: float,
    end: float,
    warnings: list[str],
    duration_column: str = "duration",
) -> pd.DataFrame:
    """Set aside what falls outside the run, and say so in the warnings.

    Parameters
    ----------
    events : DataFrame
        Columns as in `Events.table`; the index is the line of each row in the file.
    path : Path
        The file.
    first_volume, end : float
        See `read_events`.
    warnings : list of str
        What is known of the events already.
    duration_column : str, default="duration"
        Of the file.

    Raises
    ------
    ParticipantError
        If a duration is below zero, or no event falls into the run.
    """
    if (events["duration"] < 0).any():
        line = events.index[events["duration"] < 0][0]
        raise ParticipantError(
            f"{path}, column '{duration_column}', line {line}: a duration below zero. Correct that row."
        )
    events = _set_aside(events, path, first_volume, end, warnings)
    if events.empty:
        raise ParticipantError(
            f"{path}: no event falls into the run, which lasts {end:g} s. Onsets must be seconds from the first "
            "volume (not milliseconds, not volumes); correct the file."
        )
    warnings += _near_equal_names(events, path)
    return events


def conditions_in(path: Path, model: EventModel = PLAIN) -> tuple[str, ...]:
    """Name the conditions of an events file, as `read_events` does, whatever else is wrong with it.

    Raises
    ------
    ParticipantError
        If it cannot be read or has no condition.
    """
    table = read_table(path)
    check_columns(table, path, (ONLY_CONDITION,), model)
    names = tuple(dict.fromkeys(condition_names(table, path, model, [])))
    if not names:
        raise ParticipantError(f"{path} has no event. Fill it in.")
    return names


def near_equal(name: str, names: Collection[str]) -> list[str]:
    """Find names that differ from a name in case or in characters that look alike only, or as `1` and `1.0` do."""
    return [other for other in names if other != name and _likeness(other) == _likeness(name)]


def _likeness(name: str) -> str:
    return _WHOLE.sub(r"\1", " ".join(unicodedata.normalize("NFKC", name).casefold().split()))


def _without_incomplete(
    events: pd.DataFrame,
    path: Path,
    asked: Collection[str] | None,
    sources: Mapping[str, str],
    warnings: list[str],
) -> pd.DataFrame:
    """Leave out events that lack a number; refuse where a contrast needs them. Sources are the columns of the file."""
    for column, source in sources.items():
        lacking = events[column].isna()
        needed = lacking & (events["trial_type"].isin(asked) if asked is not None else True)
        if needed.any():
            line = events.index[needed][0]
            raise ParticipantError(
                f"{path}, column '{source}', line {line}: n/a is not a number, and the row is an event of "
                f"'{shortened(events['trial_type'][line])}', which a contrast asks for. Correct or remove that row."
            )
        n_all = events["trial_type"].value_counts()
        left_out = list(events[lacking].groupby("trial_type", sort=True))
        for condition, rows in left_out[:_MOST_NAMED]:
            warnings.append(
                f"{path.name}: {len(rows)} of {n_all[condition]} events of '{shortened(str(condition))}' have no "
                f"{source} (n/a) and are not modelled ({lines_of(rows)}); no contrast asks for them."
            )
        if len(left_out) > _MOST_NAMED:
            warnings.append(f"{path.name}: so are events of {len(left_out) - _MOST_NAMED} more conditions.")
        events = events[~lacking]
    return events


def _without_repeated(events: pd.DataFrame, table: pd.DataFrame, path: Path, warnings: list[str]) -> pd.DataFrame:
    """Count rows that stand there twice once: nilearn would add them up, as those that differ in other columns."""
    others = table.loc[events.index, [column for column in table if column not in events]]
    repeated = pd.concat([events, others], axis="columns").duplicated()
    events = counted_once(events, repeated, path, warnings)
    summed = events.duplicated(["onset", "duration", "trial_type"])
    if summed.any():
        warnings.append(
            f"{path.name}: {int(summed.sum())} events have the onset, duration and trial_type of another and differ "
            f"elsewhere; their responses are added up ({lines_of(events[summed])}). Remove those that are no event of "
            "their own."
        )
    return events


def _set_aside(events: pd.DataFrame, path: Path, first_volume: float, end: float, warnings: list[str]) -> pd.DataFrame:
    late = events["onset"] >= end
    if late.any():
        warnings.append(
            f"{path.name}: {int(late.sum())} events begin after the run's end ({end:g} s) and are not modelled "
            f"({lines_of(events[late])}); check the onsets if that is unexpected."
        )
    early = events["onset"] < first_volume + EARLIEST_ONSET
    if early.any():
        warnings.append(
            f"{path.name}: {int(early.sum())} events begin more than {-EARLIEST_ONSET:g} s before the first volume and "
            f"are not modelled ({lines_of(events[early])})."
        )
    negative = (events["onset"] < 0) & ~early
    if negative.any():
        warnings.append(
            f"{path.name}: {int(negative.sum())} events have negative onsets ({lines_of(events[negative])}); what "
            "remains of their response falls into the run. If no volumes were removed, correct the onsets."
        )
    kept = events[~(late | early)]
    beyond = kept["onset"] + kept["duration"] > end
    if beyond.any():
        longest = float(kept["duration"].max())
        milliseconds = (
            f" A duration of {longest:g} s is longer than the run: are these milliseconds? BIDS asks for seconds."
            if longest > end
            else ""
        )
        warnings.append(
            f"{path.name}: {int(beyond.sum())} events last beyond the run's end ({end:g} s; {lines_of(kept[beyond])}); "
            f"what falls into the run is modelled.{milliseconds}"
        )
    return kept


def _near_equal_names(events: pd.DataFrame, path: Path) -> list[str]:
    """Warn of conditions whose names look like one."""
    names = events["trial_type"]
    alike: dict[str, list[str]] = {}
    for name in names.unique():
        alike.setdefault(_likeness(name), []).append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    warnings = [
        f"{path.name}: "
        + " and ".join(f"'{shortened(name)}' ({lines_of(names[names == name])})" for name in group[:_MOST_NAMED])
        + " are modelled as different conditions, although their names differ in case, look-alike signs or .0 only."
        for group in groups[:_MOST_NAMED]
    ]
    more = len(groups) - _MOST_NAMED
    return warnings + ([f"{path.name}: so are {more} more groups of conditions with names alike."] if more > 0 else [])

"""Events of a run: what was shown when.

Vocabulary
----------
asked
    A condition is asked for when a contrast names it, or a column made from it (`go_derivative`). What is wrong with
    its events would change the answer, and is refused; events of other conditions that cannot be modelled are left out
    with a warning.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sessionfx.bids.tables import normal_text, numeric_column, read_table
from sessionfx.errors import ParticipantError
from sessionfx.wording import lines_text, listed, shortened

# nilearn does not convolve events that start earlier than this before the first volume (s)
EARLIEST_ONSET = -24.0
# nilearn's name for the events of a file without trial_type
ONLY_CONDITION = "dummy"


# Conditions that messages name one by one
_MOST_NAMED = 5


@dataclass(frozen=True)
class Events:
    """Events of one run, ready for nilearn.

    Attributes
    ----------
    table : DataFrame
        Columns onset, duration (s), trial_type, and modulation where the file has it.
    warnings : tuple of str
        What was set aside and why, as sentences.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, sorted."""
        return tuple(sorted(self.table["trial_type"].unique()))


def read_events(path: Path, *, first_volume: float, end: float, asked: Collection[str] | None = None) -> Events:
    """Read and check an events file.

    Events outside the run cannot evoke a response in it; they are set aside with a warning. Negative onsets are
    legitimate (volumes may have been dropped): they are kept as far back as nilearn uses them. Rows without trial_type
    are not modelled; they may hold anything.

    Parameters
    ----------
    path : Path
        An events.tsv file.
    first_volume, end : float
        Time of the first volume and end of the last one (s, on the clock of the onsets).
    asked : collection of str, optional
        Conditions that contrasts name; all where it is not given.

    Raises
    ------
    ParticipantError
        If a needed column is missing or holds something else than numbers, or no event falls into the run.
    """
    table = read_table(path)
    _check_columns(table, path, asked)
    warnings: list[str] = []
    names = _condition_names(table, path, warnings)
    table, names = table[names.notna()], names[names.notna()]
    numeric = [column for column in ("onset", "duration", "modulation") if column in table]
    numbers = {column: numeric_column(table, column, path, allow_missing=True) for column in numeric}
    events = pd.DataFrame(numbers).assign(trial_type=names)
    if "modulation" in events:
        events = events[["onset", "duration", "trial_type", "modulation"]]
    events = _without_incomplete(events, path, asked, numeric, warnings)
    if (events["duration"] < 0).any():
        line = events.index[int((events["duration"] < 0).to_numpy().argmax())]
        raise ParticipantError(f"{path}, column 'duration', line {line}: a duration below zero. Correct that row.")
    events = _without_repeated(events, table, path, warnings)
    events = _set_aside(events, path, first_volume, end, warnings)
    if events.empty:
        raise ParticipantError(
            f"{path}: no event falls into the run, which lasts {end:g} s. Onsets must be seconds from the first "
            "volume (not milliseconds, not volumes); correct the file."
        )
    warnings += _near_equal_names(events, path)
    return Events(events.reset_index(drop=True), tuple(warnings))


def conditions_in(path: Path) -> tuple[str, ...]:
    """Name the conditions of an events file, as `read_events` does, whatever else is wrong with it.

    Raises
    ------
    ParticipantError
        If it cannot be read or has no condition.
    """
    table = read_table(path)
    _check_columns(table, path, None if "trial_type" in table else (ONLY_CONDITION,))
    names = tuple(dict.fromkeys(_condition_names(table, path, []).dropna()))
    if not names:
        raise ParticipantError(f"{path} has no event with a trial_type. Fill the column in.")
    return names


def near_equal(name: str, names: Collection[str]) -> list[str]:
    """Find names that differ from a name in case or in characters that look alike only."""
    return [other for other in names if other != name and _likeness(other) == _likeness(name)]


def _likeness(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _check_columns(table: pd.DataFrame, path: Path, asked: Collection[str] | None) -> None:
    for column in ("onset", "duration"):
        if column not in table:
            raise ParticipantError(
                f"{path} has no column '{column}' (columns: {listed(list(table.columns))}). BIDS asks for onset and "
                "duration in seconds; add the column."
            )
    if "trial_type" not in table and (asked is None or ONLY_CONDITION not in asked):
        raise ParticipantError(
            f"{path} has no column 'trial_type' (columns: {listed(list(table.columns))}), so conditions cannot be "
            "told apart. Add a trial_type column with the condition of every event; or, if all events are of one "
            f"condition, ask for it by the name it has then: --contrast {ONLY_CONDITION}."
        )


def _condition_names(table: pd.DataFrame, path: Path, warnings: list[str]) -> pd.Series:
    """Give the condition of every row, missing where it has none."""
    if "trial_type" not in table:
        warnings.append(
            f"{path.name} has no column trial_type: its {len(table)} events are taken as one condition, "
            f"'{ONLY_CONDITION}'."
        )
        return pd.Series(ONLY_CONDITION, index=table.index, dtype=object)
    written = table["trial_type"]
    unnamed = written.isna()
    if unnamed.any():
        warnings.append(
            f"{path.name}: {int(unnamed.sum())} events without trial_type (n/a) are not modelled "
            f"({_lines(written[unnamed])})."
        )
    stripped = written.str.strip()
    padded = ~unnamed & (stripped != written)
    if padded.any():
        warnings.append(
            f"{path.name}: spaces around the trial_type of {int(padded.sum())} events are left out "
            f"({_lines(written[padded])}: {listed(sorted(set(written[padded].map(repr))), most=3)})."
        )
    names = stripped.map(normal_text, na_action="ignore")
    retyped = ~unnamed & (names != stripped) & names.isin(stripped[stripped == names])
    if retyped.any():
        warnings.append(
            f"{path.name}: the trial_type of {int(retyped.sum())} events is written with other Unicode characters than "
            f"that of others with the same name; they are taken as one condition ({_lines(written[retyped])}: "
            f"{listed(sorted(set(names[retyped])), most=3)})."
        )
    return names


def _without_incomplete(
    events: pd.DataFrame, path: Path, asked: Collection[str] | None, numeric: Sequence[str], warnings: list[str]
) -> pd.DataFrame:
    """Leave out events that lack a number; refuse where a contrast needs them."""
    for column in numeric:
        lacking = events[column].isna()
        needed = lacking & (events["trial_type"].isin(asked) if asked is not None else True)
        if needed.any():
            line = events.index[int(needed.to_numpy().argmax())]
            raise ParticipantError(
                f"{path}, column '{column}', line {line}: n/a is not a number, and the row is an event of "
                f"'{shortened(events['trial_type'][line])}', which a contrast asks for. Correct or remove that row."
            )
        n_all = events["trial_type"].value_counts()
        left_out = list(events[lacking].groupby("trial_type", sort=True))
        for condition, rows in left_out[:_MOST_NAMED]:
            warnings.append(
                f"{path.name}: {len(rows)} of {n_all[condition]} events of '{shortened(str(condition))}' have no "
                f"{column} (n/a) and are not modelled ({_lines(rows)}); no contrast asks for them."
            )
        if len(left_out) > _MOST_NAMED:
            warnings.append(f"{path.name}: so are events of {len(left_out) - _MOST_NAMED} more conditions.")
        events = events[~lacking]
    return events


def _without_repeated(events: pd.DataFrame, table: pd.DataFrame, path: Path, warnings: list[str]) -> pd.DataFrame:
    """Count rows that stand there twice once: nilearn would add them up, as those that differ in other columns."""
    others = table.loc[events.index, [column for column in table if column not in events]]
    repeated = pd.concat([events, others], axis="columns").duplicated()
    if repeated.any():
        warnings.append(
            f"{path.name}: {int(repeated.sum())} rows repeat another and are counted once ({_lines(events[repeated])})."
        )
        events = events[~repeated]
    summed = events.duplicated(["onset", "duration", "trial_type"])
    if summed.any():
        warnings.append(
            f"{path.name}: {int(summed.sum())} events have the onset, duration and trial_type of another and differ "
            f"elsewhere; their responses are added up ({_lines(events[summed])}). Remove those that are no event of "
            "their own."
        )
    return events


def _set_aside(events: pd.DataFrame, path: Path, first_volume: float, end: float, warnings: list[str]) -> pd.DataFrame:
    late = events["onset"] >= end
    if late.any():
        warnings.append(
            f"{path.name}: {int(late.sum())} events begin after the run's end ({end:g} s) and are not modelled "
            f"({_lines(events[late])}); check the onsets if that is unexpected."
        )
    early = events["onset"] < first_volume + EARLIEST_ONSET
    if early.any():
        warnings.append(
            f"{path.name}: {int(early.sum())} events begin more than {-EARLIEST_ONSET:g} s before the first volume and "
            f"are not modelled ({_lines(events[early])})."
        )
    negative = (events["onset"] < 0) & ~early
    if negative.any():
        warnings.append(
            f"{path.name}: {int(negative.sum())} events have negative onsets ({_lines(events[negative])}); what "
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
            f"{path.name}: {int(beyond.sum())} events last beyond the run's end ({end:g} s; {_lines(kept[beyond])}); "
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
        + " and ".join(f"'{shortened(name)}' ({_lines(names[names == name])})" for name in group[:_MOST_NAMED])
        + " are modelled as different conditions, although their names differ in case or look-alike characters only."
        for group in groups[:_MOST_NAMED]
    ]
    more = len(groups) - _MOST_NAMED
    return warnings + ([f"{path.name}: so are {more} more groups of conditions with names alike."] if more > 0 else [])


def _lines(rows: pd.DataFrame | pd.Series) -> str:
    return lines_text([int(line) for line in rows.index])

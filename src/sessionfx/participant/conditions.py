"""Which rows of an events file are modelled, and what each is an event of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sessionfx.ask.event_model import CONDITION_COLUMN, EventModel
from sessionfx.bids.tables import numeric_column
from sessionfx.errors import ParticipantError
from sessionfx.wording import did_you_mean, lines_text, listed, normal_text, quoted

# nilearn's name for the events of a file without trial_type
ONLY_CONDITION = "dummy"
# Conditions that a message names, and different values of a column that may hold conditions
_MOST_NAMED = 5
_MOST_VALUES = 20


@dataclass(frozen=True)
class Events:
    """Events of one run, ready for nilearn."""

    # Columns onset, duration (s), trial_type, and modulation where the file has it or modulators make it. A modulated
    # column is a further trial_type.
    table: pd.DataFrame
    warnings: tuple[str, ...]  # what was set aside and why, as sentences
    modulated: tuple[str, ...] = ()  # the modulated columns
    left_out: Mapping[str, str] = field(default_factory=dict)  # modulated columns that this run cannot have, and why

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, sorted."""
        return tuple(sorted(self.table["trial_type"].unique()))

    @property
    def shown(self) -> pd.DataFrame:
        """What happened: each event once."""
        return self.table[~self.table["trial_type"].isin(self.modulated)]


def check_columns(table: pd.DataFrame, path: Path, asked: Collection[str] | None, model: EventModel) -> None:
    """Make sure that a file has the columns that its events are read from.

    Parameters
    ----------
    table : DataFrame
        The cells of the file, as `read_table` gives them.
    path : Path
        For messages.
    asked : collection of str, optional
        Conditions that contrasts need; all where it is None.
    model : EventModel

    Raises
    ------
    ParticipantError
        If one is missing; without `trial_type`, if contrasts ask for other conditions than the only one there is then.
    """
    there = f"columns: {listed(list(table.columns))}"
    for column in ["onset", "duration"] if model.duration_column == "duration" else ["onset"]:
        if column not in table:
            raise ParticipantError(
                f"{path} has no column '{column}' ({there}). BIDS asks for onset and duration in seconds; add the "
                "column."
            )
    for column, option in model.columns_of_every_file.items():
        check_column(table, path, column, option)
    is_named = CONDITION_COLUMN in table or model.condition_columns
    if not is_named and (asked is None or ONLY_CONDITION not in asked):
        raise ParticipantError(
            f"{path} has no column '{CONDITION_COLUMN}' ({there}), so conditions cannot be told apart. "
            f"{advice_on_column(table)} Or, if all events are of one condition, ask for it by the name it has then: "
            f"--contrast {ONLY_CONDITION}."
        )


def check_column(table: pd.DataFrame, path: Path, column: str, option: str) -> None:
    """Make sure that a file has the column that an option names; raise `ParticipantError` if not."""
    if column not in table:
        raise ParticipantError(
            f"{path} has no column '{column}' (columns: {listed(list(table.columns))}), which {option} asks for."
            f"{did_you_mean(column, table.columns)} Add the column, or leave this run out with --bids-filter-file."
        )


def advice_on_column(table: pd.DataFrame) -> str:
    """Say how to name the column of conditions, and which could be it: those with a few values, some repeated."""
    others = [str(name) for name in table if name not in ("onset", "duration", "modulation")]
    could = [name for name in others if 2 <= table[name].nunique() <= min(_MOST_VALUES, table[name].count() - 1)]
    could_be = f" ({quoted(could, last='or')} could be it)" if could else ""
    return f"Name the column that holds them with --condition-column{could_be}."


def condition_names(table: pd.DataFrame, path: Path, model: EventModel, warnings: list[str]) -> pd.Series:
    """Give the condition of every row that has one and that filters keep; what is left out is added to the warnings.

    Parameters
    ----------
    table : DataFrame
        The cells of the file, whose columns are checked.
    path : Path
        For messages.
    model : EventModel
    warnings : list of str

    Returns
    -------
    Series of str
        The index is the line of each row.

    Raises
    ------
    ParticipantError
        If no row is left, or filters need numbers where there is text.
    """
    table = _filtered(table, path, model, warnings)
    if CONDITION_COLUMN not in table and not model.condition_columns:
        warnings.append(
            f"{path.name} has no column {CONDITION_COLUMN}: its {len(table)} events are taken as one condition, "
            f"'{ONLY_CONDITION}'."
        )
        names = pd.Series(ONLY_CONDITION, index=table.index, dtype=object)
    else:
        names, *crossed = (
            _names_in(table[column], path, warnings) for column in model.condition_columns or (CONDITION_COLUMN,)
        )
        for others in crossed:
            names = names.str.cat(others, sep=".")
    recoded = names.map(lambda name: model.recodes.get(name, name), na_action="ignore")
    removed = recoded == ""
    if removed.any():
        warnings.append(
            f"{path.name}: {int(removed.sum())} events are not modelled, as --recode gives no name to their condition "
            f"({quoted(sorted(set(names[removed])), most=_MOST_NAMED)})."
        )
    kept = recoded[recoded.notna() & ~removed]
    if len(kept) == 0 < len(table):
        columns = quoted(model.condition_columns or (CONDITION_COLUMN,))
        raise ParticipantError(
            f"{path}: none of its {len(table)} events has a condition (a value in {columns} that --recode does not "
            "take away). Correct the file, or leave this run out with --bids-filter-file."
        )
    return kept


def _filtered(table: pd.DataFrame, path: Path, model: EventModel, warnings: list[str]) -> pd.DataFrame:
    """Leave out rows that a filter does not keep."""
    n_all = len(table)
    for asked in model.filters:
        if asked.needs_numbers:
            numeric_column(table, asked.column, path, allow_missing=True)  # refuses text, by line
        table = table[[asked.keeps(None if pd.isna(cell) else str(cell)) for cell in table[asked.column]]]
    texts = quoted([asked.text for asked in model.filters])
    if len(table) == 0 < n_all:
        raise ParticipantError(
            f"{path}: none of its {n_all} events is kept by --event-filter {texts}. Correct the filter, or leave this "
            "run out with --bids-filter-file."
        )
    if len(table) < n_all:
        warnings.append(f"{path.name}: {n_all - len(table)} of {n_all} events are not modelled (not {texts}).")
    return table


def _names_in(written: pd.Series, path: Path, warnings: list[str]) -> pd.Series:
    """Give the names in a column of conditions, missing where a row has none."""
    column = written.name
    unnamed = written.isna()
    if unnamed.any():
        warnings.append(
            f"{path.name}: {int(unnamed.sum())} events without {column} (n/a) are not modelled "
            f"({lines_of(written[unnamed])})."
        )
    stripped = written.str.strip()
    padded = ~unnamed & (stripped != written)
    if padded.any():
        warnings.append(
            f"{path.name}: spaces around the {column} of {int(padded.sum())} events are left out "
            f"({lines_of(written[padded])}: {listed(sorted(set(written[padded].map(repr))), most=3)})."
        )
    names = stripped.map(normal_text, na_action="ignore")
    retyped = ~unnamed & (names != stripped) & names.isin(stripped[stripped == names])
    if retyped.any():
        warnings.append(
            f"{path.name}: the {column} of {int(retyped.sum())} events is written with other Unicode characters than "
            f"that of others with the same name; they are taken as one condition ({lines_of(written[retyped])}: "
            f"{listed(sorted(set(names[retyped])), most=3)})."
        )
    return names


def counted_once(rows: pd.DataFrame, repeated: pd.Series, path: Path, warnings: list[str]) -> pd.DataFrame:
    """Leave out rows that repeat another, and say so in the warnings."""
    if repeated.any():
        warnings.append(
            f"{path.name}: {int(repeated.sum())} rows repeat another and are counted once ({lines_of(rows[repeated])})."
        )
    return rows[~repeated]


def lines_of(rows: pd.DataFrame | pd.Series) -> str:
    """Name the lines of rows."""
    return lines_text(rows.index)

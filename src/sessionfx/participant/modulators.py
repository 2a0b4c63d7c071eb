"""Modulated columns of a run: events again, each as high as a modulator says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from sessionfx.ask.event_model import EventModel, Modulator
from sessionfx.bids.tables import numeric_column
from sessionfx.errors import ParticipantError
from sessionfx.participant.conditions import Events, check_column, lines_of


def add_modulated(
    events: pd.DataFrame,
    table: pd.DataFrame,
    path: Path,
    *,
    asked: Collection[str] | None,
    model: EventModel,
    warnings: list[str],
) -> Events:
    """Add the modulated columns, as nilearn takes them: a trial_type of their own, with heights in `modulation`.

    Heights are centred over the events of a condition that are modelled in this run, unless the modulator has a
    constant of its own or centring is not asked for. The file's own `modulation` plays no part in them.

    Parameters
    ----------
    events : DataFrame
        Columns onset, duration (s), trial_type, and modulation where the file has it; the index is the line of each.
    table : DataFrame
        The cells of the file, as `read_table` gives them.
    path : Path
        For messages.
    asked : collection of str, optional
        Conditions that contrasts need; all where it is None.
    model : EventModel
    warnings : list of str
        What is known of the events already; what is to be said of the columns is added.

    Raises
    ------
    ParticipantError
        If a cell is no number, or missing where a contrast needs the condition; or if a modulated column is called like
        a condition.
    """
    conditions = sorted(events["trial_type"].unique())
    added: dict[str, pd.DataFrame] = {}
    left_out: dict[str, str] = {}
    for modulator in model.modulators:
        for condition in conditions if modulator.condition is None else [modulator.condition]:
            name = modulator.column_of(condition)
            if name in conditions or name in added:
                raise ParticipantError(
                    f"{path}: the column of --modulator '{modulator.text}' is called '{name}', as another condition "
                    f"is. Give it a name: --modulator 'NAME={condition}: {modulator.column}'."
                )
            rows = events[events["trial_type"] == condition]
            values = _values(rows, table, path, modulator, is_asked=asked is None or condition in asked)
            why = _why_left_out(values, modulator, condition)
            if why:
                left_out[name] = why
                warnings.append(f"{path.name}: the column '{name}' is not modelled: {why}.")
                continue
            lacking = rows.drop(values.index)
            if len(lacking):
                warnings.append(
                    f"{path.name}: {len(lacking)} of {len(rows)} events of '{condition}' have no {modulator.column} "
                    f"(n/a) and no part in '{name}' ({lines_of(lacking)}); no contrast asks for them."
                )
            heights = modulator.factor * values + modulator.constant
            if model.is_centred and modulator.constant == 0:
                heights -= heights.mean()
            added[name] = rows.loc[values.index].assign(trial_type=name, modulation=heights)
    if added:
        plain = events if "modulation" in events else events.assign(modulation=1.0)
        events = pd.concat([plain, *added.values()])
    return Events(events.reset_index(drop=True), tuple(warnings), tuple(added), left_out)


def _values(rows: pd.DataFrame, table: pd.DataFrame, path: Path, modulator: Modulator, *, is_asked: bool) -> pd.Series:
    """Give the numbers of a modulator for events of one condition, without those that have none."""
    if rows.empty:
        return pd.Series(dtype=float)
    check_column(table, path, modulator.column, f"--modulator '{modulator.text}'")
    values = numeric_column(table.loc[rows.index], modulator.column, path, allow_missing=True)
    missing = values.isna()
    if missing.any() and is_asked:
        line = values.index[missing][0]
        others = (
            f", name the conditions that have it (--modulator 'CONDITION: {modulator.column}')"
            if modulator.condition is None
            else ""
        )
        raise ParticipantError(
            f"{path}, column '{modulator.column}', line {line}: n/a is not a number, and the row is an event of "
            f"'{rows['trial_type'][line]}', which a contrast asks for and --modulator '{modulator.text}' needs. "
            f"Correct that row{others}, or leave such events out with --event-filter '{modulator.column}!=n/a'."
        )
    return values[~missing]


def _why_left_out(values: pd.Series, modulator: Modulator, condition: str) -> str:
    """Say why the values cannot make a column beside that of the condition; empty if they can."""
    if len(values) < 2:
        return f"it has fewer than two events of '{condition}' with a number in {modulator.column}"
    if values.min() == values.max():
        return f"its {len(values)} events of '{condition}' have the same {modulator.column} ({values.iloc[0]:g})"
    return ""

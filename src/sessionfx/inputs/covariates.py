"""Covariates from the raw dataset: participants.tsv for participants, sub-XX_sessions.tsv for their sessions.

A participant without a value that is asked for cannot stand in a design with that covariate and is left out by name.
A file, column or cell that cannot mean what was asked stops the call.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sessionfx.covariates import Covariates, code_covariates
from sessionfx.errors import CommandLineError, LevelError, ParticipantError
from sessionfx.inputs.files import UnreadableFileError, read_json_object
from sessionfx.inputs.tables import read_header, read_table
from sessionfx.naming import strip_prefix
from sessionfx.wording import listed

PARTICIPANTS_FILE = "participants.tsv"
PARTICIPANTS_SIDECAR = "participants.json"

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


@dataclass(frozen=True)
class _Table:
    """A table with one row per label; missing cells are absent from their row."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]


@dataclass(frozen=True)
class _Gaps:
    """What participants have no value of, collected over the tables: phrases by participant."""

    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, participant: str, reason: str) -> None:
        self.reasons.setdefault(participant, []).append(reason)

    def __contains__(self, participant: str) -> bool:
        return participant in self.reasons


def read_covariates(
    raw: Path, layout: Mapping[str, Sequence[str]], names: Sequence[str], session_names: Sequence[str] = ()
) -> Covariates:
    """Read and code the covariates of an analysis.

    A column of participants.tsv is numeric where every value of the participants analysed is a finite number and
    participants.json does not describe one of these values as a level. A covariate of sessions is always numeric.

    Parameters
    ----------
    raw : Path
        Root of the raw BIDS dataset.
    layout : mapping of str to sequence of str
        The sessions each participant has maps of, labels without prefixes; only these need values.
    names : sequence of str
        Columns of participants.tsv.
    session_names : sequence of str, default=()
        Columns of the sub-XX_sessions.tsv files.

    Returns
    -------
    Covariates
        Of the participants with complete values, in the layout's order; the others are in `left_out`.

    Raises
    ------
    CommandLineError
        If a column asked for does not exist, or the dataset has no sessions that could have values.
    LevelError
        If a table is missing, cannot be read, has a row twice or something else than numbers where only numbers can
        be, if fewer than two participants have complete values, or as `code_covariates`.
    """
    names = tuple(dict.fromkeys(map(_normal, names)))
    session_names = tuple(dict.fromkeys(map(_normal, session_names)))
    if not names and not session_names:
        return Covariates.none(layout)
    both = [name for name in session_names if name in names]
    if both:
        raise CommandLineError(
            f"'{both[0]}' is named by --covariates and by --session-covariates. Keep the one that is meant."
        )
    gaps = _Gaps()
    cells = _read_participants(raw, layout, names, gaps) if names else {}
    session_values = _read_session_values(raw, layout, session_names, gaps) if session_names else {}
    kept = [participant for participant in layout if participant not in gaps]
    left_out = {participant: " and ".join(gaps.reasons[participant]) for participant in layout if participant in gaps}
    if len(kept) < 2:
        raise LevelError(_too_few(len(kept), left_out, names + session_names))
    levels_described = _read_descriptions(raw / PARTICIPANTS_SIDECAR) if names else {}
    values: dict[str, Sequence[float] | Sequence[str]] = {}
    why_categorical: dict[str, str] = {}
    for name in names:
        described = levels_described.get(name, ())
        # participants whom another covariate leaves out still show what kind of column this is
        why = _why_categorical(list(cells[name].values()), described)
        if why:
            _refuse_decimal_commas(raw / PARTICIPANTS_FILE, name, cells[name], described)
            why_categorical[name] = why
            values[name] = [cells[name][participant] for participant in kept]
        else:
            values[name] = _numbers([cells[name][participant] for participant in kept])
    session_values = {key: numbers for key, numbers in session_values.items() if key[0] in kept}
    return code_covariates(
        kept,
        values,
        why_categorical=why_categorical,
        session_columns=session_names,
        session_values=session_values,
        left_out=left_out,
        notes=_remarks_on_sessions(session_names, session_values),
    )


# participants.tsv -------------------------------------------------------------------------------------------


def _read_participants(
    raw: Path, layout: Mapping[str, Sequence[str]], names: Sequence[str], gaps: _Gaps
) -> dict[str, dict[str, str]]:
    """Cells by column and participant, of the participants analysed; what is missing is noted as gaps."""
    path = raw / PARTICIPANTS_FILE
    if not os.path.lexists(path):
        raise LevelError(
            f"{path} does not exist, so there are no covariates of participants. Add the file (a BIDS table with the "
            "columns participant_id and the covariates), or leave out --covariates."
        )
    table = _read_labelled(path, "participant_id", "sub")
    for name in names:
        _check_column(table, name, "--covariates")
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    for participant in layout:
        row = table.rows.get(participant)
        if row is None:
            gaps.add(participant, f"has no row in {path.name}")
            continue
        missing = [name for name in names if name not in row]
        if missing:
            gaps.add(participant, f"has no value of {_or(missing)} in {path.name}")
        for name in names:
            if name in row:
                cells[name][participant] = row[name]
    return cells


def _read_descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Levels that the sidecar of participants.tsv describes, by column; nothing where there is no sidecar."""
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json_object(path)
    except UnreadableFileError as error:  # without the levels, labels that are numbers would be taken for numbers
        raise LevelError(f"{error} It says what the columns of {PARTICIPANTS_FILE} mean.") from None
    return {_normal(column): _levels_in(description) for column, description in content.items()}


def _levels_in(description: Any) -> tuple[str, ...]:
    levels = description.get("Levels") if isinstance(description, dict) else None
    # a mapping in BIDS; some datasets write a list
    return tuple(_normal(str(level)) for level in levels) if isinstance(levels, dict | list) else ()


def _why_categorical(cells: Sequence[str], levels_described: Sequence[str]) -> str:
    """Say as a phrase why a column is not numeric; empty where it is."""
    numbers = _numbers(cells)
    for cell, number in zip(cells, numbers, strict=True):
        if not math.isfinite(number):
            return f"'{cell}' is not a number"
    # A level that no value has, such as '90+' of an age, does not make the other values levels.
    if set(numbers) & set(_numbers(levels_described)):
        return f"{PARTICIPANTS_SIDECAR} describes its values as levels"
    return ""


def _refuse_decimal_commas(path: Path, name: str, cells: Mapping[str, str], levels_described: Sequence[str]) -> None:
    for participant, cell in cells.items():
        if _DECIMAL_COMMA.fullmatch(cell) and cell not in levels_described:
            raise LevelError(
                f"{path}, column '{name}', sub-{participant}: '{cell}' is not a number, as it is written with a comma. "
                "Write numbers with a decimal point; if these are names of levels, describe them under 'Levels' in "
                f"{PARTICIPANTS_SIDECAR}."
            )


# sub-XX_sessions.tsv ----------------------------------------------------------------------------------------


def _read_session_values(
    raw: Path, layout: Mapping[str, Sequence[str]], names: Sequence[str], gaps: _Gaps
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Values by participant and session, where there are all; what is missing is noted as gaps."""
    if not any(session for sessions in layout.values() for session in sessions):
        raise CommandLineError(
            f"--session-covariates {names[0]}: the maps belong to no sessions that could have values. Leave the "
            "option out."
        )
    tables: dict[str, _Table] = {}
    for participant in layout:
        path = raw / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
        if os.path.lexists(path):
            tables[participant] = _read_labelled(path, "session_id", "ses")
        else:
            gaps.add(participant, f"has no {path.name}")
    if not tables:
        raise LevelError(
            f"No participant analysed has a table sub-XX/sub-XX_sessions.tsv in {raw}, so there are no covariates of "
            "sessions. Add the tables, or leave out --session-covariates."
        )
    for name in names:
        if not any(name in table.columns for table in tables.values()):
            _check_column(next(iter(tables.values())), name, "--session-covariates")
    values = {}
    for participant, table in tables.items():
        absent = [name for name in names if name not in table.columns]
        if absent:
            gaps.add(participant, f"has no column {_or(absent)} in {table.path.name}")
            continue
        for name in names:
            _check_column(table, name, "--session-covariates")
        for session in layout[participant]:
            row = table.rows.get(session)
            if row is None:
                gaps.add(participant, f"has no row of ses-{session} in {table.path.name}")
                continue
            missing = [name for name in names if name not in row]
            if missing:
                gaps.add(participant, f"has no value of {_or(missing)} for ses-{session} in {table.path.name}")
            else:
                values[participant, session] = _session_numbers(table.path, session, row, names)
    return values


def _session_numbers(path: Path, session: str, row: Mapping[str, str], names: Sequence[str]) -> tuple[float, ...]:
    numbers = _numbers([row[name] for name in names])
    for name, number in zip(names, numbers, strict=True):
        if not math.isfinite(number):
            raise LevelError(
                f"{path}, column '{name}', ses-{session}: '{row[name]}' is not a number. Covariates of sessions are "
                "numeric: write a number with a decimal point, or n/a."
            )
    return tuple(numbers)


def _remarks_on_sessions(names: Sequence[str], values: Mapping[tuple[str, str], tuple[float, ...]]) -> tuple[str, ...]:
    remarks = []
    for position, name in enumerate(names):
        numbers = [row[position] for row in values.values()]
        remarks.append(f"{name}: numeric, by session, from {min(numbers):g} to {max(numbers):g}")
    return tuple(remarks)


# Both -------------------------------------------------------------------------------------------------------


def _normal(text: str) -> str:
    """Bring text into one form: an é may be typed as one character or two, and cells may end in spaces."""
    return unicodedata.normalize("NFC", text.strip())


def _numbers(texts: Sequence[str]) -> list[float]:
    """Read numbers; what is none becomes NaN."""
    numbers: list[float] = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").astype(float).tolist()
    return numbers


def _read_labelled(path: Path, key: str, entity: str) -> _Table:
    """Read a table by the labels in its key column, with or without their prefix."""
    try:
        table = read_table(path)
        # as the file has them: a column that stands there twice has another name in the table
        columns = tuple(map(_normal, read_header(path)))
    except ParticipantError as error:  # what stops one participant elsewhere stops the group here
        raise LevelError(str(error)) from None
    rows: dict[str, dict[str, str]] = {}
    labelled = _Table(path, columns, rows)
    _check_column(labelled, key, "")
    for line, *cells in table.itertuples(index=True, name=None):
        known = {
            name: _normal(cell)
            for name, cell in zip(columns, cells, strict=True)
            if isinstance(cell, str) and _normal(cell).lower() not in ("", "n/a")
        }
        if key not in known:
            continue  # a row without a label belongs to nobody
        label = strip_prefix(known[key], entity)
        if label in rows:
            raise LevelError(
                f"{path}, line {line}: {entity}-{label} has a second row, and it cannot be told which one is right. "
                "Keep one of them."
            )
        rows[label] = known
    return labelled


def _check_column(table: _Table, name: str, option: str) -> None:
    count = table.columns.count(name)
    if count == 1:
        return
    if count > 1:
        raise LevelError(f"{table.path} has {count} columns called '{name}'. Rename all but one.")
    columns = listed(table.columns)
    if option:
        raise CommandLineError(
            f"{table.path} has no column '{name}' (columns: {columns}). Correct {option}, or add the column."
        )
    raise LevelError(
        f"{table.path} has no column '{name}' (columns: {columns}), so its rows have no owner. Add the column."
    )


def _or(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _too_few(n_kept: int, left_out: Mapping[str, str], names: Sequence[str]) -> str:
    examples = [f"sub-{participant} {reason}" for participant, reason in left_out.items()]
    shown = "; ".join(examples[:3]) + (f"; and {len(examples) - 3} more" if len(examples) > 3 else "")
    quoted = ", ".join(f"'{name}'" for name in names)
    return (
        f"{n_kept or 'None'} of the {n_kept + len(left_out)} participants analysed {'has' if n_kept == 1 else 'have'} "
        f"complete values of {quoted}, and a group design with covariates needs at least two"
        f"{f': {shown}' if shown else ''}. Complete the tables, or leave covariates out."
    )

"""Covariates from the raw dataset: participants.tsv for participants, sub-XX_sessions.tsv for their sessions.

A participant without a value that is asked for cannot stand in a design with that covariate and is left out by name.
A file, column or cell that cannot mean what was asked stops the call: one cell that is no number would else turn a
number into as many groups as it has values, and one level in two spellings would be two groups.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sessionfx.ask.covariates import LOOKS_MISSING, Covariates, code_covariates
from sessionfx.bids.names import strip_prefix
from sessionfx.bids.reading import read_json_object
from sessionfx.bids.tables import read_header, read_table
from sessionfx.errors import CommandLineError, LevelError, ParticipantError
from sessionfx.wording import listed, normal_text, quoted

PARTICIPANTS_FILE = "participants.tsv"
PARTICIPANTS_SIDECAR = "participants.json"

# BIDS writes n/a; these are what programs write for it, and mean nothing else unless the sidecar says so
SIGNS_OF_MISSING = frozenset({"na", "nan", "null", "#n/a", "#na", "<na>", "n.a.", "."})
# Numbers as people and spreadsheets write them, which are none to the table's reader
_WITH_COMMA = re.compile(r"[+-]?(\d*,\d+|\d{1,3}(,\d{3})+(\.\d*)?)")
_PERCENT = re.compile(r"[+-]?\d+([.,]\d+)?\s*%")
_BEGINS_AS_NUMBER = re.compile(r"[+−\-<>≤≥=~]*\s*[.,]?\d")
# Spellings of one level, as programs and people write them
_SAME_LEVEL = (
    frozenset({"true", "t", "1"}), frozenset({"false", "f", "0"}), frozenset({"yes", "y"}), frozenset({"no", "n"}),
    frozenset({"male", "m"}), frozenset({"female", "f"}),
)  # fmt: skip
_NEVER_NUMBERS = SIGNS_OF_MISSING | LOOKS_MISSING | {"n/a"}
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")


@dataclass(frozen=True)
class _Table:
    """A table with one row per label; missing cells are absent from their row. `lines` has the rows' lines."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    lines: dict[str, int]

    def place(self, name: str, label: str, entity: str) -> str:
        """Say where a cell is."""
        return f"{self.path}, column '{name}', line {self.lines[label]} ({entity}-{label})"


# What participants have no value of, collected over the tables: phrases by participant
_Gaps = defaultdict[str, list[str]]
# What was taken as missing though it is not written n/a: whose it is, by column and cell
_SignsOfMissing = defaultdict[tuple[str, str], list[str]]


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
    names = tuple(dict.fromkeys(map(normal_text, names)))
    session_names = tuple(dict.fromkeys(map(normal_text, session_names)))
    if not names and not session_names:
        return Covariates.none(layout)
    both = [name for name in session_names if name in names]
    if both:
        raise CommandLineError(
            f"'{both[0]}' is named by --covariates and by --session-covariates. Keep the one that is meant."
        )
    gaps, signs, session_signs = _Gaps(list), _SignsOfMissing(list), _SignsOfMissing(list)
    interactions = [pair for pair in map(_interaction, names) if pair and set(pair) <= set(names)]
    single = [name for name in names if _interaction(name) not in interactions]
    columns = _read_participants(raw, layout, single, gaps, signs) if names else {}
    session_values = _read_session_values(raw, layout, session_names, gaps, session_signs) if session_names else {}
    kept = [participant for participant in layout if participant not in gaps]
    left_out = {participant: " and ".join(gaps[participant]) for participant in layout if participant in gaps}
    if len(kept) < 2:
        raise LevelError(_too_few(len(kept), left_out, names + session_names))
    session_values = {key: numbers for key, numbers in session_values.items() if key[0] in kept}
    return code_covariates(
        kept,
        {name: column.values(kept) for name, column in columns.items()},
        why_categorical={name: column.why_categorical for name, column in columns.items() if column.why_categorical},
        interactions=interactions,
        session_columns=session_names,
        session_values=session_values,
        left_out=left_out,
        warnings=(
            *_taken_as_missing(signs, PARTICIPANTS_FILE),
            *_taken_as_missing(session_signs, "sub-XX_sessions.tsv"),
            *_ranges_of(session_names, session_values),
        ),
    )


def _interaction(name: str) -> tuple[str, str] | None:
    """Read `group:age` as two covariates."""
    first, colon, second = name.partition(":")
    return (first, second) if colon and first and second else None


# participants.tsv -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A covariate of the participants analysed: their cells, and why these are levels, empty for numbers."""

    cells: dict[str, str]
    why_categorical: str

    def values(self, participants: Sequence[str]) -> Sequence[float] | Sequence[str]:
        texts = [self.cells[participant] for participant in participants]
        return texts if self.why_categorical else _numbers(texts)


def _read_participants(
    raw: Path, layout: Mapping[str, Sequence[str]], names: Sequence[str], gaps: _Gaps, signs: _SignsOfMissing
) -> dict[str, _Column]:
    """Columns by name, of the participants analysed; what is missing is noted as gaps."""
    path = raw / PARTICIPANTS_FILE
    if not _is_there(path):
        raise LevelError(
            f"{path} does not exist, so there are no covariates of participants. Add the file (a BIDS table with the "
            "columns participant_id and the covariates), or leave out --covariates."
        )
    table = _read_labelled(path, "participant_id", "sub")
    for name in names:
        parts = _interaction(name)
        if parts and name not in table.columns:
            raise CommandLineError(
                f"--covariates '{name}' is an interaction of '{parts[0]}' and '{parts[1]}', which must be named too: "
                f"--covariates {parts[0]} {parts[1]} {name}."
            )
        _check_column(table, name, "--covariates")
    described = _read_descriptions(raw / PARTICIPANTS_SIDECAR)
    columns = {name: _read_column(table, name, layout, described.get(name, ()), signs) for name in names}
    for participant in layout:
        if participant not in table.rows:
            gaps[participant].append(f"has no row in {path.name}")
            continue
        missing = [name for name in names if participant not in columns[name].cells]
        if missing:
            gaps[participant].append(f"has no value of {quoted(missing, last='or')} in {path.name}")
    return columns


def _read_column(
    table: _Table, name: str, participants: Collection[str], levels_described: Sequence[str], signs: _SignsOfMissing
) -> _Column:
    """Tell numbers, levels and missing values apart.

    Participants whom another covariate leaves out still show what kind of column this is.
    """
    cells = {label: table.rows[label][name] for label in participants if name in table.rows.get(label, {})}
    n_numbers = sum(map(math.isfinite, _numbers(list(cells.values()))))
    n_others = sum(cell.casefold() not in SIGNS_OF_MISSING | LOOKS_MISSING for cell in cells.values())
    also_missing = LOOKS_MISSING if 2 * n_numbers > n_others else set()
    for label, cell in list(cells.items()):
        if cell not in levels_described and cell.casefold() in SIGNS_OF_MISSING | also_missing:
            signs[name, cell].append(f"sub-{label}")
            del cells[label]
    why_categorical = _why_categorical(list(cells.values()), levels_described)
    if why_categorical:
        _refuse_spoilt_numbers(table, name, cells, levels_described)
        _refuse_spelling_variants(table, name, cells, levels_described)
    return _Column(cells, why_categorical)


def _read_descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Levels that the sidecar of participants.tsv describes, by column; nothing where there is no sidecar."""
    if not _is_there(path):
        return {}
    try:
        content = read_json_object(path)
    except ParticipantError as error:  # without the levels, labels that are numbers would be taken for numbers
        raise LevelError(f"{error} It says what the columns of {PARTICIPANTS_FILE} mean.") from None
    return {normal_text(column): _levels_in(description) for column, description in content.items()}


def _levels_in(description: Any) -> tuple[str, ...]:
    levels = description.get("Levels") if isinstance(description, dict) else None
    # a mapping in BIDS; some datasets write a list
    return tuple(normal_text(str(level)) for level in levels) if isinstance(levels, dict | list) else ()


def _why_categorical(cells: Sequence[str], levels_described: Sequence[str]) -> str:
    """Say as a phrase why a column is not numeric; empty where it is."""
    numbers = _numbers(cells)
    for cell, number in zip(cells, numbers, strict=True):
        if not math.isfinite(number):
            return f"'{cell}' is not a number"
    # A level that no value has, such as '90+' of an age, does not make the other values levels.
    if _share_a_number(numbers, levels_described):
        return f"{PARTICIPANTS_SIDECAR} describes its values as levels"
    return ""


def _share_a_number(numbers: Sequence[float], levels_described: Sequence[str]) -> bool:
    return bool(set(filter(math.isfinite, numbers)) & set(_numbers(levels_described)))


def _refuse_spoilt_numbers(table: _Table, name: str, cells: Mapping[str, str], levels_described: Sequence[str]) -> None:
    """Refuse what is meant as a number and is none, in the column of text that it would make."""
    numbers = dict(zip(cells, _numbers(list(cells.values())), strict=True))
    n_numbers = sum(map(math.isfinite, numbers.values()))
    n_alike = n_numbers + sum(
        1 for label, cell in cells.items() if not math.isfinite(numbers[label]) and _BEGINS_AS_NUMBER.match(cell)
    )
    are_levels = _share_a_number(list(numbers.values()), levels_described)
    mostly_numbers = n_numbers and 2 * n_alike > len(cells) and not are_levels
    for label, cell in cells.items():
        if math.isfinite(numbers[label]):
            continue
        with_comma, percent = _WITH_COMMA.fullmatch(cell), _PERCENT.fullmatch(cell)
        if not mostly_numbers and (cell in levels_described or not (with_comma or percent)):
            continue
        why = ", as it is written with a comma" if with_comma else ", as it has a percent sign" if percent else ""
        others = f", and {n_numbers} of the column's {len(cells)} values are numbers" if n_numbers else ""
        raise LevelError(
            f"{table.place(name, label, 'sub')}: '{cell}' is not a number{why}{others}. Write numbers alone, with a "
            "decimal point, and n/a for a missing value; if these are names of levels, describe all of them under "
            f"'Levels' of '{name}' in {PARTICIPANTS_SIDECAR}."
        )


def _refuse_spelling_variants(
    table: _Table, name: str, cells: Mapping[str, str], levels_described: Sequence[str]
) -> None:
    """Refuse two levels that are one level in two spellings, unless both are described."""
    first: dict[str, str] = {}
    meant: dict[str | frozenset[str], str] = {}
    for label, cell in cells.items():
        if cell in first:
            continue
        first[cell] = label
        for meaning in _meanings(cell):
            twin = meant.setdefault(meaning, cell)
            if twin == cell or (twin in levels_described and cell in levels_described):
                continue
            raise LevelError(
                f"{table.place(name, label, 'sub')}: '{cell}' is another spelling of '{twin}' "
                f"(line {table.lines[first[twin]]}, sub-{first[twin]}), and would be a level of its own. Write both "
                f"alike; if they are two levels, describe both under 'Levels' of '{name}' in {PARTICIPANTS_SIDECAR}."
            )


def _meanings(level: str) -> list[str | frozenset[str]]:
    """List what a level may be another spelling of."""
    folded = _folded(level)
    with suppress(ValueError):
        folded = f"{float(folded):.15g}"  # 1, 1.0 and 01
    return [folded, *(spellings for spellings in _SAME_LEVEL if folded in spellings)]


def _folded(level: str) -> str:
    """Bring a level into a form without case, width, kinds of spaces and dashes, and without what cannot be seen."""
    text = unicodedata.normalize("NFKC", level).casefold().translate(_DASHES)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(text.replace("_", " ").split())


# sub-XX_sessions.tsv ----------------------------------------------------------------------------------------


def _read_session_values(
    raw: Path, layout: Mapping[str, Sequence[str]], names: Sequence[str], gaps: _Gaps, signs: _SignsOfMissing
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
        if _is_there(path):
            tables[participant] = _read_labelled(path, "session_id", "ses")
        else:
            gaps[participant].append(f"has no {path.name}")
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
            gaps[participant].append(f"has no column {quoted(absent, last='or')} in {table.path.name}")
            continue
        for name in names:
            _check_column(table, name, "--session-covariates")
        for session in layout[participant]:
            row = table.rows.get(session)
            if row is None:
                gaps[participant].append(f"has no row of ses-{session} in {table.path.name}")
                continue
            missing = [name for name in names if row.get(name, "n/a").casefold() in _NEVER_NUMBERS]
            for name in missing:
                if name in row:
                    signs[name, row[name]].append(f"sub-{participant} ses-{session}")
            if missing:
                columns = quoted(missing, last="or")
                gaps[participant].append(f"has no value of {columns} for ses-{session} in {table.path.name}")
            else:
                values[participant, session] = _session_numbers(table, session, row, names)
    return values


def _session_numbers(table: _Table, session: str, row: Mapping[str, str], names: Sequence[str]) -> tuple[float, ...]:
    numbers = _numbers([row[name] for name in names])
    for name, number in zip(names, numbers, strict=True):
        if not math.isfinite(number):
            raise LevelError(
                f"{table.place(name, session, 'ses')}: '{row[name]}' is not a number. Covariates of sessions are "
                "numeric: write a number alone, with a decimal point, or n/a for a missing value."
            )
    return tuple(numbers)


def _ranges_of(names: Sequence[str], values: Mapping[tuple[str, str], tuple[float, ...]]) -> tuple[str, ...]:
    ranges = []
    for position, name in enumerate(names):
        numbers = [row[position] for row in values.values()]
        ranges.append(f"{name}: numeric, by session, from {min(numbers):g} to {max(numbers):g}")
    return tuple(ranges)


# Both -------------------------------------------------------------------------------------------------------


def _is_there(path: Path) -> bool:
    """Whether there is something under a name, also a broken link: reading it says what is wrong."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise LevelError(f"{path} cannot be looked up ({error.strerror}). Make its folder readable.") from None
    return True


def _numbers(texts: Sequence[str]) -> list[float]:
    """Read numbers; what is none becomes NaN."""
    numbers: list[float] = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").astype(float).tolist()
    return numbers


def _read_labelled(path: Path, key: str, entity: str) -> _Table:
    """Read a table by the labels in its key column, with or without their prefix."""
    try:
        table = read_table(path)
        # as the file has them: a column that stands there twice has another name in the table
        columns = tuple(map(normal_text, read_header(path)))
    except ParticipantError as error:  # what stops one participant elsewhere stops the group here
        raise LevelError(str(error)) from None
    rows: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    labelled = _Table(path, columns, rows, lines)
    _check_column(labelled, key, "")
    for line, *cells in table.itertuples(index=True, name=None):
        known = {
            name: normal_text(cell)
            for name, cell in zip(columns, cells, strict=True)
            if isinstance(cell, str) and normal_text(cell).lower() not in ("", "n/a")
        }
        if key not in known:
            continue  # a row without a label belongs to nobody
        label = strip_prefix(known[key], entity)
        if label in rows:
            raise LevelError(
                f"{path}, line {line}: {entity}-{label} has a second row, and it cannot be told which one is right. "
                "Keep one of them."
            )
        rows[label], lines[label] = known, line
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


def _taken_as_missing(signs: _SignsOfMissing, path: str) -> Iterator[str]:
    """Count and name what was taken as missing, with the remedy."""
    for (name, cell), labels in signs.items():
        yield (
            f"{name}: '{cell}' in {path} is taken as a missing value, {len(labels)} time{'s' * (len(labels) > 1)} "
            f"({listed(labels)}). Write n/a for what is missing"
        )


def _too_few(n_kept: int, left_out: Mapping[str, str], names: Sequence[str]) -> str:
    examples = [f"sub-{participant} {reason}" for participant, reason in left_out.items()]
    shown = "; ".join(examples[:3]) + (f"; and {len(examples) - 3} more" if len(examples) > 3 else "")
    return (
        f"{n_kept or 'None'} of the {n_kept + len(left_out)} participants analysed {'has' if n_kept == 1 else 'have'} "
        f"complete values of {quoted(names)}, and a group design with covariates needs at least two"
        f"{f': {shown}' if shown else ''}. Complete the tables, or leave covariates out."
    )

"""BIDS tables (tab-separated, `n/a` for missing): reading with errors that name file, line and remedy, and writing."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from sessionfx.bids.reading import LARGEST_TABLE, open_input, read_text
from sessionfx.errors import ParticipantError
from sessionfx.wording import shortened

# fMRIPrep's largest tables of confounds have some thousand columns
MOST_COLUMNS = 20_000
_LONGEST_HEADER = 4 * 2**20
_LINE_ENDS = re.compile("\r\n|\n|\r")
# What stands between the columns of tables that are no TSV, by the name people give it
_OTHER_SEPARATORS = {",": "commas", ";": "semicolons", "  ": "spaces", " ": "spaces"}
_MISSING = frozenset(("", "n/a"))
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


def read_table(path: Path) -> pd.DataFrame:
    """Read a TSV file as text; every cell is a string, `n/a` and empty cells are missing.

    BIDS knows no quotation marks: one that begins a cell is a character like others, and never joins lines. A cell that
    stands between two of them, as spreadsheets and R write it, is taken without them.

    Returns
    -------
    DataFrame
        One column of strings per column of the file; the index is the line of each row in the file.

    Raises
    ------
    ParticipantError
        If the file cannot be read, has no header, is separated by something else than tabs, has a row with more cells
        than the header, or the header twice.
    """
    lines = _LINE_ENDS.split(read_text(path, largest=LARGEST_TABLE))
    header = _header(lines[0], path)
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue  # an empty line, or one of tabs alone as spreadsheets leave them at the end
        cells: list[str | None]
        if '"' in line or " " in line:
            cells = [_cell(text) for text in line.split("\t")]
        else:  # the usual line, in a third of the time
            cells = [None if text in _MISSING else text for text in line.split("\t")]
        while len(cells) > len(header) and cells[-1] is None:
            cells.pop()  # a tab at the end of a row
        if len(cells) > len(header):
            raise ParticipantError(
                f"{path}, line {number}: {len(cells)} cells, but the header names {len(header)} columns. Correct the "
                "file."
            )
        if cells == header:
            raise ParticipantError(
                f"{path}, line {number} repeats the header, as if two files had been joined. Correct the file."
            )
        rows.append(cells + [None] * (len(header) - len(cells)))
        numbers.append(number)
    return pd.DataFrame(rows, pd.Index(numbers, name="line", dtype=int), _distinct(header), dtype=object)


def read_header(path: Path) -> tuple[str, ...]:
    """Read the names of the columns of a TSV file alone, as they stand there: one that is there twice comes twice.

    Raises
    ------
    ParticipantError
        As `read_table`.
    """
    with open_input(path) as stream:
        try:
            beginning = stream.readline(_LONGEST_HEADER)  # up to the end of all where lines end in CR alone
        except OSError as error:
            raise ParticipantError(f"{path} cannot be read ({error.strerror}). Check the file.") from None
    header = _header(_LINE_ENDS.split(beginning.decode("utf-8-sig", errors="replace"), maxsplit=1)[0], path)
    return tuple(name.strip() for name in header)


def columns_there(paths: Iterable[Path | None]) -> Iterator[str]:
    """Give the names of columns of tables; one that cannot be read is reported when its participant is analysed."""
    for path in dict.fromkeys(paths):
        with suppress(ParticipantError):
            yield from read_header(path) if path is not None else ()


def numeric_column(table: pd.DataFrame, column: str, path: Path, *, allow_missing: bool = False) -> pd.Series:
    """Turn a text column of `read_table` into numbers, and `n/a` into NaN where that is allowed.

    Raises
    ------
    ParticipantError
        If a cell is not a finite number; the message names file, column and line.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = ~(numbers.abs() < float("inf"))
    if allow_missing:
        bad &= table[column].notna()
    if bad.any():
        line = table.index[bad][0]
        cell = table[column][line]
        shown = "n/a" if pd.isna(cell) else f"'{shortened(str(cell))}'"
        comma = " (numbers have a decimal point, not a comma)" if _DECIMAL_COMMA.fullmatch(str(cell)) else ""
        raise ParticipantError(
            f"{path}, column '{column}', line {line}: {shown} is not a number{comma}. Correct or remove that row."
        )
    return numbers


def table_text(table: pd.DataFrame) -> str:
    """Write a table as TSV: `n/a` where a cell is missing; minus signs are ASCII, as programs read them.

    Parameters
    ----------
    table : DataFrame
        Its index is not written. Tabs and line breaks in texts become spaces.

    Returns
    -------
    str
    """
    cells = table.map(lambda cell: " ".join(cell.split()) if isinstance(cell, str) else cell)
    text: str = cells.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.10g", quoting=csv.QUOTE_NONE)
    return text.replace("−", "-")


def _header(line: str, path: Path) -> list[str]:
    if line.count("\t") >= MOST_COLUMNS or len(line) >= _LONGEST_HEADER:
        raise ParticipantError(
            f"{path} has {line.count(chr(9)) + 1} columns, and no table of this kind has more than {MOST_COLUMNS}. "
            "Check what it is."
        )
    header = [_cell(text) or "" for text in line.split("\t")]
    while len(header) > 1 and not header[-1]:
        header.pop()
    if not any(header):
        raise ParticipantError(f"{path} cannot be read as a tab-separated table: it has no header. Correct the file.")
    if len(header) == 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in header[0]:
                raise ParticipantError(f"{path} is separated by {name}; BIDS asks for tabs. Convert the file.")
    return header


def _cell(text: str) -> str | None:
    """Take a cell apart from what surrounds it; None where it is missing."""
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        text = text[1:-1].replace('""', '"')
    return None if text.strip() in _MISSING else text


def _distinct(header: Sequence[str]) -> list[str]:
    """Give columns of one name a number from the second on, as pandas does; spaces around a name mean nothing."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        name = name.strip()
        count = seen[name] = seen.get(name, -1) + 1
        names.append(f"{name}.{count}" if count else name)
    return names

"""Reading BIDS tables (tab-separated, `n/a` for missing) with errors that name the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sessionfx.errors import ParticipantError


def read_table(path: Path) -> pd.DataFrame:
    """Read a TSV file as text; every cell is a string, `n/a` and empty cells are missing.

    Parameters
    ----------
    path : Path

    Returns
    -------
    DataFrame
        One column of strings per column of the file.

    Raises
    ------
    ParticipantError
        If the file cannot be read or has no header.
    """
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            keep_default_na=False,
            na_values=["n/a", ""],
            encoding="utf-8-sig",
            index_col=False,  # else a tab at the end of every row makes the first column the index
        )
    except FileNotFoundError:
        raise ParticipantError(
            f"{path} does not exist (or is a link to data not fetched). Get the file first."
        ) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ParticipantError(
            f"{path} cannot be read as a tab-separated table: {str(error).strip()}. Correct the file."
        ) from None
    if len(table.columns) == 1 and "," in str(table.columns[0]):
        raise ParticipantError(f"{path} is separated by commas; BIDS asks for tabs. Convert the file.")
    return table


def numeric_column(table: pd.DataFrame, column: str, path: Path, *, allow_missing: bool = False) -> pd.Series:
    """Turn a text column into numbers.

    Parameters
    ----------
    table : DataFrame
        From `read_table`.
    column : str
        A column of it.
    path : Path
        The file, for the message.
    allow_missing : bool, default=False
        Whether `n/a` becomes NaN.

    Returns
    -------
    Series of float

    Raises
    ------
    ParticipantError
        If a cell is not a finite number; the message names file, column and row.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    finite = numbers.abs() < float("inf")
    bad = ~finite & ~(table[column].isna() if allow_missing else False)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        cell = table[column].iloc[row]
        shown = "n/a" if pd.isna(cell) else f"'{cell}'"
        # +2: the header is line 1 of the file
        raise ParticipantError(
            f"{path}, column '{column}', line {row + 2}: {shown} is not a number. Correct or remove that row."
        )
    return numbers

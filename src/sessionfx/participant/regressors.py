"""A user's own regressors: a table for each run, found by a pattern of paths."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from sessionfx.bids.runs import RunInputs, RunSelection
from sessionfx.bids.tables import numeric_column, read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.options.values import RUN_PATTERN


def with_regressors(selection: RunSelection, pattern: str | None, raw: Path) -> RunSelection:
    """Give each run its table; a run without exactly one gets a problem.

    Parameters
    ----------
    selection : RunSelection
    pattern : str or None
        Of `--regressors`: entities of the run in braces, `*` and `?`; from the raw dataset, or absolute.
    raw : Path

    Raises
    ------
    CommandLineError
        If no run has a table.
    """
    if pattern is None:
        return selection
    runs = {label: tuple(_with_table(run, pattern, raw) for run in own) for label, own in selection.runs.items()}
    if not any(run.regressors for own in runs.values() for run in own):
        first = next(iter(runs.values()))[0]
        raise CommandLineError(
            f"--regressors '{pattern}' finds no table of any run: {first.name} {first.problem}. Patterns begin at "
            f"BIDS_DIR ({raw}) or are absolute. Correct the pattern."
        )
    return replace(selection, runs=runs)


def _with_table(run: RunInputs, pattern: str, raw: Path) -> RunInputs:
    wanted = _filled(pattern, run.entities)
    found = sorted(glob.glob(wanted, root_dir=raw))  # noqa: PTH207 - a Path's glob takes no absolute pattern
    if len(found) == 1:
        return replace(run, regressors=raw / found[0])
    problem = f"needs one table of --regressors, and {len(found)} files are called {wanted}"
    return replace(run, problem=run.problem or problem)


def _filled(pattern: str, entities: Mapping[str, str]) -> str:
    """Replace entities in braces; it is plain text, and no format string."""
    for entity in RUN_PATTERN.entities:
        if entity in entities:
            pattern = pattern.replace(f"{{{entity}}}", entities[entity])
    return pattern


def read_regressors(path: Path, n_volumes: int) -> pd.DataFrame:
    """Read the regressors of a run, of shape (T, K).

    Raises
    ------
    ParticipantError
        If the table does not fit the volumes, or a cell is no number.
    """
    table = read_table(path)
    if len(table) != n_volumes:
        raise ParticipantError(
            f"{path} has {len(table)} rows, but the run has {n_volumes} volumes. A table of --regressors has a row for "
            "each volume, below the names of its columns."
        )
    columns = {str(column): numeric_column(table, str(column), path) for column in table}
    return pd.DataFrame(columns).reset_index(drop=True)

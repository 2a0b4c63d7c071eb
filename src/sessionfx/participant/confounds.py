"""Confound regressors of a run, chosen by name, glob or preset from fMRIPrep's table.

The anatomical components are those of the combined mask of white matter and CSF, as nilearn's `load_confounds` takes
them (`anat_combined`). From fMRIPrep 1.4 to 20.2 the columns `a_comp_cor_00…` are those of CSF, then of white matter,
then the combined ones, and only the JSON file beside the table says which is which.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.confounds import ALWAYS, COMPONENTS, DEFAULT_PRESET, PRESETS
from sessionfx.bids.reading import read_json_object
from sessionfx.bids.tables import numeric_column, read_header, read_table
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel
from sessionfx.wording import listed

# Each marks a volume of one run, so that runs differ in them
OF_SINGLE_VOLUMES = ("motion_outlier*", ALWAYS)

# Components that a preset takes
_N_COMPONENTS = 5
_COMPONENT = re.compile(r"a_comp_cor_\d+\Z")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Confounds:
    """Confound regressors of one run."""

    table: pd.DataFrame  # one column per regressor, one row per volume; no missing values
    warnings: tuple[str, ...] = ()  # what a reader should know, as sentences
    lost: tuple[int, ...] = ()  # volumes beyond a threshold, counted from 0: a regressor of its own explains each


@dataclass(frozen=True)
class Choice:
    """Columns of a confounds table that a call asks for."""

    columns: tuple[str, ...]  # in the order asked for, each once; non-steady-state regressors last
    missing: tuple[str, ...] = ()  # names that are not columns
    warnings: tuple[str, ...] = ()  # what a reader should know, as sentences


def choose_columns(path: Path, wanted: Sequence[str], columns: Sequence[str]) -> Choice:
    """Resolve presets, globs and names (none: the default) against the columns of a table.

    A JSON file beside the table says what its components are.

    Raises
    ------
    ParticipantError
        If the JSON file is needed and cannot be read.
    """
    wanted = wanted or (DEFAULT_PRESET,)
    there = dict.fromkeys(columns)
    chosen: dict[str, None] = {}
    missing: list[str] = []
    warnings: list[str] = []
    for pattern in (name for item in wanted for name in PRESETS.get(item, (item,))):
        if pattern == COMPONENTS:
            components, warning = _first_components(path, there)
            warnings += warning
            chosen.update(dict.fromkeys(components))
            if not components:
                missing.append("a_comp_cor_00")
        elif pattern in there:
            chosen[pattern] = None
        elif is_pattern(pattern):
            found = _matching(there, pattern)
            chosen.update(dict.fromkeys(found))
            # a preset's may match nothing: a run can be without motion outliers
            if not found and pattern in wanted:
                warnings.append(f"No confound matches '{pattern}'.")
            warnings += _warnings_on_masks(path, pattern, found)
        else:
            missing.append(pattern)
    if set(wanted) != {"none"}:
        chosen.update(dict.fromkeys(_matching(there, ALWAYS)))
    return Choice(tuple(chosen), tuple(missing), tuple(warnings))


def is_pattern(name: str) -> bool:
    """Whether a name is a glob."""
    return _GLOB.search(name) is not None


def _matching(columns: Collection[str], pattern: str) -> list[str]:
    return [column for column in columns if fnmatch.fnmatchcase(column, pattern)]


def sidecar_of(path: Path | None) -> Path | None:
    """Name the JSON file that describes the columns of a confounds table."""
    return None if path is None else path.with_suffix(".json")


def _first_components(path: Path, columns: Collection[str]) -> tuple[list[str], list[str]]:
    """Find the first components of the combined mask, and say what is not as it should be."""
    there = [column for column in columns if _COMPONENT.match(column)]
    if not there:
        return [], []
    combined, warnings = there, []
    sidecar = path.with_suffix(".json")
    # a link without its target is data that were not fetched, not a dataset without the file
    if sidecar.exists() or sidecar.is_symlink():
        masks = _masks_in(sidecar)
        described = [name for name in there if name in masks]
        combined = [name for name in described if masks[name] == "combined"]
        if described and not combined:
            raise ParticipantError(
                f"{sidecar} describes no a_comp_cor column of the combined mask (masks there are: "
                f"{listed(sorted({masks[name] for name in described}))}), which --confounds compcor takes. Name "
                "the columns in its place."
            )
        unknown = "" if described else f"{sidecar.name} does not say (as Mask)"
    else:
        unknown = f"{path.name} has no JSON file beside it ({sidecar.name}) that says"
    if unknown:
        combined = there
        warnings.append(
            f"{unknown} what its a_comp_cor columns are made of: {', '.join(there[:_N_COMPONENTS])} are taken. "
            "fMRIPrep 1.4 to 20.2 has those of CSF first; restore the file if that made it."
        )
    if len(combined) < _N_COMPONENTS:
        warnings.append(
            f"{path.name} has {len(combined)} combined components; --confounds compcor takes five elsewhere."
        )
    return combined[:_N_COMPONENTS], warnings


def _warnings_on_masks(path: Path, pattern: str, columns: Sequence[str]) -> list[str]:
    """Say where a glob takes components of single tissues: their numbers do not tell."""
    components = [name for name in columns if _COMPONENT.match(name)]
    sidecar = path.with_suffix(".json")
    if not components or not sidecar.is_file():
        return []
    masks = _masks_in(sidecar)
    others = [masks[name] for name in components if masks.get(name, "combined") != "combined"]
    if not others:
        return []
    return [
        f"'{pattern}' takes components of {' and '.join(sorted(set(others)))} ({len(others)} of {len(components)}, by "
        f"{sidecar.name}); --confounds compcor takes those of the combined mask."
    ]


def _masks_in(sidecar: Path) -> dict[str, str]:
    """Read which mask each component is of, in lower case, where that is said."""
    described = read_json_object(sidecar).items()
    masks = {name: description.get("Mask") for name, description in described if isinstance(description, dict)}
    return {name: mask.lower() for name, mask in masks.items() if isinstance(mask, str) and mask}


def columns_of_run(path: Path | None, wanted: Sequence[str]) -> tuple[str, ...]:
    """Name the confounds a run is modelled with, from its table's header.

    Raises
    ------
    ParticipantError
        If the header cannot be read, or lacks what is wanted.
    """
    return () if path is None else choose_columns(path, wanted, read_header(path)).columns


def differences_between_runs(columns_by_run: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which confounds (see `columns_of_run`, by the run's name) some runs of a participant have and others lack.

    Columns that mark single volumes differ by nature.
    """
    comparable = {
        run: [name for name in columns if not any(fnmatch.fnmatchcase(name, p) for p in OF_SINGLE_VOLUMES)]
        for run, columns in columns_by_run.items()
    }
    everywhere = list(dict.fromkeys(name for columns in comparable.values() for name in columns))
    warnings = []
    for run, columns in comparable.items():
        own = set(columns)
        lacking = [name for name in everywhere if name not in own]
        if lacking:
            warnings.append(
                f"{run} is modelled without {listed(lacking, most=5)}, which other runs of this participant have "
                "among their confounds."
            )
    return warnings


def read_confounds(path: Path | None, wanted: Sequence[str], n_volumes: int) -> Confounds:
    """Read the confounds of a run.

    fMRIPrep leaves the first row of derivatives `n/a`; it takes the second row's value, as in nilearn's
    `load_confounds`.

    Parameters
    ----------
    path : Path or None
        A confounds table; None where the run has none.
    wanted : sequence of str
        Presets, globs or names; empty for the default (`motion6` where there is a table).
    n_volumes : int
        Volumes of the run.

    Raises
    ------
    ParticipantError
        If columns are asked for and missing, their rows do not match the volumes, or values are missing beyond
        the first row.
    """
    empty = pd.DataFrame(index=range(n_volumes))
    if path is None:
        if any(item != "none" for item in wanted):
            raise ParticipantError(
                f"--confounds {' '.join(wanted)}: the run has no confounds file (…_desc-confounds_timeseries.tsv) in "
                "the derivatives. Provide it, or use --confounds none."
            )
        warning = () if wanted else ("The run has no confounds file; its model has no confound regressors.",)
        return Confounds(empty, warning)
    table = read_table(path)
    columns = list(table.columns)
    choice = choose_columns(path, wanted, columns)
    chosen, warnings = choice.columns, choice.warnings
    if choice.missing:
        raise ParticipantError(
            f"{path} has no column '{choice.missing[0]}', which --confounds {' '.join(wanted or (DEFAULT_PRESET,))} "
            f"asks for. The columns are: {listed(columns)}. Choose among them, or use --confounds none."
        )
    if not chosen:
        removed = (
            f"{path.name} has {len(table)} rows, but the run has {n_volumes} volumes. If volumes were removed from its "
            "beginning, StartTime in the image's …_bold.json must say when the first of the others was acquired "
            "(seconds), as onsets count from the first of all; if any were removed later, times are wrong from there "
            "on: use the image with all volumes."
        )
        return Confounds(empty, warnings if len(table) == n_volumes else (*warnings, removed))
    _check_length(table, path, n_volumes)
    values = {}
    for column in chosen:
        numbers = numeric_column(table, column, path, allow_missing=True)
        if len(numbers) > 1 and pd.isna(numbers.iloc[0]):
            numbers.iloc[0] = numbers.iloc[1]
        _check_missing(numbers, path, ". Leave this column out of --confounds, or correct the file.")
        values[column] = numbers
    return Confounds(pd.DataFrame(values).reset_index(drop=True), warnings)


def with_spikes(confounds: Confounds, path: Path | None, model: FirstLevelModel) -> Confounds:
    """Add a regressor for each volume beyond the thresholds of motion, unless one marks that volume already.

    A volume beyond a threshold has a higher value; the first, for which there is none (`n/a`), has not. The regressor
    of volume t, counted from 0, is called `spike_t`.

    Parameters
    ----------
    confounds : Confounds
        Of T rows.
    path : Path or None
        The confounds table.
    model : FirstLevelModel

    Raises
    ------
    ParticipantError
        If the table or a column it needs is missing, or values are missing beyond the first row.
    """
    thresholds = {
        column: (option, threshold)
        for column, option, threshold in (
            ("framewise_displacement", "--fd-threshold", model.fd_threshold),
            ("std_dvars", "--dvars-threshold", model.dvars_threshold),
        )
        if threshold is not None
    }
    if not thresholds:
        return confounds
    n_volumes = len(confounds.table)
    beyond = {
        f"{column} above {threshold:g}": _values_of(path, column, option, n_volumes) > threshold
        for column, (option, threshold) in thresholds.items()
    }
    lost = np.flatnonzero(np.any([*beyond.values()], axis=0))
    marked = {int(np.flatnonzero(values)[0]) for _, values in confounds.table.items() if np.count_nonzero(values) == 1}
    spikes = {f"spike_{volume}": (np.arange(n_volumes) == volume) * 1.0 for volume in lost if volume not in marked}
    table = pd.concat([confounds.table, pd.DataFrame(spikes, index=confounds.table.index)], axis="columns")
    counts = ", ".join(f"{words}: {int(is_beyond.sum())}" for words, is_beyond in beyond.items())
    warning = (
        f"{len(lost)} of {n_volumes} volumes ({len(lost) / n_volumes:.0%}) are lost, each to a regressor of its own "
        f"({counts})."
    )
    warnings = (*confounds.warnings, warning) if len(lost) else confounds.warnings
    return Confounds(table, warnings, tuple(int(volume) for volume in lost))


def _values_of(path: Path | None, column: str, option: str, n_volumes: int) -> NDArray[np.float64]:
    """Read a column that a threshold is of; the first value may be missing."""
    table = None if path is None else read_table(path)
    if path is None or table is None or column not in table:
        where = "the run has no confounds file" if path is None else f"{path} has no such column"
        raise ParticipantError(f"{option} needs '{column}', and {where}. Provide it, or leave the option out.")
    _check_length(table, path, n_volumes)
    numbers = numeric_column(table, column, path, allow_missing=True)
    _check_missing(
        numbers.iloc[1:], path, f", where {option} needs a number. Correct the file, or leave the option out."
    )
    return numbers.to_numpy()


def _check_length(table: pd.DataFrame, path: Path, n_volumes: int) -> None:
    if len(table) != n_volumes:
        raise ParticipantError(
            f"{path} has {len(table)} rows, but the run has {n_volumes} volumes. Use the confounds file of the same "
            "preprocessing as the image."
        )


def _check_missing(numbers: pd.Series, path: Path, remedy: str) -> None:
    """Refuse a column without a number in some row."""
    missing = numbers.isna()
    if missing.any():
        line = numbers.index[missing][0]
        raise ParticipantError(f"{path}, column '{numbers.name}', line {line}: n/a beyond the first volume{remedy}")

"""Confound regressors of a run, chosen by name, glob or preset from fMRIPrep's table.

Presets as data: `motion6` to `motion24` are the realignment parameters, with their derivatives and squares
(Satterthwaite et al. 2013, doi:10.1016/j.neuroimage.2012.08.052); `compcor` adds the first five anatomical
components (Behzadi et al. 2007, doi:10.1016/j.neuroimage.2007.04.042); `scrub` adds one column per volume that
fMRIPrep marks as a motion outlier.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sessionfx.errors import ParticipantError
from sessionfx.inputs.tables import numeric_column, read_table

_AXES = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
_MOTION12 = (*_AXES, *(f"{axis}_derivative1" for axis in _AXES))
_MOTION24 = (*_MOTION12, *(f"{axis}_power2" for axis in _MOTION12))

DEFAULT_PRESET = "motion6"
PRESETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "motion6": _AXES,
    "motion12": _MOTION12,
    "motion24": _MOTION24,
    "compcor": (*_AXES, *(f"a_comp_cor_{index:02d}" for index in range(5))),
    "scrub": (*_AXES, "motion_outlier*"),
}
PRESET_WORDS = {
    "none": "no confounds",
    "motion6": "the six realignment parameters",
    "motion12": "the six realignment parameters and their derivatives",
    "motion24": "the six realignment parameters, their derivatives, and the squares of both",
    "compcor": "the six realignment parameters and the first five anatomical CompCor components",
    "scrub": "the six realignment parameters and one regressor for each volume marked as a motion outlier",
}
# Volumes before the magnetisation reaches its steady state are modelled whatever else is chosen; only a plain
# `none` means no confound at all, as for nilearn without confounds.
ALWAYS = "non_steady_state_outlier*"

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Confounds:
    """Confound regressors of one run.

    Attributes
    ----------
    table : DataFrame
        One column per regressor, one row per volume; no missing values.
    notes : tuple of str
        What a reader should know, as sentences.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()


def expand_names(wanted: Sequence[str], columns: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Resolve presets, globs and names against the columns of a table.

    Parameters
    ----------
    wanted : sequence of str
        Presets, globs or column names.
    columns : sequence of str
        Columns there are.

    Returns
    -------
    chosen : list of str
        Columns in the order asked for, each once; non-steady-state regressors last.
    missing : list of str
        Names that are not columns.
    unmatched : list of str
        Globs the user wrote that match no column (a preset's may: a run can be without motion outliers).
    """
    patterns = [name for item in wanted for name in PRESETS.get(item, (item,))]
    chosen: dict[str, None] = {}
    missing, unmatched = [], []
    for pattern in patterns:
        if pattern in columns:
            chosen[pattern] = None
        elif _GLOB.search(pattern):
            found = [column for column in columns if fnmatch.fnmatchcase(column, pattern)]
            chosen.update(dict.fromkeys(found))
            if not found and pattern in wanted:
                unmatched.append(pattern)
        else:
            missing.append(pattern)
    if set(wanted) != {"none"}:
        chosen.update(dict.fromkeys(column for column in columns if fnmatch.fnmatchcase(column, ALWAYS)))
    return list(chosen), missing, unmatched


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

    Returns
    -------
    Confounds

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
        note = () if wanted else ("The run has no confounds file; its model has no confound regressors.",)
        return Confounds(empty, note)
    table = read_table(path)
    columns = [str(column) for column in table.columns]
    chosen, missing, unmatched = expand_names(wanted or (DEFAULT_PRESET,), columns)
    if missing:
        raise ParticipantError(
            f"{path} has no column '{missing[0]}', which --confounds {' '.join(wanted or (DEFAULT_PRESET,))} asks for. "
            f"Columns there are: {_shortened(columns)}. Choose among them, or use --confounds none."
        )
    notes = [f"No confound matches '{pattern}'." for pattern in unmatched]
    if not chosen:
        return Confounds(empty, tuple(notes))
    if len(table) != n_volumes:
        raise ParticipantError(
            f"{path} has {len(table)} rows, but the run has {n_volumes} volumes. Use the confounds file of the same "
            "preprocessing as the image."
        )
    values = {}
    for column in chosen:
        numbers = numeric_column(table, column, path, allow_missing=True)
        if len(numbers) > 1 and pd.isna(numbers.iloc[0]):
            numbers.iloc[0] = numbers.iloc[1]
        if numbers.isna().any():
            row = int(numbers.isna().to_numpy().argmax())
            raise ParticipantError(
                f"{path}, column '{column}', line {row + 2}: n/a beyond the first volume. Leave this column out of "
                "--confounds, or correct the file."
            )
        values[column] = numbers
    return Confounds(pd.DataFrame(values), tuple(notes))


def _shortened(names: Sequence[str], limit: int = 40) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"

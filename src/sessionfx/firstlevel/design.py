"""The design matrix of one run, made by nilearn from real onsets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.inputs.confounds import Confounds
from sessionfx.inputs.events import Events


@dataclass(frozen=True)
class DesignModel:
    """How regressors are made: nilearn's names; high_pass in Hz."""

    hrf_model: str
    drift_model: str
    high_pass: float


@dataclass(frozen=True)
class Design:
    """Design matrix of one run.

    Attributes
    ----------
    matrix : DataFrame of shape (T, P)
        Conditions, confounds, drifts and constant; the index is the time of each volume (s).
    condition_columns : tuple of str
        The columns that model events; contrasts are over these.
    """

    matrix: pd.DataFrame
    condition_columns: tuple[str, ...]


def frame_times(n_volumes: int, repetition_time: float, start_time: float) -> NDArray[np.float64]:
    """Give the times that volumes stand for (s): StartTime is where slice timing put the first one."""
    return np.asarray(start_time + repetition_time * np.arange(n_volumes), dtype=np.float64)


def make_design(times: NDArray[np.float64], events: Events, confounds: Confounds, model: DesignModel) -> Design:
    """Make the design matrix of a run.

    Parameters
    ----------
    times : ndarray of shape (T,)
        Time of each volume (s).
    events : Events
    confounds : Confounds
    model : DesignModel

    Returns
    -------
    Design

    Raises
    ------
    ParticipantError
        If a condition is called like another column.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    added = confounds.table.set_axis(times, axis="index") if len(confounds.table.columns) else None
    drift = None if model.drift_model == "none" else model.drift_model
    with warnings.catch_warnings():
        # nilearn repeats what the events reader has checked and noted
        warnings.simplefilter("ignore")
        try:
            matrix = make_first_level_design_matrix(
                times,
                events.table,
                hrf_model=model.hrf_model,
                drift_model=drift,
                high_pass=model.high_pass,
                add_regs=added,
            )
        except ValueError as error:
            raise ParticipantError(
                f"The design matrix cannot be made: {error}. If a condition bears the name of a confound or of "
                "'constant', rename it in the events file."
            ) from None
    # nilearn puts the events first: one column per condition, and one more for each "+ …" of the HRF model
    n_conditions = len(events.conditions) * (1 + model.hrf_model.count("+"))
    return Design(matrix, tuple(str(column) for column in matrix.columns[:n_conditions]))

"""The design matrix of one run, made by nilearn from real onsets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.events import EARLIEST_ONSET
from sessionfx.participant.timing import Timing
from sessionfx.wording import listed


@dataclass(frozen=True)
class Design:
    """Design matrix of one run."""

    matrix: pd.DataFrame  # (T, P): conditions, confounds, drifts and constant; the index is the time of each volume (s)
    condition_columns: tuple[str, ...]  # the columns that model events
    own_columns: tuple[str, ...] = ()  # those of `--regressors`, and those with a value per volume in a model's X
    lost: tuple[int, ...] = ()  # volumes beyond a threshold of motion; see `Confounds`
    left_out: Mapping[str, str] = field(default_factory=dict)  # modulated columns that this run cannot have, and why

    @property
    def contrast_columns(self) -> tuple[str, ...]:
        """The columns that contrasts are over."""
        return self.condition_columns + self.own_columns

    def why_left_out(self, regressor: str) -> str:
        """Say why the run has no such modulated column, or no response made from it; empty if that is not known."""
        whys = (why for name, why in self.left_out.items() if regressor == name or regressor.startswith(f"{name}_"))
        return next(whys, "")


# nilearn samples a response on a grid this much finer than that of the volumes, unless told otherwise.
_OVERSAMPLING = 50
# Where volumes are not equally spaced, nilearn makes regressors on a regular grid of this step (s), and they are read
# at the volumes' times in between: less than a thousandth of a response is lost. Its own samples are a fifth of it.
_GRID_STEP = 0.1
_GRID_OVERSAMPLING = 5


def response_suffixes(model: FirstLevelModel) -> tuple[str, ...]:
    """Give what nilearn adds to a condition's name for each of its columns."""
    if model.hrf_model == "fir":
        return tuple(f"_delay_{delay}" for delay in model.fir_delays)
    return ("", *(f"_{part.strip()}" for part in model.hrf_model.split("+")[1:]))


def make_design(
    timing: Timing, events: Events, confounds: Confounds, model: FirstLevelModel, own: pd.DataFrame | None = None
) -> Design:
    """Make the design matrix of a run.

    nilearn makes the columns. It does not put them together: `make_first_level_design_matrix` adds to a matrix that
    is singular at working precision, to each column by the largest one's size, so that with a confound of 10⁸ two
    conditions that are the same no longer look it.

    nilearn takes its response function on the grid of the closest two volumes and its events on that of the mean
    distance: with volumes that are not equally spaced it stretches responses in time. They are then made on a regular
    grid and read at the volumes' times.

    Parameters
    ----------
    timing : Timing
        T volumes.
    events : Events
    confounds : Confounds
    model : FirstLevelModel
    own : DataFrame of T rows, optional
        The user's own regressors.

    Raises
    ------
    ParticipantError
        If a condition is called like another column, there are more conditions than volumes, or delays of volumes
        that are not equally spaced.
    """
    times = timing.times
    if model.hrf_model == "fir" and not timing.is_regular:
        raise ParticipantError(
            f"--hrf-model fir counts delays in volumes, which are not equally spaced here (VolumeTiming: "
            f"{timing.spacing_text} apart). Choose another --hrf-model, or leave this run out."
        )
    n_conditions = len(events.conditions) * len(response_suffixes(model))
    if n_conditions >= len(times):
        raise ParticipantError(
            f"{len(times)} volumes cannot determine the {n_conditions} regressors of {len(events.conditions)} "
            f"conditions ({listed(events.conditions, most=5)}), and nothing is left to estimate the noise. Is the "
            "trial_type of every event another? Write one name for the events of a condition, or leave this run out."
        )
    own = pd.DataFrame(index=range(len(times))) if own is None else own
    added = pd.concat([own, confounds.table], axis="columns").set_axis(times, axis="index")
    with warnings.catch_warnings():
        # nilearn repeats what the events reader has checked and noted
        warnings.simplefilter("ignore")
        matrix = pd.concat([_responses(timing, events, model), added, _drifts(timing, model)], axis="columns")
    matrix = matrix.astype(np.float64)
    repeated = sorted(set(matrix.columns[matrix.columns.duplicated()]))
    if repeated:
        raise ParticipantError(
            f"The design matrix cannot be made: several of its columns are called {listed(repeated)}. If a condition "
            "bears the name of a confound or of 'constant', rename it in the events file; a column of --regressors, in "
            "its table."
        )
    columns = tuple(str(column) for column in matrix.columns)
    n_over = n_conditions + own.shape[1]
    return Design(matrix, columns[:n_conditions], columns[n_conditions:n_over], confounds.lost, events.left_out)


def _responses(timing: Timing, events: Events, model: FirstLevelModel) -> pd.DataFrame:
    """Make the columns of the conditions."""
    from nilearn.glm.first_level import compute_regressor
    from nilearn.glm.first_level.hemodynamic_models import orthogonalize

    times = timing.times
    grid = times if timing.is_regular else np.arange(times[0], times[-1] + _GRID_STEP, _GRID_STEP)
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for condition, rows in events.table.groupby("trial_type", sort=True):
        heights = rows["modulation"] if "modulation" in rows else pd.Series(1.0, index=rows.index)
        made, own_names = compute_regressor(
            (rows["onset"].to_numpy(), rows["duration"].to_numpy(), heights.to_numpy()),
            model.hrf_model,
            grid,
            con_id=str(condition),
            fir_delays=model.fir_delays or None,
            oversampling=_OVERSAMPLING if timing.is_regular else _GRID_OVERSAMPLING,
            min_onset=EARLIEST_ONSET,
        )
        if not timing.is_regular:
            sampled = np.column_stack([np.interp(times, grid, column) for column in made.T])
            made = orthogonalize(sampled)  # derivatives, as nilearn does
        names += own_names
        columns.append(made)
    return pd.DataFrame(np.hstack(columns), index=times, columns=names)


def _drifts(timing: Timing, model: FirstLevelModel) -> pd.DataFrame:
    """Make slow drifts and the constant."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    is_ours = model.drift_model == "cosine" and not timing.is_regular
    drift = None if model.drift_model == "none" or is_ours else model.drift_model
    drifts: pd.DataFrame = make_first_level_design_matrix(
        timing.times, None, drift_model=drift, high_pass=model.high_pass
    )
    return pd.concat([_cosines(timing, model.high_pass), drifts], axis="columns") if is_ours else drifts


def _cosines(timing: Timing, high_pass: float) -> pd.DataFrame:
    """Make drifts slower than a frequency (Hz), in time: where volumes are not equally spaced."""
    times = timing.times
    n_volumes = len(times)
    length = timing.end + timing.start_time - times[0]
    last = length - (times[-1] - times[0])
    middle = times - times[0] + last / 2
    order = min(n_volumes - 1, int(np.floor(2 * length * high_pass)))
    height = np.sqrt(2 / n_volumes)
    return pd.DataFrame(
        {f"drift_{k}": height * np.cos(np.pi * k * middle / length) for k in range(1, order + 1)}, index=times
    )

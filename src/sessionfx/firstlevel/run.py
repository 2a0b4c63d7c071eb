"""One run from files to estimates: read, model, fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.firstlevel.contrasts import Contrast
from sessionfx.firstlevel.design import Design, DesignModel, frame_times, make_design
from sessionfx.firstlevel.glm import fit_run
from sessionfx.inputs.bold import open_series, read_run
from sessionfx.inputs.confounds import read_confounds
from sessionfx.inputs.events import Events, read_events
from sessionfx.inputs.runs import RunInputs
from sessionfx.maps import EstimateMap
from sessionfx.settings import Settings
from sessionfx.statistics.linear_algebra import independent_columns, is_estimable

# Repetition times of header and JSON that differ by more are not rounding (relative)
_REPETITION_TIME_TOLERANCE = 1e-3
# A longer one (s) is in milliseconds
_LONGEST_REPETITION_TIME = 100.0


@dataclass(frozen=True)
class FirstLevelModel:
    """The options of the first level; units: Hz, mm."""

    design: DesignModel
    noise_model: str
    smoothing_fwhm: float | None
    confounds: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> FirstLevelModel:
        """Take the first-level options out of all options."""
        design = DesignModel(settings.hrf_model, settings.drift_model, settings.high_pass)
        return cls(design, settings.noise_model, settings.smoothing_fwhm, settings.confounds)

    def parameters(self) -> dict[str, Any]:
        """For sidecars."""
        return {
            "HrfModel": self.design.hrf_model,
            "DriftModel": self.design.drift_model,
            "HighPassHz": self.design.high_pass if self.design.drift_model == "cosine" else None,
            "NoiseModel": self.noise_model,
            "SmoothingFwhmMm": self.smoothing_fwhm,
            "Confounds": list(self.confounds) or ["motion6 where a confounds file exists"],
            "SignalScaling": "percent of each voxel's mean over time",
        }


@dataclass(frozen=True)
class FittedRun:
    """What the analysis of a run gives.

    Attributes
    ----------
    run : RunInputs
    design : Design
    events : Events
    repetition_time, start_time : float
        In seconds.
    n_brain : int
        Voxels of the brain mask.
    mask : ndarray of bool, 3-D
        Voxels fitted.
    mean_image : ndarray, 3-D
        Mean over time, NaN outside the mask.
    estimates : dict of str to EstimateMap
        By contrast label.
    left_out : dict of str to str
        Contrasts this run does not contribute to, and why.
    redundant : tuple of str
        Columns that other columns explain.
    dof : float
        Volumes minus independent columns.
    notes : tuple of str
        What a reader should know.
    """

    run: RunInputs
    design: Design
    events: Events
    repetition_time: float
    start_time: float
    n_brain: int
    mask: NDArray[np.bool_]
    mean_image: NDArray[np.floating]
    estimates: dict[str, EstimateMap]
    left_out: dict[str, str]
    redundant: tuple[str, ...]
    dof: float
    notes: tuple[str, ...]


def analyse_run(run: RunInputs, contrasts: Sequence[Contrast], model: FirstLevelModel) -> FittedRun:
    """Analyse a run.

    Parameters
    ----------
    run : RunInputs
    contrasts : sequence of Contrast
        A contrast with a condition the run does not have is left out, with a note.
    model : FirstLevelModel

    Returns
    -------
    FittedRun

    Raises
    ------
    ParticipantError
        If a file is missing, unreadable or does not fit the others.
    """
    if run.problem:
        raise ParticipantError(f"{run.name}: {run.problem}. Correct the dataset, or choose with --bids-filter-file.")
    image = open_series(run.bold)
    design, events, times, notes = model_run(run, image, model)
    vectors, left_out = _estimable_contrasts(design, events, contrasts)
    matrix = design.matrix.to_numpy()
    kept = independent_columns(matrix)
    redundant = tuple(str(column) for index, column in enumerate(design.matrix.columns) if index not in kept)
    if redundant:
        notes.append(f"{len(redundant)} regressors are explained by others and change nothing: {', '.join(redundant)}.")
    n_volumes = len(matrix)
    if n_volumes <= len(kept):
        raise ParticipantError(
            f"{run.name} has {n_volumes} volumes for {len(kept)} regressors, so nothing is left to estimate the noise. "
            "Choose fewer --confounds or a lower --high-pass, or leave this run out."
        )
    data = read_run(image, run.bold, run.mask, model.smoothing_fwhm)
    notes.extend(data.notes)
    low = int((data.mean < 1).sum())
    if low:
        notes.append(
            f"{low} voxels have a mean below 1; percent signal change means little there (are the data demeaned?)."
        )
    estimates = {
        label: EstimateMap.where_determined(estimate, data.mask, data.grid)
        for label, estimate in fit_run(data.signal, matrix, vectors, model.noise_model).items()
    }
    for label, one in estimates.items():
        if not one.mask.any():
            raise ParticipantError(
                f"{run.name}: contrast '{label}' has no voxel with noise to test it against. Check the image."
            )
    mean_image = np.full(data.grid.shape, np.nan, dtype=np.float32)
    mean_image[data.mask] = data.mean
    return FittedRun(
        run,
        design,
        events,
        float(times[1] - times[0]),
        float(times[0]),
        data.n_brain,
        data.mask,
        mean_image,
        estimates,
        left_out,
        redundant,
        float(n_volumes - len(kept)),
        tuple(notes),
    )


def model_run(
    run: RunInputs, image: Any, model: FirstLevelModel
) -> tuple[Design, Events, NDArray[np.float64], list[str]]:
    """Make a run's design from its events, confounds and timing.

    Parameters
    ----------
    run : RunInputs
    image : nibabel image
        The run's series, of which the header is used.
    model : FirstLevelModel

    Returns
    -------
    design : Design
    events : Events
    times : ndarray of shape (T,)
        Time of each volume (s).
    notes : list of str
    """
    if run.events is None:
        raise ParticipantError(
            f"{run.name} has no events file ({run.name}_events.tsv, or one that applies to it by inheritance) "
            "in the raw dataset. Add it, or leave this run out with --bids-filter-file."
        )
    n_volumes = int(image.shape[3])
    repetition_time, notes = _repetition_time(run, image.header)
    times = frame_times(n_volumes, repetition_time, _start_time(run))
    events = read_events(run.events, first_volume=float(times[0]), end=n_volumes * repetition_time)
    confounds = read_confounds(run.confounds, model.confounds, n_volumes)
    try:
        design = make_design(times, events, confounds, model.design)
    except ParticipantError as error:
        raise ParticipantError(f"{run.name}: {error}") from None
    return design, events, times, [*notes, *events.notes, *confounds.notes]


def _estimable_contrasts(
    design: Design, events: Events, contrasts: Sequence[Contrast]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    vectors, left_out = {}, {}
    columns = [str(column) for column in design.matrix.columns]
    matrix = design.matrix.to_numpy()
    for contrast in contrasts:
        missing = contrast.missing_from(design.condition_columns)
        vector = contrast.vector(columns)
        if missing:
            left_out[contrast.label] = f"condition {', '.join(missing)} does not occur in it"
        elif not is_estimable(matrix, vector):
            left_out[contrast.label] = "its regressors cannot be told apart in this run's design"
        else:
            vectors[contrast.label] = vector
    return vectors, left_out


def _repetition_time(run: RunInputs, header: Any) -> tuple[float, list[str]]:
    """Repetition time (s): the JSON's, else the header's."""
    stated = run.metadata.get("RepetitionTime")
    in_header = _header_repetition_time(header)
    if isinstance(stated, int | float) and not isinstance(stated, bool) and 0 < stated < _LONGEST_REPETITION_TIME:
        if in_header and abs(in_header - stated) > _REPETITION_TIME_TOLERANCE * stated:
            return float(stated), [
                f"The image header says a repetition time of {in_header:g} s, the JSON {stated:g} s; the JSON counts."
            ]
        return float(stated), []
    if stated is not None:
        raise ParticipantError(
            f"{run.name}: RepetitionTime is {stated!r} in the JSON, expected seconds. Correct the sidecar."
        )
    if not in_header:
        raise ParticipantError(
            f"{run.name}: neither a JSON sidecar nor the image header gives the repetition time. Add RepetitionTime "
            "(seconds) to the run's …_bold.json."
        )
    return in_header, [f"No JSON gives RepetitionTime; the image header's {in_header:g} s is used."]


def _header_repetition_time(header: Any) -> float | None:
    zooms = header.get_zooms()
    if len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return None
    unit = header.get_xyzt_units()[1] if hasattr(header, "get_xyzt_units") else "sec"
    return float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def _start_time(run: RunInputs) -> float:
    start = run.metadata.get("StartTime", 0.0)
    if isinstance(start, bool) or not isinstance(start, int | float) or not np.isfinite(start):
        raise ParticipantError(
            f"{run.name}: StartTime is {start!r} in the JSON, expected seconds. Correct the sidecar."
        )
    return float(start)

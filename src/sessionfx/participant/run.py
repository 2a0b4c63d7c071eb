"""One run from files to estimates: read, model, fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.contrasts import Contrast, conditions_asked
from sessionfx.ask.event_model import parse_event_model
from sessionfx.bids.runs import RunInputs
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel
from sessionfx.participant.bold import RunData, open_series, read_run
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import read_confounds, with_spikes
from sessionfx.participant.design import Design, make_design
from sessionfx.participant.events import near_equal, read_events
from sessionfx.participant.glm import fit_run
from sessionfx.participant.regions import RunRegions, fit_regions
from sessionfx.participant.regressors import read_regressors
from sessionfx.participant.timing import Timing, run_timing
from sessionfx.participant.variables import modelled_run
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap
from sessionfx.space.surface import Surface
from sessionfx.statistics.linear_algebra import independent_columns, is_estimable
from sessionfx.wording import listed

# by the extension of their maps
_SPACES: dict[str, type[Space]] = {space.extension: space for space in (Grid, Surface, Grayordinates)}
# in sidecars
_SCALINGS = {
    "voxel": "percent of each {feature}'s mean over time",
    "grand-mean": "percent of the mean over {features} and time",
    "none": "none",
}


def model_parameters(model: FirstLevelModel, extension: str = Grid.extension) -> dict[str, Any]:
    """Name the options that make the maps of a run, for sidecars of files of an extension."""
    space = _SPACES[extension]
    of_events = {
        "ConditionsFrom": list(model.condition_column),
        "Recodes": list(model.recode),
        "EventFilters": list(model.event_filter),
        "DurationColumn": model.duration_column,
        "Modulators": list(model.modulator),
        "ModulatorCentering": model.modulator_centering if model.modulator else None,
    }
    return {
        **{name: asked for name, asked in of_events.items() if asked},
        "HrfModel": model.hrf_model,
        **({"FirDelays": list(model.fir_delays)} if model.fir_delays else {}),
        "DriftModel": model.drift_model,
        "HighPassHz": model.high_pass if model.drift_model == "cosine" else None,
        "NoiseModel": model.noise_model,
        "SmoothingFwhmMm": model.smoothing_fwhm,
        "Confounds": list(model.confounds) or ["motion6 where a confounds file exists"],
        **{
            name: value
            for name, value in (
                ("FramewiseDisplacementThresholdMm", model.fd_threshold),
                ("StdDvarsThreshold", model.dvars_threshold),
                ("Regressors", model.regressors),
            )
            if value is not None
        },
        "SignalScaling": _SCALINGS[model.signal_scaling].format(feature=space.feature, features=space.features),
        **({} if model.recipe is None else {"StatsModel": model.recipe.parameters()}),
    }


@dataclass(frozen=True)
class FittedRun:
    """What the analysis of a run gives."""

    run: RunInputs
    design: Design
    events: Events
    timing: Timing  # of its volumes
    n_brain: int  # voxels of the brain mask, or all features of a surface
    mask: NDArray[np.bool_]  # of the space's shape: features fitted
    mean: MeanImage
    estimates: dict[str, StatMap[Any]]  # of an estimate, or the Wald test of an F test, by contrast label
    left_out: dict[str, str]  # contrasts this run does not contribute to, and why
    redundant: tuple[str, ...]  # columns that other columns explain
    dof: float  # volumes minus independent columns
    warnings: tuple[str, ...]  # what a reader should know
    regions: dict[str, RunRegions] = field(default_factory=dict)  # by the label of an atlas
    smoothing: dict[str, Any] = field(default_factory=dict)  # of `RunData`


@dataclass(frozen=True)
class MeanImage:
    """The mean over time of a run: of the space's shape, NaN outside the mask."""

    values: NDArray[np.floating]
    space: Space


def run_mean(run: RunInputs, model: FirstLevelModel) -> MeanImage:
    """Read a run for its mean over time alone.

    Raises
    ------
    ParticipantError
        If a file is missing or unreadable.
    """
    return _mean_image(read_run(open_series(*run.images), run.bold, run.mask, model.smoothing_fwhm))


def _mean_image(data: RunData) -> MeanImage:
    values = np.full(data.space.shape, np.nan, dtype=np.float32)
    values[data.mask] = data.mean
    return MeanImage(values, data.space)


def analyse_run(
    run: RunInputs,
    contrasts: Sequence[Contrast],
    model: FirstLevelModel,
    atlases: Sequence[tuple[Path, Path | None]] = (),
) -> FittedRun:
    """Analyse a run, and the regions of atlases, each given by its `Atlas.source`.

    A contrast with a condition the run does not have is left out, with a warning.

    Raises
    ------
    ParticipantError
        If a file is missing, unreadable or does not fit the others.
    """
    if run.problem:
        raise ParticipantError(f"{run.name}: {run.problem}. Correct the dataset, or choose with --bids-filter-file.")
    image = open_series(*run.images)
    design, events, timing, warnings = model_run(run, image, contrasts, model)
    vectors, left_out = _estimable_contrasts(design, contrasts)
    matrix = design.matrix.to_numpy()
    kept = independent_columns(matrix)
    redundant = tuple(str(column) for index, column in enumerate(design.matrix.columns) if index not in kept)
    if redundant:
        warnings.append(f"{len(redundant)} regressors are explained by others and change nothing: {listed(redundant)}.")
    n_volumes = len(matrix)
    if n_volumes <= len(kept):
        raise ParticipantError(
            f"{run.name} has {n_volumes} volumes for {len(kept)} regressors, so nothing is left to estimate the noise. "
            "Choose fewer --confounds or a lower --high-pass, or leave this run out."
        )
    data = read_run(image, run.bold, run.mask, model.smoothing_fwhm, run.meshes)
    warnings.extend(data.warnings)
    low = int((data.mean < 1).sum())
    if low and model.signal_scaling == "voxel":
        warnings.append(
            f"{low} {data.space.features} have a mean below 1; percent signal change means little there (are the data "
            "demeaned?)."
        )
    if model.signal_scaling == "grand-mean" and data.mean.mean() < 1:
        warnings.append("The grand mean is below 1; percent of it mean little (are the data demeaned?).")
    estimates = {
        label: StatMap.where_determined(estimate, data.mask, data.space)
        for label, estimate in fit_run(data.signal, matrix, vectors, model.noise_model, model.signal_scaling).items()
    }
    for label, stat_map in estimates.items():
        if not stat_map.mask.any():
            raise ParticipantError(
                f"{run.name}: contrast '{label}' has none of the {data.space.features} with noise to test it against. "
                "Check the image."
            )
    return FittedRun(
        run=run,
        design=design,
        events=events,
        timing=timing,
        n_brain=data.n_brain,
        mask=data.mask,
        mean=_mean_image(data),
        estimates=estimates,
        left_out=left_out,
        redundant=redundant,
        dof=float(n_volumes - len(kept)),
        warnings=tuple(warnings),
        regions=fit_regions(data, atlases, matrix, vectors, model),
        smoothing=data.smoothing,
    )


def model_run(
    run: RunInputs, image: Any, contrasts: Sequence[Contrast], model: FirstLevelModel
) -> tuple[Design, Events, Timing, list[str]]:
    """Make a run's design from its events, confounds and timing; give these, and warnings.

    Of the image the header is used; the contrasts say which conditions are asked for.
    """
    if run.events is None:
        raise ParticipantError(
            f"{run.name} has no events file ({run.name}_events.tsv, or one that applies to it by inheritance) "
            "in the raw dataset. Add it, or leave this run out with --bids-filter-file."
        )
    timing = run_timing(run, image)
    n_volumes = len(timing.times)
    modelled: tuple[str, ...] = ()  # columns of a value per volume that a model names, for its contrasts
    if model.recipe is not None:
        events, confounds = modelled_run(run, model.recipe, timing, model.hrf_model)
        modelled = tuple(map(str, confounds.table.columns))
    else:
        event_model = parse_event_model(model)
        events = read_events(
            run.events,
            first_volume=float(timing.times[0]),
            end=timing.end,
            asked=event_model.conditions_behind(conditions_asked(contrasts)),
            model=event_model,
        )
        confounds = read_confounds(run.confounds, model.confounds, n_volumes)
    confounds = with_spikes(confounds, run.confounds, model)
    own = None if run.regressors is None else read_regressors(run.regressors, n_volumes)
    try:
        design = make_design(timing, events, confounds, model, own)
        design = replace(design, own_columns=(*design.own_columns, *modelled))
    except ParticipantError as error:
        raise ParticipantError(f"{run.name}: {error}") from None
    warnings = [
        *run.warnings,
        *timing.warnings,
        *_warnings_on_spacing(timing, model),
        *events.warnings,
        *confounds.warnings,
    ]
    return design, events, timing, warnings


def _warnings_on_spacing(timing: Timing, model: FirstLevelModel) -> list[str]:
    """Say what it means for the model that volumes are not equally spaced."""
    if timing.is_regular:
        return []
    autoregressive = (
        " The autoregressive noise model takes each volume and the next for equally far apart, which they are not; "
        "--noise-model ols assumes no such thing."
        if model.noise_model == "ar1"
        else ""
    )
    return [
        f"Volumes are not equally spaced (VolumeTiming: {timing.spacing_text} apart); responses and drifts are taken "
        f"at the time of each volume.{autoregressive}"
    ]


def _estimable_contrasts(
    design: Design, contrasts: Sequence[Contrast]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Give the weights over the design's columns that `fit_run` wants, and why contrasts are left out."""
    vectors, left_out = {}, {}
    columns = [str(column) for column in design.matrix.columns]
    matrix = design.matrix.to_numpy()
    for contrast in contrasts:
        missing = contrast.missing_from(design.contrast_columns)
        rows = contrast.matrix(columns)
        if missing:
            alike = [other for name in missing for other in near_equal(name, design.contrast_columns)]
            hint = f" (it has {', '.join(map(repr, alike))})" if alike else ""
            why = next(filter(None, map(design.why_left_out, missing)), "")
            left_out[contrast.label] = why or f"condition {', '.join(missing)} does not occur in it{hint}"
        elif not all(is_estimable(matrix, row) for row in rows):
            left_out[contrast.label] = "its regressors cannot be told apart in this run's design"
        else:
            vectors[contrast.label] = rows if contrast.is_f_test else rows[0]
    return vectors, left_out

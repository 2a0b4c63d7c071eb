"""Fitting runs, and combining runs and sessions of a participant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sessionfx.api.images import ImageMapping, StatImages
from sessionfx.api.sources import (
    ImageLike,
    TableLike,
    image_file,
    read_options,
    series_files,
    table_file,
    without_folder,
    working_folder,
)
from sessionfx.api.surfaces import MeshLike, mesh_files, meshes_of
from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.ask.session_contrasts import MEAN, resolve_session_contrasts
from sessionfx.bids.names import SURFACE_SERIES, strip_prefix
from sessionfx.bids.runs import RunInputs
from sessionfx.bids.stat_maps import as_kept
from sessionfx.bids.writing import map_image
from sessionfx.errors import CommandLineError, SessionFXError
from sessionfx.options import FirstLevelModel
from sessionfx.options.command_line import check_responses
from sessionfx.participant.analysis import combine_maps, combine_sessions
from sessionfx.participant.run import FittedRun, analyse_run
from sessionfx.space.space import Space
from sessionfx.wording import session_names

if TYPE_CHECKING:
    from sessionfx.api.images import MapImage

# a run without a name of its own, and what messages of the program say of files that are none here
_ENTITIES = {"run": "this"}
_WORDS = {
    "No JSON gives RepetitionTime": "t_r is not given", " in the JSON": " by t_r", "the JSON": "t_r",
    "Correct the sidecar": "Correct it", "neither a JSON sidecar": "neither t_r",
    "Add RepetitionTime (seconds), or VolumeTiming, to the run's …_bold.json": "Give t_r",
    "no JSON gives the repetition time": "t_r is not given",
    "Add RepetitionTime (seconds) to the run's …_bold.json": "Give t_r",
}  # fmt: skip


class RunEstimates(ImageMapping):
    """Contrasts of a run, by label: a mapping, `estimates["aMinusB"].z`.

    Attributes
    ----------
    design_matrix : DataFrame of shape (T, P)
        The index is the time of each volume (s).
    left_out : dict of str to str
        Contrasts that this run does not have, and why.
    warnings : tuple of str
        What a reader should know of data and model.
    mean : Nifti1Image, SurfaceImage or Cifti2Image
        Mean over volumes, NaN outside the mask.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> bold = Nifti1Image(np.random.default_rng(0).normal(100, 1, (3, 3, 3, 60)), np.eye(4))
    >>> events = pd.DataFrame({"onset": [10.0, 50.0], "duration": 10.0, "trial_type": ["a", "b"]})
    >>> mask = Nifti1Image(np.ones((3, 3, 3), dtype="uint8"), np.eye(4))
    >>> run = sessionfx.fit_run(bold, events, ["b - a", "a - c"], mask=mask, t_r=2.0)
    >>> list(run), run.left_out
    (['bMinusA'], {'aMinusC': 'condition c does not occur in it'})
    """

    def __init__(self, fitted: FittedRun, space: Space, units: str, warnings: tuple[str, ...]) -> None:
        self._images = {
            label: StatImages(replace(stat_map, space=space), units) for label, stat_map in fitted.estimates.items()
        }
        self._mean = replace(fitted.mean, space=space)
        self._mask = fitted.mask
        self.design_matrix: pd.DataFrame = fitted.design.matrix
        self.left_out = fitted.left_out
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"RunEstimates of {', '.join(self._images)}"

    @property
    def mean(self) -> MapImage:
        """Mean over volumes."""
        values = np.asarray(self._mean.values)[self._mask]
        image: MapImage = map_image(values, self._mask, self._mean.space, outside=np.nan)
        return image


def fit_run(
    bold: ImageLike,
    events: TableLike,
    contrasts: str | Sequence[str],
    *,
    mask: ImageLike | None = None,
    mesh: MeshLike | None = None,
    confounds: TableLike | None = None,
    confound_columns: Sequence[str] = (),
    t_r: float | None = None,
    start_time: float = 0.0,
    hrf_model: str = FirstLevelModel.hrf_model,
    fir_delays: Sequence[int] = FirstLevelModel.fir_delays,
    drift_model: str = FirstLevelModel.drift_model,
    high_pass: float = FirstLevelModel.high_pass,
    noise_model: str = FirstLevelModel.noise_model,
    smoothing_fwhm: float | None = FirstLevelModel.smoothing_fwhm,
    fd_threshold: float | None = FirstLevelModel.fd_threshold,
    dvars_threshold: float | None = FirstLevelModel.dvars_threshold,
    signal_scaling: str = FirstLevelModel.signal_scaling,
) -> RunEstimates:
    """Fit a run: the general linear model that the participant level fits, with the same numbers.

    Images and tables are given in memory or as paths. What is not described here is the option of the same name on
    the command line (docs/options.md), with its values and default.

    Parameters
    ----------
    bold : Nifti1Image, SurfaceImage, Cifti2Image, path, or paths of hemispheres
        Preprocessed image of T volumes: 4-D; of surfaces nilearn's, or the GIFTI files of both hemispheres,
        `{"L": left, "R": right}` (one is analysed alone if only that is given); of grayordinates a dense series.
    events : DataFrame or path
        Columns `onset`, `duration` (s) and `trial_type`; `modulation` if there is one.
    contrasts : str or sequence of str
        As on the command line: `a - b`, `NAME=0.5*a + 0.5*b`, `F:NAME = a; b`.
    mask : Nifti1Image or path, optional
        Brain mask on the same grid; computed from the image if there is none. Of surfaces every vertex with finite,
        varying data is used.
    mesh : PolyMesh, or dict of str to path, optional
        Surface of each hemisphere, along which vertices are smoothed: by default that of a SurfaceImage, or the one
        that is found for a name with `space-fsaverage5`, or in TemplateFlow's folder.
    confounds : DataFrame or path, optional
        T rows.
    confound_columns : sequence of str, optional
        Names, globs and presets of `--confounds`; without them all columns of a DataFrame, the default preset of a
        file.
    t_r : float, optional
        Repetition time (s); the header's if it is not given.
    start_time : float, default=0
        Time within a volume (s) that slice timing correction referred to, nilearn's `slice_time_ref` times `t_r`.
    hrf_model, drift_model, noise_model, signal_scaling : str
    fir_delays : sequence of int
        Volumes.
    high_pass : float
        Hz.
    smoothing_fwhm : float, optional
        mm.
    fd_threshold, dvars_threshold : float, optional
        mm; standardised DVARS. Volumes beyond them get regressors of their own.

    Returns
    -------
    RunEstimates
        Contrasts by label, of letters and digits as in file names: `aMinusB` of `a - b`.

    Raises
    ------
    SessionFXError
        If a file cannot be read, a value cannot be used, or images, tables and model do not fit; the message is one
        paragraph.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> bold = Nifti1Image(np.random.default_rng(0).normal(100, 1, (3, 3, 3, 60)), np.eye(4))
    >>> mask = Nifti1Image(np.ones((3, 3, 3), dtype="uint8"), np.eye(4))
    >>> events = pd.DataFrame({"onset": [10.0, 50.0], "duration": 10.0, "trial_type": ["a", "b"]})
    >>> run = sessionfx.fit_run(bold, events, "a - b", mask=mask, t_r=2.0, noise_model="ols")
    >>> float(run["aMinusB"].dof.dataobj[0, 0, 0])  # 60 volumes, less 2 conditions, 2 drifts and the constant
    55.0

    Of a surface results are images of nilearn on the same mesh:

    >>> from nilearn.datasets import load_fsaverage
    >>> from nilearn.surface import SurfaceImage
    >>> mesh, rng = load_fsaverage("fsaverage5")["pial"], np.random.default_rng(0)
    >>> data = {side: rng.normal(100, 1, (part.n_vertices, 60)) for side, part in mesh.parts.items()}
    >>> run = sessionfx.fit_run(SurfaceImage(mesh, data), events, "a - b", t_r=2.0, noise_model="ols")
    >>> run["aMinusB"].z
    <SurfaceImage (20484,)>
    """
    contrasts = [contrasts] if isinstance(contrasts, str) else contrasts
    with working_folder() as folder:
        if confounds is None:
            confound_columns = ("none",)
        elif isinstance(confounds, pd.DataFrame):
            confound_columns = confound_columns or tuple(map(str, confounds.columns)) or ("none",)
        model = FirstLevelModel(
            **read_options(
                hrf_model=hrf_model, fir_delays=fir_delays, drift_model=drift_model, high_pass=high_pass,
                noise_model=noise_model, smoothing_fwhm=smoothing_fwhm or None, fd_threshold=fd_threshold,
                dvars_threshold=dvars_threshold, signal_scaling=signal_scaling, confounds=confound_columns,
            )
        )  # fmt: skip
        check_responses(model)
        images = series_files(bold, folder, "bold", t_r)
        is_on_surface = images[0].name.endswith(SURFACE_SERIES)
        if is_on_surface and mask is not None:
            raise CommandLineError(
                "mask is of volumes; of surfaces, vertices without finite, varying data are left out. Leave it out."
            )
        meshes = meshes_of(bold, mesh) if is_on_surface else {}
        if is_on_surface and model.smoothing_fwhm is not None and not meshes:
            raise CommandLineError("smoothing_fwhm needs the surface of each hemisphere. Give it as mesh.")
        run = RunInputs(
            entities=_ENTITIES,
            bold=images[0],
            other_hemisphere=next(iter(images[1:]), None),
            meshes=mesh_files(meshes, folder) if model.smoothing_fwhm is not None else {},
            mask=None if mask is None else image_file(mask, folder, "mask"),
            events=table_file(events, folder, "events"),
            confounds=None if confounds is None else table_file(confounds, folder, "confounds"),
            metadata={"StartTime": float(start_time)} | ({} if t_r is None else {"RepetitionTime": float(t_r)}),
        )
        try:
            fitted = analyse_run(run, parse_contrasts(contrasts), model)
        except SessionFXError as error:
            raise type(error)(_named(str(error), run)) from None
        warnings = tuple(_named(without_folder(warning, folder), run) for warning in fitted.warnings)
        return RunEstimates(fitted, fitted.mean.space.with_meshes(meshes), model.effect_units, warnings)


def _named(text: str, run: RunInputs) -> str:
    """Write of a run without a name and files."""
    start = "This run" if text.startswith(run.name) else ""
    text = start + text.removeprefix(run.name if start else "").replace(run.name, "this run")
    return reduce(lambda changed, words: changed.replace(*words), _WORDS.items(), text)


def combine(
    estimates: Sequence[StatImages] | Mapping[str, StatImages],
    session_contrast: str = MEAN,
    *,
    fixed_effects: str = FirstLevelModel.fixed_effects,
    fixed_effects_dof: str = FirstLevelModel.fixed_effects_dof,
) -> StatImages:
    """Combine runs, or sessions, of one participant by fixed effects.

    The variance of the result is within-participant variance only: it says nothing of other participants. Maps of
    sessions have the digits that their files would have: of GIFTI, single precision.

    Parameters
    ----------
    estimates : sequence of StatImages, or mapping of str to StatImages
        Of one contrast: runs, or sessions by their labels in time order.
    session_contrast : str, default='mean'
        As on the command line, over the labels: `mean`, `linear`, `ses-02 - ses-01`.
    fixed_effects : {'equal', 'precision'}
        Weights of a mean: equal, or the inverse of each voxel's variances.
    fixed_effects_dof : {'satterthwaite', 'sum'}
        `sum` is what nilearn's `compute_fixed_effects` does.

    Returns
    -------
    StatImages
        At the voxels that all have.

    Raises
    ------
    SessionFXError
        If grids or units differ, no voxel is common, or these sessions cannot answer the contrast.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> mask = Nifti1Image(np.ones((3, 3, 3), dtype="uint8"), np.eye(4))
    >>> events = pd.DataFrame({"onset": [10.0, 50.0], "duration": 10.0, "trial_type": ["a", "b"]})
    >>> def fit():
    ...     bold = Nifti1Image(rng.normal(100, 1, (3, 3, 3, 60)), np.eye(4))
    ...     return sessionfx.fit_run(bold, events, "a - b", mask=mask, t_r=2.0)["aMinusB"]
    >>> pre, post = (sessionfx.combine([fit(), fit()]) for session in ("pre", "post"))
    >>> change = sessionfx.combine({"pre": pre, "post": post}, "ses-post - ses-pre")
    >>> bool(np.allclose(change.effect.get_fdata(), post.effect.get_fdata() - pre.effect.get_fdata()))
    True
    """
    model = FirstLevelModel(**read_options(fixed_effects=fixed_effects, fixed_effects_dof=fixed_effects_dof))
    named = estimates if isinstance(estimates, Mapping) else {f"map {n}": of for n, of in enumerate(estimates, 1)}
    units = {estimate.units for estimate in named.values()}
    if len(units) != 1:
        raise CommandLineError(
            f"The estimates are in {' and '.join(sorted(units))}, and cannot be combined. Fit all runs with one "
            "signal_scaling."
            if units
            else "There is nothing to combine: give one estimate at least."
        )
    if not isinstance(estimates, Mapping):
        if session_contrast != MEAN:
            raise CommandLineError(
                f"The session contrast '{session_contrast}' needs to know which session each estimate is of. Give "
                "them by label: {'01': first, '02': second}."
            )
        maps = {name: estimate._stat_map for name, estimate in named.items()}
        combined = combine_maps(maps, [1 / len(maps)] * len(maps), model, is_mean=True)
        return StatImages(as_kept(combined), *units)
    maps = {strip_prefix(str(session), "ses"): as_kept(estimate._stat_map) for session, estimate in named.items()}
    (asked,) = resolve_session_contrasts([session_contrast], tuple(maps))
    found = combine_sessions(maps, [asked], model)
    if not found:
        raise CommandLineError(
            f"The session contrast '{session_contrast}' cannot be answered from {session_names(list(maps))} of one "
            "participant. Give the sessions it is about, or ask for another one."
        )
    ((combined, _),) = found.values()
    return StatImages(combined, *units)

"""The participant level as tasks: every run is fitted, runs are combined within sessions, sessions within participants.

One participant is one chain, independent of all others: fits of runs are its parts, which any worker computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sessionfx import __version__
from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.event_model import units_of_effect
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.anatomy import AnatomyFiles, Background, find_anatomy, read_anatomy
from sessionfx.bids.atlas import Atlas
from sessionfx.bids.dataset import RAW
from sessionfx.bids.names import files_of
from sessionfx.bids.runs import RunInputs
from sessionfx.bids.stat_maps import as_kept, read_estimate, read_wald_test
from sessionfx.bids.tables import read_header
from sessionfx.bids.writing import write_text
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.options import FirstLevelModel, GroupModel
from sessionfx.participant import timing
from sessionfx.participant.confounds import columns_of_run, differences_between_runs, sidecar_of
from sessionfx.participant.files import FirstLevelFiles, read_warnings, statistics_of, warnings_of
from sessionfx.participant.page import contrast_section, participant_page, runs_section
from sessionfx.participant.regions import of_atlas, session_table
from sessionfx.participant.results import ParticipantResults, RunSummary, read_reference
from sessionfx.participant.run import FittedRun, MeanImage, analyse_run, model_parameters, run_mean
from sessionfx.report.methods import MethodsText, participant_methods
from sessionfx.space.described import kind_of
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap, on_common_voxels
from sessionfx.statistics.estimates import Result, WaldTest
from sessionfx.statistics.fixed_effects import average, weighted_sum, weighted_tests
from sessionfx.tasks.records import Record, file_state, fingerprint
from sessionfx.tasks.task import Chain, Task
from sessionfx.wording import listed, natural_key

# Estimates, or the Wald tests of an F test, by session: "" in a dataset without sessions
SessionMaps = dict[str, StatMap[Any]]


@dataclass(frozen=True, kw_only=True)
class ParticipantAnalysis:
    """What all participants of one call share."""

    model: FirstLevelModel
    thresholds: GroupModel  # of which error rate and correction are those of the pictures
    contrasts: tuple[Contrast, ...]
    session_contrasts: tuple[SessionContrast, ...]  # empty for a dataset without sessions
    entities: dict[str, str | None]  # task, space and res of every output
    output_dir: Path  # absolute
    links: dict[str, Path]  # input datasets by their name in BIDS URIs
    preprocessing: tuple[str, ...] = ()  # programs that made the derivatives
    has_pages: bool = True  # whether pages are drawn
    atlases: tuple[Atlas, ...] = ()  # of whose regions tables are written
    extension: str = Grid.extension  # of maps: that of their space

    def files_of(self, participant: str) -> FirstLevelFiles:
        """Say where the results of a participant go."""
        return FirstLevelFiles(participant, self.output_dir, self.entities, self.links, self.model, self.extension)

    def asked_of(self, run: RunInputs) -> tuple[Contrast, ...]:
        """Give the contrasts as they are in a run's task."""
        return tuple(contrast.of_task(run.entities["task"]) for contrast in self.contrasts)

    def confound_columns(self, runs: Sequence[RunInputs]) -> dict[str, tuple[str, ...]]:
        """Name the confounds each run is modelled with, by the run's name."""
        recipe = self.model.recipe
        if recipe is not None:
            headers = {run.name: () if run.confounds is None else read_header(run.confounds) for run in runs}
            return {name: recipe.columns(header) for name, header in headers.items()}
        return {run.name: columns_of_run(run.confounds, self.model.confounds) for run in runs}

    def methods(self, runs: Sequence[RunInputs]) -> MethodsText:
        """Say what is done to runs, for the methods section of a paper."""
        columns: list[tuple[str, ...]] = []
        for run in runs:
            # what cannot be read is reported when the run is analysed
            with contextlib.suppress(ParticipantError):
                columns += self.confound_columns([run]).values()
        return participant_methods(
            self.model,
            columns,
            has_sessions=bool(self.session_contrasts),
            has_f_tests=any(contrast.is_f_test for contrast in self.contrasts),
            is_over_tasks=any(contrast.parts for contrast in self.contrasts),
            preprocessing=self.preprocessing,
            kind=kind_of(self.extension),
        )

    @property
    def is_volumes(self) -> bool:
        """Whether maps are volumes, which have pictures."""
        return self.extension == Grid.extension


def participant_chain(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Chain:
    """List the tasks of one participant, of whom all runs are given.

    A session's maps of a contrast are one task, a session contrast's another: changed files or options redo the tasks
    they affect, and what earlier calls made and this one does not ask for stays.
    """
    participant = runs[0].participant
    files = analysis.files_of(participant)
    atlases = tuple(atlas.source for atlas in analysis.atlases)
    fits = [
        Task(
            name=f"fit {run.name}",
            kind="part",
            run=partial(analyse_run, run, analysis.asked_of(run), analysis.model, atlases),
        )
        for run in runs
    ]
    results = list(_result_tasks(runs, analysis))
    return Chain(
        name=f"sub-{participant}",
        record=files.record,
        tasks=(
            *fits,
            *results,
            *_log_tasks(results, files),
            *(_mean_tasks(runs, files) if analysis.is_volumes else ()),
            *_page_tasks(participant, results, analysis),
        ),
        open=partial(_open, tuple(runs), analysis),
        page=participant_page(analysis.output_dir, participant),
        crash=files.crash,
        forgets_on_failure=True,
    )


def _result_tasks(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Iterator[Task]:
    """List the maps of sessions and those of session contrasts."""
    model, files = analysis.model, analysis.files_of(runs[0].participant)
    states = {
        run.name: [
            run.problem,
            *(run.metadata.get(field) for field in timing.FIELDS),
            *(file_state(path) for path in (run.bold, run.mask, run.events, run.confounds, sidecar_of(run.confounds))),
            *([file_state(run.regressors)] if run.regressors else []),
            *([file_state(run.other_hemisphere)] if run.other_hemisphere else []),
            *(file_state(path) for paths in run.meshes.values() for path in paths if model.smoothing_fwhm),
        ]
        for run in runs
    }
    common = [__version__, model_parameters(model), [model.fixed_effects, model.fixed_effects_dof], model.keep_run_maps]
    sessions = dict.fromkeys(run.session for run in runs)
    for contrast in analysis.contrasts:
        own: dict[str, str] = {}
        for session in sessions:
            of_session = [run for run in runs if run.session == session]
            inputs = {run.name: states[run.name] for run in of_session}
            task = Task(
                name=f"fit {contrast.label} ses {session}",
                fingerprint=fingerprint([common, contrast.row_weights, contrast.expression, inputs]),
                inputs=tuple(f"fit {run.name}" for run in of_session),
                outputs=files.outputs_of_session(session, contrast, of_session),
                run=partial(ParticipantMaps.write_session, contrast=contrast, session=session),
            )
            own[task.name] = task.fingerprint
            yield task
            for atlas in () if contrast.is_f_test else analysis.atlases:
                yield Task(
                    name=f"regions of {atlas.label} {contrast.label} ses {session}",
                    fingerprint=fingerprint([task.fingerprint, atlas.digest]),
                    inputs=(*task.inputs, task.name),
                    outputs=files.outputs_of_regions(session, contrast, atlas.label),
                    run=partial(ParticipantMaps.write_regions, contrast=contrast, session=session, atlas=atlas),
                )
        for question in analysis.session_contrasts:
            asked = [question.text, question.kind, question.sessions, question.weights, question.order_source]
            yield Task(
                name=f"combine {contrast.label} sessions {question.label}",
                fingerprint=fingerprint([list(own.values()), asked]),
                inputs=tuple(own),
                outputs=files.outputs_of_question(question, contrast),
                run=partial(ParticipantMaps.write_question, contrast=contrast, question=question),
            )


def _log_tasks(results: Sequence[Task], files: FirstLevelFiles) -> Iterator[Task]:
    """List what the log is to say of each session's maps; it speaks of all runs, whose designs come first."""
    for task in results:
        if task.name.startswith("fit "):
            yield Task(
                name=f"log {task.name.removeprefix('fit ')}",
                kind="log",
                fingerprint=task.fingerprint,
                outputs=(files.log,),
                run=ParticipantMaps.write_log,
            )


def _mean_tasks(runs: Sequence[RunInputs], files: FirstLevelFiles) -> Iterator[Task]:
    """List what each run gives to the mean image of all."""
    for run in runs:
        state = [__version__, files.model.smoothing_fwhm, file_state(run.bold), file_state(run.mask)]
        yield Task(
            name=f"mean image {run.name}",
            kind="log",
            fingerprint=fingerprint(state),
            outputs=(files.reference,),
            run=ParticipantMaps.write_reference,
        )


def _page_tasks(participant: str, results: Sequence[Task], analysis: ParticipantAnalysis) -> Iterator[Task]:
    """List the sections of the page."""
    roots = [root for name, root in analysis.links.items() if name != RAW]
    anatomy = find_anatomy(participant, analysis.entities, roots) if analysis.is_volumes else None
    for contrast in analysis.contrasts if analysis.has_pages else ():
        shown = [
            task for task in results
            if task.name.startswith((f"fit {contrast.label} ", f"combine {contrast.label} "))
        ]  # fmt: skip
        place = (analysis.output_dir, participant, analysis.entities)
        yield Task(
            name=f"draw {contrast.label}",
            kind="page",
            fingerprint=fingerprint(
                [
                    [task.fingerprint for task in shown],
                    [analysis.thresholds.alpha, analysis.thresholds.correction],
                    [file_state(path) for path in anatomy or ()],
                ]
            ),
            inputs=tuple(task.name for task in shown),
            outputs=(runs_section(*place), contrast_section(*place, contrast.label)),
            run=partial(ParticipantMaps.draw, contrast=contrast, anatomy=anatomy),
        )


def _open(
    runs: Sequence[RunInputs], analysis: ParticipantAnalysis, values: Mapping[str, Any]
) -> contextlib.AbstractContextManager[ParticipantMaps]:
    fitted = [values[f"fit {run.name}"] for run in runs if f"fit {run.name}" in values]
    return contextlib.nullcontext(ParticipantMaps(runs, analysis, fitted))


class ParticipantMaps:
    """The maps of one participant: in memory where they were made in this call, else read from the output folder.

    Parameters
    ----------
    runs : sequence of RunInputs
        All runs that are asked for.
    analysis : ParticipantAnalysis
    fitted : sequence of FittedRun
        Those that were fitted in this call.
    """

    def __init__(self, runs: Sequence[RunInputs], analysis: ParticipantAnalysis, fitted: Sequence[FittedRun]) -> None:
        self.participant = runs[0].participant
        self.runs = runs
        self.analysis = analysis
        self.files = analysis.files_of(self.participant)
        self.fitted = fitted
        self._facts: dict[str, dict[str, Any]] = {}
        self._sessions: dict[tuple[str, str], StatMap[Any] | None] = {}  # None where a session has not the contrast
        self._combined: dict[str, dict[str, tuple[StatMap[Any], dict[str, float]]]] = {}
        self._warnings: tuple[str, ...] = ()
        self._is_logged = self._has_reference = self._are_runs_drawn = False
        self._reference: Background | None = None
        self._anatomy: Background | None = None

    def summary(self) -> tuple[str, ...]:
        """Give the warnings of the log that was written.

        Raises
        ------
        ParticipantError
            If no run has any of the contrasts, in this call or an earlier one.
        """
        if self.fitted and not any(self.sessions(contrast) for contrast in self.analysis.contrasts):
            raise ParticipantError(self._refusal())
        return self._warnings

    def _refusal(self) -> str:
        fitted = self.fitted
        absent = [
            f"Contrast '{contrast.label}' cannot be estimated from any run ({fitted[0].left_out[contrast.label]})."
            for contrast in self.analysis.contrasts
            if contrast.label in fitted[0].left_out
        ]
        conditions = sorted({name for run in fitted for name in run.design.contrast_columns})
        return (
            f"None of the contrasts can be estimated from any run. {' '.join(absent)} The conditions are: "
            f"{listed(conditions)}. Change --contrast or leave this participant out."
        )

    def write_session(self, contrast: Contrast, session: str) -> None:
        """Combine the runs of a session, and write designs and maps."""
        model, files = self.analysis.model, self.files
        fitted = [run for run in self.fitted if run.run.session == session]
        for run in fitted:
            if run.run.name not in self._facts:
                self._facts[run.run.name] = files.write_design(run)
        combined = combine_runs(fitted, contrast, model)
        stat_map = self._sessions[contrast.label, session] = None if combined is None else as_kept(combined)
        if stat_map is not None:
            files.write_session(session, contrast, stat_map, fitted)
        if model.keep_run_maps and not contrast.parts:
            for run in fitted:
                if contrast.label in run.estimates:
                    files.write_run_maps(run, contrast)

    def write_regions(self, contrast: Contrast, session: str, atlas: Atlas) -> None:
        """Combine the regions of the runs of a session, and write them as a table."""
        if session not in self.sessions(contrast):
            return
        fitted = [run for run in self.fitted if run.run.session == session]
        combined = combine_runs(of_atlas(fitted, atlas.label, contrast), contrast, self.analysis.model)
        table, space = session_table(fitted, atlas.label, combined), fitted[0].mean.space
        self.files.write_regions(session, contrast, atlas, table, space)

    def write_question(self, contrast: Contrast, question: SessionContrast) -> None:
        """Write the answer to a session contrast, where there is one."""
        combined = self.combined(contrast)
        if question.label in combined:
            stat_map, weights = combined[question.label]
            self.files.write_combined(question, contrast, stat_map, weights, self.sessions(contrast))

    def write_log(self) -> None:
        """Write what a reader should know of the participant, of runs of earlier calls too."""
        if self._is_logged:
            return
        self._is_logged = True
        said = [
            warnings_of(run.name, self._facts[run.name])
            if run.name in self._facts
            else read_warnings(self.files.design(run).with_suffix(".json"))
            for run in self.runs
        ]
        self._check_averages([left_out for _, left_out in said])
        said += map(read_warnings, self._other_designs())
        absent = [
            f"Contrast '{contrast.label}' cannot be estimated from any run ({said[0][1][contrast.label]})."
            for contrast in self.analysis.contrasts
            if all(contrast.label in left_out for _, left_out in said)
        ]
        of_confounds = differences_between_runs(self.analysis.confound_columns(self.runs))
        self._warnings = (*(warning for warnings, _ in said for warning in warnings), *of_confounds, *absent)
        write_text(self.files.log, "\n".join(self._warnings or ["No warnings."]) + "\n")

    def _check_averages(self, left_out: Sequence[Collection[str]]) -> None:
        """Refuse an average of a model that is another over the runs that are left of a contrast, each with theirs."""
        recipe = self.analysis.model.recipe
        if recipe is None:
            return
        for contrast in self.analysis.contrasts:
            left = [run for run, labels in zip(self.runs, left_out, strict=True) if contrast.label not in labels]
            try:
                recipe.check_runs([(run.name, run.entities) for run in left])
            except CommandLineError as error:
                lacking = listed(run.name for run in self.runs if run not in left)
                raise ParticipantError(
                    f"Contrast '{contrast.label}', without the runs that cannot have it ({lacking}): {error}"
                ) from None

    def _other_designs(self) -> list[Path]:
        """Find what is to be known of runs of earlier calls that are not asked for in this one: JSON files."""
        own = {self.files.design(run).with_suffix(".json") for run in self.runs}
        record = Record(self.files.record, self.analysis.output_dir)
        recorded = {path for path in record.files(record.finished()) if path.name.endswith("_design.json")}
        return sorted(recorded - own, key=lambda path: natural_key(path.name))

    def write_reference(self) -> None:
        """Write the mean image of all runs; those that are not fitted in this call are read for it."""
        if self._has_reference:
            return
        self._has_reference = True
        means: dict[str, MeanImage] = {run.run.name: run.mean for run in self.fitted}
        for run in self.runs:
            if run.name not in means:
                means[run.name] = run_mean(run, self.analysis.model)
        self._reference = self.files.write_reference([means[run.name] for run in self.runs])

    def draw(self, contrast: Contrast, anatomy: AnatomyFiles | None) -> None:
        """Draw the sections of a contrast and of the runs."""
        from sessionfx.participant.section import draw_contrast, draw_runs  # with what draws; see --no-report

        results = self._results(contrast, anatomy)
        if not self._are_runs_drawn:
            self._are_runs_drawn = True
            draw_runs(results, self.analysis.output_dir)
        draw_contrast(results, self.analysis.output_dir)

    def _background(self, anatomy: AnatomyFiles | None) -> tuple[Background | None, tuple[str, ...]]:
        """Read the anatomy, or the mean image where there is none; and what a reader should know of that."""
        warnings: tuple[str, ...] = ()
        if anatomy is not None and self._anatomy is None:
            try:
                self._anatomy = read_anatomy(anatomy)
            except ParticipantError as error:
                warnings = (f"The mean image of the runs is behind the maps, as the anatomy cannot be shown: {error}",)
        if self._anatomy is None and self._reference is None:
            self._reference = read_reference(self.files.reference)
        return (self._reference if self._anatomy is None else self._anatomy), warnings

    def _results(self, contrast: Contrast, anatomy: AnatomyFiles | None) -> ParticipantResults:
        analysis = self.analysis
        background, warnings = self._background(anatomy)
        return ParticipantResults(
            participant=self.participant,
            entities=analysis.entities,
            runs=self.summaries,
            contrast=contrast,
            session_contrasts=analysis.session_contrasts,
            sessions=self.sessions(contrast),
            combined={label: stat_map for label, (stat_map, _) in self.combined(contrast).items()},
            background=background,
            warnings=warnings,
            thresholds=analysis.thresholds,
            methods=analysis.methods(self.runs),
            units=units_of_effect(contrast, analysis.model),
            meshes=self.runs[0].meshes,
        )

    @cached_property
    def summaries(self) -> tuple[RunSummary, ...]:
        """What a reader should know of each run."""
        fitted = {run.run.name: run for run in self.fitted if run.run.name in self._facts}
        return tuple(
            RunSummary(run.name, run.session, fitted[run.name].design.matrix, self._facts[run.name],
                       fitted[run.name].events.shown)
            if run.name in fitted else RunSummary.read(run, self.files.design(run), self.analysis.model)
            for run in self.runs
        )  # fmt: skip

    def sessions(self, contrast: Contrast) -> SessionMaps:
        """Give the maps of all sessions that have the contrast; those that were not made in this call are read."""
        maps: SessionMaps = {}
        for session in dict.fromkeys(run.session for run in self.runs):
            key = contrast.label, session
            if key not in self._sessions:
                self._sessions[key] = self._read(contrast, session)
            stat_map = self._sessions[key]
            if stat_map is not None:
                maps[session] = stat_map
        return maps

    def _read(self, contrast: Contrast, session: str) -> StatMap[Any] | None:
        paths = self.files.session_maps(session, contrast)
        first, second = statistics_of(contrast)[:2]
        if not all(path.is_file() for path in files_of(paths[first])):
            return None
        read: Callable[[Path, Path, Path], StatMap[Any]] = read_wald_test if contrast.is_f_test else read_estimate
        return read(paths[first], paths[second], paths["dof"])

    def combined(self, contrast: Contrast) -> dict[str, tuple[StatMap[Any], dict[str, float]]]:
        """Give estimates and session weights of the session contrasts; see `combine_sessions`."""
        if contrast.label not in self._combined:
            self._combined[contrast.label] = combine_sessions(
                self.sessions(contrast), self.analysis.session_contrasts, self.analysis.model
            )
        return self._combined[contrast.label]


def combine_runs(fitted: Sequence[FittedRun], contrast: Contrast, model: FirstLevelModel) -> StatMap[Any] | None:
    """Average the fitted runs of a session, for each task of its own; None where no run, or not each task, has it.

    A contrast over tasks is the sum of its parts.

    Raises
    ------
    ParticipantError
        If grids differ or no voxel is common.
    """
    if contrast.parts:
        of_tasks = {
            task: combine_runs([run for run in fitted if run.run.entities["task"] == task], part, model)
            for task, part in contrast.parts
        }
        there = {task: stat_map for task, stat_map in of_tasks.items() if stat_map is not None}
        return combine_maps(there, [1.0] * len(there), model, is_mean=False) if len(there) == len(of_tasks) else None
    used = [run for run in fitted if contrast.label in run.estimates]
    if not used:
        return None
    maps = {run.run.name: run.estimates[contrast.label] for run in used}
    return combine_maps(maps, [1 / len(used)] * len(used), model, is_mean=True)


def combine_sessions(
    maps: Mapping[str, StatMap[Any]], session_contrasts: Sequence[SessionContrast], model: FirstLevelModel
) -> dict[str, tuple[StatMap[Any], dict[str, float]]]:
    """Combine a participant's maps, by session, for every session contrast they can answer.

    Gives estimate and session weights, by the session contrast's label.
    """
    combined = {}
    for question in session_contrasts:
        weights = question.weights_for(list(maps))
        if weights is not None:
            named = {f"ses-{session}": maps[session] for session in weights}
            stat_map = combine_maps(named, list(weights.values()), model, is_mean=question.kind == "mean")
            combined[question.label] = (stat_map, weights)
    return combined


def combine_maps(
    maps: Mapping[str, StatMap[Any]], weights: Sequence[float], model: FirstLevelModel, *, is_mean: bool
) -> StatMap[Any]:
    """Sum estimates or F tests, by their names, on their common voxels; a mean of estimates is weighted as asked for.

    Raises
    ------
    ParticipantError
        If grids differ or no voxel is common.
    """
    common = on_common_voxels(list(maps.values()), list(maps))
    inputs = [stat_map.estimate for stat_map in common]
    combined: Result
    if isinstance(inputs[0], WaldTest):
        combined = weighted_tests(inputs, weights, model.fixed_effects_dof)
    elif is_mean:
        combined = average(inputs, model.fixed_effects, model.fixed_effects_dof)
    else:
        combined = weighted_sum(inputs, weights, model.fixed_effects_dof)
    return StatMap.where_determined(combined, common[0].mask, common[0].space)

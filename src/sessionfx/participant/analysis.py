"""The participant level: every run is fitted, runs are combined within sessions, sessions within the participant.

One participant is one unit of work, independent of all others: it reads its own runs and writes its own files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.names import entity_string, func_folder, natural_key
from sessionfx.bids.runs import RunInputs
from sessionfx.bids.stat_maps import read_estimate
from sessionfx.bids.writing import check_place, remove_stale_temporaries, together, write_text
from sessionfx.errors import ParticipantError, SessionFXError
from sessionfx.execution import in_slots, progress_bar, say, slot
from sessionfx.options import Execution, FirstLevelModel, GroupModel
from sessionfx.participant import timing
from sessionfx.participant.confounds import columns_of_run, differences_between_runs, sidecar_of
from sessionfx.participant.files import FirstLevelFiles, read_remarks
from sessionfx.participant.page import has_sections, write_participant_report
from sessionfx.participant.results import ParticipantResults, RunSummary, read_reference
from sessionfx.participant.run import FittedRun, MeanImage, analyse_run, model_parameters, run_mean
from sessionfx.report.methods import MethodsText, participant_methods
from sessionfx.space.stat_map import EstimateMap, on_common_voxels
from sessionfx.statistics.fixed_effects import average, weighted_sum
from sessionfx.tasks.records import Record, file_state, fingerprint
from sessionfx.wording import listed


@dataclass(frozen=True)
class ParticipantAnalysis:
    """What all participants of one call share.

    Attributes
    ----------
    model : FirstLevelModel
    thresholds : GroupModel
        Of which error rate and correction are those of the pictures.
    execution : Execution
    contrasts : tuple of Contrast
    session_contrasts : tuple of SessionContrast
        Empty for a dataset without sessions.
    entities : dict
        task, space and res of every output.
    output_dir : Path
        Absolute.
    links : dict of str to Path
        Input datasets by their name in BIDS URIs.
    preprocessing : tuple of str
        Programs that made the derivatives.
    """

    model: FirstLevelModel
    thresholds: GroupModel
    execution: Execution
    contrasts: tuple[Contrast, ...]
    session_contrasts: tuple[SessionContrast, ...]
    entities: dict[str, str | None]
    output_dir: Path
    links: dict[str, Path]
    preprocessing: tuple[str, ...] = ()

    @cached_property
    def files(self) -> FirstLevelFiles:
        """Where results go."""
        return FirstLevelFiles(self.output_dir, self.entities, self.links, self.model)

    def confound_columns(self, runs: Sequence[RunInputs]) -> dict[str, tuple[str, ...]]:
        """Name the confounds each run is modelled with, by the run's name."""
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
            preprocessing=self.preprocessing,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one participant: `done` (something was computed or drawn) or `finished` before.

    Attributes
    ----------
    participant, status : str
    messages : tuple of str
        What the log says.
    seconds : float
    n_removed : int
        Files of earlier calls that were removed and not made anew.
    """

    participant: str
    status: str
    messages: tuple[str, ...]
    seconds: float
    n_removed: int = 0


@dataclass(frozen=True)
class Work:
    """The pieces of work of one participant, with the digest of what determines each.

    A session's maps of a contrast are one piece, a session contrast's another: changed files or options redo the
    pieces they affect, and pieces of earlier calls that this one does not ask for stay.
    """

    fits: dict[tuple[str, str], str]  # by contrast label and session
    combinations: dict[tuple[str, str], str]  # by contrast label and session contrast label
    drawings: dict[str, str]  # by contrast label
    means: dict[str, str]  # by run: what it gives to the mean image of all

    @staticmethod
    def fit_name(contrast: str, session: str) -> str:
        """Name the work of a session's maps of a contrast in the record."""
        return f"fit {contrast} ses {session}"

    @staticmethod
    def combination_name(contrast: str, question: str) -> str:
        """Name the work of a session contrast's maps of a contrast in the record."""
        return f"combine {contrast} sessions {question}"

    @staticmethod
    def log_name(contrast: str, session: str) -> str:
        """Name the work of the log, as far as it is of a session's maps of a contrast, in the record."""
        return f"log {contrast} ses {session}"

    @staticmethod
    def mean_name(run: str) -> str:
        """Name the work of the mean image, as far as it is of a run, in the record."""
        return f"mean image {run}"

    def has_log(self, record: Record) -> bool:
        """Whether the log speaks of all that is asked for."""
        return all(record.is_finished(self.log_name(*key), digest) for key, digest in self.fits.items())

    def has_mean_image(self, record: Record) -> bool:
        """Whether the mean image is one of all runs; those of sessions that are not asked for may be in it."""
        return all(record.is_finished(self.mean_name(run), digest) for run, digest in self.means.items())

    def unfinished(self, record: Record, *, force: bool) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Find what is to be done: what is not recorded as finished, and what is combined from it.

        Returns
        -------
        fits : list of (str, str)
            Contrast label and session.
        combinations : list of (str, str)
            Contrast label and session contrast label.
        """

        def is_open(name: str, digest: str) -> bool:
            return force or not record.is_finished(name, digest)

        fits = [key for key, digest in self.fits.items() if is_open(self.fit_name(*key), digest)]
        refitted = {contrast for contrast, _ in fits}
        combinations = [
            key
            for key, digest in self.combinations.items()
            if key[0] in refitted or is_open(self.combination_name(*key), digest)
        ]
        return fits, combinations


SessionMaps = dict[str, EstimateMap]  # by session, "" in a dataset without sessions


def analyse_participant(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Outcome:
    """Analyse one participant, or what of it is not finished yet.

    Parameters
    ----------
    runs : sequence of RunInputs
        All runs of the participant.
    analysis : ParticipantAnalysis

    Returns
    -------
    Outcome

    Raises
    ------
    ParticipantError
        If this participant cannot be analysed; nothing of it counts as finished then.
    """
    started = time.monotonic()
    participant = runs[0].participant
    execution, files = analysis.execution, analysis.files
    record = Record(files.record(participant), analysis.output_dir)
    work = plan_work(runs, analysis)

    to_fit, to_combine = work.unfinished(record, force=execution.force)
    refitted = {contrast for contrast, _ in to_fit}
    changed = refitted | {contrast for contrast, _ in to_combine}
    if execution.reports_only and changed:
        raise ParticipantError(
            "--reports-only needs finished maps with the same options and unchanged input, and contrast "
            f"'{min(changed)}' has none. Run without --reports-only first."
        )
    to_draw = [
        contrast
        for contrast in ([] if execution.no_report else analysis.contrasts)
        if contrast.label in changed
        or execution.reports_only
        or not has_sections(
            analysis.output_dir, participant, analysis.entities, contrast.label, work.drawings[contrast.label]
        )
    ]
    is_noted = work.has_log(record) and work.has_mean_image(record) and not execution.force
    if not changed and not to_draw and is_noted:
        return Outcome(participant, "finished", (), time.monotonic() - started)

    for path in (files.reference(participant), *(files.design(run) for run in runs)):
        check_place(path)
    remove_stale_temporaries(analysis.output_dir / func_folder(participant).parent)
    held = _Held(participant, runs, analysis, set(to_fit))
    needs_mean = execution.force or not work.has_mean_image(record)
    if to_fit:
        try:
            held.fit()
            _check_any(held)
        except ParticipantError as error:
            # sessions that are in order must not enter a group analysis as if this participant had no others
            raise ParticipantError(f"{error}{_forget_all(participant, work, record)}") from None
    means = held.means() if needs_mean else []
    n_removed = 0
    with slot():
        if changed:
            n_removed = _write_maps(held, work, record, to_combine)
        messages: list[str] = []
        if changed or not is_noted:
            messages = _write_log(held, work, record)
        if means:
            _write_mean_image(held, means, work, record)
        if to_draw:
            write_participant_report(_results(held, to_draw), work.drawings, analysis.output_dir)
    return Outcome(participant, "done", tuple(messages), time.monotonic() - started, n_removed)


class _Held:
    """The maps of one participant: in memory once they are made or read, so that no file is read that was just written.

    Parameters
    ----------
    participant : str
    runs : sequence of RunInputs
    analysis : ParticipantAnalysis
    to_fit : set of (str, str)
        Contrast label and session of the maps that `fit` makes; the others are read from the output folder.
    """

    def __init__(
        self,
        participant: str,
        runs: Sequence[RunInputs],
        analysis: ParticipantAnalysis,
        to_fit: set[tuple[str, str]],
    ) -> None:
        self.participant = participant
        self.runs = runs
        self.analysis = analysis
        self.to_fit = to_fit
        self.fitted: list[FittedRun] = []
        self._facts: dict[str, dict[str, Any]] = {}
        self._reference: NDArray[np.floating] | None = None
        self._made: dict[str, SessionMaps] = {}
        self._sessions: dict[str, SessionMaps] = {}
        self._combined: dict[str, dict[str, tuple[EstimateMap, dict[str, float]]]] = {}

    def fit(self) -> None:
        """Fit the runs of all sessions that are to be fitted, and combine them.

        Raises
        ------
        ParticipantError
            If a run cannot be fitted, or runs or sessions do not go together: before anything is written.
        """
        analysis = self.analysis
        wanted = {
            session: [contrast for contrast in analysis.contrasts if (contrast.label, session) in self.to_fit]
            for _, session in self.to_fit
        }
        chosen = [(run, wanted[run.session], analysis.model) for run in self.runs if run.session in wanted]
        fitted = in_slots(analyse_run, chosen)
        self.fitted = list(progress_bar(fitted, f"sub-{self.participant}", "run", len(chosen)))
        for contrast in self.contrasts_fitted:
            self._made[contrast.label] = combine_runs(
                self.fitted, contrast, analysis.model.fixed_effects, analysis.model.fixed_effects_dof
            )
            self.combined(contrast)

    @property
    def contrasts_fitted(self) -> list[Contrast]:
        """Contrasts of which some session is fitted in this call."""
        labels = {label for label, _ in self.to_fit}
        return [contrast for contrast in self.analysis.contrasts if contrast.label in labels]

    def made_by_label(self, label: str) -> SessionMaps:
        """Give the session maps of a contrast that were made in this call, by its label."""
        return self._made[label]

    def remove_session(self, session: str, label: str) -> None:
        """Remove what a killed process may have left of a session that has no map."""
        contrast = next(contrast for contrast in self.contrasts_fitted if contrast.label == label)
        self.analysis.files.remove_session(self.participant, session, contrast)

    def made(self, contrast: Contrast) -> SessionMaps:
        """Give the session maps that were made in this call."""
        return self._made[contrast.label]

    def sessions(self, contrast: Contrast) -> SessionMaps:
        """Give the maps of all sessions."""
        if contrast.label not in self._sessions:
            maps = dict(self._made.get(contrast.label, {}))
            for session in dict.fromkeys(run.session for run in self.runs):
                # what lies there of those that are fitted is what a killed process left
                if (contrast.label, session) not in self.to_fit:
                    paths = self.analysis.files.session_maps(self.participant, session, contrast)
                    if paths["effect"].is_file():
                        maps[session] = read_estimate(paths["effect"], paths["variance"], paths["dof"])
            order = dict.fromkeys(run.session for run in self.runs)
            self._sessions[contrast.label] = {session: maps[session] for session in order if session in maps}
        return self._sessions[contrast.label]

    def write_designs(self) -> dict[str, list[Path]]:
        """Write the designs of the fitted runs; return their files by run."""
        written = {}
        for fitted in self.fitted:
            written[fitted.run.name], self._facts[fitted.run.name] = self.analysis.files.write_design(fitted)
        return written

    def means(self) -> list[MeanImage]:
        """Give the mean image of each run; those that are not fitted in this call are read for it."""
        fitted = {fitted.run.name: fitted for fitted in self.fitted}
        others = [run for run in self.runs if run.name not in fitted]
        read = in_slots(run_mean, [(run, self.analysis.model) for run in others])
        means = dict(zip((run.name for run in others), read, strict=True))
        means |= {name: run.mean for name, run in fitted.items()}
        return [means[run.name] for run in self.runs]

    def write_reference(self, means: Sequence[MeanImage]) -> Path:
        """Write the mean image of all runs."""
        path = self.analysis.files.reference(self.participant)
        self._reference = self.analysis.files.write_reference(path, means)
        return path

    def summaries(self) -> Iterator[RunSummary]:
        """Say of each run what a reader should know."""
        fitted = {one.run.name: one for one in self.fitted}
        for run in self.runs:
            if run.name in fitted:
                one = fitted[run.name]
                facts = self._facts[run.name]
                yield RunSummary(run.name, run.session, one.design.matrix, facts, one.events.table)
            else:
                yield RunSummary.read(run, self.analysis.files.design(run))

    @property
    def reference(self) -> NDArray[np.floating] | None:
        """Mean image over the runs, 3-D; None where there is none."""
        if self._reference is None:
            self._reference = read_reference(self.analysis.files.reference(self.participant))
        return self._reference

    def combined(self, contrast: Contrast) -> dict[str, tuple[EstimateMap, dict[str, float]]]:
        """Give estimates and session weights of the session contrasts; see `combine_sessions`."""
        if contrast.label not in self._combined:
            self._combined[contrast.label] = combine_sessions(self.sessions(contrast), self.analysis)
        return self._combined[contrast.label]


def combine_runs(
    fitted: Sequence[FittedRun], contrast: Contrast, weighting: str, dof_method: str = "satterthwaite"
) -> SessionMaps:
    """Average the runs of each session.

    Parameters
    ----------
    fitted : sequence of FittedRun
        Runs of one participant.
    contrast : Contrast
    weighting : {'equal', 'precision'}
    dof_method : {'satterthwaite', 'sum'}

    Returns
    -------
    dict of str to EstimateMap
        By session; without sessions no run of which has the contrast.

    Raises
    ------
    ParticipantError
        If grids differ or no voxel is common.
    """
    maps: SessionMaps = {}
    for session in dict.fromkeys(one.run.session for one in fitted):
        used = [one for one in fitted if one.run.session == session and contrast.label in one.estimates]
        if used:
            common = on_common_voxels([one.estimates[contrast.label] for one in used], [one.run.name for one in used])
            combined = average([one.estimate for one in common], weighting, dof_method)
            maps[session] = EstimateMap.where_determined(combined, common[0].mask, common[0].grid)
    return maps


def combine_sessions(
    maps: Mapping[str, EstimateMap], analysis: ParticipantAnalysis
) -> dict[str, tuple[EstimateMap, dict[str, float]]]:
    """Combine a participant's session maps for every session contrast they can answer.

    Parameters
    ----------
    maps : mapping of str to EstimateMap
        By session.
    analysis : ParticipantAnalysis

    Returns
    -------
    dict of str to (EstimateMap, dict)
        Estimate and session weights, by the session contrast's label.
    """
    combined = {}
    dof_method = analysis.model.fixed_effects_dof
    for question in analysis.session_contrasts:
        weights = question.weights_for(list(maps))
        if weights is None:
            continue
        common = on_common_voxels([maps[session] for session in weights], [f"ses-{session}" for session in weights])
        inputs = [one.estimate for one in common]
        if question.kind == "mean":
            estimate = average(inputs, analysis.model.fixed_effects, dof_method)
        else:
            estimate = weighted_sum(inputs, list(weights.values()), dof_method)
        stat_map = EstimateMap.where_determined(estimate, common[0].mask, common[0].grid)
        combined[question.label] = (stat_map, weights)
    return combined


def _results(held: _Held, contrasts: Sequence[Contrast]) -> ParticipantResults:
    """Collect what the report of a participant shows."""
    analysis = held.analysis
    return ParticipantResults(
        held.participant,
        analysis.entities,
        tuple(held.summaries()),
        tuple(contrasts),
        analysis.session_contrasts,
        {contrast.label: held.sessions(contrast) for contrast in contrasts},
        {
            contrast.label: {label: stat_map for label, (stat_map, _) in held.combined(contrast).items()}
            for contrast in contrasts
        },
        held.reference,
        analysis.thresholds,
        analysis.methods(held.runs),
    )


def plan_work(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Work:
    """Name the pieces of work of a participant and digest what determines each."""
    model, thresholds = analysis.model, analysis.thresholds
    states = {
        run.name: [
            run.problem,
            *(run.metadata.get(field) for field in timing.FIELDS),
            *(file_state(path) for path in (run.bold, run.mask, run.events, run.confounds, sidecar_of(run.confounds))),
        ]
        for run in runs
    }
    fixed_effects = [model.fixed_effects, model.fixed_effects_dof]
    common = [__version__, model_parameters(model), fixed_effects, model.keep_run_maps]
    fits, combinations, drawings = {}, {}, {}
    for contrast in analysis.contrasts:
        for session in dict.fromkeys(run.session for run in runs):
            inputs = {run.name: states[run.name] for run in runs if run.session == session}
            fits[contrast.label, session] = fingerprint([common, contrast.weights, contrast.expression, inputs])
        own = [digest for (label, _), digest in fits.items() if label == contrast.label]
        for question in analysis.session_contrasts:
            asked = [question.text, question.kind, question.sessions, question.weights, question.order_source]
            combinations[contrast.label, question.label] = fingerprint([own, asked])
        answers = [digest for (label, _), digest in combinations.items() if label == contrast.label]
        drawings[contrast.label] = fingerprint([own, answers, thresholds.alpha, thresholds.correction])
    means = {
        run.name: fingerprint([__version__, model.smoothing_fwhm, file_state(run.bold), file_state(run.mask)])
        for run in runs
    }
    return Work(fits, combinations, drawings, means)


def _write_maps(held: _Held, work: Work, record: Record, to_combine: Sequence[tuple[str, str]]) -> int:
    """Write designs and maps, which take their names when all are on the disk; return how many files went for good."""
    finished: dict[str, tuple[str, list[Path]]] = {}
    refitted = {contrast for contrast, _ in held.to_fit}
    # whatever was combined from maps that are made anew goes too, also what this call does not ask for
    prefixes = tuple(work.combination_name(contrast, "") for contrast in refitted)
    stale = [name for name in record.works() if prefixes and name.startswith(prefixes)]
    redone = [
        *(work.fit_name(*key) for key in held.to_fit),
        *(work.combination_name(*key) for key in to_combine),
        *stale,
    ]
    removed: list[Path] = []

    def take_away() -> None:
        written = {path for _, files in finished.values() for path in files}
        removed.extend(path for path in record.obsolete(redone) if path not in written and path.exists())
        if removed:
            say(
                f"sub-{held.participant}: {len(removed)} file(s) of earlier calls are removed, {removed[0].name} for "
                "one: what they were made from has changed, and this call does not make them anew."
            )
        record.forget(redone)
        for contrast, session in held.to_fit:
            if session not in held.made_by_label(contrast):
                held.remove_session(session, contrast)

    with together(take_away):
        _write_fits(held, work, finished)
        _write_combinations(held, work, to_combine, finished)
    record.finish(finished)
    return len(removed)


def _write_fits(held: _Held, work: Work, finished: dict[str, tuple[str, list[Path]]]) -> None:
    """Write designs and session maps."""
    analysis, files, participant = held.analysis, held.analysis.files, held.participant
    designs = held.write_designs()
    for contrast in held.contrasts_fitted:
        for session in dict.fromkeys(run.session for run in held.runs):
            if (contrast.label, session) not in held.to_fit:
                continue
            own = [one for one in held.fitted if one.run.session == session]
            written = [path for one in own for path in designs[one.run.name]]
            if session in held.made(contrast):
                made = held.made(contrast)[session]
                written += files.write_session(participant, session, contrast, made, own)
            if analysis.model.keep_run_maps:
                kept = [one for one in own if contrast.label in one.estimates]
                written += [path for one in kept for path in files.write_run_maps(one, contrast)]
            finished[work.fit_name(contrast.label, session)] = (work.fits[contrast.label, session], written)


def _write_combinations(
    held: _Held, work: Work, to_combine: Sequence[tuple[str, str]], finished: dict[str, tuple[str, list[Path]]]
) -> None:
    """Write the maps of session contrasts."""
    analysis, files, participant = held.analysis, held.analysis.files, held.participant
    for contrast in analysis.contrasts:
        asked = [one for one in analysis.session_contrasts if (contrast.label, one.label) in to_combine]
        for question in asked:
            written: list[Path] = []
            if question.label in held.combined(contrast):
                stat_map, weights = held.combined(contrast)[question.label]
                maps = held.sessions(contrast)
                written = files.write_combined(participant, question, contrast, stat_map, weights, maps)
            name = work.combination_name(contrast.label, question.label)
            finished[name] = (work.combinations[contrast.label, question.label], written)


def _forget_all(participant: str, work: Work, record: Record) -> str:
    """Remove the maps of a participant that cannot be analysed, and say so; give the sentence to add to the error."""
    works = [
        *(work.fit_name(*key) for key in work.fits),
        *(work.combination_name(*key) for key in work.combinations),
    ]
    there = [path for path in record.obsolete(works) if path.exists()]
    if there:
        say(
            f"sub-{participant}: {len(there)} file(s) of earlier calls are removed, as this participant cannot be "
            "analysed and a group analysis would take them for all there is."
        )
    try:
        record.forget(works)
    except SessionFXError as error:
        return f" Its maps of earlier calls could not be removed either: {error}"
    return f" {len(there)} file(s) that earlier calls made of this participant are removed." if there else ""


def _write_mean_image(held: _Held, means: Sequence[MeanImage], work: Work, record: Record) -> None:
    # entries of runs that are not in this one go too
    earlier = [name for name in record.works() if name.startswith(work.mean_name(""))]
    with together(lambda: record.forget(earlier)):
        path = held.write_reference(means)
    record.finish({work.mean_name(run): (digest, [path]) for run, digest in work.means.items()})


def _write_log(held: _Held, work: Work, record: Record) -> list[str]:
    """Write what a reader should know of the participant, of runs of earlier calls too, and return it."""
    analysis = held.analysis
    own = [analysis.files.design(run).with_suffix(".json") for run in held.runs]
    recorded = [path for path in record.files(record.works()) if path.name.endswith("_design.json")]
    others = sorted(set(recorded) - set(own), key=lambda path: natural_key(path.name))
    remarks, left_out = [], []
    for path in (*own, *others):
        notes, contrasts = read_remarks(path)
        remarks += notes
        left_out.append(contrasts)
    absent = [
        f"Contrast '{contrast.label}' cannot be estimated from any run ({left_out[0][contrast.label]})."
        for contrast in analysis.contrasts
        if all(contrast.label in contrasts for contrasts in left_out)
    ]
    messages = [*remarks, *differences_between_runs(analysis.confound_columns(held.runs)), *absent]
    path = analysis.output_dir / "logs" / (entity_string({"sub": held.participant, **analysis.entities}) + "_log.txt")
    write_text(path, "\n".join(messages or ["Nothing to remark."]) + "\n")
    record.finish({work.log_name(*key): (digest, [path]) for key, digest in work.fits.items()})
    return messages


def _check_any(held: _Held) -> None:
    """Refuse a participant no run of which has any of the contrasts, in this call or an earlier one."""
    if any(held.made(contrast) for contrast in held.contrasts_fitted):
        return
    if any(held.sessions(contrast) for contrast in held.analysis.contrasts):
        return
    fitted = held.fitted
    absent = [
        f"Contrast '{contrast.label}' cannot be estimated from any run ({fitted[0].left_out[contrast.label]})."
        for contrast in held.contrasts_fitted
        if contrast.label in fitted[0].left_out
    ]
    conditions = sorted({name for one in fitted for name in one.design.condition_columns})
    raise ParticipantError(
        f"None of the contrasts can be estimated from any run. {' '.join(absent)} Conditions there are: "
        f"{listed(conditions)}. Change --contrast or leave this participant out."
    )

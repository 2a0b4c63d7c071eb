"""The participant level: every run is fitted, runs are combined within sessions, sessions within the participant.

One participant is one unit of work, independent of all others: it reads its own runs and writes its own files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.errors import ParticipantError
from sessionfx.execution import in_slots, progress_bar, slot
from sessionfx.firstlevel import timing
from sessionfx.firstlevel.contrasts import Contrast
from sessionfx.firstlevel.run import FirstLevelModel, FittedRun, analyse_run
from sessionfx.inputs.confounds import columns_of_run, differences_between_runs, sidecar_of
from sessionfx.inputs.runs import RunInputs
from sessionfx.maps import EstimateMap, on_common_voxels
from sessionfx.naming import entity_string, func_folder
from sessionfx.outputs.files import remove_stale_temporaries, write_text
from sessionfx.outputs.firstlevel import FirstLevelFiles
from sessionfx.outputs.records import Record, file_state, fingerprint
from sessionfx.outputs.statmaps import read_estimate
from sessionfx.report.methods import MethodsText, participant_methods
from sessionfx.report.participant import has_sections, write_participant_report
from sessionfx.report.results import ParticipantResults, RunSummary, read_reference
from sessionfx.session_contrasts import SessionContrast
from sessionfx.settings import Settings
from sessionfx.statistics.fixed_effects import average, weighted_sum
from sessionfx.wording import listed


@dataclass(frozen=True)
class ParticipantAnalysis:
    """What all participants of one call share.

    Attributes
    ----------
    settings : Settings
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

    settings: Settings
    contrasts: tuple[Contrast, ...]
    session_contrasts: tuple[SessionContrast, ...]
    entities: dict[str, str | None]
    output_dir: Path
    links: dict[str, Path]
    preprocessing: tuple[str, ...] = ()

    @cached_property
    def model(self) -> FirstLevelModel:
        """First-level options."""
        return FirstLevelModel.from_settings(self.settings)

    @cached_property
    def files(self) -> FirstLevelFiles:
        """Where results go."""
        return FirstLevelFiles(
            self.output_dir, self.entities, self.links, self.model.parameters(), self.settings.fixed_effects
        )

    def confound_columns(self, runs: Sequence[RunInputs]) -> dict[str, tuple[str, ...]]:
        """Name the confounds each run is modelled with, by the run's name."""
        return {run.name: columns_of_run(run.confounds, self.settings.confounds) for run in runs}

    def methods(self, runs: Sequence[RunInputs]) -> MethodsText:
        """Say what is done to runs, for the methods section of a paper."""
        return participant_methods(
            self.settings,
            list(self.confound_columns(runs).values()),
            has_sessions=bool(self.session_contrasts),
            preprocessing=self.preprocessing,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one participant: `done` (something was computed or drawn) or `finished` before."""

    participant: str
    status: str
    messages: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Work:
    """The pieces of work of one participant, with the digest of what determines each.

    A session's maps of a contrast are one piece, a session contrast's another: changed files or options redo the
    pieces they affect, and pieces of earlier calls that this one does not ask for stay.
    """

    fits: dict[tuple[str, str], str]  # by contrast label and session
    combinations: dict[tuple[str, str], str]  # by contrast label and session contrast label
    drawings: dict[str, str]  # by contrast label

    @staticmethod
    def fit_name(contrast: str, session: str) -> str:
        """Name the work of a session's maps of a contrast in the record."""
        return f"fit {contrast} ses {session}"

    @staticmethod
    def combination_name(contrast: str, question: str) -> str:
        """Name the work of a session contrast's maps of a contrast in the record."""
        return f"combine {contrast} sessions {question}"

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
    settings, files = analysis.settings, analysis.files
    record = Record(files.record(participant), analysis.output_dir)
    work = plan_work(runs, analysis)

    to_fit, to_combine = work.unfinished(record, force=settings.force)
    refitted = {contrast for contrast, _ in to_fit}
    changed = refitted | {contrast for contrast, _ in to_combine}
    if settings.reports_only and changed:
        raise ParticipantError(
            "--reports-only needs finished maps with the same options and unchanged input, and contrast "
            f"'{min(changed)}' has none. Run without --reports-only first."
        )
    to_draw = [
        contrast
        for contrast in ([] if settings.no_report else analysis.contrasts)
        if contrast.label in changed
        or settings.reports_only
        or not has_sections(
            analysis.output_dir, participant, analysis.entities, contrast.label, work.drawings[contrast.label]
        )
    ]
    if not changed and not to_draw:
        return Outcome(participant, "finished", (), time.monotonic() - started)

    if changed:
        remove_stale_temporaries(analysis.output_dir / func_folder(participant).parent)
        # whatever was combined from maps that are made anew goes too, also what this call does not ask for
        prefixes = tuple(work.combination_name(contrast, "") for contrast in refitted)
        stale = [name for name in record.works() if prefixes and name.startswith(prefixes)]
        record.forget(
            [*(work.fit_name(*key) for key in to_fit), *(work.combination_name(*key) for key in to_combine), *stale]
        )
    held = _Held(participant, runs, analysis, set(to_fit))
    messages: list[str] = []
    if to_fit:
        try:
            held.fit()
            with slot():
                messages += _write_fits(held, work, record)
        except ParticipantError:
            # sessions that are in order must not enter a group analysis as if this participant had no others
            fits = (work.fit_name(*key) for key in work.fits)
            record.forget([*fits, *(work.combination_name(*key) for key in work.combinations)])
            raise
    with slot():
        for contrast in analysis.contrasts:
            asked = [one for one in analysis.session_contrasts if (contrast.label, one.label) in to_combine]
            for question in asked:
                written: list[Path] = []
                if question.label in held.combined(contrast):
                    located, weights = held.combined(contrast)[question.label]
                    maps = held.sessions(contrast)
                    written = files.write_combined(participant, question, contrast, located, weights, maps)
                name = work.combination_name(contrast.label, question.label)
                record.finish({name: (work.combinations[contrast.label, question.label], written)})
        if to_draw:
            write_participant_report(_results(held, to_draw), work.drawings, analysis.output_dir)
        if to_fit:
            name = entity_string({"sub": participant, **analysis.entities})
            lines = messages or ["Nothing to remark."]
            write_text(analysis.output_dir / "logs" / f"{name}_log.txt", "\n".join(lines) + "\n")
    return Outcome(participant, "done", tuple(messages), time.monotonic() - started)


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
            self._made[contrast.label] = combine_runs(self.fitted, contrast, analysis.settings.fixed_effects)
            self.combined(contrast)

    @property
    def contrasts_fitted(self) -> list[Contrast]:
        """Contrasts of which some session is fitted in this call."""
        labels = {label for label, _ in self.to_fit}
        return [contrast for contrast in self.analysis.contrasts if contrast.label in labels]

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
                        maps[session] = read_estimate(paths["effect"], paths["variance"])
            order = dict.fromkeys(run.session for run in self.runs)
            self._sessions[contrast.label] = {session: maps[session] for session in order if session in maps}
        return self._sessions[contrast.label]

    def write_designs(self) -> dict[str, list[Path]]:
        """Write the designs of the fitted runs and the mean image; return the designs' files by run."""
        files = self.analysis.files
        written = {}
        for one in self.fitted:
            paths, self._facts[one.run.name] = files.write_design(one)
            written[one.run.name] = paths
        if len(self.fitted) == len(self.runs) or not files.reference(self.participant).is_file():
            self._reference = files.write_reference(self.participant, self.fitted)
        return written

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


def combine_runs(fitted: Sequence[FittedRun], contrast: Contrast, weighting: str) -> SessionMaps:
    """Average the runs of each session.

    Parameters
    ----------
    fitted : sequence of FittedRun
        Runs of one participant.
    contrast : Contrast
    weighting : {'equal', 'precision'}

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
            combined = average([one.estimate for one in common], weighting)
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
    for question in analysis.session_contrasts:
        weights = question.weights_for(list(maps))
        if weights is None:
            continue
        common = on_common_voxels([maps[session] for session in weights], [f"ses-{session}" for session in weights])
        inputs = [one.estimate for one in common]
        if question.kind == "mean":
            estimate = average(inputs, analysis.settings.fixed_effects)
        else:
            estimate = weighted_sum(inputs, list(weights.values()))
        located = EstimateMap.where_determined(estimate, common[0].mask, common[0].grid)
        combined[question.label] = (located, weights)
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
            contrast.label: {label: located for label, (located, _) in held.combined(contrast).items()}
            for contrast in contrasts
        },
        held.reference,
        analysis.settings,
        analysis.methods(held.runs),
    )


def plan_work(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Work:
    """Name the pieces of work of a participant and digest what determines each."""
    settings = analysis.settings
    states = {
        run.name: [
            run.problem,
            *(run.metadata.get(field) for field in timing.FIELDS),
            *(file_state(path) for path in (run.bold, run.mask, run.events, run.confounds, sidecar_of(run.confounds))),
        ]
        for run in runs
    }
    model = [__version__, analysis.model.parameters(), settings.fixed_effects, settings.keep_run_maps]
    fits, combinations, drawings = {}, {}, {}
    for contrast in analysis.contrasts:
        for session in dict.fromkeys(run.session for run in runs):
            inputs = {run.name: states[run.name] for run in runs if run.session == session}
            fits[contrast.label, session] = fingerprint([model, contrast.weights, contrast.expression, inputs])
        own = [digest for (label, _), digest in fits.items() if label == contrast.label]
        for question in analysis.session_contrasts:
            asked = [question.text, question.kind, question.sessions, question.weights]
            combinations[contrast.label, question.label] = fingerprint([own, asked])
        answers = [digest for (label, _), digest in combinations.items() if label == contrast.label]
        drawings[contrast.label] = fingerprint([own, answers, settings.alpha, settings.correction])
    return Work(fits, combinations, drawings)


def _write_fits(held: _Held, work: Work, record: Record) -> list[str]:
    """Write designs and session maps; return remarks."""
    analysis, files, participant = held.analysis, held.analysis.files, held.participant
    messages = _remarks(held.fitted)
    messages += differences_between_runs(analysis.confound_columns(held.runs))
    messages += _check_any(held.fitted, {one.label: held.made(one) for one in held.contrasts_fitted})
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
            else:
                files.remove_session(participant, session, contrast)
            if analysis.settings.keep_run_maps:
                kept = [one for one in own if contrast.label in one.estimates]
                written += [path for one in kept for path in files.write_run_maps(one, contrast)]
            record.finish({work.fit_name(contrast.label, session): (work.fits[contrast.label, session], written)})
    return messages


def _remarks(fitted: Sequence[FittedRun]) -> list[str]:
    remarks = []
    for one in fitted:
        remarks += [f"{one.run.name}: {note}" for note in one.notes]
        remarks += [f"{one.run.name} is left out of contrast '{label}': {why}." for label, why in one.left_out.items()]
    return remarks


def _check_any(fitted: Sequence[FittedRun], maps: Mapping[str, SessionMaps]) -> list[str]:
    """Name the contrasts that no run has; it is an error where none has any."""
    absent = [
        f"Contrast '{label}' cannot be estimated from any run ({fitted[0].left_out[label]})."
        for label, by_session in maps.items()
        if not by_session and label in fitted[0].left_out
    ]
    if not any(maps.values()):
        conditions = sorted({name for one in fitted for name in one.design.condition_columns})
        raise ParticipantError(
            f"None of the contrasts can be estimated from any run. {' '.join(absent)} Conditions there are: "
            f"{listed(conditions)}. Change --contrast or leave this participant out."
        )
    return absent

"""The participant level: every run is fitted, runs are combined within sessions, sessions within the participant.

One participant is one unit of work, independent of all others: it reads its own runs and writes its own files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sessionfx import __version__
from sessionfx.errors import ParticipantError
from sessionfx.execution import progress_bar
from sessionfx.firstlevel.contrasts import Contrast
from sessionfx.firstlevel.run import FirstLevelModel, FittedRun, analyse_run
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

    @property
    def methods(self) -> MethodsText:
        """What is done, for the methods section of a paper."""
        return participant_methods(
            self.settings, has_sessions=bool(self.session_contrasts), preprocessing=self.preprocessing
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one participant: `done` (something was computed or drawn) or `finished` before."""

    participant: str
    status: str
    messages: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Work:
    """The pieces of work of one participant, with the digest of what determines each.

    A session's maps of a contrast are one piece, a session contrast's another: changed files or options redo the
    pieces they affect, and pieces of earlier calls that this one does not ask for stay.
    """

    fits: dict[tuple[str, str], str]  # by contrast label and session
    combinations: dict[tuple[str, str], str]  # by contrast label and session contrast label
    drawings: dict[str, str]  # by contrast label

    @staticmethod
    def fit_name(contrast: str, session: str) -> str:
        return f"fit {contrast} ses {session}"

    @staticmethod
    def combination_name(contrast: str, question: str) -> str:
        return f"combine {contrast} sessions {question}"


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
    work = _plan(runs, analysis)

    def is_open(name: str, digest: str) -> bool:
        return settings.force or not record.is_finished(name, digest)

    to_fit = [key for key, digest in work.fits.items() if is_open(work.fit_name(*key), digest)]
    refitted = {contrast for contrast, _ in to_fit}
    to_combine = [
        key
        for key, digest in work.combinations.items()
        if key[0] in refitted or is_open(work.combination_name(*key), digest)
    ]
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

    messages: list[str] = []
    asked = [*(work.fit_name(*key) for key in work.fits), *(work.combination_name(*key) for key in work.combinations)]
    if changed:
        remove_stale_temporaries(analysis.output_dir / func_folder(participant).parent)
        # whatever was combined from maps that are made anew goes too, also what this call does not ask for
        prefixes = tuple(work.combination_name(contrast, "") for contrast in refitted)
        stale = [name for name in record.works() if prefixes and name.startswith(prefixes)]
        record.forget(
            [*(work.fit_name(*key) for key in to_fit), *(work.combination_name(*key) for key in to_combine), *stale]
        )
    if to_fit:
        try:
            messages += _fit(participant, runs, to_fit, work, record, analysis)
        except ParticipantError:
            # sessions that are in order must not enter a group analysis as if this participant had no others
            record.forget(asked)
            raise
    contrasts = {contrast.label: contrast for contrast in analysis.contrasts}
    for label in dict.fromkeys(contrast for contrast, _ in to_combine):
        maps = read_session_maps(participant, contrasts[label], runs, analysis)
        combined = combine_sessions(maps, analysis)
        for question in analysis.session_contrasts:
            if (label, question.label) not in to_combine:
                continue
            written: list[Path] = []
            if question.label in combined:
                located, weights = combined[question.label]
                written = files.write_combined(participant, question, contrasts[label], located, weights, maps)
            name = work.combination_name(label, question.label)
            record.finish({name: (work.combinations[label, question.label], written)})
    if to_draw:
        results = read_results(participant, runs, to_draw, analysis)
        write_participant_report(results, work.drawings, analysis.output_dir)
    if to_fit:
        name = entity_string({"sub": participant, **analysis.entities})
        lines = messages or ["Nothing to remark."]
        write_text(analysis.output_dir / "logs" / f"{name}_log.txt", "\n".join(lines) + "\n")
    return Outcome(participant, "done", tuple(messages), time.monotonic() - started)


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


def read_session_maps(
    participant: str, contrast: Contrast, runs: Sequence[RunInputs], analysis: ParticipantAnalysis
) -> SessionMaps:
    """Read a participant's session maps of a contrast back."""
    maps = {}
    for session in dict.fromkeys(run.session for run in runs):
        paths = analysis.files.session_maps(participant, session, contrast)
        if paths["effect"].is_file():
            maps[session] = read_estimate(paths["effect"], paths["variance"])
    return maps


def read_results(
    participant: str, runs: Sequence[RunInputs], contrasts: Sequence[Contrast], analysis: ParticipantAnalysis
) -> ParticipantResults:
    """Collect what the report of a participant shows from its finished files."""
    files = analysis.files
    combined: dict[str, dict[str, EstimateMap]] = {contrast.label: {} for contrast in contrasts}
    for contrast in contrasts:
        for question in analysis.session_contrasts:
            paths = files.combined_maps(participant, question, contrast)
            if paths["effect"].is_file():
                combined[contrast.label][question.label] = read_estimate(paths["effect"], paths["variance"])
    return ParticipantResults(
        participant,
        analysis.entities,
        tuple(RunSummary.read(run, files.design(run)) for run in runs),
        tuple(contrasts),
        analysis.session_contrasts,
        {contrast.label: read_session_maps(participant, contrast, runs, analysis) for contrast in contrasts},
        combined,
        read_reference(files.reference(participant)),
        analysis.settings,
        analysis.methods,
    )


def _plan(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> _Work:
    """Digest what determines each piece of work."""
    settings = analysis.settings
    states = {
        run.name: [
            run.problem,
            run.metadata.get("RepetitionTime"),
            run.metadata.get("StartTime"),
            *(file_state(path) for path in (run.bold, run.mask, run.events, run.confounds)),
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
    return _Work(fits, combinations, drawings)


def _fit(
    participant: str,
    runs: Sequence[RunInputs],
    to_fit: Sequence[tuple[str, str]],
    work: _Work,
    record: Record,
    analysis: ParticipantAnalysis,
) -> list[str]:
    """Fit the runs of the sessions that are open, combine them and write the session maps; return remarks."""
    files = analysis.files
    wanted = {
        session: [contrast for contrast in analysis.contrasts if (contrast.label, session) in to_fit]
        for _, session in to_fit
    }
    chosen = [run for run in runs if run.session in wanted]
    fitted = [
        analyse_run(run, wanted[run.session], analysis.model)
        for run in progress_bar(chosen, f"sub-{participant}", "run")
    ]
    contrasts = [contrast for contrast in analysis.contrasts if any(contrast in asked for asked in wanted.values())]
    maps = {}
    for contrast in contrasts:
        maps[contrast.label] = combine_runs(fitted, contrast, analysis.settings.fixed_effects)
        # of the other sessions; what lies there of those about to be fitted is what a killed process left
        others = [run for run in runs if (contrast.label, run.session) not in to_fit]
        before = read_session_maps(participant, contrast, others, analysis)
        # sessions that do not fit together fail before anything is written
        combine_sessions({**before, **maps[contrast.label]}, analysis)
    messages = _remarks(fitted)
    messages += _check_any(fitted, maps)
    designs = {one.run.name: files.write_design(one) for one in fitted}
    if len(fitted) == len(runs) or not files.reference(participant).is_file():
        files.write_reference(participant, fitted)
    for label, session in to_fit:
        contrast = next(one for one in contrasts if one.label == label)
        own = [one for one in fitted if one.run.session == session]
        written = [path for one in own for path in designs[one.run.name]]
        if session in maps[label]:
            written += files.write_session(participant, session, contrast, maps[label][session], own)
        else:
            files.remove_session(participant, session, contrast)
        if analysis.settings.keep_run_maps:
            kept = [one for one in own if label in one.estimates]
            written += [path for one in kept for path in files.write_run_maps(one, contrast)]
        record.finish({work.fit_name(label, session): (work.fits[label, session], written)})
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
            f"{', '.join(conditions)}. Change --contrast or leave this participant out."
        )
    return absent

"""The participant level of one call: choose runs, refuse what cannot be, do the tasks of every participant, sum up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sessionfx.ask.confounds import PRESETS
from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.event_model import parse_event_model
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.dataset import (
    dataset_links,
    find_derivative_roots,
    open_dataset,
    participants_of,
    preprocessing_programs,
    subfolders,
)
from sessionfx.bids.derivatives import check_output_place, prepare_output
from sessionfx.bids.first_level_maps import NATIVE
from sessionfx.bids.images import open_image
from sessionfx.bids.meshes import missing_mesh
from sessionfx.bids.names import (
    STATMAP_SUFFIX,
    SURFACE_SERIES,
    check_name_length,
    entities_of,
    file_name,
    files_of,
    func_folder,
)
from sessionfx.bids.runs import RunInputs, RunSelection, participants_with_runs, select_tasks
from sessionfx.bids.tables import columns_there
from sessionfx.bids.writing import remove_stale_temporaries
from sessionfx.errors import CommandLineError, NothingMatchesError, SessionFXError
from sessionfx.execution import Executor, say, show_progress
from sessionfx.models.writer import written_model
from sessionfx.options import Execution, Options
from sessionfx.participant.analysis import ParticipantAnalysis, participant_chain
from sessionfx.participant.asked import contrasts_by_task
from sessionfx.participant.confounds import is_pattern
from sessionfx.participant.dry_run import participant_text
from sessionfx.participant.over_tasks import select_over_tasks
from sessionfx.participant.regressors import with_regressors
from sessionfx.participant.variables import check_recipe
from sessionfx.process import write_out
from sessionfx.space.grid import Grid
from sessionfx.tasks.call import (
    EXIT_SOME_FAILED,
    asked_of_sessions,
    check_private_folders,
    chosen_atlases,
    keep_methods,
    keep_model,
    keep_options,
    say_warnings,
)
from sessionfx.tasks.loop import Outcome, find_work, run_chains
from sessionfx.wording import counted, did_you_mean, listed, natural_key

# Memory of a worker: the libraries; and per value of the 4-D image, of which at most half is brain in practice, the
# signal in single precision, or the whole image and its copy where the brain mask must be computed from it
_BASE_GB = 0.4
_BYTES_OF_SIGNAL = 2.0
_BYTES_WITHOUT_MASK = 8.0
# Of surfaces, of which a value takes four bytes or five of its file: the file, its numbers as they are, and twice in
# double precision
_COPIES_OF_SURFACES = 6.0


def run_participants(options: Options, raw: Path, contrasts: Sequence[Contrast], executor: Executor) -> int:
    """Run the participant level and return its exit code; a `SessionFXError` stops all participants."""
    works = _prepare(options, raw, contrasts)
    execution = options.execution
    if execution.dry_run:
        for selection, analysis in works:
            write_out(_dry_run_text(selection, analysis, execution, executor))
        if "group" in options.levels:
            write_out("Then the group level; --dry-run with it alone describes it once these maps are there.")
        return 0
    prepare_output(options.output_dir, works[0][1].links)
    keep_options(options)
    say_warnings(options.group, [selection for selection, _ in works])
    code = 0
    for selection, analysis in works:
        if len(works) > 1:
            say(f"Task {selection.entities['task']}:")
        code = _run_task(selection, analysis, options, executor) or code
        if code and execution.stop_on_first_crash:
            break
    return code


def _run_task(selection: RunSelection, analysis: ParticipantAnalysis, options: Options, executor: Executor) -> int:
    """Do what is asked of one task and return the exit code."""
    execution = options.execution
    keep_methods(analysis.methods(selection.every_run), selection.entities, "participant", analysis.output_dir)
    contrasts = [contrast.definition for contrast in analysis.contrasts]
    if not any(contrast.parts for contrast in analysis.contrasts):
        model = written_model(options.of_task(selection.entities, contrasts))
        keep_model(model, selection.entities, analysis.output_dir)
    for label in selection.runs:
        remove_stale_temporaries(analysis.output_dir / func_folder(label).parent)
    needs = _memory_needs(selection)
    largest = max(needs.values())
    _say_about_memory(needs, len(selection.every_run), executor, execution.nprocs)
    outcomes: list[Outcome] = []
    chains = (participant_chain(selection.runs[label], analysis) for label in _order(selection))
    with show_progress("participant level", "participant", len(selection.runs), leave=True) as advance:
        for outcome in run_chains(chains, executor, execution, analysis.output_dir, largest):
            advance()
            _say_outcome(outcome, execution.verbose)
            outcomes.append(outcome)
            if outcome.failure and execution.stop_on_first_crash:
                break
    code = _conclude(outcomes, selection, analysis)
    if not code and not options.selection.session_label:
        _say_what_stays(
            selection, analysis, options.selection.participant_label or participants_of(analysis.output_dir)
        )
    return code


def _dry_run_text(
    selection: RunSelection, analysis: ParticipantAnalysis, execution: Execution, executor: Executor
) -> str:
    needs = _memory_needs(selection)
    work = {
        label: find_work(participant_chain(selection.runs[label], analysis), execution, analysis.output_dir)
        for label in _order(selection)
    }
    return participant_text(selection, analysis, work, needs, executor.at_a_time(max(needs.values())))


def _order(selection: RunSelection) -> list[str]:
    """Order participants, the longest first: no long one is left alone at the end."""
    return sorted(selection.runs, key=lambda label: (-len(selection.runs[label]), natural_key(label)))


def _prepare(
    options: Options, raw: Path, contrasts: Sequence[Contrast]
) -> list[tuple[RunSelection, ParticipantAnalysis]]:
    """Choose the runs of each task, and refuse before anything is written what cannot be asked of them."""
    wanted = options.selection
    event_model = parse_event_model(options.first_level)
    roots = find_derivative_roots(raw, wanted.derivatives)
    check_output_place(options.output_dir, dataset_links(raw, roots))
    check_private_folders(options, [raw, *roots])
    known = participants_with_runs(roots)
    for label in wanted.participant_label:
        if label not in known:
            raise NothingMatchesError(
                f"--participant-label {label} matches no participant in {listed(roots)}. "
                f"What exists: {listed(known) or 'none'}."
            )
    started = time.monotonic()
    with show_progress("looking for files"):
        dataset = open_dataset(raw, roots, participants=wanted.participant_label, database_dir=wanted.bids_database_dir)
    selections, left_out = select_tasks(dataset, wanted)
    _check_surfaces(selections.values(), options)
    pattern = options.first_level.regressors
    selections = {task: with_regressors(selection, pattern, raw) for task, selection in selections.items()}
    if options.execution.verbose:
        n_files = len(dataset.raw_files) + len(dataset.derivative_files)
        say(f"{n_files} files to choose from, found in {time.monotonic() - started:.1f} s.")
    for task, why in left_out.items():
        say(f"Left out: task {task}. {why}")
    _check_f_tests(contrasts, options.first_level.fixed_effects)
    recipe = options.first_level.recipe
    if recipe is None:
        asked = contrasts_by_task(selections, contrasts, options, event_model, [raw, *roots])
        for task, own in asked.items():
            if task not in selections:
                selections[task] = select_over_tasks({part: selections[part] for part, _ in own[0].parts})
    else:
        asked = {task: tuple(contrasts) for task in selections}
        check_recipe(selections, contrasts, recipe, draws=options.execution.dry_run)
    # masks and confounds of a denoised image may come from another folder than the image
    files = [path for task in asked for run in selections[task].every_run for path in run.files]
    sources = [root for root in roots if any(path.is_relative_to(root) for path in files)]
    return [
        (selections[task], _analysis(options, raw, sources, selections[task], own, [raw, *roots]))
        for task, own in asked.items()
    ]


def _analysis(
    options: Options,
    raw: Path,
    sources: Sequence[Path],
    selection: RunSelection,
    contrasts: Sequence[Contrast],
    roots: Sequence[Path],
) -> ParticipantAnalysis:
    """Put together what all participants (of the datasets `roots`) share in the analysis of one task."""
    wanted = options.selection.participant_label or participants_with_runs(roots)
    absent = [f"sub-{label}" for label in wanted if label not in selection.runs]
    if absent:
        task = selection.entities["task"]
        say(f"Without a preprocessed run of task {task} in this selection, and left out: {listed(absent)}.")
    if options.first_level.recipe is None:
        _check_confounds(selection, options.first_level.confounds)
    session_contrasts = asked_of_sessions(options.group, selection)
    analysis = ParticipantAnalysis(
        model=options.first_level,
        thresholds=options.group,
        contrasts=tuple(contrasts),
        session_contrasts=tuple(session_contrasts) if selection.sessions else (),
        entities=selection.entities,
        output_dir=options.output_dir.absolute(),
        links=dataset_links(raw, sources),
        preprocessing=preprocessing_programs(sources),
        has_pages=not options.execution.no_report,
        atlases=chosen_atlases(options.group, selection.every_run[0].images, selection.entities["space"]),
        extension=selection.map_extension,
    )
    _check_names(selection, analysis, session_contrasts)
    return analysis


def _check_surfaces(selections: Iterable[RunSelection], options: Options) -> None:
    """Refuse what is asked of surfaces and done with volumes only."""
    on_surface = [selection for selection in selections if selection.map_extension != Grid.extension]
    is_native = bool(on_surface) and on_surface[0].entities["space"] == NATIVE
    if is_native and "group" in options.levels:
        raise CommandLineError(
            f"--space {NATIVE} is a surface of each participant's own, which no group level can compare. Ask for the "
            "participant level alone, or choose another with --space."
        )
    if is_native and options.group.atlas:
        raise CommandLineError(
            f"--space {NATIVE} is a surface of each participant's own, and --atlas {options.group.atlas[0]} is on one "
            "that all share. Leave it out, or choose another with --space."
        )
    for selection in on_surface if options.first_level.smoothing_fwhm else ():
        for run in selection.every_run:
            if not run.meshes:
                why = f"of sub-{run.participant} {missing_mesh(selection.entities)}"
                raise CommandLineError(f"--smoothing-fwhm smooths along the surface, and {why} Or leave it out.")


def _check_f_tests(contrasts: Sequence[Contrast], weighting: str) -> None:
    """Refuse F tests of effects weighted by precision: each row would have weights of its own."""
    test = next((contrast for contrast in contrasts if contrast.is_f_test), None)
    if test and weighting == "precision":
        raise CommandLineError(
            f"--contrast '{test.definition}' is an F test, which --fixed-effects precision cannot combine: "
            "each row would have weights of its own, so that the answer would depend on how the rows are written. Use "
            "--fixed-effects equal, or leave the F test out."
        )


def _check_confounds(selection: RunSelection, asked: Sequence[str]) -> None:
    """Refuse what is neither a preset nor a column of any run, once for all of them."""
    unknown = [name for name in asked if name not in PRESETS and not is_pattern(name)]
    columns: dict[str, None] = {}
    for column in columns_there(run.confounds for run in selection.every_run):
        if not unknown:
            return
        columns[column] = None
        unknown = [name for name in unknown if name != column]
    if unknown and columns:
        hint = did_you_mean(unknown[0], [*PRESETS, *columns])
        raise CommandLineError(
            f"--confounds '{unknown[0]}' is neither a preset ({', '.join(PRESETS)}) nor a column of any confounds "
            f"file.{hint} The columns are: {listed(list(columns))}. Choose among them, or use --confounds none."
        )


def _check_names(
    selection: RunSelection, analysis: ParticipantAnalysis, session_contrasts: Sequence[SessionContrast]
) -> None:
    """Refuse labels too long for file names before anything is fitted."""
    participant, session = (max(labels, key=len, default="") for labels in (selection.runs, selection.sessions))
    files = analysis.files_of(participant)
    for contrast in analysis.contrasts:
        maps = [files.session_maps(session, contrast)]
        if analysis.model.keep_run_maps:
            maps.append(files.run_maps(max(selection.every_run, key=lambda run: len(run.name)), contrast))
        for of_runs in maps:
            check_name_length(_longest_name(of_runs.values()), {"--contrast": contrast.label})
        for asked in session_contrasts:
            check_name_length(
                _longest_name(files.question_maps(asked, contrast).values()),
                {"--contrast": contrast.label, "--session-contrast": asked.label},
            )


def _longest_name(maps: Iterable[Path]) -> str:
    return max((file.name for path in maps for file in files_of(path)), key=len)


def _memory_needs(selection: RunSelection) -> dict[str, float]:
    return {label: _memory_need(runs) for label, runs in selection.runs.items()}


def _memory_need(runs: Sequence[RunInputs]) -> float:
    """Estimate the memory a participant's largest run needs (GB), from its header alone."""
    there = [run for run in runs if run.bold.is_file()]
    if not there:
        return _BASE_GB  # reported when that participant is analysed
    largest = max(there, key=lambda run: run.bold.stat().st_size)
    if largest.bold.name.endswith(SURFACE_SERIES):
        size = sum(path.stat().st_size for path in largest.images if path.is_file())
        return _BASE_GB + size * _COPIES_OF_SURFACES / 1e9
    try:
        image = open_image(largest.bold)
    except SessionFXError:
        return _BASE_GB
    # numbers that the header scales, or that are double, take twice as much
    precision = 1 if image.dataobj.slope == 1 and image.get_data_dtype().itemsize <= 4 else 2
    per_value = _BYTES_OF_SIGNAL * precision
    if largest.mask is None:
        per_value += image.get_data_dtype().itemsize * precision + _BYTES_WITHOUT_MASK
    return _BASE_GB + float(np.prod(image.shape)) * per_value / 1e9


def _say_about_memory(needs: Mapping[str, float], n_runs: int, executor: Executor, nprocs: int) -> None:
    """Name the runs that are too large, and say when fewer run at a time than could."""
    memory, largest = executor.memory_gb, max(needs.values())
    at_a_time = executor.at_a_time(largest)
    if memory is None:
        return
    too_large = [f"sub-{label}" for label, need in needs.items() if need > memory]
    if too_large:
        say(
            f"A run needs about {largest:.1f} GB, and there are {memory:.1f} GB: {listed(too_large, most=3)} may be "
            "killed. Give the container or job more memory (docker run --memory, sbatch --mem), or say with "
            "--mem-gb that there is more."
        )
    wanted = min(nprocs, n_runs)
    if at_a_time is not None and at_a_time < wanted:
        say(
            f"{counted(at_a_time, 'run')} at a time instead of {wanted}: the largest needs about {largest:.1f} GB, and "
            f"there are {memory:.1f} GB."
        )


def _say_outcome(outcome: Outcome, verbose: int) -> None:
    if outcome.failure:
        say(f"{outcome.name}: FAILED. {outcome.failure.message}")
        if verbose and outcome.failure.details:
            say(outcome.failure.details)
        return
    if outcome.summary is None:
        say(f"{outcome.name}: finished before, skipped (--force redoes it).")
        return
    if verbose:
        for warning in outcome.summary:
            say(f"  {warning}")
    warnings = f", {counted(len(outcome.summary), 'warning')} in logs/" if outcome.summary else ""
    removed = f", {counted(outcome.n_removed, 'file')} of earlier calls removed" if outcome.n_removed else ""
    say(f"{outcome.name}: done in {outcome.seconds:.1f} s{warnings}{removed}.")


def _conclude(outcomes: Sequence[Outcome], selection: RunSelection, analysis: ParticipantAnalysis) -> int:
    """Sum up, and choose the exit code."""
    failed = [outcome.name for outcome in outcomes if outcome.failure]
    if not failed:
        _say_what_is_there(selection, analysis)
        return 0
    n_all, n_kept = len(selection.runs), len(outcomes) - len(failed)
    others = f"{n_kept} finished and kept" if n_kept else "none is finished"
    if len(outcomes) < n_all:
        others += f", {n_all - len(outcomes)} not begun"
    say(
        f"{len(failed)} of {n_all} participants failed ({listed(failed)}); {others}. Details: "
        f"{analysis.output_dir / 'logs'}. Correct the cause and give the same command again."
    )
    return EXIT_SOME_FAILED


def _say_what_is_there(selection: RunSelection, analysis: ParticipantAnalysis) -> None:
    """Sum up what the participant level was made from, and where its results are."""
    contrasts, output_dir = analysis.contrasts, analysis.output_dir
    of_sessions = f", {counted(len(selection.sessions), 'session')} in time order: {selection.order.text}"
    of_task = f"*_task-{selection.entities['task']}_*"
    # one for each hemisphere where these have files of their own
    n_files = len(files_of(Path(file_name(selection.entities, STATMAP_SUFFIX, analysis.extension))))
    ending = f"{STATMAP_SUFFIX}{analysis.extension}"
    n_maps = sum(
        1
        for label in selection.runs
        for contrast in contrasts
        for _ in (output_dir / f"sub-{label}").rglob(f"{of_task}contrast-{contrast.label}_*_{ending}")
    )
    reports = f" Reports: {output_dir}/sub-*.html" if analysis.has_pages else ""
    say(
        f"Participant level: {counted(len(selection.runs), 'participant')}"
        f"{of_sessions if selection.sessions else ''}, {counted(len(selection.every_run), 'run')}; "
        f"{counted(n_maps // n_files, 'map')} of {counted(len(contrasts), 'contrast')} in {output_dir}/sub-*.{reports}"
    )


def _say_what_stays(selection: RunSelection, analysis: ParticipantAnalysis, participants: Iterable[str]) -> None:
    """Name those of the participants' sessions that have maps and no run, of which a group analysis would not tell."""
    have_runs = {(run.participant, run.session) for run in selection.every_run}
    entities = {key: label for key, label in analysis.entities.items() if label is not None}
    stay: dict[str, None] = {}
    for label in participants:
        folder = analysis.output_dir / f"sub-{label}"
        sessions = [name for name in subfolders(folder) if name.startswith("ses-")] if selection.sessions else [""]
        for session in sessions:
            if (label, session.removeprefix("ses-")) in have_runs:
                continue
            maps = (folder / session / "func").glob(f"*_stat-effect*_{STATMAP_SUFFIX}.*")
            if any(entities_of(path).items() >= entities.items() for path in maps):
                stay[f"sub-{label} {session}".strip()] = None
    if stay:
        say(
            f"Maps of earlier calls stay though no preprocessed run of this selection is theirs: {listed(stay)}. A "
            f"group analysis takes them; if it should not, remove these folders in {analysis.output_dir}."
        )

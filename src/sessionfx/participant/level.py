"""The participant level of one call: choose runs, refuse what cannot be, do the tasks of every participant, sum up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.expressions import quoted_names
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.dataset import dataset_links, find_derivative_roots, open_dataset, preprocessing_programs
from sessionfx.bids.derivatives import check_output_place, prepare_output
from sessionfx.bids.images import open_image
from sessionfx.bids.names import STATMAP_SUFFIX, check_name_length, file_name, func_folder
from sessionfx.bids.runs import RunInputs, RunSelection, participants_with_runs, select_runs
from sessionfx.bids.tables import read_header
from sessionfx.bids.writing import remove_stale_temporaries
from sessionfx.errors import CommandLineError, NothingMatchesError, ParticipantError, SessionFXError
from sessionfx.execution import Executor, say, show_progress
from sessionfx.options import Options
from sessionfx.participant.analysis import ParticipantAnalysis, participant_chain
from sessionfx.participant.confounds import PRESETS, is_pattern
from sessionfx.participant.dry_run import participant_text
from sessionfx.participant.events import conditions_in, near_equal
from sessionfx.participant.files import FIXED_EFFECTS_DESC
from sessionfx.process import write_out
from sessionfx.tasks.call import EXIT_SOME_FAILED, asked_of_sessions, check_private_folders, keep_call, say_warnings
from sessionfx.tasks.loop import Outcome, find_work, run_chains
from sessionfx.wording import counted, did_you_mean, listed, natural_key

# Memory of a worker: the libraries; and per value of the 4-D image, of which at most half is brain in practice, the
# signal in single precision, or the whole image and its copy where the brain mask must be computed from it
_BASE_GB = 0.4
_BYTES_OF_SIGNAL = 2.0
_BYTES_WITHOUT_MASK = 8.0


def run_participants(options: Options, raw: Path, contrasts: Sequence[Contrast], executor: Executor) -> int:
    """Run the participant level and return its exit code; a `SessionFXError` stops all participants."""
    selection, analysis = _prepare(options, raw, contrasts, executor)
    execution = options.execution
    needs = {label: _memory_need(runs) for label, runs in selection.runs.items()}
    # longest first, so that no long one is left alone at the end
    order = sorted(selection.runs, key=lambda label: (-len(selection.runs[label]), natural_key(label)))
    chains = (participant_chain(selection.runs[label], analysis) for label in order)
    at_a_time = executor.at_a_time(max(needs.values()))
    if execution.dry_run:
        work = {
            label: find_work(chain, execution, analysis.output_dir) for label, chain in zip(order, chains, strict=True)
        }
        write_out(participant_text(selection, analysis, work, needs, at_a_time))
        if "group" in options.levels:
            write_out("Then the group level; --dry-run with it alone describes it once these maps are there.")
        return 0
    say_warnings(options.group, selection)
    prepare_output(options.output_dir, analysis.links)
    keep_call(options, analysis.methods(selection.every_run), selection.entities, "participant")
    for label in selection.runs:
        remove_stale_temporaries(analysis.output_dir / func_folder(label).parent)
    _say_about_memory(needs, len(selection.every_run), executor, at_a_time, execution.nprocs)
    outcomes: list[Outcome] = []
    with show_progress("participant level", "participant", len(order), leave=True) as advance:
        for outcome in run_chains(chains, executor, execution, analysis.output_dir, max(needs.values())):
            advance()
            _say_outcome(outcome, execution.verbose)
            outcomes.append(outcome)
            if outcome.failure and execution.stop_on_first_crash:
                break
    return _conclude(outcomes, selection, analysis)


def _prepare(
    options: Options, raw: Path, contrasts: Sequence[Contrast], executor: Executor
) -> tuple[RunSelection, ParticipantAnalysis]:
    """Choose the runs, and refuse before anything is written what cannot be asked of them."""
    wanted = options.selection
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
    if not options.execution.dry_run:
        executor.prepare(["sessionfx.participant.analysis", "nilearn.glm.first_level"])
    started = time.monotonic()
    with show_progress("looking for files"):
        dataset = open_dataset(raw, roots, participants=wanted.participant_label, database_dir=wanted.bids_database_dir)
    selection = select_runs(dataset, wanted)
    if options.execution.verbose:
        n_files = len(dataset.raw_files) + len(dataset.derivative_files)
        say(f"{n_files} files to choose from, found in {time.monotonic() - started:.1f} s.")
    if not selection.runs:
        raise NothingMatchesError(
            "No preprocessed run of these participants is in these sessions. Choose others with --participant-label or "
            "--session-label."
        )
    absent = [f"sub-{label}" for label in wanted.participant_label or known if label not in selection.runs]
    if absent:
        task = selection.entities["task"]
        say(f"Without a preprocessed run of task {task} in this selection, and left out: {listed(absent)}.")
    _check_conditions(selection, contrasts, options.first_level.hrf_model)
    _check_confounds(selection, options.first_level.confounds)
    session_contrasts = asked_of_sessions(options.group, selection)
    _check_names(selection, contrasts, session_contrasts, keeps_runs=options.first_level.keep_run_maps)
    # masks and confounds of a denoised image may come from another folder than the image
    files = [
        path
        for run in selection.every_run
        for path in (run.bold, run.mask, run.confounds, run.events)
        if path is not None
    ]
    sources = [root for root in roots if any(path.is_relative_to(root) for path in files)]
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
    )
    return selection, analysis


def _check_conditions(selection: RunSelection, contrasts: Sequence[Contrast], hrf_model: str) -> None:
    """Make sure every contrast names conditions that occur in some run."""
    suffixes = ["", *(f"_{part.strip()}" for part in hrf_model.split("+")[1:])]
    known, unusable = _conditions_there_are(
        (run.events for run in selection.every_run),
        {name for contrast in contrasts for name in contrast.weights},
        suffixes,
    )
    listing = _listing(known, unusable)
    if not contrasts:
        raise CommandLineError(f"No --contrast is given. {listing} Give at least one, such as --contrast 'A - B'.")
    if not known:
        return  # no readable events at all: each participant's own message says why
    for contrast in contrasts:
        in_backticks = quoted_names(contrast.expression, known)
        unknown = contrast.missing_from(known)
        if unknown:
            hints = (
                [f"Names with such characters stand in backticks: --contrast '{in_backticks}'."] if in_backticks else []
            )
            alike = [other for name in unknown for other in near_equal(name, known)]
            hints += [f"Is '{alike[0]}' meant?"] if alike else []
            raise CommandLineError(
                f"--contrast '{contrast.expression}' names the condition '{unknown[0]}', which no run has. "
                + " ".join([*hints, listing])
            )
        if in_backticks:
            say(
                f"--contrast '{contrast.expression}' is read as a sum of other conditions than one with such signs "
                f"in its name. If that one is meant, write --contrast '{in_backticks}'."
            )


def _conditions_there_are(
    paths: Iterable[Path | None], wanted: set[str], suffixes: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Collect conditions until all that are wanted are known, and why events files cannot be used."""
    conditions: dict[str, None] = {}
    unusable: list[str] = []
    for path in dict.fromkeys(paths):
        if path is None:
            continue
        try:
            names = conditions_in(path)
        except ParticipantError as error:
            unusable.append(str(error))  # reported when that participant is analysed
            continue
        conditions.update(dict.fromkeys(name + suffix for name in names for suffix in suffixes))
        if wanted and wanted <= conditions.keys():
            break
    return sorted(conditions, key=natural_key), unusable


def _listing(conditions: Sequence[str], unusable: Sequence[str]) -> str:
    """Name the conditions there are; where there are none, say why."""
    if conditions:
        return f"Conditions there are: {listed(conditions)}."
    if not unusable:
        return "No run has an events file in the raw dataset, so no condition is known."
    more = f" (so are {len(unusable) - 1} others)" if len(unusable) > 1 else ""
    return f"No condition is known, as the events cannot be used{more}: {unusable[0]}"


def _check_confounds(selection: RunSelection, asked: Sequence[str]) -> None:
    """Refuse what is neither a preset nor a column of any run, once for all of them."""
    unknown = [name for name in asked if name not in PRESETS and not is_pattern(name)]
    columns: dict[str, None] = {}
    for path in dict.fromkeys(run.confounds for run in selection.every_run):
        if not unknown:
            return
        if path is None:
            continue
        try:
            columns.update(dict.fromkeys(read_header(path)))
        except ParticipantError:
            continue  # reported when that participant is analysed
        unknown = [name for name in unknown if name not in columns]
    if unknown and columns:
        hint = did_you_mean(unknown[0], [*PRESETS, *columns])
        raise CommandLineError(
            f"--confounds '{unknown[0]}' is neither a preset ({', '.join(PRESETS)}) nor a column of any confounds "
            f"file.{hint} Columns there are: {listed(list(columns))}. Choose among them, or use --confounds none."
        )


def _check_names(
    selection: RunSelection,
    contrasts: Sequence[Contrast],
    session_contrasts: Sequence[SessionContrast],
    *,
    keeps_runs: bool,
) -> None:
    """Refuse labels too long for file names before anything is fitted."""
    participant, session = (max(labels, key=len, default="") for labels in (selection.runs, selection.sessions))
    for contrast in contrasts:
        entities = {**selection.entities, "sub": participant, "contrast": contrast.label, "stat": "variance",
                    "desc": FIXED_EFFECTS_DESC}  # fmt: skip
        of_session = file_name({**entities, "ses": session}, STATMAP_SUFFIX, ".nii.gz")
        check_name_length(of_session, {"--contrast": contrast.label})
        if keeps_runs:
            entities_of_run = {
                **max(selection.every_run, key=lambda run: len(run.name)).entities,
                **entities,
                "desc": None,
            }
            check_name_length(file_name(entities_of_run, STATMAP_SUFFIX, ".nii.gz"), {"--contrast": contrast.label})
        for asked in session_contrasts:
            check_name_length(
                file_name({**entities, "sessions": asked.label}, STATMAP_SUFFIX, ".nii.gz"),
                {"--contrast": contrast.label, "--session-contrast": asked.label},
            )


def _memory_need(runs: Sequence[RunInputs]) -> float:
    """Estimate the memory a participant's largest run needs (GB), from its header alone."""
    there = [run for run in runs if run.bold.is_file()]
    if not there:
        return _BASE_GB  # reported when that participant is analysed
    largest = max(there, key=lambda run: run.bold.stat().st_size)
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


def _say_about_memory(
    needs: Mapping[str, float], n_runs: int, executor: Executor, at_a_time: int | None, nprocs: int
) -> None:
    """Name the runs that are too large, and say when fewer run at a time than could."""
    memory, largest = executor.memory_gb, max(needs.values())
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
            f"{at_a_time} run(s) at a time instead of {wanted}: the largest needs about {largest:.1f} GB, and there "
            f"are {memory:.1f} GB."
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
    warnings = f", {len(outcome.summary)} warning(s) in logs/" if outcome.summary else ""
    removed = f", {outcome.n_removed} file(s) of earlier calls removed" if outcome.n_removed else ""
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
    n_maps = sum(
        1
        for label in selection.runs
        for contrast in contrasts
        for _ in (output_dir / f"sub-{label}").rglob(f"*_contrast-{contrast.label}_*_{STATMAP_SUFFIX}.nii.gz")
    )
    reports = f" Reports: {output_dir}/sub-*.html" if analysis.has_pages else ""
    say(
        f"Participant level: {counted(len(selection.runs), 'participant')}"
        f"{of_sessions if selection.sessions else ''}, {counted(len(selection.every_run), 'run')}; "
        f"{counted(n_maps, 'map')} of {counted(len(contrasts), 'contrast')} in {output_dir}/sub-*.{reports}"
    )

"""One call of the program: check the input, run the levels asked for, and say how it went."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from sessionfx.ask.contrasts import Contrast, parse_contrasts, selected_labels
from sessionfx.ask.covariates import INTERCEPT
from sessionfx.ask.expressions import quoted_names, split_name
from sessionfx.ask.session_contrasts import (
    SessionContrast,
    check_specification,
    differences_left_out,
    resolve_session_contrasts,
)
from sessionfx.bids.dataset import (
    check_raw_dataset,
    dataset_links,
    find_derivative_roots,
    open_dataset,
    preprocessing_programs,
    subfolders,
)
from sessionfx.bids.derivatives import check_output_place, prepare_output
from sessionfx.bids.names import STATMAP_SUFFIX, check_name_length, entity_string, file_name, natural_key
from sessionfx.bids.runs import RunInputs, RunSelection, participants_with_runs, read_filters, select_runs
from sessionfx.bids.writing import remove, remove_stale_temporaries, write_text
from sessionfx.dry_run import group_text, participant_text
from sessionfx.errors import (
    CommandLineError,
    DatasetError,
    LevelError,
    NothingMatchesError,
    OutputError,
    ParticipantError,
    SessionFXError,
)
from sessionfx.execution import (
    Done,
    Executor,
    Failure,
    limited_threads,
    open_executor,
    say,
    show_progress,
)
from sessionfx.options import Options
from sessionfx.options.toml import to_toml
from sessionfx.process import write_out
from sessionfx.wording import counted, listed

if TYPE_CHECKING:
    from sessionfx.bids.first_level_maps import MapSelection
    from sessionfx.group.analysis import ContrastOutcome
    from sessionfx.participant.analysis import Outcome
    from sessionfx.report.methods import MethodsText

EXIT_SOME_FAILED = 1
# Lines on screen for the answers of one first-level contrast; the report has all
_MOST_FINDINGS = 12
# Memory of a worker: the libraries; and per value of the 4-D image, of which at most half is brain in practice, the
# signal in single precision, or the whole image and its copy where the brain mask must be computed from it
_BASE_GB = 0.4
_BYTES_OF_SIGNAL = 2.0
_BYTES_WITHOUT_MASK = 8.0


def run(options: Options) -> int:
    """Carry out one call.

    Parameters
    ----------
    options : Options

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    SessionFXError
        For problems that stop the whole call.
    """
    _quiet_libraries(options.execution.verbose)
    _check_folders(options)
    _check_temporary_folder()
    _check_questions(options)
    _check_dependencies(options)
    contrasts = parse_contrasts(options.selection.contrast) if "participant" in options.levels else ()
    raw = check_raw_dataset(options.bids_dir, skip_validation=options.selection.skip_bids_validation)
    check_output_place(options.output_dir, {"raw": raw})
    code = 0
    with open_executor(
        options.execution, output_dir=options.output_dir, inputs=(options.bids_dir, *options.selection.derivatives)
    ) as executor:
        if "participant" in options.levels:
            code = run_participants(options, raw, contrasts, executor)
        if "group" not in options.levels or (options.execution.dry_run and "participant" in options.levels):
            return code
        if code:
            say(
                "The group level is not run: it would silently go without the participants that failed. Correct the "
                "cause and give the same command again, or run the group level by itself."
            )
            return code
        return run_group(options, raw, executor)


def run_participants(options: Options, raw: Path, contrasts: Sequence[Contrast], executor: Executor) -> int:
    """Run the participant level."""
    roots = find_derivative_roots(raw, options.selection.derivatives)
    check_output_place(options.output_dir, dataset_links(raw, roots))
    _check_private_folders(options, [raw, *roots])
    known = participants_with_runs(roots)
    for label in options.selection.participant_label:
        if label not in known:
            raise NothingMatchesError(
                f"--participant-label {label} matches no participant in {listed(roots)}. "
                f"What exists: {listed(known) or 'none'}."
            )
    if not options.execution.dry_run and len(options.selection.participant_label) != 1:
        executor.prepare(["sessionfx.participant.analysis", "nilearn.glm.first_level"])
    started = time.monotonic()
    with show_progress("looking for files"):
        dataset = open_dataset(
            raw,
            roots,
            participants=options.selection.participant_label,
            database_dir=options.selection.bids_database_dir,
        )
    selection = select_runs(dataset, options.selection)
    if options.execution.verbose:
        n_files = len(dataset.raw_files) + len(dataset.derivative_files)
        say(f"{n_files} files to choose from, found in {time.monotonic() - started:.1f} s.")
    if not selection.runs:
        raise NothingMatchesError(
            "No preprocessed run of these participants is in these sessions. Choose others with --participant-label or "
            "--session-label."
        )
    absent = [f"sub-{label}" for label in options.selection.participant_label or known if label not in selection.runs]
    if absent:
        say(f"Without a preprocessed run of task {selection.task} in this selection, and left out: {listed(absent)}.")
    _check_conditions(selection, contrasts, options)
    _check_confounds(selection, options)
    session_contrasts = _session_contrasts(options, selection)
    _check_names(selection, contrasts, session_contrasts, keeps_runs=options.first_level.keep_run_maps)

    from sessionfx.participant.analysis import ParticipantAnalysis, analyse_participant

    every_run = [run for runs in selection.runs.values() for run in runs]
    # masks and confounds of a denoised image may come from another folder than the image
    files = [path for run in every_run for path in (run.bold, run.mask, run.confounds, run.events) if path is not None]
    sources = [root for root in roots if any(path.is_relative_to(root) for path in files)]
    links = dataset_links(raw, sources)
    output_dir = options.output_dir.absolute()
    analysis = ParticipantAnalysis(
        model=options.first_level,
        thresholds=options.group,
        execution=options.execution,
        contrasts=tuple(contrasts),
        session_contrasts=tuple(session_contrasts) if selection.sessions else (),
        entities=selection.entities,
        output_dir=output_dir,
        links=links,
        preprocessing=preprocessing_programs(sources),
    )
    needs = {f"sub-{label}": _memory_need(runs) for label, runs in selection.runs.items()}
    if options.execution.dry_run:
        questions = [one.text for one in session_contrasts]
        write_out(participant_text(selection, analysis, questions, needs, executor.at_a_time(needs)))
        if "group" in options.levels:
            write_out("Then the group level; --dry-run with it alone describes it once these maps are there.")
        return 0
    _warn(options, selection)
    prepare_output(options.output_dir, links)
    _keep_options(options, output_dir)
    _keep_methods(analysis.methods(every_run), selection.entities, "participant", output_dir)
    # longest first, so that no long one is left alone at the end
    order = sorted(selection.runs, key=lambda label: (-len(selection.runs[label]), natural_key(label)))
    units = {f"sub-{label}": (selection.runs[label], analysis) for label in order}
    _say_about_memory(needs, sum(map(len, selection.runs.values())), executor, options)
    outcomes: dict[str, Failure | None] = {}
    analysed = entity_string(selection.entities)
    with show_progress("participant level", "participant", len(units), leave=True) as advance:
        for done in executor.run_units(
            analyse_participant, units, needs_gb=needs, stop_on_failure=options.execution.stop_on_first_crash
        ):
            advance()
            _report_participant(done, options)
            _keep_crash(done, analysed, output_dir)
            outcomes[done.unit] = done.failure
    return _conclude(outcomes, selection, contrasts, options, output_dir)


def run_group(options: Options, raw: Path, executor: Executor) -> int:
    """Run the group level."""
    from sessionfx.bids.first_level_maps import find_first_level_maps, select_maps
    from sessionfx.group.analysis import GroupAnalysis, analyse_contrast, check_questions
    from sessionfx.group.page import remove_group_refusal, write_group_refusal

    roots = [options.output_dir.absolute(), *(folder.absolute() for folder in options.selection.derivatives)]
    for folder in options.selection.derivatives:
        if not folder.is_dir():
            raise DatasetError(f"--derivatives {folder} does not exist. Correct the path.")
    map_filter = read_filters(options.selection.bids_filter_file).get("maps")
    found = find_first_level_maps([root for root in roots if root.is_dir()], map_filter)
    if not found.maps and not options.selection.derivatives:
        roots += [raw / "derivatives" / name for name in subfolders(raw / "derivatives")]
        found = find_first_level_maps(roots[1:], map_filter)
    selection = select_maps(found, options.selection, selected_labels(options.selection.contrast), roots, raw)
    sources = sorted({one.root for chosen in selection.maps.values() for one in chosen})
    foreign = [root for root in sources if root != options.output_dir.absolute()]
    links = dataset_links(raw, foreign)
    _check_private_folders(options, [raw, *foreign])
    session_contrasts = _session_contrasts(options, selection)
    check_questions(selection, session_contrasts, raw, options.group)
    participants = sorted({one.participant for chosen in selection.maps.values() for one in chosen}, key=natural_key)
    analysis = GroupAnalysis(
        model=options.group,
        weighting=options.first_level.fixed_effects,
        execution=options.execution,
        selection=selection,
        session_contrasts=tuple(session_contrasts),
        raw=raw,
        output_dir=options.output_dir.absolute(),
        links=links,
        executor=executor,
    )
    if options.execution.dry_run:
        write_out(group_text(analysis))
        return 0
    _warn(options, selection)
    output_dir = prepare_output(options.output_dir, links)
    if "participant" not in options.levels:
        _keep_options(options, output_dir)
    if len(participants) < 2:
        sentence = (
            "The group level needs at least two participants, and there are maps of one only "
            f"(sub-{participants[0]}). Run the participant level on more participants first, or choose more."
        )
        if not options.execution.no_report:
            write_group_refusal(output_dir, selection.entities, sentence)
        raise LevelError(sentence)
    remove_group_refusal(output_dir, selection.entities)
    remove_stale_temporaries(output_dir / "group")
    failures: dict[str, Failure] = {}
    works = []
    with (
        limited_threads(options.execution.omp_nthreads),
        show_progress("group level", "contrast", len(selection.maps), leave=True) as advance,
    ):
        for contrast in selection.maps:
            try:
                outcome = analyse_contrast(contrast, analysis)
            except LevelError as error:
                if len(selection.maps) == 1:
                    raise
                failures[f"contrast {contrast}"] = Failure(str(error), "", expected=True)
                say(f"contrast {contrast}: FAILED. {error}")
            else:
                _report_contrast(contrast, outcome)
                works += [outcome.work] if outcome.work is not None else []
            advance()
    if works:  # else the text of the call that did the work stays
        _keep_methods(analysis.methods(reduce(or_, works)), selection.entities, "group", output_dir)
    _say_order(selection)
    say(f"Maps and tables: {output_dir / 'group'}")
    if not options.execution.no_report:
        say(f"Report: {output_dir / 'group.html'}")
    return EXIT_SOME_FAILED if failures else 0


def _warn(options: Options, selection: RunSelection | MapSelection) -> None:
    """Say what a reader should know of the choice of files, of the sessions, and of what is not asked by default."""
    for warning in selection.warnings:
        say(f"Warning: {warning}")
    left_out = differences_left_out(options.group.session_contrast, selection.sessions)
    if left_out:
        say(left_out)


def _say_order(selection: RunSelection | MapSelection) -> None:
    if len(selection.sessions) > 1:
        say(f"Sessions in their order in time: {selection.order.text}.")


def _session_contrasts(options: Options, selection: RunSelection | MapSelection) -> list[SessionContrast]:
    return resolve_session_contrasts(
        options.group.session_contrast,
        selection.sessions,
        order_is_known=selection.order.is_known,
        order_source=selection.order.source,
    )


def _check_questions(options: Options) -> None:
    """Refuse what no dataset could answer, before anything is read."""
    for specification in options.group.session_contrast:
        time_name = check_specification(specification)
        if time_name is not None and time_name not in options.group.session_covariates:
            raise CommandLineError(
                f"--session-contrast '{specification}' takes '{time_name}' as time, which is not among "
                f"--session-covariates. Add --session-covariates {time_name}."
            )
    if options.group.group_contrast and not options.group.covariates:
        asked = [one for one in options.group.group_contrast if split_name(one)[1] != INTERCEPT]
        if asked:
            raise CommandLineError(
                f"--group-contrast '{asked[0]}' asks about a covariate, and none is given. Add --covariates COLUMN."
            )


def _check_dependencies(options: Options) -> None:
    """Refuse strategies whose packages are not installed, before anything is read or written."""
    if "group" not in options.levels or not options.group.strategy:
        return
    from sessionfx.group.strategies import STRATEGIES

    for name in options.group.strategy:
        missing = STRATEGIES[name].missing_dependency()
        if missing:
            raise CommandLineError(f"--strategy {name}: {missing}")


def _check_conditions(selection: RunSelection, contrasts: Sequence[Contrast], options: Options) -> None:
    """Make sure every contrast names conditions that occur in some run."""
    from sessionfx.participant.events import conditions_in, near_equal

    suffixes = ["", *(f"_{part.strip()}" for part in options.first_level.hrf_model.split("+")[1:])]
    wanted = {name for contrast in contrasts for name in contrast.weights}
    conditions: dict[str, None] = {}
    unusable: list[str] = []
    for path in dict.fromkeys(run.events for runs in selection.runs.values() for run in runs):
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
    known = sorted(conditions, key=natural_key)
    listing = _listing(known, unusable)
    if not contrasts:
        raise CommandLineError(f"No --contrast is given. {listing} Give at least one, such as --contrast 'A - B'.")
    if not conditions:
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


def _listing(conditions: Sequence[str], unusable: Sequence[str]) -> str:
    """Name the conditions there are; where there are none, say why."""
    if conditions:
        return f"Conditions there are: {listed(conditions)}."
    if not unusable:
        return "No run has an events file in the raw dataset, so no condition is known."
    more = f" (so are {len(unusable) - 1} others)" if len(unusable) > 1 else ""
    return f"No condition is known, as the events cannot be used{more}: {unusable[0]}"


def _check_confounds(selection: RunSelection, options: Options) -> None:
    """Refuse what is neither a preset nor a column of any run, once for all of them."""
    from sessionfx.bids.tables import read_header
    from sessionfx.participant.confounds import PRESETS, is_pattern

    unknown = [name for name in options.first_level.confounds if name not in PRESETS and not is_pattern(name)]
    columns: dict[str, None] = {}
    for path in dict.fromkeys(run.confounds for runs in selection.runs.values() for run in runs):
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
        raise CommandLineError(
            f"--confounds '{unknown[0]}' is neither a preset ({', '.join(PRESETS)}) nor a column of any confounds "
            f"file. Columns there are: {listed(list(columns))}. Choose among them, or use --confounds none."
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
                    "desc": "fixedEffects"}  # fmt: skip
        of_session = file_name({**entities, "ses": session}, STATMAP_SUFFIX, ".nii.gz")
        check_name_length(of_session, {"--contrast": contrast.label})
        if keeps_runs:
            runs = (run for runs in selection.runs.values() for run in runs)
            entities_of_run = {**max(runs, key=lambda run: len(run.name)).entities, **entities, "desc": None}
            check_name_length(file_name(entities_of_run, STATMAP_SUFFIX, ".nii.gz"), {"--contrast": contrast.label})
        for asked in session_contrasts:
            check_name_length(
                file_name({**entities, "sessions": asked.label}, STATMAP_SUFFIX, ".nii.gz"),
                {"--contrast": contrast.label, "--session-contrast": asked.label},
            )


def _check_folders(options: Options) -> None:
    """Refuse folders that the system cannot even look up, before a library meets them."""
    try:
        Path.cwd()
    except OSError:
        raise CommandLineError(
            "The folder in which the command was given does not exist any more. Change into another one (cd) first."
        ) from None
    for option, folder, refusal in (
        ("The BIDS folder", options.bids_dir, DatasetError),
        ("The output folder", options.output_dir, OutputError),
        *(("--derivatives", folder, DatasetError) for folder in options.selection.derivatives),
        ("--work-dir", options.execution.work_dir, OutputError),
        ("--bids-database-dir", options.selection.bids_database_dir, OutputError),
    ):
        if folder is None:
            continue
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # made later, or missed where it is needed
        except OSError as error:
            what = (
                "is a link that leads in a circle"
                if error.errno == errno.ELOOP
                else f"cannot be used ({error.strerror})"
            )
            raise refusal(f"{option} {folder} {what}. Give another folder.") from None


def _check_temporary_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise OutputError(
            "No folder for temporary files is writable, which matplotlib needs. Provide one: --tmpfs /tmp for "
            "docker run, or the variable TMPDIR."
        ) from None


def _check_private_folders(options: Options, inputs: Sequence[Path]) -> None:
    for option, folder in (
        ("--work-dir", options.execution.work_dir),
        ("--bids-database-dir", options.selection.bids_database_dir),
    ):
        if folder is None:
            continue
        resolved = folder.resolve()
        if any(resolved == root.resolve() or root.resolve() in resolved.parents for root in inputs):
            raise OutputError(
                f"{option} {folder} lies inside the input dataset, which must stay untouched. Choose another folder."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{option} {folder} cannot be made ({error.strerror}). Choose another folder.") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{option} {folder} is not writable. Choose another folder.")


def _report_contrast(contrast: str, outcome: ContrastOutcome) -> None:
    for message in outcome.messages:
        say(f"  {message}")
    if outcome.status == "finished":
        say(f"group, contrast {contrast}: finished before, skipped (--force redoes it).")
        return
    say(f"group, contrast {contrast}: done.")
    for line in outcome.findings[:_MOST_FINDINGS]:
        say(f"  {line}")
    if len(outcome.findings) > _MOST_FINDINGS:
        say(f"  and {len(outcome.findings) - _MOST_FINDINGS} more, in the tables and the report.")


def _report_participant(done: Done[Outcome], options: Options) -> None:
    if done.failure:
        say(f"{done.unit}: FAILED. {done.failure.message}")
        if options.execution.verbose and done.failure.details:
            say(done.failure.details)
        return
    outcome = done.result
    assert outcome is not None  # noqa: S101 - a unit has a result or a failure
    if outcome.status == "finished":
        say(f"{done.unit}: finished before, skipped (--force redoes it).")
        return
    if options.execution.verbose:
        for message in outcome.messages:
            say(f"  {message}")
    remarks = f", {len(outcome.messages)} remark(s) in logs/" if outcome.messages else ""
    removed = f", {outcome.n_removed} file(s) of earlier calls removed" if outcome.n_removed else ""
    say(f"{done.unit}: done in {outcome.seconds:.1f} s{remarks}{removed}.")


def _keep_crash(done: Done[Outcome], analysed: str, output_dir: Path) -> None:
    """Keep for later reading why a participant failed, as long as that is so."""
    crash = output_dir / "logs" / f"{'_'.join(filter(None, (done.unit, analysed)))}_crash.txt"
    try:
        if done.failure:
            write_text(crash, f"{done.failure.message}\n\n{done.failure.details}")
        else:
            remove(crash)
    except ParticipantError as error:
        say(f"{done.unit}: {error}")


def _conclude(
    outcomes: dict[str, Failure | None],
    selection: RunSelection,
    contrasts: Sequence[Contrast],
    options: Options,
    output_dir: Path,
) -> int:
    """Sum up, and choose the exit code."""
    n_units = len(selection.runs)
    failures = {unit: failure for unit, failure in outcomes.items() if failure}
    if not failures:
        _say_what_is_there(selection, contrasts, options, output_dir)
        return 0
    n_kept, n_begun = len(outcomes) - len(failures), len(outcomes)
    others = f"{n_kept} finished and kept" if n_kept else "none is finished"
    if n_begun < n_units:
        others += f", {n_units - n_begun} not begun"
    say(
        f"{len(failures)} of {n_units} participants failed ({listed(failures)}); {others}. Details: "
        f"{output_dir / 'logs'}. Correct the cause and give the same command again."
    )
    return EXIT_SOME_FAILED


def _say_what_is_there(
    selection: RunSelection, contrasts: Sequence[Contrast], options: Options, output_dir: Path
) -> None:
    """Sum up what the participant level was made from, and where its results are."""
    n_runs = sum(map(len, selection.runs.values()))
    of_sessions = f", {counted(len(selection.sessions), 'session')} in time order: {selection.order.text}"
    n_maps = sum(
        1
        for label in selection.runs
        for contrast in contrasts
        for _ in (output_dir / f"sub-{label}").rglob(f"*_contrast-{contrast.label}_*_{STATMAP_SUFFIX}.nii.gz")
    )
    reports = "" if options.execution.no_report else f" Reports: {output_dir}/sub-*.html"
    say(
        f"Participant level: {counted(len(selection.runs), 'participant')}"
        f"{of_sessions if selection.sessions else ''}, {counted(n_runs, 'run')}; "
        f"{counted(n_maps, 'map')} of {counted(len(contrasts), 'contrast')} in {output_dir}/sub-*.{reports}"
    )


def _memory_need(runs: Sequence[RunInputs]) -> float:
    """Estimate the memory a participant's largest run needs (GB), from its header alone."""
    import numpy as np

    from sessionfx.bids.images import open_image

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


def _say_about_memory(needs: Mapping[str, float], n_runs: int, executor: Executor, options: Options) -> None:
    """Name the runs that are too large, and say when fewer run at a time than could."""
    memory, largest = executor.memory_gb, max(needs.values())
    if memory is None:
        return
    too_large = [unit for unit, need in needs.items() if need > memory]
    if too_large:
        say(
            f"A run needs about {largest:.1f} GB, and there are {memory:.1f} GB: {listed(too_large, most=3)} may be "
            "killed. Give the container or job more memory (docker run --memory, sbatch --mem), or say with "
            "--mem-gb that there is more."
        )
    at_a_time, wanted = executor.at_a_time(needs), min(options.execution.nprocs, n_runs)
    if at_a_time is not None and at_a_time < wanted:
        say(
            f"{at_a_time} run(s) at a time instead of {wanted}: the largest needs about {largest:.1f} GB, and there "
            f"are {memory:.1f} GB."
        )


def _keep_options(options: Options, output_dir: Path) -> None:
    """Save what was asked for, so that `--config-file` can ask for it again."""
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}_config.toml"
    write_text(output_dir / "logs" / name, to_toml(options))


def _keep_methods(methods: MethodsText, entities: Mapping[str, str | None], level: str, output_dir: Path) -> None:
    name = file_name({**entities, "desc": level}, "methods", ".txt")
    write_text(output_dir / "logs" / name, methods.as_text())


def _quiet_libraries(verbose: int) -> None:
    """Keep the libraries' remarks to themselves: ours name file and remedy."""
    logging.basicConfig(level=logging.DEBUG if verbose > 1 else logging.ERROR)
    if verbose < 2:
        warnings.simplefilter("ignore")

"""One call of the program: check what was asked, run the levels, give the exit code."""

from __future__ import annotations

import errno
import logging
import tempfile
import warnings
from pathlib import Path

from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.ask.covariates import INTERCEPT
from sessionfx.ask.expressions import split_name
from sessionfx.ask.session_contrasts import check_specification
from sessionfx.bids.dataset import RAW, check_raw_dataset
from sessionfx.bids.derivatives import check_output_place
from sessionfx.errors import CommandLineError, DatasetError, OutputError
from sessionfx.execution import open_executor, say
from sessionfx.models.applying import plan_of, with_model
from sessionfx.models.drawing import plan_text
from sessionfx.options import GroupModel, Options
from sessionfx.process import write_out


def run(options: Options) -> int:
    """Carry out one call and return its exit code; a `SessionFXError` stops all of it."""
    # ours name file and remedy, the libraries' warnings do not
    logging.basicConfig(level=logging.DEBUG if options.execution.verbose > 1 else logging.ERROR)
    if options.execution.verbose < 2:
        warnings.simplefilter("ignore")
    _check_folders(options)
    _check_temporary_folder()
    plan = plan_of(options)
    of_group = options
    if plan is not None:
        options, of_group = with_model(options, plan)
        if options.execution.dry_run:
            write_out(plan_text(plan))
        else:
            for warning in plan.warnings:
                say(f"Warning: {warning}")
    _check_questions(options.group)
    _check_dependencies(options)
    contrasts = parse_contrasts(options.selection.contrast) if "participant" in options.levels else ()
    raw = check_raw_dataset(options.bids_dir, skip_validation=options.selection.skip_bids_validation)
    check_output_place(options.output_dir, {RAW: raw})
    code = 0
    with open_executor(
        scheduler=options.execution.scheduler,
        n_workers=options.execution.nprocs,
        n_threads=options.execution.omp_nthreads,
        memory_gb=options.execution.mem_gb,
        verbose=options.execution.verbose,
        output_dir=options.output_dir,
        # workers elsewhere read the maps of the group level in the work folder
        inputs=(
            options.bids_dir,
            *options.selection.derivatives,
            *([options.execution.work_dir] if options.execution.work_dir and "group" in options.levels else []),
        ),
    ) as executor:
        # what one level needs takes a second to import, and the other has no use for it
        if "participant" in options.levels:
            from sessionfx.participant.level import run_participants

            code = run_participants(options, raw, contrasts, executor)
        if "group" not in options.levels or (options.execution.dry_run and "participant" in options.levels):
            return code
        if code:
            say(
                "The group level is not run: it would silently go without the participants that failed. Correct the "
                "cause and give the same command again, or run the group level by itself."
            )
            return code
        from sessionfx.group.level import run_group

        return run_group(of_group, raw, executor)


def _check_questions(model: GroupModel) -> None:
    """Refuse what no dataset could answer, before anything is read."""
    for specification in model.session_contrast:
        time_name = check_specification(specification)
        if time_name is not None and time_name not in model.session_covariates:
            raise CommandLineError(
                f"--session-contrast '{specification}' takes '{time_name}' as time, which is not among "
                f"--session-covariates. Add --session-covariates {time_name}."
            )
    if model.group_contrast and not model.covariates:
        of_covariates = [asked for asked in model.group_contrast if split_name(asked)[1] != INTERCEPT]
        if of_covariates:
            raise CommandLineError(
                f"--group-contrast '{of_covariates[0]}' asks about a covariate, and none is given. Add --covariates "
                "COLUMN."
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
            circle = "is a link that leads in a circle"
            what = circle if error.errno == errno.ELOOP else f"cannot be used ({error.strerror})"
            raise refusal(f"{option} {folder} {what}. Give another folder.") from None


def _check_temporary_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise OutputError(
            "No folder for temporary files is writable, which matplotlib needs. Provide one: --tmpfs /tmp for "
            "docker run, or the variable TMPDIR."
        ) from None

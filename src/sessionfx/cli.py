"""The command line: options, run, and errors to exit codes.

Only the standard library is imported at the top: `--help` and `--version` answer at once.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sessionfx.errors import INTERRUPTED, CommandLineError, SessionFXError, as_refusal
from sessionfx.options import Options
from sessionfx.options.command_line import options_of
from sessionfx.process import INTERRUPTED_SENTENCE, ended_by_signal, ending_in_order, prepare_streams, write_out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program, with the arguments of the process by default, and return its exit code (see `--help`)."""
    prepare_streams()
    with ending_in_order(_stop_children):
        return _code_of(list(sys.argv[1:] if argv is None else argv))


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line and the configuration file it may name; see `options.command_line.options_of`."""
    return options_of(argv, _read_config)


def _read_config(path: Path) -> str:
    from sessionfx.bids.reading import UnreadableFileError, read_text

    try:
        return read_text(path)
    except UnreadableFileError as error:
        raise CommandLineError(f"--config-file {error}") from None


def _stop_children() -> None:
    """Stop worker processes, if there can be any."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()


def _load_workers(options: Options) -> None:
    """Begin to load what worker processes need, which takes as long as what this one does before they are needed."""
    execution = options.execution
    if "participant" in options.levels and execution.nprocs > 1 and not (execution.scheduler or execution.dry_run):
        from sessionfx.execution import load_ahead

        load_ahead(["sessionfx.participant.analysis", "nilearn.glm.first_level"])


def _code_of(arguments: list[str]) -> int:
    """Run the program and turn whatever ends it into one paragraph and an exit code."""
    verbose = any(re.fullmatch(r"-v+|--verbose", argument) for argument in arguments)
    output_dir = None
    try:
        if any(argument.replace("_", "-") == "--report-bug" for argument in arguments):  # whatever the others are
            from sessionfx.bug_report import bug_report

            write_out(bug_report(arguments))
            return 0
        options = parse_options(arguments)
        output_dir = str(options.output_dir)
        from sessionfx.execution import start_few_threads

        start_few_threads(options.execution.omp_nthreads)
        _load_workers(options)
        from sessionfx.app import run

        return run(options)
    except BaseException as error:
        code = ended_by_signal()
        if code is not None:  # also where a library made another exception of it
            if code == INTERRUPTED:
                _complain(INTERRUPTED_SENTENCE)
            return code
        if isinstance(error, KeyboardInterrupt):
            _complain(INTERRUPTED_SENTENCE)
            return INTERRUPTED
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            return error.code or 0  # --help, --version
        if not isinstance(error, Exception):
            raise
        refusal = error if isinstance(error, SessionFXError) else as_refusal(error, output_dir)
        if verbose:
            import traceback

            _complain("".join(traceback.format_exception(error)).rstrip("\n"))
        _complain(f"sessionfx: {refusal}")
        return refusal.exit_code


def _complain(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        print(text, file=sys.stderr, flush=True)

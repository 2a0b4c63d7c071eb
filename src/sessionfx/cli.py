"""The command line: arguments to options, errors to exit codes.

Only the standard library is imported at the top: `--help` and `--version` answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from sessionfx import __version__
from sessionfx.bids.names import LONGEST_NAME, strip_prefix
from sessionfx.errors import (
    INTERRUPTED,
    CommandLineError,
    SessionFXError,
    as_refusal,
)
from sessionfx.execution.resources import available_processors
from sessionfx.options import Options
from sessionfx.options.table import (
    CORRECTIONS,
    DRIFT_MODELS,
    EXECUTORS,
    FIXED_EFFECTS_DOF_METHODS,
    FIXED_EFFECTS_WEIGHTINGS,
    HRF_MODELS,
    LEVELS,
    MIXED_DOF_METHODS,
    NOISE_MODELS,
    SESSION_COVARIATE_EFFECTS,
    STRATEGY_NAMES,
    SUBJECT_EFFECTS,
    VARIANCES,
)
from sessionfx.options.toml import as_text
from sessionfx.process import (
    INTERRUPTED_SENTENCE,
    ended_by_signal,
    ending_in_order,
    prepare_streams,
    write_out,
)

_LABEL = re.compile(r"[a-zA-Z0-9+]+\Z")
# bytes, of the file systems in use; and of a whole path, on Linux
_LONGEST_PATH = 4095
# of a number as it is quoted
_DIGITS = 40


class Bound(NamedTuple):
    """The largest value of an option, and why more is a slip of the pen."""

    largest: float
    reason: str


HIGHEST_HIGH_PASS = Bound(1.0, "Hz: faster drifts than that are the response itself")
WIDEST_SMOOTHING = Bound(50.0, "mm: wider kernels leave nothing to tell apart in a brain")
LARGEST_CLUSTER = Bound(10**7, "voxels: more than an image has")
MOST_PERMUTATIONS = Bound(10**6, "permutations: p to a millionth, and weeks of work")
MOST_SIMULATED_VOXELS = Bound(10**6, "voxels, with which a rate of 5 % is known to within 0.05 %")
LARGEST_EQUIVALENCE_BOUND = Bound(1000.0, "percent signal change: no response is as large")
WIDEST_PRIOR = Bound(10.0, ": effects of ten standard deviations need no test")
LARGEST_SEED = Bound(2**63 - 1, ", the largest whole number of a TOML file")
MOST_PROCESSORS = Bound(1024, ": more than a machine has, or a scheduler likes to be asked for by one program")
MOST_MEMORY_GB = Bound(10**6, "GB: more than a machine has")
MOST_VERBOSE = 10  # more -v change nothing


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        write_out(message.rstrip("\n"))  # --help and --version; argparse would not see that it cannot be written

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{message[:1].upper()}{message[1:]}. See 'sessionfx --help' for all options.")


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line; also the source of the Boutiques descriptor."""
    parser = _Parser(
        prog="sessionfx",
        allow_abbrev=False,
        description="Multi-session task fMRI: fits every run, combines runs and sessions by fixed effects "
        "(participant level), then compares the group strategies on the same question (group level).",
        epilog="Options may be written with underscores (--participant_label). "
        "Exit codes: 0 done, 1 some participant failed, 2 command line, 16 input dataset, 17 level not possible, "
        "18 a filter matched nothing, 69 cluster not usable, 73 output cannot be written.",
    )
    parser.add_argument("bids_dir", type=_path, metavar="BIDS_DIR", help="the raw BIDS dataset")
    parser.add_argument("output_dir", type=_path, metavar="OUTPUT_DIR", help="where results go, outside the input")
    parser.add_argument(
        "levels", nargs="+", choices=LEVELS, metavar="{participant,group}", help="analysis level, one or both"
    )
    parser.add_argument("--version", action="version", version=f"sessionfx {__version__}")

    select = parser.add_argument_group("selection")
    select.add_argument("--participant-label", nargs="+", type=_label_of("sub"), default=(), metavar="LABEL",
                        help="participants, with or without sub-")  # fmt: skip
    select.add_argument("--session-label", nargs="+", type=_label_of("ses"), default=(), metavar="LABEL",
                        help="sessions, with or without ses-; in their order in time, "
                        "which acq_time tells where it is there")  # fmt: skip
    select.add_argument("--task", "--task-id", "-t", type=_label_of("task"), metavar="TASK",
                        help="task; needed where several exist")  # fmt: skip
    select.add_argument("--space", type=_label_of("space"), metavar="SPACE",
                        help="space (MNI152NLin2009cAsym is taken where several exist); "
                        "none: files without space-")  # fmt: skip
    select.add_argument(
        "--res", type=_label_of("res"), metavar="RES", help="resolution entity of that space; none: without it"
    )
    select.add_argument("-d", "--derivatives", nargs="+", type=_path, default=(), metavar="PATH",
                        help="folders with preprocessed data (default: what lies in BIDS_DIR/derivatives); at the "
                        "group level also folders with first-level maps of SessionFX, FitLins or nilearn")  # fmt: skip
    select.add_argument("--bids-filter-file", type=_path, metavar="FILE",
                        help="JSON: pybids filters under 'bold', 'mask', 'events', 'confounds', 'maps'")  # fmt: skip
    select.add_argument(
        "--bids-database-dir", type=_path, metavar="DIR", help="keep the pybids index here and reuse it"
    )
    select.add_argument("--skip-bids-validation", action="store_true",
                        help="accept a dataset without a proper dataset_description.json")  # fmt: skip

    first = parser.add_argument_group("first level")
    first.add_argument("--contrast", action="append", default=[], metavar="EXPR",
                       help="contrast over conditions, 'incongruent - congruent' or 'NAME=EXPR'; repeatable; at the "
                       "group level it selects maps by name")  # fmt: skip
    first.add_argument(
        "--hrf-model",
        choices=HRF_MODELS,
        default="glover",
        help="haemodynamic response (default: %(default)s)",
    )
    first.add_argument(
        "--drift-model", choices=DRIFT_MODELS, default="cosine", help="slow drifts (default: %(default)s)"
    )
    first.add_argument("--high-pass", type=_within(_positive, HIGHEST_HIGH_PASS), default=0.01, metavar="HZ",
                       help="cut-off of the cosine drifts (default: %(default)s)")  # fmt: skip
    first.add_argument(
        "--noise-model", choices=NOISE_MODELS, default="ar1", help="temporal noise (default: %(default)s)"
    )
    first.add_argument(
        "--smoothing-fwhm",
        type=_within(_not_negative, WIDEST_SMOOTHING),
        metavar="MM",
        help="smooth each run (default: not)",
    )
    first.add_argument("--confounds", nargs="+", default=(), metavar="NAME",
                       help="columns, globs ('csf*') or presets: none, motion6, motion12, motion24, "
                       "compcor, scrub (default: motion6 where a confounds file exists)")  # fmt: skip
    first.add_argument("--fixed-effects", choices=FIXED_EFFECTS_WEIGHTINGS, default="equal",
                       help="weights of runs and sessions in an average (default: %(default)s)")  # fmt: skip
    first.add_argument("--fixed-effects-dof", choices=FIXED_EFFECTS_DOF_METHODS, default="satterthwaite",
                       help="degrees of freedom of runs and sessions combined; sum as in nilearn "
                       "(default: %(default)s)")  # fmt: skip
    first.add_argument("--keep-run-maps", action="store_true", help="also write the maps of every run")

    group = parser.add_argument_group("group level")
    group.add_argument("--session-contrast", action="append", default=[], metavar="SPEC",
                       help="'mean', 'linear', 'linear(COVARIATE)', 'any', 'ses-02 - ses-01', any weights, or "
                       "'NAME=SPEC'; repeatable (default: mean, all differences, from three sessions on linear and "
                       "any)")  # fmt: skip
    group.add_argument("--strategy", nargs="+", choices=STRATEGY_NAMES, default=(), metavar="STRATEGY",
                       help=f"one or more of {', '.join(STRATEGY_NAMES)} (default: all but meta)")  # fmt: skip
    group.add_argument("--subject-effect", choices=SUBJECT_EFFECTS, default="auto",
                       help="how the session-model codes participants (default: %(default)s)")  # fmt: skip
    group.add_argument("--mixed-dof", choices=MIXED_DOF_METHODS, default="satterthwaite",
                       help="degrees of freedom of the mixed strategy (default: %(default)s)")  # fmt: skip
    group.add_argument("--variance", choices=VARIANCES, default="auto",
                       help="whether summary-statistics takes all participants to vary equally, and marginal in its "
                       "working covariance (pooled), or both have a variance for each group (Welch); auto: for each "
                       "group where groups are compared or unequal in size (default: %(default)s)")  # fmt: skip
    group.add_argument("--session-covariate-effect", choices=SESSION_COVARIATE_EFFECTS, default="split",
                       help="whether session covariates, time included, have an effect within and another one between "
                       "participants (split), or one that mixes both (mixture) (default: %(default)s)")  # fmt: skip
    group.add_argument("--covariates", nargs="+", default=(), metavar="COLUMN",
                       help="columns of participants.tsv: numbers are centred, other values are groups")  # fmt: skip
    group.add_argument("--session-covariates", nargs="+", default=(), metavar="COLUMN",
                       help="columns of the sub-XX_sessions.tsv files to adjust for; one that is time in "
                       "'linear(COLUMN)' adjusts nothing")  # fmt: skip
    group.add_argument("--group-contrast", action="append", default=[], metavar="SPEC",
                       help="what to ask about the participants for each session contrast: 'intercept', a covariate, "
                       "'patient - control', or 'NAME=SPEC'; repeatable (default: all of these that the covariates "
                       "allow)")  # fmt: skip
    group.add_argument(
        "--alpha", type=_probability, default=0.05, help="error rate of the thresholds (default: %(default)s)"
    )
    group.add_argument("--correction", choices=CORRECTIONS, default="fdr",
                       help="for many voxels, two-sided (default: %(default)s)")  # fmt: skip
    group.add_argument("--cluster-threshold", type=_within(_count, LARGEST_CLUSTER), default=0, metavar="VOXELS",
                       help="smallest cluster in the tables (default: %(default)s)")  # fmt: skip
    group.add_argument("--permutations", type=_within(_count, MOST_PERMUTATIONS), default=0, metavar="N",
                       help="family-wise p values of the summary-statistics and marginal strategies from N resamplings "
                       "of the participants (voxels, cluster size and mass, TFCE; default: none)")  # fmt: skip
    group.add_argument("--equivalence", type=_within(_positive, LARGEST_EQUIVALENCE_BOUND), metavar="BOUND",
                       help="also show where effects are practically zero, within plus or minus BOUND, in percent "
                       "signal change (per unit of the covariate for 'linear(COVARIATE)' and numeric covariates): two "
                       "one-sided tests; choose BOUND before you see results (default: not)")  # fmt: skip
    group.add_argument("--bayes-factor", nargs="?", const=math.sqrt(0.5), type=_within(_positive, WIDEST_PRIOR),
                       metavar="SCALE",
                       help="also write Bayes factors of t tests over participants, for an effect against none; SCALE "
                       "is that of the Cauchy prior on the effect in standard deviations of participants, 0.707 where "
                       "none is given (default: not)")  # fmt: skip
    group.add_argument("--calibrate", type=_within(_count, MOST_SIMULATED_VOXELS), default=0, metavar="N",
                       help="simulate N null voxels from your own maps: false positives and power of every strategy, "
                       "which the verdict then reads (default: not)")  # fmt: skip
    group.add_argument("--random-seed", type=_within(_count, LARGEST_SEED), default=0, metavar="N",
                       help="of permutations and simulated voxels (default: %(default)s)")  # fmt: skip

    run = parser.add_argument_group("execution")
    run.add_argument("--nprocs", "--n-procs", "--n-cpus", type=_within(_positive_count, MOST_PROCESSORS),
                     default=available_processors(), metavar="N",
                     help="runs at a time, of one participant or several (default: all processors)")  # fmt: skip
    run.add_argument("--omp-nthreads", type=_within(_positive_count, MOST_PROCESSORS), default=1, metavar="N",
                     help="threads of the linear algebra in each process (default: %(default)s)")  # fmt: skip
    run.add_argument(
        "--mem-gb",
        type=_within(_positive, MOST_MEMORY_GB),
        metavar="GB",
        help="memory to stay within: fewer runs at a time (default: what container and machine allow)",
    )
    run.add_argument("--executor", choices=EXECUTORS, default="local",
                     help="where participants and blocks of voxels are computed: on this machine, or by workers of a "
                     "Dask cluster with the same installation and shared folders (default: %(default)s)")  # fmt: skip
    run.add_argument("--scheduler", metavar="ADDRESS",
                     help="of the Dask cluster: tcp://HOST:PORT of a running scheduler; or slurm, to submit --nprocs "
                     "workers as jobs of --mem-gb each (further options: Dask's jobqueue.slurm)")  # fmt: skip
    run.add_argument("-w", "--work-dir", type=_path, metavar="DIR", help="keep the pybids index here between runs")
    run.add_argument("--force", action="store_true", help="redo what is finished already")
    run.add_argument("--dry-run", action="store_true", help="print what would be done, then stop")
    run.add_argument("--reports-only", action="store_true", help="draw the reports anew from finished maps")
    run.add_argument("--no-report", action="store_true", help="write maps and tables only")
    run.add_argument(
        "--config-file", type=_path, metavar="FILE", help="TOML file with these options; the command line wins"
    )
    run.add_argument("--config-over-defaults", action="store_true",
                     help="an option given with its default value leaves the choice to --config-file: for platforms, "
                     "which pass every default")  # fmt: skip
    run.add_argument("--stop-on-first-crash", action="store_true", help="do not go on when a participant fails")
    run.add_argument("-v", "--verbose", action="count", default=0, help="more messages; with tracebacks")
    return parser


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line and the configuration file it may name.

    Raises
    ------
    CommandLineError
        For anything that cannot be understood.
    """
    parser = build_parser()
    for argument in argv:
        _check_encoding(argument)
    argv = [_with_hyphens(argument) for argument in argv]
    try:
        namespace = parser.parse_args(argv)
    except CommandLineError as error:
        raise CommandLineError(f"{error}{_hint(parser, argv, str(error))}") from None
    if namespace.config_file:
        given = _options_given(parser, argv)
        if namespace.config_over_defaults:
            given = {name for name in given if getattr(namespace, name) != parser.get_default(name)}
        tokens = _config_tokens(parser, namespace.config_file, given)
        namespace = parser.parse_args(_inserted(argv, tokens))
    if namespace.no_report and namespace.reports_only:
        raise CommandLineError("--no-report and --reports-only exclude each other. Give one of them.")
    _check_scheduler(namespace.executor, namespace.scheduler)
    options = vars(namespace)
    del options["config_file"], options["config_over_defaults"]
    options["levels"] = tuple(level for level in LEVELS if level in namespace.levels)
    for name, value in options.items():
        if isinstance(value, list):
            options[name] = tuple(dict.fromkeys(as_text(item) if isinstance(item, str) else item for item in value))
        elif isinstance(value, str):
            options[name] = as_text(value)
    if options["smoothing_fwhm"] == 0:
        options["smoothing_fwhm"] = None
    return Options.from_values(options)


def _check_encoding(argument: str) -> None:
    try:
        os.fsencode(argument).decode()
    except UnicodeError:
        raise CommandLineError(
            f"'{argument}' on the command line holds bytes that are not UTF-8, which the names in files written here "
            "must be. Rename the file or folder, or reach it under another name (a link, or the mount of a container)."
        ) from None


def _hint(parser: argparse.ArgumentParser, argv: Sequence[str], message: str) -> str:
    """Recognise several values after an option that takes one: argparse only sees a strange argument."""
    repeatable = {
        flag
        for action in parser._actions
        if isinstance(action, argparse._AppendAction)
        for flag in action.option_strings
    }
    for flag, first, second in zip(argv, argv[1:], argv[2:], strict=False):
        if flag in repeatable and second not in LEVELS and not second.startswith("-") and second in message:
            return f" {flag} takes one value; repeat it for each: {flag} '{first}' {flag} '{second}'."
    return ""


def _check_scheduler(executor: str, scheduler: str | None) -> None:
    if scheduler is not None and executor != "dask":
        raise CommandLineError("--scheduler needs --executor dask. Give both, or neither to compute on this machine.")
    if executor == "dask" and scheduler is None:
        raise CommandLineError(
            "--executor dask needs --scheduler: the address of a running Dask scheduler (tcp://HOST:PORT), or slurm."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code (see `--help`).
    """
    prepare_streams()
    with ending_in_order(_stop_children):
        return _code_of(list(sys.argv[1:] if argv is None else argv))


def _stop_children() -> None:
    """Stop worker processes, if there can be any."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()


def _code_of(arguments: list[str]) -> int:
    """Run the program and turn whatever ends it into one paragraph and an exit code."""
    verbose = any(re.fullmatch(r"-v+|--verbose", argument) for argument in arguments)
    output_dir = None
    try:
        options = parse_options(arguments)
        output_dir = str(options.output_dir)
        from sessionfx.execution import start_few_threads

        start_few_threads(options.execution.omp_nthreads)
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


def _with_hyphens(argument: str) -> str:
    """Platforms send --participant_label; the options are spelled with hyphens."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _inserted(argv: list[str], tokens: list[str]) -> list[str]:
    """Options stand before `--`, which ends a list of labels."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [*argv[:end], *tokens, *argv[end:]]


def _options_given(parser: argparse.ArgumentParser, argv: list[str]) -> set[str]:
    given = set()
    for action in parser._actions:
        for flag in action.option_strings:
            # -tTASK, --task=TASK, --task TASK
            short = len(flag) == 2
            if any(argument[:2] == flag if short else argument.split("=")[0] == flag for argument in argv):
                given.add(action.dest)
    return given


def _config_tokens(parser: argparse.ArgumentParser, path: Path, given: set[str]) -> list[str]:
    """Turn the file's entries into arguments, so that one set of checks serves both."""
    from sessionfx.bids.reading import UnreadableFileError, read_text

    try:
        table: dict[str, Any] = tomllib.loads(read_text(path))
    except UnreadableFileError as error:
        raise CommandLineError(f"--config-file {error}") from None
    except RecursionError:
        raise CommandLineError(f"--config-file {path} is nested too deeply. Correct the file.") from None
    except ValueError as error:  # no TOML, or a whole number of thousands of digits
        raise CommandLineError(f"--config-file {path} is not valid TOML: {str(error).split(';')[0]}.") from None
    actions = {flag[2:]: action for action in parser._actions for flag in action.option_strings if flag[:2] == "--"}
    tokens: list[str] = []
    for key, value in table.items():
        name = key.replace("_", "-")
        action = actions.get(name)
        if action is None or name in ("config-file", "config-over-defaults", "help", "version"):
            raise CommandLineError(f"--config-file {path}: '{key}' is not an option. See 'sessionfx --help'.")
        if action.dest in given:
            continue
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) for item in values):
            raise CommandLineError(f"--config-file {path}: the value of '{key}' should be plain or a list.")
        if action.nargs == 0:
            if isinstance(value, int) and value > MOST_VERBOSE:
                raise CommandLineError(f"--config-file {path}: '{key}' should be true, false or a small number.")
            tokens += [f"--{name}"] * int(value) if isinstance(value, bool | int) else [f"--{name}={value}"]
        elif action.nargs == "?" and value is True:
            tokens.append(f"--{name}")
        elif isinstance(action, argparse._AppendAction) or action.nargs in (None, "?"):
            tokens += [f"--{name}={item}" for item in values]
        elif values:
            tokens += [f"--{name}", *(str(item) for item in values)]
    return tokens


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; '.' is the folder where the command is given")
    if "\0" in text:
        raise argparse.ArgumentTypeError("a path cannot hold a null character")
    path = Path(text)
    longest = max(path.parts, key=len)
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise argparse.ArgumentTypeError(
            f"the name '{longest[:40]}…' has more than {LONGEST_NAME} bytes, which no file system takes"
        )
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise argparse.ArgumentTypeError(f"the path '{text[:40]}…' has more than {_LONGEST_PATH} bytes")
    return path


def _label_of(key: str) -> Any:
    def label(text: str) -> str:
        bare = strip_prefix(text, key)
        if not _LABEL.match(bare):
            raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not a BIDS label (letters and digits)")
        if len(bare) > LONGEST_NAME:
            raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is longer than a file name can be")
        return bare

    return label


def _within(convert: Callable[[str], float], bound: Bound) -> Callable[[str], float]:
    """Make a converter that also refuses what is too large."""

    def converted(text: str) -> float:
        value = convert(text)
        if value > bound.largest:
            largest = f"{bound.largest:,.10g}" if isinstance(bound.largest, float) else f"{bound.largest:,}"
            space = "" if bound.reason[0] in ",:" else " "
            raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is more than {largest}{space}{bound.reason}")
        return value

    return converted


def _number(text: str) -> float:
    try:
        # digits of other scripts, and underscores between digits, are Python's habit, not a user's
        value = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not a number")
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not a finite number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not above zero")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is below zero")
    return value


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not between 0 and 1")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not a whole number from 0 on")
    # Python refuses to read thousands of digits, and what is cut here is too large for any option
    return int(text.lstrip("0")[:_DIGITS] or "0")


def _positive_count(text: str) -> int:
    value = _count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{_shortened(text)}' is not a whole number from 1 on")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _DIGITS else f"{text[:_DIGITS]}…"

"""The command line: arguments to settings, errors to exit codes.

Only the standard library is imported at the top: `--help` and `--version` answer at once.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sessionfx import __version__
from sessionfx.errors import INTERRUPTED, TERMINATED, CommandLineError, SessionFXError
from sessionfx.naming import strip_prefix
from sessionfx.settings import (
    CORRECTIONS,
    DRIFT_MODELS,
    EXECUTORS,
    FIXED_EFFECTS_WEIGHTINGS,
    HRF_MODELS,
    LEVELS,
    MIXED_DOF_METHODS,
    NOISE_MODELS,
    SUBJECT_EFFECTS,
    Settings,
    available_processors,
)

STRATEGY_NAMES = (
    "session-model",
    "fixed-effects",
    "marginal",
    "mixed",
    "meta",
)  # the registry of strategies is checked against this

_LABEL = re.compile(r"[a-zA-Z0-9+]+\Z")


class _Parser(argparse.ArgumentParser):
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
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="the raw BIDS dataset")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="where results go, outside the input")
    parser.add_argument(
        "levels", nargs="+", choices=LEVELS, metavar="{participant,group}", help="analysis level, one or both"
    )
    parser.add_argument("--version", action="version", version=f"sessionfx {__version__}")

    select = parser.add_argument_group("selection")
    select.add_argument("--participant-label", nargs="+", type=_label_of("sub"), default=(), metavar="LABEL",
                        help="participants, with or without sub-")  # fmt: skip
    select.add_argument("--session-label", nargs="+", type=_label_of("ses"), default=(), metavar="LABEL",
                        help="sessions, with or without ses-; their order here is their order in time")  # fmt: skip
    select.add_argument("--task", "--task-id", "-t", type=_label_of("task"), metavar="TASK",
                        help="task; needed where several exist")  # fmt: skip
    select.add_argument("--space", type=_label_of("space"), metavar="SPACE",
                        help="space (MNI152NLin2009cAsym is taken where several exist)")  # fmt: skip
    select.add_argument("--res", type=_label_of("res"), metavar="RES", help="resolution entity of that space")
    select.add_argument("-d", "--derivatives", nargs="+", type=Path, default=(), metavar="PATH",
                        help="folders with preprocessed data (default: what lies in BIDS_DIR/derivatives); at the "
                        "group level also folders with first-level maps of SessionFX, FitLins or nilearn")  # fmt: skip
    select.add_argument("--bids-filter-file", type=Path, metavar="FILE",
                        help="JSON with pybids filters under 'bold', 'mask', 'events', 'confounds'")  # fmt: skip
    select.add_argument("--bids-database-dir", type=Path, metavar="DIR", help="keep the pybids index here and reuse it")
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
    first.add_argument("--high-pass", type=_positive, default=0.01, metavar="HZ",
                       help="cut-off of the cosine drifts (default: %(default)s)")  # fmt: skip
    first.add_argument(
        "--noise-model", choices=NOISE_MODELS, default="ar1", help="temporal noise (default: %(default)s)"
    )
    first.add_argument("--smoothing-fwhm", type=_not_negative, metavar="MM", help="smooth each run (default: not)")
    first.add_argument("--confounds", nargs="+", default=(), metavar="NAME",
                       help="columns, globs ('csf*') or presets: none, motion6, motion12, motion24, "
                       "compcor, scrub (default: motion6 where a confounds file exists)")  # fmt: skip
    first.add_argument("--fixed-effects", choices=FIXED_EFFECTS_WEIGHTINGS, default="equal",
                       help="weights of runs and sessions in an average (default: %(default)s)")  # fmt: skip
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
    group.add_argument("--cluster-threshold", type=_count, default=0, metavar="VOXELS",
                       help="smallest cluster in the tables (default: %(default)s)")  # fmt: skip
    group.add_argument("--permutations", type=_count, default=0, metavar="N",
                       help="family-wise p values of the fixed-effects strategy from N permutations (voxels, cluster "
                       "size and mass, TFCE; default: none)")  # fmt: skip
    group.add_argument("--calibrate", type=_count, default=0, metavar="N",
                       help="simulate N voxels of your own design, with the covariance your data have: false "
                       "positives and "
                       "power of every strategy (default: not)")  # fmt: skip
    group.add_argument("--random-seed", type=_count, default=0, metavar="N",
                       help="of permutations and simulated voxels (default: %(default)s)")  # fmt: skip

    run = parser.add_argument_group("execution")
    run.add_argument("--nprocs", "--n-procs", "--n-cpus", type=_positive_count, default=available_processors(),
                     metavar="N",
                     help="runs at a time, of one participant or several (default: all processors)")  # fmt: skip
    run.add_argument("--omp-nthreads", type=_positive_count, default=1, metavar="N",
                     help="threads of the linear algebra in each process (default: %(default)s)")  # fmt: skip
    run.add_argument(
        "--mem-gb",
        type=_positive,
        metavar="GB",
        help="memory to stay within: fewer runs at a time (default: what container and machine allow)",
    )
    run.add_argument("--executor", choices=EXECUTORS, default="local",
                     help="where participants and blocks of voxels are computed: on this machine, or by workers of a "
                     "Dask cluster with the same installation and shared folders (default: %(default)s)")  # fmt: skip
    run.add_argument("--scheduler", metavar="ADDRESS",
                     help="of the Dask cluster: tcp://HOST:PORT of a running scheduler; or slurm, to submit --nprocs "
                     "workers as jobs of --mem-gb each (further options: Dask's jobqueue.slurm)")  # fmt: skip
    run.add_argument("-w", "--work-dir", type=Path, metavar="DIR", help="keep the pybids index here between runs")
    run.add_argument("--force", action="store_true", help="redo what is finished already")
    run.add_argument("--dry-run", action="store_true", help="print what would be done, then stop")
    run.add_argument("--reports-only", action="store_true", help="draw the reports anew from finished maps")
    run.add_argument("--no-report", action="store_true", help="write maps and tables only")
    run.add_argument(
        "--config-file", type=Path, metavar="FILE", help="TOML file with these options; the command line wins"
    )
    run.add_argument("--config-over-defaults", action="store_true",
                     help="an option given with its default value leaves the choice to --config-file: for platforms, "
                     "which pass every default")  # fmt: skip
    run.add_argument("--stop-on-first-crash", action="store_true", help="do not go on when a participant fails")
    run.add_argument("-v", "--verbose", action="count", default=0, help="more messages; with tracebacks")
    return parser


def parse_settings(argv: Sequence[str]) -> Settings:
    """Read the command line and the configuration file it may name.

    Raises
    ------
    CommandLineError
        For anything that cannot be understood.
    """
    parser = build_parser()
    argv = [_with_hyphens(argument) for argument in argv]
    namespace = parser.parse_args(argv)
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
            options[name] = tuple(dict.fromkeys(value))
    if options["smoothing_fwhm"] == 0:
        options["smoothing_fwhm"] = None
    return Settings(**options)


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
    # docker stop and Slurm send it; without a handler the first process of a container ignores it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = any(re.fullmatch(r"-v+|--verbose", argument) for argument in arguments)
    try:
        settings = parse_settings(arguments)
        from sessionfx.app import run

        return run(settings)
    except SessionFXError as error:
        if verbose:
            import traceback

            traceback.print_exc()
        print(f"sessionfx: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "sessionfx: interrupted. What was finished is kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED


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
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandLineError(f"--config-file {path} cannot be read ({error}). Check the path.") from None
    except tomllib.TOMLDecodeError as error:
        raise CommandLineError(f"--config-file {path} is not valid TOML: {error}.") from None
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
            tokens += [f"--{name}"] * int(value) if isinstance(value, bool | int) else [f"--{name}={value}"]
        elif isinstance(action, argparse._AppendAction) or action.nargs is None:
            tokens += [f"--{name}={item}" for item in values]
        elif values:
            tokens += [f"--{name}", *(str(item) for item in values)]
    return tokens


def _label_of(key: str) -> Any:
    def label(text: str) -> str:
        bare = strip_prefix(text, key)
        if not _LABEL.match(bare):
            raise argparse.ArgumentTypeError(f"'{text}' is not a BIDS label (letters and digits)")
        return bare

    return label


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above zero")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is below zero")
    return value


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)


def _positive_count(text: str) -> int:
    value = _count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return value

"""From the words of the command line to options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sessionfx import __version__
from sessionfx.errors import KINDS, CommandLineError, meaning
from sessionfx.options.groups import DEFAULTS, Execution, FirstLevelModel, Options
from sessionfx.options.table import BY_FLAG, LEVELS, SECTIONS, Option, Takes
from sessionfx.options.toml import read_toml
from sessionfx.process import write_out
from sessionfx.wording import did_you_mean

DESCRIPTION = (
    "Multi-session task fMRI: fits every run, combines runs and sessions by fixed effects (participant level), then "
    "compares the group strategies on the same question (group level)."
)
_EXAMPLES = """\
examples:
  sessionfx bids out participant group
  sessionfx bids out participant group --contrast 'incongruent - congruent'
  sessionfx bids out participant --participant-label 01 --contrast 'task=0.5*A + 0.5*B' --smoothing-fwhm 6
  sessionfx bids out group --session-contrast 'ses-02 - ses-01' --covariates age group

documentation: docs/usage.md, docs/options.md, docs/outputs.md (files), docs/clusters.md

"""
_EPILOG = "Options may be written with underscores (--participant_label). Exit codes: 0 all done. " + " ".join(
    f"{kind.exit_code} {meaning(kind)}" for kind in KINDS
)
_ARGPARSE: dict[Takes, dict[str, Any]] = {
    Takes.NONE: {"action": "store_true"},
    Takes.NONE_REPEATED: {"action": "count"},
    Takes.ONE: {},
    Takes.AT_MOST_ONE: {"nargs": "?"},
    Takes.SEVERAL: {"nargs": "+"},
    Takes.ONE_REPEATED: {"action": "append"},
}


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return _EXAMPLES + super().format_help()

    def _print_message(self, message: str, file: Any = None) -> None:
        write_out(message.rstrip("\n"))  # --help and --version; argparse would not see that it cannot be written

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        raise CommandLineError(f"{message[:1].upper()}{message[1:]}{end} See 'sessionfx --help' for all options.")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser from the table of options; what is not given is not in its namespace."""
    parser = _Parser(
        prog="sessionfx",
        usage="%(prog)s BIDS_DIR OUTPUT_DIR {participant,group} [{participant,group}] [options]",
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        description=DESCRIPTION,
        epilog=_EPILOG,
    )
    for title, options in SECTIONS.items():
        section = parser.add_argument_group(title)
        for option in options:
            names, arguments = _argument(option)
            section.add_argument(*names, **arguments)
    return parser


def _argument(option: Option) -> tuple[Sequence[str], dict[str, Any]]:
    arguments = {**_ARGPARSE[option.takes], "help": option.description.replace("%", "%%")}
    if option.name == "help":
        arguments["action"] = "help"
    if option.name == "version":
        arguments |= {"action": "version", "version": f"sessionfx {__version__}"}
    if option.has_value:
        arguments |= {"type": option.value, "metavar": option.placeholder}
    if option.takes is Takes.AT_MOST_ONE:
        arguments["const"] = option.alone
    if option.is_positional:
        return (option.name,), arguments
    return sorted(option.flags, key=len), {**arguments, "dest": option.name}


def options_of(argv: Sequence[str], read_text: Callable[[Path], str]) -> Options:
    """Read the command line and the configuration file it may name.

    Raises
    ------
    CommandLineError
        For anything that cannot be understood.
    """
    words = [_with_hyphens(argument) for argument in argv]
    _check_words(words)
    try:
        given = vars(build_parser().parse_args(words))
    except CommandLineError as error:
        raise CommandLineError(f"{error}{_hint(words, str(error))}") from None
    file, over_defaults = given.pop("config_file", None), given.pop("config_over_defaults", False)
    values = {name: _final(value) for name, value in given.items()}
    if over_defaults:
        values = {name: value for name, value in values.items() if value != DEFAULTS.get(name)}
    if file is not None:
        values |= {name: _final(value) for name, value in read_toml(file, read_text(file), values).items()}
    values["levels"] = tuple(level for level in LEVELS if level in values["levels"])
    if values.get("smoothing_fwhm") == 0:
        values["smoothing_fwhm"] = None
    options = Options.from_values(values)
    _check_together(options.execution)
    check_responses(options.first_level)
    return options


def _final(value: Any) -> Any:
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else value


def _check_words(words: Sequence[str]) -> None:
    """Refuse bytes that are no text, and options that there are not, before they make others look wrong."""
    for word in words:
        try:
            os.fsencode(word).decode()
        except UnicodeError:
            raise CommandLineError(
                f"'{word}' on the command line holds bytes that are not UTF-8, which the names in files written here "
                "must be. Rename the file or folder, or reach it under another name (a link, or the mount of a "
                "container)."
            ) from None
    options = words[: words.index("--")] if "--" in words else words
    for flag in (word.partition("=")[0] for word in options if word.startswith("--")):
        if flag not in BY_FLAG and " " not in flag:
            raise CommandLineError(
                f"Unrecognized arguments: {flag}.{did_you_mean(flag, BY_FLAG)} See 'sessionfx --help' for all options."
            )


def _hint(words: Sequence[str], message: str) -> str:
    """Recognise several values after an option that takes one: argparse only sees a strange argument."""
    for flag, first, second in zip(words, words[1:], words[2:], strict=False):
        is_repeatable = flag in BY_FLAG and BY_FLAG[flag].takes is Takes.ONE_REPEATED
        if is_repeatable and second not in LEVELS and not second.startswith("-") and second in message:
            return f" {flag} takes one value; repeat it for each: {flag} '{first}' {flag} '{second}'."
    return ""


def _check_together(options: Execution) -> None:
    """Refuse options that need or exclude each other."""
    if options.no_report and options.reports_only:
        raise CommandLineError("--no-report and --reports-only exclude each other. Give one of them.")
    if options.force and options.reports_only:
        raise CommandLineError(
            "--force and --reports-only exclude each other: the one computes all maps again, the other none. Pages are "
            "drawn anew with --reports-only alone."
        )
    if options.scheduler is not None and options.executor != "dask":
        raise CommandLineError("--scheduler needs --executor dask. Give both, or neither to compute on this machine.")
    if options.executor == "dask" and options.scheduler is None:
        raise CommandLineError(
            "--executor dask needs --scheduler: the address of a running Dask scheduler (tcp://HOST:PORT), or slurm."
        )


def check_responses(model: FirstLevelModel) -> None:
    """Refuse delays without the model that has them, and the other way round."""
    if model.hrf_model == "fir" and not model.fir_delays:
        raise CommandLineError("--hrf-model fir needs --fir-delays, in volumes: --fir-delays 0 1 2 3 4 5 6 7.")
    if model.fir_delays and model.hrf_model != "fir":
        raise CommandLineError("--fir-delays needs --hrf-model fir. Give both, or neither.")


def _with_hyphens(argument: str) -> str:
    """Platforms send --participant_label; the options are spelled with hyphens."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value

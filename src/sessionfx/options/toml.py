"""Options as a TOML file: what a call saves, `--config-file` reads back."""

from __future__ import annotations

import tomllib
from argparse import ArgumentTypeError
from collections.abc import Container
from pathlib import Path
from typing import Any

from sessionfx.errors import CommandLineError
from sessionfx.options.groups import Options
from sessionfx.options.table import BY_FLAG, Option, Takes
from sessionfx.options.values import ANY_TEXT
from sessionfx.wording import did_you_mean

_MOST_VERBOSE = 10  # more change nothing


def to_toml(options: Options) -> str:
    """Write options so that `--config-file` reads them back (positional arguments stand in a comment)."""
    import tomli_w

    values = options.values()
    bids_dir, output_dir, levels = (plain_value(values.pop(name)) for name in ("bids_dir", "output_dir", "levels"))
    table = {name.replace("_", "-"): plain_value(value) for name, value in values.items()}
    given = {name: value for name, value in table.items() if value not in (None, [], False)}
    comment = f"# sessionfx {bids_dir} {output_dir} {' '.join(levels)} --config-file THIS_FILE"
    return "".join(c if c.isprintable() else " " for c in comment) + "\n" + tomli_w.dumps(given)


def read_toml(path: Path, text: str, given: Container[str]) -> dict[str, Any]:
    """Read the text of the file of `--config-file`: values by the names of options.

    Entries for options that the command line gives are passed over.

    Raises
    ------
    CommandLineError
        If it is no TOML, or an entry is not an option or not one of its values.
    """
    values = {}
    for key, entry in _load(path, text).items():
        option = BY_FLAG.get(f"--{key.replace('_', '-')}")
        if option is None or not option.is_in_file:
            hint = did_you_mean(key, [flag[2:] for flag, option in BY_FLAG.items() if option.is_in_file])
            raise CommandLineError(f"--config-file {path}: '{key}' is not an option.{hint} See 'sessionfx --help'.")
        entries = entry if isinstance(entry, list) else [entry]
        if any(isinstance(item, dict | list) for item in entries):
            raise CommandLineError(f"--config-file {path}: the value of '{key}' should be plain or a list.")
        if option.name in given or not (entries or option.is_list):
            continue
        try:
            values[option.name] = read_value(option, entries)
        except ArgumentTypeError as error:
            raise CommandLineError(f"--config-file {path}, '{key}': {error}. Correct the file.") from None
    return values


def _load(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CommandLineError(f"--config-file {path} is nested too deeply. Correct the file.") from None
    except ValueError as error:  # no TOML, or a whole number of thousands of digits
        raise CommandLineError(f"--config-file {path} is not valid TOML: {str(error).split(';')[0]}.") from None


def read_value(option: Option, entries: list[Any]) -> Any:
    """Read the entries of an option with the checks of the command line.

    Raises
    ------
    ArgumentTypeError
        If one is not a value of it.
    """
    if not option.has_value:
        if not isinstance(entries[-1], int) or not 0 <= entries[-1] <= _MOST_VERBOSE:
            raise ArgumentTypeError("the value should be true, false or a small number")
        return int(entries[-1]) if option.takes is Takes.NONE_REPEATED else bool(entries[-1])
    if option.takes is Takes.AT_MOST_ONE and entries[-1] is True:
        return option.alone
    values = [option.value(str(entry)) for entry in entries]
    return values if option.is_list else values[-1]


def plain_value(value: Any) -> Any:
    """Write a value as TOML and JSON have it."""
    if isinstance(value, Path):
        return ANY_TEXT(str(value))
    if isinstance(value, tuple):
        return [plain_value(item) for item in value]
    return value

"""The command line as a Boutiques descriptor, for platforms that build a form or a job from it.

Made anew with `python -m sessionfx.boutiques > boutiques.json`. Everything said of an option is read from the parser,
so that the descriptor cannot drift from the program. The format is Boutiques schema 0.5
(Glatard et al. 2018, GigaScience 7:giy016).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sessionfx import __version__, errors
from sessionfx.cli import build_parser

IMAGE_NAME = "sessionfx/sessionfx"
AUTHOR = "The SessionFX developers"
EXECUTABLE = "sessionfx"  # on PATH in the image: Boutiques replaces the image's entrypoint by a shell

# a platform asks that a File exists before the program starts; these folders the program makes itself
MADE_BY_THE_PROGRAM = frozenset({"output_dir", "work_dir", "bids_database_dir"})
# a platform hands defaults over as if the user had given them: only those that hold on every machine
DEPENDS_ON_THE_MACHINE = frozenset({"nprocs"})


def describe_program(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Describe a parser as a Boutiques tool.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the program; `--help` is left out, every other argument becomes an input.

    Returns
    -------
    dict
        The descriptor, ready for JSON.
    """
    inputs = [describe_input(action) for action in parser._actions if _is_described(action)]
    return {
        "schema-version": "0.5",
        "name": "SessionFX",
        "description": parser.description,
        "tool-version": __version__,
        "author": AUTHOR,
        "container-image": {"type": "docker", "image": f"{IMAGE_NAME}:{__version__}"},
        "command-line": " ".join([EXECUTABLE, *(item["value-key"] for item in inputs)]),
        "inputs": inputs,
        "groups": [describe_group(group) for group in parser._action_groups if _members(group)],
        "output-files": [
            {
                "id": "results",
                "name": "results",
                "description": "BIDS-Derivatives dataset with maps, tables and reports",
                "path-template": "[OUTPUT_DIR]",
                "optional": True,  # --dry-run writes nothing
            }
        ],
        "error-codes": describe_error_codes(),
        "suggested-resources": {"cpu-cores": 2, "ram": 8, "walltime-estimate": 3600},
        "tags": {"domain": ["neuroinformatics", "neuroimaging", "fMRI"], "standard": ["BIDS App"]},
    }


def describe_input(action: argparse.Action) -> dict[str, Any]:
    """Describe one argument as a Boutiques input.

    Parameters
    ----------
    action : argparse.Action
        A positional argument or an option.

    Returns
    -------
    dict
        The input; its `id` is the argument's name in the settings.
    """
    described: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": (action.help or "") % vars(action),
        "type": value_type(action),
        "value-key": f"[{action.dest.upper()}]",
        "optional": not action.required,
    }
    if described["type"] == "Number":
        described |= _number_limits(action)
    if action.choices is not None:
        described["value-choices"] = list(action.choices)
    if has_default(action):
        described["default-value"] = action.default
    return described | _spelling(action)


def describe_group(group: argparse._ArgumentGroup) -> dict[str, Any]:
    """Describe one argument group: its title, and the ids of its arguments."""
    title = group.title or "options"
    return {"id": title.replace(" ", "_"), "name": title, "members": _members(group)}


def describe_error_codes() -> list[dict[str, Any]]:
    """List the exit codes other than 0, in the words of the error classes."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SessionFXError) and kind is not errors.SessionFXError
    ]
    return [
        {"code": kind.exit_code, "description": (kind.__doc__ or kind.__name__).splitlines()[0]}
        for kind in sorted(kinds, key=lambda kind: kind.exit_code)
    ]


def value_type(action: argparse.Action) -> str:
    """Name the Boutiques type of an argument: Flag, Number, File or String.

    What the argument's converter makes of a number tells which.
    """
    if action.nargs == 0:
        return "Flag"
    if action.dest in MADE_BY_THE_PROGRAM:
        return "String"
    value = _example(action)
    if isinstance(value, int | float):
        return "Number"
    return "File" if isinstance(value, Path) else "String"


def has_default(action: argparse.Action) -> bool:
    """Tell whether the argument's default is a value that a user could have given, the same on every machine."""
    return action.nargs != 0 and action.dest not in DEPENDS_ON_THE_MACHINE and action.default not in (None, [], ())


def render_descriptor() -> str:
    """Write the descriptor of this program as JSON text."""
    return json.dumps(describe_program(build_parser()), indent=2, ensure_ascii=False) + "\n"


def _spelling(action: argparse.Action) -> dict[str, Any]:
    """Say how values follow the flag: `--task=T`, `--contrast=A --contrast=B`, `--strategy A B`."""
    flag = next((text for text in action.option_strings if text.startswith("--")), None)
    repeated = isinstance(action, argparse._AppendAction)
    spelling: dict[str, Any] = {}
    if repeated or action.nargs == "+":
        spelling |= {"list": True, "min-list-entries": 1}
    if flag:
        spelling["command-line-flag"] = flag
    if flag and action.nargs is None:
        spelling["command-line-flag-separator"] = "="  # a value may begin with a minus sign
    if flag and repeated:
        spelling["list-separator"] = f" {flag}="
    return spelling


def _number_limits(action: argparse.Action) -> dict[str, Any]:
    """Say whether a number is whole, and where it begins, as far as the converter knows."""
    if isinstance(_example(action), int):
        return {"integer": True, "minimum": 0 if _accepts(action, "0") else 1}
    return {"minimum": 0} if _accepts(action, "0") else {"minimum": 0, "exclusive-minimum": True}


def _example(action: argparse.Action) -> Any:
    number = next(text for text in ("1", "0.5") if _accepts(action, text))
    return action.type(number) if callable(action.type) else number


def _accepts(action: argparse.Action, text: str) -> bool:
    if not callable(action.type):
        return True
    try:
        action.type(text)
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False
    return True


def _members(group: argparse._ArgumentGroup) -> list[str]:
    return [action.dest for action in group._group_actions if _is_described(action)]


def _is_described(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction)


if __name__ == "__main__":
    print(render_descriptor(), end="")

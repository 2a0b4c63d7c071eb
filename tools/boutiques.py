"""The command line as a Boutiques descriptor, for platforms that build a form or a job from it.

Made anew with `make boutiques`. Everything said of an option is read from the parser, so that the descriptor cannot
drift from the program. The format is Boutiques schema 0.5 (Glatard et al. 2018, GigaScience 7:giy016), with the names
and the order that `bosh validate --bids` asks of a BIDS App.

Defaults are stated, so that a form shows them. Platforms then pass each of them as if the user had typed it, which
would make `--config-file` ineffective; therefore they pass `--config-over-defaults` as well.
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
# only defaults that hold on every machine are stated
DEPENDS_ON_THE_MACHINE = frozenset({"nprocs"})
# flags that a platform sets where its user says nothing
SET_BY_PLATFORMS = frozenset({"config_over_defaults"})

# Boutiques' names of the arguments that all BIDS Apps have, in the order it expects them
BIDS_APP_NAMES = {"levels": "analysis_level"}
BIDS_APP_ORDER = ("bids_dir", "output_dir", "levels", "participant_label", "session_label")
# The same argument twice, as that check demands: a new folder is a name, but one to go on in is a file, which platforms
# bring to the program. bosh fills in only the one that comes first: with it, output_dir serves both levels.
EXISTING_OUTPUT = {
    "id": "participant_level_dir",
    "name": "participant level dir",
    "description": "where results of the participant level are and those of the group level go; in place of output_dir",
    "type": "File",
    "value-key": "[OUTPUT_DIR]",
    "optional": True,
}


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
    actions = {action.dest: action for action in parser._actions if _is_described(action)}
    first = [actions.pop(name) for name in BIDS_APP_ORDER]
    inputs = [describe_input(action) for action in (*first, *actions.values())]
    keys = [item["value-key"] for item in inputs]
    output = next(item for item in inputs if item["id"] == "output_dir")
    output["optional"] = True  # one of the two
    inputs.insert(inputs.index(output) + 1, EXISTING_OUTPUT)
    return {
        "schema-version": "0.5",
        "name": "SessionFX",
        "description": parser.description,
        "tool-version": __version__,
        "author": AUTHOR,
        "container-image": {"type": "docker", "image": f"{IMAGE_NAME}:{__version__}"},
        "command-line": f"mkdir -p [OUTPUT_DIR]; {EXECUTABLE} {' '.join(keys)}",
        "inputs": inputs,
        "groups": [
            *(describe_group(group) for group in parser._action_groups if _members(group)),
            {
                "id": "output_directory",
                "name": "output directory",
                "description": "a new folder, or for the group level the one that the participant level has filled",
                "members": [output["id"], EXISTING_OUTPUT["id"]],
                "mutually-exclusive": True,
                "one-is-required": True,
            },
        ],
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
        The input; its `id` is the argument's name in the settings, or what Boutiques calls it.
    """
    name = BIDS_APP_NAMES.get(action.dest, action.dest)
    described: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "description": (action.help or "") % vars(action),
        "type": value_type(action),
        "value-key": f"[{name.upper()}]",
        "optional": not action.required,
    }
    if described["type"] == "Number":
        described |= _number_limits(action)
    if action.choices is not None:
        described["value-choices"] = list(action.choices)
    if has_default(action):
        described["default-value"] = action.default
    if action.dest in SET_BY_PLATFORMS:
        described["default-value"] = True
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
    if flag and action.nargs in (None, "?"):
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
    return [BIDS_APP_NAMES.get(action.dest, action.dest) for action in group._group_actions if _is_described(action)]


def _is_described(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction)


if __name__ == "__main__":
    print(render_descriptor(), end="")

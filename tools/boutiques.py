"""The command line as a Boutiques descriptor, for platforms that build a form or a job from it.

Made anew with `make boutiques`. Everything said of an option is read from the table of options, so that the descriptor
cannot drift from the program. The format is Boutiques schema 0.5 (Glatard et al. 2018, GigaScience 7:giy016), with the
names and the order that `bosh validate --bids` asks of a BIDS App.

Defaults are stated, so that a form shows them. Platforms then pass each of them as if the user had typed it, which
would make `--config-file` ineffective; therefore they pass `--config-over-defaults` as well.
"""

from __future__ import annotations

import json
from typing import Any

from sessionfx import __version__, errors
from sessionfx.options.command_line import DESCRIPTION
from sessionfx.options.table import OPTIONS, SECTIONS, Option, Takes
from sessionfx.options.values import Choice, FilePath, Number, Probability

IMAGE_NAME = "sessionfx/sessionfx"
AUTHOR = "The SessionFX developers"
EXECUTABLE = "sessionfx"  # on PATH in the image: Boutiques replaces the image's entrypoint by a shell
NOT_DESCRIBED = frozenset({"help"})
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


def describe_program() -> dict[str, Any]:
    """Describe the program as a Boutiques tool, ready for JSON."""
    options = {name: option for name, option in OPTIONS.items() if name not in NOT_DESCRIBED}
    first = [options.pop(name) for name in BIDS_APP_ORDER]
    inputs = [describe_input(option) for option in (*first, *options.values())]
    keys = [item["value-key"] for item in inputs]
    output = next(item for item in inputs if item["id"] == "output_dir")
    output["optional"] = True  # one of the two
    inputs.insert(inputs.index(output) + 1, EXISTING_OUTPUT)
    return {
        "schema-version": "0.5",
        "name": "SessionFX",
        "description": DESCRIPTION,
        "tool-version": __version__,
        "author": AUTHOR,
        "container-image": {"type": "docker", "image": f"{IMAGE_NAME}:{__version__}"},
        "command-line": f"mkdir -p [OUTPUT_DIR]; {EXECUTABLE} {' '.join(keys)}",
        "inputs": inputs,
        "groups": [
            *(describe_group(title, options) for title, options in SECTIONS.items()),
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


def describe_input(option: Option) -> dict[str, Any]:
    """Describe one option as a Boutiques input; its `id` is the option's name, or what Boutiques calls it."""
    name = _id(option)
    described: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "description": option.description,
        **_type(option),
        "value-key": f"[{name.upper()}]",
        "optional": not option.is_positional,
    }
    if option.name in SET_BY_PLATFORMS:
        described["default-value"] = True
    elif option.default is not None:
        described["default-value"] = option.default
    return described | _spelling(option)


def describe_group(title: str, options: tuple[Option, ...]) -> dict[str, Any]:
    """Describe one section of the options: its title, and the ids of its members."""
    members = [_id(option) for option in options if option.name not in NOT_DESCRIBED]
    return {"id": title.replace(" ", "_"), "name": title, "members": members}


def describe_error_codes() -> list[dict[str, Any]]:
    """List the exit codes other than 0, in the words of the error classes."""
    return [{"code": kind.exit_code, "description": errors.meaning(kind)} for kind in errors.KINDS]


def render_descriptor() -> str:
    """Write the descriptor of this program as JSON text."""
    return json.dumps(describe_program(), indent=2, ensure_ascii=False) + "\n"


def _id(option: Option) -> str:
    return BIDS_APP_NAMES.get(option.name, option.name)


def _type(option: Option) -> dict[str, Any]:
    """Name the Boutiques type of an option's values, and what limits them."""
    if not option.has_value:
        return {"type": "Flag"}
    match option.value:
        case Number(zero=zero, whole=True):
            return {"type": "Number", "integer": True, "minimum": 0 if zero else 1}
        case Number(zero=True):
            return {"type": "Number", "minimum": 0}
        case Number() | Probability():
            return {"type": "Number", "minimum": 0, "exclusive-minimum": True}
        case FilePath(must_exist=True):
            return {"type": "File"}
        case Choice(names, synonyms):
            return {"type": "String", "value-choices": [*names, *dict(synonyms)]}
        case _:
            return {"type": "String"}


def _spelling(option: Option) -> dict[str, Any]:
    """Say how values follow the flag: `--task=T`, `--contrast=A --contrast=B`, `--strategy A B`."""
    spelling: dict[str, Any] = {"list": True, "min-list-entries": 1} if option.is_list else {}
    if option.is_positional:
        return spelling
    spelling["command-line-flag"] = option.flag
    if option.has_value and option.takes is not Takes.SEVERAL:
        spelling["command-line-flag-separator"] = "="  # a value may begin with a minus sign
    if option.takes is Takes.ONE_REPEATED:
        spelling["list-separator"] = f" {option.flag}="
    return spelling


if __name__ == "__main__":
    print(render_descriptor(), end="")

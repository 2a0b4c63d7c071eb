"""The Boutiques descriptor: it is what the parser says, and what it makes of it the parser understands."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sessionfx
from sessionfx.boutiques import describe_input, describe_program, render_descriptor
from sessionfx.cli import build_parser, parse_settings

REPOSITORY = Path(__file__).parents[1]
DESCRIPTOR = REPOSITORY / "boutiques.json"
PRINT_AND_STOP = {"help", "version"}


@pytest.fixture
def descriptor() -> dict[str, Any]:
    return describe_program(build_parser())


def command_of(descriptor: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Fill in the command line as Boutiques does: quoted values, an empty string for what is not given."""
    command = descriptor["command-line"]
    for item in descriptor["inputs"]:
        flag = item.get("command-line-flag", "")
        text = ""
        if item["id"] in values and item["type"] == "Flag":
            text = flag
        elif item["id"] in values:
            value = values[item["id"]]
            many = value if isinstance(value, list) else [value]
            joined = item.get("list-separator", " ").join(shlex.quote(str(part)) for part in many)
            text = flag + (item.get("command-line-flag-separator", " ") if flag else "") + joined
        command = command.replace(item["value-key"], text)
    return shlex.split(command)[1:]


def example_value(item: dict[str, Any]) -> Any:
    value = item.get("value-choices", [1 if item.get("integer") else 0.5 if item["type"] == "Number" else "x1"])[-1]
    return [value] if item.get("list") else value


def test_file_is_what_the_module_prints() -> None:
    printed = subprocess.run([sys.executable, "-m", "sessionfx.boutiques"], capture_output=True, check=True)
    assert DESCRIPTOR.read_bytes() == printed.stdout, "run: python -m sessionfx.boutiques > boutiques.json"


def test_every_argument_of_the_parser_is_an_input_in_one_group(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for item in descriptor["inputs"]]
    arguments = {action.dest for action in build_parser()._actions} - {"help"}
    assert set(ids) == arguments
    assert sorted(member for group in descriptor["groups"] for member in group["members"]) == sorted(ids)


def test_every_flag_is_one_of_the_parser(descriptor: dict[str, Any]) -> None:
    actions = {action.dest: action for action in build_parser()._actions}
    for item in descriptor["inputs"]:
        spellings = actions[item["id"]].option_strings
        assert item.get("command-line-flag") in (spellings or [None])


def test_ids_are_unique(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for kind in ("inputs", "output-files", "groups") for item in descriptor[kind]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", name, re.ASCII) for name in ids)


def test_value_keys_are_the_words_of_the_command_line(descriptor: dict[str, Any]) -> None:
    keys = [item["value-key"] for item in descriptor["inputs"]]
    assert descriptor["command-line"].split() == ["sessionfx", *keys]
    assert len(keys) == len(set(keys))
    assert all(output["path-template"] in keys for output in descriptor["output-files"])


def test_command_with_every_option_is_understood(descriptor: dict[str, Any]) -> None:
    left_out = PRINT_AND_STOP | {"config_file", "reports_only"}  # the last excludes no_report
    values = {item["id"]: example_value(item) for item in descriptor["inputs"] if item["id"] not in left_out}
    settings = parse_settings(command_of(descriptor, values))
    for name, value in values.items():
        found = getattr(settings, name)
        kind = next(item["type"] for item in descriptor["inputs"] if item["id"] == name)
        if kind == "Flag":
            assert found
        elif isinstance(value, list):
            assert [str(part) for part in found] == [str(part) for part in value]
        else:
            assert str(found) == str(value)


def test_contrasts_with_spaces_and_minus_signs_survive(descriptor: dict[str, Any]) -> None:
    values = {"bids_dir": "in", "output_dir": "out dir", "levels": ["participant", "group"]}
    contrasts = ["-1 * congruent + incongruent", "effect='a b' - c"]
    settings = parse_settings(
        command_of(descriptor, {**values, "contrast": contrasts, "hrf_model": "glover + derivative"})
    )
    assert settings.contrast == tuple(contrasts)
    assert settings.hrf_model == "glover + derivative"
    assert settings.output_dir == Path("out dir")


def test_defaults_are_those_of_the_program(descriptor: dict[str, Any]) -> None:
    given = {"bids_dir": "in", "output_dir": "out", "levels": ["group"]}
    defaults = {item["id"]: item["default-value"] for item in descriptor["inputs"] if "default-value" in item}
    assert parse_settings(command_of(descriptor, {**defaults, **given})) == parse_settings(["in", "out", "group"])
    assert defaults["hrf_model"] == "glover"


def test_descriptor_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = render_descriptor()
    monkeypatch.setattr("sessionfx.cli.available_processors", lambda: 97)
    assert render_descriptor() == here


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": int}, {"type": "Number", "integer": True}),
        ({"type": float}, {"type": "Number"}),
        ({"type": Path}, {"type": "File"}),
        ({"choices": ("a", "b")}, {"type": "String", "value-choices": ["a", "b"]}),
        ({"action": "store_true"}, {"type": "Flag"}),
        ({"nargs": "+"}, {"type": "String", "list": True}),
        ({"action": "append"}, {"list-separator": " --option=", "command-line-flag-separator": "="}),
        ({"default": 0, "type": int}, {"default-value": 0}),
        ({"required": True}, {"optional": False}),
        ({"default": "b", "help": "one (default: %(default)s)"}, {"description": "one (default: b)"}),
    ],
)
def test_input_is_described_by_its_action(options: dict[str, Any], expected: dict[str, Any]) -> None:
    described = describe_input(argparse.ArgumentParser().add_argument("-o", "--option", **options))
    assert described["command-line-flag"] == "--option"
    assert described["value-key"] == "[OPTION]"
    assert expected.items() <= described.items()


def test_image_is_the_one_the_dockerfile_builds(descriptor: dict[str, Any]) -> None:
    image = descriptor["container-image"]["image"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    versions = set(re.findall(r"^ARG VERSION=(\S+)$", dockerfile, re.MULTILINE))
    assert versions == {sessionfx.__version__}
    names = re.findall(r'SESSIONFX_IMAGE="([^"]+)"', dockerfile)
    assert [name.replace("$VERSION", sessionfx.__version__) for name in names] == [image]


def test_boutiques_accepts_the_descriptor() -> None:
    validator = pytest.importorskip(
        "boutiques.validator", reason="the boutiques package, which checks descriptors, is not installed"
    )
    validator.validate_descriptor(json.loads(DESCRIPTOR.read_text(encoding="utf-8")))  # raises where it is not valid

"""The Boutiques descriptor: it is what the parser says, and what it makes of it the parser understands."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sessionfx
from program import bosh
from sessionfx.cli import build_parser, parse_options

REPOSITORY = Path(__file__).parents[2]
DESCRIPTOR = REPOSITORY / "boutiques.json"
TOOL = REPOSITORY / "tools" / "boutiques.py"
PRINT_AND_STOP = {"help", "version"}
BOUTIQUES_NAMES = {"levels": "analysis_level"}  # where they are not those of the options

_spec = importlib.util.spec_from_file_location("descriptor", TOOL)  # `boutiques` is the package that is tested against
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


@pytest.fixture
def descriptor() -> dict[str, Any]:
    return tool.describe_program(build_parser())


def command_of(descriptor: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Fill in the command line as Boutiques does: quoted values, an empty string for what is not given."""
    command = descriptor["command-line"]
    given = {item["value-key"] for item in descriptor["inputs"] if item["id"] in values}
    for item in descriptor["inputs"]:
        if item["value-key"] in given and item["id"] not in values:
            continue
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
    words = shlex.split(command)
    return words[words.index("sessionfx") + 1 :]


def example_value(item: dict[str, Any]) -> Any:
    value = item.get("value-choices", [1 if item.get("integer") else 0.5 if item["type"] == "Number" else "x1"])[-1]
    return [value] if item.get("list") else value


def test_file_is_what_the_module_prints() -> None:
    printed = subprocess.run([sys.executable, TOOL], capture_output=True, check=True)
    assert DESCRIPTOR.read_bytes() == printed.stdout, "run: python tools/boutiques.py > boutiques.json (make boutiques)"


def test_every_argument_of_the_parser_is_an_input_in_one_group(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for item in descriptor["inputs"]]
    arguments = {BOUTIQUES_NAMES.get(action.dest, action.dest) for action in build_parser()._actions} - {"help"}
    assert set(ids) - {"participant_level_dir"} == arguments
    grouped = [name for group in descriptor["groups"] if "mutually-exclusive" not in group for name in group["members"]]
    assert sorted([*grouped, "participant_level_dir"]) == sorted(ids)


def test_every_input_says_type_choices_and_default_of_its_argument(descriptor: dict[str, Any]) -> None:
    items = {item["id"]: item for item in descriptor["inputs"]}
    for action in build_parser()._actions:
        if action.dest == "help":
            continue
        item = items[BOUTIQUES_NAMES.get(action.dest, action.dest)]
        assert item["type"] in {"Flag", "Number", "File", "String"}
        assert item["description"]
        assert item.get("value-choices") == (None if action.choices is None else list(action.choices))
        if action.nargs != 0 and action.default not in (None, [], ()) and action.dest != "nprocs":
            assert item["default-value"] == action.default


def test_every_flag_is_one_of_the_parser(descriptor: dict[str, Any]) -> None:
    actions = {action.dest: action for action in build_parser()._actions}
    for item in descriptor["inputs"]:
        if item["id"] in {"analysis_level", "participant_level_dir"}:
            assert "command-line-flag" not in item
            continue
        spellings = actions[item["id"]].option_strings
        assert item.get("command-line-flag") in (spellings or [None])


def test_ids_are_unique(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for kind in ("inputs", "output-files", "groups") for item in descriptor[kind]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", name, re.ASCII) for name in ids)


def test_value_keys_are_the_words_of_the_command_line(descriptor: dict[str, Any]) -> None:
    keys = list(dict.fromkeys(item["value-key"] for item in descriptor["inputs"]))
    assert descriptor["command-line"].split() == ["mkdir", "-p", "[OUTPUT_DIR];", "sessionfx", *keys]
    assert [item["id"] for item in descriptor["inputs"] if item["value-key"] == "[OUTPUT_DIR]"] == [
        "output_dir",
        "participant_level_dir",
    ]
    assert all(output["path-template"] in keys for output in descriptor["output-files"])


def test_command_with_every_option_is_understood(descriptor: dict[str, Any]) -> None:
    # no_report excludes reports_only, output_dir the other one
    left_out = PRINT_AND_STOP | {"config_file", "config_over_defaults", "reports_only", "participant_level_dir"}
    values = {item["id"]: example_value(item) for item in descriptor["inputs"] if item["id"] not in left_out}
    found_values = parse_options(command_of(descriptor, values)).values()
    for name, value in values.items():
        found = found_values[{"analysis_level": "levels"}.get(name, name)]
        kind = next(item["type"] for item in descriptor["inputs"] if item["id"] == name)
        if kind == "Flag":
            assert found
        elif isinstance(value, list):
            assert [str(part) for part in found] == [str(part) for part in value]
        else:
            assert str(found) == str(value)


def test_contrasts_with_spaces_and_minus_signs_survive(descriptor: dict[str, Any]) -> None:
    values = {"bids_dir": "in", "output_dir": "out dir", "analysis_level": ["participant", "group"]}
    contrasts = ["-1 * congruent + incongruent", "effect='a b' - c"]
    options = parse_options(
        command_of(descriptor, {**values, "contrast": contrasts, "hrf_model": "glover + derivative"})
    )
    assert options.selection.contrast == tuple(contrasts)
    assert options.first_level.hrf_model == "glover + derivative"
    assert options.output_dir == Path("out dir")


def with_defaults(descriptor: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Add what platforms add: a default for each input that the user leaves alone."""
    return {item["id"]: item["default-value"] for item in descriptor["inputs"] if "default-value" in item} | values


def test_defaults_are_those_of_the_program(descriptor: dict[str, Any]) -> None:
    given = {"bids_dir": "in", "output_dir": "out", "analysis_level": ["group"]}
    values = with_defaults(descriptor, given)
    assert parse_options(command_of(descriptor, values)) == parse_options(["in", "out", "group"])
    assert values["hrf_model"] == "glover"


def test_defaults_that_a_platform_adds_leave_the_choice_to_a_config_file(
    descriptor: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "study.toml"
    file.write_text("hrf-model = 'spm'\nalpha = 0.01\ncorrection = 'bonferroni'\n")
    given = {"bids_dir": "in", "output_dir": "out", "analysis_level": ["group"], "config_file": str(file)}
    options = parse_options(command_of(descriptor, with_defaults(descriptor, {**given, "correction": "none"})))
    assert (options.first_level.hrf_model, options.group.alpha) == ("spm", 0.01)
    assert options.group.correction == "none"  # not a default: the user's own choice wins
    typed = parse_options(["in", "out", "group", "--config-file", str(file), "--hrf-model", "glover"])
    assert (typed.first_level.hrf_model, typed.group.alpha) == ("glover", 0.01)


def test_descriptor_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = tool.render_descriptor()
    monkeypatch.setattr("sessionfx.options.groups.available_processors", lambda: 97)
    assert tool.render_descriptor() == here


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
    described = tool.describe_input(argparse.ArgumentParser().add_argument("-o", "--option", **options))
    assert described["command-line-flag"] == "--option"
    assert described["value-key"] == "[OPTION]"
    assert expected.items() <= described.items()


def test_image_is_the_one_the_dockerfile_builds_and_platforms_run(descriptor: dict[str, Any]) -> None:
    image = descriptor["container-image"]["image"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    versions = set(re.findall(r"^ARG VERSION=(\S+)$", dockerfile, re.MULTILINE))
    assert versions == {sessionfx.__version__}
    names = re.findall(r'SESSIONFX_IMAGE="([^"]+)"', dockerfile)
    assert [name.replace("$VERSION", sessionfx.__version__) for name in names] == [image]
    brainlife = REPOSITORY / "platforms" / "brainlife"
    assert f"docker://{image}}}" in (brainlife / "main").read_text(encoding="utf-8")
    assert json.loads((brainlife / "package.json").read_text(encoding="utf-8"))["version"] == sessionfx.__version__


@pytest.mark.parametrize("checks", [(), ("--bids",)], ids=["schema", "BIDS App"])
def test_boutiques_accepts_the_descriptor(checks: tuple[str, ...]) -> None:
    assert "OK" in bosh("validate", *checks, DESCRIPTOR).stdout


def test_boutiques_makes_the_command_this_test_makes(descriptor: dict[str, Any], tmp_path: Path) -> None:
    values = {
        "bids_dir": "/data/my bids",
        "output_dir": "out; echo no",
        "analysis_level": ["participant", "group"],
        "participant_label": ["01", "03"],
        "contrast": ["incongruent - congruent", "all=0.5*'a b' + 0.5*$(c)"],
        "smoothing_fwhm": 5,
        "dry_run": True,
    }
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(values))
    printed = bosh("exec", "simulate", DESCRIPTOR, "-i", invocation).stdout
    words = shlex.split(next(line for line in printed.splitlines() if "sessionfx " in line))
    assert words[:2] == ["mkdir", "-p"]
    assert words[words.index("sessionfx") + 1 :] == command_of(descriptor, with_defaults(descriptor, values))


def test_boutiques_refuses_values_that_the_program_refuses(tmp_path: Path) -> None:
    good = {"bids_dir": "in", "output_dir": "out", "analysis_level": ["group"]}
    for wrong in (
        {"analysis_level": ["session"]},
        {"hrf_model": "gamma"},
        {"alpha": "much"},
        {"nprocs": 0},
        {"participant_level_dir": "out"},
    ):
        invocation = tmp_path / "invocation.json"
        invocation.write_text(json.dumps(good | wrong))
        assert bosh("invocation", DESCRIPTOR, "-i", invocation, check=False).returncode != 0, wrong
    invocation.write_text(json.dumps(good))
    bosh("invocation", DESCRIPTOR, "-i", invocation)

"""The Boutiques descriptor: it says what the table of options says, and the program understands its commands."""

from __future__ import annotations

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
from sessionfx.cli import parse_options
from sessionfx.options.table import OPTIONS, SECTIONS, Option, choices_of

REPOSITORY = Path(__file__).parents[2]
DESCRIPTOR = REPOSITORY / "boutiques.json"
TOOL = REPOSITORY / "tools" / "boutiques.py"
PRINT_AND_STOP = {"help", "version", "report_bug"}
BOUTIQUES_NAMES = {"levels": "analysis_level"}  # where they are not those of the options

_spec = importlib.util.spec_from_file_location("descriptor", TOOL)  # `boutiques` is the package that is tested against
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


@pytest.fixture
def descriptor() -> dict[str, Any]:
    return tool.describe_program()


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
    number = 1 if item.get("integer") else 0.5
    value = item["value-choices"][1] if "value-choices" in item else number if item["type"] == "Number" else "x1"
    return [value] if item.get("list") else value


def test_file_is_what_the_module_prints() -> None:
    printed = subprocess.run([sys.executable, TOOL], capture_output=True, check=True)
    assert DESCRIPTOR.read_bytes() == printed.stdout, "run: python tools/boutiques.py > boutiques.json (make boutiques)"


def described(descriptor: dict[str, Any]) -> list[tuple[Option, dict[str, Any]]]:
    items = {item["id"]: item for item in descriptor["inputs"]}
    return [(OPTIONS[name], items[BOUTIQUES_NAMES.get(name, name)]) for name in OPTIONS if name != "help"]


def test_every_option_is_an_input_in_one_group(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for item in descriptor["inputs"]]
    assert set(ids) - {"participant_level_dir"} == {item["id"] for _, item in described(descriptor)}
    grouped = [name for group in descriptor["groups"] if "mutually-exclusive" not in group for name in group["members"]]
    assert sorted([*grouped, "participant_level_dir"]) == sorted(ids)
    assert [group["name"] for group in descriptor["groups"]] == [*SECTIONS, "output directory"]


def test_every_input_says_type_choices_and_default_of_its_option(descriptor: dict[str, Any]) -> None:
    for option, item in described(descriptor):
        assert item["type"] in {"Flag", "Number", "File", "String"}
        assert item["description"].startswith(option.help)
        assert tuple(item.get("value-choices", ()))[: len(choices_of(option.name))] == choices_of(option.name)
        assert item.get("command-line-flag") == (None if option.is_positional else option.flag)
        if option.name != "config_over_defaults":
            assert item.get("default-value") == option.default


def test_ids_are_unique(descriptor: dict[str, Any]) -> None:
    ids = [item["id"] for kind in ("inputs", "output-files", "groups") for item in descriptor[kind]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", name, re.ASCII) for name in ids)


def test_nothing_but_the_three_positionals_is_required(descriptor: dict[str, Any]) -> None:
    required = {item["id"] for item in descriptor["inputs"] if not item["optional"]}
    one_of = [group["members"] for group in descriptor["groups"] if group.get("one-is-required")]
    assert required == {"bids_dir", "analysis_level"}
    assert one_of == [["output_dir", "participant_level_dir"]]
    command = command_of(descriptor, {"bids_dir": "in", "output_dir": "out", "analysis_level": ["participant"]})
    assert command == ["in", "out", "participant"]


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
    values["hrf_model"] = "fir"  # which goes with fir_delays
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


def test_no_default_depends_on_the_machine(descriptor: dict[str, Any]) -> None:
    (nprocs,) = (item for item in descriptor["inputs"] if item["id"] == "nprocs")
    assert "default-value" not in nprocs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nprocs", {"type": "Number", "integer": True, "minimum": 1}),
        ("permutations", {"type": "Number", "integer": True, "minimum": 0, "default-value": 0}),
        ("smoothing_fwhm", {"type": "Number", "minimum": 0}),
        ("alpha", {"type": "Number", "minimum": 0, "exclusive-minimum": True, "default-value": 0.05}),
        ("bids_filter_file", {"type": "File"}),
        ("work_dir", {"type": "String"}),
        ("drift_model", {"type": "String", "value-choices": ["cosine", "polynomial", "none"]}),
        ("force", {"type": "Flag"}),
        ("covariates", {"type": "String", "list": True}),
        ("contrast", {"list": True, "list-separator": " --contrast=", "command-line-flag-separator": "="}),
        ("levels", {"optional": False, "list": True}),
        ("high_pass", {"description": "cut-off of the cosine drifts (Hz; default: 0.01)"}),
    ],
)
def test_input_is_described_by_its_option(name: str, expected: dict[str, Any]) -> None:
    assert expected.items() <= tool.describe_input(OPTIONS[name]).items()


def test_the_old_name_of_a_strategy_is_understood_and_never_kept(descriptor: dict[str, Any]) -> None:
    values = {"bids_dir": "in", "output_dir": "out", "analysis_level": ["group"], "strategy": ["fixed-effects"]}
    assert parse_options(command_of(descriptor, values)).group.strategy == ("summary-statistics",)


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


@pytest.mark.slow
@pytest.mark.parametrize("checks", [(), ("--bids",)], ids=["schema", "BIDS App"])
def test_boutiques_accepts_the_descriptor(checks: tuple[str, ...]) -> None:
    assert "OK" in bosh("validate", *checks, DESCRIPTOR).stdout


@pytest.mark.slow
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


@pytest.mark.slow
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

"""Analyses as models and back: the same options, and the same file again."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import examples
from sessionfx.errors import CommandLineError
from sessionfx.models.applying import with_model
from sessionfx.models.mapping import plan_model
from sessionfx.models.reader import parse_model
from sessionfx.models.writer import PROGRAM, SAID, written_model
from sessionfx.options import Options
from sessionfx.options.table import OPTIONS, Takes
from sessionfx.options.values import Choice, Label, Number, Probability

LINES = [json.loads(line) for line in (Path(__file__).parent / "public_models.jsonl").read_text("utf-8").splitlines()]
PLACES = {"bids_dir": Path("bids"), "output_dir": Path("out"), "levels": ("participant", "group")}

TEXTS: dict[str, st.SearchStrategy[Any]] = {
    "contrast": st.sampled_from(["go", "x=go - stop", "f = 0.5*a - `b c`", "F:any = go; stop", "d=a_derivative"]),
    "session_contrast": st.sampled_from(["mean", "linear", "any", "each", "ses-02 - ses-01", "s=ses-a + ses-b", "linear(days)"]),
    "group_contrast": st.sampled_from(["intercept", "age", "patient - control"]),
    "recode": st.sampled_from(["go=hit", "stop=", "a.b=c"]),
    "event_filter": st.sampled_from(["response=hit", "rt < 2", "stim!=face,house", "x=n/a"]),
    "modulator": st.sampled_from(["rt", "go: age", "x=go: rt - 3", "y=stop: 2*rt"]),
    "fir_delays": st.integers(0, 9),
    "model_node": st.just(None),
}  # fmt: skip


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Values that an option may have, as the command line gives them."""
    option = OPTIONS[name]
    if name in TEXTS:
        value = TEXTS[name]
    elif not option.has_value:
        return st.booleans()
    elif isinstance(option.value, Choice):
        value = st.sampled_from(option.value.names)
    elif isinstance(option.value, Number):
        value = st.integers(1, 5) if option.value.whole else st.sampled_from([0.01, 0.008, 0.5, 1.0, 1 / 3])
    elif isinstance(option.value, Probability):
        value = st.floats(0.001, 0.999)
    elif isinstance(option.value, Label):
        value = st.sampled_from(["01", "02", "a"])
    else:
        value = st.sampled_from(["age", "group", "a b"])
    if option.takes in (Takes.SEVERAL, Takes.ONE_REPEATED):
        return st.lists(value, unique=True, max_size=3).map(tuple)
    return value


OPTION_SETS = st.fixed_dictionaries({}, optional={name: values_of(name) for name in SAID}).map(
    lambda values: Options.from_values({**PLACES, **values})
)


@pytest.mark.slow
@examples(300)
@given(options=OPTION_SETS)
def test_options_to_a_model_and_back_are_the_same(options: Options) -> None:
    content = json.loads(json.dumps(written_model(options)))
    plan = plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json")
    read, group = with_model(Options.from_values(PLACES), plan)
    assert read == options
    assert group == options
    assert written_model(read) == content


@pytest.mark.many
@pytest.mark.parametrize(
    "line", [line for line in LINES if not line["refusal"]][::3], ids=lambda line: str(line["source"])
)
def test_an_analysis_from_a_model_is_written_with_its_nodes(line: dict[str, Any]) -> None:
    """As its author wrote them, with the options that were given besides: read again, it is the same analysis and file."""
    as_written = deepcopy(line["model"])
    plan = plan_model(parse_model(line["model"], "m_smdl.json"), "m_smdl.json")
    given = Options.from_values({**PLACES, "smoothing_fwhm": 5.0, "noise_model": "ols", "alpha": 0.01})
    options, group = with_model(given, plan)
    content = json.loads(json.dumps(written_model(options)))
    again = plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json")
    read, read_group = with_model(Options.from_values(PLACES), again)
    assert read.values() == options.values()
    assert read_group.selection == group.selection
    assert written_model(read) == content
    run = content["Nodes"][0]["Model"]
    assert run["Software"].pop(PROGRAM)["DesignsFrom"] == "nodes"
    if "Software" not in as_written["Nodes"][0]["Model"]:
        assert run.pop("Software") == {}
    assert content == as_written == line["model"]


def test_a_file_that_was_changed_in_one_place_is_refused() -> None:
    content = written_model(Options.from_values({**PLACES, "contrast": ("go - stop",)}))
    content["Nodes"][0]["Contrasts"][0]["Weights"] = [1.0, 1.0]
    with pytest.raises(CommandLineError, match=r"node 'run' and the options in .* contradict each other"):
        plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"nprocs": 4}, "'nprocs': it is no option of a model"),
        ({"hrf-model": "gamma"}, "'hrf-model': invalid choice"),
        ({"high-pass": [[1]]}, "'high-pass': it is no option of a model, or has no plain value"),
    ],
)
def test_options_in_a_file_are_checked(entry: dict[str, Any], sentence: str) -> None:
    content = written_model(Options.from_values({**PLACES, "contrast": ("go",)}))
    content["Nodes"][0]["Model"]["Software"][PROGRAM]["Options"] |= entry
    with pytest.raises(CommandLineError) as refused:
        plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json")
    assert sentence in str(refused.value)


def test_what_other_programs_would_compute_otherwise_is_said() -> None:
    written = {
        **PLACES, "contrast": ("go_x_rt",), "modulator": ("rt",), "smoothing_fwhm": 6.0, "fixed_effects": "precision",
        "session_contrast": ("linear",), "covariates": ("age",), "drift_model": "polynomial",
    }  # fmt: skip
    description = written_model(Options.from_values(written))["Description"]
    for words in (
        "--smoothing-fwhm", "the columns of the conditions that contrasts name", "polynomial", "weights of precision", "lack 'linear'",
        "Covariates", "the strategies that are compared", "FitLins samples events before",
    ):  # fmt: skip
        assert words in description


def test_nodes_are_those_of_the_standard() -> None:
    schema = pytest.importorskip("bsmschema.models")
    options = {"contrast": ("x=go - stop", "F:any = go; stop"), "session_contrast": ("mean", "each", "ses-02 - ses-01")}
    content = written_model(Options.from_values({**PLACES, **options, "task": ("nback",)}))
    schema.BIDSStatsModel.model_validate(content)
    assert [(node["Level"], node["Name"]) for node in content["Nodes"]] == [
        ("Run", "run"), ("Session", "session"), ("Subject", "subject"), ("Dataset", "dataset"),
        ("Dataset", "each_session"), ("Subject", "sessions"), ("Dataset", "dataset_sessions"),
    ]  # fmt: skip
    assert content["Nodes"][0]["Contrasts"][0] == {
        "Name": "x", "ConditionList": ["trial_type.go", "trial_type.stop"], "Weights": [1.0, -1.0], "Test": "t",
    }  # fmt: skip
    assert content["Nodes"][5]["Contrasts"][0]["ConditionList"] == ["session.02", "session.01"]

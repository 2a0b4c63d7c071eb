"""The reader of models: strict, with node, field and remedy in every refusal, and never a traceback."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from properties import examples
from sessionfx.errors import CommandLineError
from sessionfx.models.reader import INTERCEPT, Contrast, Edge, parse_model, read_model

MODEL = {
    "Name": "stroop",
    "BIDSModelVersion": "1.0.0",
    "Description": "a small model",
    "Input": {"task": ["stroop"], "run": [1, "02"]},
    "Nodes": [
        {
            "Level": "Run",
            "Name": "run",
            "GroupBy": ["run", "subject"],
            "Transformations": {
                "Transformer": "pybids-transforms-v1",
                "Instructions": [
                    {"Name": "Factor", "Input": ["trial_type"]},
                    {"Name": "Convolve", "Input": "trial_type.*", "Model": "spm", "Derivative": False},
                ],
            },
            "Model": {
                "Type": "GLM",
                "X": [1, "trial_type.*", "trans_?"],
                "HRF": {"Variables": [], "Model": "spm"},
                "Options": {"HighPassFilterCutoffHz": 0.008, "Mask": {"desc": ["brain"], "suffix": ["mask"]}},
                "Software": {"SPM": {"SerialCorrelation": "FAST"}},
            },
            "DummyContrasts": {"Test": "t", "Contrasts": ["trial_type.a"]},
            "Contrasts": [
                {
                    "Name": "a_gt_b",
                    "ConditionList": ["trial_type.a", "trial_type.b"],
                    "Weights": [1, "-1/2"],
                    "Test": "t",
                }
            ],
        },
        {
            "Level": "Dataset",
            "Name": "dataset",
            "GroupBy": ["contrast"],
            "Model": {"Type": "glm", "X": [1]},
            "DummyContrasts": {"Test": "t"},
        },
    ],
    "Edges": [{"Source": "run", "Destination": "dataset", "Filter": {"contrast": ["a_gt_b"]}}],
}


def changed(path: str, value: object) -> dict:
    """Give the model with another value at a place such as `Nodes.0.Model.X`; `del` leaves it out."""
    content = copy.deepcopy(MODEL)
    *places, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    part = content
    for place in places:
        part = part[place]
    if value == "del":
        del part[last]
    else:
        part[last] = value
    return content


def test_a_model_is_read():
    model = parse_model(MODEL, "m_smdl.json")
    run, dataset = model.nodes
    assert model.input == {"task": ("stroop",), "run": ("1", "02")}
    assert run.model.type == "glm"
    assert run.model.x == (INTERCEPT, "trial_type.*", "trans_?")
    assert run.contrasts == (
        Contrast(name="a_gt_b", conditions=("trial_type.a", "trial_type.b"), weights=((1.0, -0.5),), test="t"),
    )
    assert dataset.dummy_contrasts is not None
    assert dataset.dummy_contrasts.contrasts is None
    assert model.edges == (Edge(source="run", destination="dataset", filter={"contrast": ("a_gt_b",)}),)


def test_nodes_without_edges_follow_each_other():
    assert parse_model(changed("Edges", "del"), "m").edges == (Edge(source="run", destination="dataset"),)


def test_an_f_test_has_rows_of_weights():
    contrast = {"Name": "f", "ConditionList": ["a", "b"], "Weights": [[1, 0], [0, 1]], "Test": "F"}
    assert parse_model(changed("Nodes.0.Contrasts", [contrast]), "m").nodes[0].contrasts[0].weights == ((1, 0), (0, 1))


REFUSED = {
    "unknown field": ("Nodes.0.Modell", {}, "node 'run': 'Modell' is no field of it. Did you mean 'Model'?"),
    "another case": ("Nodes.0.Contrasts.0.weights", [1], "contrast 'a_gt_b': 'weights' is no field of it. Did you mean 'Weights'"),
    "snake case": ("Nodes.0.group_by", [], "'group_by' is no field of it. Did you mean 'GroupBy'?"),
    "level in lower case": ("Nodes.0.Level", "run", "node 'run', Level: 'run' is not among 'Run', 'Session', 'Subject' and 'Dataset'. Did you mean 'Run'?"),
    "missing": ("Nodes.1.GroupBy", "del", "node 'dataset': the field 'GroupBy' is missing"),
    "wrong number of weights": ("Nodes.0.Contrasts.0.Weights", [1], "contrast 'a_gt_b', Weights: 1 weights for 2 conditions"),
    "weights of an F test": ("Nodes.0.Contrasts.0.Weights", [[1, -1]], "which an F test has"),
    "weights all zero": ("Nodes.0.Contrasts.0.Weights", [0, 0], "all weights are zero"),
    "no fraction": ("Nodes.0.Contrasts.0.Weights", ["1/0", 1], "'1/0' is neither a number nor a fraction"),
    "old test": ("Nodes.0.Contrasts.0.Test", "FEMA", "Test: 'FEMA' is not among 't', 'F' and 'pass'"),
    "text for a list": ("Input.task", "stroop", 'Input \'task\': "stroop" stands where a list ([…]) should. Write ["stroop"]'),
    "nothing chosen": ("Input.task", [], "Input 'task': the list is empty"),
    "text for a switch": ("Nodes.0.Transformations.Instructions.1.Derivative", "True", 'instruction 2 (Convolve), Derivative: "True" stands where true or false should'),
    "unknown transformation": ("Nodes.0.Transformations.Instructions.0.Name", "AND", "instruction 1: there is no transformation 'AND' here. Did you mean 'And'?"),
    "unknown argument": ("Nodes.0.Transformations.Instructions.0.Inputs", ["a"], "instruction 1 (Factor): 'Inputs' is no field of it. Did you mean 'Input'?"),
    "another transformer": ("Nodes.0.Transformations.Transformer", "bidspm", "Transformer: 'bidspm' is another program's set"),
    "the text 1": ("Nodes.0.Model.X", ["1"], 'Model.X: the text "1" is no column. Write the number 1'),
    "twice": ("Nodes.0.Model.X", ["a", "a"], "Model.X: 'a' stands there twice"),
    "the same name": ("Nodes.1.Name", "run", "Nodes: 'run' stands there twice"),
    "edge to nowhere": ("Edges.0.Destination", "datset", "edge 1, Destination: 'datset' is not among 'run' and 'dataset'. Did you mean 'dataset'?"),
    "dummy and contrast": ("Nodes.0.DummyContrasts.Contrasts", ["a_gt_b"], "'a_gt_b' is among DummyContrasts too"),
    "no nodes": ("Nodes", [], "Nodes: the list is empty"),
    "no number": ("Nodes.0.Model.Options.HighPassFilterCutoffHz", True, "Model.Options.HighPassFilterCutoffHz: true stands where a number should"),
    "a huge number": ("Nodes.0.Model.Options.HighPassFilterCutoffHz", 10**400, "is too large a number"),
    "half a character": ("Name", "\ud800", "Name: "),
    "nothing": ("Nodes.0", None, "node 1: null stands where an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_with_its_place(case):
    path, value, sentence = REFUSED[case]
    with pytest.raises(CommandLineError) as refused:
        parse_model(changed(path, value), "m_smdl.json")
    assert str(refused.value).startswith("--model m_smdl.json")
    assert sentence in str(refused.value)


def test_drafts_of_the_standard_are_refused_by_name():
    with pytest.raises(CommandLineError, match="drafts of the standard"):
        parse_model({"Name": "old", "Steps": []}, "m")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ('{"Name": 1, "Name": 2}', "'Name' stands twice in one object"),
        ('{"Name": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"Name": ' + "9" * 10_000 + "}", "is not valid JSON"),
    ],
)
def test_files_that_are_no_json_are_refused(tmp_path, text, sentence):
    path = tmp_path / "m_smdl.json"
    path.write_text(text)
    with pytest.raises(CommandLineError) as refused:
        read_model(path)
    assert sentence in str(refused.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", "t", "Run", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(part: object, above: tuple = ()) -> list[tuple]:
    """All places of a model that hold something."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [place for key, value in items for place in [(*above, key), *_places(value, (*above, key))]]


@pytest.mark.slow
@examples(400, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mangled_models_are_read_or_refused(data):
    """Whatever stands at whatever place: a model, or a sentence that names the file."""
    content = copy.deepcopy(MODEL)
    for _ in range(data.draw(st.integers(1, 3))):
        *places, last = data.draw(st.sampled_from(_places(content)))
        part = content
        for place in places:
            part = part[place]
        change = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if change == "rename" and isinstance(part, dict):
            part[data.draw(st.text(max_size=6))] = part.pop(last)
        elif change == "remove":
            del part[last]
        else:
            part[last] = data.draw(JSON)
    try:
        parse_model(content, "m_smdl.json")
    except CommandLineError as error:
        assert "m_smdl.json" in str(error)


@examples(100)
@given(content=JSON)
def test_anything_else_is_refused(content):
    with pytest.raises(CommandLineError, match=r"m_smdl\.json"):
        parse_model(content, "m_smdl.json")


def test_a_file_of_its_own_bytes_is_read(tmp_path: Path):
    path = tmp_path / "m_smdl.json"
    path.write_text("\ufeff" + json.dumps(MODEL), encoding="utf-8")
    assert read_model(path) == parse_model(MODEL, str(path))

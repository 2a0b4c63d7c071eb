"""Public models, as people have them: which load, which are refused and why, and that each means what pybids says.

`public_models.jsonl` has one model per line with its source and licence. Descriptions are left out of all, participants
and contrasts beyond a few of most; where there is no permissive licence, only this structure of names and numbers is
kept. A line says the refusal that is expected, empty where the model loads.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from sessionfx.ask.contrasts import parse_contrast
from sessionfx.errors import CommandLineError
from sessionfx.models.mapping import plan_model
from sessionfx.models.plan import Plan
from sessionfx.models.reader import INTERCEPT, parse_model

LINES = [json.loads(line) for line in (Path(__file__).parent / "public_models.jsonl").read_text("utf-8").splitlines()]
LOADED = [line for line in LINES if not line["refusal"]]


def planned(line: dict[str, Any]) -> Plan:
    return plan_model(parse_model(line["model"], line["source"]), line["source"])


def source(line: dict[str, Any]) -> str:
    return str(line["source"])


def test_there_are_many_distinct_ones_of_every_kind():
    assert len({json.dumps(line["model"], sort_keys=True) for line in LINES}) >= 190
    assert len(LOADED) >= 120
    repositories = Counter(line["source"].split(":")[0] for line in LOADED)
    assert set(repositories) >= {"demidenm/openneuro_glmfitlins", "cpp-lln-lab/bidspm", "bids-standard/model-zoo"}


@pytest.mark.many
@pytest.mark.parametrize("line", LINES, ids=source)
def test_each_loads_or_is_refused_in_a_sentence(line: dict[str, Any]):
    if not line["refusal"]:
        planned(line)
        return
    with pytest.raises(CommandLineError) as refused:
        planned(line)
    assert str(refused.value).split(line["source"])[1].lstrip(", :") == line["refusal"]


@pytest.mark.many
@pytest.mark.parametrize("line", LOADED, ids=source)
def test_contrasts_are_those_of_pybids(line: dict[str, Any]):
    """Names, conditions and weights of the nodes on the path, as pybids' own graph has them."""
    from bids.modeling.statsmodels import BIDSStatsModelsGraph, BIDSStatsModelsNodeOutput

    plan = planned(line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = BIDSStatsModelsGraph._load_nodes(BIDSStatsModelsGraph._load_model(copy.deepcopy(line["model"])))
    for node in plan.nodes:
        ours = {contrast.name: (contrast.conditions, contrast.weights, contrast.test) for contrast in node.contrasts}
        if node.dummy_contrasts is not None:
            for name in node.dummy_contrasts.contrasts or node.model.x:
                ours["intercept" if name == INTERCEPT else name] = ((name,), ((1.0,),), node.dummy_contrasts.test)
        columns = [*node.model.x, *(name for conditions, _, _ in ours.values() for name in conditions)]
        output = object.__new__(BIDSStatsModelsNodeOutput)
        output.node, output.entities, output.invalid_contrasts = theirs[node.name], {}, "error"
        names = dict.fromkeys("intercept" if name == INTERCEPT else name for name in columns)
        if node.dummy_contrasts is not None and node.dummy_contrasts.contrasts is None:
            names = dict.fromkeys("intercept" if name == INTERCEPT else name for name in node.model.x)
        output.model_spec = SimpleNamespace(X=pd.DataFrame(columns=list(names)))
        output.invalid_contrasts = "ignore"
        found = {
            contrast.name: (
                tuple(INTERCEPT if name == "intercept" else name for name in contrast.conditions),
                contrast.weights,
                contrast.test,
            )
            for contrast in output._build_contrasts()
        }
        assert found.keys() == ours.keys()
        for name, (conditions, weights, test) in found.items():
            rows = weights if isinstance(weights[0], list) else [weights]
            assert ours[name] == (conditions, tuple(tuple(map(float, row)) for row in rows), test), name


@pytest.mark.many
@pytest.mark.parametrize("line", LOADED, ids=source)
def test_contrasts_mean_the_same_as_options(line: dict[str, Any]):
    """What would be typed is read back with the weights of the model, to the last bit."""
    for contrast in planned(line).contrasts:
        typed = parse_contrast(contrast.text)
        assert typed.label == contrast.label
        assert typed.row_weights == (contrast.rows or (contrast.weights,))


@pytest.mark.many
@pytest.mark.parametrize("line", LOADED, ids=source)
def test_what_loads_is_a_model_of_the_schema(line: dict[str, Any]):
    schema = pytest.importorskip("bsmschema.models")
    content = copy.deepcopy(line["model"])
    for node in content["Nodes"]:
        node["Model"]["Type"] = node["Model"]["Type"].lower()
    schema.BIDSStatsModel.model_validate(content)

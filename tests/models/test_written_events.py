"""What is written of conditions and modulators makes, read as a model alone, the designs of the options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sessionfx.ask.contrasts import conditions_asked, parse_contrasts
from sessionfx.ask.event_model import parse_event_model
from sessionfx.bids.runs import RunInputs
from sessionfx.models.mapping import plan_model
from sessionfx.models.reader import parse_model
from sessionfx.models.writer import PROGRAM, written_model
from sessionfx.options import Options
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.design import make_design
from sessionfx.participant.events import read_events
from sessionfx.participant.timing import Timing
from sessionfx.participant.variables import modelled_run

N_VOLUMES, REPETITION_TIME = 120, 2.0
TIMING = Timing(REPETITION_TIME * np.arange(N_VOLUMES), REPETITION_TIME, 0.0, N_VOLUMES * REPETITION_TIME)
PLACES = {"bids_dir": Path("bids"), "output_dir": Path("out"), "levels": ("participant",), "confounds": ("none",)}


@pytest.fixture
def run(tmp_path: Path) -> RunInputs:
    """Forty events with kinds of pictures, responses and their times, some of them missing."""
    rng = np.random.default_rng(3)
    n_events = 40
    table = pd.DataFrame(
        {
            "onset": np.round(np.cumsum(rng.uniform(3.5, 5.5, n_events)), 3),
            "duration": 1.0,
            "trial_type": np.where(rng.permutation(n_events) % 2, "go", "stop"),
            "stim type": np.where(rng.permutation(n_events) % 2, "face", "house"),
            "response": rng.choice(["left", "right", "miss"], n_events),
            "block": rng.permutation(n_events) % 4,
            "rt": np.round(rng.uniform(0.3, 1.4, n_events), 3),
        }
    )
    table.loc[[4, 9], "response"] = np.nan
    table.to_csv(tmp_path / "events.tsv", sep="\t", index=False, na_rep="n/a")
    return RunInputs(
        {"sub": "01", "task": "x"}, tmp_path / "b.nii", tmp_path / "m.nii", tmp_path / "events.tsv", None, {}
    )


def of_options(run: RunInputs, options: Options) -> pd.DataFrame:
    model = options.first_level
    asked = parse_event_model(model).conditions_behind(conditions_asked(parse_contrasts(options.selection.contrast)))
    events = read_events(run.events, first_volume=0.0, end=TIMING.end, asked=asked, model=parse_event_model(model))
    return make_design(TIMING, events, Confounds(pd.DataFrame(index=range(N_VOLUMES))), model).matrix


def of_nodes(run: RunInputs, options: Options) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """The design of the model without its options, and the weights of its contrasts."""
    content = written_model(options)
    del content["Nodes"][0]["Model"]["Software"][PROGRAM]
    plan = plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json", "dataset")
    model = Options.from_values({**PLACES, "hrf_model": plan.options["hrf_model"], "drift_model": "none"}).first_level
    events, confounds = modelled_run(run, plan.recipe, TIMING, model.hrf_model)
    return make_design(TIMING, events, confounds, model).matrix, {
        item.label: dict(item.weights) for item in plan.contrasts
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"contrast": ("go - stop",)},
        {"contrast": ("left",), "condition_column": ("response",)},
        {"contrast": ("face - house",), "condition_column": ("`stim type`",)},
        {"contrast": ("`1` - `2`",), "condition_column": ("block",)},
        {"contrast": ("go.face - stop.house",), "condition_column": ("trial_type", "`stim type`")},
        {"contrast": ("both",), "recode": ("go=both", "stop=both")},
        {"contrast": ("go - other",), "recode": ("stop=other",)},
        {"contrast": ("left",), "condition_column": ("response",), "recode": ("miss=", "right=left")},
        {"contrast": ("hit - stop.face",), "condition_column": ("trial_type", "`stim type`"), "recode": ("go.face=hit", "go.house=")},
        {"contrast": ("go",), "event_filter": ("response=left",)},
        {"contrast": ("go",), "event_filter": ("stim type!=house", "block!=2,3", "rt < 1.2")},
        {"contrast": ("go",), "event_filter": ("trial_type!=stop",)},
        {"contrast": ("go - stop",), "duration_column": "rt"},
        {"contrast": ("go_x_rt",), "modulator": ("go: rt",)},
        {"contrast": ("go_x_rt - stop_x_rt",), "modulator": ("rt",)},
        {"contrast": ("slow - stop",), "modulator": ("slow=go: 2*rt",), "modulator_centering": "none"},
        {"contrast": ("go_x_rt_derivative",), "modulator": ("go: rt",), "hrf_model": "spm + derivative"},
        {"contrast": ("go_x_rt",), "modulator": ("go: rt", "go: block"), "event_filter": ("rt > 0.5",), "duration_column": "rt"},
        {"contrast": ("left_x_rt",), "modulator": ("left: rt",), "condition_column": ("response",), "recode": ("right=left",)},
    ],
    ids=lambda asked: " ".join(f"{key}={value}" for key, value in asked.items()),
)  # fmt: skip
def test_nodes_make_the_designs_of_options(run: RunInputs, asked: dict[str, object]) -> None:
    options = Options.from_values({**PLACES, "drift_model": "none", **asked})
    expected = of_options(run, options)
    found, contrasts = of_nodes(run, options)
    weights = parse_contrasts(options.selection.contrast)[0].weights
    (named,) = contrasts.values()
    assert list(named.values()) == list(weights.values())
    assert sorted(found.shape) == sorted(expected.shape)
    for name, column in zip(weights, named, strict=True):
        np.testing.assert_allclose(found[column], expected[name], rtol=1e-10, atol=1e-12)
    # the same columns under other names
    sort = [matrix.to_numpy()[:, np.lexsort(np.round(matrix.to_numpy(), 9))] for matrix in (found, expected)]
    np.testing.assert_allclose(*sort, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"event_filter": ("response=left,right",)}, "lack --event-filter 'response=left,right'"),
        ({"event_filter": ("response!=n/a",)}, "lack --event-filter 'response!=n/a'"),
        ({"event_filter": ("response!=left",)}, "leave out events without a value too"),
        ({"modulator": ("go: rt - 0.5",)}, "lack --modulator 'go: rt - 0.5'"),
        ({"modulator": ("rt",)}, "of the conditions that contrasts name"),
        ({"condition_column": ("a", "b"), "contrast": ("x",)}, "could be of several pairs"),
        ({"condition_column": ("a", "b"), "contrast": ("x.y.z",)}, "'x.y.z'"),
    ],
)  # fmt: skip
def test_what_the_standard_cannot_say_is_said(asked: dict[str, object], sentence: str) -> None:
    assert sentence in written_model(Options.from_values({**PLACES, "contrast": ("go",), **asked}))["Description"]


def test_pybids_makes_the_same_conditions_of_what_is_written(run: RunInputs) -> None:
    """Modulators are left out: pybids cannot filter numbers by text."""
    from bids.modeling.transformations import TransformerManager
    from bids.variables import BIDSRunVariableCollection, SparseRunVariable
    from bids.variables.entities import RunInfo

    options = Options.from_values(
        {**PLACES, "contrast": ("yes",), "recode": ("go=yes",), "event_filter": ("trial_type!=x",)}
    )
    instructions = written_model(options)["Nodes"][0]["Transformations"]["Instructions"]
    assert [item["Name"] for item in instructions] == ["Filter", "Replace", "Factor", "Convolve"]
    table = pd.read_csv(run.events, sep="\t")
    info = RunInfo({"run": 1}, TIMING.end, REPETITION_TIME, "b.nii", N_VOLUMES)
    data = table[["onset", "duration"]].assign(amplitude=table["trial_type"])
    collection = BIDSRunVariableCollection([SparseRunVariable("trial_type", data, [info], "events")], 10)
    for item in instructions[1:3]:
        TransformerManager().transform(collection, [item])
    model = parse_event_model(options.first_level)
    events = read_events(run.events, first_volume=0.0, end=TIMING.end, asked={"yes"}, model=model).table
    theirs = collection["trial_type.yes"]
    onsets = np.ravel(theirs.onset)[np.ravel(theirs.values) == 1]
    np.testing.assert_array_equal(onsets, events.loc[events["trial_type"] == "yes", "onset"])
    assert set(collection.variables) == {f"trial_type.{name}" for name in events["trial_type"]}

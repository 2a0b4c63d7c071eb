"""Every transformation against tables computed by hand; what cannot be done exactly is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sessionfx.models.reader import Hrf, parse_model
from sessionfx.models.transformations import (
    Regressors,
    TransformationError,
    dense_variable,
    regressors,
    sparse_variables,
)

EVENTS = pd.DataFrame(
    {
        "onset": [0.0, 5.0, 10.0, 15.0],
        "duration": [1.0, 1.0, 2.0, 2.0],
        "trial_type": ["go", "stop", "go", None],
        "rt": ["0.5", "0.25", None, "0.75"],
        "gain": ["10", "-20", "0", "20"],
        "load": ["1", "2", "2", "1"],
        "constant": ["3", "3", "3", "3"],
    },
    index=[2, 3, 4, 5],
)
MOTION = np.array([0.0, 1.0, -1.0, 2.0, -2.0])


def read_instructions(*instructions: dict):
    content = {
        "Name": "m",
        "BIDSModelVersion": "1.0.0",
        "Nodes": [
            {
                "Level": "Run",
                "Name": "run",
                "GroupBy": ["run"],
                "Model": {"Type": "glm", "X": [1]},
                "Transformations": {"Transformer": "pybids-transforms-v1", "Instructions": list(instructions)},
            }
        ],
    }
    return parse_model(content, "m_smdl.json").nodes[0].instructions


def run(*instructions: dict, x: tuple[str, ...], hrf: Hrf | None = None) -> Regressors:
    columns = EVENTS.drop(columns=["onset", "duration"])
    variables = sparse_variables(EVENTS["onset"], EVENTS["duration"], columns) | {"trans_x": dense_variable(MOTION)}
    return regressors(variables, read_instructions(*instructions), hrf, x)


def amplitudes(*instructions: dict, name: str) -> list[float]:
    """Amplitudes that transformations leave, with 0 for rows that are no event."""
    made = run(*instructions, {"Name": "Convolve", "Input": name}, x=(name,)).events
    rows = made if "modulation" in made else made.assign(modulation=1.0)
    return rows["modulation"].reindex(EVENTS.index, fill_value=0.0).tolist()


ROWS = {
    "Factor, a text": ([{"Name": "Factor", "Input": ["trial_type"]}], "trial_type.go", [1, 0, 1, 0]),
    "Factor, numbers": ([{"Name": "Factor", "Input": "load"}], "load.2", [0, 1, 1, 0]),
    "numbers as they are": ([], "gain", [10, -20, 0, 20]),
    "Copy": ([{"Name": "Copy", "Input": "gain", "Output": "copied"}], "copied", [10, -20, 0, 20]),
    "Rename": ([{"Name": "Rename", "Input": ["gain"], "Output": ["won"]}], "won", [10, -20, 0, 20]),
    "Demean": ([{"Name": "Demean", "Input": "gain"}], "gain", [7.5, -22.5, -2.5, 17.5]),
    "Demean, of those that have a value": (
        [{"Name": "Demean", "Input": "rt", "Output": "c"}],
        "c",
        [0, -0.25, 0, 0.25],
    ),
    "Scale": (
        [{"Name": "Scale", "Input": "load", "Output": "z"}],
        "z",
        [-0.5 / np.sqrt(1 / 3), 0.5 / np.sqrt(1 / 3), 0.5 / np.sqrt(1 / 3), -0.5 / np.sqrt(1 / 3)],
    ),
    "Scale, by size alone": (
        [{"Name": "Scale", "Input": "load", "Demean": False}],
        "load",
        [np.sqrt(3), 2 * np.sqrt(3), 2 * np.sqrt(3), np.sqrt(3)],
    ),
    "Scale, missing as 0 before": (
        [{"Name": "Scale", "Input": "rt", "Rescale": False, "ReplaceNa": "before"}],
        "rt",
        [0.125, -0.125, -0.375, 0.375],
    ),
    "Scale, missing as 0 after": (
        [{"Name": "Scale", "Input": "rt", "Rescale": False, "ReplaceNa": "after"}],
        "rt",
        [0, -0.25, 0, 0.25],
    ),
    "Threshold": ([{"Name": "Threshold", "Input": "gain", "Threshold": 10}], "gain", [10, 0, 0, 20]),
    "Threshold, zero reaches zero": ([{"Name": "Threshold", "Input": "gain", "Binarize": True}], "gain", [1, 0, 1, 1]),
    "Threshold, below": (
        [{"Name": "Threshold", "Input": "gain", "Threshold": 0, "Above": False}],
        "gain",
        [0, -20, 0, 0],
    ),
    "Threshold, unsigned": (
        [{"Name": "Threshold", "Input": "gain", "Threshold": -20, "Signed": False, "Binarize": True}],
        "gain",
        [0, 1, 0, 1],
    ),
    "Power": ([{"Name": "Power", "Input": "gain", "Value": 2, "Output": "g2"}], "g2", [100, 400, 0, 400]),
    "Product": ([{"Name": "Product", "Input": ["gain", "load"], "Output": "p"}], "p", [10, -40, 0, 20]),
    "Product, a row without one": (
        [{"Name": "Product", "Input": ["rt", "load"], "Output": "p"}],
        "p",
        [0.5, 0.5, 0, 0.75],
    ),
    "Sum": ([{"Name": "Sum", "Input": ["gain", "load"], "Output": "s"}], "s", [11, -18, 2, 21]),
    "Sum, weighted": (
        [{"Name": "Sum", "Input": ["gain", "load"], "Weights": [0.5, "-1/2"], "Output": "s"}],
        "s",
        [4.5, -11, -1, 9.5],
    ),
    "And": (
        [
            {"Name": "Factor", "Input": ["trial_type", "load"]},
            {"Name": "And", "Input": ["trial_type.go", "load.2"], "Output": "both"},
        ],
        "both",
        [0, 0, 1, 0],
    ),
    "Or": (
        [
            {"Name": "Factor", "Input": ["trial_type", "load"]},
            {"Name": "Or", "Input": ["trial_type.stop", "load.1"], "Output": "any"},
        ],
        "any",
        [1, 1, 0, 1],
    ),
    "Not": ([{"Name": "Not", "Input": "gain", "Output": "none"}], "none", [0, 0, 1, 0]),
    "Replace, names": (
        [
            {"Name": "Replace", "Input": "trial_type", "Replace": {"go": "rt", "stop": "rt"}},
            {"Name": "Factor", "Input": "trial_type"},
        ],
        "trial_type.rt",
        [1, 1, 1, 0],
    ),
    "Replace, as a list": (
        [
            {"Name": "Replace", "Input": "load", "Replace": [{"key": 2, "value": "high"}], "Attribute": "value"},
            {"Name": "Factor", "Input": "load"},
        ],
        "load.high",
        [0, 1, 1, 0],
    ),
    "Replace, text by numbers": (
        [{"Name": "Replace", "Input": "trial_type", "Replace": {"go": 2, "stop": -0.5}}],
        "trial_type",
        [2, -0.5, 2, 0],
    ),
    "Concatenate": (
        [
            {"Name": "Concatenate", "Input": ["trial_type", "load"], "Output": "cell"},
            {"Name": "Factor", "Input": "cell"},
        ],
        "cell.go_2",
        [0, 0, 1, 0],
    ),
    "Filter, numbers": ([{"Name": "Filter", "Input": "gain", "Query": "rt > 0.3"}], "gain", [10, 0, 0, 20]),
    "Filter, text": (
        [{"Name": "Filter", "Input": "gain", "Query": "trial_type == stop", "By": "trial_type", "Output": "g"}],
        "g",
        [0, -20, 0, 0],
    ),
    "Assign, amplitudes": (
        [{"Name": "Factor", "Input": "trial_type"}, {"Name": "Assign", "Input": "gain", "Target": "trial_type.go"}],
        "trial_type.go",
        [10, -20, 0, 20],
    ),
    "Select": ([{"Name": "Select", "Input": ["gain"]}], "gain", [10, -20, 0, 20]),
}


@pytest.mark.parametrize("case", ROWS)
def test_amplitudes_are_those_computed_by_hand(case):
    instructions, name, expected = ROWS[case]
    assert amplitudes(*instructions, name=name) == pytest.approx(expected, rel=1e-12)


def test_reaction_times_become_durations():
    """The copy of a condition whose events last as long as the reaction, as in half of OpenNeuro's models."""
    made = run(
        {"Name": "Copy", "Input": ["trial_type"], "Output": ["rt_reg"]},
        {"Name": "Replace", "Input": ["rt_reg"], "Replace": {"go": "rt", "stop": "rt"}, "Attribute": "value"},
        {"Name": "Factor", "Input": ["trial_type", "rt_reg"]},
        {"Name": "Filter", "Input": "rt_reg.rt", "Query": "rt > 0"},
        {"Name": "Assign", "Input": ["rt"], "Target": ["rt_reg.rt"], "TargetAttr": "duration"},
        {"Name": "Convolve", "Model": "glover", "Input": ["trial_type.*", "rt_reg.rt"]},
        x=("1", "trial_type.*", "rt_reg.rt", "trans_?"),
    )
    assert made.events.to_numpy().tolist() == [
        [0.0, 1.0, "trial_type.go"],
        [0.0, 0.5, "rt_reg.rt"],
        [5.0, 1.0, "trial_type.stop"],
        [5.0, 0.25, "rt_reg.rt"],
        [10.0, 2.0, "trial_type.go"],
    ]
    assert made.response == "glover"
    assert made.dense["trans_x"].tolist() == MOTION.tolist()
    assert made.names == ("trial_type.go", "trial_type.stop", "rt_reg.rt", "trans_x")


def test_events_that_would_be_modelled_and_have_no_duration_are_refused_with_their_line():
    with pytest.raises(TransformationError, match=r"line 4: the event of 'trial_type.go' has no onset or duration"):
        run(
            {"Name": "Factor", "Input": "trial_type"},
            {"Name": "Assign", "Input": "rt", "Target": "trial_type.go", "TargetAttr": "duration"},
            {"Name": "Convolve", "Input": "trial_type.go"},
            x=("trial_type.go",),
        )


def test_rows_without_a_value_are_named_in_a_warning():
    made = run({"Name": "Convolve", "Input": "rt"}, x=("rt",))
    assert made.warnings == (
        "1 of 4 rows have no value for 'rt' (n/a, or taken out by Filter) and are no events of it (line 4).",
    )
    assert made.events["modulation"].tolist() == [0.5, 0.25, 0.75]
    filtered = run(
        {"Name": "Filter", "Input": "rt", "Query": "rt > 0.3"}, {"Name": "Convolve", "Input": "rt"}, x=("rt",)
    )
    assert filtered.warnings == (
        "2 of 4 rows have no value for 'rt' (n/a, or taken out by Filter) and are no events of it (lines 3 and 4).",
    )


def test_a_level_that_a_run_lacks_is_a_regressor_without_events():
    made = run(
        {"Name": "Factor", "Input": "trial_type"},
        {"Name": "Convolve", "Input": ["trial_type.go", "trial_type.rare"]},
        x=("trial_type.go", "trial_type.rare"),
    )
    assert made.names == ("trial_type.go", "trial_type.rare")
    assert set(made.events["trial_type"]) == {"trial_type.go"}


@pytest.mark.parametrize(
    ("x", "response"),
    [
        (("gain", "load"), "spm"),
        (("gain", "gain_derivative", "load", "load_derivative"), "spm + derivative"),
        (("gain", "gain_derivative", "gain_dispersion"), "spm + derivative + dispersion"),
    ],
)
def test_a_response_has_the_columns_that_x_names(x, response):
    convolve = {"Name": "Convolve", "Input": ["gain", "load"], "Derivative": True, "Dispersion": True}
    assert run(convolve, x=x).response == response


def test_model_hrf_convolves_with_all_its_columns():
    made = run(x=("gain",), hrf=Hrf(variables=("gain",), model="glover + derivative"))
    assert made.response == "glover + derivative"
    assert made.events["modulation"].tolist() == [10, -20, 20]


CONVOLVE = {"Name": "Convolve", "Input": ["gain"]}
REFUSED = {
    "no such variable": ([{"Name": "Demean", "Input": "gian"}], "there is no variable 'gian'. Did you mean 'gain'"),
    "a glob of nothing": ([{"Name": "Demean", "Input": "loss*"}], "no variable matches 'loss*'"),
    "text": ([{"Name": "Demean", "Input": "trial_type"}], "'trial_type' is text ('go'), not numbers"),
    "levels of a confound": ([{"Name": "Factor", "Input": "trans_x"}], "'trans_x' is a confound"),
    "convolving a confound": ([{"Name": "Convolve", "Input": "trans_x"}], "is a confound with a value per volume"),
    "after Convolve": ([CONVOLVE, {"Name": "Demean", "Input": "gain"}], "Put Convolve last"),
    "twice": ([CONVOLVE, CONVOLVE], "Put Convolve last"),
    "two kinds": ([{"Name": "Sum", "Input": ["gain", "trans_x"], "Output": "s"}], "are events and a confound"),
    "no scale": ([{"Name": "Scale", "Input": "constant"}], "has one value only"),
    "by another column": (
        [{"Name": "Filter", "Input": "gain", "Query": "rt > 0.3", "By": "trial_type"}],
        "By names trial_type, and the query",
    ),
    "no query": ([{"Name": "Filter", "Input": "gain", "Query": "gain"}], "is not a comparison"),
    **{
        f"query {query}": (
            [{"Name": "Filter", "Input": "gain", "Query": query, "By": "trial_type"}],
            "is not a comparison",
        )
        for query in (
            "trial_type == 'go' or trial_type == 'stop'",
            "trial_type == 'go' and gain > 1",
            "trial_type == go or stop",
            "trial_type == go & gain > 1",
            "trial_type == go | gain > 1",
            "trial_type == 'go' 'stop'",
            "trial_type == ['go', 'stop']",
            "trial_type == ^st.*",
            "trial_type = go",
            "0.3 < rt < 0.8",
        )
    },
    "text compared": ([{"Name": "Filter", "Input": "gain", "Query": "trial_type > go"}], "whether text is larger"),
    "no finite power": ([{"Name": "Power", "Input": "gain", "Value": -1}], "is no finite number"),
    "dispersion alone": ([{"Name": "Convolve", "Input": "gain", "Dispersion": True}], "Dispersion without Derivative"),
    "not convolved": ([], "nothing convolves"),
    "an output too few": ([{"Name": "Demean", "Input": "[gl]*", "Output": "g"}], "1 outputs are named for 2 inputs"),
    "a weight too few": (
        [{"Name": "Sum", "Input": "[gl]*", "Weights": [1], "Output": "s"}],
        "1 weights for 2 inputs",
    ),
    "confounds joined": (
        [{"Name": "Concatenate", "Input": "trans_x", "Output": "s"}],
        "a confound, which has no levels",
    ),
    "durations of a confound": (
        [{"Name": "Assign", "Input": "trans_x", "Target": "gain", "TargetAttr": "duration"}],
        "'trans_x' is a confound, which has no events",
    ),
    "assigned after Convolve": (
        [CONVOLVE, {"Name": "Assign", "Input": "load", "Target": "gain", "TargetAttr": "duration"}],
        "'gain' is convolved before it. Put Convolve last",
    ),
    "different rows": (
        [
            {"Name": "Copy", "Input": "gain", "Output": "other"},
            {"Name": "Assign", "Input": "load", "Target": "other", "TargetAttr": "duration"},
            {"Name": "Sum", "Input": ["gain", "other"], "Output": "s"},
        ],
        "have different events",
    ),
    "two responses": (
        [CONVOLVE, {"Name": "Convolve", "Input": "load", "Model": "glover"}],
        "convolved with different responses (spm, glover)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_exactly_is_refused(case):
    instructions, sentence = REFUSED[case]
    x = ("gain", "load") if case == "two responses" else ("gain",)
    with pytest.raises(TransformationError) as refused:
        run(*instructions, x=x)
    assert sentence in str(refused.value)


def test_what_is_convolved_is_not_convolved_by_the_model_again():
    with pytest.raises(TransformationError, match="'gain' is convolved twice"):
        run(CONVOLVE, x=("gain",), hrf=Hrf(variables=("gain",), model="spm"))


def test_columns_of_a_response_are_all_there_or_none():
    convolve = {"Name": "Convolve", "Input": ["gain", "load"], "Derivative": True}
    with pytest.raises(TransformationError, match="'load_derivative' is missing"):
        run(convolve, x=("gain", "gain_derivative", "load"))


def test_rows_without_a_level_are_counted():
    factor, convolve = {"Name": "Factor", "Input": "trial_type"}, {"Name": "Convolve", "Input": "trial_type.go"}
    made = run(factor, convolve, x=("trial_type.go",))
    assert made.events.index.tolist() == [2, 4]
    assert made.warnings == (
        "1 of 4 rows have no value for 'trial_type' (n/a, or taken out by Filter) and are no events of any of its levels "
        "(line 5).",
    )

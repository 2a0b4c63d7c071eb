"""What a model means as options: levels, weights as written, sessions, covariates; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sessionfx.ask.covariates import code_covariates, resolve_group_contrasts
from sessionfx.errors import CommandLineError
from sessionfx.models.mapping import plan_model
from sessionfx.models.plan import Plan
from sessionfx.models.reader import parse_model
from sessionfx.options import FirstLevelModel
from sessionfx.report.methods import participant_methods


def run_node(**changes: Any) -> dict[str, Any]:
    design = {"Type": "glm", "X": [1, "trial_type.*", "trans_?"], **changes.pop("Model", {})}
    node = {
        "Level": "Run",
        "Name": "run",
        "GroupBy": ["run", "subject"],
        "Transformations": {
            "Transformer": "pybids-transforms-v1",
            "Instructions": [
                {"Name": "Factor", "Input": ["trial_type"]},
                {"Name": "Convolve", "Input": ["trial_type.*"]},
            ],
        },
        "Model": design,
        "Contrasts": [contrast("a_gt_b", {"trial_type.a": 1, "trial_type.b": -1})],
    }
    return node | changes


def contrast(name: str, weights: dict[Any, Any], test: str = "t") -> dict[str, Any]:
    return {"Name": name, "ConditionList": list(weights), "Weights": list(weights.values()), "Test": test}


def node(level: str, **changes: Any) -> dict[str, Any]:
    group_by = {
        "Session": ["session", "subject", "contrast"],
        "Subject": ["subject", "contrast"],
        "Dataset": ["contrast"],
    }
    design = {"Type": "glm", "X": [1], **changes.pop("Model", {})}
    made = {"Level": level, "Name": level.lower(), "GroupBy": group_by[level], "Model": design}
    return made | {"DummyContrasts": {"Test": "t"}} | changes


def planned(*nodes: dict[str, Any], choose: str | None = None, **more: Any) -> Plan:
    content = {"Name": "m", "BIDSModelVersion": "1.0.0", "Nodes": list(nodes), **more}
    return plan_model(parse_model(content, "m_smdl.json"), "m_smdl.json", choose)


def refusal(*nodes: dict[str, Any], **more: Any) -> str:
    with pytest.raises(CommandLineError) as refused:
        planned(*nodes, **more)
    return str(refused.value)


def test_a_model_of_three_levels_as_options():
    plan = planned(
        run_node(), node("Subject"), node("Dataset"), Input={"task": ["x"], "run": [1], "subject": ["sub-01"]}
    )
    assert plan.options == {
        "task": ("x",),
        "run_label": ("1",),
        "participant_label": ("01",),
        "hrf_model": "spm",
        "drift_model": "none",
        "confounds": ("trans_?",),
        "contrast": ("aGtB=trial_type.a - trial_type.b",),
        "fixed_effects": "equal",
        "session_contrast": ("mean",),
        "strategy": ("summary-statistics",),
        "variance": "pooled",
        "covariates": (),
        "group_contrast": ("intercept",),
    }
    assert plan.group_labels == ("aGtB",)


def test_weights_are_taken_as_written():
    """[1, 1] is a sum, [0.5, 0.5] an average, and fractions are exact."""
    contrasts = [contrast("sum", {"trial_type.a": 1, "trial_type.b": 1}),
                 contrast("third", {"trial_type.a": "1/3", "trial_type.b": 0.5})]  # fmt: skip
    found = planned(run_node(Contrasts=contrasts)).contrasts
    assert [dict(item.weights) for item in found] == [
        {"trial_type.a": 1.0, "trial_type.b": 1.0},
        {"trial_type.a": 1 / 3, "trial_type.b": 0.5},
    ]
    assert found[1].text == "third=0.3333333333333333*trial_type.a + 0.5*trial_type.b"


def test_weights_over_sessions_are_taken_as_written():
    factor = {"Transformer": "pybids-transforms-v1", "Instructions": [{"Name": "Factor", "Input": ["session"]}]}
    over = node("Subject", Transformations=factor, Model={"X": ["session.pre", "session.post"]})
    del over["DummyContrasts"]
    over["Contrasts"] = [contrast("change", {"session.post": 1, "session.pre": -1}),
                         contrast("total", {"session.post": 1, "session.pre": 1})]  # fmt: skip
    plan = planned(run_node(GroupBy=["run", "session", "subject"]), node("Session", Model={"Type": "META"}), over)
    assert plan.options["session_contrast"] == ("change=ses-post - ses-pre", "total=ses-post + ses-pre")


def test_a_weight_of_a_mean_makes_a_contrast_of_its_own():
    plan = planned(run_node(), node("Subject", Contrasts=[contrast("neg", {1: -2})]), node("Dataset"))
    assert [item.text for item in plan.contrasts] == [
        "aGtB=trial_type.a - trial_type.b",
        "aGtBNeg=-2.0*trial_type.a + 2.0*trial_type.b",
    ]
    assert plan.group_labels == ("aGtB", "aGtBNeg")


def test_sessions_stay_apart_where_every_node_groups_by_them():
    apart = ["subject", "contrast", "session"]
    plan = planned(run_node(GroupBy=["run", "session", "subject"]), node("Subject", GroupBy=apart),
                   node("Dataset", GroupBy=["contrast", "session"]))  # fmt: skip
    assert plan.options["session_contrast"] == ("each",)


def test_f_tests_of_a_run_end_there():
    rows = {"Name": "any", "ConditionList": ["trial_type.a", "trial_type.b"], "Weights": [[1, 0], [0, 1]], "Test": "F"}
    plan = planned(run_node(Contrasts=[rows, contrast("a", {"trial_type.a": 1})]), node("Subject"), node("Dataset"))
    assert plan.options["contrast"] == ("a=trial_type.a", "F:any = trial_type.a; trial_type.b")
    assert plan.group_labels == ("a",)


def test_an_edge_chooses_contrasts_and_a_node_the_path():
    contrasts = [contrast("a", {"trial_type.a": 1}), contrast("b", {"trial_type.b": 1})]
    edges = [{"Source": "run", "Destination": "dataset", "Filter": {"contrast": ["b"]}},
             {"Source": "run", "Destination": "subject"}]  # fmt: skip
    nodes = (run_node(Contrasts=contrasts), node("Subject"), node("Dataset"))
    assert "Choose its end with --model-node" in refusal(*nodes, Edges=edges)
    assert planned(*nodes, Edges=edges, choose="dataset").group_labels == ("b",)
    assert planned(*nodes, Edges=edges, choose="subject").group_labels == ("a", "b")


def test_f_tests_over_groups_are_those_of_the_strategy():
    levels = ["g.a", "g.b", "g.c"]
    rows = {"Name": "any group", "ConditionList": levels, "Weights": [[1, -1, 0], [0, 1, -1]], "Test": "F"}
    dataset = node("Dataset", Transformations=with_transformations({"Name": "Factor", "Input": "g"}), Model={"X": levels},
                   DummyContrasts={"Test": "t", "Contrasts": ["g.a"]}, Contrasts=[rows])  # fmt: skip
    (mean, f_test) = planned(run_node(), node("Subject"), dataset).options["group_contrast"]
    assert (mean, f_test) == ("`g[a]`", "F:anyGroup = `g[a]` - `g[b]`; `g[b]` - `g[c]`")
    participants = [f"{number:02d}" for number in range(9)]
    covariates = code_covariates(participants, {"g": list("abc" * 3)})
    (contrast,) = resolve_group_contrasts([f_test], covariates)
    assert contrast.tested == ((0.0, 1.0, -1.0), (0.0, 1.0, 2.0))


def with_transformations(*instructions: dict[str, Any]) -> dict[str, Any]:
    return {"Transformer": "pybids-transforms-v1", "Instructions": list(instructions)}


GROUPS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "a difference of levels": (
        node("Dataset", Transformations=with_transformations({"Name": "Factor", "Input": "sex"}),
             Model={"X": ["sex.M", "sex.F"]}, DummyContrasts={"Test": "t", "Contrasts": ["sex.F"]},
             Contrasts=[contrast("m_gt_f", {"sex.M": 1, "sex.F": -1})]),
        ("sex",), ("`sex[F]`", "mGtF=`sex[M]` - `sex[F]`"),
    ),
    "a centred covariate": (
        node("Dataset", Transformations=with_transformations({"Name": "Demean", "Input": "age", "Output": "age_dm"}),
             Model={"X": [1, "age_dm"]}, DummyContrasts={"Test": "t"}, Contrasts=[contrast("neg", {"age_dm": -1})]),
        ("age",), ("intercept", "age", "neg=-age"),
    ),
    "a covariate as it is": (
        node("Dataset", Model={"X": [1, "age"]}, DummyContrasts={"Test": "t", "Contrasts": ["age"]}), ("age",), ("age",),
    ),
    "the mean below zero": (
        node("Dataset", DummyContrasts={"Test": "t"}, Contrasts=[contrast("negative", {1: -1})]),
        (), ("intercept", "negative=-1.0*intercept"),
    ),
    "groups as bidspm has them": (
        node("Dataset", Model={"X": [1, "Group"]}, DummyContrasts={"Test": "t", "Contrasts": []},
             Contrasts=[contrast("d", {"Group.blind": 1, "Group.ctrl": -1})]),
        ("Group",), ("d=`Group[blind]` - `Group[ctrl]`",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GROUPS)
def test_group_models_as_options(case: str):
    dataset, covariates, contrasts = GROUPS[case]
    if case.startswith("groups as"):
        del dataset["DummyContrasts"]
    plan = planned(run_node(), node("Subject"), dataset)
    assert (plan.options["covariates"], plan.options["group_contrast"]) == (covariates, contrasts)
    assert plan.levels == ({"sex": ("M", "F")} if case == "a difference of levels" else {})


RUNS = [("sub-01_ses-1_run-1", {"sub": "01", "ses": "1", "run": "1"}), ("sub-01_ses-1_run-2", {"sub": "01", "ses": "1", "run": "2"}),
        ("sub-01_ses-2_run-1", {"sub": "01", "ses": "2", "run": "1"})]  # fmt: skip


@pytest.mark.parametrize(
    ("group_by", "nodes", "sentence"),
    [
        (["run", "subject"], (), "sub-01_ses-1_run-1, sub-01_ses-2_run-1 would stand in one model"),
        (["subject", "session"], (), "sub-01_ses-1_run-1, sub-01_ses-1_run-2 would stand in one model"),
        (["run", "subject", "session"], (node("Dataset"),), "would stand in one model"),
        (["run", "subject", "session"], (node("Subject"),), "2 runs of ses-1, 1 runs of ses-2"),
        (["run", "subject", "session"], (node("Session"), node("Dataset")), "would count as independent"),
        (["run", "subject", "session"], (node("Session"), node("Subject"), node("Dataset")), ""),
    ],
)
def test_runs_must_be_such_that_nodes_mean_what_is_done(
    group_by: list[str], nodes: tuple[dict[str, Any], ...], sentence: str
):
    recipe = planned(run_node(GroupBy=group_by), *nodes).recipe
    assert recipe is not None
    if not sentence:
        recipe.check_runs(RUNS)
        return
    with pytest.raises(CommandLineError) as refused:
        recipe.check_runs(RUNS)
    assert sentence in str(refused.value)


REFUSED: dict[str, tuple[tuple[dict[str, Any], ...], str]] = {
    "formula": ((run_node(Model={"Formula": "0 + a"}),), "node 'run', Model.Formula: formulas are not read"),
    "low-pass": ((run_node(Model={"Options": {"LowPassFilterCutoffHz": 0.1}}),), "Options.LowPassFilterCutoffHz"),
    "mask": ((run_node(Model={"Options": {"Mask": {"desc": ["GM"]}}}),), "Options.Mask: the mask is that of the brain"),
    "other program's design": ((run_node(Model={"Software": {"SPM": {"HRFderivatives": "Temporal"}}}),), "HRFderivatives changes the design"),
    "not in X": ((run_node(Contrasts=[contrast("c", {"go": 1})]),), "contrast 'c', ConditionList: 'go' is not in X"),
    "the constant": ((run_node(Contrasts=[contrast("c", {1: 1})]),), "the constant of a run"),
    "nothing comes out": ((run_node(Contrasts=[]),), "neither Contrasts nor DummyContrasts"),
    "every column": ((run_node(DummyContrasts={"Test": "t"}),), "DummyContrasts: without Contrasts it asks for every column"),
    "a response": ((run_node(Model={"HRF": {"Variables": ["trial_type.a"], "Model": "DoubleGamma"}}),), "'DoubleGamma' is no response here"),
    "no response": ((run_node(Transformations=None) | {"Transformations": with_transformations()},), "no variable is convolved"),
    "one name in files": ((run_node(Contrasts=[contrast("a_b", {"trial_type.a": 1}), contrast("a b", {"trial_type.b": 1})]),), "would be called 'aB' in file names"),
    "groups apart": ((run_node(), node("Dataset", GroupBy=["contrast", "sex"])), "'sex' would split the participants"),
    "meta of participants": ((run_node(), node("Dataset", Model={"Type": "meta"})), "participants are modelled with 'glm'"),
    "covariate at zero": ((run_node(), node("Dataset", Model={"X": [1, "age"]})), "Center the covariate with Demean"),
    "sum over levels": ((run_node(), node("Dataset", Transformations=with_transformations({"Name": "Factor", "Input": "g"}), Model={"X": ["g.a", "g.b"]}, Contrasts=[contrast("s", {"g.a": 1, "g.b": 1})])), "weights over levels sum to 2"),
    "levels with 1": ((run_node(), node("Dataset", Transformations=with_transformations({"Name": "Factor", "Input": "g"}), Model={"X": [1, "g.a"]})), "1 and levels of a factor"),
    "product of covariates": ((run_node(), node("Dataset", Transformations=with_transformations({"Name": "Product", "Input": ["a", "b"], "Output": "c"}))), "Product of participants' covariates"),
    "runs within a session": ((run_node(GroupBy=["run", "session", "subject"]), node("Session", Model={"X": ["runs1_2", "run3"]})), "at level Session X is [1], a mean"),
    "levels in another order": ((run_node(), node("Dataset"), node("Subject")), "not of levels Run, Session, Subject, Dataset in this order"),
    "said twice": (
        (run_node(Model={"HRF": {"Variables": ["trial_type.a"], "Model": "spm"}, "Software": {"SessionFX": {"DesignsFrom": "nodes", "Options": {"hrf_model": "glover"}}}}),),
        "'hrf_model' is said by the nodes too",
    ),
    "no run": ((node("Dataset"),), "there are 0 nodes of level Run"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exactly_expressible_is_refused(case: str):
    nodes, sentence = REFUSED[case]
    assert sentence in refusal(*nodes)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"task": ["a", "b"]}, "a, b are several, and a model is of one here"),
        ({"acquisition": ["x"]}, "Input 'acquisition': files are chosen here by"),
        ({"subject": ["?"]}, "'?' is not a BIDS label"),
    ],
)
def test_files_that_are_not_chosen_here_are_refused(chosen: dict[str, list[str]], sentence: str):
    assert sentence in refusal(run_node(), Input=chosen)


def test_edges_in_a_circle_are_refused():
    edges = [{"Source": "run", "Destination": "subject"}, {"Source": "subject", "Destination": "run"}]
    assert "they lead in a circle" in refusal(run_node(), node("Subject"), Edges=edges)


def test_the_methods_of_a_paper_name_the_model():
    model = FirstLevelModel(recipe=planned(run_node()).recipe)
    text = participant_methods(model, [()], has_sessions=False, preprocessing=()).as_text()
    assert (
        "Regressors were those of the BIDS Stats Model 'm', after its transformations of events and confounds." in text
    )

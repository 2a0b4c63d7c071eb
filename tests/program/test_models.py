"""Whole analyses from a model file: the maps of the same options typed, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from test_real_layouts import MNI, Layout, ds003, ds114

from program import BOTH, run_command, simulated
from real_layouts import derivatives, describe, preprocess, write_events
from sessionfx.cli import main

pytestmark = pytest.mark.slow

AXES = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
TYPED = (
    "--hrf-model", "spm", "--confounds", *AXES, "--strategy", "summary-statistics", "--variance", "pooled",
    "--group-contrast", "intercept",
)  # fmt: skip


def run_node(contrasts: dict[str, dict[str, float]], group_by: list[str], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "Level": "Run",
        "Name": "run",
        "GroupBy": group_by,
        "Transformations": {
            "Transformer": "pybids-transforms-v1",
            "Instructions": [
                {"Name": "Factor", "Input": ["trial_type"]},
                {"Name": "Convolve", "Input": "trial_type.*", "Model": "spm"},
            ],
        },
        "Model": {"Type": "glm", "X": [1, "trial_type.*", *AXES], "Options": options},
        "Contrasts": [
            {"Name": name, "ConditionList": list(weights), "Weights": list(weights.values()), "Test": "t"}
            for name, weights in contrasts.items()
        ],
    }


def mean_node(level: str, group_by: list[str], kind: str = "glm") -> dict[str, Any]:
    return {
        "Level": level,
        "Name": level.lower(),
        "GroupBy": group_by,
        "Model": {"Type": kind, "X": [1]},
        "DummyContrasts": {"Test": "t"},
    }


def write_model(path: Path, nodes: list[dict[str, Any]], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"Name": "model", "BIDSModelVersion": "1.0.0", "Nodes": nodes, **more}))
    return path


# a draft of FitLins' example of ds003 in today's words
DS003 = {
    "word_gt_pseudo": {"trial_type.word": 1, "trial_type.pseudoword": -1},
    "task_vs_baseline": {"trial_type.word": 0.5, "trial_type.pseudoword": 0.5},
}
DS114 = {"finger_gt_foot": {"trial_type.Finger": 1, "trial_type.Foot": -1}, "finger": {"trial_type.Finger": 1}}
CASES: dict[str, tuple[Callable[[Path], Layout], list[dict[str, Any]], dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "ds003": (
        ds003,
        [run_node(DS003, ["run", "subject"], {}), mean_node("Dataset", ["contrast"])],
        {"task": ["rhymejudgment"]},
        ("--bids-filter-file", "{root}/../aroma.json"),
        (
            "--task", "rhymejudgment", "--drift-model", "none", "--session-contrast", "mean",
            "--contrast", "wordGtPseudo=word - pseudoword", "--contrast", "taskVsBaseline=0.5*word + 0.5*pseudoword",
        ),
    ),
    "ds114": (
        ds114,
        [
            run_node(DS114, ["run", "session", "subject"], {"HighPassFilterCutoffHz": 0.008}),
            mean_node("Session", ["session", "subject", "contrast"], "Meta"),
            mean_node("Subject", ["subject", "contrast"]),
            mean_node("Dataset", ["contrast"]),
        ],
        {"task": ["fingerfootlips"], "session": ["test", "retest"]},
        (),
        (
            "--task", "fingerfootlips", "--session-label", "test", "retest", "--high-pass", "0.008",
            "--session-contrast", "mean", "--contrast", "fingerGtFoot=Finger - Foot", "--contrast", "finger=Finger",
        ),
    ),
    "ds114, each session": (
        ds114,
        [
            run_node(DS114, ["run", "session", "subject"], {}),
            mean_node("Subject", ["subject", "contrast", "session"]),
            mean_node("Dataset", ["contrast", "session"]),
        ],
        {"task": ["fingerfootlips"]},
        (),
        (
            "--task", "fingerfootlips", "--drift-model", "none", "--session-contrast", "ses-test",
            "--session-contrast", "ses-retest", "--contrast", "fingerGtFoot=Finger - Foot",
            "--contrast", "finger=Finger",
        ),
    ),
}  # fmt: skip


def write_study(root: Path, start: str, n_runs: int, columns: dict[str, list[str]]) -> Layout:
    """Write two participants of one task, whose events have these columns, in turn, and no `trial_type` of their own."""
    describe(root, "made")
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "20.2.7")
    for sub in ("01", "02"):
        for run in range(1, n_runs + 1):
            seed = 10 * int(sub) + run
            name = start.format(sub=sub, run=f"{run:02d}")
            evoked = write_events(root.parent / "evoked" / f"{seed}.tsv", ("a", "b"), seed=seed)
            table = pd.read_csv(evoked, sep="\t", dtype=str).drop(columns="trial_type")
            rng = np.random.default_rng(seed)
            for column, values in columns.items():
                table[column] = rng.permutation(np.resize(values, len(table)))
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(root / f"{name}_events.tsv", sep="\t", index=False)
            preprocess(
                prep, name, evoked, space=f"space-{MNI}", repetition_time=2.0, seed=seed, confounds_seed=100 + seed
            )
    return Layout(root, (), {}, (), {}, 2.0, root, root)


def narps(root: Path) -> Layout:
    """Gambles without conditions, whose gains and losses modulate the response."""
    gambles = {
        "gain": ["10", "12", "20", "38", "26"],
        "loss": ["5", "19", "7", "11"],
        "participant_response": ["accept"],
    }
    return write_study(root, "sub-{sub}/func/sub-{sub}_task-MGT_run-{run}", 2, gambles)


def ds030(root: Path) -> Layout:
    """Conditions in a column of outcomes."""
    outcomes = ["SuccessfulGo", "SuccessfulStop", "SuccessfulGo", "UnsuccessfulStop", "JUNK"]
    return write_study(root, "sub-{sub}/func/sub-{sub}_task-stopsignal", 1, {"TrialOutcome": outcomes})


def ds117(root: Path) -> Layout:
    """Runs of one session; kinds of faces that are taken together."""
    kinds = {"stim_type": ["FAMOUS", "UNFAMILIAR", "SCRAMBLED"], "trigger": ["5", "6"]}
    return write_study(root, "sub-{sub}/ses-mri/func/sub-{sub}_ses-mri_task-facerecognition_run-{run}", 3, kinds)


def instructed(node: dict[str, Any], instructions: list[dict[str, Any]], x: list[str]) -> dict[str, Any]:
    """Give a run node other transformations, and regressors of events."""
    convolve = {"Name": "Convolve", "Input": x, "Model": "spm"}
    node["Transformations"]["Instructions"] = [*instructions, convolve]
    node["Model"]["X"] = [1, *x, *AXES]
    return node


CASES["NARPS"] = (
    narps,
    [
        instructed(
            run_node({"gain": {"gain": 1}, "loss": {"loss": 1}}, ["run", "subject"], {}),
            [
                {"Name": "Power", "Input": ["gain"], "Value": 0, "Output": ["trial"]},
                {"Name": "Demean", "Input": ["gain", "loss"]},
            ],
            ["trial", "gain", "loss"],
        ),
        mean_node("Subject", ["subject", "contrast"]),
        mean_node("Dataset", ["contrast"]),
    ],
    {"task": ["MGT"]},
    (),
    (
        "--task", "MGT", "--drift-model", "none", "--modulator", "gain", "--modulator", "loss",
        "--contrast", "gain=dummy_x_gain", "--contrast", "loss=dummy_x_loss",
    ),
)  # fmt: skip
CASES["ds030"] = (
    ds030,
    [
        instructed(
            run_node(
                {"inhibited": {"TrialOutcome.SuccessfulStop": 1, "TrialOutcome.SuccessfulGo": -1}}, ["run", "subject"],
                {"HighPassFilterCutoffHz": 0.01},
            ),
            [{"Name": "Factor", "Input": ["TrialOutcome"]}],
            ["TrialOutcome.*"],
        ),
        mean_node("Dataset", ["contrast"]),
    ],
    {"task": ["stopsignal"]},
    (),
    (
        "--task", "stopsignal", "--condition-column", "TrialOutcome",
        "--contrast", "inhibited=SuccessfulStop - SuccessfulGo",
    ),
)  # fmt: skip
CASES["ds117"] = (
    ds117,
    [
        instructed(
            run_node({"faces": {"stim_type.face": 1, "stim_type.SCRAMBLED": -1}}, ["run", "session", "subject"], {}),
            [
                {"Name": "Replace", "Input": ["stim_type"], "Replace": {"FAMOUS": "face", "UNFAMILIAR": "face"}},
                {"Name": "Factor", "Input": ["stim_type"]},
            ],
            ["stim_type.*"],
        ),
        mean_node("Subject", ["subject", "contrast"]),
        mean_node("Dataset", ["contrast"]),
    ],
    {"task": ["facerecognition"]},
    (),
    (
        "--task", "facerecognition", "--drift-model", "none", "--session-contrast", "mean",
        "--condition-column", "stim_type", "--recode", "FAMOUS=face", "UNFAMILIAR=face",
        "--contrast", "faces=face - SCRAMBLED",
    ),
)  # fmt: skip
# columns of the design in another order give the same numbers but for rounding
ROUNDING = {"NARPS": 1e-9}


def maps_of(output: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(output)): np.asanyarray(nib.load(path).dataobj) for path in output.rglob("*statmap.nii.gz")
    }


@pytest.mark.parametrize("case", CASES)
def test_a_model_gives_the_maps_of_the_same_options_typed(case: str, tmp_path: Path) -> None:
    make, nodes, chosen, both, typed = CASES[case]
    root = make(tmp_path / "bids").root
    write_model(root / "models" / "model-main_smdl.json", nodes, Input=chosen)
    common = [option.format(root=root) for option in both] + ["--no-report", "--nprocs", "1"]
    from_model = run_command(root, tmp_path / "model", *BOTH, "--model", "main", *common)
    assert from_model.returncode == 0, from_model.stderr
    by_hand = run_command(root, tmp_path / "typed", *BOTH, *TYPED, *typed, *common)
    assert by_hand.returncode == 0, by_hand.stderr
    found, expected = maps_of(tmp_path / "model"), maps_of(tmp_path / "typed")
    assert found.keys() == expected.keys()
    assert found
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=ROUNDING.get(case, 0), atol=0, err_msg=name)


STROOP = {
    "incongruent": {"trial_type.incongruent": 1},
    "effect": {"trial_type.incongruent": 1, "trial_type.congruent": -1},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = simulated(tmp_path_factory.mktemp("models"), n_participants=3)
    nodes = [
        run_node(STROOP, ["run", "session", "subject"], {"HighPassFilterCutoffHz": 0.01}),
        mean_node("Subject", ["subject", "contrast"]),
        mean_node("Dataset", ["contrast"]),
    ]
    edges = [
        {"Source": "run", "Destination": "subject"},
        {"Source": "subject", "Destination": "dataset", "Filter": {"contrast": ["effect"]}},
    ]
    write_model(root / "models" / "stroop_smdl.json", nodes, Input={"task": ["stroop"]}, Edges=edges)
    return root


def test_the_group_takes_the_contrasts_that_an_edge_lets_through(dataset: Path, tmp_path: Path) -> None:
    assert main([str(dataset), str(tmp_path), *BOTH, "--model", "stroop", "--no-report", "--nprocs", "1"]) == 0
    names = list(maps_of(tmp_path))
    assert any("contrast-incongruent_" in name for name in names)
    assert {name.split("contrast-")[1].split("_")[0] for name in names if name.startswith("group/")} == {"effect"}


def test_a_level_that_the_model_does_not_list_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = json.loads((dataset / "models" / "stroop_smdl.json").read_text())
    of_group = model["Nodes"][-1]
    factor = {"Name": "Factor", "Input": ["group"]}
    of_group["Transformations"] = {"Transformer": "pybids-transforms-v1", "Instructions": [factor]}
    of_group["Model"]["X"] = ["group.morning", "group.night"]
    of_group["Contrasts"] = [
        {"Name": "morning", "ConditionList": ["group.morning"], "Weights": [1], "Test": "t"},
    ]
    of_group.pop("DummyContrasts", None)
    path = tmp_path / "groups_smdl.json"
    path.write_text(json.dumps(model))
    call = [str(dataset), str(tmp_path / "out"), *BOTH, "--model", str(path), "--no-report", "--nprocs", "1"]
    assert main(call) != 0
    said = capsys.readouterr().err
    assert (
        "lists 'group.morning' and 'group.night', and participants with maps are also 'evening' in 'group'"
        in " ".join(said.split())
    )


def test_the_dry_run_draws_the_model(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(dataset), str(tmp_path), *BOTH, "--model", "stroop", "--dry-run"]) == 0
    drawn = capsys.readouterr().out
    for line in (
        "Run 'run': glm of X = 1, trial_type.*,",
        "└ Dataset 'dataset': glm of X = 1; by contrast",
        "effect=trial_type.incongruent - trial_type.congruent",
        "--high-pass 0.01   (node 'run', Model.Options.HighPassFilterCutoffHz)",
        "Design of sub-01_ses-01_task-stroop_run-01: 8 columns of X",
        "trial_type.congruent: 11 events, convolved with spm",
    ):
        assert line in drawn
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--hrf-model", "glover"], "--hrf-model glover and --model"),
        (["--high-pass", "0.02"], "node 'run', Model.Options.HighPassFilterCutoffHz, means 0.01"),
        (["--task", "rest"], "--task 'rest' and --model"),
        (["--contrast", "congruent"], "has no contrast of this name"),
        (["--model-node", "nobody"], "has no such node"),
    ],
)
def test_options_that_contradict_the_model_are_refused_by_name(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main([str(dataset), str(tmp_path), *BOTH, "--model", "stroop", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset), str(tmp_path), *BOTH, "--model", "strop"]) == 2
    assert "The models are: stroop_smdl.json" in capsys.readouterr().err


def test_an_analysis_leaves_a_model_that_is_the_same_analysis(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typed: its file with --model finds everything finished, in either level, and leaves the same file."""
    common = [str(dataset), str(tmp_path), "--no-report", "--nprocs", "1"]
    typed = ["--contrast", "effect=incongruent - congruent", "--smoothing-fwhm", "6", "--session-contrast", "mean"]
    assert main([*common[:2], "participant", *common[2:], *typed]) == 0
    assert main([*common[:2], "group", *common[2:], *typed[4:], "--strategy", "marginal", "--alpha", "0.01"]) == 0
    (path,) = (tmp_path / "logs").glob("*smdl.json")
    written = path.read_text()
    assert json.loads(written)["Input"] == {"task": ["stroop"]}
    kept = tmp_path.parent / f"{tmp_path.name}_smdl.json"
    kept.write_text(written)
    capsys.readouterr()
    assert main([*common[:2], *BOTH, *common[2:], "--model", str(kept)]) == 0
    said = capsys.readouterr().err
    assert said.count("finished before, skipped") == 4
    assert path.read_text() == written


def test_an_analysis_from_a_model_leaves_that_model(dataset: Path, tmp_path: Path) -> None:
    assert main([str(dataset), str(tmp_path), *BOTH, "--model", "stroop", "--no-report", "--nprocs", "1"]) == 0
    (path,) = (tmp_path / "logs").glob("*smdl.json")
    kept = json.loads((dataset / "models" / "stroop_smdl.json").read_text())
    written = json.loads(path.read_text())
    assert [node["Name"] for node in written["Nodes"]] == [node["Name"] for node in kept["Nodes"]]
    assert written["Nodes"][0]["Contrasts"] == kept["Nodes"][0]["Contrasts"]


def test_a_page_drawn_anew_shows_the_events_of_the_model(dataset: Path, tmp_path: Path) -> None:
    call = [
        str(dataset),
        str(tmp_path),
        "participant",
        "--model",
        "stroop",
        "--nprocs",
        "1",
        "--participant-label",
        "01",
    ]
    assert main(call) == 0
    (drawn,) = tmp_path.glob("sub-*/figures/*_runs_section.json")
    before = drawn.read_bytes()
    drawn.unlink()
    assert main([*call, "--reports-only"]) == 0
    assert drawn.read_bytes() == before


def test_another_group_analysis_of_a_model_takes_the_place_of_its_nodes(dataset: Path, tmp_path: Path) -> None:
    """The record stays true: what was asked instead is in the options, and the model's group node is gone."""
    common = ["--no-report", "--nprocs", "1"]
    assert main([str(dataset), str(tmp_path), "participant", "--model", "stroop", *common]) == 0
    assert (
        main([str(dataset), str(tmp_path), "group", "--strategy", "marginal", "--session-contrast", "mean", *common])
        == 0
    )
    (path,) = (tmp_path / "logs").glob("*smdl.json")
    written = json.loads(path.read_text())
    assert [node["Name"] for node in written["Nodes"]] == ["run", "subject"]
    assert written["Nodes"][0]["Model"]["Software"]["SessionFX"]["Options"]["strategy"] == ["marginal"]


@pytest.mark.slow
@pytest.mark.parametrize("has_session_node", [False, True])
def test_an_average_over_runs_of_which_one_lacks_a_condition_is_refused_without_a_session_node(
    has_session_node: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = simulated(tmp_path, n_participants=1, n_sessions=2, n_runs=2, missing=())
    events = next(root.rglob("*ses-01*run-02_events.tsv"))
    table = pd.read_csv(events, sep="\t")
    table[table["trial_type"] == "congruent"].to_csv(events, sep="\t", index=False)
    nodes = [run_node(STROOP, ["run", "session", "subject"], {}), mean_node("Subject", ["subject", "contrast"])]
    nodes[1:1] = [mean_node("Session", ["session", "subject", "contrast"])] if has_session_node else []
    model = write_model(tmp_path / "model_smdl.json", nodes)
    options = ("--model", str(model), "--no-report", "--nprocs", "1")
    code = main([str(root), str(tmp_path / "out"), "participant", *options])
    said = capsys.readouterr().err
    if has_session_node:
        assert code == 0
        return
    assert code == 1
    assert "Contrast 'incongruent', without the runs that cannot have it (sub-01_ses-01_task-stroop_run-02): " in said
    assert "1 runs of ses-01, 2 runs of ses-02, and the average over runs is another than that over sessions" in said
    assert not list((tmp_path / "out" / "sub-01").rglob("*statmap.nii.gz"))

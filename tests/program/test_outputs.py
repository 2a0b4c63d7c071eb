"""The output folder: names, sidecars, masks, validity as BIDS."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from group_study import sidecar_of
from program import CONTRAST, run_command
from sessionfx.bids.names import (
    ENTITY_ORDER,
    LONG_NAMES,
    PYBIDS_CONFIG,
    STATISTICS,
    STATMAP_SUFFIX,
    comparable_label,
    file_name,
    parse_name,
)
from sessionfx.cli import main
from sessionfx.simulate import SimulationOptions, simulate_dataset

SPACE = "MNI152NLin2009cAsym"
LABEL = "incongruentMinusCongruent"
SESSION_CONTRASTS = ("mean", "ses02MinusSes01", "ses03MinusSes01", "ses03MinusSes02", "linear")


def load(path: Path) -> np.ndarray:
    return nib.load(path).get_fdata()


def path_of(output: Path, sub: str, stat: str, *, ses: str = "", sessions: str = "") -> Path:
    """A participant's map, of one session or of a session contrast."""
    start = f"sub-{sub}_ses-{ses}" if ses else f"sub-{sub}"
    asked = f"_sessions-{sessions}" if sessions else ""
    name = f"{start}_task-stroop_space-{SPACE}_contrast-{LABEL}{asked}_stat-{stat}_desc-fixedEffects_statmap.nii.gz"
    return output / f"sub-{sub}" / (f"ses-{ses}" if ses else "") / "func" / name


def group_map(output: Path, strategy: str, stat: str, sessions: str = "mean") -> np.ndarray:
    start = f"task-stroop_space-{SPACE}_contrast-{LABEL}_sessions-{sessions}"
    return load(output / "group" / f"{start}_strategy-{strategy}_stat-{stat}_statmap.nii.gz")


def analyse(*arguments: object) -> None:
    assert main([*map(str, arguments)]) == 0


def test_all_maps_of_the_contract_are_there_and_finite(small_output: Path) -> None:
    expected = []
    # degrees of freedom differ between voxels wherever runs or sessions are combined
    combined = (*STATISTICS, "dof")
    for participant in ("01", "02", "03"):
        sessions = ("01", "02") if participant == "02" else ("01", "02", "03")
        asked = [name for name in SESSION_CONTRASTS if participant != "02" or not name.startswith("ses03")]
        places = [*({"ses": session} for session in sessions), *({"sessions": name} for name in asked)]
        for place in places:
            paths = [path_of(small_output, participant, stat, **place) for stat in combined]
            expected += [str(path.relative_to(small_output)).removesuffix(".nii.gz") for path in paths]
    start = f"group/task-stroop_space-{SPACE}_contrast-{LABEL}"
    for question in SESSION_CONTRASTS:
        for strategy in ("sessionModel", "summaryStatistics", "marginal", "mixed"):
            # masks differ, so that participants and degrees of freedom do
            statistics = (*STATISTICS, "dof", "n")
            expected += [f"{start}_sessions-{question}_strategy-{strategy}_stat-{stat}_statmap" for stat in statistics]
    # two of the three participants have all sessions: too few for Hotelling's T² and for Greenhouse–Geisser's ε to count
    of_any = ("F", "z", "p", "dof", "n")
    expected += [f"{start}_sessions-any_strategy-sessionModel_stat-{stat}_statmap" for stat in of_any]
    expected += [f"{start}_stat-{stat}_desc-reliability_statmap" for stat in ("icc1", "icc31", "between", "within")]
    found = {
        str(path.relative_to(small_output)).removesuffix(".nii.gz") for path in small_output.rglob("*_statmap.nii.gz")
    }
    assert found == set(expected)
    for name in expected:
        assert np.isfinite(load(small_output / f"{name}.nii.gz")).all()
        assert (small_output / f"{name}.json").is_file()


def test_t_z_and_p_follow_from_effect_variance_and_dof(small_output: Path) -> None:
    from scipy import stats

    for effect_path in small_output.rglob("*_stat-effect_*statmap.nii.gz"):
        paths = {
            stat: effect_path.with_name(effect_path.name.replace("stat-effect", f"stat-{stat}")) for stat in STATISTICS
        }
        values = {stat: load(path) for stat, path in paths.items()}
        dof = sidecar_of(paths["t"])["DegreesOfFreedom"]
        mask = values["variance"] > 0
        dof_map = effect_path.with_name(effect_path.name.replace("stat-effect", "stat-dof"))
        if dof_map.exists():
            assert dof == pytest.approx(np.median(load(dof_map)[mask]), rel=1e-6)
            dof = load(dof_map)[mask]
        assert mask.any()
        t = values["effect"][mask] / np.sqrt(values["variance"][mask])
        np.testing.assert_allclose(values["t"][mask], t, rtol=1e-6)
        np.testing.assert_allclose(values["p"][mask], stats.t.sf(t, dof), rtol=1e-5, atol=1e-37)
        np.testing.assert_allclose(stats.norm.sf(values["z"][mask]), stats.t.sf(t, dof), rtol=1e-4, atol=1e-30)
        assert (values["p"][~mask] == 1).all()
        assert not any(values[stat][~mask].any() for stat in ("effect", "variance", "t", "z"))


def test_headers_say_which_statistic_a_map_holds(small_dataset: Path, small_output: Path, tmp_path: Path) -> None:
    # one number of degrees of freedom for all voxels
    options = ("--derivatives", small_output, "--min-coverage", 1, "--session-contrast", "mean", "--no-report")
    done = run_command(small_dataset, tmp_path, "group", *options, "--strategy", "summary-statistics")
    assert done.returncode == 0, done.stderr
    names = {"effect": "estimate", "variance": "estimate", "t": "t test", "F": "f test", "z": "z score", "p": "p value"}
    n_with_dof = 0
    for path in (*small_output.rglob("*_statmap.nii.gz"), *tmp_path.rglob("*_statmap.nii.gz")):
        sidecar = sidecar_of(path)
        expected = ()
        if sidecar["StatisticType"] in ("t", "F"):
            fields = [name for name in ("DegreesOfFreedomNumerator", "DegreesOfFreedom") if name in sidecar]
            differ = "DegreesOfFreedomAre" in sidecar
            expected = tuple(0.0 if differ else np.float32(sidecar[name]) for name in fields)
            n_with_dof += not differ
        name, parameters, _ = nib.load(path).header.get_intent()
        assert (name, parameters) == (names.get(sidecar["StatisticType"], "none"), expected), path
    assert n_with_dof


def test_pybids_finds_maps_by_their_entities_and_gives_each_its_own_metadata(
    small_dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    analyse(
        small_dataset, output, "participant", "group", "--contrast", CONTRAST, "--keep-run-maps", "--covariates", "age",
        "--group-contrast", "intercept", "--group-contrast", "age", "--session-contrast", "mean", "--session-contrast", "ses-02 - ses-01",
        "--strategy", "mixed", "summary-statistics", "--permutations", "10", "--equivalence", "0.1", "--no-report",
    )  # fmt: skip
    guide = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    (lines,) = re.findall("```python\n(from bids .*?)```", guide, re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines.replace("OUTPUT_DIR", str(output)), found)  # noqa: S102 - what we tell users to run
    layout = found["layout"]
    maps = {Path(file.path): file for file in layout.get(suffix=["statmap", "mask"], extension=".nii.gz")}
    assert any("desc-voxelFWE" in path.name for path in maps)
    assert set(maps) == {*output.rglob("*_statmap.nii.gz"), *output.rglob("*_mask.nii.gz")}
    long_names = {**LONG_NAMES, "sub": "subject", "sessions": "sessionContrast"}
    for path, file in maps.items():
        # pybids knows no null
        assert file.get_metadata() == {name: value for name, value in sidecar_of(path).items() if value is not None}
        parsed = parse_name(path.name)
        assert parsed is not None
        for key, label in parsed.entities.items():
            found_label = str(file.entities[long_names.get(key, key)])
            assert comparable_label(key, found_label) == comparable_label(key, label)
    asked = {"contrast": LABEL, "sessionContrast": "mean", "strategy": "mixed", "extension": ".nii.gz", "desc": None}
    (z,) = layout.get(**asked, stat="z", covariate=None)
    assert (
        Path(z.path).name
        == f"task-stroop_space-{SPACE}_contrast-{LABEL}_sessions-mean_strategy-mixed_stat-z_statmap.nii.gz"
    )
    assert layout.get_sessions() == ["01", "02", "03"]


def test_pybids_knows_every_entity_of_a_name() -> None:
    from bids.layout.models import Config

    configs = [Config.load(config) for config in ("bids", "derivatives", str(PYBIDS_CONFIG))]
    patterns = [entity.pattern for config in configs for entity in config.entities.values()]
    values = {"hemi": "L", "part": "mag", "mt": "on"}
    entities = {key: values.get(key, str(index + 1)) for index, key in enumerate(ENTITY_ORDER)}
    path = f"/out/{file_name(entities, STATMAP_SUFFIX, '.nii.gz')}"
    matches = [match for pattern in patterns for match in re.finditer(pattern, path)]
    missed = [key for key, label in entities.items() if not any(
        match[0].lstrip("_/") == f"{key}-{label}" for match in matches)]  # fmt: skip
    assert missed == []


def test_combined_map_covers_exactly_the_voxels_all_sessions_have(small_output: Path) -> None:
    sessions = [load(path_of(small_output, "01", "variance", ses=ses)) > 0 for ses in ("01", "02", "03")]
    assert any((sessions[0] != other).any() for other in sessions[1:]), "the sessions' masks differ in this dataset"
    mean = load(path_of(small_output, "01", "variance", sessions="mean")) > 0
    np.testing.assert_array_equal(mean, np.logical_and.reduce(sessions))


def test_difference_is_recomputed_from_session_files_to_the_last_bit(small_output: Path) -> None:
    first, last = (
        {stat: load(path_of(small_output, "03", stat, ses=ses)) for stat in ("effect", "variance")}
        for ses in ("01", "03")
    )
    effect, variance = (
        load(path_of(small_output, "03", stat, sessions="ses03MinusSes01")) for stat in ("effect", "variance")
    )
    mask = variance > 0
    np.testing.assert_array_equal(effect[mask], (last["effect"] - first["effect"])[mask])
    np.testing.assert_array_equal(variance[mask], (last["variance"] + first["variance"])[mask])


def test_sidecars_name_sources_weights_and_degrees_of_freedom(small_dataset: Path, small_output: Path) -> None:
    sidecar = sidecar_of(path_of(small_output, "02", "z", sessions="linear"))
    # sub-02 misses the last session: the slope is over the two it has
    assert sidecar["SessionWeights"] == {"ses-01": -1.0, "ses-02": 1.0}
    assert sidecar["NumberOfInputs"] == 2
    assert sidecar["DegreesOfFreedomMethod"] == "Satterthwaite"
    assert sidecar["DegreesOfFreedomAre"].startswith("median over voxels")
    assert max(sidecar["InputDegreesOfFreedom"]) < sidecar["DegreesOfFreedom"] < sum(sidecar["InputDegreesOfFreedom"])
    assert sidecar["ContrastWeights"] == {"incongruent": 1.0, "congruent": -1.0}
    links = json.loads((small_output / "dataset_description.json").read_text())["DatasetLinks"]
    session = sidecar_of(path_of(small_output, "01", "t", ses="01"))
    for uri in [*sidecar["Sources"], *session["Sources"]]:
        scheme, dataset, path = uri.split(":", 2)
        root = small_output if dataset == "" else Path(links[dataset].removeprefix("file://"))
        assert scheme == "bids"
        assert (root / path).is_file(), uri


def test_designs_are_saved_one_per_run_with_real_columns(small_output: Path) -> None:
    paths = sorted(small_output.glob("sub-*/ses-*/func/*_design.tsv"))
    assert len(paths) == (3 + 2 + 3) * 2
    for path in paths:
        design, facts = pd.read_csv(path, sep="\t"), json.loads(path.with_suffix(".json").read_text())
        assert len(design) == facts["NumberOfVolumes"] == 60
        assert facts["ConditionColumns"] == ["congruent", "incongruent"] == list(design.columns[:2])
        assert {"trans_x", "rot_z", "non_steady_state_outlier00", "constant"} <= set(design.columns)


def test_metrics_have_a_row_per_pair_and_a_row_per_answer(small_output: Path) -> None:
    start = f"task-stroop_space-{SPACE}_contrast-{LABEL}_sessions-mean"
    agreement = pd.read_csv(small_output / "group" / f"{start}_desc-agreement_metrics.tsv", sep="\t")
    assert agreement[["strategy_a", "strategy_b", "status"]].to_numpy().tolist() == [
        [a, b, "compared"] for a, b in combinations(["session-model", "summary-statistics", "marginal", "mixed"], 2)
    ]
    a, b = (group_map(small_output, strategy, "z") for strategy in ("sessionModel", "summaryStatistics"))
    mask = group_map(small_output, "summaryStatistics", "variance") > 0
    row = agreement.iloc[0]
    assert row["pearson_r"] == pytest.approx(np.corrcoef(a[mask], b[mask])[0, 1], abs=1e-6)
    assert row["bias"] == pytest.approx((a - b)[mask].mean(), abs=1e-6)
    assert row["max_abs_difference"] == pytest.approx(np.abs(a - b)[mask].max(), abs=1e-5)
    answers = pd.read_csv(small_output / "group" / f"{start}_desc-answers_metrics.tsv", sep="\t")
    assert answers["strategy"].tolist() == ["session-model", "summary-statistics", "marginal", "mixed"]
    assert answers["dof"].tolist()[:2] == [8 - 3, 3 - 1]


def test_group_fixed_effects_equals_the_participants_maps(small_output: Path) -> None:
    """One-sample model on the participant level's own combined maps."""
    maps = [load(path_of(small_output, sub, "effect", sessions="mean")) for sub in ("01", "02", "03")]
    group, variance = (group_map(small_output, "summaryStatistics", stat) for stat in ("effect", "variance"))
    mask = (variance > 0) & np.all([values != 0 for values in maps], axis=0)
    assert mask.sum() > 0.5 * (variance > 0).sum()
    np.testing.assert_allclose(group[mask], np.mean(maps, axis=0)[mask], rtol=1e-10, atol=1e-12)


def test_raw_dataset_and_output_validate_as_bids(tmp_path: Path) -> None:
    options = SimulationOptions(n_participants=2, n_sessions=2, n_runs=1, n_volumes=40, voxel_size=14.0, missing=())
    dataset = simulate_dataset(tmp_path / "bids", options)
    output = tmp_path / "out"
    analyse(dataset, output, "participant", "group", "--contrast", CONTRAST, "--keep-run-maps")
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or "bids-validator-deno"
    for folder in (dataset, output):
        checked = subprocess.run([validator, "--ignoreWarnings", str(folder)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_run_maps_are_kept_on_request_and_average_to_the_session(small_dataset: Path, tmp_path: Path) -> None:
    analyse(
        small_dataset, tmp_path / "out", "participant", "--participant-label", "01", "--contrast", CONTRAST, "--keep-run-maps",
        "--no-report", "--fixed-effects", "precision",
    )  # fmt: skip
    folder = tmp_path / "out" / "sub-01" / "ses-01" / "func"
    start = "sub-01_ses-01_task-stroop"
    end = f"space-{SPACE}_contrast-{LABEL}_stat-{{}}_statmap.nii.gz"
    runs = [
        {stat: load(folder / f"{start}_run-{run}_{end.format(stat)}") for stat in ("effect", "variance")}
        for run in ("01", "02")
    ]
    session = load(folder / f"{start}_space-{SPACE}_contrast-{LABEL}_stat-effect_desc-fixedEffects_statmap.nii.gz")
    mask = (runs[0]["variance"] > 0) & (runs[1]["variance"] > 0)
    weights = [1 / run["variance"][mask] for run in runs]
    expected = sum(w * run["effect"][mask] for w, run in zip(weights, runs, strict=True)) / sum(weights)
    np.testing.assert_allclose(session[mask], expected, rtol=1e-10)


def test_dataset_without_sessions_combines_runs_and_names_no_session(tmp_path: Path) -> None:
    options = SimulationOptions(
        n_participants=3, n_sessions=1, n_runs=2, n_volumes=40, voxel_size=14.0, missing=(), sessions_in_names=False,
        write_raw_bold=False,
    )  # fmt: skip
    dataset, output = simulate_dataset(tmp_path / "bids", options), tmp_path / "out"
    analyse(dataset, output, "participant", "group", "--contrast", CONTRAST)
    names = [path.name for path in output.rglob("*_statmap.nii.gz")]
    assert not [name for name in names if "ses-" in name or "sessions-" in name]
    assert f"sub-01_task-stroop_space-{SPACE}_contrast-{LABEL}_stat-t_desc-fixedEffects_statmap.nii.gz" in names
    assert f"task-stroop_space-{SPACE}_contrast-{LABEL}_strategy-summaryStatistics_stat-t_statmap.nii.gz" in names


def test_group_reads_maps_of_other_programs_that_lack_entities(
    small_output: Path, small_dataset: Path, tmp_path: Path
) -> None:
    """FitLins names neither task nor space and writes no sidecars; nilearn writes no desc."""
    foreign = tmp_path / "fitlins"
    for participant in ("01", "03"):
        for session in ("01", "02", "03"):
            folder = foreign / "node-sessionLevel" / f"sub-{participant}" / f"ses-{session}"
            folder.mkdir(parents=True)
            source = small_output / f"sub-{participant}/ses-{session}/func"
            for stat in ("effect", "variance"):
                (found,) = source.glob(f"*_stat-{stat}_desc-fixedEffects_statmap.nii.gz")
                shutil.copy(
                    found, folder / f"sub-{participant}_ses-{session}_contrast-{LABEL}_stat-{stat}_statmap.nii.gz"
                )
    (foreign / "dataset_description.json").write_text('{"Name": "FitLins", "BIDSVersion": "1.1.0"}')
    output = tmp_path / "out"
    analyse(small_dataset, output, "group", "-d", foreign, "--task", "stroop", "--space", SPACE, "--no-report")
    analyse(
        small_dataset, tmp_path / "own", "group", "-d", small_output, "--participant-label", "01", "03", "--no-report"
    )
    name = f"group/task-stroop_space-{SPACE}_contrast-{LABEL}_sessions-linear_strategy-summaryStatistics_stat-t_statmap.nii.gz"
    np.testing.assert_array_equal(load(output / name), load(tmp_path / "own" / name))


def test_condition_absent_from_a_run_leaves_that_run_out_and_says_so(small_dataset: Path, tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(small_dataset, tmp_path / "bids"))
    events = dataset / "sub-01/ses-01/func/sub-01_ses-01_task-stroop_run-01_events.tsv"
    table = pd.read_csv(events, sep="\t", keep_default_na=False)
    table[table["trial_type"] == "congruent"].to_csv(events, sep="\t", index=False)
    output = tmp_path / "out"
    analyse(dataset, output, "participant", "--participant-label", "01", "--contrast", CONTRAST, "--no-report")
    sidecar = json.loads(next((output / "sub-01/ses-01/func").glob("*_stat-effect_*.json")).read_text())
    assert sidecar["NumberOfInputs"] == 1
    assert sidecar["LeftOutInputs"] == {
        "sub-01_ses-01_task-stroop_run-01": "condition incongruent does not occur in it"
    }
    log = next((output / "logs").glob("sub-01_*_log.txt")).read_text()
    assert "sub-01_ses-01_task-stroop_run-01 is left out of contrast 'incongruentMinusCongruent'" in log


def test_folder_of_another_program_is_left_alone(small_dataset: Path, tmp_path: Path) -> None:
    description = tmp_path / "out" / "dataset_description.json"
    description.parent.mkdir()
    description.write_text('{"Name": "x", "BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "MRIQC"}]}')
    before = description.read_bytes()
    done = run_command(small_dataset, tmp_path / "out", "participant", "--contrast", CONTRAST, "--no-report")
    assert done.returncode == 73
    assert "MRIQC" in done.stderr
    assert description.read_bytes() == before

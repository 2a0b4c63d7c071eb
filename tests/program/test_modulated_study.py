"""Modulators, conditions from columns, recodes and filters in whole calls of the program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from program import analyse, simulated
from sessionfx.cli import main

START = "sub-01_ses-01_task-stroop"
SLOPE = "incongruent_x_response_time"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("modulated"), n_runs=2)


def participant(dataset: Path, output: Path, contrast: str, *options: str, report: bool = False) -> int:
    more = ("--participant-label", "01", "--confounds", "none", *options)
    return analyse(dataset, output, *more, levels=("participant",), contrast=contrast, report=report)


def maps(output: Path) -> dict[str, np.ndarray]:
    return {path.name: nib.load(path).get_fdata() for path in output.rglob("sub-*/**/*_statmap.nii.gz")}


def log(output: Path) -> str:
    return next((output / "logs").glob("sub-01_*_log.txt")).read_text()


def facts(output: Path, run: str = "01") -> dict[str, object]:
    return json.loads(next(output.rglob(f"{START}_run-{run}_*design.json")).read_text())


def test_a_modulated_column_is_a_contrast_like_any_other(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    difference = f"{SLOPE} - congruent_x_response_time"
    assert participant(dataset, output, difference, "--contrast", SLOPE, "--modulator", "response_time") == 0
    columns = ["congruent", "congruent_x_response_time", "incongruent", SLOPE]
    assert facts(output)["ConditionColumns"] == columns
    assert facts(output)["ModelParameters"]["Modulators"] == ["response_time"]
    units = {json.loads(path.read_text())["Units"] for path in output.rglob("sub-*/**/*_stat-effect_*statmap.json")}
    assert units == {"percent signal change per unit of 'response_time'"}
    assert {name.split("_contrast-")[1].split("_")[0] for name in maps(output)} == {
        "incongruentXResponseTime", "incongruentXResponseTimeMinusCongruentXResponseTime",
    }  # fmt: skip


def test_pages_drawn_anew_show_the_same_events(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--modulator", "incongruent: response_time", "--event-filter", "response_time < 1.2")
    assert participant(dataset, output, SLOPE, *options, report=True) == 0
    page = (output / "sub-01.html").read_text()
    assert participant(dataset, output, SLOPE, *options, "--reports-only", report=True) == 0
    assert (output / "sub-01.html").read_text() == page
    assert "parametric modulators were" in page


def test_another_centring_or_modulator_makes_maps_anew(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    found = []
    for options in (("--modulator-centering", "run"), ("--modulator-centering", "none"), ("--recode", "congruent=")):
        assert participant(dataset, output, "incongruent", "--modulator", "response_time", *options) == 0
        found.append(next(values for name, values in maps(output).items() if "_stat-effect_" in name))
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_a_run_with_a_constant_modulator_is_left_out_of_its_contrast_alone(tmp_path: Path) -> None:
    dataset, output = simulated(tmp_path, n_runs=2, n_participants=1), tmp_path / "out"
    path = next(dataset.rglob(f"{START}_run-01_events.tsv"))
    events = pd.read_csv(path, sep="\t")
    events.loc[events["trial_type"] == "incongruent", "response_time"] = 0.5
    events.to_csv(path, sep="\t", index=False)
    options = ("--modulator", "response_time", "--contrast", "incongruent")
    assert participant(dataset, output, SLOPE, *options) == 0
    n_events = (events["trial_type"] == "incongruent").sum()
    why = f"its {n_events} events of 'incongruent' have the same response_time (0.5)"
    assert facts(output)["LeftOutContrasts"] == {"incongruentXResponseTime": why}
    assert f"{START}_run-01 is left out of contrast 'incongruentXResponseTime': {why}." in log(output)
    sidecars = {path.name: json.loads(path.read_text()) for path in output.rglob(f"{START}_*_stat-effect_*.json")}
    inputs = {
        name.split("_contrast-")[1].split("_")[0]: sidecar["NumberOfInputs"] for name, sidecar in sidecars.items()
    }
    assert inputs == {"incongruentXResponseTime": 1, "incongruent": 2}


def test_conditions_from_another_column_give_the_same_maps(dataset: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dataset, tmp_path / "bids"))
    for path in other.rglob("*_events.tsv"):
        table = pd.read_csv(path, sep="\t").rename(columns={"trial_type": "kind"})
        table.assign(block="a").to_csv(path, sep="\t", index=False)
    expected, found = tmp_path / "expected", tmp_path / "found"
    assert participant(dataset, expected, "x=incongruent - congruent") == 0
    options = ("--condition-column", "kind", "block", "--recode", "incongruent.a=stroop")
    assert participant(other, found, "x=stroop - congruent.a", *options) == 0
    assert maps(found).keys() == maps(expected).keys()
    for name, values in maps(expected).items():
        np.testing.assert_array_equal(maps(found)[name], values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--recode", "congruant=easy"),
            "--recode 'congruant=easy': no run has the condition 'congruant'. Did you mean",
        ),
        (("--modulator", "eror: response_time"), "--modulator 'eror: response_time': no run has the condition 'eror'."),
    ],
)
def test_conditions_that_no_run_of_the_study_has_are_refused(
    options: tuple[str, ...], words: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert participant(dataset, tmp_path / "out", "incongruent", *options) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "The conditions are: congruent, incongruent." in said


def test_a_participant_who_lacks_a_condition_that_others_have_is_analysed(tmp_path: Path) -> None:
    dataset, output = simulated(tmp_path), tmp_path / "out"
    for path in dataset.rglob("sub-02_*_events.tsv"):
        table = pd.read_csv(path, sep="\t")
        table.loc[[0, 3, 6], "trial_type"] = "error"
        table.to_csv(path, sep="\t", index=False)
    options = ("--modulator", "error: response_time", "--recode", "error=error")
    assert participant(dataset, output, "incongruent", *options) == 0
    assert "'error_x_response_time' is not modelled: it has fewer than two events of 'error'" in log(output)


def test_without_contrasts_the_modulated_columns_are_asked_about_too(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--participant-label", "01", "--modulator", "incongruent: response_time", "--nprocs", "1", "--no-report")
    assert main([str(dataset), str(tmp_path / "out"), "participant", *more]) == 0
    assert f"and the modulated column {SLOPE}." in " ".join(capsys.readouterr().err.split())
    assert {name.split("_contrast-")[1].split("_")[0] for name in maps(tmp_path / "out")} == {
        "congruent", "incongruent", "incongruentMinusCongruent", "incongruentXResponseTime",
    }  # fmt: skip


def test_the_true_effect_of_a_simulated_modulator_is_estimated_in_its_region_alone(tmp_path: Path) -> None:
    quiet = {"n_participants": 1, "n_volumes": 120, "noise_sd": 0.05, "voxel_size": 12.0}
    dataset, output = simulated(tmp_path, modulator=3.0, **quiet), tmp_path / "out"
    contrast = f"responseTime=0.5*congruent_x_response_time + 0.5*{SLOPE}"
    assert participant(dataset, output, contrast, "--modulator", "response_time", "--confounds", "scrub") == 0
    truth = dataset / "derivatives" / "truth"
    region = nib.load(next(truth.glob("*_desc-taskOnly_mask.nii.gz"))).get_fdata() > 0
    effects = pd.read_csv(truth / "effects.tsv", sep="\t").set_index("session_id")["responseTime"]
    for session in ("01", "02"):
        start = f"sub-01_ses-{session}_*_contrast-responseTime"
        effect, variance = (
            nib.load(next(output.rglob(f"{start}_stat-{name}_*_statmap.nii.gz"))).get_fdata()
            for name in ("effect", "variance")
        )
        inside = variance > 0
        error = np.sqrt(variance[region & inside].mean() / (region & inside).sum())
        assert abs(effect[region & inside].mean() - effects[f"ses-{session}"]) < 4 * error < 0.3
        z = effect[~region & inside] / np.sqrt(variance[~region & inside])
        assert abs(z.mean()) < 0.3
        assert np.quantile(np.abs(z), 0.95) < 3

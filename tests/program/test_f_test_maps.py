"""F tests at the participant level: the program from the command line to maps, sidecars and pages."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from pages import parse, text_of
from program import analyse, simulated

F_TEST = "F:task = congruent; incongruent"
PARTICIPANT = ("participant",)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("f-tests"), n_participants=1, n_sessions=2, n_runs=2)


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("f-tests-out") / "out"
    assert analyse(dataset, output, "--contrast", F_TEST, "--keep-run-maps", levels=PARTICIPANT, report=True) == 0
    return output


def load(output: Path, pattern: str) -> tuple[NDArray[np.float64], nib.Nifti1Header]:
    (path,) = output.glob(f"sub-01/**/*{pattern}*_statmap.nii.gz")
    image = nib.load(path)
    return image.get_fdata(), image.header


def test_every_level_has_f_p_z_effects_and_covariance(output: Path) -> None:
    for place in ("ses-01_task-stroop_run-01_space-*", "ses-02_task-stroop_space-*", "sub-01_task-stroop_space-*"):
        level = "contrast-task_stat-" if "ses" in place else "contrast-task_sessions-mean_stat-"
        for statistic in ("F", "z", "p", "effects", "covariance"):
            values, header = load(output, f"{place}{level}{statistic}")
            if statistic == "F":
                assert header.get_intent()[0] == "f test"
            assert values.shape[3:] == {"effects": (2,), "covariance": (3,)}.get(statistic, ())
    assert not list(output.glob("sub-01/**/*contrast-task_*stat-effect_*"))
    assert not list(output.glob("sub-01/**/*contrast-task_*stat-t_*"))


def test_f_of_a_run_has_its_degrees_of_freedom_in_header_and_sidecar(output: Path) -> None:
    _, header = load(output, "ses-01_*run-01_*contrast-task_stat-F")
    (path,) = output.glob("sub-01/ses-01/func/*run-01_*contrast-task_stat-F_statmap.json")
    sidecar = json.loads(path.read_text())
    dof = sidecar["DegreesOfFreedom"]
    assert header.get_intent() == ("f test", (2.0, dof), "")
    assert sidecar["DegreesOfFreedomNumerator"] == 2.0
    assert sidecar["RowsContrast"] == ["congruent", "incongruent"]
    assert sidecar["ContrastWeights"] == [{"congruent": 1.0}, {"incongruent": 1.0}]
    assert sidecar["CovarianceVolumes"] == [
        "variance of congruent", "covariance of congruent and incongruent", "variance of incongruent",
    ]  # fmt: skip


def test_f_over_sessions_is_the_wald_test_of_the_rows_maps(output: Path) -> None:
    """Of the maps on disk: rows' effects and variances, covariances of runs summed with the squares of their weights."""
    runs = [
        load(output, f"ses-{session}_*run-{run:02d}_*contrast-task_stat-covariance")[0]
        for session in ("01", "02") for run in (1, 2)
    ]  # fmt: skip
    covariance = np.sum(runs, axis=0) / 16
    mask = load(output, "task-stroop_*contrast-task_sessions-mean_stat-F")[0] != 0
    rows = ("congruent", "incongruent")
    effects = np.stack([load(output, f"contrast-{row}_sessions-mean_stat-effect")[0][mask] for row in rows])
    for row, volume in zip(rows, (0, 2), strict=True):
        variance = load(output, f"contrast-{row}_sessions-mean_stat-variance")[0]
        np.testing.assert_allclose(covariance[mask][:, volume], variance[mask], rtol=1e-12)
    a, b, c = covariance[mask].T
    (x, y) = effects
    f = (c * x**2 - 2 * b * x * y + a * y**2) / (a * c - b**2) / 2
    found = load(output, "contrast-task_sessions-mean_stat-F")[0][mask]
    np.testing.assert_allclose(found, f, rtol=1e-6)  # single precision


def test_other_maps_do_not_change_by_a_bit(dataset: Path, output: Path, tmp_path: Path) -> None:
    assert analyse(dataset, tmp_path / "out", "--keep-run-maps", levels=PARTICIPANT) == 0
    alone = sorted((tmp_path / "out").glob("sub-01/**/*_statmap.nii.gz"))
    assert alone
    for path in alone:
        assert path.read_bytes() == (output / path.relative_to(tmp_path / "out")).read_bytes()


def test_a_later_call_reads_sessions_back_and_combines_them(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def ask(folder: str, *session_contrasts: str) -> None:
        options = [word for asked in session_contrasts for word in ("--session-contrast", asked)]
        assert analyse(dataset, tmp_path / folder, *options, levels=PARTICIPANT, contrast=F_TEST) == 0

    ask("steps", "mean")
    fitted = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").glob("sub-01/ses-*/func/*")}
    ask("steps", "mean", "ses-02 - ses-01")
    assert {path: path.stat().st_mtime_ns for path in fitted} == fitted
    capfd.readouterr()
    ask("steps", "mean", "ses-02 - ses-01")
    assert "finished before" in capfd.readouterr().err
    ask("once", "ses-02 - ses-01")
    made = sorted((tmp_path / "once").glob("sub-01/func/*sessions-ses02MinusSes01*.nii.gz"))
    assert any("stat-F" in path.name for path in made)
    for path in made:
        assert path.read_bytes() == (tmp_path / "steps" / path.relative_to(tmp_path / "once")).read_bytes()


def test_page_shows_an_f_test_from_zero_upwards(output: Path) -> None:
    text = text_of(output / "sub-01.html")
    assert "F test task: congruent; incongruent" in text
    assert "upper tail of F" in text
    pictures = [image.get("alt", "") for image in parse(output / "sub-01.html").iter("img")]
    assert sum(alt.startswith("F map") for alt in pictures) == 4  # two sessions, their mean and difference


def test_methods_text_says_how_f_is_combined(output: Path) -> None:
    (path,) = output.glob("logs/*desc-participant_methods.txt")
    assert "F tests of several contrasts" in path.read_text()


def test_precision_weights_are_refused(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = analyse(
        dataset, tmp_path / "out", "--fixed-effects", "precision", levels=PARTICIPANT, contrast=F_TEST
    )  # fmt: skip
    assert code == 2
    assert "is an F test, which --fixed-effects precision cannot combine" in capfd.readouterr().err


def test_a_condition_that_a_row_names_in_vain_is_refused(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert analyse(dataset, tmp_path / "out", levels=PARTICIPANT, contrast="F:x = congruent; nothing") == 2
    assert "--contrast 'nothing' names the condition 'nothing', which no run has" in capfd.readouterr().err


def test_f_maps_are_no_input_of_the_group_level(dataset: Path, output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert analyse(dataset, output, levels=("group",), contrast="task") == 2
    assert "--contrast task is an F test within participants" in capfd.readouterr().err


def test_dry_run_names_the_test(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert analyse(dataset, tmp_path / "out", "--dry-run", levels=PARTICIPANT, contrast=F_TEST) == 0
    assert "F:task = congruent; incongruent" in capfd.readouterr().out

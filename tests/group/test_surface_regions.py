"""Regions of an atlas on surfaces and grayordinates are answered as those of volumes are, and name peaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from calls import call_main
from label_files import NAMES, write_dlabel, write_pair
from pages import text_of
from sessionfx.cli import main
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.surface import Surface
from surface_group import SPACES, WALL, SurfaceGroup

START = "task-a_space-sphere_atlas-own_contrast-go"
NAMED = {name: number for number, name in NAMES.items() if number}


def labels_of(study: SurfaceGroup) -> np.ndarray:
    """The place of the effect, and every third of the other features, some of which have no data."""
    labels = np.zeros(study.space.shape, dtype=int)
    labels[::3] = 2
    labels[study.active] = 1
    return labels


def write_atlas(study: SurfaceGroup, labels: np.ndarray) -> Path:
    if isinstance(study.space, Surface):
        return write_pair(study.root, {side: labels[study.space.part(side)] for side in study.space.vertices})
    assert isinstance(study.space, Grayordinates)
    return write_dlabel(study.root / "space-sphere_atlas-own_dseg.dlabel.nii", labels, study.space.axis)


@pytest.fixture(scope="module", params=SPACES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SurfaceGroup:
    return SurfaceGroup(tmp_path_factory.mktemp("study"), SPACES[request.param]).write()


def group(study: SurfaceGroup, output: Path, *options: str) -> list[str]:
    return [str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1", *options]


@pytest.fixture(scope="module")
def output(study: SurfaceGroup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, atlas = tmp_path_factory.mktemp("out"), write_atlas(study, labels_of(study))
    asked = ("--session-contrast", "mean", "--session-contrast", "ses-2 - ses-1", "--correction", "bonferroni")
    assert main(group(study, folder, "--atlas", str(atlas), *asked)) == 0
    return folder


def table_of(output: Path, desc: str) -> pd.DataFrame:
    return pd.read_csv(output / "group" / f"{START}_{desc}_metrics.tsv", sep="\t", na_values=["n/a"])


@pytest.mark.slow
def test_a_value_is_the_mean_over_the_features_with_data(study: SurfaceGroup, output: Path) -> None:
    table, labels = table_of(output, "desc-regions"), labels_of(study)
    assert len(table) == 2 * len(study.effects)
    counted = f"n_{study.space.features}"
    assert counted in table and "n_voxels" not in table
    for row in table.to_dict("records"):
        inside = labels == NAMED[row["region"]]
        own = study.effects[row["participant_id"][4:], row["session_id"][4:]][inside & study.mask]
        assert row["effect"] == pytest.approx(own.mean(), rel=1e-9)
        assert row[counted] == own.size
        assert row["share"] == pytest.approx(own.size / inside.sum())
    sidecar = json.loads((output / "group" / f"{START}_desc-regions_metrics.json").read_text())
    assert study.space.features in sidecar[counted]["Description"].lower()
    assert "voxel" not in json.dumps({key: text for key, text in sidecar.items() if key != "Sources"})


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "weights"), [("mean", (0.5, 0.5)), ("ses2MinusSes1", (-1, 1))])
def test_a_region_is_answered_as_a_vertex_with_its_values(
    study: SurfaceGroup, output: Path, sessions: str, weights: tuple[float, float]
) -> None:
    answers = table_of(output, f"sessions-{sessions}_desc-regionAnswers")
    assert set(answers["strategy"]) == {"summary-statistics", "session-model", "marginal", "mixed"}
    found = answers[answers["strategy"] == "summary-statistics"].set_index("region")
    labels, participants = labels_of(study), sorted({participant for participant, _ in study.keys})
    for name, number in NAMED.items():
        inside = (labels == number) & study.mask
        wide = np.array([[study.effects[who, when][inside].mean() for when in "12"] for who in participants])
        expected = stats.ttest_1samp(wide @ weights, 0)
        np.testing.assert_allclose(found.loc[name, ["t", "p"]].astype(float), list(expected), rtol=1e-6)
        assert found.loc[name, "p_corrected"] == pytest.approx(min(2 * expected.pvalue, 1))


@pytest.mark.slow
def test_peaks_have_the_names_of_their_regions(study: SurfaceGroup, output: Path) -> None:
    path = next((output / "group").glob("*_sessions-mean_strategy-summaryStatistics_*clusters.tsv"))
    table, labels = pd.read_csv(path, sep="\t", na_values=["n/a"], dtype={"Region": str}), labels_of(study)
    assert len(table)
    for row in table.to_dict("records"):
        place = {key: row[key.capitalize()] for key in study.space.place_keys if pd.notna(row[key.capitalize()])}
        label = labels[study.space.index_of(place)]
        if label:
            assert row["Region"] == NAMES[label]
        else:  # triangles are about 10 mm wide
            assert pd.isna(row["Region"]) or row["Region"].startswith("near ")


@pytest.mark.slow
def test_the_page_shows_the_regions(study: SurfaceGroup, output: Path) -> None:
    text = text_of(output / "group.html")
    assert "Regions of atlas own" in text
    assert "1 of 2 regions of atlas own is suprathreshold, the largest z is" in text
    assert "voxel" not in text[text.index("Regions of atlas own") :][:3000]


@pytest.mark.slow
def test_a_changed_atlas_replaces_tables_and_names(tmp_path: Path) -> None:
    study = SurfaceGroup(tmp_path / "study", SPACES["surface"], n_participants=5).write()
    asked = ("--strategy", "summary-statistics", "--session-contrast", "mean", "--no-report")
    labels = labels_of(study)
    for values in (labels, np.where(labels == 2, 0, labels)):
        atlas = write_atlas(study, values)
        assert main(group(study, tmp_path / "out", "--atlas", str(atlas), *asked)) == 0
    assert set(table_of(tmp_path / "out", "desc-regions")["region"]) == {"V1"}


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = SurfaceGroup(tmp_path / "study", SPACES["surface"], n_participants=2).write()
    atlas = write_pair(tmp_path, {"L": np.ones(WALL), "R": np.ones(WALL)})
    called = call_main(capsys, group(study, tmp_path / "out", "--atlas", str(atlas)), study.raw)
    called.refused(2, f"--atlas {atlas} does not fit", "hemi-L has 10 vertices there, and 162 in the data")
    assert not (tmp_path / "out").exists()

"""Regions of an atlas are answered as voxels are: means, answers of R and scipy, who is missing, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiLabelsMasker
from scipy import stats

from calls import times
from group_study import AFFINE, CONTRAST, SPACE, GroupStudy, empty_study, make_study, strict_json
from sessionfx.bids.atlas import Atlas
from sessionfx.cli import main
from sessionfx.space.grid import Grid

R_TABLES = Path(__file__).parents[1] / "data" / "regions"
SHAPE = (6, 6, 6)


def write_atlas(folder: Path, labels: np.ndarray, names: dict[int, str], affine: np.ndarray = AFFINE,
                label: str = "blobs") -> Path:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"atlas-{label}_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), path)
    table = pd.DataFrame({"index": names.keys(), "name": names.values()})
    table.to_csv(folder / f"atlas-{label}_dseg.tsv", sep="\t", index=False)
    return path


def blobs() -> np.ndarray:
    """Three regions: the corner with an effect, one elsewhere, one of a single voxel."""
    labels = np.zeros(SHAPE, dtype=int)
    labels[:2, :3], labels[3:5, 3:6], labels[5, 0, 0] = 3, 7, 20
    return labels


NAMES = {3: "Corner", 7: "Elsewhere", 20: "Single voxel"}


def group(study: GroupStudy, output: Path, *options: str) -> int:
    return main([str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1", "--no-report", *options])


def values_of(output: Path, atlas: str = "blobs") -> pd.DataFrame:
    return pd.read_csv(output / "group" / table_name("regions", atlas=atlas), sep="\t", na_values=["n/a"])


def table_name(desc: str, sessions: str = "", atlas: str = "blobs") -> str:
    asked = f"_sessions-{sessions}" if sessions else ""
    return f"task-x_space-{SPACE}_atlas-{atlas}_contrast-{CONTRAST}{asked}_desc-{desc}_metrics.tsv"


def answers_of(output: Path, sessions: str, atlas: str = "blobs") -> pd.DataFrame:
    path = output / "group" / table_name("regionAnswers", sessions, atlas)
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def output(study: GroupStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regions")
    atlas = write_atlas(folder, blobs(), NAMES)
    assert group(study, folder / "out", "--atlas", str(atlas), "--session-contrast", "mean", "--session-contrast",
                 "ses-02 - ses-01", "--session-contrast", "any") == 0  # fmt: skip
    return folder / "out"


def test_a_value_is_the_mean_over_the_voxels_of_a_region(study: GroupStudy, output: Path) -> None:
    table, labels = values_of(output), blobs()
    assert len(table) == 3 * len(study.keys)
    for row in table.itertuples():
        own = study.effects[row.participant_id[4:], row.session_id[4:]][labels == row.index]
        np.testing.assert_allclose(row.effect, own.mean(), rtol=1e-9)
        assert (row.n_voxels, row.share, row.region) == (own.size, 1.0, NAMES[row.index])
    sidecar = strict_json(output / "group" / table_name("regions").replace(".tsv", ".json"))
    assert sidecar["effect"]["Units"] == "percent signal change"
    assert "variance" not in table


def test_values_are_those_of_nilearns_masker(study: GroupStudy, output: Path) -> None:
    atlas = nib.Nifti1Image(blobs().astype(np.int16), AFFINE)
    masker = NiftiLabelsMasker(atlas, standardize=None)
    images = [nib.Nifti1Image(study.effects[key], AFFINE) for key in study.keys]
    expected = masker.fit_transform(nib.concat_images(images))
    found = values_of(output).pivot_table(index=["participant_id", "session_id"], columns="index", values="effect")
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6)


def test_a_region_is_answered_as_a_voxel_with_its_values(output: Path) -> None:
    """Of one value per participant that is scipy's t test, with its interval."""
    table, answers = values_of(output), answers_of(output, "ses02MinusSes01")
    found = answers[answers["strategy"] == "summary-statistics"].set_index("region")
    for name, own in table.groupby("region"):
        wide = own.pivot_table(index="participant_id", columns="session_id", values="effect")
        expected = stats.ttest_1samp((wide["ses-02"] - wide["ses-01"]).dropna(), 0)
        row, interval = found.loc[name], expected.confidence_interval()
        np.testing.assert_allclose([row["t"], row["p"], row["dof"]], [expected.statistic, expected.pvalue, expected.df],
                                   rtol=1e-7)  # fmt: skip
        np.testing.assert_allclose([row["interval_lower"], row["interval_upper"]], [interval.low, interval.high])


def test_p_values_are_corrected_over_the_regions(output: Path) -> None:
    answers = answers_of(output, "mean")
    for _, own in answers.groupby("strategy"):
        np.testing.assert_allclose(own["p_corrected"], stats.false_discovery_control(own["p"]))
        assert (own["suprathreshold"] == (own["p_corrected"] <= 0.05)).all()
    any_session = answers_of(output, "any")
    assert {"f", "dof_numerator"} <= set(any_session) and "effect" not in any_session


def test_regions_have_a_verdict_of_their_own(output: Path) -> None:
    sidecar = strict_json(output / "group" / table_name("regionAnswers", "mean").replace(".tsv", ".json"))
    answers = answers_of(output, "mean")
    first = answers.loc[answers["recommended"] == 1, "strategy"].unique()
    assert list(first) == sidecar["Recommended"][:1]
    assert sidecar["Strategies"].keys() == {"session-model", "summary-statistics", "marginal", "mixed"}


@pytest.mark.slow
def test_another_grid_is_taken_by_the_nearest_voxel_and_counted(study: GroupStudy, tmp_path: Path) -> None:
    """Voxels of half the size, of which eight lie in each of the maps'."""
    fine = blobs().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = AFFINE.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] -= 0.98  # off the middle, so that one voxel is nearest
    atlas = write_atlas(tmp_path, fine, NAMES, affine, "fine")
    assert group(study, tmp_path / "out", "--atlas", str(atlas), "--session-contrast", "mean", "--strategy",
                 "marginal") == 0  # fmt: skip
    np.testing.assert_array_equal(Grid(SHAPE, AFFINE).labels_from(fine, Grid(fine.shape, affine)), blobs())
    sidecar = strict_json(tmp_path / "out" / "group" / table_name("regions", atlas="fine").replace(".tsv", ".json"))
    assert "584 voxels of regions there, 73 here" in sidecar["AtlasOnTheMaps"]


@pytest.mark.slow
def test_a_region_that_a_map_has_not_is_named_and_left_out(tmp_path: Path) -> None:
    study = empty_study(tmp_path)
    rng = np.random.default_rng(3)
    for number in range(1, 6):
        for session in ("01", "02"):
            effect, variance = rng.normal(size=SHAPE), np.ones(SHAPE)
            if (number, session) == (2, "02"):
                effect[3:5, 3:6, 2:] = variance[3:5, 3:6, 2:] = 0  # two thirds of a region
            if number == 3:
                effect[0, :3] = variance[0, :3] = 0  # half of another
            study.write(f"{number:02d}", session, effect, variance)
    atlas = write_atlas(tmp_path, blobs(), NAMES)
    asked = ("--atlas", str(atlas), "--session-contrast", "mean")
    assert group(study, tmp_path / "out", *asked, "--min-coverage", "1") == 0
    table = values_of(tmp_path / "out")
    gone = table[table["effect"].isna()]
    assert gone[["participant_id", "session_id", "region"]].to_numpy().tolist() == [["sub-02", "ses-02", "Elsewhere"]]
    np.testing.assert_allclose(gone["share"], 1 / 3)
    half = table[(table["participant_id"] == "sub-03") & (table["region"] == "Corner")]
    np.testing.assert_allclose(half["effect"], [study.effects["03", own][1, :3].mean() for own in ("01", "02")])
    assert set(answers_of(tmp_path / "out", "mean")["region"]) == {"Corner", "Single voxel"}
    assert group(study, tmp_path / "more", *asked, "--strategy", "summary-statistics") == 0
    found = answers_of(tmp_path / "more", "mean").set_index("region")
    for name, own in table.groupby("region"):
        expected = stats.ttest_1samp(own.groupby("participant_id")["effect"].mean(), 0)
        np.testing.assert_allclose(found.loc[name, ["t", "p"]].astype(float), list(expected), rtol=1e-6)
    assert found.loc["Elsewhere", "n_participants"] == 5


@pytest.mark.slow
def test_a_region_whose_maps_cannot_tell_what_is_asked_is_named(tmp_path: Path) -> None:
    """Enough maps had it, but all of one session lacked it: it was in no answer, and nothing was said."""
    study, rng = empty_study(tmp_path), np.random.default_rng(4)
    gone = blobs() == {name: index for index, name in NAMES.items()}["Elsewhere"]
    for number in range(1, 7):
        for session in ("01", "02"):
            keeps = ~gone if session == "02" else np.ones(SHAPE, dtype=bool)
            study.write(f"{number:02d}", session, rng.normal(size=SHAPE) * keeps, keeps.astype(float))
    atlas = write_atlas(tmp_path, blobs(), NAMES)
    asked = (
        "--atlas",
        str(atlas),
        "--session-contrast",
        "mean",
        "--session-contrast",
        "ses-01",
        "--min-coverage",
        "0.5",
    )
    assert group(study, tmp_path / "out", *asked) == 0
    folder = tmp_path / "out" / "group"
    of_mean, of_one = (
        strict_json(folder / table_name("regionAnswers", label).replace(".tsv", ".json")) for label in ("mean", "ses01")
    )
    assert of_mean["LeftOutRegions"] == {"Elsewhere": "those who have it cannot tell what is asked"}
    assert of_one["LeftOutRegions"] == {}
    assert "though enough maps have it: 1 region, where who is left cannot tell what is asked." in of_mean["Verdict"]
    (path,) = folder.glob("*_sessions-mean_validity.json")
    verdict = strict_json(path)
    assert verdict["Facts"]["VoxelsOfEnoughMapsThatAreNotAnswered"] == gone.sum()
    assert f"though enough maps have them: {gone.sum()} voxels, where who is left cannot" in verdict["Verdict"]


@pytest.mark.slow
def test_who_needs_variances_says_so(study: GroupStudy, tmp_path: Path) -> None:
    atlas = write_atlas(tmp_path, blobs(), NAMES)
    assert group(study, tmp_path / "out", "--atlas", str(atlas), "--session-contrast", "mean", "--strategy", "meta",
                 "marginal") == 0  # fmt: skip
    assert set(answers_of(tmp_path / "out", "mean")["strategy"]) == {"marginal"}
    sidecar = strict_json(tmp_path / "out" / "group" / table_name("regionAnswers", "mean").replace(".tsv", ".json"))
    assert "participant level with the same --atlas" in sidecar["Strategies"]["meta"]["Reason"]


@pytest.mark.slow
def test_regions_are_tasks_of_their_own(study: GroupStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call has nothing to do; another atlas adds tables, and a changed one replaces them."""
    asked = ("--session-contrast", "mean", "--strategy", "marginal")
    output = tmp_path / "out"
    first = write_atlas(tmp_path, blobs(), NAMES)
    assert group(study, output, "--atlas", str(first), *asked) == 0
    before = times(output)
    assert group(study, output, "--atlas", str(first), *asked) == 0
    assert times(output) == before
    second = write_atlas(tmp_path, blobs(), NAMES, label="more")
    assert group(study, output, "--atlas", str(first), "--atlas", str(second), *asked) == 0
    assert values_of(output, "more").equals(values_of(output))
    write_atlas(tmp_path, blobs() * (blobs() != 7), NAMES)
    assert group(study, output, "--atlas", str(first), *asked) == 0
    assert set(answers_of(output, "mean")["region"]) == {"Corner", "Single voxel"}
    assert (output / "group" / table_name("regions", atlas="more")).exists()


def test_two_atlases_of_one_name_are_refused(study: GroupStudy, tmp_path: Path) -> None:
    one, other = (write_atlas(tmp_path / name, blobs(), NAMES) for name in "ab")
    assert group(study, tmp_path / "out", "--atlas", str(one), "--atlas", str(other)) == 2


def test_names_come_from_json_too(tmp_path: Path) -> None:
    path = write_atlas(tmp_path, blobs(), NAMES)
    path.with_name("atlas-blobs_dseg.tsv").unlink()
    described = {"LabelMap": {str(index): name for index, name in NAMES.items()}}
    path.with_name("atlas-blobs_dseg.json").write_text(json.dumps(described))
    from sessionfx.bids.atlas import read_atlases

    (atlas,) = read_atlases([path], [])
    assert (atlas.label, dict(atlas.names)) == ("blobs", NAMES)


def test_regions_without_a_voxel_on_the_maps_are_counted() -> None:
    labels = np.zeros((4, 4, 4), dtype=int)
    labels[0], labels[3] = 1, 2
    atlas = Atlas(labels, Grid(labels.shape, np.eye(4)), {1: "near", 2: "far"}, label="x")
    grid = Grid((2, 4, 4), np.eye(4))
    assert atlas.on(grid).names == ("near",)
    assert "1 of its 2 regions have no voxel here" in atlas.text_on(grid)


@pytest.fixture(scope="module")
def study_of_r(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps whose voxels have the values of R's table for means."""
    folder = tmp_path_factory.mktemp("r")
    study, table = empty_study(folder), pd.read_csv(R_TABLES / "maps.tsv", sep="\t")
    labels = np.repeat(np.arange(1, 5), 4).reshape(4, 4, 1)
    around = np.tile([-0.3, -0.1, 0.1, 0.3], 4).reshape(labels.shape)
    for (participant, session), own in table.groupby(["participant_id", "session_id"]):
        effect = own.set_index("index")["effect"].to_numpy()[labels - 1] + around
        study.write(participant[4:], session[4:], effect, np.ones(labels.shape))
    names = dict(table[["index", "region"]].drop_duplicates().to_numpy())
    atlas = write_atlas(folder, labels, names)
    assert group(study, folder / "out", "--atlas", str(atlas), "--session-contrast", "mean", "--session-contrast",
                 "ses-03 - ses-01") == 0  # fmt: skip
    return folder / "out"


@pytest.mark.slow
def test_the_table_is_what_r_reads(study_of_r: Path) -> None:
    found, expected = values_of(study_of_r), pd.read_csv(R_TABLES / "maps.tsv", sep="\t")
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mixed", "summary-statistics"])
@pytest.mark.parametrize("sessions", ["mean", "ses-03 - ses-01"])
def test_answers_are_those_of_r(study_of_r: Path, strategy: str, sessions: str) -> None:
    expected = pd.read_csv(R_TABLES / "answers.tsv", sep="\t").query("strategy == @strategy and sessions == @sessions")
    found = answers_of(study_of_r, "mean" if sessions == "mean" else "ses03MinusSes01").query("strategy == @strategy")
    for column in ("effect", "standard_error", "dof", "t", "p"):
        np.testing.assert_allclose(found[column], expected[column], rtol=2e-5, err_msg=column)

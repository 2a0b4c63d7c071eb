"""The program with an atlas on simulated surfaces: tables equal the means of the maps that it wrote, for R to read."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from label_files import write_dlabel, write_pair
from pages import text_of
from program import analyse, simulated
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.simulate.head import ATLAS

pytestmark = pytest.mark.slow

FILES = {
    "fsaverage5": "hemi-L_space-fsaverage5_atlas-simulated_dseg.label.gii",
    "fsLR": "space-fsLR_atlas-simulated_den-5k_dseg.dlabel.nii",
    "MNI152NLin2009cAsym": "space-MNI152NLin2009cAsym_atlas-simulated_dseg.nii.gz",
}
CONTRAST = "incongruentMinusCongruent"
# by ordinary least squares the effect of a mean series is the mean of the effects
OPTIONS = ("--confounds", "scrub", "--noise-model", "ols", "--correction", "none", "--session-contrast", "mean", "--strategy",
           "summary-statistics", "marginal")  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surface-regions")
    return simulated(folder, n_participants=3, n_volumes=60, surfaces=("fsaverage5", "fsLR"))


@pytest.fixture(scope="module")
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes and both surfaces into one folder, each by the same command but for --space, with an atlas for each."""
    folder = tmp_path_factory.mktemp("out") / "out"
    truth = dataset / "derivatives/truth"
    for space, name in FILES.items():
        # an atlas of volumes serves volumes alone, wherever it stands
        others = [FILES["fsaverage5"]] if space.startswith("MNI") else [FILES["MNI152NLin2009cAsym"]]
        asked = [part for file in (*others, name) for part in ("--atlas", str(truth / file))]
        assert analyse(dataset, folder, "--space", space, *asked, *OPTIONS, report=space == "fsaverage5") == 0
    return folder


def labels_of(dataset: Path, space: str) -> np.ndarray:
    """Read the labels with nibabel."""
    path = dataset / "derivatives/truth" / FILES[space]
    if space == "fsLR":
        return np.asarray(nib.load(path).dataobj)[0].astype(int)
    parts = [path, path.with_name(path.name.replace("hemi-L", "hemi-R"))]
    return np.concatenate([nib.load(part).darrays[0].data for part in parts])


def table_of(output: Path, pattern: str) -> pd.DataFrame:
    (path,) = output.glob(pattern)
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


@pytest.mark.parametrize("space", ["fsaverage5", "fsLR"])
def test_values_are_the_means_of_the_written_maps(dataset: Path, output: Path, space: str) -> None:
    labels = labels_of(dataset, space)
    group = table_of(output, f"group/*_space-{space}_*atlas-simulated*_contrast-{CONTRAST}_desc-regions_metrics.tsv")
    assert len(group) == 3 * 2 * len(ATLAS)
    for (participant, session), own in group.groupby(["participant_id", "session_id"]):
        func = output / participant / session / "func"
        maps = sorted(func.glob(f"*_space-{space}_*contrast-{CONTRAST}_stat-effect_*statmap.*i*"))
        maps = [path for path in maps if path.suffix != ".json"]
        effect = read_surfaces(maps).data[0]
        has_data = effect != 0
        expected = [effect[(labels == index) & has_data].mean() for index in own["index"]]
        # maps of GIFTI have single precision
        np.testing.assert_allclose(own["effect"], expected, rtol=2e-5, atol=1e-7)
        table = table_of(func, f"*_space-{space}_*desc-regions_metrics.tsv")
        np.testing.assert_allclose(table["effect"], own["effect"], rtol=1e-8)
        assert list(table["region"]) == list(ATLAS)
        assert np.isfinite(table[["variance", "t", "z", "dof"]]).all(axis=None)
    summary = group.groupby("region")["effect"].mean()
    assert summary["Dorsomedial frontal"] == summary.max()


def test_each_space_has_its_own_tables(output: Path) -> None:
    found = {space: table_of(output, f"group/*_space-{space}_*desc-regions_metrics.tsv") for space in FILES}
    assert all(set(table["region"]) == set(ATLAS) for table in found.values())
    counts = {space: [name for name in table if name.startswith("n_")] for space, table in found.items()}
    assert counts == {"fsaverage5": ["n_vertices"], "fsLR": ["n_grayordinates"], "MNI152NLin2009cAsym": ["n_voxels"]}


def test_pages_and_clusters_name_regions(output: Path) -> None:
    assert "Regions of atlas simulated" in text_of(output / "group.html")
    clusters = table_of(output, "group/*_space-fsaverage5_*_strategy-marginal_*clusters.tsv")
    assert "Region" in clusters
    assert set(clusters["Region"].dropna().str.removeprefix("near ")) <= set(ATLAS)
    assert clusters["Region"].notna().any()


def test_two_atlases_of_a_surface_are_answered_side_by_side(dataset: Path, output: Path, tmp_path: Path) -> None:
    labels = np.where(labels_of(dataset, "fsaverage5") == 1, 7, 0)
    halves = dict(zip("LR", np.split(labels, 2), strict=True))
    other = write_pair(tmp_path, halves, {side: {0: "???", 7: "Seven"} for side in "LR"},
                       "hemi-{}_space-fsaverage5_atlas-other_dseg.label.gii")  # fmt: skip
    atlas = dataset / "derivatives/truth" / FILES["fsaverage5"]
    asked = ("--space", "fsaverage5", "--atlas", str(atlas), "--atlas", str(other))
    assert analyse(dataset, output, *asked, *OPTIONS, report=True) == 0
    start = "group/*_space-fsaverage5_*atlas-{}_*_desc-regions_metrics.tsv"
    first, second = (table_of(output, start.format(name)) for name in ("simulated", "other"))
    own = first[first["index"] == 1].reset_index(drop=True)
    np.testing.assert_allclose(second["effect"], own["effect"], rtol=1e-8)
    assert set(second["region"]) == {"Seven"}


def test_an_atlas_of_the_cortex_alone_serves_grayordinates(dataset: Path, tmp_path: Path) -> None:
    """As those of Schaefer and Glasser are; the structures below have no region, and that is said."""
    image = nib.load(dataset / "derivatives/truth" / FILES["fsLR"])
    axis = image.header.get_axis(1)
    n = int(np.isin(axis.name, ["CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"]).sum())
    path = write_dlabel(tmp_path / "cortex.dlabel.nii", np.asarray(image.dataobj)[0, :n], axis[:n],
                        dict(enumerate(["???", *ATLAS])))  # fmt: skip
    asked = ("--space", "fsLR", "--atlas", str(path), *OPTIONS)
    assert analyse(dataset, tmp_path / "out", *asked) == 0
    (sidecar,) = (tmp_path / "out/group").glob("*_desc-regions_metrics.json")
    assert "none in THALAMUS_LEFT, THALAMUS_RIGHT" in sidecar.read_text()

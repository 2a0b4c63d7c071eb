"""The group level on surfaces and grayordinates: finding and reading maps, answers, clusters, permutation, files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mne import spatial_tris_adjacency
from mne.stats import combine_adjacency, permutation_cluster_1samp_test
from mne.stats.cluster_level import _find_clusters
from nilearn.datasets import load_fsaverage
from nilearn.glm.second_level import SecondLevelModel
from nilearn.mass_univariate import permuted_ols
from scipy import sparse

from calls import call_main, contents, redone, times
from sessionfx.bids.first_level_maps import find_first_level_maps, select_maps
from sessionfx.bids.names import files_of
from sessionfx.bids.stat_maps import read_map, with_sidecars
from sessionfx.execution import LocalExecutor
from sessionfx.group.clusters import mesh_clusters_table
from sessionfx.group.neighbours import neighbours_in
from sessionfx.group.permutation import PermutationResult, permute, permute_block
from sessionfx.options import Selection
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap
from sessionfx.space.surface import Surface
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.resampling import pooled_resampling
from surface_group import N_VERTICES, SPACES, SURFACE, WALL, SurfaceGroup

EVERY = ("--strategy", "summary-statistics", "session-model", "marginal", "mixed")
QUICK = ("--strategy", "summary-statistics", "--session-contrast", "mean", "--no-report")


@pytest.fixture(scope="module", params=SPACES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SurfaceGroup:
    return SurfaceGroup(tmp_path_factory.mktemp("study"), SPACES[request.param]).write()


@pytest.fixture(scope="module")
def output(study: SurfaceGroup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every strategy with family-wise p values, and the page."""
    from sessionfx.cli import main

    folder = tmp_path_factory.mktemp("out")
    assert main([*command(study, folder, "--permutations", "50", "--equivalence", "1"), *EVERY]) == 0
    return folder


@pytest.fixture
def surface(tmp_path: Path) -> SurfaceGroup:
    """A small study of its own."""
    return SurfaceGroup(tmp_path / "study", SURFACE, n_participants=5).write()


def command(study: SurfaceGroup, folder: Path, *options: str) -> list[str]:
    return [str(study.raw), str(folder), "group", "-d", str(study.maps), "--nprocs", "1", *options]


def result(
    output: Path, study: SurfaceGroup, strategy: str, statistic: str, *, sessions: str = "mean", desc: str = ""
) -> Path:
    about = f"sessions-{sessions}_strategy-{strategy}_stat-{statistic}{f'_desc-{desc}' if desc else ''}"
    return output / "group" / f"task-a_space-sphere_contrast-go_{about}_statmap{study.space.extension}"


# Answers


@pytest.mark.slow
def test_answers_equal_second_level_model(study: SurfaceGroup, output: Path) -> None:
    """To 1e-8 in grayordinates; GIFTI files of results have single precision."""
    on_cortex = np.concatenate([np.arange(WALL, n) for n in N_VERTICES.values()])
    on_cortex[len(on_cortex) // 2 :] += N_VERTICES["L"]
    rows = on_cortex if isinstance(study.space, Surface) else np.arange(len(on_cortex))

    def in_nilearn(values: np.ndarray) -> object:
        filled = np.zeros(SURFACE.shape)
        filled[on_cortex] = values[rows]
        return SurfaceGroup(study.root, SURFACE).image(filled)

    means = [
        np.mean([study.effects[participant, session] for session in study.sessions], axis=0)
        for participant in dict.fromkeys(participant for participant, _ in study.keys)
    ]
    mask = SurfaceGroup(study.root, SURFACE).image(np.isin(np.arange(SURFACE.shape[0]), on_cortex))
    model = SecondLevelModel(mask_img=mask).fit(
        [in_nilearn(mean) for mean in means], design_matrix=pd.DataFrame({"intercept": np.ones(len(means))})
    )
    maps = model.compute_contrast("intercept", output_type="all")
    single = isinstance(study.space, Surface)
    for ours, theirs in {"effect": "effect_size", "variance": "effect_variance"}.items():
        found, _ = read_map(result(output, study, "summaryStatistics", ours))
        expected = np.concatenate([maps[theirs].data.parts[side] for side in ("left", "right")])[on_cortex].ravel()
        bound = 1e-6 if single else 1e-8
        np.testing.assert_allclose(found[rows], expected, rtol=bound, atol=bound * np.abs(expected).max())


@pytest.mark.slow
def test_results_have_the_form_of_the_maps(study: SurfaceGroup, output: Path) -> None:
    for path in (
        result(output, study, "marginal", "z"),
        result(output, study, "mixed", "dof"),
        result(output, study, "marginal", "p", desc="tfceFWE"),
        result(output, study, "summaryStatistics", "z", desc="equivalence"),
    ):
        for file in with_sidecars([path]):
            assert file.is_file(), file
        assert read_map(path)[1].same_as(study.space)
        sidecar = json.loads(with_sidecars([path])[-1].read_text())
        sources = {source.partition(":sub")[2] for source in sidecar["Sources"]}
        assert len(sources) == len(list(study.keys)) * len(files_of(path))
    if isinstance(study.space, Grayordinates):
        image = nib.load(result(output, study, "marginal", "z"))
        assert image.header.get_axis(1) == study.space.axis
        assert [*image.header.get_axis(0).name] == ["z"]


@pytest.mark.slow
def test_sidecars_say_vertices_and_grayordinates(
    study: SurfaceGroup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--strategy", "summary-statistics", "--robust", "huber", "--equivalence", "0.5", "--no-report")
    assert call_main(capsys, command(study, tmp_path / "out", *options), study.raw).code == 0
    sidecars = [json.loads(path.read_text()) for path in (tmp_path / "out/group").glob("*.json")]
    assert {"weight", "z"} <= {sidecar["StatisticType"] for sidecar in sidecars if "StatisticType" in sidecar}
    assert [sidecar for sidecar in sidecars if sidecar.get("Type") == "ROI"]
    for path in (tmp_path / "out/group").glob("*.json"):
        # a cluster of grayordinates may be one of voxels
        assert "voxel" not in path.read_text() or path.name.endswith("_clusters.json"), path.name


@pytest.mark.slow
def test_tables_name_vertices_and_their_units(study: SurfaceGroup, output: Path) -> None:
    path = output / "group" / "task-a_space-sphere_contrast-go_sessions-mean_strategy-summaryStatistics_clusters.tsv"
    clusters = pd.read_csv(path, sep="\t")
    described = json.loads(path.with_suffix(".json").read_text())
    assert described.keys() == set(clusters.columns)
    assert described["Cluster Size (mm2)"]["Units"] == "mm^2"
    first = clusters.iloc[0]
    assert study.space.index_of({key.lower(): first[key] for key in clusters.columns[1:3]}) in study.active
    assert first["Cluster Size (mm2)"] > 0
    answers = pd.read_csv(output / "group" / "task-a_space-sphere_desc-answers_metrics.tsv", sep="\t")
    assert (answers[f"n_{study.space.features}"] == study.mask.sum()).all()
    assert {"largest_at_vertex", "smallest_at_vertex"} <= set(answers.columns)
    summary = json.loads((output / "group" / "task-a_space-sphere_contrast-go_desc-summary_results.json").read_text())
    found = summary["SessionContrasts"][0]["Result"]
    assert found[f"NumberOf{study.space.features.capitalize()}"] == study.mask.sum()
    assert found["Peak"]["vertex"] >= 0 and found["ClusterPeaks"][0]["cluster_size_mm2"] > 0


@pytest.mark.slow
def test_the_page_is_written(study: SurfaceGroup, output: Path) -> None:
    page = (output / "group.html").read_text()
    assert f"of {study.mask.sum()} {study.space.features} have |z|" in page
    assert "mm²" in page


# Files that changed, and that are missing


@pytest.mark.slow
def test_a_finished_study_is_skipped_and_a_changed_hemisphere_noticed(
    surface: SurfaceGroup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = command(surface, tmp_path / "out", *QUICK, "--work-dir", str(tmp_path / "out"))
    assert call_main(capsys, asked, surface.raw).code == 0
    before = times(tmp_path / "out")
    assert "finished before" in call_main(capsys, asked, surface.raw).error
    assert not redone(before, times(tmp_path / "out"))
    _, right = files_of(surface.path("02", "1", "effect"))
    os.utime(right, ns=(0, right.stat().st_mtime_ns + 10**9))
    assert call_main(capsys, asked, surface.raw).code == 0
    assert redone(before, times(tmp_path / "out"))


@pytest.mark.slow
def test_without_a_mesh_there_are_answers_and_no_clusters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = SurfaceGroup(tmp_path / "study", SURFACE, n_participants=6).write(meshes=False)
    options = ("--strategy", "summary-statistics", "--session-contrast", "mean", "--permutations", "20")
    called = call_main(capsys, command(study, tmp_path / "out", *options), study.raw)
    assert called.code == 0
    assert "No clusters of vertices are listed, and nothing is drawn: no mesh of sphere is there." in called.error
    written = contents(tmp_path / "out")
    assert {name for name in written if "FWE" in name and name.endswith(".gii")} == {
        f"task-a_hemi-{hemi}_space-sphere_contrast-go_sessions-mean_strategy-summaryStatistics_stat-p_desc-voxelFWE_statmap.gii"
        for hemi in "LR"
    }
    (clusters,) = (content for name, content in written.items() if name.endswith("clusters.tsv"))
    assert (
        clusters.startswith(b"Cluster ID\tHemisphere\tVertex\tPeak Stat\tCluster Size (mm2)")
        and clusters.count(b"\n") == 1
    )


@pytest.mark.slow
def test_vertices_that_some_maps_lack_are_answered_by_those_who_have_them(tmp_path: Path) -> None:
    from sessionfx.cli import main

    study = SurfaceGroup(tmp_path / "study", SURFACE, n_participants=8).write()
    for session in study.sessions:
        study.variances["03", session][100:120] = 0
        study.write_map("03", session)
    assert main(command(study, tmp_path / "out", *QUICK)) == 0
    n, _ = read_map(result(tmp_path / "out", study, "summaryStatistics", "n"))
    assert set(n[100:120]) == {7} and set(n[study.mask]) == {7, 8}


# What is refused


def test_one_hemisphere_alone_is_refused_unless_it_is_asked_for(
    surface: SurfaceGroup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in surface.maps.rglob("*_hemi-R_*"):
        path.unlink()
    called = call_main(capsys, command(surface, tmp_path / "out", *QUICK), surface.raw)
    called.refused(2, "is of the left hemisphere alone", "--hemi L")
    called = call_main(capsys, command(surface, tmp_path / "out", *QUICK, "--hemi", "R"), surface.raw)
    called.refused(18, "--hemi R: no first-level map")
    called = call_main(capsys, command(surface, tmp_path / "out", *QUICK, "--hemi", "L"), surface.raw)
    assert called.code == 0, called.error
    maps = {name for name in contents(tmp_path / "out") if name.endswith(".gii")}
    assert maps and all("_hemi-L_space-sphere_" in name for name in maps)


def test_what_cannot_be_compared_is_refused(
    surface: SurfaceGroup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "regions.nii").touch()
    start = command(surface, tmp_path / "out", *QUICK)

    def renamed(change: Callable[[str], str], pattern: str = "*_statmap.*") -> None:
        for path in [*surface.maps.rglob(pattern)]:
            path.with_name(change(path.name)).write_bytes(path.read_bytes())

    renamed(lambda name: name.replace("space-sphere", "space-fsaverage6"))
    call_main(capsys, start, surface.raw).refused(2, "several spaces: fsaverage6, sphere", "--space")
    assert call_main(capsys, [*start, "--space", "sphere", "--dry-run"], surface.raw).code == 0
    for path in surface.maps.rglob("*space-fsaverage6*"):
        path.rename(path.with_name(path.name.replace("fsaverage6", "fsnative")))
    assert call_main(capsys, [*start, "--dry-run"], surface.raw).code == 0
    called = call_main(capsys, [*start, "--space", "fsnative"], surface.raw)
    called.refused(17, "fsnative is a surface of each participant's own")
    for path in surface.maps.rglob("*space-fsnative*_hemi-L_*"):
        path.unlink()
    for participant, session in surface.keys:
        scalars = surface.path(participant, session, "effect").name.replace(".gii", ".dscalar.nii")
        (surface.maps / f"sub-{participant}" / f"ses-{session}" / "func" / scalars).touch()
    call_main(capsys, [*start, "--space", "sphere"], surface.raw).refused(
        2, "several forms: dscalar.nii, gii", "--bids-filter-file"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("statistic", ["effect", "variance"])
def test_maps_of_other_grayordinates_are_refused(
    statistic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though there are as many, of the same structures."""
    study = SurfaceGroup(tmp_path / "study", SPACES["grayordinates"], n_participants=5).write()
    path = study.path("03", "2", statistic)
    image = nib.load(path)
    scalars, axis = (image.header.get_axis(number) for number in (0, 1))
    order = np.arange(len(axis))
    order[[-2, -1]] = order[[-1, -2]]
    values = image.get_fdata(dtype=np.float32).copy()  # not a map of the file that is written
    nib.save(nib.Cifti2Image(values, (scalars, axis[order])), path)
    called = call_main(capsys, command(study, tmp_path / "out", *QUICK), study.raw)
    called.refused(17, path.name, "differ in their space: their brain models list other vertices, voxels or structures")


def test_grayordinates_may_be_written_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = SurfaceGroup(tmp_path / "study", SPACES["grayordinates"], n_participants=5).write()
    axis, models = study.space.axis, study.space.models.replace(b"><", b">\n<")
    other = SurfaceGroup(tmp_path / "study", Grayordinates(axis, known_models=models), n_participants=5)
    other.effects, other.variances = study.effects, study.variances
    other.write_map("03", "2")
    assert read_map(study.path("03", "2", "effect"))[1].models != study.space.models
    assert call_main(capsys, command(study, tmp_path / "out", *QUICK), study.raw).code == 0
    assert models not in result(tmp_path / "out", study, "summaryStatistics", "z").read_bytes()


def test_maps_that_nilearn_and_fitlins_write_are_found(tmp_path: Path) -> None:
    """save_glm_to_bids names the number of vertices as density and may name no space; FitLins writes dense scalars."""
    names = [
        f"nilearn/sub-{label}/ses-1/func/sub-{label}_ses-1_task-a_hemi-{hemi}_den-162_contrast-go_stat-{stat}_statmap.gii"
        for label in ("01", "02") for hemi in "LR" for stat in ("effect", "variance")
    ] + [
        f"fitlins/node-sessionLevel/sub-{label}/ses-1/sub-{label}_ses-1_contrast-go_stat-{stat}_statmap.dscalar.nii"
        for label in ("01", "02") for stat in ("effect", "variance")
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder, extension in (("nilearn", ".gii"), ("fitlins", ".dscalar.nii")):
        root = tmp_path / folder
        found = select_maps(find_first_level_maps([root]), Selection(), [], [root], tmp_path)
        first, second = found.maps["go"]
        assert (first.participant, second.participant, first.session) == ("01", "02", "1")
        assert first.extension == extension and len(first.files) == (4 if extension == ".gii" else 2)
        assert all(path.is_file() for path in first.files)


# Clusters


def z_map(space: Space, *, seed: int = 0) -> StatMap[Estimate]:
    """Noise at all features but some."""
    rng = np.random.default_rng(seed)
    mask = rng.random(space.shape) > 0.05
    return StatMap(Estimate(rng.normal(size=mask.sum()) * 1.5, np.ones(mask.sum()), 1e12), mask, space)


def components(adjacency: np.ndarray, chosen: np.ndarray) -> list[set[int]]:
    """Clusters by going from neighbour to neighbour."""
    left, found = set(np.flatnonzero(chosen)), []
    while left:
        cluster, edge = set(), {left.pop()}
        while edge:
            cluster |= edge
            left -= edge
            edge = {other for feature in edge for other in np.flatnonzero(adjacency[feature])} & left
        found.append(cluster)
    return found


def clusters_only(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out sub-peaks, whose numbers end with a letter."""
    return table[[isinstance(number, int) for number in table["Cluster ID"]]]


def way_along_edges(space: Space, inside: set[int], start: int) -> np.ndarray:
    """The shortest way (mm) from a feature to each other one over features of a cluster, by Bellman and Ford."""
    places = np.zeros((*space.shape, 3))
    for part in space.structures:
        is_below = part.voxel_size is not None  # voxels of 2 mm
        own = 2.0 * part.numbers if is_below else space.meshes[part.name].coordinates[part.numbers]
        places[part.places] = own
    way = np.full(space.shape, np.inf)
    way[start] = 0
    first, second = space.adjacency.tocoo().coords
    own = np.isin(first, list(inside)) & np.isin(second, list(inside))
    lengths = np.linalg.norm(places[first] - places[second], axis=1)
    for _ in inside:
        np.minimum.at(way, second[own], way[first[own]] + lengths[own])
    return way


@pytest.mark.parametrize("name", SPACES)
def test_further_peaks_of_a_cluster_are_maxima_more_than_8_mm_apart(name: str) -> None:
    stat_map = z_map(SPACES[name], seed=3)
    space, adjacency = stat_map.space, SPACES[name].adjacency.toarray()
    z = np.full(space.shape, -np.inf)
    z[stat_map.mask] = stat_map.estimate.z
    table = mesh_clusters_table(stat_map, 0.2)
    listed: dict[int, list[int]] = {}
    for _, row in table[table["Peak Stat"] > 0].iterrows():
        place = {key: row[key.capitalize()] for key in space.place_keys if pd.notna(row[key.capitalize()])}
        listed.setdefault(int(str(row["Cluster ID"]).rstrip("abc")), []).append(space.index_of(place))
    clusters = components(adjacency, z >= 0.2)
    assert len(clusters) == len(listed)
    assert max(map(len, listed.values())) == 4
    for cluster in clusters:
        expected: list[int] = []
        for feature in sorted(cluster, key=lambda feature: -z[feature]):
            beside = set(np.flatnonzero(adjacency[feature])) & cluster
            is_maximum = all(z[feature] >= z[other] for other in beside)
            if (
                is_maximum
                and len(expected) < 4
                and all(way_along_edges(space, cluster, kept)[feature] > 8 for kept in expected)
            ):
                expected.append(feature)
        assert expected in listed.values()


@pytest.mark.parametrize("name", SPACES)
def test_clusters_are_features_that_touch_of_one_sign(name: str) -> None:
    stat_map = z_map(SPACES[name])
    space, adjacency = stat_map.space, SPACES[name].adjacency.toarray()
    table = clusters_only(mesh_clusters_table(stat_map, 1.5))
    z = np.zeros(space.shape)
    z[stat_map.mask] = stat_map.estimate.z
    expected = [(sign, cluster) for sign in (1, -1) for cluster in components(adjacency, sign * z >= 1.5)]
    assert len(table) == len(expected) > 20
    sizes = table.filter(like="Size").sum(axis=1)
    own = [max(cluster, key=lambda feature: sign * z[feature]) for sign, cluster in expected]
    by_peak = {feature: space.sizes[list(cluster)].sum() for feature, (_, cluster) in zip(own, expected, strict=True)}
    for (_, row), size in zip(table.iterrows(), sizes, strict=True):
        place = {key: row[key.capitalize()] for key in space.place_keys if pd.notna(row[key.capitalize()])}
        feature = space.index_of(place)
        assert z[feature] == row["Peak Stat"]
        assert size == pytest.approx(by_peak[feature], abs=0.06)
    positive = table["Peak Stat"] > 0
    assert list(table["Peak Stat"]) == [
        *sorted(table["Peak Stat"][positive], reverse=True), *sorted(table["Peak Stat"][~positive])
    ]  # fmt: skip
    smallest = clusters_only(mesh_clusters_table(stat_map, 1.5, smallest=3))
    assert len(smallest) == sum(len(cluster) >= 3 for _, cluster in expected)


# Permutation


PATCHES = (*SPACES, "patch of fsaverage5")


def some_features(name: str) -> tuple[Space, np.ndarray]:
    """A space, and some of its features: of fsaverage5 those of the left hemisphere around one."""
    if name in SPACES:
        return SPACES[name], np.random.default_rng(3).random(SPACES[name].shape) > 0.05
    half = load_fsaverage("fsaverage5")["pial"].parts["left"]
    mesh = Mesh(np.asarray(half.coordinates, dtype=float), np.asarray(half.faces))
    space = Surface("fsaverage5", {"L": len(mesh.coordinates)}, {"L": mesh})
    return space, np.linalg.norm(mesh.coordinates - mesh.coordinates[5000], axis=1) < 25


def mne_adjacency(space: Space, mask: np.ndarray) -> sparse.coo_array:
    """Neighbours on meshes, and in the block of voxels, as mne finds them."""
    parts = [sparse.csr_array(spatial_tris_adjacency(mesh.triangles, verbose=False)) for mesh in space.meshes.values()]
    if isinstance(space, Grayordinates):
        parts = [*(part[WALL:, WALL:] for part in parts), combine_adjacency(3, 3, 3)]
    return sparse.coo_array(sparse.block_diag(parts, format="csr")[mask][:, mask])


@pytest.mark.parametrize("name", PATCHES)
def test_the_enhancement_on_a_mesh_is_the_limit_of_that_of_mne(name: str) -> None:
    """Which adds up steps: its error goes to zero with them."""
    space, mask = some_features(name)
    z = np.random.default_rng(4).normal(size=mask.sum()) * 1.5
    enhanced = neighbours_in(mask, space).enhanced(z.astype(np.float32), two_sided=True)
    np.testing.assert_array_equal(np.sign(enhanced), np.sign(z))
    adjacency, errors = mne_adjacency(space, mask), []
    for n_steps in (10, 100, 1000):
        steps = {"start": 0, "step": np.abs(z).max() / n_steps, "h_power": 2, "e_power": 1}
        _, theirs = _find_clusters(z, steps, adjacency=adjacency)
        errors.append(np.abs(np.abs(enhanced) - theirs).max() / theirs.max())
    assert errors[2] < 0.002
    assert errors[2] < 0.2 * errors[1] < 0.04 * errors[0]


def few_participants(n_features: int) -> np.ndarray:
    """Values of six, whose signs can be flipped in 32 ways that give different |t|."""
    return np.random.default_rng(6).normal(size=(6, n_features)) + 0.4


def all_null_maxima(values: np.ndarray, space: Space, mask: np.ndarray, statistic: str) -> np.ndarray:
    """The largest statistics of so many random flips that all are among them, in order."""
    resampling = pooled_resampling(np.ones((6, 1)), np.ones(1))
    neighbours, seed = neighbours_in(mask, space), np.random.SeedSequence(1)
    block = permute_block(values, resampling, neighbours, 400, seed, resampling.threshold(0.05), True)
    ascending = np.sort(block.null_maxima[statistic])
    return ascending[np.diff(ascending, prepend=0) > 1e-5 * ascending]


@pytest.mark.slow
def test_the_null_maxima_of_the_enhancement_are_those_of_mne() -> None:
    mask = np.ones(SURFACE.shape, dtype=bool)
    values = few_participants(mask.size)
    ours = all_null_maxima(values, SURFACE, mask, "tfceFWE")
    steps = {"start": 0, "step": 0.05, "h_power": 2, "e_power": 1}
    *_, theirs = permutation_cluster_1samp_test(
        values, steps, n_permutations=1000, adjacency=mne_adjacency(SURFACE, mask), verbose=False
    )
    assert len(ours) == len(theirs) == 32
    np.testing.assert_allclose(ours, np.sort(theirs), rtol=0.02)


@pytest.mark.parametrize("name", PATCHES)
def test_the_largest_statistics_are_those_of_nilearn(name: str) -> None:
    """Whatever it draws: with six participants all flips come up on both sides."""
    space, mask = some_features(name)
    values = few_participants(int(mask.sum()))
    theirs = permuted_ols(
        np.ones((6, 1)), values, model_intercept=False, n_perm=400, two_sided_test=True, random_state=1,
        output_type="dict",
    )  # fmt: skip
    ascending = np.sort(theirs["h0_max_t"].ravel())
    expected = ascending[np.diff(ascending, prepend=0) > 1e-5 * ascending]
    ours = all_null_maxima(values, space, mask, "voxelFWE")
    assert len(ours) == 32
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    found = permute(
        values, pooled_resampling(np.ones((6, 1)), np.ones(1)), mask, n_permutations=2000, seed=5,
        executor=LocalExecutor(1, n_threads=1), description="permutations", space=space, tfce=False,
    )  # fmt: skip
    # what going through all flips gives
    exact = (expected[:, None] >= np.abs(theirs["t"].ravel()) * (1 - 1e-5)).mean(axis=0)
    np.testing.assert_allclose(10 ** -found.neg_log10_p["voxelFWE"], exact, atol=0.05)


def resampled(space: Space | None, mask: np.ndarray, values: np.ndarray) -> PermutationResult:
    resampling = pooled_resampling(np.ones((len(values), 1)), np.ones(1))
    return permute(
        values, resampling, mask, n_permutations=60, seed=5, executor=LocalExecutor(1, n_threads=1),
        description="permutations", space=space, cluster_forming_p=0.05,
    )  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_cluster_sizes_are_areas_and_masses_what_lies_above(name: str) -> None:
    space = SPACES[name]
    mask = np.arange(space.shape[0]) % 17 > 0
    values = np.random.default_rng(2).normal(size=(10, mask.sum()))
    resampling = pooled_resampling(np.ones((10, 1)), np.ones(1))
    threshold = resampling.threshold(0.05)
    block = permute_block(values, resampling, neighbours_in(mask, space), 3, np.random.SeedSequence(1), threshold, True)
    t = values.mean(axis=0) / (values.std(axis=0, ddof=1) / np.sqrt(10))
    areas = np.where(space.is_on_surface, space.sizes, space.sizes[space.is_on_surface].mean())[mask]
    adjacency = space.adjacency.toarray()[np.ix_(mask, mask)]
    size, mass = np.zeros(len(t)), np.zeros(len(t))
    for sign in (1, -1):
        for cluster in map(list, components(adjacency, sign * t > threshold)):
            size[cluster] = areas[cluster].sum()
            mass[cluster] = ((np.abs(t[cluster]) - threshold) * areas[cluster]).sum()
    assert (size > 0).sum() > 5
    for found, expected in {"voxelFWE": np.abs(t), "clusterSizeFWE": size, "clusterMassFWE": mass}.items():
        np.testing.assert_allclose(block.observed[found], expected, rtol=1e-5, atol=1e-5)
        assert block.null_maxima[found].shape == (3,)


def test_the_largest_statistic_needs_no_mesh_and_is_that_of_volumes() -> None:
    """Which is nilearn's; see test_permutation."""
    n = SURFACE.shape[0]
    values = np.random.default_rng(2).normal(size=(9, n)) + 0.5
    everywhere = np.ones(n, dtype=bool)
    volume = resampled(None, everywhere.reshape(-1, 2, 2), values)
    without = resampled(Surface("sphere", N_VERTICES), everywhere, values)
    for found in (resampled(SURFACE, everywhere, values), without):
        np.testing.assert_array_equal(found.neg_log10_p["voxelFWE"], volume.neg_log10_p["voxelFWE"])
    assert without.neg_log10_p.keys() == {"voxelFWE"}
    assert "Without a mesh" in without.warning and "mesh" not in volume.warning

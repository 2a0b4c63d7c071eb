"""Surface maps that nilearn's save_glm_to_bids wrote, and dense scalars as FitLins writes them, enter the group level."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.cifti2 import Cifti2Image, ScalarAxis
from nilearn.glm import save_glm_to_bids
from nilearn.glm.contrasts import compute_contrast
from nilearn.glm.first_level import FirstLevelModel, run_glm
from nilearn.glm.second_level import SecondLevelModel
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

import sessionfx
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.cli import main
from sessionfx.space.surface import HEMISPHERES
from surface_group import MESHES, WALL, grayordinates, write_meshes
from surfaces import signal
from surfaces import values as both

pytestmark = pytest.mark.slow

KEYS = tuple(product(("01", "02", "03", "04"), ("1", "2")))
EVENTS = pd.DataFrame({"onset": np.arange(5.0, 72, 9), "duration": 4.0, "trial_type": ["go", "stop"] * 4})
MESH = PolyMesh(**{side: InMemoryMesh(*_parts) for side, _parts in (
    (side, (MESHES[label].coordinates, MESHES[label].triangles)) for label, side in HEMISPHERES.items()
)})  # fmt: skip
SESSIONS = ("mean", "ses-2 - ses-1")


@dataclass(frozen=True)
class Foreign:
    """Maps of another program, and the results of the group level on them."""

    maps: Path
    output: Path

    def result(self, sessions: str, statistic: str) -> np.ndarray:
        start = f"*contrast-goMinusStop_sessions-{sessions}_strategy-summaryStatistics_stat-{statistic}_statmap*"
        return read_surfaces(
            sorted(path for path in (self.output / "group").glob(start) if path.suffix != ".json")
        ).data[0]


def series(number: int) -> SurfaceImage:
    """A run on the spheres; the wall has no data."""
    parts = {side: signal(part.n_vertices, seed=10 * number + len(side)).T for side, part in MESH.parts.items()}
    for part in parts.values():
        part[:WALL] = 0
    return SurfaceImage(MESH, {side: part.astype(np.float32) for side, part in parts.items()})


def fit(bold: SurfaceImage) -> FirstLevelModel:
    model = FirstLevelModel(t_r=2.0, high_pass=0.01, noise_model="ols", signal_scaling=0, minimize_memory=False)
    return model.fit(bold, EVENTS)


def group(maps: Path, output: Path, *options: str) -> int:
    raw = maps.parent / "raw"
    raw.mkdir(exist_ok=True)
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    asked = [word for text in SESSIONS for word in ("--session-contrast", text)]
    return main([str(raw), str(output), "group", "-d", str(maps), "--nprocs", "1", "--no-report", *asked, *options])


@pytest.fixture(scope="module")
def nilearns(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    root = tmp_path_factory.mktemp("nilearn")
    for number, (participant, session) in enumerate(KEYS):
        save_glm_to_bids(
            fit(series(number)), {"go - stop": "go - stop"}, out_dir=root / "maps",
            prefix=f"sub-{participant}_ses-{session}_task-a",
        )  # fmt: skip
    write_meshes(root / "maps")
    assert group(root / "maps", root / "out", "--space", "sphere", "--cluster-threshold", "2") == 0
    return Foreign(root / "maps", root / "out")


def second_level(images: list[SurfaceImage]) -> dict[str, np.ndarray]:
    model = SecondLevelModel().fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(len(images))}))
    return {name: both(image) for name, image in model.compute_contrast("intercept", output_type="all").items()}


def saved(maps: Path, participant: str, session: str) -> SurfaceImage:
    start = maps / f"sub-{participant}" / f"sub-{participant}_ses-{session}_task-a"
    ending = "den-162_contrast-goMinusStop_stat-effect_statmap.gii"
    return SurfaceImage(MESH, {side: f"{start}_hemi-{label}_{ending}" for label, side in HEMISPHERES.items()})


def combined(first: SurfaceImage, second: SurfaceImage, weights: tuple[float, float]) -> SurfaceImage:
    return SurfaceImage(MESH, {
        side: np.dot(np.stack([part, second.data.parts[side]], axis=-1).astype(np.float64), weights)
        for side, part in first.data.parts.items()
    })  # fmt: skip


@pytest.mark.parametrize(("sessions", "weights"), [("mean", (0.5, 0.5)), ("ses2MinusSes1", (-1.0, 1.0))])
def test_the_group_of_nilearns_maps_equals_second_level_model(
    nilearns: Foreign, sessions: str, weights: tuple[float, float]
) -> None:
    images = [
        combined(saved(nilearns.maps, who, "1"), saved(nilearns.maps, who, "2"), weights)
        for who in ("01", "02", "03", "04")
    ]
    theirs = second_level(images)
    z = nilearns.result(sessions, "z")
    inside = z != 0
    for name, other in {"effect": "effect_size", "t": "stat", "z": "z_score"}.items():
        mine = nilearns.result(sessions, name)
        np.testing.assert_allclose(mine[inside], theirs[other].astype(np.float32)[inside], rtol=2e-6, atol=1e-7)
    wall = np.concatenate([np.arange(len(mesh.coordinates)) < WALL for mesh in MESHES.values()])
    assert np.array_equal(inside, ~wall)


def test_the_group_of_nilearns_maps_equals_that_of_our_own(nilearns: Foreign) -> None:
    rows = []
    for number, (participant, session) in enumerate(KEYS):
        run = sessionfx.fit_run(series(number), EVENTS, "go - stop", t_r=2.0, noise_model="ols")
        rows.append((participant, session, sessionfx.combine([run["goMinusStop"]])))
    own = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "estimate"]))
    for text, sessions in zip(SESSIONS, ("mean", "ses2MinusSes1"), strict=True):
        mine = sessionfx.estimate(own, text, strategy="summary-statistics")["summary-statistics"]
        inside = both(mine.mask) > 0
        np.testing.assert_allclose(nilearns.result(sessions, "z")[inside], both(mine.z)[inside], rtol=1e-4, atol=1e-5)
        assert np.array_equal(inside, nilearns.result(sessions, "z") != 0)


def test_without_a_space_no_mesh_is_found_and_the_remedy_is_said(nilearns: Foreign) -> None:
    said = "the names of the maps say no space. Name it with --space, such as fsaverage5."
    for space, is_said in ((None, True), ("sphere", False)):
        maps = sessionfx.load_session_maps(nilearns.maps, space=space)
        estimates = sessionfx.estimate(maps, strategy="summary-statistics")
        assert any(said in warning for warning in estimates.warnings) == is_said


# FitLins ----------------------------------------------------------------------------------------------------


def dense_scalars(path: Path, row: np.ndarray, name: str) -> None:
    """Write a map as FitLins does: one row, called by nilearn's name of the statistic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Cifti2Image(row.reshape(1, -1).astype(np.float32), (ScalarAxis([name]), grayordinates().axis))
    image.nifti_header.set_intent("ConnDenseScalar")
    nib.save(image, path)


@pytest.fixture(scope="module", params=[
    "node-sessionLevel/sub-{0}/ses-{1}/sub-{0}_ses-{1}_contrast-goMinusStop_stat-{2}_statmap.dscalar.nii",
    "node-session/sub-{0}/ses-{1}/sub-{0}_ses-{1}_task-a_space-fsLR_contrast-goMinusStop_stat-{2}_statmap.dscalar.nii",
])  # fmt: skip
def fitlins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    root = tmp_path_factory.mktemp("fitlins")
    n = len(grayordinates().axis)
    for number, (participant, session) in enumerate(KEYS):
        design = fit(series(number)).design_matrices_[0]
        labels, results = run_glm(signal(n, seed=number).astype(np.float32), design.to_numpy())
        vector = np.array([(column == "go") - float(column == "stop") for column in design.columns])
        contrast = compute_contrast(labels, results, vector)
        for statistic, name in (
            ("effect", "effect_size"), ("variance", "effect_variance"), ("z", "z_score"), ("p", "p_value"), ("t", "stat"),
        ):  # fmt: skip
            path = root / "maps" / request.param.format(participant, session, statistic)
            dense_scalars(path, getattr(contrast, name)(), name)
    assert group(root / "maps", root / "out", "--strategy", "summary-statistics", "meta") == 0
    return Foreign(root / "maps", root / "out")


@pytest.mark.parametrize(("sessions", "weights"), [("mean", (0.5, 0.5)), ("ses2MinusSes1", (-1.0, 1.0))])
def test_the_group_of_fitlins_maps_equals_run_glm(
    fitlins: Foreign, sessions: str, weights: tuple[float, float]
) -> None:
    def effect(participant: str, session: str) -> np.ndarray:
        (path,) = fitlins.maps.rglob(f"sub-{participant}_ses-{session}_*stat-effect_statmap.dscalar.nii")
        return nib.load(path).get_fdata()[0]

    values = np.array([
        weights[0] * effect(who, "1") + weights[1] * effect(who, "2") for who in ("01", "02", "03", "04")
    ])  # fmt: skip
    labels, results = run_glm(values, np.ones((4, 1)), noise_model="ols")
    contrast = compute_contrast(labels, results, np.ones(1))
    for name, expected in {"effect": contrast.effect_size(), "t": contrast.stat(), "z": contrast.z_score()}.items():
        mine = fitlins.result(sessions, name)
        np.testing.assert_allclose(mine, np.ravel(expected), rtol=1e-6, atol=1e-6, err_msg=name)
    written = next((fitlins.output / "group").glob("*stat-effect_statmap.dscalar.nii"))
    assert nib.load(written).header.get_axis(1) == grayordinates().axis

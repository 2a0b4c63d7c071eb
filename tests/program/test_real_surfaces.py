"""On a real series on fsaverage5: runs, sessions and the group give nilearn's numbers on a SurfaceImage.

The series is one of rest, of 652 volumes, that the wheel of brainspace ships (BSD-3-Clause; `make test` installs it). It has
no mean, so that one is added: what is real is how vertices, their noise and the medial wall are.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm import compute_fixed_effects
from nilearn.glm.second_level import SecondLevelModel
from nilearn.surface import PolyData, SurfaceImage

from array_study import Study
from bids_trees import select
from real_layouts import derivatives, describe, write
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.options import FirstLevelModel as Model
from sessionfx.participant.analysis import combine_maps, combine_runs
from sessionfx.participant.run import FittedRun, analyse_run
from surfaces import assert_same, by_nilearn, mesh_of, values, write_gifti

TR = 1.4
VERTICES = {"L": 10_242, "R": 10_242}
SIDES = {"L": "left", "R": "right"}
CONTRAST = parse_contrast("go - stop")
BRAINSPACE = importlib.util.find_spec("brainspace")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BRAINSPACE is None, reason="brainspace ships the series")]


@pytest.fixture(scope="module")
def series() -> dict[str, np.ndarray]:
    """Of each hemisphere, of shape (652, 10242)."""
    folder = Path(BRAINSPACE.origin).parent / "datasets" / "preprocessing"
    start = "sub-010188_ses-02_task-rest_acq-AP_run-01.fsa5"
    found = {
        hemi: np.asarray(nib.load(folder / f"{start}.{hemi.lower()}h.mgz").dataobj, dtype=np.float32).squeeze().T
        for hemi in VERTICES
    }
    return {hemi: np.where(data.std(axis=0) > 0, 100 + data, 0) for hemi, data in found.items()}


def write_run(root: Path, series: dict[str, np.ndarray], volumes: slice, **entities: str) -> None:
    """Write a part of the series as a run, with events."""
    start = "_".join(f"{key}-{label}" for key, label in {"sub": "01", "ses": "1", "task": "a", **entities}.items())
    folder = Path(f"sub-{entities.get('sub', '01')}") / f"ses-{entities.get('ses', '1')}" / "func"
    n_volumes = volumes.stop - volumes.start
    onsets = np.arange(4, TR * n_volumes - 12, 7.0)
    order = np.random.default_rng(volumes.start).permutation(np.arange(len(onsets)) % 2)
    events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": np.array(["go", "stop"])[order]})
    write(root / folder / f"{start}_events.tsv", events.to_csv(sep="\t", index=False))
    write(root / folder / f"{start}_bold.json", json.dumps({"RepetitionTime": TR}))
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "23.1.3") / folder
    for hemi, data in series.items():
        write_gifti(prep / f"{start}_hemi-{hemi}_space-fsaverage5_bold.func.gii", data[volumes])


def fitted_runs(root: Path) -> list[FittedRun]:
    runs = select(root, space="fsaverage5").every_run
    return [analyse_run(run, [CONTRAST], Model(confounds=("none",))) for run in runs]


def surface_image(data: np.ndarray) -> SurfaceImage:
    """Put values of shape (n,) or (n, N) of both hemispheres on a mesh."""
    halves = np.split(data, 2)
    return SurfaceImage(mesh_of(VERTICES), PolyData(**dict(zip(SIDES.values(), halves, strict=True))))


def test_a_run_equals_nilearns(tmp_path: Path, series: dict[str, np.ndarray]) -> None:
    describe(tmp_path, "rest")
    write_run(tmp_path, series, slice(0, 652))
    (fitted,) = fitted_runs(tmp_path)
    assert (~fitted.mask).sum() == 888 + 881, "FreeSurfer's medial wall"
    theirs, ours = (
        by_nilearn([fitted], CONTRAST.expression, mesh_of(VERTICES)),
        fitted.estimates[CONTRAST.label].estimate,
    )
    for name, value in {"effect_size": ours.effect, "effect_variance": ours.variance, "z_score": ours.z}.items():
        assert_same(value, theirs[name])


@pytest.mark.filterwarnings("ignore:The same contrast:RuntimeWarning")
def test_sessions_equal_nilearns(tmp_path: Path, series: dict[str, np.ndarray]) -> None:
    """Runs within a session, and sessions by `compute_fixed_effects` with the degrees of freedom of each."""
    describe(tmp_path, "rest")
    write_run(tmp_path, series, slice(0, 160), run="1")
    write_run(tmp_path, series, slice(160, 320), run="2")
    write_run(tmp_path, series, slice(320, 480), ses="2", run="1")
    first, second, other = fitted_runs(tmp_path)
    session = combine_runs([first, second], CONTRAST, Model())
    theirs = by_nilearn([first, second], CONTRAST.expression, mesh_of(VERTICES))
    assert_same(session.estimate.effect, theirs["effect_size"])
    assert_same(session.estimate.variance, theirs["effect_variance"])

    maps = {"ses-1": session, "ses-2": other.estimates[CONTRAST.label]}
    combined = combine_maps(maps, [0.5, 0.5], Model(), is_mean=True)
    images = [
        [surface_image(stat_map.volume(getattr(stat_map.estimate, name))) for stat_map in maps.values()]
        for name in ("effect", "variance")
    ]
    dofs = [float(np.median(stat_map.estimate.dof)) for stat_map in maps.values()]
    effect, variance, t, _ = compute_fixed_effects(*images, mask=surface_image(combined.mask), dofs=dofs)
    estimate = combined.estimate
    for ours, image in ((estimate.effect, effect), (estimate.variance, variance), (estimate.t, t)):
        assert_same(ours, values(image).ravel()[combined.mask])


def test_the_group_equals_nilearns(tmp_path: Path, series: dict[str, np.ndarray]) -> None:
    describe(tmp_path, "rest")
    for number in range(6):
        write_run(tmp_path, series, slice(100 * number, 100 * number + 100), sub=f"0{number + 1}")
    fitted = fitted_runs(tmp_path)
    mask = np.logical_and.reduce([run.estimates[CONTRAST.label].mask for run in fitted])
    # as nilearn's `concat_imgs` rounds them
    effects = np.stack([run.estimates[CONTRAST.label].within(mask).estimate.effect for run in fitted])
    effects = effects.astype(np.float32)
    study = Study(np.ones((6, 1), dtype=bool))
    plan = STRATEGIES["summary-statistics"].plan(study.layout, study.question("mean"), GroupOptions())
    ours = plan.estimate(effects.astype(np.float64), None)

    images = []
    for effect in effects:
        whole = np.zeros(len(mask), dtype=np.float32)
        whole[mask] = effect
        images.append(surface_image(whole))
    model = SecondLevelModel(mask_img=surface_image(mask), minimize_memory=False)
    model.fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(6)}))
    theirs = model.compute_contrast("intercept", output_type="all")
    for value, name in ((ours.effect, "effect_size"), (ours.variance, "effect_variance"), (ours.z, "z_score")):
        assert_same(value, values(theirs[name]).ravel()[mask])

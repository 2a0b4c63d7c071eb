"""A study on surfaces as fMRIPrep writes it: two sessions of one participant, a run each, in GIFTI and CIFTI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis
from nibabel.gifti import GiftiDataArray, GiftiImage
from nilearn.glm.first_level import FirstLevelModel
from nilearn.surface import InMemoryMesh, PolyData, PolyMesh, SurfaceImage

from real_layouts import N_VOLUMES, derivatives, describe, write, write_confounds, write_events
from sessionfx.bids.names import of_hemisphere
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.participant.run import FittedRun
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES

TR = 2.0
N_VERTICES = {"L": 50, "R": 60}
WALL = 5  # the first vertices of each hemisphere have no data


def brain_models(
    n: Mapping[str, int] = N_VERTICES,
    *,
    wall: int = WALL,
    further: int = 0,
    block: tuple[int, int, int] = (2, 2, 2),
    size: float = 2.0,
) -> BrainModelAxis:
    """Both hemispheres' vertices after the wall, of meshes with some further ones, and a block of voxels below."""
    left, right = (
        BrainModelAxis.from_surface(np.arange(wall, count), count + further, name=f"Cortex{side}")
        for count, side in zip(n.values(), ("Left", "Right"), strict=True)
    )
    below = BrainModelAxis.from_mask(np.ones(block), affine=np.diag([size, size, size, 1]), name="THALAMUS_LEFT")
    return left + right + below


def write_gifti(path: Path, series: np.ndarray) -> Path:
    """Write a series of shape (T, n), an array for each volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [GiftiDataArray(volume.astype(np.float32), intent="time series") for volume in series]
    nib.save(GiftiImage(darrays=arrays), path)
    return path


def write_cifti(path: Path, series: np.ndarray, models: BrainModelAxis, *, step: float = TR) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(Cifti2Image(series.astype(np.float32), (SeriesAxis(0, step, len(series)), models)), path)
    return path


def signal(n: int, *, seed: int) -> np.ndarray:
    """Autocorrelated noise about a mean, of shape (T, n)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((N_VOLUMES, n))
    noise[1:] += 0.3 * noise[:-1]
    return 1000 + 10 * noise


def surface_study(
    root: Path,
    *,
    sessions: tuple[str, ...] = ("1", "2"),
    n: Mapping[str, int] = N_VERTICES,
    space: str = "fsaverage5",
    wall: int = WALL,
) -> Path:
    """Write the study: fsaverage5 and fsLR; the wall is NaN on the left, and constant on the right."""
    describe(root, "surfaces")
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "23.1.3")
    for number, session in enumerate(sessions):
        start = f"sub-01/ses-{session}/func/sub-01_ses-{session}_task-a"
        write_events(root / f"{start}_events.tsv", ("go", "stop"), seed=number)
        write_confounds(prep / f"{start}_desc-confounds_timeseries.tsv", seed=number)
        write(root / f"{start}_bold.json", json.dumps({"RepetitionTime": TR}))
        for side, (hemi, n_vertices) in enumerate(n.items()):
            series = signal(n_vertices, seed=10 * number + side)
            series[:, :wall] = np.nan if hemi == "L" else 0.0
            write_gifti(prep / f"{start}_hemi-{hemi}_space-{space}_bold.func.gii", series)
        models = brain_models()
        path = prep / f"{start}_space-fsLR_den-91k_bold.dtseries.nii"
        write_cifti(path, signal(len(models), seed=100 + number), models)
        write(prep / f"{start}_space-fsLR_den-91k_bold.json", json.dumps({"RepetitionTime": TR}))
    return root


def mesh_of(n: Mapping[str, int]) -> PolyMesh:
    """Some mesh with so many vertices: nilearn's GLM counts them only."""
    rng = np.random.default_rng(0)
    parts = {
        side: InMemoryMesh(rng.normal(size=(n[hemi], 3)), rng.permuted(np.arange(n[hemi]))[:9].reshape(3, 3))
        for hemi, side in (("L", "left"), ("R", "right"))
    }
    return PolyMesh(**parts)


def opened_in_nilearn(path: Path, n: Mapping[str, int] = N_VERTICES) -> SurfaceImage:
    """Open the files of both hemispheres, named as one, with nilearn."""
    data = PolyData(**{side: of_hemisphere(path, hemi) for hemi, side in (("L", "left"), ("R", "right"))})
    return SurfaceImage(mesh_of(n), data)


def values(image: SurfaceImage) -> np.ndarray:
    """Both hemispheres in one array, the left first."""
    return np.concatenate([image.data.parts[side] for side in ("left", "right")]).astype(np.float64)


def by_nilearn(fitted: Sequence[FittedRun], contrast: str, mesh: PolyMesh, **options: Any) -> dict[str, np.ndarray]:
    """Fit the series of runs with their designs by nilearn: maps within the mask, by nilearn's names."""

    def image(whole: np.ndarray) -> SurfaceImage:
        part = fitted[0].mean.space.part
        return SurfaceImage(mesh, PolyData(**{side: whole[part(hemi)] for hemi, side in HEMISPHERES.items()}))

    settings = {"noise_model": "ar1", "signal_scaling": 0, "minimize_memory": False, **options}
    model = FirstLevelModel(mask_img=image(fitted[0].mask), **settings).fit(
        [image(read_surfaces(run.run.images).data.T) for run in fitted],
        design_matrices=[run.design.matrix.reset_index(drop=True) for run in fitted],
    )
    found = model.compute_contrast(contrast, output_type="all")
    return {name: values(of_vertices).ravel()[fitted[0].mask] for name, of_vertices in found.items()}


def assert_same(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


def write_surface(path: Path, mesh: Mesh) -> Path:
    """Write the surface of a hemisphere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    intents = {"pointset": mesh.coordinates.astype(np.float32), "triangle": mesh.triangles.astype(np.int32)}
    nib.save(GiftiImage(darrays=[GiftiDataArray(array, intent=intent) for intent, array in intents.items()]), path)
    return path


def patch(rows: int, columns: int, *, seed: int = 0) -> Mesh:
    """A sheet of triangles about 3 mm wide, uneven as the cortex is: vertices row by row."""
    rng = np.random.default_rng(seed)
    i, j = (index.ravel() for index in np.mgrid[:rows, :columns])
    flat = np.stack([3.0 * j + 1.5 * (i % 2), 2.6 * i, np.zeros(i.size)], axis=1)
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1].ravel(), number[:-1, 1:].ravel(), number[1:, :-1].ravel(), number[1:, 1:].ravel()
    return Mesh(
        flat + rng.normal(scale=0.3, size=flat.shape), np.vstack([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    )

"""How fast one run on surfaces is fitted, beside nilearn's FirstLevelModel and beside what no program can save.

Each measurement is a process of its own, and counts as in run_level.py; further runs are those of a process that has
fitted one. nilearn has no CIFTI.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import harness
import nibabel as nib
import numpy as np
from datasets import CONFOUNDS, CONTRAST, N_COMPONENTS, REPETITION_TIME, TASK, Study, bold_path, make_study
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis
from nibabel.gifti import GiftiDataArray, GiftiImage
from numpy.typing import NDArray

VOLUMES = 300
PRODUCT_COLUMNS = 31
GRAYORDINATES = "fsLR_den-91k"
N_VERTICES = 10_242
# Vertices of a hemisphere of fsLR, those that are no medial wall, and voxels of structures: the 91k grayordinates
N_FSLR, N_CORTEX = 32_492, {"LEFT": 29_696, "RIGHT": 29_716}
N_VOXELS = {
    "ACCUMBENS_LEFT": 135, "ACCUMBENS_RIGHT": 140, "AMYGDALA_LEFT": 315, "AMYGDALA_RIGHT": 332, "BRAIN_STEM": 3472,
    "CAUDATE_LEFT": 728, "CAUDATE_RIGHT": 755, "CEREBELLUM_LEFT": 8709, "CEREBELLUM_RIGHT": 9144,
    "DIENCEPHALON_VENTRAL_LEFT": 706, "DIENCEPHALON_VENTRAL_RIGHT": 712, "HIPPOCAMPUS_LEFT": 764,
    "HIPPOCAMPUS_RIGHT": 795, "PALLIDUM_LEFT": 297, "PALLIDUM_RIGHT": 260, "PUTAMEN_LEFT": 1060, "PUTAMEN_RIGHT": 1010,
    "THALAMUS_LEFT": 1288, "THALAMUS_RIGHT": 1248,
}  # fmt: skip


def main(pairs: int) -> None:
    """Measure all forms and print a table."""
    print(as_table(measure_surfaces(pairs)))


def measure_surfaces(pairs: int = 3) -> list[dict[str, Any]]:
    """Measure a run of fsaverage5 and one of grayordinates, with and without smoothing."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = make_surfaces(Path(folder))
        for form in ("fsaverage5", "91k"):
            for fwhm in (0.0, 8.0):
                who = ["sessionfx", "again", "floor", *(["nilearn"] if form == "fsaverage5" else [])]
                commands = {name: [sys.executable, __file__, name, str(root), form, str(fwhm)] for name in who}
                runs = harness.in_turn(commands, rounds=pairs + 1)
                seconds = {name: float(np.median([float(run.said) for run in runs[name][1:]])) for name in commands}
                peaks = {name: float(np.median([run.peak for run in runs[name][1:]])) for name in commands}
                rows.append({"form": form, "fwhm": fwhm, "seconds": seconds, "peaks": peaks})
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| run | smoothing | SessionFX | further runs | nilearn | ratio | memory | floor | of the floor | further |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        seconds, peaks = row["seconds"], row["peaks"]
        ours, again, theirs, floor = (seconds.get(name) for name in ("sessionfx", "again", "nilearn", "floor"))
        beside = ("", "", f"{peaks['sessionfx']:.0f} MB")
        if theirs is not None:
            beside = (
                f"{theirs:.2f} s", f"**{theirs / ours:.1f}**", f"{peaks['sessionfx']:.0f} of {peaks['nilearn']:.0f} MB",
            )  # fmt: skip
        cells = (
            f"{row['form']}, {VOLUMES} volumes", f"{row['fwhm']:g} mm", f"{ours:.2f} s", f"{again:.2f} s", *beside,
            f"{floor:.2f} s", f"{ours / floor:.2f}", f"{again / floor:.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def make_surfaces(root: Path) -> Path:
    """Write a study of one run, and the same run on surfaces; fsLR has a made-up mesh."""
    make_study(root, Study(volumes=VOLUMES, voxel_size=12.0))
    rng = np.random.default_rng(0)
    for hemi in "LR":
        arrays = [GiftiDataArray(volume, intent="time series") for volume in _series(N_VERTICES, rng)]
        nib.save(
            GiftiImage(darrays=arrays),
            _start(root).with_name(f"{_start(root).name}_hemi-{hemi}_space-fsaverage5_bold.func.gii"),
        )
    axis = grayordinates()
    image = Cifti2Image(_series(len(axis), rng), (SeriesAxis(0, REPETITION_TIME, VOLUMES), axis))
    nib.save(image, _start(root).with_name(f"{_start(root).name}_space-fsLR_den-91k_bold.dtseries.nii"))
    write_meshes(root / "derivatives" / "fmriprep")
    return root


def write_meshes(folder: Path) -> None:
    """Write a made-up mesh of each hemisphere of fsLR."""
    for hemi in "LR":
        coordinates, triangles = _sheet(N_FSLR)
        arrays = [GiftiDataArray(coordinates, intent="pointset"), GiftiDataArray(triangles, intent="triangle")]
        nib.save(GiftiImage(darrays=arrays), folder / f"hemi-{hemi}_space-fsLR_den-32k_midthickness.surf.gii")


def grayordinates() -> BrainModelAxis:
    """Make an axis with as many vertices and voxels as the 91k grayordinates have; structures are balls."""
    grid = (91, 109, 91)
    center = np.array(grid).reshape(3, 1, 1, 1) // 2
    nearest = np.argsort(((np.indices(grid) - center) ** 2).sum(axis=0), axis=None, kind="stable")
    parts = [
        BrainModelAxis.from_surface(np.arange(n_vertices), N_FSLR, name=f"CORTEX_{side}")
        for side, n_vertices in N_CORTEX.items()
    ]
    for name, n_voxels in N_VOXELS.items():
        mask = np.zeros(grid, dtype=bool)
        mask.flat[nearest[:n_voxels]] = True
        parts.append(BrainModelAxis.from_mask(mask, affine=np.diag([2.0, 2, 2, 1]), name=name))
    axis = parts[0]
    for part in parts[1:]:
        axis = axis + part
    return axis


def _series(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    series = rng.standard_normal((VOLUMES, n), dtype=np.float32)
    series[1:] += np.float32(0.3) * series[:-1]
    return rng.uniform(600, 1400, n).astype(np.float32) * (1 + np.float32(0.01) * series)


def _sheet(n: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Make a sheet of triangles 2 mm wide."""
    width = 180
    place = np.arange(n)
    i, j = np.divmod(place, width)
    coordinates = np.stack([2.0 * j + i % 2, 1.7 * i, np.zeros(n)], axis=1).astype(np.float32)
    first = place[(j < width - 1) & (place + width + 1 < n)]
    above, right = first + width, first + 1
    triangles = np.vstack([np.stack([first, right, above], axis=1), np.stack([right, above + 1, above], axis=1)])
    return coordinates, triangles.astype(np.int32)


def _start(root: Path) -> Path:
    return bold_path(root).with_name(bold_path(root).name.split("_space-")[0])


def run_inputs(root: Path, form: str) -> Any:
    """Name the files of the run."""
    from sessionfx.bids.meshes import find_meshes
    from sessionfx.bids.runs import RunInputs

    start = _start(root)
    entities = {"sub": "01", "ses": "01", "task": TASK, "run": "1"}
    space = {"space": "fsaverage5"} if form == "fsaverage5" else {"space": "fsLR", "den": "91k"}
    endings = {
        "fsaverage5": [f"hemi-{hemi}_space-fsaverage5_bold.func.gii" for hemi in "LR"],
        "91k": ["space-fsLR_den-91k_bold.dtseries.nii"],
    }[form]
    images = [start.with_name(f"{start.name}_{ending}") for ending in endings]
    return RunInputs(
        entities, images[0], None, root / "sub-01" / "ses-01" / "func" / f"{start.name}_events.tsv",
        start.with_name(f"{start.name}_desc-confounds_timeseries.tsv"), {"RepetitionTime": REPETITION_TIME},
        other_hemisphere=images[1] if len(images) > 1 else None,
        meshes=find_meshes(space, [root / "derivatives" / "fmriprep"]),
    )  # fmt: skip


def fit_with_sessionfx(root: Path, form: str, fwhm: float) -> float:
    """Fit the run; return seconds."""
    import nilearn.glm.first_level  # noqa: F401 - importing is not counted
    from threadpoolctl import threadpool_limits

    from sessionfx.ask.contrasts import parse_contrast
    from sessionfx.options import FirstLevelModel
    from sessionfx.participant.run import analyse_run

    threadpool_limits(1)  # as the program does
    run = run_inputs(root, form)
    started = time.perf_counter()
    analyse_run(run, [parse_contrast(CONTRAST)], FirstLevelModel(smoothing_fwhm=fwhm or None, confounds=CONFOUNDS))
    return time.perf_counter() - started


def fit_again(root: Path, form: str, fwhm: float) -> float:
    """Fit the run a second time in one process, which knows the axis of a CIFTI file by then; return seconds."""
    fit_with_sessionfx(root, form, fwhm)
    return fit_with_sessionfx(root, form, fwhm)


def fit_with_nilearn(root: Path, form: str, fwhm: float) -> float:
    """Fit the run of fsaverage5; return seconds."""
    import pandas as pd
    from nilearn.datasets import load_fsaverage
    from nilearn.glm.first_level import FirstLevelModel
    from nilearn.surface import SurfaceImage

    warnings.simplefilter("ignore")
    run = run_inputs(root, form)
    started = time.perf_counter()
    columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    columns += [f"a_comp_cor_{i:02d}" for i in range(N_COMPONENTS)]
    left, right = run.images
    series = SurfaceImage(load_fsaverage("fsaverage5")["pial"], {"left": left, "right": right})
    model = FirstLevelModel(
        t_r=REPETITION_TIME, hrf_model="glover", drift_model="cosine", high_pass=0.01, noise_model="ar1",
        signal_scaling=0, smoothing_fwhm=fwhm or None,
    )  # fmt: skip
    model.fit(series, events=pd.read_csv(run.events, sep="\t"), confounds=pd.read_csv(run.confounds, sep="\t")[columns])
    for kind in ("size", "variance"):
        model.compute_contrast(CONTRAST, output_type=f"effect_{kind}")
    return time.perf_counter() - started


def find_floor(root: Path, form: str, fwhm: float) -> float:
    """Decode the files, multiply the signal with 31 regressors once, smooth it; return seconds."""
    from threadpoolctl import threadpool_limits

    from sessionfx.bids.meshes import with_meshes
    from sessionfx.bids.surfaces import read_surfaces
    from sessionfx.participant.smoothing import SurfaceSmoother

    threadpool_limits(1)
    run = run_inputs(root, form)
    regressors = np.random.default_rng(0).normal(size=(PRODUCT_COLUMNS, VOLUMES))
    space = read_surfaces(run.images).space
    smoother = SurfaceSmoother(with_meshes(space, run.meshes), np.ones(space.shape, dtype=bool), fwhm) if fwhm else None
    started = time.perf_counter()
    if form == "fsaverage5":
        arrays = [np.stack([array.data for array in nib.load(path).darrays]) for path in run.images]
        signal = np.hstack(arrays).astype(np.float64)
    else:
        signal = np.asarray(nib.load(run.bold).dataobj, dtype=np.float64)
    if smoother is not None:
        smoother.smooth(signal)
    for start in range(0, signal.shape[1], 1024):
        regressors @ signal[:, start : start + 1024]
    return time.perf_counter() - started


if __name__ == "__main__":
    if len(sys.argv) > 3:
        measured = {
            "sessionfx": fit_with_sessionfx, "again": fit_again, "nilearn": fit_with_nilearn, "floor": find_floor,
        }[sys.argv[1]]  # fmt: skip
        print(measured(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
    else:
        main(harness.times_asked("--pairs", __doc__))

"""How fast one run is fitted, beside nilearn's FirstLevelModel and beside what no program can save.

Each measurement is a process of its own. Its time counts from the files to the effect and variance maps of one
contrast, without starting Python and importing; its memory is that of the whole process.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import harness
import numpy as np
from datasets import CONFOUNDS, CONTRAST, N_COMPONENTS, REPETITION_TIME, SPACE, TASK, Study, bold_path, make_study
from numpy.typing import NDArray

PRODUCT_COLUMNS = 31
STATISTICS = {"effect": "size", "variance": "variance"}  # ours, and the second half of nilearn's names


def main(pairs: int) -> None:
    """Measure all sizes and print a table."""
    print(as_table(measure_runs(pairs)))


def measure_runs(pairs: int = 3) -> list[dict[str, Any]]:
    """Measure runs of two voxel sizes and lengths, with and without smoothing; long runs in one pair each."""
    rows = []
    for voxel_size, volumes in ((2.0, 200), (2.0, 600), (3.0, 200), (3.0, 600)):
        with tempfile.TemporaryDirectory() as folder:
            root = make_study(Path(folder), Study(volumes=volumes, voxel_size=voxel_size))
            for fwhm in (0.0, 5.0):
                # long runs take minutes with nilearn: one pair tells whether they tell the same
                found = _measure(root, fwhm, pairs if volumes == 200 else 1, is_long=volumes > 200)
                rows.append({"voxel_size": voxel_size, "volumes": volumes, "fwhm": fwhm, **found})
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| run | smoothing | SessionFX | nilearn | ratio | processor time | memory | floor | of the floor "
        "| largest difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        differs = "" if row["difference"] is None else f"{row['difference']:.0e}"
        lines.append(
            f"| {row['voxel_size']:g} mm, {row['volumes']} volumes | {row['fwhm']:g} mm | {row['ours']:.2f} s "
            f"| {row['nilearn']:.2f} s | **{row['ratio']:.1f}** | {row['cpu']:.1f} "
            f"| {row['peak']:.0f} of {row['nilearn_peak']:.0f} MB ({row['peak'] / row['nilearn_peak']:.2f}) "
            f"| {row['floor']:.2f} s | {row['ours'] / row['floor']:.2f} | {differs} |"
        )
    return "\n".join(lines)


def _measure(root: Path, fwhm: float, pairs: int, *, is_long: bool) -> dict[str, Any]:
    commands = {who: [sys.executable, __file__, who, str(root), str(fwhm)] for who in ("sessionfx", "nilearn", "floor")}
    uncounted = 0 if is_long else 1
    found = harness.in_turn(commands, rounds=pairs + uncounted)
    ours_runs, nilearn_runs, floors = (found[who][uncounted:] for who in commands)
    compared = harness.Comparison(ours_runs, nilearn_runs)
    ours, theirs = ([float(run.said) for run in runs] for runs in (compared.ours, compared.peer))
    return {
        "ours": float(np.median(ours)),
        "nilearn": float(np.median(theirs)),
        "ratio": float(np.median(np.divide(theirs, ours))),
        "cpu": compared.ratio("cpu"),
        "peak": compared.median("ours", "peak"),
        "nilearn_peak": compared.median("peer", "peak"),
        "floor": float(np.median([float(run.said) for run in floors])),
        "difference": None
        if is_long
        else float(harness.measure([sys.executable, __file__, "difference", str(root), str(fwhm)]).said),
    }


def fit_with_sessionfx(root: Path, fwhm: float) -> tuple[float, dict[str, NDArray[np.float64]]]:
    """Fit the run.

    Returns
    -------
    seconds : float
    maps : dict of str to ndarray, 3-D
        `effect` and `variance`, NaN outside the mask.
    """
    import nilearn.glm.first_level  # noqa: F401 - importing is not counted
    from threadpoolctl import threadpool_limits

    from sessionfx.ask.contrasts import parse_contrast
    from sessionfx.options import FirstLevelModel
    from sessionfx.participant.run import analyse_run

    threadpool_limits(1)  # as the program does
    run = run_inputs(root)
    model = FirstLevelModel(smoothing_fwhm=fwhm or None, confounds=CONFOUNDS)
    started = time.perf_counter()
    (fitted,) = analyse_run(run, [parse_contrast(CONTRAST)], model).estimates.values()
    maps = {name: fitted.volume(getattr(fitted.estimate, name)) for name in STATISTICS}
    return time.perf_counter() - started, maps


def fit_with_nilearn(root: Path, fwhm: float) -> tuple[float, dict[str, NDArray[np.float64]]]:
    """Fit the run; see `fit_with_sessionfx`."""
    import pandas as pd
    from nilearn.glm.first_level import FirstLevelModel

    warnings.simplefilter("ignore")
    run = run_inputs(root)
    started = time.perf_counter()
    columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    columns += [f"a_comp_cor_{i:02d}" for i in range(N_COMPONENTS)]
    model = FirstLevelModel(
        t_r=REPETITION_TIME,
        hrf_model="glover", drift_model="cosine", high_pass=0.01, noise_model="ar1", signal_scaling=0,
        smoothing_fwhm=fwhm or None, mask_img=str(run.mask),
    )  # fmt: skip
    model.fit(
        str(run.bold), events=pd.read_csv(run.events, sep="\t"), confounds=pd.read_csv(run.confounds, sep="\t")[columns]
    )
    found = {name: model.compute_contrast(CONTRAST, output_type=f"effect_{kind}") for name, kind in STATISTICS.items()}
    seconds = time.perf_counter() - started
    return seconds, {name: image.get_fdata() for name, image in found.items()}


def difference(root: Path, fwhm: float) -> float:
    """Find the largest difference between the two programs' maps.

    Relative to the value, and for effects near zero to a thousandth of the map's largest.
    """
    ours, theirs = (fit(root, fwhm)[1] for fit in (fit_with_sessionfx, fit_with_nilearn))
    found = 0.0
    for name in STATISTICS:
        inside = np.isfinite(ours[name])
        mine, other = ours[name][inside], theirs[name][inside]
        scale = np.maximum(np.abs(other), 1e-3 * np.abs(other).max())
        found = max(found, float((np.abs(mine - other) / scale).max()))
    return found


def find_floor(root: Path, fwhm: float) -> float:
    """Decompress the file, multiply its signal with 31 regressors once, smooth the volumes; return seconds."""
    from isal import igzip
    from threadpoolctl import threadpool_limits

    from sessionfx.participant.bold import open_series, read_run

    threadpool_limits(1)
    run = run_inputs(root)
    image = open_series(run.bold)
    signal = np.asarray(read_run(image, run.bold, run.mask, None).signal, dtype=np.float64)
    regressors = np.random.default_rng(0).normal(size=(PRODUCT_COLUMNS, len(signal)))
    started = time.perf_counter()
    content = bytearray(int(np.prod(image.shape[:3])) * image.get_data_dtype().itemsize)
    with igzip.open(run.bold, "rb") as stream:
        while stream.readinto(content):
            pass
    for start in range(0, signal.shape[1], 1024):
        regressors @ signal[:, start : start + 1024]
    seconds = time.perf_counter() - started
    return seconds + (_smoothing_seconds(image, run.mask, fwhm) if fwhm else 0.0)


def _smoothing_seconds(image: Any, mask: Path | None, fwhm: float) -> float:
    """Time scipy's filter alone on the brain's bounding box."""
    import nibabel as nib
    from scipy.ndimage import gaussian_filter1d

    brain = nib.load(mask).get_fdata() > 0
    bounds = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    voxel_size = float(image.header.get_zooms()[0])
    sigma = fwhm / (np.sqrt(8 * np.log(2)) * voxel_size)
    volume = np.ones([int(last - first + 1) for first, last in bounds], dtype=np.float32)
    started = time.perf_counter()
    for _ in range(image.shape[3]):
        for axis in range(3):
            gaussian_filter1d(volume, sigma, axis=axis, output=np.float32)
    return time.perf_counter() - started


def run_inputs(root: Path) -> Any:
    """Name the files of the first run."""
    from sessionfx.bids.runs import RunInputs

    entities = {"sub": "01", "ses": "01", "task": TASK, "run": "1"}
    bold = bold_path(root)
    start = bold.name.split("_space-")[0]
    return RunInputs(
        entities, bold, bold.with_name(f"{start}_space-{SPACE}_desc-brain_mask.nii.gz"),
        root / "sub-01" / "ses-01" / "func" / f"{start}_events.tsv",
        bold.with_name(f"{start}_desc-confounds_timeseries.tsv"), {"RepetitionTime": REPETITION_TIME},
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 3:
        root, fwhm = Path(sys.argv[2]), float(sys.argv[3])
        if sys.argv[1] in ("floor", "difference"):
            print({"floor": find_floor, "difference": difference}[sys.argv[1]](root, fwhm))
        else:
            print({"sessionfx": fit_with_sessionfx, "nilearn": fit_with_nilearn}[sys.argv[1]](root, fwhm)[0])
    else:
        main(harness.times_asked("--pairs", __doc__))

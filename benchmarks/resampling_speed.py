"""Time and memory of resampling a whole brain, and nilearn's permuted_ols on a smaller map.

`python benchmarks/resampling_speed.py [N_DRAWS] [N_PROCESSES]`: 235,000 voxels, 20 participants, 3 sessions, everything
(largest t, cluster size and mass, TFCE) by summary-statistics and by marginal. Time is extrapolated to 1,000 draws.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.maskers import NiftiMasker
from nilearn.mass_univariate import permuted_ols
from numpy.typing import NDArray
from scipy import ndimage

from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.execution import LocalExecutor
from sessionfx.group.permutation import memory_of_a_block, permute
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from array_maps import MapsInMemory, estimate_in_blocks

N, SESSIONS, FWHM = 20, ("1", "2", "3"), 2.5


def ellipsoid(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Fill half of a box, as a brain does."""
    place = np.indices(shape).astype(float)
    centre = [(size - 1) / 2 for size in shape]
    return sum(((p - c) / (0.49 * size)) ** 2 for p, c, size in zip(place, centre, shape, strict=True)) < 1


def smooth_maps(n_maps: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Make smooth noise at the voxels of a mask."""
    generator = np.random.default_rng(0)
    sigma = FWHM / np.sqrt(8 * np.log(2))
    return np.array(
        [ndimage.gaussian_filter(generator.normal(size=mask.shape), sigma)[mask] for _ in range(n_maps)], np.float32
    )


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Print seconds and gigabytes."""
    given = sys.argv[1:3]
    n_draws, n_processes = map(int, [*given, *["100", "1"][len(given) :]])
    mask = ellipsoid((72, 90, 73))
    effects = smooth_maps(N * len(SESSIONS), mask)
    layout = MapLayout(tuple(f"{person:02d}" for person in range(N) for _ in SESSIONS), SESSIONS * N)
    question = Question(resolve_session_contrasts(["ses-3 - ses-1"], SESSIONS)[0])
    print(f"{mask.sum()} voxels, {n_draws} draws, {n_processes} process(es)")
    total = 0.0
    for name in ("summary-statistics", "marginal"):
        start = time.perf_counter()
        plan, _ = estimate_in_blocks(STRATEGIES[name].plan(layout, question, GroupOptions()), MapsInMemory(effects))
        values = plan.resampled_values(effects, None)
        estimated, before = time.perf_counter(), _cpu_seconds()
        with LocalExecutor(n_processes, n_threads=1) as executor:
            permute(values, plan.resampling, mask, n_permutations=n_draws, seed=0, executor=executor, description=name)
        seconds = (time.perf_counter() - estimated) * 1000 / n_draws
        cpu = (_cpu_seconds() - before) * 1000 / n_draws
        total += cpu
        print(
            f"{name}: {seconds:.0f} s, {cpu:.0f} s of processors for 1,000 draws; {estimated - start:.1f} s before them"
        )
        print(f"{name}: bound on the memory of a process {memory_of_a_block(values, mask):.2f} GB")
    print(f"both: {total / 120:.1f} min for 1,000 draws on two idle processors")
    who = resource.RUSAGE_CHILDREN if n_processes > 1 else resource.RUSAGE_SELF
    print(f"largest process: {resource.getrusage(who).ru_maxrss / 1e6:.2f} GB")
    small = ellipsoid((36, 45, 36))
    values = smooth_maps(N, small).astype(float)
    plan = STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
    start = time.perf_counter()
    with LocalExecutor(1, n_threads=1) as executor:
        permute(values, plan.resampling, small, n_permutations=20, seed=0, executor=executor, description="small")
    ours = time.perf_counter() - start
    masker = NiftiMasker(nib.Nifti1Image(small.astype(np.uint8), np.eye(4))).fit()
    start = time.perf_counter()
    permuted_ols(np.ones((N, 1)), values, model_intercept=False, n_perm=20, masker=masker, tfce=True, threshold=0.001,
                 output_type="dict")  # fmt: skip
    theirs = time.perf_counter() - start
    print(f"{small.sum()} voxels, 20 draws: {ours:.2f} s; nilearn {theirs:.2f} s, {theirs / ours:.0f} times")


if __name__ == "__main__":
    main()

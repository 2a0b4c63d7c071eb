"""Measure what voxels that some maps lack take, beside a call that answers only those that all have.

    python benchmarks/missing_voxels.py [--participants 20 200] [--step 2] [--folder FOLDER]

Maps as in `group_scale.py`, but for their fields of view: 15 % of the voxels of the brain, at its top, are in 95 to
60 % of the maps, cut along planes that are tilted differently. All default session contrasts and strategies, no pages.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from group_level import SESSIONS, brain_mask, draw_maps, write_study
from group_scale import leave_out, main_of
from harness import measure
from numpy.typing import NDArray

INCOMPLETE = 0.15
MOST, LEAST = 0.95, 0.60
CALLS = {
    "all maps have them (`--min-coverage 1`)": ["--min-coverage", "1"],
    "60 % have them": ["--min-coverage", "0.6"],
}
COLUMNS = (
    "participants", "maps", "voxels", "answered", "voxels answered", "patterns", "wall (s)", "CPU (s)",
    "peak memory (MB)",
)  # fmt: skip


def cut(pool: Path, step: int, seed: int = 5) -> NDArray[np.bool_]:
    """Cut the fields of view of all maps, and say which has which voxel of the brain."""
    rng = np.random.default_rng(seed)
    mask = brain_mask()[::step, ::step, ::step]
    x, y, z = (
        axis / size - 0.5 for axis, size in zip(np.ogrid[tuple(map(slice, mask.shape))], mask.shape, strict=True)
    )
    bottom, top = np.quantile(np.broadcast_to(z, mask.shape)[mask], [1 - INCOMPLETE, 1.0])
    has = []
    for effect in sorted(pool.glob("*_effect.nii.gz")):
        # of the lowest plane that is cut a twentieth lacks what is above, of the highest one two fifths
        place = (rng.random() - (1 - MOST)) / (MOST - LEAST)
        limit = np.inf if place > 1 else bottom + max(place, 0.0) * (top - bottom)
        tilt = 0.15 * rng.normal(size=2)
        seen = z + tilt[0] * x + tilt[1] * y < limit
        for path in (effect, effect.with_name(effect.name.replace("_effect", "_variance"))):
            image = nib.load(path)
            nib.save(nib.Nifti1Image(np.where(seen, image.get_fdata(), 0.0), image.affine), path)
        has.append(seen[mask])
    return np.array(has)


def measure_missing(folder: Path, numbers: Sequence[int], step: int) -> Iterator[list[str]]:
    """Measure both calls for each number of participants; rows of the table."""
    pool = folder / "pool"
    draw_maps(pool, step=step)
    has = cut(pool, step)
    n_patterns = len(np.unique(np.packbits(has, axis=0), axis=1).T)
    for number in numbers:
        study = folder / f"study-{number}"
        raw, maps = write_study(study, pool, number)
        n_maps = leave_out(maps)
        for call, options in CALLS.items():
            out = folder / "out"
            command = [sys.executable, "-m", "sessionfx", str(raw), str(out), "group", "-d", str(maps)]
            found = measure([*command, "--no-report", "--nprocs", "2", *options])
            (z, *_) = out.glob("group/*sessions-mean*strategy-marginal*stat-z_statmap.nii.gz")
            n_answered = int(np.count_nonzero(nib.load(z).get_fdata()))
            yield [
                f"{number} × {len(SESSIONS)}", str(n_maps), f"{has.shape[1]:,}", call, f"{n_answered:,}",
                f"{n_patterns:,}", f"{found.wall:.0f}", f"{found.cpu:.0f}", f"{found.peak:.0f}",
            ]  # fmt: skip
            shutil.rmtree(out)
        shutil.rmtree(study)


if __name__ == "__main__":
    sys.exit(main_of(__doc__, COLUMNS, measure_missing, words="answered"))

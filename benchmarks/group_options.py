"""Measure what regions, robust estimates and resampling take, beside a call without them.

    python benchmarks/group_options.py [--participants 20 200] [--step 2] [--folder FOLDER]

Maps as in `group_scale.py`, and an atlas of blocks of the brain. The mean over sessions by the default strategies, no
pages.
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

BLOCK = 24  # mm, edge of a region
PLAIN = "nothing further"
CALLS = {
    PLAIN: [],
    "`--atlas`": ["--atlas"],
    "`--robust huber`": ["--robust", "huber"],
    "`--robust bisquare`": ["--robust", "bisquare"],
    "`--permutations 100`": ["--permutations", "100"],
}
COLUMNS = (
    "participants", "maps", "voxels", "regions", "option", "wall (s)", "CPU (s)", "times the plain call",
    "peak memory (MB)",
)  # fmt: skip


def write_atlas(path: Path, like: Path, step: int) -> int:
    """Cut the brain into blocks, and count them."""
    mask, image = brain_mask()[::step, ::step, ::step], nib.load(like)
    size = BLOCK // nib.affines.voxel_sizes(image.affine).astype(int)
    blocks = [axis // edge for axis, edge in zip(np.indices(mask.shape), size, strict=True)]
    numbers = np.ravel_multi_index(blocks, [int(block.max()) + 1 for block in blocks])
    labels = np.zeros(mask.shape, dtype=np.int16)
    labels[mask] = np.unique(numbers[mask], return_inverse=True)[1] + 1
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    n_regions = int(labels.max())
    rows = [f"{number}\tBlock {number}\n" for number in range(1, n_regions + 1)]
    path.with_name("atlas-blocks_dseg.tsv").write_text("index\tname\n" + "".join(rows))
    return n_regions


def measure_options(folder: Path, numbers: Sequence[int], step: int) -> Iterator[list[str]]:
    """Measure all calls for each number of participants; rows of the table."""
    pool, atlas = folder / "pool", folder / "atlas-blocks_dseg.nii.gz"
    draw_maps(pool, step=step)
    n_regions = write_atlas(atlas, next(pool.glob("*_effect.nii.gz")), step)
    n_voxels = brain_mask()[::step, ::step, ::step].sum()
    for number in numbers:
        study, out = folder / f"study-{number}", folder / "out"
        raw, maps = write_study(study, pool, number)
        n_maps, plain = leave_out(maps), 0.0
        for call, options in CALLS.items():
            command = [sys.executable, "-m", "sessionfx", str(raw), str(out), "group", "-d", str(maps)]
            command += ["--no-report", "--nprocs", "2", "--session-contrast", "mean", *options]
            found = measure([*command, str(atlas)] if options == ["--atlas"] else command)
            plain = found.cpu if call == PLAIN else plain
            yield [
                f"{number} × {len(SESSIONS)}", str(n_maps), f"{n_voxels:,}", str(n_regions), call,
                f"{found.wall:.0f}", f"{found.cpu:.0f}", f"{found.cpu / plain:.1f}", f"{found.peak:.0f}",
            ]  # fmt: skip
            shutil.rmtree(out)
        shutil.rmtree(study)


if __name__ == "__main__":
    sys.exit(main_of(__doc__, COLUMNS, measure_options, words="option"))

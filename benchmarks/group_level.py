"""Time the group level as a whole, beside nilearn's SecondLevelModel on one of its designs in the same run.

    python benchmarks/group_level.py [--participants 20 100 400] [--pairs 3]

Maps of 2 mm (97×115×97, some 235,000 voxels in the mask), three sessions. The program answers four session contrasts
with every default strategy and writes all its files; nilearn fits one of these designs (ordinary least squares on all
session maps) and computes one contrast, writing nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from harness import Comparison, compare
from numpy.typing import NDArray
from scipy import ndimage

SHAPE = (97, 115, 97)
AFFINE = np.array([[2.0, 0, 0, -96], [0, 2.0, 0, -132], [0, 0, 2.0, -78], [0, 0, 0, 1]])
SESSIONS = ("01", "02", "03")
SESSION_CONTRASTS = ("mean", "ses-02 - ses-01", "linear", "any")
SPACE = "MNI152NLin2009cAsym"
# Maps are drawn for these, and further participants link to their files: a disk holds them, and no file is read less.
_DRAWN_PARTICIPANTS = 20

# What a user of nilearn would write
PEER = """
import sys, time
started = time.perf_counter()
from pathlib import Path
import numpy as np, pandas as pd
from nilearn.glm.second_level import SecondLevelModel
maps = sorted(Path(sys.argv[1]).glob('sub-*/ses-*/func/*_stat-effect_*statmap.nii.gz'))
sessions = [path.name.split('_')[1] for path in maps]
design = pd.get_dummies(pd.Series(sessions)).astype(float)
loaded = time.perf_counter()
model = SecondLevelModel(n_jobs=1).fit([str(path) for path in maps], design_matrix=design)
z = model.compute_contrast(np.array([-1.0, 1.0, 0.0]), output_type='z_score')
z.get_fdata()
print('PEER', time.perf_counter() - loaded)
"""


def brain_mask() -> NDArray[np.bool_]:
    """Make an ellipsoid of about 235,000 voxels in the middle of the grid."""
    axes = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    radii = (34.5, 43.0, 37.8)
    distance = sum(((axis - (size - 1) / 2) / radius) ** 2 for axis, size, radius in zip(axes, SHAPE, radii, strict=True))
    return np.asarray(distance <= 1)


def write_study(folder: Path, n_participants: int) -> tuple[Path, Path]:
    """Write a raw dataset of names only and first-level maps of three sessions of each participant.

    Parameters
    ----------
    folder : Path
    n_participants : int

    Returns
    -------
    raw, maps : Path
    """
    raw, maps, pool = folder / "bids", folder / "firstlevel", folder / "pool"
    for root, kind in ((raw, "raw"), (maps, "derivative")):
        root.mkdir(parents=True)
        content: dict[str, Any] = {"Name": "synthetic", "BIDSVersion": "1.10.0", "DatasetType": kind}
        if kind == "derivative":
            content["GeneratedBy"] = [{"Name": "synthetic maps"}]
        (root / "dataset_description.json").write_text(json.dumps(content), encoding="utf-8")
    _draw_maps(pool, min(n_participants, _DRAWN_PARTICIPANTS))
    sidecar = json.dumps({"Contrast": "a - b", "ContrastWeights": {"a": 1.0, "b": -1.0}, "DegreesOfFreedom": 180.0})
    for number in range(n_participants):
        for session in SESSIONS:
            name = f"sub-{number + 1:04d}_ses-{session}_task-x_space-{SPACE}_contrast-aMinusB"
            target = maps / f"sub-{number + 1:04d}" / f"ses-{session}" / "func"
            target.mkdir(parents=True)
            for statistic in ("effect", "variance"):
                path = target / f"{name}_stat-{statistic}_desc-fixedEffects_statmap.nii.gz"
                path.symlink_to(pool / f"{number % _DRAWN_PARTICIPANTS}_{session}_{statistic}.nii.gz")
                path.with_name(path.name.removesuffix(".nii.gz") + ".json").write_text(sidecar, encoding="utf-8")
    return raw, maps


def _draw_maps(pool: Path, n_participants: int) -> None:
    """Draw smooth maps: a level of each participant, noise of each session, and an effect in three places."""
    pool.mkdir(parents=True)
    rng = np.random.default_rng(0)
    mask = brain_mask()
    effect = np.zeros(SHAPE)
    for centre, size in (((35, 40, 50), 1.0), ((62, 40, 50), 1.0), ((48, 80, 55), -0.8)):
        effect[centre] = size
    effect = ndimage.gaussian_filter(effect, 6.0)
    effect /= np.abs(effect).max()
    for number in range(n_participants):
        level = _noise(rng)
        for order, session in enumerate(SESSIONS):
            values = 0.5 * level + 0.5 * _noise(rng) + (0.6 + 0.15 * order) * effect
            variance = 0.1 * np.exp(0.3 * _noise(rng))
            for statistic, volume in (("effect", values), ("variance", variance)):
                image = nib.Nifti1Image(np.where(mask, volume, 0.0), AFFINE)
                nib.save(image, pool / f"{number}_{session}_{statistic}.nii.gz")


def _noise(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    return np.asarray(noise / noise.std())

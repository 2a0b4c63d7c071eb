"""Datasets at the size of real studies, for measuring: a raw BIDS dataset with fMRIPrep-like derivatives.

Times do not depend on what the signal means, but on how large it is and how well it compresses: each voxel of an
ellipsoid "brain" has a mean of 600 to 1400 and autocorrelated noise of one percent; the head around it is dark and
noisy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from isal import igzip
from numpy.typing import NDArray

TASK, SPACE = "bench", "MNI152NLin2009cAsym"
CONTRAST = "a - b"
REPETITION_TIME = 2.0
N_COMPONENTS = 14
CONFOUNDS = ("motion6", "a_comp_cor_*")
_BOX_MM = (194.0, 230.0, 194.0)  # 97 × 115 × 97 voxels of 2 mm
_RADII_MM = (68.0, 87.0, 76.0)
_MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]


@dataclass(frozen=True)
class Study:
    """How much data; voxel_size in mm."""

    participants: int = 1
    sessions: int = 1
    runs: int = 1
    volumes: int = 200
    voxel_size: float = 2.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the grid."""
        x, y, z = (round(size / self.voxel_size) for size in _BOX_MM)
        return x, y, z


def make_study(root: Path, study: Study, seed: int = 0) -> Path:
    """Write a dataset and return its root; derivatives lie in `derivatives/fmriprep`."""
    fmriprep = root / "derivatives" / "fmriprep"
    _write_json(root / "dataset_description.json", {"Name": "Benchmark", "BIDSVersion": "1.10.0"})
    description = {"Name": "fMRIPrep", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    _write_json(
        fmriprep / "dataset_description.json", {**description, "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.0"}]}
    )
    _write_json(root / f"task-{TASK}_bold.json", {"RepetitionTime": REPETITION_TIME, "TaskName": TASK})
    for participant in range(1, study.participants + 1):
        for session in range(1, study.sessions + 1):
            for run in range(1, study.runs + 1):
                rng = np.random.default_rng([seed, participant, session, run])
                _write_run(root, fmriprep, participant, session, run, study, rng)
    return root


def bold_path(root: Path, participant: int = 1, session: int = 1, run: int = 1) -> Path:
    """Say where a preprocessed run lies."""
    name = f"sub-{participant:02d}_ses-{session:02d}_task-{TASK}_run-{run}_space-{SPACE}_desc-preproc_bold.nii.gz"
    return root / f"derivatives/fmriprep/sub-{participant:02d}/ses-{session:02d}/func" / name


def _write_run(
    root: Path, fmriprep: Path, participant: int, session: int, run: int, study: Study, rng: np.random.Generator
) -> None:
    func = Path(f"sub-{participant:02d}/ses-{session:02d}/func")
    name = f"sub-{participant:02d}_ses-{session:02d}_task-{TASK}_run-{run}"
    for folder in (root / func, fmriprep / func):
        folder.mkdir(parents=True, exist_ok=True)
    events = _events(study.volumes * REPETITION_TIME, rng)
    events.to_csv(root / func / f"{name}_events.tsv", sep="\t", index=False)
    confounds = pd.DataFrame(
        {
            **{column: np.cumsum(rng.normal(0, 0.01, study.volumes)) for column in _MOTION},
            **{f"a_comp_cor_{i:02d}": rng.normal(0, 0.1, study.volumes) for i in range(N_COMPONENTS)},
        }
    )
    confounds.to_csv(fmriprep / func / f"{name}_desc-confounds_timeseries.tsv", sep="\t", index=False)
    brain, head, active = _tissues(study)
    affine = np.diag([study.voxel_size] * 3 + [1.0])
    affine[:3, 3] = [-size / 2 for size in _BOX_MM]
    mask = nib.Nifti1Image(brain.astype(np.uint8), affine)
    _write_image(mask, fmriprep / func / f"{name}_space-{SPACE}_desc-brain_mask.nii.gz")
    onsets = events["onset"][events["trial_type"] == "a"].to_numpy()
    series = _series(brain, head, active, onsets, study, rng)
    bold = nib.Nifti1Image(series, affine)
    bold.header.set_zooms((*[study.voxel_size] * 3, REPETITION_TIME))
    bold.header.set_xyzt_units("mm", "sec")
    _write_image(bold, bold_path(root, participant, session, run))


def _events(seconds: float, rng: np.random.Generator) -> pd.DataFrame:
    onsets = np.arange(6.0, seconds - 16.0, 8.0)
    conditions = rng.permutation(np.resize(["a", "b"], len(onsets)))
    return pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": conditions})


def _tissues(study: Study) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the brain, of the head, and of what responds: balls of 10 mm, a tenth of the brain."""
    coordinates = np.indices(study.shape) * study.voxel_size - np.array(_BOX_MM).reshape(3, 1, 1, 1) / 2
    distance = ((coordinates / np.array(_RADII_MM).reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
    brain = distance < 1
    balls = (((coordinates % 36) - 18) ** 2).sum(axis=0) < 10**2
    return brain, distance < 1.4, brain & balls


def _series(
    brain: NDArray[np.bool_],
    head: NDArray[np.bool_],
    active: NDArray[np.bool_],
    onsets: NDArray[np.float64],
    study: Study,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    times = np.arange(study.volumes) * REPETITION_TIME
    # a gamma curve that peaks after 5 s is enough of a response here
    delays = np.maximum(times[:, None] - onsets, 0)
    response = (delays**5 * np.exp(-delays)).sum(axis=1)
    response *= 1.0 / max(response.max(), 1e-9)
    inside = np.flatnonzero(head.ravel(order="F"))
    is_brain = brain.ravel(order="F")[inside]
    mean = np.where(is_brain, rng.uniform(600, 1400, inside.size), 60.0).astype(np.float32)
    sd = np.where(is_brain, 0.01, 0.3).astype(np.float32) * mean
    effect = np.where(active.ravel(order="F")[inside], 0.01, 0.0).astype(np.float32) * mean
    series = np.zeros((*study.shape, study.volumes), dtype=np.int16, order="F")
    flat = series.reshape((-1, study.volumes), order="F")
    noise = rng.standard_normal(inside.size, dtype=np.float32)
    for volume in range(study.volumes):
        noise = np.float32(0.3) * noise + np.float32(0.954) * rng.standard_normal(inside.size, dtype=np.float32)
        flat[inside, volume] = mean + sd * noise + effect * np.float32(response[volume])
    return series


def _write_image(image: nib.Nifti1Image, path: Path) -> None:
    with igzip.open(path, "wb", compresslevel=2) as stream:
        stream.write(image.to_bytes())


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))

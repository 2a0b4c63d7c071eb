"""Atlases of surfaces and grayordinates, as GIFTI and CIFTI files of labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

NAMES = {0: "???", 1: "V1", 2: "MT"}


def write_labels(path: Path, values: np.ndarray, names: dict[int, str]) -> Path:
    """Write the GIFTI file of a hemisphere."""
    table = GiftiLabelTable()
    for number, name in names.items():
        table.labels.append(GiftiLabel(number))
        table.labels[-1].label = name
    array = GiftiDataArray(values.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(GiftiImage(labeltable=table, darrays=[array]), path)
    return path


def write_pair(folder: Path, values: dict[str, np.ndarray], names: dict[str, dict[int, str]] | None = None,
               name: str = "hemi-{}_space-sphere_atlas-own_dseg.label.gii") -> Path:  # fmt: skip
    """Write both hemispheres, and give the left one."""
    for label, own in values.items():
        write_labels(folder / name.format(label), own, NAMES if names is None else names[label])
    return folder / name.format(next(iter(values)))


def write_dlabel(path: Path, values: np.ndarray, models: BrainModelAxis, names: dict[int, str] = NAMES) -> Path:
    table = {number: (name, (0.0, 0.0, 0.0, 1.0)) for number, name in names.items()}
    n_maps = len(np.atleast_2d(values))
    axes = (LabelAxis([f"map {number}" for number in range(n_maps)], [table] * n_maps), models)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(Cifti2Image(np.atleast_2d(values).astype(np.float32), axes), path)
    return path

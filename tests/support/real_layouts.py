"""Small copies of how real datasets lie on disk: names, folders and formats as there, images of a few voxels.

The names are those of bids-examples (ds000001-fmriprep, ds003, ds007, ds114, ds210, synthetic) and of what fMRIPrep and
fMRIPost-AROMA write; numbers are made here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import FirstLevelModel, make_first_level_design_matrix

AXES = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
SHAPE = (3, 3, 3)
N_VOLUMES = 40
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def describe(folder: Path, name: str, **fields: object) -> Path:
    """Write a dataset's description."""
    content = {"Name": name, "BIDSVersion": "1.4.0", **fields}
    return write(folder / "dataset_description.json", json.dumps(content))


def derivatives(folder: Path, program: str, version: str) -> Path:
    describe(folder, program, DatasetType="derivative", GeneratedBy=[{"Name": program, "Version": version}])
    return folder


def write_events(path: Path, conditions: Sequence[str], *, seed: int, first: str = "", more: str = "") -> Path:
    """Write an event of the next condition every few seconds.

    `first` is a row before them; `more`, as `name=text`, a column that BIDS does not know, before `trial_type`.
    """
    rng = np.random.default_rng(seed)
    column, _, value = more.partition("=")
    onsets = np.arange(4, 2 * N_VOLUMES - 8, 5) + rng.uniform(0, 2, (2 * N_VOLUMES - 12 + 4) // 5)
    order = rng.permutation(np.arange(len(onsets)) % len(conditions))
    header = ["onset", "duration", *([column] if more else []), "trial_type"]
    rows = [
        [f"{onset:.3f}", "1.500", *([value] if more else []), conditions[number]]
        for onset, number in zip(onsets, order, strict=True)
    ]
    return write(path, "\n".join(["\t".join(header), *([first] if first else []), *map("\t".join, rows)]) + "\n")


def condition_rows(path: Path) -> pd.DataFrame:
    """Rows of an events file that name a condition, as a reader with pandas would take them."""
    return pd.read_csv(path, sep="\t")[["onset", "duration", "trial_type"]].dropna().reset_index(drop=True)


def write_bold(path: Path, events: Path, *, repetition_time: float, seed: int) -> Path:
    """Write a run in which the first condition evokes a response, and its JSON."""
    rng = np.random.default_rng(seed)
    data = 1000 + 5 * rng.standard_normal((*SHAPE, N_VOLUMES))
    table = condition_rows(events)
    first = table["trial_type"].min()
    table["trial_type"] = table["trial_type"].map({first: "first"}).fillna("others")
    frames = np.arange(N_VOLUMES) * repetition_time
    design = make_first_level_design_matrix(frames, table, hrf_model="glover", drift_model=None)
    data += 30 * design["first"].to_numpy()
    image = nib.Nifti1Image(data.astype(np.float32), AFFINE)
    image.header.set_zooms((2.0, 2.0, 2.0, repetition_time))
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    write(path.with_name(f"{stem}.json"), json.dumps({"RepetitionTime": repetition_time, "SkullStripped": False}))
    return path


def write_mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), path)
    return path


def write_confounds(path: Path, *, seed: int) -> Path:
    table = pd.DataFrame(np.random.default_rng(seed).standard_normal((N_VOLUMES, len(AXES))) / 10, columns=AXES)
    table["framewise_displacement"] = [np.nan, *np.abs(np.diff(table["trans_x"]))]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    write(path.with_suffix(".json"), "{}")
    return path


def preprocess(
    prep: Path, start: str, events: Path, *, space: str, repetition_time: float, seed: int, confounds_seed: int
) -> Path:
    """Write a run as fMRIPrep does, in one space: the image, its mask and the confounds; give the image."""
    write_mask(prep / f"{start}_{space}_desc-brain_mask.nii.gz")
    write_confounds(prep / f"{start}_desc-confounds_timeseries.tsv", seed=confounds_seed)
    bold = prep / f"{start}_{space}_desc-preproc_bold.nii.gz"
    return write_bold(bold, events, repetition_time=repetition_time, seed=seed)


def nilearn_answer(
    bold: Path, events: Path, confounds: Path | None, weights: dict[str, float], repetition_time: float
) -> tuple[np.ndarray, float]:
    """Effect of one run and its degrees of freedom, by nilearn with the files named."""
    table = condition_rows(events)
    table["trial_type"] = table["trial_type"].str.replace(" ", "_")
    model = FirstLevelModel(
        t_r=repetition_time, slice_time_ref=0, hrf_model="glover", drift_model="cosine", high_pass=0.01,
        noise_model="ar1", signal_scaling=0, minimize_memory=False,
        mask_img=nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE),
    )  # fmt: skip
    motion = None if confounds is None else pd.read_csv(confounds, sep="\t")[AXES]
    model.fit(str(bold), events=table, confounds=motion)
    design = model.design_matrices_[0]
    vector = np.array([weights.get(column, 0.0) for column in design])
    effect = model.compute_contrast(vector, output_type="effect_size").get_fdata()
    return effect, float(len(design) - np.linalg.matrix_rank(design.to_numpy()))

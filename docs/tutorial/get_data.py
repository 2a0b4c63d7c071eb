"""Make a BIDS dataset of the tutorial's real data: one run of one person, cut in two "sessions".

usage: get_data.py CLONE BIDS_DIR

CLONE is a clone of https://github.com/datalad/example-dicom-functional (public domain, PDDL): DICOM files and events.
Needs the command dcm2niix (pip install dcm2niix), nibabel and nilearn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
from nilearn.masking import compute_epi_mask

REPETITION_TIME = 2.0  # s, as the DICOM files have it; dcm2niix estimates 1.79, with which the run ends before its task
VOLUMES = 78  # of a session: half of the run


def convert(dicoms: Path, folder: Path) -> Any:
    """Make one image of all DICOM files by dcm2niix."""
    try:
        command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "run", "-o", str(folder), str(dicoms)]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError:
        sys.exit("get_data.py: there is no command dcm2niix; install it with: pip install dcm2niix")
    if done.returncode or not (folder / "run.nii").exists():
        sys.exit(f"get_data.py: dcm2niix could not convert {dicoms}:\n{done.stdout}{done.stderr}")
    return nib.load(folder / "run.nii")


def write_json(path: Path, **content: object) -> None:
    """Write a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_session(bids: Path, session: int, run: Any, events: pd.DataFrame) -> None:
    """Write volumes, brain mask and events of half of the run."""
    name = f"sub-02_ses-{session}_task-oneback"
    begin = (session - 1) * VOLUMES
    image = run.slicer[..., begin : begin + VOLUMES]
    preprocessed = bids / "derivatives" / "fmriprep" / "sub-02" / f"ses-{session}" / "func" / f"{name}_space-individual"
    write_json(Path(f"{preprocessed}_desc-preproc_bold.json"), RepetitionTime=REPETITION_TIME, SkullStripped=False)
    nib.save(image, f"{preprocessed}_desc-preproc_bold.nii.gz")
    mask = compute_epi_mask(image)
    nib.save(mask, f"{preprocessed}_desc-brain_mask.nii.gz")

    start = begin * REPETITION_TIME
    middle = events["onset"] + events["duration"] / 2  # a picture belongs to the session that shows most of it
    within = events[(middle >= start) & (middle < start + VOLUMES * REPETITION_TIME)].copy()
    within["onset"] = (within["onset"] - start).clip(lower=0).round(3)
    folder = bids / "sub-02" / f"ses-{session}" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    within.to_csv(folder / f"{name}_events.tsv", sep="\t", index=False)
    voxels = int(mask.get_fdata().sum())
    print(f"ses-{session}: {VOLUMES} volumes, {len(within)} pictures, {voxels} voxels in the brain mask")


def main() -> None:
    """Convert the clone."""
    parser = argparse.ArgumentParser(description="Make a BIDS dataset of the tutorial's real data.")
    parser.add_argument("clone", metavar="CLONE", type=Path, help="clone of datalad/example-dicom-functional")
    parser.add_argument("bids", metavar="BIDS_DIR", type=Path, help="new folder for the dataset")
    options = parser.parse_args()
    if not (options.clone / "dicoms").is_dir() or not (options.clone / "events.tsv").is_file():
        parser.error(
            f"{options.clone} has no dicoms and events.tsv; is it a clone of datalad/example-dicom-functional?"
        )
    if options.bids.exists():
        parser.error(f"{options.bids} exists; remove it, or name another folder")
    events = pd.read_csv(options.clone / "events.tsv", sep="\t", usecols=["onset", "duration", "trial_type"])
    with tempfile.TemporaryDirectory() as folder:
        print("Converting the DICOM files ...", flush=True)
        run = convert(options.clone / "dicoms", Path(folder))
        if run.shape[3:] != (2 * VOLUMES,):
            sys.exit(f"get_data.py: {2 * VOLUMES} volumes were expected, the image is {run.shape}; take branch master")
        for session in (1, 2):
            write_session(options.bids, session, run, events)
    source = [{"URL": "https://github.com/datalad/example-dicom-functional"}]
    about: dict[str, Any] = {"BIDSVersion": "1.10.0", "License": "PDDL", "SourceDatasets": source}
    write_json(options.bids / "dataset_description.json", Name="studyforrest localizer, halved", **about)
    write_json(
        options.bids / "derivatives" / "fmriprep" / "dataset_description.json",
        Name="studyforrest localizer, not preprocessed", DatasetType="derivative",
        GeneratedBy=[{"Name": "dcm2niix"}], **about,
    )  # fmt: skip
    write_json(options.bids / "task-oneback_bold.json", TaskName="oneback", RepetitionTime=REPETITION_TIME)
    print(f"The dataset: {options.bids}")


if __name__ == "__main__":
    main()

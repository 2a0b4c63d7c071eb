"""How long a participant of a large dataset waits for its files to be found, beside pybids indexing all of it.

The datasets are made for this: two sessions of two runs per participant, with the files that fMRIPrep writes for
each (other spaces, surfaces, transforms, figures), all empty but those that are read, which hold a small image.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from harness import Usage, measure
from numpy.typing import NDArray

PARTICIPANTS = (10, 100, 1000)
SESSIONS = ("01", "02")
RUNS = ("1", "2")
TASK = "stroop"
SPACE = "MNI152NLin2009cAsym"
REPETITION_TIME = 2.0
SHAPE, N_VOLUMES = (8, 8, 6), 60
CONTRAST = "a - b"

# What FitLins does before its first model: one layout of everything, with metadata, then the participant's runs
_PEER = """
import sys
from bids import BIDSLayout
root, label, database = sys.argv[1:4]
layout = BIDSLayout(root, derivatives=f"{root}/derivatives/fmriprep", validate=False, database_path=database or None)
runs = layout.get(subject=label, suffix="bold", desc="preproc", space="MNI152NLin2009cAsym", extension=".nii.gz")
found = [(run.path, run.get_metadata()["RepetitionTime"]) for run in runs]
found += layout.get(subject=label, suffix="mask", datatype="func", desc="brain", space="MNI152NLin2009cAsym")
found += layout.get(subject=label, suffix="events", extension=".tsv")
found += layout.get(subject=label, suffix="timeseries", desc="confounds", extension=".tsv")
assert len(found) == 20, len(found)
"""

_RAW_RUN = ("bold.nii.gz", "bold.json", "events.tsv")
_RAW_ANATOMY = ("T1w.nii.gz", "T1w.json")
_READ = (
    f"space-{SPACE}_desc-preproc_bold.nii.gz", f"space-{SPACE}_desc-preproc_bold.json",
    f"space-{SPACE}_desc-brain_mask.nii.gz", "desc-confounds_timeseries.tsv",
)  # fmt: skip
# what fMRIPrep 24 and later leaves in func/ of a run, besides what is read
_OTHER_FUNCTIONAL = (
    f"space-{SPACE}_desc-brain_mask.json", f"space-{SPACE}_boldref.nii.gz", f"space-{SPACE}_boldref.json",
    "space-T1w_desc-preproc_bold.nii.gz", "space-T1w_desc-preproc_bold.json", "space-T1w_desc-brain_mask.nii.gz",
    "space-T1w_desc-brain_mask.json", "space-T1w_boldref.nii.gz", "space-T1w_boldref.json",
    "desc-brain_mask.nii.gz", "desc-brain_mask.json", "desc-coreg_boldref.nii.gz", "desc-coreg_boldref.json",
    "desc-hmc_boldref.nii.gz", "desc-hmc_boldref.json", "from-orig_to-boldref_mode-image_desc-hmc_xfm.txt",
    "from-orig_to-boldref_mode-image_desc-hmc_xfm.json", "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    "from-boldref_to-T1w_mode-image_desc-coreg_xfm.json", "hemi-L_space-fsaverage5_bold.func.gii",
    "hemi-L_space-fsaverage5_bold.json", "hemi-R_space-fsaverage5_bold.func.gii", "hemi-R_space-fsaverage5_bold.json",
    "space-fsLR_den-91k_bold.dtseries.nii", "space-fsLR_den-91k_bold.json", "desc-confounds_timeseries.json",
)  # fmt: skip
_ANATOMY = (
    "desc-preproc_T1w.nii.gz", "desc-preproc_T1w.json", "desc-brain_mask.nii.gz", "desc-brain_mask.json",
    "dseg.nii.gz", "label-CSF_probseg.nii.gz", "label-GM_probseg.nii.gz", "label-WM_probseg.nii.gz",
    f"space-{SPACE}_desc-preproc_T1w.nii.gz", f"space-{SPACE}_desc-preproc_T1w.json",
    f"space-{SPACE}_desc-brain_mask.nii.gz", f"space-{SPACE}_desc-brain_mask.json", f"space-{SPACE}_dseg.nii.gz",
    f"from-T1w_to-{SPACE}_mode-image_xfm.h5", f"from-{SPACE}_to-T1w_mode-image_xfm.h5",
    "from-T1w_to-fsnative_mode-image_xfm.txt", "from-fsnative_to-T1w_mode-image_xfm.txt",
    *(f"hemi-{side}_{kind}.{end}" for side in "LR" for kind, end in (
        ("white", "surf.gii"), ("pial", "surf.gii"), ("midthickness", "surf.gii"), ("sphere", "surf.gii"),
        ("sulc", "shape.gii"), ("thickness", "shape.gii"), ("curv", "shape.gii"))),
)  # fmt: skip
_RUN_FIGURES = (
    "desc-summary_bold.html", "desc-validation_bold.html", "desc-coreg_bold.svg", "desc-rois_bold.svg",
    "desc-compcorvar_bold.svg", "desc-confoundcorr_bold.svg", "desc-carpetplot_bold.svg", "desc-t2scomp_bold.svg",
)  # fmt: skip
_FIGURES = ("desc-summary_T1w.html", "desc-about_T1w.html", "dseg.svg", "desc-reconall_T1w.svg")


def make_dataset(root: Path, n_participants: int) -> Path:
    """Write a raw dataset with fMRIPrep derivatives.

    Parameters
    ----------
    root : Path
        A folder that does not exist.
    n_participants : int

    Returns
    -------
    Path
        The folder of the derivatives.
    """
    fmriprep = root / "derivatives/fmriprep"
    fmriprep.mkdir(parents=True)
    description = {"Name": "made for a benchmark", "BIDSVersion": "1.10.0"}
    for folder in (root, fmriprep):
        (folder / "dataset_description.json").write_text(json.dumps(description))
    (root / f"task-{TASK}_bold.json").write_text(json.dumps({"RepetitionTime": REPETITION_TIME, "TaskName": TASK}))
    contents = _contents()
    for label in participant_labels(n_participants):
        (fmriprep / f"sub-{label}.html").touch()
        _write(root / f"sub-{label}/ses-{SESSIONS[0]}/anat", f"sub-{label}_ses-{SESSIONS[0]}", _RAW_ANATOMY, contents)
        _write(fmriprep / f"sub-{label}/anat", f"sub-{label}", _ANATOMY, contents)
        _write(fmriprep / f"sub-{label}/figures", f"sub-{label}", _FIGURES, contents)
        for session in SESSIONS:
            for run in RUNS:
                name = f"sub-{label}_ses-{session}_task-{TASK}_run-{run}"
                func = f"sub-{label}/ses-{session}/func"
                _write(root / func, name, _RAW_RUN, contents)
                _write(fmriprep / func, name, (*_READ, *_OTHER_FUNCTIONAL), contents)
                _write(fmriprep / f"sub-{label}/figures", name, _RUN_FIGURES, contents)
    return fmriprep


def participant_labels(n_participants: int) -> list[str]:
    """Labels, all of one length."""
    return [f"{number:04d}" for number in range(1, n_participants + 1)]


def _write(folder: Path, start: str, endings: Iterable[str], contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for ending in endings:
        (folder / f"{start}_{ending}").write_bytes(contents.get(ending, b"{}" if ending.endswith(".json") else b""))


def _contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    series = (1000 + 20 * rng.normal(size=(*SHAPE, N_VOLUMES))).astype(np.int16)
    motion = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    confounds = ["\t".join(motion)] + ["\t".join(f"{v:.5f}" for v in row) for row in rng.normal(size=(N_VOLUMES, 6))]
    rows = [f"{4 * index}\t2\t{'ab'[index % 2]}" for index in range(N_VOLUMES // 2)]
    of_read = (
        _image(series, REPETITION_TIME),
        json.dumps({"RepetitionTime": REPETITION_TIME}).encode(),
        _image(np.ones(SHAPE, np.uint8)),
        "\n".join([*confounds, ""]).encode(),
    )
    events = "\n".join(["onset\tduration\ttrial_type", *rows, ""]).encode()
    return {**dict(zip(_READ, of_read, strict=True)), "events.tsv": events}


def _image(data: NDArray[Any], repetition_time: float | None = None) -> bytes:
    image = nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
    if repetition_time is not None:
        image.header.set_zooms((3.0, 3.0, 3.0, repetition_time))
    return gzip.compress(image.to_bytes(), mtime=0)


@dataclass(frozen=True)
class Row:
    """One way of finding files in a dataset of so many participants; medians of the repeats."""

    n_participants: int
    what: str
    usage: Usage


PLAN = "sessionfx, one participant: until fitting begins (`--dry-run`)"
PLAN_KEPT = "sessionfx, one participant: `--dry-run`, with a database kept"
WHOLE = "sessionfx, one participant: with the fit of its four tiny runs"
PLAN_ALL = "sessionfx, all participants: `--dry-run`"
PLAN_MAKING = "… and the database is made"
PLAN_ALL_KEPT = "… with a database kept"
PEER = "pybids: everything indexed, then the files of one participant"
PEER_KEPT = "… with a database kept"


def rows(participants: Sequence[int] = PARTICIPANTS, *, repeats: int = 3, with_peer: bool = True) -> Iterator[Row]:
    """Measure datasets of several sizes, each made for it and removed afterwards.

    Parameters
    ----------
    participants : sequence of int
        Sizes.
    repeats : int, default=3
        What takes longer than a minute is measured once.
    with_peer : bool, default=True

    Yields
    ------
    Row
    """
    for n in participants:
        with tempfile.TemporaryDirectory(prefix="indexing-") as folder:
            make_dataset(Path(folder) / "bids", n)
            for what, command, made in _commands(Path(folder), n, with_peer=with_peer):
                yield Row(n, what, _median(command, made, repeats))


def _commands(folder: Path, n_participants: int, *, with_peer: bool) -> Iterator[tuple[str, list[str], Path]]:
    """Give names, commands, and what to remove before each, in the order in which they must run.

    Some leave an index for those after them.
    """
    out = folder / "out"
    label = participant_labels(n_participants)[n_participants // 2]
    ours = [
        sys.executable, "-m", "sessionfx", str(folder / "bids"), str(out), "participant",
        "--nprocs", "1", "--contrast", CONTRAST, "--no-report",
    ]  # fmt: skip
    alone = [*ours, "--participant-label", label]
    plan, plan_all = [*alone, "--dry-run"], [*ours, "--dry-run"]
    database = folder / "database"
    kept = ["--bids-database-dir", str(database)]
    yield PLAN, plan, out
    yield WHOLE, alone, out
    yield PLAN_ALL, plan_all, out
    yield PLAN_MAKING, [*plan_all, *kept], database
    yield PLAN_ALL_KEPT, [*plan_all, *kept], out
    yield PLAN_KEPT, [*plan, *kept], out
    if with_peer:
        index = folder / "pybids"
        peer = [sys.executable, "-c", _PEER, str(folder / "bids"), label, str(index)]
        yield PEER, peer, index
        yield PEER_KEPT, peer, out


def _median(command: Sequence[str], made: Path, repeats: int) -> Usage:
    usages: list[Usage] = []
    while len(usages) < repeats and (not usages or usages[0].wall < 60):
        shutil.rmtree(made, ignore_errors=True)
        usages.append(measure(command))
    return Usage(*(statistics.median(getattr(usage, name) for usage in usages) for name in ("wall", "cpu", "peak")))


def table(measured: Iterable[Row]) -> Iterator[str]:
    """Write rows as lines of a Markdown table."""
    yield "| participants | what | wall (s) | CPU (s) | peak (MB) |"
    yield "|---:|---|---:|---:|---:|"
    for row in measured:
        usage = row.usage
        yield f"| {row.n_participants} | {row.what} | {usage.wall:.1f} | {usage.cpu:.1f} | {usage.peak:.0f} |"


def main() -> None:
    """Print the table, line by line as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, nargs="+", default=PARTICIPANTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="pybids takes minutes for 1,000 participants")
    options = parser.parse_args()
    for line in table(rows(options.participants, repeats=options.repeats, with_peer=not options.no_peer)):
        print(line, flush=True)


if __name__ == "__main__":
    main()

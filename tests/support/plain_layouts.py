"""Datasets that are analysed without an option: names as in ds114, ds003 and haxby2001, images of a few voxels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import real_layouts
from real_layouts import derivatives, describe, write_events

SPACE = "space-MNI152NLin2009cAsym"


def preprocess(root: Path, start: str, events: Path, *, seed: int, repetition_time: float = 2.5) -> None:
    """Write a run, its mask and confounds into the derivatives."""
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "23.1.3")
    real_layouts.preprocess(
        prep, start, events, space=SPACE, repetition_time=repetition_time, seed=seed, confounds_seed=seed + 1
    )


def ds114(root: Path) -> Path:
    """Five tasks in two sessions, one task without events; one participant lacks a condition of another."""
    describe(root, "ds114")
    at_root = {"fingerfootlips": ("Finger", "Foot", "Lips"), "covertverbgeneration": ("Task",)}
    for number, (task, conditions) in enumerate(at_root.items()):
        write_events(root / f"task-{task}_events.tsv", conditions, seed=number)
    seed = 0
    for sub in ("01", "02"):
        for ses in ("test", "retest"):
            folder = f"sub-{sub}/ses-{ses}/func"
            for task in (*at_root, "linebisection", "overtverbgeneration", "overtwordrepetition"):
                seed += 10
                start = f"{folder}/sub-{sub}_ses-{ses}_task-{task}"
                events = root / f"task-{task}_events.tsv"
                if task == "linebisection":
                    conditions = ("Correct", "Wrong") if sub == "01" else ("Correct",)
                    events = write_events(root / f"{start}_events.tsv", conditions, seed=seed)
                elif task == "overtverbgeneration":
                    events = write_events(root / f"{start}_events.tsv", ("rest block", "verb-generation"), seed=seed)
                elif task == "overtwordrepetition":
                    events = root / "task-fingerfootlips_events.tsv"  # of the image alone: the task has none
                preprocess(root, start, events, seed=seed)
    return root


def ds003(root: Path) -> Path:
    """One task in one run, without sessions."""
    describe(root, "ds003")
    for number, sub in enumerate(("01", "02", "03")):
        start = f"sub-{sub}/func/sub-{sub}_task-rhymejudgment"
        events = write_events(root / f"{start}_events.tsv", ("word", "pseudoword"), seed=number)
        preprocess(root, start, events, seed=10 * number, repetition_time=2.0)
    return root


def haxby(root: Path) -> Path:
    """Eight conditions, two runs, without sessions."""
    describe(root, "haxby2001")
    conditions = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
    for number, sub in enumerate(("1", "2")):
        for run in ("01", "02"):
            start = f"sub-{sub}/func/sub-{sub}_task-objectviewing_run-{run}"
            events = write_events(root / f"{start}_events.tsv", conditions, seed=10 * number + int(run))
            preprocess(root, start, events, seed=100 * number + 10 * int(run))
    return root


def contrasts_in(names: Iterable[str]) -> dict[str, set[str]]:
    """Contrasts by task, of the names of files."""
    found: dict[str, set[str]] = {}
    for name in names:
        task, contrast = re.findall(r"_task-(\w+?)_.*_contrast-(\w+?)_", name)[0]
        found.setdefault(task, set()).add(contrast)
    return found


OF_DS114 = {
    "covertverbgeneration": {"Task"},
    "fingerfootlips": {"Finger", "Foot", "Lips"},
    "linebisection": {"Correct", "Wrong", "WrongMinusCorrect"},
    "overtverbgeneration": {"restBlock", "verbGeneration", "verbGenerationMinusRestBlock"},
}


class Plain(NamedTuple):
    """A dataset: what makes it, its participants, and the contrasts by task that nobody has to ask for."""

    make: Callable[[Path], Path]
    labels: tuple[str, ...]
    expected: dict[str, set[str]]


OBJECTS = {"bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"}
PLAIN = {
    "ds003": Plain(ds003, ("01", "02", "03"), {"rhymejudgment": {"word", "pseudoword", "wordMinusPseudoword"}}),
    "haxby": Plain(haxby, ("1", "2"), {"objectviewing": OBJECTS}),
    # of what one participant lacks there is no group
    "ds114": Plain(ds114, ("01", "02"), {**OF_DS114, "linebisection": {"Correct"}}),
}

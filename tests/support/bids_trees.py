"""Datasets of which only the names matter: images are empty files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SPACE = "MNI152NLin2009cAsym"
DESCRIPTION = '{"Name": "made by hand", "BIDSVersion": "1.10.0"}'
EVENTS = "onset\tduration\ttrial_type\n1\t2\ta\n"


def run_name(sub: str, ses: str | None, *, task: str = "a", run: str | None = None, acq: str | None = None) -> str:
    """Folder and start of the file name of a run, `sub-01/func/sub-01_task-a`."""
    entities = {"sub": sub, "ses": ses, "task": task, "acq": acq, "run": run}
    name = "_".join(f"{key}-{label}" for key, label in entities.items() if label)
    return f"sub-{sub}/ses-{ses}/func/{name}" if ses else f"sub-{sub}/func/{name}"


def preproc(
    sub: str,
    ses: str | None,
    *,
    space: str | None = SPACE,
    res: str | None = None,
    desc: str | None = "preproc",
    pipeline: str = "fmriprep",
    suffix: str = "bold.nii.gz",
    **entities: Any,
) -> str:
    """Path of a preprocessed run in the raw dataset's folder."""
    more = {"space": space, "res": res, "desc": desc}
    ending = "".join(f"_{key}-{label}" for key, label in more.items() if label)
    return f"derivatives/{pipeline}/{run_name(sub, ses, **entities)}{ending}_{suffix}"


def make_tree(root: Path, files: Sequence[str] | Mapping[str, str]) -> Path:
    """Write a dataset; choosing runs looks at names only, so images are empty files."""
    contents = dict(files) if isinstance(files, Mapping) else dict.fromkeys(files, "")
    for path, text in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for folder in (root, *(root / "derivatives").iterdir()):
        if not (folder / "dataset_description.json").exists():
            (folder / "dataset_description.json").write_text(DESCRIPTION)
    return root


def filters_named_in(message: str) -> list[dict[str, dict[str, object]]]:
    """Every filter that a message tells people to write."""
    decoder, found, at = json.JSONDecoder(), [], message.find('{"bold"')
    while at >= 0:
        content, end = decoder.raw_decode(message, at)
        found.append(content)
        at = message.find('{"bold"', end)
    return found

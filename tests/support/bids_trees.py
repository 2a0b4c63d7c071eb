"""Datasets of which only the names matter: images are empty files; and the choice of runs in them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessionfx.bids.dataset import Dataset, find_derivative_roots, open_dataset
from sessionfx.bids.runs import RunInputs, RunSelection, select_runs
from sessionfx.options import Selection

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


def opened(root: Path, *participants: str, given: Sequence[Path] = (), database_dir: Path | None = None) -> Dataset:
    """Find the files of a dataset and its derivatives."""
    return open_dataset(root, find_derivative_roots(root, given), participants=participants, database_dir=database_dir)


def select(
    source: Path | Dataset,
    *,
    given: Sequence[Path] = (),
    filters: object = None,
    database_dir: Path | None = None,
    **options: Any,
) -> RunSelection:
    """Choose runs from a folder or from a dataset opened before; filters are what `--bids-filter-file` holds."""
    if isinstance(source, Path):
        labels = options.get("participant_label", ())
        source = opened(source, *labels, given=given, database_dir=database_dir)
    if filters is None:
        return select_runs(source, Selection(**options))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "filter.json"
        path.write_text(json.dumps(filters))
        return select_runs(source, Selection(bids_filter_file=path, **options))


def only_run(source: Path | Dataset, **options: Any) -> RunInputs:
    """Choose a run where there should be one only."""
    ((run,),) = select(source, **options).runs.values()
    return run


def names(selection: RunSelection) -> list[str]:
    """Name the runs of all participants."""
    return [run.name for runs in selection.runs.values() for run in runs]


def filters_named_in(message: str) -> list[dict[str, dict[str, object]]]:
    """Every filter that a message tells people to write."""
    decoder, found, at = json.JSONDecoder(), [], message.find('{"bold"')
    while at >= 0:
        content, end = decoder.raw_decode(message, at)
        found.append(content)
        at = message.find('{"bold"', end)
    return found

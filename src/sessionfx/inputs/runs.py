"""Which runs are analysed, and the files that belong to each.

A run's events, mask, confounds and metadata are found by the BIDS inheritance principle: a file applies when
each of its entities is one of the run's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionfx.errors import CommandLineError, DatasetError, NothingMatchesError
from sessionfx.inputs.dataset import (
    Dataset,
    IndexedFile,
    applicable_files,
    entries,
    indexed_file,
    inherited_metadata,
    matches_filter,
    participants_of,
    subfolders,
)
from sessionfx.inputs.files import UnreadableFileError, read_json_object
from sessionfx.naming import DERIVATIVE_ENTITIES, entity_string, natural_key
from sessionfx.settings import Settings

DEFAULT_SPACE = "MNI152NLin2009cAsym"
IMAGE_EXTENSIONS = (".nii.gz", ".nii")
# Which of several masks and tables is meant, unless --bids-filter-file says otherwise
DEFAULT_FILTERS = {"mask": {"desc": "brain"}, "confounds": {"desc": "confounds"}}
FILTER_KEYS = ("bold", "mask", "events", "confounds")


@dataclass(frozen=True)
class RunInputs:
    """One run and its files.

    Attributes
    ----------
    entities : dict of str to str
        Entities of the acquired run (`sub`, `ses`, `task`, `run`, `acq`, …), without space, res and desc.
    bold : Path
        Preprocessed 4-D image.
    mask, events, confounds : Path or None
        None where the dataset has none for this run.
    metadata : dict
        JSON fields of the run, inherited (raw dataset first, derivatives over it).
    problem : str or None
        Why this run cannot be analysed (unreadable sidecar, two files where one is wanted).
    """

    entities: dict[str, str]
    bold: Path
    mask: Path | None
    events: Path | None
    confounds: Path | None
    metadata: dict[str, Any]
    problem: str | None = None

    @property
    def name(self) -> str:
        """The run in file names and messages: `sub-01_ses-02_task-x_run-1`."""
        return entity_string(self.entities)

    @property
    def participant(self) -> str:
        """Participant label."""
        return self.entities["sub"]

    @property
    def session(self) -> str:
        """Session label; empty in a dataset without sessions."""
        return self.entities.get("ses", "")


@dataclass(frozen=True)
class Selection:
    """What is analysed: one task in one space.

    Attributes
    ----------
    task : str
    space, res : str or None
        None where the files carry no such entity.
    sessions : tuple of str
        Study sessions in time order, whichever participants are asked for; empty without `ses-`.
    runs : dict of str to tuple of RunInputs
        Runs by participant, in natural order.
    """

    task: str
    space: str | None
    res: str | None
    sessions: tuple[str, ...]
    runs: dict[str, tuple[RunInputs, ...]]

    @property
    def entities(self) -> dict[str, str | None]:
        """Entities shared by all outputs."""
        return {"task": self.task, "space": self.space, "res": self.res}


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read `--bids-filter-file`.

    Raises
    ------
    CommandLineError
        If it is not a JSON object of objects, or names something else than bold, mask, events, confounds.
    """
    if path is None:
        return {}
    try:
        filters = read_json_object(path)
    except UnreadableFileError as error:
        raise CommandLineError(f"--bids-filter-file {error}") from None
    if not all(isinstance(value, dict) for value in filters.values()):
        raise CommandLineError(
            f'--bids-filter-file {path} should be an object of objects, such as {{"bold": {{"desc": "preproc"}}}}.'
        )
    known = {key: value for key, value in filters.items() if key in FILTER_KEYS}
    if not known:
        raise CommandLineError(f"--bids-filter-file {path} has none of the keys {', '.join(FILTER_KEYS)}.")
    return known


def participants_with_runs(dataset_roots: Sequence[Path]) -> list[str]:
    """Labels of all `sub-*` folders, in natural order, without indexing them."""
    return sorted({label for root in dataset_roots for label in participants_of(root)}, key=natural_key)


def select_runs(dataset: Dataset, settings: Settings) -> Selection:
    """Choose the runs that the options ask for.

    Raises
    ------
    NothingMatchesError
        If an option matches nothing; the message lists what exists.
    CommandLineError
        If several tasks, spaces or resolutions exist and none is named.
    DatasetError
        If there is no preprocessed run, or the same run stands in two derivative datasets.
    """
    filters = read_filters(settings.bids_filter_file)
    bold_filter = {"desc": "preproc", **filters.get("bold", {})}
    candidates = [
        file for file in dataset.derivative_files if file.suffix == "bold" and file.extension in IMAGE_EXTENSIONS
    ]
    candidates = [file for file in candidates if "sub" in file.entities and "task" in file.entities]
    if not candidates and settings.participant_label:
        raise NothingMatchesError(
            f"--participant-label {' '.join(settings.participant_label)}: no preprocessed run "
            "(…_desc-preproc_bold.nii.gz) of these participants exists in the derivatives. Run fMRIPrep on them "
            "first, or choose others."
        )
    if not candidates:
        where = ", ".join(str(root) for root in dataset.derivatives)
        raise DatasetError(
            f"No preprocessed runs (…_desc-preproc_bold.nii.gz) were found in {where}. Run fMRIPrep with a volume "
            "output space, or name another folder with --derivatives."
        )
    chosen = [file for file in candidates if matches_filter(file, bold_filter)]
    if not chosen:
        descs = sorted({file.entities.get("desc", "none") for file in candidates})
        raise NothingMatchesError(
            f"No preprocessed run passes the filter {json.dumps(bold_filter)}. The files have desc: "
            f"{', '.join(descs)}. Change the 'bold' entry of --bids-filter-file."
        )
    chosen = _narrow(chosen, "sub", settings.participant_label, "participant", "--participant-label")
    task = _choose(chosen, "task", settings.task, "task", "--task")
    assert task is not None  # noqa: S101 - every candidate has a task
    chosen = [file for file in chosen if file.entities.get("task") == task]
    space = _choose(chosen, "space", settings.space, "space", "--space", preferred=DEFAULT_SPACE)
    chosen = [file for file in chosen if file.entities.get("space") == space]
    res = _choose(chosen, "res", settings.res, "resolution", "--res")
    chosen = [file for file in chosen if file.entities.get("res") == res]
    sessions = study_sessions(dataset.derivatives, {"task": task, "space": space, "res": res}, bold_filter)
    chosen = _in_sessions(chosen, settings.session_label, sessions)
    _check_unique(chosen)
    if settings.session_label:
        sessions = tuple(label for label in settings.session_label if label in sessions)
    gatherer = _Gatherer(dataset, filters)
    by_participant: dict[str, list[RunInputs]] = {}
    for file in sorted(chosen, key=lambda file: natural_key(file.path.name)):
        by_participant.setdefault(file.entities["sub"], []).append(gatherer.gather(file))
    ordered = sorted(by_participant, key=natural_key)
    return Selection(task, space, res, sessions, {label: tuple(by_participant[label]) for label in ordered})


def _in_sessions(files: Sequence[IndexedFile], wanted: Sequence[str], sessions: Sequence[str]) -> list[IndexedFile]:
    """Keep the sessions asked for; each must exist in the study, not for every participant."""
    for label in wanted:
        if label not in sessions:
            listed = ", ".join(sessions) or "none: the files carry no ses- entity"
            raise NothingMatchesError(
                f"--session-label {label} matches no preprocessed run. What exists (session): {listed}."
            )
    return [file for file in files if not wanted or file.entities.get("ses") in wanted]


def study_sessions(
    roots: Sequence[Path], entities: Mapping[str, str | None], bold_filter: Mapping[str, Any]
) -> tuple[str, ...]:
    """Session labels of all participants with preprocessed runs of a task, in natural order.

    Read from file names alone, so that a single participant's job numbers its sessions like a job with everyone:
    the trend over sessions must not depend on who is analysed together.
    """
    labels: set[str] = set()
    for root in roots:
        for label in participants_of(root):
            for folder in subfolders(root / f"sub-{label}"):
                # once a session is known, no other participant's files of it need be listed
                if folder.startswith("ses-") and folder[4:] not in labels:
                    labels |= _sessions_in(root / f"sub-{label}" / folder / "func", root, entities, bold_filter)
    return tuple(sorted(labels, key=natural_key))


def _sessions_in(
    folder: Path, root: Path, entities: Mapping[str, str | None], bold_filter: Mapping[str, Any]
) -> set[str]:
    labels = set()
    for entry in entries(folder):
        if "_bold.nii" not in entry.name:
            continue
        file = indexed_file(Path(entry.path), root)
        if (
            file is not None
            and file.extension in IMAGE_EXTENSIONS
            and "ses" in file.entities
            and all(file.entities.get(key) == label for key, label in entities.items())
            and matches_filter(file, bold_filter)
        ):
            labels.add(file.entities["ses"])
    return labels


def _choose(
    files: Sequence[IndexedFile],
    key: str,
    wanted: str | None,
    noun: str,
    option: str,
    preferred: str | None = None,
) -> str | None:
    """Choose one label of an entity: the one asked for, the only one, or the preferred one."""
    labels = sorted({file.entities.get(key) for file in files}, key=lambda label: natural_key(label or ""))
    named = [label for label in labels if label is not None]
    if wanted is not None:
        if wanted not in named:
            listed = ", ".join(named) or "none is named in the files"
            raise NothingMatchesError(f"{option} {wanted} matches no preprocessed run. What exists ({noun}): {listed}.")
        return wanted
    if len(labels) == 1:
        return labels[0]
    if preferred in named:
        return preferred
    listed = ", ".join(label or "(without the entity)" for label in labels)
    raise CommandLineError(f"There are several choices of {noun}: {listed}. Choose one with {option}.")


def _narrow(files: Sequence[IndexedFile], key: str, wanted: Sequence[str], noun: str, option: str) -> list[IndexedFile]:
    if not wanted:
        return list(files)
    labels = sorted({file.entities.get(key, "") for file in files}, key=natural_key)
    for label in wanted:
        if label not in labels:
            listed = ", ".join(filter(None, labels)) or f"none: the files carry no {key}- entity"
            raise NothingMatchesError(f"{option} {label} matches no preprocessed run. What exists ({noun}): {listed}.")
    return [file for file in files if file.entities.get(key) in wanted]


def _check_unique(files: Sequence[IndexedFile]) -> None:
    seen: dict[str, IndexedFile] = {}
    for file in files:
        name = entity_string(_acquired(file.entities))
        twin = seen.setdefault(name, file)
        if twin is not file:
            raise DatasetError(
                f"Two preprocessed files stand for the same run {name}: {twin.path} and {file.path}. Name one "
                "derivative folder with --derivatives, or tell them apart with --bids-filter-file."
            )


def _acquired(entities: Mapping[str, str]) -> dict[str, str]:
    return {key: label for key, label in entities.items() if key not in DERIVATIVE_ENTITIES}


class _Gatherer:
    """Finds the files of a run among those that can apply to it: its participant's, and those that name none."""

    def __init__(self, dataset: Dataset, filters: Mapping[str, Mapping[str, Any]]) -> None:
        self._filters = filters
        self._raw = _by_participant(dataset.raw_files)
        self._derivatives = {
            root: _by_participant([file for file in dataset.derivative_files if file.root == root])
            for root in dataset.derivatives
        }
        self._sidecars: dict[Path, dict[str, Any]] = {}

    def gather(self, bold: IndexedFile) -> RunInputs:
        """Describe a run by its preprocessed image and the files that go with it."""
        acquired = _acquired(bold.entities)
        raw_files, derivative_files = (
            [*files.get(bold.entities["sub"], ()), *files.get(None, ())]
            for files in (self._raw, self._derivatives[bold.root])
        )
        problems: list[str] = []

        def pick(files: Sequence[IndexedFile], what: str, entities: Mapping[str, str], suffixes: Sequence[str],
                 extensions: Sequence[str]) -> Path | None:  # fmt: skip
            entity_filter = {**DEFAULT_FILTERS.get(what, {}), **self._filters.get(what, {})}
            ignored = () if what == "events" else ("desc",)  # desc is chosen by the filter
            found = [
                file for extension in extensions
                for file in applicable_files(files, entities, ignored=ignored, suffixes=suffixes, extension=extension)
                if matches_filter(file, entity_filter)
            ]  # fmt: skip
            if (
                len(found) > 1
                and len(found[-1].entities) == len(found[-2].entities)
                and found[-1].depth == found[-2].depth
            ):
                problems.append(f"two files could be its {what}: {found[-2].path} and {found[-1].path}")
            return found[-1].path if found else None

        space_entities = {key: label for key, label in bold.entities.items() if key != "desc"}
        masks = [
            file for file in derivative_files
            if all(file.entities.get(key) == bold.entities.get(key) for key in ("space", "cohort", "res"))
        ]  # fmt: skip
        mask = pick(masks, "mask", space_entities, ("mask",), IMAGE_EXTENSIONS)
        confounds = pick(derivative_files, "confounds", acquired, ("timeseries", "regressors"), (".tsv",))
        events = pick(raw_files, "events", acquired, ("events",), (".tsv",))
        metadata: dict[str, Any] = {}
        try:
            metadata = inherited_metadata(raw_files, acquired, self._sidecars)
            metadata |= inherited_metadata(derivative_files, bold.entities, self._sidecars)
        except UnreadableFileError as error:
            problems.append(str(error).removesuffix("."))
        return RunInputs(acquired, bold.path, mask, events, confounds, metadata, problems[0] if problems else None)


def _by_participant(files: Sequence[IndexedFile]) -> dict[str | None, list[IndexedFile]]:
    """Group files by the participant they name; None for those that name none."""
    groups: dict[str | None, list[IndexedFile]] = {}
    for file in files:
        groups.setdefault(file.entities.get("sub"), []).append(file)
    return groups

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

from sessionfx.bids.acquisitions import DEFAULT_BOLD_FILTER, acquired_entities, one_per_acquisition
from sessionfx.bids.dataset import (
    Dataset,
    IndexedFile,
    applicable_files,
    as_list,
    indexed_file,
    inherited_metadata,
    matches_filter,
    participants_of,
    subfolders,
)
from sessionfx.bids.names import DERIVATIVE_ENTITIES, WITHOUT, entity_string, natural_key
from sessionfx.bids.reading import UnreadableFileError, list_folder, read_json_object
from sessionfx.bids.session_order import SessionOrder, order_sessions
from sessionfx.errors import CommandLineError, DatasetError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.wording import listed

DEFAULT_SPACE = "MNI152NLin2009cAsym"
IMAGE_EXTENSIONS = (".nii.gz", ".nii")
# Which of several masks and tables is meant, unless --bids-filter-file says otherwise
DEFAULT_FILTERS = {"mask": {"desc": "brain"}, "confounds": {"desc": "confounds"}}
FILTER_KEYS = ("bold", "mask", "events", "confounds", "maps")


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
    warnings : tuple of str
        What a reader should know of these files, as sentences.
    """

    entities: dict[str, str]
    bold: Path
    mask: Path | None
    events: Path | None
    confounds: Path | None
    metadata: dict[str, Any]
    problem: str | None = None
    warnings: tuple[str, ...] = ()

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
class RunSelection:
    """What is analysed: one task in one space.

    Attributes
    ----------
    task : str
    space, cohort, res : str or None
        None where the files carry no such entity.
    order : SessionOrder
        Study sessions in time order, whichever participants are asked for.
    runs : dict of str to tuple of RunInputs
        Runs by participant, in natural order.
    warnings : tuple of str
        What a reader should know of the choice, as sentences.
    """

    task: str
    space: str | None
    cohort: str | None
    res: str | None
    order: SessionOrder
    runs: dict[str, tuple[RunInputs, ...]]
    warnings: tuple[str, ...] = ()

    @property
    def sessions(self) -> tuple[str, ...]:
        """Study sessions in time order; empty without `ses-`."""
        return self.order.labels

    @property
    def entities(self) -> dict[str, str | None]:
        """Entities shared by all outputs."""
        return {"task": self.task, "space": self.space, "cohort": self.cohort, "res": self.res}


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read `--bids-filter-file`.

    Raises
    ------
    CommandLineError
        If it is not a JSON object of objects, or names something else than bold, mask, events, confounds, maps.
    """
    if path is None:
        return {}
    try:
        filters = read_json_object(path)
    except UnreadableFileError as error:
        raise CommandLineError(f"--bids-filter-file {error}") from None
    known = {key: value for key, value in filters.items() if key in FILTER_KEYS}
    if not known:
        raise CommandLineError(f"--bids-filter-file {path} has none of the keys {', '.join(FILTER_KEYS)}.")
    if not all(isinstance(value, dict) for value in known.values()):
        raise CommandLineError(
            f'--bids-filter-file {path} should be an object of objects, such as {{"bold": {{"desc": "preproc"}}}}.'
        )
    for section, entity_filter in known.items():
        for name, wanted in entity_filter.items():
            if not all(item is None or isinstance(item, str | int | float) for item in as_list(wanted)):
                raise CommandLineError(
                    f"--bids-filter-file {path}, '{section}', '{name}': the value should be a label, a list of labels, "
                    "or null."
                )
    return known


def participants_with_runs(dataset_roots: Sequence[Path]) -> list[str]:
    """Labels of all `sub-*` folders, in natural order, without indexing them."""
    return sorted({label for root in dataset_roots for label in participants_of(root)}, key=natural_key)


def select_runs(dataset: Dataset, options: Selection) -> RunSelection:
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
    filters = read_filters(options.bids_filter_file)
    bold_filter = {**DEFAULT_BOLD_FILTER, **filters.get("bold", {})}
    candidates = [
        file for file in dataset.derivative_files if file.suffix == "bold" and file.extension in IMAGE_EXTENSIONS
    ]
    candidates = [file for file in candidates if "sub" in file.entities and "task" in file.entities]
    if not candidates and options.participant_label:
        raise NothingMatchesError(
            f"--participant-label {listed(options.participant_label, separator=' ')}: no preprocessed run "
            "(…_desc-preproc_bold.nii.gz) of these participants exists in the derivatives. Run fMRIPrep on them "
            "first, or choose others."
        )
    if not candidates:
        where = listed(dataset.derivatives)
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
    chosen = _narrow(chosen, "sub", options.participant_label, "participant", "--participant-label")
    task = _choose(chosen, "task", options.task, "task", "--task")
    assert task is not None  # noqa: S101 - every candidate has a task
    chosen = [file for file in chosen if file.entities.get("task") == task]
    space = _choose(chosen, "space", options.space, "space", "--space", preferred=DEFAULT_SPACE)
    chosen = [file for file in chosen if file.entities.get("space") == space]
    cohort = _choose(chosen, "cohort", None, "cohort", "the 'bold' entry of --bids-filter-file")
    res = _choose(chosen, "res", options.res, "resolution", "--res")
    chosen = [file for file in chosen if file.entities.get("res") == res]
    shared = {"task": task, "space": space, "cohort": cohort, "res": res}
    sessions = study_sessions(dataset.derivatives, shared, bold_filter)
    # a file may name another session than the folder it lies in
    sessions = tuple(dict.fromkeys((*sessions, *(file.entities["ses"] for file in chosen if "ses" in file.entities))))
    chosen = _in_sessions(chosen, options.session_label, sessions)
    chosen, warnings = one_per_acquisition(chosen, bold_filter)
    order = order_sessions(sessions, options.session_label, dataset.raw)
    gatherer = _Gatherer(dataset, filters)
    by_participant: dict[str, list[RunInputs]] = {}
    for file in sorted(chosen, key=lambda file: natural_key(file.path.name)):
        by_participant.setdefault(file.entities["sub"], []).append(gatherer.gather(file))
    participants = sorted(by_participant, key=natural_key)
    runs = {
        label: tuple(
            sorted(by_participant[label], key=lambda run: order.labels.index(run.session) if run.session else -1)
        )
        for label in participants
    }
    warnings += [*_unnamed(dataset), *order.warnings]
    return RunSelection(task, space, cohort, res, order, runs, tuple(warnings))


def _unnamed(dataset: Dataset) -> list[str]:
    """Name the images that are passed over because their names are not BIDS'."""
    images = [path for path in dataset.unnamed if path.name.endswith(tuple(f"_bold{end}" for end in IMAGE_EXTENSIONS))]
    if not images:
        return []
    more = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return [
        f"{images[0]}{more}: not named as BIDS names files (key-label pairs of letters and digits), and therefore not "
        "analysed. Rename what should be."
    ]


def _in_sessions(files: Sequence[IndexedFile], wanted: Sequence[str], sessions: Sequence[str]) -> list[IndexedFile]:
    """Keep the sessions asked for; each must exist in the study, not for every participant."""
    for label in wanted:
        if label not in sessions:
            there = listed(sessions) or "none: the files carry no ses- entity"
            raise NothingMatchesError(
                f"--session-label {label} matches no preprocessed run. What exists (session): {there}."
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
    for entry in list_folder(folder):
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
    there = listed([label or f"{WITHOUT} (without the entity)" for label in labels])
    if wanted is not None:
        if wanted == WITHOUT and None in labels:
            return None
        if wanted not in named:
            raise NothingMatchesError(f"{option} {wanted} matches no preprocessed run. What exists ({noun}): {there}.")
        return wanted
    if len(labels) == 1:
        return labels[0]
    if preferred in named:
        return preferred
    raise CommandLineError(f"There are several choices of {noun}: {there}. Choose one with {option}.")


def _narrow(files: Sequence[IndexedFile], key: str, wanted: Sequence[str], noun: str, option: str) -> list[IndexedFile]:
    if not wanted:
        return list(files)
    labels = sorted({file.entities.get(key, "") for file in files}, key=natural_key)
    for label in wanted:
        if label not in labels:
            there = listed(list(filter(None, labels))) or f"none: the files carry no {key}- entity"
            raise NothingMatchesError(f"{option} {label} matches no preprocessed run. What exists ({noun}): {there}.")
    return [file for file in files if file.entities.get(key) in wanted]


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
        acquired = acquired_entities(bold.entities)
        raw_files = _of(self._raw, bold)
        # a denoised image may lie in a folder of its own, its mask and confounds with those of fMRIPrep
        derivatives = [
            _of(files, bold) for _, files in sorted(self._derivatives.items(), key=lambda item: item[0] != bold.root)
        ]
        finder = _Finder(self._filters)
        space_entities = {key: label for key, label in bold.entities.items() if key != "desc"}
        masks = [[file for file in files if _is_mask_for(file, bold)] for files in derivatives]
        # programs disagree whether res- is named; that the grid is the same is checked when the mask is read
        masks += [[file for file in files if _may_be_mask_for(file, bold)] for files in derivatives[1:]]
        mask = finder.first_of(masks, "mask", space_entities, ("mask",), IMAGE_EXTENSIONS, ignored=("desc", "res"))
        confounds = finder.first_of(
            derivatives, "confounds", acquired, ("timeseries", "regressors"), (".tsv",), ignored=("desc",)
        )
        events = finder.first_of([raw_files], "events", acquired, ("events",), (".tsv",))
        warnings = []
        if events is None:
            events = finder.first_of(derivatives, "events", acquired, ("events",), (".tsv",))
            if events is not None:
                warnings.append(
                    f"The raw dataset has no events of this run; those of the derivatives are used: {events}."
                )
        metadata: dict[str, Any] = {}
        try:
            metadata = inherited_metadata(raw_files, acquired, self._sidecars)
            metadata |= self._start_time(derivatives[1:], acquired)
            metadata |= inherited_metadata(derivatives[0], bold.entities, self._sidecars)
        except UnreadableFileError as error:
            finder.problems.append(str(error).removesuffix("."))
        problem = finder.problems[0] if finder.problems else None
        return RunInputs(acquired, bold.path, mask, events, confounds, metadata, problem, tuple(warnings))

    def _start_time(self, places: Sequence[Sequence[IndexedFile]], acquired: Mapping[str, str]) -> dict[str, Any]:
        """Find the time that slices were corrected to: a program that denoises images may not repeat it."""
        for files in places:
            metadata = inherited_metadata(files, acquired, self._sidecars, ignored=DERIVATIVE_ENTITIES)
            if "StartTime" in metadata:
                return {"StartTime": metadata["StartTime"]}
        return {}


class _Finder:
    """Finds the one file of a kind that applies to a run, and remembers where there are two."""

    def __init__(self, filters: Mapping[str, Mapping[str, Any]]) -> None:
        self._filters = filters
        self.problems: list[str] = []

    def first_of(
        self,
        places: Sequence[Sequence[IndexedFile]],
        what: str,
        entities: Mapping[str, str],
        suffixes: Sequence[str],
        extensions: Sequence[str],
        ignored: Sequence[str] = (),
    ) -> Path | None:
        """Find the file in the first place that has one."""
        for files in places:
            found = self._in(files, what, entities, suffixes, extensions, ignored)
            if found is not None:
                return found
        return None

    def _in(
        self,
        files: Sequence[IndexedFile],
        what: str,
        entities: Mapping[str, str],
        suffixes: Sequence[str],
        extensions: Sequence[str],
        ignored: Sequence[str],
    ) -> Path | None:
        entity_filter = {**DEFAULT_FILTERS.get(what, {}), **self._filters.get(what, {})}
        if "label" in entity_filter:  # which tells masks apart, and no image has
            ignored = (*ignored, "label")
        found = [
            file for extension in extensions
            for file in applicable_files(files, entities, ignored=ignored, suffixes=suffixes, extension=extension)
            if matches_filter(file, entity_filter)
        ]  # fmt: skip
        if len(found) > 1 and len(found[-1].entities) == len(found[-2].entities) and found[-1].depth == found[-2].depth:
            self.problems.append(f"two files could be its {what}: {found[-2].path} and {found[-1].path}")
        return found[-1].path if found else None


def _is_mask_for(file: IndexedFile, bold: IndexedFile, same: Sequence[str] = ("space", "cohort", "res")) -> bool:
    """Whether a file's space is the image's, and it is not of another kind of scan (an anatomical mask covers more)."""
    return file.datatype in (None, "func") and all(file.entities.get(key) == bold.entities.get(key) for key in same)


def _may_be_mask_for(file: IndexedFile, bold: IndexedFile) -> bool:
    """Whether a file is a mask for the image where one of the two does not say its resolution."""
    return ("res" in file.entities) != ("res" in bold.entities) and _is_mask_for(file, bold, ("space", "cohort"))


def _of(files: Mapping[str | None, list[IndexedFile]], bold: IndexedFile) -> list[IndexedFile]:
    return [*files.get(bold.entities["sub"], ()), *files.get(None, ())]


def _by_participant(files: Sequence[IndexedFile]) -> dict[str | None, list[IndexedFile]]:
    """Group files by the participant they name; None for those that name none."""
    groups: dict[str | None, list[IndexedFile]] = {}
    for file in files:
        groups.setdefault(file.entities.get("sub"), []).append(file)
    return groups

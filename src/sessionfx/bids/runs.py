"""Which runs are analysed, and the files that belong to each.

A run's events, mask, confounds and metadata are found by the BIDS inheritance principle: a file applies when
each of its entities is one of the run's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sessionfx.bids.acquisitions import (
    DEFAULT_BOLD_FILTER,
    acquired_entities,
    acquisitions_without,
    one_per_acquisition,
)
from sessionfx.bids.choosing import RUNS, check_labels, choose_entities, matches_filter, of_each_task, read_filters
from sessionfx.bids.dataset import Dataset, IndexedFile, indexed_file, participants_of, subfolders
from sessionfx.bids.meshes import MeshFiles, find_meshes
from sessionfx.bids.names import (
    DERIVATIVE_ENTITIES,
    GIFTI,
    LONG_NAMES,
    OLD_SUFFIXES,
    SURFACE_SERIES,
    WITHOUT,
    comparable_label,
    entity_string,
)
from sessionfx.bids.reading import UnreadableFileError, list_folder, read_json_object
from sessionfx.bids.session_order import SessionOrder, order_sessions
from sessionfx.errors import CommandLineError, DatasetError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.wording import counted, listed, natural_key

IMAGE_EXTENSIONS = (".nii.gz", ".nii")
_SERIES_ENDINGS = (
    *(f"_bold{extension}" for extension in (*IMAGE_EXTENSIONS, *SURFACE_SERIES)),
    *(f"_{suffix}.func.gii" for suffix in OLD_SUFFIXES),
)
# Names in filters of what acquired images do not have
_OF_PREPROCESSED = {
    *("suffix", "extension", *DERIVATIVE_ENTITIES),
    *(LONG_NAMES.get(key, key) for key in DERIVATIVE_ENTITIES),
}


class _Companion(NamedTuple):
    """A kind of file that goes with a run."""

    name: str  # in messages, and as an entry of --bids-filter-file
    suffixes: tuple[str, ...]
    extensions: tuple[str, ...] = (".tsv",)
    ignored: tuple[str, ...] = ()  # entities that need not be the run's
    default_filter: Mapping[str, Any] = MappingProxyType({})  # which of several is meant, unless the filter file says


_EVENTS = _Companion("events", ("events",))
_CONFOUNDS = _Companion(
    "confounds", ("timeseries", "regressors"), ignored=("desc",), default_filter={"desc": "confounds"}
)
_MASK = _Companion("mask", ("mask",), IMAGE_EXTENSIONS, ignored=("desc", "res"), default_filter={"desc": "brain"})


@dataclass(frozen=True)
class RunInputs:
    """One run and its files."""

    # entities of the acquired run (`sub`, `ses`, `task`, `run`, `acq`, …), without space, res and desc
    entities: dict[str, str]
    bold: Path  # preprocessed 4-D image, CIFTI series, or GIFTI series of a hemisphere
    # mask, events, confounds: None where the dataset has none for this run
    mask: Path | None
    events: Path | None
    confounds: Path | None
    metadata: dict[str, Any]  # JSON fields of the run, inherited (raw dataset first, derivatives over it)
    problem: str | None = None  # why this run cannot be analysed (unreadable sidecar, two files where one is wanted)
    warnings: tuple[str, ...] = ()  # what a reader should know of these files, as sentences
    regressors: Path | None = None  # the user's own, where they are asked for
    other_hemisphere: Path | None = None  # where `bold` is that of the left one, and both are analysed
    meshes: MeshFiles = field(default_factory=dict)  # of the hemispheres of a surface, where there are any

    @property
    def images(self) -> tuple[Path, ...]:
        """The image, or those of both hemispheres."""
        return (self.bold,) if self.other_hemisphere is None else (self.bold, self.other_hemisphere)

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of the run but its JSON and meshes."""
        companions = (self.mask, self.events, self.confounds, self.regressors)
        return (*self.images, *(path for path in companions if path is not None))

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
    """What is analysed: one task in one space."""

    # `task`, `space`, `cohort` and `res` of all outputs; None where the files carry no such entity
    entities: dict[str, str | None]
    order: SessionOrder  # study sessions in time order, whichever participants are asked for
    runs: dict[str, tuple[RunInputs, ...]]  # runs by participant, in natural order
    warnings: tuple[str, ...] = ()  # what a reader should know of the choice, as sentences

    @property
    def sessions(self) -> tuple[str, ...]:
        """Study sessions in time order; empty without `ses-`."""
        return self.order.labels

    @property
    def every_run(self) -> list[RunInputs]:
        """Runs of all participants."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def map_extension(self) -> str:
        """Extension of the maps that are made of them."""
        name = self.every_run[0].bold.name
        return GIFTI if name.endswith(GIFTI) else ".dscalar.nii" if name.endswith(SURFACE_SERIES) else ".nii.gz"


def participants_with_runs(dataset_roots: Sequence[Path]) -> list[str]:
    """Labels of all `sub-*` folders, in natural order, without looking into them."""
    return sorted({label for root in dataset_roots for label in participants_of(root)}, key=natural_key)


def select_tasks(dataset: Dataset, options: Selection) -> tuple[dict[str, RunSelection], dict[str, str]]:
    """Choose the runs of every task that the options ask for, or of every task there is; see `of_each_task`.

    Raises
    ------
    SessionFXError
        As `select_runs`.
    """
    there = [
        file.entities["task"] for file in _of_one_form(_that_pass(_bold_filter(options), dataset, options), options)
    ]
    return of_each_task(there, options, partial(select_runs, dataset))


def _bold_filter(options: Selection) -> dict[str, Any]:
    return {**DEFAULT_BOLD_FILTER, **read_filters(options.bids_filter_file).get("bold", {})}


def select_runs(dataset: Dataset, options: Selection) -> RunSelection:
    """Choose the runs of one task that the options ask for.

    Raises
    ------
    NothingMatchesError
        If an option matches nothing; the message lists what exists.
    CommandLineError
        If several tasks, spaces or resolutions exist and none is named.
    DatasetError
        If there is no preprocessed run, or the same run stands in two derivative datasets.
    """
    bold_filter = _bold_filter(options)
    found = _of_one_form(_that_pass(bold_filter, dataset, options), options)
    check_labels(
        (file.entities["sub"] for file in found), options.participant_label, RUNS, "participant", "--participant-label"
    )
    wanted = options.participant_label
    chosen = [file for file in found if not wanted or file.entities["sub"] in wanted]
    chosen, entities = choose_entities(chosen, RUNS, options)
    _check_forms(chosen)
    if options.hemi is not None:
        entities["hemi"] = options.hemi
    paths = {file.path for file in chosen}
    chosen = _one_for_both(chosen, options.hemi, paths)
    # of the form of those chosen: volumes of all sessions may lie beside surfaces of some
    forms = (chosen[0].extension,) if _is_on_surface(chosen[0]) else IMAGE_EXTENSIONS
    sessions = study_sessions(dataset.derivatives, entities, {"extension": [*forms], **bold_filter})
    # a file may name another session than the folder it lies in
    sessions |= {file.entities["ses"] for file in chosen if "ses" in file.entities}
    wanted = options.session_label
    check_labels(sessions, wanted, RUNS, "session", "--session-label")
    chosen = _in_sessions(chosen, options)
    numbers = [comparable_label("run", label) for label in options.run_label]
    there = [comparable_label("run", file.entities["run"]) for file in chosen if "run" in file.entities]
    check_labels(there, numbers, RUNS, "run", "--run-label")
    chosen = _with_numbers(chosen, numbers)
    chosen, warnings = one_per_acquisition(chosen, bold_filter)
    warnings += _left_out(chosen, dataset, options, bold_filter, entities["task"], numbers)
    order = order_sessions(sessions, wanted, dataset.raw)
    place = {label: number for number, label in enumerate(order.labels)}
    gatherer = _Gatherer(dataset, read_filters(options.bids_filter_file))
    meshes_of = cache(partial(find_meshes, entities, dataset.derivatives))
    runs: dict[str, list[RunInputs]] = {}
    for file in sorted(
        chosen, key=lambda file: (place.get(file.entities.get("ses", ""), -1), natural_key(file.path.name))
    ):
        run = gatherer.gather(file)
        if file.extension.endswith(GIFTI) and options.hemi is None:
            run = _with_other_hemisphere(run, paths)
        if _is_on_surface(file):
            run = replace(run, meshes=meshes_of(run.participant))
        runs.setdefault(file.entities["sub"], []).append(run)
    if not runs:
        raise NothingMatchesError(
            "No preprocessed run of these participants is in these sessions. Choose others with --participant-label or "
            "--session-label."
        )
    by_participant = {label: tuple(runs[label]) for label in sorted(runs, key=natural_key)}
    return RunSelection(entities, order, by_participant, (*warnings, *_unnamed(dataset), *order.warnings))


def _that_pass(bold_filter: Mapping[str, Any], dataset: Dataset, options: Selection) -> list[IndexedFile]:
    """Find the preprocessed images that pass the filter; say what to do where there is none."""
    images = [file for file in dataset.derivative_files if _is_image(file) and {"sub", "task"} <= file.entities.keys()]
    if not images and options.participant_label:
        renew = (
            " Where they came later than --bids-database-dir, remove that folder." if options.bids_database_dir else ""
        )
        raise NothingMatchesError(
            f"--participant-label {listed(options.participant_label, separator=' ')}: no preprocessed run "
            "(…_desc-preproc_bold.nii.gz) of these participants exists in the derivatives. Run fMRIPrep on them "
            f"first, or choose others.{renew}"
        )
    if not images:
        raise DatasetError(
            f"No preprocessed runs (…_desc-preproc_bold.nii.gz) were found in {listed(dataset.derivatives)}. Run "
            "fMRIPrep with a volume output space, or name another folder with --derivatives."
        )
    passing = [file for file in images if _passes(file, bold_filter)]
    if not passing:
        descs = sorted({file.entities.get("desc", "none") for file in images})
        raise NothingMatchesError(
            f"No preprocessed run passes the filter {json.dumps(bold_filter)}. The files have desc: "
            f"{', '.join(descs)}. Change the 'bold' entry of --bids-filter-file."
        )
    return passing


def _is_image(file: IndexedFile) -> bool:
    return file.suffix == "bold" and file.extension in (*IMAGE_EXTENSIONS, *SURFACE_SERIES)


def _is_on_surface(file: IndexedFile) -> bool:
    return file.extension in SURFACE_SERIES


def _passes(file: IndexedFile, bold_filter: Mapping[str, Any]) -> bool:
    """Whether an image passes the filter; surfaces of fMRIPrep have no desc-preproc."""
    without_desc = {name: wanted for name, wanted in bold_filter.items() if name != "desc"}
    is_silent = _is_on_surface(file) and "desc" not in file.entities and bold_filter.get("desc") == "preproc"
    return matches_filter(file, without_desc if is_silent else bold_filter)


def _of_one_form(images: Sequence[IndexedFile], options: Selection) -> list[IndexedFile]:
    """Keep volumes, or surfaces where these are asked for: by a space that they alone have, density or hemisphere."""
    volumes = [file for file in images if not _is_on_surface(file)]
    surfaces = [file for file in images if _is_on_surface(file)]
    if options.hemi is not None:
        surfaces = [file for file in surfaces if "hemi" in file.entities]
        if not surfaces:
            raise NothingMatchesError(f"--hemi {options.hemi}: no preprocessed run has files of single hemispheres.")
        return surfaces
    if options.den not in (None, WITHOUT):
        return [file for file in surfaces if file.entities.get("den") == options.den] or surfaces or volumes
    spaces = {file.entities.get("space", WITHOUT) for file in volumes}
    if options.space in {file.entities.get("space", WITHOUT) for file in surfaces} - spaces:
        return surfaces
    if options.space not in (None, WITHOUT) and options.space not in spaces:
        return list(images)  # the refusal lists all spaces
    if not volumes:
        there = listed(sorted({file.entities.get("space", WITHOUT) for file in surfaces}))
        raise NothingMatchesError(
            f"The preprocessed runs are all on surfaces: {there}. Choose one with --space, or run fMRIPrep with a "
            "volume output space."
        )
    return volumes


def _check_forms(chosen: Iterable[IndexedFile]) -> None:
    """Refuse files of several forms, which may hold the same runs."""
    forms = sorted({file.extension.removeprefix(".") for file in chosen if _is_on_surface(file)})
    if len(forms) > 1:
        filters = " or ".join(json.dumps({"bold": {"extension": form}}) for form in forms)
        raise CommandLineError(
            f"There are preprocessed runs of several forms: {listed(forms)}. Choose one with --bids-filter-file, the "
            f"file holding {filters}."
        )


def _one_for_both(files: Sequence[IndexedFile], hemi: str | None, paths: Collection[Path]) -> list[IndexedFile]:
    """Let one hemisphere's file stand for both: that asked for, or the left where it is there."""
    return [
        file
        for file in files
        if "hemi" not in file.entities
        or file.entities["hemi"] == (hemi or "L")
        or (hemi is None and _opposite(file.path) not in paths)
    ]


def _opposite(path: Path) -> Path:
    """Name the file of the other hemisphere."""
    here, there = ("_hemi-L", "_hemi-R") if "_hemi-L" in path.name else ("_hemi-R", "_hemi-L")
    return path.with_name(path.name.replace(here, there))


def _with_other_hemisphere(run: RunInputs, paths: Collection[Path]) -> RunInputs:
    other = _opposite(run.bold)
    if other in paths:
        return replace(run, other_hemisphere=other)
    is_left = "_hemi-L" in run.bold.name
    alone = (
        f"it has the {'left' if is_left else 'right'} hemisphere alone ({other} is not there); --hemi "
        f"{'L' if is_left else 'R'} analyses that one alone"
    )
    return replace(run, problem=run.problem or alone)


def _in_sessions(files: Iterable[IndexedFile], options: Selection) -> list[IndexedFile]:
    wanted = options.session_label
    return [file for file in files if not wanted or file.entities.get("ses") in wanted]


def _with_numbers(files: Iterable[IndexedFile], numbers: Collection[str]) -> list[IndexedFile]:
    """Keep files with run numbers that are asked for, or all where none is; 1 and 01 are one."""
    return [file for file in files if not numbers or comparable_label("run", file.entities.get("run", "")) in numbers]


def _left_out(
    chosen: Sequence[IndexedFile],
    dataset: Dataset,
    options: Selection,
    bold_filter: Mapping[str, Any],
    task: str | None,
    numbers: Collection[str],
) -> list[str]:
    """Name the runs that are asked for and have no image among those chosen: not preprocessed, or to other spaces."""
    of_acquired = {name: wanted for name, wanted in bold_filter.items() if name not in _OF_PREPROCESSED}
    of_task = [
        file
        for file in (*dataset.raw_files, *dataset.derivative_files)
        if _is_image(file)
        and "sub" in file.entities
        and file.entities.get("task") == task
        and matches_filter(file, of_acquired)
    ]
    there = _with_numbers(_in_sessions(of_task, options), numbers)
    names = acquisitions_without(chosen, there)
    if not names:
        return []
    return [
        f"{counted(len(names), 'run')} without a preprocessed image in this selection, and left out: {listed(names)}."
    ]


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


def study_sessions(
    roots: Sequence[Path], entities: Mapping[str, str | None], bold_filter: Mapping[str, Any]
) -> set[str]:
    """Session labels of all participants with preprocessed runs of a task.

    Read from file names alone, so that a single participant's job numbers its sessions like a job with everyone:
    the trend over sessions must not depend on who is analysed together.
    """
    labels: set[str] = set()
    for root in roots:
        for participant in participants_of(root):
            for folder in subfolders(root / f"sub-{participant}"):
                # once a session is known, no other participant's files of it need be listed
                if not folder.startswith("ses-") or folder[4:] in labels:
                    continue
                for entry in list_folder(root / f"sub-{participant}" / folder / "func"):
                    is_series = entry.name.endswith(_SERIES_ENDINGS)
                    file = indexed_file(Path(entry.path), root) if is_series else None
                    if (
                        file is not None
                        and _is_image(file)
                        and "ses" in file.entities
                        and all(file.entities.get(key) == label for key, label in entities.items())
                        and _passes(file, bold_filter)
                    ):
                        labels.add(file.entities["ses"])
    return labels


def study_events(roots: Sequence[Path], task: str, options: Selection) -> list[Path]:
    """Find the events files of a task, of all participants, in the first dataset that has any.

    By file names alone, so that a single participant's job knows the same conditions as a job with everyone.
    """
    events_filter = read_filters(options.bids_filter_file).get("events", {})
    for root in roots:
        participants = [root / f"sub-{label}" for label in participants_of(root)]
        sessions = [own / name for own in participants for name in subfolders(own) if name.startswith("ses-")]
        folders = [root, *(folder / where for folder in (*participants, *sessions) for where in (".", "func"))]
        entries = [entry for folder in folders for entry in list_folder(folder) if entry.name.endswith("_events.tsv")]
        files = [indexed_file(Path(entry.path), root) for entry in entries]
        found = [
            file.path
            for file in files
            if file is not None and file.entities.get("task") == task and matches_filter(file, events_filter)
        ]
        if found:
            return found
    return []


class _Gatherer:
    """Finds the files of a run among those that can apply to it: its participant's, and those that name none."""

    def __init__(self, dataset: Dataset, filters: Mapping[str, Mapping[str, Any]]) -> None:
        self._filters = filters
        self._raw = _by_participant(dataset.raw_files)
        self._derivatives = {
            root: _by_participant([file for file in dataset.derivative_files if file.root == root])
            for root in dataset.derivatives
        }
        self._sidecars: dict[Path, dict[str, Any]] = {}  # one shared by many runs is read once

    def gather(self, bold: IndexedFile) -> RunInputs:
        """Describe a run by its preprocessed image and the files that go with it."""
        acquired = acquired_entities(bold.entities)
        raw = _of(self._raw, bold)
        # a denoised image may lie in a folder of its own, its mask and confounds with those of fMRIPrep
        nearest, *others = [
            _of(files, bold) for _, files in sorted(self._derivatives.items(), key=lambda item: item[0] != bold.root)
        ]
        problems: list[str] = []
        masks = [[file for file in files if _is_mask_for(file, bold)] for files in (nearest, *others)]
        # programs disagree whether res- is named; that the grid is the same is checked when the mask is read
        masks += [[file for file in files if _may_be_mask_for(file, bold)] for files in others]
        space_entities = {key: label for key, label in bold.entities.items() if key != "desc"}
        mask = None if _is_on_surface(bold) else self._first(_MASK, masks, space_entities, problems)
        confounds = self._first(_CONFOUNDS, [nearest, *others], acquired, problems)
        events = self._first(_EVENTS, [raw], acquired, problems)
        warnings = []
        if events is None:
            events = self._first(_EVENTS, [nearest, *others], acquired, problems)
            if events is not None:
                warnings.append(
                    f"The raw dataset has no events of this run; those of the derivatives are used: {events}."
                )
        metadata: dict[str, Any] = {}
        try:
            metadata |= self._metadata(raw, acquired)
            # sidecars of surfaces may be missing or short, while those of volumes say it
            metadata |= self._start_time([nearest, *others] if _is_on_surface(bold) else others, acquired)
            metadata |= self._metadata(nearest, bold.entities)
        except UnreadableFileError as error:
            problems.append(str(error).removesuffix("."))
        problem = problems[0] if problems else None
        return RunInputs(
            entities=acquired,
            bold=bold.path,
            mask=mask,
            events=events,
            confounds=confounds,
            metadata=metadata,
            problem=problem,
            warnings=tuple(warnings),
        )

    def _first(
        self,
        companion: _Companion,
        places: Iterable[Sequence[IndexedFile]],
        entities: Mapping[str, str],
        problems: list[str],
    ) -> Path | None:
        """Find the file of a kind in the first place that has one; two of the same rank are a problem."""
        wanted = {**companion.default_filter, **self._filters.get(companion.name, {})}
        # `label` tells masks apart, and no image has it
        ignored = (*companion.ignored, "label") if "label" in wanted else companion.ignored
        for files in places:
            of_kind = [
                file for file in files if file.suffix in companion.suffixes and file.extension in companion.extensions
            ]
            found = [file for file in applicable_files(of_kind, entities, ignored) if matches_filter(file, wanted)]
            if len(found) > 1 and _rank(found[-1]) == _rank(found[-2]):
                problems.append(f"two files could be its {companion.name}: {found[-2].path} and {found[-1].path}")
            if found:
                return found[-1].path
        return None

    def _metadata(
        self, files: Iterable[IndexedFile], entities: Mapping[str, str], ignored: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Merge the JSON sidecars that apply to a run, the most specific winning."""
        metadata: dict[str, Any] = {}
        sidecars = [file for file in files if file.suffix == "bold" and file.extension.endswith(".json")]
        for file in applicable_files(sidecars, entities, ignored):
            if file.path not in self._sidecars:
                self._sidecars[file.path] = read_json_object(file.path)
            # null says nothing, and hides no value of a file above
            metadata |= {key: value for key, value in self._sidecars[file.path].items() if value is not None}
        return metadata

    def _start_time(self, places: Sequence[Sequence[IndexedFile]], acquired: Mapping[str, str]) -> dict[str, Any]:
        """Find the time that slices were corrected to: a program that denoises images may not repeat it."""
        for files in places:
            metadata = self._metadata(files, acquired, DERIVATIVE_ENTITIES)
            if "StartTime" in metadata:
                return {"StartTime": metadata["StartTime"]}
        return {}


def applicable_files(
    files: Iterable[IndexedFile], entities: Mapping[str, str], ignored: Sequence[str] = ()
) -> list[IndexedFile]:
    """Find the files that apply to a run by the BIDS inheritance principle, the most specific last.

    A file applies when each of its entities (but those ignored) is one of the run's; one deeper in the folders
    comes later.
    """
    applicable = [
        file
        for file in files
        if all(_agrees(entities, key, label) for key, label in file.entities.items() if key not in ignored)
    ]
    return sorted(applicable, key=lambda file: (_rank(file), str(file.path)))


def _rank(file: IndexedFile) -> tuple[int, int]:
    return file.depth, len(file.entities)


def _agrees(entities: Mapping[str, str], key: str, label: str) -> bool:
    own = entities.get(key)
    if own is None:
        return (key, label) == ("part", "mag")  # which a preprocessed image need not say
    return comparable_label(key, own) == comparable_label(key, label)


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

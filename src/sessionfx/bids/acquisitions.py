"""Which of several files of one acquisition is analysed.

Vocabulary
----------
acquisition
    What was scanned at one time: participant, session, task, run, and what else makes it a run of its own (`acq`,
    `dir`, `ce`).
version
    One file of an acquisition beside others of it: an echo, a reconstruction, magnitude or phase, a part of the field
    of view. Versions hold the same moments of the same brain; taken for further runs they would count the data twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sessionfx.bids.dataset import IndexedFile
from sessionfx.bids.names import DERIVATIVE_ENTITIES, LONG_NAMES, comparable_label, entity_string
from sessionfx.errors import CommandLineError, DatasetError
from sessionfx.wording import counted, listed, natural_key

# Entities that tell files of one acquisition apart, in the order in which they are decided
VERSION_ENTITIES = ("part", "echo", "rec", "proc", "mod", "inv", "flip", "mt", "split", "chunk", "recording")
# Entities that may tell runs apart or versions: taken for runs, with a warning
_PERHAPS_RUNS = ("acq", "dir", "ce")
# Of the parts of complex data these are no signal to model
_NOT_MAGNITUDE = ("phase", "real", "imag")
# The filter of who gives none
DEFAULT_BOLD_FILTER = {"desc": "preproc"}
_NAMES_SHOWN = 3


def acquired_entities(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities of the acquired file, without those that tell its derivatives apart."""
    return {key: label for key, label in entities.items() if key not in DERIVATIVE_ENTITIES}


def one_per_acquisition(
    files: Sequence[IndexedFile], bold_filter: Mapping[str, Any]
) -> tuple[list[IndexedFile], list[str]]:
    """Keep one file of each acquisition.

    The file without `echo-` stands for its echoes (it is their combination), magnitude goes before phase. What else
    tells versions apart is the user's choice.

    Parameters
    ----------
    files : sequence of IndexedFile
        Preprocessed images that passed the filter.
    bold_filter : mapping of str to object
        The filter they passed; an entity in it has been chosen.

    Returns
    -------
    files : list of IndexedFile
    warnings : list of str
        What a reader should know, as sentences.

    Raises
    ------
    CommandLineError
        If several versions are left; the message lists them, and filters that choose one.
    DatasetError
        If two files have the same name but for padding of numbers, or for their folder.
    """
    chosen: list[IndexedFile] = []
    open_groups: dict[str, list[list[IndexedFile]]] = {}
    for group in _grouped(files):
        left = _preferred(group, bold_filter)
        differing = next((key for key in VERSION_ENTITIES if len({_label(file, key) for file in left}) > 1), None)
        if differing is not None:
            open_groups.setdefault(differing, []).append(left)
        elif len(left) > 1:
            raise _same_run(*left[:2])
        else:
            chosen += left
    for key, ambiguous in open_groups.items():
        raise _ambiguity(key, ambiguous, bold_filter)
    _check_magnitude(chosen, bold_filter)
    _check_concatenated(chosen, bold_filter)
    return chosen, [*_warnings(chosen, bold_filter), *_mixtures(chosen, bold_filter)]


def acquisitions_without(chosen: Iterable[IndexedFile], there: Iterable[IndexedFile]) -> list[str]:
    """Name acquisitions that none of the chosen files is of, of participants who have chosen files.

    A program that preprocesses may leave entities out of names: those that one of the two names lacks tell nothing.
    """
    stands_for: dict[str, list[tuple[tuple[str, str], ...]]] = {}
    for file in chosen:
        stands_for.setdefault(file.entities["sub"], []).append(_acquisition(file))
    without: dict[tuple[tuple[str, str], ...], str] = {}
    for file in there:
        of_participant = stands_for.get(file.entities["sub"], [])
        own = dict(_acquisition(file))
        if of_participant and not any(
            all(own.get(key, label) == label for key, label in other) for other in of_participant
        ):
            kept = {key: label for key, label in acquired_entities(file.entities).items() if key in own}
            without.setdefault(_acquisition(file), entity_string(kept))
    return sorted(without.values(), key=natural_key)


def _same_run(first: IndexedFile, second: IndexedFile) -> DatasetError:
    if first.root != second.root:
        remedy = "Name one derivative folder with --derivatives."
    elif acquired_entities(first.entities) != acquired_entities(second.entities):
        remedy = "Their numbers differ in leading zeros only. Remove one of them, or rename it."
    else:
        remedy = "Tell them apart with --bids-filter-file."
    return DatasetError(
        f"Two preprocessed files stand for the same run {entity_string(acquired_entities(first.entities))}: "
        f"{first.path} and {second.path}. {remedy}"
    )


def _acquisition(file: IndexedFile) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted(
            (key, comparable_label(key, label))
            for key, label in acquired_entities(file.entities).items()
            if key not in VERSION_ENTITIES
        )
    )


def _label(file: IndexedFile, key: str) -> str | None:
    label = file.entities.get(key)
    return None if label is None else comparable_label(key, label)


def _preferred(group: Sequence[IndexedFile], bold_filter: Mapping[str, Any]) -> list[IndexedFile]:
    """Leave out versions that no one means: phase beside magnitude, echoes beside their combination."""
    left = list(group)
    if not _is_chosen("part", bold_filter):
        magnitude = [file for file in left if file.entities.get("part") not in _NOT_MAGNITUDE]
        left = magnitude or left
    if not _is_chosen("echo", bold_filter):
        combined = [file for file in left if "echo" not in file.entities]
        left = combined or left
    return left


def _is_chosen(key: str, bold_filter: Mapping[str, Any]) -> bool:
    return key in bold_filter or LONG_NAMES.get(key, key) in bold_filter


def _ambiguity(key: str, groups: Sequence[Sequence[IndexedFile]], bold_filter: Mapping[str, Any]) -> CommandLineError:
    labels = _labels(key, [file for group in groups for file in group])
    filters = " or ".join(_filter(bold_filter, key, label or None) for label in labels)
    names = " and ".join(file.path.name for file in groups[0][:2])
    return CommandLineError(
        f"There are several files of one acquisition ({_listed(key, labels)}), which are not runs of their own: "
        f"{names}; in all {_places(groups)}. Choose with --bids-filter-file, the file holding {filters}."
    )


def _labels(key: str, files: Iterable[IndexedFile]) -> list[str]:
    """Labels of an entity in natural order, the empty one where a file lacks it."""
    return sorted({_label(file, key) or "" for file in files}, key=natural_key)


def _filter(bold_filter: Mapping[str, Any], key: str, wanted: Any) -> str:
    """Write the filter that chooses a label, beside what the user's filter chooses already."""
    others = {
        name: value
        for name, value in bold_filter.items()
        if DEFAULT_BOLD_FILTER.get(name) != value and name not in (key, LONG_NAMES.get(key, key))
    }
    return json.dumps({"bold": {**others, LONG_NAMES.get(key, key): wanted}})


def _listed(key: str, labels: Sequence[str]) -> str:
    return ", ".join(f"{key}-{label}" if label else f"without {key}-" for label in labels)


def _places(groups: Sequence[Sequence[IndexedFile]]) -> str:
    """Count acquisitions and name their participants."""
    named = sorted({group[0].entities["sub"] for group in groups}, key=natural_key)
    return f"{counted(len(groups), 'acquisition')} of {listed([f'sub-{label}' for label in named], most=_NAMES_SHOWN)}"


def _check_magnitude(files: Iterable[IndexedFile], bold_filter: Mapping[str, Any]) -> None:
    """Refuse phase, real and imaginary images that stand alone: their values are no signal of blood oxygenation."""
    if _is_chosen("part", bold_filter):
        return
    wrong = [file for file in files if file.entities.get("part") in _NOT_MAGNITUDE]
    if wrong:
        part = wrong[0].entities["part"]
        raise CommandLineError(
            f"{wrong[0].path} is a part-{part} image, and its acquisition has no magnitude image. Leave such files out "
            f"with --bids-filter-file, the file holding {_filter(bold_filter, 'part', None)} or "
            f"{_filter(bold_filter, 'part', 'mag')}."
        )


def _check_concatenated(files: Sequence[IndexedFile], bold_filter: Mapping[str, Any]) -> None:
    """Refuse a file without `run-` beside runs: XCP-D writes one that holds the volumes of all of them."""
    if _is_chosen("run", bold_filter):
        return
    beside = [group for group in _grouped(files, "run") if len({"run" in file.entities for file in group}) > 1]
    if beside:
        without = next(file for file in beside[0] if "run" not in file.entities)
        raise CommandLineError(
            f"{without.path} has no run-, and there are files with run- beside it; it may hold the volumes of all runs "
            f"once more ({_places(beside)}). Choose with --bids-filter-file, the file holding "
            f"{_filter(bold_filter, 'run', '*')} for the runs, {_filter(bold_filter, 'run', None)} for the others, or "
            f"{_filter(bold_filter, 'run', ['*', None])} for both."
        )


def _grouped(files: Iterable[IndexedFile], key: str = "") -> list[list[IndexedFile]]:
    """Files of one acquisition, or of acquisitions that differ in one entity at most."""
    groups: dict[tuple[tuple[str, str], ...], list[IndexedFile]] = {}
    for file in files:
        groups.setdefault(tuple(pair for pair in _acquisition(file) if pair[0] != key), []).append(file)
    return list(groups.values())


def _mixtures(files: Sequence[IndexedFile], bold_filter: Mapping[str, Any]) -> list[str]:
    """Name versions of which different ones are analysed together, as each is the only one of its acquisition."""
    warnings = []
    for key in VERSION_ENTITIES:
        labels = _labels(key, files)
        # magnitude need not be named part-mag, and other parts alone are refused
        if key == "part" or len(labels) < 2 or _is_chosen(key, bold_filter):
            continue
        counts = [
            f"{_listed(key, [label])} in {counted(sum((_label(file, key) or '') == label for file in files), 'run')}"
            for label in labels
        ]
        warnings.append(
            f"Runs differ in {key}- ({', '.join(counts)}) and are analysed together, as each acquisition has one "
            "version only. If they should not be, choose with --bids-filter-file, the file holding for instance "
            f"{_filter(bold_filter, key, labels[-1])}."
        )
    return warnings


def _warnings(files: Sequence[IndexedFile], bold_filter: Mapping[str, Any]) -> list[str]:
    """Name what is taken for further runs though it may be versions of one."""
    warnings = []
    for key in _PERHAPS_RUNS:
        several = [group for group in _grouped(files, key) if len(group) > 1]
        if several:
            labels = _labels(key, [file for group in several for file in group])
            warnings.append(
                f"Files that differ in {key}- ({_listed(key, labels)}) are taken for runs of their own and combined: "
                f"{_places(several)}. If they are versions of one run, choose with --bids-filter-file, the file "
                f"holding for instance {_filter(bold_filter, key, labels[-1] or None)}."
            )
    return warnings

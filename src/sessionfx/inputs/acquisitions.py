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

from sessionfx.errors import CommandLineError, DatasetError
from sessionfx.inputs.dataset import IndexedFile
from sessionfx.naming import DERIVATIVE_ENTITIES, LONG_NAMES, comparable_label, entity_string, natural_key

# Entities that tell files of one acquisition apart, in the order in which they are decided
VERSION_ENTITIES = ("part", "echo", "rec", "proc", "mod", "inv", "flip", "mt", "split", "chunk", "recording")
# Entities that may tell runs apart or versions: taken for runs, with a warning
_PERHAPS_RUNS = ("acq", "dir", "ce")
# Of the parts of complex data these are no signal to model
_NOT_MAGNITUDE = ("phase", "real", "imag")
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
    groups: dict[tuple[tuple[str, str], ...], list[IndexedFile]] = {}
    for file in files:
        groups.setdefault(_acquisition(file), []).append(file)
    chosen: list[IndexedFile] = []
    open_groups: dict[str, list[list[IndexedFile]]] = {}
    for group in groups.values():
        left = _preferred(group, bold_filter)
        differing = next((key for key in VERSION_ENTITIES if len({_label(file, key) for file in left}) > 1), None)
        if differing is not None:
            open_groups.setdefault(differing, []).append(left)
        elif len(left) > 1:
            raise DatasetError(
                f"Two preprocessed files stand for the same run {entity_string(acquired_entities(left[0].entities))}: "
                f"{left[0].path} and {left[1].path}. Name one derivative folder with --derivatives, or tell them apart "
                "with --bids-filter-file."
            )
        else:
            chosen += left
    for key, ambiguous in open_groups.items():
        raise _ambiguity(key, ambiguous)
    _check_magnitude(chosen, bold_filter)
    return chosen, _warnings(chosen)


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


def _ambiguity(key: str, groups: Sequence[Sequence[IndexedFile]]) -> CommandLineError:
    files = [file for group in groups for file in group]
    labels = sorted({file.entities.get(key) or "" for file in files}, key=natural_key)
    filters = " or ".join(json.dumps({"bold": {LONG_NAMES.get(key, key): label or None}}) for label in labels)
    names = " and ".join(file.path.name for file in groups[0][:2])
    return CommandLineError(
        f"There are several files of one acquisition ({_listed(key, labels)}), which are not runs of their own: "
        f"{names}; in all {_places(groups)}. Choose with --bids-filter-file, the file holding {filters}."
    )


def _listed(key: str, labels: Sequence[str]) -> str:
    return ", ".join(f"{key}-{label}" if label else f"without {key}-" for label in labels)


def _places(groups: Sequence[Sequence[IndexedFile]]) -> str:
    """Count acquisitions and name their participants."""
    named = sorted({group[0].entities["sub"] for group in groups}, key=natural_key)
    shown = ", ".join(f"sub-{label}" for label in named[:_NAMES_SHOWN])
    more = f" and {len(named) - _NAMES_SHOWN} more" if len(named) > _NAMES_SHOWN else ""
    return f"{len(groups)} acquisition{'' if len(groups) == 1 else 's'} of {shown}{more}"


def _check_magnitude(files: Iterable[IndexedFile], bold_filter: Mapping[str, Any]) -> None:
    """Refuse phase, real and imaginary images that stand alone: their values are no signal of blood oxygenation."""
    if _is_chosen("part", bold_filter):
        return
    wrong = [file for file in files if file.entities.get("part") in _NOT_MAGNITUDE]
    if wrong:
        part = wrong[0].entities["part"]
        raise CommandLineError(
            f"{wrong[0].path} is a part-{part} image, and its acquisition has no magnitude image. Leave such files out "
            f'with --bids-filter-file, the file holding {{"bold": {{"part": null}}}} or {{"bold": {{"part": "mag"}}}}.'
        )


def _warnings(files: Sequence[IndexedFile]) -> list[str]:
    """Name what is taken for further runs though it may be versions of one."""
    warnings = []
    for key in _PERHAPS_RUNS:
        groups: dict[tuple[tuple[str, str], ...], list[IndexedFile]] = {}
        for file in files:
            others = tuple(pair for pair in _acquisition(file) if pair[0] != key)
            groups.setdefault(others, []).append(file)
        several = [group for group in groups.values() if len(group) > 1]
        if several:
            labels = sorted({file.entities.get(key) or "" for group in several for file in group}, key=natural_key)
            choice = json.dumps({"bold": {LONG_NAMES.get(key, key): labels[-1] or None}})
            warnings.append(
                f"Files that differ in {key}- ({_listed(key, labels)}) are taken for runs of their own and combined: "
                f"{_places(several)}. If they are versions of one run, choose with --bids-filter-file, the file "
                f"holding for instance {choice}."
            )
    return warnings

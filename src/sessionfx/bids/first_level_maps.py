"""First-level maps for the group level: those SessionFX wrote, and effect maps of FitLins and nilearn.

Foreign maps may lack entities (FitLins names neither task nor space): what a name does not say is taken from
the options. FitLins sorts maps into folders by the nodes of its model, whose names are free; what a node holds is told
by the entities of its maps, or by its name where that is a level's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sessionfx.bids.dataset import IndexedFile, indexed_file, matches_filter
from sessionfx.bids.names import (
    EFFECT_STATISTICS,
    LONG_NAMES,
    STATMAP_SUFFIX,
    WITHOUT,
    comparable_label,
    file_name,
    natural_key,
)
from sessionfx.bids.reading import walk
from sessionfx.bids.session_order import SessionOrder, order_sessions
from sessionfx.errors import CommandLineError, DatasetError, LevelError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.wording import counted, listed, session_names

OWN_DESC = "fixedEffects"
_NODE = re.compile(r"node-([A-Za-z0-9]+)\Z")
# Names of nodes whose maps are no session maps, without a closing "Level"
_RUN_NODES = ("run", "runs")
_DATASET_NODES = ("dataset", "group", "study")
# Folders in which no maps lie
_OTHER_FOLDERS = ("figures", "log", "logs", "sourcedata", "group")
# Entities that say what a map is of; in the others maps of one thing may differ
_SUBJECT_MATTER = ("sub", "ses", "task", "space", "cohort", "res", "contrast", "stat")


@dataclass(frozen=True)
class FirstLevelMap:
    """One effect map of one participant and session.

    Attributes
    ----------
    participant, session : str
        The session is empty where the map belongs to none.
    contrast : str
        Contrast label.
    task, space, cohort, res : str or None
        None where the name does not say.
    effect : Path
    variance : Path or None
    root : Path
        The derivative folder it was found in.
    others : dict of str to str
        The other entities of its name (`acq`, `desc`, …).
    node : Path or None
        The folder of a FitLins node it lies in.
    """

    participant: str
    session: str
    contrast: str
    task: str | None
    space: str | None
    cohort: str | None
    res: str | None
    effect: Path
    variance: Path | None
    root: Path
    others: Mapping[str, str] = field(default_factory=dict)
    node: Path | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Contrast, participant and session: one map each enters a group model."""
        return self.contrast, self.participant, self.session


@dataclass(frozen=True)
class FoundMaps:
    """What a search for first-level maps gives.

    Attributes
    ----------
    maps : tuple of FirstLevelMap
        Of sessions, and of participants whose maps belong to no session.
    participants : dict of str to str
        Why a participant with a folder may have no such map, by label.
    """

    maps: tuple[FirstLevelMap, ...]
    participants: Mapping[str, str]


@dataclass(frozen=True)
class MapSelection:
    """Maps of one task in one space.

    Attributes
    ----------
    entities : dict
        task, space, cohort and res of the outputs.
    order : SessionOrder
        Study sessions in time order.
    maps : dict of str to tuple of FirstLevelMap
        By contrast label, ordered by participant and session.
    absent : dict of str to dict of str to str
        By contrast label: participants who could have had a map of it and have none, and why ("has no …").
    warnings : tuple of str
        What a reader should know of the choice, as sentences.
    """

    entities: dict[str, str | None]
    order: SessionOrder
    maps: dict[str, tuple[FirstLevelMap, ...]]
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def sessions(self) -> tuple[str, ...]:
        """Study sessions in time order; empty where maps belong to none."""
        return self.order.labels


def find_first_level_maps(roots: Sequence[Path], map_filter: Mapping[str, Any] | None = None) -> FoundMaps:
    """Find effect maps of participants by their names; those of runs and of contrasts over sessions are passed over.

    Parameters
    ----------
    roots : sequence of Path
    map_filter : mapping of str to object, optional
        pybids filter that maps must pass.

    Raises
    ------
    LevelError
        If a folder cannot be listed, or leads back to one above it.
    """
    maps: list[FirstLevelMap] = []
    participants: dict[str, str] = {}
    for root in roots:
        try:
            paths = list(walk(root, lambda entry: entry.name not in _OTHER_FOLDERS and not entry.name.startswith(".")))
        except DatasetError as error:
            raise LevelError(str(error)) from None
        for path in paths:
            below = path.relative_to(root).parts
            owner = next((part[4:] for part in below[:-1] if part.startswith("sub-")), None)
            file = indexed_file(path, root) if f"_{STATMAP_SUFFIX}.nii" in path.name else None
            if owner is not None:
                participants.setdefault(owner, "has no first-level map")
            if file is None or not _is_effect_map(file):
                continue
            if _is_of_a_run(file, below):
                participants[file.entities["sub"]] = "has maps of single runs only"
            elif map_filter and not matches_filter(file, map_filter):
                participants[file.entities["sub"]] = "has no map that passes the filter"
            elif not _is_of_other_level(file, below):
                maps.append(_described(file, below))
    return FoundMaps(tuple(maps), participants)


def _is_effect_map(file: IndexedFile) -> bool:
    entities = file.entities
    return (
        file.suffix == STATMAP_SUFFIX
        and file.extension in (".nii.gz", ".nii")
        and entities.get("stat") in EFFECT_STATISTICS
        and "sub" in entities
        and "contrast" in entities
    )


def _node_level(below: Sequence[str]) -> str:
    """Name of the FitLins node that a map lies in, without a closing "Level"; empty outside of nodes."""
    name = next((match[1] for part in below[:-1] if (match := _NODE.match(part))), "")
    return re.sub(r"level\Z", "", name.lower())


def _is_of_a_run(file: IndexedFile, below: Sequence[str]) -> bool:
    return "run" in file.entities or _node_level(below) in _RUN_NODES


def _is_of_other_level(file: IndexedFile, below: Sequence[str]) -> bool:
    return "sessions" in file.entities or _node_level(below) in _DATASET_NODES


def _described(file: IndexedFile, below: Sequence[str]) -> FirstLevelMap:
    entities, path = file.entities, file.path
    variance = path.with_name(file_name({**entities, "stat": "variance"}, STATMAP_SUFFIX, file.extension))
    if not variance.is_file():
        variance = path.with_name(path.name.replace(f"_stat-{entities['stat']}_", "_stat-variance_"))
    depth = next((at for at, part in enumerate(below[:-1], start=1) if _NODE.match(part)), 0)
    return FirstLevelMap(
        entities["sub"], entities.get("ses", ""), entities["contrast"], entities.get("task"), entities.get("space"),
        entities.get("cohort"), entities.get("res"), path, variance if variance.is_file() else None, file.root,
        {key: label for key, label in entities.items() if key not in _SUBJECT_MATTER},
        file.root.joinpath(*below[:depth]) if depth else None,
    )  # fmt: skip


def select_maps(
    found: FoundMaps,
    options: Selection,
    contrast_labels: Sequence[str],
    searched: Sequence[Path],
    raw: Path,
) -> MapSelection:
    """Choose the maps that the options ask for.

    Parameters
    ----------
    found : FoundMaps
    options : Selection
    contrast_labels : sequence of str
        All where empty.
    searched : sequence of Path
        Where maps were looked for, for messages.
    raw : Path
        The raw dataset, for the order of sessions.

    Raises
    ------
    LevelError
        If there are no first-level maps.
    NothingMatchesError
        If an option matches none; the message lists what exists.
    CommandLineError
        If several tasks, spaces or resolutions exist and none is named, or two maps stand for the same thing.
    """
    if not found.maps:
        raise LevelError(
            f"There are no first-level maps in {listed(searched)}. Run the participant level first, "
            "or name a folder that has maps with --derivatives."
        )
    chosen = list(found.maps)
    chosen, task = _choose(chosen, "task", options.task, "--task", None)
    chosen, space = _choose(chosen, "space", options.space, "--space", "MNI152NLin2009cAsym")
    chosen, cohort = _choose(chosen, "cohort", None, "the 'maps' entry of --bids-filter-file", None)
    chosen, res = _choose(chosen, "res", options.res, "--res", None)
    _check_labels({stat_map.contrast for stat_map in chosen}, contrast_labels, "--contrast")
    wanted = contrast_labels or sorted({stat_map.contrast for stat_map in chosen}, key=natural_key)
    # before contrasts and participants are chosen: what a step of the trend is must not depend on them
    sessions = {stat_map.session for stat_map in chosen if stat_map.session}
    _check_labels(sessions, options.session_label, "--session-label")
    _check_labels({stat_map.participant for stat_map in chosen}, options.participant_label, "--participant-label")
    order = order_sessions(sessions, options.session_label, raw)
    absent = {
        label: _absent(found, [item for item in chosen if item.contrast == label], label, options, order)
        for label in wanted
    }
    by_contrast: dict[str, tuple[FirstLevelMap, ...]] = {}
    for label in wanted:
        kept = _entering([stat_map for stat_map in chosen if stat_map.contrast == label], options, order)
        if kept:
            by_contrast[label] = kept
    if not by_contrast:
        raise NothingMatchesError(
            "No participant chosen has a map of these sessions and contrasts. Choose others with --participant-label, "
            "--session-label or --contrast."
        )
    entities = {"task": task, "space": space, "cohort": cohort, "res": res}
    warnings = (*order.warnings, *_mixtures([item for maps in by_contrast.values() for item in maps]))
    return MapSelection(entities, order, by_contrast, absent, warnings)


def _entering(maps: Sequence[FirstLevelMap], options: Selection, order: SessionOrder) -> tuple[FirstLevelMap, ...]:
    """Take the maps of one contrast that enter, one for each participant and session, in order."""
    of_sessions = any(stat_map.session for stat_map in maps)
    kept = [
        stat_map
        for stat_map in maps
        if (stat_map.session in order.labels if of_sessions else True)
        and (not options.participant_label or stat_map.participant in options.participant_label)
    ]
    groups: dict[tuple[str, str, str], list[FirstLevelMap]] = {}
    for stat_map in kept:
        groups.setdefault(stat_map.key, []).append(stat_map)
    single = [_only(group) for group in groups.values()]
    place = {label: number for number, label in enumerate(order.labels)}
    return tuple(sorted(single, key=lambda item: (natural_key(item.participant), place.get(item.session, 0))))


def _only(group: Sequence[FirstLevelMap]) -> FirstLevelMap:
    """Take the one map of a participant, session and contrast; our own where the rest of its folder is others'."""
    own = [stat_map for stat_map in group if stat_map.others.get("desc") == OWN_DESC]
    if len(own) == 1 and len({stat_map.root for stat_map in group}) == 1:
        return own[0]
    if len(group) == 1:
        return group[0]
    a, b = group[0], group[1]
    raise CommandLineError(
        f"Two maps stand for the same participant, session and contrast: {a.effect} and {b.effect}. {_remedy(a, b)}"
    )


def _remedy(a: FirstLevelMap, b: FirstLevelMap) -> str:
    """Say how to choose between two maps."""
    keys = [key for key in dict.fromkeys((*a.others, *b.others)) if _label(a, key) != _label(b, key)]
    if a.root != b.root:
        return "Give one folder with --derivatives, or an output folder without maps of its own."
    if keys:
        labels = [stat_map.others.get(keys[0]) for stat_map in (a, b)]
        filters = " or ".join(json.dumps({"maps": {LONG_NAMES.get(keys[0], keys[0]): label}}) for label in labels)
        return f"Choose with --bids-filter-file, the file holding {filters}."
    if a.node != b.node:
        nodes = " or ".join(f"--derivatives {stat_map.node or stat_map.root}" for stat_map in (b, a))
        return f"Choose the node of the model whose maps are meant: {nodes}."
    return "Leave only one of them in the folder."


def _label(stat_map: FirstLevelMap, key: str) -> str | None:
    label = stat_map.others.get(key)
    return None if label is None else comparable_label(key, label)


def _mixtures(maps: Sequence[FirstLevelMap]) -> list[str]:
    """Name entities in which the maps that enter differ: they may not be alike."""
    warnings = []
    for key in sorted({key for stat_map in maps for key in stat_map.others}):
        labels: dict[str, int] = {}
        for stat_map in maps:
            name = f"{key}-{label}" if (label := _label(stat_map, key)) is not None else f"without {key}-"
            labels[name] = labels.get(name, 0) + 1
        if len(labels) > 1:
            counts = listed(f"{counted(number, 'map')} {name}" for name, number in labels.items())
            warnings.append(f"The maps that enter are not all named alike: {counts}. Check that they may be compared.")
    return warnings


def _absent(
    found: FoundMaps, maps: Sequence[FirstLevelMap], contrast: str, options: Selection, order: SessionOrder
) -> dict[str, str]:
    """Name the participants who could have entered and do not, and why.

    Whoever is not asked for with `--participant-label` is not among them.
    """
    reasons = {}
    of_sessions = any(stat_map.session for stat_map in maps)
    everyone = {*found.participants, *(stat_map.participant for stat_map in found.maps)}
    with_maps = {stat_map.participant for stat_map in found.maps}
    for label in sorted(everyone, key=natural_key):
        if options.participant_label and label not in options.participant_label:
            continue
        own = [stat_map for stat_map in maps if stat_map.participant == label]
        if any(not of_sessions or stat_map.session in order.labels for stat_map in own):
            continue
        if not own:
            reasons[label] = (
                f"has no map of contrast {contrast} for this task and space" if label in with_maps
                else found.participants[label]
            )  # fmt: skip
        elif any(stat_map.session for stat_map in own):
            reasons[label] = f"has no map of the sessions {session_names(order.labels)}"
        else:
            reasons[label] = "has a map that names no session, while those of others do"
    return reasons


def _choose(
    maps: list[FirstLevelMap], field_name: str, wanted: str | None, option: str, preferred: str | None
) -> tuple[list[FirstLevelMap], str | None]:
    """Keep the maps of one label; maps that do not say are taken to agree."""
    labels: list[str | None] = [getattr(item, field_name) for item in maps]
    named = sorted({label for label in labels if label is not None}, key=natural_key)
    if wanted == WITHOUT and WITHOUT not in named:
        kept = [item for item in maps if getattr(item, field_name) is None]
        wanted = None
    else:
        if wanted is None:
            if len(named) > 1 and preferred not in named:
                noun = "resolution" if field_name == "res" else field_name
                raise CommandLineError(
                    f"There are first-level maps of several {noun}s: {listed(named)}. Choose one with {option}."
                )
            wanted = preferred if len(named) > 1 else (named[0] if named else None)
        kept = [item for item in maps if getattr(item, field_name) in (None, wanted)]
    if not kept:
        raise NothingMatchesError(
            f"{option} {wanted or WITHOUT} matches no first-level map. What exists: {listed(named)}."
        )
    return kept, wanted


def _check_labels(labels: Iterable[str], wanted: Sequence[str], option: str) -> None:
    known = set(labels)
    for label in wanted:
        if label not in known:
            names = sorted(known, key=natural_key)
            existing = listed(names) or "none is named"
            raise NothingMatchesError(f"{option} {label} matches no first-level map. What exists: {existing}.")

"""First-level maps for the group level: those SessionFX wrote, and effect maps of FitLins and nilearn.

Foreign maps may lack entities (FitLins names neither task nor space): what a name does not say is taken from
the options. FitLins sorts maps into folders by the nodes of its model, whose names are free; what a node holds is told
by the entities of its maps, or by its name where that is a level's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sessionfx.ask.contrasts import Contrast, selected_f_tests, selected_labels
from sessionfx.bids.choosing import (
    DEFAULT_SPACE,
    MAPS,
    TOGETHER,
    check_labels,
    choose_entities,
    matches_filter,
    of_each_task,
)
from sessionfx.bids.dataset import IndexedFile, indexed_file, participants_of
from sessionfx.bids.names import (
    EFFECT_STATISTICS,
    GIFTI,
    LONG_NAMES,
    STATMAP_SUFFIX,
    SURFACE_MAPS,
    WITHOUT,
    comparable_label,
    file_name,
    files_of,
    name_of_both,
)
from sessionfx.bids.reading import walk
from sessionfx.bids.session_order import SessionOrder, order_sessions
from sessionfx.errors import CommandLineError, DatasetError, LevelError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.space.grid import Grid
from sessionfx.space.surface import HEMISPHERES
from sessionfx.wording import counted, listed, natural_key, session_names

OWN_DESC = "fixedEffects"
_NODE = re.compile(r"node-([A-Za-z0-9]+)\Z")
# Names of nodes whose maps are no session maps, without a closing "Level"
_RUN_NODES = ("run", "runs")
_DATASET_NODES = ("dataset", "group", "study")
# Folders in which no maps lie
_OTHER_FOLDERS = ("figures", "log", "logs", "sourcedata", "group")
# Entities that say what a map is of; in the others maps of one thing may differ
_SUBJECT_MATTER = ("sub", "ses", "contrast", "stat")
_EXTENSIONS = (Grid.extension, ".nii", *SURFACE_MAPS)
_ENDINGS = tuple(f"_{STATMAP_SUFFIX}{extension}" for extension in _EXTENSIONS)
NATIVE = "fsnative"  # the surface of each participant's own


@dataclass(frozen=True, slots=True)
class FirstLevelMap:
    """One effect map of one participant and session.

    A large study has tens of thousands: names are kept as text, and paths made of it when they are asked for.
    """

    entities: dict[str, str]  # of its name
    root: Path  # the derivative folder it was found in
    # effect_name, variance_name: the files below it, of both hemispheres the name of both together
    effect_name: str
    variance_name: str = ""  # empty where there is none
    # for an F test over conditions: of the same participant and session those of its further rows
    further: tuple[FirstLevelMap, ...] = ()

    @property
    def effect(self) -> Path:
        """The file of the effect; of both hemispheres the name of both together, see `effect_files`."""
        return self.root / self.effect_name

    @property
    def variance(self) -> Path | None:
        """The file of the sampling variance, likewise."""
        return self.root / self.variance_name if self.variance_name else None

    @property
    def node(self) -> Path | None:
        """The folder of a FitLins node it lies in."""
        folders = Path(self.effect_name).parent.parts
        depth = next((at for at, part in enumerate(folders, start=1) if _NODE.match(part)), 0)
        return self.root.joinpath(*folders[:depth]) if depth else None

    @property
    def of_rows(self) -> tuple[FirstLevelMap, ...]:
        """Itself, and the maps of the further rows."""
        return self, *self.further

    @property
    def effect_files(self) -> tuple[Path, ...]:
        """The file of the effect, or those of both hemispheres."""
        return files_of(self.effect)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of effect and variance."""
        return (*self.effect_files, *(files_of(self.variance) if self.variance is not None else ()))

    @property
    def extension(self) -> str:
        """Of files of results in the same space."""
        return next((found for found in SURFACE_MAPS if self.effect_name.endswith(found)), Grid.extension)

    @property
    def is_on_surface(self) -> bool:
        """Whether it is no volume."""
        return self.extension != Grid.extension

    @property
    def participant(self) -> str:
        """Participant label."""
        return self.entities["sub"]

    @property
    def session(self) -> str:
        """Session label; empty where the map belongs to none."""
        return self.entities.get("ses", "")

    @property
    def contrast(self) -> str:
        """Contrast label."""
        return self.entities["contrast"]

    @property
    def hemisphere(self) -> str | None:
        """The hemisphere of a file that has one of a surface; other files may have the entity for something else."""
        return self.entities.get("hemi") if self.extension == GIFTI else None

    @property
    def key(self) -> tuple[str, str, str]:
        """Contrast, participant and session: one map each enters a group model."""
        return self.contrast, self.participant, self.session

    @property
    def others(self) -> dict[str, str]:
        """The entities in which maps of one thing may differ (`res`, `desc`, …), in comparable form."""
        known = (*_SUBJECT_MATTER, "hemi") if self.hemisphere else _SUBJECT_MATTER
        return {key: comparable_label(key, label) for key, label in self.entities.items() if key not in known}


@dataclass(frozen=True)
class FoundMaps:
    """What a search for first-level maps gives."""

    # of sessions, and of participants whose maps belong to no session; of hemispheres one by one
    maps: tuple[FirstLevelMap, ...]
    participants: Mapping[str, str]  # why a participant with a folder may have no such map, by label
    f_tests: frozenset[str] = frozenset()  # labels of F tests within participants, which have no effect map


@dataclass(frozen=True)
class MapSelection:
    """Maps of one task in one space."""

    entities: dict[str, str | None]  # task, space, cohort and res of the outputs, and den and hemi where they have one
    order: SessionOrder  # study sessions in time order
    maps: dict[str, tuple[FirstLevelMap, ...]]  # by contrast label, ordered by participant and session
    # by contrast label: participants who could have had a map of it and have none, and why ("has no …")
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what a reader should know of the choice, as sentences
    # F tests over conditions, by their labels, which `maps` has too: each map with those of the further rows
    f_tests: dict[str, Contrast] = field(default_factory=dict)

    @property
    def participants(self) -> list[str]:
        """Labels of those who have a map of some contrast."""
        return sorted({chosen.participant for maps in self.maps.values() for chosen in maps}, key=natural_key)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Study sessions in time order; empty where maps belong to none."""
        return self.order.labels


def find_first_level_maps(roots: Sequence[Path], map_filter: Mapping[str, Any] | None = None) -> FoundMaps:
    """Find effect maps of participants by their names, those that pass a pybids filter.

    Maps of runs and of contrasts over sessions are passed over.

    Raises
    ------
    LevelError
        If a folder cannot be listed, or leads back to one above it.
    """
    maps: list[FirstLevelMap] = []
    participants: dict[str, str] = {}
    f_tests: set[str] = set()
    for root in roots:
        for path in _walk(root):
            below = path.relative_to(root).parts
            owner = next((part[4:] for part in below[:-1] if part.startswith("sub-")), None)
            file = indexed_file(path, root) if path.name.endswith(_ENDINGS) else None
            if owner is not None:
                participants.setdefault(owner, "has no first-level map")
            if file is not None and _is_map_of(file, ("F",)):
                f_tests.add(file.entities["contrast"])
            if file is None or not _is_map_of(file, EFFECT_STATISTICS):
                continue
            if "run" in file.entities or _node_level(below) in _RUN_NODES:
                participants[file.entities["sub"]] = "has maps of single runs only"
            elif map_filter and not matches_filter(file, map_filter):
                participants[file.entities["sub"]] = "has no map that passes the filter"
            elif "sessions" not in file.entities and _node_level(below) not in _DATASET_NODES:
                maps.append(_described(file))
    return FoundMaps(tuple(maps), participants, frozenset(f_tests))


def _walk(root: Path) -> Iterator[Path]:
    """Go through the files of a folder in which maps may lie."""
    try:
        yield from walk(root, lambda entry: entry.name not in _OTHER_FOLDERS and not entry.name.startswith("."))
    except DatasetError as error:
        raise LevelError(str(error)) from None


def _is_map_of(file: IndexedFile, statistics: Sequence[str]) -> bool:
    """Whether a file is a map of a participant's contrast that holds one of these statistics."""
    entities = file.entities
    return (
        file.suffix == STATMAP_SUFFIX
        and file.extension in _EXTENSIONS
        and (file.extension != GIFTI or "hemi" in entities)
        and entities.get("stat") in statistics
        and "sub" in entities
        and "contrast" in entities
    )


def _node_level(below: Sequence[str]) -> str:
    """Name of the FitLins node that a map lies in, without a closing "Level"; empty outside of nodes."""
    name = next((match[1] for part in below[:-1] if (match := _NODE.match(part))), "")
    return re.sub(r"level\Z", "", name.lower())


def _described(file: IndexedFile) -> FirstLevelMap:
    entities, path = file.entities, file.path
    variances = (
        path.with_name(file_name({**entities, "stat": "variance"}, STATMAP_SUFFIX, file.extension)),
        path.with_name(path.name.replace(f"_stat-{entities['stat']}_", "_stat-variance_")),
    )
    variance = next((str(found.relative_to(file.root)) for found in variances if found.is_file()), "")
    return FirstLevelMap(entities, file.root, str(path.relative_to(file.root)), variance)


def select_tasks(
    found: FoundMaps, options: Selection, searched: Sequence[Path], raw: Path
) -> tuple[list[MapSelection], dict[str, str]]:
    """Choose the maps of every task that the options ask for, or of every task there is; see `of_each_task`.

    A contrast is asked of the tasks that have it, an F test of those that have all of its rows.

    Raises
    ------
    SessionFXError
        As `select_maps`.
    """
    contrast_labels, f_tests = selected_labels(options.contrast), selected_f_tests(options.contrast)
    tasks = {stat_map.entities["task"] for stat_map in found.maps if "task" in stat_map.entities}
    if options.task:
        over = sorted(task for task in tasks if TOGETHER in task and {*task.split(TOGETHER)} <= {*options.task})
        options = replace(options, task=(*options.task, *over))
        tasks = set(options.task)
    if len(tasks) < 2:
        return [with_f_tests(select_maps(found, options, contrast_labels, searched, raw), f_tests)], {}
    contrasts = {
        task: {stat_map.contrast for stat_map in found.maps if stat_map.entities.get("task") in (task, None)}
        for task in tasks
    }
    check_labels(set().union(*contrasts.values()), contrast_labels, MAPS, "contrast", "--contrast")

    without = {task for task in tasks if contrast_labels and contrasts[task].isdisjoint(contrast_labels)}

    def of_task(wanted: Selection) -> MapSelection:
        own = [label for label in contrast_labels if label in contrasts[wanted.task[0]]]
        return with_f_tests(select_maps(found, wanted, own, searched, raw), f_tests)

    asked = replace(options, task=tuple(task for task in options.task if task not in without))
    selections, left_out = of_each_task(contrasts.keys() - without, asked, of_task)
    left_out |= dict.fromkeys(sorted(without), "It has no map of the contrasts that are asked for.")
    return list(selections.values()), left_out


def select_maps(
    found: FoundMaps, options: Selection, contrast_labels: Sequence[str], searched: Sequence[Path], raw: Path
) -> MapSelection:
    """Choose the maps of one task that the options ask for.

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
        If several tasks, spaces or resolutions exist and none is named, two maps stand for the same thing, or a
        contrast asked for is an F test.
    """
    if not found.maps:
        raise LevelError(
            f"There are no first-level maps in {listed(searched)}. Run the participant level first, "
            "or name a folder that has maps with --derivatives."
        )
    chosen, entities = choose_entities(_of_one_form(found.maps, options), MAPS, options)
    _check_form(chosen, entities)
    if options.hemi is None:
        chosen = _whole(chosen)
    else:
        entities["hemi"] = options.hemi
    contrasts, sessions, participants = (
        {getattr(stat_map, what) for stat_map in chosen} - {""} for what in ("contrast", "session", "participant")
    )
    for label in contrast_labels:
        if label in found.f_tests - contrasts:
            raise CommandLineError(
                f"--contrast {label} is an F test within participants, whose maps of F no group model can take. Write "
                f"it with its rows, 'F:{label} = …; …': the group level tests them together from the rows' own maps."
            )
    check_labels(contrasts, contrast_labels, MAPS, "contrast", "--contrast")
    check_labels(sessions, options.session_label, MAPS, "session", "--session-label")
    check_labels(participants, options.participant_label, MAPS, "participant", "--participant-label")
    # of all contrasts and participants: what a step of the trend is must not depend on those asked for
    order = order_sessions(sessions, options.session_label, raw)
    entering: dict[str, tuple[FirstLevelMap, ...]] = {}
    absent: dict[str, dict[str, str]] = {}
    with_maps = {stat_map.participant for stat_map in found.maps}
    which = "task, space and resolution" if options.res else "task and space"
    wanted = {*options.participant_label} or {*found.participants, *with_maps}
    for label in contrast_labels or sorted(contrasts, key=natural_key):
        maps = [stat_map for stat_map in chosen if stat_map.contrast == label]
        kept = _entering(maps, wanted, order)
        reasons = {
            **found.participants,
            **dict.fromkeys(with_maps, f"has no map of contrast {label} for this {which}"),
            **_why_absent(maps, order),
        }
        missing = reasons.keys() & wanted - {stat_map.participant for stat_map in kept}
        absent[label] = {participant: reasons[participant] for participant in sorted(missing, key=natural_key)}
        if kept:
            entering[label] = kept
            if options.hemi is None:
                _check_whole(kept)
    if not entering:
        raise NothingMatchesError(
            "No participant chosen has a map of these sessions and contrasts. Choose others with --participant-label, "
            "--session-label or --contrast."
        )
    of_dataset = participants_of(raw) if raw.is_dir() and not options.participant_label else []
    warnings = (
        *order.warnings,
        *_mixtures([stat_map for maps in entering.values() for stat_map in maps]),
        *_without_folder(sorted({*of_dataset} - wanted, key=natural_key)),
    )
    return MapSelection(entities, order, entering, absent, warnings)


def _without_folder(participants: Sequence[str]) -> tuple[str, ...]:
    """Name those of the dataset of whom nothing is found: the participant level was not run, or stopped."""
    if not participants:
        return ()
    names = listed([f"sub-{label}" for label in participants], most=8)
    return (f"Participants of the dataset without a folder of first-level maps are left out: {names}.",)


def _of_one_form(maps: Sequence[FirstLevelMap], options: Selection) -> list[FirstLevelMap]:
    """Keep the maps that a hemisphere, a density or a space can mean: names may lack a space, and agree with any."""
    if options.space != NATIVE:
        maps = [stat_map for stat_map in maps if stat_map.entities.get("space") != NATIVE] or maps
    if options.hemi is not None:
        maps = [stat_map for stat_map in maps if stat_map.hemisphere == options.hemi]
        if not maps:
            raise NothingMatchesError(f"--hemi {options.hemi}: no first-level map is of that hemisphere alone.")
    if options.den not in (None, WITHOUT):
        maps = [stat_map for stat_map in maps if stat_map.is_on_surface] or maps
    space = options.space or DEFAULT_SPACE
    forms = {stat_map.is_on_surface for stat_map in maps if stat_map.entities.get("space") == space}
    return [stat_map for stat_map in maps if not forms or stat_map.is_on_surface in forms]


def _check_form(chosen: Iterable[FirstLevelMap], entities: Mapping[str, str | None]) -> None:
    """Refuse maps of several forms, which may hold the same results, and those of which no two can be compared."""
    if entities["space"] == NATIVE:
        raise LevelError(
            f"{NATIVE} is a surface of each participant's own, which no group level can compare. Run the participant "
            "level on another space too, such as fsaverage, and choose it with --space."
        )
    forms = sorted({stat_map.extension.removeprefix(".") for stat_map in chosen})
    if len(forms) > 1:
        filters = " or ".join(json.dumps({"maps": {"extension": form}}) for form in forms)
        raise CommandLineError(
            f"There are first-level maps of several forms: {listed(forms)}. Choose one with --space, or with "
            f"--bids-filter-file, the file holding {filters}."
        )


def _whole(maps: Iterable[FirstLevelMap]) -> list[FirstLevelMap]:
    """Make the maps of two hemispheres one; those of which one is there alone stay as they are."""
    whole: list[FirstLevelMap] = []
    hemispheres: dict[Path, dict[str, FirstLevelMap]] = {}
    for stat_map in maps:
        if stat_map.hemisphere:
            hemispheres.setdefault(name_of_both(stat_map.effect), {})[stat_map.hemisphere] = stat_map
        else:
            whole.append(stat_map)
    for effect, parts in hemispheres.items():
        if tuple(part.effect for _, part in sorted(parts.items())) != files_of(effect):
            whole += parts.values()
            continue
        first = parts["L"]
        entities = {key: label for key, label in first.entities.items() if key != "hemi"}
        has_variances = all(part.variance_name for part in parts.values())
        whole.append(
            replace(
                first, entities=entities, effect_name=str(name_of_both(Path(first.effect_name))),
                variance_name=str(name_of_both(Path(first.variance_name))) if has_variances else "",
            )
        )  # fmt: skip
    return whole


def _check_whole(maps: Iterable[FirstLevelMap]) -> None:
    """Refuse maps of one hemisphere, as those of others may be of the other one."""
    alone = next((stat_map for stat_map in maps if stat_map.hemisphere), None)
    if alone is not None:
        hemi = alone.entities["hemi"]
        other = next(path for path in files_of(name_of_both(alone.effect)) if path != alone.effect)
        raise CommandLineError(
            f"{alone.effect} is of the {HEMISPHERES.get(hemi, hemi)} hemisphere alone ({other.name} is not there). "
            f"Analyse that one with --hemi {hemi}, or leave sub-{alone.participant} out with --participant-label."
        )


def with_f_tests(selection: MapSelection, f_tests: Sequence[Contrast]) -> MapSelection:
    """Add F tests over conditions: the maps of their rows, of the participants and sessions that have them all.

    Tests of which some row has no maps at all are left out, as are those that nobody can enter.

    Raises
    ------
    CommandLineError
        If a test is called as a contrast that has maps.
    """
    maps, absent, warnings, kept = dict(selection.maps), dict(selection.absent), list(selection.warnings), {}
    for test in f_tests:
        labels = [row.label for row in test.tested]
        if not selection.maps.keys() >= set(labels):
            continue
        if test.label in selection.maps:
            raise CommandLineError(
                f"--contrast '{test.definition}': there are maps of a contrast with the name {test.label}. Give the F "
                "test another name."
            )
        of_rows = [{stat_map.key[1:]: stat_map for stat_map in selection.maps[label]} for label in labels]
        entering = [
            replace(first, further=tuple(of_row[key] for of_row in of_rows[1:]))
            for key, first in of_rows[0].items()
            if all(key in of_row for of_row in of_rows)
        ]
        n_participants = len({stat_map.participant for stat_map in entering})
        if n_participants <= len(labels):
            warnings.append(
                f"The F test {test.label} is left out: {n_participants} participants have maps of all its contrasts, "
                f"and at least {len(labels) + 1} are needed."
            )
            continue
        maps[test.label], kept[test.label] = tuple(entering), test
        without = {participant for of_row in of_rows for participant, _ in of_row}
        without -= {stat_map.participant for stat_map in entering}
        absent[test.label] = {
            **dict.fromkeys(sorted(without, key=natural_key), "has no session with maps of all the contrasts tested"),
            **{who: why for label in labels for who, why in selection.absent.get(label, {}).items()},
        }
    return replace(selection, maps=maps, absent=absent, warnings=tuple(warnings), f_tests=kept)


def _entering(
    maps: Sequence[FirstLevelMap], participants: Collection[str], order: SessionOrder
) -> tuple[FirstLevelMap, ...]:
    """Take the maps of one contrast that enter, one for each participant and session, in order."""
    of_sessions = any(stat_map.session for stat_map in maps)
    place = {label: number for number, label in enumerate(order.labels if of_sessions else ("",))}
    groups: dict[tuple[str, str, str], list[FirstLevelMap]] = {}
    for stat_map in maps:
        if stat_map.session in place and stat_map.participant in participants:
            groups.setdefault(stat_map.key, []).append(stat_map)
    single = [_only(group) for group in groups.values()]
    return tuple(sorted(single, key=lambda item: (natural_key(item.participant), place[item.session])))


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
    key = next((key for key in {**a.others, **b.others} if a.others.get(key) != b.others.get(key)), None)
    if a.root != b.root:
        return "Give one folder with --derivatives, or an output folder without maps of its own."
    if key is not None:
        labels = [stat_map.entities.get(key) for stat_map in (a, b)]
        if key in ("space", "res"):
            return f"Choose with --{key} {labels[0] or WITHOUT} or --{key} {labels[1] or WITHOUT}."
        filters = " or ".join(json.dumps({"maps": {LONG_NAMES.get(key, key): label}}) for label in labels)
        return f"Choose with --bids-filter-file, the file holding {filters}."
    if a.node != b.node:
        nodes = " or ".join(f"--derivatives {stat_map.node or stat_map.root}" for stat_map in (b, a))
        return f"Choose the node of the model whose maps are meant: {nodes}."
    return "Leave only one of them in the folder."


def _mixtures(maps: Sequence[FirstLevelMap]) -> list[str]:
    """Name entities in which the maps that enter differ: they may not be alike."""
    warnings = []
    for key in sorted({key for stat_map in maps for key in stat_map.others}):
        labels = Counter(
            f"{key}-{stat_map.others[key]}" if key in stat_map.others else f"without {key}-" for stat_map in maps
        )
        if len(labels) > 1:
            counts = listed(f"{counted(number, 'map')} {name}" for name, number in labels.items())
            warnings.append(f"The maps that enter are not all named alike: {counts}. Check that they may be compared.")
    return warnings


def _why_absent(maps: Iterable[FirstLevelMap], order: SessionOrder) -> dict[str, str]:
    """Say why participants with maps of a contrast, if they do not enter with any, do not."""
    of_sessions = {stat_map.participant: bool(stat_map.session) for stat_map in maps if stat_map.session}
    return {
        stat_map.participant: f"has no map of {session_names(order.labels)}"
        if stat_map.participant in of_sessions
        else "has a map that names no session, while those of others do"
        for stat_map in maps
    }

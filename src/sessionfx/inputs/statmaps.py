"""First-level maps for the group level: those SessionFX wrote, and effect maps of FitLins and nilearn.

Foreign maps may lack entities (FitLins names neither task nor space): what a name does not say is taken from
the options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sessionfx.errors import CommandLineError, LevelError, NothingMatchesError
from sessionfx.naming import EFFECT_STATISTICS, STATMAP_SUFFIX, file_name, natural_key, parse_name
from sessionfx.settings import Settings

# Levels of FitLins whose maps are no session maps
_OTHER_NODES = re.compile(r"node-(runLevel|datasetLevel|datasetlevel|runlevel)\Z")


@dataclass(frozen=True)
class FirstLevelMap:
    """One effect map of one participant and session.

    Attributes
    ----------
    participant, session : str
        The session is empty where the map belongs to none.
    contrast : str
        Contrast label.
    task, space, res : str or None
        None where the name does not say.
    effect : Path
    variance : Path or None
    root : Path
        The derivative folder it was found in.
    desc : str or None
    """

    participant: str
    session: str
    contrast: str
    task: str | None
    space: str | None
    res: str | None
    effect: Path
    variance: Path | None
    root: Path
    desc: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Contrast, participant and session: one map each enters a group model."""
        return self.contrast, self.participant, self.session


@dataclass(frozen=True)
class GroupSelection:
    """Maps of one task in one space.

    Attributes
    ----------
    entities : dict
        task, space and res of the outputs.
    sessions : tuple of str
        Study sessions in time order; empty where maps belong to none.
    maps : dict of str to tuple of FirstLevelMap
        By contrast label, ordered by participant and session.
    """

    entities: dict[str, str | None]
    sessions: tuple[str, ...]
    maps: dict[str, tuple[FirstLevelMap, ...]]


def find_first_level_maps(roots: Sequence[Path]) -> list[FirstLevelMap]:
    """Find effect maps of participants by their names.

    Run-level maps and maps already combined over sessions are passed over; of maps that differ in `desc` only,
    fixed-effects maps are taken.
    """
    found: dict[tuple[object, ...], FirstLevelMap] = {}
    for root in roots:
        for path in sorted(root.rglob(f"*_{STATMAP_SUFFIX}.nii*")):
            one = _parse_map(path, root)
            if one is None:
                continue
            slot = (root, one.key, one.task, one.space, one.res)
            if slot not in found or one.desc == "fixedEffects":
                found[slot] = one
    # A map without a session is a session's worth only where its contrast has no session maps at all.
    with_sessions = {(one.root, one.contrast) for one in found.values() if one.session}
    return [one for one in found.values() if one.session or (one.root, one.contrast) not in with_sessions]


def select_maps(
    maps: Sequence[FirstLevelMap],
    settings: Settings,
    contrast_labels: Sequence[str],
    searched: Sequence[Path],
) -> GroupSelection:
    """Choose the maps that the options ask for.

    Raises
    ------
    LevelError
        If there are no first-level maps.
    NothingMatchesError
        If an option matches none; the message lists what exists.
    CommandLineError
        If several tasks, spaces or resolutions exist and none is named, or two maps stand for the same thing.
    """
    if not maps:
        raise LevelError(
            f"There are no first-level maps in {', '.join(map(str, searched))}. Run the participant level first, "
            "or name a folder that has maps with --derivatives."
        )
    chosen = list(maps)
    chosen, task = _choose(chosen, "task", settings.task, "--task", None)
    chosen, space = _choose(chosen, "space", settings.space, "--space", "MNI152NLin2009cAsym")
    chosen, res = _choose(chosen, "res", settings.res, "--res", None)
    # before contrasts and participants are chosen: what a step of the trend is must not depend on them
    sessions: tuple[str, ...] = tuple(sorted({one.session for one in chosen if one.session}, key=natural_key))
    chosen = _narrow(chosen, "contrast", contrast_labels, "--contrast")
    chosen = _narrow(chosen, "session", settings.session_label, "--session-label")
    if settings.session_label:
        sessions = tuple(label for label in settings.session_label if label in sessions)
    chosen = _narrow(chosen, "participant", settings.participant_label, "--participant-label")
    _check_unique(chosen)
    by_contrast: dict[str, list[FirstLevelMap]] = {}
    for one in sorted(
        chosen, key=lambda one: (natural_key(one.participant), sessions.index(one.session) if sessions else 0)
    ):
        by_contrast.setdefault(one.contrast, []).append(one)
    wanted = contrast_labels or sorted(by_contrast, key=natural_key)
    entities = {"task": task, "space": space, "res": res}
    return GroupSelection(entities, sessions, {label: tuple(by_contrast[label]) for label in wanted})


def _parse_map(path: Path, root: Path) -> FirstLevelMap | None:
    parsed = parse_name(path.name)
    if parsed is None or parsed.suffix != STATMAP_SUFFIX or parsed.extension not in (".nii.gz", ".nii"):
        return None
    entities = parsed.entities
    if entities.get("stat") not in EFFECT_STATISTICS or "sub" not in entities or "contrast" not in entities:
        return None
    if "run" in entities or "sessions" in entities or any(_OTHER_NODES.match(part) for part in path.parts):
        return None
    variance = path.with_name(file_name({**entities, "stat": "variance"}, STATMAP_SUFFIX, parsed.extension))
    if not variance.is_file():
        variance = path.with_name(path.name.replace(f"_stat-{entities['stat']}_", "_stat-variance_"))
    return FirstLevelMap(
        entities["sub"], entities.get("ses", ""), entities["contrast"], entities.get("task"), entities.get("space"),
        entities.get("res"), path, variance if variance.is_file() else None, root, entities.get("desc"),
    )  # fmt: skip


def _choose(
    maps: list[FirstLevelMap], field: str, wanted: str | None, option: str, preferred: str | None
) -> tuple[list[FirstLevelMap], str | None]:
    """Keep the maps of one label; maps that do not say are taken to agree."""
    named = sorted({value for one in maps if (value := getattr(one, field)) is not None}, key=natural_key)
    if wanted is None:
        if len(named) > 1 and preferred not in named:
            raise CommandLineError(
                f"There are first-level maps of several {field}s: {', '.join(named)}. Choose one with {option}."
            )
        wanted = preferred if len(named) > 1 else (named[0] if named else None)
    kept = [one for one in maps if getattr(one, field) in (None, wanted)]
    if not kept:
        raise NothingMatchesError(f"{option} {wanted} matches no first-level map. What exists: {', '.join(named)}.")
    return kept, wanted


def _narrow(maps: list[FirstLevelMap], field: str, wanted: Sequence[str], option: str) -> list[FirstLevelMap]:
    if not wanted:
        return maps
    labels = sorted({getattr(one, field) for one in maps}, key=natural_key)
    for label in wanted:
        if label not in labels:
            listed = ", ".join(filter(None, labels)) or "none is named"
            raise NothingMatchesError(f"{option} {label} matches no first-level map. What exists: {listed}.")
    return [one for one in maps if getattr(one, field) in wanted]


def _check_unique(maps: Sequence[FirstLevelMap]) -> None:
    seen: dict[tuple[str, str, str], FirstLevelMap] = {}
    for one in maps:
        twin = seen.setdefault(one.key, one)
        if twin is not one:
            raise CommandLineError(
                f"Two maps stand for the same participant, session and contrast: {twin.effect} and "
                f"{one.effect}. Give one folder with --derivatives, or an output folder without maps of its own."
            )

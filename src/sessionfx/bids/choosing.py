"""Which files are meant, of runs and of statistical maps alike: filters, labels asked for, one task and one space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sessionfx.bids.dataset import IndexedFile, as_list
from sessionfx.bids.names import LONG_NAMES, WITHOUT, comparable_label
from sessionfx.bids.reading import UnreadableFileError, read_json_object
from sessionfx.errors import CommandLineError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.wording import listed, natural_key

DEFAULT_SPACE = "MNI152NLin2009cAsym"
TOGETHER = "+"  # between the labels of tasks that a contrast is over
FILTER_KEYS = ("bold", "mask", "events", "confounds", "maps")
_SHORT_NAMES = {long: short for short, long in LONG_NAMES.items()}


class Named(Protocol):
    """What has entities: a file, a map."""

    @property
    def entities(self) -> Mapping[str, str]:
        """Short BIDS keys and labels."""


Chosen = TypeVar("Chosen", bound=Named)
OfTask = TypeVar("OfTask")


@dataclass(frozen=True)
class Kind:
    """What is chosen among."""

    noun: str  # in messages
    section: str  # its entry of `--bids-filter-file`
    # whether a name without an entity may agree with any label of it: other programs do not name task and space
    may_be_silent: bool


RUNS = Kind("preprocessed run", "bold", may_be_silent=False)
MAPS = Kind("first-level map", "maps", may_be_silent=True)


def choose_entities(
    files: Iterable[Chosen], kind: Kind, options: Selection
) -> tuple[list[Chosen], dict[str, str | None]]:
    """Keep the files of one task, space, cohort and resolution: those asked for, or the only ones there are.

    Of several tasks that are asked for, the options name the one that is meant here.

    Returns
    -------
    files : list
    entities : dict of str to str or None
        Labels of `task`, `space`, `cohort` and `res`; None where the files carry no such entity. Of `den` if they have
        it.

    Raises
    ------
    NothingMatchesError
        If there is no file with the label asked for; the message lists the labels there are.
    CommandLineError
        If there are several labels and none is asked for.
    """
    kept, entities = list(files), {}
    for key, noun, wanted, option in (
        ("task", "task", next(iter(options.task), None), "--task"),
        ("space", "space", options.space, "--space"),
        ("cohort", "cohort", None, f"the '{kind.section}' entry of --bids-filter-file"),
        ("res", "resolution", options.res, "--res"),
        ("den", "density", options.den, "--den"),
    ):
        named = sorted({file.entities[key] for file in kept if key in file.entities}, key=natural_key)
        silent = not kind.may_be_silent and any(key not in file.entities for file in kept)
        there = listed([*([f"{WITHOUT} (without the entity)"] if silent else []), *named])
        if wanted is not None:
            label = None if wanted == WITHOUT and WITHOUT not in named else wanted
        elif len(named) + silent < 2:
            label = next(iter(named), None)
        elif key == "space" and DEFAULT_SPACE in named:
            label = DEFAULT_SPACE
        else:
            raise CommandLineError(
                f"There are {kind.noun}s of several {_plural(noun)}: {there}. Choose one with {option}."
            )
        # of a space or resolution that is asked for and that some names say, the others are not
        is_told = key != "task" and wanted in named
        agreeing = (label, None) if kind.may_be_silent and not is_told else (label,)
        kept = [file for file in kept if file.entities.get(key) in agreeing]
        if not kept:
            raise _nothing(kind, noun, f"{option} {wanted}", there)
        if label is not None or key != "den":
            entities[key] = label
    return kept, entities


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def task_of(tasks: Iterable[str]) -> str:
    """Label what is computed from several tasks together."""
    return TOGETHER.join(tasks)


def of_each_task(
    there: Iterable[str], options: Selection, choose: Callable[[Selection], OfTask]
) -> tuple[dict[str, OfTask], dict[str, str]]:
    """Choose for every task that is asked for by name, or else for every task there is.

    Gives the choices by task, and why tasks that are not asked for by name are left out.

    Raises
    ------
    NothingMatchesError
        If nothing matches for a task that is asked for by name, or for any.
    """
    chosen: dict[str, OfTask] = {}
    left_out: dict[str, NothingMatchesError] = {}
    for task in options.task or sorted(set(there), key=natural_key):
        try:
            chosen[task] = choose(replace(options, task=(task,)))
        except NothingMatchesError as error:
            if options.task:
                raise
            left_out[task] = error
    if not chosen:
        raise next(iter(left_out.values()))
    return chosen, {task: str(error) for task, error in left_out.items()}


def check_labels(there: Iterable[str], wanted: Sequence[str], kind: Kind, noun: str, option: str) -> None:
    """Make sure that the labels asked for exist.

    Raises
    ------
    NothingMatchesError
        If one does not; the message lists those that do.
    """
    known = set(there)
    for label in wanted:
        if label not in known:
            named: list[str] = sorted(known, key=natural_key)
            raise _nothing(kind, noun, f"{option} {label}", listed(named) or "none is named")


def _nothing(kind: Kind, noun: str, asked: str, there: str) -> NothingMatchesError:
    return NothingMatchesError(f"{asked} matches no {kind.noun}. What exists ({noun}): {there}.")


# Filters ----------------------------------------------------------------------------------------------------


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


def matches_filter(file: IndexedFile, entity_filter: Mapping[str, Any]) -> bool:
    """Whether a file passes a pybids filter (`{"desc": "preproc", "run": [1, 2], "acquisition": null}`).

    null asks that the entity be absent, `"*"` that it be there; numbers ignore zero padding.
    """
    return all(
        any(_is_wanted(_property(file, name), item) for item in as_list(wanted))
        for name, wanted in entity_filter.items()
        if name not in ("datatype", "scope", "return_type")
    )


def _property(file: IndexedFile, name: str) -> str | None:
    if name in ("suffix", "extension"):
        value: str = getattr(file, name)
        return value.removeprefix(".")
    return file.entities.get(_SHORT_NAMES.get(name, name))


def _is_wanted(label: str | None, wanted: object) -> bool:
    if wanted is None or wanted in ("Query.NONE", "none"):
        return label is None
    if wanted in ("*", "Query.ANY"):
        return label is not None
    if label is None:
        return False
    if isinstance(wanted, float) and wanted.is_integer():
        wanted = int(wanted)  # 1.0 is how some programs write 1 in JSON
    # as numbers whatever the entity: who writes 1 in a filter means 01 too
    return comparable_label("run", label) == comparable_label("run", str(wanted).removeprefix("."))

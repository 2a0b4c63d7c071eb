"""What is asked of each task: the contrasts that name its conditions, or, without `--contrast`, every condition.

Conditions come from the whole study, so that the job of a single participant makes the same choices as a job for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from sessionfx.ask.contrasts import Contrast, default_contrasts
from sessionfx.ask.event_model import CONDITION_COLUMN, EventModel
from sessionfx.ask.expressions import quoted_names
from sessionfx.bids.choosing import task_of
from sessionfx.bids.runs import RunSelection, study_events
from sessionfx.bids.tables import columns_there, read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.execution import say
from sessionfx.options import Options
from sessionfx.participant.conditions import ONLY_CONDITION, advice_on_column
from sessionfx.participant.design import response_suffixes
from sessionfx.participant.events import conditions_in, near_equal
from sessionfx.participant.over_tasks import split_by_task
from sessionfx.wording import counted, did_you_mean, joined, listed, natural_key

# More are items rather than conditions, and each would have maps of its own
_MOST_CONDITIONS = 100
_PARTICIPANTS_NAMED = 5


class TaskConditions:
    """The conditions of one task.

    Parameters
    ----------
    selection : RunSelection
        Runs that are analysed.
    find_of_study : callable
        Gives the events files of all participants, who are looked at only where those of the runs do not tell enough.
    suffixes : sequence of str
        What the columns of a condition add to its name.
    event_model : EventModel
        How events become regressors.
    """

    def __init__(
        self,
        selection: RunSelection,
        find_of_study: Callable[[], Sequence[Path]],
        suffixes: Sequence[str],
        event_model: EventModel,
    ) -> None:
        self._selection = selection
        self._find_of_study = find_of_study
        self._suffixes = suffixes
        self._model = event_model
        self._own_paths = dict.fromkeys(run.events for run in selection.every_run if run.events is not None)
        self._read: dict[Path, tuple[str, ...]] = {}
        self.unusable: list[str] = []

    @property
    def has_events(self) -> bool:
        """Whether there is any events file."""
        return any(True for _ in self._paths)

    @property
    def _paths(self) -> Iterator[Path]:
        """Events files, those of the runs first."""
        yield from self._own_paths
        yield from (path for path in self._of_study if path not in self._own_paths)

    @cached_property
    def _of_study(self) -> Sequence[Path]:
        return self._find_of_study()

    def columns(self, wanted: Collection[str]) -> list[str]:
        """Name the columns that conditions give, until all that are wanted are known."""
        own = columns_there(run.regressors for run in self._selection.every_run)
        return sorted(self._collected(self._columns_in, wanted, own), key=natural_key)

    def columns_of_events(self, wanted: Collection[str]) -> list[str]:
        """Name the columns of the events files, until all that are wanted are known; none where none is."""
        return list(self._collected(lambda path: columns_there([path]), wanted)) if wanted else []

    def _collected(
        self, names_in: Callable[[Path], Iterable[str]], wanted: Collection[str], known_already: Iterable[str] = ()
    ) -> dict[str, None]:
        """Collect names from the events files, all or until those that are wanted are known."""
        known = dict.fromkeys(known_already)
        for path in self._paths:
            known.update(dict.fromkeys(names_in(path)))
            if wanted and known.keys() >= set(wanted):
                break
        return known

    def _columns_in(self, path: Path) -> Iterator[str]:
        for name in self._in(path):
            yield from (
                regressor + suffix for regressor in self._model.regressors_of(name) for suffix in self._suffixes
            )

    def before_recodes(self) -> TaskConditions:
        """Give the conditions as they are called in the events."""
        return TaskConditions(self._selection, self._find_of_study, self._suffixes, replace(self._model, recodes={}))

    def advice(self) -> str:
        """Say how to have conditions where events have no trial_type; empty where they have it."""
        if ONLY_CONDITION not in self.names():
            return ""
        tables = (read_table(path) for path in self._paths if self._in(path) == (ONLY_CONDITION,))
        without = next((table for table in tables if CONDITION_COLUMN not in table), None)
        if without is None:
            return ""
        return f"Events without {CONDITION_COLUMN} are of one condition. {advice_on_column(without)}"

    def names(self, wanted: Collection[str] = ()) -> list[str]:
        """Name the conditions in natural order, all or until those that are wanted are known."""
        return sorted(self._collected(self._in, wanted), key=natural_key)

    def lacking(self) -> dict[str, list[str]]:
        """Name the participants analysed who lack a condition, by condition."""
        own = {
            label: {name for run in runs if run.events is not None for name in self._in(run.events)}
            for label, runs in self._selection.runs.items()
        }
        absent = {name: [label for label, there in own.items() if name not in there] for name in self.names()}
        return {name: labels for name, labels in absent.items() if labels}

    def listing(self, columns: Sequence[str]) -> str:
        """Name the conditions there are; where there are none, say why."""
        if columns:
            return f"The conditions are: {listed(columns)}."
        if not self.unusable:
            return "No run has an events file in the raw dataset, so no condition is known."
        more = f" (so are {len(self.unusable) - 1} others)" if len(self.unusable) > 1 else ""
        return f"No condition is known, as the events cannot be used{more}: {self.unusable[0]}"

    def _in(self, path: Path) -> tuple[str, ...]:
        if path not in self._read:
            try:
                self._read[path] = conditions_in(path, self._model)
            except ParticipantError as error:  # reported when that participant is analysed
                self._read[path] = ()
                self.unusable.append(str(error))
        return self._read[path]


def contrasts_by_task(
    selections: Mapping[str, RunSelection],
    contrasts: Sequence[Contrast],
    options: Options,
    event_model: EventModel,
    roots: Sequence[Path],
) -> dict[str, tuple[Contrast, ...]]:
    """Give the contrasts of each task that has any, and of tasks together; say what was chosen where options do not.

    Parameters
    ----------
    selections : mapping of str to RunSelection
        Runs by task.
    contrasts : sequence of Contrast
        Those that are written.
    options : Options
    event_model : EventModel
        What these options say of events.
    roots : sequence of Path
        The raw dataset, and the derivatives.

    Raises
    ------
    CommandLineError
        If a contrast or an option on events names what no task has, or nothing can be asked of any task.
    """
    suffixes = response_suffixes(options.first_level)
    if not contrasts and "" not in suffixes:
        raise CommandLineError(
            f"No --contrast is given, and with --hrf-model {options.first_level.hrf_model} no column is a condition. "
            f"Give one over the columns there are, such as --contrast 'A{suffixes[0]} - B{suffixes[0]}'."
        )
    tasks = {
        task: TaskConditions(selection, partial(study_events, roots, task, options.selection), suffixes, event_model)
        for task, selection in selections.items()
    }
    without = [task for task, conditions in tasks.items() if not conditions.has_events]
    if len(without) < len(tasks) and not options.selection.task:
        tasks = {task: conditions for task, conditions in tasks.items() if task not in without}
        if without:
            say(f"Left out, as no run of it has events: task {joined(without)}.")
    _check_event_options(list(tasks.values()), event_model)
    asked = _written(tasks, contrasts) if contrasts else _default(tasks, event_model)
    if len(selections) > 1 and not options.selection.task:
        say(f"Tasks: {listed(asked)}, each by itself; --task chooses.")
    return asked


def _check_event_options(tasks: Sequence[TaskConditions], model: EventModel) -> None:
    """Refuse columns and conditions that options name and no task has."""
    columns = [column for conditions in tasks for column in conditions.columns_of_events(model.columns)]
    for column, option in model.columns.items():
        _refuse_unknown(option, column, columns, "no events file has a column", "columns")
    of_recodes = {f"--recode '{old}={new}'": old for old, new in model.recodes.items()}
    _check_conditions(of_recodes, [conditions.before_recodes() for conditions in tasks])
    of_modulators = {f"--modulator '{modulator.text}'": modulator.condition for modulator in model.modulators}
    _check_conditions({option: name for option, name in of_modulators.items() if name is not None}, tasks)


def _check_conditions(by_option: Mapping[str, str], tasks: Sequence[TaskConditions]) -> None:
    wanted = by_option.values()
    names = [name for conditions in tasks for name in conditions.names(wanted)] if wanted else []
    for option, condition in by_option.items():
        _refuse_unknown(option, condition, names, "no run has the condition", "conditions")


def _refuse_unknown(option: str, name: str, known: Sequence[str], what: str, kind: str) -> None:
    if known and name not in known:
        raise CommandLineError(
            f"{option}: {what} '{name}'.{did_you_mean(name, known)} The {kind} are: {listed(dict.fromkeys(known))}."
        )


def _written(tasks: Mapping[str, TaskConditions], contrasts: Sequence[Contrast]) -> dict[str, tuple[Contrast, ...]]:
    """Give each contrast to the tasks whose conditions it names."""
    wanted = {name for contrast in contrasts for name in contrast.conditions}
    wanted |= {name.partition(":")[2] or name for name in wanted}
    columns = {task: conditions.columns(wanted) for task, conditions in tasks.items()}
    asked: dict[str, list[Contrast]] = {}
    for contrast in contrasts:
        # where no events can be read each participant's own message says why
        fitting = [task for task, known in columns.items() if not (known and contrast.missing_from(known))]
        over_tasks = None if fitting else split_by_task(contrast, columns)
        if not fitting and over_tasks is None:
            raise CommandLineError(_unknown(contrast, tasks, columns))
        if over_tasks is not None:
            of_tasks = [task for task, _ in over_tasks.parts]
            if len(of_tasks) > 1:
                say(f"--contrast '{contrast.expression}' is over the tasks {joined(of_tasks)}.")
            asked.setdefault(task_of(of_tasks), []).append(
                over_tasks if len(of_tasks) > 1 else over_tasks.of_task(of_tasks[0])
            )
        for task in fitting:
            asked.setdefault(task, []).append(contrast)
        in_backticks = quoted_names(contrast.expression, [name for known in columns.values() for name in known])
        if in_backticks and not contrast.is_f_test:  # its rows are among the contrasts
            say(
                f"--contrast '{contrast.expression}' is read as a sum of other conditions than one with such signs "
                f"in its name. If that one is meant, write --contrast '{in_backticks}'."
            )
    of_others = {task for own in asked.values() for contrast in own for task, _ in contrast.parts}
    for task in tasks:
        if task not in asked and task not in of_others:
            say(f"Left out, as no contrast names its conditions: task {task}. {tasks[task].listing(columns[task])}")
    over = [task for task in asked if task not in tasks]
    return {task: tuple(asked[task]) for task in [*tasks, *over] if task in asked}


def _unknown(contrast: Contrast, tasks: Mapping[str, TaskConditions], columns: Mapping[str, Sequence[str]]) -> str:
    """Say which condition of a contrast no task has, and which there are."""
    every = sorted({name for known in columns.values() for name in known}, key=natural_key)
    in_backticks = quoted_names(contrast.expression, every)
    hints = [f"Names with such characters stand in backticks: --contrast '{in_backticks}'."] if in_backticks else []
    unknown = contrast.missing_from(every)
    alike = [other for name in unknown for other in near_equal(name, every)]
    hints += [f"Is '{alike[0]}' meant?"] if alike else []
    hints += filter(None, (conditions.advice() for conditions in tasks.values()))
    what = f"the condition '{unknown[0]}', which no run has"
    listings = [
        f"Task {task}: {conditions.listing(columns[task])}" if len(tasks) > 1 else conditions.listing(columns[task])
        for task, conditions in tasks.items()
    ]
    return f"--contrast '{contrast.expression}' names {what}. " + " ".join([*hints, *listings])


def _default(tasks: Mapping[str, TaskConditions], model: EventModel) -> dict[str, tuple[Contrast, ...]]:
    """Ask each task about every condition, and say so."""
    asked: dict[str, tuple[Contrast, ...]] = {}
    for task, conditions in tasks.items():
        names = conditions.names()
        refusal = "" if names else conditions.listing(names)
        if len(names) > _MOST_CONDITIONS:
            refusal = f"{len(names)} conditions are too many to ask about each of them: {listed(names, most=5)}."
        if refusal and len(tasks) == 1:
            raise CommandLineError(f"No --contrast is given. {refusal} Give one, such as --contrast 'A - B'.")
        if refusal:
            say(f"Left out: task {task}. {refusal} Name it with --task, and contrasts with --contrast 'A - B'.")
            continue
        asked[task] = default_contrasts(names, [column for name in names for column in model.regressors_of(name)[1:]])
        _say_default(task, conditions, names, asked[task])
    if not asked:
        raise CommandLineError(
            "No --contrast is given, and no task has conditions to ask about. Give a --task and its --contrast."
        )
    return asked


def _say_default(task: str, conditions: TaskConditions, names: Sequence[str], contrasts: Sequence[Contrast]) -> None:
    further = [
        f"the {'difference' if len(contrast.weights) > 1 else 'modulated column'} {contrast.expression}"
        for contrast in contrasts[len(names) :]
    ]
    each = f"{'every condition' if len(names) > 1 else 'its condition'} against baseline ({listed(names)})"
    say(f"Task {task}: {joined([each, *further])}. Ask for other contrasts with --contrast.")
    for name, labels in conditions.lacking().items():
        who = listed([f"sub-{label}" for label in labels], most=_PARTICIPANTS_NAMED)
        say(f"Task {task}: {who} without condition '{name}', and its contrasts.")
    if conditions.unusable:
        say(f"Task {task}: {counted(len(conditions.unusable), 'events file')} cannot be used: {conditions.unusable[0]}")

"""Contrasts over tasks: which condition is of which task, and the runs of those tasks as one selection.

What they give lies under a task of its own, the tasks' labels with `+` between them, so that the group level takes it
like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sessionfx.ask.contrasts import Contrast
from sessionfx.bids.choosing import task_of
from sessionfx.bids.runs import RunInputs, RunSelection
from sessionfx.errors import CommandLineError
from sessionfx.wording import joined, listed

_RUNS_NAMED = 3


def split_by_task(contrast: Contrast, columns: Mapping[str, Sequence[str]]) -> Contrast | None:
    """Give a contrast over tasks its part of each; None where a condition is of no task.

    A condition is of the task that has it. Where several do, it is written with its task, `task:condition`.

    Parameters
    ----------
    contrast : Contrast
    columns : mapping of str to sequence of str
        Columns of conditions by task.

    Raises
    ------
    CommandLineError
        If it is not known which task is meant, or it is an F test.
    """
    weights: dict[str, dict[str, float]] = {}
    for name in contrast.conditions:
        task, _, condition = name.partition(":")
        if condition not in columns.get(task, ()):
            having = [task for task, known in columns.items() if name in known]
            if not having:
                return None
            if len(having) > 1:
                raise CommandLineError(
                    f"--contrast '{contrast.expression}' is over tasks, and {joined(having)} have a condition "
                    f"'{name}'. Write it with its task, in backticks: `{having[0]}:{name}`."
                )
            task, condition = having[0], name
        weights.setdefault(task, {})[condition] = contrast.weights.get(name, 0.0)
    if contrast.is_f_test:
        raise CommandLineError(
            f"--contrast '{contrast.definition}' is an F test over tasks, which is not supported. Ask for its rows as "
            "contrasts of their own."
        )
    parts = {task: replace(contrast, weights=weights[task]) for task in columns if task in weights}
    return replace(contrast, parts=tuple(parts.items()))


def select_over_tasks(parts: Mapping[str, RunSelection]) -> RunSelection:
    """Choose the runs of several tasks, of participants and sessions that have all of them.

    Raises
    ------
    CommandLineError
        If no participant has all of them in one session, or they lie in different spaces.
    """
    first, *others = parts.values()
    task = task_of(parts)
    for other in others:
        differing = [key for key, label in other.entities.items() if key != "task" and label != first.entities.get(key)]
        if differing:
            raise CommandLineError(
                f"A contrast over the tasks {joined([*parts])} needs runs in one space. Their {differing[0]} is "
                f"{first.entities[differing[0]]} and {other.entities[differing[0]]}. Choose one with --{differing[0]}."
            )
    shared = [label for label in first.sessions if all(label in other.sessions for other in others)]
    if any([label for label in other.sessions if label in shared] != shared for other in others):
        raise CommandLineError(
            f"A contrast over the tasks {joined([*parts])} needs their sessions in one order in time, and they differ: "
            f"{'; '.join(selection.order.text for selection in parts.values())}. Say it with --session-label."
        )
    runs: dict[str, tuple[RunInputs, ...]] = {}
    dropped: list[str] = []
    for label in first.runs:
        own = [run for selection in parts.values() for run in selection.runs.get(label, ())]
        kept = [run for run in own if _tasks_in(own, run.session) == set(parts)]
        dropped += [run.name for run in own if run not in kept]
        if kept:
            runs[label] = tuple(sorted(kept, key=lambda run: shared.index(run.session) if run.session else 0))
    dropped += [
        run.name for other in others for label in other.runs if label not in first.runs for run in other.runs[label]
    ]
    if not runs:
        raise CommandLineError(
            f"No participant has runs of the tasks {joined([*parts])} in one session, as a contrast over them needs."
        )
    of_parts = [warning for selection in parts.values() for warning in selection.warnings]
    if dropped:
        names = listed(dropped, most=_RUNS_NAMED)
        of_parts.append(f"Of task {task}, without runs of the other task in the same session, and left out: {names}.")
    warnings = tuple(dict.fromkeys(of_parts))
    return RunSelection(
        {**first.entities, "task": task}, replace(first.order, labels=tuple(shared), warnings=()), runs, warnings
    )


def _tasks_in(runs: Sequence[RunInputs], session: str) -> set[str]:
    return {run.entities["task"] for run in runs if run.session == session}

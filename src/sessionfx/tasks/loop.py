"""The loop that both levels go through: what is to be done, done by workers, named together, noted as finished."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sessionfx.bids.writing import Written, check_place, collected, discard, remove, write_text
from sessionfx.errors import LevelError, ParticipantError, SessionFXError
from sessionfx.execution import Executor, Failure, Unit, say
from sessionfx.options.groups import Execution
from sessionfx.process import undisturbed
from sessionfx.tasks.records import Record
from sessionfx.tasks.task import Chain, Shared, Task
from sessionfx.wording import counted


@dataclass(frozen=True)
class ToDo:
    """What is to be done of a chain."""

    chain: Chain
    record: Record
    tasks: tuple[Task, ...]  # that make files, in order
    parts: tuple[Task, ...]  # that these need
    outdated: tuple[str, ...]  # finished tasks of earlier calls that go
    needs_page: bool  # whether the page is to be put together although no section of it is drawn

    @property
    def is_nothing(self) -> bool:
        """Whether all is finished and in order."""
        return not (self.tasks or self.outdated or self.needs_page)

    def count(self) -> tuple[int, int]:
        """Say how many results are finished, and how many are asked for."""
        asked = sum(task.kind == "result" for task in self.chain.tasks)
        return asked - sum(task.kind == "result" for task in self.tasks), asked

    def progress(self) -> str:
        """Say how much is finished, for `--dry-run`."""
        finished, asked = self.count()
        if finished == asked:
            return "finished, would be skipped"
        return f"{finished} of {asked} results finished" if finished else "nothing finished yet"


@dataclass(frozen=True)
class Outcome:
    """What became of a chain."""

    name: str
    failure: Failure | None = None
    summary: Any = None  # what `Shared.summary` says; None where all was finished before, or the chain failed
    seconds: float = 0.0
    n_removed: int = 0  # files of earlier calls that are gone


def find_work(chain: Chain, execution: Execution, output_dir: Path) -> ToDo:
    """Compare a chain with what is finished."""
    record = Record(chain.record, output_dir)

    def is_open(task: Task) -> bool:
        again = execution.force or (execution.reports_only and task.kind == "page")
        return again or not record.is_finished(task)

    tasks = tuple(task for task in chain.tasks if task.kind != "part" and is_open(task))
    needed = {name for task in tasks for name in task.inputs}
    parts = tuple(task for task in chain.tasks if task.kind == "part" and task.name in needed)
    draws = any(task.kind == "page" for task in chain.tasks)
    needs_page = draws and chain.page is not None and not chain.page.is_whole()
    return ToDo(chain, record, tasks, parts, tuple(record.outdated(chain)), needs_page)


def run_chains(
    chains: Iterable[Chain], executor: Executor, execution: Execution, output_dir: Path, need_gb: float = 0.0
) -> Iterator[Outcome]:
    """Do what is not finished yet.

    Parameters
    ----------
    chains : iterable of Chain
        What is finished of each is looked at when its turn comes: of thousands, the first begins at once.
    executor : Executor
        Where parts are computed, and tasks of chains that are not done here.
    execution : Execution
    output_dir : Path
    need_gb : float
        Memory of the largest part.

    Yields
    ------
    Outcome
        Of each chain, as they come.

    Raises
    ------
    OutputError
        If files cannot be written, which concerns all.
    ExecutorError
        If the workers are lost.
    """
    found = (_look_at(chain, execution, output_dir) for chain in chains)
    for first in found:
        if isinstance(first, Outcome):
            yield first
        else:  # the queue looks at the rest
            yield from _on_workers(itertools.chain([first], found), executor, need_gb)


def _look_at(chain: Chain, execution: Execution, output_dir: Path) -> Outcome | ToDo:
    """Say what is to be done of a chain; settle one that is finished, refused, or done in this process."""
    to_do = find_work(chain, execution, output_dir)
    if to_do.is_nothing:
        return _finished(to_do)
    refusal = _refusal(to_do, execution)
    if refusal:
        return _failed(to_do, Failure(refusal, "", expected=True))
    return _in_this_process(to_do) if chain.is_here else to_do


def _finished(to_do: ToDo) -> Outcome:
    chain = to_do.chain
    try:
        n_removed = to_do.record.clear(chain)
    except ParticipantError as error:
        return _failed(to_do, Failure(str(error), "", expected=True))
    _keep_crash(chain, None)
    return Outcome(chain.name, n_removed=n_removed)


def _refusal(to_do: ToDo, execution: Execution) -> str:
    unfinished = [task for task in to_do.tasks if task.kind == "result"]
    if execution.reports_only and unfinished:
        return (
            "--reports-only needs finished maps with the same options and unchanged input, and there are none of "
            f"'{unfinished[0].name}'. Run without --reports-only first."
        )
    try:
        for path in {path.parent: path for task in to_do.tasks for path in task.outputs}.values():
            check_place(path)
    except ParticipantError as error:
        return str(error)
    return ""


def _announce(to_do: ToDo) -> None:
    """Say which files of earlier calls will go, before anything is done."""
    files = to_do.record.files_of_outdated(to_do.chain)
    if files:
        say(
            f"{to_do.chain.name}: {counted(len(files), 'file')} of earlier calls will be removed, {files[0].name} for "
            "one: what they were made from has changed, and this call does not make them anew."
        )


def _in_this_process(to_do: ToDo) -> Outcome:
    """Do the tasks of a chain here; files of costly ones take their names at once."""
    chain, started = to_do.chain, time.monotonic()
    _announce(to_do)
    waiting: list[Written] = []
    done: list[Task] = []
    n_removed = 0
    try:
        with chain.open({}) as shared:
            for task in to_do.tasks:
                with collected() as files:
                    task.run(shared)
                if task.is_costly:
                    n_removed += _commit(to_do, [task], files, ())
                else:
                    done.append(task)
                    waiting += files
            summary = shared.summary()
        if chain.before_names is not None:
            chain.before_names(summary)
    except LevelError as error:
        discard(waiting)
        return _failed(to_do, Failure(str(error), "", expected=True))
    except BaseException:
        discard(waiting)
        raise
    n_removed += _commit(to_do, done, waiting, to_do.outdated)
    return Outcome(chain.name, None, summary, time.monotonic() - started, n_removed)


def do_tasks(
    open_chain: partial[AbstractContextManager[Shared]], tasks: Sequence[Task], values: Mapping[str, Any]
) -> tuple[list[Written], Any]:
    """Do the tasks of a chain on a worker; give their files, which wait for their names, and what is said of them."""
    with collected() as files, open_chain(values) as shared:
        for task in tasks:
            task.run(shared)
        return files, shared.summary()


@dataclass
class _Progress:
    """A chain while workers are at it."""

    to_do: ToDo
    started: float = field(default_factory=time.monotonic)
    values: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None


class _Queue:
    """What is handed out next: first chains of which all parts are there, then parts, in the order of the chains.

    The last few parts of a chain go before chains that are complete: else workers would wait for them at the end, when
    nothing else is left to do. Chains are looked at when their turn comes; what became of those that are settled then
    is kept in `settled`.
    """

    def __init__(self, found: Iterator[ToDo | Outcome]) -> None:
        self._found = found
        self._parts: deque[tuple[_Progress, Task]] = deque()
        self._complete: deque[_Progress] = deque()
        self.of_unit: dict[str, tuple[_Progress, Task | None]] = {}
        self.settled: deque[Outcome] = deque()

    def next(self) -> Unit | None:
        """Give the next unit; None where there is nothing until another is done."""
        while True:
            if self._complete and not 0 < len(self._parts) <= len(self.of_unit):
                progress = self._complete.popleft()
                chain = progress.to_do.chain
                unit = Unit(
                    name=chain.name, function=do_tasks, arguments=(chain.open, progress.to_do.tasks, progress.values)
                )
                self.of_unit[unit.name] = progress, None
                return unit
            if self._parts:
                progress, part = self._parts.popleft()
                if progress.failure is None:
                    unit = Unit(name=f"{progress.to_do.chain.name}: {part.name}", function=part.run)
                    self.of_unit[unit.name] = progress, part
                    return unit
                continue
            found = next(self._found, None)
            if found is None:
                return None
            self._begin(found)

    def _begin(self, found: ToDo | Outcome) -> None:
        if isinstance(found, Outcome):
            self.settled.append(found)
            return
        _announce(found)
        progress = _Progress(found)
        self._parts += [(progress, part) for part in found.parts]
        if not found.parts:
            self._complete.append(progress)

    def take(self, progress: _Progress, part: Task, value: Any) -> None:
        """Keep the value of a part."""
        progress.values[part.name] = value
        if len(progress.values) == len(progress.to_do.parts):
            self._complete.append(progress)


def _on_workers(found: Iterator[ToDo | Outcome], executor: Executor, need_gb: float) -> Iterator[Outcome]:
    queue = _Queue(found)
    for done in executor.run_units(queue.next, need_gb=need_gb):
        while queue.settled:
            yield queue.settled.popleft()
        progress, part = queue.of_unit.pop(done.unit.name)
        if progress.failure is not None:
            continue  # of another part of it
        if done.failure is not None:
            progress.failure = done.failure
            yield _failed(progress.to_do, done.failure)
        elif part is not None:
            queue.take(progress, part, done.result)
        else:
            yield _completed(progress, *done.result)
    yield from queue.settled


def _completed(progress: _Progress, files: Sequence[Written], summary: Any) -> Outcome:
    to_do = progress.to_do
    try:
        n_removed = _commit(to_do, to_do.tasks, files, to_do.outdated)
    except ParticipantError as error:
        return _failed(to_do, Failure(str(error), "", expected=True))
    _keep_crash(to_do.chain, None)
    return Outcome(to_do.chain.name, None, summary, time.monotonic() - progress.started, n_removed)


def _commit(to_do: ToDo, tasks: Sequence[Task], files: Sequence[Written], outdated: Sequence[str]) -> int:
    with undisturbed():
        try:
            n_removed = to_do.record.replace(to_do.chain, tasks, files, outdated)
        except BaseException:
            discard(files)  # where they have no names yet
            raise
        if to_do.needs_page and to_do.chain.page is not None and not to_do.chain.page.is_whole():
            to_do.chain.page.assemble()
    return n_removed


def _failed(to_do: ToDo, failure: Failure) -> Outcome:
    """Keep why a chain failed; where its data are the cause, what earlier calls made of it goes."""
    chain, n_removed = to_do.chain, 0
    if chain.forgets_on_failure and failure.is_of_data:
        try:
            n_removed = to_do.record.forget(chain)
        except SessionFXError as error:
            failure = _with_words(failure, f"Its files of earlier calls could not be removed either: {error}")
        else:
            if n_removed:
                failure = _with_words(
                    failure,
                    f"Its {counted(n_removed, 'file')} of earlier calls had to go: a group analysis would take what is "
                    "there for all there is.",
                )
    _keep_crash(chain, failure)
    return Outcome(chain.name, failure, n_removed=n_removed)


def _with_words(failure: Failure, words: str) -> Failure:
    return replace(failure, message=f"{failure.message} {words}")


def _keep_crash(chain: Chain, failure: Failure | None) -> None:
    """Keep for later reading why a chain failed, as long as that is so."""
    if chain.crash is None:
        return
    try:
        if failure is None:
            remove(chain.crash)
        else:
            write_text(chain.crash, f"{failure.message}\n\n{failure.details}")
    except ParticipantError as error:
        say(f"{chain.name}: {error}")

"""What every place of work does.

Vocabulary
----------
unit
    A piece of work that stands by itself, such as a run: it may fail without harm to the others.
item
    Arguments of one call out of many that make one result together, such as a block of voxels: all must succeed.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

from sessionfx.errors import OutputError, SessionFXError, in_words, stops_all_writing
from sessionfx.execution.progress import say
from sessionfx.execution.threads import limited_threads
from sessionfx.wording import sentence

Result = TypeVar("Result")

# Units handed out for each worker, so that none waits while a result is being dealt with; the rest stays here
AHEAD = 2
# How often to look whether there are still workers while nothing is finished
_LOOK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """A piece of work that is handed out."""

    name: str  # as it is called in messages
    function: Callable[..., Any]  # of a module, so that other processes find it
    arguments: tuple[Any, ...] = ()  # they and the result can be pickled


@dataclass(frozen=True)
class Failure:
    """Why a unit failed."""

    message: str  # one paragraph
    details: str  # traceback
    expected: bool  # whether it is a problem the program knows (bad data), not a crash
    is_of_data: bool = False  # whether the data cannot be analysed, so that a rerun would fail too


@dataclass(frozen=True)
class Done:
    """A finished unit: its result, or why it failed."""

    unit: Unit
    result: Any
    failure: Failure | None


# Calls a function on every item and yields the results in the items' order
MapOrdered = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
ResultOrFailure = tuple[Any, Failure | None]


class WorkerKilledError(Exception):
    """The process that had a unit, or might have had it, was killed; the text says so, with the remedy."""


class NoWorkersError(Exception):
    """Processes cannot be started here; the text says why, and how they could be."""


class Workers(ABC):
    """Who does the units of one call of `Executor.run_units`."""

    @abstractmethod
    def room(self) -> int:
        """Say how many units may be handed out and unfinished at a time."""

    @abstractmethod
    def submit(self, unit: Unit, *, is_only: bool) -> Future[ResultOrFailure]:
        """Hand a unit out, to be done by `attempt`; it may be the only one that there is to be done now."""

    def result(self, future: Future[Any]) -> Any:
        """Give the result of a future that is done; raise `WorkerKilledError` where the process at it was killed."""
        return future.result()

    def wait_for_any(self, futures: Collection[Future[Any]]) -> None:
        """Wait until one of them is done, and look now and then whether the workers are still there."""
        while not wait(futures, _LOOK_SECONDS, FIRST_COMPLETED).done:
            self.look()

    def look(self) -> None:  # noqa: B027 - most cannot be lost
        """Make sure that the workers are still there; raise `NoWorkersError` or `ExecutorError` where they are not."""


class Executor(ABC):
    """A place where work is done; use it in a `with` statement."""

    @property
    @abstractmethod
    def memory_gb(self) -> float | None:
        """Memory that one unit may use (GB); None where that is not known beforehand."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether items are worked on by other processes, which then read files by their names."""
        return False

    def at_a_time(self, need_gb: float) -> int | None:
        """Say how many units that need so much memory each (GB) run at a time; None where that is not known."""
        return None

    def run_units(self, ready: Callable[[], Unit | None], *, need_gb: float = 0.0) -> Iterator[Done]:
        """Run units and yield what became of them, as they finish.

        Where a process is killed, most often because memory ran out, all units that were handed out are suspects: each
        is run again alone, and fails if its process is killed again.

        Parameters
        ----------
        ready : callable
            Gives the next unit, or None while there is none. It is asked whenever there is room for a unit, and again
            after every result that was taken, which may make further units ready. The end is reached when no unit is
            unfinished and none is ready.
        need_gb : float, default=0
            Memory that the largest unit needs.

        Raises
        ------
        OutputError
            If a unit could not write; no other unit could either.
        ExecutorError
            If the place where units run cannot be used, or is lost.
        """
        again: deque[Unit] = deque()
        suspects: deque[Unit] = deque()

        def next_unit() -> Unit | None:
            return again.popleft() if again else ready()

        while True:
            alone = bool(suspects)
            source = partial(next, iter([suspects.popleft()]), None) if alone else next_unit
            unfinished: list[Unit] = []
            try:
                yield from self._run(source, unfinished, need_gb, alone)
            except NoWorkersError as error:
                say(f"{error} The work is done one after the other.")
                again.extend(unfinished)
                continue
            if not alone and not unfinished:
                return
            suspects.extend(unfinished)

    def _run(
        self, ready: Callable[[], Unit | None], unfinished: list[Unit], need_gb: float, alone: bool
    ) -> Iterator[Done]:
        """Run units until none is ready or a process was killed, and note those that are unfinished."""
        pending: dict[Future[ResultOrFailure], Unit] = {}
        is_broken = False
        with self._workers(need_gb, alone) as workers:
            while True:
                room = 0 if is_broken else workers.room() - len(pending)
                new = list(islice(iter(ready, None), max(0, room)))
                unfinished.extend(new)
                for unit in new:
                    pending[workers.submit(unit, is_only=len(new) == 1 and not pending)] = unit
                if not pending:
                    return
                workers.wait_for_any(pending)
                future = next(filter(Future.done, pending))
                unit = pending.pop(future)
                try:
                    result, failure = workers.result(future)
                except WorkerKilledError as killed:
                    is_broken = True
                    if not alone:
                        continue
                    result, failure = None, Failure(str(killed), "", expected=True)
                unfinished.remove(unit)
                yield Done(unit, result, failure)

    @abstractmethod
    def _workers(self, need_gb: float, alone: bool) -> AbstractContextManager[Workers]:
        """Bring workers together; those that are still at work at the end are given up."""

    @abstractmethod
    def map_ordered(self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
        """Call a module-level function on every item and yield the results in the items' order.

        Raises
        ------
        Exception
            Whatever the function raises.
        ExecutorError
            If the place where items are worked on cannot be used, or is lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the executor holds; work that is going on is given up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def in_this_process(function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
    """Call a function on every item in this process, one after the other."""
    return (function(*item) for item in items)


def attempt(unit: Unit, n_threads: int | None) -> ResultOrFailure:
    """Run a unit with a number of threads of the linear algebra, and turn what it raises into a `Failure`.

    Raises
    ------
    OutputError
        If it could not write.
    """
    try:
        with limited_threads(n_threads):
            return unit.function(*unit.arguments), None
    except OutputError:
        raise  # no other unit could write either
    except OSError as error:
        if stops_all_writing(error):
            raise OutputError(f"{in_words(error)}. Check space and permissions.") from None
        said = f"{sentence(in_words(error))} Check the file and its permissions."
        return None, Failure(said, traceback.format_exc(), expected=False)
    except SessionFXError as error:
        return None, Failure(str(error), traceback.format_exc(), expected=True, is_of_data=True)
    except MemoryError:
        return None, Failure(f"There is not enough memory for {unit.name}.", traceback.format_exc(), expected=True)
    except Exception as error:
        return None, Failure(sentence(in_words(error)), traceback.format_exc(), expected=False)

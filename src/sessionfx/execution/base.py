"""What every executor does.

Vocabulary
----------
unit
    A piece of work that stands by itself, such as a participant: it may fail without harm to the others.
item
    Arguments of one call out of many that make one result together, such as a block of voxels: all must succeed.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from sessionfx.errors import OutputError, SessionFXError, in_words, stops_all_writing
from sessionfx.wording import sentence

Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Why a unit failed.

    Attributes
    ----------
    message : str
        One paragraph.
    details : str
        Traceback.
    expected : bool
        Whether it is a problem the program knows (bad data), not a crash.
    """

    message: str
    details: str
    expected: bool


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A finished unit: its result, or why it failed."""

    unit: str
    result: Result | None
    failure: Failure | None


# Calls a function on every item and yields the results in the items' order
MapOrdered = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]


class Executor(ABC):
    """A place where work is done; use it in a `with` statement."""

    @property
    @abstractmethod
    def memory_gb(self) -> float | None:
        """Memory that one unit may use (GB); None where that is not known beforehand."""

    def at_a_time(self, needs_gb: Mapping[str, float]) -> int | None:
        """Say how many units (or parts of units, each of which needs as much) run at a time; None where not known.

        Parameters
        ----------
        needs_gb : mapping of str to float
            Memory that one part of a unit needs (GB).
        """
        return None

    def prepare(self, modules: Sequence[str]) -> None:  # noqa: B027 - most have nothing to load
        """Announce modules that `run_units` will need, long before; an executor may load them meanwhile."""

    @abstractmethod
    def run_units(
        self,
        work: Callable[..., Result],
        units: Mapping[str, tuple[Any, ...]],
        *,
        needs_gb: Mapping[str, float] | None = None,
        stop_on_failure: bool = False,
    ) -> Iterator[Done[Result]]:
        """Run a function on every unit and yield results as they come.

        Parameters
        ----------
        work : callable
            A module-level function.
        units : mapping of str to tuple
            Arguments by the unit's name; they are begun in this order.
        needs_gb : mapping of str to float, optional
            Memory each unit needs (GB).
        stop_on_failure : bool, default=False
            Give up the remaining units after a failure.

        Yields
        ------
        Done

        Raises
        ------
        OutputError
            If a unit could not write; no other unit could either.
        ExecutorError
            If the place where units run cannot be used, or is lost.
        """

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
    """Call a function on every item in this process, one after the other.

    Parameters
    ----------
    function : callable
    items : iterable of tuple
        Arguments.

    Yields
    ------
    object
        Results, in the items' order.
    """
    return (function(*item) for item in items)


def attempt(work: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result | None, Failure | None]:
    """Run one unit and turn what it raises into a `Failure`.

    Raises
    ------
    OutputError
        If it could not write.
    """
    try:
        return work(*arguments), None
    except OutputError:
        raise  # no other unit could write either
    except OSError as error:
        if stops_all_writing(error):
            raise OutputError(f"{in_words(error)}. Check space and permissions.") from None
        said = f"{sentence(in_words(error))} Check the file and its permissions."
        return None, Failure(said, traceback.format_exc(), expected=False)
    except SessionFXError as error:
        return None, Failure(str(error), traceback.format_exc(), expected=True)
    except MemoryError:
        return None, Failure("There is not enough memory for this participant.", traceback.format_exc(), expected=True)
    except Exception as error:
        return None, Failure(sentence(in_words(error)), traceback.format_exc(), expected=False)

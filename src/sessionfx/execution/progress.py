"""What the program says while it works: bars on a terminal, elsewhere a line a minute; and messages beside them."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from sessionfx.wording import printable

Item = TypeVar("Item")

# In the log of a batch job a bar would be a line per step, and nothing for hours looks like a program that hangs.
LINE_SECONDS = 60.0


def say(text: str) -> None:
    """Tell the user, above the progress bars; the work goes on where nobody can be told."""
    from tqdm import tqdm

    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stderr)


@contextlib.contextmanager
def show_progress(
    description: str, unit: str = "", total: int | None = None, *, leave: bool = False
) -> Iterator[Callable[[], None]]:
    """Show how far a long step is, in the program's own process.

    Parameters
    ----------
    description, unit : str
    total : int, optional
        How many units there are; without, only that the step goes on is shown.
    leave : bool, default=False
        Whether a bar stays on the terminal.

    Yields
    ------
    callable
        To be called after each unit.
    """
    # worker processes of this program are its children; a Dask worker works in a thread
    if multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread():
        yield _nothing
    elif total is not None and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=description, unit=unit, leave=leave) as bar:

            def advance() -> None:
                bar.update()

            yield advance
    else:
        step = _Step(description, unit, total)
        with _speaking_of(step):
            yield step.advance


def progress_bar(items: Iterable[Item], description: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Show progress over items; see `show_progress`.

    Parameters
    ----------
    items : iterable
    description, unit : str
    total : int, optional
        How many there are, where the items cannot tell.

    Yields
    ------
    object
        The items.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with show_progress(description, unit, total) as advance:
        for item in items:
            yield item
            advance()


def _nothing() -> None:
    """Show nothing."""


class _Step:
    """A step that goes on."""

    def __init__(self, description: str, unit: str, total: int | None) -> None:
        self._description, self._unit, self._total = description, unit, total
        self._n_done = 0
        self.started = time.monotonic()

    def advance(self) -> None:
        """Count one unit more."""
        self._n_done += 1

    def __str__(self) -> str:
        if self._total is None:
            return self._description
        plural = "" if self._total == 1 else "s"
        return f"{self._description}: {self._n_done} of {self._total} {self._unit}{plural}"


# The steps that go on, the outermost first: one thread speaks of all of them
_steps: list[_Step] = []


@contextlib.contextmanager
def _speaking_of(step: _Step) -> Iterator[None]:
    _steps.append(step)
    finished = threading.Event()
    if len(_steps) == 1:
        with contextlib.suppress(RuntimeError):  # the system gives no further thread: nothing is said
            threading.Thread(target=_speak, args=(finished, step.started), daemon=True).start()
    try:
        yield
    finally:
        _steps.remove(step)
        finished.set()


def _speak(finished: threading.Event, started: float) -> None:
    while not finished.wait(LINE_SECONDS):
        minutes = (time.monotonic() - started) / 60
        say(f"{'; '.join(map(str, list(_steps)))}; after {minutes:.0f} min.")

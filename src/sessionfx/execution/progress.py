"""What the program says while it works: bars on a terminal, elsewhere a line a minute; and messages beside them."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
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
) -> Iterator[Callable[[], object]]:
    """Show how far a long step is, in the program's own process; what is given is called after each unit.

    Without a total, only that the step goes on is shown. With `leave` a bar stays on the terminal.
    """
    # worker processes of this program are its children; a Dask worker works in a thread
    if multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread():
        yield lambda: None
    elif total is not None and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=description, unit=unit, leave=leave) as bar:
            yield bar.update
    else:
        step = _Step(description, unit, total)
        with _speaking_of(step):
            yield step.advance


def progress_bar(items: Collection[Item], description: str, unit: str) -> Iterator[Item]:
    """Yield items and show progress over them."""
    with show_progress(description, unit, len(items)) as advance:
        for item in items:
            yield item
            advance()


_innermost: ContextVar[_Step | None] = ContextVar("_innermost", default=None)


class _Step:
    """A step that goes on, and the step within it."""

    def __init__(self, description: str, unit: str, total: int | None) -> None:
        self._description, self._unit, self._total = description, unit, total
        self._n_done = 0
        self.around = _innermost.get()
        self.within: _Step | None = None
        self.is_over = threading.Event()

    def advance(self) -> None:
        """Count one unit more."""
        self._n_done += 1

    def __str__(self) -> str:
        within = f"; {self.within}" if self.within else ""
        if self._total is None:
            return self._description + within
        plural = "" if self._total == 1 else "s"
        return f"{self._description}: {self._n_done} of {self._total} {self._unit}{plural}{within}"


@contextlib.contextmanager
def _speaking_of(step: _Step) -> Iterator[None]:
    """Let one thread speak of the outermost step and those within."""
    _innermost.set(step)
    if step.around is not None:
        step.around.within = step
    else:
        with contextlib.suppress(RuntimeError):  # the system gives no further thread: nothing is said
            threading.Thread(target=_speak, args=(step, time.monotonic()), daemon=True).start()
    try:
        yield
    finally:
        step.is_over.set()
        if step.around is not None:
            step.around.within = None
        # a step within, in a generator that nobody asks any more, may end later
        innermost = _innermost.get()
        while innermost is not None and innermost.is_over.is_set():
            innermost = innermost.around
        _innermost.set(innermost)


def _speak(step: _Step, started: float) -> None:
    while not step.is_over.wait(LINE_SECONDS):
        say(f"{step}; after {(time.monotonic() - started) / 60:.0f} min.")

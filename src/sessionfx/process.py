"""The program as a process: standard streams that can be written to, and signals that end it without a traceback.

Only the standard library, and little of it: this is loaded before everything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED_SENTENCE = "sessionfx: interrupted. What was finished is kept; the same command goes on from there."
# Of a name in the file systems in use, and of a whole path on Linux (bytes)
LONGEST_NAME, LONGEST_PATH = 255, 4095
# As shells report a program that a signal ended: 128 and the signal's number
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.05
# Until the signal has had its effect: a single ring may come just before the process begins to wait for something
_RING = (signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
_SILENCE = (signal.ITIMER_REAL, 0.0)
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"


class _State:
    """Which signal told the program to end; the last one counts."""

    signal: int | None = None
    is_over = False
    is_held = False


def end_at_once() -> None:
    """Let signals end the process on the spot: while there is nothing to clean up, before and after the work."""
    _install(_exit_now)


def _exit_now(number: int, _frame: FrameType | None) -> NoReturn:
    if number == signal.SIGINT:
        with contextlib.suppress(OSError):
            os.write(2, f"{INTERRUPTED_SENTENCE}\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def ending_in_order(stop_children: Callable[[], None]) -> Iterator[None]:
    """Let signals end the block by an exception: context managers clean up, and `ended_by_signal` tells the code.

    Libraries being imported turn an exception into a failed import, and go on without the module: a signal waits until
    the import is over. Where an exception can have no effect (in a destructor), it is raised again. `stop_children` is
    called first.
    """

    def end(number: int, frame: FrameType | None) -> None:
        number = _State.signal if number == signal.SIGALRM and _State.signal is not None else number
        _State.signal = number
        if _State.is_held or _is_importing(frame):
            signal.setitimer(*_RING)
            return
        signal.setitimer(*_SILENCE)
        stop_children()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def again(unraisable: Any) -> None:
        if (
            _State.signal is not None
            and not _State.is_over
            and issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit)
        ):
            signal.setitimer(*_RING)
        else:
            hook(unraisable)

    _State.signal, _State.is_over = None, False
    hook, sys.unraisablehook = sys.unraisablehook, again
    before = {**_install(end), signal.SIGALRM: signal.signal(signal.SIGALRM, end)}
    try:
        yield
    finally:
        signal.setitimer(*_SILENCE)
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.is_over = True
        if sys.unraisablehook is again:
            sys.unraisablehook = hook


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait until the block is over, which must be short: files take their names, or pages with them."""
    before, _State.is_held = _State.is_held, True
    try:
        yield
    finally:
        _State.is_held = before


def ended_by_signal() -> int | None:
    """Give the exit code that a signal asked for; None where none came."""
    return None if _State.signal is None else 128 + _State.signal


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of the signals that end the program; return the handlers before.

    A process in the background of a script, or under nohup, was told not to hear some of them.
    """
    before: dict[int, Any] = {}
    for number in _ENDING:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False


def prepare_streams() -> None:
    """Make sure that there are standard streams, and that no character stops the program when it is written.

    A file opened later would be given the number of a stream that was closed, and messages would go into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        if name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Print to standard output; a reader that has read enough, as `| head` has, ends the program quietly.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from sessionfx.errors import NO_READER, OutputError
    from sessionfx.wording import printable

    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        _give_up_output()
        sys.exit(NO_READER)
    except OSError as error:
        _give_up_output()
        raise OutputError(
            f"Standard output cannot be written ({error.strerror}). Check where it is redirected to."
        ) from None


def _give_up_output() -> None:
    """Send what is still to be written to standard output nowhere: its reader is gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

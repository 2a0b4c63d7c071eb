"""Functions that worker processes of the tests of execution import."""

import os
import signal
import time
from pathlib import Path

from sessionfx.errors import OutputError, ParticipantError
from sessionfx.execution import in_slots


def square(number: int) -> int:
    return number * number


def refuse_odd(number: int) -> int:
    if number % 2:
        raise ParticipantError(f"{number} is odd. Give an even number.")
    return number


def crash_on_three(number: int) -> int:
    if number == 3:
        raise RuntimeError("an unforeseen fault")
    return number


def fill_the_disk(number: int) -> int:
    raise OSError(28, "No space left on device", f"/somewhere/{number}")


def raise_two_lines(number: int) -> int:
    raise ValueError(f"{number} is\nodd")


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number


def die_once(number: int, mark: Path) -> int:
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def square_and_say_where(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def write_nowhere(number: int) -> int:
    raise OutputError(f"{number} cannot be written. Check space and permissions.")


def _span(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def spans_of_parts(number: int) -> list[tuple[float, float]]:
    return list(in_slots(_span, [(0.05,)] * 4))

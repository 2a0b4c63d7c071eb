"""Functions that worker processes of the tests of execution import."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_info

from sessionfx.errors import OutputError, ParticipantError
from sessionfx.execution import Unit


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


def in_turn(function: Callable[..., object], *arguments: tuple[object, ...]) -> Callable[[], Unit | None]:
    """What `run_units` asks for units: a function of each of these arguments, in turn."""
    units = [Unit(name=f"unit-{given[0]}", function=function, arguments=given) for given in arguments]
    return partial(next, iter(units), None)


def numbers(*wanted: int) -> tuple[tuple[int], ...]:
    return tuple((number,) for number in wanted)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def span(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def leave_a_mark(number: int, folder: Path) -> None:
    (folder / str(number)).touch()
    time.sleep(0.05)


def add(first: int, _: int, *numbers: int) -> tuple[int, int]:
    return first, sum(numbers)


def threads_of_the_linear_algebra(_: int) -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def meet(number: int, others: int, folder: Path) -> bool:
    """Wait until so many were there at the same time."""
    (folder / str(number)).touch()
    deadline = time.monotonic() + 300
    while len(list(folder.iterdir())) < others:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

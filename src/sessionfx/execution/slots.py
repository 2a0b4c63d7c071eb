"""Slots: how many pieces of work, over all processes of a call, may be computed at a time.

Participants are units of work, but their runs can be fitted at the same time too. Whoever computes takes a slot, so
that neither processors nor memory are oversubscribed, and none stands idle while the last participant is at work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

Result = TypeVar("Result")

_number = 1
_slot: AbstractContextManager[Any] = nullcontext()


def share_slots(number: int, semaphore: AbstractContextManager[Any]) -> None:
    """Tell this process of the slots it shares with others.

    Parameters
    ----------
    number : int
    semaphore : multiprocessing or threading Semaphore
        With this number at the beginning.
    """
    global _number, _slot
    _number, _slot = number, semaphore


@contextmanager
def own_slots(number: int) -> Iterator[None]:
    """Give this process slots of its own, as long as the context lasts."""
    before = _number, _slot
    share_slots(number, threading.Semaphore(number))
    try:
        yield
    finally:
        share_slots(*before)


def slot() -> AbstractContextManager[Any]:
    """Wait for a slot and hold it; whoever holds one must not wait for another."""
    return _slot


def in_slots(function: Callable[..., Result], items: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """Call a function on every item in threads, as many at a time as there are free slots.

    Parameters
    ----------
    function : callable
        It spends its time in libraries that let other threads run (decompression, linear algebra).
    items : sequence of tuple
        Arguments.

    Yields
    ------
    object
        Results, in the items' order.

    Raises
    ------
    Exception
        What the function raises; items not begun are given up.
    """
    held = _slot
    number = min(_number, len(items))
    if number <= 1:
        for item in items:
            with held:
                result = function(*item)
            yield result
        return
    futures: list[Future[Result]] = [Future() for _ in items]
    waiting = deque(zip(futures, items, strict=True))

    def work() -> None:
        while True:
            with held:
                try:
                    future, item = waiting.popleft()
                except IndexError:
                    return
                try:
                    future.set_result(function(*item))
                except BaseException as error:
                    future.set_exception(error)

    # No pool of the library: the program would wait for its threads when it is told to end.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    started = _started(threads)
    if not started:
        work()
    try:
        for future in futures:
            yield future.result()
    except Exception:
        waiting.clear()
        for thread in started:
            thread.join()
        raise
    finally:
        waiting.clear()


def _started(threads: Sequence[threading.Thread]) -> list[threading.Thread]:
    """Start as many threads as the system gives, which may be none."""
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:
            break
        started.append(thread)
    return started

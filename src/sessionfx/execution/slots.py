"""Slots: how many pieces of work, over all processes of a call, may be computed at a time.

Participants are units of work, but their runs can be fitted at the same time too. Whoever computes takes a slot, so
that neither processors nor memory are oversubscribed, and none stands idle while the last participant is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    def call(item: tuple[Any, ...]) -> Result:
        with held:
            return function(*item)

    if min(_number, len(items)) <= 1:
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(min(_number, len(items)))
    try:
        yield from pool.map(call, items)
    finally:
        pool.shutdown(cancel_futures=True)

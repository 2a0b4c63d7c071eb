"""Threads: a fixed number for the linear algebra, as the last bit of a result can depend on it; any for items."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# The linear algebra libraries read these when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Result = TypeVar("Result")


def start_few_threads(n_threads: int) -> None:
    """Let the linear algebra start no more threads than are used, unless it is loaded or the user said otherwise.

    Where the system gives no threads, OpenBLAS would end the program as by Ctrl-C.
    """
    if "numpy" not in sys.modules:
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(n_threads))


def in_threads(n_threads: int, function: Callable[..., Result], items: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """Call a function on every item, several at a time, and yield the results in the items' order.

    Parameters
    ----------
    n_threads : int
        One works in this thread alone.
    function : callable
        Gains from threads where it leaves the interpreter, as decompression and numpy's arithmetic do.
    items : iterable of tuple
        Arguments; taken as they are needed, so that no more than a few are in memory.

    Raises
    ------
    Exception
        What the function raises, for the first item for which it does.
    """
    if n_threads <= 1:
        for item in items:
            yield function(*item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(n_threads) as pool:
        yield from in_order(partial(_submitted, pool, function), items, lambda: n_threads + 1)


def in_order(
    submit: Callable[[tuple[Any, ...]], Future[Result]],
    items: Iterable[tuple[Any, ...]],
    room: Callable[[], int],
    result: Callable[[Future[Result]], Result] = lambda future: future.result(),
) -> Iterator[Result]:
    """Hand items out, as many at a time as there is room for, and yield the results in the items' order."""
    remaining = iter(items)
    ahead: deque[Future[Result]] = deque()
    try:
        while True:
            ahead.extend(map(submit, islice(remaining, max(0, room() - len(ahead)))))
            if not ahead:
                return
            yield result(ahead.popleft())
    finally:
        for future in ahead:
            future.cancel()


def _submitted(pool: ThreadPoolExecutor, function: Callable[..., Result], item: tuple[Any, ...]) -> Future[Result]:
    """Hand an item to the pool; it is worked on here where the system gives no further thread."""
    from concurrent.futures import Future

    try:
        return pool.submit(function, *item)
    except RuntimeError:
        here: Future[Result] = Future()
        try:
            here.set_result(function(*item))
        except Exception as error:
            here.set_exception(error)
        return here


@contextlib.contextmanager
def limited_threads(n_threads: int | None) -> Iterator[None]:
    """Let the linear algebra of this process use a fixed number of threads; None leaves it as it is."""
    import numpy  # noqa: F401  (the libraries must be loaded to be limited)
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(n_threads):
        yield

"""Threads: a fixed number for the linear algebra, as the last bit of a result can depend on it; any for items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Result = TypeVar("Result")
_NO_MORE: Any = object()


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

    Yields
    ------
    object

    Raises
    ------
    Exception
        What the function raises, for the first item for which it does.
    """
    if n_threads <= 1:
        for item in items:
            yield function(*item)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    remaining = iter(items)
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            while True:
                while len(ahead) <= n_threads and (item := next(remaining, _NO_MORE)) is not _NO_MORE:
                    ahead.append(pool.submit(function, *item))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


class limited_threads:  # noqa: N801 - used like a function
    """Context in which the linear algebra of this process uses a fixed number of threads."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def __enter__(self) -> None:
        import numpy  # noqa: F401  (the libraries must be loaded to be limited)
        import scipy.linalg  # noqa: F401
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(self._n_threads)

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()

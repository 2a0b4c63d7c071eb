"""A fixed number of threads for the linear algebra: the last bit of a result can depend on it."""

from __future__ import annotations


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

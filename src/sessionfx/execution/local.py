"""Work on this machine, in this process or in several, so that one failure stops only its own unit."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from sessionfx.errors import TERMINATED
from sessionfx.execution.base import Done, Executor, Failure, Result, attempt
from sessionfx.execution.memory import memory_limit_gb, workers_within
from sessionfx.execution.slots import own_slots, share_slots
from sessionfx.execution.threads import in_threads, limited_threads

# The linear algebra libraries read these when they are loaded, which happens in the worker processes.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalExecutor(Executor):
    """Units in processes, items in threads of this process.

    Each process computes with `n_threads` threads whatever the number of processes, so that results do not depend
    on it. Where units have parts that can be computed at the same time (`slots.in_slots`), processes that would have
    no unit work on the parts of others.

    Parameters
    ----------
    n_processes, n_threads : int
        Parts at a time, and threads of the linear algebra of each.
    memory_gb : float, optional
        What all processes together stay within; by default what container and machine allow.
    """

    def __init__(self, n_processes: int, n_threads: int, memory_gb: float | None = None) -> None:
        self._n_processes = n_processes
        self._n_threads = n_threads
        self._memory_gb = memory_gb or memory_limit_gb()
        self._is_prepared_in_vain = False

    @property
    def memory_gb(self) -> float:
        """The budget: a unit that needs more than half of it runs alone."""
        return self._memory_gb

    def at_a_time(self, needs_gb: Mapping[str, float]) -> int:
        """As many units, or parts of units, as were asked for and fit into memory; see `Executor.at_a_time`."""
        if not needs_gb:
            return self._n_processes
        return workers_within(self._memory_gb, list(needs_gb.values()), self._n_processes)

    def prepare(self, modules: Sequence[str]) -> None:
        """Let the process that others are forked from load modules while this one does something else."""
        if self._n_processes > 1:
            _start_forkserver(modules, self._n_threads)
            self._is_prepared_in_vain = True

    def run_units(
        self,
        work: Callable[..., Result],
        units: Mapping[str, tuple[Any, ...]],
        *,
        needs_gb: Mapping[str, float] | None = None,
        stop_on_failure: bool = False,
    ) -> Iterator[Done[Result]]:
        """Run units in as many processes as were asked for and fit into memory; see `Executor.run_units`."""
        self._is_prepared_in_vain = False
        n_slots = self.at_a_time(needs_gb or {})
        n_processes = min(n_slots, len(units))
        # A unit that is killed for want of memory would take this process, the whole program, along.
        is_risky = max((needs_gb or {}).values(), default=0.0) > self._memory_gb
        if n_processes <= 1 and not is_risky:
            with limited_threads(self._n_threads), own_slots(n_slots):
                for name, arguments in units.items():
                    finished = Done(name, *attempt(work, arguments))
                    yield finished
                    if finished.failure and stop_on_failure:
                        return
            return
        remaining = dict(units)
        while remaining:
            crashed = False
            for done in _run_pool(work, remaining, n_processes, n_slots, self._n_threads):
                if done is None:
                    crashed = True
                    break
                del remaining[done.unit]
                yield done
                if done.failure and stop_on_failure:
                    return
            if not crashed:
                return
            # A process was killed (for want of memory, most often) and took the pool along. Alone, each unit shows
            # whether it was the one.
            for name in list(remaining):
                alone = _run_pool(work, {name: remaining.pop(name)}, 1, 1, self._n_threads)
                outcome = list(alone)[-1] or _killed(name)
                yield outcome
                if outcome.failure and stop_on_failure:
                    return

    def map_ordered(self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
        """Work on the items in threads, under the caller's `limited_threads`; see `Executor.map_ordered`."""
        return in_threads(self._n_processes, function, items)

    def close(self) -> None:
        """Nothing is held between calls: processes end with the units they were made for.

        Only if there were no units, because the input was refused, would one go on loading modules, and keep the
        terminal's or a pipe's end open.
        """
        server = getattr(forkserver, "_forkserver", None)
        pid = getattr(server, "_forkserver_pid", None)
        if self._is_prepared_in_vain and pid is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._is_prepared_in_vain = False


def end_on_sigterm() -> None:
    """Turn SIGTERM (docker stop, Slurm) into an orderly end: children are stopped, temporary files removed."""

    def stop(_signal: int, _frame: object) -> None:
        _kill_workers()
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def _killed(name: str) -> Done[Any]:
    message = "Its process was killed, most likely for want of memory. Use a smaller --nprocs or more memory."
    return Done(name, None, Failure(message, "", expected=True))


def _start_forkserver(modules: Sequence[str], n_threads: int) -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    saved = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(n_threads)))
    forkserver.ensure_running()
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return context


def _run_pool(
    work: Callable[..., Result], units: Mapping[str, tuple[Any, ...]], n_processes: int, n_slots: int, n_threads: int
) -> Iterator[Done[Result] | None]:
    """Yield finished units; None once the pool broke."""
    context = _start_forkserver([work.__module__], n_threads)
    shared = (n_threads, n_slots, context.Semaphore(n_slots))
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_prepare_worker, initargs=shared)
    try:
        pending: dict[Future[Any], str] = {
            pool.submit(attempt, work, arguments): name for name, arguments in units.items()
        }
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda future: list(units).index(pending[future])):
                name = pending.pop(future)
                try:
                    yield Done(name, *future.result())
                except BrokenProcessPool:
                    yield None
                    return
    finally:
        if sys.exc_info()[0] is not None:
            _kill_workers()  # given up: what they are at would be thrown away
        pool.shutdown(cancel_futures=True)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _prepare_worker(n_threads: int, n_slots: int, semaphore: Any) -> None:
    share_slots(n_slots, semaphore)
    # Ctrl-C goes to the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Where memory runs out, the kernel is to kill this process and not the program, which says whose it was.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.captureWarnings(True)
    global _limits  # lives as long as the worker
    _limits = limited_threads(n_threads)
    _limits.__enter__()


_limits: limited_threads | None = None


def _end_with_parent() -> None:
    """End this worker when the program is killed, so that none is left behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

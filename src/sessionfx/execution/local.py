"""Work on this machine, in this process or in several, so that one failure stops only its own unit."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from sessionfx.execution import base
from sessionfx.execution.base import NoWorkersError, Result, ResultOrFailure, Unit, attempt
from sessionfx.execution.resources import memory_limit_gb, workers_within
from sessionfx.execution.threads import in_threads

# The path of a Unix socket has 107 characters, of which its own folder and name take some.
_LONGEST_TMPDIR = 70
_LIMIT_REACHED = "Most likely a limit of processes is reached (ulimit -u)."


def load_ahead(modules: Sequence[str]) -> None:
    """Let the process that workers are forked from load modules while this one does something else."""
    with contextlib.suppress(NoWorkersError):  # said where they are needed
        _start_forkserver(modules)


class LocalExecutor(base.Executor):
    """Units in processes, items in threads of this process.

    Each process computes with `n_threads` threads whatever the number of processes, so that results do not depend
    on it.

    Parameters
    ----------
    n_processes : int
        Units at a time.
    n_threads : int or None
        Threads of the linear algebra of each; None leaves them as they are.
    memory_gb : float, optional
        What all processes together stay within; by default what container and machine allow.
    """

    def __init__(self, n_processes: int, n_threads: int | None, memory_gb: float | None = None) -> None:
        self._n_processes = n_processes
        self._n_threads = n_threads
        self._memory_gb = memory_gb or memory_limit_gb()
        self._has_processes = True

    @property
    def memory_gb(self) -> float:
        """The budget: a unit that needs more than half of it runs alone."""
        return self._memory_gb

    def at_a_time(self, need_gb: float) -> int:
        """As many units as were asked for and fit into memory; see `Executor.at_a_time`."""
        return workers_within(self._memory_gb, need_gb, self._n_processes)

    @contextlib.contextmanager
    def _workers(self, need_gb: float, alone: bool) -> Iterator[base.Workers]:
        # A unit that is killed because memory ran out would take this process, the whole program, along.
        is_risky = need_gb > self._memory_gb
        n_processes = 1 if alone else self.at_a_time(need_gb)
        if not self._has_processes or not (n_processes > 1 or is_risky or alone):
            yield _ThisProcess(self._n_threads)
            return
        processes = _Processes(n_processes, self._n_threads, may_stay_here=not (is_risky or alone))
        try:
            yield processes
        except BaseException as error:
            self._has_processes = not isinstance(error, NoWorkersError)
            processes.kill()
            raise
        finally:
            processes.close()

    def map_ordered(self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
        """Work on the items in threads, under the caller's `limited_threads`; see `Executor.map_ordered`."""
        return in_threads(self._n_processes, function, items)

    def close(self) -> None:
        """Nothing is held between calls: processes end with the units they were made for."""


class _ThisProcess(base.Workers):
    """The program's own process does one unit after the other."""

    def __init__(self, n_threads: int | None) -> None:
        self._n_threads = n_threads

    def room(self) -> int:
        return 1

    def submit(self, unit: Unit, *, is_only: bool) -> Future[ResultOrFailure]:
        future: Future[ResultOrFailure] = Future()
        future.set_result(attempt(unit, self._n_threads))
        return future


class _Processes(_ThisProcess):
    """Processes that are started when they are needed.

    Before, a unit beside which there is nothing to do may stay here, in this process.
    """

    def __init__(self, n_processes: int, n_threads: int | None, *, may_stay_here: bool) -> None:
        super().__init__(n_threads)
        self._n_processes = n_processes
        self._may_stay_here = may_stay_here
        self._pool: ProcessPoolExecutor | None = None
        # of the pool's own threads, which hand out the work
        self._thread_failures: list[BaseException | None] = []
        self._hook = threading.excepthook

    def room(self) -> int:
        return base.AHEAD * self._n_processes

    def submit(self, unit: Unit, *, is_only: bool) -> Future[ResultOrFailure]:
        if self._pool is None:
            if is_only and self._may_stay_here:
                return super().submit(unit, is_only=is_only)
            self._pool = self._open(unit.function.__module__)
        try:
            return self._pool.submit(attempt, unit, self._n_threads)
        except BrokenProcessPool as error:
            broken: Future[ResultOrFailure] = Future()
            broken.set_exception(error)
            return broken
        except (OSError, EOFError, RuntimeError) as error:
            raise _no_processes(error, _LIMIT_REACHED) from None

    def _open(self, module: str) -> ProcessPoolExecutor:
        context = _start_forkserver([module])
        threading.excepthook = lambda failed: self._thread_failures.append(failed.exc_value)
        try:
            return ProcessPoolExecutor(self._n_processes, mp_context=context, initializer=_prepare_worker)
        except (OSError, ImportError, NotImplementedError) as error:
            remedy = "They share semaphores, for which /dev/shm must be writable (docker run --shm-size)."
            raise _no_processes(error, remedy) from None

    def result(self, future: Future[Any]) -> Any:
        try:
            return super().result(future)
        except BrokenProcessPool:
            raise base.WorkerKilledError(
                "Its process was killed, most likely because memory ran out. Use a smaller --nprocs or more memory."
            ) from None

    def look(self) -> None:
        if self._thread_failures:
            raise _no_processes(self._thread_failures[0], _LIMIT_REACHED)

    def kill(self) -> None:
        """Give up what the processes are at."""
        for child in multiprocessing.active_children():
            child.kill()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            with contextlib.suppress(RuntimeError):  # its thread was never started
                self._pool.shutdown(cancel_futures=True)
        threading.excepthook = self._hook


def _no_processes(error: BaseException | None, remedy: str) -> NoWorkersError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return NoWorkersError(f"Processes to work side by side cannot be started ({reason}). {remedy}")


def _start_forkserver(modules: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sessionfx.execution.preloaded", *modules])
    os.environ["SESSIONFX_PROGRAM"] = str(os.getpid())  # whose end is its end, even if it came before it could look
    try:
        with _unheard_interrupts():
            forkserver.ensure_running()
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise _no_processes(error, _LIMIT_REACHED) from None
        raise _no_processes(
            error,
            f"Sockets for them lie in the folder of temporary files, {tempfile.gettempdir()}: the variable TMPDIR "
            f"should name a writable one whose path has less than {_LONGEST_TMPDIR} characters.",
        ) from None
    return context


@contextlib.contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which goes to all of them, not even while they load modules.

    What is blocked here is blocked in processes made meanwhile; here it is heard afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # Apart, as it ends the blocking of SIGINT. A hang-up goes to all processes too: without its list of what is to
        # be given back, its successor would complain of everything that this process gives back.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    # Ctrl-C goes to the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where memory runs out, the kernel is to kill this process and not the program, which says whose it was.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(RuntimeError):  # the system gives no further thread
        threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.captureWarnings(True)


def _end_with_parent() -> None:
    """End this worker when the program is killed, so that none is left behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

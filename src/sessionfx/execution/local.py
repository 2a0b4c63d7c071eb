"""Work on this machine, in this process or in several, so that one failure stops only its own unit."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from sessionfx.execution.base import Done, Executor, Failure, Result, attempt
from sessionfx.execution.memory import memory_limit_gb, workers_within
from sessionfx.execution.progress import say
from sessionfx.execution.slots import own_slots, share_slots
from sessionfx.execution.threads import THREAD_VARIABLES, in_threads, limited_threads

# The path of a Unix socket has 107 characters, of which its own folder and name take some.
_LONGEST_TMPDIR = 70
_LIMIT_REACHED = "Most likely a limit of processes is reached (ulimit -u)."
# How often to look whether the pool's own threads still live, which hand out the work
_LOOK_SECONDS = 1.0


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
            with contextlib.suppress(_NoProcessesError):  # said where they are needed
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
        remaining = dict(units)
        if n_processes > 1 or is_risky:
            try:
                yield from self._run_in_processes(work, remaining, n_processes, n_slots, stop_on_failure)
                return
            except _NoProcessesError as error:
                say(f"{error} Participants are analysed one after the other.")
        with limited_threads(self._n_threads), own_slots(n_slots):
            for name, arguments in remaining.items():
                finished = Done(name, *attempt(work, arguments))
                yield finished
                if finished.failure and stop_on_failure:
                    return

    def _run_in_processes(
        self,
        work: Callable[..., Result],
        remaining: dict[str, tuple[Any, ...]],
        n_processes: int,
        n_slots: int,
        stop_on_failure: bool,
    ) -> Iterator[Done[Result]]:
        """Yield finished units, and take them out of those that remain.

        Raises
        ------
        _NoProcessesError
            If processes cannot be started here.
        """
        while remaining:
            crashed = False
            for done in _run_pool(work, dict(remaining), n_processes, n_slots, self._n_threads):
                if done is None:
                    crashed = True
                    break
                del remaining[done.unit]
                yield done
                if done.failure and stop_on_failure:
                    remaining.clear()
            if not crashed:
                return
            # A process was killed (for want of memory, most often) and took the pool along. Alone, each unit shows
            # whether it was the one.
            for name in list(remaining):
                alone = _run_pool(work, {name: remaining[name]}, 1, 1, self._n_threads)
                outcome = list(alone)[-1] or _killed(name)
                del remaining[name]
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


def _killed(name: str) -> Done[Any]:
    message = "Its process was killed, most likely for want of memory. Use a smaller --nprocs or more memory."
    return Done(name, None, Failure(message, "", expected=True))


class _NoProcessesError(Exception):
    """Processes cannot be started here; the text says why, and how they could be."""

    def __init__(self, error: BaseException | None, remedy: str) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        super().__init__(f"Processes to work side by side cannot be started ({reason}). {remedy}")


def _start_forkserver(modules: Sequence[str], n_threads: int) -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sessionfx.execution.server", *modules])
    saved = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(n_threads)))
    try:
        with _unheard_interrupts():
            forkserver.ensure_running()
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise _NoProcessesError(error, _LIMIT_REACHED) from None
        raise _NoProcessesError(
            error,
            f"Sockets for them lie in the folder of temporary files, {tempfile.gettempdir()}: the variable TMPDIR "
            f"should name a writable one whose path has less than {_LONGEST_TMPDIR} characters.",
        ) from None
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
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


def _run_pool(
    work: Callable[..., Result], units: Mapping[str, tuple[Any, ...]], n_processes: int, n_slots: int, n_threads: int
) -> Iterator[Done[Result] | None]:
    """Yield finished units; None once the pool broke."""
    context = _start_forkserver([work.__module__], n_threads)
    try:
        shared = (n_threads, n_slots, context.Semaphore(n_slots))
        pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_prepare_worker, initargs=shared)
    except (OSError, ImportError, NotImplementedError) as error:
        raise _NoProcessesError(
            error, "They share semaphores, for which /dev/shm must be writable (docker run --shm-size)."
        ) from None
    thread_failures: list[BaseException | None] = []
    hook, threading.excepthook = threading.excepthook, lambda failed: thread_failures.append(failed.exc_value)
    try:
        try:
            pending: dict[Future[Any], str] = {
                pool.submit(attempt, work, arguments): name for name, arguments in units.items()
            }
        except BrokenProcessPool:
            yield None
            return
        except (OSError, EOFError, RuntimeError) as error:
            raise _NoProcessesError(error, _LIMIT_REACHED) from None
        while pending:
            finished, _ = wait(pending, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if thread_failures and not finished:
                raise _NoProcessesError(thread_failures[0], _LIMIT_REACHED)
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
        with contextlib.suppress(RuntimeError):  # its thread was never started
            pool.shutdown(cancel_futures=True)
        threading.excepthook = hook


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
    with contextlib.suppress(RuntimeError):  # the system gives no further thread
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

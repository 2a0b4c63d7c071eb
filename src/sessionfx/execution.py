"""Running independent units of work, one after the other or in processes, so that one failure stops only itself."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from sessionfx.errors import TERMINATED, OutputError, SessionFXError

Result = TypeVar("Result")
Item = TypeVar("Item")

# The linear algebra libraries read these when they are loaded, which happens in the worker processes.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Where Linux mounts control groups, and which one this process is in
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CGROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Failure:
    """Why a unit failed.

    Attributes
    ----------
    message : str
        One paragraph.
    details : str
        Traceback.
    expected : bool
        Whether it is a problem the program knows (bad data), not a crash.
    """

    message: str
    details: str
    expected: bool


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A finished unit: its result, or why it failed."""

    unit: str
    result: Result | None
    failure: Failure | None


def run_units(
    work: Callable[..., Result],
    units: Mapping[str, tuple[Any, ...]],
    *,
    n_processes: int,
    n_threads: int,
    stop_on_failure: bool = False,
    own_process: bool = False,
) -> Iterator[Done[Result]]:
    """Run a function on every unit and yield results as they come.

    Each process computes with `n_threads` threads whatever the number of processes, so that results do not depend
    on it.

    Parameters
    ----------
    work : callable
        A module-level function.
    units : mapping of str to tuple
        Arguments by the unit's name.
    n_processes, n_threads : int
    stop_on_failure : bool, default=False
        Give up the remaining units after a failure.
    own_process : bool, default=False
        Leave this process also with `n_processes=1`: a unit that is killed for want of memory then fails by itself,
        where it would take the whole program along.

    Yields
    ------
    Done
    """
    n_processes = min(n_processes, len(units))
    if n_processes <= 1 and not own_process:
        with limited_threads(n_threads):
            for name, arguments in units.items():
                finished = Done(name, *_attempt(work, arguments))
                yield finished
                if finished.failure and stop_on_failure:
                    return
        return
    remaining = dict(units)
    while remaining:
        crashed = False
        for done in _run_pool(work, remaining, n_processes, n_threads):
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
            outcome = list(_run_pool(work, {name: remaining.pop(name)}, 1, n_threads))[-1] or _killed(name)
            yield outcome
            if outcome.failure and stop_on_failure:
                return


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


def progress_bar(items: Sequence[Item], description: str, unit: str) -> Iterable[Item]:
    """Show progress over items: on a terminal, in the program's own process, and gone when finished."""
    from tqdm import tqdm

    in_worker = multiprocessing.parent_process() is not None
    bar: Iterable[Item] = tqdm(items, desc=description, unit=unit, leave=False, disable=True if in_worker else None)
    return bar


def end_on_sigterm() -> None:
    """Turn SIGTERM (docker stop, Slurm) into an orderly end: children are stopped, temporary files removed."""

    def stop(_signal: int, _frame: object) -> None:
        _kill_workers()
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def _attempt(work: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result | None, Failure | None]:
    try:
        return work(*arguments), None
    except OutputError:
        raise  # no other unit could write either
    except SessionFXError as error:
        return None, Failure(str(error), traceback.format_exc(), expected=True)
    except MemoryError:
        return None, Failure("There is not enough memory for this participant.", traceback.format_exc(), expected=True)
    except Exception as error:
        return None, Failure(f"{type(error).__name__}: {error}", traceback.format_exc(), expected=False)


def _killed(name: str) -> Done[Any]:
    message = "Its process was killed, most likely for want of memory. Use a smaller --nprocs or more memory."
    return Done(name, None, Failure(message, "", expected=True))


def _run_pool(
    work: Callable[..., Result], units: Mapping[str, tuple[Any, ...]], n_processes: int, n_threads: int
) -> Iterator[Done[Result] | None]:
    """Yield finished units; None once the pool broke."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sessionfx.participant"])
    saved = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(n_threads)))
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_prepare_worker, initargs=(n_threads,))
    try:
        pending: dict[Future[Any], str] = {
            pool.submit(_attempt, work, arguments): name for name, arguments in units.items()
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
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _prepare_worker(n_threads: int) -> None:
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


def memory_limit_gb() -> float:
    """Find how much memory this process may use (GB).

    The least of what the machine has, what the control groups of a container or job allow (the innermost need not be
    the strictest), and what Slurm says it granted, which it enforces on some clusters without control groups.

    Returns
    -------
    float
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_granted_by_slurm()]
    for file in _control_group_files():
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):
            continue  # not this kind of control group, or "max"
    return min(limits) / 1e9


def _control_group_files() -> Iterator[Path]:
    """List where a limit may stand: the groups this process is in and those around them, of both versions.

    A container sees its own group as the root, a batch job or Apptainer sees the machine's and is somewhere below.
    """
    places = {"": (_CGROUP_ROOT, "memory.max"), "memory": (_CGROUP_ROOT / "memory", "memory.limit_in_bytes")}
    inside = dict.fromkeys(places, PurePosixPath("/"))
    try:
        lines = _CGROUPS_OF_THIS_PROCESS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:  # "0::/path" (version 2), "4:memory:/path" (version 1)
        _, controllers, path = line.split(":", 2)
        if controllers in places and ".." not in PurePosixPath(path).parts:
            inside[controllers] = PurePosixPath(path)
    for kind, (root, name) in places.items():
        yield from (root / str(group).lstrip("/") / name for group in (inside[kind], *inside[kind].parents))


def _granted_by_slurm() -> list[int]:
    """Memory of a Slurm job on this node (bytes); Slurm counts in MB, and 0 means all there is."""
    per_node, per_cpu, cpus = (
        os.environ.get(name, "") for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    )
    megabytes = [int(per_node)] if per_node.isdecimal() else []
    if per_cpu.isdecimal() and cpus.isdecimal():
        megabytes.append(int(per_cpu) * int(cpus))
    return [granted * 2**20 for granted in megabytes if granted]


def workers_within(memory_gb: float, needs_gb: Sequence[float], n_processes: int) -> int:
    """How many units may run at a time.

    Parameters
    ----------
    memory_gb : float
        The budget.
    needs_gb : sequence of float
        What each unit needs.
    n_processes : int
        The most that were asked for.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(n_processes, int(memory_gb / max(needs_gb))))

"""Work on the workers of a Dask cluster.

Dask places the work, and gives what a lost worker had to others. What is added here is what results depend on: a task
is only begun by a worker that has the same versions, sees the same folders and does one task at a time, with the
number of threads that was asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import pickle
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionfx.errors import ExecutorError, OutputError, SessionFXError
from sessionfx.execution.base import Done, Executor, Failure, Result, attempt
from sessionfx.execution.progress import say
from sessionfx.execution.threads import limited_threads

# What the numbers depend on, and what carries them
_EQUAL_PACKAGES = ("sessionfx", "nilearn", "numpy", "scipy", "pandas", "nibabel", "distributed")
_CONNECT_SECONDS = 10.0
# After which a scheduler that is there but says nothing counts as lost
_ANSWER_SECONDS = 30.0
_POLL_SECONDS = 0.05
# A network file system may show a new file late.
_SEE_SECONDS = 10.0
# How often to look whether there is any worker left while no result comes
_LOOK_SECONDS = 10.0
# Tasks sent for each worker, so that none waits; the rest, which may be large, stays here until its turn comes
_AHEAD = 2


@dataclass(frozen=True)
class Requirements:
    """What every worker must offer.

    Attributes
    ----------
    output_dir : Path
        Absolute; seen and writable under the same path.
    inputs : tuple of Path
        Absolute; folders seen under the same path.
    n_threads : int
        Threads of the linear algebra.
    """

    output_dir: Path
    inputs: tuple[Path, ...]
    n_threads: int


def require_dask(verbose: int = 0) -> None:
    """Make sure that Dask is installed, and that it speaks only when asked.

    Raises
    ------
    ExecutorError
        If it is not.
    """
    missing = [name for name in ("distributed", "dask_jobqueue") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExecutorError(
            f"--executor dask needs packages that are not installed ({', '.join(missing)}). Install them with: "
            "pip install 'sessionfx[dask]'"
        )
    import distributed  # noqa: F401  (sets the levels of its loggers)

    if verbose < 2:
        for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        _quiet_destructors()


def _quiet_destructors() -> None:
    """Keep tracebacks of Dask's destructors to themselves: a client that never came to be cannot be closed."""
    hook = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if not (getattr(unraisable.object, "__module__", None) or "").startswith("distributed"):
            hook(unraisable)

    sys.unraisablehook = show


class DaskExecutor(Executor):
    """Units and items as tasks of a Dask cluster.

    Parameters
    ----------
    address : str
        Of the scheduler, `tcp://host:port`; empty in a subclass that starts the cluster when it is needed.
    requirements : Requirements

    Raises
    ------
    ExecutorError
        If the scheduler cannot be reached.
    """

    def __init__(self, address: str, requirements: Requirements) -> None:
        self._requirements = requirements
        self._client: Any = None
        self._probe: Path | None = None
        if address:
            self._client = _connect(address)
            self._name = f"Dask scheduler {address}"

    @property
    def memory_gb(self) -> float | None:
        """The smallest memory limit of the workers there are."""
        if self._client is None:
            return None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return min(limits) / 1e9 if limits else None

    def run_units(
        self,
        work: Callable[..., Result],
        units: Mapping[str, tuple[Any, ...]],
        *,
        needs_gb: Mapping[str, float] | None = None,
        stop_on_failure: bool = False,
    ) -> Iterator[Done[Result]]:
        """Run every unit as a task; see `Executor.run_units`."""
        client = self._start(max(needs_gb.values()) if needs_gb else None)
        suspects: dict[str, Done[Result]] = {}
        for done, was_killed in self._run_tasks(client, work, units):
            if was_killed:
                suspects[done.unit] = done
                continue
            yield done
            if done.failure and stop_on_failure:
                return
        # Dask suspects all that a killed worker had before it. Alone, each unit shows whether it was the one.
        for name, done in suspects.items():
            outcome = done
            if len(suspects) > 1:
                ((outcome, _),) = self._run_tasks(client, work, {name: units[name]})
            yield outcome
            if outcome.failure and stop_on_failure:
                return

    def _run_tasks(
        self, client: Any, work: Callable[..., Result], units: Mapping[str, tuple[Any, ...]]
    ) -> Iterator[tuple[Done[Result], bool]]:
        """Yield finished units, and whether workers were killed at it again and again."""
        from distributed import KilledWorker, as_completed

        remaining = iter(units.items())
        names: dict[Any, str] = {}  # of what is sent and not back
        finished = as_completed(loop=client.loop)
        try:
            while True:
                while len(names) < self._n_wanted() and (unit := next(remaining, None)) is not None:
                    name, arguments = unit
                    future = self._submit(client, attempt, (work, arguments))
                    names[future] = name
                    finished.add(future)
                if not names:
                    return
                self._wait_until(finished.has_ready)
                future = next(finished)
                name = names.pop(future)
                try:
                    yield Done(name, *self._result(future)), False
                except KilledWorker:
                    yield _killed(name), True
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.cancel(list(names))

    def map_ordered(self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
        """Work on every item as a task; see `Executor.map_ordered`."""
        from distributed import KilledWorker

        client = self._start(None)
        remaining = iter(items)
        ahead: deque[Any] = deque()
        try:
            while True:
                while len(ahead) < self._n_wanted() and (item := next(remaining, None)) is not None:
                    ahead.append(self._submit(client, function, item))
                if not ahead:
                    return
                try:
                    self._wait_until(ahead[0].done)
                    result = self._result(ahead.popleft())
                except KilledWorker:
                    raise ExecutorError(
                        f"{self._name}: workers were killed again and again at the same block of voxels, most likely "
                        "for want of memory. Give the workers more."
                    ) from None
                yield result
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.cancel(list(ahead))

    def close(self) -> None:
        """Leave the scheduler; what workers are at is given up as soon as they can."""
        if self._client is not None:
            self._client.close(timeout=5)
            self._client = None
        if self._probe is not None:
            self._probe.unlink(missing_ok=True)
            self._probe = None

    def _start(self, need_gb: float | None) -> Any:
        """Return the client once there is a worker.

        Parameters
        ----------
        need_gb : float or None
            What the largest unit needs.
        """
        self._wait_for_workers()
        self._check_installations()
        return self._client

    def _check_installations(self) -> None:
        """Refuse a cluster that has no SessionFX or another: its workers would end at the first task, not say so."""
        found = self._client.get_versions(packages=["sessionfx"])
        ours = found["client"]["packages"]["sessionfx"]
        if ours is None:
            return  # not installed but found on a path: each task looks for itself
        for who, there in {"the scheduler": found["scheduler"], **found["workers"]}.items():
            theirs = there["packages"]["sessionfx"]
            if theirs != ours:
                raise ExecutorError(
                    f"{self._name}: {who} has sessionfx {theirs or '(none)'} installed, and here it is {ours}. Start "
                    "scheduler and workers from the same installation or image as this program."
                )

    def _wait_for_workers(self) -> None:
        """Return at once where there is a worker, else say so and wait for one."""
        if not self._n_workers():
            say(f"{self._name} has no workers; waiting for them.")
            while not self._n_workers():
                time.sleep(_POLL_SECONDS)

    def _wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait for a result; say so when that is in vain, because no worker is left."""
        looked = time.monotonic()
        while not is_ready():
            time.sleep(_POLL_SECONDS)
            if time.monotonic() - looked > _LOOK_SECONDS:
                self._wait_for_workers()
                looked = time.monotonic()

    def _n_wanted(self) -> int:
        return _AHEAD * max(1, self._n_workers())

    def _n_workers(self) -> int:
        try:
            asked = self._client.sync(self._client.scheduler.ncores, callback_timeout=_ANSWER_SECONDS)
            return len(asked)
        except (CancelledError, OSError):
            raise self._lost() from None

    def _lost(self) -> ExecutorError:
        return ExecutorError(
            f"{self._name} was lost. What was finished is kept; when it is there again, the same command goes on."
        )

    def _submit(self, client: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._probe is None:
            self._probe = _make_probe(self._requirements.output_dir)
        must_see = (str(self._probe), *map(str, self._requirements.inputs))
        # a key of its own: a task is never taken for an equal one of an earlier call
        return client.submit(
            run_task, _versions(), must_see, self._requirements.n_threads, pickle.dumps((function, arguments)),
            key=f"sessionfx-{uuid.uuid4().hex}",
        )  # fmt: skip

    def _result(self, future: Any) -> Any:
        """Get what a task returned.

        Raises
        ------
        KilledWorker
            If workers were killed at it again and again.
        ExecutorError
            If the workers cannot work, or the cluster is lost.
        Exception
            What the task raised.
        """
        from distributed import KilledWorker

        try:
            kind, value = future.result()
        except KilledWorker:
            raise
        except (CancelledError, OSError):
            raise self._lost() from None
        except Exception as error:
            raise ExecutorError(
                f"{self._name}: scheduler or workers cannot take the work up ({type(error).__name__}: {error}). They "
                f"need SessionFX {_versions()['sessionfx']}: start them from the same installation or image as this "
                "program."
            ) from None
        if kind == "unfit":
            raise ExecutorError(value)
        if kind == "raised":
            raise value
        return value


def run_task(versions: Mapping[str, str], must_see: tuple[str, ...], n_threads: int, task: bytes) -> tuple[str, Any]:
    """Do one task, on the worker.

    The arguments are plain values: they can be read by another version of this function, which then says so.

    Parameters
    ----------
    versions : mapping of str to str
        Of the packages that must be the same.
    must_see : tuple of str
        A file in the output folder, then input folders.
    n_threads : int
        Of the linear algebra.
    task : bytes
        Function and arguments, pickled.

    Returns
    -------
    kind : {'result', 'raised', 'unfit'}
    value : object
        The result; the exception; or the sentence that says why this worker cannot do it.
    """
    problem = find_problem(versions, must_see)
    if problem:
        return "unfit", problem
    try:
        function, arguments = pickle.loads(task)  # noqa: S301 - from this program's own client
        with limited_threads(n_threads):
            return "result", function(*arguments)
    except SessionFXError as error:
        return "raised", error
    except Exception as error:
        error.add_note(f"On {_worker_name()}:\n{traceback.format_exc()}")
        return "raised", error


def find_problem(versions: Mapping[str, str], must_see: tuple[str, ...]) -> str:
    """Say why this worker cannot do the work as it would be done at home; empty where it can."""
    from distributed import get_worker

    who = _worker_name()
    for name, ours in versions.items():
        theirs = _version(name)
        if theirs != ours:
            return (
                f"{who} has {name} {theirs or '(none)'}, and here it is {ours}: results could differ. Start the "
                "workers from the same installation or image as this program."
            )
    n_threads = get_worker().state.nthreads
    if n_threads != 1:
        return (
            f"{who} does {n_threads} tasks at a time in one process, which could change results. Start workers with "
            "one thread each: dask worker ADDRESS --nworkers N --nthreads 1"
        )
    deadline = time.monotonic() + _SEE_SECONDS
    for path in map(Path, must_see):
        while not path.exists():
            if time.monotonic() > deadline:
                folder = path.parent if path.name.startswith(_PROBE_PREFIX) else path
                return (
                    f"{who} cannot see {folder} as it is here. Workers need dataset and output folder under the same "
                    "paths, on a file system that all share; containers need them bound (-B)."
                )
            time.sleep(0.5)
    output_dir = Path(must_see[0]).parent
    if not os.access(output_dir, os.W_OK | os.X_OK):
        return f"{who} cannot write into the output folder {output_dir}. Change its permissions."
    return ""


_PROBE_PREFIX = ".sessionfx-"


def _make_probe(output_dir: Path) -> Path:
    """Make a file that only those can see who share the output folder: equal paths may be different folders."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=_PROBE_PREFIX, dir=output_dir)
    except OSError as error:
        raise OutputError(
            f"The output folder {output_dir} cannot be written ({error.strerror}). Check space and permissions."
        ) from None
    os.close(descriptor)
    return Path(path)


def _killed(name: str) -> Done[Any]:
    message = (
        f"{name}: the Dask workers that had it were killed again and again, most likely for want of memory. Give the "
        "workers more."
    )
    return Done(name, None, Failure(message, "", expected=True))


def _connect(address: str) -> Any:
    from distributed import Client

    clients: list[Any] = []
    errors: list[Exception] = []

    def connect() -> None:
        try:
            clients.append(Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="sessionfx"))
        except Exception as error:
            errors.append(error)

    # in a thread: Dask waits without end for a program that takes the connection and never answers
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if clients:
        return clients[0]
    reason = f"nothing that speaks as a Dask scheduler answered within {_ANSWER_SECONDS:.0f} s"
    if errors:
        reason = " ".join(str(errors[0]).split()) or type(errors[0]).__name__
    raise ExecutorError(
        f"The Dask scheduler {address} cannot be reached ({reason}). Check that it runs and that the address is "
        "the one it prints (dask scheduler)."
    )


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in _EQUAL_PACKAGES}


def _version(name: str) -> str:
    try:
        return str(importlib.import_module(name).__version__)
    except ImportError:
        return ""


def _worker_name() -> str:
    from distributed import get_worker

    return f"The Dask worker {get_worker().address} on {os.uname().nodename}"

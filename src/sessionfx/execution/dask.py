"""Work on the workers of a Dask cluster.

Dask places the work, and gives what a lost worker had to others. What is added here is what results depend on: only
those workers are given work that have the same versions, see the same folders and do one task at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pickle
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker, WorkerPlugin
from distributed.core import Status

from sessionfx.errors import ExecutorError, OutputError, SessionFXError
from sessionfx.execution.base import AHEAD, Executor, Result, ResultOrFailure, Unit, WorkerKilledError, Workers, attempt
from sessionfx.execution.progress import say
from sessionfx.execution.threads import in_order, limited_threads

# What the numbers depend on, and what carries them
_EQUAL_PACKAGES = ("sessionfx", "nilearn", "numpy", "scipy", "pandas", "nibabel", "distributed")
_CONNECT_SECONDS = 10.0
# After which a scheduler that is there but says nothing counts as lost
_ANSWER_SECONDS = 30.0
_LEAVE_SECONDS = 3.0
# A network file system may show a new file late.
_SEE_SECONDS = 10.0


@dataclass(frozen=True)
class Requirements:
    """What every worker must offer."""

    output_dir: Path  # absolute; seen and writable under the same path
    inputs: tuple[Path, ...]  # absolute; folders seen under the same path
    n_threads: int  # threads of the linear algebra


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
        # of this call: the name of the check, of what it grants to workers, and of what it says of others
        self._token = f"sessionfx-{uuid.uuid4().hex}"
        self._unfit: dict[str, str] = {}
        if address:
            self._name = f"Dask scheduler {address}"
            self._client = _connect(address)

    @property
    def is_elsewhere(self) -> bool:
        """Its workers read files by their names."""
        return True

    @property
    def memory_gb(self) -> float | None:
        """The smallest memory limit of the workers there are."""
        if self._client is None:
            return None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return min(limits) / 1e9 if limits else None

    @contextlib.contextmanager
    def _workers(self, need_gb: float | None, alone: bool) -> Iterator[_DaskWorkers]:
        self._start(need_gb)
        # keys of their own: a task is never taken for an equal one of an earlier call
        tasks = self._client.get_executor(pure=False, resources={self._token: 1})
        try:
            yield _DaskWorkers(self, tasks, n_threads=self._requirements.n_threads, alone=alone)
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                tasks.shutdown(wait=False)

    def map_ordered(self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]], /) -> Iterator[Result]:
        """Work on every item as a task; see `Executor.map_ordered`."""
        with self._workers(None, alone=False) as workers, _written(function, self._requirements.output_dir) as shared:
            try:
                yield from in_order(partial(workers.submit_item, shared), items, workers.room, workers.item_result)
            except WorkerKilledError:
                raise ExecutorError(
                    f"{self._name}: workers were killed again and again at the same block of voxels, most likely "
                    "because memory ran out. Give the workers more."
                ) from None

    def close(self) -> None:
        """Leave the scheduler; what workers are at is given up as soon as they can."""
        if self._client is not None:
            if self._probe is not None:
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    _within(_LEAVE_SECONDS, partial(self._client.unregister_worker_plugin, self._token))
            self._client.close(timeout=5)
            self._client = None
        if self._probe is not None:
            self._probe.unlink(missing_ok=True)
            self._probe = None

    def _start(self, need_gb: float | None) -> None:
        """Wait for a worker, and have those there are and those to come checked, for units that need so much memory."""
        self.wait_for_workers()
        if self._probe is not None:
            return
        self._check_installations()
        self._probe = _make_probe(self._requirements.output_dir)
        versions = {name: _version(name) for name in _EQUAL_PACKAGES}
        check = _Check(self._token, versions, (str(self._probe), *map(str, self._requirements.inputs)))
        try:
            self._client.register_plugin(check, name=self._token)
        except SessionFXError:
            raise
        except (CancelledError, OSError):
            raise self.lost() from None
        except Exception as error:
            raise self.unable(error) from None
        self._client.subscribe_topic(self._token, self._hear_of_unfit)

    def _check_installations(self) -> None:
        """Refuse a cluster that has no SessionFX or another: its workers could not even be asked."""
        found = self._client.get_versions(packages=["sessionfx"])
        ours = found["client"]["packages"]["sessionfx"]
        if ours is None:
            return  # not installed but found on a path: each worker looks for itself
        for who, there in {"the scheduler": found["scheduler"], **found["workers"]}.items():
            theirs = there["packages"]["sessionfx"]
            if theirs != ours:
                raise ExecutorError(
                    f"{self._name}: {who} has sessionfx {theirs or '(none)'} installed, and here it is {ours}. Start "
                    "scheduler and workers from the same installation or image as this program."
                )

    def _hear_of_unfit(self, event: tuple[float, tuple[str, str]]) -> None:
        address, problem = event[1]
        self._unfit[address] = problem
        say(f"{problem} It is given no work.")

    def wait_for_workers(self) -> None:
        """Return at once where there is a worker, else say so and wait for one.

        Raises
        ------
        ExecutorError
            If no worker is fit for the work, or the scheduler does not answer.
        """
        if not self.addresses():
            self._wait_for_first()
        if not self.addresses() - self._unfit.keys():
            raise ExecutorError(next(iter(self._unfit.values()), str(self.lost())))

    def _wait_for_first(self) -> None:
        say(f"{self._name} has no workers; waiting for them.")
        while not self.addresses():
            try:
                self._client.wait_for_workers(1, timeout=_ANSWER_SECONDS)
            except TimeoutError:
                continue
            except (CancelledError, OSError):
                raise self.lost() from None

    def addresses(self) -> set[str]:
        """List the workers there are."""
        try:
            return set(self._client.sync(self._client.scheduler.ncores, callback_timeout=_ANSWER_SECONDS))
        except (CancelledError, OSError):
            raise self.lost() from None

    def lost(self) -> ExecutorError:
        """Say that the scheduler is gone."""
        return ExecutorError(
            f"{self._name} was lost. What was finished is kept; when it is there again, the same command goes on."
        )

    def unable(self, error: Exception) -> ExecutorError:
        """Say that the cluster cannot read what it is to do."""
        return ExecutorError(
            f"{self._name}: scheduler or workers cannot take the work up ({type(error).__name__}: {error}). They "
            f"need SessionFX {_version('sessionfx')}: start them from the same installation or image as this program."
        )


class _DaskWorkers(Workers):
    """Workers of a cluster that are fit for the work; `tasks` is Dask's client executor."""

    def __init__(self, executor: DaskExecutor, tasks: Any, *, n_threads: int, alone: bool) -> None:
        self._executor = executor
        self._tasks = tasks
        self._n_threads = n_threads
        self._alone = alone

    def room(self) -> int:
        return 1 if self._alone else AHEAD * max(1, len(self._executor.addresses()))

    def submit(self, unit: Unit, *, is_only: bool) -> Future[ResultOrFailure]:
        future: Future[ResultOrFailure] = self._tasks.submit(attempt, unit, self._n_threads)
        return future

    def submit_item(self, function: Callable[..., Result], item: tuple[Any, ...]) -> Future[Result]:
        future: Future[Result] = self._tasks.submit(_work_on, _Item(function, item), self._n_threads)
        return future

    def result(self, future: Future[ResultOrFailure]) -> ResultOrFailure:
        try:
            return self.item_result(future)
        except (WorkerKilledError, SessionFXError):
            raise
        except Exception as error:  # `attempt` raises no other
            raise self._executor.unable(error) from None

    def item_result(self, future: Future[Result]) -> Result:
        self.wait_for_any([future])
        try:
            return future.result()
        except KilledWorker:
            raise WorkerKilledError(
                "The Dask workers that had it were killed again and again, most likely because memory ran out. Give "
                "the workers more."
            ) from None
        except CancelledError:
            raise self._executor.lost() from None

    def look(self) -> None:
        self._executor.wait_for_workers()


@dataclass(frozen=True)
class _Item:
    """What is handed out whole: Dask would look through lists and mappings for tasks."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Written:
    """A function with its first arguments, in a file: each worker reads once what all items have in common."""

    path: Path

    def __call__(self, *arguments: Any) -> Any:
        return _read_function(self.path)(*arguments)


@lru_cache(maxsize=2)
def _read_function(path: Path) -> Callable[..., Any]:
    deadline = time.monotonic() + _SEE_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    found: Callable[..., Any] = pickle.loads(path.read_bytes())  # noqa: S301 - written by the call that has the item
    return found


@contextlib.contextmanager
def _written(function: Callable[..., Result], folder: Path) -> Iterator[Callable[..., Result]]:
    """Put a function that has arguments into a file while it is worked with; any other stays as it is."""
    if not isinstance(function, partial):
        yield function
        return
    content, path = pickle.dumps(function, protocol=pickle.HIGHEST_PROTOCOL), _make_probe(folder)
    try:
        try:
            path.write_bytes(content)
        except OSError as error:
            raise _unwritable(folder, error) from None
        yield _Written(path)
    finally:
        path.unlink(missing_ok=True)


def _work_on(item: _Item, n_threads: int) -> Any:
    with limited_threads(n_threads):
        return item.function(*item.arguments)


@dataclass(frozen=True)
class _Check(WorkerPlugin):
    """Looks, once on each worker, whether it would do the work as it is done at home; only then it is given work.

    It holds plain values: another version of this class can read them, and then say so.

    Parameters
    ----------
    token : str
        What a worker that is fit has one of, among its resources.
    versions : mapping of str to str
        Of the packages that must be the same.
    must_see : tuple of str
        A file in the output folder, then input folders.
    """

    token: str
    versions: Mapping[str, str]
    must_see: tuple[str, ...]

    async def setup(self, worker: Any) -> None:
        """Look, and report.

        Raises
        ------
        ExecutorError
            If the worker is not fit.
        """
        problem = self._misfit(worker) or await self._unseen()
        if problem:
            problem = f"The Dask worker {worker.address} on {os.uname().nodename} {problem}"
            worker.log_event(self.token, [worker.address, problem])
            raise ExecutorError(problem)
        await worker.set_resources(**{self.token: 1})
        if worker.status is Status.running:
            # The scheduler looks again at tasks that wait for a worker when one begins to run, not when one is given
            # resources.
            worker.status = Status.paused
            worker.status = Status.running

    def _misfit(self, worker: Any) -> str:
        for name, ours in self.versions.items():
            theirs = _version(name)
            if theirs != ours:
                return (
                    f"has {name} {theirs or '(none)'}, and here it is {ours}: results could differ. Start the workers "
                    "from the same installation or image as this program."
                )
        if worker.state.nthreads != 1:
            return (
                f"does {worker.state.nthreads} tasks at a time in one process, which could change results. Start "
                "workers with one thread each: dask worker ADDRESS --nworkers N --nthreads 1"
            )
        return ""

    async def _unseen(self) -> str:
        probe, *_ = paths = list(map(Path, self.must_see))
        deadline = time.monotonic() + _SEE_SECONDS
        for path in paths:
            while not path.exists():
                if time.monotonic() > deadline:
                    return (
                        f"cannot see {probe.parent if path == probe else path} as it is here. Workers need dataset and "
                        "output folder under the same paths, on a file system that all share; containers need them "
                        "bound (-B)."
                    )
                await asyncio.sleep(0.5)
        if not os.access(probe.parent, os.W_OK | os.X_OK):
            return f"cannot write into the output folder {probe.parent}. Change its permissions."
        return ""


def _make_probe(output_dir: Path) -> Path:
    """Make a file that only those can see who share the output folder: equal paths may be different folders."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=".sessionfx-", dir=output_dir)
    except OSError as error:
        raise _unwritable(output_dir, error) from None
    os.close(descriptor)
    return Path(path)


def _unwritable(output_dir: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The output folder {output_dir} cannot be written ({error.strerror}). Check space and permissions."
    )


def _connect(address: str) -> Any:
    try:
        return _within(
            _ANSWER_SECONDS, partial(Client, address, timeout=_CONNECT_SECONDS, set_as_default=False, name="sessionfx")
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        if not reason:
            reason = f"nothing that speaks as a Dask scheduler answered within {_ANSWER_SECONDS:.0f} s"
        raise ExecutorError(
            f"The Dask scheduler {address} cannot be reached ({reason}). Check that it runs and that the address is "
            "the one it prints (dask scheduler)."
        ) from None


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """Call in a thread: Dask waits without end for a program that takes the connection and never answers.

    Raises
    ------
    TimeoutError
        If there is no result within these seconds.
    Exception
        What the function raises.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def _version(name: str) -> str:
    try:
        return str(importlib.import_module(name).__version__)
    except ImportError:
        return ""

"""The executor that the options ask for."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sessionfx.errors import CommandLineError, ExecutorError
from sessionfx.execution.base import Executor
from sessionfx.execution.local import LocalExecutor

SLURM = "slurm"  # in place of a scheduler's address
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")


def open_executor(
    *,
    scheduler: str | None,
    n_workers: int,
    n_threads: int,
    memory_gb: float | None,
    verbose: int,
    output_dir: Path,
    inputs: Sequence[Path],
) -> Executor:
    """Make the executor of a call: for this machine where there is no scheduler, else for Dask's address, or `slurm`.

    So many workers have so many threads of the linear algebra each; workers elsewhere must see the inputs too.

    Raises
    ------
    CommandLineError
        If --scheduler is no address.
    ExecutorError
        If Dask is asked for and is not installed, or its scheduler cannot be reached.
    """
    if scheduler is None:
        return LocalExecutor(n_workers, n_threads, memory_gb)
    if scheduler != SLURM and not _ADDRESS.fullmatch(scheduler):
        raise CommandLineError(
            f"--scheduler '{scheduler}' is neither slurm nor an address such as tcp://10.0.0.1:8786. Correct it."
        )
    _require_dask(verbose)
    from sessionfx.execution.dask import DaskExecutor, Requirements

    requirements = Requirements(output_dir.absolute(), tuple(folder.absolute() for folder in inputs), n_threads)
    if scheduler == SLURM:
        from sessionfx.execution.slurm import SlurmExecutor

        return SlurmExecutor(requirements, n_workers=n_workers, memory_gb=memory_gb)
    return DaskExecutor(scheduler, requirements)


def _require_dask(verbose: int) -> None:
    """Make sure that Dask is installed, and that it speaks only when asked."""
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

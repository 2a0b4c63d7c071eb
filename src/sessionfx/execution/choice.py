"""The executor that the settings ask for."""

from __future__ import annotations

import re

from sessionfx.errors import CommandLineError
from sessionfx.execution.base import Executor
from sessionfx.execution.local import LocalExecutor
from sessionfx.settings import SLURM, Settings

_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")


def open_executor(settings: Settings) -> Executor:
    """Make the executor of a call.

    Raises
    ------
    CommandLineError
        If --scheduler is no address.
    ExecutorError
        If Dask is asked for and is not installed, or its scheduler cannot be reached.
    """
    if settings.executor == "local":
        return LocalExecutor(settings.nprocs, settings.omp_nthreads, settings.mem_gb)
    address = settings.scheduler or ""
    if address != SLURM and not _ADDRESS.fullmatch(address):
        raise CommandLineError(
            f"--scheduler '{address}' is neither slurm nor an address such as tcp://10.0.0.1:8786. Correct it."
        )
    from sessionfx.execution.dask import DaskExecutor, Requirements, require_dask

    require_dask(settings.verbose)
    requirements = Requirements(
        output_dir=settings.output_dir.absolute(),
        inputs=tuple(folder.absolute() for folder in (settings.bids_dir, *settings.derivatives)),
        n_threads=settings.omp_nthreads,
    )
    if address == SLURM:
        from sessionfx.execution.slurm import SlurmExecutor

        return SlurmExecutor(requirements, n_workers=settings.nprocs, memory_gb=settings.mem_gb)
    return DaskExecutor(address, requirements)

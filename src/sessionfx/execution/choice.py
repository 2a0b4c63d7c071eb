"""The executor that the options ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sessionfx.errors import CommandLineError
from sessionfx.execution.base import Executor
from sessionfx.execution.local import LocalExecutor
from sessionfx.options import Execution

SLURM = "slurm"  # in place of a scheduler's address
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")


def open_executor(options: Execution, *, output_dir: Path, inputs: Sequence[Path]) -> Executor:
    """Make the executor of a call.

    Parameters
    ----------
    options : Execution
    output_dir : Path
    inputs : sequence of Path
        Folders that workers elsewhere must see too.

    Raises
    ------
    CommandLineError
        If --scheduler is no address.
    ExecutorError
        If Dask is asked for and is not installed, or its scheduler cannot be reached.
    """
    if options.executor == "local":
        return LocalExecutor(options.nprocs, options.omp_nthreads, options.mem_gb)
    address = options.scheduler or ""
    if address != SLURM and not _ADDRESS.fullmatch(address):
        raise CommandLineError(
            f"--scheduler '{address}' is neither slurm nor an address such as tcp://10.0.0.1:8786. Correct it."
        )
    from sessionfx.execution.dask import DaskExecutor, Requirements, require_dask

    require_dask(options.verbose)
    requirements = Requirements(
        output_dir=output_dir.absolute(),
        inputs=tuple(folder.absolute() for folder in inputs),
        n_threads=options.omp_nthreads,
    )
    if address == SLURM:
        from sessionfx.execution.slurm import SlurmExecutor

        return SlurmExecutor(requirements, n_workers=options.nprocs, memory_gb=options.mem_gb)
    return DaskExecutor(address, requirements)

"""Dask workers as jobs of Slurm, made by dask-jobqueue.

What the site needs (partition, account, time, network interface, …) stands in Dask's own configuration under
`jobqueue.slurm`; only what is not set there is filled in.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sessionfx.errors import ExecutorError
from sessionfx.execution.dask import DaskExecutor, Requirements
from sessionfx.execution.progress import say
from sessionfx.wording import counted

# Dask stops a worker at 95 % of its memory and gives it nothing more at 80 %.
_SPARE = 1.25
_LEAST_GB = 1.0
_POLL_SECONDS = 1.0
# Dask counts a worker as lost after 15 s, and then submits a job in its place.
_REPLACED_SECONDS = 30.0


class SlurmExecutor(DaskExecutor):
    """Units and items as tasks of workers that are jobs of Slurm; the jobs end with the call.

    Parameters
    ----------
    requirements : Requirements
    n_workers : int
        Workers at a time; a lost one is replaced.
    memory_gb : float, optional
        Of a job; by default what the configuration says, else what the largest unit needs.

    Raises
    ------
    ExecutorError
        If there is no Slurm here.
    """

    def __init__(self, requirements: Requirements, *, n_workers: int, memory_gb: float | None) -> None:
        if shutil.which("sbatch") is None:
            raise ExecutorError(
                "--scheduler slurm needs the command sbatch, which is not found here. Give the command on a node that "
                "submits jobs and outside a container, or start workers yourself and give --scheduler tcp://HOST:PORT."
            )
        super().__init__("", requirements)
        self._name = "The Dask cluster of Slurm jobs"
        self._n_workers_wanted = n_workers
        self._memory_gb = memory_gb
        self._cluster: Any = None

    def close(self) -> None:
        """Cancel the jobs and leave; see `DaskExecutor.close`."""
        super().close()
        if self._cluster is not None:
            self._cluster.close(timeout=10)
            self._cluster = None

    def _start(self, need_gb: float | None) -> None:
        if self._client is None:
            from distributed import Client

            self._cluster = self._submit_jobs(need_gb)
            self._client = Client(self._cluster, set_as_default=False, name="sessionfx")
        super()._start(need_gb)

    def _submit_jobs(self, need_gb: float | None) -> Any:
        import dask
        from dask_jobqueue import SLURMCluster

        options = self._options(need_gb)
        # dask-jobqueue's own default of half an hour would stop long participants; the partition has its own
        dask.config.set({"jobqueue.slurm.walltime": _configured("walltime")})
        try:
            cluster = SLURMCluster(**options)
        except (ValueError, RuntimeError, OSError) as error:
            raise ExecutorError(
                f"Dask cannot prepare jobs for Slurm ({error}). Correct jobqueue.slurm in Dask's configuration."
            ) from None
        try:
            _check_script(cluster.job_script())
            n_jobs = math.ceil(self._n_workers_wanted / options["processes"])
            cluster.adapt(minimum_jobs=n_jobs, maximum_jobs=n_jobs)
        except BaseException:
            cluster.close(timeout=10)
            raise
        return cluster

    def _options(self, need_gb: float | None) -> dict[str, Any]:
        processes = int(_configured("processes") or 1)
        need = max(_LEAST_GB, _SPARE * (need_gb or 0.0)) * processes
        memory = f"{self._memory_gb}GB" if self._memory_gb else _configured("memory") or f"{need:.2f}GB"
        name = _configured("name") or "sessionfx"
        options: dict[str, Any] = {
            "processes": processes,
            "cores": processes,  # one thread per worker
            "job_cpu": _configured("job-cpu") or _configured("cores") or processes * self._requirements.n_threads,
            "memory": memory,
            "job_name": name,
            "scheduler_options": {"dashboard_address": ":0", **(_configured("scheduler-options") or {})},
        }
        if _configured("log-directory") is None:
            options["job_extra_directives"] = [
                *(_configured("job-extra-directives") or []),
                f'--output="{_quotable(self._log_folder())}/{name}-%j.log"',
            ]
        return options

    def _log_folder(self) -> Path:
        return Path(_configured("log-directory") or self._requirements.output_dir / "logs")

    def _wait_for_first(self) -> None:
        """Wait for a worker, as long as there is a job that may become one."""
        say(f"Waiting for Slurm to start one of {counted(self._n_workers_wanted, 'worker')}; squeue shows the jobs.")
        last_queued = time.monotonic()
        while not self.addresses():
            time.sleep(_POLL_SECONDS)
            jobs = [job.job_id for job in list(self._cluster.workers.values()) if job.job_id]
            if not jobs or _any_queued(jobs):
                last_queued = time.monotonic()
            if time.monotonic() - last_queued > _REPLACED_SECONDS:
                raise ExecutorError(
                    "The jobs that Slurm ran ended before a worker reported here. Their logs are in "
                    f"{self._log_folder()}; often python or the network interface is not the right one on the nodes "
                    "(jobqueue.slurm.python and jobqueue.slurm.interface in Dask's configuration)."
                )


def _configured(key: str) -> Any:
    """Look a value up in the user's and the site's configuration, without dask-jobqueue's defaults."""
    import dask

    return dask.config.get(f"jobqueue.slurm.{key}", None, config=dask.config.collect())


def _quotable(folder: Path) -> str:
    """Write a path as the job script's quotes and Slurm's own % allow; the script is read by a shell."""
    text = str(folder)
    if not text.isprintable() or any(character in text for character in '"\\$`'):
        raise ExecutorError(
            f"The output folder {text!r} has characters that a job script cannot hold. Choose another name for it."
        )
    return text.replace("%", "%%")


def _check_script(script: str) -> None:
    """Ask Slurm whether it would take the job: a refusal would otherwise only stand in a log."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        command = ["sbatch", "--test-only", file.name]
        asked = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - our own file
    if asked.returncode != 0:
        raise ExecutorError(
            f"Slurm does not take the jobs ({' '.join(asked.stderr.split())}). Correct partition, account, time or "
            "memory: --mem-gb, and jobqueue.slurm in Dask's configuration."
        )


def _any_queued(jobs: list[str]) -> bool:
    command = ["squeue", "--noheader", "--jobs", ",".join(jobs), "--format", "%i"]
    listed = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - numbers that sbatch gave
    if listed.returncode != 0:
        return "Invalid job id" not in listed.stderr  # forgotten means ended; else Slurm is busy and answers later
    return bool(listed.stdout.strip())

"""Where the work is done: on this machine or on the workers of a Dask cluster, behind one small interface."""

from sessionfx.execution.base import Done, Executor, Failure, MapOrdered, Unit, in_this_process
from sessionfx.execution.choice import open_executor
from sessionfx.execution.local import LocalExecutor, load_ahead
from sessionfx.execution.progress import progress_bar, say, show_progress
from sessionfx.execution.resources import available_processors, memory_limit_gb, workers_within
from sessionfx.execution.threads import in_threads, limited_threads, start_few_threads

__all__ = [
    "Done", "Executor", "Failure", "LocalExecutor", "MapOrdered", "Unit", "available_processors", "in_this_process",
    "in_threads", "limited_threads", "load_ahead", "memory_limit_gb", "open_executor", "progress_bar", "say",
    "show_progress", "start_few_threads", "workers_within",
]  # fmt: skip

"""Processors and memory this process may use, and how many units fit in."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Where Linux mounts control groups, and which one this process is in
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CGROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")


def available_processors() -> int:
    """Count the processors this process may use all of the time, by the quota of container or job too, rounded up."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for folder in _control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # not this kind of control group, or "max"
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            quotas.append(quota / period)
        with contextlib.suppress(OSError, ValueError):
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            quotas.append(quota / period if quota > 0 else math.inf)
    return max(1, min([number, *(math.ceil(quota) for quota in quotas if quota < math.inf)]))


def memory_limit_gb() -> float:
    """Find how much memory this process may use (GB).

    The least of what the machine has, what the control groups of a container or job allow (the innermost need not be
    the strictest), and what Slurm says it granted, which it enforces on some clusters without control groups.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_granted_by_slurm()]
    for folder in _control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # not this kind of control group, or "max"
                limits.append(int((folder / name).read_text()))
    return min(limits) / 1e9


def _control_groups(controller: str) -> Iterator[Path]:
    """List where a limit may stand: the groups this process is in and those around them, of both versions.

    A container sees its own group as the root, a batch job or Apptainer sees the machine's and is somewhere below.
    """
    inside = {"": PurePosixPath("/"), controller: PurePosixPath("/")}
    lines = []
    with contextlib.suppress(OSError):
        lines = _CGROUPS_OF_THIS_PROCESS.read_text().splitlines()
    for line in lines:  # "0::/path" (version 2), "4:cpu,cpuacct:/path" (version 1)
        _, controllers, path = line.split(":", 2)
        for name in inside.keys() & controllers.split(","):
            if ".." not in PurePosixPath(path).parts:
                inside[name] = PurePosixPath(path)
    for name, group in inside.items():
        yield from (_CGROUP_ROOT / name / str(folder).lstrip("/") for folder in (group, *group.parents))


def _granted_by_slurm() -> list[int]:
    """Memory of a Slurm job on this node (bytes); Slurm counts in MB, and 0 means all there is."""
    per_node, per_cpu, cpus = (
        os.environ.get(name, "") for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    )
    megabytes = [int(per_node)] if per_node.isdecimal() else []
    if per_cpu.isdecimal() and cpus.isdecimal():
        megabytes.append(int(per_cpu) * int(cpus))
    return [granted * 2**20 for granted in megabytes if granted]


def workers_within(memory_gb: float, need_gb: float, n_processes: int) -> int:
    """Say how many units that need so much memory each (GB) may run at a time within a budget: at least 1."""
    return n_processes if need_gb <= 0 else max(1, min(n_processes, int(memory_gb / need_gb)))

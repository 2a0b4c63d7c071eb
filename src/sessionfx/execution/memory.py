"""How much memory there is, and how many units fit in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

# Where Linux mounts control groups, and which one this process is in
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CGROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")


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

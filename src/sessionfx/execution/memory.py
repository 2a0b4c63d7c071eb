"""How much memory there is, and how many units fit in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# Version 2 and version 1 of Linux control groups, as seen from inside a container
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_limit_gb() -> float:
    """Find how much memory this process may use (GB): the container's or job's limit, else the machine's."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue  # not this kind of control group, or "max"
    return min(limits) / 1e9


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

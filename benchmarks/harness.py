"""Measuring commands as whole process trees, ours beside a peer's in the same run.

Machines are shared and their speed drifts: the two are run in turn, and what counts is the median of the ratios of
neighbouring runs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

_SAMPLE_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """What a command took: wall time (s), processor time with its children (s), peak memory of all together (MB).

    And what it said.
    """

    wall: float
    cpu: float
    peak: float
    said: str = ""


@dataclass(frozen=True)
class Comparison:
    """Runs of ours and of the peer, in turn."""

    ours: tuple[Usage, ...]
    peer: tuple[Usage, ...]

    def median(self, who: str, quantity: str) -> float:
        """Give the median of `wall`, `cpu` or `peak` of `ours` or `peer`."""
        return statistics.median(getattr(usage, quantity) for usage in getattr(self, who))

    def ratio(self, quantity: str) -> float:
        """How many times more the peer takes: the median of the ratios of pairs."""
        pairs = zip(self.peer, self.ours, strict=True)
        return statistics.median(getattr(peer, quantity) / getattr(ours, quantity) for peer, ours in pairs)


def times_asked(option: str, description: str | None) -> int:
    """Read from the command line how often all is measured; 3 unless it says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(option, type=int, default=3, dest="times", help="how often all is measured (default: 3)")
    return int(parser.parse_args().times)


def measure(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Parameters
    ----------
    command : sequence of str
    environment : mapping, optional
        Variables added to those of this process.

    Returns
    -------
    Usage
        Memory is resident memory summed over the processes that live at a time; pages they share count in each.

    Raises
    ------
    RuntimeError
        If the command fails; with what it said.
    """
    # Processes that outlive their parent become children of this one, so that their processor time is counted too.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    own = {child.pid for child in psutil.Process().children()}
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    said: list[bytes] = []
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))  # type: ignore[union-attr]
    sampler = _MemorySampler(process.pid)
    reader.start()
    sampler.start()
    _, status, resources = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = _processor_time(resources) + sum(map(_processor_time, _orphans(own)))
    sampler.stop()
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{b''.join(said).decode()}")
    # not ru_maxrss, which counts what this process had when it started the other
    return Usage(wall, cpu, sampler.peak / 1e6, b"".join(said).decode())


def compare(
    ours: Sequence[str], peer: Sequence[str], *, pairs: int = 3, before: Callable[[], None] | None = None
) -> Comparison:
    """Run two commands in turn, after one uncounted run of each that fills the caches.

    Parameters
    ----------
    ours, peer : sequence of str
        Commands.
    pairs : int, default=3
    before : callable, optional
        Called before every run, to remove what an earlier one left.

    Returns
    -------
    Comparison
    """
    found = in_turn({"ours": ours, "peer": peer}, rounds=pairs + 1, before=before)
    return Comparison(found["ours"][1:], found["peer"][1:])


def in_turn(
    commands: Mapping[str, Sequence[str]], *, rounds: int, before: Callable[[], None] | None = None
) -> dict[str, tuple[Usage, ...]]:
    """Run several commands in turn, so many rounds; see `compare`."""
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if before is not None:
                before()
            usages[name].append(measure(command))
    return {name: tuple(found) for name, found in usages.items()}


def _orphans(own: set[int]) -> Iterator[resource.struct_rusage]:
    """Wait for what the command left behind, not for children that this process had before."""
    while left := [child.pid for child in psutil.Process().children() if child.pid not in own]:
        for pid in left:
            yield os.wait4(pid, 0)[2]


def _processor_time(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


class _MemorySampler(threading.Thread):
    """Watches how much memory a process and all its descendants have."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = psutil.Process(pid)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, self._resident())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _resident(self) -> int:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return 0
        total = 0
        for process in processes:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # it has just ended
        return total

"""What the group level will need: disk, memory and time, from what the first map says and from measured rates.

The rates are those of docs/performance.md: of one processor of an ordinary machine, and no more than approximate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.bids.stat_maps import read_effect
from sessionfx.group.stack import is_single

# Seconds for a number (a voxel of a map): to read and store it with its variance, to look at it for the evidence, to
# estimate with it for one answer; and for a voxel of an answer, whatever the number of maps: z, clusters, files
_READING = 2e-7
_EVIDENCE = 2e-7
_ESTIMATING = 1e-8
_ANSWER = 3e-6
# Algebra of the design, for a map and an answer
_ALGEBRA = 1e-4
_START = 4.0
# Bytes: the program with its libraries; volumes of each map that is being read; what is known of a map and the design
_PROGRAM = 3.5e8
_VOLUMES = 5
_OF_MAP = 6e3


@dataclass(frozen=True)
class Needs:
    """What one contrast needs: bytes on disk and in memory, and seconds."""

    disk: float
    memory: float
    seconds: float

    @classmethod
    def of(
        cls,
        maps: Sequence[FirstLevelMap],
        *,
        needs_variances: bool,
        is_resampled: bool,
        n_answers: int,
        n_processes: int,
        is_kept: bool,
    ) -> Needs:
        """Estimate the needs of so many answers, where the maps may be kept from an earlier call.

        What is resampled lies on disk for one answer at a time; its time is not estimated.

        Raises
        ------
        ParticipantError
            If the first map cannot be read.
        """
        n_maps = sum(len(found.of_rows) for found in maps)
        effect, variance, mask, _ = read_effect(maps[0].effect, maps[0].variance)
        volumes = [effect] if variance is None else [effect, variance]
        size = 4 if all(is_single(volume[mask]) for volume in volumes) else 8
        n_voxels = int(mask.sum())
        numbers = n_maps * n_voxels
        reading = 0.0 if is_kept else _READING * len(volumes) / 2
        rate = reading + _EVIDENCE + _ESTIMATING * n_answers
        seconds = (rate * numbers + _ANSWER * n_voxels * n_answers) / n_processes
        answers = 8 * 4 * n_voxels * n_answers
        n_copies = (0 if is_kept else 2 if needs_variances else 1) + is_resampled
        return cls(
            disk=answers + size * numbers * n_copies,
            memory=_PROGRAM + _VOLUMES * 8 * mask.size * n_processes + _OF_MAP * n_maps,
            seconds=_START + seconds + _ALGEBRA * n_maps * n_answers,
        )

    def text(self, folder: Path) -> str:
        """Say it in a line."""
        return (
            f"needs about {_gigabytes(self.disk)} of disk in {folder}, {_gigabytes(self.memory)} of memory and "
            f"{_duration(self.seconds)}, without the time of resampling, and the page"
        )


def _gigabytes(n_bytes: float) -> str:
    return "0.01 GB" if n_bytes < 1e7 else f"{n_bytes / 1e9:.2g} GB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

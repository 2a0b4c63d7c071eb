"""When the volumes of a run were acquired, from its JSON and its image header.

Vocabulary
----------
RepetitionTime
    Volumes follow each other at equal distances.
VolumeTiming
    The time at which each volume began, where they do not (sparse and clustered acquisition); BIDS has one of the two.
StartTime
    What of a volume's acquisition its data stand for, counted from its beginning: where slice timing put it. Of the
    first volume from the beginning of the scan, so that it is longer than a volume where volumes were removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.images import series_length
from sessionfx.bids.runs import RunInputs
from sessionfx.bids.surfaces import SurfaceSeries
from sessionfx.errors import ParticipantError
from sessionfx.wording import shortened

# JSON fields that say when volumes were acquired: whatever is made from a run depends on them
FIELDS = (
    "RepetitionTime", "VolumeTiming", "StartTime", "AcquisitionDuration", "SliceTiming", "SliceTimingCorrected",
)  # fmt: skip
# Repetition times of header and JSON that differ by more are not rounding (relative)
_TOLERANCE = 1e-3
# A longer one (s) is in milliseconds, and no scanner makes a volume in a shorter one: nilearn makes fifty samples of
# each, and as many of the half minute that a response lasts
_LONGEST = 100.0
_SHORTEST = 0.01


@dataclass(frozen=True)
class Timing:
    """Times of the volumes of a run."""

    times: NDArray[np.float64]  # (T,): what each volume's data stand for (s, on the clock of the onsets)
    repetition_time: float | None  # None where the JSON gives the time of each volume in its place
    start_time: float  # StartTime (s)
    end: float  # when the last volume ends (s)
    warnings: tuple[str, ...] = ()  # what a reader should know, as sentences

    @property
    def is_regular(self) -> bool:
        """Whether the volumes are equally spaced but for rounding."""
        return self.repetition_time is not None or bool(np.ptp(self._steps) <= _TOLERANCE * self._steps.mean())

    @property
    def spacing_text(self) -> str:
        """How far volumes are apart, in words."""
        return f"{self._steps.min():g} to {self._steps.max():g} s"

    @property
    def _steps(self) -> NDArray[np.float64]:
        return np.diff(self.times)


def run_timing(run: RunInputs, image: Any) -> Timing:
    """Find out when the volumes of a run were acquired; of its image, from `open_series`, the header is used.

    Raises
    ------
    ParticipantError
        If neither says it, or a field holds something else than BIDS asks for.
    """
    is_volumes = not isinstance(image, SurfaceSeries)
    n_volumes = series_length(image.shape) if is_volumes else len(image.data)
    metadata = {key: run.metadata[key] for key in FIELDS if run.metadata.get(key) is not None}
    start = _start_time(run, metadata)
    of_slices = _warnings_on_slices(metadata)
    if "VolumeTiming" in metadata:
        begins = _volume_timing(run, metadata, n_volumes)
        end = float(begins[-1]) + _acquisition_duration(run, metadata, float(np.diff(begins).min()))
        return Timing(start + begins, None, start, end, of_slices)
    in_header = _header_repetition_time(image) if is_volumes else image.repetition_time
    repetition_time, warnings = _repetition_time(run, metadata, in_header)
    times = np.asarray(start + repetition_time * np.arange(n_volumes), dtype=np.float64)
    n_removed = max(int(start // repetition_time), 0)  # from the beginning of the run, before it was preprocessed
    end = (n_removed + n_volumes) * repetition_time
    return Timing(times, repetition_time, start, end, (*warnings, *of_slices))


def _volume_timing(run: RunInputs, metadata: Mapping[str, Any], n_volumes: int) -> NDArray[np.float64]:
    if "RepetitionTime" in metadata:
        raise ParticipantError(
            f"{run.name}: the JSON gives both RepetitionTime ({shortened(repr(metadata['RepetitionTime']))}) and "
            "VolumeTiming, of which BIDS allows one. Remove the one that is not true from the sidecar."
        )
    stated = metadata["VolumeTiming"]
    problem = ""
    begins = np.empty(0)
    if not isinstance(stated, list):
        problem = f"is {shortened(repr(stated))}, expected a list of seconds"
    elif len(stated) != n_volumes:
        problem = f"has {len(stated)} times, but the run has {n_volumes} volumes"
    elif None in (seconds := [_number(value) for value in stated]):
        place = seconds.index(None)
        problem = f"holds {shortened(repr(stated[place]))} at place {place + 1}, expected seconds"
    else:
        begins = np.array(seconds, dtype=np.float64)
        steps = np.diff(begins)
        if (steps <= 0).any():
            place = int((steps <= 0).argmax()) + 2
            problem = f"does not increase at place {place} ({begins[place - 2]:g} s, then {begins[place - 1]:g} s)"
        elif not 0 <= begins[0] <= _LONGEST or not _SHORTEST <= steps.mean() <= _LONGEST:
            problem = (
                f"begins at {begins[0]:g} with {steps.mean():g} between volumes, expected seconds from the beginning "
                "of the first volume"
            )
    if problem:
        raise ParticipantError(f"{run.name}: VolumeTiming in the JSON {problem}. Correct the sidecar.")
    return begins


def _acquisition_duration(run: RunInputs, metadata: Mapping[str, Any], shortest_step: float) -> float:
    """How long the last volume took (s): no longer than it is to the next where they are closest."""
    if "AcquisitionDuration" not in metadata:
        return shortest_step
    duration = _number(metadata["AcquisitionDuration"])
    if duration is None or not 0 < duration <= shortest_step * (1 + _TOLERANCE):
        most = f"no more than the {shortest_step:g} s between the closest volumes of VolumeTiming"
        raise _no_such(run, metadata, "AcquisitionDuration", f"seconds, and {most}")
    return duration


def _repetition_time(run: RunInputs, metadata: Mapping[str, Any], in_header: float | None) -> tuple[float, list[str]]:
    """Repetition time (s): the JSON's, else the header's."""
    if "RepetitionTime" in metadata:
        stated = _number(metadata["RepetitionTime"])
        if stated is None or not _SHORTEST <= stated < _LONGEST:
            raise _no_such(run, metadata, "RepetitionTime", f"seconds ({_SHORTEST:g} to {_LONGEST:g})")
        if in_header and abs(in_header - stated) > _TOLERANCE * stated:
            milliseconds = abs(in_header / 1000 - stated) <= _TOLERANCE * stated
            how = " (milliseconds without their unit)" if milliseconds else ""
            return stated, [
                f"The image header says a repetition time of {in_header:g} s{how}, the JSON {stated:g} s; the JSON "
                "counts."
            ]
        return stated, []
    if not in_header:
        raise ParticipantError(
            f"{run.name}: neither a JSON sidecar nor the image header gives the repetition time. Add RepetitionTime "
            "(seconds), or VolumeTiming, to the run's …_bold.json."
        )
    if not _SHORTEST <= in_header < _LONGEST:
        likely = f" Most likely it is in milliseconds, {in_header / 1000:g} s." if in_header >= _LONGEST else ""
        raise ParticipantError(
            f"{run.name}: no JSON gives the repetition time, and the image header says {in_header:g} s, which no scan "
            f"has.{likely} Add RepetitionTime (seconds) to the run's …_bold.json."
        )
    return in_header, [f"No JSON gives RepetitionTime; the image header's {in_header:g} s is used."]


def _header_repetition_time(image: Any) -> float | None:
    zooms = image.header.get_zooms()
    # volumes may lie along a later axis where those before it have length 1
    axis = next((axis for axis, length in enumerate(image.shape) if axis > 2 and length > 1), 3)
    if len(zooms) <= axis or not np.isfinite(zooms[axis]) or zooms[axis] <= 0:
        return None
    try:
        unit = image.header.get_xyzt_units()[1]
    except KeyError:  # a number that stands for no unit
        return None
    return float(zooms[axis]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def _start_time(run: RunInputs, metadata: Mapping[str, Any]) -> float:
    if "StartTime" not in metadata:
        return 0.0
    start = _number(metadata["StartTime"])
    if start is None or abs(start) > _LONGEST:
        raise _no_such(run, metadata, "StartTime", "seconds from the beginning of a volume")
    return start


def _warnings_on_slices(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Say where slices were, or may have been, corrected to a time that no JSON gives."""
    slices = metadata.get("SliceTiming")
    is_corrected = metadata.get("SliceTimingCorrected")
    may_be = is_corrected is None and isinstance(slices, list) and len(slices) > 1
    if "StartTime" in metadata or not (is_corrected is True or may_be):
        return ()
    were = "may have been corrected for their times (SliceTiming)" if may_be else "were corrected for their times"
    return (
        f"Slices {were}, and no JSON says to which time of a volume; its beginning is assumed. fMRIPrep 1.0 to 20.2 "
        "took the middle, so that responses are modelled half a repetition time too late: then add StartTime (seconds) "
        "to the run's preprocessed …_bold.json, or SliceTimingCorrected: false if slices were not corrected.",
    )


def _no_such(run: RunInputs, metadata: Mapping[str, Any], field: str, expected: str) -> ParticipantError:
    """Say that a field of the JSON is something else than expected."""
    stated = shortened(repr(metadata[field]))
    return ParticipantError(f"{run.name}: {field} is {stated} in the JSON, expected {expected}. Correct the sidecar.")


def _number(value: Any) -> float | None:
    """Read a finite number of a JSON file; None where it is something else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None

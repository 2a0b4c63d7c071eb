"""What the report of a participant shows, as values: made of what was just computed, or read back from files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.event_model import parse_event_model
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.anatomy import Background
from sessionfx.bids.images import read_volume
from sessionfx.bids.meshes import MeshFiles
from sessionfx.bids.reading import UnreadableFileError, read_json_object, read_text
from sessionfx.bids.runs import RunInputs
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel, GroupModel
from sessionfx.options.groups import EFFECT_UNITS
from sessionfx.participant.bold import open_series
from sessionfx.participant.conditions import ONLY_CONDITION
from sessionfx.participant.events import read_events
from sessionfx.participant.timing import run_timing
from sessionfx.participant.variables import modelled_run
from sessionfx.report.methods import MethodsText
from sessionfx.space.stat_map import StatMap

_SHOWN = (
    "RepetitionTime", "StartTime", "RunDuration", "NumberOfVolumes", "ConditionColumns", "DegreesOfFreedom",
    "Notes", "LeftOutContrasts",
)  # fmt: skip


@dataclass(frozen=True)
class RunSummary:
    """What the report says of one run."""

    name: str
    session: str
    design: pd.DataFrame  # design matrix, as in `_design.tsv`
    # as in `_design.json`: RepetitionTime, StartTime, RunDuration, NumberOfVolumes, ConditionColumns, DegreesOfFreedom,
    # Notes and LeftOutContrasts, and those of `Space.counted`; others are not looked at
    facts: dict[str, Any]
    events: pd.DataFrame  # what happened: onsets in seconds from the first volume, as `Events.shown` gives them

    @classmethod
    def read(cls, run: RunInputs, design_path: Path, model: FirstLevelModel) -> RunSummary:
        """Read a run's design back from the output folder, and its events from the input."""
        try:
            design = pd.read_csv(io.StringIO(read_text(design_path)), sep="\t", quoting=csv.QUOTE_NONE)
            facts = read_json_object(design_path.with_suffix(".json"))
            first_volume = float(facts["StartTime"] + facts.get("VolumeTiming", [0.0])[0])
            end = float(facts["RunDuration"])
            missing = [field for field in _SHOWN if field not in facts]
            if missing:
                raise KeyError(missing[0])
        except (UnreadableFileError, ValueError, LookupError, TypeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ParticipantError(
                f"{design_path} or its JSON cannot be read back ({what}). Run the participant again with --force."
            ) from None
        if run.events is None:
            raise ParticipantError(f"{run.name} has no events file any more. Restore it and run the participant again.")
        if model.recipe is None:
            # what was left out of the model when it was fitted is left out of the picture
            written = parse_event_model(model)
            events = read_events(run.events, first_volume=first_volume, end=end, asked=(ONLY_CONDITION,), model=written)
        else:
            timing = run_timing(run, open_series(*run.images))
            events, _ = modelled_run(run, model.recipe, timing, model.hrf_model)
        return cls(run.name, run.session, design, facts, events.shown)

    @property
    def seconds(self) -> float:
        """Length of the run (s)."""
        return float(self.facts["RunDuration"])


@dataclass(frozen=True, kw_only=True)
class ParticipantResults:
    """All that the sections of one contrast of one participant show."""

    participant: str
    entities: dict[str, str | None]  # task, space, res
    runs: tuple[RunSummary, ...]
    contrast: Contrast
    session_contrasts: tuple[SessionContrast, ...]
    # sessions, combined: maps by session, or session contrast label
    sessions: Mapping[str, StatMap[Any]]
    combined: Mapping[str, StatMap[Any]]
    background: Background | None  # the participant's anatomy or mean image, drawn behind maps wherever it lies
    thresholds: GroupModel  # of which error rate and correction are those of the pictures
    methods: MethodsText
    warnings: tuple[str, ...] = ()  # what a reader should know besides those of the runs
    units: str = EFFECT_UNITS["voxel"]  # of effects
    meshes: MeshFiles = field(default_factory=dict)  # on which surfaces are drawn, by hemisphere


def read_reference(path: Path) -> Background | None:
    """Read a participant's mean image back from the output folder; None where there is none."""
    return read_volume(path) if path.is_file() else None

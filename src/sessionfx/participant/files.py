"""The participant level's files: where each lies, what its sidecar says."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.event_model import units_of_effect
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.acquisitions import acquired_entities
from sessionfx.bids.anatomy import Background
from sessionfx.bids.atlas import Atlas
from sessionfx.bids.derivatives import SOFTWARE, bids_uri
from sessionfx.bids.names import (
    F_STATISTICS,
    STATISTICS,
    entities_of,
    entity_string,
    figures_folder,
    file_name,
    files_of,
    func_folder,
)
from sessionfx.bids.reading import UnreadableFileError, read_json_object
from sessionfx.bids.region_tables import (
    DESC,
    STATISTIC_COLUMNS,
    SUFFIX,
    atlas_fields,
    value_columns,
    write_region_table,
)
from sessionfx.bids.runs import RunInputs
from sessionfx.bids.stat_maps import statmap_paths, with_sidecars, write_statmaps
from sessionfx.bids.writing import write_json, write_map, write_text
from sessionfx.options import FirstLevelModel
from sessionfx.participant.run import FittedRun, MeanImage, model_parameters
from sessionfx.space.grid import Grid
from sessionfx.space.regions import LEAST_SHARE
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap
from sessionfx.wording import counted, joined

FIXED_EFFECTS_DESC = "fixedEffects"
# Folder, and entities of the names in it
_Place = tuple[Path, dict[str, str | None]]


@dataclass(frozen=True)
class FirstLevelFiles:
    """Files of a participant in one analysis (task, space, resolution or density)."""

    participant: str  # label
    output_dir: Path  # absolute
    entities: dict[str, str | None]  # task, space and res of every map
    links: dict[str, Path]  # input datasets by their name in BIDS URIs
    model: FirstLevelModel
    extension: str = Grid.extension  # of maps: that of their space

    @property
    def record(self) -> Path:
        """Where it is noted what is finished of the participant."""
        return self.output_dir / "logs" / file_name(self._own_entities, "record", ".json")

    @property
    def log(self) -> Path:
        """Path of what a reader should know of the participant."""
        return self.output_dir / "logs" / f"{entity_string(self._own_entities)}_log.txt"

    @property
    def crash(self) -> Path:
        """Path of what is to be known where the participant fails."""
        return self.output_dir / "logs" / f"{entity_string(self._own_entities)}_crash.txt"

    @property
    def reference(self) -> Path:
        """Path of the mean image, the background of pictures."""
        name = file_name(self._own_entities, "boldref", ".nii.gz")
        return self.output_dir / figures_folder(self.participant) / name

    @property
    def _own_entities(self) -> dict[str, str | None]:
        return {"sub": self.participant, **self.entities}

    def outputs_of_session(self, session: str, contrast: Contrast, runs: Sequence[RunInputs]) -> tuple[Path, ...]:
        """Paths of all files that may be made of a session's runs for a contrast."""
        designs = [self.design(run) for run in runs]
        maps = [*self.session_maps(session, contrast).values()]
        for run in () if contrast.parts else runs:
            maps += self.run_maps(run, contrast).values()
        return (*designs, *(path.with_suffix(".json") for path in designs), *with_sidecars(maps))

    def outputs_of_regions(self, session: str, contrast: Contrast, atlas: str) -> tuple[Path, Path]:
        """Paths of the table of an atlas' regions in a session, and of what its columns are."""
        folder, entities = self._combined(session, contrast)
        path = folder / file_name({**entities, "atlas": atlas, "desc": DESC}, SUFFIX, ".tsv")
        return path, path.with_suffix(".json")

    def outputs_of_question(self, question: SessionContrast, contrast: Contrast) -> tuple[Path, ...]:
        """Paths of all files that may answer a session contrast."""
        return tuple(with_sidecars(self.question_maps(question, contrast).values()))

    def design(self, run: RunInputs) -> Path:
        """Path of a run's design matrix.

        It names the space, as do the maps: the file beside it says how many features were fitted. For a contrast over
        tasks it is one more, beside that of the task by itself, which has its own record.
        """
        folder = self.output_dir / func_folder(run.participant, run.session)
        task = run.entities["task"]
        is_alone = self.entities["task"] in (None, task)
        over_tasks = {} if is_alone else {"task": self.entities["task"], "desc": task}
        return folder / file_name({**run.entities, **self.entities, "task": task, **over_tasks}, "design", ".tsv")

    def session_maps(self, session: str, contrast: Contrast) -> dict[str, Path]:
        """Paths of the maps of one session (of all runs, without sessions) by statistic; see `statmap_paths`.

        There is one of `dof` where it differs between voxels.
        """
        return self._maps(self._combined(session, contrast), contrast)

    def question_maps(self, question: SessionContrast, contrast: Contrast) -> dict[str, Path]:
        """Paths of the maps that answer a session contrast, by statistic."""
        return self._maps(self._combined("", contrast, question.label), contrast)

    def run_maps(self, run: RunInputs, contrast: Contrast) -> dict[str, Path]:
        """Paths of the maps of one run by statistic."""
        return self._maps(self._of_run(run, contrast), contrast)

    def _maps(self, place: _Place, contrast: Contrast) -> dict[str, Path]:
        return statmap_paths(*place, statistics_of(contrast), self.extension)

    def _combined(self, session: str, contrast: Contrast, sessions: str = "") -> _Place:
        """Folder and entities of what is combined of a session's runs, or of sessions for a session contrast."""
        folder = self.output_dir / func_folder(self.participant, session)
        names = {"contrast": contrast.label, "sessions": sessions, "desc": FIXED_EFFECTS_DESC}
        return folder, {"sub": self.participant, "ses": session, **self.entities, **names}

    def _of_run(self, run: RunInputs, contrast: Contrast) -> _Place:
        """Folder and entities of the maps of one run."""
        folder = self.output_dir / func_folder(run.participant, run.session)
        return folder, {**run.entities, **self.entities, "contrast": contrast.label}

    def write_design(self, fitted: FittedRun) -> dict[str, Any]:
        """Write a run's design matrix and what is to be known of the run; return the content of the JSON file."""
        path = self.design(fitted.run)
        facts = {
            "Description": "Design matrix of one run: one row per volume, one column per regressor.",
            "Sources": self._uris(fitted.run.files),
            "RepetitionTime": fitted.timing.repetition_time,
            **({} if fitted.timing.repetition_time else {"VolumeTiming": _volume_timing(fitted)}),
            "StartTime": fitted.timing.start_time,
            "RunDuration": fitted.timing.end,
            "NumberOfVolumes": len(fitted.design.matrix),
            "ConditionColumns": list(fitted.design.condition_columns),
            **({"OwnColumns": list(fitted.design.own_columns)} if fitted.design.own_columns else {}),
            **({"LostVolumes": list(fitted.design.lost)} if self.model.has_motion_threshold else {}),
            "RedundantColumns": list(fitted.redundant),
            "DegreesOfFreedom": fitted.dof,
            **dict(zip(fitted.mean.space.counted, (fitted.n_brain, int(fitted.mask.sum())), strict=True)),
            "Notes": list(fitted.warnings),
            "LeftOutContrasts": {**_left_out_before(path), **fitted.left_out},
            **self._smoothing_fields(fitted),
            "ModelParameters": model_parameters(self.model, self.extension),
            "Software": SOFTWARE,
        }
        # BIDS knows no quotation marks, which names of conditions may hold
        table = fitted.design.matrix.to_csv(sep="\t", index=False, na_rep="n/a", quoting=csv.QUOTE_NONE)
        write_text(path, table)
        write_json(path.with_suffix(".json"), facts)
        return facts

    def write_reference(self, means: Sequence[MeanImage]) -> Background:
        """Write the mean over time of the participant's runs, and return it (0 where no run has data)."""
        grid = means[0].space.as_grid()
        images = [mean.values for mean in means if mean.space.shape == grid.shape]  # noqa: PD011
        counts = np.sum([np.isfinite(image) for image in images], axis=0)
        total: NDArray[np.float64] = np.sum([np.nan_to_num(image) for image in images], axis=0)
        mean = np.divide(total, counts, where=counts > 0, out=np.zeros_like(total)).astype(np.float32)
        mask = counts > 0
        write_map(self.reference, mean[mask], mask, grid)
        return mean, grid

    def write_run_maps(self, fitted: FittedRun, contrast: Contrast) -> None:
        """Write the maps of one run."""
        sidecar = {
            "Description": "Estimate of one run.",
            "Sources": self._uris(fitted.run.files),
            **self._contrast_fields(contrast),
            **self._smoothing_fields(fitted),
            "NumberOfInputs": 1,
        }
        units = units_of_effect(contrast, self.model)
        write_statmaps(*self._of_run(fitted.run, contrast), fitted.estimates[contrast.label], sidecar, units)

    def write_session(
        self, session: str, contrast: Contrast, combined: StatMap[Any], runs: Sequence[FittedRun]
    ) -> None:
        """Write the combination of a session's runs."""
        used = [fitted for fitted in runs if contrast.label in fitted.estimates]
        left_out = {
            fitted.run.name: fitted.left_out[contrast.label] for fitted in runs if contrast.label in fitted.left_out
        }
        what = "Fixed effects over"
        if contrast.parts:
            what = f"Sum over the tasks {joined([task for task, _ in contrast.parts])} of fixed effects over"
        sidecar = {
            "Description": f"{what} {counted(len(used), 'run')}{' of one session' if session else ''}.",
            "Sources": self._uris([path for fitted in used for path in fitted.run.files]),
            **self._contrast_fields(contrast),
            "CombinationLevel": "run",
            "NumberOfInputs": len(used),
            "InputDegreesOfFreedom": [fitted.estimates[contrast.label].estimate.typical_dof for fitted in used],
            **self._dof_fields(len(used)),
            **({"InputSmoothing": [fitted.smoothing for fitted in used]} if used[0].smoothing else {}),
            **({"LeftOutInputs": left_out} if left_out else {}),
        }
        write_statmaps(*self._combined(session, contrast), combined, sidecar, units_of_effect(contrast, self.model))

    def write_regions(self, session: str, contrast: Contrast, atlas: Atlas, table: pd.DataFrame, space: Space) -> None:
        """Write the regions of an atlas in a session, of maps in a space."""
        path, _ = self.outputs_of_regions(session, contrast, atlas.label)
        maps = self.session_maps(session, contrast)
        content = {
            "Description": "Estimates of the mean series of each region, combined over runs as the maps are.",
            "Sources": self._uris([maps[used] for used in statistics_of(contrast)[:2]]),
            **self._contrast_fields(contrast),
            **atlas_fields(atlas),
            "LeastShareOfRegion": LEAST_SHARE,
        }
        columns = {**value_columns(units_of_effect(contrast, self.model), space), **STATISTIC_COLUMNS}
        write_region_table(path, table, columns, content)

    def write_combined(
        self,
        question: SessionContrast,
        contrast: Contrast,
        combined: StatMap[Any],
        weights: Mapping[str, float],
        inputs: Mapping[str, StatMap[Any]],
    ) -> None:
        """Write the answer to a session contrast."""
        sources = [self.session_maps(session, contrast) for session in weights]
        precision = question.kind == "mean" and self.model.fixed_effects == "precision"
        sidecar = {
            "Description": f"Fixed effects over {counted(len(weights), 'session')} of one participant.",
            "Sources": self._uris(
                [file for paths in sources for used in statistics_of(contrast)[:2] for file in files_of(paths[used])]
            ),
            **self._contrast_fields(contrast),
            "SessionContrast": question.text,
            **question.order_fields,
            # precisions differ from voxel to voxel
            "SessionWeights": {f"ses-{s}": "precision" if precision else weight for s, weight in weights.items()},
            "CombinationLevel": "session",
            "NumberOfInputs": len(weights),
            "InputDegreesOfFreedom": [inputs[session].estimate.typical_dof for session in weights],
            **self._dof_fields(sum(weight != 0 for weight in weights.values())),
        }
        place = self._combined("", contrast, question.label)
        write_statmaps(*place, combined, sidecar, units_of_effect(contrast, self.model))

    def _contrast_fields(self, contrast: Contrast) -> dict[str, Any]:
        rows = [row.expression for row in contrast.tested]
        of_rows = {"RowsContrast": rows, "CovarianceVolumes": _pairs_in_words(rows)} if contrast.is_f_test else {}
        return {
            "Contrast": contrast.expression,
            "ContrastWeights": contrast.row_weights if contrast.is_f_test else contrast.weights,
            **of_rows,
            "FixedEffectsWeighting": self.model.fixed_effects,
            "ModelParameters": model_parameters(self.model, self.extension),
        }

    def _smoothing_fields(self, fitted: FittedRun) -> dict[str, Any]:
        """Say how a surface was smoothed, and along which meshes."""
        if not fitted.smoothing:
            return {}
        files = [path for paths in fitted.run.meshes.values() for path in paths]
        uris = zip(files, self._uris(files), strict=True)
        names = ["/".join(path.parts[-2:]) if uri.startswith("file:") else uri for path, uri in uris]
        return {**fitted.smoothing, "SmoothingMeshes": names}

    def _dof_fields(self, n_inputs: int) -> dict[str, str]:
        if n_inputs < 2:
            return {}
        return {
            "DegreesOfFreedomMethod": {"satterthwaite": "Satterthwaite", "sum": "sum of inputs"}[
                self.model.fixed_effects_dof
            ]
        }

    def _uris(self, paths: Sequence[Path]) -> list[str]:
        return [bids_uri(path, self.links, self.output_dir) for path in paths]


def statistics_of(contrast: Contrast) -> tuple[str, ...]:
    """Name the statistics that there may be maps of; the first two are what the next level computes from."""
    return (*(F_STATISTICS if contrast.is_f_test else STATISTICS), "dof")


def _pairs_in_words(rows: Sequence[str]) -> list[str]:
    """Say what the volumes of a covariance map are, in the order of `WaldTest.covariance`."""
    return [
        f"variance of {first}" if first == second else f"covariance of {first} and {second}"
        for first, second in combinations_with_replacement(rows, 2)
    ]


def _volume_timing(fitted: FittedRun) -> list[float]:
    return [round(float(time - fitted.timing.start_time), 6) for time in fitted.timing.times]


def read_warnings(design: Path) -> tuple[list[str], dict[str, str]]:
    """Read from the JSON of a run's design what a reader should know of the run; see `warnings_of`."""
    name = entity_string(acquired_entities(entities_of(design)))
    try:
        return warnings_of(name, read_json_object(design))
    except UnreadableFileError as error:
        return [str(error)], {}


def warnings_of(name: str, facts: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Put into words what a reader should know of a run, and why it is left out of which contrasts.

    The facts are those of the JSON beside its design.
    """
    notes, left_out = facts.get("Notes"), facts.get("LeftOutContrasts")
    left_out = left_out if isinstance(left_out, dict) else {}
    return [
        *(f"{name}: {note}" for note in (notes if isinstance(notes, list) else [])),
        *(f"{name} is left out of contrast '{label}': {why}." for label, why in left_out.items()),
    ], left_out


def _left_out_before(design: Path) -> dict[str, str]:
    """Contrasts an earlier call left this run out of: its design is the same, its contrasts were others."""
    try:
        return dict(read_json_object(design.with_suffix(".json"))["LeftOutContrasts"])
    except (UnreadableFileError, ValueError, KeyError, TypeError):
        return {}

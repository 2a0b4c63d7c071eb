"""The participant level: every run is fitted, runs are combined within sessions, sessions within the participant.

One participant is one unit of work, independent of all others: it reads its own runs and writes its own files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.errors import ParticipantError
from sessionfx.execution import progress_bar
from sessionfx.firstlevel.contrasts import Contrast
from sessionfx.firstlevel.run import FirstLevelModel, FittedRun, analyse_run
from sessionfx.inputs.runs import RunInputs
from sessionfx.maps import EstimateMap, on_common_voxels
from sessionfx.naming import entity_string, file_name, func_folder, natural_key
from sessionfx.outputs.derivatives import SOFTWARE, bids_uri
from sessionfx.outputs.files import remove_stale_temporaries, write_json, write_map, write_text
from sessionfx.outputs.records import Record, file_state, fingerprint
from sessionfx.outputs.statmaps import read_estimate, statmap_paths, write_statmaps
from sessionfx.report.methods import MethodsText, participant_methods
from sessionfx.report.participant import (
    ParticipantResults,
    RunSummary,
    figures_folder,
    has_sections,
    write_participant_report,
)
from sessionfx.session_contrasts import SessionContrast
from sessionfx.settings import Settings
from sessionfx.statistics.fixed_effects import average, weighted_sum

FIXED_EFFECTS_DESC = "fixedEffects"


@dataclass(frozen=True)
class ParticipantAnalysis:
    """What all participants of one call share.

    Attributes
    ----------
    settings : Settings
    contrasts : tuple of Contrast
    session_contrasts : tuple of SessionContrast
    entities : dict
        task, space and res of every output.
    sessions : tuple of str
        Study sessions in time order; empty for a dataset without sessions.
    output_dir : Path
        Absolute.
    links : dict of str to Path
        Input datasets by their name in BIDS URIs.
    preprocessing : tuple of str
        Programs that made the derivatives.
    """

    settings: Settings
    contrasts: tuple[Contrast, ...]
    session_contrasts: tuple[SessionContrast, ...]
    entities: dict[str, str | None]
    sessions: tuple[str, ...]
    output_dir: Path
    links: dict[str, Path]
    preprocessing: tuple[str, ...] = ()

    @property
    def methods(self) -> MethodsText:
        """What is done, for the methods section of a paper."""
        return participant_methods(self.settings, has_sessions=bool(self.sessions), preprocessing=self.preprocessing)

    @property
    def model(self) -> FirstLevelModel:
        """First-level options."""
        return FirstLevelModel.from_settings(self.settings)

    def uri(self, path: Path) -> str:
        """BIDS URI of an input or output."""
        return bids_uri(path, self.links, self.output_dir)

    def record(self, participant: str) -> Record:
        """Open the record of what is finished of a participant in this analysis."""
        name = file_name({"sub": participant, **self.entities}, "record", ".json")
        return Record(self.output_dir / "logs" / name, self.output_dir)


@dataclass(frozen=True)
class Outcome:
    """What became of one participant: `done` (something was computed or drawn) or `finished` before."""

    participant: str
    status: str
    messages: tuple[str, ...]
    seconds: float


SessionMaps = dict[str, dict[str, EstimateMap]]  # contrast label → session ("" without sessions) → map
CombinedMaps = dict[str, dict[str, EstimateMap]]  # contrast label → session contrast label → map


def analyse_participant(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Outcome:
    """Analyse one participant, or what of it is not finished yet.

    Parameters
    ----------
    runs : sequence of RunInputs
        All runs of the participant.
    analysis : ParticipantAnalysis

    Returns
    -------
    Outcome

    Raises
    ------
    ParticipantError
        If this participant cannot be analysed; nothing of it counts as finished then.
    """
    started = time.monotonic()
    participant = runs[0].participant
    settings = analysis.settings
    record = analysis.record(participant)
    marks = {contrast.label: _fingerprints(runs, contrast, analysis) for contrast in analysis.contrasts}
    to_fit = [
        contrast
        for contrast in analysis.contrasts
        if settings.force or not record.is_finished(_fit_work(contrast), marks[contrast.label][0])
    ]
    to_combine = [
        contrast
        for contrast in analysis.contrasts
        if contrast in to_fit or not record.is_finished(_combine_work(contrast), marks[contrast.label][1])
    ]
    if settings.reports_only and to_combine:
        raise ParticipantError(
            f"sub-{participant}: --reports-only needs finished maps with the same options, and contrast "
            f"'{to_combine[0].label}' has none. Run without --reports-only first."
        )
    to_draw = (
        []
        if settings.no_report
        else [
            contrast
            for contrast in analysis.contrasts
            if contrast in to_combine
            or settings.reports_only
            or not has_sections(analysis.output_dir, participant, analysis.entities, contrast.label)
        ]
    )
    if not to_combine and not to_draw:
        return Outcome(participant, "finished", (), time.monotonic() - started)

    messages: list[str] = []
    if to_combine:
        folder = analysis.output_dir / func_folder(participant).parent
        remove_stale_temporaries(folder)
        record.forget([*map(_fit_work, to_fit), *map(_combine_work, to_combine)])
    if to_fit:
        fitted = [analyse_run(run, to_fit, analysis.model) for run in progress_bar(runs, f"sub-{participant}", "run")]
        messages += _messages(fitted)
        session_maps, absent = combine_runs(fitted, to_fit, settings.fixed_effects)
        messages += absent
        for maps in session_maps.values():
            combine_sessions(maps, analysis)  # sessions that do not fit together fail before anything is written
        written = _write_first_level(participant, fitted, session_maps, analysis)
        record.finish({_fit_work(c): (marks[c.label][0], written[c.label]) for c in to_fit})
    for contrast in to_combine:
        maps = read_session_maps(participant, contrast, runs, analysis)
        combined = combine_sessions(maps, analysis)
        files = _write_combined(participant, contrast, maps, combined, analysis)
        record.finish({_combine_work(contrast): (marks[contrast.label][1], files)})
    if to_draw:
        results = read_results(participant, runs, to_draw, analysis)
        write_participant_report(results, analysis.output_dir)
    if to_combine:
        _write_log(participant, messages, analysis)
    return Outcome(participant, "done", tuple(messages), time.monotonic() - started)


def combine_runs(
    fitted: Sequence[FittedRun], contrasts: Sequence[Contrast], weighting: str
) -> tuple[SessionMaps, list[str]]:
    """Average the runs of each session.

    Parameters
    ----------
    fitted : sequence of FittedRun
        Runs of one participant.
    contrasts : sequence of Contrast
    weighting : {'equal', 'precision'}

    Returns
    -------
    maps : dict
        By contrast and session.
    messages : list of str
        Contrasts the participant has no run for.

    Raises
    ------
    ParticipantError
        If grids differ, no voxel is common, or the participant has none of the contrasts.
    """
    maps: SessionMaps = {}
    messages = []
    for contrast in contrasts:
        by_session: dict[str, EstimateMap] = {}
        for session, runs in _by_session(fitted).items():
            used = [one for one in runs if contrast.label in one.estimates]
            if used:
                common = on_common_voxels(
                    [one.estimates[contrast.label] for one in used], [one.run.name for one in used]
                )
                combined = average([one.estimate for one in common], weighting)
                by_session[session] = EstimateMap.where_determined(combined, common[0].mask, common[0].grid)
        if not by_session:
            reason = next(iter(fitted)).left_out[contrast.label]
            messages.append(f"Contrast '{contrast.label}' cannot be estimated from any run ({reason}).")
        maps[contrast.label] = by_session
    if not any(maps.values()):
        conditions = sorted({name for one in fitted for name in one.design.condition_columns})
        raise ParticipantError(
            f"sub-{fitted[0].run.participant}: none of the contrasts can be estimated from any run. "
            f"{' '.join(messages)} "
            f"Conditions there are: {', '.join(conditions)}. Change --contrast or leave this participant out."
        )
    return maps, messages


def combine_sessions(
    maps: Mapping[str, EstimateMap], analysis: ParticipantAnalysis
) -> dict[str, tuple[EstimateMap, dict[str, float]]]:
    """Combine a participant's session maps for every session contrast they can answer.

    Parameters
    ----------
    maps : mapping of str to EstimateMap
        By session.
    analysis : ParticipantAnalysis

    Returns
    -------
    dict of str to (EstimateMap, dict)
        Estimate and session weights, by the session contrast's label.
    """
    combined = {}
    for session_contrast in analysis.session_contrasts if analysis.sessions else ():
        weights = session_contrast.weights_for(list(maps))
        if weights is None:
            continue
        names = [f"ses-{session}" for session in weights]
        common = on_common_voxels([maps[session] for session in weights], names)
        inputs = [one.estimate for one in common]
        if session_contrast.kind == "mean":
            estimate = average(inputs, analysis.settings.fixed_effects)
        else:
            estimate = weighted_sum(inputs, list(weights.values()))
        located = EstimateMap.where_determined(estimate, common[0].mask, common[0].grid)
        combined[session_contrast.label] = (located, weights)
    return combined


def read_session_maps(
    participant: str, contrast: Contrast, runs: Sequence[RunInputs], analysis: ParticipantAnalysis
) -> dict[str, EstimateMap]:
    """Read a participant's session maps of a contrast back, by session."""
    maps = {}
    for session in sorted({run.session for run in runs}, key=natural_key):
        paths = _session_paths(participant, session, contrast, analysis)
        if paths["effect"].is_file():
            maps[session] = read_estimate(paths["effect"], paths["variance"])
    return maps


def read_results(
    participant: str, runs: Sequence[RunInputs], contrasts: Sequence[Contrast], analysis: ParticipantAnalysis
) -> ParticipantResults:
    """Collect what the report of a participant shows from its finished files."""
    summaries = [RunSummary.read(run, design_path(run, analysis.output_dir)) for run in runs]
    sessions = {c.label: read_session_maps(participant, c, runs, analysis) for c in contrasts}
    combined: CombinedMaps = {contrast.label: {} for contrast in contrasts}
    for contrast in contrasts:
        for session_contrast in analysis.session_contrasts if analysis.sessions else ():
            paths = _combined_paths(participant, session_contrast, contrast, analysis)
            if paths["effect"].is_file():
                combined[contrast.label][session_contrast.label] = read_estimate(paths["effect"], paths["variance"])
    return ParticipantResults(
        participant,
        analysis.entities,
        tuple(summaries),
        tuple(contrasts),
        analysis.session_contrasts,
        sessions,
        combined,
        reference_path(participant, analysis),
        analysis.settings,
        analysis.methods,
    )


def design_path(run: RunInputs, output_dir: Path) -> Path:
    """Where a run's design matrix is written."""
    return output_dir / func_folder(run.participant, run.session or None) / file_name(run.entities, "design", ".tsv")


def reference_path(participant: str, analysis: ParticipantAnalysis) -> Path:
    """Where a participant's mean image is written, the background of pictures."""
    name = file_name({"sub": participant, **analysis.entities}, "boldref", ".nii.gz")
    return figures_folder(analysis.output_dir, participant) / name


def _fit_work(contrast: Contrast) -> str:
    return f"sessions of {contrast.label}"


def _combine_work(contrast: Contrast) -> str:
    return f"combination of {contrast.label}"


def _fingerprints(runs: Sequence[RunInputs], contrast: Contrast, analysis: ParticipantAnalysis) -> tuple[str, str]:
    """Digests of what determines the session maps, and of what determines their combination."""
    settings = analysis.settings
    inputs = [
        [
            run.name,
            run.problem,
            run.metadata.get("RepetitionTime"),
            run.metadata.get("StartTime"),
            *(file_state(path) for path in (run.bold, run.mask, run.events, run.confounds)),
        ]
        for run in runs
    ]
    first = fingerprint(
        [
            __version__,
            analysis.model.parameters(),
            settings.fixed_effects,
            settings.keep_run_maps,
            contrast.label,
            contrast.weights,
            inputs,
            analysis.entities,
        ]
    )
    questions = [[one.label, one.kind, one.sessions, one.weights] for one in analysis.session_contrasts]
    return first, fingerprint([first, questions, analysis.sessions])


def _by_session(fitted: Sequence[FittedRun]) -> dict[str, list[FittedRun]]:
    sessions: dict[str, list[FittedRun]] = {}
    for one in fitted:
        sessions.setdefault(one.run.session, []).append(one)
    return sessions


def _messages(fitted: Sequence[FittedRun]) -> list[str]:
    messages = []
    for one in fitted:
        messages += [f"{one.run.name}: {note}" for note in one.notes]
        messages += [f"{one.run.name} is left out of contrast '{label}': {why}." for label, why in one.left_out.items()]
    return messages


def _session_entities(
    participant: str, session: str, contrast: Contrast, analysis: ParticipantAnalysis
) -> dict[str, str | None]:
    return {
        "sub": participant,
        "ses": session or None,
        **analysis.entities,
        "contrast": contrast.label,
        "desc": FIXED_EFFECTS_DESC,
    }


def _session_paths(
    participant: str, session: str, contrast: Contrast, analysis: ParticipantAnalysis
) -> dict[str, Path]:
    folder = analysis.output_dir / func_folder(participant, session or None)
    return statmap_paths(folder, _session_entities(participant, session, contrast, analysis))


def _combined_entities(
    participant: str, session_contrast: SessionContrast, contrast: Contrast, analysis: ParticipantAnalysis
) -> dict[str, str | None]:
    return {**_session_entities(participant, "", contrast, analysis), "sessions": session_contrast.label}


def _combined_paths(
    participant: str, session_contrast: SessionContrast, contrast: Contrast, analysis: ParticipantAnalysis
) -> dict[str, Path]:
    folder = analysis.output_dir / func_folder(participant)
    return statmap_paths(folder, _combined_entities(participant, session_contrast, contrast, analysis))


def _contrast_fields(contrast: Contrast, analysis: ParticipantAnalysis) -> dict[str, Any]:
    return {
        "Contrast": contrast.expression,
        "ContrastWeights": contrast.weights,
        "FixedEffectsWeighting": analysis.settings.fixed_effects,
        "ModelParameters": analysis.model.parameters(),
    }


def _write_first_level(
    participant: str, fitted: Sequence[FittedRun], maps: SessionMaps, analysis: ParticipantAnalysis
) -> dict[str, list[Path]]:
    """Write designs, the mean image and session maps; files by contrast label."""
    common = [path for one in fitted for path in _write_design(one, analysis)]
    common.append(_write_reference(participant, fitted, analysis))
    files: dict[str, list[Path]] = {}
    contrasts = {contrast.label: contrast for contrast in analysis.contrasts}
    for label, by_session in maps.items():
        files[label] = list(common)
        contrast = contrasts[label]
        for session in sorted({one.run.session for one in fitted}):
            if session not in by_session:
                # a map of an earlier analysis must not stand for a session that has none now
                for path in _session_paths(participant, session, contrast, analysis).values():
                    path.unlink(missing_ok=True)
        for session, one in by_session.items():
            runs = [run for run in fitted if run.run.session == session]
            entities = _session_entities(participant, session, contrast, analysis)
            sidecar = _session_sidecar(runs, contrast, analysis)
            folder = analysis.output_dir / func_folder(participant, session or None)
            files[label] += write_statmaps(folder, entities, one, sidecar).values()
        if analysis.settings.keep_run_maps:
            files[label] += [
                path for one in fitted if label in one.estimates for path in _write_run_maps(one, contrast, analysis)
            ]
    return files


def _session_sidecar(runs: Sequence[FittedRun], contrast: Contrast, analysis: ParticipantAnalysis) -> dict[str, Any]:
    used = [one for one in runs if contrast.label in one.estimates]
    left_out = {one.run.name: one.left_out[contrast.label] for one in runs if contrast.label in one.left_out}
    return {
        "Description": f"Fixed effects over {len(used)} run(s) of one session."
        if runs[0].run.session
        else f"Fixed effects over {len(used)} run(s).",
        "Sources": [analysis.uri(path) for one in used for path in _source_files(one.run)],
        **_contrast_fields(contrast, analysis),
        "CombinationLevel": "run",
        "NumberOfInputs": len(used),
        "InputDegreesOfFreedom": [one.estimates[contrast.label].estimate.dof for one in used],
        **({"LeftOutInputs": left_out} if left_out else {}),
    }


def _source_files(run: RunInputs) -> list[Path]:
    return [path for path in (run.bold, run.mask, run.events, run.confounds) if path is not None]


def _write_run_maps(one: FittedRun, contrast: Contrast, analysis: ParticipantAnalysis) -> list[Path]:
    entities = {**one.run.entities, **analysis.entities, "contrast": contrast.label}
    sidecar = {
        "Description": "Estimate of one run.",
        "Sources": [analysis.uri(path) for path in _source_files(one.run)],
        **_contrast_fields(contrast, analysis),
        "NumberOfInputs": 1,
    }
    folder = analysis.output_dir / func_folder(one.run.participant, one.run.session or None)
    return list(write_statmaps(folder, entities, one.estimates[contrast.label], sidecar).values())


def _write_design(one: FittedRun, analysis: ParticipantAnalysis) -> list[Path]:
    path = design_path(one.run, analysis.output_dir)
    write_text(path, one.design.matrix.to_csv(sep="\t", index=False, na_rep="n/a"))
    sidecar = path.with_suffix(".json")
    write_json(
        sidecar,
        {
            "Description": "Design matrix of one run: one row per volume, one column per regressor.",
            "Sources": [analysis.uri(source) for source in _source_files(one.run)],
            "RepetitionTime": one.repetition_time,
            "StartTime": one.start_time,
            "NumberOfVolumes": len(one.design.matrix),
            "ConditionColumns": list(one.design.condition_columns),
            "RedundantColumns": list(one.redundant),
            "DegreesOfFreedom": one.dof,
            "BrainMaskVoxels": one.n_brain,
            "FittedVoxels": int(one.mask.sum()),
            "Notes": list(one.notes),
            "LeftOutContrasts": one.left_out,
            "ModelParameters": analysis.model.parameters(),
            "Software": SOFTWARE,
        },
    )
    return [path, sidecar]


def _write_reference(participant: str, fitted: Sequence[FittedRun], analysis: ParticipantAnalysis) -> Path:
    path = reference_path(participant, analysis)
    first = next(iter(fitted[0].estimates.values()), None) or next(m for one in fitted for m in one.estimates.values())
    same = [one.mean_image for one in fitted if one.mean_image.shape == first.grid.shape]
    counts = np.sum([np.isfinite(image) for image in same], axis=0)
    total: NDArray[np.float64] = np.sum([np.nan_to_num(image) for image in same], axis=0)
    mask = counts > 0
    write_map(path, total[mask] / counts[mask], mask, first.grid)
    write_json(
        path.with_name(path.name.removesuffix(".nii.gz") + ".json"),
        {
            "Description": "Mean over time of the participant's analysed runs, for pictures.",
            "Sources": [analysis.uri(one.run.bold) for one in fitted],
            "Software": SOFTWARE,
        },
    )
    return path


def _write_combined(
    participant: str,
    contrast: Contrast,
    maps: Mapping[str, EstimateMap],
    combined: Mapping[str, tuple[EstimateMap, dict[str, float]]],
    analysis: ParticipantAnalysis,
) -> list[Path]:
    files: list[Path] = []
    folder = analysis.output_dir / func_folder(participant)
    for session_contrast in analysis.session_contrasts if analysis.sessions else ():
        if session_contrast.label not in combined:
            for path in _combined_paths(participant, session_contrast, contrast, analysis).values():
                path.unlink(missing_ok=True)
            continue
        located, weights = combined[session_contrast.label]
        sources = [_session_paths(participant, session, contrast, analysis) for session in weights]
        sidecar = {
            "Description": f"Fixed effects over {len(weights)} session(s) of one participant.",
            "Sources": [analysis.uri(paths[statistic]) for paths in sources for statistic in ("effect", "variance")],
            **_contrast_fields(contrast, analysis),
            "SessionContrast": session_contrast.text,
            "SessionWeights": {f"ses-{session}": weight for session, weight in weights.items()},
            "CombinationLevel": "session",
            "NumberOfInputs": len(weights),
            "InputDegreesOfFreedom": [maps[session].estimate.dof for session in weights],
        }
        entities = _combined_entities(participant, session_contrast, contrast, analysis)
        files += write_statmaps(folder, entities, located, sidecar).values()
    return files


def _write_log(participant: str, messages: Sequence[str], analysis: ParticipantAnalysis) -> None:
    name = entity_string({"sub": participant, **analysis.entities})
    lines = messages or ["Nothing to remark."]
    write_text(analysis.output_dir / "logs" / f"{name}_log.txt", "\n".join(lines) + "\n")

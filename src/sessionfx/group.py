"""The group level: every strategy answers every session contrast on the same voxels, and the answers are compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.errors import LevelError, NotEstimableError, ParticipantError
from sessionfx.execution import MapOrdered, map_in_order, progress_bar
from sessionfx.inputs.images import Grid
from sessionfx.inputs.statmaps import FirstLevelMap, GroupSelection
from sessionfx.maps import EstimateMap
from sessionfx.naming import entity_string, file_name
from sessionfx.outputs.derivatives import SOFTWARE, bids_uri
from sessionfx.outputs.files import write_json, write_text
from sessionfx.outputs.records import Record, file_state, fingerprint
from sessionfx.outputs.statmaps import read_estimate, read_sidecar, write_statmaps
from sessionfx.report.group import (
    ContrastResults,
    PairResult,
    QuestionResults,
    StrategyResult,
    has_group_section,
    write_group_report,
)
from sessionfx.report.methods import MethodsText, group_methods
from sessionfx.session_contrasts import SessionContrast
from sessionfx.settings import Settings
from sessionfx.statistics.agreement import Agreement, compare
from sessionfx.statistics.thresholds import z_threshold
from sessionfx.strategies import STRATEGIES
from sessionfx.strategies.base import GroupOptions, MapLayout, Plan, Strategy
from sessionfx.strategies.blocks import estimate_in_blocks
from sessionfx.verdict import verdict

CLUSTER_COLUMNS = ("Cluster ID", "X", "Y", "Z", "Peak Stat", "Cluster Size (mm3)")


@dataclass(frozen=True)
class GroupAnalysis:
    """What all contrasts of one call share; see `ParticipantAnalysis`.

    `map_ordered` is where blocks of voxels are worked on; see `Executor.map_ordered`.
    """

    settings: Settings
    selection: GroupSelection
    session_contrasts: tuple[SessionContrast, ...]
    output_dir: Path
    links: dict[str, Path]
    map_ordered: MapOrdered = map_in_order

    @property
    def folder(self) -> Path:
        """Where group results go."""
        return self.output_dir / "group"

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Strategies asked for, in the registry's order."""
        wanted = self.settings.strategy or tuple(STRATEGIES)
        return tuple(strategy for name, strategy in STRATEGIES.items() if name in wanted)

    @property
    def options(self) -> GroupOptions:
        """Options of the strategies."""
        return GroupOptions(self.settings.subject_effect, self.settings.fixed_effects)

    @property
    def methods(self) -> MethodsText:
        """What is done, for the methods section of a paper."""
        return group_methods(self.settings, [strategy.methods(self.options) for strategy in self.strategies])

    def record(self) -> Record:
        """Open the record of what is finished at the group level."""
        name = file_name({**self.selection.entities}, "group", ".json")
        return Record(self.output_dir / "logs" / name, self.output_dir)


@dataclass(frozen=True)
class GroupMaps:
    """The maps of one contrast on their common voxels.

    Attributes
    ----------
    effects : ndarray of shape (N, V)
    variances : ndarray of shape (N, V) or None
    layout : MapLayout
    mask : ndarray of bool, 3-D
        Voxels that every map has.
    grid : Grid
    coverage : ndarray of int, 3-D
        How many maps have each voxel.
    notes : tuple of str
    """

    effects: NDArray[np.float64]
    variances: NDArray[np.float64] | None
    layout: MapLayout
    mask: NDArray[np.bool_]
    grid: Grid
    coverage: NDArray[np.int_]
    notes: tuple[str, ...]


def analyse_contrast(contrast: str, analysis: GroupAnalysis) -> tuple[str, list[str]]:
    """Analyse one first-level contrast at the group level, unless that is finished.

    Parameters
    ----------
    contrast : str
        Label of the first-level contrast.
    analysis : GroupAnalysis

    Returns
    -------
    status : str
        `done` or `finished`.
    messages : list of str

    Raises
    ------
    LevelError
        If the maps cannot be put together.
    """
    settings = analysis.settings
    maps = analysis.selection.maps[contrast]
    record = analysis.record()
    marks = _fingerprints(contrast, maps, analysis)
    is_finished = not settings.force and all(record.is_finished(work, mark) for work, mark in marks.items())
    shown = fingerprint(marks)
    needs_report = not settings.no_report and (
        settings.reports_only
        or not has_group_section(analysis.output_dir, analysis.selection.entities, contrast, shown)
    )
    if is_finished and not needs_report:
        return "finished", []
    if settings.reports_only and not is_finished:
        raise LevelError(
            f"--reports-only needs finished group maps with the same options, and contrast '{contrast}' has "
            "none. Run the group level without --reports-only first."
        )
    group_maps = read_maps(
        maps, needs_variances=any(one.needs_variances(analysis.options) for one in analysis.strategies)
    )
    questions = tuple(
        answer(question, group_maps, analysis)
        for question in progress_bar(analysis.session_contrasts, contrast, "session contrast")
    )
    results = ContrastResults(
        contrast, analysis.selection.entities, group_maps.layout, group_maps.mask, group_maps.grid, group_maps.coverage,
        questions, group_maps.notes, settings, analysis.methods,
    )  # fmt: skip
    if not is_finished:
        # answers to other session contrasts stay, unless they are from other first-level maps
        stale = [work for work in record.works() if work.startswith(f"{contrast} ") and not _same_maps(work, marks)]
        record.forget([*marks, *stale])
        for (work, mark), question in zip(marks.items(), questions, strict=True):
            record.finish({work: (mark, _write_question(contrast, question, maps, analysis))})
    if not settings.no_report:
        write_group_report(results, shown, analysis.output_dir)
    return "done", [*group_maps.notes, *_refusals(contrast, questions)]


def read_maps(maps: Sequence[FirstLevelMap], *, needs_variances: bool) -> GroupMaps:
    """Read the maps of a contrast and restrict them to the voxels all of them have.

    Raises
    ------
    LevelError
        If grids differ, a map is unreadable, no voxel is common, or variances are needed and missing.
    """
    read: list[EstimateMap] = []
    for one in maps:
        if needs_variances and one.variance is None:
            raise LevelError(f"{one.effect} has no variance map, which --fixed-effects precision needs. Use 'equal'.")
        try:
            current = read_estimate(one.effect, one.variance)
        except ParticipantError as error:
            raise LevelError(f"{error} Or leave sub-{one.participant} out with --participant-label.") from None
        if read and not read[0].grid.same_as(current.grid):
            raise LevelError(
                f"{maps[0].effect} ({read[0].grid}) and {one.effect} ({current.grid}) lie on different grids. "
                "Preprocess all participants to one standard space, or choose maps with --space, --res or "
                "--participant-label."
            )
        read.append(current)
    coverage: NDArray[np.int_] = np.sum([one.mask.astype(int) for one in read], axis=0)
    common = coverage == len(read)
    if not common.any():
        least = int(np.argmin([one.mask.sum() for one in read]))
        raise LevelError(
            f"No voxel has data in all {len(read)} maps; {maps[least].effect} covers least. Leave that "
            "participant out with --participant-label, or check its mask."
        )
    inside = [one.within(common).estimate for one in read]
    effects = np.array([one.effect for one in inside])
    variances = np.array([one.variance for one in inside]) if needs_variances else None
    layout = MapLayout(tuple(one.participant for one in maps), tuple(one.session for one in maps))
    return GroupMaps(effects, variances, layout, common, read[0].grid, coverage, tuple(_notes(maps, read, common)))


def answer(question: SessionContrast, maps: GroupMaps, analysis: GroupAnalysis) -> QuestionResults:
    """Let every strategy answer one session contrast, and compare the answers.

    Parameters
    ----------
    question : SessionContrast
    maps : GroupMaps
    analysis : GroupAnalysis

    Returns
    -------
    QuestionResults
    """
    settings = analysis.settings
    results = tuple(_run_strategy(strategy, question, maps, analysis) for strategy in analysis.strategies)
    pairs = tuple(_compare(a, b) for a, b in combinations(results, 2))
    return QuestionResults(question, results, pairs, verdict(question, maps.layout, settings.subject_effect))


def _run_strategy(
    strategy: Strategy, question: SessionContrast, maps: GroupMaps, analysis: GroupAnalysis
) -> StrategyResult:
    settings = analysis.settings
    try:
        plan = strategy.plan(maps.layout, question, analysis.options)
    except NotEstimableError as refusal:
        return StrategyResult(strategy.name, strategy.label, strategy.title, str(refusal))
    estimate = estimate_in_blocks(plan, maps.effects, maps.variances, map_ordered=analysis.map_ordered)
    located = EstimateMap.where_determined(estimate, maps.mask, maps.grid)
    if not located.mask.any():
        return StrategyResult(
            strategy.name,
            strategy.label,
            strategy.title,
            "No voxel varies over the observations, so there is nothing to test against.",
        )
    threshold = z_threshold(located.estimate.z, settings.alpha, settings.correction)
    clusters = cluster_table(located, threshold, settings.cluster_threshold)
    return StrategyResult(strategy.name, strategy.label, strategy.title, None, plan, located, threshold, clusters)


def _compare(a: StrategyResult, b: StrategyResult) -> PairResult:
    if a.located is None or b.located is None:
        refused = [one for one in (a, b) if one.located is None]
        return PairResult(a, b, None, " ".join(f"{one.title}: {one.refusal}" for one in refused))
    common = a.located.mask & b.located.mask
    z_a, z_b = (one.within(common).estimate.z for one in (a.located, b.located))
    return PairResult(a, b, compare(z_a, z_b, a.threshold, b.threshold), "", (z_a, z_b))


def cluster_table(one: EstimateMap, threshold: float, minimum_voxels: int) -> pd.DataFrame:
    """Make a table of the clusters of a z map.

    Parameters
    ----------
    one : EstimateMap
    threshold : float
        On |z|.
    minimum_voxels : int
        Smaller clusters are not listed.

    Returns
    -------
    DataFrame
        nilearn's columns; sub-peaks have a letter in their cluster's number.
    """
    import nibabel as nib
    from nilearn.reporting import get_clusters_table

    z = one.estimate.z
    if not np.isfinite(threshold) or not (np.abs(z) >= threshold).any():
        return pd.DataFrame(columns=list(CLUSTER_COLUMNS))
    volume = np.zeros(one.grid.shape, dtype=np.float32)
    volume[one.mask] = z
    # nilearn keeps voxels strictly above the threshold; FDR thresholds are values that occur
    just_below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = get_clusters_table(
            nib.Nifti1Image(volume, one.grid.affine),
            just_below,
            cluster_threshold=minimum_voxels,
            two_sided=True,
        )
    return pd.DataFrame(table)


def _notes(maps: Sequence[FirstLevelMap], read: Sequence[EstimateMap], common: NDArray[np.bool_]) -> list[str]:
    notes = []
    sizes = np.array([one.mask.sum() for one in read])
    typical = float(np.median(sizes))
    n_common = int(common.sum())
    if n_common < 0.9 * typical:
        least = int(np.argmin(sizes))
        notes.append(
            f"The {len(read)} maps share {n_common} voxels, {n_common / typical:.0%} of the median map; "
            f"{maps[least].effect.name} covers least ({int(sizes[least])} voxels)."
        )
    models = {fingerprint([sidecar.get(key) for key in ("ModelParameters", "ContrastWeights", "FixedEffectsWeighting")])
              for one in maps if (sidecar := read_sidecar(one.effect))}  # fmt: skip
    if len(models) > 1:
        notes.append(
            "The first-level maps were made with different options (see ModelParameters in their sidecars). Run the "
            "participant level again so that all participants are treated alike."
        )
    missing_variance = [one for one in maps if one.variance is None]
    if missing_variance:
        notes.append(
            f"{len(missing_variance)} maps have no variance map (made by another program); their voxels are those "
            "with an effect other than zero."
        )
    return notes


def _refusals(contrast: str, questions: Sequence[QuestionResults]) -> list[str]:
    return [
        f"Contrast '{contrast}', sessions '{question.session_contrast.label}', {one.name}: {one.refusal}"
        for question in questions for one in question.strategies if one.refusal
    ]  # fmt: skip


def _fingerprints(contrast: str, maps: Sequence[FirstLevelMap], analysis: GroupAnalysis) -> dict[str, str]:
    """Digest what determines the answers to each session contrast, by the name of that piece of work."""
    settings = analysis.settings
    inputs = fingerprint([[one.key, file_state(one.effect), file_state(one.variance)] for one in maps])
    options = [
        __version__,
        analysis.selection.entities,
        [one.name for one in analysis.strategies],
        asdict(analysis.options),
        settings.alpha,
        settings.correction,
        settings.cluster_threshold,
    ]
    return {
        f"{contrast} from {inputs[:16]} sessions {one.label}": fingerprint(
            [inputs, options, one.text, one.kind, one.sessions, one.weights]
        )
        for one in analysis.session_contrasts
    }


def _same_maps(work: str, marks: Mapping[str, str]) -> bool:
    """Whether an earlier piece of work is from the same first-level maps as those of this call."""
    return work.split(" sessions ")[0] == next(iter(marks)).split(" sessions ")[0]


def _write_question(
    contrast: str, question: QuestionResults, maps: Sequence[FirstLevelMap], analysis: GroupAnalysis
) -> list[Path]:
    files: list[Path] = []
    base = _question_entities(contrast, question.session_contrast, analysis)
    for strategy in STRATEGIES.values():
        chosen = next((one for one in question.strategies if one.name == strategy.name), None)
        if chosen is None or chosen.located is None:
            # maps of an earlier analysis must not stand beside the tables of this one
            for path in analysis.folder.glob(entity_string({**base, "strategy": strategy.label}) + "_*"):
                path.unlink(missing_ok=True)
    for result in question.strategies:
        if result.plan is not None and result.located is not None:
            files += _write_strategy(
                contrast, question.session_contrast, result, result.plan, result.located, maps, analysis
            )
    files += _write_tables(question, base, analysis)
    return files


def _question_entities(contrast: str, question: SessionContrast, analysis: GroupAnalysis) -> dict[str, str | None]:
    sessions = question.label if analysis.selection.sessions else None
    return {**analysis.selection.entities, "contrast": contrast, "sessions": sessions}


def _write_strategy(
    contrast: str,
    question: SessionContrast,
    result: StrategyResult,
    plan: Plan,
    located: EstimateMap,
    maps: Sequence[FirstLevelMap],
    analysis: GroupAnalysis,
) -> list[Path]:
    entities = {**_question_entities(contrast, question, analysis), "strategy": result.label}
    first = read_sidecar(maps[0].effect)
    participants = tuple(dict.fromkeys(maps[row].participant for row in plan.rows))
    sidecar: dict[str, Any] = {
        "Description": plan.description,
        "Sources": [bids_uri(maps[row].effect, analysis.links, analysis.output_dir) for row in plan.rows],
        "Contrast": first.get("Contrast", contrast),
        "ContrastWeights": first.get("ContrastWeights"),
        "SessionContrast": question.text,
        "CombinationLevel": "participant",
        "Strategy": result.name,
        "NumberOfInputs": len(plan.rows),
        "NumberOfParticipants": len(participants),
        "LeftOutParticipants": {f"sub-{label}": why for label, why in plan.left_out.items()},
        "Caution": plan.caution,
        "FixedEffectsWeighting": analysis.settings.fixed_effects,
        "ModelParameters": {
            **first.get("ModelParameters", {}),
            "SubjectEffect": analysis.settings.subject_effect,
        },
    }
    files = write_statmaps(analysis.folder, entities, located, sidecar)
    design = analysis.folder / file_name(entities, "design", ".tsv")
    table = plan.design_matrix.rename_axis("observation").reset_index()
    write_text(design, table.to_csv(sep="\t", index=False, na_rep="n/a"))
    description = {
        "Description": "Group design matrix: one row per observation, one column per regressor.",
        "Contrast": dict(zip(map(str, plan.design_matrix.columns), map(float, plan.contrast), strict=True)),
        "DegreesOfFreedom": located.estimate.dof,
        "Strategy": result.name,
        "Software": SOFTWARE,
    }
    write_json(design.with_suffix(".json"), description)
    clusters = analysis.folder / file_name(entities, "clusters", ".tsv")
    write_text(clusters, result.clusters.to_csv(sep="\t", index=False, na_rep="n/a"))
    return [*files, design, design.with_suffix(".json"), clusters]


def _write_tables(question: QuestionResults, base: dict[str, str | None], analysis: GroupAnalysis) -> list[Path]:
    agreement = pd.DataFrame(
        [
            {
                "strategy_a": pair.a.name,
                "strategy_b": pair.b.name,
                "status": "compared" if pair.agreement else "declined",
                **(asdict(pair.agreement) if pair.agreement else dict.fromkeys(one.name for one in fields(Agreement))),
                "threshold_a": pair.a.threshold,
                "threshold_b": pair.b.threshold,
                "reason": pair.reason,
            }
            for pair in question.pairs
        ]
    )
    answers = pd.DataFrame(one.summary() for one in question.strategies)
    paths = []
    for desc, table in (("agreement", agreement), ("answers", answers)):
        path = analysis.folder / file_name({**base, "desc": desc}, "metrics", ".tsv")
        write_text(path, table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.10g"))
        paths.append(path)
    return paths

"""The group level of one call: choose maps, refuse what cannot be asked, do the tasks of every contrast, sum up."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path

from sessionfx.bids.choosing import read_filters
from sessionfx.bids.dataset import dataset_links, derivative_folders
from sessionfx.bids.derivatives import prepare_output
from sessionfx.bids.first_level_maps import MapSelection, find_first_level_maps, select_tasks
from sessionfx.bids.meshes import find_meshes
from sessionfx.bids.writing import remove_stale_temporaries
from sessionfx.errors import DatasetError, LevelError
from sessionfx.execution import Executor, limited_threads, say, show_progress
from sessionfx.group.analysis import contrast_chain
from sessionfx.group.dry_run import group_text
from sessionfx.group.findings import ContrastSummary
from sessionfx.group.page import remove_group_refusal, write_group_refusal
from sessionfx.group.study import GroupAnalysis, check_questions, contrast_study
from sessionfx.group.summaries import findings, verdicts_of, write_summaries
from sessionfx.models.applying import with_group
from sessionfx.models.writer import written_model
from sessionfx.options import Options
from sessionfx.process import write_out
from sessionfx.report.methods import GroupWork
from sessionfx.tasks.call import (
    EXIT_SOME_FAILED,
    asked_of_sessions,
    check_private_folders,
    chosen_atlases,
    keep_methods,
    keep_model,
    keep_options,
    model_path,
    say_warnings,
)
from sessionfx.tasks.loop import run_chains
from sessionfx.wording import listed

# Answers of one first-level contrast on screen; the report has all
_MOST_FINDINGS = 12


def run_group(options: Options, raw: Path, executor: Executor) -> int:
    """Run the group level and return its exit code; a `SessionFXError` stops all contrasts of its task."""
    analyses = _prepare(options, raw, executor)
    if options.execution.dry_run:
        for analysis in analyses:
            write_out(group_text(analysis))
        return 0
    prepare_output(options.output_dir, analyses[0].links)
    if "participant" not in options.levels:
        keep_options(options)
    remove_stale_temporaries(analyses[0].output_dir / "group")
    # one participant is refused, which says enough
    say_warnings(options.group, [found.selection for found in analyses if len(found.selection.participants) > 1])
    if len(analyses) == 1:
        return _run_task(analyses[0], options, executor)
    code = 0
    for analysis in analyses:
        task = analysis.selection.entities["task"]
        say(f"Task {task}:")
        try:
            code = _run_task(analysis, options, executor) or code
        except LevelError as error:
            say(f"task {task}: FAILED. {error}")
            code = EXIT_SOME_FAILED
    return code


def _run_task(analysis: GroupAnalysis, options: Options, executor: Executor) -> int:
    """Do what is asked of one task and return the exit code."""
    selection, execution, output_dir = analysis.selection, options.execution, analysis.output_dir
    if "participant" not in options.levels:
        together = with_group(model_path(selection.entities, output_dir), options)
        if together is not None:
            keep_model(written_model(together), selection.entities, output_dir)
    _refuse_a_single_participant(selection, output_dir, has_page=not execution.no_report)
    remove_group_refusal(output_dir, selection.entities)
    works: list[GroupWork] = []
    verdicts: dict[str, list[Path]] = {}
    n_failed = 0

    def keep(summary: ContrastSummary) -> None:
        works.append(summary.work)
        keep_methods(analysis.methods(reduce(or_, works)), selection.entities, "group", output_dir)

    with (
        limited_threads(execution.omp_nthreads),
        show_progress("group level", "contrast", len(selection.maps), leave=True) as advance,
    ):
        for contrast in selection.maps:
            try:
                chain = replace(contrast_chain(contrast_study(contrast, analysis)), before_names=keep)
                (outcome,) = run_chains([chain], executor, execution, output_dir)
                if outcome.failure:
                    raise LevelError(outcome.failure.message)
            except LevelError as error:
                if len(selection.maps) == 1:
                    raise
                n_failed += 1
                say(f"contrast {contrast}: FAILED. {error}")
            else:
                _say_outcome(contrast, outcome.summary)
                verdicts[contrast] = verdicts_of(chain)
                write_summaries(output_dir, selection.entities)
            advance()
    if len(selection.sessions) > 1:
        say(f"Sessions in their order in time: {selection.order.text}.")
    say(f"Maps and tables: {output_dir / 'group'}")
    if not execution.no_report:
        say(f"Report: {output_dir / 'group.html'}")
    for contrast, files in verdicts.items():
        _say_findings(contrast, files)
    return EXIT_SOME_FAILED if n_failed else 0


def _prepare(options: Options, raw: Path, executor: Executor) -> list[GroupAnalysis]:
    """Choose the maps of each task, and refuse before anything is written what cannot be asked of them."""
    wanted = options.selection
    roots = [options.output_dir.absolute(), *(folder.absolute() for folder in wanted.derivatives)]
    for folder in wanted.derivatives:
        if not folder.is_dir():
            raise DatasetError(f"--derivatives {folder} does not exist. Correct the path.")
    map_filter = read_filters(wanted.bids_filter_file).get("maps")
    found = find_first_level_maps([root for root in roots if root.is_dir()], map_filter)
    if not (found.maps or wanted.derivatives):
        roots += derivative_folders(raw)
        found = find_first_level_maps(roots[1:], map_filter)
    selections, left_out = select_tasks(found, wanted, roots, raw)
    for task, why in left_out.items():
        say(f"Left out: task {task}. {why}")
    if not wanted.contrast:
        selections = [_of_several(selection) for selection in selections]
    chosen = {entering.root for selection in selections for maps in selection.maps.values() for entering in maps}
    foreign = [root for root in sorted(chosen) if root != options.output_dir.absolute()]
    check_private_folders(options, [raw, *foreign])
    links = dataset_links(raw, foreign)
    analyses = []
    for selection in selections:
        of_maps = next(found for maps in selection.maps.values() for found in maps)
        session_contrasts = asked_of_sessions(options.group, selection)
        check_questions(selection, session_contrasts, raw, options.group)
        analyses.append(
            GroupAnalysis(
                model=options.group,
                weighting=options.first_level.fixed_effects,
                execution=options.execution,
                selection=selection,
                session_contrasts=tuple(session_contrasts),
                raw=raw,
                output_dir=options.output_dir.absolute(),
                links=links,
                executor=executor,
                atlases=chosen_atlases(options.group, of_maps.effect_files, selection.entities["space"]),
                meshes=find_meshes(selection.entities, [*roots, *derivative_folders(raw)])
                if of_maps.is_on_surface
                else {},
            )
        )
    return analyses


def _of_several(selection: MapSelection) -> MapSelection:
    """Leave out contrasts of one participant alone, where nobody asks for them by name and there are others."""
    kept = {
        contrast: maps
        for contrast, maps in selection.maps.items()
        if len({stat_map.participant for stat_map in maps}) > 1
    }
    left_out = [contrast for contrast in selection.maps if contrast not in kept]
    if not kept or not left_out:
        return selection
    say(f"Left out, as one participant alone has maps of it: contrast {listed(left_out)}.")
    return replace(selection, maps=kept)


def _refuse_a_single_participant(selection: MapSelection, output_dir: Path, *, has_page: bool) -> None:
    participants = selection.participants
    if len(participants) > 1:
        return
    sentence = (
        "The group level needs at least two participants, and there are maps of one only "
        f"(sub-{participants[0]}). Run the participant level on more participants first, or choose more."
    )
    if has_page:
        write_group_refusal(output_dir, selection.entities, sentence)
    raise LevelError(sentence)


def _say_outcome(contrast: str, summary: ContrastSummary | None) -> None:
    if summary is None:
        say(f"group, contrast {contrast}: finished before, skipped (--force redoes it).")
        return
    for warning in summary.warnings:
        say(f"  {warning}")
    say(f"group, contrast {contrast}: done.")


def _say_findings(contrast: str, verdicts: list[Path]) -> None:
    say(f"Contrast {contrast}:")
    for line in findings(verdicts[:_MOST_FINDINGS]):
        say(f"  {line}")
    if len(verdicts) > _MOST_FINDINGS:
        say(f"  and {len(verdicts) - _MOST_FINDINGS} more, in the tables and the report.")

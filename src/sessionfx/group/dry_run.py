"""What the group level would do, in words: the text of `--dry-run`."""

from __future__ import annotations

from collections import Counter

from sessionfx.bids.first_level_maps import MapSelection
from sessionfx.bids.names import listed_labels, place_of
from sessionfx.bids.stat_maps import read_sidecar, units_in
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.group.analysis import contrast_chain
from sessionfx.group.needs import Needs
from sessionfx.group.stack import has_kept
from sessionfx.group.study import ContrastStudy, GroupAnalysis, contrast_study
from sessionfx.tasks.loop import find_work
from sessionfx.wording import counted, joined, listed

# Of more participants than these, maps are not named
LISTED_PARTICIPANTS = 20
_NAMES_SHOWN = 5


def group_text(analysis: GroupAnalysis) -> str:
    """Describe the group level: contrasts, participants and sessions, questions, what is finished, and the maps."""
    selection, model = analysis.selection, analysis.model
    lines = [
        f"  {name}: {root}" for name, root in {**analysis.links, "output": analysis.output_dir}.items()
    ] + [
        f"  sessions, in their order in time: {selection.order.text or 'none'}",
        f"  session contrasts: {'; '.join(asked.text for asked in analysis.session_contrasts)}",
        f"  strategies: {', '.join(strategy.name for strategy in analysis.strategies)}",
        *(f"  warning: {warning}" for warning in selection.warnings),
    ]  # fmt: skip
    for title, names in (
        ("covariates", model.covariates),
        ("session covariates", model.session_covariates),
        ("group contrasts", model.group_contrast),
    ):
        if names:
            lines.append(f"  {title}: {'; '.join(names)}")
    lines += [f"  regions: {counted(atlas.n_regions, 'region')} of atlas {atlas.label}" for atlas in analysis.atlases]
    if model.permutations:
        lines.append(f"  permutations: {model.permutations}")
    if model.equivalence is not None:
        lines.append(f"  equivalence to zero: within ±{model.equivalence:g} {_units(selection)}")
    if model.bayes_factor is not None:
        lines.append(f"  Bayes factors: Cauchy prior of scale {model.bayes_factor:.4g}")
    if model.calibrate:
        lines.append(f"  calibration: {model.calibrate} simulated voxels")
    for contrast, maps in selection.maps.items():
        of_participant: dict[str, list[str]] = {}
        for found in maps:
            of_participant.setdefault(found.participant, []).append(found.session)
        files = [of_row for found in maps for of_row in found.of_rows]
        progress, to_do = _work(contrast, analysis)
        lines.append(
            f"{contrast} over {counted(len(of_participant), 'participant')}, {counted(len(files), 'map')}"
            + ("" if all(file.variance for file in files) else ", not all with variances")
            + f": {progress}"
        )
        if contrast in selection.f_tests:
            lines.append(f"  F test of {selection.f_tests[contrast].expression}")
        lines += to_do
        attendance = Counter(found.session for found in maps)
        lines += [f"  ses-{session}: {counted(attendance[session], 'participant')}" for session in selection.sessions]
        incomplete = [label for label, sessions in of_participant.items() if len(sessions) < len(selection.sessions)]
        if incomplete:
            lines.append(f"  without some session: {listed_labels(incomplete, _NAMES_SHOWN)}")
        lines += [f"  sub-{label} is left out: it {why}" for label, why in analysis.absent(contrast).items()]
        if len(of_participant) <= LISTED_PARTICIPANTS:
            lines += [f"  {path}" for file in files for path in file.effect_files]
    return "\n".join([f"Would analyse {place_of(selection.entities)} at the group level:", *lines])


def _needs(study: ContrastStudy) -> list[str]:
    """Say what a contrast needs of the machine; nothing where its first map cannot be read, as its tasks will say."""
    analysis = study.analysis
    execution, needs_variances = analysis.execution, analysis.needs_variances
    folder = execution.work_dir or analysis.output_dir
    is_kept = execution.work_dir is not None and has_kept(
        study.maps, folder, needs_variances=needs_variances, min_coverage=study.min_coverage
    )
    try:
        needs = Needs.of(
            study.maps, needs_variances=needs_variances, is_resampled=bool(analysis.model.permutations),
            n_answers=len(study.questions) * len(analysis.strategies), n_processes=execution.nprocs, is_kept=is_kept,
        )  # fmt: skip
    except ParticipantError:
        return []
    return [f"  {needs.text(folder)}" + ("; its maps are kept there from an earlier call" if is_kept else "")]


def _units(selection: MapSelection) -> str:
    return joined(sorted({units_in(read_sidecar(maps[0].effect)) for maps in selection.maps.values()}), last="or")


def _work(contrast: str, analysis: GroupAnalysis) -> tuple[str, list[str]]:
    """Say how much of a contrast is finished; and what would be done of it, and removed."""
    try:
        study = contrast_study(contrast, analysis)
    except LevelError as error:
        return "cannot be analysed", [f"  {error}"]
    chain = contrast_chain(study)
    to_do = find_work(chain, analysis.execution, analysis.output_dir)
    removed = to_do.record.files_of_outdated(chain)
    lines = [
        ("  would do: ", [task.name.removeprefix(f"{contrast} ") for task in to_do.tasks]),
        ("  would remove, as what they were made from has changed: ", [path.name for path in removed]),
    ]
    described = [start + listed(names, most=_NAMES_SHOWN) for start, names in lines if names]
    return to_do.progress(), described + (_needs(study) if to_do.tasks else [])

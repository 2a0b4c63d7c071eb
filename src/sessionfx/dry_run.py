"""What a call would do, in words: the text of `--dry-run`. Nothing is written, and images' headers alone are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessionfx.bids.names import natural_key
from sessionfx.wording import counted, listed, shortened

if TYPE_CHECKING:
    from sessionfx.bids.runs import RunInputs, RunSelection
    from sessionfx.group.analysis import GroupAnalysis
    from sessionfx.participant.analysis import ParticipantAnalysis

# Of more participants than these, files are not named but counted
LISTED_PARTICIPANTS = 20
_LABELS_SHOWN = 5


@dataclass(frozen=True)
class Progress:
    """How many of a participant's results (a session's maps of a contrast, a session contrast's) are finished."""

    finished: int
    asked: int

    def __str__(self) -> str:
        if self.finished == self.asked:
            return "finished, would be skipped"
        return f"{self.finished} of {self.asked} results finished" if self.finished else "nothing finished yet"


def participant_progress(runs: Sequence[RunInputs], analysis: ParticipantAnalysis) -> Progress:
    """Count what the participant level would skip and do, from the participant's record and the files' states."""
    from sessionfx.participant.analysis import plan_work
    from sessionfx.tasks.records import Record

    work = plan_work(runs, analysis)
    asked = len(work.fits) + len(work.combinations)
    record = Record(analysis.files.record(runs[0].participant), analysis.output_dir)
    fits, combinations = work.unfinished(record, force=analysis.execution.force)
    return Progress(asked - len(fits) - len(combinations), asked)


def participant_text(
    selection: RunSelection,
    analysis: ParticipantAnalysis,
    session_contrasts: Sequence[str],
    needs_gb: Mapping[str, float],
    at_a_time: int | None,
) -> str:
    """Describe the participant level.

    Parameters
    ----------
    selection : RunSelection
        Runs of at least one participant.
    analysis : ParticipantAnalysis
    session_contrasts : sequence of str
        As they are asked.
    needs_gb : mapping of str to float
        Memory of each participant's largest run, by `sub-` and label.
    at_a_time : int or None
        How many runs are fitted at a time; None where that is not known.

    Returns
    -------
    str
        Every run with its files for up to `LISTED_PARTICIPANTS` participants, else counts.
    """
    progress = {label: participant_progress(runs, analysis) for label, runs in selection.runs.items()}
    n_runs = sum(len(runs) for runs in selection.runs.values())
    limits = f"about {max(needs_gb.values()):.1f} GB for the largest run"
    at_a_time = None if at_a_time is None else min(at_a_time, sum(map(len, selection.runs.values())))
    lines = [
        f"Would analyse {_place(selection.entities)}: {counted(len(selection.runs), 'participant')}, "
        f"{counted(n_runs, 'run')}.",
        *(f"  {name}: {root}" for name, root in analysis.links.items()),
        f"  output: {analysis.output_dir}",
        f"  sessions, in their order in time: {selection.order.text or 'none'}",
        f"  contrasts: {'; '.join(_named(one.label, one.expression) for one in analysis.contrasts)}",
        f"  session contrasts: {'; '.join(session_contrasts)}" if selection.sessions else "",
        f"  memory: {limits}" + ("" if at_a_time is None else f", {counted(at_a_time, 'run')} at a time"),
        f"  finished before: {_finished(progress)}",
    ]
    lines = [line for line in lines if line] + [f"  warning: {warning}" for warning in selection.warnings]
    if len(selection.runs) > LISTED_PARTICIPANTS:
        return "\n".join([*lines, *_counts(selection)])
    for label, runs in selection.runs.items():
        lines.append(
            f"sub-{label}: {counted(len(runs), 'run')}, {progress[label]}, about {needs_gb[f'sub-{label}']:.1f} GB"
        )
        for run in runs:
            lines.append(f"  {run.name}")
            lines += [f"    {text}" for text in _files(run, analysis.links)]
    return "\n".join(lines)


def group_text(analysis: GroupAnalysis) -> str:
    """Describe the group level: contrasts, participants and sessions, questions, and the maps that would be read."""
    selection, model = analysis.selection, analysis.model
    lines = [
        f"  {name}: {root}" for name, root in {**analysis.links, "output": analysis.output_dir}.items()
    ] + [
        f"  sessions, in their order in time: {selection.order.text or 'none'}",
        f"  session contrasts: {'; '.join(one.text for one in analysis.session_contrasts)}",
        f"  strategies: {', '.join(one.name for one in analysis.strategies)}",
        *(f"  warning: {warning}" for warning in selection.warnings),
    ]  # fmt: skip
    for title, names in (
        ("covariates", model.covariates),
        ("session covariates", model.session_covariates),
        ("group contrasts", model.group_contrast),
    ):
        if names:
            lines.append(f"  {title}: {'; '.join(names)}")
    if model.permutations:
        lines.append(f"  permutations: {model.permutations}")
    if model.equivalence is not None:
        lines.append(f"  equivalence to zero: within ±{model.equivalence:g} percent signal change")
    if model.bayes_factor is not None:
        lines.append(f"  Bayes factors: Cauchy prior of scale {model.bayes_factor:.4g}")
    if model.calibrate:
        lines.append(f"  calibration: {model.calibrate} simulated voxels")
    for contrast, maps in selection.maps.items():
        of_participant: dict[str, list[str]] = {}
        for one in maps:
            of_participant.setdefault(one.participant, []).append(one.session)
        lines.append(
            f"{contrast} over {counted(len(of_participant), 'participant')}, {counted(len(maps), 'map')}"
            + ("" if all(one.variance for one in maps) else ", not all with variances")
        )
        attendance = Counter(one.session for one in maps)
        lines += [f"  ses-{session}: {counted(attendance[session], 'participant')}" for session in selection.sessions]
        incomplete = [label for label, found in of_participant.items() if len(found) < len(selection.sessions)]
        if incomplete:
            lines.append(f"  without some session: {_labels(incomplete)}")
        lines += [f"  sub-{label} is left out: it {why}" for label, why in analysis.absent(contrast).items()]
        if len(of_participant) <= LISTED_PARTICIPANTS:
            lines += [f"  {one.effect}" for one in maps]
    return "\n".join([f"Would analyse {_place(selection.entities)} at the group level:", *lines])


def _files(run: RunInputs, links: Mapping[str, Path]) -> list[str]:
    """One line for each kind of file of a run, and what stands in its way."""
    found = {"image": run.bold, "mask": run.mask, "events": run.events, "confounds": run.confounds}
    missing = {"mask": "none, one is computed", "events": "none: this run cannot be analysed", "confounds": "none"}
    lines = [f"{kind}: {_in_dataset(path, links) if path else missing[kind]}" for kind, path in found.items()]
    lines.append(_timing(run.metadata))
    return [*lines, f"problem: {run.problem}"] if run.problem else lines


def _timing(metadata: Mapping[str, Any]) -> str:
    """Say what the JSON gives of the times of volumes; whether it can be so is checked when the run is read."""
    times, time = metadata.get("VolumeTiming"), metadata.get("RepetitionTime")
    if times is None:
        return f"repetition time: {'that of the image header' if time is None else f'{shortened(str(time))} s'}"
    if not isinstance(times, list) or len(times) < 2:
        return f"volume timing: {shortened(str(times))}"
    return f"volume timing: {len(times)} times from {shortened(str(times[0]))} to {shortened(str(times[-1]))} s"


def _counts(selection: RunSelection) -> list[str]:
    """Count runs and what they lack, naming a few."""
    labels_of: dict[int, list[str]] = {}
    lacking: dict[str, list[str]] = {}
    for label, runs in selection.runs.items():
        labels_of.setdefault(len(runs), []).append(label)
        for run in runs:
            lacks = {"mask": run.mask is None, "events": run.events is None, "confounds": run.confounds is None}
            for what in (what for what, is_missing in lacks.items() if is_missing):
                lacking.setdefault(f"without {what}", []).append(run.name)
            if run.problem:
                lacking.setdefault("with a problem", []).append(run.name)
        present = {run.session for run in runs}
        if any(session not in present for session in selection.sessions):
            lacking.setdefault("participants without some session", []).append(label)
    usual = max(labels_of, key=lambda n: (len(labels_of[n]), n))
    lines = [
        f"{counted(len(labels), 'participant')} with {counted(n, 'run')}"
        + ("" if n == usual else f": {_labels(labels)}")
        for n, labels in sorted(labels_of.items(), reverse=True)
    ]
    for what, names in lacking.items():
        if what.startswith("participants"):
            lines.append(f"{counted(len(names), 'participant')} without some session: {_labels(names)}")
        else:
            lines.append(f"{counted(len(names), 'run')} {what}: {_shortened(names)}")
    return [*lines, f"Files are named for up to {LISTED_PARTICIPANTS} participants: choose with --participant-label."]


def _finished(progress: Mapping[str, Progress]) -> str:
    done = [label for label, one in progress.items() if one.finished == one.asked]
    partly = [label for label, one in progress.items() if 0 < one.finished < one.asked]
    text = f"{len(done)} of {counted(len(progress), 'participant')}"
    return text + (f", {len(partly)} in part" if partly else "")


def _place(entities: Mapping[str, str | None]) -> str:
    return ", ".join(f"{key} {label}" for key, label in entities.items() if label) or "maps of no named task"


def _named(label: str, expression: str) -> str:
    return f"{label} = {expression}"


def _in_dataset(path: Path, links: Mapping[str, Path]) -> str:
    """Write a path as `dataset: path in it`; the innermost dataset counts."""
    inside = [(name, root) for name, root in links.items() if path.is_relative_to(root)]
    if not inside:
        return str(path)
    name, root = max(inside, key=lambda one: len(one[1].parts))
    return f"{name}: {path.relative_to(root)}"


def _labels(labels: Sequence[str]) -> str:
    return _shortened([f"sub-{label}" for label in sorted(labels, key=natural_key)])


def _shortened(names: Sequence[str]) -> str:
    return listed(names, most=_LABELS_SHOWN)

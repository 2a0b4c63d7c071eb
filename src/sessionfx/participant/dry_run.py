"""What the participant level would do, in words: the text of `--dry-run`. Images' headers alone are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sessionfx.bids.derivatives import dataset_of
from sessionfx.bids.names import SURFACE_SERIES, listed_labels, place_of
from sessionfx.bids.runs import RunInputs, RunSelection
from sessionfx.participant.analysis import ParticipantAnalysis
from sessionfx.tasks.loop import ToDo
from sessionfx.wording import counted, listed, shortened

# Of more participants than these, files are not named but counted
LISTED_PARTICIPANTS = 20
_NAMES_SHOWN = 5


def participant_text(
    selection: RunSelection,
    analysis: ParticipantAnalysis,
    work: Mapping[str, ToDo],
    needs_gb: Mapping[str, float],
    at_a_time: int | None,
) -> str:
    """Describe the participant level: every run with its files for `LISTED_PARTICIPANTS` participants, of more counts.

    What is to be done, and the memory of the largest run, are by participant. How many runs are fitted at a time may
    not be known.
    """
    n_runs = len(selection.every_run)
    limits = f"about {max(needs_gb.values()):.1f} GB for the largest run"
    at_a_time = None if at_a_time is None else min(at_a_time, n_runs)
    lines = [
        f"Would analyse {place_of(selection.entities)}: {counted(len(selection.runs), 'participant')}, "
        f"{counted(n_runs, 'run')}.",
        *(f"  {name}: {root}" for name, root in analysis.links.items()),
        f"  output: {analysis.output_dir}",
        f"  sessions, in their order in time: {selection.order.text or 'none'}",
        f"  contrasts: {'; '.join(contrast.definition for contrast in analysis.contrasts)}",
        f"  session contrasts: {'; '.join(asked.text for asked in analysis.session_contrasts)}"
        if selection.sessions
        else "",
        f"  memory: {limits}" + ("" if at_a_time is None else f", {counted(at_a_time, 'run')} at a time"),
        f"  finished before: {_finished(work)}",
    ]
    lines = [line for line in lines if line] + [f"  warning: {warning}" for warning in selection.warnings]
    if len(selection.runs) > LISTED_PARTICIPANTS:
        return "\n".join([*lines, *_counts(selection)])
    for label, runs in selection.runs.items():
        lines.append(
            f"sub-{label}: {counted(len(runs), 'run')}, {work[label].progress()}, about {needs_gb[label]:.1f} GB"
        )
        for run in runs:
            lines.append(f"  {run.name}")
            lines += [f"    {text}" for text in _files(run, analysis.links)]
    return "\n".join(lines)


def _files(run: RunInputs, links: Mapping[str, Path]) -> list[str]:
    """One line for each kind of file of a run, and what stands in its way."""
    found = {"image": run.bold, "mask": run.mask, "events": run.events, "confounds": run.confounds}
    if run.bold.name.endswith(SURFACE_SERIES):
        del found["mask"]
    if run.other_hemisphere is not None:
        found["other hemisphere"] = run.other_hemisphere
    if run.regressors is not None:
        found["regressors"] = run.regressors
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
            has_mask = run.mask is not None or run.bold.name.endswith(SURFACE_SERIES)
            lacks = {"mask": not has_mask, "events": run.events is None, "confounds": run.confounds is None}
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
        + ("" if n == usual else f": {listed_labels(labels, _NAMES_SHOWN)}")
        for n, labels in sorted(labels_of.items(), reverse=True)
    ]
    for what, names in lacking.items():
        if what.startswith("participants"):
            lines.append(
                f"{counted(len(names), 'participant')} without some session: {listed_labels(names, _NAMES_SHOWN)}"
            )
        else:
            lines.append(f"{counted(len(names), 'run')} {what}: {listed(names, most=_NAMES_SHOWN)}")
    return [*lines, f"Files are named for up to {LISTED_PARTICIPANTS} participants: choose with --participant-label."]


def _finished(work: Mapping[str, ToDo]) -> str:
    counts = [to_do.count() for to_do in work.values()]
    done = sum(finished == asked for finished, asked in counts)
    partly = sum(0 < finished < asked for finished, asked in counts)
    return f"{done} of {counted(len(counts), 'participant')}" + (f", {partly} in part" if partly else "")


def _in_dataset(path: Path, links: Mapping[str, Path]) -> str:
    """Write a path as `dataset: path in it`."""
    found = dataset_of(path, links)
    return f"{found[0]}: {path.relative_to(found[1])}" if found else str(path)

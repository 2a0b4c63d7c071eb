"""The report of one participant, `sub-XX.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.names import entity_string, figures_folder
from sessionfx.participant.results import ParticipantResults, RunSummary
from sessionfx.report.brain import draw_coverage
from sessionfx.report.map_pictures import as_picture, draw_maps
from sessionfx.report.page import assemble_page, is_whole_page, render, section_path, write_section
from sessionfx.report.tables import threshold_words, titled
from sessionfx.space.stat_map import EstimateMap, map_summary
from sessionfx.statistics.thresholds import z_threshold
from sessionfx.wording import counted

if TYPE_CHECKING:
    from sessionfx.report.style import Picture


@dataclass(frozen=True)
class ParticipantPage:
    """`sub-XX.html`, made of the sections of all analyses of a participant."""

    output_dir: Path
    participant: str

    @property
    def _path(self) -> Path:
        return self.output_dir / f"sub-{self.participant}.html"

    @property
    def _folder(self) -> Path:
        return self.output_dir / figures_folder(self.participant)

    def is_whole(self) -> bool:
        """Whether it is there and shows the sections that are there."""
        return is_whole_page(self._path, self._folder)

    def assemble(self) -> None:
        """Write it."""
        assemble_page(
            self._path,
            self._folder,
            title=f"Participant sub-{self.participant}",
            lead=(
                "Every run was fitted by itself; runs were combined within sessions, and sessions within the "
                "participant, by fixed effects."
            ),
        )


def runs_section(output_dir: Path, participant: str, entities: Mapping[str, str | None]) -> Path:
    """Path of the section about the runs of an analysis."""
    return section_path(
        output_dir / figures_folder(participant), entity_string({"sub": participant, **entities}) + "_a-runs"
    )


def contrast_section(output_dir: Path, participant: str, entities: Mapping[str, str | None], contrast: str) -> Path:
    """Path of the section about a contrast."""
    name = entity_string({"sub": participant, **entities}) + f"_contrast-{contrast}"
    return section_path(output_dir / figures_folder(participant), name)


def draw_runs(results: ParticipantResults, output_dir: Path) -> None:
    """Draw the section about the runs."""
    place = _place(results)
    path = runs_section(output_dir, results.participant, results.entities)
    write_section(path, f"Runs: {place}", _render_runs(results, place))


def draw_contrast(results: ParticipantResults, output_dir: Path) -> None:
    """Draw the section about a contrast."""
    place, label = _place(results), results.contrast.label
    path = contrast_section(output_dir, results.participant, results.entities, label)
    write_section(path, f"Contrast {label}: {place}", _render_contrast(results, place))


def _place(results: ParticipantResults) -> str:
    return " · ".join(f"{key} {label}" for key, label in results.entities.items() if label)


def _order(session_contrasts: Sequence[SessionContrast]) -> str:
    """Say in which order the study's sessions took place."""
    order = session_contrasts[0].order_text if session_contrasts else ""
    return f" Order of the study's sessions in time: {order}." if order else ""


def _render_runs(results: ParticipantResults, place: str) -> str:
    from sessionfx.report.charts import draw_events

    runs = results.runs
    records = [
        {
            "run": run.name,
            "volumes": run.facts["NumberOfVolumes"],
            "TR (s)": run.facts["RepetitionTime"] or "each volume's own",
            "first volume (s)": run.facts["StartTime"],
            "events": len(run.events),
            "regressors": run.design.shape[1],
            "degrees of freedom": run.facts["DegreesOfFreedom"],
            "brain mask (voxels)": run.facts["BrainMaskVoxels"],
            "fitted (voxels)": run.facts["FittedVoxels"],
        }
        for run in runs
    ]
    remarks = [f"{run.name}: {note}" for run in runs for note in run.facts["Notes"]]
    remarks += [
        f"{run.name} is left out of contrast '{label}': {why}."
        for run in runs
        for label, why in run.facts["LeftOutContrasts"].items()
    ]
    events = draw_events(
        {run.name: run.events for run in runs},
        title="Events",
        run_seconds={run.name: run.seconds for run in runs},
    )
    designs = [{"name": run.name, "pictures": _draw_design(run)} for run in runs]
    n_sessions = len({run.session for run in runs if run.session})
    return render(
        "participant_runs.html.j2",
        title=f"Runs ({place})",
        summary=counted(len(runs), "run")
        + (f" in {counted(n_sessions, 'session')}." if n_sessions else ".")
        + _order(results.session_contrasts),
        runs=records,
        remarks=remarks,
        events=events,
        designs=designs,
        methods=results.methods,
    )


def _draw_design(run: RunSummary) -> list[Picture]:
    from sessionfx.report.charts import draw_design_correlation, draw_design_matrix

    conditions = tuple(run.facts["ConditionColumns"])
    return [
        draw_design_matrix(run.design, title=run.name, row_label="volume", condition_columns=conditions),
        draw_design_correlation(run.design, title=f"{run.name}: correlation of regressors"),
    ]


def _render_contrast(results: ParticipantResults, place: str) -> str:
    contrast, sessions, combined = results.contrast, results.sessions, results.combined
    title = f"Contrast {contrast.label} ({place})"
    if not sessions:
        summary = (
            f"Contrast {contrast.expression} cannot be estimated from any run of this participant; "
            "see the remarks above."
        )
        return render("participant_contrast.html.j2", title=title, summary=summary, maps=[], coverage=None, groups=[])
    titles = {f"ses-{session}" if session else "all runs": stat_map for session, stat_map in sessions.items()}
    questions = {asked.label: asked.text for asked in results.session_contrasts}
    titles |= {f"sessions: {_question(label, questions)}": stat_map for label, stat_map in combined.items()}
    alpha, correction = results.thresholds.alpha, results.thresholds.correction
    thresholds = {title: z_threshold(stat_map.estimate.z, alpha, correction) for title, stat_map in titles.items()}
    records = [{"map": title, **titled(map_summary(stat_map, thresholds[title]))} for title, stat_map in titles.items()]
    # maps of the same kind share their scale, so that sessions can be compared by eye
    groups = []
    for heading, names in (
        (
            "Sessions" if any(sessions) else "Runs combined",
            [title for title in titles if not title.startswith("sessions:")],
        ),
        ("Sessions combined", [title for title in titles if title.startswith("sessions:")]),
    ):
        if not names:
            continue
        z_max = _shared_maximum([titles[name].estimate.z for name in names])
        effect_max = _shared_maximum([titles[name].estimate.effect for name in names])
        pictures = []
        for name in names:
            pictures += _draw_maps(
                stat_map=titles[name],
                name=name,
                contrast=contrast,
                threshold=thresholds[name],
                background=results.reference,
                z_max=z_max,
                effect_max=effect_max,
            )
        groups.append({"title": heading, "pictures": pictures})
    missing = sorted({run.session for run in results.runs} - set(sessions))
    summary = f"Contrast {contrast.expression}. Thresholds: {threshold_words(results.thresholds)}, two-sided."
    if any(isinstance(stat_map.estimate.dof, np.ndarray) for stat_map in titles.values()):
        summary += " Degrees of freedom that differ between voxels are given as their median."
    if missing:
        summary += f" No estimate in session(s) {', '.join(missing)}."
    return render(
        "participant_contrast.html.j2",
        title=title,
        summary=summary,
        maps=records,
        coverage=_draw_coverage(sessions),
        groups=groups,
    )


def _question(label: str, questions: Mapping[str, str]) -> str:
    text = questions.get(label, label)
    return text if text == label else f"{text} ({label})"


def _shared_maximum(values: Sequence[NDArray[np.float64]]) -> float | None:
    peaks = [float(np.percentile(np.abs(array), 99.5)) for array in values if array.size]
    return max(peaks) if peaks and max(peaks) > 0 else None


def _draw_maps(
    stat_map: EstimateMap,
    name: str,
    contrast: Contrast,
    threshold: float,
    background: NDArray[np.floating] | None,
    z_max: float | None,
    effect_max: float | None,
) -> list[Picture]:
    if background is not None and background.shape != stat_map.grid.shape:
        background = None
    drawn = draw_maps(stat_map, f"{name}: {contrast.expression}", threshold, z_max, effect_max, background)
    return [
        as_picture(
            drawn["z"],
            f"z map, {name}, contrast {contrast.label}",
            "Supra-threshold voxels stand out; the others are shown faintly.",
        ),
        as_picture(drawn["effect"], f"Effect map, {name}, contrast {contrast.label}"),
    ]


def _draw_coverage(sessions: Mapping[str, EstimateMap]) -> Picture:
    maps = list(sessions.values())
    counts = np.sum([stat_map.mask.astype(int) for stat_map in maps], axis=0)
    unit = "sessions with data" if any(sessions) else "maps with data"
    png = draw_coverage(counts, len(maps), maps[0].grid.affine, title="Mask coverage", unit=unit)
    return as_picture(
        png,
        "How many sessions cover each voxel",
        "A combined map has values only where all of its inputs have data.",
    )

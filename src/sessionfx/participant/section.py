"""Sections of the report of one participant: a contrast, its result first, and the runs behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.contrasts import Contrast, called
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.meshes import with_meshes
from sessionfx.errors import ParticipantError
from sessionfx.participant.page import contrast_section, runs_section
from sessionfx.participant.results import ParticipantResults, RunSummary
from sessionfx.report.brain import Anatomy, canvas_for
from sessionfx.report.canvas import MAP_CAPTION, MOST_OF_EFFECTS, Canvas, Scale
from sessionfx.report.charts import draw_design_correlation, draw_design_matrix, draw_events
from sessionfx.report.page import render, write_section
from sessionfx.report.style import Picture
from sessionfx.report.tables import place_words, threshold_words, titled
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap, map_summary, position, same_z
from sessionfx.space.surface import Surface
from sessionfx.statistics.thresholds import z_threshold
from sessionfx.wording import counted, listed, session_names

# of `Space.counted`
_OF_SPACES = {
    "BrainMaskVoxels": "brain mask (voxels)", "FittedVoxels": "fitted (voxels)",
    "Vertices": "vertices", "FittedVertices": "fitted (vertices)",
    "Grayordinates": "grayordinates", "FittedGrayordinates": "fitted (grayordinates)",
    "SmoothingReachedFwhmMm": "smoothed to a FWHM of (mm)",
}  # fmt: skip


def draw_runs(results: ParticipantResults, output_dir: Path) -> None:
    """Draw the section about the runs."""
    path = runs_section(output_dir, results.participant, results.entities)
    write_section(path, f"Runs ({_place(results)})", _render_runs(results))


def draw_contrast(results: ParticipantResults, output_dir: Path) -> None:
    """Draw the section about a contrast."""
    title = _title(results.contrast)
    path = contrast_section(output_dir, results.participant, results.entities, results.contrast.label)
    write_section(path, f"{title} ({_place(results)})", _render_contrast(results), topic=title)


def _title(contrast: Contrast) -> str:
    """Call a contrast as written, an F test and what has a name of its own by that name too."""
    if contrast.is_f_test:
        return f"F test {contrast.label}: {contrast.expression}"
    return called(contrast.label, contrast.expression)


def _place(results: ParticipantResults) -> str:
    facts = results.runs[0].facts if results.runs else {}
    space = next((space for space in (Surface, Grayordinates) if space.counted[0] in facts), Grid)
    return place_words(results.entities, space)


def _order(session_contrasts: Sequence[SessionContrast]) -> str:
    """Say in which order the study's sessions took place."""
    order = session_contrasts[0].order_text if session_contrasts else ""
    return f" Order of the study's sessions in time: {order}." if order else ""


def _render_runs(results: ParticipantResults) -> str:
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
            **{title: run.facts[field] for field, title in _OF_SPACES.items() if field in run.facts},
        }
        for run in runs
    ]
    events = draw_events(
        {run.name: run.events for run in runs}, title="Events", run_seconds={run.name: run.seconds for run in runs}
    )
    designs = [{"name": run.name, "pictures": _draw_design(run)} for run in runs]
    n_sessions = len({run.session for run in runs if run.session})
    return render(
        "participant_runs.html.j2",
        summary=counted(len(runs), "run")
        + (f" in {counted(n_sessions, 'session')}." if n_sessions else ".")
        + _order(results.session_contrasts),
        runs=records,
        events=events,
        designs=designs,
        methods=results.methods,
    )


def _draw_design(run: RunSummary) -> list[Picture]:
    conditions = tuple(run.facts["ConditionColumns"])
    return [
        draw_design_matrix(run.design, title=run.name, row_label="volume", condition_columns=conditions),
        draw_design_correlation(run.design, title=f"{run.name}: correlation of regressors"),
    ]


def _warnings(results: ParticipantResults) -> list[str]:
    """Say what a reader should know of the runs behind a contrast."""
    label = results.contrast.label
    warnings = [*results.warnings, *(f"{run.name}: {note}" for run in results.runs for note in run.facts["Notes"])]
    return warnings + [
        f"{run.name} is left out: {run.facts['LeftOutContrasts'][label]}."
        for run in results.runs
        if label in run.facts["LeftOutContrasts"]
    ]


def _render_contrast(results: ParticipantResults) -> str:
    contrast, sessions, combined = results.contrast, results.sessions, results.combined
    page: dict[str, object] = {
        "warnings": _warnings(results), "is_f_test": contrast.is_f_test,
    }  # fmt: skip
    if not sessions:
        summary = "This contrast cannot be estimated from any run of this participant; see the warnings."
        return render("participant_contrast.html.j2", **page, summary=summary, maps=[], coverage=None, groups=[])
    questions = {asked.label: asked.text for asked in results.session_contrasts}
    groups = {
        "Sessions combined": _distinct({_question(label, questions): stat_map for label, stat_map in combined.items()}),
        "Sessions" if any(sessions) else "Runs combined": {
            f"ses-{session}" if session else "all runs": stat_map for session, stat_map in sessions.items()
        },
    }
    thresholds = results.thresholds
    first = next(iter(sessions.values())).space
    counts, canvas = _canvas(results)
    pictures = _MapPictures(results, counts, canvas) if canvas else None
    rows, shown = [], []
    for heading, maps in groups.items():
        if not maps:
            continue
        limits = {
            name: z_threshold(
                stat_map.estimate.z, thresholds.alpha, thresholds.correction, two_sided=stat_map.estimate.two_sided
            )
            for name, stat_map in maps.items()
        }
        rows += [{"map": name, **titled(map_summary(stat_map, limits[name]))} for name, stat_map in maps.items()]
        if pictures:
            shown.append({"title": heading, **pictures.draw(maps, limits)})
    missing = sorted({run.session for run in results.runs} - set(sessions))
    summary = f"Thresholds: {threshold_words(thresholds)}, {'upper tail of F' if contrast.is_f_test else 'two-sided'}."
    if any(isinstance(stat_map.estimate.dof, np.ndarray) for maps in groups.values() for stat_map in maps.values()):
        summary += f" Degrees of freedom that differ between {first.features} are given as their median."
    if canvas:
        summary += f" {canvas.form}{MAP_CAPTION}"
    else:
        summary += f" There is no mesh to draw {first.features} of {first} on; the table has their numbers."
    if missing:
        summary += f" No estimate in {session_names(missing)}."
    # those without weights, such as the test of any difference, are of the group level
    untold = [asked.text for asked in results.session_contrasts if asked.weights and asked.label not in combined]
    if untold:
        summary += f" Cannot be estimated from the sessions that are there: {listed(untold)}."
    coverage = pictures.coverage() if pictures else None
    return render("participant_contrast.html.j2", **page, summary=summary, maps=rows, coverage=coverage, groups=shown)


def _distinct(maps: Mapping[str, StatMap[Any]]) -> dict[str, StatMap[Any]]:
    """Show maps of the same z once, with the names of all."""
    found: list[tuple[list[str], StatMap[Any]]] = []
    for name, stat_map in maps.items():
        for names, earlier in found:
            if same_z(earlier, stat_map):
                names.append(name)
                break
        else:
            found.append(([name], stat_map))
    return {_shared_name(*names): kept for names, kept in found}


def _shared_name(first: str, *others: str) -> str:
    if not others:
        return first
    return f"{first}; {listed(others)} {'has' if len(others) == 1 else 'have'} the same z"


def _question(label: str, questions: Mapping[str, str]) -> str:
    text = questions.get(label, label)
    return text if text == label else f"{text} ({label})"


def _canvas(results: ParticipantResults) -> tuple[NDArray[np.integer], Canvas | None]:
    """Count the sessions that have each feature, and give the picture on which maps are drawn, if there is one."""
    first = next(iter(results.sessions.values()))
    counts = np.sum([stat_map.mask for stat_map in results.sessions.values()], axis=0)
    anatomy = None
    if results.background is not None and np.isfinite(results.background[0]).any():
        values, grid = results.background
        anatomy = Anatomy(values, grid.affine)
    peaks = [_peak(stat_map) for stat_map in [*results.combined.values(), *results.sessions.values()]]
    space = first.space
    with suppress(ParticipantError):  # of another surface, or unreadable: there are numbers without
        space = with_meshes(space, results.meshes)
    return counts, canvas_for(space, counts > 0, anatomy, [peak["z"] for peak in peaks if "z" in peak])


class _MapPictures:
    """Draws the maps of a participant: maps of one kind share their scale, so that sessions can be compared by eye."""

    def __init__(self, results: ParticipantResults, counts: NDArray[np.integer], canvas: Canvas) -> None:
        self._sessions = results.sessions
        self._units = results.units
        self._counts, self._canvas = counts, canvas
        space = next(iter(results.sessions.values())).space
        self._feature, self._features = space.feature, space.features

    def draw(self, maps: Mapping[str, StatMap[Any]], thresholds: Mapping[str, float]) -> dict[str, list[Picture]]:
        """Draw z, and effect or F, of maps that are compared."""
        two_sided = all(stat_map.estimate.two_sided for stat_map in maps.values())
        of_z = Scale.of(
            [stat_map.estimate.z if two_sided else stat_map.estimate.z.clip(min=0) for stat_map in maps.values()],
            "z", [*thresholds.values()], two_sided=two_sided,
        )  # fmt: skip
        statistic, unit = ("effect", self._units) if two_sided else ("F", "F")
        values = {name: getattr(stat_map.estimate, statistic.lower()) for name, stat_map in maps.items()}
        scale = Scale.of([*values.values()], unit, two_sided=two_sided, share=MOST_OF_EFFECTS)
        return {
            "z": [
                self._canvas.draw_map(
                    stat_map.volume(stat_map.estimate.z), of_z.with_threshold(thresholds[name], stat_map.estimate.z),
                    f"z map, {name}",
                    f"{name}: z" + ("" if np.isfinite(thresholds[name]) else "; nothing passes the threshold"),
                )
                for name, stat_map in maps.items()
            ],
            "estimates": [
                self._canvas.draw_map(
                    stat_map.volume(values[name]), scale, f"{statistic.capitalize()} map, {name}",
                    f"{name}: {statistic}",
                )
                for name, stat_map in maps.items()
            ],
        }  # fmt: skip

    def coverage(self) -> Picture:
        """Draw how many sessions have each voxel."""
        unit = "sessions" if any(self._sessions) else "maps"
        return self._canvas.draw_map(
            self._counts, Scale(vmax=len(self._sessions), unit=unit, two_sided=False),
            f"How many {unit} cover the {self._features}",
            f"How many {unit} have each {self._feature}. A combined map has values only where all of its inputs do.",
        )  # fmt: skip


def _peak(stat_map: StatMap[Any]) -> dict[str, Any]:
    """Say where the largest z is."""
    z = stat_map.estimate.z
    return position(stat_map.mask, stat_map.space, int(np.argmax(np.abs(z) if stat_map.estimate.two_sided else z)))

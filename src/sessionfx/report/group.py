"""The report of the group level, `group.html`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.inputs.images import Grid
from sessionfx.maps import EstimateMap
from sessionfx.naming import entity_string
from sessionfx.report.brain import draw_coverage
from sessionfx.report.maps import draw_maps
from sessionfx.report.methods import MethodsText
from sessionfx.report.page import SECTION_SUFFIX, Picture, assemble_page, render, section_mark, write_section
from sessionfx.report.plots import draw_comparison, draw_design_matrix, draw_distribution
from sessionfx.report.tables import counted, map_summary, titled
from sessionfx.session_contrasts import SessionContrast
from sessionfx.settings import Settings
from sessionfx.statistics.agreement import Agreement
from sessionfx.strategies.base import MapLayout, Plan, list_names

SHOWN_CLUSTERS = 20

_MAP_CAPTION = "Glass brain (largest value along each axis) and slices; what is below the threshold is shown faintly."


@dataclass(frozen=True)
class StrategyResult:
    """The answer of one strategy to one session contrast, or why it declines.

    Attributes
    ----------
    name, label, title : str
        On the command line, in file names, for people.
    refusal : str or None
        Why there is no answer.
    plan : Plan or None
    located : EstimateMap or None
    threshold : float
        On |z|; infinite where no voxel passes, NaN without an answer.
    clusters : DataFrame
    """

    name: str
    label: str
    title: str
    refusal: str | None
    plan: Plan | None = None
    located: EstimateMap | None = None
    threshold: float = float("nan")
    clusters: pd.DataFrame = field(default_factory=pd.DataFrame)

    def summary(self) -> dict[str, Any]:
        """One row of the table of answers."""
        if self.plan is None or self.located is None:
            return {"strategy": self.name, "status": "declined", "reason": self.refusal}
        participants = {name.split("_")[0] for name in self.plan.design_matrix.index}
        return {
            "strategy": self.name,
            "status": "estimated",
            "n_participants": len(participants),
            "n_maps": len(self.plan.rows),
            **map_summary(self.located, self.threshold),
            "reason": "",
        }


@dataclass(frozen=True)
class PairResult:
    """How two strategies agree on one session contrast; `z` holds their values at common voxels."""

    a: StrategyResult
    b: StrategyResult
    agreement: Agreement | None
    reason: str
    z: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class QuestionResults:
    """All answers to one session contrast, their comparison, and which to trust."""

    session_contrast: SessionContrast
    strategies: tuple[StrategyResult, ...]
    pairs: tuple[PairResult, ...]
    verdict: str


@dataclass(frozen=True)
class ContrastResults:
    """All that the group section of one first-level contrast shows."""

    contrast: str
    entities: dict[str, str | None]
    layout: MapLayout
    mask: NDArray[np.bool_]
    grid: Grid
    coverage: NDArray[np.int_]
    questions: tuple[QuestionResults, ...]
    notes: tuple[str, ...]
    settings: Settings
    methods: MethodsText


def has_group_section(output_dir: Path, entities: Mapping[str, str | None], contrast: str, mark: str) -> bool:
    """Whether the page and the section of a contrast are there and show this work."""
    is_there = (output_dir / "group.html").is_file()
    return is_there and section_mark(_figures(output_dir), _section_name(entities, contrast)) == mark


def write_group_report(results: ContrastResults, mark: str, output_dir: Path) -> Path:
    """Draw the section of a contrast and put the group page together.

    Parameters
    ----------
    results : ContrastResults
    mark : str
        Digest of what the section shows.
    output_dir : Path

    Returns
    -------
    Path
        The page.
    """
    place = " · ".join(f"{key} {label}" for key, label in results.entities.items() if label)
    html = render(
        "group_contrast.html.j2",
        title=f"Contrast {results.contrast}" + (f" ({place})" if place else ""),
        summary=_summary(results),
        notes=results.notes,
        sessions_table=_attendance(results.layout),
        coverage=_draw_coverage(results),
        overview=_overview(results),
        questions=[_question(results, question) for question in results.questions],
        methods=results.methods,
        verdicts=_verdicts(results),
    )
    name = _section_name(results.entities, results.contrast)
    title = f"Contrast {results.contrast}" + (f": {place}" if place else "")
    write_section(_figures(output_dir), name, title, html, mark)
    return assemble_group_page(output_dir)


def write_group_refusal(output_dir: Path, entities: Mapping[str, str | None], sentence: str) -> Path:
    """Say in the report why there is no group analysis."""
    html = render("group_refusal.html.j2", title="No group analysis", sentence=sentence)
    write_section(_figures(output_dir), (entity_string(entities) or "all") + "_a-refusal", "No group analysis", html)
    return assemble_group_page(output_dir)


def remove_group_refusal(output_dir: Path, entities: Mapping[str, str | None]) -> None:
    """Take back what `write_group_refusal` said, once there is an analysis."""
    name = (entity_string(entities) or "all") + f"_a-refusal{SECTION_SUFFIX}"
    (_figures(output_dir) / name).unlink(missing_ok=True)


def assemble_group_page(output_dir: Path) -> Path:
    """Put `group.html` together from its sections."""
    page = output_dir / "group.html"
    assemble_page(
        page,
        _figures(output_dir),
        title="Group: strategies compared",
        lead=(
            "Every strategy answers the same session contrast on the same voxels; where they differ, the verdict "
            "says which to trust."
        ),
    )
    return page


def _figures(output_dir: Path) -> Path:
    return output_dir / "group" / "figures"


def _section_name(entities: Mapping[str, str | None], contrast: str) -> str:
    return entity_string({**entities, "contrast": contrast})


def _summary(results: ContrastResults) -> str:
    layout = results.layout
    participants = layout.unique_participants
    sessions = len(set(layout.sessions))
    text = f"{counted(len(layout.participants), 'map')} of {counted(len(participants), 'participant')}"
    if any(layout.sessions):
        text += f" and {counted(sessions, 'session')}"
        incomplete = [f"sub-{label}" for label in participants if len(layout.rows_of(label)) < sessions]
        if incomplete:
            text += f"; {list_names(incomplete)} missed sessions"
    return f"{text}. All strategies are compared on the {int(results.mask.sum())} voxels that every map has."


def _verdicts(results: ContrastResults) -> list[dict[str, str]]:
    """Verdicts with the session contrasts they are for; equal ones stand once."""
    texts: dict[str, list[str]] = {}
    for question in results.questions:
        texts.setdefault(question.verdict, []).append(question.session_contrast.text)
    return [{"questions": ", ".join(questions), "text": text} for text, questions in texts.items()]


def _attendance(layout: MapLayout) -> list[dict[str, str]]:
    if not any(layout.sessions):
        return []
    sessions = sorted(set(layout.sessions), key=lambda session: layout.sessions.index(session))
    rows = []
    for label in layout.unique_participants:
        there = layout.rows_of(label)
        marks = {f"ses-{session}": "✓" if session in there else "missing" for session in sessions}
        rows.append({"participant": f"sub-{label}", **marks})
    return rows


def _draw_coverage(results: ContrastResults) -> Picture:
    n_maps = len(results.layout.participants)
    png = draw_coverage(results.coverage, n_maps, results.grid.affine, title="Mask coverage", unit="maps with data")
    return Picture(png, "How many maps cover each voxel", "Strategies are compared where every map has data.")


def _overview(results: ContrastResults) -> list[dict[str, Any]]:
    rows = []
    for question in results.questions:
        for one in question.strategies:
            row: dict[str, Any] = {"session contrast": question.session_contrast.text, "strategy": one.title}
            if one.plan is None or one.located is None:
                row |= {
                    "degrees of freedom": None,
                    "voxels beyond threshold": None,
                    "largest z": None,
                    "smallest z": None,
                }
            else:
                z = one.located.estimate.z
                row |= {
                    "degrees of freedom": one.located.estimate.dof,
                    "voxels beyond threshold": int((np.abs(z) >= one.threshold).sum()),
                    "largest z": float(z.max()),
                    "smallest z": float(z.min()),
                }
            rows.append({**row, "remark": one.refusal or (one.plan.caution if one.plan else "")})
    return rows


def _question(results: ContrastResults, question: QuestionResults) -> dict[str, Any]:
    answered = [one for one in question.strategies if one.located is not None]
    maximum = max((_robust_maximum(one.located.estimate.z) for one in answered if one.located), default=None)
    effect_maximum = max(
        (_robust_maximum(one.located.estimate.effect) for one in answered if one.located), default=None
    )
    return {
        "label": question.session_contrast.label,
        "text": question.session_contrast.text,
        "verdict": question.verdict,
        "strategies": [_strategy(results, question, one, maximum, effect_maximum) for one in question.strategies],
        "answers": [
            {key: value for key, value in titled(one.summary()).items() if key not in ("status", "reason")}
            for one in answered
        ],
        "pairs": [_pair(pair, question) for pair in question.pairs],
        "distribution": _draw_distribution(question, answered),
    }


def _strategy(
    results: ContrastResults,
    question: QuestionResults,
    one: StrategyResult,
    maximum: float | None,
    effect_maximum: float | None,
) -> dict[str, Any]:
    if one.plan is None or one.located is None:
        return {
            "title": one.title,
            "refusal": one.refusal,
            "plan": None,
            "pictures": [],
            "clusters": [],
            "n_clusters": 0,
            "left_out": [],
        }
    located = one.located
    heading = f"{one.title}, {question.session_contrast.text}"
    z, effect = draw_maps(located, heading, one.threshold, maximum, effect_maximum)
    design = draw_design_matrix(one.plan.design_matrix, title=f"{heading}: design", row_label="observation")
    clusters = one.clusters.head(SHOWN_CLUSTERS).to_dict("records")
    return {
        "title": one.title,
        "refusal": None,
        "plan": one.plan,
        "contrast": _contrast_text(one.plan),
        "left_out": [f"sub-{label} {why}." for label, why in one.plan.left_out.items()],
        "pictures": [
            Picture(z, f"z map, {heading}", _MAP_CAPTION),
            Picture(effect, f"Effect map, {heading}"),
        ],
        "design": Picture(design, f"Group design matrix, {heading}", "One row per observation of the group model."),
        "clusters": [{str(key): value for key, value in row.items()} for row in clusters],
        "n_clusters": len(one.clusters),
    }


def _contrast_text(plan: Plan) -> str:
    weights = zip(map(str, plan.design_matrix.columns), plan.contrast, strict=True)
    return ", ".join(f"{column}: {weight:.3g}".replace("-0.", "−0.") for column, weight in weights if weight != 0)


def _pair(pair: PairResult, question: QuestionResults) -> dict[str, Any]:
    title = f"{pair.a.title} against {pair.b.title}"
    if pair.agreement is None or pair.z is None:
        return {"title": title, "reason": pair.reason, "rows": [], "picture": None}
    names = {
        "pearson_r": "Pearson r",
        "concordance": "concordance (Lin)",
        "bias": "bias (z)",
        "loa_lower": "lower limit (z)",
        "loa_upper": "upper limit (z)",
        "max_abs_difference": "largest |difference| (z)",
        "dice": "Dice",
        "n_voxels": "voxels",
        "n_above_a": f"beyond threshold: {pair.a.title}",
        "n_above_b": f"beyond threshold: {pair.b.title}",
    }
    values = asdict(pair.agreement)
    png = draw_comparison(
        *pair.z,
        label_a=pair.a.title,
        label_b=pair.b.title,
        unit="z",
        agreement=values,
        thresholds=(_finite(pair.a.threshold), _finite(pair.b.threshold)),
    )
    caption = (
        "Left: z of the two strategies at each voxel. Right: their difference against their mean, with bias "
        "and limits of agreement."
    )
    picture = Picture(png, f"{title}, {question.session_contrast.text}", caption)
    return {
        "title": title,
        "reason": "",
        "rows": [{names[key]: value for key, value in values.items()}],
        "picture": picture,
    }


def _draw_distribution(question: QuestionResults, answered: list[StrategyResult]) -> Picture | None:
    values = {one.title: one.located.estimate.z for one in answered if one.located is not None}
    if not values:
        return None
    png = draw_distribution(values, title=f"Distribution of z, {question.session_contrast.text}")
    return Picture(
        png,
        "Histogram of z per strategy beside the standard normal curve",
        "Without any effect z follows the curve.",
    )


def _robust_maximum(values: NDArray[np.float64]) -> float:
    return float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

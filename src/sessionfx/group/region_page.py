"""What the page shows of the regions of an atlas, for one question: which answer to report, sessions, a table."""

from __future__ import annotations

from typing import Any

from sessionfx.group.files import GroupFiles
from sessionfx.group.peaks import effect_names
from sessionfx.group.pictures import session_panel
from sessionfx.group.region_files import RegionFiles, interval_text, largest_first, region_finding
from sessionfx.group.regions import ContrastRegions
from sessionfx.group.results import QuestionResults
from sessionfx.group.strategies.base import Question
from sessionfx.report.charts import draw_sessions
from sessionfx.report.style import Picture
from sessionfx.report.tables import threshold_words
from sessionfx.wording import p_text

MOST_PANELS = 4
MOST_ROWS = 30
_CHOSEN = "These regions are those with the largest z, so that their effects are smaller in truth."


def region_section(regions: ContrastRegions, question: Question, files: GroupFiles) -> dict[str, Any]:
    """Give what the template shows of a question's answers in the regions of an atlas."""
    results = regions.answers[question.label]
    of_atlas = RegionFiles(files, regions.atlas.label)
    links = {"answers in regions": of_atlas.answers(results.question), "values of each map": of_atlas.values}
    rows = region_rows(regions, results)
    return {
        "atlas": regions.atlas.label,
        "finding": region_finding(regions, results),
        "threshold": threshold_words(files.model),
        "verdict": results.verdict.text,
        "placed": regions.atlas.text_on(regions.stack.space),
        "left_out": [f"{name}: {why}." for name, why in regions.left_out_of(results).items()],
        "picture": _sessions(regions, results),
        "rows": rows[:MOST_ROWS],
        "n_rows": len(rows),
        "links": files.links_to(links),
    }


def region_rows(regions: ContrastRegions, results: QuestionResults) -> list[dict[str, Any]]:
    """List the regions for people, the largest z first."""
    rows, title = [], f"effect in {results.question.units} (95 % interval)"
    for found in largest_first(regions, results):
        rows.append({
            "region": found["region"],
            **({title: interval_text(found)} if "effect" in found else {"F": found["f"]}),
            "z": found["z"],
            "degrees of freedom": found["dof"],
            "p": p_text(found["p"]),
            "corrected p": p_text(found["p_corrected"]),
            "suprathreshold": "✓" if found["suprathreshold"] else "",
        })  # fmt: skip
    return rows


def _sessions(regions: ContrastRegions, results: QuestionResults) -> Picture | None:
    """Draw the sessions in some regions: a line per participant, and the estimates of the answer to report."""
    names = effect_names(regions.stack.layout, results.question)
    peaks = regions.peaks(results, MOST_PANELS)
    if not peaks or len(names) < 2:
        return None
    title = "In regions" if peaks[0].is_suprathreshold else "In the region with the largest z (not suprathreshold)"
    panels = [session_panel(peak, f"{peak.place['region']}: ", results.question) for peak in peaks]
    return draw_sessions(
        panels, names, unit=results.question.effect_units, title=title, chosen=_CHOSEN,
        unit_of_estimate=results.question.units,
    )  # fmt: skip

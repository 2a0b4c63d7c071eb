"""A section of the group report, `group.html`, about one first-level contrast: the answer to report first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from sessionfx.ask.contrasts import called
from sessionfx.group.answer_files import PEAK_INTERVALS, AnswerFiles
from sessionfx.group.calibrated import LIMITS
from sessionfx.group.clusters import INTERVAL_COLUMNS, SIZES, numbers_jump, places_of, sizes_of
from sessionfx.group.coverage import coverage_text
from sessionfx.group.evidence_tables import evidence_tables
from sessionfx.group.files import absence_summary, answer_summary
from sessionfx.group.findings import ContrastFindings
from sessionfx.group.influence import Influence, most_influential_text
from sessionfx.group.likeness import Likeness
from sessionfx.group.page import contrast_section
from sessionfx.group.peaks import effect_names
from sessionfx.group.pictures import ContrastPictures, QuestionPictures
from sessionfx.group.region_page import region_section
from sessionfx.group.results import Answer, PairResult, Peak, QuestionResults, Reliability, StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies import REFERENCE, STRATEGIES
from sessionfx.group.strategies.base import MapLayout, Plan
from sessionfx.group.strategies.strategy import assumptions_table
from sessionfx.options import GroupModel
from sessionfx.report.brain import Anatomy, template
from sessionfx.report.charts import draw_calibration, draw_participants
from sessionfx.report.cortex import cortex_of
from sessionfx.report.page import Contents, render, write_section
from sessionfx.report.style import Picture
from sessionfx.report.tables import place_words, threshold_words, titled
from sessionfx.report.viewer import ViewerMap, surface_viewer_data, viewer_data
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.space import Space
from sessionfx.space.stat_map import same_z
from sessionfx.space.surface import Surface
from sessionfx.statistics.likeness import FEWEST
from sessionfx.wording import (
    counted,
    format_number,
    interval_text,
    joined,
    listed,
    unbroken,
    weights_text,
    where_text,
    z_text,
)

SHOWN_CLUSTERS = 12
_SHOWN_PARTICIPANTS = 20
# Of the answer without each; of more the picture would be metres high
_DRAWN_PARTICIPANTS = 200
_INFLUENCE_TITLES = {
    "participant": "without",
    "n_lost": "voxels lost",
    "n_gained": "voxels gained",
    "peak_z": "z at the peak",
    "largest_change_of_z": "largest change of z",
    "mean_weight": "mean weight (%)",
}
_LIKENESS_STRIPS = {"correlation": "r with the others", "mean": "mean effect", "spread": "relative spread"}
_INFLUENCE_STRIPS = {
    "change_of_peak_z": "Δz at the peak",
    "n_lost": "voxels lost",
    "n_gained": "voxels gained",
}

_VALIDITY = {"yes": "valid", "conditional": "with care", "no": "not valid", "declined": "—"}
_KINDS = {"z": "z", "effect": "effect", "difference": "difference: first shown − this"}
PERMUTATION_TITLES = {
    "voxelFWE": "voxels (largest |t| or F)",
    "clusterSizeFWE": "cluster size",
    "clusterMassFWE": "cluster mass",
    "tfceFWE": "TFCE",
}
_SCHEMES = {
    "sign-flipping": "signs of participants' values flipped",
    "label-permutation": "participants' covariates exchanged",
    "wild-bootstrap": "signs of participants' residuals flipped: wild bootstrap",
}
_AGREEMENT_TITLES = {
    "pearson_r": "Pearson r",
    "concordance": "concordance (Lin)",
    "bias": "bias (z)",
    "loa_lower": "lower limit (z)",
    "loa_upper": "upper limit (z)",
    "max_abs_difference": "largest |difference| (z)",
    "dice": "Dice",
    "n_above_a": "suprathreshold: first",
    "n_above_b": "second",
    "n_voxels": "voxels",
}
_ABSENCE_TITLES = {"strategy": "strategy", "valid": "to be trusted", "n_voxels": "voxels"}
_EQUIVALENCE_TITLES = {
    "n_equivalent": "equivalent to zero within ±{:g}",
    "n_equivalent_and_above": "of these suprathreshold",
    "interval_half_width": "half of the interval (median)",
}
_BAYES_FACTOR_TITLES = {"n_bf10_below_third": "BF₁₀ below 1/3", "n_bf10_above_3": "BF₁₀ above 3"}
_RESAMPLED = (
    "{voxels} simulated voxels. Each takes what is left of every participant's maps, once the means of sessions and "
    "groups are taken out, from a voxel drawn at random for that participant. So participants vary as much, their "
    "sessions go together as closely, and values are as skewed as in these data; sessions, covariates and times are "
    "the study's. What it cannot see: rates are means over the brain, and single places can be worse. It knows these "
    "{participants} participants only: it takes how much each of them varies as it is over all voxels, and with few "
    "participants it sees only part of the skewness."
)


def draw_contrast(found: ContrastFindings) -> None:
    """Draw the section about a contrast."""
    entities, space = found.analysis.selection.entities, found.stack.space
    place = place_words(entities, space)
    pictures = ContrastPictures(found)
    questions, viewer_maps = [], []
    for asked, same in _distinct(found.questions):
        drawn = QuestionPictures(asked, pictures)
        questions.append(_question(found, asked, same, drawn))
        viewer_maps += drawn.for_viewer()
    html = render(
        "group_contrast.html.j2",
        facts=f"{_people(found.stack.layout)} · {threshold_words(found.analysis.model)}, {_sides(found)}.",
        summary=_summary(found),
        warnings=_page_warnings(found),
        covariates=found.study.covariates.warnings,
        questions=questions,
        viewer=_viewer(found.stack, pictures, viewer_maps),
        trust=_trust(found.questions),
        assumptions=assumptions_table({strategy.title: strategy for strategy in found.analysis.strategies}),
        evidence=evidence_tables(found.questions, found.evidence),
        overview=_overview(found.questions),
        sessions_table=_attendance(found.stack.layout, found.analysis.output_dir),
        participants=_participants_picture(found.likeness),
        remarks=found.likeness.remarks,
        coverage=pictures.coverage(),
        reliability=_reliability(found.reliability, found.units, space, pictures),
        calibration=_calibration(found),
        methods=found.analysis.methods(found.work),
    )
    contents = [
        Contents(f"SECTION-ID-{question['label']}", question["title"], [
            Contents(strategy["id"], strategy["title"]) for strategy in question["strategies"]
        ])
        for question in questions
    ]  # fmt: skip
    # labels have no hyphens
    contents += [Contents("SECTION-ID-all-session-contrasts", "All session contrasts"),
                 Contents("SECTION-ID-all-methods", "Methods")]  # fmt: skip
    text = called(found.study.contrast, found.files.contrast_text)
    path = contrast_section(found.analysis.output_dir, entities, found.study.contrast)
    write_section(path, text + (f" ({place})" if place else ""), space.in_words(html), contents, topic=text)


def _viewer(stack: MapStack, pictures: ContrastPictures, maps: Sequence[ViewerMap]) -> str:
    if not maps:
        return ""
    space = stack.space
    if isinstance(space, Surface | Grayordinates):
        cortex = cortex_of(space)
        assert cortex is not None  # noqa: S101 - maps were drawn on it
        if not isinstance(space, Grayordinates):
            return surface_viewer_data(maps, cortex)
        below = _viewer_below(space, maps)
        on_it = [replace(shown, values=np.where(space.is_on_surface, shown.values, np.nan)) for shown in maps]
        return surface_viewer_data(on_it, cortex, has_more=bool(below)) + below
    grid = space.as_grid()
    under = pictures.anatomy or Anatomy(stack.mask.astype(np.float32), grid.affine)
    return viewer_data(maps, under.values, under.affine, grid)


def _viewer_below(space: Grayordinates, maps: Sequence[ViewerMap]) -> Markup:
    """Show the voxels of grayordinates on the template; nothing where there are none."""
    features, grid = space.at_voxels()
    voxels = [replace(shown, values=np.where(features >= 0, np.take(shown.values, features), np.nan)) for shown in maps]
    if not any(np.isfinite(shown.values).any() for shown in voxels):
        return Markup("")
    return viewer_data(voxels, template().values, template().affine, grid, below_cortex=True)


# What holds for the contrast


def _sides(found: ContrastFindings) -> str:
    """Say where thresholds lie: an F test has one side only."""
    return "upper tail of F" if found.questions[0].question.tested else "two-sided"


def _people(layout: MapLayout) -> str:
    people = layout.unique_participants
    text = counted(len(people), "participant")
    if any(layout.sessions):
        text += f" × {counted(layout.n_sessions, 'session')}"
        missing = len(people) * layout.n_sessions - len(layout.participants)
        incomplete = [f"sub-{label}" for label in people if len(layout.rows_of(label)) < layout.n_sessions]
        if missing:
            text += f", {counted(missing, 'map')} missing ({listed(incomplete, most=8)})"
    return text


def _summary(found: ContrastFindings) -> str:
    stack, order = found.stack, found.study.questions[0].sessions.order_text
    text = coverage_text(stack.n_voxels, stack.complete.n_voxels, stack.min_coverage, stack.space.features)
    return text + (f" Order of the sessions in time: {order}." if order else "")


def _page_warnings(found: ContrastFindings) -> list[str]:
    left_out = [f"Left out: sub-{label} {why}." for label, why in found.study.left_out.items()]
    return [*found.study.analysis.selection.warnings, *found.warnings, *left_out]


def _trust(questions: Sequence[QuestionResults]) -> list[dict[str, str]]:
    """One row per question: what each strategy is worth, the first choice marked with a star if it is valid."""
    rows = []
    for asked in questions:
        row = {"session contrast": asked.question.text}
        for strategy in asked.strategies:
            mark = _VALIDITY[asked.verdict.strategies[strategy.name].valid]
            star = "☆" if asked.verdict.with_care else "★"
            row[strategy.title] = f"{star} {mark}" if strategy.name in asked.verdict.recommended[:1] else mark
        rows.append(row)
    return rows


def _overview(questions: Sequence[QuestionResults]) -> dict[str, Any]:
    """One row per answer, and the warnings about them, each once: they hold for many answers."""
    rows = []
    numbers: dict[str, int] = {}
    for question in questions:
        for answer in question.strategies:
            warning = answer.refusal or (" ".join(answer.plan.warnings) if answer.plan else "")
            trust = "declined" if answer.refusal else _VALIDITY[question.verdict.strategies[answer.name].valid]
            rows.append({
                "session contrast": question.question.text,
                "strategy": answer.title,
                **_extremes(answer),
                "to be trusted": trust,
                "warning": f"({numbers.setdefault(warning, len(numbers) + 1)})" if warning else "",
            })  # fmt: skip
    return {"rows": rows, "warnings": list(numbers)}


def _extremes(answer: StrategyResult) -> dict[str, Any]:
    titles = {"dof": "degrees of freedom", "n_above": "suprathreshold voxels",
              "largest_z": "largest z", "smallest_z": "smallest z"}  # fmt: skip
    summary = answer.summary if isinstance(answer, Answer) else {}
    return {title: summary.get(name) for name, title in titles.items()}


def _attendance(layout: MapLayout, output_dir: Path) -> dict[str, Any]:
    """Tell who has which session, with the pages of participants that are there."""
    sessions = list(dict.fromkeys(layout.sessions)) if any(layout.sessions) else []
    rows = []
    for label in layout.unique_participants:
        page = f"sub-{label}.html"
        rows.append({
            "participant": f"sub-{label}",
            "page": page if (output_dir / page).exists() else "",
            "sessions": ["✓" if session in layout.rows_of(label) else "missing" for session in sessions],
        })  # fmt: skip
    return {"sessions": [f"ses-{session}" for session in sessions], "rows": rows}


def _reliability(
    found: Reliability | None, units: str, space: Space, pictures: ContrastPictures
) -> dict[str, Any] | None:
    if found is None:
        return None
    parts = {
        "icc31": "ICC(3,1)", "icc1": "ICC(1)",
        "between": f"variance between participants, ({units})²", "within": "within",
    }  # fmt: skip
    rows = []
    for record in found.summary.to_dict("records"):
        peak = {key: record[key] for key in space.place_keys if pd.notna(record.get(key))}
        at_peak = f", peak at {where_text(peak)}" if peak else ""
        row = {"region": record["region"] + at_peak, space.features: record[f"n_{space.features}"]}
        for name, title in parts.items():
            quartiles = [format_number(record[f"{name}_{part}"]) for part in ("median", "q25", "q75")]
            row[f"{title}: median (quartiles)"] = f"{quartiles[0]} ({quartiles[1]} to {quartiles[2]})"
        rows.append(row)
    return {
        "pictures": pictures.reliability(),
        "rows": rows,
        "mean": f"The mean over sessions is by {REFERENCE.title}." if len(rows) > 1 else "",
    }


def _calibration(found: ContrastFindings) -> dict[str, Any] | None:
    if found.calibration is None:
        return None
    n_participants = len(found.stack.layout.unique_participants)
    about = _RESAMPLED.format(voxels=found.analysis.model.calibrate, participants=n_participants)
    picture = draw_calibration(found.calibration, LIMITS, caption=about)
    rows = []
    for record in found.calibration.to_dict("records"):
        row = {"session contrast": record["question"], "strategy": STRATEGIES[record["strategy"]].title}
        row |= {"true effect": record["effect"], "degrees of freedom": record["dof"]}
        for alpha in LIMITS:
            rate, low, high = (format_number(record[f"rate_{alpha:g}{part}"]) for part in ("", "_lower", "_upper"))
            row[f"false positives at p < {alpha:g} (95 % interval)"] = f"{rate} ({low} to {high})"
            row[f"power at p < {alpha:g}"] = record[f"power_{alpha:g}"]
        rows.append(row | {"declined": record["reason"] or ""})
    return {"picture": picture, "rows": rows}


# One question


def _distinct(questions: Sequence[QuestionResults]) -> list[tuple[QuestionResults, list[str]]]:
    """Find questions with answers of their own, and the texts of later ones that share them."""
    found: list[tuple[QuestionResults, list[str]]] = []
    for asked in questions:
        same = next((texts for earlier, texts in found if _are_the_same(earlier, asked)), None)
        if same is None:
            found.append((asked, []))
        else:
            same.append(asked.question.text)
    return found


def _are_the_same(a: QuestionResults, b: QuestionResults) -> bool:
    """Whether two questions are one: all strategies give the same z, as of the linear trend of three sessions."""
    return (
        bool(a.answers)
        and [answer.name for answer in a.answers] == [answer.name for answer in b.answers]
        and all(same_z(first.stat_map, second.stat_map) for first, second in zip(a.answers, b.answers, strict=True))
    )


def _question(
    found: ContrastFindings, asked: QuestionResults, same: Sequence[str], pictures: QuestionPictures
) -> dict[str, Any]:
    first, model, title, label = asked.shown_first, found.analysis.model, asked.question.text, asked.question.label
    valid = {name: _VALIDITY[judgement.valid] for name, judgement in asked.verdict.strategies.items()}
    differences = sorted(pictures.differences(), key=lambda other: -(other.only_first + other.only_other))
    return {
        "label": label,
        "title": title + (f" (the same as {listed(same)})" if same else ""),
        "headline": _headline(asked, first, model),
        "links": found.files.links_to(
            AnswerFiles(found.files, asked.question, first.label).named(first.stat_map.estimate.maps()) if first else {}
        ),
        "verdict": asked.verdict.text,
        "maps": [
            {"strategy": STRATEGIES[shown.strategy].title, "kind": _KINDS[shown.kind], "picture": shown.picture,
             "valid": valid[shown.strategy]}
            for shown in pictures.maps()
        ],
        "first": first.title if first else "",
        "clusters": _clusters(first, asked),
        "no_clusters": _no_clusters(first, model) if first else "",
        "n_clusters": len(first.clusters) if first else 0,
        "numbers_jump": first is not None and numbers_jump(first.clusters),
        "size_unit": _size_unit(first) if first else "",
        "sessions": pictures.sessions(),
        "regions": [region_section(regions, asked.question, found.files) for regions in found.regions.values()],
        "intervals": _session_rows(pictures.peaks, effect_names(found.stack.layout, asked.question)),
        "units": asked.question.units,
        "units_in_a_session": asked.question.units_in_a_session,
        "peak_intervals": PEAK_INTERVALS,
        "differences": [
            {"title": shown.other.title, "valid": valid[shown.other.name],
             "both": shown.both, "only_first": shown.only_first, "only_other": shown.only_other,
             "picture": shown.picture}
            for shown in differences
        ],
        "answers": [
            _without(titled(_in_words(answer_summary(answer, asked.verdict), answer)
                            | {"strategy": answer.strategy.full_title}), ("status", "reason"))
            for answer in asked.answers
        ],
        "influence": _influence(found.influence(asked.question), first),
        "absence": _absence(asked, model, pictures),
        "agreement": [_pair_row(pair) for pair in asked.pairs],
        "pairs": pictures.agreement(),
        "distribution": pictures.distribution(),
        "strategies": [_strategy(answer, label, pictures) for answer in asked.strategies],
    }  # fmt: skip


def _participants_picture(likeness: Likeness) -> Picture | None:
    """Show how participants' maps compare, and who stands out by the rules of `statistics.likeness`."""
    table, marked = likeness.participants, likeness.standing_out
    if not len(table):
        return None
    if marked:
        caption = "Open diamonds stand out, as is said below: look at their pages before the group is trusted."
    elif len(table) < FEWEST:
        caption = f"Among fewer than {FEWEST} participants nobody is said to stand out."
    else:
        caption = "Nobody stands out."
    title = "Participants' mean maps beside each other"
    return draw_participants(table, _LIKENESS_STRIPS, marked=marked, title=title, caption=caption)


def _influence(influence: Influence, first: Answer | None) -> dict[str, Any] | None:
    """Show what the answer to report would be without each participant, who matters most first."""
    if first is None or not (len(influence.table) or influence.note):
        return None
    if not len(influence.table):
        return {"sentence": "", "note": influence.note, "rows": [], "picture": None}
    table, most = influence.ranked, influence.most_influential
    note = influence.note
    if len(table) > _SHOWN_PARTICIPANTS:
        note += (
            f" Below are the {_SHOWN_PARTICIPANTS} of {len(table):,} who matter most; the file of influence has all."
        )
    return {
        "sentence": most_influential_text(influence) or "Without any one of them there is no answer.",
        "note": note,
        "rows": [
            {title: row[name] for name, title in _INFLUENCE_TITLES.items() if name in row}
            | {"without": f"sub-{row['participant']}"}
            for row in table.head(_SHOWN_PARTICIPANTS).to_dict("records")
        ],
        "picture": most
        and draw_participants(
            table.head(_DRAWN_PARTICIPANTS).sort_index(),
            _INFLUENCE_STRIPS,
            marked=[most["participant"]],
            title="The answer without each participant"
            + (f", the {_DRAWN_PARTICIPANTS} who matter most" if len(table) > _DRAWN_PARTICIPANTS else ""),
            caption="Diamond: without whom the answer changes most.",
        ),
    }


def _headline(asked: QuestionResults, first: Answer | None, model: GroupModel) -> dict[str, str]:
    """Say what to report, with figures, and what not to."""
    if first is None:
        return {
            "kind": "no",
            "report": "No strategy of this call can answer this question.",
            "figures": "",
            "against": "",
        }
    verdict = asked.verdict
    kind = "no" if not verdict.recommended else "care" if verdict.with_care else "good"
    report = {"no": f"Nothing can be reported; shown is {first.title}, which is not valid here.",
              "care": f"Report the {first.title} result, with care.",
              "good": f"Report the {first.title} result."}[kind]  # fmt: skip
    invalid = [
        f"{answer.title} ({answer.summary['n_above']:,} voxels)"
        for answer in asked.answers
        if verdict.strategies[answer.name].valid == "no"
    ]
    against = f"Do not report {joined(invalid)}: not valid here." if invalid and verdict.recommended else ""
    return {"kind": kind, "report": report, "figures": _figures_text(first, model), "against": against}


def _figures_text(answer: Answer, model: GroupModel) -> str:
    summary, peak = answer.summary, answer.at_peak
    statistic = "|z|" if answer.stat_map.estimate.two_sided else "z"
    largest = f"the peak is z = {z_text(peak['peak_z'])} at {where_text(peak)}"
    features = answer.stat_map.space.features
    there = f"{summary[f'n_{features}']:,} {features}"
    if not summary["n_above"]:
        return f"None of {there} is suprathreshold ({threshold_words(model)}); {largest}."
    return (
        f"{summary['n_above']:,} of {there} have {statistic} ≥ {z_text(answer.threshold)} "
        f"({threshold_words(model)}); {largest}."
    )


def _clusters(first: Answer | None, asked: QuestionResults) -> list[dict[str, Any]]:
    if first is None:
        return []
    shown = first.clusters.head(SHOWN_CLUSTERS)
    is_mixed = _size_unit(first) == ""
    return [
        {
            "number": row["Cluster ID"], "z": z_text(row["Peak Stat"]),
            "size": next((f"{size:,.0f} {unit * is_mixed}".rstrip() for unit, size in sizes_of(row).items()), ""),
            "peak": _peak_title(place),
            "effect": _effect_text(row), "place": unbroken(where_text(place, "")),
            "region": row.get("Region"),
            "at": _viewer_place(first, place), "is_below": "structure" in place and "vertex" not in place,
            "map": f"{asked.question.label} {first.name}",
        }
        for place, row in zip(places_of(shown), shown.to_dict("records"), strict=True)
    ]  # fmt: skip


def _no_clusters(first: Answer, model: GroupModel) -> str:
    """Say why the table of clusters is empty."""
    if not first.summary["n_above"]:
        return "No voxel is suprathreshold."
    if not first.stat_map.space.has_meshes:
        return "Without a mesh no clusters are listed."
    return f"No cluster has {model.cluster_threshold} voxels or more, as --cluster-threshold asks."


def _size_unit(first: Answer) -> str:
    """Name the unit of all sizes of clusters; empty where areas and volumes need one each."""
    units = [unit for unit, column in SIZES.items() if column in first.clusters]
    return units[0] if len(units) == 1 else ""


def _viewer_place(first: Answer, place: Mapping[str, Any]) -> str:
    """Say where the viewer shows a peak: in mm, of a vertex by its number."""
    if "vertex" in place:
        return f"{first.stat_map.space.index_of(place)} 0 0"
    return " ".join(f"{place[axis]:.3f}" for axis in "xyz")


def _effect_text(row: Mapping[Any, Any]) -> str | None:
    """Write the effect at a peak with its interval; None for an F test."""
    if INTERVAL_COLUMNS[0] not in row:
        return None
    effect, _, lower, upper = (row[name] for name in INTERVAL_COLUMNS)
    return f"{format_number(effect)} ({unbroken(interval_text(lower, upper))})"


def _session_rows(peaks: Sequence[Peak], names: Sequence[str]) -> list[dict[str, str]]:
    """Show the estimate of each session at the peaks, with its intervals."""
    return [
        {
            _peak_title(peak.place): where_text(peak.place, ""), "session": name, "effect": format_number(effect),
            "95 % interval": unbroken(interval_text(*own)),
            "of all sessions at once": unbroken(interval_text(*together)),
        }
        for peak in peaks if peak.sessions is not None and len(names) > 1
        for name, effect, own, together in zip(
            names, peak.sessions.effect, peak.sessions.of_each, peak.sessions.of_all, strict=True
        )
    ]  # fmt: skip


def _peak_title(place: Mapping[str, Any]) -> str:
    return "peak" if "vertex" in place or "structure" in place else "peak (x, y, z in mm)"


def _absence(asked: QuestionResults, model: GroupModel, pictures: QuestionPictures) -> dict[str, Any] | None:
    """Show what speaks for no effect: a row per strategy, what the columns mean, and why some have no entry."""
    answered, bound, scale = asked.answers, model.equivalence, model.bayes_factor
    if not answered or (bound is None and scale is None):
        return None
    titles = (_EQUIVALENCE_TITLES if bound is not None else {}) | (_BAYES_FACTOR_TITLES if scale is not None else {})
    rows = []
    for answer in answered:
        found = absence_summary(answer) | _in_words(answer_summary(answer, asked.verdict), answer)
        rows.append({title.format(bound): found.get(name) for name, title in (_ABSENCE_TITLES | titles).items()})
    sentences = []
    if any(answer.equivalence for answer in answered):
        confidence = max(100 * (1 - 2 * model.alpha), 0)
        sentences.append(
            f"Equivalent to zero: two one-sided tests show that the effect lies within ±{bound:g} "
            f"{asked.question.units} ({threshold_words(model)}). A voxel can be so and suprathreshold too: "
            f"there is an effect, and it is smaller than the bound. Where half of the {confidence:g} % interval is "
            "wider than the bound, the data are too few to tell; a correction for many voxels asks for more still."
        )
    if any(answer.bayes_factors for answer in answered):
        unit = "two standard deviations of the covariate" if asked.question.group.covariate else "the contrast"
        sentences.append(
            f"BF₁₀ is how much more likely the data are with an effect of {unit} than without, where the effect has a "
            f"Cauchy prior of scale {scale:.3g} in standard deviations between participants. It is not corrected for "
            "many voxels."
        )
    sentences += [
        f"{answer.title}: with so few participants no data can bring BF₁₀ below {answer.bayes_factors.smallest:.2g}."
        for answer in answered
        if answer.bayes_factors and answer.bayes_factors.smallest > 1 / 3
    ]
    refusals: dict[str, list[str]] = {}
    for answer in answered:
        if answer.absence_refusal:
            refusals.setdefault(answer.absence_refusal, []).append(answer.title)
    sentences += [f"{', '.join(names)}: {refusal}" for refusal, names in refusals.items()]
    has_rows = any(answer.equivalence or answer.bayes_factors for answer in answered)
    return {"rows": rows if has_rows else [], "sentences": sentences, "picture": pictures.equivalence()}


def _in_words(row: dict[str, Any], answer: Answer) -> dict[str, Any]:
    return {**row, "strategy": answer.title, "valid": _VALIDITY[row["valid"]]}


def _without(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def _pair_row(pair: PairResult) -> dict[str, Any]:
    values = asdict(pair.agreement) if pair.agreement else {}
    row: dict[str, Any] = {"strategies": f"{pair.a.title} – {pair.b.title}"}
    return row | {title: values.get(name) for name, title in _AGREEMENT_TITLES.items()}


def _strategy(answer: StrategyResult, label: str, pictures: QuestionPictures) -> dict[str, Any]:
    shown = {"title": answer.strategy.full_title, "id": f"SECTION-ID-{label}-{answer.name}"}
    if not isinstance(answer, Answer):
        return {**shown, "refusal": answer.refusal}
    return {
        **shown,
        "refusal": None,
        "plan": answer.plan,
        "contrast": _contrast_text(answer.plan),
        "left_out": [f"sub-{label} {why}." for label, why in answer.plan.left_out.items()],
        "permutation": _permutation(answer),
        "permutation_refusal": answer.permutation_refusal,
        "design": pictures.design(answer),
    }


def _permutation(answer: Answer) -> dict[str, Any] | None:
    permutation = answer.permutation
    if permutation is None:
        return None
    limit = -np.log10(0.05)
    return {
        "rows": [
            {
                "family-wise test": PERMUTATION_TITLES[kind],
                "smallest p": float(10.0 ** -permutation.neg_log10_p[kind].max()),
                # p values in files are single precision
                "voxels with p ≤ .05": int((permutation.neg_log10_p[kind] >= limit - 1e-6).sum()),
            }
            for kind in PERMUTATION_TITLES
            if kind in permutation.neg_log10_p
        ],
        "n": permutation.n_permutations,
        "scheme": _SCHEMES[permutation.scheme],
        "cluster_forming_p": permutation.cluster_forming_p,
        "warning": permutation.warning,
        "sides": ", two-sided" if answer.stat_map.estimate.two_sided else "",
    }


def _contrast_text(plan: Plan) -> list[str]:
    """Write the weights over the columns, a line per contrast."""
    columns = [str(name) for name in plan.design_matrix.columns]
    return [weights_text(zip(columns, row, strict=True)) for row in np.atleast_2d(plan.contrast)]

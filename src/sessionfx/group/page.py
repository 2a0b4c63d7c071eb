"""The report of the group level, `group.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.names import entity_string
from sessionfx.bids.writing import remove
from sessionfx.group.calibrated import LIMITS
from sessionfx.group.evidence_tables import evidence_tables
from sessionfx.group.files import absence_summary, answer_summary
from sessionfx.group.results import ContrastResults, PairResult, QuestionResults, StrategyResult
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import MapLayout, Plan
from sessionfx.group.strategies.strategy import assumptions_table
from sessionfx.options import GroupModel
from sessionfx.report.brain import draw_coverage, draw_stat_map
from sessionfx.report.map_pictures import as_picture, draw_maps
from sessionfx.report.methods import MethodsText
from sessionfx.report.page import (
    assemble_page,
    is_whole_page,
    render,
    section_path,
    write_section,
)
from sessionfx.report.tables import threshold_words, titled
from sessionfx.space.stat_map import map_summary
from sessionfx.statistics.estimates import Estimate
from sessionfx.wording import counted, format_number, listed, place_text, weights_text

if TYPE_CHECKING:
    from sessionfx.report.style import Picture

SHOWN_CLUSTERS = 20

_VALIDITY = {"yes": "valid", "conditional": "with care", "no": "not valid", "declined": "—"}
_ICC_TITLES = {"icc31": "ICC(3,1)", "icc1": "ICC(1)"}
_ICC_CAPTIONS = {
    "icc31": "How consistently participants differ once the sessions' own means are taken out: 1 is perfect, 0 is "
    "none.",
    "icc1": "Reliability of one session of one participant; differences between sessions count as error. Regions where "
    "the mean is suprathreshold were chosen from the same data, and favour voxels in which participants differ little.",
}
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
    "n_above_a": "beyond threshold: first",
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
_MAP_CAPTION = "Glass brain (largest value along each axis) and slices; what is below the threshold is shown faintly."


@dataclass(frozen=True)
class GroupPage:
    """`group.html`, made of the sections of all contrasts and analyses."""

    output_dir: Path

    def is_whole(self) -> bool:
        """Whether it is there and shows the sections that are there."""
        return is_whole_page(self.output_dir / "group.html", _figures(self.output_dir))

    def assemble(self) -> None:
        """Write it."""
        assemble_page(
            self.output_dir / "group.html",
            _figures(self.output_dir),
            title="Group: strategies compared",
            lead=(
                "Every strategy answers the same session contrast on the same voxels; where they differ, the verdict "
                "says which to trust."
            ),
        )


def contrast_section(output_dir: Path, entities: Mapping[str, str | None], contrast: str) -> Path:
    """Path of the section about a contrast."""
    return section_path(_figures(output_dir), entity_string({**entities, "contrast": contrast}))


def draw_contrast(results: ContrastResults, model: GroupModel, methods: MethodsText, output_dir: Path) -> None:
    """Draw the section about a contrast."""
    place = " · ".join(f"{key} {label}" for key, label in results.entities.items() if label)
    html = render(
        "group_contrast.html.j2",
        title=f"Contrast {results.contrast}" + (f" ({place})" if place else ""),
        summary=_summary(results),
        notes=results.warnings,
        sessions_table=_attendance(results.layout),
        coverage=_draw_coverage(results),
        overview=_overview(results),
        questions=[_question(results, question, model) for question in results.questions],
        methods=methods,
        verdicts=_verdicts(results),
        trust=_trust(results),
        assumptions=_assumptions(results),
        evidence=evidence_tables(results),
        covariates=results.covariate_warnings,
        left_out=[f"sub-{label} {why}." for label, why in results.left_out.items()],
        reliability=_reliability(results),
        calibration=_calibration(results, model),
    )
    title = f"Contrast {results.contrast}" + (f": {place}" if place else "")
    write_section(contrast_section(output_dir, results.entities, results.contrast), title, html)


def write_group_refusal(output_dir: Path, entities: Mapping[str, str | None], sentence: str) -> None:
    """Say in the report why there is no group analysis."""
    html = render("group_refusal.html.j2", title="No group analysis", sentence=sentence)
    write_section(_refusal_section(output_dir, entities), "No group analysis", html)
    GroupPage(output_dir).assemble()


def remove_group_refusal(output_dir: Path, entities: Mapping[str, str | None]) -> None:
    """Take back what `write_group_refusal` said, once there is an analysis."""
    remove(_refusal_section(output_dir, entities))


def _refusal_section(output_dir: Path, entities: Mapping[str, str | None]) -> Path:
    return section_path(_figures(output_dir), (entity_string(entities) or "all") + "_a-refusal")


def _figures(output_dir: Path) -> Path:
    return output_dir / "group" / "figures"


def _summary(results: ContrastResults) -> str:
    layout = results.layout
    participants = layout.unique_participants
    sessions = len(set(layout.sessions))
    text = f"{counted(len(layout.participants), 'map')} of {counted(len(participants), 'participant')}"
    if any(layout.sessions):
        text += f" and {counted(sessions, 'session')}"
        incomplete = [f"sub-{label}" for label in participants if len(layout.rows_of(label)) < sessions]
        if incomplete:
            text += f"; {listed(incomplete, most=8)} missed sessions"
    text += _order(results)
    return f"{text}. All strategies are compared on the {int(results.mask.sum())} voxels that every map has."


def _order(results: ContrastResults) -> str:
    order = results.questions[0].question.sessions.order_text if results.questions else ""
    return f". Order of the sessions in time: {order}" if order else ""


def _verdicts(results: ContrastResults) -> list[dict[str, str]]:
    """Verdicts with the questions they are for; equal ones stand once, those on covariates in their own sections."""
    texts: dict[str, list[str]] = {}
    of_everyone = [asked for asked in results.questions if not asked.question.group.label]
    for asked in of_everyone or results.questions:
        texts.setdefault(asked.verdict.text, []).append(asked.question.text)
    return [{"questions": ", ".join(questions), "text": text} for text, questions in texts.items()]


def _trust(results: ContrastResults) -> list[dict[str, str]]:
    """One row per question: what each strategy is worth, the first choice marked with a star if it is valid."""
    rows = []
    for asked in results.questions:
        row = {"session contrast": asked.question.text}
        for strategy in asked.strategies:
            mark = _VALIDITY[asked.verdict.strategies[strategy.name].valid]
            star = "☆" if asked.verdict.with_care else "★"
            row[strategy.title] = f"{star} {mark}" if strategy.name in asked.verdict.recommended[:1] else mark
        rows.append(row)
    return rows


def _assumptions(results: ContrastResults) -> list[dict[str, str]]:
    names = dict.fromkeys(answer.name for question in results.questions for answer in question.strategies)
    return assumptions_table({STRATEGIES[name].title: STRATEGIES[name] for name in names})


def _reliability(results: ContrastResults) -> dict[str, Any] | None:
    if results.reliability is None:
        return None
    volumes = {}
    for name in ("icc31", "icc1"):
        volumes[name] = np.full(results.grid.shape, np.nan)
        volumes[name][results.mask] = results.reliability.maps[name]
    pictures = [
        as_picture(
            draw_stat_map(
                volume,
                results.mask,
                results.grid.affine,
                title=f"{_ICC_TITLES[name]}: {results.contrast}",
                unit="ICC",
                vmax=1.0,
            ),
            f"Map of {_ICC_TITLES[name]}",
            _ICC_CAPTIONS[name],
        )
        for name, volume in volumes.items()
    ]
    rows = []
    for record in results.reliability.summary.to_dict("records"):
        peak = [record[axis] for axis in "xyz"]
        at_peak = "" if np.isnan(peak[0]) else f", peak at {place_text(*peak)} mm"
        row = {"region": record["region"] + at_peak, "voxels": record["n_voxels"]}
        for name, title in (
            ("icc31", "ICC(3,1)"),
            ("icc1", "ICC(1)"),
            ("between", "variance between"),
            ("within", "within"),
        ):
            quartiles = [format_number(record[f"{name}_{part}"]) for part in ("median", "q25", "q75")]
            row[f"{title}: median (quartiles)"] = f"{quartiles[0]} ({quartiles[1]} to {quartiles[2]})"
        rows.append(row)
    return {"pictures": pictures, "rows": rows}


def _calibration(results: ContrastResults, model: GroupModel) -> dict[str, Any] | None:
    from sessionfx.report.calibration_chart import draw_calibration

    if results.calibration is None:
        return None
    about = _RESAMPLED.format(voxels=model.calibrate, participants=len(results.layout.unique_participants))
    picture = draw_calibration(results.calibration, LIMITS, caption=about)
    return {"picture": picture, "rows": results.calibration.to_dict("records")}


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
    return as_picture(png, "How many maps cover each voxel", "Strategies are compared where every map has data.")


def _overview(results: ContrastResults) -> dict[str, Any]:
    """One row per answer, and the remarks on them, each once: they hold for many answers."""
    rows = []
    numbers: dict[str, int] = {}
    for question in results.questions:
        for answer in question.strategies:
            row: dict[str, Any] = {"session contrast": question.question.text, "strategy": answer.title}
            if answer.plan is None or answer.stat_map is None:
                row |= {
                    "degrees of freedom": None,
                    "voxels beyond threshold": None,
                    "largest z": None,
                    "smallest z": None,
                }
            else:
                summary = map_summary(answer.stat_map, answer.threshold)
                row |= {
                    "degrees of freedom": summary["dof"],
                    "voxels beyond threshold": summary["n_above"],
                    "largest z": summary["largest_z"],
                    "smallest z": summary.get("smallest_z"),
                }
            remark = answer.refusal or (" ".join(answer.plan.warnings) if answer.plan else "")
            number = f"({numbers.setdefault(remark, len(numbers) + 1)})" if remark else ""
            trust = "declined" if answer.refusal else _VALIDITY[question.verdict.strategies[answer.name].valid]
            rows.append({**row, "to be trusted": trust, "remark": number})
    return {"rows": rows, "remarks": list(numbers)}


def _question(results: ContrastResults, question: QuestionResults, model: GroupModel) -> dict[str, Any]:
    answered = [answer for answer in question.strategies if answer.stat_map is not None]
    maximum = max((_robust_maximum(answer.stat_map.estimate.z) for answer in answered if answer.stat_map), default=None)
    effects = [
        answer.stat_map.estimate.effect
        for answer in answered
        if answer.stat_map and isinstance(answer.stat_map.estimate, Estimate)
    ]
    effect_maximum = max(map(_robust_maximum, effects), default=None)
    drawn = _drawn_pairs(question)
    return {
        "label": question.question.label,
        "text": question.question.text,
        "verdict": question.verdict.text,
        "strategies": [_strategy(question, answer, maximum, effect_maximum) for answer in question.strategies],
        "answers": [
            {
                key: value
                for key, value in titled(
                    _in_words(answer_summary(answer, question.verdict), answer)
                    | {"strategy": STRATEGIES[answer.name].full_title}
                ).items()
                if key not in ("status", "reason")
            }
            for answer in answered
        ],
        "absence": _absence(question, answered, model),
        "pairs": [_pair(pair, question) for pair in drawn],
        "agreement": [_pair_row(pair) for pair in question.pairs],
        "distribution": _draw_distribution(question, answered),
    }


def _absence(question: QuestionResults, answered: Sequence[StrategyResult], model: GroupModel) -> dict[str, Any] | None:
    """Show what speaks for no effect: a row per strategy, what the columns mean, and why some have no entry."""
    bound, scale = model.equivalence, model.bayes_factor
    if not answered or (bound is None and scale is None):
        return None
    titles = (_EQUIVALENCE_TITLES if bound is not None else {}) | (_BAYES_FACTOR_TITLES if scale is not None else {})
    rows = []
    for answer in answered:
        found = absence_summary(answer) | _in_words(answer_summary(answer, question.verdict), answer)
        rows.append({title.format(bound): found.get(name) for name, title in (_ABSENCE_TITLES | titles).items()})
    sentences = []
    if any(answer.equivalence for answer in answered):
        confidence = max(100 * (1 - 2 * model.alpha), 0)
        sentences.append(
            f"Equivalent to zero: two one-sided tests show that the effect lies within ±{bound:g} "
            f"{question.question.units} ({threshold_words(model)}). A voxel can be so and suprathreshold too: "
            f"there is an effect, and it is smaller than the bound. Where half of the {confidence:g} % interval is "
            "wider than the bound, the data are too few to tell; a correction for many voxels asks for more still."
        )
    if any(answer.bayes_factors for answer in answered):
        unit = "two standard deviations of the covariate" if question.question.group.covariate else "the contrast"
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
    sentences += [f"{', '.join(titles)}: {refusal}" for refusal, titles in refusals.items()]
    has_rows = any(answer.equivalence or answer.bayes_factors for answer in answered)
    return {"rows": rows if has_rows else [], "sentences": sentences, "picture": _equivalence_picture(question)}


def _equivalence_picture(question: QuestionResults) -> Picture | None:
    """Draw where the first choice is equivalent to zero."""
    best = next((answer for answer in question.strategies if answer.name in question.verdict.recommended[:1]), None)
    if best is None or best.stat_map is None or best.equivalence is None:
        return None
    tests, stat_map = best.equivalence, best.stat_map
    title = f"{best.title}, {question.question.text}: equivalence to zero within ±{tests.bound:g}"
    png = draw_stat_map(
        stat_map.volume(tests.z.clip(min=0)), stat_map.mask, stat_map.grid.affine,
        title=title, unit="z", threshold=tests.threshold,
    )  # fmt: skip
    return as_picture(
        png, title, "z of the larger p of the two one-sided tests; outlined where it passes the threshold."
    )


def _in_words(row: dict[str, Any], answer: StrategyResult) -> dict[str, Any]:
    return {**row, "strategy": answer.title, "valid": _VALIDITY[row["valid"]]}


def _drawn_pairs(question: QuestionResults) -> list[PairResult]:
    """Pairs worth a picture: the first choice against every other, and those that strategies ask for."""
    first = question.verdict.recommended[:1]
    return [
        pair
        for pair in question.pairs
        if pair.agreement is not None
        and (pair.a.name in first or pair.b.name in first or pair.b.name in STRATEGIES[pair.a.name].compared_with)
    ]


def _strategy(
    question: QuestionResults, answer: StrategyResult, maximum: float | None, effect_maximum: float | None
) -> dict[str, Any]:
    from sessionfx.report.charts import draw_design_matrix

    if answer.plan is None or answer.stat_map is None:
        return {
            "title": STRATEGIES[answer.name].full_title,
            "refusal": answer.refusal,
            "plan": None,
            "pictures": [],
            "clusters": [],
            "n_clusters": 0,
            "left_out": [],
        }
    heading = f"{answer.title}, {question.question.text}"
    drawn = draw_maps(
        answer.stat_map, heading, answer.threshold, maximum, effect_maximum, units=question.question.units
    )
    pictures = [as_picture(drawn["z"], f"z map, {heading}", _MAP_CAPTION)]
    if "effect" in drawn:
        pictures.append(as_picture(drawn["effect"], f"Effect map, {heading}"))
    design = draw_design_matrix(answer.plan.design_matrix, title=f"{heading}: design", row_label="observation")
    clusters = answer.clusters.head(SHOWN_CLUSTERS).to_dict("records")
    return {
        "title": STRATEGIES[answer.name].full_title,
        "refusal": None,
        "plan": answer.plan,
        "contrast": _contrast_text(answer.plan),
        "left_out": [f"sub-{label} {why}." for label, why in answer.plan.left_out.items()],
        "pictures": pictures,
        "permutation": _permutation(answer),
        "permutation_refusal": answer.permutation_refusal,
        "design": design,
        "clusters": [{str(key): value for key, value in row.items()} for row in clusters],
        "n_clusters": len(answer.clusters),
    }


def _permutation(answer: StrategyResult) -> dict[str, Any] | None:
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
        "sides": ", two-sided" if answer.stat_map is not None and answer.stat_map.estimate.two_sided else "",
    }


def _contrast_text(plan: Plan) -> list[str]:
    """Write the weights over the columns, a line per contrast."""
    columns = [str(name) for name in plan.design_matrix.columns]
    return [weights_text(zip(columns, row, strict=True)) for row in np.atleast_2d(plan.contrast)]


def _pair(pair: PairResult, question: QuestionResults) -> dict[str, Any]:
    from sessionfx.report.charts import draw_agreement

    title = f"{pair.a.title} against {pair.b.title}"
    assert pair.agreement is not None and pair.z is not None  # noqa: S101 - only compared pairs are drawn
    picture = draw_agreement(
        *pair.z, label_a=pair.a.title, label_b=pair.b.title, agreement=pair.agreement,
        thresholds=(pair.a.threshold, pair.b.threshold), title=f"{title}, {question.question.text}",
    )  # fmt: skip
    return {"title": title, "picture": picture}


def _pair_row(pair: PairResult) -> dict[str, Any]:
    values = asdict(pair.agreement) if pair.agreement else {}
    row: dict[str, Any] = {"strategies": f"{pair.a.title} – {pair.b.title}"}
    row |= {title: values.get(name) for name, title in _AGREEMENT_TITLES.items()}
    return row


def _draw_distribution(question: QuestionResults, answered: list[StrategyResult]) -> Picture | None:
    from sessionfx.report.charts import draw_distribution

    values = {answer.title: answer.stat_map.estimate.z for answer in answered if answer.stat_map is not None}
    if not values:
        return None
    return draw_distribution(values, title=f"Distribution of z, {question.question.text}")


def _robust_maximum(values: NDArray[np.float64]) -> float:
    return float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0

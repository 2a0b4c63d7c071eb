"""The tables of regions at the group level: values of every map, and answers to every question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from sessionfx.bids.derivatives import bids_uri
from sessionfx.bids.region_tables import atlas_fields, count_column, value_columns, write_region_table
from sessionfx.group.files import GroupFiles, judgement_fields
from sessionfx.group.regions import ContrastRegions
from sessionfx.group.results import Answer, QuestionResults
from sessionfx.group.strategies.base import Question
from sessionfx.group.summaries import COLUMNS
from sessionfx.space.regions import LEAST_SHARE
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.intervals import interval
from sessionfx.statistics.thresholds import corrected_p
from sessionfx.wording import counted, format_number, z_text

_OF_MAPS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "As in participants.tsv"},
    "session_id": {"Description": "As in file names; n/a in a dataset without sessions"},
    "first_level_contrast": {"Description": "As in file names"},
}
_ANSWER_COLUMNS: dict[str, dict[str, Any]] = {
    **{name: COLUMNS[name] for name in ("first_level_contrast", "session_contrast", "group_contrast", "strategy",
                                        "valid", "recommended", "n_participants")},
    "n_maps": {"Description": "First-level maps that entered; n/a for a region that some map has not"},
    "index": {"Description": "Number of the region in the atlas"},
    "region": {"Description": "Its name in the atlas"},
    "effect": {"Description": "Estimate of the session contrast; n/a for F"},
    "standard_error": {"Description": "Of the effect"},
    "interval_lower": {"Description": "Lower end of the 95 % interval of the effect, not corrected for many regions"},
    "interval_upper": {"Description": "Upper end"},
    "t": {"Description": "effect / standard_error"},
    "f": {"Description": "F statistic"},
    "dof_numerator": {"Description": "Degrees of freedom of the hypothesis of F"},
    "dof": {"Description": "Degrees of freedom of t, or of the error of F"},
    "z": {"Description": "Normal deviate with the same one-sided p as t, or the upper-tail p of F"},
    "p": {"Description": "Two-sided p of t, or upper-tail p of F; not corrected"},
    "p_corrected": {"Description": "Corrected for the regions answered here, as MultipleComparisonsCorrection says"},
    "suprathreshold": {"Description": "1 where p_corrected is at or below ErrorRate, else 0"},
}  # fmt: skip


@dataclass(frozen=True)
class RegionFiles:
    """Files of the regions of one atlas, for one first-level contrast."""

    files: GroupFiles
    atlas: str  # its label

    @property
    def values(self) -> Path:
        """Path of the values of every map."""
        return self.files.table(None, "regions", self.atlas)

    def answers(self, question: Question) -> Path:
        """Path of the answers to a question."""
        return self.files.table(question, "regionAnswers", self.atlas)

    def write_values(self, regions: ContrastRegions, units: str) -> None:
        """Write what each map is in each region, a row each."""
        files, found, of = self.files, regions.measured, regions.regions
        rows = regions.rows
        n = len(of.indices)
        table = pd.DataFrame(
            {
                "participant_id": np.repeat([f"sub-{row.participant}" for row in rows], n),
                "session_id": np.repeat([f"ses-{row.session}" if row.session else None for row in rows], n),
                "first_level_contrast": np.repeat([row.contrast for row in rows], n),
                "index": np.tile(of.indices, len(rows)),
                "region": np.tile(of.names, len(rows)),
                "effect": found.effects.ravel(),
                **({} if found.variances is None else {"variance": found.variances.ravel()}),
                count_column(regions.stack.space): found.n_voxels.ravel(),
                "share": found.shares.ravel(),
            }
        )
        is_of_series = found.variances is not None
        content = {
            "Description": "Effect of each participant and session in each region: "
            + (
                "that of the region's mean series."
                if is_of_series
                else f"the mean of the effect map over its {regions.stack.space.features}."
            ),
            "Contrast": files.contrast_text,
            **atlas_fields(regions.atlas),
            "AtlasOnTheMaps": regions.atlas.text_on(regions.stack.space),
            "LeastShareOfRegion": LEAST_SHARE,
            "Sources": [
                bids_uri(path, files.links, files.output_dir)
                for path in (regions.tables if is_of_series else [row.effect for row in rows])
            ],
        }
        write_region_table(self.values, table, {**_OF_MAPS, **value_columns(units, regions.stack.space)}, content)

    def write_answers(self, regions: ContrastRegions, results: QuestionResults) -> None:
        """Write what each strategy finds in each region, a row each, and which answer to report."""
        question, verdict, model = results.question, results.verdict, self.files.model
        tables = [self._answer(regions, results, answer) for answer in results.answers]
        names = [name for name in _ANSWER_COLUMNS if any(name in table for table in tables)]
        table = pd.concat(tables)[names] if tables else pd.DataFrame(columns=list(_ANSWER_COLUMNS))
        of_effect = {name: {**_ANSWER_COLUMNS[name], "Units": question.units}
                     for name in ("effect", "standard_error", "interval_lower", "interval_upper")}  # fmt: skip
        content = {
            "Description": "What each strategy finds in each region; the regions are what "
            f"{regions.stack.space.features} are in maps.",
            "Contrast": self.files.contrast_text,
            "SessionContrast": question.sessions.text,
            "GroupContrast": question.group.text,
            **atlas_fields(regions.atlas),
            "MultipleComparisonsCorrection": model.correction,
            "ErrorRate": model.alpha,
            "Verdict": verdict.text,
            "Finding": region_finding(regions, results),
            "File": self.answers(question).relative_to(self.files.output_dir).as_posix(),
            **judgement_fields(verdict),
            "LeftOutRegions": regions.left_out_of(results),
        }
        write_region_table(self.answers(question), table, {**_ANSWER_COLUMNS, **of_effect}, content)

    def _answer(self, regions: ContrastRegions, results: QuestionResults, answer: Answer) -> pd.DataFrame:
        return pd.DataFrame(answer_rows(regions, answer)).assign(
            first_level_contrast=self.files.contrast,
            session_contrast=results.question.sessions.text,
            group_contrast=results.question.group.text,
            strategy=answer.name,
            valid=results.verdict.strategies[answer.name].valid,
            recommended=results.verdict.place(answer.name),
            **_counts(regions, answer),
        )


def _counts(regions: ContrastRegions, answer: Answer) -> dict[str, Any]:
    """Count participants and maps of each region; of which maps nothing is known where some lack it."""
    plan, n = answer.plan, answer.stat_map.estimate.n
    if n is None:
        return {"n_participants": len(plan.participant_names), "n_maps": plan.n_maps}
    found = regions.measured
    is_complete = (found.coverage == len(found.effects))[answer.stat_map.mask[:, 0, 0]]
    n_maps = pd.array([plan.n_maps if complete else None for complete in is_complete], "Int64")
    return {"n_participants": n.astype(int), "n_maps": n_maps}


def answer_rows(regions: ContrastRegions, answer: Answer) -> Iterator[dict[str, Any]]:
    """Say in a row of each region what an answer is there."""
    estimate, model = answer.stat_map.estimate, regions.estimator.model
    n = len(estimate.z)
    columns: dict[str, Any] = {"dof": np.broadcast_to(estimate.dof, n), "z": estimate.z}
    if isinstance(estimate, Estimate):
        lower, upper = interval(estimate.effect, estimate.variance, estimate.dof)
        p = 2 * special.stdtr(estimate.dof, -np.abs(estimate.t))
        columns |= {
            "effect": estimate.effect, "standard_error": np.sqrt(estimate.variance),
            "interval_lower": lower, "interval_upper": upper, "t": estimate.t,
        }  # fmt: skip
    else:
        assert isinstance(estimate, FTest)  # noqa: S101 - there is no third kind
        p = estimate.p
        columns |= {"f": estimate.f, "dof_numerator": np.broadcast_to(estimate.dof_numerator, n)}
    columns |= {"p": p, "p_corrected": corrected_p(p, model.correction)}
    columns["suprathreshold"] = answer.is_suprathreshold.astype(int)
    for at, number in enumerate(np.flatnonzero(answer.stat_map.mask)):
        row = {"index": regions.regions.indices[number], "region": regions.regions.names[number]}
        yield row | {name: values[at].item() for name, values in columns.items()}


def region_finding(regions: ContrastRegions, results: QuestionResults) -> str:
    """Say in a line which strategy to report for the regions, in how many it finds something, and the largest."""
    answer = results.best
    if answer is None:
        return f"{results.question.text}: no strategy of this call can be recommended for regions."
    found = largest_first(regions, results)
    first, n_above = found[0], sum(row["suprathreshold"] for row in found)
    text = (
        f"{results.question.text}: {answer.title} is recommended for regions; {n_above} of "
        f"{counted(len(found), 'region')} of atlas {regions.atlas.label} {'is' if n_above == 1 else 'are'} "
        f"suprathreshold, the largest z is {z_text(first['z'])} in {first['region']}"
    )
    if "effect" in first:
        text += f" (effect {interval_text(first)} {results.question.units})"
    return f"{text}." + (f" With care: {results.verdict.strategies[answer.name].reason}" * results.verdict.with_care)


def largest_first(regions: ContrastRegions, results: QuestionResults) -> list[dict[str, Any]]:
    """Give the rows of the answer that a reader sees first, the region with the largest z first."""
    answer = results.shown_first
    if answer is None:
        return []
    two_sided = answer.stat_map.estimate.two_sided
    return sorted(answer_rows(regions, answer), key=lambda row: -(abs(row["z"]) if two_sided else row["z"]))


def interval_text(row: dict[str, Any]) -> str:
    """Write the effect of a row with its interval."""
    lower, upper = format_number(row["interval_lower"]), format_number(row["interval_upper"])
    return f"{format_number(row['effect'])} ({lower} to {upper})"

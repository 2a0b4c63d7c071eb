"""The files of the group level: maps, designs, tables and verdicts of one first-level contrast."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sessionfx.bids.derivatives import SOFTWARE, bids_uri
from sessionfx.bids.first_level_maps import MapSelection
from sessionfx.bids.names import STATMAP_SUFFIX, file_name, files_of
from sessionfx.bids.reading import UnreadableFileError, read_text
from sessionfx.bids.stat_maps import (
    dof_fields,
    read_sidecar,
    units_in,
    with_sidecars,
    write_statmap,
)
from sessionfx.bids.tables import table_text
from sessionfx.bids.writing import write_json, write_text
from sessionfx.group.answer_files import FAMILY_WISE, AnswerFiles, damaged
from sessionfx.group.answers import finding
from sessionfx.group.clusters import highest_peaks, places_of, sizes_of
from sessionfx.group.likeness import Likeness, likeness_table
from sessionfx.group.results import Answer, PairResult, QuestionResults, Reliability, StrategyResult, Verdict
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import Question
from sessionfx.space.described import described_in, kind_of
from sessionfx.statistics.agreement import Agreement

if TYPE_CHECKING:
    from sessionfx.group.influence import Influence
    from sessionfx.group.study import ContrastStudy

_POWERS = str.maketrans("²³", "23")
# Peaks of clusters in the JSON; the table of clusters has all
_MOST_PEAKS = 10
_LIKENESS_COLUMNS = {
    "participant": "Label of the participant",
    "session": "Session of the map; n/a for the mean over the participant's maps",
    "correlation": "Over voxels, with the median of the other participants",
    "slope": "Of the regression on the median of the other participants: 1 where effects are as large",
    "mean": "Mean effect over voxels, in the units of the maps",
    "spread": "Standard deviation over voxels, relative to that of the median row",
    "extreme": "Share of voxels at which it is over 5 robust standard deviations from the participants' median",
    "remark": "What stands out, in words; n/a where nothing does",
}
_INFLUENCE_COLUMNS = {
    "participant": "Label of the participant who is left out",
    "n_lost": "Suprathreshold voxels that would not be so",
    "n_gained": "Further voxels that would be suprathreshold",
    "peak_z": "z at the peak of all participants",
    "change_of_peak_z": "Its change",
    "largest_change_of_z": "Largest absolute change of z at any voxel",
    "mean_weight": "Mean weight of the participant over voxels with --robust, in percent",
}
_RELIABILITY = {
    "icc1": ("ICC(1): reliability of one session, differences between sessions counting as error", None),
    "icc31": ("ICC(3,1): consistency of participants over sessions", None),
    "between": ("Variance between participants; can be estimated below 0", "({})^2"),
    "within": ("Variance within participants", "({})^2"),
}


class GroupFiles:
    """Writes what is found for one first-level contrast.

    Parameters
    ----------
    study : ContrastStudy
    """

    def __init__(self, study: ContrastStudy) -> None:
        analysis = study.analysis
        self.contrast, self.maps, self.left_out = study.contrast, study.maps, study.left_out
        self.selection, self.model, self.weighting = analysis.selection, analysis.model, analysis.weighting
        self.output_dir, self.links = analysis.output_dir, analysis.links
        self.levels = study.covariates.levels

    @property
    def folder(self) -> Path:
        """Where group results go."""
        return self.output_dir / "group"

    @cached_property
    def _first_sidecar(self) -> dict[str, Any]:
        return read_sidecar(self.maps[0].effect)

    @property
    def extension(self) -> str:
        """Of the maps."""
        return self.maps[0].extension

    def sources(self, rows: Iterable[int] | None = None) -> list[str]:
        """Name the files of the maps, or of those of some rows."""
        maps = self.maps if rows is None else [found for row in rows for found in self.maps[row].of_rows]
        return [bids_uri(path, self.links, self.output_dir) for found in maps for path in found.effect_files]

    @property
    def contrast_text(self) -> str:
        """The first-level contrast as it was written, or else its label."""
        test = self.selection.f_tests.get(self.contrast)
        if test is not None:
            return f"F test {test.label}: {test.expression}"
        return str(self._first_sidecar.get("Contrast") or self.contrast)

    @property
    def contrast_fields(self) -> dict[str, Any]:
        """The first-level contrast for sidecars; of an F test over conditions its rows."""
        test, first = self.selection.f_tests.get(self.contrast), self._first_sidecar
        if test is None:
            return {"Contrast": first.get("Contrast", self.contrast), "ContrastWeights": first.get("ContrastWeights")}
        rows = [read_sidecar(found.effect) for found in self.maps[0].of_rows]
        return {
            "Contrast": test.expression,
            "RowsContrast": [row.get("Contrast", own.label) for row, own in zip(rows, test.tested, strict=True)],
            "ContrastWeights": [row.get("ContrastWeights") for row in rows],
        }

    def agreement(self, question: Question) -> Path:
        """Path of the table of how answers agree."""
        return self._table_path(self.entities(question), "agreement")

    def answers(self, question: Question) -> Path:
        """Path of the table of the answers to a question."""
        return self._table_path(self.entities(question), "answers")

    def verdict(self, question: Question) -> Path:
        """Path of the verdict about a question."""
        return self.folder / file_name(self.entities(question), "validity", ".json")

    def outputs_of_reliability(self) -> tuple[Path, ...]:
        """Paths of the maps of reliability and their summary."""
        maps = [self._reliability_path(name) for name in _RELIABILITY]
        return (self._table_path(self._whole, "reliability"), *with_sidecars(maps))

    def influence(self, question: Question) -> Path:
        """Path of the table of what the answer to report would be without each participant."""
        return self._table_path(self.entities(question), "influence")

    @property
    def likeness(self) -> Path:
        """Path of the table of how like the others' participants' maps are."""
        return self._table_path(self._whole, "likeness")

    @property
    def calibration(self) -> Path:
        """Path of the rates found in simulated studies."""
        return self._table_path(self._whole, "calibration")

    def table(self, question: Question | None, desc: str, atlas: str) -> Path:
        """Path of a table of an atlas: of the answers to a question, or of what belongs to none."""
        base = self._whole if question is None else self.entities(question)
        return self._table_path({**base, "atlas": atlas}, desc)

    def _reliability_path(self, name: str) -> Path:
        entities = {**self._whole, "stat": name, "desc": "reliability"}
        return self.folder / file_name(entities, STATMAP_SUFFIX, self.extension)

    def _table_path(self, base: Mapping[str, str | None], desc: str) -> Path:
        return self.folder / file_name({**base, "desc": desc}, "metrics", ".tsv")

    def write_verdict(self, results: QuestionResults) -> None:
        """Write which answers to one question can be trusted, and a table of them with their judgements."""
        question, verdict = results.question, results.verdict
        content = {
            "Contrast": self.contrast_text,
            "Description": "Which strategies can be trusted for this session contrast, from the design and the data.",
            "SessionContrast": question.sessions.text,
            "GroupContrast": question.group.text,
            "Verdict": verdict.text,
            **judgement_fields(verdict),
            "Finding": finding(results),
            "Result": self._describe_result(results),
            "Software": SOFTWARE,
        }
        write_json(self.verdict(question), content)
        rows = pd.DataFrame(self._answer_row(answer, results) for answer in results.strategies)
        write_text(self.answers(question), table_text(rows))

    def _answer_row(self, answer: StrategyResult, results: QuestionResults) -> dict[str, Any]:
        """Say in a row of the table of answers what was asked, and what a strategy finds."""
        question = results.question
        (z_map,) = AnswerFiles(self, question, answer.label).maps(["z"]).values()
        return {
            "first_level_contrast": self.contrast,
            "session_contrast": question.sessions.text,
            "group_contrast": question.group.text,
            **answer_summary(answer, results.verdict),
            "recommended": results.verdict.place(answer.name),
            "correction": self.model.correction,
            "alpha": self.model.alpha,
            **(absence_summary(answer) if isinstance(answer, Answer) else {}),
            "z_map": None if answer.refusal else " ".join(map(self._relative, files_of(z_map))),
        }

    def _describe_result(self, results: QuestionResults) -> dict[str, Any] | None:
        """Describe what the strategy to report finds; None where there is none."""
        best = results.best
        if best is None:
            return None
        estimate, of_best = best.stat_map.estimate, AnswerFiles(self, results.question, best.label)
        row, statistic = answer_summary(best, results.verdict), "effect" if estimate.two_sided else "F"
        features = best.stat_map.space.features
        files = {**of_best.maps((statistic, "z")), "clusters": of_best.clusters, "design": of_best.design}
        return {
            "Strategy": best.name,
            "Valid": row["valid"],
            "Files": {name: self._named(path) for name, path in files.items()},
            "NumberOfParticipants": row["n_participants"],
            "NumberOfMaps": row["n_maps"],
            **dof_fields(estimate, features),
            f"NumberOf{features.capitalize()}": row[f"n_{features}"],
            "Threshold": best.threshold if np.isfinite(best.threshold) else None,
            "ThresholdIsOn": "|z|" if estimate.two_sided else "z",
            "MultipleComparisonsCorrection": self.model.correction,
            "ErrorRate": self.model.alpha,
            f"Suprathreshold{features.capitalize()}": row["n_above"],
            "Peak": best.at_peak,
            "ClusterPeaks": _peaks(best.clusters),
        }

    def links_to(self, paths: Mapping[str, Path]) -> list[dict[str, str]]:
        """Give links from a page to files, by their titles."""
        return [{"title": title, "href": self._relative(path)} for title, path in paths.items()]

    def _named(self, path: Path) -> str | list[str]:
        """Name a file, or those of both hemispheres."""
        names = [self._relative(file) for file in files_of(path)]
        return names if len(names) > 1 else names[0]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.output_dir).as_posix()

    def write_calibration(self, table: pd.DataFrame) -> None:
        """Write the rates found in simulated studies."""
        write_text(self.calibration, table_text(table))

    def read_calibration(self) -> pd.DataFrame:
        """Read the rates back."""
        path = self.calibration
        try:
            return pd.read_csv(io.StringIO(read_text(path)), sep="\t", na_values=["n/a"], keep_default_na=False)
        except (UnreadableFileError, ValueError) as error:
            raise damaged(path, error) from None

    @property
    def model_parameters(self) -> dict[str, Any]:
        """Options of both levels that sidecars tell."""
        parameters = self._first_sidecar.get("ModelParameters")
        return {
            **(parameters if isinstance(parameters, dict) else {}),
            "SubjectEffect": self.model.subject_effect,
            "Covariates": list(self.model.covariates),
            "SessionCovariates": list(self.model.session_covariates),
            "SessionCovariateEffect": self.model.session_covariate_effect,
        }

    def entities(self, question: Question) -> dict[str, str | None]:
        """Entities of what belongs to a question."""
        return _entities(self.selection, self.contrast, question)

    @property
    def _whole(self) -> dict[str, str | None]:
        """Entities of what belongs to no single question."""
        return {**self.selection.entities, "contrast": self.contrast}

    def write_agreement(self, results: QuestionResults) -> None:
        """Write how the answers to one question agree, pair by pair."""
        write_text(self.agreement(results.question), table_text(agreement_table(results.pairs)))

    def write_influence(self, question: Question, best: StrategyResult | None, influence: Influence) -> None:
        """Write what the answer to report would be without each participant, with what the columns mean."""
        if best is None or not len(influence.table):
            return
        content = {
            "Description": "What the answer to report would be without each participant.",
            "Strategy": best.name,
            "Threshold": best.threshold if np.isfinite(best.threshold) else None,
            **{name: {"Description": text} for name, text in _INFLUENCE_COLUMNS.items() if name in influence.table},
            **({"Note": influence.note} if influence.note else {}),
        }
        self._write_described(self.influence(question), influence.table, content)

    def write_likeness(self, likeness: Likeness) -> None:
        """Write how like the others' participants' maps are, with what the columns mean, where there are enough."""
        if not len(likeness.participants):
            return
        content = {
            "Description": "Participants' maps beside the median of the other participants, in voxels all over the "
            "brain: the mean over a participant's maps (session n/a), then each map.",
            **{column: {"Description": text} for column, text in _LIKENESS_COLUMNS.items()},
            "Sources": self.sources(),
        }
        self._write_described(self.likeness, likeness_table(likeness), content)

    def write_reliability(self, reliability: Reliability | None, stack: MapStack) -> None:
        """Write the maps of reliability at the voxels of a stack and their summary, where there are any."""
        if reliability is None:
            return
        write_text(self._table_path(self._whole, "reliability"), table_text(reliability.summary))
        for name, values in reliability.maps.items():
            words, units = _RELIABILITY[name]
            content = {
                "Description": f"{words}; 0 outside the mask.",
                "StatisticType": name,
                **({"Units": units.format(units_in(self._first_sidecar))} if units else {}),
                "Sources": self.sources(),
                "NumberOfInputs": len(self.maps),
                "NumberOfParticipants": len({found.participant for found in self.maps}),
                "Software": SOFTWARE,
            }
            write_statmap(self._reliability_path(name), np.nan_to_num(values), stack.mask, stack.space, content)

    def _write_described(self, path: Path, table: pd.DataFrame, content: Mapping[str, Any]) -> None:
        """Write a table, and its sidecar in the words of the maps' space."""
        write_text(path, table_text(table))
        said = described_in(kind_of(self.extension), {**content, "Software": SOFTWARE})
        write_json(path.with_suffix(".json"), said)


def longest_group_name(selection: MapSelection, contrast: str, question: Question) -> str:
    """Name the file of a question whose name is longest."""
    strategy = max((strategy.label for strategy in STRATEGIES.values()), key=len)
    entities = {
        **_entities(selection, contrast, question),
        "strategy": strategy,
        "stat": "p",
        "desc": max(FAMILY_WISE, key=len),
    }
    extension = selection.maps[contrast][0].extension
    return files_of(Path(file_name(entities, STATMAP_SUFFIX, extension)))[0].name


def _entities(selection: MapSelection, contrast: str, question: Question) -> dict[str, str | None]:
    return {
        **selection.entities,
        "contrast": contrast,
        "sessions": question.sessions.label if selection.sessions else None,
        "covariate": question.group.label or None,
    }


def agreement_table(pairs: Sequence[PairResult]) -> pd.DataFrame:
    """Say in a row of each pair of strategies how their answers agree, or why they cannot be compared."""
    of_agreement = [column.name for column in fields(Agreement)]
    rows = [
        {
            "strategy_a": pair.a.name,
            "strategy_b": pair.b.name,
            "status": "compared" if pair.agreement else "declined",
            **(asdict(pair.agreement) if pair.agreement else {}),
            "threshold_a": pair.a.threshold,
            "threshold_b": pair.b.threshold,
            "reason": pair.refusal or None,
        }
        for pair in pairs
    ]
    columns = ["strategy_a", "strategy_b", "status", *of_agreement, "threshold_a", "threshold_b", "reason"]
    return pd.DataFrame(rows, columns=columns)


def answer_summary(answer: StrategyResult, verdict: Verdict) -> dict[str, Any]:
    """One row of the table of answers."""
    valid = verdict.strategies[answer.name].valid
    if not isinstance(answer, Answer):
        return {"strategy": answer.name, "status": "declined", "valid": valid, "reason": answer.refusal}
    return {
        "strategy": answer.name,
        "status": "estimated",
        "valid": valid,
        "n_participants": len(answer.plan.participant_names),
        "n_maps": answer.plan.n_maps,
        **answer.summary,
        "reason": answer.permutation_refusal or None,
    }


def absence_summary(answer: Answer) -> dict[str, Any]:
    """Describe what speaks for no effect as further columns of the table; none where that was not asked for."""
    row: dict[str, Any] = {}
    tests, factors = answer.equivalence, answer.bayes_factors
    if tests is not None:
        row |= {
            "equivalence_bound": tests.bound,
            "equivalence_threshold": tests.threshold,
            "n_equivalent": int(tests.mask.sum()),
            "n_equivalent_and_above": int((tests.mask & answer.is_suprathreshold).sum()),
            "interval_half_width": tests.half_width,
        }
    if factors is not None:
        row |= {
            "bayes_factor_scale": factors.scale,
            "effective_n": factors.n,
            "smallest_bf10": factors.smallest,
            "n_bf10_below_third": factors.count(1 / 3),
            "n_bf10_above_3": factors.count(3),
        }
    return row | ({"absence_reason": answer.absence_refusal} if answer.absence_refusal else {})


def judgement_fields(verdict: Verdict) -> dict[str, Any]:
    """Give what a verdict recommends, and why, as fields of a JSON file."""
    return {
        "Recommended": list(verdict.recommended),
        "RecommendedWithCare": verdict.with_care,
        "Strategies": {
            name: {"Valid": judgement.valid, "Reason": judgement.reason}
            for name, judgement in verdict.strategies.items()
        },
        "Facts": verdict.facts,
    }


def _peaks(clusters: pd.DataFrame) -> list[dict[str, Any]]:
    """List the peaks of the clusters with the largest |z|."""
    peaks = highest_peaks(clusters, _MOST_PEAKS)
    return [
        {
            **place,
            "peak_z": round(float(row["Peak Stat"]), 4),
            **{f"cluster_size_{unit.translate(_POWERS)}": size for unit, size in sizes_of(row).items()},
            **({"region": row["Region"]} if "Region" in row else {}),
        }
        for place, row in zip(places_of(peaks), peaks.to_dict("records"), strict=True)
    ]

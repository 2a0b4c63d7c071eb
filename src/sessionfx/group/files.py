"""The files of the group level: maps, designs, tables and verdicts of one first-level contrast."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.covariates import Covariates
from sessionfx.bids.derivatives import SOFTWARE, bids_uri
from sessionfx.bids.first_level_maps import FirstLevelMap, MapSelection
from sessionfx.bids.images import read_volume
from sessionfx.bids.names import STATMAP_SUFFIX, entity_string, file_name, parse_name
from sessionfx.bids.reading import UnreadableFileError, read_text
from sessionfx.bids.stat_maps import (
    EXTENSION,
    dof_fields,
    read_sidecar,
    sidecar_path,
    write_statmap,
    write_statmaps,
)
from sessionfx.bids.writing import list_outputs, write_json, write_map, write_text
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import Plan, Question
from sessionfx.options import GroupModel
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap, map_summary
from sessionfx.statistics.agreement import Agreement
from sessionfx.statistics.bayes_factor import BayesFactors
from sessionfx.statistics.equivalence import Equivalence
from sessionfx.statistics.thresholds import beyond

if TYPE_CHECKING:
    from sessionfx.group.results import QuestionResults, Reliability, StrategyResult, Verdict

_LONGEST_DESC = "clusterMassFWE"  # of permutations
PERMUTATION_FIELDS = (
    "NumberOfPermutations", "NumberOfDistinctPermutations", "PermutationScheme", "ClusterFormingP",
    "SmallestAttainableP", "PermutationNote",
)  # fmt: skip
_RELIABILITY = {
    "icc1": ("ICC(1): reliability of one session, differences between sessions counting as error", None),
    "icc31": ("ICC(3,1): consistency of participants over sessions", None),
    "between": ("Variance between participants; can be estimated below 0", "(percent signal change)^2"),
    "within": ("Variance within participants", "(percent signal change)^2"),
}


@dataclass(frozen=True)
class GroupFiles:
    """Writes what is found for one first-level contrast.

    Attributes
    ----------
    contrast : str
    maps : sequence of FirstLevelMap
        In the order of the rows.
    selection : MapSelection
    model : GroupModel
    weighting : {'equal', 'precision'}
        Of fixed effects.
    output_dir : Path
    links : dict of str to Path
        Datasets by their name in BIDS URIs.
    """

    contrast: str
    maps: Sequence[FirstLevelMap]
    selection: MapSelection
    model: GroupModel
    weighting: str
    output_dir: Path
    links: dict[str, Path]

    @property
    def folder(self) -> Path:
        """Where group results go."""
        return self.output_dir / "group"

    @cached_property
    def _first_sidecar(self) -> dict[str, Any]:
        return read_sidecar(self.maps[0].effect)

    def write_question(self, results: QuestionResults, covariates: Covariates) -> list[Path]:
        """Write the answers to one question and their comparison."""
        base = self._entities(results.question)
        files: list[Path] = []
        for result in results.strategies:
            if result.plan is not None and result.stat_map is not None:
                files += self._write_strategy(results.question, result, result.plan, result.stat_map, covariates)
        return [*files, self._write_agreement(results, base)]

    def write_verdict(self, results: QuestionResults) -> list[Path]:
        """Write which answers to one question can be trusted, and a table of them with their judgements."""
        base = self._entities(results.question)
        path = self.folder / file_name(base, "validity", ".json")
        write_json(path, _describe_verdict(results.question, results.verdict))
        answers = pd.DataFrame(
            answer_summary(answer, results.verdict) | absence_summary(answer) for answer in results.strategies
        )
        return [path, self._write_table(answers, base, "answers")]

    def strategy_files(self, question: Question) -> list[Path]:
        """Files that lie there of any strategy's answer to a question."""
        base = self._entities(question)
        starts = tuple(entity_string({**base, "strategy": one.label}) + "_" for one in STRATEGIES.values())
        return [path for path in list_outputs(self.folder) if path.name.startswith(starts)]

    def write_calibration(self, table: pd.DataFrame) -> list[Path]:
        """Write the rates found in simulated studies."""
        return [self._write_table(table, self._whole, "calibration")]

    def read_calibration(self) -> pd.DataFrame:
        """Read the rates back."""
        path = self.folder / file_name({**self._whole, "desc": "calibration"}, "metrics", ".tsv")
        try:
            return pd.read_csv(io.StringIO(read_text(path)), sep="\t", na_values=["n/a"], keep_default_na=False)
        except (UnreadableFileError, ValueError) as error:
            raise _damaged(path, error) from None

    def read_permutation(
        self, question: Question, strategy: str, mask: NDArray[np.bool_]
    ) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
        """Read the permutation of a finished answer back.

        Parameters
        ----------
        question : Question
        strategy : str
            Its label in file names.
        mask : ndarray of bool, 3-D
            Voxels of the answer.

        Returns
        -------
        sidecar : dict
        neg_log10_p : dict of str to ndarray of shape (V,)
        """
        entities = {**self._entities(question), "strategy": strategy, "stat": "p"}
        sidecar: dict[str, Any] = {}
        values = {}
        start, end = f"{entity_string(entities)}_desc-", f"_{STATMAP_SUFFIX}{EXTENSION}"
        for path in self.strategy_files(question):
            parsed = parse_name(path.name)
            if parsed is None or not (path.name.startswith(start) and path.name.endswith(end)):
                continue
            try:
                sidecar = read_sidecar(path)
                values[parsed.entities["desc"]] = -np.log10(read_volume(path)[0][mask])
                missing = [field for field in PERMUTATION_FIELDS if field not in sidecar]
            except (ParticipantError, IndexError) as error:
                raise _damaged(path, error) from None
            if missing:
                raise _damaged(sidecar_path(path), f"{missing[0]} is missing")
        return sidecar, values

    @property
    def _whole(self) -> dict[str, str | None]:
        """Entities of what belongs to no single question."""
        return {**self.selection.entities, "contrast": self.contrast}

    def _entities(self, question: Question) -> dict[str, str | None]:
        return _entities(self.selection, self.contrast, question)

    def _write_strategy(
        self, question: Question, result: StrategyResult, plan: Plan, stat_map: StatMap[Any], covariates: Covariates
    ) -> list[Path]:
        entities = {**self._entities(question), "strategy": result.label}
        first = self._first_sidecar
        parameters = first.get("ModelParameters")
        participants = tuple(dict.fromkeys(self.maps[row].participant for row in plan.rows))
        left_out = {**self.selection.absent.get(self.contrast, {}), **covariates.left_out, **plan.left_out}
        sidecar: dict[str, Any] = {
            "Description": plan.description,
            "Sources": [bids_uri(self.maps[row].effect, self.links, self.output_dir) for row in plan.rows],
            "Contrast": first.get("Contrast", self.contrast),
            "ContrastWeights": first.get("ContrastWeights"),
            "SessionContrast": question.sessions.text,
            **question.sessions.order_fields,
            "GroupContrast": question.group.text,
            "CombinationLevel": "participant",
            "Strategy": result.name,
            "NumberOfInputs": len(plan.rows),
            "NumberOfParticipants": len(participants),
            "LeftOutParticipants": {f"sub-{label}": why for label, why in left_out.items()},
            "Caution": " ".join(plan.warnings),
            "FixedEffectsWeighting": self.weighting,
            **plan.details,
            "ModelParameters": {
                **(parameters if isinstance(parameters, dict) else {}),
                "SubjectEffect": self.model.subject_effect,
                "Covariates": list(self.model.covariates),
                "SessionCovariates": list(self.model.session_covariates),
                "SessionCovariateEffect": self.model.session_covariate_effect,
            },
        }
        files = write_statmaps(self.folder, entities, stat_map, sidecar, question.units)
        if result.permutation is not None:
            files += self._write_permutation(result, stat_map, entities, sidecar)
        if result.equivalence is not None:
            files += self._write_equivalence(result.equivalence, stat_map, entities, sidecar, question.units)
        if result.bayes_factors is not None:
            files += self._write_bayes_factors(question, result.bayes_factors, stat_map, entities, sidecar)
        design = self.folder / file_name(entities, "design", ".tsv")
        table = plan.design_matrix.rename_axis("observation").reset_index()
        write_text(design, table.to_csv(sep="\t", index=False, na_rep="n/a"))
        columns = list(map(str, plan.design_matrix.columns))
        contrasts = [dict(zip(columns, map(float, row), strict=True)) for row in np.atleast_2d(plan.contrast)]
        description = {
            "Description": "Group design matrix: one row per observation, one column per regressor.",
            "Contrast": contrasts[0] if plan.contrast.ndim == 1 else contrasts,
            "DegreesOfFreedom": stat_map.estimate.typical_dof,
            "Strategy": result.name,
            "Software": SOFTWARE,
        }
        write_json(design.with_suffix(".json"), description)
        clusters = self.folder / file_name(entities, "clusters", ".tsv")
        write_text(clusters, result.clusters.to_csv(sep="\t", index=False, na_rep="n/a"))
        return [*files, design, design.with_suffix(".json"), clusters]

    def _write_permutation(
        self, result: StrategyResult, stat_map: StatMap[Any], entities: dict[str, str | None], sidecar: dict[str, Any]
    ) -> list[Path]:
        permutation = result.permutation
        assert permutation is not None  # noqa: S101 - the caller checks
        files = []
        for kind, neg_log10_p in permutation.neg_log10_p.items():
            path = self.folder / file_name({**entities, "stat": "p", "desc": kind}, STATMAP_SUFFIX, EXTENSION)
            content = {
                **sidecar,
                "Description": f"{sidecar['Description']} Family-wise p value ({kind}) from "
                f"{permutation.n_permutations} resamplings of participants; 1 outside the mask.",
                "StatisticType": "p",
                "NumberOfPermutations": permutation.n_permutations,
                "RandomSeed": self.model.random_seed,
                "NumberOfDistinctPermutations": permutation.n_possible,
                "PermutationScheme": permutation.scheme,
                "ClusterFormingP": permutation.cluster_forming_p,
                "SmallestAttainableP": permutation.smallest_p,
                "PermutationNote": permutation.note,
                "Software": SOFTWARE,
            }
            write_statmap(path, 10.0**-neg_log10_p, stat_map.mask, stat_map.grid, content)
            files += [path, sidecar_path(path)]
        return files

    def _write_equivalence(
        self,
        tests: Equivalence,
        stat_map: StatMap[Any],
        entities: dict[str, str | None],
        sidecar: dict[str, Any],
        units: str,
    ) -> list[Path]:
        content = {
            **sidecar,
            "EquivalenceBound": tests.bound,
            "EquivalenceBoundUnits": units,
            "Threshold": tests.threshold if np.isfinite(tests.threshold) else None,
            "ErrorRate": self.model.alpha,
            "MultipleComparisonsCorrection": self.model.correction,
            **dof_fields(stat_map.estimate),
            "Software": SOFTWARE,
        }
        of_z = self.folder / file_name({**entities, "stat": "z", "desc": "equivalence"}, STATMAP_SUFFIX, EXTENSION)
        of_mask = self.folder / file_name({**entities, "desc": "equivalence"}, "mask", EXTENSION)
        within = tests.within(units)
        texts = {
            of_z: f"Two one-sided tests that the effect lies {within}: normal deviate with the larger of their p, "
            "large where it does; 0 outside the mask.",
            of_mask: f"1 where the effect is shown to lie {within}, with z at or above the threshold; 0 elsewhere.",
        }
        for path, text in texts.items():
            kind = {"StatisticType": "z"} if path is of_z else {"Type": "ROI"}
            write_json(sidecar_path(path), {**content, "Description": f"{sidecar['Description']} {text}", **kind})
        write_map(of_z, tests.z, stat_map.mask, stat_map.grid)
        write_map(of_mask, tests.mask, stat_map.mask, stat_map.grid, dtype=np.uint8)
        return [*texts, *map(sidecar_path, texts)]

    def _write_bayes_factors(
        self,
        question: Question,
        factors: BayesFactors,
        stat_map: StatMap[Any],
        entities: dict[str, str | None],
        sidecar: dict[str, Any],
    ) -> list[Path]:
        of_covariate = " of two standard deviations of the covariate" if question.group.covariate else ""
        path = self.folder / file_name({**entities, "stat": "log10BF10"}, STATMAP_SUFFIX, EXTENSION)
        content = {
            **sidecar,
            "Description": f"{sidecar['Description']} Decimal logarithm of the Bayes factor for an effect against "
            "none, below 0 where the data speak for none; 0 outside the mask.",
            "StatisticType": "log10BF10",
            "Prior": f"Cauchy, on the effect{of_covariate} in standard deviations between participants",
            "PriorScale": factors.scale,
            "EffectiveSampleSize": factors.n,
            **dof_fields(stat_map.estimate),
            "Software": SOFTWARE,
        }
        write_statmap(path, factors.log10, stat_map.mask, stat_map.grid, content)
        return [path, sidecar_path(path)]

    def _write_agreement(self, results: QuestionResults, base: dict[str, str | None]) -> Path:
        agreement = pd.DataFrame(
            [
                {
                    "strategy_a": pair.a.name,
                    "strategy_b": pair.b.name,
                    "status": "compared" if pair.agreement else "declined",
                    **(
                        asdict(pair.agreement)
                        if pair.agreement
                        else dict.fromkeys(one.name for one in fields(Agreement))
                    ),
                    "threshold_a": pair.a.threshold,
                    "threshold_b": pair.b.threshold,
                    "reason": pair.reason,
                }
                for pair in results.pairs
            ]
        )
        return self._write_table(agreement, base, "agreement")

    def write_reliability(self, reliability: Reliability | None, mask: NDArray[np.bool_], grid: Grid) -> list[Path]:
        """Write the maps of reliability and their summary, where there are any."""
        if reliability is None:
            return []
        base = self._whole
        files = [self._write_table(reliability.summary, base, "reliability")]
        for name, values in reliability.maps.items():
            words, units = _RELIABILITY[name]
            path = self.folder / file_name({**base, "stat": name, "desc": "reliability"}, STATMAP_SUFFIX, EXTENSION)
            content = {
                "Description": f"{words}; 0 outside the mask.",
                "StatisticType": name,
                **({"Units": units} if units else {}),
                "Sources": [bids_uri(one.effect, self.links, self.output_dir) for one in self.maps],
                "NumberOfInputs": len(self.maps),
                "NumberOfParticipants": len({one.participant for one in self.maps}),
                "Software": SOFTWARE,
            }
            write_statmap(path, np.nan_to_num(values), mask, grid, content)
            files += [path, sidecar_path(path)]
        return files

    def _write_table(self, table: pd.DataFrame, base: dict[str, str | None], desc: str) -> Path:
        path = self.folder / file_name({**base, "desc": desc}, "metrics", ".tsv")
        write_text(path, table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.10g"))
        return path


def _damaged(path: Path, error: Exception | str) -> LevelError:
    return LevelError(f"{path} cannot be read back ({error}). Run the group level again with --force.")


def longest_group_name(selection: MapSelection, contrast: str, question: Question) -> str:
    """Name the file of a question whose name is longest."""
    strategy = max((one.label for one in STRATEGIES.values()), key=len)
    entities = {**_entities(selection, contrast, question), "strategy": strategy, "stat": "p", "desc": _LONGEST_DESC}
    return file_name(entities, STATMAP_SUFFIX, EXTENSION)


def _entities(selection: MapSelection, contrast: str, question: Question) -> dict[str, str | None]:
    return {
        **selection.entities,
        "contrast": contrast,
        "sessions": question.sessions.label if selection.sessions else None,
        "covariate": question.group.label or None,
    }


def answer_summary(one: StrategyResult, verdict: Verdict) -> dict[str, Any]:
    """One row of the table of answers."""
    valid = verdict.strategies[one.name].valid
    if one.plan is None or one.stat_map is None:
        return {"strategy": one.name, "status": "declined", "valid": valid, "reason": one.refusal}
    participants = {name.split("_")[0] for name in one.plan.design_matrix.index}
    return {
        "strategy": one.name,
        "status": "estimated",
        "valid": valid,
        "n_participants": len(participants),
        "n_maps": len(one.plan.rows),
        **map_summary(one.stat_map, one.threshold),
        "reason": one.permutation_refusal,
    }


def absence_summary(answer: StrategyResult) -> dict[str, Any]:
    """Describe what speaks for no effect as further columns of the table; none where that was not asked for."""
    row: dict[str, Any] = {}
    tests, factors = answer.equivalence, answer.bayes_factors
    if tests is not None and answer.stat_map is not None:
        above = beyond(answer.stat_map.estimate.z, answer.threshold)
        row |= {
            "equivalence_bound": tests.bound,
            "equivalence_threshold": tests.threshold,
            "n_equivalent": int(tests.mask.sum()),
            "n_equivalent_and_above": int((tests.mask & above).sum()),
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


def _describe_verdict(question: Question, verdict: Verdict) -> dict[str, Any]:
    return {
        "Description": "Which strategies can be trusted for this session contrast, from the design and the data.",
        "SessionContrast": question.sessions.text,
        "GroupContrast": question.group.text,
        "Verdict": verdict.text,
        "Recommended": list(verdict.recommended),
        "RecommendedWithCare": verdict.with_care,
        "Strategies": {name: {"Valid": one.valid, "Reason": one.reason} for name, one in verdict.strategies.items()},
        "Facts": verdict.facts,
        "Software": SOFTWARE,
    }

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
from numpy.typing import NDArray

from sessionfx.bids.derivatives import SOFTWARE, bids_uri
from sessionfx.bids.first_level_maps import MapSelection
from sessionfx.bids.names import STATISTICS, STATMAP_SUFFIX, file_name, files_of
from sessionfx.bids.reading import UnreadableFileError, read_text
from sessionfx.bids.stat_maps import (
    dof_fields,
    read_map,
    read_sidecar,
    sidecar_path,
    statmap_paths,
    units_in,
    with_sidecars,
    write_sidecars,
    write_statmap,
    write_statmaps,
)
from sessionfx.bids.tables import table_text
from sessionfx.bids.writing import write_json, write_map, write_text
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.group.answers import finding, peak_of
from sessionfx.group.clusters import INTERVAL_COLUMNS, highest_peaks, places_of, sizes_of
from sessionfx.group.likeness import Likeness, likeness_table
from sessionfx.group.permutation import PermutationResult
from sessionfx.group.results import Answer, PairResult, QuestionResults, Reliability, StrategyResult, Verdict
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import Question
from sessionfx.space.described import described_in, kind_of
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.agreement import Agreement
from sessionfx.statistics.bayes_factor import BayesFactors
from sessionfx.statistics.equivalence import Equivalence

if TYPE_CHECKING:
    from sessionfx.group.influence import Influence
    from sessionfx.group.study import ContrastStudy
    from sessionfx.group.weights import ParticipantWeights

PEAK_INTERVALS = (
    "Not corrected for the choice of the place: at a peak, chosen because z is large, intervals lie too far from 0."
)
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
# Of family-wise p values
FAMILY_WISE = ("voxelFWE", "clusterSizeFWE", "clusterMassFWE", "tfceFWE")
# Fields of their sidecars, and of `PermutationResult`
_PERMUTATION_FIELDS = {
    "NumberOfPermutations": "n_permutations",
    "NumberOfDistinctPermutations": "n_possible",
    "PermutationScheme": "scheme",
    "ClusterFormingP": "cluster_forming_p",
    "SmallestAttainableP": "smallest_p",
    "PermutationNote": "warning",
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

    @property
    def folder(self) -> Path:
        """Where group results go."""
        return self.output_dir / "group"

    @cached_property
    def _first_sidecar(self) -> dict[str, Any]:
        return read_sidecar(self.maps[0].effect)

    @property
    def _extension(self) -> str:
        return self.maps[0].extension

    def _paths(self, entities: Mapping[str, str | None], statistics: Iterable[str]) -> dict[str, Path]:
        return statmap_paths(self.folder, entities, statistics, self._extension)

    def _sources(self, rows: Iterable[int] | None = None) -> list[str]:
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
    def _contrast_fields(self) -> dict[str, Any]:
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

    def named_outputs(self, question: Question, strategy: str, statistics: Iterable[str]) -> dict[str, Path]:
        """Files of the answer of a strategy that a reader opens, by what they are called on the page."""
        entities = self._of_strategy(question, strategy)
        shown = [name for name in ("z", "effect", "F", "t") if name in statistics]
        maps = {name: files_of(path) for name, path in self._paths(entities, shown).items()}
        return {
            **{
                f"{name} map" + (f" ({side})" if len(paths) > 1 else ""): path
                for name, paths in maps.items()
                for side, path in zip(("left", "right"), paths, strict=False)
            },
            "clusters": self._clusters_path(entities),
            "design": self._design_path(entities),
            "answers": self._table_path(self._entities(question), "answers"),
            "validity": self._verdict_path(self._entities(question)),
        }

    def outputs_of_answer(self, question: Question, strategy: str) -> tuple[Path, ...]:
        """Paths of all files that may be made of the answer of a strategy, by its label in file names."""
        entities = self._of_strategy(question, strategy)
        maps = [*self._paths(entities, (*STATISTICS, "F", "dof", "n", "log10BF10")).values(),
                *self._equivalence_paths(entities), *self._weights_paths(entities).values()]  # fmt: skip
        design = self._design_path(entities)
        tables = [design, self._clusters_path(entities)]
        return (*with_sidecars(maps), *tables, *(table.with_suffix(".json") for table in tables))

    def outputs_of_permutation(self, question: Question, strategy: str) -> tuple[Path, ...]:
        """Paths of all family-wise p maps of a strategy."""
        maps = [self._permutation_path(self._of_strategy(question, strategy), kind) for kind in FAMILY_WISE]
        return tuple(with_sidecars(maps))

    def agreement(self, question: Question) -> Path:
        """Path of the table of how answers agree."""
        return self._table_path(self._entities(question), "agreement")

    def outputs_of_verdict(self, question: Question) -> tuple[Path, ...]:
        """Paths of the verdict about a question, and of its table of answers."""
        base = self._entities(question)
        return (self._table_path(base, "answers"), self._verdict_path(base))

    def outputs_of_reliability(self) -> tuple[Path, ...]:
        """Paths of the maps of reliability and their summary."""
        maps = [self._reliability_path(name) for name in _RELIABILITY]
        return (self._table_path(self._whole, "reliability"), *with_sidecars(maps))

    def influence(self, question: Question) -> Path:
        """Path of the table of what the answer to report would be without each participant."""
        return self._table_path(self._entities(question), "influence")

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
        base = self._whole if question is None else self._entities(question)
        return self._table_path({**base, "atlas": atlas}, desc)

    def _of_strategy(self, question: Question, strategy: str) -> dict[str, str | None]:
        return {**self._entities(question), "strategy": strategy}

    def _equivalence_paths(self, entities: Mapping[str, str | None]) -> tuple[Path, Path]:
        return (
            self._map_path(entities, "z", "equivalence"),
            self.folder / file_name({**entities, "desc": "equivalence"}, "mask", self._extension),
        )

    def _weights_paths(self, entities: Mapping[str, str | None]) -> dict[str, Path]:
        return {desc: self._map_path(entities, "weight", desc) for desc in ("participants", "smallest", "belowHalf")}

    def _permutation_path(self, entities: Mapping[str, str | None], kind: str) -> Path:
        return self._map_path(entities, "p", kind)

    def _reliability_path(self, name: str) -> Path:
        return self._map_path(self._whole, name, "reliability")

    def _map_path(self, entities: Mapping[str, str | None], statistic: str, desc: str) -> Path:
        return self.folder / file_name({**entities, "stat": statistic, "desc": desc}, STATMAP_SUFFIX, self._extension)

    def _design_path(self, entities: Mapping[str, str | None]) -> Path:
        return self.folder / file_name(entities, "design", ".tsv")

    def _clusters_path(self, entities: Mapping[str, str | None]) -> Path:
        return self.folder / file_name(entities, "clusters", ".tsv")

    def _verdict_path(self, base: Mapping[str, str | None]) -> Path:
        return self.folder / file_name(base, "validity", ".json")

    def _table_path(self, base: Mapping[str, str | None], desc: str) -> Path:
        return self.folder / file_name({**base, "desc": desc}, "metrics", ".tsv")

    def write_verdict(self, results: QuestionResults) -> None:
        """Write which answers to one question can be trusted, and a table of them with their judgements."""
        base = self._entities(results.question)
        content = _describe_verdict(results.question, results.verdict) | {
            "Finding": finding(results),
            "Result": self._describe_result(results),
            "Software": SOFTWARE,
        }
        write_json(self._verdict_path(base), {"Contrast": self.contrast_text, **content})
        self._write_table(
            pd.DataFrame(self._answer_row(answer, results) for answer in results.strategies), base, "answers"
        )

    def _answer_row(self, answer: StrategyResult, results: QuestionResults) -> dict[str, Any]:
        """Say in a row of the table of answers what was asked, and what a strategy finds."""
        question, recommended = results.question, results.verdict.recommended
        z_map = self._paths(self._of_strategy(question, answer.label), ["z"])["z"]
        return {
            "first_level_contrast": self.contrast,
            "session_contrast": question.sessions.text,
            "group_contrast": question.group.text,
            **answer_summary(answer, results.verdict),
            "recommended": recommended.index(answer.name) + 1 if answer.name in recommended else None,
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
        estimate, entities = best.stat_map.estimate, self._of_strategy(results.question, best.label)
        row, statistic = answer_summary(best, results.verdict), "effect" if estimate.two_sided else "F"
        features = best.stat_map.space.features
        files = {
            **self._paths(entities, (statistic, "z")),
            "clusters": self._clusters_path(entities),
            "design": self._design_path(entities),
        }
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
            "Peak": peak_of(row),
            "ClusterPeaks": _peaks(best.clusters),
        }

    def _named(self, path: Path) -> str | list[str]:
        """Name a file, or those of both hemispheres."""
        names = [self._relative(file) for file in files_of(path)]
        return names if len(names) > 1 else names[0]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.output_dir).as_posix()

    def write_calibration(self, table: pd.DataFrame) -> None:
        """Write the rates found in simulated studies."""
        self._write_table(table, self._whole, "calibration")

    def read_calibration(self) -> pd.DataFrame:
        """Read the rates back."""
        path = self.calibration
        try:
            return pd.read_csv(io.StringIO(read_text(path)), sep="\t", na_values=["n/a"], keep_default_na=False)
        except (UnreadableFileError, ValueError) as error:
            raise _damaged(path, error) from None

    def read_permutation(self, question: Question, strategy: str, mask: NDArray[np.bool_]) -> PermutationResult | None:
        """Read the permutation of a finished answer back, where it has one.

        Parameters
        ----------
        question : Question
        strategy : str
            Its label in file names.
        mask : ndarray of bool, of the space's shape
            Where the answer is.
        """
        sidecar: dict[str, Any] = {}
        values = {}
        for kind in FAMILY_WISE:
            path = self._permutation_path(self._of_strategy(question, strategy), kind)
            if not all(file.exists() for file in files_of(path)):
                continue
            try:
                sidecar = read_sidecar(path)
                values[kind] = -np.log10(read_map(path)[0][mask])
                missing = [field for field in _PERMUTATION_FIELDS if field not in sidecar]
            except (ParticipantError, IndexError) as error:
                raise _damaged(path, error) from None
            if missing:
                raise _damaged(sidecar_path(path), f"{missing[0]} is missing")
        if not values:
            return None
        known = {name: sidecar[field] for field, name in _PERMUTATION_FIELDS.items()}
        return PermutationResult(**known, neg_log10_p=values, mask=mask)

    @property
    def _whole(self) -> dict[str, str | None]:
        """Entities of what belongs to no single question."""
        return {**self.selection.entities, "contrast": self.contrast}

    def _entities(self, question: Question) -> dict[str, str | None]:
        return _entities(self.selection, self.contrast, question)

    def _sidecar(self, question: Question, result: Answer) -> dict[str, Any]:
        first, plan = self._first_sidecar, result.plan
        parameters = first.get("ModelParameters")
        participants = tuple(dict.fromkeys(self.maps[row].participant for row in plan.rows))
        left_out = {**self.left_out, **plan.left_out}
        return {
            "Description": plan.description,
            "Sources": self._sources(plan.rows),
            **self._contrast_fields,
            "SessionContrast": question.sessions.text,
            **question.sessions.order_fields,
            "GroupContrast": question.group.text,
            "CombinationLevel": "participant",
            "Strategy": result.name,
            "NumberOfInputs": plan.n_maps,
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

    def write_answer(
        self, question: Question, result: StrategyResult, weights: tuple[Answer, ParticipantWeights] | None
    ) -> None:
        """Write the answer of a strategy, where it has one: maps, design and clusters, and weights of participants."""
        if not isinstance(result, Answer):
            return
        plan, stat_map = result.plan, result.stat_map
        entities, sidecar = self._of_strategy(question, result.label), self._sidecar(question, result)
        write_statmaps(self.folder, entities, stat_map, sidecar, question.units)
        if result.equivalence is not None:
            self._write_equivalence(result.equivalence, stat_map, entities, sidecar, question.units)
        if result.bayes_factors is not None:
            self._write_bayes_factors(question, result.bayes_factors, stat_map, entities, sidecar)
        table = plan.design_matrix.rename_axis("observation").reset_index()
        design = self._design_path(entities)
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
        clusters = self._clusters_path(entities)
        write_text(clusters, result.clusters.replace("", "n/a").to_csv(sep="\t", index=False, na_rep="n/a"))
        write_json(clusters.with_suffix(".json"), describe_clusters(result.clusters, question.units))
        if weights is not None:
            self._write_weights(question, *weights)

    def write_permutation(self, question: Question, result: StrategyResult) -> None:
        """Write the family-wise p values of an answer, where it has them."""
        if not isinstance(result, Answer) or result.permutation is None:
            return
        stat_map, permutation = result.stat_map, result.permutation
        sidecar = self._sidecar(question, result)
        n_without = int((stat_map.mask & ~permutation.mask).sum())
        if n_without:  # maps that are not there cannot be exchanged
            sidecar["VoxelsWithoutPermutation"] = n_without
        for kind, neg_log10_p in permutation.neg_log10_p.items():
            content = {
                **sidecar,
                "Description": f"{sidecar['Description']} Family-wise p value ({kind}) from "
                f"{permutation.n_permutations} resamplings of participants; 1 outside the mask.",
                "StatisticType": "p",
                "NumberOfPermutations": permutation.n_permutations,
                "RandomSeed": self.model.random_seed,
                **{field: getattr(permutation, name) for field, name in _PERMUTATION_FIELDS.items()},
                "Software": SOFTWARE,
            }
            path = self._permutation_path(self._of_strategy(question, result.label), kind)
            write_statmap(path, 10.0**-neg_log10_p, permutation.mask, stat_map.space, content)

    def _write_equivalence(
        self,
        tests: Equivalence,
        stat_map: StatMap[Any],
        entities: dict[str, str | None],
        sidecar: dict[str, Any],
        units: str,
    ) -> None:
        content = {
            **sidecar,
            "EquivalenceBound": tests.bound,
            "EquivalenceBoundUnits": units,
            "Threshold": tests.threshold if np.isfinite(tests.threshold) else None,
            "ErrorRate": self.model.alpha,
            "MultipleComparisonsCorrection": self.model.correction,
            **dof_fields(stat_map.estimate, stat_map.space.features),
            "Software": SOFTWARE,
        }
        of_z, of_mask = self._equivalence_paths(entities)
        within = tests.within(units)
        texts = {
            of_z: f"Two one-sided tests that the effect lies {within}: normal deviate with the larger of their p, "
            "large where it does; 0 outside the mask.",
            of_mask: f"1 where the effect is shown to lie {within}, with z at or above the threshold; 0 elsewhere.",
        }
        described = {
            path: {**content, "Description": f"{sidecar['Description']} {text}"} for path, text in texts.items()
        }
        write_statmap(of_z, tests.z, stat_map.mask, stat_map.space, {**described[of_z], "StatisticType": "z"})
        write_sidecars(of_mask, stat_map.space, {**described[of_mask], "Type": "ROI"})
        write_map(of_mask, tests.mask, stat_map.mask, stat_map.space, dtype=np.uint8)

    def _write_bayes_factors(
        self,
        question: Question,
        factors: BayesFactors,
        stat_map: StatMap[Any],
        entities: dict[str, str | None],
        sidecar: dict[str, Any],
    ) -> None:
        of_covariate = " of two standard deviations of the covariate" if question.group.covariate else ""
        path = self._paths(entities, ["log10BF10"])["log10BF10"]
        content = {
            **sidecar,
            "Description": f"{sidecar['Description']} Decimal logarithm of the Bayes factor for an effect against "
            "none, below 0 where the data speak for none; 0 outside the mask.",
            "StatisticType": "log10BF10",
            "Prior": f"Cauchy, on the effect{of_covariate} in standard deviations between participants",
            "PriorScale": factors.scale,
            "EffectiveSampleSize": factors.n,
            **dof_fields(stat_map.estimate, stat_map.space.features),
            "Software": SOFTWARE,
        }
        write_statmap(path, factors.log10, stat_map.mask, stat_map.space, content)

    def _write_weights(self, question: Question, result: Answer, weights: ParticipantWeights) -> None:
        """Write how much participants count at each voxel: the smallest weight, how many have little, and all."""
        stat_map, sidecar = result.stat_map, self._sidecar(question, result)
        paths = self._weights_paths(self._of_strategy(question, result.label))
        maps: dict[str, tuple[str, str, NDArray[Any]]] = {
            "smallest": ("Weight of the participant who counts least", "percent", weights.smallest),
            "belowHalf": ("Number of participants who count less than half", "participants", weights.n_below_half),
        }
        if weights.percent is not None:
            text = "Weight of each participant, a volume for each of Participants"
            maps["participants"] = (text, "percent", weights.percent)
        for desc, (text, units, values) in maps.items():
            content = {
                **sidecar,
                "Description": f"{sidecar['Description']} {text}; 0 outside the mask.",
                "StatisticType": "weight",
                "Units": units,
                "Participants": list(weights.participants),
                "MeanWeights": weights.means,
                "Software": SOFTWARE,
            }
            write_sidecars(paths[desc], stat_map.space, content)
            write_map(
                paths[desc], values, stat_map.mask, stat_map.space,
                dtype=np.uint8 if desc == "participants" else np.float32,
                names=weights.participants if desc == "participants" else (desc,),
            )  # fmt: skip

    def write_agreement(self, results: QuestionResults) -> None:
        """Write how the answers to one question agree, pair by pair."""
        self._write_table(agreement_table(results.pairs), self._entities(results.question), "agreement")

    def write_influence(self, question: Question, best: StrategyResult | None, influence: Influence) -> None:
        """Write what the answer to report would be without each participant, with what the columns mean."""
        if best is None or not len(influence.table):
            return
        path = self.influence(question)
        write_text(path, table_text(influence.table))
        content = {
            "Description": "What the answer to report would be without each participant.",
            "Strategy": best.name,
            "Threshold": best.threshold if np.isfinite(best.threshold) else None,
            **{name: {"Description": text} for name, text in _INFLUENCE_COLUMNS.items() if name in influence.table},
            **({"Note": influence.note} if influence.note else {}),
            "Software": SOFTWARE,
        }
        self._describe(path, content)

    def write_likeness(self, likeness: Likeness) -> None:
        """Write how like the others' participants' maps are, with what the columns mean, where there are enough."""
        if not len(likeness.participants):
            return
        write_text(self.likeness, table_text(likeness_table(likeness)))
        content = {
            "Description": "Participants' maps beside the median of the other participants, in voxels all over the "
            "brain: the mean over a participant's maps (session n/a), then each map.",
            **{column: {"Description": text} for column, text in _LIKENESS_COLUMNS.items()},
            "Sources": self._sources(),
            "Software": SOFTWARE,
        }
        self._describe(self.likeness, content)

    def write_reliability(self, reliability: Reliability | None, stack: MapStack) -> None:
        """Write the maps of reliability at the voxels of a stack and their summary, where there are any."""
        if reliability is None:
            return
        self._write_table(reliability.summary, self._whole, "reliability")
        for name, values in reliability.maps.items():
            words, units = _RELIABILITY[name]
            content = {
                "Description": f"{words}; 0 outside the mask.",
                "StatisticType": name,
                **({"Units": units.format(units_in(self._first_sidecar))} if units else {}),
                "Sources": self._sources(),
                "NumberOfInputs": len(self.maps),
                "NumberOfParticipants": len({found.participant for found in self.maps}),
                "Software": SOFTWARE,
            }
            write_statmap(self._reliability_path(name), np.nan_to_num(values), stack.mask, stack.space, content)

    def _describe(self, table: Path, content: Mapping[str, Any]) -> None:
        """Write the sidecar of a table in the words of the maps' space."""
        write_json(table.with_suffix(".json"), described_in(kind_of(self._extension), content))

    def _write_table(self, table: pd.DataFrame, base: dict[str, str | None], desc: str) -> None:
        write_text(self._table_path(base, desc), table_text(table))


def _damaged(path: Path, error: Exception | str) -> LevelError:
    return LevelError(f"{path} cannot be read back ({error}). Run the group level again with --force.")


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


def _describe_verdict(question: Question, verdict: Verdict) -> dict[str, Any]:
    return {
        "Description": "Which strategies can be trusted for this session contrast, from the design and the data.",
        "SessionContrast": question.sessions.text,
        "GroupContrast": question.group.text,
        "Verdict": verdict.text,
        **judgement_fields(verdict),
    }


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


def describe_clusters(clusters: pd.DataFrame, units: str) -> dict[str, Any]:
    """Describe the columns of a table of clusters."""
    effects = ("Effect at the peak", "Standard error of the effect", "Lower end", "Upper end")
    columns = {
        "Cluster ID": {"Description": "Number of the cluster; a letter marks a further peak of it."},
        "Hemisphere": {"Description": "Hemisphere of the peak, L or R."},
        "Structure": {"Description": "Structure of the peak, as CIFTI calls it."},
        "Vertex": {"Description": "Number of the peak's vertex in its hemisphere, from 0; n/a of voxels."},
        **{axis: {"Description": f"{axis.lower()} of the peak.", "Units": "mm"} for axis in "XYZ"},
        "Peak Stat": {"Description": "z at the peak."},
        "Cluster Size (mm3)": {"Description": "Volume of the cluster.", "Units": "mm^3"},
        "Cluster Size (mm2)": {"Description": "Area of the cluster.", "Units": "mm^2"},
        "Participants": {"Description": "How many have a value at the peak."},
        "Region": {"Description": "Name of the atlas' region at the peak."},
    }
    for name, text in zip(INTERVAL_COLUMNS, effects, strict=True):
        of_interval = f" of the t interval of the effect, 95 %. {PEAK_INTERVALS}" if "95" in name else "."
        columns[name] = {"Description": f"{text}{of_interval}", "Units": units}
    return {name: columns[name] for name in clusters.columns if name in columns}


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

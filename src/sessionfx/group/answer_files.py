"""The files of the answer of one strategy to one question: maps, design, clusters, family-wise p values, weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.bids.derivatives import SOFTWARE
from sessionfx.bids.names import STATISTICS, STATMAP_SUFFIX, file_name, files_of
from sessionfx.bids.stat_maps import (
    dof_fields,
    read_map,
    read_sidecar,
    sidecar_path,
    statmap_paths,
    with_sidecars,
    write_sidecars,
    write_statmap,
    write_statmaps,
)
from sessionfx.bids.writing import write_json, write_map, write_text
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.group.clusters import INTERVAL_COLUMNS
from sessionfx.group.permutation import PermutationResult
from sessionfx.group.results import Answer, StrategyResult
from sessionfx.group.strategies.base import Question
from sessionfx.statistics.bayes_factor import BayesFactors
from sessionfx.statistics.equivalence import Equivalence

if TYPE_CHECKING:
    from sessionfx.group.files import GroupFiles
    from sessionfx.group.weights import ParticipantWeights

PEAK_INTERVALS = (
    "Not corrected for the choice of the place: at a peak, chosen because z is large, intervals lie too far from 0."
)
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


@dataclass(frozen=True)
class AnswerFiles:
    """Writes the answer of one strategy to one question."""

    files: GroupFiles  # of the first-level contrast
    question: Question
    strategy: str  # its label in file names

    @property
    def _entities(self) -> dict[str, str | None]:
        return {**self.files.entities(self.question), "strategy": self.strategy}

    def maps(self, statistics: Iterable[str]) -> dict[str, Path]:
        """Paths of maps of some statistics."""
        return statmap_paths(self.files.folder, self._entities, statistics, self.files.extension)

    @property
    def design(self) -> Path:
        """Path of the design matrix."""
        return self.files.folder / file_name(self._entities, "design", ".tsv")

    @property
    def clusters(self) -> Path:
        """Path of the table of clusters."""
        return self.files.folder / file_name(self._entities, "clusters", ".tsv")

    def _map(self, statistic: str, desc: str, suffix: str = STATMAP_SUFFIX) -> Path:
        entities = {**self._entities, "stat": statistic or None, "desc": desc}
        return self.files.folder / file_name(entities, suffix, self.files.extension)

    @property
    def _equivalence(self) -> tuple[Path, Path]:
        return self._map("z", "equivalence"), self._map("", "equivalence", "mask")

    def named(self, statistics: Iterable[str]) -> dict[str, Path]:
        """Files that a reader opens, by what they are called on the page."""
        maps = self.maps(name for name in ("z", "effect", "F", "t") if name in statistics)
        return {
            **{
                f"{name} map" + (f" ({side})" if len(files_of(path)) > 1 else ""): file
                for name, path in maps.items()
                for side, file in zip(("left", "right"), files_of(path), strict=False)
            },
            "clusters": self.clusters,
            "design": self.design,
            "answers": self.files.answers(self.question),
            "validity": self.files.verdict(self.question),
        }

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Paths of all files that may be made of the answer."""
        weights = [self._map("weight", desc) for desc in ("participants", "smallest", "belowHalf")]
        maps = [*self.maps((*STATISTICS, "F", "dof", "n", "log10BF10")).values(), *self._equivalence, *weights]
        tables = [self.design, self.clusters]
        return (*with_sidecars(maps), *tables, *(table.with_suffix(".json") for table in tables))

    @property
    def outputs_of_permutation(self) -> tuple[Path, ...]:
        """Paths of all family-wise p maps."""
        return tuple(with_sidecars(self._map("p", kind) for kind in FAMILY_WISE))

    def write(self, answer: StrategyResult, weights: tuple[Answer, ParticipantWeights] | None) -> None:
        """Write an answer, where there is one: maps, design and clusters, and weights of participants with theirs."""
        if not isinstance(answer, Answer):
            return
        units = self.question.units
        write_statmaps(self.files.folder, self._entities, answer.stat_map, self._sidecar(answer), units)
        if answer.equivalence is not None:
            self._write_equivalence(answer, answer.equivalence)
        if answer.bayes_factors is not None:
            self._write_bayes_factors(answer, answer.bayes_factors)
        self._write_design(answer)
        write_text(self.clusters, answer.clusters.replace("", "n/a").to_csv(sep="\t", index=False, na_rep="n/a"))
        write_json(self.clusters.with_suffix(".json"), describe_clusters(answer.clusters, units))
        if weights is not None:
            self._write_weights(*weights)

    def _with_level_names(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """Name the last level of a covariate, which has no column of its own, where groups are told apart."""
        last = {covariate: f"{covariate}[{levels[-1]}]" for covariate, levels in self.files.levels.items()}
        return {
            key: {last.get(group, group): value for group, value in found.items()} if key.endswith("ByGroup") else found
            for key, found in details.items()
        }

    def _sidecar(self, answer: Answer, text: str = "", **fields: Any) -> dict[str, Any]:
        """Give the fields of all sidecars, what one map is in words, and its own fields."""
        files, plan, asked = self.files, answer.plan, self.question
        found = {
            "Description": f"{plan.description} {text}".strip(),
            "Sources": files.sources(plan.rows),
            **files.contrast_fields,
            "SessionContrast": asked.sessions.text,
            **asked.sessions.order_fields,
            "GroupContrast": asked.group.text,
            "CombinationLevel": "participant",
            "Strategy": answer.name,
            "NumberOfInputs": plan.n_maps,
            "NumberOfParticipants": len({files.maps[row].participant for row in plan.rows}),
            "LeftOutParticipants": {f"sub-{label}": why for label, why in {**files.left_out, **plan.left_out}.items()},
            "Caution": " ".join(plan.warnings),
            "FixedEffectsWeighting": files.weighting,
            **self._with_level_names(plan.details),
            "ModelParameters": files.model_parameters,
        }
        return {**found, **fields, "Software": SOFTWARE} if fields else found

    def _write_design(self, answer: Answer) -> None:
        matrix, contrast = answer.plan.design_matrix, answer.plan.contrast
        table = matrix.rename_axis("observation").reset_index()
        write_text(self.design, table.to_csv(sep="\t", index=False, na_rep="n/a"))
        columns = list(map(str, matrix.columns))
        contrasts = [dict(zip(columns, map(float, row), strict=True)) for row in np.atleast_2d(contrast)]
        description = {
            "Description": "Group design matrix: one row per observation, one column per regressor.",
            "Contrast": contrasts[0] if contrast.ndim == 1 else contrasts,
            "DegreesOfFreedom": answer.stat_map.estimate.typical_dof,
            "Strategy": answer.name,
            "Software": SOFTWARE,
        }
        write_json(self.design.with_suffix(".json"), description)

    def write_permutation(self, answer: StrategyResult) -> None:
        """Write the family-wise p values of an answer, where it has them."""
        if not isinstance(answer, Answer) or answer.permutation is None:
            return
        stat_map, permutation = answer.stat_map, answer.permutation
        # maps that are not there cannot be exchanged
        n_without = int((stat_map.mask & ~permutation.mask).sum())
        for kind, neg_log10_p in permutation.neg_log10_p.items():
            content = self._sidecar(
                answer,
                f"Family-wise p value ({kind}) from {permutation.n_permutations} resamplings of participants; 1 "
                "outside the mask.",
                **({"VoxelsWithoutPermutation": n_without} if n_without else {}),
                StatisticType="p",
                NumberOfPermutations=permutation.n_permutations,
                RandomSeed=self.files.model.random_seed,
                **{
                    field: getattr(permutation, name)
                    for field, name in _PERMUTATION_FIELDS.items()
                    if name != "n_permutations"
                },
            )
            write_statmap(self._map("p", kind), 10.0**-neg_log10_p, permutation.mask, stat_map.space, content)

    def read_permutation(self, mask: NDArray[np.bool_]) -> PermutationResult | None:
        """Read the permutation of a finished answer back, where it has one; the mask is where the answer is."""
        sidecar: dict[str, Any] = {}
        values = {}
        for kind in FAMILY_WISE:
            path = self._map("p", kind)
            if not all(file.exists() for file in files_of(path)):
                continue
            try:
                sidecar = read_sidecar(path)
                values[kind] = -np.log10(read_map(path)[0][mask])
                missing = [field for field in _PERMUTATION_FIELDS if field not in sidecar]
            except (ParticipantError, IndexError) as error:
                raise damaged(path, error) from None
            if missing:
                raise damaged(sidecar_path(path), f"{missing[0]} is missing")
        if not values:
            return None
        known = {name: sidecar[field] for field, name in _PERMUTATION_FIELDS.items()}
        return PermutationResult(**known, neg_log10_p=values, mask=mask)

    def _write_equivalence(self, answer: Answer, tests: Equivalence) -> None:
        stat_map, model, units = answer.stat_map, self.files.model, self.question.units
        fields = {
            "EquivalenceBound": tests.bound,
            "EquivalenceBoundUnits": units,
            "Threshold": tests.threshold if np.isfinite(tests.threshold) else None,
            "ErrorRate": model.alpha,
            "MultipleComparisonsCorrection": model.correction,
            **dof_fields(stat_map.estimate, stat_map.space.features),
        }
        (of_z, of_mask), within = self._equivalence, tests.within(units)
        about_z = self._sidecar(
            answer,
            f"Two one-sided tests that the effect lies {within}: normal deviate with the larger of their p, large "
            "where it does; 0 outside the mask.",
            **fields,
        )
        write_statmap(of_z, tests.z, stat_map.mask, stat_map.space, {**about_z, "StatisticType": "z"})
        about_mask = self._sidecar(
            answer,
            f"1 where the effect is shown to lie {within}, with z at or above the threshold; 0 elsewhere.",
            **fields,
        )
        write_sidecars(of_mask, stat_map.space, {**about_mask, "Type": "ROI"})
        write_map(of_mask, tests.mask, stat_map.mask, stat_map.space, dtype=np.uint8)

    def _write_bayes_factors(self, answer: Answer, factors: BayesFactors) -> None:
        stat_map = answer.stat_map
        of_covariate = " of two standard deviations of the covariate" if self.question.group.covariate else ""
        content = self._sidecar(
            answer,
            "Decimal logarithm of the Bayes factor for an effect against none, below 0 where the data speak for none; "
            "0 outside the mask.",
            StatisticType="log10BF10",
            Prior=f"Cauchy, on the effect{of_covariate} in standard deviations between participants",
            PriorScale=factors.scale,
            EffectiveSampleSize=factors.n,
            **dof_fields(stat_map.estimate, stat_map.space.features),
        )
        (path,) = self.maps(["log10BF10"]).values()
        write_statmap(path, factors.log10, stat_map.mask, stat_map.space, content)

    def _write_weights(self, answer: Answer, weights: ParticipantWeights) -> None:
        """Write how much participants count at each voxel: the smallest weight, how many have little, and all."""
        stat_map = answer.stat_map
        maps: dict[str, tuple[str, str, NDArray[Any]]] = {
            "smallest": ("Weight of the participant who counts least", "percent", weights.smallest),
            "belowHalf": ("Number of participants who count less than half", "participants", weights.n_below_half),
        }
        if weights.percent is not None:
            text = "Weight of each participant, a volume for each of Participants"
            text += "" if weights.are_all_everywhere else ", 0 where a participant takes no part"
            maps["participants"] = (text, "percent", weights.percent)
        for desc, (text, units, values) in maps.items():
            content = self._sidecar(
                answer, f"{text}; 0 outside the mask.", StatisticType="weight", Units=units,
                Participants=list(weights.participants), MeanWeights=weights.means,
            )  # fmt: skip
            path = self._map("weight", desc)
            write_sidecars(path, stat_map.space, content)
            write_map(
                path, values, stat_map.mask, stat_map.space,
                dtype=np.uint8 if desc == "participants" else np.float32,
                names=weights.participants if desc == "participants" else (desc,),
            )  # fmt: skip


def damaged(path: Path, error: Exception | str) -> LevelError:
    """Say that a file of an earlier call cannot be read."""
    return LevelError(f"{path} cannot be read back ({error}). Run the group level again with --force.")


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

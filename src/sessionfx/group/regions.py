"""The regions of an atlas as voxels of the same strategies: values of each map, answers, and which to report.

A region's effect in a map is the mean over its voxels that the map has. Where every map is of this program and was made
with the same atlas, effect and variance are those of the fit of the region's mean series, from the tables that the
participant level writes; a mean of maps has no variance, as it is not known how voxels go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.bids.atlas import Atlas
from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.bids.region_tables import count_column, read_region_table, region_table_beside
from sessionfx.bids.stat_maps import read_effect
from sessionfx.errors import LevelError
from sessionfx.execution import in_threads
from sessionfx.group.answers import GroupEstimator
from sessionfx.group.peaks import by_participant, estimate_at, sessions_at
from sessionfx.group.results import Peak, QuestionResults, StrategyResult, answers_among
from sessionfx.group.stack import MapStack, maps_needed
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.group.strategies.blocks import block_width
from sessionfx.group.study import ContrastStudy
from sessionfx.space.regions import LEAST_SHARE, Regions
from sessionfx.wording import counted, listed

NO_VARIANCE = (
    "It needs the variance of each region's mean, which maps do not tell. Run the participant level with the same "
    "--atlas: its tables have it."
)


@dataclass(frozen=True)
class RegionValues:
    """What N maps are in R regions."""

    effects: NDArray[np.float64]  # (N, R): NaN where a map has too little of a region
    variances: NDArray[np.float64] | None  # (N, R): None where they are not known
    n_voxels: NDArray[np.intp]  # (N, R): that a map has
    shares: NDArray[np.float64]  # (N, R): of each region's voxels in the space of the maps

    @property
    def coverage(self) -> NDArray[np.intp]:
        """How many maps have each region, of shape (R,)."""
        return np.asarray(np.isfinite(self.effects).sum(axis=0))


@dataclass(frozen=True)
class ContrastRegions:
    """The regions of one atlas, and what is found in them for one first-level contrast."""

    atlas: Atlas
    study: ContrastStudy  # its maps and questions
    stack: MapStack  # of these maps, whose space and layout count here
    estimator: GroupEstimator

    @cached_property
    def regions(self) -> Regions:
        """The regions in the space of the maps."""
        return self.atlas.on(self.stack.space)

    @property
    def rows(self) -> list[FirstLevelMap]:
        """All maps, those of the further rows of an F test after the others, as the stack has them."""
        return [of_row for row in zip(*(found.of_rows for found in self.study.maps), strict=True) for of_row in row]

    @cached_property
    def measured(self) -> RegionValues:
        """What each map is in each region."""
        return self._from_tables() or self._from_maps()

    def _from_tables(self) -> RegionValues | None:
        """Read the tables of the participant level; None unless every map has one of the same atlas."""
        found = [read_region_table(path, self.atlas, self.stack.space) for path in self.tables]
        if not found or any(table is None for table in found):
            return None
        tables = [table.set_index("index").reindex(self.regions.indices) for table in found if table is not None]
        effects, variances, n_voxels, shares = (
            np.array([table[column] for table in tables], dtype=float)
            for column in ("effect", "variance", count_column(self.stack.space), "share")
        )
        return RegionValues(effects, variances, np.nan_to_num(n_voxels).astype(np.intp), np.nan_to_num(shares))

    @property
    def tables(self) -> list[Path]:
        """Where the participant level would have written the regions of each map."""
        return [region_table_beside(found, self.atlas.label) for found in self.rows]

    def _from_maps(self) -> RegionValues:
        regions, first = self.regions, self.rows[0]

        def take(source: FirstLevelMap) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
            effect, _, mask, _ = read_effect(source.effect, source.variance, self.stack.space, str(first.effect))
            return regions.means(effect[mask], mask), regions.counts(mask)

        found = list(in_threads(self.estimator.n_threads, take, [(source,) for source in self.rows]))
        counts = np.array([count for _, count in found])
        shares = regions.shares(counts)
        means = np.array([mean for mean, _ in found])
        return RegionValues(np.where(shares >= LEAST_SHARE, means, np.nan), None, counts, shares)

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Which regions enough maps have, as `--min-coverage` says, of shape (R,)."""
        needed = maps_needed(self.stack.min_coverage, len(self.measured.effects))
        return np.asarray(self.measured.coverage >= needed)

    @property
    def left_out(self) -> dict[str, str]:
        """Regions that are not answered, and why."""
        n_maps, features = len(self.measured.effects), self.stack.space.features
        return {
            name: f"{n_maps - found} of {n_maps} maps have less than {LEAST_SHARE:.0%} of its {features}"
            for name, found, answered in zip(self.regions.names, self.measured.coverage, self.is_answered, strict=True)
            if not answered
        }

    def left_out_of(self, results: QuestionResults) -> dict[str, str]:
        """Regions that the answer to report has not, and why: also those whose maps cannot tell what is asked."""
        answer = results.shown_first
        if answer is None:
            return self.left_out
        untold = self.is_answered & ~answer.stat_map.mask[:, 0, 0]
        names = [name for name, is_untold in zip(self.regions.names, untold, strict=True) if is_untold]
        return self.left_out | dict.fromkeys(names, "those who have it cannot tell what is asked")

    @cached_property
    def _able_estimator(self) -> GroupEstimator:
        """The estimator with the strategies that can do with what is known of regions."""
        estimator = replace(self.estimator, atlases=(), spool=None)
        if self.measured.variances is not None:
            return estimator
        options = estimator.options
        return replace(
            estimator,
            strategies=tuple(own for own in estimator.strategies if not own.needs_variances(options)),
            # the mean that evidence is gathered for can be taken without
            options=replace(options, fixed_effects="equal"),
        )

    @cached_property
    def answers(self) -> Mapping[str, QuestionResults]:
        """The answers to each question, judged, by its label.

        Raises
        ------
        LevelError
            If no region is in enough maps.
        """
        estimator = self._able_estimator
        if not self.is_answered.any():
            raise LevelError(
                f"No region of atlas {self.atlas.label} lies in enough maps: {listed(self.left_out, most=3)}. Leave "
                "--atlas out, or give one in the space of the maps."
            )
        declined = {
            strategy.name: StrategyResult(strategy, NO_VARIANCE)
            for strategy in self.estimator.strategies
            if strategy not in estimator.strategies
        }
        with self._region_stack() as stack:
            found = estimator.estimate(self.study.questions, stack, self.study.analysis.selection.sessions)
        answers = {}
        for question, results in zip(self.study.questions, found.results, strict=True):
            of = {**declined, **{result.name: result for result in results}}
            # neighbours in the list of regions are no clusters
            of |= {answer.name: replace(answer, clusters=pd.DataFrame()) for answer in answers_among(results)}
            complete = [of[strategy.name] for strategy in self.estimator.strategies]
            judged = estimator.judged(question, complete, stack, found.evidence)
            answers[question.label] = replace(judged, verdict=judged.verdict.in_words(_of_regions))
        return answers

    @contextmanager
    def _region_stack(self) -> Iterator[MapStack]:
        """Keep the values as maps whose voxels are the regions that are answered."""
        values, chosen, folder = self.measured, self.is_answered, self.study.analysis.folder
        size = (len(values.effects), int(chosen.sum()), block_width(len(values.effects)))
        mask = self.regions.as_mask(chosen)
        with ExitStack() as files:
            stores = []
            for own in (values.effects, values.variances):
                store = None
                if own is not None:
                    store = BlockStore(files.enter_context(scratch_file(folder)), folder, *size)
                    store.write(0, own[:, chosen])
                stores.append(store)
            effects, variances = stores
            assert effects is not None  # noqa: S101 - there always are effects
            yield MapStack(
                layout=self.stack.layout, mask=mask, space=self.regions.grid,
                coverage=values.coverage.reshape(mask.shape), warnings=(), stored=effects,
                stored_variances=variances, common=np.ones(size[1], dtype=bool), min_coverage=self.stack.min_coverage,
            )  # fmt: skip

    def peaks(self, results: QuestionResults, most: int) -> tuple[Peak, ...]:
        """Look at the sessions in the regions where the answer to report is largest.

        The suprathreshold ones, at most so many; where there is none, the one with the largest |z|.
        """
        answer = results.shown_first
        if answer is None:
            return ()
        estimate, numbers = answer.stat_map.estimate, np.flatnonzero(answer.stat_map.mask)
        size = np.abs(estimate.z) if estimate.two_sided else estimate.z
        passes = answer.is_suprathreshold
        found = []
        for at in np.argsort(-size)[: max(1, min(most, int(passes.sum())))]:
            effects = by_participant(self.stack, self.measured.effects[:, numbers[at]])
            found.append(
                Peak(
                    {"region": self.regions.names[numbers[at]]}, float(estimate.z[at]), bool(passes[at]), effects,
                    estimate_at(estimate, at), sessions_at(self.stack.layout, results.question, effects),
                )
            )  # fmt: skip
        return tuple(found)


def _of_regions(text: str) -> str:
    """Call voxels regions: that is what they are here."""
    return text.replace("voxel", "region")


def unanswered(all_regions: Iterable[ContrastRegions]) -> list[str]:
    """Say which regions of which atlas are not answered, as warnings."""
    return [
        f"Atlas {found.atlas.label}: {counted(len(found.left_out), 'region')} not answered, as too few maps have "
        f"{LEAST_SHARE:.0%} of the {found.stack.space.features}: {listed(found.left_out, most=8)}."
        for found in all_regions
        if found.left_out
    ]

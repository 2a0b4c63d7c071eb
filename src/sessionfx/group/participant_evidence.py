"""What participants' values say about what tests of them assume: skewness, outliers, and whether dropout is by chance.

Looked at in some thousand voxels spread over the brain; what is more than chance is judged by `statistics.sign_flips`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import Dropout, ValueEvidence
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question, variance_groups
from sessionfx.group.strategies.participant_values import plan_participants
from sessionfx.statistics.linear_algebra import column_basis, membership_matrix, rank_of
from sessionfx.statistics.sign_flips import (
    EffectiveScores,
    chance,
    effective_scores,
    outlying,
    random_signs,
    squared_skewness,
    standardised_scores,
)

# Voxels that are looked at: more would not be more certain, neighbours being alike. With many participants fewer, so
# that time does not grow.
_VOXELS = 4000
_PARTICIPANTS = 50
# With fewer, signs of residuals and halves of participants are too few to tell anything from chance
FEWEST = 8
_OUTLIER_P = 0.05  # two-sided, over the participants of a voxel
# The skewness of m values is about 1/(1 + 9.5/m) of the true one, for χ² values and m from 6 to 40 (simulated)
_SHRINKAGE = 9.5
_RATIO = 1.0  # of a working correlation of a half
_CONSTANT = 1e-20  # squares of residuals, relative to those of the values, that rounding leaves


def voxel_step(n_voxels: int, n_participants: int) -> int:
    """Say every how many voxels one is looked at."""
    n_looked_at = _VOXELS * min(1.0, _PARTICIPANTS / n_participants)
    return max(1, int(n_voxels / n_looked_at))


@dataclass(frozen=True)
class Looked:
    """What was found in some voxels about the values of n participants."""

    skewness: NDArray[np.float64]  # (F,)
    outlying: NDArray[np.int_]  # (n,)
    n_outlying: int  # voxels in which somebody is an outlier
    # (n,): of residuals, relative to each voxel's sum of them, and to how much of each the design leaves
    squares: NDArray[np.float64]
    n_voxels: int


@dataclass(frozen=True)
class ValueCheck:
    """What is looked at for one question: the values of participants that its summary statistics are."""

    # (S n, N): gives S values of each of n participants: one, or for a test of any difference each session's
    combination: sparse.csr_array
    n_participants: int
    participants: tuple[str, ...]
    design: NDArray[np.float64]  # (n, P)
    # (n,) or (R, n): of participants' values in the estimate over participants, or in the R that are tested together
    weights: NDArray[np.float64]
    groups: tuple[str, ...] = ()  # of each participant, where there is a categorical covariate; else empty

    @classmethod
    def of(cls, layout: MapLayout, question: Question, options: GroupOptions) -> ValueCheck | None:
        """Plan the values of a question; None where participants have none, or are too few to say anything."""
        try:
            plan = plan_participants(layout, question, options)
        except NotEstimableError:
            return None
        design = plan.design_matrix.to_numpy()
        n = len(design)
        if n < FEWEST or n - rank_of(design) < FEWEST // 2:
            return None
        labels = tuple(name.removeprefix("sub-") for name in plan.participant_names)
        _, groups = variance_groups(layout, question, GroupOptions(variance="groups"), layout.first_rows(labels))
        return cls(plan.combinations, n, labels, design, plan.over_participants, groups)

    @property
    def carried(self) -> float:
        """Squared skewness of the estimate, in that of the values: 1/n for a mean, 0 for groups of equal size.

        Of several estimates the largest.
        """
        squares, cubes = (np.sum(self.weights**power, axis=-1) for power in (2, 3))
        return float(np.max(cubes**2 / squares**3))

    @cached_property
    def _basis(self) -> NDArray[np.float64]:
        """Orthonormal basis of the design, once for all blocks."""
        return column_basis(self.design)

    @cached_property
    def _limit(self) -> float:
        """Of externally studentised residuals, beyond which a participant is an outlier."""
        dof = self.n_participants - rank_of(self.design) - 1
        return float(-special.stdtrit(dof, _OUTLIER_P / 2 / self.n_participants))

    def look(self, effects: NDArray[np.float64]) -> Looked:
        """Look at some voxels; what is found adds up."""
        values = np.asarray(self.combination @ effects).reshape(-1, self.n_participants, effects.shape[1])
        values = np.ascontiguousarray(values.transpose(1, 0, 2).reshape(self.n_participants, -1))
        residuals = values - self._basis @ (self._basis.T @ values)
        free = 1 - np.square(self._basis).sum(axis=1)
        total = np.einsum("nv,nv->v", residuals, residuals)
        residuals = residuals[:, total > _CONSTANT * np.einsum("nv,nv->v", values, values)]
        counts, n_any = outlying(residuals, free, self._limit)
        residuals /= np.sqrt(np.einsum("nv,nv->v", residuals, residuals))
        signs = random_signs(self.n_participants)
        return Looked(
            squared_skewness(residuals, signs), counts, n_any, (residuals**2).sum(axis=1) / free,
            residuals.shape[1],
        )  # fmt: skip

    def found(self, parts: Sequence[Looked]) -> ValueEvidence | None:
        """Put together what was found in all voxels."""
        n_voxels = sum(part.n_voxels for part in parts)
        if not n_voxels:
            return None
        skewness = np.sum([part.skewness for part in parts], axis=0)
        counts = np.sum([part.outlying for part in parts], axis=0)
        squares = np.sum([part.squares for part in parts], axis=0)
        groups = np.array(self.groups)
        variances = [squares[groups == level].mean() for level in dict.fromkeys(self.groups)]
        most = int(np.argmax(counts))
        # half of the participants, whose skewness is that much smaller
        shrunk = 1 / (1 + _SHRINKAGE / (self.n_participants // 2))
        return ValueEvidence(
            squared_skewness=float(skewness[0] / n_voxels) / shrunk**2,
            skewness_p=chance(skewness),
            carried=self.carried,
            outlying=sum(part.n_outlying for part in parts) / n_voxels,
            most_outlying=self.participants[most] if counts[most] else None,
            most_outlying_share=float(counts[most] / n_voxels),
            group_spread=float(np.sqrt(max(variances) / min(variances)))
            if len(variances) > 1 and min(variances) > 0
            else None,
        )


@dataclass(frozen=True)
class DropoutCheck:
    """How participants' levels and changes go with the number of sessions they missed.

    Levels of those who missed sessions are compared with those of the others in the same sessions; changes, in straight
    lines over the sessions that each has.
    """

    # participants' scores, and what is expected of each flipped sum of these, (F,); None where these maps cannot tell
    level: tuple[EffectiveScores, NDArray[np.float64]] | None
    change: tuple[EffectiveScores, NDArray[np.float64]] | None

    @classmethod
    def of(cls, layout: MapLayout, cells: NDArray[np.float64]) -> DropoutCheck | None:
        """Prepare; None where all, or none, missed as many sessions, or too few participants are there."""
        labels = layout.unique_participants
        owners = membership_matrix(layout.participants).indices
        counts = np.bincount(owners)
        if len(labels) < FEWEST or np.ptp(counts) == 0:
            return None
        missed = (cells.shape[1] - counts)[owners].astype(float)
        between = layout.between(range(len(owners))).to_numpy()
        nuisance = (cells[:, :, None] * between[:, None, :]).reshape(len(owners), -1)
        level = _prepared(effective_scores(missed, nuisance, owners, _RATIO))

        def within(columns: NDArray[np.float64]) -> NDArray[np.float64]:
            sums = np.zeros((len(labels), columns.shape[1]))
            np.add.at(sums, owners, columns)
            return np.asarray(columns - sums[owners] / counts[owners, None])

        change = None
        if np.count_nonzero(counts > 1) >= FEWEST:
            order = np.argmax(cells, axis=1)
            change = _prepared(effective_scores(within((missed * order)[:, None])[:, 0], within(nuisance), owners, 0.0))
        return cls(level, change)

    def look(self, effects: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, ...]:
        """Look at some voxels: how much more than by chance levels and changes go with missed sessions, (F,) each."""
        found: list[NDArray[np.float64] | None] = []
        for prepared in (self.level, self.change):
            if prepared is None:
                found.append(None)
            else:
                scores, expected = prepared
                found.append(standardised_scores(scores.of(effects), expected, random_signs(len(scores.carried))))
        return tuple(found)

    @staticmethod
    def found(parts: Sequence[tuple[NDArray[np.float64] | None, ...]]) -> Dropout:
        """Put together what was found in all voxels."""
        level, change = (
            None if of_blocks[0] is None else chance(np.sum(np.array(of_blocks), axis=0))
            for of_blocks in zip(*parts, strict=True)
        )
        return Dropout(level, change)


def _prepared(scores: EffectiveScores | None) -> tuple[EffectiveScores, NDArray[np.float64]] | None:
    """Add what is expected of the flipped sums."""
    return None if scores is None else (scores, scores.expected_squares(random_signs(len(scores.carried))))

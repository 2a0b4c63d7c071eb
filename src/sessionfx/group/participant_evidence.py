"""What participants' values say about what tests of them assume: skewness, outliers, and whether dropout is by chance.

Looked at in some thousand voxels spread over the brain; what is more than chance is judged by `statistics.sign_flips`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from sessionfx.errors import NotEstimableError
from sessionfx.group.results import Dropout, ValueEvidence
from sessionfx.statistics.linear_algebra import pseudo_inverse, rank_of
from sessionfx.statistics.sign_flips import chance, outlying, partial_r2, random_signs, squared_skewness
from sessionfx.strategies.base import GroupOptions, MapLayout, Question, variance_groups
from sessionfx.strategies.fixed_effects import FixedEffectsPlan, SessionVectorPlan, plan_session_vectors, plan_values

# Voxels that are looked at: more would not be more certain, neighbours being alike. With many participants fewer, so
# that time does not grow.
_VOXELS = 4000
_PARTICIPANTS = 50
# With fewer, signs of residuals and halves of participants are too few to tell anything from chance
FEWEST = 8
_OUTLIER_P = 0.05  # two-sided, over the participants of a voxel
# The skewness of m values is about 1/(1 + 9.5/m) of the true one, for χ² values and m from 6 to 40 (simulated)
_SHRINKAGE = 9.5
_CONSTANT = 1e-20  # squares of residuals, relative to those of the values, that rounding leaves


def voxel_step(n_voxels: int, n_participants: int) -> int:
    """Say every how many voxels one is looked at."""
    wanted = _VOXELS * min(1.0, _PARTICIPANTS / n_participants)
    return max(1, int(n_voxels / wanted))


@dataclass(frozen=True)
class Looked:
    """What was found in some voxels about the values of n participants.

    Attributes
    ----------
    skewness : ndarray of shape (F,)
    outlying : ndarray of int, shape (n,)
    n_outlying : int
        Voxels in which somebody is an outlier.
    squares : ndarray of shape (n,)
        Of residuals, relative to each voxel's sum of them, and to how much of each the design leaves.
    n_voxels : int
    """

    skewness: NDArray[np.float64]
    outlying: NDArray[np.int_]
    n_outlying: int
    squares: NDArray[np.float64]
    n_voxels: int


@dataclass(frozen=True)
class ValueCheck:
    """What is looked at for one question: the values of participants that its summary statistics are.

    Attributes
    ----------
    combination : csr_array of shape (S n, N)
        Gives S values of each of n participants: one, or for a test of any difference each session's.
    n_participants : int
    participants : tuple of str
    design : ndarray of shape (n, P)
    weights : ndarray of shape (n,)
        Of participants' values in the estimate over participants.
    groups : tuple of str
        Of each participant, where there is a categorical covariate; else empty.
    """

    combination: sparse.csr_array
    n_participants: int
    participants: tuple[str, ...]
    design: NDArray[np.float64]
    weights: NDArray[np.float64]
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, layout: MapLayout, question: Question, options: GroupOptions) -> ValueCheck | None:
        """Plan the values of a question; None where participants have none, or are too few to say anything."""
        is_any = question.sessions.kind == "any"
        try:
            plan = (plan_session_vectors if is_any else plan_values)(layout, question, options)
        except NotEstimableError:
            return None
        design = plan.design_matrix.to_numpy()
        n = len(design)
        if n < FEWEST or n - rank_of(design) < FEWEST // 2:
            return None
        if isinstance(plan, SessionVectorPlan):
            rows = plan.complete.T.ravel()
            combination = sparse.csr_array(
                (np.ones(rows.size), (np.arange(rows.size), rows)), shape=(rows.size, len(layout.participants))
            )
        else:
            assert isinstance(plan, FixedEffectsPlan)  # noqa: S101 - the strategy makes no other
            combination = sparse.csr_array(plan.combination)
        labels = tuple(str(label).removeprefix("sub-") for label in plan.design_matrix.index)
        first_rows = [layout.participants.index(label) for label in labels]
        _, groups = variance_groups(layout, question, GroupOptions(variance="groups"), first_rows)
        return cls(combination, n, labels, design, plan.contrast @ pseudo_inverse(design), groups)

    @property
    def carried(self) -> float:
        """Squared skewness of the estimate, in that of the values: 1/n for a mean, 0 for groups of equal size."""
        squares = float(np.sum(self.weights**2))
        return float(np.sum(self.weights**3)) ** 2 / squares**3

    def look(self, effects: NDArray[np.float64]) -> Looked:
        """Look at some voxels; what is found adds up."""
        values = np.asarray(self.combination @ effects).reshape(-1, self.n_participants, effects.shape[1])
        values = np.ascontiguousarray(values.transpose(1, 0, 2).reshape(self.n_participants, -1))
        residual = np.eye(self.n_participants) - self.design @ pseudo_inverse(self.design)
        residuals = residual @ values
        total = np.einsum("nv,nv->v", residuals, residuals)
        residuals = residuals[:, total > _CONSTANT * np.einsum("nv,nv->v", values, values)]
        dof = self.n_participants - rank_of(self.design) - 1
        limit = float(-special.stdtrit(dof, _OUTLIER_P / 2 / self.n_participants))
        counts, n_any = outlying(residuals, residual, limit)
        residuals /= np.sqrt(np.einsum("nv,nv->v", residuals, residuals))
        signs = random_signs(self.n_participants)
        return Looked(
            squared_skewness(residuals, signs), counts, n_any, (residuals**2).sum(axis=1) / np.diag(residual),
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
            float(skewness[0] / n_voxels) / shrunk**2, chance(skewness), self.carried,
            sum(part.n_outlying for part in parts) / n_voxels, self.participants[most], float(counts[most] / n_voxels),
            float(np.sqrt(max(variances) / min(variances))) if len(variances) > 1 and min(variances) > 0 else None,
        )  # fmt: skip


@dataclass(frozen=True)
class DropoutCheck:
    """How participants' levels and changes go with the number of sessions they missed.

    Attributes
    ----------
    rows : tuple of ndarray of int
        Of the maps of each participant.
    cells : ndarray of shape (N, S)
    missed : ndarray of shape (n,)
    between : ndarray of shape (n, P)
        Constant and covariates.
    slopes : csr_array of shape (m, N)
        Change of each participant with two sessions at least, over the order of sessions.
    with_slope : ndarray of int, shape (m,)
    """

    rows: tuple[NDArray[np.int_], ...]
    cells: NDArray[np.float64]
    missed: NDArray[np.float64]
    between: NDArray[np.float64]
    slopes: sparse.csr_array
    with_slope: NDArray[np.int_]

    @classmethod
    def of(cls, layout: MapLayout, cells: NDArray[np.float64]) -> DropoutCheck | None:
        """Prepare; None where all, or none, missed as many sessions, or too few participants are there."""
        owners = np.array(layout.participants)
        rows = tuple(np.nonzero(owners == label)[0] for label in layout.unique_participants)
        missed = np.array([float(cells.shape[1] - len(own)) for own in rows])
        if len(rows) < FEWEST or np.ptp(missed) == 0:
            return None
        order = np.argmax(cells, axis=1).astype(float)
        weights, of_participant = np.zeros(len(cells)), np.zeros(len(cells), dtype=int)
        with_slope: list[int] = []
        for index, own in enumerate(rows):
            centred = order[own] - order[own].mean()
            if len(own) > 1:
                weights[own], of_participant[own] = centred / (centred @ centred), len(with_slope)
                with_slope.append(index)
        used = np.nonzero(weights)[0]
        slopes = sparse.csr_array((weights[used], (of_participant[used], used)), shape=(len(with_slope), len(cells)))
        between = layout.between([own[0] for own in rows]).to_numpy()
        return cls(rows, cells, missed, between, slopes, np.array(with_slope, dtype=int))

    def look(self, effects: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Look at some voxels: shares of variance that missed sessions explain, of levels and of changes, (F,) each.

        Sessions' effects are taken out as participants' own changes show them, which who is there does not bias.
        """
        deviations, within = self.cells.copy(), effects.copy()
        for own in self.rows:
            deviations[own] -= deviations[own].mean(axis=0)
            within[own] -= within[own].mean(axis=0)
        adjusted = effects - self.cells @ (pseudo_inverse(deviations) @ within)
        levels = np.array([adjusted[own].mean(axis=0) for own in self.rows])
        return self._explained(levels, np.arange(len(self.rows))), self._explained(
            np.asarray(self.slopes @ adjusted), self.with_slope
        )

    def _explained(self, values: NDArray[np.float64], participants: NDArray[np.int_]) -> NDArray[np.float64]:
        missed, between = self.missed[participants], self.between[participants]
        signs = random_signs(len(participants))
        if len(participants) < FEWEST or rank_of(np.column_stack([between, missed])) == rank_of(between):
            return np.full(len(signs), np.nan)
        return partial_r2(values, missed, between, signs)

    @staticmethod
    def found(parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Dropout:
        """Put together what was found in all voxels."""
        level, change = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
        return Dropout(*(chance(part) if np.isfinite(part).all() else None for part in (level, change)))

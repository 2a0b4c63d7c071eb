"""Estimating where some maps are missing: at each voxel the design of those who have it.

Vocabulary
----------
pattern
    Which maps have a voxel. A voxel that all have is complete.

A complete voxel is estimated by the plan of all maps. Any other is estimated as if its maps were all there are: with
their design, but with the covariates' values, groups with a variance each and working correlations of the whole study,
so that all voxels of a map answer one question in one way. Where those who have it cannot answer, or could answer only
another question (a mean over fewer sessions), the voxel is undetermined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import GroupOptions, MapLayout, PartialMaps, Plan, Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array

_COMPLETE = "maps of the complete voxels, and what plans share of these"
# Voxels, their results, and the number of participants if it is the same for all
_Part = tuple[NDArray[np.intp], Estimate | FTest, int | None]


@dataclass(frozen=True)
class PatternPlan:
    """A plan of all maps, and what is needed to plan for those who have a voxel."""

    plan: Plan  # informed of all voxels
    strategy: Strategy
    layout: MapLayout
    question: Question
    options: GroupOptions

    @property
    def uses_variances(self) -> bool:
        """Whether the maps' sampling variances enter."""
        return self.plan.uses_variances

    def estimate_beside(self, effects: Array, variances: Array | None, shared: dict[object, Any]) -> Estimate | FTest:
        """Estimate the session contrast at V voxels; see `Plan.estimate_beside`.

        Effects are NaN where a map has no data. What is found has degrees of freedom and participants of each voxel.
        """
        n_maps = len(self.layout.participants)
        has = np.asarray(np.isfinite(effects).reshape(-1, n_maps, effects.shape[1]).all(axis=0))
        complete = has.all(axis=0)
        parts: list[_Part] = []
        if complete.any():
            at = np.nonzero(complete)[0]
            if _COMPLETE not in shared:
                shared[_COMPLETE] = *_part(effects, variances, at), {}
            parts.append((at, self.plan.estimate_beside(*shared[_COMPLETE]), len(self.plan.participant_names)))
        left = np.nonzero(~complete & self._has_sessions(has))[0]
        fitted = None
        if len(left) and not (self.question.tested or self.layout.session_covariate_names):
            key = PartialMaps, left.tobytes()
            if key not in shared:
                shared[key] = PartialMaps.of(self.layout, self.question, effects[:, left], has[:, left])
            fitted = self.plan.estimate_apart(replace(shared[key], question=self.question))
        if fitted is not None:
            parts.append((left[fitted.holds], fitted.result.at(fitted.holds), None))
            left = left[~fitted.holds]
        for rows, at in _patterns(has, left):
            plan = self.of_those(rows)
            if plan is not None:
                every = (np.arange(len(effects) // n_maps)[:, None] * n_maps + rows).ravel()
                parts.append((at, plan.estimate(*_part(effects, variances, at, every)), len(plan.participant_names)))
        return _put_together(parts, effects.shape[1], is_test=self.question.is_f_test)

    @property
    def participant_names(self) -> tuple[str, ...]:
        """Participants of the plan of all maps."""
        return self.plan.participant_names

    def participant_weights(self, effects: Array, variances: Array | None) -> Array:
        """Say how much each participant counts at each voxel; see `Plan.participant_weights`.

        NaN where a participant has no part, or those who have the voxel cannot answer.
        """
        n_maps, numbers = len(self.layout.participants), {name: at for at, name in enumerate(self.participant_names)}
        has = np.asarray(np.isfinite(effects).reshape(-1, n_maps, effects.shape[1]).all(axis=0))
        if has.all():
            return self.plan.participant_weights(effects, variances)
        found = np.full((len(numbers), effects.shape[1]), np.nan)
        for rows, at in _patterns(has, np.arange(effects.shape[1])):
            plan = self.plan if len(rows) == n_maps else self.of_those(rows)
            if plan is not None:
                every = (np.arange(len(effects) // n_maps)[:, None] * n_maps + rows).ravel()
                places = np.array([numbers[name] for name in plan.participant_names])
                found[places[:, None], at] = plan.participant_weights(*_part(effects, variances, at, every))
        return found

    def at_rows(self, rows: NDArray[np.int_]) -> Plan:
        """Plan the same for some of the maps, which may vary by groups only if all maps do.

        Raises
        ------
        NotEstimableError
            If these cannot answer the question.
        """
        variance = "groups" if self.plan.groups else "pooled"
        return self.strategy.plan(self.layout.at_rows(rows), self.question, replace(self.options, variance=variance))

    def working_at_rows(self, rows: NDArray[np.int_]) -> Plan:
        """Plan the same for some of the maps, with what was learned from all; see `at_rows`."""
        plan = self.at_rows(rows)
        return plan.working_as(self.plan) if self.plan.pools else plan

    def _has_sessions(self, has: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say at which voxels somebody has each session without which another question would be answered."""
        asked = self.question.sessions
        weighted = {session for session, weight in zip(asked.sessions, asked.weights, strict=False) if weight}
        needed = (weighted or set(asked.sessions if asked.time is None else ())) & set(self.layout.sessions)
        sessions = np.array(self.layout.sessions)
        return np.asarray(np.logical_and.reduce([np.ones(has.shape[1], dtype=bool),
                                      *(has[sessions == session].any(axis=0) for session in needed)]))  # fmt: skip

    def of_those(self, rows: NDArray[np.int_]) -> Plan | None:
        """Plan for some of the maps; None where these cannot answer the question."""
        try:
            plan = self.working_at_rows(rows)
        except NotEstimableError:
            return None
        is_same_model = plan.details.get("CovariateEffects") == self.plan.details.get("CovariateEffects")
        varies_alike = bool(plan.groups) == bool(self.plan.groups) and set(plan.groups) <= set(self.plan.groups)
        return plan if is_same_model and varies_alike else None


def _patterns(has: NDArray[np.bool_], voxels: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.intp]]]:
    """Give the rows of each pattern among some voxels, and its voxels."""
    packed = np.ascontiguousarray(np.packbits(has[:, voxels], axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    for number, at in enumerate(first):
        yield np.nonzero(has[:, voxels[at]])[0], voxels[numbers == number]


def _part(
    effects: Array, variances: Array | None, voxels: NDArray[np.intp], rows: NDArray[np.int_] | slice = slice(None)
) -> tuple[Array, Array | None]:
    found = [
        None if values is None else np.ascontiguousarray(values[rows][:, voxels]) for values in (effects, variances)
    ]
    return cast("tuple[Array, Array | None]", tuple(found))


def _put_together(parts: Sequence[_Part], n_voxels: int, *, is_test: bool) -> Estimate | FTest:
    """Put results where their voxels are; what no part has is undetermined."""
    kind: Any = FTest if is_test else Estimate
    values = {attribute.name: np.full(n_voxels, np.nan) for attribute in fields(kind)}
    for voxels, result, n_participants in parts:
        for name, whole in values.items():
            whole[voxels] = n_participants if name == "n" and n_participants is not None else getattr(result, name)
    return cast("Estimate | FTest", kind(**values))

"""What the answer to report would be without each participant.

Where the answer is least squares over participants' values (of summary-statistics, and of other strategies where their
answers are the same) it is found in closed form at all voxels. Else each participant is left out in turn, with the
working correlation of all, at the suprathreshold voxels and some others. Of many participants only some suprathreshold
voxels are looked at, and the plan must be able to do without each of them quickly (`Plan.leaving_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.execution import MapOrdered
from sessionfx.group.results import StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Plan, Question
from sessionfx.group.strategies.blocks import as_block, estimate_plans
from sessionfx.group.strategies.participant_values import SummaryStatisticsPlan, plan_values
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.group.weights import weigh_participants
from sessionfx.statistics.influence import LeaveOneOut
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.statistics.thresholds import peak_index, suprathreshold
from sessionfx.wording import counted, z_text

# Where there is no closed form: participants who are planned without one by one, and voxels times participants. Leaving
# one of 100 out takes 15 ms for the plan and 1 ms for 1,000 voxels
MOST_REFITTED = 100
_FITTED = 320_000
# Of more participants: voxels times participants times maps, which take 2 s; the fewest voxels; and participants at a
# time
_FITTED_VALUES, _FEWEST_VOXELS, _TOGETHER = 300_000_000, 64, 250
_SAME_Z = 1e-6
TOO_MANY = (
    f"With more than {MOST_REFITTED} participants this is shown only where an answer is least squares over one value "
    "of each participant, or generalised least squares without robust weights."
)
MOVES = (
    f"With more than {MOST_REFITTED} participants this is not shown for means that are adjusted for session covariates."
)
WHERE_ALL = "Counted at the {n:,} voxels that every map has, of {of:,} that are answered."
WHERE_CORE = (
    "Of the answer from the {n_maps} maps that share most, at the {n:,} voxels that they share, of {of:,} that are "
    "answered: no voxel is in every map."
)
AT_SOME = "Voxels that would be gained are estimated from one of every {step} of those below the threshold."
AT_FEW = (
    "Voxels that would be lost or gained, and the largest changes, are those of {n_seen:,} of {n_above:,} "
    "suprathreshold voxels and {n_seen_below:,} of {n_below:,} others, counts scaled up."
)


@dataclass(frozen=True)
class Influence:
    """How the answer to report depends on each participant."""

    # A row per participant: `participant`; suprathreshold voxels `n_lost` and `n_gained` without them; `peak_z` without
    # them, its `change_of_peak_z`, and the `largest_change_of_z` anywhere; with `--robust` the `mean_weight` in
    # percent. NaN without whom there is no answer.
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""  # how voxels were counted, or why there is no table; empty where nothing is to be said
    n_above: int = 0  # suprathreshold voxels of the answer, of those that are looked at
    peak_z: float = float("nan")  # its z of largest size there

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The table, first those without whom there is no answer, then by how much the answer changes.

        Of those who change equally many voxels, such as none, the one who changes z most comes first; where nothing is
        suprathreshold, z alone counts.
        """
        table = self.table
        if not len(table):
            return table
        by = ["changed", "largest_change_of_z"] if self.n_above else ["largest_change_of_z"]
        changed = table.assign(changed=table["n_lost"] + table["n_gained"])
        return changed.sort_values(by, ascending=False, kind="stable", na_position="first").drop(columns="changed")

    @property
    def most_influential(self) -> dict[str, Any] | None:
        """The row of the participant without whom the answer changes most; None where nobody can be left out."""
        known = self.ranked.dropna(subset="largest_change_of_z") if len(self.table) else self.table
        return {str(key): value for key, value in known.iloc[0].items()} if len(known) else None


@dataclass(frozen=True)
class _Task:
    """What is looked at in every block."""

    threshold: float
    two_sided: bool
    closed: tuple[SummaryStatisticsPlan, LeaveOneOut] | None
    # where there is no closed form: a plan without each participant, and the rows of the maps that it takes; None for
    # all
    refits: Iterable[tuple[Plan | None, NDArray[np.int_] | None]] = ()

    def without_each(
        self, effects: NDArray[np.float64], variances: NDArray[np.float64] | None
    ) -> Iterator[NDArray[np.float64] | None]:
        """Give z without each participant."""
        if self.closed is not None:
            plan, left_out = self.closed
            yield from left_out.z(plan.participant_values(effects, variances))
            return
        for refit, rows in self.refits:
            if refit is None:
                yield None
                continue
            if rows is None:
                yield refit.estimate(effects, variances).z
                continue
            own = np.ascontiguousarray(effects[rows])
            yield refit.estimate(own, None if variances is None else np.ascontiguousarray(variances[rows])).z


def influence_of(
    answer: StrategyResult, question: Question, stack: MapStack, options: GroupOptions, map_ordered: MapOrdered
) -> Influence:
    """Find what an answer would be without each participant, from the core maps at their voxels; see `stack`."""
    stat_map, plan = answer.stat_map, plan_at_core(answer, question, stack, options)
    if plan is None or stat_map is None:
        return Influence()
    whole, stack = stack, stack.core
    two_sided = stat_map.estimate.two_sided
    if whole.learns_from_all:
        z = stat_map.volume(stat_map.estimate.z)[stack.mask]
    else:
        z = next(estimate_plans([plan], stack, map_ordered)).z
    if not np.isfinite(z).any():
        return Influence()
    closed = _closed_form(question, stack, options, z)
    people = (closed[0] if closed else plan).participant_names
    labels = [label for label in stack.layout.unique_participants if f"sub-{label}" in people]
    above = np.isfinite(z) & suprathreshold(np.nan_to_num(z), answer.threshold, two_sided=two_sided)
    look_at = _LookAt(stack, plan, z, above, peak_index(z, two_sided=two_sided))
    task = _Task(answer.threshold, two_sided, closed)
    if closed is not None:
        found = look_at.everywhere(task, map_ordered)
    else:
        of_some = PatternPlan(plan, STRATEGIES[answer.name], stack.layout, question, options)
        if len(labels) <= MOST_REFITTED:
            found = look_at.some(task, of_some, labels, map_ordered)
        else:
            leave_out = plan.leaving_out()
            refusal = TOO_MANY if leave_out is None else MOVES if _moves(plan, of_some) else ""
            if leave_out is None or refusal:
                return Influence(note=refusal)
            found = look_at.few(task, _Quick(leave_out, of_some, tuple(labels), stack.n_rows), map_ordered)
    lost, gained, largest, at_peak, notes = found
    if stack.n_voxels < whole.n_voxels:
        where = WHERE_ALL if whole.learns_from_all else WHERE_CORE
        maps = where.format(n=stack.n_voxels, of=whole.n_voxels, n_maps=len(stack.layout.participants))
        notes = [maps, *notes]
    known = np.where(np.isnan(at_peak), np.nan, 1.0)
    peak_z = float(z[look_at.peak])
    table = pd.DataFrame(
        {
            "participant": labels,
            "n_lost": lost * known,
            "n_gained": gained * known,
            "peak_z": at_peak,
            "change_of_peak_z": at_peak - peak_z,
            "largest_change_of_z": largest * known,
        }
    )
    if plan.weighs_participants:
        means = weigh_participants(plan, stack, stat_map.mask, map_ordered).means
        table["mean_weight"] = [means[f"sub-{label}"] for label in labels]
    return Influence(table, " ".join(notes), int(above.sum()), peak_z)


def plan_at_core(answer: StrategyResult, question: Question, stack: MapStack, options: GroupOptions) -> Plan | None:
    """Give an answer's plan for the core maps, with what it learned; None where these cannot answer."""
    if answer.plan is None or stack.learns_from_all:
        return answer.plan
    return PatternPlan(answer.plan, STRATEGIES[answer.name], stack.layout, question, options).of_those(stack.core_rows)


def look(
    task: _Task,
    effects: NDArray[np.floating],
    variances: NDArray[np.floating] | None,
    here: NDArray[np.bool_],
    z: NDArray[np.float64],
    peak: int,
) -> tuple[list[int], list[int], list[float], list[float]]:
    """Look at some voxels of a block, of each participant; a function of a module travels to other processes.

    Returns
    -------
    lost, gained : list of int
    largest : list of float
        Largest absolute change of z.
    at_peak : list of float
        z at the peak; NaN where it is not in this block, or there is no answer.
    """
    lost, gained, largest, at_peak = [], [], [], []
    above = suprathreshold(z, task.threshold, two_sided=task.two_sided)
    effects = as_block(as_block(effects)[:, here])
    variances = None if variances is None else as_block(as_block(variances)[:, here])
    for other in task.without_each(effects, variances):
        without = np.full(z.shape, np.nan) if other is None else other
        still = suprathreshold(np.nan_to_num(without), task.threshold, two_sided=task.two_sided)
        lost.append(int((above & ~still).sum()))
        gained.append(int((still & ~above).sum()))
        largest.append(float(np.abs(np.nan_to_num(without - z)).max(initial=0.0)))
        at_peak.append(float(without[peak]) if peak >= 0 else float("nan"))
    return lost, gained, largest, at_peak


# Of each participant: voxels lost and gained, the largest change of z, and z at the peak; and what is said of them
_Found = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]


@dataclass(frozen=True)
class _LookAt:
    """The voxels of an answer, and which of them are looked at without each participant."""

    stack: MapStack
    plan: Plan
    z: NDArray[np.float64]  # (V,)
    above: NDArray[np.bool_]  # (V,): the suprathreshold voxels
    peak: int

    def everywhere(self, task: _Task, map_ordered: MapOrdered) -> _Found:
        """Look at all voxels."""
        return *_summed(list(map_ordered(partial(look, task), self._blocks(np.isfinite(self.z))))), []

    def some(
        self, task: _Task, of_some: PatternPlan, labels: Sequence[str], map_ordered: MapOrdered
    ) -> _Found:  # fmt: skip
        """Look at the suprathreshold voxels and some others, with a plan without each participant."""
        chosen, step = _some(np.isfinite(self.z), self.above, _FITTED // len(labels))
        chosen[self.peak] = True
        refits = tuple(_without(label, of_some, self.stack.n_rows) for label in labels)
        parts = list(map_ordered(partial(look, replace(task, refits=refits)), self._blocks(chosen)))
        lost, gained, largest, at_peak = _summed(parts)
        return lost, step * gained, largest, at_peak, [AT_SOME.format(step=step)] if step > 1 else []

    def few(self, task: _Task, quick: _Quick, map_ordered: MapOrdered) -> _Found:
        """Look at some voxels on either side of the threshold, some participants at a time."""
        n = len(quick.labels)
        wanted = min(_FITTED, _FITTED_VALUES // len(self.stack.layout.participants)) // n
        below = np.isfinite(self.z) & ~self.above
        sides = [_every_so_many(side, max(wanted, _FEWEST_VOXELS) // 2) for side in (self.above, below)]
        chosen = sides[0] | sides[1]
        chosen[self.peak] = True
        block = _joined(self._blocks(chosen))
        parts = map_ordered(
            partial(look_without, task, quick, block), ((slice(at, at + _TOGETHER),) for at in range(0, n, _TOGETHER))
        )
        lost, gained, largest, at_peak = (np.concatenate(part) for part in zip(*parts, strict=True))
        (n_above, seen_above), (n_below, seen_below) = (
            (int(side.sum()), int((side & chosen).sum())) for side in (self.above, below)
        )
        note = AT_FEW.format(n_seen=seen_above, n_above=n_above, n_seen_below=seen_below, n_below=n_below)
        return (
            np.rint(lost * (n_above / max(seen_above, 1))), np.rint(gained * (n_below / max(seen_below, 1))),
            largest, at_peak, [note] if chosen.sum() < n_above + n_below else [],
        )  # fmt: skip

    def _blocks(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[Any, ...]]:
        """Give what `look` takes of each block with chosen voxels."""
        stack, start = self.stack, 0
        for block in stack.blocks:
            stop = start + int(stack.common[block].sum())
            here = chosen[start:stop]
            if here.any():
                place = int(np.count_nonzero(chosen[start : self.peak])) if start <= self.peak < stop else -1
                yield (
                    *stack.handed_out(block, with_variances=self.plan.uses_variances),
                    here, self.z[start:stop][here], place,
                )  # fmt: skip
            start = stop


@dataclass(frozen=True)
class _Quick:
    """A quick way to leave out each participant, and the slow one for those of whom the design is not the same."""

    leave_out: Callable[[int], Plan | None]
    of_some: PatternPlan
    labels: tuple[str, ...]
    n_rows: int

    def refits(self, chosen: slice) -> Iterator[tuple[Plan | None, NDArray[np.int_] | None]]:
        """Give the plans without some participants; see `_Task`."""
        numbers = {name: number for number, name in enumerate(self.of_some.plan.participant_names)}
        for label in self.labels[chosen]:
            plan = self.leave_out(numbers[f"sub-{label}"])
            yield (plan, None) if plan is not None else _without(label, self.of_some, self.n_rows)


def look_without(task: _Task, quick: _Quick, block: tuple[Any, ...], chosen: slice) -> list[list[float]]:
    """Look at one block without some participants; see `look`."""
    return [list(found) for found in look(replace(task, refits=quick.refits(chosen)), *block)]


def _summed(
    parts: list[tuple[list[int], list[int], list[float], list[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Put together what blocks have: voxels lost and gained, the largest change, and z at the peak, of each person."""
    lost, gained, largest, at_peak = (np.array(found, dtype=float) for found in zip(*parts, strict=True))
    peaks = np.nansum(at_peak, axis=0) + np.where(np.isnan(at_peak).all(axis=0), np.nan, 0.0)
    return lost.sum(axis=0), gained.sum(axis=0), largest.max(axis=0), peaks


def _joined(blocks: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Make one block of the chosen voxels of several, of which one at a time is held whole."""
    parts = [
        (*(None if values is None else as_block(as_block(values)[:, here]) for values in maps), z, place)
        for *maps, here, z, place in blocks
    ]
    effects, variances = (
        None if parts[0][at] is None else np.concatenate([part[at] for part in parts], axis=1) for at in (0, 1)
    )
    z = np.concatenate([part[2] for part in parts])
    starts = np.cumsum([0, *(len(part[2]) for part in parts)])
    peak = next(start + part[3] for start, part in zip(starts, parts, strict=False) if part[3] >= 0)
    return effects, variances, np.ones(len(z), dtype=bool), z, int(peak)


def _every_so_many(voxels: NDArray[np.bool_], n_wanted: int) -> NDArray[np.bool_]:
    """Choose about so many voxels, from all over the brain."""
    some = np.zeros_like(voxels)
    places = np.nonzero(voxels)[0]
    some[places[:: max(1, -(-len(places) // n_wanted))]] = True
    return some


def _moves(plan: Plan, of_some: PatternPlan) -> bool:
    """Whether the question is about another place without a participant: at the mean of fewer session covariates."""
    layout, asked = of_some.layout, of_some.question.sessions
    if not layout.adjusting_covariates(asked, of_some.options.session_covariate_effect)[0]:
        return False
    constant = pseudo_inverse(plan.design_matrix.to_numpy()).sum(axis=1)
    return bool(np.abs(np.atleast_2d(plan.contrast) @ constant).max() > _SAME_Z)


def _closed_form(
    question: Question, stack: MapStack, options: GroupOptions, z: NDArray[np.float64]
) -> tuple[SummaryStatisticsPlan, LeaveOneOut] | None:
    """Give least squares over participants' values if that is the answer, to judge by a block of voxels."""
    if question.is_f_test:
        return None
    try:
        plan = plan_values(stack.layout, question, replace(options, variance="pooled"))
    except NotEstimableError:
        return None
    if plan.uses_variances:
        return None
    left_out = LeaveOneOut(plan.design_matrix.to_numpy(), plan.contrast)
    block = stack.blocks[0]
    values = plan.participant_values(as_block(stack.effects(block)), None)
    own = z[: values.shape[1]]
    same = np.abs(left_out.prepared.estimate(values).z - own)[np.isfinite(own)] <= _SAME_Z
    return (plan, left_out) if same.all() and same.size else None


def _some(chosen: NDArray[np.bool_], above: NDArray[np.bool_], n_wanted: int) -> tuple[NDArray[np.bool_], int]:
    """Choose the suprathreshold voxels, and every so many of the others, at least a quarter of those wanted."""
    n_above = int(above.sum())
    step = max(1, -(-int(chosen.sum() - n_above) // max(n_wanted - n_above, n_wanted // 4)))
    some = np.zeros_like(chosen)
    some[np.nonzero(chosen & ~above)[0][::step]] = True
    return some | above, step


def _without(label: str, of_some: PatternPlan, n_rows: int) -> tuple[Plan | None, NDArray[np.int_]]:
    """Plan the same without a participant; with the rows of the others' maps, of all rows of an F test."""
    participants = np.array(of_some.layout.participants)
    rows = np.nonzero(participants != label)[0]
    every = (np.arange(n_rows)[:, None] * len(participants) + rows).ravel()
    try:
        return of_some.working_at_rows(rows), every
    except NotEstimableError:
        return None, every


def most_influential_text(influence: Influence) -> str:
    """Say in a sentence without whom the answer changes most; empty where nobody can be left out."""
    row = influence.most_influential
    if row is None:
        return ""
    lost, gained = f"{row['n_lost']:,.0f}", f"{row['n_gained']:,.0f}"
    if influence.n_above:
        voxels = f"{lost} of {influence.n_above:,} suprathreshold voxels would be lost, {gained} gained"
    elif row["n_gained"]:
        voxels = f"{counted(int(row['n_gained']), 'voxel')} would be suprathreshold, where none is"
    else:
        voxels = "still no voxel would be suprathreshold"
    return (
        f"Left out one by one, sub-{row['participant']} changes the answer most: {voxels}, and the peak would have "
        f"z = {z_text(row['peak_z'])} instead of {z_text(influence.peak_z)}."
    )

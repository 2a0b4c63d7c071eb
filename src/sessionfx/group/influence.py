"""What the answer to report would be without each participant.

Where the answer is least squares over participants' values (of summary-statistics, and of other strategies where their
answers are the same) it is found in closed form at all voxels. Else each participant is left out in turn, with the
working correlation of all, at the suprathreshold voxels and some others, if participants are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
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
from sessionfx.statistics.thresholds import suprathreshold
from sessionfx.wording import counted, z_text

# Where there is no closed form: participants who are left out one by one, and voxels times participants. Leaving one
# of 100 out takes 15 ms for the plan and 1 ms for 1,000 voxels
MOST_REFITTED = 100
_FITTED = 320_000
_SAME_Z = 1e-6
TOO_MANY = (
    f"With more than {MOST_REFITTED} participants this is shown only where an answer is least squares over one value "
    "of each participant."
)
WHERE_ALL = "Counted at the {n:,} voxels that every map has, of {of:,} that are answered."
WHERE_CORE = (
    "Of the answer from the {n_maps} maps that share most, at the {n:,} voxels that they share, of {of:,} that are "
    "answered: no voxel is in every map."
)
AT_SOME = "Voxels that would be gained are estimated from one of every {step} of those below the threshold."


@dataclass(frozen=True)
class Influence:
    """How the answer to report depends on each participant.

    Attributes
    ----------
    table : DataFrame
        A row per participant: `participant`; suprathreshold voxels `n_lost` and `n_gained` without them; `peak_z`
        without them, its `change_of_peak_z`, and the `largest_change_of_z` anywhere; with `--robust` the `mean_weight`
        in percent. NaN without whom there is no answer.
    note : str
        How voxels were counted, or why there is no table; empty where nothing is to be said.
    n_above : int
        Suprathreshold voxels of the answer, of those that are looked at.
    peak_z : float
        Its z of largest size there.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""
    n_above: int = 0
    peak_z: float = float("nan")


@dataclass(frozen=True)
class _Task:
    """What is looked at in every block.

    Attributes
    ----------
    threshold : float
    two_sided : bool
    closed : (SummaryStatisticsPlan, LeaveOneOut) or None
    refits : tuple of (Plan or None, ndarray of int)
        Where there is no closed form: a plan without each participant, and the rows of the others' maps.
    """

    threshold: float
    two_sided: bool
    closed: tuple[SummaryStatisticsPlan, LeaveOneOut] | None
    refits: tuple[tuple[Plan | None, NDArray[np.int_]], ...] = ()

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
        volume = np.full(stat_map.mask.shape, np.nan)
        volume[stat_map.mask] = stat_map.estimate.z
        z = volume[stack.mask]
    else:
        z = next(estimate_plans([plan], stack, map_ordered)).z
    if not np.isfinite(z).any():
        return Influence()
    closed = _closed_form(question, stack, options, z)
    people = (closed[0] if closed else plan).participant_names
    labels = [label for label in stack.layout.unique_participants if f"sub-{label}" in people]
    above = np.isfinite(z) & suprathreshold(np.nan_to_num(z), answer.threshold, two_sided=two_sided)
    chosen, step = np.isfinite(z), 1
    notes = []
    if stack.n_voxels < whole.n_voxels:
        where = WHERE_ALL if whole.learns_from_all else WHERE_CORE
        notes = [where.format(n=stack.n_voxels, of=whole.n_voxels, n_maps=len(stack.layout.participants))]
    refits: tuple[tuple[Plan | None, NDArray[np.int_]], ...] = ()
    if closed is None:
        if len(labels) > MOST_REFITTED:
            return Influence(note=TOO_MANY)
        chosen, step = _some(chosen, above, _FITTED // len(labels))
        notes += [AT_SOME.format(step=step)] if step > 1 else []
        of_some = PatternPlan(plan, STRATEGIES[answer.name], stack.layout, question, options)
        refits = tuple(_without(label, of_some, stack.n_rows) for label in labels)
    peak = int(np.nanargmax(np.abs(z) if two_sided else z))
    chosen[peak] = True
    task = _Task(answer.threshold, two_sided, closed, refits)
    found = list(map_ordered(partial(look, task), _blocks(stack, plan, z, chosen, peak)))
    lost, gained, largest, at_peak = (np.array(parts) for parts in zip(*found, strict=True))
    peaks = np.nansum(at_peak, axis=0) + np.where(np.isnan(at_peak).all(axis=0), np.nan, 0.0)
    known = np.where(np.isnan(peaks), np.nan, 1.0)
    table = pd.DataFrame(
        {
            "participant": labels,
            "n_lost": lost.sum(axis=0) * known,
            "n_gained": step * gained.sum(axis=0) * known,
            "peak_z": peaks,
            "change_of_peak_z": peaks - z[peak],
            "largest_change_of_z": largest.max(axis=0) * known,
        }
    )
    if plan.weighs_participants:
        means = weigh_participants(plan, stack, stat_map.mask, map_ordered).means
        table["mean_weight"] = [means[f"sub-{label}"] for label in labels]
    return Influence(table, " ".join(notes), int(above.sum()), float(z[peak]))


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


def _blocks(
    stack: MapStack, plan: Plan, z: NDArray[np.float64], chosen: NDArray[np.bool_], peak: int
) -> Iterator[tuple[Any, ...]]:
    """Give what `look` takes of each block with chosen voxels."""
    start = 0
    for block in stack.blocks:
        stop = start + int(stack.common[block].sum())
        here = chosen[start:stop]
        if here.any():
            place = int(np.count_nonzero(chosen[start:peak])) if start <= peak < stop else -1
            yield *stack.handed_out(block, with_variances=plan.uses_variances), here, z[start:stop][here], place
        start = stop


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


def most_influential(influence: Influence) -> str:
    """Say in a sentence without whom the answer changes most; empty without a table."""
    table = influence.table
    if not len(table) or table["largest_change_of_z"].isna().all():
        return ""
    size = table["n_lost"] + table["n_gained"] if influence.n_above else table["largest_change_of_z"]
    row = table.to_dict("records")[int(np.nanargmax(size.to_numpy()))]
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

"""What participants show one by one: each session's effect at peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from sessionfx.group.clusters import highest_peaks
from sessionfx.group.results import Peak, QuestionResults, StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.intervals import SessionIntervals, interval, session_intervals

SHOWN_PEAKS = 3


def peaks_of(results: QuestionResults, stack: MapStack) -> tuple[Peak, ...]:
    """Look at the session maps where the answer to report is largest: at its first clusters, or at its largest value.

    Parameters
    ----------
    results : QuestionResults
    stack : MapStack

    Returns
    -------
    tuple of Peak
        Empty where no answer can be reported.
    """
    answer = shown_first(results)
    if answer is None or answer.stat_map is None:
        return ()
    stat_map, z = answer.stat_map, answer.stat_map.estimate.z
    voxels = _peak_voxels(answer)
    is_suprathreshold = bool(len(voxels))
    if not is_suprathreshold:
        largest = np.argmax(np.abs(z) if stat_map.estimate.two_sided else z)
        voxels = np.argwhere(stat_map.mask)[[largest]]
    flat = np.ravel_multi_index(tuple(voxels.T), stat_map.space.shape)
    own = np.searchsorted(np.flatnonzero(stat_map.mask), flat)
    effects = stack.at(np.searchsorted(np.flatnonzero(stack.mask), flat))
    places = apply_affine(stat_map.grid.affine, voxels)
    found = []
    for number, (place, at) in enumerate(zip(places, own, strict=True)):
        tables = by_participant(stack, effects[:, number])
        found.append(
            Peak(
                (float(place[0]), float(place[1]), float(place[2])), float(z[at]), is_suprathreshold,
                tables, *_interval(stat_map.estimate, at), sessions_at(stack.layout, results.question, tables),
            )
        )  # fmt: skip
    return tuple(found)


def sessions_at(layout: MapLayout, question: Question, effects: NDArray[np.float64]) -> SessionIntervals | None:
    """Estimate the group contrast in each session, with intervals."""
    first = [next(iter(layout.rows_of(label).values())) for label in layout.unique_participants]
    between = layout.between(first).to_numpy()
    weights = question.group_weights(between.shape[1])
    return session_intervals(effects, between, weights) if weights.ndim == 1 else None


def shown_first(results: QuestionResults) -> StrategyResult | None:
    """Give the answer a reader sees first: the one to report, or else the first there is."""
    return results.best or next((answer for answer in results.strategies if answer.stat_map is not None), None)


def by_participant(stack: MapStack, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Arrange values of all maps as participants × sessions, both in the order of the maps; NaN where there is no map.

    Of an F test over conditions, the sessions of its rows one after the other.
    """
    participants, sessions = stack.layout.unique_participants, sessions_of(stack.layout.sessions)
    table = np.full((len(participants), stack.n_rows, len(sessions)), np.nan)
    for own, participant, session in zip(
        values.reshape(stack.n_rows, -1).T, stack.layout.participants, stack.layout.sessions, strict=True
    ):
        table[participants.index(participant), :, sessions.index(session)] = own
    return table.reshape(len(participants), -1)


def sessions_of(labels: Sequence[str]) -> list[str]:
    """List sessions once, in the order of the maps."""
    return list(dict.fromkeys(labels))


def effect_names(layout: MapLayout, question: Question) -> list[str]:
    """Name the columns of `by_participant`: sessions, those of each row of an F test over conditions."""
    rows = [[row] for row in question.tested] or [[]]
    sessions = [f"ses-{session}" if session else "" for session in sessions_of(layout.sessions)]
    return [" ".join(filter(None, [*row, session])) for row in rows for session in sessions]


def _peak_voxels(answer: StrategyResult) -> NDArray[np.intp]:
    """Find the voxels of the first clusters' peaks, of shape (n, 3); the middle of a flat top may lie beside it."""
    assert answer.stat_map is not None  # noqa: S101 - the caller has it
    if answer.clusters.empty:
        return np.empty((0, 3), dtype=np.intp)
    places = highest_peaks(answer.clusters, SHOWN_PEAKS)[["X", "Y", "Z"]].to_numpy(dtype=float)
    voxels = np.rint(apply_affine(np.linalg.inv(answer.stat_map.grid.affine), places)).astype(np.intp)
    return np.asarray([voxel for voxel in voxels if answer.stat_map.mask[tuple(voxel)]]).reshape(-1, 3)


def _interval(estimate: object, at: int) -> tuple[float | None, tuple[float, float] | None]:
    if not isinstance(estimate, Estimate):
        return None, None
    effect, dof = float(estimate.effect[at]), np.broadcast_to(estimate.dof, estimate.effect.shape)[at]
    lower, upper = interval(effect, estimate.variance[at], dof)
    return effect, (float(lower), float(upper))

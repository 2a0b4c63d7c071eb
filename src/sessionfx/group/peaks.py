"""What participants show one by one: each session's effect at peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.clusters import highest_peaks, rows_at
from sessionfx.group.results import Answer, Peak, QuestionResults
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.statistics.estimates import Estimate, FTest
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
    answer = results.shown_first
    if answer is None:
        return ()
    stat_map, z = answer.stat_map, answer.stat_map.estimate.z
    own = _peak_rows(answer)
    if not len(own):  # nothing is suprathreshold, or in no cluster that is listed
        own = np.array([answer.peak])
    passes = answer.is_suprathreshold
    features = np.flatnonzero(stat_map.mask)[own]
    effects = stack.at(np.searchsorted(np.flatnonzero(stack.mask), features))
    tables = [by_participant(stack, effects[:, number]) for number in range(len(own))]
    return tuple(
        Peak(
            stat_map.space.place(int(feature)), float(z[at]), bool(passes[at]), table,
            estimate_at(stat_map.estimate, at), sessions_at(stack.layout, results.question, table),
        )
        for feature, at, table in zip(features, own, tables, strict=True)
    )  # fmt: skip


def sessions_at(layout: MapLayout, question: Question, effects: NDArray[np.float64]) -> SessionIntervals | None:
    """Estimate the group contrast in each session, with intervals."""
    first = [next(iter(layout.rows_of(label).values())) for label in layout.unique_participants]
    between = layout.between(first).to_numpy()
    weights = question.group_weights(between.shape[1])
    return session_intervals(effects, between, weights) if weights.ndim == 1 else None


def by_participant(stack: MapStack, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Arrange values of all maps as participants × sessions, both in the order of the maps; NaN where there is no map.

    Of an F test over conditions, the sessions of its rows one after the other.
    """
    participants = {label: row for row, label in enumerate(stack.layout.unique_participants)}
    sessions = sessions_of(stack.layout.sessions)
    table = np.full((len(participants), stack.n_rows, len(sessions)), np.nan)
    for own, participant, session in zip(
        values.reshape(stack.n_rows, -1).T, stack.layout.participants, stack.layout.sessions, strict=True
    ):
        table[participants[participant], :, sessions.index(session)] = own
    return table.reshape(len(participants), -1)


def sessions_of(labels: Sequence[str]) -> list[str]:
    """List sessions once, in the order of the maps."""
    return list(dict.fromkeys(labels))


def effect_names(layout: MapLayout, question: Question) -> list[str]:
    """Name the columns of `by_participant`: sessions, those of each row of an F test over conditions."""
    rows = [[row] for row in question.tested] or [[]]
    sessions = [f"ses-{session}" if session else "" for session in sessions_of(layout.sessions)]
    return [" ".join(filter(None, [*row, session])) for row in rows for session in sessions]


def _peak_rows(answer: Answer) -> NDArray[np.intp]:
    """Find the first clusters' peaks among the values of an answer; the middle of a flat top may lie beside them."""
    if answer.clusters.empty:
        return np.empty(0, dtype=np.intp)
    rows, inside = rows_at(highest_peaks(answer.clusters, SHOWN_PEAKS), answer.stat_map)
    return rows[inside]


def estimate_at(estimate: Estimate | FTest, at: int) -> tuple[float, float, float] | None:
    """Give the effect at one feature with its 95 % interval; an F test has none."""
    if not isinstance(estimate, Estimate):
        return None
    effect, dof = float(estimate.effect[at]), np.broadcast_to(estimate.dof, estimate.effect.shape)[at]
    lower, upper = interval(effect, estimate.variance[at], dof)
    return effect, float(lower), float(upper)

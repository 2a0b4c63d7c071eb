"""session-model: every session map is a row of one group model with session columns and a subject effect.

Full-rank coding: one column per session (cell means), and for the subject effect either nothing, one centred
column 1 … n (`linear`, as in the forum script this program grew from), or n − 1 sum-to-zero indicators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.session_contrasts import SessionContrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import is_estimable, rank_of
from sessionfx.statistics.ols import fit_ols
from sessionfx.strategies.base import GroupOptions, MapLayout, Plan, Strategy, list_names

POOLING = (
    "Pooling of correlated maps: the maps of one participant count as independent, so its standard error is too small "
    "wherever participants differ from each other. Do not use it for inference unless the ICC is close to zero."
)
WRONG_ERROR_TERM = (
    "Participant indicators take the differences between participants out of the error, which this question should be "
    "tested against; the standard error is too small."
)
SPHERICITY = (
    "With three or more sessions this test assumes sphericity: every difference between sessions varies equally over "
    "participants. Where it fails, false positives rise (up to 20 % at a nominal 5 % in simulations)."
)
LINEAR_CODE = (
    "The subject effect is one straight line over the order of the participants' labels; the result changes when they "
    "are renamed."
)


@dataclass(frozen=True)
class SessionModelPlan(Plan):
    """OLS on all session maps."""

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Estimate the contrast by OLS, see `Plan.estimate`."""
        return fit_ols(effects[list(self.rows)], self.design_matrix.to_numpy(), self.contrast)


class SessionModel(Strategy):
    """All sessions in one group model."""

    name = "session-model"
    title = "Session model"

    def methods(self, options: GroupOptions) -> tuple[str, tuple[str, ...]]:
        """Describe OLS on all session maps; see `Strategy.methods`."""
        text = (
            "Session-model strategy: all session maps entered one ordinary least-squares model with one column per "
            f"session and subject effect '{options.subject_effect}'"
        )
        if options.subject_effect == "auto":
            text += " (participant indicators for differences and trends, none for means)"
        return text + ".", ()

    def plan(self, layout: MapLayout, session_contrast: SessionContrast, options: GroupOptions) -> SessionModelPlan:
        """Code sessions and participants; see `Strategy.plan`."""
        if not session_contrast.weights:
            raise NotEstimableError("There is one session only, so there is no trend over sessions to estimate.")
        if len(layout.unique_participants) < 2:
            raise NotEstimableError("There is one participant only; a group model needs at least two.")
        subject_effect = resolve_subject_effect(options.subject_effect, session_contrast)
        sessions = [session for session in session_contrast.sessions if session in layout.sessions]
        weights = session_contrast.weights_for(sessions)
        if weights is None:
            absent = [session for session in session_contrast.sessions if session not in sessions]
            raise NotEstimableError(f"No participant has a map of {list_names([f'ses-{label}' for label in absent])}.")
        design = pd.concat([_session_columns(layout, sessions), _subject_columns(layout, subject_effect)], axis=1)
        n_subject_columns = design.shape[1] - len(sessions)
        contrast = np.array([weights.get(session, 0.0) for session in sessions] + [0.0] * n_subject_columns)
        matrix = design.to_numpy()
        if not is_estimable(matrix, contrast):
            raise NotEstimableError(
                f"The design does not determine this contrast: with subject effect '{subject_effect}', sessions and "
                "participants cannot be told apart (too few participants have more than one of these sessions)."
            )
        if len(matrix) - rank_of(matrix) < 1:
            raise NotEstimableError(
                f"{len(matrix)} maps leave no degrees of freedom for the error of a model of rank {rank_of(matrix)}."
            )
        return SessionModelPlan(
            design,
            contrast,
            tuple(range(len(layout.participants))),
            {},
            f"OLS on {len(matrix)} maps of {len(layout.unique_participants)} participants with one column per "
            f"session and subject effect '{subject_effect}'.",
            _caution(session_contrast, subject_effect, len(sessions)),
            {
                "SubjectEffect": subject_effect,
                "SessionWeights": {f"ses-{session}": weight for session, weight in weights.items() if session},
            },
        )


def resolve_subject_effect(subject_effect: str, session_contrast: SessionContrast) -> str:
    """Say what `auto` means: indicators where a participant's own level cancels, nothing for a mean."""
    if subject_effect != "auto":
        return subject_effect
    return "indicator" if session_contrast.is_within_participant else "none"


def _caution(session_contrast: SessionContrast, subject_effect: str, n_sessions: int) -> str:
    cautions = []
    if subject_effect == "linear":
        cautions.append(LINEAR_CODE)
    if n_sessions > 1 and not session_contrast.is_within_participant:
        cautions.append(WRONG_ERROR_TERM if subject_effect == "indicator" else POOLING)
    elif subject_effect == "indicator" and n_sessions > 2:
        cautions.append(SPHERICITY)
    elif subject_effect == "none" and n_sessions > 1:
        cautions.append(
            "Without a subject effect the maps of one participant count as independent; the test is blind to pairing."
        )
    return " ".join(cautions)


def _session_columns(layout: MapLayout, sessions: list[str]) -> pd.DataFrame:
    columns = {
        f"ses-{session}" if session else "mean": [float(own == session) for own in layout.sessions]
        for session in sessions
    }
    return pd.DataFrame(columns, index=layout.row_names())


def _subject_columns(layout: MapLayout, subject_effect: str) -> pd.DataFrame:
    participants = layout.unique_participants
    index = layout.row_names()
    if subject_effect == "linear":
        code = {participant: order + 1.0 for order, participant in enumerate(participants)}
        centre = (len(participants) + 1) / 2
        return pd.DataFrame({"subject": [code[owner] - centre for owner in layout.participants]}, index=index)
    if subject_effect == "indicator":
        # Sum-to-zero coding: session columns stay means over participants, and the design has full rank.
        last = participants[-1]
        columns = {
            f"sub-{participant}": [float(owner == participant) - float(owner == last) for owner in layout.participants]
            for participant in participants[:-1]
        }
        return pd.DataFrame(columns, index=index)
    return pd.DataFrame(index=index)

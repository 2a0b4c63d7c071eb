"""The model of all session maps that session-model, marginal and mixed share.

One column per session (cell means) for the constant and for each covariate over participants, so that every question,
also how a change between sessions depends on a covariate, is a contrast of one model; then the session covariates that
are adjusted for. A trend over a measured time has that time instead of the session columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.statistics.linear_algebra import Array, is_estimable, rank_of
from sessionfx.wording import session_names

TOO_FEW_PARTICIPANTS = "There is one participant only; a group model needs at least two."
NO_DIFFERENCE = "There is one session only, so no session can differ from another."
MAIN_EFFECTS = (
    "Some sessions have no map of some groups, or too few, so that the covariates' effects in these sessions cannot be "
    "told. The model has one effect of each covariate for all sessions instead of one for each, and is right where a "
    "covariate has the same effect in all sessions."
)
MIXTURE = (
    "The effect of the session covariates mixes what goes with them within participants and what goes with "
    "participants who have higher values than others."
)


@dataclass(frozen=True)
class SessionDesign:
    """Design and contrast of a question in the model of all session maps."""

    matrix: pd.DataFrame  # N named rows
    contrast: Array  # (P,) or (Q, P)
    # of each session; empty for a test over several contrasts and for a measured time
    session_weights: dict[str, float]
    warnings: tuple[str, ...] = ()  # what a reader must know of this design, in sentences

    @property
    def details(self) -> dict[str, Any]:
        """Fields for the sidecars."""
        found: dict[str, Any] = {
            "SessionWeights": {f"ses-{session}": weight for session, weight in self.session_weights.items()}
        }
        if MAIN_EFFECTS in self.warnings:
            found["CovariateEffects"] = "the same in all sessions"
        return found

    def with_columns(self, columns: pd.DataFrame) -> SessionDesign:
        """Add columns that the contrast does not ask about."""
        zeros = np.zeros((*self.contrast.shape[:-1], columns.shape[1]))
        return SessionDesign(
            pd.concat([self.matrix, columns], axis=1),
            np.concatenate([self.contrast, zeros], axis=-1),
            self.session_weights,
            self.warnings,
        )

    @property
    def is_determined(self) -> bool:
        """Whether the data determine the contrast."""
        matrix = self.matrix.to_numpy()
        return all(is_estimable(matrix, row) for row in np.atleast_2d(self.contrast))

    def check(
        self, hint: str = "too few participants have these sessions, or covariates cannot be told apart from sessions."
    ) -> None:
        """Make sure that the design determines the contrast and leaves error; the hint is why it may not do so."""
        if not self.is_determined:
            raise NotEstimableError(f"The design does not determine this contrast: {hint}")
        matrix = self.matrix.to_numpy()
        rank = rank_of(matrix)
        if len(matrix) - rank < 1:
            raise NotEstimableError(
                f"{len(matrix)} maps leave no degrees of freedom for the error of a model of rank {rank}."
            )


def session_design(layout: MapLayout, question: Question, covariate_effect: str = "split") -> SessionDesign:
    """Build the model of all session maps.

    Parameters
    ----------
    layout : MapLayout
    question : Question
    covariate_effect : {'split', 'mixture'}
        Of session covariates; see `MapLayout.adjusting_covariates`.

    Returns
    -------
    SessionDesign
        Of full rank or not; see `SessionDesign.check`. For a mean that the model with all products of sessions and
        covariates does not determine, the model without products, if that does.

    Raises
    ------
    NotEstimableError
        If the question has no meaning for these sessions, or a session that it needs has no map.
    """
    asked = question.sessions
    if len(layout.unique_participants) < 2:
        raise NotEstimableError(TOO_FEW_PARTICIPANTS)
    between = layout.between(range(len(layout.participants)))
    group_weights = question.group_weights(between.shape[1])
    over_sessions: Array
    session_weights: dict[str, float] = {}
    means_of_time = pd.DataFrame(index=layout.row_names())
    if asked.time is not None:
        columns, means_of_time = _time_columns(layout, asked.time, asked.degree, covariate_effect)
        over_sessions = np.array([0.0] * asked.degree + [1.0])
    else:
        sessions = layout.present(asked)
        labels = [f"ses-{session}" if session else "" for session in sessions]
        columns = dict(zip(labels, layout.session_columns(sessions).T, strict=True))
        if asked.kind == "any":
            if len(sessions) < 2:
                raise NotEstimableError(NO_DIFFERENCE)
            over_sessions = difference_contrasts(len(sessions))
        else:
            if not asked.weights:
                raise NotEstimableError(no_trend(asked))
            weights = asked.weights_for(sessions)
            if weights is None:
                absent = [session for session in asked.sessions if session not in sessions]
                raise NotEstimableError(f"No participant has a map of {session_names(absent)}.")
            over_sessions = np.array([weights.get(session, 0.0) for session in sessions])
            session_weights = {session: weight for session, weight in weights.items() if session}
    names, values = layout.adjusting_covariates(asked, covariate_effect)
    adjusting = pd.DataFrame(values, columns=list(names), index=layout.row_names())
    mixes = covariate_effect == "mixture" and (asked.time is not None or bool(names))
    design = SessionDesign(
        pd.DataFrame(_products(columns, between), index=layout.row_names()),
        np.asarray(np.kron(over_sessions, group_weights), dtype=np.float64),
        session_weights,
        (MIXTURE,) if mixes else (),
    )
    whole = design.with_columns(means_of_time).with_columns(adjusting)
    if asked.kind == "mean" and between.shape[1] > 1 and not whole.is_determined:
        main = _main_effects(design, columns, between, over_sessions, group_weights).with_columns(adjusting)
        if main.is_determined:
            return main
    return whole


def no_trend(asked: SessionContrast) -> str:
    """Say why a trend over the sessions has no meaning."""
    n_sessions = len(asked.sessions)
    there = "is one session" if n_sessions == 1 else f"are {n_sessions} sessions"
    return f"There {there} only, and the {asked.text} trend needs {asked.needed}."


def _time_columns(
    layout: MapLayout, time: str, degree: int, covariate_effect: str
) -> tuple[dict[str, Array], pd.DataFrame]:
    """Columns of a trend over a measured time: those with products with the covariates, and those without."""
    constant, values = np.ones(len(layout.participants)), layout.session_covariate(time)
    # centred, so that a power is no multiple of the lower ones in practice
    powers = {time: values} | {f"{time}^{power}": (values - values.mean()) ** power for power in range(2, degree + 1)}
    if covariate_effect == "mixture":
        return {"": constant, **powers}, pd.DataFrame(index=layout.row_names())
    columns = {"": constant}
    between: dict[str, Array] = {}
    for name, power in powers.items():
        parts = layout.parts(name, power)
        within = f"{name}:within"
        columns[within] = parts.pop(within, np.zeros(len(constant)))
        between |= {part: column - column.mean() for part, column in parts.items()}
    return columns, pd.DataFrame(between, index=layout.row_names())


def _products(columns: dict[str, Array], between: pd.DataFrame) -> dict[str, Array]:
    """Multiply every column over sessions with every column over participants."""
    named = {}
    for session, column in columns.items():
        for covariate in between.columns:
            parts = [session] if covariate == "intercept" else [session, covariate]
            named[":".join(filter(None, parts)) or "intercept"] = column * between[covariate].to_numpy()
    return named


def _main_effects(
    full: SessionDesign, columns: dict[str, Array], between: pd.DataFrame, over_sessions: Array, group_weights: Array
) -> SessionDesign:
    """Build the model without products: a column for every session, and one for every covariate."""
    covariates = between.drop(columns="intercept").set_index(full.matrix.index)
    # weights over sessions add up to 1: a covariate's mean effect over sessions is its one effect
    return SessionDesign(
        pd.concat([pd.DataFrame(columns, index=full.matrix.index), covariates], axis=1),
        np.concatenate([over_sessions * group_weights[..., :1], over_sessions.sum() * group_weights[..., 1:]], axis=-1),
        full.session_weights,
        (MAIN_EFFECTS, *full.warnings),
    )


def complete_participants(layout: MapLayout, asked: SessionContrast) -> tuple[NDArray[np.int_], Array]:
    """Find the participants who have every session.

    Returns
    -------
    rows : ndarray of shape (n, S) of int
    between : ndarray of shape (n, P)
        Their constant and covariates.
    """
    sessions = layout.present(asked)
    rows = layout.complete_rows(sessions)
    return rows, layout.between(rows[:, 0].tolist()).to_numpy()


def session_differences(effects: NDArray[np.floating], complete: NDArray[np.int_]) -> Array:
    """Compute the orthonormal differences between sessions of participants who have them all.

    Parameters
    ----------
    effects : ndarray of shape (N, V)
    complete : ndarray of shape (n, S) of int
        Rows of the maps of each participant; see `MapLayout.complete_rows`.

    Returns
    -------
    ndarray of shape (S − 1, n, V)
    """
    return np.asarray(np.einsum("qs,nsv->qnv", difference_contrasts(complete.shape[1]), effects[complete]))


def difference_contrasts(n_sessions: int) -> Array:
    """Orthonormal contrasts of shape (S − 1, S) that are all zero where no session differs (Helmert's)."""
    rows = np.array(
        [[1.0] * (step + 1) + [-(step + 1.0)] + [0.0] * (n_sessions - step - 2) for step in range(n_sessions - 1)]
    )
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

"""Session contrasts: what is asked about the sessions of a study.

Vocabulary
----------
study sessions
    All session labels of the analysis, in time order; an empty tuple for a dataset without `ses-` entities.
session contrast
    The estimand over sessions: their `mean`, a difference, a trend (`linear`; `quadratic`: its curvature; `cubic`,
    `degree-4`, …: the highest coefficient of a polynomial), any weights; or `any`, the F test that no session differs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from sessionfx.ask.expressions import ExpressionError, parse_expression, split_name
from sessionfx.errors import CommandLineError
from sessionfx.wording import listed, session_names, words_to_label

MEAN = "mean"
LINEAR = "linear"
ANY = "any"
_NAMED_DEGREES = {LINEAR: 1, "quadratic": 2, "cubic": 3}
_COUNTS = ("one", "two", "three", "four", "five")
EACH = "each"
_ROUNDING = 1e-12
# Each is a question for every strategy: the 45 of ten sessions would be two thousand files
MOST_DEFAULT_DIFFERENCES = 15
_TREND = re.compile(rf"({'|'.join(_NAMED_DEGREES)}|degree-[1-9])(?:\(([^()]+)\))?\Z")


@dataclass(frozen=True)
class SessionContrast:
    """One question about the sessions."""

    label: str  # label in file names (`sessions-<label>`)
    text: str  # as written, for people
    # `mean` and `trend` adapt to the sessions a participant has; `weights` do not. `any` is several contrasts at once,
    # `measured trend` is over a session covariate; neither has weights that hold for every participant.
    kind: Literal["mean", "trend", "weights", "any", "measured trend"]
    sessions: tuple[str, ...]  # the study sessions, in time order
    # one weight per study session, for a participant who has them all; empty where the question has no meaning (a trend
    # over one session), and for `any` and `measured trend`
    weights: tuple[float, ...]
    time: str | None = None  # the session covariate that a `measured trend` is over
    order_source: str = ""  # what the order of the sessions is taken from, in words
    # of a trend: 1 is the slope of a straight line, 2 the coefficient of the square in a parabola, and so on
    degree: int = 1

    @property
    def needed(self) -> str:
        """How many sessions a trend needs, as a word: a line two, a parabola three."""
        return _COUNTS[self.degree] if self.degree < len(_COUNTS) else str(self.degree + 1)

    @property
    def asked_of(self) -> tuple[str, ...]:
        """Sessions that count: those with a weight other than zero where weights are given, else all."""
        if self.kind != "weights":
            return self.sessions
        return tuple(session for session, weight in zip(self.sessions, self.weights, strict=True) if weight != 0)

    @property
    def order_text(self) -> str:
        """The order of the sessions in time, in words; empty where there are fewer than two."""
        if len(self.sessions) < 2:
            return ""
        return f"{session_names(self.sessions)} (from: {self.order_source})"

    @property
    def order_fields(self) -> dict[str, object]:
        """The order of the sessions in time, for sidecars; nothing where there are fewer than two."""
        if len(self.sessions) < 2:
            return {}
        return {
            "SessionOrder": [f"ses-{session}" for session in self.sessions],
            "SessionOrderSource": self.order_source or "not stated",
        }

    @property
    def is_within_participant(self) -> bool:
        """Whether the weights sum to zero, so that a participant's own level cancels."""
        if self.kind in ("any", "measured trend"):
            return True
        return bool(self.weights) and abs(sum(self.weights)) < 1e-9 * max(map(abs, self.weights))

    def weights_for(self, sessions: Sequence[str]) -> dict[str, float] | None:
        """Weights other than zero, by session, for a participant who has only some sessions.

        None where these cannot answer the question: a trend needs more sessions than its degree, given weights every
        session whose weight is not zero; `any` and a `measured trend` have none.
        """
        present = [index for index, session in enumerate(self.sessions) if session in set(sessions)]
        if not present or self.kind in ("any", "measured trend"):
            return None
        if self.kind == "mean":
            return {self.sessions[index]: 1 / len(present) for index in present}
        if self.kind == "trend":
            if len(present) <= self.degree:
                return None
            named = zip(present, trend_weights(np.asarray(present, dtype=float), self.degree), strict=True)
            return {self.sessions[index]: float(weight) for index, weight in named if weight != 0}
        needed = {session: weight for session, weight in zip(self.sessions, self.weights, strict=True) if weight != 0}
        return needed if set(needed) <= set(sessions) else None


def trend_weights(times: np.ndarray, degree: int = 1) -> np.ndarray:
    """Weights whose sum with the values is the highest coefficient of their least-squares polynomial over `times`.

    Parameters
    ----------
    times : ndarray of shape (S,)
        More different values than the degree.
    degree : int, default=1
        From 1 to 9.

    Returns
    -------
    ndarray of shape (S,)
        p / Σ p², with p as in `trend_direction`: change per unit of time to the power of the degree.
    """
    direction = trend_direction(times, degree)
    direction[np.abs(direction) < _ROUNDING * np.abs(direction).max()] = 0.0
    weights: np.ndarray = direction / (direction @ direction)
    return weights


def trend_direction(times: np.ndarray, degree: int = 1) -> np.ndarray:
    """Find what a power of `times`, of shape (S,), has beyond the lower ones: the next orthogonal polynomial."""
    centred: np.ndarray = times - times.mean()
    if degree == 1:
        return centred
    power = centred**degree
    found: np.ndarray = power - power.mean()
    for lower in (trend_direction(times, below) for below in range(1, degree)):
        found = found - (power @ lower) / (lower @ lower) * lower
    return found


def default_specifications(sessions: Sequence[str], *, order_is_known: bool = True) -> list[str]:
    """Mean, later-minus-earlier differences, and from three sessions on the trend and the test over all.

    A trend needs an order in time that is more than an assumption.
    """
    specifications = [MEAN]
    specifications += [f"{_written(later)} - {_written(earlier)}" for earlier, later in default_pairs(sessions)]
    if len(sessions) >= 3:
        specifications += [LINEAR, ANY] if order_is_known else [ANY]
    return specifications


def default_pairs(sessions: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of sessions, the earlier first, whose differences are asked for by default.

    All pairs where they are few; otherwise those with the first session and of neighbours, with the first only, or only
    the first with the last.
    """
    if not sessions:
        return []
    first = [(sessions[0], later) for later in sessions[1:]]
    neighbours = list(pairwise(sessions))
    choices = [list(combinations(sessions, 2)), list(dict.fromkeys([*first, *neighbours])), first]
    return next((pairs for pairs in choices if len(pairs) <= MOST_DEFAULT_DIFFERENCES), first[-1:])


def differences_left_out(specifications: Sequence[str], sessions: Sequence[str]) -> str:
    """Say which differences are not asked for by default; empty where all are, or the user chose."""
    pairs = default_pairs(sessions)
    n_all = len(sessions) * (len(sessions) - 1) // 2
    if specifications or len(pairs) == n_all:
        return ""
    made = listed([f"{_written(later)} - {_written(earlier)}" for earlier, later in pairs])
    example = f"{_written(sessions[-1])} - {_written(sessions[-2])}"
    return (
        f"Of the {n_all} differences between {len(sessions)} sessions {len(pairs)} are asked for: {made}. Ask for "
        f"others by name, such as --session-contrast '{example}'."
    )


def _written(session: str) -> str:
    """Write a session as a name in an expression; labels with + need backticks."""
    return f"ses-{session}" if session.isalnum() else f"`ses-{session}`"


def resolve_session_contrasts(
    specifications: Sequence[str], sessions: Sequence[str], *, order_is_known: bool = True, order_source: str = ""
) -> list[SessionContrast]:
    """Turn what the user wrote into session contrasts over the study's sessions.

    Parameters
    ----------
    specifications : sequence of str
        `mean`, `linear`, `quadratic`, `cubic`, `degree-4` and so on to 9, `any`, an expression over `ses-…`, a trend
        over a session covariate, `linear(COVARIATE)`, or `NAME=` one of these; `each` for every session by itself;
        empty for the defaults.
    sessions : sequence of str
        Study sessions in time order; empty for a dataset without sessions.
    order_is_known : bool, default=True
        See `default_specifications`.
    order_source : str, default=''
        What the order is taken from, in words.

    Raises
    ------
    CommandLineError
        For an unknown session, text that is no expression, or two contrasts with one label.
    """
    contrasts: list[SessionContrast] = []
    defaults = default_specifications(sessions, order_is_known=order_is_known)
    asked = [each for specification in specifications or defaults for each in _expanded(specification, sessions)]
    for specification in asked:
        contrast = replace(_resolve_one(specification, tuple(sessions)), order_source=order_source)
        # file systems of macOS and Windows take labels that differ in case only for one
        twin = next((other for other in contrasts if other.label.lower() == contrast.label.lower()), None)
        if twin is None:
            contrasts.append(contrast)
        elif replace(twin, text="", label="") != replace(contrast, text="", label=""):
            raise CommandLineError(
                f"The session contrasts '{twin.text}' and '{contrast.text}' would both be called '{contrast.label}' "
                f"in file names. Give one a name of its own: --session-contrast 'NAME={contrast.text}'."
            )
    return contrasts


def check_specification(specification: str) -> str | None:
    """Refuse text that no dataset could make sense of; return the session covariate that it takes as time, if any.

    Raises
    ------
    CommandLineError
        If the text is neither one of the words nor a linear expression.
    """
    name, body = split_name(specification)
    if name is not None and not words_to_label([name]):
        raise CommandLineError(
            f"--session-contrast '{specification}': the name before '=' has no letter or digit to use in file names."
        )
    if body in (MEAN, ANY) or specification == EACH:
        return None
    trend = _TREND.match(body)
    if trend:
        return trend[2].strip() if trend[2] else None
    try:
        parse_expression(body, session_names=True)
    except ExpressionError as error:
        raise CommandLineError(
            f"--session-contrast '{specification}' cannot be read: {error}. Write 'mean', 'linear', "
            "'quadratic', 'cubic', 'degree-4' (to 9), 'any', 'each', or weighted sessions such as 'ses-02 - ses-01' "
            "or '0.5*ses-02 + 0.5*ses-03 - ses-01'."
        ) from None
    return None


def _expanded(specification: str, sessions: Sequence[str]) -> list[str]:
    """Give the sessions in place of `each`; one map per participant, without sessions, is its mean."""
    if specification != EACH:
        return [specification]
    return [_written(session) for session in sessions] or [MEAN]


def _resolve_one(specification: str, sessions: tuple[str, ...]) -> SessionContrast:
    check_specification(specification)
    name, body = split_name(specification)
    label = words_to_label([name]) if name else None
    n_sessions = len(sessions)
    if body == MEAN:
        # A dataset without sessions has one map per participant: its mean is that map.
        weights = (1 / n_sessions,) * n_sessions if n_sessions else (1.0,)
        return SessionContrast(label or MEAN, body, "mean", sessions or ("",), weights)
    if body == ANY:
        return SessionContrast(label or ANY, body, "any", sessions or ("",), ())
    trend = _TREND.match(body)
    if trend:
        word, time = trend[1], trend[2]
        degree = _NAMED_DEGREES.get(word) or int(word.removeprefix("degree-"))
        if time:
            label = label or words_to_label([word, time])
            return SessionContrast(label, body, "measured trend", sessions or ("",), (), time.strip(), degree=degree)
        over_order = np.arange(n_sessions, dtype=float)
        weights = tuple(trend_weights(over_order, degree).tolist()) if n_sessions > degree else ()
        return SessionContrast(
            label or words_to_label([word]), body, "trend", sessions or ("",), weights, degree=degree
        )
    expression = parse_expression(body, session_names=True)
    weights_by_session: dict[str, float] = {}
    for written, weight in expression.weights.items():
        session = written.removeprefix("ses-")
        weights_by_session[session] = weights_by_session.get(session, 0.0) + weight
    unknown = [session for session in weights_by_session if session not in sessions]
    if unknown:
        known = session_names(sessions) or "none: this dataset has no ses- entity"
        raise CommandLineError(
            f"--session-contrast '{specification}' names ses-{unknown[0]}, which is not among the sessions "
            f"analysed ({known}). Correct the name, or select that session with --session-label."
        )
    weights = tuple(weights_by_session.get(session, 0.0) for session in sessions)
    if not any(weights):
        raise CommandLineError(f"--session-contrast '{specification}': all its weights cancel to zero.")
    return SessionContrast(label or expression.label, body, "weights", sessions, weights)

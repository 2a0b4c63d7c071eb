"""Monte Carlo calibration: how often each strategy finds an effect where there is none, and where there is one.

The design is a study's own (who has which session, covariates). The maps are drawn from the study's own maps
(`group.residuals`), or from a normal distribution whose covariance over the sessions of a participant is given. Every
voxel is one independent repetition of the study.

Vocabulary
----------
false-positive rate
    Share of null voxels whose p is at or below α: two-sided for a t test, upper tail for an F test, with the degrees of
    freedom that the strategy claims.
noncentrality
    Size of the true effect in standard errors of the estimate. A strategy with inflated false positives has an
    inflated power too: compare powers among valid strategies only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, special, stats

from sessionfx.errors import NotEstimableError
from sessionfx.group.residuals import StudyNoise, direction_of
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.group.strategies.designs import difference_contrasts, session_design
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.strategies.summary_statistics import SessionVectorPlan, SummaryStatistics, SummaryStatisticsPlan
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import pseudo_inverse

ESTIMATED = "estimated"
DECLINED = "declined"

# Voxels simulated at a time: for 500 maps 16 MB, and large enough for matrix products to run at full speed.
_VOXELS_TOGETHER = 4096
_NORMAL_95 = 1.96
# Skewness of residuals in the direction of the others'; in smooth normal maps it was below 0.07, and 0.3 for lognormal
# values of skewness 1.7 of six participants
_SKEWED = 0.15
# Eigenvalues of a covariance may be this far below zero, relative to the largest, from rounding.
_NEGATIVE = -1e-9
_NEEDS_VARIANCES = (
    "It weights maps by their sampling variances, which this simulation does not draw; with equal weights it can be "
    "calibrated."
)


@dataclass(frozen=True)
class Covariance:
    """Covariance of one participant's session effects, between participants and within together.

    Attributes
    ----------
    matrix : ndarray of shape (S, S)
        In squared units of the effects; symmetric, no negative eigenvalue.

    Raises
    ------
    ValueError
        If the matrix is none of this.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
            raise ValueError("a covariance is a square matrix of finite numbers")
        if not np.allclose(matrix, matrix.T):
            raise ValueError("a covariance is symmetric")
        eigenvalues = linalg.eigvalsh(matrix)
        if eigenvalues[0] < _NEGATIVE * max(eigenvalues[-1], 0.0) or eigenvalues[-1] <= 0:
            raise ValueError("a covariance has no negative eigenvalue, and one above zero at least")

    @classmethod
    def compound_symmetry(cls, n_sessions: int, between: float, within: float) -> Covariance:
        """Give every session the same variance and every pair the same covariance.

        Parameters
        ----------
        n_sessions : int
        between, within : float
            Variance between and within participants.
        """
        return cls(between * np.ones((n_sessions, n_sessions)) + within * np.eye(n_sessions))

    def root(self, sessions: Sequence[int]) -> NDArray[np.float64]:
        """Compute the symmetric square root of the covariance of some sessions; exists for singular ones too."""
        eigenvalues, vectors = linalg.eigh(self.matrix[np.ix_(sessions, sessions)])
        return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T)


class _Simulator:
    """Draws maps of a layout; everything that does not change between voxels is prepared once."""

    def __init__(
        self,
        layout: MapLayout,
        sessions: tuple[str, ...],
        covariance: Covariance,
        true_means: NDArray[np.float64] | None = None,
    ) -> None:
        if covariance.matrix.shape != (len(sessions),) * 2:
            raise ValueError(f"a covariance of {len(sessions)} sessions has as many rows, not {len(covariance.matrix)}")
        unknown = sorted(set(layout.sessions) - set(sessions))
        if unknown:
            raise ValueError(f"the covariance does not cover session '{unknown[0]}'")
        self.session_of_row = np.array([sessions.index(session) for session in layout.sessions], dtype=int)
        self.covariance = covariance
        self.layout, self.sessions = layout, sessions
        self.true_means = np.zeros(len(sessions)) if true_means is None else np.asarray(true_means, dtype=float)
        if self.true_means.shape != (len(sessions),):
            raise ValueError(f"{len(sessions)} sessions have as many session effects, not {self.true_means.size}")
        rows_by_participant: dict[str, list[int]] = {}
        for row, participant in enumerate(layout.participants):
            rows_by_participant.setdefault(participant, []).append(row)
        by_pattern: dict[tuple[int, ...], list[list[int]]] = {}
        for rows in rows_by_participant.values():
            by_pattern.setdefault(tuple(self.session_of_row[rows].tolist()), []).append(rows)
        self._patterns = [(np.array(rows), covariance.root(pattern)) for pattern, rows in by_pattern.items()]

    def draw(self, n_voxels: int, rng: np.random.Generator) -> _NormalDraw:
        """Draw a block of voxels."""
        return _NormalDraw(self, self.noise(n_voxels, rng))

    def noise(self, n_voxels: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw maps of shape (N, V) with expectation zero."""
        effects = rng.standard_normal((len(self.session_of_row), n_voxels))
        for rows, root in self._patterns:  # rows of shape (participants, their sessions)
            effects[rows] = root @ effects[rows]
        return effects

    def covariance_of_maps(self) -> NDArray[np.float64]:
        """Covariance of all maps, of shape (N, N)."""
        found = np.zeros((len(self.session_of_row),) * 2)
        for rows, _ in self._patterns:
            for own in rows:
                sessions = self.session_of_row[own]
                found[np.ix_(own, own)] = self.covariance.matrix[np.ix_(sessions, sessions)]
        return found


@dataclass(frozen=True)
class _NormalDraw:
    """One drawn block of voxels, as the null maps of any question."""

    source: _Simulator
    noise: NDArray[np.float64]

    def null_maps(self, question: Question) -> NDArray[np.float64]:
        """Give maps of shape (N, V) in which nothing is that the question asks about."""
        source = self.source
        return self.noise + _null_means(source.layout, question, source.sessions, source.true_means)[:, None]


class NullMaps(Protocol):
    """A draw of null voxels."""

    def null_maps(self, question: Question) -> NDArray[np.float64]:
        """Give maps of shape (N, V) in which nothing is that the question asks about."""


class Noise(Protocol):
    """Where null voxels come from."""

    def draw(self, n_voxels: int, rng: np.random.Generator) -> NullMaps:
        """Draw a block of voxels."""

    def covariance_of_maps(self) -> NDArray[np.float64]:
        """Covariance of all maps, of shape (N, N)."""


def simulate(
    layout: MapLayout,
    sessions: tuple[str, ...],
    covariance: Covariance,
    session_effects: NDArray[np.float64] | None,
    n_voxels: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the maps of a study.

    Parameters
    ----------
    layout : MapLayout
        Of N maps.
    sessions : tuple of S str
        What the rows of the covariance are.
    covariance : Covariance
        A participant who misses sessions has the rows and columns of the sessions there are.
    session_effects : ndarray of shape (S,) or None
        True mean of each session; zero without.
    n_voxels : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (N, V)
        Participants and voxels are independent.

    Raises
    ------
    ValueError
        If the covariance does not cover the sessions of the layout.
    """
    simulator = _Simulator(layout, sessions, covariance)
    effects = simulator.noise(n_voxels, rng)
    if session_effects is not None:
        effects += session_effects[simulator.session_of_row][:, None]
    return effects


@dataclass
class _Tally:
    """One strategy on one kind of simulated data of one question."""

    plan: Plan
    alphas: tuple[float, ...]
    sums: NDArray[np.float64] | None = None
    reason: str = ""
    rejected: NDArray[np.int_] = field(default_factory=lambda: np.zeros(0, dtype=int))
    dof: float = 0.0

    def learn(self, effects: NDArray[np.float64]) -> None:
        if self.plan.pools:
            sums = self.plan.pooled_sums(effects)
            self.sums = sums if self.sums is None else self.sums + sums

    def learned(self) -> None:
        if self.sums is not None:
            try:
                self.plan = self.plan.informed(self.sums)
            except NotEstimableError as error:
                self.reason = str(error)

    def count(self, effects: NDArray[np.float64]) -> None:
        if self.reason:
            return
        result = self.plan.estimate(effects, None)
        p = two_sided_p(result)
        found = np.array([np.count_nonzero(p <= alpha) for alpha in self.alphas])
        self.rejected = found if not len(self.rejected) else self.rejected + found
        self.dof += float(np.sum(np.broadcast_to(result.dof, p.shape)))


def two_sided_p(result: Estimate | FTest) -> NDArray[np.float64]:
    """Compute the p of a t test in both directions; an F test has one direction only.

    Returns
    -------
    ndarray of shape (V,)
        NaN where the data do not determine an F.
    """
    if isinstance(result, FTest):
        return result.p
    return np.asarray(2 * special.stdtr(result.dof, -np.abs(result.t)))


def calibrate(
    layout: MapLayout,
    questions: Sequence[Question],
    strategies: Mapping[str, Strategy],
    options: GroupOptions,
    sessions: tuple[str, ...],
    covariance: Covariance | Noise,
    *,
    n_voxels: int,
    seed: int,
    alphas: tuple[float, ...] = (0.05, 0.001),
    noncentrality: float = 3.0,
    session_effects: NDArray[np.float64] | None = None,
    power: bool = True,
) -> pd.DataFrame:
    """Find false-positive rates and power of strategies on one design.

    Null data: from a study's maps (see `group.residuals`), or normal maps with the given covariance and the true
    session effects, less what would make the question's null hypothesis false. With w the session weights of the
    question these are μ − w (w′μ)/(w′w): for a mean the session effects sum to zero; for a difference the two sessions
    are equal and others may differ; for `any` and for a trend over a measured time there are none. A question about a
    covariate keeps all of μ, which is the same for everyone.

    Power: the same noise, with a true effect added that gives the summary-statistics estimator of this question, with
    its participants and equal weights, the stated noncentrality under the true covariance: effect = noncentrality · sd.
    Every strategy gets the same effect. It lies along the question's own weights: the map of participant i at session
    s gets effect · w_s/(w′w) · x_i′g/(g′g), for x_i the constant and covariates and g the contrast over participants.
    So a mean is raised equally at all sessions, a trend is a straight line, a difference goes half up and half down.
    For a trend over a measured time, the time takes the place of w_s/(w′w). For `any` the effect is a straight line
    over the sessions, as steep as makes the Mahalanobis length √(δ′C⁻¹δ) of the vector δ of true differences equal to
    the noncentrality, C the true covariance of the estimated differences. Where summary-statistics cannot answer, the
    best linear unbiased estimator of all maps under the true covariance takes its place.

    A strategy that learns from all voxels (the marginal working correlation) learns from the simulated ones.

    Parameters
    ----------
    layout : MapLayout
        Of N maps.
    questions : sequence of Question
    strategies : mapping of str to Strategy
    options : GroupOptions
    sessions : tuple of S str
        What the rows of the covariance are.
    covariance : Covariance or Noise
        Normal maps with this covariance, or where else null voxels come from.
    n_voxels : int
        Null voxels, and as many with an effect.
    seed : int
        Equal seeds give equal tables.
    alphas : tuple of float
        Nominal false-positive rates.
    noncentrality : float
    session_effects : ndarray of shape (S,), optional
        True mean of each session of normal maps.
    power : bool, default=True
        Whether it is found.

    Returns
    -------
    DataFrame
        One row per question and strategy: `question`, `label`, `strategy`, `status` (`estimated` or `declined`),
        `reason`, `test` (`t` or `F`), `dof` (mean over voxels, of the error), `n_voxels`, `effect` (the true one, for
        which power is found; for `any` the change from first to last session); for each α `rate_α` with `rate_α_lower`
        and `rate_α_upper` (exact binomial 95 % interval) and `power_α`; NaN where a strategy declines.

    Raises
    ------
    ValueError
        If the covariance does not cover the sessions of the layout, or there are no voxels.
    """
    from sessionfx.execution import progress_bar

    if n_voxels < 1:
        raise ValueError("at least one voxel is needed")
    noise: Noise
    if isinstance(covariance, Covariance):
        noise = _Simulator(layout, sessions, covariance, session_effects)
    else:
        noise = covariance
    rows: list[dict[str, Any]] = []
    # question, the effect that is added to its null maps, who estimates the null maps, and who those with the effect
    work: list[tuple[Question, NDArray[np.float64], list[_Tally], list[_Tally]]] = []
    tallies: list[tuple[dict[str, Any], _Tally, _Tally | None]] = []
    for question in questions:
        effect, pattern = _effect(layout, question, noise.covariance_of_maps(), noncentrality)
        at_null: list[_Tally] = []
        at_effect: list[_Tally] = []
        for name, strategy in strategies.items():
            row: dict[str, Any] = {
                "question": question.text,
                "label": question.label,
                "strategy": name,
                "status": ESTIMATED,
                "reason": "",
            }
            row |= {"test": "F" if question.sessions.kind == "any" else "t", "n_voxels": n_voxels, "effect": effect}
            rows.append(row)
            try:
                plan = strategy.plan(layout, question, options)
            except NotEstimableError as error:
                row |= {"status": DECLINED, "reason": str(error)}
                continue
            if plan.uses_variances:
                row |= {"status": DECLINED, "reason": _NEEDS_VARIANCES}
                continue
            null_tally = _Tally(plan, alphas)
            effect_tally = _Tally(plan, alphas) if power and np.isfinite(effect) else None
            tallies.append((row, null_tally, effect_tally))
            at_null.append(null_tally)
            at_effect += [effect_tally] if effect_tally else []
        work.append((question, effect * pattern, at_null, at_effect))

    starts = range(0, n_voxels, _VOXELS_TOGETHER)
    everyone = [tally for *_, at_null, at_effect in work for tally in (*at_null, *at_effect)]
    passes = [False, True] if any(tally.plan.pools for tally in everyone) else [True]
    steps = [(counting, start) for counting in passes for start in starts]
    for counting, start in progress_bar(steps, "Calibration", "block"):
        if counting and start == 0:
            for tally in everyone:
                tally.learned()
        drawn = noise.draw(min(_VOXELS_TOGETHER, n_voxels - start), np.random.default_rng([seed, start]))
        for question, added, at_null, at_effect in work:
            users = [[tally for tally in group if counting or tally.plan.pools] for group in (at_null, at_effect)]
            if not any(users):
                continue
            effects = drawn.null_maps(question)
            for group, means in zip(users, (None, added), strict=True):
                if means is not None:
                    effects += means[:, None]
                for tally in group:
                    (tally.count if counting else tally.learn)(effects)

    for row, null_tally, effect_tally in tallies:
        row |= _rates(null_tally, effect_tally, n_voxels)
    columns = ["question", "label", "strategy", "status", "reason", "test", "dof", "n_voxels", "effect"]
    columns += [column for alpha in alphas for column in _columns(alpha)]
    return pd.DataFrame(rows, columns=columns)


def calibrate_study(
    layout: MapLayout,
    questions: Sequence[Question],
    strategies: Mapping[str, Strategy],
    options: GroupOptions,
    sessions: tuple[str, ...],
    effects: NDArray[np.floating],
    *,
    n_voxels: int,
    seed: int,
    alphas: tuple[float, ...] = (0.05, 0.001),
) -> pd.DataFrame:
    """Find false-positive rates and power in null voxels drawn from a study's own maps.

    What is drawn is less skewed than the data: means of few participants take part of it away. Where there is
    skewness, how much is found by calibrating a simulated study of the same participants in the same way (the iterated
    bootstrap: Hall & Martin 1988, doi:10.1093/biomet/75.4.661): rates that come out lower there, by more than chance,
    are raised by as much.

    Parameters
    ----------
    layout, questions, strategies, options, sessions, n_voxels, seed, alphas
        See `calibrate`.
    effects : ndarray of shape (N, V)
        Maps at a sample of voxels.

    Returns
    -------
    DataFrame
        See `calibrate`; the intervals of raised rates are normal approximations.

    Raises
    ------
    ValueError
        If nothing varies about the means of sessions and groups.
    """
    noise = StudyNoise(layout, effects)
    settings: dict[str, Any] = {"n_voxels": n_voxels, "alphas": alphas}
    table = calibrate(layout, questions, strategies, options, sessions, noise, seed=seed, **settings)
    for number, question in enumerate(questions):
        estimated = table[(table["label"] == question.label) & (table["status"] == ESTIMATED)]
        answering = {name: strategies[name] for name in estimated["strategy"]}
        if not answering or not noise.in_direction(question)[1] > _SKEWED:
            continue
        simulated = noise.again(question, np.random.default_rng([seed, number, 1]))
        again = calibrate(
            layout, [question], answering, options, sessions, simulated, seed=seed + 1 + number, power=False, **settings
        )  # fmt: skip
        for (index, row), (_, other) in zip(estimated.iterrows(), again.iterrows(), strict=True):
            raised = _raised(row, other, alphas, n_voxels)
            table.loc[index, list(raised)] = list(raised.values())
    return table


def _raised(row: pd.Series, again: pd.Series, alphas: Sequence[float], n_voxels: int) -> dict[str, float]:
    """Raise rates by what was lost when the same was done with a simulated study, if that exceeds chance at the first.

    Small rates are too few voxels to tell by themselves.
    """
    raised: dict[str, float] = {}
    for alpha in alphas:
        rate, lower, upper, _ = _columns(alpha)
        found, second = float(row[rate]), float(again[rate])
        own, other = (share * (1 - share) / n_voxels for share in (found, second))
        if alpha == alphas[0] and not found - second > 2 * np.sqrt(own + other):
            return {}
        if found > second:
            middle, half = 2 * found - second, _NORMAL_95 * np.sqrt(4 * own + other)
            raised |= {rate: middle, lower: max(middle - half, 0.0), upper: middle + half}
    return raised


def _columns(alpha: float) -> list[str]:
    return [f"rate_{alpha:g}", f"rate_{alpha:g}_lower", f"rate_{alpha:g}_upper", f"power_{alpha:g}"]


def _rates(at_null: _Tally, at_effect: _Tally | None, n_voxels: int) -> dict[str, Any]:
    if at_null.reason:
        return {"status": DECLINED, "reason": at_null.reason}
    found: dict[str, Any] = {"dof": at_null.dof / n_voxels}
    for index, alpha in enumerate(at_null.alphas):
        rate, lower, upper, power = _columns(alpha)
        count = int(at_null.rejected[index])
        found |= {rate: count / n_voxels} | dict(zip((lower, upper), binomial_interval(count, n_voxels), strict=True))
        if at_effect is not None and not at_effect.reason:
            found[power] = int(at_effect.rejected[index]) / n_voxels
    return found


def binomial_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Find the exact confidence interval of a proportion (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    tail = (1 - level) / 2
    lower = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    upper = float(stats.beta.isf(tail, count + 1, total - count)) if count < total else 1.0
    return lower, upper


def _weights_of_sessions(
    layout: MapLayout, question: Question, sessions: tuple[str, ...]
) -> NDArray[np.float64] | None:
    """Find the weights of shape (S,) of the sessions that have maps; None where the question has no fixed ones."""
    asked = question.sessions
    if not asked.weights:
        return None
    named = asked.weights_for([session for session in asked.sessions if session in layout.sessions])
    return None if named is None else np.array([named.get(session, 0.0) for session in sessions])


def _null_means(
    layout: MapLayout, question: Question, sessions: tuple[str, ...], true_means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the expectation of each map, of shape (N,), under the question's null hypothesis."""
    at_row = np.array([sessions.index(session) for session in layout.sessions], dtype=int)
    if question.group_weights(1 + len(layout.covariate_names))[0] == 0:
        return np.asarray(true_means[at_row])  # about a covariate, which session effects do not depend on
    weights = _weights_of_sessions(layout, question, sessions)
    if weights is None:
        return np.zeros(len(at_row))
    return np.asarray((true_means - weights * (weights @ true_means) / (weights @ weights))[at_row])


def _effect(
    layout: MapLayout, question: Question, of_maps: NDArray[np.float64], noncentrality: float
) -> tuple[float, NDArray[np.float64]]:
    """Find the true effect that power is found for, and the pattern of shape (N,) it has over the maps.

    The effect is NaN where the design cannot answer the question at all.
    """
    asked = question.sessions
    between = layout.between(range(len(layout.participants))).to_numpy()
    over_participants = question.group_weights(between.shape[1])
    share = between @ over_participants / (over_participants @ over_participants)
    present = [session for session in asked.sessions if session in layout.sessions]
    differences = np.ones((1, 1))  # a single contrast is its own vector
    pattern = direction_of(layout, question)
    if asked.kind == "any" and len(present) > 1:
        differences = (difference_contrasts(len(present)) @ np.linspace(-0.5, 0.5, len(present)))[:, None]
    elif asked.time is None:
        weights = _weights_of_sessions(layout, question, tuple(present))
        if weights is None:
            return np.nan, np.zeros(len(share))
        pattern = pattern / (weights @ weights)
    try:
        covariance = _reference_covariance(layout, question, of_maps)
        length = float((differences.T @ np.linalg.solve(covariance, differences)).item())
    except (NotEstimableError, np.linalg.LinAlgError):
        return np.nan, np.zeros(len(share))
    return noncentrality / np.sqrt(length), pattern * share


def _reference_covariance(layout: MapLayout, question: Question, of_maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the true covariance, of shape (Q, Q), of the estimator that noncentrality refers to.

    Raises
    ------
    NotEstimableError
        If the design does not determine it.
    LinAlgError
        If summary-statistics cannot answer and the true covariance is singular.
    """
    try:
        # how its variance is estimated does not matter here
        plan = SummaryStatistics().plan(layout, question, GroupOptions(variance="pooled"))
    except NotEstimableError:
        design = session_design(layout, question)
        design.check("the maps do not determine it.")
        whitened = linalg.solve_triangular(linalg.cholesky(of_maps, lower=True), design.matrix.to_numpy(), lower=True)
        weights = np.atleast_2d(design.contrast) @ pseudo_inverse(whitened)
        return np.asarray(weights @ weights.T)
    over_participants = plan.contrast @ pseudo_inverse(plan.design_matrix.to_numpy())
    if isinstance(plan, SessionVectorPlan):
        contrasts = difference_contrasts(plan.complete.shape[1])
        of_one = of_maps[np.ix_(plan.complete[0], plan.complete[0])]
        return np.asarray(contrasts @ of_one @ contrasts.T * (over_participants @ over_participants))
    assert isinstance(plan, SummaryStatisticsPlan)  # noqa: S101 - the strategy makes no other
    weights = over_participants @ plan.combination
    return np.atleast_2d(weights @ of_maps @ weights)

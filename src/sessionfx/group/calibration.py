"""Monte Carlo calibration: how often each strategy finds an effect where there is none, and where there is one.

The design is a study's own (who has which session, covariates), and maps are drawn from the study's own maps
(`group.residuals`). Every voxel is one independent repetition of the study.

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
from scipy import special, stats

from sessionfx.errors import NotEstimableError
from sessionfx.group.residuals import StudyNoise, direction_of
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.group.strategies.designs import difference_contrasts, session_design
from sessionfx.group.strategies.participant_values import plan_participants
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import pseudo_inverse, repeated_blocks
from sessionfx.statistics.participant_blocks import ParticipantBlocks

ESTIMATED = "estimated"
DECLINED = "declined"
# Nominal false-positive rates
ALPHAS = (0.05, 0.001)
NONCENTRALITY = 3.0

# Voxels drawn at a time, fewer where maps are so many that they have more numbers than this
_VOXELS_TOGETHER, _VALUES_DRAWN = 4096, 2**24
# Numbers of which maps are made at a time: 16 MB, and large enough for matrix products to run at full speed
_VALUES_TOGETHER = 2**21
_NORMAL_95 = 1.96
# Skewness of residuals in the direction of the others'; in smooth normal maps it was below 0.07, and 0.3 for lognormal
# values of skewness 1.7 of six participants
_SKEWED = 0.15
_NEEDS_VARIANCES = (
    "It weights maps by their sampling variances, which this simulation does not draw; with equal weights it can be "
    "calibrated."
)


class NullMaps(Protocol):
    """A draw of null voxels."""

    def null_maps(self, question: Question, voxels: slice = slice(None)) -> NDArray[np.float64]:
        """Give maps of shape (N, V), of some voxels, in which nothing is that the question asks about."""


class Noise(Protocol):
    """Where null voxels come from."""

    def draw(self, n_voxels: int, rng: np.random.Generator) -> NullMaps:
        """Draw a block of voxels."""

    def covariance_of_maps(self) -> ParticipantBlocks:
        """Covariance of all maps, of shape (N, N)."""


@dataclass
class _Tally:
    """One strategy on one kind of simulated data of one question."""

    plan: Plan
    sums: NDArray[np.float64] | None = None
    refusal: str = ""
    rejected: NDArray[np.int_] = field(default_factory=lambda: np.zeros(len(ALPHAS), dtype=int))
    dof: list[NDArray[np.float64]] = field(default_factory=list)

    def learn(self, effects: NDArray[np.float64]) -> None:
        if self.plan.pools:
            sums = self.plan.pooled_sums(effects)
            self.sums = sums if self.sums is None else self.sums + sums

    def learned(self) -> None:
        if self.sums is not None:
            try:
                self.plan = self.plan.informed(self.sums)
            except NotEstimableError as error:
                self.refusal = str(error)

    def count(self, effects: NDArray[np.float64]) -> None:
        if self.refusal:
            return
        result = self.plan.estimate(effects, None)
        p = two_sided_p(result)
        self.rejected = self.rejected + np.array([np.count_nonzero(p <= alpha) for alpha in ALPHAS])
        self.dof.append(np.ravel(result.dof))


@dataclass(frozen=True)
class _Trial:
    """Everything that is simulated of one question."""

    question: Question
    added: NDArray[np.float64]  # (N,): the true effect at each map, for power
    # of the table, with who estimates the null maps, and who those with the effect, where these are simulated
    rows: list[tuple[dict[str, Any], list[_Tally]]]

    def go_through(self, drawn: NullMaps, n_voxels: int, *, counting: bool) -> None:
        """Let plans learn from a block of so many voxels, or count what they find in it."""
        users = [
            [own[kind] for _, own in self.rows if len(own) > kind and (counting or own[kind].plan.pools)]
            for kind in range(2)
        ]
        if not any(users):
            return
        together = max(64, _VALUES_TOGETHER // len(self.added))
        for start in range(0, n_voxels, together):
            effects = drawn.null_maps(self.question, slice(start, min(start + together, n_voxels)))
            for group, means in zip(users, (None, self.added), strict=True):
                if means is not None:
                    effects += means[:, None]
                for tally in group:
                    (tally.count if counting else tally.learn)(effects)


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
    noise: Noise,
    *,
    n_voxels: int,
    seed: int,
    power: bool = True,
    size: float | None = None,
) -> pd.DataFrame:
    """Find false-positive rates and power of strategies on one design.

    Power: the same noise, with a true effect added that gives the estimator of participants' values of this question,
    with its participants and equal weights, the noncentrality `NONCENTRALITY` under the true covariance: effect =
    noncentrality · sd. Every strategy gets the same effect. It lies along the question's own weights: the map of
    participant i at session s gets effect · w_s/(w′w) · x_i′g/(g′g), for x_i the constant and covariates and g the
    contrast over participants. So a mean is raised equally at all sessions, a trend is a straight line, a difference
    goes half up and half down. For a trend over a measured time, the time takes the place of w_s/(w′w). For `any` the
    effect is a straight line over the sessions, as steep as makes the Mahalanobis length √(δ′C⁻¹δ) of the vector δ of
    true differences equal to the noncentrality, C the true covariance of the estimated differences. Where participants
    have no values, the best linear unbiased estimator of all maps under the true covariance takes its place.

    A strategy that learns from all voxels (a working correlation) learns from the simulated ones.

    Parameters
    ----------
    layout : MapLayout
        Of N maps.
    questions : sequence of Question
    strategies : mapping of str to Strategy
    options : GroupOptions
    noise : Noise
        Where null voxels come from.
    n_voxels : int
        Null voxels, and as many with an effect.
    seed : int
        Equal seeds give equal tables.
    power : bool, default=True
        Whether it is found.
    size : float, optional
        The true effect, in units of the maps, instead of the one with the noncentrality.

    Returns
    -------
    DataFrame
        One row per question and strategy: `question`, `label`, `strategy`, `status` (`estimated` or `declined`),
        `reason`, `test` (`t` or `F`), `dof` (median over voxels, of the error), `n_voxels`, `effect` (the true one, for
        which power is found; for `any` the change from first to last session); for each α `rate_α` with `rate_α_lower`
        and `rate_α_upper` (exact binomial 95 % interval) and `power_α`; NaN where a strategy declines.

    Raises
    ------
    ValueError
        If there are no voxels.
    """
    from sessionfx.execution import progress_bar

    if n_voxels < 1:
        raise ValueError("at least one voxel is needed")
    of_maps = noise.covariance_of_maps()
    trials = [
        _prepare(layout, question, strategies, options, of_maps, power=power, size=size) for question in questions
    ]
    everyone = [tally for trial in trials for _, own in trial.rows for tally in own]
    together = max(1, min(_VOXELS_TOGETHER, _VALUES_DRAWN // of_maps.n_maps))
    passes = [False, True] if any(tally.plan.pools for tally in everyone) else [True]
    steps = [(counting, start) for counting in passes for start in range(0, n_voxels, together)]
    for counting, start in progress_bar(steps, "Calibration", "block"):
        if counting and start == 0:
            for tally in everyone:
                tally.learned()
        n_drawn = min(together, n_voxels - start)
        drawn = noise.draw(n_drawn, np.random.default_rng([seed, start]))
        for trial in trials:
            trial.go_through(drawn, n_drawn, counting=counting)
    rows = [{**row, **_rates(own, n_voxels), "n_voxels": n_voxels} for trial in trials for row, own in trial.rows]
    columns = ["question", "label", "strategy", "status", "reason", "test", "dof", "n_voxels", "effect"]
    return pd.DataFrame(rows, columns=columns + [column for alpha in ALPHAS for column in _columns(alpha)])


def _prepare(
    layout: MapLayout,
    question: Question,
    strategies: Mapping[str, Strategy],
    options: GroupOptions,
    of_maps: ParticipantBlocks,
    *,
    power: bool,
    size: float | None,
) -> _Trial:
    """Plan the answers of all strategies to one question, and the effect that its power is found for."""
    effect, pattern = _effect(layout, question, of_maps)
    if size is not None and np.isfinite(effect):
        effect = size
    rows: list[tuple[dict[str, Any], list[_Tally]]] = []
    for name, strategy in strategies.items():
        row: dict[str, Any] = {
            "question": question.text,
            "label": question.label,
            "strategy": name,
            "status": ESTIMATED,
            "reason": "",
            "test": "F" if question.is_f_test else "t",
            "effect": effect,
        }
        tallies: list[_Tally] = []
        try:
            plan = strategy.plan(layout, question, options)
            if plan.uses_variances:
                raise NotEstimableError(_NEEDS_VARIANCES)
            tallies = [_Tally(plan) for _ in range(2 if power and np.isfinite(effect) else 1)]
        except NotEstimableError as error:
            row |= {"status": DECLINED, "reason": str(error)}
        rows.append((row, tallies))
    return _Trial(question, effect * pattern, rows)


def calibrate_study(
    layout: MapLayout,
    questions: Sequence[Question],
    strategies: Mapping[str, Strategy],
    options: GroupOptions,
    effects: NDArray[np.floating],
    *,
    n_voxels: int,
    seed: int,
) -> pd.DataFrame:
    """Find false-positive rates and power in null voxels drawn from a study's own maps.

    What is drawn is less skewed than the data: means of few participants take part of it away. Where there is
    skewness, how much is found by calibrating a simulated study of the same participants in the same way (the iterated
    bootstrap: Hall & Martin 1988, doi:10.1093/biomet/75.4.661): rates that come out lower there, by more than chance,
    are raised by as much.

    Parameters
    ----------
    layout, questions, strategies, options, n_voxels, seed
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
    table = calibrate(layout, questions, strategies, options, noise, n_voxels=n_voxels, seed=seed)
    for number, question in enumerate(questions):
        estimated = table[(table["label"] == question.label) & (table["status"] == ESTIMATED)]
        answering = {name: strategies[name] for name in estimated["strategy"]}
        if not answering or not noise.in_direction(question)[1] > _SKEWED:
            continue
        simulated = noise.again(question, np.random.default_rng([seed, number, 1]))
        again = calibrate(
            layout, [question], answering, options, simulated,
            n_voxels=n_voxels, seed=seed + 1 + number, power=False,
        )  # fmt: skip
        for (index, row), (_, other) in zip(estimated.iterrows(), again.iterrows(), strict=True):
            raised = _raised(row, other, n_voxels)
            table.loc[index, list(raised)] = list(raised.values())
    return table


def _raised(row: pd.Series, again: pd.Series, n_voxels: int) -> dict[str, float]:
    """Raise rates by what was lost when the same was done with a simulated study, if that exceeds chance at the first.

    Small rates are too few voxels to tell by themselves.
    """
    raised: dict[str, float] = {}
    for alpha in ALPHAS:
        rate, lower, upper, _ = _columns(alpha)
        found, second = float(row[rate]), float(again[rate])
        own, other = (share * (1 - share) / n_voxels for share in (found, second))
        if alpha == ALPHAS[0] and not found - second > 2 * np.sqrt(own + other):
            return {}
        if found > second:
            middle, half = 2 * found - second, _NORMAL_95 * np.sqrt(4 * own + other)
            raised |= {rate: middle, lower: max(middle - half, 0.0), upper: middle + half}
    return raised


def _columns(alpha: float) -> list[str]:
    return [f"rate_{alpha:g}", f"rate_{alpha:g}_lower", f"rate_{alpha:g}_upper", f"power_{alpha:g}"]


def _rates(tallies: Sequence[_Tally], n_voxels: int) -> dict[str, Any]:
    if not tallies:
        return {}
    at_null, *at_effect = tallies
    if at_null.refusal:
        return {"status": DECLINED, "reason": at_null.refusal}
    found: dict[str, Any] = {"dof": float(np.median(np.concatenate(at_null.dof)))}
    for index, alpha in enumerate(ALPHAS):
        rate, lower, upper, power = _columns(alpha)
        count = int(at_null.rejected[index])
        found |= {rate: count / n_voxels} | dict(zip((lower, upper), binomial_interval(count, n_voxels), strict=True))
        for tally in at_effect:
            if not tally.refusal:
                found[power] = int(tally.rejected[index]) / n_voxels
    return found


def binomial_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Find the exact confidence interval of a proportion (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    tail = (1 - level) / 2
    lower = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    upper = float(stats.beta.isf(tail, count + 1, total - count)) if count < total else 1.0
    return lower, upper


def _effect(layout: MapLayout, question: Question, of_maps: ParticipantBlocks) -> tuple[float, NDArray[np.float64]]:
    """Find the true effect that power is found for, and the pattern of shape (N,) it has over the maps.

    The effect is NaN where the design cannot answer the question at all.
    """
    asked = question.sessions
    between = layout.between(range(len(layout.participants))).to_numpy()
    rows = np.atleast_2d(question.group_weights(between.shape[1]))
    first = rows[0]  # of an F test the true effect is what its first row is about
    share = between @ first / (first @ first)
    present = layout.present(asked)
    of_row = np.eye(max(len(question.tested), 1))[0]  # likewise
    differences = np.ones(1)  # a single contrast is its own vector
    pattern = direction_of(layout, question)
    if asked.kind == "any" and len(present) > 1:
        differences = difference_contrasts(len(present)) @ np.linspace(-0.5, 0.5, len(present))
    elif asked.time is None:
        named = asked.weights_for(present) if asked.weights else None
        if named is None:
            return np.nan, np.zeros(of_maps.n_maps)
        weights = np.array([named.get(session, 0.0) for session in present])
        pattern = pattern / (weights @ weights)
    try:
        covariance = _reference_covariance(layout, question, of_maps)
        true = np.kron(of_row, np.kron(differences, rows @ first / (first @ first)))
        length = float(true @ np.linalg.solve(covariance, true))
    except (NotEstimableError, np.linalg.LinAlgError):
        return np.nan, np.zeros(of_maps.n_maps)
    return NONCENTRALITY / np.sqrt(length), np.kron(of_row, pattern * share)


def _reference_covariance(layout: MapLayout, question: Question, of_maps: ParticipantBlocks) -> NDArray[np.float64]:
    """Compute the true covariance, of shape (Q, Q), of the estimator that noncentrality refers to.

    Raises
    ------
    NotEstimableError
        If the design does not determine it.
    LinAlgError
        If participants have no values and the true covariance is singular.
    """
    n_tested = len(question.tested)
    try:
        # how its variance is estimated does not matter here
        weights = plan_participants(layout, question, GroupOptions(variance="pooled")).map_weights
    except NotEstimableError:
        design = session_design(layout, question)
        design.check("the maps do not determine it.")
        whole = repeated_blocks(design.matrix.to_numpy(), n_tested)
        whitened = of_maps.whitened(whole)
        weights = repeated_blocks(np.atleast_2d(design.contrast), n_tested) @ pseudo_inverse(whitened)
        return np.asarray(weights @ weights.T)
    return of_maps.quadratic(repeated_blocks(weights, n_tested))

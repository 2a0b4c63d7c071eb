"""The answer that the program stars, in simulated null studies: how often it is wrong, and what the reader is told.

A situation is a design (who has which session, covariates, times) and a way in which maps vary. Its voxels are
independent repetitions. They are cut into studies, and each study is analysed as the program does: evidence, plans and
estimates by `group.answers.GroupEstimator`, the star and the warnings by `group.verdict.judge`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.covariates import Covariates, code_covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.execution import in_this_process
from sessionfx.group import participant_evidence
from sessionfx.group.answers import GroupEstimator
from sessionfx.group.calibration import two_sided_p
from sessionfx.group.evidence import with_active_regions
from sessionfx.group.results import QuestionResults, StrategyResult, Verdict
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.designs import difference_contrasts, session_design
from sessionfx.group.strategies.participant_values import plan_participants
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.options import GroupModel
from sessionfx.space.grid import Grid
from sessionfx.statistics.linear_algebra import pseudo_inverse

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from array_maps import MapsInMemory

ALPHAS = (0.05, 0.01, 0.001, 1e-4, 1e-5)
# those that need nothing but the effects: no sampling variances are simulated
DEFAULT = tuple(name for name, strategy in STRATEGIES.items() if strategy.is_default)
STARRED, SILENT = "starred", "starred, no warning"
NONCENTRALITY = 3.0

# standardised draws of shape (…) by name
DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
    "lognormal": lambda rng, shape: (np.exp(rng.standard_normal(shape)) - np.exp(0.5)) / np.sqrt(np.e * np.expm1(1.0)),
    "exponential": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
}


@dataclass(frozen=True)
class Situation:
    """One simulated design and how its maps vary.

    Attributes
    ----------
    kind, name : str
        The table it is in, and its row there.
    attends : ndarray of bool, shape (n, S)
        Who has which session.
    loadings : ndarray of shape (S, F)
        A participant's maps are loadings @ (F independent draws): their covariance is loadings @ loadings′.
    asked : tuple of (str, str)
        Session contrast and group contrast.
    covariates : dict of str to list
        Of participants, as in participants.tsv.
    measured : dict of str to ndarray of shape (n, S)
        Session covariates.
    participant_sd : ndarray of shape (n,) or float
        Multiplies a participant's maps.
    level : ndarray of shape (n, S) or float
        Added to the maps, such as what participants who leave have more than others. It must leave the null
        hypotheses true.
    session_effects : ndarray of shape (S,) or None
        True means of sessions, of which each question has what leaves its null hypothesis true.
    distribution : str
        Of the draws.
    voxels_per_study : int
        A study's evidence and working correlation are of as many voxels.
    icc, ratio : float
        For the tables.
    """

    kind: str
    name: str
    attends: NDArray[np.bool_]
    loadings: NDArray[np.float64]
    asked: tuple[tuple[str, str], ...]
    covariates: dict[str, list[Any]] = field(default_factory=dict)
    measured: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    participant_sd: NDArray[np.float64] | float = 1.0
    level: NDArray[np.float64] | float = 0.0
    session_effects: NDArray[np.float64] | None = None
    distribution: str = "normal"
    voxels_per_study: int = 10_000
    icc: float = float("nan")
    ratio: float = float("nan")

    @property
    def n(self) -> int:
        """Number of participants."""
        return len(self.attends)

    @property
    def k(self) -> int:
        """Number of sessions."""
        return self.attends.shape[1]

    @property
    def sessions(self) -> tuple[str, ...]:
        """Labels of the study sessions."""
        return tuple(f"{index + 1:02d}" for index in range(self.k))

    @property
    def cost(self) -> float:
        """About in proportion to the time its simulation takes."""
        studies = 1 + 10_000 / self.voxels_per_study
        return float(self.attends.sum() * (len(self.asked) + len(self.covariates)) * studies)

    @cached_property
    def rows(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Participant and session of each map."""
        return np.nonzero(self.attends)

    @cached_property
    def _coded(self) -> Covariates:
        labels = [f"{index + 1:02d}" for index in range(self.n)]
        if not (self.covariates or self.measured):
            return Covariates.none(labels)
        values = {
            (labels[i], self.sessions[s]): tuple(float(column[i, s]) for column in self.measured.values())
            for i, s in zip(*self.rows, strict=True)
        }
        return code_covariates(labels, self.covariates, session_columns=tuple(self.measured), session_values=values)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What is asked."""
        sessions = [resolve_session_contrasts([session], self.sessions)[0] for session, _ in self.asked]
        groups = [resolve_group_contrasts([group], self._coded)[0] for _, group in self.asked]
        return tuple(map(Question, sessions, groups))

    @cached_property
    def layout(self) -> MapLayout:
        """Whose map of which session each row is."""
        labels = [f"{index + 1:02d}" for index in range(self.n)]
        owners, places = self.rows
        times = {question.sessions.time for question in self.questions}
        measured = [column[owners, places] for column in self.measured.values()]
        return MapLayout(
            tuple(labels[i] for i in owners),
            tuple(self.sessions[s] for s in places),
            self._coded.columns,
            np.array([self._coded.row_of(labels[i]) for i in owners]).reshape(len(owners), -1),
            tuple(self.measured),
            np.array(measured, dtype=float).reshape(len(measured), len(owners)).T,
            tuple(name for name in self.measured if name in times),
        )

    def noise(self, n_voxels: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw maps of shape (N, V) without session effects."""
        draws = DISTRIBUTIONS[self.distribution](rng, (self.n, self.loadings.shape[1], n_voxels))
        owners, places = self.rows
        maps = (self.loadings @ draws)[owners, places]
        maps *= np.broadcast_to(self.participant_sd, self.n)[owners, None]
        return np.asarray(maps + np.broadcast_to(self.level, self.attends.shape)[owners, places, None])

    def null_means(self, question: Question) -> NDArray[np.float64]:
        """Find the true session effects at each map, of shape (N,), less what would make a null hypothesis false.

        With weights w of the sessions these are μ − w (w′μ)/(w′w): for a mean they sum to zero, for a difference the
        two sessions are equal and others may differ; for `any` and for a trend over a measured time there are none.
        """
        _, places = self.rows
        mu, weights = self.session_effects, np.array(question.sessions.weights)
        if mu is None or not weights.size:
            return np.zeros(len(places))
        return np.asarray((mu - weights * (weights @ mu) / (weights @ weights))[places])

    def covariance_of_maps(self) -> NDArray[np.float64]:
        """Compute the covariance of all maps, of shape (N, N)."""
        owners, places = self.rows
        sd = np.broadcast_to(self.participant_sd, self.n)[owners]
        own = self.loadings @ self.loadings.T
        same = owners[:, None] == owners
        return np.asarray(np.where(same, own[np.ix_(places, places)] * np.outer(sd, sd), 0.0))

    def effect(self, question: Question, size: float = NONCENTRALITY) -> NDArray[np.float64] | None:
        """Find a true effect, of shape (N,), of so many standard errors of the summary-statistics estimate.

        It lies along the question's own weights: equal for a mean, a straight line for a trend, half up and half down
        for a difference. For `any` it is a straight line over the sessions with that Mahalanobis length. Where
        summary-statistics declines, the best linear unbiased estimate takes its place. None where the design cannot
        answer.
        """
        asked, (_, places) = question.sessions, self.rows
        between = self.layout.between(range(len(places))).to_numpy()
        over = question.group_weights(between.shape[1])
        differences = np.ones((1, 1))
        if asked.time is not None:
            over_sessions = self.layout.session_covariate(asked.time)
            over_sessions = over_sessions - over_sessions.mean()
        elif asked.kind == "any":
            line = np.linspace(-0.5, 0.5, self.k)
            over_sessions, differences = line[places], (difference_contrasts(self.k) @ line)[:, None]
        else:
            weights = np.array(asked.weights)
            over_sessions = (weights / (weights @ weights))[places]
        try:
            covariance = self._covariance_of_estimate(question)
            length = float((differences.T @ np.linalg.solve(covariance, differences)).item())
        except (NotEstimableError, np.linalg.LinAlgError):
            return None
        return np.asarray(size / np.sqrt(length) * over_sessions * (between @ over / (over @ over)))

    def _covariance_of_estimate(self, question: Question) -> NDArray[np.float64]:
        of_maps = self.covariance_of_maps()
        try:
            # how its variance is estimated does not matter here
            weights = plan_participants(self.layout, question, GroupOptions(variance="pooled")).map_weights
        except NotEstimableError:
            design = session_design(self.layout, question)
            design.check("the maps do not determine it.")
            root = np.linalg.inv(np.linalg.cholesky(of_maps))
            weights = np.atleast_2d(design.contrast) @ pseudo_inverse(root @ design.matrix.to_numpy())
            return np.asarray(weights @ weights.T)
        return np.asarray(weights @ of_maps @ weights.T)


class _Stack(MapsInMemory):
    """Maps of shape (N, V) in memory, as much of a `MapStack` as answering questions needs."""

    def __init__(self, layout: MapLayout, maps: NDArray[np.float64]) -> None:
        super().__init__(maps)
        self.__dict__ |= {"layout": layout, "mask": np.ones((maps.shape[1], 1, 1), dtype=bool)}
        self.__dict__ |= {"space": Grid(self.mask.shape, np.eye(4)), "n_voxels": maps.shape[1], "n_rows": 1}
        self.__dict__ |= {"complete": self, "core": self, "learns_from_all": True}


class _HereOnly:
    map_ordered = staticmethod(in_this_process)


class _PlansOnce(GroupEstimator):
    """Plans need no data: the studies of a situation share them."""

    made: ClassVar[dict[tuple[int, str, str], StrategyResult]] = {}

    def _planned(self, strategy: Strategy, question: Question, layout: MapLayout) -> StrategyResult:
        key = (id(layout), strategy.name, question.label)
        if key not in self.made:
            self.made[key] = super()._planned(strategy, question, layout)
        return self.made[key]


# The program looks at participants' values in some thousand voxels of a brain, whose neighbours are alike. As many
# independent voxels would say more than a brain does, and take most of the time.
EVIDENCE_VOXELS = 500

# clusters of voxels without neighbours say nothing, and take time to list
MODEL = GroupModel(cluster_threshold=10**9)
ESTIMATOR = _PlansOnce(tuple(STRATEGIES[name] for name in DEFAULT), GroupOptions(), MODEL, _HereOnly())


def answers(situation: Situation, questions: Sequence[Question], maps: NDArray[np.float64]) -> list[QuestionResults]:
    """Answer questions on the maps of one study as the program does, the verdict included."""
    stack = _Stack(situation.layout, maps)
    with mock.patch.object(participant_evidence, "_VOXELS", EVIDENCE_VOXELS):
        found = ESTIMATOR.estimate(questions, stack, situation.sessions)
    evidence = with_active_regions(found.evidence, found.reliability, stack, found.mean)
    return [
        ESTIMATOR.judged(question, results, stack, evidence)
        for question, results in zip(questions, found.results, strict=True)
    ]


def warnings_of(verdict: Verdict) -> tuple[str, ...]:
    """List what the page says against the starred answer, in words; nothing where the star stands alone.

    A warning is a judgement "with care", or a sentence that begins with "Beware".
    """
    if not verdict.recommended:
        return ("No answer is recommended.",)
    found = []
    judgement = verdict.strategies[verdict.recommended[0]]
    if judgement.valid != "yes":
        found.append(judgement.reason)
    found += [f"Beware{part}" for part in verdict.text.split("Beware")[1:]]
    return tuple(found)


@dataclass
class Tally:
    """How often one answer rejects.

    Attributes
    ----------
    counts : ndarray of int, shape (A,)
        Rejections at the nominal rates `ALPHAS`.
    n_voxels : int
        Of studies in which there was this answer.
    """

    counts: NDArray[np.int_] = field(default_factory=lambda: np.zeros(len(ALPHAS), dtype=int))
    n_voxels: int = 0

    @property
    def rates(self) -> NDArray[np.float64]:
        """False-positive rates, or power; NaN without a voxel."""
        with np.errstate(invalid="ignore"):
            return self.counts / np.float64(self.n_voxels)

    def add(self, counts: NDArray[np.int_], n_voxels: int) -> None:
        """Count a study."""
        self.counts = self.counts + counts
        self.n_voxels += n_voxels


@dataclass
class Found:
    """What a situation's studies say about one question.

    Attributes
    ----------
    tallies : dict of str to Tally
        Of each strategy, of the starred answer, and of the starred answer in studies without a warning.
    stars : Counter of str
        Studies in which a strategy is starred; empty for none.
    warnings : Counter of str
        Studies with a warning, by its text.
    n_studies, n_warned : int
    """

    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in (*DEFAULT, STARRED, SILENT)})
    stars: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    n_studies: int = 0
    n_warned: int = 0

    def count(self, results: QuestionResults, n_voxels: int) -> None:
        """Count one study."""
        rejected = {found.name: _rejections(found) for found in results.strategies if found.stat_map is not None}
        for name, counts in rejected.items():
            self.tallies[name].add(counts, n_voxels)
        verdict = results.verdict
        star, warnings = (verdict.recommended or ("",))[0], warnings_of(verdict)
        self.stars[star] += 1
        self.warnings.update(warnings)
        self.n_studies += 1
        self.n_warned += bool(warnings)
        if star:
            self.tallies[STARRED].add(rejected[star], n_voxels)
            if not warnings:
                self.tallies[SILENT].add(rejected[star], n_voxels)


def _rejections(result: StrategyResult) -> NDArray[np.int_]:
    p = two_sided_p(result.stat_map.estimate)
    return np.array([np.count_nonzero(p <= alpha) for alpha in ALPHAS])


def false_positives(situation: Situation, n_voxels: int, seed: int | Sequence[int]) -> list[Found]:
    """Analyse null studies of a situation, with so many voxels together.

    Returns
    -------
    list of Found
        One per question.
    """
    found = [Found() for _ in situation.questions]
    for noise in _studies(situation, n_voxels, seed):
        for index, group in _by_means(situation):
            maps = noise + situation.null_means(group[0])[:, None]
            for at, results in zip(index, answers(situation, group, maps), strict=True):
                found[at].count(results, maps.shape[1])
    return found


def power(situation: Situation, n_voxels: int, seed: int | Sequence[int]) -> list[Found | None]:
    """Analyse studies with a true effect of three standard errors; None where no effect has that meaning."""
    found: list[Found | None] = []
    for question in situation.questions:
        effect = situation.effect(question)
        if effect is None:
            found.append(None)
            continue
        own = Found()
        for noise in _studies(situation, n_voxels, seed):
            maps = noise + (situation.null_means(question) + effect)[:, None]
            own.count(answers(situation, [question], maps)[0], maps.shape[1])
        found.append(own)
    return found


def _studies(situation: Situation, n_voxels: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.float64]]:
    ESTIMATOR.made.clear()  # of a layout that may be gone, and its id another's
    rng = np.random.default_rng(seed)
    width = min(situation.voxels_per_study, n_voxels)
    for _ in range(-(-n_voxels // width)):
        yield situation.noise(width, rng)


def _by_means(situation: Situation) -> list[tuple[list[int], list[Question]]]:
    """Questions whose null hypothesis holds in the same maps are answered together."""
    groups: dict[bytes, list[int]] = {}
    for index, question in enumerate(situation.questions):
        groups.setdefault(situation.null_means(question).tobytes(), []).append(index)
    return [(index, [situation.questions[at] for at in index]) for index in groups.values()]


def with_studies_of(situation: Situation, voxels: int) -> Situation:
    """Give studies so many independent voxels: a smooth brain has no more."""
    return replace(situation, kind="smooth maps", name=f"{situation.kind}: {situation.name}", voxels_per_study=voxels)

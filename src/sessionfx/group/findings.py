"""What is found for one first-level contrast: computed from its maps once it is asked for, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sessionfx.bids.meshes import missing_mesh
from sessionfx.errors import LevelError
from sessionfx.group.answer_files import AnswerFiles
from sessionfx.group.answers import GroupEstimates, GroupEstimator, refusals
from sessionfx.group.calibrated import Rates, rates_of
from sessionfx.group.calibration import calibrate_study
from sessionfx.group.coverage import core_text
from sessionfx.group.evidence import summarise_reliability, with_active_regions
from sessionfx.group.files import GroupFiles
from sessionfx.group.influence import Influence, influence_of
from sessionfx.group.judgement import Evidence
from sessionfx.group.likeness import Likeness
from sessionfx.group.regions import ContrastRegions, unanswered
from sessionfx.group.results import Answer, QuestionResults, Reliability, StrategyResult, answers_among
from sessionfx.group.spool import Spool
from sessionfx.group.stack import MapStack, maps_needed
from sessionfx.group.strategies.base import Question, variance_groups
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.study import DEFAULT_COVERAGE, ContrastStudy
from sessionfx.group.weights import ParticipantWeights, weigh_participants
from sessionfx.report.methods import GroupWork
from sessionfx.wording import counted, joined

# Real voxels that a calibration draws from: several times as many as smooth maps have independent places
RESAMPLED_VOXELS = 6_000
# With thousands of maps fewer, so that all of them have at most so many numbers
_RESAMPLED_VALUES = 2**24
_REFUSALS_NAMED = 6
_REMARKS_NAMED = 6
_FEWEST_PEOPLE = 3  # with fewer, a result is about these participants only


@dataclass(frozen=True)
class ContrastSummary:
    """What is said of one first-level contrast: warnings, and what the methods text says."""

    warnings: tuple[str, ...]
    work: GroupWork


class ContrastFindings:
    """What is found for one first-level contrast.

    Parameters
    ----------
    study : ContrastStudy
    stack : MapStack
        Its maps.
    spool : Spool, optional
        Where answers are kept; in memory where there is none.
    earlier : sequence of str
        What is said of answers of earlier calls.
    """

    def __init__(
        self, study: ContrastStudy, stack: MapStack, spool: Spool | None = None, earlier: Sequence[str] = ()
    ) -> None:
        self.study = study
        self.stack = stack
        self.analysis = study.analysis
        self.files = GroupFiles(study)
        self._earlier = earlier
        self._complete: dict[tuple[str, str], StrategyResult] = {}
        self._answers: dict[str, QuestionResults] = {}
        self._influence: dict[str, Influence] = {}
        self._estimator = GroupEstimator(
            self.analysis.strategies, self.analysis.options, self.analysis.model, self.analysis.executor,
            n_threads=self.analysis.execution.nprocs, atlases=self.analysis.atlases, spool=spool,
        )  # fmt: skip

    @cached_property
    def _found(self) -> GroupEstimates:
        """Estimates of all strategies.

        Raises
        ------
        LevelError
            If there is none: before anything takes the place of what is there.
        """
        questions = self.study.questions
        found = self._estimator.estimate(questions, self.stack, self.analysis.selection.sessions)
        if any(map(answers_among, found.results)):
            return found
        asked = "any of its questions" if len(questions) > 1 else questions[0].text
        refused = dict.fromkeys(f"{result.name}: {result.refusal}" for answers in found.results for result in answers)
        raise LevelError(
            f"No strategy of this call can answer {asked}, so nothing is written, and what was there stays. "
            f"{' '.join([*refused][:_REFUSALS_NAMED])} Ask another question (--session-contrast, --group-contrast), or "
            "leave out --strategy for the default ones."
        )

    @property
    def units(self) -> str:
        """Units of first-level effects."""
        return self.study.questions[0].effect_units

    @property
    def likeness(self) -> Likeness:
        """How like the others' participants' maps are."""
        return self._found.likeness

    @cached_property
    def evidence(self) -> Evidence:
        """What the maps say about the assumptions of the strategies."""
        found = self._found
        return with_active_regions(found.evidence, found.reliability, self.stack.core, found.mean)

    @cached_property
    def reliability(self) -> Reliability | None:
        """Intraclass correlations, where there are any."""
        found, smallest = self._found, self.analysis.model.cluster_threshold
        return summarise_reliability(found.reliability, self.stack.core, found.mean, smallest)

    @cached_property
    def calibration(self) -> pd.DataFrame | None:
        """Rates found in simulated studies, where they are asked for; read where they were finished before."""
        return self.files.read_calibration() if self.analysis.model.calibrate else None

    def calibrate(self, n_voxels: int, seed: int) -> pd.DataFrame:
        """Simulate studies like this one; see `calibrate_study`.

        Raises
        ------
        LevelError
            If there is nothing to draw from.
        """
        assert self._found  # noqa: S101 - refused before anything is simulated
        core = self.stack.core
        n_sampled = max(1, min(RESAMPLED_VOXELS, _RESAMPLED_VALUES // (core.n_rows * len(core.layout.participants))))
        effects = core.sample(n_sampled, np.random.default_rng(seed))
        try:
            return calibrate_study(
                core.layout, self.study.questions,
                {strategy.name: strategy for strategy in self.analysis.strategies}, self.analysis.options,
                effects, n_voxels=n_voxels, seed=seed,
            )  # fmt: skip
        except ValueError as error:
            raise LevelError(f"--calibrate resamples how participants vary, and {error}. Leave it out.") from None

    def permute(self, question: Question, strategy: Strategy) -> StrategyResult:
        """Resample participants for family-wise p values, where they hold."""
        result = self._estimator.with_permutation(self._estimate(question, strategy), question, self.stack, None)
        self._complete[question.label, strategy.name] = result
        return result

    def _completed(self, question: Question, strategy: Strategy) -> StrategyResult:
        """Give an answer with its family-wise p values, read where they were finished before."""
        key = question.label, strategy.name
        if key not in self._complete:
            result = self._estimate(question, strategy)
            if self.analysis.model.permutations and isinstance(result, Answer):
                resampled = result.stat_map.mask & self.stack.complete.mask
                stored = AnswerFiles(self.files, question, result.label).read_permutation(resampled)
                # what was declined left nothing, and is declined again
                result = self._estimator.with_permutation(result, question, self.stack, stored)
            self._complete[key] = result
        return self._complete[key]

    def _estimate(self, question: Question, strategy: Strategy) -> StrategyResult:
        results = self._found.results[self.study.questions.index(question)]
        return results[self.analysis.strategies.index(strategy)]

    def answers(self, question: Question) -> QuestionResults:
        """Give the answers to a question, judged."""
        if question.label not in self._answers:
            complete = [self._completed(question, strategy) for strategy in self.analysis.strategies]
            self._answers[question.label] = self._estimator.judged(
                question, complete, self.stack, self.evidence, rates_of(self.calibration, question.label)
            )
        return self._answers[question.label]

    def judged_with(self, rates: Rates, question: Question) -> QuestionResults:
        """Judge the answers to a question again, with what a calibration found of each."""
        return self._estimator.judged(question, self.answers(question).strategies, self.stack, self.evidence, rates)

    def answer(self, question: Question, strategy: Strategy) -> StrategyResult:
        """Give what one strategy answers."""
        return self.answers(question).strategies[self.analysis.strategies.index(strategy)]

    @cached_property
    def questions(self) -> tuple[QuestionResults, ...]:
        """The answers to all questions."""
        return tuple(map(self.answers, self.study.questions))

    def weights(self, question: Question, strategy: Strategy) -> tuple[Answer, ParticipantWeights] | None:
        """Say how much participants count in an answer that weighs them; with the answer."""
        answer = self.answer(question, strategy)
        plan = answer.plan
        if plan is None or not (isinstance(answer, Answer) and plan.weighs_participants):
            return None
        of_those = PatternPlan(plan, strategy, self.stack.layout, question, self.analysis.options)
        mask, map_ordered = answer.stat_map.mask, self.analysis.executor.map_ordered
        return answer, weigh_participants(of_those, self.stack, mask, map_ordered)

    def influence(self, question: Question) -> Influence:
        """Find what the answer to report would be without each participant."""
        if question.label not in self._influence:
            best, executor = self.answers(question).best, self.analysis.executor
            self._influence[question.label] = (
                Influence() if best is None
                else influence_of(best, question, self.stack, self.analysis.options, executor.map_ordered)
            )  # fmt: skip
        return self._influence[question.label]

    @cached_property
    def regions(self) -> dict[str, ContrastRegions]:
        """The regions of each atlas, by its label."""
        return {
            atlas.label: ContrastRegions(atlas, self.study, self.stack, self._estimator)
            for atlas in self.analysis.atlases
        }

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting what is found, but for covariates and who is left out."""
        return (
            *self._few_people(), *self.stack.warnings, *filter(None, [core_text(self.stack)]),
            *self._unanswered_voxels(), *self._without_mesh(), *self._standing_out(), *self._counted_fully(),
            *unanswered(self.regions.values()), *self._earlier,
        )  # fmt: skip

    def _few_people(self) -> list[str]:
        n_people = len(self.stack.layout.unique_participants)
        if n_people >= _FEWEST_PEOPLE:
            return []
        return [f"{counted(n_people, 'participant')}: these results say nothing about people beyond them."]

    def _unanswered_voxels(self) -> list[str]:
        """Say which voxels would be answered but for the time it takes."""
        study, stack = self.study, self.stack
        enough = maps_needed(DEFAULT_COVERAGE, stack.stored.n_rows)
        n = int(((stack.coverage >= enough) & ~stack.mask).sum())
        if self.analysis.model.min_coverage is not None or not study.planned_one_by_one or not n:
            return []
        return [
            f"Only voxels that all maps have are answered: with {study.planned_one_by_one} each pattern of missing "
            f"maps needs a design of its own, which takes long. --min-coverage {DEFAULT_COVERAGE:g} answers {n:,} more."
        ]

    def _without_mesh(self) -> list[str]:
        """Say why there are no clusters on a surface."""
        space, entities = self.stack.space, self.analysis.selection.entities
        if space.has_meshes:
            return []
        missing = (
            missing_mesh(entities)
            if entities["space"]
            else "the names of the maps say no space. Name it with --space, such as fsaverage5."
        )
        return [f"No clusters of {space.features} are listed, and nothing is drawn: {missing}"]

    def _standing_out(self) -> list[str]:
        """Name maps that are to be looked at before the group is trusted."""
        remarks = self.likeness.remarks
        if not remarks:
            return []
        more = f" {len(remarks) - _REMARKS_NAMED} more are on the page." if len(remarks) > _REMARKS_NAMED else ""
        return [f"Look at maps that stand out before you trust the group. {' '.join(remarks[:_REMARKS_NAMED])}{more}"]

    def _counted_fully(self) -> list[str]:
        """Say which strategies `--robust` leaves as they are."""
        robust = self.analysis.model.robust
        others = [strategy.title for strategy in self.analysis.strategies if robust not in strategy.takes_robust]
        if robust == "none" or not others:
            return []
        return [f"--robust {robust}: {joined(others)} still {'counts' if len(others) == 1 else 'count'} all "
                "participants fully."]  # fmt: skip

    @cached_property
    def work(self) -> GroupWork:
        """What the methods text says was done."""
        questions, stack, analysis = self.questions, self.stack, self.analysis
        every = [answer for asked in questions for answer in asked.answers]
        people = [stack.layout.participants.index(label) for label in stack.layout.unique_participants]
        return GroupWork(
            strategies=frozenset(answer.name for answer in every),
            resampled=frozenset(answer.permutation.scheme for answer in every if answer.permutation is not None),
            compared=any(len(asked.answers) > 1 for asked in questions),
            conditions=any(answer.plan.n_tested for answer in every),
            f_tests=any(bool(asked.answers) and asked.question.is_f_test for asked in questions),
            any_session=any(bool(asked.answers) and asked.question.sessions.kind == "any" for asked in questions),
            groups=any(
                variance_groups(stack.layout, asked.question, analysis.options, people)[0] for asked in questions
            ),
            reliability=self.reliability is not None,
            adjusted_for=tuple(name for name in analysis.model.session_covariates if name not in analysis.times),
            equivalence=any(answer.equivalence is not None for answer in every),
            bayes_factors=any(answer.bayes_factors is not None for answer in every),
            units=self.units,
            atlases=tuple(self.regions),
            coverage=1.0 if stack.complete is stack else stack.min_coverage,
            core_maps=None
            if stack.learns_from_all
            else (len(stack.core.layout.participants), len(stack.layout.participants)),
            space=stack.space,
        )

    def summary(self) -> ContrastSummary:
        """Say what was found."""
        study = self.study
        left_out = [f"sub-{label} is left out: it {why}." for label, why in study.left_out.items()]
        warnings = (
            *self.warnings, *study.covariates.warnings, *left_out, *refusals(study.contrast, self.questions),
        )  # fmt: skip
        return ContrastSummary(tuple(map(self.stack.space.in_words, warnings)), self.work)

"""The group level as tasks: one chain for each first-level contrast, from its maps to files and page."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sessionfx import __version__
from sessionfx.ask.covariates import Covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.atlas import Atlas
from sessionfx.bids.covariate_tables import read_covariates
from sessionfx.bids.first_level_maps import FirstLevelMap, MapSelection
from sessionfx.bids.meshes import MeshFiles, missing_mesh, with_meshes
from sessionfx.bids.names import check_name_length, file_name
from sessionfx.bids.region_tables import region_table_beside
from sessionfx.bids.stat_maps import read_sidecar, units_in
from sessionfx.errors import LevelError
from sessionfx.execution import Executor
from sessionfx.group.answers import GroupEstimates, GroupEstimator, refusals
from sessionfx.group.calibrated import rates_of
from sessionfx.group.calibration import calibrate_study
from sessionfx.group.coverage import core_text
from sessionfx.group.evidence import summarise_reliability, with_active_regions
from sessionfx.group.files import GroupFiles, longest_group_name
from sessionfx.group.influence import Influence, influence_of, plan_at_core
from sessionfx.group.judgement import Evidence
from sessionfx.group.page import GroupPage, contrast_section
from sessionfx.group.peaks import peaks_of
from sessionfx.group.region_files import RegionFiles
from sessionfx.group.regions import ContrastRegions, unanswered
from sessionfx.group.results import Answer, ContrastResults, QuestionResults, Reliability, StrategyResult, answers_among
from sessionfx.group.spool import Spool
from sessionfx.group.stack import MapStack, attendance, maps_needed, open_stack
from sessionfx.group.store import scratch_file
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.weights import weigh_participants
from sessionfx.options import Execution, GroupModel, StrategyModel
from sessionfx.report.methods import GroupWork, MethodsText, group_methods
from sessionfx.tasks.records import Record, file_state, fingerprint
from sessionfx.tasks.task import Chain, Task
from sessionfx.wording import joined, listed, quoted

# Real voxels that a calibration draws from: several times as many as smooth maps have independent places
RESAMPLED_VOXELS = 6_000
# With thousands of maps fewer, so that all of them have at most so many numbers
_RESAMPLED_VALUES = 2**24
_REFUSALS_NAMED = 6
DEFAULT_COVERAGE = 0.7  # share of the maps that an answered voxel needs
_REMARKS_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class GroupAnalysis:
    """What all contrasts of one call share.

    Attributes
    ----------
    model : GroupModel
    weighting : {'equal', 'precision'}
        Of fixed effects.
    execution : Execution
    selection : MapSelection
    session_contrasts : tuple of SessionContrast
    raw, output_dir : Path
        Absolute.
    links : dict of str to Path
        Input datasets by their name in BIDS URIs.
    executor : Executor
        Where blocks of voxels and of permutations are computed.
    atlases : tuple of Atlas
        Whose regions are answered too, and are the names of peaks.
    meshes : mapping of str to tuple of Path
        Of the hemispheres of a surface, where they are found; see `find_meshes`.
    """

    model: GroupModel
    weighting: str
    execution: Execution
    selection: MapSelection
    session_contrasts: tuple[SessionContrast, ...]
    raw: Path
    output_dir: Path
    links: dict[str, Path]
    executor: Executor
    atlases: tuple[Atlas, ...] = ()
    meshes: MeshFiles = field(default_factory=dict)

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Strategies asked for, in the registry's order."""
        wanted = self.model.strategy or tuple(name for name, found in STRATEGIES.items() if found.is_default)
        return tuple(strategy for name, strategy in STRATEGIES.items() if name in wanted)

    def absent(self, contrast: str) -> dict[str, str]:
        """Participants who could have had a map of a contrast and have none, and why."""
        return self.selection.absent.get(contrast, {})

    @property
    def times(self) -> tuple[str, ...]:
        """Session covariates that serve as time in some question."""
        return tuple(sorted({asked.time for asked in self.session_contrasts if asked.time is not None}))

    @property
    def options(self) -> GroupOptions:
        """Options of the strategies."""
        shared = {option.name: getattr(self.model, option.name) for option in fields(StrategyModel)}
        return GroupOptions(fixed_effects=self.weighting, **shared)

    @property
    def needs_variances(self) -> bool:
        """Whether some strategy needs the maps' sampling variances."""
        return any(strategy.needs_variances(self.options) for strategy in self.strategies)

    def methods(self, work: GroupWork) -> MethodsText:
        """Describe what was done, for the methods section of a paper."""
        answered = [strategy for strategy in self.strategies if strategy.name in work.strategies]
        return group_methods(self.model, [strategy.methods(self.options) for strategy in answered], work)

    @property
    def record(self) -> Path:
        """Where it is noted what is finished at the group level."""
        return self.output_dir / "logs" / file_name({**self.selection.entities}, "group", ".json")


@dataclass(frozen=True)
class ContrastSummary:
    """What is said of one first-level contrast: warnings, and what the methods text says."""

    warnings: tuple[str, ...]
    work: GroupWork


def check_questions(
    selection: MapSelection, session_contrasts: Sequence[SessionContrast], raw: Path, model: GroupModel
) -> None:
    """Refuse what has no answer for any first-level contrast, before a file is written.

    Raises
    ------
    CommandLineError
        If a covariate or group contrast does not exist, or a file would get too long a name.
    LevelError
        If covariates cannot be used for any first-level contrast.
    """
    refused: LevelError | None = None
    n_answerable = 0
    longest = max(selection.maps, key=len)
    # most often all contrasts have maps of the same sessions, and the tables are read once
    for maps in {tuple(attendance(maps).items()): maps for maps in selection.maps.values()}.values():
        try:
            covariates = _covariates(maps, raw, model)
        except LevelError as error:
            refused = refused or error
            continue
        n_answerable += 1
        for group in resolve_group_contrasts(model.group_contrast, covariates):
            for asked in session_contrasts:
                labels = {"--session-contrast": asked.label, "--group-contrast": group.label}
                check_name_length(longest_group_name(selection, longest, Question(asked, group)), labels)
    if refused is not None and not n_answerable:
        raise refused


def contrast_study(contrast: str, analysis: GroupAnalysis) -> ContrastStudy:
    """Put together what is asked about one first-level contrast, and the maps of those who have the covariates.

    Raises
    ------
    LevelError
        If covariates cannot be used.
    """
    covariates = _covariates(analysis.selection.maps[contrast], analysis.raw, analysis.model)
    units = units_in(read_sidecar(analysis.selection.maps[contrast][0].effect))
    test = analysis.selection.f_tests.get(contrast)
    tested = () if test is None else tuple(row.label for row in test.tested)
    questions = [
        Question(asked, group, units, tested)
        for asked in analysis.session_contrasts
        for group in resolve_group_contrasts(analysis.model.group_contrast, covariates)
    ]
    maps = [found for found in analysis.selection.maps[contrast] if found.participant in covariates.participants]
    return ContrastStudy(
        contrast=contrast, analysis=analysis, covariates=covariates, maps=tuple(maps), questions=tuple(questions)
    )


@dataclass(frozen=True, kw_only=True)
class ContrastStudy:
    """One first-level contrast: its maps, covariates and questions, and the tasks that follow from them."""

    contrast: str
    analysis: GroupAnalysis
    covariates: Covariates
    maps: tuple[FirstLevelMap, ...]
    questions: tuple[Question, ...]

    @property
    def planned_one_by_one(self) -> str:
        """Name what needs a plan for every pattern of missing maps, which takes long; empty where nothing does."""
        analysis = self.analysis
        needed = {
            "session covariates": bool(self.covariates.session_columns),
            "--robust": analysis.model.robust != "none",
            "the maps' variances": analysis.needs_variances,
            "F tests over conditions": any(question.tested for question in self.questions),
        }
        return joined([name for name, is_needed in needed.items() if is_needed])

    @property
    def min_coverage(self) -> float:
        """Share of the maps that an answered voxel needs."""
        asked = self.analysis.model.min_coverage
        if asked is not None:
            return asked
        return 1.0 if self.planned_one_by_one else DEFAULT_COVERAGE

    @cached_property
    def files(self) -> GroupFiles:
        """Where results go."""
        analysis = self.analysis
        return GroupFiles(
            contrast=self.contrast, maps=self.maps, selection=analysis.selection, model=analysis.model,
            weighting=analysis.weighting, output_dir=analysis.output_dir, links=analysis.links,
            covariates=self.covariates,
        )  # fmt: skip

    @cached_property
    def sources(self) -> dict[str, str]:
        """Fingerprints of the first-level maps and of the covariates."""
        maps = [
            [found.key, *map(file_state, found.files)] for of_contrasts in self.maps for found in of_contrasts.of_rows
        ]
        covariates = self.covariates
        values = sorted(covariates.session_values.items())
        design = [covariates.columns, covariates.values.tolist(), covariates.session_columns, values]  # noqa: PD011
        return {f"{self.contrast} maps": fingerprint(maps), f"{self.contrast} covariates": fingerprint(design)}

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Participants without a map or a covariate, and why."""
        return {**self.analysis.absent(self.contrast), **self.covariates.left_out}

    def estimates_source(self, question: Question, strategy: Strategy) -> str:
        """Name the estimates of a strategy among what tasks are made from."""
        return f"{self.contrast} estimates {question.label} by {strategy.name}"

    @cached_property
    def chain(self) -> Chain:
        """The tasks.

        Each strategy's answer to each question is one: answers that are not asked for stay, unless they are from other
        first-level maps or covariates.
        """
        return Chain(
            name=f"contrast {self.contrast}",
            record=self.analysis.record,
            tasks=tuple(self._tasks()),
            open=partial(_open, self),
            sources={**self.sources, **self._estimates},
            page=GroupPage(self.analysis.output_dir),
            is_here=True,
        )

    def _task(self, what: str, made_from: Any, outputs: Iterable[Path], run: Callable[..., None], **more: Any) -> Task:
        """Describe a task, which is made from the first-level maps and covariates unless other inputs are given."""
        return Task(
            name=f"{self.contrast} {what}", fingerprint=fingerprint(made_from), outputs=tuple(outputs), run=run,
            **({"inputs": tuple(self.sources)} | more),
        )  # fmt: skip

    def _tasks(self) -> Iterator[Task]:
        """List the tasks: what takes longest first, as it is kept at once."""
        model, files = self.analysis.model, self.files
        of_maps, state_of_maps = next(iter(self.sources.items()))
        meshes = [file_state(path) for paths in self.analysis.meshes.values() for path in paths]
        common = [__version__, self.analysis.selection.entities, self.left_out, *meshes]
        atlases = [file_state(path) for atlas in self.analysis.atlases for path in atlas.files]
        shown = [self.min_coverage, model.alpha, model.correction, model.cluster_threshold, *atlases]
        reliability = self._task(
            "reliability", [state_of_maps, common, shown], files.outputs_of_reliability(),
            ContrastMaps.write_reliability, inputs=(of_maps,),
        )  # fmt: skip
        likeness = self._task(
            "likeness", [state_of_maps, common], (files.likeness, files.likeness.with_suffix(".json")),
            ContrastMaps.write_likeness, inputs=(of_maps,),
        )  # fmt: skip
        answers = {question.label: list(self._answers(question, [common, shown])) for question in self.questions}
        calibration = list(self._calibration(answers))
        permutations = {question.label: list(self._permutations(question, common)) for question in self.questions}
        comparisons = [
            task
            for question in self.questions
            for task in self._comparisons(question, answers[question.label], [*permutations[question.label],
                                                                              *calibration])
        ]  # fmt: skip
        results = [
            *calibration, *itertools.chain.from_iterable(permutations.values()), reliability, likeness,
            *itertools.chain.from_iterable(answers.values()), *comparisons,
            *(task for atlas in self.analysis.atlases for task in self._regions(atlas, common)),
        ]  # fmt: skip
        yield from results
        if not self.analysis.execution.no_report:
            section = contrast_section(self.analysis.output_dir, self.analysis.selection.entities, self.contrast)
            yield self._task(
                "draw", [task.fingerprint for task in results], [section], ContrastMaps.draw, kind="page",
                inputs=(*self.sources, *(task.name for task in results)),
            )  # fmt: skip

    @cached_property
    def _estimates(self) -> dict[str, str]:
        """Fingerprints of what determines the estimates of each strategy, whatever the thresholds."""
        analysis = self.analysis
        # what serves as time in one question adjusts no other
        times = analysis.times if self.covariates.session_columns else ()
        options = asdict(analysis.options) | {"min_coverage": self.min_coverage}
        common = [*self.sources.values(), times, options, analysis.needs_variances]
        return {
            self.estimates_source(question, strategy): fingerprint(
                [common, strategy.name, asdict(question.sessions), asdict(question.group)]
            )
            for question in self.questions
            for strategy in analysis.strategies
        }

    def _answers(self, question: Question, common: list[Any]) -> Iterator[Task]:
        model = self.analysis.model
        for strategy in self.analysis.strategies:
            estimates = self._estimates[self.estimates_source(question, strategy)]
            yield self._task(
                f"answer {question.label} by {strategy.name}",
                [estimates, common, model.equivalence, model.bayes_factor],
                self.files.outputs_of_answer(question, strategy.label),
                partial(ContrastMaps.write_answer, question=question, strategy=strategy.name),
            )  # fmt: skip

    def _permutations(self, question: Question, common: list[Any]) -> Iterator[Task]:
        model = self.analysis.model
        for strategy in self.analysis.strategies if model.permutations else ():
            source = self.estimates_source(question, strategy)
            yield self._task(
                f"permute {question.label} by {strategy.name}",
                [self._estimates[source], common, model.permutations, model.random_seed],
                self.files.outputs_of_permutation(question, strategy.label),
                partial(ContrastMaps.write_permutation, question=question, strategy=strategy.name),
                inputs=(*self.sources, source), is_costly=True,
            )  # fmt: skip

    def _comparisons(self, question: Question, answers: Sequence[Task], judged_by: Sequence[Task]) -> Iterator[Task]:
        files, inputs = self.files, (*self.sources, *(task.name for task in answers))
        of_answers = [task.fingerprint for task in answers]
        judged = [of_answers, [task.fingerprint for task in judged_by]]
        influence = files.influence(question)
        for what, made_from, outputs, run in (
            ("compare", of_answers, [files.agreement(question)], ContrastMaps.write_agreement),
            ("judge", judged, files.outputs_of_verdict(question), ContrastMaps.write_verdict),
            ("influence", judged, [influence, influence.with_suffix(".json")], ContrastMaps.write_influence),
        ):
            yield self._task(
                f"{what} {question.label}", made_from, outputs, partial(run, question=question), inputs=inputs
            )

    def _regions(self, atlas: Atlas, common: list[Any]) -> Iterator[Task]:
        """List the values of an atlas' regions, and the answers to each question in them."""
        model, files = self.analysis.model, RegionFiles(self.files, atlas.label)
        tables = [
            file_state(region_table_beside(of_row, atlas.label)) for found in self.maps for of_row in found.of_rows
        ]
        values = [*self.sources.values(), common, atlas.digest, tables]
        yield self._task(
            f"regions of {atlas.label}", values, files.with_sidecar(files.values),
            partial(ContrastMaps.write_region_values, atlas=atlas.label),
        )  # fmt: skip
        shown = [model.alpha, model.correction, model.equivalence, model.bayes_factor]
        for question in self.questions:
            estimates = [
                self._estimates[self.estimates_source(question, strategy)] for strategy in self.analysis.strategies
            ]
            yield self._task(
                f"regions of {atlas.label} answer {question.label}", [values, estimates, shown],
                files.with_sidecar(files.answers(question)),
                partial(ContrastMaps.write_region_answers, question=question, atlas=atlas.label),
            )  # fmt: skip

    def _calibration(self, answers: Mapping[str, Sequence[Task]]) -> Iterator[Task]:
        model = self.analysis.model
        if model.calibrate:
            of_answers = [task.fingerprint for tasks in answers.values() for task in tasks]
            yield self._task(
                "calibration", [of_answers, model.calibrate, model.random_seed], [self.files.calibration],
                ContrastMaps.write_calibration, is_costly=True,
            )  # fmt: skip


@contextlib.contextmanager
def _open(study: ContrastStudy, _values: Mapping[str, Any]) -> Iterator[ContrastMaps]:
    analysis = study.analysis
    folder = analysis.execution.work_dir or analysis.output_dir
    with (
        scratch_file(folder) as answers,
        open_stack(
            study.maps,
            study.covariates,
            folder,
            needs_variances=analysis.needs_variances,
            times=analysis.times,
            n_threads=analysis.execution.nprocs,
            min_coverage=study.min_coverage,
            is_kept=analysis.execution.work_dir is not None,
            is_shared=analysis.executor.is_elsewhere,
        ) as stack,
    ):
        space = with_meshes(stack.space, analysis.meshes) if analysis.meshes else stack.space
        yield ContrastMaps(study, replace(stack, space=space), Spool(answers, folder))


class ContrastMaps:
    """The first-level maps of a contrast, and what is made of them once it is asked for."""

    def __init__(self, study: ContrastStudy, stack: MapStack, spool: Spool | None = None) -> None:
        self._study = study
        self._stack = stack
        self._analysis = study.analysis
        self._files = study.files
        self._complete: dict[tuple[str, str], StrategyResult] = {}
        self._answers: dict[str, QuestionResults] = {}
        self._influence: dict[str, Influence] = {}
        self._estimator = GroupEstimator(
            self._analysis.strategies, self._analysis.options, self._analysis.model, self._analysis.executor,
            n_threads=self._analysis.execution.nprocs, atlases=self._analysis.atlases, spool=spool,
        )  # fmt: skip

    @cached_property
    def _found(self) -> GroupEstimates:
        """Estimates of all strategies.

        Raises
        ------
        LevelError
            If there is none: before anything takes the place of what is there.
        """
        found = self._estimator.estimate(self._study.questions, self._stack, self._analysis.selection.sessions)
        if any(map(answers_among, found.results)):
            return found
        questions = self._study.questions
        asked = "any of its questions" if len(questions) > 1 else questions[0].text
        refused = dict.fromkeys(f"{result.name}: {result.refusal}" for answers in found.results for result in answers)
        raise LevelError(
            f"No strategy of this call can answer {asked}, so nothing is written, and what was there stays. "
            f"{' '.join([*refused][:_REFUSALS_NAMED])} Ask another question (--session-contrast, --group-contrast), or "
            "leave out --strategy for the default ones."
        )

    @cached_property
    def _evidence(self) -> Evidence:
        found = self._found
        mean = found.mean if found.reliability else None
        return with_active_regions(found.evidence, found.reliability, self._stack.core, mean)

    @cached_property
    def _reliability(self) -> Reliability | None:
        found = self._found
        mean = found.mean if found.reliability else None
        smallest = self._analysis.model.cluster_threshold
        return summarise_reliability(found.reliability, self._stack.core, mean, smallest)

    @cached_property
    def _calibration(self) -> pd.DataFrame | None:
        return self._files.read_calibration() if self._analysis.model.calibrate else None

    def write_calibration(self) -> None:
        """Simulate studies like this one, and write the rates found."""
        model = self._analysis.model
        self._calibration = self.calibrate(model.calibrate, model.random_seed)
        self._files.write_calibration(self._calibration)

    def calibrate(self, n_voxels: int, seed: int) -> pd.DataFrame:
        """Simulate studies like this one; see `calibrate_study`.

        Raises
        ------
        LevelError
            If there is nothing to draw from.
        """
        assert self._found  # noqa: S101 - refused before anything is simulated
        core = self._stack.core
        n_sampled = max(1, min(RESAMPLED_VOXELS, _RESAMPLED_VALUES // (core.n_rows * len(core.layout.participants))))
        effects = core.sample(n_sampled, np.random.default_rng(seed))
        try:
            return calibrate_study(
                core.layout, self._study.questions,
                {strategy.name: strategy for strategy in self._analysis.strategies}, self._analysis.options,
                effects, n_voxels=n_voxels, seed=seed,
            )  # fmt: skip
        except ValueError as error:
            raise LevelError(f"--calibrate resamples how participants vary, and {error}. Leave it out.") from None

    def write_reliability(self) -> None:
        """Write intraclass correlations, where there are any."""
        self._files.write_reliability(self._reliability, self._stack.core.mask, self._stack.space)

    def write_likeness(self) -> None:
        """Write how like the others' participants' maps are."""
        self._files.write_likeness(self._found.likeness)

    def write_permutation(self, question: Question, strategy: str) -> None:
        """Resample participants and write family-wise p values, where they hold."""
        result = self._estimator.with_permutation(self._estimate(question, strategy), question, self._stack, None)
        self._complete[question.label, strategy] = result
        self._files.write_permutation(question, result)

    def _completed(self, question: Question, strategy: str) -> StrategyResult:
        """Give an answer with its family-wise p values, read where they were finished before."""
        key = question.label, strategy
        if key not in self._complete:
            result = self._estimate(question, strategy)
            if self._analysis.model.permutations and isinstance(result, Answer):
                resampled = result.stat_map.mask & self._stack.complete.mask
                stored = self._files.read_permutation(question, result.label, resampled)
                # what was declined left nothing, and is declined again
                result = self._estimator.with_permutation(result, question, self._stack, stored)
            self._complete[key] = result
        return self._complete[key]

    def _estimate(self, question: Question, strategy: str) -> StrategyResult:
        at = self._study.questions.index(question)
        return next(result for result in self._found.results[at] if result.name == strategy)

    def write_answer(self, question: Question, strategy: str) -> None:
        """Write the answer of a strategy, where it has one."""
        answer = next(result for result in self.answers(question).strategies if result.name == strategy)
        self._files.write_answer(question, answer)
        plan = plan_at_core(answer, question, self._stack, self._analysis.options)
        if plan is not None and isinstance(answer, Answer) and plan.weighs_participants:
            stack, map_ordered = self._stack.core, self._analysis.executor.map_ordered
            here = answer.stat_map.within(answer.stat_map.mask & stack.mask)
            weights = weigh_participants(plan, stack, here.mask, map_ordered)
            self._files.write_weights(question, replace(answer, stat_map=here), weights)

    def answers(self, question: Question) -> QuestionResults:
        """Give the answers to a question, compared and judged."""
        if question.label not in self._answers:
            complete = [self._completed(question, strategy.name) for strategy in self._analysis.strategies]
            self._answers[question.label] = self._estimator.compared(
                question, complete, self._stack, self._evidence, rates_of(self._calibration, question.label)
            )
        return self._answers[question.label]

    def write_agreement(self, question: Question) -> None:
        """Write how the answers to a question agree."""
        self._files.write_agreement(self.answers(question))

    def write_verdict(self, question: Question) -> None:
        """Write which answers to a question to trust."""
        self._files.write_verdict(self.answers(question))

    @cached_property
    def regions(self) -> dict[str, ContrastRegions]:
        """The regions of each atlas, by its label."""
        study, analysis = self._study, self._analysis
        return {
            atlas.label: ContrastRegions(
                atlas=atlas, maps=study.maps, stack=self._stack, estimator=self._estimator, questions=study.questions,
                sessions=tuple(analysis.selection.sessions), folder=analysis.execution.work_dir or analysis.output_dir,
            )
            for atlas in analysis.atlases
        }  # fmt: skip

    def write_region_values(self, atlas: str) -> None:
        """Write what each map is in each region of an atlas."""
        units = self._study.questions[0].effect_units
        RegionFiles(self._files, atlas).write_values(self.regions[atlas], units)

    def write_region_answers(self, question: Question, atlas: str) -> None:
        """Write what each strategy answers in each region of an atlas."""
        regions = self.regions[atlas]
        RegionFiles(self._files, atlas).write_answers(regions, regions.answers[question.label])

    def influence(self, question: Question) -> Influence:
        """Find what the answer to report would be without each participant."""
        if question.label not in self._influence:
            best, executor = self.answers(question).best, self._analysis.executor
            self._influence[question.label] = (
                Influence() if best is None
                else influence_of(best, question, self._stack, self._analysis.options, executor.map_ordered)
            )  # fmt: skip
        return self._influence[question.label]

    def write_influence(self, question: Question) -> None:
        """Write what the answer to report would be without each participant, where there is one."""
        self._files.write_influence(question, self.answers(question).best, self.influence(question))

    @cached_property
    def results(self) -> ContrastResults:
        """All that was found; see `draw` for what only the page needs."""
        study, stack = self._study, self._stack
        return ContrastResults(
            contrast=study.contrast,
            entities=self._analysis.selection.entities,
            layout=stack.layout,
            mask=stack.mask,
            space=stack.space,
            coverage=stack.coverage,
            complete=stack.complete.mask,
            core=stack.core.mask,
            core_text=core_text(stack),
            min_coverage=stack.min_coverage,
            questions=tuple(map(self.answers, study.questions)),
            warnings=(
                *stack.warnings, *filter(None, [core_text(stack)]), *self._unanswered_voxels(), *self._without_mesh(),
                *self._standing_out(), *self._counted_fully(), *unanswered(self.regions.values()),
                *self._earlier_answers(),
            ),
            covariate_warnings=study.covariates.warnings,
            left_out=study.left_out,
            evidence=self._evidence,
            reliability=self._reliability,
            calibration=self._calibration,
            participants=self._found.likeness.participants,
            remarks=tuple(self._found.likeness.remarks),
            regions=tuple(self.regions.values()),
        )  # fmt: skip

    def _unanswered_voxels(self) -> list[str]:
        """Say which voxels would be answered but for the time it takes."""
        study, stack = self._study, self._stack
        enough = maps_needed(DEFAULT_COVERAGE, stack.stored.n_rows)
        n = int(((stack.coverage >= enough) & ~stack.mask).sum())
        if self._analysis.model.min_coverage is not None or not study.planned_one_by_one or not n:
            return []
        return [
            f"Only voxels that all maps have are answered: with {study.planned_one_by_one} each pattern of missing "
            f"maps needs a design of its own, which takes long. --min-coverage {DEFAULT_COVERAGE:g} answers {n:,} more."
        ]

    def _without_mesh(self) -> list[str]:
        """Say why there are no clusters on a surface."""
        space = self._stack.space
        if space.has_meshes:
            return []
        entities = self._analysis.selection.entities
        missing = (
            missing_mesh(entities)
            if entities["space"]
            else "the names of the maps say no space. Name it with --space, such as fsaverage5."
        )
        return [f"No clusters of {space.features} are listed, and nothing is drawn: {missing}"]

    def _standing_out(self) -> list[str]:
        """Name maps that are to be looked at before the group is trusted."""
        remarks = self._found.likeness.remarks
        if not remarks:
            return []
        more = f" {len(remarks) - _REMARKS_NAMED} more are on the page." if len(remarks) > _REMARKS_NAMED else ""
        return [f"Look at maps that stand out before you trust the group. {' '.join(remarks[:_REMARKS_NAMED])}{more}"]

    def _counted_fully(self) -> list[str]:
        """Say which strategies `--robust` leaves as they are."""
        robust = self._analysis.model.robust
        others = [strategy.title for strategy in self._analysis.strategies if robust not in strategy.takes_robust]
        if robust == "none" or not others:
            return []
        return [f"--robust {robust}: {joined(others)} still {'counts' if len(others) == 1 else 'count'} all "
                "participants fully."]  # fmt: skip

    def _earlier_answers(self) -> list[str]:
        """Say which answers of earlier calls lie beside those of this call, which the page does not show."""
        study = self._study
        chain = study.chain
        record = Record(chain.record, self._analysis.output_dir)
        start, outdated = f"{study.contrast} answer ", set(record.outdated(chain))
        strategies: dict[str, list[str]] = {}
        for name in record.finished():
            if name.startswith(start) and name not in chain.by_name and name not in outdated:
                label, _, strategy = name.removeprefix(start).rpartition(" by ")
                strategies.setdefault(label, []).append(strategy)
        if not strategies:
            return []
        asked = {question.label for question in study.questions}
        others = [
            label.replace("-", " by ") + (f" ({', '.join(names)})" if label in asked else "")
            for label, names in strategies.items()
        ]
        return [
            "Answers of earlier calls from the same maps and covariates stay in group/ beside those of this call, and "
            f"are not shown on its page: {listed(others)}."
        ]

    def draw(self) -> None:
        """Draw the section of the contrast."""
        from sessionfx.group.section import draw_contrast  # with what draws; a call with --no-report has no use for it

        results = replace(
            self.results,
            peaks={asked.question.label: peaks_of(asked, self._stack) for asked in self.results.questions},
            influence={asked.question.label: self.influence(asked.question) for asked in self.results.questions},
        )
        draw_contrast(results, self._analysis.model, self._analysis.methods(self._work()), self._files)

    def _work(self) -> GroupWork:
        questions = self.results.questions
        every = [answer for asked in questions for answer in asked.answers]
        return GroupWork(
            strategies=frozenset(answer.name for answer in every),
            resampled=frozenset(answer.permutation.scheme for answer in every if answer.permutation is not None),
            compared=any(len(asked.answers) > 1 for asked in questions),
            conditions=any(answer.plan.n_tested for answer in every),
            f_tests=any(bool(asked.answers) and asked.question.is_f_test for asked in questions),
            reliability=self.results.reliability is not None,
            adjusted_for=tuple(
                name for name in self._analysis.model.session_covariates if name not in self._analysis.times
            ),
            equivalence=any(answer.equivalence is not None for answer in every),
            bayes_factors=any(answer.bayes_factors is not None for answer in every),
            units=questions[0].question.effect_units,
            atlases=tuple(self.regions),
            coverage=1.0 if self._stack.complete is self._stack else self._stack.min_coverage,
            core_maps=None
            if self._stack.learns_from_all
            else (len(self._stack.core.layout.participants), len(self._stack.layout.participants)),
            space=self._stack.space,
        )

    def summary(self) -> ContrastSummary:
        """Say what was found."""
        results = self.results
        left_out = [f"sub-{label} is left out: it {why}." for label, why in results.left_out.items()]
        warnings = (
            *results.warnings, *results.covariate_warnings, *left_out,
            *refusals(self._study.contrast, results.questions),
        )  # fmt: skip
        return ContrastSummary(tuple(map(self._stack.space.in_words, warnings)), self._work())


def _covariates(maps: Sequence[FirstLevelMap], raw: Path, model: GroupModel) -> Covariates:
    if not (model.covariates or model.session_covariates):
        return Covariates.none(attendance(maps))
    covariates = read_covariates(raw, attendance(maps), model.covariates, model.session_covariates)
    for column, known in model.known_levels:
        others = [level for level in covariates.levels.get(column, ()) if level not in known]
        if others:
            raise LevelError(
                f"The model's X lists {quoted([f'{column}.{level}' for level in known])}, and participants with maps "
                f"are also {quoted(others)} in '{column}' of participants.tsv, who would belong to no column. "
                f"Add {quoted([f'{column}.{level}' for level in others])} to X, or leave them out with "
                "--participant-label."
            )
    return covariates

"""The group level as tasks: one chain for each first-level contrast, from its maps to files and page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sessionfx import __version__
from sessionfx.bids.atlas import Atlas
from sessionfx.bids.meshes import with_meshes
from sessionfx.bids.region_tables import region_table_beside
from sessionfx.group.answer_files import AnswerFiles
from sessionfx.group.files import GroupFiles
from sessionfx.group.findings import ContrastFindings
from sessionfx.group.page import contrast_section, group_page
from sessionfx.group.region_files import RegionFiles
from sessionfx.group.spool import Spool
from sessionfx.group.stack import open_stack
from sessionfx.group.store import scratch_file
from sessionfx.group.strategies.base import Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.study import ContrastStudy, GroupAnalysis
from sessionfx.options import GroupModel
from sessionfx.tasks.records import Record, file_state, fingerprint
from sessionfx.tasks.task import Chain, Task
from sessionfx.wording import listed


def contrast_chain(study: ContrastStudy) -> Chain:
    """List the tasks of one first-level contrast.

    Each strategy's answer to each question is one: answers that are not asked for stay, unless they are from other
    first-level maps or covariates.
    """
    of_study = _Tasks(study)
    chain = Chain(
        name=f"contrast {study.contrast}",
        record=study.analysis.record,
        tasks=tuple(of_study),
        open=lambda _: _open(study, earlier_answers(chain, study)),
        sources={**study.sources, **of_study.estimates},
        page=group_page(study.analysis.output_dir),
        is_here=True,
    )
    return chain


@contextlib.contextmanager
def _open(study: ContrastStudy, earlier: Sequence[str]) -> Iterator[ContrastFindings]:
    """Read the maps of a contrast; what its tasks share is computed from them once it is asked for."""
    analysis = study.analysis
    with (
        scratch_file(analysis.folder) as answers,
        open_stack(
            study.maps,
            study.covariates,
            analysis.folder,
            needs_variances=analysis.needs_variances,
            times=analysis.times,
            n_threads=analysis.execution.nprocs,
            min_coverage=study.min_coverage,
            is_kept=analysis.execution.work_dir is not None,
            is_shared=analysis.executor.is_elsewhere,
        ) as stack,
    ):
        space = with_meshes(stack.space, analysis.meshes) if analysis.meshes else stack.space
        yield ContrastFindings(study, replace(stack, space=space), Spool(answers, analysis.folder), earlier)


@dataclass(frozen=True)
class _Tasks:
    """The tasks of one first-level contrast."""

    study: ContrastStudy

    @property
    def analysis(self) -> GroupAnalysis:
        return self.study.analysis

    @property
    def model(self) -> GroupModel:
        return self.analysis.model

    @cached_property
    def files(self) -> GroupFiles:
        return GroupFiles(self.study)

    def __iter__(self) -> Iterator[Task]:
        """Give what takes longest first, as it is kept at once."""
        questions, strategies = self.study.questions, self.analysis.strategies
        answers = {asked.label: [self._answer(asked, strategy) for strategy in strategies] for asked in questions}
        every_answer = [task for tasks in answers.values() for task in tasks]
        calibration = [self._calibration(every_answer)] if self.model.calibrate else []
        resampled = strategies if self.model.permutations else ()
        permutations = {
            asked.label: [self._permutation(asked, strategy) for strategy in resampled] for asked in questions
        }
        results = [
            *calibration, *(task for tasks in permutations.values() for task in tasks),
            self._reliability(), self._likeness(), *every_answer,
            *(task for asked in questions for task in self._comparisons(
                asked, answers[asked.label], [*permutations[asked.label], *calibration])),
            *(task for atlas in self.analysis.atlases for task in self._regions(atlas)),
        ]  # fmt: skip
        yield from results
        if not self.analysis.execution.no_report:
            section = contrast_section(self.analysis.output_dir, self.analysis.selection.entities, self.study.contrast)
            yield self._task(
                "draw", [_fingerprints(results), self.analysis.selection.warnings], [section], _draw, kind="page",
                inputs=(*self.study.sources, *(task.name for task in results)),
            )  # fmt: skip

    def _task(
        self, what: str, made_from: Any, outputs: Iterable[Path], run: Callable[[ContrastFindings], None], **more: Any
    ) -> Task:
        """Describe a task, which is made from the first-level maps and covariates unless other inputs are given."""
        return Task(
            name=f"{self.study.contrast} {what}", fingerprint=fingerprint(made_from), outputs=tuple(outputs), run=run,
            **({"inputs": tuple(self.study.sources)} | more),
        )  # fmt: skip

    @cached_property
    def estimates(self) -> dict[str, str]:
        """Fingerprints of what determines the estimates of each strategy, whatever the thresholds."""
        analysis = self.analysis
        # what serves as time in one question adjusts no other
        times = analysis.times if self.study.covariates.session_columns else ()
        options = asdict(analysis.options) | {"min_coverage": self.study.min_coverage}
        common = [*self.study.sources.values(), times, options, analysis.needs_variances]
        return {
            self._source(question, strategy): fingerprint(
                [common, strategy.name, asdict(question.sessions), asdict(question.group)]
            )
            for question in self.study.questions
            for strategy in analysis.strategies
        }

    def _source(self, question: Question, strategy: Strategy) -> str:
        """Name the estimates of a strategy among what tasks are made from."""
        return f"{self.study.contrast} estimates {question.label} by {strategy.name}"

    @cached_property
    def _of_all(self) -> list[Any]:
        """What all files tell, or depend on."""
        meshes = [file_state(path) for paths in self.analysis.meshes.values() for path in paths]
        return [__version__, self.analysis.selection.entities, self.study.left_out, *meshes]

    @cached_property
    def _shown(self) -> list[Any]:
        """What determines thresholds and tables of clusters."""
        model = self.model
        atlases = [file_state(path) for atlas in self.analysis.atlases for path in atlas.files]
        return [self.study.min_coverage, model.alpha, model.correction, model.cluster_threshold, *atlases]

    def _reliability(self) -> Task:
        of_maps, state_of_maps = next(iter(self.study.sources.items()))
        return self._task(
            "reliability", [state_of_maps, self._of_all, self._shown], self.files.outputs_of_reliability(),
            lambda found: self.files.write_reliability(found.reliability, found.stack.core), inputs=(of_maps,),
        )  # fmt: skip

    def _likeness(self) -> Task:
        of_maps, state_of_maps = next(iter(self.study.sources.items()))
        return self._task(
            "likeness", [state_of_maps, self._of_all], _with_json(self.files.likeness),
            lambda found: self.files.write_likeness(found.likeness), inputs=(of_maps,),
        )  # fmt: skip

    def _answer(self, question: Question, strategy: Strategy) -> Task:
        def write(found: ContrastFindings) -> None:
            files.write(found.answer(question, strategy), found.weights(question, strategy))

        files = AnswerFiles(self.files, question, strategy.label)
        of_model = [self.model.equivalence, self.model.bayes_factor]
        return self._task(
            f"answer {question.label} by {strategy.name}",
            [self.estimates[self._source(question, strategy)], [self._of_all, self._shown], *of_model],
            files.outputs, write,
        )  # fmt: skip

    def _permutation(self, question: Question, strategy: Strategy) -> Task:
        files, source = AnswerFiles(self.files, question, strategy.label), self._source(question, strategy)
        return self._task(
            f"permute {question.label} by {strategy.name}",
            [self.estimates[source], self._of_all, self.model.permutations, self.model.random_seed],
            files.outputs_of_permutation, lambda found: files.write_permutation(found.permute(question, strategy)),
            inputs=(*self.study.sources, source), is_costly=True,
        )  # fmt: skip

    def _calibration(self, answers: Sequence[Task]) -> Task:
        def write(found: ContrastFindings) -> None:
            found.calibration = found.calibrate(self.model.calibrate, self.model.random_seed)
            self.files.write_calibration(found.calibration)

        made_from = [_fingerprints(answers), self.model.calibrate, self.model.random_seed]
        return self._task("calibration", made_from, [self.files.calibration], write, is_costly=True)

    def _comparisons(self, question: Question, answers: Sequence[Task], judged_by: Sequence[Task]) -> Iterator[Task]:
        files, of_answers = self.files, _fingerprints(answers)
        judged = [of_answers, _fingerprints(judged_by)]
        task = partial(self._task, inputs=(*self.study.sources, *(answer.name for answer in answers)))
        yield task(
            f"compare {question.label}", of_answers, [files.agreement(question)],
            lambda found: files.write_agreement(found.answers(question)),
        )  # fmt: skip
        yield task(
            f"judge {question.label}", judged, [files.answers(question), files.verdict(question)],
            lambda found: files.write_verdict(found.answers(question)),
        )  # fmt: skip
        yield task(
            f"influence {question.label}", judged, _with_json(files.influence(question)),
            lambda found: files.write_influence(question, found.answers(question).best, found.influence(question)),
        )  # fmt: skip

    def _regions(self, atlas: Atlas) -> Iterator[Task]:
        """List the values of an atlas' regions, and the answers to each question in them."""
        model, files = self.model, RegionFiles(self.files, atlas.label)
        tables = [
            file_state(region_table_beside(of_row, atlas.label))
            for found in self.study.maps
            for of_row in found.of_rows
        ]
        values = [*self.study.sources.values(), self._of_all, atlas.digest, tables]
        yield self._task(
            f"regions of {atlas.label}", values, _with_json(files.values),
            lambda found: files.write_values(found.regions[atlas.label], found.units),
        )  # fmt: skip
        shown = [model.alpha, model.correction, model.equivalence, model.bayes_factor]
        for question in self.study.questions:
            estimates = [self.estimates[self._source(question, strategy)] for strategy in self.analysis.strategies]
            yield self._task(
                f"regions of {atlas.label} answer {question.label}", [values, estimates, shown],
                _with_json(files.answers(question)),
                partial(_write_region_answers, files=files, atlas=atlas.label, question=question),
            )  # fmt: skip


def _fingerprints(tasks: Iterable[Task]) -> list[str]:
    return [task.fingerprint for task in tasks]


def _with_json(table: Path) -> tuple[Path, Path]:
    """Name a table, and the JSON beside it."""
    return table, table.with_suffix(".json")


def _write_region_answers(found: ContrastFindings, *, files: RegionFiles, atlas: str, question: Question) -> None:
    regions = found.regions[atlas]
    files.write_answers(regions, regions.answers[question.label])


def _draw(found: ContrastFindings) -> None:
    from sessionfx.group.section import draw_contrast  # with what draws; a call with --no-report has no use for it

    draw_contrast(found)


def earlier_answers(chain: Chain, study: ContrastStudy) -> list[str]:
    """Say which answers of earlier calls lie beside those of this call, which the page does not show."""
    record = Record(chain.record, study.analysis.output_dir)
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

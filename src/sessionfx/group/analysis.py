"""The group level of one first-level contrast, from its maps to files and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.ask.covariates import Covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.covariate_tables import read_covariates
from sessionfx.bids.first_level_maps import FirstLevelMap, MapSelection
from sessionfx.bids.names import check_name_length, file_name
from sessionfx.bids.writing import remove, together
from sessionfx.errors import LevelError
from sessionfx.execution import Executor, progress_bar, say
from sessionfx.group.answers import Respondent, finding, refusals
from sessionfx.group.calibrated import rates_of
from sessionfx.group.calibration import calibrate_study
from sessionfx.group.evidence import summarise_reliability, with_active_regions
from sessionfx.group.files import GroupFiles, longest_group_name
from sessionfx.group.page import has_group_section, write_group_report
from sessionfx.group.permutation import PermutationResult
from sessionfx.group.results import ContrastResults, StrategyResult
from sessionfx.group.stack import MapStack, attendance, open_stack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.options import Execution, GroupModel
from sessionfx.report.methods import GroupWork, MethodsText, group_methods
from sessionfx.tasks.records import Record, file_state, fingerprint
from sessionfx.wording import listed

# Stands in the names of answers to questions, not in those of other work; and ends that of what is judged of them
_ANSWER, _VERDICT = " sessions ", " verdict"
# Real voxels that a calibration draws from: several times as many as smooth maps have independent places
RESAMPLED_VOXELS = 6_000


@dataclass(frozen=True)
class GroupAnalysis:
    """What all contrasts of one call share; see `ParticipantAnalysis`."""

    model: GroupModel
    weighting: str
    execution: Execution
    selection: MapSelection
    session_contrasts: tuple[SessionContrast, ...]
    raw: Path
    output_dir: Path
    links: dict[str, Path]
    executor: Executor

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Strategies asked for, in the registry's order."""
        wanted = self.model.strategy or tuple(name for name, one in STRATEGIES.items() if one.is_default)
        return tuple(strategy for name, strategy in STRATEGIES.items() if name in wanted)

    def absent(self, contrast: str) -> dict[str, str]:
        """Participants who could have had a map of a contrast and have none, and why."""
        return self.selection.absent.get(contrast, {})

    @property
    def times(self) -> tuple[str, ...]:
        """Session covariates that serve as time in some question."""
        return tuple(sorted({one.time for one in self.session_contrasts if one.time is not None}))

    @property
    def options(self) -> GroupOptions:
        """Options of the strategies."""
        return GroupOptions(
            self.model.subject_effect, self.weighting, self.model.mixed_dof, self.model.variance,
            self.model.session_covariate_effect,
        )  # fmt: skip

    def methods(self, work: GroupWork) -> MethodsText:
        """Describe what was done, for the methods section of a paper."""
        answered = [strategy for strategy in self.strategies if strategy.name in work.strategies]
        return group_methods(self.model, [strategy.methods(self.options) for strategy in answered], work)

    def record(self) -> Record:
        """Open the record of what is finished at the group level."""
        name = file_name({**self.selection.entities}, "group", ".json")
        return Record(self.output_dir / "logs" / name, self.output_dir)


@dataclass(frozen=True)
class _Works:
    """Fingerprints of the pieces of work of one contrast, by name.

    Attributes
    ----------
    questions : tuple of str
        Names of the answers, in the order of the questions.
    reliability, calibration : str
        Names of the pieces that belong to no single question; the latter is empty where it is not asked for.
    marks : dict of str to str
        All of them.
    prefix : str
        With which the names of all work from these first-level maps begin.
    prefix_of_answers : str
        With which the names of answers begin that are also of models with these covariates.
    """

    questions: tuple[str, ...]
    reliability: str
    calibration: str
    marks: dict[str, str]
    prefix: str
    prefix_of_answers: str

    def is_current(self, work: str) -> bool:
        """Whether work in the record, of this call or an earlier one, belongs beside that of this call."""
        return work.startswith(self.prefix_of_answers if _ANSWER in work else self.prefix)


@dataclass(frozen=True)
class ContrastOutcome:
    """What became of one first-level contrast: `done` or `finished` before; warnings; what was found, a line each."""

    status: str
    messages: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    work: GroupWork | None = None


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


def analyse_contrast(contrast: str, analysis: GroupAnalysis) -> ContrastOutcome:
    """Analyse one first-level contrast at the group level, unless that is finished.

    Parameters
    ----------
    contrast : str
        Label of the first-level contrast.
    analysis : GroupAnalysis

    Returns
    -------
    ContrastOutcome

    Raises
    ------
    LevelError
        If the maps cannot be put together, or covariates cannot be used.
    """
    model, execution = analysis.model, analysis.execution
    covariates = _covariates(analysis.selection.maps[contrast], analysis.raw, model)
    maps = [one for one in analysis.selection.maps[contrast] if one.participant in covariates.participants]
    questions = [
        Question(asked, group)
        for asked in analysis.session_contrasts
        for group in resolve_group_contrasts(model.group_contrast, covariates)
    ]
    record = analysis.record()
    works = _works(contrast, maps, covariates, questions, analysis)
    to_do = {work for work, mark in works.marks.items() if execution.force or not record.is_finished(work, mark)}
    # answers to other questions stay, unless they are from other first-level maps or covariates
    own = [work for work in record.works() if work.startswith(f"{contrast} from ")]
    outdated = [work for work in own if not works.is_current(work)]
    shown = fingerprint(works.marks)
    needs_report = not execution.no_report and (
        execution.reports_only
        or not has_group_section(analysis.output_dir, analysis.selection.entities, contrast, shown)
    )
    if not to_do and not needs_report and not outdated:
        return ContrastOutcome("finished")
    if execution.reports_only and to_do:
        raise LevelError(
            f"--reports-only needs finished group maps with the same options, and contrast '{contrast}' has "
            "none. Run the group level without --reports-only first."
        )
    files = GroupFiles(
        contrast, maps, analysis.selection, model, analysis.weighting, analysis.output_dir, analysis.links
    )
    needs_variances = any(one.needs_variances(analysis.options) for one in analysis.strategies)
    with open_stack(
        maps,
        covariates,
        execution.work_dir or analysis.output_dir,
        needs_variances=needs_variances,
        times=analysis.times,
        n_threads=execution.nprocs,
    ) as stack:
        keeper = _Keeper(contrast, record, works, to_do)
        results = _find_results(stack, covariates, questions, analysis, files, keeper)
    keeper.take_away(outdated)
    done = _work_of(results, analysis)
    results = replace(results, notes=(*results.notes, *keeper.earlier_answers()))
    if not execution.no_report:
        write_group_report(results, model, analysis.methods(done), shown, analysis.output_dir)
    left_out = [f"sub-{label} is left out: it {why}." for label, why in results.left_out.items()]
    messages = (*results.notes, *results.covariate_notes, *left_out, *refusals(contrast, results.questions))
    return ContrastOutcome("done", messages, tuple(map(finding, results.questions)), done)


def _work_of(results: ContrastResults, analysis: GroupAnalysis) -> GroupWork:
    answered = [[one for one in asked.strategies if one.stat_map is not None] for asked in results.questions]
    return GroupWork(
        frozenset(one.name for answers in answered for one in answers),
        frozenset(
            answer.permutation.scheme for answers in answered for answer in answers if answer.permutation is not None
        ),
        any(len(answers) > 1 for answers in answered),
        any(answers and asked.question.sessions.kind == "any"
            for asked, answers in zip(results.questions, answered, strict=True)),
        results.reliability is not None,
        tuple(name for name in analysis.model.session_covariates if name not in analysis.times),
        any(answer.equivalence is not None for answers in answered for answer in answers),
        any(answer.bayes_factors is not None for answers in answered for answer in answers),
    )  # fmt: skip


@dataclass(frozen=True)
class _Keeper:
    """Writes what is to be done and records it, piece by piece: what is finished is not lost with the rest."""

    contrast: str
    record: Record
    works: _Works
    to_do: set[str]

    def keep(self, work: str, write: Callable[[], list[Path]], earlier: Callable[[], list[Path]] | None = None) -> None:
        """Write a piece of work, unless it is finished; what it takes the place of goes when all of it is written.

        Parameters
        ----------
        work : str
        write : callable
            Returns the files it wrote.
        earlier : callable, optional
            Gives files that must not stand beside those written.
        """
        if work not in self.to_do:
            return
        written: list[Path] = []
        # other maps or covariates may have given an answer under the same file names
        same = [other for other in self.record.works() if other.startswith(f"{self.contrast} from ")
                and _piece(other) == _piece(work)]  # fmt: skip
        with together(lambda: self.take_away([work, *same], earlier() if earlier else [], written)):
            written += write()
        self.record.finish({work: (self.works.marks[work], written)})

    def take_away(self, works: Sequence[str], files: Sequence[Path] = (), written: Sequence[Path] = ()) -> None:
        """Strike work from the record and remove its files; say so where they are not made anew."""
        others = {path for path in [*self.record.obsolete(works), *files] if path not in written and path.exists()}
        if others:
            say(
                f"contrast {self.contrast}: {len(others)} file(s) of earlier calls are removed, {min(others).name} for "
                "one: they are from other maps, covariates or options than the answers that this call writes."
            )
        self.record.forget(works)
        for path in files:
            if path not in written:
                remove(path)

    def earlier_answers(self) -> list[str]:
        """Say which answers of earlier calls lie beside those of this call, which the page does not show."""
        others = [work for work in self.record.works() if self.works.is_current(work) and _ANSWER in work
                  and not work.endswith(_VERDICT) and work not in self.works.questions]  # fmt: skip
        if not others:
            return []
        names = listed([work.partition(_ANSWER)[2].replace("-", " by ") for work in others])
        return [
            f"Answers of earlier calls from the same maps and covariates stay in group/ beside those of this call, and "
            f"are not shown on its page: {names}."
        ]


def _piece(work: str) -> str:
    """Name of a piece of work without the maps and covariates it is from."""
    before, answer, question = work.partition(_ANSWER)
    return answer + question if answer else before.split()[-1]


def _find_results(
    stack: MapStack,
    covariates: Covariates,
    questions: Sequence[Question],
    analysis: GroupAnalysis,
    files: GroupFiles,
    keeper: _Keeper,
) -> ContrastResults:
    """Answer all questions; what takes long and is finished is read back for the report."""
    model, works = analysis.model, keeper.works
    respondent = Respondent(analysis.strategies, analysis.options, model, analysis.executor, analysis.execution.nprocs)
    found = respondent.answers(questions, stack, analysis.selection.sessions)
    _check_that_something_is_answered(questions, found.results)
    mean = found.mean if found.reliability else None
    evidence = with_active_regions(found.evidence, found.reliability, stack, mean)
    reliability = summarise_reliability(found.reliability, stack, mean, model.cluster_threshold)
    keeper.keep(works.reliability, partial(files.write_reliability, reliability, stack.mask, stack.grid))
    calibration = None
    if works.calibration:  # before the judgements, which read it
        finished = works.calibration not in keeper.to_do
        calibration = files.read_calibration() if finished else _calibrate(questions, stack, analysis)
        keeper.keep(works.calibration, partial(files.write_calibration, calibration))
    answers = []
    asked = list(zip(works.questions, questions, found.results, strict=True))
    for work, question, results in progress_bar(asked, files.contrast, "question"):
        stored = partial(_stored_permutation, files, question) if work not in keeper.to_do else None
        answer = respondent.compared(question, results, stack, evidence, stored, rates_of(calibration, question.label))
        keeper.keep(work, partial(files.write_question, answer, covariates), partial(files.strategy_files, question))
        keeper.keep(work + _VERDICT, partial(files.write_verdict, answer))
        answers.append(answer)
    return ContrastResults(
        files.contrast, analysis.selection.entities, stack.layout, stack.mask, stack.grid, stack.coverage,
        tuple(answers), stack.notes, covariates.notes, {**analysis.absent(files.contrast), **covariates.left_out},
        evidence, reliability, calibration,
    )  # fmt: skip


def _check_that_something_is_answered(
    questions: Sequence[Question], results: Sequence[Sequence[StrategyResult]]
) -> None:
    """Refuse a call without any answer before it takes the place of what is there."""
    if any(result.stat_map is not None for answers in results for result in answers):
        return
    reasons = dict.fromkeys(f"{result.name}: {result.refusal}" for answers in results for result in answers)
    raise LevelError(
        f"No strategy of this call can answer {'any of its questions' if len(questions) > 1 else questions[0].text}, "
        f"so nothing is written, and what was there stays. {' '.join([*reasons][:6])} "
        "Ask another question (--session-contrast, --group-contrast), or leave out --strategy for the default ones."
    )


def _stored_permutation(
    files: GroupFiles, question: Question, strategy: str, mask: NDArray[np.bool_]
) -> PermutationResult | None:
    sidecar, values = files.read_permutation(question, strategy, mask)
    if not values:
        return None
    return PermutationResult(
        sidecar["NumberOfPermutations"], sidecar["NumberOfDistinctPermutations"], sidecar["PermutationScheme"],
        sidecar["ClusterFormingP"], values, sidecar["SmallestAttainableP"], sidecar["PermutationNote"],
    )  # fmt: skip


def _covariates(maps: Sequence[FirstLevelMap], raw: Path, model: GroupModel) -> Covariates:
    if not (model.covariates or model.session_covariates):
        return Covariates.none(attendance(maps))
    return read_covariates(raw, attendance(maps), model.covariates, model.session_covariates)


def _calibrate(questions: Sequence[Question], stack: MapStack, analysis: GroupAnalysis) -> pd.DataFrame:
    sessions = tuple(session for session in analysis.selection.sessions or ("",) if session in stack.layout.sessions)
    seed = analysis.model.random_seed
    effects = stack.sample(RESAMPLED_VOXELS, np.random.default_rng(seed))
    try:
        return calibrate_study(
            stack.layout, questions, {strategy.name: strategy for strategy in analysis.strategies}, analysis.options,
            sessions, effects, n_voxels=analysis.model.calibrate, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        raise LevelError(f"--calibrate resamples how participants vary, and {error}. Leave it out.") from None


def _works(
    contrast: str,
    maps: Sequence[FirstLevelMap],
    covariates: Covariates,
    questions: Sequence[Question],
    analysis: GroupAnalysis,
) -> _Works:
    """Digest what determines each piece of work."""
    model = analysis.model
    inputs = fingerprint([[one.key, file_state(one.effect), file_state(one.variance)] for one in maps])
    prefix = f"{contrast} from {inputs[:16]} "
    design = [
        covariates.columns,
        covariates.values.tolist(),  # noqa: PD011 - an array
        covariates.session_columns,
        sorted((key, values) for key, values in covariates.session_values.items()),
        covariates.left_out,
        analysis.absent(contrast),
        # what serves as time in one question adjusts no other
        analysis.times if covariates.session_columns else (),
    ]
    of_covariates = fingerprint(design[:4])[:8]
    common = [__version__, analysis.selection.entities, model.alpha, model.correction, model.cluster_threshold]
    options = [
        common,
        [one.name for one in analysis.strategies],
        asdict(analysis.options),
        [model.permutations, model.random_seed] if model.permutations else None,
        model.equivalence,
        model.bayes_factor,
        design,
    ]
    answers = {
        f"{prefix}{of_covariates}{_ANSWER}{one.label}": fingerprint(
            [inputs, options, asdict(one.sessions), asdict(one.group)]
        )
        for one in questions
    }
    reliability, calibration = f"{prefix}reliability", f"{prefix}calibration" if model.calibrate else ""
    marks = {**answers, reliability: fingerprint([inputs, common, covariates.left_out, analysis.absent(contrast)])}
    if calibration:
        marks[calibration] = fingerprint([sorted(answers.items()), model.calibrate, model.random_seed])
    marks |= {work + _VERDICT: fingerprint([mark, marks.get(calibration)]) for work, mark in answers.items()}
    return _Works(tuple(answers), reliability, calibration, marks, prefix, f"{prefix}{of_covariates}{_ANSWER}")

"""What is asked at the group level: of one call, and of one first-level contrast with its maps and covariates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from sessionfx.ask.covariates import Covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.bids.atlas import Atlas
from sessionfx.bids.covariate_tables import read_covariates
from sessionfx.bids.first_level_maps import FirstLevelMap, MapSelection
from sessionfx.bids.meshes import MeshFiles
from sessionfx.bids.names import check_name_length, file_name
from sessionfx.bids.stat_maps import read_sidecar, units_in
from sessionfx.errors import LevelError
from sessionfx.execution import Executor
from sessionfx.group.files import longest_group_name
from sessionfx.group.stack import attendance
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.options import Execution, GroupModel, StrategyModel
from sessionfx.report.methods import GroupWork, MethodsText, group_methods
from sessionfx.tasks.records import file_state, fingerprint, fingerprint_of_items
from sessionfx.wording import joined, quoted

DEFAULT_COVERAGE = 0.7  # share of the maps that an answered voxel needs


@dataclass(frozen=True, kw_only=True)
class GroupAnalysis:
    """What all contrasts of one call share."""

    model: GroupModel
    weighting: str  # 'equal' or 'precision': of fixed effects
    execution: Execution
    selection: MapSelection
    session_contrasts: tuple[SessionContrast, ...]
    # raw, output_dir: absolute
    raw: Path
    output_dir: Path
    links: dict[str, Path]  # input datasets by their name in BIDS URIs
    executor: Executor  # where blocks of voxels and of permutations are computed
    atlases: tuple[Atlas, ...] = ()  # whose regions are answered too, and are the names of peaks
    # of the hemispheres of a surface, where they are found; see `find_meshes`
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
        return group_methods(self.model, [strategy.methods(self.options, work) for strategy in answered], work)

    @property
    def folder(self) -> Path:
        """Where maps and answers are kept while it works."""
        return self.execution.work_dir or self.output_dir

    @property
    def record(self) -> Path:
        """Where it is noted what is finished at the group level."""
        return self.output_dir / "logs" / file_name({**self.selection.entities}, "group", ".json")


@dataclass(frozen=True, kw_only=True)
class ContrastStudy:
    """One first-level contrast: its maps, covariates and questions."""

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
    def sources(self) -> dict[str, str]:
        """Fingerprints of the first-level maps and of the covariates."""
        maps = (
            [found.key, *map(file_state, found.files)] for of_contrasts in self.maps for found in of_contrasts.of_rows
        )
        covariates = self.covariates
        values = sorted(covariates.session_values.items())
        design = [covariates.columns, covariates.values.tolist(), covariates.session_columns, values]
        return {f"{self.contrast} maps": fingerprint_of_items(maps), f"{self.contrast} covariates": fingerprint(design)}

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Participants without a map or a covariate, and why."""
        return {**self.analysis.absent(self.contrast), **self.covariates.left_out}


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
    analysed = {*covariates.participants}
    maps = [found for found in analysis.selection.maps[contrast] if found.participant in analysed]
    return ContrastStudy(
        contrast=contrast, analysis=analysis, covariates=covariates, maps=tuple(maps), questions=tuple(questions)
    )


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

"""What one call was asked to do, as small frozen groups: each part of the program takes the group it needs.

A field has the name of its option and is the one place of the option's default; labels are without their `sub-`,
`ses-`, … prefix. An empty tuple or None means "not given". What an option means is in `options.table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sessionfx.models.plan import Recipe

# of a field that no option fills
_NO_OPTION = {"is_option": False}


def available_processors() -> int:
    """Count the processors that container or job give; what counts them is imported when it is needed."""
    from sessionfx.execution import resources

    return resources.available_processors()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which files are analysed."""

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    run_label: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    space: str | None = None
    res: str | None = None
    den: str | None = None
    hemi: str | None = None
    derivatives: tuple[Path, ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    contrast: tuple[str, ...] = ()
    model: Path | None = None
    model_node: str | None = None


# of effects, by what the signal is scaled to
EFFECT_UNITS = {
    "voxel": "percent signal change",
    "grand-mean": "percent of the grand mean",
    "none": "arbitrary units",
}


@dataclass(frozen=True, kw_only=True)
class FirstLevelModel:
    """How runs are modelled and combined; units: Hz, mm, volumes (fir_delays).

    With `--model` its recipe makes the designs of runs.
    """

    condition_column: tuple[str, ...] = ()
    recode: tuple[str, ...] = ()
    event_filter: tuple[str, ...] = ()
    duration_column: str | None = None
    modulator: tuple[str, ...] = ()
    modulator_centering: str = "run"
    hrf_model: str = "glover"
    fir_delays: tuple[int, ...] = ()
    drift_model: str = "cosine"
    high_pass: float = 0.01
    noise_model: str = "ar1"
    smoothing_fwhm: float | None = None
    confounds: tuple[str, ...] = ()
    fd_threshold: float | None = None
    dvars_threshold: float | None = None
    regressors: str | None = None
    signal_scaling: str = "voxel"
    fixed_effects: str = "equal"
    fixed_effects_dof: str = "satterthwaite"
    keep_run_maps: bool = False
    recipe: Recipe | None = field(default=None, metadata=_NO_OPTION)

    @property
    def effect_units(self) -> str:
        """Units of the effects of conditions."""
        return EFFECT_UNITS[self.signal_scaling]

    @property
    def has_motion_threshold(self) -> bool:
        """Whether volumes beyond a threshold get regressors of their own."""
        return self.fd_threshold is not None or self.dvars_threshold is not None


@dataclass(frozen=True, kw_only=True)
class StrategyModel:
    """What group strategies need of the group model."""

    subject_effect: str = "auto"
    mixed_dof: str = "satterthwaite"
    variance: str = "auto"
    session_covariate_effect: str = "split"
    robust: str = "none"


@dataclass(frozen=True, kw_only=True)
class GroupModel(StrategyModel):
    """What is asked at the group level, how it is answered, and at which threshold maps are shown."""

    session_contrast: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    session_covariates: tuple[str, ...] = ()
    group_contrast: tuple[str, ...] = ()
    min_coverage: float | None = None
    alpha: float = 0.05
    correction: str = "fdr"
    cluster_threshold: int = 0
    atlas: tuple[Path, ...] = ()
    atlas_labels: tuple[Path, ...] = ()
    permutations: int = 0
    equivalence: float | None = None
    bayes_factor: float | None = None
    calibrate: int = 0
    random_seed: int = 0
    # covariates whose levels a model's X lists, with these levels: participants of others are no part of that model
    known_levels: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), metadata=_NO_OPTION)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the work is done; units: GB."""

    nprocs: int = field(default_factory=available_processors)
    omp_nthreads: int = 1
    mem_gb: float | None = None
    executor: str = "local"
    scheduler: str | None = None
    work_dir: Path | None = None
    force: bool = False
    dry_run: bool = False
    reports_only: bool = False
    no_report: bool = False
    stop_on_first_crash: bool = False
    verbose: int = 0


GROUPS = {"selection": Selection, "first_level": FirstLevelModel, "group": GroupModel, "execution": Execution}
# by the name of the option; the number of processors is the machine's
GROUP_OF = {
    option.name: name
    for name, group in GROUPS.items()
    for option in fields(group)
    if option.metadata.get("is_option", True)
}
DEFAULTS = {
    option.name: option.default
    for group in GROUPS.values()
    for option in fields(group)
    if option.default is not MISSING and option.name in GROUP_OF
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a call, and the names of those that were given."""

    bids_dir: Path
    output_dir: Path
    levels: tuple[str, ...]
    selection: Selection = Selection()
    first_level: FirstLevelModel = FirstLevelModel()
    group: GroupModel = GroupModel()
    execution: Execution = field(default_factory=Execution)
    given: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Sort values into their groups, by the names of options; what is left out has its default."""
        sorted_in: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
        others: dict[str, Any] = {}
        for option, value in values.items():
            (sorted_in[GROUP_OF[option]] if option in GROUP_OF else others)[option] = value
        groups = {name: group(**sorted_in[name]) for name, group in GROUPS.items()}
        return cls(**others, **groups, given=frozenset(values))

    def of_task(self, entities: Mapping[str, str | None], contrasts: Sequence[str]) -> Self:
        """Give the options that ask for one task and its contrasts by name, in the space that was chosen."""
        task = entities.get("task")
        chosen = {name: label for name in ("space", "res", "den", "hemi") if (label := entities.get(name))}
        named: dict[str, Any] = {"task": () if task is None else (task,), "contrast": tuple(contrasts), **chosen}
        return replace(self, selection=replace(self.selection, **named))

    def values(self) -> dict[str, Any]:
        """Give all values by the names of options; the inverse of `from_values`."""
        grouped = {option: getattr(getattr(self, name), option) for option, name in GROUP_OF.items()}
        return {"bids_dir": self.bids_dir, "output_dir": self.output_dir, "levels": self.levels, **grouped}

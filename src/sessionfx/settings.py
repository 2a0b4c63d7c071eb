"""What one run of the program was asked to do: a frozen value, and its TOML form."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HRF_MODELS = (
    "glover",
    "glover + derivative",
    "glover + derivative + dispersion",
    "spm",
    "spm + derivative",
    "spm + derivative + dispersion",
)
DRIFT_MODELS = ("cosine", "polynomial", "none")
NOISE_MODELS = ("ar1", "ols")
FIXED_EFFECTS_WEIGHTINGS = ("equal", "precision")
FIXED_EFFECTS_DOF_METHODS = ("satterthwaite", "sum")
SUBJECT_EFFECTS = ("auto", "indicator", "linear", "none")
MIXED_DOF_METHODS = ("satterthwaite", "kenward-roger")
VARIANCES = ("auto", "pooled", "groups")
SESSION_COVARIATE_EFFECTS = ("split", "mixture")
CORRECTIONS = ("fdr", "bonferroni", "none")
LEVELS = ("participant", "group")
EXECUTORS = ("local", "dask")
SLURM = "slurm"  # in place of a scheduler's address


@dataclass(frozen=True)
class Settings:
    """All options under the names of the command line; units: Hz, mm, GB.

    Labels are without their `sub-`, `ses-`, … prefix. An empty tuple or None means "not given".
    """

    bids_dir: Path
    output_dir: Path
    levels: tuple[str, ...]
    # selection
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task: str | None = None
    space: str | None = None
    res: str | None = None
    derivatives: tuple[Path, ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    # first level
    contrast: tuple[str, ...] = ()
    hrf_model: str = "glover"
    drift_model: str = "cosine"
    high_pass: float = 0.01
    noise_model: str = "ar1"
    smoothing_fwhm: float | None = None
    confounds: tuple[str, ...] = ()
    fixed_effects: str = "equal"
    fixed_effects_dof: str = "satterthwaite"
    keep_run_maps: bool = False
    # group level
    session_contrast: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()
    subject_effect: str = "auto"
    mixed_dof: str = "satterthwaite"
    variance: str = "auto"
    session_covariate_effect: str = "split"
    covariates: tuple[str, ...] = ()
    session_covariates: tuple[str, ...] = ()
    group_contrast: tuple[str, ...] = ()
    alpha: float = 0.05
    correction: str = "fdr"
    cluster_threshold: int = 0
    permutations: int = 0
    equivalence: float | None = None
    bayes_factor: float | None = None
    calibrate: int = 0
    random_seed: int = 0
    # execution
    nprocs: int = 1
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

    def to_toml(self) -> str:
        """Write the settings so that `--config-file` reads them back (positional arguments stand in a comment)."""
        import tomli_w

        options = dataclasses.asdict(self)
        position = [options.pop(name) for name in ("bids_dir", "output_dir", "levels")]
        table = {key.replace("_", "-"): _plain(value) for key, value in options.items()}
        given = {key: value for key, value in table.items() if value not in (None, [], False)}
        folders = (_plain(position[0]), _plain(position[1]))
        comment = f"# sessionfx {folders[0]} {folders[1]} {' '.join(position[2])} --config-file THIS_FILE"
        return "".join(c if c.isprintable() else " " for c in comment) + "\n" + tomli_w.dumps(given)


def available_processors() -> int:
    """Count the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def as_text(argument: str) -> str:
    """Read an argument as UTF-8 also where the locale knows ASCII only, and Python holds other bytes as surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", "backslashreplace")
    return argument


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return as_text(str(value))
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value

"""Group strategies on the maps of sessions: estimates, how they agree, which to trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sessionfx.api.images import ImageMapping, StatImages
from sessionfx.api.maps import SessionMaps
from sessionfx.api.sources import read_options, within, without_folder
from sessionfx.ask.session_contrasts import MEAN
from sessionfx.errors import CommandLineError, LevelError
from sessionfx.execution import LocalExecutor, available_processors
from sessionfx.group.calibrated import rates_of
from sessionfx.group.files import agreement_table, answer_summary
from sessionfx.group.findings import ContrastFindings
from sessionfx.group.results import QuestionResults
from sessionfx.group.strategies.base import INTERCEPT
from sessionfx.group.study import GroupAnalysis, contrast_study
from sessionfx.options import Execution, FirstLevelModel, GroupModel
from sessionfx.tasks.call import asked_of_sessions


class StrategyEstimates(ImageMapping):
    """What strategies estimate for one session contrast, by their names on the command line.

    Strategies that decline are not among them.

    Attributes
    ----------
    table : DataFrame
        One row per strategy: `strategy`, `status`, `n_participants`, `n_maps`, `dof`, `n_voxels`, `threshold` on |z|
        (on z for F), `n_above`, the largest and smallest z and where (mm), and `reason` where it declines.
    refusals : dict of str to str
        Why strategies decline.
    units : str
        Of the effects.
    left_out : dict of str to str
        Participants who do not enter, and why.
    warnings : tuple of str
        What a reader should know of maps and covariates.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(label, session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in ("01", "02", "03", "04") for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> estimates = sessionfx.estimate(maps, "mean")
    >>> {images.effect.shape for images in estimates.values()}, estimates.refusals
    ({(3, 3, 3)}, {})
    """

    def __init__(self, maps: SessionMaps, found: ContrastFindings) -> None:
        self._maps, self._found = maps, found
        self._answers: QuestionResults
        (self._answers,) = found.questions
        self.units = self._answers.question.units
        self._images = {answer.name: StatImages(answer.stat_map, self.units) for answer in self._answers.answers}
        rows = [answer_summary(answer, self._answers.verdict) for answer in self._answers.strategies]
        self.table = pd.DataFrame(rows).drop(columns="valid")
        self.refusals = {answer.name: answer.refusal for answer in self._answers.strategies if answer.refusal}
        self.left_out = found.study.left_out
        warnings = (*maps.warnings, *found.warnings, *found.study.covariates.warnings)
        self.warnings = tuple(without_folder(warning, Path(maps._folder.name)) for warning in warnings)

    def __repr__(self) -> str:
        return f"StrategyEstimates of {self._answers.question.text} by {', '.join(self._images)}"


def estimate(
    maps: SessionMaps,
    session_contrast: str = MEAN,
    *,
    strategy: str | Sequence[str] = GroupModel.strategy,
    covariates: Sequence[str] = GroupModel.covariates,
    session_covariates: Sequence[str] = GroupModel.session_covariates,
    group_contrast: str = INTERCEPT.text,
    fixed_effects: str = FirstLevelModel.fixed_effects,
    subject_effect: str = GroupModel.subject_effect,
    mixed_dof: str = GroupModel.mixed_dof,
    variance: str = GroupModel.variance,
    session_covariate_effect: str = GroupModel.session_covariate_effect,
    robust: str = GroupModel.robust,
    alpha: float = GroupModel.alpha,
    correction: str = GroupModel.correction,
) -> StrategyEstimates:
    """Estimate a session contrast by group strategies, all on the same voxels.

    Each argument but the first is the option of the same name on the command line (docs/usage.md).

    Parameters
    ----------
    maps : SessionMaps
    session_contrast : str, default='mean'
        `mean`, `linear`, `any`, `ses-02 - ses-01`, `linear(days)`.
    strategy : str or sequence of str, optional
        The default ones if none is named.
    covariates, session_covariates : sequence of str, optional
        Columns of the table of maps, or of participants.tsv and sub-XX_sessions.tsv in `bids_dir`.
    group_contrast : str, default='intercept'
        `age`, `patient - control`.
    fixed_effects, subject_effect, mixed_dof, variance, session_covariate_effect, robust : str
    alpha : float
        Error rate of the threshold.
    correction : str
        For many voxels.

    Returns
    -------
    StrategyEstimates

    Raises
    ------
    SessionFXError
        If a session or covariate does not exist, or no strategy can answer.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(label, session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in ("01", "02", "03", "04") for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> estimates = sessionfx.estimate(maps, "ses-2 - ses-1")
    >>> estimates.table[["n_participants", "n_maps", "n_voxels"]].iloc[0].to_list()
    [4, 8, 27]
    """
    folder = Path(maps._folder.name)
    strategy = [strategy] if isinstance(strategy, str) else strategy
    model = GroupModel(
        **read_options(
            session_contrast=[session_contrast], strategy=strategy, covariates=covariates,
            session_covariates=session_covariates, group_contrast=[group_contrast], subject_effect=subject_effect,
            mixed_dof=mixed_dof, variance=variance, session_covariate_effect=session_covariate_effect,
            robust=robust, alpha=alpha, correction=correction,
        )
    )  # fmt: skip
    weighting = FirstLevelModel(**read_options(fixed_effects=fixed_effects)).fixed_effects
    with within(folder):
        analysis = GroupAnalysis(
            model=model,
            weighting=weighting,
            execution=Execution(),
            selection=maps._selection,
            session_contrasts=tuple(asked_of_sessions(model, maps._selection)),
            raw=maps._raw,
            output_dir=folder / "output",  # where nothing is written
            links={},
            executor=LocalExecutor(available_processors(), 1),
        )
        if maps.table["participant"].nunique() < 2:
            raise LevelError("The group level needs at least two participants, and there are maps of one only.")
        (contrast,) = maps._selection.maps
        study = contrast_study(contrast, analysis)
        return StrategyEstimates(maps, ContrastFindings(study, maps._stack(study)))


def compare(estimates: StrategyEstimates) -> pd.DataFrame:
    """Compare the z maps of every two strategies.

    Parameters
    ----------
    estimates : StrategyEstimates

    Returns
    -------
    DataFrame
        One row per pair: `strategy_a`, `strategy_b`, `status` (`compared` or `declined`), the correlation `pearson_r`,
        Lin's `concordance`, the mean difference `bias` with its limits of agreement `loa_lower` and `loa_upper`,
        `max_abs_difference`, the overlap `dice` of suprathreshold voxels, and how many there are.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(label, session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in ("01", "02", "03", "04") for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> table = sessionfx.compare(sessionfx.estimate(maps))
    >>> len(table), bool((table["pearson_r"] > 0.5).all())
    (6, True)
    """
    return agreement_table(estimates._answers.pairs)


@dataclass(frozen=True)
class Verdict:
    """Which strategies to trust.

    Attributes
    ----------
    text : str
        What to report and why, in sentences.
    recommended : tuple of str
        Strategies to report, the first choice first; empty where none can be trusted.
    table : DataFrame
        One row per strategy: `strategy`, `valid` (`yes`, `conditional`, `no` or `declined`), `recommended` (its place)
        and `reason`.
    facts : dict
        What of design and data it rests on.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(f"{label:02d}", session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in range(12) for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> verdict = sessionfx.judge(sessionfx.estimate(maps))
    >>> verdict.text.startswith("Report "), verdict.facts["NumberOfParticipants"]
    (True, 12)
    """

    text: str
    recommended: tuple[str, ...]
    table: pd.DataFrame
    facts: dict[str, object]


def judge(estimates: StrategyEstimates, calibration: pd.DataFrame | None = None) -> Verdict:
    """Say which strategies to trust for a session contrast, from the design and the data.

    Parameters
    ----------
    estimates : StrategyEstimates
    calibration : DataFrame, optional
        From `calibrate` of the same estimates: no strategy gains by it, but one that finds too much loses.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(f"{label:02d}", session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in range(12) for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> estimates = sessionfx.estimate(maps)
    >>> verdict = sessionfx.judge(estimates)
    >>> estimates[verdict.recommended[0]]
    StatImages of effect, variance, t, z, p, dof at 27 voxels
    """
    answers = estimates._answers
    verdict = answers.verdict
    if calibration is not None:
        rates = rates_of(calibration, answers.question.label)
        verdict = estimates._found.judged_with(rates, answers.question).verdict
    rows = [(name, found.valid, verdict.place(name), found.reason) for name, found in verdict.strategies.items()]
    table = pd.DataFrame(rows, columns=["strategy", "valid", "recommended", "reason"]).astype({"recommended": "Int64"})
    return Verdict(verdict.text, verdict.recommended, table, verdict.facts)


def calibrate(estimates: StrategyEstimates, *, n_voxels: int = 2000, random_seed: int = 0) -> pd.DataFrame:
    """Find false-positive rates and power of strategies on the design of a study, as `--calibrate` does.

    Null voxels are drawn from the study's own maps.

    Parameters
    ----------
    estimates : StrategyEstimates
        Whose session contrast, covariates and strategies are taken.
    n_voxels : int, default=2000
        Simulated voxels.
    random_seed : int, default=0
        Equal seeds give equal tables.

    Returns
    -------
    DataFrame
        One row per strategy: `strategy`, `status`, `reason` where it declines, `test`, `dof`, `effect` (the true one,
        for which power is found), for p ≤ .05 and ≤ .001 the false-positive rate with its 95 % interval (`rate_0.05`,
        `rate_0.05_lower`, `rate_0.05_upper`) and `power_0.05`.

    Raises
    ------
    SessionFXError
        If the maps do not vary.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(f"{label:02d}", session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in range(12) for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    >>> table = sessionfx.calibrate(sessionfx.estimate(maps), n_voxels=500)
    >>> bool((table["rate_0.05_lower"] < 0.05).all())
    True
    """
    asked = read_options(calibrate=n_voxels, random_seed=random_seed)
    if not asked["calibrate"]:
        raise CommandLineError("n_voxels must be 1 or more.")
    with within(Path(estimates._maps._folder.name)):
        return estimates._found.calibrate(asked["calibrate"], asked["random_seed"])

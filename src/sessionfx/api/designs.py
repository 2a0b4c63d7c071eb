"""Power of a design before any data: how many participants and sessions are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import CommandLineError
from sessionfx.group.calibration import calibrate
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question
from sessionfx.statistics.participant_blocks import ParticipantBlocks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DESIGN = ["participants", "sessions", "icc", "missing", "dropout"]
_FOUND = ["effect", "power_0.05", "power_0.001", "rate_0.05", "rate_0.05_lower", "rate_0.05_upper", "reason"]


@dataclass(frozen=True)
class _Maps:
    """Simulated maps of shape (N, V) in which there is no effect at all."""

    maps: NDArray[np.float64]

    def null_maps(self, question: Question, voxels: slice = slice(None)) -> NDArray[np.float64]:
        return self.maps[:, voxels].copy()


@dataclass(frozen=True)
class _Noise:
    """Normal maps; (n, S) who attends which session, (S, S) the covariance of a participant's maps."""

    attends: NDArray[np.bool_]
    covariance: NDArray[np.float64]

    def draw(self, n_voxels: int, rng: np.random.Generator) -> _Maps:
        draws = rng.standard_normal((*self.attends.shape, n_voxels))
        return _Maps(np.asarray((np.linalg.cholesky(self.covariance) @ draws)[np.nonzero(self.attends)]))

    def covariance_of_maps(self) -> ParticipantBlocks:
        owners, places = np.nonzero(self.attends)
        return ParticipantBlocks.of_sessions(owners, places, self.covariance)


def power(
    participants: int | Sequence[int],
    sessions: int | Sequence[int],
    *,
    effect: float | None = None,
    icc: float = 0.5,
    session_sd: Sequence[float] = (),
    missing: float = 0.0,
    dropout: float = 0.0,
    contrasts: Sequence[str] = ("mean",),
    n_voxels: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Find the power of each strategy on designs, by simulation.

    Every combination of `participants` and `sessions` is one design: one group without covariates, normal maps that
    are equally correlated within participants.

    Parameters
    ----------
    participants, sessions : int or sequence of int
        How many there are; at least two participants.
    effect : float, optional
        True session contrast, in the units of `session_sd`: with the default, standard deviations of a map over
        participants. For `any` the change from first to last session. Without it three standard errors of the
        summary-statistics estimate, whatever the design, as in docs/validity.md.
    icc : float, default=0.5
        Correlation of two maps of a participant, from 0 to below 1.
    session_sd : sequence of float, default=()
        Standard deviation over participants of the maps of each session; empty for 1.
    missing : float, default=0
        Share of maps that are missing at random. Every participant has one at least.
    dropout : float, default=0
        Share of participants who leave, in turn before the second session, the third, and so on; instead of `missing`.
    contrasts : sequence of str, default=('mean',)
        Session contrasts as on the command line: `mean`, `linear`, `any`, `ses-03 - ses-01`.
    n_voxels : int, default=2000
        Simulated studies; the standard error of a power is 0.011 at most with 2000.
    seed : int, default=0
        Equal seeds give equal tables.

    Returns
    -------
    DataFrame
        One row for each design, contrast and strategy: `participants`, `sessions`, `icc`, `missing`, `dropout`,
        `contrast`, `strategy`, `effect`, shares of studies with p ≤ .05 and ≤ .001 (`power_0.05`, `power_0.001`), the
        false-positive rate `rate_0.05` with its 95 % interval, and `reason` where a strategy declines. Power of a
        strategy that finds too much where nothing is, is bought.

    Raises
    ------
    CommandLineError
        If a value cannot be used; the message is one paragraph.

    Examples
    --------
    >>> import sessionfx
    >>> table = sessionfx.power([10, 40], 3, effect=0.5, n_voxels=500)
    >>> table.groupby("participants")["power_0.05"].median().round(1).to_list()
    [0.4, 1.0]
    """
    tables = []
    for n, k in product(np.atleast_1d(participants).tolist(), np.atleast_1d(sessions).tolist()):
        _check(n, k, icc=icc, session_sd=session_sd, missing=missing, dropout=dropout, n_voxels=n_voxels,
               effect=effect, seed=seed)  # fmt: skip
        attends = _leaving(n, k, dropout) if dropout else _attends(n, k, missing, seed)
        sd = np.array(list(session_sd) or [1.0] * k)
        noise = _Noise(attends, (icc + (1 - icc) * np.eye(k)) * np.outer(sd, sd))
        labels = tuple(f"{index + 1:02d}" for index in range(k))
        owners, places = np.nonzero(attends)
        layout = MapLayout(tuple(f"{owner + 1:03d}" for owner in owners), tuple(labels[place] for place in places))
        questions = [Question(contrast, INTERCEPT) for contrast in resolve_session_contrasts(contrasts, labels)]
        strategies = {name: strategy for name, strategy in STRATEGIES.items() if strategy.is_default}
        found = calibrate(
            layout, questions, strategies, GroupOptions(), noise, n_voxels=n_voxels, seed=seed, size=effect
        )  # fmt: skip
        design = {"participants": n, "sessions": k, "icc": icc, "missing": missing, "dropout": dropout}
        tables.append(found.assign(**design, contrast=found["question"]))
    return pd.concat(tables, ignore_index=True)[[*_DESIGN, "contrast", "strategy", *_FOUND]]


def draw_power(table: pd.DataFrame, path: str | Path | None = None) -> Figure:
    """Draw power at p ≤ .05 by number of participants, a line for each strategy.

    A line is dashed where the strategy's false-positive rate is above 5 % by more than chance, on one of its designs
    at least: by 3.3 standard errors, as 1 design in 2,000 has by chance. Lines of equal strategies lie in each other.

    Parameters
    ----------
    table : DataFrame
        From `power`.
    path : str or Path, optional
        A file to keep it in; its suffix says the format: SVG, PNG or PDF.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> import sessionfx, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> table = sessionfx.power([10, 20], 2, effect=0.5, n_voxels=200)
    >>> figure = sessionfx.draw_power(table, folder / "power.svg")
    >>> (folder / "power.svg").stat().st_size > 0
    True
    """
    from sessionfx.report.charts import power_figure  # with what draws; the command may not draw

    # the half of a 95 % interval is 1.96 standard errors
    standard_errors = (table["rate_0.05"] - table["rate_0.05_lower"]) / 1.96
    return power_figure(table.assign(finds_too_much=table["rate_0.05"] - 0.05 > 3.3 * standard_errors), path)


def _check(
    n: int,
    k: int,
    *,
    icc: float,
    session_sd: Sequence[float],
    missing: float,
    dropout: float,
    n_voxels: int,
    effect: float | None,
    seed: int,
) -> None:
    """Refuse what no design has."""
    refused = {
        f"participants must be whole numbers from 2 on; got {n}": n < 2 or n != int(n),
        f"sessions must be whole numbers from 1 on; got {k}": k < 1 or k != int(k),
        f"icc must be from 0 to below 1; got {icc}": not 0 <= icc < 1,
        f"session-sd needs {k} positive numbers, one for each session; got {list(session_sd)}": len(session_sd) > 0
        and (len(session_sd) != k or not all(0 < value < np.inf for value in session_sd)),
        f"missing must be a share from 0 to {1 - 1 / max(k, 1):.2g}, so that everyone has a map; got {missing}": not (
            missing >= 0 and round(missing * n * k) <= n * (k - 1)
        ),
        f"dropout must be a share from 0 to 1 and needs two sessions; got {dropout}": not 0 <= dropout <= 1
        or (dropout > 0 and k < 2),
        "missing and dropout cannot be asked for together": missing > 0 and dropout > 0,
        f"voxels must be 1 or more; got {n_voxels}": n_voxels < 1,
        f"effect must be a finite number; got {effect}": effect is not None and not np.isfinite(effect),
        f"seed must not be negative; got {seed}": seed < 0,
    }
    for sentence, applies in refused.items():
        if applies:
            raise CommandLineError(f"{sentence}.")


def _attends(n: int, k: int, missing: float, seed: int) -> NDArray[np.bool_]:
    """Say who has which session, of shape (n, k): one is kept of everyone, the others are missing at random."""
    rng = np.random.default_rng([seed, n, k])
    attends = np.ones((n, k), dtype=bool)
    kept = rng.integers(k, size=n)
    others = np.flatnonzero(np.arange(k) != kept[:, None])
    attends.ravel()[rng.permutation(others)[: round(missing * n * k)]] = False
    return attends


def _leaving(n: int, k: int, share: float) -> NDArray[np.bool_]:
    """Say who has which session, of shape (n, k), where some leave: the first before the second session."""
    attends = np.ones((n, k), dtype=bool)
    for participant in range(round(share * n)):
        attends[participant, 1 + participant % (k - 1) :] = False
    return attends

"""What calibrated false-positive rates mean for the judgement of strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pandas as pd

from sessionfx.group.calibration import ESTIMATED
from sessionfx.group.judgement import Judgement

# Rates and the bounds of their intervals, by strategy and by the name of the column
Rates: TypeAlias = Mapping[str, Mapping[str, float]]

# Nominal rates and what a valid answer may have; a rate is above where its interval is
LIMITS = {0.05: 0.058, 0.001: 0.002}
# At a nominal 5 %: twice as many as claimed, and more, is no answer to report even with care
NOT_TO_BE_TRUSTED = 0.10


def rates_of(table: pd.DataFrame | None, label: str) -> dict[str, dict[str, float]]:
    """Choose the columns `rate_…` of a question's strategies from the table of `calibration.calibrate`, if any."""
    if table is None:
        return {}
    own = table[(table["label"] == label) & (table["status"] == ESTIMATED)].set_index("strategy")
    rates = own[[column for column in own.columns if str(column).startswith("rate_")]]
    return {str(name): {str(key): float(value) for key, value in row.items()} for name, row in rates.iterrows()}


def with_rates(judgements: Mapping[str, Judgement], rates: Rates) -> dict[str, Judgement]:
    """Take calibrated rates (see `rates_of`) into the judgement of strategies: none gains by them.

    A strategy whose rate is above a limit, by more than the error of the simulation, is `conditional`, or `no` where it
    is twice the nominal 5 %.
    """
    return {name: _with_rate(judgement, rates.get(name, {})) for name, judgement in judgements.items()}


def _with_rate(judgement: Judgement, rates: Mapping[str, float]) -> Judgement:
    above = _inflation(rates)
    if not above or judgement.valid not in ("yes", "conditional"):
        return judgement
    valid = "no" if rates["rate_0.05_lower"] > NOT_TO_BE_TRUSTED else "conditional"
    alpha = next(iter(above))
    found = (
        f"in data resampled from this study it finds something in {_share(rates[f'rate_{alpha:g}'], alpha)} of null "
        f"voxels at a nominal {_share(alpha, alpha)}."
    )
    # the reason of a valid answer speaks for it, and would contradict this
    return Judgement(valid, found if judgement.valid == "yes" else f"{judgement.reason} Besides, {found}")


def _inflation(rates: Mapping[str, float]) -> dict[float, float]:
    """Find the nominal rates whose limits are exceeded, and how many times as much as is nominal is found."""
    return {alpha: rates[f"rate_{alpha:g}"] / alpha for alpha, limit in LIMITS.items()
            if rates.get(f"rate_{alpha:g}_lower", 0.0) > limit}  # fmt: skip


def _share(value: float, alpha: float) -> str:
    """Write small shares per thousand, as nominal rates are."""
    times, unit = (100, "%") if alpha >= 0.01 else (1000, "‰")
    return f"{times * value:.1f}".removesuffix(".0") + f" {unit}"


def least_inflated(names: Sequence[str], rates: Rates) -> list[str]:
    """Order strategies by how far their rates exceed the limits; those that do not stay in order, before the others.

    Where there are rates, a strategy that was not simulated comes last: it may be worse than those that were.
    """
    unknown = float("inf") if rates else 0.0
    return sorted(
        names, key=lambda name: max(_inflation(rates[name]).values(), default=0.0) if name in rates else unknown
    )


def nominal_rates(rates: Rates) -> dict[str, dict[str, float]]:
    """Rates alone, by strategy and nominal rate, for the facts of a verdict."""
    return {name: {f"{alpha:g}": found[f"rate_{alpha:g}"] for alpha in LIMITS} for name, found in rates.items()}

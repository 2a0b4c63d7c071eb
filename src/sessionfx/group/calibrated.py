"""What calibrated false-positive rates mean for the judgement of strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from sessionfx.group.calibration import ESTIMATED
from sessionfx.group.results import Judgement

# Rates and the bounds of their intervals, by strategy and by the name of the column
Rates: TypeAlias = Mapping[str, Mapping[str, float]]

# Nominal rates and what a valid answer may have; a rate is above where its interval is
LIMITS = {0.05: 0.058, 0.001: 0.002}
# At a nominal 5 %: twice as many as claimed, and more, is no answer to report even with care
NOT_TO_BE_TRUSTED = 0.10


def rates_of(table: pd.DataFrame | None, label: str) -> dict[str, dict[str, float]]:
    """Choose the rates of a question's strategies from the table of a calibration.

    Parameters
    ----------
    table : DataFrame or None
        Of `calibration.calibrate`.
    label : str
        Of the question.

    Returns
    -------
    dict of str to (dict of str to float)
        Columns `rate_…` of every strategy that was simulated.
    """
    if table is None:
        return {}
    own = table[(table["label"] == label) & (table["status"] == ESTIMATED)].set_index("strategy")
    rates = own[[column for column in own.columns if str(column).startswith("rate_")]]
    return {str(name): {str(key): float(value) for key, value in row.items()} for name, row in rates.iterrows()}


def with_rates(judgements: Mapping[str, Judgement], rates: Rates) -> dict[str, Judgement]:
    """Take calibrated rates into the judgement of strategies: none gains by them.

    Parameters
    ----------
    judgements : dict of str to Judgement
        From the design and the data.
    rates : dict of str to (dict of str to float)
        See `rates_of`.

    Returns
    -------
    dict of str to Judgement
        A strategy whose rate is above a limit, by more than the error of the simulation, is `conditional`, or `no`
        where it is twice the nominal 5 %.
    """
    return {name: _with_rate(judgement, rates.get(name, {})) for name, judgement in judgements.items()}


def _with_rate(judgement: Judgement, rates: Mapping[str, float]) -> Judgement:
    above = [alpha for alpha, limit in LIMITS.items() if rates.get(f"rate_{alpha:g}_lower", 0.0) > limit]
    if not above or judgement.valid not in ("yes", "conditional"):
        return judgement
    valid = "no" if rates.get("rate_0.05_lower", 0.0) > NOT_TO_BE_TRUSTED else "conditional"
    alpha = above[0]
    found = (
        f"in data resampled from this study it finds something in {_share(rates[f'rate_{alpha:g}'], alpha)} of null "
        f"voxels at a nominal {_share(alpha, alpha)}."
    )
    # a sentence of a judgement that is valid speaks for it, and would contradict this one
    reason = found if judgement.valid == "yes" else f"{judgement.reason} Besides, {found}"
    return Judgement(valid, reason)


def _share(value: float, alpha: float) -> str:
    """Write small shares per thousand, as nominal rates are."""
    return f"{100 * value:.3g} %" if alpha >= 0.01 else f"{1000 * value:.2g} ‰"


def least_inflated(names: Sequence[str], rates: Rates) -> list[str]:
    """Order strategies by their rate at a nominal 5 %, those without one last; ties stay in order."""
    return sorted(names, key=lambda name: rates.get(name, {}).get("rate_0.05", np.inf))

"""Intervals of sessions: mvtnorm's quantiles, clubSandwich's errors (tests/data/intervals)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sessionfx.statistics.intervals import largest_t_quantile, session_intervals

R_TABLES = Path(__file__).parents[1] / "data" / "intervals"
ANSWERS = pd.read_csv(R_TABLES / "answers.tsv", sep="\t")
QUANTILES = ANSWERS[ANSWERS["data"] == "quantile"]


@pytest.fixture(scope="module")
def maps() -> pd.DataFrame:
    return pd.read_csv(R_TABLES / "maps.tsv", sep="\t", dtype={"participant": str, "session": str})


def correlation(kind: str, n: int) -> np.ndarray:
    if kind == "neighbours":
        return np.eye(n) - 0.45 * (np.abs(np.subtract.outer(np.arange(n), np.arange(n))) == 1)
    return np.eye(n) + float(kind) * (1 - np.eye(n))


@pytest.mark.parametrize(
    "row", list(QUANTILES.itertuples()), ids=lambda row: f"{row.question}, {row.session} sessions, {row.dof}"
)
def test_the_quantile_of_the_largest_t_is_that_of_mvtnorm(row) -> None:
    assert largest_t_quantile(correlation(row.question, row.session), row.dof) == pytest.approx(row.quantile, abs=1e-3)


@pytest.mark.parametrize(
    ("data", "question"), [("complete", "intercept"), ("missing", "intercept"), ("missing", "age")]
)
def test_sessions_have_the_estimates_and_errors_of_r(data: str, question: str, maps: pd.DataFrame) -> None:
    there = maps if data == "complete" else maps[maps["there"] == 1]
    effects = there.pivot_table(index="participant", columns="session", values="effect").to_numpy()
    age = maps.groupby("participant")["age"].first().to_numpy()
    between = None if data == "complete" else np.column_stack([np.ones(len(age)), age - age.mean()])
    found = session_intervals(effects, between, np.array([0.0, 1.0]) if question == "age" else None)
    expected = ANSWERS[(ANSWERS["data"] == data) & (ANSWERS["question"] == question)]
    for own, name in ((found.effect, "estimate"), (found.error, "se"), (found.dof, "dof")):
        np.testing.assert_allclose(own, expected[name], rtol=1e-8, err_msg=name)
    half = stats.t.isf(0.025, expected["dof"]) * expected["se"]
    np.testing.assert_allclose(found.of_each[:, 1] - found.effect, half, rtol=1e-8)
    # R's is for whole degrees of freedom: the next smaller number
    quantile = (found.of_all[:, 1] - found.effect) / found.error
    np.testing.assert_allclose(quantile, quantile[0])
    smallest = found.dof.min()
    assert quantile[0] <= expected["quantile"].iloc[0] + 1e-3
    if smallest == np.floor(smallest):
        assert quantile[0] == pytest.approx(expected["quantile"].iloc[0], abs=1e-3)

"""F tests over participants, sessions and both: the answers of R (tests/data/f_tests)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import Study
from r_scripts import assert_r_gives_the_stored_answers
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.group.strategies.marginal import MarginalPlan
from sessionfx.statistics.cluster_robust import wald_robust
from sessionfx.statistics.estimates import FTest

R_TABLES = Path(__file__).parents[1] / "data" / "f_tests"
VOXELS = range(1, 7)
SESSIONS = {"mean": "mean", "difference": "ses-03 - ses-01", "any": "any"}
GROUPS = {
    "intercept": "intercept",
    "groups": "F:groups = a - b; b - c",
    "groups and age": "F:everything = a - b; b - c; age",
    "slopes": "F:slopes = a:age - b:age; b:age - c:age",
}
AGE = "group + age"
OVER_PARTICIPANTS = [(s, g) for g in ("groups", "groups and age") for s in SESSIONS]
MARGINAL = [(s, g) for s, g in [("any", "intercept"), *OVER_PARTICIPANTS] if g != "groups and age"]
MARGINAL_WITH_AGE = [("any", "intercept"), *OVER_PARTICIPANTS]


@cache
def answers_of_r() -> pd.DataFrame:
    return pd.read_csv(R_TABLES / "answers.tsv", sep="\t")


def answer_of_r(method: str, model: str, sessions: str, group: str, maps: str = "x") -> pd.DataFrame:
    table = answers_of_r().set_index(["method", "model", "maps", "sessions", "group"]).sort_index()
    chosen = table.loc[(method, model, maps, sessions, group)]
    assert chosen["voxel"].tolist() == list(VOXELS)
    return chosen


@cache
def study(model: str) -> tuple[Study, NDArray[np.float64]]:
    table = pd.read_csv(R_TABLES / "maps.tsv", sep="\t", dtype={"participant": str, "session": str})
    people = table.drop_duplicates("participant")
    there = table["there"].to_numpy() == 1
    covariates: dict[str, list[float] | list[str]] = {"group": people["group"].tolist()}
    if model != "group":
        covariates["age"] = people["age"].astype(float).tolist()
    made = Study(
        there.reshape(len(people), -1), covariates, interactions=(("group", "age"),) if model == "group * age" else ()
    )
    return made, table.loc[there, [f"x{voxel}" for voxel in VOXELS]].to_numpy()


def assert_are(found: object, expected: pd.DataFrame) -> None:
    assert isinstance(found, FTest)
    np.testing.assert_allclose(found.f, expected["f"], rtol=1e-9)
    np.testing.assert_allclose(np.broadcast_to(found.dof_numerator, len(VOXELS)), expected["numerator"], rtol=1e-10)
    np.testing.assert_allclose(np.broadcast_to(found.dof, len(VOXELS)), expected["dof"], rtol=1e-9)
    np.testing.assert_allclose(found.p, expected["p"], rtol=1e-8)


@pytest.mark.parametrize(
    ("method", "model", "group", "variance"),
    [
        ("oneway.test, equal", "group", "groups", "pooled"),
        ("oneway.test", "group", "groups", "auto"),
        ("Anova", AGE, "groups", "pooled"),
        ("anova", AGE, "groups and age", "pooled"),
        ("Anova", "group * age", "slopes", "pooled"),
        ("oneway.test", "group * age", "slopes", "auto"),
    ],
)
@pytest.mark.parametrize("sessions", ["mean", "difference"])
def test_values_of_participants_have_the_analyses_of_variance_of_r(
    sessions: str, method: str, model: str, group: str, variance: str
) -> None:
    made, maps = study(model)
    question = made.question(SESSIONS[sessions], GROUPS[group])
    _, found = made.answer("summary-statistics", question, maps, variance=variance)
    assert_are(found, answer_of_r(method, model, sessions, group))


def test_hotellings_test_is_the_multivariate_test_of_car() -> None:
    made, maps = study(AGE)
    _, found = made.answer("summary-statistics", made.question("any"), maps, variance="pooled")
    assert_are(found, answer_of_r("Pillai", AGE, "any", "intercept"))


def test_two_groups_with_a_covariance_each_are_compared_as_krishnamoorthy_and_yu_do() -> None:
    made, maps = study("group")
    _, found = made.answer("summary-statistics", made.question("any", "a - b"), maps)
    assert_are(found, answer_of_r("Krishnamoorthy & Yu", "group", "any", "a - b"))


@pytest.mark.many
@pytest.mark.parametrize(("sessions", "group"), MARGINAL_WITH_AGE)
def test_wald_test_of_least_squares_is_clubsandwichs(sessions: str, group: str) -> None:
    made, maps = study(AGE)
    plan = STRATEGIES["marginal"].plan(made.layout, made.question(SESSIONS[sessions], GROUPS[group]), GroupOptions())
    assert isinstance(plan, MarginalPlan)
    prepared = plan.with_ratio(0.0).prepared
    assert prepared is not None
    # with the degrees of freedom of the design, as there
    assert_are(
        wald_robust(replace(prepared, spread=None), maps), answer_of_r("HTZ, least squares", AGE, sessions, group)
    )


@pytest.mark.many
@pytest.mark.parametrize(("method", "variance"), [("marginal, pooled", "pooled"), ("marginal, groups", "auto")])
@pytest.mark.parametrize(
    ("model", "sessions", "group"),
    [("group", s, g) for s, g in MARGINAL] + [(AGE, s, g) for s, g in MARGINAL_WITH_AGE],
)
def test_marginal_is_clubsandwich_on_whitened_maps(
    model: str, sessions: str, group: str, method: str, variance: str
) -> None:
    """Working covariances from the maps, and degrees of freedom of each voxel, included."""
    made, maps = study(model)
    question = made.question(SESSIONS[sessions], GROUPS[group])
    _, found = made.answer("marginal", question, maps, variance=variance)
    assert_are(found, answer_of_r(method, model, sessions, group))


@pytest.mark.slow
def test_r_gives_the_stored_answers(tmp_path: Path) -> None:
    assert_r_gives_the_stored_answers(R_TABLES, tmp_path, rtol=1e-7)

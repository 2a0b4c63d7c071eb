"""F tests over participants, sessions, conditions, and these together: the answers of R (tests/data/f_tests)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import Study
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.marginal import MarginalPlan, WorkingCovariance
from sessionfx.statistics.cluster_robust import wald_robust
from sessionfx.statistics.estimates import FTest

R_TABLES = Path(__file__).parents[1] / "data" / "f_tests"
VOXELS = range(1, 7)
BOTH = "x and y"  # two first-level contrasts, tested together
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
LEAST_SQUARES = [
    *(pytest.param("x", s, g, marks=pytest.mark.many) for s, g in MARGINAL_WITH_AGE),
    *(
        pytest.param(BOTH, s, g, marks=pytest.mark.slow)
        for g in ("intercept", "groups", "groups and age")
        for s in SESSIONS
    ),
]


@cache
def answers_of_r() -> pd.DataFrame:
    return pd.read_csv(R_TABLES / "answers.tsv", sep="\t")


def answer_of_r(method: str, model: str, sessions: str, group: str, maps: str = "x") -> pd.DataFrame:
    table = answers_of_r().set_index(["method", "model", "maps", "sessions", "group"]).sort_index()
    chosen = table.loc[(method, model, maps, sessions, group)]
    assert chosen["voxel"].tolist() == list(VOXELS)
    return chosen


@cache
def study(model: str, maps: str = "x") -> tuple[Study, NDArray[np.float64]]:
    """Make the study, and its maps of shape (N, V); of two contrasts (2 N, V), contrast by contrast."""
    table = pd.read_csv(R_TABLES / "maps.tsv", sep="\t", dtype={"participant": str, "session": str})
    made, there = Study.of_table(
        table, ("group",) if model == "group" else ("group", "age"),
        interactions=(("group", "age"),) if model == "group * age" else (),
    )  # fmt: skip
    columns = [[f"{contrast}{voxel}" for voxel in VOXELS] for contrast in maps.split(" and ")]
    return made, np.concatenate([table.loc[there, of_contrast].to_numpy() for of_contrast in columns])


def asked(made: Study, sessions: str, group: str, maps: str = "x") -> Question:
    question = made.question(SESSIONS[sessions], GROUPS.get(group, group))
    return replace(question, tested=("x", "y")) if maps == BOTH else question


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
    _, found = made.answer("summary-statistics", asked(made, sessions, group), maps, variance=variance)
    assert_are(found, answer_of_r(method, model, sessions, group))


VECTORS = [("x", "any"), *((BOTH, sessions) for sessions in SESSIONS)]


@pytest.mark.parametrize(("of", "sessions"), VECTORS)
def test_hotellings_test_is_the_multivariate_test_of_car(of: str, sessions: str) -> None:
    """Of `any` over conditions: does any session differ in any condition, however all these differences correlate."""
    made, maps = study(AGE, of)
    _, found = made.answer("summary-statistics", asked(made, sessions, "intercept", of), maps, variance="pooled")
    assert_are(found, answer_of_r("Pillai", AGE, sessions, "intercept", of))


@pytest.mark.parametrize(("of", "sessions"), VECTORS)
def test_two_groups_with_a_covariance_each_are_compared_as_krishnamoorthy_and_yu_do(of: str, sessions: str) -> None:
    made, maps = study("group", of)
    _, found = made.answer("summary-statistics", asked(made, sessions, "a - b", of), maps)
    assert_are(found, answer_of_r("Krishnamoorthy & Yu", "group", sessions, "a - b", of))


@pytest.mark.parametrize(("of", "sessions", "group"), LEAST_SQUARES)
def test_wald_test_of_least_squares_is_clubsandwichs(of: str, sessions: str, group: str) -> None:
    made, maps = study(AGE, of)
    plan = STRATEGIES["marginal"].plan(made.layout, asked(made, sessions, group, of), GroupOptions())
    assert isinstance(plan, MarginalPlan)
    prepared = plan.with_working(WorkingCovariance(0.0)).prepared
    assert prepared is not None
    # with the degrees of freedom of the design, as there
    expected = answer_of_r("HTZ, least squares", AGE, sessions, group, of)
    assert_are(wald_robust(replace(prepared, spread=None), maps), expected)


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
    _, found = made.answer("marginal", asked(made, sessions, group), maps, variance=variance)
    assert_are(found, answer_of_r(method, model, sessions, group))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "variance"), [("marginal, pooled", "pooled"), ("marginal, groups", "auto")])
@pytest.mark.parametrize("group", ["intercept", "groups"])
@pytest.mark.parametrize("sessions", SESSIONS)
def test_marginal_over_conditions_and_sessions_together_is_that_of_r(
    sessions: str, group: str, method: str, variance: str
) -> None:
    made, maps = study(AGE, BOTH)
    _, found = made.answer("marginal", asked(made, sessions, group, BOTH), maps, variance=variance)
    assert isinstance(found, FTest)
    expected = answer_of_r(method, AGE, sessions, group, BOTH)
    np.testing.assert_allclose(found.f, expected["f"], rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found.dof, len(expected)), expected["dof"], rtol=1e-6)

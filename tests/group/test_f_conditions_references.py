"""F tests over conditions: answers of R for two contrasts (tests/data/f_tests), beside those in `test_f_references`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from test_f_references import AGE, GROUPS, R_TABLES, SESSIONS, VOXELS, answer_of_r, assert_are, study

from array_study import Study
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.marginal import MarginalPlan
from sessionfx.statistics.cluster_robust import wald_robust
from sessionfx.statistics.estimates import FTest

BOTH = "x and y"


@cache
def both(model: str) -> tuple[Study, NDArray[np.float64]]:
    """Maps of shape (2 N, V), contrast by contrast."""
    made, first = study(model)
    table = pd.read_csv(R_TABLES / "maps.tsv", sep="\t")
    second = table.loc[table["there"] == 1, [f"y{voxel}" for voxel in VOXELS]].to_numpy()
    return made, np.concatenate([first, second])


def asked(made: Study, sessions: str, group: str) -> Question:
    return replace(made.question(SESSIONS[sessions], GROUPS.get(group, group)), tested=("x", "y"))


@pytest.mark.parametrize("sessions", SESSIONS)
def test_two_groups_with_a_covariance_each_are_compared_as_krishnamoorthy_and_yu_do(sessions: str) -> None:
    made, maps = both("group")
    _, found = made.answer("summary-statistics", asked(made, sessions, "a - b"), maps)
    assert_are(found, answer_of_r("Krishnamoorthy & Yu", "group", sessions, "a - b", BOTH))


@pytest.mark.slow
@pytest.mark.parametrize("group", ["intercept", "groups", "groups and age"])
@pytest.mark.parametrize("sessions", SESSIONS)
def test_wald_test_of_least_squares_is_clubsandwichs(sessions: str, group: str) -> None:
    made, maps = both(AGE)
    plan = STRATEGIES["marginal"].plan(made.layout, asked(made, sessions, group), GroupOptions())
    assert isinstance(plan, MarginalPlan)
    prepared = plan.with_ratio(0.0).prepared
    assert prepared is not None
    # with the degrees of freedom of the design, as there
    expected = answer_of_r("HTZ, least squares", AGE, sessions, group, BOTH)
    assert_are(wald_robust(replace(prepared, spread=None), maps), expected)


@pytest.mark.parametrize("sessions", SESSIONS)
def test_conditions_and_sessions_together_are_the_multivariate_test_of_car(sessions: str) -> None:
    """Of `any`: does any session differ in any condition, whatever the correlations of all these differences."""
    made, maps = both(AGE)
    _, found = made.answer("summary-statistics", asked(made, sessions, "intercept"), maps, variance="pooled")
    assert_are(found, answer_of_r("Pillai", AGE, sessions, "intercept", BOTH))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "variance"), [("marginal, pooled", "pooled"), ("marginal, groups", "auto")])
@pytest.mark.parametrize("group", ["intercept", "groups"])
@pytest.mark.parametrize("sessions", SESSIONS)
def test_marginal_over_conditions_and_sessions_together_is_that_of_r(
    sessions: str, group: str, method: str, variance: str
) -> None:
    made, maps = both(AGE)
    _, found = made.answer("marginal", asked(made, sessions, group), maps, variance=variance)
    assert isinstance(found, FTest)
    expected = answer_of_r(method, AGE, sessions, group, BOTH)
    np.testing.assert_allclose(found.f, expected["f"], rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found.dof, len(expected)), expected["dof"], rtol=1e-6)

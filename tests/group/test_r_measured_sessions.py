"""Sessions at measured times, session covariates, interactions and known variances: R's answers for every strategy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_maps import MapsInMemory, estimate_in_blocks
from array_study import Study, p_of
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.group.strategies.marginal import MarginalPlan, WorkingCovariance
from sessionfx.statistics.cluster_robust import estimate_robust
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.meta_analysis import pymare_stats

R_TABLES = Path(__file__).parents[1] / "data" / "measured_sessions"
KEY = ["method", "model", "sessions", "group"]
SESSIONS = {"difference": "ses-04 - ses-01"}  # others as the program has them


@cache
def answers_of_r() -> pd.DataFrame:
    return pd.read_csv(R_TABLES / "answers.tsv", sep="\t")


@cache
def answers_by_question() -> pd.DataFrame:
    return answers_of_r().set_index(KEY).sort_index()


def asked_of(*methods: str) -> list[tuple[str, ...]]:
    """Every method, model, session contrast and group contrast that R has answers for."""
    table = answers_of_r()
    return list(table.loc[table["method"].isin(methods), KEY].drop_duplicates().itertuples(index=False, name=None))


@cache
def study(model: str) -> tuple[Study, NDArray[np.float64], NDArray[np.float64]]:
    """A design, effects and variances of shape (N, V)."""
    table = pd.read_csv(R_TABLES / "maps.tsv", sep="\t", dtype={"participant": str, "session": str})
    made, there = Study.of_table(
        table, ("group", "age") if "age" in model else ("group",), ("days", "mood") if "mood" in model else ("days",),
        times=("days",), interactions=(("group", "age"),) if "*" in model else (),
    )  # fmt: skip
    voxels = [f"v{voxel}" for voxel in sorted(set(answers_of_r()["voxel"]))]
    variances = np.repeat(table.loc[there, ["variance"]].to_numpy(), len(voxels), axis=1)
    return made, table.loc[there, voxels].to_numpy(), variances


def answer(strategy: str, model: str, sessions: str, group: str, **options: str) -> Estimate:
    made, effects, variances = study(model)
    if model.endswith("mixture"):
        options["session_covariate_effect"] = "mixture"
    question = made.question(SESSIONS.get(sessions, sessions), group)
    plan = STRATEGIES[strategy].plan(made.layout, question, GroupOptions(**options))
    found = estimate_in_blocks(plan, MapsInMemory(effects, variances))[1]
    assert isinstance(found, Estimate)
    return found


def assert_are(found: Estimate, asked: tuple[str, ...], tolerance: float, tolerance_of_dof: float) -> None:
    expected = answers_by_question().loc[asked]
    np.testing.assert_allclose(found.effect, expected["estimate"], rtol=tolerance)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["se"], rtol=tolerance)
    np.testing.assert_allclose(np.broadcast_to(found.dof, len(expected)), expected["dof"], rtol=tolerance_of_dof)
    np.testing.assert_allclose(p_of(found), expected["p"], rtol=10 * max(tolerance, tolerance_of_dof))


@pytest.mark.many
@pytest.mark.parametrize("asked", asked_of("Satterthwaite", "Kenward-Roger"), ids="-".join)
def test_mixed_is_lmertests_and_pbkrtests(asked: tuple[str, ...]) -> None:
    method, *question = asked
    assert_are(answer("mixed", *question, mixed_dof=method.lower()), asked, 1e-6, 1e-6)


@pytest.mark.many
@pytest.mark.parametrize("asked", asked_of("marginal, pooled", "marginal, groups"), ids="-".join)
def test_marginal_is_clubsandwich_on_whitened_maps(asked: tuple[str, ...]) -> None:
    """Working covariances from the maps, and degrees of freedom of each voxel, included."""
    method, *question = asked
    found = answer("marginal", *question, variance="pooled" if method == "marginal, pooled" else "auto")
    assert_are(found, asked, 1e-8, 1e-8)


@pytest.mark.many
@pytest.mark.parametrize("asked", asked_of("CR2, least squares"), ids="-".join)
def test_least_squares_with_cr2_are_clubsandwichs(asked: tuple[str, ...]) -> None:
    _, model, sessions, group = asked
    made, effects, _ = study(model)
    options = GroupOptions(session_covariate_effect="mixture" if model.endswith("mixture") else "split")
    question = made.question(SESSIONS.get(sessions, sessions), group)
    plan = STRATEGIES["marginal"].plan(made.layout, question, options)
    assert isinstance(plan, MarginalPlan)
    prepared = plan.with_working(WorkingCovariance(0.0)).prepared
    assert prepared is not None
    # with the degrees of freedom of the design, as there
    assert_are(estimate_robust(replace(prepared, spread=None), effects), asked, 1e-9, 1e-9)


@pytest.mark.many
@pytest.mark.parametrize("asked", asked_of("lm"), ids="-".join)
def test_session_model_is_lm_with_indicators_of_participants(asked: tuple[str, ...]) -> None:
    assert_are(answer("session-model", *asked[1:]), asked, 1e-9, 1e-12)


@pytest.mark.many
@pytest.mark.parametrize("asked", asked_of("lm of values", "t.test"), ids="-".join)
def test_values_of_participants_are_compared_by_lm_and_welch(asked: tuple[str, ...]) -> None:
    method, *question = asked
    found = answer("summary-statistics", *question, variance="auto" if method == "t.test" else "pooled")
    assert_are(found, asked, 1e-9, 1e-9)


@pytest.mark.slow
@pytest.mark.skipif(pymare_stats() is None, reason="PyMARE 0.0.13 or later is not installed")
@pytest.mark.parametrize("asked", asked_of("rma"), ids="-".join)
def test_meta_is_metafors(asked: tuple[str, ...]) -> None:
    assert_are(answer("meta", *asked[1:]), asked, 1e-7, 1e-12)


def test_every_method_is_looked_at() -> None:
    assert set(answers_of_r()["method"]) == {
        "Satterthwaite", "Kenward-Roger", "marginal, pooled", "marginal, groups", "CR2, least squares", "lm",
        "lm of values", "t.test", "rma",
    }  # fmt: skip

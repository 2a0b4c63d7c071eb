"""Groups, covariates and missing sessions through the strategies themselves: the answers of R's packages."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import linalg, stats

from array_study import Study, p_of
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.marginal import MarginalPlan, WorkingCovariance
from sessionfx.statistics.cluster_robust import wald_robust
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.unequal_variances import grouped_contrast

R_TABLES = Path(__file__).parents[1] / "data" / "groups_and_sessions"
N_VOXELS = 20_000
VOXELS = ["v1", "v2", "v3", "v4", "v5"]
CORRELATION = 0.45
RATIO = CORRELATION / (1 - CORRELATION)
SPREAD = {"a": 1.0, "b": 0.6, "c": 0.4}
SESSIONS = {
    "mean": "mean", "difference": "ses-03 - ses-01", "late": "late=ses-03 - 0.5*ses-01 - 0.5*ses-02", "any": "any",
}  # fmt: skip
GROUPS = ("intercept", "b - a", "age")
SINGLE = ("mean", "difference", "late")
WORKING = ("plain", "equal", "unequal")


@cache
def maps_of_r() -> pd.DataFrame:
    kept_as_text = {"participant": str, "session": str}
    return pd.read_csv(R_TABLES / "maps.tsv", sep="\t", dtype=kept_as_text)


@cache
def answers_of_r(method: str, sessions: str, group: str) -> pd.DataFrame:
    table = pd.read_csv(R_TABLES / "answers.tsv", sep="\t", skipinitialspace=True)
    chosen = table[(table["method"] == method) & (table["sessions"] == sessions) & (table["group"] == group)]
    assert chosen["voxel"].tolist() == VOXELS
    return chosen


def study_of(table: pd.DataFrame, *, mood: bool = False, whole: bool = False) -> tuple[Study, NDArray[np.float64]]:
    """Make the study of a table in which everybody has a row for every session, and its maps."""
    cells = table.sort_values(["participant", "session"])
    study, there = Study.of_table(cells, ("group", "age"), ("mood",) if mood else (), whole=whole)
    return study, cells[there][VOXELS].to_numpy()


def assert_are(found: Estimate | FTest, expected: pd.DataFrame, *, tolerance: float) -> None:
    if isinstance(found, Estimate):
        np.testing.assert_allclose(found.effect, expected["estimate"], rtol=tolerance)
        np.testing.assert_allclose(np.sqrt(found.variance), expected["se"], rtol=tolerance)
    else:
        np.testing.assert_allclose(found.f, expected["estimate"], rtol=tolerance)
    np.testing.assert_allclose(np.broadcast_to(found.dof, 5), expected["dof"], rtol=10 * tolerance)
    np.testing.assert_allclose(p_of(found), expected["p"], rtol=100 * tolerance)


# Mixed: lmerTest, pbkrtest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Satterthwaite", "Kenward-Roger"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sessions", SINGLE)
def test_mixed_with_groups_and_missing_sessions_is_lmertests_and_pbkrtests(
    sessions: str, group: str, method: str
) -> None:
    study, maps = study_of(maps_of_r())
    _, found = study.answer("mixed", study.question(SESSIONS[sessions], group), maps, mixed_dof=method.lower())
    assert_are(found, answers_of_r(method, sessions, group), tolerance=1e-6)


# CR2: clubSandwich ---------------------------------------------------------------------------------------------


def marginal_plan(study: Study, question: Question, working: str) -> MarginalPlan:
    plan = STRATEGIES["marginal"].plan(study.layout, question, GroupOptions())
    assert isinstance(plan, MarginalPlan)
    if working == "plain":
        return plan.with_working(WorkingCovariance(0.0))
    spread = [SPREAD[name] for name in "abc"] if working == "unequal" else [1.0] * 3
    return plan.with_working(WorkingCovariance.of_groups(RATIO, plan.groups, np.full(3, RATIO), np.square(spread)))


class ClubSandwich:
    """CR2 as clubSandwich has it: with Cholesky's root D of each participant's working covariance, Φ = D′D,

    A = D′ (D (Φ − X M X′) D′)^-½ D, where SessionFX has A = Φ^½ (I − H)^-½ Φ^-½, H of the rows whitened by Φ^-½.
    """

    def __init__(self, plan: MarginalPlan, working: str, root: str) -> None:
        x, contrasts = plan.design_matrix.to_numpy(), np.atleast_2d(plan.contrast)
        labels, blocks = np.array(plan.participants), []
        for participant, group in zip(dict.fromkeys(plan.participants), plan.groups, strict=True):
            m = int((labels == participant).sum())
            correlated = np.eye(m) if working == "plain" else np.full((m, m), CORRELATION)
            np.fill_diagonal(correlated, 1.0)
            name = "a" if "[a]" in group else "b" if "[b]" in group else "c"
            blocks.append(correlated * (SPREAD[name] ** 2 if working == "unequal" else 1.0))
        self.covariance = linalg.block_diag(*blocks)
        weights = np.linalg.inv(self.covariance)
        inverse = np.linalg.inv(x.T @ weights @ x)
        residual = np.eye(len(x)) - x @ inverse @ x.T @ weights
        scores, start = [], 0
        for phi in blocks:
            own = slice(start, start + len(phi))
            start += len(phi)
            unseen = phi - x[own] @ inverse @ x[own].T
            if root == "cholesky":
                d = linalg.cholesky(phi)
                adjusted = d.T @ _inverse_root(d @ unseen @ d.T) @ d
            else:
                half = linalg.sqrtm(phi).real
                adjusted = (
                    half @ _inverse_root(np.linalg.solve(half, np.linalg.solve(half, unseen).T)) @ np.linalg.inv(half)
                )
            scores.append(contrasts @ inverse @ x[own].T @ weights[own, own] @ adjusted @ residual[own])
        self.scores = np.array(scores)  # n × Q × N

    def errors(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(((self.scores[:, 0] @ values) ** 2).sum(axis=0)))

    @property
    def dof(self) -> float:
        products = self.scores[:, 0] @ self.covariance @ self.scores[:, 0].T
        return float(np.trace(products) ** 2 / (products**2).sum())


def _inverse_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


@pytest.mark.many
@pytest.mark.parametrize("working", WORKING)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sessions", SINGLE)
def test_clubsandwich_differs_by_its_root_alone(sessions: str, group: str, working: str) -> None:
    """Its errors and degrees of freedom are those of its root, ours those of ours; without correlations they are one."""
    study, maps = study_of(maps_of_r())
    plan = marginal_plan(study, study.question(SESSIONS[sessions], group), working)
    expected = answers_of_r(f"CR2, {working}", sessions, group)
    theirs, own = (ClubSandwich(plan, working, root) for root in ("cholesky", "symmetric"))
    np.testing.assert_allclose(theirs.errors(maps), expected["se"], rtol=1e-8)
    assert theirs.dof == pytest.approx(expected["dof"].iloc[0], rel=1e-8)
    prepared = plan.prepared
    assert prepared is not None
    errors = np.sqrt((prepared.scores_of(maps)[0] ** 2).sum(axis=0))
    np.testing.assert_allclose(prepared.weights[0] @ maps, expected["estimate"], rtol=1e-8)
    np.testing.assert_allclose(errors, own.errors(maps), rtol=1e-9)
    assert prepared.dof == pytest.approx(own.dof, rel=1e-9)
    if working == "plain":
        np.testing.assert_allclose(errors, expected["se"], rtol=1e-8)
        assert prepared.dof == pytest.approx(expected["dof"].iloc[0], rel=1e-8)
    np.testing.assert_allclose(errors, expected["se"], rtol=0.007)  # as docs/statistics.md says
    assert prepared.dof == pytest.approx(expected["dof"].iloc[0], rel=0.0002)


def test_either_root_keeps_the_rate() -> None:
    """Both are unbiased under the working covariance, which is here that of the maps, without any effect."""
    study, _ = study_of(maps_of_r())
    plan = marginal_plan(study, study.question("mean", "b - a"), "unequal")
    assert plan.prepared is not None
    roots = [ClubSandwich(plan, "unequal", root) for root in ("cholesky", "symmetric")]
    noise = np.random.default_rng(1).standard_normal((len(roots[0].covariance), N_VOXELS))
    maps = linalg.cholesky(roots[0].covariance, lower=True) @ noise
    effects = plan.prepared.weights[0] @ maps
    rates = [float((2 * stats.t.sf(np.abs(effects / root.errors(maps)), root.dof) <= 0.05).mean()) for root in roots]
    assert max(rates) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / N_VOXELS)
    assert rates[0] == pytest.approx(rates[1], abs=0.002)


@pytest.mark.many
@pytest.mark.parametrize("working", WORKING)
@pytest.mark.parametrize("group", GROUPS)
def test_the_test_of_any_difference_is_clubsandwichs_htz(group: str, working: str) -> None:
    study, maps = study_of(maps_of_r())
    plan = marginal_plan(study, study.question("any", group), working)
    expected = answers_of_r(f"CR2, {working}", "any", group)
    prepared = plan.prepared
    assert prepared is not None
    # with the degrees of freedom of the design, as there; those of a voxel may be fewer
    found = wald_robust(replace(prepared, spread=None), maps)
    exact = working == "plain"
    np.testing.assert_allclose(found.f, expected["estimate"], rtol=1e-8 if exact else 0.02)
    np.testing.assert_allclose(found.dof, expected["dof"].iloc[0], rtol=1e-8 if exact else 0.0005)
    assert np.all(plan.estimate(maps, None).dof <= np.asarray(found.dof) + 1e-9)


# Everybody with all sessions: car ------------------------------------------------------------------------------


def two_groups() -> tuple[Study, NDArray[np.float64]]:
    table = maps_of_r()
    return study_of(table[table["group"] != "c"], whole=True)


@pytest.mark.parametrize("group", ["intercept", "a - b", "age"])
def test_hotellings_test_is_the_multivariate_test_of_car(group: str) -> None:
    study, maps = two_groups()
    _, found = study.answer("summary-statistics", study.question("any", group), maps, variance="pooled")
    assert_are(found, answers_of_r("Hotelling", "any", group), tolerance=1e-8)


@pytest.mark.parametrize("group", ["intercept", "a - b", "age"])
def test_the_session_models_test_is_the_corrected_univariate_test_of_car(group: str) -> None:
    study, maps = two_groups()
    _, found = study.answer("session-model", study.question("any", group), maps)
    assert_are(found, answers_of_r("Greenhouse-Geisser", "any", group), tolerance=1e-8)


# Least squares: lm, and Welch with a covariate -------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sessions", ["difference", "late"])
def test_the_session_model_with_a_session_covariate_is_lm(sessions: str, group: str) -> None:
    study, maps = study_of(maps_of_r(), mood=True)
    _, found = study.answer("session-model", study.question(SESSIONS[sessions], group), maps)
    assert_are(found, answers_of_r("lm", sessions, group), tolerance=1e-8)


@pytest.mark.parametrize(("group", "column"), [("level b - a", 0), ("slope b - a", 2)])
def test_groups_with_a_line_each_are_compared_as_two_regressions_by_welch(group: str, column: int) -> None:
    table = maps_of_r()
    table = table[table["group"] != "c"]
    people = table.drop_duplicates("participant")
    values = table.groupby("participant")[VOXELS].mean().to_numpy()
    is_a = (people["group"] == "a").to_numpy(dtype=float)
    age = people["age"].to_numpy(dtype=float) - 40
    design = np.column_stack([is_a, 1 - is_a, is_a * age, (1 - is_a) * age])
    contrast = np.zeros(4)
    contrast[[column, column + 1]] = -1.0, 1.0
    found = grouped_contrast(design, contrast, people["group"].tolist()).estimate(values)
    assert_are(found, answers_of_r("Welch", "mean", group), tolerance=1e-8)


def test_every_answer_is_looked_at() -> None:
    table = pd.read_csv(R_TABLES / "answers.tsv", sep="\t")
    looked_at = {
        (f"CR2, {working}", sessions, group) for working in WORKING for sessions in SESSIONS for group in GROUPS
    }
    looked_at |= {(method, s, g) for method in ("Satterthwaite", "Kenward-Roger") for s in SINGLE for g in GROUPS}
    looked_at |= {(m, "any", g) for m in ("Hotelling", "Greenhouse-Geisser") for g in ("intercept", "a - b", "age")}
    looked_at |= {("lm", sessions, group) for sessions in ("difference", "late") for group in GROUPS}
    looked_at |= {("Welch", "mean", "level b - a"), ("Welch", "mean", "slope b - a")}
    assert set(map(tuple, table[["method", "sessions", "group"]].drop_duplicates().to_numpy())) == looked_at

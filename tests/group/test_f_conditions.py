"""F tests over conditions: several first-level contrasts of each participant tested together at the group level."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from array_study import Study, everyone
from hotelling import hotelling_t2
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.statistics.estimates import FTest
from sessionfx.statistics.linear_algebra import log_determinant
from sessionfx.statistics.participant_variance import PooledRatio, participant_spectrum

FloatArray = NDArray[np.float64]
BOTH = ("summary-statistics", "marginal")
# participant and session of maps that are not there
MISSING = {(1, 2), (4, 0), (7, 1), (7, 2), (9, 0)}


def study(n: int, n_sessions: int, missing: Collection[tuple[int, int]] = (), groups: str = "") -> Study:
    attendance = everyone(n, n_sessions)
    for cell in missing:
        attendance[cell] = False
    return Study(attendance, {"group": list(groups)} if groups else None)


def maps_of(made: Study, n_rows: int, n_voxels: int = 50, seed: int = 0) -> FloatArray:
    """Draw maps of shape (R, N, V) whose rows co-vary, with levels of participants."""
    rng = np.random.default_rng(seed)
    owners, n_maps = made.owners, len(made.owners)
    free = rng.normal(size=(n_rows, owners.max() + 1, n_voxels))[:, owners] + rng.normal(
        size=(n_rows, n_maps, n_voxels)
    )
    return np.einsum("rs,snv->rnv", np.eye(n_rows) + 0.6 * np.tri(n_rows, k=-1), free)


def question(made: Study, sessions: str, n_rows: int, group: str = "intercept") -> Question:
    return replace(made.question(sessions, group), tested=tuple(f"row{row}" for row in range(n_rows)))


def answer(strategy: str, made: Study, asked: Question, maps: FloatArray, **options: str) -> FTest:
    found = made.answer(strategy, asked, maps.reshape(-1, maps.shape[2]), **options)[1]
    assert isinstance(found, FTest)
    return found


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize(
    ("sessions", "n_sessions", "weights"),
    [
        ("mean", 1, [[1.0]]),
        ("mean", 3, [[1 / 3, 1 / 3, 1 / 3]]),
        ("ses-02 - ses-01", 2, [[-1.0, 1.0]]),
        ("linear", 3, [[-0.5, 0.0, 0.5]]),
        ("any", 3, [[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]),
    ],
)
def test_complete_data_give_hotellings_t2_of_participants_values(
    strategy: str, sessions: str, n_sessions: int, weights: list[list[float]]
) -> None:
    made = study(14, n_sessions)
    maps = maps_of(made, 2)
    found = answer(strategy, made, question(made, sessions, 2), maps)
    values = np.einsum("qs,rnsv->rqnv", np.array(weights), maps.reshape(2, 14, n_sessions, -1))
    f, p = hotelling_t2(values.reshape(-1, *values.shape[2:]))
    np.testing.assert_allclose(found.f, f, rtol=1e-9)
    np.testing.assert_allclose(found.p, p, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("sessions", ["mean", "linear", "any", "ses-03 - ses-02"])
@pytest.mark.parametrize("group", ["intercept", "a - b"])
def test_how_rows_are_written_and_their_units_do_not_matter(strategy: str, sessions: str, group: str) -> None:
    """Sessions are missing and groups unequal: the working covariance, and each voxel's degrees of freedom, count."""
    groups = "a" * 14 + "b" * 18
    made = study(32, 3, MISSING, "" if group == "intercept" else groups)
    maps = maps_of(made, 3)
    asked = question(made, sessions, 3, group)
    found = answer(strategy, made, asked, maps)
    recombined = np.einsum("rs,snv->rnv", [[2.0, 1.0, 0.0], [0.0, 1.0, -300.0], [1.0, 1.0, 1.0]], maps)
    for other in (recombined, maps[::-1]):
        again = answer(strategy, made, asked, np.ascontiguousarray(other))
        np.testing.assert_allclose(again.f, found.f, rtol=1e-6)
        np.testing.assert_allclose(again.dof, found.dof, rtol=1e-6)


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("missing", [set(), MISSING])
@pytest.mark.parametrize("sessions", ["mean", "linear"])
def test_one_row_is_the_square_of_t(strategy: str, missing: set[tuple[int, int]], sessions: str) -> None:
    made = study(12, 3, missing)
    maps = maps_of(made, 1)
    test = question(made, sessions, 1)
    found = answer(strategy, made, test, maps)
    t = made.answer(strategy, Question(test.sessions), maps[0])[1]
    np.testing.assert_allclose(found.f, t.t**2, rtol=1e-9)  # type: ignore[union-attr]
    np.testing.assert_allclose(found.dof, t.dof, rtol=1e-9)


def test_one_row_of_any_is_the_test_of_any() -> None:
    made = study(12, 3, MISSING)
    maps = maps_of(made, 1)
    for strategy in BOTH:
        test = question(made, "any", 1)
        found = answer(strategy, made, test, maps)
        alone = answer(strategy, made, Question(test.sessions), maps)
        np.testing.assert_allclose(found.f, alone.f, rtol=1e-9)
        np.testing.assert_allclose(found.dof, alone.dof, rtol=1e-9)


@pytest.mark.parametrize("variance", ["pooled", "groups"])
def test_a_difference_of_two_groups_is_hotellings_two_sample_test(variance: str) -> None:
    groups = "a" * 9 + "b" * 12
    made = study(21, 1, groups=groups)
    maps = maps_of(made, 2)
    found = answer("summary-statistics", made, question(made, "mean", 2, "a - b"), maps, variance=variance)
    first, second = (maps[:, np.array(list(groups)) == level] for level in "ab")
    for voxel in range(maps.shape[2]):
        a, b = first[:, :, voxel], second[:, :, voxel]
        difference = a.mean(axis=1) - b.mean(axis=1)
        if variance == "pooled":
            covariance = (8 * np.cov(a) + 11 * np.cov(b)) / 19 * (1 / 9 + 1 / 12)
            f = (19 - 1) / (19 * 2) * difference @ np.linalg.inv(covariance) @ difference
            assert found.dof == 18
            assert found.f[voxel] == pytest.approx(f, rel=1e-9)
        else:
            wald = difference @ np.linalg.inv(np.cov(a) / 9 + np.cov(b) / 12) @ difference
            nu = np.broadcast_to(found.dof, found.f.shape)[voxel] + 1
            assert found.f[voxel] == pytest.approx((nu - 1) / (2 * nu) * wald, rel=1e-9)


def test_the_working_correlation_of_several_rows_is_that_of_their_matrix_normal_likelihood() -> None:
    """The summed profile deviance m log |Σ ηη′/(1+λξ)| + R Σ log(1+λξ), from covariances as they are defined."""
    made = study(10, 3, MISSING)
    layout = made.layout
    cells = layout.session_columns(("01", "02", "03"))
    spectrum = participant_spectrum(cells, layout.participants)
    maps = maps_of(made, 2, n_voxels=400)
    pooled = PooledRatio(spectrum, 2)
    found = pooled.estimate(pooled.sums(maps.reshape(-1, 400)))

    same = np.equal.outer(np.array(layout.participants), np.array(layout.participants)).astype(float)

    def deviance(ratio: float) -> float:
        covariance = np.eye(len(same)) + ratio * same
        inverse = np.linalg.inv(covariance)
        of_cells = cells.T @ inverse @ cells
        projection = inverse - inverse @ cells @ np.linalg.solve(of_cells, cells.T @ inverse)
        products = np.einsum("rnv,nm,smv->vrs", maps, projection, maps)
        penalty = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(of_cells)[1]
        return float(spectrum.n_residual * np.linalg.slogdet(products)[1].mean() + 2 * penalty)

    ratios = found * np.array([0.98, 1.0, 1.02])
    below, at, above = map(deviance, ratios)
    assert at < min(below, above)
    # the vertex of the parabola through the three
    assert (above - below) / (above + below - 2 * at) == pytest.approx(0.0, abs=0.02)


def test_determinants_are_numpys_and_minus_infinity_where_singular() -> None:
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(20, 3, 3))
    matrices = roots @ roots.transpose(0, 2, 1)
    matrices[3] = np.ones((3, 3))
    matrices[4] = 0.0
    found = log_determinant(matrices.transpose(1, 2, 0))
    assert found[3] == found[4] == -np.inf
    others = np.delete(np.arange(20), (3, 4))
    np.testing.assert_allclose(found[others], np.linalg.slogdet(matrices[others])[1], rtol=1e-9)


@pytest.mark.parametrize("strategy", BOTH)
def test_voxels_where_rows_depend_on_each_other_are_undetermined(strategy: str) -> None:
    made = study(12, 3, MISSING)
    maps = maps_of(made, 2)
    maps[1, :, 0] = 3 * maps[0, :, 0]
    maps[1, :, 1] = 0.0
    found = answer(strategy, made, question(made, "mean", 2), maps)
    assert np.isnan(found.f[:2]).all()
    assert np.isfinite(found.f[2:]).all()


@pytest.mark.parametrize(
    ("strategy", "options", "group", "sentence"),
    [
        ("session-model", {}, "intercept", "one contrast over conditions at a time"),
        ("mixed", {}, "intercept", "no test of several contrasts at once"),
        ("summary-statistics", {"fixed_effects": "precision"}, "intercept", "weights of its own"),
        ("summary-statistics", {}, "F:x = a - b; b - c", "group contrast at a time"),
    ],
)
def test_others_decline(strategy: str, options: dict[str, str], group: str, sentence: str) -> None:
    groups = "abcabcabcabc"
    made = study(12, 1, groups="" if group == "intercept" else groups)
    with pytest.raises(NotEstimableError, match=sentence):
        STRATEGIES[strategy].plan(made.layout, question(made, "mean", 2, group), GroupOptions(**options))


def test_too_few_participants_are_refused() -> None:
    made = study(3, 1)
    layout, asked = made.layout, question(made, "mean", 3)
    with pytest.raises(NotEstimableError, match="too few for Hotelling's T² on 3 contrasts"):
        STRATEGIES["summary-statistics"].plan(layout, asked, GroupOptions())
    with pytest.raises(NotEstimableError, match="Too few participants"):
        STRATEGIES["marginal"].plan(layout, asked, GroupOptions())


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize(("n", "n_rows", "sessions"), [(12, 2, "mean"), (20, 3, "linear")])
def test_five_percent_of_null_voxels_are_found_where_sessions_are_missing(
    strategy: str, n: int, n_rows: int, sessions: str
) -> None:
    made = study(n, 3, MISSING)
    found = answer(strategy, made, question(made, sessions, n_rows), maps_of(made, n_rows, 4000))
    assert np.mean(found.p <= 0.05) == pytest.approx(0.05, abs=0.0105)  # three standard errors of 4,000 voxels

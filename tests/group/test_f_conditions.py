"""F tests over conditions: several first-level contrasts of each participant tested together at the group level."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hotelling import hotelling_t2
from sessionfx.ask.covariates import Covariates, code_covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question
from sessionfx.group.strategies.blocks import MapsInMemory, estimate_in_blocks
from sessionfx.statistics.estimates import FTest
from sessionfx.statistics.linear_algebra import log_determinant
from sessionfx.statistics.participant_variance import PooledRatio, participant_spectrum

FloatArray = NDArray[np.float64]
BOTH = ("summary-statistics", "marginal")
# participant and session of maps that are not there
MISSING = {(1, 2), (4, 0), (7, 1), (7, 2), (9, 0)}


def layout_of(n: int, n_sessions: int, missing: set[tuple[int, int]] = frozenset(), groups: str = "") -> MapLayout:  # type: ignore[assignment]
    cells = [(p, s) for p in range(n) for s in range(n_sessions) if (p, s) not in missing]
    labels, sessions = tuple(f"{p:02d}" for p, _ in cells), tuple(f"{s + 1:02d}" for _, s in cells)
    if not groups:
        return MapLayout(labels, sessions)
    covariates = covariates_of(groups)
    return MapLayout(
        labels, sessions, covariates.columns, np.array([covariates.row_of(label) for label in labels])
    )  # fmt: skip


def covariates_of(groups: str) -> Covariates:
    return code_covariates([f"{index:02d}" for index in range(len(groups))], {"group": tuple(groups)})


def maps_of(layout: MapLayout, n_rows: int, n_voxels: int = 50, seed: int = 0) -> FloatArray:
    """Draw maps of shape (R, N, V) whose rows co-vary, with levels of participants."""
    rng = np.random.default_rng(seed)
    owners = np.unique(layout.participants, return_inverse=True)[1]
    n_maps = len(layout.participants)
    free = rng.normal(size=(n_rows, owners.max() + 1, n_voxels))[:, owners] + rng.normal(
        size=(n_rows, n_maps, n_voxels)
    )
    return np.einsum("rs,snv->rnv", np.eye(n_rows) + 0.6 * np.tri(n_rows, k=-1), free)


def question(sessions: str, n_sessions: int, n_rows: int, group: str = "", groups: str = "") -> Question:
    (asked,) = resolve_session_contrasts([sessions], [f"{s + 1:02d}" for s in range(n_sessions)])
    over = resolve_group_contrasts([group], covariates_of(groups))[0] if group else INTERCEPT
    return Question(asked, over, tested=tuple(f"row{row}" for row in range(n_rows)))


def answer(strategy: str, layout: MapLayout, asked: Question, maps: FloatArray, **options: str) -> FTest:
    plan = STRATEGIES[strategy].plan(layout, asked, GroupOptions(**options))
    found = estimate_in_blocks(plan, MapsInMemory(maps.reshape(-1, maps.shape[2])))[1]
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
    layout = layout_of(14, n_sessions)
    maps = maps_of(layout, 2)
    found = answer(strategy, layout, question(sessions, n_sessions, 2), maps)
    values = np.einsum("qs,rnsv->rqnv", np.array(weights), maps.reshape(2, 14, n_sessions, -1))
    f, p = hotelling_t2(values.reshape(-1, *values.shape[2:]))
    np.testing.assert_allclose(found.f, f, rtol=1e-9)
    np.testing.assert_allclose(found.p, p, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("sessions", ["mean", "linear", "any", "ses-03 - ses-02"])
@pytest.mark.parametrize("group", ["", "a - b"])
def test_how_rows_are_written_and_their_units_do_not_matter(strategy: str, sessions: str, group: str) -> None:
    """Sessions are missing and groups unequal: the working covariance, and each voxel's degrees of freedom, count."""
    groups = "a" * 14 + "b" * 18
    layout = layout_of(32, 3, MISSING, groups if group else "")
    maps = maps_of(layout, 3)
    asked = question(sessions, 3, 3, group, groups)
    found = answer(strategy, layout, asked, maps)
    recombined = np.einsum("rs,snv->rnv", [[2.0, 1.0, 0.0], [0.0, 1.0, -300.0], [1.0, 1.0, 1.0]], maps)
    for other in (recombined, maps[::-1]):
        again = answer(strategy, layout, asked, np.ascontiguousarray(other))
        np.testing.assert_allclose(again.f, found.f, rtol=1e-6)
        np.testing.assert_allclose(again.dof, found.dof, rtol=1e-6)


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("missing", [set(), MISSING])
@pytest.mark.parametrize("sessions", ["mean", "linear"])
def test_one_row_is_the_square_of_t(strategy: str, missing: set[tuple[int, int]], sessions: str) -> None:
    layout = layout_of(12, 3, missing)
    maps = maps_of(layout, 1)
    test = question(sessions, 3, 1)
    found = answer(strategy, layout, test, maps)
    plan = STRATEGIES[strategy].plan(layout, Question(test.sessions), GroupOptions())
    t = estimate_in_blocks(plan, MapsInMemory(maps[0]))[1]
    np.testing.assert_allclose(found.f, t.t**2, rtol=1e-9)  # type: ignore[union-attr]
    np.testing.assert_allclose(found.dof, t.dof, rtol=1e-9)


def test_one_row_of_any_is_the_test_of_any() -> None:
    layout = layout_of(12, 3, MISSING)
    maps = maps_of(layout, 1)
    for strategy in BOTH:
        test = question("any", 3, 1)
        found = answer(strategy, layout, test, maps)
        alone = answer(strategy, layout, Question(test.sessions), maps)
        np.testing.assert_allclose(found.f, alone.f, rtol=1e-9)
        np.testing.assert_allclose(found.dof, alone.dof, rtol=1e-9)


@pytest.mark.parametrize("variance", ["pooled", "groups"])
def test_a_difference_of_two_groups_is_hotellings_two_sample_test(variance: str) -> None:
    groups = "a" * 9 + "b" * 12
    layout = layout_of(21, 1, groups=groups)
    maps = maps_of(layout, 2)
    found = answer("summary-statistics", layout, question("mean", 1, 2, "a - b", groups), maps, variance=variance)
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
    layout = layout_of(10, 3, MISSING)
    cells = layout.session_columns(("01", "02", "03"))
    spectrum = participant_spectrum(cells, layout.participants)
    maps = maps_of(layout, 2, n_voxels=400)
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
    layout = layout_of(12, 3, MISSING)
    maps = maps_of(layout, 2)
    maps[1, :, 0] = 3 * maps[0, :, 0]
    maps[1, :, 1] = 0.0
    found = answer(strategy, layout, question("mean", 3, 2), maps)
    assert np.isnan(found.f[:2]).all()
    assert np.isfinite(found.f[2:]).all()


@pytest.mark.parametrize(
    ("strategy", "options", "group", "sentence"),
    [
        ("session-model", {}, "", "one contrast over conditions at a time"),
        ("mixed", {}, "", "no test of several contrasts at once"),
        ("summary-statistics", {"fixed_effects": "precision"}, "", "weights of its own"),
        ("summary-statistics", {}, "F:x = a - b; b - c", "group contrast at a time"),
    ],
)
def test_others_decline(strategy: str, options: dict[str, str], group: str, sentence: str) -> None:
    groups = "abcabcabcabc"
    layout = layout_of(12, 1, groups=groups if group else "")
    with pytest.raises(NotEstimableError, match=sentence):
        STRATEGIES[strategy].plan(layout, question("mean", 1, 2, group, groups), GroupOptions(**options))


def test_too_few_participants_are_refused() -> None:
    with pytest.raises(NotEstimableError, match="too few for Hotelling's T² on 3 contrasts"):
        STRATEGIES["summary-statistics"].plan(layout_of(3, 1), question("mean", 1, 3), GroupOptions())
    with pytest.raises(NotEstimableError, match="Too few participants"):
        STRATEGIES["marginal"].plan(layout_of(3, 1), question("mean", 1, 3), GroupOptions())


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize(("n", "n_rows", "sessions"), [(12, 2, "mean"), (20, 3, "linear")])
def test_five_percent_of_null_voxels_are_found_where_sessions_are_missing(
    strategy: str, n: int, n_rows: int, sessions: str
) -> None:
    layout = layout_of(n, 3, MISSING)
    found = answer(strategy, layout, question(sessions, 3, n_rows), maps_of(layout, n_rows, 4000))
    assert np.mean(found.p <= 0.05) == pytest.approx(0.05, abs=0.0105)  # three standard errors of 4,000 voxels

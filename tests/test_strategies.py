"""Exact facts about the group strategies, as properties over random designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.regression import OLSModel
from numpy.typing import NDArray
from scipy import stats

from sessionfx.covariates import GroupContrast
from sessionfx.errors import NotEstimableError
from sessionfx.session_contrasts import resolve_session_contrasts
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import is_estimable
from sessionfx.strategies import STRATEGIES
from sessionfx.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.strategies.blocks import MapsInMemory, estimate_in_blocks
from sessionfx.strategies.session_model import resolve_subject_effect

N_VOXELS = 7


def layout_of(attendance: NDArray[np.bool_], names: list[str] | None = None) -> MapLayout:
    """One map per True cell of a participants × sessions table."""
    participants = names or [f"{index + 1:02d}" for index in range(len(attendance))]
    cells = [
        (participants[i], f"{j + 1:02d}")
        for i in range(attendance.shape[0])
        for j in range(attendance.shape[1])
        if attendance[i, j]
    ]
    return MapLayout(tuple(cell[0] for cell in cells), tuple(cell[1] for cell in cells))


def question(text: str, n_sessions: int) -> Question:
    return Question(resolve_session_contrasts([text], [f"{j + 1:02d}" for j in range(n_sessions)])[0])


def estimate(
    name: str, layout: MapLayout, asked: Question, effects: NDArray[np.float64], scale: float = 1.0, **options: str
) -> Estimate:
    """Estimate from maps whose sampling variances are all scale²."""
    plan = STRATEGIES[name].plan(layout, asked, GroupOptions(**options))
    _, result = estimate_in_blocks(plan, MapsInMemory(effects, np.full_like(effects, scale**2)))
    assert isinstance(result, Estimate)
    return result


@st.composite
def designs(
    draw: st.DrawFn, sessions: tuple[int, int] = (2, 6), balanced: bool = False
) -> tuple[NDArray[np.bool_], int]:
    """Attendance of 3 to 12 participants, everyone at least once, and a seed for the data."""
    n, k = draw(st.integers(3, 12)), draw(st.integers(*sessions))
    if balanced:
        attendance = np.ones((n, k), dtype=bool)
    else:
        cells = draw(st.lists(st.booleans(), min_size=n * k, max_size=n * k))
        attendance = np.array(cells).reshape(n, k)
        attendance[:3] = True  # so that every difference stays estimable with error left
        attendance[:, 0] |= ~attendance.any(axis=1)
    return attendance, draw(st.integers(0, 2**32 - 1))


@given(designs(sessions=(2, 2)))
@settings(deadline=None, max_examples=60)
def test_difference_of_two_sessions_is_the_paired_t_test(design: tuple[NDArray[np.bool_], int]) -> None:
    """Fact 1, also when participants miss a session."""
    attendance, seed = design
    layout, asked = layout_of(attendance), question("ses-02 - ses-01", 2)
    effects = np.random.default_rng(seed).normal(size=(len(layout.participants), N_VOXELS))
    complete = [layout.rows_of(label) for label in layout.unique_participants if len(layout.rows_of(label)) == 2]
    paired = stats.ttest_rel(effects[[rows["02"] for rows in complete]], effects[[rows["01"] for rows in complete]])
    for name in ("session-model", "fixed-effects"):
        ours = estimate(name, layout, asked, effects, subject_effect="indicator")
        np.testing.assert_allclose(ours.t, paired.statistic, rtol=1e-7)
        assert ours.dof == len(complete) - 1


@given(designs(), st.floats(-50, 50))
@settings(deadline=None, max_examples=60)
def test_constant_per_participant_leaves_the_indicator_difference(
    design: tuple[NDArray[np.bool_], int], size: float
) -> None:
    """Fact 4."""
    attendance, seed = design
    k = attendance.shape[1]
    layout, rng = layout_of(attendance), np.random.default_rng(seed)
    effects = rng.normal(size=(len(layout.participants), N_VOXELS))
    shifts = {label: size * rng.normal() for label in layout.unique_participants}
    shifted = effects + np.array([shifts[label] for label in layout.participants])[:, None]
    for text in (f"ses-{k:02d} - ses-01", "linear"):
        before = estimate("session-model", layout, question(text, k), effects, subject_effect="indicator")
        after = estimate("session-model", layout, question(text, k), shifted, subject_effect="indicator")
        np.testing.assert_allclose(after.effect, before.effect, atol=1e-8 * (1 + abs(size)))
        np.testing.assert_allclose(after.variance, before.variance, rtol=1e-6)


@given(designs(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_renaming_participants_changes_only_linear(design: tuple[NDArray[np.bool_], int], shuffle: object) -> None:
    """Fact 5: the same maps under other labels, hence in another order of participants."""
    attendance, seed = design
    k = attendance.shape[1]
    layout = layout_of(attendance)
    effects = np.random.default_rng(seed).normal(size=(len(layout.participants), N_VOXELS))
    labels = list(layout.unique_participants)
    order = labels.copy()
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    new_name = dict(zip(labels, order, strict=True))
    renamed = sorted(
        range(len(layout.participants)), key=lambda row: (new_name[layout.participants[row]], layout.sessions[row])
    )
    other = MapLayout(
        tuple(new_name[layout.participants[row]] for row in renamed), tuple(layout.sessions[row] for row in renamed)
    )
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        for name, options in (
            ("fixed-effects", {}),
            ("session-model", {"subject_effect": "indicator"}),
            ("session-model", {"subject_effect": "none"}),
        ):
            before = estimate(name, layout, question(text, k), effects, **options)
            after = estimate(name, other, question(text, k), effects[renamed], **options)
            np.testing.assert_allclose(after.t, before.t, rtol=1e-6, atol=1e-8)


def test_renaming_participants_does_change_linear() -> None:
    attendance = np.ones((5, 2), dtype=bool)
    layout, asked = layout_of(attendance), question("ses-02 - ses-01", 2)
    effects = np.random.default_rng(0).normal(size=(10, N_VOXELS))
    swapped = [8, 9, 2, 3, 4, 5, 6, 7, 0, 1]
    before = estimate("session-model", layout, asked, effects, subject_effect="linear")
    after = estimate("session-model", layout, asked, effects[swapped], subject_effect="linear")
    assert np.abs(before.t - after.t).max() > 0.01


@given(designs(), st.floats(0.01, 100))
@settings(deadline=None, max_examples=60)
def test_t_changes_sign_with_the_data_and_ignores_their_scale(
    design: tuple[NDArray[np.bool_], int], factor: float
) -> None:
    """Fact 6."""
    attendance, seed = design
    k = attendance.shape[1]
    layout = layout_of(attendance)
    effects = np.random.default_rng(seed).normal(size=(len(layout.participants), N_VOXELS))
    for text in ("mean", f"ses-{k:02d} - ses-01"):
        for name in STRATEGIES:
            before = estimate(name, layout, question(text, k), effects)
            after = estimate(name, layout, question(text, k), -factor * effects, scale=factor)
            np.testing.assert_allclose(after.t, -before.t, rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(after.z, -before.z, rtol=1e-6, atol=1e-8)


@given(designs(), st.sampled_from(["indicator", "linear", "none"]))
@settings(deadline=None, max_examples=40)
def test_session_model_equals_nilearns_ols_on_full_rank_designs(
    design: tuple[NDArray[np.bool_], int], subject_effect: str
) -> None:
    attendance, seed = design
    k = attendance.shape[1]
    layout, asked = layout_of(attendance), question(f"ses-{k:02d} - ses-01", k)
    plan = STRATEGIES["session-model"].plan(layout, asked, GroupOptions(subject_effect))
    matrix = plan.design_matrix.to_numpy()
    assert np.linalg.matrix_rank(matrix) == matrix.shape[1]
    effects = np.random.default_rng(seed).normal(size=(len(matrix), N_VOXELS))
    ours = plan.estimate(effects, None)
    theirs = OLSModel(matrix).fit(effects).Tcontrast(plan.contrast)
    np.testing.assert_allclose(ours.effect, np.ravel(theirs.effect), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.t, np.ravel(theirs.t), rtol=1e-7, atol=1e-9)
    assert ours.dof == theirs.df_den


@given(designs(balanced=True))
@settings(deadline=None, max_examples=40)
def test_fixed_effects_is_the_one_sample_test_of_the_combined_values(design: tuple[NDArray[np.bool_], int]) -> None:
    attendance, seed = design
    n, k = attendance.shape
    cube = np.random.default_rng(seed).normal(size=(n, k, N_VOXELS))
    times = np.arange(k) - (k - 1) / 2
    for text, weights in (("mean", np.full(k, 1 / k)), ("linear", times / (times @ times))):
        reference = stats.ttest_1samp(np.einsum("s,nsv->nv", weights, cube), 0)
        ours = estimate("fixed-effects", layout_of(attendance), question(text, k), cube.reshape(n * k, -1))
        np.testing.assert_allclose(ours.t, reference.statistic, rtol=1e-8)
        np.testing.assert_allclose(ours.p, stats.t.sf(reference.statistic, n - 1), rtol=1e-8)


def test_incomplete_participants_are_used_as_far_as_their_sessions_allow() -> None:
    attendance = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    layout = layout_of(attendance)
    strategy = STRATEGIES["fixed-effects"]
    assert not strategy.plan(layout, question("mean", 3), GroupOptions()).left_out
    assert list(strategy.plan(layout, question("linear", 3), GroupOptions()).left_out) == ["05"]
    assert list(strategy.plan(layout, question("ses-02 - ses-01", 3), GroupOptions()).left_out) == ["04", "05"]
    assert (
        strategy.plan(layout, question("ses-03 - ses-01", 3), GroupOptions()).left_out["03"] == "has no map of ses-03"
    )


def test_disconnected_participants_and_sessions_are_refused_in_a_sentence() -> None:
    """Half were scanned in the first session only, half in the second only: no within-participant difference exists."""
    layout = layout_of(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool))
    for name in set(STRATEGIES) - {"marginal"}:
        with pytest.raises(NotEstimableError, match=r"\.$"):
            STRATEGIES[name].plan(layout, question("ses-02 - ses-01", 2), GroupOptions("indicator"))


def test_marginal_compares_different_people_by_welchs_t_and_says_so() -> None:
    """With one map per participant CR2 is the heteroscedasticity-consistent variance HC2, which is Welch's here."""
    layout = layout_of(np.array([[1, 0]] * 4 + [[0, 1]] * 6, dtype=bool))
    effects = np.random.default_rng(2).normal(size=(10, N_VOXELS))
    asked = question("ses-02 - ses-01", 2)
    welch = stats.ttest_ind(effects[4:], effects[:4], equal_var=False)
    np.testing.assert_allclose(estimate("marginal", layout, asked, effects).t, welch.statistic, rtol=1e-10)
    assert "different people" in STRATEGIES["marginal"].plan(layout, asked, GroupOptions()).caution


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_one_session_has_no_trend_and_one_participant_no_group(name: str) -> None:
    one_session = question("linear", 1)
    with pytest.raises(NotEstimableError, match="one session only"):
        STRATEGIES[name].plan(MapLayout(("1", "2", "3"), ("01",) * 3), one_session, GroupOptions())
    with pytest.raises(NotEstimableError, match="at least two"):
        STRATEGIES[name].plan(MapLayout(("1", "1"), ("01", "02")), question("mean", 2), GroupOptions())


def test_auto_subject_effect_depends_on_the_question() -> None:
    assert resolve_subject_effect("auto", question("mean", 3).sessions) == "none"
    assert resolve_subject_effect("auto", question("ses-01", 3).sessions) == "none"
    for text in ("linear", "ses-02 - ses-01", "2*ses-02 - ses-01 - ses-03"):
        assert resolve_subject_effect("auto", question(text, 3).sessions) == "indicator"


def test_pooled_mean_says_that_it_pools() -> None:
    plan = STRATEGIES["session-model"].plan(layout_of(np.ones((4, 2), dtype=bool)), question("mean", 2), GroupOptions())
    assert plan.caution.startswith("Pooling of correlated maps")


def test_pooled_mean_is_inflated_as_compound_symmetry_says() -> None:
    """Fact 7: under correlation ρ the pooled mean's t has standard deviation √(1 + (k − 1) ρ)."""
    rng = np.random.default_rng(7)
    n, k, rho, n_voxels = 40, 3, 0.6, 20_000
    cube = np.sqrt(rho) * rng.normal(size=(n, 1, n_voxels)) + np.sqrt(1 - rho) * rng.normal(size=(n, k, n_voxels))
    t = estimate(
        "session-model", layout_of(np.ones((n, k), dtype=bool)), question("mean", k), cube.reshape(n * k, -1)
    ).t
    # the residual variance of the pooled model is slightly smaller than 1, hence two per cent of room
    assert t.std() == pytest.approx(np.sqrt(1 + (k - 1) * rho), rel=0.02)


@given(designs())
@settings(deadline=None, max_examples=40)
def test_estimability_agrees_with_the_rank_criterion(design: tuple[NDArray[np.bool_], int]) -> None:
    """c is estimable exactly when adding it as a row does not raise the rank."""
    attendance, seed = design
    rng = np.random.default_rng(seed)
    layout = layout_of(attendance)
    dummies = [pd.get_dummies(pd.Series(labels)).to_numpy(float) for labels in (layout.participants, layout.sessions)]
    matrix = np.hstack(dummies)
    for contrast in (rng.normal(size=matrix.shape[1]), rng.normal(size=len(matrix)) @ matrix):
        expected = np.linalg.matrix_rank(np.vstack([matrix, contrast])) == np.linalg.matrix_rank(matrix)
        assert is_estimable(matrix, contrast) == expected


def test_blocks_of_voxels_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionfx.strategies.blocks.VOXELS_PER_BLOCK", 7)
    layout = layout_of(np.ones((5, 3), dtype=bool))
    effects = np.random.default_rng(4).normal(size=(15, 23))
    variances = np.random.default_rng(5).uniform(0.5, 2, size=(15, 23))
    for name in STRATEGIES:
        plan = STRATEGIES[name].plan(layout, question("linear", 3), GroupOptions())
        if plan.pools:
            plan = plan.informed(plan.pooled_sums(effects))
        whole, (_, blocks) = (
            plan.estimate(effects, variances),
            estimate_in_blocks(plan, MapsInMemory(effects, variances)),
        )
        np.testing.assert_allclose(blocks.effect, whole.effect, rtol=1e-12)
        np.testing.assert_allclose(blocks.variance, whole.variance, rtol=1e-12)
        np.testing.assert_allclose(blocks.dof, whole.dof, rtol=1e-12)


def test_marginal_declines_what_rests_on_one_participant_alone() -> None:
    """CR2 cannot see how the only one varies: false positives would reach 67 % for the session and 54 % for the group."""
    attendance = np.ones((12, 3), dtype=bool)
    attendance[1:, 2] = False
    layout = layout_of(attendance)
    marginal = STRATEGIES["marginal"]
    for text in ("ses-03 - ses-01", "mean", "linear", "any"):
        with pytest.raises(NotEstimableError, match="only participant"):
            marginal.plan(layout, question(text, 3), GroupOptions())
    marginal.plan(layout, question("ses-02 - ses-01", 3), GroupOptions())

    group = np.repeat(np.array([[-1.0]] + [[1.0]] * 11), 2, axis=0)
    whole = layout_of(np.ones((12, 2), dtype=bool))
    with_group = MapLayout(whole.participants, whole.sessions, ("group[a]",), group)
    asked = question("ses-02 - ses-01", 2)
    for weights in ((0.0, 2.0), (1.0, 0.0)):
        with pytest.raises(NotEstimableError, match="only participant"):
            marginal.plan(with_group, Question(asked.sessions, GroupContrast("x", "x", weights)), GroupOptions())
    many = GroupContrast("x", "x", (1.0, 1.0))  # the level that eleven participants have
    marginal.plan(with_group, Question(asked.sessions, many), GroupOptions())

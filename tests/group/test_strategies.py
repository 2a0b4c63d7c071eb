"""Exact facts about the group strategies, as properties over random designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.regression import OLSModel
from numpy.typing import NDArray
from scipy import stats

from array_maps import MapsInMemory, estimate_in_blocks
from map_stacks import layout_of
from properties import examples
from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.mixed import MixedPlan
from sessionfx.group.strategies.session_model import resolve_subject_effect
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import is_estimable
from sessionfx.statistics.random_intercept import estimate_mixed

N_VOXELS = 7


def question(text: str, n_sessions: int) -> Question:
    return Question(resolve_session_contrasts([text], [f"{j + 1:02d}" for j in range(n_sessions)])[0])


def answer(
    name: str, layout: MapLayout, asked: Question, effects: NDArray[np.float64], scale: float = 1.0, **options: str
) -> Estimate | FTest:
    """Answer from maps whose sampling variances are all scale²."""
    plan = STRATEGIES[name].plan(layout, asked, GroupOptions(**options))
    return estimate_in_blocks(plan, MapsInMemory(effects, np.full_like(effects, scale**2)))[1]


def estimate(
    name: str, layout: MapLayout, asked: Question, effects: NDArray[np.float64], scale: float = 1.0, **options: str
) -> Estimate:
    result = answer(name, layout, asked, effects, scale, **options)
    assert isinstance(result, Estimate)
    return result


def f_of_any(name: str, layout: MapLayout, n_sessions: int, effects: NDArray[np.float64], **options: str) -> FTest:
    result = answer(name, layout, question("any", n_sessions), effects, **options)
    assert isinstance(result, FTest)
    return result


def correlated(seed: int, layout: MapLayout, ratio: float = 1.0, n_voxels: int = N_VOXELS) -> NDArray[np.float64]:
    """Maps of participants who differ from each other, whose variance is `ratio` times that within them."""
    rng = np.random.default_rng(seed)
    level = {label: rng.normal(size=n_voxels) for label in layout.unique_participants}
    noise = rng.normal(size=(len(layout.participants), n_voxels))
    return np.sqrt(ratio) * np.array([level[label] for label in layout.participants]) + noise


@st.composite
def designs(
    draw: st.DrawFn, sessions: tuple[int, int] = (2, 6), balanced: bool = False
) -> tuple[NDArray[np.bool_], int]:
    """Attendance of 3 to 30 participants, everyone at least once, and a seed for the data."""
    n, k = draw(st.integers(3, 30)), draw(st.integers(*sessions))
    seed = draw(st.integers(0, 2**32 - 1))
    attendance = np.ones((n, k), dtype=bool)
    if not balanced:
        attendance = np.random.default_rng(seed).random((n, k)) < draw(st.sampled_from([0.3, 0.6, 0.9, 1.0]))
        attendance[:3] = True  # so that every difference stays estimable with error left
        attendance[:, 0] |= ~attendance.any(axis=1)
    return attendance, seed


@given(designs(sessions=(2, 2)))
@examples(25)
def test_difference_of_two_sessions_is_the_paired_t_test(design: tuple[NDArray[np.bool_], int]) -> None:
    """Fact 1, also when participants miss a session."""
    attendance, seed = design
    layout, asked = layout_of(attendance), question("ses-02 - ses-01", 2)
    effects = np.random.default_rng(seed).normal(size=(len(layout.participants), N_VOXELS))
    complete = [layout.rows_of(label) for label in layout.unique_participants if len(layout.rows_of(label)) == 2]
    paired = stats.ttest_rel(effects[[rows["02"] for rows in complete]], effects[[rows["01"] for rows in complete]])
    balanced = len(complete) == len(attendance)
    for name in ("session-model", "summary-statistics", *(["marginal"] if balanced else [])):
        ours = estimate(name, layout, asked, effects, subject_effect="indicator")
        np.testing.assert_allclose(ours.t, paired.statistic, rtol=1e-7)
        assert ours.dof == pytest.approx(len(complete) - 1, rel=1e-9)


WEIGHTED = "0.5*ses-02 + 0.25*ses-01"


@given(designs(balanced=True), st.sampled_from([0.0, 1.0, 30.0]))
@examples(25)
def test_balanced_marginal_is_fixed_effects(design: tuple[NDArray[np.bool_], int], ratio: float) -> None:
    """Fact 2: for every session contrast, with n − 1 degrees of freedom, and Hotelling's T² for the joint test."""
    attendance, seed = design
    n, k = attendance.shape
    layout = layout_of(attendance)
    effects = correlated(seed, layout, ratio)
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear", "ses-01", WEIGHTED):
        ours, theirs = (
            estimate(name, layout, question(text, k), effects) for name in ("marginal", "summary-statistics")
        )
        np.testing.assert_allclose(ours.effect, theirs.effect, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(ours.t, theirs.t, rtol=1e-7, atol=1e-8)
        assert (ours.dof, theirs.dof) == pytest.approx((n - 1, n - 1), rel=1e-9)
    if n >= k:
        wald, hotelling = (f_of_any(name, layout, k, effects) for name in ("marginal", "summary-statistics"))
        np.testing.assert_allclose(wald.f, hotelling.f, rtol=1e-5)
        assert (wald.dof_numerator, wald.dof) == pytest.approx(
            (hotelling.dof_numerator, hotelling.dof), rel=1e-7, abs=1e-6
        )


@given(designs(balanced=True), st.sampled_from([0.1, 1.0, 10.0]))
@examples(25)
def test_balanced_mixed_with_variance_between_participants(design: tuple[NDArray[np.bool_], int], ratio: float) -> None:
    """Fact 3: its mean is that of summary-statistics, its differences are those of the session-model with indicators."""
    attendance, seed = design
    n, k = attendance.shape
    layout = layout_of(attendance)
    effects = correlated(seed, layout, ratio)
    cube = effects.reshape(n, k, -1)
    own, across, grand = cube.mean(axis=1), cube.mean(axis=0), cube.mean(axis=(0, 1))
    msb = k * ((own - grand) ** 2).sum(axis=0) / (n - 1)
    msw = ((cube - own[:, None] - across + grand) ** 2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    plan = STRATEGIES["mixed"].plan(layout, question("mean", k), GroupOptions())
    assert isinstance(plan, MixedPlan)
    _, found_ratio = estimate_mixed(plan.spectrum, plan.prepared, effects)
    np.testing.assert_allclose(found_ratio, np.maximum(0, (msb / msw - 1) / k), rtol=1e-8, atol=1e-10)
    interior = msb > msw
    for text, reference, dof in (
        ("mean", "summary-statistics", n - 1),
        (f"ses-{k:02d} - ses-01", "session-model", (n - 1) * (k - 1)),
        ("linear", "session-model", (n - 1) * (k - 1)),
    ):
        mixed = estimate("mixed", layout, question(text, k), effects)
        other = estimate(reference, layout, question(text, k), effects)
        np.testing.assert_allclose(mixed.effect, other.effect, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(mixed.t[interior], other.t[interior], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(np.asarray(mixed.dof)[interior], dof, rtol=1e-6)
        assert other.dof == dof


@given(designs(balanced=True), st.floats(-50, 50))
@examples(25)
def test_constant_per_participant_leaves_every_balanced_difference(
    design: tuple[NDArray[np.bool_], int], size: float
) -> None:
    """Fact 4 for the others; mixed where REML finds variance between participants before and after."""
    attendance, seed = design
    k = attendance.shape[1]
    layout = layout_of(attendance)
    effects = correlated(seed, layout, 3.0)
    shifts = {
        label: size * shift
        for label, shift in zip(layout.unique_participants, np.random.default_rng(seed).normal(size=30), strict=False)
    }
    shifted = effects + np.array([shifts[label] for label in layout.participants])[:, None]
    for text in (f"ses-{k:02d} - ses-01", "linear"):
        for name in ("summary-statistics", "marginal", "mixed"):
            before, after = (estimate(name, layout, question(text, k), values) for values in (effects, shifted))
            np.testing.assert_allclose(after.effect, before.effect, atol=1e-8 * (1 + abs(size)))
            # where REML finds no variance between participants the dof are those of the residuals, N − k
            same = np.broadcast_to(
                np.isclose(after.dof, before.dof, rtol=1e-5) & (np.asarray(after.dof) < len(effects) - k), after.t.shape
            )
            np.testing.assert_allclose(after.variance[same], before.variance[same], rtol=1e-6)
            if name != "mixed":
                assert same.all()


@given(designs(), st.floats(-50, 50))
@examples(25)
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


@pytest.mark.slow
@given(designs(), st.randoms(use_true_random=False))
@examples(25)
def test_renaming_participants_changes_only_linear(design: tuple[NDArray[np.bool_], int], shuffle: object) -> None:
    """Fact 5: the same maps under other labels, hence in another order of participants."""
    attendance, seed = design
    attendance = np.vstack([attendance, np.ones_like(attendance[:3])])  # enough for the joint test of six sessions
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
            ("summary-statistics", {}),
            ("session-model", {"subject_effect": "indicator"}),
            ("session-model", {"subject_effect": "none"}),
            ("marginal", {}),
            ("mixed", {}),
            ("mixed", {"mixed_dof": "kenward-roger"}),
        ):
            before = estimate(name, layout, question(text, k), effects, **options)
            after = estimate(name, other, question(text, k), effects[renamed], **options)
            np.testing.assert_allclose(after.t, before.t, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(after.dof, before.dof, rtol=1e-5)
    for name in ("session-model", "marginal"):
        before_f, after_f = f_of_any(name, layout, k, effects), f_of_any(name, other, k, effects[renamed])
        np.testing.assert_allclose(after_f.f, before_f.f, rtol=1e-5)


def test_renaming_participants_does_change_linear() -> None:
    attendance = np.ones((5, 2), dtype=bool)
    layout, asked = layout_of(attendance), question("ses-02 - ses-01", 2)
    effects = np.random.default_rng(0).normal(size=(10, N_VOXELS))
    swapped = [8, 9, 2, 3, 4, 5, 6, 7, 0, 1]
    before = estimate("session-model", layout, asked, effects, subject_effect="linear")
    after = estimate("session-model", layout, asked, effects[swapped], subject_effect="linear")
    assert np.abs(before.t - after.t).max() > 0.01


@pytest.mark.slow
@given(designs(), st.floats(0.01, 100))
@examples(25)
def test_t_changes_sign_with_the_data_and_ignores_their_scale(
    design: tuple[NDArray[np.bool_], int], factor: float
) -> None:
    """Fact 6."""
    attendance, seed = design
    attendance = np.vstack([attendance, np.ones_like(attendance[:3])])  # enough for the joint test of six sessions
    k = attendance.shape[1]
    layout = layout_of(attendance)
    effects = np.random.default_rng(seed).normal(size=(len(layout.participants), N_VOXELS))
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        for name in STRATEGIES:
            before = estimate(name, layout, question(text, k), effects)
            after = estimate(name, layout, question(text, k), -factor * effects, scale=factor)
            np.testing.assert_allclose(after.t, -before.t, rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(after.z, -before.z, rtol=1e-6, atol=1e-8)
    for name in ("session-model", "marginal"):
        before_f, after_f = f_of_any(name, layout, k, effects), f_of_any(name, layout, k, -factor * effects)
        np.testing.assert_allclose(after_f.f, before_f.f, rtol=1e-6)


@given(designs(), st.sampled_from(["indicator", "linear", "none"]))
@examples(25)
def test_session_model_equals_nilearns_ols_on_full_rank_designs(
    design: tuple[NDArray[np.bool_], int], subject_effect: str
) -> None:
    attendance, seed = design
    k = attendance.shape[1]
    layout, asked = layout_of(attendance), question(f"ses-{k:02d} - ses-01", k)
    plan = STRATEGIES["session-model"].plan(layout, asked, GroupOptions(subject_effect=subject_effect))
    matrix = plan.design_matrix.to_numpy()
    assert np.linalg.matrix_rank(matrix) == matrix.shape[1]
    effects = np.random.default_rng(seed).normal(size=(len(matrix), N_VOXELS))
    ours = plan.estimate(effects, None)
    theirs = OLSModel(matrix).fit(effects).Tcontrast(plan.contrast)
    np.testing.assert_allclose(ours.effect, np.ravel(theirs.effect), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.t, np.ravel(theirs.t), rtol=1e-7, atol=1e-9)
    assert ours.dof == theirs.df_den


@given(designs(balanced=True))
@examples(25)
def test_fixed_effects_is_the_one_sample_test_of_the_combined_values(design: tuple[NDArray[np.bool_], int]) -> None:
    attendance, seed = design
    n, k = attendance.shape
    cube = np.random.default_rng(seed).normal(size=(n, k, N_VOXELS))
    times = np.arange(k) - (k - 1) / 2
    for text, weights in (("mean", np.full(k, 1 / k)), ("linear", times / (times @ times))):
        reference = stats.ttest_1samp(np.einsum("s,nsv->nv", weights, cube), 0)
        ours = estimate("summary-statistics", layout_of(attendance), question(text, k), cube.reshape(n * k, -1))
        np.testing.assert_allclose(ours.t, reference.statistic, rtol=1e-8)
        np.testing.assert_allclose(ours.p, stats.t.sf(reference.statistic, n - 1), rtol=1e-8)


def test_incomplete_participants_are_used_as_far_as_their_sessions_allow() -> None:
    attendance = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    layout = layout_of(attendance)
    strategy = STRATEGIES["summary-statistics"]
    assert not strategy.plan(layout, question("mean", 3), GroupOptions()).left_out
    assert list(strategy.plan(layout, question("linear", 3), GroupOptions()).left_out) == ["05"]
    assert list(strategy.plan(layout, question("ses-02 - ses-01", 3), GroupOptions()).left_out) == ["04", "05"]
    assert (
        strategy.plan(layout, question("ses-03 - ses-01", 3), GroupOptions()).left_out["03"] == "has no map of ses-03"
    )


def test_only_sessions_that_are_asked_about_are_named_as_missing() -> None:
    """Someone with the third session only was said to lack all others that the study has."""
    layout = layout_of(np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 0]], dtype=bool))
    plan = STRATEGIES["summary-statistics"].plan(layout, question("ses-02 - ses-01", 4), GroupOptions())
    assert plan.left_out == {"03": "has no map of ses-01, ses-02"}


@pytest.mark.parametrize(("text", "n_maps"), [("mean", 17), ("ses-02 - ses-01", 10), ("any", 12)])
def test_maps_are_counted_that_a_participants_value_is_made_of(text: str, n_maps: int) -> None:
    """The test of any difference counted all maps of the study, not those of participants who have every session."""
    attendance = np.ones((7, 3), dtype=bool)
    attendance[4:, [1, 2, 2]] = [[False, True, True], [True, False, False], [False, True, True]]
    attendance[6, 0] = False
    layout = layout_of(attendance)
    assert STRATEGIES["summary-statistics"].plan(layout, question(text, 3), GroupOptions()).n_maps == n_maps


@pytest.mark.slow
def test_disconnected_participants_and_sessions_are_refused_in_a_sentence() -> None:
    """Half were scanned in the first session only, half in the second only: no within-participant difference exists."""
    layout = layout_of(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool))
    for name in set(STRATEGIES) - {"marginal"}:
        with pytest.raises(NotEstimableError, match=r"\.$"):
            STRATEGIES[name].plan(layout, question("ses-02 - ses-01", 2), GroupOptions(subject_effect="indicator"))


def test_marginal_compares_different_people_by_welchs_t_and_says_so() -> None:
    """With one map per participant CR2 is the heteroscedasticity-consistent variance HC2, which is Welch's here."""
    layout = layout_of(np.array([[1, 0]] * 4 + [[0, 1]] * 6, dtype=bool))
    effects = np.random.default_rng(2).normal(size=(10, N_VOXELS))
    asked = question("ses-02 - ses-01", 2)
    welch = stats.ttest_ind(effects[4:], effects[:4], equal_var=False)
    np.testing.assert_allclose(estimate("marginal", layout, asked, effects).t, welch.statistic, rtol=1e-10)
    assert "different people" in STRATEGIES["marginal"].plan(layout, asked, GroupOptions()).warnings[0]


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
    assert plan.warnings[0].startswith("Pooling of correlated maps")


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
@examples(25)
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
    monkeypatch.setattr("sessionfx.group.strategies.blocks.VOXELS_PER_BLOCK", 7)
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


# Covariates over participants --------------------------------------------------------------------------------


def with_covariates(layout: MapLayout, covariates: NDArray[np.float64]) -> MapLayout:
    """Add covariates of shape (n, Q), one row per participant."""
    order = {label: row for row, label in enumerate(layout.unique_participants)}
    rows = covariates[[order[label] for label in layout.participants]]
    names = tuple(f"x{column}" for column in range(covariates.shape[1]))
    return MapLayout(layout.participants, layout.sessions, names, rows)


def about(text: str, n_sessions: int, *weights: float) -> Question:
    return Question(question(text, n_sessions).sessions, GroupContrast("g", "g", weights))


def combined(layout: MapLayout, asked: Question, effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value per participant who can answer, by the definition of the session contrast."""
    values = []
    for label in layout.unique_participants:
        rows = layout.rows_of(label)
        weights = asked.sessions.weights_for(list(rows))
        if weights is not None:
            values.append(sum(weight * effects[rows[session]] for session, weight in weights.items()))
    return np.array(values)


def least_squares(
    values: NDArray[np.float64], design: NDArray[np.float64], contrast: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """t and dof of a plain regression."""
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    dof = len(design) - design.shape[1]
    dispersion = ((values - design @ coefficients) ** 2).sum(axis=0) / dof
    return contrast @ coefficients / np.sqrt(dispersion * (contrast @ np.linalg.inv(design.T @ design) @ contrast)), dof


@given(designs(), st.integers(1, 2))
@examples(25)
def test_fixed_effects_with_covariates_is_a_plain_regression(
    design: tuple[NDArray[np.bool_], int], n_covariates: int
) -> None:
    attendance, seed = design
    attendance = np.vstack([attendance, np.ones_like(attendance[:3])])
    n, k = attendance.shape
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(n, n_covariates))
    covariates -= covariates.mean(axis=0)
    layout = with_covariates(layout_of(attendance), covariates)
    effects = rng.normal(size=(len(layout.participants), N_VOXELS))
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        for weights in (np.eye(1 + n_covariates)[0], np.eye(1 + n_covariates)[1], rng.normal(size=1 + n_covariates)):
            asked = about(text, k, *weights)
            usable = [
                asked.sessions.weights_for(list(layout.rows_of(label))) is not None
                for label in layout.unique_participants
            ]
            matrix = np.column_stack([np.ones(sum(usable)), covariates[usable]])
            expected, dof = least_squares(combined(layout, asked, effects), matrix, weights)
            ours = estimate("summary-statistics", layout, asked, effects)
            np.testing.assert_allclose(ours.t, expected, rtol=1e-7, atol=1e-8)
            assert ours.dof == dof


@pytest.mark.slow
@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 2**32 - 1))
@examples(25)
def test_balanced_marginal_is_fixed_effects_for_groups_of_equal_size(size: int, k: int, seed: int) -> None:
    """Fact 2 with a group, for every session contrast × group contrast; n − 2 degrees of freedom, or the voxel's."""
    n = 2 * size
    group = np.repeat([1.0, -1.0], size)[:, None]
    layout = with_covariates(layout_of(np.ones((n, k), dtype=bool)), group)
    effects = correlated(seed, layout)
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        for weights in ((1.0, 0.0), (0.0, 2.0), (1.0, 1.0)):
            asked = about(text, k, *weights)
            ours, theirs = (estimate(name, layout, asked, effects) for name in ("marginal", "summary-statistics"))
            np.testing.assert_allclose(ours.effect, theirs.effect, rtol=1e-8, atol=1e-9)
            if weights != (1.0, 1.0):  # the level of one group has that group's own variance, see below
                np.testing.assert_allclose(ours.t, theirs.t, rtol=1e-7, atol=1e-8)
                assert np.all(ours.dof <= n - 2 + 1e-6)
    if n - 2 >= k - 1:
        layout_f = [
            answer(name, layout, about("any", k, 0.0, 2.0), effects) for name in ("marginal", "summary-statistics")
        ]
        q = k - 1
        t_squared = [found.f * q * (found.dof + q - 1) / found.dof for found in layout_f]
        np.testing.assert_allclose(*t_squared, rtol=1e-5)
        assert np.all(layout_f[0].dof <= layout_f[1].dof + 1e-6)


@given(st.integers(4, 30), st.integers(2, 6), st.integers(1, 2), st.integers(0, 2**32 - 1))
@examples(25)
def test_balanced_marginal_with_covariates_has_the_estimate_of_fixed_effects_and_hc2_errors(
    n: int, k: int, n_covariates: int, seed: int
) -> None:
    """Participants of unlike leverage: one value each, the same coefficients, errors that allow unequal variances."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(n, n_covariates))
    covariates -= covariates.mean(axis=0)
    layout = with_covariates(layout_of(np.ones((n, k), dtype=bool)), covariates)
    effects = correlated(seed, layout)
    matrix = np.column_stack([np.ones(n), covariates])
    hat = matrix @ np.linalg.pinv(matrix)
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        weights = rng.normal(size=1 + n_covariates)
        asked = about(text, k, *weights)
        values = combined(layout, asked, effects)
        residuals = values - hat @ values
        loadings = weights @ np.linalg.pinv(matrix)
        ours = estimate("marginal", layout, asked, effects)
        np.testing.assert_allclose(
            ours.effect, estimate("summary-statistics", layout, asked, effects).effect, rtol=1e-7, atol=1e-8
        )
        hc2 = (loadings**2 / (1 - np.diag(hat))) @ residuals**2  # MacKinnon & White 1985
        np.testing.assert_allclose(ours.variance, hc2, rtol=1e-6)
        spread = np.diag(loadings / np.sqrt(1 - np.diag(hat))) @ (np.eye(n) - hat)
        gram = spread @ spread.T
        most = np.trace(gram) ** 2 / np.trace(gram @ gram)
        assert np.all((ours.dof <= most * (1 + 1e-6)) & (ours.dof >= min(1.0, most) * (1 - 1e-6)))


@given(st.integers(2, 12), st.integers(2, 12), st.integers(2, 5), st.integers(0, 2**32 - 1))
@examples(25)
def test_change_that_differs_between_groups_is_a_two_sample_test_of_the_changes(
    first: int, second: int, k: int, seed: int
) -> None:
    """Pooled variance in summary-statistics, and in the session-model of two sessions; Welch's in marginal."""
    n = first + second
    group = np.repeat([1.0, -1.0], [first, second])[:, None]
    layout = with_covariates(layout_of(np.ones((n, k), dtype=bool)), group)
    effects = correlated(seed, layout)
    cube = effects.reshape(n, k, -1)
    changes = cube[:, -1] - cube[:, 0]
    asked = about(f"ses-{k:02d} - ses-01", k, 0.0, 2.0)
    pooled = stats.ttest_ind(changes[:first], changes[first:])
    welch = stats.ttest_ind(changes[:first], changes[first:], equal_var=False)
    ours = estimate("summary-statistics", layout, asked, effects)
    np.testing.assert_allclose(ours.t, pooled.statistic, rtol=1e-7, atol=1e-8)
    assert ours.dof == n - 2
    np.testing.assert_allclose(estimate("marginal", layout, asked, effects).t, welch.statistic, rtol=1e-7, atol=1e-8)
    if k == 2:
        model = estimate("session-model", layout, asked, effects)
        np.testing.assert_allclose(model.t, pooled.statistic, rtol=1e-7, atol=1e-8)
        assert model.dof == n - 2


# Covariates of sessions --------------------------------------------------------------------------------------


def with_session_covariate(layout: MapLayout, values: NDArray[np.float64], name: str = "days") -> MapLayout:
    return MapLayout(
        layout.participants, layout.sessions, session_covariate_names=(name,), session_covariates=values[:, None]
    )


def is_the_trend(
    layout: MapLayout,
    asked: Question,
    times: NDArray[np.float64],
    effects: NDArray[np.float64],
    degree: int,
    rtol: float,
) -> None:
    """Check the one-sample test of participants' own polynomials, and that of one polynomial for everyone.

    The latter, beside a level for each, is the session-model's ordinary least squares of measured times.
    """
    centred = (times - times.mean()) / times.std()
    participants = [list(layout.rows_of(label).values()) for label in layout.unique_participants]
    own = [np.polyfit(centred[rows], effects[rows], degree)[0] for rows in participants if len(rows) > degree]
    ours = estimate("summary-statistics", layout, asked, effects)
    np.testing.assert_allclose(ours.t, stats.ttest_1samp(np.array(own), 0).statistic, rtol=rtol, atol=rtol / 10)
    assert ours.dof == len(own) - 1
    if layout.session_covariate_names:
        levels = np.equal.outer(layout.participants, layout.unique_participants).astype(float)
        matrix = np.hstack([np.vander(centred, degree + 1)[:, :-1], levels])
        expected, dof = least_squares(effects, matrix, np.eye(matrix.shape[1])[0])
        model = estimate("session-model", layout, asked, effects)
        np.testing.assert_allclose(model.t, expected, rtol=rtol, atol=rtol / 10)
        assert model.dof == dof


def times_of(plain: MapLayout, rng: np.random.Generator, *, measured: bool) -> tuple[NDArray[np.float64], MapLayout]:
    """Numbers of the sessions, or days about a month apart, and the layout that has them."""
    times = np.array([float(session) for session in plain.sessions])
    if not measured:
        return times, plain
    days = 30 * times + rng.uniform(0, 20, size=len(times))
    return days, with_session_covariate(plain, days)


@given(designs())
@examples(25)
def test_measured_trend_is_the_one_sample_test_of_participants_own_slopes(
    design: tuple[NDArray[np.bool_], int],
) -> None:
    attendance, seed = design
    days, layout = times_of(layout_of(attendance), np.random.default_rng(seed), measured=True)
    asked = question("linear(days)", attendance.shape[1])
    is_the_trend(layout, asked, days, correlated(seed, layout), degree=1, rtol=1e-6)


@pytest.mark.parametrize(("text", "degree"), [("cubic", 3), ("degree-4", 4), ("cubic(days)", 3)])
def test_a_trend_of_any_degree_is_of_each_participants_own_polynomial(text: str, degree: int) -> None:
    rng = np.random.default_rng(degree)
    attendance = rng.random((14, 6)) < 0.85
    attendance[:3] = True
    times, layout = times_of(layout_of(attendance), rng, measured="(" in text)
    effects = correlated(5, layout)
    is_the_trend(layout, question(text, 6), times, effects, degree, rtol=1e-6)
    lower = np.vander((times - times.mean()) / times.std(), degree + 1)[:, 1:-1] @ rng.normal(size=(degree - 1, 2))
    for name in ("marginal", "mixed"):  # lower powers alone have no coefficient of the highest
        found = estimate(name, layout, question(text, 6), lower + 1e-6 * effects[:, :2])
        assert np.abs(found.effect * times.std() ** degree).max() < 1e-4


@pytest.mark.parametrize("n_sessions", [1, 3])
def test_a_degree_needs_more_sessions_in_a_sentence(n_sessions: int) -> None:
    layout = layout_of(np.ones((8, n_sessions), dtype=bool))
    there = {1: "is one session", 3: "are 3 sessions"}[n_sessions]
    for name in ("summary-statistics", "marginal", "mixed", "session-model"):
        with pytest.raises(NotEstimableError, match=f"There {there} only, and the cubic trend needs four"):
            estimate(name, layout, question("cubic", n_sessions), correlated(0, layout))


@pytest.mark.parametrize("measured", [False, True])
@given(designs())
@examples(25)
def test_curvature_is_of_each_participants_own_parabola(measured: bool, design: tuple[NDArray[np.bool_], int]) -> None:
    attendance, seed = design
    attendance = np.vstack([attendance, np.ones_like(attendance[:3])])
    attendance = np.column_stack([attendance, np.ones((len(attendance), 2), dtype=bool)])
    times, layout = times_of(layout_of(attendance), np.random.default_rng(seed), measured=measured)
    effects = correlated(seed, layout)
    asked = question("quadratic(days)" if measured else "quadratic", attendance.shape[1])
    is_the_trend(layout, asked, times, effects, degree=2, rtol=1e-5)
    if measured:  # a straight line in truth has no curvature, for any strategy
        line = np.repeat((times - times.mean())[:, None], 2, axis=1) + 1e-6 * effects[:, :2]
        for name in ("marginal", "mixed"):
            assert np.abs(estimate(name, layout, asked, line).effect).max() < 1e-6


@given(designs(), st.floats(-1000, 1000), st.floats(0.1, 100))
@examples(25)
def test_times_that_go_with_the_number_of_the_session_give_the_t_of_the_trend(
    design: tuple[NDArray[np.bool_], int], start: float, step: float
) -> None:
    attendance, seed = design
    k = attendance.shape[1]
    plain = layout_of(attendance)
    layout = with_session_covariate(plain, start + step * np.array([float(session) for session in plain.sessions]))
    effects = correlated(seed, layout)
    by_time = estimate("summary-statistics", layout, question("linear(days)", k), effects)
    by_number = estimate("summary-statistics", plain, question("linear", k), effects)
    np.testing.assert_allclose(by_time.t, by_number.t, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(by_time.effect * step, by_number.effect, rtol=1e-6, atol=1e-8)
    assert by_time.dof == by_number.dof


@given(designs())
@examples(25)
def test_session_covariates_are_adjusted_for_by_what_they_add_up_to(design: tuple[NDArray[np.bool_], int]) -> None:
    """Fixed-effects regresses c′y on a constant and c′w; with two sessions the session-model is the same."""
    attendance, seed = design
    attendance = np.vstack([attendance, np.ones_like(attendance[:2])])
    k = attendance.shape[1]
    plain, rng = layout_of(attendance), np.random.default_rng(seed)
    score = rng.normal(2, 1, size=len(plain.sessions))
    layout = with_session_covariate(plain, score, "score")
    effects = correlated(seed, layout) + score[:, None]
    for text in ("mean", f"ses-{k:02d} - ses-01", "linear"):
        asked = question(text, k)
        own = combined(plain, asked, (score - score.mean())[:, None])
        matrix = np.column_stack([np.ones(len(own)), own])
        expected, dof = least_squares(combined(plain, asked, effects), matrix, np.array([1.0, 0.0]))
        ours = estimate("summary-statistics", layout, asked, effects)
        np.testing.assert_allclose(ours.t, expected, rtol=1e-6, atol=1e-7)
        assert ours.dof == dof
        if k == 2 and text.startswith("ses"):
            model = estimate("session-model", layout, asked, effects)
            np.testing.assert_allclose(model.t, expected, rtol=1e-6, atol=1e-7)
            assert model.dof == dof
    with pytest.raises(NotEstimableError, match="cannot adjust"):
        STRATEGIES["summary-statistics"].plan(layout, question("any", k), GroupOptions())

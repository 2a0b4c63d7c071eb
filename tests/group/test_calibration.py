"""Calibration: simulated rates against what theory says they must be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from map_stacks import layout_of
from normal_maps import NormalNoise, compound_symmetry
from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.calibration import binomial_interval, calibrate
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question

N_VOXELS = 20_000
# A true rate lies outside of this interval once in 100,000 cases; seeds are fixed, so a test that passes keeps passing.
LEVEL = 1 - 1e-5


def sessions_of(n_sessions: int) -> tuple[str, ...]:
    return tuple(f"{index + 1:02d}" for index in range(n_sessions))


def full(n_participants: int, n_sessions: int) -> NDArray[np.bool_]:
    return np.ones((n_participants, n_sessions), dtype=bool)


def table_of(
    attendance: NDArray[np.bool_],
    texts: list[str],
    covariance: NDArray[np.float64],
    *,
    strategies: list[str] | None = None,
    covariate: NDArray[np.float64] | None = None,
    group: GroupContrast = INTERCEPT,
    means: NDArray[np.float64] | None = None,
    n_voxels: int = N_VOXELS,
    seed: int = 7,
) -> pd.DataFrame:
    """Calibrate, with one row per question and strategy in the index."""
    sessions = sessions_of(attendance.shape[1])
    chosen = {name: STRATEGIES[name] for name in strategies or STRATEGIES}
    questions = [Question(asked, group) for asked in resolve_session_contrasts(texts, sessions)]
    layout = layout_of(attendance, **({} if covariate is None else {"age": covariate}))
    noise = NormalNoise(layout, sessions, covariance, means)
    table = calibrate(layout, questions, chosen, GroupOptions(), noise, n_voxels=n_voxels, seed=seed)
    return table.set_index(["question", "strategy"])


def is_compatible(rate: float, expected: float) -> bool:
    lower, upper = binomial_interval(round(rate * N_VOXELS), N_VOXELS, LEVEL)
    return bool(lower <= expected <= upper)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k", "icc"), [(12, 3, 0.5), (8, 2, 0.9), (20, 5, 0.3)])
def test_pooled_mean_has_the_false_positives_of_a_t_that_is_too_wide(n: int, k: int, icc: float) -> None:
    """Under compound symmetry t = √between · z / √((between·χ²ₙ₋₁ + within·χ²ₙ₍ₖ₋₁₎) / dof), mixed numerically here."""
    rng = np.random.default_rng(3)
    between, within = 1 + (k - 1) * icc, 1 - icc
    # the pooled model has one column per session: n(k − 1) − (k − 1) within, n − 1 between, of nk − k degrees of freedom
    dispersion = (between * rng.chisquare(n - 1, 2_000_000) + within * rng.chisquare((n - 1) * (k - 1), 2_000_000)) / (
        n * k - k
    )
    table = table_of(full(n, k), ["mean"], compound_symmetry(k, icc), strategies=["session-model"])
    for alpha in (0.05, 0.001):
        critical = stats.t.isf(alpha / 2, n * k - k)
        expected = 2 * stats.norm.sf(critical * np.sqrt(dispersion / between)).mean()
        assert expected > 1.5 * alpha
        assert is_compatible(table[f"rate_{alpha:g}"].iloc[0], expected)


@pytest.mark.slow
def test_pooled_mean_has_a_t_with_the_sd_of_fact_7() -> None:
    """sd √(1+(k−1)ρ): with many participants the rate is that of a normal deviate so much wider."""
    k, icc = 4, 0.6
    table = table_of(full(120, k), ["mean"], compound_symmetry(k, icc), strategies=["session-model"])
    expected = 2 * stats.norm.sf(stats.norm.isf(0.025) / np.sqrt(1 + (k - 1) * icc))
    assert is_compatible(table["rate_0.05"].iloc[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "covariance",
    [
        compound_symmetry(3, 0.9),
        np.diag([1.0, 4.0, 25.0]),
        np.diag([1.0, 2.0, 3.0]) @ (0.5 * np.eye(3) + 0.5) @ np.diag([1.0, 2.0, 3.0]),
    ],
    ids=["compound symmetry", "unequal variances", "unequal variances, correlated"],
)
def test_fixed_effects_and_marginal_keep_the_nominal_rate(covariance: NDArray[np.float64]) -> None:
    texts = ["mean", "ses-03 - ses-01", "linear", "any"]
    table = table_of(full(12, 3), texts, covariance, strategies=["summary-statistics", "marginal"])
    for alpha in (0.05, 0.001):
        assert all(is_compatible(rate, alpha) for rate in table[f"rate_{alpha:g}"])
        assert (table[f"rate_{alpha:g}_lower"] < table[f"rate_{alpha:g}"]).all()
        assert (table[f"rate_{alpha:g}_upper"] > table[f"rate_{alpha:g}"]).all()
    assert table.loc["mean", "dof"].tolist() == pytest.approx([11, 11])
    assert table.loc["any", "dof"].tolist() == pytest.approx([10, 10])


@pytest.mark.slow
def test_degrees_of_freedom_are_the_median_over_voxels_as_those_of_answers() -> None:
    """Those of a balanced mean by `mixed` are n - 1 wherever participants are seen to vary."""
    table = table_of(full(12, 3), ["mean"], compound_symmetry(3, 0.3), strategies=["mixed"])
    assert table.loc["mean", "dof"].tolist() == pytest.approx([11])


@pytest.mark.slow
def test_session_model_difference_is_too_liberal_without_sphericity() -> None:
    table = table_of(full(12, 3), ["ses-03 - ses-01"], np.diag([25.0, 1.0, 25.0]))
    rates = table.loc["ses-03 - ses-01", "rate_0.05"]
    # t is inflated by the ratio of this difference's variance to the mean of all differences' variances
    assert rates["session-model"] > 0.08
    assert rates["mixed"] > 0.08
    assert is_compatible(rates["summary-statistics"], 0.05)


@pytest.mark.parametrize("text", ["mean", "ses-03 - ses-01", "linear", "0.5*ses-02 + 0.5*ses-03 - ses-01"])
def test_power_of_fixed_effects_is_that_of_the_noncentral_t(text: str) -> None:
    n, covariance = 10, np.array([[2.0, 0.5, 0.2], [0.5, 1.0, 0.6], [0.2, 0.6, 3.0]])
    table = table_of(full(n, 3), [text], covariance, strategies=["summary-statistics"])
    for alpha in (0.05, 0.001):
        critical = stats.t.isf(alpha / 2, n - 1)
        t = stats.nct(n - 1, 3.0)
        assert is_compatible(table[f"power_{alpha:g}"].iloc[0], t.sf(critical) + t.cdf(-critical))


def test_power_of_a_test_over_all_sessions_is_that_of_the_noncentral_f() -> None:
    n, covariance = 12, np.array([[2.0, 0.5, 0.2], [0.5, 1.0, 0.6], [0.2, 0.6, 3.0]])
    table = table_of(full(n, 3), ["any"], covariance, strategies=["summary-statistics"])
    expected = stats.ncf(2, n - 2, 3.0**2).sf(stats.f.isf(0.05, 2, n - 2))
    assert is_compatible(table["power_0.05"].iloc[0], expected)


@pytest.mark.parametrize("text", ["mean", "ses-03 - ses-01", "any"])
def test_power_for_a_covariate_is_that_of_its_regression(text: str) -> None:
    n = 14
    age = np.linspace(-3, 3, n) ** 3
    group = GroupContrast("age", "age", (0.0, 1.0))
    covariance = compound_symmetry(3, 0.5)
    table = table_of(
        full(n, 3), [text], covariance, strategies=["summary-statistics"], covariate=age - age.mean(), group=group
    )
    if text == "any":
        expected = stats.ncf(2, n - 3, 9.0).sf(stats.f.isf(0.05, 2, n - 3))
    else:
        critical, t = stats.t.isf(0.025, n - 2), stats.nct(n - 2, 3.0)
        expected = t.sf(critical) + t.cdf(-critical)
    assert is_compatible(table["power_0.05"].iloc[0], expected)
    assert is_compatible(table["rate_0.05"].iloc[0], 0.05)


def test_trend_over_a_measured_time_has_the_power_of_the_trend_over_sessions_when_the_times_are_equal() -> None:
    n, sessions = 10, sessions_of(3)
    asked = [Question(contrast) for contrast in resolve_session_contrasts(["linear", "linear(days)"], sessions)]
    plain = layout_of(full(n, 3))
    days = np.tile([0.0, 10.0, 20.0], n)[:, None]
    layout = MapLayout(plain.participants, plain.sessions, session_covariate_names=("days",), session_covariates=days)
    covariance = np.array([[2.0, 0.5, 0.2], [0.5, 1.0, 0.6], [0.2, 0.6, 3.0]])
    strategies = {"summary-statistics": STRATEGIES["summary-statistics"]}
    over_sessions, over_days = (
        calibrate(
            maps, [question], strategies, GroupOptions(), NormalNoise(maps, sessions, covariance), n_voxels=4000, seed=3
        ).iloc[0]
        for maps, question in zip((plain, layout), asked, strict=True)
    )
    assert over_days["effect"] == pytest.approx(over_sessions["effect"] / 10)
    for column in ("rate_0.05", "power_0.05"):
        assert over_days[column] == pytest.approx(over_sessions[column], abs=2 / 4000)


def test_power_refers_to_the_best_estimator_where_fixed_effects_cannot_answer() -> None:
    """No participant has both sessions of the difference, so that it is one between two groups of 10 and 10 maps."""
    attendance = full(20, 2)
    attendance[:10, 1] = attendance[10:, 0] = False
    table = table_of(attendance, ["ses-02 - ses-01"], np.diag([1.0, 4.0]), n_voxels=200)
    fixed_effects, marginal = (table.loc[("ses-02 - ses-01", name)] for name in ("summary-statistics", "marginal"))
    assert fixed_effects["status"] == "declined"
    assert marginal["effect"] == pytest.approx(3 * np.sqrt((1 + 4) / 10))
    assert 0.6 < marginal["power_0.05"] < 0.95


@pytest.mark.slow
def test_incomplete_participants_enter_power_of_fixed_effects_as_they_enter_the_model() -> None:
    """The paired t test on the 7 complete of 12 participants; the marginal model also uses the others."""
    attendance = full(12, 2)
    attendance[:3, 1] = attendance[3:5, 0] = False
    table = table_of(attendance, ["ses-02 - ses-01"], compound_symmetry(2, 0.0))
    critical, t = stats.t.isf(0.025, 6), stats.nct(6, 3.0)
    power = table.loc["ses-02 - ses-01", "power_0.05"]
    assert is_compatible(power["summary-statistics"], t.sf(critical) + t.cdf(-critical))
    assert power["marginal"] > power["summary-statistics"] + 0.05


@pytest.mark.slow
def test_dropout_with_a_true_session_effect_biases_the_fixed_effects_mean_only() -> None:
    attendance = full(20, 3)
    attendance[10:, 1:] = False
    covariance = compound_symmetry(3, 0.5)
    table = table_of(
        attendance,
        ["mean", "ses-03 - ses-01"],
        covariance,
        strategies=["summary-statistics", "marginal"],
        means=np.array([-1.0, 0.0, 1.0]),
    )["rate_0.05"]
    assert table["mean", "summary-statistics"] > 0.2
    assert table["mean", "marginal"] < 0.055
    assert table["ses-03 - ses-01", "summary-statistics"] < 0.055
    assert table["ses-03 - ses-01", "marginal"] < 0.055


def test_simulated_maps_have_the_covariance_of_the_sessions_there_are() -> None:
    covariance = np.array([[4.0, 1.0, -1.0], [1.0, 2.0, 0.5], [-1.0, 0.5, 1.0]])
    attendance = np.array([[True, True, True], [True, False, True], [False, True, False]])
    effects = (
        NormalNoise(layout_of(attendance), sessions_of(3), covariance).draw(400_000, np.random.default_rng(5)).noise
    )
    expected = np.zeros((6, 6))
    expected[:3, :3] = covariance
    expected[3:5, 3:5] = covariance[::2, ::2]
    expected[5, 5] = 2.0
    np.testing.assert_allclose(np.cov(effects), expected, atol=0.03)
    np.testing.assert_allclose(effects.mean(axis=1), 0, atol=0.015)


@pytest.mark.slow
def test_equal_seeds_give_equal_tables() -> None:
    covariance = compound_symmetry(3, 0.4)

    def draw(seed: int) -> pd.DataFrame:
        return table_of(full(6, 3), [], covariance, n_voxels=5000, seed=seed)

    pd.testing.assert_frame_equal(draw(1), draw(1))
    assert not draw(1)["rate_0.05"].equals(draw(2)["rate_0.05"])


def test_a_strategy_that_cannot_answer_is_declined_with_its_reason() -> None:
    table = table_of(full(3, 4), ["any", "mean"], compound_symmetry(4, 0.5), n_voxels=100)
    declined = table.loc["any"].loc["summary-statistics"]
    assert declined["status"] == "declined"
    assert "too few for Hotelling" in declined["reason"]
    assert np.isnan(declined["rate_0.05"])
    # meta needs variances, which are not drawn, and may not be installed
    assert (table.loc["mean"].drop("meta")["status"] == "estimated").all()


def test_precision_weights_are_declined_because_no_variances_are_drawn() -> None:
    sessions = sessions_of(2)
    questions = [Question(asked) for asked in resolve_session_contrasts(["mean", "ses-02 - ses-01"], sessions)]
    layout = layout_of(full(5, 2))
    table = calibrate(
        layout,
        questions,
        {"summary-statistics": STRATEGIES["summary-statistics"]},
        GroupOptions(fixed_effects="precision"),
        NormalNoise(layout, sessions, compound_symmetry(2, 0.5)),
        n_voxels=50,
        seed=1,
    )
    assert table["status"].tolist() == ["declined", "estimated"]
    assert "sampling variances" in table["reason"][0]


@pytest.mark.slow
def test_twenty_by_three_with_every_strategy() -> None:
    table = table_of(full(20, 3), [], compound_symmetry(3, 0.5))
    assert len(table) == 6 * len(STRATEGIES)

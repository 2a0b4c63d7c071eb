"""Intervals of sessions, pointwise and simultaneous: quantiles, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from sessionfx.statistics import intervals
from sessionfx.statistics.intervals import interval, largest_t_quantile, session_intervals


@pytest.mark.parametrize(("n", "shared", "dof"), [(2, 0.8, 9.5), (3, 0.5, 5.0), (6, 0.5, 13.0), (10, 0.3, 40.0)])
def test_the_quantile_of_equally_correlated_estimates_is_that_of_two_integrals(
    n: int, shared: float, dof: float
) -> None:
    """Given what they share and the estimated variance they are independent."""
    found = largest_t_quantile(np.full((n, n), shared) + (1 - shared) * np.eye(n), dof)
    nodes, weights = np.polynomial.legendre.leggauss(300)
    common, scale = 8 * nodes[None], 2.5 * (nodes[:, None] + 1)
    of_common, of_scale = (
        8 * weights * stats.norm.pdf(8 * nodes),
        2.5 * weights * stats.chi.pdf(scale[:, 0] * np.sqrt(dof), dof) * np.sqrt(dof),
    )
    upper, lower = (
        special.ndtr((sign * found * scale - np.sqrt(shared) * common) / np.sqrt(1 - shared)) for sign in (1, -1)
    )
    assert of_scale @ (upper - lower) ** n @ of_common == pytest.approx(0.95, abs=1e-4)


def test_the_quantile_is_between_that_of_one_t_and_bonferroni() -> None:
    one, three = stats.t.isf(0.025, 7.5), stats.t.isf(0.025 / 3, 7.5)
    assert largest_t_quantile(np.ones((3, 3)), 7.5) == pytest.approx(one)
    assert largest_t_quantile(np.eye(1), 7.5) == pytest.approx(one)
    assert one < largest_t_quantile(np.eye(3), 7.5) < three


def test_a_session_that_too_few_have_has_no_interval() -> None:
    effects = np.random.default_rng(0).normal(size=(8, 3))
    effects[1:, 2] = np.nan
    found = session_intervals(effects)
    assert np.isnan([found.effect[2], found.error[2], found.of_all[2, 1]]).all()
    alone = session_intervals(effects[:, :2])
    np.testing.assert_array_equal(found.of_all[:2], alone.of_all)


def test_numbers_scale_with_the_effects_and_ignore_the_order_of_participants() -> None:
    effects = np.random.default_rng(1).normal(size=(9, 3))
    effects[2, 0] = np.nan
    found, scaled = session_intervals(effects), session_intervals(-3 * effects[::-1])
    np.testing.assert_allclose(scaled.of_all, -3 * found.of_all[:, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 25])
def test_intervals_hold_what_they_say_in_95_percent_of_studies(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = intervals._directions(3)[: 2**12]  # a quantile to 0.005, for thousands of studies
    monkeypatch.setattr(intervals, "_directions", lambda n_dimensions: coarse)
    rng = np.random.default_rng(n)
    truth = np.array([0.2, 0.5, 0.4])
    n_studies, own, all_sessions, at_once = 4000, 0, 0, 0
    for _ in range(n_studies):
        effects = truth + rng.normal(size=(n, 1)) + rng.normal(size=(n, 3)) * [0.6, 1.0, 1.6]
        effects[rng.permutation(n)[: n // 5], rng.integers(3)] = np.nan
        found = session_intervals(effects)
        holds = (found.of_each[:, 0] <= truth) & (truth <= found.of_each[:, 1])
        own += holds[0]
        all_sessions += holds.all()
        at_once += ((found.of_all[:, 0] <= truth) & (truth <= found.of_all[:, 1])).all()
    error = np.sqrt(0.95 * 0.05 / n_studies)
    assert own / n_studies == pytest.approx(0.95, abs=3 * error)
    assert all_sessions / n_studies < 0.92
    # the sessions' variances are estimated each by itself, where the quantile is for a common one: a little too narrow
    assert at_once / n_studies == pytest.approx(0.95, abs=3 * error + 0.005)


def test_the_interval_of_an_estimate_is_that_of_its_t() -> None:
    lower, upper = interval(np.array([1.0, -2.0]), np.array([4.0, 1.0]), np.array([10.0, 3.0]))
    np.testing.assert_allclose(lower, np.array([1.0, -2.0]) - stats.t.ppf(0.975, [10, 3]) * [2.0, 1.0])
    np.testing.assert_allclose(upper + lower, [2.0, -4.0])

"""Thresholds, agreement, z values and fixed effects against independent references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm import fdr_threshold
from nilearn.glm.contrasts import Contrast
from scipy import stats

from least_squares import fit_ols
from properties import examples
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.statistics.agreement import compare
from sessionfx.statistics.estimates import Estimate, t_to_z
from sessionfx.statistics.fixed_effects import weighted_sum
from sessionfx.statistics.thresholds import z_threshold


@given(st.integers(0, 2**32 - 1), st.floats(1, 300), st.floats(0.1, 60))
@examples(50)
def test_t_z_and_p_equal_nilearns(seed: int, dof: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    effect, variance = spread * rng.normal(size=40), rng.uniform(0.5, 2, size=40)
    ours, theirs = Estimate(effect, variance, dof), Contrast(effect, variance, dof=dof)
    np.testing.assert_allclose(ours.t, theirs.stat(), rtol=1e-12)
    np.testing.assert_allclose(ours.p, theirs.p_value(), rtol=1e-8, atol=1e-300)
    np.testing.assert_allclose(ours.z, theirs.z_score(), rtol=1e-6, atol=1e-9)


def test_z_is_odd_and_stays_finite_for_huge_t() -> None:
    t = np.array([0.0, 1, 50, 1e4, 1e8])
    np.testing.assert_array_equal(t_to_z(-t, 80)[1:], -t_to_z(t, 80)[1:])
    assert np.isfinite(t_to_z(t, 1e6)).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.05, 0.2]), st.floats(0, 4))
@examples(50)
def test_fdr_threshold_selects_the_voxels_nilearn_selects(seed: int, alpha: float, effect: float) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=500) + effect * (rng.uniform(size=500) < 0.2)
    ours, theirs = z_threshold(z, alpha, "fdr"), fdr_threshold(np.abs(z), alpha / 2)
    np.testing.assert_array_equal(np.abs(z) >= ours, np.abs(z) >= theirs)


@given(st.integers(0, 2**32 - 1))
@examples(50)
def test_fdr_threshold_as_written_keeps_the_same_voxels_of_a_map_as_written(seed: int) -> None:
    """The last voxel fell below its own z in half of the maps: they are in single precision."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=500) + 4 * (rng.uniform(size=500) < 0.2)
    written = float(f"{z_threshold(z, 0.05, 'fdr'):.10g}")
    passing = stats.false_discovery_control(2 * stats.norm.sf(np.abs(z))) <= 0.05
    np.testing.assert_array_equal(np.abs(z.astype(np.float32)) >= written, passing)


def test_bonferroni_and_uncorrected_thresholds_are_normal_quantiles() -> None:
    z = np.zeros(1000)
    assert z_threshold(z, 0.05, "bonferroni") == pytest.approx(stats.norm.isf(0.05 / 2 / 1000))
    assert z_threshold(z, 0.05, "none") == pytest.approx(1.959964, abs=1e-6)
    assert z_threshold(z, 0.05, "fdr") == np.inf


def test_agreement_follows_its_definitions() -> None:
    rng = np.random.default_rng(5)
    a = rng.normal(size=2000)
    b = 0.8 * a + 0.3 + 0.2 * rng.normal(size=2000)
    found = compare(a, b, 1.5, 1.2)
    assert found.pearson_r == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    concordance = 2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    assert found.concordance == pytest.approx(concordance)
    assert found.bias == pytest.approx((a - b).mean())
    assert found.loa_upper - found.loa_lower == pytest.approx(2 * 1.96 * (a - b).std(ddof=1))
    above_a, above_b = np.abs(a) >= 1.5, np.abs(b) >= 1.2
    same_sign = above_a & above_b & (np.sign(a) == np.sign(b))
    assert found.dice == pytest.approx(2 * same_sign.sum() / (above_a.sum() + above_b.sum()))
    assert found.max_abs_difference == np.abs(a - b).max()


def test_a_map_agrees_with_itself_and_nothing_is_nan_but_what_is_undefined() -> None:
    a = np.random.default_rng(6).normal(size=100)
    same = compare(a, a, 1.0, 1.0)
    assert (same.pearson_r, same.concordance, same.bias, same.dice, same.max_abs_difference) == pytest.approx(
        (1, 1, 0, 1, 0)
    )
    assert np.isnan(compare(a, a, np.inf, np.inf).dice)
    assert np.isnan(compare(np.ones(9), a[:9], 1, 1).pearson_r)


def test_weighted_sum_skips_inputs_without_weight() -> None:
    one, other = Estimate(np.ones(2), np.ones(2), 10), Estimate(np.full(2, 5.0), np.full(2, 4.0), 20)
    total = weighted_sum([one, other, other], [1, -0.5, 0])
    np.testing.assert_allclose(total.effect, 1 - 2.5)
    np.testing.assert_allclose(total.variance, 1 + 0.25 * 4)
    # (1 + 1)² / (1²/10 + 1²/20)
    np.testing.assert_allclose(total.dof, 4 / 0.15)
    assert weighted_sum([one, other, other], [1, -0.5, 0], "sum").dof == 30


def test_precision_weighted_group_tests_the_participants_precision_maps() -> None:
    rng = np.random.default_rng(9)
    effects, variances = rng.normal(size=(8, 5)), rng.uniform(0.2, 2, size=(8, 5))
    layout = MapLayout(tuple("aabbccdd"), ("1", "2") * 4)
    asked = Question(resolve_session_contrasts(["mean"], ["1", "2"])[0])
    plan = STRATEGIES["summary-statistics"].plan(layout, asked, GroupOptions(fixed_effects="precision"))
    weights = 1 / variances.reshape(4, 2, 5)
    combined = (weights * effects.reshape(4, 2, 5)).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(plan.estimate(effects, variances).t, stats.ttest_1samp(combined, 0).statistic, rtol=1e-9)


def test_ols_on_a_rank_deficient_design_keeps_the_degrees_of_freedom_honest() -> None:
    """nilearn divides by N − P there; the one-sample test is the reference."""
    rng = np.random.default_rng(10)
    values = rng.normal(1, 1, size=(12, 6))
    doubled = np.ones((12, 2))
    ours = fit_ols(values, doubled, np.array([1.0, 1.0]))
    np.testing.assert_allclose(ours.t, stats.ttest_1samp(values, 0).statistic, rtol=1e-10)
    assert ours.dof == 11


def test_values_that_the_design_explains_have_no_variance_rather_than_a_tiny_one() -> None:
    values = np.full((6, 1), 0.1) + np.zeros((6, 1))
    assert fit_ols(values, np.ones((6, 1)), np.array([1.0])).variance[0] == 0

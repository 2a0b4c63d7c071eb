"""Statistics of resampled studies against fitting the whole model to every resampled study."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from least_squares import fit_ols
from sessionfx.statistics.cluster_robust import estimate_robust, robust_contrast, wald_robust
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.statistics.multivariate import hotelling
from sessionfx.statistics.resampling import grouped_wild_bootstrap, pooled_resampling, wild_bootstrap
from sessionfx.statistics.unequal_variances import grouped_contrast

V = 7


def sessions_study(n: int, seed: int) -> tuple[NDArray, list[str], NDArray]:
    """Two groups, three sessions some of which are missing, an effect of the participant."""
    rng = np.random.default_rng(seed)
    rows, participants, values = [], [], []
    for index in range(n):
        group, level = (1.0 if index % 3 else -1.0), rng.normal(size=V)
        for session in range(3):
            if session and (index + session) % 5 == 0:
                continue
            indicator = np.eye(3)[session]
            rows.append(np.concatenate([indicator, indicator * group]))
            participants.append(f"{index:02d}")
            values.append(level + (2 + group) * rng.normal(size=V) + 0.4 * session)
    return np.array(rows), participants, np.array(values)


def refitted(
    design: NDArray, participants: list[str], constraints: NDArray, ratio: float, values: NDArray, draws: NDArray
) -> list[NDArray]:
    """The model under the null hypothesis by a Lagrange multiplier; its residuals re-weighted; the whole model anew."""
    labels = np.array(participants)
    whitening = np.zeros((len(design), len(design)))
    for label in dict.fromkeys(participants):
        own = np.nonzero(labels == label)[0]
        whitening[np.ix_(own, own)] = np.eye(len(own)) - (1 - 1 / np.sqrt(1 + ratio * len(own))) / len(own)
    normal = (whitening @ design).T @ (whitening @ design)
    q = len(constraints)
    kkt = np.block([[normal, constraints.T], [constraints, np.zeros((q, q))]])
    moments = np.vstack([design.T @ whitening @ whitening @ values, np.zeros((q, values.shape[1]))])
    fitted = design @ np.linalg.solve(kkt, moments)[: design.shape[1]]
    prepared = robust_contrast(design, participants, constraints, ratio)
    order = {label: index for index, label in enumerate(dict.fromkeys(participants))}
    found = []
    for weights in draws:
        resampled = fitted + (values - fitted) * weights[[order[label] for label in participants]][:, None]
        if q == 1:
            found.append(estimate_robust(prepared, resampled).t)
        else:
            scores = prepared.scores_of(resampled)
            covariance = np.einsum("siv,tiv->vst", scores, scores)
            effects = prepared.weights @ resampled
            wald = np.array([e @ np.linalg.solve(c, e) for e, c in zip(effects.T, covariance, strict=True)])
            eta = prepared.dof
            found.append(np.sqrt((eta - q + 1) / (eta * q) * wald))
    return found


@pytest.mark.parametrize(
    "constraints",
    [[[1 / 3, 1 / 3, 1 / 3, 0, 0, 0]], [[-1, 0, 1, 0, 0, 0]], [[0, 0, 0, -1, 0, 1]],
     [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0]]],
    ids=["mean", "difference", "group x difference", "any"],
)  # fmt: skip
@pytest.mark.parametrize("ratio", [0.0, 1.7])
def test_wild_bootstrap_equals_fitting_every_draw_anew(constraints: list[list[float]], ratio: float) -> None:
    for n in (9, 14):
        design, participants, values = sessions_study(n, seed=3)
        wanted = np.array(constraints)
        prepared = robust_contrast(design, participants, wanted, ratio)
        resampling = wild_bootstrap(prepared, design, participants)
        draws = resampling.draws(np.random.default_rng(1), 30)
        assert resampling.scheme == "wild-bootstrap"
        found = resampling.statistic(values, draws)
        np.testing.assert_allclose(found, refitted(design, participants, wanted, ratio, values, draws), rtol=1e-8)
        if len(wanted) == 1:
            np.testing.assert_allclose(found[0], estimate_robust(prepared, values).t, rtol=1e-10)
        else:
            f = wald_robust(prepared, values)
            eta, q = np.asarray(f.dof) + 1, 2
            wald = f.f * eta * q / f.dof
            np.testing.assert_allclose(found[0] ** 2, wald * (prepared.dof - 1) / (prepared.dof * q), rtol=1e-8)


def group_study(sizes: tuple[int, ...], seed: int, q: int = 1) -> tuple[NDArray, list[str], NDArray]:
    rng = np.random.default_rng(seed)
    labels = [f"g{index}" for index, size in enumerate(sizes) for _ in range(size)]
    cells = np.array([[float(label == f"g{index}") for index in range(len(sizes))] for label in labels])
    design = np.column_stack([cells, rng.normal(size=len(labels))])
    return design, labels, rng.normal(size=(q, len(labels), V)) * (1 + 2 * cells[:, [0]])


@pytest.mark.parametrize("q", [1, 2])
def test_wild_bootstrap_of_groups_equals_fitting_every_draw_anew(q: int) -> None:
    design, labels, values = group_study((6, 9), seed=5, q=q)
    contrast = np.array([1.0, -1.0, 0.0])
    prepared = grouped_contrast(design, contrast, labels)
    resampling = grouped_wild_bootstrap(prepared, design, q)
    draws = resampling.draws(np.random.default_rng(2), 20)
    found = resampling.statistic(values.reshape(-1, V), draws)
    reduced = np.column_stack([design[:, 0] + design[:, 1], design[:, 2]])  # groups are equal
    fitted = reduced @ np.linalg.lstsq(reduced, values.transpose(1, 0, 2).reshape(15, -1), rcond=None)[0]
    fitted = fitted.reshape(15, q, V).transpose(1, 0, 2)
    for weights, statistic in zip(draws, found, strict=True):
        resampled = fitted + (values - fitted) * weights[:, None]
        if q == 1:
            np.testing.assert_allclose(statistic, prepared.estimate(resampled[0]).t, rtol=1e-8)
        else:
            test = prepared.test(resampled)
            dof = np.asarray(test.dof) + q - 1
            t2 = test.f * dof * q / test.dof
            np.testing.assert_allclose(statistic**2, t2 * resampling.dof / ((resampling.dof + 1) * q), rtol=1e-8)


@pytest.mark.parametrize("contrast", [(1.0, 0.0, 0.0), (1.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("q", [1, 3])
def test_pooled_resampling_equals_fitting_every_resampling_anew(contrast: tuple[float, ...], q: int) -> None:
    design, _, values = group_study((6, 9), seed=6, q=q)
    weights = np.array(contrast) @ pseudo_inverse(design)
    resampling = pooled_resampling(design, np.array(contrast), q)
    assert resampling.scheme == ("sign-flipping" if contrast[1] == contrast[2] == 0 else "label-permutation")
    draws = resampling.draws(np.random.default_rng(3), 20)
    found = resampling.statistic(values.reshape(-1, V), draws)
    explained = design @ (pseudo_inverse(design) @ values)
    fitted = explained - weights[:, None] * ((weights @ values) / (weights @ weights))[:, None]
    for draw, statistic in zip(draws, found, strict=True):
        left = values - fitted
        moved = left * draw[:, None] if resampling.scheme == "sign-flipping" else left[:, np.argsort(draw)]
        resampled = fitted + moved
        if q == 1:
            np.testing.assert_allclose(statistic, fit_ols(resampled[0], design, np.array(contrast)).t, rtol=1e-8)
        else:
            np.testing.assert_allclose(statistic**2, hotelling(resampled, design, np.array(contrast)).f, rtol=1e-8)


def test_with_all_sessions_the_wild_bootstrap_of_the_marginal_mean_flips_the_signs_of_participants_means() -> None:
    """Balanced data without covariates: marginal is summary-statistics, and so is what is resampled."""
    rng, n, k = np.random.default_rng(4), 12, 3
    maps = rng.normal(size=(n, k, V)) + rng.normal(size=(n, 1, V))
    design, participants = np.tile(np.eye(k), (n, 1)), [str(i) for i in range(n) for _ in range(k)]
    wild = wild_bootstrap(robust_contrast(design, participants, np.full(k, 1 / k), 0.8), design, participants)
    flips = pooled_resampling(np.ones((n, 1)), np.ones(1))
    draws = flips.draws(rng, 25)
    np.testing.assert_allclose(
        wild.statistic(maps.reshape(-1, V), draws), flips.statistic(maps.mean(axis=1), draws), rtol=1e-9
    )
    assert wild.dof == pytest.approx(flips.dof)


def test_every_distinct_resampling_is_as_likely_as_any_other() -> None:
    rng = np.random.default_rng(5)
    flips = pooled_resampling(np.ones((3, 1)), np.ones(1))
    labels = pooled_resampling(np.array([[1.0, 1.0, 0.3], [1, -1, 2], [1, 1, 1], [1, -1, 0]]), np.array([0, 1.0, 0]))
    for resampling, everything in (
        (flips, list(product((-1.0, 1.0), repeat=3))), (labels, list(permutations(range(4))))
    ):  # fmt: skip
        draws = resampling.draws(rng, 4800)
        assert (draws[0] == (1.0 if resampling is flips else np.arange(4))).all()
        counts = [int((draws[1:] == signs).all(axis=1).sum()) for signs in everything]
        assert resampling.n_possible == len(everything)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert (flips.n_always, labels.n_always) == (2, 1)


def test_participants_who_carry_a_contrast_are_counted_group_by_group() -> None:
    design, participants, _ = sessions_study(9, seed=1)  # 3 and 6
    groups = ["abb"[index % 3] for index in range(9)]
    for contrast, smallest in (([-1.0, 1, 0, 0, 0, 0], 3), ([-1.0, 1, 0, -1, 1, 0], 6)):
        prepared = robust_contrast(design, participants, np.array(contrast), 0.0)
        assert wild_bootstrap(prepared, design, participants, groups).smallest_group == smallest


def test_thresholds_are_those_of_t_and_of_the_root_of_f() -> None:
    one, three = pooled_resampling(np.ones((9, 1)), np.ones(1)), pooled_resampling(np.ones((9, 1)), np.ones(1), 3)
    assert one.threshold(0.001) == pytest.approx(stats.t.isf(0.0005, 8))
    assert three.threshold(0.001) == pytest.approx(np.sqrt(stats.f.isf(0.001, 3, 6)))
    assert (one.two_sided, three.two_sided) == (True, False)

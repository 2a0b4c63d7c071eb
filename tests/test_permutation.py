"""Family-wise error by sign flipping and permutation, against enumeration by brute force, nilearn and chance."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.second_level import non_parametric_inference
from nilearn.mass_univariate import permuted_ols
from numpy.typing import NDArray
from scipy import ndimage, stats

from least_squares import fit_ols
from sessionfx.execution import LocalExecutor
from sessionfx.group.permutation import (
    BLOCK_SIZE,
    Partition,
    PermutationResult,
    neg_log10_family_wise_p,
    partition,
    permute,
    permute_block,
)
from sessionfx.inputs.images import Grid
from sessionfx.session_contrasts import resolve_session_contrasts
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.strategies import STRATEGIES
from sessionfx.strategies.base import GroupOptions, MapLayout, Question

SHAPE = (7, 8, 6)
GRID = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
# an irregular mask that leaves a margin, so that neither order nor the box around it is trivial
MASK = np.zeros(SHAPE, bool)
MASK[1:6, 1:7, 1:5] = True
MASK[2, 3, 2] = MASK[1, 1, 1] = MASK[5, 6, 4] = False
FORMING_P = 0.05  # small maps of few participants have clusters
STATISTICS = ("voxelFWE", "clusterSizeFWE", "clusterMassFWE", "tfceFWE")


def smooth_values(n: int, seed: int, effect: float = 0.0) -> NDArray[np.float64]:
    """Smooth noise, with an effect in one half of the mask."""
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(rng.normal(size=(n, *SHAPE)), (0, 0.8, 0.8, 0.8))
    maps /= maps.std()
    maps[:, :4] += effect
    return maps[:, MASK]


def run(values: NDArray, design: NDArray, contrast: NDArray, n_permutations: int, **options) -> PermutationResult:
    settings = {
        "seed": 7,
        "executor": LocalExecutor(1, n_threads=1),
        "description": "permutations",
        "cluster_forming_p": FORMING_P,
    } | options
    return permute(values, design, contrast, MASK, GRID, n_permutations=n_permutations, **settings)


def intercept(n: int) -> tuple[NDArray, NDArray]:
    return np.ones((n, 1)), np.array([1.0])


def design_with_covariates(n: int, seed: int) -> NDArray[np.float64]:
    """Intercept, two groups (sum-coded), a covariate that is not centred."""
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(n), np.where(np.arange(n) < n // 2, 1.0, -1.0), rng.normal(3, 1, size=n)])


CONTRASTS = {
    "mean with covariates": ((1.0, 0.0, 0.0), "sign-flipping"),
    "mean of one group": ((1.0, 1.0, 0.0), "sign-flipping"),
    "mean of one group at the covariate's 3": ((1.0, -1.0, 3.0), "sign-flipping"),
    "group difference": ((0.0, 1.0, 0.0), "label-permutation"),
    "covariate": ((0.0, 0.0, 1.0), "label-permutation"),
    "two columns": ((0.0, 2.0, -0.5), "label-permutation"),
}


# ---- what the statistics are, written anew ----


def signed_clusters(t_map: NDArray, threshold: float) -> list[NDArray]:
    """Masks of the clusters of either sign; faces connect."""
    found = []
    for sign in (1, -1):
        labels, n_clusters = ndimage.label(sign * t_map > threshold)
        found += [labels == index for index in range(1, n_clusters + 1)]
    return found


def tfce_map(t_map: NDArray) -> NDArray:
    """Σ over a hundred heights h up to max |t| of √extent · h²."""
    enhanced = np.zeros_like(t_map)
    for height in np.linspace(0, np.abs(t_map).max(), 101)[1:]:
        for sign in (1, -1):
            labels, _ = ndimage.label(sign * t_map >= height)
            extent = np.bincount(labels.ravel()).astype(float)
            extent[0] = 0
            enhanced += np.sqrt(extent[labels]) * height**2
    return enhanced


def statistics_of(t: NDArray, dof: float) -> dict[str, NDArray]:
    t_map = np.zeros(SHAPE)
    t_map[MASK] = t
    threshold = stats.t.isf(FORMING_P / 2, dof)
    size, mass = np.zeros(SHAPE), np.zeros(SHAPE)
    for cluster in signed_clusters(t_map, threshold):
        size[cluster] = cluster.sum()
        mass[cluster] = (np.abs(t_map[cluster]) - threshold).sum()
    return dict(zip(STATISTICS, (np.abs(t), size[MASK], mass[MASK], tfce_map(t_map)[MASK]), strict=True))


def exact_p(observed: dict[str, NDArray], resampled: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    """Share of all resamplings, the data as they are among them, whose maximum reaches the observed value."""
    return {
        name: np.mean([one[name].max() >= observed[name] * (1 - 1e-9) for one in resampled], axis=0)
        for name in STATISTICS
    }


def assert_within_chance(result: PermutationResult, exact: dict[str, NDArray]) -> None:
    """Counts out of N are binomial with the exact p; five standard deviations, one for the ( + 1)."""
    for name in STATISTICS:
        n = result.n_permutations
        counts = 10 ** -result.neg_log10_p[name] * (n + 1) - 1
        bound = 5 * np.sqrt(n * exact[name] * (1 - exact[name])) + 1
        assert (np.abs(counts - n * exact[name]) <= bound).all(), name


@pytest.mark.slow
@pytest.mark.parametrize(("n", "effect"), [(5, 1.0), (6, 0.7), (8, 0.5)])
def test_random_sign_flips_agree_with_all_sign_flips(n: int, effect: float) -> None:
    values = smooth_values(n, seed=n, effect=effect)
    design, contrast = intercept(n)
    resampled = [
        statistics_of(fit_ols(values * np.array(signs)[:, None], design, contrast).t, n - 1)
        for signs in product((1.0, -1.0), repeat=n)
    ]
    exact = exact_p(resampled[0], resampled)
    assert all(exact[name].min() < 0.5 and exact[name].max() == 1 for name in STATISTICS)
    assert exact["voxelFWE"].min() >= 2 / 2**n
    assert_within_chance(run(values, design, contrast, 600), exact)


@pytest.mark.slow
def test_random_permutations_agree_with_all_permutations() -> None:
    n = 6
    design, contrast = design_with_covariates(n, seed=1), np.array([0.0, 2.0, -0.5])
    values = smooth_values(n, seed=3) + 0.8 * design[:, [1]]
    # Freedman & Lane: residuals of the model that the null hypothesis leaves, permuted, the whole model fitted
    weights = contrast @ pseudo_inverse(design)
    explained_under_null = design @ pseudo_inverse(design) @ values - np.outer(weights, weights @ values) / (
        weights @ weights
    )
    residuals = values - explained_under_null
    resampled = [
        statistics_of(fit_ols(residuals[list(order)] + explained_under_null, design, contrast).t, n - 3)
        for order in permutations(range(n))
    ]
    result = run(values, design, contrast, 600)
    assert (result.scheme, result.n_possible) == ("label-permutation", 720)
    assert_within_chance(result, exact_p(resampled[0], resampled))


@pytest.mark.parametrize("name", CONTRASTS)
def test_t_is_that_of_ordinary_least_squares_and_the_scheme_follows_from_the_question(name: str) -> None:
    weights, scheme = CONTRASTS[name]
    design, contrast = design_with_covariates(12, seed=2), np.array(weights)
    values = smooth_values(12, seed=4, effect=0.5)
    parts = partition(design, contrast)
    assert parts.scheme == scheme
    observed = permute_block(values, parts, MASK, GRID, 1, 0, FORMING_P, False).observed
    np.testing.assert_allclose(observed["voxelFWE"], np.abs(fit_ols(values, design, contrast).t), rtol=1e-6)


@pytest.mark.parametrize("name", CONTRASTS)
def test_null_maxima_are_those_of_the_flips_or_permutations_drawn(name: str) -> None:
    """The engine's own decision, flips or labels, is the one asked for: it follows from columns, silently."""
    weights, scheme = CONTRASTS[name]
    n, n_permutations, seed = 12, 20, 11
    design, contrast = design_with_covariates(n, seed=2), np.array(weights)
    values = smooth_values(n, seed=4, effect=0.5)
    values /= np.sqrt((values**2).sum(axis=0))
    regressor = contrast @ pseudo_inverse(design)
    fitted = design @ pseudo_inverse(design) @ values - np.outer(regressor, regressor @ values) / (
        regressor @ regressor
    )
    residuals = values - fitted
    # the generator that nilearn makes from the seed, which its own draws resampling from
    draws = np.random.RandomState(np.random.RandomState(seed).randint(1, np.iinfo(np.int32).max - 1))
    order, signs, maxima = np.arange(n), np.ones((n, 1)), []
    for _ in range(n_permutations):
        if scheme == "sign-flipping":
            signs = signs * (draws.randint(2, size=(n, 1)) * 2 - 1)
            resampled = residuals * signs
        else:
            order = order[draws.permutation(n)]
            resampled = np.empty_like(residuals)
            resampled[np.arange(n)] = residuals[np.argsort(order)]  # rows of the design move, the data stay
        maxima.append(np.abs(fit_ols(resampled, design, contrast).t).max())
    block = permute_block(values, partition(design, contrast), MASK, GRID, n_permutations, seed, FORMING_P, False)
    np.testing.assert_allclose(block.null_maxima["voxelFWE"], maxima, rtol=1e-6)


def test_voxelwise_p_equals_that_of_non_parametric_inference() -> None:
    n, n_permutations, seed = 9, BLOCK_SIZE, 3
    values = smooth_values(n, seed=5, effect=0.8)
    images = []
    for row in values:
        data = np.zeros(SHAPE)
        data[MASK] = row
        images.append(nib.Nifti1Image(data, GRID.affine))
    block_seed = int(np.random.SeedSequence(seed).spawn(1)[0].generate_state(1)[0])
    theirs = non_parametric_inference(
        images, design_matrix=pd.DataFrame({"intercept": np.ones(n)}), mask=nib.Nifti1Image(MASK.astype(np.uint8), GRID.affine),
        n_perm=n_permutations, two_sided_test=True, random_state=block_seed,
    )  # fmt: skip
    ours = run(values, *intercept(n), n_permutations, seed=seed, tfce=False)
    np.testing.assert_allclose(ours.neg_log10_p["voxelFWE"], theirs.get_fdata()[MASK], rtol=1e-6)
    assert "tfceFWE" not in ours.neg_log10_p


def test_p_counts_the_null_maxima_of_all_blocks_together() -> None:
    n, n_permutations = 10, 2 * BLOCK_SIZE + 13
    values = smooth_values(n, seed=6, effect=0.6)
    result = run(values, *intercept(n), n_permutations, seed=5)
    parts = partition(*intercept(n))
    counts = dict.fromkeys(STATISTICS, 0)
    recovered = 0
    for size, child in zip((BLOCK_SIZE, BLOCK_SIZE, 13), np.random.SeedSequence(5).spawn(3), strict=True):
        seed = int(child.generate_state(1)[0])
        block = permute_block(values, parts, MASK, GRID, size, seed, FORMING_P, True)
        for name in STATISTICS:
            assert block.null_maxima[name].shape == (size,)
            reached = block.null_maxima[name][:, None] >= block.observed[name] * (1 - 1e-9)
            counts[name] = counts[name] + reached.sum(axis=0)
        theirs = permuted_ols(np.ones((n, 1)), values, n_perm=size, random_state=seed, output_type="dict")
        recovered = recovered + np.round(10 ** -theirs["logp_max_t"].ravel() * (size + 1)) - 1
    np.testing.assert_array_equal(counts["voxelFWE"], recovered)
    for name in STATISTICS:
        expected = (counts[name] + 1) / (n_permutations + 1)
        np.testing.assert_allclose(10 ** -result.neg_log10_p[name], expected, rtol=1e-12)
        assert len(np.unique(expected)) >= 3
    outside = block.observed["clusterSizeFWE"] == 0
    assert outside.any()
    assert not result.neg_log10_p["clusterSizeFWE"][outside].any()
    assert not result.neg_log10_p["clusterMassFWE"][outside].any()


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_processes() -> None:
    values, n_permutations = smooth_values(8, seed=8, effect=0.6), 2 * BLOCK_SIZE + 5
    one, again, two = (
        run(values, *intercept(8), n_permutations, tfce=False, executor=LocalExecutor(jobs, n_threads=1))
        for jobs in (1, 1, 2)
    )
    other = run(values, *intercept(8), n_permutations, tfce=False, seed=8)
    for name, p in one.neg_log10_p.items():
        assert p.tobytes() == again.neg_log10_p[name].tobytes() == two.neg_log10_p[name].tobytes()
    assert one.neg_log10_p["voxelFWE"].tobytes() != other.neg_log10_p["voxelFWE"].tobytes()


def test_flipping_a_participants_difference_is_exchanging_the_two_sessions() -> None:
    rng = np.random.default_rng(9)
    n = 7
    layout = MapLayout(tuple(f"{i:02d}" for i in range(n) for _ in range(2)), ("pre", "post") * n)
    effects = rng.normal(size=(2 * n, MASK.sum()))
    question = Question(resolve_session_contrasts(["post-pre"], ["pre", "post"])[0])
    plan = STRATEGIES["fixed-effects"].plan(layout, question, GroupOptions())
    differences = effects[1::2] - effects[::2]
    for flipped in ([0], [2, 5], [1, 3, 4, 6]):
        exchanged, signs = effects.copy(), np.ones((n, 1))
        for participant in flipped:
            rows = [2 * participant, 2 * participant + 1]
            exchanged[rows] = effects[rows[::-1]]
            signs[participant] = -1
        of_flips = fit_ols(differences * signs, *intercept(n))
        np.testing.assert_allclose(plan.estimate(exchanged, None).t, of_flips.t, rtol=1e-9)
    # and flips are what is drawn for it
    assert partition(plan.design_matrix.to_numpy(), plan.contrast).scheme == "sign-flipping"


def test_partition_does_not_depend_on_how_the_design_is_coded() -> None:
    n = 10
    design, values = design_with_covariates(n, seed=3), smooth_values(10, seed=10)
    groups = np.column_stack([design[:, 1] > 0, design[:, 1] < 0, design[:, 2]]).astype(float)
    redundant = np.column_stack([np.ones(n), groups])
    same = [
        (design, (0.0, 2.0, 0.0)),
        (groups, (1.0, -1.0, 0.0)),
        (redundant, (0.0, 1.0, -1.0, 0.0)),
    ]
    results = [run(values, one, np.array(contrast), 60, tfce=False) for one, contrast in same]
    for other in results[1:]:
        assert other.scheme == results[0].scheme == "label-permutation"
        assert other.n_possible == results[0].n_possible
        for name, p in results[0].neg_log10_p.items():
            np.testing.assert_allclose(other.neg_log10_p[name], p, rtol=1e-9)


def test_few_participants_are_said_and_bound_p() -> None:
    result = run(smooth_values(5, seed=11, effect=4.0), *intercept(5), 120, tfce=False)
    assert (result.n_possible, result.smallest_p) == (32, 2 / 32)
    assert "Only 32 distinct sign flips exist for 5 participants" in result.note
    assert "0.0625" in result.note
    assert "Nothing can be significant at 0.05" in result.note
    p = 10 ** -result.neg_log10_p["voxelFWE"]
    # 120 flips hold the data or their mirror image 7.5 times on average: a count below that is chance
    assert p.min() == pytest.approx(2 / 32, abs=0.1)
    assert p.min() >= 2 / 32 * (1 - 1e-12)


def test_many_participants_are_limited_by_the_number_of_permutations_alone() -> None:
    result = run(smooth_values(14, seed=12, effect=3.0), *intercept(14), 60, tfce=False)
    assert (result.n_possible, result.smallest_p, result.note) == (2**14, 1 / 61, "")
    assert 10 ** -result.neg_log10_p["voxelFWE"].max() == pytest.approx(1 / 61)


@pytest.mark.parametrize(("first", "n_possible", "smallest"), [(3, 20, 2 / 20), (2, 15, 1 / 15)])
def test_two_small_groups_have_few_permutations(first: int, n_possible: int, smallest: float) -> None:
    design = np.column_stack([np.ones(6), np.where(np.arange(6) < first, 1.0, -1.0)])
    result = run(smooth_values(6, seed=13), design, np.array([0.0, 1.0]), 100, tfce=False)
    assert (result.n_possible, result.smallest_p) == (n_possible, smallest)
    assert f"Only {n_possible} distinct permutations" in result.note


@pytest.mark.parametrize("name", STATISTICS)
def test_ties_count_as_reached_although_rounding_differs(name: str) -> None:
    """Permutations that repeat the two groups, or exchange them, give the observed maximum, but for rounding."""
    design = np.column_stack([np.ones(6), [1.0, 1, 1, -1, -1, -1]])
    values = smooth_values(6, seed=3) + 5 * design[:, [1]]  # no other grouping comes near
    block = permute_block(values, partition(design, np.array([0.0, 1.0])), MASK, GRID, 300, 1, FORMING_P, True)
    repeats = block.null_maxima[name] > 0.9 * block.observed[name].max()
    assert abs(repeats.sum() - 300 * 2 / 20) < 5 * np.sqrt(300 * 0.1 * 0.9)
    p = 10 ** -neg_log10_family_wise_p(block.observed[name], block.null_maxima[name], 1e-9)
    assert p.min() == pytest.approx((repeats.sum() + 1) / 301, rel=1e-12)


@pytest.mark.parametrize(
    ("design", "contrast", "reason"),
    [
        (np.column_stack([np.ones(6), np.ones(6)]), [1.0, -1.0], "not estimable"),
        (np.ones((6, 1)), [0.0], "not estimable"),
        (np.arange(6.0)[:, None], [1.0], "constant"),
        (np.ones((1, 1)), [1.0], "degrees of freedom"),
    ],
)
def test_designs_that_cannot_be_resampled_are_refused(design: NDArray, contrast: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        partition(design, np.array(contrast))


def test_values_without_error_variance_are_refused() -> None:
    values = smooth_values(6, seed=15)
    values[:, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        run(values, *intercept(6), 5, tfce=False)


def family_wise_errors(n_data_sets: int, n: int, design: NDArray, contrast: NDArray, tfce: bool) -> dict[str, int]:
    """How many null data sets have any voxel with p ≤ 0.05; with 19 permutations the exact rate is 1 in 20."""
    parts: Partition = partition(design, contrast)
    errors = dict.fromkeys(STATISTICS if tfce else STATISTICS[:3], 0)
    for seed in range(n_data_sets):
        block = permute_block(smooth_values(n, 1000 + seed), parts, MASK, GRID, 19, seed, FORMING_P, tfce)
        for name in errors:
            errors[name] += int(block.observed[name].max() * (1 - 1e-9) > block.null_maxima[name].max())
    return errors


@pytest.mark.slow
def test_family_wise_error_of_sign_flips_is_nominal() -> None:
    errors = family_wise_errors(200, 12, *intercept(12), tfce=True)
    for name, count in errors.items():
        # 99.99 % limits of a binomial with the exact rate; cluster sizes, which are often equal, can only be rarer
        assert count <= stats.binom.ppf(0.9999, 200, 0.05), name
    for name in ("voxelFWE", "tfceFWE"):
        assert errors[name] >= stats.binom.ppf(0.0001, 200, 0.05), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean with covariates", "covariate", "group difference"])
def test_family_wise_error_with_covariates_is_nominal(name: str) -> None:
    design = design_with_covariates(16, seed=5)
    design[:, 2] -= design[:, 2].mean()
    for statistic, count in family_wise_errors(200, 16, design, np.array(CONTRASTS[name][0]), tfce=False).items():
        assert count <= stats.binom.ppf(0.9999, 200, 0.05), statistic

"""Family-wise error by sign flipping and permutation, against enumeration by brute force, nilearn and chance."""

from __future__ import annotations

from itertools import pairwise, permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker
from nilearn.mass_univariate import permuted_ols
from nilearn.mass_univariate._utils import calculate_tfce
from numpy.typing import NDArray
from scipy import ndimage, stats
from tfce import tfce

from least_squares import fit_ols
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.execution import LocalExecutor
from sessionfx.group.neighbours import neighbours_in
from sessionfx.group.permutation import (
    BLOCK_SIZE,
    SKEWED_P,
    TIE_TOLERANCE,
    PermutationResult,
    Values,
    check_symmetry,
    memory_of_a_block,
    neg_log10_family_wise_p,
    part_width,
    permute,
    permute_block,
)
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.space.grid import Grid
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.statistics.multivariate import hotelling
from sessionfx.statistics.resampling import (
    Resampling,
    grouped_wild_bootstrap,
    pooled_resampling,
    summed_skewness,
    wild_bootstrap,
)
from sessionfx.statistics.unequal_variances import grouped_contrast

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
    return permute(values, pooled_resampling(design, contrast), MASK, n_permutations=n_permutations, **settings)


def block_of(values: NDArray, resampling: Resampling, size: int, seed: int, tfce: bool = True, mask: NDArray = MASK):
    child = np.random.SeedSequence(seed)
    return permute_block(
        values, resampling, neighbours_in(mask, None), size, child, resampling.threshold(FORMING_P), tfce
    )


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
    """∫ √extent · h² dh: between two heights that occur, extents are constant."""
    enhanced = np.zeros_like(t_map)
    for low, high in pairwise([0.0, *np.unique(np.abs(t_map[MASK]))]):
        for sign in (1, -1):
            labels, _ = ndimage.label(sign * t_map >= high)
            extent = np.bincount(labels.ravel()).astype(float)
            extent[0] = 0
            enhanced += np.sqrt(extent[labels]) * (high**3 - low**3) / 3
    return enhanced


def statistics_of(t: NDArray, dof: float) -> dict[str, NDArray]:
    t_map = np.zeros(SHAPE)
    t_map[MASK] = t
    threshold = stats.t.isf(FORMING_P / 2, dof)
    size, mass = np.zeros(SHAPE), np.zeros(SHAPE)
    for cluster in signed_clusters(t_map, threshold):
        size[cluster] = cluster.sum()
        mass[cluster] = (np.abs(t_map[cluster]) - threshold).sum()
    enhanced = np.abs(tfce(t_map, connectivity=6, E=0.5, H=2.0))  # tested below
    return dict(zip(STATISTICS, (np.abs(t), size[MASK], mass[MASK], enhanced[MASK]), strict=True))


def exact_p(observed: dict[str, NDArray], resampled: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    """Share of all resamplings, the data as they are among them, whose maximum reaches the observed value."""
    return {
        name: np.mean([statistics[name].max() >= observed[name] * (1 - 1e-9) for statistics in resampled], axis=0)
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
@pytest.mark.parametrize(("n", "effect"), [(5, 1.0), (8, 0.5)])
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
def test_what_is_drawn_follows_from_the_question_and_null_maxima_are_those_of_the_draws(name: str) -> None:
    weights, scheme = CONTRASTS[name]
    n, n_permutations = 12, 20
    design, contrast = design_with_covariates(n, seed=2), np.array(weights)
    values = smooth_values(n, seed=4, effect=0.5)
    resampling = pooled_resampling(design, contrast)
    assert resampling.scheme == scheme
    block = block_of(values, resampling, n_permutations, 11)
    np.testing.assert_allclose(block.observed["voxelFWE"], np.abs(fit_ols(values, design, contrast).t), rtol=1e-6)
    draws = resampling.draws(np.random.default_rng(np.random.SeedSequence(11)), n_permutations)
    expected = [statistics_of(t, n - 3) for t in resampling.statistic(values, draws)]
    for statistic in STATISTICS:
        np.testing.assert_allclose(block.observed[statistic], expected[0][statistic], rtol=2e-5, atol=1e-6)
        maxima = [resampled[statistic].max() for resampled in expected[1:]]
        np.testing.assert_allclose(block.null_maxima[statistic], maxima, rtol=2e-5, atol=1e-6)


def test_the_enhancement_is_the_integral() -> None:
    (t_map,) = np.where(MASK, ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(1, *SHAPE)), 0.8) * 9, 0)
    enhanced = tfce(t_map, connectivity=6, E=0.5, H=2.0, two_sided=True)
    np.testing.assert_allclose(np.abs(enhanced), tfce_map(t_map), rtol=2e-5)
    np.testing.assert_array_equal(np.sign(enhanced), np.sign(t_map))


def test_statistics_are_those_of_nilearn() -> None:
    """Its TFCE is a sum of which the integral is the limit."""
    values = smooth_values(9, seed=5, effect=0.8)
    ours = block_of(values, pooled_resampling(*intercept(9)), 1, 0).observed
    masker = NiftiMasker(nib.Nifti1Image(MASK.astype(np.uint8), GRID.affine)).fit()
    theirs = permuted_ols(
        np.ones((9, 1)), values, model_intercept=False, n_perm=1, two_sided_test=True, masker=masker, tfce=True,
        threshold=FORMING_P, output_type="dict",
    )  # fmt: skip
    for name, key in (("voxelFWE", "t"), ("clusterSizeFWE", "size"), ("clusterMassFWE", "mass")):
        np.testing.assert_allclose(ours[name], np.abs(theirs[key].ravel()), rtol=1e-5, atol=1e-5)
    t_map = np.zeros((*SHAPE, 1))
    t_map[MASK, 0] = theirs["t"].ravel()
    errors = []
    for n_steps in (10, 100, 1000):  # nilearn's most
        step = np.abs(t_map).max() / n_steps
        steps = calculate_tfce(t_map, ndimage.generate_binary_structure(3, 1), two_sided_test=True, dh=step)
        errors.append(np.abs(np.abs(steps[MASK, 0]) * step - ours["tfceFWE"]).max() / ours["tfceFWE"].max())
    assert errors[2] < 0.005
    assert errors[2] < 0.2 * errors[1] < 0.04 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("groups", [False, True])
def test_p_values_are_those_of_nilearn_but_for_chance(groups: bool) -> None:
    n, n_permutations = 12, 300
    values = smooth_values(n, seed=8, effect=0.0 if groups else 0.45)
    first = np.where(np.arange(n) < 5, 1.0, 0.0)
    values += groups * 0.7 * first[:, None] * (np.arange(values.shape[1]) < 60)
    masker = NiftiMasker(nib.Nifti1Image(MASK.astype(np.uint8), GRID.affine)).fit()
    theirs = permuted_ols(
        first[:, None] if groups else np.ones((n, 1)), values, model_intercept=groups, n_perm=n_permutations,
        two_sided_test=True, masker=masker, threshold=FORMING_P, output_type="dict", random_state=1,
    )  # fmt: skip
    design = np.column_stack([np.ones(n), first]) if groups else np.ones((n, 1))
    ours = run(values, design, np.array([0.0, 1.0]) if groups else np.ones(1), n_permutations, tfce=False)
    # without the height of its steps, which are the finer the smaller the largest t, its TFCE is another test
    keys = dict(zip(STATISTICS, ("logp_max_t", "logp_max_size", "logp_max_mass"), strict=False))
    for name, key in keys.items():
        a, b = 10 ** -ours.neg_log10_p[name], 10 ** -theirs[key].ravel()
        bound = 5 * np.sqrt(2 * a * (1 - a) / n_permutations) + 0.01
        assert (np.abs(a - b) <= bound).all(), name
        assert len(np.unique(a)) > 2


def test_p_counts_the_null_maxima_of_all_blocks_together() -> None:
    n, n_permutations = 10, 2 * BLOCK_SIZE + 13
    values = smooth_values(n, seed=6, effect=0.6)
    resampling = pooled_resampling(*intercept(n))
    result = run(values, *intercept(n), n_permutations, seed=5)
    counts = dict.fromkeys(STATISTICS, 0)
    for size, child in zip((BLOCK_SIZE, BLOCK_SIZE, 13), np.random.SeedSequence(5).spawn(3), strict=True):
        block = permute_block(
            values, resampling, neighbours_in(MASK, None), size, child, resampling.threshold(FORMING_P), True
        )
        for name in STATISTICS:
            assert block.null_maxima[name].shape == (size,)
            reached = block.null_maxima[name][:, None] >= block.observed[name] * (1 - TIE_TOLERANCE)
            counts[name] = counts[name] + reached.sum(axis=0)
    for name in STATISTICS:
        expected = (counts[name] + 1) / (n_permutations + 1)
        np.testing.assert_allclose(10 ** -result.neg_log10_p[name], expected, rtol=1e-12)
        assert len(np.unique(expected)) >= 3
    outside = block.observed["clusterSizeFWE"] == 0
    assert outside.any()
    assert not result.neg_log10_p["clusterSizeFWE"][outside].any()
    assert not result.neg_log10_p["clusterMassFWE"][outside].any()


def test_a_test_of_several_contrasts_is_enhanced_as_the_root_of_f() -> None:
    """Of one contrast √F is |t|, whose clusters join voxels of either sign."""
    values = np.concatenate([smooth_values(12, seed=20, effect=0.7), smooth_values(12, seed=21)])
    resampling = pooled_resampling(*intercept(12), 2)
    block = block_of(values, resampling, 5, 1)
    root = np.sqrt(hotelling(values.reshape(2, 12, -1), *intercept(12)).f)
    np.testing.assert_allclose(block.observed["voxelFWE"], root, rtol=1e-6)
    whole = np.zeros(SHAPE)
    whole[MASK] = root
    labels, _ = ndimage.label(whole > resampling.threshold(FORMING_P))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    assert sizes.max() > 1
    np.testing.assert_array_equal(block.observed["clusterSizeFWE"], sizes[labels[MASK]])
    np.testing.assert_allclose(block.observed["tfceFWE"], tfce_map(whole)[MASK], rtol=2e-5)


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_whatever_the_number_of_processes() -> None:
    values, n_permutations = smooth_values(8, seed=8, effect=0.6), 2 * BLOCK_SIZE + 5
    first, again, by_two = (
        run(values, *intercept(8), n_permutations, tfce=False, executor=LocalExecutor(jobs, n_threads=1))
        for jobs in (1, 1, 2)
    )
    other = run(values, *intercept(8), n_permutations, tfce=False, seed=8)
    for name, p in first.neg_log10_p.items():
        assert p.tobytes() == again.neg_log10_p[name].tobytes() == by_two.neg_log10_p[name].tobytes()
    assert first.neg_log10_p["voxelFWE"].tobytes() != other.neg_log10_p["voxelFWE"].tobytes()


def test_flipping_a_participants_difference_is_exchanging_the_two_sessions() -> None:
    rng = np.random.default_rng(9)
    n = 7
    layout = MapLayout(tuple(f"{i:02d}" for i in range(n) for _ in range(2)), ("pre", "post") * n)
    effects = rng.normal(size=(2 * n, MASK.sum()))
    question = Question(resolve_session_contrasts(["post-pre"], ["pre", "post"])[0])
    plan = STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
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
    assert plan.resampling.scheme == "sign-flipping"


def test_p_values_do_not_depend_on_how_the_design_is_coded() -> None:
    n = 10
    design, values = design_with_covariates(n, seed=3), smooth_values(10, seed=10)
    groups = np.column_stack([design[:, 1] > 0, design[:, 1] < 0, design[:, 2]]).astype(float)
    redundant = np.column_stack([np.ones(n), groups])
    same = [(design, (0.0, 2.0, 0.0)), (groups, (1.0, -1.0, 0.0)), (redundant, (0.0, 1.0, -1.0, 0.0))]
    results = [run(values, coded, np.array(contrast), 60, tfce=False) for coded, contrast in same]
    for other in results[1:]:
        assert other.scheme == results[0].scheme == "label-permutation"
        assert other.n_possible == results[0].n_possible
        for name, p in results[0].neg_log10_p.items():
            np.testing.assert_allclose(other.neg_log10_p[name], p, rtol=1e-9)


def test_few_participants_are_said_and_bound_p() -> None:
    result = run(smooth_values(5, seed=11, effect=4.0), *intercept(5), 120, tfce=False)
    assert (result.n_possible, result.smallest_p) == (32, 2 / 32)
    assert "Only 32 distinct sign flips exist for 5 participants" in result.warning
    assert "0.0625" in result.warning
    assert "Nothing can be significant at 0.05" in result.warning
    p = 10 ** -result.neg_log10_p["voxelFWE"]
    # 120 flips hold the data or their mirror image 7.5 times on average: a count below that is chance
    assert p.min() == pytest.approx(2 / 32, abs=0.1)
    assert p.min() >= 2 / 32 * (1 - 1e-12)


@pytest.mark.parametrize(("n_permutations", "is_too_few"), [(18, True), (19, False)])
def test_too_few_permutations_for_any_significance_are_said_to_be(n_permutations: int, is_too_few: bool) -> None:
    """With none of N null maxima at or above the observed value, p = 1 / (N + 1): it was said of few participants only."""
    result = run(smooth_values(12, seed=11, effect=9.0), *intercept(12), n_permutations, tfce=False)
    assert (10.0 ** -result.neg_log10_p["voxelFWE"].max() > 0.05) == is_too_few
    assert ("Nothing can be significant at 0.05" in result.warning) == is_too_few


def test_many_participants_are_limited_by_the_number_of_permutations_alone() -> None:
    result = run(smooth_values(14, seed=12, effect=3.0), *intercept(14), 60, tfce=False)
    assert (result.n_possible, result.smallest_p, result.warning) == (2**14, 1 / 61, "")
    assert 10 ** -result.neg_log10_p["voxelFWE"].max() == pytest.approx(1 / 61)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_values_on_disk_give_the_same_bytes_as_in_memory(n_processes: int, tmp_path: Path) -> None:
    shape = (14, 15, 13)
    values = np.random.default_rng(4).normal(size=(600, int(np.prod(shape)))).astype(np.float32)
    design, contrast = intercept(len(values))

    def found(values: Values, executor: LocalExecutor) -> PermutationResult:
        check_symmetry(values, pooled_resampling(design, contrast), 3)
        return permute(
            values, pooled_resampling(design, contrast), np.ones(shape, bool), n_permutations=70, seed=3,
            executor=executor, description="permutations",
        )  # fmt: skip

    assert part_width(len(values)) < values.shape[1] / 20
    with scratch_file(tmp_path, is_shared=True) as file:
        parts = np.array_split(values, 7, axis=1)
        store = BlockStore.of_columns(file, tmp_path, parts, values.shape[1], part_width(len(values)))
        store.share()
        on_disk = found(store, LocalExecutor(n_processes, n_threads=1))
    in_memory = found(values, LocalExecutor(1, n_threads=1))
    for name, neg_log10_p in in_memory.neg_log10_p.items():
        np.testing.assert_array_equal(on_disk.neg_log10_p[name], neg_log10_p)


def test_memory_of_values_on_disk_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    mask, needed = np.ones((100, 100, 25), bool), []
    with scratch_file(tmp_path) as file:
        for n in (50, 10_000):
            needed.append(memory_of_a_block(BlockStore(file, tmp_path, n, mask.sum(), part_width(n)), mask))
    assert needed[1] < needed[0] + 0.05 < 0.6  # GB


@pytest.mark.parametrize(("small", "is_said"), [(8, True), (10, False)])
def test_what_small_groups_of_unequal_variance_do_to_p_is_said(small: int, is_said: bool) -> None:
    design = np.column_stack([np.ones(small + 12), np.repeat([1.0, -1.0], [small, 12])])
    contrast, labels = np.array([0.0, 2.0]), np.repeat(["a", "b"], [small, 12])
    resampling = grouped_wild_bootstrap(grouped_contrast(design, contrast, labels.tolist()), design)
    values = smooth_values(small + 12, seed=13)
    executor = LocalExecutor(1, n_threads=1)
    result = permute(values, resampling, MASK, n_permutations=20, seed=1, executor=executor, description="x")
    assert (f"The smallest group has {small} participants" in result.warning) == is_said


@pytest.mark.parametrize(("first", "n_possible", "smallest"), [(3, 20, 2 / 20), (2, 15, 1 / 15)])
def test_two_small_groups_have_few_permutations(first: int, n_possible: int, smallest: float) -> None:
    design = np.column_stack([np.ones(6), np.where(np.arange(6) < first, 1.0, -1.0)])
    result = run(smooth_values(6, seed=13), design, np.array([0.0, 1.0]), 100, tfce=False)
    assert (result.n_possible, result.smallest_p) == (n_possible, smallest)
    assert f"Only {n_possible} distinct permutations" in result.warning


@pytest.mark.parametrize("name", STATISTICS)
def test_ties_count_as_reached_although_rounding_differs(name: str) -> None:
    """Permutations that repeat the two groups, or exchange them, give the observed maximum, but for rounding."""
    design = np.column_stack([np.ones(6), [1.0, 1, 1, -1, -1, -1]])
    values = smooth_values(6, seed=3) + 5 * design[:, [1]]  # no other grouping comes near
    block = block_of(values, pooled_resampling(design, np.array([0.0, 1.0])), 300, 1)
    repeats = block.null_maxima[name] > 0.9 * block.observed[name].max()
    assert abs(repeats.sum() - 300 * 2 / 20) < 5 * np.sqrt(300 * 0.1 * 0.9)
    p = 10 ** -neg_log10_family_wise_p(block.observed[name], block.null_maxima[name], 1e-9)
    assert p.min() == pytest.approx((repeats.sum() + 1) / 301, rel=1e-12)


def test_values_without_error_variance_are_refused() -> None:
    values = smooth_values(6, seed=15)
    values[:, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        run(values, *intercept(6), 5, tfce=False)


def skewed(n: int, seed: int) -> NDArray[np.float64]:
    return np.exp(smooth_values(n, seed)) - np.exp(0.5)


def test_skewed_values_are_not_flipped() -> None:
    for n in (8, 14, 30):
        for resampling in (
            pooled_resampling(*intercept(n)),
            wild_bootstrap(
                robust_contrast(np.ones((n, 1)), [*map(str, range(n))], np.ones(1), 0.0), np.ones((n, 1)),
                [*map(str, range(n))],
            ),
        ):  # fmt: skip
            for values in (skewed(n, seed=n), -skewed(n, seed=n)):
                with pytest.raises(NotEstimableError, match="they are skewed"):
                    check_symmetry(values, resampling, 0)
            check_symmetry(smooth_values(n, seed=n, effect=2.0), resampling, 0)
            check_symmetry(smooth_values(n, seed=n) ** 3, resampling, 0)  # heavy tails are no skewness


def test_permutations_of_labels_need_no_symmetry() -> None:
    n = 14
    check_symmetry(skewed(n, 1), pooled_resampling(design_with_covariates(n, 1), np.array([0.0, 1.0, 0.0])), 0)


def test_skewness_of_flipped_deviations_is_that_of_their_sample() -> None:
    values = skewed(9, seed=2)
    signs = pooled_resampling(*intercept(9)).draws(np.random.default_rng(1), 6)
    deviations = values - values.mean(axis=0)
    expected = [stats.skew(deviations * flips[:, None], axis=0).sum() for flips in signs]
    np.testing.assert_allclose(summed_skewness(values, signs), expected, rtol=1e-9)


@pytest.mark.slow
def test_symmetric_values_are_rarely_taken_for_skewed() -> None:
    """At most one study in a hundred: 99.99 % limit of a binomial."""
    n_declined = 0
    for seed in range(400):
        try:
            check_symmetry(smooth_values(12, 5000 + seed), pooled_resampling(*intercept(12)), seed)
        except NotEstimableError:
            n_declined += 1
    assert n_declined <= stats.binom.ppf(0.9999, 400, SKEWED_P)

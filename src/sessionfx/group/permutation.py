"""Family-wise error by resampling participants: signs flipped or labels permuted, for fixed effects at the group level.

Words used here. A *flip* multiplies the values of some participants by −1; it is valid where, without an effect, a
participant's value is as likely to be −y as y. A *permutation of labels* hands the participants' rows of the design
to one another; it is valid where, without an effect, participants are exchangeable. A *null maximum* is the largest
value that a statistic takes anywhere in the map after one flip or permutation: family-wise p values compare every
voxel with the distribution of null maxima (Nichols & Holmes 2002, doi:10.1002/hbm.1058).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import SessionFXError
from sessionfx.statistics.linear_algebra import is_estimable, pseudo_inverse, rank_of

if TYPE_CHECKING:
    from sessionfx.execution import Executor
    from sessionfx.inputs.images import Grid

Scheme = Literal["sign-flipping", "label-permutation"]

# Each block has its own seed, so that neither the number of processes nor of permutations changes what a block
# draws. Every block computes the observed statistics anew: with 50 that costs 2 % more.
BLOCK_SIZE = 50
# Relative. Resamplings that give the same statistic as the data (members of a group exchanged, all signs flipped) may
# add the same numbers in another order; without a tolerance rounding makes many of them look smaller, and p too small.
TIE_TOLERANCE = 1e-6
# Memory of a process before it holds any values
BASE_GB = 0.4
# Of the unit vectors' scalar product
ORTHOGONAL = 1e-8

# Statistic of nilearn's `permuted_ols`, and its null maxima
_STATISTICS = {
    "voxelFWE": ("t", "h0_max_t"),
    "clusterSizeFWE": ("size", "h0_max_size"),
    "clusterMassFWE": ("mass", "h0_max_mass"),
    "tfceFWE": ("tfce", "h0_max_tfce"),
}


@dataclass(frozen=True)
class PermutationResult:
    """Family-wise p values of one contrast.

    Attributes
    ----------
    n_permutations : int
        Random flips or permutations, N; the data as they are come on top.
    n_possible : int
        Distinct ones there are: 2ⁿ flips, or n! permutations of labels divided by m! for every m participants whose
        rows of the design are equal.
    scheme : {'sign-flipping', 'label-permutation'}
    cluster_forming_p : float
        Two-sided, uncorrected, by the t distribution.
    neg_log10_p : dict of str to ndarray of shape (V,)
        −log₁₀ of two-sided family-wise p: `voxelFWE` (maximum |t|), `clusterSizeFWE` and `clusterMassFWE` (0 outside
        clusters), `tfceFWE`.
    smallest_p : float
        No p below it can come out: the larger of 1/(N+1) and the share of all distinct flips or permutations that
        always give the observed |t| (for flips 2/2ⁿ, as flipping everybody only changes the sign of t).
    note : str
        A sentence where the distinct ones are so few that they, and not N, limit p; else empty.
    """

    n_permutations: int
    n_possible: int
    scheme: Scheme
    cluster_forming_p: float
    neg_log10_p: dict[str, NDArray[np.float64]]
    smallest_p: float
    note: str


@dataclass(frozen=True)
class Partition:
    """A design taken apart into what a contrast tests and the rest.

    Attributes
    ----------
    tested : ndarray of shape (N,)
        The constant for sign flipping; otherwise the regressor of the contrast, orthogonal to all of `nuisance`.
    nuisance : ndarray of shape (N, rank − 1) or, for label permutation, (N, rank − 2)
        Orthonormal; spans all of the design that is compatible with a contrast of zero, less the constant.
    scheme : {'sign-flipping', 'label-permutation'}
    """

    tested: NDArray[np.float64]
    nuisance: NDArray[np.float64]
    scheme: Scheme


@dataclass(frozen=True)
class _Block:
    observed: dict[str, NDArray[np.float64]]
    null_maxima: dict[str, NDArray[np.float64]]


def permute(
    values: NDArray[np.floating],
    design: NDArray[np.float64],
    contrast: NDArray[np.float64],
    mask: NDArray[np.bool_],
    grid: Grid,
    *,
    n_permutations: int,
    seed: int,
    executor: Executor,
    description: str,
    cluster_forming_p: float = 0.001,
    tfce: bool = True,
) -> PermutationResult:
    """Test a contrast of a group model with family-wise error by flipping signs or permuting labels.

    The same arguments give the same bytes, whatever the number of processes.

    Parameters
    ----------
    values : ndarray of shape (n, V)
        One value per participant, finite and varying over participants at each of the V voxels of `mask`, in the
        order of `mask`'s true elements.
    design : ndarray of shape (n, P)
        Must contain the constant, as a column or as a combination of columns; may be rank-deficient.
    contrast : ndarray of shape (P,)
        Estimable; any number of columns.
    mask : ndarray of bool, 3-D
    grid : Grid
    n_permutations : int
        At least 1.
    seed : int
        Not negative.
    executor : Executor
        Where blocks of permutations are computed. Each needs about five times the memory of `values`, in float64.
    description : str
        What the progress bar shows.
    cluster_forming_p : float, default=0.001
        Two-sided, uncorrected.
    tfce : bool, default=True
        Whether to compute threshold-free cluster enhancement, which takes most of the time.

    Returns
    -------
    PermutationResult

    Raises
    ------
    ValueError
        If the contrast is not estimable, the design lacks the constant, no degrees of freedom are left, or the t
        statistic of a voxel is not finite.
    SessionFXError
        If a process was killed or there was too little memory.

    Notes
    -----
    The permutations are nilearn's (`nilearn.mass_univariate.permuted_ols`, the engine of
    `nilearn.glm.second_level.non_parametric_inference`): Freedman & Lane's residuals of the model without the
    contrast, flipped or permuted, and the whole model fitted to them (Winkler et al. 2014,
    doi:10.1016/j.neuroimage.2014.01.060). The engine is called directly for four reasons:

    - p is (b + 1) / (N + 1), with b the number of null maxima at or above the observed statistic (Phipson & Smyth
      2010, doi:10.2202/1544-6115.1585). `non_parametric_inference` gives p maps only, from which b cannot be had
      for clusters: their p is b / N held between 1/N and 1 − 1/N. The engine returns the null maxima of a block,
      and those of all blocks are counted together.
    - Resamplings that repeat the data's own arrangement must count as reaching the observed value. Rounding makes the
      engine's own p miss most of them for two groups of three: 5 of 34 counted in 300 permutations. See
      `TIE_TOLERANCE`.
    - `non_parametric_inference` takes every column that the contrast touches out of the nuisance, which changes the
      model when there are several. See `partition`.
    - Given a design with a constant column, it flips signs also where a covariate is tested. See `partition`.

    TFCE is nilearn's, with E = 0.5, H = 2 (Smith & Nichols 2009, doi:10.1016/j.neuroimage.2008.03.061) and a hundred
    steps up to each map's own maximum, without the factor of the steps' height. It is the same function of the data
    and of every resampling of them, so the test is valid; but a very strong effect makes the steps coarse and costs
    weaker ones some power, and the values are not FSL's.

    Sign flipping for the mean alone, and permutation with no nuisance but the constant, are exact; with covariates in
    the nuisance, both are exact but for the estimation of the covariates' effects.

    For a session contrast, flipping a participant's value is exchanging the sessions that its weights set against
    each other (pre and post; the first and the last of a trend).
    """
    from sessionfx.execution import progress_bar

    if values.shape != (len(design), int(mask.sum())):
        raise ValueError(f"values of shape {values.shape} fit neither {len(design)} rows nor {mask.sum()} voxels")
    if n_permutations < 1:
        raise ValueError("at least one permutation is needed")
    parts = partition(design, contrast)
    sizes = [min(BLOCK_SIZE, n_permutations - done) for done in range(0, n_permutations, BLOCK_SIZE)]
    units: dict[str, tuple[Any, ...]] = {
        f"{description}, permutations from {BLOCK_SIZE * index + 1}": (
            values, parts, mask, grid, size, int(block_seed.generate_state(1)[0]), cluster_forming_p, tfce,
        )
        for index, (size, block_seed) in enumerate(
            zip(sizes, np.random.SeedSequence(seed).spawn(len(sizes)), strict=True)
        )
    }  # fmt: skip
    first = next(iter(units))
    observed: dict[str, NDArray[np.float64]] = {}
    null_maxima: dict[str, dict[str, NDArray[np.float64]]] = {}
    need = BASE_GB + 5 * values.size * np.dtype(np.float64).itemsize / 1e9
    finished = executor.run_units(permute_block, units, needs_gb=dict.fromkeys(units, need), stop_on_failure=True)
    for done, _ in zip(finished, progress_bar(range(len(units)), description, "block"), strict=False):
        if done.failure is not None and done.failure.expected:
            raise SessionFXError(done.failure.message)
        if done.result is None:
            raise RuntimeError(done.failure.details if done.failure else f"{done.unit} has no result")
        null_maxima[done.unit] = done.result.null_maxima
        if done.unit == first:
            observed = done.result.observed
    if not np.isfinite(observed["voxelFWE"]).all():
        raise ValueError("the t statistic is not finite at some voxels")
    n_possible, always = count_possible(parts, design)
    smallest_p = max(1 / (n_permutations + 1), always / n_possible)
    neg_log10_p = {
        name: neg_log10_family_wise_p(
            statistic, np.concatenate([null_maxima[unit][name] for unit in units]), smallest_p
        )
        for name, statistic in observed.items()
    }
    note = _note(n_possible, always, n_permutations, len(design), parts.scheme)
    return PermutationResult(n_permutations, n_possible, parts.scheme, cluster_forming_p, neg_log10_p, smallest_p, note)


def partition(design: NDArray[np.float64], contrast: NDArray[np.float64]) -> Partition:
    """Take a design apart so that a contrast is the coefficient of one regressor, and choose what is resampled.

    Parameters
    ----------
    design : ndarray of shape (N, P)
    contrast : ndarray of shape (P,)

    Returns
    -------
    Partition
        Its t statistic is that of the contrast, up to its sign.

    Raises
    ------
    ValueError
        See `permute`.

    Notes
    -----
    The estimate is c′β̂ = w′y with w = X⁺′c, which lies in the design's column space; the contrast is zero for those
    means Xβ that are orthogonal to w. So w is the tested regressor and its complement in the column space the
    nuisance (the partition of Beckmann and Ridgway, in Winkler et al. 2014).

    Where the nuisance contains the constant (covariates, differences of groups), the question is about differences
    of participants, and labels are permuted. Where it does not (the mean, with or without covariates; the mean of
    one group), the question is about a level, and signs are flipped. Then the constant can stand for w: together
    with the nuisance it spans the same design, and its part orthogonal to the nuisance is a multiple of w.

    nilearn flips signs when the tested regressor is constant, *or* one constant column is in the nuisance; the
    latter, meant to find the model's intercept, would flip where labels are to be permuted. So the constant is
    left out of the nuisance here, for nilearn to add.
    """
    if not is_estimable(design, contrast) or not contrast.any():
        raise ValueError("the contrast is not estimable")
    rank = rank_of(design)
    if len(design) - rank < 1:
        raise ValueError("no degrees of freedom are left for the error")
    constant = np.full(len(design), 1 / math.sqrt(len(design)))
    if np.linalg.norm(constant - design @ (pseudo_inverse(design) @ constant)) > ORTHOGONAL:
        raise ValueError("the design does not contain the constant")
    weights = contrast @ pseudo_inverse(design)
    weights /= np.linalg.norm(weights)
    flips = abs(weights @ constant) > ORTHOGONAL
    taken_out = weights[:, None] if flips else np.column_stack([weights, constant])
    basis = design @ pseudo_inverse(design)  # projection on the column space
    basis -= taken_out @ taken_out.T
    left, _, _ = np.linalg.svd(basis)
    nuisance = left[:, : rank - taken_out.shape[1]]
    if flips:
        return Partition(np.ones(len(design)), nuisance, "sign-flipping")
    return Partition(weights, nuisance, "label-permutation")


def permute_block(
    values: NDArray[np.floating],
    parts: Partition,
    mask: NDArray[np.bool_],
    grid: Grid,
    n_permutations: int,
    seed: int,
    cluster_forming_p: float,
    tfce: bool,
) -> _Block:
    """Compute the observed statistics and the null maxima of some permutations; see `permute`.

    Returns
    -------
    _Block
        By statistic: absolute observed values of shape (V,), null maxima of shape (n_permutations,).
    """
    import warnings

    import nibabel as nib
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    # Clusters do not reach out of the mask: the box around it is enough, and a brain fills half of a usual image.
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))
    inside = mask[box].astype(np.uint8)
    if inside.all():
        inside = np.pad(inside, 1)  # nilearn counts clusters against a background, which there must be
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on the order of arrays in memory, and on how the mask was made
        masker = NiftiMasker(nib.Nifti1Image(inside, grid.affine)).fit()
        found = permuted_ols(
            parts.tested,
            np.asarray(values, dtype=np.float64),
            confounding_vars=parts.nuisance if parts.nuisance.size else None,
            model_intercept=parts.scheme == "label-permutation",
            n_perm=n_permutations,
            two_sided_test=True,
            random_state=seed,
            n_jobs=1,
            masker=masker,
            tfce=tfce,
            threshold=cluster_forming_p,
            output_type="dict",
        )
    wanted = {name: keys for name, keys in _STATISTICS.items() if keys[0] in found}
    return _Block(
        {name: np.abs(np.ravel(found[statistic])).astype(np.float64) for name, (statistic, _) in wanted.items()},
        {name: np.ravel(found[maxima]) for name, (_, maxima) in wanted.items()},
    )


def neg_log10_family_wise_p(
    observed: NDArray[np.float64], null_maxima: NDArray[np.float64], smallest_p: float
) -> NDArray[np.float64]:
    """Compare a map with the distribution of null maxima.

    Parameters
    ----------
    observed : ndarray of shape (V,)
        Not negative.
    null_maxima : ndarray of shape (N,)
    smallest_p : float
        What p over all distinct flips or permutations cannot be below; lower estimates are chance, and raised to it.

    Returns
    -------
    ndarray of shape (V,)
        −log₁₀ p with p = (b + 1) / (N + 1), b the number of null maxima at or above the observed value.
    """
    below = np.searchsorted(np.sort(null_maxima), observed * (1 - TIE_TOLERANCE), side="left")
    at_or_above = null_maxima.size - below
    neg_log10_p: NDArray[np.float64] = np.log10((null_maxima.size + 1) / (at_or_above + 1))
    return np.minimum(neg_log10_p, -math.log10(smallest_p))


def count_possible(parts: Partition, design: NDArray[np.float64]) -> tuple[int, int]:
    """Count the distinct flips or permutations, and those among them that always give the observed |t|.

    Parameters
    ----------
    parts : Partition
    design : ndarray of shape (N, P)

    Returns
    -------
    n_possible : int
    always : int
        For flips 2: none and all. For permutations 2 if exchanging participants can turn the only regressor beside the
        constant into its negative (two groups of the same size), else at least 1.
    """
    if parts.scheme == "sign-flipping":
        return 2 ** len(design), 2
    _, counts = np.unique(design, axis=0, return_counts=True)
    n_possible = math.factorial(len(design)) // math.prod(math.factorial(int(count)) for count in counts)
    ordered = np.sort(parts.tested)
    mirrored = not parts.nuisance.size and np.allclose(ordered, -ordered[::-1], rtol=0, atol=ORTHOGONAL)
    return n_possible, 2 if mirrored else 1


def _note(n_possible: int, always: int, n_permutations: int, n_participants: int, scheme: Scheme) -> str:
    lowest = always / n_possible
    if lowest <= 1 / (n_permutations + 1):
        return ""
    what = "sign flips" if scheme == "sign-flipping" else "permutations of the participants' labels"
    note = (
        f"Only {n_possible} distinct {what} exist for {n_participants} participants: no family-wise p below "
        f"{lowest:.3g} can be reached, however many are drawn; the {n_permutations} random ones repeat them, and "
        "estimate the p that going through all of them would give exactly."
    )
    return note + (" Nothing can be significant at 0.05." if lowest > 0.05 else "")

"""Family-wise error by resampling participants: the same draws for all voxels, and the largest statistic of each.

Words used here. A *resampling* flips signs of participants, permutes their labels or re-weights their residuals; see
`statistics.resampling`. A *null maximum* is the largest value that a statistic takes anywhere in the map after one
resampling: family-wise p values compare every voxel with the distribution of null maxima (Nichols & Holmes 2002,
doi:10.1002/hbm.1058).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError, SessionFXError
from sessionfx.group.neighbours import Neighbours, neighbours_in
from sessionfx.group.store import BlockStore
from sessionfx.space.space import Space
from sessionfx.statistics.resampling import Resampling, WildBootstrap, summed_skewness

if TYPE_CHECKING:
    from sessionfx.execution import Executor

# Each block has its own seed, so that neither the number of processes nor of resamplings changes what a block
# draws. Every block computes the observed statistics anew: with 50 that costs 2 % more.
BLOCK_SIZE = 50
# Relative. Resamplings that give the same statistic as the data (members of a group exchanged, all signs flipped) may
# add the same numbers in another order; without a tolerance rounding, in single precision, makes many of them look
# smaller, and p too small.
TIE_TOLERANCE = 1e-5
# Two-sided for t
CLUSTER_FORMING_P = 0.001
# Values as skewed as at most one in a hundred studies of symmetric ones are not resampled by signs. Flips of lognormal
# and exponential values gave 60 to 100 % false positives for their mean (8 to 40 participants, 2,560 voxels).
SKEWED_P = 0.01
_SKEWNESS_FLIPS = 199
# With fewer in the smallest of groups that may vary unequally, 7 to 8 % false positives at 5 % (`strategies.base`)
FEW_IN_A_GROUP = 10
# Memory of a process before it holds any values
BASE_GB = 0.4
# Values of all participants at the voxels that are worked on at a time: they stay in the cache
_VALUES_AT_A_TIME = 2**16


@dataclass(frozen=True)
class PermutationResult:
    """Family-wise p values of one contrast."""

    n_permutations: int  # random resamplings, N; the data as they are come on top
    n_possible: int  # distinct ones there are; see `Resampling.n_possible`
    scheme: str  # 'sign-flipping', 'label-permutation' or 'wild-bootstrap'
    cluster_forming_p: float  # uncorrected, by the statistic's degrees of freedom in the design; two-sided for t
    # shape (V,) each: −log₁₀ of family-wise p: `voxelFWE` (maximum |t| or F), `clusterSizeFWE` and `clusterMassFWE` (0
    # outside clusters), `tfceFWE`; only the first one where no mesh says what clusters are
    neg_log10_p: dict[str, NDArray[np.float64]]
    # no p below it can come out: the larger of 1/(N+1) and the share of all distinct resamplings that always give the
    # observed |t| (for flips 2/2ⁿ, as flipping everybody only changes the sign of t)
    smallest_p: float
    warning: str  # a sentence where the distinct ones are so few that they, and not N, limit p; else empty
    mask: NDArray[np.bool_]  # of the space's shape: the V features


@dataclass(frozen=True)
class _Block:
    observed: dict[str, NDArray[np.float64]]
    null_maxima: dict[str, NDArray[np.float64]]


# Values of shape (N, V) in memory, or on disk in blocks of `part_width(N)` voxels, which other processes can read
Values = NDArray[np.floating] | BlockStore


def permute(
    values: Values,
    resampling: Resampling,
    mask: NDArray[np.bool_],
    *,
    n_permutations: int,
    seed: int,
    executor: Executor,
    description: str,
    space: Space | None = None,
    cluster_forming_p: float = CLUSTER_FORMING_P,
    tfce: bool = True,
) -> PermutationResult:
    """Test a contrast of a group model with family-wise error by resampling its participants.

    The same arguments give the same bytes, whatever the number of processes.

    Parameters
    ----------
    values : ndarray or BlockStore, of shape (N, V)
        As `resampling` takes them, finite and varying at each of the V voxels of `mask`, in the order of its true
        elements.
    resampling : Resampling
    mask : ndarray of bool, of the space's shape
    n_permutations : int
        At least 1.
    seed : int
        Not negative.
    executor : Executor
        Where blocks of resamplings are computed. Each needs `BLOCK_SIZE` maps of the statistic in single precision,
        and twice the memory of `values` where these are not on disk.
    description : str
        What the progress bar shows.
    space : Space, optional
        Which says what clusters are; a voxel grid where none is given.
    cluster_forming_p : float, default=0.001
    tfce : bool, default=True
        Whether to compute threshold-free cluster enhancement, which takes most of the time.

    Raises
    ------
    ValueError
        If the statistic of a voxel is not finite.
    SessionFXError
        If a process was killed or there was too little memory.

    Notes
    -----
    p is (b + 1) / (N + 1), with b the number of null maxima at or above the observed statistic (Phipson & Smyth 2010,
    doi:10.2202/1544-6115.1585). Resamplings that repeat the data's own arrangement must count as reaching the observed
    value; see `TIE_TOLERANCE`.

    Clusters are formed at one value of the statistic in all voxels and resamplings, that with the cluster-forming p by
    the degrees of freedom of the design. Where these differ between voxels the map of z is another one; but the test
    is valid at any value that does not depend on the data, and this one needs no map of z for every resampling.

    On a mesh the size of a cluster is its area, and its mass what exceeds the threshold times the area, summed over
    its vertices; a voxel of grayordinates counts as a vertex of mean area. The extent of a cluster in TFCE is its
    number of features, with the exponents that Workbench's `-metric-tfce` and FSL's `randomise --T2` have for surfaces.

    Maps of F are tested as √F, so that a test of one contrast enhances |t|.
    """
    from sessionfx.execution import Unit, progress_bar

    if values.shape[1] != mask.sum():
        raise ValueError(f"values of shape {values.shape} do not fit {mask.sum()} voxels")
    if n_permutations < 1:
        raise ValueError("at least one permutation is needed")
    sizes = [min(BLOCK_SIZE, n_permutations - done) for done in range(0, n_permutations, BLOCK_SIZE)]
    threshold = resampling.threshold(cluster_forming_p)
    neighbours = neighbours_in(mask, space)
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    units = [
        Unit(
            name=f"{description}, permutations from {BLOCK_SIZE * index + 1}",
            function=permute_block,
            arguments=(values, resampling, neighbours, size, block_seed, threshold, tfce),
        )
        for index, (size, block_seed) in enumerate(zip(sizes, seeds, strict=True))
    ]
    observed: dict[str, NDArray[np.float64]] = {}
    null_maxima: dict[str, dict[str, NDArray[np.float64]]] = {}
    finished = executor.run_units(partial(next, iter(units), None), need_gb=memory_of_a_block(values, mask))
    for done, _ in zip(finished, progress_bar(range(len(units)), description, "block"), strict=False):
        if done.failure is not None and done.failure.expected:
            raise SessionFXError(done.failure.message)
        if done.failure is not None:
            raise RuntimeError(done.failure.details)
        null_maxima[done.unit.name] = done.result.null_maxima
        if done.unit is units[0]:
            observed = done.result.observed
    if not np.isfinite(observed["voxelFWE"]).all():
        raise ValueError("the statistic is not finite at some voxels")
    smallest_p = max(1 / (n_permutations + 1), resampling.n_always / resampling.n_possible)
    neg_log10_p = {
        name: neg_log10_family_wise_p(
            statistic, np.concatenate([null_maxima[unit.name][name] for unit in units]), smallest_p
        )
        for name, statistic in observed.items()
    }
    return PermutationResult(
        n_permutations=n_permutations,
        n_possible=resampling.n_possible,
        scheme=resampling.scheme,
        cluster_forming_p=cluster_forming_p,
        neg_log10_p=neg_log10_p,
        smallest_p=smallest_p,
        warning=_warning(resampling, n_permutations, has_clusters=neighbours is not None),
        mask=mask,
    )


def check_symmetry(values: Values, resampling: Resampling, seed: int) -> None:
    """Make sure that values whose signs are to be flipped may be symmetric, by their mean skewness over voxels.

    Parameters
    ----------
    values : ndarray or BlockStore, of shape (N, V)
        As `resampling` takes them.
    resampling : Resampling
    seed : int

    Raises
    ------
    NotEstimableError
        Where flipping signs makes it as large in at most `SKEWED_P`.
    """
    if resampling.scheme == "label-permutation" or resampling.n_contrasts > 1:
        return
    n = resampling.n_participants
    signs = np.where(np.random.default_rng(seed).random((_SKEWNESS_FLIPS + 1, n)) < 0.5, -1.0, 1.0)
    signs[0] = 1.0
    skewness = np.zeros(len(signs))
    for _, part in _parts(values):
        skewness += summed_skewness(resampling.contributions(part), signs)
    # flips that repeat the data, or all of them, tie: with 8 participants there are two in 199, which say nothing
    larger = np.abs(skewness[1:]) > abs(skewness[0]) * (1 + TIE_TOLERANCE)
    p = float((1 + larger.sum()) / len(signs))
    if p <= SKEWED_P:
        raise NotEstimableError(
            "There are no family-wise p values: flipping signs takes participants' values to be as likely above as "
            f"below their mean, but they are skewed (by {skewness[0] / values.shape[1]:.2f} on average over voxels; as "
            f"much by chance in {p:.1%} of studies). A difference or a trend over sessions can be resampled; for this "
            "contrast the thresholds of --correction remain, which skewness harms less, but not little with few "
            "participants."
        )


def part_width(n_rows: int) -> int:
    """Say how many voxels of so many values are worked on at a time."""
    return max(64, _VALUES_AT_A_TIME // n_rows // 64 * 64)


def _parts(values: Values) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Cut values of shape (N, V) into voxels that are worked on at a time."""
    if isinstance(values, BlockStore):
        cut = ((block, values.read(block)) for block in values.blocks)
    else:
        width, n_voxels = part_width(len(values)), values.shape[1]
        blocks = [slice(start, min(start + width, n_voxels)) for start in range(0, n_voxels, width)]
        cut = ((block, values[:, block]) for block in blocks)
    for block, part in cut:
        yield block, np.ascontiguousarray(part, dtype=np.float64)


def memory_of_a_block(values: Values, mask: NDArray[np.bool_]) -> float:
    """Bound the memory (GB) that a block of resamplings of values of shape (N, V) needs."""
    n_rows, n_voxels = values.shape
    maps = (BLOCK_SIZE + 1) * n_voxels * np.dtype(np.float32).itemsize
    volumes = 32 * mask.size  # labels, heights, the enhanced map and its tree
    # as they come and as they are used
    held = 0 if isinstance(values, BlockStore) else 2 * values.nbytes
    worked_on = 8 * (n_rows + BLOCK_SIZE) * part_width(n_rows) * np.dtype(np.float64).itemsize
    return BASE_GB + float(held + worked_on + maps + volumes) / 1e9


def permute_block(
    values: Values,
    resampling: Resampling,
    neighbours: Neighbours | None,
    n_permutations: int,
    seed: np.random.SeedSequence,
    threshold: float,
    tfce: bool,
) -> _Block:
    """Compute the observed statistics and the null maxima of some resamplings; see `permute`.

    Returns
    -------
    _Block
        By statistic: absolute observed values of shape (V,), null maxima of shape (n_permutations,).
    """
    draws = resampling.draws(np.random.default_rng(seed), n_permutations)
    maps = np.empty((len(draws), values.shape[1]), dtype=np.float32)
    for block, part in _parts(values):
        maps[:, block] = resampling.statistic(part, draws)
    of_map = partial(_statistics, neighbours=neighbours, threshold=threshold, two_sided=resampling.two_sided, tfce=tfce)
    observed = {
        name: np.asarray(statistic if neighbours is None else neighbours.features(statistic), dtype=np.float64)
        for name, statistic in of_map(maps[0])
    }
    null_maxima: dict[str, list[float]] = {name: [] for name in observed}
    for values_of_map in maps[1:]:
        for name, statistic in of_map(values_of_map):
            null_maxima[name].append(float(statistic.max()))
    return _Block(observed, {name: np.array(maxima) for name, maxima in null_maxima.items()})


def _statistics(
    values: NDArray[np.float32], neighbours: Neighbours | None, threshold: float, two_sided: bool, tfce: bool
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """Give every statistic of a map of shape (V,), not negative, arranged as neighbours are."""
    if neighbours is None:
        yield "voxelFWE", np.abs(values)
        return
    arranged = neighbours.arranged(values)
    heights = np.abs(arranged)
    yield "voxelFWE", heights
    size, mass = np.zeros_like(heights), np.zeros_like(heights)
    suprathreshold = heights > threshold
    signs = (arranged > 0, arranged < 0) if two_sided else (True,)
    for part in (suprathreshold & sign for sign in signs):
        if part.any():
            own, areas = neighbours.labels(part), neighbours.sizes(part)
            above = heights[part] - np.float32(threshold)
            size[part] = np.bincount(own, areas)[own]
            mass[part] = np.bincount(own, above if areas is None else above * areas)[own]
    yield "clusterSizeFWE", size
    yield "clusterMassFWE", mass
    if tfce:
        yield "tfceFWE", np.abs(neighbours.enhanced(arranged, two_sided=two_sided))


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
        What p over all distinct resamplings cannot be below; lower estimates are chance, and raised to it.

    Returns
    -------
    ndarray of shape (V,)
        −log₁₀ p with p = (b + 1) / (N + 1), b the number of null maxima at or above the observed value.
    """
    below = np.searchsorted(np.sort(null_maxima), observed * (1 - TIE_TOLERANCE), side="left")
    at_or_above = null_maxima.size - below
    neg_log10_p: NDArray[np.float64] = np.log10((null_maxima.size + 1) / (at_or_above + 1))
    return np.minimum(neg_log10_p, -math.log10(smallest_p))


_DISTINCT = {
    "sign-flipping": "sign flips",
    "label-permutation": "permutations of the participants' labels",
    "wild-bootstrap": "sign flips",
}


def _warning(resampling: Resampling, n_permutations: int, *, has_clusters: bool) -> str:
    warnings = []
    if not has_clusters:
        warnings.append("Without a mesh there are no clusters and no TFCE, only the largest statistic.")
    if isinstance(resampling, WildBootstrap) and resampling.has_groups and resampling.smallest_group < FEW_IN_A_GROUP:
        warnings.append(
            f"The smallest group has {resampling.smallest_group} participants: where it varies more than the others, "
            "these p values are somewhat too small (docs/statistics.md)."
        )
    lowest = resampling.n_always / resampling.n_possible
    if lowest > 1 / (n_permutations + 1):
        warnings.append(
            f"Only {resampling.n_possible} distinct {_DISTINCT[resampling.scheme]} exist for "
            f"{resampling.n_participants} participants: no family-wise p below {lowest:.3g} can be reached, however "
            f"many are drawn; the {n_permutations} random ones repeat them, and estimate the p that going through all "
            "of them would give exactly."
        )
    if max(lowest, 1 / (n_permutations + 1)) > 0.05:
        warnings.append("Nothing can be significant at 0.05.")
    return " ".join(warnings)

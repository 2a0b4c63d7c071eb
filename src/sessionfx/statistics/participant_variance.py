"""Repeated measures with a random participant intercept: y = Xβ + Zb + e, b ~ N(0, λσ²), e ~ N(0, σ²).

One eigendecomposition of the design serves every voxel. With S = I − XX⁺ and S ZZ′ S = U Ξ U′ on the residual space
(m = N − rank X dimensions), the coordinates η = U′y of a voxel are independent with variances σ²(1 + λξ), so that the
restricted likelihood and everything that follows from it depend on the data through sums of η² alone (Patterson &
Thompson 1971, doi:10.1093/biomet/58.3.545; the spectral form follows Lippert et al. 2011, doi:10.1038/nmeth.1681).

Shapes: N maps, P regressors, V voxels, G distinct eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse, special

from sessionfx.statistics.linear_algebra import (
    Array,
    column_basis,
    log_determinant,
    membership_matrix,
    pseudo_inverse,
    rounding_of,
)

# Eigenvalues closer than this, relative to the most maps of a participant, are one: counts have no finer structure.
_EQUAL_EIGENVALUES = 1e-9
# Of the largest singular value: what is smaller is rounding. Keeping more is as right, and slower.
_ROUNDING = 1e-13
# κ = log(1 + λ n_max) is searched: equal steps of it are about equal steps of the intraclass correlation at both ends.
GRID_POINTS = 25
GRID_LIMIT = 1e5  # λ at the grid's upper end, an intraclass correlation of 0.99999
LARGEST_RATIO = 1e8
_NEWTON_STEPS = 60
_NEWTON_TOLERANCE = 1e-11  # of κ
# Below this share of the total a difference of sums has lost digits that count, and is computed anew.
_CANCELLED = 1e-3


@dataclass(frozen=True)
class ParticipantSpectrum:
    """The design of N maps, seen from the residual space of X."""

    eigenvalues: Array  # (G,): distinct ξ, ascending
    multiplicities: Array  # (G,): how many dimensions each has; together m
    # Of the positive eigenvalues. That of zero is what they leave of the residual space.
    eigenspaces: tuple[Eigenspace, ...]
    inverse: Array  # (P, N): X⁺
    memberships: sparse.csr_array  # (N, n): Z, one column of zeros and ones per participant
    fitted_basis: Array  # (N, rank X): orthonormal basis of the space that X spans

    @property
    def n_residual(self) -> int:
        """Dimensions of the residual space, m = N − rank X."""
        return int(self.multiplicities.sum())

    @property
    def largest_participant(self) -> float:
        """Most maps any participant has, n_max."""
        return float(self.memberships.sum(axis=0).max())

    @property
    def separates(self) -> bool:
        """Whether the data can tell variance between participants from variance within them."""
        return len(self.eigenvalues) > 1

    def squares(self, values: NDArray[np.floating]) -> Array:
        """Sum η² over each eigenspace.

        Parameters
        ----------
        values : ndarray of shape (N, V)

        Returns
        -------
        ndarray of shape (G, V)
            Sums that are rounding error beside the data are exactly 0.
        """
        total = np.einsum("nv,nv->v", values, values)
        found = np.empty((len(self.eigenvalues), values.shape[1]))
        n_zero = len(found) - len(self.eigenspaces)
        for index, space in enumerate(self.eigenspaces, n_zero):
            whole, found[index] = space.squares(values)
            cancelled = np.nonzero(found[index] <= _CANCELLED * whole)[0]
            if len(cancelled):
                found[index, cancelled] = _sum_squares(space.part(values[:, cancelled]))
        if n_zero:
            # what the others leave: cheaper than its own basis, and as good unless most of the total cancels
            found[0] = total - _sum_squares(self.fitted_basis.T @ values) - found[1:].sum(axis=0)
            cancelled = np.nonzero(found[0] <= _CANCELLED * total)[0]
            if len(cancelled):
                found[0, cancelled] = _sum_squares(self.parts(values[:, cancelled])[0])
        found[found <= rounding_of(total, len(values))] = 0.0
        return found

    def parts(self, values: NDArray[np.floating]) -> list[Array]:
        """Project voxels of shape (N, V) on each of the G eigenspaces."""
        found = [space.part(values) for space in self.eigenspaces]
        if len(found) == len(self.eigenvalues):
            return found
        rest = values - self.fitted_basis @ (self.fitted_basis.T @ values)
        for part in found:
            rest -= part
        return [rest, *found]

    def products(self, responses: NDArray[np.floating]) -> Array:
        """Sum the products of the coordinates of every two of R responses over each eigenspace.

        Parameters
        ----------
        responses : ndarray of shape (R, N, V)

        Returns
        -------
        ndarray of shape (R, R, G, V)
        """
        r = len(responses)
        found = np.empty((r, r, len(self.eigenvalues), responses.shape[2]))
        for s in range(r):
            found[s, s] = self.squares(responses[s])
        for s, t in combinations(range(r), 2):
            both = self.squares(responses[s] + responses[t])
            found[s, t] = found[t, s] = (both - found[s, s] - found[t, t]) / 2
        return found


@dataclass(frozen=True)
class Eigenspace:
    """An eigenspace in memory and time that grow with N: sums of participants but for some directions, and vectors."""

    # (n, N): the sum over √c of the c maps of each participant who has as many as the eigenvalue says; (0, N) if nobody
    # has
    sums: sparse.csr_array
    other: Array  # (R, n): orthonormal, in these coordinates: what does not belong to the eigenspace
    vectors: Array  # (N, K): further orthonormal vectors that do

    @property
    def dimensions(self) -> int:
        """Its multiplicity."""
        return int(self.sums.shape[0] - len(self.other) + self.vectors.shape[1])

    def squares(self, values: NDArray[np.floating]) -> tuple[Array, Array]:
        """Sum the squares of all that is computed, and of the coordinates in the eigenspace, both of shape (V,)."""
        sums = self.sums @ values
        whole = _sum_squares(sums) + _sum_squares(self.vectors.T @ values)
        return whole, whole - _sum_squares(self.other @ sums)

    def part(self, values: NDArray[np.floating]) -> Array:
        """Project voxels of shape (N, V) on it."""
        sums = self.sums @ values
        sums -= self.other.T @ (self.other @ sums)
        return np.asarray(self.sums.T @ sums + self.vectors @ (self.vectors.T @ values))


def _sum_squares(coordinates: Array) -> Array:
    return np.asarray(np.einsum("jv,jv->v", coordinates, coordinates))


def participant_spectrum(design: Array, participants: Sequence[str]) -> ParticipantSpectrum:
    """Decompose the residual space of a design by participants.

    Parameters
    ----------
    design : ndarray of shape (N, P)
        Any rank below N.
    participants : sequence of N str
        Whose map each row is.

    Raises
    ------
    ValueError
        If the residual space is empty.

    Notes
    -----
    The positive eigenvalues of S ZZ′ S are those of Z′SZ = D − BB′, D the diagonal matrix of the participants' numbers
    of maps and B = Z′Q for a basis Q of X. Of the participants with c maps each, combinations that are orthogonal to
    their rows of B have the eigenvalue c. What is left has as many dimensions as these rows' ranks add up to.
    """
    # strategies and evidence ask for the same few designs again and again
    return _spectrum(np.ascontiguousarray(design, dtype=np.float64).tobytes(), design.shape, tuple(participants))


@lru_cache(maxsize=12)
def _spectrum(content: bytes, shape: tuple[int, int], participants: tuple[str, ...]) -> ParticipantSpectrum:
    design = np.frombuffer(content).reshape(shape)
    fitted = column_basis(design)
    rank = fitted.shape[1]
    if rank >= len(design):
        raise ValueError("the design leaves no residual space")
    memberships = membership_matrix(participants)
    counts = memberships.sum(axis=0)
    shared = memberships.T @ fitted
    members = {count: np.nonzero(counts == count)[0] for count in np.unique(counts).tolist()}
    others = {count: _spanned(shared[rows]) for count, rows in members.items()}
    vectors = list(_mixed(others, members, shared, memberships, fitted))
    values = np.array([value for value, _ in vectors])
    # not relative to the largest eigenvalue: all are zero but for rounding where the design spans the participants
    negligible = _EQUAL_EIGENVALUES * counts.max()
    whole = {count for count, rows in members.items() if len(rows) > others[count].shape[1]}
    ordered = np.sort([*whole, *values[values > negligible]])
    eigenvalues, eigenspaces = [], []
    for group in np.split(ordered, np.nonzero(np.diff(ordered) > negligible)[0] + 1) if len(ordered) else []:
        own = [count for count in whole if group[0] <= count <= group[-1]]
        rows = members[own[0]] if own else np.empty(0, dtype=int)
        inside = [vector for value, vector in vectors if group[0] <= value <= group[-1]]
        eigenspaces.append(
            Eigenspace(
                sparse.csr_array(memberships[:, rows].T / np.sqrt(own[0] if own else 1.0)),
                np.ascontiguousarray(others[own[0]].T) if own else np.empty((0, 0)),
                np.column_stack(inside) if inside else np.empty((len(design), 0)),
            )
        )
        eigenvalues.append(float(own[0]) if own else float(group.mean()))
    multiplicities = [float(space.dimensions) for space in eigenspaces]
    n_zero = len(design) - rank - sum(multiplicities)
    if n_zero:
        eigenvalues, multiplicities = [0.0, *eigenvalues], [n_zero, *multiplicities]
    return ParticipantSpectrum(
        eigenvalues=np.array(eigenvalues),
        multiplicities=np.array(multiplicities),
        eigenspaces=tuple(eigenspaces),
        inverse=pseudo_inverse(design),
        memberships=memberships,
        fitted_basis=fitted,
    )


def _spanned(columns: Array) -> Array:
    """Orthonormal basis of what columns span, with directions in which they are hardly more than rounding."""
    left, sizes, _ = linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, sizes > _ROUNDING * sizes.max(initial=0.0)])


def _mixed(
    others: Mapping[float, Array],
    members: Mapping[float, NDArray[np.int_]],
    shared: Array,
    memberships: sparse.csr_array,
    fitted: Array,
) -> Iterator[tuple[float, Array]]:
    """Find the eigenvalues, and vectors of shape (N,), of what participants have beside the eigenvalue c."""
    bases = [(count, members[count], basis) for count, basis in others.items() if basis.shape[1]]
    if not bases:
        return
    sizes = [basis.shape[1] for _, _, basis in bases]
    inside = np.concatenate([basis.T @ shared[rows] for _, rows, basis in bases])
    values, combined = linalg.eigh(np.diag(np.repeat([count for count, _, _ in bases], sizes)) - inside @ inside.T)
    of_participants = np.zeros((memberships.shape[1], len(values)))
    for (_, rows, basis), part in zip(bases, np.split(combined, np.cumsum(sizes)[:-1]), strict=True):
        of_participants[rows] = basis @ part
    vectors = memberships @ of_participants
    for _ in range(2):  # twice is enough
        vectors -= fitted @ (fitted.T @ vectors)
    lengths = np.linalg.norm(vectors, axis=0)
    lengths[lengths == 0] = 1.0
    yield from zip(values.tolist(), (vectors / lengths).T, strict=True)


def deviance(spectrum: ParticipantSpectrum, squares: Array, ratio: Array) -> Array:
    """Profile REML deviance, up to a constant: m log Σ η²/(1+λξ) + Σ log(1+λξ).

    Parameters
    ----------
    spectrum : ParticipantSpectrum
    squares : ndarray of shape (G, V)
    ratio : ndarray of shape (V,) or (K, 1)
        λ; of shape (K, 1) for K values at every voxel.

    Returns
    -------
    ndarray of shape (V,) or (K, V)
    """
    scale = 1 + np.multiply.outer(ratio, spectrum.eigenvalues)  # (…, G)
    penalty = (spectrum.multiplicities * np.log(scale)).sum(axis=-1)
    weighted = (squares.T / scale).sum(axis=-1)
    with np.errstate(divide="ignore"):
        return np.asarray(spectrum.n_residual * np.log(weighted) + penalty)


def estimate_ratio(spectrum: ParticipantSpectrum, squares: Array) -> Array:
    """Find the ratio λ of variance between to variance within participants at each voxel, by REML.

    Parameters
    ----------
    spectrum : ParticipantSpectrum
        With two eigenvalues at least.
    squares : ndarray of shape (G, V)

    Returns
    -------
    ndarray of shape (V,)
        The global optimum within 0 … 1e8. In closed form, max(0, (MSB/MSW − 1)/ξ), where there are two eigenvalues
        and the smaller is 0 (balanced data). Otherwise the deviance is evaluated on a grid, and every local minimum
        found there is refined by Newton's method within its bracket: with few participants the deviance can have two.
    """
    if len(spectrum.eigenvalues) == 2 and spectrum.eigenvalues[0] == 0:
        within, between = squares / spectrum.multiplicities[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (between / within - 1) / spectrum.eigenvalues[1]
        return np.asarray(np.clip(np.nan_to_num(ratio, nan=0.0, posinf=LARGEST_RATIO), 0.0, LARGEST_RATIO))
    n_max = spectrum.largest_participant
    nodes = np.linspace(0.0, np.log1p(GRID_LIMIT * n_max), GRID_POINTS)
    ratios = np.expm1(nodes) / n_max
    weights = 1 / (1 + np.outer(ratios, spectrum.eigenvalues))
    penalty = np.log1p(np.outer(ratios, spectrum.eigenvalues)) @ spectrum.multiplicities
    with np.errstate(divide="ignore"):
        grid = spectrum.n_residual * np.log(weights @ squares) + penalty[:, None]
    bounds = np.append(nodes, np.log1p(LARGEST_RATIO * n_max))
    padded = np.pad(grid, ((1, 1), (0, 0)), constant_values=np.inf)
    is_minimum = (grid <= padded[:-2]) & (grid < padded[2:])
    best = np.zeros(squares.shape[1])
    lowest = np.full(squares.shape[1], np.inf)
    index_of, voxels = np.nonzero(is_minimum)
    # one pass for the first minimum of every voxel, further passes for the few that have more
    order = np.lexsort((index_of, voxels))
    index_of, voxels = index_of[order], voxels[order]
    rank_within = np.arange(len(voxels)) - np.searchsorted(voxels, voxels)
    for rank in range(int(rank_within.max(initial=-1)) + 1):
        chosen = rank_within == rank
        where, start = voxels[chosen], index_of[chosen]
        part = squares[:, where]
        found = refined_ratio(
            partial(profile_slopes, spectrum, part), spectrum.n_residual, n_max,
            (bounds[np.maximum(start - 1, 0)], bounds[start], bounds[start + 1]),
        )  # fmt: skip
        value = deviance(spectrum, part, found)
        better = value < lowest[where]
        best[where[better]], lowest[where[better]] = found[better], value[better]
    return best


class Slopes(NamedTuple):
    """What derivatives of the deviance by λ are made of, at one λ of each voxel, with R = y′Py; of shape (V,)."""

    first: Array  # R′/R
    second: Array  # R″/R
    penalty_1: Array  # tr Z′PZ
    penalty_2: Array  # tr (Z′PZ)²


def refined_ratio(
    slopes: Callable[[NDArray[np.intp], Array], Slopes],
    n_residual: float | Array,
    n_max: float | Array,
    bracket: tuple[Array, Array, Array],
) -> Array:
    """Find λ at the minimum in each voxel's bracket, by Newton's method on κ, or bisection where a step leaves it.

    Parameters
    ----------
    slopes : callable
        Takes the indices of voxels and a λ of each.
    n_residual, n_max : float or ndarray of shape (V,)
        m and the most maps of a participant.
    bracket : (ndarray, ndarray, ndarray)
        Lower end, start and upper end of κ, of shape (V,).
    """
    low, kappa, high = (ends.copy() for ends in bracket)
    m, most = np.broadcast_to(n_residual, kappa.shape), np.broadcast_to(n_max, kappa.shape)
    active = np.arange(len(kappa))
    for _ in range(_NEWTON_STEPS):
        at = kappa[active]
        jacobian = np.exp(at) / most[active]  # dλ/dκ, which is also d²λ/dκ²
        first, second, penalty_1, penalty_2 = slopes(active, np.expm1(at) / most[active])
        by_ratio = m[active] * first + penalty_1
        by_ratio_2 = m[active] * (second - first**2) - penalty_2
        slope, curvature = by_ratio * jacobian, by_ratio_2 * jacobian**2 + by_ratio * jacobian
        rising = slope > 0
        high[active[rising]], low[active[~rising]] = at[rising], at[~rising]
        with np.errstate(divide="ignore", invalid="ignore"):
            step = at - slope / curvature
        inside = (curvature > 0) & (step > low[active]) & (step < high[active])
        new = np.where(inside, step, (low[active] + high[active]) / 2)
        # at the lower bound 0 bisection would take long to say so: a rising deviance at 0 is a minimum there
        at_zero = rising & (at == 0)
        kappa[active] = np.where(at_zero, 0.0, new)
        moving = (np.abs(new - at) > _NEWTON_TOLERANCE) & (high[active] - low[active] > _NEWTON_TOLERANCE)
        active = active[moving & ~at_zero]
        if not len(active):
            break
    return np.expm1(kappa) / n_max


def profile_slopes(
    spectrum: ParticipantSpectrum, squares: Array, voxels: NDArray[np.intp] | slice, ratio: Array
) -> Slopes:
    """Find the slopes of some voxels, whose λ is given: R = Σ η²/(1+λξ), the traces Σ (ξ/(1+λξ))^k."""
    shrunk = 1 / (1 + ratio * spectrum.eigenvalues[:, None])
    scaled = spectrum.eigenvalues[:, None] * shrunk
    terms = squares[:, voxels] * shrunk
    total = np.maximum(terms.sum(axis=0), np.finfo(float).tiny)
    terms *= scaled
    first = -terms.sum(axis=0) / total
    terms *= scaled
    second = 2 * terms.sum(axis=0) / total
    return Slopes(first, second, spectrum.multiplicities @ scaled, spectrum.multiplicities @ scaled**2)


# One working correlation for all voxels: its profile deviance is summed over voxels at these nodes of κ and
# interpolated.
_POOLING_LIMIT = 1e3  # λ, an intraclass correlation of 0.999
_POOLING_NODES = 32
_LOGS_TOGETHER = 8  # ratios of sums lie between 1e-4 and 1, so that the product of eight cannot vanish


class PooledRatio:
    """The ratio λ that maximises the REML summed over voxels, from sums that blocks of voxels add up.

    The deviance over κ = log(1 + λ n_max) is analytic in a strip of half-width π around the interval, so that its
    Chebyshev interpolant at 32 nodes is exact to about 1e-9 (Trefethen 2013, Approximation Theory, theorem 8.2).

    Parameters
    ----------
    spectrum : ParticipantSpectrum
    n_responses : int, default=1
        R. With several, their covariance is unknown and the same up to 1 + λξ in all eigenspaces: in the deviance the
        determinant of the matrix Σ ηη′/(1+λξ) takes the place of the sum of squares. So λ does not change when the
        responses are replaced by as many independent combinations of them.
    """

    def __init__(self, spectrum: ParticipantSpectrum, n_responses: int = 1) -> None:
        self._spectrum = spectrum
        self._n_responses = n_responses
        self._n_max = spectrum.largest_participant
        self._top = np.log1p(_POOLING_LIMIT * self._n_max)
        angles = np.pi * np.arange(_POOLING_NODES + 1) / _POOLING_NODES
        nodes = (np.cos(angles) + 1) / 2 * self._top
        ratios = np.expm1(nodes) / self._n_max
        self._shrunk = 1 / (1 + np.outer(ratios, spectrum.eigenvalues))
        self._penalty = np.log1p(np.outer(ratios, spectrum.eigenvalues)) @ spectrum.multiplicities

    n_sums = _POOLING_NODES + 2

    def sums(self, values: NDArray[np.floating]) -> Array:
        """Sum over voxels log Σ η²/(1+λξ) − log Σ η² at every node, and count the voxels.

        Parameters
        ----------
        values : ndarray of shape (R N, V)
            Response by response.

        Returns
        -------
        ndarray of shape (34,)
            Additive over blocks of voxels; the last element is the number of voxels. Voxels without residual
            variation do not count.
        """
        if self._n_responses > 1:
            return self._sums_of_determinants(as_responses(values, self._n_responses))
        squares = self._spectrum.squares(values)
        total = squares.sum(axis=0)
        varies = total > 0
        if not varies.all():
            squares, total = squares[:, varies], total[varies]
        squares /= total
        n_voxels = squares.shape[1]
        padded = -n_voxels % _LOGS_TOGETHER
        shares = self._shrunk @ squares
        if padded:
            shares = np.pad(shares, ((0, 0), (0, padded)), constant_values=1.0)
        products = shares.reshape(len(shares), _LOGS_TOGETHER, -1).prod(axis=1)
        return np.append(np.log(products).sum(axis=1), n_voxels)

    def _sums_of_determinants(self, responses: NDArray[np.floating]) -> Array:
        """Sum the logarithms of determinants of several responses; see `sums`."""
        products = self._spectrum.products(_of_equal_size(responses))
        whole = log_determinant(products.sum(axis=2))
        varies = np.isfinite(whole)
        at_nodes = np.einsum("kg,stgv->stkv", self._shrunk, products[..., varies])
        return np.append((log_determinant(at_nodes) - whole[varies]).sum(axis=1), np.count_nonzero(varies))

    def estimate(self, sums: Array) -> float:
        """Find λ from the sums over all voxels; 0 where there are none."""
        from numpy.polynomial import Chebyshev
        from scipy.optimize import minimize_scalar

        n_voxels = sums[-1]
        if not n_voxels:
            return 0.0
        mean_deviance = self._spectrum.n_residual * sums[:-1] / n_voxels + self._n_responses * self._penalty
        angles = np.pi * np.arange(_POOLING_NODES + 1) / _POOLING_NODES
        curve = Chebyshev.fit(np.cos(angles), mean_deviance, _POOLING_NODES, domain=[-1, 1])
        fine = np.linspace(-1, 1, 2001)
        lowest = int(np.argmin(curve(fine)))
        slope = curve.deriv()
        low, high = fine[max(lowest - 1, 0)], fine[min(lowest + 1, len(fine) - 1)]
        if lowest == 0 and slope(-1.0) >= 0:
            return 0.0
        if slope(low) < 0 < slope(high):
            from scipy.optimize import brentq

            best = brentq(slope, low, high, xtol=1e-14)
        else:
            best = minimize_scalar(curve, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        return float(np.expm1((best + 1) / 2 * self._top) / self._n_max)


def as_responses(values: NDArray[np.floating], n_responses: int) -> NDArray[np.floating]:
    """Take R responses that lie one below the other, of shape (R N, V), apart: (R, N, V)."""
    return values.reshape(n_responses, -1, values.shape[1])


def _of_equal_size(responses: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale each response to a sum of squares of 1 at each voxel; zeros stay."""
    size = np.sqrt(np.einsum("rnv,rnv->rv", responses, responses))[:, None]
    return np.asarray(np.divide(responses, size, where=size > 0, out=np.zeros_like(responses)))


class PooledGroups:
    """Ratio λ and variance of each of K groups of participants, from sums that blocks of voxels add up.

    Each group is looked at by itself, with the rows of the design that are its own: λ as by `PooledRatio`, and the
    variances relative to each other from the mean over voxels of the logarithm of their residual squares, so that
    voxels which vary much count no more than others.

    Parameters
    ----------
    spectra : sequence of K ParticipantSpectrum
    rows : sequence of K ndarray of int
        Maps of each group.
    n_responses : int, default=1
        R. With several, the variance is the R-th root of the determinant of their covariance.
    """

    def __init__(
        self, spectra: Sequence[ParticipantSpectrum], rows: Sequence[NDArray[np.int_]], n_responses: int = 1
    ) -> None:
        self._spectra = spectra
        self._rows = rows
        self._n_responses = n_responses
        self._ratios = [PooledRatio(spectrum, n_responses) if spectrum.separates else None for spectrum in spectra]

    def sums(self, values: NDArray[np.floating]) -> Array:
        """Sum up what the groups need of V voxels.

        Parameters
        ----------
        values : ndarray of shape (R N, V)
            Response by response.

        Returns
        -------
        ndarray of shape (K + 1 + 34 K,)
            Additive over blocks of voxels: sums of log squares, the number of voxels, the sums of `PooledRatio`.
        """
        responses = as_responses(values, self._n_responses)
        if self._n_responses > 1:  # alike for all groups
            responses = _of_equal_size(responses)
        own = [responses[:, rows].reshape(-1, values.shape[1]) for rows in self._rows]
        squares = np.array([self._size(spectrum, part) for spectrum, part in zip(self._spectra, own, strict=True)])
        varies = (squares > 0).all(axis=0)
        logs = np.log(squares[:, varies] / squares[0, varies]).sum(axis=1)
        ratios = [
            np.zeros(PooledRatio.n_sums) if ratio is None else ratio.sums(part)
            for ratio, part in zip(self._ratios, own, strict=True)
        ]
        return np.concatenate([logs, [float(varies.sum())], *ratios])

    def _size(self, spectrum: ParticipantSpectrum, values: NDArray[np.floating]) -> Array:
        """Sum the residual squares of a group; of several responses, the root of their matrix' determinant."""
        if self._n_responses == 1:
            return np.asarray(spectrum.squares(values).sum(axis=0))
        products = spectrum.products(as_responses(values, self._n_responses)).sum(axis=2)
        return np.asarray(np.exp(log_determinant(products) / self._n_responses))

    def estimate(self, sums: Array, ratio: float) -> tuple[Array, Array]:
        """Find ratios and variances of the groups.

        Parameters
        ----------
        sums : ndarray
            Over all voxels.
        ratio : float
            λ of a group that cannot tell its own.

        Returns
        -------
        ratios, variances : ndarray of shape (K,)
            Variance within participants relative to the first group; all 1 where no voxel varies in every group.
        """
        k = len(self._spectra)
        parts = np.split(sums[k + 1 :], k)
        ratios = np.array(
            [ratio if own is None else own.estimate(part) for own, part in zip(self._ratios, parts, strict=True)]
        )
        if not sums[k]:
            return ratios, np.ones(k)
        logs = sums[:k] / sums[k]
        for index, spectrum in enumerate(self._spectra):
            expected = 1 + ratios[index] * spectrum.eigenvalues
            total = spectrum.multiplicities @ expected
            # the squares are about a chi-square of so many degrees of freedom, whose logarithm is too small on average;
            # of several responses their matrix is about a Wishart one, and so is that of its determinant
            dof = total**2 / (spectrum.multiplicities @ expected**2)
            below = np.maximum(dof - np.arange(self._n_responses), 1.0)
            logs[index] -= np.log(total) + special.digamma(below / 2).mean() - np.log(dof / 2)
        return ratios, np.exp(logs - logs[0])

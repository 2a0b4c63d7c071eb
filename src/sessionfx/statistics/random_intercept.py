"""Mixed-effects estimate of a contrast: random participant intercept, restricted maximum likelihood at every voxel.

With a = X⁺′c and b = U′ZZ′a (see `participant_variance`), the generalised least-squares estimate and its variance are
functions of λ alone:

    c′β̂(λ) = a′y − Σ λ b η / (1+λξ)
    Var c′β̂ = σ² h(λ),  h(λ) = a′a + λ a′ZZ′a − Σ λ² b² / (1+λξ)

which follows from c′β̂ = a′y − a′VU(U′VU)⁻¹U′y. Degrees of freedom: Satterthwaite's as in lmerTest (Kuznetsova,
Brockhoff & Christensen 2017, doi:10.18637/jss.v082.i13), from the observed information of the REML deviance; or
Kenward & Roger's (1997, doi:10.2307/2533558) with their adjusted variance, from the expected information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import Array
from sessionfx.statistics.partial_coverage import REGULAR, Cells, Fitted, gram_of, inverses
from sessionfx.statistics.participant_variance import (
    GRID_LIMIT,
    GRID_POINTS,
    LARGEST_RATIO,
    ParticipantSpectrum,
    Slopes,
    estimate_ratio,
    profile_slopes,
    refined_ratio,
)

SATTERTHWAITE = "satterthwaite"
KENWARD_ROGER = "kenward-roger"


@dataclass(frozen=True)
class MixedContrast:
    """A contrast of the fixed effects in spectral form."""

    weights: Array  # (N,): a = X⁺′c: the ordinary least-squares estimate is a′y
    corrections: Array  # (G, N): Σ_j b_j u_j over each eigenspace: with y they give Σ b η
    squares: Array  # (G,): Σ b² over each eigenspace
    # own, shared: a′a and a′ZZ′a
    own: float
    shared: float


def spectral_contrast(spectrum: ParticipantSpectrum, contrast: Array) -> MixedContrast:
    """Bring an estimable contrast of shape (P,) into spectral form."""
    weights = contrast @ spectrum.inverse
    by_participant = spectrum.memberships.T @ weights
    corrections = np.hstack(spectrum.parts((spectrum.memberships @ by_participant)[:, None])).T
    return MixedContrast(
        weights,
        np.ascontiguousarray(corrections),
        np.einsum("gn,gn->g", corrections, corrections),
        float(weights @ weights),
        float(by_participant @ by_participant),
    )


def squares_and_ratio(spectrum: ParticipantSpectrum, values: NDArray[np.floating]) -> tuple[Array, Array]:
    """Find what all contrasts of a design have in common: sums of squares, of shape (G, V), and λ, of shape (V,)."""
    squares = spectrum.squares(values)
    return squares, estimate_ratio(spectrum, squares)


def estimate_mixed(
    spectrum: ParticipantSpectrum,
    contrast: MixedContrast,
    values: NDArray[np.floating],
    dof_method: str = SATTERTHWAITE,
    *,
    known: tuple[Array, Array] | None = None,
) -> tuple[Estimate, Array]:
    """Estimate a contrast at every voxel.

    Parameters
    ----------
    spectrum : ParticipantSpectrum
        Of the design; must separate the two variances.
    contrast : MixedContrast
    values : ndarray of shape (N, V)
    dof_method : {'satterthwaite', 'kenward-roger'}
    known : (ndarray, ndarray), optional
        From `squares_and_ratio`, where it was asked before.

    Returns
    -------
    estimate : Estimate
        With one dof per voxel. Where λ is estimated as 0 Satterthwaite's dof is m = N − rank X, as in lmerTest:
        √λ does not move the variance to first order there.
    ratio : ndarray of shape (V,)
        λ.
    """
    squares, ratio = known or squares_and_ratio(spectrum, values)
    xi = spectrum.eigenvalues[:, None]
    shrunk = 1 / (1 + ratio * xi)
    dispersion = (squares * shrunk).sum(axis=0) / spectrum.n_residual
    products = contrast.corrections @ values
    effect = contrast.weights @ values - ratio * (products * shrunk).sum(axis=0)
    b2 = contrast.squares[:, None]
    relative = contrast.own + ratio * contrast.shared - ratio**2 * (b2 * shrunk).sum(axis=0)
    if dof_method == KENWARD_ROGER:
        relative, dof = _by_expected_information(spectrum, contrast, ratio, shrunk, relative)
    else:
        slope = contrast.shared - ratio * (b2 * shrunk * (1 + shrunk)).sum(axis=0)
        dof = satterthwaite(
            spectrum.n_residual, ratio, profile_slopes(spectrum, squares, slice(None), ratio), slope / relative
        )
    return Estimate(effect, dispersion * relative, dof), ratio


def satterthwaite(n_residual: float | Array, ratio: Array, slopes: Slopes, log_slope: Array) -> Array:
    """Compute dof = 2f²/(g′Ag) with A = 2 H⁻¹, H the Hessian of the deviance in (λ, log σ²), g the gradient of f.

    Given are m, λ at the optimum with its slopes there, and h′/h of the contrast, each of shape (V,).
    """
    m = np.asarray(n_residual, dtype=float)
    first, second, _, penalty_2 = slopes
    # at the optimum Σ η²/(1+λξ) = m σ²
    ratio_ratio = m * second - penalty_2
    ratio_scale = -m * first
    determinant = ratio_ratio * m - ratio_scale**2
    with np.errstate(divide="ignore", invalid="ignore"):
        # g′H⁻¹g for g = (h′/h, 1)
        spread = (log_slope**2 * m - 2 * log_slope * ratio_scale + ratio_ratio) / determinant
        dof = 1 / spread
    return np.where(ratio > 0, dof, m)


def _by_expected_information(
    spectrum: ParticipantSpectrum, contrast: MixedContrast, ratio: Array, shrunk: Array, relative: Array
) -> tuple[Array, Array]:
    """Adjust h(λ) and find the dof, from the expected information on the variances (λσ², σ²), in units of σ².

    With w the generalised least-squares weights, w′ZZ′PZZ′w = T, w′ZZ′Pw = −λT, w′Pw = λ²T for T = Σ b²/(1+λξ)³; for
    one contrast the F approximation reduces to dof 2/A₁ and no scaling.
    """
    xi = spectrum.eigenvalues[:, None]
    m = spectrum.multiplicities
    information = (m @ (xi * shrunk) ** 2 / 2, m @ (xi * shrunk**2) / 2, m @ shrunk**2 / 2)
    b2 = contrast.squares[:, None]
    cubed = (b2 * shrunk**3).sum(axis=0)
    shared = contrast.shared - 2 * ratio * (b2 * shrunk).sum(axis=0) + ratio**2 * (b2 * xi * shrunk**2).sum(axis=0)
    own = contrast.own + ratio**2 * (b2 * shrunk**2).sum(axis=0)
    return kenward_roger(ratio, information, relative, (cubed, shared, own))


def kenward_roger(
    ratio: Array, information: Sequence[Array], relative: Array, of_contrast: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """Adjust h(λ) and find the dof, each of shape (V,).

    Given are λ, the expected information on (λσ², σ²) as its first, mixed and second part in units of σ², h(λ), and of
    the contrast T, w′ZZ′w and w′w.
    """
    cubed, shared, own = of_contrast
    determinant = information[0] * information[2] - information[1] ** 2
    covariance = (information[2] / determinant, -information[1] / determinant, information[0] / determinant)
    adjusted = relative + 2 * cubed * (covariance[0] - 2 * ratio * covariance[1] + ratio**2 * covariance[2])
    squared = covariance[0] * shared**2 + 2 * covariance[1] * shared * own + covariance[2] * own**2
    return adjusted, 2 * relative**2 / squared


# A design of each voxel -------------------------------------------------------------------------------------


class _Profile(NamedTuple):
    """The restricted likelihood at one λ of each voxel, and what follows from it."""

    ratio: Array
    inverse: Array  # (X′V⁻¹X)⁻¹
    coefficients: Array
    squares: Array  # y′Py
    slopes: Slopes
    deviance: Array


@dataclass(frozen=True)
class _Moments:
    """Sums of squares and products, in all and of participants with k = 1 … S maps."""

    # gram, of_sums, (V, P, P) and (V, S, P, P): X′X, and Σ (Σx)(Σx)′ over participants with so many maps
    gram: Array
    of_sums: Array
    # right, right_of_sums: (V, P) and (V, S, P)
    right: Array
    right_of_sums: Array
    # total, total_of_sums: (V,) and (V, S)
    total: Array
    total_of_sums: Array
    numbers: Array  # (V, S): participants

    @property
    def counts(self) -> Array:
        return np.arange(1.0, self.numbers.shape[1] + 1)

    @property
    def n_residual(self) -> Array:
        return np.asarray(self.numbers @ self.counts - self.gram.shape[1])

    @property
    def most(self) -> Array:
        """Most maps of any participant, of shape (V,)."""
        return np.asarray(np.where(self.numbers > 0, self.counts, 0.0).max(axis=1))

    def at(self, chosen: NDArray[np.intp]) -> _Moments:
        return _Moments(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def profile(self, ratio: Array) -> _Profile:
        """Look at the likelihood with V = I + λ ZZ′."""
        g = 1 / (1 + ratio[:, None] * self.counts)
        gram = self.gram - np.einsum("v,vk,vkpq->vpq", ratio, g, self.of_sums)
        right = self.right - ratio[:, None] * np.einsum("vk,vkp->vp", g, self.right_of_sums)
        total = self.total - ratio * (g * self.total_of_sums).sum(axis=1)
        inverse = np.linalg.inv(gram)
        b = np.einsum("vpq,vq->vp", inverse, right)
        squares = np.maximum(total - (b * right).sum(axis=1), np.finfo(float).tiny)
        moved = np.einsum("vkpq,vq->vkp", self.of_sums, b)
        rest = self.right_of_sums - moved
        # Σ (Σr)² over participants with so many maps, r = y − Xb
        sums = self.total_of_sums - np.einsum("vkp,vp->vk", self.right_of_sums + rest, b)
        first = -(g**2 * sums).sum(axis=1)
        shared = np.einsum("vk,vkp->vp", g**2, rest)
        second = 2 * ((self.counts * g**3 * sums).sum(axis=1) - np.einsum("vp,vpq,vq->v", shared, inverse, shared))
        cg = self.counts * g
        inside = np.matmul(inverse[:, None], self.of_sums)  # M⁻¹ Σ(Σx)(Σx)′
        traces = np.einsum("vkpp->vk", inside)
        whole = np.einsum("vk,vkpq->vpq", g**2, inside)
        penalty_1 = (self.numbers * cg).sum(axis=1) - (g**2 * traces).sum(axis=1)
        penalty_2 = ((self.numbers * cg**2).sum(axis=1) - 2 * (cg * g**2 * traces).sum(axis=1)
                     + np.einsum("vpq,vqp->v", whole, whole))  # fmt: skip
        deviance = self.n_residual * np.log(squares) - (self.numbers * np.log(g)).sum(axis=1)
        deviance += np.linalg.slogdet(gram)[1]
        return _Profile(
            ratio=ratio, inverse=inverse, coefficients=b, squares=squares,
            slopes=Slopes(first / squares, second / squares, penalty_1, penalty_2), deviance=deviance,
        )  # fmt: skip


def _moments(cells: Cells, design: Array, values: Array) -> _Moments:
    n, s, p = design.shape
    counts = cells.has.sum(axis=2)
    sums = np.matmul(cells.has[:, :, None, :], design[None])[:, :, 0]  # (V, n, P)
    totals = values.sum(axis=2)
    of_count = [counts == k for k in range(1, s + 1)]
    weighted = [np.where(own[:, :, None], sums, 0.0) for own in of_count]
    flat = design.reshape(n * s, p)
    return _Moments(
        gram=gram_of(cells.has.reshape(-1, n * s), flat),
        of_sums=np.stack([np.matmul(own.transpose(0, 2, 1), sums) for own in weighted], axis=1),
        right=values.reshape(-1, n * s) @ flat,
        right_of_sums=np.stack([np.einsum("vnp,vn->vp", own, totals) for own in weighted], axis=1),
        total=np.einsum("vns,vns->v", values, values),
        total_of_sums=np.stack([(np.where(own, totals, 0.0) ** 2).sum(axis=1) for own in of_count], axis=1),
        numbers=np.stack([own.sum(axis=1) for own in of_count], axis=1).astype(float),
    )


class MixedFit(NamedTuple):
    """A random intercept fitted to V voxels, for any contrast."""

    at: NDArray[np.intp]  # (K,): voxels that could be fitted; what follows is theirs
    # sums, and the likelihood at its maximum, of what ordinary least squares leave
    moments: _Moments
    profile: _Profile
    ordinary: Array  # (K, P): the coefficients of ordinary least squares
    holds: NDArray[np.bool_]  # (V,)
    n: Array  # (V,)


def fit_mixed(cells: Cells, design: Array) -> MixedFit:
    """Fit a random intercept by REML, with a design of shape (n, S, P)."""
    n, s, p = design.shape
    flat = design.reshape(n * s, p)
    inverse, regular = inverses(gram_of(cells.has.reshape(-1, n * s), flat))
    ordinary_fit = np.einsum("vpq,vq->vp", inverse, cells.values.reshape(-1, n * s) @ flat)
    # the rest of the sums lose no digits to the size of the effects
    residuals = cells.values - cells.has * (ordinary_fit @ flat.T).reshape(-1, n, s)
    moments = _moments(cells, design, residuals)
    m = moments.n_residual
    holds = regular & (m >= 2) & (moments.total > cells.rounding)
    at = np.nonzero(holds)[0]
    chosen = moments.at(at)
    at_zero = chosen.profile(np.zeros(len(at))).slopes
    spread = at_zero.penalty_2 / m[at] - (at_zero.penalty_1 / m[at]) ** 2
    ratio, is_single = _ratios(chosen)
    holds[at] = (spread > REGULAR * chosen.most**2) & is_single
    return MixedFit(at, chosen, chosen.profile(ratio), ordinary_fit[at], holds, cells.n_participants)


def mixed(fit: MixedFit, contrast: Array, dof_method: str) -> Fitted:
    """Estimate a contrast of shape (P,); see `estimate_mixed`.

    Variance and degrees of freedom are Kenward and Roger's, or else Satterthwaite's.
    """
    effect, variance, dof = np.full(len(fit.n), np.nan), np.full(len(fit.n), np.nan), np.ones(len(fit.n))
    if len(fit.at):
        effect[fit.at] = (fit.ordinary + fit.profile.coefficients) @ contrast
        variance[fit.at], dof[fit.at] = _of_contrast(fit.moments, fit.profile, contrast, dof_method)
    return Fitted(Estimate(effect, variance, dof, n=fit.n), fit.holds)


def _ratios(moments: _Moments) -> tuple[Array, NDArray[np.bool_]]:
    """Find λ by REML, and say whether the deviance has one minimum only on the grid; see `estimate_ratio`."""
    most = moments.most
    top = np.log1p(GRID_LIMIT * most)
    nodes = np.linspace(0.0, 1.0, GRID_POINTS)[:, None] * top
    grid = np.stack([moments.profile(np.expm1(node) / most).deviance for node in nodes])
    padded = np.pad(grid, ((1, 1), (0, 0)), constant_values=np.inf)
    is_single = ((grid <= padded[:-2]) & (grid < padded[2:])).sum(axis=0) == 1
    start = grid.argmin(axis=0)
    bounds = np.vstack([nodes, np.log1p(LARGEST_RATIO * most)])
    every = np.arange(len(most))
    found = refined_ratio(
        lambda voxels, ratio: moments.at(voxels).profile(ratio).slopes, moments.n_residual, most,
        (bounds[np.maximum(start - 1, 0), every], bounds[start, every], bounds[start + 1, every]),
    )  # fmt: skip
    return found, is_single


def _of_contrast(moments: _Moments, found: _Profile, contrast: Array, dof_method: str) -> tuple[Array, Array]:
    """Find variance and degrees of freedom of a contrast; see the module."""
    m, ratio = moments.n_residual, found.ratio
    g = 1 / (1 + ratio[:, None] * moments.counts)
    z = found.inverse @ contrast
    relative = z @ contrast
    of_count = np.einsum("vp,vkpq,vq->vk", z, moments.of_sums, z)
    dispersion = found.squares / m
    slope = (g**2 * of_count).sum(axis=1)
    if dof_method != KENWARD_ROGER:
        return dispersion * relative, satterthwaite(m, ratio, found.slopes, slope / relative)
    _, _, penalty_1, penalty_2 = found.slopes
    information = (
        penalty_2 / 2, (penalty_1 - ratio * penalty_2) / 2,
        (m - 2 * ratio * penalty_1 + ratio**2 * penalty_2) / 2,
    )  # fmt: skip
    moved = np.einsum("vk,vkpq,vq->vp", g**2, moments.of_sums, z)
    cubed = (moments.counts * g**3 * of_count).sum(axis=1) - np.einsum("vp,vpq,vq->v", moved, found.inverse, moved)
    own = np.einsum("vp,vpq,vq->v", z, moments.gram, z)
    own += ((moments.counts * (ratio[:, None] * g) ** 2 - 2 * ratio[:, None] * g) * of_count).sum(axis=1)
    adjusted, dof = kenward_roger(ratio, information, relative, (cubed, slope, own))
    return dispersion * adjusted, dof

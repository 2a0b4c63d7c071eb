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

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.participant_variance import ParticipantSpectrum, Slopes, estimate_ratio, profile_slopes

SATTERTHWAITE = "satterthwaite"
KENWARD_ROGER = "kenward-roger"


@dataclass(frozen=True)
class MixedContrast:
    """A contrast of the fixed effects in spectral form.

    Attributes
    ----------
    weights : ndarray of shape (N,)
        a = X⁺′c: the ordinary least-squares estimate is a′y.
    corrections : ndarray of shape (G, N)
        Σ_j b_j u_j over each eigenspace: with y they give Σ b η.
    squares : ndarray of shape (G,)
        Σ b² over each eigenspace.
    own, shared : float
        a′a and a′ZZ′a.
    """

    weights: NDArray[np.float64]
    corrections: NDArray[np.float64]
    squares: NDArray[np.float64]
    own: float
    shared: float


def spectral_contrast(spectrum: ParticipantSpectrum, contrast: NDArray[np.float64]) -> MixedContrast:
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


def squares_and_ratio(
    spectrum: ParticipantSpectrum, values: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find what all contrasts of a design have in common: sums of squares, of shape (G, V), and λ, of shape (V,)."""
    squares = spectrum.squares(values)
    return squares, estimate_ratio(spectrum, squares)


def estimate_mixed(
    spectrum: ParticipantSpectrum,
    contrast: MixedContrast,
    values: NDArray[np.floating],
    dof_method: str = SATTERTHWAITE,
    *,
    known: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[Estimate, NDArray[np.float64]]:
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


def satterthwaite(
    n_residual: float | NDArray[np.float64],
    ratio: NDArray[np.float64],
    slopes: Slopes,
    log_slope: NDArray[np.float64],
) -> NDArray[np.float64]:
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
    spectrum: ParticipantSpectrum,
    contrast: MixedContrast,
    ratio: NDArray[np.float64],
    shrunk: NDArray[np.float64],
    relative: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
    ratio: NDArray[np.float64],
    information: Sequence[NDArray[np.float64]],
    relative: NDArray[np.float64],
    of_contrast: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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

"""Fixed effects: combining the estimates of one participant's runs or sessions.

The variance of the result is within-participant variance only.

Degrees of freedom
------------------
satterthwaite
    Those of the χ² with the mean and the variance of a sum Σ c² v of estimated variances (Satterthwaite 1946,
    Biometrics Bull 2:110): (Σ c² v)² / Σ (c⁴ v² / ν). They lie between the smallest ν and Σ ν, differ between voxels,
    and are Σ ν where the c² v are in proportion to ν. Combined in steps, runs then sessions, they are those of one
    step. With `precision` weights q, taken as known, 1 / Σ (q² / ν), which is Meier's (1953, Biometrics 9:59).
sum
    Σ ν, as nilearn's `compute_fixed_effects`: right where all inputs have one variance.

F tests of R effects are combined by their covariances C_i. With B_i = (Σ c² C)⁻¹ c_i² C_i the dof of satterthwaite are
R / Σ (tr(B_i²) / ν_i): the mean of F is about 1 / (1 − 2/R Σ tr(B_i²)/ν_i), to the order of 1/ν (E* of Kenward & Roger
1997, doi:10.2307/2533558), and that of an F distribution is 1 / (1 − 2/ν). For R = 1 they are those above, for one
input its own. They do not depend on how the rows are written, and lie between the smallest ν and Σ ν.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessionfx.statistics.estimates import Dof, Estimate, WaldTest, symmetric_matrices
from sessionfx.statistics.linear_algebra import Array


def weighted_sum(inputs: Sequence[Estimate], weights: Sequence[float], dof_method: str = "satterthwaite") -> Estimate:
    """Sum independent estimates with fixed weights.

    Parameters
    ----------
    inputs : sequence of N Estimate
        Of the same V voxels.
    weights : sequence of N float
        For example 1/N each for their mean, or 1 and −1 for a difference.
    dof_method : {'satterthwaite', 'sum'}

    Returns
    -------
    Estimate
        effect Σ c b, variance Σ c² v, dof as the module says, over the inputs with a weight other than zero; one
        such input keeps its own dof.
    """
    used = [(estimate, weight) for estimate, weight in zip(inputs, weights, strict=True) if weight != 0]
    effect = sum((weight * estimate.effect for estimate, weight in used), np.zeros_like(inputs[0].effect))
    parts = [weight**2 * estimate.variance for estimate, weight in used]
    variance = sum(parts, np.zeros_like(inputs[0].variance))
    return Estimate(
        effect, variance, _combined_dof(parts, variance, [estimate.dof for estimate, _ in used], dof_method)
    )


def average(inputs: Sequence[Estimate], weighting: str = "equal", dof_method: str = "satterthwaite") -> Estimate:
    """Average independent estimates.

    Parameters
    ----------
    inputs : sequence of N Estimate
        Of the same V voxels, all with variances above zero.
    weighting : {'equal', 'precision'}
        Arithmetic mean, or weights inversely proportional to each voxel's variances.
    dof_method : {'satterthwaite', 'sum'}

    Returns
    -------
    Estimate
        Effect and variance as nilearn's `compute_fixed_effects`; dof as the module says.
    """
    if weighting == "equal":
        return weighted_sum(inputs, [1 / len(inputs)] * len(inputs), dof_method)
    precisions: list[Array] = [1 / estimate.variance for estimate in inputs]
    total = np.sum(precisions, axis=0)
    effect = np.sum(
        [estimate.effect * precision for estimate, precision in zip(inputs, precisions, strict=True)], axis=0
    )
    # with weights q the variance is Σ q² v, of which an input's part is q / total
    dof = _combined_dof(precisions, total, [estimate.dof for estimate in inputs], dof_method)
    return Estimate(effect / total, 1 / total, dof)


def weighted_tests(inputs: Sequence[WaldTest], weights: Sequence[float], dof_method: str = "satterthwaite") -> WaldTest:
    """Test a sum of independent effects with fixed weights.

    Parameters
    ----------
    inputs : sequence of N WaldTest
        Of the same R rows and V voxels.
    weights : sequence of N float
    dof_method : {'satterthwaite', 'sum'}

    Returns
    -------
    WaldTest
        Of effects Σ c b with covariance Σ c² C, dof as the module says, over the inputs with a weight other than zero.
    """
    used = [(test, weight) for test, weight in zip(inputs, weights, strict=True) if weight != 0]
    effects = sum((weight * test.effects for test, weight in used), np.zeros_like(inputs[0].effects))
    parts = [weight**2 * test.covariance for test, weight in used]
    covariance = sum(parts, np.zeros_like(inputs[0].covariance))
    dofs = [test.dof for test, _ in used]
    if len(used) == 1 or dof_method == "sum":
        return WaldTest.of(effects, covariance, sum(dofs))
    n_rows = len(effects)
    whole = symmetric_matrices(covariance, n_rows)
    inverse = np.zeros(effects.shape[1])
    for part, dof in zip(parts, dofs, strict=True):
        share = np.linalg.solve(whole, symmetric_matrices(part, n_rows))
        inverse += np.einsum("vst,vts->v", share, share) / dof
    return WaldTest.of(effects, covariance, n_rows / inverse)


def _combined_dof(parts: Sequence[Array], total: Array, dofs: Sequence[Dof], method: str) -> Dof:
    """Find the dof of a variance of which each input has a part, of shape (V,); see the module."""
    if len(parts) == 1 or method == "sum":
        return sum(dofs)
    inverse = np.zeros_like(total)
    for part, dof in zip(parts, dofs, strict=True):
        share = np.divide(part, total, where=total > 0, out=np.full_like(total, 1 / len(parts)))
        inverse += share**2 / dof
    return 1 / inverse

"""The fit of one run: arrays in, effects, variances and degrees of freedom out.

The only place that knows which engine computes the GLM; at present nilearn's `run_glm`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import independent_columns, pseudo_inverse


def fit_run(
    signal: NDArray[np.floating],
    design: NDArray[np.float64],
    contrasts: Mapping[str, NDArray[np.float64]],
    noise_model: str,
) -> dict[str, Estimate]:
    """Fit a GLM to every voxel of a run and estimate contrasts.

    Parameters
    ----------
    signal : ndarray of shape (T, V)
        Scanner units; expressed as percent of each voxel's mean before the fit, as nilearn's
        `signal_scaling=0` does.
    design : ndarray of shape (T, P)
        Any rank below T; a rank-deficient one is reduced to independent columns and the contrasts are carried over.
    contrasts : mapping of str to ndarray of shape (P,)
        Estimable contrasts by label.
    noise_model : {'ar1', 'ols'}

    Returns
    -------
    dict of str to Estimate
        By label; effects in percent signal change, dof T − rank.

    Raises
    ------
    ValueError
        If there are no more volumes than independent regressors.
    """
    from nilearn.glm.contrasts import compute_contrast
    from nilearn.glm.first_level import mean_scaling, run_glm

    kept = independent_columns(design)
    reduced = design[:, kept]
    if len(kept) >= design.shape[0]:
        raise ValueError(f"{design.shape[0]} volumes cannot determine {len(kept)} regressors")
    # Estimable contrasts are combinations of the rows of X: c = c X⁺X, hence c b = (c X⁺ X_kept) b_kept.
    to_reduced = pseudo_inverse(design) @ reduced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # voxels with a mean near zero are counted by the caller
        scaled, _ = mean_scaling(signal, 0)
    labels, results = run_glm(scaled, reduced, noise_model=noise_model)
    estimates = {}
    for label, contrast in contrasts.items():
        vector = contrast[kept] if len(kept) == design.shape[1] else contrast @ to_reduced
        fitted = compute_contrast(labels, results, vector, stat_type="t")
        estimates[label] = Estimate(np.ravel(fitted.effect), fitted.variance, float(fitted.dof))
    return estimates

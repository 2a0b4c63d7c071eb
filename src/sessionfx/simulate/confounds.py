"""The confounds that fMRIPrep would report of a simulated run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.simulate.head import Anatomy

MOTION_COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD_RADIUS = 50.0  # mm; turns rotations into displacements (Power et al. 2012, NeuroImage 59:2142)
MOTION_OUTLIER_THRESHOLD = 0.5  # mm of framewise displacement; fMRIPrep's default
N_COMPCOR = 6


def make_confounds(
    data: NDArray[Any], anatomy: Anatomy, mask: NDArray[Any], motion: NDArray[Any], cosines: NDArray[Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table of one run and its sidecar.

    Parameters
    ----------
    data : array of shape (T, V)
        Intensities.
    anatomy : Anatomy
    mask : bool array of shape (V,)
        The brain.
    motion : array of shape (T, 6)
        In mm and rad.
    cosines : array of shape (T, number of cosines)
        Slow drifts; the last one is constant.
    """
    brain = data[:, mask]
    steps = np.abs(np.diff(motion, axis=0))
    displacement = steps[:, :3].sum(axis=1) + HEAD_RADIUS * steps[:, 3:].sum(axis=1)
    dvars = np.sqrt(np.mean(np.diff(brain, axis=0) ** 2, axis=1))
    table = {
        "global_signal": brain.mean(axis=1),
        "csf": data[:, anatomy.csf].mean(axis=1),
        "white_matter": data[:, anatomy.white_matter].mean(axis=1),
        "dvars": np.insert(dvars, 0, np.nan),
        "std_dvars": np.insert(dvars / _expected_dvars(brain), 0, np.nan),
        "framewise_displacement": np.insert(displacement, 0, np.nan),
    }
    components, sidecar = _compcor(data[:, anatomy.csf | anatomy.white_matter], cosines)
    table |= dict(zip(sidecar, components.T, strict=True))
    table |= {f"cosine{k:02d}": cosine for k, cosine in enumerate(cosines[:, :-1].T)}
    volumes = np.arange(len(data))
    table["non_steady_state_outlier00"] = (volumes == 0).astype(int)
    outliers = 1 + np.flatnonzero(displacement > MOTION_OUTLIER_THRESHOLD)
    table |= {f"motion_outlier{k:02d}": (volumes == volume).astype(int) for k, volume in enumerate(outliers)}
    for name, parameter in zip(MOTION_COLUMNS, motion.T, strict=True):
        derivative = np.insert(np.diff(parameter), 0, np.nan)
        table |= {name: parameter, f"{name}_derivative1": derivative}
        table |= {f"{name}_power2": parameter**2, f"{name}_derivative1_power2": derivative**2}
    return pd.DataFrame(table), sidecar


def _expected_dvars(data: NDArray[Any]) -> float:
    """Return the DVARS of AR(1) noise with the data's robust SD and autocorrelation (Nichols 2013)."""
    lower, upper = np.percentile(data, [25, 75], axis=0)
    variance = ((upper - lower) / 1.349) ** 2
    centred = data - data.mean(axis=0)
    ar1 = (centred[1:] * centred[:-1]).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12)
    return float(np.sqrt(np.mean(2 * (1 - ar1) * variance)).clip(1e-6))


def _compcor(tissue: NDArray[Any], cosines: NDArray[Any]) -> tuple[NDArray[Any], dict[str, dict[str, Any]]]:
    """Return the principal time courses of tissue after the cosines are removed, and fMRIPrep's sidecar of them.

    They are zero in the first volume, which is not in its steady state (Behzadi et al. 2007, NeuroImage 37:90).
    """
    steady, slow = tissue[1:], cosines[1:]
    residual = steady - slow @ np.linalg.lstsq(slow, steady, rcond=None)[0]
    residual /= np.maximum(residual.std(axis=0), 1e-12)
    u, singular_values, _ = np.linalg.svd(residual, full_matrices=False)
    u = u[:, :N_COMPCOR]
    u *= np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])  # LAPACK leaves the sign to chance
    explained = singular_values**2 / np.sum(singular_values**2)
    sidecar = {
        f"a_comp_cor_{k:02d}": {
            "Method": "aCompCor",
            "Mask": "combined",
            "Retained": True,
            "SingularValue": round(float(singular_values[k]), 6),
            "VarianceExplained": round(float(explained[k]), 6),
            "CumulativeVarianceExplained": round(float(explained[: k + 1].sum()), 6),
        }
        for k in range(u.shape[1])
    }
    return np.vstack([np.zeros((1, u.shape[1])), u]), sidecar

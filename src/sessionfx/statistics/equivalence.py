"""Two one-sided tests that an effect is practically zero (TOST; Schuirmann 1987, doi:10.1007/BF01068419)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sessionfx.statistics.estimates import Estimate, t_to_z
from sessionfx.statistics.linear_algebra import Array
from sessionfx.statistics.thresholds import suprathreshold, z_threshold


@dataclass(frozen=True)
class Equivalence:
    """Where effects are shown to lie within ± a bound."""

    bound: float  # in units of the effect
    # (V,): the normal deviate with the larger p of the two one-sided tests; large where the effect lies within the
    # bound
    z: Array
    # voxels with z at or above it are equivalent to zero; infinite where the false discovery rate is reached nowhere
    threshold: float
    # half of the width of the 1 − 2α interval, median over voxels: no bound below it can be met in half of them
    half_width: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels equivalent to zero, of shape (V,)."""
        return suprathreshold(self.z, self.threshold, two_sided=False)

    def within(self, units: str) -> str:
        """Write the bound for people: `within ±0.1 percent signal change`."""
        return f"within ±{self.bound:g} {units}"


def two_one_sided_tests(estimate: Estimate, bound: float, alpha: float, correction: str) -> Equivalence:
    """Test at each voxel that the effect is below the bound and above its negative.

    Parameters
    ----------
    estimate : Estimate
        Of V voxels, with their own degrees of freedom where these differ.
    bound : float
        Above zero.
    alpha : float
    correction : {'fdr', 'bonferroni', 'none'}
        Over voxels; see `z_threshold`.

    Returns
    -------
    Equivalence
        Of t = (b + bound)/se upwards and (b − bound)/se downwards the one with the larger p is (bound − |b|)/se.
        Uncorrected, p ≤ α exactly where the 1 − 2α interval lies within ± bound.
    """
    error = np.sqrt(estimate.variance)
    z = t_to_z((bound - np.abs(estimate.effect)) / error, estimate.dof)
    half_width = float(np.median(special.stdtrit(estimate.dof, max(1 - alpha, 0.5)) * error))
    return Equivalence(bound, z, z_threshold(z, alpha, correction, two_sided=False), half_width)

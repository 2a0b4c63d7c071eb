"""An estimate with its sampling variance and degrees of freedom, and the t, z and p that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

# The smallest p that becomes a z, as in nilearn: z stays within ±37.
SMALLEST_P = 1e-300


@dataclass(frozen=True)
class Estimate:
    """Effects of V voxels.

    Attributes
    ----------
    effect, variance : ndarray of shape (V,)
        Contrast estimate and its sampling variance.
    dof : float
        Degrees of freedom of effect / √variance.
    """

    effect: NDArray[np.float64]
    variance: NDArray[np.float64]
    dof: float

    @property
    def t(self) -> NDArray[np.float64]:
        """Student's t; 0 where the variance is not above zero."""
        usable = self.variance > 0
        return np.divide(
            self.effect,
            np.sqrt(np.where(usable, self.variance, 1.0)),
            where=usable,
            out=np.zeros_like(self.effect),
        )

    @property
    def p(self) -> NDArray[np.float64]:
        """One-sided p: the chance of a t as large as this one or larger (nilearn's convention)."""
        return np.asarray(special.stdtr(self.dof, -self.t))

    @property
    def z(self) -> NDArray[np.float64]:
        """The normal deviate with the same p as t."""
        return t_to_z(self.t, self.dof)


def t_to_z(t: NDArray[np.float64], dof: float) -> NDArray[np.float64]:
    """Find the normal deviates with the same one-sided p as t.

    Parameters
    ----------
    t : ndarray
        Student's t.
    dof : float
        Degrees of freedom.

    Returns
    -------
    ndarray
        Computed in the tail t lies in, so that large t keep their precision; within ±37 because smaller p than
        1e-300 are not told apart, as in nilearn.
    """
    tail = np.maximum(special.stdtr(dof, -np.abs(t)), SMALLEST_P)
    return np.asarray(np.copysign(stats.norm.isf(tail), t))

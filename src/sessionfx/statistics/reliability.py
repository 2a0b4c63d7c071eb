"""Test–retest reliability: variance between and within participants, and the intraclass correlations they give.

ICC(1) is that of one random session of a random participant, differences between sessions counting as error;
ICC(3,1) is the consistency of participants once the sessions' own means are taken out (Shrout & Fleiss 1979,
doi:10.1037/0033-2909.86.2.420). The variances are Henderson's method-3 estimates (1953, doi:10.2307/3001853), which for
complete data are the mean squares of the analysis of variance, (MSB − MSW)/k and MSW, and which missing sessions do
not upset. They come from the spectral form of `participant_variance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.linear_algebra import Array
from sessionfx.statistics.participant_variance import ParticipantSpectrum


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of V voxels."""

    # between, within, (V,): the estimate between participants can be negative, where they differ less than chance would
    # have it
    between: Array
    within: Array

    @property
    def icc(self) -> Array:
        """Share of the variance that is between participants; NaN where nothing varies."""
        total = self.between + self.within
        return np.divide(self.between, total, where=total > 0, out=np.full_like(total, np.nan))


def variance_components(spectrum: ParticipantSpectrum, values: NDArray[np.floating]) -> VarianceComponents:
    """Estimate the variances at every voxel.

    Parameters
    ----------
    spectrum : ParticipantSpectrum
        Of a design with one column for the mean (for ICC(1)) or one per session (for ICC(3,1)).
    values : ndarray of shape (N, V)

    Raises
    ------
    ValueError
        If no participant has more than one map that the design leaves free, or there are no two participants.
    """
    xi, counts = spectrum.eigenvalues, spectrum.multiplicities
    if xi[0] != 0 or not spectrum.separates:
        raise ValueError("variance between and within participants cannot be told apart")
    squares = spectrum.squares(values)
    within = squares[0] / counts[0]
    # E Σ_{ξ>0} η² = r σ² + σ_b² Σ ξ over the r dimensions with ξ > 0
    between = (squares[1:].sum(axis=0) - counts[1:].sum() * within) / (counts[1:] @ xi[1:])
    return VarianceComponents(between, within)

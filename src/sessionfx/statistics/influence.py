"""What least squares over participants would find without each of them, in closed form.

Without participant i, whose residual is r and leverage h: effect − w r / (1 − h), sum of squares − r² / (1 − h), and
c′(X′X)⁻¹c + w² / (1 − h), w the weight of i in the effect (Sherman & Morrison; Cook & Weisberg 1982).

Shapes: n participants, V voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sessionfx.statistics.estimates import Estimate, t_to_z
from sessionfx.statistics.linear_algebra import Array, column_basis
from sessionfx.statistics.ols import OlsContrasts, prepare_ols

_ALONE = 1e-9  # 1 − h, below which the design needs this participant
_ROUNDING = 1e-12  # of the sum of squares
_LARGEST_T, _TABLE_SIZE = 1000.0, 8001


@dataclass(frozen=True)
class LeaveOneOut:
    """A contrast over participants, ready to be estimated without each of them."""

    design: Array  # (n, P)
    contrast: Array  # (P,): estimable

    @cached_property
    def prepared(self) -> OlsContrasts:
        """The contrast with all participants."""
        return prepare_ols(self.design, self.contrast)

    @cached_property
    def _leverage(self) -> Array:
        return np.asarray(np.square(column_basis(self.design)).sum(axis=1))

    @cached_property
    def _table_of_z(self) -> tuple[Array, Array]:
        """Normal deviates of t, by arsinh t: z from t itself would take ten times as long as all the rest."""
        places = np.linspace(-np.arcsinh(_LARGEST_T), np.arcsinh(_LARGEST_T), _TABLE_SIZE)
        return places, t_to_z(np.sinh(places), max(self.prepared.dof - 1, 1.0))

    def z(self, values: Array) -> Iterator[Array | None]:
        """Give z, to 1e-5, without each participant; see `estimates`."""
        for estimate in self.estimates(values):
            yield None if estimate is None else np.interp(np.arcsinh(estimate.t), *self._table_of_z)

    def estimates(self, values: Array) -> Iterator[Estimate | None]:
        """Estimate voxels of shape (n, V) without each participant; None without whom there is no estimate."""
        (weights,), dof = self.prepared.weights, self.prepared.dof - 1
        residuals = self.prepared.residuals(values)
        squares = np.einsum("nv,nv->v", residuals, residuals)
        effect = weights @ values
        for own, weight, leverage in zip(residuals, weights, self._leverage, strict=True):
            left = 1 - leverage
            if left < _ALONE or dof < 1:
                yield None
                continue
            remaining = squares - own**2 / left
            remaining[remaining <= _ROUNDING * squares] = 0.0
            spread = weights @ weights + weight**2 / left
            yield Estimate(effect - weight * own / left, spread * remaining / dof, dof)

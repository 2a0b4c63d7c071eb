"""What the program finds at a voxel: an estimate with its sampling variance, or an F test, and the z and p that follow.

Vocabulary
----------
dof
    Degrees of freedom of the error: one number for all voxels, or one per voxel where the method finds them from the
    data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sessionfx.statistics.linear_algebra import Array, quadratic_form

# The smallest p that becomes a z, as in nilearn: z stays within ±37.
SMALLEST_P = 1e-300

Dof = float | Array


class Result(ABC):
    """A statistic at V voxels; a frozen dataclass whose arrays have voxels along their last axis."""

    dof: Dof
    n: Array | None
    two_sided: bool  # whether large negative z count as much as large positive ones

    @property
    @abstractmethod
    def z(self) -> Array:
        """The normal deviate with the same upper-tail p as the statistic."""

    @property
    @abstractmethod
    def p(self) -> Array:
        """Upper-tail p (nilearn's convention)."""

    @property
    @abstractmethod
    def is_determined(self) -> NDArray[np.bool_]:
        """Where the data determine the statistic."""

    @abstractmethod
    def maps(self) -> dict[str, Array]:
        """Arrays of shape (V,), or (N, V) of N volumes, by the name of the statistic in file names."""

    @property
    def typical_dof(self) -> float:
        """The degrees of freedom, or their median over voxels."""
        return float(np.median(self.dof))

    def at(self, chosen: NDArray[Any]) -> Self:
        """Restrict to some voxels, chosen by a mask or by indices."""
        values = self._values().items()
        return type(self)(**{name: v[..., chosen] if isinstance(v, np.ndarray) else v for name, v in values})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the results of blocks of voxels together."""
        columns = {name: [part._values()[name] for part in parts] for name in parts[0]._values()}
        return cls(
            **{
                name: np.concatenate(found, axis=-1) if isinstance(found[0], np.ndarray) else found[0]
                for name, found in columns.items()
            }
        )

    def _counts(self) -> dict[str, Array]:
        """Give degrees of freedom and participants where they differ between voxels."""
        return {name: own for name, own in (("dof", self.dof), ("n", self.n)) if isinstance(own, np.ndarray)}

    def _values(self) -> dict[str, Any]:
        return {attribute.name: getattr(self, attribute.name) for attribute in fields(cast(Any, self))}


@dataclass(frozen=True)
class Estimate(Result):
    """Effects of V voxels."""

    # effect, variance, (V,): contrast estimate and its sampling variance
    effect: Array
    variance: Array
    dof: Dof  # one, or (V,): degrees of freedom of effect / √variance
    n: Array | None = field(default=None, kw_only=True)  # (V,): participants, where they differ between voxels

    two_sided = True

    @property
    def t(self) -> Array:
        """Student's t; 0 where the variance is not above zero."""
        usable = self.variance > 0
        return np.divide(
            self.effect, np.sqrt(np.where(usable, self.variance, 1.0)), where=usable, out=np.zeros_like(self.effect)
        )

    @property
    def p(self) -> Array:
        """One-sided p: the chance of a t as large as this one or larger (nilearn's convention)."""
        return np.asarray(special.stdtr(self.dof, -self.t))

    @cached_property
    def z(self) -> Array:
        """The normal deviate with the same p as t."""
        return t_to_z(self.t, self.dof)

    @property
    def is_determined(self) -> NDArray[np.bool_]:
        """Where the effect is finite and the variance finite and above zero."""
        return np.isfinite(self.effect) & np.isfinite(self.variance) & (self.variance > 0)

    def maps(self) -> dict[str, Array]:
        """Effect, variance, t, z, p, and the dof where they differ between voxels."""
        found = {"effect": self.effect, "variance": self.variance, "t": self.t, "z": self.z, "p": self.p}
        return found | self._counts()


@dataclass(frozen=True)
class FTest(Result):
    """An F test at V voxels."""

    f: Array  # (V,): NaN where the data do not determine it
    # dof_numerator, dof, one, or (V,): degrees of freedom of the hypothesis and of the error
    dof_numerator: Dof
    dof: Dof
    n: Array | None = field(default=None, kw_only=True)  # (V,): participants, where they differ between voxels

    two_sided = False

    @property
    def p(self) -> Array:
        """Chance of an F as large as this one or larger."""
        return np.asarray(special.fdtrc(self.dof_numerator, self.dof, np.maximum(self.f, 0.0)))

    @cached_property
    def z(self) -> Array:
        """The normal deviate with the same upper-tail p as F; below zero where F is smaller than its median."""
        # the complement keeps the precision of p close to 1
        upper = np.maximum(self.p, SMALLEST_P)
        lower = np.maximum(special.fdtr(self.dof_numerator, self.dof, np.maximum(self.f, 0.0)), SMALLEST_P)
        return np.asarray(np.where(upper < 0.5, -special.ndtri(upper), special.ndtri(lower)))

    @property
    def is_determined(self) -> NDArray[np.bool_]:
        """Where F is finite."""
        return np.isfinite(self.f)

    def maps(self) -> dict[str, Array]:
        """F, z, p, and the degrees of freedom where they differ between voxels."""
        return {"F": self.f, "z": self.z, "p": self.p} | self._counts()


@dataclass(frozen=True)
class WaldTest(FTest):
    """The F test that R effects are all zero, with what it is made of, so that tests can be combined."""

    effects: Array  # (R, V)
    # (R(R+1)/2, V): of their estimates, for the pairs `numpy.triu_indices(R)`: (1, 1), (1, 2), …, (2, 2), …
    covariance: Array

    @classmethod
    def of(cls, effects: Array, covariance: Array, dof: Dof) -> Self:
        """Make the test from effects and covariance as above.

        Returns
        -------
        WaldTest
            F = b′C⁻¹b / R on R and `dof` degrees of freedom; NaN where C is singular.
        """
        n_rows = len(effects)
        f = quadratic_form(effects, symmetric_matrices(covariance, n_rows)) / n_rows
        return cls(f, float(n_rows), dof, effects, covariance)

    def maps(self) -> dict[str, Array]:
        """Effects and covariance, and what an F test has."""
        return {"effects": self.effects, "covariance": self.covariance} | super().maps()


def symmetric_matrices(pairs: Array, n_rows: int) -> Array:
    """Put the upper triangles of V matrices, of shape (R(R+1)/2, V), into matrices of shape (V, R, R)."""
    first, second = np.triu_indices(n_rows)
    matrices = np.empty((pairs.shape[1], n_rows, n_rows))
    matrices[:, first, second] = matrices[:, second, first] = pairs.T
    return matrices


def t_to_z(t: Array, dof: Dof) -> Array:
    """Find the normal deviates with the same one-sided p as t.

    Parameters
    ----------
    t : ndarray
        Student's t.
    dof : float or ndarray
        Degrees of freedom.

    Returns
    -------
    ndarray
        Computed in the tail t lies in, so that large t keep their precision; within ±37 because smaller p than
        1e-300 are not told apart, as in nilearn.
    """
    tail = np.maximum(special.stdtr(dof, -np.abs(t)), SMALLEST_P)
    return np.asarray(np.copysign(special.ndtri(tail), t))

"""The fit of one run: arrays in, effects, variances and degrees of freedom out.

The only place that knows how the GLM is computed. It gives what nilearn's `run_glm` and `compute_contrast` give:
ordinary least squares, then the same after whitening by an autoregressive model of order 1 whose coefficient ρ is
rounded as nilearn rounds it. The data are never whitened: the normal equations of whitened data are polynomials in ρ,
so that one matrix product with the data serves every voxel, whatever its ρ.

Notation
--------
Q : (T, R)
    Orthonormal basis of the regressors, turned so that the lagged products below are diagonal.
y : (T,)
    Signal of a voxel. Whitened, its first value stays and the others are y_t − ρ y_{t−1}; so are the regressors.

Whitened products, with q_T the last row of Q and y_T the last value of y:

    X*′X* = I − ρ Λ + ρ² (I − q_T q_T′),          Λ = Q_{t}′Q_{t−1} + Q_{t−1}′Q_{t}, diagonal after turning
    X*′y* = Q′y − ρ Z′y + ρ² (Q′y − q_T y_T),     z_t = q_{t−1} + q_{t+1}
    y*′y* = y′y − 2ρ Σ y_t y_{t−1} + ρ² (y′y − y_T²)

The first is diagonal but for one vector, and its inverse is known (Sherman & Morrison 1950, Ann. Math. Stat. 21:124).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sessionfx.statistics.estimates import Estimate, WaldTest
from sessionfx.statistics.linear_algebra import independent_columns, pseudo_inverse

FloatArray = NDArray[np.float64]

# Arrays of a block stay in the processor's cache. The size is fixed: the last bit of a product can depend on it.
VOXELS_PER_BLOCK = 1024
# nilearn cuts ρ to multiples of 1/100, towards zero
AR_BINS = 100
# Where less of a sum of squares is left than this share, what is left has lost digits: it is computed from residuals.
LEAST_SHARE = 1e-5


def fit_run(
    signal: NDArray[np.floating],
    design: FloatArray,
    contrasts: Mapping[str, FloatArray],
    noise_model: str,
    signal_scaling: str = "voxel",
) -> dict[str, Estimate | WaldTest]:
    """Fit a GLM to every voxel of a run and estimate contrasts.

    Parameters
    ----------
    signal : ndarray of shape (T, V)
        Scanner units.
    design : ndarray of shape (T, P)
        Any rank R below T; a rank-deficient one is reduced to independent columns and the contrasts are carried over.
    contrasts : mapping of str to ndarray of shape (P,), or (C, P) for an F test of C rows
        Estimable contrasts by label.
    noise_model : {'ar1', 'ols'}
    signal_scaling : {'voxel', 'grand-mean', 'none'}
        What the signal is made percent of before the fit: each voxel's mean over time, or the mean of all voxels and
        volumes, as nilearn's `signal_scaling` 0 and (0, 1) do; or nothing (False).

    Returns
    -------
    dict of str to Estimate, or to WaldTest of an F test
        By label; effects in units of the scaled signal, dof T − R. The variance is exactly 0 where the residuals are
        rounding error.

    Raises
    ------
    ValueError
        If there are no more volumes than independent regressors.
    """
    if not contrasts:
        return {}
    rows = np.vstack(list(contrasts.values()))
    pairs = _pairs([len(np.atleast_2d(weights)) for weights in contrasts.values()])
    model = _Model.of(design, rows, pairs, is_autoregressive=noise_model == "ar1")
    n_voxels = signal.shape[1]
    effects = np.empty((len(rows), n_voxels))
    covariances = np.empty((pairs.shape[1], n_voxels))
    scale = scaling(signal, signal_scaling)
    for start in range(0, n_voxels, VOXELS_PER_BLOCK):
        block = slice(start, start + VOXELS_PER_BLOCK)
        effects[:, block], covariances[:, block] = model.fit(scale(signal[:, block]))
    found: dict[str, Estimate | WaldTest] = {}
    for label, weights in contrasts.items():
        n_rows = len(np.atleast_2d(weights))
        own, effects = np.split(effects, [n_rows])
        of_pairs, covariances = np.split(covariances, [n_rows * (n_rows + 1) // 2])
        is_f_test = np.ndim(weights) == 2
        dof = float(model.dof)
        found[label] = WaldTest.of(own, of_pairs, dof) if is_f_test else Estimate(own[0], of_pairs[0], dof)
    return found


def percent_of_mean(signal: NDArray[np.floating], mean: NDArray[np.floating] | None = None) -> FloatArray:
    """Express a signal of shape (T, V) as deviation from a mean, by default each voxel's over time, in percent of it.

    The arithmetic, single precision of single-precision data included, is that of nilearn's `mean_scaling`; it takes
    a mean below 1 for 1.
    """
    mean = np.maximum(signal.mean(axis=0) if mean is None else mean, 1)
    return np.asarray(100 * (signal / mean - 1), dtype=np.float64)


def scaling(signal: NDArray[np.floating], name: str) -> Callable[[NDArray[np.floating]], FloatArray]:
    """Give what scales blocks of voxels of a signal of shape (T, V), as `fit_run` is asked to."""
    if name == "none":
        # the constant of the design explains the mean, which would only cost digits
        return lambda block: block - block.mean(axis=0, dtype=np.float64)
    return partial(percent_of_mean, mean=signal.mean(axis=(0, 1)) if name == "grand-mean" else None)


def _pairs(n_rows: Sequence[int]) -> NDArray[np.intp]:
    """List the pairs of rows of each contrast, over the rows of all contrasts, of shape (2, D)."""
    starts = np.cumsum([0, *n_rows])
    return np.hstack([start + np.array(np.triu_indices(n)) for start, n in zip(starts, n_rows, strict=False)])


@dataclass(frozen=True)
class _Model:
    """What all voxels of a run share; see the module's notation."""

    basis: FloatArray  # (T, R): Q
    products: FloatArray  # (2R, T): Q′ above Z′; without Z′ for ordinary least squares
    lagged: FloatArray  # (R,): the diagonal of Λ
    contrasts: FloatArray  # (C, R): over the columns of Q
    # (2, D): the contrasts whose covariances are computed; a contrast with itself for its variance
    pairs: NDArray[np.intp]
    is_autoregressive: bool

    @classmethod
    def of(cls, design: FloatArray, weights: FloatArray, pairs: NDArray[np.intp], *, is_autoregressive: bool) -> _Model:
        """Prepare the fit of a design.

        Contrasts are multiplied one at a time: the last bit of a product of all must not depend on what else is asked.
        """
        kept = independent_columns(design)
        reduced = design[:, kept]
        if len(kept) >= design.shape[0]:
            raise ValueError(f"{design.shape[0]} volumes cannot determine {len(kept)} regressors")
        # Estimable contrasts are combinations of the rows of X: c = c X⁺X, hence c b = (c X⁺ X_kept) b_kept.
        carry = pseudo_inverse(design) @ reduced if len(kept) < design.shape[1] else None
        # of columns of equal length, so that units (mm against squared mm) cost no digits
        lengths = np.linalg.norm(reduced, axis=0)
        basis, triangle = np.linalg.qr(reduced / lengths)
        lag = basis[1:].T @ basis[:-1]
        lagged, turn = np.linalg.eigh(lag + lag.T)
        basis = np.ascontiguousarray(basis @ turn)
        neighbours = np.zeros_like(basis)
        neighbours[:-1] += basis[1:]
        neighbours[1:] += basis[:-1]
        products = np.vstack([basis.T, neighbours.T]) if is_autoregressive else np.ascontiguousarray(basis.T)
        contrasts = np.empty((len(weights), len(kept)))
        for index, row in enumerate(weights):
            of_kept = row if carry is None else row @ carry
            contrasts[index] = np.linalg.solve(triangle.T, of_kept / lengths) @ turn
        return cls(basis, products, lagged, contrasts, pairs, is_autoregressive)

    @property
    def dof(self) -> int:
        """Volumes minus independent regressors."""
        return int(self.basis.shape[0] - self.basis.shape[1])

    def fit(self, signal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Estimate the contrasts from a signal of shape (T, v).

        Returns
        -------
        effect : ndarray of shape (C, v)
        covariance : ndarray of shape (D, v)
        """
        effect, covariance, has_lost_digits = self._fit(signal)
        if has_lost_digits.any():
            lost = signal[:, has_lost_digits]
            explained = self.basis.T @ lost
            residuals = lost - self.basis @ explained
            rest = self.basis.T @ residuals  # twice is enough (Parlett 1998, §6-9)
            residuals -= self.basis @ rest
            # What rounding leaves of a voxel that the regressors explain fully (spikes, say) is no noise.
            squares = np.einsum("tv,tv->v", lost, lost)
            is_rounding = (
                np.einsum("tv,tv->v", residuals, residuals) <= (np.finfo(float).eps * len(lost)) ** 2 * squares
            )
            residuals[:, is_rounding] = 0.0
            # What is explained by the regressors is explained whatever the weights of the volumes.
            of_residuals, covariance[:, has_lost_digits], _ = self._fit(residuals)
            effect[:, has_lost_digits] = of_residuals + self._of_contrasts(explained + rest)
        return effect, covariance

    def _of_contrasts(self, coefficients: FloatArray) -> FloatArray:
        """Give contrasts of coefficients of shape (R, v); see `_Model.of`."""
        return np.array([row @ coefficients for row in self.contrasts])

    def _fit(self, signal: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        rank = self.basis.shape[1]
        found = self.products @ signal
        projected = found[:rank]
        squares = np.einsum("tv,tv->v", signal, signal)
        left = squares - np.einsum("rv,rv->v", projected, projected)
        has_lost_digits = left < LEAST_SHARE * squares
        if not self.is_autoregressive:
            of_pairs = np.einsum("dr,dr->d", *self.contrasts[self.pairs])
            return self._of_contrasts(projected), left / self.dof * of_pairs[:, None], has_lost_digits
        with_neighbours = found[rank:]
        lagged_squares = np.einsum("tv,tv->v", signal[1:], signal[:-1])
        rho = self._autocorrelation(projected, with_neighbours, left, lagged_squares)

        last_row, last_value = self.basis[-1][:, None], signal[-1]
        whitened = projected - rho * with_neighbours + rho**2 * (projected - last_row * last_value)
        diagonal = 1 - rho * self.lagged[:, None] + rho**2
        # (D − ρ² q q′)⁻¹ = D⁻¹ + ρ² D⁻¹ q q′ D⁻¹ / (1 − ρ² q′ D⁻¹ q)
        scaled_row = last_row / diagonal
        correction = rho**2 / (1 - rho**2 * np.einsum("r,rv->v", self.basis[-1], scaled_row))
        estimates = whitened / diagonal
        estimates += scaled_row * (correction * (self.basis[-1] @ estimates))
        whitened_squares = squares - 2 * rho * lagged_squares + rho**2 * (squares - last_value**2)
        whitened_left = whitened_squares - np.einsum("rv,rv->v", whitened, estimates)
        has_lost_digits |= whitened_left < LEAST_SHARE * whitened_squares
        # c_a (X*′X*)⁻¹ c_b′
        inverse, along_row = 1 / diagonal, self._of_contrasts(scaled_row)
        of_pairs = np.array([
            (self.contrasts[a] * self.contrasts[b]) @ inverse + correction * (along_row[a] * along_row[b])
            for a, b in self.pairs.T
        ])  # fmt: skip
        return self._of_contrasts(estimates), whitened_left / self.dof * of_pairs, has_lost_digits

    def _autocorrelation(
        self, projected: FloatArray, with_neighbours: FloatArray, left: FloatArray, lagged_squares: FloatArray
    ) -> FloatArray:
        """Estimate ρ of the residuals of ordinary least squares by the Yule–Walker equation, as nilearn does.

        Each autocovariance is divided by the number of its terms; ρ is cut to two decimals.
        """
        n_volumes = self.basis.shape[0]
        # Σ r_t r_{t−1} of r = y − Qb; Λ is counted from both sides
        lagged_left = (
            lagged_squares
            - np.einsum("rv,rv->v", projected, with_neighbours)
            + 0.5 * np.einsum("r,rv,rv->v", self.lagged, projected, projected)
        )
        rho = np.divide(lagged_left * n_volumes, left * (n_volumes - 1), where=left > 0, out=np.zeros_like(left))
        return np.asarray(np.trunc(rho * AR_BINS) / AR_BINS)

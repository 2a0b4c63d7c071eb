"""Ordinary least squares over participants whose groups vary unequally: Welch's test, for any design and contrast.

For two groups and nothing else it is Welch's (1947) t test; for a contrast of several groups, Satterthwaite's (1946)
degrees of freedom of the sum of their variances; for several values per participant, the approximation of
Krishnamoorthy & Yu (2004, doi:10.1016/j.spl.2003.10.012) to the multivariate Behrens–Fisher problem; for several
contrasts, Johansen's (1980, doi:10.1093/biomet/67.1.85), which is Welch's (1951) F for the means of groups. The
coefficients are those of ordinary least squares; only the error is by groups.

Shapes: n participants, P regressors, K groups, Q values each, R contrasts, V voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array, column_basis, pseudo_inverse, quadratic_form, rounding_of

# Of a participant's variance, what is zero but for rounding
_ZERO = 1e-10


@dataclass(frozen=True)
class GroupedContrast:
    """A contrast over participants with a variance for each group, ready for any number of voxels."""

    weights: Array  # (n,): the estimate is weights @ y
    basis: Array  # (n, R): orthonormal, of what the design spans
    labels: tuple[str, ...]  # K of them
    members: sparse.csr_array  # (K, n): ones where a participant is in a group
    free: Array  # (K,): degrees of freedom of each group's variance: its participants' part of the trace of I − XX⁺
    carried: Array  # (K,): sum of squared weights of each group's participants
    unseen: tuple[str, ...]  # groups that carry the contrast, but leave nothing to see how they vary
    share: Array  # (K,)
    # (K, K): the variance has (share′s)²/(s′ together s) degrees of freedom where s are the groups' variances
    together: Array

    @property
    def design_dof(self) -> float:
        """Degrees of freedom of the variance where the groups vary equally."""
        return float(self.share.sum() ** 2 / self.together.sum())

    def residuals(self, values: NDArray[np.floating]) -> Array:
        """Take out what the design explains of voxels of shape (n, V); exactly 0 where only rounding is left."""
        left = values - self.basis @ (self.basis.T @ values)
        squares = np.einsum("nv,nv->v", left, left)
        left[:, squares <= rounding_of(np.einsum("nv,nv->v", values, values), len(values))] = 0.0
        return np.asarray(left)

    def estimate(self, values: NDArray[np.floating]) -> Estimate:
        """Estimate the contrast at voxels of shape (n, V), each with its own degrees of freedom."""
        squares = self.members @ self.residuals(values) ** 2
        variances = squares / np.where(self.free > 0, self.free, 1.0)[:, None]
        variance = self.carried @ variances
        relative = variances / np.where(variance > 0, variance, 1.0)
        spread = np.einsum("kv,kv->v", relative, self.together @ relative)
        dof = (self.share @ relative) ** 2 / np.where(spread > 0, spread, 1.0)
        return Estimate(self.weights @ values, variance, np.where(spread > 0, dof, self.free.sum()))

    def test(self, values: NDArray[np.floating]) -> FTest:
        """Test that the contrast is zero for all of Q values, of shape (Q, n, V).

        Returns
        -------
        FTest
            F = (ν − Q + 1)/(ν Q) · T² on Q and ν − Q + 1 degrees of freedom, ν by Krishnamoorthy & Yu; NaN where the
            covariance cannot be inverted.
        """
        q = len(values)
        residuals = np.stack([self.residuals(part) for part in values])
        effects = np.einsum("n,qnv->qv", self.weights, values)
        used = np.nonzero(self.carried > 0)[0]
        parts = np.empty((len(used), values.shape[2], q, q))
        for part, group in zip(parts, used, strict=True):
            own = residuals[:, self.members[[group]].indices]
            part[:] = np.einsum("qnv,rnv->vqr", own, own) * (self.carried[group] / self.free[group])
        covariance = parts.sum(axis=0)
        statistic = quadratic_form(effects, covariance)
        usable = np.isfinite(statistic)
        shares = np.linalg.solve(covariance[usable], parts[:, usable])
        trace = np.einsum("gvqq->gv", shares)
        spread = (np.einsum("gvqr,gvrq->gv", shares, shares) + trace**2) / self.free[used][:, None]
        dof = np.full(values.shape[2], np.nan)
        dof[usable] = (q + q**2) / spread.sum(axis=0)
        left = np.maximum(dof - q + 1, 1.0)
        return FTest(np.where(usable, left / (dof * q) * statistic, np.nan), float(q), np.where(usable, left, 1.0))


@dataclass(frozen=True)
class GroupedTest:
    """R contrasts over participants that are tested together, with a variance for each group."""

    rows: tuple[GroupedContrast, ...]  # R of them

    @property
    def unseen(self) -> tuple[str, ...]:
        """Groups that carry some contrast, but leave nothing to see how they vary."""
        return tuple(dict.fromkeys(label for row in self.rows for label in row.unseen))

    def estimate(self, values: NDArray[np.floating]) -> FTest:
        """Test that all contrasts are zero at voxels of shape (n, V).

        Returns
        -------
        FTest
            With T = b′C⁻¹b, B_g a group's share of C times C⁻¹, and A = Σ (tr(B_g²) + tr(B_g)²) / 2ν_g:
            T / (R + 2A − 6A/(R + 2)) on R and R(R + 2)/(3A) degrees of freedom. NaN where C is singular.
        """
        first, n_rows = self.rows[0], len(self.rows)
        weights = np.array([row.weights for row in self.rows])
        used = np.nonzero(np.any([row.carried > 0 for row in self.rows], axis=0))[0]
        squares = (first.members @ first.residuals(values) ** 2)[used]
        variances = squares / first.free[used, None]
        own = [weights[:, first.members[[group]].indices] for group in used]
        parts = np.array([part @ part.T for part in own])[:, None] * variances[:, :, None, None]
        covariance = parts.sum(axis=0)
        statistic = quadratic_form(weights @ values, covariance)
        usable = np.isfinite(statistic)
        shares = np.linalg.solve(covariance[usable], parts[:, usable])
        spread = np.einsum("gvrs,gvsr->gv", shares, shares) + np.einsum("gvrr->gv", shares) ** 2
        a = (spread / first.free[used, None]).sum(axis=0) / 2
        f, dof = np.full(len(usable), np.nan), np.ones(len(usable))
        f[usable] = statistic[usable] / (n_rows + 2 * a - 6 * a / (n_rows + 2))
        dof[usable] = n_rows * (n_rows + 2) / (3 * a)
        return FTest(f, float(n_rows), dof)


def grouped_test(design: Array, contrasts: Array, groups: Sequence[str]) -> GroupedContrast | GroupedTest:
    """Prepare a contrast of shape (P,), or a test of several of shape (R, P); see `grouped_contrast`."""
    if contrasts.ndim == 1:
        return grouped_contrast(design, contrasts, groups)
    return GroupedTest(tuple(grouped_contrast(design, contrast, groups) for contrast in contrasts))


def grouped_contrast(design: Array, contrast: Array, groups: Sequence[str]) -> GroupedContrast:
    """Prepare a contrast.

    Parameters
    ----------
    design : ndarray of shape (n, P)
    contrast : ndarray of shape (P,)
        Estimable.
    groups : sequence of n str
        Whose members vary equally.

    Returns
    -------
    GroupedContrast
        With unbiased variances where the design has nothing but the groups, or they vary equally.
    """
    labels = list(dict.fromkeys(groups))
    weights = contrast @ pseudo_inverse(design)
    weights = np.where(np.abs(weights) > _ZERO * np.abs(weights).max(initial=0.0), weights, 0.0)
    basis = column_basis(design)
    members = np.array([[float(own == label) for own in groups] for label in labels])
    free, carried = members @ (1 - np.square(basis).sum(axis=1)), members @ weights**2
    free = np.where(free > _ZERO * len(design), free, 0.0)
    unseen = tuple(label for label, left, weight in zip(labels, free, carried, strict=True) if weight and not left)
    factor = np.where(free > 0, carried / np.where(free > 0, free, 1.0), 0.0)
    # v = y′(form)y, form = RFR with R = I − QQ′ and F the factor of each participant's group: for participants i of g
    # and j of h it is Q_i A_gh Q_j′, A_gh = Q′FQ − (F_g + F_h) I, and F_g more where i is j
    of_groups = np.einsum("gn,np,nq->gpq", members, basis, basis)
    middle = np.einsum("g,gpq->pq", factor, of_groups)
    among = middle - np.add.outer(factor, factor)[..., None, None] * np.eye(len(middle))
    carrying = np.einsum("ggpq,gpq->g", among, of_groups)
    together = np.einsum("ghpq,hqr,ghrs,gsp->gh", among, of_groups, among, of_groups, optimize=True)
    counts = members.sum(axis=1)
    together[np.diag_indices(len(labels))] += counts * factor**2 + 2 * factor * carrying
    return GroupedContrast(
        weights=weights,
        basis=basis,
        labels=tuple(labels),
        members=sparse.csr_array(members),
        free=free,
        carried=carried,
        unseen=unseen,
        share=counts * factor + carrying,
        together=together,
    )

"""Null voxels drawn from a study's own maps: each participant's spread, skew and missing sessions as they are.

A simulated voxel takes the residuals of participant i, all sessions together, from a real voxel that is drawn at random
for each participant anew. So participants are independent, and what is particular to each of them stays: how much they
vary, how their sessions co-vary, which sessions they have, their covariates and times.

Four things need care, because residuals of few participants are not errors:

- The model takes part of the errors away, unequally. Residuals are rescaled so that their covariance, over all voxels,
  is the unbiased estimate of each participant's (the block-diagonal C with E[rr'] = MCM, in its diagonal blocks).
- Voxels vary unequally. Each is divided by its standard deviation, as far as the voxels' variances differ by more than
  chance (a credibility estimate, Bühlmann 1967, doi:10.1017/S0515036100008989), and the chi distribution that this
  takes out of the residuals is put back.
- Skewness has either sign, and not all voxels have it. The residuals of a participant are sorted by the skewness of
  the *others* at that voxel, and given its sign; a simulated voxel takes all participants from one class of skewness.
  Where there is none, the others say nothing of the participant, and none is made up. What this misses is found by
  doing the same once more with simulated voxels (`StudyNoise.again`).
- What is not asked about may differ from zero: sessions, groups, cohorts. Fitted values are drawn too, shrunk to what
  exceeds chance, and what the question asks about is taken out of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.ask.session_contrasts import trend_direction
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.group.strategies.designs import session_design
from sessionfx.statistics.linear_algebra import column_basis, pseudo_inverse, repeated_blocks
from sessionfx.statistics.participant_blocks import ParticipantBlocks, symmetric_root

# Rounds of estimating covariances and scales in turn; steps of the covariances' iteration, which ends when the last one
# changed less than this share of the largest variance
_ROUNDS, _STEPS, _CONVERGED = 3, 60, 1e-4
# Classes of skewness, at most; each of so many voxels, which show how much every participant varies
_CLASSES, _VOXELS_OF_CLASS = 8, 1000
# Fitted effects count where their variance over voxels exceeds chance by this share of it; in smooth maps, with some
# hundred independent places, chance alone makes up less
_NOTABLE_EFFECT = 0.25
# Of squares, and of what the model leaves; what is smaller is rounding
_RANK = 1e-9
_TOGETHER = 2**21  # numbers that are computed at a time, of some maps with all


class StudyNoise:
    """Draws null voxels from the maps of a study.

    Parameters
    ----------
    layout : MapLayout
        Of N maps.
    effects : ndarray of shape (N, V)
        Maps at a sample of voxels; for an F test over conditions (R N, V), row by row. Those of a participant are drawn
        together.

    Raises
    ------
    ValueError
        If no voxel varies about the model of session by group means.
    """

    def __init__(self, layout: MapLayout, effects: NDArray[np.floating]) -> None:
        self.layout = layout
        labels = layout.unique_participants
        self._n_rows = len(effects) // len(layout.participants)
        number_of = {label: number for number, label in enumerate(labels)}
        self._owner = np.tile([number_of[label] for label in layout.participants], self._n_rows)
        own = ParticipantBlocks.identity(self._owner)
        # all that the model fits is this basis times some coordinates
        self._basis = repeated_blocks(column_basis(_general_design(layout)), self._n_rows)
        values = np.asarray(effects, dtype=np.float64)
        fitted = self._basis.T @ values
        residuals = self._basis @ fitted
        np.subtract(values, residuals, out=residuals)
        squares = np.einsum("nv,nv->v", residuals, residuals)
        varies = squares > _RANK * np.einsum("nv,nv->v", values, values)
        if not varies.any():
            raise ValueError("no voxel varies about the means of sessions and groups")
        del values
        if not varies.all():
            fitted, residuals = fitted[:, varies], residuals[:, varies]
        scale, self._credibility, self._dof = _scales(residuals, own)
        fitted /= scale
        residuals /= scale

        observed = own.products(residuals)
        self.covariance = _participants_covariance(observed, self._basis, layout)
        rescale = self.covariance.root().values @ observed.root(inverse=True).values
        self._residuals = own.with_values(rescale).times(residuals, out=residuals)
        missing = own.with_values(
            self.covariance.values - rescale @ observed.values @ rescale.transpose(0, 2, 1)
        )  # fmt: skip
        # what the model takes away altogether, as of the only map of a session, is drawn from a normal distribution
        is_whole = missing.trace < 1e-6 * self.covariance.trace
        self._missing = None if is_whole else missing.root()
        self._fitted = _beyond_chance(fitted, self.covariance.quadratic(self._basis.T))
        self._sorted: dict[str, tuple[_Sorted, float]] = {}
        self._nuisance: dict[str, NDArray[np.float64]] = {}

        n_classes = int(np.clip(self._residuals.shape[1] // _VOXELS_OF_CLASS, 1, _CLASSES))
        self._classes = np.linspace(0, self._residuals.shape[1], n_classes + 1).astype(int)

    def covariance_of_maps(self) -> ParticipantBlocks:
        """Covariance of all maps, of shape (N, N), in units of the voxels' variance."""
        return self.covariance

    def draw(self, n_voxels: int, rng: np.random.Generator) -> StudyDraw:
        """Draw what the null maps of all questions are made from."""
        n = int(self._owner.max()) + 1
        own_class = rng.integers(len(self._classes) - 1, size=n_voxels)
        ranks = rng.integers(self._classes[own_class], self._classes[own_class + 1], size=(n, n_voxels))
        size = rng.chisquare(self._dof, (n, n_voxels))
        size *= self._credibility
        size /= self._dof
        size += 1 - self._credibility
        normal = None
        if self._missing is not None:
            normal = rng.standard_normal((len(self._owner), n_voxels))
            self._missing.times(normal, out=normal)
        fitted = None if self._fitted is None else self._fitted[:, rng.integers(self._fitted.shape[1], size=n_voxels)]
        return StudyDraw(self, own_class, ranks, np.sqrt(size, out=size), normal, fitted)

    def again(self, question: Question, rng: np.random.Generator) -> StudyNoise:
        """Make the same of one simulated study, in which nothing is that the question asks about."""
        return StudyNoise(self.layout, self.draw(self._residuals.shape[1], rng).null_maps(question))

    def in_direction(self, question: Question) -> tuple[_Sorted, float]:
        """Sort residuals by skewness, once for all questions about one session contrast.

        Returns
        -------
        residuals : _Sorted
            Of each participant, with the sign of the skewness of the others in the direction that the question asks
            about, in the order of its size.
        skewness : float
            Mean of the residuals in that direction; 0 but for ±0.07 where there is none, in smooth maps.
        """
        found = self._sorted.get(question.sessions.label)
        if found is None:
            direction = np.tile(direction_of(self.layout, question), self._n_rows)
            n, n_voxels = int(self._owner.max()) + 1, self._residuals.shape[1]
            order = np.empty((n, n_voxels), dtype=np.uint16 if n_voxels < 2**16 else np.intp)
            is_turned = np.empty((n, n_voxels), dtype=bool)
            for some, skewness in _skewness(self._values(self._residuals, direction)):
                order[some] = np.argsort(np.abs(skewness), axis=1)
                is_turned[some] = skewness < 0
            means = np.empty((len(self._owner), len(self._classes) - 1))
            values = np.zeros((n, n_voxels))
            for row, owner in enumerate(self._owner):
                ordered = np.where(is_turned[owner], -1.0, 1.0) * self._residuals[row]
                ordered = ordered[order[owner]]
                for number, (start, stop) in enumerate(pairwise(self._classes)):
                    means[row, number] = ordered[start:stop].mean()
                    ordered[start:stop] -= means[row, number]
                values[owner] += direction[row] * ordered
            skewness_of_all = float((_standardised(values) ** 3).mean())
            found = self._sorted[question.sessions.label] = (_Sorted(order, is_turned, means), skewness_of_all)
        return found

    def nuisance(self, question: Question) -> NDArray[np.float64]:
        """Find the matrix of shape (N, F) that gives fitted values without what a question asks about."""
        if question.label not in self._nuisance:
            n_maps = len(self.layout.participants)
            basis = self._basis[:n_maps, : self._basis.shape[1] // self._n_rows]
            self._nuisance[question.label] = repeated_blocks(_without(self.layout, question, basis), self._n_rows)
        return self._nuisance[question.label]

    def _values(self, residuals: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combine the residuals of each participant, to values of variance 1 of shape (n, V)."""
        values = np.zeros((int(self._owner.max()) + 1, residuals.shape[1]))
        for row, owner in enumerate(self._owner):
            values[owner] += direction[row] * residuals[row]
        return _standardised(values)


@dataclass(frozen=True)
class _Sorted:
    """How residuals of n participants are sorted, which are not copied for it."""

    order: NDArray[np.integer]  # (n, V): the voxel at each place
    is_turned: NDArray[np.bool_]  # (n, V): which voxels have their sign turned
    means: NDArray[np.float64]  # (N, C): of each map in each class of places, which are taken away


@dataclass(frozen=True)
class StudyDraw:
    """One drawn block of voxels, as the null maps of any question."""

    source: StudyNoise
    own_class: NDArray[np.int_]  # (V,): class of skewness of each voxel
    ranks: NDArray[np.int_]  # (n, V): place among the sorted voxels that each participant's residuals are from
    size: NDArray[np.float64]  # (n, V): what they are multiplied with
    normal: NDArray[np.float64] | None  # (N, V): what the residuals lack
    fitted: NDArray[np.float64] | None  # (F, V): what is not asked about, in coordinates of the fitted values

    def null_maps(self, question: Question, voxels: slice = slice(None)) -> NDArray[np.float64]:
        """Give maps of shape (N, V), of some voxels, in which nothing is that the question asks about."""
        source = self.source
        found, _ = source.in_direction(question)
        maps = np.empty((len(source._owner), len(self.own_class[voxels])))
        for row, owner in enumerate(source._owner):
            places = found.order[owner, self.ranks[owner, voxels]]
            maps[row] = np.where(found.is_turned[owner, places], -1.0, 1.0) * source._residuals[row, places]
            maps[row] -= found.means[row, self.own_class[voxels]]
            maps[row] *= self.size[owner, voxels]
        if self.normal is not None:
            maps += self.normal[:, voxels]
        if self.fitted is not None:
            maps += source.nuisance(question) @ self.fitted[:, voxels]
        return maps


def direction_of(layout: MapLayout, question: Question) -> NDArray[np.float64]:
    """Find the direction over sessions that a question is about, at each of N maps; a straight line for `any`."""
    asked = question.sessions
    if asked.time is not None:
        return np.asarray(trend_direction(layout.session_covariate(asked.time), asked.degree))
    present = layout.present(asked)
    line = dict(zip(present, np.linspace(-0.5, 0.5, len(present)), strict=True))
    weights = line if asked.kind == "any" else asked.weights_for(present) if asked.weights else None
    return np.array([(weights or {}).get(session, 0.0) for session in layout.sessions])


def _general_design(layout: MapLayout) -> NDArray[np.float64]:
    """Means of sessions and what goes with covariates in each; session covariates within and between participants."""
    between = layout.between(range(len(layout.participants))).to_numpy()
    columns = [*layout.session_columns(sorted(set(layout.sessions))).T]
    alone = []
    for name in layout.session_covariate_names:
        parts = layout.parts(name, layout.session_covariate(name))
        columns += [part for label, part in parts.items() if label.endswith(":within")]
        alone += [part for label, part in parts.items() if label.endswith(":between")]
    return np.column_stack([column * value for column in columns for value in between.T] + alone)


def _scales(residuals: NDArray[np.float64], own: ParticipantBlocks) -> tuple[NDArray[np.float64], float, float]:
    """Estimate the standard deviation of each voxel, shrunk to the common one as far as chance explains differences.

    Returns
    -------
    scale : ndarray of shape (V,)
    credibility : float
        Between 0 (all voxels vary alike) and 1 (each as its own estimate says).
    dof : float
        Of the estimates.
    """
    size = np.einsum("nv,nv->v", residuals, residuals) / len(residuals)
    whitened = np.empty_like(residuals)
    for _ in range(_ROUNDS):
        # participants count by how little they vary, so that no one decides
        own.products(residuals, np.sqrt(size)).root(inverse=True).times(residuals, out=whitened)
        size = np.einsum("nv,nv->v", whitened, whitened) / len(whitened)
    owners = np.empty(len(residuals), dtype=int)
    owners[own.rows[own.is_row]] = np.nonzero(own.is_row)[0]
    half = np.cumsum(np.append(True, np.diff(owners) != 0)) % 2 == 0
    mean = float(size.mean())
    ratio = 1.0
    if half.any():
        first, second = (np.einsum("nv,nv,n->v", whitened, whitened, part / part.sum()) for part in (half, ~half))
        ratio = float((first * second).mean() / (first.mean() * second.mean()))
    whitened /= np.sqrt(size)
    trace, squares, squares_between = _squared_correlations(whitened, half)
    if half.any():
        ratio -= 2 * squares_between / (int(half.sum()) * int((~half).sum()))
    total = float(size.var())
    credibility = float(np.clip((ratio - 1) * mean**2 / total, 0.0, 1.0)) if total > 0 else 0.0
    return np.sqrt(credibility * size + (1 - credibility) * mean), credibility, trace**2 / squares


def _squared_correlations(maps: NDArray[np.float64], half: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Sum up the products of all maps with each other: their trace, their squares, and those between two halves."""
    trace = squares = between = 0.0
    for some in _some_of(maps):
        products = maps[some] @ maps.T / maps.shape[1]
        trace += float(np.trace(products, offset=some.start))
        products **= 2
        squares += float(products.sum())
        between += float(products[half[some]][:, ~half].sum())
    return trace, squares, between


def _some_of(values: NDArray[np.float64]) -> list[slice]:
    """Cut rows, so that what is computed of some of them and all others stays small."""
    together = max(1, _TOGETHER // max(values.shape))
    return [slice(start, start + together) for start in range(0, len(values), together)]


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring rows to a variance of 1, in place."""
    spread = np.sqrt(np.einsum("nv,nv->n", values, values) / values.shape[1])[:, None]
    return np.asarray(np.divide(values, spread, where=spread > 0, out=values))


def _skewness(z: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Find the third moment of the others, given what each participant says of them, for some participants at a time.

    With z the participants' values and g the regression of the others' on one's own, z_j - g_ji z_i has nothing
    of participant i.
    """
    squared = z**2
    sum_of_cubes, sum_of_squares = np.einsum("nv,nv->v", z, squared), squared.sum(axis=0)
    for some in _some_of(z):
        own = z[some]
        g = own @ z.T / z.shape[1]
        cubes = sum_of_cubes - 3 * own * (g @ squared) + 3 * own**2 * (g**2 @ z) - own**3 * (g**3).sum(axis=1)[:, None]
        squares = sum_of_squares - 2 * own * (g @ z) + own**2 * (g**2).sum(axis=1)[:, None]
        yield some, np.divide(cubes, squares**1.5, where=squares > 0, out=np.zeros_like(cubes))


def _participants_covariance(
    observed: ParticipantBlocks, basis: NDArray[np.float64], layout: MapLayout
) -> ParticipantBlocks:
    """Solve E[rr'] = MCM for the blocks of C, from the covariance of sessions that all participants share.

    M = I − QQ' takes away what the basis Q, of shape (N, F), fits. What residuals do not show, such as the spread of
    each of two participants of a group, stays as shared.
    """
    order = sorted(set(layout.sessions))
    sessions = np.array([order.index(session) for session in layout.sessions])
    # of several rows, each row and session is one
    rows = np.arange(observed.n_maps // len(sessions))
    sessions = np.add.outer(rows * len(order), sessions).ravel()[observed.rows]
    pairs = sessions[:, :, None] * (sessions.max() + 1) + sessions[:, None, :]
    q, is_entry = observed.cut(basis), observed.is_entry
    left = np.sqrt(np.maximum(1 - np.einsum("nmf,nmf->nm", q, q), 0.0)) * observed.is_row
    share = left[:, :, None] * left[:, None, :]
    found, expected = (np.bincount(pairs[is_entry], matrix[is_entry]) for matrix in (observed.values, share))
    shared = np.divide(found, expected, where=expected > _RANK, out=np.zeros_like(found))
    covariance = observed.with_values(shared[pairs])
    turned = q.transpose(0, 2, 1)
    for _ in range(_STEPS):  # few with many participants, whose residuals are nearly their errors
        carried = (covariance.values @ q) @ turned
        both = (q @ covariance.quadratic(basis.T)) @ turned
        step = observed.values - (covariance.values - carried - carried.transpose(0, 2, 1) + both)
        covariance = covariance.with_values(covariance.values + step)
        if np.abs(step).max() < _CONVERGED * np.abs(covariance.values).max():
            break
    root = covariance.root().values
    return covariance.with_values(root @ root)


def _beyond_chance(fitted: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Shrink fitted values to effects whose covariance over voxels is the observed one less that of chance."""
    observed = fitted @ fitted.T / fitted.shape[1]
    root, inverse = symmetric_root(chance), symmetric_root(chance, inverse=True)
    eigenvalues, vectors = linalg.eigh(inverse @ observed @ inverse)
    beyond = eigenvalues - 1
    notable = beyond > _NOTABLE_EFFECT
    if not notable.any():
        return None
    shrink = np.sqrt(np.where(notable, beyond, 0.0) / np.where(notable, eigenvalues, 1.0))
    return np.asarray(root @ ((vectors * shrink) @ vectors.T) @ inverse @ fitted)


def _without(layout: MapLayout, question: Question, fitted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take what a question asks about out of maps without noise, of shape (N, F)."""
    try:
        design = session_design(layout, question)
    except NotEstimableError:
        return np.zeros_like(fitted)
    if not design.is_determined:
        return np.zeros_like(fitted)
    matrix, contrast = design.matrix.to_numpy(), np.atleast_2d(design.contrast)
    return np.asarray(fitted - matrix @ (pseudo_inverse(contrast) @ (contrast @ (pseudo_inverse(matrix) @ fitted))))

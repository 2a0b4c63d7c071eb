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

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.ask.session_contrasts import trend_direction
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.group.strategies.designs import session_design
from sessionfx.statistics.linear_algebra import pseudo_inverse, repeated_blocks

# Rounds of estimating covariances and scales in turn; steps of the covariances' iteration, which ends when the last one
# changed less than this share of the largest variance
_ROUNDS, _STEPS, _CONVERGED = 3, 60, 1e-4
# Classes of skewness, at most; each of so many voxels, which show how much every participant varies
_CLASSES, _VOXELS_OF_CLASS = 8, 1000
# Fitted effects count where their variance over voxels exceeds chance by this share of it; in smooth maps, with some
# hundred independent places, chance alone makes up less
_NOTABLE_EFFECT = 0.25
# Of the largest eigenvalue; what is smaller is rounding
_RANK = 1e-9


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
        self._owner = np.tile([labels.index(label) for label in layout.participants], self._n_rows)
        own = self._owner[:, None] == self._owner[None, :]
        design = repeated_blocks(_general_design(layout), self._n_rows)
        hat = design @ pseudo_inverse(design)
        residual_maker = np.eye(len(hat)) - hat
        values = np.asarray(effects, dtype=np.float64)
        residuals = residual_maker @ values
        squares = (residuals**2).sum(axis=0)
        varies = squares > _RANK * (values**2).sum(axis=0)
        if not varies.any():
            raise ValueError("no voxel varies about the means of sessions and groups")
        values, residuals = values[:, varies], residuals[:, varies]
        scale, self._credibility, self._dof = _scales(residuals, own)
        values, residuals = values / scale, residuals / scale

        observed = np.where(own, _products(residuals), 0.0)
        self.covariance = _participants_covariance(observed, residual_maker, own, layout)
        rescale = _root(self.covariance) @ _root(observed, inverse=True)
        self._residuals = rescale @ residuals
        missing = self.covariance - rescale @ observed @ rescale.T
        # what the model takes away altogether, as of the only map of a session, is drawn from a normal distribution
        is_whole = np.trace(missing) < 1e-6 * np.trace(self.covariance)
        self._missing = None if is_whole else _root(missing)
        self._fitted = _beyond_chance(hat @ values, hat @ self.covariance @ hat)
        self._sorted: dict[str, tuple[NDArray[np.float64], float]] = {}
        self._nuisance: dict[str, NDArray[np.float64]] = {}

        n_classes = int(np.clip(self._residuals.shape[1] // _VOXELS_OF_CLASS, 1, _CLASSES))
        self._classes = np.linspace(0, self._residuals.shape[1], n_classes + 1).astype(int)

    def covariance_of_maps(self) -> NDArray[np.float64]:
        """Covariance of all maps, of shape (N, N), in units of the voxels' variance."""
        return self.covariance

    def draw(self, n_voxels: int, rng: np.random.Generator) -> StudyDraw:
        """Draw what the null maps of all questions are made from."""
        n = int(self._owner.max()) + 1
        own_class = rng.integers(len(self._classes) - 1, size=n_voxels)
        ranks = rng.integers(self._classes[own_class], self._classes[own_class + 1], size=(n, n_voxels))
        size = (1 - self._credibility) + self._credibility * rng.chisquare(self._dof, (n, n_voxels)) / self._dof
        size = np.sqrt(size)[self._owner]
        normal = None if self._missing is None else self._missing @ rng.standard_normal((len(self._owner), n_voxels))
        fitted = None if self._fitted is None else self._fitted[:, rng.integers(self._fitted.shape[1], size=n_voxels)]
        return StudyDraw(self, ranks, size, normal, fitted)

    def again(self, question: Question, rng: np.random.Generator) -> StudyNoise:
        """Make the same of one simulated study, in which nothing is that the question asks about."""
        return StudyNoise(self.layout, self.draw(self._residuals.shape[1], rng).null_maps(question))

    def in_direction(self, question: Question) -> tuple[NDArray[np.float64], float]:
        """Sort residuals by skewness, once for all questions about one session contrast.

        Returns
        -------
        residuals : ndarray of shape (N, V)
            Of each participant, with the sign of the skewness of the others in the direction that the question asks
            about, in the order of its size.
        skewness : float
            Mean of the residuals in that direction; 0 but for ±0.07 where there is none, in smooth maps.
        """
        found = self._sorted.get(question.sessions.label)
        if found is None:
            direction = np.tile(direction_of(self.layout, question), self._n_rows)
            skewness = self._skewness(self._values(self._residuals, direction))
            order = np.argsort(np.abs(skewness), axis=1)
            signs = np.where(skewness < 0, -1.0, 1.0)[self._owner]
            residuals = np.take_along_axis(self._residuals * signs, order[self._owner], axis=1)
            for start, stop in pairwise(self._classes):
                residuals[:, start:stop] -= residuals[:, start:stop].mean(axis=1, keepdims=True)
            own = float((self._values(residuals, direction) ** 3).mean())
            found = self._sorted[question.sessions.label] = (residuals, own)
        return found

    def nuisance(self, question: Question) -> NDArray[np.float64]:
        """Find the matrix of shape (N, N) that takes what a question asks about out of fitted values."""
        if question.label not in self._nuisance:
            self._nuisance[question.label] = repeated_blocks(_nuisance(self.layout, question), self._n_rows)
        return self._nuisance[question.label]

    def _values(self, residuals: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combine the residuals of each participant, to values of variance 1 of shape (n, V)."""
        values = np.zeros((int(self._owner.max()) + 1, residuals.shape[1]))
        np.add.at(values, self._owner, direction[:, None] * residuals)
        spread = np.sqrt((values**2).mean(axis=1, keepdims=True))
        return np.asarray(np.divide(values, spread, where=spread > 0, out=values))

    def _skewness(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the third moment of the others, given what each participant says of them.

        With z the participants' values and g the regression of the others' on one's own, z_j - g_ji z_i has nothing
        of participant i.
        """
        g = _products(z)
        cubes = (z**3).sum(axis=0) - 3 * z * (g @ z**2) + 3 * z**2 * (g**2 @ z) - z**3 * (g**3).sum(axis=0)[:, None]
        squares = (z**2).sum(axis=0) - 2 * z * (g @ z) + z**2 * (g**2).sum(axis=0)[:, None]
        return np.asarray(np.divide(cubes, squares**1.5, where=squares > 0, out=np.zeros_like(cubes)))


class StudyDraw:
    """One drawn block of voxels, as the null maps of any question."""

    def __init__(
        self,
        source: StudyNoise,
        ranks: NDArray[np.int_],
        size: NDArray[np.float64],
        normal: NDArray[np.float64] | None,
        fitted: NDArray[np.float64] | None,
    ) -> None:
        self._source, self._ranks, self._size = source, ranks, size
        self._normal, self._fitted = normal, fitted

    def null_maps(self, question: Question) -> NDArray[np.float64]:
        """Give maps of shape (N, V) in which nothing is that the question asks about."""
        residuals, _ = self._source.in_direction(question)
        maps = np.take_along_axis(residuals, self._ranks[self._source._owner], axis=1)
        maps *= self._size
        if self._normal is not None:
            maps += self._normal
        if self._fitted is not None:
            maps += self._source.nuisance(question) @ self._fitted
        return maps


def direction_of(layout: MapLayout, question: Question) -> NDArray[np.float64]:
    """Find the direction over sessions that a question is about, at each of N maps; a straight line for `any`."""
    asked = question.sessions
    if asked.time is not None:
        return np.asarray(trend_direction(layout.session_covariate(asked.time), asked.degree))
    present = [session for session in asked.sessions if session in layout.sessions]
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


def _products(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values @ values.T / values.shape[1])


def _root(matrix: NDArray[np.float64], *, inverse: bool = False) -> NDArray[np.float64]:
    """Compute the symmetric square root, or its Moore–Penrose inverse; negative eigenvalues count as zero."""
    eigenvalues, vectors = linalg.eigh(matrix)
    kept = eigenvalues > _RANK * max(eigenvalues[-1], 0.0)
    roots = np.sqrt(np.where(kept, eigenvalues, 1.0))
    return np.asarray((vectors * np.where(kept, 1 / roots if inverse else roots, 0.0)) @ vectors.T)


def _scales(residuals: NDArray[np.float64], own: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float, float]:
    """Estimate the standard deviation of each voxel, shrunk to the common one as far as chance explains differences.

    Returns
    -------
    scale : ndarray of shape (V,)
    credibility : float
        Between 0 (all voxels vary alike) and 1 (each as its own estimate says).
    dof : float
        Of the estimates.
    """
    size = (residuals**2).mean(axis=0)
    for _ in range(_ROUNDS):
        # participants count by how little they vary, so that no one decides
        whitened = _root(np.where(own, _products(residuals / np.sqrt(size)), 0.0), inverse=True) @ residuals
        size = (whitened**2).mean(axis=0)
    correlation = _products(whitened / np.sqrt(size))
    half = np.cumsum(np.append(True, ~own.diagonal(1))) % 2 == 0
    mean = float(size.mean())
    ratio = 1.0
    if half.any():
        first, second = (whitened[part] ** 2 for part in (half, ~half))
        first, second = first.mean(axis=0), second.mean(axis=0)
        ratio = float((first * second).mean() / (first.mean() * second.mean()))
        ratio -= 2 * float((correlation[np.ix_(half, ~half)] ** 2).mean())
    total = float(size.var())
    credibility = float(np.clip((ratio - 1) * mean**2 / total, 0.0, 1.0)) if total > 0 else 0.0
    dof = float(np.trace(correlation) ** 2 / (correlation**2).sum())
    return np.sqrt(credibility * size + (1 - credibility) * mean), credibility, dof


def _participants_covariance(
    observed: NDArray[np.float64], residual_maker: NDArray[np.float64], own: NDArray[np.bool_], layout: MapLayout
) -> NDArray[np.float64]:
    """Solve E[rr'] = MCM for the blocks of C, from the covariance of sessions that all participants share.

    What residuals do not show, such as the spread of each of two participants of a group, stays as shared.
    """
    order = sorted(set(layout.sessions))
    sessions = np.array([order.index(session) for session in layout.sessions])
    # of several rows, each row and session is one
    rows = np.arange(len(observed) // len(sessions))
    sessions = np.add.outer(rows * len(order), sessions).ravel()
    pairs = sessions[:, None] * (sessions.max() + 1) + sessions[None, :]
    left = np.sqrt(np.maximum(np.diag(residual_maker), 0.0))
    share = np.outer(left, left)
    found, expected = (np.bincount(pairs[own], matrix[own]) for matrix in (observed, share))
    shared = np.divide(found, expected, where=expected > _RANK, out=np.zeros_like(found))
    covariance = np.where(own, shared[pairs], 0.0)
    for _ in range(_STEPS):  # few with many participants, whose residuals are nearly their errors
        step = np.where(own, observed - residual_maker @ covariance @ residual_maker, 0.0)
        covariance += step
        if np.abs(step).max() < _CONVERGED * np.abs(covariance).max():
            break
    root = _root(covariance)
    return root @ root


def _beyond_chance(fitted: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Shrink fitted values to effects whose covariance over voxels is the observed one less that of chance."""
    observed = _products(fitted)
    root, inverse = _root(chance), _root(chance, inverse=True)
    eigenvalues, vectors = linalg.eigh(inverse @ observed @ inverse)
    beyond = eigenvalues - 1
    notable = beyond > _NOTABLE_EFFECT
    if not notable.any():
        return None
    shrink = np.sqrt(np.where(notable, beyond, 0.0) / np.where(notable, eigenvalues, 1.0))
    return np.asarray(root @ ((vectors * shrink) @ vectors.T) @ inverse @ fitted)


def _nuisance(layout: MapLayout, question: Question) -> NDArray[np.float64]:
    """Matrix of shape (N, N) that takes what a question asks about out of maps without noise."""
    n = len(layout.participants)
    try:
        design = session_design(layout, question)
    except NotEstimableError:
        return np.zeros((n, n))
    if not design.is_determined:
        return np.zeros((n, n))
    matrix, contrast = design.matrix.to_numpy(), np.atleast_2d(design.contrast)
    asked = pseudo_inverse(contrast) @ contrast
    return np.asarray(np.eye(n) - matrix @ asked @ pseudo_inverse(matrix))

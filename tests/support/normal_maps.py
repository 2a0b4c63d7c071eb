"""Null voxels that are normal, with the same covariance of sessions for all participants: what theory speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sessionfx.group.strategies.base import MapLayout, Question
from sessionfx.statistics.participant_blocks import ParticipantBlocks


def compound_symmetry(n_sessions: int, icc: float) -> NDArray[np.float64]:
    """Variances of one and covariances of `icc`."""
    return icc * np.ones((n_sessions, n_sessions)) + (1 - icc) * np.eye(n_sessions)


@dataclass(frozen=True)
class NormalNoise:
    """Draws maps of a layout.

    Attributes
    ----------
    sessions : sequence of S str
        What the rows of the covariance are.
    covariance : ndarray of shape (S, S)
    means : ndarray of shape (S,) or None
        True effects of sessions, of which null maps of each question have what leaves its null hypothesis true.
    """

    layout: MapLayout
    sessions: Sequence[str]
    covariance: NDArray[np.float64]
    means: NDArray[np.float64] | None = None

    @cached_property
    def places(self) -> list[int]:
        """Session of each map."""
        return [self.sessions.index(session) for session in self.layout.sessions]

    def covariance_of_maps(self) -> ParticipantBlocks:
        owners = np.unique(self.layout.participants, return_inverse=True)[1]
        return ParticipantBlocks.of_sessions(owners, np.array(self.places), self.covariance)

    @cached_property
    def _root(self) -> NDArray[np.float64]:
        owners = np.array(self.layout.participants)
        whole = np.where(owners[:, None] == owners, self.covariance[np.ix_(self.places, self.places)], 0.0)
        values, vectors = linalg.eigh(whole)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)

    def draw(self, n_voxels: int, rng: np.random.Generator) -> NormalDraw:
        return NormalDraw(self, self._root @ rng.standard_normal((len(self.places), n_voxels)))


@dataclass(frozen=True)
class NormalDraw:
    source: NormalNoise
    noise: NDArray[np.float64]

    def null_maps(self, question: Question, voxels: slice = slice(None)) -> NDArray[np.float64]:
        means, weights = self.source.means, np.array(question.sessions.weights)
        if means is None:
            return self.noise[:, voxels].copy()
        return (
            self.noise[:, voxels]
            + (means - weights * (weights @ means) / (weights @ weights))[self.source.places][:, None]
        )

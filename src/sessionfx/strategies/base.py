"""What every group strategy is: a plan made from the design alone, then an estimate from the maps.

Vocabulary
----------
layout
    Which participant and session each of the N maps belongs to.
plan
    A strategy made ready for one session contrast: its design matrix, what it leaves out and why. Making it
    needs no data, so it can be drawn, refused or calibrated before any map is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.naming import words_to_label
from sessionfx.session_contrasts import SessionContrast
from sessionfx.statistics.estimates import Estimate


@dataclass(frozen=True)
class MapLayout:
    """Participant and session of each of N maps, in the order of the data's rows.

    Attributes
    ----------
    participants, sessions : tuple of str
        N labels each; the session is empty in a dataset without sessions.
    """

    participants: tuple[str, ...]
    sessions: tuple[str, ...]

    @property
    def unique_participants(self) -> tuple[str, ...]:
        """Participants, each once, in order."""
        return tuple(dict.fromkeys(self.participants))

    def rows_of(self, participant: str) -> dict[str, int]:
        """Row of each session of a participant."""
        return {
            session: row
            for row, (owner, session) in enumerate(zip(self.participants, self.sessions, strict=True))
            if owner == participant
        }

    def row_names(self) -> list[str]:
        """`sub-01_ses-02` for each map."""
        return [
            f"sub-{participant}_ses-{session}" if session else f"sub-{participant}"
            for participant, session in zip(self.participants, self.sessions, strict=True)
        ]


@dataclass(frozen=True)
class GroupOptions:
    """Options of the strategies: subject effect of the session-model, weighting of fixed effects."""

    subject_effect: str = "auto"
    fixed_effects: str = "equal"


@dataclass(frozen=True)
class Plan(ABC):
    """A strategy made ready for one session contrast.

    Attributes
    ----------
    design_matrix : DataFrame
        One named row per observation of the group model.
    contrast : ndarray of shape (P,)
        Over the columns of the design matrix.
    rows : tuple of int
        Maps that are used.
    left_out : dict of str to str
        Participants that cannot contribute, and why.
    description : str
        What is estimated, as a sentence.
    caution : str
        What a reader must know before trusting it; empty where there is nothing.
    details : dict
        Fields for the sidecars.
    """

    design_matrix: pd.DataFrame
    contrast: NDArray[np.float64]
    rows: tuple[int, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    description: str = ""
    caution: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Estimate the session contrast.

        Parameters
        ----------
        effects : ndarray of shape (N, V)
            All maps of the layout, in its order.
        variances : ndarray of shape (N, V) or None
            Their sampling variances, where the strategy needs them.
        """


class Strategy(ABC):
    """A way to answer a session contrast at the group level."""

    name: str  # on the command line
    title: str  # in reports

    @property
    def label(self) -> str:
        """Label in file names."""
        return words_to_label([self.name])

    def needs_variances(self, options: GroupOptions) -> bool:
        """Whether the maps' sampling variances enter."""
        return False

    @abstractmethod
    def methods(self, options: GroupOptions) -> tuple[str, tuple[str, ...]]:
        """Describe the strategy for a methods section.

        Returns
        -------
        text : str
            Sentences with `{cite}` where the works are to be cited.
        works : tuple of str
            Keys of `report.methods`.
        """

    @abstractmethod
    def plan(self, layout: MapLayout, session_contrast: SessionContrast, options: GroupOptions) -> Plan:
        """Make the strategy ready.

        Raises
        ------
        NotEstimableError
            If this design cannot answer the question; the message is a sentence for the report.
        """


def list_names(names: Sequence[str], limit: int = 8) -> str:
    """Join names for a sentence, shortened."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

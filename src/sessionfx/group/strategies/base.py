"""What every group strategy is: a plan made from the design alone, then an estimate from the maps.

Vocabulary
----------
layout
    Which participant and session each of the N maps belongs to, and the covariates of each.
question
    A session contrast, for one contrast over participants (their mean, a covariate, a difference of groups).
plan
    A strategy made ready for one question: its design matrix, what it leaves out and why. Making it needs no data, so
    it can be drawn, refused or calibrated before any map is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.covariates import CONSTANT_TOLERANCE, GroupContrast
from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.errors import NotEstimableError
from sessionfx.options import StrategyModel
from sessionfx.options.groups import EFFECT_UNITS
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array
from sessionfx.statistics.partial_coverage import Cells, Fitted
from sessionfx.statistics.resampling import Resampling, WildBootstrap

Shared = TypeVar("Shared")
INTERCEPT = GroupContrast("", "intercept", (1.0,))
NO_BAYES_FACTOR = (
    "The Bayes factor is that of a t test on one value per participant with one variance for all: summary-statistics "
    "has it (of groups with --variance pooled), and marginal where the two are the same test."
)


@dataclass(frozen=True)
class MapLayout:
    """Participant, session and covariates of each of N maps, in the order of the data's rows."""

    # participants, sessions: N labels each; the session is empty in a dataset without sessions
    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    covariate_names: tuple[str, ...] = ()  # Q of them
    # (N, Q): the same in all rows of a participant; centred or sum-coded
    covariates: Array = field(default_factory=lambda: np.empty((0, 0)))
    session_covariate_names: tuple[str, ...] = ()  # R of them
    session_covariates: Array = field(default_factory=lambda: np.empty((0, 0)))  # (N, R): as measured
    # session covariates that serve as time in some question of the analysis, and are adjusted for in none
    times: tuple[str, ...] = ()

    def at_rows(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> MapLayout:
        """Restrict to some maps; covariates stay centred over all."""
        kept = np.asarray(rows, dtype=int)
        return replace(
            self,
            participants=tuple(self.participants[row] for row in kept),
            sessions=tuple(self.sessions[row] for row in kept),
            covariates=self.covariates[kept] if self.covariate_names else self.covariates,
            session_covariates=self.session_covariates[kept]
            if self.session_covariate_names
            else self.session_covariates,
        )

    @property
    def unique_participants(self) -> tuple[str, ...]:
        """Participants, each once, in order."""
        return tuple(dict.fromkeys(self.participants))

    @property
    def n_sessions(self) -> int:
        """Number of sessions that somebody has a map of."""
        return len(set(self.sessions))

    @property
    def is_balanced(self) -> bool:
        """Whether every participant has every session."""
        return len(self.participants) == len(self.unique_participants) * self.n_sessions

    def rows_of(self, participant: str) -> dict[str, int]:
        """Row of each session of a participant."""
        return dict(self._rows.get(participant, {}))

    def first_rows(self, participants: Iterable[str]) -> list[int]:
        """Row of the first map of each participant."""
        return [next(iter(self._rows[label].values())) for label in participants]

    @cached_property
    def _rows(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for row, (participant, session) in enumerate(zip(self.participants, self.sessions, strict=True)):
            found.setdefault(participant, {})[session] = row
        return found

    def complete_rows(self, sessions: Sequence[str]) -> NDArray[np.int_]:
        """Rows of the maps of each participant who has all of some sessions, of shape (n, S)."""
        found = [self.rows_of(label) for label in self.unique_participants]
        rows = [[own[session] for session in sessions] for own in found if set(sessions) <= set(own)]
        return np.array(rows, dtype=int).reshape(len(rows), len(sessions))

    def present(self, asked: SessionContrast) -> list[str]:
        """Sessions of a contrast that somebody has a map of, in its order."""
        return [session for session in asked.sessions if session in self.sessions]

    def session_columns(self, sessions: Sequence[str]) -> Array:
        """Ones where a map is of a session, of shape (N, S)."""
        return np.array([[float(own == session) for session in sessions] for own in self.sessions])

    def row_names(self) -> list[str]:
        """`sub-01_ses-02` for each map."""
        return [
            f"sub-{participant}_ses-{session}" if session else f"sub-{participant}"
            for participant, session in zip(self.participants, self.sessions, strict=True)
        ]

    def between(self, rows: Sequence[int]) -> pd.DataFrame:
        """Columns over participants, a constant and the covariates, at some rows."""
        values = self.covariates[list(rows)] if self.covariate_names else np.empty((len(rows), 0))
        return pd.DataFrame(np.column_stack([np.ones(len(rows)), values]), columns=["intercept", *self.covariate_names])

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """Level of each row for every categorical covariate, read from its sum-to-zero codes.

        A level has the name of its column (`group[patient]`); the last one, which has none, the covariate's.
        """
        columns: dict[str, list[int]] = {}
        for index, name in enumerate(self.covariate_names):
            covariate, bracket, _ = name.partition("[")
            is_level = bracket and name.endswith("]") and ":" not in covariate and "]:" not in name
            if is_level and np.isin(self.covariates[:, index], (-1.0, 0.0, 1.0)).all():
                columns.setdefault(covariate, []).append(index)
        return {
            covariate: tuple(
                next((self.covariate_names[index] for index in indices if row[index] == 1.0), covariate)
                for row in self.covariates
            )
            for covariate, indices in columns.items()
        }

    def session_covariate(self, name: str) -> Array:
        """Values of a session covariate at all rows, as measured."""
        return np.asarray(self.session_covariates[:, self.session_covariate_names.index(name)])

    def participant_means(self, values: Array) -> Array:
        """Replace the value of each map, of shape (N,), by the mean over the participant's maps."""
        _, owners = np.unique(self.participants, return_inverse=True)
        means = np.bincount(owners, values) / np.bincount(owners)
        # of equal values the sum of some may differ from the value by rounding
        low, high = np.full(len(means), np.inf), np.full(len(means), -np.inf)
        np.minimum.at(low, owners, values)
        np.maximum.at(high, owners, values)
        return np.asarray(np.clip(means, low, high)[owners])

    def adjusting_covariates(
        self, session_contrast: SessionContrast, effect: str = "mixture"
    ) -> tuple[tuple[str, ...], Array]:
        """Session covariates that are adjusted for, centred over all maps: all but those that serve as time.

        Parameters
        ----------
        session_contrast : SessionContrast
        effect : {'mixture', 'split'}
            One column for each covariate, or one for the means over each participant's maps (`mood:between`) and one
            for the deviations from these (`mood:within`), each where it varies.

        Returns
        -------
        names : tuple of R str
        values : ndarray of shape (N, R)
        """
        times = {*self.times, session_contrast.time}
        found: dict[str, Array] = {}
        for index, name in enumerate(self.session_covariate_names):
            if name not in times:
                values = self.session_covariates[:, index]
                found |= self.parts(name, values) if effect == "split" else {name: values}
        columns = [values - values.mean() for values in found.values()]
        return tuple(found), np.column_stack(columns) if columns else np.empty((len(self.participants), 0))

    def parts(self, name: str, values: Array) -> dict[str, Array]:
        """Split the values of a session covariate into what differs within and between participants, by name."""
        between = self.participant_means(values)
        parts = {f"{name}:within": values - between, f"{name}:between": between}
        smallest = CONSTANT_TOLERANCE * np.abs(values).max(initial=0.0)
        return {part: column for part, column in parts.items() if np.ptp(column) > smallest}


@dataclass(frozen=True)
class PartialMaps:
    """Maps of voxels that each lack some, arranged by participant and session."""

    layout: MapLayout  # of all maps
    question: Question
    sessions: tuple[str, ...]  # S of them
    rows: NDArray[np.int_]  # (n, S): of the map of each participant and session; -1 where there is none
    cells: Cells
    known: dict[object, Any] = field(default_factory=dict, compare=False)  # what `shared` found for other plans

    @classmethod
    def of(cls, layout: MapLayout, question: Question, effects: Array, has: NDArray[np.bool_]) -> PartialMaps:
        """Arrange maps of shape (N, V)."""
        sessions = tuple(layout.present(question.sessions)) or ("",)
        rows = np.array(
            [[own.get(session, -1) for session in sessions] for own in map(layout.rows_of, layout.unique_participants)]
        )
        there = (rows >= 0)[:, :, None] & has[rows]
        values = np.where(there, effects[rows], 0.0)
        cells = Cells(*(np.ascontiguousarray(np.moveaxis(part, 2, 0)) for part in (values, there.astype(float))))
        return cls(layout, question, sessions, rows, cells)

    def arranged(self, design: Array) -> Array:
        """Arrange a design matrix of shape (N, P) as the maps: (n, S, P), with zeros where there is no map."""
        return np.where((self.rows >= 0)[:, :, None], design[self.rows], 0.0)

    def shared(self, fit: Callable[..., Shared], *design: Array) -> Shared:
        """Fit a design to the maps, once for all plans that have it."""
        key = fit, *(part.tobytes() for part in design)
        if key not in self.known:
            self.known[key] = fit(self.cells, *design)
        return cast("Shared", self.known[key])

    @property
    def between(self) -> Array:
        """Constant and covariates of the participants, of shape (n, P)."""
        return self.layout.between(self.rows.max(axis=1).tolist()).to_numpy()


@dataclass(frozen=True)
class Question:
    """What is asked: a session contrast, for one contrast over participants; with the units of first-level effects.

    Of several first-level contrasts, whose labels are `tested`, it asks whether the effect is zero in all of them.
    """

    sessions: SessionContrast
    group: GroupContrast = INTERCEPT
    effect_units: str = field(default=EFFECT_UNITS["voxel"], compare=False)
    tested: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people."""
        return self.sessions.text + (f" × {self.group.text}" if self.group.label else "")

    @property
    def label(self) -> str:
        """For identifiers; unlike for any two questions of one analysis."""
        return "-".join(filter(None, (self.sessions.label, self.group.label)))

    @property
    def units(self) -> str:
        """Units of the effect."""
        of_time = {1: "unit", 2: "squared unit", 3: "cubed unit"}.get(
            self.sessions.degree, f"unit^{self.sessions.degree}"
        )
        of_trend = f" per {of_time} of '{self.sessions.time}'" if self.sessions.time else ""
        return self.effect_units + of_trend + self._per_covariate

    @property
    def units_in_a_session(self) -> str:
        """Units of what the group contrast asks, in a session alone."""
        return self.effect_units + self._per_covariate

    @property
    def _per_covariate(self) -> str:
        return f" per unit of '{self.group.covariate}'" if self.group.covariate else ""

    @property
    def is_f_test(self) -> bool:
        """Whether it asks if several contrasts, over sessions, participants or conditions, are all zero."""
        return self.sessions.kind == "any" or self.group.is_f_test or bool(self.tested)

    def group_weights(self, n_columns: int) -> Array:
        """Weights over the constant and the covariates, of shape (P,), or (R, P) for an F test of R rows."""
        given = np.array(self.group.tested or self.group.weights)
        weights = np.zeros((*given.shape[:-1], n_columns))
        weights[..., : given.shape[-1]] = given
        return weights


@dataclass(frozen=True, kw_only=True)
class GroupOptions(StrategyModel):
    """Options of the strategies; `fixed_effects` are the weights of means over sessions: equal, or by precision."""

    fixed_effects: str = "equal"


def variance_groups(
    layout: MapLayout, question: Question, options: GroupOptions, rows: Sequence[int]
) -> tuple[str, tuple[str, ...]]:
    """Choose the groups of participants that have a variance each; by the design, never by a test of the data.

    Parameters
    ----------
    layout : MapLayout
    question : Question
    options : GroupOptions
        With `auto` there are groups where the group contrast asks about levels of a categorical covariate, or levels
        have unequally many participants.
    rows : sequence of int
        One of each participant who takes part.

    Returns
    -------
    covariate : str
        The categorical covariate whose levels the groups are: the one that is asked about, or that with the smallest
        level. Empty where one variance serves all.
    groups : tuple of str
        Of each participant.
    """
    levels = {covariate: tuple(codes[row] for row in rows) for covariate, codes in layout.factors.items()}
    if options.variance == "pooled" or not levels:
        return "", ()
    named = (layout.covariate_names[column - 1].partition("[")[0] for column in sorted(question.group.columns - {0}))
    asked = [covariate for covariate in named if covariate in levels]
    sizes = {covariate: Counter(own).values() for covariate, own in levels.items()}
    chosen = asked[0] if asked else min(levels, key=lambda covariate: min(sizes[covariate]))
    unequal = len(set(sizes[chosen])) > 1
    if len(sizes[chosen]) < 2 or (options.variance == "auto" and not asked and not unequal):
        return "", ()
    return chosen, levels[chosen]


# False positives of 2,560 voxels at 5 %, where a small group varies three times as much as 20 others (300 studies, with
# two standard errors of 2.5): 20 % with 3 in it, 13 with 4, 9 with 5, 7 with 6, 8 with 8; against 30 others 5 with 6.
# Of F with two numerator degrees of freedom (150 studies, 3.6) 12 % with 4, 8 with 6, 6 with 8. Permuting a studentised
# statistic does worse.
FEWEST_IN_A_GROUP = 6


def check_bootstrap(bootstrap: WildBootstrap, remedy: str) -> None:
    """Make sure that enough participants carry what is resampled; the remedy is a sentence on what else there is.

    Raises
    ------
    NotEstimableError
        With fewer than `FEWEST_IN_A_GROUP`, and two more for every further contrast of an F test.
    """
    needed = FEWEST_IN_A_GROUP + 2 * (bootstrap.n_contrasts - 1)
    if bootstrap.smallest_group < needed:
        raise NotEstimableError(
            "There are no family-wise p values: a wild bootstrap of this test gives too many false positives where a "
            f"group that may vary more than another has fewer than {needed} participants, and the smallest one here "
            f"has {bootstrap.smallest_group}. {remedy}"
        )


@dataclass(frozen=True)
class Plan(ABC):
    """A strategy made ready for one question."""

    design_matrix: pd.DataFrame  # one named row per observation of the group model
    # (P,) or (Q, P): over the columns of the design matrix; Q rows for a test that several contrasts are all zero
    contrast: Array
    rows: tuple[int, ...]  # maps that are used
    left_out: dict[str, str] = field(default_factory=dict)  # participants that cannot contribute, and why
    description: str = ""  # what is estimated, as a sentence
    warnings: tuple[str, ...] = ()  # what a reader must know before trusting it, in sentences
    details: dict[str, Any] = field(default_factory=dict)  # fields for the sidecars
    # of each participant, where groups have a variance each; empty where one serves all
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    # how many first-level contrasts are tested together, each with this design; 0 where one is estimated
    n_tested: int = field(default=0, kw_only=True)

    weighs_participants: ClassVar[bool] = False  # whether participants count unequally at each voxel
    no_resampling: ClassVar[str] = ""  # why there are no family-wise p values

    @property
    def participant_names(self) -> tuple[str, ...]:
        """Participants of the design's rows, each once: `sub-01`."""
        return tuple(dict.fromkeys(str(name).partition("_")[0] for name in self.design_matrix.index))

    @property
    def n_maps(self) -> int:
        """Number of maps that are used, of all contrasts."""
        return len(self.rows) * max(self.n_tested, 1)

    @property
    def uses_variances(self) -> bool:
        """Whether the maps' sampling variances enter."""
        return False

    @property
    def pools(self) -> bool:
        """Whether the plan must know of all voxels before it can estimate any; see `pooled_sums`."""
        return False

    @property
    def pool_key(self) -> object:
        """Equal for plans whose `pooled_sums` are the same."""
        return id(self)

    def pooled_sums(self, effects: NDArray[np.floating]) -> Array:
        """Sum up what the plan must know of some voxels; the sums of blocks add up.

        Parameters
        ----------
        effects : ndarray of shape (N, V)
        """
        raise NotImplementedError

    def informed(self, sums: Array) -> Self:
        """Make the plan ready with the sums over all voxels.

        Raises
        ------
        NotEstimableError
            If the design turns out to be unable to answer.
        """
        raise NotImplementedError

    def estimate_beside(self, effects: Array, variances: Array | None, shared: dict[object, Any]) -> Estimate | FTest:
        """Estimate as `estimate` does; what others can use is shared with plans that estimate from the same maps."""
        return self.estimate(effects, variances)

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Estimate voxels that each lack some of the maps, as if the others were all there are.

        None where there is no way to do so for many voxels at once.
        """
        return None

    def working_as(self, other: Plan) -> Self:
        """Take over what another plan of more maps learned from all voxels; see `informed`.

        Raises
        ------
        NotEstimableError
            If the design turns out to be unable to answer.
        """
        return self

    def leaving_out(self) -> Callable[[int], Plan | None] | None:
        """Give what makes the plan without a participant, by the number in `participant_names`, from that of all.

        It takes all maps, of which those of the participant count nothing, and works with what was learned from all.
        None without whom only another design could answer. None instead of a function where there is no quick way.
        """
        return None

    def effective_n(self, question: Question) -> float:
        """Say how many participants the t test is as good as: its standard error is their standard deviation / √n.

        For the Bayes factor, see `statistics.bayes_factor`.

        Parameters
        ----------
        question : Question
            The one that is planned for. The effect of a numeric covariate is that of two of its standard deviations,
            comparable to a difference of two groups (Gelman 2008, doi:10.1002/sim.3107).

        Raises
        ------
        NotEstimableError
            If it is no t test over participants with one variance for all.
        """
        raise NotEstimableError(NO_BAYES_FACTOR)

    @abstractmethod
    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Estimate the session contrast.

        Parameters
        ----------
        effects : ndarray of shape (N, V)
            All maps of the layout, in its order; where R contrasts are tested together (R N, V), contrast by contrast.
        variances : ndarray of shape (N, V) or None
            Their sampling variances, where the strategy needs them.
        """

    def participant_weights(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Array:
        """Say how much each participant counts at each voxel, where the plan weighs them.

        Parameters
        ----------
        effects, variances : ndarray of shape (N, V)
            As in `estimate`.

        Returns
        -------
        ndarray of shape (n, V)
            From 0 to 1, in the order of the design's rows.
        """
        raise NotImplementedError

    @property
    def resampling(self) -> Resampling:
        """How participants are resampled for family-wise error.

        Raises
        ------
        NotEstimableError
            If no scheme holds; the message is a sentence for the report.
        """
        raise NotEstimableError(self.no_resampling)

    def resampled_values(
        self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None
    ) -> NDArray[np.floating]:
        """Give what `resampling` takes, a column per voxel; maps as in `estimate`, in the precision they have."""
        return effects[list(self.rows)]

"""fixed-effects: combine each participant's sessions first, then a one-sample model on one value per participant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.errors import NotEstimableError
from sessionfx.session_contrasts import SessionContrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.fixed_effects import average, weighted_sum
from sessionfx.statistics.ols import fit_ols
from sessionfx.strategies.base import GroupOptions, MapLayout, Plan, Strategy

INCOMPLETE_MEAN = (
    "Some participants miss sessions, and their mean is over the sessions they have: where sessions truly "
    "differ, it mixes who was scanned with when, and is biased."
)
INCOMPLETE_TREND = (
    "Some participants miss sessions, and their trend is over the sessions they have: where change is not a "
    "straight line, it is not the same quantity for everyone."
)


@dataclass(frozen=True)
class FixedEffectsPlan(Plan):
    """One value per participant, then OLS.

    Attributes
    ----------
    combinations : tuple of dict
        Weight of each map's row, per participant.
    precision_weighted : bool
        Whether the weights are replaced by the maps' precisions (means only).
    """

    combinations: tuple[dict[int, float], ...] = ()
    precision_weighted: bool = False

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate:
        """Combine, then estimate the mean; see `Plan.estimate`."""
        values = np.empty((len(self.combinations), effects.shape[1]))
        unused = np.zeros(effects.shape[1])
        for index, weights in enumerate(self.combinations):
            if self.precision_weighted:
                if variances is None:
                    raise ValueError("precision weights need the maps' variances")
                inputs = [Estimate(effects[row].astype(float), variances[row].astype(float), 0.0) for row in weights]
                values[index] = average(inputs, "precision").effect
            else:
                inputs = [Estimate(effects[row].astype(float), unused, 0.0) for row in weights]
                values[index] = weighted_sum(inputs, list(weights.values())).effect
        return fit_ols(values, self.design_matrix.to_numpy(), self.contrast)


class FixedEffects(Strategy):
    """One fixed-effects map per participant."""

    name = "fixed-effects"
    title = "Fixed effects"

    def needs_variances(self, options: GroupOptions) -> bool:
        """Only precision weights need them."""
        return options.fixed_effects == "precision"

    def methods(self, options: GroupOptions) -> tuple[str, tuple[str, ...]]:
        """Describe the summary-statistics approach; see `Strategy.methods`."""
        text = (
            "Fixed-effects strategy: the session contrast was computed within each participant "
            f"({options.fixed_effects} weights for means) and tested over participants by a one-sample t test "
            f"(summary statistics approach {{cite}})."
        )
        return text, ("holmes", "mumford")

    def plan(self, layout: MapLayout, session_contrast: SessionContrast, options: GroupOptions) -> FixedEffectsPlan:
        """Choose the participants whose sessions can answer the question; see `Strategy.plan`."""
        if not session_contrast.weights:
            raise NotEstimableError("There is one session only, so there is no trend over sessions to estimate.")
        combinations: dict[str, dict[int, float]] = {}
        left_out: dict[str, str] = {}
        incomplete = False
        for participant in layout.unique_participants:
            rows = layout.rows_of(participant)
            weights = session_contrast.weights_for(list(rows))
            if weights is None:
                missing = [session for session in session_contrast.sessions if session not in rows]
                left_out[participant] = f"has no map of {', '.join(f'ses-{session}' for session in missing)}"
                continue
            incomplete |= len(rows) < len(session_contrast.sessions)
            combinations[participant] = {rows[session]: weight for session, weight in weights.items()}
        if len(combinations) < 2:
            raise NotEstimableError(
                f"{len(combinations)} participant(s) have the sessions this contrast needs; a group model needs at "
                "least two."
            )
        precision = session_contrast.kind == "mean" and options.fixed_effects == "precision"
        design = pd.DataFrame({"intercept": 1.0}, index=[f"sub-{participant}" for participant in combinations])
        return FixedEffectsPlan(
            design,
            np.array([1.0]),
            tuple(sorted({row for weights in combinations.values() for row in weights})),
            left_out,
            f"One-sample model on {len(combinations)} participants, one fixed-effects value each"
            + (f" ({options.fixed_effects} weights)." if session_contrast.kind == "mean" else "."),
            {"mean": INCOMPLETE_MEAN, "linear": INCOMPLETE_TREND}.get(session_contrast.kind, "") if incomplete else "",
            {
                "FixedEffectsWeighting": options.fixed_effects if session_contrast.kind == "mean" else "equal",
                "ParticipantWeights": {
                    f"sub-{participant}": "precision"
                    if precision
                    else {
                        f"ses-{layout.sessions[row]}": weight for row, weight in weights.items() if layout.sessions[row]
                    }
                    for participant, weights in combinations.items()
                },
            },
            tuple(combinations.values()),
            precision,
        )

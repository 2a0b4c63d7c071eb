"""session-model: every session map is a row of one group model with session columns and a subject effect.

Full-rank coding: the session columns of `designs`, and for the subject effect either nothing, one centred column
1 … n (`linear`, as in the forum script this program grew from), or n − 1 sum-to-zero indicators.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import SessionContrast
from sessionfx.errors import NotEstimableError
from sessionfx.group.judgement import Evidence, Judgement
from sessionfx.group.strategies.base import GroupOptions, MapLayout, PartialMaps, Plan, Question
from sessionfx.group.strategies.designs import (
    SessionDesign,
    complete_participants,
    difference_contrasts,
    session_design,
    session_differences,
)
from sessionfx.group.strategies.strategy import ORDINARY, UNEQUAL_TIMES, Assumptions, Grounds, Strategy
from sessionfx.group.validity import NEGLIGIBLE_ICC, POOLED_MEAN, WITHOUT_SPHERICITY
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import Array, independent_columns, is_estimable, rank_of
from sessionfx.statistics.multivariate import greenhouse_geisser, residual_covariance
from sessionfx.statistics.ols import OlsContrasts, prepare_ols, prepare_within, within_participants
from sessionfx.statistics.partial_coverage import (
    Fitted,
    complete_values,
    epsilon,
    ordinary,
)
from sessionfx.statistics.partial_coverage import within_participants as fitted_within
from sessionfx.wording import minus

POOLING = (
    "Pooling of correlated maps: the maps of one participant count as independent, so its standard error is too small "
    f"wherever participants differ from each other (up to {POOLED_MEAN:g} % false positives at a nominal 5 % in "
    f"simulations). Do not report it unless the median ICC is below {NEGLIGIBLE_ICC:g}."
)
WRONG_ERROR_TERM = (
    "Participant indicators take the differences between participants out of the error, which this question should be "
    "tested against; the standard error is too small."
)
SPHERICITY = (
    "With three or more sessions this test assumes sphericity: every difference between sessions varies equally over "
    f"participants. Where it fails, false positives rise ({WITHOUT_SPHERICITY})."
)
CORRECTED = (
    "The Greenhouse–Geisser correction estimates the departure from sphericity at each voxel, which is uncertain "
    "with few participants."
)
NO_F_TEST_OVER_PARTICIPANTS = (
    "The session model tests one group contrast at a time here; marginal and summary-statistics test several, with "
    "groups that may vary unequally."
)
NO_F_TEST_OVER_CONDITIONS = (
    "The session model tests one contrast over conditions at a time here; marginal and summary-statistics test "
    "several, however these co-vary."
)
# With more participants their indicators are not written out: their means are taken out of the other columns
MOST_INDICATORS = 500
_WITHIN = 1e-9  # of a design's largest part within participants, what is rounding
LINEAR_CODE = (
    "The subject effect is one straight line over the order of the participants' labels; the result changes when they "
    "are renamed."
)


@dataclass(frozen=True, kw_only=True)
class SessionModelPlan(Plan):
    """OLS on all session maps; of several contrasts an F test that all are zero."""

    participants: tuple[str, ...]  # of each row
    n_common: int  # columns that are no participant's own; the first ones
    # whether what differs within participants determines the contrast, and their indicators can be taken out first
    is_within: bool
    # (n, S), and (n, P): where an F test has Greenhouse–Geisser's correction: rows of the maps of each participant who
    # has every session, and the constant and covariates of these participants
    complete: tuple[NDArray[np.int_], Array] | None = None

    no_resampling: ClassVar[str] = (
        "There are no family-wise p values: maps of one participant are not exchangeable one by one, and an error "
        "between maps is not what resampling participants tests. The marginal strategy has them, from the same maps."
    )

    @cached_property
    def prepared(self) -> OlsContrasts:
        """The contrast, ready for any number of voxels."""
        if self.is_within:
            common = self.design_matrix.iloc[:, : self.n_common].to_numpy()
            return prepare_within(common, self.contrast[..., : self.n_common], self.participants)
        return prepare_ols(self.design_matrix.to_numpy(), self.contrast)

    def estimate(self, effects: NDArray[np.floating], variances: NDArray[np.floating] | None) -> Estimate | FTest:
        """Estimate or test by OLS, see `Plan.estimate`."""
        if self.contrast.ndim == 1:
            return self.prepared.estimate(effects)
        f, numerator, dof = self.prepared.test(effects)
        if self.complete is None:
            return FTest(f, numerator, dof)
        rows, between = self.complete
        epsilon = greenhouse_geisser(residual_covariance(session_differences(effects, rows), between))
        return FTest(f, epsilon * numerator, epsilon * dof)

    def estimate_apart(self, maps: PartialMaps) -> Fitted | None:
        """Estimate or test by OLS at each voxel; see `Plan.estimate_apart`."""
        found = self._ordinary_apart(maps)
        if found is None or self.complete is None:
            return found
        values, has = complete_values(maps.cells, difference_contrasts(len(maps.sessions)))
        of_voxels, holds = epsilon(values, has, maps.between)
        test = found.result
        assert isinstance(test, FTest)  # noqa: S101 - of several contrasts
        corrected = replace(test, dof_numerator=of_voxels * test.dof_numerator, dof=of_voxels * test.dof)
        return Fitted(corrected, found.holds & holds)

    def _ordinary_apart(self, maps: PartialMaps) -> Fitted | None:
        matrix, contrast = self.design_matrix.iloc[:, : self.n_common].to_numpy(), self.contrast
        if self.details["SubjectEffect"] == "none":
            design = maps.arranged(matrix)
            flat = design.reshape(-1, design.shape[2])

            values, has = (part.reshape(-1, len(flat)) for part in maps.cells)
            found = ordinary(values, has, flat, contrast)
            return found._replace(result=replace(found.result, n=maps.cells.n_participants))
        if self.details["SubjectEffect"] != "indicator":  # a line over those who are there
            return None
        design = maps.arranged(matrix)
        counts = (maps.rows >= 0).sum(axis=1)
        deviations = np.where((maps.rows >= 0)[:, :, None], design - design.sum(axis=1, keepdims=True)
                              / counts[:, None, None], 0.0)  # fmt: skip
        # what is constant within participants is theirs already
        _, sizes, directions = np.linalg.svd(deviations.reshape(-1, self.n_common), full_matrices=False)
        kept = directions[sizes > _WITHIN * sizes.max(initial=0.0)]
        asked = contrast[..., : self.n_common]
        if not np.allclose(asked @ kept.T @ kept, asked):
            return None
        return fitted_within(maps.cells, design @ kept.T, asked @ kept.T)


class SessionModel(Strategy):
    """All sessions in one group model."""

    name = "session-model"
    title = "Session model"
    full_title = "Session model (OLS on all session maps)"
    preference = 4
    cancels_levels = True
    compared_with = ("summary-statistics",)
    assumptions = Assumptions(
        values="maps are normal",
        spread="equal",
        sessions=(
            "for means, no correlation within participants and equal variances; for differences and trends, sphericity "
            "(two sessions have it); for the test of any difference it is corrected by an approximation"
        ),
        missing=(
            "with participant indicators, what is missing may go with a stable level, not with the change; without "
            "them, with neither"
        ),
    )

    def never_answers(self, question: Question) -> str:
        """Test one group contrast, and one condition, at a time; see `Strategy.never_answers`."""
        if question.tested:
            return NO_F_TEST_OVER_CONDITIONS
        return NO_F_TEST_OVER_PARTICIPANTS if question.group.is_f_test else ""

    def rank(self, grounds: Grounds) -> int:
        """Step back behind the mixed model where sphericity matters to both; see `Strategy.rank`."""
        k = grounds.layout.n_sessions
        is_simple = k == 1 or (k == 2 and grounds.question.sessions.is_within_participant)
        return self.preference if is_simple else 6

    def facts(self, question: Question, options: GroupOptions) -> dict[str, Any]:
        """Give the subject effect; see `Strategy.facts`."""
        return {"SubjectEffect": resolve_subject_effect(options.subject_effect, question.sessions)}

    def judge(self, grounds: Grounds) -> Judgement:
        """Judge by what its one error serves, which depends on the subject effect; see `Strategy.judge`."""
        question, layout, evidence = grounds.question, grounds.layout, grounds.evidence
        k, asked = layout.n_sessions, question.sessions
        coding = resolve_subject_effect(grounds.options.subject_effect, asked)
        pooled = grounds.judge_pooled_variance()
        if k == 1:
            if pooled is not None:
                return pooled
            if coding == "linear":
                return Judgement(
                    "conditional",
                    "it takes a straight line over the order of the participants' labels out of the maps.",
                )
            return Judgement("yes", ORDINARY)
        if not asked.is_within_participant:
            if coding == "indicator":
                return Judgement("no", "it tests a mean against within-participant error only.")
            return _judge_pooling(asked, layout, evidence)
        if coding != "indicator":
            return Judgement("no", f"with subject effect '{coding}' it does not compare participants with themselves.")
        if k == 2:
            return _judge_pairs(asked, layout, pooled)
        if asked.kind == "any":
            return Judgement(
                "conditional", f"its Greenhouse–Geisser correction is an approximation{evidence.epsilon_words}."
            )
        return Judgement("conditional", f"it is exact only under sphericity{evidence.epsilon_words}.")

    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe OLS on all session maps; see `Strategy.methods`."""
        text = (
            f"{self.title}: all session maps entered one ordinary least-squares model with one column per "
            f"session and subject effect '{options.subject_effect}'"
        )
        if options.subject_effect == "auto":
            text += " (participant indicators for differences and trends, none for means)"
        if not work.any_session:
            return f"{text}.", ()
        return text + "; the test over all sessions was corrected for non-sphericity {cite}.", ("greenhouse_geisser",)

    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> Plan:
        """Code sessions and participants; see `Strategy.plan`."""
        refusal = self.never_answers(question)
        if refusal:
            raise NotEstimableError(refusal)
        asked = question.sessions
        subject_effect = resolve_subject_effect(options.subject_effect, asked)
        design = session_design(layout, question, options.session_covariate_effect)
        n_before = design.matrix.shape[1]
        is_within = subject_effect == "indicator" and _is_within(design, layout)
        if is_within and len(layout.unique_participants) > MOST_INDICATORS:
            whole, kept = _within(design, layout), list(range(n_before))
        else:
            whole, kept = _with_subjects(design, layout, subject_effect)
        matrix, contrast = whole.matrix.iloc[:, kept], whole.contrast[..., kept]
        n_sessions = len(layout.present(asked))
        warnings, complete = _warnings(asked, subject_effect, n_sessions), None
        details = {"SubjectEffect": subject_effect, **design.details}
        if asked.kind == "any" and subject_effect == "indicator":
            complete = complete_participants(layout, asked)
            rows, between_participants = complete
            if len(rows) - rank_of(between_participants) < 1:
                raise NotEstimableError(
                    f"{len(rows)} participants have every session, too few to estimate the departure from sphericity."
                )
            warnings = [CORRECTED] if n_sessions > 2 else []
            details["Correction"] = "Greenhouse–Geisser"
        return SessionModelPlan(
            design_matrix=matrix,
            contrast=contrast,
            rows=tuple(range(len(layout.participants))),
            description=f"{'F test' if asked.kind == 'any' else 'OLS'} on {len(matrix)} maps of "
            f"{len(layout.unique_participants)} participants with one column per session and subject effect "
            f"'{subject_effect}'.",
            warnings=(*warnings, *design.warnings),
            details=details,
            participants=layout.participants,
            n_common=sum(column < n_before for column in kept),
            is_within=is_within,
            complete=complete,
        )


def _with_subjects(design: SessionDesign, layout: MapLayout, subject_effect: str) -> tuple[SessionDesign, list[int]]:
    """Add the columns of a subject effect, and say which columns are kept.

    Raises
    ------
    NotEstimableError
        If they do not determine the contrast, or leave no error.
    """
    whole = design.with_columns(_subject_columns(layout, subject_effect))
    whole.check(
        "too few participants have these sessions, or covariates cannot be told apart from sessions."
        if subject_effect == "none"
        else f"with subject effect '{subject_effect}', it cannot be told apart from the participants' own levels "
        "(too few participants have more than one of these sessions, or it is about the participants themselves), "
        "or covariates cannot be told apart from sessions."
    )
    # indicators that the columns before them explain are left out; the contrast does not touch them
    kept = independent_columns(whole.matrix.to_numpy())
    n_before = design.matrix.shape[1]
    if any(column not in kept for column in range(n_before) if np.any(np.atleast_2d(whole.contrast)[:, column])):
        kept = list(range(whole.matrix.shape[1]))
    return whole, kept


def _is_within(design: SessionDesign, layout: MapLayout) -> bool:
    """Whether what differs within participants determines the contrast and leaves error."""
    within = within_participants(design.matrix.to_numpy(), layout.participants)
    is_determined = all(is_estimable(within, row) for row in np.atleast_2d(design.contrast))
    return is_determined and len(within) > len(layout.unique_participants) + rank_of(within)


def _within(design: SessionDesign, layout: MapLayout) -> SessionDesign:
    """Take the participants' means out of the columns, which answers as indicators would."""
    columns = within_participants(design.matrix.to_numpy(), layout.participants)
    matrix = pd.DataFrame(columns, index=design.matrix.index, columns=design.matrix.columns)
    return replace(design, matrix=matrix)


_WORTH_A_FACTOR = 0.1  # too large by less is said in percent


def _judge_pairs(asked: SessionContrast, layout: MapLayout, pooled: Judgement | None) -> Judgement:
    """Judge a difference of two sessions."""
    if asked.time is not None:
        return Judgement("conditional", UNEQUAL_TIMES)
    if pooled is not None:
        return pooled
    has_covariates = bool(layout.covariate_names or layout.session_covariate_names)
    return Judgement(
        "yes",
        f"with two sessions it is {'a regression of the differences' if has_covariates else 'the paired t test'}"
        + ("." if layout.is_balanced else " of the participants who have both."),
    )


def _judge_pooling(asked: SessionContrast, layout: MapLayout, evidence: Evidence) -> Judgement:
    """Say how far a model without subject effect is off: its t is √(1 + (q − 1) ICC) times too large.

    Under equal correlations; q = (Σc)² / Σc², the number of sessions for their mean.
    """
    pooling = "it counts the maps of one participant as independent people"
    if asked.kind == "mean":
        counts = np.array([len(layout.rows_of(label)) for label in layout.unique_participants])
        effective = float((counts**2).sum() / counts.sum())  # the number of sessions, where nobody misses any
    else:
        weights = np.array(asked.weights)
        effective = float(weights.sum() ** 2 / (weights @ weights))
    icc, where = evidence.icc31, "over all voxels"
    if evidence.icc31_active is not None and (icc is None or evidence.icc31_active > icc):
        icc, where = evidence.icc31_active, "where the mean is beyond its threshold"
    if icc is None:
        return Judgement("no", f"{pooling}.")
    median = f"a median ICC of {minus(f'{icc:.2f}')} {where}"
    if effective < 1 - 1e-9:
        return Judgement("conditional", f"{pooling}, which makes its t too small for these weights.")
    if effective < 1 + 1e-9:
        return Judgement(
            "conditional",
            f"{pooling}; for one session that leaves its t right if all sessions vary equally, with too many degrees "
            "of freedom.",
        )
    if icc < NEGLIGIBLE_ICC:
        return Judgement("conditional", f"{pooling}, which matters little at {median}.")
    excess = float(np.sqrt(1 + (effective - 1) * icc)) - 1
    size = f"{1 + excess:.1f} times" if excess >= _WORTH_A_FACTOR else f"{excess:.0%}"
    return Judgement(
        "no",
        f"{pooling}; with {median}, its t is about {size} too large there.",
    )


def resolve_subject_effect(subject_effect: str, session_contrast: SessionContrast) -> str:
    """Say what `auto` means: indicators where a participant's own level cancels, nothing for a mean."""
    if subject_effect != "auto":
        return subject_effect
    return "indicator" if session_contrast.is_within_participant else "none"


def _warnings(session_contrast: SessionContrast, subject_effect: str, n_sessions: int) -> list[str]:
    warnings = []
    if subject_effect == "linear":
        warnings.append(LINEAR_CODE)
    if n_sessions > 1 and not session_contrast.is_within_participant:
        warnings.append(WRONG_ERROR_TERM if subject_effect == "indicator" else POOLING)
    elif subject_effect == "indicator" and n_sessions > 2:
        warnings.append(SPHERICITY)
    elif subject_effect != "indicator" and n_sessions > 1:
        warnings.append(
            "Without participant indicators the maps of one participant count as independent; the test is blind "
            "to pairing."
        )
    return warnings


def _subject_columns(layout: MapLayout, subject_effect: str) -> pd.DataFrame:
    participants = layout.unique_participants
    index = layout.row_names()
    if subject_effect == "linear":
        code = {participant: order + 1.0 for order, participant in enumerate(participants)}
        centre = (len(participants) + 1) / 2
        return pd.DataFrame({"subject": [code[owner] - centre for owner in layout.participants]}, index=index)
    if subject_effect == "indicator":
        # Sum-to-zero coding: session columns stay means over participants, and the design has full rank.
        last = participants[-1]
        columns = {
            f"sub-{participant}": [float(owner == participant) - float(owner == last) for owner in layout.participants]
            for participant in participants[:-1]
        }
        return pd.DataFrame(columns, index=index)
    return pd.DataFrame(index=index)

"""Which strategies to trust for a question, from the design and from what the data say about their assumptions.

The rules follow from exact results and from simulated null designs (docs/validity.md; figures in
`sessionfx.group.validity`): in these marginal and summary-statistics keep a nominal rate with normal values, unless few
participants who vary more decide; a pooled mean does not, nor do differences and trends of the session-model and of
mixed effects over three or more sessions where sphericity fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sessionfx.group.calibrated import Rates, least_inflated, nominal_rates, with_rates
from sessionfx.group.participant_evidence import FEWEST
from sessionfx.group.results import Evidence, Judgement, StrategyResult, ValueEvidence, Verdict
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question, variance_groups
from sessionfx.group.strategies.designs import MAIN_EFFECTS, MIXTURE
from sessionfx.group.strategies.marginal import FEW_DOF
from sessionfx.group.strategies.session_model import resolve_subject_effect
from sessionfx.group.strategies.summary_statistics import SessionVectorPlan, SummaryStatisticsPlan
from sessionfx.group.validity import NEGLIGIBLE_ICC
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.wording import minus

# Answers whose z differ by no more than this at any voxel are the same but for rounding
SAME_Z = 1e-4
# At or below this p, by sign flips of the whole brain, dropout or skewness is called more than chance
NOTABLE_P = 0.02
NOTABLE_SHARE_MISSING = 0.1  # of participants
# Squared skewness of an estimate above which its false positives exceed 2 ‰ at a nominal 1 ‰: at 0.03 they exceed 5.8 %
# at 5 % too (one-sample t tests of χ² and lognormal values of 8 to 80 participants, simulated)
NOTABLE_SKEWNESS = 0.012
# A participant whose covariates are so far from the others' that the model follows the own values: a greater spread of
# theirs cannot be seen in what is left
HIGH_LEVERAGE = 0.4
# Welch's test, and its like for several values, find too much where a small group decides: at 1 ‰ 3 to 14 ‰ with groups
# of 3 to 6 against 20, and for several values 6 to 14 % at 5 %. From this many degrees of freedom on they keep 5.8 %
# and 2 ‰ (simulated, standard deviations 1:2 to 4:1)
FEW_DOF_OF_GROUPS = 10.0
# With missing sessions whose standard deviations differ this much, and fewer participants than this in a session, or
# in a session of a group that is asked about, simulated false positives of the marginal strategy exceed the nominal
# rate, above all at small p (docs/validity.md)
NOTABLE_SPREAD = 1.5
MANY_IN_A_CELL = 20
# With fewer in a session, and a smaller share of all, its test of any difference exceeds 2 ‰ at a nominal 1 ‰; six of
# twelve do not make it do so
FEW_IN_A_CELL = 10
FEW_OF_ALL = 1 / 4

ORDINARY = "with one map per participant it is an ordinary group model."
MIXES = "it mixes the effect of session covariates within participants with that between them, as asked."
DIFFERENT_CHANGE = (
    "participants who missed sessions change otherwise than the rest, in the sessions they have: what they would have "
    "shown in the others cannot be known, by any strategy."
)
DIFFERENT_LEVEL = (
    "participants who missed sessions have another level than the rest, which enters this estimate because not the "
    "same people are there in all sessions."
)
FEW_PARTICIPANTS = (
    f"with fewer than {FEWEST} participants one cannot see whether their values are skewed, and its p values are too "
    "small if they are."
)
UNEQUAL_TIMES = "it takes change to vary equally over participants, whatever the time between their sessions."


def judge(
    question: Question,
    layout: MapLayout,
    results: Sequence[StrategyResult],
    evidence: Evidence,
    subject_effect: str,
    rates: Rates | None = None,
) -> Verdict:
    """Say which strategies to trust.

    Parameters
    ----------
    question : Question
    layout : MapLayout
        All maps of the analysis.
    results : sequence of StrategyResult
        The strategies that were run; only these are recommended.
    evidence : Evidence
    subject_effect : {'auto', 'indicator', 'linear', 'none'}
        Of the session-model.
    rates : dict of str to (dict of str to float), optional
        What the calibration found of each strategy; see `calibrated.rates_of`.

    Returns
    -------
    Verdict
    """
    k, n = len(set(layout.sessions)), len(layout.unique_participants)
    balanced = _is_balanced(layout)
    coding = resolve_subject_effect(subject_effect, question.sessions)
    dof = {one.name: _dof(one.stat_map) for one in results if one.stat_map is not None}
    facts: dict[str, Any] = {
        "NumberOfParticipants": n,
        "NumberOfSessions": k,
        "NumberOfMaps": len(layout.participants),
        "Balanced": balanced,
        "ParticipantsWithEverySession": evidence.n_complete,
        "SubjectEffect": coding,
        "MedianICC1": evidence.icc1,
        "MedianICC31": evidence.icc31,
        "MedianICC31WhereMeanIsBeyondThreshold": evidence.icc31_active,
        "MedianGreenhouseGeisserEpsilon": evidence.epsilon,
        "GreenhouseGeisserEpsilonExpectedUnderSphericity": evidence.epsilon_expected,
        "RatioOfSessionStandardDeviations": _spread_ratio(evidence),
        "ShareOfVoxelsWhereMissingSessionsCorrelateWithTheEffect": evidence.missingness,
        **_facts_of_dropout(evidence),
        **_facts_of_values(evidence.values.get(question.label)),
        "DegreesOfFreedom": dof,
    }
    plans = {one.name: one.plan for one in results if one.plan is not None}
    rules = {
        "session-model": _judge_session_model(question, layout, coding, evidence),
        "summary-statistics": _judge_summary_statistics(
            question, layout, dof, evidence, plans.get("summary-statistics")
        ),
        "marginal": _judge_marginal(question, layout, dof, evidence, plans.get("marginal")),
        "mixed": _judge_mixed(question, layout, evidence),
        "meta": Judgement(
            "conditional", "it takes the variances of the maps as known, though few scans estimate them."
        ),
    }
    judgements = {
        one.name: _with_care(one.name, rules[one.name], question, layout, evidence)
        if one.stat_map is not None
        else Judgement("declined", one.refusal or "")
        for one in results
    }
    if rates:
        judgements = with_rates(judgements, rates)
        facts["CalibratedFalsePositives"] = nominal_rates(rates)
    recommended = _recommend(question, layout, judgements, dof, evidence, rates)
    titles = {one.name: one.title for one in results}
    same = _give_the_same([one for one in results if one.name in recommended])
    text = _sentences(layout, recommended, judgements, titles, evidence, same)
    return Verdict(text, recommended, judgements, facts)


def _with_care(name: str, judgement: Judgement, question: Question, layout: MapLayout, evidence: Evidence) -> Judgement:
    """Put conditions on what is valid but for what the data say of participants."""
    cautions = _cautions(name, question, layout, evidence) if judgement.valid in ("yes", "conditional") else []
    if not cautions:
        return judgement
    known = [judgement.reason] if judgement.valid == "conditional" else []
    return Judgement("conditional", " Besides, ".join([*known, *cautions]))


def _cautions(name: str, question: Question, layout: MapLayout, evidence: Evidence) -> list[str]:
    """Say what calls for care, whatever the strategy assumes; clauses with a full stop."""
    found = []
    dropout, values = evidence.dropout, evidence.values.get(question.label)
    if dropout is not None and _is_notable(dropout.change_p):
        found.append(DIFFERENT_CHANGE)
    # differences within each participant, of those who have both sessions, do not change with a participant's level
    keeps_level = question.sessions.is_within_participant and name in ("summary-statistics", "session-model")
    if dropout is not None and _is_notable(dropout.level_p) and not keeps_level:
        found.append(DIFFERENT_LEVEL)
    if (
        values is not None
        and _is_notable(values.skewness_p)
        and values.squared_skewness * values.carried > NOTABLE_SKEWNESS
    ):
        found.append(
            f"participants' values are skewed (skewness about {np.sqrt(values.squared_skewness):.1f}), and with "
            f"{len(layout.unique_participants)} participants its p values are then too small."
        )
    leverage, participant = _leverage(layout)
    if leverage >= HIGH_LEVERAGE and len(layout.unique_participants) > 2:
        found.append(
            f"the covariates of sub-{participant} are far from those of the others (leverage {leverage:.2f}), so that "
            "its errors do not show how much this participant varies."
        )
    if len(layout.unique_participants) < FEWEST:
        found.append(FEW_PARTICIPANTS)
    return found


def _leverage(layout: MapLayout) -> tuple[float, str]:
    """Find the participant whose covariates are farthest from the others', with the leverage."""
    participants = layout.unique_participants
    design = layout.between([layout.participants.index(label) for label in participants]).to_numpy()
    own = np.einsum("np,pn->n", design, pseudo_inverse(design))
    return float(own.max()), participants[int(np.argmax(own))]


def _is_notable(p: float | None) -> bool:
    return p is not None and p <= NOTABLE_P


def _facts_of_dropout(evidence: Evidence) -> dict[str, float | None]:
    dropout = evidence.dropout
    return {
        "PValueOfLevelByMissedSessions": dropout.level_p if dropout else None,
        "PValueOfChangeByMissedSessions": dropout.change_p if dropout else None,
    }


def _facts_of_values(values: ValueEvidence | None) -> dict[str, float | str | None]:
    if values is None:
        return {}
    return {
        "SquaredSkewnessOfParticipantValues": values.squared_skewness,
        "PValueOfSkewness": values.skewness_p,
        "SquaredSkewnessOfEstimate": values.squared_skewness * values.carried,
        "ShareOfVoxelsWithAnOutlier": values.outlying,
        "MostOftenOutlying": f"sub-{values.most_outlying}",
        "ShareOfVoxelsWhereOutlying": values.most_outlying_share,
        "RatioOfGroupStandardDeviations": values.group_spread,
    }


def _judge_session_model(question: Question, layout: MapLayout, coding: str, evidence: Evidence) -> Judgement:
    k, balanced = len(set(layout.sessions)), _is_balanced(layout)
    pooled = _judge_pooled_variance(question, evidence)
    if k == 1:
        if pooled is not None:
            return pooled
        if coding == "linear":
            return Judgement(
                "conditional", "it takes a straight line over the order of the participants' labels out of the maps."
            )
        return Judgement("yes", ORDINARY)
    if not question.sessions.is_within_participant:
        if coding == "indicator":
            return Judgement("no", "it tests a mean against within-participant error only.")
        return _judge_pooling(question, layout, evidence)
    if coding != "indicator":
        return Judgement("no", f"with subject effect '{coding}' it does not compare participants with themselves.")
    if k == 2 and question.sessions.time is not None:
        return Judgement("conditional", UNEQUAL_TIMES)
    if k == 2 and pooled is not None:
        return pooled
    if k == 2:
        has_covariates = bool(layout.covariate_names or layout.session_covariate_names)
        return Judgement(
            "yes",
            f"with two sessions it is {'a regression of the differences' if has_covariates else 'the paired t test'}"
            + ("." if balanced else " of the participants who have both."),
        )
    if question.sessions.kind == "any":
        return Judgement("conditional", f"its Greenhouse–Geisser correction is an approximation{_epsilon(evidence)}.")
    return Judgement("conditional", f"it is exact only under sphericity{_epsilon(evidence)}.")


def _judge_pooling(question: Question, layout: MapLayout, evidence: Evidence) -> Judgement:
    """Say how far a model without subject effect is off: its t is √(1 + (q − 1) ICC) times too large.

    Under equal correlations; q = (Σc)² / Σc², the number of sessions for their mean.
    """
    pooling = "it counts the maps of one participant as independent people"
    if question.sessions.kind == "mean":
        counts = np.array([len(layout.rows_of(label)) for label in layout.unique_participants])
        effective = float((counts**2).sum() / counts.sum())  # the number of sessions, where nobody misses any
    else:
        weights = np.array(question.sessions.weights)
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
    return Judgement(
        "no",
        f"{pooling}; with {median}, its t is about {np.sqrt(1 + (effective - 1) * icc):.1f} times too large there.",
    )


def _judge_summary_statistics(
    question: Question, layout: MapLayout, dof: Mapping[str, float], evidence: Evidence, plan: Plan | None
) -> Judgement:
    unequal = _judge_equal_variances(question, dof, evidence, plan)
    if unequal is not None:
        return unequal
    k, balanced = len(set(layout.sessions)), _is_balanced(layout)
    if k == 1:
        return Judgement("yes", ORDINARY)
    if not balanced and question.sessions.kind == "mean":
        return Judgement(
            "conditional",
            "participants miss sessions, and their means are over the sessions they have: if sessions truly differ, it "
            "mixes who was scanned with when.",
        )
    if k > 2 and not balanced and question.sessions.kind == "linear":
        return Judgement(
            "conditional",
            "participants miss sessions: if change is not a straight line, their trends differ in meaning.",
        )
    if not balanced and question.group.label and question.sessions.kind == "slope":
        return Judgement(
            "conditional",
            "participants with fewer sessions, or closer ones, have less certain values, and it takes those of a group "
            "as equally certain.",
        )
    return Judgement("yes", "it compares participants' own values, however their sessions co-vary.")


def _judge_equal_variances(
    question: Question, dof: Mapping[str, float], evidence: Evidence, plan: Plan | None
) -> Judgement | None:
    """Say where a test over participants rests on their varying equally, though those who carry it may not."""
    groups = plan.groups if isinstance(plan, SummaryStatisticsPlan | SessionVectorPlan) else ()
    own = dof.get("summary-statistics")
    if groups:
        if own is not None and own < FEW_DOF_OF_GROUPS:
            return Judgement(
                "conditional",
                f"a small group decides; with {own:.1f} degrees of freedom its p values are approximate, above all "
                "small ones.",
            )
        return None
    if plan is None or plan.design_matrix.shape[1] == 1:
        return None
    carried = robust_contrast(
        plan.design_matrix.to_numpy(), [str(label) for label in plan.design_matrix.index], plan.contrast, 0.0
    )
    if not carried.dof >= FEW_DOF:
        return Judgement("conditional", "few participants carry this contrast, and it takes all to vary equally.")
    return _judge_pooled_variance(question, evidence)


def _judge_pooled_variance(question: Question, evidence: Evidence) -> Judgement | None:
    """Say where one variance of all participants may not do: covariates are asked about, or groups vary unequally."""
    if question.group.label:
        return Judgement(
            "conditional",
            "it takes all participants to vary equally, whatever their covariates and how certain their values are.",
        )
    values = evidence.values.get(question.label)
    if values is not None and values.group_spread is not None and values.group_spread >= NOTABLE_SPREAD:
        return Judgement(
            "conditional",
            "it takes groups of participants to vary equally, whose standard deviations differ "
            f"{values.group_spread:.1f}-fold.",
        )
    return None


def _judge_marginal(
    question: Question, layout: MapLayout, dof: Mapping[str, float], evidence: Evidence, plan: Plan | None
) -> Judgement:
    n, balanced = len(layout.unique_participants), _is_balanced(layout)
    own, spread, fewest = dof.get("marginal"), _spread_ratio(evidence), _fewest_in_a_cell(question, layout)
    if n == len(layout.participants) and question.sessions.is_within_participant:
        return Judgement(
            "conditional",
            "no participant has more than one of these sessions, so that it compares different people.",
        )
    if not balanced and spread is not None and spread >= NOTABLE_SPREAD and fewest < MANY_IN_A_CELL:
        return Judgement(
            "conditional",
            "sessions are missing and vary unequally over participants (their standard deviations differ "
            f"{spread:.1f}-fold); with as few as {fewest} participants in a session its errors can then be somewhat "
            "too small.",
        )
    if own is not None and own < FEW_DOF:
        return Judgement("conditional", f"with {own:.1f} degrees of freedom its p values are approximate.")
    if question.sessions.kind == "any" and not balanced and fewest < min(FEW_IN_A_CELL, FEW_OF_ALL * n):
        return Judgement(
            "conditional",
            f"as few as {fewest} participants are in a session, and small p values of its test of any difference are "
            "then somewhat too small.",
        )
    if plan is not None and MAIN_EFFECTS in plan.caution:
        return Judgement(
            "conditional",
            "some groups have no map of some sessions, and it takes the effects of covariates to be the same in all "
            "sessions.",
        )
    if plan is not None and MIXTURE in plan.caution:
        return Judgement("conditional", MIXES)
    if len(set(layout.sessions)) == 1:
        return Judgement("yes", "with one map per participant its errors allow participants to vary unequally.")
    return Judgement(
        "yes",
        "its errors come from how participants vary, not from a model of how sessions co-vary"
        + ("." if balanced else ", and it uses every map there is."),
    )


def _fewest_in_a_cell(question: Question, layout: MapLayout) -> int:
    """Count the participants of the session, and of the group that is asked about, that has the fewest."""
    rows = range(len(layout.participants))
    _, groups = variance_groups(layout, question, GroupOptions(), rows)
    cells = Counter(zip(layout.sessions, groups or ("",) * len(rows), strict=True))
    return min(cells.values())


def _judge_mixed(question: Question, layout: MapLayout, evidence: Evidence) -> Judgement:
    k, spread = len(set(layout.sessions)), _spread_ratio(evidence)
    if k == 2 and question.sessions.time is not None:
        return Judgement("conditional", UNEQUAL_TIMES)
    if k > 1 and not _is_balanced(layout) and spread is not None and spread >= NOTABLE_SPREAD:
        return Judgement(
            "no",
            f"sessions are missing and their standard deviations over participants differ {spread:.1f}-fold, where it "
            "takes them to be equal.",
        )
    pooled = _judge_pooled_variance(question, evidence)
    if k > 2 and question.sessions.is_within_participant:
        equal = f"it takes all pairs of sessions to be equally correlated{_epsilon(evidence)}."
        return Judgement("conditional", f"{equal} Besides, {pooled.reason}" if pooled else equal)
    if k == 1 or pooled is not None:
        return pooled or Judgement("yes", ORDINARY)
    return Judgement(
        "conditional",
        "where it estimates no variance between participants it takes that at its word, with too many degrees of "
        "freedom.",
    )


def _recommend(
    question: Question,
    layout: MapLayout,
    judgements: Mapping[str, Judgement],
    dof: Mapping[str, float],
    evidence: Evidence,
    rates: Rates | None,
) -> tuple[str, ...]:
    """Order the strategies that are valid; the first is the one to report."""
    k = len(set(layout.sessions))
    preference = ["marginal", "summary-statistics"]
    by_level = evidence.dropout is not None and _is_notable(evidence.dropout.level_p)
    # with covariates the tests over participants rest on equal variances, or on a variance of few participants
    # where sessions are missing, summary-statistics leaves participants out, or mixes sessions, and costs power
    few = _is_balanced(layout) and not (layout.covariate_names or layout.session_covariate_names)
    few = few and dof.get("marginal", FEW_DOF) < FEW_DOF
    if few or (by_level and question.sessions.is_within_participant):
        preference.reverse()
    if k == 1 or (k == 2 and question.sessions.is_within_participant):
        preference += ["session-model"]
    chosen = [name for name in preference if name in judgements and judgements[name].valid == "yes"]
    if not chosen:
        chosen = [
            name
            for name in (*preference, "mixed", "session-model", "meta")
            if name in judgements and judgements[name].valid == "conditional"
        ]
        chosen = least_inflated(chosen, rates or {})[:1]
    return tuple(chosen)


def _sentences(
    layout: MapLayout,
    recommended: tuple[str, ...],
    judgements: Mapping[str, Judgement],
    titles: Mapping[str, str],
    evidence: Evidence,
    same: bool,
) -> str:
    k, balanced, n = len(set(layout.sessions)), _is_balanced(layout), len(layout.unique_participants)
    if not recommended and all(one.valid == "declined" for one in judgements.values()):
        reasons: dict[str, list[str]] = {}
        for name, one in judgements.items():
            reasons.setdefault(one.reason, []).append(titles[name])
        return "No strategy that was run can answer this question. " + " ".join(
            f"{_listed(names)}: {reason}" for reason, names in reasons.items()
        )
    if not recommended:
        text = "None of the strategies that were run can be trusted for this question. "
        text += _others(recommended, judgements, titles)
        untried = [name for name in ("marginal", "summary-statistics") if name not in judgements]
        return text + (f" Run {' or '.join(untried)} (--strategy)." if untried else "")
    first, *others = (titles[name] for name in recommended)
    people = (
        f"{n} participants with {'one map each' if k == 1 else f'{k} sessions'}{'' if balanced else ', some missing'}"
    )
    care = ", with care" if judgements[recommended[0]].valid == "conditional" else ""
    text = f"Report {first}{care} ({people}): {judgements[recommended[0]].reason}"
    if others:
        text += f" {_listed(others)} {'gives' if len(others) == 1 else 'give'} " + (
            "the same answer here."
            if same
            else "a valid answer too" + ("." if balanced else ", from the participants who can give one.")
        )
    rest = _others(recommended, judgements, titles)
    return " ".join(filter(None, [text, rest, _unseen_dropout(layout, evidence)]))


def _unseen_dropout(layout: MapLayout, evidence: Evidence) -> str:
    """Say that those who miss sessions may change otherwise, where no sessions of theirs can show it."""
    n, k = len(layout.unique_participants), len(set(layout.sessions))
    missing = sum(len(layout.rows_of(label)) < k for label in layout.unique_participants)
    seen = evidence.dropout is not None and evidence.dropout.change_p is not None and n >= MANY_IN_A_CELL
    if seen or missing < NOTABLE_SHARE_MISSING * n:
        return ""
    return (
        f"Beware: {missing} of {n} participants miss sessions, and these data cannot show whether they would have "
        "changed as the others did; every strategy takes that to be so."
    )


def _is_balanced(layout: MapLayout) -> bool:
    n_sessions = len(set(layout.sessions))
    return all(len(layout.rows_of(label)) == n_sessions for label in layout.unique_participants)


def _give_the_same(results: Sequence[StrategyResult]) -> bool:
    """Whether answers are one: looked at rather than deduced, because covariates, times and weights all part them."""
    found = [one.stat_map for one in results if one.stat_map is not None]
    if not all(np.array_equal(one.mask, found[0].mask) for one in found):
        return False
    return all(np.abs(one.estimate.z - found[0].estimate.z).max() <= SAME_Z for one in found)


def _others(recommended: Sequence[str], judgements: Mapping[str, Judgement], titles: Mapping[str, str]) -> str:
    words = {"yes": "is valid too", "conditional": "with care only", "no": "is not to be trusted"}
    return " ".join(
        f"{titles[name]} {words[one.valid]}: {one.reason}"
        for name, one in judgements.items()
        if name not in recommended and one.valid in words
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _epsilon(evidence: Evidence) -> str:
    if evidence.epsilon is None or evidence.epsilon_expected is None:
        return ""
    return (
        f" (median Greenhouse–Geisser ε {evidence.epsilon:.2f}; sphericity would give {evidence.epsilon_expected:.2f})"
    )


def _spread_ratio(evidence: Evidence) -> float | None:
    if evidence.covariance is None:
        return None
    variances = np.diag(evidence.covariance)
    return float(np.sqrt(variances.max() / variances.min())) if variances.min() > 0 else None


def _dof(stat_map: StatMap[Estimate | FTest]) -> float:
    return float(stat_map.estimate.typical_dof)

"""Which strategies to trust for a question, and which answer to report.

Every strategy judges its own answer (`Strategy.judge`). Here is what holds whoever answers: what the data say about the
participants, what a calibration found, the order in which answers are recommended, and the sentences for a reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sessionfx.group.calibrated import Rates, least_inflated, nominal_rates, with_rates
from sessionfx.group.judgement import Evidence, Judgement, ValueEvidence
from sessionfx.group.participant_evidence import FEWEST
from sessionfx.group.results import Answer, StrategyResult, Verdict, answers_among
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.strategy import Grounds, Strategy
from sessionfx.statistics.linear_algebra import pseudo_inverse
from sessionfx.wording import joined

# Answers whose z differ by no more than this at any voxel are the same but for rounding
SAME_Z = 1e-4
NOTABLE_SHARE_MISSING = 0.1  # of participants
# With fewer participants one cannot see whether those who miss sessions change otherwise
FEWEST_FOR_DROPOUT = 20
# A participant whose covariates are so far from the others' that the model follows the own values: a greater spread of
# theirs cannot be seen in what is left
HIGH_LEVERAGE = 0.4
_CARRIES_NOTHING = 1e-9  # of the largest weight: that of someone in a group that is not asked about

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


def judge(
    question: Question,
    layout: MapLayout,
    results: Sequence[StrategyResult],
    evidence: Evidence,
    options: GroupOptions,
    rates: Rates | None = None,
) -> Verdict:
    """Say which strategies to trust; of those that were run alone some are recommended.

    Rates are what the calibration found of each strategy; see `calibrated.rates_of`.
    """
    grounds = {
        result.name: Grounds(
            question=question, layout=layout, options=options, evidence=evidence, plan=result.plan,
            dof=result.stat_map.estimate.typical_dof,
        )
        for result in answers_among(results)
    }  # fmt: skip
    judgements = {
        result.name: _judge_with_warnings(result.strategy, grounds[result.name])
        if result.name in grounds
        else Judgement("declined", result.refusal)
        for result in results
    }
    facts = _facts(question, layout, evidence, options)
    facts["DegreesOfFreedom"] = {name: own.dof for name, own in grounds.items()}
    if rates:
        judgements = with_rates(judgements, rates)
        facts["CalibratedFalsePositives"] = nominal_rates(rates)
    recommended = _recommend(grounds, judgements, rates or {})
    same = _give_the_same([answer for answer in answers_among(results) if answer.name in recommended])
    text = _sentences(grounds, recommended, judgements, same)
    return Verdict(text, recommended, judgements, facts)


def _facts(question: Question, layout: MapLayout, evidence: Evidence, options: GroupOptions) -> dict[str, Any]:
    """List what of design, options and data a verdict rests on, for its sidecar."""
    dropout = evidence.dropout
    of_options: dict[str, Any] = {}
    for strategy in STRATEGIES.values():
        of_options |= strategy.facts(question, options)
    return {
        "NumberOfParticipants": len(layout.unique_participants),
        "NumberOfSessions": layout.n_sessions,
        "NumberOfMaps": len(layout.participants),
        "Balanced": layout.is_balanced,
        "ParticipantsWithEverySession": evidence.n_complete,
        **of_options,
        "MedianICC1": evidence.icc1,
        "MedianICC31": evidence.icc31,
        "MedianICC31WhereMeanIsBeyondThreshold": evidence.icc31_active,
        "MedianGreenhouseGeisserEpsilon": evidence.epsilon,
        "GreenhouseGeisserEpsilonExpectedUnderSphericity": evidence.epsilon_expected,
        "RatioOfSessionStandardDeviations": evidence.session_spread,
        "ShareOfVoxelsWhereMissingSessionsCorrelateWithTheEffect": evidence.missingness,
        "PValueOfLevelByMissedSessions": dropout.level_p if dropout else None,
        "PValueOfChangeByMissedSessions": dropout.change_p if dropout else None,
        **_facts_of_values(evidence.values.get(question.label)),
    }


def _facts_of_values(values: ValueEvidence | None) -> dict[str, float | str | None]:
    if values is None:
        return {}
    return {
        "SquaredSkewnessOfParticipantValues": values.squared_skewness,
        "PValueOfSkewness": values.skewness_p,
        "SquaredSkewnessOfEstimate": values.squared_skewness * values.carried,
        "ShareOfVoxelsWithAnOutlier": values.outlying,
        "MostOftenOutlying": values.most_outlying and f"sub-{values.most_outlying}",
        "ShareOfVoxelsWhereOutlying": values.most_outlying_share,
        "RatioOfGroupStandardDeviations": values.group_spread,
    }


def _judge_with_warnings(strategy: Strategy, grounds: Grounds) -> Judgement:
    """Put conditions on what is valid but for what the data say of participants."""
    judgement = strategy.judge(grounds)
    warnings = _warnings(strategy, grounds) if judgement.valid in ("yes", "conditional") else []
    if not warnings:
        return judgement
    known = [judgement.reason] if judgement.valid == "conditional" else []
    return Judgement("conditional", " Besides, ".join([*known, *warnings]))


def _warnings(strategy: Strategy, grounds: Grounds) -> list[str]:
    """Say what calls for care, whatever the strategy assumes; clauses with a full stop."""
    found = []
    question, layout, evidence = grounds.question, grounds.layout, grounds.evidence
    n, values = len(layout.unique_participants), evidence.values.get(question.label)
    misses = bool(_who_misses(layout, question))
    if misses and evidence.dropout_by_change:
        found.append(DIFFERENT_CHANGE)
    if (
        misses
        and evidence.dropout_by_level
        and not (question.sessions.is_within_participant and strategy.cancels_levels)
    ):
        found.append(DIFFERENT_LEVEL)
    if values is not None and values.is_skewed:
        found.append(
            f"participants' values are skewed (skewness about {np.sqrt(values.squared_skewness):.1f}), and with "
            f"{n} participants its p values are then too small."
        )
    leverage, participant = _leverage(layout, question)
    if leverage >= HIGH_LEVERAGE and n > 2:
        found.append(
            f"the covariates of sub-{participant} are far from those of the others (leverage {leverage:.2f}), so that "
            "its errors do not show how much this participant varies."
        )
    if n < FEWEST:
        found.append(FEW_PARTICIPANTS)
    return found


def _who_misses(layout: MapLayout, question: Question) -> list[str]:
    """Find who misses sessions on which an answer rests.

    Each session has means of its own, so these are the ones asked about; an effect of session covariates rests on all.
    """
    needed = set(layout.sessions)
    if not layout.session_covariate_names:
        needed &= set(question.sessions.asked_of)
    return [label for label in layout.unique_participants if not needed <= layout.rows_of(label).keys()]


def _leverage(layout: MapLayout, question: Question) -> tuple[float, str]:
    """Find who has the covariates farthest from the others', of those who carry the contrast, with the leverage."""
    participants = layout.unique_participants
    design = layout.between(layout.first_rows(participants)).to_numpy()
    inverse = pseudo_inverse(design)
    weights = np.abs(np.atleast_2d(question.group_weights(design.shape[1])) @ inverse).max(axis=0)
    carries = weights > _CARRIES_NOTHING * weights.max()
    own = np.where(carries, np.einsum("np,pn->n", design, inverse), 0.0)
    return float(own.max()), participants[int(np.argmax(own))]


def _recommend(grounds: Mapping[str, Grounds], judgements: Mapping[str, Judgement], rates: Rates) -> tuple[str, ...]:
    """Order the strategies that are valid; the first is the one to report. Where none is, it may be with care."""
    order = sorted(grounds, key=lambda name: STRATEGIES[name].rank(grounds[name]))
    chosen = [name for name in order if judgements[name].valid == "yes"]
    if not chosen:
        chosen = least_inflated([name for name in order if judgements[name].valid == "conditional"], rates)[:1]
    return tuple(chosen)


def _sentences(
    grounds: Mapping[str, Grounds],
    recommended: tuple[str, ...],
    judgements: Mapping[str, Judgement],
    same: bool,
) -> str:
    if not recommended:
        return _nothing_to_report(judgements)
    first = recommended[0]
    layout = grounds[first].layout
    n, sessions = len(layout.unique_participants), f"{layout.n_sessions} sessions"
    # those who cannot answer are left out of participants' values, such as differences
    n_of = {name: len(grounds[name].plan.participant_names) for name in recommended}
    people = (
        (f"{n_of[first]} of " if n_of[first] < n else "")
        + f"{n} participants with {'one map each' if layout.n_sessions == 1 else sessions}"
        + ("" if layout.is_balanced else ", some missing")
    )
    care = ", with care" if judgements[first].valid == "conditional" else ""
    text = f"Report {_title(first)}{care} ({people}): {judgements[first].reason}"
    others = [_title(name) + (f" (from {n_of[name]} of them)" if n_of[name] < n else "") for name in recommended[1:]]
    if others:
        text += f" {joined(others)} {'gives' if len(others) == 1 else 'give'} "
        text += "the same answer here." if same else "a valid answer too."
    rest = _others(recommended, judgements, said=judgements[first].reason)
    return " ".join(filter(None, [text, rest, _unseen_dropout(grounds[first])]))


def _title(strategy: str) -> str:
    return STRATEGIES[strategy].title


def _nothing_to_report(judgements: Mapping[str, Judgement]) -> str:
    if all(judgement.valid == "declined" for judgement in judgements.values()):
        refusals: dict[str, list[str]] = {}
        for name, judgement in judgements.items():
            refusals.setdefault(judgement.reason, []).append(_title(name))
        return "No strategy that was run can answer this question. " + " ".join(
            f"{joined(names)}: {refusal}" for refusal, names in refusals.items()
        )
    text = "None of the strategies that were run can be trusted for this question. "
    text += _others((), judgements)
    robust = sorted(
        (strategy for strategy in STRATEGIES.values() if strategy.is_robust), key=lambda strategy: strategy.preference
    )
    untried = [strategy.name for strategy in robust if strategy.name not in judgements]
    return text + (f" Run {' or '.join(untried)} (--strategy)." if untried else "")


def _others(recommended: Sequence[str], judgements: Mapping[str, Judgement], said: str = "") -> str:
    """Judge the others; a reason that was `said` of the first choice is not written out again."""
    words = {"yes": "is valid too", "conditional": "with care only", "no": "is not to be trusted"}
    return " ".join(
        f"{_title(name)} {words[judgement.valid]}"
        + (
            ", for the same reason."
            if judgement.reason == said
            else ": " + judgement.reason.replace(f". Besides, {said}", "; and for the same reason.")
        )
        for name, judgement in judgements.items()
        if name not in recommended and judgement.valid in words
    )


def _unseen_dropout(grounds: Grounds) -> str:
    """Say that those who miss sessions may change otherwise, where no sessions of theirs can show it."""
    layout, evidence = grounds.layout, grounds.evidence
    n, missing = len(layout.unique_participants), len(_who_misses(layout, grounds.question))
    which = "sessions"
    if missing < sum(len(layout.rows_of(label)) < layout.n_sessions for label in layout.unique_participants):
        which += " that this asks about"
    seen = evidence.dropout is not None and evidence.dropout.change_p is not None and n >= FEWEST_FOR_DROPOUT
    if seen or missing < NOTABLE_SHARE_MISSING * n:
        return ""
    return (
        f"Beware: {missing} of {n} participants {'misses' if missing == 1 else 'miss'} {which}, and these data cannot "
        "show whether they would have changed as the others did; every strategy takes that to be so."
    )


def _give_the_same(answers: Sequence[Answer]) -> bool:
    """Whether answers agree: looked at rather than deduced, as covariates, times and weights all make them differ."""
    found = [answer.stat_map for answer in answers]
    if not all(np.array_equal(stat_map.mask, found[0].mask) for stat_map in found):
        return False
    return all(np.abs(stat_map.estimate.z - found[0].estimate.z).max() <= SAME_Z for stat_map in found)

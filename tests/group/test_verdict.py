"""Which strategies the verdict trusts, and what it says, on designs and data of every kind."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from array_maps import MapsInMemory, estimate_in_blocks
from array_study import everyone
from map_stacks import gather_evidence, stack_of
from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group import verdict as verdict_module
from sessionfx.group.judgement import Evidence, ValueEvidence
from sessionfx.group.results import Answer, StrategyResult, Verdict
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question
from sessionfx.group.verdict import judge
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap

SHAPE = (6, 5, 5)
N_VOXELS = int(np.prod(SHAPE))
GRID = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
DEFAULT = ("session-model", "summary-statistics", "marginal", "mixed")


class Study:
    """Maps of some participants at some sessions, of correlation `icc` unless given otherwise."""

    def __init__(
        self,
        attendance: NDArray[np.bool_],
        *,
        icc: float = 0.5,
        covariates: NDArray[np.float64] | None = None,
        names: tuple[str, ...] = (),
        days: bool = False,
        level: NDArray[np.float64] | None = None,
        spread: NDArray[np.float64] | None = None,
        seed: int = 1,
    ) -> None:
        rng = np.random.default_rng(seed)
        n, k = attendance.shape
        owners, sessions = np.nonzero(attendance)
        self.labels = [f"{j + 1:02d}" for j in range(k)]
        self.layout = MapLayout(
            tuple(f"{i + 1:02d}" for i in owners),
            tuple(self.labels[j] for j in sessions),
            names or (() if covariates is None else tuple(f"x{q}" for q in range(covariates.shape[1]))),
            np.empty((0, 0)) if covariates is None else covariates[owners],
            ("days",) if days else (),
            (30.0 * sessions + rng.uniform(0, 9, size=len(sessions)))[:, None] if days else np.empty((0, 0)),
        )
        own = np.sqrt(icc) * rng.normal(size=(n, N_VOXELS)) + (0 if level is None else level[:, None])
        self.effects = own[owners] + np.sqrt(1 - icc) * rng.normal(size=(len(owners), N_VOXELS))
        if spread is not None:
            self.effects *= spread[sessions][:, None]
        self.variances = rng.uniform(0.5, 2, size=self.effects.shape)

    @cached_property
    def evidence(self) -> Evidence:
        stack = stack_of(self.layout, self.effects, np.ones(SHAPE, dtype=bool))
        return gather_evidence(stack, self.labels)[0]

    def results(self, question: Question, names: Sequence[str], options: GroupOptions) -> list[StrategyResult]:
        found: list[StrategyResult] = []
        for name in names:
            strategy = STRATEGIES[name]
            try:
                plan = strategy.plan(self.layout, question, options)
                plan, result = estimate_in_blocks(plan, MapsInMemory(self.effects, self.variances))
            except NotEstimableError as refusal:
                found.append(StrategyResult(strategy, str(refusal)))
                continue
            stat_map = StatMap.where_determined(result, np.ones(SHAPE, dtype=bool), GRID)
            found.append(Answer(strategy=strategy, plan=plan, stat_map=stat_map, threshold=3.0))
        return found

    def verdict(
        self,
        text: str,
        names: Sequence[str] = DEFAULT,
        *,
        group: GroupContrast = INTERCEPT,
        evidence: Evidence | None = None,
        **options: str,
    ) -> Verdict:
        question = Question(resolve_session_contrasts([text], self.labels)[0], group)
        chosen = GroupOptions(**options)
        results = self.results(question, names, chosen)
        return judge(question, self.layout, results, evidence or self.evidence, chosen)


def missing(n: int, k: int, *cells: tuple[int, int]) -> NDArray[np.bool_]:
    attendance = everyone(n, k)
    for cell in cells:
        attendance[cell] = False
    return attendance


def validity(verdict: Verdict) -> dict[str, str]:
    return {name: judgement.valid for name, judgement in verdict.strategies.items()}


SOME_MISSING = missing(12, 2, (0, 1), (1, 1), (2, 1), (3, 0))
SOME_OF_THREE = missing(14, 3, (0, 2), (1, 2), (2, 1), (3, 0))


# Rules ------------------------------------------------------------------------------------------------------


def test_mean_is_reported_by_marginal_or_fixed_effects_and_never_pooled() -> None:
    found = Study(everyone(20, 2)).verdict("mean")
    assert found.recommended == ("marginal", "summary-statistics")
    assert validity(found) == {
        "session-model": "no", "summary-statistics": "yes", "marginal": "yes", "mixed": "conditional",
    }  # fmt: skip
    assert found.facts["Balanced"] is True
    assert found.facts["DegreesOfFreedom"]["marginal"] == pytest.approx(19)


def test_mean_may_be_pooled_where_participants_do_not_differ() -> None:
    found = Study(everyone(40, 2), icc=0.0).verdict("mean")
    assert found.strategies["session-model"].valid == "conditional"
    assert f"{found.facts['MedianICC31']:.2f}".replace("-", "−") in found.strategies["session-model"].reason
    assert "session-model" not in found.recommended


@pytest.mark.parametrize(("k", "icc"), [(2, 0.5), (3, 0.8), (5, 0.3)])
def test_inflation_of_the_pooled_mean_is_said_in_numbers(k: int, icc: float) -> None:
    found = Study(everyone(30, k), icc=icc).verdict("mean")
    said = float(re.search(r"about (\d\.\d) times too large", found.strategies["session-model"].reason)[1])
    assert said == pytest.approx(np.sqrt(1 + (k - 1) * found.facts["MedianICC31"]), abs=0.05)


def test_a_small_inflation_of_the_pooled_mean_is_said_in_percent() -> None:
    """It was "1.0 times too large"."""
    study = Study(everyone(12, 2))
    slight = replace(study.evidence, icc31=0.06, icc31_active=None)  # √1.06 = 1.03
    assert "its t is about 3% too large there." in study.verdict("mean", evidence=slight).text


def test_one_session_alone_is_not_inflated_by_pooling() -> None:
    """Its maps are of different people; only the degrees of freedom count the other sessions'."""
    study = Study(everyone(20, 3), icc=0.8)
    found = study.verdict("ses-01")
    assert found.strategies["session-model"].valid == "conditional"
    assert "too large" not in found.strategies["session-model"].reason
    assert "degrees of freedom" in found.strategies["session-model"].reason
    # the mean of two of three sessions counts two of them
    two = study.verdict("0.5*ses-01 + 0.5*ses-02").strategies["session-model"]
    assert f"about {np.sqrt(1 + study.evidence.icc31):.1f} times" in two.reason
    assert study.verdict("2*ses-02 - ses-01").strategies["session-model"].valid == "conditional"


def test_indicators_do_not_serve_a_mean_nor_their_absence_a_difference() -> None:
    study = Study(everyone(20, 2))
    assert study.verdict("mean", subject_effect="indicator").strategies["session-model"].valid == "no"
    for coding in ("none", "linear"):
        found = study.verdict("ses-02 - ses-01", subject_effect=coding)
        assert found.strategies["session-model"].valid == "no"
        assert f"'{coding}'" in found.strategies["session-model"].reason


def test_difference_of_two_sessions_is_the_same_whoever_answers_when_balanced() -> None:
    found = Study(everyone(20, 2)).verdict("ses-02 - ses-01")
    assert found.recommended == ("marginal", "summary-statistics", "session-model")
    assert validity(found) == {
        "session-model": "yes", "summary-statistics": "yes", "marginal": "yes", "mixed": "conditional",
    }  # fmt: skip
    assert "Summary statistics and Session model give the same answer here." in found.text


def test_difference_of_two_sessions_is_marginals_when_some_are_missing() -> None:
    found = Study(SOME_MISSING).verdict("ses-02 - ses-01")
    assert found.recommended[0] == "marginal"
    assert "same answer" not in found.text
    assert (
        f"Summary statistics (from {int(SOME_MISSING.all(axis=1).sum())} of them) and Session model give" in found.text
    )
    assert "12 participants with 2 sessions, some missing" in found.text
    assert "paired t test of the participants who have both" in found.strategies["session-model"].reason


@pytest.mark.parametrize("text", ["ses-02 - ses-01", "linear", "any"])
def test_three_sessions_need_sphericity_of_session_model_and_mixed_only(text: str) -> None:
    study = Study(everyone(20, 3))
    found = study.verdict(text)
    assert found.recommended == ("marginal", "summary-statistics")
    assert found.strategies["session-model"].valid == "conditional"
    assert found.strategies["mixed"].valid == ("declined" if text == "any" else "conditional")
    assert f"ε {study.evidence.epsilon:.2f}" in found.text


@pytest.mark.parametrize(("text", "valid"), [("mean", "conditional"), ("linear", "conditional"), ("any", "yes")])
def test_missing_sessions_make_participants_own_means_and_trends_differ_in_meaning(text: str, valid: str) -> None:
    found = Study(SOME_OF_THREE).verdict(text)
    assert found.strategies["summary-statistics"].valid == valid
    assert found.recommended[0] == "marginal"


def test_slopes_of_participants_with_fewer_sessions_are_less_certain_when_groups_are_compared() -> None:
    """With two sessions the trend is their difference, and those who miss one are left out: all are equally certain."""
    group = GroupContrast("g", "g", (0.0, 2.0))
    codes = np.resize([1.0, -1.0], 14)[:, None]
    measured = Study(SOME_OF_THREE, covariates=codes, days=True, names=("g[a]",)).verdict("linear(days)", group=group)
    assert measured.strategies["summary-statistics"].valid == "conditional"
    assert "equally certain" in measured.strategies["summary-statistics"].reason
    two = Study(SOME_MISSING, covariates=codes[:12], names=("g[a]",)).verdict("linear", group=group)
    assert "equally certain" not in two.strategies["summary-statistics"].reason


def test_few_degrees_of_freedom_put_fixed_effects_first() -> None:
    found = Study(everyone(3, 2)).verdict("ses-02 - ses-01")
    assert found.recommended[0] == "summary-statistics"
    assert found.strategies["marginal"].valid == "conditional"
    assert "with 2 degrees of freedom" in found.strategies["marginal"].reason


@pytest.mark.parametrize("towards", [0, np.inf])
def test_rounding_of_a_whole_number_of_degrees_of_freedom_decides_nothing(towards: float) -> None:
    """Six participants with three sessions have exactly 4: who was recommended hung on the last digit of that."""
    study = Study(everyone(6, 3))
    question = Question(resolve_session_contrasts(["any"], study.labels)[0], INTERCEPT)
    results = study.results(question, ["summary-statistics", "marginal"], GroupOptions())
    dof = results[1].stat_map.estimate.typical_dof
    assert dof == pytest.approx(4, rel=1e-9)
    moved = replace(results[1].stat_map, estimate=replace(results[1].stat_map.estimate, dof=np.nextafter(4.0, towards)))
    found = judge(
        question, study.layout, [results[0], replace(results[1], stat_map=moved)], study.evidence, GroupOptions()
    )
    assert found.recommended[0] == "marginal"
    assert "4 degrees of freedom" not in found.strategies["marginal"].reason


def test_fewer_degrees_of_freedom_yet_do_not_put_fixed_effects_first() -> None:
    """Of six, four have both sessions: with care either way, and marginal has the others too."""
    found = Study(missing(6, 3, (0, 2), (1, 0), (2, 1), (3, 2), (4, 0))).verdict("ses-03 - ses-01")
    dof = found.facts["DegreesOfFreedom"]
    assert dof["summary-statistics"] < dof["marginal"] < 4
    assert found.recommended[0] == "marginal"


@pytest.mark.slow
def test_sessions_that_are_missing_and_vary_unequally_call_for_care_with_few_participants() -> None:
    spread = np.array([1.0, 1.0, 3.0])
    found = Study(SOME_OF_THREE, spread=spread).verdict("linear")
    assert found.strategies["marginal"].valid == "conditional"
    assert "-fold" in found.strategies["marginal"].reason
    assert Study(everyone(14, 3), spread=spread).verdict("linear").strategies["marginal"].valid == "yes"
    many = missing(60, 3, (0, 2), (1, 2), (2, 1))
    assert Study(many, spread=spread).verdict("linear").strategies["marginal"].valid == "yes"


def test_a_session_of_one_participant_is_nothing_marginal_can_answer_about() -> None:
    attendance = everyone(12, 3)
    attendance[1:, 2] = False
    study = Study(attendance)
    found = study.verdict("ses-03 - ses-01")
    assert validity(found) == {
        "session-model": "conditional", "summary-statistics": "declined", "marginal": "declined", "mixed": "conditional",
    }  # fmt: skip
    assert found.text.startswith("Report Mixed model, with care")
    assert study.verdict("ses-02 - ses-01").recommended[0] == "marginal"


def test_different_people_in_each_session_are_said_to_be_that() -> None:
    found = Study(np.repeat(np.eye(2, dtype=bool), 8, axis=0)).verdict("ses-02 - ses-01")
    assert validity(found) == {
        "session-model": "declined", "summary-statistics": "declined", "marginal": "conditional", "mixed": "declined",
    }  # fmt: skip
    assert "different people" in found.text


def test_one_map_each_is_an_ordinary_group_model() -> None:
    found = Study(everyone(12, 1)).verdict("mean")
    assert found.recommended == ("marginal", "summary-statistics", "session-model")
    assert "12 participants with one map each" in found.text
    assert "sessions" not in found.text
    by_label = Study(everyone(12, 1)).verdict("mean", subject_effect="linear")
    assert by_label.strategies["session-model"].valid == "conditional"
    assert "order of the participants' labels" in by_label.text


# What is called the same ------------------------------------------------------------------------------------


def test_the_same_answer_is_one_that_was_looked_at() -> None:
    """Each of these parts marginal from summary-statistics although nobody misses a session."""
    balanced = everyone(16, 3)
    assert "the same answer here" in Study(balanced).verdict("mean").text
    weighted = Study(balanced).verdict("mean", fixed_effects="precision")
    measured = Study(balanced, days=True).verdict("linear(days)")
    age = np.linspace(-1, 1, 16)[:, None]
    related = Study(balanced, covariates=age).verdict("mean", group=GroupContrast("age", "age", (0.0, 1.0)))
    assert related.recommended == ("marginal",)
    assert "takes all participants to vary equally" in related.strategies["summary-statistics"].reason
    for found in (weighted, measured):
        assert found.recommended == ("marginal", "summary-statistics")
        assert "Summary statistics gives a valid answer too." in found.text
    groups = np.repeat([1.0, -1.0], 8)[:, None]
    group = GroupContrast("g", "g", (0.0, 2.0))
    equal = Study(balanced, covariates=groups, names=("g[a]",)).verdict("linear", group=group)
    assert equal.recommended == ("marginal", "summary-statistics")
    assert "Summary statistics gives a valid answer too." in equal.text  # the same t, other degrees of freedom


def test_two_sessions_at_unequal_times_are_no_paired_test() -> None:
    found = Study(everyone(16, 2), days=True).verdict("linear(days)")
    assert found.recommended == ("marginal", "summary-statistics")
    assert "paired" not in found.text
    for name in ("session-model", "mixed"):
        assert "time between their sessions" in found.strategies[name].reason


def test_covariates_make_the_paired_test_a_regression() -> None:
    age = np.linspace(-1, 1, 16)[:, None]
    found = Study(everyone(16, 2), covariates=age).verdict("ses-02 - ses-01")
    assert "regression of the differences" in found.strategies["session-model"].reason


# Where nothing can be recommended ---------------------------------------------------------------------------


def test_only_what_was_run_is_recommended() -> None:
    study = Study(everyone(12, 3))
    assert study.verdict("linear", ["session-model"]).text.startswith("Report Session model, with care (12 part")
    assert study.verdict("linear", ["mixed", "session-model"]).recommended == ("mixed",)
    assert study.verdict("mean", ["summary-statistics"]).recommended == ("summary-statistics",)


def test_a_pooled_mean_alone_is_not_recommended_and_what_to_run_is_said() -> None:
    found = Study(everyone(12, 3), icc=0.8).verdict("mean", ["session-model"])
    assert found.recommended == ()
    assert found.text.startswith("None of the strategies that were run can be trusted for this question. Session")
    assert found.text.endswith("Run marginal or summary-statistics (--strategy).")


def test_where_every_strategy_declines_their_reasons_are_given_once() -> None:
    found = Study(everyone(12, 1)).verdict("linear")
    assert set(validity(found).values()) == {"declined"}
    assert found.recommended == ()
    assert found.text.count("one session only") == 1
    assert "Run marginal" not in found.text  # it was


def dropout_study(**kwargs: object) -> Study:
    attendance = missing(24, 2, *((i, 1) for i in range(10)))
    return Study(attendance, icc=0.5, seed=3, **kwargs)  # type: ignore[arg-type]


def test_dropout_that_goes_with_a_stable_level_gives_differences_to_those_who_compare_each_with_themselves() -> None:
    study = dropout_study(level=np.array([-1.0] * 10 + [0.0] * 14))
    difference = study.verdict("ses-02 - ses-01")
    assert difference.recommended[0] == "summary-statistics"
    assert difference.strategies["summary-statistics"].valid == "yes"
    # those who miss a session have no difference: it was said to be of all
    assert "Report Summary statistics (14 of 24 participants with 2 sessions, some missing)" in difference.text
    assert verdict_module.DIFFERENT_LEVEL in difference.strategies["marginal"].reason
    mean = study.verdict("mean")
    assert {mean.strategies[name].valid for name in ("marginal", "summary-statistics")} == {"conditional"}
    assert verdict_module.DIFFERENT_LEVEL in mean.text
    at_random = dropout_study()
    assert at_random.verdict("ses-02 - ses-01").recommended[0] == "marginal"
    assert verdict_module.DIFFERENT_LEVEL not in at_random.verdict("mean").text


def test_where_dropout_by_change_cannot_be_seen_that_is_said() -> None:
    """Of two sessions those who miss one show no change."""
    unseen = "10 of 24 participants miss sessions, and these data cannot show whether they would have changed"
    assert unseen in dropout_study().verdict("ses-02 - ses-01").text
    assert " 1 of 8 participants misses sessions, and these" in Study(missing(8, 3, (0, 2))).verdict("mean").text
    seen = Study(missing(24, 3, *((i, 2) for i in range(10))), icc=0.5, seed=4)
    assert "cannot show" not in seen.verdict("linear").text
    assert "cannot show" not in Study(missing(24, 2, (0, 1))).verdict("mean").text  # one of 24


def test_a_reason_for_care_that_all_share_is_written_once() -> None:
    found = Study(missing(6, 2)).verdict("ses-02 - ses-01")
    assert {judgement.reason for judgement in found.strategies.values()} >= {verdict_module.FEW_PARTICIPANTS}
    assert found.text.count(verdict_module.FEW_PARTICIPANTS) == 1
    assert "Summary statistics with care only, for the same reason." in found.text
    assert "; and for the same reason." in found.text


def test_dropout_that_goes_with_change_is_warned_of_whoever_answers() -> None:
    study = Study(missing(24, 3, *((i, 2) for i in range(10))), icc=0.5, seed=4)
    rows = [row for row, owner in enumerate(study.layout.participants) if int(owner) <= 10]
    late = [row for row in rows if study.layout.sessions[row] == "02"]
    study.effects[late] += 1.5
    found = study.verdict("linear")
    assert {found.strategies[name].valid for name in ("marginal", "summary-statistics")} == {"conditional"}
    assert verdict_module.DIFFERENT_CHANGE in found.text


@pytest.mark.parametrize("text", ["ses-01", "ses-02 - ses-01"])
def test_who_misses_other_sessions_than_those_asked_about_is_no_matter(text: str) -> None:
    """These answers were called a matter of how people would have changed, though all maps are there."""
    attendance = missing(24, 3, *((i, 2) for i in range(10)))
    study = Study(attendance, icc=0.5, seed=4, level=np.array([-1.5] * 10 + [0.0] * 14))
    rows = [row for row, owner in enumerate(study.layout.participants) if int(owner) <= 10]
    study.effects[[row for row in rows if study.layout.sessions[row] == "02"]] += 1.5
    assert verdict_module.DIFFERENT_CHANGE in study.verdict("ses-03 - ses-01").text
    found = study.verdict(text)
    assert found.strategies["marginal"].valid == found.strategies["summary-statistics"].valid == "yes"
    assert verdict_module.DIFFERENT_CHANGE not in found.text and verdict_module.DIFFERENT_LEVEL not in found.text
    few = Study(missing(12, 3, (0, 2), (1, 2), (2, 1)))
    assert " miss" not in few.verdict("ses-01").text.partition("some missing")[2]
    assert "Beware: 2 of 12 participants miss sessions that this asks about" in few.verdict("ses-03 - ses-01").text


@pytest.mark.parametrize("name", ["session-model", "summary-statistics", "marginal", "mixed"])
@pytest.mark.parametrize("text", ["ses-01", "ses-02 - ses-01"])
def test_maps_of_sessions_that_are_not_asked_about_do_not_move_an_estimate(text: str, name: str) -> None:
    whole, alone = Study(missing(12, 3, *((i, 2) for i in range(4)))), Study(everyone(12, 2))
    kept = [row for row, session in enumerate(whole.layout.sessions) if session in alone.labels]
    alone.effects = whole.effects[kept]
    found = []
    for study in (whole, alone):
        (asked,) = resolve_session_contrasts([text], study.labels)
        (answer,) = study.results(Question(asked), [name], GroupOptions())
        assert answer.stat_map is not None
        found.append(answer.stat_map.estimate.effect)  # type: ignore[union-attr]
    np.testing.assert_allclose(*found, atol=1e-12)


SKEWED = ValueEvidence(
    squared_skewness=4.0, skewness_p=0.01, carried=0.05, outlying=0.05, most_outlying="01", most_outlying_share=0.01
)


@pytest.mark.parametrize(
    ("evidence", "valid"),
    [
        pytest.param(SKEWED, "conditional", id="skewed"),
        pytest.param(replace(SKEWED, skewness_p=0.3), "yes", id="by chance"),
        pytest.param(replace(SKEWED, carried=0.0), "yes", id="groups of equal size"),
        pytest.param(replace(SKEWED, carried=0.002), "yes", id="many participants"),
    ],
)
def test_skewed_values_call_for_care_where_they_reach_the_estimate(evidence: ValueEvidence, valid: str) -> None:
    study = Study(everyone(20, 2))
    found = study.verdict("mean", evidence=replace(study.evidence, values={"mean": evidence}))
    assert found.strategies["marginal"].valid == found.strategies["summary-statistics"].valid == valid
    assert ("skewness about 2.0" in found.text) == (valid == "conditional")


def test_fewer_participants_than_show_whether_their_values_are_skewed_call_for_care() -> None:
    for text in ("mean", "ses-02 - ses-01"):
        assert verdict_module.FEW_PARTICIPANTS in Study(everyone(7, 2)).verdict(text).text
        assert verdict_module.FEW_PARTICIPANTS not in Study(everyone(8, 2)).verdict(text).text


def test_a_test_of_any_difference_with_few_in_a_session_calls_for_care_with_marginal() -> None:
    found = Study(missing(30, 3, *((i, 2) for i in range(24)))).verdict("any")
    assert found.strategies["marginal"].valid == "conditional"
    assert found.recommended[0] == "summary-statistics"
    assert Study(missing(30, 3, *((i, 2) for i in range(20)))).verdict("any").recommended[0] == "marginal"


def test_groups_that_vary_unequally_call_for_care_where_they_are_taken_to_vary_equally() -> None:
    codes = np.array([1.0] * 8 + [-1.0] * 20)[:, None]
    study = Study(everyone(28, 2), covariates=codes, names=("group[patient]",))
    unequal = replace(study.evidence, values={"mean": replace(SKEWED, skewness_p=1.0, group_spread=2.4)})
    assert (
        "2.4-fold" in study.verdict("mean", evidence=unequal, variance="pooled").strategies["summary-statistics"].reason
    )
    assert study.verdict("mean", evidence=unequal).strategies["summary-statistics"].valid == "yes"


def test_two_sessions_are_no_equal_variances_where_groups_are_compared() -> None:
    """3 patients with three times the spread and 20 controls: the pooled test finds something in every third voxel."""
    codes = np.array([1.0] * 8 + [-1.0] * 20)[:, None]
    study = Study(everyone(28, 2), covariates=codes, names=("group[patient]",))
    difference = GroupContrast("group", "patient - control", (0.0, 2.0))
    found = study.verdict("ses-02 - ses-01", group=difference)
    assert found.recommended[0] == "marginal"
    assert found.strategies["session-model"].valid == "conditional"
    assert "vary equally" in found.strategies["session-model"].reason
    assert "vary equally" in study.verdict("mean", group=difference).strategies["mixed"].reason


@pytest.mark.parametrize(("text", "k"), [("ses-02 - ses-01", 2), ("mean", 1)])
def test_a_mean_over_groups_that_a_small_one_carries_is_not_safe_because_groups_seem_to_vary_alike(
    text: str, k: int
) -> None:
    """The intercept counts three patients as much as nine controls; it was reported by one variance for all.

    With standard deviations 1.4 : 1, which count as alike, Student's test of it has about 9 % false positives.
    """
    codes = np.array([1.0] * 3 + [-1.0] * 9)
    rng, design = np.random.default_rng(0), np.column_stack([np.ones(12), codes])
    values = rng.normal(size=(12, 20_000)) * np.where(codes > 0, 1.4, 1.0)[:, None]
    fitted = np.linalg.lstsq(design, values, rcond=None)
    se = np.sqrt(fitted[1] / 10 * np.linalg.inv(design.T @ design)[0, 0])
    assert (2 * stats.t.sf(np.abs(fitted[0][0] / se), 10) < 0.05).mean() > 0.08
    study = Study(everyone(12, k), covariates=codes[:, None], names=("group[patient]",))
    alike = replace(study.evidence, values={text: replace(SKEWED, skewness_p=1.0, group_spread=1.1)})
    found = study.verdict(text, evidence=alike)
    assert (found.recommended[0], found.with_care) == ("marginal", True)
    assert "few participants carry" in found.strategies["session-model"].reason


def test_so_it_is_in_the_mixed_model() -> None:
    study = Study(everyone(12, 2), covariates=np.repeat([1.0, -1.0], [3, 9])[:, None], names=("group[patient]",))
    assert "few participants carry" in study.verdict("mean").strategies["mixed"].reason


def test_where_a_group_has_nobody_with_two_sessions_few_carry_its_change() -> None:
    codes = np.repeat([1.0, -1.0], [5, 9])[:, None]
    attendance = everyone(14, 3)
    attendance[:5] = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1]]
    study = Study(attendance, covariates=codes, names=("group[patient]",))
    assert "few participants carry" in study.verdict("ses-02 - ses-01").strategies["mixed"].reason
    different_people = np.repeat(np.eye(2, dtype=bool), 8, axis=0)
    nobody = Study(different_people, covariates=np.tile([1.0, -1.0], 8)[:, None], names=("group[patient]",))
    assert nobody.verdict("ses-02 - ses-01", subject_effect="none").strategies["session-model"].valid == "no"


def test_a_participant_far_from_the_others_in_a_covariate_calls_for_care() -> None:
    score = np.random.default_rng(5).normal(size=12)
    near = Study(everyone(12, 2), covariates=(score - score.mean())[:, None])
    assert "leverage" not in near.verdict("mean").text
    score[2] += 9.0
    far = Study(everyone(12, 2), covariates=(score - score.mean())[:, None])
    found = far.verdict("mean")
    assert found.strategies["marginal"].valid == "conditional"
    assert "The covariates of sub-03 are far" in found.text or "the covariates of sub-03 are far" in found.text


def test_somebody_in_a_group_that_is_not_asked_about_calls_for_no_care() -> None:
    """The only one of a third group has leverage 1, and no part in the difference of the other two."""
    codes = np.vstack([np.tile([1.0, 0.0], (8, 1)), np.tile([0.0, 1.0], (8, 1)), [[-1.0, -1.0]]])
    study = Study(everyone(17, 2), covariates=codes, names=("group[a]", "group[b]"))
    found = study.verdict("mean", group=GroupContrast("group", "a - b", (0.0, 1.0, -1.0)))
    assert found.strategies["marginal"].valid == "yes"
    assert "sub-17" not in found.text
    # the mean over groups counts this one as much as the eight of each other group
    mean = study.verdict("mean").strategies
    assert "within the last level of 'group' (sub-17) cannot be seen" in mean["summary-statistics"].reason
    assert "few participants carry this contrast" in mean["mixed"].reason


# Language ---------------------------------------------------------------------------------------------------

STUDIES = {
    "balanced": Study(everyone(20, 2)),
    "without reliability": Study(everyone(40, 3), icc=0.0),
    "three sessions": Study(everyone(20, 3)),
    "missing": Study(SOME_MISSING),
    "three, missing": Study(SOME_OF_THREE),
    "unequal": Study(SOME_OF_THREE, spread=np.array([1.0, 1.0, 4.0])),
    "dropout": Study(missing(12, 2, *((i, 1) for i in range(5))), level=np.array([-3.0] * 5 + [0.0] * 7)),
    "different people": Study(np.repeat(np.eye(2, dtype=bool), 8, axis=0)),
    "few": Study(everyone(3, 3)),
    "two": Study(everyone(2, 3)),
    "one": Study(everyone(1, 3)),
    "one session": Study(everyone(12, 1)),
    "days": Study(everyone(12, 2), days=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STUDIES))
def test_texts_are_whole_sentences(name: str) -> None:
    study = STUDIES[name]
    asked = ["mean", "ses-01", "linear", "any"]
    asked += [f"ses-{later} - ses-{earlier}" for earlier, later in itertools.combinations(study.labels, 2)]
    asked += ["linear(days)"] if study.layout.session_covariate_names else []
    sets = [DEFAULT, (*DEFAULT, "meta"), ("session-model",), ("mixed",), ("session-model", "mixed")]
    for text, names, coding in itertools.product(asked, sets, ("auto", "linear")):
        found = study.verdict(text, names, subject_effect=coding)
        assert re.fullmatch(r"[A-Z].*\.", found.text), found.text
        for wrong in ("  ", "..", " .", " ,", "nan", "None)", "inf", "()", "%)%", ": :"):
            assert wrong not in found.text.lower(), found.text
        assert all(judgement.reason.endswith(".") for judgement in found.strategies.values())
        assert set(found.recommended) <= {
            n for n, judgement in found.strategies.items() if judgement.valid in ("yes", "conditional")
        }
        assert set(found.strategies) == set(names)
        # with one judgement of each kind the words of the text are the judgements'
        for strategy, judgement in found.strategies.items():
            if judgement.valid == "no":
                assert f"{STRATEGIES[strategy].title} is not to be trusted: {judgement.reason}" in found.text


@pytest.mark.slow
def test_verdict_can_be_written_as_json() -> None:
    import json

    for study in STUDIES.values():
        facts = study.verdict("mean").facts
        assert json.loads(json.dumps(facts)) == facts

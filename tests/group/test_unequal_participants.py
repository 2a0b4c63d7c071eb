"""Groups and participants that vary unequally: Welch's formulas, R's answers, and rates at the nominal 5 % and 1 ‰."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from array_study import N_VOXELS, Study, everyone, p_of, patients, rate, sessions_without_patients
from sessionfx.errors import NotEstimableError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.group.strategies.marginal import MarginalPlan
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.multivariate import hotelling
from sessionfx.statistics.unequal_variances import grouped_contrast

R_TABLES = Path(__file__).parents[1] / "data" / "unequal_variances"
BOUND = 0.05 + 4 * np.sqrt(0.05 * 0.95 / N_VOXELS)  # four binomial standard errors: 6.0 %
BOUND_1 = 0.001 + 4 * np.sqrt(0.001 * 0.999 / N_VOXELS)  # 2.4 ‰


# Formulas and R ---------------------------------------------------------------------------------------------


def test_two_groups_are_compared_by_welchs_t_test() -> None:
    study = Study(everyone(13, 2), patients(4, 9))
    maps = study.maps(1, participant_sd=np.repeat([3.0, 1.0], [4, 9]), n_voxels=50)
    _, found = study.answer("summary-statistics", study.question("mean", "patient - control"), maps)
    values = maps.reshape(13, 2, 50).mean(axis=1)
    welch = stats.ttest_ind(values[:4], values[4:], equal_var=False)
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.t, welch.statistic, rtol=1e-10)
    np.testing.assert_allclose(found.dof, welch.df, rtol=1e-10)
    np.testing.assert_allclose(p_of(found), welch.pvalue, rtol=1e-8)


def test_pooled_variances_are_students_t_test_as_before() -> None:
    study = Study(everyone(13, 2), patients(4, 9))
    maps = study.maps(2, n_voxels=50)
    _, found = study.answer("summary-statistics", study.question("mean", "patient - control"), maps, variance="pooled")
    values = maps.reshape(13, 2, 50).mean(axis=1)
    student = stats.ttest_ind(values[:4], values[4:])
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.t, student.statistic, rtol=1e-10)
    assert found.dof == 11


@pytest.mark.parametrize(
    ("case", "levels", "weights"),
    [("welch_b_a", "ab", (-1, 1)), ("groups_b_a", "abc", (-1, 1, 0)), ("groups_a_bc", "abc", (1, -0.5, -0.5))],
)
def test_groups_have_the_answers_of_r(case: str, levels: str, weights: tuple[float, ...]) -> None:
    """`t.test`, and clubSandwich on `gls(weights = varIdent(~ 1 | group))` for more groups."""
    people = pd.read_csv(R_TABLES / "participants.tsv", sep="\t")
    people = people[people["group"].isin(list(levels))]
    answers = pd.read_csv(R_TABLES / "answers.tsv", sep="\t").query(f"case == '{case}'")
    design = np.array([[float(own == level) for level in levels] for own in people["group"]])
    prepared = grouped_contrast(design, np.array(weights, dtype=float), people["group"].tolist())
    found = prepared.estimate(people[["v1", "v2", "v3", "v4", "v5"]].to_numpy())
    np.testing.assert_allclose(found.effect, answers["estimate"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(found.variance), answers["se"], rtol=1e-6)
    np.testing.assert_allclose(found.dof, answers["dof"], rtol=1e-5)  # where the search of gls() stops


@pytest.mark.parametrize(("case", "column"), [("maps_groupb", 2), ("maps_age", 4)])
def test_a_working_variance_for_each_group_gives_the_answers_of_clubsandwich(case: str, column: int) -> None:
    maps = pd.read_csv(R_TABLES / "maps.tsv", sep="\t")
    answers = pd.read_csv(R_TABLES / "answers.tsv", sep="\t").query(f"case == '{case}'")
    columns = [maps["session"] == 1, maps["session"] == 2, maps["group"] == "b", maps["group"] == "c", maps["age"]]
    design = np.column_stack([part.to_numpy(dtype=float) for part in columns])
    participants = [str(label) for label in maps["participant"]]
    groups = maps.drop_duplicates("participant")["group"]
    scale = groups.map({"a": 9.0, "b": 1.0, "c": 2.25}).to_numpy()
    prepared = robust_contrast(design, participants, np.eye(5)[column], 0.0, scale)
    values = maps[["v1", "v2", "v3", "v4", "v5"]].to_numpy()
    np.testing.assert_allclose(prepared.weights[0] @ values, answers["estimate"], rtol=1e-9)
    np.testing.assert_allclose(prepared.dof, answers["dof"], rtol=1e-9)
    scores = prepared.scores_of(values)[0]
    np.testing.assert_allclose(np.sqrt((scores**2).sum(axis=0)), answers["se"], rtol=1e-9)


def test_one_group_tests_session_vectors_as_hotelling_does() -> None:
    rng = np.random.default_rng(4)
    values, design = rng.standard_normal((3, 12, 40)), np.ones((12, 1))
    ours = grouped_contrast(design, np.ones(1), ["all"] * 12).test(values)
    theirs = hotelling(values, design, np.ones(1))
    np.testing.assert_allclose(ours.f, theirs.f, rtol=1e-9)
    np.testing.assert_allclose(ours.dof, theirs.dof, rtol=1e-9)


def test_one_session_vector_of_one_value_is_welchs_test() -> None:
    rng = np.random.default_rng(5)
    groups = ["a"] * 5 + ["b"] * 9
    design = np.array([[float(own == label) for label in "ab"] for own in groups])
    prepared = grouped_contrast(design, np.array([1.0, -1.0]), groups)
    values = rng.standard_normal((14, 30))
    f, t = prepared.test(values[None]), prepared.estimate(values)
    np.testing.assert_allclose(f.f, t.t**2, rtol=1e-9)
    np.testing.assert_allclose(f.dof, t.dof, rtol=1e-9)


@pytest.mark.parametrize(
    ("study", "contrast"),
    [(Study(everyone(9, 2), patients(1, 8)), "mean"), (Study(everyone(12, 4), patients(3, 9)), "any")],
    ids=["a group of one", "a group too small for a covariance"],
)
def test_a_small_group_is_refused_and_the_remedy_answers(study: Study, contrast: str) -> None:
    asked = study.question(contrast, "patient - control")
    with pytest.raises(NotEstimableError, match="--variance pooled"):
        STRATEGIES["summary-statistics"].plan(study.layout, asked, GroupOptions())
    assert STRATEGIES["summary-statistics"].plan(study.layout, asked, GroupOptions(variance="pooled")).contrast.any()


def test_groups_of_equal_size_have_one_variance_unless_they_are_asked_about() -> None:
    study = Study(everyone(12, 2), patients(6, 6))
    details = [
        STRATEGIES["summary-statistics"]
        .plan(study.layout, study.question("mean", group), GroupOptions())
        .details["Variance"]
        for group in ("intercept", "patient - control")
    ]
    assert details == ["pooled", "by level of group"]


def test_working_covariances_of_groups_are_found() -> None:
    """Patients vary three times as much, and their sessions are alike; the controls' are not."""
    study = Study(everyone(14, 3), patients(5, 9))
    rng = np.random.default_rng(8)
    own, noise = rng.standard_normal((14, 1, 6000)), rng.standard_normal((14, 3, 6000))
    icc = np.repeat([0.8, 0.2], [5, 9])[:, None, None]
    cube = np.repeat([3.0, 1.0], [5, 9])[:, None, None] * (np.sqrt(icc) * own + np.sqrt(1 - icc) * noise)
    plan, _ = study.answer("marginal", study.question("mean", "patient - control"), cube.reshape(42, 6000))
    assert isinstance(plan, MarginalPlan)
    correlation = list(plan.details["WorkingCorrelationByGroup"].values())
    spread = list(plan.details["RelativeWorkingStandardDeviationByGroup"].values())
    np.testing.assert_allclose(correlation, [0.8, 0.2], atol=0.02)
    np.testing.assert_allclose(spread, [3.0, 1.0], rtol=0.03)


def test_balanced_data_without_covariates_keep_the_exact_degrees_of_freedom_of_the_design() -> None:
    study = Study(everyone(9, 3))
    maps = study.maps(3, n_voxels=20)
    for text in ("mean", "linear", "any"):
        plan, found = study.answer("marginal", study.question(text), maps)
        assert isinstance(plan, MarginalPlan)
        assert plan.prepared is not None
        assert plan.prepared.spread is None
        assert found.dof == pytest.approx(8 if text != "any" else 7, rel=1e-9)


# False positives of the starred answer ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sessions", ["mean", "ses-02 - ses-01"])
@pytest.mark.parametrize(("n", "controls"), [(3, 20), (4, 20), (5, 20), (8, 20), (10, 30)])
def test_few_patients_who_vary_more_than_controls(n: int, controls: int, sessions: str) -> None:
    """With one variance for all, 20 to 35 % of null voxels."""
    study = Study(everyone(n + controls, 2), patients(n, controls))
    maps = study.maps(n, participant_sd=np.repeat([3.0, 1.0], [n, controls]))
    verdict, answers = study.verdict(study.question(sessions, "patient - control"), maps)
    star = verdict.recommended[0]
    assert star == "marginal"
    assert verdict.strategies[star].valid == ("yes" if n > 4 else "conditional")
    assert rate(answers[star]) < BOUND
    assert rate(answers[star], 0.001) < BOUND_1


@pytest.mark.parametrize(("n", "highest"), [(3, 0.080), (5, 0.066), (8, 0.066), (10, 0.066)])
def test_welchs_test_is_near_nominal_where_students_is_not(n: int, highest: float) -> None:
    study = Study(everyone(n + 30, 2), patients(n, 30))
    asked = study.question("mean", "patient - control")
    maps = study.maps(20 + n, participant_sd=np.repeat([3.0, 1.0], [n, 30]))
    assert rate(study.answer("summary-statistics", asked, maps)[1]) < highest
    assert rate(study.answer("summary-statistics", asked, maps, variance="pooled")[1]) > 0.17


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 6])
def test_any_difference_between_sessions_by_group(n: int) -> None:
    """One covariance for all gives 46 and 33 %."""
    study = Study(everyone(n + 20, 3), patients(n, 20))
    maps = study.maps(n, participant_sd=np.repeat([3.0, 1.0], [n, 20]))
    verdict, answers = study.verdict(study.question("any", "patient - control"), maps)
    assert verdict.recommended[0] == "marginal"
    assert rate(answers["marginal"]) < BOUND
    assert rate(answers["marginal"], 0.001) < BOUND_1


def test_participants_who_vary_more_the_older_they_are() -> None:
    age = np.linspace(-1.6, 1.6, 20)
    study = Study(everyone(20, 2), {"age": age.tolist()})
    maps = study.maps(7, participant_sd=np.exp(age / 1.5))
    verdict, answers = study.verdict(study.question("mean", "age"), maps)
    assert verdict.recommended == ("marginal",)
    assert rate(answers["marginal"]) < BOUND
    assert rate(answers["summary-statistics"]) > 0.08


def test_dropout_and_unequal_sessions() -> None:
    """Half of twelve leave: 6.7 % with the degrees of freedom of the design."""
    attendance = everyone(12, 2)
    attendance[:6, 1] = False
    study = Study(attendance)
    asked = study.question("mean")
    plan, found = study.answer("marginal", asked, study.maps(4, session_sd=np.array([1.0, 3.0]), icc=0.0))
    assert isinstance(plan, MarginalPlan)
    assert plan.prepared is not None
    assert isinstance(found, Estimate)
    assert rate(found) < BOUND
    assert rate(Estimate(found.effect, found.variance, plan.prepared.dof)) > rate(found)


def test_what_the_degrees_of_freedom_of_voxels_cost() -> None:
    """Power of a mean with three of ten maps missing, where nothing varies unequally: less than two points."""
    attendance = np.random.default_rng(2).random((12, 3)) >= 0.3
    attendance[:, 0] |= ~attendance.any(axis=1)
    study = Study(attendance)
    maps = study.maps(5)
    plan, null = study.answer("marginal", study.question("mean"), maps)
    assert isinstance(plan, MarginalPlan)
    assert plan.prepared is not None
    _, found = study.answer("marginal", study.question("mean"), maps + 3 * null.effect.std())  # type: ignore[union-attr]
    assert isinstance(found, Estimate)
    with_those_of_the_design = Estimate(found.effect, found.variance, plan.prepared.dof)
    assert rate(with_those_of_the_design) - rate(found) < 0.02
    assert rate(null) > 0.04


# Within and between participants --------------------------------------------------------------------------------


def test_columns_say_which_part_of_a_session_covariate_they_are() -> None:
    rng = np.random.default_rng(3)
    study = Study(
        everyone(9, 3),
        {"sex": ["f", "m", "m"] * 3},
        {"days": np.cumsum(rng.uniform(1, 9, (9, 3)), axis=1), "mood": rng.standard_normal((9, 3))},
        ("days",),
    )
    plan = STRATEGIES["marginal"].plan(study.layout, study.question("linear(days)", "f - m"), GroupOptions())
    assert list(plan.design_matrix.columns) == [
        "intercept", "sex[f]", "days:within", "days:within:sex[f]", "days:between", "mood:within", "mood:between",
    ]  # fmt: skip
    mood = study.layout.session_covariate("mood").reshape(9, 3)
    np.testing.assert_allclose(
        plan.design_matrix["mood:within"].to_numpy().reshape(9, 3), mood - mood.mean(axis=1, keepdims=True), atol=1e-12
    )
    means = np.repeat(mood.mean(axis=1) - mood.mean(), 3)
    np.testing.assert_allclose(plan.design_matrix["mood:between"], means, atol=1e-12)
    mixture = GroupOptions(session_covariate_effect="mixture")
    plan = STRATEGIES["marginal"].plan(study.layout, study.question("linear(days)"), mixture)
    assert "mixes" in " ".join(plan.warnings)
    assert list(plan.design_matrix.columns) == ["intercept", "sex[f]", "days", "days:sex[f]", "mood"]


def test_a_covariate_that_no_participant_changes_in_has_no_part_within() -> None:
    years = np.repeat(np.linspace(0.1, 0.7, 8)[:, None], 3, axis=1)
    study = Study(everyone(8, 3), measured={"years": years})
    plan = STRATEGIES["marginal"].plan(study.layout, study.question("mean"), GroupOptions())
    assert [name for name in plan.design_matrix.columns if "years" in name] == ["years:between"]


def test_slopes_within_participants_do_not_depend_on_when_people_began() -> None:
    rng = np.random.default_rng(6)
    days = np.cumsum(rng.uniform(1, 9, (12, 4)), axis=1)
    early, late = (
        Study(everyone(12, 4), measured={"days": days + begin}, times=("days",))
        for begin in (0.0, rng.uniform(0, 500, (12, 1)))
    )
    maps = early.maps(6, n_voxels=20)
    for name in ("marginal", "summary-statistics", "mixed", "session-model"):
        first, second = (study.answer(name, study.question("linear(days)"), maps)[1] for study in (early, late))
        assert isinstance(first, Estimate)
        assert isinstance(second, Estimate)
        np.testing.assert_allclose(first.effect, second.effect, rtol=1e-6)


# Empty cells ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("group", ["patient - control", "intercept", "patient"])
def test_a_mean_over_sessions_that_a_group_lacks_is_answered_without_products(group: str) -> None:
    """A true change over sessions is told from the groups; the means over the sessions there are mix both."""
    study = Study(sessions_without_patients(), patients(8, 16))
    change = np.array([-1.0, 0.0, 1.0])
    maps = study.maps(3) + change[study.places][:, None]
    verdict, answers = study.verdict(study.question("mean", group), maps)
    plan, _ = study.answer("marginal", study.question("mean", group), maps)
    assert list(plan.design_matrix.columns) == ["ses-01", "ses-02", "ses-03", "group[control]"]
    assert "same effect in all sessions" in " ".join(plan.warnings)
    assert plan.details["CovariateEffects"] == "the same in all sessions"
    assert verdict.recommended == ("marginal",)
    assert verdict.strategies["marginal"].valid == "conditional"
    assert rate(answers["marginal"]) < BOUND
    if group == "patient - control":
        assert rate(answers["summary-statistics"]) > 0.15


def test_designs_with_maps_in_all_cells_keep_their_products() -> None:
    attendance = sessions_without_patients()
    attendance[:2, 2] = True
    study = Study(attendance, patients(8, 16))
    plan = STRATEGIES["marginal"].plan(study.layout, study.question("mean", "patient - control"), GroupOptions())
    assert plan.design_matrix.shape[1] == 6
    assert "CovariateEffects" not in plan.details


def test_changes_of_a_group_that_lacks_a_session_are_declined_still() -> None:
    study = Study(sessions_without_patients(), patients(8, 16))
    with pytest.raises(NotEstimableError):
        STRATEGIES["marginal"].plan(
            study.layout, study.question("ses-03 - ses-01", "patient - control"), GroupOptions()
        )

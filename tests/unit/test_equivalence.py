"""Evidence for no effect: two one-sided tests and Bayes factors, against R, quadrature, and what must hold of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import integrate, special, stats

from array_study import Study, everyone, patients
from calls import GroupCaller, redone, times
from group_study import GroupStudy, group_map, group_path, make_study, read, sidecar_of
from pages import text_of
from sessionfx.cli import parse_options
from sessionfx.errors import NotEstimableError
from sessionfx.group.absence import with_absence
from sessionfx.group.results import Answer
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.options import GroupModel
from sessionfx.options.toml import to_toml
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics import bayes_factor
from sessionfx.statistics.bayes_factor import MEDIUM_SCALE, bayes_factors
from sessionfx.statistics.equivalence import two_one_sided_tests
from sessionfx.statistics.estimates import Estimate

R_TABLES = Path(__file__).parents[1] / "data" / "nothing_to_detect"
RNG_SEED = 11


def log_bf(t: NDArray[np.float64], dof: float, n: float, scale: float) -> NDArray[np.float64]:
    return bayes_factors(t, dof, n, scale).log10 * np.log(10)


def design_of(row: pd.Series) -> tuple[float, float]:
    """Effective n and degrees of freedom of a row of R's table."""
    n1, n2 = row["n1"], row["n2"]
    designs = {"one": (n1, n1 - 1), "two": (n1 * n2 / (n1 + n2), n1 + n2 - 2), "covariate": (n1 / 4, n1 - 2)}
    return designs[row["kind"]]


def drawn(n_voxels: int = 2000, *, dof_varies: bool = True) -> Estimate:
    """Estimates of all sizes, with degrees of freedom of their own."""
    rng = np.random.default_rng(RNG_SEED)
    dof = rng.uniform(1, 40, n_voxels) if dof_varies else 11.0
    return Estimate(rng.normal(0, 0.3, n_voxels), rng.uniform(1e-4, 0.05, n_voxels), dof)


# Two one-sided tests ----------------------------------------------------------------------------------------


def test_equivalence_is_that_of_two_t_tests_in_r() -> None:
    values = pd.read_csv(R_TABLES / "values.tsv", sep="\t")
    reference = pd.read_csv(R_TABLES / "equivalence.tsv", sep="\t")
    voxels = [name for name in values if name != "group"]
    layout = Study(everyone(19, 1), {"group": values["group"].tolist()})
    alone = Study(everyone(12, 1))
    for (case, bound, alpha), rows in reference.groupby(["case", "bound", "alpha"]):
        study = alone if case == "one" else layout
        maps = values.loc[values["group"] == "b", voxels] if case == "one" else values[voxels]
        _, estimate = study.answer(
            "summary-statistics", study.question("mean", "intercept" if case == "one" else "b - a"), maps.to_numpy(),
            variance={"pooled": "pooled", "welch": "groups"}.get(case, "auto"),
        )  # fmt: skip
        assert isinstance(estimate, Estimate)
        found = two_one_sided_tests(estimate, bound, alpha, "none")
        np.testing.assert_allclose(special.ndtr(-found.z), rows["p"], rtol=1e-9)
        within = (rows["lower"] > -bound) & (rows["upper"] < bound)
        assert found.mask.tolist() == within.tolist()
        np.testing.assert_allclose(found.half_width, ((rows["upper"] - rows["lower"]) / 2).median(), rtol=1e-9)
    assert 0 < (reference["p"] < 0.05).mean() < 1


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("dof_varies", [True, False])
def test_uncorrected_decision_is_that_of_the_interval(alpha: float, *, dof_varies: bool) -> None:
    estimate, bound = drawn(dof_varies=dof_varies), 0.25
    half = stats.t.ppf(1 - alpha, estimate.dof) * np.sqrt(estimate.variance)
    within = (estimate.effect - half > -bound) & (estimate.effect + half < bound)
    found = two_one_sided_tests(estimate, bound, alpha, "none")
    assert 0 < within.sum() < within.size
    assert np.array_equal(found.mask, within)


def test_larger_p_of_the_two_tests_counts() -> None:
    estimate, bound = drawn(), 0.25
    error = np.sqrt(estimate.variance)
    p = np.maximum(
        stats.t.sf((estimate.effect + bound) / error, estimate.dof),
        stats.t.cdf((estimate.effect - bound) / error, estimate.dof),
    )
    np.testing.assert_allclose(special.ndtr(-two_one_sided_tests(estimate, bound, 0.05, "fdr").z), p, rtol=1e-9)


def test_many_voxels_are_corrected_for_as_those_of_other_maps_are() -> None:
    estimate, bound = drawn(), 0.25
    counts = {
        kind: two_one_sided_tests(estimate, bound, 0.05, kind).mask.sum() for kind in ("none", "fdr", "bonferroni")
    }
    p = special.ndtr(-two_one_sided_tests(estimate, bound, 0.05, "none").z)
    assert counts == {
        "none": (p <= 0.05).sum(),
        "fdr": (stats.false_discovery_control(p) <= 0.05).sum(),
        "bonferroni": (p <= 0.05 / p.size).sum(),
    }
    assert counts["none"] > counts["fdr"] > counts["bonferroni"] > 0


def test_wider_bound_shows_no_less() -> None:
    narrow, wide = (two_one_sided_tests(drawn(), bound, 0.05, "none") for bound in (0.2, 0.4))
    assert (wide.z >= narrow.z).all()
    assert wide.mask.sum() > narrow.mask.sum() > 0


# Bayes factors ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bayes_factors_are_those_of_r() -> None:
    reference = pd.read_csv(R_TABLES / "bayes_factors.tsv", sep="\t")
    found = np.array([
        log_bf(np.array([row["t"]]), *reversed(design_of(row)), row["scale"])[0] for _, row in reference.iterrows()
    ])  # fmt: skip
    # R's integral of the published formula; BayesFactor's own, which rests on R's noncentral t, about as it says of itself
    np.testing.assert_allclose(found, reference["rouder"], rtol=1e-9, atol=1e-10)
    off = np.abs(found - reference["bayes_factor"])
    assert (off <= 3 * reference["error"] + 5e-6).all()
    assert (off <= 1e-6).mean() > 0.9


def test_published_bayes_factor_of_the_sleep_data() -> None:
    # BayesFactor's manual, section on one-sample tests: 17.259 for Student's sleep data
    difference = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    t = difference.mean() / stats.sem(difference)
    assert 10 ** bayes_factors(np.array([t]), 9, 10).log10[0] == pytest.approx(17.25888, abs=1e-4)


@pytest.mark.parametrize(("dof", "n"), [(2, 3), (9, 10), (22, 6.0), (198, 199)])
@pytest.mark.parametrize("scale", [0.2, MEDIUM_SCALE, 2.0])
def test_interpolation_is_quadrature(dof: float, n: float, scale: float) -> None:
    def factor(t: float) -> float:
        """Rouder et al. (2009), eq. 1, over log g."""

        def integrand(s: float) -> float:
            g = np.exp(s)
            a = 1 + n * g * scale**2
            power = -(dof + 1) / 2 * (np.log1p(t**2 / (a * dof)) - np.log1p(t**2 / dof))
            return float(np.exp(power - 1 / (2 * g) - s / 2) / np.sqrt(2 * np.pi * a))

        pieces = [-8, -2, 0, 2, 5, 10, 20, 80]
        ends = pairwise(pieces)
        return sum(integrate.quad(integrand, *end, epsabs=0, epsrel=1e-11, limit=200)[0] for end in ends)

    t = np.array([0.0, 1e-3, 0.7, 2.0, 3.3, 9.99, 10.0, 10.01, 30.0, 45.0])
    # beside voxels without noise, which must not coarsen the others
    found = log_bf(np.concatenate([t, -t, [1e5]]), dof, n, scale)
    expected = np.log([factor(value) for value in t])
    np.testing.assert_allclose(found[:10], expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(found[:10], found[10:20])


@pytest.mark.parametrize(("dof", "n"), [(4, 5), (19, 20), (58, 15)])
def test_bayes_factor_is_a_ratio_of_densities_of_t(dof: int, n: float) -> None:
    """Under no effect its expectation is 1, and so BF > 3 occurs in at most a third of voxels."""
    u = np.linspace(0, 20, 4001)
    t = np.sinh(u)  # the tails are those of a Cauchy distribution
    log_density = np.log(2) + stats.t.logpdf(t, dof)
    mean = integrate.simpson(np.exp(log_bf(t, dof, n, MEDIUM_SCALE) + log_density) * np.cosh(u), x=u)
    assert mean == pytest.approx(1, abs=1e-6)


def test_bayes_factor_grows_with_t() -> None:
    found = log_bf(np.linspace(0, 100, 20_001), 11, 12, MEDIUM_SCALE)
    assert (np.diff(found) > 0).all()
    assert found[0] < 0
    assert bayes_factors(np.array([3.0]), 11, 12).smallest == pytest.approx(np.exp(found[0]))


def test_bayes_factors_of_a_brain_are_integrated_at_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[int] = []
    integrate_at = bayes_factor.log_bayes_factor

    def counted(x: np.ndarray, *more: float) -> np.ndarray:
        points.append(x.size)
        return integrate_at(x, *more)

    monkeypatch.setattr(bayes_factor, "log_bayes_factor", counted)
    bayes_factors(stats.t.rvs(5, size=235_000, random_state=RNG_SEED), 19, 20)
    assert sum(points) < 500


# Who has a Bayes factor -------------------------------------------------------------------------------------


def effective_n(study: Study, strategy: str, question: Question, **options: str) -> float:
    rng = np.random.default_rng(RNG_SEED)
    plan, _ = study.answer(strategy, question, rng.standard_normal((len(study.owners), 50)), **options)
    return plan.effective_n(question)


def standard_error_n(study: Study, question: Question) -> float:
    """(Standard deviation / standard error)² of one value per participant, residuals' deviation that is."""
    rng = np.random.default_rng(RNG_SEED)
    maps = rng.standard_normal((len(study.owners), 50))
    plan, estimate = study.answer("summary-statistics", question, maps, variance="pooled")
    design = plan.design_matrix.to_numpy()
    values = plan.participant_values(maps, None)  # type: ignore[attr-defined]
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(np.median((residuals**2).sum(axis=0) / estimate.dof / estimate.variance))  # type: ignore[union-attr]


@pytest.mark.parametrize("contrast", ["mean", "02 - 01", "linear"])
def test_one_sample_has_as_many_as_there_are_participants(contrast: str) -> None:
    study = Study(everyone(9, 3))
    question = study.question(contrast.replace("0", "ses-0"))
    assert effective_n(study, "summary-statistics", question) == pytest.approx(9)
    assert effective_n(study, "marginal", question) == pytest.approx(9)


def test_groups_have_that_of_two_samples() -> None:
    study = Study(everyone(13, 2), patients(4, 9))
    question = study.question("mean", "patient - control")
    assert effective_n(study, "summary-statistics", question, variance="pooled") == pytest.approx(4 * 9 / 13)
    assert standard_error_n(study, question) == pytest.approx(4 * 9 / 13)
    with pytest.raises(NotEstimableError, match="--variance pooled"):
        effective_n(study, "summary-statistics", question)


def test_numeric_covariate_does_not_depend_on_its_unit() -> None:
    years = np.random.default_rng(RNG_SEED).uniform(20, 60, 15)
    found = []
    for ages in (years, 12 * years):
        study = Study(everyone(15, 2), {"age": ages.tolist()})
        question = study.question("mean", "age")
        assert standard_error_n(study, question) == pytest.approx(15 * ages.var())
        found.append(effective_n(study, "summary-statistics", question))
    np.testing.assert_allclose(found, 15 / 4)


def test_strategies_without_an_exact_bayes_factor_decline() -> None:
    attendance = everyone(9, 3)
    attendance[0, 2] = attendance[3, 1] = False
    incomplete, aged = Study(attendance), Study(everyone(9, 3), {"age": [float(age) for age in range(9)]})
    for study, name in [(incomplete, "marginal"), (aged, "marginal"), (incomplete, "mixed"), (aged, "session-model")]:
        with pytest.raises(NotEstimableError, match="summary-statistics has it"):
            effective_n(study, name, study.question("mean"))


def test_marginal_has_the_bayes_factor_of_fixed_effects_where_it_is_the_same_test() -> None:
    study = Study(everyone(8, 3))
    maps = np.random.default_rng(RNG_SEED).standard_normal((24, 50))
    question = study.question("ses-03 - ses-01")
    by_strategy = {}
    for name in ("marginal", "summary-statistics"):
        plan, estimate = study.answer(name, question, maps)
        assert isinstance(estimate, Estimate)
        assert isinstance(estimate.dof, float)
        by_strategy[name] = log_bf(estimate.t, estimate.dof, plan.effective_n(question), 1.0)
    np.testing.assert_allclose(by_strategy["marginal"], by_strategy["summary-statistics"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", range(4, 24))
def test_a_voxel_has_the_bayes_factor_of_those_who_have_it(n: int) -> None:
    """Of 9, 10 and most other numbers there was none: 1 / (n (1/n)²) is not n to the last digit."""
    study = Study(everyone(n, 1))
    question, scale = study.question("mean"), 0.5
    maps = np.random.default_rng(RNG_SEED).standard_normal((n, 6)) + 0.4
    maps[0, 2:] = maps[1, 4:] = np.nan
    strategy = STRATEGIES["summary-statistics"]
    plan = strategy.plan(study.layout, question, GroupOptions())
    estimate = PatternPlan(plan, strategy, study.layout, question, GroupOptions()).estimate_beside(maps, None, {})
    mask = np.ones((6, 1, 1), dtype=bool)
    stat_map = StatMap.where_determined(estimate, mask, Grid(mask.shape, np.eye(4)))
    answer = Answer(strategy=strategy, plan=plan, stat_map=stat_map, threshold=3.0)
    found = with_absence(answer, question, GroupModel(bayes_factor=scale))
    assert isinstance(found, Answer)
    assert not found.absence_refusal
    assert found.bayes_factors is not None

    def density(delta: float, t: float, size: int) -> float:
        return stats.nct.pdf(t, size - 1, delta * np.sqrt(size)) * stats.cauchy.pdf(delta, scale=scale)

    for voxel, values in enumerate(maps.T):
        own = values[np.isfinite(values)]
        t = stats.ttest_1samp(own, 0).statistic
        centre = t / np.sqrt(len(own))
        marginal = sum(
            integrate.quad(density, *ends, args=(t, len(own)), limit=200)[0]
            for ends in pairwise((-20, centre - 2, centre, centre + 2, 20))
        )
        expected = np.log10(marginal / stats.t.pdf(t, len(own) - 1))
        assert found.bayes_factors.log10[voxel] == pytest.approx(expected, abs=2e-4)


# The program ------------------------------------------------------------------------------------------------

ASKED = ("--equivalence", "0.9", "--bayes-factor", "--session-contrast=mean", "--session-contrast=any",
         "--strategy", "summary-statistics", "marginal", "session-model")  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_participants=12)


@pytest.mark.slow
def test_program_writes_maps_mask_sidecars_table_and_page(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    out = call.done(study, tmp_path / "out", *ASKED, report=True)
    effect, variance, dof, z = (group_map(out, "marginal", kind) for kind in ("effect", "variance", "dof", "z"))
    tests = two_one_sided_tests(Estimate(effect, variance, dof), 0.9, 0.05, "fdr")
    found = group_map(out, "marginal", "z", desc="equivalence")
    np.testing.assert_allclose(found, tests.z, rtol=1e-6)
    path = group_path(out, "marginal", "z", desc="equivalence")
    mask_path = path.with_name(path.name.replace("_stat-z", "").replace("_statmap", "_mask"))
    assert np.array_equal(read(mask_path).ravel() == 1, tests.mask)
    assert 0 < tests.mask.sum() < tests.mask.size
    sidecar = sidecar_of(path)
    assert sidecar["EquivalenceBound"] == 0.9
    assert sidecar["EquivalenceBoundUnits"] == "percent signal change"
    assert sidecar["Threshold"] == pytest.approx(tests.threshold)

    t = group_map(out, "summaryStatistics", "t")
    found = group_map(out, "summaryStatistics", "log10BF10")
    np.testing.assert_allclose(found, bayes_factors(t, 11, 12).log10, rtol=1e-4, atol=1e-5)
    path = group_path(out, "summaryStatistics", "log10BF10")
    sidecar = sidecar_of(path)
    assert (sidecar["PriorScale"], sidecar["EffectiveSampleSize"], sidecar["DegreesOfFreedom"]) == (
        pytest.approx(MEDIUM_SCALE), pytest.approx(12), 11.0,
    )  # fmt: skip
    # with sessions missing, marginal is another test than that of one value per participant
    assert not group_path(out, "marginal", "log10BF10").exists()

    metrics = pd.read_csv(
        next(out.glob("group/*sessions-mean_desc-answers_metrics.tsv")), sep="\t", index_col="strategy"
    )
    assert metrics.loc["marginal", "n_equivalent"] == tests.mask.sum()
    assert (
        metrics.loc["marginal", "n_equivalent_and_above"]
        == (tests.mask & (np.abs(z) >= metrics.loc["marginal", "threshold"] - 1e-6)).sum()
    )
    assert metrics.loc["summary-statistics", "n_bf10_above_3"] == (found > np.log10(3)).sum()
    assert metrics.loc["summary-statistics", "n_bf10_below_third"] == (found < -np.log10(3)).sum()
    assert "summary-statistics has it" in metrics.loc["marginal", "absence_reason"]

    page = " ".join(text_of(out / "group.html").split())
    assert "lies within ±0.9 percent signal change (false discovery rate 0.05)" in page
    assert "Session model, Marginal model: The Bayes factor is that of a t test on one value per participant" in page
    assert "no equivalence test and no Bayes factor here" in page  # of `any`
    for author in ("Schuirmann", "Lakens", "Rouder"):
        assert f"{author} " in page
    assert not list(out.glob("group/*sessions-any*equivalence*"))


@pytest.mark.slow
def test_another_bound_answers_anew_and_the_same_resumes(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--session-contrast=mean", "--strategy", "summary-statistics")
    call.done(study, out, *options, "--equivalence", "0.9")
    first = times(out)
    assert [name for name in first if "equivalence" in name]
    call.done(study, out, *options, "--equivalence", "0.9")
    assert not redone(first, times(out))
    call.done(study, out, *options, "--equivalence", "0.8")
    assert redone(first, times(out)) >= {name for name in first if "equivalence" in name}
    # files of what is no longer asked for do not stay beside the answer
    call.done(study, out, *options)
    assert not list(out.glob("group/*equivalence*"))


@pytest.mark.slow
def test_nothing_of_it_is_said_where_it_is_not_asked_for(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    out = call.done(study, tmp_path / "out", "--session-contrast=mean", "--strategy", "summary-statistics", report=True)
    page = text_of(out / "group.html")
    assert "equivalen" not in page
    assert "Bayes factor" not in page
    assert not list(out.glob("group/*equivalence*")) + list(out.glob("group/*BF10*"))


@pytest.mark.slow
def test_covariate_says_in_which_units_the_bound_is(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    out = call.done(
        study, tmp_path / "out", "--covariates", "age", "--group-contrast", "age", "--session-contrast=mean",
        "--strategy", "summary-statistics", "--equivalence", "0.05", "--bayes-factor", "1",
    )  # fmt: skip
    for statistic, desc in (("z", "equivalence"), ("log10BF10", None)):
        path = group_path(out, "summaryStatistics", statistic, covariate="age", desc=desc)
        sidecar = sidecar_of(path)
        if desc:
            assert sidecar["EquivalenceBoundUnits"] == "percent signal change per unit of 'age'"
        else:
            assert sidecar["EffectiveSampleSize"] == pytest.approx(12 / 4)
            assert "two standard deviations of the covariate" in str(sidecar["Prior"])


def test_dry_run_says_what_is_asked_for(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    called = call(study, tmp_path / "out", "--dry-run", "--equivalence", "0.1", "--bayes-factor")
    assert called.code == 0, called.error
    assert "equivalence to zero: within ±0.1 percent signal change" in called.output
    assert "Bayes factors: Cauchy prior of scale 0.7071" in called.output


@pytest.mark.parametrize("option", [("--equivalence", "0"), ("--equivalence", "-0.1"), ("--bayes-factor", "0"),
                                    ("--bayes-factor", "wide"), ("--equivalence", "nan")])  # fmt: skip
def test_bounds_and_scales_that_are_none_are_refused(
    study: GroupStudy, call: GroupCaller, tmp_path: Path, option: tuple[str, str]
) -> None:
    call(study, tmp_path / "out", *option).refused(2, option[0], option[1])


@pytest.mark.parametrize(("entry", "scale"), [("true", np.sqrt(0.5)), ("1.5", 1.5)])
def test_configuration_file_asks_for_bayes_factors(entry: str, scale: float, tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text(f"bayes-factor = {entry}\nequivalence = 0.2\n", encoding="utf-8")
    options = parse_options([str(tmp_path), str(tmp_path / "out"), "group", "--config-file", str(config)])
    assert (options.group.bayes_factor, options.group.equivalence) == (pytest.approx(scale), 0.2)
    config.write_text(to_toml(options), encoding="utf-8")
    assert parse_options([str(tmp_path), str(tmp_path / "out"), "group", "--config-file", str(config)]) == options


# Simulated studies ------------------------------------------------------------------------------------------

N_SIMULATED = 20_000


def dropout(n: int, k: int) -> NDArray[np.bool_]:
    """Half the participants miss the last session, one in four the last but one as well."""
    attendance = everyone(n, k)
    attendance[::2, -1] = False
    attendance[::4, -2] = False
    return attendance


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 40])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("contrast", ["mean", "ses-02 - ses-01"])
@pytest.mark.parametrize("strategy", ["marginal", "summary-statistics"])
def test_effect_at_the_bound_is_called_equivalent_in_five_percent_at_most(
    n: int, contrast: str, strategy: str, *, missing: bool
) -> None:
    study = Study(dropout(n, 3) if missing else everyone(n, 3))
    question = study.question(contrast)
    maps = study.maps(RNG_SEED + n, n_voxels=N_SIMULATED)
    # the true effect: the bound itself, in all sessions or in the second
    bound = 1.5
    shown = np.ones(3) if contrast == "mean" else np.array([0.0, 1.0, 0.0])
    _, estimate = study.answer(strategy, question, maps + bound * shown[study.places][:, None])
    assert isinstance(estimate, Estimate)
    rate = two_one_sided_tests(estimate, bound, 0.05, "none").mask.mean()
    # three binomial standard errors are 0.5 %
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / N_SIMULATED)
    assert rate >= 0.03  # and the bound is wide enough for the test to have its size
    _, without = study.answer(strategy, question, maps)
    assert isinstance(without, Estimate)
    assert two_one_sided_tests(without, bound, 0.05, "none").mask.mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("n_patients", "n_controls", "ratio"), [(3, 20, 3), (8, 30, 3), (5, 20, 1)])
@pytest.mark.parametrize(("strategy", "size"), [("marginal", 0.05), ("summary-statistics", 0.055)])
def test_groups_that_differ_by_the_bound_are_called_equivalent_no_more_often(
    strategy: str, size: float, n_patients: int, n_controls: int, ratio: float
) -> None:
    """Where each group has a variance of its own the degrees of freedom are estimates: up to 5.4 % with 3 patients."""
    study = Study(everyone(n_patients + n_controls, 2), patients(n_patients, n_controls))
    spread = np.repeat([ratio, 1.0], [n_patients, n_controls])
    question, bound = study.question("mean", "patient - control"), 6.0
    maps = study.maps(RNG_SEED, participant_sd=spread, n_voxels=N_SIMULATED)
    maps += bound * (study.owners < n_patients)[:, None]
    _, estimate = study.answer(strategy, question, maps)
    assert isinstance(estimate, Estimate)
    rate = two_one_sided_tests(estimate, bound, 0.05, "none").mask.mean()
    assert 0.035 <= rate <= size + 3 * np.sqrt(size * (1 - size) / N_SIMULATED)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 20, 40])
def test_bayes_factors_keep_their_word(n: int) -> None:
    """Without an effect BF > 3 is rare; and of voxels with and without one, as many have one as the factors say."""
    study = Study(everyone(n, 2))
    question = study.question("ses-02 - ses-01")
    noise = study.maps(RNG_SEED + n, n_voxels=N_SIMULATED)
    rng = np.random.default_rng(RNG_SEED)
    # standard deviation of the difference: 1, with an intraclass correlation of .5
    size = MEDIUM_SCALE * rng.standard_cauchy(N_SIMULATED)
    logs = []
    for effect in (np.zeros(N_SIMULATED), size):
        plan, estimate = study.answer("summary-statistics", question, noise + effect * (study.places == 1)[:, None])
        assert isinstance(estimate, Estimate)
        assert isinstance(estimate.dof, float)
        logs.append(log_bf(estimate.t, estimate.dof, plan.effective_n(question), MEDIUM_SCALE))
    # the t at which the factor is 3 gives the rate exactly
    grid = np.linspace(0, 20, 200_001)
    critical = grid[np.searchsorted(log_bf(grid, n - 1, n, MEDIUM_SCALE), np.log(3))]
    expected = 2 * stats.t.sf(critical, n - 1)
    rate = (logs[0] > np.log(3)).mean()
    assert rate == pytest.approx(expected, abs=3 * np.sqrt(expected / N_SIMULATED))
    assert rate < 0.03
    # with even odds the probability of an effect is BF / (1 + BF)
    both = np.concatenate(logs)
    has_effect = np.repeat([0.0, 1.0], N_SIMULATED)
    claimed = special.expit(both)
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1)):
        band = (claimed >= low) & (claimed < high)
        error = np.sqrt((claimed[band] * (1 - claimed[band])).sum()) / band.sum()
        assert has_effect[band].mean() == pytest.approx(claimed[band].mean(), abs=4 * error)

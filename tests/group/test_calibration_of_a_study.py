"""Calibration from a study's own maps: rates beside those of studies of known truth, and what the verdict makes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from array_study import Study, everyone, patients, rate
from group_study import empty_study, group_path, strict_json
from map_stacks import stack_of
from sessionfx.cli import main
from sessionfx.group.answers import finding
from sessionfx.group.calibrated import least_inflated, rates_of, with_rates
from sessionfx.group.calibration import calibrate_study
from sessionfx.group.findings import RESAMPLED_VOXELS
from sessionfx.group.judgement import Judgement
from sessionfx.group.residuals import StudyNoise
from sessionfx.group.results import QuestionResults, Verdict
from sessionfx.group.section import _trust
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions

N_VOXELS = 10_000
# The true rates are from 2 × 8,000 voxels, the calibrated ones from 10,000, at best: four standard errors of 0.28 points
CHANCE = 4 * np.sqrt(0.05 * 0.95 * (1 / 16_000 + 1 / N_VOXELS))

Maps = Callable[[int], NDArray[np.float64]]


def skewed(study: Study, share: float = 1.0, *, either: bool = True) -> Maps:
    """Lognormal levels of participants, in a share of the voxels, of either sign; normal ones elsewhere."""

    def draw(seed: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        n, k = study.attendance.shape
        level = (np.exp(rng.standard_normal((n, 1, 8000))) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
        level = np.where(rng.random(8000) < share, level, rng.standard_normal(level.shape))
        level *= rng.choice([-1, 1], 8000) if either else 1
        cube = level + 0.5 * rng.standard_normal((n, k, 8000))
        return np.ascontiguousarray(cube[study.owners, study.places])

    return draw


def few_have(n: int, few: int, k: int = 3) -> NDArray[np.bool_]:
    attendance = everyone(n, k)
    attendance[few:, -1] = False
    return attendance


@dataclass
class Case:
    """A study of known truth, what is asked of it, and who answers."""

    study: Study
    maps: Maps
    sessions: str = "mean"
    group: str = "intercept"
    strategies: tuple[str, ...] = ("summary-statistics", "marginal")
    options: dict[str, str] = field(default_factory=dict)

    @property
    def question(self) -> Any:
        return self.study.question(self.sessions, self.group)

    def true_rates(self, alpha: float = 0.05) -> dict[str, float]:
        """Of two other studies of the same truth."""
        maps = [self.maps(seed) for seed in (1001, 1002)]
        answers = {name: [self.study.answer(name, self.question, values, **self.options)[1] for values in maps]
                   for name in self.strategies}  # fmt: skip
        return {name: float(np.mean([rate(found, alpha) for found in both])) for name, both in answers.items()}

    def table(self, seed: int = 5, n_voxels: int = N_VOXELS) -> pd.DataFrame:
        chosen = {name: STRATEGIES[name] for name in self.strategies}
        table = calibrate_study(
            self.study.layout, [self.question], chosen, GroupOptions(**self.options),
            self.maps(seed)[:, :RESAMPLED_VOXELS], n_voxels=n_voxels, seed=seed,
        )  # fmt: skip
        return table.set_index("strategy")


def two_groups(n: int, controls: int, sessions: str) -> Case:
    study = Study(everyone(n + controls, 2), patients(n, controls))
    spread = np.repeat([3.0, 1.0], [n, controls])
    pooled = {"variance": "pooled"}  # the test that was starred, beside the one that is
    return Case(
        study, lambda seed: study.maps(seed, participant_sd=spread), sessions, "patient - control", options=pooled
    )


def leverage() -> Case:
    """The oldest of 20, far from the others, varies four times as much."""
    study = Study(everyone(20, 2), {"age": [*np.linspace(20, 40, 19).tolist(), 80.0]})
    return Case(study, lambda seed: study.maps(seed, participant_sd=np.r_[np.ones(19), 4.0]), "mean", "age")


def cohorts(effect: str) -> Case:
    """Nobody changes; levels go with age, half a standard deviation per standard deviation of age."""
    ages = np.random.default_rng(1).uniform(30, 70, (20, 1)) + np.arange(3.0)
    study = Study(everyone(20, 3), None, {"age": ages}, ("age",))
    level = 0.5 * (ages[:, 0] - ages[:, 0].mean()) / ages[:, 0].std()
    options = {"session_covariate_effect": effect}
    return Case(study, lambda seed: study.maps(seed, level=level), "linear(age)", options=options)


def dropout(sessions: str, *strategies: str) -> Case:
    """Six of sixty have the third session, which varies four times as much as the others."""
    study = Study(few_have(60, 6))
    return Case(
        study, lambda seed: study.maps(seed, session_sd=np.array([1.0, 1.0, 4.0])), sessions, "intercept", strategies
    )


def true_change() -> Case:
    """Half of the participants leave before a rise of one standard deviation: their means are not those of the others."""
    attendance = everyone(20, 3)
    attendance[:10, 1:] = False
    study = Study(attendance)
    rise = np.array([0.0, 1.0, 1.0])
    rise = rise - rise.mean()  # a mean of zero over sessions: nothing is to be found
    return Case(study, lambda seed: study.maps(seed) + rise[study.places, None])


def equal(n: int, k: int, sessions: str) -> Case:
    study = Study(everyone(n, k))
    return Case(study, study.maps, sessions)


def is_near(calibrated: float, true: float) -> bool:
    """Within chance and 0.6 points, or a third of the excess."""
    return abs(calibrated - true) <= max(CHANCE + 0.006, abs(true - 0.05) / 3)


# Rates beside the truth --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k", "sessions"), [(6, 2, "mean"), (12, 3, "ses-03 - ses-01"), (12, 3, "any")])
def test_equal_normal_participants_give_the_nominal_rate(n: int, k: int, sessions: str) -> None:
    """As it did with one normal covariance for all."""
    table = equal(n, k, sessions).table()
    assert table["rate_0.05"].to_numpy() == pytest.approx([0.05, 0.05], abs=4 * np.sqrt(0.05 * 0.95 / N_VOXELS))
    assert (table["rate_0.001"] < 0.001 + 4 * np.sqrt(0.001 / N_VOXELS)).all()


# A study, and what some strategy finds in it in truth at least
UNEQUAL = {
    **{f"{n} patients, {sessions}": (two_groups(n, controls, sessions), at_least if sessions == "mean" else 0.0)
       for n, controls, at_least in ((3, 20, 0.30), (5, 20, 0.23), (8, 30, 0.0)) for sessions in ("mean", "ses-02 - ses-01")},
    **{f"dropout, {sessions}": (dropout(sessions, "marginal", "mixed", "session-model"), 0.40 if sessions == "mean" else 0.0)
       for sessions in ("mean", "ses-03 - ses-01", "linear")},
    "leverage": (leverage(), 0.40), "cohorts": (cohorts("mixture"), 0.0), "true change": (true_change(), 0.10),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("case", "at_least"), UNEQUAL.values(), ids=UNEQUAL)
def test_rates_are_near_those_of_the_truth(case: Case, at_least: float) -> None:
    """With one normal covariance for all: 5 % each, but for mixed where sessions vary unequally."""
    true, table = case.true_rates(), case.table()
    assert max(true.values()) > at_least
    for name, own in true.items():
        assert is_near(table["rate_0.05"][name], own), (name, own)


@pytest.mark.slow
def test_a_cohort_slope_shows_in_the_mixture_alone() -> None:
    found = {effect: cohorts(effect).table()["rate_0.05"]["marginal"] for effect in ("mixture", "split")}
    assert found["mixture"] > 0.5
    assert found["split"] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / N_VOXELS))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "share"), [(12, 1.0), (20, 1.0), (20, 0.5)])
def test_skewness_is_seen_for_the_most_part(n: int, share: float) -> None:
    """Truth 10.6, 10.3 and 7.6 %; one normal covariance gives 5 %. Residuals of few participants lose a part of it."""
    study = Study(everyone(n, 2))
    case = Case(study, skewed(study, share), strategies=("marginal",))
    (true,), table = case.true_rates().values(), case.table(n_voxels=20_000)
    found = float(table["rate_0.05"].iloc[0])
    assert 0.5 * (true - 0.05) < found - 0.05 < true - 0.05 + CHANCE
    assert table["rate_0.05_lower"].iloc[0] > 0.058


@pytest.mark.slow
def test_skewness_of_levels_does_not_touch_differences() -> None:
    study = Study(everyone(12, 2))
    case = Case(study, skewed(study, either=False), "ses-02 - ses-01", strategies=("marginal",))
    assert case.table()["rate_0.05"].iloc[0] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / N_VOXELS))


@pytest.mark.slow
def test_voxels_may_vary_unequally_and_have_effects() -> None:
    """Standard deviations of voxels over a range of 1 to 20 and large effects leave a valid test at its rate."""
    study = Study(everyone(12, 3))

    def draw(seed: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        effects = rng.normal(0, 3, (3, 8000)) * (rng.random(8000) < 0.3)
        return (study.maps(seed) + effects[study.places]) * np.exp(0.8 * rng.standard_normal(8000))

    for sessions in ("mean", "any"):
        rates = Case(study, draw, sessions).table()["rate_0.05"]
        assert rates.to_numpy() == pytest.approx([0.05, 0.05], abs=4 * np.sqrt(0.05 * 0.95 / N_VOXELS))


@pytest.mark.slow
def test_the_effect_that_power_is_found_for_does_not_depend_on_who_is_listed_first() -> None:
    study = Study(everyone(12, 3))
    maps = study.maps(1, participant_sd=np.repeat([3.0, 1.0], [6, 6]))
    turned = maps.reshape(12, 3, -1)[::-1].reshape(maps.shape)
    for sessions in ("mean", "any"):
        first, second = (
            Case(study, lambda _, drawn=drawn: drawn, sessions, strategies=("marginal",)).table(n_voxels=10)["effect"]  # type: ignore[misc]
            for drawn in (maps, turned)
        )
        assert first.item() == pytest.approx(second.item(), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(6, 2), (12, 3)])
def test_smooth_maps_leave_little_doubt_of_a_valid_test(n: int, k: int) -> None:
    """Spread per participant is an estimate from few independent places: over 15 studies the rate was 4.9 ± 0.2 %."""
    study = Study(everyone(n, k))
    question = study.question("mean")
    strategies = {"marginal": STRATEGIES["marginal"]}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        volumes = gaussian_filter(rng.standard_normal((n, k + 1, 24, 24, 16)), (0, 0, 2.5, 2.5, 2.5), mode="wrap")
        maps = (volumes[:, :1] + volumes[:, 1:]).reshape(n * k, -1)
        noise = StudyNoise(study.layout, maps)
        assert abs(noise.in_direction(question)[1]) < 0.1
        table = calibrate_study(
            study.layout, [question], strategies, GroupOptions(), maps, n_voxels=N_VOXELS, seed=seed
        )
        assert table["rate_0.05"].iloc[0] == pytest.approx(0.05, abs=0.01)
        assert with_rates({"marginal": Judgement("yes", "")}, rates_of(table, "mean"))["marginal"].valid == "yes"


# What is drawn -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_participant_keeps_spread_and_covariance() -> None:
    """Unbiased, although residuals of a group of three mix what its participants vary."""
    study = Study(everyone(9, 2), patients(3, 6))
    spread = np.array([4.0, 1, 2, 1, 1, 2, 1, 1, 3])
    noise = StudyNoise(study.layout, study.maps(2, participant_sd=spread, icc=0.7, n_voxels=20_000))
    found = noise.covariance_of_maps().times(np.eye(18))
    expected = np.kron(np.diag(spread**2), 0.7 + 0.3 * np.eye(2))
    np.testing.assert_allclose(found / found.trace() * expected.trace(), expected, atol=0.6, rtol=0.05)
    maps = noise.draw(20_000, np.random.default_rng(0)).null_maps(study.question("mean"))
    np.testing.assert_allclose(np.cov(maps), found, atol=0.05 * found.max())


@pytest.mark.slow
def test_what_the_model_takes_away_altogether_varies_as_that_session_does_elsewhere() -> None:
    """The only patient's only map of the third session leaves no residual."""
    attendance = everyone(10, 3)
    attendance[1:4, 2] = False
    study = Study(attendance, patients(4, 6))
    noise = StudyNoise(study.layout, study.maps(3, session_sd=np.array([1.0, 1.0, 2.0])))
    maps = noise.draw(20_000, np.random.default_rng(0)).null_maps(study.question("mean"))
    sd = maps.std(axis=1)
    assert sd[2] / sd[[0, 1]].mean() == pytest.approx(2, rel=0.1)


@pytest.mark.slow
def test_equal_seeds_give_equal_tables() -> None:
    case = equal(6, 2, "mean")
    pd.testing.assert_frame_equal(case.table(3), case.table(3))
    assert not case.table(3)["rate_0.05"].equals(case.table(4)["rate_0.05"])


def test_maps_that_do_not_vary_are_refused() -> None:
    study = Study(everyone(4, 2))
    with pytest.raises(ValueError, match="no voxel varies"):
        StudyNoise(study.layout, np.ones((8, 50)))


def test_a_stack_gives_the_sample_of_voxels_that_the_seed_chooses() -> None:
    study = Study(everyone(3, 2))
    maps = np.arange(6.0)[:, None] + 10 * np.arange(40_000.0)
    stack = stack_of(study.layout, maps, np.ones((40_000, 1, 1), dtype=bool))
    assert len(stack.blocks) > 1
    sample = stack.sample(500, np.random.default_rng(1))
    assert sample.shape == (6, 500)
    np.testing.assert_array_equal(sample, maps[:, (sample[0] / 10).astype(int)])
    np.testing.assert_array_equal(sample, stack.sample(500, np.random.default_rng(1)))
    np.testing.assert_array_equal(stack.sample(50_000, np.random.default_rng(1)), maps)


# What the verdict makes of it --------------------------------------------------------------------------------


def rates(five: float, thousand: float = 0.001, *, error: float = 0.002) -> dict[str, float]:
    return {
        "rate_0.05": five, "rate_0.05_lower": five - error, "rate_0.05_upper": five + error,
        "rate_0.001": thousand, "rate_0.001_lower": 0.8 * thousand, "rate_0.001_upper": 1.2 * thousand,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "valid", "words"),
    [
        (rates(0.052), "yes", "as designed."),
        (rates(0.059), "yes", "as designed."),  # within the error of the simulation
        (rates(0.081), "conditional", "it finds something in 8.1 % of null voxels at a nominal 5 %."),
        (rates(0.05, 0.0031), "conditional", "in 3.1 ‰ of null voxels at a nominal 1 ‰."),
        (rates(0.35, 0.1), "no", "in 35 % of null voxels at a nominal 5 %."),
    ],
)
def test_a_rate_above_its_limit_is_no_valid_answer(found: dict[str, float], valid: str, words: str) -> None:
    judged = with_rates({"marginal": Judgement("yes", "as designed.")}, {"marginal": found})["marginal"]
    assert judged.valid == valid
    assert judged.reason.endswith(words)


def test_a_low_rate_clears_nobody_and_other_reasons_stay() -> None:
    judgements = {
        "mixed": Judgement("conditional", "it assumes sphericity."),
        "session-model": Judgement("no", "it pools."),
        "meta": Judgement("declined", "too few."),
    }
    low = dict.fromkeys(judgements, rates(0.03))
    assert with_rates(judgements, low) == judgements
    high = with_rates(judgements, dict.fromkeys(judgements, rates(0.09)))
    assert high["mixed"].reason.startswith("it assumes sphericity. Besides, in data resampled from this study")
    assert {name: high[name] for name in ("session-model", "meta")} == {
        name: judgements[name] for name in ("session-model", "meta")
    }


def test_among_conditional_answers_the_least_inflated_comes_first() -> None:
    found = {"a": rates(0.09), "b": rates(0.052), "c": rates(0.07), "d": rates(0.048), "e": rates(0.05, 0.009)}
    # f, of which nothing is known, may be worse than the others
    assert least_inflated([*"abcdef"], found) == ["b", "d", "c", "a", "e", "f"]
    assert least_inflated(["a", "b"], {}) == ["a", "b"]


def test_the_verdict_reads_the_rates() -> None:
    study = Study(everyone(12, 2))
    question, maps = study.question("mean"), study.maps(1)
    free, _ = study.verdict(question, maps)
    assert free.strategies[free.recommended[0]].valid == "yes"
    bound, _ = study.verdict(question, maps, rates={"marginal": rates(0.09), "summary-statistics": rates(0.08)})
    assert bound.recommended == ("summary-statistics",)
    assert bound.with_care
    assert "with care" in bound.text
    assert "finds something in 8 % of null voxels" in bound.text
    assert bound.facts["CalibratedFalsePositives"]["marginal"] == {"0.05": 0.09, "0.001": 0.001}
    none, _ = study.verdict(question, maps, rates=dict.fromkeys(("marginal", "summary-statistics"), rates(0.2)))
    assert none.recommended == ()


def test_rates_of_a_question_are_those_that_were_simulated() -> None:
    table = pd.DataFrame({"label": ["mean", "mean", "any"], "strategy": ["a", "b", "a"],
                          "status": ["estimated", "declined", "estimated"], "rate_0.05": [0.1, np.nan, 0.2]})  # fmt: skip
    assert rates_of(table, "mean") == {"a": {"rate_0.05": 0.1}}
    assert rates_of(None, "mean") == {}


@pytest.mark.parametrize(("valid", "mark"), [("yes", "★ valid"), ("conditional", "☆ with care")])
def test_a_star_is_filled_where_the_answer_is_valid(valid: str, mark: str) -> None:
    study = Study(everyone(12, 2))
    question = study.question("mean")
    judgement = Judgement(valid, "few people decide.")
    verdict = Verdict("", ("marginal",), {"marginal": judgement}, {})
    results = study.results(question, study.maps(1), ("marginal",))[0]
    answer = QuestionResults(question, tuple(results), verdict)
    assert _trust([answer]) == [{"session contrast": "mean", results[0].title: mark}]
    care = {"yes": "", "conditional": " With care: few people decide."}
    figures = r"mean: \S.* is recommended; [\d,]+ of [\d,]+ voxels (?:is|are) suprathreshold, peak z \S+ at \S+, \S+, \S+ mm\."
    assert re.fullmatch(figures + care[valid], finding(answer))


# The program -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_calibrating_takes_the_star_from_skewed_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lognormal levels: marginal and summary-statistics find something in too many null voxels."""
    study = empty_study(tmp_path)
    rng = np.random.default_rng(0)
    shape = (16, 16, 12)
    for number in range(1, 17):
        level = np.exp(rng.standard_normal(shape)) - np.exp(0.5)
        for session in ("01", "02"):
            study.write(f"{number:02d}", session, level + rng.normal(0, 1.5, shape), None)
    output = tmp_path / "out"
    command = [str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1", "--session-contrast", "mean",
               "--strategy", "summary-statistics", "marginal"]  # fmt: skip
    verdict = group_path(output, "marginal", "z").with_name(
        group_path(output, "marginal", "z").name.replace("_strategy-marginal_stat-z_statmap.nii.gz", "_validity.json")
    )
    assert main(command) == 0
    before = strict_json(verdict)
    capsys.readouterr()
    assert main([*command, "--calibrate", "10000"]) == 0
    after = strict_json(verdict)
    first = after["Recommended"][0] if after["Recommended"] else "marginal"  # type: ignore[index]
    judged = after["Strategies"][first]  # type: ignore[index]
    assert judged["Valid"] != "yes"
    assert "in data resampled from this study it finds something in" in judged["Reason"]
    assert "CalibratedFalsePositives" not in before["Facts"]  # type: ignore[operator]
    assert after["Facts"]["CalibratedFalsePositives"]["marginal"]["0.05"] > 0.06  # type: ignore[index]
    page = (output / "group.html").read_text(encoding="utf-8")
    assert "★ valid" not in page
    assert "from a voxel drawn at random for that participant" in " ".join(page.split())
    assert " With care: " in capsys.readouterr().err

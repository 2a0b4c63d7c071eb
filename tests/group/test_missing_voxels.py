"""A voxel that some maps lack is answered as if the maps that have it were all there are."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_maps import MapsInMemory
from group_study import GroupStudy, group_map, make_study
from pages import text_of
from sessionfx.ask.covariates import Covariates, GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.bids.first_level_maps import find_first_level_maps
from sessionfx.cli import main
from sessionfx.errors import NotEstimableError
from sessionfx.execution import in_this_process
from sessionfx.group.stack import MapStack, attendance, open_stack
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, PartialMaps, Plan, Question
from sessionfx.group.strategies.blocks import estimate_plans
from sessionfx.group.strategies.marginal import WorkingCovariance
from sessionfx.group.strategies.patterns import PatternPlan
from sessionfx.statistics.estimates import Estimate

SESSIONS = ("1", "2", "3")
GROUP = GroupContrast("group", "a - b", (0.0, 2.0, 0.0))
AGE = GroupContrast("age", "age", (0.0, 0.0, 1.0), covariate="age")
RATIO = 0.7


def layout_of(rng: np.random.Generator, n: int = 14, *, covariates: bool = False) -> MapLayout:
    """Some participants miss a session."""
    rows = [(f"{i:02d}", session) for i in range(n) for session in SESSIONS if session == "2" or rng.random() < 0.9]
    participants, sessions = zip(*rows, strict=True)
    layout = MapLayout(participants, sessions)
    if not covariates:
        return layout
    of = {f"{i:02d}": (1.0 if i < n // 2 + 1 else -1.0, age) for i, age in enumerate(rng.normal(size=n))}
    values = np.array([of[participant] for participant in participants])
    return replace(layout, covariate_names=("group[a]", "age"), covariates=values)


def maps_of(
    layout: MapLayout, rng: np.random.Generator, n_voxels: int, n_rows: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maps of which every other voxel lacks some, most often all of a participant, and one nearly all."""
    owners = np.unique(layout.participants, return_inverse=True)[1]
    effects = rng.normal(size=(n_rows * len(owners), n_voxels)) + np.tile(
        rng.normal(size=(owners.max() + 1, n_voxels))[owners], (n_rows, 1)
    )
    variances = rng.uniform(0.5, 2.0, size=effects.shape)
    has = rng.random((len(owners), n_voxels)) < 0.95
    has &= (rng.random((owners.max() + 1, n_voxels)) < 0.85)[owners]
    has[:, ::2] = True
    has[3:, -1] = False
    effects[~np.tile(has, (n_rows, 1))] = np.nan
    return effects, variances


def planned(name: str, layout: MapLayout, question: Question, options: GroupOptions) -> Plan:
    """Plan, with a working correlation that is known."""
    plan = STRATEGIES[name].plan(layout, question, options)
    if not plan.pools:
        return plan
    k = len(set(plan.groups))
    working = WorkingCovariance.of_groups(RATIO, plan.groups, np.linspace(0.3, 1.0, k), np.linspace(1.0, 2.0, k))
    return plan.with_working(working)  # type: ignore[attr-defined]


CASES = [
    (text, group, variance, name)
    for text in ("mean", "ses-3 - ses-1", "linear", "any")
    for group, variance in ((None, "auto"), (GROUP, "groups"), (AGE, "pooled"))
    for name in STRATEGIES
    if not STRATEGIES[name].missing_dependency()
]


@pytest.mark.many
@pytest.mark.parametrize(("text", "group", "variance", "name"), CASES)
def test_a_voxel_is_answered_as_if_its_maps_were_all(
    text: str, group: GroupContrast | None, variance: str, name: str
) -> None:
    rng = np.random.default_rng(5)
    layout = layout_of(rng, covariates=group is not None)
    (asked,) = resolve_session_contrasts([text], SESSIONS)
    question, options = Question(asked, group or INTERCEPT), GroupOptions(variance=variance)
    effects, variances = maps_of(layout, rng, 12)
    try:
        plan = planned(name, layout, question, options)
    except NotEstimableError:
        pytest.skip("this strategy never answers it")
    (found,) = estimate_plans(
        [PatternPlan(plan, STRATEGIES[name], layout, question, options)],
        MapsInMemory(effects, variances),
        in_this_process,
    )
    assert found.n is not None
    for voxel in range(effects.shape[1]):
        rows = np.nonzero(np.isfinite(effects[:, voxel]))[0]
        own_options = replace(options, variance="groups" if plan.groups else "pooled")
        try:
            own = STRATEGIES[name].plan(layout.at_rows(rows), question, own_options)
            own = own.working_as(plan) if own.pools else own
        except NotEstimableError:
            assert not found.is_determined[voxel]
            continue
        alone = own.estimate(effects[rows][:, [voxel]], variances[rows][:, [voxel]])
        names = ("effect", "variance", "dof") if isinstance(alone, Estimate) else ("f", "dof_numerator", "dof")
        for name_of_value in names:
            expected = np.broadcast_to(getattr(alone, name_of_value), 1)[0]
            assert np.isclose(getattr(found, name_of_value)[voxel], expected, rtol=1e-6, atol=1e-9, equal_nan=True), (
                voxel,
                name_of_value,
            )
        participants = {str(label).partition("_")[0] for label in own.design_matrix.index}
        assert found.n[voxel] == len(participants)


@pytest.mark.parametrize("name", ["session-model", "summary-statistics", "marginal", "mixed"])
@pytest.mark.parametrize("text", ["mean", "ses-3 - ses-1", "any"])
def test_nearly_all_voxels_are_estimated_together(text: str, name: str) -> None:
    rng = np.random.default_rng(6)
    layout = layout_of(rng, 30)
    (asked,) = resolve_session_contrasts([text], SESSIONS)
    question = Question(asked)
    effects, _ = maps_of(layout, rng, 50)
    if STRATEGIES[name].never_answers(question):
        pytest.skip("has no such test")
    plan = planned(name, layout, question, GroupOptions())
    found = plan.estimate_apart(PartialMaps.of(layout, question, effects, np.isfinite(effects)))
    assert found is not None
    assert found.holds.sum() >= 48


def cut(study: GroupStudy) -> None:
    """Give maps a field of view each: some lack the lowest slices, one all but the highest."""
    for number, key in enumerate(study.keys):
        effect, variance = study.effects[key].copy(), study.variances[key].copy()
        lowest = {3: 1, 8: 2, 11: 1, 17: 4}.get(number, 0)
        effect[..., :lowest], variance[..., :lowest] = 0.0, 0.0
        study.write(*key, effect, variance)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    made = make_study(tmp_path_factory.mktemp("missing"))
    cut(made)
    return made


def opened(study: GroupStudy, folder: Path, min_coverage: float) -> AbstractContextManager[MapStack]:
    maps = find_first_level_maps([study.maps]).maps
    return open_stack(maps, Covariates.none(attendance(maps)), folder, needs_variances=True, min_coverage=min_coverage)


@pytest.mark.parametrize("n_forerunners", [1, 8])
def test_a_stack_holds_what_enough_maps_have(
    n_forerunners: int, study: GroupStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionfx.group.stack._FORERUNNERS", n_forerunners)
    arrays = np.array([study.effects[key] for key in study.keys])
    expected = np.where(arrays == 0, np.nan, arrays)
    for share in (0.5, 0.9, 0.95):
        with opened(study, tmp_path, share) as stack:
            has = np.isfinite(expected).sum(axis=0)
            assert (stack.coverage == has).all()
            assert (stack.mask == (has >= share * len(arrays))).all()
            found = np.concatenate([stack.effects(block) for block in stack.blocks], axis=1)
            assert np.array_equal(found, expected[:, stack.mask], equal_nan=True)
            strict = stack.complete
            assert (strict.mask == (has == len(arrays))).all()
            found = np.concatenate([strict.effects(block) for block in strict.blocks], axis=1)
            assert np.array_equal(found, arrays[:, strict.mask])


@pytest.mark.slow
def test_the_program_answers_voxels_that_enough_maps_have(
    study: GroupStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # some blocks of voxels that all maps have, others that some lack
    monkeypatch.setattr("sessionfx.group.strategies.blocks.VOXELS_PER_BLOCK", 64)
    asked = ["--derivatives", str(study.maps), "--session-contrast", "mean", "--strategy", "summary-statistics",
             "--permutations", "20", "--nprocs", "1", "--no-report"]  # fmt: skip
    for share in ("1", "0.7"):
        assert main([str(study.raw), str(tmp_path / share), "group", *asked, "--min-coverage", share]) == 0
    strict, partial = (
        {name: group_map(tmp_path / share, "summaryStatistics", name) for name in ("effect", "variance", "p")}
        for share in ("1", "0.7")
    )
    n = group_map(tmp_path / "0.7", "summaryStatistics", "n")
    complete = strict["variance"] > 0
    for name, values in strict.items():
        assert np.allclose(partial[name][complete], values[complete], rtol=1e-10)
    assert set(n[complete]) == {9.0}
    assert (n > 0).sum() > complete.sum()
    values = np.array([np.where(study.effects[key] == 0, np.nan, study.effects[key]).ravel() for key in study.keys])
    owners = np.array([participant for participant, _ in study.keys])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        means = np.array([np.nanmean(values[owners == label], axis=0) for label in dict.fromkeys(owners)])
        expected = np.nanmean(means, axis=0)
    assert np.allclose(partial["effect"][n > 0], expected[n > 0])
    assert (n[n > 0] == np.isfinite(means).sum(axis=0)[n > 0]).all()
    resampled = group_map(tmp_path / "0.7", "summaryStatistics", "p", desc="voxelFWE")
    assert (resampled[~complete] == 1).all()
    of_strict = group_map(tmp_path / "1", "summaryStatistics", "p", desc="voxelFWE")
    assert np.allclose(resampled[complete], of_strict[complete], rtol=1e-10)
    verdict = (tmp_path / "0.7" / "group").glob("*sessions-mean_validity.json")
    assert "rest on fewer maps" in next(verdict).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), ""),
        (("--session-covariates", "mood"), "session covariates"),
        (("--fixed-effects", "precision", "--robust", "huber"), "--robust and the maps' variances"),
    ],
)
def test_where_each_pattern_needs_a_plan_voxels_that_all_have_are_answered_unless_asked_otherwise(
    study: GroupStudy, tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    call = [str(study.raw), str(tmp_path / "out"), "group", "--derivatives", str(study.maps), "--strategy",
            "summary-statistics", "--session-contrast", "mean", "--nprocs", "1", *options]  # fmt: skip
    assert main(call) == 0
    values = np.array([study.effects[key] for key in study.keys])
    share = (values != 0).mean(axis=0).ravel()
    answered = group_map(tmp_path / "out", "summaryStatistics", "variance") > 0
    assert (answered == (share == 1 if named else share >= 0.7)).all()
    page = text_of(tmp_path / "out" / "group.html")
    n_more = int(((share >= 0.7) & (share < 1)).sum())
    assert n_more
    assert (f"with {named} each pattern" in page) == bool(named)
    assert (f"--min-coverage 0.7 answers {n_more} more" in page) == bool(named)
    assert ("at least 70 % of the maps have, each answered" in page) != bool(named)


# Against R, which analysed each voxel alone ----------------------------------------------------------------------

ANSWERS = Path(__file__).parents[1] / "data" / "missing_voxels"


@pytest.fixture(scope="module")
def r_answers() -> pd.DataFrame:
    return pd.read_csv(ANSWERS / "answers.tsv.gz", sep="\t")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "asked"),
    [("summary-statistics", "mean"), ("summary-statistics", "difference"), ("summary-statistics", "groups"),
     ("session-model", "mean"), ("session-model", "difference"), ("mixed", "mean"), ("mixed", "difference"),
     ("marginal", "mean"), ("marginal", "difference"), ("meta", "mean")],
)  # fmt: skip
def test_500_voxels_have_the_answers_of_r(name: str, asked: str, r_answers: pd.DataFrame) -> None:
    if STRATEGIES[name].missing_dependency():
        pytest.skip("needs PyMARE")
    maps = pd.read_csv(ANSWERS / "maps.tsv", sep="\t", dtype={"participant": str, "session": str})
    effects = maps.filter(regex=r"^v\d+$").to_numpy()
    variances = np.repeat(maps[["variance"]].to_numpy(), effects.shape[1], axis=1)
    coverage = np.isfinite(effects).mean(axis=0)
    assert effects.shape[1] == 500
    assert coverage.min() >= 0.6
    assert coverage.max() <= 0.95
    layout = MapLayout(tuple(maps["participant"]), tuple(maps["session"]))
    text = {"difference": "ses-3 - ses-1"}.get(asked, "mean")
    (sessions,) = resolve_session_contrasts([text], SESSIONS)
    question, options = Question(sessions), GroupOptions()
    if asked == "groups":
        codes = np.where(maps["group"] == "a", 1.0, -1.0)[:, None]
        layout = replace(layout, covariate_names=("group[a]",), covariates=codes)
        question = Question(sessions, GroupContrast("group", "a - b", (0.0, 2.0)))
    apart = PatternPlan(planned(name, layout, question, options), STRATEGIES[name], layout, question, options)
    found = apart.estimate_beside(effects, variances, {})
    assert isinstance(found, Estimate)
    expected = r_answers[(r_answers["strategy"] == name) & (r_answers["question"] == asked)]
    assert list(expected["voxel"]) == list(range(1, 501))
    scale = np.sqrt(found.variance)
    assert np.abs(found.effect - expected["estimate"]).max() < 1e-6 * scale.max()
    assert np.abs(scale / expected["se"] - 1).max() < 1e-6
    # lmerTest finds the derivatives that its degrees of freedom need by small steps
    known = expected["dof"].notna().to_numpy()
    dof = np.broadcast_to(found.dof, known.shape)[known]
    assert np.abs(dof / expected["dof"][known] - 1).max() < (1e-3 if name == "mixed" else 1e-6)

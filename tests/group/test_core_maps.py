"""Where no voxel is in every map, what holds for all voxels is learned from the maps that share most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from test_regions import answers_of, write_atlas

from array_maps import MapsInMemory, estimate_in_blocks
from group_study import GroupStudy, group_map, make_study, read
from map_stacks import stack_of
from pages import text_of
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.cli import main
from sessionfx.errors import NotEstimableError
from sessionfx.group.core import LEAST_COMMON, core_maps, maps_in_words
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.statistics.estimates import Estimate

SESSIONS = ("01", "02", "03", "04")
SHAPE = (8, 6, 6)


def test_a_short_map_goes_before_others() -> None:
    has = np.ones((20, 50), dtype=bool)
    has[3, :] = False
    has[7, ::2] = False
    has[8, 1::2] = False
    assert set(range(20)) - set(core_maps(has)) == {3, 7}
    has[8] = True
    assert set(range(20)) - set(core_maps(has)) == {3}


def test_all_maps_of_a_session_go_before_some_of_each() -> None:
    sessions = np.tile(np.arange(4), 10)
    has = np.ones((40, 80), dtype=bool)
    for session in range(4):
        has[np.ix_(sessions == session, np.arange(20 * session, 20 * (session + 1)))] = False
    kept = core_maps(has)
    assert set(sessions[kept]) == {1, 2, 3}
    assert len(kept) == 30
    assert has[kept].all(axis=0).mean() >= LEAST_COMMON


def test_maps_are_named_by_what_they_have_in_common() -> None:
    layout = MapLayout(("01", "01", "02", "02", "03", "03"), ("1", "2", "1", "2", "1", "2"))
    assert maps_in_words(layout, np.array([1, 3, 5])) == ["ses-2"]
    assert maps_in_words(layout, np.array([0, 2, 3])) == ["sub-02", "sub-01_ses-1"]


def test_with_a_voxel_that_all_have_all_maps_are_core() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(6, 40))
    effects[2, 1:] = np.nan
    layout = MapLayout(tuple("aabbcc"), tuple("121212"))
    stack = stack_of(layout, effects, np.ones((40, 1, 1), dtype=bool))
    stack.coverage[...] = np.isfinite(effects).sum(axis=0).reshape(40, 1, 1)
    assert stack.learns_from_all
    assert stack.core is stack.complete
    assert stack.core.n_voxels == 1


def test_somebody_who_has_no_core_map_keeps_the_variance_of_their_group() -> None:
    """The group level stopped: the groups of those who have core maps were the only ones known."""
    rng = np.random.default_rng(3)
    owners, sessions = np.repeat([f"{i:02d}" for i in range(12)], 2), np.tile(["1", "2"], 12)
    codes = np.where(np.repeat(np.arange(12), 2) < 5, 1.0, -1.0)[:, None]
    layout = MapLayout(tuple(owners), tuple(sessions), ("group[a]",), codes)
    question = Question(resolve_session_contrasts(["mean"], ["1", "2"])[0])
    effects = rng.normal(size=(24, 200)) + np.repeat(rng.normal(size=(12, 200)), 2, axis=0)
    of_all = STRATEGIES["marginal"].plan(layout, question, GroupOptions(variance="groups"))
    core = np.flatnonzero(~np.isin(owners, ["03", "08"]))
    of_core = STRATEGIES["marginal"].plan(layout.at_rows(core), question, GroupOptions(variance="groups"))
    taught, _ = estimate_in_blocks(of_core, MapsInMemory(effects[core]))
    found = of_all.working_as(taught).estimate(effects, None)
    # as if the working covariance had been found from all maps
    expected = replace(of_all, groups=tuple(np.repeat(["a", "b"], [5, 7]))).with_working(
        replace(taught.working, by_group=dict(zip("ab", taught.working.by_group.values(), strict=True)))
    )
    for part in ("effect", "variance", "dof"):
        assert np.allclose(getattr(found, part), getattr(expected.estimate(effects, None), part), rtol=1e-12), part


# A study in which each session has another field of view, and not the same in all participants ----------------------


def lacking(participant: str, session: str) -> int:
    """Say which quarter of the slices a map lacks."""
    return (SESSIONS.index(session) + int(participant) % 2) % 4


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    made = make_study(tmp_path_factory.mktemp("core"), n_participants=10, sessions=SESSIONS, shape=SHAPE, missing=())
    for participant, session in made.keys:
        number = lacking(participant, session)
        effect, variance = (values[participant, session].copy() for values in (made.effects, made.variances))
        effect[2 * number : 2 * number + 2] = variance[2 * number : 2 * number + 2] = 0.0
        made.write(participant, session, effect, variance)
    return made


@pytest.fixture(scope="module")
def output(study: GroupStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without")
    labels = np.repeat(np.arange(1, 5), 2 * 36).reshape(SHAPE)
    labels[0] = 0
    atlas = write_atlas(folder, labels, {1: "First", 2: "Second", 3: "Third", 4: "Last"})
    call = [str(study.raw), str(folder / "out"), "group", "--derivatives", str(study.maps), "--nprocs", "1", "--atlas",
            str(atlas), "--session-contrast", "mean", "--session-contrast", "ses-03 - ses-02", "--permutations", "20",
            "--strategy", "summary-statistics", "marginal", "mixed", "--calibrate", "20"]  # fmt: skip
    assert main(call) == 0
    return folder / "out"


def layout_of(study: GroupStudy) -> MapLayout:
    participants, sessions = zip(*study.keys, strict=True)
    return MapLayout(participants, sessions)


def expected(study: GroupStudy, name: str, asked: str) -> dict[str, NDArray[np.float64]]:
    """Analyse each voxel alone, with the working correlation of the maps that have the quarter that the first map lacks."""
    layout, values = layout_of(study), study.stacked
    (sessions,) = resolve_session_contrasts([asked], SESSIONS)
    question, strategy = Question(sessions), STRATEGIES[name]
    of_core = np.array([row for row, key in enumerate(study.keys) if lacking(*key) != lacking("01", "01")])
    shared = (values[of_core] != 0).all(axis=0)
    assert shared.mean() == 1 / 4
    taught, _ = estimate_in_blocks(
        strategy.plan(layout.at_rows(of_core), question, GroupOptions()), MapsInMemory(values[of_core][:, shared])
    )
    found = {part: np.zeros(values.shape[1]) for part in ("effect", "variance", "dof")}
    for voxel in range(values.shape[1]):
        rows = np.nonzero(values[:, voxel])[0]
        try:
            plan = strategy.plan(layout.at_rows(rows), question, GroupOptions())
        except NotEstimableError:
            continue
        if plan.pools:
            plan = plan.working_as(taught)
        estimate = plan.estimate(values[rows][:, [voxel]], None)
        assert isinstance(estimate, Estimate)
        for part, whole in found.items():
            whole[voxel] = np.broadcast_to(getattr(estimate, part), 1)[0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), [("summary-statistics", "summaryStatistics"), ("marginal", "marginal")])
@pytest.mark.parametrize(("asked", "sessions"), [("mean", "mean"), ("ses-03 - ses-02", "ses03MinusSes02")])
def test_each_voxel_has_the_answer_of_those_who_have_it(
    study: GroupStudy, output: Path, name: str, label: str, asked: str, sessions: str
) -> None:
    wanted = expected(study, name, asked)
    for part, whole in wanted.items():
        found = group_map(output, label, part, sessions=sessions)
        assert np.allclose(found, whole, rtol=1e-5), part
    assert (wanted["variance"] > 0).mean() == (
        0.75 if (name, asked) == ("summary-statistics", "ses-03 - ses-02") else 1
    )


@pytest.mark.slow
def test_the_files_and_the_page_say_from_which_maps_was_learned(output: Path) -> None:
    (verdict,) = (output / "group").glob("*_sessions-mean_validity.json")
    facts = json.loads(verdict.read_text(encoding="utf-8"))["Facts"]
    assert (facts["MapsLearnedFrom"], facts["VoxelsLearnedFrom"]) == (30, 72)
    assert len(facts["MapsNotLearnedFrom"]) == 10
    assert "sub-01_ses-01" in facts["MapsNotLearnedFrom"]
    page = text_of(output / "group.html")
    assert "is learned from 30 maps at the 72 voxels that they share; not from sub-01_ses-01" in page
    assert "None of them is in every map" in page
    assert "was estimated from 30 of the 40 maps" in page
    assert "the 30 maps that share most, at the 72 voxels" in page
    assert "no voxel is in every map" in page
    assert not list((output / "group").glob("*FWE*"))
    (icc,) = (output / "group").glob("*_stat-icc31_desc-reliability_statmap.nii.gz")
    assert (read(icc).ravel() != 0).mean() == 1 / 4


@pytest.mark.slow
def test_regions_need_none_that_every_map_has(study: GroupStudy, output: Path) -> None:
    found = answers_of(output, "mean")
    own = found[found["strategy"] == "summary-statistics"].set_index("region")
    assert set(own.index) == {"First", "Second", "Third", "Last"}
    assert set(own["n_participants"]) == {10}
    values = np.where(study.stacked == 0, np.nan, study.stacked).reshape(-1, *SHAPE)
    owners = np.array([participant for participant, _ in study.keys])
    for name, part in {"First": slice(1, 2), "Last": slice(6, 8)}.items():
        means = pd.Series(values[:, part].reshape(len(values), -1).mean(axis=1)).groupby(owners).mean()
        assert np.isclose(own.loc[name, "effect"], means.mean(), rtol=1e-5)

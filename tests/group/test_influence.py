"""The answer without each participant: closed forms against refits, and what table and page say."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import Study, everyone, patients
from group_study import START, make_study, strict_json
from map_stacks import stack_of
from pages import text_of
from sessionfx.cli import main
from sessionfx.execution import in_this_process
from sessionfx.group import influence as module
from sessionfx.group.influence import Influence, influence_of, most_influential_text
from sessionfx.group.strategies import blocks
from sessionfx.group.strategies.base import GroupOptions, Question
from sessionfx.statistics.cluster_influence import ClustersLeftOut
from sessionfx.statistics.influence import LeaveOneOut
from sessionfx.statistics.ols import prepare_ols

AGES = {"age": [float(age) for age in (20, 31, 25, 44, 38, 29, 51, 23, 35, 40, 27, 33)]}
MISSING = np.arange(220).reshape(-1, 2) % 5 != 3  # who of 110 participants has which session


class Answered:
    """A question to a study, with its maps and the answer of one strategy, and what it would be without each."""

    def __init__(
        self, study: Study, question: Question, maps: NDArray[np.float64], name: str = "marginal", **options: str
    ) -> None:
        (self.answer,), answers = study.results(question, maps, (name,), **options)
        self.question, self.options = question, GroupOptions(**options)
        self.z, self.two_sided = answers[name].z, answers[name].two_sided
        self.stack = stack_of(study.layout, maps, np.ones((maps.shape[1], 1, 1), dtype=bool))

    def influence(self, threshold: float | None = None) -> Influence:
        answer = self.answer if threshold is None else replace(self.answer, threshold=threshold)
        return influence_of(answer, self.question, self.stack, self.options, in_this_process)


@pytest.mark.parametrize("contrast", [(1.0, 0.0), (0.0, 1.0)])
def test_least_squares_without_each_equals_refits(contrast: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(11), rng.standard_normal(11)])
    values = rng.standard_normal((11, 40)) + 0.5
    for row, found in enumerate(LeaveOneOut(design, np.array(contrast)).estimates(values)):
        refit = prepare_ols(np.delete(design, row, 0), np.array(contrast)).estimate(np.delete(values, row, 0))
        assert found is not None
        np.testing.assert_allclose(found.z, refit.z, rtol=1e-9)
        np.testing.assert_allclose(found.variance, refit.variance, rtol=1e-9)


@pytest.mark.parametrize("n", [4, 11, 60])
def test_z_from_the_table_is_z_of_t(n: int) -> None:
    values = np.random.default_rng(n).standard_normal((n, 300)) + np.linspace(-6, 6, 300)
    left_out = LeaveOneOut(np.ones((n, 1)), np.ones(1))
    for z, estimate in zip(left_out.z(values), left_out.estimates(values), strict=True):
        assert z is not None and estimate is not None
        np.testing.assert_allclose(z, estimate.z, atol=2e-5)


def test_without_the_only_one_of_a_group_there_is_no_estimate() -> None:
    design = np.column_stack([np.ones(8), np.eye(8)[0]])
    found = list(LeaveOneOut(design, np.array([0.0, 1.0])).estimates(np.random.default_rng(2).normal(size=(8, 3))))
    assert [estimate is None for estimate in found] == [True] + [False] * 7


CASES = [
    ("summary-statistics", Study(everyone(12, 2)), "mean", "intercept"),
    ("marginal", Study(everyone(12, 2)), "ses-02 - ses-01", "intercept"),
    ("summary-statistics", Study(everyone(12, 2), AGES), "mean", "age"),
    ("marginal", Study(everyone(12, 2), AGES), "mean", "age"),
    ("marginal", Study(np.arange(36).reshape(12, 3) % 7 != 3), "mean", "intercept"),
    ("summary-statistics", Study(everyone(14, 2), patients(6, 8)), "mean", "patient - control"),
    ("marginal", Study(everyone(12, 3)), "any", "intercept"),
]


@pytest.mark.parametrize(("name", "study", "contrast", "group"), CASES)
def test_the_table_is_that_of_studies_without_each(name: str, study: Study, contrast: str, group: str) -> None:
    question = study.question(contrast, group)
    maps = study.maps(3, n_voxels=60) + 0.5
    answered = Answered(study, question, maps, name)
    z, two_sided, plan = answered.z, answered.two_sided, answered.answer.plan
    threshold = float(np.median(np.abs(z)))
    found = answered.influence(threshold)
    assert len(found.table) == len(study.layout.unique_participants)
    size = np.abs(z) if two_sided else z
    assert plan is not None
    for row in found.table.iloc[::5].to_dict("records"):
        kept = [at for at, owner in enumerate(study.layout.participants) if owner != row["participant"]]
        refit = module.STRATEGIES[name].plan(study.layout.at_rows(kept), question, GroupOptions(
            variance="groups" if plan.groups else "pooled"))  # fmt: skip
        refit = refit.working_as(plan) if plan.pools else refit
        other = refit.estimate(maps[kept], None).z
        other_size = np.abs(other) if two_sided else other
        assert row["peak_z"] == pytest.approx(other[np.argmax(size)], abs=2e-5)
        assert row["largest_change_of_z"] == pytest.approx(np.abs(other - z).max(), abs=2e-5)
        assert row["n_lost"] == ((size >= threshold) & (other_size < threshold)).sum()
        assert row["n_gained"] == ((size < threshold) & (other_size >= threshold)).sum()


def test_what_is_said_is_of_voxels_that_every_map_has() -> None:
    study = Study(everyone(12, 2))
    answered = Answered(study, study.question("mean"), study.maps(3, n_voxels=60) + 0.5, "summary-statistics")
    size = np.abs(answered.z)
    highest, second = np.argsort(-size)[:2]
    answered.stack.coverage[highest] -= 1
    found = answered.influence(float(size[second]))
    assert found.n_above == 1
    assert found.peak_z == pytest.approx(answered.z[second])
    assert found.note == "Counted at the 59 voxels that every map has, of 60 that are answered."
    assert "of 1 suprathreshold voxels" in most_influential_text(found)


def test_where_nothing_is_suprathreshold_none_is_said_to_be_lost() -> None:
    """It said that 0 of 0 voxels would be lost, and 0 gained."""
    table = pd.DataFrame({"participant": ["01", "02"], "n_lost": [0.0, 0.0], "n_gained": [0.0, 0.0],
                          "peak_z": [2.5, 2.9], "largest_change_of_z": [0.6, 0.2]})  # fmt: skip
    said = most_influential_text(module.Influence(table, n_above=0, peak_z=3.0))
    assert said.endswith(
        "sub-01 changes the answer most: still no voxel would be suprathreshold, and the peak would have z = 2.50 "
        "instead of 3.00."
    )
    gains = module.Influence(table.assign(n_gained=[1.0, 0.0]), n_above=0, peak_z=3.0)
    assert "1 voxel would be suprathreshold, where none is, and the peak" in most_influential_text(gains)


MANY = [
    (Study(np.arange(260).reshape(-1, 2) % 5 != 3), "mean", "intercept"),
    (Study(np.arange(390).reshape(-1, 3) % 8 != 3, patients(9, 121)), "ses-03 - ses-01", "patient - control"),
    (Study(np.arange(390).reshape(-1, 3) % 8 != 3, {"age": [20 + 3 * (i * 7 % 13) for i in range(130)]}), "any", "age"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("study", "contrast", "group"), MANY, ids=["missing", "groups", "any"])
def test_of_many_participants_the_table_is_that_of_fits_without_each(
    monkeypatch: pytest.MonkeyPatch, study: Study, contrast: str, group: str
) -> None:
    question, maps = study.question(contrast, group), study.maps(4, n_voxels=40) + np.linspace(-0.4, 0.4, 40)
    maps[np.array(study.layout.sessions) == "03"] += np.linspace(0.5, 0, 40)
    answered = Answered(study, question, maps)
    threshold = float(np.median(np.abs(answered.z)))
    quick = answered.influence(threshold)
    monkeypatch.setattr(module, "MOST_REFITTED", 130)
    refitted = answered.influence(threshold)
    assert quick.table["participant"].tolist() == refitted.table["participant"].tolist()
    assert (quick.n_above, quick.peak_z, quick.note) == (refitted.n_above, refitted.peak_z, "")
    for column, close in {"peak_z": 0.02, "largest_change_of_z": 0.02, "n_lost": 0, "n_gained": 0}.items():
        np.testing.assert_allclose(quick.table[column], refitted.table[column], rtol=0, atol=close)
    assert quick.table["largest_change_of_z"].median() > 0.05


@pytest.mark.slow
def test_those_without_whom_the_design_is_another_are_planned_without(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(MISSING)
    answered = Answered(study, study.question("mean"), study.maps(4, n_voxels=20))
    monkeypatch.setattr(ClustersLeftOut, "without", lambda self, number: None)
    planned = answered.influence()
    monkeypatch.setattr(module, "MOST_REFITTED", 130)
    refitted = answered.influence()
    pd.testing.assert_frame_equal(planned.table, refitted.table, rtol=1e-9)


def test_of_many_participants_some_voxels_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(MISSING)
    maps = study.maps(4, n_voxels=2000) + 0.2
    maps[0] += 30.0
    answered = Answered(study, study.question("mean"), maps)
    monkeypatch.setattr(module, "_FITTED", 10**9)
    every = answered.influence(2.0)
    monkeypatch.setattr(module, "_FITTED", 400 * 110)
    some = answered.influence(2.0)
    assert every.note == ""
    n_below = 2000 - some.n_above
    assert f"of {some.n_above:,} suprathreshold voxels and" in some.note and f"of {n_below:,} others" in some.note
    assert (some.n_above, some.peak_z) == (every.n_above, every.peak_z)
    np.testing.assert_allclose(some.table["peak_z"], every.table["peak_z"], atol=1e-9)
    changed = every.table[["n_lost", "n_gained"]].sum(axis=1)
    assert changed.idxmax() == 0
    for column, n in {"n_lost": some.n_above, "n_gained": n_below}.items():
        share = every.table[column] / n
        error = np.sqrt(np.maximum(share * (1 - share), 1 / 200) / 150)
        assert (np.abs(some.table[column] / n - share) < 4.5 * error).all()


def test_of_many_participants_one_block_of_maps_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "VOXELS_PER_BLOCK", 1000)
    study = Study(MISSING)
    maps = study.maps(4, n_voxels=20_000)
    answered = Answered(study, study.question("mean"), maps)
    monkeypatch.setattr(module, "_FITTED", 110 * 200)
    tracemalloc.start()
    try:
        assert "counts scaled up" in answered.influence().note
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < maps.nbytes / 2


@pytest.mark.parametrize(("options", "measured", "note"), [
    ({"robust": "huber"}, {}, module.TOO_MANY),
    ({}, {"mood": np.random.default_rng(1).normal(size=(110, 2))}, module.MOVES),
], ids=["robust", "session covariate"])  # fmt: skip
def test_of_many_participants_there_may_be_no_table_and_it_is_said_why(
    options: dict[str, str], measured: dict[str, NDArray[np.float64]], note: str
) -> None:
    study = Study(MISSING, measured=measured)
    found = Answered(study, study.question("mean"), study.maps(4, n_voxels=20), **options).influence()
    assert not len(found.table)
    assert found.note == note


@pytest.mark.slow
def test_a_change_adjusted_for_session_covariates_has_a_table_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"mood": np.random.default_rng(1).normal(size=(110, 2))}
    study = Study(MISSING, measured=measured)
    answered = Answered(study, study.question("ses-02 - ses-01"), study.maps(4, n_voxels=20))
    quick = answered.influence()
    monkeypatch.setattr(module, "MOST_REFITTED", 130)
    refitted = answered.influence()
    np.testing.assert_allclose(quick.table["peak_z"], refitted.table["peak_z"], rtol=0, atol=0.02)
    assert quick.table["largest_change_of_z"].median() > 0.05


def test_where_voxels_are_many_some_stand_for_those_below_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FITTED", 40 * 12)
    study = Study(np.arange(24).reshape(12, 2) % 7 != 3)
    found = Answered(study, study.question("mean"), study.maps(5, n_voxels=100)).influence()
    assert "one of every" in found.note
    assert len(found.table) == 12


@pytest.mark.slow
def test_who_drives_the_result_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=9, sessions=("01", "02"), missing=(), shape=(5, 5, 5))
    for session in ("01", "02"):
        study.write("05", session, study.effects["05", session] + 4, None)
    output = tmp_path / "out"
    call = [str(study.raw), str(output), "group", "-d", str(study.maps), "--session-contrast", "mean"]
    assert main([*call, "--correction", "none", "--nprocs", "1"]) == 0
    path = output / "group" / f"{START}_sessions-mean_desc-influence_metrics.tsv"
    table = pd.read_csv(path, sep="\t", dtype={"participant": str})
    assert table["participant"].tolist() == [f"{number:02d}" for number in range(1, 10)]
    assert table.loc[table["largest_change_of_z"].idxmax(), "participant"] == "05"
    assert set(table.columns) < set(strict_json(path.with_suffix(".json")))
    page = text_of(output / "group.html")
    assert "Is one participant driving the result?" in page
    assert "Left out one by one, sub-" in page


def test_nothing_is_said_without_a_table() -> None:
    assert most_influential_text(module.Influence()) == ""
    assert module.Influence().most_influential is None


def test_of_those_who_change_equally_many_voxels_the_one_who_changes_z_most_is_named() -> None:
    """It named the first participant where nobody changed a voxel."""
    table = pd.DataFrame({"participant": ["01", "02", "03"], "n_lost": [0.0, np.nan, 0.0], "n_gained": [0.0, np.nan, 0.0],
                          "peak_z": [4.5, np.nan, 4.1], "largest_change_of_z": [0.1, np.nan, 0.6]})  # fmt: skip
    assert "sub-03 changes the answer most: 0 of 7" in most_influential_text(
        module.Influence(table, n_above=7, peak_z=4.6)
    )
    one_more = module.Influence(table.assign(n_gained=[1.0, np.nan, 0.0]), n_above=7, peak_z=4.6)
    assert "sub-01 changes the answer most" in most_influential_text(one_more)
    # in the table who is named comes first, behind those without whom there is no answer
    assert [found.ranked["participant"].tolist() for found in (one_more, module.Influence(table, n_above=7))] == [
        ["02", "01", "03"], ["02", "03", "01"]]  # fmt: skip

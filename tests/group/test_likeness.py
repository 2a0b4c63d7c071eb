"""Participants' maps beside each other: plain arithmetic, and what is found in studies with one that is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import everyone
from group_study import START, make_study, strict_json
from map_stacks import layout_of
from pages import text_of
from sessionfx.cli import main
from sessionfx.group.likeness import Likeness, LikenessCheck, likeness_table
from sessionfx.group.strategies.base import MapLayout
from sessionfx.statistics.likeness import profiles_of, sums_of

N_VOXELS = 3000
ODD = {"reversed": "opposite sign", "scaled": "in other units", "noise": "unlike", "other contrast": "unlike"}


def maps_of(n: int, k: int, seed: int, signal: float = 1.5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An effect that all share, in sizes of their own, and noise of participants and maps, in sizes of their own."""
    rng = np.random.default_rng(seed)
    pattern = rng.standard_normal(N_VOXELS) * (rng.random(N_VOXELS) < 0.3)
    sizes, spreads = np.exp(0.15 * rng.standard_normal((2, n, 1, 1)))
    own = 0.7 * rng.standard_normal((n, 1, N_VOXELS)) + rng.standard_normal((n, k, N_VOXELS))
    return (signal * sizes * pattern + spreads * own).reshape(n * k, -1), pattern


def looked_at(layout: MapLayout, maps: NDArray[np.float64]) -> Likeness:
    check = LikenessCheck.of(layout, maps.shape[1])
    return check.found(sum(check.pooled_sums(block) for block in np.array_split(maps, 5, axis=1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [7, 8])
def test_profiles_equal_plain_arithmetic(n: int) -> None:
    values = np.random.default_rng(1).normal(size=(n, 500)) + np.random.default_rng(2).normal(size=500)
    found = profiles_of(sums_of(values, np.arange(n))[:n])
    middle = np.median(values, axis=0)
    deviation = np.median(np.abs(values - middle), axis=0) / 0.6745
    for row in range(n):
        others = np.median(np.delete(values, row, axis=0), axis=0)
        assert found.correlation[row] == pytest.approx(np.corrcoef(values[row], others)[0, 1])
        assert found.slope[row] == pytest.approx(np.polyfit(others, values[row], 1)[0])
        assert found.mean[row] == pytest.approx(values[row].mean())
        assert found.spread[row] == pytest.approx(values[row].std() / np.median(values.std(axis=1)))
        assert found.extreme[row] == pytest.approx((np.abs(values[row] - middle) > 5 * deviation).mean())


@pytest.mark.parametrize(("kind", "words"), ODD.items())
@pytest.mark.parametrize(("n", "k"), [(12, 1), (20, 3)])
def test_an_odd_participant_is_found_and_nobody_else(kind: str, words: str, n: int, k: int) -> None:
    maps, pattern = maps_of(n, k, seed=n + k)
    own, rng = slice(2 * k, 3 * k), np.random.default_rng(9)
    if kind == "reversed":
        maps[own] *= -1
    elif kind == "scaled":
        maps[own] *= 10
    elif kind == "noise":
        maps[own] = rng.standard_normal(maps[own].shape) * maps[own].std()
    else:
        maps[own] += 1.5 * (rng.permutation(pattern) - pattern)
    (remark,) = looked_at(layout_of(everyone(n, k)), maps).remarks
    assert remark.startswith("sub-03: ")
    assert words in remark


def test_an_odd_session_of_an_ordinary_participant_is_found() -> None:
    maps, _ = maps_of(14, 3, seed=3)
    maps[4] *= -1
    found = looked_at(layout_of(everyone(14, 3)), maps)
    (remark,) = found.remarks
    assert remark.startswith("sub-02, ses-02: its effects have the opposite sign")
    assert found.standing_out == ["02"]


@pytest.mark.slow
def test_in_clean_studies_almost_nobody_stands_out() -> None:
    found = [
        bool(looked_at(layout_of(everyone(n, k)), maps_of(n, k, seed, signal)[0]).remarks)
        for seed in range(8)
        for n, k in ((8, 2), (12, 1), (20, 2))
        for signal in (0.0, 0.5, 1.5)
    ]
    assert sum(found) <= 2


def test_few_participants_are_compared_and_two_are_not() -> None:
    maps, _ = maps_of(5, 1, seed=4)
    maps[0] *= -1
    few = looked_at(layout_of(everyone(5, 1)), maps)
    assert few.participants["correlation"].idxmin() == 0
    assert not few.remarks
    assert looked_at(layout_of(everyone(2, 2)), np.ones((4, 8))).participants.empty


def test_equal_and_constant_maps_have_no_correlation() -> None:
    maps, _ = maps_of(9, 1, seed=5)
    maps[3] = 2.5
    assert looked_at(layout_of(everyone(9, 1)), maps).remarks == ["sub-04: its values are all the same."]
    table = likeness_table(looked_at(layout_of(everyone(9, 1)), np.ones((9, 10))))
    assert table["correlation"].isna().all()


@pytest.mark.slow
def test_the_table_and_the_page_name_who_stands_out(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=9, sessions=("01", "02"), missing=(), shape=(6, 6, 6))
    for session in ("01", "02"):
        study.write("05", session, -20 * study.effects["05", session], None)
    output = tmp_path / "out"
    call = [str(study.raw), str(output), "group", "-d", str(study.maps), "--session-contrast", "mean"]
    assert main([*call, "--strategy", "summary-statistics", "--nprocs", "1"]) == 0
    path = output / "group" / f"{START}_desc-likeness_metrics.tsv"
    table = pd.read_csv(path, sep="\t", dtype={"participant": str, "session": str}, na_values="n/a")
    assert len(table) == 9 + 18
    people = table[table["session"].isna()].set_index("participant")
    assert "in other units" in people.loc["05", "remark"]
    assert set(table.columns) < set(strict_json(path.with_suffix(".json")))
    assert "Look at maps that stand out before you trust the group. sub-05: its" in text_of(output / "group.html")
    assert "Participants&#39; mean maps beside each other; marked: sub-05" in (output / "group.html").read_text("utf-8")

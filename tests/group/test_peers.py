"""Other programs' answers to the same question, by the functions of benchmarks/peers.py, where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("psutil", reason="the benchmarks measure memory with it")

import peers

pytestmark = pytest.mark.slow
FEWER = 5
# largest difference of the effect (standard errors), of the standard error and of the variances (relative)
NEAR = {
    "nilearn": (1e-9, 1e-9, 0),
    "pyblmm": (1e-3, 1e-3, 1e-3),  # ends when the likelihood changes by less than 1e-6
    "statsmodels": (1e-2, 5e-2, 1e-2),  # its standard errors allow for the variances' being estimated
    "lme4": (1e-2, 1e-2, 1e-2),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    peers.draw_study(folder, 4000, FEWER)
    return folder


@pytest.fixture(scope="module")
def maps(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "maps.tsv", sep="\t", dtype=str)


@pytest.fixture(scope="module")
def ours(maps: pd.DataFrame) -> dict[str, peers.Answers]:
    found = {name: peers.of_strategy(name)(maps, FEWER) for name in ("mixed", "session-model", "summary-statistics")}
    found["mixed"] |= peers.own_components(maps)
    return found


@pytest.mark.parametrize("name", [name for name in peers.PROGRAMS if not name.startswith("SessionFX")])
def test_another_program_gives_the_same_estimates(
    name: str, maps: pd.DataFrame, ours: dict[str, peers.Answers]
) -> None:
    beside, package, work = peers.PROGRAMS[name]
    pytest.importorskip({"pyblmm": "blmm"}.get(package, package))
    assert_near(package, peers.differences(ours[beside], work(maps, FEWER)))


def test_lme4_gives_the_same_estimates(study: Path, ours: dict[str, peers.Answers]) -> None:
    found = peers.run(peers.LME4_NAME, study, FEWER)
    if found is None:
        pytest.skip("lme4 is not installed")
    assert_near("lme4", peers.differences(ours["mixed"], found.answers))


def test_a_program_is_measured_in_its_own_process_and_what_is_not_installed_is_said(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"SessionFX, mixed": peers.run("SessionFX, mixed", study, FEWER)}
    monkeypatch.setitem(peers.PROGRAMS, "a program", ("mixed", "a-package-that-is-not-there", peers.of_pyblmm))
    found["a program"] = peers.run("a program", study, FEWER)
    rows = peers.rows_of(found, dict.fromkeys(found, "mixed"))
    assert rows[0][:2] == ["SessionFX, mixed", "4 000"] and all(rows[0][2:4])
    assert rows[1][:2] == ["a program", "not installed"]


def assert_near(package: str, found: dict[str, np.ndarray]) -> None:
    effect, error, variances = NEAR[package]
    for name, limit in {"effect": effect, "error": error, "between": variances, "within": variances}.items():
        if name in found:
            assert found[name].max() <= limit, name

"""Two thousand damaged inputs: a sentence and a documented exit code for each, nobody lost, nothing written to them.

One case again: `pytest 'tests/program/test_fuzz.py::test_damaged_input_ends_in_a_sentence[runs-17]'`. Other cases than those
of every run: `SESSIONFX_FUZZ_SEEDS=1000:2000 pytest tests/program/test_fuzz.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzzing import KINDS, FuzzStudy, run_case

pytestmark = pytest.mark.slow


def seeds(kind: str) -> range:
    """Cases of a kind in every run, or those asked for."""
    asked = os.environ.get("SESSIONFX_FUZZ_SEEDS")
    return range(*map(int, asked.split(":"))) if asked else range(KINDS[kind][2])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FuzzStudy:
    return FuzzStudy.make(tmp_path_factory.mktemp("fuzz"))


def test_two_thousand_inputs_are_damaged() -> None:
    assert sum(n_inputs * n_cases for _, n_inputs, n_cases in KINDS.values()) >= 2000


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in seeds(kind)])
def test_damaged_input_ends_in_a_sentence(kind: str, seed: int, study: FuzzStudy, tmp_path: Path) -> None:
    case = run_case(kind, seed, study, tmp_path / "case")
    assert not case.problems, "\n".join([f"{kind}-{seed}", *case.problems])

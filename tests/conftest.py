"""Datasets and analyses that several tests look at, each made once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from calls import GroupCaller
from program import CONTRAST, run_command, simulated

# what tests call the program by, in a process of its own or to the end of a level
PROGRAM = {"run_command", "run_python", "analyse", "analysed"}
# fixtures that hold what such a call made
FINISHED = {"small_output", "finished", "output"}


settings.register_profile("fast", max_examples=20)  # make test-fast


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole programs are slow, and four of five cases of tests that have many: they need no mark of their own."""
    cases: Counter[str] = Counter()
    for item in items:
        code = getattr(getattr(item, "function", None), "__code__", None)
        fixtures, names = set(getattr(item, "fixturenames", ())), set(code.co_names if code else ())
        if fixtures & (PROGRAM | FINISHED) or names & PROGRAM:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("many"):
            test = item.nodeid.partition("[")[0]
            if cases[test] % 5:
                item.add_marker(pytest.mark.slow)
            cases[test] += 1


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three participants, three sessions (one missing), two runs, on a coarse grid."""
    return simulated(
        tmp_path_factory.mktemp("small"), n_participants=3, n_sessions=3, n_runs=2, n_volumes=60, voxel_size=12.0,
        missing=(("02", "03"),),
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_output(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both levels of the small dataset, reports included, run as a user does."""
    output = tmp_path_factory.mktemp("small-out") / "sessionfx"
    done = run_command(small_dataset, output, "participant", "group", "--contrast", CONTRAST, "--smoothing-fwhm", "8")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> GroupCaller:
    """Call the group level."""
    return GroupCaller(capsys)

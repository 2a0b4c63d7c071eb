"""Units of work are independent: a failure, a crash, a killed process stop only their own unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import units_of_work as work
from sessionfx.execution import Done, LocalExecutor, memory_limit_gb, workers_within


def run(
    function: Callable[..., int], *extra: object, n_processes: int, stop_on_failure: bool = False
) -> dict[str, Done[int]]:
    units = {f"unit-{number}": (number, *extra) for number in range(6)}
    with LocalExecutor(n_processes, n_threads=1) as executor:
        return {done.unit: done for done in executor.run_units(function, units, stop_on_failure=stop_on_failure)}


@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_unit_is_done_once(n_processes: int) -> None:
    assert {name: done.result for name, done in run(work.square, n_processes=n_processes).items()} == {
        f"unit-{n}": n * n for n in range(6)
    }


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_known_problem_fails_its_unit_in_words(n_processes: int) -> None:
    done = run(work.refuse_odd, n_processes=n_processes)
    assert [name for name in sorted(done) if done[name].failure] == ["unit-1", "unit-3", "unit-5"]
    failure = done["unit-3"].failure
    assert failure is not None
    assert failure.message == "3 is odd. Give an even number."
    assert failure.expected


@pytest.mark.parametrize("n_processes", [1, 2])
def test_an_unforeseen_fault_fails_its_unit_and_keeps_the_traceback(n_processes: int) -> None:
    done = run(work.crash_on_three, n_processes=n_processes)
    assert [name for name in done if done[name].failure] == ["unit-3"]
    failure = done["unit-3"].failure
    assert failure is not None
    assert "crash_on_three" in failure.details
    assert not failure.expected


def test_a_killed_process_fails_its_unit_only() -> None:
    done = run(work.die_on_three, n_processes=2)
    assert set(done) == {f"unit-{number}" for number in range(6)}
    assert [name for name in done if done[name].failure] == ["unit-3"]
    failure = done["unit-3"].failure
    assert failure is not None
    assert "memory" in failure.message


def test_a_unit_whose_process_dies_once_is_tried_again(tmp_path: Path) -> None:
    done = run(work.die_once, tmp_path / "mark", n_processes=2)
    assert all(one.failure is None for one in done.values())
    assert len(done) == 6


def test_stop_on_failure_leaves_the_rest_undone() -> None:
    assert list(run(work.refuse_odd, n_processes=1, stop_on_failure=True)) == ["unit-0", "unit-1"]


def test_memory_budget_limits_the_number_of_processes() -> None:
    assert workers_within(100.0, [5.0], 8) == 8
    assert workers_within(10.0, [2.0, 4.9], 8) == 2
    assert workers_within(1.0, [4.0], 8) == 1


def test_memory_limit_is_the_control_groups_where_it_is_smaller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text("2000000000\n")
    monkeypatch.setattr(
        "sessionfx.execution.memory._CGROUP_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "absent"))
    )
    assert memory_limit_gb() == 2.0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit_gb() > 0.1

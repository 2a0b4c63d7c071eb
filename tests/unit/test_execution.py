"""Units of work are independent: a failure, a crash, a killed process stop only their own unit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import units_of_work as work
from sessionfx.errors import ParticipantError
from sessionfx.execution import Done, LocalExecutor, in_slots, memory_limit_gb, workers_within
from sessionfx.execution.slots import own_slots


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


def test_own_process_survives_a_unit_that_is_killed() -> None:
    """One after the other in this process, the unit would have ended the test itself."""
    units = {f"unit-{number}": (number,) for number in range(5)}
    done = list(
        LocalExecutor(1, 1, memory_gb=0.5).run_units(work.die_on_three, units, needs_gb=dict.fromkeys(units, 1.0))
    )
    assert {one.unit: one.failure is None for one in done} == {name: name != "unit-3" for name in units}
    (failure,) = (one.failure for one in done if one.failure)
    assert "for want of memory" in failure.message


MACHINE = 8e12  # more than any machine these tests run on has


@pytest.fixture
def control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Lay out control groups: `membership` as in /proc/self/cgroup, and the limits that stand in files."""
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": MACHINE / 4096, "SC_PAGE_SIZE": 4096}[name])
    monkeypatch.setattr("sessionfx.execution.memory._CGROUP_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr("sessionfx.execution.memory._CGROUPS_OF_THIS_PROCESS", tmp_path / "membership")

    def lay_out(membership: str | None, **limits: object) -> None:
        if membership is not None:
            (tmp_path / "membership").write_text(membership)
        for name, limit in limits.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")

    return lay_out


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": 2_000_000_000}, 2.0),
        ("0::/\n", {"memory.max": "max"}, MACHINE / 1e9),
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": 3_000_000_000}, 3.0),
        ("0::/a/b\n", {"a/memory.max": 1_000_000_000, "a/b/memory.max": 4_000_000_000}, 1.0),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": 5_000_000_000}, 5.0),
        ("9:pids:/z\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": 6_000_000_000}, 6.0),
        ("4:memory:/job\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, MACHINE / 1e9),
        ("0::/../elsewhere\n", {"memory.max": 7_000_000_000}, 7.0),
        (None, {"memory.max": 2_000_000_000}, 2.0),
        (None, {}, MACHINE / 1e9),
    ],
    ids=["container", "no limit", "job", "outer group is stricter", "container, version 1", "job, version 1",
         "no limit, version 1", "outside the mounted groups", "membership unknown", "no control groups"],
)  # fmt: skip
def test_memory_limit_is_that_of_container_or_job(
    control_groups: Callable[..., None], membership: str | None, limits: dict[str, object], expected: float
) -> None:
    control_groups(membership, **limits)
    assert memory_limit_gb() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("variables", "megabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "3"}, 3000),
        ({"SLURM_MEM_PER_NODE": "0"}, MACHINE / 2**20),
        ({"SLURM_MEM_PER_CPU": "1000"}, MACHINE / 2**20),
    ],
)
def test_memory_limit_is_what_slurm_granted(
    control_groups: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    megabytes: float,
) -> None:
    control_groups(None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert memory_limit_gb() == pytest.approx(megabytes * 2**20 / 1e9)


def test_a_process_prepared_in_vain_keeps_nothing_open() -> None:
    """A call that is refused after it began to prepare ends at once, for those too who wait for its output's end."""
    program = (
        "from sessionfx.execution import LocalExecutor\n"
        "with LocalExecutor(2, 1) as executor:\n"
        "    executor.prepare(['units_of_sleep'])\n"
    )
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert time.monotonic() - started < 20


# Parts of units ---------------------------------------------------------------------------------------------


def test_parts_are_computed_at_the_same_time_and_come_in_order() -> None:
    """Three parts wait for each other, which they can only do side by side."""
    meeting = threading.Barrier(3, timeout=30)

    def meet(number: int) -> int:
        meeting.wait()
        return number * number

    with own_slots(3):
        assert list(in_slots(meet, [(number,) for number in range(6)])) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("n_slots", [1, 2])
def test_no_more_parts_at_a_time_than_slots(n_slots: int) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def count(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    with own_slots(n_slots):
        list(in_slots(count, [(number,) for number in range(8)]))
    assert most == n_slots


def test_a_part_that_fails_raises_and_those_not_begun_are_given_up() -> None:
    begun = []

    def fail_on_one(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ParticipantError("1 cannot be read. Provide the file.")
        time.sleep(0.05)
        return number

    with own_slots(2), pytest.raises(ParticipantError, match="1 cannot be read"):
        list(in_slots(fail_on_one, [(number,) for number in range(50)]))
    assert len(begun) < 10


def test_processes_share_their_slots() -> None:
    """Two units of four parts each, with two slots: never more than two parts at a time over both processes."""
    units = {f"unit-{number}": (number,) for number in range(2)}
    with LocalExecutor(2, n_threads=1) as executor:
        done = [one.result for one in executor.run_units(work.spans_of_parts, units)]
    assert all(spans is not None and len(spans) == 4 for spans in done)
    moments = sorted(moment for spans in done if spans for span in spans for moment in span)
    at_a_time = [sum(start <= moment < end for spans in done if spans for start, end in spans) for moment in moments]
    assert max(at_a_time) == 2

"""Units of work are independent: a failure, a crash, a killed process stop only their own unit."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import units_of_work as work
from sessionfx.execution import Done, LocalExecutor, Unit, available_processors, memory_limit_gb, workers_within


def run(function: Callable[..., int], *extra: object, n_processes: int) -> dict[str, Done]:
    units = work.in_turn(function, *((number, *extra) for number in range(6)))
    with LocalExecutor(n_processes, n_threads=1) as executor:
        return {done.unit.name: done for done in executor.run_units(units)}


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
    assert all(each.failure is None for each in done.values())
    assert len(done) == 6


@pytest.mark.parametrize("n_processes", [1, 3])
def test_who_stops_listening_gives_up_the_rest(n_processes: int, tmp_path: Path) -> None:
    units = work.in_turn(work.leave_a_mark, *((number, tmp_path) for number in range(40)))
    with LocalExecutor(n_processes, n_threads=1) as executor:
        for _ in executor.run_units(units):
            break
    started = len(list(tmp_path.iterdir()))
    assert started <= 1 + 2 * n_processes
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == started
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_result_makes_further_units_ready(n_processes: int) -> None:
    """Pairs are summed once both are there, and so on, up to the root of a tree."""
    waiting, known, order = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)], dict(enumerate(range(8))), []

    def ready() -> Unit | None:
        for pair in waiting:
            if all(number in known for number in pair):
                waiting.remove(pair)
                return Unit(name=f"{pair}", function=work.add, arguments=(*pair, *(known[number] for number in pair)))
        return None

    with LocalExecutor(n_processes, n_threads=1) as executor:
        for done in executor.run_units(ready):
            first, total = done.result
            known[8 + first // 2] = total
            order.append(first // 2)
    assert sorted(order) == list(range(7))
    assert known[14] == sum(range(8))


def test_one_unit_alone_is_done_in_this_process() -> None:
    with LocalExecutor(4, n_threads=1) as executor:
        (done,) = executor.run_units(work.in_turn(work.square_and_say_where, (3,)))
    assert done.result == (9, os.getpid())


def test_several_units_are_done_side_by_side(tmp_path: Path) -> None:
    """Three wait for each other, which they can only do in three processes."""
    with LocalExecutor(3, n_threads=1) as executor:
        done = list(executor.run_units(work.in_turn(work.meet, *((number, 3, tmp_path) for number in range(3)))))
    assert all(each.result for each in done)


@pytest.mark.parametrize(("need_gb", "most"), [(2.0, 2), (3.0, 1)])
def test_no_more_units_at_a_time_than_fit_into_memory(need_gb: float, most: int) -> None:
    units = work.in_turn(work.span, *((0.1,) for _ in range(6)))
    with LocalExecutor(3, n_threads=1, memory_gb=4.0) as executor:
        spans = [done.result for done in executor.run_units(units, need_gb=need_gb)]
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) <= most


def test_memory_budget_limits_the_number_of_processes() -> None:
    assert workers_within(100.0, 5.0, 8) == 8
    assert workers_within(10.0, 4.9, 8) == 2
    assert workers_within(1.0, 4.0, 8) == 1
    assert workers_within(1.0, 0.0, 8) == 8


def test_own_process_survives_a_unit_that_is_killed() -> None:
    """One after the other in this process, the unit would have ended the test itself."""
    units = work.in_turn(work.die_on_three, *work.numbers(*range(5)))
    done = list(LocalExecutor(1, 1, memory_gb=0.5).run_units(units, need_gb=1.0))
    assert {each.unit.name: each.failure is None for each in done} == {f"unit-{n}": n != 3 for n in range(5)}
    (failure,) = (each.failure for each in done if each.failure)
    assert "because memory ran out" in failure.message


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_process_computes_with_the_threads_asked_for(n_processes: int, n_threads: int) -> None:
    with LocalExecutor(n_processes, n_threads) as executor:
        done = list(executor.run_units(work.in_turn(work.threads_of_the_linear_algebra, *work.numbers(1, 2, 3))))
    assert all(each.result and set(each.result) == {n_threads} for each in done)


MACHINE = 8e12  # more than any machine these tests run on has


@pytest.fixture
def control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Lay out control groups: `membership` as in /proc/self/cgroup, and the limits that stand in files."""
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": MACHINE / 4096, "SC_PAGE_SIZE": 4096}[name])
    monkeypatch.setattr("sessionfx.execution.resources._CGROUP_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr("sessionfx.execution.resources._CGROUPS_OF_THIS_PROCESS", tmp_path / "membership")

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
    control_groups: Callable[..., None], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], megabytes: float
) -> None:
    control_groups(None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert memory_limit_gb() == pytest.approx(megabytes * 2**20 / 1e9)


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 16),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": 250000, "cpu/job/cpu.cfs_period_us": 50000}, 5),
        ("4:cpu,cpuacct:/docker/x\n", {"cpu/cpu.cfs_quota_us": 400000, "cpu/cpu.cfs_period_us": 100000}, 4),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 16),
        (None, {}, 16),
    ],
    ids=["container", "rounded up", "at least one", "no quota", "more than the machine has", "outer group is stricter",
         "job, version 1", "container, version 1", "no quota, version 1", "no control groups"],
)  # fmt: skip
def test_processors_are_those_of_the_quota_of_container_or_job(
    control_groups: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    membership: str | None,
    limits: dict[str, object],
    expected: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    control_groups(membership, **limits)
    assert available_processors() == expected


def test_a_process_prepared_in_vain_keeps_nothing_open() -> None:
    """A call that is refused after it began to prepare ends at once, for those too who wait for its output's end."""
    program = "from sessionfx.execution import load_ahead\nload_ahead(['units_of_sleep'])\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])}
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment, timeout=300)

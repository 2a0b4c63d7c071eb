"""Beyond one machine: workers of a Dask cluster make the same maps, lost ones are replaced, misfits are named."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import units_of_work as work
from array_maps import MapsInMemory, estimate_in_blocks
from output_trees import results
from program import BOTH, CONTRAST, run_command, simulated
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.cli import main
from sessionfx.errors import ExecutorError, OutputError
from sessionfx.execution import Unit, limited_threads
from sessionfx.execution.dask import DaskExecutor, Requirements, _DaskWorkers
from sessionfx.group.stack import MapStack
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.blocks import VOXELS_PER_BLOCK
from sessionfx.space.grid import Grid
from sessionfx.statistics.estimates import Estimate

dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'sessionfx[dask]'")
distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'sessionfx[dask]'")

pytestmark = pytest.mark.slow  # a cluster starts in seconds
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # A local cluster gives a worker up for good that is away 15 s after it was lost: on a busy machine one that is
    # killed again and again is.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def executor(cluster: Any, tmp_path: Path) -> Iterator[DaskExecutor]:
    with DaskExecutor(cluster.scheduler_address, Requirements(tmp_path, (), n_threads=1)) as executor:
        yield executor


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("dask"), n_participants=3, voxel_size=10.0)


@pytest.fixture(scope="module")
def local_output(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("local") / "out"
    assert run_command(*arguments(dataset, output), "--nprocs", "1").returncode == 0
    return output


def arguments(dataset: Path, output: Path) -> list[str]:
    return [*map(str, (dataset, output)), *BOTH, "--contrast", CONTRAST, "--no-report", "--permutations", "70"]


def on_dask(address: str) -> list[str]:
    return ["--executor", "dask", "--scheduler", address]


@contextmanager
def process(*command: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs as long as the block does."""
    running = subprocess.Popen(
        list(map(str, command)), env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.communicate(timeout=15)
        except subprocess.TimeoutExpired:  # Dask waits for much before it ends
            running.kill()
            running.communicate()


@contextmanager
def scheduler(**environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard"]
    with process(*command, **environment) as running:
        assert running.stderr is not None
        address = next(line.split()[-1] for line in running.stderr if "Scheduler at:" in line)
        yield address, running


def worker_command(address: str, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard",
        *options,
    ]  # fmt: skip


def wait_for_first_design(output: Path) -> None:
    deadline = time.monotonic() + 300
    while not list(output.glob("sub-*/**/*_design.tsv")):
        assert time.monotonic() < deadline, "no participant was begun"
        time.sleep(0.01)


def refusal(address: str, requirements: Requirements) -> str:
    """Why the workers of a scheduler do not take a unit."""
    with DaskExecutor(address, requirements) as executor, pytest.raises(ExecutorError) as raised:
        list(executor.run_units(work.in_turn(work.square, (1,))))
    return str(raised.value)


# units and items


def test_every_unit_is_done_once(executor: DaskExecutor) -> None:
    done = list(executor.run_units(work.in_turn(work.square, *work.numbers(*range(6)))))
    assert {each.unit.name: each.result for each in done} == {f"unit-{n}": n * n for n in range(6)}
    assert len(done) == 6


def test_a_known_problem_fails_its_unit_in_words(executor: DaskExecutor) -> None:
    units = work.in_turn(work.refuse_odd, *work.numbers(*range(4)))
    failures = {done.unit.name: done.failure for done in executor.run_units(units) if done.failure}
    assert set(failures) == {"unit-1", "unit-3"}
    assert failures["unit-3"].message == "3 is odd. Give an even number."
    assert failures["unit-3"].expected


def test_an_unforeseen_fault_fails_its_unit_and_keeps_the_traceback(executor: DaskExecutor) -> None:
    (done,) = executor.run_units(work.in_turn(work.crash_on_three, (3,)))
    assert done.failure is not None
    assert "crash_on_three" in done.failure.details
    assert not done.failure.expected


def test_a_unit_that_cannot_write_stops_the_call(executor: DaskExecutor) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        list(executor.run_units(work.in_turn(work.write_nowhere, (1,))))


def test_who_stops_listening_gives_up_the_rest(executor: DaskExecutor, tmp_path: Path) -> None:
    for _ in executor.run_units(work.in_turn(work.leave_a_mark, *((number, tmp_path) for number in range(60)))):
        break
    time.sleep(1)
    assert len([path for path in tmp_path.iterdir() if path.name.isdecimal()]) < 20


def test_items_keep_their_order_and_are_spread_over_the_workers(executor: DaskExecutor) -> None:
    found = list(executor.map_ordered(work.square_and_say_where, ((number,) for number in range(12))))
    assert [square for square, _ in found] == [number * number for number in range(12)]
    workers = {pid for _, pid in found}
    assert len(workers) == 2
    assert os.getpid() not in workers


def test_what_a_function_raises_is_raised_here(executor: DaskExecutor) -> None:
    with pytest.raises(RuntimeError, match="an unforeseen fault") as raised:
        list(executor.map_ordered(work.crash_on_three, [(3,)]))
    assert "crash_on_three" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("fixed_effects", ["equal", "precision"])
def test_blocks_of_voxels_give_the_same_bits_as_here(executor: DaskExecutor, strategy: str, fixed_effects: str) -> None:
    sessions = ("01", "02", "03")
    layout = MapLayout(tuple(label for label in "abcde" for _ in sessions), sessions * 5)
    asked = Question(resolve_session_contrasts(["mean"], sessions)[0])
    plan = STRATEGIES[strategy].plan(layout, asked, GroupOptions(fixed_effects=fixed_effects))
    rng = np.random.default_rng(3)
    shape = (15, 2 * VOXELS_PER_BLOCK + 100)
    maps = MapsInMemory(rng.normal(size=shape), rng.uniform(0.5, 2.0, size=shape))
    with limited_threads(1):  # as in the program, and on the workers
        _, here = estimate_in_blocks(plan, maps)
    _, there = estimate_in_blocks(plan, maps, executor.map_ordered)
    assert isinstance(here, Estimate)
    assert isinstance(there, Estimate)
    assert there.effect.tobytes() == here.effect.tobytes()
    assert there.variance.tobytes() == here.variance.tobytes()
    assert np.asarray(there.dof).tobytes() == np.asarray(here.dof).tobytes()


def test_what_a_block_of_many_maps_sends_is_small_and_its_answers_are_the_same_bits(
    executor: DaskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, n = ("01", "02"), 1500
    layout = MapLayout(tuple(f"{label:04d}" for label in range(n) for _ in sessions), sessions * n)
    question = Question(resolve_session_contrasts(["mean"], sessions)[0])
    plan = STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
    values = np.random.default_rng(4).normal(size=(2 * n, 200)) + 1
    sizes: list[int] = []
    submit = _DaskWorkers.submit_item

    def measured(self: _DaskWorkers, function: Any, item: tuple[Any, ...]) -> Any:
        sizes.append(len(pickle.dumps((function, item))))
        return submit(self, function, item)

    monkeypatch.setattr(_DaskWorkers, "submit_item", measured)
    with scratch_file(tmp_path, is_shared=True) as file:
        store = BlockStore(file, tmp_path, *values.shape, 64)
        store.write(0, values)
        store.share()
        place = np.ones((200, 1, 1), dtype=bool)
        maps = MapStack(layout, place, Grid(place.shape, np.eye(4)), 2 * n * place, (), store, None, place.ravel())
        with limited_threads(1):
            here = estimate_in_blocks(plan, MapsInMemory(values))[1]
        there = estimate_in_blocks(plan, maps, executor.map_ordered)[1]
    assert len(sizes) == 4
    assert max(sizes) < 10_000
    assert isinstance(here, Estimate)
    assert isinstance(there, Estimate)
    assert there.effect.tobytes() == here.effect.tobytes()
    assert there.variance.tobytes() == here.variance.tobytes()
    assert list(tmp_path.glob("*")) == list(tmp_path.glob(".sessionfx-*"))  # the executor's own


def test_nothing_is_left_in_the_output_folder(cluster: Any, tmp_path: Path) -> None:
    with DaskExecutor(cluster.scheduler_address, Requirements(tmp_path, (), n_threads=1)) as executor:
        list(executor.run_units(work.in_turn(work.square, (1,))))
    assert list(tmp_path.iterdir()) == []


def test_three_workers_work_at_the_same_time(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        DaskExecutor(cluster.scheduler_address, Requirements(tmp_path, (), n_threads=1)) as executor,
    ):
        done = executor.run_units(work.in_turn(work.meet, *((number, 3, tmp_path) for number in range(3))))
        assert all(each.result for each in done)


# lost workers


def test_a_unit_whose_worker_dies_once_is_tried_again(executor: DaskExecutor, tmp_path: Path) -> None:
    units = work.in_turn(work.die_once, *((number, tmp_path / "mark") for number in range(6)))
    done = list(executor.run_units(units))
    assert {each.unit.name: each.result for each in done} == {f"unit-{number}": number for number in range(6)}


def test_a_unit_that_kills_its_workers_fails_alone(executor: DaskExecutor) -> None:
    units = work.in_turn(work.die_on_three, *work.numbers(*range(6)))
    done = {each.unit.name: each for each in executor.run_units(units)}
    assert set(done) == {f"unit-{number}" for number in range(6)}
    failures = {name: each.failure.message for name, each in done.items() if each.failure}
    assert set(failures) == {"unit-3"}
    assert "killed again and again, most likely because memory ran out" in failures["unit-3"]


def test_an_item_that_kills_its_workers_stops_the_call_in_words(executor: DaskExecutor) -> None:
    with pytest.raises(ExecutorError, match="killed again and again at the same block of voxels"):
        list(executor.map_ordered(work.die_on_three, [(3,)]))


# the whole program


def test_both_levels_make_the_same_files_as_on_one_machine(
    cluster: Any, dataset: Path, local_output: Path, tmp_path: Path
) -> None:
    done = run_command(*arguments(dataset, tmp_path / "out"), *on_dask(cluster.scheduler_address))
    assert done.returncode == 0, done.stderr
    for participant in ("01", "02", "03"):
        assert f"sub-{participant}: done in" in done.stderr
    assert results(tmp_path / "out") == results(local_output)


def test_two_threads_of_the_linear_algebra_make_the_same_files_as_on_one_machine(
    cluster: Any, dataset: Path, tmp_path: Path
) -> None:
    threads = ["--omp-nthreads", "2", "--participant-label", "01", "02"]
    here = run_command(*arguments(dataset, tmp_path / "here"), *threads, "--nprocs", "1")
    there = run_command(*arguments(dataset, tmp_path / "there"), *threads, *on_dask(cluster.scheduler_address))
    assert (here.returncode, there.returncode) == (0, 0)
    assert results(tmp_path / "there") == results(tmp_path / "here")


def test_workers_killed_in_the_middle_leave_no_trace_in_the_results(
    cluster: Any, dataset: Path, local_output: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "sessionfx", *arguments(dataset, output), *on_dask(cluster.scheduler_address)]
    with distributed.Client(cluster) as client, process(*command) as running:
        wait_for_first_design(output)
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        _, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert results(output) == results(local_output)


def test_sigterm_ends_the_call_with_a_code_of_its_own(cluster: Any, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "sessionfx", *arguments(dataset, output), *on_dask(cluster.scheduler_address)]
    with process(*command) as running:
        wait_for_first_design(output)
        running.terminate()
        assert running.wait(timeout=300) == 143


# in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scheduler", "tcp://127.0.0.1:8786"], "--scheduler needs --executor dask"),
        (["--executor", "dask"], "--executor dask needs --scheduler"),
        (on_dask("headnode"), "'headnode' is neither slurm nor an address"),
    ],
)
def test_options_that_name_no_scheduler_or_no_dask_are_refused(
    options: list[str], said: str, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(dataset, tmp_path / "out"), *options]) == 2
    assert said in capfd.readouterr().err


def test_absent_extra_is_named_with_its_command(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)  # how Python marks what cannot be imported
    assert main([*arguments(dataset, tmp_path / "out"), *on_dask("tcp://127.0.0.1:8786")]) == 69
    assert "pip install 'sessionfx[dask]'" in capfd.readouterr().err


def test_slurm_without_sbatch_is_refused(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*arguments(dataset, tmp_path / "out"), *on_dask("slurm")]) == 69
    assert "needs the command sbatch" in capfd.readouterr().err


def test_unreachable_scheduler_is_one_paragraph(dataset: Path, tmp_path: Path) -> None:
    done = run_command(*arguments(dataset, tmp_path / "out"), *on_dask("tcp://127.0.0.1:9"))
    assert done.returncode == 69
    assert done.stderr.startswith("sessionfx: The Dask scheduler tcp://127.0.0.1:9 cannot be reached")
    assert done.stderr.count("\n") == 1


def test_workers_that_do_not_see_the_input_say_which_folder(cluster: Any, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    message = refusal(cluster.scheduler_address, Requirements(tmp_path, (absent,), n_threads=1))
    assert f"cannot see {absent} as it is here" in message
    assert "on a file system that all share" in message


def test_another_folder_under_the_same_path_is_not_taken_for_the_output_folder(tmp_path: Path) -> None:
    elsewhere = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*elsewhere, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a folder of its own (unshare)")
    mounted = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path)]
    with scheduler() as (address, _), process(*elsewhere, *mounted, *worker_command(address)):
        assert f"cannot see {tmp_path} as it is here" in refusal(address, Requirements(tmp_path, (), n_threads=1))


def test_workers_of_another_version_are_refused(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(SOURCE / "sessionfx", other / "sessionfx", ignore=shutil.ignore_patterns("__pycache__"))
    module = other / "sessionfx" / "__init__.py"
    lines = module.read_text().splitlines()
    module.write_text("\n".join('__version__ = "0.0.9"' if "__version__ =" in line else line for line in lines) + "\n")
    with scheduler() as (address, _), process(*worker_command(address), PYTHONPATH=str(other)):
        done = run_command(*arguments(dataset, tmp_path / "out"), *on_dask(address))
    assert done.returncode == 69
    assert "has sessionfx 0.0.9, and here it is" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("sub-*"))


@pytest.mark.parametrize("misfit", ["scheduler", "worker"])
def test_installation_without_this_programs_functions_is_refused(tmp_path: Path, misfit: str) -> None:
    (tmp_path / "sessionfx").mkdir()
    (tmp_path / "sessionfx" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    (tmp_path / "sessionfx-0.0.1.dist-info").mkdir()
    (tmp_path / "sessionfx-0.0.1.dist-info" / "METADATA").write_text("Name: sessionfx\nVersion: 0.0.1\n")
    own, other = {"PYTHONPATH": str(SOURCE)}, {"PYTHONPATH": str(tmp_path)}
    with (
        scheduler(**(other if misfit == "scheduler" else own)) as (address, _),
        process(*worker_command(address), **(other if misfit == "worker" else own)),
    ):
        message = refusal(address, Requirements(tmp_path, (), n_threads=1))
    assert "has sessionfx 0.0.1 installed, and here it is" in message


def test_workers_with_several_threads_are_refused(tmp_path: Path) -> None:
    with scheduler() as (address, _), process(*worker_command(address, "--nthreads=3")):
        message = refusal(address, Requirements(tmp_path, (), n_threads=1))
    assert "does 3 tasks at a time" in message
    assert "--nthreads 1" in message


def test_a_misfit_that_comes_later_is_named_and_given_no_work(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("sessionfx.execution.dask.say", said.append)
    misfits: list[int] = []

    def units() -> Iterator[Unit]:
        unit = partial(Unit, function=work.square_and_say_where, arguments=(1,))
        yield unit(name="first")
        with process(*worker_command(cluster.scheduler_address, "--nthreads=3")) as misfit:
            misfits.append(misfit.pid)
            deadline = time.monotonic() + 300
            while not said and time.monotonic() < deadline:
                time.sleep(0.1)
                yield unit(name="while it is checked")
            yield from (unit(name=f"{number}") for number in range(20))

    with DaskExecutor(cluster.scheduler_address, Requirements(tmp_path, (), n_threads=1)) as executor:
        done = list(executor.run_units(partial(next, units(), None)))
    assert len(done) > 20
    assert not {each.result[1] for each in done} & set(misfits)
    (sentence,) = said
    assert "does 3 tasks at a time" in sentence
    assert sentence.endswith("It is given no work.")


def test_waiting_for_workers_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = f"{SOURCE}:{Path(__file__).parents[1] / 'support'}"
    with (
        scheduler(PYTHONPATH=path) as (address, _),
        DaskExecutor(address, Requirements(tmp_path, (), n_threads=1)) as executor,
    ):
        done: list[Any] = []
        begun = threading.Thread(target=lambda: done.extend(executor.run_units(work.in_turn(work.square, (3,)))))
        begun.start()
        time.sleep(1)
        assert done == []
        with process(*worker_command(address), PYTHONPATH=path):
            begun.join(timeout=300)
    assert [each.result for each in done] == [9]
    assert f"Dask scheduler {address} has no workers; waiting for them." in capfd.readouterr().err


def test_lost_scheduler_ends_the_call_in_words(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with (
        scheduler() as (address, head),
        process(*worker_command(address)),
        process(sys.executable, "-m", "sessionfx", *arguments(dataset, output), *on_dask(address)) as running,
    ):
        wait_for_first_design(output)
        head.kill()
        _, said = running.communicate(timeout=300)
    assert running.returncode == 69
    assert "was lost. What was finished is kept" in said
    assert "Traceback" not in said


def test_an_address_that_accepts_and_never_answers_is_given_up(dataset: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        done = run_command(*arguments(dataset, tmp_path / "out"), *on_dask(address))
    assert done.returncode == 69
    assert done.stderr.startswith(f"sessionfx: The Dask scheduler {address} cannot be reached (nothing that speaks")
    assert done.stderr.count("\n") == 1


def test_an_encrypted_address_without_certificates_is_refused_in_one_paragraph(dataset: Path, tmp_path: Path) -> None:
    """Dask's client, which never came to be, speaks when it is destroyed."""
    done = run_command(*arguments(dataset, tmp_path / "out"), *on_dask("tls://127.0.0.1:1"))
    assert done.returncode == 69
    assert "check your TLS configuration" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_scheduler_that_stops_answering_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scheduler() as (address, head), DaskExecutor(address, Requirements(tmp_path, (), n_threads=1)) as executor:
        monkeypatch.setattr("sessionfx.execution.dask._ANSWER_SECONDS", 3.0)
        head.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ExecutorError, match="was lost"):
                list(executor.run_units(work.in_turn(work.square, (1,))))
        finally:
            head.send_signal(signal.SIGCONT)

"""Nothing that was written is lost or damaged, and nothing outside the output folder is touched."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import program
from program import simulated
from sessionfx.bids import writing as output_files
from sessionfx.bids.derivatives import BIDSIGNORE, prepare_output
from sessionfx.bids.names import is_recorded_name, output_place
from sessionfx.bids.writing import (
    collected,
    give_names,
    locked,
    remove,
    remove_stale_temporaries,
    write_json,
    write_text,
)
from sessionfx.errors import OutputError, ParticipantError
from sessionfx.execution import Done, LocalExecutor, Unit
from sessionfx.options.groups import Execution
from sessionfx.tasks import loop
from sessionfx.tasks.loop import find_work
from sessionfx.tasks.records import Record
from sessionfx.tasks.task import Chain, Kind, Task

SPACE = "MNI152NLin2009cAsym"
LABEL = "incongruentMinusCongruent"
PARTICIPANT_RECORD = f"logs/sub-01_task-stroop_space-{SPACE}_record.json"
PARTICIPANT_LOG = f"logs/sub-01_task-stroop_space-{SPACE}_log.txt"
REFERENCE = f"sub-01/figures/sub-01_task-stroop_space-{SPACE}_boldref.nii.gz"
EFFECT = f"sub-01/ses-01/func/sub-01_ses-01_task-stroop_space-{SPACE}_contrast-{LABEL}_stat-effect_desc-fixedEffects_statmap.nii.gz"


analyse = partial(program.analyse, levels=("participant",), report=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    assert analyse(dataset, output, levels=("participant", "group")) == 0
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished analysis, times kept."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def content(folder: Path) -> dict[str, bytes]:
    """Every result by name; without what tells of calls and of when inputs were written."""
    return {
        str(path.relative_to(folder)): re.sub(rb'"mark": "[0-9a-f]*"', b"", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "logs"
    }


# --- one file ---------------------------------------------------------------------------------------------------------


def test_the_output_folder_is_found_from_every_file_of_it(tmp_path: Path) -> None:
    for name, parts in (
        ("dataset_description.json", ()),
        ("sub-01.html", ()),
        ("logs/x_record.json", ("logs",)),
        ("group/figures/x_section.json", ("group", "figures")),
        ("sub-01/ses-1/func/x.nii.gz", ("sub-01", "ses-1", "func")),
        ("sub-01/func/x.nii.gz", ("sub-01", "func")),
        ("sub-01/figures/x.json", ("sub-01", "figures")),
    ):
        for root in (tmp_path, tmp_path / "logs", tmp_path / "group", tmp_path / "sub-02" / "func"):
            assert output_place(root / name) == (root, parts)


@pytest.mark.parametrize(
    "name",
    ["../victim", "/etc/passwd", "sub-01/../../victim_log.txt", "logs/../../x_log.txt", "sub-01/func/notes.txt",
     "dataset_description.json", "sub-01//func/x_statmap.json", "sub-\0/func/x_statmap.json", ""],
)  # fmt: skip
def test_names_that_are_not_of_results_are_none(name: str) -> None:
    assert not is_recorded_name(name)


def test_names_of_all_recorded_files_are_known(finished: Path) -> None:
    names = [
        name
        for record in finished.glob("logs/*.json")
        if not record.name.endswith("_smdl.json")
        for entry in json.loads(record.read_text()).values()
        for name in entry["files"]
    ]
    assert len(names) > 100
    assert all(map(is_recorded_name, names))


def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "logs" / "a.txt", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "logs" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "rename", lambda *names, **at: (done.append("rename"), rename(*names, **at))[1])
    write_text(tmp_path / "logs" / "a.txt", "a")
    assert done == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("function", ["open", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_is_an_output_error_that_leaves_nothing(
    function: str, cause: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "logs" / "a.txt", "before")
    original = getattr(os, function)

    def fail(first: Any, *arguments: Any, **options: Any) -> Any:
        is_folder = function == "open" and not arguments[0] & os.O_CREAT
        if is_folder:
            return original(first, *arguments, **options)
        raise OSError(cause, os.strerror(cause))

    # what goes wrong while cleaning up does not hide the cause
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "cleaning")))
    monkeypatch.setattr(os, function, fail)
    path = tmp_path / ("sub-01/func" if function == "mkdir" else "logs") / "a.txt"
    with pytest.raises(OutputError, match=os.strerror(cause)):
        write_text(path, "after")
    monkeypatch.undo()
    assert (tmp_path / "logs" / "a.txt").read_text() == "before"


def test_files_written_together_get_their_names_together_and_none_if_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "logs" / "a.txt", "before")
    with collected() as files:
        for name in "ab":
            write_text(tmp_path / "logs" / f"{name}.txt", "after")
    assert (tmp_path / "logs" / "a.txt").read_text() == "before"
    assert not (tmp_path / "logs" / "b.txt").exists()
    give_names(files)
    assert {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()} == {
        "a.txt": "after",
        "b.txt": "after",
    }
    with pytest.raises(OutputError), collected():
        write_text(tmp_path / "logs" / "a.txt", "later")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        write_text(tmp_path / "logs" / "c.txt", "later")
    assert {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()} == {
        "a.txt": "after",
        "b.txt": "after",
    }


@pytest.mark.parametrize(
    ("folder", "error"),
    [("logs", OutputError), ("group", OutputError), ("sub-01", ParticipantError), ("sub-01/ses-1", ParticipantError)],
)
def test_folders_that_are_links_are_refused_by_name(folder: str, error: type[Exception], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "out" / folder
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    place = {"logs": "logs", "group": "group"}.get(folder, "sub-01/ses-1/func")
    with pytest.raises(error, match=f"{link} is a link"):
        write_text(tmp_path / "out" / place / "a.txt", "a")
    (elsewhere / "a.txt").write_text("precious")
    if folder in ("logs", "group"):
        with pytest.raises(error, match="is a link"):
            remove(link / "a.txt")
    assert [path.read_text() for path in elsewhere.iterdir()] == ["precious"]


def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    write_text(tmp_path / "logs" / "dataset_description.json", "{}")
    write_text(tmp_path / "logs" / "logs" / "a.txt", "a")
    assert (tmp_path / "disk" / "logs" / "a.txt").read_text() == "a"


def test_a_file_that_is_a_link_to_elsewhere_is_refused_and_one_within_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    logs = tmp_path / "out" / "logs"
    write_text(logs / "kept.txt", "kept")
    (logs / "a.txt").symlink_to(tmp_path / "precious")
    (logs / "b.txt").symlink_to("kept.txt")
    with pytest.raises(OutputError, match=r"a\.txt is a link"):
        write_text(logs / "a.txt", "a")
    write_text(logs / "b.txt", "b")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (logs / "kept.txt").read_text() == "kept"
    assert not (logs / "b.txt").is_symlink()


@pytest.mark.parametrize(
    ("name", "error"),
    [*((name, ParticipantError) for name in ("sub-01.html", "logs/sub-01_record.json", "sub-01/func/sub-01_design.tsv")),
     *((name, OutputError) for name in ("group.html", "logs/task-x_group.json", "dataset_description.json"))],
)  # fmt: skip
def test_a_folder_in_place_of_a_file_stops_those_whose_file_it_is(
    name: str, error: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(error, match="a folder is in its place"):
        write_text(tmp_path / name, "a")


def deny(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_who_may_not_write_into_a_participants_folder_may_write_into_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub-01" / "func").mkdir(parents=True)
    closed = (tmp_path / "sub-01" / "func").stat().st_ino
    original = os.open

    def guard(name: Any, flags: int, *arguments: Any, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and dir_fd is not None and os.fstat(dir_fd).st_ino == closed:
            deny()
        return original(name, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", guard)
    with pytest.raises(ParticipantError, match="Permission denied"):
        write_text(tmp_path / "sub-01" / "func" / "a.txt", "a")
    write_text(tmp_path / "sub-02" / "func" / "a.txt", "a")
    # who may not make a participant's folder may make none
    monkeypatch.setattr(os, "mkdir", deny)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "sub-03" / "func" / "a.txt", "a")


def test_old_temporaries_are_removed_and_those_at_work_stay(tmp_path: Path) -> None:
    places = [tmp_path, tmp_path / "logs", tmp_path / "group" / "figures"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for name, age in ((".sessionfx-old", 7200), (".sessionfx-new", 0)):
            (place / name).touch()
            os.utime(place / name, (time.time() - age,) * 2)
    prepare_output(tmp_path, {})
    remove_stale_temporaries(tmp_path / "group")
    assert [name for place in places for name in os.listdir(place) if name == ".sessionfx-old"] == []  # noqa: PTH208
    assert all((place / ".sessionfx-new").exists() for place in places)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_lines_of_others_in_bidsignore_stay(tmp_path: Path) -> None:
    (tmp_path / ".bidsignore").write_bytes(b"\xff\nlogs")
    prepare_output(tmp_path, {})
    lines = (tmp_path / ".bidsignore").read_bytes().split(b"\n")
    assert lines[:2] == [b"\xff", b"logs"]
    assert {line.encode() for line in BIDSIGNORE} <= set(lines)
    assert lines.count(b"logs") == 1


@pytest.mark.parametrize("name", [".bidsignore", "dataset_description.json"])
def test_a_pipe_in_the_output_folder_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OutputError, match="is a pipe"):
        prepare_output(tmp_path, {})


@pytest.mark.parametrize("text", ["{", '{"a":' * 100_000, "[]", '{"a": ' + "1" * 5000 + "}"])
def test_a_broken_description_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text(text)
    with pytest.raises(OutputError, match="another output folder"):
        prepare_output(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 300, "File name too long"), ("circle", "[Ss]ymbolic links|Symlink loop")]
)
def test_an_output_folder_that_cannot_be_named_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OutputError, match=rf"cannot be used \(.*({reason})"):
        prepare_output(tmp_path / name, {})


# --- records ----------------------------------------------------------------------------------------------------------


def record_of(output: Path) -> Record:
    return Record(output / "logs" / "sub-01_record.json", output)


def path_of(output: Path, name: str) -> Path:
    return output / "sub-01" / "func" / f"sub-01_desc-{name}_statmap.json"


def task_of(
    output: Path, name: str, *files: str, fingerprint: str = "x", kind: Kind = "result", made_from: str = ""
) -> Task:
    """A task that makes a file of its own name, unless others are named."""
    return Task(
        name=name, run=lambda _: None, kind=kind, fingerprint=fingerprint, inputs=(made_from,) if made_from else (),
        outputs=tuple(path_of(output, file) for file in files or (name,)),
    )  # fmt: skip


def chain_of(output: Path, *tasks: Task, **sources: str) -> Chain:
    record = output / "logs" / "sub-01_record.json"
    return Chain(name="sub-01", record=record, tasks=tasks, open=lambda _: nullcontext(), sources=sources)


def finish(output: Path, *tasks: Task, record: Record | None = None, **sources: str) -> int:
    """Write what the tasks are to make, and note it; return how many files went."""
    with collected() as files:
        for path in dict.fromkeys(path for task in tasks for path in task.outputs):
            write_text(path, path.name)
    return (record or record_of(output)).replace(chain_of(output, *tasks, **sources), tasks, files, ())


def test_names_in_a_record_reach_no_file_of_another(tmp_path: Path) -> None:
    output = tmp_path / "out"
    victims = ["../victim", str(tmp_path / "victim"), "../out/sub-02/func/sub-02_statmap.json",
               "sub-02/func/sub-02_statmap.json", "group/x_statmap.json", "sub-01/func/mine.txt",
               "logs/sub-012_log.txt", "sub-01/linked/x_statmap.json"]  # fmt: skip
    (output / "sub-01" / "func").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (output / "sub-01" / "linked").symlink_to(tmp_path / "linked")
    for name in victims:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("precious")
    entries = {name: {"fingerprint": "x", "files": {name: {"size": len("precious")}}} for name in victims}
    write_json(output / "logs" / "sub-01_record.json", entries)
    tasks = [task_of(output, name, "none") for name in victims]
    assert [task.name for task in tasks if record_of(output).is_finished(task)] == []
    record_of(output).forget(chain_of(output, *tasks))
    assert all((output / name).read_text() == "precious" for name in victims)


@pytest.mark.parametrize("change", [lambda path: path.write_text(""), lambda path: path.unlink()], ids=["cut", "gone"])
@pytest.mark.parametrize("damaged", ["a", "b"])
def test_work_is_finished_while_all_its_files_are_whole(
    change: Callable[[Path], Any], damaged: str, tmp_path: Path
) -> None:
    task = task_of(tmp_path, "task", "a", "b")
    finish(tmp_path, task)
    assert record_of(tmp_path).is_finished(task)
    assert not record_of(tmp_path).is_finished(task_of(tmp_path, "task", "a", "b", fingerprint="y"))
    change(path_of(tmp_path, damaged))
    assert not record_of(tmp_path).is_finished(task)


def test_files_that_other_finished_work_needs_too_stay(tmp_path: Path) -> None:
    first, second = task_of(tmp_path, "first", "own", "shared"), task_of(tmp_path, "second", "shared")
    finish(tmp_path, first)
    finish(tmp_path, second)
    assert record_of(tmp_path).forget(chain_of(tmp_path, first)) == 1
    assert not path_of(tmp_path, "own").exists()
    assert record_of(tmp_path).is_finished(second)


def test_what_was_made_from_something_else_is_outdated_and_forgotten_with_it(tmp_path: Path) -> None:
    session, mean = task_of(tmp_path, "session"), task_of(tmp_path, "mean", made_from="session")
    group = task_of(tmp_path, "group", made_from="maps")
    finish(tmp_path, session, mean, group, maps="1")
    changed = task_of(tmp_path, "session", fingerprint="y")
    for now, maps, outdated in ((session, "1", []), (changed, "1", ["mean"]), (session, "2", ["group"])):
        assert record_of(tmp_path).outdated(chain_of(tmp_path, now, maps=maps)) == outdated
        gone = record_of(tmp_path).files_of_outdated(chain_of(tmp_path, now, maps=maps))
        assert gone == [path_of(tmp_path, name) for name in outdated]
    assert record_of(tmp_path).outdated(chain_of(tmp_path, task_of(tmp_path, "other"))) == []
    assert record_of(tmp_path).forget(chain_of(tmp_path, session)) == 2
    assert record_of(tmp_path).finished() == ["group"]


def test_what_a_killed_call_was_replacing_goes_with_the_next(tmp_path: Path) -> None:
    finish(tmp_path, task_of(tmp_path, "a", "old"))
    path = tmp_path / "logs" / "sub-01_record.json"
    write_json(path, {f"replaced: {name}": entry for name, entry in json.loads(path.read_text()).items()})
    assert record_of(tmp_path).finished() == []
    assert finish(tmp_path, task_of(tmp_path, "a", "new")) == 1
    assert not path_of(tmp_path, "old").exists()
    assert list(json.loads(path.read_text())) == ["a"]


def test_what_a_call_had_replaced_when_it_was_killed_goes_though_nothing_is_left_to_do(tmp_path: Path) -> None:
    """Killed after its results had their names and before the old ones were gone, these stayed until something changed."""
    finish(tmp_path, task_of(tmp_path, "a", "old"))
    path = tmp_path / "logs" / "sub-01_record.json"
    old = json.loads(path.read_text())
    now = task_of(tmp_path, "a", "new")
    path.unlink()
    finish(tmp_path, now)
    write_json(path, {**json.loads(path.read_text()), "replaced: a": {"files": old["a"]["files"]}})
    assert path_of(tmp_path, "old").exists()
    with LocalExecutor(1, 1) as executor:
        (outcome,) = loop.run_chains([chain_of(tmp_path, now)], executor, Execution(), tmp_path)
    assert (outcome.failure, outcome.summary, outcome.n_removed) == (None, None, 1)
    assert not path_of(tmp_path, "old").exists()
    assert path_of(tmp_path, "new").exists()
    assert list(json.loads(path.read_text())) == ["a"]


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": {"fingerprint": "x", "files": [1]}}', '{"a":' * 10**5])
def test_a_broken_record_means_that_work_is_done_again(text: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, "a")
    write_text(tmp_path / "logs" / "sub-01_record.json", text)
    assert not record_of(tmp_path).is_finished(task)
    record_of(tmp_path).forget(chain_of(tmp_path, task))
    finish(tmp_path, task)
    assert record_of(tmp_path).is_finished(task)


def test_a_pipe_in_place_of_a_record_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs" / "sub-01_record.json")
    assert record_of(tmp_path).finished() == []


def test_calls_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    records = [record_of(tmp_path) for _ in range(2)]
    tasks = [task_of(tmp_path, name) for name in "ab"]
    for record, task in zip(records, tasks, strict=True):
        finish(tmp_path, task, record=record)
    assert record_of(tmp_path).finished() == ["a", "b"]
    records[0].forget(chain_of(tmp_path, tasks[0]))
    assert record_of(tmp_path).finished() == ["b"]
    assert record_of(tmp_path).is_finished(tasks[1])


@pytest.mark.slow
def test_many_threads_of_many_processes_write_into_one_record(tmp_path: Path) -> None:
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            try:
                tasks = [task_of(tmp_path, f"{number}{part}") for part in range(6)]
                threads = [threading.Thread(target=finish, args=[tmp_path, task]) for task in tasks]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert len(record_of(tmp_path).finished()) == 36


@pytest.mark.parametrize(
    ("changes", "to_do", "parts"),
    [({}, ["c"], ["2"]), ({"force": True}, ["a", "b", "c"], ["1", "2"]), ({"reports_only": True}, ["b", "c"], ["2"])],
    ids=["resumed", "force", "reports-only"],
)
def test_finished_work_is_done_again_only_where_it_is_asked_for(
    changes: dict[str, bool], to_do: list[str], parts: list[str], tmp_path: Path
) -> None:
    tasks = [Task(name=name, run=lambda: None, kind="part") for name in "12"]
    tasks += [task_of(tmp_path, "a", made_from="1"), task_of(tmp_path, "b", kind="page")]
    finish(tmp_path, *tasks[2:])
    tasks.append(task_of(tmp_path, "c", made_from="2"))
    found = find_work(chain_of(tmp_path, *tasks), Execution(**changes), tmp_path)
    assert [task.name for task in found.tasks] == to_do
    assert [task.name for task in found.parts] == parts


def test_a_participant_is_looked_at_when_its_turn_comes(tmp_path: Path) -> None:
    """Of thousands, the first begins before the files of the last are looked at."""
    output, looked = tmp_path / "out", []

    def chains() -> Iterator[Chain]:
        for name in ("sub-01", "sub-02", "sub-03"):
            looked.append(name)
            fit = Task(name="fit", kind="part", run=partial(len, name))
            chain = chain_of(output, fit, task_of(output, "map", made_from="fit"))
            yield replace(chain, name=name, open=lambda values: nullcontext(SimpleNamespace(summary=lambda: values)))

    with LocalExecutor(1, 1) as executor:
        outcomes = loop.run_chains(chains(), executor, Execution(), output)
        first = next(outcomes)
        assert (first.name, first.summary, looked) == ("sub-01", {"fit": 6}, ["sub-01"])
        assert [(outcome.name, outcome.summary) for outcome in outcomes] == [("sub-02", None), ("sub-03", None)]


class InTurn(LocalExecutor):
    """Notes the names of units, four of which are handed out at a time, and does them in turn."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.names: list[str] = []

    def run_units(self, ready: Callable[[], Unit | None], *, need_gb: float = 0.0) -> Iterator[Done]:
        handed_out: deque[Unit] = deque()
        while True:
            while len(handed_out) < 4 and (unit := ready()) is not None:
                self.names.append(unit.name)
                handed_out.append(unit)
            if not handed_out:
                return
            unit = handed_out.popleft()
            yield Done(unit, unit.function(*unit.arguments), None)


@pytest.mark.parametrize(
    ("n_parts", "order"),
    [
        # two workers end together: what is left after the last part is two chains
        (4, [*"1111", "2", "2", "2", "2", "sub-1", "sub-2"]),
        # of many, the values of one chain do not wait for all parts of the next
        (8, [*"11111111", "2", "2", "2", "sub-1", "2", "2", "2", "2", "2", "sub-2"]),
    ],
)
def test_the_last_few_parts_go_before_a_complete_chain(n_parts: int, order: list[str], tmp_path: Path) -> None:
    output, executor = tmp_path / "out", InTurn()

    def chain(name: str) -> Chain:
        parts = [Task(name=f"{number}", kind="part", run=partial(len, name)) for number in range(n_parts)]
        made = replace(task_of(output, f"map{name}"), inputs=tuple(part.name for part in parts))
        of_all = chain_of(output, *parts, made)
        record = output / "logs" / f"{name}_record.json"
        return replace(of_all, name=name, record=record, open=lambda _: nullcontext(SimpleNamespace(summary=int)))

    outcomes = list(loop.run_chains(map(chain, ("sub-1", "sub-2")), executor, Execution(), output))
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert [name.removeprefix("sub-")[0] if ":" in name else name for name in executor.names] == order


@pytest.mark.parametrize("is_here", [True, False])
def test_files_without_names_go_when_the_record_cannot_be_read(
    is_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stayed under their temporary names when anything failed between the last file and the first name."""
    place = path_of(tmp_path, "map")
    task = replace(task_of(tmp_path, "map"), run=lambda _: write_text(place, "values"))
    chain = replace(chain_of(tmp_path, task), is_here=is_here,
                    open=lambda values: nullcontext(SimpleNamespace(summary=dict)))  # fmt: skip
    with LocalExecutor(1, 1) as executor:
        outcomes = loop.run_chains([chain], executor, Execution(), tmp_path)
        read = Record._read
        calls = iter(range(10))

        def fail_at_the_end(record: Record) -> Any:
            if next(calls):
                raise OutputError("stale file handle")
            return read(record)

        monkeypatch.setattr(Record, "_read", fail_at_the_end)
        with pytest.raises(OutputError, match="stale"):
            list(outcomes)
    assert not list(place.parent.iterdir())


def test_a_lock_whose_holder_sleeps_is_waited_for_no_longer_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path, "a"):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    started = time.monotonic()
    monkeypatch.setattr(output_files, "_LOCK_SECONDS", 600)
    with locked(tmp_path, "b"):  # every name has a lock of its own
        assert time.monotonic() - started < 300
    monkeypatch.setattr(output_files, "_LOCK_SECONDS", 0.2)
    started = time.monotonic()
    with locked(tmp_path, "a"):
        assert time.monotonic() - started > 0.15
    os.write(done[1], b"x")
    os.waitpid(child, 0)


# --- the program ------------------------------------------------------------------------------------------------------


def test_a_record_that_names_a_file_elsewhere_deletes_nothing(dataset: Path, output: Path) -> None:
    victim = output.parent / "victim"
    victim.write_text("precious")
    record = output / PARTICIPANT_RECORD
    entries = json.loads(record.read_text())
    entries[f"fit {LABEL} ses 01"] = {"fingerprint": "x", "files": {"../victim": None, str(victim): None}}
    record.write_text(json.dumps(entries))
    assert analyse(dataset, output, "--participant-label", "01") == 0
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "size"),
    [(EFFECT, 60), (EFFECT.replace(".nii.gz", ".json"), 0), ("sub-01.html", 60), ("group.html", 0), (REFERENCE, 60),
     (PARTICIPANT_LOG, 0)],
)  # fmt: skip
def test_a_damaged_output_is_made_anew(name: str, size: int, dataset: Path, output: Path) -> None:
    before = content(output)
    log = (output / PARTICIPANT_LOG).read_text()
    path = output / name
    path.write_bytes(path.read_bytes()[: min(size, path.stat().st_size - 1)])
    assert analyse(dataset, output, levels=("participant", "group")) == 0
    assert content(output) == before
    assert (output / PARTICIPANT_LOG).read_text() == log


@pytest.mark.parametrize("text", ["", "{}", '{"title": 1, "html": "x", "mark": ""}'])
def test_a_damaged_section_is_drawn_again(text: str, dataset: Path, output: Path) -> None:
    before = content(output)
    for folder in ("sub-01/figures", "group/figures"):
        for path in (output / folder).glob("*_section.json"):
            path.write_text(text)
    assert analyse(dataset, output, levels=("participant", "group")) == 0
    assert content(output) == before


def test_a_damaged_section_of_another_analysis_is_named_on_the_page(dataset: Path, output: Path) -> None:
    other = output / "sub-01" / "figures" / "sub-01_task-other_contrast-x_section.json"
    other.write_text("{")
    assert analyse(dataset, output, "--reports-only") == 0
    page = (output / "sub-01.html").read_text()
    assert f"{other.name} cannot be read as JSON" in page
    assert "<h2>incongruent - congruent (" in page


def test_a_page_without_a_section_that_is_there_is_made_anew(
    dataset: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = output / "sub-01.html"
    page.write_bytes(page.read_bytes())
    section = next((output / "sub-01" / "figures").glob("*_contrast-*_section.json"))
    copied = section.with_name(section.name.replace("contrast-", "contrast-other"))
    shutil.copyfile(section, copied)
    assert analyse(dataset, output) == 0
    said = capfd.readouterr().err
    assert "sub-01: done" in said
    assert "sub-02: finished before" in said
    assert page.read_text().count("<section id=") == 3


def test_a_participant_whose_page_is_a_folder_fails_alone_and_its_log_is_written(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (output / "sub-01.html").mkdir(parents=True)
    assert analyse(dataset, output) == 1
    said = capfd.readouterr().err
    assert f"sub-01: FAILED. {output / 'sub-01.html'} cannot be written: a folder is in its place." in said
    assert "sub-02: done" in said
    assert (output / PARTICIPANT_LOG).is_file()
    (output / "sub-01.html").rmdir()
    assert analyse(dataset, output) == 0
    assert (output / "sub-01.html").is_file()
    assert not list(output.glob("logs/*_crash.txt"))


def test_a_session_added_later_gives_what_both_at_once_give(dataset: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert analyse(dataset, output, "--session-label", "01") == 0
    narrow = (output / REFERENCE).read_bytes()
    assert analyse(dataset, output) == 0
    assert (output / REFERENCE).read_bytes() == (finished / REFERENCE).read_bytes() != narrow
    assert (output / PARTICIPANT_LOG).read_text() == (finished / PARTICIPANT_LOG).read_text()
    assert (output / "sub-01.html").read_bytes() == (finished / "sub-01.html").read_bytes()


def test_a_narrower_call_keeps_the_mean_image_of_all_runs(dataset: Path, output: Path, finished: Path) -> None:
    assert analyse(dataset, output, "--session-label", "01") == 0
    assert (output / REFERENCE).read_bytes() == (finished / REFERENCE).read_bytes()
    assert (output / PARTICIPANT_LOG).read_text() == (finished / PARTICIPANT_LOG).read_text()


def test_full_disk_leaves_the_results_of_earlier_calls_as_they_were(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = content(output)
    record = (output / PARTICIPANT_RECORD).read_text()
    original = os.open
    created = 0

    def fill(name: Any, flags: int, *arguments: Any, **options: Any) -> int:
        nonlocal created
        if flags & os.O_CREAT and str(name).startswith(".sessionfx-"):
            created += 1
            if created > 12:
                raise OSError(errno.ENOSPC, "No space left on device")
        return original(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", fill)
    assert analyse(dataset, output, "--noise-model", "ols") == 73
    monkeypatch.undo()
    assert "No space left on device" in capfd.readouterr().err
    assert content(output) == before
    assert (output / PARTICIPANT_RECORD).read_text() == record
    assert not list(output.rglob(".sessionfx-*"))


def test_what_is_removed_and_not_made_anew_is_said_beforehand(
    dataset: Path, output: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said_when_there: list[str] = []
    gone = next((output / "sub-01" / "func").glob("*_sessions-ses02MinusSes01_*stat-effect*_statmap.nii.gz"))
    say = loop.say
    monkeypatch.setattr(loop, "say", lambda text: (said_when_there.append(text) if gone.exists() else None, say(text)))
    assert analyse(dataset, output, "--noise-model", "ols", "--session-contrast", "mean") == 0
    assert "sub-01: 12 files of earlier calls will be removed, " in said_when_there[0]
    assert "what they were made from has changed" in capfd.readouterr().err
    assert not gone.exists()


def test_a_participants_folder_that_is_a_link_stops_that_participant_before_it_is_fitted(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub-01").symlink_to(tmp_path / "elsewhere")
    assert analyse(dataset, tmp_path / "out") == 1
    said = capfd.readouterr().err
    assert f"sub-01: FAILED. {tmp_path / 'out' / 'sub-01'} is a link" in said
    assert "sub-02: done" in said
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_participant_that_fails_says_that_its_earlier_maps_go(
    dataset: Path, output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(dataset, tmp_path / "bids"))
    next(changed.rglob("sub-01_ses-02_*_bold.nii.gz")).write_bytes(b"")
    assert analyse(changed, output) == 1
    said = capfd.readouterr().err
    assert re.search(r"sub-01: FAILED\. .* Its \d+ files of earlier calls had to go: a group analysis", said)
    assert not list((output / "sub-01").rglob("*_statmap.nii.gz"))

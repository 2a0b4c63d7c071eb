"""The program's edges: streams, signals, odd paths and numbers, limits of the system. Each ends in one paragraph."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import units_of_work as work
from program import CONTRAST, simulated, wait_until_sigterm_is_caught
from sessionfx import errors
from sessionfx.cli import main, parse_options
from sessionfx.execution import LocalExecutor, in_threads, load_ahead, progress, progress_bar, show_progress
from sessionfx.simulate import main as simulate
from sessionfx.wording import LONGEST_MESSAGE, listed, printable

POSITIONS = ("/data/bids", "/data/out", "participant")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("edges"))


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Check that a call is refused with this exit code in one paragraph, and return it."""
    found = main([str(argument) for argument in arguments])
    said = capfd.readouterr().err
    assert found == code, said
    assert said.startswith("sessionfx: "), said
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    return said


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in which `sessionfx` is the program."""
    prelude = f'sessionfx() {{ "{sys.executable}" -m sessionfx "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", prelude + command],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


# Standard streams -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_has_read_enough_ends_the_program_quietly(dataset: Path, tmp_path: Path) -> None:
    """As `| head` does; the code is the one shells report of programs that SIGPIPE ended."""
    for options in ([dataset, tmp_path / "out", "participant", "--contrast", CONTRAST, "--dry-run"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "sessionfx", *map(str, options)]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_nothing_in_the_results(dataset: Path, tmp_path: Path, closed: str) -> None:
    """A file opened later would else be given the stream's number, and messages would be written into it."""
    options = f"participant --contrast '{CONTRAST}' --participant-label 01 --nprocs 1 --no-report"
    done = shell(f"sessionfx {dataset} {tmp_path}/out {options} {closed}; echo $?")
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").rglob("*_stat-effect_*statmap.nii.gz"))) == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_onto_a_full_disk_is_said(dataset: Path, tmp_path: Path) -> None:
    done = shell(
        f"sessionfx {dataset} {tmp_path}/out participant --contrast '{CONTRAST}' --dry-run > /dev/full; echo $?"
    )
    assert done.stderr.startswith("sessionfx: Standard output cannot be written (No space left on device)")
    done = shell("sessionfx --help > /dev/full; echo $? >&2")
    assert done.stderr.splitlines()[-1] == "73"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_no_character_stops_the_program_where_the_locale_knows_ascii_only(
    locale: dict[str, str], tmp_path: Path
) -> None:
    done = shell(f"sessionfx '{tmp_path}/größe' {tmp_path}/out participant; echo $?", PYTHONUTF8="0", **locale)
    assert done.stdout == "16\n"
    assert "Traceback" not in done.stderr
    assert "does not exist" in done.stderr
    done = shell("sessionfx --help; echo $?", PYTHONUTF8="0", **locale)
    assert done.stdout.endswith("\n0\n")


@pytest.mark.slow
def test_warnings_as_errors_change_nothing(dataset: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-W", "error", "-m", "sessionfx", dataset, tmp_path / "out", "participant",
        "--no-report",
    ]  # fmt: skip
    more = ["--contrast", CONTRAST, "--nprocs", "2"]
    done = subprocess.run([*map(str, command), *more], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


# Signals ----------------------------------------------------------------------------------------------------

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_any_moment_ends_without_a_traceback(number: signal.Signals, dataset: Path, tmp_path: Path) -> None:
    """In the middle of imports above all: there, libraries make other exceptions of it, or swallow it."""
    command = [sys.executable, "-m", "sessionfx", dataset, tmp_path / "out", "participant", "--contrast", CONTRAST]
    for delay in (0.0, 0.04, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.0):
        running = subprocess.Popen(
            [*map(str, command), "--force", "--nprocs", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_until_sigterm_is_caught(running.pid)  # by the program's first line: what is before it is Python's
        time.sleep(delay)
        os.killpg(running.pid, number)
        _, said = running.communicate(timeout=300)
        assert running.returncode in (SIGNALS[number], 0), (delay, said)
        assert "Traceback" not in said, (delay, said)
        assert "Exception ignored" not in said, (delay, said)


@pytest.mark.slow
def test_an_interrupt_that_a_library_swallows_or_changes_is_still_one(tmp_path: Path) -> None:
    """Extension modules make an ImportError of it."""
    program = (
        "import os, signal, sys\n"
        "import sessionfx.app\n"
        "from sessionfx.cli import main\n"
        "def run(options):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise ImportError('numpy cannot be imported')\n"
        "sessionfx.app.run = run\n"
        f"sys.exit(main(['{tmp_path}', '{tmp_path}/out', 'participant']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("sessionfx: interrupted.")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_signal_waits_until_an_import_is_over(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.2)\nexcept BaseException:\n    pass\n"
        "print('imported', flush=True)\n"
    )
    program = (
        "import sys, time\nimport sessionfx.app\nfrom sessionfx.cli import main\n"
        "def run(options):\n    import careless\n    time.sleep(600)\n"
        "sessionfx.app.run = run\n"
        f"sys.exit(main(['{tmp_path}', '{tmp_path}/out', 'participant']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (143, "imported\n", "")


def test_handlers_are_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    main(["--version"])
    assert [signal.getsignal(number) for number in SIGNALS] == before


# What nobody foresaw ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (OSError(28, "No space left on device", "/x/y"), 73, "/x/y cannot be written (No space left on device)"),
        (OSError(30, "Read-only file system", "/x/y"), 73, "Read-only file system"),
        (OSError(5, "Input/output error", "/x/y"), 16, "/x/y cannot be used (Input/output error)"),
        (OSError(13, "Permission denied", "/data/out/logs"), 73, "/data/out/logs cannot be used"),
        (MemoryError(), 17, "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), 70, "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 70, "UnicodeDecodeError"),
        (KeyError("a\nb"), 70, "fault of the program"),
    ],
)
def test_the_last_net_names_what_it_can(
    error: Exception, code: int, fragment: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("sessionfx.app.run", fail)
    assert fragment in refused(capfd, code, *POSITIONS)


def test_a_unit_that_cannot_write_any_more_ends_the_call(tmp_path: Path) -> None:
    with LocalExecutor(1, 1) as executor, pytest.raises(errors.OutputError, match="No space left on device"):
        list(executor.run_units(work.in_turn(work.fill_the_disk, (1,))))


def test_a_failure_is_one_paragraph() -> None:
    with LocalExecutor(1, 1) as executor:
        (done,) = executor.run_units(work.in_turn(work.raise_two_lines, (1,)))
    assert done.failure is not None
    assert "\n" not in done.failure.message


# Words ------------------------------------------------------------------------------------------------------


def test_many_names_are_shortened_and_counted() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(range(100_000), most=3) == "0, 1, 2 and 99,997 more"
    assert listed("abcd", most=3) == "a, b, c, d"
    assert listed([]) == ""


def test_no_message_is_endless_and_the_remedy_at_its_end_stays() -> None:
    message = str(errors.DatasetError(f"{', '.join(map(str, range(100_000)))} differ. Choose one with --task."))
    assert len(message) < LONGEST_MESSAGE + 10
    assert message.endswith("Choose one with --task.")


def test_bytes_that_are_no_text_are_shown() -> None:
    assert printable(os.fsdecode(b"wd\xff\x1b[2J")) == "wd\\xff [2J"


@pytest.mark.slow
def test_a_hundred_thousand_labels_make_a_short_message(dataset: Path, tmp_path: Path, capfd: Any) -> None:
    labels = [str(number) for number in range(1000, 101_000)]
    call = [dataset, tmp_path / "out", "participant", "--contrast", CONTRAST, "--participant-label", *labels]
    said = refused(capfd, 18, *call)
    assert len(said) < LONGEST_MESSAGE + 100
    assert "What exists: 01, 02." in said


# Paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [["--work-dir", "wd\udcff"], ["--contrast", "a\udcff"], ["-d", "/data/\udce9t\udce9"]]
)
def test_what_is_not_utf8_on_the_command_line_is_refused(options: list[str], capfd: Any) -> None:
    said = refused(capfd, 2, *POSITIONS, *options)
    assert "\\x" in said
    assert "not UTF-8" in said


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    ("path", "fragment"),
    [("x" * 300, "more than 255 bytes"), ("é" * 128, "more than 255 bytes"), ("a/" * 3000, "more than 4095 bytes"),
     ("", "the path is empty")],
    ids=["long", "long in bytes", "deep", "empty"],
)  # fmt: skip
def test_names_that_no_file_system_takes_are_refused(position: int, path: str, fragment: str, capfd: Any) -> None:
    arguments = list(POSITIONS)
    arguments[position] = path
    said = refused(capfd, 2, *arguments)
    assert fragment in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("where", "code"),
    [("bids", 16), ("out", 73), ("--derivatives", 16), ("--work-dir", 73), ("--bids-database-dir", 73)],
)
@pytest.mark.parametrize("below", [False, True])
def test_links_in_a_circle_are_named(
    where: str, code: int, below: bool, dataset: Path, tmp_path: Path, capfd: Any
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    path = loop / "below" if below else loop
    folders = {"bids": dataset, "out": tmp_path / "out"}
    options = {"--contrast": CONTRAST}
    (folders if where in folders else options)[where] = path  # type: ignore[index]
    call = [*folders.values(), "participant", *(part for option in options.items() for part in option)]
    assert "a link that leads in a circle" in refused(capfd, code, *call)


@pytest.mark.slow
def test_a_working_folder_that_was_deleted_is_said(dataset: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f"cd {gone}; rmdir {gone}; sessionfx {dataset} {tmp_path}/out participant --contrast a; echo $?")
    assert done.stdout == "2\n"
    assert "does not exist any more" in done.stderr
    assert "Traceback" not in done.stderr


# Configuration file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"task = " + b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"nprocs = " + b"9" * 5000, "not valid TOML"),
        (b"\xff\xfea\x00", "is UTF-16 text"),
        (b"task = '\xe9'", "is not UTF-8 text"),
        (b"verbose = 100000000000", "small number"),
        (b'work-dir = "a\\u0000b"', "null character"),
    ],
    ids=["deep", "digits", "UTF-16", "Latin-1", "verbose", "null"],
)
def test_a_broken_configuration_file_is_said(content: bytes, fragment: str, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    said = refused(capfd, 2, *POSITIONS, "--config-file", path)
    assert fragment in said
    assert len(said) < 600


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbftask = 'rest'\n")
    assert parse_options([*POSITIONS, "--config-file", str(path)]).selection.task == ("rest",)


@pytest.mark.parametrize("option", ["--config-file", "--bids-filter-file"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(option: str, dataset: Path, tmp_path: Path, capfd: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = refused(
        capfd, 2, dataset, tmp_path / "out", "participant", "--contrast", CONTRAST, option, tmp_path / "pipe"
    )
    assert "is a pipe, not a file" in said


# Numbers ----------------------------------------------------------------------------------------------------

BOUNDED = {
    "--smoothing-fwhm": "50", "--high-pass": "1", "--permutations": "1000000", "--calibrate": "1000000",
    "--cluster-threshold": "10000000", "--random-seed": str(2**63 - 1), "--nprocs": "1024", "--omp-nthreads": "1024",
    "--mem-gb": "1000000",
}  # fmt: skip


@pytest.mark.parametrize("option", BOUNDED)
def test_numbers_have_bounds_and_the_bound_itself_is_accepted(option: str, capfd: Any) -> None:
    largest = BOUNDED[option]
    name = option[2:].replace("-", "_")
    assert parse_options([*POSITIONS, option, largest]).values()[name] == (
        float(largest) if "." in str(parse_options([*POSITIONS, option, "1"]).values()[name]) else int(largest)
    )
    assert "is more than" in refused(capfd, 2, *POSITIONS, option, str(int(largest) + 1))


@pytest.mark.parametrize("option", [*BOUNDED, "--alpha"])
@pytest.mark.parametrize("text", ["9" * 5000, "1e400", "0x10", "²", "٣", "1_0", "-1", "nan", "", "1 2"])
def test_odd_numbers_are_refused_in_a_short_sentence(option: str, text: str, capfd: Any) -> None:
    said = refused(capfd, 2, *POSITIONS, f"{option}={text}")
    assert option in said
    assert len(said) < 300


def test_zeros_in_front_change_no_number() -> None:
    assert parse_options([*POSITIONS, "--random-seed", "0" * 5000 + "7"]).group.random_seed == 7


# Levels and contrasts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("/d", "/o", "participant", "--contrast", "a - b", "b - c"),
        ("/d", "/o", "--contrast", "a - b", "b - c", "group"),
    ],
)
def test_a_second_contrast_after_one_option_is_recognised(arguments: tuple[str, ...], capfd: Any) -> None:
    said = refused(capfd, 2, *arguments)
    remedy = re.search(r"repeat it for each: (--contrast '.*' --contrast '.*')\.", said)
    assert remedy, said
    options = parse_options(["/d", "/o", "participant", "--contrast", "a - b", "--contrast", "b - c"])
    assert options.selection.contrast == ("a - b", "b - c")


def test_an_unknown_level_is_named_with_those_there_are(capfd: Any) -> None:
    said = refused(capfd, 2, "/d", "/o", "partcipant")
    assert "'partcipant'" in said
    assert "participant" in said.replace("partcipant", "")
    assert "group" in said


# Limits of the system ---------------------------------------------------------------------------------------


@pytest.fixture
def long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    yield folder


@pytest.mark.slow
def test_a_long_tmpdir_is_said_and_the_work_is_done(dataset: Path, long_temporary_folder: Path, tmp_path: Path) -> None:
    options = f"participant --contrast '{CONTRAST}' --nprocs 2 --no-report"
    done = shell(f"sessionfx {dataset} {tmp_path}/out {options}", TMPDIR=str(long_temporary_folder))
    assert done.returncode == 0, done.stderr
    assert "TMPDIR should name a writable one whose path has less than 70 characters" in done.stderr
    assert done.stderr.count(": done in") == 2
    short = tempfile.mkdtemp(dir="/tmp")
    try:
        assert "TMPDIR" not in shell(f"sessionfx {dataset} {tmp_path}/2 {options}", TMPDIR=short).stderr
    finally:
        shutil.rmtree(short)


@pytest.mark.parametrize(
    ("place", "error", "remedy"),
    [
        (
            "multiprocessing.context.ForkServerContext.BoundedSemaphore",
            OSError(30, "Read-only file system"),
            "semaphores",
        ),
        ("sessionfx.execution.local.forkserver.ensure_running", OSError("AF_UNIX path too long"), "TMPDIR"),
        ("sessionfx.execution.local.ProcessPoolExecutor.submit", BlockingIOError(11, "unavailable"), "ulimit -u"),
        ("sessionfx.execution.local.ProcessPoolExecutor.submit", RuntimeError("can't start new thread"), "ulimit -u"),
        ("sessionfx.execution.local.ProcessPoolExecutor.submit", EOFError("unexpected EOF"), "ulimit -u"),
    ],
)
def test_without_processes_the_work_is_done_in_this_one(
    place: str, error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    units = work.in_turn(work.square, *work.numbers(*range(4)))
    with LocalExecutor(2, 1) as executor:
        load_ahead(["units_of_work"])
        done = {done.unit.name: done.result for done in executor.run_units(units)}
    assert done == {f"unit-{number}": number * number for number in range(4)}
    said = capfd.readouterr().err
    assert remedy in said
    assert said.count("\n") == 1


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", fail)


def test_without_threads_items_are_done_in_this_one(no_threads: None) -> None:
    def square(number: int) -> int:
        return number * number

    assert list(in_threads(3, square, work.numbers(*range(5)))) == [0, 1, 4, 9, 16]


# Progress ---------------------------------------------------------------------------------------------------


class Screen:
    """What is said at once, and waiting until something is: no test here depends on how fast a machine is."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._new_line = threading.Condition()

    def say(self, text: str) -> None:
        with self._new_line:
            self.lines.append(text)
            self._new_line.notify_all()

    def wait_for(self, beginning: str) -> None:
        with self._new_line:
            said = self._new_line.wait_for(lambda: any(line.startswith(beginning) for line in self.lines), timeout=300)
        assert said, (beginning, self.lines[-3:])


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """No step goes on before it was spoken of."""
    screen = Screen()
    speaking_of = progress._speaking_of

    @contextlib.contextmanager
    def waiting(step: progress._Step) -> Iterator[None]:
        with speaking_of(step):
            screen.wait_for(str(step.around or step))
            yield

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress, "say", screen.say)
    monkeypatch.setattr(progress, "_speaking_of", waiting)
    return screen


def test_long_steps_print_a_line_now_and_then_where_there_is_no_terminal(screen: Screen) -> None:
    others = threading.enumerate()
    with show_progress("group level", "contrast", 2) as advance:
        advance()
        for n_done, _ in enumerate(progress_bar([1, 2, 3], "permutations", "block")):
            screen.wait_for(f"group level: 1 of 2 contrasts; permutations: {n_done} of 3 blocks; after 0 min.")
    for speaker in set(threading.enumerate()).difference(others):
        speaker.join(timeout=300)
        assert not speaker.is_alive(), "it goes on after its end"
    assert screen.lines[0].startswith("group level: 0 of 2 contrasts; after")


def test_a_short_step_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(3), "reading", "map")) == [0, 1, 2]
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_both_levels_say_how_far_they_are_and_what_was_found(
    screen: Screen, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = [str(dataset), str(tmp_path / "out"), "participant", "group", "--contrast", CONTRAST, "--nprocs", "1"]
    assert main([*call, "--session-contrast", "mean"]) == 0
    lines = capfd.readouterr().err.splitlines()
    for step in ("looking for files", "participant level: 0 of 2 participants", "group level: 0 of 1 contrast"):
        assert any(line.startswith(step) for line in screen.lines), step
    (summary,) = (line for line in lines if line.startswith("Participant level: "))
    n_maps = len(list((tmp_path / "out").glob("sub-*/**/*_statmap.nii.gz")))
    assert (
        "2 participants, 2 sessions in time order: ses-01, ses-02 (from numbers in the labels), 4 runs; "
        f"{n_maps} maps of 1 contrast in {tmp_path}/out/sub-*" in summary
    )
    assert f"Reports: {tmp_path}/out/sub-*.html" in summary
    assert f"Report: {tmp_path}/out/group.html" == lines[-4]
    contrast, finding, file = lines[-3:]
    assert contrast == "Contrast incongruentMinusCongruent:"
    figures = r"  mean: \S.* is recommended; [\d,]+ of [\d,]+ voxels (?:is|are) suprathreshold, peak z \S+ at \S+, \S+, \S+ mm\..*"
    assert re.fullmatch(figures, finding)
    assert (tmp_path / "out" / file.strip()).is_file()
    assert file.endswith("_stat-z_statmap.nii.gz")
    capfd.readouterr()
    assert main([*call, "--session-contrast", "mean"]) == 0
    assert capfd.readouterr().err.splitlines()[-3:] == lines[-3:], "a rerun says it too"


# Slurm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("available", [False, True])
def test_submitting_without_slurm_is_said(available: bool, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "options.txt").write_text("--task=stroop\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    if available:
        (tools / "sbatch").write_text("#!/bin/sh\necho 7\n")
        (tools / "sbatch").chmod(0o755)
    script = Path(__file__).parents[2] / "platforms" / "slurm" / "submit.sh"
    environment = {"BIDS": str(dataset), "OUT": str(tmp_path / "out"), "OPTIONS": str(tmp_path / "options.txt")}
    # a machine with Slurm has its sbatch among the system's commands; the script looks for it first
    path = f"{tools}:/usr/bin:/bin" if available else str(tools)
    done = subprocess.run(
        [str(shutil.which("bash")), str(script)], capture_output=True, text=True, env={"PATH": path, **environment}
    )
    if available:
        assert (done.returncode, done.stdout) == (0, "participants: job 7, group: job 7\n")
    else:
        assert done.returncode == 2
        assert "sbatch is not found" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


# Making a dataset -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--voxel-size", "0.001"], ["--volumes", "9" * 15]], ids=["size", "volumes"])
def test_a_dataset_that_cannot_be_made_is_refused_in_one_line(options: list[str], tmp_path: Path, capfd: Any) -> None:
    assert simulate(["--participants", "1", "--sessions", "1", str(tmp_path / "bids"), *options]) == 2
    said = capfd.readouterr().err
    assert said.startswith("sessionfx-simulate: ")
    assert said.count("\n") == 1

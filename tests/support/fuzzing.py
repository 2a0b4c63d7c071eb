"""Calls of the program on damaged input: what is damaged, and what must hold whatever is.

`run_case(kind, seed, study, folder)` makes one case and returns the sentences that say what went wrong; the same kind
and seed make the same case. The program runs in this process.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

import nibabel as nib

from mutations import CELLS, VALUES, damage_json, damage_text, mutate, rename, replace_bytes, replace_kind
from output_trees import linked_copy
from sessionfx.cli import main
from sessionfx.options.table import BY_FLAG
from sessionfx.simulate import SimulationOptions, simulate_dataset

CONTRAST = "incongruent - congruent"
EXIT_CODES = {0, 1, 2, 16, 17, 18, 69, 73}
SECONDS = 300  # of one call; the slowest takes a second on an idle machine
ADDRESS_SPACE = 3 * 2**30  # that a call may take beyond what the process has
# sub-01 to sub-04 have one session, one run each, which is damaged; sub-05 has both and stays whole
MISSING = (("01", "02"), ("02", "02"), ("03", "01"), ("04", "01"))
WHOLE = "sub-05"
INTERNAL = re.compile(
    r"\b[A-Za-z_.]+(Error|Exception|Interrupt|Warning)\b|Traceback|[Ff]ault of the program|\bline \d+, in |object at 0x"
)


# A study ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FuzzStudy:
    """A dataset of a few voxels, and its first level."""

    bids: Path
    first_level: Path

    @classmethod
    def make(cls, folder: Path) -> FuzzStudy:
        """Simulate, crop, and analyse."""
        bids, first_level = folder / "bids", folder / "first-level"
        options = SimulationOptions(
            n_participants=5, n_sessions=2, n_runs=1, n_volumes=20, voxel_size=14, missing=MISSING, write_raw_bold=False
        )
        simulate_dataset(bids, options)
        shutil.rmtree(bids / "derivatives" / "truth")
        for path in bids.rglob("*.nii.gz"):
            cropped = nib.load(path).slicer[2:8, 4:10, 4:9]
            path.write_bytes(gzip.compress(cropped.to_bytes(), 1, mtime=0))
        for sub in sorted(bids.glob("sub-*")):
            rows = [
                f"{ses.name}\t{index * 30 + 7 * int(sub.name[-1])}"
                for index, ses in enumerate(sorted(sub.glob("ses-*")))
            ]
            (sub / f"{sub.name}_sessions.tsv").write_text("session_id\tdays\n" + "\n".join(rows) + "\n")
            for ses in sub.glob("ses-*"):
                name = f"func/{sub.name}_{ses.name}_task-stroop_run-01_bold.nii.gz"
                stamp = f"20{10 + int(ses.name[-2:])}-01-01T10:00:00"
                (ses / f"{sub.name}_{ses.name}_scans.tsv").write_text(f"filename\tacq_time\n{name}\t{stamp}\n")
        (bids / "task-stroop_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "stroop"}')
        called = call([bids, first_level, "participant", *PARTICIPANT_OPTIONS], folder)
        assert called.code == 0, called.text
        return cls(bids, first_level)


PARTICIPANT_OPTIONS = ("--contrast", CONTRAST, "--nprocs", "1", "--no-report", "--noise-model", "ols")
GROUP_OPTIONS = (
    "--nprocs", "1", "--no-report", "--strategy", "summary-statistics", "marginal", "--session-contrast",
    "mean",
)  # fmt: skip


# A call -----------------------------------------------------------------------------------------------------


@dataclass
class Called:
    """How a call ended."""

    code: int | None
    text: str  # stdout and stderr
    error: str  # stderr
    escaped: str = ""  # what came out of main


class _TooLongError(BaseException):
    """A call did not end in time."""


def call(arguments: list[object], working_directory: Path) -> Called:
    """Call the program with bounds on time and memory, and leave this process as it was."""
    output, error = io.StringIO(), io.StringIO()
    escaped, code = "", None
    ended: list[str] = []
    try:
        with (
            _bounds(ended),
            _restored(),
            mock.patch("os.fsync"),  # nobody pulls the plug
            contextlib.chdir(working_directory),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(error),
        ):
            code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # --help, --version
        code = end.code if isinstance(end.code, int) else None
        escaped = "" if end.code == 0 else f"SystemExit({end.code!r})"
    except _TooLongError:
        pass
    except BaseException as raised:
        if isinstance(raised, KeyboardInterrupt):
            raise
        escaped = f"{type(raised).__name__} escaped: {str(raised)[:300]}"
    return Called(code, output.getvalue() + error.getvalue(), error.getvalue(), "".join(ended[:1]) or escaped)


@contextlib.contextmanager
def _bounds(ended: list[str]) -> Iterator[None]:
    """Note in `ended` that time was up: what is raised may be caught."""

    def stop(_number: int, frame: FrameType | None) -> None:
        where = " < ".join(
            f"{entry.filename}:{entry.lineno}" for entry in reversed(traceback.extract_stack(frame)[-5:])
        )
        ended.append(f"no end within {SECONDS} s, at {where}")
        raise _TooLongError

    def watch(thread: int) -> None:
        if not over.wait(SECONDS):
            signal.pthread_kill(thread, signal.SIGUSR1)
            while not over.wait(1):
                signal.pthread_kill(thread, signal.SIGUSR1)

    # no alarm: the program has one of its own
    before = signal.signal(signal.SIGUSR1, stop)
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(threading.get_ident(),), daemon=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, hard))
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Signal handlers, loggers and limits are those of before afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    root = logging.getLogger()
    loggers, level, depth = list(root.handlers), root.level, sys.getrecursionlimit()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.setrecursionlimit(depth)
        root.handlers[:] = loggers
        root.setLevel(level)
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


# What must hold ---------------------------------------------------------------------------------------------


def tree_state(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What would change if anything below were written, without reading it."""
    state: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = folder + b"/" + name
            status = os.lstat(path)
            state[path] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    return state


def problems_of(called: Called) -> list[str]:
    """Say what of a call is not as it must be, whatever it was called on."""
    if called.escaped:
        return [called.escaped]
    problems = []
    if called.code not in EXIT_CODES:
        problems.append(f"exit code {called.code}")
    lines = called.error.splitlines()
    if called.code != 0 and not lines:
        problems.append(f"exit code {called.code} without a word")
    for line in lines:
        quoted_out = re.sub(r"'[^']*'", "''", line)  # what a file or an option says is not ours
        if INTERNAL.search(quoted_out):
            problems.append(f"internal words: {line[:600]}")
        if "enough memory" in line:
            problems.append(f"memory without bound: {line[:600]}")
        if line.startswith("sessionfx: ") or ": FAILED. " in line:
            if not line.rstrip().endswith((".", "?")):
                problems.append(f"no sentence: {line[-300:]}")
            if not line.isprintable():
                problems.append(f"not printable: {line[:300]!r}")
    refusals = [line for line in lines if line.startswith("sessionfx: ")]
    if called.code not in (0, 1, None) and (len(refusals) != 1 or lines[-1] != refusals[0]):
        problems.append(f"exit code {called.code} and not one paragraph: {called.error[-600:]}")
    return problems


def lost_participants(bids: Path, output: Path, called: Called) -> list[str]:
    """Participants with preprocessed data, but neither maps nor a word on screen."""
    there = [path.name for path in (bids / "derivatives" / "fmriprep").glob("sub-*") if path.is_dir()]
    answered = {path.name for path in output.glob("sub-*") if any(path.rglob("*_stat-effect_*statmap.nii.gz"))}
    return [f"{name} is lost without a word" for name in there if name not in answered and name not in called.text]


def lost_from_group(output: Path, called: Called) -> list[str]:
    """Participants with session maps that are neither in the answer nor named as left out."""
    sidecars = list((output / "group").glob("*_stat-effect_statmap.json"))
    if not sidecars:
        return ["exit code 0 and no group map"]
    there = {path.name for path in output.glob("sub-*") if any(path.glob("ses-*/func/*_stat-effect_*"))}
    problems = []
    for sidecar in sidecars:
        text = sidecar.read_text()
        missing = [name for name in there if name not in text and name not in called.text]
        problems += [f"{name} is lost without a word in {sidecar.name}" for name in missing]
    return problems


def same_maps(expected: Path, found: Path, participant: str) -> list[str]:
    """Session maps of a participant whose input is whole are those of the whole dataset."""
    problems = []
    for path in (expected / participant).glob("ses-*/func/*_statmap.nii.gz"):
        other = found / path.relative_to(expected)
        if not other.is_file():
            problems.append(f"{path.name} is missing")
        elif other.read_bytes() != path.read_bytes():
            problems.append(f"{path.name} differs")
    return problems


# Cases ------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """Where a case is made, and what is said of it."""

    draw: random.Random
    study: FuzzStudy
    folder: Path
    problems: list[str] = field(default_factory=list)

    @property
    def bids(self) -> Path:
        return self.folder / "bids"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def run(self, *arguments: object) -> Called:
        """Call the program; the dataset stays as it is."""
        before = tree_state(self.bids)
        called = call([self.bids, self.output, *arguments], self.folder)
        self.problems += problems_of(called)
        if tree_state(self.bids) != before:
            self.problems.append("the input was changed")
        return called

    def run_participants(self, *options: str) -> Called:
        """Participant level, of which nobody may be lost without a word."""
        called = self.run("participant", *PARTICIPANT_OPTIONS, *options)
        if called.code == 0:
            self.problems += lost_participants(self.bids, self.output, called)
        return called

    def run_group(self, *options: str) -> None:
        """Group level, of which nobody may be lost without a word."""
        called = self.run("group", *GROUP_OPTIONS, *options)
        if called.code == 0:
            self.problems += lost_from_group(self.output, called)

    def copy(self, *, first_level: bool = True) -> None:
        """Copy what is to be damaged."""
        linked_copy(self.study.bids, self.bids)
        if first_level:
            linked_copy(self.study.first_level, self.output)


def files_of(root: Path) -> list[Path]:
    """All files below a folder, in the order of names."""
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def damaged_runs(case: Case) -> None:
    """Participant level, one file of each of four participants: events, confounds, sidecars, images, masks."""
    case.copy(first_level=False)
    for number in ("01", "02", "03", "04"):
        derived = files_of(case.bids / "derivatives" / "fmriprep" / f"sub-{number}")
        mutate(case.draw, case.draw.choice([*derived, *(case.bids / f"sub-{number}").glob("ses-*/func/*_events.tsv")]))
    extra = case.draw.choice(((), (), ("--confounds", "motion12"), ("--confounds", "compcor", "csf*"), ("--smoothing-fwhm", "20"), ("--confounds", "scrub")))  # fmt: skip
    if case.run_participants(*extra).code in (0, 1) and not extra:
        case.problems += same_maps(case.study.first_level, case.output, WHOLE)


OTHERS_FILES = (".bidsignore", "pybids_config.json", "derivatives/fmriprep/.bidsignore", "task-stroop_events.tsv", "sub-01/sub-01_bold.json",
                "derivatives/fmriprep/space-MNI152NLin2009cAsym_bold.json", "phenotype/x.tsv", "dataset_description.JSON",
                "derivatives/other/dataset_description.json")  # fmt: skip
OTHERS_CONTENT = (b"\xff\n", b"sub-01\n", b"**\n", b'{"RepetitionTime": null}', b"onset\tduration\n", b"[" * 2000)
COVARIATES = (
    ("--covariates", "age"),
    ("--covariates", "group"),
    ("--session-covariates", "days"),
    ("--covariates", "age", "sex"),
)


def damaged_dataset(case: Case) -> None:
    """Either level, files that all participants share: descriptions, participants, sessions, scans, sidecars above."""
    draw = case.draw
    case.copy()
    kind = draw.random()
    if kind < 0.2:
        folders = [path for path in case.bids.rglob("*") if path.is_dir() and path.name[:4] in ("sub-", "ses-", "func")]
        _damage_folder(draw, draw.choice(sorted(folders)))
    elif kind < 0.36:
        path = case.bids / draw.choice(OTHERS_FILES)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.choice(OTHERS_CONTENT))
    else:
        mutate(draw, draw.choice([path for path in files_of(case.bids) if "func" not in path.parts]))
    if draw.random() < 0.5:
        shutil.rmtree(case.output)
        case.run_participants()
    else:
        case.run_group(*draw.choice(COVARIATES))


def _damage_folder(draw: random.Random, folder: Path) -> None:
    name = folder.name
    kind = draw.randrange(6)
    if kind == 1:
        folder.rename(folder.with_name(draw.choice((name.upper(), f"{name}x", f"{name}-1", "sub-é", "sub-", "ses-", "anat", f"{name}\udcff"))))  # fmt: skip
    elif kind == 3:
        (folder / "loop").symlink_to("..")
    elif kind == 5:
        number = f"{name[:4]}{int(name[4:])}" if name[4:].isdigit() else "sub-8"
        linked_copy(folder, folder.with_name(draw.choice((f"{name}copy", number, "sub-9"))))
    else:
        shutil.rmtree(folder)
        if kind == 2:
            folder.symlink_to(name)
        elif kind == 4:
            folder.write_bytes(b"")


def damaged_maps(case: Case) -> None:
    """Group level: one or two first-level maps or sidecars."""
    case.copy()
    files = [path for path in files_of(case.output) if re.search("/ses-.*(effect|variance)", str(path))]
    for path in case.draw.sample(files, case.draw.choice((1, 1, 2))):
        mutate(case.draw, path)
    case.run_group(*(("--fixed-effects", "precision") if case.draw.random() < 0.3 else ()))


def damaged_output(case: Case) -> None:
    """Participant level once more, into an output folder of which one file is damaged."""
    draw = case.draw
    case.copy()
    files = files_of(case.output)
    few = [path for path in files if path.name.endswith(("record.json", "_log.txt", "description.json"))]
    path = draw.choice(few if draw.random() < 0.5 else files)
    kind = draw.random()
    if kind < 0.3:
        (replace_kind if kind < 0.2 else rename)(draw, path)
    else:
        replace_bytes(path, (damage_json if path.suffix == ".json" else damage_text)(draw, path.read_bytes()))
    if case.run("participant", *PARTICIPANT_OPTIONS).code == 0:
        case.problems += same_maps(case.study.first_level, case.output, draw.choice(("sub-01", WHOLE)))


_TEXTS = tuple(text for text in (*CELLS, *map(str, VALUES)) if "\x00" not in text)
_WELL_FORMED = ("01", "sub-01", "ses-02", "mean", "linear", "any", "ses-02 - ses-01", "a - a", "incongruent", "linear(days)", "motion6",
                "age", "group", "intercept", "10", "0.5", "x=incongruent", "=", "x=", "((", "1e3*incongruent", "0*incongruent",
                "incongruent/0", "incongruent^2", "`incongruent` - congruent", "*", "**", "[", "c*", "any - mean")  # fmt: skip
# they would start processes, wait for machines, or show tracebacks, as asked
_NOT_DRAWN = {"--executor", "--scheduler", "--nprocs", "--n-procs", "--n-cpus", "--help", "-h", "--version", "--verbose", "-v",
              "--config-file", "--bids-filter-file"}  # fmt: skip


def bad_options(case: Case) -> None:
    """Options with values that nobody foresaw, at either level, without work being done."""
    draw = case.draw
    case.copy()
    arguments: list[object] = ["participant" if draw.random() < 0.6 else "group", "--dry-run", "--nprocs", "1"]
    arguments += ["--contrast", CONTRAST] if draw.random() < 0.7 else []
    for _ in range(draw.choice((1, 1, 2))):
        arguments += _bad_option(draw)
    if draw.random() < 0.05:
        arguments.insert(draw.randrange(len(arguments)), draw.choice(_TEXTS))
    case.run(*arguments)


def _bad_option(draw: random.Random) -> list[object]:
    options = [option for option in BY_FLAG.values() if not _NOT_DRAWN & set(option.flags)]
    option = draw.choice(list({option.name: option for option in options}.values()))
    flag = draw.choice(option.flags)
    values = [draw.choice(_TEXTS if draw.random() < 0.6 else _WELL_FORMED) for _ in range(draw.choice((1, 1, 1, 2, 0)))]
    if not option.has_value:
        return [flag, *values[:1]] if draw.random() < 0.2 else [flag]
    if draw.random() < 0.5 and flag.startswith("--") and values:
        return [f"{flag}={values[0]}"]
    return [flag, *values]


def bad_option_files(case: Case) -> None:
    """--config-file and --bids-filter-file."""
    draw = case.draw
    case.copy(first_level=False)
    path = case.folder / "given"
    flag, make = draw.choice((("--bids-filter-file", _filters), ("--config-file", _configuration)))
    path.write_bytes(content := make(draw))
    if draw.random() < 0.1:
        replace_kind(draw, path)
    elif draw.random() < 0.15:
        replace_bytes(path, damage_text(draw, content))
    case.run("participant", "--dry-run", "--nprocs", "1", "--contrast", CONTRAST, flag, path)


def _filters(draw: random.Random) -> bytes:
    entities = ("task", "run", "echo", "session", "subject", "space", "desc", "suffix", "extension", "datatype", "acquisition", "part",
                "nonsense", "", "ses", "sub", "scope", "return_type", "regex_search", "invalid_filters")  # fmt: skip
    values = (*VALUES, "01", 1, "*", "stroop", "preproc", "Query.NONE", "(", "^$", ["stroop", None], [1, "02"])
    chosen = {draw.choice(entities): draw.choice(values) for _ in range(draw.choice((1, 1, 2)))}
    content = json.dumps({draw.choice(("bold", "mask", "events", "confounds")): chosen}).encode()
    return damage_json(draw, content) if draw.random() < 0.4 else content


def _configuration(draw: random.Random) -> bytes:
    flags = {flag for flag in BY_FLAG if flag[:2] == "--"}
    names = sorted(flags - _NOT_DRAWN | {"--help", "--version", "--config-file", "--executor"})
    texts = ("1", "0", "-1", "1.5", "nan", "inf", "true", "false", "[]", "[[]]", "{}", "{a = 1}", '""', '"text"', "[1, 2]", '["a", "b"]', "1979-05-27",
             "07:32:00", '"\\u0000"', '"é"', "0x10", "1e400", "9" * 5000, "[" * 3000 + "]" * 3000, "'''a\nb'''", '["incongruent - congruent"]')  # fmt: skip
    lines = [f"{draw.choice(names)[2:]} = {draw.choice(texts)}" for _ in range(draw.choice((1, 1, 2, 3)))]
    if draw.random() < 0.1:
        lines.append(
            draw.choice(
                ("bids_dir = 'x'", "levels = ['group']", "[table]", "[[a]]\nb = 1", "task = ", "nonsense = 1", "= 1")
            )
        )
    return "\n".join(lines).encode()


# By name: what makes a case, how many inputs it damages, and how many cases continuous integration tries
KINDS: dict[str, tuple[Callable[[Case], None], int, int]] = {
    "runs": (damaged_runs, 4, 240),
    "dataset": (damaged_dataset, 1, 160),
    "maps": (damaged_maps, 1, 300),
    "output": (damaged_output, 1, 80),
    "options": (bad_options, 1, 300),
    "files-of-options": (bad_option_files, 1, 200),
}


def run_case(kind: str, seed: int, study: FuzzStudy, folder: Path) -> Case:
    """Make and call one case; its `problems` are empty when all is well."""
    folder.mkdir(parents=True)
    case = Case(random.Random(f"{kind} {seed}"), study, folder)
    try:
        KINDS[kind][0](case)
    finally:
        shutil.rmtree(folder, onerror=_try_harder)
    return case


def _try_harder(function: Callable[[str], object], path: str, _error: object) -> None:
    with contextlib.suppress(OSError):
        Path(path).chmod(stat.S_IRWXU)
        function(path)

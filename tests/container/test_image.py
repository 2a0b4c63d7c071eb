"""The image: what is in it, and that it works under the conditions of a cluster."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from isal import igzip

import sessionfx
from program import wait_until_sigterm_is_caught

pytestmark = pytest.mark.container

REPOSITORY = Path(__file__).parents[2]
CONTRAST = ("--contrast", "incongruent - congruent")
PYTHON = "/opt/sessionfx/bin/python3"
TERMINATED = 143
HOMES = {"unwritable": ["--env", "HOME=/nonexistent"], "empty": ["--env", "HOME="], "root folder": ["--env", "HOME=/"]}


# What is in it


@pytest.fixture(scope="module")
def config(image: Any) -> dict[str, Any]:
    found = json.loads(image.command("image", "inspect", image.name).stdout)[0]
    return {**found["Config"], "Size": found["Size"]}


def test_is_small(config: dict[str, Any], report: Callable[[str], None]) -> None:
    report(f"image: {config['Size'] / 1e6:.0f} MB")
    assert config["Size"] < 650e6


def test_buildah_builds_the_same_dockerfile(image: Any, config: dict[str, Any]) -> None:
    if not shutil.which("buildah") or Path(image.engine).name != "podman":
        pytest.skip("buildah is not installed, or not beside podman, whose layers it uses again.")
    options = shlex.split(os.environ.get("SESSIONFX_BUILD_OPTIONS", ""))
    name = f"localhost/{image.name}-buildah"
    subprocess.run(["buildah", "build", "--layers", *options, "--tag", name, REPOSITORY], check=True,
                   capture_output=True, timeout=600)  # fmt: skip
    try:
        built = json.loads(image.command("image", "inspect", name).stdout)[0]["Config"]
        assert {key: built[key] for key in ("Entrypoint", "Env")} == {key: config[key] for key in ("Entrypoint", "Env")}
        assert (
            built["Labels"].items() >= {key: text for key, text in config["Labels"].items() if "image" in key}.items()
        )
    finally:
        image.command("rmi", name)


def test_a_second_build_has_the_same_files(image: Any, report: Callable[[str], None]) -> None:
    """Without layers of the first: every path, and what is in every Python file. Compiled ones hold times."""
    if os.environ.get("SESSIONFX_TEST_IMAGE"):
        pytest.skip("An image that is given is not built.")
    options = shlex.split(os.environ.get("SESSIONFX_BUILD_OPTIONS", ""))
    again = type(image)(image.engine, f"{image.name}-again")
    before = time.monotonic()
    image.command("build", *options, "--no-cache", "--tag", again.name, REPOSITORY, timeout=1200)
    report(f"a build without layers of an earlier one: {time.monotonic() - before:.0f} s")
    listed = r"find / -xdev ! -path '/proc/*' ! -path '/sys/*' ! -path '/dev/*' | sort"
    hashed = r"find / -xdev -name '*.py' -type f -exec sha256sum {} + | sort -k 2"
    try:
        for command, least in ((listed, 10_000), (hashed, 5_000)):
            first, second = (built.run("-c", command, entrypoint="sh").stdout.splitlines() for built in (image, again))
            assert len(first) > least
            assert sorted(set(first) ^ set(second)) == []
    finally:
        image.command("rmi", again.name)


def test_version_is_in_file_label_and_program(image: Any, config: dict[str, Any]) -> None:
    assert image.run("/version", entrypoint="cat").stdout == f"{sessionfx.__version__}\n"
    assert image.run("--version").stdout == f"sessionfx {sessionfx.__version__}\n"
    assert config["Labels"]["org.opencontainers.image.version"] == sessionfx.__version__


def test_labels_describe_it(config: dict[str, Any]) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"] == "SessionFX"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"]
    assert labels["authors"]


def test_starts_the_program_without_a_shell(config: dict[str, Any]) -> None:
    assert config["Entrypoint"][0] == PYTHON
    assert config["Entrypoint"][-1].endswith("/run.py")
    assert not config.get("Cmd")


@pytest.mark.parametrize("program", ["run.py", "sessionfx", "sessionfx-simulate"])
def test_programs_are_on_the_path(image: Any, program: str) -> None:
    done = image.run("--help", entrypoint=program)
    assert done.returncode == 0
    assert "usage: " in done.stdout


def test_no_compiler_and_no_installer(image: Any) -> None:
    tools = "cc gcc g++ c++ cpp clang ld make cmake gfortran git curl wget pip pip3"
    found = image.run("-c", f"for tool in {tools}; do command -v $tool; done; true", entrypoint="sh")
    assert found.returncode == 0
    assert found.stdout == ""
    for python in (PYTHON, "/usr/bin/python3"):
        assert "No module named pip" in image.run("-m", "pip", "--version", entrypoint=python).stderr


def test_no_caches_and_no_build_leftovers(image: Any) -> None:
    found = image.run("-c", "ls -A /tmp /var/lib/apt/lists /root/.cache 2>/dev/null | grep -v :", entrypoint="sh")
    assert found.stdout.split() == []


# Under the conditions of a cluster


def test_conditions_are_in_force(image: Any, study: Path, new_output: Callable[[], Path]) -> None:
    """The other tests would show little if these did not hold."""
    checks = {
        "no user name": "import os, pwd; pwd.getpwuid(os.getuid())",
        "read-only root": "open('/var/tmp/x', 'w')",
        "read-only input": "open('/data/x', 'w')",
        "no network": "import socket; socket.create_connection(('192.0.2.1', 80), 3)",
        "nothing executable in /tmp": "import os, subprocess; open('/tmp/x', 'w').write('#!/bin/sh'); os.chmod('/tmp/x', 0o755); subprocess.run('/tmp/x')",
    }
    options = image.options(study, new_output())
    for name, code in checks.items():
        assert "Error" in image.run("-c", code, options=options, entrypoint=PYTHON).stderr, name
    status = image.run("/proc/self/status", options=options, entrypoint="cat").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("home", HOMES)
def test_version_and_help(image: Any, home: str) -> None:
    options = [*image.options(), *HOMES[home]]
    done = image.run("--version", options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sessionfx {sessionfx.__version__}\n", "")
    done = image.run("--help", options=options)
    assert done.returncode == 0
    assert "BIDS_DIR OUTPUT_DIR" in done.stdout
    assert done.stderr == ""


def test_how_long_version_takes_is_reported(image: Any, report: Callable[[str], None]) -> None:
    """The engine's own time included; the best of three, since the machine may have other work."""
    seconds = []
    for _ in range(3):
        before = time.monotonic()
        assert image.run("--version", options=image.options()).returncode == 0
        seconds.append(time.monotonic() - before)
    report(f"--version in the read-only image: {min(seconds):.2f} s")


@pytest.fixture(scope="module")
def output(image: Any, study: Path, new_output: Callable[[], Path]) -> Path:
    """Participants one by one, as a scheduler runs them, each with another HOME, then the group level."""
    folder = new_output()
    options = image.options(study, folder)
    participant = ("/data", "/out", "participant", *CONTRAST, "--participant-label")
    done = [
        image.run(*participant, label, options=[*options, *HOMES[home]])
        for label, home in (("01", "root folder"), ("02", "unwritable"), ("03", "empty"))
    ]
    done.append(image.run("/data", "/out", "group", options=options))
    assert [call.returncode for call in done] == [0, 0, 0, 0], "".join(call.stderr for call in done)
    assert not any("Warning" in call.stderr for call in done)
    return folder


def test_maps_are_those_made_outside(output: Path, assert_as_expected: Callable[..., None]) -> None:
    assert_as_expected(output, "participant", "group")


def test_reports_are_there(output: Path) -> None:
    for name in ("sub-01.html", "sub-02.html", "sub-03.html", "group.html"):
        page = (output / name).read_text(encoding="utf-8")
        assert is_whole_page(page)
        assert page.count("<img") + page.count("<svg") >= 3


def test_files_are_whole_and_no_temporary_ones_remain(output: Path) -> None:
    assert_whole(output)
    assert not list(output.rglob(".sessionfx-*"))


def test_output_names_the_image(output: Path) -> None:
    made_by = json.loads((output / "dataset_description.json").read_text())["GeneratedBy"][0]
    assert made_by["Container"]["Tag"] == f"sessionfx/sessionfx:{sessionfx.__version__}"


def test_demo_gives_the_same_maps(
    image: Any, tmp_path: Path, new_output: Callable[[], Path], report: Callable[[str], None]
) -> None:
    """What `make demo` analyses: here some participants by label, then the others, then the group."""
    study, inside, outside = tmp_path / "bids", new_output(), new_output()
    options = (*CONTRAST, "--confounds", "scrub", "--nprocs", "2")
    subprocess.run([sys.executable, "-m", "sessionfx.simulate", study], check=True, capture_output=True, timeout=600)
    command = [sys.executable, "-m", "sessionfx", study, outside, "participant", "group", *options, "--no-report"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    for path in (tmp_path, study, *study.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)

    # the program, then the most memory that its control group has used, files held in memory included
    peak_files = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    script = f'run.py "$@" || exit; cat {peak_files} 2>/dev/null; true'
    peaks = []
    for level in (
        ("participant", "--participant-label", "01", "02"),
        ("participant", "--participant-label", *(f"0{number}" for number in range(3, 9)), "--no-report"),
        ("group",),
    ):
        done = image.run("-c", script, "run", "/data", "/out", *level, *options, entrypoint="sh", timeout=600,
                         options=image.options(study, inside))  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks += [int(line) for line in done.stdout.split() if line.isdecimal()]
    if peaks:
        report(f"demo in the image, two participants at a time, with reports: {max(peaks) / 1e9:.2f} GB at most")
    compare_maps(inside, outside)


def compare_maps(found: Path, wanted: Path) -> None:
    maps = {path.relative_to(wanted) for path in wanted.rglob("*_statmap.nii.gz")}
    assert len(maps) > 100
    assert {path.relative_to(found) for path in found.rglob("*_statmap.nii.gz")} == maps
    differing = [
        name
        for name in maps
        if gzip.decompress((found / name).read_bytes()) != gzip.decompress((wanted / name).read_bytes())
    ]
    assert differing == []


def test_a_stats_model_is_read_where_nothing_can_be_written(
    image: Any, study: Path, new_output: Callable[[], Path], maps_of: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:  # fmt: skip
    model = {
        "Name": "stroop", "BIDSModelVersion": "1.0.0", "Input": {"task": ["stroop"]},
        "Nodes": [
            {
                "Level": "Run", "Name": "run", "GroupBy": ["run", "session", "subject"],
                "Transformations": {
                    "Transformer": "pybids-transforms-v1",
                    "Instructions": [{"Name": "Factor", "Input": ["trial_type"]}],
                },
                "Model": {
                    "Type": "glm", "X": ["trial_type.*", "trans_?", "rot_?", "cosine*", 1],
                    "HRF": {"Variables": ["trial_type.*"], "Model": "glover"},
                },
                "Contrasts": [
                    {
                        "Name": "incongruentMinusCongruent", "Test": "t", "Weights": [1, -1],
                        "ConditionList": ["trial_type.incongruent", "trial_type.congruent"],
                    }
                ],
            }
        ],
    }  # fmt: skip
    path = tmp_path / "stroop_smdl.json"
    path.write_text(json.dumps(model))
    for readable in (tmp_path, path):
        readable.chmod(0o755)
    output, outside = new_output(), tmp_path / "outside"
    options = [*image.options(study, output), "--volume", f"{path}:/models/stroop_smdl.json:ro"]
    asked = ("participant", "--no-report", "--model")
    done = image.run("/data", "/out", *asked, "/models/stroop_smdl.json", options=options)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "sessionfx", study, outside, *asked, path]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    found, wanted = maps_of(output), maps_of(outside)
    assert any("contrast-incongruentMinusCongruent" in name for name in wanted)
    assert found == wanted


def test_home_may_be_unset(image: Any, study: Path) -> None:
    command = ("-u", "HOME", PYTHON, "-I", "/opt/sessionfx/bin/run.py", "/data", "/out", "participant", *CONTRAST)
    done = image.run(*command, "--dry-run", options=image.options(study), entrypoint="env")
    assert done.returncode == 0, done.stderr


def test_several_processes_at_a_time(
    image: Any, study: Path, new_output: Callable[[], Path], assert_as_expected: Callable[..., None]
) -> None:
    output = new_output()
    arguments = ("/data", "/out", "participant", *CONTRAST, "--nprocs", "2", "--no-report")
    done = image.run(*arguments, options=image.options(study, output))
    assert done.returncode == 0, done.stderr
    assert_as_expected(output, "participant")


def test_python_path_of_the_host_is_not_looked_at(image: Any, study: Path, tmp_path: Path) -> None:
    for name in ("numpy", "pandas", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the host')\n")
    tmp_path.chmod(0o755)
    options = [*image.options(study), "--volume", f"{tmp_path}:/host:ro", "--env", "PYTHONPATH=/host"]
    done = image.run("/data", "/out", "participant", *CONTRAST, "--dry-run", options=options)
    assert done.returncode == 0, done.stderr
    assert "Would analyse" in done.stdout


def test_output_that_cannot_be_written_is_said_in_a_sentence(image: Any, study: Path) -> None:
    done = image.run("/data", "/out", "participant", *CONTRAST, options=image.options(study))
    assert done.returncode == 73
    assert done.stderr.startswith("sessionfx: ")
    assert "Traceback" not in done.stderr


# With limited memory


@pytest.fixture(scope="module")
def memory(image: Any) -> Callable[[int], list[str]]:
    """Make options that limit a container to so many MiB."""

    def limited(mebibytes: int) -> list[str]:
        return ["--memory", f"{mebibytes}m", "--memory-swap", f"{mebibytes}m"]

    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    found = image.run("-c", f"cat {files} 2>/dev/null", options=limited(512), entrypoint="sh").stdout.strip()
    if found != str(512 * 2**20):
        pytest.skip(f"{Path(image.engine).name} cannot limit the memory of a container here.")
    return limited


@pytest.mark.parametrize(
    ("levels", "mebibytes", "n_processes", "said"),
    [(("participant", "group"), 512, "1", ""), (("participant",), 1000, "3", "2 runs at a time instead of 3")],
    ids=["both levels", "fewer runs at a time"],
)
def test_runs_within_limited_memory(
    image: Any, study: Path, new_output: Callable[[], Path], assert_as_expected: Callable[..., None],
    memory: Callable[[int], list[str]], levels: tuple[str, ...], mebibytes: int, n_processes: str, said: str,
) -> None:  # fmt: skip
    output = new_output()
    arguments = ("/data", "/out", *levels, *CONTRAST, "--nprocs", n_processes, "--no-report")
    done = image.run(*arguments, options=[*image.options(study, output), *memory(mebibytes)])
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert_as_expected(output, *levels)


def test_run_that_does_not_fit_fails_in_words(
    image: Any, tmp_path: Path, new_output: Callable[[], Path], memory: Callable[[int], list[str]]
) -> None:
    """The kernel kills the process that computes, never the program that says so, and the others are finished."""
    options = "--participants 2 --sessions 2 --runs 1 --volumes 60 --no-raw-bold --missing"
    command = [sys.executable, "-m", "sessionfx.simulate", tmp_path / "bids", *options.split()]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    make_run_large(tmp_path / "bids" / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    output = new_output()
    arguments = ("/data", "/out", "participant", *CONTRAST, "--confounds", "none", "--nprocs", "2", "--no-report")
    done = image.run(*arguments, options=[*image.options(tmp_path / "bids", output), *memory(400)])
    assert done.returncode == 1, done.stderr
    assert "A run needs about 1.3 GB, and there are 0.4 GB: sub-01 may be killed" in done.stderr
    assert "docker run --memory" in done.stderr
    assert "sub-01: FAILED. Its process was killed, most likely because memory ran out." in done.stderr
    assert "sub-02: done" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((output / "sub-01").rglob("*_statmap.nii.gz"))
    assert list((output / "sub-02").rglob("*_statmap.nii.gz"))
    assert "because memory ran out" in next((output / "logs").glob("sub-01_*_crash.txt")).read_text()


def make_run_large(folder: Path) -> None:
    """Replace a run by 400 volumes of 2 mm in which all is brain: 1.7 GB of signal, a few MB in the file."""
    shape = (97, 115, 97)
    (bold,) = folder.glob("*_desc-preproc_bold.nii.gz")
    (mask,) = folder.glob("*_desc-brain_mask.nii.gz")
    image = nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.to_filename(mask)
    header = image.header.copy()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*shape, 400))
    header["vox_offset"] = 352
    with igzip.open(bold, "wb", compresslevel=0) as stream:
        stream.write(header.binaryblock + bytes(4))
        for volume in range(400):
            stream.write(np.full(shape, 1000 + volume % 7, np.int16).tobytes())


# Stopped in the middle


def test_sigterm_is_heard_before_there_is_an_output_folder(
    image: Any, study: Path, new_output: Callable[[], Path]
) -> None:
    """As soon as the handler is there, while the program still loads what it needs."""
    options = [*image.options(study, new_output()), image.name, "/data", "/out", "participant", *CONTRAST]
    container = image.command("run", "--detach", *options).stdout.strip()
    try:
        wait_until_sigterm_is_caught(int(image.command("inspect", "--format", "{{.State.Pid}}", container).stdout))
        image.command("stop", "-t", "120", container)  # the engine kills it afterwards, with another code
        assert int(image.command("wait", container).stdout) == TERMINATED
    finally:
        image.command("rm", "--force", container)


@pytest.mark.parametrize(
    ("how", "moment", "extra"),
    [
        ("stop", "logs/*_config.toml", ("--no-report",)),
        ("kill", "sub-*/**/*_statmap.nii.gz", ("--no-report", "--nprocs", "2")),
        ("stop", "sub-*/figures/*", ("--nprocs", "2")),
    ],
    ids=["stop at the beginning", "kill -TERM while maps are made", "stop while reports are drawn"],
)
def test_sigterm_leaves_whole_files_and_the_rerun_completes(
    image: Any,
    study: Path,
    new_output: Callable[[], Path],
    expected: dict[str, bytes],
    maps_of: Callable[[Path], dict[str, bytes]],
    assert_as_expected: Callable[..., None],
    how: str,
    moment: str,
    extra: tuple[str, ...],
) -> None:
    output = new_output()
    arguments = ("/data", "/out", "participant", *CONTRAST, *extra)
    container = image.command("run", "--detach", *image.options(study, output), image.name, *arguments).stdout.strip()
    try:
        deadline = time.monotonic() + 600
        while not any(output.glob(moment)):
            assert time.monotonic() < deadline, image.command("logs", container).stderr
            time.sleep(0.02)
        image.command(*(("stop", "-t", "120") if how == "stop" else ("kill", "--signal", "TERM")), container)
        assert int(image.command("wait", container).stdout) == TERMINATED
    finally:
        image.command("rm", "--force", container)
    assert_whole(output)
    unfinished = maps_of(output)
    assert len(unfinished) < sum(name.startswith("sub-") for name in expected), "it was stopped too late to show much"
    assert [name for name in unfinished if unfinished[name] != expected[name]] == []

    again = image.run(*arguments, options=image.options(study, output))
    assert again.returncode == 0, again.stderr
    assert_whole(output)
    assert_as_expected(output, "participant")
    assert len(list(output.glob("sub-*.html"))) == (0 if "--no-report" in extra else 3)


def is_whole_page(page: str) -> bool:
    """Whether a page has its end: behind it stands only what sections it was made of."""
    return re.search(r"</html>\s*(<!-- sections [0-9a-f]+ -->\s*)?\Z", page) is not None


def assert_whole(output: Path) -> None:
    """Read every file to its end; names of temporary files are not final ones."""
    for path in output.rglob("*"):
        if path.is_dir() or path.name.startswith(".sessionfx-") or path.suffix == ".lock":
            continue
        assert path.stat().st_size > 0, path
        if path.name.endswith(".nii.gz"):
            assert np.isfinite(np.asanyarray(nib.load(path).dataobj)).any(), path
        elif path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".html":
            assert is_whole_page(path.read_text(encoding="utf-8")), path
        elif path.suffix in {".tsv", ".txt"}:
            assert path.read_bytes().endswith(b"\n"), path

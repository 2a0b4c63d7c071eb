"""The image, built once, and a small study to run it on.

What is particular to a machine comes from environment variables: SESSIONFX_TEST_IMAGE names an image to test instead of
building one, SESSIONFX_TEST_ENGINE the engine; SESSIONFX_BUILD_OPTIONS holds further options of the build,
SESSIONFX_APPTAINER a command that stands in for Apptainer. `tools/local-podman` sets the last three where there is only
podman, `tools/local-slurm` starts a Slurm.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import sessionfx

REPOSITORY = Path(__file__).parents[2]
CONTRAST = ("--contrast", "incongruent - congruent")

# What a cluster or a careful administrator imposes: nothing can be written but a small /tmp from which nothing can be
# executed, and the mounts; no network; a user nobody has heard of, without rights.
CONDITIONS = (
    "--read-only",
    *("--network", "none"),
    *("--user", "1234:1234"),
    *("--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--security-opt", "label=disable"),
    *("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"),  # noqa: S108 - in the container
)
ONLY_PODMAN = ("--passwd=false", "--read-only-tmpfs=false")  # what docker does in any case

FIGURES = pytest.StashKey[list[str]]()

Process = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Image:
    """An image and the engine that runs it."""

    engine: str
    name: str

    def command(self, *arguments: object, timeout: float = 600, check: bool = True) -> Process:
        """Call the engine."""
        return call([self.engine, *map(str, arguments)], timeout=timeout, check=check)

    def options(self, study: Path | None = None, output: Path | None = None) -> list[str]:
        """The options of a run under the conditions, with /data and /out."""
        options = [*CONDITIONS, *(ONLY_PODMAN if Path(self.engine).name == "podman" else ())]
        options += ["--volume", f"{study}:/data:ro"] if study else []
        options += ["--volume", f"{output}:/out"] if output else []
        return options

    def run(
        self, *arguments: object, options: Sequence[str] = (), entrypoint: str | None = None, timeout: float = 600
    ) -> Process:
        """Run the image to its end and remove the container, whatever its exit code."""
        name = f"sessionfx-test-{uuid.uuid4().hex}"
        entry = ["--entrypoint", entrypoint] if entrypoint else []
        try:
            return self.command(
                "run", "--rm", "--name", name, *options, *entry, self.name, *arguments, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            self.command("rm", "--force", name)
            raise


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take down a figure, such as a size or a time, for the end of the test run."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)


def call(command: Sequence[str], *, timeout: float, check: bool = True, cwd: Path | None = None) -> Process:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd)
    if check:
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def find_engine() -> str | None:
    for name in os.environ.get("SESSIONFX_TEST_ENGINE", "docker podman").split():
        program = shutil.which(name)
        if program and call([program, "info"], timeout=600, check=False).returncode == 0:
            return program
    return None


@pytest.fixture(scope="session")
def image(report: Callable[[str], None]) -> Image:
    engine = find_engine()
    if engine is None:
        pytest.skip("Neither docker nor podman can run here, so no image can be built and tested.")
    given = os.environ.get("SESSIONFX_TEST_IMAGE")
    image = Image(engine, given or f"sessionfx-test:{sessionfx.__version__}")
    if not given:
        options = shlex.split(os.environ.get("SESSIONFX_BUILD_OPTIONS", ""))
        before = time.monotonic()
        image.command("build", *options, "--tag", image.name, REPOSITORY, timeout=1200)
        report(f"build of the image: {time.monotonic() - before:.0f} s (layers of an earlier build are used again)")
    return image


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three participants, two sessions, one run each, on a coarse grid."""
    folder = tmp_path_factory.mktemp("study") / "bids"
    options = "--participants 3 --sessions 2 --runs 1 --volumes 40 --voxel-size 12 --missing --no-raw-bold"
    call([sys.executable, "-m", "sessionfx.simulate", str(folder), *options.split()], timeout=600)
    for path in (folder, *folder.rglob("*")):  # readable by anybody, whatever the umask
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="session")
def new_output(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Make empty folders that every user may write to."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("out")
        folder.chmod(0o777)
        return folder

    return make


@pytest.fixture(scope="session")
def expected(study: Path, new_output: Callable[[], Path]) -> dict[str, bytes]:
    """The maps of both levels as this environment makes them, outside any container."""
    output = new_output()
    command = [sys.executable, "-m", "sessionfx", str(study), str(output), "participant", "group", *CONTRAST]
    call([*command, "--no-report"], timeout=600)
    return read_maps(output)


def read_maps(output: Path) -> dict[str, bytes]:
    """Statistical maps and masks, decompressed: header and voxels."""
    names = {str(path.relative_to(output)): path for path in output.rglob("*.nii.gz") if path.parent.name != "figures"}
    return {name: gzip.decompress(path.read_bytes()) for name, path in names.items()}


@pytest.fixture(scope="session")
def maps_of() -> Callable[[Path], dict[str, bytes]]:
    return read_maps


@pytest.fixture(scope="session")
def assert_as_expected(expected: dict[str, bytes]) -> Callable[..., None]:
    """Compare the maps of an output folder, bit by bit, with those made outside; `levels` may be one of the two."""

    def compare(output: Path, *levels: str) -> None:
        prefixes = tuple({"participant": "sub-", "group": "group/"}[level] for level in levels)
        wanted = {name: content for name, content in expected.items() if name.startswith(prefixes)}
        found = read_maps(output)
        assert wanted
        assert set(found) == set(wanted)
        assert [name for name in wanted if found[name] != wanted[name]] == []

    return compare


@dataclass(frozen=True)
class Cluster:
    """Apptainer, and a folder with everything it is to see: a stand-in may see no other."""

    program: tuple[str, ...]
    folder: Path

    def apptainer(self, *arguments: object, timeout: float = 600) -> Process:
        return call([*self.program, *map(str, arguments)], timeout=timeout, check=False, cwd=self.folder)

    def programs(self) -> Path:
        """Make a folder for PATH in which `apptainer` is what stands in for it."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "apptainer").write_text(
            f'#!/bin/bash\ncd {shlex.quote(str(self.folder))}\nexec {shlex.join(self.program)} "$@"\n'
        )
        (folder / "apptainer").chmod(0o755)
        return folder

    def run(self, output: Path | None, *arguments: object, options: tuple[str, ...]) -> str:
        binds = ("--bind", f"{self.folder}/bids:/data:ro", *(("--bind", f"{output}:/out") if output else ()))
        done = self.apptainer("run", *options, *binds, self.folder / "sessionfx.sif", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_output(self, name: str) -> Path:
        output = self.folder / name
        output.mkdir()
        output.chmod(0o777)
        return output


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    given = os.environ.get("SESSIONFX_APPTAINER", "")
    program = ("apptainer",) if shutil.which("apptainer") else tuple(shlex.split(given))
    if not program:
        pytest.skip("Apptainer is not installed, and SESSIONFX_APPTAINER names no command that stands in for it.")
    image: Image = request.getfixturevalue("image")
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o777)
    shutil.copytree(request.getfixturevalue("study"), folder / "bids")
    kind = ("--format", "docker-archive") if Path(image.engine).name == "podman" else ()
    image.command("save", *kind, "--output", folder / "image.tar", image.name, timeout=600)
    (folder / "image.tar").chmod(0o644)
    cluster = Cluster(program, folder)
    faster = ("--mksquashfs-args", "-comp zstd -Xcompression-level 1")
    done = cluster.apptainer("build", *faster, folder / "sessionfx.sif", f"docker-archive:{folder}/image.tar")
    assert done.returncode == 0, done.stderr
    (folder / "image.tar").unlink()
    return cluster

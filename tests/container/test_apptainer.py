"""The image under Apptainer, as clusters run it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sessionfx

pytestmark = pytest.mark.container

CONTRAST = ("--contrast", "incongruent - congruent")


@dataclass(frozen=True)
class Cluster:
    """Apptainer, and a folder with everything it is to see: a stand-in may see no other."""

    program: tuple[str, ...]
    folder: Path

    def apptainer(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [*self.program, *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False)

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


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    given = os.environ.get("SESSIONFX_APPTAINER", "")
    program = ("apptainer",) if shutil.which("apptainer") else tuple(shlex.split(given))
    if not program:
        pytest.skip("Apptainer is not installed, and SESSIONFX_APPTAINER names no command that stands in for it.")
    image: Any = request.getfixturevalue("image")
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o777)
    shutil.copytree(request.getfixturevalue("study"), folder / "bids")
    kind = ("--format", "docker-archive") if Path(image.engine).name == "podman" else ()
    image.command("save", *kind, "--output", folder / "image.tar", image.name, timeout=300)
    (folder / "image.tar").chmod(0o644)
    cluster = Cluster(program, folder)
    faster = ("--mksquashfs-args", "-comp zstd -Xcompression-level 1")
    done = cluster.apptainer("build", *faster, folder / "sessionfx.sif", f"docker-archive:{folder}/image.tar")
    assert done.returncode == 0, done.stderr
    (folder / "image.tar").unlink()
    return cluster


@pytest.mark.parametrize("options", [("--cleanenv", "--containall"), ("--no-home",)], ids=["containall", "no-home"])
def test_both_levels_give_the_same_maps(
    cluster: Cluster, assert_as_expected: Callable[..., None], options: tuple[str, ...]
) -> None:
    assert cluster.run(None, "--version", options=options) == f"sessionfx {sessionfx.__version__}\n"
    output = cluster.new_output("out" + options[-1])
    reports = () if "--containall" in options else ("--no-report",)
    for labels in (("01",), ("02", "03")):
        participant = ("/data", "/out", "participant", "--participant-label", *labels)
        cluster.run(output, *participant, *CONTRAST, *reports, options=options)
    cluster.run(output, "/data", "/out", "group", *reports, options=options)
    assert_as_expected(output, "participant", "group")
    pages = sorted(page.name for page in output.glob("*.html"))
    assert pages == ([] if reports else ["group.html", "sub-01.html", "sub-02.html", "sub-03.html"])


def test_environment_of_the_host_does_not_change_what_is_imported(cluster: Cluster) -> None:
    (cluster.folder / "host").mkdir()
    (cluster.folder / "host" / "numpy.py").write_text("raise SystemExit('a module of the host')\n")
    options = ("--no-home", "--bind", f"{cluster.folder}/host:/host", "--env", "PYTHONPATH=/host")
    printed = cluster.run(None, "/data", "/out", "participant", *CONTRAST, "--dry-run", options=options)
    assert "Would analyse" in printed

"""The lines that README.md and docs/clusters.md tell people to type, run as they stand there but for folders and image."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.container

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", "docs/clusters.md")
RUNS = ("docker", "apptainer", "sbatch", "platforms/slurm/submit.sh", "export", "bosh")


def documented(page: str) -> Iterator[list[str]]:
    """Split the console blocks of a page into commands, and these into words."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and program_of(words) in RUNS:
                yield words


def program_of(words: list[str]) -> str:
    return next(word for word in words if not re.fullmatch(r"[A-Z]+=.*", word))


COMMANDS = {page: list(documented(page)) for page in PAGES}


def lines_of(page: str, *programs: str) -> list[list[str]]:
    found = [words for words in COMMANDS[page] if program_of(words) in programs]
    assert found, f"{page} documents no line of {programs}"
    return found


def with_folders(words: list[str], folders: dict[str, object]) -> list[str]:
    """Put real folders and names in place of the documented ones, which end at the word's end or at a colon."""
    for documented_name, real in folders.items():
        pattern = re.compile(rf"(?<![\w/.-]){re.escape(documented_name)}(?![\w/.-])")
        words = [pattern.sub(lambda _, real=real: str(real), word) for word in words]
    return words


@pytest.mark.parametrize("page", PAGES)
def test_docker_lines_work(
    page: str, image: Any, study: Path, new_output: Callable[[], Path], assert_as_expected: Callable[..., None]
) -> None:
    for words in lines_of(page, "docker"):
        if words[1] == "run":
            output = new_output()
            words[words.index("sessionfx")] = image.name
            done = image.command(
                *with_folders(words[1:], {"/data/bids": study, "/data/sessionfx": output}), timeout=600, check=False
            )
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
            assert_as_expected(output, *(level for level in ("participant", "group") if level in words))
        elif words[1] == "build":
            assert words == ["docker", "build", "-t", "sessionfx", "."]
            options = shlex.split(os.environ.get("SESSIONFX_BUILD_OPTIONS", ""))
            image.command("build", *options, "-t", image.name, REPOSITORY, timeout=1200)
        else:
            assert words[1] == "save", "a line that is not tested"  # the fixture of Apptainer does that


@pytest.mark.parametrize("page", PAGES)
def test_apptainer_lines_work(page: str, cluster: Any) -> None:
    for number, words in enumerate(lines_of(page, "apptainer")):
        if words[1] == "build":
            assert words[2:3] == ["sessionfx.sif"]
            assert words[3].startswith(("docker-daemon:sessionfx", "docker-archive:sessionfx.tar"))
            continue  # built by the fixture in this way, from an archive
        output = cluster.new_output(f"documented-{page.replace('/', '-')}-{number}")
        folders = {"/data/bids": cluster.folder / "bids", "/data/sessionfx": output,
                   "sessionfx.sif": cluster.folder / "sessionfx.sif"}  # fmt: skip
        done = cluster.apptainer(*with_folders(words[1:], folders))
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        made = {path.name for path in output.glob("sub-*") if path.is_dir()}
        assert made == {"sub-01"}


def test_both_pages_submit_alike() -> None:
    assert lines_of(PAGES[0], "platforms/slurm/submit.sh") == lines_of(PAGES[1], "platforms/slurm/submit.sh")


@pytest.mark.parametrize(
    "programs", [("platforms/slurm/submit.sh",), ("export", "sbatch")], ids=["submit.sh", "sbatch"]
)
def test_slurm_lines_work(
    programs: tuple[str, ...], cluster: Any, assert_as_expected: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True, timeout=600).returncode:
        pytest.skip("No Slurm answers here. tests/container/tools/local-slurm COMMAND runs a command beside one.")
    monkeypatch.setenv("PATH", f"{cluster.programs()}:{os.environ['PATH']}")
    (cluster.folder / "options.txt").write_text(documented_options())
    output = cluster.new_output(f"documented-{programs[-1].replace('/', '-')}")
    folders = {"/data/bids": cluster.folder / "bids", "/data/sessionfx": output}
    folders |= {name: cluster.folder / name for name in ("sessionfx.sif", "options.txt")}
    folders |= {f"platforms/slurm/{path.name}": path for path in (REPOSITORY / "platforms" / "slurm").iterdir()}
    environment = dict(os.environ)
    for words in lines_of("docs/clusters.md", *programs):
        words = with_folders(words, folders)
        program = program_of(words)
        given = [word for word in words if re.match("[A-Z]+=", word)]
        environment |= dict(word.split("=", 1) for word in given)  # before the program, or after `export`
        command = [word for word in words if word not in given]
        if program != "export":
            done = subprocess.run(
                command, cwd=cluster.folder, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    deadline = time.monotonic() + 600
    while subprocess.run(["squeue", "--me", "--noheader"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert_as_expected(output, "participant", "group")


def documented_options() -> str:
    text = (REPOSITORY / "docs" / "clusters.md").read_text(encoding="utf-8")
    options = re.search(r"^```text\n(--task.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert options
    return options[1]


def test_bosh_line_is_one_that_is_tested() -> None:
    assert lines_of("docs/clusters.md", "bosh") == [["bosh", "exec", "launch", "boutiques.json", "invocation.json"]]

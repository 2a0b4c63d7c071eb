"""`--report-bug`: what helps to find a bug, and nothing that identifies people or places."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessionfx
from program import run_command, simulated


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("secretplace"))


def test_it_tells_versions_limits_options_and_the_shape_of_the_dataset(dataset: Path) -> None:
    done = run_command(dataset, dataset.parent / "out", "participant", "--report_bug", "--smoothing-fwhm", 6)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        f"SessionFX: {sessionfx.__version__}", "Python: ", "nilearn ", "processors: ", "container: no",
        "levels: participant", "options: --smoothing-fwhm 6", "2 participants, 2 session labels, 1 task, 1 space",
        "4 preprocessed BOLD files; with dataset_description.json",
    ):  # fmt: skip
        assert words in done.stdout


def test_it_tells_no_labels_paths_or_words_of_the_user(dataset: Path) -> None:
    options = ("--participant-label", "01", "secretname", "--contrast", "secretface - secrethouse", "--secretoption")
    more = ("--work-dir=/secretfolder", "--derivatives", "/secretfolder", "--nprocs", "secretnumber", "--report-bug")
    done = run_command(dataset, "/secretout", "group", *options, *more)
    assert done.returncode == 0
    assert "secret" not in done.stdout + done.stderr
    assert "--participant-label (2 values); --contrast (1 value); one that there is not; --work-dir" in done.stdout


@pytest.mark.parametrize("words", [(), ("/not/there",), ("/not/there", "out", "participant")])
def test_it_needs_no_dataset(words: tuple[str, ...]) -> None:
    done = run_command(*words, "--report-bug")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("dataset: not a folder" if words else "dataset: not given") in done.stdout

"""The Boutiques descriptor on the image, as `bosh exec launch` runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from program import bosh

pytestmark = pytest.mark.container

REPOSITORY = Path(__file__).parents[2]
CONTRASTS = ["incongruent - congruent"]


@pytest.fixture
def launch(image: Any, tmp_path: Path) -> Callable[..., str]:
    """Launch the descriptor on the image under test in a folder of its own; Boutiques calls whatever `docker` is."""
    descriptor = json.loads((REPOSITORY / "boutiques.json").read_text(encoding="utf-8"))
    descriptor["container-image"]["image"] = image.name
    (tmp_path / "boutiques.json").write_text(json.dumps(descriptor))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(image.engine)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def run(code: int = 0, **values: object) -> str:
        (tmp_path / "invocation.json").write_text(json.dumps(values))
        arguments = ("--no-pull", "--skip-data-collection", "boutiques.json", "invocation.json")
        done = bosh("exec", "launch", *arguments, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


def test_both_levels_give_the_same_maps(
    launch: Callable[..., str], study: Path, tmp_path: Path, assert_as_expected: Callable[..., None]
) -> None:
    for labels in (["01"], ["02", "03"]):
        printed = launch(
            bids_dir=str(study),
            output_dir="my results",
            analysis_level=["participant"],
            participant_label=labels,
            contrast=CONTRASTS,
            no_report=True,
        )
        assert "my results (results" in printed, printed
    launch(bids_dir=str(study), output_dir="my results", analysis_level=["group"], no_report=True)
    assert_as_expected(tmp_path / "my results", "participant", "group")


def test_exit_codes_are_explained(launch: Callable[..., str], study: Path) -> None:
    printed = launch(18, bids_dir=str(study), output_dir="out", analysis_level=["participant"],
                     participant_label=["77"], contrast=CONTRASTS)  # fmt: skip
    assert "--participant-label 77 matches no participant" in printed
    assert "A filter (participant, session, task, space, …) matched nothing." in printed


def test_config_file_has_the_word_where_the_form_has_defaults(
    launch: Callable[..., str], study: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text("noise-model = 'ols'\nno-report = true\n")
    launch(bids_dir=str(study), output_dir="out", analysis_level=["participant"], participant_label=["01"],
           contrast=CONTRASTS, config_file="study.toml")  # fmt: skip
    saved = next((tmp_path / "out" / "logs").glob("*_config.toml")).read_text()
    assert 'noise-model = "ols"' in saved
    assert 'hrf-model = "glover"' in saved

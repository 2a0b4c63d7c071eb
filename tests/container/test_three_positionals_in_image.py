"""The image, called as platforms call it: nothing but the positionals, one job per participant, then the group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plain_layouts import PLAIN, contrasts_in

pytestmark = pytest.mark.container


@pytest.mark.parametrize("name", PLAIN)
def test_one_job_per_participant_then_the_group(
    image: Any, new_output: Callable[[], Path], tmp_path: Path, name: str
) -> None:
    plain = PLAIN[name]
    root, output = plain.make(tmp_path / "bids"), new_output()
    for level in (*(("participant", "--participant-label", label) for label in plain.labels), ("group",)):
        done = image.run("/data", "/out", *level, options=image.options(root, output), timeout=900)
        assert done.returncode == 0, done.stderr
    found = contrasts_in(f"_{path.name}" for path in output.glob("group/*stat-t*statmap.nii.gz"))
    assert found == plain.expected
    assert all((output / page).is_file() for page in ("group.html", f"sub-{plain.labels[0]}.html"))

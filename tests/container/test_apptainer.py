"""The image under Apptainer, as clusters run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import sessionfx

pytestmark = pytest.mark.container

CONTRAST = ("--contrast", "incongruent - congruent")


@pytest.mark.parametrize("options", [("--cleanenv", "--containall"), ("--no-home",)], ids=["containall", "no-home"])
def test_both_levels_give_the_same_maps(
    cluster: Any, assert_as_expected: Callable[..., None], options: tuple[str, ...]
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


def test_environment_of_the_host_does_not_change_what_is_imported(cluster: Any) -> None:
    (cluster.folder / "host").mkdir()
    (cluster.folder / "host" / "numpy.py").write_text("raise SystemExit('a module of the host')\n")
    options = ("--no-home", "--bind", f"{cluster.folder}/host:/host", "--env", "PYTHONPATH=/host")
    printed = cluster.run(None, "/data", "/out", "participant", *CONTRAST, "--dry-run", options=options)
    assert "Would analyse" in printed

"""The notebook of a whole analysis runs, and still says what it says in the documentation.

After a change that is meant: python tools/notebook.py
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "whole_analysis.ipynb"


def printed(notebook: Any) -> list[str]:
    return [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    ]


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    run = deepcopy(kept)
    NotebookClient(run, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(printed(run)) >= 3
    assert printed(run) == printed(kept)
    assert not [output for cell in run.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for cell in kept.cells for output in cell.get("outputs", [])) == 5
    assert NOTEBOOK.stat().st_size < 300_000

"""Run the notebook of docs/notebooks and keep what it shows; `python tools/notebook.py` after a change."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "whole_analysis.ipynb"

if __name__ == "__main__":
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, record_timing=False, timeout=300).execute()
    nbformat.write(notebook, NOTEBOOK)

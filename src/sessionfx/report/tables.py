"""Summaries of maps as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessionfx.options import GroupModel

# How columns of tables are called for people; in files they have the short names.
TITLES = {
    "dof": "degrees of freedom",
    "n_voxels": "voxels",
    "threshold": "threshold |z|",
    "n_above": "voxels beyond",
    "largest_z": "largest z",
    "largest_at_mm": "at x, y, z (mm)",
    "smallest_z": "smallest z",
    "smallest_at_mm": "at x, y, z (mm) ",
    "valid": "to be trusted",
    "n_participants": "participants",
    "n_maps": "maps",
}


def titled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a row the names people read."""
    return {TITLES.get(name, name): value for name, value in record.items()}


def threshold_words(model: GroupModel) -> str:
    """Say at which error rate maps are thresholded."""
    words = {
        "fdr": "false discovery rate",
        "bonferroni": "Bonferroni-corrected error rate",
        "none": "uncorrected rate",
    }
    return f"{words[model.correction]} {model.alpha:g}"

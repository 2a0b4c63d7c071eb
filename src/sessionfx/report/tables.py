"""Summaries of maps as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessionfx.options import GroupModel
from sessionfx.space.space import Space
from sessionfx.wording import place_text, unbroken, where_text

# How columns of tables are called for people; in files they have the short names.
TITLES = {
    "dof": "degrees of freedom",
    "n_voxels": "voxels",
    "n_vertices": "vertices",
    "n_grayordinates": "grayordinates",
    "threshold": "threshold |z|",
    "n_above": "suprathreshold",
    "largest_z": "largest z",
    "largest_at": "at x, y, z (mm)",
    "smallest_z": "smallest z",
    "smallest_at": "at x, y, z (mm) ",
    "valid": "to be trusted",
    "n_participants": "participants",
    "n_maps": "maps",
}


def titled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a row the names people read, and places in one column."""
    row = {}
    for name, value in record.items():
        start, is_place, axis = name.rpartition("_at_")
        if not is_place:
            row[TITLES.get(name, name)] = value
        elif axis == "x" and f"{start}_at_structure" not in record:
            row[TITLES[f"{start}_at"]] = unbroken(place_text(*(record[f"{start}_at_{axis}"] for axis in "xyz")))
        elif axis in ("hemisphere", "structure"):
            place = {key: record[f"{start}_at_{key}"] for key in ("vertex", *"xyz") if f"{start}_at_{key}" in record}
            row[TITLES[f"{start}_at"].replace("at x, y, z (mm)", "where")] = where_text({axis: value, **place})
    return row


def place_words(entities: Mapping[str, str | None], space: Space | type[Space]) -> str:
    """Say which analysis this is: task, kind and label of the space, and whatever else tells it from others."""
    return " · ".join(
        f"{space.kind if key == 'space' else key} {label}" for key, label in entities.items() if label
    )  # fmt: skip


def threshold_words(model: GroupModel) -> str:
    """Say at which error rate maps are thresholded."""
    words = {
        "fdr": "false discovery rate",
        "bonferroni": "Bonferroni-corrected error rate",
        "none": "uncorrected rate",
    }
    return f"{words[model.correction]} {model.alpha:g}"

"""Tables of regions beside the maps they are of: effect and variance in each region of an atlas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sessionfx.bids.atlas import Atlas
from sessionfx.bids.derivatives import SOFTWARE
from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.bids.names import file_name
from sessionfx.bids.reading import read_json_object
from sessionfx.bids.tables import numeric_column, read_table, table_text
from sessionfx.bids.writing import write_json, write_text
from sessionfx.space.regions import LEAST_SHARE
from sessionfx.space.space import Space

DESC = "regions"
SUFFIX = "metrics"
_NUMBERS = ("index", "effect", "variance", "share")
# Columns that tables of values share, with their units in sidecars
VALUE_COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the region in the atlas"},
    "region": {"Description": "Its name in the atlas"},
    "effect": {"Description": f"Mean effect; n/a where less than {LEAST_SHARE:.0%} of the region's voxels have data"},
    "variance": {"Description": "Its sampling variance"},
    "share": {"Description": "Of the region's voxels, in the space of the maps"},
}

# Of a fit
STATISTIC_COLUMNS: dict[str, dict[str, Any]] = {
    "t": {"Description": "effect / sqrt(variance)"},
    "z": {"Description": "Normal deviate with the same one-sided p as t"},
    "dof": {"Description": "Degrees of freedom of t"},
}


def count_column(space: Space) -> str:
    """Name the column that counts the features of a region that have data."""
    return f"n_{space.features}"


def value_columns(units: str, space: Space) -> dict[str, dict[str, Any]]:
    """Describe the columns of a table of values whose effects have some units, of maps in a space."""
    of_effects = {"effect": units, "variance": f"({units})^2"}
    columns = {**VALUE_COLUMNS, count_column(space): {"Description": "Voxels of the region that have data"}}
    return {
        name: {
            "Description": space.in_words(column["Description"]),
            **({"Units": of_effects[name]} if name in of_effects else {}),
        }
        for name, column in columns.items()
    }


def atlas_fields(atlas: Atlas) -> dict[str, Any]:
    """Describe an atlas in sidecars."""
    return {"Atlas": atlas.label, "AtlasFiles": [path.name for path in atlas.files], "AtlasDigest": atlas.digest}


def region_table_beside(found: FirstLevelMap, atlas: str) -> Path:
    """Where the participant level writes the regions of a map."""
    entities = {key: label for key, label in found.entities.items() if key != "stat"}
    return found.effect.with_name(file_name({**entities, "atlas": atlas, "desc": DESC}, SUFFIX, ".tsv"))


def read_region_table(path: Path, atlas: Atlas, space: Space) -> pd.DataFrame | None:
    """Read the table of the regions of a map in a space; None where there is none, or it is of another atlas."""
    sidecar = path.with_suffix(".json")
    if not (path.is_file() and sidecar.is_file()):
        return None
    if read_json_object(sidecar).get("AtlasDigest") != atlas.digest:
        return None
    table = read_table(path)
    return pd.DataFrame(
        {name: numeric_column(table, name, path, allow_missing=True) for name in (*_NUMBERS, count_column(space))}
    )


def write_region_table(path: Path, table: pd.DataFrame, columns: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write a table, with what its columns are and further fields in the JSON beside it."""
    write_text(path, table_text(table))
    described = {name: columns[name] for name in table.columns}
    write_json(path.with_suffix(".json"), {**described, **content, "Software": SOFTWARE})

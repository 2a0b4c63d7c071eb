"""Statistical maps as files: five images and sidecars per estimate, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sessionfx.errors import ParticipantError
from sessionfx.inputs.images import read_volume
from sessionfx.maps import EstimateMap
from sessionfx.naming import STATISTICS, STATMAP_SUFFIX, file_name
from sessionfx.outputs.derivatives import SOFTWARE
from sessionfx.outputs.files import write_json, write_map
from sessionfx.statistics.estimates import Estimate

EXTENSION = ".nii.gz"

_DESCRIPTIONS = {
    "effect": "Contrast estimate; 0 outside the mask",
    "variance": "Sampling variance of the contrast estimate; above 0 exactly at the voxels of the mask",
    "t": "Student's t, effect / sqrt(variance); 0 outside the mask",
    "z": "Normal deviate with the same one-sided p as t; 0 outside the mask",
    "p": "One-sided p value, upper tail (large positive effects have small p); 1 outside the mask",
}
# The next level computes from these: what it gives must not depend on whether they were read back from files.
_FULL_PRECISION = ("effect", "variance")
_UNITS = {"effect": "percent signal change", "variance": "(percent signal change)^2"}


def statmap_paths(folder: Path, entities: Mapping[str, str | None]) -> dict[str, Path]:
    """Paths of the five maps of an estimate by statistic."""
    return {
        statistic: folder / file_name({**entities, "stat": statistic}, STATMAP_SUFFIX, EXTENSION)
        for statistic in STATISTICS
    }


def write_statmaps(
    folder: Path, entities: Mapping[str, str | None], estimate_map: EstimateMap, sidecar: Mapping[str, Any]
) -> list[Path]:
    """Write effect, variance, t, z and p with their sidecars.

    Parameters
    ----------
    folder : Path
    entities : mapping
        Entities of the file names, without `stat`.
    estimate_map : EstimateMap
    sidecar : mapping
        Fields common to the five sidecars.

    Returns
    -------
    list of Path
        Images and sidecars.
    """
    estimate = estimate_map.estimate
    values = {
        "effect": estimate.effect, "variance": estimate.variance, "t": estimate.t, "z": estimate.z, "p": estimate.p,
    }  # fmt: skip
    paths = statmap_paths(folder, entities)
    # The effect comes last: who finds one (the group level does so by name) finds the others whole.
    for statistic, path in reversed(paths.items()):
        outside = 1.0 if statistic == "p" else 0.0
        dtype = np.float64 if statistic in _FULL_PRECISION else np.float32
        content = {
            "Description": f"{sidecar.get('Description', '')} {_DESCRIPTIONS[statistic]}.".strip(),
            "StatisticType": statistic,
            **({"Units": _UNITS[statistic]} if statistic in _UNITS else {}),
            **{key: value for key, value in sidecar.items() if key != "Description"},
            "DegreesOfFreedom": estimate.dof,
            "Software": SOFTWARE,
        }
        write_json(sidecar_path(path), content)
        write_map(path, values[statistic], estimate_map.mask, estimate_map.grid, outside=outside, dtype=dtype)
    return [*paths.values(), *map(sidecar_path, paths.values())]


def sidecar_path(path: Path) -> Path:
    """Name the JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of an image; empty where there is none.

    Raises
    ------
    ParticipantError
        If it is there and cannot be read.
    """
    try:
        content = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ParticipantError(f"{sidecar_path(path)} cannot be read as JSON ({error}). Remake or remove it.") from None
    return content if isinstance(content, dict) else {}


def read_estimate(effect_path: Path, variance_path: Path | None) -> EstimateMap:
    """Read an estimate back.

    Parameters
    ----------
    effect_path : Path
    variance_path : Path or None
        Where there is none (maps of other programs) the mask is where the effect is finite and not zero, and the
        variance is NaN.

    Returns
    -------
    EstimateMap
        Its dof is that of the sidecar, NaN where it says none.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or the two lie on different grids.
    """
    effect, grid = read_volume(effect_path)
    dof = read_sidecar(effect_path).get("DegreesOfFreedom")
    degrees = float(dof) if isinstance(dof, int | float) else float("nan")
    if variance_path is None:
        mask = np.isfinite(effect) & (effect != 0)
        return EstimateMap(Estimate(effect[mask], np.full(int(mask.sum()), np.nan), degrees), mask, grid)
    variance, variance_grid = read_volume(variance_path)
    if not grid.same_as(variance_grid):
        raise ParticipantError(f"{effect_path} and {variance_path} lie on different grids. Remake the maps.")
    mask = np.isfinite(effect) & np.isfinite(variance) & (variance > 0)
    return EstimateMap(Estimate(effect[mask], variance[mask], degrees), mask, grid)

"""Statistical maps as files: one image and sidecar per statistic of a result, and reading estimates back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.derivatives import SOFTWARE
from sessionfx.bids.images import DifferentGridError, read_series, read_volume
from sessionfx.bids.names import STATISTICS, STATMAP_SUFFIX, SURFACE_MAPS, file_name, files_of
from sessionfx.bids.reading import LARGEST_JSON, read_text
from sessionfx.bids.surfaces import read_surfaces
from sessionfx.bids.writing import write_json, write_map
from sessionfx.errors import ParticipantError
from sessionfx.options.groups import EFFECT_UNITS
from sessionfx.space.described import described_in
from sessionfx.space.grid import Grid
from sessionfx.space.space import Intent, Space
from sessionfx.space.stat_map import EstimateMap, StatMap
from sessionfx.statistics.estimates import Dof, Estimate, FTest, Result, WaldTest

_DESCRIPTIONS = {
    "effect": "Contrast estimate; 0 outside the mask",
    "variance": "Sampling variance of the contrast estimate; above 0 exactly at the {features} of the mask",
    "t": "Student's t, effect / sqrt(variance); 0 outside the mask",
    "z": "Normal deviate with the same one-sided p as t; 0 outside the mask",
    "p": "One-sided p value, upper tail (large positive effects have small p); 1 outside the mask",
    "F": "F statistic; 0 outside the mask",
    "effects": "Estimates of the rows of an F test, a volume for each of RowsContrast; 0 outside the mask",
    "covariance": "Sampling variances and covariances of these estimates, a volume for each of CovarianceVolumes; "
    "0 outside the mask",
    "dof": "Degrees of freedom of the error at each {feature}; 0 outside the mask",
    "n": "Number of participants at each {feature}; 0 outside the mask",
}
_F_DESCRIPTIONS = {
    "z": "Normal deviate with the same upper-tail p as F; 0 outside the mask",
    "p": "p value, upper tail of F; 1 outside the mask",
}
# The next level computes from these: what it gives must not depend on whether they were read back from files.
_FULL_PRECISION = ("effect", "variance", "dof", "effects", "covariance")
# As a share of the largest, a variance that is rounding error: nilearn writes some at vertices whose data are all 0
_ROUNDING = 1e-20
# Names of the NIfTI intent codes
_INTENTS = {
    "effect": "estimate", "variance": "estimate", "effects": "estimate", "covariance": "estimate",
    "t": "t test", "F": "f test", "z": "z score", "p": "p value",
}  # fmt: skip


def statmap_paths(
    folder: Path,
    entities: Mapping[str, str | None],
    statistics: Iterable[str] = STATISTICS,
    extension: str = Grid.extension,
) -> dict[str, Path]:
    """Paths of the maps of a result by statistic; those of an estimate by default.

    Where hemispheres have files of their own it is the name of both together; see `files_of`.
    """
    return {
        statistic: folder / file_name({**entities, "stat": statistic}, STATMAP_SUFFIX, extension)
        for statistic in statistics
    }


def write_statmaps(
    folder: Path,
    entities: Mapping[str, str | None],
    stat_map: StatMap[Any],
    sidecar: Mapping[str, Any],
    units: str = EFFECT_UNITS["voxel"],
) -> list[Path]:
    """Write a result's maps, those of `Result.maps`, with their sidecars.

    Their entities are given without `stat`, and fields that all sidecars have; units are the effect's. Returns the
    paths of images and sidecars.
    """
    result: Result = stat_map.estimate
    space = stat_map.space
    values = result.maps()
    named = _DESCRIPTIONS | ({} if result.two_sided else _F_DESCRIPTIONS)
    descriptions = {
        statistic: text.format(feature=space.feature, features=space.features) for statistic, text in named.items()
    }
    dof = dof_fields(result, space.features)
    squared = f"({units})^2"
    units_of = {"effect": units, "variance": squared, "effects": units, "covariance": squared}
    paths = statmap_paths(folder, entities, values, space.extension)
    # The effects come last: who finds one (the group level does so by name) finds the others whole.
    for statistic, path in reversed(paths.items()):
        content = {
            "Description": f"{sidecar.get('Description', '')} {descriptions[statistic]}.".strip(),
            "StatisticType": statistic,
            **({"Units": units_of[statistic]} if statistic in units_of else {}),
            **{key: value for key, value in sidecar.items() if key != "Description"},
            **dof,
            "Software": SOFTWARE,
        }
        write_statmap(path, values[statistic], stat_map.mask, space, content)
    return with_sidecars(paths.values())


def dof_fields(result: Result, features: str) -> dict[str, Any]:
    """Give the degrees of freedom of a result as fields of a sidecar; features are called by their name."""
    dof: dict[str, Any] = {"DegreesOfFreedom": result.typical_dof}
    if isinstance(result.dof, np.ndarray):
        dof["DegreesOfFreedomAre"] = f"median over {features}; see the map of stat-dof"
    if isinstance(result, FTest):
        dof["DegreesOfFreedomNumerator"] = float(np.median(result.dof_numerator))
    return dof


def write_statmap(
    path: Path, values: NDArray[np.floating], mask: NDArray[np.bool_], space: Space, content: Mapping[str, Any]
) -> None:
    """Write one map and its sidecar, of hemispheres one for each.

    Parameters
    ----------
    path : Path
        Its `stat` entity says what the map holds.
    values : ndarray of shape (V,), or (N, V) of N volumes
    mask : ndarray of bool, of the space's shape
    space : Space
    content : mapping
        Of the sidecar; its StatisticType decides how the map is kept.
    """
    statistic = content["StatisticType"]
    write_sidecars(path, space, content)
    write_map(
        path, values, mask, space,
        outside=1.0 if statistic == "p" else 0.0,
        dtype=space.most_precise if statistic in _FULL_PRECISION else np.float32,
        intent=_intent(content),
        names=tuple(content.get({"effects": "RowsContrast", "covariance": "CovarianceVolumes"}.get(statistic, ""), ()))
        or (statistic,),
    )  # fmt: skip


def write_sidecars(path: Path, space: Space, content: Mapping[str, Any]) -> None:
    """Write the sidecar of a map, of hemispheres one for each, in the words of its space."""
    said = described_in(type(space), content)
    for file in files_of(path):
        write_json(sidecar_path(file), said)


def _intent(content: Mapping[str, Any]) -> Intent:
    """Give the NIfTI intent of a map from its sidecar; degrees of freedom that differ between voxels are left out."""
    statistic = content["StatisticType"]
    fields = {"t": ("DegreesOfFreedom",), "F": ("DegreesOfFreedomNumerator", "DegreesOfFreedom")}.get(statistic, ())
    parameters = () if "DegreesOfFreedomAre" in content else tuple(content[field] for field in fields)
    return _INTENTS.get(statistic, "none"), parameters


def sidecar_path(path: Path) -> Path:
    """Name the JSON file beside an image."""
    name = path.name.removesuffix(".gz").removesuffix(".gii").removesuffix(".nii").removesuffix(".dscalar")
    return path.with_name(f"{name}.json")


def with_sidecars(paths: Iterable[Path]) -> list[Path]:
    """Name all files of maps, and their sidecars."""
    files = [file for path in paths for file in files_of(path)]
    return [*files, *map(sidecar_path, files)]


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of an image; empty where there is none.

    Raises
    ------
    ParticipantError
        If it is there and cannot be read.
    """
    sidecar = sidecar_path(files_of(path)[0])
    if not sidecar.exists() and not sidecar.is_symlink():
        return {}
    try:
        # NaN is no JSON, and would be copied into sidecars of the next level
        content = json.loads(read_text(sidecar, largest=LARGEST_JSON), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ParticipantError(f"{sidecar} cannot be read as JSON ({error}). Remake or remove it.") from None
    return content if isinstance(content, dict) else {}


def units_in(sidecar: Mapping[str, Any]) -> str:
    """Give the units of an effect map, percent signal change where its sidecar says none."""
    units = sidecar.get("Units")
    return units if isinstance(units, str) else EFFECT_UNITS["voxel"]


def read_estimate(effect_path: Path, variance_path: Path | None, dof_path: Path | None = None) -> EstimateMap:
    """Read an estimate back.

    Parameters
    ----------
    effect_path : Path
    variance_path : Path or None
        Where there is none (maps of other programs) the mask is where the effect is finite and not zero, and the
        variance is NaN.
    dof_path : Path, optional
        Read where the sidecar says that degrees of freedom differ between voxels.

    Returns
    -------
    EstimateMap
        Its dof is that of the sidecar, NaN where it says none.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or the two lie on different grids.
    """
    effect, variance, mask, space = read_effect(effect_path, variance_path)
    values = np.full(int(mask.sum()), np.nan) if variance is None else variance[mask]
    return EstimateMap(Estimate(effect[mask], values, _read_dof(effect_path, dof_path, mask, space)), mask, space)


def read_wald_test(effects_path: Path, covariance_path: Path, dof_path: Path) -> StatMap[WaldTest]:
    """Read an F test of a participant back; see `read_estimate`."""
    effects, space = _read_maps(effects_path)
    covariance, _ = _read_maps(covariance_path)
    mask = covariance[0] > 0  # the variance of the first row
    dof = _read_dof(effects_path, dof_path, mask, space)
    return StatMap(WaldTest.of(effects[:, mask], covariance[:, mask], dof), mask, space)


def as_kept(stat_map: StatMap[Any]) -> StatMap[Any]:
    """Round a participant's result to the numbers that its files hold: what follows must not depend on who reads them.

    In most spaces these are all of its numbers.
    """
    precision = stat_map.space.most_precise
    if precision is np.float64:
        return stat_map

    def rounded(values: Any) -> Any:
        return values.astype(precision).astype(np.float64) if isinstance(values, np.ndarray) else values

    result = stat_map.estimate
    dof = rounded(result.dof)
    if isinstance(result, WaldTest):
        return StatMap(
            WaldTest.of(rounded(result.effects), rounded(result.covariance), dof), stat_map.mask, stat_map.space
        )
    return StatMap(Estimate(rounded(result.effect), rounded(result.variance), dof), stat_map.mask, stat_map.space)


def _read_maps(path: Path) -> tuple[NDArray[np.float64], Space]:
    """Read a file of several maps, of shape (N, …), and its space."""
    if not path.name.endswith(SURFACE_MAPS):
        return read_series(path)
    series = read_surfaces(files_of(path))
    return series.data, series.space


def read_map(
    path: Path, expected: Space | None = None, owner: str = "", *, lends: str = ""
) -> tuple[NDArray[np.float64], Space]:
    """Read a file of one map and its space, which must be the one expected, the owner's; see `read_volume`."""
    if not path.name.endswith(SURFACE_MAPS):
        return read_volume(path, None if expected is None else expected.as_grid(), owner, lends=lends)
    values, space = _read_maps(path)
    if len(values) != 1:
        raise ParticipantError(f"{path} holds {len(values)} maps, expected one. Remake the maps.")
    if expected is not None and not space.same_as(expected):
        raise DifferentGridError(f"{owner} and {path} differ in their space: {expected.difference_from(space)}.")
    return values[0], space


def _read_dof(path: Path, dof_path: Path | None, mask: NDArray[np.bool_], space: Space) -> Dof:
    """Read the degrees of freedom of a map: from its sidecar, or from theirs where it says that they differ."""
    sidecar = read_sidecar(path)
    dof = sidecar.get("DegreesOfFreedom")
    if dof_path is not None and "DegreesOfFreedomAre" in sidecar:
        try:
            return read_map(dof_path, space, str(path))[0][mask]
        except DifferentGridError as error:
            raise ParticipantError(f"{error} Remake the maps.") from None
    return float(dof) if isinstance(dof, int | float) else float("nan")


def read_effect(
    effect_path: Path,
    variance_path: Path | None,
    expected: Space | None = None,
    owner: str = "",
    *,
    lends: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.bool_], Space]:
    """Read an effect and its variance, and find the features that have both; see `read_estimate`.

    Where they are lent, the arrays may hold only until this thread reads the next map.

    Raises
    ------
    DifferentGridError
        If the effect does not lie in the space expected, which is the owner's.
    """
    effect, space = read_map(effect_path, expected, owner, lends="effect" if lends else "")
    if variance_path is None:
        return effect, None, np.isfinite(effect) & (effect != 0), space
    try:
        variance, _ = read_map(variance_path, space, str(effect_path), lends="variance" if lends else "")
    except DifferentGridError as error:
        raise ParticipantError(f"{error} Remake the maps.") from None
    finite = np.isfinite(effect) & np.isfinite(variance)
    least = _ROUNDING * variance.max(where=finite, initial=0.0)
    return effect, variance, finite & (variance > least), space

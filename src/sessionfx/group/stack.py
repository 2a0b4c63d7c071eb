"""The maps of one contrast on the voxels all of them have, kept on disk and read block by block.

Memory is then bounded by one map and one block of voxels, whatever the number of maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sessionfx.covariates import Covariates
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.execution import progress_bar
from sessionfx.group.spool import Spool, open_spool
from sessionfx.inputs.images import Grid
from sessionfx.inputs.statmaps import FirstLevelMap
from sessionfx.maps import EstimateMap
from sessionfx.outputs.records import fingerprint
from sessionfx.outputs.statmaps import read_estimate, read_sidecar
from sessionfx.strategies.base import MapLayout


@dataclass(frozen=True)
class MapStack:
    """N maps on their V common voxels; see `strategies.blocks.Maps`.

    Attributes
    ----------
    layout : MapLayout
    mask : ndarray of bool, 3-D
        Voxels that every map has.
    grid : Grid
    coverage : ndarray of int, 3-D
        How many maps have each voxel.
    notes : tuple of str
    spooled, spooled_variances : Spool
        On disk: the N maps at the W voxels of the first one.
    columns : ndarray of shape (V,)
        Which of these are common to all.
    """

    layout: MapLayout
    mask: NDArray[np.bool_]
    grid: Grid
    coverage: NDArray[np.int_]
    notes: tuple[str, ...]
    spooled: Spool
    spooled_variances: Spool | None
    columns: NDArray[np.int_]

    @property
    def n_voxels(self) -> int:
        """Number of common voxels."""
        return len(self.columns)

    def effects(self, voxels: slice) -> NDArray[np.float64]:
        """Read the effects of some voxels, of shape (N, v)."""
        return self.spooled.read(self.columns[voxels])

    def variances(self, voxels: slice) -> NDArray[np.float64]:
        """Read the sampling variances of some voxels, of shape (N, v)."""
        assert self.spooled_variances is not None  # noqa: S101 - spooled where a strategy needs them
        return self.spooled_variances.read(self.columns[voxels])


@contextmanager
def open_stack(
    maps: Sequence[FirstLevelMap],
    covariates: Covariates,
    folder: Path,
    *,
    needs_variances: bool,
    times: tuple[str, ...] = (),
) -> Iterator[MapStack]:
    """Read the maps of a contrast and restrict them to the voxels all of them have.

    Parameters
    ----------
    maps : sequence of N FirstLevelMap
    covariates : Covariates
        Of their participants.
    folder : Path
        Where the maps are kept while the context lasts.
    needs_variances : bool
    times : tuple of str
        Session covariates that serve as time.

    Yields
    ------
    MapStack

    Raises
    ------
    LevelError
        If grids differ, a map is unreadable, no voxel is common, or variances are needed and missing.
    OutputError
        If the folder cannot be written.
    """
    first = _read(maps[0], maps[0], None, needs_variances)
    with open_spool(folder) as effects, open_spool(folder) if needs_variances else nullcontext() as variances:
        coverage = np.zeros(first.grid.shape, dtype=int)
        sizes = []
        for row, one in enumerate(progress_bar(maps, "reading", "map")):
            current = first if row == 0 else _read(one, maps[0], first.grid, needs_variances)
            coverage += current.mask
            sizes.append(int(current.mask.sum()))
            effects.append(current.volume(current.estimate.effect)[first.mask])
            if variances is not None:
                variances.append(current.volume(current.estimate.variance)[first.mask])
        common = coverage == len(maps)
        if not common.any():
            raise LevelError(
                f"No voxel has data in all {len(maps)} maps; {maps[int(np.argmin(sizes))].effect} covers least. "
                "Leave that participant out with --participant-label, or check its mask."
            )
        yield MapStack(
            layout_of(maps, covariates, times), common, first.grid, coverage, tuple(_notes(maps, sizes,
            int(common.sum()))), effects, variances, np.nonzero(common[first.mask])[0],
        )  # fmt: skip


def layout_of(maps: Sequence[FirstLevelMap], covariates: Covariates, times: tuple[str, ...] = ()) -> MapLayout:
    """Say whose map each is, with the covariates of each."""
    return MapLayout(
        tuple(one.participant for one in maps),
        tuple(one.session for one in maps),
        covariates.columns,
        np.array([covariates.row_of(one.participant) for one in maps]).reshape(len(maps), -1),
        covariates.session_columns,
        np.array(
            [covariates.session_values.get((one.participant, one.session), ()) for one in maps], dtype=float
        ).reshape(len(maps), -1),
        times,
    )  # fmt: skip


def attendance(maps: Sequence[FirstLevelMap]) -> Mapping[str, tuple[str, ...]]:
    """Sessions of which each participant has a map."""
    found: dict[str, list[str]] = {}
    for one in maps:
        found.setdefault(one.participant, []).append(one.session)
    return {participant: tuple(sessions) for participant, sessions in found.items()}


def _read(one: FirstLevelMap, first: FirstLevelMap, grid: Grid | None, needs_variances: bool) -> EstimateMap:
    if needs_variances and one.variance is None:
        raise LevelError(
            f"{one.effect} has no variance map, which --fixed-effects precision and --strategy meta need. Leave "
            "them out."
        )
    try:
        current = read_estimate(one.effect, one.variance)
    except ParticipantError as error:
        raise LevelError(f"{error} Or leave sub-{one.participant} out with --participant-label.") from None
    if grid is not None and not grid.same_as(current.grid):
        raise LevelError(
            f"{first.effect} ({grid}) and {one.effect} ({current.grid}) lie on different grids. "
            "Preprocess all participants to one standard space, or choose maps with --space, --res or "
            "--participant-label."
        )
    return current


def _notes(maps: Sequence[FirstLevelMap], sizes: Sequence[int], n_common: int) -> list[str]:
    notes = []
    typical = float(np.median(sizes))
    if n_common < 0.9 * typical:
        least = int(np.argmin(sizes))
        notes.append(
            f"The {len(maps)} maps share {n_common} voxels, {n_common / typical:.0%} of the median map; "
            f"{maps[least].effect.name} covers least ({sizes[least]} voxels)."
        )
    models = {fingerprint([sidecar.get(key) for key in ("ModelParameters", "ContrastWeights", "FixedEffectsWeighting")])
              for one in maps if (sidecar := read_sidecar(one.effect))}  # fmt: skip
    if len(models) > 1:
        notes.append(
            "The first-level maps were made with different options (see ModelParameters in their sidecars). Run the "
            "participant level again so that all participants are treated alike."
        )
    missing_variance = [one for one in maps if one.variance is None]
    if missing_variance:
        notes.append(
            f"{len(missing_variance)} {'maps have' if len(missing_variance) > 1 else 'map has'} no variance map (made "
            "by another program); voxels are those with an effect other than zero."
        )
    return notes

"""The maps of one contrast on the voxels all of them have, kept on disk and read block by block.

Memory is then bounded by a few maps and blocks of voxels, whatever the number of maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.covariates import Covariates
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.execution import in_threads, progress_bar
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.inputs.images import Grid, open_image
from sessionfx.inputs.statmaps import FirstLevelMap
from sessionfx.outputs.records import fingerprint
from sessionfx.outputs.statmaps import read_effect, read_sidecar
from sessionfx.strategies.base import MapLayout
from sessionfx.strategies.blocks import block_width

Read = TypeVar("Read")
# effect, variance, the voxels that have both, and their grid
Volumes = tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.bool_], Grid]


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
    stored, stored_variances : BlockStore
        On disk: the N maps at the W voxels of the first one.
    common : ndarray of bool, shape (W,)
        Which of these every map has.
    """

    layout: MapLayout
    mask: NDArray[np.bool_]
    grid: Grid
    coverage: NDArray[np.int_]
    notes: tuple[str, ...]
    stored: BlockStore
    stored_variances: BlockStore | None
    common: NDArray[np.bool_]

    @property
    def n_voxels(self) -> int:
        """Number of common voxels."""
        return int(self.common.sum())

    @property
    def blocks(self) -> list[slice]:
        """Blocks of stored voxels of which some are common."""
        return [block for block in self.stored.blocks if self.common[block].any()]

    def effects(self, block: slice) -> NDArray[np.floating]:
        """Read the effects of the common voxels of a block, of shape (N, v)."""
        return self._read(self.stored, block)

    def variances(self, block: slice) -> NDArray[np.floating]:
        """Read the sampling variances of the common voxels of a block, of shape (N, v)."""
        assert self.stored_variances is not None  # noqa: S101 - stored where a strategy needs them
        return self._read(self.stored_variances, block)

    def _read(self, store: BlockStore, block: slice) -> NDArray[np.floating]:
        common, values = self.common[block], store.read(block)
        return values if common.all() else np.ascontiguousarray(values[:, common])


@dataclass(frozen=True)
class _Found:
    """What is kept in memory of a map that has been read: its mask, and a digest of how it was made."""

    mask: NDArray[np.bool_]
    model: str | None


@contextmanager
def open_stack(
    maps: Sequence[FirstLevelMap],
    covariates: Covariates,
    folder: Path,
    *,
    needs_variances: bool,
    times: tuple[str, ...] = (),
    n_threads: int = 1,
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
    n_threads : int, default=1
        How many maps are read at a time; what is found does not depend on it.

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
    _, _, first_mask, grid = first
    size = (len(maps), int(first_mask.sum()), block_width(len(maps)), _kept_type(maps, needs_variances))
    with scratch_file(folder) as file, scratch_file(folder) if needs_variances else nullcontext() as second_file:
        effects = BlockStore(file, folder, *size)
        variances = None if second_file is None else BlockStore(second_file, folder, *size)

        def take(row: int, one: FirstLevelMap) -> _Found:
            current = first if row == 0 else _read(one, maps[0], grid, needs_variances)
            return _take(row, one, current, first_mask, effects, variances)

        coverage = np.zeros(grid.shape, dtype=int)
        sizes, models = [], set()
        rows = progress_bar(list(enumerate(maps)), "reading", "map")
        for found in in_threads(n_threads, take, rows):
            coverage += found.mask
            sizes.append(int(found.mask.sum()))
            models |= {found.model} - {None}
        common = coverage == len(maps)
        if not common.any():
            raise LevelError(
                f"No voxel has data in all {len(maps)} maps; {maps[int(np.argmin(sizes))].effect} covers least. "
                "Leave that participant out with --participant-label, or check its mask."
            )
        notes = tuple(_notes(maps, sizes, int(common.sum()), len(models)))
        yield MapStack(
            layout_of(maps, covariates, times), common, grid, coverage, notes, effects, variances, common[first_mask]
        )


def _kept_type(maps: Sequence[FirstLevelMap], needs_variances: bool) -> type[np.floating]:
    """Choose single precision where the files have no more.

    Double precision in the files counts: strategies tell rounding error from variation by it, and a difference that is
    the same for all participants but for rounding must have no variance.
    """
    for one in maps:
        for path in filter(None, (one.effect, one.variance if needs_variances else None)):
            try:
                data = open_image(path).dataobj
            except ParticipantError:
                return np.float64  # said when the map is read
            if data.dtype not in (np.float32, np.float16) or data.slope != 1 or data.inter != 0:
                return np.float64
    return np.float32


def _take(
    row: int,
    one: FirstLevelMap,
    volumes: Volumes,
    first_mask: NDArray[np.bool_],
    effects: BlockStore,
    variances: BlockStore | None,
) -> _Found:
    """Store a map at the voxels of the first one."""
    effect, variance, mask, _ = volumes
    with np.errstate(over="ignore", invalid="ignore"):  # of voxels that the map does not have
        effects.write(row, effect[first_mask])
        if variances is not None and variance is not None:
            variances.write(row, variance[first_mask])
    sidecar = _explained(one, partial(read_sidecar, one.effect))
    made = [sidecar.get(key) for key in ("ModelParameters", "ContrastWeights", "FixedEffectsWeighting")]
    return _Found(mask, fingerprint(made) if sidecar else None)


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


def _read(one: FirstLevelMap, first: FirstLevelMap, grid: Grid | None, needs_variances: bool) -> Volumes:
    if needs_variances and one.variance is None:
        raise LevelError(
            f"{one.effect} has no variance map, which --fixed-effects precision and --strategy meta need. Leave "
            "them out."
        )
    current = _explained(one, partial(read_effect, one.effect, one.variance))
    if grid is not None and not grid.same_as(current[3]):
        raise LevelError(
            f"{first.effect} ({grid}) and {one.effect} ({current[3]}) lie on different grids. "
            "Preprocess all participants to one standard space, or choose maps with --space, --res or "
            "--participant-label."
        )
    return current


def _explained(one: FirstLevelMap, read: Callable[[], Read]) -> Read:
    """Read, and say what to do where that fails."""
    try:
        return read()
    except ParticipantError as error:
        raise LevelError(f"{error} Or leave sub-{one.participant} out with --participant-label.") from None


def _notes(maps: Sequence[FirstLevelMap], sizes: Sequence[int], n_common: int, n_models: int) -> list[str]:
    notes = []
    typical = float(np.median(sizes))
    if n_common < 0.9 * typical:
        least = int(np.argmin(sizes))
        notes.append(
            f"The {len(maps)} maps share {n_common} voxels, {n_common / typical:.0%} of the median map; "
            f"{maps[least].effect.name} covers least ({sizes[least]} voxels)."
        )
    if n_models > 1:
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

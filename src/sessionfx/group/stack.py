"""The maps of one contrast on the voxels that enough of them have, kept on disk and read block by block.

Memory is then bounded by a few maps and blocks of voxels, whatever the number of maps.

Vocabulary
----------
answered voxels
    Those that at least a share of the maps has (`--min-coverage`).
complete voxels
    Those that every map has. What is learned from all voxels at once (evidence, working correlations, resampling,
    calibration) is learned from these.
core maps
    All maps where there are complete voxels; else those from which that is learned, at the voxels they share; see
    `core.core_maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.covariates import Covariates
from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.bids.images import DifferentGridError
from sessionfx.bids.stat_maps import read_effect, read_sidecar
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.execution import in_threads, progress_bar
from sessionfx.group.core import SEEN_VOXELS, core_maps
from sessionfx.group.kept import KeptFile, packed, unpacked
from sessionfx.group.store import BlockStore, StoredBlock, check_room, scratch_file
from sessionfx.group.strategies.base import MapLayout
from sessionfx.group.strategies.blocks import block_width
from sessionfx.space.described import describe, described
from sessionfx.space.space import Space
from sessionfx.tasks.records import fingerprint
from sessionfx.wording import listed

Read = TypeVar("Read")
# effect, variance, the voxels that have both, and their space
Volumes = tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.bool_], Space]
# Maps at whose voxels all are stored at first, where voxels need not be in all; spread over the list, as the order may
# be that of sites
_FORERUNNERS = 8
_ROUNDING = 1e-9  # of a share
# Numbers of a block that are written at a time, from several maps where blocks are narrow; and maps in memory for that
_VALUES_WRITTEN = 2048
_MAPS_READ = 64


@dataclass(frozen=True)
class MapStack:
    """N maps on the V voxels that enough of them have; see `strategies.blocks.Maps`.

    For an F test over conditions with R rows there are R N maps, row by row.
    """

    layout: MapLayout  # of N maps
    mask: NDArray[np.bool_]  # of the space's shape: answered voxels
    space: Space
    coverage: NDArray[np.int_]  # of the space's shape: how many maps have each voxel
    warnings: tuple[str, ...]
    # stored, stored_variances: on disk: the N maps at W voxels, NaN where a map has no data
    stored: BlockStore
    stored_variances: BlockStore | None
    common: NDArray[np.bool_]  # (W,): which of these are answered
    min_coverage: float = 1.0  # the share of maps that an answered voxel needs
    rows: NDArray[np.intp] | None = None  # which of the stored maps the N are; all where it is None

    @property
    def n_voxels(self) -> int:
        """Number of answered voxels."""
        return int(self.common.sum())

    @property
    def n_rows(self) -> int:
        """Rows of the F test over conditions, R; 1 for an ordinary contrast."""
        return self._n_maps // len(self.layout.participants)

    @property
    def _n_maps(self) -> int:
        return self.stored.n_rows if self.rows is None else len(self.rows)

    @cached_property
    def complete(self) -> MapStack:
        """The stack on the complete voxels, of which there may be none; itself where all are."""
        is_complete = self.coverage[self.mask] == self.stored.n_rows
        return self if is_complete.all() else self._at(is_complete)

    @cached_property
    def core(self) -> MapStack:
        """The stack on the complete voxels or, where there are none, of the core maps on the voxels that they share."""
        if self.complete.n_voxels:
            return self.complete
        n_maps = len(self.layout.participants)
        seen = np.isfinite(self.sample(SEEN_VOXELS, np.random.default_rng(0))).reshape(self.n_rows, n_maps, -1)
        chosen = core_maps(seen.all(axis=0))
        rows = (np.arange(self.n_rows)[:, None] * n_maps + chosen).ravel()
        of_core = replace(self, layout=self.layout.at_rows(chosen), rows=rows)
        return of_core._at(
            np.concatenate([np.isfinite(of_core.effects(block)).all(axis=0) for block in self.blocks])
        )  # fmt: skip

    @property
    def core_rows(self) -> NDArray[np.intp]:
        """Rows of the layout that the core maps are."""
        n_core = len(self.core.layout.participants)
        return np.arange(n_core) if self.core.rows is None else self.core.rows[:n_core]

    @property
    def learns_from_all(self) -> bool:
        """Whether the core maps are all maps."""
        return self.core.rows is None

    def _at(self, chosen: NDArray[np.bool_]) -> MapStack:
        """Restrict to some of the answered voxels."""
        mask, common = self.mask.copy(), self.common.copy()
        mask[self.mask] = common[self.common] = chosen
        return replace(self, mask=mask, common=common)

    @property
    def blocks(self) -> list[slice]:
        """Blocks of stored voxels of which some are answered."""
        return [block for block in self.stored.blocks if self.common[block].any()]

    def effects(self, block: slice) -> NDArray[np.floating]:
        """Read the effects of the answered voxels of a block, of shape (N, v); NaN where a map has no data."""
        return self._read(self.stored, block)

    def variances(self, block: slice) -> NDArray[np.floating]:
        """Read the sampling variances of the answered voxels of a block, of shape (N, v)."""
        assert self.stored_variances is not None  # noqa: S101 - stored where a strategy needs them
        return self._read(self.stored_variances, block)

    def sample(self, n_voxels: int, rng: np.random.Generator) -> NDArray[np.floating]:
        """Read the effects of some answered voxels from all over the brain, of shape (N, v); all if there are fewer."""
        chosen = np.zeros(self.n_voxels, dtype=bool)
        chosen[rng.choice(self.n_voxels, min(n_voxels, self.n_voxels), replace=False)] = True
        parts, start = [], 0
        for block in self.blocks:
            effects = self.effects(block)
            stop = start + effects.shape[1]
            parts.append(effects[:, chosen[start:stop]])
            start = stop
        return np.concatenate(parts, axis=1)

    def at(self, voxels: NDArray[np.intp]) -> NDArray[np.floating]:
        """Read the effects of some answered voxels by their numbers, of shape (N, n)."""
        found = np.empty((self._n_maps, len(voxels)))
        start = 0
        for block in self.blocks:
            stop = start + int(self.common[block].sum())
            here = (voxels >= start) & (voxels < stop)
            if here.any():
                found[:, here] = self.effects(block)[:, voxels[here] - start]
            start = stop
        return found

    def handed_out(
        self, block: slice, *, with_variances: bool
    ) -> tuple[NDArray[np.floating] | StoredBlock, NDArray[np.floating] | StoredBlock | None]:
        """Give effects and variances of a block to who may be elsewhere: where they are, if that can be read there."""
        stores = self.stored, self.stored_variances if with_variances else None
        found = [None if store is None else self._of(store, block) for store in stores]
        effects, variances = (np.asarray(part) if part and not part.store.is_shared else part for part in found)
        assert effects is not None  # noqa: S101 - there always are
        return effects, variances

    def _of(self, store: BlockStore, block: slice) -> StoredBlock:
        common, rows = self.common[block], None
        if self.rows is not None:
            rows = np.zeros(store.n_rows, dtype=bool)
            rows[self.rows] = True
        return StoredBlock(store, block, None if common.all() else common, rows)

    def _read(self, store: BlockStore, block: slice) -> NDArray[np.floating]:
        return np.asarray(self._of(store, block))


@contextmanager
def open_stack(
    maps: Sequence[FirstLevelMap],
    covariates: Covariates,
    folder: Path,
    *,
    needs_variances: bool,
    times: tuple[str, ...] = (),
    n_threads: int = 1,
    min_coverage: float = 1.0,
    is_kept: bool = False,
    is_shared: bool = False,
) -> Iterator[MapStack]:
    """Read the maps of a contrast and restrict them to the voxels that enough of them have.

    Parameters
    ----------
    maps : sequence of N FirstLevelMap
        With those of the further rows, for an F test over conditions.
    covariates : Covariates
        Of their participants.
    folder : Path
        Where the maps are kept while the context lasts.
    needs_variances : bool
    times : tuple of str
        Session covariates that serve as time.
    n_threads : int, default=1
        How many maps are read at a time; what is found does not depend on it.
    min_coverage : float, default=1
        Share of the maps that a voxel needs.
    is_kept : bool, default=False
        Whether what is read stays in the folder, for a later call with the same maps; see `kept`.
    is_shared : bool, default=False
        Whether other processes, which see the folder, are to read blocks themselves.

    Raises
    ------
    LevelError
        If spaces differ, a map is unreadable or empty, no voxel is in enough maps, or variances are needed and missing.
    OutputError
        If the folder cannot be written, or has no room.
    """
    layout = layout_of(maps, covariates, times)
    maps = _row_by_row(maps)
    needed = maps_needed(min_coverage, len(maps))
    reader = _Reader(maps, folder, needs_variances, needed, n_threads, is_shared)
    kept = KeptFile.of(maps, folder, needs_variances, needed) if is_kept else None
    with ExitStack() as files:
        found = None if kept is None else files.enter_context(kept.opened())
        filled = reader.filled(files, kept) if found is None else _Filled.of(folder, *found)
        if is_shared:
            filled.share(kept)
        _refuse_empty(maps, filled.sizes)
        answered = filled.coverage >= needed
        if not answered.any():
            few = f"all {len(maps)}" if needed == len(maps) else f"{needed} of {len(maps)}"
            raise LevelError(
                f"No voxel has data in {few} maps; {maps[int(np.argmin(filled.sizes))].effect} covers least. Leave "
                "that participant out with --participant-label, check its mask, or ask for less with --min-coverage."
            )
        yield MapStack(
            layout=layout,
            mask=answered,
            space=filled.space,
            coverage=filled.coverage,
            warnings=tuple(_warnings(maps, filled, int(answered.sum()), min_coverage)),
            stored=filled.effects,
            stored_variances=filled.variances,
            common=answered[filled.mask],
            min_coverage=min_coverage,
        )


def has_kept(maps: Sequence[FirstLevelMap], folder: Path, *, needs_variances: bool, min_coverage: float) -> bool:
    """Whether a folder keeps the maps of a contrast from an earlier call, as `open_stack` would read them."""
    maps = _row_by_row(maps)
    with KeptFile.of(maps, folder, needs_variances, maps_needed(min_coverage, len(maps))).opened() as kept:
        return kept is not None


def _row_by_row(maps: Sequence[FirstLevelMap]) -> list[FirstLevelMap]:
    return [of_row for row in zip(*(found.of_rows for found in maps), strict=True) for of_row in row]


def maps_needed(min_coverage: float, n_maps: int) -> int:
    """How many of so many maps must have what is answered."""
    return int(np.ceil(min_coverage * n_maps - _ROUNDING))


class _NeedsDoublePrecisionError(Exception):
    """A map has more digits than those before it."""


@dataclass(frozen=True)
class _Filled:
    """Stores with all maps in them, and what was seen on the way."""

    effects: BlockStore
    variances: BlockStore | None
    mask: NDArray[np.bool_]  # of the space's shape: the W voxels at which they are stored
    space: Space
    coverage: NDArray[np.int_]  # of the space's shape
    sizes: list[int]  # voxels of each map
    models: set[tuple[str, str]]  # contrasts, with digests of how their maps were made

    @classmethod
    def empty(
        cls, file: IO[Any], folder: Path, n_maps: int, place: tuple[NDArray[np.bool_], Space],
        dtype: type[np.floating], *, has_variances: bool,
    ) -> _Filled:  # fmt: skip
        """Begin with a file of so many maps at the voxels of a mask in a space."""
        mask, space = place
        begin = partial(BlockStore, file, folder, n_maps, int(mask.sum()), block_width(n_maps), dtype=dtype)
        effects = begin()
        variances = begin(start=effects.stop) if has_variances else None
        coverage = np.zeros(space.shape, dtype=int)
        return cls(effects, variances, mask, space, coverage, sizes=[], models=set())

    @classmethod
    def of(cls, folder: Path, file: IO[Any], about: Mapping[str, Any]) -> _Filled:
        """Take what a file holds that is kept; see `about`."""
        mask = unpacked(about["mask"]) > 0
        place = mask, described(about["space"])
        dtype: type[np.floating] = np.float32 if about["is_single"] else np.float64
        filled = cls.empty(file, folder, len(about["sizes"]), place, dtype, has_variances=about["has_variances"])
        filled.coverage[...] = unpacked(about["coverage"])
        filled.sizes.extend(about["sizes"])
        filled.models.update((contrast, model) for contrast, model in about["models"])
        return filled

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return (self.variances or self.effects).stop

    def share(self, kept: KeptFile | None) -> None:
        """Let other processes read the file."""
        for store in (self.effects, self.variances):
            if store is not None:
                store.share(None if kept is None else kept.path)

    def about(self) -> dict[str, Any]:
        """Say what is in the file, to be kept with it."""
        return {
            "size": self.size,
            "mask": packed(self.mask.astype(int)),
            "space": describe(self.space),
            "is_single": self.effects.dtype == np.float32,
            "has_variances": self.variances is not None,
            "coverage": packed(self.coverage),
            "sizes": self.sizes,
            "models": sorted(self.models),
        }


@dataclass(frozen=True)
class _Reader:
    """How the maps are read into a folder, of which so many must have an answered voxel."""

    maps: Sequence[FirstLevelMap]
    folder: Path
    needs_variances: bool
    needed: int
    n_threads: int
    is_shared: bool

    def filled(self, files: ExitStack, kept: KeptFile | None) -> _Filled:
        """Read all maps into a file, at the voxels that enough of them have."""
        first = _read(self.maps[0], self.maps[0], None, self.needs_variances)
        known = {0: first}
        if self.needed < len(self.maps):
            known |= self._forerunners(first)
        mask = np.logical_or.reduce([volumes[2] for volumes in known.values()])
        dtype = _kept_type(first)
        while True:
            finish = None
            if kept is None:
                file = files.enter_context(scratch_file(self.folder, is_shared=self.is_shared))
            else:
                file, finish = files.enter_context(kept.written())
            filled = _Filled.empty(
                file, self.folder, len(self.maps), (mask, first[3]), dtype, has_variances=self.needs_variances
            )
            check_room(self.folder, filled.size, f"{len(self.maps)} maps of contrast {self.maps[0].contrast}")
            try:
                self._fill(filled, known)
            except _NeedsDoublePrecisionError:
                dtype = np.float64
            else:
                answered = filled.coverage >= self.needed
                if not (answered & ~mask).any():
                    if finish is not None:
                        finish(filled.about())
                    return filled
                mask = mask | answered
            files.close()

    def _read(self, row: int, space: Space, *, lends: bool = False) -> Volumes:
        return _read(self.maps[row], self.maps[0], space, self.needs_variances, lends=lends)

    def _forerunners(self, first: Volumes) -> dict[int, Volumes]:
        """Read the maps, by their rows, at whose voxels all are stored."""
        rows = np.unique(np.linspace(0, len(self.maps) - 1, _FORERUNNERS).astype(int)).tolist()[1:]
        read = in_threads(self.n_threads, self._read, ((row, first[3]) for row in rows))
        return {0: first, **dict(zip(rows, read, strict=True))}

    def _fill(self, filled: _Filled, known: dict[int, Volumes]) -> None:
        """Read all maps but those that are known already, several at a time, and store them."""

        def take(start: int, stop: int) -> _Taken:
            taken = _Taken(np.zeros(filled.space.shape, dtype=np.uint8), [], [])
            stores = [store for store in (filled.effects, filled.variances) if store is not None]
            rows = [np.empty((stop - start, int(filled.mask.sum())), store.dtype) for store in stores]
            for row in range(start, stop):
                # the first map stays, should all be stored anew
                volumes = (
                    known[0] if row == 0
                    else known.pop(row) if row in known
                    else self._read(row, filled.space, lends=True)
                )  # fmt: skip
                own = volumes[2][filled.mask]
                for values, volume in zip(rows, volumes[:2], strict=False):
                    assert volume is not None  # noqa: S101 - read where it is stored
                    values[row - start] = _stored(volume[filled.mask], own, values.dtype)
                taken.add(volumes[2], _explained(self.maps[row], partial(read_sidecar, self.maps[row].effect)))
            for store, values in zip(stores, rows, strict=True):
                store.write(start, values)
            return taken

        n_maps = len(self.maps)
        together = max(1, min(_VALUES_WRITTEN // block_width(n_maps), _MAPS_READ // self.n_threads))
        starts = range(0, n_maps, together)
        units: dict[str, FirstLevelMap] = {}
        sources = iter(progress_bar(self.maps, "reading", "map"))
        for taken in in_threads(self.n_threads, take, ((start, min(start + together, n_maps)) for start in starts)):
            np.add(filled.coverage, taken.coverage, out=filled.coverage)
            filled.sizes.extend(taken.sizes)
            # sources that are not yet due are not taken from their iterator, being second
            for sidecar, source in zip(taken.sidecars, sources, strict=False):
                if sidecar:
                    filled.models.add((source.contrast, _how_made(sidecar)))
                if isinstance(sidecar.get("Units"), str):
                    units.setdefault(sidecar["Units"], source)
                    _check_units(units)


@dataclass(frozen=True)
class _Taken:
    """What was seen of some maps: how many have each voxel, the voxels of each, and its sidecar."""

    coverage: NDArray[np.uint8]
    sizes: list[int]
    sidecars: list[dict[str, Any]]

    def add(self, mask: NDArray[np.bool_], sidecar: dict[str, Any]) -> None:
        """Add a map."""
        np.add(self.coverage, mask, out=self.coverage)
        self.sizes.append(int(mask.sum()))
        self.sidecars.append(sidecar)


def _stored(values: NDArray[np.float64], own: NDArray[np.bool_], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Give the values of a map as they are stored: NaN where it has no data."""
    if dtype == np.float32 and not is_single(values[own]):
        raise _NeedsDoublePrecisionError
    return np.where(own, values, np.nan)


def _how_made(sidecar: Mapping[str, Any]) -> str:
    """Digest how a map was made."""
    return fingerprint([sidecar.get(key) for key in ("ModelParameters", "ContrastWeights", "FixedEffectsWeighting")])


def _check_units(first_of: Mapping[str, FirstLevelMap]) -> None:
    """Refuse effects of different units, by the first map of each: their mean is no effect."""
    if len(first_of) > 1:
        (unit, source), (other, other_source) = first_of.items()
        raise LevelError(
            f"{other_source.effect} is in {other}, but {source.effect} is in {unit}: they cannot be averaged. "
            "Analyse all participants with one --signal-scaling, or choose those of one with --participant-label."
        )


def _kept_type(first: Volumes) -> type[np.floating]:
    """Choose single precision where the maps have no more, to judge by the first one.

    Double precision counts: strategies tell rounding error from variation by it, and a difference that is the same for
    all participants but for rounding must have no variance.
    """
    effect, variance, mask, _ = first
    are_single = all(is_single(volume[mask]) for volume in (effect, variance) if volume is not None)
    return np.float32 if are_single else np.float64


def is_single(values: NDArray[np.float64]) -> bool:
    """Whether single precision holds all digits of some values."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32) == values).all())


def layout_of(maps: Sequence[FirstLevelMap], covariates: Covariates, times: tuple[str, ...] = ()) -> MapLayout:
    """Say whose map each is, with the covariates of each."""
    return MapLayout(
        participants=tuple(source.participant for source in maps),
        sessions=tuple(source.session for source in maps),
        covariate_names=covariates.columns,
        covariates=np.array([covariates.row_of(source.participant) for source in maps]).reshape(len(maps), -1),
        session_covariate_names=covariates.session_columns,
        session_covariates=np.array(
            [covariates.session_values.get((source.participant, source.session), ()) for source in maps], dtype=float
        ).reshape(len(maps), -1),
        times=times,
    )  # fmt: skip


def attendance(maps: Sequence[FirstLevelMap]) -> Mapping[str, tuple[str, ...]]:
    """Sessions of which each participant has a map."""
    found: dict[str, list[str]] = {}
    for source in maps:
        found.setdefault(source.participant, []).append(source.session)
    return {participant: tuple(sessions) for participant, sessions in found.items()}


def _read(
    source: FirstLevelMap, first: FirstLevelMap, space: Space | None, needs_variances: bool, *, lends: bool = False
) -> Volumes:
    if needs_variances and source.variance is None:
        raise LevelError(
            f"{source.effect} has no variance map, which --fixed-effects precision and --strategy meta need. Leave "
            "them out."
        )
    read = partial(read_effect, source.effect, source.variance, space, str(first.effect), lends=lends)
    try:
        return _explained(source, read)
    except DifferentGridError as error:
        raise LevelError(
            f"{error} Preprocess all participants to one standard space, or choose maps with --space, --res or "
            "--participant-label."
        ) from None


def _explained(source: FirstLevelMap, read: Callable[[], Read]) -> Read:
    """Read, and say what to do where that fails."""
    try:
        return read()
    except DifferentGridError:
        raise
    except ParticipantError as error:
        raise LevelError(f"{error} Or leave sub-{source.participant} out with --participant-label.") from None


def _refuse_empty(maps: Sequence[FirstLevelMap], sizes: Sequence[int]) -> None:
    """Refuse maps without any data, because their participants would be counted as attending."""
    empty = [source for source, size in zip(maps, sizes, strict=True) if not size]
    if empty:
        others = listed(
            [f"sub-{source.participant}" + f"_ses-{source.session}" * bool(source.session) for source in empty[1:]]
        )
        raise LevelError(
            f"{empty[0].effect} has no voxel with data{f', nor have the maps of {others}' if others else ''}. Make "
            "such maps anew, or remove them, which leaves these sessions out."
        )


def _warnings(maps: Sequence[FirstLevelMap], filled: _Filled, n_answered: int, min_coverage: float) -> list[str]:
    warnings = []
    sizes = filled.sizes
    typical = float(np.median(sizes))
    n_complete = int((filled.coverage == len(maps)).sum())
    if n_complete < 0.9 * typical:
        least = int(np.argmin(sizes))
        warnings.append(
            f"The {len(maps)} maps share {n_complete} voxels, {n_complete / typical:.0%} of the median map; "
            f"{maps[least].effect.name} covers least ({sizes[least]} voxels)."
            + (
                f" {n_answered} voxels, which at least {min_coverage:.0%} of the maps have, are answered, each by the "
                "design of those who have it."
                if min_coverage < 1
                else ""
            )
        )
    if len(filled.models) > len({contrast for contrast, _ in filled.models}):
        warnings.append(
            "The first-level maps were made with different options (see ModelParameters in their sidecars). Run the "
            "participant level again so that all participants are treated alike."
        )
    missing_variance = [source for source in maps if source.variance is None]
    if missing_variance:
        warnings.append(
            f"{len(missing_variance)} {'maps have' if len(missing_variance) > 1 else 'map has'} no variance map (made "
            "by another program); voxels are those with an effect other than zero."
        )
    return warnings

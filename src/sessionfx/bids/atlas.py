"""Regions from an atlas: an image of whole numbers, and a table, or JSON file, that says what they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from sessionfx.bids.images import read_volume
from sessionfx.bids.names import parse_name
from sessionfx.bids.reading import read_json_object
from sessionfx.bids.tables import read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.space.grid import Grid
from sessionfx.space.regions import Regions, nearest_labels
from sessionfx.wording import words_to_label

_COLUMNS = ("index", "name")
# Of what names its files, whose names are no longer than those of maps then
_LONGEST_LABEL = 30
# Of a JSON file where the names do not stand at its top
_LABEL_MAP = "LabelMap"
# A peak at the edge of a region has the name of it, said to be near
_NEAR_MM = 6.0


@dataclass(frozen=True)
class Atlas:
    """Regions of a brain.

    Attributes
    ----------
    labels : ndarray of int, 3-D
        0 where there is no region.
    grid : Grid
    names : mapping of int to str
    files : tuple of Path
        Image and table.
    label : str
        In file names.
    """

    labels: NDArray[np.int_]
    grid: Grid
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()
    label: str = "atlas"

    @cached_property
    def digest(self) -> str:
        """Tell it from other atlases, whatever their files are called."""
        content = np.ascontiguousarray(self.labels, dtype=np.int32).tobytes() + self.grid.affine.round(3).tobytes()
        return hashlib.sha256(content + repr(sorted(self.names.items())).encode()).hexdigest()

    def on_grid(self, grid: Grid) -> Regions:
        """Put the regions on the grid of maps: each voxel is of the region that is at its middle."""
        labels = nearest_labels(self.labels, self.grid, grid)
        indices, numbers = np.unique(labels, return_inverse=True)
        regions = [int(index) for index in indices if index]
        # what has no region is 0, and regions begin at 1
        places = np.cumsum(indices != 0) * (indices != 0)
        return Regions(
            places[numbers].reshape(grid.shape), tuple(regions), tuple(self.names[index] for index in regions)
        )

    def text_on(self, grid: Grid) -> str:
        """Say how the atlas lies on a grid: its regions, and what another grid makes of them."""
        n_regions, regions = len(np.unique(self.labels[self.labels != 0])), self.on_grid(grid)
        text = f"Atlas {self.label}: {len(regions.indices)} regions"
        if not self.grid.same_as(grid):
            text += (
                f", put from {self.grid} on {grid} by the nearest voxel: {int((self.labels != 0).sum()):,} voxels of "
                f"regions there, {int(regions.sizes.sum()):,} here"
            )
        lost = n_regions - len(regions.indices)
        return text + (f"; {lost} of its {n_regions} regions have no voxel here" if lost else "") + "."

    def name_at(self, place: Sequence[float] | NDArray[np.float64]) -> str:
        """Name the region at x, y, z (mm), or the nearest one within 6 mm; empty where there is none."""
        steps = np.arange(-_NEAR_MM, _NEAR_MM + 1)
        around = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        distance = np.linalg.norm(around, axis=1)
        # the place itself first
        order = np.argsort(distance, kind="stable")[: int((distance <= _NEAR_MM).sum())]
        voxels = np.rint(apply_affine(np.linalg.inv(self.grid.affine), np.asarray(place) + around[order])).astype(int)
        inside = ((voxels >= 0) & (voxels < self.labels.shape)).all(axis=1)
        found = np.zeros(len(voxels), dtype=int)
        found[inside] = self.labels[tuple(voxels[inside].T)]
        there = np.flatnonzero(found)
        if not there.size:
            return ""
        name = self.names[int(found[there[0]])]
        return name if there[0] == 0 else f"near {name}"


def labels_beside(atlas: Path) -> Path:
    """Path of the names of an atlas where none is given: the table of the same name, or else the JSON file."""
    stem = atlas.name.removesuffix(".gz").removesuffix(".nii")
    table, described = atlas.with_name(f"{stem}.tsv"), atlas.with_name(f"{stem}.json")
    return described if described.is_file() and not table.is_file() else table


def atlas_label(path: Path) -> str:
    """Label an atlas by the entity `atlas` or `seg` of its file's name, or else by the whole name."""
    parsed = parse_name(path.name)
    entities = parsed.entities if parsed is not None else {}
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return (entities.get("atlas") or entities.get("seg") or words_to_label([stem]) or "atlas")[:_LONGEST_LABEL]


def read_atlases(paths: Sequence[Path], tables: Sequence[Path]) -> tuple[Atlas, ...]:
    """Read atlases (`--atlas`) and the names of their regions (`--atlas-labels`, in the same order).

    Raises
    ------
    CommandLineError
        If one cannot be read, two have the same label, or there are more tables than atlases.
    """
    if len(tables) > len(paths):
        raise CommandLineError(
            f"--atlas-labels is given {len(tables)} times, for {len(paths)} --atlas. Give one for each, in their order."
        )
    atlases = tuple(
        read_atlas(path, table or labels_beside(path)) for path, table in zip_longest(paths, tables) if path is not None
    )
    for number, atlas in enumerate(atlases):
        same = [other for other in atlases[:number] if other.label == atlas.label]
        if same:
            raise CommandLineError(
                f"--atlas {same[0].files[0]} and {atlas.files[0]} are both called '{atlas.label}', by which files are "
                "named. Copy one to a file with another 'atlas-' in its name."
            )
    return atlases


def region_names(atlases: Sequence[Atlas], places: NDArray[np.float64]) -> list[str]:
    """Name the region at each place, of shape (n, 3) in mm, by the first atlas that has one there."""
    return [next(filter(None, (atlas.name_at(place) for atlas in atlases)), "") for place in places]


def read_atlas(path: Path, table: Path) -> Atlas:
    """Read an atlas and the names of its regions.

    Parameters
    ----------
    path : Path
        A 3-D NIfTI image of whole numbers.
    table : Path
        With columns `index` and `name`, as BIDS describes segmentations; or JSON with a name for each index, at its
        top or under `LabelMap`.

    Returns
    -------
    Atlas

    Raises
    ------
    CommandLineError
        If either cannot be read, or a region has no name.
    """
    try:
        values, grid = read_volume(path)
        rows = _read_json(table) if table.suffix == ".json" else _read_names(table)
    except ParticipantError as error:
        raise CommandLineError(f"--atlas: {error}") from None
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise CommandLineError(
            f"--atlas {path} has values that are no whole numbers. Give an image of labels, not of probabilities."
        )
    labels = values.astype(int)
    there = np.unique(labels[labels != 0])
    if not there.size:
        raise CommandLineError(f"--atlas {path} has no region: all its values are 0. Give an image of labels.")
    nameless = [str(label) for label in there if label not in rows]
    if nameless:
        raise CommandLineError(
            f"--atlas {path} has label {nameless[0]}, which {table} does not name by its 'index'. Complete the "
            "table, or give another with --atlas-labels."
        )
    return Atlas(labels, grid, rows, (path, table), atlas_label(path))


def _read_json(path: Path) -> dict[int, str]:
    content = read_json_object(path)
    content = content.get(_LABEL_MAP, content)
    found = content.items() if isinstance(content, dict) else ()
    return {int(index): name for index, name in found if index.isdecimal() and isinstance(name, str)}


def _read_names(path: Path) -> dict[int, str]:
    table = read_table(path)
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise CommandLineError(
            f"{path} has no column '{missing[0]}'. Write a line for each label, with its 'index' and 'name', or name "
            "another table with --atlas-labels."
        )
    found: dict[int, str] = {}
    for line, index, name in zip(table.index, table["index"], table["name"], strict=True):
        if not str(index).isdecimal() or not isinstance(name, str):
            raise CommandLineError(
                f"{path}, line {line}: '{index}' and '{name}' are no number of a label and its name. Correct it."
            )
        found[int(index)] = name
    return found

"""Names of regions from an atlas: an image of whole numbers, and a table that says what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from sessionfx.bids.images import read_volume
from sessionfx.bids.tables import read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.space.grid import Grid

_COLUMNS = ("index", "name")
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
    """

    labels: NDArray[np.int_]
    grid: Grid
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()

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
    """Path of the table of an atlas where none is given: that of the same name."""
    return atlas.with_name(atlas.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")


def read_atlas(path: Path, table: Path) -> Atlas:
    """Read an atlas (`--atlas`) and the names of its regions (`--atlas-labels`).

    Parameters
    ----------
    path : Path
        A 3-D NIfTI image of whole numbers.
    table : Path
        With columns `index` and `name`, as BIDS describes segmentations.

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
        rows = _read_names(table)
    except ParticipantError as error:
        raise CommandLineError(f"--atlas: {error}") from None
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise CommandLineError(
            f"--atlas {path} has values that are no whole numbers. Give an image of labels, not of probabilities."
        )
    labels = values.astype(int)
    nameless = [str(label) for label in np.unique(labels[labels != 0]) if label not in rows]
    if nameless:
        raise CommandLineError(
            f"--atlas {path} has label {nameless[0]}, which column 'index' of {table} does not name. Complete the "
            "table, or give another with --atlas-labels."
        )
    return Atlas(labels, grid, rows, (path, table))


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

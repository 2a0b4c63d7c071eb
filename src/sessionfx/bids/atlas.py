"""Regions from an atlas: labels of voxels, vertices or grayordinates, and what they stand for.

The names of regions are in the file itself, or in a table or JSON file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.images import read_volume
from sessionfx.bids.label_files import (
    ANNOT,
    Labels,
    are_of_surfaces,
    other_hemisphere,
    read_labels,
    space_of,
    stem_of,
    template,
)
from sessionfx.bids.names import SURFACE_MAPS, SURFACE_SERIES, entities_of
from sessionfx.bids.reading import read_json_object
from sessionfx.bids.surfaces import read_space
from sessionfx.bids.tables import read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.space.described import describe
from sessionfx.space.grid import Grid
from sessionfx.space.regions import Regions
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface
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
    """Regions of a brain."""

    labels: NDArray[np.int_]  # of the space's shape: 0 where there is no region
    space: Space  # where the labels lie, which may be another one than that of maps
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()  # those of the labels, and the table where the names are from one
    label: str = "atlas"  # in file names
    # the file that was given and the table that names its regions, if any, to read it by again
    source: tuple[Path, Path | None] = (Path(), None)

    @cached_property
    def digest(self) -> str:
        """Tell it from other atlases, whatever their files are called."""
        content = (
            np.ascontiguousarray(self.labels, dtype=np.int32).tobytes() + json.dumps(describe(self.space)).encode()
        )
        return hashlib.sha256(content + repr(sorted(self.names.items())).encode()).hexdigest()

    @property
    def n_regions(self) -> int:
        """How many regions it has."""
        return len(np.unique(self.labels[self.labels != 0]))

    def misfit_text(self, space: Space, data: str) -> str:
        """Say why its regions cannot be those of data in a space, and what to do; empty where they can."""
        why = space.misfit_of(self.space)
        if not why:
            return ""
        path, remedy = self.files[0], "Give one on the surface that the data were sampled to."
        missing = set(space.hemispheres) & {"L", "R"} - set(self.space.hemispheres)
        if missing and isinstance(self.space, Surface):
            remedy = f"{other_hemisphere(path)} is not there: put it beside the other, or use --hemi."
        return f"--atlas {path} does not fit {data}: {why}. {remedy}"

    def on(self, space: Space) -> Regions:
        """Put the regions on the features of maps.

        A voxel is of the region that is at its middle; a vertex, or a voxel of grayordinates, of that which has it.

        Raises
        ------
        ParticipantError
            If it does not fit.
        """
        misfit = self.misfit_text(space, f"the data ({space})")
        if misfit:
            raise ParticipantError(misfit)
        labels = space.labels_from(self.labels, self.space)
        indices, numbers = np.unique(labels, return_inverse=True)
        regions = [int(index) for index in indices if index]
        # what has no region is 0, and regions begin at 1
        places = np.cumsum(indices != 0) * (indices != 0)
        return Regions(
            space, places[numbers].reshape(space.shape), tuple(regions), tuple(self.names[index] for index in regions)
        )

    def text_on(self, space: Space) -> str:
        """Say how the atlas lies in a space: its regions, and what this makes of them."""
        regions = self.on(space)
        text = f"Atlas {self.label}: {len(regions.indices)} regions" + space.placed_text(self.labels, self.space)
        sides = [
            set(np.unique(regions.numbers[structure.places]).tolist()) - {0}
            for structure in space.structures
            if structure.name in space.hemispheres
        ]
        n_shared = len(set.intersection(*sides)) if len(sides) > 1 else 0
        text += f"; {n_shared} of them in both hemispheres, as one region" if n_shared else ""
        lost = self.n_regions - len(regions.indices)
        return text + (f"; {lost} of its {self.n_regions} regions have no {space.feature} here" if lost else "") + "."

    def names_at(self, places: Sequence[Mapping[str, Any]], space: Space) -> list[str]:
        """Name the region at places of a space, or the nearest one within 6 mm; empty where there is none."""
        # an image of labels may be finer than the maps
        own = self.space if isinstance(space, Grid) else space
        labels = own.labels_from(self.labels, self.space) if places else self.labels
        found = [own.nearest_label(labels, place, _NEAR_MM) for place in places]
        return [("" if is_there else "near ") + self.names[label] if label else "" for label, is_there in found]


def labels_beside(atlas: Path) -> Path:
    """Path of the names of an atlas where none is given: the table of the same name, or else the JSON file."""
    table, described = (atlas.with_name(f"{stem_of(atlas)}{ending}") for ending in (".tsv", ".json"))
    return described if described.is_file() and not table.is_file() else table


def atlas_label(path: Path) -> str:
    """Label an atlas by the entity `atlas` or `seg` of its file's name, or else by the whole name."""
    entities = entities_of(path)
    return (entities.get("atlas") or entities.get("seg") or words_to_label([stem_of(path)]) or "atlas")[:_LONGEST_LABEL]


def read_atlases(paths: Sequence[Path], tables: Sequence[Path]) -> tuple[Atlas, ...]:
    """Read atlases (`--atlas`) and the names of their regions (`--atlas-labels`, in the same order).

    Raises
    ------
    CommandLineError
        If one cannot be read, or there are more tables than atlases.
    """
    if len(tables) > len(paths):
        raise CommandLineError(
            f"--atlas-labels is given {len(tables)} times, for {len(paths)} --atlas. Give one for each, in their order."
        )
    return tuple(read_atlas(path, table) for path, table in zip_longest(paths, tables) if path is not None)


def atlases_of(atlases: Sequence[Atlas], files: Sequence[Path], space: str | None) -> tuple[Atlas, ...]:
    """Choose the atlases for maps, or series: images of voxels for volumes, and label files for surfaces.

    Parameters
    ----------
    atlases : sequence of Atlas
    files : sequence of Path
        Of one of the maps.
    space : str or None
        Its label.

    Raises
    ------
    CommandLineError
        If there is none of the maps' kind, two have the same label, or one is of another template, mesh or grid of
        voxels.
    """
    on_surface = files[0].name.endswith((*SURFACE_SERIES, *SURFACE_MAPS))
    chosen = tuple(atlas for atlas in atlases if isinstance(atlas.space, Grid) != on_surface)
    if atlases and not chosen:
        wanted = (
            "a .dlabel.nii file, or the .label.gii or .annot files of both hemispheres"
            if on_surface
            else "a NIfTI image of labels"
        )
        kind = "on surfaces" if on_surface else "volumes"
        raise CommandLineError(
            f"--atlas {atlases[0].files[0]} is not for data like {files[0]}, which are {kind}. Give {wanted} (in place "
            "of it or besides), or leave it out."
        )
    _check_labels(chosen)
    if not (chosen and on_surface):
        return chosen
    found = read_space(files)
    for atlas in chosen:
        own = space_of(atlas.files[0])
        if own and space and template(own) != template(space):
            raise CommandLineError(
                f"--atlas {atlas.files[0]} is on {own}, and {files[0]} on {space}. Give one of {space}: vertices of "
                "different templates are different places, even where they are as many."
            )
        misfit = atlas.misfit_text(found, str(files[0]))
        if misfit:
            raise CommandLineError(misfit)
    return chosen


def _check_labels(atlases: Sequence[Atlas]) -> None:
    """Refuse two atlases of one label."""
    for number, atlas in enumerate(atlases):
        same = [other for other in atlases[:number] if other.label == atlas.label]
        if same and atlas.source[0] in same[0].files:
            raise CommandLineError(
                f"--atlas names the files of both hemispheres: {same[0].source[0]} and {atlas.source[0]}. Give one of "
                "them; the other is found beside it."
            )
        if same:
            raise CommandLineError(
                f"--atlas {same[0].files[0]} and {atlas.files[0]} are both called '{atlas.label}', by which files are "
                "named. Copy one to a file with another 'atlas-' in its name."
            )


def region_names(atlases: Sequence[Atlas], places: Sequence[Mapping[str, Any]], space: Space) -> list[str]:
    """Name the region at each place of a space by the first atlas that has one there."""
    named = [atlas.names_at(places, space) for atlas in atlases]
    return [next(filter(None, names), "") for names in zip(*named, strict=True)]


def read_atlas(path: Path, table: Path | None) -> Atlas:
    """Read an atlas and the names of its regions.

    Parameters
    ----------
    path : Path
        A 3-D NIfTI image of whole numbers, labels in CIFTI, or one of two files of hemispheres: GIFTI or FreeSurfer's.
    table : Path or None
        With columns `index` and `name`, as BIDS describes segmentations; or JSON with a name for each index, at its
        top or under `LabelMap`. None: the names in the file, or where it has not all, the table beside it.

    Returns
    -------
    Atlas

    Raises
    ------
    CommandLineError
        If either cannot be read, or a region has no name.
    """
    if table is not None and path.name.endswith(ANNOT):
        raise CommandLineError(
            f"--atlas-labels {table} is for --atlas {path}, which has names itself. Leave it out; of several atlases "
            "put those with tables first."
        )
    try:
        found = read_labels(path) if are_of_surfaces(path) else _read_volume(path)
        names = found.names
        there = [int(label) for label in np.unique(found.values) if label]
        if table is None and not names.keys() >= set(there):
            table = labels_beside(path)
            if not table.exists() and not table.is_symlink():
                raise CommandLineError(
                    f"--atlas {path} does not name its regions, and there is neither {table.name} nor "
                    f"{table.with_suffix('.json').name} beside it. Write a table with the columns 'index' and 'name', "
                    "or name one with --atlas-labels."
                )
        if table is not None:
            names = _read_json(table) if table.suffix == ".json" else _read_names(table)
    except ParticipantError as error:
        raise CommandLineError(f"--atlas: {error}") from None
    if not there:
        raise CommandLineError(f"--atlas {path} has no region: all its values are 0. Give a file of labels.")
    nameless = [label for label in there if label not in names]
    if nameless:
        raise CommandLineError(
            f"--atlas {path} has label {nameless[0]}, which {table} does not name by its 'index'. Complete the "
            "table, or give another with --atlas-labels."
        )
    files = found.files if table is None else (*found.files, table)
    return Atlas(found.values, found.space, names, files, atlas_label(path), (path, table))


def _read_volume(path: Path) -> Labels:
    values, grid = read_volume(path)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise CommandLineError(
            f"--atlas {path} has values that are no whole numbers. Give an image of labels, not of probabilities."
        )
    return Labels(values.astype(int), grid, {}, (path,))


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

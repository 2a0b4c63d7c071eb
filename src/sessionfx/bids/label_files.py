"""Labels of surfaces and grayordinates: GIFTI and FreeSurfer files, one for each hemisphere, and CIFTI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2.cifti2_axes import LabelAxis
from nibabel.freesurfer.io import read_annot
from numpy.typing import NDArray

from sessionfx.bids.names import GIFTI, entities_of
from sessionfx.bids.surfaces import contents_of, open_cifti
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.space.space import Space
from sessionfx.space.surface import HEMISPHERES, Surface

ANNOT, DLABEL = ".annot", ".dlabel.nii"
_ENDINGS = (".label.gii", ".func.gii", ".shape.gii", GIFTI, ANNOT, DLABEL, ".nii.gz", ".nii")
# How the hemisphere stands in names of files, between dots and underscores: BIDS, FreeSurfer, Workbench
_SIDE = re.compile(r"(?<![A-Za-z0-9-])(?P<side>hemi-[LR]|[LR]|lh|rh)(?![A-Za-z0-9-])")
_SIDES = {"hemi-L": "L", "L": "L", "lh": "L", "hemi-R": "R", "R": "R", "rh": "R"}
_OTHER = {"hemi-L": "hemi-R", "hemi-R": "hemi-L", "L": "R", "R": "L", "lh": "rh", "rh": "lh"}
# Names of regions that tell the hemisphere
_SAYS_SIDE = re.compile(r"(?<![a-z])(l|r|lh|rh|left|right)(?![a-z])", re.IGNORECASE)
# What label tables call vertices that are of no region
_NO_REGION = re.compile(r"\?\?\?|unknown|.*medial[ _]?wall", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """Labels as their files have them."""

    values: NDArray[np.int_]  # of the space's shape; 0 is no region
    space: Space
    names: dict[int, str]  # by the files' own tables, of labels that occur
    files: tuple[Path, ...]


def are_of_surfaces(path: Path) -> bool:
    """Whether a file's name is that of labels of surfaces or grayordinates."""
    return path.name.endswith((GIFTI, ANNOT, DLABEL))


def stem_of(path: Path) -> str:
    """Name labels without the ending, and without the hemisphere where they are those of a surface."""
    ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), "")
    stem = path.name.removesuffix(ending)
    return re.sub(r"^[._-]+|[._-]+$|([._-])[._-]+", r"\1", _SIDE.sub("", stem, count=1)) if _has_sides(path) else stem


def other_hemisphere(path: Path) -> Path:
    """Name the file of the other hemisphere.

    Raises
    ------
    CommandLineError
        If the name does not say which hemisphere the file is of.
    """
    if not _SIDE.search(path.name):
        raise CommandLineError(
            f"--atlas {path}: the name does not say which hemisphere the file is of, by which the other one is found. "
            "Name the two like hemi-L_atlas-X_dseg.label.gii and hemi-R_…, or lh.X.annot and rh.X.annot."
        )
    return path.with_name(_SIDE.sub(lambda found: _OTHER[found["side"]], path.name, count=1))


def _has_sides(path: Path) -> bool:
    return path.name.endswith((GIFTI, ANNOT))


def space_of(path: Path) -> str | None:
    """Tell from a file's name the template whose surface its labels are on; None where it does not say."""
    entities = entities_of(path)
    return entities.get("space") or entities.get("tpl")


def template(space: str | None) -> str | None:
    """Call all densities of fsaverage by one name."""
    return "fsaverage" if space and space.startswith("fsaverage") else space


def read_labels(path: Path) -> Labels:
    """Read the labels of surfaces: of a hemisphere's file, and of the other's beside it.

    Numbers of GIFTI files are regions: one that both hemispheres have with one name is one region. Where both give a
    number different names, and in FreeSurfer files, whose numbers are rows of each file's own table, regions of the
    right hemisphere have the numbers after those of the left one.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or holds something else.
    """
    if not _has_sides(path):
        return _read_cifti(path)
    other = other_hemisphere(path)
    found = {_side(file): file for file in (path, other) if file == path or file.exists()}
    files = {label: found[label] for label in HEMISPHERES if label in found}
    read = {label: _read_hemisphere(file) for label, file in files.items()}
    names = {label: own for label, (_, own) in read.items()}
    values = [numbers for numbers, _ in read.values()]
    if len(read) > 1:
        names, values[1] = _apart(names, values, are_rows=path.name.endswith(ANNOT))
    surface = Surface(space_of(path) or "surface", {label: len(numbers) for label, (numbers, _) in read.items()})
    every = {number: name for own in names.values() for number, name in own.items()}
    return Labels(np.concatenate(values), surface, every, tuple(files.values()))


def _side(path: Path) -> str:
    found = _SIDE.search(path.name)
    assert found is not None  # noqa: S101 - `other_hemisphere` looked
    return _SIDES[found["side"]]


def _apart(
    names: Mapping[str, dict[int, str]], values: list[NDArray[np.int_]], *, are_rows: bool
) -> tuple[dict[str, dict[int, str]], NDArray[np.int_]]:
    """Give the regions of the right hemisphere numbers of their own, where theirs mean others on the left."""
    left, right = names["L"], names["R"]
    if not are_rows and all(right[number] == left[number] for number in left.keys() & right.keys()):
        return dict(names), values[1]
    step = max([0, *left])
    if are_rows:
        left, right = (
            {number: name if _SAYS_SIDE.search(name) else f"{label} {name}" for number, name in own.items()}
            for label, own in (("L", left), ("R", right))
        )
    moved = np.where(values[1] > 0, values[1] + step, 0)
    return {"L": left, "R": {number + step: name for number, name in right.items()}}, moved


def _read_hemisphere(path: Path) -> tuple[NDArray[np.int_], dict[int, str]]:
    """Read the label of each vertex, and the names of those that occur."""
    with contents_of(path):
        if path.name.endswith(ANNOT):
            rows, _, table = read_annot(path)
            # rows of the table from 1, as 0 is no region
            values = np.asarray(rows) + 1
            names = {row + 1: name.decode() for row, name in enumerate(table)}
        else:
            image: Any = nib.load(path)
            arrays = image.darrays
            if len(arrays) != 1 or np.ndim(arrays[0].data) != 1:
                raise ParticipantError(
                    f"{path} has {len(arrays)} arrays. Provide a file with one label for each vertex."
                )
            values, names = arrays[0].data, image.labeltable.get_labels_as_dict()
    return _regions(values, names, path)


def _read_cifti(path: Path) -> Labels:
    rows, space, values = open_cifti(path)
    if not isinstance(rows, LabelAxis) or len(rows) != 1:
        has = f"{len(rows)} maps of labels" if isinstance(rows, LabelAxis) else "no labels"
        raise ParticipantError(
            f"{path} has {has}. Provide a {DLABEL} file with one (wb_command -cifti-merge picks one)."
        )
    names = {number: name for number, (name, _) in rows.label[0].items()}
    labels, named = _regions(values[0], names, path)
    return Labels(labels, space, named, (path,))


def _regions(values: Any, names: Mapping[Any, Any], path: Path) -> tuple[NDArray[np.int_], dict[int, str]]:
    """Give the label at each place, 0 where its name says that it is none, and the names of those that occur."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        raise ParticipantError(
            f"{path} has values that are no whole numbers. Give a file of labels, not of probabilities."
        )
    nothing = [number for number, name in names.items() if _NO_REGION.fullmatch(name or "")]
    labels = np.where((numbers < 0) | np.isin(numbers, nothing), 0, numbers).astype(int)
    there = set(np.unique(labels[labels != 0]).tolist())
    return labels, {int(number): name for number, name in names.items() if number in there and name}

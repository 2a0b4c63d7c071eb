"""Finding and reading a participant's anatomy, on which pictures show maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.dataset import IndexedFile, indexed_file, subfolders
from sessionfx.bids.images import read_volume
from sessionfx.bids.reading import list_folder
from sessionfx.space.grid import Grid

# A picture of the brain, 3-D, and where it lies
Background = tuple[NDArray[np.floating], Grid]
_OWN = "T1w"  # the space of a participant's anatomy, which its own file does not name


class AnatomyFiles(NamedTuple):
    """A participant's T1-weighted image, and the mask of the brain in it where there is one."""

    image: Path
    brain: Path | None


def find_anatomy(participant: str, entities: Mapping[str, str | None], roots: Sequence[Path]) -> AnatomyFiles | None:
    """Find the preprocessed T1-weighted image of a participant in a space, as fMRIPrep names it.

    Any resolution will do, that of the maps first. One in the participant's folder comes before those of sessions.

    Parameters
    ----------
    participant : str
        Label.
    entities : mapping of str to str or None
        `space` and, where they have one, `cohort` and `res` of the maps.
    roots : sequence of Path
        Derivative datasets.

    Returns
    -------
    AnatomyFiles or None
        None where there is none.
    """
    space = entities.get("space")
    if space is None:  # that of each run's own
        return None
    wanted = {"space": None if space == _OWN else space, "cohort": entities.get("cohort")}
    for files in _folders(participant, roots):
        alike = [file for file in files if all(file.entities.get(key) == label for key, label in wanted.items())]
        images = [file for file in alike if (file.suffix, file.entities.get("desc")) == ("T1w", "preproc")]
        if images:
            image = min(images, key=lambda file: (_distance(file, entities.get("res")), file.path.name))
            of_brain = {**image.entities, "desc": "brain"}
            brains = [file.path for file in alike if file.suffix == "mask" and file.entities == of_brain]
            return AnatomyFiles(image.path, brains[0] if brains else None)
    return None


def _folders(participant: str, roots: Sequence[Path]) -> Iterator[list[IndexedFile]]:
    """List the images of each folder that may hold the anatomy."""
    for root in roots:
        own = root / f"sub-{participant}"
        for folder in (own, *(own / name for name in subfolders(own) if name.startswith("ses-"))):
            entries = [entry for entry in list_folder(folder / "anat") if entry.name.endswith((".nii.gz", ".nii"))]
            files = [indexed_file(Path(entry.path), root) for entry in entries]
            yield [file for file in files if file is not None]


def _distance(file: IndexedFile, resolution: str | None) -> tuple[int, int]:
    """Say how unlike a file's resolution is to that of the maps, and how much else its name says."""
    own = file.entities.get("res")
    return (0 if own == resolution else 1 if own is None else 2), len(file.entities)


def read_anatomy(files: AnatomyFiles) -> Background:
    """Read an anatomy: 0 outside the brain where its mask is known, the whole head elsewhere.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or the mask lies on another grid.
    """
    values, grid = read_volume(files.image)
    if files.brain is None:
        return values, grid
    brain, _ = read_volume(files.brain, grid, files.image.name)
    return np.where(brain > 0, values, 0), grid

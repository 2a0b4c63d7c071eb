"""File names: BIDS entities, their order, and the labels made from user text.

The only place that knows how an output is called. `statmap`, `contrast`, `sessions`, `covariate`,
`strategy` and `stat` are not in BIDS yet (BEP041); the naming follows FitLins and nilearn.

Vocabulary
----------
entities
    A mapping from the short BIDS key (`sub`, `ses`, `task`, …) to its label, without the key.
label
    Alphanumeric text; anything else in a name given by the user is turned into camelCase.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from sessionfx.errors import CommandLineError
from sessionfx.process import LONGEST_NAME
from sessionfx.space.surface import HEMISPHERES
from sessionfx.wording import listed, natural_key

ENTITY_ORDER = (
    "sub", "ses", "sample", "task", "tracksys", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo",
    "flip", "inv", "mt", "part", "proc", "hemi", "space", "cohort", "split", "recording", "chunk", "atlas", "seg",
    "scale", "res", "den", "label", "contrast", "sessions", "covariate", "strategy", "stat", "desc",
)  # fmt: skip

# Configuration of pybids that knows these
PYBIDS_CONFIG = Path(__file__).with_name("pybids.json")

STATMAP_SUFFIX = "statmap"
SECTION_SUFFIX = "_section.json"
RUNS_SECTION = f"_runs{SECTION_SUFFIX}"
STATISTICS = ("effect", "variance", "t", "z", "p")
# Of an F test within a participant; `effects` and `covariance` are of its rows
F_STATISTICS = ("effects", "covariance", "F", "z", "p")
# nilearn's save_glm_to_bids and FitLins call the same maps by these values of `stat`
EFFECT_STATISTICS = ("effect",)

# Entities that tell the versions of one acquired run apart; the rest of a preprocessed file's entities tell runs apart.
DERIVATIVE_ENTITIES = ("space", "cohort", "res", "den", "desc", "hemi", "label")

# Files that are no volumes: GIFTI, one for each hemisphere, and CIFTI
GIFTI = ".gii"
SURFACE_SERIES = (".func.gii", ".dtseries.nii")
SURFACE_MAPS = (GIFTI, ".dscalar.nii")

# In place of a label: files without the entity
WITHOUT = "none"
# BIDS entities of the format *index*: numbers, which may be padded with zeros or not
INDEX_ENTITIES = ("run", "echo", "flip", "inv", "split", "chunk")

LONG_NAMES = {
    "sub": "subject", "ses": "session", "acq": "acquisition", "rec": "reconstruction", "dir": "direction",
    "res": "resolution", "den": "density", "ce": "ceagent", "mod": "modality", "inv": "inversion",
}  # fmt: skip

# Of surfaces that fMRIPrep wrote before 1.5, without a suffix
OLD_SUFFIXES = tuple(f"hemi-{label}" for label in HEMISPHERES)
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)\Z")


@dataclass(frozen=True)
class ParsedName:
    """A file name taken apart."""

    entities: dict[str, str]
    suffix: str
    extension: str


def parse_name(name: str) -> ParsedName | None:
    """Take a BIDS file name apart; None where it is not made of `key-label` pairs and a suffix."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    if suffix in OLD_SUFFIXES and extension == "func.gii":
        pairs, suffix = [*pairs, suffix], "bold"
    entities = {}
    for pair in pairs:
        found = _ENTITY.match(pair)
        if not found:
            return None
        entities[sys.intern(found[1])] = sys.intern(found[2])  # once in memory for thousands of files
    if not suffix or not suffix.isalnum():
        return None
    return ParsedName(entities, suffix, dot + extension)


def entities_of(path: PurePath) -> dict[str, str]:
    """Give the entities of a file's name; none where it is not made of `key-label` pairs."""
    parsed = parse_name(path.name)
    return parsed.entities if parsed else {}


def comparable_label(key: str, label: str) -> str:
    """Give a form of a label that is equal for equal entities: `run-01` is `run-1`.

    >>> comparable_label("run", "01"), comparable_label("ses", "01")
    ('1', '01')
    """
    is_index = key in INDEX_ENTITIES and label.isascii() and label.isdecimal()
    return label.lstrip("0") or "0" if is_index else label


def entity_string(entities: Mapping[str, str | None]) -> str:
    """Join entities in BIDS order, leaving out those without a label (`sub-01_ses-02_task-x`)."""
    known = [f"{key}-{entities[key]}" for key in ENTITY_ORDER if entities.get(key)]
    unknown = [f"{key}-{label}" for key, label in entities.items() if label and key not in ENTITY_ORDER]
    return "_".join(known + unknown)


def file_name(entities: Mapping[str, str | None], suffix: str, extension: str) -> str:
    """Name a file from its entities."""
    start = entity_string(entities)
    return f"{start}_{suffix}{extension}" if start else f"{suffix}{extension}"


def of_hemisphere(path: Path, label: str) -> Path:
    """Name the file of a hemisphere by the name of both together; without a label the file itself."""
    parsed = parse_name(path.name)
    if not label or parsed is None:
        return path
    return path.with_name(file_name({**parsed.entities, "hemi": label}, parsed.suffix, parsed.extension))


def name_of_both(path: Path) -> Path:
    """Name the files of both hemispheres as one, by that of either."""
    return path.with_name("_".join(part for part in path.name.split("_") if not part.startswith("hemi-")))


def files_of(path: Path) -> tuple[Path, ...]:
    """Name the files of a map: one for each hemisphere where it is GIFTI and its name says neither."""
    if not path.name.endswith(GIFTI) or "_hemi-" in path.name:
        return (path,)
    return tuple(of_hemisphere(path, label) for label in HEMISPHERES)


def func_folder(participant: str, session: str | None = None) -> PurePosixPath:
    """Folder of a participant's (and session's) functional outputs, relative to the output folder."""
    folder = PurePosixPath(f"sub-{participant}")
    if session:
        folder /= f"ses-{session}"
    return folder / "func"


def figures_folder(participant: str) -> PurePosixPath:
    """Folder of the sections of a participant's page, relative to the output folder."""
    return PurePosixPath(f"sub-{participant}") / "figures"


AnyPath = TypeVar("AnyPath", bound=PurePath)
# Folders that outputs lie in, as the end of a path
_OUTPUT_FOLDER = re.compile(
    r"(?:\A|/)(?P<folder>sub-[A-Za-z0-9+]+/(?:(?:ses-[A-Za-z0-9+]+/)?func|figures)|group/figures|group|logs)\Z"
)
_TOP_FILE = re.compile(r"dataset_description\.json|\.bidsignore|[^/]*\.html")
_RECORDED_FILE = re.compile(
    r"[A-Za-z0-9+_-]+_(?:statmap|boldref|mask)\.nii\.gz|[A-Za-z0-9+_-]+_(?:statmap|mask)\.(?:dscalar\.nii|gii)"
    r"|[A-Za-z0-9+_-]+_(?:statmap|mask|design|validity|section|metrics|clusters)\.json"
    r"|[A-Za-z0-9+_-]+_(?:design|metrics|clusters)\.tsv|[A-Za-z0-9+_-]+_log\.txt"
)


def output_place(path: AnyPath) -> tuple[AnyPath, tuple[str, ...]]:
    """Take the path of an output file apart: the output folder, and the folders between it and the file.

    The output folder is the file's own where it is none that outputs lie in.
    """
    folder = path.parent
    if _TOP_FILE.fullmatch(path.name):
        return folder, ()
    found = _OUTPUT_FOLDER.search(folder.as_posix())
    if found is None:
        return folder, ()
    parts = tuple(found["folder"].split("/"))
    return folder.parents[len(parts) - 1], parts


def is_section(path: PurePath) -> bool:
    """Whether a file is a section of a page."""
    return path.name.endswith(SECTION_SUFFIX)


def is_recorded_name(name: str) -> bool:
    """Whether a path relative to the output folder is one of a result that this program writes."""
    path = PurePosixPath(name)
    if str(path) != name or path.is_absolute() or not _RECORDED_FILE.fullmatch(path.name):
        return False
    root, parts = output_place(path)
    return str(root) == "." and bool(parts)


def check_name_length(name: str, labels: Mapping[str, str]) -> None:
    """Refuse labels, by the option they were made from, that make a file name longer than file systems allow."""
    excess = len(name.encode()) - LONGEST_NAME
    if excess > 0:
        option, label = max(labels.items(), key=lambda item: len(item[1]))
        raise CommandLineError(
            f"{option}: with the label '{label[:40]}…' ({len(label)} characters) file names would be {excess} "
            f"characters too long. Give it a short name: {option} 'NAME=…'."
        )


def strip_prefix(label: str, key: str) -> str:
    """Drop an optional `key-` in front of a label (`sub-01` and `01` are the same participant)."""
    return label.removeprefix(f"{key}-")


def place_of(entities: Mapping[str, str | None]) -> str:
    """Say for people which task, space and resolution an analysis is of."""
    return ", ".join(f"{key} {label}" for key, label in entities.items() if label) or "maps of no named task"


def listed_labels(labels: Iterable[str], most: int) -> str:
    """List participants by their labels, some of them where they are many."""
    return listed([f"sub-{label}" for label in sorted(labels, key=natural_key)], most=most)

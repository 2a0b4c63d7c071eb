"""Which files a BIDS dataset and its derivatives hold, found through pybids.

pybids finds the files; their entities are read from the file name alone, because pybids also matches folders
above the dataset (a dataset kept under `/home/sub-x/func/` would give every file a wrong subject).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionfx.errors import DatasetError
from sessionfx.naming import LONG_NAMES, parse_name

SUFFIXES = ("bold", "mask", "events", "timeseries", "regressors")
EXTENSIONS = (".nii.gz", ".nii", ".tsv", ".json")

_IGNORED_FOLDERS = (re.compile(r"^/(code|models|sourcedata|stimuli|derivatives)(/|$)"),)


class UnreadableDescriptionError(DatasetError):
    """dataset_description.json is not JSON (pybids can do without one, but not with one of another type)."""


@dataclass(frozen=True)
class IndexedFile:
    """One file of a dataset.

    Attributes
    ----------
    path : Path
        Absolute path.
    root : Path
        The dataset it belongs to.
    entities : dict of str to str
        Short BIDS keys (`sub`, `ses`, …) and labels, from the file name.
    suffix, extension : str
        For example `bold` and `.nii.gz`.
    """

    path: Path
    root: Path
    entities: dict[str, str]
    suffix: str
    extension: str

    @property
    def depth(self) -> int:
        """Folders between the dataset and the file: BIDS inheritance goes from the root down."""
        return len(self.path.relative_to(self.root).parts)


@dataclass(frozen=True)
class Dataset:
    """A raw dataset and the derivatives to read with it.

    Attributes
    ----------
    raw : Path
        Root of the raw dataset.
    derivatives : tuple of Path
        Roots of the derivative datasets.
    raw_files, derivative_files : tuple of IndexedFile
        What is relevant in them.
    """

    raw: Path
    derivatives: tuple[Path, ...]
    raw_files: tuple[IndexedFile, ...]
    derivative_files: tuple[IndexedFile, ...]

    def links(self) -> dict[str, Path]:
        """Names of the datasets in BIDS URIs (`bids:NAME:path`)."""
        return dataset_links(self.raw, self.derivatives)


def dataset_links(raw: Path, derivatives: Sequence[Path]) -> dict[str, Path]:
    """Give every input dataset a name for BIDS URIs: `raw`, and derivatives by their folder's name."""
    links = {"raw": raw}
    for root in derivatives:
        base = re.sub(r"[^a-zA-Z0-9_-]", "", root.name) or "derivatives"
        name, count = base, 2
        while name in links:
            name, count = f"{base}{count}", count + 1
        links[name] = root
    return links


def check_raw_dataset(bids_dir: Path, *, skip_validation: bool = False) -> Path:
    """Make sure the folder is a BIDS dataset.

    Parameters
    ----------
    bids_dir : Path
        As given by the user.
    skip_validation : bool, default=False
        Accept a missing or broken dataset_description.json.

    Returns
    -------
    Path
        Absolute path.

    Raises
    ------
    DatasetError
        If there is no such folder or it has no valid description.
    """
    root = bids_dir.absolute()
    if not root.is_dir():
        raise DatasetError(f"The BIDS folder {bids_dir} does not exist. Give the root of the raw BIDS dataset.")
    if skip_validation:
        with contextlib.suppress(UnreadableDescriptionError):
            read_description(root)
        return root
    description = read_description(root)
    if description is None:
        raise DatasetError(
            f"{root} has no dataset_description.json, so it is not a BIDS dataset. Give the root of the raw dataset, "
            'or add the file (at least {"Name": "…", "BIDSVersion": "1.10.0"}); --skip-bids-validation goes without.'
        )
    missing = [key for key in ("Name", "BIDSVersion") if key not in description]
    if missing:
        raise DatasetError(
            f"{root / 'dataset_description.json'} lacks the field {missing[0]}, which BIDS requires. Add it, or use "
            "--skip-bids-validation."
        )
    return root


def read_description(root: Path) -> dict[str, Any] | None:
    """Read dataset_description.json; None where there is none.

    Raises
    ------
    DatasetError
        If the file is not a JSON object.
    """
    path = root / "dataset_description.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnreadableDescriptionError(f"{path} cannot be read as JSON ({error}). Correct the file.") from None
    if not isinstance(description, dict):
        raise DatasetError(f"{path} should hold a JSON object. Correct the file.")
    return description


def preprocessing_programs(roots: Sequence[Path]) -> tuple[str, ...]:
    """Name the programs that made derivative datasets, with versions, as their descriptions say."""
    names: dict[str, None] = {}
    for root in roots:
        generated = (read_description(root) or {}).get("GeneratedBy")
        for program in generated if isinstance(generated, list) else []:
            if isinstance(program, dict) and isinstance(program.get("Name"), str):
                version = program.get("Version")
                names[f"{program['Name']} {version}" if isinstance(version, str) else program["Name"]] = None
    return tuple(names)


def find_derivative_roots(bids_dir: Path, given: Sequence[Path]) -> tuple[Path, ...]:
    """Find derivative datasets: the folders given, or what lies in BIDS_DIR/derivatives.

    A folder counts when it holds a dataset_description.json; otherwise its immediate children are looked at.

    Raises
    ------
    DatasetError
        If there is none.
    """
    roots: dict[Path, None] = {}
    for folder in given or [bids_dir / "derivatives"]:
        found = _described_folders(folder.absolute())
        if given and not found:
            what = "does not exist" if not folder.is_dir() else "holds no dataset with a dataset_description.json"
            raise DatasetError(
                f"--derivatives {folder} {what}. Give the folder that fMRIPrep wrote (the one with its "
                "dataset_description.json)."
            )
        roots.update(dict.fromkeys(found))
    if not roots:
        raise DatasetError(
            f"No derivatives with a dataset_description.json were found in {bids_dir / 'derivatives'}. Run fMRIPrep "
            "first, or name its output folder with --derivatives."
        )
    for root in roots:
        read_description(root)  # pybids would fail on a broken one without a word for people
    return tuple(roots)


def open_dataset(
    raw: Path,
    derivatives: Sequence[Path],
    *,
    participants: Sequence[str] = (),
    database_dir: Path | None = None,
    work_dir: Path | None = None,
) -> Dataset:
    """Index a raw dataset and its derivatives.

    Parameters
    ----------
    raw : Path
        Root of the raw dataset.
    derivatives : sequence of Path
        Roots of derivative datasets.
    participants : sequence of str
        Index only these; all where empty.
    database_dir : Path, optional
        Keep complete pybids indexes here and trust those found, as other BIDS Apps do.
    work_dir : Path, optional
        Keep pybids indexes here; one is used again only while no folder of its dataset has changed.

    Returns
    -------
    Dataset
    """
    found = {
        root: _index(root, is_derivative, participants, database_dir, work_dir)
        for root, is_derivative in [(raw, False), *((root, True) for root in derivatives)]
    }
    return Dataset(raw, tuple(derivatives), found[raw], tuple(file for root in derivatives for file in found[root]))


def applicable_files(
    files: Iterable[IndexedFile],
    entities: Mapping[str, str],
    *,
    suffixes: Sequence[str],
    extension: str,
    ignored: Sequence[str] = (),
) -> list[IndexedFile]:
    """Find the files that apply to a run by the BIDS inheritance principle, the most specific last.

    A file applies when each of its entities (but those ignored) is one of the run's; one deeper in the folders
    comes later.
    """
    applicable = [
        file
        for file in files
        if file.suffix in suffixes
        and file.extension == extension
        and all(entities.get(key) == label for key, label in file.entities.items() if key not in ignored)
    ]
    return sorted(applicable, key=lambda file: (file.depth, len(file.entities), str(file.path)))


def inherited_metadata(files: Iterable[IndexedFile], entities: Mapping[str, str]) -> dict[str, Any]:
    """Merge the JSON sidecars that apply to a run, the most specific winning.

    Raises
    ------
    ValueError
        If one of them is not a JSON object.
    """
    metadata: dict[str, Any] = {}
    for file in applicable_files(files, entities, suffixes=("bold",), extension=".json"):
        try:
            content = json.loads(file.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file.path} cannot be read as JSON ({error})") from None
        if not isinstance(content, dict):
            raise ValueError(f"{file.path} should hold a JSON object")
        metadata.update(content)
    return metadata


def matches_filter(file: IndexedFile, entity_filter: Mapping[str, Any]) -> bool:
    """Whether a file passes a pybids filter (`{"desc": "preproc", "run": [1, 2], "acquisition": null}`).

    null asks that the entity be absent, `"*"` that it be there; numbers ignore zero padding.
    """
    for name, wanted in entity_filter.items():
        if name in ("datatype", "scope", "return_type"):
            continue
        label = _property(file, name)
        if wanted is None or wanted in ("Query.NONE", "none"):
            if label is not None:
                return False
        elif wanted in ("*", "Query.ANY"):
            if label is None:
                return False
        elif label is None or not any(_same_label(label, item) for item in _as_list(wanted)):
            return False
    return True


def _property(file: IndexedFile, name: str) -> str | None:
    if name in ("suffix", "extension"):
        value: str = getattr(file, name)
        return value.removeprefix(".")
    short = {long: short for short, long in LONG_NAMES.items()}
    return file.entities.get(short.get(name, name))


def _same_label(label: str, wanted: object) -> bool:
    text = str(wanted).removeprefix(".")
    if label.isdigit() and text.isdigit():
        return int(label) == int(text)
    return label == text


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _described_folders(folder: Path) -> list[Path]:
    if (folder / "dataset_description.json").is_file():
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if (child / "dataset_description.json").is_file())


def _index(
    root: Path,
    is_derivative: bool,
    participants: Sequence[str],
    database_dir: Path | None,
    work_dir: Path | None,
) -> tuple[IndexedFile, ...]:
    _provide_home()
    from bids import BIDSLayout, BIDSLayoutIndexer  # takes a second to import

    ignore = list(_IGNORED_FOLDERS)
    database_path = None
    if database_dir is not None:
        # A shared index serves every later call, whichever participants it asks for.
        database_path = database_dir / f"{root.name}-{_digest(str(root))}"
    else:
        if participants:
            labels = "|".join(re.escape(label) for label in participants)
            ignore.append(re.compile(rf"^/sub-(?!(?:{labels})(?:/|$))[^/]+(/|$)"))
        if work_dir is not None:
            state = _digest(json.dumps([str(root), sorted(participants), _folder_times(root)]))
            database_path = work_dir / "pybids" / f"{root.name}-{state}"
    try:
        layout = BIDSLayout(
            root,
            validate=False,
            is_derivative=is_derivative,
            config=["bids", "derivatives"] if is_derivative else ["bids"],
            database_path=database_path,
            indexer=BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore),
        )
        paths = [
            Path(str(file.path))
            for file in layout.get(suffix=list(SUFFIXES), extension=list(EXTENSIONS), invalid_filters="allow")
        ]
    except OSError as error:
        raise DatasetError(f"{root} cannot be indexed: {error}. Check that all of it can be read.") from None
    files = [indexed_file(path, root) for path in paths]
    return tuple(sorted((file for file in files if file), key=lambda file: str(file.path)))


def _provide_home() -> None:
    """Name a home where there is none (a container's user without an account): pybids asks for one on import."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def indexed_file(path: Path, root: Path) -> IndexedFile | None:
    """Describe a file by its name; None where it is not named as BIDS names files."""
    parsed = parse_name(path.name)
    return IndexedFile(path, root, parsed.entities, parsed.suffix, parsed.extension) if parsed else None


def _folder_times(root: Path) -> list[tuple[str, int]]:
    """Names and modification times of a dataset's functional folders: they change when a file comes or goes."""
    folders = [
        root,
        *root.glob("sub-*"),
        *root.glob("sub-*/ses-*"),
        *root.glob("sub-*/func"),
        *root.glob("sub-*/ses-*/func"),
    ]
    return sorted((str(folder.relative_to(root)), folder.stat().st_mtime_ns) for folder in folders)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

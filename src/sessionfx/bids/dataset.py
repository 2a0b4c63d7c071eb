"""Which files a BIDS dataset and its derivatives hold, found through pybids.

pybids finds the files; their entities are read from the file name alone, because pybids also matches folders
above the dataset (a dataset kept under `/home/sub-x/func/` would give every file a wrong subject).

Vocabulary
----------
index
    The list of a dataset's files that can matter here, of all participants or of some; where it is kept, pybids' SQLite
    database with a line of ours that says what it was made from.
state
    Digest of what the names in an index depend on: it changes when a file comes or goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sessionfx.bids.names import LONG_NAMES, comparable_label, parse_name
from sessionfx.bids.reading import (
    NoObjectError,
    UnreadableFileError,
    is_folder,
    list_folder,
    read_json_object,
    walk,
)
from sessionfx.errors import DatasetError, OutputError

# What is read of a dataset: of fMRIPrep's two hundred files per participant a fifth
_EXTENSIONS_READ = {
    "bold": ("nii.gz", "nii", "json"),
    "mask": ("nii.gz", "nii"),
    "events": ("tsv",),
    "timeseries": ("tsv",),
    "regressors": ("tsv",),
}
_NAME_READ = "(?:[^/]*_)?(?:{})".format(
    "|".join(
        rf"{suffix}\.(?:{'|'.join(re.escape(extension) for extension in extensions)})"
        for suffix, extensions in _EXTENSIONS_READ.items()
    )
)
_IS_READ = re.compile(rf"{_NAME_READ}\Z").match
_DATATYPES = ("anat", "dwi", "eeg", "fmap", "func", "ieeg", "meg", "perf", "pet")
_FOLDERS_WITHOUT_RUNS = {"figures", "log"}
# pybids passes over what one of these finds, in the path from the dataset's root
_IGNORED = (
    re.compile(r"^/(?!sub-)[^/.]*$"),  # folders at the root that are not participants' (and README, CHANGES)
    re.compile(r"^/(?!sub-)[^/]+/"),
    re.compile(rf"^/sub-[^/]+/(?:ses-[^/]+/)?(?:{'|'.join(sorted(_FOLDERS_WITHOUT_RUNS))})$"),
    re.compile(rf"/(?!{_NAME_READ}$)[^/]*\.[^/]*$"),  # files that are not read
)
_DATABASE = "layout_index.sqlite"  # pybids' name
# pybids would read a file of this name in every folder, layout_config.json by default: there can be none
_NO_CONFIGURATION = f"{os.devnull}/none"
# Part of the names of kept indexes: one made by other rules is not looked at
_INDEX_FORMAT = 2
_SHORT_NAMES = {long: short for short, long in LONG_NAMES.items()}


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
    def datatype(self) -> str | None:
        """Kind of scan (`func`, `anat`, …), from the file's folder; None where that names none."""
        folder = self.path.parent.name
        return folder if folder in _DATATYPES and self.path.parent != self.root else None

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
    unnamed : tuple of Path
        Files of the derivatives that end as relevant ones do, but are not named as BIDS names files.
    """

    raw: Path
    derivatives: tuple[Path, ...]
    raw_files: tuple[IndexedFile, ...]
    derivative_files: tuple[IndexedFile, ...]
    unnamed: tuple[Path, ...] = ()

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
    if description is not None and description.get("DatasetType") == "derivative":
        made_by = ", ".join(preprocessing_programs([root])) or "another program"
        raise DatasetError(
            f"{root} holds derivatives (made by {made_by}, as its dataset_description.json says), not a raw dataset. "
            f"Give the raw dataset as BIDS_DIR, and this folder as --derivatives {bids_dir}; where events lie in it, "
            "--skip-bids-validation takes it as it is."
        )
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
    if not path.is_symlink() and not path.exists():
        return None
    try:
        return read_json_object(path)
    except NoObjectError as error:
        raise DatasetError(str(error)) from None
    except UnreadableFileError as error:
        raise UnreadableDescriptionError(str(error)) from None


def preprocessing_programs(roots: Sequence[Path]) -> tuple[str, ...]:
    """Name the programs that made derivative datasets, with versions, as their descriptions say."""
    names: dict[str, None] = {}
    for root in roots:
        # a list of objects in BIDS; some programs write one object, a name, or lower case
        for program in as_list((read_description(root) or {}).get("GeneratedBy")):
            fields = {str(key).lower(): value for key, value in program.items()} if isinstance(program, dict) else {}
            name = program if isinstance(program, str) else fields.get("name")
            if isinstance(name, str):
                version = fields.get("version")
                names[f"{name} {version}" if isinstance(version, str) else name] = None
    return tuple(names)


def find_derivative_roots(bids_dir: Path, given: Sequence[Path]) -> tuple[Path, ...]:
    """Find derivative datasets: the folders given, or what lies in BIDS_DIR/derivatives.

    A folder counts when it holds a dataset_description.json, unless it has no participants and folders in it count. In
    a folder that does not count, those in it are looked at, and those in these (`derivatives/fmriprep/23.1.3`).

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
        Index only these, without looking into the folders of others; all where empty.
    database_dir : Path, optional
        Keep indexes here and trust those found, as other BIDS Apps do. One of all participants serves any.
    work_dir : Path, optional
        Keep indexes here; one is used again only while no file of its participants came or went.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If a folder cannot be read.
    OutputError
        If an index cannot be kept.
    """
    found = {
        root: _index(root, is_derivative, participants, database_dir, work_dir)
        for root, is_derivative in [(raw, False), *((root, True) for root in derivatives)]
    }
    return Dataset(
        raw,
        tuple(derivatives),
        found[raw][0],
        tuple(file for root in derivatives for file in found[root][0]),
        tuple(path for root in derivatives for path in found[root][1]),
    )


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
        and all(_agrees(entities, key, label) for key, label in file.entities.items() if key not in ignored)
    ]
    return sorted(applicable, key=lambda file: (file.depth, len(file.entities), str(file.path)))


def _agrees(entities: Mapping[str, str], key: str, label: str) -> bool:
    own = entities.get(key)
    if own is None:
        return (key, label) == ("part", "mag")  # which a preprocessed image need not say
    return comparable_label(key, own) == comparable_label(key, label)


def inherited_metadata(
    files: Iterable[IndexedFile],
    entities: Mapping[str, str],
    read_before: dict[Path, dict[str, Any]],
    *,
    ignored: Sequence[str] = (),
) -> dict[str, Any]:
    """Merge the JSON sidecars that apply to a run, the most specific winning.

    Parameters
    ----------
    files : iterable of IndexedFile
    entities : mapping of str to str
        Of the run.
    read_before : dict
        Sidecars by path: what is read is added, so that one shared by many runs is read once.
    ignored : sequence of str, optional
        Entities of the sidecars that need not be the run's.

    Raises
    ------
    UnreadableFileError
        If one of them is not a JSON object.
    """
    metadata: dict[str, Any] = {}
    for file in applicable_files(files, entities, suffixes=("bold",), extension=".json", ignored=ignored):
        if file.path not in read_before:
            read_before[file.path] = read_json_object(file.path)
        # null says nothing, and hides no value of a file above
        metadata |= {key: value for key, value in read_before[file.path].items() if value is not None}
    return metadata


def matches_filter(file: IndexedFile, entity_filter: Mapping[str, Any]) -> bool:
    """Whether a file passes a pybids filter (`{"desc": "preproc", "run": [1, 2], "acquisition": null}`).

    null asks that the entity be absent, `"*"` that it be there; numbers ignore zero padding.
    """
    return all(
        any(_is_wanted(_property(file, name), item) for item in as_list(wanted))
        for name, wanted in entity_filter.items()
        if name not in ("datatype", "scope", "return_type")
    )


def _is_wanted(label: str | None, wanted: object) -> bool:
    if wanted is None or wanted in ("Query.NONE", "none"):
        return label is None
    if wanted in ("*", "Query.ANY"):
        return label is not None
    return label is not None and _same_label(label, wanted)


def _property(file: IndexedFile, name: str) -> str | None:
    if name in ("suffix", "extension"):
        value: str = getattr(file, name)
        return value.removeprefix(".")
    return file.entities.get(_SHORT_NAMES.get(name, name))


def _same_label(label: str, wanted: object) -> bool:
    if isinstance(wanted, float) and wanted.is_integer():
        wanted = int(wanted)  # 1.0 is how some programs write 1 in JSON
    text = str(wanted).removeprefix(".")
    # as numbers whatever the entity: who writes 1 in a filter means 01 too
    return comparable_label("run", label) == comparable_label("run", text)


def as_list(value: Any) -> list[Any]:
    """Make a list of a value that is none."""
    return value if isinstance(value, list) else [value]


def _described_folders(folder: Path, depth: int = 2) -> list[Path]:
    """Find derivative datasets in a folder and down to some depth below it."""
    children = [entry for entry in list_folder(folder) if not entry.name.startswith((".", "sub-")) and is_folder(entry)]
    is_described = (folder / "dataset_description.json").is_file()
    if is_described and (not depth or participants_of(folder)):
        return [folder]
    below = [found for child in children for found in _described_folders(Path(child.path), depth - 1)] if depth else []
    return [folder] if is_described and not below else below


def _index(
    root: Path,
    is_derivative: bool,
    participants: Sequence[str],
    database_dir: Path | None,
    work_dir: Path | None,
) -> tuple[tuple[IndexedFile, ...], tuple[Path, ...]]:
    """List the files of a dataset, from an index kept before or a new one; apart those with names of another kind."""
    wanted = sorted(set(participants))
    folder, state, paths = None, "", None
    if database_dir is not None:
        everyone, folder = (_index_folder(database_dir, root, labels) for labels in ([], wanted))
        paths = _paths_kept(everyone, None)
        if paths is None and wanted:
            paths = _paths_kept(folder, None)
    elif work_dir is not None:
        folder, state = _index_folder(work_dir / "pybids", root, wanted), _state(root, wanted)
        paths = _paths_kept(folder, state)
    if paths is None:
        expected = _paths_expected(root, wanted)
        paths = _paths_found(root, is_derivative, wanted, folder, state, expected)
    start = len(str(root).rstrip("/")) + 1
    own = tuple(f"sub-{label}/" for label in wanted)
    relevant = [
        Path(path) for path in sorted(paths) if not own or "/" not in path[start:] or path.startswith(own, start)
    ]
    described = {path: indexed_file(path, root) for path in relevant if _IS_READ(path.name)}
    unnamed = tuple(path for path, file in described.items() if file is None)
    return tuple(file for file in described.values() if file is not None), unnamed


def _paths_expected(root: Path, participants: Sequence[str]) -> frozenset[str]:
    """List what pybids should find: it passes over folders that cannot be listed, and what is in them.

    Returns
    -------
    frozenset of str
        Paths of the files that are read: a disk may fail again before pybids comes by.

    Raises
    ------
    DatasetError
        If a folder cannot be listed or leads back to one above it, or a name is no text.
    """
    wanted = {f"sub-{label}" for label in participants}

    def matters(entry: os.DirEntry[str]) -> bool:
        if "." in entry.name:
            return False  # func.old, .trash: folders that were put aside
        if Path(entry.path).parent == root:
            return entry.name in wanted if wanted else entry.name.startswith("sub-")
        return entry.name not in _FOLDERS_WITHOUT_RUNS

    expected = frozenset(str(path) for path in walk(root, matters) if _IS_READ(path.name))
    for path in expected:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DatasetError(f"The name of {path} is not UTF-8 text, as BIDS asks. Rename the file.") from None
    return expected


def _index_folder(parent: Path, root: Path, participants: Sequence[str]) -> Path:
    dataset = f"{root.name}-{_digest(f'{_INDEX_FORMAT} {root}')}"
    return parent / dataset / (_digest(" ".join(participants)) if participants else "all")


def _paths_kept(folder: Path, state: str | None) -> list[str] | None:
    """Read a kept index; None where there is none that can be used, or it is of another state than the one given."""
    database = folder / _DATABASE
    if not database.is_file():
        return None
    try:
        # pybids takes half a second to be imported and to open it; "ro" makes no file
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            (kept,) = connection.execute("SELECT state FROM sessionfx").fetchone()
            if state not in (None, kept):
                return None
            return [path for (path,) in connection.execute("SELECT path FROM files WHERE is_dir = 0")]
    except (sqlite3.Error, TypeError):
        return None  # damaged: it is made again


def _paths_found(
    root: Path,
    is_derivative: bool,
    participants: Sequence[str],
    folder: Path | None,
    state: str,
    expected: frozenset[str],
) -> list[str]:
    """Let pybids index a dataset; where a folder is given, keep the index there.

    Where pybids cannot, what lies there is known without it, and no index is kept.

    Several processes may do so at a time: each makes its own, and the last stays.
    """
    making = None
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
        paths = _paths_of_layout(root, is_derivative, participants, making)
        if paths is None:
            return sorted(expected)
        lost = sorted(path for path in expected.difference(paths) if os.path.lexists(path))
        if lost:
            raise DatasetError(
                f"The folder {Path(lost[0]).parent} could be listed at first and not a moment later: what lies in it "
                "would be left out. Check the disk or the network, then give the same command again."
            )
        if folder is not None and making is not None:
            with closing(sqlite3.connect(making / _DATABASE)) as connection, connection:
                connection.execute("CREATE TABLE sessionfx (state TEXT)")
                connection.execute("INSERT INTO sessionfx VALUES (?)", (state,))
            (making / _DATABASE).replace(folder / _DATABASE)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"The index of {root} cannot be kept in {folder} ({error}). Choose another --work-dir or "
            "--bids-database-dir."
        ) from None
    finally:
        if making is not None:
            shutil.rmtree(making, ignore_errors=True)
    return paths


def _paths_of_layout(
    root: Path, is_derivative: bool, participants: Sequence[str], database_path: Path | None
) -> list[str] | None:
    """Let pybids list a dataset; None where it cannot: it has no patience with descriptions of another form."""
    ignored = list(_IGNORED)
    if participants:
        labels = "|".join(re.escape(label) for label in participants)
        ignored.insert(0, re.compile(rf"^/sub-(?!(?:{labels})(?:/|$))[^/.]+(?:/|$)"))
    try:
        _provide_home()
        from bids import config
        from bids.layout import BIDSFile, BIDSLayout, BIDSLayoutIndexer
        from sqlalchemy.exc import DBAPIError
    except (OSError, ValueError, TypeError):
        return None  # it reads pybids_config.json in the home and the working folder, and PYBIDS_CONFIG, on import
    config.reset_options()  # what these say of entities would change what is found
    try:
        layout = BIDSLayout(
            root,
            validate=False,
            is_derivative=is_derivative,
            config=["bids", "derivatives"] if is_derivative else ["bids"],
            database_path=database_path,
            indexer=BIDSLayoutIndexer(
                validate=False, index_metadata=False, ignore=ignored, config_filename=_NO_CONFIGURATION
            ),
        )
        paths = [path for (path,) in layout.session.query(BIDSFile.path)]
        layout.session.close()
    except DBAPIError as error:
        raise sqlite3.OperationalError(str(error.orig)) from None
    except Exception:  # whatever it meets in dataset_description.json, it has no errors of its own for it
        return None
    return paths


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


def participants_of(root: Path) -> list[str]:
    """Labels of a dataset's `sub-*` folders, without looking into them."""
    return [name[4:] for name in subfolders(root) if name.startswith("sub-")]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, links to folders included.

    Raises
    ------
    DatasetError
        If it cannot be listed.
    """
    return [entry.name for entry in list_folder(folder) if is_folder(entry)]


def _state(root: Path, participants: Sequence[str]) -> str:
    """Digest the names at the root and the modification times of participants' folders.

    A folder's time changes when a file in it comes or goes. The root's would change with every new participant.
    """
    described: list[tuple[str, int]] = [(entry.name, 0) for entry in list_folder(root) if _IS_READ(entry.name)]
    for label in participants or participants_of(root):
        pending = [(f"sub-{label}", 0)]
        while pending:
            name, depth = pending.pop()
            try:
                described.append((name, (root / name).stat().st_mtime_ns))
            except OSError:
                continue  # this dataset does not have the participant
            if depth == 0 or (depth == 1 and "/ses-" in name):
                inside = set(subfolders(root / name)) - _FOLDERS_WITHOUT_RUNS
                pending += [(f"{name}/{folder}", depth + 1) for folder in inside]
    return _digest(json.dumps([version("pybids"), sorted(described)]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

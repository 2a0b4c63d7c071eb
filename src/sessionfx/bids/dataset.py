"""Which files a BIDS dataset and its derivatives hold, found through pybids.

pybids finds the files; their entities are read from the file name alone, because pybids also matches folders
above the dataset (a dataset kept under `/home/sub-x/func/` would give every file a wrong subject).

What its documentation does not say: patterns to ignore are searched in the path from the dataset's root, of files and
of folders, which are then not entered. A folder that cannot be listed is empty to pybids. Its database is taken for
complete as soon as there is a file, whatever was ignored when it was made, and whether or not that came to an end.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionfx.bids.names import parse_name
from sessionfx.bids.reading import NoObjectError, UnreadableFileError, is_folder, list_folder, read_json_object, walk
from sessionfx.errors import DatasetError, OutputError

# What is read of a dataset: of fMRIPrep's two hundred files per participant a fifth
_EXTENSIONS_READ = {
    "bold": ("nii.gz", "nii", "json", "func.gii", "dtseries.nii", "dtseries.json"),
    "hemi-[LR]": ("func.gii",),  # of fMRIPrep before 1.5, without a suffix
    "mask": ("nii.gz", "nii"),
    "events": ("tsv",),
    "timeseries": ("tsv",),
    "regressors": ("tsv",),
}
# not what macOS leaves beside a file on disks of others, `._sub-01_…`
_NAME_READ = "(?:[^/.][^/]*_)?(?:{})".format(
    "|".join(
        rf"{suffix}\.(?:{'|'.join(re.escape(extension) for extension in extensions)})"
        for suffix, extensions in _EXTENSIONS_READ.items()
    )
)
_IS_READ = re.compile(rf"{_NAME_READ}\Z").match
# Folders in which no runs lie are passed over, and those that were put aside (func.old, .trash)
_FOLDER_READ = r"(?!(?:figures|log)(?:/|\Z))[^/.]+"
_DATATYPES = ("anat", "dwi", "eeg", "fmap", "func", "ieeg", "meg", "perf", "pet")
RAW = "raw"  # the raw dataset in BIDS URIs
_DATABASE = "layout_index.sqlite"  # pybids' name
# pybids would read a file of this name in every folder, layout_config.json by default: there can be none
_NO_CONFIGURATION = f"{os.devnull}/none"
# A signal that ends the program while a connection is given back would be shown with a traceback
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
# It would match every path with the patterns of thirty entities, or of a pybids_config.json, which nobody asks for
_NO_ENTITIES = {"name": "names", "entities": []}


class UnreadableDescriptionError(DatasetError):
    """dataset_description.json is not JSON (pybids can do without one, but not with one of another type)."""


@dataclass(frozen=True)
class IndexedFile:
    """One file of a dataset."""

    path: Path  # absolute path
    root: Path  # the dataset it belongs to
    entities: dict[str, str]  # short BIDS keys (`sub`, `ses`, …) and labels, from the file name
    # suffix, extension: for example `bold` and `.nii.gz`
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
    """A raw dataset and the derivatives to read with it."""

    raw: Path  # root of the raw dataset
    derivatives: tuple[Path, ...]  # roots of the derivative datasets
    # raw_files, derivative_files: what is relevant in them
    raw_files: tuple[IndexedFile, ...]
    derivative_files: tuple[IndexedFile, ...]
    # files of the derivatives that end as relevant ones do, but are not named as BIDS names files
    unnamed: tuple[Path, ...] = ()


def dataset_links(raw: Path, derivatives: Sequence[Path]) -> dict[str, Path]:
    """Give every input dataset a name for BIDS URIs: `raw`, and derivatives by their folder's name."""
    links = {RAW: raw}
    for root in derivatives:
        base = re.sub(r"[^a-zA-Z0-9_-]", "", root.name) or "derivatives"
        name, count = base, 2
        while name in links:
            name, count = f"{base}{count}", count + 1
        links[name] = root
    return links


def check_raw_dataset(bids_dir: Path, *, skip_validation: bool = False) -> Path:
    """Make sure the folder is a BIDS dataset, and return its absolute path.

    Without validation a missing or broken dataset_description.json is accepted.

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
    try:
        path.lstat()  # not exists(), which says no where the folder is closed, from Python 3.14 on
        return read_json_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
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
    raw: Path, derivatives: Sequence[Path], *, participants: Sequence[str] = (), database_dir: Path | None = None
) -> Dataset:
    """Find the files of a raw dataset and its derivatives.

    Parameters
    ----------
    raw : Path
        Root of the raw dataset.
    derivatives : sequence of Path
        Roots of derivative datasets.
    participants : sequence of str
        Find the files of these only; all where empty.
    database_dir : Path, optional
        Keep pybids' databases here and trust those found, as other BIDS Apps do. They are of all participants; without
        them the folders of participants who are not asked for are not looked into.

    Raises
    ------
    DatasetError
        If a folder cannot be read.
    OutputError
        If a database cannot be kept.
    """
    found = {root: _described(root, participants, database_dir) for root in (raw, *derivatives)}
    return Dataset(
        raw,
        tuple(derivatives),
        found[raw][0],
        tuple(file for root in derivatives for file in found[root][0]),
        tuple(path for root in derivatives for path in found[root][1]),
    )


def as_list(value: Any) -> list[Any]:
    """Make a list of a value that is none."""
    return value if isinstance(value, list) else [value]


def _described_folders(folder: Path, depth: int = 2) -> list[Path]:
    """Find derivative datasets in a folder and down to some depth below it."""
    entries = list_folder(folder)
    children = [entry for entry in entries if not entry.name.startswith((".", "sub-")) and is_folder(entry)]
    is_described = any(entry.name == "dataset_description.json" and not is_folder(entry) for entry in entries)
    if is_described and (not depth or participants_of(folder)):
        return [folder]
    below = [found for child in children for found in _described_folders(Path(child.path), depth - 1)] if depth else []
    return [folder] if is_described and not below else below


def _described(
    root: Path, participants: Sequence[str], database_dir: Path | None
) -> tuple[tuple[IndexedFile, ...], tuple[Path, ...]]:
    """Describe the files of a dataset; apart those with names of another kind."""
    paths = _found(root, participants) if database_dir is None else _kept(root, participants, database_dir)
    start = len(str(root).rstrip("/")) + 1
    own = tuple(f"sub-{label}/" for label in participants)
    relevant = [
        Path(path) for path in sorted(paths) if not own or "/" not in path[start:] or path.startswith(own, start)
    ]
    described = {path: indexed_file(path, root) for path in relevant if _IS_READ(path.name)}
    unnamed = tuple(path for path, file in described.items() if file is None)
    return tuple(file for file in described.values() if file is not None), unnamed


def _kept(root: Path, participants: Sequence[str], database_dir: Path) -> Collection[str]:
    """List the files in the database of a dataset; it is made where there is none.

    Several processes may do so at a time: each makes its own, and the last stays.
    """
    folder = database_dir / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
    if (folder / _DATABASE).is_file():
        with contextlib.suppress(Exception):  # damaged: it is made again
            return _listed_by_pybids(root, _ignored(()), folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder, ignore_cleanup_errors=True) as making:
            paths = _found(root, (), Path(making))
            # pybids makes the file before it looks for any: under its name it would be trusted half-made
            with contextlib.suppress(FileNotFoundError):
                (Path(making) / _DATABASE).replace(folder / _DATABASE)
            return paths
    except OSError as error:
        raise OutputError(
            f"The database of {root} cannot be kept in {folder} ({error}). Choose another --bids-database-dir."
        ) from None
    except DatasetError as error:
        if not participants:
            raise
        raise DatasetError(
            f"{error} (The database of --bids-database-dir is of all participants; without it only those named are "
            "looked for.)"
        ) from None


def _found(root: Path, participants: Sequence[str], database_path: Path | None = None) -> Collection[str]:
    """List the files of participants: pybids looks for them, and it is made sure that none is missing.

    Where pybids cannot, what lies there is known without it, and no database is left.

    Raises
    ------
    DatasetError
        If a folder cannot be listed or leads back to one above it, or a name is no text.
    OSError
        If the database cannot be written.
    """
    ignored = _ignored(participants)
    start = len(str(root).rstrip("/"))
    entered = walk(root, lambda entry: ignored.search(entry.path[start:]) is None)
    expected = {str(path) for path in entered if _IS_READ(path.name)}
    for path in expected:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DatasetError(f"The name of {path} is not UTF-8 text, as BIDS asks. Rename the file.") from None
    from sqlalchemy.exc import DBAPIError

    try:
        paths = _listed_by_pybids(root, ignored, database_path)
    except Exception as error:  # it has no patience with descriptions of another form, nor with its settings
        if database_path is not None:
            if isinstance(error, DBAPIError):
                raise OSError(error.orig) from None
            (database_path / _DATABASE).unlink(missing_ok=True)
        return expected
    lost = sorted(path for path in expected.difference(paths) if os.path.lexists(path))
    if lost:
        raise DatasetError(
            f"The folder {Path(lost[0]).parent} could be listed at first and not a moment later: what lies in it "
            "would be left out. Check the disk or the network, then give the same command again."
        )
    return paths


def _ignored(participants: Sequence[str]) -> re.Pattern[str]:
    """Match what is not read, in paths from the root: all but files of some names, and folders on the way to them."""
    label = "(?:{})".format("|".join(map(re.escape, participants))) if participants else "[^/.]+"
    return re.compile(rf"\A(?!/(?:{_NAME_READ}|sub-{label}(?:/{_FOLDER_READ})*(?:/{_NAME_READ})?)\Z)")


def _listed_by_pybids(root: Path, ignored: re.Pattern[str], database_path: Path | None) -> list[str]:
    """Let pybids list a dataset, from its database where there is one."""
    _provide_home()
    from bids.layout import BIDSFile, BIDSLayout, BIDSLayoutIndexer

    indexer = BIDSLayoutIndexer(index_metadata=False, ignore=[ignored], config_filename=_NO_CONFIGURATION)
    layout = BIDSLayout(root, validate=False, config=_NO_ENTITIES, database_path=database_path, indexer=indexer)
    with layout.session:
        return [path for (path,) in layout.session.query(BIDSFile.path)]


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


def derivative_folders(raw: Path) -> list[Path]:
    """List the derivatives inside a raw dataset."""
    return [raw / "derivatives" / name for name in subfolders(raw / "derivatives")]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, links to folders included.

    Raises
    ------
    DatasetError
        If it cannot be listed.
    """
    return [entry.name for entry in list_folder(folder) if is_folder(entry)]

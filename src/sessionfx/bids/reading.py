"""Opening input files: whatever lies under a name is either read, or named in a sentence that says what to do.

Under a name that should be a file there may be nothing, a folder, a pipe that never answers, a device without an end, a
link in a circle, or the small text that git-annex and Git LFS leave in place of data that were not fetched. The rest
of the program opens its input through here and meets none of these.

The functions raise `UnreadableFileError`. Where a file belongs to no single participant, the caller raises the class of
error that fits, with the same text.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sessionfx.errors import DatasetError, ParticipantError

# What belongs into a JSON sidecar is a thousand times smaller, into a table of events or confounds ten times
LARGEST_JSON = 64 * 2**20
LARGEST_TABLE = 512 * 2**20
# How the text begins that stands for data which were not fetched
_POINTERS = {b"/annex/objects/": "git-annex", b"version https://git-lfs": "Git LFS"}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class UnreadableFileError(ParticipantError):
    """A file that cannot be read; the text names it, the cause and the remedy."""


class NoObjectError(UnreadableFileError):
    """A JSON file that holds something else than an object."""


def open_input(path: Path) -> BinaryIO:
    """Open a file for reading at its beginning, without waiting for anything that is no file.

    Raises
    ------
    UnreadableFileError
        If there is no regular file under that name, or it stands for data that were not fetched.
    """
    try:
        # a pipe without a writer would be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
            raise UnreadableFileError(f"{path} is {kind}, not a file. Put the file in its place, or remove it.")
        beginning = os.pread(descriptor, max(map(len, _POINTERS)), 0)
    except OSError as error:
        os.close(descriptor)
        raise _cannot_open(path, error) from None
    except UnreadableFileError:
        os.close(descriptor)
        raise
    stream = os.fdopen(descriptor, "rb")
    for pointer, program in _POINTERS.items():
        if beginning.startswith(pointer):
            stream.close()
            raise UnreadableFileError(
                f"{path} holds a {program} pointer in place of its data, which were not fetched. Get the file first "
                f"({'datalad get or git annex get' if program == 'git-annex' else 'git lfs pull'})."
            )
    return stream


def read_text(path: Path, *, largest: int = LARGEST_TABLE) -> str:
    """Read a UTF-8 text file of so many bytes at most, with or without a byte order mark.

    Raises
    ------
    UnreadableFileError
        If it cannot be read, is larger, or is not UTF-8.
    """
    content = None
    with open_input(path) as stream:
        try:
            # told how many bytes to read at most, Python would ask the system for so much memory, of small files too
            if os.fstat(stream.fileno()).st_size <= largest:
                content = stream.read()
        except OSError as error:
            raise _cannot_open(path, error) from None
    if content is None:
        raise UnreadableFileError(
            f"{path} is larger than {largest // 2**20} MB, which no such file should be. Check what it is."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        what = "is UTF-16 text" if wide else f"is not UTF-8 text (byte {error.start + 1})"
        raise UnreadableFileError(f"{path} cannot be read: it {what}; BIDS asks for UTF-8. Save it as UTF-8.") from None


def read_json_object(path: Path, *, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Read a JSON file of so many bytes at most that holds an object.

    Raises
    ------
    UnreadableFileError
        If it cannot be read, is larger, no JSON, nested too deeply, or holds something else than an object.
    """
    text = read_text(path, largest=largest)
    try:
        content = json.loads(text)
    except RecursionError:
        raise UnreadableFileError(
            f"{path} cannot be read as JSON: it is nested too deeply. Correct the file."
        ) from None
    except ValueError as error:  # no JSON, or an integer of thousands of digits
        reason = str(error).split(";")[0]
        raise UnreadableFileError(f"{path} cannot be read as JSON ({reason}). Correct the file.") from None
    if not isinstance(content, dict):
        raise NoObjectError(f"{path} should hold a JSON object. Correct the file.")
    return content


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder of the input in the order of names; nothing where there is none.

    Raises
    ------
    DatasetError
        If there is a folder and it cannot be listed: what lies in it would be left out without a word.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unlistable(folder, error) from None


def walk(root: Path, enter: Callable[[os.DirEntry[str]], bool]) -> Iterator[Path]:
    """Go through all files below a folder, links to folders included, in the order of names.

    `enter` says of an entry whether what lies in it matters.

    Raises
    ------
    DatasetError
        If a folder cannot be listed, leads back to one above it, or is a link to where there is none.
    """
    pending: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while pending:
        folder, above = pending.pop()
        try:
            status = folder.stat()
        except OSError as error:
            raise unlistable(folder, error) from None
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise DatasetError(
                f"{folder} is a link to a folder above it, so that its files never end. Remove the link."
            )
        below = []
        for entry in list_folder(folder):
            if is_folder(entry):
                if enter(entry):
                    below.append((Path(entry.path), above | {identity}))
            elif enter(entry) and entry.is_symlink() and "." not in entry.name and not Path(entry.path).exists():
                raise DatasetError(
                    f"{entry.path} is a link to a folder that is not there, so what should lie in it would be left "
                    "out. Get the data, remove the link, or leave its participant out with --participant-label."
                )
            else:
                yield Path(entry.path)
        pending += reversed(below)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one.

    Raises
    ------
    DatasetError
        If that cannot be told: it may be a participant's folder.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False  # a link to itself is a link to nowhere
        raise unlistable(entry.path, error) from None


def unlistable(folder: Path | str, error: OSError) -> DatasetError:
    """Say in words that a folder of the input cannot be listed."""
    return DatasetError(
        f"The folder {folder} cannot be listed ({error.strerror or error}), so what lies in it would be left out. Make "
        "it readable, or leave its participant out with --participant-label."
    )


def _cannot_open(path: Path, error: OSError | ValueError) -> UnreadableFileError:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            annexed = "annex" in str(path.readlink())
            how = " (datalad get or git annex get)" if annexed else ""
            return UnreadableFileError(
                f"{path} is a link to data that are not there, most likely not fetched. Get the file first{how}."
            )
        return UnreadableFileError(f"{path} does not exist. Correct the name, or provide the file.")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return UnreadableFileError(f"{path} is a link that leads in a circle. Put the file in its place.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadableFileError(f"{path} cannot be read ({reason}). Check the file and its permissions.")

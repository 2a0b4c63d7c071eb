"""Writing files so that a name only ever stands for a whole file, and never outside the output folder.

Everything goes to a temporary name in the same folder first, is brought to the disk, and is renamed: a process killed
at any moment, or several processes writing at once, leave no half-written file under a final name.

Between the output folder and a file no link is followed. A shared output folder is written to by others, and a link
that one of them puts in place of `logs/` would lead us elsewhere. The output folder itself may be a link: it is the
user's word.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.names import RUNS_SECTION, of_hemisphere, output_place
from sessionfx.errors import OutputError, ParticipantError, SessionFXError
from sessionfx.space.space import NO_INTENT, Intent, Space

TEMPORARY_PREFIX = ".sessionfx-"
_STALE_SECONDS = 3600.0
_LOCK = "records.lock"
_LOCK_SECONDS = 30.0
# A folder that may be entered but not listed can be written into
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# What concerns one folder or file, where others can still be written
_LOCAL_ERRORS = {
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY,
    errno.ENAMETOOLONG,
}  # fmt: skip
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # file systems that know no such thing


@dataclass(frozen=True)
class Written:
    """A file that is whole on the disk under a temporary name."""

    path: Path  # where it is to be
    temporary: str  # its name beside that
    state: dict[str, Any]  # what tells later whether it is still the same: its size, of a design also a digest


# What a block of `collected` has written so far
_collection: ContextVar[list[Written] | None] = ContextVar("collection", default=None)
# Locks of a file belong to a process: its threads take turns by themselves
_of_this_process = threading.Lock()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole.

    Parameters
    ----------
    path : Path
        In a folder of the output, which is made where it is missing.
    content : bytes

    Raises
    ------
    OutputError
        If the folder or the file cannot be written.
    ParticipantError
        If the cause is a folder or file of that participant alone.
    """
    written = Written(path, _write_temporary(path, content), state_of(path.name, content))
    collection = _collection.get()
    if collection is None:
        give_names([written])
    else:
        collection.append(written)


@contextmanager
def collected() -> Iterator[list[Written]]:
    """Let the files that are written in this block wait in a list for `give_names`; if it fails they are gone."""
    collection: list[Written] = []
    token = _collection.set(collection)
    try:
        yield collection
    except BaseException:
        discard(collection)
        raise
    finally:
        _collection.reset(token)


def state_of(name: str, content: bytes) -> dict[str, Any]:
    """Give what tells whether a file is still the same.

    Its size; where several contrasts or calls rewrite one file, a digest, or nothing where it only has to be there.
    """
    if name.endswith(RUNS_SECTION):
        return {}
    state: dict[str, Any] = {"size": len(content)}
    if is_shared(name):
        state["sha256"] = hashlib.sha256(content).hexdigest()
    return state


def is_shared(name: str) -> bool:
    """Whether the content of a file tells whether it is still the same."""
    return name.endswith(("_design.tsv", "_boldref.nii.gz", "_log.txt"))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as a whole file; what is no character (in names that are not UTF-8) is written as its code."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON as a whole file."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """Write JSON as all files have it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_map(
    path: Path,
    values: NDArray[np.floating | np.bool_],
    mask: NDArray[np.bool_],
    space: Space,
    *,
    outside: float = 0.0,
    dtype: type[np.floating | np.uint8] = np.float32,
    intent: Intent = NO_INTENT,
    names: tuple[str, ...] = (),
) -> None:
    """Write in-mask values as a file of the space's form, or one for each hemisphere.

    Parameters
    ----------
    path : Path
        Ends in the space's extension.
    values : ndarray of shape (V,), or (N, V) of N volumes
    mask : ndarray of bool, of the space's shape
        With V true features.
    space : Space
    outside : float, default=0
        Value of features outside the mask.
    dtype : type, default=float32
        Type of the file's numbers.
    intent : tuple of (str, tuple of float), default=("none", ())
        What the values are, by nibabel's name of the NIfTI intent code, and its parameters.
    names : tuple of str, default=()
        Of the N volumes.
    """
    for label, content in space.encoded(_filled(values, mask, outside, dtype), intent, names).items():
        write_bytes(of_hemisphere(path, label), content)


def map_image(
    values: NDArray[np.floating | np.bool_],
    mask: NDArray[np.bool_],
    space: Space,
    *,
    outside: float = 0.0,
    dtype: type[np.floating | np.uint8] = np.float32,
    names: tuple[str, ...] = (),
) -> Any:
    """Make in-mask values an image of their space; see `write_map` and `Space.image`."""
    return space.image(_filled(values, mask, outside, dtype), names=names)


def _filled(values: NDArray[Any], mask: NDArray[np.bool_], outside: float, dtype: type[np.generic]) -> NDArray[Any]:
    filled = np.full((*mask.shape, *values.shape[:-1]), outside, dtype=dtype)
    filled[mask] = values.T
    return filled


def remove(path: Path) -> bool:
    """Remove a file of the output folder, or a link in its place; return whether there was one.

    Raises
    ------
    OutputError, ParticipantError
        If it is there and cannot be removed; see `write_bytes`.
    """
    try:
        with _folder_of(path, make=False, done="removed") as folder:
            try:
                os.unlink(path.name, dir_fd=folder)
            except FileNotFoundError:
                raise
            except OSError as error:
                at_file = error.errno in (errno.EISDIR, errno.EBUSY)
                raise _unusable(path, path if at_file else path.parent, error, "removed") from None
    except FileNotFoundError:
        return False
    return True


def check_place(path: Path) -> None:
    """Refuse an output file of which a folder is a link or a file, before work is done for it.

    Raises
    ------
    OutputError, ParticipantError
        See `write_bytes`.
    """
    with contextlib.suppress(FileNotFoundError), _folder_of(path, make=False):
        pass


def list_outputs(folder: Path) -> list[Path]:
    """List a folder of the output in the order of names; nothing where there is none.

    Raises
    ------
    OutputError, ParticipantError
        If it cannot be listed; see `write_bytes`.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(folder / "*", folder, error, "listed") from None


def is_inside(path: Path, output_dir: Path) -> bool:
    """Whether there is a file under a name, reached through no folder that is a link and no link that leads out."""
    try:
        folder = output_dir
        for part in path.relative_to(output_dir).parts[:-1]:
            folder /= part
            if not stat.S_ISDIR(folder.lstat().st_mode):
                return False
        if not stat.S_ISLNK(mode := path.lstat().st_mode):
            return stat.S_ISREG(mode)
        return path.is_file() and not _leads_out(path, output_dir)
    except (OSError, ValueError):
        return False


def remove_stale_temporaries(folder: Path, *, below: bool = True) -> None:
    """Remove what killed processes left in a folder, by default also below it.

    It is an hour old at least, so that no living process loses a file.
    """
    limit = time.time() - _STALE_SECONDS
    with contextlib.suppress(OSError):  # a folder that is not there, or gone in the meantime
        for _, folders, files, descriptor in os.fwalk(folder):
            for name in files:
                # another process may be faster
                with contextlib.suppress(OSError):
                    if name.startswith(TEMPORARY_PREFIX) and _is_stale(name, descriptor, limit):
                        os.unlink(name, dir_fd=descriptor)
            if not below:
                folders.clear()


@contextmanager
def locked(output_dir: Path, name: str) -> Iterator[None]:
    """Hold the right to read a file and write it anew, which several calls may want at the same time.

    The lock ends with its process, however that ends. Who does not get it within half a minute (the holder sleeps, or
    the file system knows no locks) goes on without: reading and writing take milliseconds.
    """
    with _of_this_process, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, SessionFXError):  # the file itself will not be writable either, and says so
            path = output_dir / "logs" / _LOCK
            with _folder_of(path, make=True) as folder:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(path.name, flags, 0o666, dir_fd=folder)
            stack.callback(os.close, descriptor)
            _take_lock(descriptor, zlib.crc32(name.encode("utf-8", "backslashreplace")) >> 1)
        yield


def _take_lock(descriptor: int, place: int) -> None:
    """Lock one byte of the lock file: every name has its own."""
    end = time.monotonic() + _LOCK_SECONDS
    pause = 0.005
    while time.monotonic() < end:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        else:
            return


def _is_stale(name: str, folder: int, limit: float) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_mtime < limit


@contextmanager
def _folder_of(path: Path, *, make: bool, done: str = "written") -> Iterator[int]:
    """Open the folder of an output file, through no link below the output folder.

    Raises
    ------
    FileNotFoundError
        If it is not there and is not to be made.
    OutputError, ParticipantError
    """
    root, parts = output_place(path)
    where, descriptor = root, -1
    try:
        if make:
            root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, _FOLDER)
        for part in parts:
            try:
                below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):  # another process was faster
                    os.mkdir(part, dir_fd=descriptor)
                where /= part
                below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError:
                where /= part
                raise
            else:
                where /= part
            os.close(descriptor)
            descriptor = below
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        if isinstance(error, FileNotFoundError) and not make:
            raise
        raise _unusable(path, where, error, done) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_temporary(path: Path, content: bytes) -> str:
    """Write a file under a temporary name beside its own and return that name."""
    name = TEMPORARY_PREFIX + secrets.token_hex(8)
    with _folder_of(path, make=True) as folder:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o666, dir_fd=folder)  # less the umask: groups share outputs
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    _sync(stream.fileno())
            except BaseException:
                with contextlib.suppress(OSError):  # what went wrong first is what counts
                    os.unlink(name, dir_fd=folder)
                raise
        except OSError as error:
            raise _unusable(path, path.parent, error, "written") from None
    return name


def give_names(files: Sequence[Written]) -> None:
    """Rename files that are on the disk, and bring their folders to the disk.

    Raises
    ------
    OutputError, ParticipantError
        If one cannot be renamed; see `write_bytes`. Those after it are gone.
    """
    last_in = {file.path.parent: index for index, file in enumerate(files)}
    for index, file in enumerate(files):
        path = file.path
        try:
            with _folder_of(path, make=True) as folder:
                try:
                    if _leads_out(path, output_place(path)[0]):
                        raise OSError(errno.ELOOP, "it is a link")
                    os.rename(file.temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError as error:
                    at_file = error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ELOOP)
                    raise _unusable(path, path if at_file else path.parent, error, "written") from None
                if last_in[path.parent] == index:
                    _sync_folder(folder)
        except BaseException:
            discard(files[index:])
            raise


def discard(files: Sequence[Written]) -> None:
    """Remove files that have no name yet."""
    for file in files:
        with contextlib.suppress(OSError, SessionFXError), _folder_of(file.path, make=False) as folder:
            os.unlink(file.temporary, dir_fd=folder)


def _sync(descriptor: int) -> None:
    """Bring a file to the disk: without, the renaming may be there after a power failure and the content not."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: int) -> None:
    # Without it a crash of the machine may undo the renaming, which only means that work is done again
    with contextlib.suppress(OSError):
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _leads_out(path: Path, root: Path) -> bool:
    """Whether a name is a link to outside the output folder. Links within it are replaced, or read (git-annex's)."""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links in a circle
        return False


def _unusable(path: Path, where: Path, error: OSError, done: str) -> SessionFXError:
    """Say why a file cannot be written or removed: of one participant where the cause is of that one's alone."""
    root, _ = output_place(path)
    if where != root and where.is_symlink():
        text = (
            f"{where} is a link, and SessionFX follows none inside its output folder, where they could lead anywhere. "
            f"Put {'the file itself' if where == path else 'a folder'} in its place, or remove it."
        )
    elif error.errno == errno.EISDIR:
        text = f"{path} cannot be {done}: a folder is in its place. Move it away."
    else:
        reason = error.strerror or str(error)
        at = f"{where}: {reason}" if where not in (path, path.parent) else reason
        text = f"{path} cannot be {done} ({at}). Check space and permissions."
    own = where != root and any(part.startswith("sub-") for part in where.relative_to(root).parts)
    return ParticipantError(text) if own and error.errno in _LOCAL_ERRORS else OutputError(text)

"""Maps on disk, written map by map and read block of voxels by block.

The numbers of a block lie together, so that reading it is one read. Read and written as a file rather than mapped into
memory: pages of a mapping count as the process's own memory while they are there, so that a whole study would, and a
full disk would end the process instead of raising an error. Threads can write and read at the same time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.bids.writing import TEMPORARY_PREFIX
from sessionfx.errors import OutputError


class BlockStore:
    """N rows of W numbers in a file.

    Parameters
    ----------
    file : file
        Empty, open for reading and writing.
    folder : Path
        Where it is, for errors.
    n_rows, n_columns : int
        N and W.
    width : int
        Columns of a block; the last one has what is left.
    dtype : floating type, default=float64
        Of the numbers.
    start : int, default=0
        Where in the file they begin (bytes).
    """

    def __init__(
        self, file: IO[Any], folder: Path, n_rows: int, n_columns: int, width: int,
        dtype: type[np.floating] = np.float64, *, start: int = 0,
    ) -> None:  # fmt: skip
        self._file: IO[Any] | None = file
        self._path: Path | None = None
        self._number = 0
        self._width = width
        self._n_columns = n_columns
        self._folder = folder
        self._start = start
        self.n_rows = n_rows
        self.dtype = np.dtype(dtype)
        self.stop = start + n_rows * n_columns * self.dtype.itemsize

    @classmethod
    def of_columns(
        cls, file: IO[Any], folder: Path, parts: Iterable[NDArray[np.floating]], n_columns: int, width: int
    ) -> BlockStore:
        """Fill a file with arrays of shape (N, v) beside each other, never holding more than two blocks of either.

        Raises
        ------
        OutputError
            If the folder is full.
        """
        coming = iter(parts)
        left = next(coming)
        store = cls(file, folder, len(left), n_columns, width, dtype=left.dtype.type)
        check_room(folder, store.stop, "values to be resampled")
        for block in store.blocks:
            n_wanted, held = block.stop - block.start, [left]
            while sum(part.shape[1] for part in held) < n_wanted:
                held.append(next(coming))
            whole = np.concatenate(held, axis=1) if len(held) > 1 else left
            store._whole(os.pwrite, np.ascontiguousarray(whole[:, :n_wanted]), store._place(block, 0))
            left = whole[:, n_wanted:]
        return store

    @property
    def shape(self) -> tuple[int, int]:
        """N and W."""
        return self.n_rows, self._n_columns

    @property
    def blocks(self) -> list[slice]:
        """Blocks of columns."""
        starts = range(0, self._n_columns, self._width)
        return [slice(start, min(start + self._width, self._n_columns)) for start in starts]

    @property
    def is_shared(self) -> bool:
        """Whether other processes can read it."""
        return self._path is not None

    def share(self, path: Path | None = None) -> None:
        """Let other processes read it, by the path of the file if that is not the name under which it was opened."""
        assert self._file is not None  # noqa: S101 - where it was written
        self._path = Path(path or self._file.name).absolute()
        self._number = os.fstat(self._file.fileno()).st_ino
        with contextlib.suppress(OSError):  # not every file system knows it
            os.fsync(self._file.fileno())

    def __getstate__(self) -> dict[str, Any]:
        """Go to other processes as the name of the file, and what tells it from another one."""
        assert self._path is not None  # noqa: S101 - only what is shared is sent
        with contextlib.suppress(OSError):
            os.utime(self._path)  # a file that is in use is not left over
        return {**self.__dict__, "_file": None}

    @contextmanager
    def _descriptor(self) -> Iterator[int]:
        if self._file is not None:
            yield self._file.fileno()
            return
        assert self._path is not None  # noqa: S101 - see `__getstate__`
        with self._path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_ino != self._number:
                raise OSError(0, f"{self._path.name} was replaced by another call")
            yield file.fileno()

    def write(self, row: int, values: NDArray[np.floating]) -> None:
        """Write rows that follow each other: many small pieces would take longer than what is in them.

        Parameters
        ----------
        row : int
            The first one.
        values : ndarray of shape (n, W)

        Raises
        ------
        OutputError
            If the folder is full.
        """
        content = np.ascontiguousarray(values, dtype=self.dtype)
        for block in self.blocks:
            self._whole(os.pwrite, np.ascontiguousarray(content[:, block]), self._place(block, row))

    def read(self, block: slice) -> NDArray[np.floating]:
        """Read a block, of shape (N, w)."""
        found = np.empty((self.n_rows, block.stop - block.start), dtype=self.dtype)
        self._whole(lambda file, left, place: os.preadv(file, [left], place), found, self._place(block, 0))
        return found

    def _place(self, block: slice, row: int) -> int:
        n_before = self.n_rows * block.start + row * (block.stop - block.start)
        return int(self._start + self.dtype.itemsize * n_before)

    def _whole(self, transfer: Callable[[int, Any, int], int], content: NDArray[np.floating], place: int) -> None:
        """Write or read until nothing is left: the system may do a part only."""
        left = content.reshape(-1).view(np.uint8).data
        try:
            with self._descriptor() as descriptor:
                while left:
                    done = transfer(descriptor, left, place)
                    if not done:
                        raise OSError(0, "it was cut off")
                    left, place = left[done:], place + done
        except OSError as error:
            raise unusable(self._folder, error) from None


@dataclass(frozen=True)
class StoredBlock:
    """Where a block is, for who is to compute with it; as an array it is read."""

    store: BlockStore
    block: slice
    # columns, rows: which of its columns, and of the store's rows, it has; all where it is None
    columns: NDArray[np.bool_] | None
    rows: NDArray[np.bool_] | None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        """Read it."""
        values = self.store.read(self.block)
        if self.rows is not None:
            values = values[self.rows]
        if self.columns is not None:
            values = values[:, self.columns]
        return np.ascontiguousarray(values, dtype=dtype)


@contextmanager
def scratch_file(folder: Path, *, is_shared: bool = False) -> Iterator[IO[Any]]:
    """Open a file without a name, which is gone with the process however that ends.

    Where others are to read it, it has a name until it is closed, and what a killed process left is removed later.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    make = partial(tempfile.NamedTemporaryFile, prefix=TEMPORARY_PREFIX) if is_shared else tempfile.TemporaryFile
    try:
        file = make(dir=folder, buffering=0)
    except OSError as error:
        raise unusable(folder, error) from None
    with _closed(file):
        yield file


@contextmanager
def _closed(file: IO[Any]) -> Iterator[None]:
    """Close a file at the end; nobody reads it again, and what the system could not write of it does no harm."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.close()


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse to fill a folder that has no room for so many bytes.

    Raises
    ------
    OutputError
        If there is less.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unusable(folder, error) from None
    if n_bytes > free:
        raise OutputError(
            f"{folder} has {_gigabytes(free)} free, and {what} need {_gigabytes(n_bytes)} there while the group level "
            "works. Free some, or choose another folder with --work-dir."
        )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB"


def unusable(folder: Path, error: OSError) -> OutputError:
    """Say that a folder cannot be used."""
    return OutputError(
        f"{folder} cannot hold the maps of the group level ({error.strerror or error}). Check space and permissions, "
        "or choose another folder with --work-dir."
    )

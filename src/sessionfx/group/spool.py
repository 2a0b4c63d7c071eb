"""An array on disk, written row by row and read by columns.

Read and written as a file rather than mapped into memory: pages of a mapping count as the process's own memory while
they are there, so that a whole study would, and a full disk would end the process instead of raising an error.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import OutputError


class Spool:
    """Rows of W numbers in a file.

    Parameters
    ----------
    file : io.FileIO
        Empty, open for reading and writing, without a buffer: what could not be written is not tried again on closing.
    folder : Path
        Where it is, for errors.
    """

    def __init__(self, file: Any, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._shape = (0, 0)

    def append(self, row: NDArray[np.floating]) -> None:
        """Add a row; all have the same length W.

        Raises
        ------
        OutputError
            If the folder is full.
        """
        content = np.ascontiguousarray(row, dtype=np.float64)
        left = content.view(np.uint8).data
        try:
            self._file.seek(0, 2)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _unusable(self._folder, error) from None
        self._shape = (self._shape[0] + 1, content.size)

    def read(self, columns: NDArray[np.int_]) -> NDArray[np.float64]:
        """Read some columns of all rows.

        Parameters
        ----------
        columns : ndarray of shape (v,)
            Ascending.

        Returns
        -------
        ndarray of shape (N, v)
        """
        n_rows, n_columns = self._shape
        found = np.empty((n_rows, columns.size))
        if not columns.size:
            return found
        first, size = int(columns[0]), np.dtype(np.float64).itemsize
        stretch = np.empty(int(columns[-1]) - first + 1)
        for row in range(n_rows):
            self._file.seek((row * n_columns + first) * size)
            left = stretch.view(np.uint8).data
            while left:
                left = left[self._file.readinto(left) :]
            found[row] = stretch[columns - first]
        return found


@contextmanager
def open_spool(folder: Path) -> Iterator[Spool]:
    """Keep rows in a file without a name, which is gone with the process however that ends.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - opening alone is tried
    except OSError as error:
        raise _unusable(folder, error) from None
    with file:
        yield Spool(file, folder)


def _unusable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot hold the maps of the group level ({error.strerror}). Check space and permissions, or choose "
        "another folder with --work-dir."
    )

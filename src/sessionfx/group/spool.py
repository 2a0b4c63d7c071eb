"""Answers on disk, brought back one at a time: memory does not grow with their number.

A map of an answer looks like any other `StatMap`; what it holds is read when it is asked for, and the last few stay.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.store import unusable
from sessionfx.space.space import Space
from sessionfx.space.stat_map import R, StatMap

# The answers of all strategies to one question are looked at together
_HELD = 6


class Spool:
    """Values in a file that nobody else can see.

    Parameters
    ----------
    file : file
        Empty, without a name; see `scratch_file`.
    folder : Path
        Where it is, for errors.
    """

    def __init__(self, file: IO[Any], folder: Path) -> None:
        self._file = file
        self.folder = folder
        self._stop = 0
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, value: Any) -> Callable[[], Any]:
        """Put a value away, and give what reads it back.

        Raises
        ------
        OutputError
            If the folder is full.
        """
        content = memoryview(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
        with self._lock:
            start = self._stop
            self._stop += len(content)
        try:
            left, place = content, start
            while left:
                done = os.pwrite(self._file.fileno(), left, place)
                left, place = left[done:], place + done
        except OSError as error:
            raise unusable(self.folder, error) from None
        return partial(self._read, start, len(content))

    def keep_map(self, stat_map: StatMap[R]) -> StatMap[R]:
        """Put a map away, with its z; see `keep`."""
        stat_map.estimate.z  # noqa: B018 - is kept with it
        # the space, with its meshes, is that of all maps
        return _KeptMap(partial(self._recent, self.keep((stat_map.estimate, stat_map.mask))), stat_map.space)

    def _read(self, start: int, size: int) -> Any:
        content = bytearray(size)
        left, place = memoryview(content), start
        while left:
            done = os.preadv(self._file.fileno(), [left], place)
            if not done:
                raise unusable(self.folder, OSError(0, "it was cut off"))
            left, place = left[done:], place + done
        return pickle.loads(content)  # noqa: S301 - written by this process, into a file without a name

    def _recent(self, read: Callable[[], Any]) -> Any:
        """Read a value, unless it is one of the last."""
        with self._lock:
            value = self._held.pop(id(read), None)
        if value is None:
            value = read()
        with self._lock:
            self._held[id(read)] = value
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return value


class _KeptMap(StatMap[R]):
    """A map that is read when it is asked for."""

    _read: Callable[[], tuple[R, NDArray[np.bool_]]]

    def __init__(self, read: Callable[[], tuple[R, NDArray[np.bool_]]], space: Space) -> None:
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "space", space)

    @property
    def estimate(self) -> R:
        """See `StatMap`."""
        return self._read()[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """See `StatMap`."""
        return self._read()[1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to other processes as an ordinary map."""
        return StatMap, (self.estimate, self.mask, self.space)

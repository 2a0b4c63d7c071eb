"""Maps of a contrast that are kept from call to call, in the folder of `--work-dir`.

One file holds what was read of all maps of a contrast. It gets its name when it is whole, and takes the place of the
one before it: calls at the same time see one or the other, and who has opened one keeps it. At its end it says which
maps it was made from; where those are not the ones wanted, it is not used.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sessionfx import __version__
from sessionfx.bids.first_level_maps import FirstLevelMap
from sessionfx.bids.stat_maps import sidecar_path
from sessionfx.bids.writing import TEMPORARY_PREFIX, remove_stale_temporaries
from sessionfx.group.store import unusable
from sessionfx.tasks.records import file_state, fingerprint, fingerprint_of_items

_MARK = b"SessionFX maps 2"


@dataclass(frozen=True)
class KeptFile:
    """Where the maps of a contrast are kept."""

    path: Path
    made_from: str  # fingerprint of the maps and of how they are read

    @classmethod
    def of(cls, maps: Sequence[FirstLevelMap], folder: Path, *reading: object) -> KeptFile:
        """Name the file of these maps, read in a way; a successor has the same name."""
        roots = sorted({str(source.root) for source in maps})
        contrasts = sorted({source.contrast for source in maps})
        kinds = {key: value for key, value in maps[0].entities.items() if key not in {"sub", "ses", "contrast"}}
        name = f"sessionfx_contrast-{maps[0].contrast}_{fingerprint([roots, contrasts, kinds])[:12]}.maps"
        states = (
            [source.key, *map(file_state, (*source.files, sidecar_path(source.effect_files[0])))] for source in maps
        )
        return cls(folder / name, fingerprint([__version__, fingerprint_of_items(states), *reading]))

    @contextmanager
    def opened(self) -> Iterator[tuple[IO[Any], dict[str, Any]] | None]:
        """Open the file for reading, with what it says of itself; None where it is not there or of other maps."""
        with contextlib.ExitStack() as stack:
            found = None
            # a file that is damaged or another's is as good as none
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if self.path.is_file():
                    file = stack.enter_context(self.path.open("rb", buffering=0))
                    about = _read_about(file)
                    found = (file, about) if about["made_from"] == self.made_from else None
            yield found

    @contextmanager
    def written(self) -> Iterator[tuple[IO[Any], _Finish]]:
        """Open a new file, with a function that completes it by what it says of itself, and names it.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        folder = self.path.parent
        remove_stale_temporaries(folder, below=False)
        try:
            # delete: also where it is not completed
            file = tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX, buffering=0, delete=False)  # noqa: SIM115
        except OSError as error:
            raise unusable(folder, error) from None
        try:
            yield file, _Finish(self, file)
        finally:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()
            with contextlib.suppress(OSError):
                file.close()


@dataclass(frozen=True)
class _Finish:
    """Completes a new file, which then takes the place of the one before it."""

    kept: KeptFile
    file: IO[Any]

    def __call__(self, about: Mapping[str, Any]) -> None:
        """Write what the file says of itself behind what is in it.

        Raises
        ------
        OutputError
            If the folder is full.
        """
        text = json.dumps({**about, "made_from": self.kept.made_from}).encode()
        try:
            self.file.seek(0, os.SEEK_END)
            for part in (text, len(text).to_bytes(8, "little"), _MARK):
                left = memoryview(part)
                while left:
                    left = left[self.file.write(left) :]
            os.fsync(self.file.fileno())
            Path(self.file.name).replace(self.kept.path)
        except OSError as error:
            raise unusable(self.kept.path.parent, error) from None


def _read_about(file: IO[Any]) -> dict[str, Any]:
    """Read what a file says of itself; ValueError where it says nothing."""
    n_tail = len(_MARK) + 8
    size = file.seek(-n_tail, os.SEEK_END)
    tail = file.read(n_tail)
    n_text = int.from_bytes(tail[:8], "little")
    if tail[8:] != _MARK or n_text > size:
        raise ValueError
    file.seek(size - n_text)
    about = json.loads(file.read(n_text))
    if about["size"] != size - n_text:
        raise ValueError
    return dict(about)


def packed(values: NDArray[Any]) -> dict[str, Any]:
    """Write an array of whole numbers as JSON, by runs of equal ones."""
    flat = values.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    return {"shape": list(values.shape), "starts": starts.tolist(), "values": flat[starts].tolist()}


def unpacked(content: Mapping[str, Any]) -> NDArray[np.int_]:
    """Read what `packed` wrote."""
    n = int(np.prod(content["shape"]))
    lengths = np.diff(np.array(content["starts"]), append=n)
    return np.repeat(np.array(content["values"], dtype=int), lengths).reshape(content["shape"])

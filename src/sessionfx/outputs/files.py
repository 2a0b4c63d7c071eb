"""Writing files so that a name only ever stands for a whole file.

Everything goes to a temporary name in the same folder first and is renamed: a process killed at any moment, or
several processes writing at once, leave no half-written file under a final name.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from sessionfx.errors import OutputError
from sessionfx.inputs.images import Grid

# Asking means setting it for a moment, which other threads would notice: asked once, when the program starts.
_UMASK = os.umask(0)
os.umask(_UMASK)
_TEMPORARY_PREFIX = ".sessionfx-"
_STALE_SECONDS = 3600.0


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole.

    Raises
    ------
    OutputError
        If the folder or the file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o666 & ~_UMASK)  # mkstemp makes private files; groups share outputs
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}). Check space and permissions."
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as a whole file; bytes of file names that are no text are shown as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON as a whole file."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_map(
    path: Path,
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    grid: Grid,
    *,
    outside: float = 0.0,
    dtype: type[np.floating] = np.float32,
) -> None:
    """Write in-mask values as a NIfTI image.

    Parameters
    ----------
    path : Path
        Ends in .nii.gz.
    values : ndarray of shape (V,)
    mask : ndarray of bool, 3-D
        With V true voxels.
    grid : Grid
    outside : float, default=0
        Value of voxels outside the mask.
    dtype : floating type, default=float32
        Type of the file's voxels.
    """
    import nibabel as nib

    volume = np.full(grid.shape, outside, dtype=dtype)
    volume[mask] = values
    image = nib.Nifti1Image(volume, grid.affine)
    image.header.set_xyzt_units("mm")
    # No file name and no time in the gzip header, and the level at which ISA-L gives the same bytes every time (those
    # above do not): equal maps are equal files.
    write_bytes(path, igzip.compress(image.to_bytes(), compresslevel=0, mtime=0))


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what killed processes left behind, an hour old at least so that no living process loses a file."""
    limit = time.time() - _STALE_SECONDS
    for path in folder.rglob(f"{_TEMPORARY_PREFIX}*"):
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except OSError:
            continue  # another process was faster

"""Maps on disk, as the group level keeps them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.spool import Spool


def spooled(rows: NDArray[np.float64]) -> Spool:
    """Keep an array of shape (N, W) in a file that is gone when nobody uses it."""
    spool = Spool(tempfile.TemporaryFile(buffering=0), Path(tempfile.gettempdir()))  # noqa: SIM115 - the spool holds it
    for row in rows:
        spool.append(row)
    return spool

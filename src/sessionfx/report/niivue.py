"""Where niivue comes from, which draws volumes in the browser: the copy in nilearn's wheel."""

from __future__ import annotations

import base64
import zlib
from functools import cache
from importlib.resources import files


def niivue_script() -> bytes:
    """Read niivue, as one script that defines `niivue`."""
    return files("nilearn").joinpath("_assets", "js", "niivue.umd.js").read_bytes()


@cache
def packed_niivue() -> str:
    """Pack it for a page: zlib, then base64."""
    return base64.b64encode(zlib.compress(niivue_script(), 9)).decode("ascii")

"""What pages take from nilearn's wheel: niivue, which draws volumes in the browser, and the MNI152 template.

They are read as files: the functions of nilearn that know where the template lies need a second to be imported.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from functools import cache
from importlib.resources import files

import numpy as np
from nibabel import Nifti1Image
from numpy.typing import NDArray


def niivue_script() -> bytes:
    """Read niivue, as one script that defines `niivue`."""
    return files("nilearn").joinpath("_assets", "js", "niivue.umd.js").read_bytes()


@cache
def packed_niivue() -> str:
    """Pack it for a page: zlib, then base64."""
    return base64.b64encode(zlib.compress(niivue_script(), 9)).decode("ascii")


def mni_template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read the MNI152 template: values (3-D) and affine."""
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    packed = files("nilearn").joinpath("datasets", "data", name).read_bytes()
    image = Nifti1Image.from_bytes(gzip.decompress(packed))
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)

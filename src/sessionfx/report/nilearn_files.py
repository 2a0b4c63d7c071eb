"""What pages take from nilearn's wheel: niivue, which draws volumes in the browser, the MNI152 template, fsaverage5.

They are read as files: the functions of nilearn that know where they lie need a second to be imported.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.gifti.gifti import GiftiImage
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


def fsaverage5_arrays(name: str) -> list[NDArray[Any]]:
    """Read a file of fsaverage5, such as `infl_left`: of a mesh coordinates (mm) and triangles, else values."""
    packed = files("nilearn").joinpath("datasets", "data", "fsaverage5", f"{name}.gii.gz").read_bytes()
    return [array.data for array in GiftiImage.from_bytes(gzip.decompress(packed)).darrays]

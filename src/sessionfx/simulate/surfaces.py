"""The files of simulated surfaces: GIFTI, one for each hemisphere, or CIFTI."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.cifti2.cifti2_axes import LabelAxis, SeriesAxis
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData
from numpy.typing import NDArray

from sessionfx.bids.names import file_name
from sessionfx.simulate.cortex import ENTITIES, Cortex, make_meshes
from sessionfx.simulate.head import ATLAS
from sessionfx.space.space import NO_INTENT
from sessionfx.space.surface import HEMISPHERES, Surface

# Of intensities around 1000: files of so round numbers are half as large
STEP_OF_INTENSITIES = 1 / 8
MESHES = {"midthickness": ("white", "pial"), "inflated": ("inflated",)}


def series_files(cortex: Cortex, data: NDArray[Any], repetition_time: float) -> dict[str, bytes]:
    """Return files of a series of shape (T, V) by the ends of their names; the medial wall of GIFTI has no number."""
    rounded = np.rint(data / STEP_OF_INTENSITIES) * STEP_OF_INTENSITIES
    stored = np.where(cortex.has_data, rounded, np.nan).astype(np.float32)
    if isinstance(cortex.space, Surface):
        encoded = cortex.space.encoded(stored.T, ("time series", ()))
        return {_name(cortex, "bold", ".func.gii", hemi=hemisphere): file for hemisphere, file in encoded.items()}
    image = Cifti2Image(stored, (SeriesAxis(0, repetition_time, len(stored)), cortex.space.axis))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
    return {_name(cortex, "bold", ".dtseries.nii"): image.to_bytes()}


def map_files(cortex: Cortex, values: NDArray[Any], suffix: str, **entities: str) -> dict[str, bytes]:
    """Return files of a map of shape (V,) by the ends of their names."""
    encoded = cortex.space.encoded(values, NO_INTENT, (suffix,))
    return {
        _name(cortex, suffix, cortex.space.extension, hemi=hemisphere, **entities): file
        for hemisphere, file in encoded.items()
    }


def _name(cortex: Cortex, suffix: str, extension: str, **entities: str) -> str:
    return file_name({**ENTITIES[cortex.name], **entities}, suffix, extension)


def atlas_files(cortex: Cortex) -> dict[str, bytes]:
    """Return files of the regions of `ATLAS`, with their names and colours, by the ends of their names."""
    hues = np.linspace(0, 1, len(ATLAS), endpoint=False)
    colours = [(0.0, 0.0, 0.0, 0.0), *((*colorsys.hsv_to_rgb(hue, 0.6, 0.9), 1.0) for hue in hues)]
    names = ["???", *ATLAS]  # as FreeSurfer and Workbench call what is no region
    if not isinstance(cortex.space, Surface):
        table = dict(enumerate(zip(names, colours, strict=True)))
        axes = (LabelAxis(["simulated"], [table]), cortex.space.axis)
        image = Cifti2Image(cortex.labels[None].astype(np.float32), axes)
        image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS")
        return {_name(cortex, "dseg", ".dlabel.nii", atlas="simulated"): image.to_bytes()}
    labels = GiftiLabelTable()
    for key, (name, colour) in enumerate(zip(names, colours, strict=True)):
        labels.labels.append(GiftiLabel(key, *colour))
        labels.labels[-1].label = name
    files = {}
    for hemisphere, side in HEMISPHERES.items():
        own = cortex.labels[cortex.space.part(hemisphere)]
        array = GiftiDataArray(own, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
        name = _name(cortex, "dseg", ".label.gii", atlas="simulated", hemi=hemisphere)
        files[name] = GiftiImage(meta=_structure(side), labeltable=labels, darrays=[array]).to_bytes()
    return files


def mesh_files() -> dict[str, bytes]:
    """Return the meshes of the small fsLR as GIFTI files, by their names; everybody has fsaverage5's."""
    files = {}
    for kind, parts in MESHES.items():
        for hemisphere, mesh in make_meshes("fsLR", *parts).items():
            arrays = [
                GiftiDataArray(mesh.coordinates.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
                GiftiDataArray(mesh.triangles.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
            ]
            image = GiftiImage(meta=_structure(HEMISPHERES[hemisphere]), darrays=arrays)
            files[file_name({**ENTITIES["fsLR"], "hemi": hemisphere}, kind, ".surf.gii")] = image.to_bytes()
    return files


def _structure(side: str) -> GiftiMetaData:
    """Return what tells Workbench the hemisphere."""
    return GiftiMetaData(AnatomicalStructurePrimary=f"Cortex{side.capitalize()}")

"""Surfaces given in memory or as files of hemispheres, as the files and meshes that the program reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage
from nilearn.surface import PolyMesh, SurfaceImage
from numpy.typing import NDArray

from sessionfx.bids.meshes import MeshFiles, find_meshes, read_meshes
from sessionfx.bids.names import GIFTI, entities_of, files_of, name_of_both, of_hemisphere
from sessionfx.errors import CommandLineError
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES

PathLike: TypeAlias = str | os.PathLike[str]
# GIFTI of one hemisphere, L or R (or left or right), or both
Hemispheres: TypeAlias = Mapping[str, GiftiImage | PathLike]
# The surface of each hemisphere
MeshLike: TypeAlias = PolyMesh | Mapping[str, PathLike]

_LABELS = {side: label for label, side in HEMISPHERES.items()}


def gifti_files(image: Any, folder: Path, name: str) -> tuple[Path, ...]:
    """Give the files of the hemispheres of a series, the left first; none where it is no surface.

    Raises
    ------
    CommandLineError
        If it does not say which hemisphere is which.
    """
    parts = hemispheres(image, name)
    return tuple(_of_one(part, label, folder, name, "bold.func.gii") for label, part in parts.items())


def gifti_map(image: Any, folder: Path, name: str) -> Path | None:
    """Name the files of the hemispheres of a map as one; None where it is no surface; see `gifti_files`."""
    parts = hemispheres(image, name)
    files = tuple(_of_one(part, label, folder, name, "statmap.gii") for label, part in parts.items())
    if len(files) < 2:
        return next(iter(files), None)
    both = name_of_both(files[0])
    if files_of(both) == files:
        return both
    both = folder / _named(name, "statmap.gii")
    for file, path in zip(files, files_of(both), strict=True):
        if file != path:
            _link(file, path)
    return both


def hemispheres(image: Any, name: str) -> dict[str, Any]:
    """Give the hemispheres of a surface, the left first; empty where it is none.

    Raises
    ------
    CommandLineError
        If it is of one hemisphere and does not say that this is meant, or does not say which is which.
    """
    if isinstance(image, SurfaceImage):
        return {_LABELS[side]: np.asarray(part) for side, part in image.data.parts.items()}
    if isinstance(image, GiftiImage):
        raise _one_alone(name)
    if isinstance(image, str | os.PathLike):
        return _both(Path(image)) if str(image).endswith(GIFTI) else {}
    if isinstance(image, Sequence):
        named = {label: path for path in map(Path, image) if (label := entities_of(path).get("hemi")) in HEMISPHERES}
        if len(named) != len(image) or not named:
            raise CommandLineError(
                f"{name}: the names of the files do not say of which hemisphere each is, with hemi-L and hemi-R. Give "
                "them as {'L': left, 'R': right}."
            )
        return {label: named[label] for label in HEMISPHERES if label in named}
    if isinstance(image, Mapping):
        parts = {_LABELS.get(key, key): part for key, part in image.items()}
        if not parts or not parts.keys() <= HEMISPHERES.keys():
            raise CommandLineError(f"{name} has {_listed(image)}; hemispheres are called L and R, or left and right.")
        return {label: parts[label] for label in HEMISPHERES if label in parts}
    return {}


def _both(path: Path) -> dict[str, Path]:
    """Give the files of both hemispheres, named as one."""
    files = files_of(path)
    if len(files) == 1 or not all(file.exists() for file in files):
        raise _one_alone(str(path))
    return dict(zip(HEMISPHERES, files, strict=True))


def _one_alone(name: str) -> CommandLineError:
    return CommandLineError(
        f"{name} is not of both hemispheres. Give both, {{'L': left, 'R': right}}; {{'L': left}} analyses the left one "
        "alone."
    )


def _of_one(part: Any, label: str, folder: Path, name: str, ending: str) -> Path:
    """Give the file of a hemisphere under a name that says which."""
    path = of_hemisphere(folder / _named(name, ending), label)
    if isinstance(part, str | os.PathLike):
        given = Path(part)
        is_named = given.name.endswith(f".{ending.partition('.')[2]}") and entities_of(given).get("hemi") == label
        return given if is_named else _link(given, path)
    if isinstance(part, GiftiImage):
        nib.save(part, path)
        return path
    if not isinstance(part, np.ndarray):
        raise CommandLineError(f"{name} is of type {type(part).__name__}, expected a GIFTI image or the path of one.")
    kept = part if part.dtype in (np.float32, np.float64) else part.astype(np.float64)
    array = GiftiDataArray(kept, encoding="GIFTI_ENCODING_B64BIN", datatype=kept.dtype)
    return _written([array], path)


def _written(arrays: list[GiftiDataArray], path: Path) -> Path:
    """Write arrays with all digits: nibabel reads double precision, which GIFTI has not, and writes it if forced."""
    path.write_bytes(GiftiImage(darrays=arrays).to_xml(mode="force"))
    return path


def _link(given: Path, path: Path) -> Path:
    """Give a file another name."""
    if not given.is_file():
        raise CommandLineError(f"There is no file {given}. Correct the path.")
    path.symlink_to(given.absolute())
    return path


def _named(name: str, ending: str) -> str:
    """Name a file so that the entity of a hemisphere can be added."""
    return f"of-{name.replace('_', '')}_{ending}"


def _listed(given: Mapping[str, Any]) -> str:
    return " and ".join(map(repr, given)) or "no hemisphere"


def meshes_of(image: Any, mesh: MeshLike | None = None) -> Mapping[str, Mesh]:
    """Give the meshes of an image: those that are given, its own, or those that are found by the name of its space.

    Raises
    ------
    SessionFXError
        If a file cannot be read.
    """
    if mesh is None and isinstance(image, SurfaceImage):
        mesh = image.mesh
    if isinstance(mesh, PolyMesh):
        return {
            _LABELS[side]: Mesh(np.asarray(part.coordinates, dtype=np.float64), np.asarray(part.faces))
            for side, part in mesh.parts.items()
        }
    if mesh is not None:
        return read_meshes({label: (Path(path),) for label, path in hemispheres(mesh, "mesh").items()})
    file = image if isinstance(image, str | os.PathLike) else next(iter(hemispheres(image, "image").values()), None)
    if not isinstance(file, str | os.PathLike):
        return {}
    return read_meshes(find_meshes({key: entities_of(Path(file)).get(key) for key in ("space", "den")}, []))


def mesh_files(meshes: Mapping[str, Mesh], folder: Path) -> MeshFiles:
    """Give the files of meshes; those in memory are written."""
    files = {}
    for label, mesh in meshes.items():
        path = folder / f"hemi-{label}_midthickness.surf.gii"
        if not mesh.sources:
            of: dict[str, NDArray[Any]] = {
                "pointset": mesh.coordinates, "triangle": mesh.triangles.astype(np.int32),
            }  # fmt: skip
            arrays = [GiftiDataArray(array, intent=intent, datatype=array.dtype) for intent, array in of.items()]
            _written(arrays, path)
        files[label] = mesh.sources or (path,)
    return files

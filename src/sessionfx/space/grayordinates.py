"""Grayordinates: vertices of the cortex and voxels below it, as the brain-model axis of a CIFTI file lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sessionfx.space.grid import Grid
from sessionfx.space.mesh import Mesh, check_meshes, neighbours
from sessionfx.space.space import NO_INTENT, Intent, Space, Structure
from sessionfx.space.structured import Structured

if TYPE_CHECKING:
    from nibabel.cifti2.cifti2 import Cifti2Image
    from nibabel.cifti2.cifti2_axes import BrainModelAxis
    from scipy.sparse import csr_array

_MATRIX = b'<CIFTI Version="2.0"><Matrix>%b</Matrix></CIFTI>'
_HEMISPHERES = {"CIFTI_STRUCTURE_CORTEX_LEFT": "L", "CIFTI_STRUCTURE_CORTEX_RIGHT": "R"}


@dataclass(frozen=True)
class Grayordinates(Structured):
    """Grayordinates, of which the axis of the file they came from says where they lie."""

    axis: BrainModelAxis
    # of all vertices of hemispheres, where they are known; equal grayordinates may have others
    meshes: Mapping[str, Mesh] = field(default_factory=dict, compare=False, repr=False)
    # `models`, of those that were read; nibabel takes half a second to write them anew
    known_models: bytes = field(default=b"", compare=False, repr=False)

    feature: ClassVar[str] = "grayordinate"
    features: ClassVar[str] = "grayordinates"
    kind: ClassVar[str] = "grayordinates"
    extension: ClassVar[str] = ".dscalar.nii"
    counted: ClassVar[tuple[str, str]] = ("Grayordinates", "FittedGrayordinates")
    size_unit: ClassVar[str] = "mm² on the cortex, mm³ below it"
    place_keys: ClassVar[tuple[str, ...]] = ("structure", "vertex", "x", "y", "z")

    @cached_property
    def models(self) -> bytes:
        """The axis in the XML of CIFTI files, as their second one."""
        return self.known_models or self.axis.to_mapping(1).to_xml()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Go to other processes as XML, a tenth of the arrays, which these parse once."""
        return _with_meshes, (self.models, self.meshes)

    @property
    def shape(self) -> tuple[int]:
        """All grayordinates."""
        return (len(self.axis),)

    def __str__(self) -> str:
        return f"{len(self.axis)} grayordinates of {len(list(self.axis.iter_structures()))} structures"

    def same_as(self, other: Space) -> bool:
        """Whether both list the same vertices and voxels."""
        # files of a study that are read one after the other share their axis, of which a comparison takes long
        return isinstance(other, Grayordinates) and (self.axis is other.axis or bool(self.axis == other.axis))

    def difference_from(self, other: Space) -> str:
        """Say in words in what they differ from another space; empty where they do not."""
        if self.same_as(other):
            return ""
        if str(self) == str(other):
            return "their brain models list other vertices, voxels or structures"
        return f"{self} and {other}"

    @property
    def hemispheres(self) -> Mapping[str, int]:
        """The vertices of each hemisphere, the medial wall's too; of another surface by its structure."""
        return {_HEMISPHERES.get(name, name): int(n_vertices) for name, n_vertices in self.axis.nvertices.items()}

    @cached_property
    def is_on_surface(self) -> NDArray[np.bool_]:
        """Which are vertices."""
        return np.isin(self.axis.name, list(self.axis.nvertices))  # nibabel's own mask asks for each by itself

    def with_meshes(self, meshes: Mapping[str, Mesh]) -> Grayordinates:
        """Give the grayordinates with meshes; see `check_meshes`."""
        return replace(self, meshes=check_meshes(meshes, self.hemispheres, str(self)))

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """Hemispheres, and structures of voxels, in the order of the axis."""
        axis, found = self.axis, []
        for name in dict.fromkeys(axis.name):
            places, label = np.flatnonzero(axis.name == name), _HEMISPHERES.get(name, name)
            if name in axis.nvertices:
                found.append(Structure(label, places, axis.vertex[places]))
            else:
                sizes = np.sqrt((axis.affine[:3, :3] ** 2).sum(axis=0))
                found.append(Structure(label, places, axis.voxel[places], sizes))
        return tuple(found)

    def at_vertices(self, hemisphere: str) -> NDArray[np.intp]:
        """Give the feature at each vertex of a hemisphere, by its place on the axis; -1 where there is none."""
        features = np.full(self.hemispheres[hemisphere], -1)
        for structure in self.structures:
            if structure.name == hemisphere:
                features[structure.numbers] = structure.places
        return features

    def at_voxels(self) -> tuple[NDArray[np.intp], Grid]:
        """Give the feature at each voxel of the grid, by its place on the axis; -1 where there is none."""
        places = np.flatnonzero(~self.is_on_surface)
        features = np.full(self.axis.volume_shape or (1, 1, 1), -1)
        features[tuple(self.axis.voxel[places].T)] = places
        return features, Grid(features.shape, np.eye(4) if self.axis.affine is None else self.axis.affine)

    @property
    def voxel_grid(self) -> Grid | None:
        """Grid of the voxels."""
        return None if self.axis.affine is None else Grid(self.axis.volume_shape, self.axis.affine)

    @cached_property
    def adjacency(self) -> csr_array | None:
        """Vertices with an edge in common, and voxels of one structure with a face in common; None without a mesh.

        As in Workbench, whose clusters end where a structure ends.
        """
        if not self.has_meshes:
            return None
        pairs = [
            structure.places[_faces(structure.numbers) if structure.voxel_size is not None else self._edges(structure)]
            for structure in self.structures
        ]
        return neighbours(np.vstack(pairs), len(self.axis))

    def _edges(self, structure: Structure) -> NDArray[np.intp]:
        """Find the vertices of a hemisphere that are features and have an edge in common, of shape (N, 2)."""
        own = self.meshes[structure.name].adjacency[structure.numbers][:, structure.numbers]
        return np.column_stack(own.tocoo().coords)

    @cached_property
    def sizes(self) -> NDArray[np.float64] | None:
        """Areas of vertices (mm²), volumes of voxels (mm³); None without a mesh."""
        if not self.has_meshes:
            return None
        sizes = np.empty(len(self.axis))
        for structure in self.structures:
            sizes[structure.places] = (
                self.meshes[structure.name].areas[structure.numbers]
                if structure.voxel_size is None
                else abs(np.linalg.det(self.axis.affine[:3, :3]))
            )
        return sizes

    def place(self, index: int) -> dict[str, Any]:
        """Give the `structure`, and the number of a vertex, from 0, or the coordinates of a voxel (mm)."""
        model, where, structure = self.axis[index]
        start = {"structure": structure.removeprefix("CIFTI_STRUCTURE_")}
        if model == "CIFTI_MODEL_TYPE_SURFACE":
            return {**start, "vertex": int(where)}
        x, y, z = (float(row[:3] @ where + row[3]) for row in self.axis.affine[:3])
        return {**start, "x": x, "y": y, "z": z}

    def index_of(self, place: Mapping[str, Any]) -> int:
        """Find a vertex by its structure and number, a voxel by its coordinates."""
        numbers, features = self._in_order[f"CIFTI_STRUCTURE_{place['structure']}"]
        if "vertex" in place:
            number = place["vertex"]
        else:
            voxel = self._to_voxels @ (place["x"], place["y"], place["z"], 1.0)
            number = np.ravel_multi_index(tuple(np.rint(voxel[:3]).astype(int)), self.axis.volume_shape)
        return int(features[np.searchsorted(numbers, number)])

    @cached_property
    def _in_order(self) -> dict[str, tuple[NDArray[np.integer], NDArray[np.intp]]]:
        """The vertices, or voxels of the flattened grid, of each structure in their order, and which features they are.

        In a map are thousands of clusters, whose peaks would each be compared with all features.
        """
        found = {}
        for name in dict.fromkeys(self.axis.name):
            features = np.flatnonzero(self.axis.name == name)
            numbers = (
                self.axis.vertex[features] if name in self.axis.nvertices
                else np.ravel_multi_index(tuple(self.axis.voxel[features].T), self.axis.volume_shape)
            )  # fmt: skip
            order = np.argsort(numbers, kind="stable")
            found[str(name)] = (numbers[order], features[order])
        return found

    @cached_property
    def _to_voxels(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.axis.affine))

    def image(self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()) -> Cifti2Image:
        """Make a CIFTI image of scalars."""
        from nibabel.cifti2.cifti2 import Cifti2Image

        return Cifti2Image.from_bytes(self.encoded(values, intent, names)[""])

    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make a CIFTI file of scalars; what they are is told by their names alone."""
        from nibabel.cifti2.cifti2_axes import ScalarAxis
        from nibabel.cifti2.parse_cifti2 import Cifti2Extension
        from nibabel.nifti2 import Nifti2Header, Nifti2Image

        rows = values.T.reshape(1, 1, 1, 1, -1, len(self.axis))
        scalars = ScalarAxis(names or [""] * rows.shape[4]).to_mapping(0).to_xml()
        header = Nifti2Header()
        header.set_data_dtype(rows.dtype)
        header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
        header.extensions.append(Cifti2Extension.from_bytes(_MATRIX % (scalars + self.models)))
        return {"": Nifti2Image(rows, None, header).to_bytes()}


@lru_cache(maxsize=4)
def grayordinates_of(models: bytes) -> Grayordinates:
    """Parse the brain models of a CIFTI file, once where all files have the same.

    Parameters
    ----------
    models : bytes
        See `Grayordinates.models`.

    Raises
    ------
    ValueError, LookupError
        If they make no sense.

    Notes
    -----
    nibabel gives the same axis in twice the time: it calls functions for each number.
    """
    from nibabel.cifti2.cifti2_axes import BrainModelAxis

    try:
        root = ElementTree.fromstring(models)  # noqa: S314 - expat, which is also nibabel's, guards against bombs
    except ElementTree.ParseError as error:
        raise ValueError(f"brain models: {error}") from None
    if root.attrib["AppliesToMatrixDimension"] != "1":
        raise ValueError("the brain models are not of the columns")
    parts = root.findall("BrainModel")
    n = sum(int(part.attrib["IndexCount"]) for part in parts)
    names, voxels, vertices = np.full(n, "", dtype="U64"), np.full((n, 3), -1), np.full(n, -1)
    n_vertices: dict[str, int] = {}
    for part in parts:
        start, count = int(part.attrib["IndexOffset"]), int(part.attrib["IndexCount"])
        arrays, of_one = {"CIFTI_MODEL_TYPE_SURFACE": (vertices, ()), "CIFTI_MODEL_TYPE_VOXELS": (voxels, (3,))}[
            part.attrib["ModelType"]
        ]
        name = part.attrib["BrainStructure"]
        names[start : start + count] = name
        arrays[start : start + count] = np.array("".join(part.itertext()).split(), dtype=int).reshape(count, *of_one)
        if not of_one:
            n_vertices[name] = int(part.attrib["SurfaceNumberOfVertices"])
    volume = root.find("Volume")
    affine = shape = None
    if volume is not None:
        shape = tuple(map(int, volume.attrib["VolumeDimensions"].split(",")))
        affine = np.array("".join(volume.itertext()).split(), dtype=float).reshape(4, 4)
    return Grayordinates(BrainModelAxis(names, voxels, vertices, affine, shape, n_vertices), known_models=models)


def _with_meshes(models: bytes, meshes: Mapping[str, Mesh]) -> Grayordinates:
    return replace(grayordinates_of(models), meshes=meshes)


def _faces(voxels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Find the voxels of v, of shape (v, 3), that have a face in common, of shape (N, 2)."""
    box = np.full(np.ptp(voxels, axis=0) + 1, -1)
    box[tuple((voxels - voxels.min(axis=0)).T)] = np.arange(len(voxels))
    pairs = [
        np.stack([along[:-1].ravel(), along[1:].ravel()], axis=1)
        for along in (np.moveaxis(box, axis, 0) for axis in range(3))
    ]
    found = np.vstack(pairs)
    return found[(found >= 0).all(axis=1)]

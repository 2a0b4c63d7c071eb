"""Surfaces: the vertices of one or both hemispheres, one after another, and the meshes they may lie on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError
from sessionfx.space.mesh import Mesh, check_meshes
from sessionfx.space.space import NO_INTENT, Intent, Space, Structure
from sessionfx.space.structured import Structured

if TYPE_CHECKING:
    from nilearn.surface import SurfaceImage
    from scipy.sparse import csr_array

HEMISPHERES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class Surface(Structured):
    """The vertices of hemispheres, as parts of one axis."""

    name: str  # label of the space: fsaverage5, fsnative, …
    vertices: Mapping[str, int]  # how many there are by hemisphere, L or R, in the order of the axis
    # by hemisphere, where they are known; equal surfaces may have others
    meshes: Mapping[str, Mesh] = field(default_factory=dict, compare=False, repr=False)

    voxel_grid: ClassVar[None] = None
    feature: ClassVar[str] = "vertex"
    features: ClassVar[str] = "vertices"
    kind: ClassVar[str] = "surface"
    extension: ClassVar[str] = ".gii"
    # GIFTI has no double precision
    most_precise: ClassVar[type[np.floating]] = np.float32
    counted: ClassVar[tuple[str, str]] = ("Vertices", "FittedVertices")
    size_unit: ClassVar[str] = "mm²"
    place_keys: ClassVar[tuple[str, ...]] = ("hemisphere", "vertex")

    @property
    def shape(self) -> tuple[int]:
        """All vertices."""
        return (sum(self.vertices.values()),)

    def __str__(self) -> str:
        return f"{self.name}, {' and '.join(f'{n} vertices of hemi-{label}' for label, n in self.vertices.items())}"

    def same_as(self, other: Space) -> bool:
        """Whether both have the same vertices."""
        return self == other

    def difference_from(self, other: Space) -> str:
        """Say in words in what the surface differs from another space; empty where it does not."""
        return "" if self.same_as(other) else f"{self} and {other}"

    @property
    def hemispheres(self) -> Mapping[str, int]:
        """The vertices of each hemisphere."""
        return self.vertices

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The hemispheres."""
        return tuple(
            Structure(label, np.arange(n_vertices) + self.part(label).start, np.arange(n_vertices))
            for label, n_vertices in self.vertices.items()
        )

    @property
    def is_on_surface(self) -> NDArray[np.bool_]:
        """Every feature is."""
        return np.ones(self.shape, dtype=bool)

    def with_meshes(self, meshes: Mapping[str, Mesh]) -> Surface:
        """Give the surface with meshes; see `check_meshes`."""
        return replace(self, meshes=check_meshes(meshes, self.vertices, str(self)))

    @cached_property
    def adjacency(self) -> csr_array | None:
        """Vertices with an edge in common; None without a mesh."""
        from scipy.sparse import block_diag

        if not self.has_meshes:
            return None
        return block_diag([self.meshes[label].adjacency for label in self.vertices], format="csr")

    @cached_property
    def sizes(self) -> NDArray[np.float64] | None:
        """Areas of the vertices (mm²); None without a mesh."""
        return np.concatenate([self.meshes[label].areas for label in self.vertices]) if self.has_meshes else None

    def part(self, hemisphere: str) -> slice:
        """Give the place of a hemisphere on the axis."""
        start = 0
        for label, n_vertices in self.vertices.items():
            if label == hemisphere:
                return slice(start, start + n_vertices)
            start += n_vertices
        raise KeyError(hemisphere)

    def at_vertices(self, hemisphere: str) -> NDArray[np.intp]:
        """Give the feature at each vertex of a hemisphere, by its place on the axis."""
        return np.arange(self.shape[0])[self.part(hemisphere)]

    def place(self, index: int) -> dict[str, Any]:
        """Give the `hemisphere` of a vertex, and its number there, from 0."""
        label = next(label for label in self.vertices if index < self.part(label).stop)
        return {"hemisphere": label, "vertex": index - self.part(label).start}

    def index_of(self, place: Mapping[str, Any]) -> int:
        """Find a vertex by its hemisphere and number."""
        return int(self.part(place["hemisphere"]).start + place["vertex"])

    def image(self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()) -> SurfaceImage:
        """Make an image of nilearn, which has the mesh of each hemisphere."""
        del intent, names  # which these images do not hold
        from nilearn.surface import InMemoryMesh, PolyData, PolyMesh, SurfaceImage

        if not self.has_meshes:
            raise ParticipantError(
                f"Images of {self} hold the mesh of each hemisphere, and none is known. Give it as mesh, with the data."
            )
        meshes, data = {}, {}
        for label in self.vertices:
            own = self.meshes[label]
            meshes[HEMISPHERES[label]] = InMemoryMesh(own.coordinates, own.triangles)
            data[HEMISPHERES[label]] = values[self.part(label)]
        return SurfaceImage(PolyMesh(**meshes), PolyData(**data))

    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make a GIFTI file of each hemisphere, with an array for each map."""
        from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

        files = {}
        for label in self.vertices:
            own = values[self.part(label)]
            arrays = [
                GiftiDataArray(array, intent=intent[0], datatype=array.dtype, meta={"Name": name} if name else {})
                for array, name in zip(np.atleast_2d(own.T), names or [""] * len(np.atleast_2d(own.T)), strict=True)
            ]
            structure = f"Cortex{HEMISPHERES[label].capitalize()}"  # by which Workbench knows the hemisphere
            image = GiftiImage(meta=GiftiMetaData(AnatomicalStructurePrimary=structure), darrays=arrays)
            files[label] = image.to_bytes()
        return files

"""A voxel grid: shape and position of an image, equality and difference in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from sessionfx.space.space import NO_INTENT, Intent, Space

if TYPE_CHECKING:
    from nibabel import Nifti1Image

    from sessionfx.space.mesh import Mesh

# Affines of one participant's files differ by rounding only
AFFINE_TOLERANCE = 1e-3  # mm


@dataclass(frozen=True)
class Grid(Space):
    """Shape and position of an image: voxels (i, j, k) lie at affine @ (i, j, k, 1) mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    feature: ClassVar[str] = "voxel"
    features: ClassVar[str] = "voxels"
    kind: ClassVar[str] = "volume"
    extension: ClassVar[str] = ".nii.gz"
    counted: ClassVar[tuple[str, str]] = ("BrainMaskVoxels", "FittedVoxels")
    size_unit: ClassVar[str] = "mm³"
    place_keys: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    meshes: ClassVar[Mapping[str, Mesh]] = {}
    hemispheres: ClassVar[Mapping[str, int]] = {}
    structures: ClassVar[tuple[()]] = ()
    adjacency: ClassVar[None] = None
    edge_lengths: ClassVar[None] = None

    def same_as(self, other: Space) -> bool:
        """Whether voxels of the two grids lie on each other."""
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and np.allclose(self.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE)
        )

    def __str__(self) -> str:
        size = "×".join(f"{width:.4g}" for width in self._voxel_sizes)
        return f"{'×'.join(map(str, self.shape))} voxels of {size} mm"

    @property
    def _voxel_sizes(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    def as_grid(self) -> Grid:
        """Give the grid itself."""
        return self

    def with_meshes(self, meshes: Mapping[str, Mesh]) -> Grid:
        """Give the grid itself."""
        del meshes
        return self

    @property
    def is_on_surface(self) -> NDArray[np.bool_]:
        """No feature is."""
        return np.zeros(np.prod(self.shape), dtype=bool)

    @property
    def sizes(self) -> NDArray[np.float64]:
        """The volume of a voxel (mm³) for each."""
        return np.full(np.prod(self.shape), abs(np.linalg.det(self.affine[:3, :3])))

    def place(self, index: int) -> dict[str, Any]:
        """Give the coordinates `x`, `y` and `z` (mm) of a voxel."""
        voxel = np.unravel_index(index, self.shape)
        # what is 0 but for rounding is 0
        coordinates = np.round(self.affine[:3, :3] @ voxel + self.affine[:3, 3], 4) + 0.0
        return {axis: float(coordinate) for axis, coordinate in zip("xyz", coordinates, strict=True)}

    def index_of(self, place: Mapping[str, Any]) -> int:
        """Find the voxel at a place, or nearest to it."""
        voxel = np.linalg.inv(self.affine) @ (place["x"], place["y"], place["z"], 1.0)
        return int(np.ravel_multi_index(tuple(np.rint(voxel[:3]).astype(np.intp)), self.shape))

    def misfit_of(self, own: Space) -> str:
        """Say that labels of surfaces cannot be put on voxels; those of any grid can."""
        return "" if isinstance(own, Grid) else "its labels are of vertices"

    def labels_from(self, labels: NDArray[np.int_], own: Space) -> NDArray[np.int_]:
        """Give the label of the nearest voxel at the middle of each voxel; 0 beyond the other image."""
        if self.same_as(own):
            return labels
        found = np.zeros(self.shape, dtype=labels.dtype)
        to_own = np.linalg.inv(own.as_grid().affine) @ self.affine
        plane = np.stack(np.meshgrid(*map(np.arange, self.shape[1:]), indexing="ij"), axis=-1).reshape(-1, 2)
        for i in range(self.shape[0]):
            voxels = np.rint(apply_affine(to_own, np.column_stack([np.full(len(plane), i), plane]))).astype(int)
            inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
            found[i].reshape(-1)[inside] = labels[tuple(voxels[inside].T)]
        return found

    def placed_text(self, labels: NDArray[np.int_], own: Space) -> str:
        """Count the voxels that have labels on either grid."""
        if self.same_as(own):
            return ""
        return (
            f", put from {own} on {self} by the nearest voxel: {int((labels != 0).sum()):,} voxels of regions there, "
            f"{int((self.labels_from(labels, own) != 0).sum()):,} here"
        )

    def nearest_label(self, labels: NDArray[np.int_], place: Mapping[str, Any], within: float) -> tuple[int, bool]:
        """Look for a label in steps of 1 mm about x, y and z; see `Space.nearest_label`."""
        steps = np.arange(-within, within + 1)
        around = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        distance = np.linalg.norm(around, axis=1)
        # the place itself first
        order = np.argsort(distance, kind="stable")[: int((distance <= within).sum())]
        places = np.array([place[axis] for axis in "xyz"]) + around[order]
        voxels = np.rint(apply_affine(np.linalg.inv(self.affine), places)).astype(int)
        inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
        found = np.zeros(len(voxels), dtype=int)
        found[inside] = labels[tuple(voxels[inside].T)]
        there = np.flatnonzero(found)
        return (int(found[there[0]]), there[0] == 0) if there.size else (0, False)

    def image(self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()) -> Nifti1Image:
        """Make an array of its shape, or of N volumes along a further axis, a NIfTI image."""
        del names  # which it does not hold
        import nibabel as nib

        image = nib.Nifti1Image(values, self.affine)
        image.header.set_xyzt_units("mm")
        image.header.set_intent(*intent)
        return image

    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make a compressed NIfTI file, which holds no names."""
        from isal import igzip

        # No file name and no time in the gzip header, and the level at which ISA-L gives the same bytes every time
        # (those above do not): equal maps are equal files.
        return {"": igzip.compress(self.image(values, intent).to_bytes(), compresslevel=0, mtime=0)}

    def difference_from(self, other: Space) -> str:
        """Say in words in what the grid differs from another; empty where it does not."""
        if self.same_as(other):
            return ""
        if not isinstance(other, Grid):
            return f"{self} and {other}"
        if self.shape != other.shape:
            return f"{'×'.join(map(str, self.shape))} and {'×'.join(map(str, other.shape))} voxels"
        own, others = self._voxel_sizes, other._voxel_sizes
        if not np.allclose(own, others, rtol=0, atol=AFFINE_TOLERANCE):
            return f"voxels of {_numbers(own, '×')} and {_numbers(others, '×')} mm"
        cosines = ((self.affine[:3, :3] / own) * (other.affine[:3, :3] / others)).sum(axis=0)
        flipped = [axis for axis, cosine in zip("ijk", cosines, strict=True) if cosine < -1 + 1e-6]
        turned = [axis for axis, cosine in zip("ijk", cosines, strict=True) if abs(cosine) <= 1 - 1e-6]
        moved = self.affine[:3, 3] - other.affine[:3, 3]
        parts = [f"the {' and '.join(flipped)} axis runs the other way"] if flipped else []
        if turned:
            angle = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
            parts.append(f"the {' and '.join(turned)} axis is turned by {angle:.3g}°")
        if not np.allclose(moved, 0, rtol=0, atol=AFFINE_TOLERANCE):
            parts.append(
                f"the first voxel lies at ({_numbers(self.affine[:3, 3])}) and ({_numbers(other.affine[:3, 3])}) mm"
            )
        return "; ".join(parts) or "the affine matrices differ by more than rounding"


def _numbers(values: NDArray[np.float64], separator: str = ", ") -> str:
    return separator.join(f"{value:.6g}" for value in values)

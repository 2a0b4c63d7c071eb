"""Grayordinates: vertices of the cortex and voxels below it, as the brain-model axis of a CIFTI file lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from sessionfx.space.space import NO_INTENT, Intent, Space

if TYPE_CHECKING:
    from nibabel.cifti2.cifti2_axes import BrainModelAxis


@dataclass(frozen=True)
class Grayordinates(Space):
    """Grayordinates, of which the axis of the file they came from says where they lie.

    Attributes
    ----------
    axis : BrainModelAxis
    """

    axis: BrainModelAxis

    features: ClassVar[str] = "grayordinates"
    extension: ClassVar[str] = ".dscalar.nii"
    counted: ClassVar[tuple[str, str]] = ("Grayordinates", "FittedGrayordinates")

    @property
    def shape(self) -> tuple[int]:
        """All grayordinates."""
        return (len(self.axis),)

    def __str__(self) -> str:
        return f"{len(self.axis)} grayordinates of {len(list(self.axis.iter_structures()))} structures"

    def same_as(self, other: Space) -> bool:
        """Whether both list the same vertices and voxels."""
        return isinstance(other, Grayordinates) and bool(self.axis == other.axis)

    def difference_from(self, other: Space) -> str:
        """Say in words in what they differ from another space; empty where they do not."""
        if self.same_as(other):
            return ""
        if str(self) == str(other):
            return "their brain models list other vertices, voxels or structures"
        return f"{self} and {other}"

    def place(self, index: int) -> dict[str, Any]:
        """Give the `structure`, and the number of a vertex, from 0, or the coordinates of a voxel (mm)."""
        model, where, structure = self.axis[index]
        start = {"structure": structure.removeprefix("CIFTI_STRUCTURE_")}
        if model == "CIFTI_MODEL_TYPE_SURFACE":
            return {**start, "vertex": int(where)}
        x, y, z = (float(row[:3] @ where + row[3]) for row in self.axis.affine[:3])
        return {**start, "x": x, "y": y, "z": z}

    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make a CIFTI file of scalars; what they are is told by their names alone."""
        from nibabel.cifti2.cifti2 import Cifti2Image
        from nibabel.cifti2.cifti2_axes import ScalarAxis

        rows = values.T.reshape(-1, len(self.axis))
        image = Cifti2Image(rows, (ScalarAxis(names or [""] * len(rows)), self.axis))
        image.set_data_dtype(rows.dtype)
        image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
        return {"": image.to_bytes()}

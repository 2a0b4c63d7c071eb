"""What all spaces have in common, of which statistics see an axis of features only.

Vocabulary
----------
feature
    Where a value lives: a voxel, a vertex of a surface, a grayordinate. Arrays and masks have the shape of their space;
    a mask of V features makes an axis of V.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sessionfx.errors import ParticipantError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sessionfx.space.grid import Grid
    from sessionfx.space.mesh import Mesh


@dataclass(frozen=True)
class Structure:
    """A hemisphere, or a structure of voxels below the cortex, on the axis of features."""

    name: str  # of a hemisphere L or R
    places: NDArray[np.intp]  # (v,): of its v features in the flattened array
    numbers: NDArray[np.integer]  # (v,) or (v, 3): which vertices of the mesh, or voxels of the grid, these are
    voxel_size: NDArray[np.float64] | None = None  # (3,): in mm; None of vertices


# What values are, by nibabel's name of the NIfTI intent code, and its parameters
Intent = tuple[str, tuple[float, ...]]
NO_INTENT: Intent = ("none", ())
_VOXELS = re.compile(r"\b[Vv]oxels?\b")


class Space(ABC):
    """Where features live."""

    # feature, features: what they are called, one and several
    feature: ClassVar[str]
    features: ClassVar[str]
    kind: ClassVar[str]  # what a page calls the space, before its label
    extension: ClassVar[str]  # of files of maps
    most_precise: ClassVar[type[np.floating]] = np.float64  # the most precise numbers that these hold
    # fields of a run's JSON file: how many features there are (in a voxel grid those of the brain mask), and how many
    # were fitted
    counted: ClassVar[tuple[str, str]]
    size_unit: ClassVar[str]  # of `sizes`, in words
    place_keys: ClassVar[tuple[str, ...]]  # what `place` can give

    if TYPE_CHECKING:  # a dataclass would take it for the default of its field

        @property
        def shape(self) -> tuple[int, ...]:
            """Shape of its arrays."""

        @property
        def meshes(self) -> Mapping[str, Mesh]:
            """Of hemispheres, L or R, where they are known."""

    @classmethod
    def in_words(cls, text: str) -> str:
        """Say of these features what a text says of voxels."""

        def named(found: re.Match[str]) -> str:
            name = cls.features if found[0].endswith("s") else cls.feature
            return name.capitalize() if found[0][0].isupper() else name

        return _VOXELS.sub(named, text)

    @abstractmethod
    def same_as(self, other: Space) -> bool:
        """Whether features of the two spaces lie on each other."""

    @abstractmethod
    def difference_from(self, other: Space) -> str:
        """Say in words in what the space differs from another; empty where it does not."""

    @abstractmethod
    def place(self, index: int) -> dict[str, Any]:
        """Say where a feature lies, by its place in the flattened array: coordinates (mm), or part and number."""

    @abstractmethod
    def index_of(self, place: Mapping[str, Any]) -> int:
        """Find a feature by its `place`; in a voxel grid the one nearest to it."""

    @abstractmethod
    def image(self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()) -> Any:
        """Make a map an image in memory, of nibabel, or of nilearn where it is of surfaces; see `encoded`.

        Raises
        ------
        ParticipantError
            If it needs the mesh of each hemisphere, and one is not known.
        """

    @abstractmethod
    def encoded(
        self, values: NDArray[Any], intent: Intent = NO_INTENT, names: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """Make files of a map.

        Parameters
        ----------
        values : ndarray of shape (*shape,), or (*shape, N) of N maps
        intent : tuple of (str, tuple of float)
        names : tuple of str
            Of the N maps, for files that hold names.

        Returns
        -------
        dict of str to bytes
            By hemisphere, L or R, where each has a file of its own; else by the empty text.
        """

    @abstractmethod
    def misfit_of(self, own: Space) -> str:
        """Say why labels of another space cannot be put on this one; empty where they can."""

    @abstractmethod
    def labels_from(self, labels: NDArray[np.int_], own: Space) -> NDArray[np.int_]:
        """Give the label of each feature, of this space's shape, from those of another one that fits.

        0 is no label.
        """

    @abstractmethod
    def placed_text(self, labels: NDArray[np.int_], own: Space) -> str:
        """Say what labels of another space become on this one, after their number; empty where they stay."""

    @abstractmethod
    def nearest_label(self, labels: NDArray[np.int_], place: Mapping[str, Any], within: float) -> tuple[int, bool]:
        """Give the label at a place, or the nearest one; and whether it is that of the place itself.

        Parameters
        ----------
        labels : ndarray of int, of the space's shape
        place : mapping
            See `place`; in a voxel grid any coordinates.
        within : float
            How far to look (mm).

        Returns
        -------
        (int, bool)
            Label 0 where there is none.
        """

    @property
    @abstractmethod
    def hemispheres(self) -> Mapping[str, int]:
        """How many vertices the surface of each hemisphere, L or R, has, with those that are no features."""

    @property
    @abstractmethod
    def structures(self) -> tuple[Structure, ...]:
        """What the axis of features is made of; nothing is said of a voxel grid."""

    @property
    @abstractmethod
    def is_on_surface(self) -> NDArray[np.bool_]:
        """Which features of the flattened array are vertices, of shape (n,); the others are voxels."""

    @property
    @abstractmethod
    def adjacency(self) -> csr_array | None:
        """Which features of the flattened array are neighbours: bool, symmetric, (n, n), without the diagonal.

        None where there is no mesh, and of voxel grids, whose clusters are found without it.
        """

    @property
    @abstractmethod
    def edge_lengths(self) -> csr_array | None:
        """Distances (mm) between those that `adjacency` has, of shape (n, n); None where that is."""

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.float64] | None:
        """Area (mm²) of vertices and volume (mm³) of voxels, of shape (n,); None where there is no mesh."""

    @property
    def has_meshes(self) -> bool:
        """Whether the mesh of each hemisphere is known."""
        return self.hemispheres.keys() <= self.meshes.keys()

    @abstractmethod
    def with_meshes(self, meshes: Mapping[str, Mesh]) -> Space:
        """Give the space with the meshes of hemispheres.

        Raises
        ------
        ParticipantError
            If a mesh has more or fewer vertices than the hemisphere.
        """

    def as_grid(self) -> Grid:
        """Give the voxel grid for what needs one.

        Raises
        ------
        ParticipantError
            If it is none.
        """
        raise ParticipantError(f"{self} is no voxel grid, which this needs. Provide volumes.")

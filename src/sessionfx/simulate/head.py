"""The head that all simulated participants share, and the regions in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Centre and radii of an ellipsoid in mm, MNI axes (RAS)
Ball = tuple[tuple[float, float, float], tuple[float, float, float]]
BOUNDING_BOX = ((-72.0, 72.0), (-108.0, 76.0), (-72.0, 84.0))
BRAIN = ((0.0, -16.0, 6.0), (66.0, 84.0, 70.0))
VENTRICLE = ((0.0, -20.0, 16.0), (14.0, 30.0, 14.0))
WHITE_MATTER = (((-26.0, -14.0, 24.0), (13.0, 36.0, 16.0)), ((26.0, -14.0, 24.0), (13.0, 36.0, 16.0)))
# Far enough apart that 8 mm of smoothing does not carry one region's effect into another.
REGIONS: dict[str, Ball] = {
    "meanEffect": ((0.0, 18.0, 36.0), (20.0, 20.0, 20.0)),
    "sessionChange": ((-34.0, -48.0, 36.0), (20.0, 20.0, 20.0)),
    "taskOnly": ((0.0, -84.0, 2.0), (22.0, 22.0, 22.0)),
}

# Of the atlas: those regions by names for people, and others that nothing happens in
ATLAS: dict[str, Ball] = {
    "Dorsomedial frontal": REGIONS["meanEffect"],
    "Left parietal": REGIONS["sessionChange"],
    "Occipital": REGIONS["taskOnly"],
    "Right parietal": ((34.0, -48.0, 36.0), (20.0, 20.0, 20.0)),
    "Left frontal": ((-34.0, 24.0, 8.0), (14.0, 18.0, 18.0)),
    "Right frontal": ((34.0, 24.0, 8.0), (14.0, 18.0, 18.0)),
    "Left temporal": ((-44.0, -18.0, -14.0), (14.0, 24.0, 14.0)),
    "Right temporal": ((44.0, -18.0, -14.0), (14.0, 24.0, 14.0)),
}

# Distance from the brain's centre where its surface is 1. Below CORE every session's mask contains the voxel;
# masks differ between sessions only within EDGE of the surface; the scalp ends at HEAD.
CORE, EDGE, HEAD = 0.9, 0.06, 1.12
BASELINE_INTENSITY = 1000.0


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Where there is signal; V voxels, vertices or both."""

    coordinates: NDArray[Any]  # (V, 3), mm
    baseline: NDArray[Any]  # (V,), intensity without task, drift, motion and noise
    regions: dict[str, NDArray[Any]]  # (V,), true inside each of `REGIONS`


@dataclass(frozen=True, kw_only=True)
class Anatomy(Tissue):
    """The head on the grid of the images; V voxels have signal, in C order."""

    affine: NDArray[Any]  # (4, 4), voxel indices to mm, RAS
    head: NDArray[Any]  # (X, Y, Z), true at the V voxels
    depth: NDArray[Any]  # (V,), distance from the brain's centre; 1 is its surface
    csf: NDArray[Any]  # (V,), true in tissue that no region overlaps
    white_matter: NDArray[Any]

    def to_volume(self, values: NDArray[Any]) -> NDArray[Any]:
        """Put values of shape (V, ...) into an array of shape (X, Y, Z, ...), zero outside the head."""
        volume = np.zeros((*self.head.shape, *values.shape[1:]), dtype=values.dtype)
        volume[self.head] = values
        return volume


def make_anatomy(voxel_size: float) -> Anatomy:
    """Return the head on a grid of cubic voxels with edge `voxel_size` (mm)."""
    axes = [np.arange(low, high + voxel_size / 100, voxel_size) for low, high in BOUNDING_BOX]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = [low for low, _ in BOUNDING_BOX]

    head = distance(grid, *BRAIN) <= HEAD
    coordinates = grid[head]
    depth = distance(coordinates, *BRAIN)
    regions = {name: (distance(coordinates, *ball) <= 1) & (depth < CORE) for name, ball in REGIONS.items()}
    outside_regions = ~np.any(list(regions.values()), axis=0)
    csf = distance(coordinates, *VENTRICLE) <= 1
    white_matter = np.any([distance(coordinates, *half) <= 1 for half in WHITE_MATTER], axis=0)
    contrast = (
        texture(coordinates) + 0.25 * csf - 0.06 * white_matter - 0.45 * np.clip((depth - CORE) / (HEAD - CORE), 0, 1)
    )
    return Anatomy(
        affine=affine,
        head=head,
        coordinates=coordinates,
        depth=depth,
        baseline=BASELINE_INTENSITY * (1 + contrast),
        regions=regions,
        csf=csf & outside_regions,
        white_matter=white_matter & ~csf & outside_regions,
    )


def texture(coordinates: NDArray[Any]) -> NDArray[Any]:
    """Return how intensities vary smoothly over the head, shape (V,), as a share of the baseline."""
    x, y, z = coordinates.T
    return np.asarray(0.08 * np.cos(x / 11) * np.cos(y / 13) + 0.06 * np.cos(z / 12 + x / 40))


def atlas_labels(anatomy: Anatomy) -> NDArray[Any]:
    """Return the region of `ATLAS` at each voxel, shape (V,): its number from 1 on, 0 where there is none."""
    labels = np.zeros(len(anatomy.depth), dtype=np.int16)
    for index, ball in enumerate(ATLAS.values(), start=1):
        labels[(distance(anatomy.coordinates, *ball) <= 1) & (anatomy.depth < CORE) & (labels == 0)] = index
    return labels


def distance(coordinates: NDArray[Any], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[Any]:
    """Return the distance from an ellipsoid's centre in units of its radii; 1 is the surface."""
    return np.asarray(np.linalg.norm((coordinates - np.array(centre)) / np.array(radii), axis=-1))


def make_session_mask(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[Any]:
    """Return one session's brain mask, shape (V,): a few voxels at the brain's edge come or go."""
    mask = anatomy.depth <= 1
    edge = np.flatnonzero(np.abs(anatomy.depth - 1) < EDGE)
    flipped = rng.choice(edge, size=min(6, len(edge)), replace=False)
    mask[flipped] = ~mask[flipped]
    return mask

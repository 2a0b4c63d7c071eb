"""First-level maps on surfaces for the group level: GIFTI pairs and dense scalars on small spheres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from nilearn.surface import SurfaceImage

from sessionfx.bids.names import of_hemisphere
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface
from surfaces import brain_models, write_surface


def sphere(n_steps: int = 2, *, radius: float = 20.0) -> Mesh:
    """An icosahedron whose triangles are divided so often, blown up to a sphere: 12, 42, 162, … vertices."""
    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a, b in product((-1, 1), repeat=2)]
    vertices = [np.roll(corner, turn) for turn in range(3) for corner in corners]
    points = np.array(vertices, dtype=float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.isclose(distance, 2.0)
    triangles = [
        (a, b, c)
        for a in range(12) for b in range(a + 1, 12) for c in range(b + 1, 12)
        if near[a, b] and near[b, c] and near[a, c]
    ]  # fmt: skip
    for _ in range(n_steps):
        middles: dict[tuple[int, int], int] = {}
        found = list(points)

        def middle(a: int, b: int, middles: dict[tuple[int, int], int] = middles, found: list = found) -> int:
            key = (min(a, b), max(a, b))
            if key not in middles:
                middles[key] = len(found)
                found.append((found[a] + found[b]) / 2)
            return middles[key]

        finer = []
        for a, b, c in triangles:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        points, triangles = np.array(found), finer
    return Mesh(radius * points / np.linalg.norm(points, axis=1, keepdims=True), np.array(triangles))


MESHES = {"L": sphere(2, radius=20.0), "R": sphere(2, radius=25.0)}
N_VERTICES = {label: len(mesh.coordinates) for label, mesh in MESHES.items()}
WALL = 10  # the first vertices of each hemisphere have no data
SURFACE = Surface("sphere", N_VERTICES, MESHES)


def grayordinates() -> Grayordinates:
    """Both spheres without their walls, and a block of voxels."""
    return Grayordinates(brain_models(N_VERTICES, wall=WALL, block=(3, 3, 3)), MESHES)


SPACES: dict[str, Space] = {"surface": SURFACE, "grayordinates": grayordinates()}


def write_meshes(root: Path) -> None:
    """Put the meshes where they are found."""
    for label, mesh in MESHES.items():
        write_surface(root / f"hemi-{label}_space-sphere_midthickness.surf.gii", mesh)


@dataclass
class SurfaceGroup:
    """Maps of participants and sessions with effects at some features; the wall of a surface is empty."""

    root: Path
    space: Space
    n_participants: int = 8
    sessions: tuple[str, ...] = ("1", "2")
    seed: int = 0
    effects: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    variances: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def maps(self) -> Path:
        """Folder of the maps."""
        return self.root / "maps"

    @property
    def raw(self) -> Path:
        """The raw dataset."""
        return self.root / "raw"

    @property
    def keys(self) -> Iterator[tuple[str, str]]:
        """Participants and sessions."""
        return product((f"{number:02d}" for number in range(1, self.n_participants + 1)), self.sessions)

    @property
    def mask(self) -> np.ndarray:
        """Features with data."""
        mask = np.ones(self.space.shape, dtype=bool)
        if isinstance(self.space, Surface):
            for label in self.space.vertices:
                mask[self.space.part(label)][:WALL] = False
        return mask

    def write(self, *, meshes: bool = True) -> SurfaceGroup:
        """Write everything."""
        rng = np.random.default_rng(self.seed)
        self.raw.mkdir(parents=True, exist_ok=True)
        description = {"Name": "x", "BIDSVersion": "1.10.0"}
        (self.raw / "dataset_description.json").write_text(json.dumps(description))
        (self.maps).mkdir(parents=True, exist_ok=True)
        (self.maps / "dataset_description.json").write_text(
            json.dumps({**description, "DatasetType": "derivative", "GeneratedBy": [{"Name": "x"}]})
        )
        n = self.space.shape[0]
        truth = np.zeros(n)
        truth[self.active] = 3.0
        own = {participant: rng.normal(size=n) for participant, _ in self.keys}
        for participant, session in self.keys:
            effect = truth + own[participant] + 0.5 * rng.normal(size=n)
            # means of two have single precision too, which is that of nilearn's images
            self.effects[participant, session] = np.round(effect * 4096) / 4096
            self.variances[participant, session] = rng.uniform(0.5, 1.5, n).astype(np.float32).astype(float)
            self.write_map(participant, session)
        if meshes:
            write_meshes(self.maps)
        return self

    @property
    def active(self) -> np.ndarray:
        """Features with an effect: a vertex and what is around it, in the left hemisphere."""
        assert self.space.adjacency is not None
        around = self.space.adjacency[[60]].indices
        return np.unique([60, *around])

    def write_map(self, participant: str, session: str) -> None:
        """Write effect and variance of one session."""
        for statistic, values in {"effect": self.effects, "variance": self.variances}.items():
            filled = np.where(self.mask, values[participant, session], 0.0)
            for label, content in self.space.encoded(filled.astype(np.float32), names=(statistic,)).items():
                path = of_hemisphere(self.path(participant, session, statistic), label)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def path(self, participant: str, session: str, statistic: str) -> Path:
        """Path of a map, of both hemispheres together."""
        folder = self.maps / f"sub-{participant}" / f"ses-{session}" / "func"
        name = f"sub-{participant}_ses-{session}_task-a_space-sphere_contrast-go_stat-{statistic}_statmap"
        return folder / f"{name}{self.space.extension}"

    def image(self, values: np.ndarray) -> SurfaceImage:
        """Make values on the surface an image of nilearn."""
        assert isinstance(self.space, Surface)
        return self.space.image(values)

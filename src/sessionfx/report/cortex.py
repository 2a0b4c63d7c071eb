"""Surfaces seen from four sides and laid flat, with the folds of the cortex as shades of grey.

The mesh is projected once: each pixel knows the vertex that is seen there, the nearest corner of the triangle in front.
So a map is drawn by looking its values up, as it is on cuts through volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import KDTree

from sessionfx.bids.meshes import mesh_beside, read_mesh
from sessionfx.report.canvas import LABEL, PAPER, BoolArray, Canvas, joined
from sessionfx.report.nilearn_files import fsaverage5_arrays
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

FORM = "The cortex from four sides, and laid flat where it can be; darker grey is in the folds. "
HEIGHT = 340  # pixels of all views together: what is above and they fit into a window
_GAP = 6  # pixels around each view
_FINER = 2  # pixels of the grey levels, which are averaged, along each side of one of the picture
_LIGHT = 0.3  # of the grey level, from what faces the viewer to what is seen from the side
_FOLDS = 0.13  # of grey levels, from the depth of folds
_N_DRAWN = 10_242  # vertices of a hemisphere of fsaverage5
_N_VERTICES = {10 * 4**level + 2 for level in range(8)}  # of fsaverage and its coarser kin

# To the viewer and up, in the left hemisphere's axes: right, front and top are positive
_SIDES = {
    "lateral": ((-1, 0, 0), (0, 0, 1)),
    "medial": ((1, 0, 0), (0, 0, 1)),
    "dorsal": ((0, 0, 1), (0, 1, 0)),
    "ventral": ((0, 0, -1), (0, 1, 0)),
    "flat": ((0, 0, 1), (0, 1, 0)),
}
_OF_RIGHT = {"lateral": "medial", "medial": "lateral"}
# Columns of rows of views, left to right and from above
_COLUMNS = (
    (("L lateral",), ("L medial",)),
    (("L dorsal", "R dorsal"),),
    (("R lateral",), ("R medial",)),
    (("R ventral", "L ventral"),),
    (("L flat",), ("R flat",)),
)


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """What a hemisphere is drawn on: meshes of the same n vertices, and the depth of the folds (n,) at each."""

    inflated: Mesh
    flat: Mesh | None = None
    depth: NDArray[np.floating] | None = None

    @cached_property
    def grey(self) -> NDArray[np.floating]:
        """Grey level of each vertex, from 0 to 1: darker in the folds."""
        if self.depth is None:
            return np.full(len(self.inflated.coordinates), PAPER)
        return np.asarray(PAPER - _FOLDS * (1 + np.tanh(2 * self.depth)))


@dataclass(frozen=True, eq=False)
class Hemispheres:
    """Both hemispheres, or one, by L and R; vertices are numbered one hemisphere after the other."""

    parts: Mapping[str, Hemisphere]

    @cached_property
    def views(self) -> Canvas:
        """Views beside each other, with what they show under them.

        All that is inflated has one scale; laid flat a hemisphere fills the room of a view.
        """
        room = HEIGHT // 2 - LABEL - 2 * _GAP  # pixels of one of two views in a column
        scale = room / max(float(np.ptp(part.inflated.coordinates[:, 2])) for part in self.parts.values())
        views, start = {}, 0
        for label, part in self.parts.items():
            for side in _SIDES:
                mesh = part.flat if side == "flat" else part.inflated
                if mesh is None:
                    continue
                of_left = _OF_RIGHT.get(side, side) if label == "R" else side
                view = project(
                    mesh, of_left, room / np.ptp(mesh.coordinates[:, 1]) if side == "flat" else scale, part.grey
                )
                vertices = np.where(view.features >= 0, view.features + start, -1)
                texts = [(vertices.shape[1] / 2, f"{HEMISPHERES[label]}, {side}")]
                views[f"{label} {side}"] = Canvas(vertices, view.under).labelled(texts)
            start += len(part.inflated.coordinates)
        columns = [[[views[key] for key in row if key in views] for row in column] for column in _COLUMNS]
        return joined([joined([joined(row, 1) for row in column if row], 0) for column in columns if any(column)], 1)


@dataclass(frozen=True)
class Cortex:
    """Hemispheres, the features of a space at their vertices (-1: none), and what a reader should know."""

    hemispheres: Hemispheres
    features: NDArray[np.intp]
    remark: str = ""

    def canvas(self, mask: BoolArray) -> Canvas:
        """Look at the vertices of a mask."""
        view = self.hemispheres.views
        features = np.where(view.features >= 0, self.features[view.features], -1)
        return Canvas(np.where(mask[features], features, -1), view.under, FORM + self.remark)


def cortex_of(space: Surface | Grayordinates) -> Cortex | None:
    """Find what the vertices of a space are drawn on; None where there is no mesh.

    Fsaverage and its coarser kin are drawn on fsaverage5: all of them number their vertices alike, the finer ones after
    those of the coarser. Others, and finer ones where they have meshes, are drawn on the space's.
    """
    features = {label: space.at_vertices(label) for label in HEMISPHERES if label in space.hemispheres}
    files = tuple((label, space.meshes[label].sources) for label in features if label in space.meshes)
    has_files = bool(features) and len(files) == len(features) and all(paths for _, paths in files)
    sizes = {len(own) for own in features.values()}
    is_fsaverage = isinstance(space, Surface) and space.name.startswith("fsaverage") and sizes <= _N_VERTICES
    is_finer = max(sizes, default=0) > _N_DRAWN
    if is_fsaverage and not (is_finer and has_files):
        nearest = [own[_nearest(label, len(own))] for label, own in features.items()]
        remark = f"Of {max(sizes):,} vertices of a hemisphere {_N_DRAWN:,} are drawn. " if is_finer else ""
        return Cortex(_fsaverage5(tuple(features)), np.concatenate(nearest), remark)
    return Cortex(_of_files(files), np.concatenate([*features.values()])) if has_files else None


@cache
def _nearest(label: str, n_vertices: int) -> NDArray[np.intp]:
    """Find the nearest of the first vertices to each vertex of fsaverage5."""
    places = fsaverage5_arrays(f"sphere_{HEMISPHERES[label]}")[0]
    return np.asarray(KDTree(places[:n_vertices]).query(places)[1])


@cache
def _fsaverage5(labels: tuple[str, ...]) -> Hemispheres:
    parts = {}
    for label in labels:
        inflated, flat, depth = (fsaverage5_arrays(f"{kind}_{HEMISPHERES[label]}") for kind in ("infl", "flat", "sulc"))
        parts[label] = Hemisphere(Mesh(inflated[0], inflated[1]), Mesh(flat[0], flat[1]), depth[0])
    return Hemispheres(parts)


@lru_cache(maxsize=2)
def _of_files(files: tuple[tuple[str, tuple[Path, ...]], ...]) -> Hemispheres:
    """Take meshes that were read, or what is inflated and flat beside them."""
    parts = {}
    for label, paths in files:
        mesh = read_mesh(paths)
        inflated, flat = (mesh_beside(mesh, kind) for kind in ("inflated", "flat"))
        parts[label] = Hemisphere(inflated or mesh, flat, mesh.depth_of_folds)
    return Hemispheres(parts)


def project(mesh: Mesh, side: str, scale: float, grey: NDArray[np.floating]) -> Canvas:
    """Look at a mesh from one side: the vertex at each pixel and its grey level, of what is nearest to the viewer.

    The side (``lateral``, …) is that of a left hemisphere; a right one's lateral side is what is medial here. The scale
    is in pixels per mm; each vertex has its grey level, from 0 to 1.
    """
    viewer, up = np.array(_SIDES[side])
    seen = mesh.coordinates @ np.stack([np.cross(up, viewer), -up, viewer]).T
    columns, rows = np.ceil(np.ptp(seen[:, :2], axis=0) * scale).astype(int) + 2 * _GAP
    seen[:, :2] = ((seen - seen.min(axis=0))[:, :2] * scale + _GAP) * _FINER  # in fine pixels
    triangles = mesh.triangles
    if side != "flat":
        of_triangles, of_vertices = mesh.normals
        grey = grey * (1 - _LIGHT * (1 - np.abs(of_vertices @ viewer)))
        triangles = triangles[of_triangles @ viewer > 0]  # those at the back need not be filled
    triangles = triangles[np.argsort(seen[triangles, 2].sum(axis=1))]  # the last one drawn is in front
    image = Image.new("I", (int(columns) * _FINER, int(rows) * _FINER), -1)
    draw = ImageDraw.Draw(image)
    for number, corners in enumerate(np.rint(seen[triangles, :2] - 0.5).reshape(-1, 6).tolist()):
        draw.polygon(corners, fill=number)
    shown = np.asarray(image)
    row, column = np.nonzero(shown >= 0)
    corners = triangles[shown[row, column]]
    # the share of a corner is the area of the triangle between the pixel and the two others
    x, y = seen[corners, 0] - column[:, None] - 0.5, seen[corners, 1] - row[:, None] - 0.5
    shares = np.abs(x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]]) + 1e-9
    vertices, under = np.full(shown.shape, -1), np.ones(shown.shape)
    vertices[row, column] = np.take_along_axis(corners, shares.argmax(axis=1)[:, None], axis=1)[:, 0]
    under[row, column] = (shares * grey[corners]).sum(axis=1) / shares.sum(axis=1)
    fine = under.reshape(rows, _FINER, columns, _FINER)
    return Canvas(vertices[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER], fine.mean(axis=(1, 3), dtype=np.float32))

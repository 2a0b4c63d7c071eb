"""Surfaces seen from four sides and laid flat, with the folds of the cortex as shades of grey.

The mesh is projected once: each pixel knows the vertex that is seen there, the nearest corner of the triangle in front.
So a map is drawn by looking its values up, as it is on cuts through volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.report.canvas import LABEL, BoolArray, Canvas, label_strip
from sessionfx.report.cortex import Hemisphere, Hemispheres, cortex_of, normals_of
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

FORM = "The cortex from four sides, and laid flat where it can be; darker grey is in the folds. "
HEIGHT = 340  # pixels of all views together: what is above and they fit into a window
_GAP = 6  # pixels around each view
_FINER = 2  # pixels of the grey levels, which are averaged, along each side of one of the picture
_LIGHT = 0.3  # of the grey level, from what faces the viewer to what is seen from the side
_OTHER_SIDE = {"lateral": "medial", "medial": "lateral"}

# To the viewer and up, in the left hemisphere's axes: right, front and top are positive
_SIDES = {
    "lateral": ((-1, 0, 0), (0, 0, 1)),
    "medial": ((1, 0, 0), (0, 0, 1)),
    "dorsal": ((0, 0, 1), (0, 1, 0)),
    "ventral": ((0, 0, -1), (0, 1, 0)),
}
# Columns of rows of views, left to right and from above
_COLUMNS = (
    ((("L", "lateral"),), (("L", "medial"),)),
    ((("L", "dorsal"), ("R", "dorsal")),),
    ((("R", "lateral"),), (("R", "medial"),)),
    ((("R", "ventral"), ("L", "ventral")),),
    ((("L", "flat"),), (("R", "flat"),)),
)


@dataclass(frozen=True)
class View:
    """What is seen at each pixel.

    Attributes
    ----------
    vertices : ndarray of int, shape (rows, columns)
        -1 where the surface is not.
    under : ndarray, shape (rows, columns)
        Grey levels.
    """

    vertices: NDArray[np.intp]
    under: NDArray[np.float32]


def project(mesh: Mesh, side: str, scale: float, grey: NDArray[np.floating]) -> View:
    """Look at a mesh from one side.

    Parameters
    ----------
    mesh : Mesh
    side : {'lateral', 'medial', 'dorsal', 'ventral', 'flat'}
        Of a left hemisphere; a right one's lateral side is what is medial here.
    scale : float
        Pixels per mm.
    grey : ndarray
        Grey level of each vertex, from 0 to 1.
    """
    viewer, up = np.array(_SIDES["dorsal" if side == "flat" else side])
    seen = mesh.coordinates @ np.stack([np.cross(up, viewer), -up, viewer]).T
    low, high = seen.min(axis=0)[:2], seen.max(axis=0)[:2]
    columns, rows = (int(size) for size in np.ceil((high - low) * scale) + 2 * _GAP)
    seen[:, :2] = ((seen[:, :2] - low) * scale + _GAP) * _FINER
    triangles = mesh.triangles
    if side != "flat":
        of_triangles, of_vertices = normals_of(seen, triangles)
        grey = grey * (1 - _LIGHT * (1 - np.abs(of_vertices[:, 2])))
        triangles = triangles[of_triangles[:, 2] > 0]  # those at the back need not be filled
    return View(*_rasterise(seen, triangles, grey, (rows, columns)))


def _rasterise(
    seen: NDArray[np.floating], triangles: NDArray[np.integer], grey: NDArray[np.floating], shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Fill triangles: the vertex at each pixel and its grey level, of what is nearest to the viewer.

    Vertices lie at column, row (in fine pixels) and height towards the viewer.
    """
    rows, columns = (size * _FINER for size in shape)
    corners = seen[triangles]
    # centres of pixels between the ends of each triangle
    start = np.ceil(corners[:, :, :2].min(axis=1) - 0.5).astype(np.intp)
    n_columns, n_rows = (np.floor(corners[:, :, :2].max(axis=1) - 0.5).astype(np.intp) - start + 1).T
    count = n_columns * n_rows
    which = np.repeat(np.arange(len(triangles)), count)
    down, right = np.divmod(np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count), n_columns[which])
    column, row = start[which, 0] + right, start[which, 1] + down
    shares = np.stack([
        x[which] * (column + 0.5) + y[which] * (row + 0.5) + rest[which] for x, y, rest in _barycentric(corners)
    ])  # fmt: skip
    inside = (shares[0] > -1e-9) & (shares[1] > -1e-9) & (shares[2] > -1e-9)
    which, place, shares = triangles[which[inside]].T, (row * columns + column)[inside], shares[:, inside]
    order = np.argsort((shares * seen[which, 2]).sum(axis=0))  # the last one written is in front
    place, which, shares = place[order], which[:, order], shares[:, order]
    vertex = np.full(rows * columns, -1, dtype=np.intp)
    vertex[place] = np.take_along_axis(which, shares.argmax(axis=0)[None], axis=0)[0]
    level = np.ones(rows * columns)
    level[place] = (shares * grey[which]).sum(axis=0)
    fine = level.reshape(shape[0], _FINER, shape[1], _FINER)
    middle = slice(_FINER // 2, None, _FINER)
    return vertex.reshape(rows, columns)[middle, middle], fine.mean(axis=(1, 3), dtype=np.float32)


def _barycentric(corners: NDArray[np.floating]) -> list[list[NDArray[np.floating]]]:
    """Give the share of each corner at column x and row y of triangles as factors of x, of y, and the rest."""
    x, y = corners[:, :, 0].T, corners[:, :, 1].T
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    area = np.where(np.abs(area) > 1e-9, area, np.nan)  # seen from the edge: no pixel is inside
    return [
        [(y[b] - y[c]) / area, (x[c] - x[b]) / area, (x[b] * y[c] - x[c] * y[b]) / area]
        for b, c in ((1, 2), (2, 0), (0, 1))
    ]


@lru_cache(maxsize=2)
def lay_out(hemispheres: Hemispheres) -> View:
    """Put the views of hemispheres beside each other, those from one side in columns, with what they show under them.

    All that is inflated has one scale.
    """
    cortices = hemispheres.parts
    room = HEIGHT // 2 - LABEL - 2 * _GAP  # of one of two views in a column
    scale = room / max(float(np.ptp(cortex.inflated.coordinates[:, 2])) for cortex in cortices.values())
    first = next(iter(cortices))
    columns = []
    for column in _COLUMNS:
        rows = []
        for places in column:
            views = []
            for label, side in places:
                if label in cortices and (side != "flat" or cortices[label].flat is not None):
                    view = _view(cortices[label], label, side, scale, room)
                    before = 0 if label == first else len(cortices[first].inflated.coordinates)
                    vertices = np.where(view.vertices >= 0, view.vertices + before, -1)
                    views.append(_labelled(View(vertices, view.under), f"{HEMISPHERES[label]}, {side}"))
            if views:
                rows.append(_joined(views, axis=1))
        if rows:
            columns.append(_joined(rows, axis=0))
    return _joined(columns, axis=1)


def _view(cortex: Hemisphere, label: str, side: str, scale: float, room: int) -> View:
    """Look at a hemisphere; laid flat it fills the room (pixels)."""
    if side == "flat":
        assert cortex.flat is not None  # noqa: S101 - the caller looked
        return project(cortex.flat, side, room / np.ptp(cortex.flat.coordinates[:, 1]), cortex.grey)
    return project(cortex.inflated, _OTHER_SIDE.get(side, side) if label == "R" else side, scale, cortex.grey)


def _labelled(view: View, text: str) -> View:
    """Write under a view what it shows."""
    n_columns = view.under.shape[1]
    strip = label_strip([(n_columns / 2, text)], n_columns)
    return View(
        np.pad(view.vertices, ((0, LABEL), (0, 0)), constant_values=-1), np.vstack([view.under, strip])
    )  # fmt: skip


def _joined(views: Sequence[View], axis: int) -> View:
    """Put views below each other (axis 0) or beside each other (1), each in the middle."""
    across = max(view.under.shape[1 - axis] for view in views)

    def padded(pixels: NDArray[Any], value: float) -> NDArray[Any]:
        rest = across - pixels.shape[1 - axis]
        widths = [(0, 0), (0, 0)]
        widths[1 - axis] = (rest // 2, rest - rest // 2)
        return np.pad(pixels, widths, constant_values=value)

    return View(
        np.concatenate([padded(view.vertices, -1) for view in views], axis),
        np.concatenate([padded(view.under, 1) for view in views], axis),
    )  # fmt: skip


def surface_views(space: Surface | Grayordinates, mask: BoolArray) -> Canvas | None:
    """Look at the vertices of a mask; None where there is no mesh."""
    cortex = cortex_of(space)
    if cortex is None:
        return None
    view = lay_out(cortex.hemispheres)
    feature = cortex.features[view.vertices]
    is_seen = (view.vertices >= 0) & (feature >= 0) & mask[feature]
    return Canvas(np.where(is_seen, feature, -1), view.under, FORM + cortex.remark)

"""Surfaces seen from four sides and laid flat, with the folds of the cortex as shades of grey.

The mesh is projected once: each pixel knows the vertex that is seen there, the nearest corner of the triangle in front.
So a map is drawn by looking its values up, as it is on cuts through volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sessionfx.report.canvas import LABEL, WIDTH, BoolArray, Canvas, label_strip
from sessionfx.report.cortex import Hemisphere, Hemispheres, cortex_of, normals_of
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

FORM = "The cortex from four sides, and laid flat where it can be; darker grey is in the folds. "
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
# Left to right; each pair of views has its inner sides together
_ORDER = (
    ("L", "lateral"), ("L", "medial"), ("R", "medial"), ("R", "lateral"),
    ("L", "dorsal"), ("R", "dorsal"), ("R", "ventral"), ("L", "ventral"), ("L", "flat"), ("R", "flat"),
)  # fmt: skip


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
    """Put the views of hemispheres beside each other in labelled rows as wide as pictures are."""
    cortices = hemispheres.parts
    length = max(float(np.ptp(cortex.inflated.coordinates[:, 1])) for cortex in cortices.values())
    scale = (WIDTH / 4 - 2 * _GAP - 1) / length
    rows: list[list[tuple[View, str]]] = [[]]
    for label, side in _ORDER:
        if label not in cortices or (side == "flat" and cortices[label].flat is None):
            continue
        view = _view(cortices[label], label, side, scale)
        before = 0 if label == next(iter(cortices)) else len(cortices["L"].inflated.coordinates)
        view = View(np.where(view.vertices >= 0, view.vertices + before, -1), view.under)
        if sum(other.under.shape[1] for other, _ in rows[-1]) + view.under.shape[1] > WIDTH:
            rows.append([])
        rows[-1].append((view, f"{HEMISPHERES[label]}, {side}"))
    drawn = [_row(row) for row in rows]
    return View(np.vstack([row.vertices for row in drawn]), np.vstack([row.under for row in drawn]))


def _view(cortex: Hemisphere, label: str, side: str, scale: float) -> View:
    """Look at a hemisphere; laid flat it is as high as it is long from above."""
    if side == "flat":
        assert cortex.flat is not None  # noqa: S101 - the caller looked
        height = np.ptp(cortex.flat.coordinates[:, 1])
        return project(cortex.flat, side, scale * np.ptp(cortex.inflated.coordinates[:, 1]) / height, cortex.grey)
    return project(cortex.inflated, _OTHER_SIDE.get(side, side) if label == "R" else side, scale, cortex.grey)


def _row(views: Sequence[tuple[View, str]]) -> View:
    """Put views beside each other, with what they show under them."""
    height = max(view.under.shape[0] for view, _ in views)
    vertices, under = np.full((height + LABEL, WIDTH), -1), np.ones((height + LABEL, WIDTH), dtype=np.float32)
    texts, start = [], 0
    for view, text in views:
        n_rows, n_columns = view.under.shape
        top = (height - n_rows) // 2
        place = slice(top, top + n_rows), slice(start, start + n_columns)
        vertices[place], under[place] = view.vertices, view.under
        texts.append((start + n_columns / 2, text))
        start += n_columns
    under[height:] = label_strip(texts, WIDTH)
    return View(vertices, under)


def surface_views(space: Surface | Grayordinates, mask: BoolArray) -> Canvas | None:
    """Look at the vertices of a mask; None where there is no mesh."""
    cortex = cortex_of(space)
    if cortex is None:
        return None
    view = lay_out(cortex.hemispheres)
    feature = cortex.features[view.vertices]
    is_seen = (view.vertices >= 0) & (feature >= 0) & mask[feature]
    return Canvas(np.where(is_seen, feature, -1), view.under, FORM + cortex.remark)

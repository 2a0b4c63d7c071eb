"""Surfaces seen from four sides and laid flat, with the folds of the cortex as shades of grey.

The mesh is projected once: each pixel knows the vertex that is seen there, the nearest corner of the triangle in front.
So a map is drawn by looking its values up, as it is on cuts through volumes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sessionfx.report.canvas import LABEL, BoolArray, Canvas, joined
from sessionfx.report.cortex import Hemispheres, cortex_of
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
    "flat": ((0, 0, 1), (0, 1, 0)),
}
# Columns of rows of views, left to right and from above
_COLUMNS = (
    (("L lateral",), ("L medial",)),
    (("L dorsal", "R dorsal"),),
    (("R lateral",), ("R medial",)),
    (("R ventral", "L ventral"),),
    (("L flat",), ("R flat",)),
)


def project(mesh: Mesh, side: str, scale: float, grey: NDArray[np.floating]) -> Canvas:
    """Look at a mesh from one side: the vertex at each pixel and its grey level, of what is nearest to the viewer.

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


@lru_cache(maxsize=2)
def lay_out(hemispheres: Hemispheres) -> Canvas:
    """Put the views of hemispheres beside each other, with what they show under them.

    All that is inflated has one scale; laid flat a hemisphere fills the room of a view.
    """
    room = HEIGHT // 2 - LABEL - 2 * _GAP  # pixels of one of two views in a column
    scale = room / max(float(np.ptp(part.inflated.coordinates[:, 2])) for part in hemispheres.parts.values())
    views, start = {}, 0
    for label, part in hemispheres.parts.items():
        for side in _SIDES:
            if side != "flat":
                of_left = _OTHER_SIDE.get(side, side) if label == "R" else side
                view = project(part.inflated, of_left, scale, part.grey)
            elif part.flat is not None:
                view = project(part.flat, side, room / float(np.ptp(part.flat.coordinates[:, 1])), part.grey)
            else:
                continue
            vertices = np.where(view.features >= 0, view.features + start, -1)
            texts = [(vertices.shape[1] / 2, f"{HEMISPHERES[label]}, {side}")]
            views[f"{label} {side}"] = Canvas(vertices, view.under).labelled(texts)
        start += len(part.inflated.coordinates)
    columns = []
    for column in _COLUMNS:
        rows = [[views[key] for key in row if key in views] for row in column]
        columns += [joined([joined(row, axis=1) for row in rows if row], axis=0)] if any(rows) else []
    return joined(columns, axis=1)


def surface_views(space: Surface | Grayordinates, mask: BoolArray) -> Canvas | None:
    """Look at the vertices of a mask; None where there is no mesh."""
    cortex = cortex_of(space)
    if cortex is None:
        return None
    view = lay_out(cortex.hemispheres)
    feature = cortex.features[view.features]
    is_seen = (view.features >= 0) & (feature >= 0) & mask[feature]
    return Canvas(np.where(is_seen, feature, -1), view.under, FORM + cortex.remark)

"""Surfaces seen from four sides and laid flat, with the folds of the cortex as shades of grey.

The mesh is projected once: each pixel knows the vertex that is seen there, the nearest corner of the triangle in front.
So a map is drawn by looking its values up, as it is on cuts through volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from sessionfx.bids.meshes import mesh_beside, read_mesh
from sessionfx.report.canvas import LABEL, PAPER, WIDTH, BoolArray, Canvas, label_strip
from sessionfx.report.nilearn_files import fsaverage5_arrays
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.mesh import Mesh
from sessionfx.space.surface import HEMISPHERES, Surface

FORM = "The cortex from four sides, and laid flat where it can be; darker grey is in the folds. "
_GAP = 6  # pixels around each view
_FINER = 2  # pixels of the grey levels, which are averaged, along each side of one of the picture
_LIGHT = 0.3  # of the grey level, from what faces the viewer to what is seen from the side
_FOLDS = 0.13  # of grey levels, from the depth of folds
_N_DRAWN = 10_242  # of a hemisphere of fsaverage5
_N_VERTICES = {10 * 4**level + 2 for level in range(8)}  # of fsaverage and its coarser kin
_SMOOTHINGS = 8  # of the depth of folds
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
class Cortex:
    """What a hemisphere is drawn on.

    Attributes
    ----------
    inflated : Mesh
    flat : Mesh or None
        The same vertices; triangles at the cuts are left out.
    depth : ndarray of shape (n,), or None
        Of the folds, positive in sulci.
    """

    inflated: Mesh
    flat: Mesh | None = None
    depth: NDArray[np.floating] | None = None


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


def project(mesh: Mesh, side: str, scale: float, depth: NDArray[np.floating] | None = None) -> View:
    """Look at a mesh from one side.

    Parameters
    ----------
    mesh : Mesh
    side : {'lateral', 'medial', 'dorsal', 'ventral', 'flat'}
        Of a left hemisphere; a right one's lateral side is what is medial here.
    scale : float
        Pixels per mm.
    depth : ndarray or None
        Of the folds, positive in sulci.
    """
    viewer, up = np.array(_SIDES["dorsal" if side == "flat" else side])
    seen = mesh.coordinates @ np.stack([np.cross(up, viewer), -up, viewer]).T
    low, high = seen.min(axis=0)[:2], seen.max(axis=0)[:2]
    columns, rows = (int(size) for size in np.ceil((high - low) * scale) + 2 * _GAP)
    seen[:, :2] = ((seen[:, :2] - low) * scale + _GAP) * _FINER
    grey = np.full(len(seen), PAPER) if depth is None else PAPER - _FOLDS * (1 + np.tanh(2 * depth))
    triangles = mesh.triangles
    if side != "flat":
        of_triangles, of_vertices = _normals(seen, triangles)
        grey *= 1 - _LIGHT * (1 - np.abs(of_vertices[:, 2]))
        triangles = triangles[of_triangles[:, 2] > 0]  # those at the back need not be filled
    return View(*_rasterise(seen, triangles, grey, (rows, columns)))


def _normals(
    places: NDArray[np.floating], triangles: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Give vectors that point outwards: of triangles, as long as they are large; of vertices, of length 1."""
    first, second, third = (places[triangles[:, corner]] for corner in range(3))
    normals = np.cross(second - first, third - first)
    normals *= np.sign(((first - places.mean(axis=0)) * normals).sum())  # then the volume is positive
    sums = np.stack([np.bincount(triangles.ravel(), np.repeat(axis, 3), len(places)) for axis in normals.T], axis=1)
    return normals, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def depth_of_folds(mesh: Mesh) -> NDArray[np.floating]:
    """Find how far the neighbours of each vertex lie outwards, smoothed: positive in sulci, with a spread of 1/2."""
    neighbours = mesh.adjacency.astype(float)
    shares = neighbours.multiply(1 / np.maximum(neighbours.sum(axis=1), 1)[:, None]).tocsr()
    _, normals = _normals(mesh.coordinates, mesh.triangles)
    depth = ((shares @ mesh.coordinates - mesh.coordinates) * normals).sum(axis=1)
    for _ in range(_SMOOTHINGS):
        depth = (depth + shares @ depth) / 2
    return np.asarray(depth / max(2 * float(depth.std()), 1e-12))


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


def lay_out(cortices: Mapping[str, Cortex]) -> View:
    """Put the views of hemispheres, by L and R, beside each other in labelled rows as wide as pictures are.

    Vertices of both are numbered one hemisphere after the other.
    """
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


def _view(cortex: Cortex, label: str, side: str, scale: float) -> View:
    """Look at a hemisphere; laid flat it is as high as it is long from above."""
    if side == "flat":
        assert cortex.flat is not None  # noqa: S101 - the caller looked
        height = np.ptp(cortex.flat.coordinates[:, 1])
        return project(cortex.flat, side, scale * np.ptp(cortex.inflated.coordinates[:, 1]) / height, cortex.depth)
    return project(cortex.inflated, _OTHER_SIDE.get(side, side) if label == "R" else side, scale, cortex.depth)


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


@cache
def _fsaverage5(labels: tuple[str, ...]) -> View:
    cortices = {}
    for label in labels:
        side = HEMISPHERES[label]
        (inflated, triangles), (flat, flat_triangles) = (
            fsaverage5_arrays(f"{kind}_{side}") for kind in ("infl", "flat")
        )
        depth = fsaverage5_arrays(f"sulc_{side}")[0]
        cortices[label] = Cortex(Mesh(inflated, triangles), Mesh(flat, flat_triangles), depth)
    return lay_out(cortices)


@lru_cache(maxsize=2)
def _of_files(files: tuple[tuple[str, tuple[Path, ...]], ...]) -> View:
    """Lay out meshes that were read, or what is inflated and flat beside them."""
    cortices = {}
    for label, paths in files:
        mesh = read_mesh(paths)
        inflated, flat = (mesh_beside(mesh, kind) for kind in ("inflated", "flat"))
        cortices[label] = Cortex(inflated or mesh, flat, depth_of_folds(mesh))
    return lay_out(cortices)


def surface_views(space: Surface | Grayordinates, mask: BoolArray) -> Canvas | None:
    """Look at the vertices of a mask; None where there is no mesh.

    Fsaverage and its coarser kin are drawn on fsaverage5: all of them number their vertices alike, the finer ones after
    those of the coarser. Others, and finer ones where they have meshes, are drawn on the space's.
    """
    features, form = {label: space.at_vertices(label) for label in HEMISPHERES if label in space.hemispheres}, FORM
    files = tuple((label, space.meshes[label].sources) for label in features if label in space.meshes)
    is_drawable = bool(features) and len(files) == len(features) and all(paths for _, paths in files)
    sizes = {len(own) for own in features.values()}
    is_fsaverage = isinstance(space, Surface) and space.name.startswith("fsaverage") and sizes <= _N_VERTICES
    is_finer = max(sizes, default=0) > _N_DRAWN
    if is_fsaverage and not (is_finer and is_drawable):
        view = _fsaverage5(tuple(features))
        for label, own in features.items():
            places = fsaverage5_arrays(f"sphere_{HEMISPHERES[label]}")[0]
            features[label] = own[KDTree(places[: len(own)]).query(places)[1]]
        form += f"Of {max(sizes):,} vertices of a hemisphere {_N_DRAWN:,} are drawn. " if is_finer else ""
    elif is_drawable:
        view = _of_files(files)
    else:
        return None
    feature = np.concatenate([*features.values()])[view.vertices]
    return Canvas(np.where((view.vertices >= 0) & (feature >= 0) & mask[feature], feature, -1), view.under, form)

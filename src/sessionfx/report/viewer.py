"""Maps for the viewer of a page: packed into the HTML, so that the page stays one file and asks for no other.

*Code* is the whole number that stands for a value. Codes grow with values: in fine steps beyond a *knee*, where readers
compare a value with a table, and in coarse ones below it, where there is the noise that would take most of the space. A
code is stored as its difference from what the seven neighbours before it foretell (Lorenzo predictor: Ibarria et al.
2003, Computer Graphics Forum 22:343), which is small in smooth maps. `templates/viewer.js` unpacks all this.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib
from markupsafe import Markup
from numpy.typing import NDArray

from sessionfx.report.cortex import Cortex
from sessionfx.report.page import render
from sessionfx.space.grid import Grid
from sessionfx.space.surface import HEMISPHERES

_KNEE = 200  # fine steps: |z| 2
_COARSE = 5  # fine steps in a coarse one
_Z_STEP = 0.01  # two decimals, as in the tables
_MOST_STEPS = 30_000  # codes are 16-bit integers
_POINT_STEP = 0.02  # mm between places of vertices
_MARGIN = 10.0  # mm of anatomy shown around the voxels that have values
_EMPTY = 0.02  # of the largest value: anatomy that is nothing but background
# Grey levels of the anatomy as in the static pictures, which leaves the colours visible; 0 is empty
_DARKEST, _GREY_STEP, _GREY_STEPS = 64, 3, 59

_TITLES = {False: "Explore in 3-D viewer", True: "Explore below it"}  # of the buttons


@dataclass(frozen=True, kw_only=True)
class ViewerMap:
    """A map that the viewer offers."""

    key: str  # unique in its section; `data-viewer-map` names it
    # session_contrast, strategy: for people; the choices of the two lists
    session_contrast: str
    strategy: str
    values: NDArray[np.floating[Any]]  # (X, Y, Z) of volumes, (V,) of surfaces: NaN where there is no value
    threshold: float  # on |value|, which is suprathreshold at or above it; may be infinite
    vmax: float  # end of the colour scale
    unit: str = "z"


def viewer_data(
    maps: Sequence[ViewerMap],
    anatomy: NDArray[np.floating[Any]],
    anatomy_affine: NDArray[np.floating[Any]],
    grid: Grid,
    *,
    below_cortex: bool = False,
) -> Markup:
    """Make the HTML of one section's viewer: its button, its panel, its packed maps.

    Elements of the section with `data-viewer-at="x y z"` (mm) and, where they mean one map, `data-viewer-map="key"`
    open the viewer there. Without JavaScript nothing of it is seen.

    Parameters
    ----------
    maps : sequence of ViewerMap
        Of one grid, at least one, with values somewhere. Equal maps are stored once.
    anatomy : ndarray, 3-D
        Drawn under the maps, on a grid of its own; of a finer one, every second (third, …) voxel is kept.
    anatomy_affine : ndarray, shape (4, 4)
        Voxel index to mm.
    grid : Grid
        Of the maps.
    below_cortex : bool, default=False
        Whether it stands beside the viewer of a cortex: then what opens it has `data-viewer-of="below"`, too.

    Returns
    -------
    Markup
    """
    box = _box(np.logical_or.reduce([np.isfinite(stat_map.values) for stat_map in maps]))
    affine = _moved(np.asarray(grid.affine), box)
    packed = _packed_maps([(stat_map, stat_map.values[box]) for stat_map in maps])
    under = _packed_anatomy(np.asarray(anatomy), np.asarray(anatomy_affine, dtype=float), affine, packed["shape"])
    title = _TITLES[below_cortex]
    return _rendered({**packed, "affine": affine[:3].tolist(), "anatomy": under}, title, below=below_cortex)


def surface_viewer_data(maps: Sequence[ViewerMap], cortex: Cortex, *, has_more: bool = False) -> Markup:
    """Make the HTML of one section's viewer of surfaces; see `viewer_data`.

    Elements with `data-viewer-at="N 0 0"` open it at feature N of the axis. To the script the maps are
    a volume of V × 1 × 1.

    Parameters
    ----------
    maps : sequence of ViewerMap
        Of one space, at least one.
    cortex : Cortex
        On which they are shown.
    has_more : bool, default=False
        Whether another viewer shows what is below it.
    """
    hemispheres = [
        {
            "name": HEMISPHERES[label],
            "points": _as_text(_byte_planes(np.rint(part.inflated.coordinates / _POINT_STEP))),
            "triangles": _as_text(_byte_planes(np.diff(part.inflated.triangles.ravel(), prepend=0))),
            "grey": _as_text(np.rint(255 * part.grey).astype(np.uint8).tobytes()),
        }
        for label, part in cortex.hemispheres.parts.items()
    ]
    shown = {
        "affine": np.eye(4)[:3].tolist(),
        "features": _as_text(_byte_planes(np.diff(cortex.features, prepend=0))),
        "pointStep": _POINT_STEP,
        "hemispheres": hemispheres,
    }
    packed = _packed_maps([(stat_map, stat_map.values.reshape(-1, 1, 1)) for stat_map in maps])
    return _rendered({**packed, **shown}, "Explore the cortex" if has_more else _TITLES[False], is_surface=True)


def _packed_maps(maps: Sequence[tuple[ViewerMap, NDArray[np.floating[Any]]]]) -> dict[str, Any]:
    """Pack maps with their values, of one shape (X, Y, Z)."""
    shape = maps[0][1].shape
    masks, codes = _Stored(), _Stored()
    described = []
    for stat_map, volume in maps:
        inside = np.isfinite(volume)
        step = _step(volume[inside], stat_map.unit)
        whole = np.zeros(shape, dtype=np.int16)
        whole[inside] = _codes(volume[inside], stat_map.threshold, step)
        described.append(
            {
                "key": stat_map.key,
                "sessionContrast": stat_map.session_contrast,
                "strategy": stat_map.strategy,
                "unit": stat_map.unit,
                "threshold": stat_map.threshold if math.isfinite(stat_map.threshold) else None,
                "vmax": stat_map.vmax,
                "step": step,
                "mask": masks.add(np.packbits(inside.ravel(order="F"), bitorder="little").tobytes()),
                "codes": codes.add(_packed(whole, inside)),
            }
        )
    return {
        "shape": shape,
        "knee": _KNEE,
        "coarse": _COARSE,
        "colours": _colours(),
        "masks": masks.texts,
        "codes": codes.texts,
        "maps": described,
    }


def _rendered(data: dict[str, Any], title: str, *, is_surface: bool = False, below: bool = False) -> Markup:
    # `<` would end the script; everything else is text to HTML there
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    html = render("viewer.html.j2", data=Markup(text), title=title, is_surface=is_surface, below=below)  # noqa: S704 - rendered and escaped
    return Markup(html)  # noqa: S704


def _byte_planes(whole: NDArray[Any]) -> bytes:
    """Put whole numbers in a row as 32-bit integers: all lowest bytes first, all highest last."""
    return whole.ravel().astype("<i4").view(np.uint8).reshape(-1, 4).T.tobytes()


class _Stored:
    """Compressed arrays as text, equal ones once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, content: bytes) -> int:
        number = self._numbers.setdefault(content, len(self.texts))
        if number == len(self.texts):
            self.texts.append(_as_text(content))
        return number


def _as_text(content: bytes) -> str:
    # half as large again would be 30 times as fast; a twentieth smaller, ten times as slow
    return base64.b64encode(isal_zlib.compress(content, isal_zlib.ISAL_BEST_COMPRESSION)).decode("ascii")


def _step(values: NDArray[Any], unit: str) -> float:
    """Choose a fine step: a round number, of which the largest value holds neither too few nor too many."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0 or (unit == "z" and largest < _MOST_STEPS * _Z_STEP):
        return _Z_STEP
    return float(10.0 ** math.floor(math.log10(largest / 500)))


def _codes(values: NDArray[Any], threshold: float, step: float) -> NDArray[np.int16]:
    """Make whole numbers of values. Rounding moves no value over the threshold."""
    size = np.abs(values)
    steps = size / step
    codes = np.where(steps < _KNEE, np.rint(steps / _COARSE), np.rint(steps - _KNEE) + _KNEE // _COARSE)
    if math.isfinite(threshold):
        steps_to_it = threshold / step - 1e-6  # a round number is not rounded up
        least = math.ceil(steps_to_it / _COARSE if steps_to_it < _KNEE else steps_to_it - _KNEE + _KNEE // _COARSE)
        codes = np.where(size < threshold, np.minimum(codes, least - 1), np.maximum(codes, least))
    return np.asarray(np.copysign(codes, values), dtype=np.int16)


def _packed(codes: NDArray[np.int16], mask: NDArray[np.bool_]) -> bytes:
    """Put what the neighbours do not foretell in a row, x fastest: all low bytes, then all high bytes.

    Codes are 0 outside the mask.
    """
    rest = codes
    for axis in range(3):
        rest = np.diff(rest, axis=axis, prepend=np.int16(0))
    row = rest.T[mask.T]
    # signs into the lowest bit, so that small numbers of both signs have a high byte of 0
    row = ((row << 1) ^ (row >> 15)).view(np.uint16)
    return (row & 255).astype(np.uint8).tobytes() + (row >> 8).astype(np.uint8).tobytes()


def _packed_anatomy(
    values: NDArray[Any], affine: NDArray[np.float64], box_affine: NDArray[np.float64], shape: tuple[int, ...]
) -> dict[str, Any]:
    thin = np.maximum(1, np.rint(_voxel_sizes(box_affine).min() / _voxel_sizes(affine)).astype(int))
    values = np.nan_to_num(values[tuple(slice(None, None, every) for every in thin)].astype(np.float32))
    affine = affine @ np.diag([*thin, 1.0])
    # corners of the maps' box in voxels of the anatomy
    corners = np.indices((2, 2, 2)).reshape(3, 8) * np.reshape(shape, (3, 1)) - 0.5
    corners = np.linalg.solve(affine, box_affine @ np.vstack([corners, np.ones(8)]))[:3]
    margin = _MARGIN / _voxel_sizes(affine)
    low = np.clip(np.floor(corners.min(axis=1) - margin), 0, None).astype(int)
    high = np.ceil(corners.max(axis=1) + margin).astype(int) + 1
    near = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    there = values[near] > _EMPTY * values.max(initial=0)
    if not there.any():  # no anatomy, or one beside the maps: what has values is grey
        there, values, affine = np.ones(shape, dtype=bool), np.ones(shape, dtype=np.float32), box_affine
        near = tuple(slice(0, size) for size in shape)
    box = _box(there)
    values, there, affine = values[near][box], there[box], _moved(_moved(affine, near), box)
    darkest, brightest = np.percentile(values[there], [2, 98])
    level = np.clip((values - darkest) / max(brightest - darkest, 1e-12), 0, 1)
    grey = np.where(there, np.rint(level * _GREY_STEPS) + 1, 0).astype(np.int16)
    return {
        "shape": grey.shape,
        "affine": affine[:3].tolist(),
        "darkest": _DARKEST,
        "greyStep": _GREY_STEP,
        "codes": _as_text(_packed(grey, np.ones(grey.shape, dtype=bool))),
    }


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Find the smallest box around the voxels of a mask."""
    found = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in found)


def _moved(affine: NDArray[np.float64], box: tuple[slice, ...]) -> NDArray[np.float64]:
    """Give the affine of a box of an image."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return moved


def _voxel_sizes(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _colours() -> str:
    from matplotlib import colormaps

    return base64.b64encode(colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3].tobytes()).decode("ascii")

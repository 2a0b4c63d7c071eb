"""Pictures of brain volumes: statistical maps and coverage.

A *volume* is a 3-D array on a grid with a 4 × 4 affine (voxel index to mm). For display it is reoriented
to the closest RAS axes, without resampling, so that the first axis runs from left to right, the second
from posterior to anterior, the third from inferior to superior. Left is drawn on the left.

Statistical maps follow "highlight, don't hide" (Taylor et al. 2023, NeuroImage 274:120138): slices show
the values below the threshold too, dimmed, and outline those beyond it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from sessionfx.bids.images import bounds_of
from sessionfx.report.canvas import (
    MARGIN,
    SMALL_FONT,
    WIDTH,
    Canvas,
    Panel,
    Pixels,
    enlarge,
    header_height,
    message_png,
    nearest,
    round_ticks,
    text_width,
    to_bytes,
)
from sessionfx.report.colours import COUNTS, DIVERGING, INK, MUTED, FloatArray, look_up, rgb
from sessionfx.wording import number

BoolArray = NDArray[np.bool_]

DIM = 0.45
"""Opacity of values below the threshold in slices."""

PAPER = 0.9
"""Grey level of the mask where no background picture is given (0 black, 1 white)."""

GLASS = 0.965
"""Grey level inside the glass brain."""

BAR_SPACE = 115
"""Width kept at the right for the colour bar, its labels and the threshold marks (pixels)."""

BAR_WIDTH = 17

SLICE_GAP = 6
"""Space between slices (pixels)."""

SLICES_PER_ROW = 8
"""Further slices begin a new row."""

PROJECTION_GAP = 72
"""Space for coordinates at the left of each projection (pixels)."""

EDGE = 4
"""Space between the glass brain and its axes (pixels)."""

SHARP = 3.0
"""From this many pixels per voxel on, voxels are drawn as squares; smaller ones are blended."""

OUTLINE = "#9a9a9a"
"""Colour around slices."""

AXIS_NAMES = ("x", "y", "z")
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters at the low and the high end of each axis."""


class Grid(NamedTuple):
    """Where the voxels of a displayed box lie.

    Attributes
    ----------
    low : numpy.ndarray, shape (3,)
        Outer edge of the first voxel along each axis (mm).
    voxel_size : numpy.ndarray, shape (3,)
        Distance between voxel centres along each axis (mm).
    shape : tuple of int
        Number of voxels along each axis.
    oblique : bool
        Whether the grid is rotated against the axes of the world; millimetres are then exact only at
        the centre of the box.
    """

    low: FloatArray
    voxel_size: FloatArray
    shape: tuple[int, ...]
    oblique: bool

    @property
    def size(self) -> FloatArray:
        """Size of the box along each axis (mm)."""
        return np.asarray(self.voxel_size * np.array(self.shape))

    def extent(self, axis: int) -> tuple[float, float]:
        """Low and high edge of the box along `axis` (mm)."""
        return float(self.low[axis]), float(self.low[axis] + self.size[axis])

    def centre(self, axis: int, index: int) -> float:
        """Coordinate of the centre of voxel `index` along `axis` (mm)."""
        return float(self.low[axis] + (index + 0.5) * self.voxel_size[axis])


class ColourScale(NamedTuple):
    """How values become colours: symmetric from −vmax to vmax, with an optional threshold."""

    vmax: float
    threshold: float | None

    def passes(self, values: FloatArray) -> BoolArray:
        """Which values reach the threshold (all finite ones if there is none)."""
        finite: BoolArray = np.isfinite(values)
        return finite if self.threshold is None else finite & (np.abs(values) >= self.threshold)

    def colours(self, values: FloatArray) -> FloatArray:
        """Colours of `values` as RGB in 0–1, one axis more than `values`; NaN becomes white."""
        return look_up(DIVERGING, np.nan_to_num(values) / (2 * self.vmax) + 0.5)


# Public pictures ----------------------------------------------------------------------------------


class BrainView:
    """Where the voxels of a mask are drawn: what all pictures of one mask share.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (X, Y, Z)
        Voxels outside are not data.
    affine : numpy.ndarray, shape (4, 4)
        Voxel index to mm.
    background : numpy.ndarray, shape (X, Y, Z), optional
        Picture under the slices, e.g. the mean BOLD volume.
    n_slices : int, default: 8
        Number of axial slices, spaced evenly through the mask; fewer when the grid has fewer.
    """

    def __init__(
        self, mask: BoolArray, affine: FloatArray, background: NDArray[Any] | None = None, n_slices: int = 8
    ) -> None:
        whole = np.asarray(mask, dtype=bool)
        self._box = _Box.around(whole, affine) if whole.any() else None
        if self._box is None:
            return
        self._inside = self._box.cut(whole)
        self._planes = slice_indices(self._box.grid.shape[2], n_slices)
        under = None if background is None else self._box.cut(np.asarray(background))
        self._grey = _grey_background(self._inside, under, self._planes)

    def draw(
        self,
        values: FloatArray,
        *,
        title: str,
        unit: str,
        threshold: float | None = None,
        vmax: float | None = None,
    ) -> bytes:
        """Draw a map; see `draw_stat_map`."""
        if self._box is None:
            return message_png(title, "empty mask")
        box = self._box.cut(np.asarray(values, dtype=float))
        data = np.where(self._inside & np.isfinite(box), box, np.nan)
        known = data[~np.isnan(data)]
        if not known.size:
            return message_png(title, "no finite value in the mask")
        scale = colour_scale(known, threshold, vmax)
        passing = scale.passes(data)
        grid, planes = self._box.grid, self._planes
        layout = _Layout.for_grid(grid, len(planes), header=header_height(title, WIDTH), glass=True)
        canvas = Canvas(WIDTH, layout.height)
        canvas.header(title, _summary(known, int(passing.sum()), scale, unit))
        _draw_glass(canvas, layout, np.where(passing, data, np.nan).astype(np.float32), self._inside, grid, scale)
        slices = to_bytes(_blend(self._grey, data[:, :, planes], scale))
        highlights = None if scale.threshold is None else passing[:, :, planes]
        heights = [grid.centre(2, k) for k in planes]
        _draw_slices(
            canvas=canvas,
            layout=layout,
            slices=slices,
            silhouettes=self._inside[:, :, planes],
            highlights=highlights,
            heights=heights,
            grid=grid,
        )
        _draw_signed_bar(canvas, layout, scale, unit)
        return canvas.to_png()


def draw_stat_map(
    values: FloatArray,
    mask: BoolArray,
    affine: FloatArray,
    *,
    title: str,
    unit: str,
    threshold: float | None = None,
    background: NDArray[Any] | None = None,
    n_slices: int = 8,
    vmax: float | None = None,
) -> bytes:
    """Draw a statistical map: a glass brain above a row of axial slices.

    Parameters
    ----------
    values : numpy.ndarray, shape (X, Y, Z)
        Statistic or effect, in `unit`. Values that are not finite are not data.
    mask, affine, background, n_slices
        As of `BrainView`, which draws several maps of one mask.
    title, unit : str
        Unit as written at the colour bar, e.g. ``"z"`` or ``"percent signal change"``.
    threshold : float, optional
        Voxels with ``|value| >= threshold`` are shown in the glass brain and highlighted in slices.
        Infinity (nothing is significant) is allowed. Without a threshold everything is opaque.
    vmax : float, optional
        Value at the ends of the colour bar. By default the 99.5th percentile of ``|values|`` in the
        mask, and at least 1.1 times the threshold.

    Returns
    -------
    bytes
        PNG.
    """
    view = BrainView(mask, affine, background, n_slices)
    return view.draw(values, title=title, unit=unit, threshold=threshold, vmax=vmax)


def draw_coverage(
    counts: NDArray[np.integer[Any]], n_inputs: int, affine: FloatArray, *, title: str, unit: str
) -> bytes:
    """Draw how many inputs cover each voxel, as axial slices.

    Parameters
    ----------
    counts : numpy.ndarray of int, shape (X, Y, Z)
        Number of inputs (runs or sessions) with data in the voxel, 0 to `n_inputs`.
    n_inputs : int
        Number of inputs.
    affine : numpy.ndarray, shape (4, 4)
        Voxel index to mm.
    title, unit : str
        Unit as written at the colour bar, e.g. ``"sessions"``.

    Returns
    -------
    bytes
        PNG.
    """
    n_inputs = max(int(n_inputs), 1)
    whole = np.asarray(counts)
    somewhere = whole > 0
    if not somewhere.any():
        return message_png(title, "no voxel is covered")
    shown = _Box.around(somewhere, affine)
    covered, box, grid = shown.cut(somewhere), shown.cut(whole), shown.grid
    planes = slice_indices(grid.shape[2], 16)
    layout = _Layout.for_grid(grid, len(planes), header=header_height(title, WIDTH), glass=False)
    canvas = Canvas(WIDTH, layout.height)
    full = int((box >= n_inputs).sum())
    partial = int(covered.sum()) - full
    canvas.header(title, f"{full} voxels covered by all {n_inputs} {unit}, {partial} by fewer")
    palette = _count_colours(n_inputs)
    slices = to_bytes(palette)[np.clip(box[:, :, planes].astype(int), 0, n_inputs)]
    heights = [grid.centre(2, k) for k in planes]
    _draw_slices(
        canvas=canvas,
        layout=layout,
        slices=slices,
        silhouettes=covered[:, :, planes],
        highlights=None,
        heights=heights,
        grid=grid,
    )
    _draw_count_bar(canvas, layout, palette, unit)
    return canvas.to_png()


# Arithmetic on volumes ----------------------------------------------------------------------------


def to_canonical(volume: NDArray[Any], affine: FloatArray) -> tuple[NDArray[Any], FloatArray]:
    """Flip and permute the axes of a volume to the closest RAS orientation.

    Parameters
    ----------
    volume : numpy.ndarray, shape (X, Y, Z)
    affine : numpy.ndarray, shape (4, 4)
        Voxel index to mm.

    Returns
    -------
    volume : numpy.ndarray
        First axis left to right, second posterior to anterior, third inferior to superior.
    affine : numpy.ndarray, shape (4, 4)
        Affine of the reoriented volume.
    """
    orientation = orientations.io_orientation(affine)
    back = orientations.inv_ornt_aff(orientation, volume.shape)
    return orientations.apply_orientation(volume, orientation), np.asarray(affine, dtype=float) @ back


def signed_maximum_projection(values: FloatArray, axis: int) -> FloatArray:
    """Project a volume along one axis, keeping the value farthest from zero with its sign.

    Parameters
    ----------
    values : numpy.ndarray, shape (X, Y, Z)
        NaN where there is no data.
    axis : int
        Axis along which to project.

    Returns
    -------
    numpy.ndarray
        The two remaining axes in order; NaN where the whole line has no data. Of two values equally far
        from zero the positive one is kept.
    """
    high: FloatArray = np.fmax.reduce(values, axis=axis)
    low: FloatArray = np.fmin.reduce(values, axis=axis)
    return np.where(high >= -low, high, low)


def slice_indices(n_planes: int, n_slices: int) -> list[int]:
    """Choose planes spaced evenly through a box: the centres of `n_slices` equal parts.

    Returns
    -------
    list of int
        Increasing and without repetition, hence fewer than `n_slices` in thin boxes.
    """
    parts = (np.arange(max(n_slices, 1)) + 0.5) / max(n_slices, 1)
    return sorted({int(k) for k in np.floor(parts * n_planes)})


def colour_scale(values: FloatArray, threshold: float | None, vmax: float | None) -> ColourScale:
    """Choose the range of the colours for values (any shape, NaN is no data); see `draw_stat_map`."""
    if threshold is not None and math.isnan(threshold):
        threshold = None
    if vmax is None or not (math.isfinite(vmax) and vmax > 0):
        size = np.abs(values[np.isfinite(values)])
        vmax = float(np.percentile(size, 99.5)) if size.size else 0.0
        if threshold is not None and math.isfinite(threshold):
            vmax = max(vmax, 1.1 * threshold)
    return ColourScale(vmax if vmax > 0 else 1.0, threshold)


def rim(region: BoolArray) -> BoolArray:
    """Find the pixels that touch a region with a side and are not in it.

    Parameters
    ----------
    region : numpy.ndarray of bool, shape (I, J)

    Returns
    -------
    numpy.ndarray of bool, shape (I + 2, J + 2)
        One more pixel on every side. The region itself stays visible, however few pixels it has.
    """
    found = np.zeros((region.shape[0] + 2, region.shape[1] + 2), dtype=bool)
    for rows, columns in ((slice(0, -2), slice(1, -1)), (slice(2, None), slice(1, -1)),
                          (slice(1, -1), slice(0, -2)), (slice(1, -1), slice(2, None))):  # fmt: skip
        found[rows, columns] |= region
    found[1:-1, 1:-1] &= ~region
    return found


class _Box(NamedTuple):
    """The part of a volume that is displayed: the bounding box of a mask, its axes turned to RAS."""

    orientation: FloatArray
    slices: tuple[slice, ...]
    grid: Grid

    @classmethod
    def around(cls, mask: BoolArray, affine: FloatArray) -> _Box:
        """Find the box of a mask that is not empty."""
        turned, canonical = to_canonical(mask, affine)
        bounds = bounds_of(turned)
        box = tuple(slice(first, last + 1) for first, last in bounds)
        shape = tuple(cut.stop - cut.start for cut in box)
        voxel_size = np.linalg.norm(canonical[:3, :3], axis=0)
        middle = canonical[:3, :3] @ np.mean(bounds, axis=1) + canonical[:3, 3]
        tilt = np.abs(canonical[:3, :3] - np.diag(voxel_size)).max() / voxel_size.min()
        grid = Grid(middle - voxel_size * np.array(shape) / 2, voxel_size, shape, oblique=bool(tilt > 0.02))
        return cls(orientations.io_orientation(affine), box, grid)

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Turn a volume on the mask's grid, and cut it to the box."""
        turned: NDArray[Any] = orientations.apply_orientation(volume, self.orientation)[self.slices]
        return turned


def _grey_background(inside: BoolArray, background: FloatArray | None, planes: list[int]) -> FloatArray:
    """Grey level (0–1) of voxels of some planes: the background within its 2nd to 98th percentile, or plain paper."""
    shown = inside[:, :, planes]
    plain = np.where(shown, np.float32(PAPER), np.float32(1))
    if background is None:
        return plain
    values = background[inside]
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2, 98]) if values.size else (0.0, 0.0)
    if high <= low:
        return plain
    # Not down to black: colours must stay readable on top, and the page around is white.
    own = np.asarray(background[:, :, planes], dtype=np.float32)
    grey = 0.2 + 0.75 * np.clip((own - low) / (high - low), 0, 1)
    return np.where(shown & np.isfinite(own), grey, plain)


def _blend(base: FloatArray, values: FloatArray, scale: ColourScale) -> FloatArray:
    """Lay coloured values over grey: opaque from the threshold on, dimmed below, absent where NaN."""
    opacity = np.where(scale.passes(values), 1.0, DIM) * np.isfinite(values)
    return np.asarray(base[..., None] * (1 - opacity[..., None]) + scale.colours(values) * opacity[..., None])


def _count_colours(n_inputs: int) -> FloatArray:
    """Colours (n_inputs + 1, 3) of the counts 0 … n_inputs; nothing is white."""
    shades = look_up(COUNTS, np.linspace(0, 1, n_inputs) if n_inputs > 1 else np.ones(1))
    return np.vstack([[1.0, 1.0, 1.0], shades])


def _summary(values: FloatArray, n_passing: int, scale: ColourScale, unit: str) -> str:
    """One line of facts: the range, and how much of the map passes the threshold."""
    text = f"range {number(float(values.min()))} to {number(float(values.max()))} {unit}"
    if scale.threshold is None:
        return f"{text}; {values.size} voxels"
    limit = f"|value| ≥ {number(scale.threshold)}" if math.isfinite(scale.threshold) else "the threshold"
    verb = "with" if math.isfinite(scale.threshold) else "beyond"
    return f"{text}; {n_passing} of {values.size} voxels {verb} {limit}"


# Layout and drawing -------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """Places in pixels: how many a millimetre takes, and where the rows begin."""

    height: float
    header: float
    glass_scale: float
    glass_height: float
    slice_scale: float
    slice_top: float
    slice_columns: int
    slice_pitch: float  # from one row of slices to the next

    @classmethod
    def for_grid(cls, grid: Grid, n_slices: int, *, header: float, glass: bool) -> _Layout:
        """Fit the rows to the width of the picture without letting a small box grow absurdly large."""
        x, y, z = (float(size) for size in grid.size)
        room = WIDTH - 2 * MARGIN - BAR_SPACE
        columns = min(n_slices, SLICES_PER_ROW)
        rows = math.ceil(n_slices / columns)
        slice_scale = min((room - (columns - 1) * SLICE_GAP) / (columns * x), 175 / y)
        slice_pitch = slice_scale * y + 30
        # Each projection needs room at its left for coordinates.
        glass_scale = min((room - 3 * PROJECTION_GAP) / (2 * x + y), 240 / max(y, z)) if glass else 0.0
        glass_height = glass_scale * max(y, z)
        slice_top = header + (glass_height + 66 if glass else 4)
        # The colour bar needs some height to be read, however flat the brain.
        height = max(slice_top + rows * slice_pitch + 24, header + 190)
        return cls(
            height=height,
            header=header,
            glass_scale=glass_scale,
            glass_height=glass_height,
            slice_scale=slice_scale,
            slice_top=slice_top,
            slice_columns=columns,
            slice_pitch=slice_pitch,
        )


def _draw_glass(
    canvas: Canvas, layout: _Layout, shown: FloatArray, inside: BoolArray, grid: Grid, scale: ColourScale
) -> None:
    """Draw the three projections (sagittal, coronal, axial) of the values shown in a row."""
    sizes = [
        (grid.size[h] * layout.glass_scale, grid.size[v] * layout.glass_scale) for h, v in ((1, 2), (0, 2), (0, 1))
    ]
    space = (WIDTH - 2 * MARGIN - BAR_SPACE - sum(width for width, _ in sizes)) / 3
    nothing = bool(np.isnan(shown).all())
    left = float(MARGIN)
    for along, (width, height) in enumerate(sizes):
        # Wide gaps are shared out evenly, with the larger part at the left where the labels are.
        left += max(space / 2, PROJECTION_GAP - 5)
        top = layout.header + 16 + (layout.glass_height - height) / 2
        horizontal, vertical = (axis for axis in range(3) if axis != along)
        panel = Panel(
            canvas=canvas,
            left=left,
            top=top,
            width=width,
            height=height,
            x_range=grid.extent(horizontal),
            y_range=grid.extent(vertical),
        )
        _draw_projection(panel, shown, np.asarray(inside.any(axis=along)), scale, along)
        _draw_projection_axes(panel, grid, horizontal, vertical)
        if along == 1 and nothing:
            _write_none_survives(panel)
        left += width + space - max(space / 2, PROJECTION_GAP - 5)


def _draw_projection(panel: Panel, shown: FloatArray, silhouette: BoolArray, scale: ColourScale, along: int) -> None:
    projection = signed_maximum_projection(shown, along)
    paper = np.where(silhouette, GLASS, 1.0)[..., None]
    picture = to_bytes(np.where(np.isfinite(projection)[..., None], scale.colours(projection), paper))
    panel.canvas.paste(_enlarged(picture, panel), panel.left, panel.top)
    _draw_rim(panel, silhouette, MUTED)


def _draw_projection_axes(panel: Panel, grid: Grid, horizontal: int, vertical: int) -> None:
    about = "≈ " if grid.oblique else ""
    around = Panel(panel.canvas, panel.left - EDGE, panel.top - EDGE, panel.width + 2 * EDGE, panel.height + 2 * EDGE)
    around.frame("left bottom")
    # The axes stand a little apart; their ticks are those of the brain.
    around.x_range = _widened(panel.x_range, EDGE / panel.width)
    around.y_range = _widened(panel.y_range, EDGE / panel.height)
    ticks = [
        round_ticks(*grid.extent(axis), int(np.clip(size / 40, 1, 5)))
        for axis, size in ((horizontal, panel.width), (vertical, panel.height))
    ]
    around.ticks_below(ticks[0], f"{about}{AXIS_NAMES[horizontal]} (mm)")
    around.ticks_left(ticks[1], f"{about}{AXIS_NAMES[vertical]} (mm)", distance=5)
    for x, letter, across in ((around.left, ENDS[horizontal][0], "left"), (around.right, ENDS[horizontal][1], "right")):
        panel.canvas.text(x, around.top - 4, letter, bold=True, across=across, down="bottom")


def _widened(limits: tuple[float, float], fraction: float) -> tuple[float, float]:
    extra = fraction * (limits[1] - limits[0])
    return limits[0] - extra, limits[1] + extra


def _write_none_survives(panel: Panel) -> None:
    message = "no voxel beyond threshold"
    half = math.ceil(text_width(message) / 2) + 6
    x, y = panel.left + panel.width // 2, panel.top + panel.height // 2
    panel.canvas.fill(x - half - 1, y - 12, x + half + 1, y + 12, MUTED)
    panel.canvas.fill(x - half, y - 11, x + half, y + 11, "#ffffff")
    panel.canvas.text(x, y, message, italic=True, across="centre")


def _draw_slices(
    canvas: Canvas,
    layout: _Layout,
    slices: Pixels,
    silhouettes: BoolArray,
    highlights: BoolArray | None,
    heights: list[float],
    grid: Grid,
) -> None:
    """Draw K slices (X, Y, K, 3) row by row, outlines (X, Y, K) on them and `heights` (mm) under them."""
    width, height = grid.size[0] * layout.slice_scale, grid.size[1] * layout.slice_scale
    room = WIDTH - 2 * MARGIN - BAR_SPACE
    used = layout.slice_columns * (width + SLICE_GAP) - SLICE_GAP
    bottom = 0
    for index, z in enumerate(heights):
        row, column = divmod(index, layout.slice_columns)
        left = MARGIN + (room - used) / 2 + column * (width + SLICE_GAP)
        panel = Panel(canvas, left, layout.slice_top + row * layout.slice_pitch, width, height)
        canvas.paste(_enlarged(slices[:, :, index], panel), panel.left, panel.top)
        _draw_rim(panel, silhouettes[:, :, index], OUTLINE)
        if highlights is not None:
            _draw_rim(panel, highlights[:, :, index], "#000000")
        bottom = panel.bottom + 6
        canvas.text(panel.left + width / 2, bottom, number(round(z, 1), 4), across="centre", down="top")
        if index == 0:
            canvas.text(panel.left, bottom, "L", bold=True, down="top")
        if column == layout.slice_columns - 1 or index == len(heights) - 1:
            canvas.text(panel.right, bottom, "R", bold=True, across="right", down="top")
    label = "axial slices at ≈ z (mm)" if grid.oblique else "axial slices at z (mm)"
    canvas.text(MARGIN + room / 2, bottom + 19, label, size=SMALL_FONT + 1, across="centre", down="top")


def _enlarged(picture: Pixels, panel: Panel) -> Pixels:
    """Bring a picture (I, J, 3) whose first axis runs to the right, the second upwards, to the size of a panel."""
    smooth = panel.width / picture.shape[0] < SHARP
    return enlarge(picture[:, ::-1].swapaxes(0, 1), panel.width, panel.height, smooth=smooth)


def _draw_rim(panel: Panel, region: BoolArray, colour: str) -> None:
    """Outline a region (I, J) of a panel along the edges of its voxels.

    Not along an interpolated contour, which on grids of 25 mm would cut off the very voxels it should enclose.
    """
    columns, rows = nearest(region.shape[0], panel.width), nearest(region.shape[1], panel.height)[::-1]
    found = rim(region.T[rows][:, columns])
    part, cut = panel.canvas.overlap(found.shape, panel.left - 1, panel.top - 1)
    part[found[cut]] = rgb(colour)


def _bar_panel(canvas: Canvas, layout: _Layout, y_range: tuple[float, float]) -> Panel:
    content = layout.height - layout.header
    height = min(content - 50, 300)
    top = layout.header + (content - height) / 2 - 5
    return Panel(
        canvas=canvas,
        left=WIDTH - MARGIN - 75,
        top=top,
        width=BAR_WIDTH,
        height=height,
        x_range=(0, 1),
        y_range=y_range,
    )


def _draw_signed_bar(canvas: Canvas, layout: _Layout, scale: ColourScale, unit: str) -> None:
    """Draw the colour bar, dimmed below the threshold as in the slices, with the threshold marked."""
    panel = _bar_panel(canvas, layout, (-scale.vmax, scale.vmax))
    values = scale.vmax * (1 - 2 * (np.arange(panel.height)[:, None] + 0.5) / panel.height)
    colours = to_bytes(_blend(np.full(values.shape, PAPER), values, scale))
    canvas.paste(np.repeat(colours, panel.width, axis=1), panel.left, panel.top)
    panel.frame()
    panel.ticks_right(round_ticks(-scale.vmax, scale.vmax, 8), unit)
    if scale.threshold is None or not 0 < scale.threshold <= scale.vmax:
        return
    for mark in (-scale.threshold, scale.threshold):
        y = panel.y(mark)
        canvas.fill(panel.left, y - 1, panel.right, y + 1, "#000000")
        canvas.text(panel.left - 4, y, number(mark), colour=INK, bold=True, across="right")


def _draw_count_bar(canvas: Canvas, layout: _Layout, palette: FloatArray, unit: str) -> None:
    """Draw one block per count from 0 to n."""
    n_inputs = len(palette) - 1
    panel = _bar_panel(canvas, layout, (-0.5, n_inputs + 0.5))
    canvas.paste(enlarge(to_bytes(palette[::-1, None]), panel.width, panel.height), panel.left, panel.top)
    panel.frame()
    panel.ticks_right(round_ticks(0, n_inputs, 8, whole=True), unit)

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
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nibabel import orientations
from numpy.typing import NDArray

from sessionfx.report.plots import (
    DIVERGING,
    FONT,
    MUTED,
    WIDTH,
    FloatArray,
    axes_in_inches,
    figure_to_png,
    header_height,
    label_axes,
    message_png,
    new_figure,
    number,
    write,
    write_header,
)

BoolArray = NDArray[np.bool_]

DIM = 0.45
"""Opacity of values below the threshold in slices."""

PAPER = 0.9
"""Grey level of the mask where no background picture is given (0 black, 1 white)."""

MARGIN = 0.12
"""Space left around the figure (inches)."""

BAR_SPACE = 1.15
"""Width kept at the right for the colour bar, its labels and the threshold marks (inches)."""

SLICE_GAP = 0.06
"""Space between slices (inches)."""

SLICES_PER_ROW = 8
"""Further slices begin a new row."""

PROJECTION_GAP = 0.72
"""Space for coordinates at the left of each projection (inches)."""

GLASS_EDGE = 0.04
"""Space between the glass brain and its axes (inches)."""

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
        return self.voxel_size * np.array(self.shape)

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
        rgb: FloatArray = DIVERGING(np.nan_to_num(values) / (2 * self.vmax) + 0.5)[..., :3]
        return rgb


# Public pictures ----------------------------------------------------------------------------------


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
    mask : numpy.ndarray of bool, shape (X, Y, Z)
        Voxels outside are not data.
    affine : numpy.ndarray, shape (4, 4)
        Voxel index to mm.
    title, unit : str
        Unit as written at the colour bar, e.g. ``"z"`` or ``"percent signal change"``.
    threshold : float, optional
        Voxels with ``|value| >= threshold`` are shown in the glass brain and highlighted in slices.
        Infinity (nothing is significant) is allowed. Without a threshold everything is opaque.
    background : numpy.ndarray, shape (X, Y, Z), optional
        Picture under the slices, e.g. the mean BOLD volume.
    n_slices : int, default: 8
        Number of axial slices, spaced evenly through the mask; fewer when the grid has fewer.
    vmax : float, optional
        Value at the ends of the colour bar. By default the 99.5th percentile of ``|values|`` in the
        mask, and at least 1.1 times the threshold.

    Returns
    -------
    bytes
        PNG.
    """
    volumes = [np.asarray(mask, dtype=bool), np.asarray(values, dtype=float)]
    if background is not None:
        volumes.append(np.asarray(background, dtype=float))
    if not volumes[0].any():
        return message_png(title, "empty mask")
    (inside, data, *rest), grid = _displayed_box(volumes, affine)
    data = np.where(inside & np.isfinite(data), data, np.nan)
    if not np.isfinite(data).any():
        return message_png(title, "no finite value in the mask")

    scale = colour_scale(data, threshold, vmax)
    base = _grey_background(inside, rest[0] if rest else None)
    planes = slice_indices(grid.shape[2], n_slices)
    layout = _Layout.for_grid(grid, len(planes), header=header_height(title, WIDTH), glass=True)
    figure = new_figure(WIDTH, layout.height)
    write_header(figure, title, _summary(data, scale, unit))
    _draw_glass(figure, layout, data, inside, grid, scale)
    slices = [_blend(base[:, :, k], data[:, :, k], scale) for k in planes]
    highlights = [] if scale.threshold is None else [scale.passes(data[:, :, k]) for k in planes]
    silhouettes = [inside[:, :, k] for k in planes]
    _draw_slices(figure, layout, slices, silhouettes, highlights, [grid.centre(2, k) for k in planes], grid)
    _draw_signed_bar(figure, layout, scale, unit)
    return figure_to_png(figure)


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
    if not (whole > 0).any():
        return message_png(title, "no voxel is covered")
    (covered, box), grid = _displayed_box([whole > 0, whole], affine)
    planes = slice_indices(grid.shape[2], 16)
    layout = _Layout.for_grid(grid, len(planes), header=header_height(title, WIDTH), glass=False)
    figure = new_figure(WIDTH, layout.height)
    full, partial = int((box >= n_inputs).sum()), int(((box > 0) & (box < n_inputs)).sum())
    write_header(figure, title, f"{full} voxels covered by all {n_inputs} {unit}, {partial} by fewer")
    palette = _count_colours(n_inputs)
    slices = [palette[np.clip(box[:, :, k].astype(int), 0, n_inputs)] for k in planes]
    silhouettes = [covered[:, :, k] for k in planes]
    _draw_slices(figure, layout, slices, silhouettes, [], [grid.centre(2, k) for k in planes], grid)
    _draw_count_bar(figure, layout, palette, unit)
    return figure_to_png(figure)


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


def outline(region: BoolArray) -> FloatArray:
    """Find the voxel edges between a 2-D region and what is not in it.

    Contours run along voxel edges rather than through voxel centres: on grids of 25 mm an interpolated
    contour would cut off the very voxels it should enclose.

    Parameters
    ----------
    region : numpy.ndarray of bool, shape (I, J)

    Returns
    -------
    numpy.ndarray, shape (N, 2, 2)
        Segments (start, end) × (i, j) in voxel units; voxel 0 spans 0 to 1.
    """
    padded = np.pad(region, 1).astype(np.int8)
    lines_of_i = _straight_runs(np.diff(padded, axis=0)[:, 1:-1] != 0)
    lines_of_j = _straight_runs(np.diff(padded, axis=1)[1:-1].T != 0)[..., ::-1]
    return np.concatenate([lines_of_i, lines_of_j])


def _straight_runs(edges: BoolArray) -> FloatArray:
    """Join neighbouring edges of each row into one segment, (N, 2, 2) as in `outline`.

    Drawn one by one, edges would overlap at their ends and show as dots.
    """
    row, position = np.nonzero(edges)
    if not row.size:
        return np.empty((0, 2, 2))
    breaks = np.flatnonzero((np.diff(row) != 0) | (np.diff(position) != 1)) + 1
    first, last = np.r_[0, breaks], np.r_[breaks, row.size] - 1
    start = np.stack([row[first], position[first]], axis=-1)
    end = np.stack([row[last], position[last] + 1], axis=-1)
    return np.stack([start, end], axis=1).astype(float)


def _displayed_box(volumes: list[NDArray[Any]], affine: FloatArray) -> tuple[list[NDArray[Any]], Grid]:
    """Reorient volumes and cut them to the bounding box of the first (bool, not empty)."""
    turned = [to_canonical(volume, affine) for volume in volumes]
    mask, canonical = turned[0]
    bounds = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    box = tuple(slice(int(first), int(last) + 1) for first, last in bounds)
    shape = tuple(cut.stop - cut.start for cut in box)
    voxel_size = np.linalg.norm(canonical[:3, :3], axis=0)
    middle = canonical[:3, :3] @ np.mean(bounds, axis=1) + canonical[:3, 3]
    tilt = np.abs(canonical[:3, :3] - np.diag(voxel_size)).max() / voxel_size.min()
    grid = Grid(middle - voxel_size * np.array(shape) / 2, voxel_size, shape, oblique=bool(tilt > 0.02))
    return [volume[box] for volume, _ in turned], grid


def _grey_background(inside: BoolArray, background: FloatArray | None) -> FloatArray:
    """Grey level (0–1) of each voxel: the background within its 2nd to 98th percentile, or plain paper."""
    plain = np.where(inside, PAPER, 1.0)
    if background is None:
        return plain
    known = np.isfinite(background)
    if not (known & inside).any():
        return plain
    low, high = np.percentile(background[known & inside], [2, 98])
    if high <= low:
        return plain
    # Not down to black: colours must stay readable on top, and the page around is white.
    grey = 0.2 + 0.75 * np.clip((background - low) / (high - low), 0, 1)
    return np.where(known, np.where(inside, grey, 1.0), plain)


def _blend(base: FloatArray, values: FloatArray, scale: ColourScale) -> FloatArray:
    """Lay coloured values over grey: opaque from the threshold on, dimmed below, absent where NaN."""
    opacity = np.where(scale.passes(values), 1.0, DIM) * np.isfinite(values)
    return base[..., None] * (1 - opacity[..., None]) + scale.colours(values) * opacity[..., None]


def _count_colours(n_inputs: int) -> FloatArray:
    """Colours (n_inputs + 1, 3) of the counts 0 … n_inputs; nothing is white."""
    # Full coverage, the usual case, is calm and dark; what is missing is bright.
    shades = colormaps["viridis_r"](np.linspace(0.05, 0.75, n_inputs) if n_inputs > 1 else [0.75])
    return np.vstack([[1.0, 1.0, 1.0], shades[:, :3]])


def _summary(data: FloatArray, scale: ColourScale, unit: str) -> str:
    """One line of facts: the range, and how much of the map passes the threshold."""
    finite = np.isfinite(data)
    text = f"range {number(float(data[finite].min()))} to {number(float(data[finite].max()))} {unit}"
    if scale.threshold is None:
        return f"{text}; {finite.sum()} voxels"
    limit = f"|value| ≥ {number(scale.threshold)}" if math.isfinite(scale.threshold) else "the threshold"
    verb = "with" if math.isfinite(scale.threshold) else "beyond"
    return f"{text}; {scale.passes(data).sum()} of {finite.sum()} voxels {verb} {limit}"


# Layout and drawing -------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """Places in inches: how many inches a millimetre takes, and where the rows begin."""

    height: float
    content: float  # height below the header
    glass_scale: float
    glass_bottom: float
    glass_height: float
    slice_scale: float
    slice_bottom: float
    slice_columns: int
    slice_rows: int
    slice_pitch: float  # from one row of slices to the next

    @classmethod
    def for_grid(cls, grid: Grid, n_slices: int, *, header: float, glass: bool) -> _Layout:
        """Fit the rows to the width of the figure without letting a small box grow absurdly large."""
        x, y, z = (float(size) for size in grid.size)
        room = WIDTH - 2 * MARGIN - BAR_SPACE
        columns = min(n_slices, SLICES_PER_ROW)
        rows = math.ceil(n_slices / columns)
        slice_scale = min((room - (columns - 1) * SLICE_GAP) / (columns * x), 1.75 / y)
        slice_pitch = slice_scale * y + 0.3
        slice_bottom = 0.26
        glass_bottom = slice_bottom + rows * slice_pitch + 0.4
        # Each projection needs room at its left for coordinates.
        glass_scale = min((room - 3 * PROJECTION_GAP) / (2 * x + y), 2.4 / max(y, z)) if glass else 0.0
        glass_height = glass_scale * max(y, z)
        content = glass_bottom + glass_height + 0.2 if glass else slice_bottom + rows * slice_pitch
        # The colour bar needs some height to be read, however flat the brain.
        content = max(content, 1.9)
        return cls(
            height=content + header,
            content=content,
            glass_scale=glass_scale,
            glass_bottom=glass_bottom,
            glass_height=glass_height,
            slice_scale=slice_scale,
            slice_bottom=slice_bottom,
            slice_columns=columns,
            slice_rows=rows,
            slice_pitch=slice_pitch,
        )


def _draw_glass(
    figure: Figure, layout: _Layout, data: FloatArray, mask: BoolArray, grid: Grid, scale: ColourScale
) -> None:
    """Draw the three projections (sagittal, coronal, axial) in a row."""
    shown = np.where(scale.passes(data), data, np.nan)
    sizes = [
        (grid.size[h] * layout.glass_scale, grid.size[v] * layout.glass_scale) for h, v in ((1, 2), (0, 2), (0, 1))
    ]
    room = WIDTH - 2 * MARGIN - BAR_SPACE
    space = (room - sum(width for width, _ in sizes)) / 3
    left = MARGIN
    for along, (width, height) in enumerate(sizes):
        # Wide gaps are shared out evenly, with the larger part at the left where the labels are.
        left += max(space / 2, PROJECTION_GAP - 0.05)
        bottom = layout.glass_bottom + (layout.glass_height - height) / 2
        axes = axes_in_inches(
            figure, left - GLASS_EDGE, bottom - GLASS_EDGE, width + 2 * GLASS_EDGE, height + 2 * GLASS_EDGE
        )
        projection = signed_maximum_projection(shown, along)
        _draw_projection(axes, layout, projection, np.any(mask, axis=along), grid, scale, along)
        if along == 1 and not np.isfinite(projection).any():
            _write_none_survives(axes)
        left += width + space - max(space / 2, PROJECTION_GAP - 0.05)


def _write_none_survives(axes: Axes) -> None:
    style = {"ha": "center", "va": "center", "style": "italic", "fontsize": FONT}
    frame = {"facecolor": "white", "edgecolor": MUTED, "linewidth": 0.7, "boxstyle": "round,pad=0.35"}
    write(axes, 0.5, 0.5, "no voxel beyond threshold", transform=axes.transAxes, bbox=frame, **style)


def _draw_projection(
    axes: Axes,
    layout: _Layout,
    projection: FloatArray,
    silhouette: BoolArray,
    grid: Grid,
    scale: ColourScale,
    along: int,
) -> None:
    horizontal, vertical = (axis for axis in range(3) if axis != along)
    extent = (*grid.extent(horizontal), *grid.extent(vertical))
    paper = np.where(silhouette, 0.965, 1.0)[..., None]
    picture = np.where(np.isfinite(projection)[..., None], scale.colours(projection), paper)
    axes.imshow(_upright(picture), extent=extent, origin="lower", aspect="auto", interpolation="antialiased")
    step = grid.voxel_size[[horizontal, vertical]]
    segments = outline(silhouette) * step + grid.low[[horizontal, vertical]]
    _add_outline(axes, segments, MUTED, 1.1)
    edge = GLASS_EDGE / layout.glass_scale
    axes.set(xlim=(extent[0] - edge, extent[1] + edge), ylim=(extent[2] - edge, extent[3] + edge))
    for ticks, axis in ((axes.xaxis, horizontal), (axes.yaxis, vertical)):
        most = int(np.clip(grid.size[axis] * layout.glass_scale / 0.4, 1, 5))
        ticks.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    about = "≈ " if grid.oblique else ""
    label_axes(axes, f"{about}{AXIS_NAMES[horizontal]} (mm)", f"{about}{AXIS_NAMES[vertical]} (mm)")
    axes.xaxis.labelpad = axes.yaxis.labelpad = 1
    for place, letter in zip((0.0, 1.0), ENDS[horizontal], strict=True):
        side = "left" if place == 0 else "right"
        style = {"transform": axes.transAxes, "ha": side, "va": "bottom", "fontweight": "bold"}
        write(axes, place, 1.0, letter, **style)


def _draw_slices(
    figure: Figure,
    layout: _Layout,
    slices: list[FloatArray],
    silhouettes: list[BoolArray],
    highlights: list[BoolArray],
    heights: list[float],
    grid: Grid,
) -> None:
    """Draw slices (X, Y, 3) row by row, outlines on them and `heights` (mm) under them.

    All slices share one set of axes measured in inches: axes are what costs time in matplotlib.
    """
    width, height = grid.size[0] * layout.slice_scale, grid.size[1] * layout.slice_scale
    full_height = layout.slice_rows * layout.slice_pitch
    full_width = WIDTH - 2 * MARGIN - BAR_SPACE
    used = layout.slice_columns * (width + SLICE_GAP) - SLICE_GAP
    axes = axes_in_inches(figure, MARGIN, layout.slice_bottom, full_width, full_height)
    axes.set_axis_off()
    step = np.array([width, height]) / np.array(grid.shape[:2])
    grey: list[FloatArray] = []
    black: list[FloatArray] = []
    for index, (picture, z) in enumerate(zip(slices, heights, strict=True)):
        row, column = divmod(index, layout.slice_columns)
        left = (full_width - used) / 2 + column * (width + SLICE_GAP)
        bottom = full_height - (row + 1) * layout.slice_pitch + 0.25
        axes.imshow(
            _upright(picture),
            extent=(left, left + width, bottom, bottom + height),
            origin="lower",
            aspect="auto",
            interpolation="antialiased",
        )
        grey.append(outline(silhouettes[index]) * step + (left, bottom))
        if highlights:
            black.append(outline(highlights[index]) * step + (left, bottom))
        write(axes, left + width / 2, bottom - 0.05, f"{number(round(z, 1), 4)}", ha="center", va="top")
        if index == 0:
            write(axes, left, bottom - 0.05, "L", ha="left", va="top", fontweight="bold")
        if column == layout.slice_columns - 1 or index == len(slices) - 1:
            write(axes, left + width, bottom - 0.05, "R", ha="right", va="top", fontweight="bold")
    for outlines, colour, linewidth in ((grey, "#9a9a9a", 0.6), (black, "black", 0.8)):
        if outlines:
            _add_outline(axes, np.concatenate(outlines), colour, linewidth)
    axes.set(xlim=(0, full_width), ylim=(0, full_height))
    label = "axial slices at ≈ z (mm)" if grid.oblique else "axial slices at z (mm)"
    write(axes, full_width / 2, 0.02, label, ha="center", va="top", fontsize=FONT)


def _add_outline(axes: Axes, segments: FloatArray, colour: str, linewidth: float) -> None:
    # Not clipped: the outline of a box that fills its axes lies half outside.
    lines = LineCollection(list(segments), colors=colour, linewidths=linewidth, capstyle="projecting", clip_on=False)
    axes.add_collection(lines, autolim=False)


def _bar_axes(figure: Figure, layout: _Layout) -> Axes:
    height = min(layout.content - 0.5, 3.0)
    axes = axes_in_inches(figure, WIDTH - MARGIN - 0.75, (layout.content - height) / 2 + 0.05, 0.17, height)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    return axes


def _draw_signed_bar(figure: Figure, layout: _Layout, scale: ColourScale, unit: str) -> None:
    """Draw the colour bar, dimmed below the threshold as in the slices, with the threshold marked."""
    axes = _bar_axes(figure, layout)
    values = np.linspace(-scale.vmax, scale.vmax, 400)[:, None]
    axes.imshow(
        _blend(np.full(values.shape, PAPER), values, scale),
        extent=(0, 1, -scale.vmax, scale.vmax),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    label_axes(axes, y=unit)
    if scale.threshold is None or not 0 < scale.threshold <= scale.vmax:
        return
    for mark in (-scale.threshold, scale.threshold):
        axes.axhline(mark, color="black", linewidth=1.2)
        write(axes, -0.1, mark, number(mark), ha="right", va="center", fontweight="bold")


def _draw_count_bar(figure: Figure, layout: _Layout, palette: FloatArray, unit: str) -> None:
    """Draw one block per count from 0 to n."""
    axes = _bar_axes(figure, layout)
    n_inputs = len(palette) - 1
    axes.imshow(
        palette[:, None],
        extent=(0, 1, -0.5, n_inputs + 0.5),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(-0.5, n_inputs + 0.5)
    label_axes(axes, y=unit)


def _upright(picture: FloatArray) -> FloatArray:
    """Swap the first two axes: matplotlib wants rows (vertical) first, volumes have x first."""
    return np.clip(picture, 0, 1).swapaxes(0, 1)

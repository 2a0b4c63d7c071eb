"""The picture of the brain on which maps of a space are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sessionfx.report.canvas import BoolArray, Canvas, joined
from sessionfx.report.mosaic import Anatomy, axial_cuts, template
from sessionfx.report.surface_views import surface_views
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface

_WIDTH_BELOW = 300  # pixels of the cuts through what is below the cortex


def canvas_for(
    space: Space, mask: BoolArray, anatomy: Anatomy | None = None, peaks: Sequence[float] = ()
) -> Canvas | None:
    """Give the picture for the features of a mask, which is not empty; None where there is no mesh to draw.

    Volumes have their anatomy under them, and cuts through peaks (heights in mm, the most important first).
    """
    if isinstance(space, Grid):
        return axial_cuts(mask, space, anatomy, peaks)
    assert isinstance(space, Surface | Grayordinates)  # noqa: S101 - there are no others
    cortex = surface_views(space, mask)
    if cortex is None or isinstance(space, Surface):
        return cortex
    features, grid = space.at_voxels()
    inside = (features >= 0) & mask[features]
    if not inside.any():
        return cortex
    cuts = axial_cuts(inside, grid, template(), peaks, n_rows=3, width=_WIDTH_BELOW)
    shown = np.where(cuts.features >= 0, features.ravel()[cuts.features], -1)
    return joined([cortex, replace(cuts, features=shown)], axis=1)

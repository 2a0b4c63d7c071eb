"""The picture of the brain on which maps of a space are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessionfx.report.canvas import BoolArray, Canvas, side_by_side
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
    """Give the picture for the features of a mask; None where there is no mesh to draw.

    Parameters
    ----------
    space : Space
    mask : ndarray of bool, of the space's shape
        Not empty.
    anatomy : Anatomy or None
        Under volumes; plain grey without.
    peaks : sequence of float, default: ()
        Heights (mm) through which cuts should go, the most important first.
    """
    if isinstance(space, Grid):
        return axial_cuts(mask, space, anatomy, peaks)
    if isinstance(space, Surface):
        return surface_views(space, mask)
    assert isinstance(space, Grayordinates)  # noqa: S101 - there are no others
    cortex = surface_views(space, mask)
    features, grid = space.at_voxels()
    inside = (features >= 0) & mask[features]
    if cortex is None or not inside.any():
        return cortex
    cuts = axial_cuts(inside, grid, template(), peaks, n_rows=3, width=_WIDTH_BELOW)
    below = Canvas(np.where(cuts.features >= 0, features.ravel()[cuts.features], -1), cuts.under, cuts.form)
    return side_by_side(cortex, below)

"""The picture of the brain on which maps of a space are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from sessionfx.report.canvas import BoolArray, Canvas
from sessionfx.report.mosaic import Anatomy, axial_cuts
from sessionfx.report.surface_views import surface_views
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface


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
    return surface_views(space, mask) if isinstance(space, Surface) else None

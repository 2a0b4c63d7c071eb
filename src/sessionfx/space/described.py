"""Spaces as JSON, for files that are kept between calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sessionfx.space.grayordinates import Grayordinates, grayordinates_of
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface


def describe(space: Space) -> dict[str, Any]:
    """Write a space as JSON."""
    if isinstance(space, Surface):
        return {"surface": space.name, "vertices": dict(space.vertices)}
    if isinstance(space, Grayordinates):
        return {"models": space.models.decode()}
    grid = space.as_grid()
    return {"shape": grid.shape, "affine": grid.affine.tolist()}


def described(content: Mapping[str, Any]) -> Space:
    """Read what `describe` wrote."""
    if "surface" in content:
        return Surface(content["surface"], content["vertices"])
    if "models" in content:
        return grayordinates_of(content["models"].encode())
    x, y, z = content["shape"]
    return Grid((x, y, z), np.array(content["affine"]))

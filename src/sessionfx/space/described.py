"""Spaces as JSON, for files that are kept between calls; and JSON in the words of a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sessionfx.space.grayordinates import Grayordinates, grayordinates_of
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface

KINDS: tuple[type[Space], ...] = (Grid, Surface, Grayordinates)
# Fields of sidecars that say of voxels what holds in every space
_SENTENCES = ("Description", "SignalScaling", "Caution")


def kind_of(extension: str) -> type[Space]:
    """Say what kind of space maps have by how their names end."""
    return next(kind for kind in KINDS if kind.extension == extension)


def described_in(kind: type[Space], content: Mapping[str, Any]) -> dict[str, Any]:
    """Say of the features of a space what the sentences of a sidecar, and of its columns, say of voxels."""
    return {
        key: described_in(kind, value) if isinstance(value, Mapping)
        else kind.in_words(value) if key in _SENTENCES and isinstance(value, str)
        else value
        for key, value in content.items()
    }  # fmt: skip


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

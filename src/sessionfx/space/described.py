"""Spaces as JSON, for files that are kept between calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface


def describe(space: Space) -> dict[str, Any]:
    """Write a space as JSON."""
    if isinstance(space, Surface):
        return {"surface": space.name, "vertices": dict(space.vertices)}
    if isinstance(space, Grayordinates):
        return {"models": space.axis.to_mapping(0).to_xml().decode()}
    grid = space.as_grid()
    return {"shape": grid.shape, "affine": grid.affine.tolist()}


def described(content: Mapping[str, Any]) -> Space:
    """Read what `describe` wrote."""
    if "surface" in content:
        return Surface(content["surface"], content["vertices"])
    if "models" in content:
        from nibabel.cifti2.cifti2_axes import BrainModelAxis
        from nibabel.cifti2.parse_cifti2 import Cifti2Parser

        text = f'<CIFTI Version="2"><Matrix>{content["models"]}</Matrix></CIFTI>'
        parser: Any = Cifti2Parser()
        parser.parse(string=text.encode())
        return Grayordinates(BrainModelAxis.from_index_mapping(parser.header.matrix.get_index_map(0)))
    x, y, z = content["shape"]
    return Grid((x, y, z), np.array(content["affine"]))

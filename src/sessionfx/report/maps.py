"""The two pictures that stand for a map in both reports: its z and its effect."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from sessionfx.maps import EstimateMap
from sessionfx.report.brain import draw_stat_map


def draw_maps(
    one: EstimateMap,
    title: str,
    threshold: float,
    z_max: float | None,
    effect_max: float | None,
    background: NDArray[Any] | None = None,
) -> tuple[bytes, bytes]:
    """Draw the z map with its threshold, and the effect map.

    Parameters
    ----------
    one : EstimateMap
    title : str
    threshold : float
        On |z|.
    z_max, effect_max : float or None
        Ends of the colour scales; None to take them from the map.
    background : ndarray, 3-D, optional
        Shown in grey under the slices.

    Returns
    -------
    z, effect : bytes
        PNG files.
    """
    z = draw_stat_map(
        one.volume(one.estimate.z),
        one.mask,
        one.grid.affine,
        title=f"{title}: z",
        unit="z",
        threshold=threshold,
        background=background,
        vmax=z_max,
    )
    effect = draw_stat_map(
        one.volume(one.estimate.effect),
        one.mask,
        one.grid.affine,
        title=f"{title}: effect",
        unit="percent signal change",
        background=background,
        vmax=effect_max,
    )
    return z, effect

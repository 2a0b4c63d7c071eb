"""The two pictures that stand for a map in both reports: its z and its effect."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from sessionfx.maps import Located
from sessionfx.report.brain import draw_stat_map
from sessionfx.statistics.estimates import Estimate, FTest


def draw_maps(
    one: Located[Estimate] | Located[Estimate | FTest],
    title: str,
    threshold: float,
    z_max: float | None,
    effect_max: float | None,
    background: NDArray[Any] | None = None,
    units: str = "percent signal change",
) -> dict[str, bytes]:
    """Draw the z map with its threshold, and the effect map, which an F test has not.

    Parameters
    ----------
    one : Located
    title : str
    threshold : float
        On |z|.
    z_max, effect_max : float or None
        Ends of the colour scales; None to take them from the map.
    background : ndarray, 3-D, optional
        Shown in grey under the slices.
    units : str, default="percent signal change"
        Of the effect.

    Returns
    -------
    dict of str to bytes
        PNG files `z` and `effect`. An F test has no effect, and of its z the upper tail is drawn.
    """
    z_values = one.estimate.z
    z = draw_stat_map(
        one.volume(z_values if one.estimate.two_sided else z_values.clip(min=0)),
        one.mask,
        one.grid.affine,
        title=f"{title}: z",
        unit="z",
        threshold=threshold,
        background=background,
        vmax=z_max,
    )
    if not isinstance(one.estimate, Estimate):
        return {"z": z}
    effect = draw_stat_map(
        one.volume(one.estimate.effect),
        one.mask,
        one.grid.affine,
        title=f"{title}: effect",
        unit=units,
        background=background,
        vmax=effect_max,
    )
    return {"z": z, "effect": effect}

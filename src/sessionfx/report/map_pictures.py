"""The two pictures that stand for a map in both reports: its z and its effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sessionfx.report.brain import BrainView
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate, FTest

if TYPE_CHECKING:
    from sessionfx.report.style import Picture


def as_picture(png: bytes, alt: str, caption: str = "") -> Picture:
    """Give a PNG its words."""
    from sessionfx.report.style import Picture

    return Picture(png, "png", alt, caption)


def draw_maps(
    stat_map: StatMap[Estimate] | StatMap[Estimate | FTest],
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
    stat_map : StatMap
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
    view = BrainView(stat_map.mask, stat_map.grid.affine, background)
    z = stat_map.estimate.z if stat_map.estimate.two_sided else stat_map.estimate.z.clip(min=0)
    drawn = {"z": view.draw(stat_map.volume(z), title=f"{title}: z", unit="z", threshold=threshold, vmax=z_max)}
    if isinstance(stat_map.estimate, Estimate):
        effect = stat_map.volume(stat_map.estimate.effect)
        drawn["effect"] = view.draw(effect, title=f"{title}: effect", unit=units, vmax=effect_max)
    return drawn

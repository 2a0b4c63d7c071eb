"""Presets of confounds: the columns of fMRIPrep's table that a word stands for.

`motion6` to `motion24` are the realignment parameters, with their derivatives and squares
(Satterthwaite et al. 2013, doi:10.1016/j.neuroimage.2012.08.052); `compcor` adds the first five anatomical
components (Behzadi et al. 2007, doi:10.1016/j.neuroimage.2007.04.042); `scrub` adds one column per volume that
fMRIPrep marks as a motion outlier.
"""

from __future__ import annotations

_AXES = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
_MOTION12 = (*_AXES, *(f"{axis}_derivative1" for axis in _AXES))
_MOTION24 = (*_MOTION12, *(f"{axis}_power2" for axis in _MOTION12))

DEFAULT_PRESET = "motion6"
# Stands for the columns of the first components of the combined mask, whatever their numbers are
COMPONENTS = "first five combined a_comp_cor"
PRESETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "motion6": _AXES,
    "motion12": _MOTION12,
    "motion24": _MOTION24,
    "compcor": (*_AXES, COMPONENTS),
    "scrub": (*_AXES, "motion_outlier*"),
}
# Volumes before the magnetisation reaches its steady state are modelled whatever else is chosen; only a plain
# `none` means no confound at all, as for nilearn without confounds. A model's X has what it names.
ALWAYS = "non_steady_state_outlier*"

"""SessionFX: fixed effects over sessions and group strategies for multi-session task fMRI.

The names in `__all__` are the public face; they are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionfx.api.designs import draw_power, power
    from sessionfx.api.images import StatImages
    from sessionfx.api.maps import SessionMaps, load_session_maps
    from sessionfx.api.runs import RunEstimates, combine, fit_run
    from sessionfx.api.strategies import StrategyEstimates, Verdict, calibrate, compare, estimate, judge
    from sessionfx.errors import SessionFXError

__version__ = "0.1.0"
__all__ = [
    "RunEstimates", "SessionFXError", "SessionMaps", "StatImages", "StrategyEstimates", "Verdict", "__version__",
    "calibrate", "combine", "compare", "draw_power", "estimate", "fit_run", "judge", "load_session_maps", "power",
]  # fmt: skip

_MODULES = {
    "api.designs": ("draw_power", "power"),
    "api.images": ("StatImages",),
    "api.maps": ("SessionMaps", "load_session_maps"),
    "api.runs": ("RunEstimates", "combine", "fit_run"),
    "api.strategies": ("StrategyEstimates", "Verdict", "calibrate", "compare", "estimate", "judge"),
    "errors": ("SessionFXError",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            # not at the top: `--help` must answer at once; by name, as the rooms below import this module
            return getattr(import_module(f"sessionfx.{module}"), name)
    raise AttributeError(f"module 'sessionfx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

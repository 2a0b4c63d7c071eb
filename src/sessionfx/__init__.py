"""SessionFX: fixed effects over sessions and group strategies for multi-session task fMRI.

The names in `__all__` are the public face; they are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionfx.api.designs import draw_power, power

__version__ = "0.1.0"
__all__ = ["__version__", "draw_power", "power"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sessionfx' has no attribute '{name}'")
    # not at the top: `--help` must answer at once; by name, as the rooms below import this module for the version
    return getattr(import_module("sessionfx.api.designs"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

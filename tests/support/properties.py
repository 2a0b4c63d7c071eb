"""How many random examples a property is tried with."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

ALL = 100  # of Hypothesis' default profile; that of the fast loop, in conftest.py, has a fifth of them


def examples(number: int = ALL, **more: Any) -> settings:
    """Try a property with so many examples, fewer in the fast loop, however long each takes."""
    return settings(max_examples=max(1, number * settings().max_examples // ALL), deadline=None, **more)

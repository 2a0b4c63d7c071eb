"""Bars that show how far the work is."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], description: str, unit: str, total: int | None = None) -> Iterable[Item]:
    """Show progress over items: on a terminal, in the program's own process, and gone when finished.

    Parameters
    ----------
    items : iterable
    description, unit : str
    total : int, optional
        How many there are, where the items cannot tell.

    Returns
    -------
    iterable
        The items.
    """
    from tqdm import tqdm

    # worker processes of this program are its children; a Dask worker works in a thread
    in_worker = (
        multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread()
    )
    bar: Iterable[Item] = tqdm(
        items, desc=description, unit=unit, total=total, leave=False, disable=True if in_worker else None
    )
    return bar

"""Options as a TOML file that `--config-file` reads back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sessionfx.options.groups import Options


def to_toml(options: Options) -> str:
    """Write options so that `--config-file` reads them back (positional arguments stand in a comment)."""
    import tomli_w

    values = options.values()
    bids_dir, output_dir, levels = (_plain(values.pop(name)) for name in ("bids_dir", "output_dir", "levels"))
    table = {name.replace("_", "-"): _plain(value) for name, value in values.items()}
    given = {name: value for name, value in table.items() if value not in (None, [], False)}
    comment = f"# sessionfx {bids_dir} {output_dir} {' '.join(levels)} --config-file THIS_FILE"
    return "".join(c if c.isprintable() else " " for c in comment) + "\n" + tomli_w.dumps(given)


def as_text(argument: str) -> str:
    """Read an argument as UTF-8 also where the locale knows ASCII only, and Python holds other bytes as surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", "backslashreplace")
    return argument


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return as_text(str(value))
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value

#!/usr/bin/env python3
"""BIDS App entry point: the same program as the `sessionfx` command."""

import signal
import sys

# The first process of a container does not hear SIGTERM before it has a handler: not even imports should come first.
# 143 is what shells report of a program that it ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

from sessionfx.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

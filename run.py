#!/usr/bin/env python3
"""BIDS App entry point: the same program as the `sessionfx` command."""

import sys

from sessionfx.__main__ import main

if __name__ == "__main__":
    sys.exit(main())

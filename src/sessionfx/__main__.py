"""`python -m sessionfx`."""

import sys

from sessionfx.cli import main

if __name__ == "__main__":
    sys.exit(main())

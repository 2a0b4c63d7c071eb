"""`python -m sessionfx.simulate`."""

import sys

from sessionfx.simulate import main

if __name__ == "__main__":
    sys.exit(main())

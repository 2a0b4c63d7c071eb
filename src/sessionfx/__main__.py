"""`python -m sessionfx` and the command `sessionfx`: told to end, the program ends quietly from its first line on."""

import gc
import os
import sys

_SIGNALLED = 128  # exit codes from here on tell of a signal


def main() -> int:
    """Run the program; see `sessionfx.cli.main`."""
    try:
        # Before any other import. The first process of a container would not hear SIGTERM at all.
        from sessionfx.process import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        return 130
    from sessionfx.cli import main as program

    code = program()
    # What is still there goes with the process: to look through what libraries hold, as at the end of any program,
    # takes half a second.
    gc.freeze()
    if code > _SIGNALLED:
        # Where KeyboardInterrupt has passed through code made from text, as that of dataclasses, Python remembers it
        # and would end itself by SIGINT, whatever the program returns.
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())

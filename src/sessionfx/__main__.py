"""`python -m sessionfx` and the command `sessionfx`: told to end, the program ends quietly from its first line on."""

import sys


def main() -> int:
    """Run the program; see `sessionfx.cli.main`."""
    try:
        # Before any other import. The first process of a container would not hear SIGTERM at all.
        from sessionfx.process import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        return 130
    from sessionfx.cli import main as program

    return program()


if __name__ == "__main__":
    sys.exit(main())

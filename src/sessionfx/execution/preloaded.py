"""Loaded first by the process that workers are forked from: it and they keep to themselves what libraries say.

Not for other processes: it changes how the interpreter speaks. What fails there is seen, and said, by the program.
"""

import os
import signal
import sys
import warnings


def _end_with_program(*_: object) -> None:
    """End also while modules are loading, so that a call refused meanwhile does not seem to go on."""
    if os.getppid() != int(os.environ["SESSIONFX_PROGRAM"]):
        os._exit(0)


warnings.simplefilter("ignore")
sys.excepthook = lambda *_: None
signal.signal(signal.SIGALRM, _end_with_program)
signal.setitimer(signal.ITIMER_REAL, 1, 1)

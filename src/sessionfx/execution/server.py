"""Loaded first by the process that workers are forked from, so that it and they keep to themselves what libraries say.

Not for other processes: it changes how the interpreter speaks. What fails there is seen, and said, by the program.
"""

import sys
import warnings

warnings.simplefilter("ignore")
sys.excepthook = lambda *_: None

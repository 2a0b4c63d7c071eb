"""Runs the program again and again in processes forked from this one, and ends them by a signal after a while.

Everything is imported once, so that a call takes as long as its work. A request is a line of JSON: arguments of the
program, a file for what it prints, a signal (0 for none) and after how many seconds it is sent; the answer is the exit
code (a negative signal where one ended it) and the seconds the call took.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
import time

from sessionfx.cli import main


def be_the_program(request: dict) -> None:
    """Be the program, and end."""
    output = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.setpgid(0, 0)
    try:
        code = main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load() -> None:
    """Import what calls need."""
    for name in ("sessionfx.participant.level", "sessionfx.group.level", "sessionfx.group.section", "sessionfx.participant.section", "nilearn.glm.first_level",
                 "matplotlib.figure", "jinja2", "bids", "scipy.stats", "pymare"):  # fmt: skip
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    load()
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            be_the_program(request)
        timer = threading.Timer(request["after"], os.kill, (child, request["signal"]))
        if request["signal"]:
            timer.start()
        _, status = os.waitpid(child, 0)
        timer.cancel()
        print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - started]), flush=True)

"""Runs the program again and again, each time in a process of its own that is forked from this one.

Everything is imported once, so that a call takes as long as its work. A request is a line of JSON: the arguments of the
program, a file for what it prints, a signal (0 for none) and after how many seconds it is sent, and a fault (see
faults/faults.c) where that library is loaded; how many calls there were then, and which one failed, stand in a file. The
answer is the exit code (a negative signal where one ended it) and the seconds that the call took.
"""

import contextlib
import ctypes
import importlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from sessionfx.cli import main

CALLS = ("open", "read", "write", "rename", "unlink", "mkdir", "fsync", "chmod", "stat", "opendir")
NEEDED = ("sessionfx.participant.level", "sessionfx.group.level", "sessionfx.group.section", "sessionfx.participant.section",
          "nilearn.glm.first_level", "matplotlib.figure", "jinja2", "bids", "scipy.stats", "pymare")  # fmt: skip
faults = ctypes.CDLL(None)


def arm(calls: str = "", number: int = 0, times: int = 0, error: int = 0, under: str = "") -> None:
    """Have calls fail from now on; none by default."""
    faults.fault_arm(calls.encode(), ctypes.c_long(number), ctypes.c_long(times), ctypes.c_int(error), under.encode())


def be_the_program(request: dict) -> None:
    """Be the program, and end."""
    output = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.setpgid(0, 0)
    if request["fault"]:
        arm(**request["fault"])
    try:
        code = main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    if hasattr(faults, "fault_arm"):
        faults.fault_count.restype, faults.fault_last.restype = ctypes.c_long, ctypes.c_char_p
        found = {"hit": faults.fault_last().decode(errors="replace")}
        found["count"] = {call: faults.fault_count(call.encode()) for call in CALLS}
        arm()
        Path(request["counted"]).write_text(json.dumps(found))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
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

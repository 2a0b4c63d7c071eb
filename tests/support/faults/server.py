"""Runs the program again and again, each time in a process of its own that is forked from this one.

Everything is imported once, so that a call takes as long as its work. A request is a line of JSON: arguments of the
program, a file for what it prints, and the fault (see faults.c); the answer is the exit code (a negative signal where
one ended it); how many calls there were, and which one failed, stand in a file.
"""

import contextlib
import ctypes
import importlib
import json
import os
import sys
from pathlib import Path

from sessionfx.cli import main

CALLS = ("open", "read", "write", "rename", "unlink", "mkdir", "fsync", "chmod", "stat", "opendir")
library = ctypes.CDLL(None)
library.fault_count.restype = ctypes.c_long
library.fault_last.restype = ctypes.c_char_p


def run(request: dict) -> None:
    """Be the program, and end."""
    counted = request["counted"]
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    fault = request["fault"]
    if fault:
        library.fault_arm(
            fault["calls"].encode(), ctypes.c_long(fault["number"]), ctypes.c_long(fault["times"]),
            ctypes.c_int(fault["error"]), fault["under"].encode(),
        )  # fmt: skip
    try:
        code = main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    hit = library.fault_last().decode(errors="replace")
    count = {call: library.fault_count(call.encode()) for call in CALLS}
    library.fault_arm(b"", ctypes.c_long(0), ctypes.c_long(0), ctypes.c_int(0), b"")
    modules = sorted(sys.modules) if request.get("is_first") else []
    Path(counted).write_text(json.dumps({"count": count, "hit": hit, "modules": modules}))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load(modules: list) -> None:
    """Import what a call needed, once for all the others."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        run(request)
    _, status = os.waitpid(child, 0)
    if request.get("is_first"):
        load(json.loads(Path(request["counted"]).read_text())["modules"])
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)

"""Run the benchmarks and put what they print into docs/performance.md.

    python benchmarks/performance.py [SECTION ...] [OPTION OF THE SCRIPTS ...]

Without sections, all; a section alone is made anew and the others stay as they are. The text around the tables is
written by hand in the page; what lies between a section's two marks is replaced.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
# section: script and its arguments
SECTIONS = {
    "run-level": "run_level.py",
    "surface-runs": "surface_run.py",
    "whole-analysis": "whole_analysis.py",
    "group-level": "group_level.py",
    "group-scale": "group_scale.py",
    "group-large": "group_scale.py --participants 1000 5000 --sessions 2 --calls 2 --step 2",
    "group-grayordinates": "group_scale.py --grayordinates --participants 20 100 1000 5000 --sessions 2 --calls 2",
    "missing-voxels": "missing_voxels.py",
    "group-options": "group_options.py",
    "strategies": "group_speed.py",
    "peers": "peers.py",
    "indexing": "indexing.py",
    "report": "report.py",
}


def main() -> int:
    """Run the sections asked for, one after the other, each kept as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    options, further = parser.parse_known_args()  # what is unknown here is for the scripts
    sections = options.sections or list(SECTIONS)
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    failed = 0
    for section in sections:
        script, *arguments = SECTIONS[section].split()
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments, *further],
            stdout=subprocess.PIPE,
            text=True,
        )
        print(f"{section}\n{done.stdout}", flush=True)
        failed += done.returncode != 0
        if done.stdout:
            _replace(section, f"{done.stdout.strip()}\n\n{_machine()}")
    return min(failed, 1)


def _replace(section: str, text: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(page):
        raise SystemExit(f"{PAGE} has no place for {section}: {begin} … {end}.")
    PAGE.write_text(found.sub(lambda _: f"{begin}\n{text}\n{end}", page), encoding="utf-8")


def _machine() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = found[0].split(":", 1)[1].strip() if found else platform.machine()
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in ("nilearn", "numpy", "scipy", "isal"))
    return f"*{processor}, {cores} cores; Python {platform.python_version()}, {packages}.*"


if __name__ == "__main__":
    sys.exit(main())

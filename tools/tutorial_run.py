"""Run the commands of docs/tutorial.md, one after another in one bash, and compare what they print with the page.

usage: tutorial_run.py [FOLDER] [--skip N ...]

FOLDER is a clone of the repository (default: this one); the commands make the folder tutorial in it. A step is a
numbered section of the page; --skip leaves out some whose results are there already. Each ```console block is commands,
each ```text block after it what they print, in any order: … stands for anything, seconds may differ.
Stops at the first command that fails or prints something else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")


@dataclass
class Step:
    """A numbered section of the page."""

    title: str
    commands: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Which step it is, from 1 on."""
        return int(self.title.partition(".")[0])

    def missing(self, printed: str) -> list[str]:
        """Name the lines of the page that the commands did not print."""
        there = SECONDS.sub("? s", printed).splitlines()
        return [line for line in self.lines if not any(_pattern(line).fullmatch(other) for other in there)]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, SECONDS.sub("? s", line).split("…"))))


def steps_of(page: str) -> Iterator[Step]:
    """Give the steps that have commands."""
    for section in re.split(r"^## (?=\d)", page, flags=re.MULTILINE)[1:]:
        step = Step(section.partition("\n")[0])
        for language, block in re.findall(r"^```(console|text)\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            (step.commands if language == "console" else step.lines).extend(
                [block] if language == "console" else block.splitlines()
            )
        if step.commands:
            yield step


def run(steps: list[Step], folder: Path) -> bool:
    """Run the steps in the folder; tell whether all went as the page says."""
    marks = {f"== {step.title}": step for step in steps}
    lines = ["set -e -o pipefail"]
    for mark, step in marks.items():
        lines += [f"echo '{mark}'", *step.commands]
    lines.append("echo '== end'")
    began = last = time.monotonic()
    printed: dict[str, str] = {}
    mark = ""
    with subprocess.Popen(  # noqa: S603
        ["bash", "-c", "\n".join(lines)], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT  # noqa: S607
    ) as bash:  # fmt: skip
        for line in bash.stdout or ():
            text = line.rstrip("\n")
            if text not in (*marks, "== end"):
                print(line, end="", flush=True)
                printed[mark] = printed.get(mark, "") + line
                continue
            if mark and (missing := marks[mark].missing(printed.get(mark, ""))):
                bash.terminate()
                print("The page says, and nothing printed it:", *missing, sep="\n  ")
                return False
            now = time.monotonic()
            if mark:
                print(f"   {now - last:.0f} s")
            print(text, flush=True)
            mark, last = text, now
    if bash.returncode:
        print(f"A command of this step failed: {mark.removeprefix('== ')}")
        return False
    print(f"All steps: {time.monotonic() - began:.0f} s")
    return True


def main() -> int:
    """Run the page."""
    parser = argparse.ArgumentParser(description="Run the commands of docs/tutorial.md.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default=PAGE.parents[1])
    parser.add_argument("--skip", metavar="N", type=int, nargs="+", default=[], help="steps to leave out")
    options = parser.parse_args()
    steps = [step for step in steps_of(PAGE.read_text(encoding="utf-8")) if step.number not in options.skip]
    return 0 if run(steps, options.folder) else 1


if __name__ == "__main__":
    sys.exit(main())

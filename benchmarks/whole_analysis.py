"""How long whole analyses take, from files to maps and pages, beside a nilearn script that writes the same maps.

Whole processes are measured, their start and imports included: 2 sessions of 2 runs per participant, 2 mm, 200
volumes a run, 5 mm smoothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import harness
from datasets import CONFOUNDS, CONTRAST, Study, make_study

FWHM = "5"
SCRIPT = str(Path(__file__).with_name("nilearn_script.py"))


def main(rounds: int) -> None:
    """Measure all and print two tables."""
    with tempfile.TemporaryDirectory() as folder:
        one = measure_study(Path(folder), Study(participants=1, sessions=2, runs=2), rounds)
        two = measure_study(Path(folder), Study(participants=2, sessions=2, runs=2), rounds)
    studies = {"1 participant": one, "2 participants and group": two}
    print(as_table(studies))
    print()
    print(scaling_table(studies))


def measure_study(folder: Path, study: Study, rounds: int) -> dict[str, tuple[harness.Usage, ...]]:
    """Analyse a study with one and two processes, with and without report, and with the nilearn script, in turn."""
    root, out = make_study(folder / "study", study), folder / "out"
    has_group = study.participants > 1
    ours = [
        sys.executable, "-m", "sessionfx", str(root), str(out), "participant", *(["group"] if has_group else []),
        "--contrast", CONTRAST, "--confounds", *CONFOUNDS, "--smoothing-fwhm", FWHM, "--nprocs",
    ]  # fmt: skip
    commands = {f"{n} with": [*ours, n] for n in ("1", "2")}
    commands |= {f"{n} without": [*ours, n, "--no-report"] for n in ("1", "2")}
    commands["nilearn"] = [sys.executable, SCRIPT, str(root), str(out), FWHM, *(["group"] if has_group else [])]
    try:
        return harness.in_turn(commands, rounds=rounds, before=lambda: shutil.rmtree(out, ignore_errors=True))
    finally:
        shutil.rmtree(root)


def as_table(studies: Mapping[str, Mapping[str, tuple[harness.Usage, ...]]]) -> str:
    """Write the comparison as a Markdown table."""
    lines = [
        "| analysis | processes | report | SessionFX | nilearn script | wall time | processor time | memory |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, usages in studies.items():
        for command in usages:
            if command == "nilearn":
                continue
            found = harness.Comparison(usages[command], usages["nilearn"])
            lines.append(
                f"| {name} | {command.replace(' ', ' | ')} | {found.median('ours', 'wall'):.1f} s "
                f"| {found.median('peer', 'wall'):.1f} s | {found.ratio('wall'):.1f} times less "
                f"| {found.ratio('cpu'):.1f} times less "
                f"| {found.median('ours', 'peak'):.0f} of {found.median('peer', 'peak'):.0f} MB |"
            )
    return "\n".join(lines)


def scaling_table(studies: Mapping[str, Mapping[str, tuple[harness.Usage, ...]]]) -> str:
    """Write what a second process gains as a Markdown table."""
    lines = [
        "| analysis, with report | 1 process | 2 processes | times faster | memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, usages in studies.items():
        found = harness.Comparison(usages["2 with"], usages["1 with"])
        lines.append(
            f"| {name} | {found.median('peer', 'wall'):.1f} s | {found.median('ours', 'wall'):.1f} s "
            f"| {found.ratio('wall'):.2f} "
            f"| {found.median('peer', 'peak'):.0f} and {found.median('ours', 'peak'):.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(harness.times_asked("--rounds", __doc__))

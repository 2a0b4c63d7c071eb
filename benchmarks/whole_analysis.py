"""How long whole analyses take, from files to maps and pages, beside a nilearn script that writes the same maps.

usage: whole_analysis.py [PAIRS]

Whole processes are measured, their start and imports included: 2 mm, 200 volumes a run, 5 mm smoothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
from datasets import CONFOUNDS, CONTRAST, Study, make_study

FWHM = "5"
SCRIPT = str(Path(__file__).with_name("nilearn_script.py"))


def main(pairs: int) -> None:
    """Measure all and print two tables."""
    compared, scaling = measure_analyses(pairs)
    print(as_table(compared))
    print()
    print(scaling_table(scaling))


def measure_analyses(pairs: int = 3) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure one participant and two, with and without report, and with one and two processes.

    Returns
    -------
    compared : list of dict
        Beside the nilearn script.
    scaling : list of dict
        With two processes beside one.
    """
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        one = make_study(here / "one", Study(participants=1, sessions=2, runs=2))
        two = make_study(here / "two", Study(participants=2, sessions=2, runs=2))
        out = here / "out"

        def ours(root: Path, n_processes: int, *options: str) -> list[str]:
            levels = ["participant", "group"] if root == two else ["participant"]
            analysis = ["--contrast", CONTRAST, "--confounds", *CONFOUNDS, "--smoothing-fwhm", FWHM]
            where = [str(root), str(out), *levels]
            return [sys.executable, "-m", "sessionfx", *where, *analysis, "--nprocs", str(n_processes), *options]

        def peer(root: Path) -> list[str]:
            return [sys.executable, SCRIPT, str(root), str(out), FWHM, *(["group"] if root == two else [])]

        def before() -> None:
            shutil.rmtree(out, ignore_errors=True)

        compared = []
        for name, root, n_processes in (
            ("1 participant, 1 process", one, 1),
            ("1 participant, 2 processes", one, 2),
            ("2 participants and group, 2 processes", two, 2),
        ):
            for report, options in (("with report", ()), ("without", ("--no-report",))):
                found = harness.compare(ours(root, n_processes, *options), peer(root), pairs=pairs, before=before)
                compared.append({"analysis": name, "report": report, "found": found})
        scaling = [
            {"analysis": name, "found": harness.compare(ours(root, 2), ours(root, 1), pairs=pairs, before=before)}
            for name, root in (("1 participant", one), ("2 participants and group", two))
        ]
    return compared, scaling


def as_table(rows: list[dict[str, Any]]) -> str:
    """Write the comparison as a Markdown table."""
    lines = [
        "| analysis | report | SessionFX | nilearn script | wall time | processor time | memory |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        found: harness.Comparison = row["found"]
        lines.append(
            f"| {row['analysis']} | {row['report']} | {found.median('ours', 'wall'):.1f} s "
            f"| {found.median('peer', 'wall'):.1f} s | **{found.ratio('wall'):.1f}** times less "
            f"| **{found.ratio('cpu'):.1f}** times less "
            f"| {found.median('ours', 'peak'):.0f} of {found.median('peer', 'peak'):.0f} MB |"
        )
    return "\n".join(lines)


def scaling_table(rows: list[dict[str, Any]]) -> str:
    """Write the scaling as a Markdown table."""
    lines = [
        "| analysis, with report | 1 process | 2 processes | times faster | memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        found: harness.Comparison = row["found"]
        lines.append(
            f"| {row['analysis']} | {found.median('peer', 'wall'):.1f} s | {found.median('ours', 'wall'):.1f} s "
            f"| {found.ratio('wall'):.2f} "
            f"| {found.median('peer', 'peak'):.0f} → {found.median('ours', 'peak'):.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

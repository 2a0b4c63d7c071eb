"""Time the reports at 2 mm, in processor seconds: each picture, and whole pages; print tables in Markdown.

    python benchmarks/report.py [--pictures FOLDER]

Pictures are of the brain of nilearn's MNI template. Values are smooth noise with an effect in one place: as
compressible, and as hard to draw, as real maps. Pages are those of `--reports-only`, which reads finished maps and
answers anew: the time of the whole process, and that of drawing alone, from answers that are there to the section.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import numpy as np
import pandas as pd
from datasets import CONFOUNDS, CONTRAST, make_study
from datasets import Study as RawStudy
from group_level import draw_maps, write_study
from nilearn.datasets import load_mni152_brain_mask
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sessionfx.cli import main as sessionfx
from sessionfx.group import section as of_group
from sessionfx.participant import section as of_participant
from sessionfx.report.brain import axial_cuts, template
from sessionfx.report.canvas import Scale
from sessionfx.report.charts import (
    SessionPanel,
    draw_agreement,
    draw_design_correlation,
    draw_design_matrix,
    draw_distribution,
    draw_events,
    draw_participants,
    draw_sessions,
)
from sessionfx.report.style import Picture
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import EstimateMap
from sessionfx.statistics.agreement import compare
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.thresholds import z_threshold

N_VOLUMES, REPETITION_TIME = 200, 2.0
CONDITIONS = ("congruent", "incongruent")
REPEATS = 5


@dataclass
class Study:
    """Maps and designs as the two levels hand them to their reports."""

    mask: NDArray[np.bool_]
    grid: Grid
    rng: np.random.Generator

    @classmethod
    def at_two_mm(cls) -> Study:
        """Take the mask of nilearn's template."""
        mask = load_mni152_brain_mask(resolution=2)
        return cls(
            np.asarray(mask.dataobj).astype(bool),
            Grid(mask.shape, mask.affine),
            np.random.default_rng(5),
        )

    def estimate(self, scale: float = 1.0) -> EstimateMap:
        """Make a map of smooth noise with an effect in one place; its z is known, as after files are written."""
        noise = gaussian_filter(self.rng.standard_normal(self.grid.shape), 1.5)
        noise /= noise[self.mask].std()
        noise[60:75, 40:70, 40:60] += 4.0
        variance = self.rng.uniform(0.2, 0.3, int(self.mask.sum()))
        found = EstimateMap(
            Estimate(scale * noise[self.mask] * np.sqrt(variance), variance, 160.0), self.mask, self.grid
        )
        _ = found.estimate.z
        return found

    def design(self) -> pd.DataFrame:
        """Make the design of a run with two conditions, six motion parameters and drifts."""
        time_points = np.arange(N_VOLUMES)
        drifts = {f"drift_{n}": np.cos(np.pi * n * (time_points + 0.5) / N_VOLUMES) for n in range(1, 22)}
        motion = np.cumsum(self.rng.standard_normal((6, N_VOLUMES)), axis=1)
        moved = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
        blocks = {name: np.sin(time_points / 8 + 2 * shift) > 0 for shift, name in enumerate(CONDITIONS)}
        return pd.DataFrame({**blocks, **dict(zip(moved, motion, strict=True)), **drifts, "constant": 1.0})

    def events(self) -> pd.DataFrame:
        """Make the events of a run."""
        onsets = np.arange(4.0, N_VOLUMES * REPETITION_TIME, 6.0)
        types = self.rng.choice(CONDITIONS, len(onsets))
        return pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": types})


def partly_covered(mask: NDArray[np.bool_], n_maps: int) -> NDArray[np.int_]:
    """Count maps: all of them in the mask, half of them in its lower part."""
    counts = n_maps * mask.astype(int)
    counts[..., :20] //= 2
    return counts


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Time the fastest of several runs, in processor seconds of all threads."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def pictures(study: Study) -> dict[str, Callable[[], Picture]]:
    """List one picture of each kind."""
    first, other = study.estimate(), study.estimate()
    threshold = z_threshold(first.estimate.z, 0.05, "fdr")
    z, effect = first.volume(first.estimate.z), first.volume(first.estimate.effect)
    design, mosaic = study.design(), axial_cuts(study.mask, study.grid, template())
    scale, of_effect = Scale.of([first.estimate.z], "z", [threshold]), Scale.of([first.estimate.effect], "%")
    agreement = compare(first.estimate.z, other.estimate.z, threshold, threshold)
    samples = {f"strategy {number}": study.estimate().estimate.z for number in range(4)}
    counts = partly_covered(study.mask, 4)
    runs = {f"run-{number}": study.events() for number in range(4)}
    sessions = ["ses-01", "ses-02", "ses-03"]
    panels = [
        SessionPanel(f"peak {number}", study.rng.standard_normal((12, 3)), {"mean": (0.5, 0.2, 0.8)})
        for number in range(4)
    ]
    values = study.rng.standard_normal((12, 3))
    table = pd.DataFrame(values, columns=["correlation", "mean", "spread"]).assign(participant=range(12))
    return {
        "cuts and coverage": lambda: axial_cuts(study.mask, study.grid, template()).draw_map(
            counts, Scale(vmax=4, unit="maps", two_sided=False), ""
        ),
        "z map": lambda: mosaic.draw_map(z, scale.with_threshold(threshold, first.estimate.z), "z"),
        "effect map": lambda: mosaic.draw_map(effect, of_effect, "effect"),
        "events of four runs": lambda: draw_events(
            runs, title="Events", run_seconds=dict.fromkeys(runs, N_VOLUMES * REPETITION_TIME)
        ),
        "design matrix of a run": lambda: draw_design_matrix(
            design, title="run", row_label="volume", condition_columns=CONDITIONS
        ),
        "correlation of regressors": lambda: draw_design_correlation(design, title="run"),
        "two strategies compared": lambda: draw_agreement(
            first.estimate.z, other.estimate.z, label_a="a", label_b="b", agreement=agreement,
            thresholds=(threshold, threshold), title="Agreement",
        ),
        "distribution of z, four strategies": lambda: draw_distribution(samples, title="Distribution of z"),
        "sessions at four peaks": lambda: draw_sessions(panels, sessions, unit="%", title="Sessions"),
        "twelve participants": lambda: draw_participants(
            table, {"correlation": "r", "mean": "mean", "spread": "spread"}, marked=[], title="Participants", caption=""
        ),
    }  # fmt: skip


def drawing_seconds(arguments: list[str]) -> float:
    """Run a call in this process; give the processor seconds between answers that are there and drawn sections."""
    spent = 0.0

    def timed(draw: Callable[..., None]) -> Callable[..., None]:
        def run(found: Any, *others: Path) -> None:
            nonlocal spent
            if not others:  # a group: what is found is found when it is asked for
                _ = found.evidence, [found.influence(asked.question) for asked in found.questions]
            started = time.process_time()
            draw(found, *others)
            spent += time.process_time() - started

        return run

    draws = [(of_participant, "draw_runs"), (of_participant, "draw_contrast"), (of_group, "draw_contrast")]
    with ExitStack() as patched:
        for module, name in draws:
            patched.enter_context(patch.object(module, name, timed(getattr(module, name))))
        sessionfx(arguments)
    return spent


def measure_pages(folder: Path) -> dict[str, tuple[harness.Usage, float, Path]]:
    """Draw the page of a participant and that of a group from finished maps; give what it took, and the page."""
    raw = make_study(folder / "raw", RawStudy(participants=1, sessions=3, runs=2))
    draw_maps(folder / "pool", 12)
    names, maps = write_study(folder / "study", folder / "pool", 12)
    calls = {
        "sub-01.html, 3 sessions of 2 runs": [str(raw), str(folder / "one"), "participant", "--contrast", CONTRAST,
                                              "--confounds", *CONFOUNDS],
        "group.html, 12 participants × 3 sessions": [str(names), str(folder / "group"), "group",
                                                    "--derivatives", str(maps), "--skip-bids-validation"],
    }  # fmt: skip
    found = {}
    for title, arguments in calls.items():
        command = [sys.executable, "-m", "sessionfx", *arguments, "--nprocs", "1"]
        harness.measure(command)
        used = min((harness.measure([*command, "--reports-only"]) for _ in range(2)), key=lambda usage: usage.cpu)
        drawing = drawing_seconds([*arguments, "--nprocs", "1", "--reports-only"])
        found[title] = used, drawing, Path(arguments[1]) / title.partition(",")[0]
    return found


def main() -> None:
    """Time everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="keep the pictures in this folder")
    arguments = parser.parse_args()
    study = Study.at_two_mm()
    print(f"{int(study.mask.sum()):,} voxels of {study.grid}; processor seconds of one process.\n".replace(",", " "))
    print("| picture | ms | kB |\n|---|---:|---:|")
    for name, draw in pictures(study).items():
        picture = draw()
        print(f"| {name} | {1000 * seconds(draw):.0f} | {len(picture.content) / 1000:.0f} |", flush=True)
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            kind = picture.kind.removesuffix("+xml")
            (arguments.pictures / f"{re.sub('[ ,]+', '-', name)}.{kind}").write_bytes(picture.content)
    print("\n| page | processor time (s) | of this drawing (s) | pictures | MB |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for title, (usage, drawing, page) in measure_pages(Path(folder)).items():
            text = page.read_text(encoding="utf-8")
            n_pictures = text.count("data:image/")
            print(
                f"| {title} | {usage.cpu:.1f} | {drawing:.1f} | {n_pictures} | {page.stat().st_size / 1e6:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

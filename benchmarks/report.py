"""Time the pictures and pages of the reports at 2 mm, in processor seconds of one process; print a table in Markdown.

    python benchmarks/report.py [--pages FOLDER]

Two participants with two sessions of two runs, two session contrasts and four strategies, on the brain of nilearn's
MNI template. Values are smooth noise with an effect in one place: as compressible, and as hard to draw, as real maps.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.judgement import Evidence
from sessionfx.group.page import write_group_report
from sessionfx.group.results import ContrastResults, PairResult, QuestionResults, Reliability, StrategyResult
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.verdict import judge
from sessionfx.options import FirstLevelModel, GroupModel
from sessionfx.participant.confounds import PRESETS
from sessionfx.participant.page import write_participant_report
from sessionfx.participant.results import ParticipantResults, RunSummary
from sessionfx.report.brain import draw_coverage, draw_stat_map
from sessionfx.report.methods import GroupWork, group_methods, participant_methods
from sessionfx.report.plots import (
    draw_comparison,
    draw_design_correlation,
    draw_design_matrix,
    draw_distribution,
    draw_events,
)
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import EstimateMap
from sessionfx.statistics.agreement import compare
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.thresholds import z_threshold

SESSIONS, RUNS = ("01", "02"), ("1", "2")
ENTITIES = {"task": "stroop", "space": "MNI152NLin2009cAsym", "res": None}
CONTRAST = Contrast("incongruentMinusCongruent", "incongruent - congruent", {"incongruent": 1.0, "congruent": -1.0})
N_VOLUMES, REPETITION_TIME = 200, 2.0
N_GROUP = 12
REPEATS = 5


@dataclass
class Study:
    """Maps and designs as the two levels hand them to their reports."""

    mask: NDArray[np.bool_]
    background: NDArray[np.float64]
    grid: Grid
    rng: np.random.Generator

    @classmethod
    def at_two_mm(cls) -> Study:
        """Take mask and background from nilearn's template."""
        mask, template = load_mni152_brain_mask(resolution=2), load_mni152_template(resolution=2)
        return cls(
            np.asarray(mask.dataobj).astype(bool),
            np.asarray(template.dataobj, dtype=float),
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

    def run(self, session: str, run: str) -> RunSummary:
        """Make a run with two conditions, six motion parameters and drifts."""
        time_points = np.arange(N_VOLUMES)
        names = ["congruent", "incongruent", *(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")]
        drifts = [np.cos(np.pi * order * (time_points + 0.5) / N_VOLUMES) for order in range(1, 22)]
        motion = np.cumsum(self.rng.standard_normal((N_VOLUMES, 6)), axis=0)
        blocks = np.stack([np.sin(time_points / 8 + shift) > 0 for shift in (0, 2)], axis=1)
        columns = [*names, *(f"drift_{order}" for order in range(1, 22)), "constant"]
        design = pd.DataFrame(np.column_stack([blocks, motion, *drifts, np.ones(N_VOLUMES)]), columns=columns)
        facts = {
            "RepetitionTime": REPETITION_TIME, "StartTime": 0.0,
            "RunDuration": REPETITION_TIME * N_VOLUMES, "NumberOfVolumes": N_VOLUMES,
            "ConditionColumns": names[:2], "DegreesOfFreedom": 170.0, "BrainMaskVoxels": int(self.mask.sum()),
            "FittedVoxels": int(self.mask.sum()), "Notes": [], "LeftOutContrasts": {},
        }  # fmt: skip
        onsets = np.arange(4.0, N_VOLUMES * REPETITION_TIME, 6.0)
        events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": self.rng.choice(names[:2], len(onsets))})
        return RunSummary(f"sub-01_ses-{session}_task-stroop_run-{run}", session, design, facts, events)

    def participant(self, label: str) -> ParticipantResults:
        """Make the results of a participant."""
        session_contrasts = resolve_session_contrasts(["mean", "ses-02 - ses-01"], SESSIONS)
        return ParticipantResults(
            label,
            ENTITIES,
            tuple(self.run(session, run) for session in SESSIONS for run in RUNS),
            (CONTRAST,),
            tuple(session_contrasts),
            {CONTRAST.label: {session: self.estimate() for session in SESSIONS}},
            {CONTRAST.label: {one.label: self.estimate() for one in session_contrasts}},
            self.background,
            GroupModel(),
            participant_methods(FirstLevelModel(), [PRESETS["motion6"]], has_sessions=True, preprocessing=()),
        )

    def group(self) -> ContrastResults:
        """Make the results of a group with four strategies and two questions."""
        labels = [f"{number:02d}" for number in range(1, N_GROUP + 1)]
        layout = MapLayout(tuple(np.repeat(labels, len(SESSIONS)).tolist()), SESSIONS * N_GROUP)
        evidence = Evidence(0.2, 0.3, 0.4, None, None, N_GROUP, None, np.eye(2))
        questions = []
        for asked in resolve_session_contrasts(["mean", "ses-02 - ses-01"], SESSIONS):
            question = Question(asked)
            shared = self.estimate()
            results = []
            for strategy in (one for one in STRATEGIES.values() if one.is_default):
                own = self.estimate(0.2)
                effect = shared.estimate.effect + own.estimate.effect
                stat_map = EstimateMap(Estimate(effect, own.estimate.variance, 11.0), self.mask, self.grid)
                threshold = z_threshold(stat_map.estimate.z, 0.05, "fdr")
                plan = strategy.plan(layout, question, GroupOptions())
                results.append(
                    StrategyResult(strategy.name, strategy.label, strategy.title, None, plan, stat_map, threshold)
                )
            pairs = [
                PairResult(a, b, compare(*PairResult(a, b, None, "").z, a.threshold, b.threshold), "")
                for a, b in combinations(results, 2)
            ]
            verdict = judge(question, layout, results, evidence, GroupOptions())
            questions.append(QuestionResults(question, tuple(results), tuple(pairs), verdict))
        icc = {name: self.rng.uniform(-0.5, 1, int(self.mask.sum())) for name in ("icc1", "icc31", "between", "within")}
        quartiles = {f"{name}_{part}": 0.3 for name in icc for part in ("median", "q25", "q75")}
        summary = pd.DataFrame([{"region": "mask", "n_voxels": int(self.mask.sum()), **quartiles}])
        coverage = partly_covered(self.mask, len(layout.participants))
        return ContrastResults(
            CONTRAST.label, ENTITIES, layout, self.mask, self.grid, coverage,
            tuple(questions), (), (), {}, evidence, Reliability(icc, summary), None,
        )  # fmt: skip


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


def pictures(study: Study) -> dict[str, Callable[[], bytes]]:
    """List one picture of each kind."""
    one, other = study.estimate(), study.estimate()
    run = study.run("01", "1")
    threshold = z_threshold(one.estimate.z, 0.05, "fdr")
    z, effect = one.volume(one.estimate.z), one.volume(one.estimate.effect)
    affine = study.grid.affine
    agreement = asdict(compare(one.estimate.z, other.estimate.z, threshold, threshold))
    samples = {f"strategy {number}": study.estimate().estimate.z for number in range(4)}
    counts = partly_covered(study.mask, 4)
    return {
        "z map": lambda: draw_stat_map(
            z, study.mask, affine, title="z", unit="z", threshold=threshold, background=study.background
        ),
        "effect map": lambda: draw_stat_map(
            effect, study.mask, affine, title="effect", unit="percent signal change", background=study.background
        ),
        "coverage": lambda: draw_coverage(counts, 4, affine, title="Mask coverage", unit="sessions with data"),
        "events of four runs": lambda: draw_events(
            {f"run-{n}": run.events for n in range(4)},
            title="Events",
            run_seconds=dict.fromkeys([f"run-{n}" for n in range(4)], 400.0),
        ),
        "design matrix of a run": lambda: draw_design_matrix(
            run.design, title=run.name, row_label="volume", condition_columns=("congruent", "incongruent")
        ),
        "correlation of regressors": lambda: draw_design_correlation(run.design, title=run.name),
        "two strategies compared": lambda: draw_comparison(
            one.estimate.z,
            other.estimate.z,
            label_a="a",
            label_b="b",
            unit="z",
            agreement=agreement,
            thresholds=(threshold, threshold),
        ),
        "distribution of z, four strategies": lambda: draw_distribution(samples, title="Distribution of z"),
    }


def main() -> None:
    """Time everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, help="keep pages and pictures in this folder")
    arguments = parser.parse_args()
    study = Study.at_two_mm()
    print(f"{int(study.mask.sum()):,} voxels of {study.grid}; processor seconds of one process.\n".replace(",", " "))
    print("| picture | ms | kB |\n|---|---:|---:|")
    for name, draw in pictures(study).items():
        png = draw()
        print(f"| {name} | {1000 * seconds(draw):.0f} | {len(png) / 1000:.0f} |", flush=True)
        if arguments.pages:
            arguments.pages.mkdir(parents=True, exist_ok=True)
            (arguments.pages / f"{re.sub('[ ,]+', '-', name)}.png").write_bytes(png)
    print("\n| page | s | MB |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.pages or Path(temporary)
        participants = [study.participant(label) for label in ("01", "02")]
        group = study.group()
        strategies = [one.methods(GroupOptions()) for one in STRATEGIES.values() if one.is_default]
        methods = group_methods(GroupModel(), strategies, GroupWork())
        total = 0.0
        for name, write in {
            **{
                f"sub-{one.participant}.html": lambda one=one: write_participant_report(
                    one, {CONTRAST.label: ""}, folder
                )
                for one in participants
            },
            "group.html": lambda: write_group_report(group, GroupModel(), methods, "", folder),
        }.items():
            took = seconds(write, repeats=2)
            total += took
            print(f"| {name} | {took:.2f} | {(folder / name).stat().st_size / 1e6:.2f} |", flush=True)
        print(f"| all | {total:.2f} | |")


if __name__ == "__main__":
    main()

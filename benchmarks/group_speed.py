"""Time the group strategies on one core, beside nilearn and statsmodels in the same run.

    python benchmarks/group_speed.py [--voxels N] [--repeats R]

20 participants with 3 sessions each, one session contrast (`ses-03 - ses-01`), maps as float32 as in their files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.execution import limited_threads
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.blocks import block_width

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from array_maps import MapsInMemory, blocks_of, estimate_in_blocks

# those that need nothing but the effects
MEASURED = tuple(name for name, strategy in STRATEGIES.items() if strategy.is_default)

N_PARTICIPANTS, SESSIONS = 20, ("01", "02", "03")
MISSING = 0.1
# Voxels per second on one core that the project asks of itself
WANTED = {"summary-statistics": 3e6, "marginal": 2e6, "mixed": 3e5}
MIXEDLM_VOXELS = 300
MEMORY_VOXELS = (200_000, 800_000)


@dataclass(frozen=True)
class DrawnMaps:
    """Maps that exist only block by block, as those in files do."""

    layout: MapLayout
    n_voxels: int

    @property
    def blocks(self) -> list[slice]:
        """Blocks of neighbouring voxels."""
        return blocks_of(len(self.layout.participants), self.n_voxels)

    def handed_out(self, block: slice, *, with_variances: bool) -> tuple[NDArray[np.float64], None]:
        """Draw the effects of some voxels; no strategy here asks for variances."""
        rng = np.random.default_rng([1, block.start])
        return draw(self.layout, block.stop - block.start, rng), None


def layout(missing: float) -> MapLayout:
    """Say whose and which session each map is; every participant keeps one session at least."""
    attends = np.ones(N_PARTICIPANTS * len(SESSIONS), dtype=bool)
    attends[np.random.default_rng(4).permutation(attends.size)[: round(missing * attends.size)]] = False
    cells = np.argwhere(attends.reshape(N_PARTICIPANTS, len(SESSIONS)))
    assert len(set(cells[:, 0])) == N_PARTICIPANTS  # noqa: S101 - true for this seed
    return MapLayout(tuple(f"{i + 1:02d}" for i, _ in cells), tuple(SESSIONS[j] for _, j in cells))


def draw(maps: MapLayout, n_voxels: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw maps with a correlation of a half between those of a participant."""
    owners = np.unique(maps.participants, return_inverse=True)[1]
    levels = rng.standard_normal((N_PARTICIPANTS, n_voxels))
    return np.asarray(np.sqrt(0.5) * (levels[owners] + rng.standard_normal((len(owners), n_voxels))))


def question() -> Question:
    """Ask for the last minus the first session."""
    return Question(resolve_session_contrasts(["ses-03 - ses-01"], SESSIONS)[0])


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Time the fastest of several runs, in processor time of this process.

    With one thread that is the time on an idle machine; on a busy one it does not count what others are given.
    """
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def strategy_seconds(name: str, maps: MapLayout, effects: NDArray[np.float32], repeats: int) -> float:
    """Time a plan and the estimate, which includes what the plan learns from all voxels, down to t."""

    def work() -> object:
        plan = STRATEGIES[name].plan(maps, question(), GroupOptions())
        _, estimate = estimate_in_blocks(plan, MapsInMemory(effects))
        return estimate.t

    return seconds(work, repeats)


def nilearn_seconds(maps: MapLayout, effects: NDArray[np.float32], repeats: int) -> float:
    """Time nilearn's OLS on one difference per participant, down to t."""
    from nilearn.glm import compute_contrast
    from nilearn.glm.first_level import run_glm

    first, last = ([maps.rows_of(p)[s] for p in maps.unique_participants] for s in (SESSIONS[0], SESSIONS[-1]))

    def work() -> object:
        differences = effects[last].astype(np.float64) - effects[first]
        labels, results = run_glm(differences, np.ones((len(differences), 1)), noise_model="ols")
        return compute_contrast(labels, results, np.array([1.0]), "t").stat()

    return seconds(work, repeats)


def mixedlm_seconds(maps: MapLayout, effects: NDArray[np.float32], repeats: int) -> float:
    """Time statsmodels' MixedLM (random intercept, REML; it has no Satterthwaite degrees of freedom) per voxel."""
    import warnings

    from statsmodels.regression.mixed_linear_model import MixedLM

    design = np.array([[float(own == session) for session in SESSIONS] for own in maps.sessions])
    groups = np.array(maps.participants)

    def work() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of voxels with no variance between participants
            fits = [MixedLM(y, design, groups).fit(reml=True) for y in effects.T.astype(np.float64)]
        return [fit.t_test(np.array([[-1.0, 0.0, 1.0]])).tvalue for fit in fits]

    return seconds(work, repeats)


def peak_megabytes(name: str, n_voxels: int) -> float:
    """Find what estimating adds to the memory of a fresh process, results included."""
    command = [sys.executable, str(Path(__file__).resolve()), "--memory-of", name, "--voxels", str(n_voxels)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def print_own_peak(name: str, n_voxels: int) -> None:
    """Estimate maps that are drawn block by block, and print the growth of this process' largest memory (MB)."""
    plan = STRATEGIES[name].plan(layout(0.0), question(), GroupOptions())
    estimate_in_blocks(plan, DrawnMaps(layout(0.0), 2000))  # what is loaded on first use is not working memory
    before = _largest_megabytes()
    estimate_in_blocks(plan, DrawnMaps(layout(0.0), n_voxels))
    print(json.dumps(_largest_megabytes() - before))


def _largest_megabytes() -> float:
    """Largest memory of this process; unlike `ru_maxrss` it does not begin with that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def table(header: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped(number: float) -> str:
    """Write a number with three significant digits and spaces between thousands."""
    return f"{float(f'{number:.3g}'):,.0f}".replace(",", " ")


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with limited_threads(1):
        if arguments.memory_of:
            print_own_peak(arguments.memory_of, arguments.voxels)
            return 0
        return measure(arguments)


def measure(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 where a strategy is slower than wanted."""
    designs = {"all maps": layout(0.0), f"{MISSING:.0%} missing".replace("%", " %"): layout(MISSING)}
    data = {
        label: draw(maps, arguments.voxels, np.random.default_rng(0)).astype(np.float32)
        for label, maps in designs.items()
    }
    rates = {
        (name, label): arguments.voxels / strategy_seconds(name, maps, data[label], arguments.repeats)
        for name in MEASURED
        for label, maps in designs.items()
    }
    balanced = next(iter(designs))
    nilearn_rate = arguments.voxels / nilearn_seconds(designs[balanced], data[balanced], arguments.repeats)
    few = data[balanced][:, :MIXEDLM_VOXELS]
    mixedlm_rate = MIXEDLM_VOXELS / mixedlm_seconds(designs[balanced], few, min(arguments.repeats, 2))

    short = [name for name, wanted in WANTED.items() if rates[name, balanced] < wanted]
    speed = table(
        ["strategy", *(f"{label}, voxels/s" for label in designs), "wanted"],
        [
            [name, *(grouped(rates[name, label]) for label in designs), grouped(WANTED[name]) if name in WANTED else ""]
            for name in MEASURED
        ],
    )
    peers = table(
        ["beside", "its voxels/s", "ratio"],
        [
            [
                f"summary-statistics: nilearn {version('nilearn')}, OLS on one difference per participant",
                grouped(nilearn_rate),
                f"{rates['summary-statistics', balanced] / nilearn_rate:.1f}",
            ],
            [
                f"mixed: statsmodels {version('statsmodels')}, MixedLM on {MIXEDLM_VOXELS} voxels, no Satterthwaite",
                grouped(mixedlm_rate),
                grouped(rates["mixed", balanced] / mixedlm_rate),
            ],
        ],
    )
    memory = table(
        ["strategy", *(f"{grouped(n)} voxels" for n in MEMORY_VOXELS)],
        [[name, *(f"{peak_megabytes(name, n):.0f} MB" for n in MEMORY_VOXELS)] for name in MEASURED],
    )
    maps_megabytes = N_PARTICIPANTS * len(SESSIONS) * MEMORY_VOXELS[0] * 8 / 1e6
    text = f"""{N_PARTICIPANTS} participants, {len(SESSIONS)} sessions, {grouped(arguments.voxels)} voxels, the session
contrast `{question().text}`, one thread; processor time, the fastest of {arguments.repeats} runs.

{speed}

A rate counts everything from the design to t: float32 maps to float64, the working correlation of the marginal model
over all voxels, and for the mixed model REML with Satterthwaite degrees of freedom at every voxel. Reading files is
not in it.

Others on the same data in the same run, all maps there. nilearn is given the maps of the two sessions, all voxels at
once, and subtracts them; SessionFX takes in the maps of all sessions, block by block:

{peers}

Memory that estimating adds to the process, results (an effect, a variance, for mixed also the degrees of freedom, of
every voxel) included; {grouped(block_width(N_PARTICIPANTS * len(SESSIONS)))} voxels are worked on at a time. All maps
of {grouped(MEMORY_VOXELS[0])} voxels as float64 would be {maps_megabytes:.0f} MB.

{memory}
"""
    print(text)
    if short:
        print(f"Slower than wanted: {', '.join(short)}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure how the group level grows with participants and session contrasts, and what a kept file of maps saves.

    python benchmarks/group_scale.py [--participants 20 200] [--sessions 3] [--calls 3] [--step 1]
        [--grayordinates] [--folder FOLDER]

Maps as in `group_level.py`, a tenth of the sessions missing; further participants are links to the files of the first
20, so that no file is read less. Every call is a fresh process without pages, with two processes and `--work-dir`. With
`--step 2` maps have an eighth of the voxels. With `--grayordinates` maps are single-precision dense scalars of the 91k
grayordinates on a made-up mesh.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from group_level import brain_mask, draw_maps, write_study
from harness import measure
from nibabel.cifti2 import BrainModelAxis, ScalarAxis
from surface_run import GRAYORDINATES, grayordinates, write_meshes

MISSING = 0.1
# What is asked: the first call reads the maps, the second one finds them kept
CALLS = {
    "1 session contrast, nothing kept": ["mean"],
    "others, maps kept": ["ses-02 - ses-01"],
    "all default ones, maps kept": [],
}
COLUMNS = (
    "participants × sessions", "maps", "voxels or grayordinates", "call",
    "wall (s)", "CPU (s)", "peak memory (MB)", "kept (GB)", "CPU per map, bare reads",
)  # fmt: skip


def leave_out(maps: Path, seed: int = 4) -> int:
    """Remove a tenth of the sessions, of no participant all, and count those left."""
    rng = np.random.default_rng(seed)
    n_left = 0
    for participant in sorted(maps.glob("sub-*")):
        sessions = sorted(participant.iterdir())
        missing = [session for session in sessions if rng.random() < MISSING]
        for session in missing[: len(sessions) - 1]:
            shutil.rmtree(session)
        n_left += len(list(participant.iterdir()))
    return n_left


def bare_read(pool: Path, n_maps: int = 20) -> float:
    """Measure the processor time (s) of reading an effect map with nibabel and nothing else.

    Of grayordinates the numbers alone: nibabel's `load` parses the axis of each file, which takes a hundred times as
    long.
    """
    paths = sorted(pool.glob("*_effect.*"))[:n_maps]
    started = time.process_time()
    for path in paths:
        image = nib.Nifti2Image.from_filename(path) if path.name.endswith(".dscalar.nii") else nib.load(path)
        np.asarray(image.dataobj, dtype=np.float64)
    return (time.process_time() - started) / len(paths)


def draw_grayordinates(pool: Path, n_participants: int = 20) -> int:
    """Draw maps of grayordinates: a level of each participant, noise of each session; return how many there are."""
    pool.mkdir(parents=True)
    rng, axis = np.random.default_rng(0), grayordinates()
    headers = {statistic: _header(statistic, axis) for statistic in ("effect", "variance")}
    for number in range(n_participants):
        level = rng.standard_normal(len(axis))
        for session in ("01", "02", "03"):
            noise, log_variance = rng.standard_normal((2, len(axis)))
            for statistic, values in (
                ("effect", 0.5 * (level + noise)),
                ("variance", 0.1 * np.exp(0.3 * log_variance)),
            ):
                content = headers[statistic] + values.astype("<f4").tobytes()
                (pool / f"{number}_{session}_{statistic}.dscalar.nii").write_bytes(content)
    return len(axis)


def _header(name: str, axis: BrainModelAxis) -> bytes:
    """Make what stands before the values in a file of dense scalars: nibabel takes half a second for it."""
    image = nib.Cifti2Image(np.zeros((1, len(axis)), dtype=np.float32), (ScalarAxis([name]), axis))
    image.set_data_dtype(np.float32)
    return image.to_bytes()[: -4 * len(axis)]


def measure_scale(
    folder: Path, numbers: Sequence[int], n_sessions: int, n_calls: int, step: int, *, on_surface: bool
) -> Iterator[list[str]]:
    """Measure the first calls for each number of participants; rows of the table."""
    pool = folder / "pool"
    if on_surface:
        n_features, kind = draw_grayordinates(pool), {"space": GRAYORDINATES, "extension": ".dscalar.nii"}
    else:
        draw_maps(pool, step=step)
        n_features, kind = brain_mask()[::step, ::step, ::step].sum(), {}
    for number in numbers:
        study, work = folder / f"study-{number}", folder / "work"
        work.mkdir()
        raw, maps = write_study(study, pool, number, **kind)
        if on_surface:
            write_meshes(maps)
        for session in maps.glob("sub-*/ses-*"):
            if int(session.name.removeprefix("ses-")) > n_sessions:
                shutil.rmtree(session)
        n_maps = leave_out(maps)
        for call, asked in list(CALLS.items())[:n_calls]:
            floor = bare_read(pool)
            command = [sys.executable, "-m", "sessionfx", str(raw), str(folder / "out"), "group", "-d", str(maps)]
            command += ["--no-report", "--nprocs", "2", "--work-dir", str(work)]
            found = measure([*command, *(part for contrast in asked for part in ("--session-contrast", contrast))])
            kept = sum(path.stat().st_size for path in work.iterdir()) / 1e9
            yield [
                f"{number} × {n_sessions}", str(n_maps), f"{n_features:,}", call,
                f"{found.wall:.0f}", f"{found.cpu:.0f}", f"{found.peak:.0f}",
                f"{kept:.2f}", f"{found.cpu / n_maps / floor:.1f}",
            ]  # fmt: skip
            shutil.rmtree(folder / "out")
        shutil.rmtree(study)
        shutil.rmtree(work)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: str) -> None:
    """Print rows as they come; of the columns one holds words."""
    lines = ["---" if column == words else "---:" for column in columns]
    for line in itertools.chain([columns, lines], rows):
        print(f"| {' | '.join(line)} |", flush=True)


def main_of(
    description: str,
    columns: Sequence[str],
    rows: Callable[[Path, Sequence[int], int], Iterator[list[str]]],
    *,
    words: str,
) -> int:
    """Read the command line of a benchmark of several numbers of participants, measure and print."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--participants", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where there is room for the maps (a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print_table(columns, rows(Path(folder), arguments.participants, arguments.step), words=words)
    return 0


def main() -> int:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--sessions", type=int, default=3, choices=(2, 3))
    parser.add_argument("--calls", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--grayordinates", action="store_true")
    parser.add_argument("--folder", type=Path, help="where there is room for the kept maps (a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure_scale(
            Path(folder), arguments.participants, arguments.sessions, arguments.calls, arguments.step,
            on_surface=arguments.grayordinates,
        )  # fmt: skip
        print_table(COLUMNS, found, words="call")
    return 0


if __name__ == "__main__":
    sys.exit(main())

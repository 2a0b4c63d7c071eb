"""Time the group level as a whole, beside nilearn's SecondLevelModel on one of its designs in the same run.

    python benchmarks/group_level.py [--participants 20 100 400] [--pairs 3] [--folder FOLDER]

Maps of 2 mm (97×115×97, 234,873 voxels in the mask), three sessions, effects and variances in double precision as
SessionFX writes them. The program answers four session contrasts with every default strategy and writes all its files;
nilearn reads the effects, fits one of these designs (ordinary least squares on all session maps, a column per session)
and computes one contrast, writing nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from harness import Comparison, Usage, compare, measure
from numpy.typing import NDArray
from scipy import ndimage

SHAPE = (97, 115, 97)
AFFINE = np.array([[2.0, 0, 0, -96], [0, 2.0, 0, -132], [0, 0, 2.0, -78], [0, 0, 0, 1]])
SESSIONS = ("01", "02", "03")
SESSION_CONTRASTS = ("mean", "ses-02 - ses-01", "linear", "any")
SPACE = "MNI152NLin2009cAsym"
# Maps are drawn for these, and further participants link to their files: a disk holds them, and no file is read less.
_DRAWN_PARTICIPANTS = 20
# nilearn holds all maps in memory at once: of more participants than this they do not fit into this machine's
_MOST_OF_PEER = 100

# What a user of nilearn would write
PEER = """
import sys, time
from pathlib import Path
import numpy as np, pandas as pd
from nilearn.glm.second_level import SecondLevelModel
maps = sorted(Path(sys.argv[1]).glob('sub-*/ses-*/func/*_stat-effect_*statmap.nii.gz'))
sessions = [path.name.split('_')[1] for path in maps]
design = pd.get_dummies(pd.Series(sessions)).astype(float)
started = time.perf_counter()
model = SecondLevelModel(n_jobs=1).fit([str(path) for path in maps], design_matrix=design)
z = model.compute_contrast(np.array([-1.0, 1.0, 0.0]), output_type='z_score')
z.get_fdata()
Path(sys.argv[2]).write_text(str(time.perf_counter() - started))
"""


def brain_mask() -> NDArray[np.bool_]:
    """Make an ellipsoid of about 235,000 voxels in the middle of the grid."""
    axes = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    radii = (34.5, 43.0, 37.8)
    parts = zip(axes, SHAPE, radii, strict=True)
    distance = sum(((axis - (size - 1) / 2) / radius) ** 2 for axis, size, radius in parts)
    return np.asarray(distance <= 1)


def write_study(
    folder: Path, pool: Path, n_participants: int, *, space: str = SPACE, extension: str = ".nii.gz"
) -> tuple[Path, Path]:
    """Write a raw dataset of names only and first-level maps of three sessions of each participant.

    Parameters
    ----------
    folder : Path
    pool : Path
        Of `draw_maps`; the maps are links to its files.
    n_participants : int
    space : str
        With further entities.
    extension : str

    Returns
    -------
    raw, maps : Path
    """
    raw, maps = folder / "bids", folder / "firstlevel"
    for root, kind in ((raw, "raw"), (maps, "derivative")):
        root.mkdir(parents=True)
        content: dict[str, Any] = {"Name": "synthetic", "BIDSVersion": "1.10.0", "DatasetType": kind}
        if kind == "derivative":
            content["GeneratedBy"] = [{"Name": "synthetic maps"}]
        (root / "dataset_description.json").write_text(json.dumps(content), encoding="utf-8")
    sidecar = json.dumps({"Contrast": "a - b", "ContrastWeights": {"a": 1.0, "b": -1.0}, "DegreesOfFreedom": 180.0})
    for number in range(n_participants):
        for session in SESSIONS:
            name = f"sub-{number + 1:04d}_ses-{session}_task-x_space-{space}_contrast-aMinusB"
            target = maps / f"sub-{number + 1:04d}" / f"ses-{session}" / "func"
            target.mkdir(parents=True)
            for statistic in ("effect", "variance"):
                path = target / f"{name}_stat-{statistic}_desc-fixedEffects_statmap{extension}"
                path.symlink_to(pool / f"{number % _DRAWN_PARTICIPANTS}_{session}_{statistic}{extension}")
                path.with_name(path.name.removesuffix(extension) + ".json").write_text(sidecar, encoding="utf-8")
    return raw, maps


def draw_maps(pool: Path, n_participants: int = _DRAWN_PARTICIPANTS, step: int = 1) -> None:
    """Draw smooth maps: a level of each participant, noise of each session, and an effect in three places.

    Of every so many voxels in each direction one is written.
    """
    pool.mkdir(parents=True)
    rng = np.random.default_rng(0)
    mask = brain_mask()
    effect = np.zeros(SHAPE)
    for centre, size in (((35, 40, 50), 1.0), ((62, 40, 50), 1.0), ((48, 80, 55), -0.8)):
        effect[centre] = size
    effect = ndimage.gaussian_filter(effect, 6.0)
    effect /= np.abs(effect).max()
    for number in range(n_participants):
        level = _noise(rng)
        for order, session in enumerate(SESSIONS):
            values = 0.5 * level + 0.5 * _noise(rng) + (0.6 + 0.15 * order) * effect
            variance = 0.1 * np.exp(0.3 * _noise(rng))
            for statistic, volume in (("effect", values), ("variance", variance)):
                image = nib.Nifti1Image(
                    np.where(mask, volume, 0.0)[::step, ::step, ::step], AFFINE @ np.diag([step, step, step, 1])
                )
                nib.save(image, pool / f"{number}_{session}_{statistic}.nii.gz")


def _noise(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    return np.asarray(noise / noise.std())


def measure_group(
    folder: Path, numbers: Sequence[int] = (20, 100, 400), pairs: int = 3, n_processes: int = 2
) -> list[dict[str, float | int | None]]:
    """Measure the group level for several numbers of participants, beside the peer where it can be run.

    Parameters
    ----------
    folder : Path
        For maps and outputs; what is made there is removed.
    numbers : sequence of int
        Of participants.
    pairs : int
        Runs of each that count, in turn.
    n_processes : int
        `--nprocs` of the program.

    Returns
    -------
    list of dict
        One per number: `participants`, `maps`, `designs` (strategies × session contrasts that are answered); medians
        `wall` and `cpu` (s) and `peak` (MB) of the program, `wall_per_design` and `cpu_per_design`; `peer_wall`,
        `peer_cpu`, `peer_peak` of the peer's process, `peer_fit`, its seconds for fit and contrast alone (last run);
        `ratio_wall`, `ratio_cpu`: the peer's whole process over ours per design, medians of pairs; `ratio_fit`: the
        peer's fit and contrast alone over our whole process per design. None where the peer is not run.
    """
    rows: list[dict[str, float | int | None]] = []
    pool = folder / "pool"
    draw_maps(pool, min(max(numbers), _DRAWN_PARTICIPANTS))
    for number in numbers:
        study, output, seconds = folder / f"study-{number}", folder / "out", folder / "seconds"
        raw, maps = write_study(study, pool, number)
        asked = [part for contrast in SESSION_CONTRASTS for part in ("--session-contrast", contrast)]
        command = [sys.executable, "-m", "sessionfx", raw, output, "group", "-d", maps, "--no-report", *asked]
        ours = [*map(str, command), "--nprocs", str(n_processes)]
        peer = [sys.executable, "-c", PEER, str(maps), str(seconds)]
        n_designs = 0

        def clear(output: Path = output) -> None:
            nonlocal n_designs
            n_designs = max(n_designs, len(list((output / "group").glob("*_design.tsv"))))
            shutil.rmtree(output, ignore_errors=True)

        if number <= _MOST_OF_PEER:
            found = compare(ours, peer, pairs=pairs, before=clear)
        else:
            found = Comparison(tuple(_alone(ours, clear) for _ in range(pairs)), ())
        clear()
        fit = float(seconds.read_text()) if found.peer else None
        rows.append(_row(found, number, n_designs, fit))
        shutil.rmtree(study)
        seconds.unlink(missing_ok=True)
    shutil.rmtree(pool)
    return rows


def _alone(command: Sequence[str], before: Callable[[], None]) -> Usage:
    before()
    return measure(command)


def _row(found: Comparison, number: int, n_designs: int, fit: float | None) -> dict[str, float | int | None]:
    wall, cpu = found.median("ours", "wall"), found.median("ours", "cpu")
    row: dict[str, float | int | None] = {
        "participants": number,
        "maps": number * len(SESSIONS),
        "designs": n_designs,
        "wall": wall,
        "cpu": cpu,
        "peak": found.median("ours", "peak"),
        "wall_per_design": wall / n_designs,
        "cpu_per_design": cpu / n_designs,
        "cpu_per_participant": cpu / number,
        "peer_fit": fit,
    }
    with_peer = bool(found.peer)
    for quantity in ("wall", "cpu", "peak"):
        row[f"peer_{quantity}"] = found.median("peer", quantity) if with_peer else None
    for quantity in ("wall", "cpu"):
        row[f"ratio_{quantity}"] = found.ratio(quantity) * n_designs if with_peer else None
    row["ratio_fit"] = fit / (wall / n_designs) if fit is not None else None
    return row


COLUMNS = {
    "participants": "participants",
    "designs": "designs answered",
    "wall": "wall (s)",
    "cpu": "CPU (s)",
    "peak": "peak memory (MB)",
    "wall_per_design": "wall per design (s)",
    "cpu_per_participant": "CPU per participant (s)",
    "peer_wall": "nilearn, one design: wall (s)",
    "peer_fit": "its fit and contrast alone (s)",
    "peer_cpu": "CPU (s)",
    "peer_peak": "peak memory (MB)",
    "ratio_wall": "wall per design, nilearn / SessionFX",
    "ratio_fit": "with its fit and contrast alone",
    "ratio_cpu": "CPU per design",
}


def as_table(rows: Sequence[Mapping[str, float | int | None]]) -> str:
    """Write the rows as a table in Markdown, with three significant digits."""

    def text(value: float | int | None) -> str:
        if value is None:
            return "—"
        return f"{value:.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.3g}"

    lines = [list(COLUMNS.values()), ["---:"] * len(COLUMNS), *([text(row[key]) for key in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, nargs="+", default=[20, 100, 400])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for 250 MB and the outputs (a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure_group(Path(folder), arguments.participants, arguments.pairs)
    print(as_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

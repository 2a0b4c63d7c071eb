"""What a space is changes no bit of a volume: a study's files hold what plain arrays, read with nibabel, give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from array_study import Study, everyone
from program import CONTRAST
from sessionfx.cli import main
from sessionfx.group.strategies import STRATEGIES
from sessionfx.participant.glm import fit_run
from sessionfx.simulate import SimulationOptions, simulate_dataset
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.fixed_effects import average, weighted_sum
from sessionfx.wording import words_to_label

pytestmark = pytest.mark.slow

LABEL = "incongruentMinusCongruent"
PARTICIPANTS, SESSIONS, RUNS = ("01", "02", "03", "04", "05"), ("01", "02"), ("01", "02")
CHANGE = "ses-02 - ses-01"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and what the program made of it."""
    root = tmp_path_factory.mktemp("volumes")
    bids = simulate_dataset(
        root / "bids",
        SimulationOptions(n_participants=5, n_sessions=2, n_runs=2, n_volumes=40, voxel_size=14.0, missing=()),
    )
    assert main([str(bids), str(root / "out"), "participant", "group", "--contrast", CONTRAST, "--no-report",
                 "--session-contrast", "mean", "--session-contrast", CHANGE, "--min-coverage", "1", "--nprocs", "1"]) == 0  # fmt: skip
    return bids, root / "out"


@dataclass(frozen=True)
class Hand:
    """What is computed by hand: an estimate at the voxels of a mask."""

    estimate: Estimate
    mask: NDArray[np.bool_]


@pytest.fixture(scope="module")
def sessions(study: tuple[Path, Path]) -> dict[tuple[str, str], Hand]:
    return {
        (participant, session): together([by_hand(study, participant, session, run) for run in RUNS], average)
        for participant in PARTICIPANTS
        for session in SESSIONS
    }


def together(parts: list[Hand], combine: Callable[[list[Estimate]], Estimate]) -> Hand:
    mask = np.logical_and.reduce([part.mask for part in parts])
    return Hand(combine([part.estimate.at(mask[part.mask]) for part in parts]), mask)


def by_hand(study: tuple[Path, Path], participant: str, session: str, run: str) -> Hand:
    """Fit a run from its array and the design that the program wrote."""
    bids, output = study
    folder = Path(f"sub-{participant}/ses-{session}/func")
    start = f"sub-{participant}_ses-{session}_task-stroop_run-{run}"
    (image,) = (bids / "derivatives/fmriprep" / folder).glob(f"{start}_space-*_desc-preproc_bold.nii.gz")
    (brain,) = (bids / "derivatives/fmriprep" / folder).glob(f"{start}_space-*_desc-brain_mask.nii.gz")
    (table,) = (output / folder).glob(f"{start}_*design.tsv")
    design = pd.read_csv(table, sep="\t", dtype=str).astype(float)
    series = np.asarray(nib.load(image).dataobj)
    series = series if series.dtype.kind == "f" else series.astype(np.float32)
    mask = (np.asarray(nib.load(brain).dataobj) > 0) & np.isfinite(series).all(axis=-1) & (np.ptp(series, axis=-1) > 0)
    signal = np.stack([series[..., volume][mask] for volume in range(series.shape[-1])])
    weights = np.array([float(column == "incongruent") - float(column == "congruent") for column in design])
    return Hand(fit_run(signal, design.to_numpy(), {LABEL: weights}, "ar1", "voxel")[LABEL], mask)


def compare(hand: Hand, folder: Path, about: str) -> None:
    """Compare with the files, in the precision that they have."""
    for statistic, values in hand.estimate.maps().items():
        (path,) = folder.glob(f"*contrast-{LABEL}_{about}stat-{statistic}_*statmap.nii.gz")
        written = nib.load(path)
        expected = np.full(hand.mask.shape, float(statistic == "p"), dtype=written.get_data_dtype())
        expected[hand.mask] = values
        assert np.array_equal(expected, np.asarray(written.dataobj)), path.name


def test_maps_of_sessions_and_of_their_change(study: tuple[Path, Path], sessions: dict[tuple[str, str], Hand]) -> None:
    for (participant, session), hand in sessions.items():
        compare(hand, study[1] / f"sub-{participant}/ses-{session}/func", "")
    for participant in PARTICIPANTS:
        own = [sessions[participant, session] for session in SESSIONS]
        folder = study[1] / f"sub-{participant}/func"
        compare(together(own, lambda parts: weighted_sum(parts, [-1.0, 1.0])), folder, "sessions-ses02MinusSes01_")
        compare(together(own, average), folder, "sessions-mean_")


@pytest.mark.parametrize("strategy", [name for name, strategy in STRATEGIES.items() if strategy.is_default])
@pytest.mark.parametrize("asked", ["mean", CHANGE])
def test_answers_of_the_group(
    study: tuple[Path, Path], sessions: dict[tuple[str, str], Hand], strategy: str, asked: str
) -> None:
    design = Study(everyone(len(PARTICIPANTS), len(SESSIONS)))
    mask = np.logical_and.reduce([hand.mask for hand in sessions.values()])
    effects = np.array([hand.estimate.at(mask[hand.mask]).effect for hand in sessions.values()])
    _, answer = design.answer(strategy, design.question(asked), effects)
    about = f"sessions-{'mean' if asked == 'mean' else 'ses02MinusSes01'}_strategy-{words_to_label([strategy])}_"
    assert isinstance(answer, Estimate)
    compare(Hand(answer, mask), study[1] / "group", about)

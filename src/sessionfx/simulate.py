"""Make a small multi-session BIDS dataset whose true effects are known.

The dataset serves the demonstration and the tests. It holds raw BIDS files, derivatives laid out like
fMRIPrep's, and the truth that generated them.

Vocabulary
----------
effect
    The difference incongruent − congruent, in percent signal change. It is the weight of the regressor that
    nilearn builds from the events with Glover's haemodynamic response. A model that uses this regressor, and
    scales each voxel by its mean, therefore estimates the effect without a conversion factor.
mean effect region
    Every session has the same expected effect here (dorsomedial frontal).
session change region
    The expected effect changes linearly over sessions here; its mean over sessions is zero (left parietal).
task region
    Both conditions evoke the same response here (occipital), so the effect is zero.
null
    Everywhere outside the first two regions the effect is exactly zero for every participant and session.
    Random effects are absent there too, so group tests have their nominal error rate.

Shapes: T volumes, V voxels of the head. Time series are (T, V) arrays in percent of the voxel's baseline.

Every random number comes from a stream keyed by what it is for (seed, purpose, participant, session, run).
Adding participants, sessions or runs hence leaves the noise, events and random effects of the others
unchanged. (Adding sessions moves the centre of the linear change, as it must.)
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessionfx import __version__
from sessionfx.errors import INTERRUPTED
from sessionfx.process import prepare_streams
from sessionfx.wording import one_paragraph

# numpy, pandas, nibabel and nilearn are imported inside functions: `--help` must answer at once.
if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BIDS_VERSION = "1.10.0"
CONDITIONS = ("congruent", "incongruent")
CONTRAST = "incongruentMinusCongruent"

# Coordinates and radii in mm, MNI axes (RAS).
BOUNDING_BOX = ((-72.0, 72.0), (-108.0, 76.0), (-72.0, 84.0))
BRAIN_CENTRE, BRAIN_RADII = (0.0, -16.0, 6.0), (66.0, 84.0, 70.0)
VENTRICLE_CENTRE, VENTRICLE_RADII = (0.0, -20.0, 16.0), (14.0, 30.0, 14.0)
WHITE_MATTER_CENTRES, WHITE_MATTER_RADII = ((-26.0, -14.0, 24.0), (26.0, -14.0, 24.0)), (13.0, 36.0, 16.0)
# Far enough apart that 8 mm of smoothing does not carry one region's effect into another.
REGIONS = {
    "meanEffect": ((0.0, 18.0, 36.0), 20.0),
    "sessionChange": ((-34.0, -48.0, 36.0), 20.0),
    "taskOnly": ((0.0, -84.0, 2.0), 22.0),
}
EFFECT_REGIONS = ("meanEffect", "sessionChange")

# Distance from the brain's centre where its surface is 1. Below CORE every session's mask contains the voxel;
# masks differ between sessions only within EDGE of the surface; the scalp ends at HEAD.
CORE, EDGE, HEAD = 0.9, 0.06, 1.12

BASELINE_INTENSITY = 1000.0
COMMON_RESPONSE = 0.8  # percent signal change that both conditions evoke in every region
NON_STEADY_STATE_GAIN = 1.2  # the first volume is brighter: T1 has not reached its steady state yet
TRIAL_DURATION = 1.5  # s
INTER_TRIAL_INTERVAL = (1.0, 2.4)  # s; its mean makes trials fill 47 % of the time
FIRST_ONSET, QUIET_END = 4.0, 6.0  # s; the response of the last trial is seen before the scanner stops
SHORTEST_RUN = 40.0  # s
HIGH_PASS = 1 / 128  # Hz; cut-off of fMRIPrep's cosine columns
MOTION_COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD_RADIUS = 50.0  # mm; turns rotations into displacements (Power et al. 2012, NeuroImage 59:2142)
MOTION_OUTLIER_THRESHOLD = 0.5  # mm of framewise displacement; fMRIPrep's default
N_COMPCOR = 6


class Purpose(IntEnum):
    """What a stream of random numbers is for; the first element of its key.

    The numbers are arbitrary but part of the data: with the default seed they draw random effects whose means
    are near their expectation, as a demonstration wants. Changing them changes every dataset.
    """

    EVENTS = 1
    MOTION = 2
    NOISE = 3
    PARTICIPANT_EFFECT = 4
    SESSION_EFFECT = 5
    SESSION_MASK = 6
    DRIFT = 7
    DEMOGRAPHICS = 8


@dataclass(frozen=True)
class SimulationOptions:
    """Design, effects and noise of a simulated dataset.

    Parameters
    ----------
    n_participants, n_sessions, n_runs : int
        Participants, sessions per participant and runs per session.
    n_volumes : int
        Volumes per run.
    repetition_time : float
        In s.
    voxel_size : float
        Edge of the cubic voxels, in mm.
    space : str
        Value of the ``space`` entity of the derivatives.
    task : str
        Value of the ``task`` entity.
    seed : int
        The same seed and options give the same files, byte for byte.
    missing : tuple of (str, str)
        (participant, session) labels that were not scanned. Pairs beyond the design are ignored.
    mean_effect : float
        Effect in the mean effect region in every session, in percent signal change.
    session_change : float
        Change of the effect from each session to the next in the session change region, in percent signal
        change.
    participant_sd : float
        Standard deviation over participants of the effect, constant over sessions, in percent signal change.
    session_sd : float
        Standard deviation over a participant's sessions of the effect, in percent signal change.
    noise_sd : float
        Standard deviation of the AR(1) noise, in percent of baseline.
    ar1 : float
        Correlation of the noise between neighbouring volumes.
    sessions_in_names : bool
        False gives a dataset without ``ses-`` entities; it can have only one session.
    write_raw_bold : bool
        False leaves out the raw images (the derivatives and the events remain).

    Raises
    ------
    ValueError
        If a value cannot be used. The message names the option.
    """

    n_participants: int = 8
    n_sessions: int = 3
    n_runs: int = 2
    n_volumes: int = 120
    repetition_time: float = 2.0
    voxel_size: float = 8.0
    space: str = "MNI152NLin2009cAsym"
    task: str = "stroop"
    seed: int = 2026
    missing: tuple[tuple[str, str], ...] = (("05", "03"),)
    mean_effect: float = 1.0
    session_change: float = 0.6
    participant_sd: float = 0.3
    session_sd: float = 0.15
    noise_sd: float = 0.7
    ar1: float = 0.4
    sessions_in_names: bool = True
    write_raw_bold: bool = True

    def __post_init__(self) -> None:
        # the largest are far beyond what anybody waits for
        for name, least, most in (
            ("n_participants", 1, 10_000),
            ("n_sessions", 1, 1000),
            ("n_runs", 1, 1000),
            ("n_volumes", 20, 10_000),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            whole = hasattr(value, "__index__")  # numpy's integers have it too; floats do not
            _require(whole and least <= value <= most, name, value, f"a whole number, {least} or more, up to {most:,}")
        _require(0 < self.repetition_time <= 10, "repetition_time", self.repetition_time, "above 0 and up to 10 s")
        # Coarser voxels leave regions and tissues empty; finer ones make files that are no longer small.
        _require(3 <= self.voxel_size <= 14, "voxel_size", self.voxel_size, "between 3 and 14 mm")
        for name in ("mean_effect", "session_change"):
            value = getattr(self, name)
            _require(abs(value) <= 50, name, value, "between -50 and 50 percent")
        for name in ("participant_sd", "session_sd", "noise_sd"):
            value = getattr(self, name)
            _require(0 <= value <= 50, name, value, "between 0 and 50 percent")
        _require(-1 < self.ar1 < 1, "ar1", self.ar1, "between -1 and 1, both excluded")
        for name in ("space", "task"):
            value = getattr(self, name)
            _require(
                bool(re.fullmatch("[0-9a-zA-Z]+", value)),
                name,
                value,
                "letters and digits only, as in a BIDS label",
            )
        run_duration = self.n_volumes * self.repetition_time
        if run_duration < SHORTEST_RUN:
            raise ValueError(
                f"A run of {run_duration:g} s is too short for the task: n_volumes × repetition_time (--volumes, "
                f"--repetition-time) must be {SHORTEST_RUN:g} s or more."
            )
        if not self.sessions_in_names and self.n_sessions != 1:
            raise ValueError(
                "A dataset without ses- in its names has one session, but n_sessions (--sessions) is "
                f"{self.n_sessions}."
            )
        if not list(_scanned_sessions(self)):
            raise ValueError("missing (--missing) leaves no session of any participant.")


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise a ValueError that names the option, in Python and on the command line, unless `condition`."""
    if not condition:
        raise ValueError(f"{name} ({_flag(name)}) must be {expected}; got {value!r}.")


def _flag(field_name: str) -> str:
    """Return the command-line option that sets a field."""
    return "--" + field_name.removeprefix("n_").replace("_", "-")


def _label(index: int) -> str:
    """Return the BIDS label of a zero-based participant, session or run index."""
    return f"{index + 1:02d}"


def _scanned_sessions(options: SimulationOptions) -> Iterator[tuple[int, int]]:
    """Yield zero-based (participant, session) indices in the order of the files."""
    missing = set(options.missing)
    for participant in range(options.n_participants):
        for session in range(options.n_sessions):
            if (_label(participant), _label(session)) not in missing:
                yield participant, session


def _stream(options: SimulationOptions, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return the random numbers of one purpose for one participant, session or run."""
    import numpy as np

    return np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(int(purpose), *indices)))


# The head ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anatomy:
    """The head that all participants share, on the grid of the images.

    Attributes
    ----------
    affine : array of shape (4, 4)
        Voxel indices to mm, RAS.
    head : bool array of shape (X, Y, Z)
        Voxels with signal; its true voxels, in C order, are the V voxels of the other attributes.
    coordinates : array of shape (V, 3)
        In mm.
    depth : array of shape (V,)
        Distance from the brain's centre; 1 is the surface of the brain.
    baseline : array of shape (V,)
        Intensity without task, drift, motion and noise.
    regions : dict of bool arrays of shape (V,)
        One entry per entry of `REGIONS`.
    csf, white_matter : bool arrays of shape (V,)
        Tissues that no region overlaps.
    """

    affine: np.ndarray
    head: np.ndarray
    coordinates: np.ndarray
    depth: np.ndarray
    baseline: np.ndarray
    regions: dict[str, np.ndarray]
    csf: np.ndarray
    white_matter: np.ndarray

    def to_volume(self, values: np.ndarray) -> np.ndarray:
        """Put values of shape (V, ...) into an array of shape (X, Y, Z, ...), zero outside the head."""
        import numpy as np

        volume = np.zeros((*self.head.shape, *values.shape[1:]), dtype=values.dtype)
        volume[self.head] = values
        return volume


def make_anatomy(voxel_size: float) -> Anatomy:
    """Return the head on a grid of cubic voxels with edge `voxel_size` (mm)."""
    import numpy as np

    axes = [np.arange(low, high + voxel_size / 100, voxel_size) for low, high in BOUNDING_BOX]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = [low for low, _ in BOUNDING_BOX]

    head = _ellipsoid_distance(grid, BRAIN_CENTRE, BRAIN_RADII) <= HEAD
    coordinates = grid[head]
    depth = _ellipsoid_distance(coordinates, BRAIN_CENTRE, BRAIN_RADII)
    regions = {
        name: (_ellipsoid_distance(coordinates, centre, (radius,) * 3) <= 1) & (depth < CORE)
        for name, (centre, radius) in REGIONS.items()
    }
    outside_regions = ~np.any(list(regions.values()), axis=0)
    csf = _ellipsoid_distance(coordinates, VENTRICLE_CENTRE, VENTRICLE_RADII) <= 1
    white_matter = np.any(
        [_ellipsoid_distance(coordinates, c, WHITE_MATTER_RADII) <= 1 for c in WHITE_MATTER_CENTRES], axis=0
    )
    x, y, z = coordinates.T
    texture = 0.08 * np.cos(x / 11) * np.cos(y / 13) + 0.06 * np.cos(z / 12 + x / 40)
    contrast = texture + 0.25 * csf - 0.06 * white_matter - 0.45 * np.clip((depth - CORE) / (HEAD - CORE), 0, 1)
    return Anatomy(
        affine=affine,
        head=head,
        coordinates=coordinates,
        depth=depth,
        baseline=BASELINE_INTENSITY * (1 + contrast),
        regions=regions,
        csf=csf & outside_regions,
        white_matter=white_matter & ~csf & outside_regions,
    )


def _ellipsoid_distance(coordinates: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Return the distance from an ellipsoid's centre in units of its radii; 1 is the surface."""
    import numpy as np

    return np.linalg.norm((coordinates - np.array(centre)) / np.array(radii), axis=-1)


def make_session_mask(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Return one session's brain mask, shape (V,): a few voxels at the brain's edge come or go."""
    import numpy as np

    mask = anatomy.depth <= 1
    edge = np.flatnonzero(np.abs(anatomy.depth - 1) < EDGE)
    flipped = rng.choice(edge, size=min(6, len(edge)), replace=False)
    mask[flipped] = ~mask[flipped]
    return mask


# Truth ------------------------------------------------------------------------------------------------------


def group_effect(options: SimulationOptions, session: int) -> dict[str, float]:
    """Return the expected effect of a zero-based session per region, in percent signal change."""
    centred_session = session - (options.n_sessions - 1) / 2
    return {"meanEffect": options.mean_effect, "sessionChange": options.session_change * centred_session}


def session_effect(options: SimulationOptions, participant: int, session: int) -> dict[str, float]:
    """Return one participant's true effect in one session per region, in percent signal change.

    The random intercept and the session deviation are normal, the same for all voxels of a region, and
    independent between regions. Indices are zero-based.
    """
    intercepts = _stream(options, Purpose.PARTICIPANT_EFFECT, participant).standard_normal(len(EFFECT_REGIONS))
    deviations = _stream(options, Purpose.SESSION_EFFECT, participant, session).standard_normal(len(EFFECT_REGIONS))
    expected = group_effect(options, session)
    return {
        region: expected[region] + float(options.participant_sd * intercept + options.session_sd * deviation)
        for region, intercept, deviation in zip(EFFECT_REGIONS, intercepts, deviations, strict=True)
    }


# Signals ----------------------------------------------------------------------------------------------------


def make_events(run_duration: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return the trials of one run: onset, duration, trial_type, response_time (all times in s).

    Both conditions have the same number of trials, and at most three of a kind follow one another.
    """
    import numpy as np
    import pandas as pd

    onsets: list[float] = []
    onset = FIRST_ONSET + rng.uniform(0, 1)
    while onset + TRIAL_DURATION <= run_duration - QUIET_END:
        onsets.append(round(onset, 3))
        onset += TRIAL_DURATION + rng.uniform(*INTER_TRIAL_INTERVAL)

    n_per_condition = len(onsets) // 2
    streaks: list[int] = []
    while (n_left := n_per_condition - sum(streaks)) > 0:
        # Pairs most often: alternating faster than the haemodynamic response wastes power.
        streaks.append(min(int(rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3])), n_left))
    order: list[str] = []
    conditions = rng.permutation(CONDITIONS)
    for lengths in zip(rng.permutation(streaks), rng.permutation(streaks), strict=True):
        for condition, length in zip(conditions, lengths, strict=True):
            order += [str(condition)] * int(length)

    slower = np.array([condition == "incongruent" for condition in order])
    response_time = np.clip(rng.normal(0.65 + 0.15 * slower, 0.12), 0.25, TRIAL_DURATION)
    return pd.DataFrame(
        {
            "onset": onsets[: len(order)],
            "duration": TRIAL_DURATION,
            "trial_type": order,
            "response_time": response_time.round(3),
        }
    )


def frame_times(options: SimulationOptions) -> np.ndarray:
    """Return the middle of each volume, shape (T,), in s: StartTime is half the repetition time."""
    import numpy as np

    return options.repetition_time * (0.5 + np.arange(options.n_volumes))


def make_task_signal(anatomy: Anatomy, events: pd.DataFrame, times: np.ndarray, effect: dict[str, float]) -> np.ndarray:
    """Return the response to the trials, shape (T, V), in percent.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    events : DataFrame
        onset, duration (s) and trial_type.
    times : array of shape (T,)
        Middle of each volume, in s.
    effect : dict
        Effect per region, in percent signal change: half of it is added to incongruent, half taken from
        congruent.
    """
    import numpy as np
    from nilearn.glm.first_level import compute_regressor

    signal = np.zeros((len(times), len(anatomy.depth)))
    for condition, sign in zip(CONDITIONS, (-0.5, 0.5), strict=True):
        trials = events[events["trial_type"] == condition]
        exp_condition = np.array([trials["onset"], trials["duration"], np.ones(len(trials))])
        regressor, _ = compute_regressor(exp_condition, "glover", times)
        for region, inside in anatomy.regions.items():
            signal[:, inside] += (COMMON_RESPONSE + sign * effect.get(region, 0.0)) * regressor
    return signal


def make_motion(n_volumes: int, jump: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return head motion, shape (T, 6): x, y, z translation (mm), then rotation (rad); starts at zero.

    Each parameter is a smoothed random walk. At volume `jump` the head moves by about 1 mm and stays there.
    """
    import numpy as np

    steps = rng.standard_normal((n_volumes, 6))
    smooth_steps = np.apply_along_axis(lambda column: np.convolve(column, np.ones(5) / 5, mode="same"), 0, steps)
    # About 0.1 mm of framewise displacement, a participant who lies still.
    motion = np.cumsum(smooth_steps * np.array([0.03] * 3 + [0.0006] * 3), axis=0)
    if jump is not None:
        motion[jump:] += np.array([0.1, 0.2, 0.6, 0.006, 0.001, 0.001])
    return motion - motion[0]


def motion_jump(options: SimulationOptions, participant: int, session: int, run: int) -> int | None:
    """Return the volume at which the head jumps in a run, None for most runs.

    A rule instead of chance: one run in seven, always the first of participant 01, so that even the smallest
    dataset has a run with an outlier.
    """
    has_jump = (2 * participant + 3 * session + 5 * run) % 7 == 0
    return options.n_volumes * 2 // 3 if has_jump else None


def make_motion_signal(anatomy: Anatomy, motion: np.ndarray, jump: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return what motion does to the signal, shape (T, V), in percent.

    Linear in the six parameters, with weights that vary smoothly over the head; a jump darkens its volume.
    """
    import numpy as np

    percent_per_unit = np.array([[0.8]] * 3 + [[40.0]] * 3)  # percent per mm, percent per rad
    signal = motion @ (percent_per_unit * _smooth_maps(anatomy, 6, rng))
    if jump is not None:
        signal[jump] -= 3.0 + 0.5 * _smooth_maps(anatomy, 1, rng)[0]
    return np.asarray(signal)


def make_drift(anatomy: Anatomy, n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Return slow scanner drift, shape (T, V), in percent: a straight line and three half-cosines."""
    import numpy as np

    time = (0.5 + np.arange(n_volumes)) / n_volumes
    shapes = np.stack([time - 0.5, *(np.cos(np.pi * k * time) for k in (1, 2, 3))], axis=1)
    amplitudes = np.array([[0.3], [0.5], [0.3], [0.2]])
    return np.asarray(shapes @ (amplitudes * (0.5 + 0.5 * _smooth_maps(anatomy, 4, rng))))


def _smooth_maps(anatomy: Anatomy, n_maps: int, rng: np.random.Generator) -> np.ndarray:
    """Return random maps of shape (n_maps, V), linear in the coordinates, with values of the order of one."""
    import numpy as np

    basis = np.column_stack([np.ones(len(anatomy.depth)), anatomy.coordinates / 60.0])
    return np.asarray(0.6 * rng.standard_normal((n_maps, 4)) @ basis.T)


def make_noise(n_volumes: int, n_voxels: int, sd: float, ar1: float, rng: np.random.Generator) -> np.ndarray:
    """Return AR(1) noise of shape (T, V) with standard deviation `sd` from the first volume on.

    Voxels are independent of one another, so that each voxel outside the regions is one sample of the null.
    """
    import numpy as np

    noise = rng.standard_normal((n_volumes, n_voxels))
    innovation_sd = math.sqrt(1 - ar1**2)
    for volume in range(1, n_volumes):
        noise[volume] = ar1 * noise[volume - 1] + innovation_sd * noise[volume]
    return np.asarray(sd * noise)


# Confounds --------------------------------------------------------------------------------------------------


def make_confounds(
    data: np.ndarray, anatomy: Anatomy, mask: np.ndarray, motion: np.ndarray, times: np.ndarray
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return fMRIPrep's confounds of one run and their sidecar.

    Parameters
    ----------
    data : array of shape (T, V)
        Intensities.
    anatomy : Anatomy
        The head.
    mask : bool array of shape (V,)
        The brain.
    motion : array of shape (T, 6)
        In mm and rad.
    times : array of shape (T,)
        Middle of each volume, in s.
    """
    import numpy as np
    import pandas as pd
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    n_volumes = len(times)
    cosines = create_cosine_drift(HIGH_PASS, times)  # the last column is constant
    displacement = _framewise_displacement(motion)
    dvars = np.sqrt(np.mean(np.diff(data[:, mask], axis=0) ** 2, axis=1))
    first_missing = np.array([np.nan])

    columns: dict[str, np.ndarray] = {
        "global_signal": data[:, mask].mean(axis=1),
        "csf": data[:, anatomy.csf].mean(axis=1),
        "white_matter": data[:, anatomy.white_matter].mean(axis=1),
        "dvars": np.concatenate([first_missing, dvars]),
        "std_dvars": np.concatenate([first_missing, dvars / _expected_dvars(data[:, mask])]),
        "framewise_displacement": np.concatenate([first_missing, displacement]),
    }
    tissue = data[:, anatomy.csf | anatomy.white_matter]
    components, singular_values, explained = _compcor(tissue, cosines)
    sidecar: dict[str, Any] = {}
    for k, component in enumerate(components.T):
        columns[f"a_comp_cor_{k:02d}"] = component
        sidecar[f"a_comp_cor_{k:02d}"] = {
            "Method": "aCompCor",
            "Mask": "combined",
            "Retained": True,
            "SingularValue": round(float(singular_values[k]), 6),
            "VarianceExplained": round(float(explained[k]), 6),
            "CumulativeVarianceExplained": round(float(explained[: k + 1].sum()), 6),
        }
    columns |= {f"cosine{k:02d}": cosine for k, cosine in enumerate(cosines[:, :-1].T)}
    columns["non_steady_state_outlier00"] = _spike(n_volumes, 0)
    outliers = 1 + np.flatnonzero(displacement > MOTION_OUTLIER_THRESHOLD)
    columns |= {f"motion_outlier{k:02d}": _spike(n_volumes, int(volume)) for k, volume in enumerate(outliers)}
    for name, parameter in zip(MOTION_COLUMNS, motion.T, strict=True):
        derivative = np.concatenate([first_missing, np.diff(parameter)])
        columns[name] = parameter
        columns[f"{name}_derivative1"] = derivative
        columns[f"{name}_power2"] = parameter**2
        columns[f"{name}_derivative1_power2"] = derivative**2
    return pd.DataFrame(columns), sidecar


def _framewise_displacement(motion: np.ndarray) -> np.ndarray:
    """Return each step's framewise displacement (Power et al. 2012), shape (T − 1,), in mm."""
    import numpy as np

    steps = np.abs(np.diff(motion, axis=0))
    return np.asarray(steps[:, :3].sum(axis=1) + HEAD_RADIUS * steps[:, 3:].sum(axis=1))


def _expected_dvars(data: np.ndarray) -> float:
    """Return the DVARS of AR(1) noise with the data's robust SD and autocorrelation (Nichols 2013)."""
    import numpy as np

    lower, upper = np.percentile(data, [25, 75], axis=0)
    variance = ((upper - lower) / 1.349) ** 2
    centred = data - data.mean(axis=0)
    ar1 = (centred[1:] * centred[:-1]).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12)
    return float(np.sqrt(np.mean(2 * (1 - ar1) * variance)).clip(1e-6))


def _compcor(tissue: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the principal time courses of tissue (Behzadi et al. 2007, NeuroImage 37:90).

    Parameters
    ----------
    tissue : array of shape (T, number of voxels)
        Intensities.
    cosines : array of shape (T, number of cosines)
        Slow changes to remove first, the constant included.

    Returns
    -------
    components : array of shape (T, N_COMPCOR)
        Zero in the first volume, which is not in its steady state.
    singular_values : array of shape (N_COMPCOR,)
        Of the standardised tissue.
    explained : array of shape (N_COMPCOR,)
        Fraction of the tissue's variance.
    """
    import numpy as np

    steady, slow = tissue[1:], cosines[1:]
    residual = steady - slow @ np.linalg.lstsq(slow, steady, rcond=None)[0]
    residual /= np.maximum(residual.std(axis=0), 1e-12)
    u, singular_values, _ = np.linalg.svd(residual, full_matrices=False)
    u = u[:, :N_COMPCOR]
    u *= np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])  # LAPACK leaves the sign to chance
    explained = singular_values**2 / np.sum(singular_values**2)
    return np.vstack([np.zeros((1, u.shape[1])), u]), singular_values[:N_COMPCOR], explained[:N_COMPCOR]


def _spike(n_volumes: int, volume: int) -> np.ndarray:
    """Return an indicator of one volume, shape (T,), whole numbers."""
    import numpy as np

    return (np.arange(n_volumes) == volume).astype(np.int64)


DEFAULT_OPTIONS = SimulationOptions()

# Files ------------------------------------------------------------------------------------------------------


def simulate_dataset(output_dir: Path, options: SimulationOptions = DEFAULT_OPTIONS, *, progress: bool = False) -> Path:
    """Write the dataset: raw BIDS, ``derivatives/fmriprep`` and ``derivatives/truth``.

    Parameters
    ----------
    output_dir : Path
        The root of the dataset; must be empty or not exist.
    options : SimulationOptions
        Design, effects and noise.
    progress : bool
        Show a progress bar on stderr if that is a terminal.

    Returns
    -------
    Path
        `output_dir`.

    Raises
    ------
    ValueError
        If `output_dir` is a file or a folder that is not empty.
    """
    from tqdm import tqdm

    output_dir = Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"{output_dir} is a file. Name a new or empty folder for the dataset.")
    if output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty. Name a new or empty folder: nothing is overwritten.")

    anatomy = make_anatomy(options.voxel_size)
    _write_raw_descriptions(output_dir, anatomy, options)
    _write_truth(output_dir / "derivatives" / "truth", anatomy, options)
    _write_description(
        output_dir / "derivatives" / "fmriprep",
        "Simulated derivatives in the layout of fMRIPrep",
        dataset_type="derivative",
    )
    # As in the output of fMRIPrep: the validator knows no file names for confounds yet.
    ignored = "*_timeseries.tsv\n*_timeseries.json\n"
    _write_text(output_dir / "derivatives" / "fmriprep" / ".bidsignore", ignored)
    runs = [
        (participant, session, run)
        for participant, session in _scanned_sessions(options)
        for run in range(options.n_runs)
    ]
    for participant, session, run in tqdm(runs, desc="Simulating", unit="run", disable=None if progress else True):
        _write_run(output_dir, anatomy, options, participant, session, run)
    return output_dir


def _write_run(
    root: Path, anatomy: Anatomy, options: SimulationOptions, participant: int, session: int, run: int
) -> None:
    """Simulate one run and write its raw files and derivatives."""
    import numpy as np

    key = (participant, session, run)
    times = frame_times(options)
    events = make_events(options.n_volumes * options.repetition_time, _stream(options, Purpose.EVENTS, *key))
    jump = motion_jump(options, *key)
    motion_rng = _stream(options, Purpose.MOTION, *key)
    motion = make_motion(options.n_volumes, jump, motion_rng)
    percent = (
        make_task_signal(anatomy, events, times, session_effect(options, participant, session))
        + make_motion_signal(anatomy, motion, jump, motion_rng)
        + make_drift(anatomy, options.n_volumes, _stream(options, Purpose.DRIFT, *key))
        + make_noise(
            options.n_volumes,
            len(anatomy.depth),
            options.noise_sd,
            options.ar1,
            _stream(options, Purpose.NOISE, *key),
        )
    )
    data = anatomy.baseline * (1 + percent / 100)
    data[0] *= NON_STEADY_STATE_GAIN
    # The confounds are computed from the numbers that the image file holds.
    stored = np.clip(np.rint(data), 0, np.iinfo(np.int16).max).astype(np.int16)
    mask = make_session_mask(anatomy, _stream(options, Purpose.SESSION_MASK, participant, session))
    confounds, confounds_sidecar = make_confounds(stored.astype(np.float64), anatomy, mask, motion, times)

    folder, prefix = _session_path(options, participant, session)
    name = f"{prefix}_task-{options.task}_run-{_label(run)}"
    bold = _nifti_bytes(anatomy.to_volume(stored.T), anatomy.affine, options.repetition_time)
    raw = root / folder / "func"
    _write_tsv(raw / f"{name}_events.tsv", events)
    if options.write_raw_bold:
        _write_bytes(raw / f"{name}_bold.nii.gz", bold)

    derivatives = root / "derivatives" / "fmriprep" / folder / "func"
    in_space = f"{name}_space-{options.space}"
    _write_bytes(derivatives / f"{in_space}_desc-preproc_bold.nii.gz", bold)
    _write_json(
        derivatives / f"{in_space}_desc-preproc_bold.json",
        {
            "RepetitionTime": options.repetition_time,
            "StartTime": options.repetition_time / 2,
            "SliceTimingCorrected": True,
            "SkullStripped": False,
            "TaskName": options.task,
        },
    )
    mask_bytes = _nifti_bytes(anatomy.to_volume(mask.astype(np.uint8)), anatomy.affine)
    _write_bytes(derivatives / f"{in_space}_desc-brain_mask.nii.gz", mask_bytes)
    _write_json(derivatives / f"{in_space}_desc-brain_mask.json", {"Type": "Brain"})
    _write_tsv(derivatives / f"{name}_desc-confounds_timeseries.tsv", confounds)
    _write_json(derivatives / f"{name}_desc-confounds_timeseries.json", confounds_sidecar)


def _session_path(options: SimulationOptions, participant: int, session: int) -> tuple[str, str]:
    """Return a session's folder below the root and the start of its file names."""
    subject = f"sub-{_label(participant)}"
    if not options.sessions_in_names:
        return subject, subject
    return f"{subject}/ses-{_label(session)}", f"{subject}_ses-{_label(session)}"


def _write_raw_descriptions(root: Path, anatomy: Anatomy, options: SimulationOptions) -> None:
    """Write what describes the raw dataset as a whole."""
    _write_description(root, "SessionFX simulated multi-session Stroop task", dataset_type="raw")
    _write_text(root / "README.md", _RAW_README)
    _write_participants(root, options)
    if options.write_raw_bold:
        _write_json(
            root / f"task-{options.task}_bold.json",
            {
                "TaskName": options.task,
                "TaskDescription": "Simulated Stroop task, congruent and incongruent. Nobody was scanned.",
                "Instructions": "None: simulated data.",
                "RepetitionTime": options.repetition_time,
                # All slices in the middle of the volume: the simulated data has no slice timing differences.
                "SliceTiming": [options.repetition_time / 2] * anatomy.head.shape[2],
                "EchoTime": 0.03,
                "FlipAngle": 77,
                "MagneticFieldStrength": 3,
                "Manufacturer": "None (simulated)",
                "ManufacturersModelName": f"sessionfx.simulate {__version__}",
            },
        )
    _write_json(
        root / f"task-{options.task}_events.json",
        {
            "onset": {"Description": "Start of the trial, from the start of the first volume", "Units": "s"},
            "duration": {"Description": "Time the word is shown", "Units": "s"},
            "trial_type": {
                "Description": "Condition of the trial",
                "Levels": {
                    "congruent": "The word names the colour it is printed in",
                    "incongruent": "The word names another colour",
                },
            },
            "response_time": {"Description": "Time from the onset to the simulated response", "Units": "s"},
        },
    )


def _write_participants(root: Path, options: SimulationOptions) -> None:
    """Write participants.tsv and its sidecar: those participants that have a session."""
    import pandas as pd

    rows = []
    for participant in sorted({participant for participant, _ in _scanned_sessions(options)}):
        rng = _stream(options, Purpose.DEMOGRAPHICS, participant)
        rows.append(
            {
                "participant_id": f"sub-{_label(participant)}",
                "age": int(rng.integers(20, 41)),
                "sex": str(rng.choice(["F", "M"])),
                "group": ("morning", "evening")[participant % 2],
            }
        )
    _write_tsv(root / "participants.tsv", pd.DataFrame(rows))
    _write_json(
        root / "participants.json",
        {
            "participant_id": {"Description": "Label of the simulated participant"},
            "age": {"Description": "Age, drawn at random and without influence on the data", "Units": "year"},
            "sex": {
                "Description": "Sex, drawn at random and without influence on the data",
                "Levels": {"F": "female", "M": "male"},
            },
            "group": {
                "Description": "Time of day of the sessions, alternating and without influence on the data",
                "Levels": {"morning": "Scanned before noon", "evening": "Scanned after noon"},
            },
        },
    )


def _write_truth(root: Path, anatomy: Anatomy, options: SimulationOptions) -> None:
    """Write the region masks, the expected effect maps and the participants' true effects."""
    import numpy as np
    import pandas as pd

    _write_description(root, "Truth behind the simulated data", dataset_type="derivative")
    _write_text(root / "README.md", _TRUTH_README)
    # The maps belong to no participant, a case that BIDS has no file names for.
    _write_text(root / ".bidsignore", "*.nii.gz\n*.tsv\n")
    for region in EFFECT_REGIONS:
        mask = anatomy.to_volume(anatomy.regions[region].astype(np.uint8))
        _write_bytes(root / f"space-{options.space}_desc-{region}_mask.nii.gz", _nifti_bytes(mask, anatomy.affine))
    for session in range(options.n_sessions):
        effect = np.zeros(len(anatomy.depth), dtype=np.float32)
        for region, value in group_effect(options, session).items():
            effect[anatomy.regions[region]] = value
        session_entity = f"ses-{_label(session)}_" if options.sessions_in_names else ""
        image_entities = f"task-{options.task}_space-{options.space}_contrast-{CONTRAST}_stat-effect"
        name = f"{session_entity}{image_entities}_statmap"
        _write_bytes(root / f"{name}.nii.gz", _nifti_bytes(anatomy.to_volume(effect), anatomy.affine))

    rows = [
        {
            "participant_id": f"sub-{_label(participant)}",
            **({"session_id": f"ses-{_label(session)}"} if options.sessions_in_names else {}),
            **session_effect(options, participant, session),
        }
        for participant, session in _scanned_sessions(options)
    ]
    _write_tsv(root / "effects.tsv", pd.DataFrame(rows))


def _write_description(root: Path, name: str, *, dataset_type: str) -> None:
    """Write dataset_description.json; `dataset_type` is raw or derivative."""
    generator = {
        "Name": "sessionfx.simulate",
        "Version": __version__,
        "Description": "Simulated, nobody was scanned",
    }
    _write_json(
        root / "dataset_description.json",
        {
            "Name": name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": dataset_type,
            "License": "CC0",
            "Authors": ["The SessionFX developers"],
            "GeneratedBy": [generator],
        },
    )


def _nifti_bytes(data: np.ndarray, affine: np.ndarray, repetition_time: float | None = None) -> bytes:
    """Return a compressed NIfTI file; `repetition_time` (s) for time series."""
    import nibabel as nib

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], repetition_time))
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    # No time of writing in the file, so that the same seed gives the same bytes.
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_text(path: Path, content: str) -> None:
    _write_bytes(path, content.encode())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    _write_text(path, table.to_csv(sep="\t", na_rep="n/a", index=False, float_format="%.8g", lineterminator="\n"))


_RAW_README = """\
# Simulated multi-session Stroop task

Nobody was scanned: `sessionfx.simulate` made these data to demonstrate and test SessionFX.

Each participant has several sessions with several runs of an event-related Stroop task (congruent and
incongruent trials). `derivatives/fmriprep` is laid out like the output of fMRIPrep but was not made by it.
The raw images, where present, hold the same numbers as the preprocessed ones: the simulation has no
preprocessing step, and the images are in standard space from the start.

`derivatives/truth` holds the effects that the data were made with.
"""

_TRUTH_README = f"""\
# True effects of the simulated data

The effect is incongruent − congruent, in percent signal change: the weight of the regressor that nilearn
builds from the events with Glover's haemodynamic response.

- `*_desc-meanEffect_mask.nii.gz`: where every session has the same expected effect.
- `*_desc-sessionChange_mask.nii.gz`: where the expected effect changes linearly over sessions, on
  average zero.
- `*_contrast-{CONTRAST}_stat-effect_statmap.nii.gz`: expected effect, one map per session.
- `effects.tsv`: effect of each participant in each session, per region: the expected effect plus a random
  intercept of the participant plus a deviation of the session.

Outside the two masks the effect is exactly zero for every participant and session.
"""


# Command line -----------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sessionfx-simulate``; return 0, or 2 when an option or the folder cannot be used."""
    prepare_streams()
    arguments = vars(_parser().parse_args(argv))
    output_dir = arguments.pop("output_dir")
    try:
        arguments["missing"] = tuple(arguments["missing"])
        simulate_dataset(output_dir, SimulationOptions(**arguments), progress=True)
    except (ValueError, OSError) as error:
        print(f"sessionfx-simulate: {one_paragraph(str(error))}", file=sys.stderr)
        return 2
    except (MemoryError, OverflowError):
        print("sessionfx-simulate: there is not enough memory for images of this size.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sessionfx-simulate: interrupted.", file=sys.stderr)
        return INTERRUPTED
    print(output_dir)
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser; its destinations are `output_dir` and the fields of `SimulationOptions`."""
    parser = argparse.ArgumentParser(
        prog="sessionfx-simulate",
        description="Make a small BIDS dataset of several sessions with fMRIPrep-like derivatives and truth.",
    )
    parser.add_argument("output_dir", metavar="OUT_DIR", type=Path, help="new or empty folder for the dataset")
    for name, metavar, text in (
        ("n_participants", "N", "number of participants"),
        ("n_sessions", "N", "sessions per participant"),
        ("n_runs", "N", "runs per session"),
        ("n_volumes", "N", "volumes per run"),
        ("repetition_time", "S", "repetition time in s"),
        ("voxel_size", "MM", "edge of the voxels in mm"),
        ("space", "LABEL", "space entity of the derivatives"),
        ("task", "LABEL", "task entity"),
        ("seed", "N", "seed of the random numbers; the same seed gives the same files"),
        ("mean_effect", "PCT", "effect in every session, first region, in percent signal change"),
        (
            "session_change",
            "PCT",
            "change of the effect per session, second region, in percent signal change",
        ),
        ("participant_sd", "PCT", "SD of the effect over participants, in percent signal change"),
        ("session_sd", "PCT", "SD of the effect over a participant's sessions, in percent signal change"),
        ("noise_sd", "PCT", "SD of the noise, in percent of baseline"),
        ("ar1", "R", "correlation of the noise between neighbouring volumes"),
    ):
        default = getattr(DEFAULT_OPTIONS, name)
        parser.add_argument(
            _flag(name),
            dest=name,
            metavar=metavar,
            type=type(default),
            default=default,
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--missing",
        metavar="PARTICIPANT:SESSION",
        nargs="*",
        type=_participant_and_session,
        default=DEFAULT_OPTIONS.missing,
        help="sessions that were not scanned; without a value, none is missing (default: 05:03)",
    )
    parser.add_argument(
        "--no-raw-bold",
        dest="write_raw_bold",
        action="store_false",
        help="leave out the raw images; the derivatives remain",
    )
    parser.add_argument(
        "--no-sessions-in-names",
        dest="sessions_in_names",
        action="store_false",
        help="leave ses- out of the file names (needs --sessions 1)",
    )
    return parser


def _participant_and_session(text: str) -> tuple[str, str]:
    """Parse a value of ``--missing``, for example ``05:03`` or ``sub-05:ses-03``."""
    participant, colon, session = text.partition(":")
    if not (participant and colon and session):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form PARTICIPANT:SESSION, for example 05:03")
    return participant.removeprefix("sub-"), session.removeprefix("ses-")


if __name__ == "__main__":
    sys.exit(main())

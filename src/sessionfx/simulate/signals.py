"""What changes the signal over time: true effects, trials, motion, drift and noise.

Every random number comes from a stream keyed by what it is for (seed, purpose, participant, session, run).
Adding participants, sessions or runs hence leaves the noise, events and random effects of the others
unchanged. (Adding sessions moves the centre of the linear change, as it must.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm.first_level import compute_regressor
from numpy.typing import NDArray

from sessionfx.simulate.head import Tissue
from sessionfx.simulate.options import SimulationOptions

CONDITIONS = ("congruent", "incongruent")
EFFECT_REGIONS = ("meanEffect", "sessionChange")
MODULATED_REGION = "taskOnly"
COMMON_RESPONSE = 0.8  # percent signal change that both conditions evoke in every region
TRIAL_DURATION = 1.5  # s
INTER_TRIAL_INTERVAL = (1.0, 2.4)  # s; its mean makes trials fill 47 % of the time
FIRST_ONSET, QUIET_END = 4.0, 6.0  # s; the response of the last trial is seen before the scanner stops
AR1 = 0.4  # correlation of the noise between neighbouring volumes

# What a stream of random numbers is for. The numbers are arbitrary but part of the data: with the default seed they
# draw random effects whose means are near their expectation, as a demonstration wants.
EVENTS, MOTION, NOISE, PARTICIPANT_EFFECT, SESSION_EFFECT, SESSION_MASK, DRIFT, DEMOGRAPHICS = range(1, 9)
MODULATOR_PARTICIPANT, MODULATOR_SESSION, CORTICAL_NOISE = 9, 10, 11


def stream(options: SimulationOptions, purpose: int, *indices: int) -> np.random.Generator:
    """Return the random numbers of one purpose for one participant, session or run."""
    return np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(purpose, *indices)))


def group_effect(options: SimulationOptions, session: int) -> dict[str, float]:
    """Return the expected effect of a zero-based session per region, in percent signal change."""
    centred_session = session - (options.n_sessions - 1) / 2
    return {"meanEffect": options.mean_effect, "sessionChange": options.session_change * centred_session}


def session_effect(options: SimulationOptions, participant: int, session: int) -> dict[str, float]:
    """Return one participant's true effect in one session per region, in percent signal change.

    The random intercept and the session deviation are normal, the same for all voxels of a region, and
    independent between regions. Indices are zero-based.
    """
    intercepts = stream(options, PARTICIPANT_EFFECT, participant).standard_normal(len(EFFECT_REGIONS))
    deviations = stream(options, SESSION_EFFECT, participant, session).standard_normal(len(EFFECT_REGIONS))
    random_effects = (options.participant_sd * intercepts + options.session_sd * deviations).tolist()
    expected = group_effect(options, session)
    return {region: expected[region] + own for region, own in zip(EFFECT_REGIONS, random_effects, strict=True)}


def modulator_effect(options: SimulationOptions, participant: int, session: int) -> float:
    """Return one participant's true effect of the response time in one session, in percent per second.

    It varies over participants and their sessions with the standard deviations of the other effects.
    """
    intercept = stream(options, MODULATOR_PARTICIPANT, participant).standard_normal()
    deviation = stream(options, MODULATOR_SESSION, participant, session).standard_normal()
    return float(options.modulator + options.participant_sd * intercept + options.session_sd * deviation)


def make_events(run_duration: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return the trials of one run: onset, duration, trial_type, response_time (all times in s).

    Both conditions have the same number of trials, and at most three of a kind follow one another.
    """
    onsets: list[float] = []
    onset = FIRST_ONSET + rng.uniform(0, 1)
    while onset + TRIAL_DURATION <= run_duration - QUIET_END:
        onsets.append(round(onset, 3))
        onset += TRIAL_DURATION + rng.uniform(*INTER_TRIAL_INTERVAL)

    streaks: list[int] = []
    while (n_left := len(onsets) // 2 - sum(streaks)) > 0:
        # Pairs most often: alternating faster than the haemodynamic response wastes power.
        streaks.append(min(int(rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3])), n_left))
    conditions = rng.permutation(CONDITIONS)
    in_turn = np.stack([rng.permutation(streaks), rng.permutation(streaks)], axis=1).ravel()
    order = np.repeat(np.tile(conditions, len(streaks)), in_turn)
    response_time = rng.normal(0.65 + 0.15 * (order == "incongruent"), 0.12).clip(0.25, TRIAL_DURATION).round(3)
    columns = {"onset": onsets[: len(order)], "duration": TRIAL_DURATION}
    return pd.DataFrame(columns | {"trial_type": order, "response_time": response_time})


def make_percent(
    tissue: Tissue,
    options: SimulationOptions,
    key: tuple[int, int, int],
    *,
    events: pd.DataFrame,
    design: pd.DataFrame,
    noise: NDArray[Any],
) -> NDArray[Any]:
    """Return the signal of the run with these participant, session and run indices, shape (T, V), in percent."""
    jump = motion_jump(len(design), *key)
    motion_rng = stream(options, MOTION, *key)
    motion = make_motion(len(design), jump, motion_rng)
    percent = (
        make_task_signal(tissue, design, session_effect(options, *key[:2]))
        + make_motion_signal(tissue, motion, jump, motion_rng)
        + make_drift(tissue, len(design), stream(options, DRIFT, *key))
        + noise
    )
    if options.modulator:
        times = design.index.to_numpy()
        percent += make_modulated_signal(tissue, events, times, modulator_effect(options, *key[:2]))
    return np.asarray(percent)


def make_task_signal(tissue: Tissue, design: pd.DataFrame, effect: dict[str, float]) -> NDArray[Any]:
    """Return the response to the regressors of a design, shape (T, V), in percent.

    Half of a region's effect is added to incongruent, half taken from congruent.
    """
    signal = np.zeros((len(design), len(tissue.coordinates)))
    for condition, sign in zip(CONDITIONS, (-0.5, 0.5), strict=True):
        for region, inside in tissue.regions.items():
            weight = COMMON_RESPONSE + sign * effect.get(region, 0.0)
            signal[:, inside] += weight * design[[condition]].to_numpy()
    return signal


def make_modulated_signal(tissue: Tissue, events: pd.DataFrame, times: NDArray[Any], effect: float) -> NDArray[Any]:
    """Return what slow responses add at these times (s), shape (T, V), in percent; the effect is in percent per second.

    Each trial is as high as its response time is above the mean of its condition.
    """
    response_time = events["response_time"]
    heights = response_time - response_time.groupby(events["trial_type"]).transform("mean")
    trials = events[["onset", "duration"]].assign(height=heights).to_numpy().T
    response, _ = compute_regressor(trials, "glover", times)
    return np.asarray(effect * response * tissue.regions[MODULATED_REGION])


def motion_jump(n_volumes: int, participant: int, session: int, run: int) -> int | None:
    """Return the volume at which the head jumps in a run, None for most runs.

    A rule instead of chance: one run in seven, always the first of participant 01, so that even the smallest
    dataset has a run with an outlier.
    """
    return n_volumes * 2 // 3 if (2 * participant + 3 * session + 5 * run) % 7 == 0 else None


def make_motion(n_volumes: int, jump: int | None, rng: np.random.Generator) -> NDArray[Any]:
    """Return head motion, shape (T, 6): x, y, z translation (mm), then rotation (rad); starts at zero.

    Each parameter is a smoothed random walk. At volume `jump` the head moves by about 1 mm and stays there.
    """
    steps = np.apply_along_axis(np.convolve, 0, rng.standard_normal((n_volumes, 6)), np.ones(5) / 5, mode="same")
    # About 0.1 mm of framewise displacement, a participant who lies still.
    motion = np.cumsum(steps * np.array([0.03] * 3 + [0.0006] * 3), axis=0)
    if jump is not None:
        motion[jump:] += np.array([0.1, 0.2, 0.6, 0.006, 0.001, 0.001])
    return np.asarray(motion - motion[0])


def make_motion_signal(
    tissue: Tissue, motion: NDArray[Any], jump: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    """Return what motion does to the signal, shape (T, V), in percent.

    Linear in the six parameters, with weights that vary smoothly over the head; a jump darkens its volume.
    """
    percent_per_unit = np.array([[0.8]] * 3 + [[40.0]] * 3)  # percent per mm, percent per rad
    signal = motion @ (percent_per_unit * _smooth_maps(tissue, 6, rng))
    if jump is not None:
        signal[jump] -= 3.0 + 0.5 * _smooth_maps(tissue, 1, rng)[0]
    return np.asarray(signal)


def make_drift(tissue: Tissue, n_volumes: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return slow scanner drift, shape (T, V), in percent: a straight line and three half-cosines."""
    time = (0.5 + np.arange(n_volumes)) / n_volumes
    shapes = np.stack([time - 0.5, *(np.cos(np.pi * k * time) for k in (1, 2, 3))], axis=1)
    amplitudes = np.array([[0.3], [0.5], [0.3], [0.2]])
    return np.asarray(shapes @ (amplitudes * (0.5 + 0.5 * _smooth_maps(tissue, 4, rng))))


def _smooth_maps(tissue: Tissue, n_maps: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return random maps of shape (n_maps, V), linear in the coordinates, with values of the order of one."""
    basis = np.column_stack([np.ones(len(tissue.coordinates)), tissue.coordinates / 60.0])
    return np.asarray(0.6 * rng.standard_normal((n_maps, 4)) @ basis.T)


def make_noise(n_volumes: int, n_voxels: int, sd: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return AR(1) noise of shape (T, V) with standard deviation `sd` from the first volume on.

    Voxels are independent of one another, so that each voxel outside the regions is one sample of the null.
    """
    noise = rng.standard_normal((n_volumes, n_voxels))
    for volume in range(1, n_volumes):
        noise[volume] = AR1 * noise[volume - 1] + np.sqrt(1 - AR1**2) * noise[volume]
    return np.asarray(sd * noise)

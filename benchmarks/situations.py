"""The simulated designs of the validity study: what real studies have and a balanced case has not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from starred import Situation, with_studies_of

# The designs without covariates, groups and unequal participants
PARTICIPANTS = (6, 12, 20, 40)
SESSIONS = (2, 3, 5)
ICCS = (0.0, 0.5, 0.9)
STRUCTURES = ("compound symmetry", "random slopes", "unequal variances", "unbalanced", "dropout")
# Shown beside the others, for what limits the two recommended strategies
CURVED = "dropout, change at once"
BOTH = "dropout and unequal variances"
ORDINARY = (*STRUCTURES, CURVED, BOTH)

MISSING = 0.25  # share of maps that are missing at random in unbalanced designs
SLOPE_SD = 1.0  # of the change from first to last session over participants; a map's sd before it is 1
LARGEST_SD = 3.0  # of the last session, where variances are unequal; the first has 1
CHANGE = 1.0  # true change from first to last session where participants drop out
LEVEL = 1.0  # how much higher the maps of those who leave are, in standard deviations of a map

GROUP_SIZES = (
    (3, 20), (4, 20), (5, 20), (5, 30), (8, 20), (8, 30), (10, 30), (12, 12), (15, 15), (20, 20), (30, 30),
)  # fmt: skip
RATIOS = (0.5, 1.0, 2.0, 3.0, 4.0)  # sd of the smaller group over that of the other
FEW_VOXELS = 300  # that a smooth brain has independent, about

PATIENTS = "patient - control"


def root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def symmetric(k: int, icc: float, sd: Iterable[float] = (), slope_sd: float = 0.0) -> NDArray[np.float64]:
    """Make loadings of equal correlations, with standard deviations of the sessions or random slopes besides."""
    time = np.linspace(-0.5, 0.5, k)
    matrix = icc + (1 - icc) * np.eye(k) + slope_sd**2 * np.outer(time, time)
    scale = np.array([*sd] or [1.0] * k)
    return root(matrix * np.outer(scale, scale))


def everyone(n: int, k: int) -> NDArray[np.bool_]:
    """Let everyone have every session."""
    return np.ones((n, k), dtype=bool)


def leaving(n: int, k: int, share: float = 0.5) -> NDArray[np.bool_]:
    """Let a share of the participants leave, the first before the second session, the next later."""
    attends = everyone(n, k)
    for number, participant in enumerate(range(round(share * n))):
        attends[participant, 1 + number % (k - 1) :] = False
    return attends


def at_random(n: int, k: int, share: float = MISSING) -> NDArray[np.bool_]:
    """Let a share of the maps be missing at random; everyone has one at least."""
    rng = np.random.default_rng([n, k])
    while True:
        missing = rng.permutation(n * k)[: round(share * n * k)]
        attends = ~np.isin(np.arange(n * k), missing).reshape(n, k)
        if attends.any(axis=1).all():
            return attends


def _asked(k: int, group: str = "intercept") -> tuple[tuple[str, str], ...]:
    """Mean and last − first difference, and from three sessions on the trend and any difference."""
    texts = ["mean", f"ses-{k:02d} - ses-01"] + (["linear", "any"] if k > 2 else [])
    return tuple((text, group) for text in texts)


# Ordinary designs -------------------------------------------------------------------------------------------


def ordinary(structure: str, n: int, k: int, icc: float) -> Situation:
    """Make one of the designs without covariates."""
    sd = np.linspace(1.0, LARGEST_SD, k) if structure in ("unequal variances", BOTH) else ()
    effects = None
    if structure == "dropout":
        effects = np.linspace(-0.5, 0.5, k) * CHANGE
    if structure == CURVED:
        effects = np.array([0.0] + [CHANGE] * (k - 1))
    attends = everyone(n, k)
    if structure == "unbalanced":
        attends = at_random(n, k)
    if structure.startswith("dropout"):
        attends = leaving(n, k)
    loadings = symmetric(k, icc, sd, SLOPE_SD if structure == "random slopes" else 0.0)
    return Situation(structure, f"n={n}, k={k}", attends, loadings, _asked(k), session_effects=effects,
                     voxels_per_study=10_000, icc=icc)  # fmt: skip


def ordinary_situations() -> list[Situation]:
    """List the 180 designs and the two extremes."""
    regular = [ordinary(*values) for values in product(STRUCTURES, PARTICIPANTS, SESSIONS, ICCS)]
    curved = [ordinary(CURVED, n, k, 0.5) for n, k in product(PARTICIPANTS, SESSIONS) if k > 2]
    return regular + curved + [ordinary(BOTH, *values) for values in product(PARTICIPANTS, SESSIONS, ICCS)]


# Groups -----------------------------------------------------------------------------------------------------


def grouped(
    sizes: tuple[int, int],
    ratio: float,
    k: int = 3,
    attends: NDArray[np.bool_] | None = None,
    loadings: NDArray[np.float64] | None = None,
    kind: str = "groups",
    distribution: str = "normal",
    name: str = "",
) -> Situation:
    """Compare patients, whose maps vary `ratio` times as much, with controls."""
    small, large = sizes
    last = f"ses-{k:02d} - ses-01"
    asked = [("mean", PATIENTS), (last, PATIENTS), ("mean", "intercept")]
    if k > 2:
        asked.append(("any", PATIENTS))
    if attends is not None and k > 2:  # in complete data of three sessions it is the difference of last and first
        asked.insert(2, ("linear", PATIENTS))
    return Situation(
        kind, name or f"{small}:{large}", everyone(small + large, k) if attends is None else attends,
        symmetric(k, 0.5) if loadings is None else loadings, tuple(asked),
        {"group": ["patient"] * small + ["control"] * large},
        participant_sd=np.repeat([ratio, 1.0], sizes), distribution=distribution, icc=0.5, ratio=ratio,
    )  # fmt: skip


def group_situations() -> list[Situation]:
    """List sizes by ratios, of three sessions, and of two for one ratio."""
    found = [grouped(sizes, ratio) for sizes, ratio in product(GROUP_SIZES, RATIOS)]
    found += [grouped(sizes, 3.0, k=2, name=f"{sizes[0]}:{sizes[1]}, two sessions") for sizes in GROUP_SIZES]
    return found


def incomplete_groups() -> list[Situation]:
    """List groups in which maps are missing, also all of a session."""
    found = []
    for sizes, ratio in product(((5, 20), (10, 30), (20, 20), (30, 30)), (1.0, 3.0)):
        n, name = sum(sizes), f"{sizes[0]}:{sizes[1]}"
        found.append(
            grouped(sizes, ratio, attends=at_random(n, 3, 0.2), kind="groups, missing maps", name=f"{name}, a fifth")
        )
        leave = everyone(n, 3)
        leave[: sizes[0] // 2, 2] = False
        leave[sizes[0] : sizes[0] + sizes[1] // 4, 2] = False
        found.append(grouped(sizes, ratio, attends=leave, kind="groups, missing maps", name=f"{name}, patients leave"))
        empty = everyone(n, 3)
        empty[: sizes[0], 2] = False
        found.append(grouped(sizes, ratio, attends=empty, kind="groups, missing maps", name=f"{name}, empty cell"))
    return found


# Covariates and time ----------------------------------------------------------------------------------------


def covariate_situations() -> list[Situation]:
    """List scores of participants: normal, or with one far from the others, who may vary more."""
    found = []
    for n, (shape, sd) in product((8, 12, 20, 40), (("normal", 1.0), ("leverage", 1.0), ("leverage", 3.0))):
        score = np.random.default_rng([n, 7]).standard_normal(n)
        deviation = np.ones(n)
        if shape == "leverage":
            score[0] = score.mean() + 6.0
            deviation[0] = sd
        name = f"{shape}{f', {sd:g} times noisier' if sd > 1 else ''}, n={n}"
        asked = (("mean", "score"), ("ses-02 - ses-01", "score"), ("mean", "intercept"))
        found.append(Situation("covariate", name, everyone(n, 2), symmetric(2, 0.5), asked,
                               {"score": score.tolist()}, participant_sd=deviation, icc=0.5, ratio=sd))  # fmt: skip
    return found


def time_situations() -> list[Situation]:
    """List trends over a measured time where nobody changes on average."""
    found = []
    asked = (("linear(days)", "intercept"),)

    def add(name: str, days: NDArray[np.float64], level: NDArray[np.float64] | float = 0.0, **more: object) -> None:
        n, k = days.shape
        slopes = symmetric(k, 0.5, (), 0.5)
        case = Situation("measured time", f"{name}, n={n}", everyone(n, k), slopes, asked, measured={"days": days},
                        level=level, icc=0.5)  # fmt: skip
        found.append(replace(case, **more))  # type: ignore[arg-type]

    for n in (8, 20, 40):
        rng = np.random.default_rng([n, 11])
        same = np.tile([0.0, 30.0, 60.0], (n, 1))
        add("equal spacing", same)
        add("unequal spacing", np.tile([0.0, 7.0, 180.0], (n, 1)))
        add("dates jittered", same + np.round(rng.uniform(-10, 10, (n, 3))))
        stretch = np.geomspace(0.3, 3.0, n)[:, None]
        add("spacing by participant", same * stretch)
        far = same.copy()
        far[0] *= 12
        add("one followed up long", far)
        age = rng.permutation(np.linspace(20, 60, n))
        cohort = 0.5 * (age - age.mean()) / age.std()
        add("ages, cohorts differ", age[:, None] + np.array([0.0, 1.0, 2.0]), cohort[:, None])
        drift = np.linspace(-1, 1, n)
        later = 0.5 * drift * np.sqrt(3)
        add("late starters differ", same + 40 * (drift[:, None] + 1), later[:, None])
    for sizes in ((5, 20), (20, 20)):
        n = sum(sizes)
        days = np.tile([0.0, 30.0, 60.0], (n, 1))
        days[: sizes[0]] /= 4
        add(f"patients scanned closer, {sizes[0]}:{sizes[1]}", days, asked=(("linear(days)", PATIENTS),),
            covariates={"group": ["patient"] * sizes[0] + ["control"] * sizes[1]})  # fmt: skip
    return found


def session_covariate_situations() -> list[Situation]:
    """List scores of sessions that go with participants' levels, and with the sessions."""
    found = []
    for n, k in product((12, 20, 40), (2, 3)):
        rng = np.random.default_rng([n, k, 13])
        trait, state = rng.standard_normal(n), rng.standard_normal((n, k))
        trait -= trait.mean()
        mood = trait[:, None] + 0.7 * state
        last = f"ses-{k:02d} - ses-01"
        asked = (("mean", "intercept"), (last, "intercept"))
        common = (everyone(n, k), symmetric(k, 0.5), asked)
        level = 0.5 * trait[:, None] / trait.std()
        drift = np.linspace(0.0, 1.0, k)
        found += [
            Situation("session covariate", f"of levels, n={n}, k={k}", *common, measured={"mood": mood}, level=level),
            Situation("session covariate", f"of levels, drifting, n={n}, k={k}", *common,
                      measured={"mood": mood + drift}, level=level),
        ]  # fmt: skip
    return [replace(case, icc=0.5) for case in found]


# Dropout ----------------------------------------------------------------------------------------------------


def dropout_situations() -> list[Situation]:
    """List who leaves: anyone, those with higher levels, those who change more; and few who stay."""
    found = []
    for n, k in product((12, 20, 40, 80), (2, 3)):
        attends = leaving(n, k)
        left = ~attends.all(axis=1)
        stays = attends.all(axis=1)
        slope = np.linspace(0.0, 1.0, k)
        contrast = np.where(left, 0.5, -0.5 * left.sum() / stays.sum())  # the mean over all is zero
        for reason, level in (
            ("at random", np.zeros((n, k))),
            ("by level", LEVEL * contrast[:, None] * np.ones(k)),
            ("by change", LEVEL * contrast[:, None] * slope),
        ):
            found.append(Situation("dropout of half", f"{reason}, n={n}, k={k}", attends, symmetric(k, 0.5), _asked(k),
                                   level=level, icc=0.5))  # fmt: skip
    for n, stay in ((30, 6), (60, 6), (60, 10), (60, 20)):
        attends = everyone(n, 3)
        attends[stay:, 2] = False
        for sd in ((1.0, 1.0, 1.0), (1.0, 1.0, 4.0), (1.0, 2.0, 3.0)):
            name = f"{stay} of {n} stay, sd {', '.join(f'{x:g}' for x in sd)}"
            found.append(
                Situation("few who stay", name, attends, symmetric(3, 0.5, sd), _asked(3), icc=0.5, ratio=max(sd))
            )
    for n, k, share in product((40, 60, 80), (3,), (0.25, 0.5)):
        sd = np.linspace(1.0, 3.0, k)
        found.append(Situation("many, leaving, unequal variances", f"n={n}, {share:.0%} leave", leaving(n, k, share),
                               symmetric(k, 0.5, sd), _asked(k), icc=0.5, ratio=3.0))  # fmt: skip
    return found


# Distributions and series -----------------------------------------------------------------------------------


def distribution_situations() -> list[Situation]:
    """List levels, changes and errors that are not normal."""
    found = []
    for shape, n in product(("t3", "lognormal", "exponential"), (6, 12, 20, 40, 80)):
        time = np.linspace(-0.5, 0.5, 3)[:, None]
        # participants' levels and changes have one draw each, and every map an error
        loadings = np.hstack([np.full((3, 1), np.sqrt(0.8)), np.sqrt(0.8) * time, np.sqrt(0.2) * np.eye(3)])
        asked = tuple(case for case in _asked(3) if case[0] != "linear")
        found.append(Situation(shape, f"n={n}", everyone(n, 3), loadings, asked, distribution=shape, icc=0.8))
    for shape, sizes in product(("t3", "lognormal", "exponential"), ((5, 20), (10, 30), (20, 20))):
        name = f"groups {sizes[0]}:{sizes[1]}"
        found.append(replace(grouped(sizes, 1.0, distribution=shape, kind=shape, name=name), loadings=loadings))
    return found


def series_situations() -> list[Situation]:
    """List sessions that go with their neighbours, or drift apart."""
    place = np.arange(5)
    covariances: dict[str, Callable[[], NDArray[np.float64]]] = {
        "autoregressive .5": lambda: 0.5 ** np.abs(place[:, None] - place),
        "random walk": lambda: (1.0 + np.minimum(place[:, None], place)) / 2,
        "slopes that differ": lambda: 0.5 + 0.5 * np.eye(5) + 4 * np.outer(place - 2, place - 2) / 16,
    }
    found = []
    for (name, covariance), n in product(covariances.items(), PARTICIPANTS):
        for pattern, attends in (("complete", everyone(n, 5)), ("a quarter missing", at_random(n, 5))):
            found.append(Situation(name, f"{pattern}, n={n}", attends, root(covariance()), _asked(5), icc=0.5))
    return found


# All --------------------------------------------------------------------------------------------------------


def situations() -> list[Situation]:
    """List all situations."""
    new = [
        *group_situations(), *incomplete_groups(), *covariate_situations(), *time_situations(),
        *session_covariate_situations(), *dropout_situations(), *distribution_situations(), *series_situations(),
    ]  # fmt: skip
    return [*ordinary_situations(), *new, *(with_studies_of(case, FEW_VOXELS) for case in new if is_smooth_too(case))]


DRAWN, N_DRAWN = "drawn at random", 60


def drawn_situations() -> list[Situation]:
    """Draw designs that had no part in finding the rules of the verdict; they are not in `situations`."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(N_DRAWN):
        k, kind, n = int(rng.choice([2, 3, 4])), str(rng.choice(["plain", "groups", "score"])), int(rng.integers(6, 50))
        icc = float(rng.choice([0.1, 0.4, 0.7]))
        sd = np.exp(rng.uniform(0, 1, k)) if rng.random() < 0.4 else np.ones(k)
        missing = float(rng.choice([0, 0.1, 0.3]))
        pattern = at_random if rng.random() < 0.5 else leaving
        attends = pattern(n, k, missing) if missing else everyone(n, k)
        distribution = str(rng.choice(["normal", "normal", "normal", "exponential", "t3"]))
        loadings = symmetric(k, icc, sd, float(rng.choice([0, 0.7])))
        deviation, covariates, group = np.ones(n), {}, "intercept"
        if kind == "groups":
            small = int(rng.integers(3, max(4, n // 2)))
            covariates, group = {"group": ["patient"] * small + ["control"] * (n - small)}, PATIENTS
            deviation[:small] = float(np.exp(rng.uniform(-1, 1.2)))
        if kind == "score":
            score = rng.standard_t(3, n)
            covariates, group = {"score": score.tolist()}, "score"
            deviation = np.exp(0.3 * (score - score.mean()) / score.std())
        asked = dict.fromkeys([*_asked(k, group), ("mean", "intercept")])
        name = f"{number + 1}: {kind}, n={n}, k={k}, {distribution}"
        found.append(
            Situation(
                DRAWN, name, attends, loadings, tuple(asked), covariates,
                participant_sd=deviation, distribution=distribution, icc=icc,
            )
        )  # fmt: skip
    return found


def tails() -> list[Situation]:
    """Choose a handful for very small p, which need millions of voxels: one question each."""
    chosen = [
        ordinary("unequal variances", 20, 3, 0.5),
        grouped((3, 20), 3.0),
        grouped((10, 30), 3.0),
        *(case for case in dropout_situations() if case.name == "6 of 60 stay, sd 1, 1, 4"),
        *(case for case in distribution_situations() if (case.kind, case.name) == ("exponential", "n=20")),
    ]
    return [replace(case, asked=case.asked[:1], voxels_per_study=20_000) for case in chosen]


def is_smooth_too(case: Situation) -> bool:
    """Choose situations in which what is told rests on the evidence of few independent voxels."""
    chosen = {
        ("groups", "5:20"), ("groups", "10:30"), ("groups", "20:20"),
        ("covariate", "leverage, 3 times noisier, n=20"),
        ("dropout of half", "at random, n=20, k=3"), ("dropout of half", "at random, n=40, k=2"),
        ("dropout of half", "by level, n=20, k=3"), ("dropout of half", "by level, n=40, k=2"),
        ("few who stay", "6 of 60 stay, sd 1, 1, 4"), ("few who stay", "6 of 60 stay, sd 1, 1, 1"),
        ("lognormal", "n=12"), ("lognormal", "n=40"), ("exponential", "n=20"), ("t3", "n=20"),
    }  # fmt: skip
    return (case.kind, case.name) in chosen and case.ratio not in (0.5, 2.0)

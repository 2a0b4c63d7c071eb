"""Family-wise error of whole maps on smooth null studies, for every strategy that offers it: docs/family_wise.md.

Run by `python benchmarks/family_wise.py --output docs`; `--studies` and `--draws` make it quicker and coarser. Studies
have three sessions of maps with a level per participant, smooth over voxels. One counts as a false positive when any
voxel has a family-wise p of at most .05. With D draws the exact rate of a valid test is ⌊.05 (D + 1)⌋/(D + 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group.neighbours import neighbours_in
from sessionfx.group.permutation import CLUSTER_FORMING_P, check_symmetry, neg_log10_family_wise_p, permute_block
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import INTERCEPT, GroupOptions, MapLayout, Question

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from array_maps import MapsInMemory, estimate_in_blocks

SHAPE = (12, 12, 8)
FWHM = 2.5
SESSIONS = ("1", "2", "3")
STATISTICS = {
    "voxelFWE": "voxels",
    "clusterSizeFWE": "cluster size",
    "clusterMassFWE": "cluster mass",
    "tfceFWE": "TFCE",
}
# Lets clusters form in small maps of few participants
FORMING_P = 0.01
_MASK = np.ones(SHAPE, dtype=bool)
_MARGIN = 3  # what smoothing wraps around is cut off


@dataclass(frozen=True)
class Situation:
    """One kind of study and question.

    Attributes
    ----------
    name, strategy : str
    session_contrast : str
    sizes : tuple of int
        Participants of each group.
    spread : tuple of float
        Standard deviation of each group.
    asks : {'', 'group', 'age'}
        About all participants, a difference of the groups, a covariate.
    missing : float
        Share of maps that are missing, none of first sessions.
    law : {'normal', 'lognormal', 'exponential', 'gamma'}
        Of the values, of mean 0; gamma has shape 4, skewness 1.
    """

    name: str
    strategy: str
    session_contrast: str
    sizes: tuple[int, ...]
    spread: tuple[float, ...] = (1.0,)
    asks: str = ""
    missing: float = 0.0
    law: str = "normal"


SITUATIONS = (
    Situation("difference, 12 participants", "summary-statistics", "ses-3 - ses-1", (12,)),
    Situation("mean, 12", "summary-statistics", "mean", (12,)),
    Situation("`any`, 12", "summary-statistics", "any", (12,)),
    Situation("difference × covariate, 20", "summary-statistics", "ses-3 - ses-1", (20,), asks="age"),
    Situation("mean × groups of 8 and 20, sd 3:1", "summary-statistics", "mean", (8, 20), (3.0, 1.0), "group"),
    Situation("`any` × groups of 8 and 20, sd 3:1", "summary-statistics", "any", (8, 20), (3.0, 1.0), "group"),
    Situation("difference, 12, 20 % of maps missing", "marginal", "ses-3 - ses-1", (12,), missing=0.2),
    Situation("mean, 12, 20 % missing", "marginal", "mean", (12,), missing=0.2),
    Situation("`any`, 12, 20 % missing", "marginal", "any", (12,), missing=0.2),
    Situation("difference × covariate, 20, 20 % missing", "marginal", "ses-3 - ses-1", (20,), asks="age", missing=0.2),
    Situation("mean × groups of 8 and 20, sd 3:1, 20 % missing", "marginal", "mean", (8, 20), (3.0, 1.0), "group", 0.2),
    Situation("difference × groups of 6 and 20, sd 3:1", "marginal", "ses-3 - ses-1", (6, 20), (3.0, 1.0), "group"),
    Situation("mean, 20, skewness 1 (gamma)", "summary-statistics", "mean", (20,), law="gamma"),
    Situation("mean, 20, exponential", "summary-statistics", "mean", (20,), law="exponential"),
    Situation("mean, 20, lognormal", "marginal", "mean", (20,), law="lognormal"),
    Situation("difference, 20, lognormal", "marginal", "ses-3 - ses-1", (20,), law="lognormal"),
)


def smooth_maps(generator: np.random.Generator, n_maps: int) -> NDArray[np.float64]:
    """Make smooth normal maps of standard deviation 1, of shape (n_maps, V)."""
    noise = generator.normal(size=(n_maps, *(size + 2 * _MARGIN for size in SHAPE)))
    maps = ndimage.gaussian_filter(noise, (0, *[FWHM / np.sqrt(8 * np.log(2))] * 3), mode="wrap")
    inner = (slice(None), *[slice(_MARGIN, -_MARGIN)] * 3)
    return np.asarray((maps / maps.std())[inner].reshape(n_maps, -1))


_LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "normal": lambda normal: normal,
    "lognormal": lambda normal: (np.exp(normal) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "exponential": lambda normal: -np.log(special.ndtr(-normal)) - 1,
    "gamma": lambda normal: special.gammaincinv(4, special.ndtr(normal)) / 2 - 2,
}


def simulate(situation: Situation, generator: np.random.Generator) -> tuple[MapLayout, Question, NDArray[np.float64]]:
    """Simulate a study without effects."""
    n = sum(situation.sizes)
    group = np.repeat([1.0, -1.0], situation.sizes) if len(situation.sizes) > 1 else np.ones(n)
    spread = np.repeat(situation.spread, situation.sizes)
    keys = [(person, session) for person in range(n) for session in range(len(SESSIONS))]
    later = [index for index, (_, session) in enumerate(keys) if session]
    gone = set(generator.choice(later, round(situation.missing * len(keys)), replace=False).tolist())
    kept = [key for index, key in enumerate(keys) if index not in gone]
    people = [person for person, _ in kept]
    names, columns, asked = (), np.empty((0, 0)), INTERCEPT
    if situation.asks == "group":
        names, columns, asked = ("group[a]",), group[people, None], GroupContrast("group", "a - b", (0.0, 2.0))
    elif situation.asks == "age":
        age = generator.normal(size=n)
        names, columns, asked = ("age",), (age - age.mean())[people, None], GroupContrast("age", "age", (0.0, 1.0))
    layout = MapLayout(
        tuple(f"{person:02d}" for person in people), tuple(SESSIONS[session] for _, session in kept), names, columns
    )
    (sessions,) = resolve_session_contrasts([situation.session_contrast], SESSIONS)
    law = _LAWS[situation.law]
    levels, maps = law(smooth_maps(generator, n)), law(smooth_maps(generator, len(kept)))
    return layout, Question(sessions, asked), (levels[people] + maps) * spread[people, None]


def false_positives(situation: Situation, n_studies: int, n_draws: int, seed: int) -> tuple[dict[str, int], int, str]:
    """Count studies with a family-wise p of at most .05, by statistic.

    Returns
    -------
    found : dict of str to int
    n_answered : int
        Studies beside those that were declined.
    scheme : str
    """
    generator = np.random.default_rng(seed)
    found, n_answered, scheme = dict.fromkeys(STATISTICS, 0), 0, ""
    for study in range(n_studies):
        layout, question, effects = simulate(situation, generator)
        try:
            plan = STRATEGIES[situation.strategy].plan(layout, question, GroupOptions())
            plan, _ = estimate_in_blocks(plan, MapsInMemory(effects))
            resampling, values = plan.resampling, plan.resampled_values(effects, None)
            scheme = resampling.scheme
            if not question.sessions.is_within_participant:
                check_symmetry(values, resampling, study)
        except NotEstimableError:
            continue
        block = permute_block(
            values, resampling, neighbours_in(_MASK, None), n_draws, np.random.SeedSequence((seed, study)),
            resampling.threshold(FORMING_P), True,
        )  # fmt: skip
        n_answered += 1
        for name, observed in block.observed.items():
            p = neg_log10_family_wise_p(np.array([observed.max()]), block.null_maxima[name], 1e-9)
            found[name] += int(10 ** -p[0] <= 0.05 + 1e-9)
    return found, n_answered, scheme


def rows(n_studies: int, n_draws: int) -> Iterator[str]:
    """Make the rows of the table, one by one."""
    for index, situation in enumerate(SITUATIONS):
        found, n_answered, scheme = false_positives(situation, n_studies, n_draws, index)
        rates = [f"{100 * count / n_answered:.1f}" if n_answered else "–" for count in found.values()]
        declined = f"{100 * (1 - n_answered / n_studies):.0f}" if n_answered < n_studies else ""
        yield f"| {situation.strategy} | {situation.name} | {scheme} | {' | '.join(rates)} | {declined} |"


HEAD = """# Family-wise error

Made by `benchmarks/family_wise.py`: percent of {n_studies} null studies in which any voxel of the map
({shape} voxels, smooth to a FWHM of {fwhm} voxels) has a family-wise p of at most .05, with {n_draws} draws. Chance
moves a rate of 5 % by ±{error:.1f} (two standard errors). Three sessions, a level per participant, normal values but
where noted; clusters are formed at p < {forming} (the program: {used}), which small maps need. *Declined*: percent of
studies without p values, as values were found to be skewed or a session has too few maps; the rates are of the others.
The rules are in
[statistics](statistics.md#permutation).

| strategy | question | scheme | {statistics} | declined |
|---|---|---|{rule}--:|
"""


def main() -> None:
    """Print the table, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--draws", type=int, default=39)
    parser.add_argument("--output", type=Path, help="folder of family_wise.md")
    options = parser.parse_args()
    lines = []
    for row in rows(options.studies, options.draws):
        print(row, flush=True)
        lines.append(row)
    head = HEAD.format(
        n_studies=options.studies, n_draws=options.draws, shape=" × ".join(map(str, SHAPE)), fwhm=FWHM,
        error=200 * np.sqrt(0.05 * 0.95 / options.studies), forming=FORMING_P, used=CLUSTER_FORMING_P,
        statistics=" | ".join(STATISTICS.values()), rule="--:|" * len(STATISTICS),
    )  # fmt: skip
    if options.output:
        (options.output / "family_wise.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

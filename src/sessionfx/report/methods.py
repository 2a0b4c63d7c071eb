"""The methods section of a paper, as a pure function of what was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
from typing import Any

from sessionfx.options import FirstLevelModel, GroupModel
from sessionfx.options.groups import EFFECT_UNITS
from sessionfx.report.page import render
from sessionfx.report.references import Citations
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.wording import quoted


@dataclass(frozen=True)
class MethodsText:
    """Text ready to paste, and the works it cites in order."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]

    def as_text(self) -> str:
        """Plain text with a numbered list of references."""
        listed = "\n".join(f"{number}. {work}" for number, work in enumerate(self.references, start=1))
        return "\n\n".join([*self.paragraphs, listed]) + "\n"


def participant_methods(
    model: FirstLevelModel,
    confounds: Sequence[Sequence[str]],
    *,
    has_sessions: bool,
    has_f_tests: bool = False,
    is_over_tasks: bool = False,
    preprocessing: Sequence[str],
    kind: type[Space] = Grid,
) -> MethodsText:
    """Describe the participant level.

    Parameters
    ----------
    model : FirstLevelModel
    confounds : sequence of sequence of str
        Columns of the confounds table that each run is modelled with.
    has_sessions : bool
        Whether the dataset has sessions.
    has_f_tests : bool, default=False
        Whether some contrast is an F test.
    is_over_tasks : bool, default=False
        Whether contrasts are over runs of several tasks.
    preprocessing : sequence of str
        Programs that made the derivatives, as their datasets say (GeneratedBy).
    kind : type of Space, default=Grid
        Where the data are: in volumes, or on surfaces.

    Returns
    -------
    MethodsText
    """
    return _fill(
        "participant_methods.txt",
        kind,
        model=model,
        preprocessing=preprocessing,
        has_sessions=has_sessions,
        has_f_tests=has_f_tests,
        is_over_tasks=is_over_tasks,
        is_volumes=kind is Grid,
        nuisance=partial(_nuisance, confounds),
        quoted=quoted,
    )


# Confounds by the names of their columns, and how a paper names them; what none of these matches is quoted
_CONFOUND_KINDS = (
    (r"(trans|rot)_[xyz]", "realignment parameters"),
    (r"(trans|rot)_[xyz]_derivative1", "derivatives of realignment parameters"),
    (r"(trans|rot)_[xyz]_power2", "squares of realignment parameters"),
    (r"(trans|rot)_[xyz]_derivative1_power2", "squares of these derivatives"),
    (r"a_comp_cor_\d+", "anatomical CompCor components"),
    (r"motion_outlier\d+", "one regressor for each volume marked as a motion outlier"),
    (r"non_steady_state_outlier\d+", "one regressor for each non-steady-state volume"),
)
_MOST_CONFOUNDS_NAMED = 12


def _nuisance(confounds: Sequence[Sequence[str]], cite: Citations) -> list[str]:
    """Name the confounds that the runs were modelled with, and in how many runs where not in all."""
    phrases = []
    others = dict.fromkeys(name for columns in confounds for name in columns)
    for pattern, words in _CONFOUND_KINDS:
        of_runs = [[name for name in columns if re.fullmatch(pattern, name)] for columns in confounds]
        for name in {name for names in of_runs for name in names}:
            del others[name]
        numbers = sorted({len(names) for names in of_runs if names})
        if not numbers:
            continue
        if not words.startswith("one "):
            words = f"{'–'.join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))} {words}"
        if "CompCor" in words:
            words += f" {cite('compcor')}"
        phrases.append(words + _in_some(sum(map(bool, of_runs)), len(confounds)))
    named = list(others)[:_MOST_CONFOUNDS_NAMED]
    for name in named:
        phrases.append(f"'{name}'" + _in_some(sum(name in columns for columns in confounds), len(confounds)))
    if len(others) > len(named):
        phrases.append(f"{len(others) - len(named)} more columns of the confounds tables")
    return phrases


def _in_some(n_runs: int, n_all: int) -> str:
    return "" if n_runs == n_all else f" (in {n_runs} of {n_all} runs)"


@dataclass(frozen=True)
class GroupWork:
    """What a call has done at the group level, of which alone the methods text speaks."""

    strategies: frozenset[str] = frozenset()  # names of those that answered some question
    resampled: frozenset[str] = frozenset()  # schemes by which participants were resampled
    # compared, f_tests, any_session, groups, reliability: whether there were two answers to one question, F tests,
    # tests of `any`, groups of participants with a variance each, intraclass correlations
    compared: bool = False
    f_tests: bool = False
    any_session: bool = False
    groups: bool = False
    reliability: bool = False
    adjusted_for: tuple[str, ...] = ()  # session covariates that did not serve as time
    # equivalence, bayes_factors: whether some answer has them
    equivalence: bool = False
    bayes_factors: bool = False
    conditions: bool = False  # whether some answer is an F test over conditions
    units: str = EFFECT_UNITS["voxel"]  # of first-level effects
    atlases: tuple[str, ...] = ()  # in whose regions the questions were answered too
    coverage: float = 1.0  # share of the maps that an answered voxel needs; 1 where all have all
    # where no voxel is in all maps: from how many was learned what holds for all voxels, and of how many
    core_maps: tuple[int, int] | None = None
    space: Space | None = None  # of the maps; None of voxels

    def __or__(self, other: GroupWork) -> GroupWork:
        """Put together what was done for two contrasts."""
        either: dict[str, Any] = {own.name: getattr(self, own.name) or getattr(other, own.name) for own in fields(self)}
        either["strategies"] = self.strategies | other.strategies
        either["resampled"] = self.resampled | other.resampled
        either["coverage"] = min(self.coverage, other.coverage)
        return GroupWork(**either)


def group_methods(model: GroupModel, strategies: Sequence[tuple[str, tuple[str, ...]]], work: GroupWork) -> MethodsText:
    """Describe the group level.

    Parameters
    ----------
    model : GroupModel
    strategies : sequence of (str, tuple of str)
        What each strategy that answered says of itself, and the works it cites.
    work : GroupWork

    Returns
    -------
    MethodsText
        Paragraphs and references.
    """
    kind = Grid if work.space is None else type(work.space)
    return _fill("group_methods.txt", kind, model=model, strategies=strategies, work=work, quoted=quoted)


def _fill(template: str, kind: type[Space], **values: Any) -> MethodsText:
    """Fill a template whose paragraphs stand between empty lines, in the words of a kind of space."""
    cite = Citations()
    paragraphs = render(template, cite=cite, version=version, **values).split("\n\n")
    lines = [" ".join(text.splitlines()) for text in map(str.strip, paragraphs) if text]
    return MethodsText(tuple(map(kind.in_words, lines)), cite.works())

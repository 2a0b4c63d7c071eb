"""What a model means here, as values that travel: options, contrasts, and a recipe for the designs of runs."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessionfx.ask.expressions import NAME
from sessionfx.errors import CommandLineError
from sessionfx.models.instructions import Instruction
from sessionfx.models.reader import Hrf, Node, StatsModel
from sessionfx.models.transformations import Regressors, Variable, regressors
from sessionfx.wording import listed, words_to_label

# Entities of the standard by their keys in file names
SHORT_NAMES = {"subject": "sub", "session": "ses", "task": "task", "run": "run", "space": "space"}


@dataclass(frozen=True)
class Grouping:
    """Groups of runs in each of which there is one run, or one session, or as many runs in each session."""

    place: str  # what makes the groups, in words
    entities: tuple[str, ...]  # by the names of the standard (`subject`, `run`)
    of: str  # 'run', 'session' or 'even'

    def check(self, runs: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Refuse runs that are otherwise; see `Recipe.check_runs`."""
        groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for name, entities in runs:
            key = tuple(entities.get(SHORT_NAMES.get(entity, entity), "") for entity in self.entities)
            groups.setdefault(key, []).append((name, entities.get("ses", "")))
        for group in groups.values():
            sessions = Counter(session for _, session in group)
            if self.of == "run" and len(group) > 1:
                raise CommandLineError(
                    f"{self.place}: {listed([name for name, _ in group], most=3)} would stand in one model, which is "
                    "not done here. Add what tells them apart ('run', 'session') to GroupBy, or a node of level "
                    "Subject that averages them; or choose among them with --session-label or --run-label."
                )
            if self.of == "session" and len(sessions) > 1:
                raise CommandLineError(
                    f"{self.place}: {group[0][0]} and others are of the sessions {listed(sessions)}, which would "
                    "count as independent. Add 'session', or average them in a node of level Subject before."
                )
            if self.of == "even" and len(set(sessions.values())) > 1:
                raise CommandLineError(
                    f"{self.place}: a participant has "
                    f"{listed([f'{n} runs of ses-{label}' for label, n in sessions.items()])}, and the average over "
                    "runs is another than that over sessions, which is made here. Add a node of level Session that "
                    "averages the runs of each before."
                )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the variables of a run become its design."""

    node: str  # the node that says so
    instructions: tuple[Instruction, ...]
    hrf: Hrf | None
    x: tuple[str, ...]
    model: StatsModel  # that it is from
    groupings: tuple[Grouping, ...] = ()  # what runs must be like for the nodes to mean what is done here
    said: tuple[str, ...] = ()  # names of the options that the model's nodes say

    def parameters(self) -> dict[str, Any]:
        """Say what makes the designs, for sidecars and fingerprints."""
        return {
            "X": list(self.x),
            "Instructions": [
                {"Name": item.name, "Input": list(item.inputs), "Output": list(item.outputs), **item.arguments}
                for item in self.instructions
            ],
            "HRF": None if self.hrf is None else {"Variables": list(self.hrf.variables), "Model": self.hrf.model},
        }

    def names(self, column: str) -> bool:
        """Whether a column of a table is among the variables it takes."""
        targets = [name for item in self.instructions for name in (*item.inputs, *item.arguments.get("Target", ()))]
        queries = [item.arguments["Query"] for item in self.instructions if item.name == "Filter"]
        return any(column in query for query in queries) or any(
            stands_for(pattern, [column]) for pattern in (*self.x, *targets)
        )

    def columns(self, header: Sequence[str]) -> tuple[str, ...]:
        """Name the columns of a table that stand in X."""
        return tuple(name for name in dict.fromkeys(header) if any(stands_for(pattern, [name]) for pattern in self.x))

    def check_runs(self, runs: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Make sure that the runs there are fit together as the model groups them.

        Parameters
        ----------
        runs : sequence of (str, mapping of str to str)
            Name and entities (`sub`, `ses`, `run`, …) of each.

        Raises
        ------
        CommandLineError
            If a node would put runs into one model that are modelled one by one here, or average them otherwise.
        """
        for grouping in self.groupings:
            grouping.check(runs)

    def regressors(self, variables: Mapping[str, Variable]) -> Regressors:
        """Make the regressors of a run of its variables; see `transformations.regressors`."""
        return regressors(variables, self.instructions, self.hrf, self.x)


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A first-level contrast that a node gives: its name, and weights over the columns of the run's design.

    An F test has rows of weights in their place, and is not handed on.
    """

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[Mapping[str, float], ...] = ()

    @property
    def label(self) -> str:
        """Its name in files."""
        return words_to_label([self.name])

    @property
    def text(self) -> str:
        """As it would be typed for `--contrast`."""
        if self.rows:
            return f"F:{self.label} = {'; '.join(map(weighted_text, self.rows))}"
        return f"{self.label}={weighted_text(self.weights)}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model as this program does it."""

    source: str  # the model's file
    model: StatsModel
    nodes: tuple[Node, ...]  # from the run node to the one whose results are asked for
    recipe: Recipe | None  # None for a model that was written from options, which make the designs
    contrasts: tuple[Estimated, ...]
    group_labels: tuple[str, ...] | None  # contrasts that the last node takes, by their labels; None for all
    options: Mapping[str, Any]  # values by the names of options
    places: Mapping[str, str]  # where the model says each, in words
    # those of a covariate that the last node's X lists
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what other programs would do with the model, as sentences


def weighted_text(weights: Mapping[str, float], plain: str = NAME) -> str:
    """Write a weighted sum of names so that `ask.expressions` reads the same weights back.

    Names that are not `plain`, a regular expression, stand in backticks.

    Examples
    --------
    >>> weighted_text({"a": 1.0, "b c": -0.5})
    'a - 0.5*`b c`'
    """
    text = ""
    for name, weight in weights.items():
        written = name if re.fullmatch(plain, name) else f"`{name}`"
        factor = "" if abs(weight) == 1 else f"{abs(weight)!r}*"
        sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        text += f"{sign}{factor}{written}"
    return text


def stands_for(pattern: str, names: Iterable[str]) -> bool:
    """Whether a name or glob of X stands for one of some names."""
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)

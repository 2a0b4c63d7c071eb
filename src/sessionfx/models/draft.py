"""What a model has said while its nodes are read one after the other, and refusals that name its file and the place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from sessionfx.errors import CommandLineError
from sessionfx.models.plan import Grouping
from sessionfx.models.reader import Node
from sessionfx.wording import shortened


@dataclass(kw_only=True)
class Draft:
    """A plan in the making."""

    source: str  # the model's file
    options: dict[str, Any] = field(default_factory=dict)  # values by the names of options
    places: dict[str, str] = field(default_factory=dict)  # where the model says each, in words
    groupings: list[Grouping] = field(default_factory=list)
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)  # those of a covariate that X lists
    warnings: list[str] = field(default_factory=list)

    def say(self, option: str, value: Any, place: str) -> None:
        """Keep the value of an option, and where the model says it."""
        self.options[option] = value
        self.places[option] = place

    def group(self, node: Node, entities: tuple[str, ...], of: str) -> None:
        """Keep what the GroupBy of a node needs of the runs; see `Grouping`."""
        place = f"--model {self.source}, {place_of(node)}, GroupBy"
        self.groupings.append(Grouping(place, entities, of))

    def refuse(self, place: str, what: str) -> NoReturn:
        """Refuse what cannot be done exactly: where it stands, what it is, and the remedy."""
        raise CommandLineError(f"--model {self.source}, {place}: {what}")


def place_of(node: Node) -> str:
    """Name a node in a refusal."""
    return f"node '{shortened(node.name)}'"

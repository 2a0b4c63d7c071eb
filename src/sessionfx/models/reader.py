"""A BIDS Stats Model as it stands in its file: read strictly, and refused with node, field and remedy.

What the standard allows is read here, whether or not SessionFX can do it; `models.mapping` says what it can.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from sessionfx.bids.reading import LARGEST_JSON, UnreadableFileError, read_text
from sessionfx.errors import CommandLineError
from sessionfx.models.instructions import ARGUMENTS, CHOICES, NEEDED, OF_SEVERAL, TRANSFORMER, Instruction, Kind
from sessionfx.wording import did_you_mean, joined, quoted, shortened

# The constant of a design stands as the number 1 among names
INTERCEPT = "1"
LEVELS = ("Run", "Session", "Subject", "Dataset")
TESTS = ("t", "F", "pass")


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A weighted sum of estimates."""

    name: str
    conditions: tuple[str, ...]  # columns of the design
    # one row for a t test or none, one or more for an F test; a weight for each condition
    weights: tuple[tuple[float, ...], ...]
    test: str  # 't', 'F' or 'pass'

    @property
    def rows(self) -> list[dict[str, float]]:
        """The weights that are not zero, of each row."""
        return [
            {name: weight for name, weight in zip(self.conditions, row, strict=True) if weight != 0}
            for row in self.weights
        ]


@dataclass(frozen=True, kw_only=True)
class DummyContrasts:
    """A contrast for each column named, or for every column of the design where `contrasts` is None."""

    test: str
    contrasts: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Hrf:
    """Which columns are convolved, and with what."""

    variables: tuple[str, ...]
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A design and how it is estimated."""

    type: str  # 'glm' or 'meta'
    x: tuple[str, ...]  # columns, or globs of them; `INTERCEPT` for the constant
    formula: str = ""  # empty where there is none
    hrf: Hrf | None = None
    # High-pass filter and the like, by their names in the standard
    options: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what is meant for single programs


@dataclass(frozen=True, kw_only=True)
class Node:
    """One level of the analysis."""

    level: str
    name: str
    group_by: tuple[str, ...]
    model: Model
    instructions: tuple[Instruction, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    dummy_contrasts: DummyContrasts | None = None


@dataclass(frozen=True, kw_only=True)
class Edge:
    """What goes from one node to another; a filter keeps the contrasts whose property has one of its values."""

    source: str
    destination: str
    filter: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StatsModel:
    """A model of a whole analysis."""

    name: str
    input: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # which files it is of, by entity
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()  # those of a file without any connect its nodes in their order
    # what it was read from, as JSON has it
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def node(self, name: str) -> Node:
        """Give the node of a name."""
        return next(node for node in self.nodes if node.name == name)


def read_model(path: Path) -> StatsModel:
    """Read a model file.

    Raises
    ------
    CommandLineError
        If it cannot be read, or is not a model as the standard has it.
    """
    return parse_model(_load(path), str(path))


def parse_model(content: Any, source: str) -> StatsModel:
    """Read a model from what its JSON holds; `source` is named in refusals.

    Raises
    ------
    CommandLineError
        If it is not a model as the standard has it.
    """
    return _Reader(source).model(content)


def _load(path: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, times in Counter(key for key, _ in items).items() if times > 1]
        if twice:
            raise ValueError(f"'{shortened(twice[0])}' stands twice in one object")
        return dict(items)

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(read_text(path, largest=LARGEST_JSON), object_pairs_hook=pairs, parse_constant=constant)
    except UnreadableFileError as error:
        raise CommandLineError(f"--model {error}") from None
    except RecursionError:
        raise CommandLineError(f"--model {path} is nested too deeply. Correct the file.") from None
    except ValueError as error:  # no JSON, or an integer of thousands of digits
        raise CommandLineError(f"--model {path} is not valid JSON: {str(error).split(';')[0]}.") from None


class _Reader:
    """Reads the parts of one model; a place is where in it something stands, in words."""

    def __init__(self, source: str) -> None:
        self._source = source

    def refuse(self, place: str, what: str) -> NoReturn:
        """Refuse the model; `what` says what is wrong there and what to do."""
        raise CommandLineError(f"--model {self._source}{place and ', '}{place}: {what}")

    # Kinds of values ------------------------------------------------------------------------------------------

    def fields(self, content: Any, place: str, needed: Collection[str], others: Collection[str]) -> dict[str, Any]:
        """Read an object of known fields; `Description` may stand in any."""
        known = ["Description", *needed, *others]
        found = self.object(content, place)
        for key in found:
            if key not in known:
                self.refuse(
                    place, f"'{shortened(key)}' is no field of it.{_meant(key, known)} There are {quoted(known)}."
                )
        for key in needed:
            if key not in found:
                self.refuse(place, f"the field '{key}' is missing, which the standard asks for. Add it.")
        if "Description" in found:
            self.text(found["Description"], f"{place} Description".strip())
        return found

    def object(self, content: Any, place: str) -> dict[str, Any]:
        if not isinstance(content, dict):
            self.refuse(place, f"{_shown(content)} stands where an object ({{…}}) should. Correct it.")
        return content

    def list(self, content: Any, place: str) -> list[Any]:
        if not isinstance(content, list):
            shown = _shown(content)
            alone = f" Write [{shown}] if that alone is meant." if isinstance(content, str | int | float) else ""
            self.refuse(place, f"{shown} stands where a list ([…]) should.{alone or ' Correct it.'}")
        return content

    def text(self, content: Any, place: str) -> str:
        if not isinstance(content, str):
            self.refuse(place, f"{_shown(content)} stands where a text should. Correct it.")
        try:
            content.encode()
        except UnicodeEncodeError:
            self.refuse(place, f"{_shown(content)} holds half a character. Correct it.")
        return content

    def word(self, content: Any, place: str) -> str:
        """Read a text that says something."""
        if not self.text(content, place).strip():
            self.refuse(place, "the text is empty. Fill it in, or remove what it stands in.")
        return str(content)

    def choice(self, content: Any, place: str, choices: Sequence[str]) -> str:
        text = self.text(content, place)
        if text not in choices:
            self.refuse(
                place, f"'{shortened(text)}' is not among {quoted(choices)}.{_meant(text, choices)} Correct it."
            )
        return text

    def number(self, content: Any, place: str) -> float:
        if isinstance(content, bool) or not isinstance(content, int | float):
            self.refuse(place, f"{_shown(content)} stands where a number should. Correct it.")
        try:
            value = float(content)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            self.refuse(place, f"{_shown(content)} is too large a number. Correct it.")
        return value

    def switch(self, content: Any, place: str) -> bool:
        if not isinstance(content, bool):
            self.refuse(
                place, f"{_shown(content)} stands where true or false should (without quotation marks). Correct it."
            )
        return content

    def words(self, content: Any, place: str) -> tuple[str, ...]:
        return self._distinct([self.word(item, place) for item in self.list(content, place)], place)

    def variables(self, content: Any, place: str) -> tuple[str, ...]:
        """Read names of columns, among which the number 1 may stand."""
        found = []
        for item in self.list(content, place):
            is_constant = item == 1 and isinstance(item, int) and not isinstance(item, bool)
            if item == INTERCEPT:
                self.refuse(place, 'the text "1" is no column. Write the number 1 for the constant.')
            found.append(INTERCEPT if is_constant else self.word(item, place))
        return self._distinct(found, place)

    def _distinct(self, words: Sequence[str], place: str) -> tuple[str, ...]:
        twice = [word for word, times in Counter(words).items() if times > 1]
        if twice:
            self.refuse(place, f"'{shortened(twice[0])}' stands there twice. Remove one.")
        return tuple(words)

    def labels(self, content: Any, place: str) -> tuple[str, ...]:
        """Read values of an entity: texts or whole numbers."""
        found = []
        for item in self.list(content, place):
            is_whole = isinstance(item, int) and not isinstance(item, bool)
            found.append(str(int(self.number(item, place))) if is_whole else self.word(item, place))
        if not found:
            self.refuse(place, "the list is empty, so nothing would be chosen. Fill it in, or remove the field.")
        return self._distinct(found, place)

    def filter(self, content: Any, place: str) -> dict[str, tuple[str, ...]]:
        entities = self.object(content, place)
        return {name: self.labels(values, f"{place} '{shortened(name)}'") for name, values in entities.items()}

    # Parts of a model -----------------------------------------------------------------------------------------

    def model(self, content: Any) -> StatsModel:
        if isinstance(content, dict) and "Steps" in content and "Nodes" not in content:
            self.refuse(
                "",
                "it has 'Steps', as drafts of the standard had before 2021. Write 'Nodes' in their place: every node "
                "needs a Name, a GroupBy and a Model.",
            )
        found = self.fields(content, "", ("Name", "BIDSModelVersion", "Nodes"), ("Input", "Edges"))
        nodes = tuple(self.node(item, number) for number, item in enumerate(self.list(found["Nodes"], "Nodes"), 1))
        if not nodes:
            self.refuse("Nodes", "the list is empty. A model has a node at least.")
        names = [node.name for node in nodes]
        self._distinct(names, "Nodes")
        edges = [
            self.edge(item, number, names) for number, item in enumerate(self.list(found.get("Edges", []), "Edges"), 1)
        ]
        if "Edges" not in found:
            edges = [Edge(source=a, destination=b) for a, b in pairwise(names)]
        name = self.word(found["Name"], "Name")
        self.word(found["BIDSModelVersion"], "BIDSModelVersion")
        return StatsModel(
            name=name,
            input=self.filter(found.get("Input", {}), "Input"),
            nodes=nodes,
            edges=tuple(edges),
            content=content,
        )

    def node(self, content: Any, number: int) -> Node:
        name = content.get("Name") if isinstance(content, dict) else None
        place = f"node '{shortened(name)}'" if isinstance(name, str) and name.strip() else f"node {number}"
        found = self.fields(
            content, place, ("Level", "Name", "GroupBy", "Model"), ("Transformations", "Contrasts", "DummyContrasts")
        )
        instructions = self.transformations(found.get("Transformations"), f"{place}, Transformations")
        contrasts = [
            self.contrast(item, f"{place}, contrast", number)
            for number, item in enumerate(self.list(found.get("Contrasts", []), f"{place}, Contrasts"), 1)
        ]
        self._distinct([contrast.name for contrast in contrasts], f"{place}, Contrasts")
        dummies = found.get("DummyContrasts")
        read = None if "DummyContrasts" not in found else self.dummies(dummies, f"{place}, DummyContrasts")
        both = {contrast.name for contrast in contrasts}.intersection((read and read.contrasts) or ())
        if both:
            self.refuse(f"{place}, Contrasts", f"'{shortened(min(both))}' is among DummyContrasts too. Remove one.")
        return Node(
            level=self.choice(found["Level"], f"{place}, Level", LEVELS),
            name=self.word(found["Name"], f"{place}, Name"),
            group_by=self.words(found["GroupBy"], f"{place}, GroupBy"),
            model=self.design(found["Model"], f"{place}, Model"),
            instructions=instructions,
            contrasts=tuple(contrasts),
            dummy_contrasts=read,
        )

    def edge(self, content: Any, number: int, names: Sequence[str]) -> Edge:
        place = f"edge {number}"
        found = self.fields(content, place, ("Source", "Destination"), ("Filter",))
        source, destination = (self.choice(found[key], f"{place}, {key}", names) for key in ("Source", "Destination"))
        return Edge(
            source=source,
            destination=destination,
            filter=self.filter(found.get("Filter", {}), f"{place}, Filter"),
        )

    def design(self, content: Any, place: str) -> Model:
        found = self.fields(content, place, ("Type", "X"), ("Formula", "HRF", "Options", "Software"))
        kind = self.text(found["Type"], f"{place}.Type").lower()
        software = self.object(found.get("Software", {}), f"{place}.Software")
        return Model(
            type=self.choice(kind, f"{place}.Type", ("glm", "meta")),
            x=self.variables(found["X"], f"{place}.X"),
            formula=self.word(found["Formula"], f"{place}.Formula") if "Formula" in found else "",
            hrf=self.hrf(found["HRF"], f"{place}.HRF") if "HRF" in found else None,
            options=self.options(found.get("Options", {}), f"{place}.Options"),
            software={
                name: self.object(item, f"{place}.Software '{shortened(name)}'") for name, item in software.items()
            },
        )

    def hrf(self, content: Any, place: str) -> Hrf:
        found = self.fields(content, place, ("Variables", "Model"), ("Parameters",))
        return Hrf(
            variables=self.words(found["Variables"], f"{place}.Variables"),
            model=self.word(found["Model"], f"{place}.Model"),
            parameters=self.object(found.get("Parameters", {}), f"{place}.Parameters"),
        )

    def options(self, content: Any, place: str) -> dict[str, Any]:
        numbers = ("HighPassFilterCutoffHz", "LowPassFilterCutoffHz")
        found = self.fields(content, place, (), (*numbers, "ReplaceVariables", "Mask", "Aggregate"))
        read: dict[str, Any] = {}
        for name in numbers:
            if name in found:
                read[name] = self.number(found[name], f"{place}.{name}")
        if "ReplaceVariables" in found:
            read["ReplaceVariables"] = self.object(found["ReplaceVariables"], f"{place}.ReplaceVariables")
        if "Mask" in found:
            read["Mask"] = self.filter(found["Mask"], f"{place}.Mask")
        if "Aggregate" in found:
            read["Aggregate"] = self.choice(found["Aggregate"], f"{place}.Aggregate", ("none", "mean", "pca"))
        return read

    def contrast(self, content: Any, of: str, number: int) -> Contrast:
        name = content.get("Name") if isinstance(content, dict) else None
        place = f"{of} '{shortened(name)}'" if isinstance(name, str) and name.strip() else f"{of} {number}"
        found = self.fields(content, place, ("Name", "ConditionList", "Weights", "Test"), ())
        test = self.choice(found["Test"], f"{place}, Test", TESTS)
        conditions = self.variables(found["ConditionList"], f"{place}, ConditionList")
        if not conditions:
            self.refuse(f"{place}, ConditionList", "the list is empty. Name a column of X at least.")
        return Contrast(
            name=self.word(found["Name"], f"{place}, Name"),
            conditions=conditions,
            weights=self.weights(found["Weights"], f"{place}, Weights", len(conditions), test),
            test=test,
        )

    def weights(self, content: Any, place: str, n_conditions: int, test: str) -> tuple[tuple[float, ...], ...]:
        rows = self.list(content, place)
        if rows and all(isinstance(row, list) for row in rows):
            if test != "F":
                self.refuse(
                    place,
                    f"they are rows of weights, which an F test has; a test '{test}' has one list of numbers. Correct "
                    "one of them.",
                )
        else:
            rows = [rows]
        read = []
        for row in rows:
            if len(row) != n_conditions:
                self.refuse(
                    place, f"{len(row)} weights for {n_conditions} conditions. Give one weight for each condition."
                )
            read.append(tuple(self.weight(item, place) for item in row))
            if not any(read[-1]):
                self.refuse(place, "all weights are zero. Correct them.")
        return tuple(read)

    def weight(self, content: Any, place: str) -> float:
        """Read a number, or a fraction in quotation marks."""
        if not isinstance(content, str):
            return self.number(content, place)
        try:
            return self.number(float(Fraction(content[:40])), place)
        except (ValueError, ZeroDivisionError, OverflowError):
            self.refuse(
                place, f"'{shortened(content)}' is neither a number nor a fraction such as \"1/3\". Correct it."
            )

    def dummies(self, content: Any, place: str) -> DummyContrasts:
        found = self.fields(content, place, ("Test",), ("Contrasts",))
        named = self.variables(found["Contrasts"], f"{place}.Contrasts") if "Contrasts" in found else None
        return DummyContrasts(test=self.choice(found["Test"], f"{place}.Test", TESTS), contrasts=named)

    # Transformations ------------------------------------------------------------------------------------------

    def transformations(self, content: Any, place: str) -> tuple[Instruction, ...]:
        if content is None:
            return ()
        found = self.fields(content, place, ("Transformer", "Instructions"), ())
        transformer = self.word(found["Transformer"], f"{place}.Transformer")
        if transformer != TRANSFORMER:
            self.refuse(
                f"{place}.Transformer",
                f"'{shortened(transformer)}' is another program's set of instructions. Write them as those of "
                f"'{TRANSFORMER}', which differ in names and meaning.",
            )
        instructions = self.list(found["Instructions"], f"{place}.Instructions")
        return tuple(
            self.instruction(item, f"{place}, instruction {number}") for number, item in enumerate(instructions, 1)
        )

    def instruction(self, content: Any, place: str) -> Instruction:
        given = self.object(content, place)
        if "Name" not in given:
            self.refuse(place, "the field 'Name' is missing. Add it.")
        name = self.text(given["Name"], f"{place}, Name")
        if name not in ARGUMENTS:
            self.refuse(
                place,
                f"there is no transformation '{shortened(name)}' here.{_meant(name, ARGUMENTS)} There are "
                f"{joined(tuple(ARGUMENTS))}.",
            )
        place, kinds, needed = f"{place} ({name})", ARGUMENTS[name], NEEDED.get(name, ())
        found = self.fields(given, place, ("Name", "Input", *needed), kinds)
        read = {key: self.argument(found[key], f"{place}, {key}", kind) for key, kind in kinds.items() if key in found}
        inputs = self.names(found["Input"], f"{place}, Input")
        outputs = read.pop("Output", ())
        is_glob = any(character in text for text in inputs for character in "*?[")
        n_wanted = 1 if name in OF_SEVERAL else len(inputs)
        if outputs and len(outputs) != n_wanted and not (is_glob and name not in OF_SEVERAL):
            self.refuse(f"{place}, Output", f"{len(outputs)} names for {n_wanted} that come out. Give one for each.")
        if len(read.get("Weights", inputs)) != len(inputs):
            self.refuse(
                f"{place}, Weights", f"{len(read['Weights'])} weights for {len(inputs)} inputs. Give one for each."
            )
        if len(read.get("Target", inputs)) != len(inputs):
            self.refuse(
                f"{place}, Target", f"{len(read['Target'])} targets for {len(inputs)} inputs. Give one for each."
            )
        return Instruction(name, inputs, outputs, read)

    def names(self, content: Any, place: str) -> tuple[str, ...]:
        """Read one name, or a list of names."""
        found = self.words([content] if isinstance(content, str) else content, place)
        if not found:
            self.refuse(place, "the list is empty. Name a variable at least.")
        return found

    def argument(self, content: Any, place: str, kind: Kind) -> Any:
        readers: dict[Kind, Callable[[Any, str], Any]] = {
            Kind.NAMES: self.names,
            Kind.TEXT: self.word,
            Kind.NUMBER: self.number,
            Kind.NUMBERS: lambda content, place: tuple(self.weight(item, place) for item in self.list(content, place)),
            Kind.SWITCH: self.switch,
            Kind.REPLACEMENTS: self.replacements,
        }
        if kind in readers:
            return readers[kind](content, place)
        return self.choice(content, place, CHOICES[kind])

    def replacements(self, content: Any, place: str) -> tuple[tuple[str, str | float], ...]:
        """Read old and new values: an object, or a list of objects with `key` and `value`."""
        if isinstance(content, list):
            pairs = []
            for item in content:
                found = self.fields(item, place, ("key", "value"), ())
                pairs.append((found["key"], found["value"]))
        else:
            pairs = list(self.object(content, place).items())
        return tuple((str(self.value(old, place)), self.value(new, place)) for old, new in pairs)

    def value(self, content: Any, place: str) -> str | float:
        return self.text(content, place) if isinstance(content, str) else self.number(content, place)


def _meant(word: str, known: Collection[str]) -> str:
    """Ask whether a known word was meant: one that differs in case alone, else the nearest."""
    alike = next((name for name in known if name.lower() == word.lower().replace("_", "")), None)
    return f" Did you mean '{alike}'?" if alike else did_you_mean(word, known)


def _shown(content: Any) -> str:
    """Show a value as it stands in the file."""
    if isinstance(content, dict):
        return "an object"
    if isinstance(content, list):
        return "a list"
    try:
        return shortened(json.dumps(content))
    except ValueError:  # an integer of thousands of digits
        return "a number of many digits"

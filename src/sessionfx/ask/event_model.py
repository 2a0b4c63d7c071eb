"""How events become regressors, as users write it: conditions from columns, recodes, filters and modulators.

Vocabulary
----------
modulator
    A column of the events whose number says how large the response to each event of a condition is expected to be.
modulated column
    The regressor that it makes beside that of the condition: `go_x_rt` beside `go`.
recode
    Another name for a condition.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from sessionfx.ask.contrasts import Contrast
from sessionfx.ask.expressions import NAME, ExpressionError, parse_scaled_name, split_name
from sessionfx.errors import CommandLineError
from sessionfx.options import FirstLevelModel
from sessionfx.wording import normal_text, shortened

CONDITION_COLUMN = "trial_type"
MISSING = "n/a"

_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FILTER = re.compile(r"\s*(`[^`]+`|[^`=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_COMMA = re.compile(r",(?=(?:[^`]*`[^`]*`)*[^`]*$)")  # outside backticks
_CONDITION = re.compile(r"\s*(`[^`]+`|[^`:]+?)\s*:(.*)", re.DOTALL)


@dataclass(frozen=True)
class EventFilter:
    """Which events are modelled."""

    text: str  # as written
    column: str
    comparison: str  # one of = != < <= > >=
    values: tuple[str, ...]  # one number for an order; texts elsewhere, of which the cell is one, or none

    @property
    def needs_numbers(self) -> bool:
        """Whether the column must hold numbers."""
        return self.comparison in _ORDERS

    def keeps(self, cell: str | None) -> bool:
        """Whether an event with this cell (None: n/a) is modelled; no number is neither larger nor smaller."""
        if self.needs_numbers:
            number = _number(cell)
            return number is not None and _ORDERS[self.comparison](number, float(self.values[0]))
        return any(_is_same(cell, value) for value in self.values) == (self.comparison == "=")


@dataclass(frozen=True)
class Modulator:
    """A modulator, ``factor * column + constant``."""

    text: str  # as written
    column: str  # of the events
    factor: float = 1.0
    constant: float = 0.0
    condition: str | None = None  # whose responses vary; None: those of every condition
    name: str | None = None  # that the user gave it

    @property
    def unit(self) -> str:
        """What the effect of a modulated column is per unit of."""
        return self.name or (self.column if self.factor == 1 else f"{self.factor:g} * {self.column}")

    def column_of(self, condition: str) -> str:
        """Name the modulated column of a condition."""
        if self.name is not None and self.condition is not None:
            return self.name
        return f"{condition}_x_{self.name or self.column}"

    def condition_of(self, regressor: str) -> str | None:
        """Name the condition whose modulated column this is; None where it is another regressor."""
        condition = regressor.removesuffix(self.column_of("")) if self.condition is None else self.condition
        return condition if self.column_of(condition) == regressor else None


@dataclass(frozen=True, kw_only=True)
class EventModel:
    """How the events of all runs become regressors."""

    # columns whose values are the conditions; empty: `trial_type`, as far as a file has it
    condition_columns: tuple[str, ...] = ()
    # new names of conditions by the old ones; no name: their events are not modelled
    recodes: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[EventFilter, ...] = ()  # all must hold
    duration_column: str = "duration"
    modulators: tuple[Modulator, ...] = ()
    is_centred: bool = True  # whether modulators without a constant of their own are centred within run and condition

    @property
    def columns(self) -> dict[str, str]:
        """Name the columns of the events that options ask for, and the option."""
        modulators = {modulator.column: f"--modulator '{modulator.text}'" for modulator in self.modulators}
        return self.columns_of_every_file | modulators

    @property
    def columns_of_every_file(self) -> dict[str, str]:
        """Name those of them that no events file may lack."""
        return {
            **{column: f"--condition-column {column}" for column in self.condition_columns},
            **({} if self.duration_column == "duration" else {self.duration_column: "--duration-column"}),
            **{asked.column: f"--event-filter '{asked.text}'" for asked in self.filters},
        }

    def regressors_of(self, condition: str) -> list[str]:
        """Name the regressors of a condition: its own, and its modulated columns."""
        of_condition = [
            modulator.column_of(condition) for modulator in self.modulators if modulator.condition in (None, condition)
        ]
        return [condition, *of_condition]

    def conditions_behind(self, regressors: Iterable[str]) -> frozenset[str]:
        """Add to regressors the conditions whose modulated columns are among them."""
        names = set(regressors)
        behind = {modulator.condition_of(name) for modulator in self.modulators for name in names}
        return frozenset(names | {condition for condition in behind if condition is not None})


def units_of_effect(contrast: Contrast, model: FirstLevelModel) -> str:
    """Give the units of a contrast's effect: where it is of columns of one modulator alone, per unit of that."""
    events = parse_event_model(model)
    names = {name for part in dict(contrast.parts).values() or [contrast] for name in part.conditions}
    units = {
        next((modulator.unit for modulator in events.modulators if modulator.condition_of(name) is not None), "")
        for name in names
    }
    unit = units.pop() if len(units) == 1 else ""
    return model.effect_units + (f" per unit of '{unit}'" if unit else "")


def parse_event_model(model: FirstLevelModel) -> EventModel:
    """Read what the options say of events.

    Raises
    ------
    CommandLineError
        If a text cannot be read, or two would do different things under one name.
    """
    return EventModel(
        condition_columns=tuple(map(_bare, model.condition_column)),
        recodes=_parse_recodes(model.recode),
        filters=tuple(map(parse_event_filter, model.event_filter)),
        duration_column="duration" if model.duration_column is None else _bare(model.duration_column),
        modulators=_parse_modulators(model.modulator),
        is_centred=model.modulator_centering == "run",
    )


def parse_event_filter(text: str) -> EventFilter:
    """Read `COLUMN=VALUE[,VALUE…]`, `COLUMN!=VALUE[,VALUE…]`, or `COLUMN<NUMBER` with any of < <= > >=.

    Raises
    ------
    CommandLineError
        If it is none of these.
    """
    found = _FILTER.fullmatch(text)
    if not found:
        raise CommandLineError(
            f"--event-filter '{shortened(text)}' cannot be read. Write a column, a sign (=, !=, <, <=, > or >=) and "
            "values, such as 'response=hit,miss' or 'rt < 2'; a column with such signs in its name stands in backticks."
        )
    column, comparison, written = found.groups()
    values = tuple(_bare(value) for value in _COMMA.split(written))
    if not all(values):
        raise CommandLineError(
            f"--event-filter '{shortened(text)}' has no value after '{comparison}' or between commas. Write one; "
            f"cells without a value are {MISSING}: '{column}{comparison}{MISSING}'."
        )
    if comparison in _ORDERS and (len(values) > 1 or _number(values[0]) is None):
        raise CommandLineError(
            f"--event-filter '{shortened(text)}' has '{shortened(written)}' after '{comparison}', which is no number. "
            "Write one number."
        )
    return EventFilter(text, _bare(column), comparison, values)


def parse_modulator(text: str) -> Modulator:
    """Read `COLUMN`, `CONDITION: COLUMN` or `NAME=CONDITION: COLUMN - 3`: a column, with constants if need be.

    Raises
    ------
    CommandLineError
        If it is none of these.
    """
    name, body = split_name(text)
    found = _CONDITION.fullmatch(body)
    condition, expression = (_bare(found[1]), found[2]) if found else (None, body)
    try:
        column, factor, constant = parse_scaled_name(expression)
        if name is not None and not re.fullmatch(NAME, name):
            raise ExpressionError(f"'{shortened(name)}' is no name (letters, digits, '_' and '.')")
    except ExpressionError as error:
        raise CommandLineError(
            f"--modulator '{shortened(text)}' cannot be read: {error}. Write a column of the events, after a condition "
            "where it is for one only, such as 'rt', 'go: rt' or 'NAME=go: rt - 3'; names with other characters than "
            "letters, digits, '_' and '.' stand in backticks."
        ) from None
    return Modulator(text, column, factor, constant, condition, name)


def _parse_modulators(texts: Sequence[str]) -> tuple[Modulator, ...]:
    modulators = tuple(map(parse_modulator, texts))
    for first, second in combinations(modulators, 2):
        condition = first.condition or second.condition or "CONDITION"
        names = [modulator.column_of(modulator.condition or condition) for modulator in (first, second)]
        if names[0] == names[1]:
            raise CommandLineError(
                f"--modulator '{first.text}' and '{second.text}' would both make a column '{names[0]}'. Leave one "
                f"out, or give it a name: --modulator 'NAME={split_name(second.text)[1]}'."
            )
    return modulators


def _parse_recodes(texts: Sequence[str]) -> dict[str, str]:
    recodes: dict[str, str] = {}
    for text in texts:
        old, new = split_name(text)
        if not old:
            raise CommandLineError(
                f"--recode '{shortened(text)}' cannot be read. Write the condition and its new name, such as "
                "'old=new'; without a new name ('old=') its events are not modelled."
            )
        old, new = _bare(old), _bare(new)
        if recodes.setdefault(old, new) != new:
            raise CommandLineError(
                f"--recode gives '{old}' two names, '{recodes[old]}' and '{new}'. Leave one of them out."
            )
    return recodes


def _bare(text: str) -> str:
    """Take a name without the backticks around it."""
    return normal_text(text.strip().strip("`"))


def _is_same(cell: str | None, value: str) -> bool:
    """Compare a cell with a value: as texts, and as numbers where both are (1 is 1.0)."""
    if cell is None or value == MISSING:
        return cell is None and value == MISSING
    number = _number(value)
    return normal_text(cell) == value or (number is not None and _number(cell) == number)


def _number(text: str | None) -> float | None:
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

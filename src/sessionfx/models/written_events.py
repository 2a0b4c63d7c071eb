"""Conditions and modulators of options as transformations of a run node, as far as the standard has words for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sessionfx.ask.event_model import CONDITION_COLUMN, MISSING, EventFilter, EventModel, Modulator
from sessionfx.wording import is_number, quoted

_CROSSED = "condition"  # the variable of crossed columns
_SIGNS = re.compile(r"[=!<>`\"]")
_RESPONSE_COLUMN = re.compile(r"_(derivative|dispersion|delay_\d+)\Z")


@dataclass(frozen=True)
class WrittenEvents:
    """What a run node says of events."""

    variable: str  # whose levels are the conditions
    instructions: list[dict[str, Any]]  # that make it and the modulated columns, before anything is convolved
    modulated: tuple[str, ...]  # the modulated columns
    not_said: tuple[str, ...]  # sentences on what the nodes lack

    @property
    def convolved(self) -> list[str]:
        """Name the variables that are convolved."""
        return [f"{self.variable}.*", *self.modulated]

    def column(self, regressor: str) -> str:
        """Name the column of X that a regressor of options is."""
        is_modulated = _RESPONSE_COLUMN.sub("", regressor) in self.modulated
        return regressor if is_modulated else f"{self.variable}.{regressor}"


def write_events(model: EventModel, regressors: Iterable[str]) -> WrittenEvents:
    """Say how events become regressors.

    Parameters
    ----------
    model : EventModel
        From the options.
    regressors : iterable of str
        That the contrasts name. A modulator of every condition is written for the conditions among them, as the others
        are known from the events alone.
    """
    named = {_RESPONSE_COLUMN.sub("", name) for name in regressors}
    modulated = {modulator.column_of(name) for modulator in model.modulators for name in _conditions(modulator, named)}
    conditions = (model.conditions_behind(named) - modulated) | {m.condition for m in model.modulators if m.condition}
    writer = _Writer(model)
    for asked in model.filters:
        writer.filter(asked)
    writer.name_conditions(sorted(conditions))
    columns = [writer.modulate(m, name) for m in model.modulators for name in _conditions(m, conditions)]
    every = [m.text for m in model.modulators if m.condition is None]
    if every:
        writer.not_said.append(
            f"Of --modulator {quoted(every)} the nodes have the columns of the conditions that contrasts name."
        )
    modulated_columns = tuple(name for name in columns if name)
    if modulated_columns:
        writer.not_said.append("FitLins stops at modulators, as pybids cannot filter numbers by text.")
    writer.finish([writer.variable, *modulated_columns])
    return WrittenEvents(writer.variable, writer.instructions, modulated_columns, tuple(writer.not_said))


def _conditions(modulator: Modulator, among: Iterable[str]) -> list[str]:
    return sorted(among) if modulator.condition is None else [modulator.condition]


class _Writer:
    """Instructions in the making."""

    def __init__(self, model: EventModel) -> None:
        self.model = model
        self.instructions: list[dict[str, Any]] = []
        self.not_said: list[str] = []
        self.columns = list(model.condition_columns or (CONDITION_COLUMN,))
        self.variable = self.columns[0]

    def filter(self, asked: EventFilter) -> None:
        """Leave out events that a filter does not keep."""
        sign = {"=": "=="}.get(asked.comparison, asked.comparison)
        if (
            MISSING in asked.values
            or (sign == "==" and len(asked.values) > 1)
            or not _can_ask(asked.column, asked.values)
        ):
            self.not_said.append(f"The nodes lack --event-filter '{asked.text}', which no query of theirs can ask for.")
            return
        if sign == "!=" and asked.column not in self.columns:
            self.not_said.append(
                f"Of --event-filter '{asked.text}' the nodes leave out events without a value too (n/a), kept here."
            )
        for value in asked.values:
            self._add("Filter", self.columns, Query=_query(asked.column, sign, value), By=[asked.column])

    def name_conditions(self, conditions: Sequence[str]) -> None:
        """Cross columns and give conditions their new names."""
        recodes = self.model.recodes
        places = {name: name for name in (*conditions, *recodes)}  # names of the variable's levels
        if len(self.columns) > 1:
            unclear = [
                name for name in sorted({*recodes, *conditions} - set(recodes.values())) if not self._is_crossed(name)
            ]
            if unclear:
                self.not_said.append(
                    f"The nodes have not the columns of --condition-column crossed, as {quoted(unclear)} could be of "
                    "several pairs of values: conditions are those of its first column."
                )
                return
            self.variable = _CROSSED
            self._add("Concatenate", self.columns, Output=[_CROSSED])
            places = {name: name.replace(".", "_") if self._is_crossed(name) else name for name in places}
        removed = [name for name, new in recodes.items() if not new]
        if not _can_ask(self.variable, removed):
            self.not_said.append(f"The nodes do not leave out {quoted(removed)}.")
            removed = []
        for name in removed:
            self._add("Filter", [self.variable], Query=_query(self.variable, "!=", places[name]))
        renamed = {places[name]: recodes.get(name, name) for name in places if recodes.get(name, name)}
        renamed = {old: new for old, new in renamed.items() if old != new}
        if renamed:
            self._add("Replace", [self.variable], Replace=renamed)

    def modulate(self, modulator: Modulator, condition: str) -> str | None:
        """Make the modulated column of a condition; None if the standard cannot."""
        name = modulator.column_of(condition)
        if modulator.constant or not _can_ask(self.variable, [condition]):
            self.not_said.append(f"The nodes lack --modulator '{modulator.text}', which no transformation makes.")
            return None
        query = _query(self.variable, "==", condition)
        self._add("Filter", [modulator.column], Query=query, By=[self.variable], Output=[name])
        if modulator.factor != 1:
            self._add("Sum", [name], Weights=[modulator.factor], Output=[name])
        if self.model.is_centred:
            self._add("Demean", [name])
        return name

    def finish(self, variables: Sequence[str]) -> None:
        """Give variables their durations, which must be alike before, and conditions a variable each."""
        column = self.model.duration_column
        for name in variables if column != "duration" else ():
            self._add("Assign", [column], Target=[name], InputAttr="amplitude", TargetAttr="duration")
        self._add("Factor", [self.variable])

    def _is_crossed(self, name: str) -> bool:
        """Whether the values of all columns can be told from a condition's name."""
        return name.count(".") == len(self.columns) - 1

    def _add(self, name: str, inputs: Sequence[str], **arguments: Any) -> None:
        self.instructions.append({"Name": name, "Input": list(inputs), **arguments})


def _can_ask(column: str, values: Iterable[str]) -> bool:
    """Whether a query can compare a column with values."""
    return not _SIGNS.search(column) and not any(re.search(r"[`\"']", value) for value in values)


def _query(column: str, sign: str, value: str) -> str:
    name = column if column.isidentifier() else f"`{column}`"
    return f"{name} {sign} {value if is_number(value) else repr(value)}"

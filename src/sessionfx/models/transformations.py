"""What a model's transformations make of the events and confounds of a run.

Vocabulary
----------
sparse variable
    One row per event: onset, duration (s) and amplitude, from a column of events.tsv. A row whose cell is n/a is no
    event of that variable.
dense variable
    One value per volume, from a column of confounds.
regressor
    A variable that stands in a model's X.

Sparse variables stay events to the end: their regressors are convolved from real onsets, by `participant.design`.
pybids samples them first, which stretches time.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.models.instructions import Instruction
from sessionfx.models.reader import INTERCEPT, Hrf
from sessionfx.wording import did_you_mean, lines_text, listed, quoted, shortened

GLOB = re.compile(r"[*?\[]")
# One comparison: no other, and no pattern, which stand for text in quotation marks only
_QUERY = re.compile(
    r"\s*(?P<name>[^=!<>]+?)\s*(?P<sign>==|!=|<=|>=|<|>)\s*"
    r"(?P<value>'[^']*'|\"[^\"]*\"|`[^`]*`|(?:(?!\s(?:and|or)\s)[^=!<>&|^$*'\"`])+?)\s*\Z"
)
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
# What a response of several columns adds to a variable's name
_SUFFIXES = {"derivative": "_derivative", "dispersion": "_dispersion"}
# These leave amplitudes alone, so they may follow Convolve
_AFTER_CONVOLVE = frozenset({"Copy", "Rename", "Delete", "Select"})


class TransformationError(Exception):
    """A transformation that cannot be done exactly; the text is a sentence."""


@dataclass(frozen=True)
class Variable:
    """A variable of one run."""

    # Column `amplitude` (numbers, or text), and `onset` and `duration` (s) of a sparse variable. Its index is the line
    # of each event in its file, or the volume.
    rows: pd.DataFrame
    response: str = ""  # what it is convolved with; empty before it is

    @property
    def is_dense(self) -> bool:
        """Whether it has a value per volume."""
        return "onset" not in self.rows

    @property
    def is_text(self) -> bool:
        """Whether its amplitudes are text."""
        return self.rows["amplitude"].dtype == object

    @property
    def amplitude(self) -> pd.Series:
        """One number or text per row."""
        return self.rows["amplitude"]

    def with_amplitude(self, amplitude: pd.Series | NDArray[Any]) -> Variable:
        """Give the variable other amplitudes."""
        return replace(self, rows=self.rows.assign(amplitude=amplitude))


@dataclass(frozen=True)
class Regressors:
    """What a run is modelled with."""

    # columns onset, duration (s), trial_type (the regressor's name) and, where one is not 1, modulation; its index is
    # the line of each event
    events: pd.DataFrame
    response: str  # the haemodynamic response of all of them; empty without events
    dense: pd.DataFrame  # (T, Q): regressors with a value per volume
    names: tuple[str, ...]  # all regressors that X stands for, in its order; some may have no event in this run
    warnings: tuple[str, ...]  # what a reader should know, as sentences


def sparse_variables(onset: pd.Series, duration: pd.Series, columns: pd.DataFrame) -> dict[str, Variable]:
    """Make a variable of each column of events.

    Parameters
    ----------
    onset, duration : Series of N float
    columns : DataFrame of N rows
        Text as it stands in the file; a column of numbers alone becomes numbers.
    """
    return {
        str(name): Variable(pd.DataFrame({"onset": onset, "duration": duration, "amplitude": _typed(columns[name])}))
        for name in columns
    }


def dense_variable(values: NDArray[np.float64]) -> Variable:
    """Make a variable of T values, one per volume."""
    return Variable(pd.DataFrame({"amplitude": values}))


def _typed(texts: pd.Series) -> pd.Series:
    """Turn texts into numbers where all are."""
    numbers = pd.to_numeric(texts, errors="coerce").astype(float)
    return numbers if texts.notna().any() and bool((numbers.notna() | texts.isna()).all()) else texts.astype(object)


def regressors(
    variables: Mapping[str, Variable],
    instructions: Sequence[Instruction],
    hrf: Hrf | None,
    x: Sequence[str],
) -> Regressors:
    """Transform the variables of a run and choose those in X.

    Parameters
    ----------
    variables : mapping of str to Variable
    instructions : sequence of Instruction
    hrf : Hrf or None
        Convolves further variables.
    x : sequence of str
        Names and globs; `INTERCEPT` is passed over.

    Raises
    ------
    TransformationError
        If something cannot be done exactly; the text names instruction and variable.
    """
    space = _Namespace(variables)
    for number, instruction in enumerate(instructions, 1):
        try:
            space.carry_out(instruction)
        except TransformationError as error:
            raise TransformationError(f"instruction {number} ({instruction.name}): {error}") from None
    if hrf is not None:
        for name in [name for pattern in hrf.variables for name in space.names(pattern)]:
            space.variables[name] = _convolved(space.find(name), name, hrf.model)
    return space.chosen(x, responses_are_whole=hrf is not None)


class _Namespace:
    """The variables of a run while they are transformed."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self.variables = dict(variables)
        self._factored: set[str] = set()  # columns whose levels are variables now
        self._warnings: list[str] = []

    def names(self, pattern: str, among: Collection[str] | None = None) -> list[str]:
        """Give the variables that a name or glob stands for."""
        if pattern in self.variables or not GLOB.search(pattern):
            return [pattern]
        found = fnmatch.filter(self.variables if among is None else among, pattern)
        if not found and not self._is_level(pattern):
            raise TransformationError(f"no variable matches '{shortened(pattern)}'. {self._there_are()}")
        return found

    def find(self, name: str) -> Variable:
        """Give a variable; a level that does not occur in this run is one without events."""
        if name in self.variables:
            return self.variables[name]
        if self._is_level(name):
            empty = pd.DataFrame({"onset": [], "duration": [], "amplitude": []}, dtype=float)
            return Variable(empty.set_axis(pd.Index([], dtype=int)))
        raise TransformationError(
            f"there is no variable '{shortened(name)}'.{did_you_mean(name, self.variables)} {self._there_are()}"
        )

    def _is_level(self, name: str) -> bool:
        return any(name.startswith(f"{column}.") for column in self._factored)

    def _there_are(self) -> str:
        return f"The variables are: {listed(list(self.variables))}."

    def carry_out(self, instruction: Instruction) -> None:
        """Transform the variables that an instruction names."""
        name = instruction.name
        inputs = [found for pattern in instruction.inputs for found in self.names(pattern)]
        if name not in _AFTER_CONVOLVE:
            convolved = [found for found in inputs if self.find(found).response]
            if convolved:
                raise TransformationError(
                    f"'{shortened(convolved[0])}' is convolved before it, and what is convolved has no amplitudes "
                    "left to change. Put Convolve last."
                )
        if name == "Factor":
            for found in inputs:
                self._factor(found)
        elif name == "Delete":
            for found in inputs:
                self.variables.pop(found, None)
        elif name == "Select":
            self.variables = {found: self.find(found) for found in inputs}
        elif name == "Assign":
            self._assign(inputs, instruction)
        elif name == "Filter":
            self._filter(inputs, instruction)
        elif name in _OF_SEVERAL:
            together = [self.find(found) for found in inputs]
            self._check_alike(inputs, together)
            self.variables[(instruction.outputs or inputs)[0]] = _OF_SEVERAL[name](
                inputs, together, instruction.arguments
            )
        else:
            self._transform_each(inputs, instruction)

    def _transform_each(self, inputs: Sequence[str], instruction: Instruction) -> None:
        outputs = instruction.outputs or tuple(inputs)
        if len(outputs) != len(inputs):
            raise TransformationError(f"{len(outputs)} outputs are named for {len(inputs)} inputs. Name one for each.")
        made = [_OF_ONE[instruction.name](found, self.find(found), instruction.arguments) for found in inputs]
        if instruction.name == "Rename":
            for found in inputs:
                self.variables.pop(found, None)
        self.variables.update(zip(outputs, made, strict=True))

    def _factor(self, name: str) -> None:
        variable = self.find(name)
        if variable.is_dense:
            raise TransformationError(
                f"'{shortened(name)}' is a confound, which has no levels. Choose a column of events."
            )
        labels = variable.amplitude if variable.is_text else _level_names(variable.amplitude)
        self._warnings += _without_value(name, labels, "of any of its levels")
        for level in sorted(labels.dropna().unique()):
            self.variables[f"{name}.{level}"] = variable.with_amplitude((labels == level).astype(float))
        self.variables.pop(name, None)
        self._factored.add(name)

    def _assign(self, inputs: Sequence[str], instruction: Instruction) -> None:
        """Give a variable the amplitudes, onsets or durations of another."""
        arguments = instruction.arguments
        side, attribute = arguments.get("InputAttr", "amplitude"), arguments.get("TargetAttr", "amplitude")
        outputs = instruction.outputs or arguments["Target"]
        for source_name, target_name, output in zip(inputs, arguments["Target"], outputs, strict=True):
            source, target = self.find(source_name), self.find(target_name)
            if source.is_dense or target.is_dense:
                dense = source_name if source.is_dense else target_name
                raise TransformationError(
                    f"'{shortened(dense)}' is a confound, which has no events. Choose columns of events."
                )
            if target.response:
                raise TransformationError(f"'{shortened(target_name)}' is convolved before it. Put Convolve last.")
            if len(target.rows) and len(source.rows) != len(target.rows):
                raise TransformationError(
                    f"'{shortened(source_name)}' has {len(source.rows)} events and '{shortened(target_name)}' "
                    f"{len(target.rows)}. Both must come from the same rows."
                )
            if attribute != "amplitude" and side == "amplitude":
                _check_number(source_name, source)
            values = source.rows[side].reindex(target.rows.index)
            self.variables[output] = replace(target, rows=target.rows.assign(**{attribute: values}))

    def _filter(self, inputs: Sequence[str], instruction: Instruction) -> None:
        """Take the events that do not answer a query out of variables."""
        query = instruction.arguments["Query"]
        found = _QUERY.match(query)
        if found is None or found["name"].strip("`'\"") not in self.variables:
            raise TransformationError(
                f"the query '{shortened(query)}' is not a comparison of a variable with a value, such as "
                '"response_time > 0.2" or "familiarity == Famous face". Write one comparison. ' + self._there_are()
            )
        column = found["name"].strip("`'\"")
        by = instruction.arguments.get("By", (column,))
        if by != (column,):
            raise TransformationError(
                f"By names {listed(by)}, and the query is of '{shortened(column)}'. Name it alone."
            )
        asked = self.find(column)
        keeps = _compared(asked, found["sign"], found["value"].strip("`'\""), query)
        outputs = instruction.outputs or tuple(inputs)
        for name, output in zip(inputs, outputs, strict=True):
            variable = self.find(name)
            self._check_alike([name, found["name"]], [variable, asked])
            self.variables[output] = variable.with_amplitude(variable.amplitude.where(keeps))

    def _check_alike(self, names: Sequence[str], variables: Sequence[Variable]) -> None:
        """Make sure that variables have the same rows."""
        first = variables[0]
        for name, other in zip(names, variables, strict=True):
            if other.is_dense != first.is_dense:
                raise TransformationError(
                    f"{quoted((names[0], name))} are events and a confound, which have no rows in common. Combine "
                    "variables of one kind."
                )
            columns = [] if first.is_dense else ["onset", "duration"]
            if not other.rows[columns].equals(first.rows[columns]):
                raise TransformationError(
                    f"{quoted((names[0], name))} have different events (onsets or durations), so that they cannot be "
                    "combined row by row. Do it before Assign changes them."
                )

    # What X stands for ------------------------------------------------------------------------------------------

    def chosen(self, x: Sequence[str], *, responses_are_whole: bool) -> Regressors:
        """Choose the variables in X; with a response of several columns, these are chosen by their own names."""
        names = list(dict.fromkeys(name for pattern in x if pattern != INTERCEPT for name in self._in_x(pattern)))
        found = {name: self.find(name) for name in names if name in self.variables or self._owner(name) is None}
        for name, variable in found.items():
            if not variable.is_dense and not variable.response and len(variable.rows):
                raise TransformationError(
                    f"X: '{shortened(name)}' is a column of events that nothing convolves. Add Convolve, or name it "
                    "in Model.HRF.Variables."
                )
        events = {name: variable for name, variable in found.items() if not variable.is_dense}
        response = self._response(events, names, responses_are_whole=responses_are_whole)
        rows, warnings = _rows(events)
        warnings = [*self._warnings, *warnings]
        dense = {name: variable.amplitude.to_numpy() for name, variable in found.items() if variable.is_dense}
        return Regressors(rows, response, pd.DataFrame(dense), tuple(names), tuple(warnings))

    def _in_x(self, pattern: str) -> list[str]:
        try:
            return self.names(pattern, [*self.variables, *self._further_columns()])
        except TransformationError as error:
            raise TransformationError(f"X: {error}") from None

    def _further_columns(self) -> list[str]:
        """Name the further columns of responses."""
        return [
            name + suffix
            for name, variable in self.variables.items()
            for part, suffix in _SUFFIXES.items()
            if part in variable.response
        ]

    def _owner(self, name: str) -> str | None:
        """Name the variable whose response has a column of this name."""
        for part, suffix in _SUFFIXES.items():
            owner = name.removesuffix(suffix)
            if owner != name and part in self.variables.get(owner, _NOTHING).response:
                return owner
        return None

    def _response(self, events: Mapping[str, Variable], names: Collection[str], *, responses_are_whole: bool) -> str:
        """Name the one response of all events; its further columns are used where X has them."""
        responses = dict.fromkeys(variable.response for variable in events.values() if variable.response)
        if len(responses) > 1:
            raise TransformationError(
                f"X: the regressors are convolved with different responses ({listed(list(responses))}), and a run has "
                "one here. Choose one of them."
            )
        response = next(iter(responses), "")
        parts = response.split(" + ")
        if responses_are_whole or len(parts) == 1:
            return response
        convolved = [name for name, variable in events.items() if variable.response]
        has = {part: [name + _SUFFIXES[part] in names for name in convolved] for part in parts[1:]}
        mixed = next((part for part, there in has.items() if any(there) and not all(there)), None)
        if mixed is not None:
            lacking = next(name for name, there in zip(convolved, has[mixed], strict=True) if not there)
            raise TransformationError(
                f"X: '{shortened(lacking)}{_SUFFIXES[mixed]}' is missing, while other regressors have theirs; a run "
                "has one response here. Put the columns of all into X, or of none."
            )
        kept = [parts[0], *(part for part, there in has.items() if all(there))]
        if kept == [parts[0], "dispersion"]:
            raise TransformationError("X has dispersions without derivatives, which no response here has. Add these.")
        return " + ".join(kept)


_NOTHING = Variable(pd.DataFrame({"amplitude": []}))


def _rows(events: Mapping[str, Variable]) -> tuple[pd.DataFrame, list[str]]:
    """Put the events of all regressors into one table; those with an amplitude of zero evoke nothing."""
    tables, warnings = [], []
    for name, variable in events.items():
        _check_number(name, variable)
        rows = variable.rows.astype(float)
        warnings += _without_value(name, rows["amplitude"], "of it")
        rows = rows[rows["amplitude"].notna() & (rows["amplitude"] != 0)]
        incomplete = rows[["onset", "duration"]].isna().any(axis="columns")
        if incomplete.any():
            raise TransformationError(
                f"line {rows.index[int(incomplete.to_numpy().argmax())]}: the event of '{shortened(name)}' has no "
                "onset or duration (n/a). Correct that row, or leave it out with Filter."
            )
        tables.append(rows.assign(trial_type=name))
    columns = ["onset", "duration", "trial_type", "amplitude"]
    if not tables:
        return pd.DataFrame(columns=columns[:3]), warnings
    table = pd.concat(tables)[columns].rename(columns={"amplitude": "modulation"})
    table = table.sort_index(kind="stable")
    return (table.drop(columns="modulation") if (table["modulation"] == 1).all() else table), warnings


def _without_value(name: str, amplitude: pd.Series, of: str) -> list[str]:
    """Count the rows that have no value of a variable."""
    missing = amplitude.isna()
    if not missing.any():
        return []
    return [
        f"{int(missing.sum())} of {len(amplitude)} rows have no value for '{shortened(name)}' (n/a, or taken out by "
        f"Filter) and are no events {of} ({lines_text(amplitude.index[missing])})."
    ]


# Single transformations ---------------------------------------------------------------------------------------


def _level_names(numbers: pd.Series) -> pd.Series:
    """Write numbers as levels: whole ones without a decimal point."""
    return numbers.map(_level, na_action="ignore")


def _level(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else str(float(number))


def _check_number(name: str, variable: Variable) -> None:
    if variable.is_text:
        example = variable.amplitude.dropna()
        shown = f" ('{shortened(str(example.iloc[0]))}')" if len(example) else ""
        raise TransformationError(
            f"'{shortened(name)}' is text{shown}, not numbers. Make variables of its levels with Factor."
        )


def _numbers(name: str, variable: Variable) -> pd.Series:
    _check_number(name, variable)
    return variable.amplitude.astype(float)


def _convolved(variable: Variable, name: str, response: str) -> Variable:
    if variable.is_dense:
        raise TransformationError(
            f"'{shortened(name)}' is a confound with a value per volume, which is not convolved here. Use columns of "
            "events."
        )
    if variable.response:
        raise TransformationError(f"'{shortened(name)}' is convolved twice. Name it once, in Convolve or in Model.HRF.")
    _check_number(name, variable)
    return replace(variable, response=response)


def response_name(arguments: Mapping[str, Any]) -> str:
    """Name the response that the arguments of Convolve ask for."""
    parts = [arguments.get("Model", "spm")]
    parts += [
        part
        for part, argument in (("derivative", "Derivative"), ("dispersion", "Dispersion"))
        if arguments.get(argument)
    ]
    return " + ".join(parts)


def _convolve(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    response = response_name(arguments)
    if response.endswith("dispersion") and "derivative" not in response:
        raise TransformationError("Dispersion without Derivative is no response here. Ask for both.")
    return _convolved(variable, name, response)


def _unchanged(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    return variable


def _demean(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    numbers = _numbers(name, variable)
    return variable.with_amplitude(numbers - numbers.mean())


def _scale(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    numbers = _numbers(name, variable)
    when = arguments.get("ReplaceNa", "off")
    if when == "before":
        numbers = numbers.fillna(0.0)
    if numbers.min() == numbers.max() and when != "after":
        raise TransformationError(f"'{shortened(name)}' has one value only, so it has no scale. Leave it out.")
    if arguments.get("Demean", True):
        numbers = numbers - numbers.mean()
    if arguments.get("Rescale", True):
        numbers = numbers / numbers.std()
    return variable.with_amplitude(numbers.fillna(0.0) if when == "after" else numbers)


def _threshold(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    """Set to zero what does not reach a threshold, rows without a value too."""
    numbers, threshold = _numbers(name, variable), arguments.get("Threshold", 0.0)
    if not arguments.get("Signed", True):
        numbers, threshold = numbers.abs(), abs(threshold)
    keeps = numbers >= threshold if arguments.get("Above", True) else numbers <= threshold
    return variable.with_amplitude(keeps.astype(float) if arguments.get("Binarize") else numbers.where(keeps, 0.0))


def _power(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    with np.errstate(all="ignore"):
        powers = np.power(_numbers(name, variable).to_numpy(), arguments["Value"])
    if not np.isfinite(powers[variable.amplitude.notna()]).all():
        raise TransformationError(
            f"'{shortened(name)}' has values whose power {arguments['Value']:g} is no finite number."
        )
    return variable.with_amplitude(powers)


def _not(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    numbers = _numbers(name, variable)
    return variable.with_amplitude((numbers == 0).astype(float).where(numbers.notna()))


def _replaced(name: str, variable: Variable, arguments: Mapping[str, Any]) -> Variable:
    """Replace values; keys of JSON are text, and mean numbers where the values are."""
    column = {"value": "amplitude"}.get(arguments.get("Attribute", "value"), arguments.get("Attribute", "value"))
    if column not in variable.rows:
        raise TransformationError(
            f"'{shortened(name)}' is a confound, which has no {column}. Choose a column of events."
        )
    if column != "amplitude" and any(isinstance(new, str) for _, new in arguments["Replace"]):
        raise TransformationError(f"a text cannot stand in place of the {column} of an event. Give a number.")
    values = variable.rows[column]
    made = values.astype(object)
    for old, new in arguments["Replace"]:
        made[values == (old if values.dtype == object else _number_in(old))] = new
    made = made.map(lambda value: value if isinstance(value, str) else _level(value), na_action="ignore")
    return replace(variable, rows=variable.rows.assign(**{column: _typed(made)}))


def _number_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _product(names: Sequence[str], variables: Sequence[Variable], arguments: Mapping[str, Any]) -> Variable:
    result = _numbers(names[0], variables[0])
    for name, variable in zip(names[1:], variables[1:], strict=True):
        result = result * _numbers(name, variable)
    return variables[0].with_amplitude(result)


def _sum(names: Sequence[str], variables: Sequence[Variable], arguments: Mapping[str, Any]) -> Variable:
    weights = arguments.get("Weights", (1.0,) * len(names))
    if len(weights) != len(names):
        raise TransformationError(f"{len(weights)} weights for {len(names)} inputs. Give one for each.")
    terms = [
        weight * _numbers(name, variable) for weight, name, variable in zip(weights, names, variables, strict=True)
    ]
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return variables[0].with_amplitude(result)


def _together(decide: Callable[[pd.DataFrame], pd.Series]) -> Callable[..., Variable]:
    """Make a logical transformation; a row without some value has none afterwards."""

    def transform(names: Sequence[str], variables: Sequence[Variable], arguments: Mapping[str, Any]) -> Variable:
        table = pd.DataFrame(
            {number: _numbers(*pair) for number, pair in enumerate(zip(names, variables, strict=True))}
        )
        return variables[0].with_amplitude(decide(table != 0).astype(float).where(table.notna().all(axis="columns")))

    return transform


def _concatenate(names: Sequence[str], variables: Sequence[Variable], arguments: Mapping[str, Any]) -> Variable:
    """Join the texts of each row, with _ between them."""
    if variables[0].is_dense:
        raise TransformationError(
            f"'{shortened(names[0])}' is a confound, which has no levels. Choose columns of events."
        )
    texts = [variable.amplitude if variable.is_text else _level_names(variable.amplitude) for variable in variables]
    joined = texts[0].astype(object)
    for text in texts[1:]:
        joined = joined.str.cat(text.astype(object), sep="_") if len(joined) else joined
    return variables[0].with_amplitude(joined)


def _compared(variable: Variable, sign: str, value: str, query: str) -> pd.Series:
    """Say for each row whether a comparison holds; one without a value does not hold."""
    amplitude = variable.amplitude
    if variable.is_text:
        if sign not in ("==", "!="):
            raise TransformationError(f"the query '{shortened(query)}' asks whether text is larger. Ask with == or !=.")
        compared: str | float = value
    elif np.isnan(compared := _number_in(value)):
        raise TransformationError(
            f"the query '{shortened(query)}' compares numbers with '{shortened(value)}'. Give a number."
        )
    keeps: pd.Series = _COMPARISONS[sign](amplitude, compared)
    return keeps & amplitude.notna()


_OF_ONE: dict[str, Callable[[str, Variable, Mapping[str, Any]], Variable]] = {
    "Convolve": _convolve,
    "Copy": _unchanged,
    "Demean": _demean,
    "Not": _not,
    "Power": _power,
    "Rename": _unchanged,
    "Replace": _replaced,
    "Scale": _scale,
    "Threshold": _threshold,
}
_OF_SEVERAL: dict[str, Callable[[Sequence[str], Sequence[Variable], Mapping[str, Any]], Variable]] = {
    "And": _together(lambda table: table.all(axis="columns")),
    "Concatenate": _concatenate,
    "Or": _together(lambda table: table.any(axis="columns")),
    "Product": _product,
    "Sum": _sum,
}

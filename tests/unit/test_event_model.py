"""What users write of events is read right or refused in words, and never executed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import examples
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.ask.event_model import (
    EventModel,
    Modulator,
    parse_event_filter,
    parse_event_model,
    parse_modulator,
    units_of_effect,
)
from sessionfx.errors import CommandLineError
from sessionfx.options import FirstLevelModel

NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,6}", fullmatch=True)
SPACES = st.sampled_from(["", " ", "  "])
NUMBERS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 1000.0])


def parts(modulator: Modulator) -> tuple[object, ...]:
    return modulator.name, modulator.condition, modulator.column, modulator.factor, modulator.constant


# Modulators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rt", (None, None, "rt", 1.0, 0.0)),
        ("go: rt", (None, "go", "rt", 1.0, 0.0)),
        ("x=go: rt - 3", ("x", "go", "rt", 1.0, -3.0)),
        ("speed = rt / 1000", ("speed", None, "rt", 0.001, 0.0)),
        ("go:2*(rt - 0.5)", (None, "go", "rt", 2.0, -1.0)),
        ("go: 1 - rt", (None, "go", "rt", -1.0, 1.0)),
        ("`go: left`: `response time`", (None, "go: left", "response time", 1.0, 0.0)),
        ("stop-signal: rt", (None, "stop-signal", "rt", 1.0, 0.0)),
        ("face.hit : rt", (None, "face.hit", "rt", 1.0, 0.0)),
    ],
)
def test_a_modulator_is_a_column_with_constants(text: str, expected: tuple[object, ...]) -> None:
    assert parts(parse_modulator(text)) == expected


@given(
    name=st.none() | NAMES, condition=st.none() | NAMES, column=NAMES, factor=NUMBERS, constant=NUMBERS, space=SPACES
)
@examples()
def test_a_modulator_means_what_its_text_says(
    name: str | None, condition: str | None, column: str, factor: float, constant: float, space: str
) -> None:
    text = f"{factor}{space}*{space}{column}{space}-{space}{constant}"
    text = text if condition is None else f"{condition}{space}:{space}{text}"
    text = text if name is None else f"{name}{space}={space}{text}"
    modulator = parse_modulator(text)
    assert parts(modulator) == (name, condition, column, factor, -constant)
    own = modulator.column_of(condition or "any")
    assert own == (name if name and condition else f"{condition or 'any'}_x_{name or column}")
    assert modulator.condition_of(own) == (condition or "any")
    assert modulator.condition_of(f"{own}s") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends where a name"),
        ("go:", "it ends where a name"),
        ("rt + pupil", "2 names in place of one"),
        ("3", "no names in place of one"),
        ("rt - rt", "no names in place of one"),
        ("rt * rt", "multiplies two names"),
        ("rt / 0", "divides by zero"),
        ("response time", "'time' at position 10 stands where an operator should be"),
        ("__import__('os')", r"the character"),
        ("a b=rt", "'a b' is no name"),
        ("go: stop: rt", "has no meaning here"),
        ("1e999*rt", "not a finite number"),
    ],
)
def test_what_is_no_modulator_is_refused_with_an_example(text: str, reason: str) -> None:
    with pytest.raises(CommandLineError, match=f"--modulator .*{reason}.*'NAME=go: rt - 3'"):
        parse_modulator(text)


@pytest.mark.parametrize(
    "texts", [("rt", "rt / 1000"), ("rt", "go: rt"), ("x=go: rt", "x=stop: pupil"), ("go: rt", "go: rt - 3")]
)
def test_two_modulators_of_one_name_are_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(CommandLineError, match=f"would both make a column.*NAME={re.escape(texts[1].split('=')[-1])}"):
        parse_event_model(FirstLevelModel(modulator=texts))


def test_several_modulators_of_a_condition_have_a_column_each() -> None:
    model = parse_event_model(FirstLevelModel(modulator=("rt", "go: pupil", "late=go: rt - 1", "stop: pupil")))
    assert model.regressors_of("go") == ["go", "go_x_rt", "go_x_pupil", "late"]
    assert model.regressors_of("stop") == ["stop", "stop_x_rt", "stop_x_pupil"]
    assert model.conditions_behind({"late", "stop_x_rt", "other"}) == {"late", "stop_x_rt", "other", "go", "stop"}


@pytest.mark.parametrize(
    ("contrast", "unit"),
    [
        ("go_x_rt", "rt"), ("0.5*go_x_rt + 0.5*stop_x_rt", "rt"), ("F:either = go_x_rt; stop_x_rt", "rt"),
        ("go_x_ms", "ms"), ("late", "late"), ("go_x_pupil", "0.5 * pupil"),
        ("go", ""), ("go - stop_x_rt", ""), ("go_x_rt - late", ""), ("F:both = go; go_x_rt", ""),
    ],
)  # fmt: skip
def test_an_effect_of_modulated_columns_is_per_unit_of_their_modulator(contrast: str, unit: str) -> None:
    model = FirstLevelModel(modulator=("rt", "go: pupil * 0.5", "late=go: rt - 1", "ms = rt * 1000"))
    asked = parse_contrast(contrast)
    assert units_of_effect(asked, model) == "percent signal change" + (f" per unit of '{unit}'" if unit else "")
    assert units_of_effect(asked, FirstLevelModel(signal_scaling="none")) == "arbitrary units"
    of_task = replace(asked, parts=(("a", asked), ("b", replace(asked, weights={"go_x_rt": 1.0}, tested=()))))
    assert units_of_effect(of_task, model).endswith("per unit of 'rt'") == (unit == "rt")


# Filters ----------------------------------------------------------------------------------------------------

CELLS = ["hit", "miss", "1", "1.0", "2", "-3e0", "", None]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("response=hit", ["hit"]),
        ("response = hit, miss", ["hit", "miss"]),
        ("response!=hit,miss", ["1", "1.0", "2", "-3e0", "", None]),
        ("`response`=1", ["1", "1.0"]),
        ("response!=n/a", ["hit", "miss", "1", "1.0", "2", "-3e0", ""]),
        ("response=n/a,hit", ["hit", None]),
        ("response < 2", ["1", "1.0", "-3e0"]),
        ("response<=2", ["1", "1.0", "2", "-3e0"]),
        ("response>1", ["2"]),
        ("response >= 1", ["1", "1.0", "2"]),
        ("response=`hit`", ["hit"]),
    ],
)
def test_a_filter_keeps_what_its_text_says(text: str, kept: list[str | None]) -> None:
    asked = parse_event_filter(text)
    assert asked.column == "response"
    assert [cell for cell in CELLS if asked.keeps(cell)] == kept


def test_columns_and_values_with_signs_stand_in_backticks() -> None:
    asked = parse_event_filter("`a<b`=`x,y`,z")
    assert (asked.column, asked.comparison, asked.values) == ("a<b", "=", ("x,y", "z"))


@given(column=NAMES, values=st.lists(NAMES, min_size=1, max_size=4, unique=True), cell=NAMES, space=SPACES)
@examples()
def test_a_filter_and_its_opposite_share_the_events_out(column: str, values: list[str], cell: str, space: str) -> None:
    equal, unequal = (
        parse_event_filter(f"{column}{space}{sign}{space}{f'{space},{space}'.join(values)}") for sign in ("=", "!=")
    )
    assert equal.keeps(cell) == (cell in values)
    for written in (cell, None):
        assert equal.keeps(written) != unequal.keeps(written)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("response", "cannot be read"),
        ("", "cannot be read"),
        ("=hit", "cannot be read"),
        ("response=", "has no value after '='"),
        ("response=hit,,miss", "or between commas"),
        ("rt < fast", "'fast' after '<', which is no number"),
        ("rt < 1,2", "'1,2' after '<', which is no number"),
        ("rt > nan", "'nan' after '>', which is no number"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CommandLineError, match=f"--event-filter '{re.escape(text)}'.*{reason}"):
        parse_event_filter(text)


@given(text=st.text(max_size=40))
@examples()
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    for parse in (parse_modulator, parse_event_filter):
        try:
            parse(text)
        except CommandLineError as error:
            assert str(error).startswith("--")


# Recodes ----------------------------------------------------------------------------------------------------


def test_recodes_merge_rename_and_remove() -> None:
    model = parse_event_model(FirstLevelModel(recode=("a=x", "b = x", "`c=d`=y", "miss=")))
    assert model.recodes == {"a": "x", "b": "x", "c=d": "y", "miss": ""}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("go",), "--recode 'go' cannot be read"),
        (("=go",), "cannot be read"),
        (("a=x", "a=y"), "two names, 'x' and 'y'"),
    ],
)
def test_recodes_that_say_nothing_or_two_things_are_refused(texts: tuple[str, ...], reason: str) -> None:
    with pytest.raises(CommandLineError, match=reason):
        parse_event_model(FirstLevelModel(recode=texts))


def test_without_options_events_are_taken_as_they_stand() -> None:
    assert parse_event_model(FirstLevelModel()) == EventModel()

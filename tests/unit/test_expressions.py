"""Contrast expressions mean what the same text means in arithmetic, and nothing a user writes is executed."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.contrasts import expression_to_contrast_vector

from properties import examples
from sessionfx.ask.expressions import ExpressionError, parse_expression, split_name

# An expression's text together with the weights it means
Meaning = tuple[str, dict[str, float]]

# Halves and small whole numbers: sums and products of a few of them are exact in floating point.
NUMBERS = st.sampled_from(["1", "2", "3", "0.5", ".25", "4.", "1e1", "5E-1", "2e+0"])
DIVISORS = st.sampled_from(["1", "2", "0.5", "4", "8e0"])
SPACES = st.sampled_from(["", " ", "  "])
NAMES = st.builds("".join, st.tuples(st.sampled_from("abE_é条"), st.text("abE_é条019².", max_size=3)))
PYTHON_NAMES = st.builds("".join, st.tuples(st.sampled_from("abcxyz_"), st.text("abe_019", max_size=3))).filter(
    lambda name: not keyword.iskeyword(name)
)
BIDS_LABELS = st.from_regex(r"[a-zA-Z0-9]{1,6}", fullmatch=True)


def scaled(weights: dict[str, float], factor: float) -> dict[str, float]:
    return {name: weight * factor for name, weight in weights.items()}


def added(left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in [*left, *right]}


def without_zeros(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight != 0}


@st.composite
def terms(draw: st.DrawFn, atoms: st.SearchStrategy[Meaning]) -> Meaning:
    """An atom with a sign, factors and divisors: `-2*a/4`."""
    text, weights = draw(atoms)
    for number in draw(st.lists(NUMBERS, max_size=2)):
        gap, before = draw(SPACES), draw(st.booleans())
        text = f"{number}{gap}*{gap}{text}" if before else f"{text}{gap}*{gap}{number}"
        weights = scaled(weights, float(number))
    for number in draw(st.lists(DIVISORS, max_size=1)):
        text, weights = f"{text}{draw(SPACES)}/{number}", scaled(weights, 1 / float(number))
    for sign in draw(st.lists(st.sampled_from("+-"), max_size=2)):
        text, weights = f"{sign}{draw(SPACES)}{text}", scaled(weights, -1.0 if sign == "-" else 1.0)
    return text, weights


@st.composite
def sums(draw: st.DrawFn, atoms: st.SearchStrategy[Meaning]) -> Meaning:
    """Terms with pluses and minuses between them."""
    text, weights = draw(terms(atoms))
    for _ in range(draw(st.integers(0, 3))):
        operator, (more_text, more_weights) = draw(st.sampled_from("+-")), draw(terms(atoms))
        text = f"{text}{draw(SPACES)}{operator}{draw(SPACES)}{more_text}"
        weights = added(weights, scaled(more_weights, -1.0 if operator == "-" else 1.0))
    return text, weights


def expressions(names: st.SearchStrategy[str]) -> st.SearchStrategy[Meaning]:
    """Weighted sums of names, nested in parentheses."""
    alone = names.map(lambda name: (name, {name: 1.0}))
    atoms = st.recursive(
        alone, lambda inner: sums(inner).map(lambda inside: (f"({inside[0]})", inside[1])), max_leaves=6
    )
    return sums(atoms)


@given(expressions(NAMES))
@examples(100)
def test_a_weighted_sum_means_what_arithmetic_says(meaning: Meaning) -> None:
    text, weights = meaning
    if without_zeros(weights):
        assert parse_expression(text).weights == without_zeros(weights)
    else:
        with pytest.raises(ExpressionError, match="cancel to zero"):
            parse_expression(text)


@given(expressions(PYTHON_NAMES))
@examples(60)
def test_weights_agree_with_nilearn(meaning: Meaning) -> None:
    text, weights = meaning
    columns = [*weights, "drift_1", "constant"]
    theirs = expression_to_contrast_vector(text, columns)
    if np.any(theirs):
        ours = parse_expression(text).weights
        np.testing.assert_array_equal([ours.get(column, 0.0) for column in columns], theirs)
    else:
        with pytest.raises(ExpressionError, match="cancel to zero"):
            parse_expression(text)


@given(expressions(NAMES))
@examples(50)
def test_labels_are_ascii_letters_and_digits(meaning: Meaning) -> None:
    text, weights = meaning
    if without_zeros(weights):
        assert re.fullmatch("[a-zA-Z0-9]*", parse_expression(text).label)


@pytest.mark.parametrize("session_names", [False, True])
@given(text=st.one_of(st.text(), st.text(alphabet="ab_.`'\"=#@[]{}:;,\n\0 ()+-*/0123456789eEsx²٣é", max_size=40)))
@examples(150)
def test_arbitrary_text_is_read_or_refused_and_nothing_else(text: str, session_names: bool) -> None:
    try:
        expression = parse_expression(text, session_names=session_names)
    except ExpressionError as error:
        assert str(error)
    else:
        assert expression.weights
        assert all(np.isfinite(weight) and weight != 0 for weight in expression.weights.values())


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('pathlib').Path({marker!r}).touch()",
        "`a` + __import__('pathlib').Path({marker!r}).touch()",
        "open({marker!r}, 'w')",
        "@open({marker!r}, 'w')",
        "[open({marker!r}, 'w') for x in [1]]",
        "a := open({marker!r}, 'w')",
        "a\nopen({marker!r}, 'w')",
    ],
)
def test_code_is_refused_and_not_executed(attack: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ExpressionError):
        parse_expression(attack.format(marker=str(marker)))
    assert not marker.exists()


def test_an_attribute_is_only_a_name() -> None:
    assert parse_expression("a.__class__ - b").weights == {"a.__class__": 1.0, "b": -1.0}


@given(st.text(min_size=1, max_size=20).filter(lambda name: "`" not in name))
@examples(100)
def test_backticks_make_any_text_a_name(name: str) -> None:
    # whichever way its accents are typed
    assert parse_expression(f"2*`{name}`").weights == {unicodedata.normalize("NFC", name): 2.0}


def test_a_name_in_backticks_is_the_same_name_without_them() -> None:
    assert parse_expression("`face` + face - 2*`house front`").weights == {"face": 2.0, "house front": -2.0}


def test_names_and_numbers_need_not_be_pythons() -> None:
    text = "not - lambda + 007*trial_type.1 + None + b²"
    expected = {"not": 1.0, "lambda": -1.0, "trial_type.1": 7.0, "None": 1.0, "b²": 1.0}
    assert parse_expression(text).weights == expected


def test_a_long_sum_and_a_long_product_are_read() -> None:
    assert parse_expression("a+" * 999 + "a").weights == {"a": 1000.0}
    assert parse_expression("2*" * 900 + "a*0.5" + "*0.5" * 20).weights == {"a": 2.0**879}


def test_weights_come_in_order_of_appearance() -> None:
    assert list(parse_expression("c - a + 2*b - a").weights) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("incongruent - congruent", "incongruentMinusCongruent"),
        ("face", "face"),
        ("-face", "minusFace"),
        ("2*a - b", "2TimesAMinusB"),
        ("(a + b)/2", "aPlusBOver2"),
        ("0.5*a - 1e-3*b", "0p5TimesAMinus1em3TimesB"),
        ("`happy face` - trial_type.x", "happyFaceMinusTrialTypeX"),
        ("Gesicht_schön - Gesicht", "GesichtSchonMinusGesicht"),
        ("顔", ""),
    ],
)
def test_label_spells_the_expression_out(text: str, label: str) -> None:
    assert parse_expression(text).label == label


# Sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ses-02 - ses-01", "ses-02-ses-01", " ses-02 -ses-01 ", "-(ses-01 - ses-02)"])
def test_sessions_are_names_where_asked_for(text: str) -> None:
    assert parse_expression(text, session_names=True).weights == {"ses-02": 1.0, "ses-01": -1.0}


def test_sessions_are_differences_elsewhere() -> None:
    with pytest.raises(ExpressionError, match="constant -2"):
        parse_expression("ses-02")
    assert parse_expression("ses-x").weights == {"ses": 1.0, "x": -1.0}


@given(later=BIDS_LABELS, earlier=BIDS_LABELS, factor=NUMBERS)
@examples(100)
def test_any_session_label_can_stand_in_an_expression(later: str, earlier: str, factor: str) -> None:
    text = f"{factor}*ses-{later} - ses-{earlier}"
    expected = without_zeros(added({f"ses-{later}": float(factor)}, {f"ses-{earlier}": -1.0}))
    if expected:
        assert parse_expression(text, session_names=True).weights == expected


def test_label_of_a_session_difference_joins_prefix_and_label() -> None:
    assert parse_expression("ses-02 - ses-01", session_names=True).label == "ses02MinusSes01"


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends where a name or a number should follow"),
        ("a -", "ends where a name or a number should follow"),
        ("a b", "'b' at position 3 stands where an operator should be"),
        ("(a - b", "ends where a closing parenthesis should follow"),
        ("a - b)", r"'\)' at position 6"),
        ("a * b", "multiplies two names at position 3"),
        ("a / b", "divides by a name at position 3"),
        ("a / (1 - 1)", "divides by zero at position 3"),
        ("a + 1", "constant 1"),
        ("3", "constant 3"),
        ("a - a", "cancel to zero"),
        ("0*a", "cancel to zero"),
        ("a ? b", r"'\?' at position 3 has no meaning"),
        ("2a - b", "'2' at position 1"),
        ("a ** 2", "position 4"),
        ("``", "'`' at position 1"),
        ("`a", "'`' at position 1"),
        ("1e308*a*1e308", "not a finite number"),
        ("1e999*a", "not a finite number"),
    ],
)
def test_refusal_says_what_is_wrong_and_where(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        parse_expression(text)


@pytest.mark.parametrize("repeat", [lambda n: "(" * n + "a" + ")" * n, lambda n: "-" * n + "a"])
def test_deep_nesting_is_refused_before_python_gives_up(repeat: Callable[[int], str]) -> None:
    assert parse_expression(repeat(20)).weights == {"a": 1.0}
    with pytest.raises(ExpressionError, match="nested too deeply"):
        parse_expression(repeat(900))


def test_overlong_text_is_refused_unread() -> None:
    with pytest.raises(ExpressionError, match="longer than"):
        parse_expression("a + " * 100_000 + "a")


# NAME=EXPR --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stroop=incongruent - congruent", ("stroop", "incongruent - congruent")),
        (" stroop = a - b ", ("stroop", "a - b")),
        (" a - b ", (None, "a - b")),
        ("`x=1` - `x=2`", (None, "`x=1` - `x=2`")),
        ("n=`x=1`", ("n", "`x=1`")),
        ("=a", ("", "a")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_a_name_ends_at_the_first_equals_sign_outside_backticks(text: str, parts: tuple[str | None, str]) -> None:
    assert split_name(text) == parts

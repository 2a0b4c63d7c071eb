"""Session contrasts: what is asked of the sessions, and what it means for a participant who has only some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import examples
from sessionfx.ask.session_contrasts import (
    SessionContrast,
    check_specification,
    default_specifications,
    resolve_session_contrasts,
    trend_direction,
    trend_weights,
)
from sessionfx.errors import CommandLineError

THREE = ("01", "02", "03")


def resolved(specification: str, sessions: Sequence[str] = THREE) -> SessionContrast:
    (contrast,) = resolve_session_contrasts([specification], sessions)
    return contrast


def session_labels(count: int) -> tuple[str, ...]:
    return tuple(f"{index + 1:02d}" for index in range(count))


@st.composite
def attendances(draw: st.DrawFn, least: int = 1) -> tuple[tuple[str, ...], list[str]]:
    """Two to eight study sessions, and those that one participant has, in any order."""
    sessions = session_labels(draw(st.integers(max(2, least), 8)))
    return sessions, draw(st.lists(st.sampled_from(sessions), min_size=least, unique=True))


# What is asked by default -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ((), ["mean"]),
        (("01",), ["mean"]),
        (("01", "02"), ["mean", "ses-02 - ses-01"]),
        (("1", "2", "3"), ["mean", "ses-2 - ses-1", "ses-3 - ses-1", "ses-3 - ses-2", "linear", "any"]),
        (
            ("pre", "post", "a", "b"),
            ["mean", "ses-post - ses-pre", "ses-a - ses-pre", "ses-b - ses-pre", "ses-a - ses-post",
             "ses-b - ses-post", "ses-b - ses-a", "linear", "any"],
        ),
    ],
)  # fmt: skip
def test_mean_and_later_minus_earlier_and_the_trend_are_asked_by_default(
    sessions: tuple[str, ...], expected: list[str]
) -> None:
    assert default_specifications(sessions) == expected
    assert [contrast.text for contrast in resolve_session_contrasts([], sessions)] == expected


@given(st.lists(st.from_regex("[a-zA-Z0-9]{1,5}", fullmatch=True), max_size=5, unique_by=str.lower))
@examples()
def test_defaults_can_be_resolved_for_any_session_labels(sessions: list[str]) -> None:
    """BIDS forbids labels that differ in case only."""
    contrasts = resolve_session_contrasts([], sessions)
    assert len({contrast.label for contrast in contrasts}) == len(contrasts)
    assert all(contrast.label.isalnum() for contrast in contrasts)


def test_defaults_can_be_resolved_for_labels_with_a_plus_sign() -> None:
    """BIDS allows + in labels since version 1.10."""
    difference = resolve_session_contrasts([], ("pre", "pre+1"))[1]
    assert difference.weights == (-1.0, 1.0)


# Labels and weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specification", "label", "weights"),
    [
        ("mean", "mean", (1 / 3, 1 / 3, 1 / 3)),
        ("linear", "linear", (-0.5, 0.0, 0.5)),
        ("ses-02 - ses-01", "ses02MinusSes01", (-1.0, 1.0, 0.0)),
        ("ses-02", "ses02", (0.0, 1.0, 0.0)),
        ("early=ses-02 - ses-01", "early", (-1.0, 1.0, 0.0)),
        ("training effect = 0.5*ses-02 + 0.5*ses-03 - ses-01", "trainingEffect", (-1.0, 0.5, 0.5)),
        ("average=mean", "average", (1 / 3, 1 / 3, 1 / 3)),
        ("slope=linear", "slope", (-0.5, 0.0, 0.5)),
        ("quadratic", "quadratic", (0.5, -1.0, 0.5)),
        ("degree-2", "degree2", (0.5, -1.0, 0.5)),
    ],
)
def test_specification_gives_label_and_weights(specification: str, label: str, weights: tuple[float, ...]) -> None:
    contrast = resolved(specification)
    assert contrast.label == label
    assert contrast.weights == pytest.approx(weights)
    assert contrast.sessions == THREE


def test_sessions_may_be_named_without_their_prefix() -> None:
    bare = resolved("post - pre", ("pre", "post"))
    assert bare.weights == resolved("ses-post - ses-pre", ("pre", "post")).weights == (-1.0, 1.0)
    assert bare.label == "postMinusPre"


@pytest.mark.parametrize(
    ("specification", "weights"), [("ses-post + post", (0.0, 2.0)), ("3*post - ses-post", (0.0, 2.0))]
)
def test_both_spellings_of_a_session_add_up(specification: str, weights: tuple[float, ...]) -> None:
    assert resolved(specification, ("pre", "post")).weights == weights


def test_the_order_of_the_sessions_is_their_order_in_time() -> None:
    assert resolved("linear", ("post", "pre")).weights == (-1.0, 1.0)
    assert resolve_session_contrasts([], ("post", "pre"))[1].text == "ses-pre - ses-post"


@given(st.integers(2, 12))
@examples()
def test_linear_weights_sum_to_zero_and_give_slope_one_on_time(n_sessions: int) -> None:
    contrast = resolved("linear", session_labels(n_sessions))
    weights = np.array(contrast.weights)
    assert abs(weights.sum()) < 1e-12
    assert weights @ np.arange(n_sessions) == pytest.approx(1, abs=1e-12)


@given(st.lists(st.integers(-20, 20), min_size=3, max_size=8, unique=True), st.integers(0, 2**32 - 1))
@examples()
def test_trend_weights_are_those_of_a_polynomial_fitted_by_least_squares(times: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=len(times))
    for degree in range(1, min(len(times), 6)):
        highest = np.polynomial.Polynomial.fit(times, values, degree).convert().coef[-1]
        weights = trend_weights(np.array(times, dtype=float), degree)
        assert weights @ values == pytest.approx(highest, rel=1e-6, abs=1e-9)


# The answers of R 4.2.2: contr.poly(5) and poly(days, 4), of length one
R_CONTRASTS = {
    "cubic": [-0.316227766016838, 0.632455532033676, 0, -0.632455532033676, 0.316227766016838],
    "degree-4": [0.119522860933439, -0.478091443733757, 0.717137165600636, -0.478091443733757, 0.119522860933439],
}
R_DAYS = [0, 14, 31, 90, 182, 365]
R_POLY = {
    3: [
        -0.443005830522783,
        -0.0386451384942604,
        0.317455479834942,
        0.620440876615121,
        -0.554042620665179,
        0.0977972332321592,
    ],
    4: [
        0.506263445760021,
        -0.266817955418649,
        -0.615348420569052,
        0.519253863093608,
        -0.155199427492571,
        0.0118484946266438,
    ],
}


@pytest.mark.parametrize("text", R_CONTRASTS)
def test_contrasts_over_the_order_are_those_of_r(text: str) -> None:
    weights = np.array(resolved(text, session_labels(5)).weights)
    np.testing.assert_allclose(weights / np.linalg.norm(weights), R_CONTRASTS[text], atol=1e-12)


@pytest.mark.parametrize("degree", R_POLY)
def test_directions_over_measured_times_are_those_of_r(degree: int) -> None:
    direction = trend_direction(np.array(R_DAYS, dtype=float), degree)
    np.testing.assert_allclose(direction / np.linalg.norm(direction), R_POLY[degree], rtol=1e-8)


def test_a_trend_over_measured_times_has_degree_and_label_of_its_own() -> None:
    for text, label, degree in (("cubic(days)", "cubicDays", 3), ("degree-4(days)", "degree4Days", 4)):
        asked = resolved(text)
        assert (asked.label, asked.kind, asked.time, asked.degree) == (label, "measured trend", "days", degree)


@pytest.mark.parametrize("text", ["degree-0", "degree-10", "degree-x", "cubic()"])
def test_what_is_no_degree_is_refused(text: str) -> None:
    with pytest.raises(CommandLineError, match="--session-contrast"):
        resolved(text)


def test_a_parabola_needs_three_sessions_and_is_of_those_there_are() -> None:
    asked = resolved("quadratic", session_labels(4))
    assert asked.weights_for(session_labels(4)[:2]) is None
    first_three = asked.weights_for(session_labels(4)[:3])
    assert list((first_three or {}).values()) == pytest.approx([0.5, -1.0, 0.5])
    assert resolved("quadratic", session_labels(2)).weights == ()
    measured = resolved("quadratic(days)")
    assert (measured.label, measured.kind, measured.time, measured.degree) == (
        "quadraticDays", "measured trend", "days", 2,
    )  # fmt: skip


# A participant who misses sessions --------------------------------------------------------------------------


@given(attendances())
@examples()
def test_mean_is_over_the_sessions_there_are(attendance: tuple[tuple[str, ...], list[str]]) -> None:
    sessions, present = attendance
    weights = resolved("mean", sessions).weights_for(present)
    assert weights == pytest.approx(dict.fromkeys(present, 1 / len(present)))


@given(attendances(least=2), st.integers(0, 2**32 - 1))
@examples()
def test_linear_is_the_least_squares_slope_over_the_sessions_there_are(
    attendance: tuple[tuple[str, ...], list[str]], seed: int
) -> None:
    sessions, present = attendance
    effects = dict(zip(sessions, np.random.default_rng(seed).normal(size=len(sessions)), strict=True))
    weights = resolved("linear", sessions).weights_for(present)
    assert weights is not None
    assert set(weights) <= set(present)
    slope = np.polyfit([sessions.index(session) for session in present], [effects[session] for session in present], 1)[
        0
    ]
    ours = sum(weight * effects[session] for session, weight in weights.items())
    assert ours == pytest.approx(slope, rel=1e-7, abs=1e-10)


@given(attendances())
@examples()
def test_linear_needs_two_sessions(attendance: tuple[tuple[str, ...], list[str]]) -> None:
    sessions, present = attendance
    assert (resolved("linear", sessions).weights_for(present) is None) == (len(present) < 2)


@given(attendances(), st.data())
@examples()
def test_given_weights_need_every_session_they_name(
    attendance: tuple[tuple[str, ...], list[str]], data: st.DataObject
) -> None:
    sessions, present = attendance
    named = data.draw(st.lists(st.sampled_from(sessions), min_size=1, unique=True))
    contrast = resolved(" + ".join(f"2*ses-{session}" for session in named), sessions)
    expected = dict.fromkeys(named, 2.0) if set(named) <= set(present) else None
    assert contrast.weights_for(present) == expected


@given(attendances(least=2), st.sampled_from(["mean", "linear", "ses-02 - ses-01"]))
@examples()
def test_whoever_has_every_session_gets_the_contrast_itself(
    attendance: tuple[tuple[str, ...], list[str]], specification: str
) -> None:
    sessions, _ = attendance
    contrast = resolved(specification, sessions)
    weights = contrast.weights_for(sessions)
    assert weights is not None
    assert [weights.get(session, 0.0) for session in sessions] == pytest.approx(list(contrast.weights))


@pytest.mark.parametrize("specification", ["mean", "linear", "ses-02 - ses-01"])
def test_nobody_answers_without_a_session(specification: str) -> None:
    assert resolved(specification).weights_for([]) is None
    assert resolved(specification).weights_for(["elsewhere"]) is None


@given(attendances(least=2))
@examples()
def test_no_weight_is_zero(attendance: tuple[tuple[str, ...], list[str]]) -> None:
    sessions, present = attendance
    for specification in ("mean", "linear", "0*ses-01 + ses-02"):
        weights = resolved(specification, sessions).weights_for(present)
        assert weights is None or all(weights.values())


# Within participants or between -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specification", "within"),
    [
        ("mean", False),
        ("ses-02", False),
        ("0.5*ses-01 + 0.5*ses-02", False),
        ("linear", True),
        ("ses-02 - ses-01", True),
        ("0.1*ses-01 + 0.2*ses-02 - 0.3*ses-03", True),
        ("ses-01/3 + ses-02/3 - 2*ses-03/3", True),
        ("1e-12*ses-02 - 1e-12*ses-01", True),
        ("ses-02 - 0.999*ses-01", False),
    ],
)
def test_contrast_is_within_participants_when_its_weights_cancel(specification: str, within: bool) -> None:
    assert resolved(specification).is_within_participant is within


# Datasets without sessions, or with one ---------------------------------------------------------------------


def test_without_sessions_the_mean_is_the_participants_map() -> None:
    contrast = resolved("mean", ())
    assert contrast.sessions == ("",)
    assert contrast.weights == (1.0,)
    assert contrast.weights_for([""]) == {"": 1.0}
    assert not contrast.is_within_participant


@pytest.mark.parametrize("sessions", [(), ("01",)])
def test_a_trend_over_one_session_has_no_answer(sessions: tuple[str, ...]) -> None:
    contrast = resolved("linear", sessions)
    assert contrast.weights_for(sessions or [""]) is None
    assert not contrast.is_within_participant


def test_naming_a_session_where_there_is_none_says_so() -> None:
    with pytest.raises(CommandLineError, match="no ses- entity"):
        resolved("ses-02 - ses-01", ())


# Refusals ---------------------------------------------------------------------------------------------------


def test_unknown_session_is_refused_with_those_there_are() -> None:
    with pytest.raises(CommandLineError, match=r"ses-04, which is not among .*ses-01, ses-02, ses-03"):
        resolved("ses-04 - ses-01")


def test_a_bare_label_of_digits_is_a_number() -> None:
    with pytest.raises(CommandLineError, match="adds the constant 1 to names"):
        resolved("03 - 02")


@pytest.mark.parametrize("specification", ["", "mean +", "ses-01 * ses-02", "ses-01 - ses-01", "ses-02 + 1", "ses-!"])
def test_text_that_is_no_contrast_is_refused_with_an_example(specification: str) -> None:
    for refuse in (check_specification, resolved):
        with pytest.raises(CommandLineError, match="Write 'mean', 'linear'"):
            refuse(specification)


@pytest.mark.parametrize("specification", ["=mean", "!?=linear", "顔=ses-02 - ses-01"])
def test_a_name_needs_a_letter_or_digit(specification: str) -> None:
    with pytest.raises(CommandLineError, match="no letter or digit"):
        check_specification(specification)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("change=ses-02 - ses-01", "change=ses-03 - ses-01"),
        ("mean", "mean=ses-02 - ses-01"),
        ("2*(ses-02 + ses-01)", "2*ses-02 + ses-01"),
    ],
)
def test_two_questions_with_one_label_are_refused(one: str, other: str) -> None:
    with pytest.raises(CommandLineError, match="would both be called"):
        resolve_session_contrasts([one, other], THREE)


def test_the_same_question_twice_is_asked_once() -> None:
    assert len(resolve_session_contrasts(["linear", "mean", "linear"], THREE)) == 2
    assert len(resolve_session_contrasts(["ses-02 - ses-01", "ses-02-ses-01"], THREE)) == 1


def test_each_asks_about_every_session_by_itself() -> None:
    contrasts = resolve_session_contrasts(["each", "mean"], THREE)
    assert [contrast.label for contrast in contrasts] == ["ses01", "ses02", "ses03", "mean"]
    assert contrasts[1].weights == (0.0, 1.0, 0.0)
    assert [contrast.label for contrast in resolve_session_contrasts(["each"], ())] == ["mean"]

"""Covariates: what the tables say, how it is coded, and what can be asked about the participants."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from least_squares import fit_ols
from properties import examples
from sessionfx.ask.covariates import (
    Covariates,
    GroupContrast,
    code_covariates,
    default_group_specifications,
    resolve_group_contrasts,
)
from sessionfx.bids.covariate_tables import read_covariates
from sessionfx.errors import CommandLineError, LevelError
from sessionfx.statistics.linear_algebra import rank_of

SIX = ("01", "02", "03", "04", "05", "06")
GROUPS = ("control", "patient", "control", "patient", "relative", "relative")
AGES = (20.0, 31.0, 25.0, 44.0, 38.0, 29.0)
Levels = Mapping[str, Sequence[str]]


def write_tsv(path: Path, rows: Sequence[Sequence[str]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding=encoding)
    return path


def write_table(path: Path, key: str, columns: Mapping[str, Sequence[str]]) -> Path:
    """Rows sub-01, sub-02 … or ses-01, ses-02 …"""
    rows = [[f"{key[:3]}-{row + 1:02d}", *cells] for row, cells in enumerate(zip(*columns.values(), strict=True))]
    return write_tsv(path, [["session_id" if key == "ses" else "participant_id", *columns], *rows])


def write_participants(root: Path, columns: Mapping[str, Sequence[str]], levels: Levels | None = None) -> Path:
    """participants.tsv, and participants.json that describes levels of its columns."""
    described = {column: {"Levels": dict.fromkeys(names, "")} for column, names in (levels or {}).items()}
    (root / "participants.json").write_text(json.dumps(described), encoding="utf-8-sig")
    return write_table(root / "participants.tsv", "sub", columns)


def write_sessions(root: Path, participant: str, columns: Mapping[str, Sequence[str]]) -> Path:
    return write_table(root / f"sub-{participant}" / f"sub-{participant}_sessions.tsv", "ses", columns)


def layout_of(n_participants: int, sessions: Sequence[str] = ("01", "02")) -> dict[str, Sequence[str]]:
    return {f"{index + 1:02d}": sessions for index in range(n_participants)}


def read(root: Path, columns: Mapping[str, Sequence[str]], levels: Levels | None = None) -> Covariates:
    """Write a table and read all its columns."""
    write_participants(root, columns, levels)
    return read_covariates(root, layout_of(len(next(iter(columns.values())))), list(columns))


def coded(interactions: Sequence[tuple[str, str]] = (), /, **columns: Sequence[float] | Sequence[str]) -> Covariates:
    n_participants = len(next(iter(columns.values())))
    labels = [f"{index + 1:02d}" for index in range(n_participants)]
    return code_covariates(labels, columns, interactions=interactions)


def asked(specification: str, covariates: Covariates) -> GroupContrast:
    (contrast,) = resolve_group_contrasts([specification], covariates)
    return contrast


def estimated(contrast: GroupContrast | str, covariates: Covariates, values: NDArray[np.float64]) -> float:
    """A group contrast of one value per participant, by OLS on the intercept and the columns."""
    if isinstance(contrast, str):
        contrast = asked(contrast, covariates)
    design = np.column_stack([np.ones(len(covariates.participants)), covariates.values])
    return float(fit_ols(values[:, None], design, np.array(contrast.weights)).effect[0])


PATIENTS = coded(age=AGES, group=GROUPS)
STUDY = coded(
    age=(20, 31, 25, 44, 38, 29, 33, 41, 27, 30),
    group=("control", "patient") * 5,
    site=("A", "A", "B", "B", "C", "A", "A", "B", "C", "C"),
)

level_names = st.text(st.characters(codec="utf-8", exclude_characters="`", exclude_categories=("C", "Z")), min_size=1)
finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def groupings(draw: st.DrawFn) -> tuple[str, ...]:
    """The level of each of four to twenty participants: two levels at least, all shared or not by chance."""
    levels = draw(
        st.lists(level_names.map(lambda name: unicodedata.normalize("NFC", name)), min_size=2, max_size=4, unique=True)
    )
    extra = draw(st.lists(st.sampled_from(levels), min_size=2, max_size=12))
    return tuple(draw(st.permutations([*levels, *extra])))


# Coding -----------------------------------------------------------------------------------------------------


def test_a_numeric_covariate_is_one_centred_column() -> None:
    assert PATIENTS.columns[0] == "age"
    np.testing.assert_allclose(PATIENTS.values[:, 0], np.array(AGES) - 187 / 6)
    assert "age: numeric, centred at 31.1667" in PATIENTS.warnings


def test_a_categorical_covariate_is_sum_coded_with_its_last_level_minus_one() -> None:
    covariates = coded(group=GROUPS)
    assert covariates.levels == {"group": ("control", "patient", "relative")}
    assert covariates.columns == ("group[control]", "group[patient]")
    codes = {"control": [1, 0], "patient": [0, 1], "relative": [-1, -1]}
    np.testing.assert_array_equal(covariates.values, [codes[group] for group in GROUPS])
    assert "group: categorical (control 2, patient 2, relative 2)" in covariates.warnings


def test_levels_stand_in_natural_order_and_columns_as_asked_for() -> None:
    assert coded(dose=("10 mg", "9 mg", "100 mg") * 2).levels["dose"] == ("9 mg", "10 mg", "100 mg")
    assert coded(group=GROUPS, age=AGES).columns == ("group[control]", "group[patient]", "age")
    np.testing.assert_array_equal(PATIENTS.row_of("05"), PATIENTS.values[4])
    with pytest.raises(KeyError):
        PATIENTS.row_of("07")


def test_no_covariates_are_no_columns() -> None:
    none = Covariates.none(iter(SIX))
    assert none.participants == SIX
    assert none.columns == none.session_columns == ()
    assert none.values.shape == (6, 0)
    assert none.row_of("03").shape == (0,)


@given(st.lists(finite, min_size=3, max_size=30).filter(lambda values: np.ptp(values) > 1e-3))
@examples()
def test_means_of_numeric_covariates_are_zero(values: list[float]) -> None:
    column = coded(score=values).values[:, 0]
    assert abs(column.mean()) <= 1e-12 * np.abs(values).max()
    np.testing.assert_allclose(np.ptp(column), np.ptp(values), atol=1e-9)


@given(groupings())
@examples()
def test_codes_of_the_levels_sum_to_zero_and_tell_every_level_apart(grouping: tuple[str, ...]) -> None:
    covariates = coded(group=grouping)
    levels = covariates.levels["group"]
    rows = [covariates.values[grouping.index(level)] for level in levels]
    np.testing.assert_array_equal(np.sum(rows, axis=0), 0)
    assert rank_of(np.column_stack([np.ones(len(levels)), rows])) == len(levels)
    # column sums are the sizes of the levels, each less that of the last level
    sizes = [grouping.count(level) for level in levels]
    np.testing.assert_array_equal(covariates.values.sum(axis=0), np.array(sizes[:-1]) - sizes[-1])


@given(groupings(), st.data())
@examples()
def test_another_order_of_participants_permutes_the_rows_only(grouping: tuple[str, ...], data: st.DataObject) -> None:
    n_participants = len(grouping)
    ages = data.draw(st.lists(st.integers(18, 90), min_size=n_participants, max_size=n_participants))
    names = [f"p{index}" for index in range(n_participants)]
    order = data.draw(st.permutations(range(n_participants)))

    def code(indices: Sequence[int]) -> Covariates | str:
        columns = {"age": [float(ages[index]) for index in indices], "group": [grouping[index] for index in indices]}
        try:
            return code_covariates([names[index] for index in indices], columns)
        except LevelError as error:
            return str(error).split("(")[0]

    straight, permuted = code(range(n_participants)), code(order)
    if isinstance(straight, str) or isinstance(permuted, str):  # a design refused in one order is so in the other
        assert straight == permuted
        return
    assert permuted.columns == straight.columns
    assert permuted.levels == straight.levels
    for name in names:
        np.testing.assert_allclose(permuted.row_of(name), straight.row_of(name), atol=1e-12)


# What a group contrast means --------------------------------------------------------------------------------


@given(groupings(), st.integers(0, 2**32 - 1))
@examples()
def test_contrasts_of_levels_are_those_of_the_group_means(grouping: tuple[str, ...], seed: int) -> None:
    covariates = coded(group=grouping)
    values = np.random.default_rng(seed).normal(size=len(grouping))
    levels = covariates.levels["group"]
    means = {level: np.mean([v for v, g in zip(values, grouping, strict=True) if g == level]) for level in levels}
    for contrast in resolve_group_contrasts(
        [f"own=`group[{levels[0]}]`", f"difference=`group[{levels[-1]}]` - `group[{levels[0]}]`", "intercept"],
        covariates,
    ):
        truth = {
            "own": means[levels[0]],
            "difference": means[levels[-1]] - means[levels[0]],
            "": np.mean(list(means.values())),
        }[contrast.label]
        assert estimated(contrast, covariates, values) == pytest.approx(truth, rel=1e-9, abs=1e-12)


def test_the_intercept_counts_levels_alike_however_many_participants_they_have() -> None:
    covariates = coded(group=("a",) * 4 + ("b",) * 2)
    values = np.array([1.0, 1, 1, 1, 4, 4])
    assert estimated("intercept", covariates, values) == pytest.approx(2.5)
    assert any("each level counting the same" in warning for warning in covariates.warnings)


def test_a_numeric_covariate_is_its_slope_with_the_others_held() -> None:
    values = 3 + 0.5 * np.array(AGES) + np.array([{"control": 0, "patient": 2, "relative": -1}[g] for g in GROUPS])
    assert estimated("age", PATIENTS, values) == pytest.approx(0.5)
    assert estimated("patient - control", PATIENTS, values) == pytest.approx(2)


@pytest.mark.parametrize("turned", [False, True])
def test_slopes_of_an_interaction_are_those_within_each_group(turned: bool) -> None:
    rng = np.random.default_rng(3)
    group, age = rng.permutation(np.repeat(["control", "patient", "relative"], [8, 9, 7])), rng.uniform(20, 60, 24)
    outcome = rng.normal(size=24)
    covariates = coded([("age", "group") if turned else ("group", "age")], group=group.tolist(), age=age)
    slope = {name: np.polyfit(age[group == name], outcome[group == name], 1)[0] for name in set(group)}
    level = {name: np.polyval(np.polyfit(age[group == name], outcome[group == name], 1), age.mean()) for name in slope}

    def of(name: str) -> str:
        return f"age:{name}" if turned else f"{name}:age"

    assert estimated(of("patient"), covariates, outcome) == pytest.approx(slope["patient"], rel=1e-9)
    difference = f"{of('patient')} - {of('control')}"
    assert estimated(difference, covariates, outcome) == pytest.approx(slope["patient"] - slope["control"], rel=1e-9)
    assert estimated("age", covariates, outcome) == pytest.approx(np.mean(list(slope.values())), rel=1e-9)
    # of the groups themselves: at the mean age
    found = estimated("patient - relative", covariates, outcome)
    assert found == pytest.approx(level["patient"] - level["relative"], rel=1e-9)
    assert estimated("intercept", covariates, outcome) == pytest.approx(np.mean(list(level.values())), rel=1e-9)
    asked = resolve_group_contrasts([], covariates)
    assert [contrast.text for contrast in asked][-3:] == [
        f"{of(later)} - {of(earlier)}"
        for earlier, later in (("control", "patient"), ("control", "relative"), ("patient", "relative"))
    ]
    assert {contrast.covariate for contrast in asked[-3:]} == {"age"}


def test_an_interaction_of_groups_is_a_difference_of_differences_of_cells() -> None:
    rng = np.random.default_rng(4)
    group, drug = np.repeat(["c", "p"], 12), np.tile(["a", "b", "d"], 8)
    outcome = rng.normal(size=24)
    covariates = coded([("group", "drug")], group=group.tolist(), drug=drug.tolist())
    mean = {(g, d): outcome[(group == g) & (drug == d)].mean() for g in "cp" for d in "abd"}
    asked = resolve_group_contrasts([], covariates)
    assert [contrast.text for contrast in asked][-3] == "p:b - p:a - c:b + c:a"
    expected = mean["p", "b"] - mean["p", "a"] - mean["c", "b"] + mean["c", "a"]
    assert estimated("p:b - p:a - c:b + c:a", covariates, outcome) == pytest.approx(expected, rel=1e-9)
    assert estimated("group[p]:drug[d]", covariates, outcome) == pytest.approx(mean["p", "d"], rel=1e-9)
    assert estimated("p - c", covariates, outcome) == pytest.approx(
        np.mean([mean["p", d] - mean["c", d] for d in "abd"]), rel=1e-9
    )


def test_an_interaction_of_numbers_is_a_numeric_covariate() -> None:
    rng = np.random.default_rng(5)
    age, score, outcome = rng.uniform(20, 60, 24), rng.normal(size=24), rng.normal(size=24)
    covariates = coded([("age", "score")], age=age, score=score)
    centred = np.column_stack([age - age.mean(), score - score.mean()])
    design = np.column_stack([np.ones(24), centred, centred.prod(axis=1)])
    expected = np.linalg.lstsq(design, outcome, rcond=None)[0]
    for text, value in zip(("intercept", "age", "score", "age:score"), expected, strict=True):
        assert estimated(text, covariates, outcome) == pytest.approx(value, rel=1e-9)
    assert [contrast.text for contrast in resolve_group_contrasts([], covariates)][-1] == "age:score"


def test_an_interaction_needs_its_parts_and_people_in_every_cell(tmp_path: Path) -> None:
    write_participants(tmp_path, {"group": GROUPS, "age": [str(age) for age in AGES], "sex": list("ffmmff")})
    with pytest.raises(CommandLineError, match=r"interaction of 'group' and 'age'.*--covariates group age group:age"):
        read_covariates(tmp_path, layout_of(6), ["group", "group:age"])
    with pytest.raises(LevelError, match=r"cannot be told apart|too few"):
        read_covariates(tmp_path, layout_of(6), ["group", "sex", "group:sex"])
    read = read_covariates(tmp_path, layout_of(6), ["sex", "age", "sex:age"])
    assert read.columns == ("sex[f]", "age", "sex[f]:age")
    assert any("at the mean of the other" in warning for warning in read.warnings)
    with pytest.raises(CommandLineError, match="sum to 2"):
        resolve_group_contrasts(["f:age + m:age"], read)


def test_everything_is_asked_by_default() -> None:
    contrasts = resolve_group_contrasts([], PATIENTS)
    assert [(contrast.label, contrast.text, contrast.weights) for contrast in contrasts] == [
        ("", "intercept", (1, 0, 0, 0)),
        ("age", "age", (0, 1, 0, 0)),
        ("patientMinusControl", "patient - control", (0, 0, -1, 1)),
        ("relativeMinusControl", "relative - control", (0, 0, -2, -1)),
        ("relativeMinusPatient", "relative - patient", (0, 0, -1, -2)),
    ]


def test_without_covariates_the_intercept_is_asked() -> None:
    assert resolve_group_contrasts([], Covariates.none(SIX)) == [GroupContrast("", "intercept", (1.0,))]


@pytest.mark.parametrize(
    ("specification", "label", "weights"),
    [
        ("intercept", "", (1, 0, 0, 0)),
        ("everyone=intercept", "everyone", (1, 0, 0, 0)),
        ("age", "age", (0, 1, 0, 0)),
        ("per decade = 10*age", "perDecade", (0, 10, 0, 0)),
        ("patient", "patient", (1, 0, 0, 1)),
        ("relative", "relative", (1, 0, -1, -1)),
        ("0.5*patient + 0.5*relative - control", "0p5TimesPatientPlus0p5TimesRelativeMinusControl", (0, 0, -1.5, 0)),
        ("group[patient] - group[control]", "groupPatientMinusGroupControl", (0, 0, -1, 1)),
        ("cases = `patient` - group[control]", "cases", (0, 0, -1, 1)),
    ],
)
def test_specification_gives_label_and_weights(specification: str, label: str, weights: tuple[float, ...]) -> None:
    contrast = asked(specification, PATIENTS)
    assert contrast.label == label
    assert contrast.weights == pytest.approx(weights)


@pytest.mark.parametrize(
    ("specification", "label"),
    [
        ("non-responder", "nonResponder"),  # alone, a name needs no backticks
        ("`non-responder` - responder", "nonResponderMinusResponder"),
        ("arm[non-responder] - arm[responder]", "armNonResponderMinusArmResponder"),
        ("score at entry", "scoreAtEntry"),
    ],
)
def test_unusual_names_can_be_written(specification: str, label: str) -> None:
    covariates = code_covariates(SIX, {"score at entry": AGES, "arm": ("responder", "non-responder", "responder") * 2})
    assert asked(specification, covariates).label == label


def test_a_level_of_two_covariates_must_say_whose_it_is() -> None:
    covariates = coded(smoker=("yes", "no") * 4, drinker=("yes", "yes", "no", "no") * 2)
    with pytest.raises(CommandLineError, match=r"'yes' is a level of 'smoker' and 'drinker'.*'smoker\[yes\]'"):
        asked("yes - no", covariates)
    assert [contrast.text for contrast in resolve_group_contrasts([], covariates)] == [
        "intercept", "smoker[yes] - smoker[no]", "drinker[yes] - drinker[no]",
    ]  # fmt: skip
    assert asked("drinker[yes] - drinker[no]", covariates).weights == (0, 0, -2)


def test_levels_called_like_something_else_are_asked_with_their_covariate() -> None:
    difference = resolve_group_contrasts([], coded(sex=("1", "2", "1", "2")))[1]
    assert (difference.text, difference.label) == ("sex[2] - sex[1]", "sex2MinusSex1")
    covariates = coded(age=AGES, reason=("age", "other") * 3)  # a numeric covariate has no other spelling
    assert asked("age", covariates).weights == (0, 1, 0)
    assert resolve_group_contrasts([], covariates)[2].text == "other - reason[age]"
    covariates = coded(pair=("a", "b", "a - b") * 2)
    assert asked("a - b", covariates).weights == (0, 2, 1)  # levels: a, a - b, b
    assert asked("pair[a - b]", covariates).weights == (1, 0, 1)


@given(groupings(), groupings())
@example(("intercept", "age", "a", "a"), ("a", "b", "b", "a"))
@examples()
def test_defaults_can_be_written_back_and_their_labels_are_letters_and_digits(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    """Or else they are refused with the remedy: names without letters, or two that give one label."""
    n_participants = min(len(one), len(other))
    columns = {"age": [float(17 * index % 23) for index in range(n_participants)], "1st": one[:n_participants]}
    try:
        covariates = code_covariates(
            [f"{index}" for index in range(n_participants)], columns | {"b]": other[:n_participants]}
        )
    except LevelError:
        return
    specifications = default_group_specifications(covariates)
    try:
        contrasts = resolve_group_contrasts([], covariates)
    except CommandLineError as error:
        assert "NAME=" in str(error)
        contrasts = resolve_group_contrasts([f"c{i}={text}" for i, text in enumerate(specifications)], covariates)
    assert len({contrast.label.lower() for contrast in contrasts}) == len(contrasts)
    for contrast in contrasts:
        assert contrast.label == "" or (contrast.label.isascii() and contrast.label.isalnum())
    pairs = [
        (covariate, later, earlier)
        for covariate, levels in covariates.levels.items()
        for index, earlier in enumerate(levels)
        for later in levels[index + 1 :]
    ]
    expected = sorted(tuple(_difference(covariates, *pair)) for pair in pairs)
    assert sorted(contrast.weights for contrast in contrasts[2:]) == expected


def _difference(covariates: Covariates, covariate: str, later: str, earlier: str) -> list[float]:
    """Weights of a difference of levels from the coding's definition."""
    last = covariates.levels[covariate][-1]
    weights = [0.0]
    for column in covariates.columns:
        inside = column.removeprefix(f"{covariate}[").removesuffix("]") if column.startswith(f"{covariate}[") else None
        signs = {later: 1.0, earlier: -1.0}
        own = signs.get(inside, 0.0) if inside is not None else 0.0
        weights.append(own - signs.get(last, 0.0) if inside is not None else 0.0)
    return weights


@given(st.text(max_size=40))
@example("`")
@example("__import__('os')")
@example("age[")
@example("=")
@examples()
def test_any_text_is_a_contrast_or_one_sentence(text: str) -> None:
    try:
        contrast = asked(text, PATIENTS)
    except CommandLineError as error:
        assert "\n" not in str(error)
    else:
        assert contrast.label == "" or (contrast.label.isascii() and contrast.label.isalnum())


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("iq", "names 'iq', which is neither a covariate nor a level of one.*'age'.*'control' and 'patient'"),
        ("group", "'group' is categorical.*such as 'patient - control'"),
        ("site", r"'site' is categorical, with the levels 'A', 'B' and 'C'. Name levels, such as 'B - A'"),
        ("patient - A", "mixes the covariates 'group' and 'site'"),
        ("age - control", "mixes the covariates 'age' and 'group'"),
        ("intercept + age", "'intercept' can only stand alone"),
        ("2*intercept", "the intercept with a weight needs a name"),
        ("0.5*A + 0.5*B", "its weights sum to 1"),
        ("A + B - C", "its weights sum to 1"),
        ("2*patient", "its weights sum to 2"),
        ("patient - group[patient]", "all its weights cancel to zero"),
        ("patient - patient", "all its weights cancel to zero"),
        ("age * age", "multiplies two names"),
        ("patient -", "ends where a name or a number should follow"),
        ("=age", "the name before '=' has no letter or digit"),
        ("+=age", "the name before '=' has no letter or digit"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(specification: str, message: str) -> None:
    with pytest.raises(CommandLineError, match=message):
        asked(specification, STUDY)


def test_the_same_contrast_twice_is_one() -> None:
    assert len(resolve_group_contrasts(["age", "age", "AGE=age"], PATIENTS)) == 1


@pytest.mark.parametrize(
    ("covariates", "asked_for", "message"),
    [
        (Covariates.none(SIX), ["age"], r"no covariates are analysed.*--covariates"),
        (PATIENTS, ["x=age", "x=patient - control"], "'age' and 'patient - control' would both be called 'x'.*NAME="),
        # aB and ab are one file on some file systems
        (code_covariates(SIX, {"a-b": AGES, "ab": (3, 1, 4, 1, 5, 9)}), [], "'`a-b`' and 'ab' would both be called"),
        (code_covariates(SIX, {"年齢": AGES}), [], "'年齢' has no letter from a to z"),
    ],
    ids=["no-covariates", "one-name", "case", "no-latin-letter"],
)
def test_contrasts_without_a_name_of_their_own_are_refused(
    covariates: Covariates, asked_for: list[str], message: str
) -> None:
    with pytest.raises(CommandLineError, match=message):
        resolve_group_contrasts(asked_for, covariates)


def test_a_name_for_files_can_be_given() -> None:
    named = resolve_group_contrasts(
        ["ab", "other=`a-b`"], code_covariates(SIX, {"a-b": AGES, "ab": (3, 1, 4, 1, 5, 9)})
    )
    assert [contrast.label for contrast in named] == ["ab", "other"]
    assert asked("age=年齢", code_covariates(SIX, {"年齢": AGES})) == GroupContrast("age", "年齢", (0.0, 1.0))


# Designs that cannot tell covariates apart ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": (31.1,) * 6}, r"'age' has the same value \(31.1\) for all 6 participants"),
        ({"age": (0.0,) * 6}, r"'age' has the same value \(0\) for all 6"),
        ({"age": (0.1 + 0.2, 0.3, 0.3, 0.3)}, "'age' has the same value"),
        ({"group": ("control",) * 6}, r"'group' has one level only \('control'\) among the 6"),
        ({"name": ("a", "b", "c", "d")}, "'name' has a different value for each of the 4 participants"),
        ({"age": AGES, "months": [12 * age for age in AGES]}, "'months' is a combination of 'age'"),
        ({"age": AGES, "born": [1990.5 - age for age in AGES]}, "'born' is a combination of 'age'"),
        ({"a": (1, 2, 4, 8, 16, 1), "b": (3, 1, 4, 1, 5, 9), "sum": (4, 3, 8, 9, 21, 10)}, "'sum' is a combination of 'a' and 'b'"),
        ({"group": GROUPS, "is_patient": (0, 1, 0, 1, 0, 0)}, r"'is_patient' is a combination of 'group\[control\]' and 'group\[patient\]'|'is_patient' is a combination of 'group\[patient\]'"),
        ({"group": ("a", "b") * 3, "site": ("x", "y") * 3}, r"'site\[x\]' is a combination of 'group\[a\]'.*Leave one"),
        ({"age": (20, 30)}, "2 participants with complete values are too few for a group design of 2 columns"),
        ({"age": AGES[:4], "a": (1, 2, 4, 8), "b": (3, 1, 4, 1)}, "4 participants.*too few.*4 columns"),
        ({"age": (1e308, 1e308, -1e308, 1e307)}, "'age' has numbers too large"),
        ({"intercept": AGES}, "'intercept' would mean two things"),
        ({"group": GROUPS, "group[patient]": AGES}, r"'group\[patient\]' would mean two things"),
        ({"a`b": AGES}, "contains a backtick"),
    ],
)  # fmt: skip
def test_a_design_without_an_answer_is_refused_by_name(
    columns: dict[str, Sequence[float] | Sequence[str]], message: str
) -> None:
    with pytest.raises(LevelError, match=message):
        coded(**columns)


@pytest.mark.parametrize("number", [5.0, 0.0])
def test_a_covariate_of_sessions_that_is_the_same_everywhere_is_refused(number: float) -> None:
    values = {(participant, session): (number,) for participant in SIX for session in "12"}
    message = rf"'x' has the same value \({number:g}\) for all 12 sessions analysed.*out of --session-covariates"
    with pytest.raises(LevelError, match=message):
        code_covariates(SIX, {}, session_columns=("x",), session_values=values)


@given(st.floats(1e-140, 1e140), st.floats(-1e3, 1e3), st.integers(0, 2**32 - 1))
@examples()
def test_units_and_offsets_of_a_covariate_do_not_decide_whether_it_is_estimable(
    unit: float, offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 8))
    covariates = code_covariates(
        [str(index) for index in range(8)], {"one": one, "other": (unit * (other + offset)).tolist()}
    )
    assert covariates.columns == ("one", "other")
    with pytest.raises(LevelError, match="'copy' is a combination of 'one'"):
        code_covariates([str(index) for index in range(8)], {"one": one, "copy": (unit * (one + offset)).tolist()})


# participants.tsv -------------------------------------------------------------------------------------------


def test_numbers_are_numeric_and_text_is_categorical(tmp_path: Path) -> None:
    write_participants(
        tmp_path, {"age": ("20", "31.5", "2.5e1", "44"), "group": ("patient", "control") * 2, "unused": ("?",) * 4}
    )
    covariates = read_covariates(tmp_path, layout_of(4), ["age", "group", "age"])
    assert covariates.participants == ("01", "02", "03", "04")
    assert covariates.columns == ("age", "group[control]")
    np.testing.assert_allclose(covariates.values, [[-10.125, -1], [1.375, 1], [-5.125, -1], [13.875, 1]])
    assert covariates.left_out == {}
    assert covariates.warnings[:2] == ("age: numeric, centred at 30.125", "group: categorical (control 2, patient 2)")
    # only participants analysed decide what a column is
    write_participants(tmp_path, {"age": ("20", "30", "40", "old")})
    assert read_covariates(tmp_path, layout_of(3), ["age"]).columns == ("age",)
    nothing = read_covariates(tmp_path, layout_of(3), [])
    assert (nothing.participants, nothing.values.shape) == (("01", "02", "03"), (3, 0))


def test_rows_are_found_by_participant_whatever_their_order_and_prefix(tmp_path: Path) -> None:
    rows = [["age", "participant_id"], ["3", "03"], ["99", "sub-07"], ["1", "sub-01"], ["5", "02"]]
    write_tsv(tmp_path / "participants.tsv", rows)
    covariates = read_covariates(tmp_path, {"02": ("",), "01": ("",), "03": ("",)}, ["age"])
    assert covariates.participants == ("02", "01", "03")
    np.testing.assert_allclose(covariates.values[:, 0], [2, -2, 0])


SEX = {"sex": ("1", "2", "1", "2")}


@pytest.mark.parametrize(
    ("columns", "levels", "coded_as"),
    [
        (SEX, {"sex": ("1", "2")}, ("sex[1]",)),
        (SEX, {"sex": ()}, ("sex",)),
        # no participant has the level described of age
        ({"age": ("20", "30", "40", "60")}, {"age": ("90+",)}, ("age",)),
        ({"sex": ("1.0", "2.0", "1.0", "2.0")}, {"sex": ("1", "2")}, ("sex[1.0]",)),
        # NA may be North America
        ({"continent": ("NA", "EU", "NA", "EU")}, {"continent": ("NA", "EU")}, ("continent[EU]",)),
        *(({"scanner": cells}, {}, tuple(f"scanner[{level}]" for level in sorted(set(cells))[:-1]))
          for cells in (("3T", "7T") * 3, ("1st", "2nd", "old") * 2, ("1", "old", "young") * 2)),
    ],
)  # fmt: skip
def test_values_are_levels_where_the_sidecar_says_so_or_numbers_are_few(
    tmp_path: Path, columns: Levels, levels: Levels, coded_as: tuple[str, ...]
) -> None:
    covariates = read(tmp_path, columns, levels)
    assert covariates.columns == coded_as
    assert covariates.left_out == {}
    is_described = "sex: categorical (1 2, 2 2), because participants.json describes its values as levels"
    assert (is_described in covariates.warnings) is (coded_as == ("sex[1]",))


def test_a_sidecar_of_odd_shape_describes_nothing(tmp_path: Path) -> None:
    write_participants(tmp_path, {"age": ("20", "30", "44"), "sex": ("1", "2", "1")})
    (tmp_path / "participants.json").write_text('{"age": "in years", "sex": {"Levels": [1, 2]}}')
    assert read_covariates(tmp_path, layout_of(3), ["age"]).columns == ("age",)
    assert read_covariates(tmp_path, layout_of(3), ["sex"]).columns == ("sex[1]",)


@pytest.mark.parametrize(
    "odd", ["old", "25y", "25 years", "1,200.50", "1,200", "31,2", "75%", "75.5 %", "90+", "<18", "1_0", "inf", "0x1f"]
)
def test_a_text_among_numbers_is_refused_with_line_and_cell_and_either_remedy_works(tmp_path: Path, odd: str) -> None:
    cells = ("20", "20", "40", "40", odd, "20")
    for levels in ({}, {"age": (odd,)}):  # describing that one alone makes no levels of numbers
        with pytest.raises(LevelError) as caught:
            read(tmp_path, {"age": cells}, levels)
        path = tmp_path / "participants.tsv"
        assert f"{path}, column 'age', line 6 (sub-05): '{odd}' is not a number" in str(caught.value)
        assert "5 of the column's 6 values are numbers" in str(caught.value)
    assert set(read(tmp_path, {"age": cells}, {"age": cells}).levels["age"]) == {"20", "40", odd}
    assert read(tmp_path, {"age": ("20", "20", "40", "40", "n/a", "20")}).numeric == ("age",)


@pytest.mark.parametrize("cells", [("75%", "50%") * 3, ("1,200", "1,300") * 3, ("20,5", "31,2") * 3])
def test_numbers_with_percent_signs_or_commas_are_refused_also_where_all_are(
    tmp_path: Path, cells: Sequence[str]
) -> None:
    with pytest.raises(LevelError, match=f"column 'score', line 2 \\(sub-01\\): '{cells[0]}' is not a number, as it"):
        read(tmp_path, {"score": cells})
    assert read(tmp_path, {"score": cells}, {"score": cells}).levels["score"] == tuple(sorted(set(cells)))


@pytest.mark.parametrize("group", ["patient", "3"])
@pytest.mark.parametrize("sign", ["NA", "na", "NaN", "nan", ".", "null", "NULL", "#N/A", "<NA>"])
def test_the_usual_signs_of_missing_are_missing_counted_and_named(tmp_path: Path, sign: str, group: str) -> None:
    others = ("control", "patient") if group == "patient" else ("4", "3.5")
    covariates = read(tmp_path, {"x": (group, *others, sign, group, others[0], sign)})
    assert covariates.participants == ("01", "02", "03", "05", "06")
    assert covariates.left_out == dict.fromkeys(("04", "07"), "has no value of 'x' in participants.tsv")
    assert (
        f"x: '{sign}' in participants.tsv is taken as a missing value, 2 times (sub-04, sub-07). Write n/a for what is "
        "missing"
    ) in covariates.warnings
    assert (covariates.numeric == ("x",)) is (group == "3")


@pytest.mark.parametrize("sign", ["-", "--", "none", "None", "unknown", "?", "missing"])
def test_what_may_be_a_level_is_missing_among_numbers_and_a_level_with_a_warning_among_text(
    tmp_path: Path, sign: str
) -> None:
    covariates = read(tmp_path, {"dose": ("20", "30", sign, "50", "33")})
    assert (covariates.numeric, covariates.participants) == (("dose",), ("01", "02", "04", "05"))
    assert any(
        f"'{sign}' in participants.tsv is taken as a missing value" in warning for warning in covariates.warnings
    )
    covariates = read(tmp_path, {"drug": ("a", sign, "b", "a", sign)})
    assert sign in covariates.levels["drug"]
    assert any(f"'{sign}' is a level like any other" in warning for warning in covariates.warnings)


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("patient", "Patient"), ("True", "TRUE"), ("True", "1"), ("FALSE", "0"), ("yes", "Y"), ("Male", "M"),
        ("drug a", "drug  a"), ("drug a", "drug\u00a0a"), ("drug_a", "drug a"), ("pre-term", "pre\u2013term"),
        ("Ａ", "A"), ("a\u200b", "a"), ("straße", "STRASSE"), ("01", "1"), ("1.0", "1"),
    ],
)  # fmt: skip
def test_one_level_in_two_spellings_is_refused_with_both_places(tmp_path: Path, spelling: str, other: str) -> None:
    columns = {"group": (spelling, "x", "x", other, "y", "y", "z")}
    with pytest.raises(LevelError) as caught:
        read(tmp_path, columns)
    place = f"{tmp_path / 'participants.tsv'}, column 'group', line 5 (sub-04): "
    said = f"{place}'{other}' is another spelling of '{spelling}' (line 2, sub-01)"
    assert said.replace("\u00a0", " ").replace("\u200b", " ") in str(caught.value)
    assert len(read(tmp_path, columns, columns).levels["group"]) == 5


def test_a_byte_order_mark_quotes_spaces_and_accents_do_not_matter(tmp_path: Path) -> None:
    rows = [
        ["participant_id", "a\u0302ge ", '"groupe de soin"'],
        ["sub-01", "20 ", '"soigne\u0301 "'],
        ["sub-02 ", " 30", "soign\u00e9"],
        ["sub-03", "41", "t\u00e9moin\u00a0"],
        ["sub-04", "47", "t\u00e9moin"],
    ]
    write_tsv(tmp_path / "participants.tsv", rows, encoding="utf-8-sig")
    covariates = read_covariates(tmp_path, layout_of(4), ["\u00e2ge", "groupe de soin"])
    assert covariates.levels == {"groupe de soin": ("soign\u00e9", "t\u00e9moin")}
    contrasts = resolve_group_contrasts([], covariates)
    assert [contrast.label for contrast in contrasts] == ["", "age", "temoinMinusSoigne"]
    assert asked("te\u0301moin - soigne\u0301", covariates).weights == contrasts[2].weights


@pytest.mark.parametrize("missing", ["n/a", "N/A", "", " ", "n/a "])
def test_participants_without_a_value_or_a_row_are_left_out_and_listed(tmp_path: Path, missing: str) -> None:
    columns = {"age": ("20", "30", missing, "50", "33"), "group": ("a", "b", missing if missing else "c", "a", "b")}
    write_participants(tmp_path, columns)
    covariates = read_covariates(tmp_path, layout_of(6), ["age", "group"])
    assert covariates.participants == ("01", "02", "04", "05")
    what = "'age' or 'group'" if missing else "'age'"
    assert covariates.left_out == {
        "03": f"has no value of {what} in participants.tsv", "06": "has no row in participants.tsv",
    }  # fmt: skip
    np.testing.assert_allclose(covariates.values[:, 0].mean(), 0, atol=1e-12)
    assert "age: numeric, centred at 33.25" in covariates.warnings
    assert covariates.levels["group"] == ("a", "b"), "those of the participants left in"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": ("n/a",) * 5}, "None of the 5 participants analysed have complete values of 'age'.*at least two: "
                                "sub-01 has no value of 'age'.*and 2 more"),
        ({"age": ("20", *("n/a",) * 4)}, "1 of the 5 participants analysed has complete values of 'age'.*at least two: "
                                         "sub-02 has no value of 'age'.*and 1 more"),
        ({"code": ("20", "x31", "old", "44")}, "different value for each of the 4 participants.*'x31' is not a number"),
        ({"smoker": ("True", "TRUE", "1", "False", "FALSE", "0")}, "'TRUE' is another spelling of 'True'"),
    ],
)  # fmt: skip
def test_columns_without_an_answer_are_refused(tmp_path: Path, columns: Levels, message: str) -> None:
    with pytest.raises(LevelError, match=message):
        read(tmp_path, columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("participants.tsv", None, r"participants\.tsv does not exist.*leave out --covariates"),
        ("participants.tsv", b"participant_id,age\nsub-01,20\n", "separated by commas"),
        ("participants.tsv", b"", "cannot be read"),
        ("participants.tsv", b"participant_id\tage\nsub-01\t\xff\xfe\n", "cannot be read"),
        ("participants.tsv", b"name\tage\nsub-01\t20\n", "has no column 'participant_id'"),
        ("participants.tsv", b"participant_id\tage\nsub-01\t20\nsub-02\t30\n01\t21\n", "line 4: sub-01 has a second row"),
        ("participants.tsv", b"participant_id\tage\tage \nsub-01\t20\t1\n", "has 2 columns called 'age'"),
        ("participants.tsv", "link", r"participants\.tsv is a link to data that are not there.*Get the file.*datalad get"),
        ("participants.json", "link", r"participants\.json is a link to data that are not there.*Get the file"),
        *(("participants.json", content, r"participants\.json") for content in (b"{", b"[1]", b"\xff", b"[" * 100_000)),
        ("sub-01/sub-01_sessions.tsv", "link", r"sub-01_sessions\.tsv is a link to data that are not there.*datalad get"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_an_error_of_the_level(
    tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    write_participants(tmp_path, {"age": ("20", "30", "44")})
    (tmp_path / "sub-01").mkdir()
    (tmp_path / name).unlink(missing_ok=True)
    if content == "link":
        (tmp_path / name).symlink_to(".git/annex/objects/absent")
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    names, session_names = (["age"], []) if name.startswith("participants") else ([], ["days"])
    with pytest.raises(LevelError, match=message):
        read_covariates(tmp_path, layout_of(3), names, session_names)


def test_columns_that_are_not_there_or_there_twice_matter_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = [
        ["participant_id", "age", "group", "age "],
        *([f"sub-0{row}", str(row**2), "ab"[row % 2], "1"] for row in range(1, 5)),
    ]
    path = write_tsv(tmp_path / "participants.tsv", rows)
    assert read_covariates(tmp_path, layout_of(4), ["group"]).columns == ("group[a]",)
    with pytest.raises(CommandLineError, match=r"has no column 'iq' \(columns: participant_id, age, group") as caught:
        read_covariates(tmp_path, layout_of(2), ["iq"])
    assert str(path) in str(caught.value)


@pytest.mark.slow
def test_messages_name_some_of_many_columns(tmp_path: Path) -> None:
    names = [f"score{number}" for number in range(5000)]
    columns = {"age": ("20", "n/a", "n/a")} | dict.fromkeys(names, ("n/a", "1", "2"))
    said = r"'score38' and 4,961 more, and a group design.*'score39' and 4,960 more in"
    with pytest.raises(LevelError, match=said) as caught:
        read(tmp_path, columns)
    assert len(str(caught.value)) < 4100


# sub-XX_sessions.tsv ----------------------------------------------------------------------------------------


def test_values_of_sessions_are_read_as_they_stand(tmp_path: Path) -> None:
    write_sessions(tmp_path, "01", {"days": ("0", "7.5"), "score": ("3", "9")})
    write_tsv(
        tmp_path / "sub-02" / "sub-02_sessions.tsv",
        [["score", "session_id", "days"], ["8", "02", "14"], ["4", "ses-01", "0"], ["many", "03", "n/a"]],
    )
    covariates = read_covariates(tmp_path, layout_of(2), [], ["days", "score"])
    assert covariates.session_columns == ("days", "score")
    assert covariates.session_values == {
        ("01", "01"): (0, 3), ("01", "02"): (7.5, 9), ("02", "01"): (0, 4), ("02", "02"): (14, 8),
    }  # fmt: skip
    assert covariates.columns == ()
    assert covariates.warnings == ("days: numeric, by session, from 0 to 14", "score: numeric, by session, from 3 to 9")


def test_participants_without_values_of_a_session_with_a_map_are_left_out_and_listed(tmp_path: Path) -> None:
    write_participants(tmp_path, {"age": ("20", "31", "25", "n/a", "44", "23", "35")})
    for participant in ("01", "02"):
        write_sessions(tmp_path, participant, {"days": ("0", "7")})
    for participant in ("03", "05"):
        write_sessions(tmp_path, participant, {"days": ("0", "n/a")})
    write_sessions(tmp_path, "04", {"days": ("0",)})
    write_sessions(tmp_path, "07", {"other": ("0", "7")})
    covariates = read_covariates(tmp_path, layout_of(7) | {"05": ("01",)}, ["age"], ["days"])
    assert covariates.participants == ("01", "02", "05")
    assert covariates.left_out == {
        "03": "has no value of 'days' for ses-02 in sub-03_sessions.tsv",
        "04": "has no value of 'age' in participants.tsv and has no row of ses-02 in sub-04_sessions.tsv",
        "06": "has no sub-06_sessions.tsv",
        "07": "has no column 'days' in sub-07_sessions.tsv",
    }
    assert set(covariates.session_values) == {("01", "01"), ("01", "02"), ("02", "01"), ("02", "02"), ("05", "01")}


@pytest.mark.parametrize("sign", ["NA", "NaN", ".", "-", "null", "unknown"])
def test_signs_of_missing_among_sessions_are_missing_counted_and_named(tmp_path: Path, sign: str) -> None:
    for participant in ("01", "02", "03"):
        write_sessions(tmp_path, participant, {"days": ("0", sign if participant == "02" else "7")})
    covariates = read_covariates(tmp_path, layout_of(3), [], ["days"])
    assert covariates.left_out == {"02": "has no value of 'days' for ses-02 in sub-02_sessions.tsv"}
    assert (
        f"days: '{sign}' in sub-XX_sessions.tsv is taken as a missing value, 1 time (sub-02 ses-02). Write n/a for what "
        "is missing"
    ) in covariates.warnings


DAYS = [["session_id", "days"], ["ses-01", "0"], ["02", "7"]]


@pytest.mark.parametrize(
    ("rows", "layout", "columns", "error", "message"),
    [
        (None, layout_of(2), ([], ["days"]), LevelError, "No participant analysed has a table"),
        (DAYS, layout_of(2), ([], ["score"]), CommandLineError,
         r"sub-01_sessions.tsv has no column 'score' \(columns: session_id, days\)"),
        (DAYS, {"01": ("",), "02": ("",)}, ([], ["days"]), CommandLineError, "belong to no sessions"),
        (DAYS, layout_of(2), (["days"], ["days"]), CommandLineError, "'days' is named by --covariates and by --session"),
        ([*DAYS, ["ses-01", "1"]], layout_of(2), ([], ["days"]), LevelError, "sub-01_sessions.tsv, line 4: ses-01 has a second"),
        ([["session_id", "intercept"], ["01", "0"], ["02", "7"]], layout_of(2), ([], ["intercept"]), LevelError,
         "'intercept' would mean two things"),
        *(([*DAYS[:2], ["02", cell]], layout_of(2), ([], ["days"]), LevelError,
           f"sub-01_sessions.tsv, column 'days', line 3 .ses-02.: '{cell}' is not")
          for cell in ("late", "7,5", "inf", "7 days")),
    ],
)  # fmt: skip
def test_what_sessions_cannot_have_is_an_error(
    tmp_path: Path, rows: Sequence[Sequence[str]] | None, layout: dict[str, Sequence[str]],
    columns: tuple[list[str], list[str]], error: type[Exception], message: str,
) -> None:  # fmt: skip
    if rows is not None:
        for participant in ("01", "02"):
            write_tsv(tmp_path / f"sub-{participant}" / f"sub-{participant}_sessions.tsv", rows)
    with pytest.raises(error, match=message):
        read_covariates(tmp_path, layout, *columns)


def test_the_intercept_may_have_a_weight_under_a_name_of_its_own() -> None:
    (contrast,) = resolve_group_contrasts(["negative=-1*intercept"], Covariates.none(["01", "02"]))
    assert (contrast.label, contrast.weights) == ("negative", (-1.0,))


# F tests ----------------------------------------------------------------------------------------------------

THREE = code_covariates(SIX, {"age": AGES, "arm": ("a", "b", "c") * 2})


def test_an_f_test_has_the_weights_of_its_rows() -> None:
    found = asked("F:any arm = a - b; `b` - c", THREE)
    rows = tuple(asked(text, THREE).weights for text in ("a - b", "b - c"))
    assert found == GroupContrast("anyArm", "a - b; `b` - c", (), tested=rows)
    assert found.is_f_test
    assert found.columns == {2, 3}
    assert asked("F:x = intercept; age", THREE).tested == ((1, 0, 0, 0), (0, 1, 0, 0))


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("F: a - b; b - c", "without a name"),
        ("F:x = a - b; b - c; a - c", "its rows depend on each other"),
        ("F:x = a - b; age - b", "mixes the covariates"),
        ("F:x = a - b; a - d", "names 'd', which is neither"),
    ],
)
def test_an_f_test_that_cannot_be_asked_is_refused(specification: str, message: str) -> None:
    with pytest.raises(CommandLineError, match=message):
        asked(specification, THREE)

"""Covariates of participants and sessions: how they enter a group design, and what is asked about them.

Vocabulary
----------
covariate
    A property of participants (age, group) or of a participant's sessions (days since baseline), as named by the user.
level
    One value of a categorical covariate.
column
    A coded covariate in the design: one for a numeric covariate, L − 1 for a categorical one with L levels.
interaction
    Products of the columns of two covariates, `group:age`: how the effect of one differs with the other.
group contrast
    What is asked about the participants: their `intercept`, the effect of a numeric covariate, a difference of levels,
    or of what an interaction tells apart (`patient:age - control:age`, a difference of slopes). An F test,
    `F:NAME = a - b; b - c`, asks whether several of these, its rows, are all zero.

Numeric covariates are centred and categorical ones sum-coded, so that the intercept keeps its meaning whatever
covariates stand beside it: the mean over levels, each counting the same, at the mean of the numeric covariates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.expressions import NAME, ExpressionError, check_rows, parse_expression, split_f_test, split_name
from sessionfx.errors import CommandLineError, LevelError
from sessionfx.statistics.linear_algebra import independent_columns
from sessionfx.wording import composed, is_number, listed, natural_key, quoted, words_to_label

INTERCEPT = "intercept"

# A difference this small, relative to the values, is what rounding leaves of equal ones.
CONSTANT_TOLERANCE = 1e-12
# The squares of larger numbers overflow in a fit.
LARGEST_NUMBER = 1e150
# In a column of text these may be levels (no drug, an unknown genotype); a column of numbers takes them as missing.
LOOKS_MISSING = frozenset({"none", "nil", "missing", "unknown", "-", "--", "?"})

_PLAIN_NAME = re.compile(NAME)
_QUALIFIED = rf"{NAME}\[[^\]`]*\]"
_PART = rf"(?:{_QUALIFIED}|{NAME})"
# names that expressions do not know: group[patient], group:age, patient:age
_SPECIAL_NAME = re.compile(rf"`[^`]*`|{_PART}:{_PART}|{_QUALIFIED}")


@dataclass(frozen=True)
class Covariates:
    """Covariates of the participants who have all of them."""

    participants: tuple[str, ...]  # the n participants with complete values, in the order given
    # names of the Q columns: `age` for a numeric covariate, `group[patient]` for a level of a categorical one
    columns: tuple[str, ...]
    # (n, Q): numeric covariates centred over these participants, categorical ones sum-coded (the last level is −1 in
    # each of its covariate's columns)
    values: NDArray[np.float64]
    # levels of each categorical covariate, in natural order
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    interactions: tuple[tuple[str, str], ...] = ()  # pairs of covariates whose columns are multiplied
    session_columns: tuple[str, ...] = ()  # names of the R covariates of sessions
    # their R values as they stand in the files, by participant and session
    session_values: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    # participants left out, and why: a phrase that continues `sub-03 …`
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what a reader should know of how each is coded

    @classmethod
    def none(cls, participants: Iterable[str]) -> Covariates:
        """Make the covariates of participants for whom none were asked: no columns."""
        participants = tuple(participants)
        return cls(participants, (), np.empty((len(participants), 0)))

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric covariates of participants, products of two of them included."""
        coded = {_qualified(covariate, level) for covariate, levels in self.levels.items() for level in levels}
        coded |= {":".join(columns) for pair in self.interactions if any(part in self.levels for part in pair)
                  for columns in _pairs_of_columns(*pair, self.levels)}  # fmt: skip
        return tuple(column for column in self.columns if column not in coded)

    def row_of(self, participant: str) -> NDArray[np.float64]:
        """Coded values of a participant, shape (Q,).

        Raises
        ------
        KeyError
            For a participant who is not among `participants`.
        """
        row: NDArray[np.float64] = self.values[self._rows[participant]]
        return row

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {label: row for row, label in enumerate(self.participants)}


@dataclass(frozen=True)
class GroupContrast:
    """One question about the participants."""

    label: str  # label in file names, of ASCII letters and digits; empty for the intercept
    text: str  # as written, for people
    weights: tuple[float, ...]  # over the intercept and the Q columns of the covariates; empty for an F test
    # the numeric covariate that an effect is per unit of; empty for levels, the intercept and F tests
    covariate: str = field(default="", compare=False)
    tested: tuple[tuple[float, ...], ...] = ()  # weights of the rows of an F test; empty for a t test

    @property
    def is_f_test(self) -> bool:
        """Whether it asks if all of its rows are zero."""
        return bool(self.tested)

    @property
    def columns(self) -> frozenset[int]:
        """Columns with a weight in some row, by their number; 0 is the intercept."""
        return frozenset(at for row in self.tested or (self.weights,) for at, weight in enumerate(row) if weight)


# Coding -----------------------------------------------------------------------------------------------------


def sum_codes(n_levels: int) -> NDArray[np.float64]:
    """Code the levels of a categorical covariate so that the codes of its levels sum to zero.

    Returns
    -------
    ndarray of shape (n_levels, n_levels − 1)
        The identity, and a last row of −1.
    """
    return np.vstack([np.eye(n_levels - 1), -np.ones((1, n_levels - 1))])


def code_covariates(
    participants: Sequence[str],
    values: Mapping[str, Sequence[float] | Sequence[str]],
    *,
    why_categorical: Mapping[str, str] | None = None,
    interactions: Sequence[tuple[str, str]] = (),
    session_columns: Sequence[str] = (),
    session_values: Mapping[tuple[str, str], tuple[float, ...]] | None = None,
    left_out: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> Covariates:
    """Code covariates as columns of a design and make sure that the participants tell the columns apart.

    Parameters
    ----------
    participants : sequence of str
        The n participants with complete values.
    values : mapping of str to sequence
        For each covariate n numbers, or n texts where it is categorical.
    why_categorical : mapping of str to str, optional
        Why a covariate is not numeric, a phrase for warnings and errors (`'31,2' is not a number`).
    interactions : sequence of (str, str)
        Pairs of the covariates; their products come after them.
    session_columns, session_values, left_out, warnings
        As in `Covariates`; what is to be said of the coding is added to the warnings.

    Raises
    ------
    LevelError
        If a covariate of participants or sessions does not vary, a categorical one has a level per participant,
        participants are too few, or columns are combinations of others.
    """
    why_categorical = why_categorical or {}
    columns: dict[str, NDArray[np.float64]] = {}
    levels_of: dict[str, tuple[str, ...]] = {}
    of_coding: list[str] = []
    names = [INTERCEPT]
    for written, cells in values.items():
        covariate = composed(written)
        texts = [composed(cell) for cell in cells if isinstance(cell, str)]
        if texts:
            _check_levels(covariate, texts, why_categorical.get(written, "it holds text"))
            levels = tuple(sorted(set(texts), key=natural_key))
            codes = sum_codes(len(levels))[[levels.index(text) for text in texts]]
            coded = [_qualified(covariate, level) for level in levels]
            columns |= dict(zip(coded[:-1], codes.T, strict=True))
            levels_of[covariate] = levels
            names += [covariate, *coded]
            of_coding += _warnings_on_levels(covariate, texts, levels, why_categorical.get(written, ""))
        else:
            numbers = np.asarray(cells, dtype=float)
            _check_numbers(covariate, numbers, f"{len(numbers)} participants with complete values", "--covariates")
            columns[covariate] = numbers - numbers.mean()
            names.append(covariate)
            of_coding.append(f"{covariate}: numeric, centred at {numbers.mean():g}")
    for first, second in interactions:
        names.append(f"{first}:{second}")
        for one_column, other_column in _pairs_of_columns(first, second, levels_of):
            columns[f"{one_column}:{other_column}"] = columns[one_column] * columns[other_column]
        of_coding.append(
            f"{first}:{second}: interaction; what is asked of '{first}' or '{second}' alone is at the mean of the other"
        )
    for name, numbers in zip(session_columns, np.array([*(session_values or {}).values()]).T, strict=True):
        _check_numbers(name, numbers, f"{len(numbers)} sessions analysed", "--session-covariates")
    _check_names([*names, *session_columns])
    if levels_of:
        of_coding.append(
            f"The intercept is the mean over the levels of {quoted(levels_of)}, each level counting the same however "
            "many participants it has"
        )
    coded_values = np.column_stack(list(columns.values())) if columns else np.empty((len(participants), 0))
    _check_rank(coded_values, tuple(columns))
    return Covariates(
        participants=tuple(participants),
        columns=tuple(columns),
        values=coded_values,
        levels=levels_of,
        interactions=tuple(interactions),
        session_columns=tuple(session_columns),
        session_values=dict(session_values or {}),
        left_out=dict(left_out or {}),
        warnings=(*of_coding, *warnings),
    )


def _qualified(covariate: str, level: str) -> str:
    return f"{covariate}[{level}]"


def _pairs_of_columns(first: str, second: str, levels: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, str]]:
    """Pair the coded columns of two covariates."""
    own, others = (
        [_qualified(name, level) for level in levels[name][:-1]] if name in levels else [name]
        for name in (first, second)
    )
    return product(own, others)


def _check_numbers(covariate: str, numbers: NDArray[np.float64], of_what: str, option: str) -> None:
    largest = np.abs(numbers).max(initial=0.0)
    if largest > LARGEST_NUMBER:
        raise LevelError(
            f"The covariate '{covariate}' has numbers too large to compute with (up to {largest:g}). Correct them, or "
            "write the column in other units."
        )
    # before centring, which leaves of equal numbers a rounding error that looks like a column of its own
    if np.ptp(numbers) <= CONSTANT_TOLERANCE * largest:
        raise LevelError(
            f"The covariate '{covariate}' has the same value ({numbers[0]:g}) for all {of_what}, so its effect cannot "
            f"be estimated. Leave it out of {option}."
        )


def _check_levels(covariate: str, texts: Sequence[str], why_categorical: str) -> None:
    counts = Counter(texts)
    if len(counts) == 1:
        raise LevelError(
            f"The covariate '{covariate}' has one level only ('{texts[0]}') among the {len(texts)} participants with "
            "complete values, so there is no difference to estimate. Leave it out of --covariates."
        )
    if len(counts) == len(texts):
        raise LevelError(
            f"The covariate '{covariate}' has a different value for each of the {len(texts)} participants, so it "
            f"cannot be categorical, and it is not numeric because {why_categorical}. Correct the values (a number is "
            "written with a decimal point, a missing value n/a), or leave the covariate out of --covariates."
        )


def _warnings_on_levels(
    covariate: str, texts: Sequence[str], levels: Sequence[str], why_categorical: str
) -> Iterable[str]:
    counts = Counter(texts)
    described = f"{covariate}: categorical ({listed([f'{level} {counts[level]}' for level in levels])})"
    # why is a surprise only where somebody might have meant numbers
    if why_categorical and any(is_number(level) for level in levels):
        described += f", because {why_categorical}"
    yield described
    for level in levels:
        if level.casefold() in LOOKS_MISSING:
            yield f"{covariate}: '{level}' is a level like any other; if it stands for a missing value, write n/a"


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise LevelError(
            f"'{twice[0]}' would mean two things in the group design. Rename that column or level in the table."
        )
    unwritable = [name for name in names if "`" in name]
    if unwritable:
        raise LevelError(
            f"The covariate or level '{unwritable[0]}' contains a backtick, with which contrasts quote names. Rename "
            "that column or level in the table."
        )


def _check_rank(values: NDArray[np.float64], columns: tuple[str, ...]) -> None:
    n_participants, n_columns = values.shape
    if n_columns and n_participants <= 1 + n_columns:
        raise LevelError(
            f"{n_participants} participants with complete values are too few for a group design of {1 + n_columns} "
            f"columns (the intercept, {quoted(columns)}): no degrees of freedom are left. Leave covariates out, or "
            "complete their values."
        )
    # units of the covariates must not decide, nor may squares of large ones overflow
    largest = np.abs(values).max(axis=0, initial=0.0)
    scaled = values / np.where(largest > 0, largest, 1.0)
    design = np.column_stack([np.ones(n_participants), scaled])
    kept = independent_columns(design)
    dependent = [index for index in range(1 + n_columns) if index not in kept]
    if not dependent:
        return
    sentences = []
    involved: list[str] = []
    for index in dependent:
        earlier = [column for column in kept if column < index]
        shares = np.linalg.lstsq(design[:, earlier], design[:, index], rcond=None)[0]
        explaining = [columns[column - 1] for column, share in zip(earlier, shares, strict=True)
                      if column and abs(share) > 1e-6]  # fmt: skip
        what = f"a combination of {quoted(explaining)}" if explaining else "zero for everyone"
        sentences.append(f"'{columns[index - 1]}' is {what}")
        involved += [*explaining, columns[index - 1]]
    raise LevelError(
        f"The effects of the covariates cannot be told apart: over the {n_participants} participants with complete "
        f"values the column {'; '.join(sentences)}. Leave one of the covariates concerned "
        f"({quoted(dict.fromkeys(involved))}) out of --covariates."
    )


# Group contrasts --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Term:
    """What a name in a group contrast is: a numeric covariate, a level of a categorical one, or two of these."""

    covariates: tuple[str, ...]  # one, or the two of an interaction
    levels: tuple[str | None, ...] = (None,)  # a level of each that is categorical, None for one that is numeric

    @property
    def slope(self) -> str:
        """The numeric covariate, or product of two, that it is the effect of; empty for a mean."""
        pairs = zip(self.covariates, self.levels, strict=True)
        return ":".join(covariate for covariate, level in pairs if level is None)

    def weights(self, levels: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Weights over columns by name, that of the constant being empty: a predicted mean, or a slope."""
        total = {"": 1.0}
        for covariate, level in zip(self.covariates, self.levels, strict=True):
            own = {covariate: 1.0}
            if level is not None:
                codes = sum_codes(len(levels[covariate]))[list(levels[covariate]).index(level)]
                named = (_qualified(covariate, other) for other in levels[covariate][:-1])
                own = {"": 1.0, **dict(zip(named, codes.tolist(), strict=True))}
            total = {":".join(filter(None, names)): total[names[0]] * own[names[1]] for names in product(total, own)}
        return total


def default_group_specifications(covariates: Covariates) -> list[str]:
    """List the intercept, every numeric covariate and every difference of levels, later minus earlier."""
    meanings = _meanings(covariates)
    specifications = [INTERCEPT]
    specifications += [_quote_unusual(covariate) for covariate in covariates.numeric]
    for covariate, levels in covariates.levels.items():
        written = [_written(covariate, level, meanings) for level in levels]
        specifications += [f"{later} - {earlier}" for earlier, later in combinations(written, 2)]
    for pair in covariates.interactions:
        specifications += _differences_of_interaction(*pair, covariates, meanings)
    return specifications


def _differences_of_interaction(
    first: str, second: str, covariates: Covariates, meanings: Mapping[str, list[_Term]]
) -> list[str]:
    """List differences of slopes, later level minus earlier, or differences of differences of means."""
    pairs_of_levels = [list(combinations(covariates.levels.get(name, ()), 2)) for name in (first, second)]
    if not any(pairs_of_levels):
        return []  # a product of numbers is a numeric covariate

    def written(level: str | None, other: str | None) -> str:
        term = [_Term((first, second), (level, other))]
        readable = [name for name, found in meanings.items() if found == term and _SPECIAL_NAME.fullmatch(name)]
        parts = [name if own is None else _qualified(name, own) for name, own in ((first, level), (second, other))]
        return next((name for name in readable if "=" not in name), f"`{':'.join(parts)}`")

    if all(pairs_of_levels):
        return [
            f"{written(b, y)} - {written(b, x)} - {written(a, y)} + {written(a, x)}"
            for (a, b), (x, y) in product(*pairs_of_levels)
        ]
    if pairs_of_levels[0]:
        return [f"{written(b, None)} - {written(a, None)}" for a, b in pairs_of_levels[0]]
    return [f"{written(None, y)} - {written(None, x)}" for x, y in pairs_of_levels[1]]


def resolve_group_contrasts(specifications: Sequence[str], covariates: Covariates) -> list[GroupContrast]:
    """Turn what the user wrote into group contrasts over the intercept and the coded columns.

    Parameters
    ----------
    specifications : sequence of str
        `intercept`, a numeric covariate, weights over levels of one categorical covariate that sum to zero, one level
        (its mean), or `NAME=` one of these; or an F test of several, `F:NAME = a - b; b - c`; empty for the defaults.
        A level may be written `group[patient]`, and must be where its name alone means something else too.
    covariates : Covariates

    Raises
    ------
    CommandLineError
        For an unknown or ambiguous name, text that is no expression, weights without a meaning, rows of an F test that
        depend on each other, or two contrasts with one label.
    """
    contrasts: list[GroupContrast] = []
    for specification in specifications or default_group_specifications(covariates):
        contrast = _resolve_one(composed(specification), covariates)
        # file systems of macOS and Windows take labels that differ in case only for one
        twin = next((other for other in contrasts if other.label.lower() == contrast.label.lower()), None)
        if twin is None:
            contrasts.append(contrast)
        elif (twin.weights, twin.tested) != (contrast.weights, contrast.tested):
            raise CommandLineError(
                f"The group contrasts '{twin.text}' and '{contrast.text}' would both be called '{contrast.label}' in "
                "file names. Name the contrasts you want, and give one of these a name of its own: --group-contrast "
                f"'NAME={contrast.text}'."
            )
    return contrasts


def _resolve_one(specification: str, covariates: Covariates) -> GroupContrast:
    f_test = split_f_test(specification, "--group-contrast", "a - b; b - c")
    if f_test is None:
        return _resolve_row(specification, covariates)
    label, body, rows = f_test
    tested = tuple(_resolve_row(row, covariates).weights for row in rows)
    check_rows(specification, "--group-contrast", tested)
    return GroupContrast(label, body, (), tested=tested)


def _resolve_row(specification: str, covariates: Covariates) -> GroupContrast:
    name, body = split_name(specification)
    label = words_to_label([name]) if name is not None else None
    if label == "":
        raise CommandLineError(
            f"--group-contrast '{specification}': the name before '=' has no letter or digit to use in file names."
        )
    meanings = _meanings(covariates)
    weights, label_of_text = _read_weights(specification, body, known={INTERCEPT, *covariates.levels, *meanings})
    if INTERCEPT in weights:
        if len(weights) > 1:
            raise CommandLineError(
                f"--group-contrast '{specification}': 'intercept' can only stand alone. Write the mean of one level "
                "by its name alone."
            )
        if weights[INTERCEPT] != 1 and not label:
            raise CommandLineError(
                f"--group-contrast '{specification}': the intercept with a weight needs a name. Write 'NAME={body}'."
            )
        return GroupContrast(label or "", body, (weights[INTERCEPT], *[0.0] * len(covariates.columns)))
    if label is None:
        nameless = next((word for word in weights if not words_to_label([word])), None)
        if nameless is not None:
            raise CommandLineError(
                f"The group contrast '{body}' cannot be named in files, as '{nameless}' has no letter from a to z and "
                f"no digit. Give it a name: --group-contrast 'NAME={body}'."
            )
    terms: dict[_Term, float] = {}
    for word, weight in weights.items():
        term = _look_up(specification, word, covariates, meanings)
        terms[term] = terms.get(term, 0.0) + weight
    over_columns = _weights_over_columns(specification, terms, covariates)
    return GroupContrast(label or label_of_text, body, over_columns, next(iter(terms)).slope)


def _read_weights(specification: str, body: str, known: set[str]) -> tuple[dict[str, float], str]:
    """Weight per name, and the label that the text gives."""
    try:
        # brackets have no meaning in expressions: group[patient] is read as one name in backticks
        expression = parse_expression(
            _SPECIAL_NAME.sub(lambda found: found[0] if found[0][0] == "`" else f"`{found[0]}`", body)
        )
    except ExpressionError as error:
        if body in known:
            return {body: 1.0}, words_to_label([body])
        raise CommandLineError(
            f"--group-contrast '{specification}' cannot be read: {error}. Write 'intercept', a numeric covariate, or "
            "levels with weights such as 'patient - control' or '0.5*a + 0.5*b - c'; names with other characters than "
            "letters, digits, '_' and '.' stand in backticks."
        ) from None
    if body in known and not known.issuperset(expression.weights):  # non-responder, alone, needs no backticks
        return {body: 1.0}, words_to_label([body])
    return expression.weights, expression.label


def _meanings(covariates: Covariates) -> dict[str, list[_Term]]:
    """List what each name may stand for. A numeric covariate has one spelling, so its name is never a level's."""
    meanings: dict[str, list[_Term]] = {}
    for covariate, levels in covariates.levels.items():
        for level in levels:
            meanings.setdefault(level, []).append(_Term((covariate,), (level,)))
    for covariate, levels in covariates.levels.items():
        meanings |= {_qualified(covariate, level): [_Term((covariate,), (level,))] for level in levels}
    of_interactions: dict[str, list[_Term]] = {}
    for pair in covariates.interactions:
        spellings = [_spellings(covariate, covariates.levels) for covariate in pair]
        for (first, own), (second, other) in product(*spellings):
            of_interactions.setdefault(f"{first}:{second}", []).append(_Term(pair, (own, other)))
    meanings |= of_interactions | {
        covariate: [_Term((covariate,))] for covariate in covariates.numeric if covariate not in of_interactions
    }
    return meanings


def _spellings(covariate: str, levels: Mapping[str, Sequence[str]]) -> list[tuple[str, str | None]]:
    """List how a part of an interaction may be written, and the level that it means."""
    if covariate not in levels:
        return [(covariate, None)]
    bare: list[tuple[str, str | None]] = [(level, level) for level in levels[covariate]]
    return bare + [(_qualified(covariate, level), level) for level in levels[covariate]]


def _look_up(specification: str, word: str, covariates: Covariates, meanings: Mapping[str, list[_Term]]) -> _Term:
    found = meanings.get(word, [])
    if len(found) == 1:
        return found[0]
    if found:
        owners = quoted(":".join(term.covariates) for term in found)
        example = ":".join(
            covariate if level is None else _qualified(covariate, level)
            for covariate, level in zip(found[0].covariates, found[0].levels, strict=True)
        )
        raise CommandLineError(
            f"--group-contrast '{specification}': '{word}' is a level of {owners}. Say which one is meant, such as "
            f"'{example}'."
        )
    if word in covariates.levels:
        levels = covariates.levels[word]
        difference = " - ".join(_written(word, level, meanings) for level in (levels[1], levels[0]))
        raise CommandLineError(
            f"--group-contrast '{specification}': '{word}' is categorical, with the levels {quoted(levels)}. Name "
            f"levels, such as '{difference}'."
        )
    if not covariates.columns:
        raise CommandLineError(
            f"--group-contrast '{specification}' names '{word}', but no covariates are analysed; only 'intercept' can "
            "be asked. Name the column of participants.tsv with --covariates."
        )
    known = [f"'{INTERCEPT}'"] + ([quoted(covariates.numeric)] if covariates.numeric else [])
    known += [f"the levels {quoted(levels)} of '{covariate}'" for covariate, levels in covariates.levels.items()]
    raise CommandLineError(
        f"--group-contrast '{specification}' names '{word}', which is neither a covariate nor a level of one (there "
        f"are {', '.join(known)}). Correct the name, or add the covariate with --covariates; names with other "
        "characters than letters, digits, '_' and '.' stand in backticks."
    )


def _weights_over_columns(
    specification: str, terms: Mapping[_Term, float], covariates: Covariates
) -> tuple[float, ...]:
    owners = {term.covariates for term in terms}
    if len(owners) > 1:
        in_order = sorted(map(":".join, owners), key=natural_key)
        raise CommandLineError(
            f"--group-contrast '{specification}' mixes the covariates {quoted(in_order)}. Ask "
            "about one covariate at a time."
        )
    largest = max(map(abs, terms.values()))
    if largest == 0:  # group[patient] - patient: two spellings of one level
        raise CommandLineError(f"--group-contrast '{specification}': all its weights cancel to zero.")
    over_terms = [weight for weight in terms.values() if weight]
    is_one_mean = over_terms == [1.0]
    if next(iter(terms)).levels != (None,) * len(*owners) and not is_one_mean and abs(sum(over_terms)) > 1e-9 * largest:
        raise CommandLineError(
            f"--group-contrast '{specification}': its weights sum to {sum(over_terms):g}. The weights of a "
            "difference sum to zero, as in '0.5*a + 0.5*b - c'; the mean of one level is asked by its name alone."
        )
    over_columns = dict.fromkeys(["", *covariates.columns], 0.0)
    for term, weight in terms.items():
        for column, of_term in term.weights(covariates.levels).items():
            over_columns[column] += weight * of_term
    # what cancels leaves nothing but rounding
    return tuple(weight if abs(weight) > 1e-12 * largest else 0.0 for weight in over_columns.values())


def _quote_unusual(name: str) -> str:
    is_readable = _PLAIN_NAME.fullmatch(name) or re.fullmatch(f"{NAME}:{NAME}", name)
    return name if is_readable else f"`{name}`"


def _written(covariate: str, level: str, meanings: Mapping[str, list[_Term]]) -> str:
    """Write a level so that it can be read back: with its covariate where the level alone says too little."""
    is_taken = level == INTERCEPT or meanings.get(level) != [_Term((covariate,), (level,))]
    if not is_taken and level[:1].isalpha():
        return _quote_unusual(level)
    qualified = _qualified(covariate, level)
    return qualified if _SPECIAL_NAME.fullmatch(qualified) and "=" not in qualified else f"`{qualified}`"

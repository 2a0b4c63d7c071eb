"""First-level contrasts: what users write, and the rows it means over one run's design.

Vocabulary
----------
row
    A linear expression over conditions. An ordinary contrast is one row, tested by t. An F test, such as
    `F:NAME = a - b; b - c`, asks whether all of its rows are zero; each row is an ordinary contrast beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.expressions import NAME, ExpressionError, check_rows, parse_expression, split_f_test, split_name
from sessionfx.errors import CommandLineError
from sessionfx.wording import natural_key, words_to_label

# What nilearn adds to a condition's name for the columns of other responses
_RESPONSE_SUFFIX = re.compile(r"_(derivative|dispersion|delay_\d+)\Z")


@dataclass(frozen=True)
class Contrast:
    """A first-level contrast."""

    label: str  # label in file names (`contrast-<label>`)
    expression: str  # as written, without the name
    weights: dict[str, float]  # weight per condition; empty for an F test, whose rows have them
    tested: tuple[Contrast, ...] = ()  # the rows of an F test; empty for a t test
    # of a contrast over tasks, that of each; empty for a contrast within a task
    parts: tuple[tuple[str, Contrast], ...] = ()

    def of_task(self, task: str) -> Contrast:
        """Give what it is in a run of a task."""
        return dict(self.parts).get(task, self)

    @property
    def is_f_test(self) -> bool:
        """Whether it asks if all of its rows are zero."""
        return bool(self.tested)

    @property
    def definition(self) -> str:
        """As it can be written, with its name."""
        return f"{'F:' if self.is_f_test else ''}{self.label} = {self.expression}"

    @property
    def row_weights(self) -> tuple[dict[str, float], ...]:
        """Weights per condition of each row."""
        return tuple(row.weights for row in self.tested) or (self.weights,)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions with a weight in some row, in order of appearance."""
        return tuple(dict.fromkeys(name for weights in self.row_weights for name in weights))

    def missing_from(self, columns: Sequence[str]) -> list[str]:
        """Conditions of this contrast that are not among the given names."""
        return [name for name in self.conditions if name not in columns]

    def matrix(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Weights of the R rows over the columns of a design matrix, shape (R, P)."""
        return np.array([[weights.get(column, 0.0) for column in columns] for weights in self.row_weights])


def parse_contrast(text: str) -> Contrast:
    """Read `EXPR` or `NAME=EXPR`, or an F test `F:NAME = EXPR; EXPR`, whose rows may have names too.

    Raises
    ------
    CommandLineError
        If it is no linear expression of condition names, no label can be made, or the rows of an F test depend on each
        other.
    """
    f_test = split_f_test(text, "--contrast", "a; b")
    if f_test is None:
        return _parse_row(text)
    label, body, rows = f_test
    test = Contrast(label, body, {}, tuple(map(_parse_row, rows)))
    check_rows(text, "--contrast", test.matrix(test.conditions))
    return test


def _parse_row(text: str) -> Contrast:
    name, body = split_name(text)
    try:
        expression = parse_expression(body)
    except ExpressionError as error:
        raise CommandLineError(
            f"--contrast '{text}' cannot be read: {error}. Write conditions with weights, such as "
            "'incongruent - congruent' or 'NAME=0.5*a + 0.5*b - c'; names with other characters than letters, "
            "digits, '_' and '.' stand in backticks."
        ) from None
    label = words_to_label([name]) if name is not None else expression.label
    if not label:
        raise CommandLineError(
            f"--contrast '{text}' has no letter or digit to use in file names. Give it a name: --contrast "
            f"'NAME={body}'."
        )
    return Contrast(label, expression.text, expression.weights)


def parse_contrasts(texts: Sequence[str]) -> tuple[Contrast, ...]:
    """Read all contrasts and make sure their labels differ; F tests come last, after contrasts for their rows.

    Raises
    ------
    CommandLineError
        As `parse_contrast`, and where two different contrasts get one label.
    """
    contrasts: dict[str, Contrast] = {}
    for contrast in sorted(map(parse_contrast, texts), key=lambda contrast: contrast.is_f_test):
        # a row that is asked for by itself goes by that name
        rows = tuple(
            next((known for known in contrasts.values() if known.weights == row.weights), row)
            for row in contrast.tested
        )
        for added in (*rows, replace(contrast, tested=rows)):
            twin = contrasts.setdefault(added.label, added)
            if (twin.is_f_test, twin.row_weights) != (added.is_f_test, added.row_weights):
                raise CommandLineError(
                    f"The contrasts '{twin.expression}' and '{added.expression}' would both be called "
                    f"'{added.label}' in file names. Give one a name: --contrast 'NAME={added.expression}'."
                )
    return tuple(contrasts.values())


def default_contrasts(conditions: Sequence[str], modulated: Sequence[str] = ()) -> tuple[Contrast, ...]:
    """Ask about every condition against baseline, as where no contrast is written, each under its name.

    Of exactly two conditions the difference comes with them: the second in natural order minus the first. Modulated
    columns come last. A label that another condition has already gets a number.
    """
    names = sorted(conditions, key=natural_key)
    asked = [([name], {name: 1.0}) for name in names]
    if len(names) == 2:
        first, second = names
        asked.append(([second, "minus", first], {second: 1.0, first: -1.0}))
    asked += [([name], {name: 1.0}) for name in modulated]
    contrasts: dict[str, Contrast] = {}
    for words, weights in asked:
        label = base = words_to_label(words) or "condition"
        number = 2
        while label in contrasts:
            label, number = f"{base}{number}", number + 1
        text = " - ".join(name if re.fullmatch(NAME, name) else f"`{name}`" for name in weights)
        contrasts[label] = Contrast(label, text, weights)
    return tuple(contrasts.values())


def conditions_asked(contrasts: Sequence[Contrast]) -> frozenset[str]:
    """Name the conditions that contrasts need: those they name, and those of other responses (`go_derivative`)."""
    names = {name for contrast in contrasts for name in contrast.conditions}
    return frozenset(names | {_RESPONSE_SUFFIX.sub("", name) for name in names})


def called(label: str, expression: str) -> str:
    """Call a contrast as it was written, and by its name where it was given one.

    Examples
    --------
    >>> called("goMinusStop", "go - stop"), called("effort", "go - stop")
    ('go - stop', 'effort: go - stop')
    """
    if expression.startswith("F test ") or label == expression:
        return expression
    try:
        is_named = parse_expression(expression).label != label
    except ExpressionError:  # a condition as the events have it, or a contrast of another program
        is_named = False
    return f"{label}: {expression}" if is_named else expression


def selected_labels(texts: Sequence[str]) -> tuple[str, ...]:
    """Labels that `--contrast` selects at the group level.

    A name stands for itself, an expression for its label, an F test for its rows.
    """
    names = [text for text in texts if _is_name(text)]
    written = [contrast.label for contrast in _written(texts) if not contrast.is_f_test]
    return tuple(dict.fromkeys([*names, *written]))


def selected_f_tests(texts: Sequence[str]) -> tuple[Contrast, ...]:
    """F tests that `--contrast` asks for at the group level, over the maps that have the labels of their rows."""
    return tuple(contrast for contrast in _written(texts) if contrast.is_f_test)


def _is_name(text: str) -> bool:
    return text.isascii() and text.isalnum()


def _written(texts: Sequence[str]) -> tuple[Contrast, ...]:
    return parse_contrasts([text for text in texts if not _is_name(text)])

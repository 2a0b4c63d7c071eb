"""First-level contrasts: what users write, and the vector it means for one run's design."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sessionfx.ask.expressions import NAME, ExpressionError, parse_expression, split_name
from sessionfx.errors import CommandLineError
from sessionfx.wording import natural_key, words_to_label

# What nilearn adds to a condition's name for the columns of other responses
_RESPONSE_SUFFIXES = ("_derivative", "_dispersion")


@dataclass(frozen=True)
class Contrast:
    """A first-level contrast.

    Attributes
    ----------
    label : str
        Label in file names (`contrast-<label>`).
    expression : str
        As written, without the name.
    weights : dict of str to float
        Weight per condition.
    """

    label: str
    expression: str
    weights: dict[str, float]

    def missing_from(self, columns: Sequence[str]) -> list[str]:
        """Conditions of this contrast that are not among the given names."""
        return [name for name in self.weights if name not in columns]

    def vector(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Weights over the columns of a design matrix, shape (P,)."""
        return np.array([self.weights.get(column, 0.0) for column in columns])


def parse_contrast(text: str) -> Contrast:
    """Read `EXPR` or `NAME=EXPR`.

    Raises
    ------
    CommandLineError
        If it is no linear expression of condition names, or no label can be made.
    """
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
    """Read all contrasts and make sure their labels differ.

    Raises
    ------
    CommandLineError
        As `parse_contrast`, and where two different contrasts get one label.
    """
    contrasts: dict[str, Contrast] = {}
    for text in texts:
        contrast = parse_contrast(text)
        twin = contrasts.setdefault(contrast.label, contrast)
        if twin.weights != contrast.weights:
            raise CommandLineError(
                f"The contrasts '{twin.expression}' and '{contrast.expression}' would both be called "
                f"'{contrast.label}' in file names. Give one a name: --contrast 'NAME={contrast.expression}'."
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
    """Name the conditions that contrasts need: those they name, and those whose responses' derivatives they name."""
    names = {name for contrast in contrasts for name in contrast.weights}
    return frozenset(names | {name.removesuffix(suffix) for name in names for suffix in _RESPONSE_SUFFIXES})


def selected_labels(texts: Sequence[str]) -> tuple[str, ...]:
    """Labels that `--contrast` selects at the group level: a name stands for itself, an expression for its label."""
    return tuple(dict.fromkeys(_selected_label(text) for text in texts))


def _selected_label(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text
    return parse_contrast(text).label

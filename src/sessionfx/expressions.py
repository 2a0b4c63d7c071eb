"""Linear expressions over names, as users write contrasts: `incongruent - congruent`, `0.5*(a + b) - c`.

nilearn hands such text to `DataFrame.eval`; here a small parser of our own reads it, so that nothing a user
writes is ever executed. Names with unusual characters stand in backticks, as in pandas: `` `happy face` - x``.

Grammar::

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = ("+" | "-") factor | number | name | "(" sum ")"
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from sessionfx.naming import words_to_label

NAME = r"[^\W\d][\w.]*"  # what pandas and nilearn take as a column name, and dots
SESSION_NAME = r"ses-[a-zA-Z0-9]+"

_MAX_LENGTH = 2000
_MAX_DEPTH = 50
_OPERATOR_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "over"}


class ExpressionError(ValueError):
    """The text is not a linear expression; the message says where and why."""


@dataclass(frozen=True)
class LinearExpression:
    """A weighted sum of names.

    Attributes
    ----------
    text : str
        As written.
    weights : dict of str to float
        Weight per name, in order of appearance; none is zero.
    label : str
        camelCase label for file names; empty where the text holds no ASCII letter or digit.
    """

    text: str
    weights: dict[str, float]
    label: str


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, operator or end
    text: str
    position: int


@dataclass(frozen=True)
class _Affine:
    """constant + Σ weight·name, the value of every part of an expression."""

    constant: float
    weights: dict[str, float]

    def scaled(self, factor: float) -> _Affine:
        return _Affine(self.constant * factor, {name: w * factor for name, w in self.weights.items()})

    def plus(self, other: _Affine, sign: float) -> _Affine:
        weights = dict(self.weights)
        for name, weight in other.weights.items():
            weights[name] = weights.get(name, 0.0) + sign * weight
        return _Affine(self.constant + sign * other.constant, weights)


def parse_expression(text: str, *, session_names: bool = False) -> LinearExpression:
    """Read a linear expression.

    Parameters
    ----------
    text : str
        For example `face - house`, `2*a - b - c`, `(a + b)/2`.
    session_names : bool, default=False
        Whether `ses-02` is one name rather than a difference.

    Returns
    -------
    LinearExpression

    Raises
    ------
    ExpressionError
        If the text is not a linear combination of names, or all weights cancel.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"it is longer than {_MAX_LENGTH} characters")
    text = unicodedata.normalize("NFC", text)  # an é may be typed as one character or two
    tokens = _tokenize(text, session_names)
    value = _Parser(tokens).parse()
    if not all(map(math.isfinite, (value.constant, *value.weights.values()))):
        raise ExpressionError("a weight is not a finite number")
    if value.constant != 0:
        raise ExpressionError(
            f"it adds the constant {value.constant:g} to names; only weighted names can be summed "
            "(a name that begins with a digit stands in backticks)"
        )
    weights = {name: weight for name, weight in value.weights.items() if weight != 0}
    if not weights:
        raise ExpressionError("all its weights cancel to zero")
    return LinearExpression(text.strip(), weights, _label(tokens))


def split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=EXPR` at its first equals sign outside backticks; without one the name is None."""
    quoted = False
    for position, character in enumerate(text):
        if character == "`":
            quoted = not quoted
        elif character == "=" and not quoted:
            return text[:position].strip(), text[position + 1 :].strip()
    return None, text.strip()


def quoted_names(text: str, names: Sequence[str]) -> str:
    """Put backticks around names that stand without them where they are needed, such as `stop-signal`.

    Parameters
    ----------
    text : str
        An expression.
    names : sequence of str
        Names there are.

    Returns
    -------
    str
        The expression with backticks; empty where none is to be added.
    """
    unusual = [name for name in names if not re.fullmatch(NAME, name) and name in text]
    if not unusual:
        return ""
    longest_first = sorted(unusual, key=len, reverse=True)
    # what stands in backticks already, or within a longer name, is another thing
    pattern = re.compile("`[^`]*`|" + "|".join(rf"(?<![\w.]){re.escape(name)}(?![\w.])" for name in longest_first))
    quoted = pattern.sub(lambda found: found[0] if found[0].startswith("`") else f"`{found[0]}`", text)
    return "" if quoted == text else quoted


def _tokenize(text: str, session_names: bool) -> list[_Token]:
    patterns = [
        ("space", r"\s+"),
        ("number", r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])"),
        ("quoted", r"`[^`]+`"),
        ("name", NAME),
        ("operator", r"[-+*/()]"),
    ]
    if session_names:
        patterns.insert(0, ("session", SESSION_NAME))
    lexer = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in patterns))
    tokens = []
    position = 0
    while position < len(text):
        found = lexer.match(text, position)
        if not found:
            raise ExpressionError(f"the character {text[position]!r} at position {position + 1} has no meaning here")
        kind, piece = str(found.lastgroup), found.group()
        if kind == "quoted":
            tokens.append(_Token("name", piece[1:-1], position))
        elif kind == "session":
            tokens.append(_Token("name", piece, position))
        elif kind != "space":
            tokens.append(_Token(kind, piece, position))
        position = found.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def parse(self) -> _Affine:
        value = self._sum()
        if self._peek().kind != "end":
            raise self._unexpected("an operator")
        return value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _at(self, operators: str) -> bool:
        token = self._peek()
        return token.kind == "operator" and token.text in operators

    def _unexpected(self, wanted: str) -> ExpressionError:
        token = self._peek()
        if token.kind == "end":
            return ExpressionError(f"it ends where {wanted} should follow")
        return ExpressionError(f"{token.text!r} at position {token.position + 1} stands where {wanted} should be")

    def _sum(self) -> _Affine:
        value = self._product()
        while self._at("+-"):
            sign = 1.0 if self._take().text == "+" else -1.0
            value = value.plus(self._product(), sign)
        return value

    def _product(self) -> _Affine:
        value = self._factor()
        while self._at("*/"):
            operator = self._take()
            right = self._factor()
            if operator.text == "/":
                if right.weights:
                    raise ExpressionError(f"it divides by a name at position {operator.position + 1}")
                if right.constant == 0:
                    raise ExpressionError(f"it divides by zero at position {operator.position + 1}")
                value = value.scaled(1 / right.constant)
            elif not right.weights:
                value = value.scaled(right.constant)
            elif not value.weights:
                value = right.scaled(value.constant)
            else:
                raise ExpressionError(f"it multiplies two names at position {operator.position + 1}")
        return value

    def _factor(self) -> _Affine:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError("it is nested too deeply")
        try:
            if self._at("+-"):
                sign = 1.0 if self._take().text == "+" else -1.0
                return self._factor().scaled(sign)
            if self._at("("):
                self._take()
                value = self._sum()
                if not self._at(")"):
                    raise self._unexpected("a closing parenthesis")
                self._take()
                return value
            token = self._peek()
            if token.kind == "number":
                self._take()
                return _Affine(float(token.text), {})
            if token.kind == "name":
                self._take()
                return _Affine(0.0, {token.text: 1.0})
            raise self._unexpected("a name or a number")
        finally:
            self._depth -= 1


def _label(tokens: list[_Token]) -> str:
    words = []
    for token in tokens:
        if token.kind == "operator":
            words.append(_OPERATOR_WORDS.get(token.text, ""))
        elif token.kind == "number":
            words.append(token.text.replace(".", "p").replace("+", "").replace("-", "m"))
        else:
            words.append(token.text)
    return words_to_label(words)

"""Linear expressions over names, as users write contrasts: `incongruent - congruent`, `0.5*(a + b) - c`.

nilearn hands such text to `DataFrame.eval`; here nothing a user writes is ever executed. The text is cut into names,
numbers, `+ - * /` and parentheses. Python's `ast` reads their structure, with placeholders for names and numbers that
Python would read otherwise (`trial_type.happy`, `ses-02`, `not`, `007`), and the tree is walked. Names with unusual
characters stand in backticks, as in pandas: `` `happy face` - x``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sessionfx.errors import CommandLineError
from sessionfx.statistics.linear_algebra import rank_of
from sessionfx.wording import composed, words_to_label

NAME = r"[^\W\d][\w.]*"  # what pandas and nilearn take as a column name, and dots
SESSION_NAME = r"ses-[a-zA-Z0-9]+"

_NAMED = re.compile("((?:`[^`]*`|[^`=])*)=(.*)", re.DOTALL)  # at an equals sign that is not within backticks
_F_TEST = "F:"
_BETWEEN_ROWS = re.compile(r"\s*;\s*(?=(?:[^`]*`[^`]*`)*[^`]*\Z)")  # not within backticks
_MAX_LENGTH = 2000
_MAX_DEPTH = 50
_OPERATOR_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "over"}


class ExpressionError(ValueError):
    """The text is not a linear expression; the message says where and why."""


@dataclass(frozen=True)
class LinearExpression:
    """A weighted sum of names."""

    text: str  # as written
    weights: dict[str, float]  # weight per name, in order of appearance; none is zero
    label: str  # camelCase label for file names; empty where the text holds no ASCII letter or digit


class _Token(NamedTuple):
    kind: str  # number, name, operator or end
    text: str
    position: int


# Σ weight·name, the value of every part of an expression; what is constant has this name, which no other can have
_CONSTANT = ""
_Sum = dict[str, float]


def parse_expression(text: str, *, session_names: bool = False) -> LinearExpression:
    """Read a linear expression such as `face - house`, `2*a - b - c` or `(a + b)/2`.

    With `session_names`, `ses-02` is one name rather than a difference.

    Raises
    ------
    ExpressionError
        If the text is not a linear combination of names, or all weights cancel.
    """
    weights, constant, tokens = _read(text, session_names)
    if constant != 0:
        raise ExpressionError(
            f"it adds the constant {constant:g} to names; only weighted names can be summed "
            "(a name that begins with a digit stands in backticks)"
        )
    if not weights:
        raise ExpressionError("all its weights cancel to zero")
    return LinearExpression(composed(text).strip(), weights, _label(tokens))


def parse_scaled_name(text: str) -> tuple[str, float, float]:
    """Read one name with constants, such as `rt`, `rt / 1000` or `2*(rt - 3)`.

    Returns
    -------
    name : str
    factor, constant : float
        The text means ``factor * name + constant``.

    Raises
    ------
    ExpressionError
        If the text is no such expression, or has not exactly one name.
    """
    weights, constant, _ = _read(text)
    if len(weights) != 1:
        raise ExpressionError(f"it has {len(weights) or 'no'} names in place of one")
    ((name, factor),) = weights.items()
    return name, factor, constant


def split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=EXPR` at its first equals sign outside backticks; without one the name is None."""
    found = _NAMED.fullmatch(text)
    return (found[1].strip(), found[2].strip()) if found else (None, text.strip())


def split_f_test(text: str, option: str, example: str) -> tuple[str, str, list[str]] | None:
    """Split an F test, `F:NAME = EXPR; EXPR`, into its label, what follows the name and the rows; None if it is none.

    Raises
    ------
    CommandLineError
        If it has no name to make a label of; the message shows the option with an example of rows.
    """
    if not text.lstrip().startswith(_F_TEST):
        return None
    name, body = split_name(text.lstrip().removeprefix(_F_TEST))
    label = words_to_label([name or ""])
    if not label:
        raise CommandLineError(
            f"{option} '{text}' is an F test without a name to use in file names. Write {option} "
            f"'{_F_TEST}NAME = {example}', its rows separated by semicolons."
        )
    return label, body, _BETWEEN_ROWS.split(body)


def check_rows(text: str, option: str, weights: ArrayLike) -> None:
    """Refuse an F test whose rows, with weights of shape (R, P), depend on each other."""
    rows = np.asarray(weights)
    if rank_of(rows.T) < len(rows):
        raise CommandLineError(
            f"{option} '{text}': its rows depend on each other, one being a sum of others. Leave that row out; the "
            "test is the same without it."
        )


def quoted_names(text: str, names: Sequence[str]) -> str:
    """Put backticks around those names in an expression that need them and stand without, such as `stop-signal`.

    Empty where none is to be added.
    """
    unusual = [name for name in names if not re.fullmatch(NAME, name) and name in text]
    if not unusual:
        return ""
    longest_first = sorted(unusual, key=len, reverse=True)
    # what stands in backticks already, or within a longer name, is another thing
    pattern = re.compile("`[^`]*`|" + "|".join(rf"(?<![\w.]){re.escape(name)}(?![\w.])" for name in longest_first))
    quoted = pattern.sub(lambda found: found[0] if found[0].startswith("`") else f"`{found[0]}`", text)
    return "" if quoted == text else quoted


def _read(text: str, session_names: bool = False) -> tuple[_Sum, float, list[_Token]]:
    """Give weights that are not zero by name, the constant, and the tokens."""
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"it is longer than {_MAX_LENGTH} characters")
    tokens = _tokenize(composed(text), session_names)
    _check_order(tokens)
    value = _value(_tree(tokens), tokens)
    if not all(map(math.isfinite, value.values())):
        raise ExpressionError("a weight is not a finite number")
    constant = value.pop(_CONSTANT, 0.0)
    return {name: weight for name, weight in value.items() if weight != 0}, constant, tokens


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


def _check_order(tokens: list[_Token]) -> None:
    """Refuse what is no sum of products, in words: after this Python can read the structure."""
    wants_operand = True
    n_open = n_signs = 0
    for token in tokens:
        operator = token.text if token.kind == "operator" else ""
        n_signs = n_signs + 1 if operator in ("+", "-") else 0
        if wants_operand:
            if operator == "(":
                n_open += 1
            elif token.kind in ("name", "number"):
                wants_operand = False
            elif not n_signs:
                raise _unexpected(token, "a name or a number")
        elif operator == ")" and n_open:
            n_open -= 1
        elif operator in _OPERATOR_WORDS:
            wants_operand = True
        elif token.kind != "end" or n_open:
            raise _unexpected(token, "a closing parenthesis" if n_open else "an operator")
        if n_open + n_signs >= _MAX_DEPTH:
            raise ExpressionError("it is nested too deeply")


def _unexpected(token: _Token, wanted: str) -> ExpressionError:
    if token.kind == "end":
        return ExpressionError(f"it ends where {wanted} should follow")
    return ExpressionError(f"{token.text!r} at position {token.position + 1} stands where {wanted} should be")


def _tree(tokens: list[_Token]) -> ast.expr:
    """Read the structure; each token stands on the line of its number, so that a node tells which one it is."""
    lines = [token.text if token.kind == "operator" else "x" for token in tokens[:-1]]
    return ast.parse("(" + "\n".join(lines) + ")", mode="eval").body


def _value(node: ast.expr, tokens: list[_Token]) -> _Sum:
    # a long sum nests to the left: no recursion there
    operations = []
    while isinstance(node, ast.BinOp):
        operations.append(node)
        node = node.left
    sign = 1.0
    while isinstance(node, ast.UnaryOp):
        sign = -sign if isinstance(node.op, ast.USub) else sign
        node = node.operand
    if isinstance(node, ast.Name):
        token = tokens[node.lineno - 1]
        value = {_CONSTANT: float(token.text)} if token.kind == "number" else {token.text: 1.0}
    else:
        value = _value(node, tokens)
    value = _scaled(value, sign)
    for operation in reversed(operations):
        value = _combined(value, operation, tokens)
    return value


def _combined(left: _Sum, operation: ast.BinOp, tokens: list[_Token]) -> _Sum:
    right = _value(operation.right, tokens)
    if isinstance(operation.op, ast.Add | ast.Sub):
        right = right if isinstance(operation.op, ast.Add) else _scaled(right, -1.0)
        return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in left | right}
    operator = operation.right.lineno - 2
    while tokens[operator].text == "(":
        operator -= 1
    where = f"at position {tokens[operator].position + 1}"
    if isinstance(operation.op, ast.Div):
        if right.keys() != {_CONSTANT}:
            raise ExpressionError(f"it divides by a name {where}")
        if right[_CONSTANT] == 0:
            raise ExpressionError(f"it divides by zero {where}")
        return _scaled(left, 1 / right[_CONSTANT])
    if right.keys() == {_CONSTANT}:
        return _scaled(left, right[_CONSTANT])
    if left.keys() == {_CONSTANT}:
        return _scaled(right, left[_CONSTANT])
    raise ExpressionError(f"it multiplies two names {where}")


def _scaled(value: _Sum, factor: float) -> _Sum:
    return {name: weight * factor for name, weight in value.items()}


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

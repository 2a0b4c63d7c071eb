"""How the text of an option is read: each kind of value says what it takes, and why it refuses what it does not.

All are argparse types: they raise `argparse.ArgumentTypeError`, whose message follows the option's name.
"""

from __future__ import annotations

import math
import os
import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sessionfx.process import LONGEST_NAME, LONGEST_PATH
from sessionfx.wording import did_you_mean

_LABEL = re.compile(r"[a-zA-Z0-9+]+\Z")
# of a number as it is quoted
_DIGITS = 40


class Value(Protocol):
    """A kind of value: called with a text it gives the value."""

    @property
    def words(self) -> str:
        """What is taken, for the documentation."""

    def __call__(self, text: str, /) -> Any:
        """Read a text."""


@dataclass(frozen=True)
class Text:
    """Any text, as UTF-8 also where the locale knows ASCII only, and Python holds other bytes as surrogates."""

    words: str = "text"

    def __call__(self, text: str) -> str:
        """Read a text."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return os.fsencode(text).decode("utf-8", "backslashreplace")
        return text


ANY_TEXT = Text()


@dataclass(frozen=True)
class FilePath:
    """A file or folder; whether a platform must find it there before the program starts."""

    must_exist: bool = True
    words: str = "path"

    def __call__(self, text: str) -> Path:
        """Read a text."""
        if not text:
            raise ArgumentTypeError("the path is empty; '.' is the folder where the command is given")
        if "\0" in text:
            raise ArgumentTypeError("a path cannot hold a null character")
        path = Path(text)
        longest = max(path.parts, key=len, default="")
        if len(os.fsencode(longest)) > LONGEST_NAME:
            raise ArgumentTypeError(
                f"the name '{longest[:40]}…' has more than {LONGEST_NAME} bytes, which no file system takes"
            )
        if len(os.fsencode(text)) > LONGEST_PATH:
            raise ArgumentTypeError(f"the path '{text[:40]}…' has more than {LONGEST_PATH} bytes")
        return path


@dataclass(frozen=True)
class RunPattern:
    """A pattern of paths with entities of a run in braces, which are replaced and never executed."""

    entities: tuple[str, ...] = ("sub", "ses", "task", "run")
    words: str = "pattern of paths"

    def __call__(self, text: str) -> str:
        """Read a text."""
        rest = text
        for entity in self.entities:
            rest = rest.replace(f"{{{entity}}}", "")
        if not text or "{" in rest or "}" in rest:
            known = ", ".join(f"{{{entity}}}" for entity in self.entities)
            raise ArgumentTypeError(f"'{_shortened(text)}' is not a pattern: in braces may stand {known}")
        return ANY_TEXT(text)


RUN_PATTERN = RunPattern()


@dataclass(frozen=True)
class Label:
    """The label of a BIDS entity, with or without the entity in front."""

    entity: str
    words: str = "label"

    def __call__(self, text: str) -> str:
        """Read a text."""
        bare = text.removeprefix(f"{self.entity}-")
        if not _LABEL.match(bare):
            raise ArgumentTypeError(f"'{_shortened(text)}' is not a BIDS label (letters and digits)")
        if len(bare) > LONGEST_NAME:
            raise ArgumentTypeError(f"'{_shortened(text)}' is longer than a file name can be")
        return bare


@dataclass(frozen=True)
class Choice:
    """One of some names; a synonym is read as the name it stands for, and never written."""

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """What is taken, for the documentation."""
        return ", ".join(f"`{name}`" for name in self.names)

    def __call__(self, text: str) -> str:
        """Read a text."""
        name = dict(self.synonyms).get(text, text)
        if name not in self.names:
            there = ", ".join(map(repr, self.names))
            hint = did_you_mean(text, self.names)
            raise ArgumentTypeError(f"invalid choice: {_shortened(text)!r} (choose from {there}){hint and '.' + hint}")
        return name


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number from 0 on, or above 0, with the largest that makes sense and why more is a slip of the pen."""

    largest: int
    reason: str
    zero: bool = True
    whole: bool = False
    unit: str = ""

    @property
    def words(self) -> str:
        """What is taken, for the documentation."""
        least = "from 0" if self.zero else "from 1" if self.whole else "above 0"
        return f"{'whole ' if self.whole else ''}number {least} to {self.largest:,}"

    def __call__(self, text: str) -> float:
        """Read a text."""
        value = self._whole(text) if self.whole else self._real(text)
        if value > self.largest:
            unit = self.unit and f" {self.unit}"
            raise ArgumentTypeError(f"'{_shortened(text)}' is more than {self.largest:,}{unit}: {self.reason}")
        return value

    def _whole(self, text: str) -> int:
        # Python refuses to read thousands of digits, and what is cut here is too large for any option
        value = int(text.lstrip("0")[:_DIGITS] or "0") if text.isascii() and text.isdecimal() else -1
        least = 0 if self.zero else 1
        if value < least:
            raise ArgumentTypeError(f"'{_shortened(text)}' is not a whole number from {least} on")
        return value

    def _real(self, text: str) -> float:
        value = _finite(text)
        if value < 0 or not (value or self.zero):
            raise ArgumentTypeError(f"'{_shortened(text)}' is {'below' if self.zero else 'not above'} zero")
        return value


@dataclass(frozen=True)
class Probability:
    """A number between 0 and 1, neither of which is one."""

    words: str = "number between 0 and 1"

    def __call__(self, text: str) -> float:
        """Read a text."""
        value = _finite(text)
        if not 0 < value < 1:
            raise ArgumentTypeError(f"'{_shortened(text)}' is not between 0 and 1")
        return value


def _finite(text: str) -> float:
    try:
        # digits of other scripts, and underscores between digits, are Python's habit, not a user's
        value = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        raise ArgumentTypeError(f"'{_shortened(text)}' is not a number")
    if not math.isfinite(value):
        raise ArgumentTypeError(f"'{_shortened(text)}' is not a finite number")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _DIGITS else f"{text[:_DIGITS]}…"

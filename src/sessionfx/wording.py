"""Texts for people: lists that stay readable, and characters that a terminal may show.

Only the standard library: the command line uses it before anything else is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

# Names that a reader still looks through; a list of 100,000 would hide the sentence it stands in
MOST_NAMES = 40
LONGEST_NAME_SHOWN = 60
# Characters of a message, of which the end (what to do) is kept too
LONGEST_MESSAGE = 4000
_END = 1000


def listed(names: Iterable[object], *, most: int = MOST_NAMES, separator: str = ", ") -> str:
    """Join names, of many only the first.

    Parameters
    ----------
    names : iterable
        Texts too long for a name are cut, paths are not.
    most : int, default=40
        More are counted.
    separator : str, default=', '

    Returns
    -------
    str
        Empty without names.

    Examples
    --------
    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    texts = [shortened(name) if isinstance(name, str) else str(name) for name in names]
    # a count in place of a single name would be no shorter
    if len(texts) <= most + 1:
        return separator.join(texts)
    return f"{separator.join(texts[:most])} and {len(texts) - most:,} more"


def quoted(names: Iterable[object], *, last: str = "and", most: int = MOST_NAMES) -> str:
    """Join names in quotation marks, of many only the first.

    Examples
    --------
    >>> quoted(["age", "group", "site"], last="or")
    "'age', 'group' or 'site'"
    """
    texts = [f"'{shortened(str(name))}'" for name in names]
    if len(texts) > most + 1:
        return f"{', '.join(texts[:most])} and {len(texts) - most:,} more"
    return f" {last} ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def shortened(text: str) -> str:
    """Cut a name that is no name."""
    return text if len(text) <= LONGEST_NAME_SHOWN else text[: LONGEST_NAME_SHOWN - 1] + "…"


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_paragraph(text: str) -> str:
    """Put a message on one line of bearable length, without what a terminal would obey."""
    line = printable(" ".join(text.splitlines()))
    if len(line) <= LONGEST_MESSAGE:
        return line
    return f"{line[: LONGEST_MESSAGE - _END]} […] {line[-_END:]}"


def printable(text: str) -> str:
    """Replace what a terminal would obey by spaces, keep line breaks, and show bytes that are no text in hex."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    # how Python holds a byte of a file name that is not UTF-8
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return " "

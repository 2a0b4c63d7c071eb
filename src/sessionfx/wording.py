"""English for people: lists that stay readable, counts, numbers, and characters that a terminal may show.

Only the standard library: the command line uses it before anything else is loaded.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Names that a reader still looks through; a list of 100,000 would hide the sentence it stands in
MOST_NAMES = 40
LONGEST_NAME_SHOWN = 60
# Characters of a message, of which the end (what to do) is kept too
LONGEST_MESSAGE = 4000
_END = 1000


def is_number(text: str) -> bool:
    """Whether a text is read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def listed(names: Iterable[object], *, most: int = MOST_NAMES, separator: str = ", ") -> str:
    """Join names, of many only the first; texts too long for a name are cut, paths are not.

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
    return joined(texts, last=last)


def joined(texts: Sequence[str], *, last: str = "and") -> str:
    """Join texts in a sentence: `a, b and c`."""
    return f" {last} ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask whether the nearest of some names was meant; empty where none is near."""
    from difflib import get_close_matches

    return "".join(f" Did you mean '{name}'?" for name in get_close_matches(word, known, n=1))


def session_names(labels: Iterable[str]) -> str:
    """Join sessions by their names: `ses-01, ses-02`."""
    return listed([f"ses-{label}" for label in labels])


def lines_text(lines: Iterable[Any]) -> str:
    """Name lines of a file: `line 4`, `lines 4 and 7`, `lines 4, 5, 6 and 12 more`."""
    numbers = [str(int(line)) for line in lines]
    shown = [*numbers[:3], f"{len(numbers) - 3} more"] if len(numbers) > 3 else numbers
    return f"line{'s' * (len(shown) > 1)} {joined(shown)}"


def shortened(text: str) -> str:
    """Cut a name that is no name."""
    return text if len(text) <= LONGEST_NAME_SHOWN else text[: LONGEST_NAME_SHOWN - 1] + "…"


def shorten(name: str, limit: int) -> str:
    """Cut the middle out of names longer than `limit` characters: beginnings and ends tell names apart."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def minus(number: str) -> str:
    """Give a formatted number true minus signs. For numbers alone: names have hyphens."""
    return number.replace("-", "−")


def interval_text(lower: float, upper: float) -> str:
    """Write an interval: `0.120 to 1.30`."""
    return "n/a" if math.isnan(lower) else f"{format_number(lower)} to {format_number(upper)}"


def z_text(z: float) -> str:
    """Write a z with two decimals; no zero is negative."""
    return minus(f"{z:z.2f}")


def place_text(x: float, y: float, z: float) -> str:
    """Write a place in mm.

    Examples
    --------
    >>> place_text(34.0, -56.0, -0.2)
    '34, −56, 0'
    """
    return ", ".join(minus(str(round(coordinate))) for coordinate in (x, y, z))


def where_text(place: Mapping[str, Any], unit: str = " mm") -> str:
    """Say in words where a feature lies; see `Space.place`.

    Examples
    --------
    >>> where_text({"x": 34.0, "y": -56.0, "z": -0.2}), where_text({"hemisphere": "L", "vertex": 12})
    ('34, −56, 0 mm', 'left hemisphere, vertex 12')
    >>> where_text({"structure": "THALAMUS_LEFT", "x": -12.0, "y": -24.0, "z": 12.0})
    'left thalamus, −12, −24, 12 mm'
    """
    part = _part_text(place)
    where = f"vertex {place['vertex']}" if "vertex" in place else place_text(place["x"], place["y"], place["z"]) + unit
    return f"{part}, {where}" if part else where


def _part_text(place: Mapping[str, Any]) -> str:
    """Name a hemisphere, or a structure of CIFTI, whose names end with their side; empty in a voxel grid."""
    if "hemisphere" in place:
        return {"L": "left hemisphere", "R": "right hemisphere"}.get(place["hemisphere"], str(place["hemisphere"]))
    *words, last = str(place.get("structure", "")).lower().split("_")
    return " ".join([last, *words] if last in ("left", "right") else [*words, last])


def unbroken(text: str) -> str:
    r"""Keep the numbers of a place, and of an interval, on one line of a page.

    Examples
    --------
    >>> unbroken("left thalamus, −12, −24, 12").split(" "), len(unbroken("0.120 to 1.30").split(" "))
    (['left', 'thalamus,', '−12,\xa0−24,\xa012'], 1)
    """
    return re.sub(r"(?<=\d,) | (?=to )|(?<= to) ", "\N{NO-BREAK SPACE}", text)


_SMALLEST_P = 1e-9  # below it `format_number` takes numbers for rounding errors


def format_number(value: Any) -> str:
    """Format a cell: integers as they are, numbers below 1 to three digits, larger to 0.01; NaN, infinity in words.

    Examples
    --------
    >>> format_number(7.0), format_number(602.0543), format_number(0.8), format_number(0.00448)
    ('7', '602.05', '0.800', '0.00448')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else str(value)
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "none reached" if value > 0 else "−∞"
    if abs(value - round(value)) < 1e-9 and abs(value) < 1e7:
        return minus(f"{round(value):,d}")
    return minus(f"{value:,.2f}" if abs(value) >= 1 else f"{value:#.3g}" if abs(value) >= 0.001 else f"{value:.3g}")


def dof_text(dof: float) -> str:
    """Write degrees of freedom as tables do.

    Examples
    --------
    >>> dof_text(1.0), dof_text(3.97)
    ('1 degree of freedom', '3.97 degrees of freedom')
    """
    text = format_number(dof)
    return f"{text} degree{'' if text == '1' else 's'} of freedom"


def p_text(p: float) -> str:
    """Write a p value, which is never 0.

    Examples
    --------
    >>> p_text(0.0123), p_text(1e-14)
    ('0.0123', '< 1e−9')
    """
    return "< 1e−9" if p < _SMALLEST_P else format_number(p)


def percent(fraction: float) -> str:
    """Write a fraction in percent with the digits that 20,000 voxels carry."""
    value = 100 * fraction
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %" if value < 99.95 else "100 %"


def weights_text(weights: Iterable[tuple[str, float]]) -> str:
    """Write weights over columns, those that are not zero; names stay as they are.

    Examples
    --------
    >>> weights_text([("scan-0.5", -0.25), ("age", 0.0), ("ses-02", 1.0)])
    'scan-0.5: −0.25, ses-02: 1'
    """
    return ", ".join(f"{name}: {minus(f'{weight:.3g}')}" for name, weight in weights if weight != 0)


def sentence(text: str) -> str:
    """Begin with a capital letter, end with a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


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


def words_to_label(words: Iterable[str]) -> str:
    """Join words into one camelCase label of ASCII letters and digits.

    >>> words_to_label(["incongruent", "minus", "congruent"])
    'incongruentMinusCongruent'
    """
    label = ""
    for word in words:
        ascii_word = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode()
        for piece in re.findall(r"[a-zA-Z0-9]+", ascii_word):
            label += piece[0].upper() + piece[1:] if label else piece
    return label


def composed(text: str) -> str:
    """Write an é as one character: tables and command lines may hold two for it, and both are one name."""
    return unicodedata.normalize("NFC", text)


def normal_text(text: str) -> str:
    """Bring a cell into one form, without spaces at its ends."""
    return composed(text.strip())


def natural_key(label: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which `ses-2` comes before `ses-10`."""
    pieces = re.findall(r"\d+|\D+", label)
    # the label itself last: "1" and "01" must not tie, or their order would be that of a set
    return [(0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces], label

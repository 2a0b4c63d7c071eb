"""The works that texts cite: `references.bib`, and their numbers in one text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

_ENTRY = re.compile(r"@[a-z]+\{(\w+),\n((?:  [a-z]+ = \{.*\},\n)+)\}\n")
_FIELD = re.compile(r"  ([a-z]+) = \{(.*)\},\n")


@cache
def read_references() -> Mapping[str, str]:
    """Read `references.bib`, a file of our own in one strict form: a work as a reader is shown it, by its key."""
    text = (files("sessionfx.report") / "references.bib").read_text(encoding="utf-8")
    return {key: _in_words(dict(_FIELD.findall(body))) for key, body in _ENTRY.findall(text)}


def _in_words(work: dict[str, str]) -> str:
    """Write a reference as medical journals do: `Welch BL. Title. Biometrika 1947;34:28–35. doi:…`."""
    authors = work["author"].strip("{}").replace(", ", " ").replace(" and others", ", et al").replace(" and ", ", ")
    parts = [authors, work["title"].replace("\\&", "&")]
    if "journal" in work:
        number = f"({work['number']})" if "number" in work else ""
        pages = f":{work['pages'].replace('--', '–')}" if "pages" in work else ""
        parts.append(f"{work['journal']} {work['year']};{work['volume']}{number}{pages}")
    link = f" doi:{work['doi']}" if "doi" in work else f" {work['url']}" if "url" in work else ""
    return f"{'. '.join(parts)}.{link}"


class Citations:
    """Numbers works in the order they are cited."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        """Cite works: `[1, 3]`."""
        self._keys += [key for key in dict.fromkeys(keys) if key not in self._keys]
        return "[" + ", ".join(str(self._keys.index(key) + 1) for key in keys) + "]"

    def within(self, text: str, works: Sequence[str]) -> str:
        """Give each `{cite}` of a text a work in turn, and the last one those that are left."""
        *pieces, rest = text.split("{cite}")
        shares = [works[index : index + 1] for index in range(len(pieces) - 1)] + [works[max(len(pieces) - 1, 0) :]]
        return "".join(piece + self(*share) for piece, share in zip(pieces, shares, strict=False)) + rest

    def works(self) -> tuple[str, ...]:
        """List what was cited, in order."""
        return tuple(read_references()[key] for key in self._keys)

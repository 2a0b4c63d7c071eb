"""Report pages: sections kept one by one, and the self-contained HTML file made of all of them.

A page (`sub-01.html`, `group.html`) covers every analysis in the output folder: each analysis keeps its sections
as small files in a `figures` folder, and whoever finishes last puts the page together from all that are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sessionfx import __version__
from sessionfx.bids.names import RUNS_SECTION, SECTION_SUFFIX
from sessionfx.bids.reading import UnreadableFileError, open_input, read_json_object
from sessionfx.bids.writing import list_outputs, locked, remove, write_json, write_text
from sessionfx.errors import SessionFXError
from sessionfx.report.nilearn_files import niivue_script, packed_niivue
from sessionfx.wording import format_number, natural_key

if TYPE_CHECKING:
    from jinja2 import Environment

_ELSEWHERE = Markup("<!-- elsewhere -->")  # where a section names others of its topic
_VIEWER = '<div class="viewer">'  # see viewer.html.j2
_LARGEST_SECTION = 2**30  # hundreds of runs with their pictures
# controls, halves of characters, and what is no character
_NOT_IN_HTML = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


@dataclass(frozen=True)
class Contents:
    """A part of a section in the table of contents: the id of an element, a title, and parts of its own."""

    id: str
    title: str
    parts: Sequence[Contents] = ()


def render(template: str, **values: Any) -> str:
    """Fill a template; every value is escaped, but in a text."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    # Imported with the first page: a call with --no-report has no use for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("sessionfx", "report/templates"),
        autoescape=select_autoescape(disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    environment.filters["figure"] = format_number
    return environment


def _without_controls(value: Any) -> Any:
    """Replace characters that HTML does not allow, which names from tables may hold."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _NOT_IN_HTML.sub("\N{REPLACEMENT CHARACTER}", value)


def section_path(folder: Path, name: str) -> Path:
    """Path of a section in the `figures` folder of a page; sections are ordered by their names."""
    return folder / f"{name}{SECTION_SUFFIX}"


def write_section(path: Path, title: str, html: str, contents: Sequence[Contents] = (), *, topic: str = "") -> None:
    """Keep a section of a page.

    Parameters
    ----------
    path : Path
        See `section_path`.
    title : str
        For the table of contents.
    html : str
        Rendered section under its heading; `SECTION-ID` in it stands for its id in the page.
    contents : sequence of Contents
        Its parts, for the table of contents.
    topic : str, default=""
        Sections of one topic, as a contrast in several spaces, name each other.
    """
    write_json(path, {"title": title, "html": html, "contents": [asdict(part) for part in contents], "topic": topic})


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """A page, made of the sections that are kept in a folder."""

    path: Path  # the HTML file
    folder: Path  # of its sections
    # title, lead: heading of the page and the sentence under it
    title: str
    lead: str

    def is_whole(self) -> bool:
        """Whether it is there to its end and was made of the sections that are there."""
        try:
            with open_input(self.path) as stream:
                stream.seek(-min(len(_made_of([])), self.path.stat().st_size), os.SEEK_END)
                return stream.read().decode("ascii", "replace") == _made_of(_section_files(self.folder))
        except (SessionFXError, OSError):
            return False

    def assemble(self) -> None:
        """Write it from all its sections, or remove it where there is none."""
        # of several calls that finish at the same time, the last to write must have seen all sections
        with locked(self.path.parent, self.path.name):
            if _section_files(self.folder):
                _assemble(self.path, self.folder, self.title, self.lead)
            else:
                remove(self.path)


def _assemble(path: Path, folder: Path, title: str, lead: str) -> None:
    sections = []
    files = _section_files(folder)
    made_of = _made_of(files)
    for number, file in enumerate(files, start=1):
        name = f"section-{number}"
        title_of_file = file.name.removesuffix(SECTION_SUFFIX)
        section: dict[str, Any] = {"id": name, "title": title_of_file, "contents": [], "topic": ""}
        try:
            content = read_json_object(file, largest=_LARGEST_SECTION)
            if not _is_section(content):
                raise UnreadableFileError(f"{file} is no section of a page.")
        except UnreadableFileError as error:
            remark = f"{error} It is made anew when this analysis is run again."
            sections.append({**section, "html": Markup("<p>{}</p>").format(remark)})
            continue
        # Sections were rendered by `render`, which escapes; they are not escaped twice.
        html = Markup(content["html"].replace("SECTION-ID", name))  # noqa: S704
        parts = _named(content["contents"], name)
        sections.append({**section, **content, "html": html, "contents": parts})
    for section in sections:
        others = [other for other in sections if other["topic"] and other is not section]
        links = [
            Markup('<a href="#{}">{}</a>').format(other["id"], other["title"].removeprefix(other["topic"]).strip(" ()"))
            for other in others
            if other["topic"] == section["topic"]
        ]
        also = Markup(" Also in: {}.").format(Markup(", ").join(links)) if links else Markup("")
        section["html"] = section["html"].replace(_ELSEWHERE, also)
    niivue = Markup(packed_niivue()) if any(_VIEWER in section["html"] for section in sections) else None  # noqa: S704
    page = render("page.html.j2", title=title, lead=lead, sections=sections, version=__version__, niivue=niivue)
    write_text(path, _allowing_only_own_scripts(page, niivue is not None).rstrip("\n") + "\n" + made_of)


def _allowing_only_own_scripts(page: str, has_viewer: bool) -> str:
    """Name the scripts that a browser may run by their digests; what users wrote cannot become one."""
    scripts = [script.encode() for script in re.findall("<script>(.*?)</script>", page, re.DOTALL)]
    digests = [hashlib.sha256(script).digest() for script in [*scripts, *([niivue_script()] if has_viewer else [])]]
    sources = [f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests]
    return page.replace("SCRIPT-SOURCES", " ".join(sources) or "'none'", 1)


def _section_files(folder: Path) -> list[Path]:
    """List the sections: results of all tasks and spaces, then their runs."""
    files = [path for path in list_outputs(folder) if path.name.endswith(SECTION_SUFFIX)]
    return sorted(files, key=lambda path: (path.name.endswith(RUNS_SECTION), natural_key(path.name)))


def _is_section(content: dict[str, Any]) -> bool:
    return (
        isinstance(content.get("title"), str)
        and isinstance(content.get("html"), str)
        and isinstance(content.get("topic"), str)
        and _are_contents(content.get("contents"))
    )


def _are_contents(parts: Any) -> bool:
    return isinstance(parts, list) and all(
        isinstance(part, dict) and isinstance(part.get("id"), str) and isinstance(part.get("title"), str)
        and _are_contents(part.get("parts"))
        for part in parts
    )  # fmt: skip


def _named(parts: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {"id": part["id"].replace("SECTION-ID", name), "title": part["title"], "parts": _named(part["parts"], name)}
        for part in parts
    ]


def _made_of(sections: Sequence[Path]) -> str:
    """Make the last line of a page: names and sizes of its sections, digested. It tells a cut or outdated page."""
    sizes = [[file.name, file.lstat().st_size] for file in sections]
    return f"<!-- sections {hashlib.sha256(json.dumps(sizes).encode()).hexdigest()} -->\n"

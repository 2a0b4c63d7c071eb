"""What `make docs` does beside MkDocs: pages from the root of the repository, and formulas as MathML."""

from __future__ import annotations

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
DOI = re.compile(r"\bdoi:(10\.[^\s<]*[^\s<.,;])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie in the root of the repository."""
    for name in PAGES:
        files.append(File.generated(config, name, content=_of_root((ROOT / name).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a part of the README where `<!-- README.md: NAME -->` stands; let links out of docs/ lead to pages here."""
    markdown = re.sub(r"<!-- README\.md: (\w+) -->", lambda match: _of_root(_part(match[1])), markdown)
    return re.sub(r"\]\(\.\./README\.md", "](index.md", markdown).replace("](../", "](")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which browsers draw without a script, and DOIs into links."""
    # in a table GitHub reads \| as | in code too
    html = re.sub(r"<code>[^<]*</code>", lambda match: match[0].replace("\\|", "|"), html)
    html = re.sub(r"<code>(--?[\w-]+)</code>", r'<code class="option">\1</code>', html)
    html = DOI.sub(r'<a href="https://doi.org/\1">doi:\1</a>', html)
    return FORMULA.sub(_mathml, html)


def _of_root(text: str) -> str:
    """Let the links of a page in the root lead to pages of the site."""
    return text.replace("](docs/", "](").replace("](README.md", "](index.md")


def _part(name: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


def _mathml(match: re.Match[str]) -> str:
    # brackets of a fixed size would be smaller where they have an exponent
    formula = re.sub(r"\\[bB]ig(l|r)", lambda side: {"l": r"\left", "r": r"\right"}[side[1]], html.unescape(match[2]))
    return convert(formula, display="block" if match[1] == "div" else "inline")

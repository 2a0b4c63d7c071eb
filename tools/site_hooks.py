"""What `make docs` does beside MkDocs: pages from the root of the repository, notebooks, formulas as MathML."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
DOI = re.compile(r"\bdoi:(10\.[^\s<]*[^\s<.,;])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie in the root of the repository, and a page for each notebook."""
    for name in PAGES:
        files.append(File.generated(config, name, content=_of_root((ROOT / name).read_text(encoding="utf-8"))))
    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        for file in _of_notebook(path, config):
            files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a part of the README where `<!-- README.md: NAME -->` stands; let links out of docs/ lead to pages here."""
    markdown = re.sub(r"<!-- README\.md: (\w+) -->", lambda match: _of_root(_part(match[1])), markdown)
    markdown = markdown.replace(".ipynb)", ".md)")
    to_docs = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"]({to_docs}../README.md", f"]({to_docs}index.md")
    return markdown.replace(f"]({to_docs}../", f"]({to_docs}")


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


def _of_notebook(path: Path, config: MkDocsConfig) -> Iterator[File]:
    """Make a page of a notebook, and a file of each of its pictures."""
    place = path.relative_to(config.docs_dir)
    parts: list[str] = []
    n_pictures = 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            shown = output.get("data") or {"text/plain": output.get("text", "")}
            if "image/png" in shown:
                n_pictures += 1
                picture = place.with_name(f"{place.stem}-{n_pictures}.png")
                yield File.generated(config, picture.as_posix(), content=base64.b64decode(shown["image/png"]))
                parts.append(f"![What the lines above draw]({picture.name})")
            elif "text/html" in shown:
                parts.append("".join(shown["text/html"]).replace(' border="1" class="dataframe"', ""))
            else:
                parts.append(f"```text\n{''.join(shown['text/plain']).rstrip()}\n```")
    name = place.with_suffix(".md").as_posix()
    yield File.generated(config, name, content="\n\n".join(parts), inclusion=InclusionLevel.NOT_IN_NAV)


def _part(name: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


def _mathml(match: re.Match[str]) -> str:
    # brackets of a fixed size would be smaller where they have an exponent
    formula = re.sub(r"\\[bB]ig(l|r)", lambda side: {"l": r"\left", "r": r"\right"}[side[1]], html.unescape(match[2]))
    return convert(formula, display="block" if match[1] == "div" else "inline")

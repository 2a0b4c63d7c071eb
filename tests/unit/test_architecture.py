"""docs/architecture.md names the modules there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_names_exactly_the_modules_there_are() -> None:
    package = ROOT / "src" / "sessionfx"
    paths = [path.relative_to(package) for path in package.rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts) for path in paths if path.name != "__init__.py"]
    packages = {".".join(path.parent.parts) for path in paths if path.name == "__init__.py"}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("\n## Modules\n")[2].partition("\n## ")[0]
    named = [
        name for cell in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in re.findall("`(.+?)`", cell)
    ]
    assert sorted(set(named) - packages) == sorted(modules)
    assert len(named) == len(set(named))

"""Output folders beside each other: the same files, whole, and nothing left over."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import pandas as pd


def linked_copy(source: Path, target: Path) -> Path:
    """Copy a tree by hard links: mutations put new files under the names, and so does the program."""
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    return target


def contents(root: Path) -> dict[str, bytes]:
    """Every file by its name; the options of each call lie under a name of its own, fingerprints hold times of files."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and not name.endswith("_config.toml") and not path.name.startswith(".sessionfx-"):
            content = path.read_bytes()
            found[name] = (
                re.sub(rb"\b[0-9a-f]{16,64}\b", b"(fingerprint)", content) if path.suffix == ".json" else content
            )
    return found


def results(output: Path) -> dict[str, bytes]:
    """All files but those with times in them, and the unfinished ones of killed processes, which bear no final name."""
    files = (path for path in output.rglob("*") if path.is_file() and path.parent.name != "logs")
    return {
        str(path.relative_to(output)): path.read_bytes() for path in files if not path.name.startswith(".sessionfx-")
    }


def half_written(root: Path) -> list[str]:
    """Files under a final name that are not whole."""
    broken = []
    for name in contents(root):
        path = root / name
        try:
            if name.endswith(".nii.gz"):
                nib.load(path).get_fdata()
            elif name.endswith(".json"):
                json.loads(path.read_text())
            elif name.endswith(".tsv"):
                pd.read_csv(path, sep="\t")
            elif name.endswith(".html"):
                assert "</html>" in path.read_text()[-200:]
            elif not name.endswith(".lock"):
                assert path.read_text()
        except Exception as error:
            broken.append(f"{name} is not whole ({error})")
    return broken


def differences(expected: Path, found: Path, pattern: str = "") -> list[str]:
    """Files that one folder has and the other has not, or that differ."""
    there, here = contents(expected), contents(found)
    names = [name for name in sorted({*there, *here}) if re.search(pattern, name)]
    said = {True: "is missing", False: "differs"}
    return [f"{name} {said[name not in here]}" for name in names if there.get(name) != here.get(name)]

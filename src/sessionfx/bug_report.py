"""What `--report-bug` prints: versions, limits, options and the shape of the dataset; no labels, no paths."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from sessionfx import __version__
from sessionfx.bids.derivatives import container_description
from sessionfx.execution.resources import available_processors, memory_limit_gb
from sessionfx.options.table import BY_FLAG, LEVELS, Option, Takes
from sessionfx.options.values import Choice, Number
from sessionfx.wording import counted

FLAG = "--report-bug"
# a shared disk can be slow, and this answers before a user gives up
_SECONDS = 5.0
_NOT_ENTERED = frozenset({"anat", "code", "dwi", "figures", "fmap", "log", "logs", "sourcedata", "stimuli"})
_ENTITY = re.compile(r"(sub|ses|task|space)-([a-zA-Z0-9+]+)")


def bug_report(words: Sequence[str]) -> str:
    """Describe this installation and this call, without labels, paths or other personal data.

    Parameters
    ----------
    words : sequence of str
        The command line. It need not be valid, and the dataset need not be there.

    Returns
    -------
    str
        Lines of Markdown, for an issue.
    """
    given, positions = _given(words)
    container = container_description()
    lines = [
        f"- SessionFX: {__version__}",
        f"- Python: {platform.python_implementation()} {platform.python_version()}",
        f"- platform: {platform.system()} {platform.release()} {platform.machine()}",
        f"- container: {container['Type'] if container else 'no'}",
        f"- processors: {available_processors()}; memory: {memory_limit_gb():.1f} GB",
        f"- packages: {', '.join(_packages())}",
        f"- levels: {' '.join(level for level in LEVELS if level in positions) or 'none'}",
        f"- options: {'; '.join(given) or 'none'}",
        f"- dataset: {_shape(positions[0]) if positions else 'not given'}",
    ]
    return "\n".join(lines)


def _packages() -> list[str]:
    """List the packages that are required, or extras, with their versions."""
    try:
        required = requires("sessionfx") or []
    except PackageNotFoundError:  # run from the source
        required = []
    names = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "'test'" not in text.replace('"', "'")}
    found = []
    for name in sorted(names - {"sessionfx"}):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _given(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate options, as they may be told, from what stands by itself."""
    said, positions = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        option = BY_FLAG.get(name.replace("_", "-"))
        if option is None:
            if word.startswith("-"):
                said.append("one that there is not")
            else:
                positions.append(word)
            continue
        values = [value] if equals else []
        at_most = {Takes.SEVERAL: len(rest)}.get(option.takes, int(option.has_value)) - len(values)
        while len(values) < at_most and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if option.flag != FLAG:
            said.append(_told(option, values))
    return said, positions


def _told(option: Option, values: Sequence[str]) -> str:
    """Tell an option: choices and numbers as they are, of everything else how much there is."""
    if isinstance(option.value, Choice) and set(values) <= set(option.value.names):
        return " ".join((option.flag, *values))
    if isinstance(option.value, Number) and all(re.fullmatch(r"[-+.\deE]{1,12}", value) for value in values):
        return " ".join((option.flag, *values))
    return f"{option.flag} ({counted(len(values), 'value')})" if values else option.flag


def _shape(folder: str) -> str:
    """Count participants, sessions, tasks, runs and spaces, as far as a few seconds go."""
    if not Path(folder).is_dir():
        return "not a folder"
    end = time.monotonic() + _SECONDS
    labels: dict[str, set[str]] = {"sub": set(), "ses": set(), "task": set(), "space": set()}
    runs = {"raw": 0, "preprocessed": 0}
    in_time = True
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_ENTERED and not name.startswith(".")]
        for name in (*folders, *files):
            for key, label in _ENTITY.findall(name):
                labels[key].add(label)
        n_bold = sum(name.endswith(("_bold.nii", "_bold.nii.gz")) for name in files)
        runs["preprocessed" if "derivatives" in Path(place).relative_to(folder).parts else "raw"] += n_bold
        if time.monotonic() > end:
            in_time = False
            break
    nouns = {"sub": "participant", "ses": "session label", "task": "task", "space": "space"}
    counts = [counted(len(labels[key]), noun) for key, noun in nouns.items()]
    counts += [f"{number} {kind} BOLD files" for kind, number in runs.items()]
    described = "with" if (Path(folder) / "dataset_description.json").is_file() else "without"
    return f"{', '.join(counts)}; {described} dataset_description.json{'' if in_time else '; not all was looked at'}"

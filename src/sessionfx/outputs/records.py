"""What is finished: one record per participant and analysis, so that a rerun resumes.

A record maps each piece of work (a contrast) to a fingerprint of everything that determines its numbers and to
the files it made. Work whose fingerprint still holds and whose files are all there is not done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sessionfx.outputs.files import write_json


def fingerprint(content: Any) -> str:
    """Digest of plain data (dicts, lists, numbers, text, paths)."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_state(path: Path | None) -> list[Any] | None:
    """Name, size and modification time: enough to notice that a file was replaced, wherever folders are mounted."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return [path.name, None, None]
    return [path.name, status.st_size, status.st_mtime_ns]


class Record:
    """The record of one participant (or of the group) in one analysis."""

    def __init__(self, path: Path, output_dir: Path) -> None:
        self._path = path
        self._output_dir = output_dir
        self._content: dict[str, dict[str, Any]] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            return  # no record, or a damaged one: the work is done again
        if isinstance(content, dict):
            self._content = {key: value for key, value in content.items() if isinstance(value, dict)}

    def works(self) -> list[str]:
        """Names of the finished pieces of work."""
        return list(self._content)

    def is_finished(self, work: str, wanted: str) -> bool:
        """Whether this work was finished under the same fingerprint and its files are still there.

        Design matrices are shared by the contrasts of a run: they must also still be the ones of this work.
        """
        entry = self._content.get(work)
        if entry is None or entry.get("fingerprint") != wanted:
            return False
        files = entry.get("files", {})
        return all(self._is_intact(self._output_dir / name, digest) for name, digest in files.items())

    def finish(self, works: Mapping[str, tuple[str, Iterable[Path]]]) -> None:
        """Note finished work: fingerprint and files by name."""
        for work, (done, files) in works.items():
            digests = {str(path.relative_to(self._output_dir)): self._digest(path) for path in sorted(files)}
            self._content[work] = {"fingerprint": done, "files": digests}
        write_json(self._path, self._content)

    def forget(self, works: Iterable[str]) -> None:
        """Strike work that is about to be done again, and remove its files.

        Should it fail or be killed, nothing made from other inputs or options is left for a later level to take.
        Files that other finished work needs too (designs) stay.
        """
        struck = [work for work in dict.fromkeys(works) if work in self._content]
        if not struck:
            return
        files = {name for work in struck for name in self._content.pop(work).get("files", {})}
        needed = {name for entry in self._content.values() for name in entry.get("files", {})}
        write_json(self._path, self._content)
        for name in files - needed:
            (self._output_dir / name).unlink(missing_ok=True)

    def _digest(self, path: Path) -> str | None:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.name.endswith("_design.tsv") else None

    def _is_intact(self, path: Path, digest: str | None) -> bool:
        return path.is_file() and (digest is None or digest == self._digest(path))

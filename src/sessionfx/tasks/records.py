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

from sessionfx.bids.names import is_recorded_name
from sessionfx.bids.reading import UnreadableFileError, open_input, read_json_object
from sessionfx.bids.writing import is_inside, locked, remove, write_json
from sessionfx.errors import OutputError, SessionFXError


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
    """The record of one participant (or of the group) in one analysis.

    Other calls may write into the same record at the same time: every change is made to what the file says then.
    A record can be written by others in a shared folder: names in it count only where they are of files that this
    program makes for this participant (or the group), inside the output folder.
    """

    def __init__(self, path: Path, output_dir: Path) -> None:
        self._path = path
        self._output_dir = output_dir
        participant = path.name.split("_")[0]
        self._folder = f"{participant}/" if participant.startswith("sub-") else "group/"
        self._content = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = read_json_object(self._path)
        except UnreadableFileError:
            return {}  # no record, or a damaged one: the work is done again
        return {
            work: entry
            for work, entry in content.items()
            if isinstance(entry, dict) and isinstance(entry.get("files"), dict)
        }

    def works(self) -> list[str]:
        """Names of the finished pieces of work."""
        return list(self._content)

    def files(self, works: Iterable[str]) -> list[Path]:
        """Paths of the files that finished pieces of work have made."""
        names = {name for work in works for name in self._content.get(work, {}).get("files", {})}
        return [self._output_dir / name for name in sorted(names) if self._is_own(name)]

    def is_finished(self, work: str, wanted: str) -> bool:
        """Whether this work was finished under the same fingerprint and its files are still there, and whole.

        Design matrices are shared by the contrasts of a run: they must also still be the ones of this work.
        """
        entry = self._content.get(work)
        if entry is None or entry.get("fingerprint") != wanted:
            return False
        return all(self._is_intact(name, state) for name, state in entry["files"].items())

    def finish(self, works: Mapping[str, tuple[str, Iterable[Path]]]) -> None:
        """Note finished work: fingerprint and files by name, each with its size."""
        finished = {
            work: {
                "fingerprint": done,
                "files": {str(path.relative_to(self._output_dir)): _state(path) for path in sorted(files)},
            }
            for work, (done, files) in works.items()
        }
        with locked(self._output_dir, self._path.name):
            # in the order of names: what is done again stands where it stood
            self._content = dict(sorted({**self._read(), **finished}.items()))
            write_json(self._path, self._content)

    def obsolete(self, works: Iterable[str]) -> list[Path]:
        """Files of finished works that no other finished work needs too, as designs are."""
        struck = set(works)
        kept = set(self.files(work for work in self._content if work not in struck))
        return [path for path in self.files(struck) if path not in kept]

    def forget(self, works: Iterable[str]) -> list[Path]:
        """Strike work that is about to be done again, and remove its files; return those that were there.

        Should the rest fail or be killed, nothing made from other inputs or options is left for a later level to take.
        Files that other finished work needs too (designs) stay.
        """
        wanted = set(works)
        with locked(self._output_dir, self._path.name):
            self._content = self._read()
            struck = wanted & set(self._content)
            if not struck:
                return []
            obsolete = self.obsolete(struck)
            self._content = {work: entry for work, entry in self._content.items() if work not in struck}
            write_json(self._path, self._content)
        return [path for path in obsolete if remove(path)]

    def _is_own(self, name: str) -> bool:
        is_log = name.startswith(f"logs/{self._folder[:-1]}_")
        return (name.startswith(self._folder) or is_log) and is_recorded_name(name)

    def _is_intact(self, name: str, state: Any) -> bool:
        path = self._output_dir / name
        if not (self._is_own(name) and is_inside(path, self._output_dir)):
            return False
        try:
            return bool(state == _state(path))
        except SessionFXError:
            return False


def _state(path: Path) -> dict[str, Any]:
    """Size of a file; of a design also a digest.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    try:
        state: dict[str, Any] = {"size": path.stat().st_size}
        if path.name.endswith("_design.tsv"):
            with open_input(path) as stream:
                state["sha256"] = hashlib.sha256(stream.read()).hexdigest()
    except (OSError, UnreadableFileError) as error:
        raise OutputError(f"{path} was written and cannot be read back ({error}). Check the disk.") from None
    return state

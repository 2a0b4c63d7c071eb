"""What is finished: one record per participant (or of the group) and analysis, so that a rerun resumes.

A record has an entry for each finished task: the fingerprint of everything that determines its files, those of what it
was made from, and the files with what tells whether they are still the same. What is replaced stays in the record
under another name until its files are gone: a process killed in between leaves nothing that nobody knows of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sessionfx.bids.names import is_recorded_name, is_section
from sessionfx.bids.reading import UnreadableFileError, open_input, read_json_object
from sessionfx.bids.writing import Written, give_names, is_inside, is_shared, locked, remove, state_of, write_json
from sessionfx.errors import SessionFXError
from sessionfx.tasks.task import Chain, Task

# Before the name of what is being replaced, or goes
_REPLACED = "replaced: "


def _is_aside(name: str) -> bool:
    return name.startswith(_REPLACED)


def fingerprint(content: Any) -> str:
    """Digest of plain data (dicts, lists, numbers, text, paths)."""
    return hashlib.sha256(_as_text(content)).hexdigest()


def fingerprint_of_items(items: Iterable[Any]) -> str:
    """Digest of a list of plain data, of which one item after the other is looked at; see `fingerprint`."""
    digest, before = hashlib.sha256(b"["), b""
    for item in items:
        digest.update(before + _as_text(item))
        before = b", "
    digest.update(b"]")
    return digest.hexdigest()


def _as_text(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, default=str).encode()


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
            name: entry
            for name, entry in content.items()
            if isinstance(entry, dict) and isinstance(entry.get("files"), dict)
        }

    def finished(self) -> list[str]:
        """Names of the finished tasks."""
        return [name for name in self._content if not _is_aside(name)]

    def files(self, names: Iterable[str]) -> list[Path]:
        """Paths of the files of tasks."""
        files = {file for name in names for file in self._content.get(name, {}).get("files", {})}
        return [self._output_dir / file for file in sorted(files) if self._is_own(file)]

    def is_finished(self, task: Task) -> bool:
        """Whether a task was finished under the same fingerprint and its files are still there, and whole."""
        entry = self._content.get(task.name)
        if entry is None or entry.get("fingerprint") != task.fingerprint:
            return False
        return all(self._is_intact(name, state) for name, state in entry["files"].items())

    def outdated(self, chain: Chain) -> list[str]:
        """Name finished tasks that the chain has not, but that were made from what is another now.

        They are made from a source, or a task of the chain, with another fingerprint.
        """
        now = chain.fingerprints
        return [
            name
            for name in self.finished()
            if name not in chain.by_name
            and any(now.get(made_from, found) != found for made_from, found in self._inputs(name).items())
        ]

    def _inputs(self, name: str) -> dict[str, Any]:
        inputs = self._content[name].get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    def files_of_outdated(self, chain: Chain) -> list[Path]:
        """Files that go because what they were made from has changed, and no task of the chain makes them anew."""
        outdated = set(self.outdated(chain))
        kept = set(self.files(name for name in self.finished() if name not in outdated))
        return [path for path in self.files(outdated) if path not in kept and path.exists()]

    def replace(self, chain: Chain, tasks: Sequence[Task], files: Sequence[Written], outdated: Sequence[str]) -> int:
        """Give the files of tasks that were done their names, note these as finished, and remove what they replace.

        Outdated tasks go too. Returns how many files went for good.
        """
        written = {file.path: file.state for file in files}
        with locked(self._output_dir, self._path.name):
            self._content = self._read()
            self._put_aside([*outdated, *(task.name for task in tasks)])
            give_names(files)
            for task in tasks:
                own = {path: written[path] for path in task.outputs if path in written}
                self._content[task.name] = {
                    "fingerprint": task.fingerprint,
                    "inputs": chain.inputs_of(task),
                    "files": {str(path.relative_to(self._output_dir)): state for path, state in sorted(own.items())},
                }
            self._write()
        if chain.page is not None and any(task.kind == "page" for task in tasks):
            chain.page.assemble()
        return self._remove_replaced(chain, {path for task in tasks for path in task.outputs})

    def forget(self, chain: Chain) -> int:
        """Remove all that is there of a chain that cannot be done, and what was made from it; return how many files."""
        with locked(self._output_dir, self._path.name):
            self._content = self._read()
            names = [name for name in self.finished() if name in chain.by_name]
            made_from = [name for name in self.finished() if set(self._inputs(name)) & set(names)]
            self._put_aside([*names, *made_from])
        return self._remove_replaced(chain, set())

    def clear(self, chain: Chain) -> int:
        """Remove what a call that was killed had replaced already; return how many files."""
        return self._remove_replaced(chain, set()) if any(map(_is_aside, self._content)) else 0

    def _remove_replaced(self, chain: Chain, declared: set[Path]) -> int:
        """Remove files that were put aside, or may lie where tasks would have put theirs, and that no task has made.

        The page goes without the sections among them.
        """
        with locked(self._output_dir, self._path.name):
            self._content = self._read()
            aside = list(filter(_is_aside, self._content))
            gone = {*self.files(aside), *declared} - set(self.files(self.finished()))
            removed = [path for path in sorted(gone) if remove(path)]
            if aside:
                self._content = {name: entry for name, entry in self._content.items() if name not in aside}
                self._write()
        if chain.page is not None and any(map(is_section, removed)):
            chain.page.assemble()
        return len(removed)

    def _put_aside(self, names: Iterable[str]) -> None:
        there = [name for name in dict.fromkeys(names) if name in self._content]
        for name in there:
            self._content[_REPLACED + name] = {"files": self._content.pop(name)["files"]}
        if there:
            self._write()

    def _write(self) -> None:
        # in the order of names: what is done again stands where it stood
        self._content = dict(sorted(self._content.items()))
        write_json(self._path, self._content)

    def _is_own(self, name: str) -> bool:
        is_log = name.startswith(f"logs/{self._folder[:-1]}_")
        return (name.startswith(self._folder) or is_log) and is_recorded_name(name)

    def _is_intact(self, name: str, state: Any) -> bool:
        path = self._output_dir / name
        if not (self._is_own(name) and is_inside(path, self._output_dir)):
            return False
        try:
            if not state:
                return True
            if not is_shared(name):
                return bool(state == {"size": path.stat().st_size})
            with open_input(path) as stream:
                return bool(state == state_of(name, stream.read()))
        except (OSError, SessionFXError):
            return False

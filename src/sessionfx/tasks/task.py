"""Both levels are lists of tasks.

Vocabulary
----------
task
    A piece of work: what it is made from, the fingerprint of all that determines it, the files it makes.
part
    A task without files, such as the fit of a run: computed by any worker, only where a task with files needs it.
chain
    The tasks of one participant, or of one contrast at the group level, which hand maps on in memory. A chain fails as
    a whole, and its files take their names together.
source
    What a chain is made from that is no task, such as the first-level maps of a group analysis, by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

Kind = Literal["part", "result", "log", "page"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of work."""

    name: str  # in the record
    # Of a part: without arguments, gives its value. Else it is given what `Chain.open` gives, and writes files. Parts
    # are sent to workers: their function is one of a module.
    run: Callable[..., Any]
    # 'part', 'result', 'log' or 'page': `--reports-only` makes pages alone, and needs finished results
    kind: Kind = "result"
    fingerprint: str = ""  # digest of all that determines its files
    inputs: tuple[str, ...] = ()  # names of tasks, and of sources, that it is made from
    outputs: tuple[Path, ...] = ()  # files it may make: what lies under these names and is not made anew goes
    # whether its files take their names at once, so that they are not lost with the rest of a call that is killed
    is_costly: bool = False


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The tasks of one participant, or of one contrast at the group level."""

    name: str  # for people, such as `sub-01`
    record: Path  # where it is noted what is finished
    tasks: tuple[Task, ...]  # in the order in which they are done; parts among them
    # given the values of parts by name, gives a context with what the tasks share, a `Shared`
    open: Callable[[Mapping[str, Any]], AbstractContextManager[Shared]]
    sources: Mapping[str, str] = field(default_factory=dict)  # fingerprints by name
    page: Page | None = None  # the page that the tasks' sections are on
    crash: Path | None = None  # where it is kept why the chain failed
    # whether files of earlier calls go if its data cannot be analysed: others would take them for all there is
    forgets_on_failure: bool = False
    # whether the tasks are done in the program's own process, from which they hand out work themselves
    is_here: bool = False
    # of such a chain: given the summary before files take their names, so that what it keeps is not missed by a rerun
    # that finds them finished
    before_names: Callable[[Any], None] | None = None

    @cached_property
    def by_name(self) -> dict[str, Task]:
        """The tasks by their names."""
        return {task.name: task for task in self.tasks}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of sources and tasks by name; parts have none."""
        return {**self.sources, **{task.name: task.fingerprint for task in self.tasks if task.kind != "part"}}

    def inputs_of(self, task: Task) -> dict[str, str]:
        """Fingerprints of what a task is made from, by name."""
        return {name: self.fingerprints[name] for name in task.inputs if name in self.fingerprints}


class Shared(Protocol):
    """What the tasks of a chain share."""

    def summary(self) -> Any:
        """Say what was found, for `Outcome.summary`."""


class Page(Protocol):
    """A page made of sections that have their names."""

    def is_whole(self) -> bool:
        """Whether it is there and shows the sections that are there."""

    def assemble(self) -> None:
        """Write it."""

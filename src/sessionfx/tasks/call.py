"""What both levels of a call do before and after their tasks."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sessionfx.ask.session_contrasts import SessionContrast, differences_left_out, resolve_session_contrasts
from sessionfx.bids.atlas import Atlas, atlases_of, read_atlases
from sessionfx.bids.names import file_name
from sessionfx.bids.session_order import SessionOrder
from sessionfx.bids.writing import write_json, write_text
from sessionfx.errors import OutputError
from sessionfx.execution import say
from sessionfx.options import GroupModel, Options
from sessionfx.options.toml import to_toml

EXIT_SOME_FAILED = 1


class Chosen(Protocol):
    """Runs or maps that a level works on."""

    @property
    def sessions(self) -> tuple[str, ...]:
        """Study sessions in time order."""

    @property
    def order(self) -> SessionOrder:
        """What tells their order."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know of the choice."""


class Text(Protocol):
    """A methods text."""

    def as_text(self) -> str:
        """Paragraphs and references."""


def asked_of_sessions(model: GroupModel, chosen: Chosen) -> list[SessionContrast]:
    """Bind the session contrasts that are asked for to the sessions there are."""
    return resolve_session_contrasts(
        model.session_contrast, chosen.sessions, order_is_known=chosen.order.is_known, order_source=chosen.order.source
    )


def chosen_atlases(model: GroupModel, files: Sequence[Path], space: str | None) -> tuple[Atlas, ...]:
    """Read the atlases, choose those for maps or series, of which files are given, and say which are not used.

    See `atlases_of`.
    """
    atlases = read_atlases(model.atlas, model.atlas_labels)
    chosen = atlases_of(atlases, files, space)
    for atlas in atlases:
        if not any(atlas is used for used in chosen):
            say(f"Not used for {files[0].name}: --atlas {atlas.files[0]}, which is for other spaces.")
    return chosen


def say_warnings(model: GroupModel, tasks: Iterable[Chosen]) -> None:
    """Say what a reader should know of the choice of files, of the sessions, and of what is not asked by default.

    What holds for several tasks is said once.
    """
    sentences: dict[str, None] = {}
    for chosen in tasks:
        sentences |= {f"Warning: {warning}": None for warning in chosen.warnings}
        sentences[differences_left_out(model.session_contrast, chosen.sessions)] = None
    for sentence in filter(None, sentences):
        say(sentence)


def keep_options(options: Options) -> None:
    """Save what was asked for, so that `--config-file` can ask for it again."""
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}_config.toml"
    write_text(options.output_dir.absolute() / "logs" / name, to_toml(options))


def keep_model(content: Mapping[str, Any], entities: Mapping[str, str | None], output_dir: Path) -> None:
    """Save the analysis of a task as a BIDS Stats Model."""
    write_json(model_path(entities, output_dir), content)


def model_path(entities: Mapping[str, str | None], output_dir: Path) -> Path:
    """Where the model of a task is saved."""
    return output_dir / "logs" / file_name(entities, "smdl", ".json")


def keep_methods(methods: Text, entities: Mapping[str, str | None], level: str, output_dir: Path) -> None:
    """Save the methods text."""
    write_text(output_dir / "logs" / file_name({**entities, "desc": level}, "methods", ".txt"), methods.as_text())


def check_private_folders(options: Options, inputs: Sequence[Path]) -> None:
    """Make the folders for working files, and refuse those inside the input.

    Raises
    ------
    OutputError
    """
    for option, folder in (
        ("--work-dir", options.execution.work_dir),
        ("--bids-database-dir", options.selection.bids_database_dir),
    ):
        if folder is None:
            continue
        resolved = folder.resolve()
        if any(resolved == root.resolve() or root.resolve() in resolved.parents for root in inputs):
            raise OutputError(
                f"{option} {folder} lies inside the input dataset, which must stay untouched. Choose another folder."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{option} {folder} cannot be made ({error.strerror}). Choose another folder.") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{option} {folder} is not writable. Choose another folder.")

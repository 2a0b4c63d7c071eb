"""The output folder as a BIDS derivative dataset."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sessionfx import __version__
from sessionfx.bids.dataset import read_description
from sessionfx.bids.reading import UnreadableFileError, open_input
from sessionfx.bids.writing import locked, remove_stale_temporaries, write_bytes, write_json
from sessionfx.errors import DatasetError, OutputError

BIDS_VERSION = "1.10.0"
# What BIDS does not know yet; folders without a trailing slash, as the validator wants them.
BIDSIGNORE = ("*_statmap.*", "*_design.*", "*_metrics.*", "*.html", "figures", "group", "logs")

SOFTWARE = {"Name": "SessionFX", "Version": __version__}


def prepare_output(output_dir: Path, inputs: Mapping[str, Path]) -> Path:
    """Make the output folder, describe it as a derivative dataset, and return its absolute path.

    The inputs are datasets by their name in BIDS URIs.

    Raises
    ------
    OutputError
        If it is, or lies in, an input dataset, holds another program's dataset, or cannot be written.
    """
    root = check_output_place(output_dir, inputs)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The output folder {output_dir} cannot be made ({error.strerror}). Choose another place."
        ) from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise OutputError(f"The output folder {output_dir} is not writable. Change its permissions or choose another.")
    _check_owner(root)
    _check_links(root)
    for folder in (root, root / "logs"):
        remove_stale_temporaries(folder, below=False)
    _ignore_for_bids(root / ".bidsignore")
    with locked(root, "dataset_description.json"):
        _describe(root, inputs)
    return root


def check_output_place(output_dir: Path, inputs: Mapping[str, Path]) -> Path:
    """Refuse an output folder that is, or lies in, an input dataset."""
    root = output_dir.absolute()
    is_something_else = False
    try:
        resolved = root.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            is_something_else = not stat.S_ISDIR(root.stat().st_mode)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, links in a circle, a character 0
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OutputError(f"The output folder {output_dir} cannot be used ({reason}). Choose another place.") from None
    if is_something_else:
        raise OutputError(f"The output folder {output_dir} is a file. Choose another name.")
    for folder in inputs.values():
        source = folder.resolve()
        if resolved == source or source in resolved.parents:
            relation = "is" if resolved == source else "lies inside"
            raise OutputError(
                f"The output folder {output_dir} {relation} the input dataset {folder}, which must stay "
                f"untouched. Choose a folder beside it, such as {source.parent / 'sessionfx'}."
            )
    return root


def _check_links(root: Path) -> None:
    """Refuse folders that are links, which nothing would be written through."""
    for name in ("logs", "group"):
        if (root / name).is_symlink():
            raise OutputError(
                f"{root / name} is a link, and SessionFX follows none inside its output folder, where they could lead "
                "anywhere. Put a folder in its place, or remove it."
            )


def _check_owner(root: Path) -> None:
    """Refuse a folder that another program describes as its own: its description would be lost."""
    try:
        description = read_description(root)
    except DatasetError as error:
        raise OutputError(f"{error} Or choose another output folder.") from None
    if description is None:
        return
    generated = description.get("GeneratedBy")
    programs = [item.get("Name") for item in generated if isinstance(item, dict)] if isinstance(generated, list) else []
    if SOFTWARE["Name"] not in programs:
        owner = ", ".join(map(str, programs)) or str(description.get("Name", "another dataset"))
        raise OutputError(
            f"The output folder {root} holds a dataset of its own ({owner}). Choose another, or an empty one."
        )


def bids_uri(path: Path, links: Mapping[str, Path], output_dir: Path) -> str:
    """Name a file as a BIDS URI: `bids:raw:sub-01/…`, or `bids::sub-01/…` inside the output folder."""
    found = dataset_of(path, {"": output_dir, **links})
    return f"bids:{found[0]}:{PurePosixPath(path.relative_to(found[1]))}" if found else path.as_uri()


def dataset_of(path: Path, links: Mapping[str, Path]) -> tuple[str, Path] | None:
    """Find the name and the folder of the innermost dataset that a file is in; None where it is in none."""
    inside = [(name, root) for name, root in links.items() if path.is_relative_to(root)]
    return max(inside, key=lambda dataset: len(dataset[1].parts), default=None)


def _describe(root: Path, inputs: Mapping[str, Path]) -> None:
    path = root / "dataset_description.json"
    known = read_description(root) or {}
    known_links = known.get("DatasetLinks")
    links = {
        **(known_links if isinstance(known_links, dict) else {}),
        **{name: folder.as_uri() for name, folder in inputs.items()},
    }
    generated: dict[str, Any] = {
        **SOFTWARE,
        "Description": "Fixed effects over runs and sessions; group strategies compared",
    }
    container = container_description()
    if container:
        generated["Container"] = container
    description = {
        "Name": "SessionFX: fixed effects over sessions and group strategies",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generated],
        "SourceDatasets": _sources(known, inputs),
        "DatasetLinks": links,
    }
    if description != known:
        write_json(path, description)


def container_description() -> dict[str, str] | None:
    """Read what the image says of itself (set in the Dockerfile); None outside one."""
    tag = os.environ.get("SESSIONFX_IMAGE")
    return {"Type": os.environ.get("SESSIONFX_IMAGE_TYPE", "docker"), "Tag": tag} if tag else None


def _sources(known: Mapping[str, Any], inputs: Mapping[str, Path]) -> list[dict[str, str]]:
    """List the input datasets of this call, and those earlier calls (another level) worked from."""
    sources = {source["URL"]: source for source in map(_source, inputs.values())}
    earlier = known.get("SourceDatasets")
    for source in earlier if isinstance(earlier, list) else []:
        if isinstance(source, dict) and isinstance(source.get("URL"), str):
            sources.setdefault(source["URL"], source)
    return sorted(sources.values(), key=lambda source: source["URL"])


def _source(folder: Path) -> dict[str, str]:
    source = {"URL": folder.as_uri()}
    try:
        doi = (read_description(folder) or {}).get("DatasetDOI")
    except DatasetError:
        doi = None  # accepted with --skip-bids-validation
    if isinstance(doi, str):
        source["DOI"] = doi
    return source


def _ignore_for_bids(path: Path) -> None:
    """Name what BIDS does not know yet, and keep what others wrote into the file."""
    known = b""
    if path.exists():
        try:
            with open_input(path) as stream:
                known = stream.read()
        except (UnreadableFileError, OSError) as error:
            raise OutputError(f"{error} Or choose another output folder.") from None
    missing = [line for line in BIDSIGNORE if line.encode() not in known.splitlines()]
    if missing:
        before = known if not known or known.endswith(b"\n") else known + b"\n"
        write_bytes(path, before + "".join(f"{line}\n" for line in missing).encode())

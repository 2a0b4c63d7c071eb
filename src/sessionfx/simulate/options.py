"""What can be chosen of a simulated dataset: one table for Python and for the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SURFACES = ("fsaverage5", "fsLR")


def _number(default: float, least: float, most: float, text: str, unit: str = "") -> Any:
    """Return a field with its limits, help and unit; whole numbers only where the default is one."""
    kind = "a whole number " if isinstance(default, int) else ""
    limits = f"{kind}between {least:,} and {most:,} {unit}".rstrip()
    return field(default=default, metadata={"range": (least, most), "limits": limits, "unit": unit, "help": text})


@dataclass(frozen=True)
class SimulationOptions:
    """Design, effects and noise of a simulated dataset; each number with its limits and its help.

    Raises
    ------
    ValueError
        If a value cannot be used. The message names the option.
    """

    # the largest counts are far beyond what anybody waits for; fewer volumes are too short for the task
    n_participants: int = _number(8, 1, 10_000, "participants")
    n_sessions: int = _number(3, 1, 1000, "sessions per participant")
    n_runs: int = _number(2, 1, 1000, "runs per session")
    n_volumes: int = _number(120, 20, 10_000, "volumes per run, one every 2 s")
    # coarser voxels leave regions and tissues empty; finer ones make files that are no longer small
    voxel_size: float = _number(8.0, 3, 14, "edge of the voxels", "mm")
    seed: int = _number(2026, 0, 2**63 - 1, "seed of the random numbers; the same seed gives the same files")
    mean_effect: float = _number(1.0, -50, 50, "effect in every session, first region", "percent")
    session_change: float = _number(0.6, -50, 50, "change of the effect per session, second region", "percent")
    modulator: float = _number(0.0, -50, 50, "effect of the response time, third region", "percent per second")
    participant_sd: float = _number(0.3, 0, 50, "SD of the effect over participants", "percent")
    session_sd: float = _number(0.15, 0, 50, "SD of the effect over a participant's sessions", "percent")
    noise_sd: float = _number(0.7, 0, 50, "SD of the noise", "percent")
    # (participant, session) labels that were not scanned; those beyond the design are ignored
    missing: tuple[tuple[str, str], ...] = (("05", "03"),)
    sessions_in_names: bool = True
    write_raw_bold: bool = True
    surfaces: tuple[str, ...] = ()  # of `SURFACES`; besides the volumes

    def __post_init__(self) -> None:
        for item in _numbers():
            value, (least, most) = getattr(self, item.name), item.metadata["range"]
            # numpy's integers have __index__ too; floats do not
            if not least <= value <= most or (isinstance(item.default, int) and not hasattr(value, "__index__")):
                raise ValueError(f"{item.name} ({_flag(item)}) must be {item.metadata['limits']}; got {value!r}.")
        if not self.sessions_in_names and self.n_sessions != 1:
            raise ValueError(
                f"A dataset without ses- in its names has one session; n_sessions (--sessions) is {self.n_sessions}."
            )
        if unknown := set(self.surfaces) - set(SURFACES):
            raise ValueError(f"surfaces (--surface) can be {' or '.join(SURFACES)}; got {', '.join(sorted(unknown))}.")
        if not self.scanned_sessions():
            raise ValueError("missing (--missing) leaves no session of any participant.")

    def scanned_sessions(self) -> list[tuple[int, int]]:
        """Return zero-based (participant, session) indices in the order of the files."""
        design = [
            (participant, session) for participant in range(self.n_participants) for session in range(self.n_sessions)
        ]
        missing = set(self.missing)
        return [scanned for scanned in design if tuple(map(label, scanned)) not in missing]


def label(index: int) -> str:
    """Return the BIDS label of a zero-based participant, session or run index."""
    return f"{index + 1:02d}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its destinations are `output_dir` and the fields of `SimulationOptions`."""
    parser = argparse.ArgumentParser(
        prog="sessionfx-simulate",
        description="Make a small BIDS dataset of several sessions with fMRIPrep-like derivatives and truth.",
    )
    parser.add_argument("output_dir", metavar="OUT_DIR", type=Path, help="new or empty folder for the dataset")
    for item in _numbers():
        parser.add_argument(
            _flag(item),
            dest=item.name,
            type=type(item.default),
            default=item.default,
            metavar=item.metadata["unit"].upper() or "N",
            help=f"{item.metadata['help']} (default: %(default)s)",
        )
    parser.add_argument(
        "--missing",
        nargs="*",
        type=_participant_and_session,
        default=SimulationOptions.missing,
        metavar="PARTICIPANT:SESSION",
        help="sessions that were not scanned; without a value, none is missing (default: 05:03)",
    )
    parser.add_argument(
        "--surface",
        dest="surfaces",
        nargs="+",
        choices=SURFACES,
        default=(),
        help="write the series on these surfaces too: GIFTI of fsaverage5, CIFTI of a small stand-in for fsLR",
    )
    for flag, name, text in (
        ("--no-raw-bold", "write_raw_bold", "leave out the raw images; the derivatives remain"),
        ("--no-sessions-in-names", "sessions_in_names", "leave ses- out of the file names (needs --sessions 1)"),
    ):
        parser.add_argument(flag, dest=name, action="store_false", help=text)
    return parser


def _numbers() -> list[Any]:
    return [item for item in fields(SimulationOptions) if item.metadata]


def _flag(item: Any) -> str:
    """Return the command-line option that sets a field."""
    return f"--{item.name.removeprefix('n_').replace('_', '-')}"


def _participant_and_session(text: str) -> tuple[str, str]:
    """Parse a value of ``--missing``, for example ``05:03`` or ``sub-05:ses-03``."""
    participant, colon, session = text.partition(":")
    if not (participant and colon and session):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form PARTICIPANT:SESSION, for example 05:03")
    return participant.removeprefix("sub-"), session.removeprefix("ses-")

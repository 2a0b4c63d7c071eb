"""`sessionfx-power`: how many participants and sessions a study needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sessionfx.errors import INTERRUPTED, CommandLineError, OutputError, in_words
from sessionfx.process import prepare_streams
from sessionfx.wording import sentence

_FORMATS = (".svg", ".png", ".pdf")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its destinations are the arguments of `power`, `output` and `figure`."""
    parser = argparse.ArgumentParser(
        prog="sessionfx-power",
        description="Find the power of each group strategy before any data, by simulation. Several numbers of "
        "participants and sessions give every combination.",
    )
    add = parser.add_argument
    add("--participants", type=int, nargs="+", required=True, metavar="N")
    add("--sessions", type=int, nargs="+", required=True, metavar="N")
    add("--effect", type=float, required=True, metavar="SIZE",
        help="true session contrast, in standard deviations of a map over participants")  # fmt: skip
    add("--icc", type=float, default=0.5, help="correlation of two maps of a participant (%(default)s)")
    add("--session-sd", type=float, nargs="+", default=(), metavar="SD",
        help="standard deviation of each session's maps over participants (1)")  # fmt: skip
    add("--missing", type=float, default=0.0, metavar="SHARE", help="share of maps missing at random (%(default)s)")
    add("--dropout", type=float, default=0.0, metavar="SHARE",
        help="share of participants who leave, in turn before session two, three, … (%(default)s)")  # fmt: skip
    add("--contrasts", nargs="+", default=("mean",), metavar="CONTRAST",
        help="session contrasts as for sessionfx: mean, linear, any, 'ses-02 - ses-01' (mean)")  # fmt: skip
    add("--voxels", type=int, default=2000, dest="n_voxels", metavar="N", help="simulated studies (%(default)s)")
    add("--seed", type=int, default=0, help="equal seeds give equal tables (%(default)s)")
    add("--output", type=Path, metavar="FILE", help="the table as TSV (standard output)")
    add("--figure", type=Path, metavar="FILE", help="power by participants, as .svg, .png or .pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sessionfx-power``; return an exit code."""
    prepare_streams()
    arguments = vars(build_parser().parse_args(argv))
    output, figure = arguments.pop("output"), arguments.pop("figure")
    try:
        _write(arguments, output, figure)
    except (CommandLineError, OutputError) as error:
        print(f"sessionfx-power: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"sessionfx-power: {sentence(in_words(error))} Ask for fewer participants.", file=sys.stderr)
        return CommandLineError.exit_code
    except KeyboardInterrupt:
        print("sessionfx-power: interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _write(arguments: dict[str, object], output: Path | None, figure: Path | None) -> None:
    if figure is not None and figure.suffix.lower() not in _FORMATS:
        raise CommandLineError(f"--figure {figure} must end with one of {', '.join(_FORMATS)}.")
    from sessionfx.api.designs import draw_power, power  # with numpy and scipy: `--help` must answer at once

    table = power(**arguments)  # type: ignore[arg-type]
    try:
        table.to_csv(output or sys.stdout, sep="\t", index=False, float_format="%.6g", na_rep="n/a")
        if figure is not None:
            draw_power(table, figure)
    except OSError as error:
        raise OutputError(sentence(in_words(error))) from error

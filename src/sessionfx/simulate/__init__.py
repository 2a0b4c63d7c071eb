"""Make a small multi-session BIDS dataset whose true effects are known, for the demonstration and the tests.

The dataset holds raw BIDS files, derivatives laid out like fMRIPrep's, and the truth that generated them.

Vocabulary
----------
effect
    The difference incongruent − congruent, in percent signal change. It is the weight of the regressor that
    nilearn builds from the events with Glover's haemodynamic response. A model that uses this regressor, and
    scales each voxel by its mean, therefore estimates the effect without a conversion factor.
mean effect region
    Every session has the same expected effect here (dorsomedial frontal).
session change region
    The expected effect changes linearly over sessions here; its mean over sessions is zero (left parietal).
task region
    Both conditions evoke the same response here (occipital), so the effect is zero.
modulator
    Where it is asked for, slower responses come with a larger response of the task region: so many percent for each
    second that a response time is above the mean of its run and condition. It is the weight of the column
    `…_x_response_time` of a model with this modulator.
null
    Everywhere outside the first two regions the effect is exactly zero for every participant and session.
    Random effects are absent there too, so group tests have their nominal error rate.

surface
    Where it is asked for, the same runs are there on the cortex too, with the same effects in patches of the mesh about
    the same centres, and noise that is smooth along the mesh. In grayordinates the mean effect is in both thalami too.

Shapes: T volumes, V voxels of the head, or vertices and voxels of a surface. Time series are (T, V) arrays in
percent of the baseline.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sessionfx.errors import INTERRUPTED
from sessionfx.process import prepare_streams
from sessionfx.simulate.options import SimulationOptions, build_parser
from sessionfx.wording import one_paragraph

__all__ = ["SimulationOptions", "main", "simulate_dataset"]

DEFAULT_OPTIONS = SimulationOptions()


def simulate_dataset(output_dir: Path, options: SimulationOptions = DEFAULT_OPTIONS, *, progress: bool = False) -> Path:
    """Write the dataset: raw BIDS, ``derivatives/fmriprep`` and ``derivatives/truth``.

    Parameters
    ----------
    output_dir : Path
        The root of the dataset; must be empty or not exist.
    options : SimulationOptions
        Design, effects and noise. The same options give the same files, byte for byte.
    progress : bool
        Show a progress bar on stderr if that is a terminal.

    Returns
    -------
    Path
        `output_dir`.

    Raises
    ------
    ValueError
        If `output_dir` is a file or a folder that is not empty.
    """
    from sessionfx.simulate.dataset import write_dataset  # with numpy and nilearn: `--help` must answer at once

    output_dir = Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"{output_dir} is a file. Name a new or empty folder for the dataset.")
    if output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty. Name a new or empty folder: nothing is overwritten.")
    write_dataset(output_dir, options, progress=progress)
    return output_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sessionfx-simulate``; return 0, or 2 when an option or the folder cannot be used."""
    prepare_streams()
    arguments = vars(build_parser().parse_args(argv))
    output_dir = arguments.pop("output_dir")
    try:
        simulate_dataset(output_dir, SimulationOptions(**arguments), progress=True)
    except (ValueError, OSError) as error:
        print(f"sessionfx-simulate: {one_paragraph(str(error))}", file=sys.stderr)
        return 2
    except (MemoryError, OverflowError):
        print("sessionfx-simulate: there is not enough memory for images of this size.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sessionfx-simulate: interrupted.", file=sys.stderr)
        return INTERRUPTED
    print(output_dir)
    return 0

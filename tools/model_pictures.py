"""Make the pictures of docs/models.md from the program's own outputs.

usage: model_pictures.py  (writes docs/pictures/{modulator,conditions,f-test,responses,spikes,scaling}.svg)

A small dataset is simulated, each recipe is given to the program as a user would, and the designs and maps that it
wrote are drawn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sessionfx.report.style import CATEGORIES, INK, MUTED, as_svg, in_style

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RUN = "sub-01_ses-01_task-stroop_run-01"
CONTRAST = ("--contrast", "incongruent")
SECONDS = 75.0  # of a run that is shown
WIDTH = 8.0


class Study:
    """A simulated study, and what the program makes of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bids = folder / "bids"
        size = ("--participants", "2", "--sessions", "1", "--runs", "1", "--voxel-size", "12", "--no-raw-bold")
        _call("sessionfx.simulate", str(self.bids), *size, "--modulator", "3")
        self.events = pd.read_csv(self.bids / "sub-01" / "ses-01" / "func" / f"{RUN}_events.tsv", sep="\t")
        fmriprep = self.bids / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"
        self.confounds = pd.read_csv(fmriprep / f"{RUN}_desc-confounds_timeseries.tsv", sep="\t")
        self.bold: Any = nib.load(fmriprep / f"{RUN}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")

    def analysed(self, *options: str) -> Path:
        """Run the participant level and give the folder of the session's outputs."""
        out = Path(tempfile.mkdtemp(dir=self._folder))
        fixed = ("participant", "--participant-label", "01", "--no-report")
        _call("sessionfx", str(self.bids), str(out), *fixed, *options)
        return out / "sub-01" / "ses-01" / "func"

    def design(self, *options: str) -> pd.DataFrame:
        """Give the design matrix of the run; the index is the volumes' times (s)."""
        (path,) = self.analysed(*options).glob(f"{RUN}_*design.tsv")
        table = pd.read_csv(path, sep="\t")
        return table.set_index(1.0 + 2.0 * np.arange(len(table)))  # StartTime and RepetitionTime of the simulation

    def effect(self, scaling: str) -> Any:
        """Give the effect map of a condition under a scaling."""
        (path,) = self.analysed("--signal-scaling", scaling, *CONTRAST).glob(
            "*contrast-incongruent_stat-effect*.nii.gz"
        )
        image: Any = nib.load(path)
        return np.asarray(image.dataobj)


def _call(module: str, *arguments: str) -> None:
    subprocess.run(  # noqa: S603 - this program itself
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL
    )


def modulator(study: Study) -> tuple[Figure, str]:
    """Draw a condition and the same events as high as their response times."""
    design = study.design("--modulator", "response_time", *CONTRAST, "--contrast", "incongruent_x_response_time")
    rows = study.events[study.events["trial_type"] == "incongruent"]
    seconds = rows["response_time"].astype(float)
    figure, (above, below) = _panels(2)
    _events(above, rows["onset"], 1.0, CATEGORIES[4], "events")
    _column(above, design["incongruent"], "column of the design")
    _events(below, rows["onset"], seconds - seconds.mean(), CATEGORIES[1])
    _column(below, design["incongruent_x_response_time"])
    above.set(title="incongruent", ylabel="height")
    below.set(title="incongruent_x_response_time", ylabel="height (s)", xlabel="time (s)")
    _legend(above)
    return figure, "Events of one condition with their column, and as high as their response times with theirs"


def conditions(study: Study) -> tuple[Figure, str]:
    """Draw what a filter leaves out and what the others are called."""
    design = study.design(
        "--event-filter", "response_time >= 0.6", "--recode", "congruent=easy", "incongruent=hard", "--contrast", "hard"
    )  # fmt: skip
    figure, axes = _panels(2)
    for axis, (old, new) in zip(axes, (("congruent", "easy"), ("incongruent", "hard")), strict=True):
        rows = study.events[study.events["trial_type"] == old]
        is_kept = rows["response_time"].astype(float) >= 0.6
        _events(axis, rows["onset"][is_kept], 1.0, CATEGORIES[4], "events that are modelled")
        _events(axis, rows["onset"][~is_kept], 1.0, "#cccccc", "left out by the filter")
        _column(axis, design[new], "column of the design")
        axis.set(title=f"{old} → {new}", ylabel="height")
    axes[-1].set_xlabel("time (s)")
    _legend(axes[0])
    return figure, "Two conditions under new names; events that a filter leaves out have no response"


def f_test(study: Study) -> tuple[Figure, str]:
    """Draw the rows of an F test over the columns of the design."""
    rows = ("incongruent", "incongruent_derivative")
    design = study.design("--hrf-model", "glover + derivative", "--contrast", f"F:shape = {'; '.join(rows)}")
    shown = [column for column in design.columns if "congruent" in column] + ["trans_x", "drift_1", "constant"]
    weights = np.array([[float(column == row) for column in shown] for row in rows])
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1.4))
    scaled = design[shown] / design[shown].abs().max()
    above.imshow(scaled, cmap="gray", aspect="auto", interpolation="nearest", vmin=-1, vmax=1)
    below.imshow(weights, cmap="RdBu_r", aspect="auto", vmin=-1, vmax=1)
    for row, column in np.argwhere(weights):
        below.text(column, row, "1", ha="center", va="center", color="white")
    above.set(title="design of a run (some of its columns)", ylabel="volume")
    below.set_title("F:shape")
    below.set_yticks(range(len(rows)), ["first row", "second row"])
    below.set_xticks(range(len(shown)), shown, rotation=20, ha="right")
    return figure, "A design matrix, and below it the two rows of the F test with a weight of 1 each"


def responses(study: Study) -> tuple[Figure, str]:
    """Draw the columns that one condition has with different responses."""
    options = ("spm + derivative + dispersion", "fir")
    with_derivatives = study.design("--hrf-model", options[0], *CONTRAST)
    delays = study.design(
        "--hrf-model", options[1], "--fir-delays", "0", "1", "2", "3", "--contrast", "incongruent_delay_2"
    )  # fmt: skip
    rows = study.events[study.events["trial_type"] == "incongruent"]
    figure, (above, below) = _panels(2)
    for axis, design, name in ((above, with_derivatives, options[0]), (below, delays, "fir --fir-delays 0 1 2 3")):
        for index, column in enumerate(own for own in design.columns if str(own).startswith("incongruent")):
            is_volumes = "delay" in column
            axis.plot(
                design.index, design[column] + (1.3 * index if is_volumes else 0), color=CATEGORIES[index],
                label=column, drawstyle="steps-mid" if is_volumes else "default",
            )  # fmt: skip
        for onset in rows["onset"]:
            axis.axvline(onset, color="#cccccc", zorder=0)
        axis.set_title(f"--hrf-model {name}" if axis is below else f"--hrf-model '{name}'")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    below.set(xlabel="time (s); grey lines: onsets", yticks=[])
    above.set_ylabel("height")
    return figure, "Columns of a condition: response, derivative and dispersion; and one per delay in volumes"


def spikes(study: Study) -> tuple[Figure, str]:
    """Draw the motion of a run, and the regressors of volumes beyond a threshold."""
    threshold = 0.08  # low, so that this still participant has several
    design = study.design("--confounds", "none", "--fd-threshold", str(threshold), *CONTRAST)
    names = [column for column in design.columns if str(column).startswith("spike_")]
    figure, (above, below) = _panels(2, seconds=design.index[-1])
    above.plot(design.index, study.confounds["framewise_displacement"], color=INK, linewidth=0.9)
    above.axhline(threshold, color=CATEGORIES[5], label=f"--fd-threshold {threshold}")
    above.set(title="framewise_displacement", ylabel="mm", ylim=(0, 0.2))
    for index, name in enumerate(names):
        below.plot(design.index, design[name] + index, color=CATEGORIES[0], linewidth=0.9, drawstyle="steps-mid")
    below.set(title=f"{len(names)} columns, {names[0]} to {names[-1]}", xlabel="time (s)", yticks=[])
    _legend(above)
    return figure, "Framewise displacement with a threshold; below, one column for each volume above it"


def scaling(study: Study) -> tuple[Figure, str]:
    """Draw how much larger effects are under a scaling than in percent of the voxel's own mean."""
    mean = np.asarray(study.bold.dataobj).mean(axis=-1)
    in_percent = study.effect("voxel")
    is_known = np.isfinite(in_percent) & (np.abs(in_percent) > 0.1)
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("grand-mean", "none"), strict=True):
        ratio = study.effect(name)[is_known] / in_percent[is_known]
        axis.scatter(mean[is_known], ratio, s=4, color=CATEGORIES[0], linewidths=0, rasterized=True)
        axis.set(title=f"--signal-scaling {name}", xlabel="mean intensity of the voxel", ylabel="effect / effect in %")
    return figure, "Effects under two scalings, divided by those in percent of each voxel's mean, by mean intensity"


def _panels(n_panels: int, seconds: float = SECONDS) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, 1.7 * n_panels + 0.3), layout="constrained")
    axes = figure.subplots(n_panels, 1, sharex=True)
    axes[0].set_xlim(0, seconds)
    return figure, axes


def _events(axis: Any, onsets: pd.Series, height: Any, colour: str, label: str = "") -> None:
    axis.bar(onsets, height, width=0.5, color=colour, label=label or None)


def _column(axis: Any, column: pd.Series, label: str = "") -> None:
    axis.axhline(0, color=MUTED, linewidth=0.7)
    axis.plot(column.index, column, color=INK, label=label or None)


def _legend(axis: Any) -> None:
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


_DRAWN: tuple[Callable[[Study], tuple[Figure, str]], ...] = (modulator, conditions, f_test, responses, spikes, scaling)


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as folder, in_style():
        study = Study(Path(folder))
        for draw in _DRAWN:
            figure, alt = draw(study)
            path = PICTURES / f"{draw.__name__.replace('_', '-')}.svg"
            path.write_bytes(as_svg(figure, alt).content)
            print(f"{path.name}: {path.stat().st_size // 1000} kB. {alt}", flush=True)


if __name__ == "__main__":
    main()

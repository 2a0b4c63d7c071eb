"""The pictures of docs/models.md, made anew with `python tools/model_pictures.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sessionfx.ask.event_model import parse_event_model
from sessionfx.bids.tables import table_text
from sessionfx.options import FirstLevelModel
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.design import make_design
from sessionfx.participant.events import read_events
from sessionfx.participant.timing import Timing
from sessionfx.report.style import CATEGORIES, INK, in_style
from sessionfx.simulate.signals import make_events

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
REPETITION_TIME, SECONDS_SHOWN = 0.5, 75.0
COLUMNS = ("congruent", "congruent_x_response_time")


@in_style()
def draw_modulator() -> None:
    """Draw events of a simulated run, the response of their condition, and the modulated column beside it."""
    table = make_events(120.0, np.random.default_rng(3))
    times = np.arange(0, 120.0, REPETITION_TIME)
    timing = Timing(times, REPETITION_TIME, 0.0, 120.0)
    model = FirstLevelModel(modulator=("response_time",))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.tsv"
        path.write_text(table_text(table), encoding="utf-8")
        events = read_events(path, first_volume=0.0, end=120.0, model=parse_event_model(model))
    design = make_design(timing, events, Confounds(pd.DataFrame(index=range(len(times)))), model).matrix
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, column, colour in zip(panels, COLUMNS, CATEGORIES, strict=False):
        rows = events.table[events.table["trial_type"] == column]
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.vlines(rows["onset"], 0, rows["modulation"], color=colour, linewidth=2.5, alpha=0.5, label="events")
        axes.plot(times, design[column], color=INK, linewidth=1.4, label="column of the design")
        axes.set(title=column, xlim=(0, SECONDS_SHOWN))
    panels[0].set(ylabel="height")
    panels[1].set(xlabel="time (s)", ylabel="height (s)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.savefig(PICTURES / "modulator.png", dpi=110)


if __name__ == "__main__":
    draw_modulator()

"""Regions of an atlas in a run and a session: the mean series of each region, fitted as that of a voxel.

The variance of a mean over voxels cannot be told from theirs, as neighbours go together. So the series are averaged,
scaled as the voxels' are, and the mean is fitted with the run's design: what nilearn's `run_glm` gives of the series of
a `NiftiLabelsMasker`. Runs are combined as maps are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sessionfx.ask.contrasts import Contrast
from sessionfx.bids.atlas import Atlas, atlas_label, read_atlas
from sessionfx.bids.region_tables import count_column
from sessionfx.options import FirstLevelModel
from sessionfx.participant.bold import RunData
from sessionfx.participant.glm import VOXELS_PER_BLOCK, fit_run, scaling
from sessionfx.space.regions import LEAST_SHARE, Regions
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate

if TYPE_CHECKING:
    from sessionfx.participant.run import FittedRun


@dataclass(frozen=True)
class RunRegions:
    """The regions of one atlas in a run."""

    regions: Regions  # in the run's space
    n_voxels: NDArray[np.intp]  # (R,): that have data
    estimates: dict[str, StatMap[Any]]  # by contrast label, on the grid that has regions for voxels


@lru_cache(maxsize=8)
def _atlas(files: tuple[Path, Path | None]) -> Atlas:
    """Read an atlas once for all runs that a worker fits; its files do not change while a call lasts."""
    return read_atlas(*files)


def fit_regions(
    data: RunData,
    atlases: Sequence[tuple[Path, Path | None]],
    matrix: NDArray[np.float64],
    vectors: Mapping[str, NDArray[np.float64]],
    model: FirstLevelModel,
) -> dict[str, RunRegions]:
    """Fit the mean series of the regions of each atlas, given by `Atlas.source`.

    Parameters
    ----------
    data : RunData
    atlases : sequence of (Path, Path or None)
    matrix : ndarray of shape (T, P)
        The design.
    vectors : mapping of str to ndarray
        Contrasts, as `glm.fit_run` wants them.
    model : FirstLevelModel

    Returns
    -------
    dict of str to RunRegions
        By the atlas' label.
    """
    found = {}
    for files in atlases:
        regions = _atlas(files).on(data.space)
        counts = regions.counts(data.mask)
        enough = regions.shares(counts) >= LEAST_SHARE
        estimates = {}
        if enough.any():
            series = mean_series(data.signal, data.mask, regions, model.signal_scaling)[:, enough]
            # scaled already; taking out means changes nothing that the design's constant does not
            fitted = fit_run(series, matrix, vectors, model.noise_model, "none")
            estimates = {
                label: StatMap.where_determined(estimate, regions.as_mask(enough), regions.grid)
                for label, estimate in fitted.items()
            }
        found[atlas_label(files[0])] = RunRegions(regions, counts, estimates)
    return found


def mean_series(
    signal: NDArray[np.floating], mask: NDArray[np.bool_], regions: Regions, signal_scaling: str
) -> NDArray[np.float64]:
    """Average the scaled signal, of shape (T, V), over the voxels of each region: (T, R), NaN without any."""
    numbers = regions.numbers[mask]
    inside, scale = np.flatnonzero(numbers), scaling(signal, signal_scaling)
    sums = np.zeros((len(regions.indices), len(signal)))
    for start in range(0, len(inside), VOXELS_PER_BLOCK):
        block = inside[start : start + VOXELS_PER_BLOCK]
        where = (numbers[block] - 1, np.arange(len(block)))
        sums += (
            sparse.csr_array((np.ones(len(block)), where), shape=(len(sums), len(block))) @ scale(signal[:, block]).T
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums.T / regions.counts(mask))


def of_atlas(fitted: Sequence[FittedRun], atlas: str, contrast: Contrast) -> list[FittedRun]:
    """Give fitted runs that have the regions of an atlas in place of voxels, if all with a contrast share some."""
    found = [(run.regions[atlas].estimates, contrast.of_task(run.run.entities["task"]).label) for run in fitted]
    masks = [estimates[label].mask for estimates, label in found if label in estimates]
    if not masks or not np.logical_and.reduce(masks).any():
        return []
    return [replace(run, estimates=run.regions[atlas].estimates) for run in fitted]


def session_table(fitted: Sequence[FittedRun], atlas: str, combined: StatMap[Any] | None) -> pd.DataFrame:
    """List the regions of a session: its estimate, and the voxels that the run with the fewest has."""
    regions = fitted[0].regions[atlas].regions
    n_voxels = np.min([run.regions[atlas].n_voxels for run in fitted], axis=0)
    columns = {name: np.full(len(n_voxels), np.nan) for name in ("effect", "variance", "t", "z", "dof")}
    if combined is not None:
        estimate: Estimate = combined.estimate
        chosen = combined.mask[:, 0, 0]
        for name, values in columns.items():
            values[chosen] = getattr(estimate, name)
    shares = regions.shares(n_voxels)
    names = {"index": regions.indices, "region": regions.names}
    return pd.DataFrame({**names, **columns, count_column(regions.space): n_voxels, "share": shares})
